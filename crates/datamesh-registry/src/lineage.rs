//! Lineage edges, kept with the publication or the recorded run that they explain.

use std::collections::BTreeSet;

use datamesh_core::audit::Signer;
use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{Dataset, Edge, FieldPath, Node, Subtype, TableLineage, Transformation};
use datamesh_core::ports::RecordedRun;
use datamesh_core::{Error, ErrorCode, Result};

use crate::store::{Row, Session, Value, insert_all, sql};
use crate::text::{read_key, time, to_json};
use crate::{audit, identity};

/// Adds the edges of a publication's tables.
pub(crate) async fn insert(
    session: &mut Session,
    product: &ProductKey,
    publication: u64,
    tables: &[TableLineage],
) -> Result<()> {
    let mut rows: Vec<Vec<Value<'_>>> = Vec::new();
    for table in tables {
        let output = Dataset::Table { product: product.clone(), table: table.table.clone() };
        for edge in table.lineage.edges(&output) {
            let mut row = vec![publication.into(), (&table.table).into()];
            row.extend(values(&edge));
            rows.push(row);
        }
    }
    let insert = "INSERT INTO lineage_edges (publication, table_name, field, input_namespace, input_name, input_field,
                  subtype, masking)";
    insert_all(session, insert, rows, "").await
}

/// An edge as it is kept, without its table.
fn values(edge: &Edge) -> [Value<'static>; 6] {
    let field = |node: &Node| node.field.as_ref().map(ToString::to_string).unwrap_or_default();
    [
        field(&edge.output).into(),
        edge.input.dataset.namespace().to_string().into(),
        edge.input.dataset.name().into(),
        field(&edge.input).into(),
        edge.how.map_or("", |how| how.subtype.as_str()).into(),
        edge.how.is_some_and(|how| how.masking).into(),
    ]
}

/// Adds a run outside the mesh, with its edges and its entry of the audit log.
pub(crate) async fn record_run(session: &mut Session, run: &RecordedRun, signer: Option<&dyn Signer>) -> Result<()> {
    let mut head = audit::begin(session, run.at).await?;
    audit::push(session, &mut head, run.entry.clone()).await?;
    audit::end(session, head, run.at, signer, false).await?;
    let row = sql("INSERT INTO recorded_runs (number, run_id, at, job, principal, decision, publication, event)
                   SELECT (SELECT coalesce(max(number), 0) + 1 FROM recorded_runs), $1, $2, $3, $4, $5,
                          (SELECT coalesce(max(number), 0) FROM publications), $6
                   RETURNING number")
    .bind(run.id.to_string())
    .bind(time(run.at))
    .bind(&run.job)
    .bind(&run.principal)
    .bind(run.decision)
    .bind(to_json(&run.event)?)
    .fetch_one(session)
    .await?;
    let number = row.number("number")?;
    let mut rows: Vec<Vec<Value<'_>>> = Vec::new();
    for table in &run.tables {
        let output = Dataset::Table { product: table.product.clone(), table: table.table.clone() };
        for edge in table.lineage.edges(&output) {
            let mut row = vec![
                number.into(),
                (&table.product.domain).into(),
                (&table.product.product).into(),
                table.product.major.into(),
                (&table.table).into(),
                (rows.len() as u64).into(),
            ];
            row.extend(values(&edge));
            rows.push(row);
        }
    }
    let insert = "INSERT INTO recorded_edges (run, domain, product, major, table_name, edge, field, input_namespace,
                  input_name, input_field, subtype, masking)";
    insert_all(session, insert, rows, "").await?;
    // What the tables inherit may have changed with it: nobody may go by what was decided before.
    identity::next_grant_revision(session).await.map(|_| ())
}

/// Whether a run is recorded.
pub(crate) async fn has_run(session: &mut Session, run: &RecordedRun) -> Result<bool> {
    let row = sql("SELECT number FROM recorded_runs WHERE run_id = $1").bind(run.id.to_string());
    Ok(row.fetch_optional(session).await?.is_some())
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
    let mut edges = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
    let rows = sql("WITH newest AS (
                        SELECT e.domain, e.product, e.major, e.table_name, max(r.number) AS run
                        FROM recorded_runs r JOIN recorded_edges e ON e.run = r.number
                        WHERE r.publication <= $1
                        GROUP BY e.domain, e.product, e.major, e.table_name, r.job)
                    SELECT DISTINCT e.domain, e.product, e.major, e.table_name, e.field, e.input_namespace, e.input_name,
                        e.input_field, e.subtype, e.masking
                    FROM newest n JOIN recorded_edges e ON e.run = n.run AND e.domain = n.domain
                        AND e.product = n.product AND e.major = n.major AND e.table_name = n.table_name
                    ORDER BY e.domain, e.product, e.major, e.table_name, e.field, e.input_namespace, e.input_name,
                        e.input_field, e.subtype, e.masking")
    .bind(publication.map_or(Value::Integer(Some(i64::MAX)), Value::from))
    .fetch_all(session)
    .await?;
    let known: BTreeSet<Edge> = edges.iter().cloned().collect();
    for row in &rows {
        edges.extend(Some(read(row)?).filter(|edge| !known.contains(edge)));
    }
    Ok(edges)
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
        let rows = sql("SELECT DISTINCT domain, product, major, table_name, field, input_namespace, input_name,
                            input_field, subtype, masking
                        FROM recorded_edges WHERE domain = $1 AND product = $2 AND major = $3")
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
