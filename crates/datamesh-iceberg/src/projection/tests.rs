use std::sync::Arc;

use arrow::array::{
    BinaryArray, Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::spec::{Literal, Type};

use super::*;
use crate::commit::transform_values;

/// A deterministic mixture of small and extreme numbers.
fn numbers(count: usize) -> Vec<i64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(|at| (next() >> (at % 60)) as i64 * if at % 3 == 0 { -1 } else { 1 }).collect()
}

fn literals(array: &ArrayRef, kind: &PrimitiveType) -> Vec<Option<PrimitiveLiteral>> {
    let literals = arrow_primitive_to_literal(array, &Type::Primitive(kind.clone())).expect("literals");
    literals.into_iter().map(|literal| literal.and_then(|literal: Literal| literal.as_primitive_literal())).collect()
}

/// Every value lies in the range that its own partition value stands for, and in that of the whole array.
fn check(transform: Transform, kind: PrimitiveType, array: ArrayRef) {
    let made = transform_values(&transform, &array).expect("transform");
    let result = transform.result_type(&Type::Primitive(kind.clone())).expect("result type");
    let result = result.as_primitive_type().expect("primitive").clone();
    let (values, parts) = (literals(&array, &kind), literals(&made, &result));
    assert_eq!(values.len(), parts.len());
    for (value, part) in values.iter().zip(&parts) {
        let (Some(value), Some(part)) = (value, part) else { continue };
        let range = source_range(&transform, &kind, Some(part), Some(part));
        assert!(holds(&range, value), "{transform} of {value:?} is {part:?}, which stands for {range:?}");
    }
    let bounds =
        parts.iter().flatten().min_by(|a, b| compare(a, b)).zip(parts.iter().flatten().max_by(|a, b| compare(a, b)));
    let (lower, upper) = bounds.expect("values");
    let range = source_range(&transform, &kind, Some(lower), Some(upper));
    for value in values.iter().flatten() {
        assert!(holds(&range, value), "{transform}: {value:?} is not in {range:?}");
    }
}

fn compare(a: &PrimitiveLiteral, b: &PrimitiveLiteral) -> std::cmp::Ordering {
    use PrimitiveLiteral as L;
    match (a, b) {
        (L::Int(a), L::Int(b)) => a.cmp(b),
        (L::Long(a), L::Long(b)) => a.cmp(b),
        (L::Int128(a), L::Int128(b)) => a.cmp(b),
        (L::String(a), L::String(b)) => a.cmp(b),
        (L::Binary(a), L::Binary(b)) => a.cmp(b),
        (a, b) => panic!("{a:?} and {b:?} are not of one type"),
    }
}

fn holds(range: &SourceRange, value: &PrimitiveLiteral) -> bool {
    range.lower.as_ref().is_none_or(|lower| compare(lower, value).is_le())
        && range.upper.as_ref().is_none_or(|upper| compare(value, upper).is_le())
}

#[test]
fn times_lie_in_the_range_of_their_partition() {
    let within = 200_000_i64 * 365 * DAY;
    let micros: Vec<i64> = numbers(3000).into_iter().map(|value| value % within).collect();
    let instants: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros.clone()));
    for transform in [Transform::Year, Transform::Month, Transform::Day, Transform::Hour] {
        let near: Vec<i64> = micros.iter().map(|value| value % (800 * 365 * DAY)).collect();
        check(transform, PrimitiveType::Timestamp, Arc::new(TimestampMicrosecondArray::from(near)));
    }
    check(Transform::Day, PrimitiveType::Timestamp, instants);
    let days: ArrayRef = Arc::new(Date32Array::from_iter_values(micros.iter().map(|value| (value % 300_000) as i32)));
    for transform in [Transform::Year, Transform::Month, Transform::Day] {
        check(transform, PrimitiveType::Date, days.clone());
    }
}

#[test]
fn truncated_values_lie_in_the_range_of_their_partition() {
    let numbers = numbers(2000);
    for width in [1, 7, 10, 1000] {
        let transform = Transform::Truncate(width);
        let small = numbers.iter().map(|value| (value % 1_000_000_007) as i32);
        check(transform, PrimitiveType::Int, Arc::new(Int32Array::from_iter_values(small)));
        let large = numbers.iter().map(|value| value % (i64::MAX - 1000));
        check(transform, PrimitiveType::Long, Arc::new(Int64Array::from_iter_values(large)));
        let decimals = Decimal128Array::from_iter_values(numbers.iter().map(|value| i128::from(value % 99_999_999)));
        let decimals = decimals.with_precision_and_scale(9, 2).expect("fits");
        check(transform, PrimitiveType::Decimal { precision: 9, scale: 2 }, Arc::new(decimals));
    }
    let alphabet = ['a', 'z', 'é', '\u{d7ff}', '\u{e000}', '\u{10ffff}', '0'];
    let text = |value: &i64| -> String {
        let mut value = value.unsigned_abs();
        let mut text = String::new();
        while value > 0 {
            text.push(alphabet[(value % 7) as usize]);
            value /= 7;
        }
        text
    };
    for width in [1, 2, 5] {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.iter().map(text)));
        check(Transform::Truncate(width), PrimitiveType::String, texts);
    }
    let short: Vec<_> = numbers.iter().map(|value| value.to_be_bytes()).collect();
    for transform in [Transform::Identity] {
        check(transform, PrimitiveType::Binary, Arc::new(BinaryArray::from_iter_values(short.iter())));
    }
}

#[test]
fn ranges_are_tight() {
    let day = PrimitiveLiteral::Int(20_000);
    let range = source_range(&Transform::Day, &PrimitiveType::Timestamptz, Some(&day), Some(&day));
    assert_eq!(range.lower, Some(PrimitiveLiteral::Long(20_000 * DAY)));
    assert_eq!(range.upper, Some(PrimitiveLiteral::Long(20_001 * DAY - 1)));
    let month = PrimitiveLiteral::Int(1);
    let range = source_range(&Transform::Month, &PrimitiveType::Date, Some(&month), Some(&month));
    assert_eq!((range.lower, range.upper), (Some(PrimitiveLiteral::Int(31)), Some(PrimitiveLiteral::Int(58))));
    let text = PrimitiveLiteral::String("ab".into());
    let range = source_range(&Transform::Truncate(2), &PrimitiveType::String, Some(&text), Some(&text));
    assert_eq!(range.upper, Some(PrimitiveLiteral::String("ac".into())));
    let range = source_range(&Transform::Truncate(3), &PrimitiveType::String, Some(&text), Some(&text));
    assert_eq!(range.upper, Some(text), "a text shorter than the width is whole");
    assert_eq!(next_text("\u{10ffff}"), None);
    assert_eq!(next_text("a\u{d7ff}"), Some("a\u{e000}".into()), "surrogates are no characters");
}

#[test]
fn other_transforms_bound_nothing() {
    let bucket = PrimitiveLiteral::Int(3);
    for transform in [Transform::Bucket(16), Transform::Void, Transform::Unknown] {
        let range = source_range(&transform, &PrimitiveType::Long, Some(&bucket), Some(&bucket));
        assert_eq!(range, SourceRange::default());
    }
    let far = PrimitiveLiteral::Int(i32::MAX);
    let range = source_range(&Transform::Year, &PrimitiveType::Timestamp, Some(&far), Some(&far));
    assert_eq!(range, SourceRange::default(), "years that no timestamp reaches");
}

#[test]
fn buckets_are_those_of_the_specification() {
    // Appendix B of the specification hashes 34 to 2017239379.
    let values: ArrayRef = Arc::new(Int64Array::from(vec![34]));
    assert_eq!(buckets(16, &values).expect("hash").value(0), (2_017_239_379 & i32::MAX) % 16);
}
