//! Quarantined rows as a source: what was read exactly stays as it is, what was not is read again from its raw text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, RecordBatch, StringArray, StringBuilder,
    UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use datamesh_app::ports::QuarantineInput;
use datamesh_core::quality::{RULE_RECORD, RULE_TYPE};
use datamesh_core::verdict::Reason;
use datamesh_core::{DataType, Result};
use datamesh_iceberg::Storage;

use super::build::{BatchBuilder, ObjectKeys};
use super::typed::convert;
use super::{Content, Hidden, RawFields, TableLayout, encode_faults, source_schema};
use crate::error::{arrow, wrap};
use crate::quarantine;

/// How many batches may wait for the audit.
const QUEUE: usize = 2;

/// The quarantine files of a retry, and the names that their rows are shown under.
#[derive(Clone, Debug)]
pub(crate) struct Quarantined {
    storage: Storage,
    files: Vec<(u64, String)>,
    /// Where rows came from, by index, with the fields of their raw text.
    origins: Vec<(String, Option<String>)>,
}

impl Quarantined {
    /// Blocking: reads where the rows came from.
    pub(crate) fn open(storage: &Storage, input: &QuarantineInput) -> Result<Self> {
        let files: Vec<(u64, String)> =
            input.files.iter().map(|(publication, file)| (*publication, file.path.clone())).collect();
        let mut origins: BTreeSet<(String, Option<String>)> = BTreeSet::new();
        for (publication, url) in &files {
            for batch in quarantine::read(storage, url)? {
                let batch = batch?;
                let (names, fields) = (text(&batch, Hidden::FILE), text(&batch, quarantine::FIELDS));
                for row in 0..batch.num_rows() {
                    let name = cell(&names, row).unwrap_or_else(|| fallback(*publication));
                    origins.insert((name, cell(&fields, row)));
                }
            }
        }
        Ok(Self { storage: storage.clone(), files, origins: origins.into_iter().collect() })
    }

    /// The names that rows are shown under, by index.
    pub(crate) fn names(&self) -> Vec<String> {
        self.origins.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Tells the audit how the raw texts of rows that fail again are read.
    pub(crate) fn tell_fields(&self, told: &RawFields) {
        for (index, (_, fields)) in (0_u32..).zip(&self.origins) {
            if let Some(fields) = fields {
                told.add(index, fields.clone());
            }
        }
    }

    fn index(&self, origin: &(String, Option<String>)) -> u32 {
        self.origins.binary_search(origin).unwrap_or(0) as u32
    }
}

fn text(batch: &RecordBatch, column: &str) -> Option<StringArray> {
    batch.column_by_name(column).and_then(|array| array.as_string_opt::<i32>().cloned())
}

fn cell(array: &Option<StringArray>, row: usize) -> Option<String> {
    array.as_ref().filter(|array| array.is_valid(row)).map(|array| array.value(row).to_owned())
}

/// What rows are shown under whose place was not known.
fn fallback(publication: u64) -> String {
    format!("quarantine of publication {publication}")
}

/// Reads quarantine files.
#[derive(Debug)]
pub(crate) struct QuarantineExec {
    layout: Arc<TableLayout>,
    source: Arc<Quarantined>,
    properties: Arc<PlanProperties>,
}

impl QuarantineExec {
    pub(crate) fn new(layout: Arc<TableLayout>, source: Arc<Quarantined>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source_schema(&layout.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { layout, source, properties: Arc::new(properties) }
    }
}

impl DisplayAs for QuarantineExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuarantineExec: table={}, files={}", self.layout.table.name, self.source.files.len())
    }
}

impl ExecutionPlan for QuarantineExec {
    fn name(&self) -> &'static str {
        "QuarantineExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (layout, source) = (self.layout.clone(), self.source.clone());
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), QUEUE);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let mut content = Content::default();
            for (publication, url) in &source.files {
                content.add(*publication, url.as_bytes());
                let mut row = 0;
                for batch in quarantine::read(&source.storage, url).map_err(wrap)? {
                    let batch = batch.map_err(wrap)?;
                    let out = reread(&layout, &source, *publication, &batch, row).map_err(wrap)?;
                    row += batch.num_rows() as u64;
                    if sender.blocking_send(Ok(out)).is_err() {
                        return Ok(());
                    }
                }
            }
            layout.facts.add_content(content);
            Ok(())
        });
        Ok(builder.build())
    }
}

/// What a raw text is, as its reader left word.
enum Raw {
    /// Delimited text with these fields.
    Fields(Vec<String>),
    /// A JSON object, as it was in its file.
    Json,
    /// A JSON object that was made of typed cells.
    Cells,
}

/// Brings a batch of quarantined rows to the contract's columns.
fn reread(
    layout: &TableLayout,
    source: &Quarantined,
    publication: u64,
    batch: &RecordBatch,
    first: u64,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let reasons = quarantine::decode(batch);
    let raw = batch.column_by_name(Hidden::RAW).and_then(|array| array.as_any().downcast_ref::<BinaryArray>().cloned());
    let (files, fields) = (text(batch, Hidden::FILE), text(batch, quarantine::FIELDS));
    let at = batch.column_by_name(Hidden::POSITION).and_then(|array| array.as_primitive_opt::<UInt64Type>().cloned());

    let mut again = BatchBuilder::new(layout, 0);
    let keys = ObjectKeys::new(&layout.table.columns);
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut kinds = Vec::with_capacity(rows);
    for row in 0..rows {
        let bytes = raw.as_ref().filter(|raw| raw.is_valid(row)).map(|raw| raw.value(row));
        let Some(bytes) = bytes else {
            (0..layout.table.columns.len()).for_each(|column| again.append_null(column));
            again.end_record(0, Vec::new);
            kinds.push(None);
            continue;
        };
        let kind = match cell(&fields, row) {
            Some(list) if list == quarantine::JSON => Raw::Json,
            Some(list) => {
                let names = known.entry(list).or_insert_with_key(|list| serde_json::from_str(list).unwrap_or_default());
                Raw::Fields(names.clone())
            }
            None => Raw::Cells,
        };
        match &kind {
            Raw::Fields(names) => super::csv::reread(layout, bytes, names, &mut again),
            Raw::Json | Raw::Cells => super::json::reread(&keys, bytes, &mut again),
        }
        kinds.push(Some(kind));
    }
    let again = again.finish()?;

    // What was read exactly; where the contract's type is another one now, it must still fit.
    let own: Vec<usize> =
        (0..batch.num_columns()).filter(|at| layout.table.column(batch.schema().field(*at).name()).is_some()).collect();
    let exact = convert(layout, &batch.project(&own).map_err(arrow)?, 0, 0)?;
    let top = |path: &str| path.split(['.', '[', '{']).next().unwrap_or(path).to_owned();
    let takes = |row: usize, column: &datamesh_core::Column| -> bool {
        let Some(kind) = &kinds[row] else { return false };
        if reasons[row].iter().any(|reason| reason.rule == RULE_RECORD) {
            return true;
        }
        let unread = reasons[row].iter().any(|reason| reason.rule == RULE_TYPE && top(&reason.column) == column.name);
        // JSON has no form for bytes that readers and writers agree on.
        let readable = !(matches!(kind, Raw::Cells) && column.data_type == DataType::Binary);
        (unread && readable) || batch.column_by_name(&column.name).is_none()
    };
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, column) in layout.table.columns.iter().enumerate() {
        let mask: BooleanArray = (0..rows).map(|row| Some(takes(row, column))).collect();
        columns.push(match mask.true_count() {
            0 => exact.column(index).clone(),
            _ => zip(&mask, again.column(index), exact.column(index)).map_err(arrow)?,
        });
    }
    let width = layout.table.columns.len();
    let faults = |batch: &RecordBatch, row: usize| -> Vec<Reason> {
        let array = batch.column(width + 1).as_string::<i32>();
        if array.is_valid(row) { serde_json::from_str(array.value(row)).unwrap_or_default() } else { Vec::new() }
    };
    let (mut texts, mut found) = (BinaryBuilder::new(), StringBuilder::new());
    let (mut indices, mut positions) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows {
        let taken = |reason: &Reason| {
            reason.rule == RULE_RECORD
                || layout.table.column(&top(&reason.column)).is_some_and(|column| takes(row, column))
        };
        let mut left: Vec<Reason> = Vec::new();
        let is_record = reasons[row].iter().any(|reason| reason.rule == RULE_RECORD);
        if kinds[row].is_some() {
            // Where only some cells are read again, a record that cannot be read at all leaves their faults.
            let new = faults(&again, row);
            let unreadable = new.iter().any(|reason| reason.rule == RULE_RECORD);
            if unreadable && !is_record {
                left.extend(reasons[row].iter().filter(|reason| reason.rule == RULE_TYPE).cloned());
            } else {
                left.extend(new.into_iter().filter(taken));
            }
        }
        // A cell that was not read, and cannot be read again, keeps its fault.
        for reason in reasons[row].iter().filter(|reason| reason.rule == RULE_TYPE && !is_record) {
            let again = layout.table.column(&top(&reason.column)).is_some_and(|column| takes(row, column));
            if !again && !left.contains(reason) {
                left.push(reason.clone());
            }
        }
        if is_record && kinds[row].is_none() {
            left.extend(reasons[row].iter().filter(|reason| reason.rule == RULE_RECORD).cloned());
        }
        left.extend(faults(&exact, row).into_iter().filter(|reason| !taken(reason)));
        if left.is_empty() {
            texts.append_null();
            found.append_null();
        } else {
            texts.append_option(raw.as_ref().filter(|raw| raw.is_valid(row)).map(|raw| raw.value(row)));
            found.append_value(encode_faults(&left));
        }
        let name = cell(&files, row).unwrap_or_else(|| fallback(publication));
        indices.push(source.index(&(name, cell(&fields, row))));
        let position = at.as_ref().filter(|at| at.is_valid(row)).map(|at| at.value(row));
        positions.push(position.unwrap_or(first + row as u64 + 1));
    }
    columns.push(Arc::new(texts.finish()));
    columns.push(Arc::new(found.finish()));
    columns.push(Arc::new(UInt32Array::from(indices)));
    columns.push(Arc::new(UInt64Array::from(positions)));
    RecordBatch::try_new(source_schema(&layout.schema), columns).map_err(arrow)
}
