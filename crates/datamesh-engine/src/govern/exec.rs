//! The operator that everything governed is read through. To the optimizer, and to whoever looks at a plan, it is a leaf:
//! what is below never shows.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute::{BatchCoalescer, FilterBuilder};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterPushdownResult, ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SortOrderPushdownResult,
};
use datamesh_core::{Error, ErrorCode};
use futures::{Stream, StreamExt, ready};

use super::filter::Condition;
use super::harmless::{is_harmless_physical, with_columns};
use super::show::{Rows, Show};
use crate::scan::Conversion;

/// Where a column of a row filter comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A column of the batches below.
    Batch(usize, Conversion),
    /// That state of the table does not have it.
    Missing(DataType),
}

impl Source {
    /// The column below.
    pub(super) fn batch(&self) -> Option<usize> {
        match self {
            Self::Batch(at, _) => Some(*at),
            Self::Missing(_) => None,
        }
    }
}

/// One way in, over the batches below.
#[derive(Clone, Debug)]
pub(super) enum WayRows {
    All,
    None,
    Some(Arc<Condition>, Vec<Source>),
}

/// What becomes of a batch.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) table: String,
    /// Describes what was decided.
    pub(super) access: String,
    pub(super) schema: SchemaRef,
    pub(super) ways: Vec<WayRows>,
    /// The columns that are shown, by their position below.
    pub(super) columns: Vec<(usize, Show)>,
    /// Whether a reader's harmless predicates may be handed down.
    pub(super) pushes: bool,
}

impl Program {
    /// Whether every row below is seen.
    fn sees_all(&self) -> bool {
        self.ways.iter().any(|way| matches!(way, WayRows::All))
    }

    fn run(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let count = batch.num_rows();
        let mut ways = self.ways.iter().map(|way| self.admitted(way, batch)).collect::<Result<Vec<_>>>()?;
        let mut rows = count;
        let filter = match Rows::any(ways.iter().map(|rows| (rows, true))) {
            Rows::All => None,
            Rows::None => return Ok(RecordBatch::new_empty(self.schema.clone())),
            Rows::Some(admitted) => {
                rows = admitted.count_set_bits();
                let admitted = BooleanArray::new(admitted, None);
                let builder = FilterBuilder::new(&admitted);
                Some(if self.columns.len() > 1 { builder.optimize().build() } else { builder.build() })
            }
        };
        if let Some(filter) = &filter {
            if let [only] = ways.as_mut_slice() {
                *only = Rows::All;
            }
            for way in &mut ways {
                if let Rows::Some(own) = way {
                    let kept = filter.filter(&BooleanArray::new(own.clone(), None))?;
                    *way = Rows::of(datafusion::arrow::array::AsArray::as_boolean(&kept).values().clone());
                }
            }
        }
        let columns = self.columns.iter().zip(self.schema.fields()).map(|((at, show), field)| {
            let column = batch.column(*at);
            let column = match &filter {
                Some(filter) => filter.filter(column)?,
                None => column.clone(),
            };
            show.apply(&column, field, &ways)
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    fn admitted(&self, way: &WayRows, batch: &RecordBatch) -> Result<Rows> {
        let (condition, sources) = match way {
            WayRows::All => return Ok(Rows::All),
            WayRows::None => return Ok(Rows::None),
            WayRows::Some(condition, sources) => (condition, sources),
        };
        let count = batch.num_rows();
        let column = |source: &Source| match source {
            Source::Batch(at, conversion) => conversion.apply(batch.column(*at)),
            Source::Missing(data_type) => Ok(new_null_array(data_type, count)),
        };
        let columns = sources.iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Rows::of(condition.admits(&self.table, columns, count)?))
    }
}

/// Hides what a failure below would tell: paths, and values that do not fit.
pub(super) fn conceal(table: &str, error: &DataFusionError) -> DataFusionError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut code = ErrorCode::SourceUnreadable;
    while let Some(inner) = source {
        if let Some(own) = inner.downcast_ref::<Error>() {
            // A row filter that fails says so itself.
            if own.code() == ErrorCode::InvalidManifest {
                return crate::error::wrap(own.restate());
            }
            code = own.code();
            break;
        }
        if let Some(DataFusionError::ResourcesExhausted(_)) = inner.downcast_ref::<DataFusionError>() {
            let message = "the query needs more memory than it may take".to_owned();
            return DataFusionError::ResourcesExhausted(message);
        }
        source = match inner.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => inner.source(),
        };
    }
    let error = Error::new(code, format!("the files of table `{table}` cannot be read"));
    crate::error::wrap(error.with_help("who sees the whole table is told why: ask the product's owner to read it"))
}

/// A governed scan.
pub(super) struct GovernedExec {
    inner: Arc<dyn ExecutionPlan>,
    program: Arc<Program>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// Without what is below: plans are printed into errors.
impl fmt::Debug for GovernedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GovernedExec").field("table", &self.program.table).finish_non_exhaustive()
    }
}

impl GovernedExec {
    pub(super) fn new(inner: Arc<dyn ExecutionPlan>, program: Arc<Program>) -> Self {
        let partitions = inner.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(program.schema.clone()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { inner, program, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// What is below.
    #[cfg(test)]
    pub(super) fn inner(&self) -> &Arc<dyn ExecutionPlan> {
        &self.inner
    }

    fn over(&self, inner: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(inner, self.program.clone()))
    }

    /// The column below of one that is in clear in every row.
    fn below(&self, column: &Column) -> Option<Column> {
        match self.program.columns.get(column.index())? {
            (at, Show::Clear) => Some(Column::new(self.inner.schema().field(*at).name(), *at)),
            _ => None,
        }
    }
}

/// Hands predicates to a leaf, which takes what it can.
pub(super) fn hand_down(
    inner: &Arc<dyn ExecutionPlan>,
    phase: FilterPushdownPhase,
    filters: Vec<Arc<dyn datafusion::physical_expr::PhysicalExpr>>,
    config: &ConfigOptions,
) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
    let parent = |filter| ChildFilterPushdownResult { filter, child_results: Vec::new() };
    let result =
        ChildPushdownResult { parent_filters: filters.into_iter().map(parent).collect(), self_filters: Vec::new() };
    inner.handle_child_pushdown_result(phase, result, config)
}

impl DisplayAs for GovernedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { table, access, .. } = self.program.as_ref();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "GovernedScan: table={table}, access={access}")
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={table}")?;
                writeln!(f, "access={access}")
            }
        }
    }
}

impl ExecutionPlan for GovernedExec {
    fn name(&self) -> &'static str {
        "GovernedScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.over(self.inner.clone().reset_state()?))
    }

    fn repartitioned(&self, target: usize, config: &ConfigOptions) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(self.inner.repartitioned(target, config)?.map(|inner| self.over(inner)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let size = context.session_config().batch_size();
        let input = self.inner.execute(partition, context).map_err(|error| conceal(&self.program.table, &error))?;
        let coalescer = (!self.program.sees_all()).then(|| {
            BatchCoalescer::new(self.program.schema.clone(), size).with_biggest_coalesce_batch_size(Some(size / 2))
        });
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        Ok(Box::pin(GovernedStream { input, program: self.program.clone(), coalescer, rows, ended: false }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let mut seen = Statistics::new_unknown(&self.program.schema);
        if !self.program.sees_all() {
            return Ok(Arc::new(seen));
        }
        let below = self.inner.partition_statistics(partition)?;
        seen.num_rows = below.num_rows;
        let columns = self.program.columns.iter().map(|(at, show)| match show {
            Show::Clear => below.column_statistics.get(*at).cloned(),
            _ => None,
        });
        seen.column_statistics = columns.map(|column| column.unwrap_or_else(ColumnStatistics::new_unknown)).collect();
        seen.calculate_total_byte_size(&self.program.schema);
        Ok(Arc::new(seen))
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let filters: Vec<_> = result.parent_filters.into_iter().map(|parent| parent.filter).collect();
        let clear = |at: usize| matches!(self.program.columns.get(at), Some((_, Show::Clear)));
        let takes = |filter| self.program.pushes && is_harmless_physical(filter, &self.program.schema, &clear);
        let taken: Vec<bool> = filters.iter().map(takes).collect();
        let moved = filters.iter().zip(&taken).filter(|(_, taken)| **taken);
        let moved = moved.map(|(filter, _)| with_columns(filter.clone(), &|column| self.below(column)));
        let moved = moved.collect::<Result<Vec<_>>>()?;
        if moved.is_empty() {
            return Ok(FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; taken.len()]));
        }
        let pushed = hand_down(&self.inner, phase, moved, config)?;
        let mut answers = pushed.filters.into_iter();
        let answer = |taken: &bool| if *taken { answers.next().unwrap_or(PushedDown::No) } else { PushedDown::No };
        Ok(FilterPushdownPropagation {
            filters: taken.iter().map(answer).collect(),
            updated_node: pushed.updated_node.map(|inner| self.over(inner)),
        })
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let mut below = Vec::with_capacity(order.len());
        for wanted in order {
            let Some(column) = wanted.expr.downcast_ref::<Column>().and_then(|column| self.below(column)) else {
                return Ok(SortOrderPushdownResult::Unsupported);
            };
            below.push(PhysicalSortExpr::new(Arc::new(column), wanted.options));
        }
        Ok(match self.inner.try_pushdown_sort(&below)? {
            SortOrderPushdownResult::Exact { inner } | SortOrderPushdownResult::Inexact { inner } => {
                SortOrderPushdownResult::Inexact { inner: self.over(inner) }
            }
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }
}

struct GovernedStream {
    input: SendableRecordBatchStream,
    program: Arc<Program>,
    /// Puts small batches together, where rows are left out.
    coalescer: Option<BatchCoalescer>,
    rows: Count,
    ended: bool,
}

impl GovernedStream {
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(batch) = self.coalescer.as_mut().and_then(BatchCoalescer::next_completed_batch) {
                return Poll::Ready(Some(Ok(batch)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let batch = match ready!(self.input.poll_next_unpin(context)) {
                Some(Ok(batch)) => self.program.run(&batch),
                Some(Err(error)) => Err(error),
                None => {
                    self.ended = true;
                    if let Some(coalescer) = &mut self.coalescer {
                        coalescer.finish_buffered_batch()?;
                    }
                    continue;
                }
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.ended = true;
                    self.coalescer = None;
                    return Poll::Ready(Some(Err(conceal(&self.program.table, &error))));
                }
            };
            match &mut self.coalescer {
                Some(coalescer) => coalescer.push_batch(batch)?,
                None => return Poll::Ready(Some(Ok(batch))),
            }
        }
    }
}

impl Stream for GovernedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll_input(context);
        if let Poll::Ready(Some(Ok(batch))) = &polled {
            self.rows.add(batch.num_rows());
        }
        polled
    }
}

impl RecordBatchStream for GovernedStream {
    fn schema(&self) -> SchemaRef {
        self.program.schema.clone()
    }
}
