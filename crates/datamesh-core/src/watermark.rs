//! Watermarks: how far an incremental pull has come.
//!
//! A pull reads the rows whose watermark column is greater than the last value. The next last value is the greatest one
//! of the rows seen, quarantined ones included, so that a quarantined row is not read again; only a row that broke a
//! rule of the watermark column itself does not count, because one absurd value there would hide every later row. Every
//! pull meets such a row again, and leaves it where the first one has put it.

use serde::{Deserialize, Serialize};

use crate::datatype::DataType;
use crate::error::{Error, ErrorCode, Result};
use crate::scalar::{self, Scalar};

/// How far the pulls of a table have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watermark {
    /// The column.
    pub column: String,
    /// The greatest value seen, as text of the column's type.
    pub value: String,
}

/// What a pull did with its watermark, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatermarkReport {
    /// The column.
    pub column: String,
    /// Only greater values were read; absent where everything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The last value for the next pull; absent where no row had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Rows that were parsed and left out because they are not newer. A database leaves them out itself, uncounted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Rows that earlier pulls held back and this one met again: they are neither held back nor published once more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_before: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether a column of this type can be a watermark: its values have one order, the same everywhere.
pub fn is_watermark_type(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int
            | DataType::Long
            | DataType::Decimal(..)
            | DataType::Date
            | DataType::Timestamp
            | DataType::TimestampNtz
            | DataType::String
    )
}

/// Where the next pull of a column starts, from the last publication.
///
/// # Errors
/// `incompatible-change` where the kept value belongs to another column, or is none of this type.
pub fn start(kept: Option<&Watermark>, table: &str, column: &str, data_type: &DataType) -> Result<Option<Watermark>> {
    let Some(kept) = kept else { return Ok(None) };
    let help = "run it once with `--full` to read everything again; with `write: append` rows may then be there twice";
    if kept.column != column {
        return Err(Error::new(
            ErrorCode::IncompatibleChange,
            format!(
                "table `{table}` was pulled by watermark `{}`, so where to start by `{column}` is not known",
                kept.column
            ),
        )
        .with_help(help));
    }
    if scalar::parse(&kept.value, data_type).is_err() {
        return Err(Error::new(
            ErrorCode::IncompatibleChange,
            format!("the last value of watermark `{column}` of table `{table}`, `{}`, is no {data_type}", kept.value),
        )
        .with_help(help));
    }
    Ok(Some(kept.clone()))
}

/// The greater of two scalars of one type. Texts compare by their bytes.
pub fn greater(a: Scalar, b: Scalar) -> Scalar {
    let less = match (&a, &b) {
        (Scalar::Integer(a), Scalar::Integer(b)) => a < b,
        (Scalar::Decimal(a), Scalar::Decimal(b)) => a < b,
        (Scalar::Text(a), Scalar::Text(b)) => a < b,
        _ => false,
    };
    if less { b } else { a }
}

/// A scalar as the text that [`scalar::parse`] reads back.
pub fn text(scalar: &Scalar, data_type: &DataType) -> Option<String> {
    Some(match (scalar, data_type) {
        (Scalar::Text(text), _) => text.clone(),
        (Scalar::Integer(value), DataType::Int | DataType::Long) => value.to_string(),
        (Scalar::Integer(days), DataType::Date) => {
            instant(days.checked_mul(86_400_000_000)?)?.format("%Y-%m-%d").to_string()
        }
        (Scalar::Integer(micros), DataType::Timestamp) => {
            instant(*micros)?.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
        }
        (Scalar::Integer(micros), DataType::TimestampNtz) => {
            instant(*micros)?.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
        }
        (Scalar::Decimal(unscaled), DataType::Decimal(_, scale)) => decimal(*unscaled, *scale),
        _ => return None,
    })
}

fn instant(micros: i64) -> Option<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::from_timestamp_micros(micros)
}

fn decimal(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(data_type: &str, text: &str) {
        let data_type = DataType::parse(data_type).expect("a type");
        let scalar = scalar::parse(text, &data_type).expect("a value");
        let shown = super::text(&scalar, &data_type).expect("a text");
        assert_eq!(scalar::parse(&shown, &data_type), Ok(scalar), "{text} -> {shown}");
    }

    #[test]
    fn texts_are_read_back() {
        for (data_type, text) in [
            ("int", "-5"),
            ("long", "-9223372036854775808"),
            ("decimal(38,10)", "-0.0000000001"),
            ("decimal(5,0)", "0"),
            ("date", "0001-01-01"),
            ("date", "9999-12-31"),
            ("timestamp", "1969-12-31T23:59:59.999999Z"),
            ("timestamp_ntz", "2024-02-29T00:00:00.000001"),
            ("string", "µ, 'quoted'"),
        ] {
            check(data_type, text);
        }
    }

    #[test]
    fn another_column_or_type_is_no_start() {
        let kept = Watermark { column: "a".into(), value: "2024-01-01".into() };
        assert_eq!(start(None, "t", "a", &DataType::Date).ok(), Some(None));
        assert!(start(Some(&kept), "t", "a", &DataType::Date).is_ok_and(|start| start == Some(kept.clone())));
        assert!(start(Some(&kept), "t", "b", &DataType::Date).is_err());
        assert!(start(Some(&kept), "t", "a", &DataType::Long).is_err());
    }

    proptest! {
        #[test]
        fn decimals_and_instants_round_trip(unscaled in -10_i128.pow(37)..10_i128.pow(37), micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let decimal = DataType::Decimal(38, 7);
            let shown = super::text(&Scalar::Decimal(unscaled), &decimal).expect("a text");
            prop_assert_eq!(scalar::parse(&shown, &decimal), Ok(Scalar::Decimal(unscaled)));
            let shown = super::text(&Scalar::Integer(micros), &DataType::Timestamp).expect("a text");
            prop_assert_eq!(scalar::parse(&shown, &DataType::Timestamp), Ok(Scalar::Integer(micros)));
        }
    }
}
