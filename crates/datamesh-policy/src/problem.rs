//! What is wrong with a mesh's governance: many problems at a time, each with a place and a way to mend it.

use std::fmt;

use datamesh_core::diagnostic::{Diagnostic, Level, Location};
use serde::Serialize;

/// The file that principals, roles, attributes and waivers stand in.
pub const MESH_FILE: &str = "mesh.yaml";

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyProblem {
    /// Where: the policy's file, or `mesh.yaml` without a line.
    pub location: Location,
    /// Stable kebab-case id.
    pub id: &'static str,
    /// What is wrong: lower case, no final period.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What of `mesh.yaml` is meant, keys and names of items: `principals`, `alice`, `attributes`, `country`. A reader of
    /// YAML finds the line by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
}

impl PolicyProblem {
    /// A problem of `mesh.yaml`.
    pub(crate) fn of_mesh(id: &'static str, path: &[&str], message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            location: Location { file: MESH_FILE.to_owned(), ..Location::default() },
            id,
            message: message.into(),
            help,
            path: path.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    /// As other problems of documents are shown.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            id: self.id,
            level: Level::Error,
            message: self.message.clone(),
            help: self.help.clone(),
            location: self.location.clone(),
        }
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic().fmt(f)
    }
}

/// A place in a file's text: byte offset and length to line and column.
pub(crate) fn locate(file: &str, text: &str, offset: usize, length: usize) -> Location {
    let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    Location {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
        offset,
        length,
    }
}
