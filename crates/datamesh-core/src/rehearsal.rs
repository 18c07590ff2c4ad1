//! What a verdict needs of the rows after their pass. A rehearsal keeps nothing else of them.

use std::collections::BTreeSet;

use crate::contract::{DataProduct, Table};
use crate::quality::{KeyRule, Metric};
use crate::reference::TableReference;

/// The columns of `table` that keys, references and metric rules of `contract` read once the rows are staged, beside those
/// of the rules' own conditions (`where`). `None`: any column may be read, by SQL.
pub fn judged_columns(contract: &DataProduct, table: &Table) -> Option<BTreeSet<String>> {
    let mut columns: BTreeSet<String> = KeyRule::of(table).into_iter().flat_map(|rule| rule.columns).collect();
    columns.extend(table.references.iter().flat_map(|reference| reference.columns.iter().cloned()));
    let is_this = |to: &TableReference| to.is_own(&table.name);
    for other in &contract.tables {
        let here = other.references.iter().filter(|reference| is_this(&reference.to));
        columns.extend(here.flat_map(|reference| reference.at.iter().cloned()));
        for rule in &other.metrics {
            if matches!(rule.metric, Metric::Sql { .. }) {
                return None;
            }
            if let Some(comparison) = rule.compare_to.as_ref().filter(|comparison| is_this(&comparison.table)) {
                if comparison.filter.is_some() {
                    return None;
                }
                columns.extend(rule.columns_there().into_iter().map(str::to_owned));
            }
        }
    }
    for rule in &table.metrics {
        columns.extend(rule.metric.columns().into_iter().map(str::to_owned));
        columns.extend(rule.group_by.iter().cloned());
    }
    columns.retain(|column| table.column(column).is_some());
    Some(columns)
}
