//! The runtime that Rust works on: one a process. A child after `fork` has none of its parent's threads, so it starts its own
//! and leaves its parent's alone. A mesh is opened by one process of a family only.
//!
//! INVARIANT: what is shared between processes by `fork` is locked only while the interpreter is held, and nothing of Python
//! is called meanwhile. `os.fork` holds it too, so no lock is held by a thread that the child does not have.

use std::sync::atomic::{AtomicU32, Ordering};
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

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let held = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if held.as_ref().is_some_and(|(process, _)| *process != std::process::id()) {
            // A parent's connections and threads are not this process's to close.
            std::mem::forget(held);
        }
    }
}

/// The process that first opened a mesh.
static OPENER: AtomicU32 = AtomicU32::new(0);

/// Refuses to open a mesh in a child whose parent had opened one. What SQLite and its threads hold of the parent's locks is
/// memory that a child inherits: it would take them for its own, and lose or wait for what it writes.
pub(crate) fn one_process(py: Python<'_>) -> PyResult<()> {
    let own = std::process::id();
    match OPENER.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => Ok(()),
        Err(opener) if opener == own => Ok(()),
        Err(_) => {
            let error =
                Error::new(ErrorCode::InvalidArgument, "this process was forked from one that had opened a mesh");
            let help =
                "start processes with multiprocessing's `spawn` or `forkserver`, or fork before a mesh is first used";
            Err(exception(py, &error.with_help(help), &[]))
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
