//! Column statistics of a data file, from its Parquet footer (Iceberg spec, "Manifests": `data_file` fields 108 to 137).

use std::collections::{HashMap, HashSet};

use datamesh_core::{Error, ErrorCode, Result};
use iceberg::spec::{Datum, PrimitiveType, Schema, Type};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

/// Longest prefix of a text or binary bound, in characters or bytes: Iceberg's `truncate(16)` default.
const BOUND_LENGTH: usize = 16;

/// What a manifest says of a data file's columns, by field id.
#[derive(Default)]
pub(crate) struct ColumnStatistics {
    pub column_sizes: HashMap<i32, u64>,
    pub value_counts: HashMap<i32, u64>,
    pub null_value_counts: HashMap<i32, u64>,
    pub lower_bounds: HashMap<i32, Datum>,
    pub upper_bounds: HashMap<i32, Datum>,
    pub split_offsets: Vec<i64>,
}

/// Reads the statistics of all row groups.
///
/// A bound is kept only where every row group that has values has it too: a bound of some groups alone would be too
/// narrow, and readers would skip rows. Bounds inside lists and maps are left out, as other writers do.
pub(crate) fn collect(metadata: &ParquetMetaData, schema: &Schema) -> Result<ColumnStatistics> {
    let mut out = ColumnStatistics::default();
    let mut unbounded = HashSet::new();
    for group in metadata.row_groups() {
        out.split_offsets.extend(first_offset(group));
        for column in group.columns() {
            let info = column.column_descr().self_type().get_basic_info();
            if !info.has_id() {
                let path = column.column_descr().path().string();
                return Err(Error::new(ErrorCode::Internal, format!("data file column `{path}` has no field id")));
            }
            let id = info.id();
            *out.column_sizes.entry(id).or_default() += column.compressed_size().max(0) as u64;
            *out.value_counts.entry(id).or_default() += column.num_values().max(0) as u64;
            let statistics = column.statistics();
            if let Some(nulls) = statistics.and_then(Statistics::null_count_opt) {
                *out.null_value_counts.entry(id).or_default() += nulls;
            }
            let nested = column.column_descr().max_rep_level() > 0;
            let Some(Type::Primitive(primitive)) = schema.field_by_id(id).map(|field| field.field_type.as_ref()) else {
                continue;
            };
            let all_null = statistics.and_then(Statistics::null_count_opt) == Some(column.num_values().max(0) as u64);
            if nested || all_null {
                continue;
            }
            let lower = statistics.and_then(|statistics| bound(statistics, primitive, Side::Lower));
            let upper = statistics.and_then(|statistics| bound(statistics, primitive, Side::Upper));
            // Each side stands for itself: a greatest value may have no shorter upper bound.
            for (bounds, bound, is_lower, wins) in [
                (&mut out.lower_bounds, lower, true, (|new, old| new < old) as fn(&Datum, &Datum) -> bool),
                (&mut out.upper_bounds, upper, false, |new, old| new > old),
            ] {
                let side = (id, is_lower);
                match bound {
                    Some(bound) if !unbounded.contains(&side) => merge(bounds, id, bound, wins),
                    Some(_) => {}
                    None => {
                        unbounded.insert(side);
                        bounds.remove(&id);
                    }
                }
            }
        }
    }
    out.split_offsets.sort_unstable();
    Ok(out)
}

/// What values a column of a file may have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ColumnRange {
    /// Not known.
    Any,
    /// Between these two, both included.
    Between(Datum, Datum),
    /// None at all: every row is null.
    Nothing,
}

impl ColumnRange {
    /// Whether some value may lie in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, _) | (_, Self::Nothing) => false,
            (Self::Between(low, high), Self::Between(other_low, other_high)) => {
                // What cannot be compared may overlap.
                !(high < other_low || other_high < low)
            }
            _ => true,
        }
    }
}

/// The range of a top-level column, from a footer.
pub(crate) fn column_range(metadata: &ParquetMetaData, column: &str, primitive: &PrimitiveType) -> ColumnRange {
    let mut range = ColumnRange::Nothing;
    for group in metadata.row_groups() {
        let found = group.columns().iter().find(|chunk| {
            let path = chunk.column_descr().path().parts();
            path.len() == 1 && path[0] == column && chunk.column_descr().max_rep_level() == 0
        });
        let Some(chunk) = found else { continue };
        let Some(statistics) = chunk.statistics() else { return ColumnRange::Any };
        if statistics.null_count_opt() == Some(chunk.num_values().max(0) as u64) {
            continue;
        }
        let bounds = (bound(statistics, primitive, Side::Lower), bound(statistics, primitive, Side::Upper));
        let (Some(lower), Some(upper)) = bounds else { return ColumnRange::Any };
        range = match range {
            ColumnRange::Between(low, high) => {
                ColumnRange::Between(if lower < low { lower } else { low }, if upper > high { upper } else { high })
            }
            _ => ColumnRange::Between(lower, upper),
        };
    }
    range
}

fn merge(bounds: &mut HashMap<i32, Datum>, id: i32, new: Datum, wins: impl Fn(&Datum, &Datum) -> bool) {
    match bounds.get(&id) {
        Some(old) if !wins(&new, old) => {}
        _ => {
            bounds.insert(id, new);
        }
    }
}

fn first_offset(group: &RowGroupMetaData) -> Option<i64> {
    let column = group.columns().first()?;
    Some(column.dictionary_page_offset().unwrap_or(column.data_page_offset()))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Lower,
    Upper,
}

fn bound(statistics: &Statistics, primitive: &PrimitiveType, side: Side) -> Option<Datum> {
    macro_rules! pick {
        ($values:expr) => {
            if side == Side::Lower { $values.min_opt()? } else { $values.max_opt()? }
        };
    }
    let datum = match (statistics, primitive) {
        (Statistics::Boolean(values), PrimitiveType::Boolean) => Datum::bool(*pick!(values)),
        (Statistics::Int32(values), PrimitiveType::Int) => Datum::int(*pick!(values)),
        (Statistics::Int32(values), PrimitiveType::Date) => Datum::date(*pick!(values)),
        (Statistics::Int64(values), PrimitiveType::Long) => Datum::long(*pick!(values)),
        (Statistics::Int64(values), PrimitiveType::Time) => Datum::time_micros(*pick!(values)).ok()?,
        (Statistics::Int64(values), PrimitiveType::Timestamp) => Datum::timestamp_micros(*pick!(values)),
        (Statistics::Int64(values), PrimitiveType::Timestamptz) => Datum::timestamptz_micros(*pick!(values)),
        (Statistics::Float(values), PrimitiveType::Float) => Datum::float(*pick!(values)),
        (Statistics::Double(values), PrimitiveType::Double) => Datum::double(*pick!(values)),
        (Statistics::Int32(values), PrimitiveType::Decimal { .. }) => decimal(i128::from(*pick!(values)), primitive)?,
        (Statistics::Int64(values), PrimitiveType::Decimal { .. }) => decimal(i128::from(*pick!(values)), primitive)?,
        (Statistics::FixedLenByteArray(values), PrimitiveType::Decimal { .. }) => {
            decimal(big_endian(pick!(values).data())?, primitive)?
        }
        (Statistics::ByteArray(values), PrimitiveType::String) => {
            let text = std::str::from_utf8(pick!(values).data()).ok()?;
            if side == Side::Lower { Datum::string(lower_text(text)) } else { Datum::string(upper_text(text)?) }
        }
        (Statistics::ByteArray(values), PrimitiveType::Binary) => {
            let bytes = pick!(values).data();
            Datum::binary(if side == Side::Lower {
                bytes[..bytes.len().min(BOUND_LENGTH)].to_vec()
            } else {
                upper_bytes(bytes)
            })
        }
        _ => return None,
    };
    if datum.is_nan() { None } else { Some(datum) }
}

fn decimal(unscaled: i128, primitive: &PrimitiveType) -> Option<Datum> {
    Datum::try_from_bytes(&unscaled.to_be_bytes(), primitive.clone()).ok()
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let fill = if bytes[0] & 0x80 != 0 { 0xff } else { 0 };
    let mut wide = [fill; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

fn lower_text(text: &str) -> &str {
    text.char_indices().nth(BOUND_LENGTH).map_or(text, |(end, _)| &text[..end])
}

/// The smallest text of at most [`BOUND_LENGTH`] characters that is not less than `text`, where there is one.
fn upper_text(text: &str) -> Option<String> {
    if text.chars().count() <= BOUND_LENGTH {
        return Some(text.to_owned());
    }
    let mut prefix: Vec<char> = text.chars().take(BOUND_LENGTH).collect();
    while let Some(last) = prefix.pop() {
        let next = match u32::from(last) + 1 {
            0xD800 => 0xE000,
            next => next,
        };
        if let Some(next) = char::from_u32(next) {
            prefix.push(next);
            return Some(prefix.into_iter().collect());
        }
    }
    None
}

fn upper_bytes(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() <= BOUND_LENGTH {
        return bytes.to_vec();
    }
    let mut prefix = bytes[..BOUND_LENGTH].to_vec();
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    // No shorter value is greater; the whole one is its own bound.
    bytes.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_bounds_enclose() {
        assert_eq!(lower_text("short"), "short");
        assert_eq!(lower_text("abcdefghijklmnopq"), "abcdefghijklmnop");
        assert_eq!(upper_text("abcdefghijklmnopq").as_deref(), Some("abcdefghijklmnoq"));
        let most = "\u{10FFFF}".repeat(20);
        assert_eq!(upper_text(&most), None);
        let near = format!("{}\u{D7FF}x", "a".repeat(15));
        assert_eq!(upper_text(&near), Some(format!("{}\u{E000}", "a".repeat(15))));
        assert_eq!(upper_bytes(&[0xff; 20]), vec![0xff; 20]);
        assert_eq!(big_endian(&[0xff]), Some(-1));
        assert_eq!(big_endian(&[1, 0]), Some(256));
    }
}
