//! What maintenance needs of the registry.

use chrono::{DateTime, Utc};
use datamesh_core::Result;
use datamesh_core::ids::ProductKey;
use datamesh_core::ports::{Lease, MaintenanceCommit, UnreferencedFile};
use sqlx::SqlitePool;

use crate::error;
use crate::sqlite::{SqliteRegistry, check_lease, from_json, integer, number, text, time};

impl SqliteRegistry {
    /// Compare-and-swap of a pointer, with what it leaves behind, in one transaction.
    pub(crate) async fn swap_for_maintenance(&self, commit: &MaintenanceCommit) -> Result<bool> {
        let mut transaction = self.write().await?;
        check_lease(&mut transaction, &commit.attempt).await?;
        let done = sqlx::query(
            "UPDATE tables SET metadata_location = ?, metadata = ?
             WHERE domain = ? AND product = ? AND major = ? AND table_name = ? AND metadata_location = ?",
        )
        .bind(&commit.metadata_location)
        .bind(&commit.metadata)
        .bind(&commit.product.domain)
        .bind(&commit.product.product)
        .bind(integer(commit.product.major)?)
        .bind(&commit.table)
        .bind(&commit.expected)
        .execute(&mut *transaction)
        .await
        .map_err(error::query)?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        for path in &commit.unreferenced {
            sqlx::query(
                "INSERT INTO unreferenced_files (path, domain, product, major, table_name, since)
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(path)
            .bind(&commit.product.domain)
            .bind(&commit.product.product)
            .bind(integer(commit.product.major)?)
            .bind(&commit.table)
            .bind(time(commit.at))
            .execute(&mut *transaction)
            .await
            .map_err(error::query)?;
        }
        transaction.commit().await.map_err(error::query)?;
        Ok(true)
    }
}

pub(crate) async fn unreferenced(pool: &SqlitePool, before: DateTime<Utc>) -> Result<Vec<UnreferencedFile>> {
    let rows = sqlx::query("SELECT * FROM unreferenced_files WHERE since <= ? ORDER BY path")
        .bind(time(before))
        .fetch_all(pool)
        .await
        .map_err(error::query)?;
    let read = |row| -> Result<UnreferencedFile> {
        let product =
            ProductKey { domain: text(row, "domain")?, product: text(row, "product")?, major: number(row, "major")? };
        Ok(UnreferencedFile { product, table: text(row, "table_name")?, path: text(row, "path")? })
    };
    rows.iter().map(read).collect()
}

pub(crate) async fn forget(pool: &SqlitePool, paths: &[String]) -> Result<()> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(error::query)?;
    for path in paths {
        sqlx::query("DELETE FROM unreferenced_files WHERE path = ?")
            .bind(path)
            .execute(&mut *transaction)
            .await
            .map_err(error::query)?;
    }
    transaction.commit().await.map_err(error::query)
}

pub(crate) async fn leases(pool: &SqlitePool) -> Result<Vec<Lease>> {
    let rows =
        sqlx::query("SELECT document FROM leases ORDER BY attempt").fetch_all(pool).await.map_err(error::query)?;
    rows.iter().map(|row| from_json("a lease", &text(row, "document")?)).collect()
}

pub(crate) async fn known_files(pool: &SqlitePool, product: &ProductKey) -> Result<Vec<String>> {
    let major = integer(product.major)?;
    let rows = sqlx::query(
        "SELECT q.path AS path FROM quarantine_files q JOIN publications p ON p.number = q.publication
         WHERE p.domain = ? AND p.product = ? AND p.major = ?
         UNION SELECT path FROM unreferenced_files WHERE domain = ? AND product = ? AND major = ?",
    )
    .bind(&product.domain)
    .bind(&product.product)
    .bind(major)
    .bind(&product.domain)
    .bind(&product.product)
    .bind(major)
    .fetch_all(pool)
    .await
    .map_err(error::query)?;
    rows.iter().map(|row| text(row, "path")).collect()
}
