//! Transforms: a query over the tables of other products, planned over what is published or over contracts alone.
//!
//! [`logical_plan`] is the one place where a transform's text becomes a plan; checks, runs, tests and lineage start there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use datafusion::arrow::datatypes::{DataType as Arrow, Schema};
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::Span;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::TableReference;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use datamesh_app::ports::{PinnedTable, TransformInput, TransformReads};
use datamesh_app::run::declared;
use datamesh_core::contract::{DataProduct, TransformSpec, WriteMode};
use datamesh_core::lineage::{ColumnLineage, Dataset, FieldPath};
use datamesh_core::transform::{CHANGES_SUFFIX, TableRead, expand_changes};
use datamesh_core::{Error, ErrorCode, Level, Result, Table};
use datamesh_quality::arrow_types::arrow_field;
use twox_hash::XxHash3_128;

use crate::DataEngine;
use crate::error::unwrap;
use crate::files::{FilesTable, ScanFile};
use crate::lineage::column_lineage;
use crate::source::{MissingRequired, QueryExec, TableLayout, fits, match_columns};
use crate::statement::settle;

/// Tables by the name that a transform gives them; those read for their changes have a name of their own.
pub(crate) type InputTables = Vec<(TableRead, Arc<dyn TableProvider>)>;

/// Parses a transform, which is one SELECT.
fn statement(state: &SessionState, transform: &TransformSpec) -> Result<Statement, DataFusionError> {
    let sql = expand_changes(&transform.sql).map_err(DataFusionError::Plan)?;
    let dialect = state.config().options().sql_parser.dialect;
    let mut statement = state.sql_to_statement(&sql, &dialect)?;
    settle(&mut statement)?;
    match &statement {
        Statement::Statement(inner) if matches!(inner.as_ref(), ast::Statement::Query(_)) => Ok(statement),
        _ => Err(DataFusionError::Plan("a transform is one SELECT".into())),
    }
}

/// The tables with full names that a statement reads, each once.
fn named_tables(state: &SessionState, statement: &Statement) -> Result<Vec<TableRead>, DataFusionError> {
    let mut reads = BTreeSet::new();
    for reference in state.resolve_table_references(statement)? {
        let TableReference::Full { catalog, schema, table } = reference else { continue };
        let (table, changes) = match table.strip_suffix(CHANGES_SUFFIX) {
            Some(table) => (table, true),
            None => (table.as_ref(), false),
        };
        reads.insert(TableRead {
            domain: catalog.to_string(),
            product: schema.to_string(),
            table: table.to_owned(),
            changes,
        });
    }
    Ok(reads.into_iter().collect())
}

/// What a transform's text says that it reads.
pub(crate) fn reads(context: &SessionContext, transform: &TransformSpec) -> Result<TransformReads> {
    let state = context.state();
    let read = statement(&state, transform).and_then(|statement| named_tables(&state, &statement));
    let tables = read.map_err(|error| unwrap(ErrorCode::InvalidQuery, "the transform is no query", error))?;
    let hash = format!("xxh3-1:{:032x}", XxHash3_128::oneshot(transform.sql.as_bytes()));
    Ok(TransformReads { tables, hash })
}

/// A session that knows these tables and no others, and whose clock stands still.
pub(crate) fn session(context: &SessionContext, now: DateTime<Utc>, tables: InputTables) -> Result<SessionState> {
    let mut schemas: BTreeMap<(String, String), Arc<MemorySchemaProvider>> = BTreeMap::new();
    let fail = |error| unwrap(ErrorCode::Internal, "cannot register the inputs", error);
    for (read, provider) in tables {
        let schema = schemas.entry((read.domain, read.product)).or_default();
        let name = if read.changes { format!("{}{CHANGES_SUFFIX}", read.table) } else { read.table };
        schema.register_table(name, provider).map_err(fail)?;
    }
    let mut catalogs: BTreeMap<String, Arc<MemoryCatalogProvider>> = BTreeMap::new();
    for ((domain, product), schema) in schemas {
        use datafusion::catalog::CatalogProvider;
        catalogs.entry(domain).or_default().register_schema(&product, schema).map_err(fail)?;
    }
    for (domain, catalog) in catalogs {
        context.register_catalog(domain, catalog);
    }
    let mut state = context.state();
    let options = state.config_mut().options_mut();
    options.catalog.information_schema = false;
    options.sql_parser.collect_spans = true;
    // Contract times have microseconds: a finer clock would make values that fit no column.
    state.execution_props_mut().query_execution_start_time = Some(now.trunc_subsecs(6));
    Ok(state)
}

/// The plan of a transform as it is written, over the session's tables: nothing is coerced or optimised.
pub(crate) async fn logical_plan(
    state: &SessionState,
    transform: &TransformSpec,
) -> Result<LogicalPlan, DataFusionError> {
    let plan = state.statement_to_plan(statement(state, transform)?).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    Ok(plan)
}

/// The plan of a transform with types settled: see [`logical_plan`].
pub(crate) async fn analyzed_plan(
    state: &SessionState,
    transform: &TransformSpec,
) -> Result<LogicalPlan, DataFusionError> {
    let plan = logical_plan(state, transform).await?;
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}

/// The plan of a transform over the contracts of what it reads: see [`analyzed_plan`].
pub(crate) async fn contract_plan(
    engine: &DataEngine,
    transform: &TransformSpec,
    tables: &[(TableRead, &Table)],
) -> Result<LogicalPlan, DataFusionError> {
    let empty = |(read, table): &(TableRead, &Table)| -> (TableRead, Arc<dyn TableProvider>) {
        let fields: Vec<_> = table.columns.iter().map(arrow_field).collect();
        (read.clone(), Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))))
    };
    let state = session(&engine.context(), DateTime::UNIX_EPOCH, tables.iter().map(empty).collect())
        .map_err(crate::error::wrap)?;
    analyzed_plan(&state, transform).await
}

/// A pinned table; where only changes are read, its rows since the last run.
async fn open_input(engine: &DataEngine, pinned: &PinnedTable) -> Result<Arc<dyn TableProvider>> {
    let missing = || Error::new(ErrorCode::Internal, "a pinned table has no metadata");
    let table = engine.open(Some(&pinned.pointer))?.ok_or_else(missing)?;
    let Some(since) = pinned.pin.since.filter(|_| pinned.pin.changes) else {
        return engine.open_seen(&input_name(pinned), &table, &pinned.sight).await;
    };
    let files = table.added_since(since).await?;
    let file = |file: datamesh_iceberg::DataFile| ScanFile { url: file.url, bytes: file.bytes, rows: file.rows };
    let files = FilesTable::new(table.arrow_schema()?, files.into_iter().map(file).collect());
    engine.seen(&input_name(pinned), &table, Arc::new(files), &pinned.sight)
}

fn input_name(pinned: &PinnedTable) -> String {
    format!("{}.{}", pinned.pin.product, pinned.pin.table)
}

/// The columns of a plan that the table has; an error where two have the same name.
fn project(plan: LogicalPlan, table: &Table) -> Result<LogicalPlan, DataFusionError> {
    if let Some(name) = doubled(&plan) {
        return Err(DataFusionError::Plan(format!("the query yields two columns named `{name}`")));
    }
    let wanted = |name: &str| table.columns.iter().any(|column| column.name == *name);
    let count = plan.schema().fields().iter().filter(|field| wanted(field.name())).count();
    if count == 0 || count == plan.schema().fields().len() {
        return Ok(plan);
    }
    let columns: Vec<Expr> = plan.schema().iter().filter(|(_, field)| wanted(field.name())).map(Expr::from).collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn doubled(plan: &LogicalPlan) -> Option<String> {
    let mut seen = BTreeSet::new();
    plan.schema().fields().iter().find(|field| !seen.insert(field.name().clone())).map(|field| field.name().clone())
}

/// The physical plan of a transform's rows, with only the table's columns.
pub(crate) async fn physical_plan(
    state: &SessionState,
    transform: &TransformSpec,
    layout: &TableLayout,
) -> Result<Result<Arc<dyn ExecutionPlan>, MissingRequired>, DataFusionError> {
    let plan = analyzed_plan(state, transform).await?;
    let names: Vec<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
    if let Err(missing) = match_columns(layout, &names) {
        return Ok(Err(missing));
    }
    if let Some((column, from)) = misfits(&plan, &layout.table).first() {
        let column_type = &column.data_type;
        let message = format!("the query yields column `{}` as {from}, which is never {column_type}", column.name);
        return Err(DataFusionError::Plan(message));
    }
    let plan = project(plan, &layout.table)?;
    Ok(Ok(state.create_physical_plan(&plan).await?))
}

fn misfits<'t>(plan: &LogicalPlan, table: &'t Table) -> Vec<(&'t datamesh_core::Column, Arrow)> {
    let fields = plan.schema().fields();
    let found = table.columns.iter().filter_map(|column| {
        let field = fields.iter().find(|field| *field.name() == column.name)?;
        (!fits(field.data_type(), &column.data_type)).then(|| (column, field.data_type().clone()))
    });
    found.collect()
}

/// The rows of a transform as a source of its table.
pub(crate) async fn source(
    engine: &DataEngine,
    input: &TransformInput,
    layout: Arc<TableLayout>,
) -> Result<Result<Arc<dyn ExecutionPlan>, MissingRequired>> {
    let mut tables: InputTables = Vec::new();
    for pinned in &input.tables {
        tables.push((named(pinned), open_input(engine, pinned).await?));
    }
    let state = session(&engine.context(), input.now, tables)?;
    let planned = physical_plan(&state, &input.transform, &layout).await;
    let planned = planned.map_err(|error| {
        let doing = format!("the transform of table `{}` cannot be planned", layout.table.name);
        unwrap(ErrorCode::InvalidQuery, &doing, error).with_help("`datamesh check` shows the place")
    })?;
    Ok(planned.map(|plan| -> Arc<dyn ExecutionPlan> { Arc::new(QueryExec::new(layout, plan)) }))
}

/// Where the columns of a transform's table come from, by the pinned versions of what it reads.
pub(crate) async fn lineage(engine: &DataEngine, table: &Table, input: &TransformInput) -> Result<ColumnLineage> {
    let doing = format!("the lineage of table `{}` cannot be read", table.name);
    let mut tables: InputTables = Vec::new();
    for pinned in &input.tables {
        if let Some(open) = engine.open(Some(&pinned.pointer))? {
            let all: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(open.arrow_schema()?));
            let seen = engine.seen(&input_name(pinned), &open, all, &pinned.sight)?;
            tables.push((named(pinned), Arc::new(EmptyTable::new(seen.schema()))));
        }
    }
    let state = session(&engine.context(), input.now, tables)?;
    let plan = logical_plan(&state, &input.transform).await;
    let plan = plan.map_err(|error| unwrap(ErrorCode::InvalidQuery, &doing, error))?;
    let dataset = |reference: &TableReference| {
        let TableReference::Full { catalog, schema, table } = reference else { return Ok(None) };
        let name = table.strip_suffix(CHANGES_SUFFIX).unwrap_or(table);
        let same = |pinned: &&PinnedTable| {
            let product = &pinned.pin.product;
            product.domain == catalog.as_ref() && product.product == schema.as_ref() && pinned.pin.table == name
        };
        let found = input.tables.iter().find(same);
        Ok(found.map(|pinned| Dataset::Table { product: pinned.pin.product.clone(), table: name.to_owned() }))
    };
    let mut lineage = column_lineage(&plan, &dataset)?;
    let is_kept = |field: &FieldPath| table.columns.iter().any(|column| FieldPath::column(&column.name) == *field);
    lineage.fields.retain(|found| is_kept(&found.field));
    Ok(lineage)
}

fn named(pinned: &PinnedTable) -> TableRead {
    TableRead {
        domain: pinned.pin.product.domain.clone(),
        product: pinned.pin.product.product.clone(),
        table: pinned.pin.table.clone(),
        changes: pinned.pin.changes,
    }
}

/// Something wrong with a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformProblem {
    /// How much it matters.
    pub level: Level,
    /// Stable id.
    pub id: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Where.
    pub place: ProblemPlace,
}

/// Where a problem of a transform is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemPlace {
    /// A line and column of the query, both from 1, where they are known.
    Query(Option<(usize, usize)>),
    /// A column of the table's contract.
    Column(String),
}

impl DataEngine {
    /// Checks a table's transform against the contracts of what it reads. `contracts` are those of the product's inputs, as
    /// far as they are known. Also answers what the transform reads.
    pub async fn check_transform(
        &self,
        product: &DataProduct,
        table: &Table,
        contracts: &[&DataProduct],
    ) -> (Vec<TransformProblem>, Vec<TableRead>) {
        let Some(transform) = &table.transform else { return (Vec::new(), Vec::new()) };
        let mut state = self.context().state();
        state.config_mut().options_mut().sql_parser.collect_spans = true;
        let read = statement(&state, transform).and_then(|statement| named_tables(&state, &statement));
        let reads = match read {
            Ok(reads) => reads,
            Err(error) => return (vec![sql_problem(&error)], Vec::new()),
        };
        let mut problems = Vec::new();
        let mut tables: Vec<(TableRead, &Table)> = Vec::new();
        let mut unknown = false;
        for read in &reads {
            let at = ProblemPlace::Query(find_name(&transform.sql, read));
            let input = match declared(product, read) {
                Ok(input) => input,
                Err(error) => {
                    problems.push(problem("undeclared-input", error.to_string(), error.help(), at));
                    continue;
                }
            };
            let Some(contract) = input.choose(contracts.iter().copied()) else {
                unknown = true;
                continue;
            };
            let Some(found) = contract.table(&read.table) else {
                let names: Vec<_> = contract.tables.iter().map(|table| table.name.sql()).collect();
                let help = format!("its tables: {}", names.join(", "));
                let message = format!("`{}` has no table `{}`", contract.id, read.table);
                problems.push(problem("unknown-table", message, Some(&help), at));
                continue;
            };
            if read.changes && found.write != WriteMode::Append {
                let message = format!(
                    "`{{changes({read})}}` needs an input that only grows, but the table's write is {}",
                    found.write.as_str()
                );
                let help = format!("read the whole table as `{read}`");
                problems.push(problem("invalid-changes", message, Some(&help), at));
            }
            tables.push((read.clone(), found));
        }
        if !unknown && problems.is_empty() {
            match contract_plan(self, transform, &tables).await {
                Err(error) => problems.push(sql_problem(&error)),
                Ok(plan) => problems.extend(column_problems(&plan, table)),
            }
        }
        (problems, reads)
    }
}

fn problem(id: &'static str, message: String, help: Option<&str>, place: ProblemPlace) -> TransformProblem {
    TransformProblem { level: Level::Error, id, message, help: help.map(str::to_owned), place }
}

/// What the query yields against what the contract says.
fn column_problems(plan: &LogicalPlan, table: &Table) -> Vec<TransformProblem> {
    let mut problems = Vec::new();
    if let Some(name) = doubled(plan) {
        let message = format!("the query yields two columns named `{name}`");
        let help = "give each a name of its own with AS";
        problems.push(problem("duplicate-column", message, Some(help), ProblemPlace::Query(None)));
    }
    let fields = plan.schema().fields();
    for column in &table.columns {
        if fields.iter().any(|field| *field.name() == column.name) {
            continue;
        }
        let is_required = column.required || column.primary_key;
        let near = fields.iter().find(|field| field.name().eq_ignore_ascii_case(&column.name));
        let (word, level) = if is_required { ("required column", Level::Error) } else { ("column", Level::Warning) };
        problems.push(TransformProblem {
            level,
            id: "missing-column",
            message: format!("the transform does not yield {word} `{}`", column.name),
            help: Some(match near {
                Some(near) => format!("it yields `{}`; names with capitals need double quotes", near.name()),
                None if is_required => "add it to the query's columns".to_owned(),
                None => "add it to the query's columns, else it is null in every row".to_owned(),
            }),
            place: ProblemPlace::Column(column.name.clone()),
        });
    }
    for (column, from) in misfits(plan, table) {
        let message =
            format!("the transform yields column `{}` as {from}, which is never {}", column.name, column.data_type);
        let help = "cast it in the query, or change the column's type";
        problems.push(problem("column-type", message, Some(help), ProblemPlace::Column(column.name.clone())));
    }
    let extra: Vec<&str> =
        fields.iter().map(|field| field.name().as_str()).filter(|name| table.column(name).is_none()).collect();
    if !extra.is_empty() {
        problems.push(TransformProblem {
            level: Level::Warning,
            id: "ignored-column",
            message: format!("the transform yields columns that the contract does not have: {}", extra.join(", ")),
            help: Some("they are left out; declare them below `columns:`, or take them out of the query".to_owned()),
            place: ProblemPlace::Query(None),
        });
    }
    problems
}

/// A failure to plan, with its place where DataFusion knows it.
fn sql_problem(error: &DataFusionError) -> TransformProblem {
    let place = error_place(error);
    let message = match error.find_root() {
        DataFusionError::SQL(inner, _) => inner.to_string(),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) => text.clone(),
        other => other.strip_backtrace(),
    };
    let help = if message.contains("not found") && message.contains("table") {
        Some("a table is named domain.product.table, with `domain/product` below `inputs:`")
    } else {
        None
    };
    problem("invalid-transform", message, help, ProblemPlace::Query(place))
}

/// The place that an error of planning speaks of, where it is known.
pub(crate) fn error_place(error: &DataFusionError) -> Option<(usize, usize)> {
    let spanned = error.iter().find_map(|error| match error {
        DataFusionError::Diagnostic(diagnostic, _) => Some(diagnostic),
        _ => None,
    });
    spanned.and_then(|diagnostic| diagnostic.span).map(start).or_else(|| parser_place(&error.to_string()))
}

fn start(span: Span) -> (usize, usize) {
    (span.start.line as usize, span.start.column as usize)
}

/// The place in the parser's own message: `… at Line: 3, Column: 14`.
fn parser_place(text: &str) -> Option<(usize, usize)> {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let line = number(text.split("Line: ").nth(1)?)?;
    let column = number(text.split("Column: ").nth(1)?)?;
    Some((line, column))
}

/// Where a query first names a table.
fn find_name(sql: &str, read: &TableRead) -> Option<(usize, usize)> {
    let wanted = format!("{}.{}.{}", read.domain, read.product, read.table);
    sql.lines().zip(1..).find_map(|(line, number)| {
        let folded = line.to_ascii_lowercase().replace('"', "");
        let at = folded.find(&wanted)?;
        Some((number, folded[..at].chars().count() + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_passed_over_is_refused() {
        let transform = TransformSpec { sql: "SELECT a FROM d.p.t TABLESAMPLE (10 PERCENT)".to_owned(), file: None };
        let error = reads(&SessionContext::new(), &transform).expect_err("a sample").to_string();
        assert!(error.contains("`TABLESAMPLE` is not supported; filter rows"), "{error}");
    }
}
