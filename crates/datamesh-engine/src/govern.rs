//! Governed tables: what a reader was decided to see of one, built into its scan.
//!
//! Rows are filtered and cells masked in one operator right above the files, [`exec::GovernedExec`]. Nothing of the reader's
//! query runs below it but predicates that cannot fail, over columns that are in clear in every row that is seen.

mod exec;
mod filter;
mod harmless;
mod mask;
mod proof;
mod show;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, ident};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPhase;
use datafusion::prelude::SessionContext;
use datamesh_app::ports::Sight;
use datamesh_core::access::{AccessWay, TableAccess};
use datamesh_core::{Error, ErrorCode, Result};

use self::exec::{GovernedExec, Program, Source, WayRows, conceal, hand_down};
use self::filter::Condition;
pub(crate) use self::filter::check as check_row_filter;
use self::harmless::is_harmless;
pub(crate) use self::mask::MaskKey;
use self::show::{Decision, Show, holds, position};
use crate::scan::{Conversion, Lookup};

/// What governs a table.
pub(crate) struct Governor<'a> {
    /// Compiles row filters, where there are any. It holds no tables.
    pub(crate) context: Option<&'a SessionContext>,
    /// The mesh's secret, where there is one.
    pub(crate) key: Option<&'a MaskKey>,
    /// What errors and plans call the table.
    pub(crate) table: &'a str,
    /// The table's columns as they are now: those that decisions name.
    pub(crate) current: SchemaRef,
    /// Whether what the query's operators count is shown. Then files are left out by none of its predicates: how many rows
    /// were read of a file would tell how many of it are not seen.
    pub(crate) measured: bool,
}

impl Governor<'_> {
    /// A table, in whatever state it is read, as it is seen.
    ///
    /// # Errors
    /// `denied` where nothing of it is seen; a row filter that cannot be applied.
    pub(crate) fn govern(&self, inner: Arc<dyn TableProvider>, sight: &Sight) -> Result<Arc<dyn TableProvider>> {
        let access = &sight.access;
        if access.ways.is_empty() {
            let message = format!("nothing of table `{}` may be seen", self.table);
            return Err(Error::new(ErrorCode::Denied, message).with_help("see `datamesh access request`"));
        }
        let schema = inner.schema();
        let whole = |field: &FieldRef| position(self.current.fields(), field).is_some_and(|now| holds(now, field));
        let nothing_gone = schema.fields().iter().all(whole);
        if access.ways.iter().any(|way| way.is_plain() && (way.removed || nothing_gone)) {
            return Ok(inner);
        }
        let Some(contract) = &sight.contract else {
            return Err(Error::new(ErrorCode::Internal, "a decision on a table came without its contract"));
        };
        let decision = Decision { access, contract: &contract.columns, current: &self.current, key: self.key };
        let mut columns = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        for (at, field) in schema.fields().iter().enumerate() {
            let shown = decision.column(field).map_err(|_| {
                let message = format!("table `{}` has hashed columns, but the mesh's secret is not there", self.table);
                Error::new(ErrorCode::Internal, message)
            })?;
            if let Some(show) = shown {
                fields.push(show.field(field));
                columns.push((at, show));
            }
        }
        let ways = access.ways.iter().map(|way| self.way(way, &schema)).collect::<Result<Vec<_>>>()?;
        let harmless = ways.iter().all(|way| match way {
            Way::Rows(condition, _) => {
                let column =
                    |name: &str| Some(condition.columns.iter().find(|own| own.name() == name)?.data_type().clone());
                is_harmless(&condition.logical, &column)
            }
            Way::All | Way::None => true,
        });
        Ok(Arc::new(GovernedTable {
            name: self.table.to_owned(),
            access: describe(access),
            schema: Arc::new(Schema::new(fields)),
            inner,
            columns,
            ways,
            pushes: harmless && !self.measured,
        }))
    }

    fn way(&self, way: &AccessWay, schema: &SchemaRef) -> Result<Way> {
        let Some(filter) = &way.rows else { return Ok(Way::All) };
        let missing = || Error::new(ErrorCode::Internal, "a row filter came without a session that compiles it");
        let context = self.context.ok_or_else(missing)?;
        let Some(condition) = Condition::compile(context, self.table, filter, &self.current)? else {
            return Ok(Way::None);
        };
        match &condition.logical {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => return Ok(Way::All),
            Expr::Literal(ScalarValue::Boolean(_), _) => return Ok(Way::None),
            _ => {}
        }
        let source = |wanted: &FieldRef| {
            let Some(found) = position(schema.fields(), wanted) else {
                return Ok(Source::Missing(wanted.data_type().clone()));
            };
            let missing = |field: &datafusion::arrow::datatypes::Field| ScalarValue::try_new_null(field.data_type());
            let conversion = Conversion::plan(found, wanted, Lookup::OwnIds, &missing).map_err(|_| {
                let message = format!("the row filter of table `{}` does not fit that version of it", self.table);
                Error::new(ErrorCode::InvalidManifest, message)
            })?;
            let at = schema.fields().iter().position(|field| Arc::ptr_eq(field, found));
            at.map(|at| Source::Batch(at, conversion))
                .ok_or_else(|| Error::new(ErrorCode::Internal, "a column of a row filter is lost"))
        };
        let sources = condition.columns.iter().map(source).collect::<Result<Vec<_>>>()?;
        Ok(Way::Rows(Arc::new(condition), sources))
    }
}

/// What a plan says of a decision: nothing of columns that are hidden, as they are not there for the reader.
fn describe(access: &TableAccess) -> String {
    let mut told = access.clone();
    for way in &mut told.ways {
        way.masked.retain(|path| !path.first().is_some_and(|name| access.is_hidden(name)));
        way.hidden.retain(|name| !access.is_hidden(name));
    }
    told.to_string()
}

/// One way in. Columns of its filter are those of the table below.
#[derive(Debug)]
enum Way {
    All,
    None,
    Rows(Arc<Condition>, Vec<Source>),
}

impl Way {
    /// A condition of it over the table below, where it can be said of that.
    fn below(&self, expr: &Expr, schema: &SchemaRef) -> Option<Expr> {
        let Self::Rows(condition, sources) = self else { return None };
        let mut names = Vec::with_capacity(sources.len());
        for (column, source) in condition.columns.iter().zip(sources) {
            match source {
                Source::Batch(at, Conversion::Same) => names.push((column.name(), schema.field(*at))),
                _ => return None,
            }
        }
        let moved = expr.clone().transform(|expr| {
            let found = match &expr {
                Expr::Column(column) => names.iter().find(|(name, _)| **name == column.name),
                _ => None,
            };
            Ok(match found {
                Some((_, field)) => Transformed::yes(ident(field.name())),
                None => Transformed::no(expr),
            })
        });
        let moved = moved.data().ok()?;
        let column = |name: &str| Some(schema.field_with_name(name).ok()?.data_type().clone());
        is_harmless(&moved, &column).then_some(moved)
    }
}

/// A table as its reader sees it.
struct GovernedTable {
    name: String,
    access: String,
    schema: SchemaRef,
    inner: Arc<dyn TableProvider>,
    /// What is seen of the columns, by their position in the table below.
    columns: Vec<(usize, Show)>,
    ways: Vec<Way>,
    /// Whether predicates may be handed down: not past a row filter that could fail, or a reader could tell by its failures
    /// which rows there are.
    pushes: bool,
}

impl fmt::Debug for GovernedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GovernedTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl GovernedTable {
    /// Whether a reader's predicate may be evaluated below.
    fn takes(&self, filter: &Expr) -> bool {
        let column = |name: &str| -> Option<DataType> {
            let at = self.schema.index_of(name).ok()?;
            match &self.columns[at] {
                (_, Show::Clear) => Some(self.schema.field(at).data_type().clone()),
                _ => None,
            }
        };
        self.pushes && is_harmless(filter, &column)
    }
}

#[async_trait]
impl TableProvider for GovernedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| {
            if self.takes(filter) {
                TableProviderFilterPushDown::Inexact
            } else {
                TableProviderFilterPushDown::Unsupported
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
        let below = self.inner.schema();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let mut needed: Vec<usize> = wanted.iter().map(|at| self.columns[*at].0).collect();
        for way in &self.ways {
            let Way::Rows(_, sources) = way else { continue };
            needed.extend(sources.iter().filter_map(Source::batch));
        }
        needed.sort_unstable();
        needed.dedup();

        // Every way's filter, where all of them can be said of the table below: then files without such rows are left out.
        let admitted: Option<Vec<Expr>> = self
            .ways
            .iter()
            .filter(|way| !matches!(way, Way::None))
            .map(|way| match way {
                Way::Rows(condition, _) => way.below(&condition.logical, &below),
                _ => None,
            })
            .collect();
        let admitted = admitted.and_then(disjunction);
        let mut pushed: Vec<Expr> = filters.iter().filter(|filter| self.takes(filter)).cloned().collect();
        pushed.extend(admitted.clone());
        let sees_all = self.ways.iter().any(|way| matches!(way, Way::All));
        let plan = self.inner.scan(state, Some(&needed), &pushed, limit.filter(|_| sees_all)).await;
        let mut plan = plan.map_err(|error| conceal(&self.name, &error))?;

        let statistics = plan.partition_statistics(None)?;
        let scanned = plan.schema();
        let df_schema = DFSchema::try_from(scanned.clone())?;
        let place = |at: usize| needed.binary_search(&at).unwrap_or_default();
        let mut ways = Vec::with_capacity(self.ways.len());
        for way in &self.ways {
            ways.push(match way {
                Way::All => WayRows::All,
                Way::None => WayRows::None,
                Way::Rows(condition, sources) => {
                    let opposite = condition.opposite.as_ref().and_then(|expr| way.below(expr, &below));
                    let opposite = opposite.map(|expr| state.create_physical_expr(expr, &df_schema)).transpose()?;
                    let read: Vec<usize> = sources.iter().filter_map(Source::batch).map(place).collect();
                    if opposite.is_some_and(|opposite| proof::never(&opposite, &read, &scanned, &statistics)) {
                        WayRows::All
                    } else {
                        let source = |source: &Source| match source {
                            Source::Batch(at, conversion) => Source::Batch(place(*at), conversion.clone()),
                            missing => missing.clone(),
                        };
                        WayRows::Some(condition.clone(), sources.iter().map(source).collect())
                    }
                }
            });
        }
        if let Some(admitted) = admitted.filter(|_| !ways.iter().any(|way| matches!(way, WayRows::All))) {
            let admitted = state.create_physical_expr(admitted, &df_schema)?;
            let handed = hand_down(&plan, FilterPushdownPhase::Pre, vec![admitted], state.config_options())?;
            plan = handed.updated_node.unwrap_or(plan);
        }
        let program = Program {
            table: self.name.clone(),
            access: self.access.clone(),
            schema: Arc::new(self.schema.project(&wanted)?),
            ways,
            columns: wanted.iter().map(|at| (place(self.columns[*at].0), self.columns[*at].1.clone())).collect(),
            pushes: self.pushes,
        };
        Ok(Arc::new(GovernedExec::new(plan, Arc::new(program))))
    }
}
