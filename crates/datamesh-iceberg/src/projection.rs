//! What a partition value says about the column it was made from: the inverse image of a transform.
//!
//! Pruning with these ranges is the inclusive projection of the specification: a file is left out only where no value of
//! the column that could be in it matches.

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::Int32Type;
use chrono::{Datelike, Months, NaiveDate};
use iceberg::spec::{PrimitiveLiteral, PrimitiveType, Transform};
use iceberg::transform::create_transform_function;

/// The least and the greatest value a column can have, both inclusive. `None`: not bounded on this side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceRange {
    /// No value is less.
    pub lower: Option<PrimitiveLiteral>,
    /// No value is greater.
    pub upper: Option<PrimitiveLiteral>,
}

const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;

/// The range of a column of type `source` where its partition values, made by `transform`, lie between `lower` and
/// `upper`. Null partition values have no part in this: they stand for null columns.
pub fn source_range(
    transform: &Transform,
    source: &PrimitiveType,
    lower: Option<&PrimitiveLiteral>,
    upper: Option<&PrimitiveLiteral>,
) -> SourceRange {
    match transform {
        Transform::Identity => SourceRange { lower: lower.cloned(), upper: upper.cloned() },
        Transform::Truncate(width) => {
            SourceRange { lower: lower.cloned(), upper: upper.and_then(|upper| truncated(upper, *width)) }
        }
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            let start = |value: i64| start_of(transform, source, value);
            // Older writers round instants before 1970 towards the future: what they file under a unit may lie in the one before.
            let lower =
                lower.and_then(unit).and_then(|unit| start(if unit <= 0 { unit.checked_sub(1)? } else { unit }));
            let upper =
                upper.and_then(unit).and_then(|unit| start(unit.checked_add(1)?)).and_then(|next| next.checked_sub(1));
            SourceRange {
                lower: lower.and_then(|at| literal(source, at, false)),
                upper: upper.and_then(|at| literal(source, at, true)),
            }
        }
        Transform::Bucket(_) | Transform::Void | Transform::Unknown => SourceRange::default(),
    }
}

/// The bucket of every value; `None` where the type cannot be hashed.
pub fn buckets(count: u32, values: &ArrayRef) -> Option<Int32Array> {
    let function = create_transform_function(&Transform::Bucket(count)).ok()?;
    let hashed = function.transform(values.clone()).ok()?;
    (hashed.len() == values.len()).then_some(())?;
    Some(hashed.as_primitive_opt::<Int32Type>()?.clone())
}

fn unit(value: &PrimitiveLiteral) -> Option<i64> {
    match value {
        PrimitiveLiteral::Int(value) => Some(i64::from(*value)),
        PrimitiveLiteral::Long(value) => Some(*value),
        _ => None,
    }
}

/// The first day (of a date) or microsecond (of a timestamp) in a unit that is counted from 1970.
fn start_of(transform: &Transform, source: &PrimitiveType, value: i64) -> Option<i64> {
    let days = match transform {
        Transform::Hour => {
            return if *source == PrimitiveType::Date { None } else { value.checked_mul(HOUR) };
        }
        Transform::Day => value,
        Transform::Month => days_of_month(value)?,
        _ => days_of_month(value.checked_mul(12)?)?,
    };
    if *source == PrimitiveType::Date { Some(days) } else { days.checked_mul(DAY) }
}

fn days_of_month(months: i64) -> Option<i64> {
    let epoch = NaiveDate::default();
    let apart = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let date = if months < 0 { epoch.checked_sub_months(apart)? } else { epoch.checked_add_months(apart)? };
    Some(i64::from(date.num_days_from_ce()) - i64::from(epoch.num_days_from_ce()))
}

/// A day or microsecond as a value of the column; of a microsecond, its first or its last nanosecond.
fn literal(source: &PrimitiveType, at: i64, last: bool) -> Option<PrimitiveLiteral> {
    match source {
        PrimitiveType::Date => i32::try_from(at).ok().map(PrimitiveLiteral::Int),
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz => Some(PrimitiveLiteral::Long(at)),
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            let nanos = at.checked_mul(1000)?;
            Some(PrimitiveLiteral::Long(if last { nanos.checked_add(999)? } else { nanos }))
        }
        _ => None,
    }
}

/// The greatest value that `truncate[width]` makes `value` of, or one above it.
fn truncated(value: &PrimitiveLiteral, width: u32) -> Option<PrimitiveLiteral> {
    let rest = i64::from(width) - 1;
    Some(match value {
        PrimitiveLiteral::Int(value) => PrimitiveLiteral::Int(value.saturating_add(i32::try_from(rest).ok()?)),
        PrimitiveLiteral::Long(value) => PrimitiveLiteral::Long(value.saturating_add(rest)),
        PrimitiveLiteral::Int128(value) => PrimitiveLiteral::Int128(value.checked_add(i128::from(rest))?),
        PrimitiveLiteral::String(text) if text.chars().count() < width as usize => value.clone(),
        PrimitiveLiteral::String(text) => PrimitiveLiteral::String(next_text(text)?),
        PrimitiveLiteral::Binary(bytes) if bytes.len() < width as usize => value.clone(),
        PrimitiveLiteral::Binary(bytes) => {
            let mut bytes = bytes.clone();
            while let Some(last) = bytes.pop() {
                if let Some(next) = last.checked_add(1) {
                    bytes.push(next);
                    return Some(PrimitiveLiteral::Binary(bytes));
                }
            }
            return None;
        }
        _ => return None,
    })
}

/// The least text that is greater than every text with this prefix.
fn next_text(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = (last as u32 + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests;
