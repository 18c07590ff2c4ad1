//! A table over a fixed list of Parquet files: a published snapshot, or a candidate before its commit.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::scan::{FileScan, Files};

/// A data file to scan.
#[derive(Clone, Debug)]
pub(crate) struct ScanFile {
    pub(crate) url: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// A table of files that never change.
#[derive(Debug)]
pub(crate) struct FilesTable {
    schema: SchemaRef,
    files: Vec<ScanFile>,
}

impl FilesTable {
    /// `schema` has field ids; columns that older files lack are null.
    pub(crate) fn new(schema: SchemaRef, files: Vec<ScanFile>) -> Self {
        Self { schema, files }
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The filter stays above the scan; the optimizer hands it down for pruning by row-group statistics.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.files.iter().map(|file| file.rows as usize).sum();
        let mut files = Files::default();
        for file in &self.files {
            files.add(&file.url, file.bytes)?;
        }
        FileScan::bare(&self.schema, files, rows).plan(state, &self.schema, projection, limit)
    }
}
