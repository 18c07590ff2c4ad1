//! Errors as Python's exceptions. The classes are Python: several bases, attributes, pickling.

use std::ffi::CString;

use datamesh_core::{Diagnostic, Error, ErrorCode};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use crate::convert::to_python;

static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn classes(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    let made = CLASSES.get_or_try_init(py, || {
        let text = CString::new(include_str!("errors.py"))?;
        let name = c"data_mesh_framework._core_errors";
        Ok::<_, PyErr>(PyModule::from_code(py, &text, c"data_mesh_framework/_core_errors.py", name)?.unbind())
    });
    made.map(|module| module.bind(py))
}

/// Adds the exceptions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let classes = classes(module.py())?.getattr("CLASSES")?;
    for class in classes.cast::<PyList>()?.iter() {
        module.add(class.getattr("__name__")?.extract::<String>()?.as_str(), class)?;
    }
    Ok(())
}

/// The exception that an error is.
pub(crate) fn exception(py: Python<'_>, error: &Error, problems: &[Diagnostic]) -> PyErr {
    make(py, error, problems, false).unwrap_or_else(|failed| failed)
}

/// The exception of a mesh that is not there.
pub(crate) fn mesh_missing(py: Python<'_>, error: &Error) -> PyErr {
    make(py, error, &[], error.code() == ErrorCode::NotFound).unwrap_or_else(|failed| failed)
}

/// The exception of a manifest with errors.
pub(crate) fn invalid_manifest(py: Python<'_>, problems: &[Diagnostic]) -> PyErr {
    let count = problems.iter().filter(|problem| problem.is_error()).count();
    let errors = if count == 1 { "an error".to_owned() } else { format!("{count} errors") };
    exception(py, &Error::new(ErrorCode::InvalidManifest, format!("the contract has {errors}")), problems)
}

/// The exception of work that was stopped.
pub(crate) fn interrupted(py: Python<'_>, message: &str) -> PyErr {
    exception(py, &Error::new(ErrorCode::Interrupted, message), &[])
}

fn make(py: Python<'_>, error: &Error, problems: &[Diagnostic], mesh_missing: bool) -> PyResult<PyErr> {
    let code = error.code();
    let problems = serde_json::to_value(problems)
        .map_err(|error| PyRuntimeError::new_err(format!("diagnostics cannot be told: {error}")))?;
    let arguments = (
        code.as_str(),
        code.exit_code(),
        error.to_string(),
        error.help(),
        code.is_retryable(),
        to_python(py, &problems)?,
        mesh_missing,
    );
    Ok(PyErr::from_value(classes(py)?.getattr("make")?.call1(arguments)?))
}
