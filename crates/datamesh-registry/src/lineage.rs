//! Lineage edges, kept with the publication that they explain.

use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{Dataset, Edge, FieldPath, Node, Subtype, TableLineage, Transformation};
use datamesh_core::{Error, ErrorCode, Result};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::error;
use crate::sqlite::{integer, number, text};

/// Adds the edges of a publication's tables.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    product: &ProductKey,
    publication: u64,
    tables: &[TableLineage],
) -> Result<()> {
    let field = |node: &Node| node.field.as_ref().map(ToString::to_string).unwrap_or_default();
    for table in tables {
        let output = Dataset::Table { product: product.clone(), table: table.table.clone() };
        for edge in table.lineage.edges(&output) {
            sqlx::query(
                "INSERT INTO lineage_edges (publication, table_name, field, input_namespace, input_name, input_field,
                 subtype, masking) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(integer(publication)?)
            .bind(&table.table)
            .bind(field(&edge.output))
            .bind(edge.input.dataset.namespace())
            .bind(edge.input.dataset.name())
            .bind(field(&edge.input))
            .bind(edge.how.map_or("", |how| how.subtype.as_str()))
            .bind(edge.how.is_some_and(|how| how.masking))
            .execute(&mut *connection)
            .await
            .map_err(error::query)?;
        }
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Edge> {
    let corrupt =
        |what: &str, text: &str| Error::new(ErrorCode::Registry, format!("the registry holds `{text}` as {what}"));
    let product =
        ProductKey { domain: text(row, "domain")?, product: text(row, "product")?, major: number(row, "major")? };
    let field = |column: &str| -> Result<Option<FieldPath>> {
        Ok(Some(text(row, column)?).filter(|text| !text.is_empty()).map(FieldPath::from))
    };
    let output = Node { dataset: Dataset::Table { product, table: text(row, "table_name")? }, field: field("field")? };
    let name = text(row, "input_name")?;
    let dataset =
        Dataset::from_parts(&text(row, "input_namespace")?, &name).ok_or_else(|| corrupt("a table's name", &name))?;
    let subtype = text(row, "subtype")?;
    let how = if subtype.is_empty() {
        None
    } else {
        let known = Subtype::parse(&subtype).ok_or_else(|| corrupt("a kind of lineage", &subtype))?;
        Some(Transformation { subtype: known, masking: row.try_get("masking").map_err(error::query)? })
    };
    Ok(Edge { output, input: Node { dataset, field: field("input_field")? }, how })
}

/// The edges of each table's newest publication, or of the newest of those up to `publication`. One that recorded none,
/// because its rows had been read before, leaves those that there were.
pub(crate) async fn edges(pool: &SqlitePool, publication: Option<u64>) -> Result<Vec<Edge>> {
    let rows = sqlx::query(
        "WITH written AS (
             SELECT p.domain, p.product, p.major, t.table_name, max(p.number) AS publication
             FROM (SELECT DISTINCT publication, table_name FROM lineage_edges WHERE publication <= ?) t
             JOIN publications p ON p.number = t.publication
             GROUP BY p.domain, p.product, p.major, t.table_name)
         SELECT w.domain, w.product, w.major, e.*
         FROM written w JOIN lineage_edges e ON e.publication = w.publication AND e.table_name = w.table_name
         ORDER BY w.domain, w.product, w.major, e.table_name, e.field, e.input_namespace, e.input_name, e.input_field",
    )
    .bind(publication.map_or(Ok(i64::MAX), integer)?)
    .fetch_all(pool)
    .await
    .map_err(error::query)?;
    rows.iter().map(read).collect()
}
