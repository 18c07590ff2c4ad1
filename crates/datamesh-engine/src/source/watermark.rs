//! Incremental pulls: rows that are not newer than the last pull are left out, and the greatest value is remembered. A row
//! that does not move the watermark is met by every pull; once it was held back it is not held back again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, Scalar as ArrowScalar, StringArray, new_null_array,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::{can_cast_types, cast, filter, filter_record_batch, max, max_string};
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
use datamesh_iceberg::Storage;
use futures::StreamExt;
use twox_hash::XxHash3_128;

use super::typed::from_text;
use super::{Hidden, row_hash};
use crate::error::{arrow, wrap};
use crate::quarantine;

/// Rows that earlier pulls held back: how many there are of each identity.
pub(crate) type HeldRows = HashMap<u128, u64>;

/// Blocking: reads quarantine files of a table whose rows have this schema.
pub(crate) fn held_rows(storage: &Storage, schema: &SchemaRef, files: &[String]) -> Result<HeldRows> {
    let mut held = HeldRows::new();
    for url in files {
        for batch in quarantine::read(storage, url)? {
            let batch = batch?;
            let rows = batch.num_rows();
            let column = |name: &str, wanted: &Arrow| match batch.column_by_name(name) {
                Some(array) if array.data_type() == wanted => Ok(array.clone()),
                // The contract's type may be a wider one now.
                Some(array) if can_cast_types(array.data_type(), wanted) => cast(array, wanted).map_err(arrow),
                _ => Ok(new_null_array(wanted, rows)),
            };
            let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type()));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let raw = column(Hidden::RAW, &Arrow::Binary)?;
            for identity in identities(schema, &columns, &raw)? {
                *held.entry(identity).or_default() += 1;
            }
        }
    }
    Ok(held)
}

/// What tells that a row is the same one: its raw text where it has one, which is where it could not be read, else its
/// values.
fn identities(schema: &SchemaRef, columns: &[ArrayRef], raw: &ArrayRef) -> Result<Vec<u128>> {
    let raw = raw.as_binary::<i32>();
    let mut identities = vec![0; raw.len()];
    row_hash::add_rows(schema.fields(), columns, &mut identities)?;
    for (row, identity) in identities.iter_mut().enumerate().filter(|(row, _)| raw.is_valid(*row)) {
        *identity = XxHash3_128::oneshot(raw.value(row));
    }
    Ok(identities)
}

/// The watermark of one table's pull.
#[derive(Debug)]
pub(crate) struct WatermarkPlan {
    /// Index of the column.
    column: usize,
    name: String,
    data_type: DataType,
    /// Only greater values are read: as text, and as an array of one value.
    after: Option<(String, ArrayRef)>,
    /// Whether rows without a value are read too.
    first: bool,
    skipped: AtomicU64,
    /// What earlier pulls held back and this one has not met yet; `None`: nothing.
    held: Option<Mutex<HeldRows>>,
    held_before: AtomicU64,
}

impl WatermarkPlan {
    pub(crate) fn new(table: &Table, schema: &SchemaRef, pull: &Pull, held: HeldRows) -> Result<Self> {
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
        Ok(Self {
            column,
            name: pull.column.clone(),
            data_type,
            after,
            first: pull.first,
            skipped: AtomicU64::new(0),
            held: (!held.is_empty()).then(|| Mutex::new(held)),
            held_before: AtomicU64::new(0),
        })
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

    /// Which rows of a batch an earlier pull held back already, among `candidates`. Each one it held back counts once.
    pub(crate) fn held_before(
        &self,
        columns: &RecordBatch,
        raw: &ArrayRef,
        candidates: &BooleanBuffer,
    ) -> Result<Option<BooleanBuffer>> {
        let Some(held) = self.held.as_ref().filter(|_| candidates.count_set_bits() > 0) else { return Ok(None) };
        let identities = identities(&columns.schema(), columns.columns(), raw)?;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let met = BooleanBuffer::collect_bool(identities.len(), |row| match held.get_mut(&identities[row]) {
            Some(left) if *left > 0 && candidates.value(row) => {
                *left -= 1;
                true
            }
            _ => false,
        });
        let count = met.count_set_bits();
        self.held_before.fetch_add(count as u64, Ordering::Relaxed);
        Ok((count > 0).then_some(met))
    }

    /// Rows that were left out because an earlier pull held them back.
    pub(crate) fn count_held_before(&self) -> u64 {
        self.held_before.load(Ordering::Relaxed)
    }

    /// What the report says, once the greatest value is known.
    pub(crate) fn report(&self, last: Option<&Scalar>) -> WatermarkReport {
        WatermarkReport {
            column: self.name.clone(),
            after: self.after.as_ref().map(|(text, _)| text.clone()),
            last: last.and_then(|last| watermark::text(last, &self.data_type)),
            skipped: self.skipped.load(Ordering::Relaxed),
            held_before: self.count_held_before(),
        }
    }

    /// The newer rows of a batch of the source schema. A row whose value could not be read is among them: nothing tells
    /// that it is old, and it must be seen.
    fn newer(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let values = batch.column(self.column);
        let newer = match &self.after {
            Some((_, after)) => cmp::gt(values, &ArrowScalar::new(after.clone())).map_err(arrow)?,
            None if self.first => return Ok(batch.clone()),
            // No row had a value that counts, so far; those without one were read.
            None => BooleanArray::new(BooleanBuffer::new_set(values.len()), values.logical_nulls()),
        };
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
