//! From what a job reads to a plan that reads it. Secrets are looked up here and nowhere else in the engine.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datamesh_app::ports::{ArrowInput, StageInput, StageJob};
use datamesh_core::contract::{CsvOptions, SourceFormat, SourceSpec};
use datamesh_core::secret::{Redactor, SecretResolver};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::Storage;

use super::arrow_stream::ArrowExec;
use super::database::{Database, DatabaseExec};
use super::iceberg::{self, IcebergExec};
use super::quarantined::{QuarantineExec, Quarantined};
use super::{SourceExec, SourceFile, TableLayout, parquet, resolve};

/// A source that was found, not read yet.
pub(crate) struct OpenSource {
    /// What the user sees as the files of the source, by index.
    pub(crate) names: Vec<String>,
    /// Bytes to read, where they are known.
    pub(crate) total: Option<u64>,
    /// How delimited text is read.
    pub(crate) csv: CsvOptions,
    kind: Kind,
}

enum Kind {
    Files(Vec<SourceFile>),
    Database(Database),
    /// The scan, and the names of the columns that it leaves out.
    Iceberg(Arc<dyn ExecutionPlan>, Vec<String>),
    Arrow(ArrowInput),
    Quarantine(Arc<Quarantined>),
}

impl OpenSource {
    /// Looks up the secrets of a source and finds what it names. Values that were looked up go to `redactor`.
    ///
    /// # Errors
    /// `source-unreadable` where a secret or the source is not there.
    pub(crate) async fn open(
        job: &StageJob,
        secrets: &dyn SecretResolver,
        redactor: &mut Redactor,
        storage: &Storage,
        context: &SessionContext,
    ) -> Result<Self> {
        let (table, pull) = (&job.table, job.pull.as_ref());
        match &job.input {
            StageInput::Source(source) => {
                let mut source = source.clone();
                for path in &mut source.paths {
                    *path = redactor.resolve(path, secrets)?;
                }
                let resolved = resolve(storage, &source).await?;
                let names = resolved.files.iter().map(|file| redactor.redact(&file.name)).collect();
                Ok(Self { names, total: resolved.total, csv: source.spec.csv, kind: Kind::Files(resolved.files) })
            }
            // Its plan is made of what it reads: see `transform::source`.
            StageInput::Query(query) => Ok(Self {
                names: vec![query.transform.origin().to_owned()],
                total: None,
                csv: CsvOptions::default(),
                kind: Kind::Files(Vec::new()),
            }),
            StageInput::Database(bound) => {
                let database = Database::open(bound, pull, secrets, redactor)?;
                Ok(Self {
                    names: vec![database.name.clone()],
                    total: None,
                    csv: CsvOptions::default(),
                    kind: Kind::Database(database),
                })
            }
            StageInput::Arrow(input) => Ok(Self {
                names: vec![input.name.clone()],
                total: None,
                csv: CsvOptions::default(),
                kind: Kind::Arrow(input.clone()),
            }),
            StageInput::Quarantine(input) => {
                let (storage, input) = (storage.clone(), input.clone());
                let task = tokio::task::spawn_blocking(move || Quarantined::open(&storage, &input));
                let source = task
                    .await
                    .map_err(|error| Error::new(ErrorCode::Internal, "reading stopped").with_source(error))??;
                // Raw texts are read as the table's own source is described now.
                let csv = match &table.source {
                    Some(SourceSpec::Files(files)) => files.csv.clone(),
                    _ => CsvOptions::default(),
                };
                Ok(Self { names: source.names(), total: None, csv, kind: Kind::Quarantine(Arc::new(source)) })
            }
            StageInput::Iceberg(bound) => {
                let location = redactor.resolve(&bound.spec.iceberg, secrets)?;
                let (plan, ignored) = iceberg::plan(storage, &location, bound, table, pull, context).await?;
                let names = (0..plan.properties().partitioning.partition_count())
                    .map(|part| match part {
                        0 => bound.spec.iceberg.clone(),
                        part => format!("{} (part {})", bound.spec.iceberg, part + 1),
                    })
                    .collect();
                Ok(Self { names, total: None, csv: CsvOptions::default(), kind: Kind::Iceberg(plan, ignored) })
            }
        }
    }

    /// Those of the text columns `names` that its files keep as numbers in small dictionaries. The first file speaks for
    /// the others, whose readers bring them to the same form whatever they have.
    pub(crate) async fn encoded(&self, names: Vec<String>) -> Result<Vec<String>> {
        let Kind::Files(files) = &self.kind else { return Ok(Vec::new()) };
        let Some(first) = files.first().filter(|_| !names.is_empty()).cloned() else { return Ok(Vec::new()) };
        if files.iter().any(|file| file.format != SourceFormat::Parquet) {
            return Ok(Vec::new());
        }
        let task = tokio::task::spawn_blocking(move || parquet::encoded(&first, &names));
        task.await.map_err(|error| Error::new(ErrorCode::Internal, "reading stopped").with_source(error))
    }

    /// The plan that reads it.
    pub(crate) fn plan(self, layout: Arc<TableLayout>, parallelism: usize) -> Arc<dyn ExecutionPlan> {
        match self.kind {
            Kind::Files(files) => Arc::new(SourceExec::new(layout, &files, parallelism)),
            Kind::Database(database) => Arc::new(DatabaseExec::new(layout, database)),
            Kind::Arrow(input) => Arc::new(ArrowExec::new(layout, input)),
            Kind::Quarantine(source) => {
                source.tell_fields(layout.facts.raw_fields());
                Arc::new(QuarantineExec::new(layout, source))
            }
            Kind::Iceberg(input, ignored) => {
                layout.facts.add_columns(ignored, Vec::new());
                Arc::new(IcebergExec::new(layout, input))
            }
        }
    }
}
