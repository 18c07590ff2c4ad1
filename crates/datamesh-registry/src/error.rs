//! Database failures in the user's words.

use std::path::Path;

use datamesh_core::{Error, ErrorCode};

pub(crate) fn query(error: sqlx::Error) -> Error {
    let text = error.to_string();
    let (code, help) = if text.contains("database or disk is full") || text.contains("disk I/O error") {
        (ErrorCode::WriteFailed, Some("free some space, then run the same command again: nothing was committed"))
    } else if text.contains("readonly database") {
        (ErrorCode::WriteFailed, Some("check the permissions of the `.datamesh` folder and who runs the command"))
    } else if text.contains("database is locked") {
        (ErrorCode::Registry, Some("another process keeps the registry busy; run the same command again"))
    } else {
        (ErrorCode::Registry, None)
    };
    with_help(Error::new(code, format!("the registry failed: {text}")), help).with_source(error)
}

pub(crate) fn open(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let new = Error::new(ErrorCode::Registry, format!("cannot open the registry `{}`: {error}", path.display()));
    new.with_help("check that the folder can be written by who runs the command")
}

pub(crate) fn migrate(path: &Path, error: sqlx::migrate::MigrateError) -> Error {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => Error::new(
            ErrorCode::RegistryTooNew,
            format!("the registry `{}` has format {version}, which this datamesh does not know", path.display()),
        )
        .with_help("use a newer datamesh"),
        error => open(path, &error).with_source(error),
    }
}

pub(crate) fn document(what: &str, error: serde_json::Error) -> Error {
    Error::new(ErrorCode::Registry, format!("the registry holds {what} that cannot be read: {error}"))
        .with_help("it was written by another version of datamesh, or changed by hand")
        .with_source(error)
}

fn with_help(error: Error, help: Option<&str>) -> Error {
    match help {
        Some(help) => error.with_help(help),
        None => error,
    }
}
