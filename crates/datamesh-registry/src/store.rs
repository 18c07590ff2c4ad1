//! One way to talk to either database. The SQL of the other modules is written once: `$1` marks the first value, integers
//! are 64 bits wide, times and documents are text, and nothing is used that only one of the two databases knows. What
//! differs (beginning a transaction, its isolation, a lost answer to COMMIT) is here and in `sqlite` and `postgres`.

use std::fmt;

use datamesh_core::{Error, ErrorCode, Result};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{PgConnection, PgPool, Postgres, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::error::Failures;

/// Values in one statement. Both databases take several times as many.
const MAX_VALUES: usize = 8000;

/// The connections to a registry.
#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// The database of a registry.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) pool: Pool,
    /// How its failures are told.
    pub(crate) failures: Failures,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("failures", &self.failures).finish_non_exhaustive()
    }
}

impl Store {
    /// A connection for one statement, which is a transaction of its own.
    pub(crate) async fn single(&self) -> Result<Session> {
        let connection = match &self.pool {
            Pool::Sqlite(pool) => Handle::Sqlite(pool.acquire().await.map_err(self.failed())?),
            Pool::Postgres(pool) => Handle::Postgres(pool.acquire().await.map_err(self.failed())?),
        };
        Ok(Session { handle: connection, failures: self.failures.clone() })
    }

    /// A transaction that reads, and sees one state however many statements it has.
    pub(crate) async fn read(&self) -> Result<Session> {
        let connection = match &self.pool {
            Pool::Sqlite(pool) => Handle::SqliteTransaction(pool.begin().await.map_err(self.failed())?),
            Pool::Postgres(pool) => {
                let begun = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
                Handle::PostgresTransaction(begun.map_err(self.failed())?)
            }
        };
        Ok(Session { handle: connection, failures: self.failures.clone() })
    }

    /// A transaction that writes: there is one at a time, and it sees what those before it have committed.
    pub(crate) async fn write(&self) -> Result<Session> {
        let mut session = self.log().await?;
        if let Pool::Postgres(_) = &self.pool {
            // INVARIANT: whoever changes more than a lease or the audit log holds the mesh's row until the end. So numbers
            // of publications rise in the order of commits, and claiming a lease waits for a commit. The row of the log's
            // head is taken after it, never before.
            let locked = sql("SELECT singleton FROM mesh FOR NO KEY UPDATE").fetch_optional(&mut session).await?;
            if locked.is_none() {
                return Err(crate::identity::missing());
            }
        }
        Ok(session)
    }

    /// A transaction that adds to the audit log and does nothing else: on PostgreSQL it does not wait for one that publishes.
    pub(crate) async fn log(&self) -> Result<Session> {
        let connection = match &self.pool {
            Pool::Sqlite(pool) => {
                Handle::SqliteTransaction(pool.begin_with("BEGIN IMMEDIATE").await.map_err(self.failed())?)
            }
            Pool::Postgres(pool) => {
                let begun = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await;
                Handle::PostgresTransaction(begun.map_err(self.failed())?)
            }
        };
        Ok(Session { handle: connection, failures: self.failures.clone() })
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> Error {
        |error| self.failures.query(error)
    }
}

enum Handle {
    Sqlite(PoolConnection<Sqlite>),
    SqliteTransaction(Transaction<'static, Sqlite>),
    Postgres(PoolConnection<Postgres>),
    PostgresTransaction(Transaction<'static, Postgres>),
}

/// A connection, within the transaction that was begun on it. Dropping it takes back what was not committed.
pub(crate) struct Session {
    handle: Handle,
    failures: Failures,
}

enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// Why a transaction is not known to be committed.
pub(crate) enum Uncommitted {
    /// It was taken back.
    Failed(Error),
    /// The database did not answer: it may have been committed.
    Unknown(Error),
}

impl From<Uncommitted> for Error {
    fn from(uncommitted: Uncommitted) -> Self {
        match uncommitted {
            Uncommitted::Failed(error) | Uncommitted::Unknown(error) => error,
        }
    }
}

impl Session {
    fn connection(&mut self) -> Connection<'_> {
        match &mut self.handle {
            Handle::Sqlite(connection) => Connection::Sqlite(connection),
            Handle::SqliteTransaction(transaction) => Connection::Sqlite(transaction),
            Handle::Postgres(connection) => Connection::Postgres(connection),
            Handle::PostgresTransaction(transaction) => Connection::Postgres(transaction),
        }
    }

    /// Whether rows must be taken that are read to be changed: SQLite has one writer, and no word for it.
    pub(crate) fn has_row_locks(&self) -> bool {
        matches!(self.handle, Handle::Postgres(_) | Handle::PostgresTransaction(_))
    }

    /// Makes what was written durable.
    pub(crate) async fn commit(self) -> Result<(), Uncommitted> {
        let failures = self.failures;
        let done = match self.handle {
            Handle::Sqlite(_) | Handle::Postgres(_) => return Ok(()),
            Handle::SqliteTransaction(transaction) => transaction.commit().await,
            Handle::PostgresTransaction(transaction) => transaction.commit().await,
        };
        done.map_err(|error| match failures.is_lost(&error) {
            true => Uncommitted::Unknown(failures.query(error)),
            false => Uncommitted::Failed(failures.query(error)),
        })
    }

    /// Takes back what was written, at once: nobody waits for its lock any longer.
    pub(crate) async fn rollback(self) -> Result<()> {
        let failures = self.failures;
        let done = match self.handle {
            Handle::Sqlite(_) | Handle::Postgres(_) => return Ok(()),
            Handle::SqliteTransaction(transaction) => transaction.rollback().await,
            Handle::PostgresTransaction(transaction) => transaction.rollback().await,
        };
        done.map_err(|error| failures.query(error))
    }
}

/// A value of a statement.
#[derive(Clone, Debug)]
pub(crate) enum Value<'q> {
    Text(Option<&'q str>),
    Owned(String),
    Integer(Option<i64>),
    /// A number that neither database can keep.
    Unfit(u64),
}

impl<'q> From<&'q str> for Value<'q> {
    fn from(text: &'q str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'q> From<&'q String> for Value<'q> {
    fn from(text: &'q String) -> Self {
        Self::Text(Some(text))
    }
}

impl<'q> From<&'q Option<String>> for Value<'q> {
    fn from(text: &'q Option<String>) -> Self {
        Self::Text(text.as_deref())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Integer(None), Self::from)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Integer(Some(i64::from(flag)))
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Unfit(number), |number| Self::Integer(Some(number)))
    }
}

/// A statement with its values.
pub(crate) struct Statement<'q> {
    text: &'q str,
    values: Vec<Value<'q>>,
    /// Whether the database should keep its plan.
    keep: bool,
}

/// A statement; `$1` is the first value that is bound to it.
pub(crate) fn sql(text: &str) -> Statement<'_> {
    Statement { text, values: Vec::new(), keep: true }
}

impl<'q> Statement<'q> {
    pub(crate) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    fn check(&self) -> Result<()> {
        for value in &self.values {
            if let Value::Unfit(number) = value {
                return Err(Error::new(ErrorCode::Internal, format!("{number} does not fit the registry")));
            }
        }
        Ok(())
    }

    /// PostgreSQL's text has no null character.
    fn check_text(&self) -> Result<()> {
        let found = self.values.iter().any(|value| match value {
            Value::Text(Some(text)) => text.contains('\0'),
            Value::Owned(text) => text.contains('\0'),
            _ => false,
        });
        if found {
            // The text itself may be a value of a protected column.
            return Err(Error::new(ErrorCode::Registry, "PostgreSQL cannot keep text that has a null character")
                .with_help("take the character out of the names, or out of the watermark column's values"));
        }
        Ok(())
    }

    fn for_sqlite<'s>(&'s self) -> Query<'s, Sqlite, SqliteArguments<'s>> {
        let query = sqlx::query(self.text).persistent(self.keep);
        self.values.iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(*text),
            Value::Owned(text) => query.bind(text.as_str()),
            Value::Integer(number) => query.bind(*number),
            Value::Unfit(_) => query.bind(None::<i64>),
        })
    }

    fn for_postgres<'s>(&'s self) -> Query<'s, Postgres, PgArguments> {
        let query = sqlx::query(self.text).persistent(self.keep);
        self.values.iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(*text),
            Value::Owned(text) => query.bind(text.as_str()),
            Value::Integer(number) => query.bind(*number),
            Value::Unfit(_) => query.bind(None::<i64>),
        })
    }

    /// A statement that is put together anew each time: its plan is not worth keeping.
    pub(crate) fn once(mut self) -> Self {
        self.keep = false;
        self
    }

    /// Every row.
    pub(crate) async fn fetch_all(self, session: &mut Session) -> Result<Vec<Row>> {
        self.check()?;
        let fetched = match session.connection() {
            Connection::Sqlite(connection) => {
                let rows = self.for_sqlite().fetch_all(connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
            Connection::Postgres(connection) => {
                self.check_text()?;
                let rows = self.for_postgres().fetch_all(connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
        };
        fetched.map_err(|error| session.failures.query(error))
    }

    /// The row, where there is one.
    pub(crate) async fn fetch_optional(self, session: &mut Session) -> Result<Option<Row>> {
        Ok(self.fetch_all(session).await?.into_iter().next())
    }

    /// The one row.
    pub(crate) async fn fetch_one(self, session: &mut Session) -> Result<Row> {
        let row = self.fetch_all(session).await?.into_iter().next();
        row.ok_or_else(|| Error::new(ErrorCode::Registry, "the registry failed: a statement answered nothing"))
    }

    /// Runs it; the number of rows that it changed.
    pub(crate) async fn execute(self, session: &mut Session) -> Result<u64> {
        self.check()?;
        let done = match session.connection() {
            Connection::Sqlite(connection) => {
                self.for_sqlite().execute(connection).await.map(|done| done.rows_affected())
            }
            Connection::Postgres(connection) => {
                self.check_text()?;
                self.for_postgres().execute(connection).await.map(|done| done.rows_affected())
            }
        };
        done.map_err(|error| session.failures.query(error))
    }
}

/// `INSERT INTO … (…)` for many rows, in as few statements as there have to be. `end` follows the rows.
pub(crate) async fn insert_all(
    session: &mut Session,
    insert: &str,
    rows: Vec<Vec<Value<'_>>>,
    end: &str,
) -> Result<()> {
    let width = rows.first().map_or(1, Vec::len).max(1);
    let mut rows = rows.into_iter();
    loop {
        let mut text = format!("{insert} VALUES ");
        let mut values = Vec::new();
        for row in rows.by_ref().take(MAX_VALUES / width) {
            text.push_str(if values.is_empty() { "(" } else { ", (" });
            for (at, value) in row.into_iter().enumerate() {
                values.push(value);
                text.push_str(if at == 0 { "$" } else { ", $" });
                text.push_str(&values.len().to_string());
            }
            text.push(')');
        }
        if values.is_empty() {
            return Ok(());
        }
        text.push(' ');
        text.push_str(end);
        Statement { text: &text, values, keep: false }.execute(session).await?;
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    fn get<T>(&self, column: &str) -> Result<T>
    where
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        value.map_err(|error| {
            Error::new(ErrorCode::Registry, format!("the registry failed: {error}")).with_source(error)
        })
    }

    pub(crate) fn text(&self, column: &str) -> Result<String> {
        self.get(column)
    }

    pub(crate) fn optional_text(&self, column: &str) -> Result<Option<String>> {
        self.get(column)
    }

    pub(crate) fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        self.get(column)
    }

    pub(crate) fn integer(&self, column: &str) -> Result<i64> {
        self.get(column)
    }

    pub(crate) fn optional_integer(&self, column: &str) -> Result<Option<i64>> {
        self.get(column)
    }

    pub(crate) fn optional_number(&self, column: &str) -> Result<Option<u64>> {
        self.optional_integer(column)?.map(|_| self.number(column)).transpose()
    }

    pub(crate) fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.integer(column)? != 0)
    }

    pub(crate) fn number(&self, column: &str) -> Result<u64> {
        let value = self.integer(column)?;
        u64::try_from(value)
            .map_err(|_| Error::new(ErrorCode::Registry, format!("the registry holds {value} as `{column}`")))
    }
}
