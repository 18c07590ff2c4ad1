//! How dates and times are written in text: patterns as Java's `DateTimeFormatter` and ODCS write them
//! (`yyyy-MM-dd HH:mm:ss`), patterns as `strftime` writes them (`%Y-%m-%d`), and RFC 3339.

use crate::scalar;

/// A pattern for dates and times, ready to match. Matching is exact: as many digits as the pattern says, days that
/// exist, nothing before or after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatePattern {
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Literal(String),
    /// A number with at least and at most so many digits.
    Number(Field, usize, usize),
    /// A month's name, short or long.
    MonthName(bool),
    /// A weekday's name, short or long.
    WeekdayName(bool),
    /// `AM` or `PM`.
    HalfDay,
    /// An offset from UTC; `Z` is accepted where so marked, a colon where so marked.
    Offset {
        z: bool,
        colon: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    ShortYear,
    Month,
    Day,
    DayOfYear,
    Hour,
    HalfDayHour,
    Minute,
    Second,
    Fraction,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// What was read of a text so far.
#[derive(Default)]
struct Found {
    year: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
}

impl DatePattern {
    /// Reads a pattern. With a `%` in it, it is one of `strftime`, otherwise one of Java.
    ///
    /// # Errors
    /// Says in one clause what is wrong with the pattern.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let items = if pattern.contains('%') { strftime(pattern)? } else { java(pattern)? };
        if items.iter().all(|item| matches!(item, Item::Literal(_))) {
            return Err(format!("`{pattern}` has no part of a date or a time"));
        }
        Ok(Self { items })
    }

    /// Whether `text` is a date or time that exists, written so.
    pub fn matches(&self, text: &str) -> bool {
        let mut found = Found::default();
        read(&self.items, text, &mut found) && found.exists()
    }
}

impl Found {
    fn exists(&self) -> bool {
        let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        // Without a year, a leap day may exist.
        let leap = self.year.is_none_or(leap);
        let days = match self.month {
            Some(2) => 28 + u32::from(leap),
            Some(4 | 6 | 9 | 11) => 30,
            _ => 31,
        };
        self.day.is_none_or(|day| day <= days) && self.day_of_year.is_none_or(|day| day <= 365 + u32::from(leap))
    }

    fn set(&mut self, field: Field, value: u32) -> bool {
        match field {
            Field::Year => self.year = Some(value),
            Field::ShortYear => self.year = Some(2000 + value),
            Field::Month => self.month = Some(value),
            Field::Day => self.day = Some(value),
            Field::DayOfYear => self.day_of_year = Some(value),
            Field::Hour | Field::HalfDayHour | Field::Minute | Field::Second | Field::Fraction => {}
        }
        let range = match field {
            Field::Year | Field::Fraction => return true,
            Field::ShortYear => 0..=99,
            Field::Month => 1..=12,
            Field::Day => 1..=31,
            Field::DayOfYear => 1..=366,
            Field::Hour => 0..=23,
            Field::HalfDayHour => 1..=12,
            Field::Minute | Field::Second => 0..=59,
        };
        range.contains(&value)
    }
}

/// Matches all of `text`. A number of variable width takes as many digits as leave a match for what follows.
fn read(items: &[Item], text: &str, found: &mut Found) -> bool {
    let Some((item, rest)) = items.split_first() else { return text.is_empty() };
    match item {
        Item::Literal(literal) => text.strip_prefix(literal.as_str()).is_some_and(|text| read(rest, text, found)),
        Item::Number(field, least, most) => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).take(*most).count();
            (*least..=digits).rev().any(|width| {
                // Digits beyond the ninth are of a fraction, whose value does not matter.
                let value = text[..width.min(9)].parse().unwrap_or(0);
                found.set(*field, value) && read(rest, &text[width..], found)
            })
        }
        Item::MonthName(long) => MONTHS.iter().zip(1..).any(|(name, number)| {
            let name = if *long { name } else { &name[..3] };
            text.strip_prefix(name).is_some_and(|text| {
                found.month = Some(number);
                read(rest, text, found)
            })
        }),
        Item::WeekdayName(long) => WEEKDAYS.iter().any(|name| {
            let name = if *long { name } else { &name[..3] };
            text.strip_prefix(name).is_some_and(|text| read(rest, text, found))
        }),
        Item::HalfDay => ["AM", "PM", "am", "pm"]
            .iter()
            .any(|half| text.strip_prefix(half).is_some_and(|text| read(rest, text, found))),
        Item::Offset { z, colon } => {
            if let Some(text) = text.strip_prefix('Z').filter(|_| *z) {
                return read(rest, text, found);
            }
            let width = if *colon { 6 } else { 5 };
            let Some(offset) = text.get(..width) else { return false };
            let bytes = offset.as_bytes();
            let pair = |at: usize| offset.get(at..at + 2).filter(|pair| pair.bytes().all(|byte| byte.is_ascii_digit()));
            let minutes = if *colon { 4 } else { 3 };
            matches!(bytes[0], b'+' | b'-')
                && (!*colon || bytes[3] == b':')
                && pair(1).is_some_and(|hours| hours <= "23")
                && pair(minutes).is_some_and(|minutes| minutes <= "59")
                && read(rest, &text[width..], found)
        }
    }
}

fn java(pattern: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        if letter == '\'' {
            let quoted = &rest[1..];
            let end = quoted.find('\'').ok_or_else(|| format!("`{pattern}` has a quote that is not closed"))?;
            literal(&mut items, if end == 0 { "'" } else { &quoted[..end] });
            rest = &quoted[end + 1..];
            continue;
        }
        let width = rest.chars().take_while(|next| *next == letter).count();
        let (run, after) = rest.split_at(width * letter.len_utf8());
        rest = after;
        let number = |field| if width == 1 { Item::Number(field, 1, 2) } else { Item::Number(field, width, width) };
        items.push(match (letter, width) {
            ('y' | 'u', 4) => Item::Number(Field::Year, 4, 4),
            ('y' | 'u', 2) => Item::Number(Field::ShortYear, 2, 2),
            ('M' | 'L', 1 | 2) => number(Field::Month),
            ('M' | 'L', 3) => Item::MonthName(false),
            ('M' | 'L', 4) => Item::MonthName(true),
            ('d', 1 | 2) => number(Field::Day),
            ('D', 3) => Item::Number(Field::DayOfYear, 3, 3),
            ('E', 1..=3) => Item::WeekdayName(false),
            ('E', 4) => Item::WeekdayName(true),
            ('H', 1 | 2) => number(Field::Hour),
            ('h', 1 | 2) => number(Field::HalfDayHour),
            ('m', 1 | 2) => number(Field::Minute),
            ('s', 1 | 2) => number(Field::Second),
            ('S', 1..=9) => Item::Number(Field::Fraction, width, width),
            ('a', 1) => Item::HalfDay,
            ('X', 2) => Item::Offset { z: true, colon: false },
            ('X', 3) => Item::Offset { z: true, colon: true },
            ('x', 2) | ('Z', 1..=3) => Item::Offset { z: false, colon: false },
            ('x', 3) => Item::Offset { z: false, colon: true },
            _ if letter.is_ascii_alphabetic() => {
                return Err(format!("`{run}` in `{pattern}` is not supported; use {JAVA}"));
            }
            _ => {
                literal(&mut items, run);
                continue;
            }
        });
    }
    Ok(items)
}

const JAVA: &str =
    "yyyy, yy, MM, MMM, MMMM, dd, DDD, EEE, EEEE, HH, hh, mm, ss, S…, a, XX, XXX, xx, xxx, and quote other letters";

fn strftime(pattern: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            literal(&mut items, letter.encode_utf8(&mut [0; 4]));
            continue;
        }
        let mut number = |field, width| items.push(Item::Number(field, width, width));
        match letters.next() {
            Some('Y') => number(Field::Year, 4),
            Some('y') => number(Field::ShortYear, 2),
            Some('m') => number(Field::Month, 2),
            Some('d') => number(Field::Day, 2),
            Some('j') => number(Field::DayOfYear, 3),
            Some('H') => number(Field::Hour, 2),
            Some('I') => number(Field::HalfDayHour, 2),
            Some('M') => number(Field::Minute, 2),
            Some('S') => number(Field::Second, 2),
            Some('f') => items.push(Item::Number(Field::Fraction, 1, 9)),
            Some('b') => items.push(Item::MonthName(false)),
            Some('B') => items.push(Item::MonthName(true)),
            Some('a') => items.push(Item::WeekdayName(false)),
            Some('A') => items.push(Item::WeekdayName(true)),
            Some('p') => items.push(Item::HalfDay),
            Some('z') => items.push(Item::Offset { z: false, colon: false }),
            Some('F') => items.extend(strftime("%Y-%m-%d")?),
            Some('T') => items.extend(strftime("%H:%M:%S")?),
            Some('%') => literal(&mut items, "%"),
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(format!(
                    "`%{other}` in `{pattern}` is not supported; use %Y, %y, %m, %d, %j, %H, %I, %M, %S, %f, %b, %B, %a, %A, %p, %z, %F, %T, %%"
                ));
            }
        }
    }
    Ok(items)
}

fn literal(items: &mut Vec<Item>, text: &str) {
    match items.last_mut() {
        Some(Item::Literal(literal)) => literal.push_str(text),
        _ => items.push(Item::Literal(text.to_owned())),
    }
}

/// RFC 3339 `full-date`.
pub fn full_date(text: &str) -> bool {
    scalar::date(text).is_some()
}

/// RFC 3339 `date-time`: seconds and an offset are there; a leap second is one at the end of a UTC day.
pub fn date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_at_checked(10) else { return false };
    full_date(date) && time.strip_prefix(['T', 't', ' ']).is_some_and(|time| clock(time, true))
}

/// A time of day to the second or finer, with or without an offset.
pub fn time(text: &str) -> bool {
    clock(text, false)
}

fn clock(text: &str, needs_offset: bool) -> bool {
    let end = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (time, offset) = text.split_at(end);
    let minutes = match offset {
        "" if needs_offset => return false,
        "" | "Z" | "z" => Some(0),
        _ => offset_minutes(offset),
    };
    let Some(minutes) = minutes else { return false };
    let (whole, fraction) = match time.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (time, None),
    };
    if fraction.is_some_and(|digits| digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let bytes = whole.as_bytes();
    if bytes.len() != 8 || bytes[2] != b':' || bytes[5] != b':' {
        return false;
    }
    let pair = |at: usize| -> Option<i32> {
        bytes[at..at + 2]
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| i32::from(bytes[at] - b'0') * 10 + i32::from(bytes[at + 1] - b'0'))
    };
    let (Some(hour), Some(minute), Some(second)) = (pair(0), pair(3), pair(6)) else { return false };
    let leap = second == 60 && (hour * 60 + minute - minutes).rem_euclid(24 * 60) == 24 * 60 - 1;
    hour <= 23 && minute <= 59 && (second <= 59 || leap)
}

fn offset_minutes(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 6 || bytes[3] != b':' || ![1, 2, 4, 5].iter().all(|at| bytes[*at].is_ascii_digit()) {
        return None;
    }
    let pair = |at: usize| i32::from(bytes[at] - b'0') * 10 + i32::from(bytes[at + 1] - b'0');
    let (hours, minutes) = (pair(1), pair(4));
    let value = hours * 60 + minutes;
    (hours <= 23 && minutes <= 59).then_some(if bytes[0] == b'-' { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, good: &[&str], bad: &[&str]) {
        let pattern = DatePattern::parse(pattern).expect(pattern);
        for text in good {
            assert!(pattern.matches(text), "{pattern:?} {text}");
        }
        for text in bad {
            assert!(!pattern.matches(text), "{pattern:?} {text}");
        }
    }

    #[test]
    fn java_patterns() {
        check(
            "yyyy-MM-dd",
            &["2013-01-31", "2012-02-29", "0001-12-01"],
            &[
                "",
                "2013-02-29",
                "2013-1-31",
                "2013-13-01",
                "13-01-01",
                "2013-01-31 ",
                " 2013-01-31",
                "2013-01-32",
                "2013-00-10",
            ],
        );
        check("dd.MM.yy", &["29.02.12"], &["29.02.13", "29.02.2012"]);
        check("d/M/yyyy", &["1/2/2013", "31/12/2013"], &["31/2/2013", "001/2/2013"]);
        check("dd MMM yyyy", &["01 Feb 2013"], &["01 feb 2013", "30 Feb 2013", "01 February 2013"]);
        check("EEEE, d MMMM", &["Friday, 29 February"], &["Friday, 30 February"]);
        check(
            "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            &["2013-01-31T06:00:00.123Z", "2013-01-31T06:00:00.123+01:00"],
            &["2013-01-31T06:00:00Z", "2013-01-31T24:00:00.123Z"],
        );
        check("hh:mm a", &["12:30 PM", "01:00 AM"], &["13:00 PM", "00:00 AM"]);
        check("yyyyDDD", &["2012366", "2013001"], &["2013366", "2013000"]);
        for bad in ["", "-", "yyy", "Q", "'yyyy", "MMMMM", "yyyy-MM-dd T"] {
            assert!(DatePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strftime_patterns() {
        check("%Y%m%d", &["20130131"], &["2013-01-31", "20130229"]);
        check("%F %T", &["2013-01-31 06:00:00"], &["2013-01-31T06:00:00", "2013-01-31 06:00"]);
        check("%d %b %Y %H:%M:%S.%f %z", &["01 Jan 2013 00:00:00.5 +0100"], &["01 Jan 2013 00:00:00 +0100"]);
        check("100%% %Y", &["100% 2013"], &["100%% 2013"]);
        for bad in ["%", "%Q", "100%%"] {
            assert!(DatePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rfc_3339() {
        for good in [
            "1985-04-12T23:20:50.52Z",
            "1996-12-19T16:39:57-08:00",
            "1990-12-31T23:59:60Z",
            "1990-12-31T15:59:60-08:00",
        ] {
            assert!(date_time(good), "{good}");
        }
        for bad in [
            "",
            "1985-04-12",
            "1985-04-12T23:20:50",
            "1985-04-12T23:20Z",
            "1990-12-31T22:59:60Z",
            "1985-02-30T00:00:00Z",
            "1985-04-12T23:20:50.Z",
            "1985-04-12T23:20:50+0100",
            "1985-04-12T24:00:00Z",
        ] {
            assert!(!date_time(bad), "{bad}");
        }
        assert!(time("06:00:00") && time("06:00:00.25+01:00") && time("06:00:00Z"));
        assert!(!time("06:00") && !time("6:00:00") && !time("é6:00:0"));
        assert!(full_date("2012-02-29") && !full_date("2013-02-29") && !full_date("20120229"));
    }

    proptest! {
        #[test]
        fn nothing_panics(pattern in "[yMdDEHhmsSaXxZ%'é .:-]{0,12}", text in "\\PC{0,20}") {
            let _ = (date_time(&text), time(&text), full_date(&text));
            if let Ok(pattern) = DatePattern::parse(&pattern) {
                let _ = pattern.matches(&text);
            }
        }
    }
}
