//! Keys that the contract carries as they are written: which rule a change of each falls under.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Changes, shown};
use super::path::ContractPath;
use super::rules::{self, Rule};
use super::{access, sla};

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
pub(super) static TABLE: [(&str, Kind); 2] =
    [("tags", Kind::Rule(&rules::TAGS_CHANGED)), ("custom", Kind::Compare(compare_custom))];

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
    for name in names {
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

/// Keys of standards that the manifest does not model. Import keeps them below `custom`, and they promise as much there as
/// in their own document (Open Data Contract Standard 3.2).
fn standard_rules(key: &str, at_table: bool) -> Option<[&'static Rule; 3]> {
    let same = |rule| Some([rule, rule, rule]);
    match key {
        "servers" => Some([&rules::SERVER_ADDED, &rules::SERVER_REMOVED, &rules::SERVER_CHANGED]),
        "roles" => Some([&rules::ROLE_ADDED, &rules::ROLE_REMOVED, &rules::ROLE_TERMS_CHANGED]),
        "slaProperties" => Some([&rules::SLA_ADDED, &rules::SLA_REMOVED, &rules::SLA_CHANGED]),
        "physicalName" => same(&rules::TABLE_PHYSICAL_NAME_CHANGED),
        "physicalType" if at_table => same(&rules::TABLE_KIND_CHANGED),
        "physicalType" => same(&rules::PHYSICAL_TYPE_CHANGED),
        "deprecated" | "deprecation" => same(&rules::COLUMN_DEPRECATED),
        "price" => same(&rules::PRICE_CHANGED),
        "team" => same(&rules::OWNER_CHANGED),
        "support" => same(&rules::CONTACT_CHANGED),
        "tags" => same(&rules::TAGS_CHANGED),
        "description" | "businessName" => same(&rules::DESCRIPTION_CHANGED),
        // Written out anew by whoever exports the contract.
        "apiVersion" | "kind" => same(&rules::METADATA_CHANGED),
        _ => None,
    }
}

/// Compares free keys: those of standards by their rules, others promise nothing.
pub(super) fn compare_custom(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let metadata = [&rules::METADATA_CHANGED; 3];
    walk(changes, path, metadata, before, after);
}

fn walk(
    changes: &mut Changes,
    path: &ContractPath,
    inherited: [&'static Rule; 3],
    before: Option<&Value>,
    after: Option<&Value>,
) {
    if before == after {
        return;
    }
    let empty = Value::Object(serde_json::Map::new());
    // A key that came or went as a whole is looked into, as one that was there and empty.
    let at_custom = path.segments().last().is_some_and(|key| key == "custom" || key == "odcs");
    let (before, after) = match (before, after) {
        (None, Some(Value::Object(_))) if at_custom => (Some(&empty), after),
        (Some(Value::Object(_)), None) if at_custom => (before, Some(&empty)),
        other => other,
    };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let at_table = path.table().is_some() && path.column().is_none();
            for name in names {
                let own = standard_rules(name, at_table).filter(|_| inherited == [&rules::METADATA_CHANGED; 3]);
                walk(changes, &path.join(name), own.unwrap_or(inherited), old.get(name), new.get(name));
            }
        }
        (old, new) if named(old) && named(new) && (old.is_some() || new.is_some()) => {
            let items = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
            let (old, new) = (items(old), items(new));
            let mut names: Vec<String> = old.iter().filter_map(name_of).collect();
            names.extend(
                new.iter()
                    .filter_map(name_of)
                    .filter(|name| !old.iter().any(|item| name_of(item).as_ref() == Some(name))),
            );
            for name in names {
                let find = |items: &[Value]| items.iter().find(|item| name_of(item).as_ref() == Some(&name)).cloned();
                compare_item(changes, &path.join(&name), inherited, find(&old), find(&new));
            }
        }
        (old, new) => changed(changes, pick(inherited, old, new), path.clone(), old, new),
    }
}

fn compare_item(
    changes: &mut Changes,
    path: &ContractPath,
    [added, removed, updated]: [&'static Rule; 3],
    before: Option<Value>,
    after: Option<Value>,
) {
    match (&before, &after) {
        (Some(old), Some(new)) => walk(changes, path, [updated; 3], Some(old), Some(new)),
        (old, new) => changed(
            changes,
            pick([added, removed, updated], old.as_ref(), new.as_ref()),
            path.clone(),
            old.as_ref(),
            new.as_ref(),
        ),
    }
}

fn pick([added, removed, updated]: [&'static Rule; 3], before: Option<&Value>, after: Option<&Value>) -> &'static Rule {
    match (before, after) {
        (None, _) => added,
        (_, None) => removed,
        _ => updated,
    }
}

/// What an item of a list is known by in the standards.
fn name_of(item: &Value) -> Option<String> {
    const KEYS: [&str; 8] = ["name", "property", "server", "role", "username", "channel", "id", "url"];
    KEYS.iter().find_map(|key| item.get(key)?.as_str()).map(str::to_owned)
}

/// Whether it is a list (or nothing) whose items have names of their own.
fn named(value: Option<&Value>) -> bool {
    let Some(value) = value else { return true };
    let Some(items) = value.as_array() else { return false };
    let names: BTreeSet<String> = items.iter().filter_map(name_of).collect();
    names.len() == items.len()
}
