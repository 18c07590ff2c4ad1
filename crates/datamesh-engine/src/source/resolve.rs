//! From a source's path or address to the files to read.

use std::io::Read;
use std::path::{Path, PathBuf};

use datamesh_app::ports::BoundSource;
use datamesh_core::contract::SourceFormat;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::Storage;
use datamesh_iceberg::storage::{StorageReader, shown, split};

/// The files of a source, in a stable order.
#[derive(Clone, Debug, Default)]
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
    pub(crate) place: SourcePlace,
    pub(crate) format: SourceFormat,
    pub(crate) gzip: bool,
    storage: Storage,
}

/// Where a source file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourcePlace {
    StandardInput,
    Local(PathBuf),
    /// The URL of a file in an object store or on a web server.
    Remote(String),
}

impl SourceFile {
    /// A file of a test.
    #[cfg(test)]
    pub(crate) fn local(name: &str, path: PathBuf, format: SourceFormat) -> Self {
        let (gzip, storage) = (is_gzip(name), Storage::new([]));
        Self { name: name.to_owned(), place: SourcePlace::Local(path), format, gzip, storage }
    }

    /// Opens the file for one sequential read.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>> {
        match &self.place {
            SourcePlace::StandardInput => Ok(Box::new(std::io::stdin())),
            SourcePlace::Local(path) => {
                let file = std::fs::File::open(path)
                    .map_err(|error| Error::io(ErrorCode::SourceUnreadable, "open", path, error))?;
                Ok(Box::new(file))
            }
            SourcePlace::Remote(url) => self.storage.stream(url),
        }
    }

    /// Opens the file for reading wherever in it, as formats with an index need.
    ///
    /// # Errors
    /// `invalid-argument` for standard input, which can be read but once.
    pub(crate) fn open_ranged(&self) -> Result<StorageReader> {
        match &self.place {
            SourcePlace::StandardInput => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} cannot be read from standard input", self.format),
            )
            .with_help("it has its index at the end; save it to a file first")),
            SourcePlace::Local(path) => StorageReader::local(path),
            SourcePlace::Remote(url) => self.storage.open(url),
        }
    }
}

/// Finds the files that a source means.
///
/// # Errors
/// `source-unreadable` where there is none, or where a file's format cannot be told.
pub(crate) async fn resolve(storage: &Storage, source: &BoundSource) -> Result<ResolvedSource> {
    let spec = &source.spec;
    if source.paths.iter().any(|path| path == "-") {
        let format = spec.format.unwrap_or(SourceFormat::Csv);
        if format == SourceFormat::Parquet || source.paths.len() > 1 {
            return Err(Error::new(ErrorCode::InvalidArgument, "standard input is one stream, and no Parquet")
                .with_help(
                    "Parquet has its index at the end; save it to a file first, and name several files without `-`",
                ));
        }
        let (name, place, storage) = ("standard input".into(), SourcePlace::StandardInput, storage.clone());
        return Ok(ResolvedSource {
            files: vec![SourceFile { name, place, format, gzip: false, storage }],
            total: None,
        });
    }
    let mut found = Vec::new();
    for path in &source.paths {
        match path.split_once("://") {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => found.extend(find(source, path)?),
            Some(_) => found.extend(find_remote(storage, source, path).await?),
            None => found.extend(find(source, path)?),
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    let mut files = Vec::new();
    let mut total = Some(0);
    for (place, size) in found {
        let (name, guessed, gzip) = match &place {
            SourcePlace::Remote(url) => (shown(url), guess(file_name(url)), is_gzip(file_name(url))),
            SourcePlace::Local(path) => {
                let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                (path.display().to_string(), guess(&name), is_gzip(&name))
            }
            SourcePlace::StandardInput => continue,
        };
        let Some(format) = spec.format.or(guessed) else {
            return Err(Error::new(
                ErrorCode::SourceUnreadable,
                format!("the format of `{name}` cannot be told from its name"),
            )
            .with_help("add `format: csv`, `ndjson`, `json`, `parquet`, `arrow` or `avro` to the source"));
        };
        total = total.zip(size).map(|(total, size)| total + size);
        files.push(SourceFile { name, place, format, gzip, storage: storage.clone() });
    }
    Ok(ResolvedSource { files, total })
}

/// The files that an address in an object store means: a file, all files below a prefix, or those that fit a pattern; a
/// web server serves files only.
async fn find_remote(storage: &Storage, source: &BoundSource, wanted: &str) -> Result<Vec<(SourcePlace, Option<u64>)>> {
    // A file of a web server is asked for once, when it is read: an address can be good for one request of one kind.
    if wanted.starts_with("http://") || wanted.starts_with("https://") {
        return Ok(vec![(SourcePlace::Remote(wanted.to_owned()), None)]);
    }
    let (store, _) = split(wanted)?;
    if store.contains(['*', '?', '[']) {
        let message = format!("`{wanted}` has a pattern in its bucket's name");
        return Err(
            Error::new(ErrorCode::InvalidArgument, message).with_help("name one bucket; its files may be a pattern")
        );
    }
    if !wanted.ends_with('/')
        && let Some(size) = storage.size(wanted).await?
    {
        return Ok(vec![(SourcePlace::Remote(wanted.to_owned()), Some(size))]);
    }
    let pattern = wanted.find(['*', '?', '[']);
    let folder = match pattern {
        Some(at) => wanted[..at].rsplit_once('/').map_or(wanted, |(folder, _)| folder),
        None => wanted.trim_end_matches('/'),
    };
    let mut files = storage.walk(folder).await?;
    match pattern {
        Some(_) => {
            let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
            // Only what follows the folder is a pattern.
            let rest = wanted[folder.len()..].trim_start_matches('/');
            let pattern = glob::Pattern::new(rest).map_err(|error| {
                Error::new(ErrorCode::InvalidArgument, format!("`{wanted}` is not a pattern: {error}"))
            })?;
            files.retain(|file| {
                let path = file.url.get(folder.len()..).unwrap_or("").trim_start_matches('/');
                pattern.matches_with(path, options)
            });
        }
        None => files.retain(|file| {
            let mut names = file.url.get(folder.len()..).unwrap_or("").split('/');
            !names.any(|name| name.starts_with(['.', '_']))
                && (source.spec.format.is_some() || guess(file_name(&file.url)).is_some())
        }),
    }
    if files.is_empty() {
        return Err(Error::new(ErrorCode::SourceUnreadable, format!("no data at `{wanted}`: there is no such file"))
            .with_help("check the bucket, the prefix and the pattern"));
    }
    Ok(files.into_iter().map(|file| (SourcePlace::Remote(file.url), Some(file.bytes))).collect())
}

/// The files that one local path, folder or glob means.
fn find(source: &BoundSource, wanted: &str) -> Result<Vec<(SourcePlace, Option<u64>)>> {
    if wanted.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "a source has an empty path")
            .with_help("name a file, a folder or a glob"));
    }
    let path = source.folder.join(wanted);
    let mut paths = Vec::new();
    if path.is_dir() {
        walk(&path, &mut paths)?;
        let known = |path: &Path| path.file_name().is_some_and(|name| guess(&name.to_string_lossy()).is_some());
        paths.retain(|path| source.spec.format.is_some() || known(path));
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
    let sized = paths.into_iter().map(|path| {
        let size = std::fs::metadata(&path).map(|metadata| metadata.is_file().then_some(metadata.len()));
        let size = size.map_err(|error| Error::io(ErrorCode::SourceUnreadable, "read", &path, error))?;
        Ok((SourcePlace::Local(path), size))
    });
    sized.collect()
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

/// The name of the file that a URL means, without a query.
fn file_name(url: &str) -> &str {
    let web = url.starts_with("http://") || url.starts_with("https://");
    let end = if web { url.find(['?', '#']).unwrap_or(url.len()) } else { url.len() };
    url[..end].rsplit('/').next().unwrap_or("")
}

fn is_gzip(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("gz"))
}

/// The format that a file's name says.
fn guess(name: &str) -> Option<SourceFormat> {
    SourceFormat::of_name(name)
}
