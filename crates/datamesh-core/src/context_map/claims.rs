//! Data outside the mesh that a table is taken from: who takes it publishes it for all.

use std::path::Path;

use crate::contract::{DataProduct, DatabaseRows, SourceSpec, Table};
use crate::ids::ProductKey;
use crate::lineage::{Dataset, database_dataset, external_dataset, iceberg_dataset};

/// A table that is taken from outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceClaim {
    /// The product.
    pub product: ProductKey,
    /// The table's normalised name.
    pub table: String,
    /// What it is taken from.
    pub dataset: Dataset,
}

/// What the tables of a product are taken from, where two products could be told to take the same. `folder` is that of
/// its manifest. Standard input and the results of database queries have no identity.
pub fn source_claims(contract: &DataProduct, folder: &Path) -> Vec<SourceClaim> {
    let claim = |table: &Table| {
        let dataset = match table.source.as_ref()? {
            SourceSpec::Files(files) if files.path == "-" => return None,
            SourceSpec::Files(files) => external_dataset(&files.path, folder),
            SourceSpec::Iceberg(source) => iceberg_dataset(&source.iceberg, folder),
            SourceSpec::Database(source) => match &source.rows {
                DatabaseRows::Table(table) => database_dataset(&source.database, Some(table), folder),
                DatabaseRows::Query(_) => return None,
            },
        };
        Some(SourceClaim { product: contract.key(), table: table.name.sql(), dataset })
    };
    contract.tables.iter().filter_map(claim).collect()
}
