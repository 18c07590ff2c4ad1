//! Text to typed values, exactly: what does not parse, or would lose information, is an error.
//!
//! The same functions read cells of text sources and the bounds of a contract, so both mean the same.

use crate::datatype::DataType;

/// A typed scalar.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Text, JSON and UUID (canonical lower case).
    Text(String),
    /// Boolean.
    Boolean(bool),
    /// Int and long; days of a date; microseconds of time and timestamps.
    Integer(i64),
    /// Float and double.
    Double(f64),
    /// Unscaled value of a decimal.
    Decimal(i128),
}

/// Reads `text` as a value of a scalar type.
///
/// # Errors
/// Says in one clause why the text is not such a value.
pub fn parse(text: &str, data_type: &DataType) -> Result<Scalar, String> {
    let fail = || format!("`{text}` is not a valid {data_type}");
    let scalar = match data_type {
        DataType::String | DataType::Json | DataType::Binary => Some(Scalar::Text(text.to_owned())),
        DataType::Uuid => uuid(text).map(Scalar::Text),
        DataType::Boolean => boolean(text).map(Scalar::Boolean),
        DataType::Int => int(text).map(|value| Scalar::Integer(value.into())),
        DataType::Long => long(text).map(Scalar::Integer),
        DataType::Float => float(text).map(|value| Scalar::Double(value.into())),
        DataType::Double => double(text).map(Scalar::Double),
        DataType::Decimal(precision, scale) => decimal(text, *precision, *scale).map(Scalar::Decimal),
        DataType::Date => date(text).map(|days| Scalar::Integer(days.into())),
        DataType::Time => time(text).map(Scalar::Integer),
        DataType::Timestamp => timestamp(text).map(Scalar::Integer),
        DataType::TimestampNtz => timestamp_ntz(text).map(Scalar::Integer),
        DataType::Array(_) | DataType::Map(..) | DataType::Struct(_) => None,
    };
    scalar.ok_or_else(fail)
}

/// `true` or `false`, in any case.
pub fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A 64-bit integer; a fraction of zeros (`5.0`) loses nothing and is accepted.
pub fn long(text: &str) -> Option<i64> {
    let (negative, digits) = sign(text);
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], Some(&digits[dot + 1..])),
        None => (digits, None),
    };
    if whole.is_empty() || fraction.is_some_and(|digits| digits.is_empty() || digits.iter().any(|digit| *digit != b'0'))
    {
        return None;
    }
    let mut value: i64 = 0;
    for digit in whole {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

/// A 32-bit integer.
pub fn int(text: &str) -> Option<i32> {
    long(text).and_then(|value| i32::try_from(value).ok())
}

/// A double. `NaN`, `Infinity` and `-Infinity` are read as such; a number too large to represent is refused.
pub fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(value)
}

/// A float, nearest to the text. See [`double`].
pub fn float(text: &str) -> Option<f32> {
    match text {
        "NaN" => return Some(f32::NAN),
        "Infinity" => return Some(f32::INFINITY),
        "-Infinity" => return Some(f32::NEG_INFINITY),
        _ => {}
    }
    let value: f32 = text.parse().ok()?;
    value.is_finite().then_some(value)
}

/// The value of up to 18 digits with a point among them, as nearly every decimal is written. `None`: see further.
fn short_decimal(body: &[u8], precision: u8, scale: u8) -> Option<i128> {
    const POWERS: [i64; 19] = {
        let mut powers = [1; 19];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    let point = body.iter().position(|byte| *byte == b'.');
    let fraction = point.map_or(0, |point| body.len() - point - 1);
    let missing = usize::from(scale).checked_sub(fraction)?;
    if body.len() > 18 || body.is_empty() || (point.is_some() && fraction == 0) || precision > 18 || missing > 18 {
        return None;
    }
    let mut value: i64 = 0;
    for (at, byte) in body.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + i64::from(byte - b'0'),
            _ if Some(at) == point => {}
            _ => return None,
        }
    }
    let value = value.checked_mul(POWERS[missing])?;
    (value < POWERS[usize::from(precision)]).then(|| i128::from(value))
}

/// The unscaled value of a decimal; digits beyond `scale` must be zero, digits beyond `precision` are refused.
/// An exponent is accepted where the result is exact.
pub fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (negative, body) = sign(text);
    if let Some(value) = short_decimal(body, precision, scale) {
        return Some(if negative { -value } else { value });
    }
    let (mantissa, exponent) = match body.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => {
            let exponent: i32 = std::str::from_utf8(&body[at + 1..]).ok()?.parse().ok()?;
            (&body[..at], exponent)
        }
        None => (body, 0),
    };
    if !(-1000..=1000).contains(&exponent) {
        return None;
    }
    let mut value: i128 = 0;
    let mut fraction_digits: i32 = 0;
    let mut seen_dot = false;
    let mut seen_digit = false;
    let mut zeros: u32 = 0;
    for byte in mantissa {
        match byte {
            b'.' if !seen_dot => seen_dot = true,
            b'0'..=b'9' => {
                seen_digit = true;
                fraction_digits += i32::from(seen_dot);
                if *byte == b'0' {
                    zeros += u32::from(value != 0);
                } else {
                    value = shift(value, zeros + 1)?.checked_add(i128::from(byte - b'0'))?;
                    zeros = 0;
                }
            }
            _ => return None,
        }
    }
    if !seen_digit || mantissa.last() == Some(&b'.') {
        return None;
    }
    if value == 0 {
        return Some(0);
    }
    // value · 10^(zeros + exponent − fraction_digits), to be scaled by 10^scale.
    let power = i32::try_from(zeros).ok()? + exponent - fraction_digits + i32::from(scale);
    if power >= 0 {
        value = shift(value, power.unsigned_abs())?;
    } else {
        for _ in 0..power.unsigned_abs() {
            if value % 10 != 0 {
                return None;
            }
            value /= 10;
        }
    }
    if value >= 10_i128.checked_pow(precision.into())? {
        return None;
    }
    Some(if negative { -value } else { value })
}

fn shift(value: i128, power: u32) -> Option<i128> {
    if power > 38 { if value == 0 { Some(0) } else { None } } else { value.checked_mul(10_i128.pow(power)) }
}

fn sign(text: &str) -> (bool, &[u8]) {
    match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub fn date(text: &str) -> Option<i32> {
    date_bytes(text.as_bytes())
}

fn date_bytes(bytes: &[u8]) -> Option<i32> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = bytes else { return None };
    let year = digits(&[*y0, *y1, *y2, *y3])?;
    let month = digits(&[*m0, *m1])?;
    let day = digits(&[*d0, *d1])?;
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

fn digits(bytes: &[u8]) -> Option<i32> {
    bytes.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i32::from(byte - b'0')))
}

fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Microseconds since midnight of `HH:MM[:SS[.ffffff]]`.
pub fn time(text: &str) -> Option<i64> {
    time_bytes(text.as_bytes())
}

fn time_bytes(bytes: &[u8]) -> Option<i64> {
    let pair = |at: usize| digits(bytes.get(at..at + 2)?);
    let (hour, minute) = (pair(0)?, pair(3)?);
    if bytes[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut micros = i64::from(hour * 3600 + minute * 60) * 1_000_000;
    let Some(rest) = bytes.get(5..).filter(|rest| !rest.is_empty()) else { return Some(micros) };
    let second = pair(6)?;
    if rest[0] != b':' || second > 59 {
        return None;
    }
    micros += i64::from(second) * 1_000_000;
    let Some(fraction) = bytes.get(8..).filter(|rest| !rest.is_empty()) else { return Some(micros) };
    if fraction[0] != b'.' || fraction.len() == 1 {
        return None;
    }
    let mut unit = 100_000;
    for byte in &fraction[1..] {
        if !byte.is_ascii_digit() || (unit == 0 && *byte != b'0') {
            return None;
        }
        micros += i64::from(byte - b'0') * unit;
        unit /= 10;
    }
    Some(micros)
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Microseconds since the epoch of a date and time without a zone: `YYYY-MM-DD[T ]HH:MM[:SS[.ffffff]]`.
pub fn timestamp_ntz(text: &str) -> Option<i64> {
    local(text.as_bytes())
}

fn local(bytes: &[u8]) -> Option<i64> {
    if bytes.len() < 16 || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    Some(i64::from(date_bytes(&bytes[..10])?) * MICROS_PER_DAY + time_bytes(&bytes[11..])?)
}

/// Microseconds since the epoch, UTC, of a date and time with its offset (RFC 3339; `+HH` and `+HHMM` too).
/// Without an offset the instant is unknown, so the text is refused.
pub fn timestamp(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if let Some(rest) = bytes.strip_suffix(b"Z").or_else(|| bytes.strip_suffix(b"z")) {
        return local(rest);
    }
    let at = bytes.iter().skip(11).position(|byte| matches!(byte, b'+' | b'-'))? + 11;
    let offset = &bytes[at + 1..];
    let (hours, minutes) = match offset.len() {
        2 => (digits(offset)?, 0),
        4 => (digits(&offset[..2])?, digits(&offset[2..])?),
        5 if offset[2] == b':' => (digits(&offset[..2])?, digits(&offset[3..])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let micros = i64::from(hours * 3600 + minutes * 60) * 1_000_000;
    let local = local(&bytes[..at])?;
    Some(if bytes[at] == b'-' { local + micros } else { local - micros })
}

/// A UUID in its canonical form (RFC 9562), in lower case.
pub fn uuid(text: &str) -> Option<String> {
    is_uuid(text).then(|| text.to_ascii_lowercase())
}

/// Whether `text` is 8-4-4-4-12 hexadecimal digits.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `YYYY-MM-DD` of days since 1970-01-01.
pub fn date_text(days: i64) -> String {
    let micros = days.checked_mul(MICROS_PER_DAY);
    let day = micros.and_then(chrono::DateTime::from_timestamp_micros);
    day.map_or_else(|| format!("day {days}"), |day| day.format("%Y-%m-%d").to_string())
}

/// `HH:MM:SS[.ffffff]` of microseconds since midnight.
pub fn time_text(micros: i64) -> String {
    let (second, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    format!("{:02}:{:02}:{:02}{fraction}", second / 3600, second / 60 % 60, second % 60)
}

/// A date and time of microseconds since the epoch, with `Z` for an instant.
pub fn timestamp_text(micros: i64, instant: bool) -> String {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let zone = if instant { "Z" } else { "" };
    format!("{}T{}{zone}", date_text(days), time_text(micros.rem_euclid(MICROS_PER_DAY)))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("5.0", Some(5)),
            ("5.", None),
            ("5.1", None),
            ("", None),
            ("-", None),
            (" 5", None),
            ("1e3", None),
            ("0x10", None),
            ("٣", None),
        ] {
            assert_eq!(long(text), expected, "{text}");
        }
        assert_eq!(int("3000000000"), None);
    }

    #[test]
    fn decimals_are_exact() {
        for (text, expected) in [
            ("0.1", Some(10)),
            ("0.1004", None),
            ("0.1000", Some(10)),
            ("-12.34", Some(-1234)),
            ("+1", Some(100)),
            ("1e2", Some(10_000)),
            ("1.5e-1", Some(15)),
            ("1.5e-2", None),
            ("99999999.99", Some(9_999_999_999)),
            ("100000000", None),
            ("0e999", Some(0)),
            (".5", Some(50)),
            ("5.", None),
            (".", None),
            ("", None),
            ("1.2.3", None),
            ("1e", None),
            ("000000000000000000000000000000000000000000001", Some(100)),
            ("NaN", None),
        ] {
            assert_eq!(decimal(text, 10, 2), expected, "{text}");
        }
        assert_eq!(decimal("99999999999999999999999999999999999999", 38, 0), Some(10_i128.pow(38) - 1));
        assert_eq!(decimal("100000000000000000000000000000000000000", 38, 0), None);
    }

    #[test]
    fn floats_do_not_overflow_silently() {
        assert_eq!(double("1e308"), Some(1e308));
        assert_eq!(double("1e309"), None);
        assert_eq!(float("1e39"), None);
        assert_eq!(double("inf"), None);
        assert!(double("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn instants_need_an_offset() {
        assert_eq!(timestamp("2013-01-01T06:00:00Z"), Some(1_357_020_000_000_000));
        assert_eq!(timestamp("2013-01-01T06:00:00+01:00"), Some(1_357_016_400_000_000));
        assert_eq!(timestamp("2013-01-01 06:00-0100"), Some(1_357_023_600_000_000));
        assert_eq!(timestamp("2013-01-01T06:00:00"), None);
        assert_eq!(timestamp_ntz("2013-01-01T06:00:00Z"), None);
        assert_eq!(timestamp_ntz("2013-01-01T06:00:00.1234567"), None);
        assert_eq!(timestamp_ntz("2013-01-01T06:00:00.1234560"), Some(1_357_020_000_123_456));
        assert_eq!(date("2013-02-29"), None);
        assert_eq!(date("2012-02-29").map(i64::from), Some(15_399));
        assert_eq!(time("24:00"), None);
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["2013-01-01T06:00:00", "1969-12-31T23:59:59.000001", "0001-01-01T00:00:00"] {
            assert_eq!(timestamp_ntz(text).map(|micros| timestamp_text(micros, false)), Some(text.to_owned()));
        }
        assert_eq!(timestamp_text(0, true), "1970-01-01T00:00:00Z");
        assert_eq!(date("1900-02-28").map(|days| date_text(days.into())), Some("1900-02-28".to_owned()));
        assert!(date_text(i64::MAX).starts_with("day "));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*") {
            for data_type in ["int", "long", "double", "float", "boolean", "decimal(10,2)", "date", "time", "timestamp", "timestamp_ntz", "uuid"] {
                let data_type = DataType::parse(data_type).expect("a type");
                let _ = parse(&text, &data_type);
            }
        }

        #[test]
        fn near_dates_do_not_panic(text in "[0-9:TZ. +-]{0,30}") {
            let _ = (timestamp(&text), timestamp_ntz(&text), date(&text), time(&text), decimal(&text, 38, 10), long(&text));
        }

        #[test]
        fn dates_agree_with_chrono(days in -700_000_i32..2_900_000) {
            let date = DateTime::UNIX_EPOCH.date_naive() + chrono::Days::new(0) + chrono::Duration::days(days.into());
            prop_assume!((NaiveDate::from_ymd_opt(0, 1, 1)..=NaiveDate::from_ymd_opt(9999, 12, 31)).contains(&Some(date)));
            prop_assert_eq!(super::date(&date.format("%Y-%m-%d").to_string()), Some(days));
        }

        #[test]
        fn decimals_round_trip(unscaled in -9_999_999_999_i128..9_999_999_999) {
            let text = format!("{}{}.{:02}", if unscaled < 0 { "-" } else { "" }, unscaled.abs() / 100, unscaled.abs() % 100);
            prop_assert_eq!(decimal(&text, 10, 2), Some(unscaled));
        }
    }
}
