//! Ports, roles and classifications: how data goes out, and who may see what of it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::change::Changes;
use super::declared::{changed, compare_custom};
use super::path::ContractPath;
use super::rules::{self, Rule};
use crate::period::Period;

/// Classifications from the least to the most protected.
const CLASSIFICATIONS: [&str; 4] = ["public", "internal", "confidential", "restricted"];

/// Compares the classification that columns have by default.
pub(super) fn compare_classification(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let rule = classification_rule(before.and_then(Value::as_str), after.and_then(Value::as_str));
    changed(changes, rule, path.clone(), before, after);
}

/// Compares the classification of a column; one that is not given is that of the product.
pub(super) fn compare_column_classification(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let (inherited_before, inherited_after) = changes.inherited.clone();
    let old = before.and_then(Value::as_str).or(inherited_before.as_deref());
    let new = after.and_then(Value::as_str).or(inherited_after.as_deref());
    let rule = if old == new { &rules::METADATA_CHANGED } else { classification_rule(old, new) };
    changed(changes, rule, path.clone(), before, after);
}

fn classification_rule(before: Option<&str>, after: Option<&str>) -> &'static Rule {
    // Less than public is not to be classified at all.
    let rank = |word: Option<&str>| match word {
        None => Some(0),
        Some(word) => CLASSIFICATIONS.iter().position(|known| known.eq_ignore_ascii_case(word.trim())).map(|at| at + 1),
    };
    match (rank(before), rank(after)) {
        (Some(old), Some(new)) if new > old => &rules::CLASSIFICATION_RAISED,
        (Some(old), Some(new)) if new < old => &rules::CLASSIFICATION_LOWERED,
        (Some(_), Some(_)) => &rules::METADATA_CHANGED,
        (_, Some(0)) => &rules::CLASSIFICATION_LOWERED,
        (Some(0), _) => &rules::CLASSIFICATION_RAISED,
        _ => &rules::CLASSIFICATION_CHANGED,
    }
}

/// Objects of a list by the value of `key`, in their order.
fn by_name(value: Option<&Value>, key: &str) -> Vec<(String, Map<String, Value>)> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(Value::as_object)
        .filter_map(|item| Some((item.get(key)?.as_str()?.to_owned(), item.clone())))
        .collect()
}

type Fields = Map<String, Value>;

fn compare_named(
    changes: &mut Changes,
    path: &ContractPath,
    [added, removed]: [&'static Rule; 2],
    before: &[(String, Fields)],
    after: &[(String, Fields)],
    compare: impl Fn(&mut Changes, &ContractPath, &Fields, &Fields),
) {
    // The same role may be given several times, each with tables of its own: the first goes with the first.
    let mut open: Vec<&(String, Fields)> = after.iter().collect();
    for (name, old) in before {
        let path = path.join(name);
        match open.iter().position(|(other, _)| other == name) {
            Some(at) => {
                let (_, new) = open.remove(at);
                if old != new {
                    compare(changes, &path, old, new);
                }
            }
            None => changed(changes, removed, path, Some(&Value::Object(old.clone())), None),
        }
    }
    for (name, new) in open {
        changed(changes, added, path.join(name), None, Some(&Value::Object(new.clone())));
    }
}

/// How a list of names that means everything where it is absent was changed: by the rule for fewer, more, or both.
fn compare_scope(
    changes: &mut Changes,
    path: ContractPath,
    [fewer, more]: [&'static Rule; 2],
    before: Option<&Value>,
    after: Option<&Value>,
    absent_is_all: bool,
) {
    let names = |value: Option<&Value>| -> Option<BTreeSet<String>> {
        match value {
            None if absent_is_all => None,
            None => Some(BTreeSet::new()),
            Some(value) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
        }
    };
    let (old, new) = (names(before), names(after));
    let rule = match (&old, &new) {
        (None, None) => return,
        (None, Some(_)) => fewer,
        (Some(_), None) => more,
        (Some(old), Some(new)) if old == new => &rules::METADATA_CHANGED,
        (Some(old), Some(new)) if new.is_superset(old) => more,
        _ => fewer,
    };
    changed(changes, rule, path, before, after);
}

/// Compares how data goes out. Without ports there is one of Iceberg with all tables.
pub(super) fn compare_ports(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let implied = json!([{"name": "tables", "type": "iceberg"}]);
    let ports = |value: Option<&Value>| by_name(Some(value.unwrap_or(&implied)), "name");
    let kinds = [&rules::PORT_ADDED, &rules::PORT_REMOVED];
    compare_named(changes, path, kinds, &ports(before), &ports(after), |changes, path, old, new| {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let (was, is) = (old.get(key), new.get(key));
            if was == is {
                continue;
            }
            let path = path.join(key);
            match key.as_str() {
                "type" => changed(changes, &rules::PORT_CHANGED, path, was, is),
                "tables" => {
                    compare_scope(changes, path, [&rules::PORT_LOOSENED, &rules::PORT_TIGHTENED], was, is, true);
                }
                "write" => {
                    let audited = |value: Option<&Value>| value.and_then(Value::as_str) == Some("audited");
                    let rule = match (audited(was), audited(is)) {
                        (true, false) => &rules::PORT_LOOSENED,
                        (false, true) => &rules::PORT_TIGHTENED,
                        _ => &rules::METADATA_CHANGED,
                    };
                    changed(changes, rule, path, was, is);
                }
                "description" => changed(changes, &rules::DESCRIPTION_CHANGED, path, was, is),
                "custom" => compare_custom(changes, &path, was, is),
                _ => changed(changes, &rules::UNKNOWN_CHANGED, path, was, is),
            }
        }
    });
}

/// Compares what roles may be granted.
pub(super) fn compare_roles(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let kinds = [&rules::ROLE_ADDED, &rules::ROLE_REMOVED];
    let (before, after) = (by_name(before, "role"), by_name(after, "role"));
    compare_named(changes, path, kinds, &before, &after, |changes, path, old, new| {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let (was, is) = (old.get(key), new.get(key));
            if was == is {
                continue;
            }
            let path = path.join(key);
            match key.as_str() {
                "rows" => {
                    let rule = match (was, is) {
                        (None, _) => &rules::ROW_FILTER_ADDED,
                        (_, None) => &rules::ROW_FILTER_REMOVED,
                        _ => &rules::ROW_FILTER_CHANGED,
                    };
                    changed(changes, rule, path, was, is);
                }
                "unmasked" => {
                    compare_scope(changes, path, [&rules::UNMASKED_NARROWED, &rules::UNMASKED_WIDENED], was, is, false);
                }
                "tables" => {
                    compare_scope(changes, path, [&rules::ROLE_LOOSENED, &rules::ROLE_TIGHTENED], was, is, true);
                }
                "columns" => {
                    let kinds = [&rules::VISIBLE_COLUMNS_NARROWED, &rules::VISIBLE_COLUMNS_WIDENED];
                    compare_scope(changes, path, kinds, was, is, true);
                }
                "approvals" => changed(changes, approvals_rule(was, is), path, was, is),
                "expires" => changed(changes, expiry_rule(was, is), path, was, is),
                "approvers" | "purpose" => changed(changes, &rules::ROLE_TERMS_CHANGED, path, was, is),
                "custom" => compare_custom(changes, &path, was, is),
                _ => changed(changes, &rules::UNKNOWN_CHANGED, path, was, is),
            }
        }
    });
}

/// One approval is enough where nothing is said.
fn approvals_rule(before: Option<&Value>, after: Option<&Value>) -> &'static Rule {
    let count = |value: Option<&Value>| value.map_or(Some(1), Value::as_u64);
    if count(before) == count(after) { &rules::METADATA_CHANGED } else { &rules::ROLE_TERMS_CHANGED }
}

/// Grants that do not expire last longest.
fn expiry_rule(before: Option<&Value>, after: Option<&Value>) -> &'static Rule {
    let period = |value: &Value| Period::parse(value.as_str()?).ok();
    match (before, after) {
        (None, _) => &rules::ROLE_LOOSENED,
        (_, None) => &rules::ROLE_TIGHTENED,
        (Some(old), Some(new)) => match period(old).zip(period(new)).and_then(|(old, new)| new.compare(old)) {
            Some(std::cmp::Ordering::Less) => &rules::ROLE_LOOSENED,
            Some(std::cmp::Ordering::Greater) => &rules::ROLE_TIGHTENED,
            Some(std::cmp::Ordering::Equal) => &rules::METADATA_CHANGED,
            None => &rules::UNKNOWN_CHANGED,
        },
    }
}
