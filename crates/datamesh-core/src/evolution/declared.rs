//! Keys that the contract carries as they are written: which rule a change of each falls under.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Changes, shown};
use super::path::ContractPath;
use super::rules::{self, Rule};
use super::{access, odcs, quality, sla};

/// What compares a key's values.
pub(super) enum Kind {
    /// Any change falls under this rule.
    Rule(&'static Rule),
    /// It needs a comparison of its own.
    Compare(fn(&mut Changes, &ContractPath, Option<&Value>, Option<&Value>)),
}

/// Keys and what compares their values.
pub(super) type Keys = [(&'static str, Kind)];

/// Keys of the product.
pub(super) static PRODUCT: [(&str, Kind); 10] = [
    ("type", Kind::Rule(&rules::METADATA_CHANGED)),
    ("tags", Kind::Rule(&rules::TAGS_CHANGED)),
    ("classification", Kind::Compare(access::compare_classification)),
    ("trigger", Kind::Rule(&rules::METADATA_CHANGED)),
    ("ports", Kind::Compare(access::compare_ports)),
    ("access", Kind::Compare(access::compare_roles)),
    ("sla", Kind::Compare(sla::compare)),
    ("contact", Kind::Rule(&rules::CONTACT_CHANGED)),
    ("price", Kind::Rule(&rules::PRICE_CHANGED)),
    ("custom", Kind::Compare(compare_custom)),
];

/// Keys of a table.
pub(super) static TABLE: [(&str, Kind); 3] = [
    ("tags", Kind::Rule(&rules::TAGS_CHANGED)),
    ("quality", Kind::Compare(quality::compare_unenforced)),
    ("custom", Kind::Compare(compare_custom)),
];

/// Keys of a column.
pub(super) static COLUMN: [(&str, Kind); 4] = [
    ("tags", Kind::Rule(&rules::TAGS_CHANGED)),
    ("classification", Kind::Compare(access::compare_column_classification)),
    ("declassify", Kind::Rule(&rules::DECLASSIFY_CHANGED)),
    ("custom", Kind::Compare(compare_custom)),
];

/// Compares the keys of a product, table or column. What no rule knows needs a review.
pub(super) fn compare(
    changes: &mut Changes,
    path: &ContractPath,
    keys: &Keys,
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    // What a standard's document says in its own words comes last: it may say the same as a change that was found.
    let (last, first): (Vec<&String>, Vec<&String>) = names.into_iter().partition(|name| *name == "custom");
    for name in first.into_iter().chain(last) {
        let (old, new) = (before.get(name), after.get(name));
        if old == new {
            continue;
        }
        match keys.iter().find(|(key, _)| key == name) {
            Some((_, Kind::Compare(compare))) => compare(changes, &path.join(name), old, new),
            Some((_, Kind::Rule(rule))) => changed(changes, rule, path.join(name), old, new),
            None => changed(changes, &rules::UNKNOWN_CHANGED, path.join(name), old, new),
        }
    }
}

/// Notes that a value came, went or became another.
pub(super) fn changed(
    changes: &mut Changes,
    rule: &'static Rule,
    path: ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let key = path.segments().last().map_or("", String::as_str);
    let is_short = |value: &Value| !value.is_array() && !value.is_object();
    let message = match (before, after) {
        (Some(old), Some(new)) if is_short(old) && is_short(new) => {
            format!("`{key}` was {} and is {} now", shown(old), shown(new))
        }
        (Some(_), Some(_)) => format!("`{key}` was changed"),
        (None, Some(new)) if is_short(new) => format!("`{key}` {} was added", shown(new)),
        (Some(old), None) if is_short(old) => format!("`{key}` {} was removed", shown(old)),
        (None, Some(_)) => format!("`{key}` was added"),
        (Some(_), None) => format!("`{key}` was removed"),
        (None, None) => return,
    };
    changes.push(rule, path, before.cloned(), after.cloned(), message);
}

/// Compares free keys, which promise nothing; but what a standard's document says beyond a manifest, and import keeps
/// here, is compared by the standard's rules.
pub(super) fn compare_custom(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let keys = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let is_object = |value: Option<&Value>| value.is_none_or(Value::is_object);
    if !is_object(before) || !is_object(after) {
        return changed(changes, &rules::METADATA_CHANGED, path.clone(), before, after);
    }
    let (old, new) = (keys(before), keys(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if name == "odcs" {
            odcs::compare(changes, &path.join(name), was, is);
        } else {
            walk(changes, &path.join(name), [&rules::METADATA_CHANGED; 3], was, is);
        }
    }
}

/// Compares two values, item by item and key by key; items of lists are known by their names, where all have one.
pub(super) fn walk(
    changes: &mut Changes,
    path: &ContractPath,
    rules: [&'static Rule; 3],
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let [added, removed, updated] = rules;
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                walk(changes, &path.join(name), [updated; 3], old.get(name), new.get(name));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if are_named(old) && are_named(new) => {
            for (name, old, new) in by_name(old, new) {
                walk(changes, &path.join(&name), rules, old, new);
            }
        }
        // A list that came or went came or went item by item.
        (None, Some(Value::Array(new))) if are_named(new) => {
            for (name, _, new) in by_name(&[], new) {
                changed(changes, added, path.join(&name), None, new);
            }
        }
        (Some(Value::Array(old)), None) if are_named(old) => {
            for (name, old, _) in by_name(old, &[]) {
                changed(changes, removed, path.join(&name), old, None);
            }
        }
        (old, new) => {
            let rule = match (old, new) {
                (None, _) => added,
                (_, None) => removed,
                _ => updated,
            };
            changed(changes, rule, path.clone(), old, new);
        }
    }
}

/// What an item of a list is known by in the standards.
fn name_of(item: &Value) -> Option<&str> {
    const KEYS: [&str; 8] = ["name", "property", "server", "role", "username", "channel", "id", "url"];
    KEYS.iter().find_map(|key| item.get(key)?.as_str())
}

/// Whether all items of a list have names of their own.
fn are_named(items: &[Value]) -> bool {
    let names: BTreeSet<&str> = items.iter().filter_map(name_of).collect();
    !items.is_empty() && names.len() == items.len()
}

/// The items of two lists by their names, those of the first list first.
pub(super) fn by_name<'v>(
    before: &'v [Value],
    after: &'v [Value],
) -> Vec<(String, Option<&'v Value>, Option<&'v Value>)> {
    let find = |items: &'v [Value], name: &str| items.iter().find(|item| name_of(item) == Some(name));
    let mut found: Vec<_> = Vec::new();
    for item in before {
        let Some(name) = name_of(item) else { continue };
        found.push((name.to_owned(), Some(item), find(after, name)));
    }
    for item in after {
        let Some(name) = name_of(item) else { continue };
        if find(before, name).is_none() {
            found.push((name.to_owned(), None, Some(item)));
        }
    }
    found
}
