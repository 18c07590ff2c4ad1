//! Arrow's PyCapsule interface: the one place with `unsafe`. Nothing is copied: batches share the memory of whoever made
//! them, until they are dropped.
#![expect(unsafe_code, reason = "Arrow's C stream interface is made of pointers")]

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use arrow::array::{Array, RecordBatch, RecordBatchOptions, RecordBatchReader, StructArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow::ffi_stream::FFI_ArrowArrayStream;
use datamesh_app::ports::ArrowInput;
use datamesh_core::{Error, ErrorCode};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyTuple};

use crate::errors::exception;

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";

/// The batches of anything that hands over a stream of them, or one.
pub(crate) fn import(data: &Bound<'_, PyAny>) -> PyResult<(ArrowInput, Held)> {
    let py = data.py();
    let name = name_of(data);
    let unfit = |why: String| {
        let error = Error::new(ErrorCode::InvalidArgument, format!("`{name}` is no table: {why}"));
        let help = "hand over what has `__arrow_c_stream__`: a pyarrow.Table or RecordBatchReader, a pandas.DataFrame (2.2 \
                    or newer), a polars.DataFrame, a DuckDB relation";
        exception(py, &error.with_help(help), &[])
    };
    let reader: Box<dyn RecordBatchReader + Send> = if data.hasattr("__arrow_c_stream__")? {
        let capsule = data.call_method0("__arrow_c_stream__")?;
        Box::new(StreamReader::take(capsule.cast::<PyCapsule>()?).map_err(unfit)?)
    } else if data.hasattr("__arrow_c_array__")? {
        let pair = data.call_method0("__arrow_c_array__")?;
        let pair = pair.cast::<PyTuple>()?;
        let (schema, array) = (pair.get_item(0)?, pair.get_item(1)?);
        Box::new(take_batch(schema.cast::<PyCapsule>()?, array.cast::<PyCapsule>()?).map_err(unfit)?)
    } else {
        return Err(unfit("it has neither `__arrow_c_stream__` nor `__arrow_c_array__`".to_owned()));
    };
    let (alive, ended) = channel();
    Ok((ArrowInput::new(name, Box::new(Lent { reader, _alive: alive })), Held(ended)))
}

/// A reader that tells when it is gone.
struct Lent {
    reader: Box<dyn RecordBatchReader + Send>,
    // Dropped last.
    _alive: Sender<()>,
}

impl Iterator for Lent {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.next()
    }
}

impl RecordBatchReader for Lent {
    fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }
}

/// The end of a reader that was handed over.
pub(crate) struct Held(Receiver<()>);

impl Held {
    /// Waits until no thread of Rust has the reader any more: one that still calls Python when the interpreter ends would end
    /// the process. Another signal ends the wait.
    pub(crate) fn wait(mut self, py: Python<'_>) -> PyResult<()> {
        loop {
            let ended = &mut self.0;
            let ended = py.detach(move || ended.recv_timeout(Duration::from_millis(50)));
            if ended == Err(RecvTimeoutError::Disconnected) {
                return Ok(());
            }
            py.check_signals()?;
        }
    }
}

/// A capsule with a stream of what `reader` yields.
pub(crate) fn export(py: Python<'_>, reader: Box<dyn RecordBatchReader + Send>) -> PyResult<Bound<'_, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(reader), STREAM)
}

/// A capsule with a schema.
pub(crate) fn export_schema<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(schema).map_err(|error| {
        let error = Error::new(ErrorCode::Internal, format!("the schema cannot be handed over: {error}"));
        exception(py, &error, &[])
    })?;
    PyCapsule::new_with_value(py, schema, SCHEMA)
}

/// The pair of capsules of a batch: its schema, and its columns as an array of structs.
pub(crate) fn export_batch<'py>(
    py: Python<'py>,
    batch: &RecordBatch,
) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
    let array = FFI_ArrowArray::new(&StructArray::from(batch.clone()).into_data());
    Ok((export_schema(py, &batch.schema())?, PyCapsule::new_with_value(py, array, ARRAY)?))
}

/// What a value is called: `pandas.DataFrame`.
fn name_of(data: &Bound<'_, PyAny>) -> String {
    let kind = data.get_type();
    let text = |attribute: &str| kind.getattr(attribute).and_then(|text| text.extract::<String>()).unwrap_or_default();
    let (module, name) = (text("__module__"), text("__qualname__"));
    let package = module.split('.').next().unwrap_or_default();
    // DuckDB and PyArrow keep their classes in private modules.
    match package.trim_start_matches('_') {
        "" | "builtins" => name,
        package => format!("{package}.{name}"),
    }
}

/// Batches of a producer's stream.
struct StreamReader {
    stream: FFI_ArrowArrayStream,
    schema: SchemaRef,
}

impl StreamReader {
    fn take(capsule: &Bound<'_, PyCapsule>) -> Result<Self, String> {
        let pointer = capsule.pointer_checked(Some(STREAM)).map_err(|error| error.to_string())?;
        // SAFETY: a capsule of this name holds a pointer to a valid stream, by the interface. Its contents are moved out
        // and what is left is marked as released, so that the capsule's destructor does not release it again.
        let mut stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.cast().as_ptr()) };
        let Some(get_schema) = stream.get_schema.filter(|_| stream.release.is_some()) else {
            return Err("its stream was consumed before".to_owned());
        };
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: the stream is not released, and `schema` is where it may write one.
        let code = unsafe { get_schema(&mut stream, &mut schema) };
        if code != 0 {
            return Err(last_error(&mut stream, code));
        }
        let schema = Schema::try_from(&schema).map_err(|error| error.to_string())?;
        Ok(Self { stream, schema: Arc::new(schema) })
    }
}

/// What a producer says of its last call.
fn last_error(stream: &mut FFI_ArrowArrayStream, code: i32) -> String {
    let text = stream.get_last_error.filter(|_| stream.release.is_some()).and_then(|get| {
        // SAFETY: the stream is not released, and its last call failed. The text is the stream's until the next call.
        let text = unsafe { get(stream) };
        // SAFETY: where it is not null it ends with a zero.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    });
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| format!("its stream failed with code {code}"))
}

impl Iterator for StreamReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let get_next = self.stream.get_next.filter(|_| self.stream.release.is_some())?;
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the stream is not released, and `array` is where it may write one.
        let code = unsafe { get_next(&mut self.stream, &mut array) };
        if code != 0 {
            return Some(Err(ArrowError::CDataInterface(last_error(&mut self.stream, code))));
        }
        (!array.is_released()).then(|| batch(array, &self.schema))
    }
}

impl RecordBatchReader for StreamReader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

fn batch(array: FFI_ArrowArray, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    // SAFETY: the array is the producer's, of the schema that it told.
    let mut data = unsafe { from_ffi_and_data_type(array, DataType::Struct(schema.fields().clone())) }?;
    // Some producers align to 8 bytes where a decimal needs 16.
    data.align_buffers();
    // Rust's texts are UTF-8 without being asked again: what is none must not get in, nor offsets that lead outside.
    data.validate_full()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(data.len()));
    RecordBatch::try_new_with_options(schema.clone(), StructArray::from(data).into_parts().1, &rows)
}

/// The one batch of a pair of capsules.
fn take_batch(
    schema: &Bound<'_, PyCapsule>,
    array: &Bound<'_, PyCapsule>,
) -> Result<impl RecordBatchReader + Send + use<>, String> {
    let schema = schema.pointer_checked(Some(SCHEMA)).map_err(|error| error.to_string())?;
    let array = array.pointer_checked(Some(ARRAY)).map_err(|error| error.to_string())?;
    // SAFETY: a capsule of this name holds a pointer to a valid schema, by the interface, and lives as long as this call.
    let schema = unsafe { schema.cast::<FFI_ArrowSchema>().as_ref() };
    let schema = Arc::new(Schema::try_from(schema).map_err(|error| error.to_string())?);
    // SAFETY: a capsule of this name holds a pointer to a valid array, which is moved out and marked as released.
    let array = unsafe { FFI_ArrowArray::from_raw(array.cast().as_ptr()) };
    if array.is_released() {
        return Err("its array was consumed before".to_owned());
    }
    let batch = batch(array, &schema).map_err(|error| error.to_string())?;
    Ok(arrow::array::RecordBatchIterator::new([Ok(batch)], schema))
}
