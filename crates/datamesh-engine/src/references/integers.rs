//! Sets of whole numbers: a bit each where they lie close together, as generated keys do, else by hash.

use datafusion::common::HashSet;

/// Numbers collected before duplicates are looked for.
const BATCH: usize = 1 << 20;

/// Numbers on their way to a set.
#[derive(Debug, Default)]
pub(super) struct Collected {
    numbers: Vec<i64>,
    /// How many of `numbers` are sorted and distinct.
    distinct: usize,
}

impl Collected {
    /// Adds a number. Answers how many may be distinct, once in a while; memory is a small multiple of that.
    pub(super) fn insert(&mut self, number: i64) -> Option<usize> {
        // Rows often repeat the key of the row before.
        if self.numbers.last() != Some(&number) {
            self.numbers.push(number);
        }
        (self.numbers.len() >= BATCH.max(2 * self.distinct)).then(|| self.settle())
    }

    fn settle(&mut self) -> usize {
        if !self.numbers.is_sorted() {
            self.numbers.sort_unstable();
        }
        self.numbers.dedup();
        self.distinct = self.numbers.len();
        self.distinct
    }

    /// The set of all that was added.
    pub(super) fn finish(mut self) -> Integers {
        self.settle();
        let (Some(first), Some(last)) = (self.numbers.first().copied(), self.numbers.last().copied()) else {
            return Integers::Sparse(HashSet::default());
        };
        let range = last.abs_diff(first);
        // At most the memory that the list itself takes.
        if range / 64 < self.numbers.len() as u64 {
            let mut bits = vec![0_u64; (range / 64) as usize + 1];
            for number in &self.numbers {
                let at = number.abs_diff(first);
                bits[(at / 64) as usize] |= 1 << (at % 64);
            }
            return Integers::Dense { first, bits };
        }
        Integers::Sparse(self.numbers.into_iter().collect())
    }
}

/// A set of whole numbers.
#[derive(Debug)]
pub(super) enum Integers {
    /// A bit for each number from `first` on.
    Dense {
        /// The least number.
        first: i64,
        /// Whether each is there.
        bits: Vec<u64>,
    },
    /// By hash.
    Sparse(HashSet<i64>),
}

impl Integers {
    pub(super) fn contains(&self, number: i64) -> bool {
        match self {
            Self::Dense { first, bits } => {
                let at = number.abs_diff(*first);
                number >= *first && bits.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
            }
            Self::Sparse(numbers) => numbers.contains(&number),
        }
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
        assert!(matches!(set(&[5, 4, 100]), Integers::Dense { first: 4, .. }));
        assert!(matches!(set(&[i64::MIN, i64::MAX]), Integers::Sparse(_)));
        assert!(matches!(set(&[i64::MIN]), Integers::Dense { .. }));
        assert!(!set(&[]).contains(0));
    }

    #[test]
    fn duplicates_do_not_pile_up() {
        let mut collected = Collected::default();
        let known: Vec<usize> = (0..3 * BATCH as i64).filter_map(|number| collected.insert(number % 10)).collect();
        assert!(!known.is_empty() && known.iter().all(|distinct| *distinct == 10), "{known:?}");
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
