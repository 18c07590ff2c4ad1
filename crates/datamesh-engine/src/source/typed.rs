//! Typed sources (Parquet and whatever else comes as Arrow batches): columns by name, cast to the contract's types where
//! nothing is lost.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, ListArray, MapArray, RecordBatch, StringArray, StringBuilder, StructArray,
    UInt32Array, UInt64Array, new_null_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::{CastOptions, cast_with_options, kernels::cmp, nullif};
use datafusion::arrow::datatypes::{DataType as Arrow, Field, TimeUnit};
use datafusion::arrow::json::writer::LineDelimited;
use datamesh_core::quality::RULE_TYPE;
use datamesh_core::scalar::{self, Scalar};
use datamesh_core::verdict::Reason;
use datamesh_core::{DataType, Result};
use datamesh_quality::values::{show, valid};

use super::{TableLayout, encode_faults, source_schema};
use crate::error::arrow;

/// Brings a batch of a source to the contract's columns, with faults.
pub(crate) fn convert(layout: &TableLayout, batch: &RecordBatch, file: u32, position: u64) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(layout.table.columns.len());
    let mut misfits: Vec<(usize, ArrayRef, BooleanBuffer)> = Vec::new();
    for (at, (column, field)) in layout.table.columns.iter().zip(layout.schema.fields()).enumerate() {
        let Some(source) = batch.column_by_name(&column.name) else {
            arrays.push(new_null_array(field.data_type(), rows));
            continue;
        };
        let (array, broken) = exact_cast(source, &column.data_type, field)?;
        if broken.count_set_bits() > 0 {
            misfits.push((at, source.clone(), broken));
        }
        arrays.push(array);
    }
    let mut raw = BinaryBuilder::new();
    let mut faults = StringBuilder::new();
    if misfits.is_empty() {
        arrays.push(new_null_array(&Arrow::Binary, rows));
        arrays.push(new_null_array(&Arrow::Utf8, rows));
    } else {
        for row in 0..rows {
            let mut reasons = Vec::new();
            for (at, source, broken) in &misfits {
                if broken.value(row) {
                    let column = &layout.table.columns[*at];
                    let value = if column.is_protected() { None } else { show(source, row) };
                    reasons.push(Reason { rule: RULE_TYPE.to_owned(), column: column.name.clone(), value });
                }
            }
            if reasons.is_empty() {
                raw.append_null();
                faults.append_null();
            } else {
                raw.append_value(row_text(&batch.slice(row, 1)));
                faults.append_value(encode_faults(&reasons));
            }
        }
        arrays.push(Arc::new(raw.finish()));
        arrays.push(Arc::new(faults.finish()));
    }
    arrays.push(Arc::new(UInt32Array::from_value(file, rows)));
    arrays.push(Arc::new(UInt64Array::from_iter_values((1..=rows as u64).map(|row| position + row))));
    RecordBatch::try_new(source_schema(&layout.schema), arrays).map_err(arrow)
}

/// A row of a Parquet file as text: a JSON object of its cells, or their plain text where JSON has no form for them.
fn row_text(row: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer =
        datafusion::arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut out);
    let written = writer.write(row).and_then(|()| writer.finish());
    drop(writer);
    if written.is_err() {
        let fields = row.schema();
        let cells = fields.fields().iter().zip(row.columns());
        let cells =
            cells.map(|(field, array)| format!("{}={}", field.name(), show(array, 0).unwrap_or_else(|| "null".into())));
        return cells.collect::<Vec<_>>().join(", ").into_bytes();
    }
    out.truncate(out.trim_ascii_end().len());
    out
}

/// Casts an array to a contract type. The mask tells the rows whose value does not fit; they are null in the result.
fn exact_cast(source: &ArrayRef, data_type: &DataType, field: &Field) -> Result<(ArrayRef, BooleanBuffer)> {
    let rows = source.len();
    let target = field.data_type();
    let all_broken = || (new_null_array(target, rows), valid(source));
    if let Arrow::Dictionary(_, values) = target {
        // Of a dictionary with more values than rows only those that some row has are kept: each is judged.
        let small = source.as_any_dictionary_opt().is_some_and(|encoded| encoded.values().len() <= rows);
        if source.data_type() == target && small {
            return Ok((source.clone(), BooleanBuffer::new_unset(rows)));
        }
        let plain = field.clone().with_data_type(values.as_ref().clone());
        let (plain, broken) = exact_cast(source, data_type, &plain)?;
        return Ok((cast_with_options(&plain, target, &CastOptions::default()).map_err(arrow)?, broken));
    }
    if let Arrow::Dictionary(_, values) = source.data_type() {
        let plain = cast_with_options(source, values, &CastOptions::default()).map_err(arrow)?;
        return exact_cast(&plain, data_type, field);
    }
    if let Arrow::RunEndEncoded(_, values) = source.data_type() {
        let plain = cast_with_options(source, values.data_type(), &CastOptions::default()).map_err(arrow)?;
        return exact_cast(&plain, data_type, field);
    }
    let text = matches!(source.data_type(), Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View);
    match (data_type, target) {
        (DataType::Array(item), Arrow::List(inner)) => {
            let Some(list) = as_list(source)? else { return Ok(all_broken()) };
            let (items, broken) = exact_cast(list.values(), &item.data_type, inner)?;
            let broken = rows_with(list.offsets(), &broken, list.nulls());
            let array = ListArray::try_new(inner.clone(), list.offsets().clone(), items, list.nulls().cloned())
                .map_err(arrow)?;
            null_out(Arc::new(array), broken)
        }
        (DataType::Struct(columns), Arrow::Struct(fields)) => {
            let Some(structs) = source.as_struct_opt() else { return Ok(all_broken()) };
            let mut children = Vec::new();
            let mut broken = BooleanBuffer::new_unset(rows);
            for (column, field) in columns.iter().zip(fields) {
                match structs.column_by_name(&column.name) {
                    Some(child) => {
                        let (child, misfit) = exact_cast(child, &column.data_type, field)?;
                        broken = &broken | &misfit;
                        children.push(child);
                    }
                    None => children.push(new_null_array(field.data_type(), rows)),
                }
            }
            let broken = &broken & &valid(source);
            let array = StructArray::try_new_with_length(fields.clone(), children, structs.nulls().cloned(), rows)
                .map_err(arrow)?;
            null_out(Arc::new(array), broken)
        }
        (DataType::Map(key, value), Arrow::Map(entries, _)) => {
            let (Some(map), Arrow::Struct(fields)) = (source.as_map_opt(), entries.data_type()) else {
                return Ok(all_broken());
            };
            let [key_field, value_field] = fields.as_ref() else { return Ok(all_broken()) };
            let (keys, bad_keys) = exact_cast(map.keys(), key, key_field)?;
            if bad_keys.count_set_bits() > 0 {
                // A key cannot be null, so the maps with such a key are taken out before the others are cast.
                let bad = rows_with(map.offsets(), &bad_keys, map.nulls());
                let rows =
                    (0..rows as u32).map(|row| (!bad.value(row as usize)).then_some(row)).collect::<UInt32Array>();
                let rest = datafusion::arrow::compute::take(source, &rows, None).map_err(arrow)?;
                let (array, broken) = exact_cast(&rest, data_type, field)?;
                return Ok((array, &broken | &bad));
            }
            let (values, bad_values) = exact_cast(map.values(), &value.data_type, value_field)?;
            let broken = rows_with(map.offsets(), &bad_values, map.nulls());
            let inner = StructArray::try_new(fields.clone(), vec![keys, values], None).map_err(arrow)?;
            let array = MapArray::try_new(entries.clone(), map.offsets().clone(), inner, map.nulls().cloned(), false);
            null_out(Arc::new(array.map_err(arrow)?), broken)
        }
        (DataType::Array(_) | DataType::Struct(_) | DataType::Map(..), _) => Ok(all_broken()),
        _ if text => from_text(source, data_type, target),
        (DataType::Uuid, _) if *source.data_type() == Arrow::FixedSizeBinary(16) => {
            Ok((uuids(source), BooleanBuffer::new_unset(rows)))
        }
        // Text is no number and a number is no text: neither becomes the other unasked.
        (DataType::String | DataType::Json | DataType::Uuid, _) => Ok(all_broken()),
        _ => from_typed(source, target),
    }
}

/// UUIDs by their bytes, as their canonical text.
fn uuids(source: &ArrayRef) -> ArrayRef {
    use std::fmt::Write;
    let bytes = source.as_fixed_size_binary();
    let text = |value: &[u8]| {
        let mut text = String::with_capacity(36);
        for (at, byte) in value.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    };
    Arc::new(bytes.iter().map(|value| value.map(text)).collect::<StringArray>())
}

fn as_list(source: &ArrayRef) -> Result<Option<ListArray>> {
    let (Arrow::List(inner)
    | Arrow::LargeList(inner)
    | Arrow::ListView(inner)
    | Arrow::LargeListView(inner)
    | Arrow::FixedSizeList(inner, _)) = source.data_type()
    else {
        return Ok(None);
    };
    let list = cast_with_options(source, &Arrow::List(inner.clone()), &CastOptions::default()).map_err(arrow)?;
    Ok(list.as_list_opt::<i32>().cloned())
}

fn rows_with(
    offsets: &datafusion::arrow::buffer::OffsetBuffer<i32>,
    items: &BooleanBuffer,
    nulls: Option<&NullBuffer>,
) -> BooleanBuffer {
    BooleanBuffer::collect_bool(offsets.len() - 1, |row| {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        nulls.is_none_or(|nulls| nulls.is_valid(row)) && items.slice(start, end - start).count_set_bits() > 0
    })
}

fn null_out(array: ArrayRef, broken: BooleanBuffer) -> Result<(ArrayRef, BooleanBuffer)> {
    if broken.count_set_bits() == 0 {
        return Ok((array, broken));
    }
    let mask = datafusion::arrow::array::BooleanArray::new(broken.clone(), None);
    Ok((nullif(&array, &mask).map_err(arrow)?, broken))
}

/// Text cells, read like those of a text file.
pub(super) fn from_text(source: &ArrayRef, data_type: &DataType, target: &Arrow) -> Result<(ArrayRef, BooleanBuffer)> {
    let text = cast_with_options(source, &Arrow::Utf8, &CastOptions::default()).map_err(arrow)?;
    if *data_type == DataType::Binary {
        return from_base64(&text);
    }
    if matches!(data_type, DataType::String | DataType::Json) {
        return Ok((text, BooleanBuffer::new_unset(source.len())));
    }
    let texts: &StringArray = text.as_string();
    let mut broken = datafusion::arrow::array::BooleanBufferBuilder::new(texts.len());
    let parsed: Vec<Option<Scalar>> = texts
        .iter()
        .map(|cell| {
            let value = cell.map(|cell| scalar::parse(cell, data_type));
            broken.append(matches!(value, Some(Err(_))));
            value.and_then(Result::ok)
        })
        .collect();
    Ok((scalars(&parsed, target)?, broken.finish()))
}

/// Base64 texts, read like those of a text file.
fn from_base64(text: &ArrayRef) -> Result<(ArrayRef, BooleanBuffer)> {
    use base64::Engine as _;
    let texts: &StringArray = text.as_string();
    let mut bytes = datafusion::arrow::array::LargeBinaryBuilder::new();
    let mut broken = datafusion::arrow::array::BooleanBufferBuilder::new(texts.len());
    for cell in texts {
        let decoded = cell.map(|cell| base64::prelude::BASE64_STANDARD.decode(cell));
        broken.append(matches!(decoded, Some(Err(_))));
        bytes.append_option(decoded.and_then(std::result::Result::ok));
    }
    Ok((Arc::new(bytes.finish()), broken.finish()))
}

fn scalars(values: &[Option<Scalar>], target: &Arrow) -> Result<ArrayRef> {
    use datafusion::arrow::array::{BooleanArray, Decimal128Array, Float64Array, Int64Array};
    let integers =
        || values.iter().map(|value| if let Some(Scalar::Integer(value)) = value { Some(*value) } else { None });
    let doubles =
        || values.iter().map(|value| if let Some(Scalar::Double(value)) = value { Some(*value) } else { None });
    let wide: ArrayRef = match target {
        Arrow::Utf8 => Arc::new(
            values
                .iter()
                .map(|value| if let Some(Scalar::Text(text)) = value { Some(text) } else { None })
                .collect::<StringArray>(),
        ),
        Arrow::Boolean => Arc::new(
            values
                .iter()
                .map(|value| if let Some(Scalar::Boolean(value)) = value { Some(*value) } else { None })
                .collect::<BooleanArray>(),
        ),
        Arrow::Float32 | Arrow::Float64 => Arc::new(doubles().collect::<Float64Array>()),
        Arrow::Decimal128(precision, scale) => {
            let decimals =
                values.iter().map(|value| if let Some(Scalar::Decimal(value)) = value { Some(*value) } else { None });
            Arc::new(decimals.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale).map_err(arrow)?)
        }
        Arrow::Date32 => {
            let days: ArrayRef = Arc::new(integers().collect::<Int64Array>());
            cast_with_options(&days, &Arrow::Int32, &CastOptions::default()).map_err(arrow)?
        }
        _ => Arc::new(integers().collect::<Int64Array>()),
    };
    cast_with_options(&wide, target, &CastOptions::default()).map_err(arrow)
}

/// Typed cells: cast there and back, and whatever does not come back was not the same value.
fn from_typed(source: &ArrayRef, target: &Arrow) -> Result<(ArrayRef, BooleanBuffer)> {
    let rows = source.len();
    if source.data_type() == target {
        return Ok((source.clone(), BooleanBuffer::new_unset(rows)));
    }
    let all_broken = || (new_null_array(target, rows), valid(source));
    if !is_convertible(source.data_type(), target) {
        return Ok(all_broken());
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let Ok(array) = cast_with_options(source, target, &options) else { return Ok(all_broken()) };
    let Ok(back) = cast_with_options(&array, source.data_type(), &options) else { return Ok(all_broken()) };
    let floating = |data_type: &Arrow| matches!(data_type, Arrow::Float16 | Arrow::Float32 | Arrow::Float64);
    let broken = if floating(target) && matches!(source.data_type(), Arrow::Decimal128(..) | Arrow::Float64) {
        // A double is the nearest one to a decimal, a float the nearest one to a double, as in text sources; what
        // becomes null or infinite is lost.
        let kept = &finite(&array)? | &!&finite(source)?;
        &valid(source) & &!&(&valid(&array) & &kept)
    } else if floating(source.data_type()) {
        // By value, so that -0.0 is 0.
        let same = same_doubles(&back, source)?;
        &valid(source) & &!&(&valid(&back) & &same)
    } else {
        cmp::distinct(&back, source).map_err(arrow)?.values().clone()
    };
    null_out(array, broken)
}

fn doubles(array: &ArrayRef) -> Result<datafusion::arrow::array::Float64Array> {
    let wide = cast_with_options(array, &Arrow::Float64, &CastOptions::default()).map_err(arrow)?;
    Ok(wide.as_primitive::<datafusion::arrow::datatypes::Float64Type>().clone())
}

fn finite(array: &ArrayRef) -> Result<BooleanBuffer> {
    let values = doubles(array)?;
    Ok(BooleanBuffer::collect_bool(values.len(), |row| values.value(row).is_finite()))
}

fn same_doubles(a: &ArrayRef, b: &ArrayRef) -> Result<BooleanBuffer> {
    let (a, b) = (doubles(a)?, doubles(b)?);
    let same = |row| a.value(row) == b.value(row) || (a.value(row).is_nan() && b.value(row).is_nan());
    Ok(BooleanBuffer::collect_bool(a.len(), same))
}

/// Conversions that keep the meaning of a value. A local time is no instant, and a number is no date.
pub(super) fn is_convertible(from: &Arrow, to: &Arrow) -> bool {
    match (from, to) {
        (Arrow::Null, _) => true,
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (Arrow::Timestamp(_, from), Arrow::Timestamp(_, to)) => from.is_some() == to.is_some(),
        (Arrow::Date32 | Arrow::Date64, Arrow::Date32) => true,
        (Arrow::Time32(_) | Arrow::Time64(_), Arrow::Time64(TimeUnit::Microsecond)) => true,
        (Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_), Arrow::LargeBinary) => {
            true
        }
        _ => false,
    }
}
