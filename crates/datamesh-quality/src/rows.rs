//! Value constraints over batches: each is evaluated once for all rows of a batch, into a mask of the rows that break it.

use arrow::array::{AnyDictionaryArray, Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::datatypes::DataType as Arrow;
use datamesh_core::DataType;
use datamesh_core::contract::TextFormat;
use datamesh_core::quality::{Step, ValueConstraint, ValueRule};
use datamesh_core::scalar::{self, Scalar};
use serde::de::IgnoredAny;

use crate::pattern::Pattern;
use crate::values::{ValueSet, show, test_decimals, test_doubles, test_integers, test_texts, valid};
use datamesh_core::dates::DatePattern;

/// A value constraint, ready to run. A clone shares nothing with it, so that threads do not wait for each other.
#[derive(Clone, Debug)]
pub struct RowCheck {
    rule: &'static str,
    path: String,
    column: usize,
    steps: Vec<Step>,
    leaf: Leaf,
}

#[derive(Clone, Debug)]
enum Leaf {
    Required,
    Json,
    Enum(ValueSet),
    Bound(Side, Scalar),
    MultipleOfInteger(i64),
    MultipleOfDecimal(i128),
    MultipleOfDouble(f64),
    MinLength(u64),
    MaxLength(u64),
    Pattern(Pattern),
    Format(TextFormat),
    DateFormat(DatePattern),
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
}

impl Side {
    fn breaks<T: PartialOrd>(self, value: T, bound: T) -> bool {
        // Written so that NaN, which is within no bound, breaks every one.
        !match self {
            Self::Minimum => value >= bound,
            Self::Maximum => value <= bound,
            Self::ExclusiveMinimum => value > bound,
            Self::ExclusiveMaximum => value < bound,
        }
    }
}

impl RowCheck {
    /// Prepares a constraint.
    ///
    /// # Errors
    /// A bound or pattern that cannot be read; a checked manifest has none.
    pub fn compile(constraint: &ValueConstraint) -> Result<Self, String> {
        let data_type = &constraint.data_type;
        let bound = |side, text: &str| scalar::parse(text, data_type).map(|value| Leaf::Bound(side, value));
        let leaf = match &constraint.rule {
            ValueRule::Required => Leaf::Required,
            ValueRule::Json => Leaf::Json,
            ValueRule::Enum(values) => Leaf::Enum(ValueSet::new(values.iter().map(String::as_str), data_type)),
            ValueRule::Minimum(text) => bound(Side::Minimum, text)?,
            ValueRule::Maximum(text) => bound(Side::Maximum, text)?,
            ValueRule::ExclusiveMinimum(text) => bound(Side::ExclusiveMinimum, text)?,
            ValueRule::ExclusiveMaximum(text) => bound(Side::ExclusiveMaximum, text)?,
            ValueRule::MultipleOf(text) => match scalar::parse(text, data_type)? {
                Scalar::Integer(step) if step > 0 => Leaf::MultipleOfInteger(step),
                Scalar::Decimal(step) if step > 0 => Leaf::MultipleOfDecimal(step),
                Scalar::Double(step) if step > 0.0 => Leaf::MultipleOfDouble(step),
                _ => return Err(format!("`{text}` is not a step greater than zero")),
            },
            ValueRule::MinLength(length) => Leaf::MinLength(*length),
            ValueRule::MaxLength(length) => Leaf::MaxLength(*length),
            ValueRule::Pattern(pattern) => Leaf::Pattern(Pattern::new(pattern)?),
            ValueRule::Format(format) => Leaf::Format(*format),
            ValueRule::DateFormat(pattern) => Leaf::DateFormat(DatePattern::parse(pattern)?),
        };
        Ok(Self {
            rule: constraint.rule.word(),
            path: constraint.path.clone(),
            column: constraint.column,
            steps: constraint.steps.clone(),
            leaf,
        })
    }

    /// The rule's word.
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// The place, as reasons name it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Index of the top-level column it looks at.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The rows of `batch` that break the rule; `None` where no row does.
    pub fn violations(&self, batch: &RecordBatch) -> Option<BooleanBuffer> {
        let array = batch.column(self.column);
        let broken = match array.as_any_dictionary_opt() {
            Some(encoded) => of_rows(encoded, &self.leaf)?,
            None => descend(array, &self.steps, &self.leaf),
        };
        (broken.count_set_bits() > 0).then_some(broken)
    }

    /// The value that breaks the rule, where one value can be named.
    pub fn offender(&self, batch: &RecordBatch, row: usize) -> Option<String> {
        if matches!(self.leaf, Leaf::Required) {
            return None;
        }
        let mut array = batch.column(self.column).clone();
        for step in &self.steps {
            match step {
                Step::Field(name) => array = array.as_struct_opt()?.column_by_name(name)?.clone(),
                Step::Items | Step::Values => break,
            }
        }
        show(&array, row)
    }
}

/// The rows of a dictionary that break a rule: each of its values is judged once. `None` where no value breaks it.
fn of_rows(encoded: &dyn AnyDictionaryArray, leaf: &Leaf) -> Option<BooleanBuffer> {
    let rows = encoded.len();
    let values = leaf.broken(encoded.values());
    let keys = encoded.keys();
    let null = matches!(leaf, Leaf::Required);
    if values.count_set_bits() == 0 && !(null && keys.null_count() > 0) {
        return None;
    }
    if values.is_empty() {
        return Some(BooleanBuffer::collect_bool(rows, |row| null && keys.is_null(row)));
    }
    let places = encoded.normalized_keys();
    Some(BooleanBuffer::collect_bool(rows, |row| if keys.is_null(row) { null } else { values.value(places[row]) }))
}

fn descend(array: &ArrayRef, steps: &[Step], leaf: &Leaf) -> BooleanBuffer {
    let Some((step, rest)) = steps.split_first() else { return leaf.broken(array) };
    let none = || BooleanBuffer::new_unset(array.len());
    let broken = match step {
        Step::Field(name) => match array.as_struct_opt().and_then(|fields| fields.column_by_name(name)) {
            Some(child) => descend(child, rest, leaf),
            None => return none(),
        },
        Step::Items => match array.as_list_opt::<i32>() {
            Some(list) => any_of(list.offsets(), &descend(list.values(), rest, leaf)),
            None => return none(),
        },
        Step::Values => match array.as_map_opt() {
            Some(map) => any_of(map.offsets(), &descend(map.values(), rest, leaf)),
            None => return none(),
        },
    };
    // A field of a struct that is null, or an item of a list that is null, is not there and breaks nothing.
    &broken & &valid(array)
}

fn any_of(offsets: &OffsetBuffer<i32>, items: &BooleanBuffer) -> BooleanBuffer {
    let rows = offsets.len() - 1;
    BooleanBuffer::collect_bool(rows, |row| {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        items.slice(start, end - start).count_set_bits() > 0
    })
}

impl Leaf {
    fn broken(&self, array: &ArrayRef) -> BooleanBuffer {
        let broken = match self {
            Self::Required => Some(!&valid(array)),
            Self::Json => test_texts(array, |text| serde_json::from_str::<IgnoredAny>(text).is_err()),
            Self::Enum(set) => Some(&valid(array) & &!&set.contains(array)),
            Self::Bound(side, Scalar::Integer(bound)) => test_integers(array, |value| side.breaks(value, *bound)),
            Self::Bound(side, Scalar::Decimal(bound)) => test_decimals(array, |value| side.breaks(value, *bound)),
            Self::Bound(side, Scalar::Double(bound)) => {
                let bound = if *array.data_type() == Arrow::Float32 { f64::from(*bound as f32) } else { *bound };
                test_doubles(array, |value| side.breaks(value, bound))
            }
            Self::Bound(side, Scalar::Text(bound)) => test_texts(array, |text| side.breaks(text, bound.as_str())),
            Self::Bound(_, Scalar::Boolean(_)) => None,
            Self::MultipleOfInteger(step) => test_integers(array, |value| value % step != 0),
            Self::MultipleOfDecimal(step) => test_decimals(array, |value| value % step != 0),
            Self::MultipleOfDouble(step) => test_doubles(array, |value| !is_multiple(value, *step)),
            Self::MinLength(least) => lengths(array, |length| length < *least),
            Self::MaxLength(most) => lengths(array, |length| length > *most),
            Self::Pattern(pattern) => pattern.misses(array),
            Self::Format(format) => test_texts(array, |text| !crate::format::matches(*format, text)),
            Self::DateFormat(pattern) => test_texts(array, |text| !pattern.matches(text)),
        };
        broken.unwrap_or_else(|| BooleanBuffer::new_unset(array.len()))
    }
}

/// Whether `value` is a whole multiple of `step`, up to the rounding of the two doubles.
fn is_multiple(value: f64, step: f64) -> bool {
    let quotient = value / step;
    quotient.is_finite() && (quotient - quotient.round()).abs() <= 4.0 * f64::EPSILON * quotient.abs().max(1.0)
}

fn lengths(array: &ArrayRef, test: impl Fn(u64) -> bool) -> Option<BooleanBuffer> {
    let broken = match array.data_type() {
        Arrow::Utf8 => {
            let texts = array.as_string::<i32>();
            let (first, last) = (texts.value_offsets()[0] as usize, texts.value_offsets()[array.len()] as usize);
            // In ASCII a character is a byte: no text has to be looked at.
            if texts.value_data()[first..last].is_ascii() {
                BooleanBuffer::collect_bool(array.len(), |row| test(texts.value_length(row) as u64))
            } else {
                return test_texts(array, |text| test(text.chars().count() as u64));
            }
        }
        Arrow::LargeBinary => {
            let bytes = array.as_binary::<i64>();
            BooleanBuffer::collect_bool(array.len(), |row| test(bytes.value(row).len() as u64))
        }
        Arrow::List(_) => {
            let list = array.as_list::<i32>();
            BooleanBuffer::collect_bool(array.len(), |row| test(list.value_length(row) as u64))
        }
        _ => return None,
    };
    Some(&broken & &valid(array))
}

/// Compiles every constraint of a table.
///
/// # Errors
/// As [`RowCheck::compile`], with the place.
pub fn compile_all(constraints: &[ValueConstraint]) -> Result<Vec<RowCheck>, String> {
    constraints
        .iter()
        .filter(|constraint| !(matches!(constraint.rule, ValueRule::Json) && constraint.data_type != DataType::Json))
        .map(|constraint| RowCheck::compile(constraint).map_err(|why| format!("`{}`: {why}", constraint.path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::{Field, Int32Type, Schema};
    use datamesh_core::Column;

    use super::*;
    use crate::arrow_types::arrow_type;

    fn check(data_type: &str, rule: ValueRule, array: ArrayRef, expected: &[usize]) {
        let data_type = DataType::parse(data_type).expect("a type");
        let array = arrow::compute::cast(&array, &arrow_type(&data_type)).expect("castable");
        let constraint = ValueConstraint { column: 0, steps: Vec::new(), path: "c".into(), data_type, rule };
        run(&constraint, array, expected);
    }

    fn run(constraint: &ValueConstraint, array: ArrayRef, expected: &[usize]) {
        let schema = Schema::new(vec![Field::new("c", array.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![array]).expect("a batch");
        let broken = RowCheck::compile(constraint).expect("compiles").violations(&batch);
        let rows: Vec<usize> = broken.map(|mask| mask.set_indices().collect()).unwrap_or_default();
        assert_eq!(rows, expected, "{constraint:?}");
    }

    fn ints(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn each_rule_breaks_where_it_should_and_null_breaks_only_required() {
        let numbers = ints(&[Some(1), None, Some(5), Some(10)]);
        check("int", ValueRule::Required, numbers.clone(), &[1]);
        check("int", ValueRule::Minimum("5".into()), numbers.clone(), &[0]);
        check("long", ValueRule::Maximum("5".into()), numbers.clone(), &[3]);
        check("decimal(10,2)", ValueRule::ExclusiveMinimum("5".into()), numbers.clone(), &[0, 2]);
        check("double", ValueRule::ExclusiveMaximum("5".into()), numbers.clone(), &[2, 3]);
        check("int", ValueRule::MultipleOf("5".into()), numbers.clone(), &[0]);
        check("decimal(10,2)", ValueRule::MultipleOf("2.5".into()), numbers.clone(), &[0]);
        check("int", ValueRule::Enum(vec!["1".into(), "10".into()]), numbers, &[2]);
        let words = texts(&[Some("ab"), None, Some("äöü"), Some("")]);
        check("string", ValueRule::MinLength(2), words.clone(), &[3]);
        check("string", ValueRule::MaxLength(2), words.clone(), &[2]);
        check("string", ValueRule::Pattern("^[a-z]+$".into()), words.clone(), &[2, 3]);
        check("string", ValueRule::Enum(vec!["ab".into()]), words.clone(), &[2, 3]);
        check("string", ValueRule::Minimum("a".into()), words.clone(), &[3]);
        check("json", ValueRule::Json, texts(&[Some("{}"), Some("{"), None, Some("1 2"), Some("\"x\"")]), &[1, 3]);
        check("string", ValueRule::Format(TextFormat::Ipv4), texts(&[Some("1.2.3.4"), Some("x"), None]), &[1]);
        check("date", ValueRule::Minimum("1970-01-02".into()), Arc::new(Date32Array::from(vec![0, 1])), &[0]);
    }

    #[test]
    fn texts_of_a_dictionary_are_judged_as_those_of_a_column() {
        let values = texts(&[Some("ab"), Some("x1"), None, Some("unused")]);
        let keys = Int32Array::from(vec![Some(0), None, Some(1), Some(0), Some(2)]);
        let encoded: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
        let plain = arrow::compute::cast(&encoded, &Arrow::Utf8).expect("texts");
        let nothing: ArrayRef = Arc::new(DictionaryArray::new(Int32Array::from(vec![None, None]), texts(&[])));
        for (rule, expected, of_nothing) in [
            (ValueRule::Required, vec![1, 4], vec![0, 1]),
            (ValueRule::Enum(vec!["ab".into(), "unused".into()]), vec![2], vec![]),
            (ValueRule::Enum(vec!["ab".into(), "x1".into()]), vec![], vec![]),
            (ValueRule::Pattern("^[a-z]+$".into()), vec![2], vec![]),
            (ValueRule::MinLength(3), vec![0, 2, 3], vec![]),
            (ValueRule::Minimum("b".into()), vec![0, 3], vec![]),
        ] {
            let constraint =
                ValueConstraint { column: 0, steps: Vec::new(), path: "c".into(), data_type: DataType::String, rule };
            run(&constraint, plain.clone(), &expected);
            run(&constraint, encoded.clone(), &expected);
            run(&constraint, encoded.slice(2, 1), if expected.contains(&2) { &[0] } else { &[] });
            run(&constraint, nothing.clone(), &of_nothing);
        }
        let schema = Schema::new(vec![Field::new("c", encoded.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![encoded]).expect("a batch");
        let rule = ValueRule::Enum(vec!["ab".into()]);
        let constraint =
            ValueConstraint { column: 0, steps: Vec::new(), path: "c".into(), data_type: DataType::String, rule };
        assert_eq!(RowCheck::compile(&constraint).expect("compiles").offender(&batch, 2).as_deref(), Some("x1"));
    }

    #[test]
    fn nan_is_within_no_bound() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 0.0]));
        for rule in [ValueRule::Minimum("-1".into()), ValueRule::Maximum("1".into()), ValueRule::MultipleOf("1".into())]
        {
            check("double", rule, values.clone(), &[0]);
        }
    }

    #[test]
    fn doubles_are_multiples_up_to_rounding() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![0.3, 0.1, 1e15, 0.35, f64::INFINITY]));
        check("double", ValueRule::MultipleOf("0.1".into()), values, &[3, 4]);
    }

    #[test]
    fn nested_values_are_reached() {
        let items = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), Some(2)]),
            None,
            Some(vec![]),
            Some(vec![Some(9), None]),
        ]);
        let constraint = |steps: Vec<Step>, rule| ValueConstraint {
            column: 0,
            steps,
            path: "c[]".into(),
            data_type: DataType::Int,
            rule,
        };
        let items: ArrayRef = Arc::new(items);
        run(&constraint(vec![Step::Items], ValueRule::Maximum("5".into())), items.clone(), &[3]);
        run(&constraint(vec![Step::Items], ValueRule::Required), items.clone(), &[3]);
        run(&constraint(vec![Step::Items], ValueRule::Maximum("5".into())), items.slice(1, 3), &[2]);
        let lengths = ValueConstraint {
            data_type: DataType::Array(Box::new(Column::anonymous("item", DataType::Int))),
            ..constraint(Vec::new(), ValueRule::MaxLength(1))
        };
        run(&lengths, items, &[0, 3]);

        let field = Arc::new(Field::new("city", Arrow::Utf8, true));
        let cities: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, None]));
        let nulls = arrow::buffer::NullBuffer::from(vec![true, true, false]);
        let address: ArrayRef = Arc::new(StructArray::new(vec![field].into(), vec![cities], Some(nulls)));
        let inner = ValueConstraint {
            data_type: DataType::String,
            ..constraint(vec![Step::Field("city".into())], ValueRule::Required)
        };
        run(&inner, address, &[1]);
    }
}
