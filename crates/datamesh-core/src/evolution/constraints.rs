//! Constraints on the values of a column.

use std::cmp::Ordering;

use serde_json::Value;

use super::change::{Changes, json, shown};
use super::path::ContractPath;
use super::quality::same_sql;
use super::rules::{self, Rule};
use crate::contract::Constraints;
use crate::datatype::DataType;
use crate::scalar::{self, Scalar};

/// Compares the constraints of a column, whose bounds are read by its types of then and now.
pub(super) fn compare(
    changes: &mut Changes,
    path: &ContractPath,
    former_type: &DataType,
    data_type: &DataType,
    before: &Constraints,
    after: &Constraints,
) {
    if before == after {
        return;
    }
    // INVARIANT: a further constraint does not compile until it is compared.
    let Constraints {
        allowed,
        minimum,
        maximum,
        exclusive_minimum,
        exclusive_maximum,
        multiple_of,
        min_length,
        max_length,
        pattern,
        format,
        date_format,
        complete_if,
    } = after;
    let types = (former_type, data_type);
    compare_allowed(changes, &path.join("enum"), types, before.allowed.as_deref(), allowed.as_deref());
    let lower = (
        Bound::new([(&before.minimum, "minimum", true), (&before.exclusive_minimum, "exclusiveMinimum", false)]),
        Bound::new([(minimum, "minimum", true), (exclusive_minimum, "exclusiveMinimum", false)]),
    );
    compare_bounds(changes, path, types, &lower.0, &lower.1, Side::Lower);
    let upper = (
        Bound::new([(&before.maximum, "maximum", true), (&before.exclusive_maximum, "exclusiveMaximum", false)]),
        Bound::new([(maximum, "maximum", true), (exclusive_maximum, "exclusiveMaximum", false)]),
    );
    compare_bounds(changes, path, types, &upper.0, &upper.1, Side::Upper);
    compare_grid(changes, &path.join("multipleOf"), before.multiple_of.as_deref(), multiple_of.as_deref());
    // A text of any length has at least no characters.
    let least = |length: Option<u64>| length.unwrap_or(0);
    let order = least(*min_length).cmp(&least(before.min_length));
    compare_lengths(changes, &path.join("minLength"), before.min_length, *min_length, order);
    let most = |length: Option<u64>| length.unwrap_or(u64::MAX);
    let order = most(before.max_length).cmp(&most(*max_length));
    compare_lengths(changes, &path.join("maxLength"), before.max_length, *max_length, order);
    compare_optional(
        changes,
        &path.join("pattern"),
        [&rules::PATTERN_ADDED, &rules::PATTERN_REMOVED, &rules::PATTERN_CHANGED],
        (before.pattern.as_deref().map(Value::from), pattern.as_deref().map(Value::from)),
        "the pattern",
    );
    // Both are written as `format`.
    let formats =
        |format: &Option<_>, date: &Option<String>| format.as_ref().map(json).or(date.as_deref().map(Value::from));
    compare_optional(
        changes,
        &path.join("format"),
        [&rules::FORMAT_ADDED, &rules::FORMAT_REMOVED, &rules::FORMAT_CHANGED],
        (formats(&before.format, &before.date_format), formats(format, date_format)),
        "the format",
    );
    let same = matches!((&before.complete_if, complete_if), (Some(a), Some(b)) if a != b && same_sql(a, b));
    let changed = if same { &rules::CONSTRAINT_RESTATED } else { &rules::COMPLETE_IF_CHANGED };
    compare_optional(
        changes,
        &path.join("completeIf"),
        [&rules::COMPLETE_IF_ADDED, &rules::COMPLETE_IF_REMOVED, changed],
        (before.complete_if.as_deref().map(Value::from), complete_if.as_deref().map(Value::from)),
        "the condition of completeness",
    );
}

/// A constraint that came, went or became another, by three rules.
fn compare_optional(
    changes: &mut Changes,
    path: &ContractPath,
    [added, removed, changed]: [&'static Rule; 3],
    (before, after): (Option<Value>, Option<Value>),
    what: &str,
) {
    if before == after {
        return;
    }
    let (rule, verb) = match (&before, &after) {
        (None, Some(value)) => (added, format!("{} was added", shown(value))),
        (Some(value), None) => (removed, format!("{} was removed", shown(value))),
        (Some(old), Some(new)) => (changed, format!("was {} and is {} now", shown(old), shown(new))),
        (None, None) => return,
    };
    changes.push(rule, path.clone(), before, after, format!("{what} {verb}"));
}

/// The present type where both values can be read by it, so that they can be compared.
fn read(text: &str, data_type: &DataType) -> Option<Scalar> {
    scalar::parse(text, data_type).ok()
}

fn compare_allowed(
    changes: &mut Changes,
    path: &ContractPath,
    types: (&DataType, &DataType),
    before: Option<&[String]>,
    after: Option<&[String]>,
) {
    let (old, new) = match (before, after) {
        (None, None) => return,
        (None, Some(new)) => {
            let message = format!("only {} are possible now", listed(new));
            return changes.push(&rules::ENUM_ADDED, path.clone(), None, Some(json(new)), message);
        }
        (Some(old), None) => {
            return changes.push(
                &rules::ENUM_REMOVED,
                path.clone(),
                Some(json(old)),
                None,
                "any value is possible now",
            );
        }
        (Some(old), Some(new)) => (old, new),
    };
    let same = |a: &str, b: &str| {
        a == b || matches!((read(a, types.0), read(b, types.1)), (Some(a), Some(b)) if a == b && !types.1.is_text())
    };
    let missing = |from: &[String], of: &[String], forward: bool| -> Vec<String> {
        let found =
            |value: &String| from.iter().any(|other| if forward { same(other, value) } else { same(value, other) });
        of.iter().filter(|value| !found(value)).cloned().collect()
    };
    let (added, removed) = (missing(old, new, true), missing(new, old, false));
    if !added.is_empty() {
        let message = format!("{} became possible", listed(&added));
        changes.push(&rules::ENUM_VALUE_ADDED, path.clone(), Some(json(old)), Some(json(new)), message);
    }
    if !removed.is_empty() {
        let message = format!("{} is no longer possible", listed(&removed));
        changes.push(&rules::ENUM_VALUE_REMOVED, path.clone(), Some(json(old)), Some(json(new)), message);
    }
    if added.is_empty() && removed.is_empty() && old != new {
        let message = "the same values stand in another order, or are written in another way";
        changes.push(&rules::CONSTRAINT_RESTATED, path.clone(), Some(json(old)), Some(json(new)), message);
    }
}

fn listed(values: &[String]) -> String {
    let mut shown: Vec<String> = values.iter().take(5).map(|value| format!("`{value}`")).collect();
    if values.len() > shown.len() {
        shown.push(format!("{} more", values.len() - shown.len()));
    }
    shown.join(", ")
}

/// The one bound of a side as it is written: its key, text, and whether the value itself is allowed.
struct Bound<'c>(Vec<(&'c str, &'static str, bool)>);

impl<'c> Bound<'c> {
    fn new(keys: [(&'c Option<String>, &'static str, bool); 2]) -> Self {
        Self(keys.into_iter().filter_map(|(text, key, with)| Some((text.as_deref()?, key, with))).collect())
    }

    fn json(&self) -> Option<Value> {
        match self.0.as_slice() {
            [] => None,
            [(text, ..)] => Some((*text).into()),
            several => Some(several.iter().map(|(text, key, _)| ((*key).to_owned(), Value::from(*text))).collect()),
        }
    }

    /// The bound that counts, of one or two; `Err` where a text cannot be read.
    fn effective(&self, data_type: &DataType, side: Side) -> Result<Option<(Scalar, bool)>, ()> {
        let mut found: Option<(Scalar, bool)> = None;
        for (text, _, with) in &self.0 {
            let one = (read(text, data_type).ok_or(())?, *with);
            found = match found {
                Some(other) if side.compare(&other, &one, data_type).ok_or(())? != Ordering::Less => Some(other),
                _ => Some(one),
            };
        }
        Ok(found)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Lower,
    Upper,
}

impl Side {
    /// Which of two bounds admits less: `Less` where the first admits more.
    fn compare(self, a: &(Scalar, bool), b: &(Scalar, bool), data_type: &DataType) -> Option<Ordering> {
        let whole = matches!(data_type, DataType::Int | DataType::Long | DataType::Date);
        // Of whole numbers an excluded bound is the next one, included.
        let included = |(value, with): &(Scalar, bool)| match value {
            Scalar::Integer(value) if whole && !with => {
                let next = if self == Self::Lower { value.checked_add(1) } else { value.checked_sub(1) };
                next.map(|next| (Scalar::Integer(next), true)).unwrap_or((Scalar::Integer(*value), false))
            }
            other => (other.clone(), *with),
        };
        let ((a, with_a), (b, with_b)) = (included(a), included(b));
        let order = match (&a, &b) {
            (Scalar::Integer(a), Scalar::Integer(b)) => a.cmp(b),
            (Scalar::Decimal(a), Scalar::Decimal(b)) => a.cmp(b),
            (Scalar::Double(a), Scalar::Double(b)) => a.partial_cmp(b)?,
            (Scalar::Text(a), Scalar::Text(b)) => a.cmp(b),
            _ => return None,
        };
        let order = if self == Self::Lower { order } else { order.reverse() };
        // An excluded bound admits less than the same one included.
        Some(order.then(with_b.cmp(&with_a)))
    }
}

fn compare_bounds(
    changes: &mut Changes,
    path: &ContractPath,
    (former_type, data_type): (&DataType, &DataType),
    before: &Bound<'_>,
    after: &Bound<'_>,
    side: Side,
) {
    if before.0 == after.0 && (former_type == data_type || before.0.is_empty()) {
        return;
    }
    let key = after.0.first().or(before.0.first()).map_or("minimum", |(_, key, _)| *key);
    let [loosened, tightened] = match side {
        Side::Lower => [&rules::MINIMUM_LOOSENED, &rules::MINIMUM_TIGHTENED],
        Side::Upper => [&rules::MAXIMUM_LOOSENED, &rules::MAXIMUM_TIGHTENED],
    };
    // Bounds of then are read by the type of now, as the values are; a type that cannot do that is a change of its own.
    let order = match (before.effective(data_type, side), after.effective(data_type, side)) {
        (Ok(None), Ok(None)) => Some(Ordering::Equal),
        (Ok(None), Ok(Some(_))) => Some(Ordering::Greater),
        (Ok(Some(_)) | Err(()), Ok(None)) => Some(Ordering::Less),
        (Ok(Some(old)), Ok(Some(new))) => side.compare(&new, &old, data_type),
        _ => None,
    };
    let rule = match order {
        Some(Ordering::Equal) if before.0 == after.0 => return,
        Some(Ordering::Equal) => &rules::CONSTRAINT_RESTATED,
        Some(Ordering::Less) => loosened,
        Some(Ordering::Greater) => tightened,
        None => &rules::BOUND_CHANGED,
    };
    let (old, new) = (before.json(), after.json());
    let message = match (&old, &new) {
        (Some(old), Some(new)) => format!("`{key}` was {} and is {} now", shown(old), shown(new)),
        (None, Some(new)) => format!("`{key}` {} was added", shown(new)),
        (Some(old), None) => format!("`{key}` {} was removed", shown(old)),
        (None, None) => return,
    };
    changes.push(rule, path.join(key), old, new, message);
}

fn compare_lengths(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<u64>,
    after: Option<u64>,
    order: Ordering,
) {
    if before == after {
        return;
    }
    let rule = match order {
        Ordering::Less => &rules::LENGTH_LOOSENED,
        Ordering::Equal => &rules::CONSTRAINT_RESTATED,
        Ordering::Greater => &rules::LENGTH_TIGHTENED,
    };
    let key = path.segments().last().map_or("length", String::as_str);
    changes.value(rule, path.clone(), before.as_ref(), after.as_ref(), &format!("`{key}`"));
}

fn compare_grid(changes: &mut Changes, path: &ContractPath, before: Option<&str>, after: Option<&str>) {
    if before == after {
        return;
    }
    // Steps are compared exactly, as decimals of 18 places.
    let step = |text: &str| scalar::decimal(text, 38, 18).filter(|step| *step > 0);
    let rule = match (before, after) {
        (None, _) => &rules::MULTIPLE_OF_TIGHTENED,
        (_, None) => &rules::MULTIPLE_OF_LOOSENED,
        (Some(old), Some(new)) => match (step(old), step(new)) {
            (Some(old), Some(new)) if old == new => &rules::CONSTRAINT_RESTATED,
            (Some(old), Some(new)) if new % old == 0 => &rules::MULTIPLE_OF_TIGHTENED,
            (Some(old), Some(new)) if old % new == 0 => &rules::MULTIPLE_OF_LOOSENED,
            _ => &rules::MULTIPLE_OF_CHANGED,
        },
    };
    changes.value(rule, path.clone(), before.as_ref(), after.as_ref(), "`multipleOf`");
}
