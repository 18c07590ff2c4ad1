//! Who calls: on whose behalf a command acts, where what it says goes, and what stops it. One caller is in scope while a
//! command runs, so that several callers of one process never meet.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datamesh_app::Progress;
use datamesh_core::{Diagnostic, Error, ErrorCode, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

tokio::task_local! {
    static CALLER: Arc<Caller>;
}

/// Ends when a caller wants its command to stop.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// Who calls.
pub struct Caller {
    /// Somebody else than whoever runs the program.
    pub principal: Option<String>,
    /// What for.
    pub purpose: Option<String>,
    /// The door, such as `command-line`.
    pub door: &'static str,
    /// Where what is said goes.
    pub outlet: Outlet,
    /// What stops it; `None`: the signals of the process.
    pub stop: Option<Stopper>,
    /// Who hears how far it is; `None`: who sits at the terminal.
    pub progress: Option<Arc<dyn Progress>>,
    /// Asked before a registry is opened.
    pub gate: fn() -> Result<()>,
}

/// What stops a command that has something to clean up. One that never listens can be dropped.
pub struct Stopper {
    stop: Stop,
    heard: AtomicBool,
}

impl Stopper {
    /// What ends when the caller wants its command to stop.
    pub fn new(stop: Stop) -> Self {
        Self { stop, heard: AtomicBool::new(false) }
    }

    /// Listens: whoever does ends by itself.
    pub fn listen(&self) -> Stop {
        self.heard.store(true, Ordering::SeqCst);
        self.stop.clone()
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst)
    }
}

/// Where what a command says goes.
pub enum Outlet {
    /// The process's standard output and standard error.
    Process,
    /// Memory.
    Captured(Mutex<Said>),
}

/// What a command said.
#[derive(Debug, Default)]
pub struct Said {
    /// To standard output.
    pub out: Vec<u8>,
    /// To standard error, without the problems of documents.
    pub err: String,
    /// Problems of documents, beside the report.
    pub problems: Vec<Diagnostic>,
}

impl Caller {
    /// Who types a command.
    pub fn at_command_line(principal: Option<String>, purpose: Option<String>) -> Self {
        Self {
            principal,
            purpose,
            door: "command-line",
            outlet: Outlet::Process,
            stop: None,
            progress: None,
            gate: || Ok(()),
        }
    }

    /// What was said so far, where it is captured.
    pub fn said(&self) -> Option<MutexGuard<'_, Said>> {
        match &self.outlet {
            Outlet::Process => None,
            Outlet::Captured(said) => Some(said.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// Runs a future for a caller.
pub async fn scope<F: Future>(caller: Arc<Caller>, future: F) -> F::Output {
    CALLER.scope(caller, future).await
}

/// Runs a function for a caller.
pub fn sync_scope<T>(caller: Arc<Caller>, function: impl FnOnce() -> T) -> T {
    CALLER.sync_scope(caller, function)
}

/// The caller in scope.
pub fn current() -> Option<Arc<Caller>> {
    CALLER.try_with(Arc::clone).ok()
}

/// Has what follows run to its end: it is short, and is not cut off in the middle of a commit by a caller who wants it to
/// stop. To be called before anything is waited for.
///
/// # Errors
/// `interrupted` where the caller wants it to stop already: nothing was done.
pub fn to_its_end() -> Result<()> {
    match current().as_ref().and_then(|caller| caller.stop.as_ref()) {
        Some(stopper) if stopper.listen().now_or_never().is_some() => {
            Err(Error::new(ErrorCode::Interrupted, "stopped; nothing was done"))
        }
        _ => Ok(()),
    }
}

/// Whether what is said to standard output is read on a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    is_process() && std::io::stdout().is_terminal()
}

/// Whether what is said to standard error is read on a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    is_process() && std::io::stderr().is_terminal()
}

fn is_process() -> bool {
    current().is_none_or(|caller| matches!(caller.outlet, Outlet::Process))
}

/// Standard output, or what takes its place.
pub(crate) fn out() -> Box<dyn Write + Send> {
    match current().filter(|caller| caller.said().is_some()) {
        Some(caller) => Box::new(Captured(caller)),
        None => Box::new(std::io::stdout()),
    }
}

/// Says something on standard error, or to what takes its place. Nobody can be told that it failed.
pub(crate) fn tell(text: &str) {
    match current().as_ref().and_then(|caller| caller.said()) {
        Some(mut said) => said.err.push_str(text),
        None => {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// The standard output of a caller whose output is captured.
struct Captured(Arc<Caller>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(mut said) = self.0.said() {
            said.out.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
