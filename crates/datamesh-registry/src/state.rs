//! Revisions of contracts, and the pointers of published tables.

use std::collections::{BTreeMap, HashMap};

use datamesh_core::Result;
use datamesh_core::contract::DataProduct;
use datamesh_core::ids::ProductKey;
use datamesh_core::ports::{CatalogProduct, CommitRequest, ProductState, Revision, TableCommit, TablePointer};
use datamesh_core::watermark::Watermark;

use crate::history;
use crate::store::{Row, Session, sql};
use crate::text::{from_json, read_key, read_time, time, to_json};

fn read_pointer(row: &Row) -> Result<TablePointer> {
    Ok(TablePointer {
        table: row.text("table_name")?,
        metadata_location: row.text("metadata_location")?,
        metadata: row.text("metadata")?,
        content: row.text("content")?,
        publication: row.number("publication")?,
        rows: row.number("total_rows")?,
        sequence: row.number("sequence")?,
    })
}

fn read_revision(row: &Row) -> Result<Revision> {
    Ok(Revision {
        number: row.number("number")?,
        contract: from_json("a contract", &row.text("contract")?)?,
        created_at: read_time(&row.text("created_at")?)?,
        created_by: row.text("created_by")?,
    })
}

pub(crate) async fn newest_revision(session: &mut Session, product: &ProductKey) -> Result<Option<Revision>> {
    let row = sql("SELECT number, contract, created_at, created_by FROM revisions
                   WHERE domain = $1 AND product = $2 AND major = $3 ORDER BY number DESC LIMIT 1")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_optional(session)
    .await?;
    row.as_ref().map(read_revision).transpose()
}

/// Registers the contract where it differs from the newest revision; its number, and whether it is new. `None`: the newest
/// is not the expected one.
pub(crate) async fn register(session: &mut Session, request: &CommitRequest) -> Result<Option<(u64, bool)>> {
    let newest = newest_revision(session, &request.product).await?;
    if let Some(newest) = &newest
        && newest.contract == request.contract
    {
        return Ok(Some((newest.number, false)));
    }
    let newest = newest.map_or(0, |revision| revision.number);
    if newest != request.expected_revision {
        return Ok(None);
    }
    let next = newest + 1;
    sql("INSERT INTO revisions (domain, product, major, number, version, contract, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(&request.product.domain)
    .bind(&request.product.product)
    .bind(request.product.major)
    .bind(next)
    .bind(request.contract.version.to_string())
    .bind(to_json::<DataProduct>(&request.contract)?)
    .bind(time(request.at))
    .bind(&request.principal)
    .execute(session)
    .await?;
    crate::apply::next_generation(session).await?;
    Ok(Some((next, true)))
}

/// The newest contract of a product as it is kept.
pub(crate) async fn newest_contract(session: &mut Session, product: &ProductKey) -> Result<Option<String>> {
    let row = sql("SELECT contract FROM revisions WHERE domain = $1 AND product = $2 AND major = $3
                   ORDER BY number DESC LIMIT 1")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_optional(session)
    .await?;
    row.map(|row| row.text("contract")).transpose()
}

pub(crate) async fn product(session: &mut Session, product: &ProductKey) -> Result<ProductState> {
    let revision = newest_revision(session, product).await?;
    let rows = sql("SELECT * FROM tables WHERE domain = $1 AND product = $2 AND major = $3 ORDER BY table_name")
        .bind(&product.domain)
        .bind(&product.product)
        .bind(product.major)
        .fetch_all(session)
        .await?;
    let tables = rows.iter().map(read_pointer).collect::<Result<_>>()?;
    let watermarks = watermarks(session, product).await?;
    Ok(ProductState { revision, tables, watermarks })
}

pub(crate) async fn catalog(session: &mut Session) -> Result<Vec<CatalogProduct>> {
    catalog_of(session, "SELECT * FROM tables ORDER BY domain, product, major, table_name").await
}

/// The catalog with empty metadata documents.
pub(crate) async fn catalog_without_metadata(session: &mut Session) -> Result<Vec<CatalogProduct>> {
    let tables = "SELECT domain, product, major, table_name, metadata_location, '' AS metadata, content, publication,
                  total_rows, sequence FROM tables ORDER BY domain, product, major, table_name";
    catalog_of(session, tables).await
}

async fn catalog_of(session: &mut Session, tables: &str) -> Result<Vec<CatalogProduct>> {
    let revisions = sql("SELECT r.* FROM revisions r WHERE r.number = (SELECT max(n.number) FROM revisions n
                         WHERE n.domain = r.domain AND n.product = r.product AND n.major = r.major)
                         ORDER BY r.domain, r.product, r.major")
    .fetch_all(session)
    .await?;
    let rows = sql(tables).fetch_all(session).await?;
    let mut products = Vec::with_capacity(revisions.len());
    let mut places = HashMap::with_capacity(revisions.len());
    for row in &revisions {
        let key = read_key(row)?;
        places.insert(key.clone(), products.len());
        products.push(CatalogProduct { key, revision: read_revision(row)?, tables: Vec::new() });
    }
    for row in &rows {
        let product = places.get(&read_key(row)?).and_then(|place| products.get_mut(*place));
        if let Some(product) = product {
            product.tables.push(read_pointer(row)?);
        }
    }
    Ok(products)
}

/// How far the pulls of each table have come.
async fn watermarks(session: &mut Session, product: &ProductKey) -> Result<BTreeMap<String, Watermark>> {
    let rollbacks = history::rollbacks(session, product).await?;
    if !rollbacks.is_empty() {
        return history::watermarks(session, product, &rollbacks).await;
    }
    let rows = sql("SELECT w.table_name, w.column_name, w.value FROM watermarks w
                    JOIN publications p ON p.number = w.publication
                    WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 AND w.publication = (
                        SELECT max(n.publication) FROM watermarks n JOIN publications q ON q.number = n.publication
                        WHERE n.table_name = w.table_name
                        AND q.domain = p.domain AND q.product = p.product AND q.major = p.major)")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    let read = |row: &Row| -> Result<(String, Watermark)> {
        Ok((row.text("table_name")?, Watermark { column: row.text("column_name")?, value: row.text("value")? }))
    };
    rows.iter().map(read).collect()
}

/// Compare-and-swap of a table's pointer. `false`: it is not where the plan saw it.
pub(crate) async fn swap_pointer(
    session: &mut Session,
    product: &ProductKey,
    table: &TableCommit,
    publication: u64,
    sequence: u64,
) -> Result<bool> {
    let statement = match &table.expected {
        None => {
            sql("INSERT INTO tables (metadata_location, metadata, content, total_rows, publication, sequence, domain,
                     product, major, table_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING")
        }
        Some(_) => sql("UPDATE tables SET metadata_location = $1, metadata = $2, content = $3, total_rows = $4,
                        publication = $5, sequence = $6 WHERE domain = $7 AND product = $8 AND major = $9
                        AND table_name = $10 AND metadata_location = $11"),
    };
    let mut statement = statement
        .bind(&table.metadata_location)
        .bind(&table.metadata)
        .bind(&table.content)
        .bind(table.total_rows)
        .bind(publication)
        .bind(sequence)
        .bind(&product.domain)
        .bind(&product.product)
        .bind(product.major)
        .bind(&table.table);
    if let Some(expected) = &table.expected {
        statement = statement.bind(expected);
    }
    Ok(statement.execute(session).await? == 1)
}
