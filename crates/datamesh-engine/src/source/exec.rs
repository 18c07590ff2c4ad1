//! The source as an execution plan: one partition for each file, up to the engine's parallelism.

use std::fmt;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use datamesh_core::contract::SourceFormat;

use super::{SourceFile, TableLayout, source_schema};

/// How many batches may wait for the audit.
pub(super) const QUEUE: usize = 2;

/// Reads a table's source files.
#[derive(Debug)]
pub(crate) struct SourceExec {
    layout: Arc<TableLayout>,
    /// For each partition its files, with their index in the source.
    partitions: Vec<Vec<(u32, SourceFile)>>,
    properties: Arc<PlanProperties>,
}

impl SourceExec {
    pub(crate) fn new(layout: Arc<TableLayout>, files: &[SourceFile], parallelism: usize) -> Self {
        let count = files.len().clamp(1, parallelism.max(1));
        let mut partitions: Vec<Vec<(u32, SourceFile)>> = vec![Vec::new(); count];
        for (index, file) in (0_u32..).zip(files) {
            partitions[index as usize % count].push((index, file.clone()));
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source_schema(&layout.schema)),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { layout, partitions, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: usize = self.partitions.iter().map(Vec::len).sum();
        write!(f, "SourceExec: table={}, files={files}", self.layout.table.name)
    }
}

impl ExecutionPlan for SourceExec {
    fn name(&self) -> &'static str {
        "SourceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let files = self.partitions.get(partition).cloned().unwrap_or_default();
        let layout = self.layout.clone();
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), QUEUE);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            for (index, file) in files {
                let mut open = true;
                let mut emit = |batch| {
                    open = sender.blocking_send(Ok(batch)).is_ok();
                    open
                };
                read(&layout, &file, index, &mut emit)?;
                if !open {
                    break;
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }
}

/// Reads a file of any format under a table's contract.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(datafusion::arrow::array::RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    match file.format {
        SourceFormat::Csv => super::csv::read(layout, file, index, emit),
        SourceFormat::Ndjson => super::json::read(layout, file, index, emit),
        SourceFormat::Parquet => super::parquet::read(layout, file, index, emit),
        SourceFormat::Json => super::json_array::read(layout, file, index, emit),
        SourceFormat::Arrow => super::ipc::read(layout, file, index, emit),
        SourceFormat::Avro => super::avro::read(layout, file, index, emit),
    }
}
