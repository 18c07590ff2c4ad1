//! Arrays of a data file as the table's schema has them: matched by field id, at every depth.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, StringBuilder, StructArray, new_null_array,
};
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use uuid::Uuid;

/// How to make a column of the table of a column of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Conversion {
    /// It is the same.
    Same,
    /// A promotion, or another layout of the same values.
    Cast(DataType),
    /// Sixteen bytes as canonical text.
    Uuid,
    /// A struct, field by field.
    Struct(Vec<(FieldRef, ChildSource)>),
    /// A list, with its elements converted.
    List(FieldRef, Box<Conversion>),
    /// A map, with its entries converted.
    Map(FieldRef, Box<Conversion>),
}

/// Where a field of a struct comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChildSource {
    /// A field of the file's struct.
    File(usize, Conversion),
    /// The file has no such field: every value is this one.
    Constant(ScalarValue),
}

/// How the fields of a file are told from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// By the ids that the file gives them.
    OwnIds,
    /// By ids that they were given: the file's arrays are without them.
    GivenIds,
    /// Columns by ids that they were given, what is in them by name.
    Names,
}

/// The Iceberg id of a field, where it has one.
pub(crate) fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// The position of the field that is `wanted`: the one with its id, or, among fields without ids, the one with its name.
pub(crate) fn position<'a>(
    fields: impl IntoIterator<Item = &'a FieldRef>,
    wanted: &Field,
    lookup: Lookup,
) -> Option<usize> {
    let mut fields = fields.into_iter();
    if lookup == Lookup::Names {
        return fields.position(|field| field.name() == wanted.name());
    }
    let id = field_id(wanted)?;
    fields.position(|field| field_id(field) == Some(id))
}

impl Conversion {
    /// How to make `to` of `from`. `missing` gives the value of a field that a file does not have.
    ///
    /// # Errors
    /// Types that no promotion leads from and to.
    pub(crate) fn plan(
        from: &Field,
        to: &Field,
        lookup: Lookup,
        missing: &dyn Fn(&Field) -> Result<ScalarValue>,
    ) -> Result<Self> {
        if from.data_type() == to.data_type() && (lookup == Lookup::OwnIds || !to.data_type().is_nested()) {
            return Ok(Self::Same);
        }
        let other = || {
            let why = format!(
                "a data file has column `{}` as {}, which cannot be read as {}",
                to.name(),
                from.data_type(),
                to.data_type()
            );
            DataFusionError::Execution(why)
        };
        Ok(match (from.data_type(), to.data_type()) {
            (DataType::Struct(ours), DataType::Struct(wanted)) => {
                let mut children = Vec::with_capacity(wanted.len());
                for field in wanted {
                    let source = match position(ours, field, lookup) {
                        Some(at) => ChildSource::File(at, Self::plan(&ours[at], field, lookup, missing)?),
                        None => ChildSource::Constant(missing(field)?),
                    };
                    children.push((field.clone(), source));
                }
                Self::Struct(children)
            }
            (
                DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _),
                DataType::List(wanted),
            ) => Self::List(wanted.clone(), Box::new(Self::plan(element, wanted, lookup, missing)?)),
            (DataType::Map(entries, _), DataType::Map(wanted, _)) => {
                // Keys and values are first and second, however they are called.
                let (DataType::Struct(ours), DataType::Struct(fields)) = (entries.data_type(), wanted.data_type())
                else {
                    return Err(other());
                };
                if ours.len() != 2 || fields.len() != 2 {
                    return Err(other());
                }
                let children = ours.iter().zip(fields).enumerate().map(|(at, (from, to))| {
                    Ok((to.clone(), ChildSource::File(at, Self::plan(from, to, lookup, missing)?)))
                });
                Self::Map(wanted.clone(), Box::new(Self::Struct(children.collect::<Result<_>>()?)))
            }
            (DataType::FixedSizeBinary(16), DataType::Utf8) => Self::Uuid,
            (from, to) if fits(from, to) && can_cast_types(from, to) => Self::Cast(to.clone()),
            _ => return Err(other()),
        })
    }

    /// Whether the values are those of the file, only of another type.
    pub(crate) fn is_primitive(&self) -> bool {
        matches!(self, Self::Same | Self::Cast(_))
    }

    /// The array as the table has it.
    pub(crate) fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        Ok(match self {
            Self::Same => array.clone(),
            Self::Cast(to) => cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })?,
            Self::Uuid => {
                let bytes = array.as_fixed_size_binary();
                let mut texts = StringBuilder::with_capacity(bytes.len(), bytes.len() * 36);
                for value in bytes {
                    texts.append_option(
                        value.and_then(|value| Uuid::from_slice(value).ok()).map(|uuid| uuid.to_string()),
                    );
                }
                Arc::new(texts.finish())
            }
            Self::Struct(children) => {
                let array = array.as_struct();
                let mut fields = Vec::with_capacity(children.len());
                let mut arrays = Vec::with_capacity(children.len());
                for (field, source) in children {
                    arrays.push(match source {
                        ChildSource::File(at, conversion) => conversion.apply(array.column(*at))?,
                        ChildSource::Constant(value) if value.is_null() => {
                            new_null_array(field.data_type(), array.len())
                        }
                        ChildSource::Constant(value) => value.to_array_of_size(array.len())?,
                    });
                    fields.push(field.clone());
                }
                let nulls = array.nulls().cloned();
                Arc::new(StructArray::try_new_with_length(fields.into(), arrays, nulls, array.len())?)
            }
            Self::List(field, conversion) => {
                let array = match array.data_type() {
                    DataType::List(_) => array.clone(),
                    DataType::LargeList(element) | DataType::FixedSizeList(element, _) => cast_with_options(
                        array,
                        &DataType::List(element.clone()),
                        &CastOptions { safe: false, ..CastOptions::default() },
                    )?,
                    other => return Err(DataFusionError::Internal(format!("{other} is no list"))),
                };
                let list = array.as_list::<i32>();
                let values = conversion.apply(list.values())?;
                Arc::new(ListArray::try_new(field.clone(), list.offsets().clone(), values, list.nulls().cloned())?)
            }
            Self::Map(field, conversion) => {
                let map = array.as_map();
                let entries: ArrayRef = Arc::new(map.entries().clone());
                let entries = conversion.apply(&entries)?.as_struct().clone();
                Arc::new(MapArray::try_new(field.clone(), map.offsets().clone(), entries, map.nulls().cloned(), false)?)
            }
        })
    }
}

/// Whether every value of one type is one of the other: Iceberg's promotions, and other layouts of the same values.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Dictionary(_, from), to) => from.as_ref() == to || fits(from, to),
        (T::RunEndEncoded(_, from), to) => from.data_type() == to || fits(from.data_type(), to),
        (T::Int8 | T::Int16 | T::UInt8 | T::UInt16, T::Int32 | T::Int64) => true,
        (T::Int32 | T::UInt32, T::Int64) => true,
        (T::Float16, T::Float32 | T::Float64) | (T::Float32, T::Float64) => true,
        (
            T::Decimal32(precision, scale) | T::Decimal64(precision, scale) | T::Decimal128(precision, scale),
            T::Decimal128(wider, same),
        ) => precision <= wider && scale == same,
        (T::Utf8 | T::LargeUtf8 | T::Utf8View, T::Utf8 | T::LargeUtf8 | T::Utf8View) => true,
        (
            T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) | T::Utf8 | T::LargeUtf8 | T::Utf8View,
            T::Binary | T::LargeBinary | T::BinaryView,
        ) => true,
        // Files that say nothing about text keep it as bytes.
        (T::Binary | T::LargeBinary | T::BinaryView, T::Utf8 | T::LargeUtf8 | T::Utf8View) => true,
        // The zone of an instant is a matter of display.
        (T::Timestamp(_, _), T::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)) => true,
        (T::Date64, T::Date32) | (T::Time32(_), T::Time64(_)) => true,
        (T::Null, _) => true,
        _ => false,
    }
}
