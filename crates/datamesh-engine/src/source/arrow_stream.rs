//! Batches of whoever embeds the mesh, pulled on a thread that may block.

#[cfg(test)]
mod tests;

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
use datamesh_app::ports::ArrowInput;
use datamesh_core::{Error, ErrorCode};

use super::arrow_batches::{ArrowBatches, guarded};
use super::exec::QUEUE;
use super::{TableLayout, source_schema};
use crate::error::wrap;

/// Reads a stream of batches once.
#[derive(Debug)]
pub(super) struct ArrowExec {
    layout: Arc<TableLayout>,
    input: ArrowInput,
    properties: Arc<PlanProperties>,
}

impl ArrowExec {
    pub(super) fn new(layout: Arc<TableLayout>, input: ArrowInput) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source_schema(&layout.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { layout, input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ArrowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrowExec: table={}, from={}", self.layout.table.name, self.input.name)
    }
}

impl ExecutionPlan for ArrowExec {
    fn name(&self) -> &'static str {
        "ArrowExec"
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

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut reader = self.input.take().map_err(wrap)?;
        let (layout, name) = (self.layout.clone(), self.input.name.clone());
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), QUEUE);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let unreadable = |why: String| {
                wrap(Error::new(ErrorCode::SourceUnreadable, format!("the stream of `{name}` cannot be read: {why}")))
            };
            let mut batches = ArrowBatches::new(&layout, 0, reader.schema())?;
            loop {
                let next = guarded(|| reader.next().transpose().map_err(|error| error.to_string()));
                let Some(batch) = next.map_err(unreadable)? else { break };
                // One batch may be all there is, and shares its memory with the others where it is a part of a table.
                let bytes: usize =
                    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
                let (rows, mut told, mut done) = (batch.num_rows(), 0, 0);
                let open = batches.push(&batch, &mut |part| {
                    done += part.num_rows();
                    let read = if done >= rows { bytes } else { bytes / rows.max(1) * done };
                    layout.facts.read(read.saturating_sub(told) as u64);
                    told = told.max(read);
                    sender.blocking_send(Ok(part)).is_ok()
                })?;
                if !open {
                    return Ok(());
                }
            }
            batches.finish();
            Ok::<(), DataFusionError>(())
        });
        Ok(builder.build())
    }
}
