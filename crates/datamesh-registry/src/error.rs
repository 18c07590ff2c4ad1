//! Database failures in the user's words.

use std::path::Path;
use std::sync::Arc;

use datamesh_core::{Error, ErrorCode};

/// Tells the failures of one database.
#[derive(Clone, Debug)]
pub(crate) enum Failures {
    Sqlite,
    /// With the server's place: `host:port/database`.
    Postgres(Arc<str>),
}

impl Failures {
    /// A statement that failed.
    pub(crate) fn query(&self, error: sqlx::Error) -> Error {
        match self {
            Self::Sqlite => sqlite(error),
            Self::Postgres(place) => postgres(place, error),
        }
    }

    /// Whether the failure is that of the connection: what it was asked for may have happened.
    pub(crate) fn is_lost(&self, error: &sqlx::Error) -> bool {
        match self {
            // A file answers always. What it answers to a commit that failed is checked by whoever asked for it.
            Self::Sqlite => false,
            Self::Postgres(_) => is_lost(error),
        }
    }
}

fn sqlite(error: sqlx::Error) -> Error {
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

/// Codes of PostgreSQL's appendix "PostgreSQL Error Codes".
fn postgres(place: &str, error: sqlx::Error) -> Error {
    if is_lost(&error) || matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) {
        return Error::new(ErrorCode::Registry, format!("the registry at {place} does not answer: {}", shown(&error)))
            .with_help("run the same command again once the server can be reached")
            .with_source(error);
    }
    let state = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    let (code, help) = match state.as_str() {
        "53100" => (
            ErrorCode::WriteFailed,
            Some("free some space on the server, then run the same command again: nothing was committed"),
        ),
        "25006" => (ErrorCode::WriteFailed, Some("the server only reads; name the primary server, not a standby")),
        "42501" => (
            ErrorCode::Registry,
            Some("grant the role SELECT, INSERT, UPDATE and DELETE on the tables of the registry's schema"),
        ),
        "55P03" | "40001" | "40P01" => {
            (ErrorCode::Registry, Some("another process keeps the registry busy; run the same command again"))
        }
        _ => (ErrorCode::Registry, None),
    };
    with_help(Error::new(code, format!("the registry at {place} failed: {}", shown(&error))), help).with_source(error)
}

/// Whether the connection is gone: class 08, and a server that shuts down.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || ["57P01", "57P02", "57P03", "25P03"].contains(&&*code)),
        _ => false,
    }
}

/// What the server said, or the driver.
pub(crate) fn shown(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// A registry that cannot be opened; `name` is its path or place.
pub(crate) fn open(name: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::Registry, format!("cannot open the registry `{name}`: {error}"))
}

pub(crate) fn open_file(path: &Path, error: &dyn std::fmt::Display) -> Error {
    open(&path.display().to_string(), error).with_help("check that the folder can be written by who runs the command")
}

/// A registry of another format.
pub(crate) fn migrate(name: &str, error: &sqlx::migrate::MigrateError) -> Option<Error> {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            Some(too_new(name, *version))
        }
        _ => None,
    }
}

pub(crate) fn too_new(name: &str, version: i64) -> Error {
    let message = format!("the registry `{name}` has format {version}, which this datamesh does not know");
    Error::new(ErrorCode::RegistryTooNew, message).with_help("use a newer datamesh")
}

fn with_help(error: Error, help: Option<&str>) -> Error {
    match help {
        Some(help) => error.with_help(help),
        None => error,
    }
}
