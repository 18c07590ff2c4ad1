//! Tables.

use std::collections::HashMap;

use serde_json::Value;

use super::change::{Changes, json};
use super::path::ContractPath;
use super::{columns, declared, keys, quality, rules};
use crate::contract::Table;

/// Compares the tables of a product. A table has no former name: another name is another table.
pub(super) fn compare_tables(changes: &mut Changes, before: &[Table], after: &[Table]) {
    let schema = ContractPath::root().join("schema");
    let by_name = |tables: &'_ [Table]| -> HashMap<String, usize> {
        tables.iter().enumerate().map(|(at, table)| (table.name.sql(), at)).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    for table in before {
        let Some(now) = new.get(&table.name.sql()).map(|at| &after[*at]) else {
            let message = format!("table `{}` was removed", table.name);
            changes.push(&rules::TABLE_REMOVED, schema.join(table.name.as_str()), Some(json(table)), None, message);
            continue;
        };
        compare_table(changes, &schema.join(now.name.as_str()), table, now);
    }
    for table in after {
        if !old.contains_key(&table.name.sql()) {
            let message = format!("table `{}` was added", table.name);
            changes.push(&rules::TABLE_ADDED, schema.join(table.name.as_str()), None, Some(json(table)), message);
        }
    }
    let order = |tables: &[Table], others: &HashMap<String, usize>| -> Vec<String> {
        tables.iter().map(|table| table.name.sql()).filter(|name| others.contains_key(name)).collect()
    };
    let (old, new) = (order(before, &new), order(after, &old));
    if old != new {
        let message = "the tables stand in another order";
        changes.push(&rules::METADATA_CHANGED, schema, Some(json(&old)), Some(json(&new)), message);
    }
}

fn compare_table(changes: &mut Changes, path: &ContractPath, before: &Table, after: &Table) {
    if before == after {
        return;
    }
    // INVARIANT: a further field of a table does not compile until it is compared.
    let Table {
        name,
        description,
        write,
        delete_when,
        source,
        watermark,
        transform,
        columns,
        unique: _,
        partition_by,
        sort_by,
        conditions,
        metrics: _,
        references,
        quarantine,
        owner,
        declared,
    } = after;
    if before.name != *name {
        // The same in SQL: `hourly-flights` and `hourly_flights`.
        let message = format!("table `{}` is written `{name}` now", before.name);
        changes.push(&rules::METADATA_CHANGED, path.join("name"), Some(json(&before.name)), Some(json(name)), message);
    }
    let what = format!("the description of table `{name}`");
    let prose = (before.description.as_ref(), description.as_ref());
    changes.value(&rules::DESCRIPTION_CHANGED, path.join("description"), prose.0, prose.1, &what);
    let owners = (before.owner.as_ref(), owner.as_ref());
    changes.value(
        &rules::OWNER_CHANGED,
        path.join("owner"),
        owners.0,
        owners.1,
        &format!("the owner of table `{name}`"),
    );
    let renames = columns::renames(&before.columns, columns);
    columns::compare_columns(changes, path, &before.columns, columns);
    keys::compare_keys(changes, path, before, after, &renames);
    keys::compare_references(changes, path, &before.references, references, &renames);
    quality::compare_conditions(changes, path, &before.conditions, conditions);
    quality::compare_metrics(changes, path, &before.metrics, after);
    if before.quarantine != *quarantine {
        let (old, new) = (before.quarantine.percent, quarantine.percent);
        let rule = if new > old { &rules::QUARANTINE_RAISED } else { &rules::QUARANTINE_LOWERED };
        let message = format!("{new}% of the rows may be held back, {old}% before");
        changes.push(rule, path.join("quarantine"), Some(percent(old)), Some(percent(new)), message);
    }
    if before.write != *write {
        let (old, new) = (before.write.as_str(), write.as_str());
        let message = format!("`write` was `{old}` and is `{new}` now");
        changes.push(&rules::WRITE_MODE_CHANGED, path.join("write"), Some(old.into()), Some(new.into()), message);
    }
    let deletes = (before.delete_when.as_ref(), delete_when.as_ref());
    changes.value(&rules::WRITE_MODE_CHANGED, path.join("deleteWhen"), deletes.0, deletes.1, "`deleteWhen`");
    changes.value(&rules::SOURCE_CHANGED, path.join("source"), before.source.as_ref(), source.as_ref(), "the source");
    let marks = (before.watermark.as_ref(), watermark.as_ref());
    changes.value(&rules::SOURCE_CHANGED, path.join("watermark"), marks.0, marks.1, "the watermark");
    let queries = (before.transform.as_ref(), transform.as_ref());
    changes.value(&rules::TRANSFORM_CHANGED, path.join("transform"), queries.0, queries.1, "the transform");
    let current = |name: &String| renames.get(name.as_str()).map_or(name.clone(), |now| (*now).to_owned());
    let mut partitions = before.partition_by.clone();
    partitions.iter_mut().for_each(|field| field.column = current(&field.column));
    if partitions != *partition_by {
        let (old, new) = (json(&before.partition_by), json(partition_by));
        let message = "the table is partitioned in another way";
        changes.push(&rules::PARTITIONING_CHANGED, path.join("partitionBy"), Some(old), Some(new), message);
    }
    let mut sorted = before.sort_by.clone();
    sorted.iter_mut().for_each(|field| field.column = current(&field.column));
    if sorted != *sort_by {
        let (old, new) = (json(&before.sort_by), json(sort_by));
        let message = "the table's files are sorted in another way";
        changes.push(&rules::SORTING_CHANGED, path.join("sortBy"), Some(old), Some(new), message);
    }
    declared::compare(changes, path, &declared::TABLE, &before.declared, declared);
}

fn percent(share: f64) -> Value {
    format!("{share}%").into()
}
