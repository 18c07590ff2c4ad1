//! Service levels.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::change::{Changes, shown};
use super::declared::{changed, compare_custom};
use super::path::ContractPath;
use super::rules::{self, Rule};
use crate::period::Period;
use crate::scalar;

/// Compares the service levels of a product.
pub(super) fn compare(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let none = Map::new();
    let levels = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned().unwrap_or_else(|| none.clone());
    let (old, new) = (levels(before), levels(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was == is {
            continue;
        }
        let path = path.join(name);
        match name.as_str() {
            "freshness" => compare_freshness(changes, &path, was, is),
            "custom" => compare_levels(changes, &path, was, is),
            "availability" => level(changes, &path, was, is, Absent::Nothing, availability),
            // Without a retention nothing ever expires.
            "retention" => level(changes, &path, was, is, Absent::Best, compare_periods),
            "endOfSupport" if was.is_none() => changed(changes, &rules::END_OF_SUPPORT_ANNOUNCED, path, was, is),
            // Without an end support goes on.
            "endOfSupport" => level(changes, &path, was, is, Absent::Best, |was, is| {
                Some(scalar::date(&text(is)?)?.cmp(&scalar::date(&text(was)?)?))
            }),
            _ => changed(
                changes,
                [&rules::SLA_ADDED, &rules::SLA_REMOVED, &rules::SLA_CHANGED][slot(was, is)],
                path,
                was,
                is,
            ),
        }
    }
}

fn slot(before: Option<&Value>, after: Option<&Value>) -> usize {
    match (before, after) {
        (None, _) => 0,
        (_, None) => 1,
        _ => 2,
    }
}

/// What no service level means.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    /// Nothing is promised.
    Nothing,
    /// More cannot be promised.
    Best,
}

/// Compares one service level; `order` says how the new value stands to the old one, `Greater` where it promises more.
fn level(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
    absent: Absent,
    order: impl Fn(&Value, &Value) -> Option<Ordering>,
) {
    let key = path.segments().last().map_or("", String::as_str);
    let (rule, message): (&'static Rule, String) = match (before, after, absent) {
        (None, Some(new), Absent::Nothing) => (&rules::SLA_ADDED, format!("`{key}` {} is promised now", shown(new))),
        (Some(old), None, Absent::Nothing) => {
            (&rules::SLA_REMOVED, format!("`{key}` {} is no longer promised", shown(old)))
        }
        (None, Some(new), Absent::Best) => (&rules::SLA_LOOSENED, format!("`{key}` is limited to {} now", shown(new))),
        (Some(old), None, Absent::Best) => {
            (&rules::SLA_TIGHTENED, format!("`{key}` is not limited to {} any more", shown(old)))
        }
        (Some(old), Some(new), _) => {
            let rule = match order(old, new) {
                Some(Ordering::Less) => &rules::SLA_LOOSENED,
                Some(Ordering::Greater) => &rules::SLA_TIGHTENED,
                Some(Ordering::Equal) => &rules::SLA_RESTATED,
                None => &rules::SLA_CHANGED,
            };
            (rule, format!("`{key}` was {} and is {} now", shown(old), shown(new)))
        }
        (None, None, _) => return,
    };
    changes.push(rule, path.clone(), before.cloned(), after.cloned(), message);
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A share of the time, `99.9%` or `99.9`.
fn availability(before: &Value, after: &Value) -> Option<Ordering> {
    // Compared exactly: 99.90 is 99.9.
    let share = |value: &Value| scalar::decimal(text(value)?.trim_end_matches('%').trim(), 38, 18);
    Some(share(after)?.cmp(&share(before)?))
}

fn compare_periods(before: &Value, after: &Value) -> Option<Ordering> {
    let period = |value: &Value| Period::parse(&text(value)?).ok();
    period(after)?.compare(period(before)?)
}

/// Freshness is a text, or an object that says of which column too.
fn compare_freshness(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let within = |value: Option<&'_ Value>| match value {
        Some(Value::Object(object)) => object.get("within").cloned(),
        other => other.cloned(),
    };
    let column = |value: Option<&'_ Value>| value.and_then(|value| value.get("column")).cloned();
    let (old, new) = (within(before), within(after));
    if old != new {
        // The smaller age promises more.
        let order = |was: &Value, is: &Value| compare_periods(was, is).map(Ordering::reverse);
        level(changes, path, old.as_ref(), new.as_ref(), Absent::Nothing, order);
    }
    if before.is_some() && after.is_some() {
        let (old, new) = (column(before), column(after));
        if old != new {
            changed(changes, &rules::SLA_CHANGED, path.join("column"), old.as_ref(), new.as_ref());
        }
    }
}

/// Further service levels, by name. What is not understood needs a review; one that is gone is no longer promised.
fn compare_levels(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let objects = |value: Option<&Value>| value.is_none_or(Value::is_object);
    if !objects(before) || !objects(after) {
        return compare_custom(changes, path, before, after);
    }
    let none = Map::new();
    let (old, new) =
        (before.and_then(Value::as_object).unwrap_or(&none), after.and_then(Value::as_object).unwrap_or(&none));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was != is {
            let rule = [&rules::SLA_ADDED, &rules::SLA_REMOVED, &rules::SLA_CHANGED][slot(was, is)];
            changed(changes, rule, path.join(name), was, is);
        }
    }
}
