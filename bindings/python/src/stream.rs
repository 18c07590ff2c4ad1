//! Rows on their way to Python, read once.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datamesh_app::ports::Rows;
use datamesh_core::{Error, ErrorCode, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::capsule::{export, export_schema};
use crate::errors::exception;

/// Rows that any reader of Arrow streams takes: `pyarrow.table(stream)`, `polars.from_arrow(stream)`,
/// `duckdb.from_arrow(stream)`. They are read once, as they are made.
#[pyclass(frozen, module = "data_mesh_framework._core")]
pub(crate) struct Stream {
    schema: SchemaRef,
    reader: Mutex<Option<Reader>>,
    failure: Failure,
}

type Failure = Arc<Mutex<Option<Error>>>;

struct Reader {
    /// Taken when it is dropped.
    batches: Option<BoxStream<'static, Result<RecordBatch>>>,
    schema: SchemaRef,
    runtime: Arc<Runtime>,
    process: u32,
    failure: Failure,
    /// Where the rows lie, until they are read.
    _folder: Option<TempDir>,
}

/// Rows of which the first are there already.
pub(crate) async fn begun(rows: Rows) -> Result<Rows> {
    let Rows { schema, mut batches } = datamesh::plain_rows(rows);
    let first = batches.try_next().await?;
    Ok(Rows { schema, batches: futures::stream::iter(first.map(Ok)).chain(batches).boxed() })
}

impl Stream {
    pub(crate) fn new(rows: Rows, runtime: Arc<Runtime>, folder: Option<TempDir>) -> Self {
        let failure = Failure::default();
        let reader = Reader {
            batches: Some(rows.batches),
            schema: rows.schema.clone(),
            runtime,
            process: std::process::id(),
            failure: failure.clone(),
            _folder: folder,
        };
        Self { schema: rows.schema, reader: Mutex::new(Some(reader)), failure }
    }

    fn take(&self) -> Option<Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Stream {
    /// Arrow's PyCapsule interface. The rows come in their own schema, whatever is asked for.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // A consumer that wants another schema casts: the interface makes this a wish.
        drop(requested_schema);
        let Some(reader) = self.take() else {
            let error = Error::new(ErrorCode::InvalidArgument, "the rows of this stream were read before")
                .with_help("a stream is read once: keep what it was read into, or ask again");
            return Err(exception(py, &error, &[]));
        };
        export(py, Box::new(reader))
    }

    /// Arrow's PyCapsule interface.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        export_schema(py, &self.schema)
    }

    /// The names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Raises the error that ended the stream before all rows were read, where one did: consumers of Arrow streams know only
    /// its text.
    fn raise_error(&self, py: Python<'_>) -> PyResult<()> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(error) => Err(exception(py, error, &[])),
            None => Ok(()),
        }
    }

    /// Lets go of rows that nobody wants any more.
    fn close(&self, py: Python<'_>) {
        let reader = self.take();
        py.detach(|| drop(reader));
    }
}

impl Iterator for Reader {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.process != std::process::id() {
            return Some(Err(ArrowError::CDataInterface("a stream does not outlive a fork: ask again".to_owned())));
        }
        // The interpreter may be held by whoever waits for this, so it is not asked for anything.
        let batches = self.batches.as_mut()?;
        let error = match self.runtime.block_on(batches.try_next()) {
            Ok(batch) => return batch.map(Ok),
            Err(error) => error,
        };
        let text = error.to_string().replace('\0', "\u{fffd}");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        Some(Err(ArrowError::CDataInterface(text)))
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(batches) = self.batches.take() else { return };
        if self.process != std::process::id() {
            // They are the parent's.
            std::mem::forget(batches);
            std::mem::forget(self._folder.take());
            return;
        }
        // What was read of them is recorded by the runtime.
        let _entered = self.runtime.enter();
        drop(batches);
    }
}
