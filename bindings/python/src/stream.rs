//! Rows on their way to Python, read once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

use crate::capsule::{export, export_batch, export_schema};
use crate::drive::{Listening, Stop, Who, drive};
use crate::errors::exception;
use crate::runtime::GoingOn;

/// Rows that any reader of Arrow streams takes: `pyarrow.table(stream)`, `polars.from_arrow(stream)`,
/// `duckdb.from_arrow(stream)`. They are read once, as they are made: as a whole by such a reader, which may or may not
/// release the interpreter while it waits, or batch by batch with `next_batch`, which does and hears Ctrl-C.
#[pyclass(frozen, module = "data_mesh_framework._core")]
pub(crate) struct Stream {
    schema: SchemaRef,
    place: Arc<Mutex<Place>>,
    failure: Failure,
    process: u32,
}

type Failure = Arc<Mutex<Option<Error>>>;

/// Where the rows of a stream are.
enum Place {
    /// Nobody has read any.
    Here(Reader),
    /// The first batches were read.
    Begun(Reader),
    /// A batch is being read.
    Lent,
    /// Somebody has them, or had them.
    Gone,
}

/// What is there of rows that were not read to their end.
struct Rest {
    batches: BoxStream<'static, Result<RecordBatch>>,
    runtime: Arc<Runtime>,
    /// Where the rows lie, until they are read.
    _folder: Option<TempDir>,
    _going_on: GoingOn,
}

struct Reader {
    /// `None`: they were read to their end.
    rest: Option<Rest>,
    schema: SchemaRef,
    process: u32,
    failure: Failure,
}

/// Rows of which the first are there already.
pub(crate) async fn begun(rows: Rows) -> Result<Rows> {
    let Rows { schema, mut batches } = datamesh::plain_rows(rows);
    let first = batches.try_next().await?;
    Ok(Rows { schema, batches: futures::stream::iter(first.map(Ok)).chain(batches).boxed() })
}

fn locked(place: &Mutex<Place>) -> MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    pub(crate) fn new(rows: Rows, runtime: Arc<Runtime>, folder: Option<TempDir>) -> Self {
        let (failure, process) = (Failure::default(), std::process::id());
        let going_on = GoingOn::begin();
        let rest = Rest { batches: rows.batches, runtime, _folder: folder, _going_on: going_on };
        let reader = Reader { rest: Some(rest), schema: rows.schema.clone(), process, failure: failure.clone() };
        Self { schema: rows.schema, place: Arc::new(Mutex::new(Place::Here(reader))), failure, process }
    }

    /// Refuses in a child of `fork`, where nothing of the parent's may be touched.
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        match self.process == std::process::id() {
            true => Ok(()),
            false => Err(exception(py, &outlived(), &[])),
        }
    }
}

fn outlived() -> Error {
    Error::new(ErrorCode::InvalidArgument, "a stream does not outlive a fork").with_help("ask again")
}

fn read_before(py: Python<'_>) -> PyErr {
    let error = Error::new(ErrorCode::InvalidArgument, "the rows of this stream were read before")
        .with_help("a stream is read once: keep what it was read into, or ask again");
    exception(py, &error, &[])
}

fn being_read(py: Python<'_>) -> PyErr {
    let error = Error::new(ErrorCode::InvalidArgument, "another thread is reading this stream")
        .with_help("a stream is read once: share what it is read into");
    exception(py, &error, &[])
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
        let reader = if self.process == std::process::id() {
            let mut place = locked(&self.place);
            match std::mem::replace(&mut *place, Place::Gone) {
                Place::Here(reader) => reader,
                Place::Lent => {
                    *place = Place::Lent;
                    return Err(being_read(py));
                }
                begun => {
                    *place = begun;
                    return Err(read_before(py));
                }
            }
        } else {
            let (schema, failure) = (self.schema.clone(), self.failure.clone());
            Reader { rest: None, schema, process: self.process, failure }
        };
        export(py, Box::new(reader))
    }

    /// Arrow's PyCapsule interface.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        export_schema(py, &self.schema)
    }

    /// The next rows; `None`, once, behind the last. Other threads of Python go on meanwhile; Ctrl-C and `stop` end the wait,
    /// and the rows are still there to be read.
    #[pyo3(signature = (*, stop=None))]
    fn next_batch<'py>(&self, py: Python<'py>, stop: Option<Bound<'py, Stop>>) -> PyResult<Option<Batch>> {
        self.check_process(py)?;
        let reader = {
            let mut place = locked(&self.place);
            match std::mem::replace(&mut *place, Place::Lent) {
                Place::Here(reader) | Place::Begun(reader) => reader,
                Place::Lent => return Err(being_read(py)),
                Place::Gone => {
                    *place = Place::Gone;
                    return Err(read_before(py));
                }
            }
        };
        let mut lent = Lent { reader: Some(reader), place: self.place.clone() };
        let read: Arc<Mutex<Option<RecordBatch>>> = Arc::default();
        let kept = read.clone();
        let done = drive(py, &Who::default(), &Listening { progress: None, stop }, |_| async move {
            let found = lent.next().await?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok(())
        });
        let found = read.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (done, found) {
            (Ok(()), found) => Ok(found.map(Batch)),
            (Err(raised), Some(batch)) => {
                // It was read and not handed over: it comes next.
                if let Place::Begun(Reader { rest: Some(rest), .. }) = &mut *locked(&self.place) {
                    let after = std::mem::replace(&mut rest.batches, futures::stream::empty().boxed());
                    rest.batches = futures::stream::iter([Ok(batch)]).chain(after).boxed();
                }
                Err(raised)
            }
            (Err(raised), None) => Err(raised),
        }
    }

    /// The names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Raises the error that ended the stream before all rows were read, where one did: consumers of Arrow streams know only
    /// its text.
    fn raise_error(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process(py)?;
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(error) => Err(exception(py, error, &[])),
            None => Ok(()),
        }
    }

    /// Lets go of rows that nobody wants any more.
    fn close(&self, py: Python<'_>) {
        // A child has none.
        if self.process == std::process::id() {
            let rows = std::mem::replace(&mut *locked(&self.place), Place::Gone);
            py.detach(|| drop(rows));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Its lock may be held by a thread of the parent.
            std::mem::forget(std::mem::replace(&mut self.place, Arc::new(Mutex::new(Place::Gone))));
            std::mem::forget(std::mem::take(&mut self.failure));
        }
    }
}

/// Rows of a stream, of which a batch is being read. They are given back wherever that ends.
struct Lent {
    reader: Option<Reader>,
    place: Arc<Mutex<Place>>,
}

impl Lent {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(rest) = self.reader.as_mut().and_then(|reader| reader.rest.as_mut()) else {
            return Err(Error::new(ErrorCode::Internal, "a stream has no rows to be read"));
        };
        let found = rest.batches.try_next().await;
        if !matches!(found, Ok(Some(_))) {
            self.reader = None;
        }
        found
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let reader = self.reader.take();
        let mut place = locked(&self.place);
        // Somebody may have closed the stream.
        if matches!(*place, Place::Lent) {
            *place = reader.map_or(Place::Gone, Place::Begun);
        }
    }
}

/// Rows, by Arrow's PyCapsule interface.
#[pyclass(frozen, module = "data_mesh_framework._core")]
pub(crate) struct Batch(RecordBatch);

#[pymethods]
impl Batch {
    /// The rows come in their own schema, whatever is asked for.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        drop(requested_schema);
        export_batch(py, &self.0)
    }

    /// How many there are.
    #[getter]
    fn num_rows(&self) -> usize {
        self.0.num_rows()
    }
}

impl Reader {
    /// Lets go of what is there.
    fn end(&mut self) {
        let Some(rest) = self.rest.take() else { return };
        // What was read of them is recorded by the runtime.
        let runtime = rest.runtime.clone();
        let _entered = runtime.enter();
        drop(rest);
    }
}

impl Iterator for Reader {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.process != std::process::id() {
            return Some(Err(ArrowError::CDataInterface(format!("{}: ask again", outlived()))));
        }
        // The interpreter may be held by whoever waits for this, so it is not asked for anything.
        let rest = self.rest.as_mut()?;
        let error = match rest.runtime.block_on(rest.batches.try_next()) {
            Ok(Some(batch)) => return Some(Ok(batch)),
            Ok(None) => {
                self.end();
                return None;
            }
            Err(error) => error,
        };
        self.end();
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
        if self.process != std::process::id() {
            // They are the parent's.
            std::mem::forget(self.rest.take());
            return;
        }
        self.end();
    }
}
