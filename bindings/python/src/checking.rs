//! What needs no mesh: data judged by a contract's text, and a contract drafted from data.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use chrono::Utc;
use datamesh::home::engine_without_tables;
use datamesh_app::check::{CheckReport, CheckRequest};
use datamesh_app::ports::{Engine, Rows, StageInput};
use datamesh_core::ids::AttemptId;
use datamesh_core::infer::{draft_table, grouped};
use datamesh_core::{Error, ErrorCode, Name, Result, TableName};
use datamesh_manifest::draft::{SourceDraft, table_text};
use datamesh_manifest::read_product;
use futures::{StreamExt, TryStreamExt};
use pyo3::prelude::*;

use crate::capsule::import;
use crate::drive::{Listening, Stop, Who, drive};
use crate::errors::{exception, invalid_manifest};
use crate::runtime::runtime;
use crate::session::{progress, to_json};
use crate::stream::{Stream, begun};

/// Judges data by the rules of one table of a manifest's text: the report, as JSON, and the failing rows.
#[pyfunction]
#[pyo3(signature = (contract, table, data, *, failing=true, progress=None, stop=None))]
pub(crate) fn check<'py>(
    py: Python<'py>,
    contract: &str,
    table: String,
    data: &Bound<'py, PyAny>,
    failing: bool,
    progress: Option<Bound<'py, PyAny>>,
    stop: Option<Bound<'py, Stop>>,
) -> PyResult<(String, Option<Stream>)> {
    let domain = Name::new("draft").map_err(|why| exception(py, &Error::new(ErrorCode::Internal, why), &[]))?;
    let contract =
        read_product("product.yaml", contract, &domain).map_err(|problems| invalid_manifest(py, &problems))?;
    let (input, held) = import(data)?;
    let listening = Listening { progress, stop };
    let checked = drive(py, &Who::default(), &listening, |caller| async move {
        let folder = tempfile::Builder::new()
            .prefix("datamesh-check-")
            .tempdir()
            .map_err(|error| Error::io(ErrorCode::WriteFailed, "make a folder in", &std::env::temp_dir(), error))?;
        let engine = engine_without_tables()?;
        let request = CheckRequest {
            contract,
            table,
            input: StageInput::Arrow(input),
            failing,
            scratch: folder.path().to_owned(),
            attempt: AttemptId::new(uuid::Uuid::now_v7()),
            now: Utc::now(),
        };
        let (report, rows): (CheckReport, _) =
            datamesh_app::check::check(request, &engine, self::progress(&caller)).await?;
        let rows = match rows {
            Some(rows) => Some(begun(shown(rows)?).await?),
            None => None,
        };
        Ok((to_json(&report)?, rows, folder))
    });
    held.wait(py)?;
    let (report, rows, folder) = checked?;
    let runtime = runtime(py)?;
    Ok((report, rows.map(|rows| Stream::new(rows, runtime, Some(folder)))))
}

/// Failing rows as a program wants them: the data's own columns first, then why.
fn shown(rows: Rows) -> Result<Rows> {
    // What is shown of a quarantined row begins with the reasons, the file, the position and the raw text: under the names
    // that `quarantine` has for them. There is no file here.
    const OWN: usize = 4;
    const WHY: [usize; 3] = [0, 2, 3];
    let fields = rows.schema.fields();
    if fields.len() < OWN {
        return Err(Error::new(ErrorCode::Internal, "quarantined rows have no reasons"));
    }
    let order: Vec<usize> = (OWN..fields.len()).chain(WHY).collect();
    let shown: Vec<Field> = order.iter().map(|at| fields[*at].as_ref().clone()).collect();
    let schema = Arc::new(Schema::new(shown));
    let again = schema.clone();
    let batches = rows.batches.and_then(move |batch| {
        let columns = order.iter().map(|at| batch.column(*at).clone()).collect();
        let batch = RecordBatch::try_new(again.clone(), columns)
            .map_err(|error| Error::new(ErrorCode::Internal, "failing rows cannot be shown").with_source(error));
        std::future::ready(batch)
    });
    Ok(Rows { schema, batches: batches.boxed() })
}

/// Drafts the contract of a table that fits the data, as `datamesh new` does: a list item of a manifest's `schema:`.
#[pyfunction]
#[pyo3(signature = (name, data, *, stop=None))]
pub(crate) fn infer<'py>(
    py: Python<'py>,
    name: &str,
    data: &Bound<'py, PyAny>,
    stop: Option<Bound<'py, Stop>>,
) -> PyResult<String> {
    let wrong = |why: String| {
        let error = Error::new(ErrorCode::InvalidArgument, format!("a table cannot be called `{name}`: {why}"));
        exception(py, &error, &[])
    };
    let name = TableName::new(name).map_err(wrong)?;
    let (input, held) = import(data)?;
    let inferred = drive(py, &Who::default(), &Listening { progress: None, stop }, |_| async move {
        let engine = engine_without_tables()?;
        let about = input.name.clone();
        let profile = engine.examine_rows(pulled(&input)?).await?;
        let draft = draft_table(name.as_str(), &profile);
        Ok(table_text(&SourceDraft {
            name: name.to_string(),
            about: format!("{about}: {} rows", grouped(profile.rows)),
            path: None,
            database_table: None,
            format: None,
            transform: None,
            write: "replace",
            rows: profile.rows,
            draft,
        }))
    });
    held.wait(py)?;
    inferred
}

/// The batches of a stream, pulled on a thread that may block.
fn pulled(input: &datamesh_app::ports::ArrowInput) -> Result<Rows> {
    let (schema, reader, name) = (input.schema().clone(), input.take()?, input.name.clone());
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        for batch in reader {
            let batch = batch.map_err(|error| {
                let message = format!("the stream of `{name}` cannot be read: {error}");
                Error::new(ErrorCode::SourceUnreadable, message)
            });
            let failed = batch.is_err();
            if sender.blocking_send(batch).is_err() || failed {
                break;
            }
        }
    });
    let batches = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|batch| (batch, receiver))
    });
    Ok(Rows { schema, batches: batches.boxed() })
}
