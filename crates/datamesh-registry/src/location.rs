//! Where a registry is: a SQLite file, or a schema of a PostgreSQL database.

use std::fmt;
use std::path::{Path, PathBuf};

use datamesh_core::{Error, ErrorCode, Result};
use sqlx::postgres::PgConnectOptions;
use url::Url;

/// What a PostgreSQL URL may say after its `?`, beside `schema`: the driver ignores what it does not know, and a misspelt
/// `sslmode` that is ignored is an open connection.
const KNOWN: [&str; 15] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
];

/// PostgreSQL cuts longer names off without a word.
const MAX_NAME_BYTES: usize = 63;

/// Where a registry is.
#[derive(Clone, Debug)]
pub enum Location {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A schema of a PostgreSQL database.
    Postgres(PostgresUrl),
}

impl Location {
    /// Reads `postgres://…` or a path, which is relative to `folder`.
    ///
    /// # Errors
    /// `invalid-argument` where it is neither. No message holds a part of a URL that may be secret.
    pub fn parse(text: &str, folder: &Path) -> Result<Self> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(PostgresUrl::parse(text)?)),
            // The text may be a mistyped URL with a password in it.
            Some(_) => Err(Error::new(ErrorCode::InvalidArgument, "the registry's URL is not one of PostgreSQL")
                .with_help("write a path to a SQLite file, or `postgres://user@host:port/database`")),
            None if text.is_empty() => Err(Error::new(ErrorCode::InvalidArgument, "the registry's path is empty")
                .with_help("write a path to a SQLite file, or `postgres://user@host:port/database`")),
            None => Ok(Self::Sqlite(folder.join(text))),
        }
    }

    /// Whether there is a registry. Nothing is made.
    ///
    /// # Errors
    /// `registry` where that cannot be told.
    pub async fn has_registry(&self) -> Result<bool> {
        match self {
            Self::Sqlite(path) => Ok(path.is_file()),
            Self::Postgres(url) => crate::postgres::has_registry(url).await,
        }
    }
}

/// The URL of a PostgreSQL database, and the schema in it. What it shows of itself is no secret.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(crate) options: PgConnectOptions,
    /// The schema; `None`: the first one of the role's search path.
    pub(crate) schema: Option<String>,
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresUrl").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl PostgresUrl {
    /// Reads `postgres://user:password@host:port/database?sslmode=…&schema=…`.
    ///
    /// # Errors
    /// `invalid-argument`. The message holds no part of the URL but names of parameters.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| Error::new(ErrorCode::InvalidArgument, format!("the registry's URL {why}"));
        let unreadable = || {
            refused("cannot be read").with_help(
                "write `postgres://user:password@host:port/database`; special characters in it need percent-encoding",
            )
        };
        let mut url: Url = text.parse().map_err(|_| unreadable())?;
        let mut schema = None;
        let mut kept = Vec::new();
        for (key, value) in url.query_pairs() {
            match &*key {
                "schema" if schema.is_some() => return Err(refused("names two schemas")),
                "schema" => schema = Some(value.into_owned()),
                known if KNOWN.contains(&known) => kept.push((key.into_owned(), value.into_owned())),
                unknown => {
                    let unknown: String = unknown.chars().take(MAX_NAME_BYTES).collect();
                    return Err(refused(&format!("has the parameter `{}`", unknown.escape_debug())).with_help(
                        format!("it may have `schema` and {}", KNOWN.map(|key| format!("`{key}`")).join(", ")),
                    ));
                }
            }
        }
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        if let Some(schema) = &schema {
            check_schema(schema).map_err(|why| refused(&why))?;
        }
        let options: PgConnectOptions = url.as_str().parse().map_err(|_| unreadable())?;
        if url.path().trim_start_matches('/').is_empty() && options.get_database().is_none() {
            return Err(refused("names no database").with_help("write `postgres://user:password@host:port/database`"));
        }
        Ok(Self { options, schema })
    }

    /// Server and database, as messages name them.
    pub(crate) fn place(&self) -> String {
        let database = self.options.get_database().unwrap_or_default();
        let server = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        match &self.schema {
            Some(schema) => format!("{server}/{database}, schema `{schema}`"),
            None => format!("{server}/{database}"),
        }
    }
}

fn check_schema(schema: &str) -> Result<(), String> {
    if schema.is_empty() || schema.len() > MAX_NAME_BYTES || schema.contains('\0') {
        return Err(format!("names a schema that PostgreSQL cannot have: 1 to {MAX_NAME_BYTES} bytes"));
    }
    if schema.starts_with("pg_") || schema == "information_schema" {
        return Err("names a schema that is PostgreSQL's own".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
