//! A folder as a catalog: one JSON document a database and a table.
//!
//! ```text
//! <root>/<database>/database.json
//! <root>/<database>/<table>.table.json
//! ```
//!
//! Documents are replaced as a whole. Updates are checked against the hash of the document, under the lock of the folder: of
//! two writers at the same moment the second sees what the first has written.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datamesh_core::canonical::sha256;
use datamesh_core::{Error, ErrorCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalog::{CatalogTable, Database};
use crate::provision::{Change, FoundDatabase, FoundTable, Scope, State, Target, TargetError};

/// Version of the documents.
pub const LOCAL_FORMAT: u32 = 1;

const DATABASE: &str = "database.json";
const TABLE: &str = ".table.json";
const LOCK: &str = ".lock";

/// A folder as a catalog.
#[derive(Clone, Debug)]
pub struct LocalTarget {
    root: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Document<T> {
    format: u32,
    #[serde(flatten)]
    object: T,
}

impl LocalTarget {
    /// The catalog of a folder, which is made with its first database.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn folder(&self, database: &str) -> PathBuf {
        self.root.join(database)
    }

    fn read_database(&self, name: &str) -> Result<Option<FoundDatabase>, TargetError> {
        let folder = self.folder(name);
        let Some((database, _)) = read::<Database>(&folder.join(DATABASE))? else { return Ok(None) };
        let mut tables = BTreeMap::new();
        for entry in entries(&folder)? {
            if let Some(table) = entry.strip_suffix(TABLE)
                && let Some(found) = self.read_table(name, table)?
            {
                tables.insert(table.to_owned(), found);
            }
        }
        Ok(Some(FoundDatabase { database, tables }))
    }

    fn read_table(&self, database: &str, name: &str) -> Result<Option<FoundTable>, TargetError> {
        let found = read::<CatalogTable>(&self.folder(database).join(format!("{name}{TABLE}")))?;
        Ok(found.map(|(table, text)| FoundTable { table, version: Some(sha256(text.as_bytes())) }))
    }

    /// Held until it is dropped; the system releases it with the process.
    fn lock(&self) -> Result<fs::File, TargetError> {
        fs::create_dir_all(&self.root).map_err(|error| failed("make", &self.root, error))?;
        let path = self.root.join(LOCK);
        let lock = fs::File::create(&path).and_then(|file| file.lock().map(|()| file));
        lock.map_err(|error| failed("lock", &path, error))
    }

    fn change(&self, change: &Change) -> Result<(), TargetError> {
        let _lock = self.lock()?;
        let table_path = |database: &str, table: &str| self.folder(database).join(format!("{table}{TABLE}"));
        match change {
            Change::CreateDatabase { database } => {
                let folder = self.folder(&database.name);
                fs::create_dir_all(&folder).map_err(|error| failed("make", &folder, error))?;
                create(&folder.join(DATABASE), database)
            }
            Change::UpdateDatabase { database, .. } => {
                let path = self.folder(&database.name).join(DATABASE);
                if !path.exists() {
                    return Err(TargetError::Missing);
                }
                replace(&path, database)
            }
            Change::CreateTable { database, table } => {
                if !self.folder(database).join(DATABASE).exists() {
                    return Err(TargetError::Missing);
                }
                create(&table_path(database, &table.name), table)
            }
            Change::UpdateTable { database, table, expected, .. } => {
                let found = self.read_table(database, &table.name)?.ok_or(TargetError::Missing)?;
                if expected.is_some() && *expected != found.version {
                    return Err(TargetError::Conflict);
                }
                replace(&table_path(database, &table.name), table)
            }
            Change::DeleteTable { database, table } => remove(&table_path(database, table)),
            Change::DeleteDatabase { database } => {
                let folder = self.folder(database);
                remove(&folder.join(DATABASE))?;
                match fs::remove_dir(&folder) {
                    Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(failed("remove", &folder, error)),
                    _ => Ok(()),
                }
            }
        }
    }
}

#[async_trait]
impl Target for LocalTarget {
    fn name(&self) -> &'static str {
        "local"
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }

    async fn describe(&self, scope: &Scope) -> Result<State, TargetError> {
        let mut state = State::default();
        for name in entries(&self.root)? {
            if let Some(found) = self.read_database(&name)?
                && scope.covers(&found.database)
            {
                state.databases.insert(name, found);
            }
        }
        Ok(state)
    }

    async fn database(&self, name: &str) -> Result<Option<FoundDatabase>, TargetError> {
        self.read_database(name)
    }

    async fn table(&self, database: &str, name: &str) -> Result<Option<FoundTable>, TargetError> {
        self.read_table(database, name)
    }

    async fn execute(&self, change: &Change) -> Result<(), TargetError> {
        self.change(change)
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> TargetError {
    TargetError::Failed(Error::io(ErrorCode::WriteFailed, doing, path, error))
}

/// The names in a folder, in order; none where it is not there.
fn entries(folder: &Path) -> Result<Vec<String>, TargetError> {
    let listed = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => return Ok(Vec::new()),
        listed => listed.map_err(|error| failed("list", folder, error))?,
    };
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|error| failed("list", folder, error))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<(T, String)>, TargetError> {
    let text = match fs::read_to_string(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        text => text.map_err(|error| failed("read", path, error))?,
    };
    let wrong = |why: String| {
        let message = format!("`{}` is no document of a catalog: {why}", path.display());
        TargetError::Failed(
            Error::new(ErrorCode::SourceUnreadable, message)
                .with_help("remove it, and provision what it described anew"),
        )
    };
    let document: Document<T> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if document.format != LOCAL_FORMAT {
        return Err(wrong(format!("it has format {}, this version knows {LOCAL_FORMAT}", document.format)));
    }
    Ok(Some((document.object, text)))
}

fn staged<T: Serialize>(path: &Path, object: &T) -> Result<tempname::Staged, TargetError> {
    let document = Document { format: LOCAL_FORMAT, object };
    let mut text = serde_json::to_string_pretty(&document).map_err(|error| {
        TargetError::Failed(
            Error::new(ErrorCode::Internal, "a catalog's document cannot be written").with_source(error),
        )
    })?;
    text.push('\n');
    let staged = tempname::Staged::beside(path);
    let written = fs::File::create(&staged.path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| failed("write", &staged.path, error))?;
    Ok(staged)
}

/// Puts a document where none is: a hard link fails where the name is taken.
fn create<T: Serialize>(path: &Path, object: &T) -> Result<(), TargetError> {
    let staged = staged(path, object)?;
    match fs::hard_link(&staged.path, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(TargetError::Exists),
        linked => linked.map_err(|error| failed("write", path, error)),
    }
}

/// Puts a document in the place of another.
fn replace<T: Serialize>(path: &Path, object: &T) -> Result<(), TargetError> {
    let staged = staged(path, object)?;
    fs::rename(&staged.path, path).map_err(|error| failed("write", path, error))
}

fn remove(path: &Path) -> Result<(), TargetError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(TargetError::Missing),
        removed => removed.map_err(|error| failed("remove", path, error)),
    }
}

/// A file beside the one that it will become.
mod tempname {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Removed when it is dropped, unless it was renamed.
    pub(super) struct Staged {
        pub(super) path: PathBuf,
    }

    impl Staged {
        pub(super) fn beside(path: &Path) -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Self { path: path.with_file_name(format!(".{}-{number}.tmp", std::process::id())) }
        }
    }

    impl Drop for Staged {
        fn drop(&mut self) {
            // Gone already where it was renamed; what a crash leaves is skipped by its name.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
