//! Contract columns to Iceberg schemas, partition specs and sort orders.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datamesh_core::contract::{Table, Transform as ContractTransform};
use datamesh_core::{Column, DataType, Error, ErrorCode, Result};
use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, NullOrder, PrimitiveType, Schema, SortDirection, SortField,
    SortOrder, StructType, Transform, Type, UnboundPartitionSpec,
};

use crate::error::internal;

/// Numbers fields: those that `previous` has keep their ids, new ones follow.
struct Numberer {
    next: i32,
    /// Whether columns that the contract no longer has may go.
    drops: bool,
}

impl Numberer {
    fn take(&mut self, previous: Option<&NestedFieldRef>) -> i32 {
        match previous {
            Some(field) => field.id,
            None => {
                self.next += 1;
                self.next
            }
        }
    }
}

/// The Iceberg schema of a table's columns. Every field is optional: `required` is audited, and lives in the contract.
///
/// A column that was renamed keeps its id, and so does one whose type became wider (spec: Schema Evolution).
///
/// # Errors
/// `incompatible-change` where `previous` has a column that is gone, unless it may be with `drops`, or of another type.
pub(crate) fn iceberg_schema(table: &Table, previous: Option<(&Schema, i32)>, drops: bool) -> Result<Schema> {
    let mut numberer = Numberer { next: previous.map_or(0, |(_, last)| last), drops };
    let old = previous.map(|(schema, _)| schema.as_struct());
    let fields = struct_fields(&table.columns, old, &mut numberer, table.name.as_str())?;
    Schema::builder().with_fields(fields).build().map_err(internal("build the table's schema"))
}

fn incompatible(table: &str, path: &str, what: &str) -> Error {
    Error::new(
        ErrorCode::IncompatibleChange,
        format!("table `{table}`: column `{path}` {what}, but the table is published already"),
    )
    .with_help("undo the change, or raise the product's major version: that makes a new table beside this one")
}

fn struct_fields(
    columns: &[Column],
    old: Option<&StructType>,
    numberer: &mut Numberer,
    table: &str,
) -> Result<Vec<NestedFieldRef>> {
    let named = |name: &str| old.and_then(|old| old.fields().iter().find(|field| field.name == name));
    // Once the table has the new name, the former one says nothing any more.
    let find = |column: &Column| {
        let former = column.renamed_from.as_deref().filter(|from| !columns.iter().any(|other| other.name == **from));
        named(&column.name).or_else(|| former.and_then(named))
    };
    if let Some(old) = old.filter(|_| !numberer.drops) {
        let kept: Vec<i32> = columns.iter().filter_map(find).map(|field| field.id).collect();
        if let Some(gone) = old.fields().iter().find(|field| !kept.contains(&field.id)) {
            return Err(incompatible(table, &gone.name, "was removed"));
        }
    }
    // All siblings are numbered before their children, as Iceberg's own assignment does.
    let ids: Vec<i32> = columns.iter().map(|column| numberer.take(find(column))).collect();
    let mut fields = Vec::with_capacity(columns.len());
    for (column, id) in columns.iter().zip(ids) {
        let previous = find(column).map(|field| field.field_type.as_ref());
        let field_type = field_type(&column.data_type, previous, numberer, table, &column.name)?;
        let mut field = NestedField::optional(id, &column.name, field_type);
        if let Some(description) = &column.description {
            field = field.with_doc(description);
        }
        fields.push(Arc::new(field));
    }
    Ok(fields)
}

fn field_type(
    data_type: &DataType,
    old: Option<&Type>,
    numberer: &mut Numberer,
    table: &str,
    path: &str,
) -> Result<Type> {
    let changed = || incompatible(table, path, &format!("became {data_type}"));
    let primitive = match data_type {
        // UUIDs are kept as canonical text, so that every reader shows them alike.
        DataType::String | DataType::Uuid | DataType::Json => PrimitiveType::String,
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int => PrimitiveType::Int,
        DataType::Long => PrimitiveType::Long,
        DataType::Float => PrimitiveType::Float,
        DataType::Double => PrimitiveType::Double,
        DataType::Decimal(precision, scale) => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        DataType::Date => PrimitiveType::Date,
        DataType::Time => PrimitiveType::Time,
        DataType::Timestamp => PrimitiveType::Timestamptz,
        DataType::TimestampNtz => PrimitiveType::Timestamp,
        DataType::Binary => PrimitiveType::Binary,
        DataType::Array(item) => {
            let previous = match old {
                None => None,
                Some(Type::List(list)) => Some(&list.element_field),
                Some(_) => return Err(changed()),
            };
            let id = numberer.take(previous);
            let old = previous.map(|field| field.field_type.as_ref());
            let element = field_type(&item.data_type, old, numberer, table, &format!("{path}[]"))?;
            return Ok(Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false)))));
        }
        DataType::Map(key, value) => {
            let previous = match old {
                None => None,
                Some(Type::Map(map)) => Some(map),
                Some(_) => return Err(changed()),
            };
            let before = numberer.next;
            let key_id = numberer.take(previous.map(|map| &map.key_field));
            let value_id = numberer.take(previous.map(|map| &map.value_field));
            let old = |field: fn(&MapType) -> &NestedFieldRef| previous.map(|map| field(map).field_type.as_ref());
            let key = field_type(key, old(|map| &map.key_field), numberer, table, path)?;
            let value = field_type(&value.data_type, old(|map| &map.value_field), numberer, table, path)?;
            if previous.is_some() && numberer.next > before {
                return Err(incompatible(table, path, "got a field within its map, which readers cannot fill in"));
            }
            return Ok(Type::Map(MapType::optional(key_id, key, value_id, value)));
        }
        DataType::Struct(columns) => {
            let old = match old {
                None => None,
                Some(Type::Struct(old)) => Some(old),
                Some(_) => return Err(changed()),
            };
            return Ok(Type::Struct(StructType::new(struct_fields(columns, old, numberer, table)?)));
        }
    };
    match old {
        Some(Type::Primitive(old)) if *old == primitive || is_wider(old, &primitive) => {}
        Some(_) => return Err(changed()),
        None => {}
    }
    Ok(Type::Primitive(primitive))
}

/// Whether every value of a type is one of a wider type (spec: Schema Evolution, Type Promotion, format v2).
fn is_wider(old: &PrimitiveType, new: &PrimitiveType) -> bool {
    match (old, new) {
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision: before, scale },
            PrimitiveType::Decimal { precision: after, scale: same },
        ) => after > before && scale == same,
        _ => false,
    }
}

/// The Iceberg transform of a contract's.
pub(crate) fn transform(transform: ContractTransform) -> Transform {
    match transform {
        ContractTransform::Identity => Transform::Identity,
        ContractTransform::Year => Transform::Year,
        ContractTransform::Month => Transform::Month,
        ContractTransform::Day => Transform::Day,
        ContractTransform::Hour => Transform::Hour,
        ContractTransform::Bucket(n) => Transform::Bucket(n),
        ContractTransform::Truncate(width) => Transform::Truncate(width),
    }
}

fn field_id(schema: &Schema, column: &str) -> Result<i32> {
    let id = schema.field_id_by_name(column);
    id.ok_or_else(|| Error::new(ErrorCode::Internal, format!("column `{column}` has no field id")))
}

/// The partition spec of a table, bound to `schema` by field id.
pub(crate) fn partition_spec(table: &Table, schema: &Schema) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder();
    for field in &table.partition_by {
        builder = builder
            .add_partition_field(field_id(schema, &field.column)?, field.name(), transform(field.transform))
            .map_err(internal("build the partition spec"))?;
    }
    Ok(builder.build())
}

/// The sort order of a table, bound to `schema` by field id; nulls first when ascending, as Iceberg's default.
pub(crate) fn sort_order(table: &Table, schema: &Schema) -> Result<SortOrder> {
    if table.sort_by.is_empty() {
        return Ok(SortOrder::unsorted_order());
    }
    let mut fields = Vec::new();
    for field in &table.sort_by {
        let (direction, null_order) = if field.descending {
            (SortDirection::Descending, NullOrder::Last)
        } else {
            (SortDirection::Ascending, NullOrder::First)
        };
        let builder = SortField::builder().source_id(field_id(schema, &field.column)?).transform(Transform::Identity);
        fields.push(builder.direction(direction).null_order(null_order).build());
    }
    SortOrder::builder().with_order_id(1).with_fields(fields).build(schema).map_err(internal("build the sort order"))
}

/// The Arrow schema that data files of `schema` have, with field ids in the metadata of every field.
pub fn arrow_schema(schema: &Schema) -> Result<SchemaRef> {
    let arrow = iceberg::arrow::schema_to_arrow_schema(schema).map_err(internal("map the schema to Arrow"))?;
    Ok(Arc::new(arrow))
}
