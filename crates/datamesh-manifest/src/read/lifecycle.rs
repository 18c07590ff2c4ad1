//! What a manifest says of a contract's life: its status, where it was before, and what became of its columns.

use datamesh_core::contract::{Lifecycle, Table};
use datamesh_core::{DataType, ProductId, scalar};
use semver::Version;

use super::text;
use crate::yaml::{Document, Node};

/// The status; a deprecated product says until when it is supported.
pub(super) fn read_status(document: &mut Document<'_>, node: &Node, version: &Version) -> Lifecycle {
    let sla = node.get("sla");
    let end = sla.and_then(|sla| sla.get("endOfSupport"));
    if let Some(end) = end
        && end.text().is_none_or(|text| scalar::parse(text.trim(), &DataType::Date).is_err())
    {
        document.error(
            "invalid-end-of-support",
            end.span,
            format!("`{}` is not a date", end.text().unwrap_or_default()),
            "write the last day of support, such as 2027-06-30",
        );
    }
    let Some(at) = node.get("status") else { return Lifecycle::of_version(version) };
    // Other words were reported by the table of keys.
    let status = at.text().and_then(|text| Lifecycle::parse(text.trim())).unwrap_or(Lifecycle::of_version(version));
    if status == Lifecycle::Deprecated && end.is_none() {
        document.error(
            "end-of-support-missing",
            at.span,
            "the product is deprecated, but nothing says until when it is supported",
            "add `sla: {endOfSupport: 2027-06-30}` with the last day of support",
        );
    }
    status
}

/// The product's former `domain/product`.
pub(super) fn read_moved_from(document: &mut Document<'_>, node: &Node, id: Option<&ProductId>) -> Option<ProductId> {
    let at = node.get("movedFrom")?;
    match ProductId::parse(at.text().unwrap_or_default().trim()) {
        Ok(from) if id.is_some_and(|id| id.key(0) == from.key(0)) => {
            document.error(
                "moved-from-itself",
                at.span,
                format!("the product is `{from}` itself"),
                "name where it was before, or take `movedFrom` out",
            );
            None
        }
        Ok(from) => Some(from),
        Err(error) => {
            document.error("invalid-name", at.span, error.to_string(), "write the former `domain/product`");
            None
        }
    }
}

/// The value of a column in rows that are older than it, as text.
pub(super) fn read_default(document: &mut Document<'_>, node: &Node, data_type: &DataType) -> Option<String> {
    let at = node.get("default")?;
    if at.is_null() {
        document.error(
            "invalid-default",
            at.span,
            "a default of null changes nothing: a new column is null in old rows",
            "remove it, or write a value",
        );
        return None;
    }
    let value = at.text()?;
    if !data_type.is_scalar() || matches!(data_type, DataType::Binary | DataType::Json) {
        document.error(
            "invalid-default",
            at.span,
            format!("a column of type {data_type} cannot have a default"),
            "remove it, or publish the values",
        );
        return None;
    }
    match scalar::parse(value, data_type) {
        Ok(_) => Some(value.to_owned()),
        Err(why) => {
            document.error("invalid-default", at.span, why, format!("write a value of type {data_type}"));
            None
        }
    }
}

/// Reports columns that claim another's name, and defaults where no value can be filled in.
pub(super) fn check_renames(document: &mut Document<'_>, table: &Table, node: &Node) {
    let mut taken: Vec<String> = Vec::new();
    for entry in node.get("columns").and_then(Node::items).unwrap_or_default() {
        nested_defaults(document, entry);
        let (Some(name), Some(from)) = (text(entry, "name"), text(entry, "renamedFrom")) else { continue };
        let span = entry.get("renamedFrom").unwrap_or(entry).span;
        let problem = if from == name {
            Some(format!("column `{name}` has this name already"))
        } else if table.column(&from).is_some() {
            Some(format!("column `{name}` was `{from}`, but the table still has a column `{from}`"))
        } else if taken.contains(&from) {
            Some(format!("two columns were `{from}`"))
        } else {
            None
        };
        if let Some(message) = problem {
            document.error("invalid-rename", span, message, "name the column that this one was before, once");
        }
        taken.push(from);
    }
}

fn nested_defaults(document: &mut Document<'_>, column: &Node) {
    for field in column.get("columns").and_then(Node::items).unwrap_or_default() {
        if let Some(at) = field.get("default") {
            document.error(
                "invalid-default",
                at.span,
                "only a column of the table can have a default, not a field within one",
                "remove it, or publish the values",
            );
        }
        nested_defaults(document, field);
    }
}
