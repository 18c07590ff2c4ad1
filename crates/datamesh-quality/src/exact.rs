//! Exact sums of numbers: fixed point numbers wide enough for every double and its square.
//!
//! A sum that is exact does not depend on the order of its parts: merging is associative and commutative, and what was
//! added can be taken back. The representation is the "small superaccumulator" of R. Neal, "Fast exact summation using
//! small and large superaccumulators" (2015), with limbs of 32 bits.

/// Limbs below the point of a sum: 2^-1088 is below the least double, 2^-1074.
const SUM_FRACTION: usize = 34;
/// Limbs above the point of a sum: 2^1088 is 2^64 times the greatest double.
const SUM_WHOLE: usize = 35;
/// Additions before carries must be passed on, so that no limb overflows.
const MAX_PENDING: u32 = 1 << 28;

/// An exact sum of numbers with at most 64 bits of fraction beyond what a double has, of up to 2^64 terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactSum {
    /// Little end first; each but the last is within 0..2^32 once carries are passed on.
    limbs: Vec<i64>,
    fraction: usize,
    pending: u32,
}

/// A finite double as `mantissa * 2^exponent`.
fn decode(value: f64) -> (bool, u64, i32) {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    (bits >> 63 == 1, mantissa, exponent)
}

fn split(value: u128) -> [u32; 4] {
    std::array::from_fn(|at| (value >> (32 * at)) as u32)
}

impl ExactSum {
    /// A sum of values.
    pub fn of_values() -> Self {
        Self { limbs: vec![0; SUM_FRACTION + SUM_WHOLE], fraction: SUM_FRACTION, pending: 0 }
    }

    /// A sum of squares of values.
    pub fn of_squares() -> Self {
        Self { limbs: vec![0; 2 * (SUM_FRACTION + SUM_WHOLE)], fraction: 2 * SUM_FRACTION, pending: 0 }
    }

    /// Adds a finite double.
    pub fn add_double(&mut self, value: f64) {
        let (negative, mantissa, exponent) = decode(value);
        self.add(&split(mantissa.into())[..2], exponent, negative);
    }

    /// Adds the square of a finite double.
    pub fn add_double_squared(&mut self, value: f64) {
        let (_, mantissa, exponent) = decode(value);
        self.add(&split(u128::from(mantissa) * u128::from(mantissa)), 2 * exponent, false);
    }

    /// Adds an integer.
    pub fn add_integer(&mut self, value: i128) {
        self.add(&split(value.unsigned_abs()), 0, value < 0);
    }

    /// Adds the square of an integer.
    pub fn add_integer_squared(&mut self, value: i128) {
        let limbs = split(value.unsigned_abs());
        self.add(&multiply(&limbs, &limbs), 0, false);
    }

    fn add(&mut self, limbs: &[u32], exponent: i32, negative: bool) {
        let bit = (exponent + 32 * self.fraction as i32) as usize;
        let (first, shift) = (bit / 32, bit % 32);
        for (at, limb) in limbs.iter().enumerate().filter(|(_, limb)| **limb != 0) {
            let shifted = u64::from(*limb) << shift;
            let (low, high) = ((shifted & 0xffff_ffff) as i64, (shifted >> 32) as i64);
            let sign = if negative { -1 } else { 1 };
            self.limbs[first + at] += sign * low;
            self.limbs[first + at + 1] += sign * high;
        }
        self.pending += 1;
        if self.pending >= MAX_PENDING {
            self.settle();
        }
    }

    /// Passes carries on, so that equal sums are equal limb by limb.
    pub fn settle(&mut self) {
        if self.pending == 0 {
            return;
        }
        for at in 0..self.limbs.len() - 1 {
            let carry = self.limbs[at] >> 32;
            self.limbs[at] &= 0xffff_ffff;
            self.limbs[at + 1] += carry;
        }
        self.pending = 0;
    }

    /// Adds, or takes back, another sum of the same kind.
    pub fn combine(&mut self, other: &Self, sign: i64) {
        let mut other = other.clone();
        other.settle();
        self.settle();
        for (limb, other) in self.limbs.iter_mut().zip(&other.limbs) {
            *limb += sign * other;
        }
        self.pending = 1;
        self.settle();
    }

    /// Appends the sum in few bytes: sign, first limb, number of limbs, limbs.
    pub fn pack(&self, out: &mut Vec<u8>) {
        let (negative, limbs) = self.magnitude();
        let first = limbs.iter().position(|limb| *limb != 0).unwrap_or(limbs.len());
        let end = limbs.iter().rposition(|limb| *limb != 0).map_or(first, |last| last + 1);
        out.push(u8::from(negative));
        out.extend((first as u16).to_le_bytes());
        out.extend(((end - first) as u16).to_le_bytes());
        out.extend(limbs[first..end].iter().flat_map(|limb| limb.to_le_bytes()));
    }

    /// Adds a packed sum of the same kind, and takes it off `bytes`; `None` where they are none.
    pub fn add_packed(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let [negative] = take(bytes)?;
        let first = usize::from(u16::from_le_bytes(take(bytes)?));
        let count = usize::from(u16::from_le_bytes(take(bytes)?));
        let sign = if negative == 1 { -1 } else { 1 };
        self.settle();
        for at in first..first + count {
            let limb = sign * i64::from(u32::from_le_bytes(take(bytes)?));
            if at == self.limbs.len() {
                // The last limb holds more than 32 bits.
                *self.limbs.last_mut()? += limb << 32;
            } else {
                *self.limbs.get_mut(at)? += limb;
            }
        }
        self.pending = 1;
        self.settle();
        Some(())
    }

    /// Sign and magnitude.
    fn magnitude(&self) -> (bool, Vec<u32>) {
        let mut sum = self.clone();
        sum.pending = 1;
        sum.settle();
        let negative = sum.limbs.last().is_some_and(|limb| *limb < 0);
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.pending = 1;
            sum.settle();
        }
        let mut limbs: Vec<u32> = sum.limbs.iter().map(|limb| *limb as u32).collect();
        limbs.push(sum.limbs.last().map_or(0, |limb| (limb >> 32) as u32));
        (negative, limbs)
    }

    /// The sum divided by `divisor`, rounded at most twice.
    pub fn divided_by(&self, divisor: f64) -> f64 {
        let (negative, limbs) = self.magnitude();
        let (mantissa, exponent) = leading(&limbs);
        let value = scale(mantissa / divisor, exponent - 32 * self.fraction as i32);
        if negative { -value } else { value }
    }
}

/// Takes the first bytes off.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// The standard deviation of a sample of `count` values with these sums, both exact; `None` for fewer than two values.
pub fn standard_deviation(sum: &ExactSum, squares: &ExactSum, count: u64) -> Option<f64> {
    if count < 2 {
        return None;
    }
    // The variance is (n * squares - sum^2) / (n * (n - 1)); the numerator is exact, so nothing cancels.
    let (_, sum) = sum.magnitude();
    let (_, squares) = squares.magnitude();
    let mut difference = multiply(&squares, &split(count.into())[..2]);
    let mut borrow = 0_i64;
    let square = multiply(&sum, &sum);
    difference.resize(difference.len().max(square.len()), 0);
    for (at, limb) in difference.iter_mut().enumerate() {
        let value = i64::from(*limb) - i64::from(square.get(at).copied().unwrap_or(0)) + borrow;
        *limb = value as u32;
        borrow = value >> 32;
    }
    let (mantissa, exponent) = leading(&difference);
    let mut exponent = exponent - 64 * SUM_FRACTION as i32;
    let count = count as f64;
    let mut variance = mantissa / (count * (count - 1.0));
    if exponent % 2 != 0 {
        variance *= 2.0;
        exponent -= 1;
    }
    Some(scale(variance.sqrt(), exponent / 2))
}

fn multiply(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut out = vec![0_u32; a.len() + b.len()];
    for (i, a) in a.iter().enumerate().filter(|(_, a)| **a != 0) {
        let mut carry = 0_u64;
        for (j, b) in b.iter().enumerate() {
            let value = u64::from(*a) * u64::from(*b) + u64::from(out[i + j]) + carry;
            out[i + j] = value as u32;
            carry = value >> 32;
        }
        out[i + b.len()] = carry as u32;
    }
    out
}

/// The leading 64 bits as a double, correctly rounded, and the exponent of its last bit.
fn leading(limbs: &[u32]) -> (f64, i32) {
    let Some(top) = limbs.iter().rposition(|limb| *limb != 0) else { return (0.0, 0) };
    let limb = |at: usize| if at <= top { u128::from(limbs[top - at]) } else { 0 };
    let window = limb(0) << 64 | limb(1) << 32 | limb(2);
    let shift = 32 - limbs[top].leading_zeros();
    let mut mantissa = (window >> shift) as u64;
    let dropped = window & ((1 << shift) - 1) != 0 || limbs[..top.saturating_sub(2)].iter().any(|limb| *limb != 0);
    // A bit that stands for everything dropped makes the one rounding to a double right.
    mantissa |= u64::from(dropped);
    (mantissa as f64, 32 * (top as i32 - 2) + shift as i32)
}

/// `value * 2^exponent`, without overflow on the way.
fn scale(mut value: f64, mut exponent: i32) -> f64 {
    while exponent > 1000 {
        value *= 2.0_f64.powi(1000);
        exponent -= 1000;
    }
    while exponent < -1000 {
        value *= 2.0_f64.powi(-1000);
        exponent += 1000;
        if value == 0.0 {
            return value;
        }
    }
    value * 2.0_f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::of_values();
        values.iter().for_each(|value| sum.add_double(*value));
        sum.settle();
        sum
    }

    fn deviation(values: &[f64]) -> Option<f64> {
        let (mut sum, mut squares) = (ExactSum::of_values(), ExactSum::of_squares());
        for value in values {
            sum.add_double(*value);
            squares.add_double_squared(*value);
        }
        standard_deviation(&sum, &squares, values.len() as u64)
    }

    #[test]
    fn sums_are_correctly_rounded() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![0.1, 0.2, -0.1, -0.2], 0.0),
            (vec![1e308, 1e308, -1e308], 1e308),
            (vec![1e308, 1e308], f64::INFINITY),
            (vec![1e100, 1.0, -1e100], 1.0),
            (vec![f64::from_bits(1), f64::from_bits(1)], f64::from_bits(2)),
            (vec![f64::MAX, f64::from_bits(1), -f64::MAX], f64::from_bits(1)),
            (vec![-1.5, -2.5], -4.0),
            (vec![9_007_199_254_740_992.0, 1.0], 9_007_199_254_740_992.0),
            (vec![9_007_199_254_740_992.0, 1.0, 1.0], 9_007_199_254_740_994.0),
        ] {
            assert_eq!(sum(&values).divided_by(1.0), expected, "{values:?}");
        }
        assert_eq!(sum(&[1e308, 1e308, 1e308]).divided_by(3.0), 1e308);
    }

    #[test]
    fn deviations_neither_cancel_nor_overflow() {
        assert_eq!(deviation(&[1.0]), None);
        assert_eq!(deviation(&[]), None);
        assert_eq!(deviation(&[3.0, 3.0, 3.0]), Some(0.0));
        assert_eq!(deviation(&[1.0, 3.0]), Some(2.0_f64.sqrt()));
        assert_eq!(deviation(&[1e15 + 1.0, 1e15 + 3.0]), Some(2.0_f64.sqrt()));
        let huge = deviation(&[1e300, -1e300]).expect("two values");
        assert!((huge / 1e300 - 2.0_f64.sqrt()).abs() < 1e-15, "{huge}");
        let tiny = deviation(&[1e-300, -1e-300]).expect("two values");
        assert!((tiny / 1e-300 - 2.0_f64.sqrt()).abs() < 1e-15, "{tiny}");
    }

    #[test]
    fn integers_of_any_size_are_summed() {
        let mut sum = ExactSum::of_values();
        for value in [i128::MAX, i128::MAX, i128::MIN, 5, -3] {
            sum.add_integer(value);
        }
        assert_eq!(sum.divided_by(1.0), i128::MAX as f64);
        let (mut sum, mut squares) = (ExactSum::of_values(), ExactSum::of_squares());
        for value in [i128::from(i64::MAX), i128::from(i64::MAX) - 2] {
            sum.add_integer(value);
            squares.add_integer_squared(value);
        }
        assert_eq!(standard_deviation(&sum, &squares, 2), Some(2.0_f64.sqrt()));
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_invertible_and_one_pass(
            a in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, 0..20),
            b in prop::collection::vec(-1e6..1e6_f64, 0..20),
            c in prop::collection::vec(prop::num::f64::NORMAL, 0..20),
        ) {
            let merged = |parts: &[&ExactSum]| {
                parts.iter().fold(ExactSum::of_values(), |mut sum, part| { sum.combine(part, 1); sum })
            };
            let whole = sum(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (sum(&a), sum(&b), sum(&c));
            prop_assert_eq!(&merged(&[&merged(&[&a, &b]), &c]), &whole);
            prop_assert_eq!(&merged(&[&c, &merged(&[&b, &a])]), &whole);
            let mut back = whole.clone();
            back.combine(&c, -1);
            prop_assert_eq!(&back, &merged(&[&a, &b]));
            let mut unpacked = ExactSum::of_values();
            for part in [&c, &a, &b] {
                let mut bytes = Vec::new();
                part.pack(&mut bytes);
                let mut rest = bytes.as_slice();
                prop_assert_eq!(unpacked.add_packed(&mut rest), Some(()));
                prop_assert!(rest.is_empty());
                prop_assert_eq!(ExactSum::of_values().add_packed(&mut &bytes[..bytes.len() - 1]), None);
            }
            prop_assert_eq!(&unpacked, &whole);
        }

        #[test]
        fn small_integers_sum_as_integers(values in prop::collection::vec(-1_000_000_i64..1_000_000, 0..50)) {
            let mut sum = ExactSum::of_values();
            values.iter().for_each(|value| sum.add_integer((*value).into()));
            prop_assert_eq!(sum.divided_by(1.0), values.iter().sum::<i64>() as f64);
        }
    }
}
