//! Uniqueness in bounded memory: hashes of keys are sorted in runs on the disk and merged; equal hashes are only a hint,
//! which is confirmed by value.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datamesh_core::quality::KeyRule;
use datamesh_core::{Error, ErrorCode, Result};
use twox_hash::XxHash3_64;

use crate::error::arrow;

/// Entries sorted in memory before they become a run: 16 MiB.
const RUN_ENTRIES: usize = 1 << 20;

/// Entries of all runs that are merged at once: 1 MiB.
const MERGED_ENTRIES: usize = 1 << 16;

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

/// Entries in sorted runs. Runs beyond the first are on the disk.
#[derive(Debug)]
pub(crate) struct KeyRuns {
    folder: PathBuf,
    name: String,
    buffer: Vec<KeyEntry>,
    runs: Vec<PathBuf>,
}

impl KeyRuns {
    pub(crate) fn new(folder: &Path, name: String) -> Self {
        Self { folder: folder.to_owned(), name, buffer: Vec::new(), runs: Vec::new() }
    }

    pub(crate) fn push(&mut self, entry: KeyEntry) -> Result<()> {
        self.buffer.push(entry);
        if self.buffer.len() >= RUN_ENTRIES { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        self.buffer.sort_unstable();
        let path = self.folder.join(format!("{}-{}.keys", self.name, self.runs.len()));
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let mut file = BufWriter::with_capacity(1 << 18, File::create(&path)?);
            for entry in &self.buffer {
                file.write_all(&entry.hash.to_le_bytes())?;
                file.write_all(&entry.place.0.to_le_bytes())?;
            }
            file.flush()
        };
        write().map_err(|error| Error::io(ErrorCode::WriteFailed, "write", &path, error))?;
        self.buffer.clear();
        self.runs.push(path);
        Ok(())
    }

    /// Sorts what is in memory; nothing can be pushed any more.
    pub(crate) fn finish(mut self) -> Self {
        self.buffer.sort_unstable();
        self.buffer.shrink_to_fit();
        self
    }
}

enum RunReader<'a> {
    Memory(&'a [KeyEntry]),
    /// With the entry that was read but not yet wanted.
    Disk(PathBuf, BufReader<File>, Option<KeyEntry>),
}

impl RunReader<'_> {
    /// Adds the next entries whose hash is below `end`, or all, to `out`.
    fn take(&mut self, end: Option<u64>, out: &mut Vec<KeyEntry>) -> Result<()> {
        match self {
            Self::Memory(entries) => {
                let count = end.map_or(entries.len(), |end| entries.partition_point(|entry| entry.hash < end));
                let (taken, rest) = entries.split_at(count);
                out.extend_from_slice(taken);
                *entries = rest;
            }
            Self::Disk(path, file, pending) => loop {
                let entry = match pending.take() {
                    Some(entry) => entry,
                    None => match read_entry(path, file)? {
                        Some(entry) => entry,
                        None => break,
                    },
                };
                if end.is_some_and(|end| entry.hash >= end) {
                    *pending = Some(entry);
                    break;
                }
                out.push(entry);
            },
        }
        Ok(())
    }
}

fn read_entry(path: &Path, file: &mut BufReader<File>) -> Result<Option<KeyEntry>> {
    let mut bytes = [0; 16];
    match file.read_exact(&mut bytes) {
        Ok(()) => {
            let half = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(word)
            };
            Ok(Some(KeyEntry { hash: half(0), place: Place(half(8)) }))
        }
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && file.buffer().is_empty() => Ok(None),
        Err(error) => Err(Error::io(ErrorCode::WriteFailed, "read back", path, error)),
    }
}

/// Merges runs and calls `group` with all entries of each hash that more than one row has.
///
/// Hashes are spread evenly, so a stretch of them holds a known share of every run: what all runs have in one is sorted at
/// once, which costs less than choosing among runs entry by entry.
pub(crate) fn for_each_hit<'a>(
    runs: impl Iterator<Item = &'a KeyRuns>,
    mut group: impl FnMut(&[KeyEntry]) -> Result<()>,
) -> Result<()> {
    let mut readers = Vec::new();
    let mut entries = 0;
    for run in runs {
        entries += run.buffer.len();
        readers.push(RunReader::Memory(&run.buffer));
        for path in &run.runs {
            let file = File::open(path).map_err(|error| Error::io(ErrorCode::WriteFailed, "read back", path, error))?;
            entries += file.metadata().map_or(RUN_ENTRIES, |file| file.len() as usize / 16);
            readers.push(RunReader::Disk(path.clone(), BufReader::with_capacity(1 << 18, file), None));
        }
    }
    let stretches = (entries / MERGED_ENTRIES).next_power_of_two().max(1) as u64;
    let mut merged: Vec<KeyEntry> = Vec::new();
    for stretch in 1..=stretches {
        let end = (stretch < stretches).then(|| stretch << (64 - stretches.trailing_zeros()));
        merged.clear();
        for reader in &mut readers {
            reader.take(end, &mut merged)?;
        }
        merged.sort();
        for hits in merged.chunk_by(|a, b| a.hash == b.hash).filter(|hits| hits.len() > 1) {
            group(hits)?;
        }
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
        let mut rows = Vec::new();
        for_each_hit(runs.iter(), |hits| {
            rows.push(hits.iter().map(|hit| (hit.place.area(), hit.place.row())).collect::<Vec<_>>());
            Ok(())
        })
        .expect("merged");
        rows.sort();
        let late = RUN_ENTRIES as u64 + 5;
        assert_eq!(rows, [[(Area::Staged, 3), (Area::Published, 3)], [(Area::Staged, late), (Area::Published, late)]]);
    }
}
