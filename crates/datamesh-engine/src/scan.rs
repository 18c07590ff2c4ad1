//! Scans of Iceberg tables: the one place that makes a table provider of a table's metadata.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::OpenTable;

use crate::files::{FilesTable, ScanFile};

/// A table as of one snapshot; `None`: the current one.
///
/// # Errors
/// Metadata or manifests that cannot be read.
pub(crate) async fn open_table(table: &OpenTable, snapshot: Option<i64>) -> Result<Arc<dyn TableProvider>> {
    if snapshot.is_some() {
        return Err(Error::new(ErrorCode::InvalidQuery, "older snapshots cannot be read yet"));
    }
    Ok(Arc::new(FilesTable::new(table.arrow_schema()?, scan_files(table).await?)))
}

/// The data files of a table's current snapshot.
pub(crate) async fn scan_files(table: &OpenTable) -> Result<Vec<ScanFile>> {
    let files = table.data_files().await?;
    Ok(files.into_iter().map(|file| ScanFile { url: file.url, bytes: file.bytes, rows: file.rows }).collect())
}
