//! Summaries of many values in little memory: how many differ, how they are distributed, which are frequent.
//!
//! All are deterministic: the same values in the same order give the same answer.

use std::collections::{HashMap, HashSet};

/// Estimates how many distinct hashes were seen (HyperLogLog; Flajolet et al. 2007, with linear counting below).
#[derive(Clone, Debug)]
pub struct HyperLogLog {
    registers: Vec<u8>,
}

/// 2^14 registers: a standard error of 0.8 %.
const PRECISION: u32 = 14;

impl Default for HyperLogLog {
    fn default() -> Self {
        Self { registers: vec![0; 1 << PRECISION] }
    }
}

impl HyperLogLog {
    /// Adds a value by its hash, which must be evenly distributed.
    pub fn add(&mut self, hash: u64) {
        let register = (hash >> (64 - PRECISION)) as usize;
        let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
        self.registers[register] = self.registers[register].max(rank);
    }

    /// The estimate.
    pub fn estimate(&self) -> u64 {
        let count = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|rank| 2_f64.powi(-i32::from(*rank))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let zeros = self.registers.iter().filter(|rank| **rank == 0).count();
        let estimate = if raw <= 2.5 * count && zeros > 0 { count * (count / zeros as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

/// What became of a value that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is the first of its kind.
    New,
    /// There was one like it.
    Known,
    /// There are too many to tell.
    Unsure,
    /// It is new, and one too many: these are all hashes so far, which are no longer kept.
    Overflow(HashSet<u128>),
}

/// How many values differ: exactly while they are few, else estimated.
#[derive(Clone, Debug)]
pub struct DistinctCounter {
    bound: usize,
    seen: Option<HashSet<u128>>,
    estimate: HyperLogLog,
}

impl DistinctCounter {
    /// Exact up to `bound` distinct values.
    pub fn new(bound: usize) -> Self {
        Self { bound, seen: Some(HashSet::new()), estimate: HyperLogLog::default() }
    }

    /// Adds a value by its hash.
    pub fn add(&mut self, hash: u128) -> Added {
        self.estimate.add(hash as u64);
        let Some(seen) = self.seen.as_mut() else { return Added::Unsure };
        if !seen.insert(hash) {
            return Added::Known;
        }
        if seen.len() <= self.bound {
            return Added::New;
        }
        Added::Overflow(self.seen.take().unwrap_or_default())
    }

    /// The count, and whether it is exact.
    pub fn count(&self) -> (u64, bool) {
        match &self.seen {
            Some(seen) => (seen.len() as u64, true),
            None => (self.estimate.estimate(), false),
        }
    }
}

/// Quantiles of a stream of numbers (KLL; Karnin, Lang and Liberty 2016): rank errors are about 1 %.
#[derive(Clone, Debug, Default)]
pub struct Quantiles {
    levels: Vec<Vec<f64>>,
    count: u64,
    odd: bool,
}

/// Numbers kept in a level before every second one moves up.
const LEVEL: usize = 512;

impl Quantiles {
    /// Adds a number; NaN is left out.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.count += 1;
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        self.levels[0].push(value);
        let mut level = 0;
        while self.levels[level].len() >= LEVEL {
            let mut full = std::mem::take(&mut self.levels[level]);
            full.sort_by(f64::total_cmp);
            if self.levels.len() == level + 1 {
                self.levels.push(Vec::new());
            }
            // Which half moves up alternates, so that errors cancel out.
            self.odd = !self.odd;
            let kept = full.iter().skip(usize::from(self.odd)).step_by(2).copied();
            self.levels[level + 1].extend(kept);
            level += 1;
        }
    }

    fn weighted(&self) -> Vec<(f64, u64)> {
        let weigh = |(level, values): (usize, &Vec<f64>)| {
            values.iter().map(move |value| (*value, 1_u64 << level)).collect::<Vec<_>>()
        };
        let mut all: Vec<(f64, u64)> = self.levels.iter().enumerate().flat_map(weigh).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }

    /// Whether every number is still there.
    pub fn is_exact(&self) -> bool {
        self.levels.len() <= 1
    }

    /// The values at these shares (0 to 1) of the numbers; empty where there is none. Of exact numbers the two around a
    /// share are interpolated.
    pub fn at(&self, shares: &[f64]) -> Vec<f64> {
        let all = self.weighted();
        if self.is_exact() && !all.is_empty() {
            let between = |share: &f64| {
                let rank = share.clamp(0.0, 1.0) * (all.len() - 1) as f64;
                let (below, above) = (all[rank.floor() as usize].0, all[rank.ceil() as usize].0);
                // Equal infinities have no difference.
                if below == above { below } else { below + (above - below) * rank.fract() }
            };
            return shares.iter().map(between).collect();
        }
        let total: u64 = all.iter().map(|(_, weight)| weight).sum();
        let Some(last) = all.last() else { return Vec::new() };
        let find = |share: &f64| {
            let wanted = (share * total as f64).ceil().max(1.0) as u64;
            let mut passed = 0;
            let found = all.iter().find(|(_, weight)| {
                passed += weight;
                passed >= wanted
            });
            found.unwrap_or(last).0
        };
        shares.iter().map(find).collect()
    }

    /// How many numbers fall into each of `bins` equally wide parts of `least` to `most`.
    pub fn histogram(&self, least: f64, most: f64, bins: usize) -> Vec<u64> {
        let mut counts = vec![0.0; bins];
        let all = self.weighted();
        let total: u64 = all.iter().map(|(_, weight)| weight).sum();
        let width = most - least;
        if total == 0 || !width.is_finite() {
            return vec![0; bins];
        }
        for (value, weight) in all.into_iter().filter(|(value, _)| value.is_finite()) {
            let bin = if width > 0.0 { ((value - least) / width * bins as f64) as usize } else { 0 };
            counts[bin.min(bins - 1)] += weight as f64 * self.count as f64 / total as f64;
        }
        counts.into_iter().map(|count| count.round() as u64).collect()
    }
}

/// The most frequent values: exact while few differ, else by pruning the rare ones again and again, which can only
/// make counts too small.
#[derive(Clone, Debug)]
pub struct TopValues<V> {
    bound: usize,
    values: HashMap<u128, (V, u64)>,
    /// The most that any count can be too small by; 0 while exact.
    error: u64,
    added: u64,
    hopeless: bool,
}

impl<V> TopValues<V> {
    /// Keeps at most `bound` values.
    pub fn new(bound: usize) -> Self {
        Self { bound, values: HashMap::new(), error: 0, added: 0, hopeless: false }
    }

    /// Counts a value by its hash; `make` is called where it is new.
    pub fn add(&mut self, hash: u128, make: impl FnOnce() -> V) {
        if self.hopeless {
            return;
        }
        self.added += 1;
        self.values.entry(hash).or_insert_with(|| (make(), 0)).1 += 1;
        if self.values.len() > self.bound {
            self.prune();
        }
    }

    fn prune(&mut self) {
        let mut counts: Vec<u64> = self.values.values().map(|(_, count)| *count).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let highest = counts.first().copied().unwrap_or(0);
        let limit = counts[counts.len() / 2];
        self.values.retain(|_, (_, count)| *count > limit);
        self.error += limit;
        // Where no value stands out after many thousand, none will be worth telling.
        if self.added > 64 * self.bound as u64 && highest * 1000 < self.added {
            self.hopeless = true;
            self.values.clear();
        }
    }

    /// Whether every value is there with its true count.
    pub fn is_exact(&self) -> bool {
        self.error == 0 && !self.hopeless
    }

    /// The values with their counts, the most frequent first; ties by `order`.
    pub fn into_sorted<K: Ord>(self, order: impl Fn(&V) -> K) -> Vec<(V, u64)> {
        let mut all: Vec<(V, u64)> = self.values.into_values().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| order(&a.0).cmp(&order(&b.0))));
        all
    }
}

#[cfg(test)]
mod tests {
    use twox_hash::XxHash3_128;

    use super::*;

    fn hash(number: u64) -> u128 {
        XxHash3_128::oneshot(&number.to_le_bytes())
    }

    #[test]
    fn distinct_is_exact_up_to_the_bound_and_close_beyond() {
        for (bound, count) in [(1000, 10_u64), (1000, 1000), (1000, 20_000), (1000, 300_000)] {
            let mut counter = DistinctCounter::new(bound);
            for number in (0..count).chain(0..count) {
                counter.add(hash(number));
            }
            let (found, exact) = counter.count();
            assert_eq!(exact, count <= bound as u64);
            assert!(
                found.abs_diff(count) as f64 <= if exact { 0.0 } else { count as f64 * 0.03 },
                "{found} of {count}"
            );
        }
    }

    #[test]
    fn quantiles_are_close() {
        let mut quantiles = Quantiles::default();
        let count = 100_000_u64;
        for number in 0..count {
            // A permutation of the numbers below `count`.
            quantiles.add((number * 7919 % count) as f64);
        }
        for (share, found) in [0.01, 0.25, 0.5, 0.75, 0.99].iter().zip(quantiles.at(&[0.01, 0.25, 0.5, 0.75, 0.99])) {
            assert!((found / count as f64 - share).abs() < 0.01, "{share}: {found}");
        }
        assert!(!quantiles.is_exact());
        let bins = quantiles.histogram(0.0, count as f64, 4);
        assert!(bins.iter().all(|bin| bin.abs_diff(count / 4) < count / 50), "{bins:?}");
    }

    #[test]
    fn few_numbers_are_kept_exactly() {
        let mut quantiles = Quantiles::default();
        [3.0, 1.0, f64::NAN, 2.0].into_iter().for_each(|value| quantiles.add(value));
        assert_eq!(quantiles.at(&[0.0, 0.5, 1.0]), [1.0, 2.0, 3.0]);
        assert!(quantiles.is_exact());
        quantiles.add(10.0);
        assert_eq!(quantiles.at(&[0.25, 0.5, 0.75]), [1.75, 2.5, 4.75], "between two numbers");
        assert_eq!(Quantiles::default().at(&[0.5]), Vec::<f64>::new());
    }

    #[test]
    fn frequent_values_survive_many_rare_ones() {
        let mut top = TopValues::new(100);
        for number in 0..100_000_u64 {
            let value = if number % 3 == 0 { 7 } else { 1_000_000 + number };
            top.add(hash(value), || value);
        }
        assert!(!top.is_exact());
        let (value, count) = top.into_sorted(|value| *value)[0];
        assert_eq!(value, 7);
        assert!((33_000..=33_334).contains(&count), "{count}");
    }
}
