//! The identity of typed rows: a hash of each row's values, for which neither column order nor file layout counts.
//!
//! Each cell is hashed with its column's name and type, the cells of a row are added up and mixed, and the rows are added up
//! by [`Content`]. Text and bytes go through XXH3, numbers through two folded multiplications. The format of nothing else
//! shows in it, so that it stays the same across versions of Arrow.

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, downcast_primitive_array, new_null_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Fields, ToByteSlice};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datamesh_core::Result;
use twox_hash::{XxHash3_64, XxHash3_128};

use super::{Content, TableLayout};
use crate::error::arrow;

/// Odd constants without a pattern, from the fractional digits of square roots.
const MIX: [u64; 4] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];
/// Stands for null.
const NULL: u128 = 0x510e_527f_ade6_82d1_9b05_688c_2b3e_6c1f;

/// Hashes rows by their values.
#[derive(Default)]
pub(super) struct RowHasher {
    content: Content,
    hashes: Vec<u128>,
}

impl RowHasher {
    /// The identity of the rows hashed so far.
    pub(super) fn content(self) -> Content {
        self.content
    }

    pub(super) fn update(&mut self, layout: &TableLayout, batch: &RecordBatch) -> Result<()> {
        if layout.facts.hashes_rows() { self.add(batch) } else { Ok(()) }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.hashes.clear();
        self.hashes.resize(batch.num_rows(), 0);
        add_rows(batch.schema().fields(), batch.columns(), &mut self.hashes)?;
        for hash in &self.hashes {
            self.content.add_hash(*hash);
        }
        Ok(())
    }
}

/// The hash of each row of these columns, into `out`, which has a zero for each.
pub(super) fn add_rows(fields: &Fields, columns: &[ArrayRef], out: &mut [u128]) -> Result<()> {
    for (field, array) in fields.iter().zip(columns) {
        add_cells(array, seed(field.name(), 0), out)?;
    }
    out.iter_mut().for_each(|hash| *hash = mix(*hash, 0));
    Ok(())
}

/// What gives a cell its meaning: the column's name, below that of the column that it is part of.
fn seed(name: &str, parent: u128) -> u128 {
    XxHash3_128::oneshot_with_seed(parent as u64, name.as_bytes())
}

/// Two folded products of the halves, as in wyhash.
fn mix(value: u128, seed: u128) -> u128 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let (low, high) = (value as u64, (value >> 64) as u64);
    let (seed_low, seed_high) = (seed as u64, (seed >> 64) as u64);
    let first = fold(low ^ seed_low ^ MIX[0], high ^ seed_high ^ MIX[1]);
    let second = fold(low ^ seed_high ^ MIX[2], high ^ seed_low ^ MIX[3]);
    u128::from(first) | u128::from(second) << 64
}

/// Adds the hash of each element to `out`, which has one place for each.
fn add_cells(array: &ArrayRef, seed: u128, out: &mut [u128]) -> Result<()> {
    let kind = |name: &str| mix(u128::from(XxHash3_64::oneshot(name.as_bytes())), seed);
    match array.data_type() {
        DataType::Null => out.iter_mut().for_each(|hash| *hash = hash.wrapping_add(mix(NULL, seed))),
        DataType::Boolean => {
            let values = array.as_boolean();
            let seed = kind("boolean");
            for (row, hash) in out.iter_mut().enumerate() {
                let cell = if values.is_null(row) { NULL } else { u128::from(values.value(row)) };
                *hash = hash.wrapping_add(mix(cell, seed));
            }
        }
        DataType::Utf8 => {
            add_bytes(array.as_string::<i32>().iter().map(|text| text.map(str::as_bytes)), kind("text"), out)
        }
        DataType::LargeUtf8 => {
            add_bytes(array.as_string::<i64>().iter().map(|text| text.map(str::as_bytes)), kind("text"), out);
        }
        DataType::Utf8View => {
            add_bytes(array.as_string_view().iter().map(|text| text.map(str::as_bytes)), kind("text"), out);
        }
        DataType::Binary => add_bytes(array.as_binary::<i32>().iter(), kind("bytes"), out),
        DataType::LargeBinary => add_bytes(array.as_binary::<i64>().iter(), kind("bytes"), out),
        DataType::BinaryView => add_bytes(array.as_binary_view().iter(), kind("bytes"), out),
        DataType::FixedSizeBinary(_) => add_bytes(array.as_fixed_size_binary().iter(), kind("bytes"), out),
        DataType::Dictionary(_, values) => match array.as_any_dictionary_opt() {
            // Each value is hashed once.
            Some(encoded) if encoded.values().len() <= array.len() && !encoded.values().is_empty() => {
                let mut known = vec![0; encoded.values().len()];
                add_cells(encoded.values(), seed, &mut known)?;
                let mut null = [0];
                add_cells(&new_null_array(values, 1), seed, &mut null)?;
                let keys = encoded.keys();
                for (row, (place, hash)) in encoded.normalized_keys().into_iter().zip(out).enumerate() {
                    *hash = hash.wrapping_add(if keys.is_null(row) { null[0] } else { known[place] });
                }
            }
            _ => add_cells(&cast(array, values).map_err(arrow)?, seed, out)?,
        },
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            add_lists(list.values(), list.value_offsets(), |row| list.is_valid(row), kind("list"), out)?;
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            add_lists(list.values(), list.value_offsets(), |row| list.is_valid(row), kind("list"), out)?;
        }
        DataType::FixedSizeList(item, _) => {
            add_cells(&cast(array, &DataType::List(item.clone())).map_err(arrow)?, seed, out)?
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
            add_lists(&entries, map.value_offsets(), |row| map.is_valid(row), kind("map"), out)?;
        }
        DataType::Struct(fields) => {
            let structs = array.as_struct();
            let own = kind("struct");
            let mut inner = vec![0; out.len()];
            for (field, child) in fields.iter().zip(structs.columns()) {
                add_cells(child, self::seed(field.name(), own), &mut inner)?;
            }
            for (row, (hash, inner)) in out.iter_mut().zip(inner).enumerate() {
                *hash = hash.wrapping_add(mix(if structs.is_valid(row) { inner } else { NULL }, own));
            }
        }
        other => {
            let seed = kind(&other.to_string());
            downcast_primitive_array!(
                array => add_primitives(array, seed, out),
                // Unions, run ends and whatever else there is: by the text that is shown.
                _ => {
                    let options = FormatOptions::default();
                    let shown = ArrayFormatter::try_new(array, &options).map_err(arrow)?;
                    for (row, hash) in out.iter_mut().enumerate() {
                        let cell = if array.is_null(row) {
                            NULL
                        } else {
                            XxHash3_128::oneshot(shown.value(row).to_string().as_bytes())
                        };
                        *hash = hash.wrapping_add(mix(cell, seed));
                    }
                }
            );
        }
    }
    Ok(())
}

fn add_primitives<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, seed: u128, out: &mut [u128]) {
    let bits = |value: &T::Native| {
        let bytes = value.to_byte_slice();
        match bytes.get(16..) {
            // A 256-bit decimal.
            Some(rest) if !rest.is_empty() => XxHash3_128::oneshot(bytes),
            _ => {
                let mut word = [0; 16];
                word[..bytes.len()].copy_from_slice(bytes);
                u128::from_le_bytes(word)
            }
        }
    };
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (value, hash) in array.values().iter().zip(out) {
                *hash = hash.wrapping_add(mix(bits(value), seed));
            }
        }
        Some(nulls) => {
            for (row, (value, hash)) in array.values().iter().zip(out).enumerate() {
                let cell = if nulls.is_valid(row) { bits(value) } else { NULL };
                *hash = hash.wrapping_add(mix(cell, seed));
            }
        }
    }
}

fn add_bytes<'a>(values: impl Iterator<Item = Option<&'a [u8]>>, seed: u128, out: &mut [u128]) {
    for (value, hash) in values.zip(out) {
        *hash = hash.wrapping_add(mix(value.map_or(NULL, XxHash3_128::oneshot), seed));
    }
}

fn add_lists<O: Copy + TryInto<usize>>(
    values: &ArrayRef,
    offsets: &[O],
    is_valid: impl Fn(usize) -> bool,
    seed: u128,
    out: &mut [u128],
) -> Result<()> {
    let at = |index: usize| offsets.get(index).and_then(|offset| (*offset).try_into().ok()).unwrap_or(0);
    let first: usize = at(0);
    let used = values.slice(first, at(out.len()).saturating_sub(first));
    let mut items = vec![0; used.len()];
    add_cells(&used, seed, &mut items)?;
    for (row, hash) in out.iter_mut().enumerate() {
        let cell = if is_valid(row) {
            let own = &items[at(row) - first..at(row + 1) - first];
            own.iter().fold(own.len() as u128, |list, item| mix(list, *item))
        } else {
            NULL
        };
        *hash = hash.wrapping_add(mix(cell, seed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray, StringViewArray, StructArray,
    };
    use datafusion::arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn identity(columns: &[(&str, ArrayRef)]) -> String {
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
        let mut hasher = RowHasher::default();
        hasher.add(&RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch")).expect("hashed");
        hasher.content().identity()
    }

    fn numbers(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn the_order_of_columns_and_rows_does_not_count() {
        let one = identity(&[("a", numbers(&[Some(1), Some(2)])), ("b", texts(&["x", "y"]))]);
        assert_eq!(one, identity(&[("b", texts(&["x", "y"])), ("a", numbers(&[Some(1), Some(2)]))]));
        assert_eq!(one, identity(&[("a", numbers(&[Some(2), Some(1)])), ("b", texts(&["y", "x"]))]));
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "y"]));
        assert_eq!(one, identity(&[("a", numbers(&[Some(1), Some(2)])), ("b", views)]));
        // A dictionary's values count as those of a column, whether it has more of them than rows or fewer.
        let some = |texts: &[Option<&str>]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        let plain = identity(&[("b", some(&[Some("x"), None, Some("x"), None]))]);
        for values in [some(&[Some("x"), None]), some(&[Some("x"), None, Some("y"), Some("z"), Some("z")])] {
            let keys = Int32Array::from(vec![Some(0), None, Some(0), Some(1)]);
            assert_eq!(plain, identity(&[("b", Arc::new(DictionaryArray::new(keys, values)))]));
        }
    }

    #[test]
    fn a_value_elsewhere_is_another_content() {
        let mut seen = std::collections::HashSet::new();
        for content in [
            identity(&[("a", numbers(&[Some(1), Some(2)])), ("b", numbers(&[Some(3), Some(4)]))]),
            identity(&[("a", numbers(&[Some(1), Some(2)])), ("b", numbers(&[Some(4), Some(3)]))]),
            identity(&[("b", numbers(&[Some(1), Some(2)])), ("a", numbers(&[Some(3), Some(4)]))]),
            identity(&[("a", numbers(&[Some(1), None])), ("b", numbers(&[Some(3), Some(4)]))]),
            identity(&[("a", numbers(&[Some(1), Some(0)])), ("b", numbers(&[Some(3), Some(4)]))]),
            identity(&[("a", texts(&["1", "2"])), ("b", texts(&["3", "4"]))]),
            identity(&[("a", Arc::new(Float64Array::from(vec![1.0, 2.0]))), ("b", numbers(&[Some(3), Some(4)]))]),
            identity(&[("a", numbers(&[Some(1)])), ("b", numbers(&[Some(3)]))]),
        ] {
            assert!(seen.insert(content));
        }
    }

    #[test]
    fn nested_values_count_with_their_place() {
        let list = |rows: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
        };
        let (whole, other) = (
            list(vec![Some(vec![Some(1), Some(2)]), Some(vec![])]),
            list(vec![Some(vec![Some(2), Some(1)]), Some(vec![])]),
        );
        assert_ne!(identity(&[("a", whole.clone())]), identity(&[("a", other)]));
        assert_ne!(
            identity(&[("a", whole.clone())]),
            identity(&[("a", list(vec![Some(vec![Some(1), Some(2)]), None]))])
        );
        let longer = list(vec![Some(vec![Some(9)]), Some(vec![Some(1), Some(2)]), Some(vec![])]);
        assert_eq!(identity(&[("a", whole)]), identity(&[("a", longer.slice(1, 2))]));
        let structs = |first: &str, second: &str| -> ArrayRef {
            let field = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
            Arc::new(StructArray::from(vec![(field(first), numbers(&[Some(1)])), (field(second), numbers(&[Some(2)]))]))
        };
        assert_ne!(identity(&[("a", structs("x", "y"))]), identity(&[("a", structs("y", "x"))]));
    }
}
