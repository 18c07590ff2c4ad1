//! Scans of Iceberg tables: the one place that makes a table provider of a table's metadata.

mod adapter;
mod convert;
mod deletes;
#[cfg(test)]
mod oracle;
mod pruning;
mod schema;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt};
use datafusion::physical_plan::ExecutionPlan;
use datamesh_core::Result;
use datamesh_iceberg::read::TableView;
use datamesh_iceberg::spec::{ManifestContentType, ManifestFile};
use datamesh_iceberg::{OpenTable, TableCache, storage};
use object_store::ObjectMeta;

use self::adapter::{FieldIds, PartitionValues};
pub(crate) use self::convert::{Conversion, Lookup, field_id};
use self::deletes::{DeleteFiles, FileDeletes};
use self::pruning::{Columns, Facts};
use self::source::{ScanSummary, TableFileSource};
use crate::error::wrap;

/// A table as of one snapshot; `None`: the current one. The columns are those the table had then.
///
/// # Errors
/// Metadata or manifests that cannot be read.
pub(crate) async fn open_table(
    cache: &Arc<TableCache>,
    table: &OpenTable,
    snapshot: Option<i64>,
) -> Result<Arc<dyn TableProvider>> {
    let view = table.view(snapshot)?;
    let schema = schema::read_schema(view.schema())?;
    let manifests = view.manifests(cache).await?;
    let defaults = schema::defaults(view.schema()).map_err(|error| {
        crate::error::unwrap(datamesh_core::ErrorCode::SourceUnreadable, "cannot read the table", error)
    })?;
    let field_ids = Arc::new(FieldIds { mapping: view.name_mapping()?, defaults });
    Ok(Arc::new(IcebergTable { view, schema, manifests, field_ids, cache: cache.clone() }))
}

/// The columns that a table has now, whatever state of it is read.
pub(crate) fn current_schema(table: &OpenTable) -> Result<SchemaRef> {
    schema::read_schema(table.view(None)?.schema())
}

/// A table as of one snapshot.
#[derive(Debug)]
struct IcebergTable {
    view: TableView,
    schema: SchemaRef,
    manifests: Arc<Vec<ManifestFile>>,
    field_ids: Arc<FieldIds>,
    cache: Arc<TableCache>,
}

impl IcebergTable {
    fn data_manifests(&self) -> impl Iterator<Item = &ManifestFile> {
        self.manifests.iter().filter(|manifest| manifest.content == ManifestContentType::Data)
    }

    /// Whether partition values alone decide a filter: then files are read or left out, and nothing is left to filter.
    fn is_decided(&self, filter: &Expr, columns: &Columns, specs: &HashSet<i32>) -> bool {
        let names = filter.column_refs();
        !specs.is_empty()
            && !names.is_empty()
            && !filter.is_volatile()
            && names
                .iter()
                .all(|name| self.schema.index_of(name.name()).is_ok_and(|column| columns.is_constant(specs, column)))
    }

    fn specs(&self) -> HashSet<i32> {
        self.data_manifests().map(|manifest| manifest.partition_spec_id).collect()
    }
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let columns = Columns::new(&self.view, &self.schema);
        let specs = self.specs();
        let answer = |filter: &&Expr| {
            if self.is_decided(filter, &columns, &specs) {
                TableProviderFilterPushDown::Exact
            } else {
                // The filter stays above the scan; the optimizer hands it down to the files as well.
                TableProviderFilterPushDown::Inexact
            }
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let columns = Columns::new(&self.view, &self.schema);
        let df_schema = DFSchema::try_from(self.schema.clone())?;
        let physical = |filter: &Expr| state.create_physical_expr(filter.clone(), &df_schema);
        let predicate = conjunction_opt(filters.iter().map(physical).collect::<DataFusionResult<Vec<_>>>()?);
        let mut summary = ScanSummary::default();

        // Manifests by their partition summaries, then files by their partition values and column metrics.
        let manifests: Vec<ManifestFile> = self.data_manifests().cloned().collect();
        summary.manifests = manifests.len();
        let facts = manifests.iter().map(|manifest| columns.manifest(manifest)).collect::<Vec<_>>();
        let manifests = keep(manifests, &self.prune(predicate.as_ref(), &facts)?);
        summary.manifests_pruned = summary.manifests - manifests.len();
        let files = self.view.live_files(&manifests, &self.cache).await.map_err(wrap)?;
        summary.files = files.len();
        let facts: Vec<Facts> = files.iter().map(|file| columns.file(file)).collect();
        let mut wanted = self.prune(predicate.as_ref(), &facts)?;
        let specs = self.specs();
        for filter in filters.iter().filter(|filter| self.is_decided(filter, &columns, &specs)) {
            let names: BTreeSet<usize> =
                filter.column_refs().iter().filter_map(|name| self.schema.index_of(name.name()).ok()).collect();
            let rows = files.iter().map(|file| names.iter().map(|at| columns.constant(file, *at)).collect());
            let accepted = self.decide(&physical(filter)?, &names, rows.collect())?;
            wanted.iter_mut().zip(accepted).for_each(|(wanted, accepted)| *wanted &= accepted);
        }
        let (files, facts) = (keep(files, &wanted), keep(facts, &wanted));
        summary.files_pruned = summary.files - files.len();

        let deletes = self.view.deletes(&self.manifests, &self.cache).await.map_err(wrap)?;
        let delete_files = Arc::new(DeleteFiles::new(self.view.clone(), self.field_ids.clone()));
        let mut parts = Files::default();
        let mut statistics = Vec::with_capacity(files.len());
        for (file, facts) in files.into_iter().zip(&facts) {
            let own = if deletes.is_empty() { Vec::new() } else { deletes.of(&file) };
            let known = Arc::new(facts.statistics(&self.schema, !own.is_empty()));
            let data_file = file.entry.data_file();
            let part = parts.add(data_file.file_path(), data_file.file_size_in_bytes())?;
            part.statistics = Some(known.clone());
            let partition = PartitionValues::of(&self.view, &file);
            if !partition.is_empty() {
                part.extensions.insert(Arc::new(partition));
            }
            if !own.is_empty() {
                summary.files_with_deletes += 1;
                part.extensions.insert(Arc::new(FileDeletes::new(delete_files.clone(), file, own)));
            }
            statistics.push(known);
        }
        let merged = Statistics::try_merge_iter(statistics.iter().map(AsRef::as_ref), &self.schema)?;
        let merged = if parts.list.is_empty() { empty(&self.schema) } else { merged };
        let floats = (0..self.schema.fields().len()).filter(|at| self.schema.field(*at).data_type().is_floating());
        let uncertain = floats.filter(|at| facts.iter().any(|facts| facts.may_be_nan(*at))).collect();
        let files =
            FileScan { files: parts, statistics: merged, summary, uncertain, field_ids: self.field_ids.clone() };
        files.plan(state, &self.schema, projection, limit)
    }
}

impl IcebergTable {
    fn prune(&self, predicate: Option<&Arc<dyn PhysicalExpr>>, facts: &[Facts]) -> DataFusionResult<Vec<bool>> {
        match predicate {
            None => Ok(vec![true; facts.len()]),
            Some(predicate) => pruning::prune(predicate, &self.schema, facts),
        }
    }

    /// What a filter says of rows that have only these columns.
    fn decide(
        &self,
        filter: &Arc<dyn PhysicalExpr>,
        columns: &BTreeSet<usize>,
        rows: Vec<Vec<Option<ScalarValue>>>,
    ) -> DataFusionResult<Vec<bool>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        for (at, field) in self.schema.fields().iter().enumerate() {
            let null = ScalarValue::try_new_null(field.data_type())?;
            let place = columns.iter().position(|column| *column == at);
            let values =
                rows.iter().map(|row| place.and_then(|place| row[place].clone()).unwrap_or_else(|| null.clone()));
            arrays.push(match place {
                Some(_) => ScalarValue::iter_to_array(values)?,
                None => null.to_array_of_size(rows.len())?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        let accepted = filter.evaluate(&batch)?.into_array(rows.len())?;
        let accepted = accepted.as_boolean();
        Ok((0..rows.len()).map(|row| accepted.is_valid(row) && accepted.value(row)).collect())
    }
}

fn keep<T>(items: Vec<T>, wanted: &[bool]) -> Vec<T> {
    items.into_iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(item, _)| item).collect()
}

/// The columns whose values lie so far apart that few rows can have one of them.
fn spread(statistics: &Statistics) -> Vec<usize> {
    const VALUES: f64 = 10_000.0;
    let number = |value: &Precision<ScalarValue>| match value.get_value()?.cast_to(&DataType::Float64).ok()? {
        ScalarValue::Float64(number) => number,
        _ => None,
    };
    let columns = statistics.column_statistics.iter().enumerate();
    let wide = columns.filter(|(_, column)| {
        let whole = column.min_value.get_value().is_some_and(|value| value.data_type().is_integer());
        let bounds = number(&column.min_value).zip(number(&column.max_value));
        whole && bounds.is_some_and(|(lower, upper)| upper - lower >= VALUES)
    });
    wide.map(|(at, _)| at).collect()
}

/// The statistics of no files at all.
fn empty(schema: &SchemaRef) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Exact(0);
    statistics
}

/// Files of one object store.
#[derive(Default)]
pub(crate) struct Files {
    list: Vec<PartitionedFile>,
    root: Option<String>,
}

impl Files {
    /// Adds a file. Data files never change, so their moment of change is not looked up.
    pub(crate) fn add(&mut self, url: &str, bytes: u64) -> DataFusionResult<&mut PartitionedFile> {
        let (root, location) = storage::split(url).map_err(wrap)?;
        if *self.root.get_or_insert_with(|| root.clone()) != root {
            let message = format!("the files of a table lie in `{root}` and elsewhere");
            return Err(DataFusionError::NotImplemented(message));
        }
        let meta = ObjectMeta {
            location,
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: bytes,
            e_tag: None,
            version: None,
        };
        Ok(self.list.push_mut(PartitionedFile::new_from_meta(meta)))
    }
}

/// Files to scan, with what is known of them.
pub(crate) struct FileScan {
    files: Files,
    statistics: Statistics,
    summary: ScanSummary,
    uncertain: Vec<usize>,
    field_ids: Arc<FieldIds>,
}

impl FileScan {
    /// Files of which nothing is known but their rows.
    pub(crate) fn bare(schema: &SchemaRef, files: Files, rows: usize) -> Self {
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = Precision::Exact(rows);
        let floats = (0..schema.fields().len()).filter(|at| schema.field(*at).data_type().is_floating());
        let summary = ScanSummary { files: files.list.len(), ..ScanSummary::default() };
        Self { files, statistics, summary, uncertain: floats.collect(), field_ids: Arc::default() }
    }

    pub(crate) fn plan(
        self,
        state: &dyn Session,
        schema: &SchemaRef,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let parallelism = state.config().target_partitions().max(1);
        let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); parallelism.min(self.files.list.len().max(1))];
        let count = groups.len();
        for (at, file) in self.files.list.into_iter().enumerate() {
            groups[at % count].push(file);
        }
        let url = self.files.root.map_or_else(|| Ok(ObjectStoreUrl::local_filesystem()), ObjectStoreUrl::parse)?;
        let store = state.runtime_env().object_store(&url)?;
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let parquet = ParquetSource::new(schema.clone())
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, footers)));
        let spread = spread(&self.statistics);
        let source = TableFileSource::new(parquet, self.field_ids.clone(), self.summary, self.uncertain, spread);
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_statistics(self.statistics)
            .with_expr_adapter(Some(self.field_ids))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
