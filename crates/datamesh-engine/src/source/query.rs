//! The rows of a query as a source: brought to the contract's columns, with what does not fit as a fault of its row.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::datatypes::DataType as Arrow;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use datamesh_core::DataType;
use futures::TryStreamExt;

use super::row_hash::RowHasher;
use super::typed::{convert, is_convertible};
use super::{TableLayout, source_schema};
use crate::error::wrap;

/// Yields the rows of a physical plan as source batches, partition by partition.
#[derive(Debug)]
pub(crate) struct QueryExec {
    layout: Arc<TableLayout>,
    input: Arc<dyn ExecutionPlan>,
    /// Rows so far, over all partitions: a row's position is its place in the order in which rows came.
    rows: Arc<AtomicU64>,
    properties: Arc<PlanProperties>,
}

impl QueryExec {
    pub(crate) fn new(layout: Arc<TableLayout>, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::build(layout, input, Arc::default())
    }

    fn build(layout: Arc<TableLayout>, input: Arc<dyn ExecutionPlan>, rows: Arc<AtomicU64>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source_schema(&layout.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { layout, input, rows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for QueryExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueryExec: table={}", self.layout.table.name)
    }
}

impl ExecutionPlan for QueryExec {
    fn name(&self) -> &'static str {
        "QueryExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::build(self.layout.clone(), input, self.rows.clone()))),
            _ => Err(DataFusionError::Internal("expected one input".into())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let state = (input, RowHasher::default(), self.layout.clone(), self.rows.clone());
        let stream = futures::stream::try_unfold(Some(state), |state| async move {
            let Some((mut input, mut hasher, layout, rows)) = state else { return Ok(None) };
            let Some(batch) = input.try_next().await? else {
                layout.facts.add_content(hasher.content());
                return Ok(None);
            };
            layout.facts.read(batch.get_array_memory_size() as u64);
            hasher.update(&layout, &batch).map_err(wrap)?;
            let position = rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            let out = convert(&layout, &batch, 0, position).map_err(wrap)?;
            Ok(Some((out, Some((input, hasher, layout, rows)))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

/// Whether values of an Arrow type can ever be values of a contract type.
pub(crate) fn fits(from: &Arrow, to: &DataType) -> bool {
    let text = |from: &Arrow| matches!(from, Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View);
    match (from, to) {
        (Arrow::Dictionary(_, values), _) => fits(values, to),
        (Arrow::Null, _) => true,
        (Arrow::List(inner) | Arrow::LargeList(inner) | Arrow::FixedSizeList(inner, _), DataType::Array(item)) => {
            fits(inner.data_type(), &item.data_type)
        }
        (Arrow::Struct(fields), DataType::Struct(columns)) => columns.iter().all(|column| {
            let field = fields.iter().find(|field| *field.name() == column.name);
            field.is_none_or(|field| fits(field.data_type(), &column.data_type))
        }),
        (Arrow::Map(entries, _), DataType::Map(key, value)) => match entries.data_type() {
            Arrow::Struct(fields) if fields.len() == 2 => {
                fits(fields[0].data_type(), key) && fits(fields[1].data_type(), &value.data_type)
            }
            _ => false,
        },
        (_, DataType::Array(_) | DataType::Struct(_) | DataType::Map(..)) => false,
        (from, _) if text(from) => true,
        (_, DataType::String | DataType::Json | DataType::Uuid) => false,
        (from, to) => {
            let target = datamesh_quality::arrow_types::arrow_type(to);
            *from == target || is_convertible(from, &target)
        }
    }
}
