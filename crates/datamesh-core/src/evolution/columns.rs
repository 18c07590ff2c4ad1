//! Columns, nested fields, items of arrays and values of maps.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::change::{Changes, json};
use super::path::ContractPath;
use super::{constraints, declared, rules};
use crate::contract::Column;
use crate::datatype::DataType;

/// Former names of columns and what they are called now.
pub(super) type Renames<'c> = HashMap<&'c str, &'c str>;

/// Which of `before` a column of `after` is. A name that is there in both is never a rename.
pub(super) fn renames<'c>(before: &'c [Column], after: &'c [Column]) -> Renames<'c> {
    let names =
        |columns: &'c [Column]| -> HashSet<&'c str> { columns.iter().map(|column| column.name.as_str()).collect() };
    let (old, new) = (names(before), names(after));
    let mut renames = Renames::new();
    for column in after.iter().filter(|column| !old.contains(column.name.as_str())) {
        let former = column.renamed_from.as_deref().and_then(|former| old.get(former).copied());
        if let Some(former) = former.filter(|former| !new.contains(former)) {
            renames.entry(former).or_insert(column.name.as_str());
        }
    }
    renames
}

/// Compares columns, or a struct's fields, `at` the object that has them below `columns`.
pub(super) fn compare_columns(changes: &mut Changes, at: &ContractPath, before: &[Column], after: &[Column]) {
    let renames = renames(before, after);
    let below = at.join("columns");
    let present: HashMap<&str, &Column> = after.iter().map(|column| (column.name.as_str(), column)).collect();
    let mut kept = Vec::new();
    for column in before {
        let name = renames.get(column.name.as_str()).copied().unwrap_or(&column.name);
        let path = below.join(name);
        let Some(now) = present.get(name).copied() else {
            let message = format!("column `{}` was removed", column.name);
            changes.push(&rules::COLUMN_REMOVED, path, Some(json(column)), None, message);
            continue;
        };
        kept.push(name);
        if now.name != column.name {
            let (from, to) = (Some(json(&column.name)), Some(json(&now.name)));
            let message = format!("column `{}` is called `{name}` now", column.name);
            // Consumers know it by its former name.
            let known = path.column().filter(|top| *top != name).unwrap_or(&column.name).to_owned();
            changes.push_for(&rules::COLUMN_RENAMED, path.join("name"), from, to, message, vec![known]);
        }
        compare_column(changes, &path, column, now);
    }
    let known: HashSet<&str> = kept.iter().copied().collect();
    let is_new = |column: &&Column| !known.contains(column.name.as_str());
    for column in after.iter().filter(is_new) {
        let message = if column.required {
            format!("column `{}` was added; it is never null", column.name)
        } else {
            format!("column `{}` was added", column.name)
        };
        changes.push(&rules::COLUMN_ADDED, below.join(&column.name), None, Some(json(column)), message);
    }
    let order: Vec<&str> =
        after.iter().map(|column| column.name.as_str()).filter(|name| known.contains(name)).collect();
    if order != kept {
        let names = |columns: &[Column]| json(&columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>());
        let message = "the columns stand in another order";
        changes.push(&rules::COLUMNS_REORDERED, below, Some(names(before)), Some(names(after)), message);
    }
}

/// Compares a column with what became of it; keys are compared with the table's.
fn compare_column(changes: &mut Changes, path: &ContractPath, before: &Column, after: &Column) {
    // INVARIANT: a further field of a column does not compile until it is compared.
    let Column {
        name: _,
        data_type,
        description,
        primary_key: _,
        required,
        unique: _,
        constraints,
        pii,
        mask,
        from,
        renamed_from,
        default,
        owner,
        declared,
    } = after;
    compare_types(changes, path, &before.data_type, data_type);
    let name = path.segments().last().map_or("", String::as_str);
    if before.required != *required {
        let (rule, what) = if *required {
            (&rules::REQUIRED_TIGHTENED, format!("`{name}` is never null now"))
        } else {
            (&rules::REQUIRED_LOOSENED, format!("`{name}` may be null now"))
        };
        changes.push(rule, path.join("required"), Some(before.required.into()), Some((*required).into()), what);
    }
    constraints::compare(changes, path, &before.data_type, data_type, &before.constraints, constraints);
    if before.pii != *pii {
        let (rule, what) = if *pii {
            (&rules::PII_DECLARED, format!("`{name}` is personal data now"))
        } else {
            (&rules::PII_WITHDRAWN, format!("`{name}` is no personal data any more"))
        };
        changes.push(rule, path.join("pii"), Some(before.pii.into()), Some((*pii).into()), what);
    }
    compare_masks(changes, path, before.mask.as_deref(), mask.as_deref());
    changes.value(
        &rules::DESCRIPTION_CHANGED,
        path.join("description"),
        before.description.as_ref(),
        description.as_ref(),
        &format!("the description of `{name}`"),
    );
    if before.from != *from {
        let message = format!("`{name}` is declared to come from elsewhere");
        changes.push(&rules::LINEAGE_CHANGED, path.join("from"), Some(json(&before.from)), Some(json(from)), message);
    }
    // What it was called is history; the rename itself is a change of its own.
    if before.name == after.name {
        let former = (before.renamed_from.as_ref(), renamed_from.as_ref());
        let what = format!("the former name of `{name}`");
        changes.value(&rules::METADATA_CHANGED, path.join("renamedFrom"), former.0, former.1, &what);
    }
    let what = format!("the default of `{name}`");
    changes.value(&rules::DEFAULT_CHANGED, path.join("default"), before.default.as_ref(), default.as_ref(), &what);
    let owners = (before.owner.as_ref(), owner.as_ref());
    changes.value(&rules::OWNER_CHANGED, path.join("owner"), owners.0, owners.1, &format!("the owner of `{name}`"));
    declared::compare(changes, path, &declared::COLUMN, &before.declared, declared);
}

fn compare_masks(changes: &mut Changes, path: &ContractPath, before: Option<&str>, after: Option<&str>) {
    if before == after {
        return;
    }
    // Without a mask personal data is masked all the same; `none` shows even that in clear.
    let strength = |mask: Option<&str>| match mask {
        Some("none") => 0,
        None => 1,
        Some(_) => 2,
    };
    let name = path.segments().last().map_or("", String::as_str);
    let (rule, message) = match strength(after).cmp(&strength(before)) {
        Ordering::Greater => (&rules::MASK_ADDED, format!("`{name}` is masked now")),
        Ordering::Less => (&rules::MASK_REMOVED, format!("`{name}` has no mask any more")),
        Ordering::Equal => (&rules::MASK_CHANGED, format!("`{name}` is masked in another way")),
    };
    changes.push(rule, path.join("mask"), before.map(Value::from), after.map(Value::from), message);
}

fn compare_types(changes: &mut Changes, path: &ContractPath, before: &DataType, after: &DataType) {
    match (before, after) {
        (DataType::Struct(before), DataType::Struct(after)) => compare_columns(changes, path, before, after),
        // Items and values are columns without names of their own.
        (DataType::Array(before), DataType::Array(after)) => {
            compare_column(changes, &path.join("items"), before, after);
        }
        (DataType::Map(key, before), DataType::Map(new_key, after)) => {
            if key != new_key {
                type_changed(changes, &path.join("keys"), key, new_key);
            }
            compare_column(changes, &path.join("values"), before, after);
        }
        (before, after) if before == after => {}
        (before, after) => type_changed(changes, path, before, after),
    }
}

fn type_changed(changes: &mut Changes, path: &ContractPath, before: &DataType, after: &DataType) {
    let rule = if widens(before, after) { &rules::TYPE_WIDENED } else { &rules::TYPE_CHANGED };
    let verb = if widens(before, after) { "was widened" } else { "was changed" };
    let message = format!("the type {verb} from {before} to {after}");
    let path = path.join("type");
    changes.push(rule, path, Some(before.to_string().into()), Some(after.to_string().into()), message);
}

/// Whether every value stays the same in the wider type (Iceberg spec: Schema Evolution, type promotion of format v2).
fn widens(before: &DataType, after: &DataType) -> bool {
    match (before, after) {
        (DataType::Int, DataType::Long) | (DataType::Float, DataType::Double) => true,
        (DataType::Decimal(precision, scale), DataType::Decimal(wider, same)) => scale == same && wider > precision,
        _ => false,
    }
}
