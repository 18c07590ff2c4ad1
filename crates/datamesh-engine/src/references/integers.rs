//! Sets of whole numbers: a bit each where they lie close together, as generated keys do, else by hash.

use datafusion::common::HashSet;

/// Numbers collected before duplicates are looked for.
const BATCH: usize = 1 << 20;

/// Numbers on their way to a set.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Those that no bit stands for yet.
    numbers: Vec<i64>,
    /// How many of `numbers` are sorted and distinct.
    distinct: usize,
    /// Those that lie close together.
    bits: Bits,
}

impl Collected {
    /// Adds a number. Answers how many may be distinct, once in a while; memory is a small multiple of that.
    pub(super) fn insert(&mut self, number: i64) -> Option<usize> {
        if self.bits.insert(number) {
            return None;
        }
        // Rows often repeat the key of the row before.
        if self.numbers.last() != Some(&number) {
            self.numbers.push(number);
        }
        (self.numbers.len() >= BATCH.max(2 * self.distinct)).then(|| self.settle())
    }

    /// Gives the numbers a bit each where that takes no more memory than the list of them; else sorts out duplicates.
    fn settle(&mut self) -> usize {
        let known = self.bits.range();
        let all = self.numbers.iter().map(|number| (*number, *number)).chain(known);
        let around = all.reduce(|(least, greatest), (from, to)| (least.min(from), greatest.max(to)));
        let Some((first, last)) = around else { return 0 };
        let count = self.bits.count + self.numbers.len();
        if last.abs_diff(first) / 64 < count as u64 {
            self.bits.cover(first, last);
            let bits = &mut self.bits;
            // Those at the very ends of all numbers may have no bit.
            self.numbers.retain(|number| !bits.insert(*number));
            self.distinct = 0;
            return self.bits.count + self.numbers.len();
        }
        if !self.numbers.is_sorted() {
            self.numbers.sort_unstable();
        }
        self.numbers.dedup();
        self.distinct = self.numbers.len();
        self.bits.count + self.distinct
    }

    /// The set of all that was added.
    pub(super) fn finish(mut self) -> Integers {
        self.settle();
        Integers { bits: self.bits, others: self.numbers.into_iter().collect() }
    }
}

/// A bit for each number from `first` on.
#[derive(Debug, Default)]
struct Bits {
    first: i64,
    words: Vec<u64>,
    /// How many are set.
    count: usize,
}

impl Bits {
    /// The word and the bit of a number that has one.
    fn place(&self, number: i64) -> Option<(usize, u64)> {
        let at = number.abs_diff(self.first);
        (number >= self.first && at / 64 < self.words.len() as u64).then(|| ((at / 64) as usize, 1 << (at % 64)))
    }

    /// `false`: it has no bit.
    fn insert(&mut self, number: i64) -> bool {
        let Some((word, bit)) = self.place(number) else { return false };
        let word = &mut self.words[word];
        self.count += usize::from(*word & bit == 0);
        *word |= bit;
        true
    }

    fn contains(&self, number: i64) -> bool {
        self.place(number).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    /// The least and the greatest number that has a bit, set or not.
    fn range(&self) -> Option<(i64, i64)> {
        let last = (self.words.len() as u64 * 64).checked_sub(1)?;
        Some((self.first, self.first.saturating_add_unsigned(last)))
    }

    /// Gives a bit to every number of a range, which holds those that have one; to more than that, so that ranges that grow
    /// little by little are not copied each time.
    fn cover(&mut self, first: i64, last: i64) {
        let spare = self.words.len() as u64;
        let Some(own) = self.range() else {
            *self = Self { first, words: vec![0; words(first, last)], count: 0 };
            return;
        };
        // The words stay as they are: new ones come before and after them.
        let before = if first < own.0 { own.0.abs_diff(first).div_ceil(64) + spare } else { 0 };
        let before = before.min(own.0.abs_diff(i64::MIN) / 64);
        let after = if last > own.1 { last.abs_diff(own.1).div_ceil(64) + spare } else { 0 };
        let mut wider = vec![0; before as usize + self.words.len() + after as usize];
        wider[before as usize..][..self.words.len()].copy_from_slice(&self.words);
        self.first = self.first.saturating_sub_unsigned(before * 64);
        self.words = wider;
    }
}

/// So many words have a bit for each number of a range.
fn words(first: i64, last: i64) -> usize {
    (last.abs_diff(first) / 64) as usize + 1
}

/// A set of whole numbers.
#[derive(Debug)]
pub(super) struct Integers {
    bits: Bits,
    /// Those that lie too far apart, by hash.
    others: HashSet<i64>,
}

impl Integers {
    pub(super) fn contains(&self, number: i64) -> bool {
        self.bits.contains(number) || (!self.others.is_empty() && self.others.contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(numbers: &[i64]) -> Integers {
        let mut collected = Collected::default();
        for number in numbers {
            collected.insert(*number);
        }
        collected.finish()
    }

    #[test]
    fn close_numbers_take_a_bit_each() {
        let close = set(&[5, 4, 100]);
        assert!(close.bits.first == 4 && close.bits.count == 3 && close.others.is_empty(), "{close:?}");
        assert_eq!(set(&[i64::MIN, i64::MAX]).others.len(), 2);
        for one in [i64::MIN, i64::MAX] {
            assert!(set(&[one]).others.is_empty() && set(&[one]).contains(one));
        }
        assert!(!set(&[]).contains(0));
    }

    #[test]
    fn duplicates_do_not_pile_up() {
        let mut collected = Collected::default();
        let known: Vec<usize> = (0..3 * BATCH as i64).filter_map(|number| collected.insert(number % 10)).collect();
        assert!(!known.is_empty() && known.iter().all(|distinct| *distinct == 10), "{known:?}");
    }

    #[test]
    fn numbers_that_come_later_get_their_bits_too() {
        let mut collected = Collected::default();
        let upwards = (0..3 * BATCH as i64).map(|number| 5 * number);
        let downwards = (0..2 * BATCH as i64).map(|number| -3 * number);
        let far = [i64::MIN, i64::MAX, 1 << 60];
        let known: Vec<usize> =
            upwards.clone().chain(downwards.clone()).chain(far).filter_map(|number| collected.insert(number)).collect();
        assert!(known.is_sorted() && known.len() >= 2, "{known:?}");
        let found = collected.finish();
        assert_eq!(found.bits.count + found.others.len(), 5 * BATCH + 2);
        assert!(found.bits.count >= 4 * BATCH);
        assert!(upwards.clone().chain(downwards).chain(far).all(|number| found.contains(number)));
        assert!(upwards.into_iter().all(|number| !found.contains(number + 1)));
    }

    #[test]
    fn numbers_at_the_ends_of_all_numbers_are_found() {
        for near in [[i64::MIN + 10, i64::MIN, i64::MIN + 70], [i64::MAX - 70, i64::MAX, i64::MAX - 1]] {
            let mut collected = Collected::default();
            for number in near {
                collected.insert(number);
                collected.settle();
            }
            let found = collected.finish();
            assert!(near.iter().all(|number| found.contains(*number)), "{found:?}");
            assert!(!found.contains(0) && !found.contains(near[0] + 2));
        }
    }

    proptest! {
        #[test]
        fn what_was_added_is_found_and_nothing_else(
            numbers in prop::collection::vec(prop_oneof![-200_i64..200, any::<i64>()], 0..300),
            others in prop::collection::vec(prop_oneof![-300_i64..300, any::<i64>()], 0..300),
        ) {
            let (found, wanted) = (set(&numbers), numbers.iter().copied().collect::<BTreeSet<_>>());
            for number in numbers.iter().chain(&others) {
                prop_assert_eq!(found.contains(*number), wanted.contains(number));
            }
        }
    }
}
