//! Which incoming rows are doubled, and which published rows the others take the place of.
//!
//! Keys are checked against the table as it will be. What will be depends on what is held back: an incoming row that
//! turns out doubled replaces nothing, so the published row of its key stands and may double another incoming one.
//! The check is repeated until nothing changes; each round can only hold more back, so it ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use datafusion::arrow::array::{BooleanArray, RecordBatch, new_null_array};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::filter_record_batch;
use datamesh_core::contract::WriteMode;
use datamesh_core::verdict::RowChanges;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::{LiveFile, Partition, RewrittenFile, TableDraft};
use datamesh_quality::MetricStates;

use crate::audit::AuditPlan;
use crate::error::arrow;
use crate::files::ScanFile;
use crate::keys::{Area, KeyEntry, KeyReader, KeyRuns, Place, for_each_hit};
use crate::settle::{Doubled, StagedTable, add_published, batches, builder, complete, read_columns, renamed};

/// Hash hits confirmed by value at a time.
const CONFIRM: usize = 1 << 19;

/// A published data file.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) file: LiveFile,
    pub(crate) scan: ScanFile,
}

impl Published {
    pub(crate) fn new(file: LiveFile) -> Self {
        let scan = ScanFile { url: file.url().to_owned(), bytes: file.bytes(), rows: file.rows() };
        Self { file, scan }
    }
}

/// What settling has to take out of the incoming and out of the published files.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) doubled: Doubled,
    pub(crate) removed: Removed,
    pub(crate) changes: Option<Changed>,
}

/// Published rows that incoming ones take the place of, counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    by_key: bool,
    updated: u64,
    deleted: u64,
    removed: u64,
}

impl Changed {
    /// All that changed, with `stored` rows new in the table and `deletions` rows that delete.
    pub(crate) fn complete(self, stored: u64, deletions: u64) -> RowChanges {
        RowChanges {
            inserted: stored - self.updated,
            updated: self.updated,
            deleted: self.deleted,
            absent: if self.by_key { deletions - self.deleted } else { 0 },
            removed: self.removed,
        }
    }
}

/// One bit a row.
#[derive(Clone, Debug, Default)]
struct RowSet(Vec<u64>);

impl RowSet {
    fn insert(&mut self, row: u64) {
        let word = (row / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (row % 64);
    }

    fn contains(&self, row: u64) -> bool {
        self.0.get((row / 64) as usize).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Published rows that go, by index of their file.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    whole: BTreeSet<u32>,
    rows: BTreeMap<u32, RowSet>,
}

/// What is left of published files: those that stay, new versions of others, and the URLs of all that go.
type Left = (Vec<ScanFile>, Vec<RewrittenFile>, HashSet<String>);

impl Removed {
    fn holds(&self, place: Place) -> bool {
        self.whole.contains(&place.file())
            || self.rows.get(&place.file()).is_some_and(|rows| rows.contains(place.row()))
    }

    /// Whether no row of a file stays.
    pub(crate) fn is_whole(&self, file: u32) -> bool {
        self.whole.contains(&file)
    }

    /// Which of `count` rows from row `first` of a file stay; `None`: all.
    pub(crate) fn left(&self, file: u32, first: u64, count: usize) -> Option<BooleanBuffer> {
        let rows = self.rows.get(&file)?;
        Some(BooleanBuffer::collect_bool(count, |row| !rows.contains(first + row as u64)))
    }

    fn count(&self, published: &[Published]) -> u64 {
        let whole = self.whole.iter().filter_map(|file| published.get(*file as usize)).map(|file| file.scan.rows);
        whole.sum::<u64>() + self.rows.values().map(RowSet::len).sum::<u64>()
    }

    /// Writes the files anew that lose some of their rows. `states` counts every row that is left.
    pub(crate) fn apply(
        &self,
        audit: &AuditPlan,
        published: Vec<Published>,
        states: &mut MetricStates,
    ) -> Result<Left> {
        let (mut carried, mut rewritten, mut gone) = (Vec::new(), Vec::new(), HashSet::new());
        for (id, file) in (0_u32..).zip(published) {
            let rows = self.rows.get(&id);
            if self.whole.contains(&id) || rows.is_some_and(|rows| rows.len() >= file.scan.rows) {
                gone.insert(file.file.url().to_owned());
            } else if let Some(rows) = rows {
                gone.insert(file.file.url().to_owned());
                rewritten.push(rewrite(audit, file, rows, states)?);
            } else {
                add_published(audit, &file.scan, states)?;
                carried.push(file.scan);
            }
        }
        Ok((carried, rewritten, gone))
    }
}

/// Writes a published file anew without some of its rows. Its columns stay those it has.
fn rewrite(audit: &AuditPlan, published: Published, gone: &RowSet, states: &mut MetricStates) -> Result<RewrittenFile> {
    let url = &published.scan.url;
    let measured: Vec<String> = audit.metrics.columns().into_iter().map(str::to_owned).collect();
    let reader = builder(&audit.storage, url)?;
    let (_, new) = audit.new_data_file();
    let mut writer = audit.create(&new, reader.schema())?;
    let mut first = 0;
    for batch in batches(reader, url)? {
        let batch = batch?;
        let stays = BooleanBuffer::collect_bool(batch.num_rows(), |row| !gone.contains(first + row as u64));
        first += batch.num_rows() as u64;
        let kept = filter_record_batch(&batch, &BooleanArray::new(stays, None)).map_err(arrow)?;
        if kept.num_rows() == 0 {
            continue;
        }
        writer.write(&kept)?;
        if measured.is_empty() {
            states.rows += kept.num_rows() as i64;
        } else {
            let kept = renamed(&audit.schema, &kept)?;
            audit.metrics.update(states, &complete(audit, &measured, &kept)?, None);
        }
    }
    let part = writer.close()?;
    Ok(RewrittenFile {
        url: part.url,
        bytes: part.bytes,
        footer: part.footer,
        nan_counts: part.nan_counts,
        origin: published.file,
    })
}

/// Finds what a staged table's commit over `published` takes out. `planned` are the files of the base that the data was
/// staged for, where that is another one.
///
/// # Errors
/// `conflict` where somebody else changed a partition meanwhile that is to be replaced.
pub(crate) fn merge(
    staged: &StagedTable,
    draft: &TableDraft,
    published: &[Published],
    planned: Option<&[LiveFile]>,
) -> Result<Merge> {
    let mode = staged.audit.table.write;
    let keys = &staged.audit.keys;
    let runs = keys.iter().enumerate().map(|(index, key)| published_keys(staged, draft, published, index, key));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    let mut doubled = Doubled::new();
    loop {
        let mut found = Doubled::new();
        let (removed, changes) = match mode {
            WriteMode::Append | WriteMode::Replace => (Removed::default(), None),
            WriteMode::Upsert => {
                let (removed, changed) = replaced_by_key(staged, published, &runs, &doubled, &mut found)?;
                (removed, Some(changed))
            }
            WriteMode::ReplacePartitions => {
                let removed = replaced_partitions(staged, draft, published, &doubled)?;
                let count = removed.count(published);
                (removed, Some(Changed { by_key: false, updated: 0, deleted: 0, removed: count }))
            }
        };
        let first = usize::from(mode == WriteMode::Upsert);
        for (index, key) in keys.iter().enumerate().skip(first) {
            find_doubled(staged, published, index, key, &runs[index], &removed, &mut found)?;
        }
        for rows in found.values_mut() {
            rows.sort_unstable();
            rows.dedup();
        }
        let is_final = match mode {
            WriteMode::Append | WriteMode::Replace => true,
            // Rows whose own key is doubled replace nothing in any round.
            WriteMode::Upsert => keys.len() <= 1 || found == doubled,
            WriteMode::ReplacePartitions => touched(staged, draft, &found)? == touched(staged, draft, &doubled)?,
        };
        if is_final {
            if let (WriteMode::ReplacePartitions, Some(planned)) = (mode, planned) {
                check_untouched(staged, draft, published, planned, &found)?;
            }
            return Ok(Merge { doubled: found, removed, changes });
        }
        doubled = found;
    }
}

/// The keys of the published files that may hold an incoming key: the others' bounds rule it out.
fn published_keys(
    staged: &StagedTable,
    draft: &TableDraft,
    published: &[Published],
    index: usize,
    key: &KeyReader,
) -> Result<KeyRuns> {
    let result = &staged.result;
    let columns = &key.rule.columns;
    let footers = result.data.iter().chain(&result.deletions).map(|file| &file.part.footer);
    let footers = footers.chain(result.quarantine.iter().map(|file| &file.part.footer));
    let incoming: Vec<_> = footers.map(|footer| draft.key_ranges(footer, columns)).collect();
    let mut runs = KeyRuns::new(&staged.audit.scratch, format!("published-k{index}"));
    for (id, file) in (0_u32..).zip(published) {
        let ranges = draft.published_ranges(&file.file, columns);
        if !incoming.iter().any(|incoming| incoming.overlap(&ranges)) {
            continue;
        }
        let mut row = 0;
        for batch in read_columns(&staged.audit.storage, &file.scan.url, &staged.audit.schema, columns, None)? {
            let batch = batch?;
            key.hashes(&batch, |at, hash| {
                runs.push(KeyEntry { hash, place: Place::new(Area::Published, id, row + at as u64) })
            })?;
            row += batch.num_rows() as u64;
        }
    }
    Ok(runs.finish())
}

/// Calls `group` with the places of every key that an incoming row and any other row have, equal by value.
fn for_each_key(
    staged: &StagedTable,
    published: &[Published],
    index: usize,
    key: &KeyReader,
    theirs: &KeyRuns,
    mut group: impl FnMut(&[Place]),
) -> Result<()> {
    let incoming = staged.result.keys.get(index).map_or(&[][..], Vec::as_slice);
    let mut hits: Vec<KeyEntry> = Vec::new();
    for_each_hit(incoming.iter().chain([theirs]), |same_hash| {
        if same_hash.iter().any(|hit| hit.place.area() != Area::Published) {
            hits.extend_from_slice(same_hash);
        }
        if hits.len() >= CONFIRM {
            confirm(staged, published, key, &hits, &mut group)?;
            hits.clear();
        }
        Ok(())
    })?;
    confirm(staged, published, key, &hits, &mut group)
}

/// Of rows with equal hashes, groups those whose keys really are equal.
fn confirm(
    staged: &StagedTable,
    published: &[Published],
    key: &KeyReader,
    hits: &[KeyEntry],
    group: &mut impl FnMut(&[Place]),
) -> Result<()> {
    let mut by_file: BTreeMap<(Area, u32), Vec<u64>> = BTreeMap::new();
    for hit in hits {
        by_file.entry((hit.place.area(), hit.place.file())).or_default().push(hit.place.row());
    }
    let mut groups: HashMap<Box<[u8]>, Vec<Place>> = HashMap::new();
    let result = &staged.result;
    for ((area, file), mut rows) in by_file {
        rows.sort_unstable();
        let staged_in = |files: &'_ [crate::audit::StagedFile]| {
            files.iter().find(|staged| staged.id == file).map(|staged| staged.part.url.clone())
        };
        let url = match area {
            Area::Published => published.get(file as usize).map(|file| file.scan.url.clone()),
            Area::Staged => staged_in(&result.data),
            Area::Deletion => staged_in(&result.deletions),
            Area::Quarantined => {
                result.quarantine.iter().find(|part| part.id == file).map(|part| part.part.url.clone())
            }
        };
        let url = url.ok_or_else(|| Error::new(ErrorCode::Internal, "a key names a file that was not staged"))?;
        let mut next = rows.iter();
        for batch in read_columns(&staged.audit.storage, &url, &staged.audit.schema, &key.rule.columns, Some(&rows))? {
            let batch = batch?;
            let keys = key.keys(&batch)?;
            for at in 0..batch.num_rows() {
                let Some(row) = next.next() else { break };
                if let Some((bytes, whole)) = &keys
                    && whole[at]
                {
                    groups.entry(bytes.row(at).data().into()).or_default().push(Place::new(area, file, *row));
                }
            }
        }
    }
    groups.into_values().filter(|places| places.len() > 1).for_each(|places| group(&places));
    Ok(())
}

fn add(doubled: &mut Doubled, place: Place, key: usize) {
    doubled.entry((place.area(), place.file())).or_default().push((place.row(), key));
}

fn is_out(doubled: &Doubled, place: Place) -> bool {
    doubled.get(&(place.area(), place.file())).is_some_and(|rows| {
        let at = rows.partition_point(|(row, _)| *row < place.row());
        rows.get(at).is_some_and(|(row, _)| *row == place.row())
    })
}

/// Finds the incoming rows whose key another incoming row has, or a published row that stays.
fn find_doubled(
    staged: &StagedTable,
    published: &[Published],
    index: usize,
    key: &KeyReader,
    theirs: &KeyRuns,
    removed: &Removed,
    found: &mut Doubled,
) -> Result<()> {
    for_each_key(staged, published, index, key, theirs, |places| {
        let (old, new): (Vec<Place>, Vec<Place>) = places.iter().partition(|place| place.area() == Area::Published);
        if new.len() > 1 || old.iter().any(|place| !removed.holds(*place)) {
            new.into_iter().for_each(|place| add(found, place, index));
        }
    })
}

/// The published rows whose primary key a good incoming row has that is not `out`; incoming rows of one key are doubled.
fn replaced_by_key(
    staged: &StagedTable,
    published: &[Published],
    runs: &[KeyRuns],
    out: &Doubled,
    found: &mut Doubled,
) -> Result<(Removed, Changed)> {
    let mut removed = Removed::default();
    let mut changed = Changed { by_key: true, updated: 0, deleted: 0, removed: 0 };
    let (Some(key), Some(theirs)) = (staged.audit.keys.first(), runs.first()) else { return Ok((removed, changed)) };
    for_each_key(staged, published, 0, key, theirs, |places| {
        let (old, new): (Vec<Place>, Vec<Place>) = places.iter().partition(|place| place.area() == Area::Published);
        let [incoming] = new.as_slice() else {
            new.into_iter().for_each(|place| add(found, place, 0));
            return;
        };
        match incoming.area() {
            Area::Staged if !is_out(out, *incoming) => changed.updated += 1,
            Area::Deletion if !is_out(out, *incoming) => changed.deleted += 1,
            // A row that is held back leaves the published one standing.
            _ => return,
        }
        for place in old {
            removed.rows.entry(place.file()).or_default().insert(place.row());
        }
    })?;
    changed.removed = removed.count(published);
    Ok((removed, changed))
}

/// The partitions that get a good row.
fn touched(staged: &StagedTable, draft: &TableDraft, out: &Doubled) -> Result<HashSet<Partition>> {
    let mut touched = HashSet::new();
    for file in &staged.result.data {
        let mut rows: Vec<u64> = out.get(&(Area::Staged, file.id)).into_iter().flatten().map(|(row, _)| *row).collect();
        rows.dedup();
        if (rows.len() as u64) < file.part.rows {
            touched.insert(draft.partition_of(&file.partition)?);
        }
    }
    Ok(touched)
}

/// The published rows in the partitions that get a good row. A file that was written by other partition fields loses
/// just those of its rows that fall into them.
fn replaced_partitions(
    staged: &StagedTable,
    draft: &TableDraft,
    published: &[Published],
    out: &Doubled,
) -> Result<Removed> {
    let touched = touched(staged, draft, out)?;
    let mut removed = Removed::default();
    if touched.is_empty() {
        return Ok(removed);
    }
    for (id, file) in (0_u32..).zip(published) {
        match draft.partition_of_file(&file.file) {
            Some(partition) if touched.contains(&partition) => {
                removed.whole.insert(id);
            }
            Some(_) => {}
            None => {
                let mut rows = RowSet::default();
                let mut first = 0;
                let (storage, schema) = (&staged.audit.storage, &staged.audit.schema);
                for batch in read_columns(storage, &file.scan.url, schema, &draft.partition_sources(), None)? {
                    let batch = whole(staged, &batch?)?;
                    for (row, partition) in (first..).zip(draft.partitions(&batch)?) {
                        if touched.contains(&partition) {
                            rows.insert(row);
                        }
                    }
                    first += batch.num_rows() as u64;
                }
                if rows.len() > 0 {
                    removed.rows.insert(id, rows);
                }
            }
        }
    }
    Ok(removed)
}

/// A batch with all columns of the table; those it does not have are null.
fn whole(staged: &StagedTable, batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = &staged.audit.schema;
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(array) => array.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new_with_options(
        schema.clone(),
        columns.collect(),
        &datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
    )
    .map_err(arrow)
}

/// Refuses where the files of the partitions to replace are not those that were there when the data was staged.
fn check_untouched(
    staged: &StagedTable,
    draft: &TableDraft,
    published: &[Published],
    planned: &[LiveFile],
    out: &Doubled,
) -> Result<()> {
    let touched = touched(staged, draft, out)?;
    let affected = |file: &LiveFile| draft.partition_of_file(file).is_none_or(|partition| touched.contains(&partition));
    let now: BTreeSet<&str> =
        published.iter().map(|file| &file.file).filter(|file| affected(file)).map(LiveFile::url).collect();
    let then: BTreeSet<&str> = planned.iter().filter(|file| affected(file)).map(LiveFile::url).collect();
    if now == then {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::Conflict,
        format!(
            "table `{}`: somebody else changed a partition while this attempt ran, and replacing it would undo what it has not seen",
            staged.audit.table.name
        ),
    )
    .with_help("run the same command again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_set_holds_what_was_put_in() {
        let mut rows = RowSet::default();
        for row in [0, 63, 64, 1_000_000, 63] {
            rows.insert(row);
        }
        assert_eq!(rows.len(), 4);
        assert!([0, 63, 64, 1_000_000].into_iter().all(|row| rows.contains(row)));
        assert!([1, 62, 65, 999_999, 1_000_001, u64::from(u32::MAX)].into_iter().all(|row| !rows.contains(row)));
    }
}
