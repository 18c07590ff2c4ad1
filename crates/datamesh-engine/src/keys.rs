//! Uniqueness in bounded memory: hashes of keys are parted into buckets, in runs on the disk, and each bucket is sorted alone;
//! equal hashes are only a hint, which is confirmed by value.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datamesh_core::quality::KeyRule;
use datamesh_core::{Error, ErrorCode, Result};
use twox_hash::XxHash3_64;

use crate::error::arrow;

/// Entries held in memory before they become a run: 16 MiB.
const RUN_ENTRIES: usize = 1 << 20;

/// About so many entries are sorted at once, by all threads: 16 MiB.
const MERGED_ENTRIES: usize = 1 << 20;

/// Parts of the hashes, by their first bits.
const BUCKETS: usize = 256;

/// So many runs stay open while they are read.
const OPEN_RUNS: usize = 256;

/// At most so many threads sort, each with memory of its own.
const THREADS: usize = 8;

/// An entry on the disk.
const ENTRY_BYTES: usize = 16;

/// Columns of a key that is hashed number by number.
const NUMBERS: usize = 4;

/// Where a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Area {
    /// In a staged data file.
    Staged,
    /// In a quarantine file: it broke another rule, but its key counts.
    Quarantined,
    /// In a data file that is published already.
    Published,
    /// Among the rows that are to delete published ones.
    Deletion,
}

/// A row's place, packed: 2 bits area, 22 bits file, 40 bits row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) fn new(area: Area, file: u32, row: u64) -> Self {
        let area = match area {
            Area::Staged => 0,
            Area::Quarantined => 1,
            Area::Published => 2,
            Area::Deletion => 3,
        };
        Self(area << 62 | (u64::from(file) & 0x3f_ffff) << 40 | row & 0xff_ffff_ffff)
    }

    /// Any 64 bits, for runs whose entries have no place.
    pub(crate) fn opaque(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn area(self) -> Area {
        match self.0 >> 62 {
            0 => Area::Staged,
            1 => Area::Quarantined,
            2 => Area::Published,
            _ => Area::Deletion,
        }
    }

    pub(crate) fn file(self) -> u32 {
        (self.0 >> 40 & 0x3f_ffff) as u32
    }

    pub(crate) fn row(self) -> u64 {
        self.0 & 0xff_ffff_ffff
    }
}

/// A key's hash and its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyEntry {
    pub(crate) hash: u64,
    pub(crate) place: Place,
}

/// Turns key columns into comparable bytes.
#[derive(Debug)]
pub(crate) struct KeyReader {
    pub(crate) rule: KeyRule,
    converter: RowConverter,
}

impl KeyReader {
    pub(crate) fn new(rule: &KeyRule, schema: &datafusion::arrow::datatypes::Schema) -> Result<Self> {
        let mut fields = Vec::new();
        for name in &rule.columns {
            let field = schema.field_with_name(name).map_err(arrow)?;
            fields.push(SortField::new(field.data_type().clone()));
        }
        Ok(Self { rule: rule.clone(), converter: RowConverter::new(fields).map_err(arrow)? })
    }

    fn columns(&self, batch: &RecordBatch) -> Option<Vec<ArrayRef>> {
        self.rule.columns.iter().map(|name| batch.column_by_name(name).cloned()).collect()
    }

    /// The key's columns where all are whole numbers, and few.
    fn numbers(&self, batch: &RecordBatch) -> Result<Option<Vec<Int64Array>>> {
        let Some(columns) = self.columns(batch).filter(|columns| columns.len() <= NUMBERS) else { return Ok(None) };
        let mut numbers = Vec::new();
        for column in columns {
            let wide = match column.data_type() {
                DataType::Date32 => cast(&cast(&column, &DataType::Int32).map_err(arrow)?, &DataType::Int64),
                DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => cast(&column, &DataType::Int64),
                _ => return Ok(None),
            };
            numbers.push(wide.map_err(arrow)?.as_primitive::<Int64Type>().clone());
        }
        Ok(Some(numbers))
    }

    /// The rows' keys as bytes, and which rows have a whole key: one with a null is distinct from every other.
    /// `None` where the batch does not have the columns, so that no row has a key.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<Option<(Rows, Vec<bool>)>> {
        let Some(columns) = self.columns(batch) else { return Ok(None) };
        let whole = (0..batch.num_rows()).map(|row| columns.iter().all(|column| !column.is_null(row))).collect();
        Ok(Some((self.converter.convert_columns(&columns).map_err(arrow)?, whole)))
    }

    /// Calls `add` with the hash of every whole key.
    pub(crate) fn hashes(&self, batch: &RecordBatch, mut add: impl FnMut(usize, u64) -> Result<()>) -> Result<()> {
        if let Some(numbers) = self.numbers(batch)? {
            let whole = numbers.iter().fold(None, |whole, numbers| NullBuffer::union(whole.as_ref(), numbers.nulls()));
            let mut bytes = [0; 8 * NUMBERS];
            for row in (0..batch.num_rows()).filter(|row| whole.as_ref().is_none_or(|whole| whole.is_valid(*row))) {
                for (numbers, bytes) in numbers.iter().zip(bytes.chunks_exact_mut(8)) {
                    bytes.copy_from_slice(&numbers.value(row).to_le_bytes());
                }
                add(row, XxHash3_64::oneshot(&bytes[..8 * numbers.len()]))?;
            }
            return Ok(());
        }
        if let Some((rows, whole)) = self.keys(batch)? {
            for (row, _) in whole.iter().enumerate().filter(|(_, whole)| **whole) {
                add(row, XxHash3_64::oneshot(rows.row(row).data()))?;
            }
        }
        Ok(())
    }
}

/// The part of all hashes that an entry belongs to.
fn bucket(hash: u64) -> usize {
    (hash >> (64 - BUCKETS.trailing_zeros())) as usize
}

/// Entries, parted by their hashes: what is in one bucket meets nothing in another, so that each is looked through alone.
/// What is more than a few stretches of memory lies on the disk.
#[derive(Debug)]
pub(crate) struct KeyRuns {
    folder: PathBuf,
    name: String,
    buckets: Vec<Vec<KeyEntry>>,
    held: usize,
    runs: Vec<Run>,
}

/// Entries on the disk, bucket after bucket.
#[derive(Debug)]
struct Run {
    path: PathBuf,
    /// How many entries lie before each bucket, and at last how many there are.
    before: Vec<usize>,
}

impl Run {
    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|error| Error::io(ErrorCode::WriteFailed, "read back", &self.path, error))
    }
}

impl KeyRuns {
    pub(crate) fn new(folder: &Path, name: String) -> Self {
        let buckets = vec![Vec::new(); BUCKETS];
        Self { folder: folder.to_owned(), name, buckets, held: 0, runs: Vec::new() }
    }

    pub(crate) fn push(&mut self, entry: KeyEntry) -> Result<()> {
        self.buckets[bucket(entry.hash)].push(entry);
        self.held += 1;
        if self.held >= RUN_ENTRIES { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let path = self.folder.join(format!("{}-{}.keys", self.name, self.runs.len()));
        let mut before = vec![0];
        let mut write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let mut file = BufWriter::with_capacity(1 << 18, File::create(&path)?);
            let mut count = 0;
            for bucket in &self.buckets {
                for entry in bucket {
                    file.write_all(&entry.hash.to_le_bytes())?;
                    file.write_all(&entry.place.0.to_le_bytes())?;
                }
                count += bucket.len();
                before.push(count);
            }
            file.flush()
        };
        write().map_err(|error| Error::io(ErrorCode::WriteFailed, "write", &path, error))?;
        self.buckets.iter_mut().for_each(Vec::clear);
        self.held = 0;
        self.runs.push(Run { path, before });
        Ok(())
    }

    /// How many entries there are.
    fn len(&self) -> usize {
        self.held + self.runs.iter().filter_map(|run| run.before.last()).sum::<usize>()
    }

    /// Gives back memory that grew ahead; nothing is pushed any more.
    pub(crate) fn finish(mut self) -> Self {
        self.buckets.iter_mut().for_each(Vec::shrink_to_fit);
        self
    }
}

/// Reads a run.
struct RunReader<'a> {
    run: &'a Run,
    /// Stays open, unless there are so many runs that a process may not have them all open.
    file: Option<File>,
    bytes: Vec<u8>,
}

impl<'a> RunReader<'a> {
    fn new(run: &'a Run, stays_open: bool) -> Result<Self> {
        let file = if stays_open { Some(run.open()?) } else { None };
        Ok(Self { run, file, bytes: Vec::new() })
    }

    /// Calls `take` with every entry of a bucket. Buckets are read from the first to the last.
    fn read(&mut self, bucket: usize, mut take: impl FnMut(KeyEntry)) -> Result<()> {
        let fail = |error| Error::io(ErrorCode::WriteFailed, "read back", &self.run.path, error);
        let (start, end) = (self.run.before[bucket], self.run.before[bucket + 1]);
        self.bytes.resize((end - start) * ENTRY_BYTES, 0);
        let mut opened = if self.file.is_none() { Some(self.run.open()?) } else { None };
        if let Some(file) = self.file.as_mut().or(opened.as_mut()) {
            file.seek(SeekFrom::Start((start * ENTRY_BYTES) as u64)).map_err(fail)?;
            file.read_exact(&mut self.bytes).map_err(fail)?;
        }
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
        for entry in self.bytes.chunks_exact(ENTRY_BYTES) {
            let (hash, place) = entry.split_at(8);
            take(KeyEntry { hash: word(hash), place: Place(word(place)) });
        }
        Ok(())
    }
}

/// Another thread is worth this many entries: 1 MiB.
const WORTH_THREADS: usize = 1 << 16;

/// Looks through the buckets one by one.
struct Merger<'a> {
    runs: &'a [&'a KeyRuns],
    readers: Vec<RunReader<'a>>,
    merged: Vec<KeyEntry>,
    /// About so many entries are sorted at once.
    most: usize,
}

impl<'a> Merger<'a> {
    /// One of `beside` that read the same runs.
    fn new(runs: &'a [&'a KeyRuns], beside: usize) -> Result<Self> {
        let stored: Vec<&Run> = runs.iter().flat_map(|runs| &runs.runs).collect();
        let readers = stored.iter().map(|run| RunReader::new(run, stored.len() * beside <= OPEN_RUNS));
        Ok(Self { runs, readers: readers.collect::<Result<_>>()?, merged: Vec::new(), most: MERGED_ENTRIES / beside })
    }

    /// Calls `take` with the entries of the bucket whose hash another one has, sorted, once or in several stretches.
    fn look_through(&mut self, bucket: usize, mut take: impl FnMut(&[KeyEntry]) -> Result<()>) -> Result<()> {
        let held: usize = self.runs.iter().map(|runs| runs.buckets[bucket].len()).sum();
        let stored: usize =
            self.readers.iter().map(|reader| reader.run.before[bucket + 1] - reader.run.before[bucket]).sum();
        // Hashes are spread evenly: what is too much for one look is looked through in equal stretches of its hashes.
        let stretches = ((held + stored) / self.most).next_power_of_two().max(1) as u64;
        let bits = BUCKETS.trailing_zeros();
        let stretch_of = |hash: u64| match stretches {
            1 => 0,
            _ => (hash << bits) >> (64 - stretches.trailing_zeros()),
        };
        // Where they are not spread, for many rows have one key, most stretches are empty.
        let mut counts = vec![0_u64; stretches as usize];
        if stretches > 1 {
            let mut count = |entry: &KeyEntry| counts[stretch_of(entry.hash) as usize] += 1;
            self.runs.iter().for_each(|runs| runs.buckets[bucket].iter().for_each(&mut count));
            for reader in &mut self.readers {
                reader.read(bucket, |entry| count(&entry))?;
            }
        }
        for stretch in (0..stretches).filter(|stretch| stretches == 1 || counts[*stretch as usize] > 1) {
            let merged = &mut self.merged;
            merged.clear();
            for runs in self.runs {
                merged.extend(runs.buckets[bucket].iter().filter(|entry| stretch_of(entry.hash) == stretch));
            }
            for reader in &mut self.readers {
                reader.read(bucket, |entry| {
                    if stretch_of(entry.hash) == stretch {
                        merged.push(entry);
                    }
                })?;
            }
            merged.sort_unstable();
            keep_hits(merged);
            if !merged.is_empty() {
                take(merged)?;
            }
        }
        Ok(())
    }
}

/// Keeps those of the sorted entries whose hash another one has.
fn keep_hits(entries: &mut Vec<KeyEntry>) {
    let (mut kept, mut start) = (0, 0);
    while start < entries.len() {
        let end = start + entries[start..].iter().take_while(|entry| entry.hash == entries[start].hash).count();
        if end - start > 1 {
            entries.copy_within(start..end, kept);
            kept += end - start;
        }
        start = end;
    }
    entries.truncate(kept);
}

/// Calls `group` with all entries of each hash that more than one row has, in the order of hashes and places. Buckets
/// are sorted on all cores.
pub(crate) fn for_each_hit<'a>(
    runs: impl Iterator<Item = &'a KeyRuns>,
    mut group: impl FnMut(&[KeyEntry]) -> Result<()>,
) -> Result<()> {
    let runs: Vec<&KeyRuns> = runs.collect();
    let entries: usize = runs.iter().map(|runs| runs.len()).sum();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = (entries / WORTH_THREADS).clamp(1, cores.min(THREADS));
    let mut groups = |hits: &[KeyEntry]| hits.chunk_by(|a, b| a.hash == b.hash).try_for_each(&mut group);
    if threads == 1 {
        let mut merger = Merger::new(&runs, 1)?;
        return (0..BUCKETS).try_for_each(|bucket| merger.look_through(bucket, |hits| groups(hits)));
    }
    let runs = runs.as_slice();
    std::thread::scope(|scope| {
        // Every thread has its share of the buckets and is at most two stretches ahead; the buckets are taken in turn.
        let channels = (0..threads).map(|thread| {
            let (send, receive) = sync_channel(1);
            scope.spawn(move || {
                let shared = (thread..BUCKETS).step_by(threads);
                if let Err(error) = look_through_for(&send, runs, threads, shared) {
                    // Nobody listens any more where another thread failed before.
                    let _ = send.send(Err(error));
                }
            });
            receive
        });
        let channels: Vec<_> = channels.collect();
        let gone = |_| Error::new(ErrorCode::Internal, "a thread that looks for doubled keys has ended early");
        for bucket in 0..BUCKETS {
            while let Some(hits) = channels[bucket % threads].recv().map_err(gone)?? {
                groups(&hits)?;
            }
        }
        Ok(())
    })
}

/// What a thread tells: the hits of a stretch, or that a bucket is done.
type Told = Result<Option<Vec<KeyEntry>>>;

fn look_through_for(
    send: &SyncSender<Told>,
    runs: &[&KeyRuns],
    threads: usize,
    buckets: impl Iterator<Item = usize>,
) -> Result<()> {
    let unheard = |_| Error::new(ErrorCode::Internal, "nobody waits for doubled keys any more");
    let mut merger = Merger::new(runs, threads)?;
    for bucket in buckets {
        merger.look_through(bucket, |hits| send.send(Ok(Some(hits.to_vec()))).map_err(unheard))?;
        send.send(Ok(None)).map_err(unheard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_packed() {
        for (area, file, row) in [
            (Area::Staged, 0, 0),
            (Area::Quarantined, 7, 1 << 39),
            (Area::Published, 0x3f_ffff, 5),
            (Area::Deletion, 1, 2),
        ] {
            let place = Place::new(area, file, row);
            assert_eq!((place.area(), place.file(), place.row()), (area, file, row));
        }
    }

    #[test]
    fn runs_on_disk_and_in_memory_are_merged() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = KeyRuns::new(folder.path(), "a".into());
        let mut second = KeyRuns::new(folder.path(), "b".into());
        for row in 0..(RUN_ENTRIES as u64 + 10) {
            first
                .push(KeyEntry {
                    hash: row.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    place: Place::new(Area::Staged, 0, row),
                })
                .expect("pushed");
        }
        for row in [3, RUN_ENTRIES as u64 + 5, RUN_ENTRIES as u64 + 100] {
            second
                .push(KeyEntry {
                    hash: row.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    place: Place::new(Area::Published, 1, row),
                })
                .expect("pushed");
        }
        assert_eq!(first.runs.len(), 1);
        let runs = [first.finish(), second.finish()];
        let (mut rows, mut last) = (Vec::new(), 0);
        for_each_hit(runs.iter(), |hits| {
            assert!(hits[0].hash > last, "{hits:?} after {last}");
            last = hits[0].hash;
            rows.push(hits.iter().map(|hit| (hit.place.area(), hit.place.row())).collect::<Vec<_>>());
            Ok(())
        })
        .expect("merged");
        rows.sort();
        let late = RUN_ENTRIES as u64 + 5;
        assert_eq!(rows, [[(Area::Staged, 3), (Area::Published, 3)], [(Area::Staged, late), (Area::Published, late)]]);
        let mut calls = 0;
        let refused = for_each_hit(runs.iter(), |_| {
            calls += 1;
            Err(Error::new(ErrorCode::Internal, "enough"))
        });
        assert_eq!((refused.expect_err("refused").to_string(), calls), ("enough".to_owned(), 1));
    }

    #[test]
    fn only_entries_that_share_their_hash_are_kept() {
        let entry = |hash, row| KeyEntry { hash, place: Place::new(Area::Staged, 0, row) };
        for (entries, kept) in [
            (vec![], vec![]),
            (vec![(1, 0)], vec![]),
            (vec![(1, 0), (1, 1)], vec![(1, 0), (1, 1)]),
            (vec![(1, 0), (2, 1), (2, 2), (2, 3), (4, 4)], vec![(2, 1), (2, 2), (2, 3)]),
            (vec![(1, 0), (1, 1), (2, 2), (5, 3), (5, 4)], vec![(1, 0), (1, 1), (5, 3), (5, 4)]),
        ] {
            let mut found: Vec<_> = entries.into_iter().map(|(hash, row)| entry(hash, row)).collect();
            keep_hits(&mut found);
            assert_eq!(found, kept.into_iter().map(|(hash, row)| entry(hash, row)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn more_runs_than_may_stay_open_are_merged() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut runs = KeyRuns::new(folder.path(), "c".into());
        for run in 0..OPEN_RUNS as u64 + 10 {
            for row in [run, 7] {
                let hash = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                runs.push(KeyEntry { hash, place: Place::new(Area::Staged, run as u32, row) }).expect("pushed");
            }
            runs.spill().expect("written");
        }
        let mut groups = Vec::new();
        for_each_hit(std::iter::once(&runs.finish()), |hits| {
            assert!(hits.is_sorted(), "{hits:?}");
            groups.push((hits[0].place.row(), hits.len()));
            Ok(())
        })
        .expect("merged");
        // Each run has key 7, and run 7 has it twice.
        assert_eq!(groups, [(7, OPEN_RUNS + 11)]);
    }
}
