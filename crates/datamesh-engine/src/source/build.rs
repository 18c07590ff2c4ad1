//! Cells to Arrow arrays, exactly. What does not fit its type becomes null and a fault of the row.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use datafusion::arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int32Builder, Int64Builder, LargeBinaryBuilder, ListArray, MapArray, NullBufferBuilder,
    RecordBatch, StringBuilder, StructArray, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Array,
    UInt64Builder,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType as Arrow, Field, FieldRef, SchemaRef};
use datamesh_core::quality::{RULE_RECORD, RULE_TYPE};
use datamesh_core::scalar;
use datamesh_core::verdict::Reason;
use datamesh_core::{Column, DataType, Error, ErrorCode, Result};
use datamesh_quality::values::shorten;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{TableLayout, encode_faults, source_schema};
use crate::error::arrow;

/// Builds one column.
enum ColumnBuilder {
    Text(StringBuilder),
    Uuid(StringBuilder),
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u8, u8),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, bool),
    Binary(LargeBinaryBuilder),
    List {
        field: FieldRef,
        offsets: Vec<i32>,
        valid: NullBufferBuilder,
        items: Box<ColumnBuilder>,
    },
    Map {
        field: FieldRef,
        offsets: Vec<i32>,
        valid: NullBufferBuilder,
        keys: Box<ColumnBuilder>,
        values: Box<ColumnBuilder>,
    },
    Struct {
        fields: Vec<FieldRef>,
        valid: NullBufferBuilder,
        children: Vec<ColumnBuilder>,
    },
}

/// A checked nested value, ready to append: nothing can fail any more.
enum Cell {
    Null,
    Scalar(scalar::Scalar),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
    Struct(Vec<Cell>),
}

impl ColumnBuilder {
    fn new(data_type: &DataType, field: &Field) -> Result<Self> {
        let mismatch = || {
            Error::new(ErrorCode::Internal, format!("column `{}` is laid out as {}", field.name(), field.data_type()))
        };
        Ok(match data_type {
            DataType::String | DataType::Json => Self::Text(StringBuilder::new()),
            DataType::Uuid => Self::Uuid(StringBuilder::new()),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int => Self::Int(Int32Builder::new()),
            DataType::Long => Self::Long(Int64Builder::new()),
            DataType::Float => Self::Float(Float32Builder::new()),
            DataType::Double => Self::Double(Float64Builder::new()),
            DataType::Decimal(precision, scale) => {
                let builder =
                    Decimal128Builder::new().with_precision_and_scale(*precision, *scale as i8).map_err(arrow)?;
                Self::Decimal(builder, *precision, *scale)
            }
            DataType::Date => Self::Date(Date32Builder::new()),
            DataType::Time => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp => {
                let builder = TimestampMicrosecondBuilder::new().with_timezone(datamesh_quality::arrow_types::UTC);
                Self::Timestamp(builder, true)
            }
            DataType::TimestampNtz => Self::Timestamp(TimestampMicrosecondBuilder::new(), false),
            DataType::Binary => Self::Binary(LargeBinaryBuilder::new()),
            DataType::Array(item) => {
                let Arrow::List(inner) = field.data_type() else { return Err(mismatch()) };
                let items = Box::new(Self::new(&item.data_type, inner)?);
                Self::List { field: inner.clone(), offsets: vec![0], valid: NullBufferBuilder::new(0), items }
            }
            DataType::Map(key, value) => {
                let Arrow::Map(entries, _) = field.data_type() else { return Err(mismatch()) };
                let Arrow::Struct(fields) = entries.data_type() else { return Err(mismatch()) };
                let [key_field, value_field] = fields.as_ref() else { return Err(mismatch()) };
                let keys = Box::new(Self::new(key, key_field)?);
                let values = Box::new(Self::new(&value.data_type, value_field)?);
                Self::Map { field: entries.clone(), offsets: vec![0], valid: NullBufferBuilder::new(0), keys, values }
            }
            DataType::Struct(columns) => {
                let Arrow::Struct(fields) = field.data_type() else { return Err(mismatch()) };
                let children = columns
                    .iter()
                    .zip(fields)
                    .map(|(column, field)| Self::new(&column.data_type, field))
                    .collect::<Result<_>>()?;
                Self::Struct { fields: fields.iter().cloned().collect(), valid: NullBufferBuilder::new(0), children }
            }
        })
    }

    /// Reads a scalar's text. `false`: it does not fit, and nothing was appended.
    fn append_text(&mut self, text: &str) -> bool {
        macro_rules! put {
            ($builder:expr, $value:expr) => {
                match $value {
                    Some(value) => {
                        $builder.append_value(value);
                        true
                    }
                    None => false,
                }
            };
        }
        match self {
            Self::Text(builder) => put!(builder, Some(text)),
            Self::Uuid(builder) => put!(builder, scalar::uuid(text)),
            Self::Boolean(builder) => put!(builder, scalar::boolean(text)),
            Self::Int(builder) => put!(builder, scalar::int(text)),
            Self::Long(builder) => put!(builder, scalar::long(text)),
            Self::Float(builder) => put!(builder, scalar::float(text)),
            Self::Double(builder) => put!(builder, scalar::double(text)),
            Self::Decimal(builder, precision, scale) => put!(builder, scalar::decimal(text, *precision, *scale)),
            Self::Date(builder) => put!(builder, scalar::date(text)),
            Self::Time(builder) => put!(builder, scalar::time(text)),
            Self::Timestamp(builder, true) => put!(builder, scalar::timestamp(text)),
            Self::Timestamp(builder, false) => put!(builder, scalar::timestamp_ntz(text)),
            Self::Binary(builder) => put!(builder, BASE64_STANDARD.decode(text).ok()),
            Self::List { .. } | Self::Map { .. } | Self::Struct { .. } => false,
        }
    }

    fn append(&mut self, cell: Cell) {
        use scalar::Scalar;
        match (self, cell) {
            (Self::Text(builder) | Self::Uuid(builder), Cell::Scalar(Scalar::Text(value))) => {
                builder.append_value(value)
            }
            (Self::Boolean(builder), Cell::Scalar(Scalar::Boolean(value))) => builder.append_value(value),
            (Self::Int(builder), Cell::Scalar(Scalar::Integer(value))) => {
                builder.append_option(i32::try_from(value).ok())
            }
            (Self::Date(builder), Cell::Scalar(Scalar::Integer(value))) => {
                builder.append_option(i32::try_from(value).ok())
            }
            (Self::Long(builder), Cell::Scalar(Scalar::Integer(value))) => builder.append_value(value),
            (Self::Time(builder), Cell::Scalar(Scalar::Integer(value))) => builder.append_value(value),
            (Self::Timestamp(builder, _), Cell::Scalar(Scalar::Integer(value))) => builder.append_value(value),
            (Self::Float(builder), Cell::Scalar(Scalar::Double(value))) => builder.append_value(value as f32),
            (Self::Double(builder), Cell::Scalar(Scalar::Double(value))) => builder.append_value(value),
            (Self::Decimal(builder, ..), Cell::Scalar(Scalar::Decimal(value))) => builder.append_value(value),
            (Self::Binary(builder), Cell::Bytes(value)) => builder.append_value(value),
            (Self::List { offsets, valid, items, .. }, Cell::List(cells)) => {
                push_offset(offsets, cells.len());
                valid.append_non_null();
                cells.into_iter().for_each(|cell| items.append(cell));
            }
            (Self::Map { offsets, valid, keys, values, .. }, Cell::Map(entries)) => {
                push_offset(offsets, entries.len());
                valid.append_non_null();
                for (key, value) in entries {
                    keys.append(key);
                    values.append(value);
                }
            }
            (Self::Struct { valid, children, .. }, Cell::Struct(cells)) => {
                valid.append_non_null();
                children.iter_mut().zip(cells).for_each(|(child, cell)| child.append(cell));
            }
            (builder, _) => builder.append_null(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Text(builder) | Self::Uuid(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Long(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Decimal(builder, ..) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder, _) => builder.append_null(),
            Self::Binary(builder) => builder.append_null(),
            Self::List { offsets, valid, .. } | Self::Map { offsets, valid, .. } => {
                push_offset(offsets, 0);
                valid.append_null();
            }
            Self::Struct { valid, children, .. } => {
                valid.append_null();
                children.iter_mut().for_each(Self::append_null);
            }
        }
    }

    /// The column so far. The next one is expected to be about as long: growing step by step would copy it several times.
    fn finish(&mut self) -> Result<ArrayRef> {
        macro_rules! renew {
            ($builder:expr, $new:ident) => {{
                let next = $new::with_capacity($builder.len());
                Arc::new(std::mem::replace($builder, next).finish())
            }};
        }
        Ok(match self {
            Self::Text(builder) | Self::Uuid(builder) => {
                let bytes = builder.values_slice().len();
                let next = StringBuilder::with_capacity(builder.len(), bytes + bytes / 8);
                Arc::new(std::mem::replace(builder, next).finish())
            }
            Self::Boolean(builder) => renew!(builder, BooleanBuilder),
            Self::Int(builder) => renew!(builder, Int32Builder),
            Self::Long(builder) => renew!(builder, Int64Builder),
            Self::Float(builder) => renew!(builder, Float32Builder),
            Self::Double(builder) => renew!(builder, Float64Builder),
            Self::Decimal(builder, precision, scale) => {
                let next = Decimal128Builder::with_capacity(builder.len());
                let next = next.with_precision_and_scale(*precision, *scale as i8).map_err(arrow)?;
                Arc::new(std::mem::replace(builder, next).finish())
            }
            Self::Date(builder) => renew!(builder, Date32Builder),
            Self::Time(builder) => renew!(builder, Time64MicrosecondBuilder),
            Self::Timestamp(builder, zoned) => {
                let next = TimestampMicrosecondBuilder::with_capacity(builder.len());
                let next = if *zoned { next.with_timezone(datamesh_quality::arrow_types::UTC) } else { next };
                Arc::new(std::mem::replace(builder, next).finish())
            }
            Self::Binary(builder) => Arc::new(builder.finish()),
            Self::List { field, offsets, valid, items } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::try_new(field.clone(), offsets, items.finish()?, valid.finish()).map_err(arrow)?)
            }
            Self::Map { field, offsets, valid, keys, values } => {
                let Arrow::Struct(fields) = field.data_type() else {
                    return Err(Error::new(ErrorCode::Internal, "a map has no entries"));
                };
                let entries = StructArray::try_new(fields.clone(), vec![keys.finish()?, values.finish()?], None)
                    .map_err(arrow)?;
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(MapArray::try_new(field.clone(), offsets, entries, valid.finish(), false).map_err(arrow)?)
            }
            Self::Struct { fields, valid, children } => {
                let length = valid.len();
                let arrays = children.iter_mut().map(Self::finish).collect::<Result<Vec<_>>>()?;
                let array = StructArray::try_new_with_length(fields.clone().into(), arrays, valid.finish(), length);
                Arc::new(array.map_err(arrow)?)
            }
        })
    }
}

fn push_offset(offsets: &mut Vec<i32>, count: usize) {
    let last = offsets.last().copied().unwrap_or(0);
    // A batch holds a few thousand records of at most 16 MiB, whose items cannot overflow 31 bits.
    offsets.push(last.saturating_add(i32::try_from(count).unwrap_or(i32::MAX)));
}

/// Why a JSON value does not fit: the place below the column, and the text found there.
struct Misfit {
    path: String,
    value: String,
}

impl Misfit {
    fn new(raw: &str) -> Self {
        Self { path: String::new(), value: shorten(raw) }
    }

    fn below(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }
}

/// Checks a JSON value against a type.
fn parse_json(raw: &RawValue, data_type: &DataType) -> Result<Cell, Misfit> {
    let text = raw.get();
    if text == "null" {
        return Ok(Cell::Null);
    }
    let misfit = || Misfit::new(text);
    match data_type {
        DataType::Json => Ok(Cell::Scalar(scalar::Scalar::Text(text.to_owned()))),
        DataType::Array(item) => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| misfit())?;
            let cells =
                items.into_iter().map(|raw| parse_json(raw, &item.data_type).map_err(|inner| inner.below("[]")));
            Ok(Cell::List(cells.collect::<Result<_, _>>()?))
        }
        DataType::Map(key, value) => {
            let entries: Entries<'_> = serde_json::from_str(text).map_err(|_| misfit())?;
            let mut cells = Vec::new();
            for (name, raw) in entries.0 {
                let key = scalar::parse(&name, key).map_err(|_| misfit())?;
                cells.push((Cell::Scalar(key), parse_json(raw, &value.data_type).map_err(|inner| inner.below("{}"))?));
            }
            Ok(Cell::Map(cells))
        }
        DataType::Struct(columns) => {
            let object = ObjectKeys::new(columns).read(text).map_err(|_| misfit())?;
            let mut cells = Vec::new();
            for (column, value) in columns.iter().zip(object.values) {
                cells.push(match value {
                    Some(value) => parse_json(value, &column.data_type)
                        .map_err(|inner| inner.below(&format!(".{}", column.name)))?,
                    None => Cell::Null,
                });
            }
            Ok(Cell::Struct(cells))
        }
        DataType::Binary => {
            let encoded: String = serde_json::from_str(text).map_err(|_| misfit())?;
            BASE64_STANDARD.decode(encoded).map(Cell::Bytes).map_err(|_| misfit())
        }
        _ => {
            let quoted = text.starts_with('"');
            // JSON has numbers and booleans of its own; every other type, and an exact decimal, is written as a string.
            let allowed = match data_type {
                DataType::Int | DataType::Long | DataType::Float | DataType::Double | DataType::Boolean => !quoted,
                DataType::Decimal(..) => true,
                _ => quoted,
            };
            if !allowed {
                return Err(misfit());
            }
            let cell = if quoted {
                let text: String = serde_json::from_str(text).map_err(|_| misfit())?;
                scalar::parse(&text, data_type)
            } else {
                scalar::parse(text, data_type)
            };
            cell.map(Cell::Scalar).map_err(|_| misfit())
        }
    }
}

/// A JSON object as its entries, in order.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, &'de RawValue)> = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom("a key is given twice"));
                    }
                    entries.push((key, value));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}

/// Reads objects by known keys.
pub(super) struct ObjectKeys<'a> {
    names: HashMap<&'a str, usize>,
}

/// The values of an object at the known keys, and the names of the others.
pub(super) struct Object<'t> {
    pub(super) values: Vec<Option<&'t RawValue>>,
    pub(super) unknown: Vec<String>,
}

impl<'a> ObjectKeys<'a> {
    pub(super) fn new(columns: &'a [Column]) -> Self {
        Self { names: columns.iter().enumerate().map(|(index, column)| (column.name.as_str(), index)).collect() }
    }

    /// Reads one object; the error is the reason why the text is none.
    pub(super) fn read<'t>(&self, text: &'t str) -> Result<Object<'t>, String> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let object = deserializer.deserialize_map(ObjectVisitor { keys: self }).and_then(|object| {
            deserializer.end()?;
            Ok(object)
        });
        object.map_err(|error| match error.classify() {
            serde_json::error::Category::Data if error.to_string().starts_with("a key is given twice") => {
                "the record gives a key twice".to_owned()
            }
            serde_json::error::Category::Data => "the record is not a JSON object".to_owned(),
            _ => format!("the record is not JSON, at column {}", error.column()),
        })
    }
}

struct ObjectVisitor<'k> {
    keys: &'k ObjectKeys<'k>,
}

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object { values: vec![None; self.keys.names.len()], unknown: Vec::new() };
        while let Some(key) = map.next_key_seed(KeySeed { keys: self.keys })? {
            match key {
                Ok(index) if object.values[index].is_some() => {
                    return Err(serde::de::Error::custom("a key is given twice"));
                }
                Ok(index) => object.values[index] = Some(map.next_value()?),
                Err(name) => {
                    map.next_value::<IgnoredAny>()?;
                    object.unknown.push(name);
                }
            }
        }
        Ok(object)
    }
}

struct KeySeed<'k> {
    keys: &'k ObjectKeys<'k>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.keys.names.get(key).copied().ok_or_else(|| key.to_owned()))
    }
}

/// Builds batches of a table's source, record by record.
pub(super) struct BatchBuilder<'a> {
    layout: &'a TableLayout,
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    raw: BinaryBuilder,
    faults: datafusion::arrow::array::StringBuilder,
    positions: UInt64Builder,
    file: u32,
    rows: usize,
    bytes: usize,
    current: Vec<Reason>,
    failed: Option<Error>,
}

/// Text kept in one batch before it is handed over, whatever its row count.
const MAX_BATCH_BYTES: usize = 32 << 20;

impl<'a> BatchBuilder<'a> {
    pub(super) fn new(layout: &'a TableLayout, file: u32) -> Self {
        let mut failed = None;
        let mut columns = Vec::new();
        for (column, field) in layout.table.columns.iter().zip(layout.schema.fields()) {
            match ColumnBuilder::new(&column.data_type, field) {
                Ok(builder) => columns.push(builder),
                Err(error) => failed = Some(error),
            }
        }
        Self {
            layout,
            schema: source_schema(&layout.schema),
            columns,
            raw: BinaryBuilder::new(),
            faults: StringBuilder::new(),
            positions: UInt64Builder::new(),
            file,
            rows: 0,
            bytes: 0,
            current: Vec::new(),
            failed,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= self.layout.batch_size || self.bytes >= MAX_BATCH_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn append_null(&mut self, column: usize) {
        if let Some(builder) = self.columns.get_mut(column) {
            builder.append_null();
        }
    }

    pub(super) fn append_text(&mut self, column: usize, text: &str) {
        self.bytes += text.len();
        let contract = &self.layout.table.columns[column];
        if !contract.data_type.is_scalar() {
            // A nested value in delimited text is written as JSON.
            match serde_json::from_str::<&RawValue>(text) {
                Ok(raw) => self.append_json(column, raw),
                Err(_) => self.misfit(column, &Misfit::new(text)),
            }
            return;
        }
        if !self.columns.get_mut(column).is_none_or(|builder| builder.append_text(text)) {
            self.misfit(column, &Misfit::new(text));
        }
    }

    pub(super) fn append_json(&mut self, column: usize, raw: &RawValue) {
        self.bytes += raw.get().len();
        match parse_json(raw, &self.layout.table.columns[column].data_type) {
            Ok(cell) => {
                if let Some(builder) = self.columns.get_mut(column) {
                    builder.append(cell);
                }
            }
            Err(misfit) => self.misfit(column, &misfit),
        }
    }

    /// Appends bytes; a fault where the column is not binary.
    pub(super) fn append_bytes(&mut self, column: usize, bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(ColumnBuilder::Binary(builder)) = self.columns.get_mut(column) {
            builder.append_value(bytes);
            return;
        }
        let shown: String = bytes.iter().take(100).map(|byte| format!("{byte:02x}")).collect();
        self.misfit(column, &Misfit::new(&shown));
    }

    /// Appends a cell that does not fit, whatever its text.
    pub(super) fn append_misfit(&mut self, column: usize, text: &str) {
        self.misfit(column, &Misfit::new(text));
    }

    fn misfit(&mut self, column: usize, misfit: &Misfit) {
        self.append_null(column);
        let contract = &self.layout.table.columns[column];
        self.current.push(Reason {
            rule: RULE_TYPE.to_owned(),
            column: format!("{}{}", contract.name, misfit.path),
            value: (!contract.is_protected()).then(|| misfit.value.clone()),
        });
    }

    /// Ends a record whose cells were appended. Its raw text is kept where a cell was at fault.
    pub(super) fn end_record(&mut self, position: u64, raw: impl FnOnce() -> Vec<u8>) {
        if self.current.is_empty() {
            self.raw.append_null();
            self.faults.append_null();
        } else {
            let raw = raw();
            self.bytes += raw.len();
            self.raw.append_value(raw);
            self.faults.append_value(encode_faults(&self.current));
            self.current.clear();
        }
        self.positions.append_value(position);
        self.rows += 1;
    }

    /// Appends a record that could not be tokenised.
    pub(super) fn append_broken(&mut self, position: u64, raw: &[u8], why: &str) {
        self.columns.iter_mut().for_each(ColumnBuilder::append_null);
        self.current.clear();
        self.current.push(Reason { rule: RULE_RECORD.to_owned(), column: String::new(), value: Some(why.to_owned()) });
        self.end_record(position, || raw.to_vec());
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect::<Result<Vec<_>>>()?;
        arrays.push(Arc::new(self.raw.finish()));
        arrays.push(Arc::new(self.faults.finish()));
        arrays.push(Arc::new(UInt32Array::from_value(self.file, self.rows)));
        arrays.push(Arc::new(self.positions.finish()));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new(self.schema.clone(), arrays).map_err(arrow)
    }
}
