//! A table over a fixed list of Parquet files: a published snapshot, or a candidate before its commit.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datamesh_iceberg::storage;
use object_store::ObjectMeta;

use crate::error::wrap;

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
    /// `schema` is that of the newest data files; columns that older files lack are null.
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
        let parallelism = state.config().target_partitions().max(1);
        let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); parallelism.min(self.files.len().max(1))];
        let count = groups.len();
        let mut rows = 0;
        let mut base = None;
        for (at, file) in self.files.iter().enumerate() {
            rows += file.rows as usize;
            let (root, location) = storage::split(&file.url).map_err(wrap)?;
            if base.get_or_insert_with(|| root.clone()) != &root {
                let message = format!("the files of a table lie in `{root}` and elsewhere");
                return Err(DataFusionError::NotImplemented(message));
            }
            groups[at % count].push(PartitionedFile::new_from_meta(ObjectMeta {
                location,
                last_modified: chrono::DateTime::UNIX_EPOCH,
                size: file.bytes,
                e_tag: None,
                version: None,
            }));
        }
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(rows);
        let source = ParquetSource::new(self.schema.clone());
        let base = base.map_or_else(|| Ok(ObjectStoreUrl::local_filesystem()), ObjectStoreUrl::parse)?;
        let config = FileScanConfigBuilder::new(base, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_statistics(statistics)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
