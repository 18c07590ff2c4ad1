//! Lineage edges, kept with the publication that they explain.

use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{Dataset, Edge, FieldPath, Node, Subtype, TableLineage, Transformation};
use datamesh_core::{Error, ErrorCode, Result};

use crate::store::{Row, Session, Value, insert_all, sql};
use crate::text::read_key;

/// Adds the edges of a publication's tables.
pub(crate) async fn insert(
    session: &mut Session,
    product: &ProductKey,
    publication: u64,
    tables: &[TableLineage],
) -> Result<()> {
    let field = |node: &Node| node.field.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut rows: Vec<Vec<Value<'_>>> = Vec::new();
    for table in tables {
        let output = Dataset::Table { product: product.clone(), table: table.table.clone() };
        for edge in table.lineage.edges(&output) {
            rows.push(vec![
                publication.into(),
                (&table.table).into(),
                field(&edge.output).into(),
                edge.input.dataset.namespace().to_string().into(),
                edge.input.dataset.name().to_string().into(),
                field(&edge.input).into(),
                edge.how.map_or("", |how| how.subtype.as_str()).into(),
                edge.how.is_some_and(|how| how.masking).into(),
            ]);
        }
    }
    let insert = "INSERT INTO lineage_edges (publication, table_name, field, input_namespace, input_name, input_field,
                  subtype, masking)";
    insert_all(session, insert, rows, "").await
}

fn read(row: &Row) -> Result<Edge> {
    let corrupt =
        |what: &str, text: &str| Error::new(ErrorCode::Registry, format!("the registry holds `{text}` as {what}"));
    let product = read_key(row)?;
    let field = |column: &str| -> Result<Option<FieldPath>> {
        Ok(Some(row.text(column)?).filter(|text| !text.is_empty()).map(FieldPath::from))
    };
    let output = Node { dataset: Dataset::Table { product, table: row.text("table_name")? }, field: field("field")? };
    let name = row.text("input_name")?;
    let dataset =
        Dataset::from_parts(&row.text("input_namespace")?, &name).ok_or_else(|| corrupt("a table's name", &name))?;
    let subtype = row.text("subtype")?;
    let how = if subtype.is_empty() {
        None
    } else {
        let known = Subtype::parse(&subtype).ok_or_else(|| corrupt("a kind of lineage", &subtype))?;
        Some(Transformation { subtype: known, masking: row.flag("masking")? })
    };
    Ok(Edge { output, input: Node { dataset, field: field("input_field")? }, how })
}

/// The edges of each table's newest publication, or of the newest of those up to `publication`. One that recorded none,
/// because its rows had been read before, leaves those that there were.
pub(crate) async fn edges(session: &mut Session, publication: Option<u64>) -> Result<Vec<Edge>> {
    let rows = sql("WITH written AS (
                        SELECT p.domain, p.product, p.major, t.table_name, max(p.number) AS publication
                        FROM (SELECT DISTINCT publication, table_name FROM lineage_edges WHERE publication <= $1) t
                        JOIN publications p ON p.number = t.publication
                        GROUP BY p.domain, p.product, p.major, t.table_name)
                    SELECT w.domain, w.product, w.major, e.*
                    FROM written w JOIN lineage_edges e
                        ON e.publication = w.publication AND e.table_name = w.table_name
                    ORDER BY w.domain, w.product, w.major, e.table_name, e.field, e.input_namespace, e.input_name,
                        e.input_field, e.subtype, e.masking")
    .bind(publication.map_or(Value::Integer(Some(i64::MAX)), Value::from))
    .fetch_all(session)
    .await?;
    rows.iter().map(read).collect()
}

/// Every edge that any publication of these products recorded, each once: rows that older ones published may be there still.
pub(crate) async fn edges_of(session: &mut Session, products: &[ProductKey]) -> Result<Vec<Edge>> {
    let mut edges = Vec::new();
    for product in products {
        let rows = sql("SELECT DISTINCT p.domain, p.product, p.major, e.table_name, e.field, e.input_namespace,
                            e.input_name, e.input_field, e.subtype, e.masking
                        FROM publications p JOIN lineage_edges e ON e.publication = p.number
                        WHERE p.domain = $1 AND p.product = $2 AND p.major = $3")
        .bind(&product.domain)
        .bind(&product.product)
        .bind(product.major)
        .fetch_all(session)
        .await?;
        for row in &rows {
            edges.push(read(row)?);
        }
    }
    Ok(edges)
}
