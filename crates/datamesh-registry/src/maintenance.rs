//! What maintenance needs of the registry.

use chrono::{DateTime, Utc};
use datamesh_core::Result;
use datamesh_core::ids::ProductKey;
use datamesh_core::outbox::OutboxKind;
use datamesh_core::ports::{MaintenanceCommit, UnreferencedFile};

use crate::leases;
use crate::outbox::{self, Event};
use crate::store::{Row, Session, Value, insert_all, sql};
use crate::text::{read_key, time};

/// Compare-and-swap of a pointer, with what it leaves behind. `false`: somebody else was first.
pub(crate) async fn write(session: &mut Session, commit: &MaintenanceCommit) -> Result<bool> {
    leases::check(session, &commit.attempt).await?;
    let sequence = outbox::take(session, 1).await?;
    let moved = sql("UPDATE tables SET metadata_location = $1, metadata = $2, sequence = $3
                     WHERE domain = $4 AND product = $5 AND major = $6 AND table_name = $7
                     AND metadata_location = $8 RETURNING publication")
    .bind(&commit.metadata_location)
    .bind(&commit.metadata)
    .bind(sequence)
    .bind(&commit.product.domain)
    .bind(&commit.product.product)
    .bind(commit.product.major)
    .bind(&commit.table)
    .bind(&commit.expected)
    .fetch_optional(session)
    .await?;
    let Some(moved) = moved else { return Ok(false) };
    let pointer = Some((commit.table.as_str(), commit.metadata_location.as_str(), moved.number("publication")?));
    let event = Event { kind: OutboxKind::Maintained, product: &commit.product, pointer, former: None };
    outbox::write(session, commit.at, sequence, [event]).await?;
    let since = time(commit.at);
    let files = commit.unreferenced.iter().map(|path| -> Vec<Value<'_>> {
        vec![
            path.into(),
            (&commit.product.domain).into(),
            (&commit.product.product).into(),
            commit.product.major.into(),
            (&commit.table).into(),
            (&since).into(),
        ]
    });
    let insert = "INSERT INTO unreferenced_files (path, domain, product, major, table_name, since)";
    insert_all(session, insert, files.collect(), "ON CONFLICT DO NOTHING").await?;
    Ok(true)
}

/// Whether a table's pointer is at the commit's document.
pub(crate) async fn is_written(session: &mut Session, commit: &MaintenanceCommit) -> Result<bool> {
    let row = sql("SELECT table_name FROM tables WHERE domain = $1 AND product = $2 AND major = $3 AND table_name = $4
                   AND metadata_location = $5")
    .bind(&commit.product.domain)
    .bind(&commit.product.product)
    .bind(commit.product.major)
    .bind(&commit.table)
    .bind(&commit.metadata_location)
    .fetch_optional(session)
    .await?;
    Ok(row.is_some())
}

pub(crate) async fn unreferenced(session: &mut Session, before: DateTime<Utc>) -> Result<Vec<UnreferencedFile>> {
    let rows = sql("SELECT * FROM unreferenced_files WHERE since <= $1 ORDER BY path")
        .bind(time(before))
        .fetch_all(session)
        .await?;
    let read = |row: &Row| -> Result<UnreferencedFile> {
        Ok(UnreferencedFile { product: read_key(row)?, table: row.text("table_name")?, path: row.text("path")? })
    };
    rows.iter().map(read).collect()
}

pub(crate) async fn forget(session: &mut Session, paths: &[String]) -> Result<()> {
    for path in paths {
        sql("DELETE FROM unreferenced_files WHERE path = $1").bind(path).execute(session).await?;
    }
    Ok(())
}

pub(crate) async fn known_files(session: &mut Session, product: &ProductKey) -> Result<Vec<String>> {
    let rows = sql("SELECT q.path AS path FROM quarantine_files q JOIN publications p ON p.number = q.publication
                    WHERE p.domain = $1 AND p.product = $2 AND p.major = $3
                    UNION SELECT path FROM unreferenced_files WHERE domain = $1 AND product = $2 AND major = $3
                    ORDER BY path")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    rows.iter().map(|row| row.text("path")).collect()
}
