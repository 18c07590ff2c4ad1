//! One database a domain and bare tables, as in articles about data mesh.

use std::collections::BTreeSet;

use datamesh_core::Result;
use datamesh_core::contract::DataProduct;

use super::{Labels, Rendered, TerraformFile, TerraformOptions, spaced};
use crate::catalog::{self, CatalogColumn, CatalogOptions};
use crate::hcl::{self, Expression, Item, block, resource};

/// Writes products as databases, one a domain, and tables with the names and types of their columns.
pub(super) fn render(products: &[&DataProduct], options: &TerraformOptions) -> Result<Rendered> {
    let domains: BTreeSet<String> = products.iter().map(|contract| contract.id.domain.sql()).collect();
    let mut labels = Labels::default();
    let mut blocks = Vec::new();
    for domain in &domains {
        let label = if domains.len() == 1 { "domain_data".to_owned() } else { format!("{domain}_domain_data") };
        let name = format!("{}{domain}_domain_data", options.database_prefix);
        let body = vec![Item::Attribute("name", Expression::text(name))];
        blocks.push(resource("aws_glue_catalog_database", &label, body));
        for contract in products.iter().filter(|contract| contract.id.domain.sql() == *domain) {
            for table in &contract.tables {
                let described = catalog::table(contract, table, None, &CatalogOptions::default())?;
                let name = described.name;
                let table_label = if domains.len() == 1 { name.clone() } else { format!("{domain}_{name}") };
                labels.take(&table_label, "table", &format!("{}.{name}", contract.key()))?;
                let columns = described.columns.iter().map(column_block).collect();
                let reference = format!("aws_glue_catalog_database.{label}.name");
                let body = vec![
                    Item::Attribute("name", Expression::text(&name)),
                    Item::Attribute("database_name", Expression::raw(reference)),
                    Item::Blank,
                    block("storage_descriptor", columns),
                ];
                blocks.push(resource("aws_glue_catalog_table", &table_label, body));
            }
        }
    }
    let files = vec![TerraformFile { name: "main.tf".into(), text: hcl::write(&spaced(blocks)) }];
    Ok(Rendered { files, warnings: Vec::new() })
}

fn column_block(column: &CatalogColumn) -> Item {
    let body = vec![
        Item::Attribute("name", Expression::text(&column.name)),
        Item::Attribute("type", Expression::text(&column.data_type)),
    ];
    block("columns", body)
}
