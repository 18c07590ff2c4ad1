//! References to other tables.

use datamesh_core::quality::{MetricRule, Severity};
use datamesh_core::reference::{Reference, TableReference, comparable};
use datamesh_core::{Column, DataProduct, ProductId, Table};

use super::{find_column, quality, text, texts};
use crate::shape::closest;
use crate::yaml::{Document, Node, Span};

const USAGE: &str = "write `domain/product.table.column`, or `table.column` for a table of this product";

/// Reads the references of a table and its columns, in this table's own words and in those of ODCS.
pub(super) fn read_references(document: &mut Document<'_>, table: &mut Table, node: &Node) {
    for entry in node.get("columns").and_then(Node::items).unwrap_or_default() {
        let Some(name) = text(entry, "name").filter(|name| table.column(name).is_some()) else { continue };
        if let Some(at) = entry.get("references") {
            let to = if at.text().is_some() { Some(at) } else { at.get("to") };
            if let Some((to, column)) = to.and_then(|to| column_of(document, to)) {
                add_own_words(document, table, at, vec![name.clone()], to, vec![column]);
            }
        }
        for at in entry.get("relationships").and_then(Node::items).unwrap_or_default() {
            if let Some(from) = at.get("from") {
                document.error("invalid-reference", from.span, "on a column, `from` is that column", "remove `from`");
            }
            let found = relationship(document, table, at, vec![name.clone()]);
            add(document, table, at, found);
        }
    }
    for at in node.get("references").and_then(Node::items).unwrap_or_default() {
        let columns = texts(at.get("columns"));
        let Some(to) = at.get("to") else { continue };
        let to = match TableReference::parse(to.text().unwrap_or_default()) {
            Ok(to) => to,
            Err(why) => {
                document.error(
                    "invalid-reference",
                    to.span,
                    why,
                    "write `domain/product.table`, or `table` for one of this product",
                );
                continue;
            }
        };
        let there = if at.get("at").is_some() { texts(at.get("at")) } else { columns.clone() };
        if columns.is_empty() || columns.len() != there.len() {
            let message = format!("{} columns refer to {}", columns.len(), there.len());
            document.error("invalid-reference", at.span, message, "name as many columns in `at` as in `columns`");
            continue;
        }
        add_own_words(document, table, at, columns, to, there);
    }
    for at in node.get("relationships").and_then(Node::items).unwrap_or_default() {
        let Some(from) = at.get("from") else {
            document.error(
                "invalid-reference",
                at.span,
                "the relationship says not which columns refer",
                "add `from:`",
            );
            continue;
        };
        let columns = texts(Some(from)).iter().map(|name| name.rsplit('.').next().unwrap_or(name).to_owned()).collect();
        let found = relationship(document, table, at, columns);
        add(document, table, at, found);
    }
}

fn column_of(document: &mut Document<'_>, at: &Node) -> Option<(TableReference, String)> {
    match TableReference::parse_column(at.text()?) {
        Ok(found) => Some(found),
        Err(why) => {
            document.error("invalid-reference", at.span, why, USAGE);
            None
        }
    }
}

/// An ODCS relationship, whose `to` names each column with its table.
fn relationship(document: &mut Document<'_>, table: &Table, at: &Node, columns: Vec<String>) -> Option<Reference> {
    let to = at.get("to")?;
    let mut targets = Vec::new();
    for text in texts(Some(to)) {
        match TableReference::parse_column(&text) {
            Ok(target) => targets.push(target),
            Err(why) => {
                document.error("invalid-reference", to.span, why, USAGE);
                return None;
            }
        }
    }
    let first = targets.first().map(|(table, _)| table.clone())?;
    if targets.len() != columns.len() || targets.iter().any(|(table, _)| *table != first) {
        let message = format!("`{}` has a relationship of {} columns to {}", table.name, columns.len(), targets.len());
        document.error("invalid-reference", at.span, message, "name as many columns of one table in `to` as in `from`");
        return None;
    }
    let there = targets.into_iter().map(|(_, column)| column).collect();
    Some(Reference { columns, to: first, at: there, severity: Severity::Error, description: None, filter: None })
}

/// Adds a reference in this table's own words: the rows that find nothing are quarantined, or counted where it has a
/// threshold.
fn add_own_words(
    document: &mut Document<'_>,
    table: &mut Table,
    at: &Node,
    columns: Vec<String>,
    to: TableReference,
    there: Vec<String>,
) {
    let counts = quality::has_threshold(at);
    if let Some(other) = ["groupBy", "name"].iter().find_map(|key| at.get(key)).filter(|_| !counts) {
        let message = "a reference is judged row by row, so it has no name or groups of its own";
        document.error("mixed-rule", other.span, message, quality::UNCOUNTED);
    }
    let severity = if counts { Severity::Error } else { quality::read_severity(document, at) };
    let filter = if counts { None } else { quality::read_filter(document, at) };
    let reference = Reference { columns, to, at: there, severity, description: text(at, "description"), filter };
    match counts {
        true if refers(document, table, at, &reference) => quality::read_orphans(document, table, at, reference),
        true => {}
        false => add(document, table, at, Some(reference)),
    }
}

/// Whether the columns are there and can refer to others.
fn refers(document: &mut Document<'_>, table: &Table, at: &Node, reference: &Reference) -> bool {
    reference.columns.iter().all(|name| {
        let Some(column) = find_column(document, table, at, name) else { return false };
        if !column.data_type.is_scalar() {
            let message = format!("`{name}` is {}, which cannot refer to a column", column.data_type);
            document.error("invalid-reference", at.span, message, "use a scalar column");
        }
        column.data_type.is_scalar()
    })
}

fn add(document: &mut Document<'_>, table: &mut Table, at: &Node, reference: Option<Reference>) {
    let Some(reference) = reference.filter(|reference| refers(document, table, at, reference)) else { return };
    if table.references.iter().any(|other| other.columns == reference.columns && other.to == reference.to) {
        document.error("duplicate-rule", at.span, "the columns refer to that table already", "keep one of them");
        return;
    }
    table.references.push(reference);
}

/// A product that names itself means its own tables.
pub(super) fn make_own(tables: &mut [Table], id: &ProductId) {
    for table in tables {
        let references = table.references.iter_mut().map(|reference| &mut reference.to);
        let compared =
            table.metrics.iter_mut().filter_map(|rule| rule.compare_to.as_mut()).map(|other| &mut other.table);
        for to in references.chain(compared) {
            let same =
                |named: &ProductId| named.domain.sql() == id.domain.sql() && named.product.sql() == id.product.sql();
            to.product = to.product.take().filter(|named| !same(named));
        }
    }
}

/// Checks the references within a product: tables and columns are there, types fit, and no circle is left.
pub(super) fn check_own(document: &mut Document<'_>, tables: &[Table], node: &Node) {
    for entry in node.get("schema").and_then(Node::items).unwrap_or_default() {
        let Some(table) = text(entry, "name").and_then(|name| tables.iter().find(|table| table.name.as_str() == name))
        else {
            continue;
        };
        for reference in table.references.iter().filter(|reference| reference.to.product.is_none()) {
            let span = span_of(entry, reference);
            if let Err((message, help)) = check(table, reference, tables) {
                document.error("invalid-reference", span, message, help);
            } else if !reference.to.is_own(&table.name) && reaches(tables, &reference.to, table, tables.len()) {
                let message = format!("tables `{}` and `{}` refer to each other in a circle", table.name, reference.to);
                document.error(
                    "invalid-reference",
                    span,
                    message,
                    "let one of the two be checked by an `sql` rule over both tables",
                );
            }
        }
        for rule in &table.metrics {
            let Some(comparison) = rule.compare_to.as_ref().filter(|other| other.table.product.is_none()) else {
                continue;
            };
            if let Some(reference) = rule.reference() {
                if let Err((message, help)) = check(table, &reference, tables) {
                    document.error("invalid-reference", span_of(entry, &reference), message, help);
                }
                continue;
            }
            let Some(other) = tables.iter().find(|other| comparison.table.is_own(&other.name)) else {
                let (message, help) = no_table(&comparison.table, tables);
                document.error("unknown-table", entry.get("quality").unwrap_or(entry).span, message, help);
                continue;
            };
            let mut columns = comparison.column.iter().chain(&rule.group_by);
            if let Some(column) = columns.find(|column| other.column(column).is_none()) {
                let (message, help) = no_column(other, column);
                document.error("unknown-column", entry.get("quality").unwrap_or(entry).span, message, help);
            }
        }
    }
}

/// Whether the table that `from` means refers to `goal`, by however many others.
fn reaches(tables: &[Table], from: &TableReference, goal: &Table, steps: usize) -> bool {
    let Some(table) = tables.iter().find(|table| from.is_own(&table.name)) else { return false };
    let own = || table.references.iter().filter(|reference| reference.to.product.is_none());
    own().any(|reference| reference.to.is_own(&goal.name))
        || steps > 0
            && own()
                .filter(|reference| !reference.to.is_own(&table.name))
                .any(|reference| reaches(tables, &reference.to, goal, steps - 1))
}

/// Where a reference is written, as well as can be told.
fn span_of(entry: &Node, reference: &Reference) -> Span {
    let column = reference.columns.first().map(String::as_str).unwrap_or_default();
    let columns = entry.get("columns").and_then(Node::items).unwrap_or_default();
    let of_column =
        columns.iter().find(|node| node.get("name").and_then(Node::text) == Some(column)).and_then(|node| {
            node.get("references").filter(|_| reference.columns.len() == 1).or_else(|| node.get("relationships"))
        });
    of_column.or_else(|| entry.get("references")).or_else(|| entry.get("relationships")).unwrap_or(entry).span
}

fn no_table(wanted: &TableReference, tables: &[Table]) -> (String, String) {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let help = match closest(wanted.table.as_str(), names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("its tables: {}; of another product write `domain/product.table`", names.join(", ")),
    };
    (format!("the product has no table `{}`", wanted.table), help)
}

fn no_column(table: &Table, wanted: &str) -> (String, String) {
    let names = || table.columns.iter().map(|column| column.name.as_str());
    let help = match closest(wanted, names()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("its columns: {}", names().collect::<Vec<_>>().join(", ")),
    };
    (format!("table `{}` has no column `{wanted}`", table.name), help)
}

/// Checks a reference of `table` against the tables of the product it refers to.
///
/// # Errors
/// What is wrong and how to mend it.
pub(crate) fn check(table: &Table, reference: &Reference, tables: &[Table]) -> Result<(), (String, String)> {
    let other = tables.iter().find(|other| other.name.sql() == reference.to.table.sql());
    let other = other.ok_or_else(|| no_table(&reference.to, tables))?;
    for (name, there) in reference.columns.iter().zip(&reference.at) {
        let found: &Column = other.column(there).ok_or_else(|| no_column(other, there))?;
        let Some(column) = table.column(name) else { continue };
        if !comparable(&column.data_type, &found.data_type) {
            return Err((
                format!("`{name}` is {}, but `{}.{there}` is {}", column.data_type, reference.to, found.data_type),
                "give both columns the same type".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Checks the references of a product to `other`, a product of the same mesh. Each problem comes with the text that a
/// reader can find in the manifest.
pub(crate) fn check_across(product: &DataProduct, other: &DataProduct) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for table in &product.tables {
        let counted = table.metrics.iter().filter_map(MetricRule::reference);
        let references = table.references.iter().cloned().chain(counted);
        for reference in references.filter(|reference| reference.to.product.as_ref() == Some(&other.id)) {
            if let Err((message, help)) = check(table, &reference, &other.tables) {
                let text = match reference.at.as_slice() {
                    [column] => format!("{}.{column}", reference.to),
                    _ => reference.to.to_string(),
                };
                found.push((text, message, help));
            }
        }
    }
    found
}
