//! A mesh as a program works with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use datamesh::caller::{Caller, Stopper};
use datamesh::{Cli, dispatch, find_maintained, find_product_or_attempt, home, manifest_sources, parse_as_of, promise};
use datamesh_app::Progress;
use datamesh_app::govern::RulesCache;
use datamesh_app::lineage::{self, RunRecord};
use datamesh_app::ports::{Context, QueryRequest, StageInput};
use datamesh_app::publish::{PublishRequest, publish};
use datamesh_app::read::{self, QuarantineRequest, find_product};
use datamesh_core::contract::DataProduct;
use datamesh_core::ports::{PublishStep, Registry, StepObserver};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_engine::DataEngine;
use datamesh_manifest::load_mesh;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::capsule::import;
use crate::drive::{Listening, Stop, Who, drive, drive_told};
use crate::errors::{exception, mesh_missing};
use crate::runtime::{GoingOn, PerProcess, closed_before_fork, runtime};
use crate::stream::{Stream, begun};

/// What is open of a mesh in this process.
#[derive(Clone)]
struct Opened {
    registry: Arc<dyn Registry>,
    rules: Arc<RulesCache>,
    engine: Arc<DataEngine>,
}

impl Opened {
    /// Who acts on it: the caller in scope.
    async fn context(&self) -> Result<Context> {
        home::context_over(self.registry.clone(), self.rules.clone()).await
    }
}

/// A mesh directory, and who acts on it. Threads may share one. Nothing is opened before it is needed, and everything is
/// closed before a fork.
#[pyclass(frozen, module = "data_mesh_framework._core")]
pub(crate) struct Session {
    root: PathBuf,
    memory: usize,
    who: Who,
    opened: Arc<PerProcess<Opened>>,
}

/// An environment variable that says something.
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

impl Session {
    fn open(&self, py: Python<'_>) -> PyResult<Opened> {
        if let Some(opened) = self.opened.get(py) {
            return Ok(opened);
        }
        let (root, memory) = (self.root.clone(), self.memory);
        let opened = drive(py, &self.who, &Listening::default(), |_| async move {
            let (registry, rules) = (home::registry(&root).await?, Arc::<RulesCache>::default());
            let context = home::context_over(registry.clone(), rules.clone()).await?;
            let engine = Arc::new(home::governed(&root, memory, &context).await?);
            Ok(Opened { registry, rules, engine })
        })?;
        Ok(self.opened.keep(py, opened))
    }

    fn rows<'py>(&self, py: Python<'py>, request: QueryRequest, listening: &Listening<'py>) -> PyResult<Stream> {
        let opened = self.open(py)?;
        let rows = drive(py, &self.who, listening, |_| async move {
            let context = opened.context().await?;
            begun(read::query(opened.engine.as_ref(), &context, &request).await?).await
        })?;
        Ok(Stream::new(rows, runtime(py)?, None))
    }
}

fn as_of(py: Python<'_>, text: Option<&str>) -> PyResult<Option<datamesh_core::history::AsOf>> {
    let wrong = |why: String| {
        exception(
            py,
            &Error::new(ErrorCode::InvalidArgument, format!("as_of={}: {why}", text.unwrap_or_default())),
            &[],
        )
    };
    text.map(parse_as_of).transpose().map_err(wrong)
}

/// A name in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table of a product that is meant: the one of that name, or the only one.
fn table_of<'c>(contract: &'c DataProduct, wanted: Option<&str>) -> Result<&'c datamesh_core::Table> {
    let names = || contract.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, contract.tables.as_slice()) {
        (Some(name), _) => contract.table(name).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("`{}` has no table `{name}`", contract.id))
                .with_help(format!("its tables: {}", names()))
        }),
        (None, [table]) => Ok(table),
        (None, _) => Err(Error::new(ErrorCode::InvalidArgument, format!("`{}` has several tables", contract.id))
            .with_help(format!("name one: {}", names()))),
    }
}

/// Nobody hears it.
struct Silent;

impl StepObserver for Silent {
    fn reached(&self, _: PublishStep) {}
}

impl Progress for Silent {
    fn read(&self, _: &str, _: u64, _: Option<u64>) {}
}

/// Who hears how far a caller's work is.
pub(crate) fn progress(caller: &Caller) -> Arc<dyn Progress> {
    caller.progress.clone().unwrap_or_else(|| Arc::new(Silent))
}

/// Options of a publication, by their names on the command line.
fn publish_options(options: &Bound<'_, PyDict>, request: &mut PublishRequest) -> PyResult<()> {
    for (key, value) in options.iter() {
        let key: String = key.extract()?;
        match key.as_str() {
            "again" => request.again = value.extract()?,
            "full" => request.full = value.extract()?,
            "dry_run" => request.dry_run = value.extract()?,
            "idempotency_key" => request.idempotency_key = value.extract()?,
            _ => {
                let error = Error::new(ErrorCode::InvalidArgument, format!("`{key}` is no option of a publication"))
                    .with_help("there are again, full, dry_run and idempotency_key");
                return Err(exception(options.py(), &error, &[]));
            }
        }
    }
    if request.again && request.idempotency_key.is_some() {
        let error = Error::new(ErrorCode::InvalidArgument, "`again` and `idempotency_key` exclude each other");
        return Err(exception(options.py(), &error, &[]));
    }
    Ok(())
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (mesh=None, *, act_as=None, purpose=None, memory_mib=512))]
    fn new(
        py: Python<'_>,
        mesh: Option<PathBuf>,
        act_as: Option<String>,
        purpose: Option<String>,
        memory_mib: usize,
    ) -> PyResult<Self> {
        let mesh = mesh.or_else(|| told("DATAMESH_HOME").map(PathBuf::from));
        let root = home::find(mesh.as_deref()).map_err(|error| mesh_missing(py, &error))?;
        let who = Who {
            principal: act_as.or_else(|| told("DATAMESH_AS")),
            purpose: purpose.or_else(|| told("DATAMESH_PURPOSE")),
        };
        Ok(Self { root, memory: memory_mib, who, opened: closed_before_fork(py) })
    }

    /// The mesh directory.
    #[getter]
    fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a command of the command line: its exit code, and what it said to standard output.
    #[pyo3(signature = (words, progress=None, *, stop=None))]
    fn command<'py>(
        &self,
        py: Python<'py>,
        words: Vec<String>,
        progress: Option<Bound<'py, PyAny>>,
        stop: Option<Bound<'py, Stop>>,
    ) -> PyResult<(u8, String)> {
        run(py, &self.who, Some(&self.root), self.memory, words, &Listening { progress, stop })
    }

    /// Answers a query with a stream of its rows. It is decided and recorded as any read.
    #[pyo3(signature = (sql, *, as_of=None, stop=None))]
    fn query<'py>(
        &self,
        py: Python<'py>,
        sql: String,
        as_of: Option<&str>,
        stop: Option<Bound<'py, Stop>>,
    ) -> PyResult<Stream> {
        let request = QueryRequest { sql, as_of: self::as_of(py, as_of)?, tables: Vec::new() };
        self.rows(py, request, &Listening { progress: None, stop })
    }

    /// Reads a table of a product, or some of its columns.
    #[pyo3(signature = (product, table=None, *, columns=None, as_of=None, stop=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        product: String,
        table: Option<String>,
        columns: Option<Vec<String>>,
        as_of: Option<&str>,
        stop: Option<Bound<'py, Stop>>,
    ) -> PyResult<Stream> {
        let as_of = self::as_of(py, as_of)?;
        let (opened, listening) = (self.open(py)?, Listening { progress: None, stop });
        let sql = drive(py, &self.who, &listening, |_| async move {
            let product = find_product(&opened.context().await?, &product, None).await?;
            let table = table_of(&product.revision.contract, table.as_deref())?;
            let columns = match &columns {
                Some(columns) => columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "),
                None => "*".to_owned(),
            };
            let name = [product.key.domain.clone(), product.key.namespace(), table.name.sql()];
            let name: Vec<String> = name.iter().map(|part| quoted(part)).collect();
            Ok(format!("SELECT {columns} FROM {}", name.join(".")))
        })?;
        self.rows(py, QueryRequest { sql, as_of, tables: Vec::new() }, &listening)
    }

    /// Audits data and publishes the good rows: the report, as JSON. Without tables the manifest's sources are read.
    #[pyo3(signature = (product, tables, options, progress=None, *, stop=None))]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        product: String,
        tables: &Bound<'py, PyDict>,
        options: &Bound<'py, PyDict>,
        progress: Option<Bound<'py, PyAny>>,
        stop: Option<Bound<'py, Stop>>,
    ) -> PyResult<String> {
        // Producers are asked for their data in between.
        let _going_on = GoingOn::begin();
        let (opened, listening) = (self.open(py)?, Listening { progress, stop });
        let found = {
            let (root, opened) = (self.root.clone(), opened.clone());
            drive(py, &self.who, &listening, |_| async move {
                find_maintained(&root, &product, &opened.context().await?).await
            })?
        };
        let (mut inputs, mut held) = (BTreeMap::new(), Vec::new());
        for (name, data) in tables.iter() {
            let name: String = name.extract()?;
            // A table's name in SQL is as good as in the manifest.
            let name = found.contract.table(&name).map_or(name, |table| table.name.to_string());
            let (input, reader) = import(&data)?;
            held.push(reader);
            inputs.insert(name, StageInput::Arrow(input));
        }
        if tables.is_empty() {
            inputs = manifest_sources(&found);
        }
        let mut request = PublishRequest {
            contract: found.contract,
            inputs,
            again: false,
            full: false,
            idempotency_key: None,
            dry_run: false,
            resolves: Vec::new(),
        };
        publish_options(options, &mut request)?;
        let published = drive_told(
            py,
            &self.who,
            &listening,
            |report: &String| Some(report),
            |caller| async move {
                let context = opened.context().await?;
                let stop = caller.stop.as_ref().map(Stopper::listen);
                let stop = stop.ok_or_else(|| Error::new(ErrorCode::Internal, "nothing stops it"))?;
                let report = publish(request, opened.engine.as_ref(), &context, self::progress(&caller), stop).await?;
                to_json(&report)
            },
        );
        held.into_iter().try_for_each(|reader| reader.wait(py))?;
        published
    }

    /// The rows that the newest attempt held back, with every rule that they broke; `None` where there are none.
    #[pyo3(signature = (product, table=None, *, publication=None, reveal=false, stop=None))]
    fn quarantine<'py>(
        &self,
        py: Python<'py>,
        product: String,
        table: Option<String>,
        publication: Option<u64>,
        reveal: bool,
        stop: Option<Bound<'py, Stop>>,
    ) -> PyResult<Option<Stream>> {
        let (opened, root) = (self.open(py)?, self.root.clone());
        let listening = Listening { progress: None, stop };
        let rows = drive(py, &self.who, &listening, |_| async move {
            let context = opened.context().await?;
            let contract = find_product_or_attempt(&context, &root, &product).await?;
            let request = QuarantineRequest { publication, table, reveal };
            let (_, mut tables) = read::quarantine(opened.engine.as_ref(), &context, &contract, &request).await?;
            if tables.len() > 1 {
                let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("several tables have quarantined rows: {}", names.join(", "));
                return Err(Error::new(ErrorCode::InvalidArgument, message).with_help("name one with `table=`"));
            }
            match tables.pop() {
                Some((_, rows)) => begun(rows).await.map(Some),
                None => Ok(None),
            }
        })?;
        rows.map(|rows| Ok(Stream::new(rows, runtime(py)?, None))).transpose()
    }

    /// What a product promises, as JSON: what `show --format json` tells, each table's rules in words, and its manifest's text.
    #[pyo3(signature = (product, *, stop=None))]
    fn contract<'py>(&self, py: Python<'py>, product: String, stop: Option<Bound<'py, Stop>>) -> PyResult<String> {
        let (opened, root) = (self.open(py)?, self.root.clone());
        drive(py, &self.who, &Listening { progress: None, stop }, |_| async move {
            to_json(&promise(&root, &opened.context().await?, &product).await?)
        })
    }

    /// Records a run that made tables of this mesh, with an entry in the audit log: its OpenLineage run event.
    #[pyo3(signature = (run, *, stop=None))]
    fn record_lineage<'py>(&self, py: Python<'py>, run: &str, stop: Option<Bound<'py, Stop>>) -> PyResult<String> {
        let wrong = |error: serde_json::Error| {
            let error = Error::new(ErrorCode::InvalidArgument, format!("the run cannot be read: {error}"));
            exception(py, &error, &[])
        };
        let run: RunRecord = serde_json::from_str(run).map_err(wrong)?;
        let (opened, root) = (self.open(py)?, self.root.clone());
        let listening = Listening { progress: None, stop };
        drive_told(
            py,
            &self.who,
            &listening,
            |event: &String| Some(event),
            |_| async move {
                datamesh::caller::to_its_end()?;
                let context = opened.context().await?;
                let mut drafts: Vec<DataProduct> = Vec::new();
                for product in load_mesh(&root)?.products {
                    if context.may_find(&product.contract).await? {
                        drafts.push(product.contract);
                    }
                }
                to_json(&lineage::record(&opened.context().await?, run, &drafts).await?)
            },
        )
    }

    fn __repr__(&self) -> String {
        format!("Session({:?})", self.root.display().to_string())
    }
}

/// A report as JSON.
pub(crate) fn to_json(report: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(report)
        .map_err(|error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error))
}

/// Runs a command of the command line where there need not be a mesh yet: its exit code, and what it said to standard
/// output.
#[pyfunction]
#[pyo3(signature = (words, *, mesh=None, act_as=None, purpose=None, memory_mib=512, progress=None, stop=None))]
#[expect(clippy::too_many_arguments, reason = "they are keywords")]
pub(crate) fn command<'py>(
    py: Python<'py>,
    words: Vec<String>,
    mesh: Option<PathBuf>,
    act_as: Option<String>,
    purpose: Option<String>,
    memory_mib: usize,
    progress: Option<Bound<'py, PyAny>>,
    stop: Option<Bound<'py, Stop>>,
) -> PyResult<(u8, String)> {
    let who = Who { principal: act_as, purpose };
    run(py, &who, mesh.as_deref(), memory_mib, words, &Listening { progress, stop })
}

fn run<'py>(
    py: Python<'py>,
    who: &Who,
    root: Option<&Path>,
    memory: usize,
    words: Vec<String>,
    listening: &Listening<'py>,
) -> PyResult<(u8, String)> {
    let mut arguments: Vec<std::ffi::OsString> = vec!["datamesh".into(), "--memory".into(), memory.to_string().into()];
    if let Some(root) = root {
        arguments.extend(["--mesh".into(), root.into()]);
    }
    for (word, value) in [("--as", &who.principal), ("--purpose", &who.purpose)] {
        if let Some(value) = value {
            arguments.extend([word.into(), value.into()]);
        }
    }
    arguments.extend(words.into_iter().map(Into::into));
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(told) if !told.use_stderr() => return Ok((0, told.render().to_string())),
        Err(wrong) => {
            let text = wrong.render().to_string();
            let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
            return Err(exception(py, &Error::new(ErrorCode::InvalidArgument, text), &[]));
        }
    };
    // Words that come from elsewhere must not make somebody else of who acts, nor another mesh of this one.
    let acts = (cli.act_as.as_ref(), cli.act_for.as_ref());
    let is_meant = who.principal.as_ref().is_none_or(|own| acts.0 == Some(own))
        && who.purpose.as_ref().is_none_or(|own| acts.1 == Some(own))
        && root.is_none_or(|root| cli.mesh.as_deref() == Some(root));
    if !is_meant {
        let error = Error::new(
            ErrorCode::InvalidArgument,
            "the words name another principal, purpose or mesh than the session",
        );
        return Err(exception(py, &error.with_help("open a session for them"), &[]));
    }
    let who = Who { principal: cli.act_as.clone(), purpose: cli.act_for.clone() };
    drive_told(
        py,
        &who,
        listening,
        |(_, text): &(u8, String)| Some(text),
        |caller| async move {
            let code = dispatch(cli).await?;
            let out = caller.said().map(|mut said| std::mem::take(&mut said.out)).unwrap_or_default();
            Ok((code, String::from_utf8_lossy(&out).into_owned()))
        },
    )
}
