//! The folders `policies/` of a mesh and of its domains: policies, waivers and tests of policies.
//!
//! Policies are only read as text here: what they say is Cedar, which another crate knows.

mod cases;
mod check;
mod waivers;

use std::path::{Path, PathBuf};

use datamesh_core::access::PolicyFile;
use datamesh_core::{Diagnostic, Error, ErrorCode, Level, Location, Name, Result};

pub(crate) use check::check;

use crate::mesh::{Mesh, read_bounded};
use crate::yaml::{Document, MAX_BYTES};

/// What a file of a policies folder is.
enum FileKind {
    Policies,
    Waivers,
    Cases,
}

/// A folder with policies, of the mesh or of one domain.
struct Scope<'s> {
    /// The mesh's folder.
    root: &'s Path,
    /// The folder that `policies/` lies in.
    folder: &'s Path,
    /// The domain; `None`: the mesh.
    domain: Option<&'s Name>,
}

impl Scope<'_> {
    /// The file's path within the mesh's folder, with `/`.
    fn path_of(&self, file: &Path) -> String {
        let inner = file.strip_prefix(self.root).unwrap_or(file);
        inner.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    }
}

/// Reads the `policies/` of `folder`, which is that of a mesh or of a domain in the mesh at `root`.
pub(crate) fn read(mesh: &mut Mesh, root: &Path, folder: &Path, domain: Option<&Name>) -> Result<()> {
    let scope = Scope { root, folder, domain };
    for file in files(&folder.join("policies"))? {
        let Some(kind) = kind_of(&file) else {
            if let Some(found) = stray(&file) {
                mesh.diagnostics.push(found);
            }
            continue;
        };
        if let Some(found) = outside(&scope, &file)? {
            mesh.diagnostics.push(found);
            continue;
        }
        match kind {
            FileKind::Policies => read_policies(mesh, &scope, &file)?,
            FileKind::Waivers => {
                let read = mesh.read(&file, |document, root| Some(waivers::read(document, root, domain)))?;
                let read = read.unwrap_or_default();
                mesh.waiver_files.push((file, read.len()));
                mesh.waivers.extend(read);
            }
            FileKind::Cases => {
                let path = scope.path_of(&file);
                let read = mesh.read(&file, |document, root| Some(cases::read(document, root, domain, &path)))?;
                let read = read.unwrap_or_default();
                mesh.case_files.push((file, read.len()));
                mesh.policy_cases.extend(read);
            }
        }
    }
    Ok(())
}

/// The files in a folder, by name, without those that editors and systems hide.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let fail = |error| Error::io(ErrorCode::InvalidManifest, "read the folder", folder, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn kind_of(file: &Path) -> Option<FileKind> {
    let name = file.file_name()?.to_string_lossy();
    if name == "waivers.yaml" {
        Some(FileKind::Waivers)
    } else if name.ends_with(".tests.yaml") {
        Some(FileKind::Cases)
    } else {
        name.ends_with(".cedar").then_some(FileKind::Policies)
    }
}

fn whole(id: &'static str, level: Level, file: &Path, message: String, help: &str) -> Diagnostic {
    let location = Location { file: file.display().to_string(), ..Location::default() };
    Diagnostic { id, level, message, help: Some(help.to_owned()), location }
}

/// A document that somebody may think is read.
fn stray(file: &Path) -> Option<Diagnostic> {
    let extension = file.extension()?.to_string_lossy().to_ascii_lowercase();
    let help = match extension.as_str() {
        "yaml" | "yml" => "name it waivers.yaml, or `<name>.tests.yaml`",
        "cedar" => "write the ending in lower case: `.cedar`",
        _ => return None,
    };
    let message = "nothing reads this file: its name is that of no kind of document".to_owned();
    Some(whole("unread-file", Level::Warning, file, message, help))
}

/// A link that leads out of the folder which the policies are of.
fn outside(scope: &Scope<'_>, file: &Path) -> Result<Option<Diagnostic>> {
    let fail = |error| Error::io(ErrorCode::InvalidManifest, "find", file, error);
    let folder = std::fs::canonicalize(scope.folder).map_err(fail)?;
    Ok(match std::fs::canonicalize(file) {
        Ok(target) if !target.starts_with(&folder) => {
            let of = if scope.domain.is_some() { "domain" } else { "mesh" };
            let message = format!("this is a link that leads out of the folder of its {of}");
            Some(whole("link-outside", Level::Error, file, message, "put the file itself here"))
        }
        Ok(target) if !target.is_file() => {
            let message = "this is no file".to_owned();
            Some(whole("not-a-file", Level::Error, file, message, "put a file here, or remove it"))
        }
        Ok(_) => None,
        Err(error) => {
            let message = format!("this link leads nowhere: {error}");
            Some(whole("broken-link", Level::Error, file, message, "put the file itself here, or remove it"))
        }
    })
}

fn read_policies(mesh: &mut Mesh, scope: &Scope<'_>, file: &Path) -> Result<()> {
    let bytes = read_bounded(file)?;
    mesh.documents += 1;
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has more than {MAX_BYTES} bytes, which a file of policies has at most");
        mesh.diagnostics.push(whole("file-too-large", Level::Error, file, message, "split it"));
        return Ok(());
    }
    match Document::new(&file.display().to_string(), &bytes) {
        Ok(document) => mesh.policies.push(PolicyFile {
            domain: scope.domain.map(Name::sql),
            path: scope.path_of(file),
            text: document.text().to_owned(),
        }),
        Err(diagnostic) => mesh.diagnostics.push(*diagnostic),
    }
    Ok(())
}
