//! Typed access to Arrow arrays by contract type.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType as Arrow, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datamesh_core::DataType;
use datamesh_core::scalar::{self, Scalar};

/// Longest value, in characters, that a reason or a sample keeps.
pub const MAX_SHOWN: usize = 200;

/// For each row, whether `test` holds of the value; false for nulls.
///
/// `None` where the array's type is not one of `integer`'s.
pub fn test_integers(array: &dyn Array, test: impl Fn(i64) -> bool) -> Option<BooleanBuffer> {
    Some(match array.data_type() {
        Arrow::Int32 => test_primitive::<Int32Type>(array, |value| test(value.into())),
        Arrow::Int64 => test_primitive::<Int64Type>(array, test),
        Arrow::Date32 => test_primitive::<Date32Type>(array, |value| test(value.into())),
        Arrow::Time64(TimeUnit::Microsecond) => test_primitive::<Time64MicrosecondType>(array, test),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => test_primitive::<TimestampMicrosecondType>(array, test),
        Arrow::Boolean => {
            let booleans = array.as_boolean();
            collect(array, |row| test(booleans.value(row).into()))
        }
        _ => return None,
    })
}

/// For each row, whether `test` holds of the number; false for nulls.
pub fn test_doubles(array: &dyn Array, test: impl Fn(f64) -> bool) -> Option<BooleanBuffer> {
    Some(match array.data_type() {
        Arrow::Float32 => test_primitive::<Float32Type>(array, |value| test(value.into())),
        Arrow::Float64 => test_primitive::<Float64Type>(array, test),
        _ => return None,
    })
}

/// For each row, whether `test` holds of the unscaled value; false for nulls.
pub fn test_decimals(array: &dyn Array, test: impl Fn(i128) -> bool) -> Option<BooleanBuffer> {
    matches!(array.data_type(), Arrow::Decimal128(..)).then(|| test_primitive::<Decimal128Type>(array, test))
}

/// For each row, whether `test` holds of the text; false for nulls.
pub fn test_texts(array: &dyn Array, mut test: impl FnMut(&str) -> bool) -> Option<BooleanBuffer> {
    let texts = array.as_string_opt::<i32>()?;
    Some(collect(array, |row| test(texts.value(row))))
}

fn test_primitive<T: ArrowPrimitiveType>(array: &dyn Array, test: impl Fn(T::Native) -> bool) -> BooleanBuffer {
    let values = array.as_primitive::<T>().values();
    collect(array, |row| test(values[row]))
}

fn collect(array: &dyn Array, mut test: impl FnMut(usize) -> bool) -> BooleanBuffer {
    match array.nulls() {
        Some(nulls) => BooleanBuffer::collect_bool(array.len(), |row| nulls.is_valid(row) && test(row)),
        None => BooleanBuffer::collect_bool(array.len(), test),
    }
}

/// Values of one type: a few are compared one by one, which costs less than a hash.
#[derive(Clone, Debug)]
pub enum Members<T> {
    /// At most [`FEW`].
    Few(Vec<T>),
    /// More.
    Many(HashSet<T>),
}

/// So many values are compared one by one.
const FEW: usize = 16;

impl<T: Eq + Hash> FromIterator<T> for Members<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let values: HashSet<T> = values.into_iter().collect();
        if values.len() > FEW { Self::Many(values) } else { Self::Few(values.into_iter().collect()) }
    }
}

impl<T: Eq + Hash> Members<T> {
    fn contains<V: Eq + Hash + ?Sized>(&self, value: &V) -> bool
    where
        T: Borrow<V>,
    {
        match self {
            Self::Few(values) => values.iter().any(|known| known.borrow() == value),
            Self::Many(values) => values.contains(value),
        }
    }
}

/// Texts: a few are compared by length and first bytes, taken as one number.
#[derive(Clone, Debug)]
pub enum Texts {
    /// At most [`FEW`].
    Few(Vec<ShortText>),
    /// More.
    Many(HashSet<String>),
}

/// A text, ready to compare.
#[derive(Clone, Debug)]
pub struct ShortText {
    length: usize,
    head: u128,
    /// What follows the first 16 bytes.
    tail: Vec<u8>,
}

/// So many bytes are compared at once.
const HEAD: usize = 16;

impl FromIterator<String> for Texts {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        let texts: HashSet<String> = texts.into_iter().collect();
        if texts.len() > FEW {
            return Self::Many(texts);
        }
        let short = |text: String| {
            let bytes = text.into_bytes();
            ShortText {
                length: bytes.len(),
                head: head(&bytes, 0, bytes.len()),
                tail: bytes.get(HEAD..).unwrap_or_default().to_vec(),
            }
        };
        Self::Few(texts.into_iter().map(short).collect())
    }
}

/// The first bytes of `bytes[start..end]`, zeros where it has fewer.
fn head(bytes: &[u8], start: usize, end: usize) -> u128 {
    match bytes.get(start..start + HEAD).and_then(|whole| <[u8; HEAD]>::try_from(whole).ok()) {
        // What follows the text is cut off.
        Some(whole) => match end - start {
            length if length < HEAD => u128::from_le_bytes(whole) & ((1 << (8 * length)) - 1),
            _ => u128::from_le_bytes(whole),
        },
        None => {
            let mut padded = [0; HEAD];
            let short = &bytes[start..end.min(start + HEAD)];
            padded[..short.len()].copy_from_slice(short);
            u128::from_le_bytes(padded)
        }
    }
}

impl Texts {
    /// For each row, whether the text is in the set; false for nulls. `None` where the array holds no texts.
    fn contains(&self, array: &dyn Array) -> Option<BooleanBuffer> {
        let few = match self {
            Self::Many(texts) => return test_texts(array, |text| texts.contains(text)),
            Self::Few(few) => few,
        };
        let texts = array.as_string_opt::<i32>()?;
        let (bytes, offsets) = (texts.value_data(), texts.value_offsets());
        Some(collect(array, |row| {
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            let (length, head) = (end - start, head(bytes, start, end));
            few.iter().any(|known| {
                known.head == head
                    && known.length == length
                    && (length <= HEAD || known.tail == bytes[start + HEAD..end])
            })
        }))
    }
}

/// A set of values of one scalar type.
#[derive(Clone, Debug)]
pub enum ValueSet {
    /// Text, JSON, UUID.
    Texts(Texts),
    /// Integers, booleans, dates, times and timestamps.
    Integers(Members<i64>),
    /// Floats and doubles; few, so compared one by one.
    Doubles(Vec<f64>),
    /// Unscaled decimals.
    Decimals(Members<i128>),
}

impl ValueSet {
    /// Reads `texts` as values of `data_type`; those that are none can match nothing and are left out.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str>, data_type: &DataType) -> Self {
        let values: Vec<Scalar> = texts.filter_map(|text| scalar::parse(text, data_type).ok()).collect();
        match data_type {
            DataType::Float => {
                // A float column's values compare as floats: 0.1 in the contract is the float nearest to 0.1.
                Self::Doubles(values.iter().filter_map(double).map(|value| f64::from(value as f32)).collect())
            }
            DataType::Double => Self::Doubles(values.iter().filter_map(double).collect()),
            DataType::Decimal(..) => Self::Decimals(
                values
                    .iter()
                    .filter_map(|value| if let Scalar::Decimal(value) = value { Some(*value) } else { None })
                    .collect(),
            ),
            _ if values.iter().any(|value| matches!(value, Scalar::Text(_))) || data_type.is_text() => Self::Texts(
                values
                    .into_iter()
                    .filter_map(|value| if let Scalar::Text(value) = value { Some(value) } else { None })
                    .collect(),
            ),
            _ => Self::Integers(values.iter().filter_map(integer).collect()),
        }
    }

    /// For each row, whether the value is in the set; false for nulls.
    pub fn contains(&self, array: &dyn Array) -> BooleanBuffer {
        let found = match self {
            Self::Texts(set) => set.contains(array),
            Self::Integers(set) => test_integers(array, |value| set.contains(&value)),
            Self::Doubles(values) => test_doubles(array, |value| values.contains(&value)),
            Self::Decimals(set) => test_decimals(array, |value| set.contains(&value)),
        };
        found.unwrap_or_else(|| BooleanBuffer::new_unset(array.len()))
    }
}

/// The integer of a scalar: booleans are 0 and 1.
pub fn integer(value: &Scalar) -> Option<i64> {
    match value {
        Scalar::Integer(value) => Some(*value),
        Scalar::Boolean(value) => Some((*value).into()),
        _ => None,
    }
}

fn double(value: &Scalar) -> Option<f64> {
    if let Scalar::Double(value) = value { Some(*value) } else { None }
}

/// For each row, whether it is not null.
pub fn valid(array: &dyn Array) -> BooleanBuffer {
    match array.logical_nulls() {
        Some(nulls) => nulls.inner().clone(),
        None => BooleanBuffer::new_set(array.len()),
    }
}

/// A value as text, shortened; `None` for null.
pub fn show(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    let options = FormatOptions::default().with_display_error(true);
    let text = match ArrayFormatter::try_new(array, &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => error.to_string(),
    };
    Some(shorten(&text))
}

/// At most [`MAX_SHOWN`] characters of `text`.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn few_texts_and_many_are_compared_whole() {
        let long = "sixteen bytes andx more";
        let known = ["", "a", "ab", "AIR", "REG AIR", "äöü", "sixteen bytes an", "sixteen bytes andx", long];
        let others =
            ["b", "a\0", "AI", "AIRx", "reg air", "äö", "sixteen bytes am", "sixteen bytes andy", "sixteen bytes and"];
        let mut texts: Vec<Option<&str>> = known.iter().chain(&others).map(|text| Some(*text)).collect();
        texts.push(None);
        let array = StringArray::from(texts);
        let more: Vec<String> = (0..FEW).map(|number| format!("other {number}")).collect();
        for more in [Vec::new(), more] {
            let words = known.iter().copied().chain(more.iter().map(String::as_str));
            let found = ValueSet::new(words, &DataType::String).contains(&array);
            assert_eq!(found.set_indices().collect::<Vec<_>>(), (0..known.len()).collect::<Vec<_>>());
            // The end of the values' bytes is met wherever a text is the last one.
            for row in 0..array.len() {
                let slice = ValueSet::new(known.iter().copied(), &DataType::String).contains(&array.slice(row, 1));
                assert_eq!(slice.value(0), row < known.len(), "{row}");
                let alone: StringArray = array.slice(row, 1).iter().collect();
                let alone = ValueSet::new(known.iter().copied(), &DataType::String).contains(&alone);
                assert_eq!(alone.value(0), row < known.len(), "{row}");
            }
        }
    }
}
