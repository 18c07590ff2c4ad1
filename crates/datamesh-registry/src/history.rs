//! What publications served, which of them were rolled back, and which quarantined rows were published since.

use std::collections::BTreeMap;

use datamesh_core::ids::ProductKey;
use datamesh_core::ports::{
    CommitRequest, HeldBack, QuarantineFile, QuarantineResolution, ResolutionKind, Rollback, ServedTable,
    newest_effective,
};
use datamesh_core::watermark::Watermark;
use datamesh_core::{Error, ErrorCode, Result};

use crate::store::{Row, Session, sql};
use crate::text::from_json;

/// The tables that a publication left, each as the newest publication up to it wrote it.
pub(crate) async fn served(session: &mut Session, product: &ProductKey, publication: u64) -> Result<Vec<ServedTable>> {
    let rows = sql("SELECT t.* FROM publication_tables t JOIN publications p ON p.number = t.publication
         WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 AND p.status = 'published' AND t.publication = (
             SELECT max(n.publication) FROM publication_tables n JOIN publications q ON q.number = n.publication
             WHERE q.domain = $1 AND q.product = $2 AND q.major = $3 AND q.status = 'published'
             AND n.table_name = t.table_name AND n.publication <= $4)
         ORDER BY t.table_name")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .bind(publication)
    .fetch_all(session)
    .await?;
    let read = |row: &Row| -> Result<ServedTable> {
        Ok(ServedTable {
            table: row.text("table_name")?,
            publication: row.number("publication")?,
            snapshot_id: row.integer("snapshot_id")?,
            content: row.text("content")?,
            total_rows: row.number("total_rows")?,
        })
    };
    rows.iter().map(read).collect()
}

/// The rollbacks of a product, newest first.
pub(crate) async fn rollbacks(session: &mut Session, product: &ProductKey) -> Result<Vec<Rollback>> {
    let rows = sql("SELECT r.* FROM rollbacks r JOIN publications p ON p.number = r.publication
         WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 ORDER BY r.publication DESC")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    rows.iter()
        .map(|row| Ok(Rollback { publication: row.number("publication")?, target: row.number("target")? }))
        .collect()
}

/// How far the pulls of each table have come whose rows no rollback has taken out.
pub(crate) async fn watermarks(
    session: &mut Session,
    product: &ProductKey,
    rollbacks: &[Rollback],
) -> Result<BTreeMap<String, Watermark>> {
    let rows = sql("SELECT w.* FROM watermarks w JOIN publications p ON p.number = w.publication
         WHERE p.domain = $1 AND p.product = $2 AND p.major = $3")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    let mut by_table: BTreeMap<String, BTreeMap<u64, Watermark>> = BTreeMap::new();
    for row in &rows {
        let watermark = Watermark { column: row.text("column_name")?, value: row.text("value")? };
        by_table.entry(row.text("table_name")?).or_default().insert(row.number("publication")?, watermark);
    }
    let newest = |mut pulls: BTreeMap<u64, Watermark>| {
        let numbers: Vec<u64> = pulls.keys().copied().collect();
        pulls.remove(&newest_effective(&numbers, rollbacks)?)
    };
    Ok(by_table.into_iter().filter_map(|(table, pulls)| Some((table, newest(pulls)?))).collect())
}

/// The quarantined rows of a product that were published, or judged again, since.
pub(crate) async fn resolutions(session: &mut Session, product: &ProductKey) -> Result<Vec<QuarantineResolution>> {
    let rows = sql("SELECT r.* FROM quarantine_resolutions r JOIN publications p ON p.number = r.publication
         WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 ORDER BY r.publication, r.table_name")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    let read = |row: &Row| -> Result<QuarantineResolution> {
        let how = row.text("how")?;
        Ok(QuarantineResolution {
            publication: row.number("publication")?,
            table: row.text("table_name")?,
            resolved_by: Some(row.number("resolved_by")?),
            how: ResolutionKind::parse(&how).ok_or_else(|| {
                Error::new(ErrorCode::Registry, format!("the registry holds `{how}` as a resolution"))
            })?,
        })
    };
    let found = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
    // What settled them may have been rolled back; then they are as they were.
    let rollbacks = rollbacks(session, product).await?;
    let stands = |number: u64| newest_effective(&[number], &rollbacks).is_some();
    Ok(found.into_iter().filter(|done| done.resolved_by.is_some_and(stands)).collect())
}

/// What the publications of a product that no rollback has taken out held back from a table.
pub(crate) async fn held_back(session: &mut Session, product: &ProductKey, table: &str) -> Result<Vec<HeldBack>> {
    let rows =
        sql("SELECT q.*, p.report AS report FROM quarantine_files q JOIN publications p ON p.number = q.publication
         WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 AND p.status = 'published' AND q.table_name = $4
         ORDER BY q.publication, q.path")
        .bind(&product.domain)
        .bind(&product.product)
        .bind(product.major)
        .bind(table)
        .fetch_all(session)
        .await?;
    let rollbacks = rollbacks(session, product).await?;
    let mut held = Vec::new();
    for row in &rows {
        let publication = row.number("publication")?;
        if newest_effective(&[publication], &rollbacks).is_none() {
            continue;
        }
        let file =
            QuarantineFile { table: row.text("table_name")?, path: row.text("path")?, rows: row.number("row_count")? };
        held.push(HeldBack { publication, report: from_json("a report", &row.text("report")?)?, file });
    }
    Ok(held)
}

/// Checks the pointers that a commit relies on without moving them, and writes what goes beside its tables. `false`: the
/// commit is a conflict.
pub(crate) async fn write(session: &mut Session, request: &CommitRequest, publication: u64) -> Result<bool> {
    for (table, expected) in &request.pinned {
        let row = sql(
            "SELECT metadata_location FROM tables WHERE domain = $1 AND product = $2 AND major = $3 AND table_name = $4",
        )
        .bind(&request.product.domain)
        .bind(&request.product.product)
        .bind(request.product.major)
        .bind(table)
        .fetch_optional(session)
        .await?;
        let found = row.map(|row| row.text("metadata_location")).transpose()?;
        if found != *expected {
            return Ok(false);
        }
    }
    if let Some(target) = request.rollback_to {
        sql("INSERT INTO rollbacks (publication, target) VALUES ($1, $2)")
            .bind(publication)
            .bind(target)
            .execute(session)
            .await?;
    }
    let settled = if request.resolves.is_empty() { Vec::new() } else { resolutions(session, &request.product).await? };
    for resolution in &request.resolves {
        if settled.iter().any(|done| done.publication == resolution.publication && done.table == resolution.table) {
            return Ok(false);
        }
        sql(
            "INSERT INTO quarantine_resolutions (publication, table_name, resolved_by, how) VALUES ($1, $2, $3, $4)
             ON CONFLICT (publication, table_name) DO UPDATE SET resolved_by = excluded.resolved_by, how = excluded.how",
        )
        .bind(resolution.publication)
        .bind(&resolution.table)
        .bind(publication)
        .bind(resolution.how.as_str())
        .execute(session)
        .await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rolled_back_is_no_repeat() {
        let back = |publication, target| Rollback { publication, target };
        assert_eq!(newest_effective(&[1, 3], &[]), Some(3));
        assert_eq!(newest_effective(&[3], &[back(4, 2)]), None);
        assert_eq!(newest_effective(&[2], &[back(4, 2)]), Some(2));
        assert_eq!(newest_effective(&[5], &[back(4, 2)]), Some(5));
        // Rolling the rollback back brings 3 back, and takes 5 out.
        let twice = [back(6, 3), back(4, 2)];
        assert_eq!(newest_effective(&[3], &twice), Some(3));
        assert_eq!(newest_effective(&[5], &twice), None);
        // Back to a rollback is back to what that one brought.
        assert_eq!(newest_effective(&[3], &[back(6, 4), back(4, 2)]), None);
        assert_eq!(newest_effective(&[2], &[back(6, 4), back(4, 2)]), Some(2));
        // A rollback's own entry names content that its target published.
        assert_eq!(newest_effective(&[4], &[back(4, 2)]), None);
    }
}
