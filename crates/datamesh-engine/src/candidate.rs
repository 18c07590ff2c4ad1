//! Metric rules that need the candidate tables themselves: duplicates and SQL.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::catalog::TableProvider;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::TableReference;
use datamesh_core::quality::{Metric, MetricRule};
use datamesh_core::{ErrorCode, Result, Table};

use crate::error::unwrap;

/// Registers a candidate under its table's SQL name.
pub(crate) fn register(context: &SessionContext, table: &str, candidate: Arc<dyn TableProvider>) -> Result<()> {
    let done = context.register_table(TableReference::bare(table), candidate);
    done.map(|_| ()).map_err(|error| unwrap(ErrorCode::Internal, "cannot look at the candidate", error))
}

/// Measures the deferred rules of a table; `quiet` keeps the texts of errors back. A rule that fails says why; it does not stop the others.
pub(crate) async fn measure(
    context: &SessionContext,
    table: &Table,
    rules: &[MetricRule],
    quiet: bool,
) -> HashMap<String, Result<f64, String>> {
    let mut measured = HashMap::new();
    for rule in rules {
        let sql = match &rule.metric {
            Metric::DuplicateValues { columns } => duplicates(table, columns),
            Metric::Sql { query } => substitute(query, &quote(&table.name.sql())),
            _ => continue,
        };
        let answer = number(context, &sql).await;
        // An engine's error can quote a value, so its text is kept only where no column is protected.
        let answer = answer.map_err(|why| {
            if quiet { "the query failed; its error could quote protected values".to_owned() } else { why }
        });
        measured.insert(rule.name.clone(), answer);
    }
    measured
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn substitute(query: &str, object: &str) -> String {
    query.replace("${object}", object).replace("{object}", object).replace("${table}", object)
}

fn duplicates(table: &Table, columns: &[String]) -> String {
    let object = quote(&table.name.sql());
    let names: Vec<String> = columns.iter().map(|column| quote(column)).collect();
    let whole = names.iter().map(|name| format!("{name} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
    let list = names.join(", ");
    format!(
        "SELECT (SELECT count(*) FROM {object} WHERE {whole}) - (SELECT count(*) FROM (SELECT DISTINCT {list} FROM {object} WHERE {whole}))"
    )
}

/// Runs a query that must answer one number.
async fn number(context: &SessionContext, sql: &str) -> Result<f64, String> {
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let describe = |error| unwrap(ErrorCode::InvalidQuery, "the query failed", error).to_string();
    let frame = context.sql_with_options(sql, read_only).await.map_err(describe)?;
    let frame = frame.limit(0, Some(2)).map_err(describe)?;
    let batches = frame.collect().await.map_err(describe)?;
    let rows: usize = batches.iter().map(datafusion::arrow::array::RecordBatch::num_rows).sum();
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Err("the query must answer one row, but it answered none".into());
    };
    if rows != 1 || batch.num_columns() != 1 {
        return Err(format!(
            "the query must answer one number, but it answered {rows} or more rows of {} columns",
            batch.num_columns()
        ));
    }
    let array = batch.column(0);
    if !(array.data_type().is_numeric() || *array.data_type() == DataType::Boolean) {
        return Err(format!("the query must answer a number, but it answered {}", array.data_type()));
    }
    let array = cast(array, &DataType::Float64).map_err(|error| error.to_string())?;
    if array.is_null(0) {
        return Err("the query answered null".into());
    }
    Ok(array.as_primitive::<Float64Type>().value(0))
}

/// A context of its own for the rules of one attempt.
pub(crate) fn deferred(table: &crate::settle::SettledTable) -> Vec<MetricRule> {
    table.audit.metrics.deferred().cloned().collect()
}
