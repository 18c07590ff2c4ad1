//! What a check found, for people's tools: SARIF 2.1.0 and GitHub's workflow commands.

mod github;
mod sarif;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use datamesh_core::{Diagnostic, Level, Location, Result};

pub(crate) use github::to_github;
pub(crate) use sarif::to_sarif;

/// How what was found in documents is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FindingsFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
    /// SARIF 2.1.0, which code hosts and editors read.
    Sarif,
    /// GitHub's workflow commands, which annotate the lines of a change.
    Github,
}

/// One thing that was found.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// Stable id of its kind.
    pub(crate) rule: String,
    /// What the kind is, in one sentence.
    pub(crate) about: String,
    /// How much it matters.
    pub(crate) level: Level,
    /// What is wrong.
    pub(crate) message: String,
    /// How to mend it.
    pub(crate) help: Option<String>,
    /// Where.
    pub(crate) location: Location,
    /// What tells it from others of its kind in the file, whatever line it is on; the text of its line where there is none.
    pub(crate) identity: Option<String>,
}

impl Finding {
    /// A problem of a document.
    pub(crate) fn of(diagnostic: &Diagnostic) -> Self {
        Self {
            rule: diagnostic.id.to_owned(),
            about: diagnostic.id.replace('-', " "),
            level: diagnostic.level,
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            location: diagnostic.location.clone(),
            identity: None,
        }
    }

    /// What is wrong, and how to mend it.
    fn text(&self) -> String {
        match &self.help {
            Some(help) => format!("{} (help: {help})", self.message),
            None => self.message.clone(),
        }
    }
}

/// First and last line and column of a place, from 1, columns in characters; the last is past the end. `None` where the
/// whole file is meant.
fn region(location: &Location, sources: &BTreeMap<String, String>) -> Option<[usize; 4]> {
    if location.line == 0 {
        return None;
    }
    let start = (location.line, location.column.max(1));
    let text = sources.get(&location.file).and_then(|source| {
        let end = location.offset.checked_add(location.length)?;
        source.get(location.offset..end)
    });
    // The end of a value that is followed by a line break is not the next line.
    let text = text.unwrap_or_default().trim_end();
    let lines = text.matches('\n').count();
    let last = text.rsplit('\n').next().unwrap_or_default().chars().count();
    let end = if lines == 0 { (start.0, start.1 + last) } else { (start.0 + lines, last + 1) };
    Some([start.0, start.1, end.0, end.1])
}

/// The path of a file from the working folder, with `/` between its parts, where it lies below it.
fn relative(file: &str, working: &Path) -> Option<String> {
    let path = Path::new(file);
    let mut parts: Vec<String> = Vec::new();
    let below = if path.is_absolute() { path.strip_prefix(working).ok()? } else { path };
    for component in below.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                parts.pop()?;
            }
            std::path::Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => return None,
        }
    }
    Some(parts.join("/"))
}

/// The working folder, as far as it can be told.
fn working() -> Result<std::path::PathBuf> {
    use datamesh_core::{Error, ErrorCode};
    std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))
}
