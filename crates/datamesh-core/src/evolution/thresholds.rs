//! The values that a threshold accepts, as sets that can be compared.

use crate::quality::{Metric, MetricRule, Statistic, Threshold, Unit};

/// What measurements can be at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    /// Whether only whole numbers occur.
    whole: bool,
    low: f64,
    high: f64,
}

impl Range {
    /// The measurements that a rule can make.
    pub(super) fn of(rule: &MetricRule) -> Self {
        let everything = Self { whole: false, low: f64::NEG_INFINITY, high: f64::INFINITY };
        let counts = Self { whole: true, low: 0.0, high: f64::INFINITY };
        if rule.compare_to.is_some() && rule.reference().is_none() {
            // A difference, or a share of another measurement.
            return everything;
        }
        match (&rule.metric, rule.unit) {
            (metric, Unit::Percent) if metric.counts_rows() => Self { whole: false, low: 0.0, high: 100.0 },
            (metric, _) if metric.counts_rows() => counts,
            (Metric::RowCount | Metric::SequenceGaps { .. }, _) => counts,
            (Metric::Statistic { statistic: Statistic::CountDistinct, .. }, _) => counts,
            _ => everything,
        }
    }
}

/// An interval: `low` to `high`, each included or not.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Interval {
    low: f64,
    with_low: bool,
    high: f64,
    with_high: bool,
}

impl Interval {
    fn is_empty(self) -> bool {
        self.low > self.high || (self.low == self.high && !(self.with_low && self.with_high))
    }

    fn is_within(self, other: Self) -> bool {
        let low = self.low > other.low || (self.low == other.low && (other.with_low || !self.with_low));
        let high = self.high < other.high || (self.high == other.high && (other.with_high || !self.with_high));
        low && high
    }
}

/// The measurements that a threshold accepts: disjoint intervals in order, none of which touch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accepted(Vec<Interval>);

impl Accepted {
    /// The measurements in `range` that `threshold` accepts, its bounds multiplied by `scale` (a unit's length).
    pub(super) fn of(threshold: Threshold, range: Range, scale: f64) -> Self {
        let all = (f64::NEG_INFINITY, false, f64::INFINITY, false);
        let intervals = match threshold {
            Threshold::MustBe(bound) => vec![(bound, true, bound, true)],
            Threshold::MustNotBe(bound) => vec![(all.0, false, bound, false), (bound, false, all.2, false)],
            Threshold::MustBeGreaterThan(bound) => vec![(bound, false, all.2, false)],
            Threshold::MustBeGreaterOrEqualTo(bound) => vec![(bound, true, all.2, false)],
            Threshold::MustBeLessThan(bound) => vec![(all.0, false, bound, false)],
            Threshold::MustBeLessOrEqualTo(bound) => vec![(all.0, false, bound, true)],
            Threshold::MustBeBetween(low, high) => vec![(low, true, high, true)],
            Threshold::MustNotBeBetween(low, high) if low > high => vec![all],
            Threshold::MustNotBeBetween(low, high) => vec![(all.0, false, low, false), (high, false, all.2, false)],
        };
        let scaled = intervals.into_iter().map(|(low, with_low, high, with_high)| Interval {
            low: low * scale,
            with_low,
            high: high * scale,
            with_high,
        });
        let mut found: Vec<Interval> = Vec::new();
        for interval in scaled.map(|interval| clip(interval, range)).filter(|interval| !interval.is_empty()) {
            match found.last_mut() {
                Some(last) if touch(*last, interval, range.whole) => {
                    (last.high, last.with_high) = (interval.high, interval.with_high);
                }
                _ => found.push(interval),
            }
        }
        Self(found)
    }

    /// Whether everything in it is in `other` too.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|interval| other.0.iter().any(|outer| interval.is_within(*outer)))
    }
}

/// Whether nothing lies between two intervals, the first of which is the lower one.
fn touch(lower: Interval, upper: Interval, whole: bool) -> bool {
    if whole {
        lower.high + 1.0 >= upper.low
    } else {
        lower.high > upper.low || (lower.high == upper.low && (lower.with_high || upper.with_low))
    }
}

/// An interval within what can occur; of whole numbers with its ends included.
fn clip(interval: Interval, range: Range) -> Interval {
    let mut clipped = interval;
    if clipped.low < range.low {
        (clipped.low, clipped.with_low) = (range.low, true);
    }
    if clipped.high > range.high {
        (clipped.high, clipped.with_high) = (range.high, true);
    }
    if range.whole {
        if clipped.low.is_finite() {
            let least = clipped.low.ceil();
            clipped.low = if least == clipped.low && !clipped.with_low { least + 1.0 } else { least };
            clipped.with_low = true;
        }
        if clipped.high.is_finite() {
            let most = clipped.high.floor();
            clipped.high = if most == clipped.high && !clipped.with_high { most - 1.0 } else { most };
            clipped.with_high = true;
        }
    }
    clipped
}
