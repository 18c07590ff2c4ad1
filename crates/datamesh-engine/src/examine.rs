//! Looking at data without publishing it: files of any format, and the rows of a query.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::is_null;
use datafusion::arrow::datatypes::{Schema, UInt64Type};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datamesh_app::Progress;
use datamesh_app::ports::{BoundSource, Rows};
use datamesh_core::contract::CsvOptions;
use datamesh_core::profile::{Origin, TableProfile};
use datamesh_core::{Column, Error, ErrorCode, Result};
use datamesh_iceberg::Storage;
use datamesh_quality::arrow_types::arrow_field;
use datamesh_quality::profile::{KeySink, KeySinks, TableProfiler};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::error::{arrow, unwrap};
use crate::keys::{KeyEntry, KeyRuns, Place, for_each_hit};
use crate::source::{
    Database, DatabaseExec, FoundColumn, SourceFacts, TableLayout, add_typed, faults_of, plain_table, profile, resolve,
};

/// Follows hashes in sorted runs on the disk.
struct RunSink {
    runs: KeyRuns,
}

impl KeySink for RunSink {
    fn push(&mut self, hash: u128) -> Result<()> {
        self.runs.push(KeyEntry { hash: hash as u64, place: Place::opaque((hash >> 64) as u64) })
    }

    fn finish(self: Box<Self>) -> Result<bool> {
        let runs = self.runs.finish();
        let mut unique = true;
        for_each_hit(std::iter::once(&runs), |hits| {
            // Entries come sorted, so the same hash stands side by side.
            unique &= hits.windows(2).all(|pair| pair[0].place != pair[1].place);
            Ok(())
        })?;
        Ok(unique)
    }
}

/// A folder for runs that is removed when it is dropped. Its name cannot be foreseen: what another program or a killed
/// run has left in the system's folder for temporary files is never met.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("datamesh-profile-").tempdir();
        let temporary = std::env::temp_dir();
        folder.map(Self).map_err(|error| Error::io(ErrorCode::WriteFailed, "make a folder in", &temporary, error))
    }

    fn sinks(&self) -> KeySinks {
        let folder = self.0.path().to_owned();
        let mut number = 0;
        Box::new(move || {
            number += 1;
            Box::new(RunSink { runs: KeyRuns::new(&folder, format!("key-{number}")) })
        })
    }
}

/// Profiles a source that has no contract yet. `told`: the dialect in the source's specification counts; else it is
/// detected.
pub(crate) async fn examine_source(
    source: BoundSource,
    told: bool,
    storage: &Storage,
    batch_size: usize,
    progress: Arc<dyn Progress>,
) -> Result<TableProfile> {
    let resolved = resolve(storage, &source).await?;
    let work = move || {
        let scratch = Scratch::new()?;
        let facts = SourceFacts::new("reading", resolved.total, progress);
        let csv = told.then(|| source.spec.csv.clone());
        profile(&resolved.files, csv, facts, batch_size, scratch.sinks())
    };
    blocking(work).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::new(ErrorCode::Internal, "looking at the data stopped").with_source(error))?
}

/// Profiles a table of a database, and tells its columns with the contract types that hold them and what the database
/// says of these.
pub(crate) async fn examine_database(
    database: Database,
    batch_size: usize,
    context: Arc<TaskContext>,
    progress: Arc<dyn Progress>,
) -> Result<(TableProfile, Vec<(Column, String)>)> {
    let (mut columns, mut evidences, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for FoundColumn { name, data_type, evidence } in database.columns().await? {
        match data_type {
            // The reader's own columns have such names.
            _ if name.starts_with("__") => left_out.push((name, "names that start with `__` are reserved".to_owned())),
            Ok(data_type) => {
                columns.push(Column::anonymous(&name, data_type));
                evidences.push(evidence);
            }
            Err(why) => left_out.push((name, why)),
        }
    }
    let schema = Arc::new(Schema::new(columns.iter().map(arrow_field).collect::<Vec<_>>()));
    let facts = Arc::new(SourceFacts::new("reading", None, progress));
    let (table, csv) = (plain_table(&columns)?, CsvOptions::default());
    let layout = TableLayout { table, schema: schema.clone(), csv, facts: facts.clone(), batch_size };
    let fail = |error| unwrap(ErrorCode::SourceUnreadable, "the database cannot be read", error);
    let mut batches = DatabaseExec::new(Arc::new(layout), database).execute(0, context).map_err(fail)?;

    let scratch = Scratch::new()?;
    let mut profiler = TableProfiler::of_schema(&schema, scratch.sinks());
    left_out.iter().for_each(|(name, why)| profiler.leave_out(name, why));
    while let Some(batch) = batches.try_next().await.map_err(fail)? {
        for (reasons, position) in faults_of(&batch) {
            let misfit = reasons.iter().find_map(|reason| columns.iter().find(|column| column.name == reason.column));
            let why = misfit.map(|column| format!("`{}` is no {}", column.name, column.data_type));
            profiler.add_fault(why.as_deref().unwrap_or("a cell does not fit"), position);
        }
        // A row with a misfit is told as that, and counts nowhere else.
        let readable = is_null(batch.column(schema.fields().len() + 1)).map_err(arrow)?;
        let rows: Vec<usize> = readable.values().set_indices().collect();
        let positions = batch.column(schema.fields().len() + 3).as_primitive::<UInt64Type>();
        let own = batch.project(&(0..schema.fields().len()).collect::<Vec<_>>()).map_err(arrow)?;
        profiler.add_batch(&own, &rows, &|row| positions.value(row))?;
    }
    let profile = blocking(move || {
        let profile = profiler.finish(facts.bytes_read(), Origin::Typed);
        drop(scratch);
        profile
    });
    Ok((profile.await?, columns.into_iter().zip(evidences).collect()))
}

/// Profiles rows.
pub(crate) async fn examine_rows(rows: Rows) -> Result<TableProfile> {
    let Rows { schema, mut batches } = rows;
    let scratch = Scratch::new()?;
    let mut profiler = TableProfiler::of_schema(&schema, scratch.sinks());
    let mut position = 0;
    while let Some(batch) = batches.try_next().await? {
        add_typed(&mut profiler, &batch, position)?;
        position += batch.num_rows() as u64;
    }
    blocking(move || {
        let profile = profiler.finish(0, Origin::Typed);
        drop(scratch);
        profile
    })
    .await
}
