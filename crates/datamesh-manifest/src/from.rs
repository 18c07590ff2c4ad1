//! `from:`: the columns that a column comes from, where there is no SQL to read that from.

use datamesh_core::contract::DataProduct;
use datamesh_core::lineage::ColumnReference;
use datamesh_core::{Column, DataType, Diagnostic, Level, Result};

use crate::mesh::{Mesh, locate};
use crate::shape::closest;
use crate::yaml::{Document, Node};

/// Reads a column's `from:`. Whether the columns exist can be told in a whole mesh only: see [`check`].
pub(crate) fn read(document: &mut Document<'_>, node: &Node) -> Vec<ColumnReference> {
    let Some(from) = node.get("from") else { return Vec::new() };
    let single = std::slice::from_ref(from);
    let mut references: Vec<ColumnReference> = Vec::new();
    for entry in from.items().unwrap_or(single) {
        let Some(text) = entry.text() else { continue };
        match ColumnReference::parse(text.trim()) {
            Ok(reference) if references.contains(&reference) => {
                document.error(
                    "duplicate-from",
                    entry.span,
                    format!("`{reference}` is named twice"),
                    "keep one of them",
                );
            }
            Ok(reference) => references.push(reference),
            Err(error) => {
                let help = error.help().unwrap_or("write `domain/product.table.column`").to_owned();
                document.error("invalid-from", entry.span, error.to_string(), help);
            }
        }
    }
    references
}

/// The columns that a type has below it, by name.
fn fields(data_type: &DataType) -> &[Column] {
    match data_type {
        DataType::Struct(fields) => fields,
        DataType::Array(item) => fields(&item.data_type),
        _ => &[],
    }
}

/// Each `from:` of a column, and of the fields below it.
fn references(columns: &[Column]) -> Vec<&ColumnReference> {
    columns.iter().flat_map(|column| column.from.iter().chain(references(fields(&column.data_type)))).collect()
}

/// What is wrong with a reference, and how to mend it.
pub(crate) fn problem(
    reference: &ColumnReference,
    products: &[&DataProduct],
    complete: bool,
) -> Option<(String, String)> {
    let did_you_mean = |wanted: &str, names: Vec<&str>| match closest(wanted, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there are: {}", names.join(", ")),
    };
    let same = |product: &&&DataProduct| {
        product.id.domain.sql() == reference.product.domain.sql()
            && product.id.product.sql() == reference.product.product.sql()
    };
    let versions: Vec<&&DataProduct> = products.iter().filter(same).collect();
    let Some(newest) = versions.iter().max_by_key(|product| product.version.clone()) else {
        // A product whose manifest has errors is missing for now, which is told already.
        return complete.then(|| {
            let ids: Vec<String> = products.iter().map(|product| product.id.to_string()).collect();
            let wanted = reference.product.to_string();
            let help = did_you_mean(&wanted, ids.iter().map(String::as_str).collect());
            (format!("`{reference}`: no product `{wanted}` in this mesh"), help)
        });
    };
    // An older major version may have what the newest one no longer has.
    let tables: Vec<_> = versions.iter().filter_map(|product| product.table(reference.table.as_str())).collect();
    if tables.is_empty() {
        let names = newest.tables.iter().map(|table| table.name.as_str()).collect();
        let message = format!("`{reference}`: `{}` has no table `{}`", reference.product, reference.table);
        return Some((message, did_you_mean(reference.table.as_str(), names)));
    }
    let mut missing = None;
    for table in tables {
        let mut columns = table.columns.as_slice();
        let found =
            reference.field.parts().iter().all(|part| match columns.iter().find(|column| column.name == *part) {
                Some(column) => {
                    columns = fields(&column.data_type);
                    true
                }
                None => {
                    let names = columns.iter().map(|column| column.name.as_str()).collect();
                    let message = format!("`{reference}`: table `{}` has no column `{}`", table.name, reference.field);
                    missing = Some((message, did_you_mean(part, names)));
                    false
                }
            });
        if found {
            return None;
        }
    }
    missing
}

/// Checks that every `from:` of a whole mesh names a column that is there.
pub(crate) fn check(mesh: &mut Mesh) -> Result<()> {
    let complete = !mesh.has_errors();
    let products: Vec<&DataProduct> = mesh.products.iter().map(|loaded| &loaded.contract).collect();
    let mut found = Vec::new();
    for loaded in &mesh.products {
        for reference in loaded.contract.tables.iter().flat_map(|table| references(&table.columns)) {
            let Some((message, help)) = problem(reference, &products, complete) else { continue };
            let (location, source) = locate(&loaded.path, &reference.to_string())?;
            let diagnostic =
                Diagnostic { id: "unknown-from", level: Level::Error, message, help: Some(help), location };
            found.push((diagnostic, source));
        }
    }
    for (diagnostic, source) in found {
        mesh.sources.insert(diagnostic.location.file.clone(), source);
        mesh.diagnostics.push(diagnostic);
    }
    Ok(())
}
