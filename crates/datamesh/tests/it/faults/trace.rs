//! Reading what `strace` saw.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The system calls that make or change files, and those that make them durable. Not every machine has those with `?`.
pub(crate) const FILE_CALLS: &str = "trace=openat,?mkdir,mkdirat,?rename,renameat,?renameat2,write,writev,pwrite64,\
    pwritev,?pwritev2,ftruncate,fsync,fdatasync";

/// Whether `strace` is installed and may trace here.
pub(crate) fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    traced.is_ok_and(|output| output.status.success())
}

/// A system call that a process made. Its begin and end are lines of the trace, which are in the order of time.
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) begun: usize,
    pub(crate) ended: usize,
}

impl Call {
    fn parse(text: &str, at: usize) -> Option<Self> {
        let (name, arguments) = text.split_once('(')?;
        let path = match name {
            // `-y` writes a file descriptor as `7</its/path>`.
            "fsync" | "fdatasync" | "ftruncate" | "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                arguments.split_once('<')?.1.split_once('>')?.0
            }
            "rename" | "renameat" | "renameat2" => arguments.split('"').nth(3)?,
            _ => arguments.split('"').nth(1)?,
        };
        Some(Self { name: name.to_owned(), path: path.to_owned(), text: text.to_owned(), begun: at, ended: at })
    }

    fn failed(&self) -> bool {
        self.text.rsplit_once(" = ").is_none_or(|(_, result)| result.starts_with('-') || result.starts_with('?'))
    }

    /// Whether it makes a file's or folder's content durable.
    pub(crate) fn syncs(&self, path: &Path) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && Path::new(&self.path) == path
    }

    /// Whether it makes a file or folder, or gives it another name.
    pub(crate) fn creates(&self) -> bool {
        (self.name == "openat" && self.text.contains("O_CREAT"))
            || self.name.starts_with("mkdir")
            || self.name.starts_with("rename")
    }

    /// Whether it changes a file's content.
    pub(crate) fn writes(&self) -> bool {
        self.name.starts_with("write") || self.name.starts_with("pwrite") || self.name == "ftruncate"
    }
}

/// The calls of a trace by `strace -f -y -o`. A call that another thread's line cuts in two is put together again.
pub(crate) fn calls(trace: &str) -> Vec<Call> {
    let (mut calls, mut cut) = (Vec::new(), BTreeMap::new());
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.trim_start().split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix("<unfinished ...>") {
            cut.insert(thread, Call::parse(start, at));
        } else if text.starts_with("<... ") {
            if let Some(Some(mut call)) = cut.remove(thread) {
                call.text.push_str(text);
                call.ended = at;
                calls.push(call);
            }
        } else {
            calls.extend(Call::parse(text, at));
        }
    }
    calls.retain(|call| !call.failed());
    calls.sort_by_key(|call| call.begun);
    calls
}
