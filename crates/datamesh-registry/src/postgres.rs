//! PostgreSQL: every mesh has a schema of its own.

use std::sync::Arc;
use std::time::Duration;

use datamesh_core::{Error, ErrorCode, Result};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};

use crate::error::{self, Failures};
use crate::location::PostgresUrl;
use crate::store::{Pool, Store};

/// How long a server may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The oldest version that is still known: it has random UUIDs of its own.
const OLDEST_VERSION: i32 = 130_000;

/// Guards the making of schemas and of registries in them.
const OPEN_LOCK: i64 = 0x6461_7461_6d65_7368;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Opens the registry in a schema, making it and bringing its format up to date where needed.
pub(crate) async fn open(url: &PostgresUrl) -> Result<Store> {
    let place = url.place();
    let options = options(url);
    let mut connection = connect(&options, &place).await?;
    check_server(&mut connection, &place).await?;
    let schema = find_schema(&mut connection, url, &place, true).await?.unwrap_or_default();
    let prepare = prepare(&schema);
    connection.execute(prepare.as_str()).await.map_err(|error| failed(&place, error))?;
    if !is_current(&mut connection, &place).await? {
        // Held until the connection is closed: two that open a new registry at once do not disturb each other.
        let lock = sqlx::query("SELECT pg_advisory_lock($1)").bind(OPEN_LOCK).execute(&mut connection).await;
        lock.map_err(|error| failed(&place, error))?;
        check_owner(&mut connection, &schema, &place).await?;
        MIGRATIONS.run_direct(&mut connection).await.map_err(|error| migration_failed(&schema, &place, error))?;
    }
    // What the connection was opened for is done, so whether it closes well is of no interest.
    let _ = connection.close().await;
    // A connection that was idle may be a dead one; it is tested before it is used.
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(move |connection, _| {
            let prepare = prepare.clone();
            Box::pin(async move { connection.execute(prepare.as_str()).await.map(|_| ()) })
        })
        .connect_lazy_with(options);
    Ok(Store { pool: Pool::Postgres(pool), failures: Failures::Postgres(Arc::from(place)) })
}

/// Whether the schema holds a registry. Nothing is made.
pub(crate) async fn has_registry(url: &PostgresUrl) -> Result<bool> {
    let place = url.place();
    let mut connection = connect(&options(url), &place).await?;
    let Some(schema) = find_schema(&mut connection, url, &place, false).await? else { return Ok(false) };
    let found = has_table(&mut connection, &schema, "publications", &place).await?;
    let _ = connection.close().await;
    Ok(found)
}

fn options(url: &PostgresUrl) -> PgConnectOptions {
    url.options.clone().application_name("datamesh").disable_statement_logging()
}

/// What every connection is told first: one schema, and no end without one. A writer that vanished without closing its
/// connection holds up the others until the server gives it up.
fn prepare(schema: &str) -> String {
    format!(
        "SET search_path = {}; SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s';
         SET synchronous_commit = on; SET client_min_messages = warning",
        quote(schema)
    )
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn failed(place: &str, error: sqlx::Error) -> Error {
    error::open(place, &error::shown(&error)).with_source(error)
}

async fn connect(options: &PgConnectOptions, place: &str) -> Result<PgConnection> {
    let connection = match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
        Ok(connection) => connection,
        Err(_) => {
            return Err(error::open(place, &"it does not answer").with_help("check host and port"));
        }
    };
    connection.map_err(|error| {
        let state = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        let help = match (&error, state.as_str()) {
            (sqlx::Error::Tls(_), _) => "check `sslmode` and `sslrootcert` in the URL, and the server's certificate",
            (_, "28P01" | "28000") => "check user and password in the URL, and the server's pg_hba.conf",
            (_, "3D000") => "make the database first, or name another one in the URL",
            (_, "53300") => "the server has no connection left; run the same command again",
            (_, "57P03") => "the server is starting or stopping; run the same command again",
            (sqlx::Error::Io(_), _) => "check host and port, and whether the server runs",
            _ => "check the URL of the registry",
        };
        failed(place, error).with_help(help)
    })
}

async fn check_server(connection: &mut PgConnection, place: &str) -> Result<()> {
    let (version, shown, encoding): (i32, String, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
         current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| failed(place, error))?;
    if version < OLDEST_VERSION {
        return Err(
            error::open(place, &format!("PostgreSQL {shown} is too old")).with_help("use PostgreSQL 13 or newer")
        );
    }
    if encoding != "UTF8" {
        return Err(error::open(place, &format!("the database's encoding is {encoding}"))
            .with_help("make a database with `ENCODING 'UTF8'`"));
    }
    Ok(())
}

/// The schema that the URL names, or else the first one of the role's search path. `None`: it is not there.
async fn find_schema(
    connection: &mut PgConnection,
    url: &PostgresUrl,
    place: &str,
    make: bool,
) -> Result<Option<String>> {
    let fail = |error| failed(place, error);
    let Some(schema) = &url.schema else {
        let current: Option<String> =
            sqlx::query_scalar("SELECT current_schema()::text").fetch_one(connection).await.map_err(fail)?;
        return match current {
            Some(current) => Ok(Some(current)),
            None => Err(error::open(place, &"the role's search path names no schema that there is")
                .with_help("name one in the URL: `?schema=NAME`")),
        };
    };
    const FIND: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    if sqlx::query_scalar(FIND).bind(schema).fetch_one(&mut *connection).await.map_err(fail)? {
        return Ok(Some(schema.clone()));
    }
    if !make {
        return Ok(None);
    }
    let mut transaction = connection.begin().await.map_err(fail)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(OPEN_LOCK).execute(&mut *transaction).await.map_err(fail)?;
    let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema));
    transaction.execute(make.as_str()).await.map_err(|error| {
        failed(place, error).with_help("let somebody who may make the schema and grant the role USAGE and CREATE on it")
    })?;
    transaction.commit().await.map_err(fail)?;
    Ok(Some(schema.clone()))
}

async fn has_table(connection: &mut PgConnection, schema: &str, table: &str, place: &str) -> Result<bool> {
    const FIND: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = $2)";
    let found = sqlx::query_scalar(FIND).bind(schema).bind(table).fetch_one(connection).await;
    found.map_err(|error| failed(place, error))
}

/// Whether every migration, and no other one, was run: then the role needs no right to change tables.
async fn is_current(connection: &mut PgConnection, place: &str) -> Result<bool> {
    let rows: Result<Vec<(i64, Vec<u8>, bool)>, sqlx::Error> =
        sqlx::query_as("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await;
    match rows {
        Ok(rows) => Ok(rows.len() == MIGRATIONS.iter().count()
            && rows.iter().zip(MIGRATIONS.iter()).all(|((version, checksum, success), migration)| {
                *success && *version == migration.version && checksum[..] == migration.checksum[..]
            })),
        // There is no such table.
        Err(error) if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42P01") => Ok(false),
        Err(error) => Err(failed(place, error)),
    }
}

/// Another application may keep its migrations by the same name.
async fn check_owner(connection: &mut PgConnection, schema: &str, place: &str) -> Result<()> {
    let migrated = has_table(connection, schema, "_sqlx_migrations", place).await?;
    let ours = has_table(connection, schema, "publications", place).await?;
    let taken = migrated != ours;
    // A first migration that failed left its empty list.
    let empty = migrated && {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
            .fetch_one(connection)
            .await
            .map_err(|error| failed(place, error))?;
        rows == 0
    };
    if taken && !empty {
        return Err(error::open(place, &format!("the schema `{schema}` belongs to another application"))
            .with_help("name a schema for the mesh alone: `?schema=NAME`"));
    }
    Ok(())
}

fn migration_failed(schema: &str, place: &str, error: sqlx::migrate::MigrateError) -> Error {
    use sqlx::migrate::MigrateError;
    if let Some(error) = error::migrate(place, &error) {
        return error;
    }
    let (text, denied) = match &error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            let state = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
            (error::shown(error), state == "42501")
        }
        error => (error.to_string(), false),
    };
    let error =
        Error::new(ErrorCode::Registry, format!("cannot open the registry `{place}`: {text}")).with_source(error);
    match denied {
        true => error.with_help(format!(
            "grant the role CREATE on the schema `{schema}` for this first run, or name a schema of its own: `?schema=NAME`"
        )),
        false => error,
    }
}
