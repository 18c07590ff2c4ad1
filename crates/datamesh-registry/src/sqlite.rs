//! SQLite in WAL mode with full synchronisation: a committed publication survives a power cut.

use std::path::Path;
use std::time::Duration;

use datamesh_core::{Error, ErrorCode, Result};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::error::{self, Failures};
use crate::store::{Pool, Store};

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Opens the registry at `path`, making it and bringing its format up to date where needed.
pub(crate) async fn open(path: &Path) -> Result<Store> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::io(ErrorCode::Registry, "make the folder", folder, error))?;
    }
    // Two processes that open a new registry at once must not both bring it up to date.
    let lock_path = path.with_extension("lock");
    let at = lock_path.clone();
    // Whoever holds it may need this thread to go on.
    let lock =
        tokio::task::spawn_blocking(move || std::fs::File::create(&at).and_then(|file| file.lock().map(|()| file)));
    let lock =
        lock.await.map_err(|error| Error::new(ErrorCode::Internal, format!("cannot wait for a lock: {error}")))?;
    let lock = lock.map_err(|error| Error::io(ErrorCode::Registry, "lock", &lock_path, error))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .map_err(|error| error::open_file(path, &error).with_source(error))?;
    MIGRATIONS.run(&pool).await.map_err(|error| {
        error::migrate(&path.display().to_string(), &error)
            .unwrap_or_else(|| error::open_file(path, &error).with_source(error))
    })?;
    drop(lock);
    Ok(Store { pool: Pool::Sqlite(pool), failures: Failures::Sqlite })
}
