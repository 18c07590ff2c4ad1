//! The Arrow type of each contract type. It is the layout that Iceberg's Arrow mapping has, so that a batch is built
//! once and written as it is: lists of `element`, maps of `key_value`, UTC as `+00:00`, `binary` with 64-bit offsets.

use std::sync::Arc;

use arrow::datatypes::{DataType as Arrow, Field, Fields, TimeUnit};
use datamesh_core::{Column, DataType};

/// The time zone of `timestamp`.
pub const UTC: &str = "+00:00";

/// The Arrow type of a contract type, without field ids. Every field is nullable: `required` is audited, not typed.
pub fn arrow_type(data_type: &DataType) -> Arrow {
    match data_type {
        DataType::String | DataType::Uuid | DataType::Json => Arrow::Utf8,
        DataType::Boolean => Arrow::Boolean,
        DataType::Int => Arrow::Int32,
        DataType::Long => Arrow::Int64,
        DataType::Float => Arrow::Float32,
        DataType::Double => Arrow::Float64,
        DataType::Decimal(precision, scale) => Arrow::Decimal128(*precision, *scale as i8),
        DataType::Date => Arrow::Date32,
        DataType::Time => Arrow::Time64(TimeUnit::Microsecond),
        DataType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        DataType::TimestampNtz => Arrow::Timestamp(TimeUnit::Microsecond, None),
        DataType::Binary => Arrow::LargeBinary,
        DataType::Array(item) => Arrow::List(Arc::new(Field::new("element", arrow_type(&item.data_type), true))),
        DataType::Map(key, value) => {
            let entries = Fields::from(vec![
                Field::new("key", arrow_type(key), false),
                Field::new("value", arrow_type(&value.data_type), true),
            ]);
            Arrow::Map(Arc::new(Field::new("key_value", Arrow::Struct(entries), false)), false)
        }
        DataType::Struct(fields) => Arrow::Struct(fields.iter().map(arrow_field).collect()),
    }
}

/// The Arrow field of a column, without a field id.
pub fn arrow_field(column: &Column) -> Field {
    Field::new(&column.name, arrow_type(&column.data_type), true)
}
