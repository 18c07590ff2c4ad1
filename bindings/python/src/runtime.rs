//! The runtime that Rust works on: one a process. A child after `fork` has none of its parent's threads, so it starts its own
//! and leaves its parent's alone.
//!
//! INVARIANT: what is shared between processes by `fork` is locked only while the interpreter is held, and nothing of Python
//! is called meanwhile. `os.fork` holds it too, so no lock is held by a thread that the child does not have.

use std::sync::{Arc, Mutex, PoisonError};

use datamesh_core::{Error, ErrorCode};
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::errors::exception;

/// A value of one process. In a child it is not there, and never dropped.
pub(crate) struct PerProcess<T>(Mutex<Option<(u32, T)>>);

impl<T: Clone> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// This process's value. `_py`: the interpreter is held.
    pub(crate) fn get(&self, _py: Python<'_>) -> Option<T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|(process, _)| *process == std::process::id()).map(|(_, value)| value.clone())
    }

    /// Keeps this process's value, unless another thread has been faster; returns the one that is kept.
    pub(crate) fn keep(&self, _py: Python<'_>, value: T) -> T {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((process, kept)) if *process == std::process::id() => kept.clone(),
            _ => {
                // A parent's connections and threads are not this process's to close.
                std::mem::forget(held.replace((std::process::id(), value.clone())));
                value
            }
        }
    }
}

static RUNTIME: PerProcess<Arc<Runtime>> = PerProcess::new();

/// This process's runtime.
pub(crate) fn runtime(py: Python<'_>) -> PyResult<Arc<Runtime>> {
    if let Some(runtime) = RUNTIME.get(py) {
        return Ok(runtime);
    }
    let started = tokio::runtime::Builder::new_multi_thread().thread_name("datamesh").enable_all().build();
    let started = started
        .map_err(|error| exception(py, &Error::new(ErrorCode::Internal, format!("cannot start: {error}")), &[]))?;
    Ok(RUNTIME.keep(py, Arc::new(started)))
}
