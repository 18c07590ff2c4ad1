//! What one pass over data found out: plain facts, from which a contract can be drafted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contract::CsvOptions;
use crate::datatype::DataType;

/// The facts about a table or file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableProfile {
    /// Rows that could be read.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How the data is stored.
    pub origin: Origin,
    /// The columns, in order.
    pub columns: Vec<ValueProfile>,
    /// Records that cannot be read, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Columns that cannot be in a contract, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<(String, String)>,
    /// Pairs of columns that are unique together in the first rows, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<(String, String)>,
    /// How many first rows the pairs were looked for in.
    #[serde(skip)]
    pub pair_rows: u64,
}

/// How data is stored, as far as a contract cares.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "format")]
pub enum Origin {
    /// Delimited text, as detected.
    Csv(CsvOptions),
    /// JSON documents.
    Json,
    /// Typed columns.
    #[default]
    Typed,
}

/// Records that cannot be read for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// Why.
    pub why: String,
    /// How many.
    pub rows: u64,
    /// Line or row of the first, from 1.
    pub first: u64,
}

/// What a single value is, by its most specific reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// True or false.
    Boolean,
    /// Fits 64 bits.
    Integer,
    /// A number with a fraction, or a longer integer, without an exponent, of at most 38 digits.
    Decimal,
    /// Another number that a double reads.
    Double,
    /// A number that no type holds as it is written, where numbers are told from text.
    Number,
    /// A calendar day.
    Date,
    /// A time of day.
    Time,
    /// An instant.
    Timestamp,
    /// A local date and time.
    TimestampNtz,
    /// A UUID.
    Uuid,
    /// A JSON object or array as text.
    Json,
    /// Digits with leading zeros: a code, not a number.
    Code,
    /// Any other text.
    Text,
    /// Bytes.
    Bytes,
    /// An object or a map.
    Object,
    /// A list.
    List,
}

/// A sign that a text bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Sign {
    /// An e-mail address.
    Email,
    /// Has an e-mail address among other words.
    ContainsEmail,
    /// Has a telephone, card or account number or an IP address among other words.
    ContainsNumber,
    /// A telephone number.
    Phone,
    /// A payment card number that passes the Luhn check.
    Card,
    /// An IBAN that passes the mod-97 check.
    Iban,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// An absolute URI.
    Uri,
    /// A host name with a dot.
    Hostname,
    /// A date in another form than `YYYY-MM-DD`.
    ForeignDate,
}

/// The facts about the values of one column, field or item.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueProfile {
    /// The column's name; `item` for the items of a list, `value` for the values of a map.
    pub name: String,
    /// The type that the source declares; absent where it has only text or JSON.
    #[serde(serialize_with = "display_type", skip_serializing_if = "Option::is_none")]
    pub declared: Option<DataType>,
    /// Rows, or values of the parent.
    pub rows: u64,
    /// Of those, the ones without a value.
    pub nulls: u64,
    /// How the values read, with a few of each.
    pub classes: BTreeMap<Class, ClassProfile>,
    /// Texts that often stand for "no value", with where they stand; not in `classes`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub null_texts: BTreeMap<String, Occurrence>,
    /// How many values differ.
    pub distinct: u64,
    /// Whether `distinct` is exact; else estimated, within about 2 %.
    pub distinct_exact: bool,
    /// Whether no two values are the same; absent where it was not looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<bool>,
    /// The most frequent values, the first ones most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(String, u64)>,
    /// Whether `top` holds every value with its true count.
    #[serde(skip)]
    pub top_whole: bool,
    /// Whether the counts in `top` are true; else they are lower bounds.
    pub top_exact: bool,
    /// Least and greatest number of characters, bytes or items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lengths: Option<(u64, u64)>,
    /// Least and greatest value in the order of the type, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(String, String)>,
    /// Typed values that a contract's type holds only rounded: finer than a microsecond, dates with a time of day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inexact: Option<Occurrence>,
    /// Facts about numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<NumberProfile>,
    /// Values that bear a sign.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub signs: BTreeMap<Sign, u64>,
    /// The fields of objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<ValueProfile>,
    /// Whether the objects had more keys than are kept.
    #[serde(skip)]
    pub too_many_fields: bool,
    /// The items of lists, or the values of maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Box<ValueProfile>>,
}

fn display_type<S: serde::Serializer>(data_type: &Option<DataType>, serializer: S) -> Result<S::Ok, S::Error> {
    match data_type {
        Some(data_type) => serializer.collect_str(data_type),
        None => serializer.serialize_none(),
    }
}

impl ValueProfile {
    /// Values that are there and no text for "no value".
    pub fn values(&self) -> u64 {
        self.classes.values().map(|class| class.count).sum()
    }

    /// How many values read as `class`.
    pub fn count(&self, class: Class) -> u64 {
        self.classes.get(&class).map_or(0, |class| class.count)
    }

    /// How many values bear `sign`.
    pub fn bearing(&self, sign: Sign) -> u64 {
        self.signs.get(&sign).copied().unwrap_or(0)
    }
}

/// How often a text stands, and where first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Occurrence {
    /// How often.
    pub count: u64,
    /// Line or row of the first, from 1.
    pub first: u64,
}

/// Values of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassProfile {
    /// How many.
    pub count: u64,
    /// Some of them, with how often they stand and where first.
    #[serde(skip)]
    pub samples: Vec<(String, Occurrence)>,
}

/// How many different samples of a class are kept.
pub const SAMPLES_PER_CLASS: usize = 8;

/// Facts about numbers; dates and times count as days and microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberProfile {
    /// How many finite numbers.
    pub count: u64,
    /// NaN and infinities.
    pub not_finite: u64,
    /// Least.
    pub minimum: f64,
    /// Greatest.
    pub maximum: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (divided by n - 1), as the rule `standardDeviation` has it; absent for one number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// The values at 1, 5, 25, 50, 75, 95 and 99 percent, between two numbers interpolated as the rule `quantile` does.
    pub quantiles: Vec<f64>,
    /// Whether the quantiles are exact; else their ranks are within about 1 %.
    pub quantiles_exact: bool,
    /// Numbers in ten equally wide parts from least to greatest.
    pub histogram: Vec<u64>,
    /// Most digits before the decimal point.
    pub whole_digits: u8,
    /// Fewest digits after the decimal point, of those with a fraction.
    pub least_scale: u8,
    /// Most digits after the decimal point.
    pub greatest_scale: u8,
    /// Whether a double holds every number as it is written.
    pub fit_double: bool,
    /// Whether every number is whole.
    pub whole: bool,
}

/// Texts that often stand for "no value". Which of them do is decided once all values are known.
pub const NULL_TEXTS: [&str; 13] =
    ["NA", "N/A", "n/a", "na", "NULL", "null", "Null", "None", "none", "nan", "-", "\\N", "?"];
