//! The file source of a table: Parquet, with columns by field id and deletes applied.
//!
//! It is a type of its own so that no plan travels without them: a plan codec that knows Parquet sources only would drop
//! both silently.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileGroup, FileOpener, FileScanConfig, FileSource, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricType};
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::morsel::{MorselPlan, MorselPlanner, Morselizer};
use object_store::ObjectStore;

use super::adapter::{FieldIds, FileFields, PartitionValues};
use super::deletes::FileDeletes;

/// What planning left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanSummary {
    pub(crate) manifests: usize,
    pub(crate) manifests_pruned: usize,
    pub(crate) files: usize,
    pub(crate) files_pruned: usize,
    pub(crate) files_with_deletes: usize,
}

/// The source.
#[derive(Clone)]
pub(crate) struct TableFileSource {
    parquet: Arc<dyn FileSource>,
    field_ids: Arc<FieldIds>,
    summary: Arc<ScanSummary>,
    /// Columns, by position, that may hold NaN: their statistics leave it out, so nothing can be concluded from them.
    uncertain: Arc<[usize]>,
    /// Columns, by position, of which few rows can have one value.
    spread: Arc<[usize]>,
}

impl TableFileSource {
    pub(crate) fn new(
        parquet: ParquetSource,
        field_ids: Arc<FieldIds>,
        summary: ScanSummary,
        uncertain: Vec<usize>,
        spread: Vec<usize>,
    ) -> Self {
        // What planning left out stands among the measurements too, beside the row groups and pages that reading leaves out.
        let metrics = FileSource::metrics(&parquet).clone();
        let pruned = |name: &'static str, all: usize, pruned: usize| {
            let counts = MetricBuilder::new(&metrics).with_type(MetricType::Summary).pruning_metrics(name, 0);
            counts.add_pruned(pruned);
            counts.add_matched(all - pruned);
        };
        if summary.manifests > 0 {
            pruned("manifests_pruned_bounds", summary.manifests, summary.manifests_pruned);
        }
        pruned("files_pruned_bounds", summary.files, summary.files_pruned);
        Self {
            parquet: Arc::new(parquet),
            field_ids,
            summary: Arc::new(summary),
            uncertain: uncertain.into(),
            spread: spread.into(),
        }
    }

    /// Whether to read the other columns only for rows that the filters accept. That pays many times over where few rows
    /// are left of columns that are many; where it does not, evaluating filters page by page costs up to twice the time.
    fn materialises_late(&self, filters: &[Arc<dyn PhysicalExpr>]) -> bool {
        let filtered: HashSet<usize> = filters.iter().flat_map(collect_columns).map(|column| column.index()).collect();
        let projected = self.projection().map(ProjectionExprs::column_indices).unwrap_or_default();
        let others = projected.iter().filter(|column| !filtered.contains(column)).count();
        others > filtered.len() && filters.iter().any(|filter| self.is_needle(filter))
    }

    /// Whether a filter asks for one value, or a few, of a column that has many.
    fn is_needle(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        const FEW: usize = 20;
        let spread = |expr: &Arc<dyn PhysicalExpr>| {
            expr.downcast_ref::<Column>().is_some_and(|column| self.spread.contains(&column.index()))
        };
        if let Some(list) = filter.downcast_ref::<InListExpr>() {
            return !list.negated() && list.list().len() <= FEW && spread(list.expr());
        }
        let Some(binary) = filter.downcast_ref::<BinaryExpr>() else { return false };
        match binary.op() {
            Operator::And => self.is_needle(binary.left()) || self.is_needle(binary.right()),
            Operator::Or => self.is_needle(binary.left()) && self.is_needle(binary.right()),
            Operator::Eq => {
                let value = |expr: &Arc<dyn PhysicalExpr>| expr.is::<Literal>();
                (spread(binary.left()) && value(binary.right())) || (value(binary.left()) && spread(binary.right()))
            }
            _ => false,
        }
    }

    fn with(&self, parquet: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { parquet, ..self.clone() })
    }

    /// Whether the files themselves can evaluate a filter. Columns with fields of their own are left to the filter above:
    /// whether a file can is known only once it is open, and then it is too late to say so.
    fn takes(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let schema = self.table_schema().table_schema();
        collect_columns(filter).iter().all(|column| {
            let nested = schema.field_with_name(column.name()).map_or(true, |field| field.data_type().is_nested());
            !nested && !self.uncertain.contains(&column.index())
        })
    }
}

impl FileSource for TableFileSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.parquet.create_file_opener(store, config, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let own_ways = |file: &PartitionedFile| {
            file.extension::<Arc<PartitionValues>>().is_some() || file.extension::<Arc<FileDeletes>>().is_some()
        };
        if !config.file_groups.iter().flat_map(FileGroup::files).any(own_ways) {
            return self.parquet.create_morselizer(store, config, partition);
        }
        let mut own = config.clone();
        // The files come one by one.
        own.file_groups.clear();
        if self.summary.files_with_deletes > 0 {
            // Below a limit whole row groups are chosen by their row counts, and selections within them are forgotten. The
            // stream above the files stops at the limit all the same.
            own.limit = None;
        }
        let plain = self.parquet.create_morselizer(store.clone(), &own, partition)?.into();
        let Self { parquet, field_ids, .. } = self.clone();
        Ok(Box::new(FileByFile { parquet, field_ids, store, config: own, partition, plain }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.with(self.parquet.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        "iceberg"
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScanSummary { manifests, manifests_pruned, files, files_pruned, files_with_deletes } =
            self.summary.as_ref();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                if *manifests > 0 {
                    write!(f, ", manifests={}/{manifests}", manifests - manifests_pruned)?;
                }
                write!(f, ", files={}/{files}", files - files_pruned)?;
                if *files_with_deletes > 0 {
                    write!(f, ", files_with_deletes={files_with_deletes}")?;
                }
            }
            DisplayFormatType::TreeRender => writeln!(f, "files={}/{files}", files - files_pruned)?,
        }
        self.parquet.fmt_extra(format, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.parquet.supports_repartitioning()
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let takes: Vec<bool> = filters.iter().map(|filter| self.takes(filter)).collect();
        let taken: Vec<_> =
            filters.into_iter().zip(&takes).filter(|(_, takes)| **takes).map(|(filter, _)| filter).collect();
        let late = match self.parquet.downcast_ref::<ParquetSource>() {
            Some(parquet) if self.materialises_late(&taken) => {
                Some(parquet.clone().with_pushdown_filters(true).with_reorder_filters(true))
            }
            _ => None,
        };
        let pushed = match late {
            Some(late) => late.try_pushdown_filters(taken, config)?,
            None => self.parquet.try_pushdown_filters(taken, config)?,
        };
        let mut answers = pushed.filters.into_iter();
        let answer = |takes: &bool| if *takes { answers.next().unwrap_or(PushedDown::No) } else { PushedDown::No };
        Ok(FilterPushdownPropagation {
            filters: takes.iter().map(answer).collect(),
            updated_node: pushed.updated_node.map(|parquet| self.with(parquet)),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        eq_properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.parquet.try_pushdown_sort(order, eq_properties)? {
            SortOrderPushdownResult::Exact { inner } => SortOrderPushdownResult::Exact { inner: self.with(inner) },
            SortOrderPushdownResult::Inexact { inner } => SortOrderPushdownResult::Inexact { inner: self.with(inner) },
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.parquet.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self.parquet.try_pushdown_projection(projection)?.map(|parquet| self.with(parquet)))
    }
}

/// Opens each file with what its partition gives, once its deletes are read.
struct FileByFile {
    parquet: Arc<dyn FileSource>,
    field_ids: Arc<FieldIds>,
    store: Arc<dyn ObjectStore>,
    config: FileScanConfig,
    partition: usize,
    /// For files whose partitions give nothing.
    plain: Arc<dyn Morselizer>,
}

impl fmt::Debug for FileByFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileByFile").field(&self.plain).finish()
    }
}

impl FileByFile {
    fn morselizer(&self, file: &PartitionedFile) -> Result<Arc<dyn Morselizer>> {
        let Some(partition) = file.extension::<Arc<PartitionValues>>().cloned() else { return Ok(self.plain.clone()) };
        let mut config = self.config.clone();
        config.expr_adapter_factory = Some(Arc::new(FileFields { field_ids: self.field_ids.clone(), partition }));
        Ok(self.parquet.create_morselizer(self.store.clone(), &config, self.partition)?.into())
    }
}

impl Morselizer for FileByFile {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let inner = self.morselizer(&file)?;
        match file.extension::<Arc<FileDeletes>>().cloned() {
            None => inner.plan_file(file),
            Some(deletes) => Ok(Box::new(ReadDeletes { inner, file, deletes })),
        }
    }
}

#[derive(Debug)]
struct ReadDeletes {
    inner: Arc<dyn Morselizer>,
    file: PartitionedFile,
    deletes: Arc<FileDeletes>,
}

impl MorselPlanner for ReadDeletes {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { inner, file, deletes } = *self;
        Ok(Some(MorselPlan::new().with_pending_planner(async move {
            let selection = deletes.access_plan().await?;
            inner.plan_file(file.with_extension(selection))
        })))
    }
}
