//! One pass over values of any kind, in bounded memory, to the facts of `datamesh_core::profile`.
//!
//! Text is read with `datamesh_core::scalar`, as a publication reads it: what fits here fits there.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, kernels::cmp};
use arrow::datatypes::{
    DataType as Arrow, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, Schema, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use datamesh_core::profile::{
    Class, ClassProfile, Fault, NULL_TEXTS, NumberProfile, Occurrence, Origin, SAMPLES_PER_CLASS, Sign, TableProfile,
    ValueProfile,
};
use datamesh_core::{Column, DataType, Error, ErrorCode, Result, scalar};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::detect;
use crate::sketch::{Added, DistinctCounter, Quantiles, TopValues};
use crate::values::shorten;

/// The most frequent values that are kept of a column.
const TOP_VALUES: usize = 1000;
/// How many of them a profile tells.
const TOP_SHOWN: usize = 200;
/// Keys of JSON objects that are told apart; more are no fields but the keys of a map.
const MAX_FIELDS: usize = 200;
/// Distinct values counted exactly in all columns together.
const EXACT_DISTINCT: usize = 2 << 20;
/// Columns whose uniqueness is followed beyond what memory counts exactly.
const KEY_COLUMNS: usize = 8;
/// First rows in which pairs of columns are tried as keys, and how many columns.
const PAIR_ROWS: usize = 20_000;
const PAIR_COLUMNS: usize = 64;
/// Kinds of unreadable records that are told apart.
const MAX_FAULTS: usize = 20;

/// Proves or refutes that hashes are all different, in bounded memory.
pub trait KeySink: Send {
    /// Adds a hash.
    fn push(&mut self, hash: u128) -> Result<()>;
    /// Whether no hash was added twice.
    fn finish(self: Box<Self>) -> Result<bool>;
}

/// Makes a sink for another column.
pub type KeySinks = Box<dyn FnMut() -> Box<dyn KeySink> + Send>;

/// How values are written in their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Cells of delimited text: numbers are text too, an empty cell is null.
    Cells,
    /// JSON: numbers, booleans and texts are of different kinds.
    Json,
    /// Typed columns.
    Typed,
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// Text.
    Text(&'a str),
    /// A JSON number as written.
    Number(&'a str),
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A 32-bit number.
    Float(f32),
    /// A 64-bit number.
    Double(f64),
    /// An unscaled decimal with its scale.
    Decimal(i128, i8),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since the epoch; whether it is an instant.
    Timestamp(i64, bool),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// How a text reads.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    class: Class,
    /// The value on a line: the number, days, microseconds.
    number: f64,
    /// For times the exact value.
    micros: i64,
    whole_digits: u8,
    scale: u8,
    fits_double: bool,
}

impl Reading {
    fn of(class: Class) -> Self {
        Self { class, number: 0.0, micros: 0, whole_digits: 0, scale: 0, fits_double: true }
    }
}

/// Reads a cell of delimited text by its most specific class.
fn classify(text: &str) -> Reading {
    let bytes = text.as_bytes();
    let first = bytes.first().copied().unwrap_or(b' ');
    if (first.is_ascii_digit() || matches!(first, b'-' | b'.'))
        && let Some(reading) = number(text)
    {
        return reading;
    }
    match first {
        b't' | b'T' | b'f' | b'F' if scalar::boolean(text).is_some() => return Reading::of(Class::Boolean),
        b'N' | b'I' | b'-' if matches!(text, "NaN" | "Infinity" | "-Infinity") => {
            let number = scalar::double(text).unwrap_or(f64::NAN);
            return Reading { number, ..Reading::of(Class::Double) };
        }
        b'{' | b'[' if serde_json::from_str::<IgnoredAny>(text).is_ok() => return Reading::of(Class::Json),
        _ => {}
    }
    classify_words(text)
}

/// Reads what JSON writes as a string, or a typed text column holds: dates, times and identifiers.
fn classify_words(text: &str) -> Reading {
    let bytes = text.as_bytes();
    if bytes.len() == 36 && scalar::is_uuid(text) {
        return Reading::of(Class::Uuid);
    }
    if bytes.first().is_some_and(u8::is_ascii_digit) {
        let at = |class, micros: i64| Reading { number: micros as f64, micros, ..Reading::of(class) };
        if let Some(days) = scalar::date(text) {
            return at(Class::Date, days.into());
        }
        if let Some(micros) = scalar::timestamp_ntz(text) {
            return at(Class::TimestampNtz, micros);
        }
        if let Some(micros) = scalar::timestamp(text) {
            return at(Class::Timestamp, micros);
        }
        if let Some(micros) = bytes.contains(&b':').then(|| scalar::time(text)).flatten() {
            return at(Class::Time, micros);
        }
    }
    Reading::of(Class::Text)
}

/// Reads a number; `None` where the text is none, or none that any type would keep as it is.
fn number(text: &str) -> Option<Reading> {
    let body = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], true),
        None => (body, false),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) || (whole.is_empty() && fraction.is_none_or(str::is_empty)) {
        return None;
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return (!exponent && text.len() == body.len()).then(|| Reading::of(Class::Code));
    }
    let value = scalar::double(text)?;
    let significant = whole.trim_start_matches('0').len() + fraction.map_or(0, str::len);
    let fits_double = significant <= 15 || same_digits(mantissa, value);
    let reading = |class| Reading {
        number: value,
        whole_digits: whole.trim_start_matches('0').len().min(255) as u8,
        scale: fraction.map_or(0, str::len).min(255) as u8,
        fits_double,
        ..Reading::of(class)
    };
    if exponent || fraction.is_some_and(str::is_empty) || text == "-0" {
        return fits_double.then(|| reading(Class::Double));
    }
    if fraction.is_none() && scalar::long(text).is_some() {
        return Some(reading(Class::Integer));
    }
    if whole.len() + fraction.map_or(0, str::len) <= 38 {
        return Some(reading(Class::Decimal));
    }
    fits_double.then(|| reading(Class::Double))
}

/// Whether the shortest way to write `value` has the digits of `mantissa`: then a double loses none of them.
fn same_digits(mantissa: &str, value: f64) -> bool {
    let bare = |text: &str| {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.trim_start_matches('0').trim_end_matches('0').to_owned()
    };
    let shortest = format!("{value:e}");
    let digits = shortest.split('e').next().unwrap_or(&shortest);
    bare(digits) == bare(mantissa)
}

/// Numbers on a line: count, range, moments, quantiles.
#[derive(Debug, Default)]
struct NumberState {
    count: u64,
    not_finite: u64,
    least: Option<(f64, String)>,
    greatest: Option<(f64, String)>,
    mean: f64,
    squares: f64,
    quantiles: Quantiles,
    whole_digits: u8,
    least_scale: Option<u8>,
    greatest_scale: u8,
    loses: bool,
    fraction: bool,
}

impl NumberState {
    fn add(&mut self, reading: &Reading, text: impl Fn() -> String) {
        let value = reading.number;
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.count += 1;
        // Welford's way to keep the variance.
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
        self.quantiles.add(value);
        if self.least.as_ref().is_none_or(|(least, _)| value < *least) {
            self.least = Some((value, text()));
        }
        if self.greatest.as_ref().is_none_or(|(greatest, _)| value > *greatest) {
            self.greatest = Some((value, text()));
        }
        self.whole_digits = self.whole_digits.max(reading.whole_digits);
        if reading.scale > 0 {
            self.least_scale = Some(self.least_scale.map_or(reading.scale, |least| least.min(reading.scale)));
        }
        self.greatest_scale = self.greatest_scale.max(reading.scale);
        self.loses |= !reading.fits_double;
        self.fraction |= value.fract() != 0.0;
    }

    fn finish(self) -> Option<NumberProfile> {
        let (Some((minimum, _)), Some((maximum, _))) = (&self.least, &self.greatest) else { return None };
        Some(NumberProfile {
            count: self.count,
            not_finite: self.not_finite,
            minimum: *minimum,
            maximum: *maximum,
            mean: self.mean,
            deviation: (self.count > 1).then(|| (self.squares / (self.count - 1) as f64).sqrt()),
            quantiles: self.quantiles.at(&[0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]),
            quantiles_exact: self.quantiles.is_exact(),
            histogram: self.quantiles.histogram(*minimum, *maximum, 10),
            whole_digits: self.whole_digits,
            least_scale: self.least_scale.unwrap_or(0),
            greatest_scale: self.greatest_scale,
            fit_double: !self.loses,
            whole: !self.fraction,
        })
    }
}

/// Follows the values of one column, field or item.
pub struct ValueProfiler {
    name: String,
    style: Style,
    declared: Option<DataType>,
    exact: usize,
    rows: u64,
    nulls: u64,
    classes: BTreeMap<Class, ClassProfile>,
    null_texts: BTreeMap<&'static str, Occurrence>,
    distinct: DistinctCounter,
    unique: Unique,
    top: TopValues<String>,
    lengths: Option<(u64, u64)>,
    texts: Option<(String, String)>,
    numbers: NumberState,
    times: NumberState,
    signs: BTreeMap<Sign, u64>,
    inexact: Option<Occurrence>,
    fields: Vec<ValueProfiler>,
    by_name: HashMap<String, usize>,
    too_many_fields: bool,
    items: Option<Box<ValueProfiler>>,
    /// Hash of the value added last; 0 for null.
    last: u64,
}

/// What is known of a column's uniqueness.
enum Unique {
    /// No value came twice so far, and all are in memory.
    SoFar,
    /// No value came twice while they were in memory; now a sink follows them.
    Followed(Box<dyn KeySink>),
    /// A value came twice.
    No,
    /// Nobody looked.
    Unknown,
}

impl ValueProfiler {
    fn new(name: &str, style: Style, declared: Option<DataType>, exact: usize) -> Self {
        Self {
            name: name.to_owned(),
            style,
            declared,
            exact,
            rows: 0,
            nulls: 0,
            classes: BTreeMap::new(),
            null_texts: BTreeMap::new(),
            distinct: DistinctCounter::new(exact),
            unique: Unique::SoFar,
            top: TopValues::new(TOP_VALUES),
            lengths: None,
            texts: None,
            numbers: NumberState::default(),
            times: NumberState::default(),
            signs: BTreeMap::new(),
            inexact: None,
            fields: Vec::new(),
            by_name: HashMap::new(),
            too_many_fields: false,
            items: None,
            last: 0,
        }
    }

    /// Adds a value. `sinks` gives room to follow another key, where there is some left.
    fn add(&mut self, cell: Cell<'_>, position: u64, sinks: &mut Sinks) -> Result<()> {
        self.rows += 1;
        self.last = 0;
        let (reading, hash) = match cell {
            Cell::Null => {
                self.nulls += 1;
                return Ok(());
            }
            Cell::Text("") if self.style == Style::Cells => {
                self.nulls += 1;
                return Ok(());
            }
            Cell::Text(text) => {
                if self.style == Style::Cells
                    && let Some(known) = NULL_TEXTS.iter().find(|known| **known == text)
                {
                    let seen = self.null_texts.entry(known).or_insert(Occurrence { count: 0, first: position });
                    seen.count += 1;
                    return Ok(());
                }
                let reading = if self.style == Style::Cells { classify(text) } else { typed_text(text) };
                self.add_text(text);
                let hash = match reading.class {
                    Class::Uuid => XxHash3_128::oneshot(text.to_ascii_lowercase().as_bytes()),
                    Class::Time | Class::Timestamp | Class::TimestampNtz => {
                        XxHash3_128::oneshot_with_seed(reading.class as u64, &reading.micros.to_le_bytes())
                    }
                    _ => XxHash3_128::oneshot(text.as_bytes()),
                };
                (reading, hash)
            }
            Cell::Number(text) => {
                let reading = number(text).unwrap_or_else(|| Reading::of(Class::Number));
                (reading, XxHash3_128::oneshot(text.as_bytes()))
            }
            Cell::Boolean(value) => (Reading::of(Class::Boolean), u128::from(value) + 1),
            Cell::Integer(value) => {
                let whole_digits = value.unsigned_abs().checked_ilog10().map_or(0, |digits| digits as u8 + 1);
                let fits_double = value.unsigned_abs() <= 1 << 53;
                let number = value as f64;
                let reading = Reading { number, whole_digits, fits_double, ..Reading::of(Class::Integer) };
                (reading, XxHash3_128::oneshot(&value.to_le_bytes()))
            }
            Cell::Float(value) => {
                let reading = Reading { number: value.into(), ..Reading::of(Class::Double) };
                (reading, XxHash3_128::oneshot(&value.to_le_bytes()))
            }
            Cell::Double(value) => {
                (Reading { number: value, ..Reading::of(Class::Double) }, XxHash3_128::oneshot(&value.to_le_bytes()))
            }
            Cell::Decimal(value, scale) => {
                let number = value as f64 / 10_f64.powi(scale.into());
                let reading = Reading { number, scale: scale.max(0) as u8, ..Reading::of(Class::Decimal) };
                (reading, XxHash3_128::oneshot(&value.to_le_bytes()))
            }
            Cell::Date(days) => {
                let reading = Reading { number: days.into(), micros: days.into(), ..Reading::of(Class::Date) };
                (reading, XxHash3_128::oneshot(&days.to_le_bytes()))
            }
            Cell::Time(micros) => time_reading(Class::Time, micros),
            Cell::Timestamp(micros, instant) => {
                time_reading(if instant { Class::Timestamp } else { Class::TimestampNtz }, micros)
            }
            Cell::Bytes(bytes) => {
                self.measure(bytes.len() as u64);
                (Reading::of(Class::Bytes), XxHash3_128::oneshot(bytes))
            }
        };
        self.last = (hash as u64).max(1);
        // A text of digits was looked at; of other numbers only long ones without a fraction may be a card's.
        if matches!(reading.class, Class::Integer | Class::Decimal | Class::Double)
            && (1e12..1e19).contains(&reading.number)
            && reading.number.fract() == 0.0
            && !matches!(cell, Cell::Text(text) if !text.contains('.'))
            && text_of(&cell).split('.').next().is_some_and(detect::is_card)
        {
            *self.signs.entry(Sign::Card).or_default() += 1;
        }
        let class = self.classes.entry(reading.class).or_default();
        class.count += 1;
        // Samples name what does not fit, which among typed values hardly anything does not.
        if matches!(cell, Cell::Text(_) | Cell::Number(_)) || class.samples.is_empty() {
            let text = text_of(&cell);
            let room = class.samples.len() < SAMPLES_PER_CLASS;
            match class.samples.iter_mut().find(|(sample, _)| *sample == *text) {
                Some((_, seen)) => seen.count += 1,
                None if room => class.samples.push((text.into_owned(), Occurrence { count: 1, first: position })),
                None => {}
            }
        }
        match reading.class {
            Class::Integer | Class::Decimal | Class::Double => {
                self.numbers.add(&reading, || text_of(&cell).into_owned());
            }
            Class::Date | Class::Time | Class::Timestamp | Class::TimestampNtz => {
                self.times.add(&reading, || text_of(&cell).into_owned());
            }
            _ => {}
        }
        self.top.add(hash, || shorten(&text_of(&cell)));
        self.follow(hash, sinks)
    }

    fn follow(&mut self, hash: u128, sinks: &mut Sinks) -> Result<()> {
        match self.distinct.add(hash) {
            Added::New => {}
            Added::Known => self.unique = Unique::No,
            Added::Overflow(hashes) => {
                if matches!(self.unique, Unique::SoFar) {
                    self.unique = match sinks.take(self.may_be_key()) {
                        Some(mut sink) => {
                            hashes.into_iter().try_for_each(|hash| sink.push(hash))?;
                            Unique::Followed(sink)
                        }
                        None => Unique::Unknown,
                    };
                }
            }
            Added::Unsure => {
                if let Unique::Followed(sink) = &mut self.unique {
                    sink.push(hash)?;
                }
            }
        }
        Ok(())
    }

    /// Numbers with a fraction are no keys.
    fn may_be_key(&self) -> bool {
        !self.classes.keys().any(|class| {
            matches!(class, Class::Double | Class::Decimal | Class::Json | Class::Bytes | Class::Object | Class::List)
        })
    }

    fn add_text(&mut self, text: &str) {
        self.measure(text.chars().count() as u64);
        match &mut self.texts {
            None => self.texts = Some((shorten(text), shorten(text))),
            Some((least, greatest)) => {
                if text < least.as_str() {
                    *least = shorten(text);
                } else if text > greatest.as_str() {
                    *greatest = shorten(text);
                }
            }
        }
        detect::signs(text, |sign| *self.signs.entry(sign).or_default() += 1);
    }

    /// Counts a value that its contract type holds only rounded.
    fn add_inexact(&mut self, position: u64) {
        self.inexact.get_or_insert(Occurrence { count: 0, first: position }).count += 1;
    }

    fn measure(&mut self, length: u64) {
        self.lengths = Some(match self.lengths {
            None => (length, length),
            Some((least, greatest)) => (least.min(length), greatest.max(length)),
        });
    }

    /// Counts an object or list; its parts are added by the caller.
    fn add_nested(&mut self, class: Class, length: u64) {
        self.rows += 1;
        self.last = 0;
        self.unique = Unique::No;
        self.classes.entry(class).or_default().count += 1;
        if class == Class::List {
            self.measure(length);
        }
    }

    fn field(&mut self, name: &str) -> Option<&mut ValueProfiler> {
        if let Some(at) = self.by_name.get(name) {
            return self.fields.get_mut(*at);
        }
        if self.fields.len() >= MAX_FIELDS {
            self.too_many_fields = true;
            return None;
        }
        // The fields of the table itself, which has no name, are its columns.
        let exact = if self.name.is_empty() { self.exact } else { self.exact.min(1024) };
        self.by_name.insert(name.to_owned(), self.fields.len());
        self.fields.push(ValueProfiler::new(name, self.style, None, exact));
        self.fields.last_mut()
    }

    fn item(&mut self, name: &str, declared: Option<DataType>) -> &mut ValueProfiler {
        let (style, exact) = (self.style, self.exact.min(1024));
        self.items.get_or_insert_with(|| Box::new(ValueProfiler::new(name, style, declared, exact)))
    }

    /// Adds a JSON value.
    fn add_json(&mut self, raw: &RawValue, position: u64, depth: usize, sinks: &mut Sinks) -> Result<()> {
        let text = raw.get();
        let broken = |error: serde_json::Error| {
            Error::new(ErrorCode::Internal, "a JSON value cannot be read again").with_source(error)
        };
        match text.as_bytes().first() {
            Some(b'{') if depth < MAX_DEPTH => {
                let object: Entries<'_> = serde_json::from_str(text).map_err(broken)?;
                self.add_nested(Class::Object, object.0.len() as u64);
                for (name, value) in object.0 {
                    if let Some(field) = self.field(&name) {
                        field.add_json(value, position, depth + 1, sinks)?;
                    }
                }
                Ok(())
            }
            Some(b'[') if depth < MAX_DEPTH => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(broken)?;
                self.add_nested(Class::List, items.len() as u64);
                for value in items {
                    self.item("item", None).add_json(value, position, depth + 1, sinks)?;
                }
                Ok(())
            }
            Some(b'{' | b'[') => {
                self.add_nested(Class::Json, 0);
                Ok(())
            }
            Some(b'n') => self.add(Cell::Null, position, sinks),
            Some(b't' | b'f') => self.add(Cell::Boolean(text == "true"), position, sinks),
            Some(b'"') => {
                let text: String = serde_json::from_str(text).map_err(broken)?;
                self.add(Cell::Text(&text), position, sinks)
            }
            _ => self.add(Cell::Number(text), position, sinks),
        }
    }

    fn finish(mut self, total: u64) -> Result<ValueProfile> {
        // A key that an object does not have is as good as null.
        self.nulls += total.saturating_sub(self.rows);
        self.rows = self.rows.max(total);
        let unique = match self.unique {
            Unique::SoFar => Some(self.rows > 0),
            Unique::Followed(sink) => Some(sink.finish()?),
            Unique::No => Some(false),
            Unique::Unknown => None,
        };
        let objects = self.classes.get(&Class::Object).map_or(0, |class| class.count);
        let (distinct, distinct_exact) = self.distinct.count();
        let top_whole = self.top.is_exact();
        let mut top = self.top.into_sorted(Clone::clone);
        let complete = top_whole && top.len() <= TOP_SHOWN;
        top.truncate(TOP_SHOWN);
        let main = if self.numbers.count >= self.times.count { self.numbers } else { self.times };
        let range = match (&main.least, &main.greatest) {
            (Some((_, least)), Some((_, greatest))) if main.count + main.not_finite > 0 => {
                Some((least.clone(), greatest.clone()))
            }
            _ => self.texts,
        };
        let fields = self.fields.into_iter().map(|field| field.finish(objects)).collect::<Result<_>>()?;
        Ok(ValueProfile {
            name: self.name,
            declared: self.declared,
            rows: self.rows,
            nulls: self.nulls,
            classes: self.classes,
            null_texts: self.null_texts.into_iter().map(|(text, seen)| (text.to_owned(), seen)).collect(),
            distinct,
            distinct_exact,
            unique,
            top,
            top_whole: complete,
            top_exact: top_whole,
            lengths: self.lengths,
            range,
            inexact: self.inexact,
            numbers: main.finish(),
            signs: self.signs,
            fields,
            too_many_fields: self.too_many_fields,
            items: match self.items {
                Some(items) => {
                    let rows = items.rows;
                    Some(Box::new(items.finish(rows)?))
                }
                None => None,
            },
        })
    }
}

/// JSON deeper than this is kept as a document.
const MAX_DEPTH: usize = 16;

fn time_reading(class: Class, micros: i64) -> (Reading, u128) {
    let reading = Reading { number: micros as f64, micros, ..Reading::of(class) };
    (reading, XxHash3_128::oneshot_with_seed(class as u64, &micros.to_le_bytes()))
}

/// Text of a JSON string or a typed column: it may be a date, but digits stay text.
fn typed_text(text: &str) -> Reading {
    match text.as_bytes().first() {
        Some(b'{' | b'[') if serde_json::from_str::<IgnoredAny>(text).is_ok() => Reading::of(Class::Json),
        _ => classify_words(text),
    }
}

fn text_of<'a>(cell: &Cell<'a>) -> std::borrow::Cow<'a, str> {
    use std::borrow::Cow;
    match *cell {
        Cell::Null => Cow::Borrowed(""),
        Cell::Text(text) | Cell::Number(text) => Cow::Borrowed(text),
        Cell::Boolean(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Cell::Integer(value) => Cow::Owned(value.to_string()),
        Cell::Float(value) => Cow::Owned(value.to_string()),
        Cell::Double(value) => Cow::Owned(value.to_string()),
        Cell::Decimal(value, scale) => Cow::Owned(decimal_text(value, scale)),
        Cell::Date(days) => Cow::Owned(scalar::date_text(days.into())),
        Cell::Time(micros) => Cow::Owned(scalar::time_text(micros)),
        Cell::Timestamp(micros, instant) => Cow::Owned(scalar::timestamp_text(micros, instant)),
        Cell::Bytes(bytes) => Cow::Owned(format!("{} bytes", bytes.len())),
    }
}

fn decimal_text(value: i128, scale: i8) -> String {
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    match usize::try_from(scale) {
        Ok(0) | Err(_) => format!("{sign}{digits}{}", "0".repeat(usize::from(scale.min(0).unsigned_abs()))),
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
    }
}

/// A JSON object as its entries, in order; of a key given twice both.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> serde::de::Visitor<'de> for EntriesVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom("a key is given twice"));
                    }
                    entries.push((name, value));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}

/// Gives out a few sinks for keys.
struct Sinks {
    make: KeySinks,
    left: usize,
}

impl Sinks {
    fn take(&mut self, wanted: bool) -> Option<Box<dyn KeySink>> {
        if !wanted || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some((self.make)())
    }
}

/// Follows a whole table.
pub struct TableProfiler {
    style: Style,
    columns: ValueProfiler,
    rows: u64,
    faults: Vec<Fault>,
    left_out: Vec<(String, String)>,
    /// For each of the first columns the hashes of the first rows.
    first: Vec<Vec<u64>>,
    sinks: Sinks,
}

impl TableProfiler {
    /// A profiler of rows whose columns are found out while reading: JSON objects.
    pub fn of_json(sinks: KeySinks) -> Self {
        Self::new(Style::Json, sinks, 64)
    }

    /// A profiler of text cells, with the names of their columns.
    pub fn of_cells(names: &[String], sinks: KeySinks) -> Self {
        let mut profiler = Self::new(Style::Cells, sinks, names.len());
        let exact = profiler.columns.exact;
        profiler.columns.fields =
            names.iter().map(|name| ValueProfiler::new(name, Style::Cells, None, exact)).collect();
        profiler
    }

    /// A profiler of typed columns. Columns of types that no contract has are left out.
    pub fn of_schema(schema: &Schema, sinks: KeySinks) -> Self {
        let mut profiler = Self::new(Style::Typed, sinks, schema.fields().len());
        let exact = profiler.columns.exact;
        for field in schema.fields() {
            match declared_type(field.data_type()) {
                Ok(data_type) => {
                    profiler.columns.fields.push(ValueProfiler::new(field.name(), Style::Typed, Some(data_type), exact))
                }
                Err(why) => profiler.left_out.push((field.name().clone(), why)),
            }
        }
        profiler
    }

    fn new(style: Style, sinks: KeySinks, columns: usize) -> Self {
        let exact = (EXACT_DISTINCT / columns.max(1)).clamp(1 << 10, 1 << 16);
        Self {
            style,
            columns: ValueProfiler::new("", style, None, exact),
            rows: 0,
            faults: Vec::new(),
            left_out: Vec::new(),
            first: Vec::new(),
            sinks: Sinks { make: sinks, left: KEY_COLUMNS },
        }
    }

    /// Leaves a column out, with the reason.
    pub fn leave_out(&mut self, name: &str, why: &str) {
        self.left_out.push((name.to_owned(), why.to_owned()));
    }

    /// Counts a record that cannot be read.
    pub fn add_fault(&mut self, why: &str, position: u64) {
        let room = self.faults.len() < MAX_FAULTS;
        match self.faults.iter().position(|fault| fault.why == why) {
            Some(at) => self.faults[at].rows += 1,
            None if room => self.faults.push(Fault { why: why.to_owned(), rows: 1, first: position }),
            None => {
                if let Some(last) = self.faults.last_mut() {
                    last.rows += 1;
                }
            }
        }
    }

    /// Adds a JSON object.
    ///
    /// # Errors
    /// Says why the text is none.
    pub fn add_object(&mut self, record: &str, position: u64) -> Result<Result<(), String>> {
        let entries: Entries<'_> = match serde_json::from_str(record) {
            Ok(entries) => entries,
            Err(error) if error.classify() == serde_json::error::Category::Data => {
                let twice = error.to_string().starts_with("a key is given twice");
                let why = if twice { "the record gives a key twice" } else { "the record is not a JSON object" };
                return Ok(Err(why.to_owned()));
            }
            Err(_) => return Ok(Err("the record is not JSON".to_owned())),
        };
        self.rows += 1;
        self.columns.fields.iter_mut().for_each(|column| column.last = 0);
        for (name, value) in entries.0 {
            if let Some(field) = self.columns.field(&name) {
                field.add_json(value, position, 0, &mut self.sinks)?;
            }
        }
        self.remember();
        Ok(Ok(()))
    }

    /// Adds a batch whose first columns are those of the profiler, by position; `positions` gives each row's place.
    pub fn add_batch(&mut self, batch: &RecordBatch, rows: &[usize], positions: &dyn Fn(usize) -> u64) -> Result<()> {
        self.rows += rows.len() as u64;
        let remember = self.first_rows() < PAIR_ROWS;
        let start = self.first_rows();
        let by_name: Vec<Option<ArrayRef>> =
            self.columns.fields.iter().map(|column| batch.column_by_name(&column.name).cloned()).collect();
        for (at, (column, array)) in self.columns.fields.iter_mut().zip(by_name).enumerate() {
            let Some(array) = array else { continue };
            let mut first = (remember && at < PAIR_COLUMNS).then(Vec::new);
            feed(column, &array, rows, positions, &mut self.sinks, &mut first)?;
            if let Some(hashes) = first {
                if self.first.len() <= at {
                    self.first.resize(at + 1, vec![0; start]);
                }
                self.first[at].extend(hashes.into_iter().take(PAIR_ROWS - start));
            }
        }
        Ok(())
    }

    fn first_rows(&self) -> usize {
        self.first.first().map_or(0, Vec::len)
    }

    /// Keeps the hashes of the first rows.
    fn remember(&mut self) {
        let known = self.rows as usize - 1;
        if known >= PAIR_ROWS {
            return;
        }
        for (at, column) in self.columns.fields.iter().take(PAIR_COLUMNS).enumerate() {
            if self.first.len() <= at {
                self.first.push(vec![0; known]);
            }
            self.first[at].push(column.last);
        }
    }

    /// The facts.
    pub fn finish(self, bytes: u64, origin: Origin) -> Result<TableProfile> {
        let rows = self.rows;
        let columns: Vec<ValueProfile> =
            self.columns.fields.into_iter().map(|column| column.finish(rows)).collect::<Result<_>>()?;
        let mut left_out = self.left_out;
        if self.columns.too_many_fields {
            left_out.push(("…".to_owned(), format!("more than {MAX_FIELDS} different keys")));
        }
        let any = columns.iter().any(|column| column.unique == Some(true) && column.nulls == 0);
        let pairs = if any || rows < 2 || self.style == Style::Json && columns.len() < 2 {
            Vec::new()
        } else {
            pairs(&columns, &self.first)
        };
        let pair_rows = self.first.first().map_or(0, Vec::len) as u64;
        Ok(TableProfile { rows, bytes, origin, columns, faults: self.faults, left_out, pairs, pair_rows })
    }
}

/// Pairs of columns that are unique together in the first rows. Tried on the columns that differ most.
fn pairs(columns: &[ValueProfile], first: &[Vec<u64>]) -> Vec<(String, String)> {
    let number = |column: &ValueProfile| column.count(Class::Double) + column.count(Class::Decimal) > 0;
    let mut usable: Vec<usize> = (0..columns.len().min(first.len()))
        .filter(|at| columns[*at].nulls == 0 && columns[*at].distinct > 1 && !number(&columns[*at]))
        .filter(|at| !first[*at].contains(&0))
        .collect();
    usable.sort_by_key(|at| std::cmp::Reverse(columns[*at].distinct));
    usable.truncate(10);
    let mut found = Vec::new();
    for (place, a) in usable.iter().enumerate() {
        for b in &usable[place + 1..] {
            if columns[*a].distinct.saturating_mul(columns[*b].distinct) < columns[*a].rows {
                continue;
            }
            let mut seen = HashSet::new();
            let rows = first[*a].len().min(first[*b].len());
            let unique = (0..rows).all(|row| {
                let mut key = [0_u8; 16];
                key[..8].copy_from_slice(&first[*a][row].to_le_bytes());
                key[8..].copy_from_slice(&first[*b][row].to_le_bytes());
                seen.insert(XxHash3_64::oneshot(&key))
            });
            if unique && rows > 1 {
                let (left, right) = (*a.min(b), *a.max(b));
                found.push((columns[left].name.clone(), columns[right].name.clone()));
            }
        }
    }
    found.truncate(3);
    found
}

/// Adds the values of an array.
fn feed(
    profiler: &mut ValueProfiler,
    array: &ArrayRef,
    rows: &[usize],
    positions: &dyn Fn(usize) -> u64,
    sinks: &mut Sinks,
    first: &mut Option<Vec<u64>>,
) -> Result<()> {
    let failed = |error: arrow::error::ArrowError| {
        Error::new(ErrorCode::Internal, format!("a column cannot be read: {error}")).with_source(error)
    };
    let to = |data_type: &Arrow| cast(array, data_type).map_err(failed);
    macro_rules! each {
        ($array:expr, $value:expr) => {{
            let array = $array;
            for row in rows {
                let cell = if array.is_null(*row) { Cell::Null } else { $value(&array, *row) };
                profiler.add(cell, positions(*row), sinks)?;
                if let Some(first) = first {
                    first.push(profiler.last);
                }
            }
        }};
    }
    match array.data_type() {
        Arrow::Null => each!(array, |_, _| Cell::Null),
        Arrow::Utf8 => {
            let texts = array.as_string::<i32>();
            for row in rows {
                let cell = if texts.is_null(*row) { Cell::Null } else { Cell::Text(texts.value(*row)) };
                profiler.add(cell, positions(*row), sinks)?;
                if let Some(first) = first {
                    first.push(profiler.last);
                }
            }
        }
        Arrow::LargeUtf8 | Arrow::Utf8View => return feed(profiler, &to(&Arrow::Utf8)?, rows, positions, sinks, first),
        Arrow::Dictionary(_, value) => return feed(profiler, &to(value)?, rows, positions, sinks, first),
        Arrow::Boolean => {
            each!(array.as_boolean(), |array: &&arrow::array::BooleanArray, row| Cell::Boolean(array.value(row)))
        }
        Arrow::Int8 | Arrow::Int16 | Arrow::Int32 | Arrow::Int64 | Arrow::UInt8 | Arrow::UInt16 | Arrow::UInt32 => {
            let wide = to(&Arrow::Int64)?;
            let values = wide.as_primitive::<Int64Type>();
            each!(values, |array: &&arrow::array::Int64Array, row| Cell::Integer(array.value(row)))
        }
        Arrow::UInt64 => return feed(profiler, &to(&Arrow::Decimal128(20, 0))?, rows, positions, sinks, first),
        Arrow::Float16 | Arrow::Float32 => {
            let wide = to(&Arrow::Float32)?;
            let values = wide.as_primitive::<Float32Type>();
            each!(values, |array: &&arrow::array::Float32Array, row| Cell::Float(array.value(row)))
        }
        Arrow::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            each!(values, |array: &&arrow::array::Float64Array, row| Cell::Double(array.value(row)))
        }
        Arrow::Decimal128(_, scale) => {
            let (values, scale) = (array.as_primitive::<Decimal128Type>(), *scale);
            each!(values, |array: &&arrow::array::Decimal128Array, row| Cell::Decimal(array.value(row), scale))
        }
        Arrow::Decimal32(..) | Arrow::Decimal64(..) | Arrow::Decimal256(..) => {
            let (Arrow::Decimal32(_, scale) | Arrow::Decimal64(_, scale) | Arrow::Decimal256(_, scale)) =
                array.data_type()
            else {
                return Ok(());
            };
            return feed(profiler, &to(&Arrow::Decimal128(38, *scale))?, rows, positions, sinks, first);
        }
        Arrow::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            each!(values, |array: &&arrow::array::Date32Array, row| Cell::Date(array.value(row)))
        }
        Arrow::Time64(TimeUnit::Microsecond) => {
            let values = array.as_primitive::<Time64MicrosecondType>();
            each!(values, |array: &&arrow::array::Time64MicrosecondArray, row| Cell::Time(array.value(row)))
        }
        Arrow::Timestamp(TimeUnit::Microsecond, zone) => {
            let (values, instant) = (array.as_primitive::<TimestampMicrosecondType>(), zone.is_some());
            each!(values, |array: &&arrow::array::TimestampMicrosecondArray, row| Cell::Timestamp(
                array.value(row),
                instant
            ))
        }
        Arrow::Date64 | Arrow::Time32(_) | Arrow::Time64(_) | Arrow::Timestamp(..) => {
            let kept = to(&match array.data_type() {
                Arrow::Date64 => Arrow::Date32,
                Arrow::Timestamp(_, zone) => Arrow::Timestamp(TimeUnit::Microsecond, zone.clone()),
                _ => Arrow::Time64(TimeUnit::Microsecond),
            })?;
            // As a publication does: what does not come back was not the same value.
            let back = cast(&kept, array.data_type()).map_err(failed)?;
            let lost = cmp::distinct(&back, array).map_err(failed)?;
            rows.iter().filter(|row| lost.value(**row)).for_each(|row| profiler.add_inexact(positions(*row)));
            return feed(profiler, &kept, rows, positions, sinks, first);
        }
        Arrow::Binary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => {
            return feed(profiler, &to(&Arrow::LargeBinary)?, rows, positions, sinks, first);
        }
        Arrow::LargeBinary => {
            let values = array.as_binary::<i64>();
            for row in rows {
                let cell = if values.is_null(*row) { Cell::Null } else { Cell::Bytes(values.value(*row)) };
                profiler.add(cell, positions(*row), sinks)?;
                if let Some(first) = first {
                    first.push(profiler.last);
                }
            }
        }
        Arrow::List(field) => {
            let lists = array.as_list::<i32>();
            let declared = declared_type(field.data_type()).ok();
            for row in rows {
                if lists.is_null(*row) {
                    profiler.add(Cell::Null, positions(*row), sinks)?;
                } else {
                    let items = lists.value(*row);
                    profiler.add_nested(Class::List, items.len() as u64);
                    let all: Vec<usize> = (0..items.len()).collect();
                    let place = positions(*row);
                    feed(profiler.item("item", declared.clone()), &items, &all, &|_| place, sinks, &mut None)?;
                }
                if let Some(first) = first {
                    first.push(0);
                }
            }
        }
        Arrow::LargeList(field) | Arrow::FixedSizeList(field, _) => {
            return feed(profiler, &to(&Arrow::List(field.clone()))?, rows, positions, sinks, first);
        }
        Arrow::Map(entries, _) => {
            let maps = array.as_map();
            let declared = match entries.data_type() {
                Arrow::Struct(fields) => fields.get(1).and_then(|value| declared_type(value.data_type()).ok()),
                _ => None,
            };
            for row in rows {
                if maps.is_null(*row) {
                    profiler.add(Cell::Null, positions(*row), sinks)?;
                } else {
                    let values = maps.value(*row).column(1).clone();
                    profiler.add_nested(Class::Object, values.len() as u64);
                    let all: Vec<usize> = (0..values.len()).collect();
                    let place = positions(*row);
                    feed(profiler.item("value", declared.clone()), &values, &all, &|_| place, sinks, &mut None)?;
                }
                if let Some(first) = first {
                    first.push(0);
                }
            }
        }
        Arrow::Struct(_) => {
            let structs = array.as_struct();
            for row in rows {
                if structs.is_null(*row) {
                    profiler.add(Cell::Null, positions(*row), sinks)?;
                } else {
                    profiler.add_nested(Class::Object, structs.num_columns() as u64);
                }
                if let Some(first) = first {
                    first.push(0);
                }
            }
            let there: Vec<usize> = rows.iter().copied().filter(|row| !structs.is_null(*row)).collect();
            for (field, child) in structs.fields().iter().zip(structs.columns()) {
                if let (Some(part), Ok(declared)) = (profiler.field(field.name()), declared_type(field.data_type())) {
                    part.declared = Some(declared);
                    feed(part, child, &there, positions, sinks, &mut None)?;
                }
            }
        }
        other => {
            // `declared_type` refuses such columns before they come here.
            return Err(Error::new(ErrorCode::Internal, format!("values of type {other} cannot be profiled")));
        }
    }
    Ok(())
}

/// The contract type that holds every value of an Arrow type.
///
/// # Errors
/// Says why there is none.
pub fn declared_type(data_type: &Arrow) -> Result<DataType, String> {
    let none = || Err(format!("no contract type holds {data_type}"));
    Ok(match data_type {
        Arrow::Null | Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => DataType::String,
        Arrow::Boolean => DataType::Boolean,
        Arrow::Int8 | Arrow::Int16 | Arrow::Int32 | Arrow::UInt8 | Arrow::UInt16 => DataType::Int,
        Arrow::Int64 | Arrow::UInt32 => DataType::Long,
        Arrow::UInt64 => DataType::Decimal(20, 0),
        Arrow::Float16 | Arrow::Float32 => DataType::Float,
        Arrow::Float64 => DataType::Double,
        Arrow::Decimal32(precision, scale)
        | Arrow::Decimal64(precision, scale)
        | Arrow::Decimal128(precision, scale)
        | Arrow::Decimal256(precision, scale) => match u8::try_from(*scale) {
            Ok(scale) if *precision <= 38 && scale <= *precision => DataType::Decimal(*precision, scale),
            _ => return none(),
        },
        Arrow::Date32 | Arrow::Date64 => DataType::Date,
        Arrow::Time32(_) | Arrow::Time64(_) => DataType::Time,
        Arrow::Timestamp(_, Some(_)) => DataType::Timestamp,
        Arrow::Timestamp(_, None) => DataType::TimestampNtz,
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => DataType::Binary,
        Arrow::Dictionary(_, value) => declared_type(value)?,
        Arrow::List(item) | Arrow::LargeList(item) | Arrow::FixedSizeList(item, _) => {
            DataType::Array(Box::new(Column::anonymous("item", declared_type(item.data_type())?)))
        }
        Arrow::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|field| Ok(Column::anonymous(field.name(), declared_type(field.data_type())?)))
                .collect::<Result<_, String>>()?,
        ),
        Arrow::Map(entries, _) => match entries.data_type() {
            Arrow::Struct(fields) if fields.len() == 2 => {
                let (key, value) = (declared_type(fields[0].data_type())?, declared_type(fields[1].data_type())?);
                DataType::Map(Box::new(key), Box::new(Column::anonymous("value", value)))
            }
            _ => return none(),
        },
        _ => return none(),
    })
}
