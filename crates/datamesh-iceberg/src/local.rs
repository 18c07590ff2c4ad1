//! Local files that are on the disk before anybody hears of them.
//!
//! `object_store` does not synchronise what it writes, so commits do not go through it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use datamesh_core::{Error, ErrorCode, Result};

/// The URL of an absolute path, as metadata documents name files.
pub fn to_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// The path that a metadata document means.
pub fn to_path(url: &str) -> PathBuf {
    PathBuf::from(url.strip_prefix("file://").unwrap_or(url))
}

/// How many folders above a new one may be as new: `warehouse/domain/product/table/data/attempt`.
const LEVELS: usize = 6;

/// Makes a folder and its missing parents, and synchronises the parents.
///
/// A parent that exists may have been made a moment ago by somebody who has not synchronised it yet, so existing ones are
/// synchronised too, where they can be opened: one that cannot was not made by us.
pub fn make_folder(path: &Path) -> Result<()> {
    let existing = path.ancestors().find(|folder| folder.exists()).map_or(0, |folder| folder.components().count());
    fs::create_dir_all(path).map_err(|error| Error::io(ErrorCode::WriteFailed, "make the folder", path, error))?;
    for folder in path.ancestors().skip(1).take(LEVELS) {
        let synced = sync_folder(folder);
        if folder.components().count() >= existing {
            synced?;
        }
    }
    Ok(())
}

/// Writes a whole file and synchronises it. Its folder is synchronised by [`sync_folder`].
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(ErrorCode::WriteFailed, "write", path, error))
}

/// Writes a whole file where there is none, and synchronises it; `false` where there is one.
pub fn create_file(path: &Path, bytes: &[u8]) -> Result<bool> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io(ErrorCode::WriteFailed, "write", path, error)),
    }
}

/// Makes a folder's entries durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(|error| Error::io(ErrorCode::WriteFailed, "synchronise the folder", path, error))
}
