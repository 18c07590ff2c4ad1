//! Tests of transforms: fixture rows in, rows out. Nothing is read of the registry or the warehouse.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datamesh_app::Progress;
use datamesh_app::ports::BoundSource;
use datamesh_core::contract::CsvOptions;
use datamesh_core::ports::{PublishStep, StepObserver};
use datamesh_core::transform::TableRead;
use datamesh_core::{Error, ErrorCode, Result, Table};
use datamesh_quality::arrow_types::arrow_field;
use serde_json::Value;

use crate::DataEngine;
use crate::error::{arrow, unwrap};
use crate::source::{Hidden, SourceExec, SourceFacts, TableLayout, convert, json_rows, resolve};
use crate::transform::{InputTables, physical_plan, session};

/// The rows of a fixture.
#[derive(Clone, Debug, PartialEq)]
pub enum GivenRows {
    /// Objects by column.
    Inline(Vec<Value>),
    /// A file, read as a source is.
    File(BoundSource),
}

/// A table as a test gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenTable {
    /// How the query names it.
    pub read: TableRead,
    /// Its contract.
    pub table: Table,
    /// Its rows.
    pub rows: GivenRows,
}

struct Silent;

impl StepObserver for Silent {
    fn reached(&self, _: PublishStep) {}
}

impl Progress for Silent {
    fn read(&self, _: &str, _: u64, _: Option<u64>) {}
}

/// Reads a table's rows without any promise but types: columns that a fixture does not have are null.
fn layout(engine: &DataEngine, table: &Table, source: Option<&BoundSource>) -> Arc<TableLayout> {
    let mut table = table.clone();
    for column in &mut table.columns {
        column.required = false;
        column.primary_key = false;
    }
    let schema = Schema::new(table.columns.iter().map(arrow_field).collect::<Vec<_>>());
    Arc::new(TableLayout {
        facts: Arc::new(SourceFacts::new(table.name.as_str(), None, Arc::new(Silent))),
        table,
        schema: Arc::new(schema),
        csv: source.map_or_else(CsvOptions::default, |source| source.spec.csv.clone()),
        batch_size: engine.batch_size(),
    })
}

/// The columns of source batches without the hidden ones; an error where a row did not fit.
fn plain(layout: &TableLayout, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut found = Vec::new();
    for batch in batches {
        let faults = batch.column_by_name(Hidden::FAULTS).and_then(|array| array.as_string_opt::<i32>());
        if let Some((row, fault)) = faults
            .and_then(|faults| (0..faults.len()).find(|row| faults.is_valid(*row)).map(|row| (row, faults.value(row))))
        {
            let message = format!("row {} of `{}` does not fit the contract: {fault}", row + 1, layout.table.name);
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let count = batch.num_columns() - Hidden::COUNT;
        let columns = (0..count).collect::<Vec<_>>();
        found.push(batch.project(&columns).map_err(arrow)?);
    }
    let (ignored, _) = layout.facts.columns();
    if !ignored.is_empty() {
        let message = format!("`{}` has no column `{}`", layout.table.name, ignored.join("`, `"));
        let names: Vec<&str> = layout.table.columns.iter().map(|column| column.name.as_str()).collect();
        return Err(
            Error::new(ErrorCode::InvalidArgument, message).with_help(format!("its columns: {}", names.join(", ")))
        );
    }
    Ok(found)
}

/// A number that JSON has no form for, as contracts' texts write it.
fn unusual_number(column: &ArrayRef, row: usize) -> Option<&'static str> {
    let value = match column.data_type() {
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row),
        _ => return None,
    };
    let text = match value {
        value if value.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => return None,
    };
    column.is_valid(row).then_some(text)
}

fn to_json(batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut out);
    for batch in batches {
        writer.write(batch).map_err(arrow)?;
    }
    writer.finish().map_err(arrow)?;
    drop(writer);
    let rows = serde_json::Deserializer::from_slice(&out).into_iter::<Value>();
    let mut rows: Vec<Value> = rows
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::new(ErrorCode::Internal, "rows cannot be read back").with_source(error))?;
    // The writer makes null of them, which they are not.
    let mut left = rows.iter_mut();
    for batch in batches {
        for (at, row) in left.by_ref().take(batch.num_rows()).enumerate() {
            for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                if let (Some(number), Some(cells)) = (unusual_number(column, at), row.as_object_mut()) {
                    cells.insert(field.name().clone(), number.into());
                }
            }
        }
    }
    Ok(rows)
}

impl DataEngine {
    async fn given(&self, table: &Table, rows: &GivenRows) -> Result<(Arc<TableLayout>, Vec<RecordBatch>)> {
        match rows {
            GivenRows::Inline(rows) => {
                let layout = layout(self, table, None);
                let texts: Vec<String> = rows.iter().map(Value::to_string).collect();
                let batch = json_rows(&layout, &texts)?;
                let batches = plain(&layout, vec![batch])?;
                Ok((layout, batches))
            }
            GivenRows::File(source) => {
                let layout = layout(self, table, Some(source));
                let reader =
                    Arc::new(SourceExec::new(layout.clone(), &resolve(self.storage(), source).await?.files, 1));
                let batches = collect(reader, self.context().task_ctx()).await;
                let batches = batches
                    .map_err(|error| unwrap(ErrorCode::SourceUnreadable, "the fixture cannot be read", error))?;
                let batches = plain(&layout, batches)?;
                Ok((layout, batches))
            }
        }
    }

    /// Rows of a fixture, as the table's contract reads them.
    ///
    /// # Errors
    /// Rows that do not fit the contract's types, or have columns that it does not have.
    pub async fn fixture_rows(&self, table: &Table, rows: &GivenRows) -> Result<Vec<Value>> {
        to_json(&self.given(table, rows).await?.1)
    }

    /// The rows that a table's transform makes of these tables, as its contract reads them.
    ///
    /// # Errors
    /// Fixtures that do not fit, a query that fails, or one that makes rows which do not fit the contract.
    pub async fn transform_rows(&self, table: &Table, given: &[GivenTable], now: DateTime<Utc>) -> Result<Vec<Value>> {
        let Some(transform) = &table.transform else {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("table `{}` has no transform", table.name)));
        };
        let mut tables: InputTables = Vec::new();
        for given in given {
            let (layout, batches) = self.given(&given.table, &given.rows).await.map_err(|error| {
                let new = Error::new(error.code(), format!("given `{}`: {error}", given.read));
                match error.help() {
                    Some(help) => new.with_help(help),
                    None => new,
                }
            })?;
            let provider = MemTable::try_new(layout.schema.clone(), vec![batches]);
            let provider = provider.map_err(|error| unwrap(ErrorCode::Internal, "cannot give a table", error))?;
            tables.push((given.read.clone(), Arc::new(provider) as Arc<dyn TableProvider>));
        }
        let context = self.context();
        let state = session(&context, now, tables)?;
        let layout = layout(self, table, None);
        let fail = |error| unwrap(ErrorCode::InvalidQuery, "the query failed", error);
        let plan: Arc<dyn ExecutionPlan> = match physical_plan(&state, transform, &layout).await.map_err(fail)? {
            Ok(plan) => plan,
            Err(missing) => return Err(Error::new(ErrorCode::InvalidQuery, missing.to_string())),
        };
        let batches = collect(plan, context.task_ctx()).await.map_err(fail)?;
        let converted = batches.iter().map(|batch| convert(&layout, batch, 0, 0)).collect::<Result<Vec<_>>>()?;
        // What the contract does not have is left out here as in a run.
        let layout = self::layout(self, table, None);
        to_json(&plain(&layout, converted)?)
    }
}
