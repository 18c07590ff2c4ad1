//! Which published tables the rules of a product read, and in which order its own tables are settled.

use std::collections::BTreeSet;

use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::Action;
use datamesh_core::ids::{ProductId, TableName};
use datamesh_core::ports::{CatalogProduct, ProductState, preferred};
use datamesh_core::quality::Metric;
use datamesh_core::reference::TableReference;
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::govern::{ReadTable, Reader, Resource};
use crate::ports::{Context, PinnedInput, Sight};

/// Pins every published table that references and comparisons of the tables `fresh` read: one registry read, decided
/// and recorded. Tables of the product itself that get new data in the same attempt are not among them.
///
/// # Errors
/// A table that is not published.
pub(crate) async fn pin(
    context: &Context,
    contract: &DataProduct,
    state: &ProductState,
    fresh: &[&Table],
) -> Result<Vec<PinnedInput>> {
    let mut wanted: BTreeSet<(&TableReference, String)> = BTreeSet::new();
    for table in fresh {
        for reference in &table.references {
            wanted.insert((&reference.to, format!("`{}.{}`", table.name, reference.path())));
        }
        for rule in &table.metrics {
            if let Some(comparison) = &rule.compare_to {
                wanted.insert((&comparison.table, format!("rule `{}` of table `{}`", rule.name, table.name)));
            }
        }
    }
    let outside = wanted.iter().any(|(reference, _)| reference.product.is_some());
    let catalog = if outside { context.registry.catalog().await? } else { Vec::new() };
    let mut pinned: Vec<PinnedInput> = Vec::new();
    for (reference, from) in wanted {
        if pinned.iter().any(|pinned| pinned.reference == *reference) {
            continue;
        }
        let missing = |help: String| {
            let message = format!("{from} reads `{reference}`, which is not published");
            Err(Error::new(ErrorCode::NotFound, message).with_help(help))
        };
        let name = reference.table.sql();
        match &reference.product {
            None if fresh.iter().any(|table| table.name.sql() == name) => {}
            None => match (contract.table(&name), state.table(&name)) {
                (Some(table), Some(pointer)) => pinned.push(PinnedInput {
                    reference: reference.clone(),
                    version: contract.version.to_string(),
                    pointer: pointer.clone(),
                    protected: context.protect(contract, table.clone(), None).await?.has_protected_columns(),
                    sight: Sight::plain(),
                    decided: None,
                }),
                _ => return missing(format!("publish table `{}` with it, or before it", reference.table)),
            },
            Some(product) => {
                let Some(found) = newest(&catalog, product) else {
                    return missing(format!("publish `{product}` first"));
                };
                let Some(pointer) = found.tables.iter().find(|pointer| pointer.table == name) else {
                    let names: Vec<&str> = found.tables.iter().map(|pointer| pointer.table.as_str()).collect();
                    return missing(format!("published tables of `{product}`: {}", names.join(", ")));
                };
                let contract = &found.revision.contract;
                pinned.push(PinnedInput {
                    reference: reference.clone(),
                    version: contract.version.to_string(),
                    pointer: pointer.clone(),
                    protected: contract.table(&name).is_none_or(Table::has_protected_columns),
                    sight: Sight::plain(),
                    decided: None,
                });
            }
        }
    }
    if !pinned.is_empty() {
        let read: Vec<String> = pinned.iter().map(|pinned| pinned.reference.to_string()).collect();
        let snapshots: Vec<&str> = pinned.iter().map(|pinned| pinned.pointer.metadata_location.as_str()).collect();
        let details =
            json!({ "operation": "audit", "for": contract.id.to_string(), "reads": read, "snapshots": snapshots });
        let outside: Vec<(usize, ReadTable<'_>)> = pinned
            .iter()
            .enumerate()
            .filter_map(|(at, pinned)| {
                let product = newest(&catalog, pinned.reference.product.as_ref()?)?;
                let table = product.revision.contract.table(&pinned.reference.table.sql())?;
                Some((at, ReadTable::now(product, table)))
            })
            .collect();
        let tables: Vec<ReadTable<'_>> = outside.iter().map(|(_, read)| *read).collect();
        let reading = context.read_tables(Reader::Product(contract), &catalog, &tables, details).await?;
        let protections = context.protections(&catalog, &tables).await?;
        for ((at, read), protected) in outside.into_iter().zip(protections) {
            pinned[at].protected |= !protected.is_empty();
            let access = reading.access(&read.product.key, &read.table.name.sql());
            let read_columns = columns(contract, &pinned[at].reference);
            if let Some(column) = read_columns.iter().find(|column| !access.shows_values(column)) {
                let (reference, reader) = (&pinned[at].reference, &reading.principal);
                let message = format!(
                    "`{}` compares its rows with `{reference}.{column}`, which `{reader}` does not see in clear",
                    contract.id
                );
                let help = format!(
                    "nothing would match what stands for its values; ask for a role that sees it, `datamesh access request \
                     {} --principal {reader} --role ROLE --reason WHY`, or refer to another column",
                    read.product.revision.contract.id
                );
                let resource = Resource::Table(&read.product.revision.contract, read.table);
                return context.deny(Action::Read, resource, "masked", message, help).await;
            }
            pinned[at].sight = Sight::new(access, read.table.clone());
            pinned[at].decided = Some(reading.decided());
        }
    }
    Ok(pinned)
}

/// The columns that a contract's references and comparisons read of a table.
pub(crate) fn columns(contract: &DataProduct, read: &TableReference) -> Vec<String> {
    let tables = contract.tables.iter();
    let columns = tables.flat_map(|table| {
        let keys = table.references.iter().filter(|own| own.to == *read).flat_map(|own| own.at.iter());
        let compared = table.metrics.iter().filter_map(|rule| {
            rule.compare_to.as_ref().filter(|other| other.table == *read)?;
            Some(rule.columns_there())
        });
        keys.map(String::as_str).chain(compared.flatten())
    });
    columns.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The major version that the bare name of a product means in SQL.
fn newest<'c>(catalog: &'c [CatalogProduct], wanted: &ProductId) -> Option<&'c CatalogProduct> {
    let (domain, product) = (wanted.domain.sql(), wanted.product.sql());
    preferred(catalog.iter().filter(|entry| entry.key.domain == domain && entry.key.product == product))
}

/// Whether a rule of `table` names another table of its product, as the target of a reference or of a comparison.
pub(crate) fn names(table: &Table, other: &TableName) -> bool {
    let mut references = table.references.iter().map(|reference| &reference.to);
    let mut compared = table.metrics.iter().filter_map(|rule| rule.compare_to.as_ref()).map(|to| &to.table);
    table.name.sql() != other.sql() && (references.any(|to| to.is_own(other)) || compared.any(|to| to.is_own(other)))
}

/// Whether a rule of `table` may read another table of its product.
pub(crate) fn reads_others(contract: &DataProduct, table: &Table) -> bool {
    contract.tables.iter().any(|other| names(table, &other.name))
        || contract.tables.len() > 1 && table.metrics.iter().any(|rule| matches!(rule.metric, Metric::Sql { .. }))
}

/// The indices of `tables`, each table after those of the same product that it refers to. `check` refuses circles; in
/// one, the order is that of the manifest.
pub(crate) fn settling_order(tables: &[&Table]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    while order.len() < tables.len() {
        let waits = |at: usize| {
            tables[at].references.iter().any(|reference| {
                let other = tables.iter().position(|table| reference.to.is_own(&table.name));
                other.is_some_and(|other| other != at && !order.contains(&other))
            })
        };
        let left: Vec<usize> = (0..tables.len()).filter(|at| !order.contains(at)).collect();
        let Some(next) = left.iter().copied().find(|at| !waits(*at)).or_else(|| left.first().copied()) else { break };
        order.push(next);
    }
    order
}
