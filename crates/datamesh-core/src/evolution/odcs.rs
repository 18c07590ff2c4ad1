//! What a data contract of the Open Data Contract Standard (ODCS 3.2) says beyond a manifest. Import keeps it below
//! `custom.odcs` at its node: keys that the manifest has no word for, and the document's own wording of what it has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::change::Changes;
use super::declared::{by_name, changed, walk};
use super::path::ContractPath;
use super::rules::{self, Rule};

/// Service levels that the manifest has words for.
const LEVELS: [&str; 4] = ["availability", "freshness", "retention", "endOfSupport"];

/// Which node of the contract the keys belong to.
#[derive(Clone, Copy, PartialEq)]
enum Node {
    Product,
    Role,
    Table,
    Column,
}

/// Compares what is kept of the standard at one node. `path` ends in `custom.odcs`.
pub(super) fn compare(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let segments = path.segments();
    let node = match (path.column(), path.table(), segments.first().map(String::as_str)) {
        (Some(_), ..) => Node::Column,
        (_, Some(_), _) => Node::Table,
        (_, _, Some("access")) => Node::Role,
        _ => Node::Product,
    };
    let home =
        segments[..segments.len().saturating_sub(2)].iter().fold(ContractPath::root(), |home, name| home.join(name));
    let keys = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (keys(before), keys(after));
    // Keys of the manifest that could not be read from the document: only the document's words tell what they promise.
    let unread = |keys: &serde_json::Map<String, Value>, key: &str| {
        let unread = keys.get("unread").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        unread.iter().any(|name| name == key)
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    // `omit` and `unread` are notes of the import.
    for name in names.into_iter().filter(|name| !["omit", "unread"].contains(&name.as_str())) {
        let (was, is) = (old.get(name), new.get(name));
        if was == is {
            continue;
        }
        let at = path.join(name);
        let same = |rule: &'static Rule| [rule; 3];
        let metadata = same(&rules::METADATA_CHANGED);
        let is_unread = |key: &str| unread(&old, key) || unread(&new, key);
        let rules = match (node, name.as_str()) {
            (Node::Product, "servers") => [&rules::SERVER_ADDED, &rules::SERVER_REMOVED, &rules::SERVER_CHANGED],
            (Node::Product, "slaProperties") => {
                compare_levels(changes, &at, was, is);
                continue;
            }
            (Node::Product, "roles") => [&rules::ROLE_ADDED, &rules::ROLE_REMOVED, &rules::ROLE_TERMS_CHANGED],
            (Node::Product, "status") => same(&rules::STATUS_CHANGED),
            (Node::Product, "support") => same(&rules::CONTACT_CHANGED),
            (Node::Product, "price") => same(&rules::PRICE_CHANGED),
            (Node::Role, "access" | "secondLevelApprovers" | "firstLevelApprovers") => same(&rules::ROLE_TERMS_CHANGED),
            (Node::Table | Node::Column, "physicalName") => same(&rules::PHYSICAL_NAME_CHANGED),
            (Node::Table, "physicalType") if is_table(was) == is_table(is) && is_table(is) => metadata,
            (Node::Table, "physicalType") => same(&rules::TABLE_KIND_CHANGED),
            (Node::Column, "physicalType") if changes.is_noted(&home.join("type")) || is_spelling(was, is) => metadata,
            (Node::Column, "physicalType") => same(&rules::PHYSICAL_TYPE_CHANGED),
            (Node::Column, "logicalTypeOptions") => {
                compare_options(changes, &home, &at, was, is);
                continue;
            }
            (Node::Column | Node::Table, "relationships") if is_unread("relationships") => {
                [&rules::REFERENCE_ADDED, &rules::REFERENCE_REMOVED, &rules::UNKNOWN_CHANGED]
            }
            (_, "quality") => [&rules::QUALITY_ADDED, &rules::QUALITY_REMOVED, &rules::QUALITY_MEASURE_CHANGED],
            (_, "deprecated" | "deprecation") => same(&rules::DEPRECATION_CHANGED),
            (_, "tags") => same(&rules::TAGS_CHANGED),
            (_, "description" | "businessName") => same(&rules::DESCRIPTION_CHANGED),
            (_, key) if is_unread(key) => [&rules::UNKNOWN_CHANGED; 3],
            _ => metadata,
        };
        walk(changes, &at, rules, was, is);
    }
}

/// Without a word it is a table.
fn is_table(physical: Option<&Value>) -> bool {
    physical.is_none_or(|physical| physical.as_str().is_some_and(|word| word.eq_ignore_ascii_case("table")))
}

/// Whether two physical types of one and the same type differ in spelling only. One that is not told is that of the type.
fn is_spelling(before: Option<&Value>, after: Option<&Value>) -> bool {
    const SPELLINGS: [&[&str]; 7] = [
        &["string", "varchar", "text", "character varying"],
        &["int", "integer", "int4", "int32"],
        &["bigint", "long", "int64", "int8"],
        &["float", "real", "float4", "float32"],
        &["double", "double precision", "float8", "float64"],
        &["boolean", "bool"],
        &["timestamp", "timestamptz", "timestamp_tz", "timestamp with time zone"],
    ];
    let group = |value: Option<&Value>| -> Option<Option<usize>> {
        let Some(value) = value else { return Some(None) };
        let word = value.as_str()?.trim().to_ascii_lowercase();
        SPELLINGS.iter().position(|words| words.contains(&word.as_str())).map(Some)
    };
    match (group(before), group(after)) {
        (Some(Some(before)), Some(Some(after))) => before == after,
        // The type is the same, and this is one of its words.
        (Some(_), Some(_)) => true,
        _ => match (before.and_then(Value::as_str), after.and_then(Value::as_str)) {
            (Some(before), Some(after)) => before.trim().eq_ignore_ascii_case(after.trim()),
            _ => false,
        },
    }
}

/// Service levels: those that the manifest has words for were compared there.
fn compare_levels(changes: &mut Changes, path: &ContractPath, before: Option<&Value>, after: Option<&Value>) {
    let items = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (items(before), items(after));
    let sla = ContractPath::root().join("sla");
    for (name, was, is) in by_name(&old, &new) {
        let modelled = LEVELS.contains(&name.as_str());
        if was == is || (modelled && changes.is_noted(&sla.join(&name))) {
            continue;
        }
        let at = path.join(&name);
        let (Some(Value::Object(was)), Some(Value::Object(is))) = (was, is) else {
            // The same wording may come and go with the list; the level itself is in the manifest's words.
            if !modelled {
                walk(changes, &at, [&rules::SLA_ADDED, &rules::SLA_REMOVED, &rules::SLA_CHANGED], was, is);
            }
            continue;
        };
        let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            let promises = ["value", "valueExt", "unit", "element"].contains(&key.as_str());
            let rule = if promises { &rules::SLA_CHANGED } else { &rules::METADATA_CHANGED };
            if was.get(key) != is.get(key) {
                changed(changes, rule, at.join(key), was.get(key), is.get(key));
            }
        }
    }
}

/// Options of a type: those that the manifest has words for were compared there.
fn compare_options(
    changes: &mut Changes,
    home: &ContractPath,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let keys = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (keys(before), keys(after));
    let type_changed = changes.is_noted(&home.join("type"));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        let ours = match name.as_str() {
            "minItems" => "minLength",
            "maxItems" => "maxLength",
            other => other,
        };
        if was == is || type_changed || changes.is_noted(&home.join(ours)) {
            continue;
        }
        let rules = match name.as_str() {
            "pattern" => [&rules::PATTERN_ADDED, &rules::PATTERN_REMOVED, &rules::PATTERN_CHANGED],
            _ => [&rules::UNKNOWN_CHANGED; 3],
        };
        walk(changes, &path.join(name), rules, was, is);
    }
}
