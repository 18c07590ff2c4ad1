//! From a source's path to the files to read.

use std::io::Read;
use std::path::{Path, PathBuf};

use datamesh_app::ports::BoundSource;
use datamesh_core::contract::SourceFormat;
use datamesh_core::{Error, ErrorCode, Result};

/// The files of a source, in a stable order.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedSource {
    pub(crate) files: Vec<SourceFile>,
    /// Sum of the files' sizes, where all are known.
    pub(crate) total: Option<u64>,
}

/// One file, or standard input.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// As shown to the user.
    pub(crate) name: String,
    /// `None` for standard input.
    pub(crate) path: Option<PathBuf>,
    pub(crate) format: SourceFormat,
    pub(crate) gzip: bool,
}

impl SourceFile {
    /// Opens the file for one sequential read.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>> {
        match &self.path {
            None => Ok(Box::new(std::io::stdin())),
            Some(path) => {
                let file = std::fs::File::open(path)
                    .map_err(|error| Error::io(ErrorCode::SourceUnreadable, "open", path, error))?;
                Ok(Box::new(file))
            }
        }
    }
}

/// Finds the files that a source means.
///
/// # Errors
/// `source-unreadable` where there is none, or where a file's format cannot be told.
pub(crate) fn resolve(source: &BoundSource) -> Result<ResolvedSource> {
    let spec = &source.spec;
    if source.paths.iter().any(|path| path == "-") {
        let format = spec.format.unwrap_or(SourceFormat::Csv);
        if format == SourceFormat::Parquet || source.paths.len() > 1 {
            return Err(Error::new(ErrorCode::InvalidArgument, "standard input is one stream of CSV or NDJSON")
                .with_help(
                    "Parquet has its index at the end; save it to a file first, and name several files without `-`",
                ));
        }
        let file = SourceFile { name: "standard input".into(), path: None, format, gzip: false };
        return Ok(ResolvedSource { files: vec![file], total: None });
    }
    let mut paths = Vec::new();
    for path in &source.paths {
        paths.extend(find(source, path)?);
    }
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    let mut total = Some(0);
    for path in paths {
        let guessed = guess(&path);
        let Some(format) = spec.format.or(guessed.map(|(format, _)| format)) else {
            return Err(Error::new(
                ErrorCode::SourceUnreadable,
                format!("the format of `{}` cannot be told from its name", path.display()),
            )
            .with_help("add `format: csv`, `ndjson` or `parquet` to the source"));
        };
        let gzip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        let size = std::fs::metadata(&path).map(|metadata| metadata.is_file().then_some(metadata.len()));
        let size = size.map_err(|error| Error::io(ErrorCode::SourceUnreadable, "read", &path, error))?;
        total = total.zip(size).map(|(total, size)| total + size);
        files.push(SourceFile { name: path.display().to_string(), path: Some(path), format, gzip });
    }
    Ok(ResolvedSource { files, total })
}

/// The files that one path, folder or glob means.
fn find(source: &BoundSource, wanted: &str) -> Result<Vec<PathBuf>> {
    if let Some((scheme, _)) = wanted.split_once("://") {
        return Err(Error::new(ErrorCode::InvalidArgument, format!("sources at `{scheme}://` are not supported yet"))
            .with_help("use a local file"));
    }
    if wanted.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "a source has an empty path")
            .with_help("name a file, a folder or a glob"));
    }
    let path = source.folder.join(wanted);
    let mut paths = Vec::new();
    if path.is_dir() {
        walk(&path, &mut paths)?;
        paths.retain(|path| source.spec.format.is_some() || guess(path).is_some());
    } else if path.exists() {
        paths.push(path.clone());
    } else if wanted.contains(['*', '?', '[']) {
        // Only what the user wrote is a pattern, not the folder it starts from.
        let escaped = glob::Pattern::escape(&source.folder.to_string_lossy());
        let path = Path::new(&escaped).join(wanted);
        let pattern = path.to_str().ok_or_else(|| Error::new(ErrorCode::InvalidArgument, "the path is not UTF-8"))?;
        let found = glob::glob(pattern).map_err(|error| {
            Error::new(ErrorCode::InvalidArgument, format!("`{}` is not a pattern: {error}", wanted))
        })?;
        for entry in found {
            let path = entry.map_err(|error| {
                let path = error.path().to_owned();
                Error::io(ErrorCode::SourceUnreadable, "read", &path, error.into())
            })?;
            if path.is_file() {
                paths.push(path);
            }
        }
    }
    if paths.is_empty() {
        let why = if path.is_dir() { "the folder has no file that can be read" } else { "there is no such file" };
        return Err(Error::new(ErrorCode::SourceUnreadable, format!("no data at `{}`: {why}", path.display()))
            .with_help("a relative path in a manifest starts from the manifest's folder, on the command line from the working folder"));
    }
    Ok(paths)
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let fail = |error| Error::io(ErrorCode::SourceUnreadable, "read the folder", folder, error);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
        let kind = entry.file_type().map_err(fail)?;
        if hidden {
            continue;
        }
        // A link to a folder is not followed: it could lead in a circle.
        if kind.is_dir() {
            walk(&entry.path(), paths)?;
        } else if entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

fn guess(path: &Path) -> Option<(SourceFormat, bool)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (name, gzip) = match name.strip_suffix(".gz") {
        Some(name) => (name.to_owned(), true),
        None => (name, false),
    };
    let format = match name.rsplit('.').next()? {
        "csv" => SourceFormat::Csv,
        "ndjson" | "jsonl" => SourceFormat::Ndjson,
        "parquet" | "pq" if !gzip => SourceFormat::Parquet,
        _ => return None,
    };
    Some((format, gzip))
}
