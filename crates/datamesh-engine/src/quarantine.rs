//! Quarantine files: the row's typed values, its raw text where it had one, where it came from, and every reason.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListArray, RecordBatch, StringArray, StringBuilder, StructArray,
    UInt64Array, new_null_array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datamesh_core::Result;
use datamesh_core::Table;
use datamesh_core::verdict::Reason;
use datamesh_iceberg::{Storage, storage};

use crate::error::{arrow, parquet_read};
use crate::source::Hidden;

/// Column of the source file's name.
const FILE: &str = Hidden::FILE;
/// Column of how the raw text is read: the names of its fields as a JSON list, [`JSON`], or null.
pub(crate) const FIELDS: &str = "__fields";
/// Stands in [`FIELDS`] where the raw text is a JSON object as it was in its file.
pub(crate) const JSON: &str = "json";
/// Column of the reasons.
pub(crate) const REASONS: &str = "__reasons";

fn reason_fields() -> Fields {
    Fields::from(vec![
        Field::new("rule", DataType::Utf8, false),
        Field::new("column", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ])
}

/// The schema of a table's quarantine files.
pub(crate) fn schema(columns: &Schema) -> SchemaRef {
    let own = [
        Field::new(Hidden::RAW, DataType::Binary, true),
        Field::new(FILE, DataType::Utf8, true),
        Field::new(Hidden::POSITION, DataType::UInt64, true),
        Field::new(FIELDS, DataType::Utf8, true),
        Field::new(
            REASONS,
            DataType::List(Arc::new(Field::new("item", DataType::Struct(reason_fields()), true))),
            false,
        ),
    ];
    let own = own.into_iter().map(Arc::new);
    Arc::new(Schema::new(columns.fields().iter().cloned().chain(own).collect::<Vec<_>>()))
}

/// A batch of quarantined rows. `raw`, `files`, `positions` and `fields` are null where a row has none.
pub(crate) fn batch(
    schema: &SchemaRef,
    mut columns: Vec<ArrayRef>,
    raw: Option<ArrayRef>,
    files: &[Option<String>],
    positions: &[Option<u64>],
    fields: &[Option<String>],
    reasons: &[Vec<Reason>],
) -> Result<RecordBatch> {
    let rows = reasons.len();
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        // Texts may come as a dictionary.
        if column.data_type() != field.data_type() {
            *column = cast(column, field.data_type()).map_err(arrow)?;
        }
    }
    columns.push(raw.unwrap_or_else(|| new_null_array(&DataType::Binary, rows)));
    columns.push(Arc::new(files.iter().map(Option::as_deref).collect::<StringArray>()));
    columns.push(Arc::new(positions.iter().copied().collect::<UInt64Array>()));
    columns.push(Arc::new(fields.iter().map(Option::as_deref).collect::<StringArray>()));
    columns.push(encode(reasons)?);
    RecordBatch::try_new(schema.clone(), columns).map_err(arrow)
}

fn encode(reasons: &[Vec<Reason>]) -> Result<ArrayRef> {
    let (mut rules, mut columns, mut values) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    for reason in reasons.iter().flatten() {
        rules.append_value(&reason.rule);
        columns.append_value(&reason.column);
        values.append_option(reason.value.as_deref());
    }
    let children: Vec<ArrayRef> = vec![Arc::new(rules.finish()), Arc::new(columns.finish()), Arc::new(values.finish())];
    let items = StructArray::try_new(reason_fields(), children, None).map_err(arrow)?;
    let offsets = OffsetBuffer::from_lengths(reasons.iter().map(Vec::len));
    let field = Arc::new(Field::new("item", DataType::Struct(reason_fields()), true));
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(items), None).map_err(arrow)?))
}

/// The reasons of each row of a quarantine batch.
pub(crate) fn decode(batch: &RecordBatch) -> Vec<Vec<Reason>> {
    let Some(list) = batch.column_by_name(REASONS).and_then(|array| array.as_list_opt::<i32>().cloned()) else {
        return vec![Vec::new(); batch.num_rows()];
    };
    let read = |items: &ArrayRef| -> Option<Vec<Reason>> {
        let items = items.as_struct_opt()?;
        let text = |name: &str| items.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
        let (rules, columns, values) = (text("rule")?, text("column")?, text("value")?);
        let reason = |row: usize| Reason {
            rule: rules.value(row).to_owned(),
            column: columns.value(row).to_owned(),
            value: values.is_valid(row).then(|| values.value(row).to_owned()),
        };
        Some((0..items.len()).map(reason).collect())
    };
    (0..list.len()).map(|row| read(&list.value(row)).unwrap_or_default()).collect()
}

/// A quarantine batch with more reasons added to some of its rows.
pub(crate) fn with_reasons(batch: &RecordBatch, reasons: &[Vec<Reason>]) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    if let Some(last) = columns.last_mut() {
        *last = encode(reasons)?;
    }
    RecordBatch::try_new(batch.schema(), columns).map_err(arrow)
}

/// What masked values are shown as.
const MASK: &str = "***";

/// The batch as it is shown: the reasons first, then where the row came from, its raw text, and its values. Protected
/// columns, and raw texts that may hold one, are masked unless `reveal`.
pub(crate) fn present(table: &Table, batch: &RecordBatch, reveal: bool) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    // The table's own columns keep their names.
    let named = |name: &str| {
        let mut name = name.to_owned();
        while table.columns.iter().any(|column| column.name == name) {
            name.insert(0, '_');
        }
        name
    };
    let masked = || -> ArrayRef { Arc::new(StringArray::from(vec![MASK; rows])) };
    let mut fields = vec![Field::new(
        named("reasons"),
        DataType::List(Arc::new(Field::new("item", DataType::Struct(reason_fields()), true))),
        false,
    )];
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut reasons = decode(batch);
    if !reveal {
        for reason in reasons.iter_mut().flatten().filter(|reason| reason.rule != datamesh_core::quality::RULE_RECORD) {
            if reason.value.is_some() && table.protects(&reason.column) {
                reason.value = Some(MASK.to_owned());
            }
        }
    }
    columns.push(encode(&reasons)?);
    fields.push(Field::new(named("file"), DataType::Utf8, true));
    columns.push(batch.column_by_name(FILE).cloned().unwrap_or_else(|| new_null_array(&DataType::Utf8, rows)));
    fields.push(Field::new(named("position"), DataType::UInt64, true));
    columns.push(
        batch.column_by_name(Hidden::POSITION).cloned().unwrap_or_else(|| new_null_array(&DataType::UInt64, rows)),
    );
    fields.push(Field::new(named("raw"), DataType::Utf8, true));
    let raw = batch.column_by_name(Hidden::RAW).and_then(|array| array.as_any().downcast_ref::<BinaryArray>().cloned());
    let raw: StringArray = match raw {
        Some(raw) if !reveal && table.has_protected_columns() => {
            raw.iter().map(|raw| raw.map(|_| MASK.to_owned())).collect()
        }
        Some(raw) => raw.iter().map(|raw| raw.map(|raw| String::from_utf8_lossy(raw).into_owned())).collect(),
        None => StringArray::new_null(rows),
    };
    columns.push(Arc::new(raw));
    for column in &table.columns {
        let Some(array) = batch.column_by_name(&column.name) else { continue };
        let array = if !reveal && column.is_protected() { masked() } else { array.clone() };
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow)
}

/// Reads a quarantine file, batch by batch.
pub(crate) fn read(storage: &Storage, url: &str) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
    let file = storage.open(url)?;
    let name = storage::shown(url);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| parquet_read(&name, error))?;
    let reader = builder.build().map_err(|error| parquet_read(&name, error))?;
    Ok(reader.map(move |batch| batch.map_err(|error| parquet_read(&name, error))))
}
