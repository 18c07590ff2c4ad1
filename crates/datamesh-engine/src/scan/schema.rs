//! A table's schema as SQL sees it, and Iceberg values as values of its columns.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datamesh_core::Result;
use datamesh_iceberg::arrow_schema;
use datamesh_iceberg::spec::{self, Literal, NestedField, PrimitiveLiteral, PrimitiveType, Type};
use uuid::Uuid;

/// The columns of a table: every field has its id, every column may be null, UUIDs are text.
///
/// # Errors
/// Types that Arrow cannot hold.
pub(crate) fn read_schema(schema: &spec::Schema) -> Result<SchemaRef> {
    let arrow = arrow_schema(schema)?;
    let fields = arrow.fields().iter().zip(schema.as_struct().fields());
    let fields: Vec<FieldRef> = fields.map(|(field, iceberg)| readable(field, &iceberg.field_type)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// One field as [`read_schema`] has it.
pub(crate) fn read_field(field: &spec::NestedFieldRef) -> Result<FieldRef> {
    let schema = spec::Schema::builder().with_fields([field.clone()]).build();
    let schema = schema.map_err(|error| {
        datamesh_core::Error::new(datamesh_core::ErrorCode::Internal, "a field is no schema").with_source(error)
    })?;
    Ok(read_schema(&schema)?.fields()[0].clone())
}

fn readable(field: &Field, iceberg: &Type) -> FieldRef {
    let data_type = match (field.data_type(), iceberg) {
        (DataType::FixedSizeBinary(16), Type::Primitive(PrimitiveType::Uuid)) => DataType::Utf8,
        (DataType::Struct(fields), Type::Struct(iceberg)) => {
            let fields = fields.iter().zip(iceberg.fields());
            DataType::Struct(fields.map(|(field, iceberg)| readable(field, &iceberg.field_type)).collect())
        }
        (DataType::List(element), Type::List(list)) => {
            DataType::List(readable(element, &list.element_field.field_type))
        }
        (DataType::Map(entries, sorted), Type::Map(map)) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let key = readable(&fields[0], &map.key_field.field_type).as_ref().clone().with_nullable(false);
                let value = readable(&fields[1], &map.value_field.field_type);
                let entry = DataType::Struct([Arc::new(key), value].into_iter().collect());
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(entry)), *sorted)
            }
            _ => field.data_type().clone(),
        },
        (other, _) => other.clone(),
    };
    Arc::new(field.clone().with_data_type(data_type).with_nullable(true))
}

/// The values that files without a field have for it (`initial-default`), by field id. Only those that are not null.
pub(crate) fn defaults(schema: &spec::Schema) -> DataFusionResult<HashMap<i32, ScalarValue>> {
    let mut defaults = HashMap::new();
    for (id, field) in schema.field_id_to_fields() {
        if field.initial_default.is_none() {
            continue;
        }
        let read = read_field(field).map_err(crate::error::wrap)?;
        defaults.insert(*id, default_value(field, read.data_type())?);
    }
    Ok(defaults)
}

/// What a file without a field has for it; null where the field has no default.
pub(crate) fn default_value(field: &NestedField, data_type: &DataType) -> DataFusionResult<ScalarValue> {
    let Some(default) = &field.initial_default else { return ScalarValue::try_new_null(data_type) };
    let value = match default {
        Literal::Primitive(value) => scalar(value, data_type),
        _ => None,
    };
    value.ok_or_else(|| {
        DataFusionError::NotImplemented(format!("column `{}` has a default that cannot be read", field.name))
    })
}

/// A value as one of a column. `None` where it is not of the column's type, or of one it was promoted from.
pub(crate) fn scalar(value: &PrimitiveLiteral, data_type: &DataType) -> Option<ScalarValue> {
    use PrimitiveLiteral as L;
    Some(match (data_type, value) {
        (DataType::Boolean, L::Boolean(value)) => ScalarValue::Boolean(Some(*value)),
        (DataType::Int32, L::Int(value)) => ScalarValue::Int32(Some(*value)),
        (DataType::Int64, L::Int(value)) => ScalarValue::Int64(Some(i64::from(*value))),
        (DataType::Int64, L::Long(value)) => ScalarValue::Int64(Some(*value)),
        (DataType::Float32, L::Float(value)) => ScalarValue::Float32(Some(value.0)),
        (DataType::Float64, L::Float(value)) => ScalarValue::Float64(Some(f64::from(value.0))),
        (DataType::Float64, L::Double(value)) => ScalarValue::Float64(Some(value.0)),
        (DataType::Date32, L::Int(value)) => ScalarValue::Date32(Some(*value)),
        (DataType::Time64(TimeUnit::Microsecond), L::Long(value)) => ScalarValue::Time64Microsecond(Some(*value)),
        (DataType::Timestamp(TimeUnit::Microsecond, zone), L::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), zone.clone())
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), L::Long(value)) => {
            ScalarValue::TimestampNanosecond(Some(*value), zone.clone())
        }
        (DataType::Decimal128(precision, scale), L::Int128(value)) => {
            ScalarValue::Decimal128(Some(*value), *precision, *scale)
        }
        (DataType::Utf8, L::String(value)) => ScalarValue::Utf8(Some(value.clone())),
        (DataType::Utf8, L::UInt128(value)) => ScalarValue::Utf8(Some(Uuid::from_u128(*value).to_string())),
        (DataType::LargeBinary, L::Binary(value)) => ScalarValue::LargeBinary(Some(value.clone())),
        (DataType::FixedSizeBinary(size), L::Binary(value)) if value.len() == *size as usize => {
            ScalarValue::FixedSizeBinary(*size, Some(value.clone()))
        }
        _ => return None,
    })
}
