//! Masks: what stands for a value that a reader may not see. The type of the column stays as it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::datatype::DataType;

/// How a column is masked, as `mask:` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mask {
    /// Nothing is masked: `none`.
    None,
    /// There is no value: `null`. The mask of a protected column that names none.
    Null,
    /// `***` for every text: `redact`.
    Redact,
    /// A keyed hash with the mesh's secret, the same for equal values: `hash`. Joins still work.
    Hash,
    /// The first and last characters, with as many `*` between as there are others: `partial`, `partial(1, 4)`. A text that is
    /// not longer than both together is all `*`.
    Partial {
        /// Characters at the start that are shown.
        first: u32,
        /// Characters at the end that are shown.
        last: u32,
    },
    /// The start of the period that a date or time lies in: `year`, `quarter`, `month`, `day`, `hour`.
    Truncate(Truncation),
    /// The lower end of a range of numbers: `bucket(10)`. The width is a decimal number greater than zero, as text.
    Bucket(String),
}

/// A period that times are truncated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// January the first.
    Year,
    /// The first day of January, April, July or October.
    Quarter,
    /// The first day of the month.
    Month,
    /// Midnight; with time zone, in UTC.
    Day,
    /// The full hour.
    Hour,
}

impl Truncation {
    /// Every period.
    pub const ALL: [Self; 5] = [Self::Year, Self::Quarter, Self::Month, Self::Day, Self::Hour];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Quarter => "quarter",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }
}

impl Mask {
    /// Reads the text of `mask:`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (word, arguments) = match text.split_once('(') {
            None => (text, None),
            Some((word, rest)) => {
                let Some(inner) = rest.strip_suffix(')') else { return Err(format!("`{text}` has no closing `)`")) };
                (word.trim(), Some(inner.split(',').map(str::trim).collect::<Vec<_>>()))
            }
        };
        let count = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is not a number of characters"));
        let simple = match word {
            "none" => Some(Self::None),
            "null" => Some(Self::Null),
            "redact" => Some(Self::Redact),
            "hash" => Some(Self::Hash),
            _ => Truncation::ALL.into_iter().find(|unit| unit.as_str() == word).map(Self::Truncate),
        };
        match (word, simple, arguments.as_deref()) {
            (_, Some(mask), None) => Ok(mask),
            (_, Some(_), Some(_)) => Err(format!("`{word}` takes nothing in parentheses")),
            ("partial", None, None) => Ok(Self::Partial { first: 0, last: 4 }),
            ("partial", None, Some([last])) => Ok(Self::Partial { first: 0, last: count(last)? }),
            ("partial", None, Some([first, last])) => Ok(Self::Partial { first: count(first)?, last: count(last)? }),
            ("bucket", None, Some([width])) => {
                let plain =
                    width.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
                if plain
                    && width.matches('.').count() <= 1
                    && width.len() <= 30
                    && width.bytes().any(|b| matches!(b, b'1'..=b'9'))
                {
                    Ok(Self::Bucket((*width).to_owned()))
                } else {
                    Err(format!("`{width}` is no width; write a number greater than zero, such as `bucket(10)`"))
                }
            }
            ("bucket", None, _) => Err("a bucket has one width, as in `bucket(10)`".to_owned()),
            ("partial", None, _) => {
                Err("write `partial(FIRST, LAST)`: how many characters are shown at each end".to_owned())
            }
            _ => Err(format!(
                "`{text}` is no mask; there are: none, null, redact, hash, partial(FIRST, LAST), year, quarter, month, day, hour, bucket(WIDTH)"
            )),
        }
    }

    /// Whether values of `data_type` can be masked so and keep their type.
    pub fn fits(&self, data_type: &DataType) -> bool {
        match self {
            Self::None | Self::Null => true,
            Self::Redact => matches!(data_type, DataType::String | DataType::Json),
            Self::Partial { .. } => matches!(data_type, DataType::String),
            Self::Hash => matches!(
                data_type,
                DataType::String | DataType::Json | DataType::Uuid | DataType::Binary | DataType::Int | DataType::Long
            ),
            Self::Truncate(Truncation::Hour) => matches!(data_type, DataType::Timestamp | DataType::TimestampNtz),
            Self::Truncate(_) => matches!(data_type, DataType::Date | DataType::Timestamp | DataType::TimestampNtz),
            Self::Bucket(width) => {
                let width: f64 = width.parse().unwrap_or_default();
                // A bucket of one value alone hides nothing.
                match data_type {
                    DataType::Int | DataType::Long => width > 1.0,
                    DataType::Float | DataType::Double => width > 0.0,
                    DataType::Decimal(_, scale) => width > 10_f64.powi(-i32::from(*scale)),
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Null => f.write_str("null"),
            Self::Redact => f.write_str("redact"),
            Self::Hash => f.write_str("hash"),
            Self::Partial { first, last } => write!(f, "partial({first}, {last})"),
            Self::Truncate(unit) => f.write_str(unit.as_str()),
            Self::Bucket(width) => write!(f, "bucket({width})"),
        }
    }
}

impl TryFrom<String> for Mask {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Mask> for String {
    fn from(mask: Mask) -> Self {
        mask.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written() {
        let same = [
            "none",
            "null",
            "redact",
            "hash",
            "partial(1, 4)",
            "year",
            "quarter",
            "month",
            "day",
            "hour",
            "bucket(10)",
            "bucket(0.5)",
        ];
        for text in same {
            assert_eq!(Mask::parse(text).map(|mask| mask.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Mask::parse("partial"), Ok(Mask::Partial { first: 0, last: 4 }));
        assert_eq!(Mask::parse(" partial( 2 ) "), Ok(Mask::Partial { first: 0, last: 2 }));
        for text in [
            "",
            "Hash",
            "hash(1)",
            "partial(-1)",
            "partial(a, b)",
            "partial(1, 2",
            "bucket",
            "bucket(0)",
            "bucket(0.00)",
            "bucket(1e3)",
            "bucket(.5)",
            "bucket(1.2.3)",
            "sha256",
        ] {
            assert!(Mask::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mask_keeps_the_type() {
        let fits = |mask: &str, data_type: &DataType| Mask::parse(mask).is_ok_and(|mask| mask.fits(data_type));
        assert!(fits("null", &DataType::Boolean) && fits("hash", &DataType::Long) && fits("month", &DataType::Date));
        assert!(
            !fits("hash", &DataType::Boolean) && !fits("redact", &DataType::Uuid) && !fits("hour", &DataType::Date)
        );
        assert!(fits("bucket(5)", &DataType::Double) && !fits("bucket(5)", &DataType::String));
    }
}
