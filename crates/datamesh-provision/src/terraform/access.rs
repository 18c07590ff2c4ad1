//! What contracts offer to roles, as Lake Formation grants.
//!
//! A contract's offer names a role; who has it in AWS is a variable, empty at first, so that nobody sees anything before
//! somebody says so. Lake Formation has no masks: what a role sees only masked it does not see at all. What it cannot say
//! is not granted, and said aloud.

use std::collections::BTreeSet;

use datamesh_core::access::{AccessOffer, AttributeType};
use datamesh_core::contract::Table;

use super::filter;
use super::{Entry, TerraformOptions};
use crate::catalog::{self, CatalogTable};
use crate::hcl::{self, Body, Expression, Item, Part, block, resource};

/// The grants of a product.
#[derive(Default)]
pub(super) struct Access {
    /// The roles that are granted something.
    pub(super) roles: BTreeSet<String>,
    /// The blocks.
    pub(super) body: Body,
}

/// What a role sees of a table's columns.
#[derive(Debug, PartialEq, Eq)]
enum Columns {
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

/// Writes a product's offers; what cannot be granted is added to `warnings`.
pub(super) fn access(
    entry: &Entry<'_>,
    offers: &[AccessOffer],
    options: &TerraformOptions,
    labels: &mut BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Access {
    let mut access = Access::default();
    for offer in offers {
        let mut granted = false;
        for ((described, _), table) in entry.tables.iter().zip(&entry.contract.tables) {
            if !offer.covers(table) {
                continue;
            }
            let mut refuse = |why: &str| {
                let text =
                    format!("`{}` is not granted to the role `{}`: {why}", entry.table_key(described), offer.role);
                access.body.push(Item::Blank);
                access.body.push(Item::Comment(text.clone()));
                warnings.push(text);
            };
            let columns = match columns(offer, table) {
                Ok(columns) => columns,
                Err(why) => {
                    refuse(&why);
                    continue;
                }
            };
            let rows = match offer.rows.as_deref().map(|rows| filter::translate(rows, table, &options.attributes)) {
                None => None,
                Some(Ok(parts)) => Some(parts),
                Some(Err(why)) => {
                    refuse(&why);
                    continue;
                }
            };
            let label = unused(labels, format!("{}_{}", entry.table_label(described), slug(&offer.role)));
            access.body.extend(grant(entry, described, &offer.role, &label, &columns, rows));
            granted = true;
        }
        if granted && access.roles.insert(offer.role.clone()) {
            let label = unused(labels, format!("{}_{}", entry.database_label(), slug(&offer.role)));
            access.body.extend(describe_database(entry, &offer.role, &label));
        }
    }
    if !access.roles.is_empty() {
        let note =
            "Grants decide alone once IAMAllowedPrincipals has none here: see Lake Formation's data lake settings.";
        let mut body = vec![Item::Comment(note.to_owned())];
        body.extend(location(entry));
        body.append(&mut access.body);
        access.body = body;
    } else if access.body.first() == Some(&Item::Blank) {
        access.body.remove(0);
    }
    access
}

/// A label that no grant has yet.
fn unused(labels: &mut BTreeSet<String>, label: String) -> String {
    let numbered = (2..).map(|number| format!("{label}_{number}"));
    let mut candidates = std::iter::once(label.clone()).chain(numbered);
    let free = candidates.find(|candidate| !labels.contains(candidate)).unwrap_or(label);
    labels.insert(free.clone());
    free
}

/// A role as part of a label.
fn slug(role: &str) -> String {
    role.to_lowercase().chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' }).collect()
}

/// The columns that are seen in clear: those offered, without protected ones unless they are unmasked as a whole.
fn columns(offer: &AccessOffer, table: &Table) -> Result<Columns, String> {
    let name = table.name.as_str();
    let sql = table.name.sql();
    let names = |set: &BTreeSet<String>, column: &str| {
        set.contains(column) || set.contains(&format!("{name}.{column}")) || set.contains(&format!("{sql}.{column}"))
    };
    let hidden: Vec<String> = table
        .columns
        .iter()
        .filter(|column| column.is_protected() && !names(&offer.unmasked, &column.name))
        .map(|column| column.name.clone())
        .collect();
    let Some(offered) = &offer.columns else {
        return match hidden.len() {
            0 => Ok(Columns::All),
            count if count == table.columns.len() => Err("every column would be masked".into()),
            _ => Ok(Columns::AllBut(hidden)),
        };
    };
    let seen = table.columns.iter().filter(|column| names(offered, &column.name) && !hidden.contains(&column.name));
    let seen: Vec<String> = seen.map(|column| column.name.clone()).collect();
    if seen.is_empty() { Err("none of its columns is offered in clear".into()) } else { Ok(Columns::Only(seen)) }
}

/// The folder of the product, handed to Lake Formation.
fn location(entry: &Entry<'_>) -> Body {
    let arn = Expression::Template(vec![
        Part::Text("arn:".into()),
        Part::Expression("data.aws_partition.current.partition".into()),
        Part::Text(":s3:::".into()),
        Part::Expression("local.warehouse".into()),
        Part::Text(format!("/{}/{}", entry.key.domain, entry.key.namespace())),
    ]);
    let body = vec![
        Item::Attribute("arn", arn),
        Item::Attribute("role_arn", Expression::raw("var.lakeformation_role_arn")),
        Item::Attribute("use_service_linked_role", Expression::raw("var.lakeformation_role_arn == null ? true : null")),
    ];
    vec![resource("aws_lakeformation_resource", entry.database_label(), body)]
}

fn who(role: &str) -> [Item; 2] {
    let who = format!("lookup(var.principals, {}, {{}})", hcl::quoted(role));
    [Item::Attribute("for_each", Expression::raw(who)), Item::Attribute("principal", Expression::raw("each.value.arn"))]
}

/// Letting a role find a product's database.
fn describe_database(entry: &Entry<'_>, role: &str, label: &str) -> Body {
    let name = format!("aws_glue_catalog_database.{}.name", entry.database_label());
    let mut body = who(role).to_vec();
    body.extend([
        Item::Attribute("permissions", Expression::texts(["DESCRIBE"])),
        Item::Blank,
        block(
            "database",
            vec![
                Item::Attribute("catalog_id", Expression::raw("local.catalog_id")),
                Item::Attribute("name", Expression::raw(name)),
            ],
        ),
    ]);
    vec![Item::Blank, resource("aws_lakeformation_permissions", label, body)]
}

fn grant(
    entry: &Entry<'_>,
    table: &CatalogTable,
    role: &str,
    label: &str,
    columns: &Columns,
    rows: Option<Vec<Part>>,
) -> Body {
    let table_label = entry.table_label(table);
    let of_table = |attribute: &str| Expression::raw(format!("aws_glue_catalog_table.{table_label}.{attribute}"));
    let list = |names: &[String]| Expression::texts(names.iter().map(String::as_str));
    let mut blocks = Vec::new();
    let target = match (rows, columns) {
        (Some(rows), columns) => {
            let name = vec![
                Part::Text(format!("{}_", catalog::single_line(&slug(role), 100))),
                Part::Expression("each.key".into()),
            ];
            let mut data = vec![
                Item::Attribute("table_catalog_id", Expression::raw("local.catalog_id")),
                Item::Attribute("database_name", of_table("database_name")),
                Item::Attribute("table_name", of_table("name")),
                Item::Attribute("name", Expression::Template(name)),
            ];
            match columns {
                Columns::Only(names) => data.push(Item::Attribute("column_names", list(names))),
                Columns::All => data.extend([Item::Blank, block("column_wildcard", Vec::new())]),
                Columns::AllBut(names) => data.extend([
                    Item::Blank,
                    block("column_wildcard", vec![Item::Attribute("excluded_column_names", list(names))]),
                ]),
            }
            let condition = vec![Item::Attribute("filter_expression", Expression::Template(rows))];
            data.extend([Item::Blank, block("row_filter", condition)]);
            let each = format!("lookup(var.principals, {}, {{}})", hcl::quoted(role));
            let body = vec![Item::Attribute("for_each", Expression::raw(each)), Item::Blank, block("table_data", data)];
            blocks.push(Item::Blank);
            blocks.push(resource("aws_lakeformation_data_cells_filter", label, body));
            let filter = format!("aws_lakeformation_data_cells_filter.{label}[each.key].table_data[0].name");
            block(
                "data_cells_filter",
                vec![
                    Item::Attribute("table_catalog_id", Expression::raw("local.catalog_id")),
                    Item::Attribute("database_name", of_table("database_name")),
                    Item::Attribute("table_name", of_table("name")),
                    Item::Attribute("name", Expression::raw(filter)),
                ],
            )
        }
        (None, columns) => {
            let mut body = vec![
                Item::Attribute("catalog_id", Expression::raw("local.catalog_id")),
                Item::Attribute("database_name", of_table("database_name")),
                Item::Attribute("name", of_table("name")),
            ];
            match columns {
                Columns::All => block("table", body),
                Columns::Only(names) => {
                    body.push(Item::Attribute("column_names", list(names)));
                    block("table_with_columns", body)
                }
                Columns::AllBut(names) => {
                    body.push(Item::Attribute("wildcard", Expression::raw("true")));
                    body.push(Item::Attribute("excluded_column_names", list(names)));
                    block("table_with_columns", body)
                }
            }
        }
    };
    let mut body = who(role).to_vec();
    body.extend([Item::Attribute("permissions", Expression::texts(["SELECT"])), Item::Blank, target]);
    blocks.extend([Item::Blank, resource("aws_lakeformation_permissions", label, body)]);
    blocks
}

/// How an attribute's value stands in a filter: text is quoted, and what is no number or truth value stops the run.
pub(super) fn attribute(name: &str, kind: AttributeType) -> Option<Vec<Part>> {
    let value = format!("each.value.attributes[{}]", hcl::quoted(name));
    match kind {
        AttributeType::String => Some(vec![
            Part::Text("'".into()),
            Part::Expression(format!(r#"replace({value}, "'", "''")"#)),
            Part::Text("'".into()),
        ]),
        AttributeType::Long => Some(vec![Part::Expression(format!(r#"format("%d", tonumber({value}))"#))]),
        AttributeType::Boolean => Some(vec![Part::Expression(format!("tobool({value})"))]),
        AttributeType::Strings => None,
    }
}
