//! Masks over arrays: each keeps the array's type and its nulls. What a mask cannot make of a value is null.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, FixedSizeBinaryBuilder, PrimitiveArray, StringArray,
    new_null_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::error::Result;
use datamesh_core::DataType as ContractType;
use datamesh_core::mask::{Mask, Truncation};
use ring::hmac;
use uuid::Uuid;

/// What a mesh's secret is derived with.
const LABEL: &[u8] = b"datamesh mask 1";
const DAY: i64 = 86_400;

/// The secret that values are hashed with (RFC 2104, HMAC-SHA256). Never printed.
#[derive(Clone)]
pub(crate) struct MaskKey(hmac::Key);

impl MaskKey {
    /// The one of a mesh, by the mesh's own key.
    pub(crate) fn derive(mesh: &[u8]) -> Self {
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, mesh), LABEL);
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()))
    }

    /// The digest of a value, told from equal bytes of another type by its tag.
    fn digest(&self, tag: u8, value: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[tag]);
        context.update(value);
        context.sign()
    }
}

impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKey")
    }
}

/// What text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextKind {
    Plain,
    Json,
    Uuid,
}

/// A mask for the values of one column.
#[derive(Clone, Debug)]
pub(crate) enum Kernel {
    /// Nothing is left.
    Null,
    /// One text for all.
    Redact(&'static str),
    Hash(MaskKey, TextForm),
    Partial(usize, usize),
    Truncate(Truncation),
    Bucket(Width),
}

/// How a hash is written as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextForm(TextKind);

/// A bucket's width: `digits` divided by ten to the power of `scale`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    digits: i128,
    scale: u32,
    float: f64,
}

impl Kernel {
    /// The kernel of a mask over a column; one that does not fit the column's type leaves nothing. `None`: the key that it
    /// needs is not there.
    pub(crate) fn new(mask: &Mask, contract: &ContractType, key: Option<&MaskKey>) -> Option<Self> {
        let kind = match contract {
            ContractType::Json => TextKind::Json,
            ContractType::Uuid => TextKind::Uuid,
            _ => TextKind::Plain,
        };
        if !mask.fits(contract) {
            return Some(Self::Null);
        }
        Some(match mask {
            Mask::None | Mask::Null => Self::Null,
            Mask::Redact if kind == TextKind::Json => Self::Redact("\"***\""),
            Mask::Redact => Self::Redact("***"),
            Mask::Hash => Self::Hash(key?.clone(), TextForm(kind)),
            Mask::Partial { first, last } => Self::Partial(*first as usize, *last as usize),
            Mask::Truncate(unit) => Self::Truncate(*unit),
            Mask::Bucket(width) => Width::parse(width).map_or(Self::Null, Self::Bucket),
        })
    }

    /// The masked values.
    pub(crate) fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        // Few values stand for many rows.
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            return Ok(dictionary.with_values(self.apply(dictionary.values())?));
        }
        let nothing = || new_null_array(array.data_type(), array.len());
        Ok(match (self, array.data_type()) {
            (Self::Redact(text), own) if own.is_string() => of_text(array, |_| (*text).to_owned())?,
            (Self::Partial(first, last), own) if own.is_string() => {
                of_text(array, |text| partial(text, *first, *last))?
            }
            (Self::Hash(key, form), own) if own.is_string() => of_text(array, |text| form.write(key, text))?,
            (Self::Hash(key, _), DataType::FixedSizeBinary(16)) => {
                let bytes = array.as_fixed_size_binary();
                let mut hashed = FixedSizeBinaryBuilder::with_capacity(bytes.len(), 16);
                for value in bytes {
                    match value {
                        Some(value) => hashed.append_value(uuid(key, value).as_bytes())?,
                        None => hashed.append_null(),
                    }
                }
                Arc::new(hashed.finish())
            }
            (Self::Hash(key, _), DataType::Binary | DataType::LargeBinary | DataType::BinaryView) => {
                let bytes = cast(array, &DataType::Binary)?;
                let hashed = bytes.as_binary::<i32>().iter().map(|value| value.map(|value| key.digest(b'b', value)));
                let hashed: BinaryArray = hashed.collect();
                cast(&hashed, array.data_type())?
            }
            (Self::Hash(key, _), DataType::Int32) => {
                each::<Int32Type>(array, |value| Some(number(key, i64::from(value)) as i32))
            }
            (Self::Hash(key, _), DataType::Int64) => each::<Int64Type>(array, |value| Some(number(key, value))),
            (Self::Truncate(unit), DataType::Date32) => {
                each::<Date32Type>(array, |day| i32::try_from(first_day(*unit, i64::from(day))?).ok())
            }
            (Self::Truncate(unit), DataType::Timestamp(precision, _)) => match precision {
                TimeUnit::Second => each::<TimestampSecondType>(array, |time| truncate(*unit, time, 1)),
                TimeUnit::Millisecond => each::<TimestampMillisecondType>(array, |time| truncate(*unit, time, 1_000)),
                TimeUnit::Microsecond => {
                    each::<TimestampMicrosecondType>(array, |time| truncate(*unit, time, 1_000_000))
                }
                TimeUnit::Nanosecond => {
                    each::<TimestampNanosecondType>(array, |time| truncate(*unit, time, 1_000_000_000))
                }
            },
            (Self::Bucket(width), DataType::Int32) => {
                each::<Int32Type>(array, |value| i32::try_from(width.floor(i128::from(value), 0)?).ok())
            }
            (Self::Bucket(width), DataType::Int64) => {
                each::<Int64Type>(array, |value| i64::try_from(width.floor(i128::from(value), 0)?).ok())
            }
            (Self::Bucket(width), DataType::Decimal128(_, scale)) if *scale >= 0 => {
                let scale = scale.unsigned_abs();
                each::<Decimal128Type>(array, |value| width.floor(value, u32::from(scale)))
            }
            (Self::Bucket(width), DataType::Float32) => {
                each::<Float32Type>(array, |value| Some(width.floor_float(f64::from(value)) as f32))
            }
            (Self::Bucket(width), DataType::Float64) => {
                each::<Float64Type>(array, |value| Some(width.floor_float(value)))
            }
            _ => nothing(),
        })
    }
}

fn each<T: ArrowPrimitiveType>(array: &ArrayRef, mask: impl Fn(T::Native) -> Option<T::Native>) -> ArrayRef {
    let masked: PrimitiveArray<T> = array.as_primitive::<T>().unary_opt(mask);
    Arc::new(masked.with_data_type(array.data_type().clone()))
}

fn of_text(array: &ArrayRef, mask: impl Fn(&str) -> String) -> Result<ArrayRef> {
    let texts = cast(array, &DataType::Utf8)?;
    let masked: StringArray = texts.as_string::<i32>().iter().map(|text| text.map(&mask)).collect();
    Ok(cast(&masked, array.data_type())?)
}

fn partial(text: &str, first: usize, last: usize) -> String {
    let count = text.chars().count();
    if count <= first.saturating_add(last) {
        return "*".repeat(count);
    }
    let at = |position: usize| text.char_indices().nth(position).map_or(text.len(), |(at, _)| at);
    format!("{}{}{}", &text[..at(first)], "*".repeat(count - first - last), &text[at(count - last)..])
}

impl TextForm {
    fn write(self, key: &MaskKey, text: &str) -> String {
        let hex = |digest: hmac::Tag| {
            use std::fmt::Write;
            digest.as_ref()[..16].iter().fold(String::with_capacity(34), |mut hex, byte| {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        };
        match self.0 {
            TextKind::Plain => hex(key.digest(b't', text.as_bytes())),
            TextKind::Json => format!("\"{}\"", hex(key.digest(b'j', text.as_bytes()))),
            TextKind::Uuid => match Uuid::parse_str(text) {
                Ok(value) => uuid(key, value.as_bytes()).to_string(),
                Err(_) => uuid(key, text.as_bytes()).to_string(),
            },
        }
    }
}

/// A UUID of version 8 (RFC 9562, section 5.8).
fn uuid(key: &MaskKey, value: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&key.digest(b'u', value).as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Equal for equal numbers of either width, but for what does not fit.
fn number(key: &MaskKey, value: i64) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.digest(b'n', &value.to_be_bytes()).as_ref()[..8]);
    i64::from_be_bytes(bytes)
}

fn truncate(unit: Truncation, time: i64, second: i64) -> Option<i64> {
    match unit {
        Truncation::Hour => time.checked_sub(time.rem_euclid(3_600 * second)),
        _ => first_day(unit, time.div_euclid(DAY * second))?.checked_mul(DAY * second),
    }
}

/// The first day of the period that a day, counted from 1970, lies in.
fn first_day(unit: Truncation, day: i64) -> Option<i64> {
    use chrono::{Datelike, NaiveDate};
    if unit == Truncation::Day || unit == Truncation::Hour {
        return Some(day);
    }
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let date = epoch.checked_add_signed(chrono::TimeDelta::try_days(day)?)?;
    let month = match unit {
        Truncation::Year => 1,
        Truncation::Quarter => (date.month0() / 3) * 3 + 1,
        _ => date.month(),
    };
    Some((NaiveDate::from_ymd_opt(date.year(), month, 1)? - epoch).num_days())
}

impl Width {
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}").parse().ok().filter(|digits| *digits > 0)?;
        Some(Self { digits, scale: u32::try_from(fraction.len()).ok()?, float: text.parse().ok()? })
    }

    /// The lower end of the range that a number, times ten to the power of `scale`, lies in.
    fn floor(self, value: i128, scale: u32) -> Option<i128> {
        let common = scale.max(self.scale);
        let value = value.checked_mul(10_i128.checked_pow(common - scale)?)?;
        let width = self.digits.checked_mul(10_i128.checked_pow(common - self.scale)?)?;
        let lower = value.div_euclid(width).checked_mul(width)?;
        Some(lower.div_euclid(10_i128.checked_pow(common - scale)?))
    }

    fn floor_float(self, value: f64) -> f64 {
        (value / self.float).floor() * self.float
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, LargeBinaryArray,
        StringViewArray, TimestampMicrosecondArray,
    };
    use datafusion::common::ScalarValue;

    use super::*;

    fn masked(mask: &str, contract: &ContractType, array: impl Array + 'static) -> Vec<ScalarValue> {
        let key = MaskKey::derive(&[7; 32]);
        let mask = Mask::parse(mask).expect("a mask");
        let array: ArrayRef = Arc::new(array);
        let kernel = Kernel::new(&mask, contract, Some(&key)).expect("a kernel");
        let out = kernel.apply(&array).expect("masked");
        assert_eq!((out.data_type(), out.len()), (array.data_type(), array.len()));
        (0..out.len()).map(|row| ScalarValue::try_from_array(&out, row).expect("a value")).collect()
    }

    fn texts(mask: &str, contract: &ContractType, values: &[Option<&str>]) -> Vec<Option<String>> {
        let text = |value: ScalarValue| match value {
            ScalarValue::Utf8(text) => text,
            other => panic!("{other:?}"),
        };
        masked(mask, contract, StringArray::from(values.to_vec())).into_iter().map(text).collect()
    }

    #[test]
    fn texts_are_masked_by_characters() {
        let some = |text: &str| Some(text.to_owned());
        let string = ContractType::String;
        assert_eq!(texts("redact", &string, &[Some("x"), None, Some("")]), [some("***"), None, some("***")]);
        assert_eq!(texts("redact", &ContractType::Json, &[Some("{}")]), [some("\"***\"")]);
        assert_eq!(
            texts("partial(1, 2)", &string, &[Some("äöü€x"), Some("abc"), Some("")]),
            [some("ä**€x"), some("***"), some("")]
        );
        assert_eq!(texts("partial(0, 0)", &string, &[Some("abc")]), [some("***")]);
        assert_eq!(texts("partial(4294967295, 1)", &string, &[Some("abc")]), [some("***")]);
        assert_eq!(texts("null", &string, &[Some("abc")]), [None]);
    }

    #[test]
    fn hashes_are_shaped_like_their_type() {
        let string = texts("hash", &ContractType::String, &[Some("a"), Some("a"), Some("b"), None]);
        assert_eq!(string[0], string[1]);
        assert_ne!(string[0], string[2]);
        assert!(string[3].is_none() && string[0].as_ref().is_some_and(|hash| hash.len() == 32));
        let json = texts("hash", &ContractType::Json, &[Some("a")])[0].clone().expect("a hash");
        assert!(serde_json::from_str::<String>(&json).is_ok_and(|hash| Some(&hash) != string[0].as_ref()));
        let (upper, lower) = ("0190A000-0000-7000-8000-00000000000A", "0190a000-0000-7000-8000-00000000000a");
        let uuids = texts("hash", &ContractType::Uuid, &[Some(upper), Some(lower)]);
        assert_eq!(uuids[0], uuids[1]);
        let parsed = Uuid::parse_str(uuids[0].as_deref().expect("a hash")).expect("a UUID");
        assert_eq!((parsed.get_version_num(), parsed.get_variant()), (8, uuid::Variant::RFC4122));
        let long = masked("hash", &ContractType::Long, Int64Array::from(vec![Some(5), None, Some(5), Some(6)]));
        assert_eq!(long[0], long[2]);
        assert!(long[1].is_null() && long[0] != long[3] && long[0] != ScalarValue::from(5_i64));
        let int = masked("hash", &ContractType::Int, Int32Array::from(vec![5]));
        assert_ne!(int[0], ScalarValue::from(5_i32));
        let binary = masked("hash", &ContractType::Binary, LargeBinaryArray::from_vec(vec![b"x"]));
        assert!(matches!(&binary[0], ScalarValue::LargeBinary(Some(bytes)) if bytes.len() == 32));
        let other = Kernel::new(&Mask::Hash, &ContractType::Long, Some(&MaskKey::derive(&[8; 32]))).expect("a kernel");
        let five: ArrayRef = Arc::new(Int64Array::from(vec![5]));
        let elsewhere = ScalarValue::try_from_array(&other.apply(&five).expect("masked"), 0).expect("a value");
        assert_ne!(elsewhere, long[0], "another mesh, another hash");
        assert!(Kernel::new(&Mask::Hash, &ContractType::Long, None).is_none());
    }

    #[test]
    fn times_go_back_to_the_start_of_their_period() {
        let date = |y, m, d| {
            let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");
            (chrono::NaiveDate::from_ymd_opt(y, m, d).expect("a date") - epoch).num_days() as i32
        };
        for (mask, wanted) in
            [("year", (1969, 1, 1)), ("quarter", (1969, 10, 1)), ("month", (1969, 12, 1)), ("day", (1969, 12, 30))]
        {
            let out = masked(mask, &ContractType::Date, Date32Array::from(vec![Some(date(1969, 12, 30)), None]));
            assert_eq!(out[0], ScalarValue::Date32(Some(date(wanted.0, wanted.1, wanted.2))), "{mask}");
            assert!(out[1].is_null());
        }
        let time = i64::from(date(1969, 12, 30)) * 86_400_000_000 + 5 * 3_600_000_000 + 61_000_001;
        let utc = TimestampMicrosecondArray::from(vec![time]).with_timezone("+00:00");
        let micros = |value: &ScalarValue| match value {
            ScalarValue::TimestampMicrosecond(time, _) => *time,
            other => panic!("{other:?}"),
        };
        assert_eq!(micros(&masked("hour", &ContractType::Timestamp, utc.clone())[0]), Some(time - 61_000_001));
        let month = masked("month", &ContractType::Timestamp, utc);
        assert_eq!(micros(&month[0]), Some(i64::from(date(1969, 12, 1)) * 86_400_000_000));
        assert!(masked("year", &ContractType::Date, Date32Array::from(vec![i32::MAX]))[0].is_null());
        assert!(masked("hour", &ContractType::Date, Date32Array::from(vec![1]))[0].is_null(), "it does not fit");
    }

    #[test]
    fn numbers_go_down_to_their_range() {
        let ints = masked("bucket(10)", &ContractType::Int, Int32Array::from(vec![19, -1, i32::MIN]));
        assert_eq!(ints[..2], [ScalarValue::from(10_i32), ScalarValue::from(-10_i32)]);
        assert!(ints[2].is_null(), "the lower end is out of reach");
        let decimals = Decimal128Array::from(vec![1234, -1]).with_precision_and_scale(10, 2).expect("decimals");
        let decimals = masked("bucket(0.5)", &ContractType::Decimal(10, 2), decimals);
        assert_eq!(decimals, [ScalarValue::Decimal128(Some(1200), 10, 2), ScalarValue::Decimal128(Some(-50), 10, 2)]);
        let floats = masked("bucket(2.5)", &ContractType::Double, Float64Array::from(vec![7.4, -0.1]));
        assert_eq!(floats, [ScalarValue::from(5.0), ScalarValue::from(-2.5)]);
    }

    #[test]
    fn layouts_do_not_matter() {
        let views = masked("partial(1, 0)", &ContractType::String, StringViewArray::from(vec![Some("secret"), None]));
        assert_eq!(views, [ScalarValue::Utf8View(Some("s*****".into())), ScalarValue::Utf8View(None)]);
        let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), Some("b"), None, Some("a")].into_iter().collect();
        let dictionary = masked("redact", &ContractType::String, dictionary);
        let text = |at: usize| dictionary[at].cast_to(&DataType::Utf8).expect("text");
        assert_eq!((text(0), text(3), text(2)), (text(1), "***".into(), ScalarValue::Utf8(None)));
    }
}
