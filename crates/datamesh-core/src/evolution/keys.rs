//! Primary keys, unique keys and references.

use std::collections::BTreeSet;

use super::change::{Changes, json};
use super::columns::Renames;
use super::path::ContractPath;
use super::rules;
use crate::contract::Table;
use crate::quality::KeyRule;
use crate::reference::Reference;

type Key = BTreeSet<String>;

fn current(columns: &[String], renames: &Renames<'_>) -> Vec<String> {
    columns.iter().map(|name| renames.get(name.as_str()).map_or(name.clone(), |now| (*now).to_owned())).collect()
}

fn listed(columns: &Key) -> String {
    columns.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Compares the keys of a table. The order of a key's columns does not matter.
pub(super) fn compare_keys(
    changes: &mut Changes,
    path: &ContractPath,
    before: &Table,
    after: &Table,
    renames: &Renames<'_>,
) {
    let primary = |table: &Table, renames: &Renames<'_>| Key::from_iter(current(&table.primary_key(), renames));
    let none = Renames::new();
    let (old, new) = (primary(before, renames), primary(after, &none));
    if old != new {
        let (rule, message) = match (old.is_empty(), new.is_empty()) {
            (true, _) => (&rules::PRIMARY_KEY_ADDED, format!("the primary key ({}) was added", listed(&new))),
            (_, true) => (&rules::PRIMARY_KEY_REMOVED, format!("the primary key ({}) was removed", listed(&old))),
            _ => (
                &rules::PRIMARY_KEY_CHANGED,
                format!("the primary key was ({}) and is ({}) now", listed(&old), listed(&new)),
            ),
        };
        let value = |key: &Key| (!key.is_empty()).then(|| json(key));
        let columns = old.symmetric_difference(&new).cloned().collect();
        changes.push_for(rule, path.join("primaryKey"), value(&old), value(&new), message, columns);
    }
    let keys = |table: &Table, renames: &Renames<'_>| -> Vec<(String, Key)> {
        let rules = KeyRule::of(table).into_iter();
        rules.map(|key| (key.rule, Key::from_iter(current(&key.columns, renames)))).collect()
    };
    let (old, new) = (keys(before, renames), keys(after, &none));
    let unique = |keys: &[(String, Key)]| -> Vec<Key> {
        keys.iter().filter(|(rule, _)| rule == "unique").map(|(_, key)| key.clone()).collect()
    };
    // A key makes every larger set of columns unique too.
    let implied = |key: &Key, by: &[(String, Key)]| by.iter().any(|(_, other)| other.is_subset(key));
    let gone = |key: &Key| key.iter().any(|name| after.column(name).is_none()) && key.len() == 1;
    let (old_unique, new_unique) = (unique(&old), unique(&new));
    let (was, is): (BTreeSet<&Key>, BTreeSet<&Key>) = (old_unique.iter().collect(), new_unique.iter().collect());
    for key in old_unique.iter().filter(|key| !is.contains(key) && !gone(key)) {
        let (rule, message) = if implied(key, &new) {
            (&rules::UNIQUE_RESTATED, format!("({}) is unique by another key", listed(key)))
        } else {
            (&rules::UNIQUE_REMOVED, format!("({}) may repeat now", listed(key)))
        };
        changes.push_for(rule, unique_path(path, key), Some(json(key)), None, message, key.iter().cloned().collect());
    }
    let is_new = |name: &String| before.column(name).is_none() && !renames.values().any(|now| now == name);
    for key in new_unique.iter().filter(|key| !was.contains(key)) {
        // A new column's key is part of what was added.
        if key.len() == 1 && key.iter().all(is_new) {
            continue;
        }
        let (rule, message) = if implied(key, &old) {
            (&rules::UNIQUE_RESTATED, format!("({}) was unique by another key already", listed(key)))
        } else {
            (&rules::UNIQUE_ADDED, format!("({}) does not repeat any more", listed(key)))
        };
        changes.push_for(rule, unique_path(path, key), None, Some(json(key)), message, key.iter().cloned().collect());
    }
}

/// A key of one column stands at the column, others at the table.
fn unique_path(path: &ContractPath, key: &Key) -> ContractPath {
    match key.iter().next() {
        Some(column) if key.len() == 1 => path.join("columns").join(column).join("unique"),
        _ => path.join("unique").join(&listed(key)),
    }
}

/// Compares the references of a table.
pub(super) fn compare_references(
    changes: &mut Changes,
    path: &ContractPath,
    before: &[Reference],
    after: &[Reference],
    renames: &Renames<'_>,
) {
    let mut open: Vec<&Reference> = after.iter().collect();
    let place = |columns: &[String]| match columns {
        [column] => path.join("columns").join(column).join("references"),
        several => path.join("references").join(&several.join("+")),
    };
    for old in before {
        let columns = current(&old.columns, renames);
        let same = |new: &&Reference| {
            new.columns == columns && new.to == old.to && new.at == old.at && new.filter == old.filter
        };
        let Some(at) = open.iter().position(same) else {
            let rule = if old.quarantines() { &rules::REFERENCE_REMOVED } else { &rules::REFERENCE_NOTED };
            let message = format!("({}) no longer refers to `{}`", columns.join(", "), old.to);
            changes.push_for(rule, place(&columns), Some(json(old)), None, message, columns);
            continue;
        };
        let new = open.remove(at);
        // INVARIANT: a further part of a reference does not compile until it is compared.
        let Reference { columns: _, to, at: _, severity, description, filter: _ } = new;
        if *severity == old.severity && *description == old.description {
            continue;
        }
        let (rule, what) = match (old.quarantines(), new.quarantines()) {
            (true, false) => (&rules::REFERENCE_REMOVED, "only warns now"),
            (false, true) => (&rules::REFERENCE_ADDED, "holds rows back now"),
            _ => (&rules::REFERENCE_NOTED, "is described in other words, or warns otherwise"),
        };
        let message = format!("the reference of ({}) to `{to}` {what}", columns.join(", "));
        changes.push_for(rule, place(&columns), Some(json(old)), Some(json(new)), message, columns);
    }
    for new in open {
        let rule = if new.quarantines() { &rules::REFERENCE_ADDED } else { &rules::REFERENCE_NOTED };
        let message = format!("({}) refers to `{}` now", new.columns.join(", "), new.to);
        changes.push_for(rule, place(&new.columns), None, Some(json(new)), message, new.columns.clone());
    }
}
