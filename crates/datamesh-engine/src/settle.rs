//! Settling: doubled keys, and references to what another table of the attempt does not have, leave the staged files, against the rows that are published already where the table appends.
//!
//! A staged table can be settled again against another base: nothing that was staged is changed, files that hold a
//! doubled key are written anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch, new_null_array};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use datamesh_core::contract::WriteMode;
use datamesh_core::ports::QuarantineFile;
use datamesh_core::verdict::{Reason, RuleCount, Sample, TableReport};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::storage::StorageReader;
use datamesh_iceberg::{LiveFile, NewDataFile, OpenTable, RewrittenFile, SnapshotChange, Storage, TableDraft, storage};
use datamesh_quality::MetricStates;
use datamesh_quality::values::show;

use crate::audit::{AuditPlan, PartitionResult, QuarantinePart, StagedFile, count};
use crate::error::{arrow, parquet_read};
use crate::files::ScanFile;
use crate::keys::Area;
use crate::merge::{Merge, Published, Removed, merge};
use crate::quarantine;
use crate::references::ReferenceReader;
use crate::scan::field_id;
use crate::writer::{Durability, PartWriter};

/// Rows read at a time.
const BATCH: usize = 8192;

/// One table's finished pass.
#[derive(Debug)]
pub struct StagedTable {
    pub(crate) audit: Arc<AuditPlan>,
    pub(crate) draft: Arc<TableDraft>,
    pub(crate) result: PartitionResult,
    pub(crate) content: Option<String>,
    pub(crate) bytes_read: u64,
    pub(crate) ignored_columns: Vec<String>,
    pub(crate) missing_columns: Vec<String>,
    pub(crate) missing_required: Vec<String>,
}

/// A staged table judged against one base.
#[derive(Debug)]
pub struct SettledTable {
    pub(crate) audit: Arc<AuditPlan>,
    pub(crate) draft: TableDraft,
    pub(crate) files: Vec<StagedFile>,
    pub(crate) quarantine: Vec<QuarantineFile>,
    /// The published files that stay.
    pub(crate) published: Vec<ScanFile>,
    /// New versions of published files, without the rows that were replaced or deleted.
    pub(crate) rewritten: Vec<RewrittenFile>,
    /// URLs of the published files that go, where not all of them do.
    pub(crate) removed: HashSet<String>,
    pub(crate) states: MetricStates,
    /// For each reference of the table, the rows read that find nothing.
    pub(crate) unmatched: Vec<RuleCount>,
    pub(crate) report: TableReport,
}

impl SettledTable {
    /// The files of the candidate: those staged, and those published already that stay, some of them written anew.
    pub(crate) fn candidate(&self) -> Vec<ScanFile> {
        let staged = self.files.iter().map(|file| ScanFile {
            url: file.part.url.clone(),
            bytes: file.part.bytes,
            rows: file.part.rows,
        });
        self.standing().into_iter().chain(staged).collect()
    }

    /// The published rows that stay, in their files, some of them written anew.
    pub(crate) fn standing(&self) -> Vec<ScanFile> {
        let rewritten = self.rewritten.iter().map(|file| ScanFile {
            url: file.url.clone(),
            bytes: file.bytes,
            rows: file.footer.file_metadata().num_rows().max(0) as u64,
        });
        self.published.iter().cloned().chain(rewritten).collect()
    }

    /// Whether values of these columns that the published rows have may be gone from the candidate.
    pub(crate) fn may_lose(&self, columns: &[String]) -> bool {
        let key = self.audit.keys.first().map(|key| key.rule.columns.iter().collect::<BTreeSet<_>>());
        let by_key = key == Some(columns.iter().collect()) && self.report.changes.is_some_and(|rows| rows.deleted == 0);
        match self.audit.table.write {
            WriteMode::Replace => true,
            // A row that is replaced by its key leaves the key.
            WriteMode::Upsert if by_key => false,
            _ => !self.removed.is_empty(),
        }
    }

    /// How the commit changes the table's files.
    pub(crate) fn change(&self) -> SnapshotChange<'_> {
        match self.audit.table.write {
            WriteMode::Replace => SnapshotChange::Replace,
            _ if self.removed.is_empty() => SnapshotChange::Append,
            _ => SnapshotChange::Overwrite { removed: &self.removed, rewritten: &self.rewritten },
        }
    }

    pub(crate) fn new_files(&self) -> Vec<NewDataFile> {
        let files = self.files.iter().map(|file| NewDataFile {
            url: file.part.url.clone(),
            bytes: file.part.bytes,
            footer: file.part.footer.clone(),
            partition: file.partition.clone(),
            nan_counts: file.part.nan_counts.clone(),
        });
        files.collect()
    }
}

/// The rows to take out, by file: row number and the key that is doubled.
pub(crate) type Doubled = BTreeMap<(Area, u32), Vec<(u64, usize)>>;

/// Settles a staged table against `base`, whose live files are `files`. `planned` are those of the base that the data
/// was staged for, where that is another one. Blocking: reads and writes files.
pub(crate) fn settle(
    staged: &StagedTable,
    base: Option<OpenTable>,
    files: Vec<LiveFile>,
    planned: Option<&[LiveFile]>,
    late: Vec<LateReference>,
) -> Result<SettledTable> {
    let audit = &staged.audit;
    let draft = TableDraft::new(&audit.table, staged.draft.location(), base)?;

    if draft.arrow_schema() != &audit.schema || !draft.same_layout(&staged.draft) {
        // The staged files carry field ids and partition values that the table has given to others since.
        return Err(Error::new(
            ErrorCode::Conflict,
            format!("table `{}` was changed by somebody else while its data was audited", audit.table.name),
        )
        .with_help("run the same command again"));
    }
    let files: Vec<Published> = match audit.table.write {
        WriteMode::Replace => Vec::new(),
        _ => files.into_iter().map(Published::new).collect(),
    };
    let Merge { mut doubled, removed, changes } = merge(staged, &draft, &files, planned)?;
    let early = staged.result.unmatched.iter().map(|rows| RuleCount { rows: *rows, samples: Vec::new() });
    let mut unmatched: Vec<RuleCount> = early.collect();
    unmatched.resize(audit.table.references.len(), RuleCount::default());
    for reference in &late {
        unmatched[reference.index] = find_unmatched(staged, &files, &removed, reference, &mut doubled)?;
    }
    let mut work = Rewrite {
        audit,
        reasons: staged.result.reasons.clone(),
        states: staged.result.metrics.clone(),
        files: Vec::new(),
        quarantine: Vec::new(),
        moved: None,
    };
    for file in &staged.result.data {
        work.data_file(file, doubled.get(&(Area::Staged, file.id)).map_or(&[], Vec::as_slice))?;
    }
    for file in &staged.result.quarantine {
        work.quarantine_file(file, doubled.get(&(Area::Quarantined, file.id)).map_or(&[], Vec::as_slice))?;
    }
    let mut deletions = 0;
    for file in &staged.result.deletions {
        let doubled = doubled.get(&(Area::Deletion, file.id)).map_or(&[][..], Vec::as_slice);
        deletions += work.deletions(file, doubled)?;
    }
    work.close_moved()?;
    let mut states = std::mem::take(&mut work.states);
    let (published, rewritten, gone) = removed.apply(audit, files, &mut states)?;
    if audit.durability == Durability::Published {
        for folder in [&audit.data_folder, &audit.quarantine_folder] {
            audit.storage.sync_folder(folder)?;
        }
    }

    let rows_stored: u64 = work.files.iter().map(|file| file.part.rows).sum();
    let quarantined: u64 = work.quarantine.iter().map(|part| part.part.rows).sum();
    let rows_published = rows_stored + deletions;
    if staged.result.rows_in != rows_published + quarantined {
        let counted =
            format!("{} rows were read, but {rows_published} + {quarantined} are accounted for", staged.result.rows_in);
        return Err(Error::new(ErrorCode::Internal, counted));
    }
    let quarantine = work.quarantine.iter().map(|part| QuarantineFile {
        table: audit.table.name.sql(),
        path: part.part.url.clone(),
        rows: part.part.rows,
    });
    let report = TableReport {
        table: audit.table.name.to_string(),
        write: audit.table.write,
        rows_in: staged.result.rows_in,
        published: rows_published,
        quarantined,
        total_rows: rows_stored
            + published.iter().map(|file| file.rows).sum::<u64>()
            + rewritten.iter().map(|file| file.footer.file_metadata().num_rows().max(0) as u64).sum::<u64>(),
        changes: changes.map(|changes| changes.complete(rows_stored, deletions)),
        bytes_read: staged.bytes_read,
        content: staged.content.clone().unwrap_or_default(),
        limit_percent: audit.table.quarantine.percent,
        reasons: work.reasons,
        metrics: Vec::new(),
        pinned: Vec::new(),
        ignored_columns: staged.ignored_columns.clone(),
        missing_columns: staged.missing_columns.clone(),
        missing_required: staged.missing_required.clone(),
        repeat_of: None,
        watermark: audit.watermark.as_ref().map(|plan| plan.report(staged.result.watermark.as_ref())),
    };
    let quarantine = quarantine.collect();
    Ok(SettledTable {
        audit: audit.clone(),
        draft,
        files: work.files,
        quarantine,
        published,
        rewritten,
        removed: gone,
        states,
        unmatched,
        report,
    })
}

/// A reference to a table of the same attempt, whose keys are known only once that table is settled.
pub(crate) struct LateReference {
    /// Index among the table's references.
    pub(crate) index: usize,
    /// The files of the other table's candidate with its schema; `None` where a table refers to itself.
    pub(crate) there: Option<(SchemaRef, Vec<ScanFile>)>,
    /// Whether rows that find nothing are held back. Where rows take the place of published ones, these are gone by
    /// then, so the publication is rejected instead.
    pub(crate) holds_back: bool,
}

/// Finds the incoming rows that refer to nothing, marks them in `doubled` where they are to be held back, and counts
/// them. Where they reject the publication, those that are held back anyway do not count.
fn find_unmatched(
    staged: &StagedTable,
    published: &[Published],
    removed: &Removed,
    late: &LateReference,
    doubled: &mut Doubled,
) -> Result<RuleCount> {
    let audit = &staged.audit;
    let reference = &audit.table.references[late.index];
    let rejects = reference.quarantines() && !late.holds_back;
    let shown = !audit.table.protects(&reference.path());
    let rule = audit.keys.len() + late.index;
    let there = late.there.as_ref().map_or(&audit.schema, |(schema, _)| schema);
    let reader = ReferenceReader::new(reference, &audit.schema, there)?;
    let incoming = staged.result.data.iter().map(|file| ((Area::Staged, file.id), file.part.url.as_str()));
    let held_back = staged.result.quarantine.iter().map(|part| ((Area::Quarantined, part.id), part.part.url.as_str()));
    let files: Vec<((Area, u32), &str)> = incoming.chain(held_back).collect();
    let mut count = RuleCount::default();
    let mut found: BTreeSet<((Area, u32), u64)> = BTreeSet::new();
    loop {
        let mut keys = reader.key_set(audit.key_memory);
        for file in late.there.iter().flat_map(|(_, files)| files) {
            for batch in read_columns(&audit.storage, &file.url, there, &reference.at, None)? {
                reader.collect(&mut keys, &batch?, None)?;
            }
        }
        if late.there.is_none() {
            for (id, file) in (0_u32..).zip(published).filter(|(id, _)| !removed.is_whole(*id)) {
                let mut first = 0;
                for batch in read_columns(&audit.storage, &file.scan.url, there, &reference.at, None)? {
                    let batch = batch?;
                    let left = removed.left(id, first, batch.num_rows());
                    first += batch.num_rows() as u64;
                    reader.collect(&mut keys, &batch, left.as_ref())?;
                }
            }
            for (place, url) in files.iter().filter(|((area, _), _)| *area == Area::Staged) {
                let gone = doubled.get(place).map_or(&[][..], Vec::as_slice);
                let mut first = 0;
                for batch in read_columns(&audit.storage, url, there, &reference.at, None)? {
                    let batch = batch?;
                    let rows = keys_by_row(gone, first, batch.num_rows());
                    first += batch.num_rows() as u64;
                    let left = BooleanBuffer::collect_bool(batch.num_rows(), |row| !rows.contains_key(&row));
                    reader.collect(&mut keys, &batch, Some(&left))?;
                }
            }
        }
        let keys = keys.finish();
        let before = found.len();
        for (place, url) in files.iter().filter(|((area, _), _)| !rejects || *area == Area::Staged) {
            let mut first = 0;
            for batch in read_columns(&audit.storage, url, &audit.schema, &audit.referring(late.index), None)? {
                let batch = batch?;
                let out = match doubled.get(place) {
                    Some(out) if rejects => keys_by_row(out, first, batch.num_rows()),
                    _ => BTreeMap::new(),
                };
                let unmatched = audit.judged(late.index, reader.unmatched(&keys, &batch)?, &batch);
                for at in unmatched.set_indices().filter(|at| !out.contains_key(at)) {
                    let row = first + at as u64;
                    if found.insert((*place, row)) {
                        reader.add(&mut count, &batch, at, shown);
                        if late.holds_back {
                            doubled.entry(*place).or_default().push((row, rule));
                        }
                    }
                }
                first += batch.num_rows() as u64;
            }
        }
        doubled.values_mut().for_each(|rows| rows.sort_unstable());
        // A row of the same table that is held back is there no more for those that refer to it.
        if late.there.is_some() || !late.holds_back || found.len() == before {
            return Ok(count);
        }
    }
}

/// The column of `schema` that a file's column is: it has its field id. Without one, names tell.
fn named<'s>(schema: &'s Schema, field: &Field) -> Option<&'s str> {
    let fields = schema.fields();
    let found = match field_id(field) {
        Some(id) => fields.iter().find(|own| field_id(own).map_or(own.name() == field.name(), |own| own == id)),
        None => fields.iter().find(|own| own.name() == field.name()),
    };
    found.map(|own| own.name().as_str())
}

/// The columns of a file's batch that `schema` has, by the names and in the types that they have there: an older file's
/// may be narrower.
pub(crate) fn renamed(schema: &Schema, batch: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        if let Some(name) = named(schema, field) {
            let own = schema.field_with_name(name).map_err(arrow)?.data_type();
            let widened = own != array.data_type() && !own.is_nested();
            let array = if widened { cast(array, own).map_err(arrow)? } else { array.clone() };
            fields.push(field.as_ref().clone().with_name(name).with_data_type(array.data_type().clone()));
            arrays.push(array);
        }
    }
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(arrow)
}

/// Reads some columns of `schema` from a Parquet file, all rows or those of `rows` (sorted, distinct). Columns that the
/// file does not have are left out.
pub(crate) fn read_columns(
    storage: &Storage,
    url: &str,
    schema: &SchemaRef,
    columns: &[String],
    rows: Option<&[u64]>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let mut builder = builder(storage, url)?;
    let there = builder.schema().clone();
    let wanted = |field: &Field| named(schema, field).is_some_and(|name| columns.iter().any(|column| column == name));
    let roots = there.fields().iter().enumerate().filter(|(_, field)| wanted(field)).map(|(at, _)| at);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    builder = builder.with_projection(mask).with_batch_size(BATCH);
    if let Some(rows) = rows {
        let total = builder.metadata().file_metadata().num_rows().max(0) as usize;
        let ranges = rows.chunk_by(|a, b| a + 1 == *b).map(|run| run[0] as usize..run[run.len() - 1] as usize + 1);
        builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, total));
    }
    let schema = schema.clone();
    Ok(batches(builder, url)?.map(move |batch| renamed(&schema, &batch?)))
}

/// Counts the metrics of a published file.
pub(crate) fn add_published(audit: &AuditPlan, file: &ScanFile, states: &mut MetricStates) -> Result<()> {
    let columns: Vec<String> = audit.metrics.columns().into_iter().map(str::to_owned).collect();
    if columns.is_empty() {
        states.rows += file.rows as i64;
        return Ok(());
    }
    for batch in read_columns(&audit.storage, &file.url, &audit.schema, &columns, None)? {
        let batch = batch?;
        audit.metrics.update(states, &complete(audit, &columns, &batch)?, None);
    }
    Ok(())
}

/// Adds columns that an older file does not have, as null.
pub(crate) fn complete(audit: &AuditPlan, columns: &[String], batch: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for name in columns {
        let field = audit.schema.field_with_name(name).map_err(arrow)?;
        let array = batch.column_by_name(name).cloned();
        let array = array.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()));
        // An older file's nested type may have fewer fields; only what is there is counted.
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(arrow)
}

struct Rewrite<'a> {
    audit: &'a Arc<AuditPlan>,
    reasons: BTreeMap<String, datamesh_core::verdict::RuleCount>,
    states: MetricStates,
    files: Vec<StagedFile>,
    quarantine: Vec<QuarantinePart>,
    moved: Option<(u32, PartWriter)>,
}

impl Rewrite<'_> {
    fn reason(&self, key: usize) -> Reason {
        let (rule, column, _) = self.audit.late_rule(key);
        Reason { rule: rule.to_owned(), column, value: None }
    }

    /// Counts the doubled keys of a batch's rows, with the key's value as sample where it may be shown.
    fn count(&mut self, batch: &RecordBatch, row: usize, keys: &[usize]) {
        for key in keys {
            let reason = self.reason(*key);
            let (_, _, columns) = self.audit.late_rule(*key);
            let value = if self.audit.table.protects(&reason.column) {
                None
            } else {
                let cells = columns
                    .iter()
                    .map(|name| batch.column_by_name(name).and_then(|array| show(array, row)).unwrap_or_default());
                Some(cells.collect::<Vec<_>>().join(", "))
            };
            count(&mut self.reasons, &reason, Sample { file: None, position: None, value });
        }
    }

    /// Keeps a staged file, or writes it anew without the doubled rows, which go to quarantine.
    fn data_file(&mut self, file: &StagedFile, doubled: &[(u64, usize)]) -> Result<()> {
        if doubled.is_empty() {
            self.files.push(file.clone());
            return Ok(());
        }
        let (id, url) = self.audit.new_data_file();
        let mut writer = None;
        let mut first = 0;
        for batch in open(&self.audit.storage, &file.part.url)? {
            let batch = batch?;
            // The reader does not keep the schema's own metadata objects; the layout is the same.
            let batch =
                RecordBatch::try_new(self.audit.file_schema.clone(), batch.columns().to_vec()).map_err(arrow)?;
            let rows = keys_by_row(doubled, first, batch.num_rows());
            first += batch.num_rows() as u64;
            let gone = BooleanBuffer::collect_bool(batch.num_rows(), |row| rows.contains_key(&row));
            let kept = filter_record_batch(&batch, &BooleanArray::new(!&gone, None)).map_err(arrow)?;
            if kept.num_rows() > 0 {
                if writer.is_none() {
                    writer = Some(self.audit.create(&url, &self.audit.file_schema)?);
                }
                if let Some(writer) = &mut writer {
                    writer.write(&kept)?;
                }
            }
            if !rows.is_empty() {
                let mut counted = MetricStates::default();
                self.audit.metrics.update(&mut counted, &batch, Some(&gone));
                self.states.subtract(&counted);
                self.move_rows(&batch, &gone, &rows)?;
            }
        }
        if let Some(writer) = writer {
            self.files.push(StagedFile { id, part: writer.close()?, partition: file.partition.clone() });
        }
        Ok(())
    }

    /// How many rows of a file of deletions count; those that are doubled go to quarantine.
    fn deletions(&mut self, file: &StagedFile, doubled: &[(u64, usize)]) -> Result<u64> {
        if doubled.is_empty() {
            return Ok(file.part.rows);
        }
        let mut first = 0;
        let mut left = 0;
        for batch in open(&self.audit.storage, &file.part.url)? {
            let batch =
                RecordBatch::try_new(self.audit.file_schema.clone(), batch?.columns().to_vec()).map_err(arrow)?;
            let rows = keys_by_row(doubled, first, batch.num_rows());
            first += batch.num_rows() as u64;
            left += (batch.num_rows() - rows.len()) as u64;
            if !rows.is_empty() {
                let gone = BooleanBuffer::collect_bool(batch.num_rows(), |row| rows.contains_key(&row));
                self.move_rows(&batch, &gone, &rows)?;
            }
        }
        Ok(left)
    }

    fn move_rows(
        &mut self,
        batch: &RecordBatch,
        gone: &BooleanBuffer,
        rows: &BTreeMap<usize, Vec<usize>>,
    ) -> Result<()> {
        let mut reasons = Vec::new();
        for (row, keys) in rows {
            self.count(batch, *row, keys);
            reasons.push(keys.iter().map(|key| self.reason(*key)).collect::<Vec<_>>());
        }
        let moved = filter_record_batch(batch, &BooleanArray::new(gone.clone(), None)).map_err(arrow)?;
        let nowhere = vec![None; reasons.len()];
        let unknown = vec![None; reasons.len()];
        let schema = &self.audit.quarantine_schema;
        let out = quarantine::batch(schema, moved.columns().to_vec(), None, &nowhere, &unknown, &nowhere, &reasons)?;
        if self.moved.is_none() {
            let (id, url) = self.audit.new_quarantine_file();
            self.moved = Some((id, self.audit.create(&url, schema)?));
        }
        match &mut self.moved {
            Some((_, writer)) => writer.write(&out),
            None => Ok(()),
        }
    }

    fn close_moved(&mut self) -> Result<()> {
        if let Some((id, writer)) = self.moved.take() {
            self.quarantine.push(QuarantinePart { id, part: writer.close()? });
        }
        Ok(())
    }

    /// Keeps a quarantine file, or writes it anew with the doubled keys among the reasons.
    fn quarantine_file(&mut self, file: &QuarantinePart, doubled: &[(u64, usize)]) -> Result<()> {
        if doubled.is_empty() {
            self.quarantine.push(file.clone());
            return Ok(());
        }
        let (id, url) = self.audit.new_quarantine_file();
        let mut writer = self.audit.create(&url, &self.audit.quarantine_schema)?;
        let mut first = 0;
        for batch in open(&self.audit.storage, &file.part.url)? {
            let batch = batch?;
            let batch =
                RecordBatch::try_new(self.audit.quarantine_schema.clone(), batch.columns().to_vec()).map_err(arrow)?;
            let rows = keys_by_row(doubled, first, batch.num_rows());
            first += batch.num_rows() as u64;
            let mut reasons = quarantine::decode(&batch);
            for (row, keys) in &rows {
                self.count(&batch, *row, keys);
                reasons[*row].extend(keys.iter().map(|key| self.reason(*key)));
            }
            writer.write(&quarantine::with_reasons(&batch, &reasons)?)?;
        }
        self.quarantine.push(QuarantinePart { id, part: writer.close()? });
        Ok(())
    }
}

/// Reads all of a Parquet file.
fn open(storage: &Storage, url: &str) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    batches(builder(storage, url)?.with_batch_size(BATCH), url)
}

pub(crate) fn builder(storage: &Storage, url: &str) -> Result<ParquetRecordBatchReaderBuilder<StorageReader>> {
    let file = storage.open(url)?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| parquet_read(&storage::shown(url), error))
}

pub(crate) fn batches(
    builder: ParquetRecordBatchReaderBuilder<StorageReader>,
    url: &str,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let name = storage::shown(url);
    let reader = builder.build().map_err(|error| parquet_read(&name, error))?;
    Ok(reader.map(move |batch| batch.map_err(|error| parquet_read(&name, error))))
}

/// The doubled rows among `count` rows from row `first` of the file, with their keys.
fn keys_by_row(doubled: &[(u64, usize)], first: u64, count: usize) -> BTreeMap<usize, Vec<usize>> {
    let start = doubled.partition_point(|(row, _)| *row < first);
    let end = doubled.partition_point(|(row, _)| *row < first + count as u64);
    let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, key) in &doubled[start..end] {
        rows.entry((row - first) as usize).or_default().push(*key);
    }
    rows
}
