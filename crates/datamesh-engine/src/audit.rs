//! The audit of one partition: every rule once per batch into a mask, good rows to data files, bad rows to quarantine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{filter_record_batch, partition, take_arrays};
use datafusion::arrow::datatypes::{DataType as Arrow, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use datamesh_core::contract::WriteMode;
use datamesh_core::quality::{RULE_COMPLETE_IF, RULE_RECORD, RULE_TYPE};
use datamesh_core::reference::RULE_REFERENCES;
use datamesh_core::scalar::Scalar;
use datamesh_core::verdict::{Reason, RuleCount, SAMPLES_PER_RULE, Sample};
use datamesh_core::{DataType, Error, ErrorCode, Result, Table, watermark};
use datamesh_iceberg::Storage;
use datamesh_iceberg::storage::join;
use datamesh_quality::values::shorten;
use datamesh_quality::{MetricPlan, MetricStates, RowCheck, RowFilter};

use crate::conditions::{self, Condition, Filter};
use crate::error::arrow;
use crate::keys::{Area, KeyEntry, KeyReader, KeyRuns, Place};
use crate::quarantine;
use crate::references::ReferenceCheck;
use crate::source::{Hidden, RawFields, WatermarkPlan};
use crate::writer::{Durability, Part, PartWriter};

/// Prefix of the hidden columns that hold transformed partition values.
pub(crate) const PARTITION_PREFIX: &str = "__partition_";

/// Rule of a row of which `deleteWhen` could not be computed.
const DELETE_WHEN: &str = "deleteWhen";
/// Rule of the primary key.
const PRIMARY_KEY: &str = "primaryKey";

/// Everything the audit of a table needs, shared by its partitions.
#[derive(Debug)]
pub(crate) struct AuditPlan {
    pub(crate) table: Table,
    /// Schema of the rows.
    pub(crate) schema: SchemaRef,
    /// The same as the source gives it: texts that only rules on values look at may come as dictionaries.
    pub(crate) source_schema: SchemaRef,
    /// Schema of staged data files: the same, or some of its columns where nothing is published.
    pub(crate) file_schema: SchemaRef,
    /// What becomes of the files.
    pub(crate) durability: Durability,
    /// Whether quarantine files have all columns, whatever data files have.
    pub(crate) whole_quarantine: bool,
    /// Schema of quarantine files.
    pub(crate) quarantine_schema: SchemaRef,
    /// Names of the source files, by index.
    pub(crate) files: Vec<String>,
    /// How the raw texts of the source files are read.
    pub(crate) raw_fields: Arc<RawFields>,
    pub(crate) checks: Vec<RowCheck>,
    pub(crate) conditions: Vec<Condition>,
    /// References whose keys are known before the pass.
    pub(crate) references: Vec<ReferenceCheck>,
    /// The `where` of each of the table's references.
    pub(crate) reference_filters: Vec<Option<Filter>>,
    /// Bytes that the keys of one reference may take.
    pub(crate) key_memory: usize,
    /// Which rows delete published ones, with upsert.
    pub(crate) delete_when: Option<Arc<dyn PhysicalExpr>>,
    pub(crate) metrics: MetricPlan,
    pub(crate) keys: Vec<KeyReader>,
    /// Number of partition fields.
    pub(crate) partition_fields: usize,
    pub(crate) storage: Storage,
    /// URL of the folder of the attempt's data files.
    pub(crate) data_folder: String,
    /// URL of the folder of the attempt's quarantine files.
    pub(crate) quarantine_folder: String,
    /// Local folder of what the attempt needs on the disk for a while.
    pub(crate) scratch: PathBuf,
    /// Where the data is pulled by a watermark.
    pub(crate) watermark: Option<Arc<WatermarkPlan>>,
    pub(crate) next_file: AtomicU32,
}

impl AuditPlan {
    /// A rule that is known to be broken only after the pass, by index: the keys, then the references.
    pub(crate) fn late_rule(&self, index: usize) -> (&str, String, &[String]) {
        match self.keys.get(index) {
            Some(key) => (&key.rule.rule, key.rule.path(), &key.rule.columns),
            None => match self.table.references.get(index - self.keys.len()) {
                Some(reference) => (RULE_REFERENCES, reference.path(), &reference.columns),
                None => (RULE_REFERENCES, String::new(), &[]),
            },
        }
    }

    fn reference_filter(&self, index: usize) -> Option<&Filter> {
        self.reference_filters.get(index).and_then(Option::as_ref)
    }

    /// The columns that judging a reference reads of its own table, by the reference's index.
    pub(crate) fn referring(&self, index: usize) -> Vec<String> {
        let columns = self.table.references.get(index).into_iter().flat_map(|reference| &reference.columns);
        let filter = self.reference_filter(index).into_iter().flat_map(RowFilter::columns);
        columns.chain(filter).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Of rows that find nothing, those that the reference judges, by its index.
    pub(crate) fn judged(&self, index: usize, unmatched: BooleanBuffer, batch: &RecordBatch) -> BooleanBuffer {
        match self.reference_filter(index).filter(|_| unmatched.count_set_bits() > 0) {
            Some(filter) => &unmatched & &filter.judged(batch),
            None => unmatched,
        }
    }

    /// The text columns that nothing but rules on values looks at before they are stored.
    pub(crate) fn only_checked(&self) -> Vec<String> {
        if self.partition_fields > 0 || !self.table.sort_by.is_empty() || self.watermark.is_some() {
            return Vec::new();
        }
        let expressions = self.conditions.iter().map(|condition| &condition.expression).chain(&self.delete_when);
        let computed = expressions.flat_map(collect_columns).map(|column| column.name().to_owned());
        let mut used: BTreeSet<String> = computed.collect();
        used.extend(self.metrics.columns().into_iter().map(str::to_owned));
        used.extend(self.keys.iter().flat_map(|key| &key.rule.columns).cloned());
        used.extend((0..self.table.references.len()).flat_map(|index| self.referring(index)));
        let texts = self.table.columns.iter().filter(|column| column.data_type == DataType::String);
        texts.map(|column| column.name.clone()).filter(|name| !used.contains(name)).collect()
    }

    /// Expects these columns, of those that are [only checked](Self::only_checked), as dictionaries.
    pub(crate) fn take_encoded(&mut self, columns: &[String]) {
        let fields = self.schema.fields().iter().map(|field| match columns.contains(field.name()) {
            true => {
                let (keys, values) = (Box::new(Arrow::Int32), Box::new(field.data_type().clone()));
                Arc::new(field.as_ref().clone().with_data_type(Arrow::Dictionary(keys, values)))
            }
            false => field.clone(),
        });
        let metadata = self.schema.metadata().clone();
        self.source_schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata));
    }

    pub(crate) fn new_data_file(&self) -> (u32, String) {
        let id = self.next_file.fetch_add(1, Ordering::Relaxed);
        (id, join(&self.data_folder, &format!("part-{id:05}.parquet")))
    }

    pub(crate) fn new_quarantine_file(&self) -> (u32, String) {
        let id = self.next_file.fetch_add(1, Ordering::Relaxed);
        (id, join(&self.quarantine_folder, &format!("part-{id:05}.parquet")))
    }

    /// Starts a file of the attempt.
    pub(crate) fn create(&self, url: &str, schema: &SchemaRef) -> Result<PartWriter> {
        PartWriter::create(&self.storage, &self.scratch, url, schema, self.durability)
    }

    /// What staged files keep of a batch of the table's columns.
    fn stored(&self, columns: &RecordBatch) -> Result<RecordBatch> {
        if self.file_schema.fields().len() == self.schema.fields().len() {
            return Ok(columns.clone());
        }
        let at = |field: &Arc<Field>| self.schema.index_of(field.name()).map_err(arrow);
        let kept = self.file_schema.fields().iter().map(at).collect::<Result<Vec<_>>>()?;
        columns.project(&kept).map_err(arrow)
    }
}

/// A staged data file.
#[derive(Clone, Debug)]
pub(crate) struct StagedFile {
    pub(crate) id: u32,
    pub(crate) part: Part,
    /// One array of one row for each partition field.
    pub(crate) partition: Vec<ArrayRef>,
}

/// A staged quarantine file.
#[derive(Clone, Debug)]
pub(crate) struct QuarantinePart {
    pub(crate) id: u32,
    pub(crate) part: Part,
}

/// What one partition found. Merging keeps the sum of everything.
#[derive(Debug, Default)]
pub(crate) struct PartitionResult {
    pub(crate) data: Vec<StagedFile>,
    pub(crate) quarantine: Vec<QuarantinePart>,
    /// Rows that are to delete published ones.
    pub(crate) deletions: Vec<StagedFile>,
    pub(crate) rows_in: u64,
    pub(crate) reasons: BTreeMap<String, RuleCount>,
    pub(crate) metrics: MetricStates,
    /// For each reference of the table, the rows read that find nothing.
    pub(crate) unmatched: Vec<u64>,
    /// For each key its runs.
    pub(crate) keys: Vec<Vec<KeyRuns>>,
    /// The greatest value of the watermark.
    pub(crate) watermark: Option<Scalar>,
}

impl PartitionResult {
    pub(crate) fn merge(&mut self, other: Self) {
        self.data.extend(other.data);
        self.quarantine.extend(other.quarantine);
        self.deletions.extend(other.deletions);
        self.rows_in += other.rows_in;
        for (rule, count) in other.reasons {
            let mine = self.reasons.entry(rule).or_default();
            mine.rows += count.rows;
            mine.samples.extend(count.samples);
            mine.samples.truncate(SAMPLES_PER_RULE);
        }
        self.metrics.merge(&other.metrics);
        self.unmatched.resize(self.unmatched.len().max(other.unmatched.len()), 0);
        for (mine, other) in self.unmatched.iter_mut().zip(other.unmatched) {
            *mine += other;
        }
        self.watermark = match (self.watermark.take(), other.watermark) {
            (Some(mine), Some(theirs)) => Some(watermark::greater(mine, theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.keys.resize_with(self.keys.len().max(other.keys.len()), Vec::new);
        for (mine, runs) in self.keys.iter_mut().zip(other.keys) {
            mine.extend(runs);
        }
    }
}

/// Audits the batches of one partition.
pub(crate) struct PartitionAudit {
    plan: Arc<AuditPlan>,
    checks: Vec<RowCheck>,
    data: Option<(u32, PartWriter, Vec<ArrayRef>)>,
    quarantine: Option<(u32, PartWriter)>,
    deletions: Option<(u32, PartWriter)>,
    keys: Vec<KeyRuns>,
    result: PartitionResult,
}

impl PartitionAudit {
    pub(crate) fn new(plan: Arc<AuditPlan>, partition: usize) -> Self {
        let keys =
            (0..plan.keys.len()).map(|key| KeyRuns::new(&plan.scratch, format!("p{partition}-k{key}"))).collect();
        let checks = plan.checks.clone();
        Self { plan, checks, data: None, quarantine: None, deletions: None, keys, result: PartitionResult::default() }
    }

    /// Audits one batch of the source schema, with partition values where the table is partitioned.
    pub(crate) fn process(&mut self, batch: &RecordBatch) -> Result<()> {
        let plan = self.plan.clone();
        let rows = batch.num_rows();
        let width = plan.schema.fields().len();
        let columns =
            RecordBatch::try_new(plan.source_schema.clone(), batch.columns()[..width].to_vec()).map_err(arrow)?;
        let faults = batch.column(width + 1).clone();
        self.result.rows_in += rows as u64;

        let has_conditions = plan.delete_when.is_some() || !plan.conditions.is_empty();
        let compared = if has_conditions { conditions::compared(&columns)? } else { columns.clone() };
        let mut masks: Vec<(usize, BooleanBuffer)> = Vec::new();
        let mut bad = datamesh_quality::values::valid(&faults);
        let deletions = plan.delete_when.as_ref().map(|expression| Deletions::find(expression, &compared));
        if let Some(deletions) = &deletions {
            bad = &bad | &deletions.failed;
        }
        for (at, check) in self.checks.iter().enumerate() {
            if let Some(mut broken) = check.violations(&columns) {
                // Of a row that deletes only the key counts: nothing else of it is stored.
                if let Some(deletions) = &deletions
                    && !plan.table.columns[check.column()].primary_key
                {
                    broken = &broken & &!&deletions.rows;
                }
                bad = &bad | &broken;
                masks.push((at, broken));
            }
        }
        let mut conditions: Vec<(usize, Violations)> = Vec::new();
        for (at, condition) in plan.conditions.iter().enumerate() {
            if let Some(mut violations) = violations(&condition.expression, &compared) {
                if let Some(deletions) = &deletions {
                    violations.broken = &violations.broken & &!&deletions.rows;
                }
                bad = &bad | &violations.broken;
                conditions.push((at, violations));
            }
        }
        let mut references: Vec<(usize, BooleanBuffer)> = Vec::new();
        let mut unmatched: Vec<(usize, BooleanBuffer)> = Vec::new();
        for (at, check) in plan.references.iter().enumerate() {
            let mut broken = plan.judged(check.index, check.reader.unmatched(&check.keys, &columns)?, &columns);
            if let Some(deletions) = &deletions {
                broken = &broken & &!&deletions.rows;
            }
            if broken.count_set_bits() > 0 && check.reader.reference.quarantines() {
                bad = &bad | &broken;
                references.push((at, broken.clone()));
            }
            unmatched.push((check.index, broken));
        }
        let mut left_out = None;
        if let Some(watermark) = &plan.watermark {
            // A row that breaks a rule of the watermark itself does not move it.
            let mut broken = BooleanBuffer::new_unset(rows);
            for (_, mask) in masks.iter().filter(|(at, _)| plan.checks[*at].column() == watermark.column()) {
                broken = &broken | mask;
            }
            for (at, violations) in &conditions {
                let columns = collect_columns(&plan.conditions[*at].expression);
                if columns.iter().all(|column| column.index() == watermark.column()) {
                    broken = &broken | &violations.broken;
                }
            }
            watermark.observe(&columns, &broken, &mut self.result.watermark)?;
            // What was held back before waits for its retry, or was settled by one. An upsert that would take it now
            // takes it: the key tells that it is the same row.
            let candidates =
                if plan.table.write == WriteMode::Upsert { bad.clone() } else { BooleanBuffer::new_set(rows) };
            left_out = watermark.held_before(&columns, batch.column(width), &candidates)?;
        }
        let mut good = !&bad;
        if let Some(left_out) = &left_out {
            self.result.rows_in -= left_out.count_set_bits() as u64;
            good = &good & &!left_out;
            bad = &bad & &!left_out;
        }
        self.result.unmatched.resize(plan.table.references.len(), 0);
        for (index, broken) in unmatched {
            let counted = left_out.as_ref().map_or_else(|| broken.clone(), |left_out| &broken & &!left_out);
            self.result.unmatched[index] += counted.count_set_bits() as u64;
        }
        let mut places = vec![None; if plan.keys.is_empty() { 0 } else { rows }];
        if let Some(deletions) = &deletions {
            self.write_deletions(&columns, &(&good & &deletions.rows), &mut places)?;
            good = &good & &!&deletions.rows;
        }
        plan.metrics.update(&mut self.result.metrics, &columns, Some(&good));
        if good.count_set_bits() > 0 {
            self.write_good(batch, &columns, &good, &mut places)?;
        }
        if bad.count_set_bits() > 0 {
            let found = Found {
                masks: &masks,
                conditions: &conditions,
                references: &references,
                deletions: deletions.as_ref(),
                faults: faults.as_string::<i32>(),
            };
            self.write_bad(batch, &columns, &bad, &found, &mut places)?;
        }
        for (key, runs) in plan.keys.iter().zip(&mut self.keys) {
            key.hashes(&columns, |row, hash| match places[row] {
                // A row that deletes is not stored, so it takes up no other key than the one it deletes by.
                Some(place) if place.area() == Area::Deletion && key.rule.rule != PRIMARY_KEY => Ok(()),
                Some(place) => runs.push(KeyEntry { hash, place }),
                None => Ok(()),
            })?;
        }
        Ok(())
    }

    fn write_good(
        &mut self,
        batch: &RecordBatch,
        columns: &RecordBatch,
        good: &BooleanBuffer,
        places: &mut [Option<Place>],
    ) -> Result<()> {
        let all = good.count_set_bits() == good.len();
        let mask = BooleanArray::new(good.clone(), None);
        let filter = |batch: &RecordBatch| {
            if all { Ok(batch.clone()) } else { filter_record_batch(batch, &mask).map_err(arrow) }
        };
        let kept = filter(&self.plan.stored(columns)?)?;
        let mut rows = good.set_indices();
        let ranges = if self.plan.partition_fields == 0 {
            vec![(0..kept.num_rows(), Vec::new())]
        } else {
            let first = self.plan.schema.fields().len() + Hidden::COUNT;
            let names = batch.project(&(first..batch.num_columns()).collect::<Vec<_>>()).map_err(arrow)?;
            let values = filter(&names)?;
            let ranges = partition(values.columns()).map_err(arrow)?.ranges();
            let value = |at: usize| values.columns().iter().map(|column| column.slice(at, 1)).collect::<Vec<_>>();
            ranges.into_iter().map(|range| (range.clone(), value(range.start))).collect()
        };
        for (range, values) in ranges {
            let (id, start) = self.open_data(&values)?;
            let slice = kept.slice(range.start, range.len());
            if let Some((_, writer, _)) = &mut self.data {
                writer.write(&slice)?;
            }
            for offset in 0..range.len() as u64 {
                if let Some(row) = rows.next()
                    && let Some(place) = places.get_mut(row)
                {
                    *place = Some(Place::new(Area::Staged, id, start + offset));
                }
            }
        }
        Ok(())
    }

    /// The open data file for a partition value; another value, or a full file, opens a new one.
    fn open_data(&mut self, values: &[ArrayRef]) -> Result<(u32, u64)> {
        let fits = self.data.as_ref().is_some_and(|(_, writer, current)| {
            !writer.is_full() && current.iter().zip(values).all(|(a, b)| a.to_data() == b.to_data())
        });
        if !fits {
            self.close_data()?;
            let (id, url) = self.plan.new_data_file();
            self.data = Some((id, self.plan.create(&url, &self.plan.file_schema)?, values.to_vec()));
        }
        match &self.data {
            Some((id, writer, _)) => Ok((*id, writer.rows())),
            None => Err(Error::new(ErrorCode::Internal, "no data file is open")),
        }
    }

    /// Keeps the rows that are to delete published ones: whom they meet is known only when the pass has ended.
    fn write_deletions(
        &mut self,
        columns: &RecordBatch,
        rows: &BooleanBuffer,
        places: &mut [Option<Place>],
    ) -> Result<()> {
        if rows.count_set_bits() == 0 {
            return Ok(());
        }
        if self.deletions.as_ref().is_some_and(|(_, writer)| writer.is_full()) {
            self.close_deletions()?;
        }
        if self.deletions.is_none() {
            let (id, path) = self.plan.new_data_file();
            self.deletions = Some((id, self.plan.create(&path, &self.plan.file_schema)?));
        }
        let Some((id, writer)) = &mut self.deletions else {
            return Err(Error::new(ErrorCode::Internal, "no file of deletions is open"));
        };
        for (at, row) in (writer.rows()..).zip(rows.set_indices()) {
            if let Some(place) = places.get_mut(row) {
                *place = Some(Place::new(Area::Deletion, *id, at));
            }
        }
        let kept = self.plan.stored(columns)?;
        writer.write(&filter_record_batch(&kept, &BooleanArray::new(rows.clone(), None)).map_err(arrow)?)
    }

    fn close_deletions(&mut self) -> Result<()> {
        if let Some((id, writer)) = self.deletions.take() {
            self.result.deletions.push(StagedFile { id, part: writer.close()?, partition: Vec::new() });
        }
        Ok(())
    }

    fn close_data(&mut self) -> Result<()> {
        if let Some((id, writer, partition)) = self.data.take() {
            self.result.data.push(StagedFile { id, part: writer.close()?, partition });
        }
        Ok(())
    }

    fn write_bad(
        &mut self,
        batch: &RecordBatch,
        columns: &RecordBatch,
        bad: &BooleanBuffer,
        found: &Found<'_>,
        places: &mut [Option<Place>],
    ) -> Result<()> {
        let plan = self.plan.clone();
        let width = plan.schema.fields().len();
        let file_index = batch.column(width + 2).as_primitive::<UInt32Type>();
        let position = batch.column(width + 3).as_primitive::<UInt64Type>();
        if self.quarantine.as_ref().is_some_and(|(_, writer)| writer.is_full()) {
            self.close_quarantine()?;
        }
        if self.quarantine.is_none() {
            let (id, url) = plan.new_quarantine_file();
            self.quarantine = Some((id, plan.create(&url, &plan.quarantine_schema)?));
        }
        let Some((id, writer)) = &mut self.quarantine else {
            return Err(Error::new(ErrorCode::Internal, "no quarantine file is open"));
        };
        let (mut files, mut positions, mut reasons, mut indices) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut fields = Vec::new();
        let raw = batch.column(width);
        for (next, row) in (writer.rows()..).zip(bad.set_indices()) {
            let file = plan.files.get(file_index.value(row) as usize).cloned();
            let why = found.reasons(&plan, columns, row);
            for reason in &why {
                let protected = reason.rule != RULE_RECORD && plan.table.protects(&reason.column);
                let sample = Sample {
                    file: file.clone(),
                    position: Some(position.value(row)),
                    value: if protected { None } else { reason.value.clone() },
                };
                count(&mut self.result.reasons, reason, sample);
            }
            files.push(file);
            fields.push(raw.is_valid(row).then(|| plan.raw_fields.get(file_index.value(row))).flatten());
            positions.push(Some(position.value(row)));
            reasons.push(why);
            indices.push(row as u32);
            if let Some(place) = places.get_mut(row) {
                *place = Some(Place::new(Area::Quarantined, *id, next));
            }
        }
        let indices = datafusion::arrow::array::UInt32Array::from(indices);
        let kept = if plan.whole_quarantine { columns.clone() } else { plan.stored(columns)? };
        let mut values = take_arrays(kept.columns(), &indices, None).map_err(arrow)?;
        let raw = take_arrays(&batch.columns()[width..=width], &indices, None).map_err(arrow)?.pop();
        let out = quarantine::batch(
            &plan.quarantine_schema,
            std::mem::take(&mut values),
            raw,
            &files,
            &positions,
            &fields,
            &reasons,
        )?;
        writer.write(&out)
    }

    fn close_quarantine(&mut self) -> Result<()> {
        if let Some((id, writer)) = self.quarantine.take() {
            self.result.quarantine.push(QuarantinePart { id, part: writer.close()? });
        }
        Ok(())
    }

    /// Closes the files and hands over what was found.
    pub(crate) fn finish(mut self) -> Result<PartitionResult> {
        self.close_data()?;
        self.close_quarantine()?;
        self.close_deletions()?;
        self.result.keys = self.keys.into_iter().map(|runs| vec![runs.finish()]).collect();
        Ok(self.result)
    }
}

/// Counts a row under a rule, with a sample while there is room.
pub(crate) fn count(reasons: &mut BTreeMap<String, RuleCount>, reason: &Reason, sample: Sample) {
    let count = reasons.entry(reason.id()).or_default();
    count.rows += 1;
    if count.samples.len() < SAMPLES_PER_RULE {
        count.samples.push(sample);
    }
}

/// Rows where a condition is false, and rows where it could not be computed, with the reason.
struct Violations {
    broken: BooleanBuffer,
    errors: BTreeMap<usize, String>,
}

/// Evaluates a condition. One row that cannot be computed (a division by zero, say) breaks that row and no other.
fn violations(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Option<Violations> {
    let evaluate = |batch: &RecordBatch| -> std::result::Result<BooleanBuffer, String> {
        let array = expression.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
        let array = array.map_err(|error| shorten(&error.strip_backtrace()))?;
        let truth = array.as_boolean_opt().ok_or("the condition is not a boolean")?;
        Ok(match truth.nulls() {
            Some(nulls) => nulls.inner() & &!truth.values(),
            None => !truth.values(),
        })
    };
    let mut errors = BTreeMap::new();
    let broken = match evaluate(batch) {
        Ok(broken) => broken,
        Err(_) => BooleanBuffer::collect_bool(batch.num_rows(), |row| match evaluate(&batch.slice(row, 1)) {
            Ok(broken) => broken.value(0),
            Err(error) => {
                errors.insert(row, error);
                true
            }
        }),
    };
    (broken.count_set_bits() > 0).then_some(Violations { broken, errors })
}

/// Rows that delete published ones, and rows of which that could not be told.
struct Deletions {
    rows: BooleanBuffer,
    failed: BooleanBuffer,
    errors: BTreeMap<usize, String>,
}

impl Deletions {
    fn find(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Self {
        let evaluate = |batch: &RecordBatch| -> std::result::Result<BooleanBuffer, String> {
            let array = expression.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
            let array = array.map_err(|error| shorten(&error.strip_backtrace()))?;
            let truth = array.as_boolean_opt().ok_or("the condition is not a boolean")?;
            Ok(match truth.nulls() {
                Some(nulls) => nulls.inner() & truth.values(),
                None => truth.values().clone(),
            })
        };
        let mut errors = BTreeMap::new();
        let rows = match evaluate(batch) {
            Ok(rows) => rows,
            Err(_) => BooleanBuffer::collect_bool(batch.num_rows(), |row| match evaluate(&batch.slice(row, 1)) {
                Ok(rows) => rows.value(0),
                Err(error) => {
                    errors.insert(row, error);
                    false
                }
            }),
        };
        let failed = BooleanBuffer::collect_bool(batch.num_rows(), |row| errors.contains_key(&row));
        Self { rows, failed, errors }
    }
}

/// What the rules found in a batch.
struct Found<'a> {
    deletions: Option<&'a Deletions>,
    masks: &'a [(usize, BooleanBuffer)],
    conditions: &'a [(usize, Violations)],
    references: &'a [(usize, BooleanBuffer)],
    faults: &'a datafusion::arrow::array::StringArray,
}

impl Found<'_> {
    /// Every rule that `row` broke. A record that could not be read has no values to judge, and a cell that did not
    /// fit its type is null only because of that.
    fn reasons(&self, plan: &AuditPlan, columns: &RecordBatch, row: usize) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = Vec::new();
        if self.faults.is_valid(row) {
            reasons = serde_json::from_str(self.faults.value(row)).unwrap_or_default();
            if reasons.iter().any(|reason| reason.rule == RULE_RECORD) {
                return reasons;
            }
        }
        let top = |path: &str| path.split(['.', '[', '{']).next().unwrap_or(path).to_owned();
        let unread: BTreeSet<String> =
            reasons.iter().filter(|reason| reason.rule == RULE_TYPE).map(|reason| top(&reason.column)).collect();
        for (at, broken) in self.masks {
            let check = &plan.checks[*at];
            if broken.value(row) && !unread.contains(&plan.table.columns[check.column()].name) {
                let protected = plan.table.protects(check.path());
                let value = if protected { None } else { check.offender(columns, row) };
                reasons.push(Reason { rule: check.rule().to_owned(), column: check.path().to_owned(), value });
            }
        }
        if let Some(error) = self.deletions.and_then(|deletions| deletions.errors.get(&row)) {
            let error = (!plan.table.has_protected_columns()).then(|| error.clone());
            reasons.push(Reason { rule: DELETE_WHEN.to_owned(), column: String::new(), value: error });
        }
        for (at, violations) in self.conditions {
            if violations.broken.value(row) {
                // An error's text can quote a value, so it is kept only where no column is protected.
                let error = violations.errors.get(&row).filter(|_| !plan.table.has_protected_columns());
                let condition = &plan.conditions[*at];
                if condition.rule == RULE_COMPLETE_IF && unread.contains(&condition.name) {
                    continue;
                }
                reasons.push(Reason {
                    rule: condition.rule.to_owned(),
                    column: condition.name.clone(),
                    value: error.cloned(),
                });
            }
        }
        for (at, broken) in self.references {
            if broken.value(row) {
                let reader = &plan.references[*at].reader;
                let column = reader.reference.path();
                let value = (!plan.table.protects(&column)).then(|| reader.show(columns, row));
                reasons.push(Reason { rule: RULE_REFERENCES.to_owned(), column, value });
            }
        }
        reasons
    }
}
