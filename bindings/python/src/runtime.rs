//! The runtime that Rust works on, and what a fork does to it.
//!
//! A child of `fork` has none of its parent's threads, and whatever lock one of them held is held for ever in it; what SQLite
//! holds of locks is memory that it would take for its own. So before a fork everything is closed: meshes, the connections to
//! their registries, the runtime with its threads. Parent and child then open anew what they need. Where that cannot be,
//! because a call runs or rows are being read, everything stays as it is, and the child opens no mesh.
//!
//! INVARIANT: what is shared between processes by `fork` is locked only while the interpreter is held, and nothing of Python
//! is called meanwhile. `os.fork` holds it too, so no lock is held by a thread that the child does not have.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use datamesh_core::{Error, ErrorCode, Result};
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::errors::exception;

/// How long a fork waits for what is ending.
const GRACE: Duration = Duration::from_secs(5);

/// A value of one process. In a child it is not there, and never dropped.
pub(crate) struct PerProcess<T>(Mutex<Option<(u32, T)>>);

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// This process's value, which is no longer kept.
    fn take(&self, _py: Python<'_>) -> Option<T> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.take() {
            Some((process, value)) if process == std::process::id() => Some(value),
            other => {
                *held = other;
                None
            }
        }
    }
}

impl<T: Clone> PerProcess<T> {
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

/// What lives on the runtime and is opened anew after a fork.
trait Closes: Send + Sync {
    fn close(&self, py: Python<'_>);
}

impl<T: Send> Closes for PerProcess<T> {
    fn close(&self, py: Python<'_>) {
        drop(self.take(py));
    }
}

static CLOSING: Mutex<Vec<Weak<dyn Closes>>> = Mutex::new(Vec::new());

/// A place for what is to be closed before a fork.
pub(crate) fn closed_before_fork<T: Send + 'static>(_py: Python<'_>) -> Arc<PerProcess<T>> {
    let place = Arc::new(PerProcess::new());
    let mut closing = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
    closing.retain(|known| known.strong_count() > 0);
    let known: Arc<dyn Closes> = place.clone();
    closing.push(Arc::downgrade(&known));
    place
}

/// How much goes on in a process: its id, and how many there are. Rows may be let go of while the interpreter is not held, so
/// this is no lock.
static GOING_ON: AtomicU64 = AtomicU64::new(0);

/// Something that a fork must not cut in two: a call, or rows that are being read.
pub(crate) struct GoingOn {
    process: u32,
}

impl GoingOn {
    pub(crate) fn begin() -> Self {
        let process = std::process::id();
        count(process, |going| going + 1);
        Self { process }
    }

    fn is_anything() -> bool {
        let (process, going) = parts(GOING_ON.load(Ordering::SeqCst));
        process == std::process::id() && going > 0
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            count(self.process, |going| going.saturating_sub(1));
        }
    }
}

fn parts(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

fn count(process: u32, change: impl Fn(u32) -> u32) {
    let changed = |state| {
        let (counted, going) = parts(state);
        let going = change(if counted == process { going } else { 0 });
        Some(u64::from(process) << 32 | u64::from(going))
    };
    // It always changes.
    let _ = GOING_ON.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
}

/// The process that has opened a mesh and not closed it since.
static OPENER: AtomicU32 = AtomicU32::new(0);

/// Refuses to open a mesh in a child whose parent had one open when it was forked.
pub(crate) fn one_process() -> Result<()> {
    let own = std::process::id();
    match OPENER.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => Ok(()),
        Err(opener) if opener == own => Ok(()),
        Err(_) if Path::new(TASKS).exists() => Err(Error::new(
            ErrorCode::InvalidArgument,
            "this process was forked while another thread used a mesh, or while rows of one were being read",
        )
        .with_help(
            "fork when no call runs and every stream was read to its end or closed, or start processes with \
             multiprocessing's `spawn` or `forkserver`",
        )),
        Err(_) => Err(Error::new(
            ErrorCode::InvalidArgument,
            "this process was forked from one that had used a mesh, which this system does not allow",
        )
        .with_help(
            "start processes with multiprocessing's `spawn` or `forkserver`, or fork before a mesh is first used",
        )),
    }
}

static RUNTIME: PerProcess<Arc<Runtime>> = PerProcess::new();

/// Where Linux lists the threads of a process.
const TASKS: &str = "/proc/self/task";
/// What the runtime's threads are called.
const THREADS: &str = "datamesh";
/// What the threads of connections to SQLite are called, as far as the system keeps it.
const CONNECTIONS: &str = "sqlx-sqlite-wor";

/// This process's runtime.
pub(crate) fn runtime(py: Python<'_>) -> PyResult<Arc<Runtime>> {
    if let Some(runtime) = RUNTIME.get(py) {
        return Ok(runtime);
    }
    let started = tokio::runtime::Builder::new_multi_thread().thread_name(THREADS).enable_all().build();
    let started = started
        .map_err(|error| exception(py, &Error::new(ErrorCode::Internal, format!("cannot start: {error}")), &[]))?;
    Ok(RUNTIME.keep(py, Arc::new(started)))
}

/// Closes everything, so that the child that is about to be forked may use what its parent uses. The interpreter is held all
/// the time: nothing is begun meanwhile.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    if GoingOn::is_anything() {
        return;
    }
    let until = Instant::now() + GRACE;
    if let Some(runtime) = RUNTIME.take(py) {
        let places = std::mem::take(&mut *CLOSING.lock().unwrap_or_else(PoisonError::into_inner));
        {
            let _entered = runtime.enter();
            for place in places.iter().filter_map(Weak::upgrade) {
                place.close(py);
            }
        }
        *CLOSING.lock().unwrap_or_else(PoisonError::into_inner) = places;
        // What was read is being recorded, and connections are being given back.
        let ended = waited(until, || runtime.metrics().num_alive_tasks() == 0);
        let runtime = match Arc::try_unwrap(runtime) {
            Ok(runtime) if ended => runtime,
            unended => {
                RUNTIME.keep(py, unended.map_or_else(|shared| shared, Arc::new));
                return;
            }
        };
        runtime.shutdown_timeout(until.saturating_duration_since(Instant::now()));
    }
    if waited(until, || threads() == Some(0)) {
        OPENER.store(0, Ordering::SeqCst);
    }
}

fn waited(until: Instant, is_so: impl Fn() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many threads Rust has in this process; `None` where the system does not tell.
fn threads() -> Option<usize> {
    let tasks = std::fs::read_dir(TASKS).ok()?;
    // The first thread is called like the program, whatever that is called.
    let main = std::process::id().to_string();
    let names = tasks.map(|task| {
        let task = task.ok()?;
        if task.file_name().to_str() == Some(main.as_str()) {
            return Some(String::new());
        }
        let name = std::fs::read_to_string(task.path().join("comm"));
        match name {
            Ok(name) => Some(name),
            // It has just ended.
            Err(_) => Some(String::new()),
        }
    });
    let names = names.collect::<Option<Vec<String>>>()?;
    Some(names.iter().filter(|name| [THREADS, CONNECTIONS].contains(&name.trim_end())).count())
}
