//! Lengths of time as contracts write them: `90d`, `3y`, `1h`, or ISO 8601 (`P3Y`, `PT1H`).

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, Days, Duration, Months, Utc};

/// A calendar period: months, days and seconds, which cannot be turned into one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    months: u32,
    days: u64,
    seconds: u64,
}

impl Period {
    /// Reads `3y`, `6mo`, `2w`, `90d`, `12h`, `30min` (or `30m`), `45s`, several of them in a row (`1y 6mo`), or an ISO 8601 duration.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let wrong = || format!("`{text}` is no length of time; write for example `90d`, `3y`, `12h` or `P3Y`");
        let mut period = Self::default();
        let (mut rest, iso) = match trimmed.strip_prefix(['P', 'p']) {
            Some(rest) => (rest, true),
            None => (trimmed, false),
        };
        let mut in_time = false;
        let mut parts = 0;
        while !rest.is_empty() {
            rest = rest.trim_start();
            if iso
                && !in_time
                && let Some(after) = rest.strip_prefix(['T', 't'])
            {
                in_time = true;
                rest = after;
            }
            let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
            let amount: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
            // ISO 8601 writes its units without a space between them, one letter each.
            let letters = if iso { letters.min(1) } else { letters };
            let unit = rest[..letters].to_ascii_lowercase();
            rest = &rest[letters..];
            period.add(amount, &unit, iso && !in_time).ok_or_else(wrong)?;
            parts += 1;
        }
        if parts == 0 { Err(wrong()) } else { Ok(period) }
    }

    fn add(&mut self, amount: u64, unit: &str, date: bool) -> Option<()> {
        let months = |years: u64| u32::try_from(years).ok();
        match unit {
            "y" | "yr" | "year" | "years" => {
                self.months = self.months.checked_add(months(amount.checked_mul(12)?)?)?;
            }
            "mo" | "month" | "months" => self.months = self.months.checked_add(months(amount)?)?,
            "m" if date => self.months = self.months.checked_add(months(amount)?)?,
            "w" | "week" | "weeks" => self.days = self.days.checked_add(amount.checked_mul(7)?)?,
            "d" | "day" | "days" => self.days = self.days.checked_add(amount)?,
            "h" | "hour" | "hours" => self.seconds = self.seconds.checked_add(amount.checked_mul(3600)?)?,
            "m" | "min" | "minute" | "minutes" => {
                self.seconds = self.seconds.checked_add(amount.checked_mul(60)?)?;
            }
            "s" | "sec" | "second" | "seconds" => self.seconds = self.seconds.checked_add(amount)?,
            _ => return None,
        }
        Some(())
    }

    /// Which of two periods is longer, wherever on the calendar they lie; `None` where that depends on the months meant.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        // What both have in common does not matter.
        let months = self.months.min(other.months);
        let bounds = |period: Self| {
            let (years, rest) = (u128::from((period.months - months) / 12), u128::from((period.months - months) % 12));
            let rest = |year: u128, month: u128| years * year + rest * month + u128::from(period.days);
            let seconds = |days: u128| days * 86_400 + u128::from(period.seconds);
            (seconds(rest(365, 28)), seconds(rest(366, 31)))
        };
        let ((least, most), (other_least, other_most)) = (bounds(self), bounds(other));
        if least == most && other_least == other_most && least == other_least {
            Some(Ordering::Equal)
        } else if least >= other_most {
            Some(Ordering::Greater)
        } else if most <= other_least {
            Some(Ordering::Less)
        } else {
            None
        }
    }

    /// The instant that lies this long before `now`; the earliest there is where the calendar does not reach back so far.
    pub fn before(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let seconds = i64::try_from(self.seconds).ok().and_then(Duration::try_seconds);
        now.checked_sub_months(Months::new(self.months))
            .and_then(|time| time.checked_sub_days(Days::new(self.days)))
            .and_then(|time| time.checked_sub_signed(seconds?))
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
    }
}

impl Period {
    /// The instant that lies this long after `now`; the latest there is where the calendar does not reach so far.
    pub fn after(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let seconds = i64::try_from(self.seconds).ok().and_then(Duration::try_seconds);
        now.checked_add_months(Months::new(self.months))
            .and_then(|time| time.checked_add_days(Days::new(self.days)))
            .and_then(|time| time.checked_add_signed(seconds?))
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (u64::from(self.months / 12), "y"),
            (u64::from(self.months % 12), "mo"),
            (self.days, "d"),
            (self.seconds / 3600, "h"),
            (self.seconds % 3600 / 60, "min"),
            (self.seconds % 60, "s"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(amount, _)| *amount > 0).map(|(amount, unit)| format!("{amount}{unit}")).collect();
        f.write_str(if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read() {
        for (text, shown) in [
            ("3y", "3y"),
            ("90d", "90d"),
            ("2w", "14d"),
            ("1h", "1h"),
            ("30m", "30min"),
            ("1y 6mo", "1y 6mo"),
            ("P3Y", "3y"),
            ("P1M", "1mo"),
            ("PT1M", "1min"),
            ("P1Y2M3DT4H5M6S", "1y 2mo 3d 4h 5min 6s"),
            ("0s", "0s"),
            ("12 hours", "12h"),
        ] {
            assert_eq!(Period::parse(text).map(|period| period.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in ["", "P", "3", "y", "3 parsecs", "-1d", "1.5h", "99999999999999999999y", "5000000000y", "3yy"] {
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn periods_are_compared_where_the_calendar_does_not_matter() {
        let compare =
            |a: &str, b: &str| Period::parse(a).expect("a period").compare(Period::parse(b).expect("a period"));
        for (a, b, order) in [
            ("4h", "240min", Some(Ordering::Equal)),
            ("1d", "24h", Some(Ordering::Equal)),
            ("3y", "1y", Some(Ordering::Greater)),
            ("36mo", "3y", Some(Ordering::Equal)),
            ("1y", "365d", Some(Ordering::Greater)),
            ("1y", "366d", Some(Ordering::Less)),
            ("1mo", "30d", None),
            ("1mo 1d", "1mo 25h", Some(Ordering::Less)),
            ("1mo", "28d", Some(Ordering::Greater)),
        ] {
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.map(Ordering::reverse), "{b} {a}");
        }
    }

    #[test]
    fn months_follow_the_calendar() {
        let now = DateTime::parse_from_rfc3339("2024-03-31T12:00:00Z").expect("a time").with_timezone(&Utc);
        let before = |text: &str| Period::parse(text).expect("a period").before(now).to_rfc3339();
        assert_eq!(before("1mo"), "2024-02-29T12:00:00+00:00");
        assert_eq!(before("1y 1d"), "2023-03-30T12:00:00+00:00");
        assert_eq!(Period::parse("4000000y").map_or(now, |period| period.before(now)), DateTime::<Utc>::MIN_UTC);
    }
}
