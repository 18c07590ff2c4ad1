//! Sources: files to batches of the contract's columns, with every fault beside its row.
//!
//! A batch has the contract's columns in order and then the hidden columns of [`Hidden`]. A record that cannot be
//! tokenised, or a cell that does not fit its type, stops nothing: the row goes on with a fault and its raw text.

mod arrow_batches;
mod arrow_stream;
mod avro;
mod build;
mod csv;
mod database;
mod dialect;
mod exec;
mod iceberg;
mod ipc;
mod json;
mod json_array;
mod open;
mod own;
mod parquet;
mod postgres;
mod quarantined;
mod query;
mod raw;
mod resolve;
mod row_hash;
mod sqlite;
mod text;
mod typed;
mod watermark;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datamesh_app::Progress;
use datamesh_core::contract::CsvOptions;
use datamesh_core::verdict::Reason;
use datamesh_core::{Result, Table};
use twox_hash::XxHash3_128;

pub(crate) use database::{Database, DatabaseExec, FoundColumn};
pub(crate) use exec::SourceExec;
pub(crate) use iceberg::rows as iceberg_rows;
pub(crate) use json::rows as json_rows;
pub(crate) use open::OpenSource;
pub(crate) use own::Own;
pub(crate) use query::{QueryExec, fits};
pub(crate) use raw::{add_typed, faults_of, plain_table, profile};
pub(crate) use resolve::{SourceFile, resolve};
pub(crate) use typed::convert;
pub(crate) use watermark::{WatermarkExec, WatermarkPlan, held_rows};

/// Names of the hidden columns. Contract columns cannot start with `__`.
pub(crate) struct Hidden;

impl Hidden {
    /// Raw text of a record with a fault; null otherwise.
    pub(crate) const RAW: &'static str = "__raw";
    /// The faults found while reading, as a JSON list of reasons; null where there is none.
    pub(crate) const FAULTS: &'static str = "__faults";
    /// Index of the source file.
    pub(crate) const FILE: &'static str = "__file";
    /// Line (text) or row (Parquet) in the file, from 1.
    pub(crate) const POSITION: &'static str = "__position";

    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    pub(crate) fn fields() -> [Field; Self::COUNT] {
        [
            Field::new(Self::RAW, DataType::Binary, true),
            Field::new(Self::FAULTS, DataType::Utf8, true),
            Field::new(Self::FILE, DataType::UInt32, false),
            Field::new(Self::POSITION, DataType::UInt64, false),
        ]
    }
}

/// The schema of source batches: the data file's columns, then the hidden ones.
pub(crate) fn source_schema(columns: &Schema) -> SchemaRef {
    let hidden = Hidden::fields().into_iter().map(Arc::new);
    Arc::new(Schema::new(columns.fields().iter().cloned().chain(hidden).collect::<Vec<_>>()))
}

/// How the raw texts of each source file are read: the names of the fields of delimited text, as a JSON list, or
/// [`crate::quarantine::JSON`]. Nothing is told of files whose raw texts are made up of typed cells.
#[derive(Debug, Default)]
pub(crate) struct RawFields(Mutex<std::collections::HashMap<u32, String>>);

impl RawFields {
    pub(crate) fn add(&self, file: u32, fields: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(file, fields);
    }

    pub(crate) fn get(&self, file: u32) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&file).cloned()
    }
}

/// What all readers of one table's source find out together.
pub(crate) struct SourceFacts {
    table: String,
    bytes: AtomicU64,
    total: Option<u64>,
    content: Mutex<Content>,
    /// Whether typed rows are hashed, and whether some were not: what nobody asks for costs a look at every value.
    hashes_rows: bool,
    unhashed: AtomicBool,
    columns: Mutex<(BTreeSet<String>, BTreeSet<String>)>,
    /// Columns that some record of a source without a header had; `None` before the first readable record.
    seen: Mutex<Option<BTreeSet<String>>>,
    raw_fields: Arc<RawFields>,
    progress: Arc<dyn Progress>,
    tap: Option<Arc<dyn Tap>>,
}

/// Takes what a reader finds before a contract is put to it.
pub(crate) trait Tap: Send + Sync {
    /// A batch of typed columns; an empty one comes first.
    fn batch(&self, batch: &RecordBatch) -> Result<()>;
    /// A JSON text that should be an object.
    fn record(&self, record: &str, position: u64) -> Result<()>;
}

impl std::fmt::Debug for SourceFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceFacts").field("table", &self.table).finish_non_exhaustive()
    }
}

impl SourceFacts {
    pub(crate) fn new(table: &str, total: Option<u64>, progress: Arc<dyn Progress>) -> Self {
        Self {
            table: table.to_owned(),
            bytes: AtomicU64::new(0),
            total,
            content: Mutex::new(Content::default()),
            hashes_rows: true,
            unhashed: AtomicBool::new(false),
            columns: Mutex::default(),
            seen: Mutex::default(),
            raw_fields: Arc::default(),
            progress,
            tap: None,
        }
    }

    /// The same, for readers whose findings go to `tap` and not to a contract.
    pub(crate) fn with_tap(self, tap: Arc<dyn Tap>) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// The same, where nothing is there that typed rows could repeat.
    pub(crate) fn without_row_hashes(self) -> Self {
        Self { hashes_rows: false, ..self }
    }

    /// Whether typed rows are to be hashed. Where they are not, the content has no identity.
    pub(crate) fn hashes_rows(&self) -> bool {
        if !self.hashes_rows {
            self.unhashed.store(true, Ordering::Relaxed);
        }
        self.hashes_rows
    }

    /// Who takes what is found before a contract is put to it.
    pub(crate) fn tap(&self) -> Option<&dyn Tap> {
        self.tap.as_deref()
    }

    /// How raw texts are read.
    pub(crate) fn raw_fields(&self) -> &Arc<RawFields> {
        &self.raw_fields
    }

    /// `bytes` more were read from the disk or the pipe.
    pub(crate) fn read(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.progress.read(&self.table, bytes, self.total);
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_content(&self, content: Content) {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).merge(content);
    }

    /// The identity of everything read; `None`: some rows were not hashed.
    pub(crate) fn content(&self) -> Option<String> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.unhashed.load(Ordering::Relaxed)).then(|| content.identity())
    }

    /// Columns of a file that the contract does not name, and columns of the contract that the file does not have.
    pub(crate) fn add_columns(&self, ignored: Vec<String>, missing: Vec<String>) {
        let mut columns = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        columns.0.extend(ignored);
        columns.1.extend(missing);
    }

    /// Columns that readable records of a source without a header had.
    pub(crate) fn add_seen(&self, columns: Vec<String>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().extend(columns);
    }

    /// Required columns that no record of a source without a header had.
    pub(crate) fn never_seen(&self, table: &Table) -> Vec<String> {
        match &*self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Vec::new(),
            Some(seen) => {
                let required = table.columns.iter().filter(|column| column.required || column.primary_key);
                required.filter(|column| !seen.contains(&column.name)).map(|column| column.name.clone()).collect()
            }
        }
    }

    pub(crate) fn columns(&self) -> (Vec<String>, Vec<String>) {
        let columns = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        (columns.0.iter().cloned().collect(), columns.1.iter().cloned().collect())
    }
}

/// Identity of a set of records: the sum of their 128-bit hashes, so that neither order nor file limits count.
///
/// The hash is XXH3, seeded with what gives a record its meaning (a header, say). It tells repeats from news; it is no
/// protection against somebody who makes two contents collide on purpose, who could only keep their own data out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    rows: u64,
    sum: u128,
}

impl Content {
    pub(crate) fn add(&mut self, seed: u64, record: &[u8]) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(XxHash3_128::oneshot_with_seed(seed, record));
    }

    /// Adds a record by its hash.
    pub(crate) fn add_hash(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn identity(self) -> String {
        format!("xxh3-1:{}:{:032x}", self.rows, self.sum)
    }
}

/// What readers need to know of a table.
#[derive(Debug)]
pub(crate) struct TableLayout {
    pub(crate) table: Table,
    pub(crate) schema: SchemaRef,
    pub(crate) csv: CsvOptions,
    pub(crate) facts: Arc<SourceFacts>,
    pub(crate) batch_size: usize,
}

/// A required column is in no file: the publication is rejected, which is an outcome and not a failure.
#[derive(Debug)]
pub(crate) struct MissingRequired(pub(crate) Vec<String>);

impl std::fmt::Display for MissingRequired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "required columns are missing: {}", self.0.join(", "))
    }
}

impl std::error::Error for MissingRequired {}

/// Compares a file's columns with the contract's, reports both differences, and refuses where a required one is missing.
pub(crate) fn match_columns(layout: &TableLayout, present: &[&str]) -> Result<(), MissingRequired> {
    let ignored =
        present.iter().filter(|name| layout.table.column(name).is_none()).map(|name| (*name).to_owned()).collect();
    let absent: Vec<_> =
        layout.table.columns.iter().filter(|column| !present.contains(&column.name.as_str())).collect();
    layout.facts.add_columns(ignored, absent.iter().map(|column| column.name.clone()).collect());
    let required: Vec<String> = absent
        .iter()
        .filter(|column| column.required || column.primary_key)
        .map(|column| column.name.clone())
        .collect();
    if required.is_empty() { Ok(()) } else { Err(MissingRequired(required)) }
}

/// Faults of one record, as the hidden column keeps them.
pub(crate) fn encode_faults(faults: &[Reason]) -> String {
    // A list of texts always serialises.
    serde_json::to_string(faults).unwrap_or_default()
}
