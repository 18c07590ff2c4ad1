//! Work that Rust does while the interpreter is released: told how far it is, and stopped by Ctrl-C or by hand.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datamesh::caller::{self, Caller, Outlet, Said, Stopper};
use datamesh_app::Progress;
use datamesh_core::ports::{PublishStep, StepObserver};
use datamesh_core::{Error, ErrorCode, Result};
use futures::FutureExt;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tokio::sync::watch;

use crate::convert::to_python;
use crate::errors::{exception, interrupted};
use crate::runtime::{GoingOn, one_process, runtime};

/// How often signals are looked at, and progress is told.
const TICK: Duration = Duration::from_millis(100);

/// Stops work from another thread.
#[pyclass(frozen, module = "data_mesh_framework._core")]
pub(crate) struct Stop(watch::Sender<bool>);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Stops what was started with this, and whatever will be.
    fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was stopped.
    #[getter]
    fn stopped(&self) -> bool {
        *self.0.borrow()
    }
}

/// Who acts, and what for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    pub(crate) principal: Option<String>,
    pub(crate) purpose: Option<String>,
}

/// Who hears how far it is, and what stops it beside signals.
#[derive(Default)]
pub(crate) struct Listening<'py> {
    pub(crate) progress: Option<Bound<'py, PyAny>>,
    pub(crate) stop: Option<Bound<'py, Stop>>,
}

/// How far work is. Written by Rust's threads, told by the thread that called.
#[derive(Debug, Default)]
struct Heard {
    read: BTreeMap<String, (u64, Option<u64>)>,
    changed: std::collections::BTreeSet<String>,
    steps: Vec<&'static str>,
}

#[derive(Debug, Default)]
struct Hearing(Mutex<Heard>);

impl StepObserver for Hearing {
    fn reached(&self, step: PublishStep) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).steps.push(step.as_str());
    }
}

impl Progress for Hearing {
    fn read(&self, table: &str, bytes: u64, total: Option<u64>) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.read.entry(table.to_owned()).or_insert((0, total)).0 += bytes;
        heard.changed.insert(table.to_owned());
    }
}

impl Hearing {
    fn tell(&self, listener: &Bound<'_, PyAny>) -> PyResult<()> {
        let (read, steps) = {
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = std::mem::take(&mut heard.changed);
            let read: Vec<_> =
                changed.into_iter().filter_map(|table| heard.read.get(&table).copied().map(|at| (table, at))).collect();
            (read, std::mem::take(&mut heard.steps))
        };
        let py = listener.py();
        for (table, (bytes, total)) in read {
            let event = PyDict::new(py);
            event.set_item("event", "read")?;
            event.set_item("table", table)?;
            event.set_item("bytes", bytes)?;
            event.set_item("total", total)?;
            listener.call1((event,))?;
        }
        for step in steps {
            let event = PyDict::new(py);
            event.set_item("event", "step")?;
            event.set_item("step", step)?;
            listener.call1((event,))?;
        }
        Ok(())
    }
}

/// As [`drive_told`], where nothing is to be told of what was done.
pub(crate) fn drive<'py, T, F>(
    py: Python<'py>,
    who: &Who,
    listening: &Listening<'py>,
    work: impl FnOnce(Arc<Caller>) -> F,
) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    drive_told(py, who, listening, |_| None, work)
}

/// Does work for a caller, with the interpreter released. What it says beside its result is logged; problems of documents
/// come with its error. Work that listens to the caller's stop ends by itself; other work changes nothing and is dropped.
///
/// What was done although it was to be stopped is an exception all the same, which carries the `report` of what was done.
pub(crate) fn drive_told<'py, T, F>(
    py: Python<'py>,
    who: &Who,
    listening: &Listening<'py>,
    report: impl FnOnce(&T) -> Option<&String>,
    work: impl FnOnce(Arc<Caller>) -> F,
) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let _going_on = GoingOn::begin();
    let runtime = runtime(py)?;
    let (stop, mut stopped) = watch::channel(false);
    let by_hand = listening.stop.as_ref().map(|stop| stop.get().0.subscribe());
    let stopped = async move {
        let told = async {
            let told = match by_hand {
                Some(mut by_hand) => by_hand.wait_for(|stopped| *stopped).await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = told => {}
        }
    };
    let stopped = stopped.boxed().shared();
    let hearing = listening.progress.as_ref().map(|_| Arc::new(Hearing::default()));
    let caller = Arc::new(Caller {
        principal: who.principal.clone(),
        purpose: who.purpose.clone(),
        door: "python",
        outlet: Outlet::Captured(Mutex::new(Said::default())),
        stop: Some(Stopper::new(stopped.clone())),
        progress: hearing.clone().map(|hearing| hearing as Arc<dyn Progress>),
        gate: one_process,
    });
    let (done, mut result) = channel();
    let work = caller::scope(caller.clone(), work(caller.clone()));
    let listens = caller.clone();
    let task = runtime.spawn(async move {
        // What it holds is given back before anybody hears of its end.
        let outcome = {
            let mut work = std::pin::pin!(work);
            tokio::select! {
                biased;
                outcome = &mut work => outcome,
                () = stopped => match listens.stop.as_ref().is_some_and(Stopper::is_heard) {
                    true => work.await,
                    false => Err(Error::new(ErrorCode::Interrupted, "stopped")),
                },
            }
        };
        // Whoever waited may have gone.
        let _ = done.send(outcome);
    });
    let mut pending: Option<PyErr> = None;
    let outcome = loop {
        let waiting = &mut result;
        let waited = py.detach(move || waiting.recv_timeout(TICK));
        let outcome = match waited {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                break Err(Error::new(
                    ErrorCode::Internal,
                    "a defect of datamesh stopped the work; see standard error",
                ));
            }
        };
        let told = match (&listening.progress, &hearing) {
            (Some(listener), Some(hearing)) if pending.is_none() => hearing.tell(listener),
            _ => Ok(()),
        };
        if let Some(outcome) = outcome {
            if let Err(raised) = told {
                pending.get_or_insert(raised);
            }
            break outcome;
        }
        if let Err(raised) = told.and_then(|()| py.check_signals()) {
            stop.send_replace(true);
            if pending.is_some() {
                // The second time it is meant.
                task.abort();
                return Err(raised);
            }
            pending = Some(raised);
        }
    };
    let (said, problems) = match caller.said() {
        Some(mut said) => (std::mem::take(&mut said.err), std::mem::take(&mut said.problems)),
        None => (String::new(), Vec::new()),
    };
    if let Some(raised) = pending {
        let by_key = raised.is_instance_of::<PyKeyboardInterrupt>(py);
        return Err(match outcome {
            Err(error) if by_key => exception(py, &error, &problems),
            Err(error) => {
                if error.code() != ErrorCode::Interrupted {
                    noted(py, &raised, &format!("what was stopped by this had failed: {error}"));
                }
                raised
            }
            Ok(value) => {
                let told = if by_key { interrupted(py, DONE) } else { raised };
                if !by_key {
                    noted(py, &told, DONE);
                }
                if let Some(report) = report(&value) {
                    reported(py, &told, report);
                }
                told
            }
        });
    }
    match outcome {
        Ok(value) => {
            log(py, said, &problems)?;
            Ok(value)
        }
        Err(error) => Err(exception(py, &error, &problems)),
    }
}

/// What is said of work that was to be stopped and was not.
const DONE: &str = "it was done before it could be stopped";

/// Adds a line to what an exception tells.
fn noted(py: Python<'_>, raised: &PyErr, text: &str) {
    let value = raised.value(py);
    // Python 3.10 has no notes.
    if let Err(failed) = value.hasattr("add_note").and_then(|notes| match notes {
        true => value.call_method1("add_note", (text,)).map(drop),
        false => Ok(()),
    }) {
        failed.write_unraisable(py, Some(value));
    }
}

/// Has an exception carry the report of what was done: a document, or text.
fn reported(py: Python<'_>, raised: &PyErr, report: &str) {
    let value = raised.value(py);
    let document = match serde_json::from_str(report) {
        Ok(document) => to_python(py, &document),
        Err(_) => Ok(PyString::new(py, report).into_any()),
    };
    if let Err(failed) = document.and_then(|document| value.setattr("report", document)) {
        failed.write_unraisable(py, Some(value));
    }
}

/// Tells what the command line would say on standard error.
fn log(py: Python<'_>, said: String, problems: &[datamesh_core::Diagnostic]) -> PyResult<()> {
    let lines = said.lines().map(str::to_owned).filter(|line| !line.trim().is_empty());
    let lines: Vec<String> = lines.chain(problems.iter().map(ToString::to_string)).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let logger = py.import("logging")?.call_method1("getLogger", ("data_mesh_framework",))?;
    for line in lines {
        logger.call_method1("warning", ("%s", line))?;
    }
    Ok(())
}
