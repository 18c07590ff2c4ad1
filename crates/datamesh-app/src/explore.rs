//! Looking at published data: decided and recorded like any other read.

use datamesh_core::contract::Table;
use datamesh_core::history::History;
use datamesh_core::ports::CatalogProduct;
use datamesh_core::profile::{TableProfile, ValueProfile};
use datamesh_core::{Column, DataType, Error, ErrorCode, Result};
use serde_json::json;

use crate::govern::{Reader, published};
use crate::ports::{Context, Engine, QueryRequest, Visibility};
use crate::read;

/// A published table with its facts.
#[derive(Clone, Debug)]
pub struct ProfiledTable {
    /// The product.
    pub product: CatalogProduct,
    /// The table's contract.
    pub table: Table,
    /// Its facts, without what protected columns hold.
    pub profile: TableProfile,
}

/// Profiles the published table `domain.product.table`.
///
/// # Errors
/// `not-found` where there is no such table; a denied read.
pub async fn profile_table<E: Engine>(engine: &E, context: &Context, name: &str) -> Result<ProfiledTable> {
    let catalog = context.registry.catalog().await?;
    let normal: Vec<String> = name.split('.').map(|part| part.to_ascii_lowercase().replace('-', "_")).collect();
    let [domain, product, table] = normal.as_slice() else {
        return Err(Error::new(ErrorCode::InvalidArgument, format!("`{name}` is no table"))
            .with_help("write `domain.product.table`"));
    };
    // The names are quoted, so that nothing in them can be SQL.
    let quoted = |part: &String| format!("\"{}\"", part.replace('"', "\"\""));
    let sql = format!("SELECT * FROM {}.{}.{}", quoted(domain), quoted(product), quoted(table));
    let all = catalog;
    let catalog = context.discover(all.clone()).await?;
    let request = QueryRequest { sql, ..QueryRequest::default() };
    let wanted = read::tables(&catalog, &engine.names(&request, &catalog, &History::default())?.tables);
    let details = json!({ "operation": "profile", "table": name });
    let reading = context.read_tables(Reader::Asker, &all, &wanted, details).await?;
    let known = catalog.iter().flat_map(published).map(|read| (read.product.key.clone(), read.table.name.sql()));
    let visible = Visibility { tables: reading.tables.clone(), known: known.collect() };
    let query = engine.plan_request(&request, &catalog, &History::default(), &visible).await.map_err(|error| {
        let help = error.help().unwrap_or("`datamesh show` lists what is published").to_owned();
        Error::new(ErrorCode::NotFound, format!("there is no published table `{name}`"))
            .with_help(help)
            .with_source(error)
    })?;
    let tables = E::tables(&query);
    // The query says which major version the bare name means.
    let read = tables.first().cloned().unwrap_or_default();
    let found = catalog.iter().find(|entry| read.starts_with(&format!("{}.", entry.key)));
    let contract = found.and_then(|entry| Some((entry.clone(), entry.revision.contract.table(table)?.clone())));
    let Some((product, table)) = contract else {
        return Err(Error::new(ErrorCode::NotFound, format!("there is no published table `{name}`"))
            .with_help("`datamesh show` lists what is published"));
    };
    let rows = context.recorded(engine.run_query(query).await?, &reading, "profile");
    let mut profile = engine.examine_rows(rows).await?;
    for value in &mut profile.columns {
        match table.column(&value.name) {
            Some(column) => hide(value, column, false),
            // A column that the newest contract does not know is hidden: nobody said that it may be shown.
            None => conceal(value),
        }
    }
    Ok(ProfiledTable { product, table, profile })
}

/// Hides what protected columns and fields hold.
fn hide(value: &mut ValueProfile, column: &Column, within: bool) {
    let own = column.pii || column.mask.as_deref().is_some_and(|mask| mask != "none") || within;
    if own {
        conceal(value);
        return;
    }
    if let DataType::Struct(fields) = &column.data_type {
        for part in &mut value.fields {
            if let Some(field) = fields.iter().find(|field| field.name == part.name) {
                hide(part, field, own);
            }
        }
    }
    if let (DataType::Array(item) | DataType::Map(_, item), Some(part)) = (&column.data_type, &mut value.items) {
        hide(part, item, own);
    }
}

/// Removes every value, and what numbers would tell of them.
fn conceal(value: &mut ValueProfile) {
    value.top.clear();
    value.top_whole = false;
    value.range = None;
    value.numbers = None;
    value.null_texts.clear();
    value.classes.values_mut().for_each(|class| class.samples.clear());
    value.fields.iter_mut().for_each(conceal);
    value.items.iter_mut().for_each(|items| conceal(items));
}
