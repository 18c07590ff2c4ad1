//! Relationships of ODCS against `relationships`, which is their copy, and `references`, which is our own word.

use datamesh_core::reference::TableReference;

use crate::standards::tree::{Map, Tree};

/// The relationships of a column.
pub(super) fn of_column(ours: &Map) -> Option<Vec<Tree>> {
    let mut list = copied(ours, false)?;
    if let Some(reference) = ours.get("references").filter(|reference| is_foreign_key(reference)) {
        let to = reference.scalar().or_else(|| reference.get("to").and_then(Tree::scalar));
        if let Some(to) =
            to.and_then(|to| TableReference::parse_column(to).ok()).and_then(|(table, column)| target(&table, &column))
        {
            list.push(Tree::Map(Map::from_iter([("to".to_owned(), Tree::Text(to))])));
        }
    }
    present(ours, list)
}

/// The relationships of a table.
pub(super) fn of_table(ours: &Map, table: &str) -> Option<Vec<Tree>> {
    let mut list = copied(ours, true)?;
    for reference in ours.get("references").and_then(Tree::as_list).unwrap_or_default() {
        list.extend(composite(table, reference));
    }
    present(ours, list)
}

/// An empty list is said where the manifest says it.
fn present(ours: &Map, list: Vec<Tree>) -> Option<Vec<Tree>> {
    (!list.is_empty() || ours.contains("relationships")).then_some(list)
}

/// The relationships as they are; `None` where ODCS would refuse one.
fn copied(ours: &Map, of_table: bool) -> Option<Vec<Tree>> {
    let Some(list) = ours.get("relationships") else { return Some(Vec::new()) };
    let list = list.as_list()?;
    list.iter().all(|entry| super::check::is_relationship(entry, of_table)).then(|| list.to_vec())
}

fn composite(table: &str, reference: &Tree) -> Option<Tree> {
    if !is_foreign_key(reference) {
        return None;
    }
    let columns: Vec<&str> = reference.get("columns")?.as_list()?.iter().filter_map(Tree::scalar).collect();
    let at: Vec<&str> = match reference.get("at") {
        Some(at) => at.as_list()?.iter().filter_map(Tree::scalar).collect(),
        None => columns.clone(),
    };
    let to = TableReference::parse(reference.get("to")?.scalar()?).ok()?;
    let mut entry = Map::new();
    entry.put("from", columns.iter().map(|column| Some(Tree::Text(own(table, column)?))).collect::<Option<Vec<_>>>()?);
    entry.put("to", at.iter().map(|column| Some(Tree::Text(target(&to, column)?))).collect::<Option<Vec<_>>>()?);
    Some(Tree::Map(entry))
}

/// A foreign key of ODCS holds for every row.
fn is_foreign_key(reference: &Tree) -> bool {
    ["where", "warn", "fail"].iter().all(|key| reference.get(key).is_none())
}

/// How ODCS names the column: `table.column`, or by its place in another contract's file.
fn target(table: &TableReference, column: &str) -> Option<String> {
    match &table.product {
        None => own(table.table.as_str(), column),
        Some(product) => {
            let place = path(table.table.as_str(), column)?;
            Some(format!("{}/{}.odcs.yaml#{place}", product.domain, product.product))
        }
    }
}

fn own(table: &str, column: &str) -> Option<String> {
    let is_word = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if is_word(table) && is_word(column) { Some(format!("{table}.{column}")) } else { path(table, column) }
}

fn path(table: &str, column: &str) -> Option<String> {
    let fits = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    (fits(table) && fits(column)).then(|| format!("schema/{table}/properties/{column}"))
}
