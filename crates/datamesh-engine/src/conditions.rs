//! SQL conditions on rows: compiled by the engine once, evaluated batch by batch.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ident};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datamesh_core::quality::{RULE_COMPLETE_IF, RULE_CONDITION};
use datamesh_core::{ErrorCode, Table};
use datamesh_quality::RowFilter;
use datamesh_quality::values::shorten;

use crate::arithmetic::{check_arithmetic, sign_differences};
use crate::error::{arrow, unwrap};
use crate::times;

/// A condition that every row must meet.
#[derive(Debug)]
pub(crate) struct Condition {
    /// The rule's word: `condition` or `completeIf`.
    pub(crate) rule: &'static str,
    /// What reasons name: the condition's name, or the column.
    pub(crate) name: String,
    /// True for a good row, false for a bad one, null for one that is not judged.
    pub(crate) expression: Arc<dyn PhysicalExpr>,
}

/// A problem with SQL in a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlProblem {
    /// What it is part of: ``condition `x` ``, ``rule `y` ``.
    pub place: String,
    /// The SQL.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

fn describe(error: DataFusionError) -> String {
    unwrap(ErrorCode::InvalidManifest, "it cannot be used", error).to_string()
}

/// Parses a condition on one row.
pub(crate) fn parse(context: &SessionContext, condition: &str, schema: &DFSchema) -> Result<Expr, String> {
    one_row(context.parse_sql_expr(condition, schema).map_err(describe)?)
}

/// The expression, where it looks at one row only.
pub(crate) fn one_row(expression: Expr) -> Result<Expr, String> {
    let forbidden = expression
        .exists(|expression| {
            Ok(matches!(
                expression,
                Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::SetComparison(_)
                    | Expr::Placeholder(_)
                    | Expr::ScalarVariable(..)
                    | Expr::Unnest(_)
            ))
        })
        .map_err(describe)?;
    if forbidden || expression.is_volatile() {
        return Err("a row condition looks at one row: no aggregates, windows, subqueries or random values".to_owned());
    }
    Ok(expression)
}

/// A predicate over batches of `schema`. Functions such as now() are fixed for the whole pass.
fn physical(context: &SessionContext, expression: Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, String> {
    predicate(context, settled(context, expression, schema)?, schema)
}

/// An expression over columns of `schema` with its types settled, simplified.
pub(crate) fn settled(context: &SessionContext, expression: Expr, schema: &Schema) -> Result<Expr, String> {
    let df_schema = DFSchema::try_from(schema.clone()).map_err(describe)?;
    let state = context.state();
    let simplify = SimplifyContext::builder()
        .with_schema(Arc::new(df_schema.clone()))
        .with_config_options(state.config_options().clone())
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(simplify);
    times::keep_microseconds(expression, &df_schema)
        .and_then(|kept| sign_differences(kept.data, &df_schema))
        .and_then(|signed| simplifier.coerce(signed.data, &df_schema))
        .and_then(|coerced| Ok(check_arithmetic(coerced, &df_schema)?.data))
        .and_then(|expression| simplifier.simplify(expression))
        .map_err(describe)
}

/// A settled expression, which must be a boolean, over batches of `schema`.
pub(crate) fn predicate(
    context: &SessionContext,
    expression: Expr,
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>, String> {
    let df_schema = DFSchema::try_from(schema.clone()).map_err(describe)?;
    let physical = context.state().create_physical_expr(expression, &df_schema).map_err(describe)?;
    match physical.data_type(schema).map_err(describe)? {
        DataType::Boolean => Ok(physical),
        other => Err(format!("it is {other}, not a boolean")),
    }
}

/// Compiles one condition.
pub(crate) fn compile(
    context: &SessionContext,
    condition: &str,
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>, String> {
    let df_schema = DFSchema::try_from(schema.clone()).map_err(describe)?;
    physical(context, parse(context, condition, &df_schema)?, schema)
}

/// Compiles every row condition of a table: those of its rules, and the `completeIf` of its columns. What does not
/// compile is told with its place.
pub(crate) fn compile_all(
    context: &SessionContext,
    table: &Table,
    schema: &Schema,
) -> (Vec<Condition>, Vec<SqlProblem>) {
    let (mut conditions, mut problems) = (Vec::new(), Vec::new());
    let df_schema = match DFSchema::try_from(schema.clone()) {
        Ok(df_schema) => df_schema,
        Err(error) => {
            let place = format!("table `{}`", table.name);
            return (conditions, vec![SqlProblem { place, text: String::new(), why: describe(error) }]);
        }
    };
    let mut add =
        |rule, name: &str, place: String, text: &str, compiled: Result<Arc<dyn PhysicalExpr>, String>| match compiled {
            Ok(expression) => conditions.push(Condition { rule, name: name.to_owned(), expression }),
            Err(why) => problems.push(SqlProblem { place, text: text.to_owned(), why }),
        };
    for rule in &table.conditions {
        let place = format!("condition `{}`", rule.name);
        let filter = match &rule.filter {
            Some(filter) => match parse(context, filter, &df_schema).and_then(|parsed| {
                physical(context, parsed.clone(), schema)?;
                Ok(parsed)
            }) {
                Ok(parsed) => Some(parsed),
                Err(why) => {
                    add(RULE_CONDITION, &rule.name, format!("{place}: `where`"), filter, Err(why));
                    continue;
                }
            },
            None => None,
        };
        let compiled = parse(context, &rule.condition, &df_schema).and_then(|parsed| {
            let whole = match filter {
                Some(filter) => Expr::Not(Box::new(filter)).or(parsed.clone()),
                None => parsed.clone(),
            };
            // By itself the condition must be a boolean too.
            physical(context, parsed, schema)?;
            physical(context, whole, schema)
        });
        add(RULE_CONDITION, &rule.name, place, &rule.condition, compiled);
    }
    for column in &table.columns {
        let Some(condition) = &column.constraints.complete_if else { continue };
        let compiled = parse(context, condition, &df_schema).and_then(|parsed| {
            physical(context, parsed.clone(), schema)?;
            physical(context, Expr::Not(Box::new(parsed)).or(ident(&column.name).is_not_null()), schema)
        });
        let place = format!("`completeIf` of column `{}`", column.name);
        add(RULE_COMPLETE_IF, &column.name, place, condition, compiled);
    }
    (conditions, problems)
}

/// A column as conditions compare it: Arrow's comparisons tell -0.0 from 0.0, which are one number.
fn with_one_zero(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let numbers = array.as_primitive::<Float32Type>();
            if !numbers.values().iter().any(|number| number.to_bits() == (-0.0_f32).to_bits()) {
                return array.clone();
            }
            Arc::new(numbers.unary::<_, Float32Type>(|number| number + 0.0))
        }
        DataType::Float64 => {
            let numbers = array.as_primitive::<Float64Type>();
            if !numbers.values().iter().any(|number| number.to_bits() == (-0.0_f64).to_bits()) {
                return array.clone();
            }
            Arc::new(numbers.unary::<_, Float64Type>(|number| number + 0.0))
        }
        _ => array.clone(),
    }
}

/// The columns of a batch as conditions compare them. What is stored keeps its sign.
pub(crate) fn compared(batch: &RecordBatch) -> datamesh_core::Result<RecordBatch> {
    let columns = batch.columns().iter().map(with_one_zero).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(arrow)
}

/// A rule's `where`, or the condition of a rule that counts, compiled over just the columns it looks at.
#[derive(Debug)]
pub(crate) struct Filter {
    columns: Vec<String>,
    schema: SchemaRef,
    expression: Arc<dyn PhysicalExpr>,
    /// An error's text can quote a value, so it is kept back where a column is protected.
    quiet: bool,
}

impl Filter {
    pub(crate) fn compile(
        context: &SessionContext,
        condition: &str,
        schema: &Schema,
        quiet: bool,
    ) -> Result<Self, String> {
        let df_schema = DFSchema::try_from(schema.clone()).map_err(describe)?;
        let parsed = parse(context, condition, &df_schema)?;
        let mut columns: Vec<String> = parsed.column_refs().iter().map(|column| column.name.clone()).collect();
        columns.sort_unstable();
        columns.dedup();
        let fields: Result<Vec<_>, _> = columns.iter().map(|name| schema.field_with_name(name).cloned()).collect();
        let own = Schema::new(fields.map_err(|error| error.to_string())?);
        let expression = physical(context, parsed, &own)?;
        Ok(Self { columns, schema: Arc::new(own), expression, quiet })
    }

    /// The rows that a rule judges: those where the condition is true, or cannot be computed.
    pub(crate) fn judged(&self, batch: &RecordBatch) -> BooleanBuffer {
        self.select(batch).unwrap_or_else(|_| {
            BooleanBuffer::collect_bool(batch.num_rows(), |row| match self.select(&batch.slice(row, 1)) {
                Ok(selected) => selected.value(0),
                Err(_) => true,
            })
        })
    }
}

impl RowFilter for Filter {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn select(&self, batch: &RecordBatch) -> Result<BooleanBuffer, String> {
        let truth = self.truth(batch, "`where`")?;
        Ok(match truth.nulls() {
            Some(nulls) => nulls.inner() & truth.values(),
            None => truth.values().clone(),
        })
    }

    fn fails(&self, batch: &RecordBatch) -> Result<BooleanBuffer, String> {
        let truth = self.truth(batch, "the condition")?;
        Ok(match truth.nulls() {
            Some(nulls) => nulls.inner() & &!truth.values(),
            None => !truth.values(),
        })
    }
}

impl Filter {
    /// What the condition, which errors call `what`, says of each row. Where a part of it cannot be computed for the rows
    /// together, each row is asked by itself: another part may settle it.
    fn truth(&self, batch: &RecordBatch, what: &str) -> Result<BooleanArray, String> {
        let together = self.truth_of_all(batch, what);
        if together.is_ok() || batch.num_rows() < 2 {
            return together;
        }
        let truth = |row| {
            let one = self.truth_of_all(&batch.slice(row, 1), what)?;
            Ok::<_, String>(one.is_valid(0).then(|| one.value(0)))
        };
        (0..batch.num_rows()).map(truth).collect()
    }

    fn truth_of_all(&self, batch: &RecordBatch, what: &str) -> Result<BooleanArray, String> {
        let fail = |error: String| {
            if self.quiet {
                format!("{what} cannot be computed; its error could quote protected values")
            } else {
                format!("{what} cannot be computed: {}", shorten(&error))
            }
        };
        let column =
            |name: &String| batch.column_by_name(name).map(with_one_zero).ok_or_else(|| format!("no column `{name}`"));
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let own = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| fail(error.to_string()))?;
        let array = self
            .expression
            .evaluate(&own)
            .and_then(|value| value.into_array(own.num_rows()))
            .map_err(|error| fail(error.strip_backtrace()))?;
        array.as_boolean_opt().cloned().ok_or_else(|| format!("{what} is not a boolean"))
    }
}
