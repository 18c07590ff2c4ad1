//! Incremental pulls: rows that are not newer than the last pull are left out, and the greatest value is remembered.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, Scalar as ArrowScalar, StringArray,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::{filter, filter_record_batch, max, max_string};
use datafusion::arrow::datatypes::{
    DataType as Arrow, Date32Type, Decimal128Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use datamesh_app::ports::Pull;
use datamesh_core::quality::RULE_RECORD;
use datamesh_core::scalar::Scalar;
use datamesh_core::verdict::Reason;
use datamesh_core::watermark::{self, WatermarkReport};
use datamesh_core::{DataType, Error, ErrorCode, Result, Table};
use futures::StreamExt;

use super::Hidden;
use super::typed::from_text;
use crate::error::{arrow, wrap};

/// The watermark of one table's pull.
#[derive(Debug)]
pub(crate) struct WatermarkPlan {
    /// Index of the column.
    column: usize,
    name: String,
    data_type: DataType,
    /// Only greater values are read: as text, and as an array of one value.
    after: Option<(String, ArrayRef)>,
    skipped: AtomicU64,
}

impl WatermarkPlan {
    pub(crate) fn new(table: &Table, schema: &SchemaRef, pull: &Pull) -> Result<Self> {
        let column = table.columns.iter().position(|column| column.name == pull.column).ok_or_else(|| {
            Error::new(ErrorCode::InvalidManifest, format!("table `{}` has no column `{}`", table.name, pull.column))
        })?;
        let data_type = table.columns[column].data_type.clone();
        let after = match &pull.after {
            None => None,
            Some(text) => {
                let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
                let (value, broken) = from_text(&texts, &data_type, schema.field(column).data_type())?;
                if broken.value(0) {
                    let why = format!("the last value of watermark `{}`, `{text}`, is no {data_type}", pull.column);
                    return Err(Error::new(ErrorCode::IncompatibleChange, why));
                }
                Some((text.clone(), value))
            }
        };
        Ok(Self { column, name: pull.column.clone(), data_type, after, skipped: AtomicU64::new(0) })
    }

    /// Index of the column.
    pub(crate) fn column(&self) -> usize {
        self.column
    }

    /// Remembers the greatest value of the rows, those in `broken` aside.
    pub(crate) fn observe(
        &self,
        columns: &RecordBatch,
        broken: &BooleanBuffer,
        last: &mut Option<Scalar>,
    ) -> Result<()> {
        let mut values = columns.column(self.column).clone();
        if broken.count_set_bits() > 0 {
            values = filter(&values, &BooleanArray::new(!broken, None)).map_err(arrow)?;
        }
        if let Some(found) = greatest(&values) {
            *last = Some(match last.take() {
                Some(last) => watermark::greater(last, found),
                None => found,
            });
        }
        Ok(())
    }

    /// What the report says, once the greatest value is known.
    pub(crate) fn report(&self, last: Option<&Scalar>) -> WatermarkReport {
        WatermarkReport {
            column: self.name.clone(),
            after: self.after.as_ref().map(|(text, _)| text.clone()),
            last: last.and_then(|last| watermark::text(last, &self.data_type)),
            skipped: self.skipped.load(Ordering::Relaxed),
        }
    }

    /// The newer rows of a batch of the source schema. A row whose value could not be read is among them: nothing tells
    /// that it is old, and it must be seen.
    fn newer(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let Some((_, after)) = &self.after else { return Ok(batch.clone()) };
        let values = batch.column(self.column);
        let newer = cmp::gt(values, &ArrowScalar::new(after.clone())).map_err(arrow)?;
        let faults = batch.column_by_name(Hidden::FAULTS).and_then(|faults| faults.as_string_opt::<i32>().cloned());
        let keep = BooleanBuffer::collect_bool(batch.num_rows(), |row| {
            if newer.is_valid(row) {
                return newer.value(row);
            }
            faults.as_ref().is_some_and(|faults| faults.is_valid(row) && self.unread(faults.value(row)))
        });
        let kept = keep.count_set_bits();
        if kept == batch.num_rows() {
            return Ok(batch.clone());
        }
        self.skipped.fetch_add((batch.num_rows() - kept) as u64, Ordering::Relaxed);
        filter_record_batch(batch, &BooleanArray::new(keep, None)).map_err(arrow)
    }

    fn unread(&self, faults: &str) -> bool {
        let faults: Vec<Reason> = serde_json::from_str(faults).unwrap_or_default();
        faults.iter().any(|fault| fault.rule == RULE_RECORD || fault.column == self.name)
    }
}

fn greatest(values: &ArrayRef) -> Option<Scalar> {
    match values.data_type() {
        Arrow::Int32 => max(values.as_primitive::<Int32Type>()).map(|value| Scalar::Integer(value.into())),
        Arrow::Int64 => max(values.as_primitive::<Int64Type>()).map(Scalar::Integer),
        Arrow::Date32 => max(values.as_primitive::<Date32Type>()).map(|value| Scalar::Integer(value.into())),
        Arrow::Timestamp(..) => max(values.as_primitive_opt::<TimestampMicrosecondType>()?).map(Scalar::Integer),
        Arrow::Decimal128(..) => max(values.as_primitive::<Decimal128Type>()).map(Scalar::Decimal),
        Arrow::Utf8 => max_string(values.as_string::<i32>()).map(|value| Scalar::Text(value.to_owned())),
        _ => None,
    }
}

/// Leaves out what a pull has read before.
#[derive(Debug)]
pub(crate) struct WatermarkExec {
    input: Arc<dyn ExecutionPlan>,
    plan: Arc<WatermarkPlan>,
    properties: Arc<PlanProperties>,
}

impl WatermarkExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, plan: Arc<WatermarkPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, plan, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WatermarkExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.plan.after.as_ref().map_or("everything", |(text, _)| text);
        write!(f, "WatermarkExec: {} > {after}", self.plan.name)
    }
}

impl ExecutionPlan for WatermarkExec {
    fn name(&self) -> &'static str {
        "WatermarkExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(child), true) => Ok(Arc::new(Self::new(child, self.plan.clone()))),
            _ => Err(DataFusionError::Internal("expected one input".into())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let plan = self.plan.clone();
        let stream = input.map(move |batch| batch.and_then(|batch| plan.newer(&batch).map_err(wrap)));
        let full =
            stream.filter(|batch| futures::future::ready(!batch.as_ref().is_ok_and(|batch| batch.num_rows() == 0)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), full)))
    }
}
