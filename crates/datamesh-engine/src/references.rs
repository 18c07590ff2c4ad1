//! References: the keys of a referenced table, and which rows find theirs among them.

mod integers;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::ident;
use datafusion::prelude::SessionContext;
use datamesh_core::reference::Reference;
use datamesh_core::verdict::{RuleCount, SAMPLES_PER_RULE, Sample};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_quality::RowFilter;
use datamesh_quality::values::show;
use futures::TryStreamExt;

use self::integers::{Collected, Integers};
use crate::conditions::Filter;
use crate::error::{arrow, unwrap};

/// What a key takes in memory beside its bytes.
const KEY_OVERHEAD: usize = 48;
/// What a whole number takes while it is collected, counting what the list grows ahead.
const INTEGER: usize = 16;

/// The distinct keys of a referenced table, compared by value: what is found is there, what is not is not.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Keys,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
enum Keys {
    Bytes(HashSet<Box<[u8]>>),
    Collected(Collected),
    Integers(Integers),
}

impl KeySet {
    fn check(&self, reference: &Reference) -> Result<()> {
        if self.bytes <= self.limit {
            return Ok(());
        }
        let message = format!(
            "the keys of `{}` that `{}` refers to take more than {} MiB of memory",
            reference.to,
            reference.path(),
            self.limit >> 20
        );
        Err(Error::new(ErrorCode::InvalidArgument, message)
            .with_help("give the engine more memory, or count the rows with an `sql` rule, which can spill"))
    }

    fn insert(&mut self, key: &[u8], reference: &Reference) -> Result<()> {
        let Keys::Bytes(keys) = &mut self.keys else { return Err(unlike()) };
        if keys.contains(key) {
            return Ok(());
        }
        keys.insert(key.into());
        self.bytes += key.len() + KEY_OVERHEAD;
        self.check(reference)
    }

    fn insert_integer(&mut self, number: i64, reference: &Reference) -> Result<()> {
        let Keys::Collected(keys) = &mut self.keys else { return Err(unlike()) };
        if let Some(distinct) = keys.insert(number) {
            self.bytes = distinct * INTEGER;
            self.check(reference)?;
        }
        Ok(())
    }

    /// The set, once every key is in it.
    pub(crate) fn finish(self) -> Self {
        let keys = match self.keys {
            Keys::Collected(collected) => Keys::Integers(collected.finish()),
            keys => keys,
        };
        Self { keys, ..self }
    }
}

fn unlike() -> Error {
    Error::new(ErrorCode::Internal, "a set of keys was filled with keys of another kind")
}

/// Reads keys of both sides of a reference so that equal values are equal bytes.
#[derive(Debug)]
pub(crate) struct ReferenceReader {
    pub(crate) reference: Reference,
    types: Vec<DataType>,
    converter: RowConverter,
    /// Whether a key is one whole number.
    is_integer: bool,
}

impl ReferenceReader {
    /// Fits the referring columns, of `schema`, to the referenced ones, of `there`.
    pub(crate) fn new(reference: &Reference, schema: &Schema, there: &Schema) -> Result<Self> {
        let mut types = Vec::new();
        for (name, other) in reference.columns.iter().zip(&reference.at) {
            let own = schema.field_with_name(name).map_err(arrow)?.data_type();
            let other_field = there.field_with_name(other).map_err(|_| {
                Error::new(
                    ErrorCode::InvalidManifest,
                    format!("`{name}` refers to `{}.{other}`, but that table has no such column", reference.to),
                )
                .with_help("see its columns with `datamesh show`")
            })?;
            types.push(match (own, other_field.data_type()) {
                (a, b) if a == b => a.clone(),
                (DataType::Int32 | DataType::Int64, DataType::Int32 | DataType::Int64) => DataType::Int64,
                (a, b) => {
                    let message =
                        format!("`{name}` is {a}, but `{}.{other}`, which it refers to, is {b}", reference.to);
                    return Err(
                        Error::new(ErrorCode::InvalidManifest, message).with_help("give both columns the same type")
                    );
                }
            });
        }
        let is_integer = matches!(types.as_slice(), [one] if integer_type(one));
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields).map_err(arrow)?;
        Ok(Self { reference: reference.clone(), types, converter, is_integer })
    }

    /// An empty set of keys, which may take `limit` bytes of memory.
    pub(crate) fn key_set(&self, limit: usize) -> KeySet {
        let keys = if self.is_integer { Keys::Collected(Collected::default()) } else { Keys::Bytes(HashSet::new()) };
        KeySet { keys, bytes: 0, limit }
    }

    /// The keys of a batch where each is one whole number.
    fn integers(&self, batch: &RecordBatch, names: &[String]) -> Result<Option<Int64Array>> {
        let [name] = names else { return Ok(None) };
        let Some(column) = batch.column_by_name(name).filter(|_| self.is_integer) else { return Ok(None) };
        let wide = match column.data_type() {
            DataType::Date32 => cast(&cast(column, &DataType::Int32).map_err(arrow)?, &DataType::Int64),
            _ => cast(column, &DataType::Int64),
        };
        Ok(Some(wide.map_err(arrow)?.as_primitive::<Int64Type>().clone()))
    }

    /// Keys as bytes, and which rows have a whole one. `None` where the batch does not have the columns.
    fn keys(&self, batch: &RecordBatch, names: &[String]) -> Result<Option<(Rows, BooleanBuffer)>> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut whole = BooleanBuffer::new_set(batch.num_rows());
        for (name, data_type) in names.iter().zip(&self.types) {
            let Some(column) = batch.column_by_name(name) else { return Ok(None) };
            whole = &whole & &datamesh_quality::values::valid(column);
            columns.push(if column.data_type() == data_type {
                column.clone()
            } else {
                cast(column, data_type).map_err(arrow)?
            });
        }
        Ok(Some((self.converter.convert_columns(&columns).map_err(arrow)?, whole)))
    }

    /// Adds the keys of a batch of the referenced table, of all rows or those that `rows` selects.
    pub(crate) fn collect(&self, set: &mut KeySet, batch: &RecordBatch, rows: Option<&BooleanBuffer>) -> Result<()> {
        if let Some(numbers) = self.integers(batch, &self.reference.at)? {
            let whole =
                numbers.nulls().map_or_else(|| BooleanBuffer::new_set(numbers.len()), |nulls| nulls.inner().clone());
            let whole = rows.map_or(whole.clone(), |rows| &whole & rows);
            return whole.set_indices().try_for_each(|row| set.insert_integer(numbers.value(row), &self.reference));
        }
        let Some((keys, whole)) = self.keys(batch, &self.reference.at)? else { return Ok(()) };
        let whole = rows.map_or(whole.clone(), |rows| &whole & rows);
        whole.set_indices().try_for_each(|row| set.insert(keys.row(row).data(), &self.reference))
    }

    /// The rows of a batch of the referring table that have a whole key and find it nowhere in a finished set.
    pub(crate) fn unmatched(&self, set: &KeySet, batch: &RecordBatch) -> Result<BooleanBuffer> {
        if let (Keys::Integers(known), Some(numbers)) = (&set.keys, self.integers(batch, &self.reference.columns)?) {
            return Ok(BooleanBuffer::collect_bool(batch.num_rows(), |row| {
                numbers.is_valid(row) && !known.contains(numbers.value(row))
            }));
        }
        let Some((keys, whole)) = self.keys(batch, &self.reference.columns)? else {
            return Ok(BooleanBuffer::new_unset(batch.num_rows()));
        };
        let Keys::Bytes(known) = &set.keys else { return Err(unlike()) };
        let found = BooleanBuffer::collect_bool(batch.num_rows(), |row| {
            whole.value(row) && !known.contains(keys.row(row).data())
        });
        Ok(found)
    }

    /// Counts a row that finds nothing, with its key as a sample where it may be shown.
    pub(crate) fn add(&self, found: &mut RuleCount, batch: &RecordBatch, row: usize, shown: bool) {
        found.rows += 1;
        if shown && found.samples.len() < SAMPLES_PER_RULE {
            found.samples.push(Sample { file: None, position: None, value: Some(self.show(batch, row)) });
        }
    }

    /// The values of a row, as samples show them.
    pub(crate) fn show(&self, batch: &RecordBatch, row: usize) -> String {
        let cell = |name: &String| batch.column_by_name(name).and_then(|array| show(array, row)).unwrap_or_default();
        self.reference.columns.iter().map(cell).collect::<Vec<_>>().join(", ")
    }
}

/// Types whose values are whole numbers of at most 64 bits.
fn integer_type(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(..)
    )
}

/// A reference whose keys are known before the pass.
#[derive(Debug)]
pub(crate) struct ReferenceCheck {
    /// Index among the table's references.
    pub(crate) index: usize,
    pub(crate) reader: ReferenceReader,
    pub(crate) keys: KeySet,
}

impl ReferenceCheck {
    /// Reads the keys of `provider`.
    pub(crate) async fn load(
        context: &SessionContext,
        index: usize,
        reference: &Reference,
        schema: &Schema,
        provider: Arc<dyn TableProvider>,
        limit: usize,
    ) -> Result<Self> {
        let reader = ReferenceReader::new(reference, schema, &provider.schema())?;
        let mut keys = reader.key_set(limit);
        let fail = |error| unwrap(ErrorCode::SourceUnreadable, "the referenced table cannot be read", error);
        let frame = context.read_table(provider).map_err(fail)?;
        let frame = frame.select(reference.at.iter().map(ident).collect::<Vec<_>>()).map_err(fail)?;
        let mut batches = frame.execute_stream().await.map_err(fail)?;
        while let Some(batch) = batches.try_next().await.map_err(fail)? {
            reader.collect(&mut keys, &batch, None)?;
        }
        Ok(Self { index, reader, keys: keys.finish() })
    }

    /// The rows of `provider` that `filter` leaves, have a whole key and find it nowhere, but did `before`; a few of their
    /// keys where they may be shown.
    pub(crate) async fn count(
        &self,
        context: &SessionContext,
        provider: Arc<dyn TableProvider>,
        before: Option<&Self>,
        filter: Option<&Filter>,
        shown: bool,
    ) -> Result<RuleCount> {
        let fail = |error| unwrap(ErrorCode::SourceUnreadable, "the referring table cannot be read", error);
        let own = self.reader.reference.columns.iter();
        let columns: BTreeSet<&String> = own.chain(filter.into_iter().flat_map(RowFilter::columns)).collect();
        let columns: Vec<_> = columns.into_iter().map(ident).collect();
        let frame = context.read_table(provider).and_then(|frame| frame.select(columns)).map_err(fail)?;
        let mut batches = frame.execute_stream().await.map_err(fail)?;
        let mut found = RuleCount::default();
        while let Some(batch) = batches.try_next().await.map_err(fail)? {
            let mut unmatched = self.reader.unmatched(&self.keys, &batch)?;
            if let Some(before) = before {
                unmatched = &unmatched & &!&before.reader.unmatched(&before.keys, &batch)?;
            }
            if let Some(filter) = filter.filter(|_| unmatched.count_set_bits() > 0) {
                unmatched = &unmatched & &filter.judged(&batch);
            }
            unmatched.set_indices().for_each(|row| self.reader.add(&mut found, &batch, row, shown));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int32Array, StringArray};
    use datamesh_core::quality::Severity;
    use datamesh_core::reference::TableReference;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    fn reference(columns: &[&str], at: &[&str]) -> Reference {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let to = TableReference::parse("a/b.c").expect("a table");
        let (columns, at) = (names(columns), names(at));
        Reference { columns, to, at, severity: Severity::Error, description: None, filter: None }
    }

    fn unmatched(reference: &Reference, own: &RecordBatch, there: &RecordBatch) -> Result<Vec<usize>> {
        let reader = ReferenceReader::new(reference, &own.schema(), &there.schema())?;
        let mut keys = reader.key_set(1 << 20);
        reader.collect(&mut keys, there, None)?;
        Ok(reader.unmatched(&keys.finish(), own)?.set_indices().collect())
    }

    #[test]
    fn rows_without_a_match_are_found_and_nulls_refer_to_nothing() {
        let own = batch(vec![
            ("x", Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(-1)])) as ArrayRef),
            ("y", Arc::new(StringArray::from(vec![Some("a"), Some("a"), Some("a"), None]))),
        ]);
        let there = batch(vec![
            ("k", Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 40)])) as ArrayRef),
            ("l", Arc::new(StringArray::from(vec![Some("b"), Some("a"), Some("a")]))),
        ]);
        assert_eq!(unmatched(&reference(&["x"], &["k"]), &own, &there).expect("read"), [1, 3]);
        assert_eq!(unmatched(&reference(&["x", "y"], &["k", "l"]), &own, &there).expect("read"), [0, 1]);
        let none = there.slice(0, 0);
        assert_eq!(unmatched(&reference(&["y"], &["l"]), &own, &none).expect("read"), [0, 1, 2]);
        assert!(unmatched(&reference(&["y"], &["l"]), &own.slice(0, 0), &there).expect("read").is_empty());
    }

    #[test]
    fn a_reference_that_does_not_fit_is_an_error() {
        let own = batch(vec![("x", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]);
        let there = batch(vec![("k", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]);
        let error = unmatched(&reference(&["x"], &["k"]), &own, &there).expect_err("types differ");
        assert!(error.to_string().contains("`x` is Int32, but `a/b.c.k`"), "{error}");
        let error = unmatched(&reference(&["x"], &["m"]), &own, &there).expect_err("no column");
        assert!(error.to_string().contains("no such column"), "{error}");
    }

    #[test]
    fn keys_beyond_the_limit_are_an_error() {
        let texts = (0..1000).map(|number| number.to_string()).collect::<Vec<_>>();
        let numbers = (0..2 << 20).collect::<Vec<_>>();
        let columns = [Arc::new(StringArray::from(texts)) as ArrayRef, Arc::new(Int32Array::from(numbers))];
        for column in columns {
            let there = batch(vec![("k", column)]);
            let reference = reference(&["k"], &["k"]);
            let reader = ReferenceReader::new(&reference, &there.schema(), &there.schema()).expect("fits");
            let error = reader.collect(&mut reader.key_set(1000), &there, None).expect_err("too many");
            assert!(error.to_string().contains("the keys of `a/b.c` that `k` refers to"), "{error}");
        }
    }
}
