//! SQLite in WAL mode with full synchronisation: a committed publication survives a power cut.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::DecisionRecord;
use datamesh_core::history::{Attempt, History, WrittenTable};
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::lineage::Edge;
use datamesh_core::ports::{
    CatalogProduct, CommitOutcome, CommitRequest, Lease, MaintenanceCommit, ProductState, Publication,
    PublicationStatus, PublishStep, QuarantineFile, QuarantineResolution, Registry, Revision, Rollback, ServedTable,
    StepObserver, TablePointer, UnreferencedFile, newest_effective,
};
use datamesh_core::transform::{InputPin, TransformRun};
use datamesh_core::watermark::Watermark;
use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::{error, history, lineage, maintenance};

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// The embedded registry: one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteRegistry {
    pool: SqlitePool,
}

impl SqliteRegistry {
    /// Opens the registry at `path`, making it and bringing its format up to date where needed.
    ///
    /// # Errors
    /// `registry` where the file cannot be opened or written, `registry-too-new` where a newer datamesh wrote it.
    pub async fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::io(ErrorCode::Registry, "make the folder", folder, error))?;
        }
        // Two processes that open a new registry at once must not both bring it up to date.
        let lock_path = path.with_extension("lock");
        let lock = std::fs::File::create(&lock_path).and_then(|file| file.lock().map(|()| file));
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
            .map_err(|error| error::open(path, &error).with_source(error))?;
        sqlx::migrate!().run(&pool).await.map_err(|error| error::migrate(path, error))?;
        drop(lock);
        Ok(Self { pool })
    }

    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(error::query)
    }
}

pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn read_time(text: &str) -> Result<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    parsed.map_err(|error| {
        Error::new(ErrorCode::Registry, format!("the registry holds `{text}`, which is no time")).with_source(error)
    })
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorCode::Internal, "a document cannot be written").with_source(error))
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| error::document(what, error))
}

pub(crate) fn integer(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::new(ErrorCode::Internal, format!("{value} does not fit the registry")))
}

pub(crate) fn number(row: &SqliteRow, column: &str) -> Result<u64> {
    let value: i64 = row.try_get(column).map_err(error::query)?;
    u64::try_from(value)
        .map_err(|_| Error::new(ErrorCode::Registry, format!("the registry holds {value} as `{column}`")))
}

pub(crate) fn text(row: &SqliteRow, column: &str) -> Result<String> {
    row.try_get(column).map_err(error::query)
}

fn read_pointer(row: &SqliteRow) -> Result<TablePointer> {
    Ok(TablePointer {
        table: text(row, "table_name")?,
        metadata_location: text(row, "metadata_location")?,
        metadata: text(row, "metadata")?,
        content: text(row, "content")?,
        publication: number(row, "publication")?,
        rows: number(row, "total_rows")?,
    })
}

fn read_revision(row: &SqliteRow) -> Result<Revision> {
    Ok(Revision {
        number: number(row, "number")?,
        contract: from_json("a contract", &text(row, "contract")?)?,
        created_at: read_time(&text(row, "created_at")?)?,
        created_by: text(row, "created_by")?,
    })
}

const NEWEST_REVISION: &str = "SELECT number, contract, created_at, created_by FROM revisions
    WHERE domain = ? AND product = ? AND major = ? ORDER BY number DESC LIMIT 1";

async fn newest_revision(connection: &mut SqliteConnection, product: &ProductKey) -> Result<Option<Revision>> {
    let row = sqlx::query(NEWEST_REVISION)
        .bind(&product.domain)
        .bind(&product.product)
        .bind(integer(product.major)?)
        .fetch_optional(connection)
        .await
        .map_err(error::query)?;
    row.as_ref().map(read_revision).transpose()
}

/// Registers the contract where it differs from the newest revision. `None`: the newest is not the expected one.
async fn register(connection: &mut SqliteConnection, request: &CommitRequest) -> Result<Option<u64>> {
    let newest = newest_revision(connection, &request.product).await?;
    if let Some(newest) = &newest
        && newest.contract == request.contract
    {
        return Ok(Some(newest.number));
    }
    let newest = newest.map_or(0, |revision| revision.number);
    if newest != request.expected_revision {
        return Ok(None);
    }
    let next = newest + 1;
    sqlx::query(
        "INSERT INTO revisions (domain, product, major, number, version, contract, created_at, created_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&request.product.domain)
    .bind(&request.product.product)
    .bind(integer(request.product.major)?)
    .bind(integer(next)?)
    .bind(request.contract.version.to_string())
    .bind(to_json::<DataProduct>(&request.contract)?)
    .bind(time(request.at))
    .bind(&request.principal)
    .execute(connection)
    .await
    .map_err(error::query)?;
    Ok(Some(next))
}

async fn insert_publication(
    connection: &mut SqliteConnection,
    request: &CommitRequest,
    revision: u64,
    status: PublicationStatus,
) -> Result<u64> {
    let status = match status {
        PublicationStatus::Published => "published",
        PublicationStatus::Rejected => "rejected",
    };
    let row = sqlx::query(
        "INSERT INTO publications (domain, product, major, revision, version, status, at, principal, attempt, decision,
         idempotency_key, report, contract) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
    )
    .bind(&request.product.domain)
    .bind(&request.product.product)
    .bind(integer(request.product.major)?)
    .bind(integer(revision)?)
    .bind(request.contract.version.to_string())
    .bind(status)
    .bind(time(request.at))
    .bind(&request.principal)
    .bind(request.attempt.as_str())
    .bind(integer(request.decision)?)
    .bind(&request.idempotency_key)
    .bind(to_json(&request.report)?)
    .bind(to_json(&request.contract)?)
    .fetch_one(&mut *connection)
    .await
    .map_err(error::query)?;
    let publication = number(&row, "number")?;
    for file in &request.quarantine {
        sqlx::query("INSERT INTO quarantine_files (publication, table_name, path, row_count) VALUES (?, ?, ?, ?)")
            .bind(integer(publication)?)
            .bind(&file.table)
            .bind(&file.path)
            .bind(integer(file.rows)?)
            .execute(&mut *connection)
            .await
            .map_err(error::query)?;
    }
    for run in &request.transforms {
        insert_transform(connection, publication, run).await?;
    }
    Ok(publication)
}

async fn insert_transform(connection: &mut SqliteConnection, publication: u64, run: &TransformRun) -> Result<()> {
    sqlx::query("INSERT INTO publication_transforms (publication, table_name, sql_hash) VALUES (?, ?, ?)")
        .bind(integer(publication)?)
        .bind(&run.table)
        .bind(&run.sql_hash)
        .execute(&mut *connection)
        .await
        .map_err(error::query)?;
    for pin in &run.inputs {
        sqlx::query(
            "INSERT INTO publication_inputs (publication, table_name, input_domain, input_product, input_major,
             input_version, input_table, input_publication, snapshot_id, changes, since)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(integer(publication)?)
        .bind(&run.table)
        .bind(&pin.product.domain)
        .bind(&pin.product.product)
        .bind(integer(pin.product.major)?)
        .bind(pin.version.to_string())
        .bind(&pin.table)
        .bind(integer(pin.publication)?)
        .bind(pin.snapshot_id)
        .bind(i64::from(pin.changes))
        .bind(pin.since)
        .execute(&mut *connection)
        .await
        .map_err(error::query)?;
    }
    Ok(())
}

fn read_pin(row: &SqliteRow) -> Result<InputPin> {
    let version = text(row, "input_version")?;
    Ok(InputPin {
        product: ProductKey {
            domain: text(row, "input_domain")?,
            product: text(row, "input_product")?,
            major: number(row, "input_major")?,
        },
        version: version.parse().map_err(|_| {
            Error::new(ErrorCode::Registry, format!("the registry holds `{version}`, which is no version"))
        })?,
        table: text(row, "input_table")?,
        publication: number(row, "input_publication")?,
        snapshot_id: row.try_get("snapshot_id").map_err(error::query)?,
        changes: row.try_get::<i64, _>("changes").map_err(error::query)? != 0,
        since: row.try_get("since").map_err(error::query)?,
    })
}

/// Fails unless the attempt's lease is still its own.
pub(crate) async fn check_lease(connection: &mut SqliteConnection, attempt: &AttemptId) -> Result<()> {
    let row = sqlx::query("SELECT claimed FROM leases WHERE attempt = ?")
        .bind(attempt.as_str())
        .fetch_optional(connection)
        .await
        .map_err(error::query)?;
    match row.map(|row| row.try_get::<i64, _>("claimed")).transpose().map_err(error::query)? {
        Some(0) => Ok(()),
        _ => Err(lease_lost(attempt)),
    }
}

fn lease_lost(attempt: &AttemptId) -> Error {
    Error::new(
        ErrorCode::LeaseLost,
        format!("the staging lease of attempt {attempt} ran out, and its files were reclaimed"),
    )
    .with_help("run the same command again: nothing was committed")
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn product_state(&self, product: &ProductKey) -> Result<ProductState> {
        let mut transaction = self.pool.begin().await.map_err(error::query)?;
        let revision = newest_revision(&mut transaction, product).await?;
        let rows =
            sqlx::query("SELECT * FROM tables WHERE domain = ? AND product = ? AND major = ? ORDER BY table_name")
                .bind(&product.domain)
                .bind(&product.product)
                .bind(integer(product.major)?)
                .fetch_all(&mut *transaction)
                .await
                .map_err(error::query)?;
        let tables = rows.iter().map(read_pointer).collect::<Result<_>>()?;
        let watermarks = watermarks(&mut transaction, product).await?;
        Ok(ProductState { revision, tables, watermarks })
    }

    async fn catalog(&self) -> Result<Vec<CatalogProduct>> {
        let mut transaction = self.pool.begin().await.map_err(error::query)?;
        let revisions = sqlx::query(
            "SELECT r.* FROM revisions r WHERE r.number = (SELECT max(number) FROM revisions n
             WHERE n.domain = r.domain AND n.product = r.product AND n.major = r.major) ORDER BY domain, product, major",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(error::query)?;
        let rows = sqlx::query("SELECT * FROM tables ORDER BY domain, product, major, table_name")
            .fetch_all(&mut *transaction)
            .await
            .map_err(error::query)?;
        let key = |row: &SqliteRow| -> Result<ProductKey> {
            Ok(ProductKey {
                domain: text(row, "domain")?,
                product: text(row, "product")?,
                major: number(row, "major")?,
            })
        };
        let mut products = Vec::new();
        for row in &revisions {
            products.push(CatalogProduct { key: key(row)?, revision: read_revision(row)?, tables: Vec::new() });
        }
        for row in &rows {
            let key = key(row)?;
            if let Some(product) = products.iter_mut().find(|product| product.key == key) {
                product.tables.push(read_pointer(row)?);
            }
        }
        Ok(products)
    }

    async fn record_decision(&self, decision: &DecisionRecord) -> Result<u64> {
        let row = sqlx::query(
            "INSERT INTO decisions (format, at, principal, action, resource, outcome, document)
             VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
        )
        .bind(i64::from(decision.format))
        .bind(time(decision.at))
        .bind(&decision.principal.id)
        .bind(decision.action.as_str())
        .bind(&decision.resource)
        .bind(decision.outcome.as_str())
        .bind(to_json(decision)?)
        .fetch_one(&self.pool)
        .await
        .map_err(error::query)?;
        number(&row, "number")
    }

    async fn open_lease(&self, lease: &Lease) -> Result<()> {
        sqlx::query("INSERT INTO leases (attempt, document, expires_at) VALUES (?, ?, ?)")
            .bind(lease.attempt.as_str())
            .bind(to_json(lease)?)
            .bind(time(lease.expires_at))
            .execute(&self.pool)
            .await
            .map_err(error::query)?;
        Ok(())
    }

    async fn renew_lease(&self, attempt: &AttemptId, expires_at: DateTime<Utc>) -> Result<()> {
        let done = sqlx::query("UPDATE leases SET expires_at = ? WHERE attempt = ? AND claimed = 0")
            .bind(time(expires_at))
            .bind(attempt.as_str())
            .execute(&self.pool)
            .await
            .map_err(error::query)?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(lease_lost(attempt)) }
    }

    async fn close_lease(&self, attempt: &AttemptId) -> Result<()> {
        sqlx::query("DELETE FROM leases WHERE attempt = ?")
            .bind(attempt.as_str())
            .execute(&self.pool)
            .await
            .map_err(error::query)?;
        Ok(())
    }

    async fn claim_lease(&self, attempt: &AttemptId) -> Result<()> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE leases SET claimed = 1 WHERE attempt = ?")
            .bind(attempt.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(error::query)?;
        transaction.commit().await.map_err(error::query)
    }

    async fn claim_expired_leases(&self, now: DateTime<Utc>) -> Result<Vec<Lease>> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE leases SET claimed = 1 WHERE expires_at < ?")
            .bind(time(now))
            .execute(&mut *transaction)
            .await
            .map_err(error::query)?;
        let rows = sqlx::query("SELECT document FROM leases WHERE claimed = 1 ORDER BY attempt")
            .fetch_all(&mut *transaction)
            .await
            .map_err(error::query)?;
        let leases = rows.iter().map(|row| from_json("a lease", &text(row, "document")?)).collect::<Result<_>>()?;
        transaction.commit().await.map_err(error::query)?;
        Ok(leases)
    }

    async fn commit(&self, request: &CommitRequest, observer: &dyn StepObserver) -> Result<CommitOutcome> {
        let mut transaction = self.write().await?;
        check_lease(&mut transaction, &request.attempt).await?;
        let Some(revision) = register(&mut transaction, request).await? else { return Ok(CommitOutcome::Conflict) };
        if let Some(key) = &request.idempotency_key
            && find_key(&mut transaction, &request.product, key).await?.is_some()
        {
            return Ok(CommitOutcome::Conflict);
        }
        let publication = insert_publication(&mut transaction, request, revision, PublicationStatus::Published).await?;
        for table in &request.tables {
            sqlx::query(
                "INSERT INTO publication_tables (publication, table_name, write_mode, snapshot_id, content, rows_in,
                 published, quarantined, total_rows) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(integer(publication)?)
            .bind(&table.table)
            .bind(table.write.as_str())
            .bind(table.snapshot_id)
            .bind(&table.content)
            .bind(integer(table.rows_in)?)
            .bind(integer(table.published)?)
            .bind(integer(table.quarantined)?)
            .bind(integer(table.total_rows)?)
            .execute(&mut *transaction)
            .await
            .map_err(error::query)?;
            if let Some(watermark) = &table.watermark {
                keep_watermark(&mut transaction, publication, &table.table, watermark).await?;
            }
            if !swap_pointer(&mut transaction, request, table, publication).await? {
                // Dropping the transaction rolls everything back.
                return Ok(CommitOutcome::Conflict);
            }
        }
        lineage::insert(&mut transaction, &request.product, publication, &request.lineage).await?;
        if !history::write(&mut transaction, request, publication).await? {
            return Ok(CommitOutcome::Conflict);
        }
        observer.reached(PublishStep::TransactionWritten);
        transaction.commit().await.map_err(error::query)?;
        Ok(CommitOutcome::Committed(publication))
    }

    async fn record_rejection(&self, request: &CommitRequest) -> Result<u64> {
        let mut transaction = self.write().await?;
        check_lease(&mut transaction, &request.attempt).await?;
        let publication =
            insert_publication(&mut transaction, request, request.expected_revision, PublicationStatus::Rejected)
                .await?;
        transaction.commit().await.map_err(error::query)?;
        Ok(publication)
    }

    async fn find_idempotency_key(&self, product: &ProductKey, key: &str) -> Result<Option<u64>> {
        let mut connection = self.pool.acquire().await.map_err(error::query)?;
        find_key(&mut connection, product, key).await
    }

    async fn find_content(&self, product: &ProductKey, table: &str, content: &str) -> Result<Option<u64>> {
        let mut transaction = self.pool.begin().await.map_err(error::query)?;
        let rows = sqlx::query(
            "SELECT p.number AS number FROM publications p JOIN publication_tables t ON t.publication = p.number
             WHERE p.domain = ? AND p.product = ? AND p.major = ? AND p.status = 'published' AND t.table_name = ?
             AND t.content = ?",
        )
        .bind(&product.domain)
        .bind(&product.product)
        .bind(integer(product.major)?)
        .bind(table)
        .bind(content)
        .fetch_all(&mut *transaction)
        .await
        .map_err(error::query)?;
        let numbers = rows.iter().map(|row| number(row, "number")).collect::<Result<Vec<_>>>()?;
        let rollbacks = history::rollbacks(&mut transaction, product).await?;
        Ok(newest_effective(&numbers, &rollbacks))
    }

    async fn served_tables(&self, product: &ProductKey, publication: u64) -> Result<Vec<ServedTable>> {
        let mut connection = self.pool.acquire().await.map_err(error::query)?;
        history::served(&mut connection, product, publication).await
    }

    async fn rollbacks(&self, product: &ProductKey) -> Result<Vec<Rollback>> {
        let mut connection = self.pool.acquire().await.map_err(error::query)?;
        history::rollbacks(&mut connection, product).await
    }

    async fn quarantine_resolutions(&self, product: &ProductKey) -> Result<Vec<QuarantineResolution>> {
        let mut connection = self.pool.acquire().await.map_err(error::query)?;
        history::resolutions(&mut connection, product).await
    }

    async fn last_transforms(&self, product: &ProductKey) -> Result<Vec<(u64, TransformRun)>> {
        let mut transaction = self.pool.begin().await.map_err(error::query)?;
        let rows = sqlx::query(
            "SELECT t.publication, t.table_name, t.sql_hash FROM publication_transforms t
             JOIN publications p ON p.number = t.publication
             WHERE p.domain = ? AND p.product = ? AND p.major = ? AND p.status = 'published'
             ORDER BY t.table_name, t.publication DESC",
        )
        .bind(&product.domain)
        .bind(&product.product)
        .bind(integer(product.major)?)
        .fetch_all(&mut *transaction)
        .await
        .map_err(error::query)?;
        let rollbacks = history::rollbacks(&mut transaction, product).await?;
        let mut recorded: std::collections::BTreeMap<String, Vec<u64>> = std::collections::BTreeMap::new();
        for row in &rows {
            recorded.entry(text(row, "table_name")?).or_default().push(number(row, "publication")?);
        }
        let mut runs = Vec::new();
        for row in &rows {
            let (publication, table) = (number(row, "publication")?, text(row, "table_name")?);
            // What a rollback took back has not been run.
            let numbers = recorded.get(&table).map_or(&[][..], Vec::as_slice);
            if datamesh_core::ports::newest_effective(numbers, &rollbacks) != Some(publication) {
                continue;
            }
            let pins = sqlx::query("SELECT * FROM publication_inputs WHERE publication = ? AND table_name = ?")
                .bind(integer(publication)?)
                .bind(&table)
                .fetch_all(&mut *transaction)
                .await
                .map_err(error::query)?;
            let inputs = pins.iter().map(read_pin).collect::<Result<_>>()?;
            runs.push((publication, TransformRun { table, sql_hash: text(row, "sql_hash")?, inputs }));
        }
        Ok(runs)
    }

    async fn publications(&self, product: &ProductKey, limit: u64) -> Result<Vec<Publication>> {
        let rows = sqlx::query(
            "SELECT * FROM publications WHERE domain = ? AND product = ? AND major = ? ORDER BY number DESC LIMIT ?",
        )
        .bind(&product.domain)
        .bind(&product.product)
        .bind(integer(product.major)?)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(error::query)?;
        rows.iter().map(read_publication).collect()
    }

    async fn lineage(&self, publication: Option<u64>) -> Result<Vec<Edge>> {
        lineage::edges(&self.pool, publication).await
    }

    async fn history(&self, products: &[(String, String)]) -> Result<History> {
        let mut transaction = self.pool.begin().await.map_err(error::query)?;
        let mut history = History::default();
        for (domain, product) in products {
            let rows = sqlx::query(
                "SELECT major, number, at, status FROM publications WHERE domain = ? AND product = ? ORDER BY number",
            )
            .bind(domain)
            .bind(product)
            .fetch_all(&mut *transaction)
            .await
            .map_err(error::query)?;
            for row in &rows {
                history.attempts.push(Attempt {
                    product: ProductKey {
                        domain: domain.clone(),
                        product: product.clone(),
                        major: number(row, "major")?,
                    },
                    number: number(row, "number")?,
                    at: read_time(&text(row, "at")?)?,
                    status: read_status(&text(row, "status")?),
                });
            }
            let rows = sqlx::query(
                "SELECT t.publication, t.table_name, t.snapshot_id FROM publications p
                 JOIN publication_tables t ON t.publication = p.number
                 WHERE p.domain = ? AND p.product = ? AND p.status = 'published' ORDER BY t.publication",
            )
            .bind(domain)
            .bind(product)
            .fetch_all(&mut *transaction)
            .await
            .map_err(error::query)?;
            for row in &rows {
                history.tables.push(WrittenTable {
                    publication: number(row, "publication")?,
                    table: text(row, "table_name")?,
                    snapshot_id: row.try_get("snapshot_id").map_err(error::query)?,
                });
            }
        }
        history.attempts.sort_by_key(|attempt| attempt.number);
        Ok(history)
    }

    async fn quarantine_files(&self, publication: u64) -> Result<Vec<QuarantineFile>> {
        let rows = sqlx::query("SELECT * FROM quarantine_files WHERE publication = ? ORDER BY table_name, path")
            .bind(integer(publication)?)
            .fetch_all(&self.pool)
            .await
            .map_err(error::query)?;
        let read = |row: &SqliteRow| -> Result<QuarantineFile> {
            Ok(QuarantineFile {
                table: text(row, "table_name")?,
                path: text(row, "path")?,
                rows: number(row, "row_count")?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn commit_maintenance(&self, commit: &MaintenanceCommit) -> Result<bool> {
        self.swap_for_maintenance(commit).await
    }

    async fn unreferenced_files(&self, before: DateTime<Utc>) -> Result<Vec<UnreferencedFile>> {
        maintenance::unreferenced(&self.pool, before).await
    }

    async fn forget_unreferenced(&self, paths: &[String]) -> Result<()> {
        maintenance::forget(&self.pool, paths).await
    }

    async fn leases(&self) -> Result<Vec<Lease>> {
        maintenance::leases(&self.pool).await
    }

    async fn known_files(&self, product: &ProductKey) -> Result<Vec<String>> {
        maintenance::known_files(&self.pool, product).await
    }

    async fn attempt_quarantine(&self, attempt: &AttemptId) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "SELECT q.path FROM quarantine_files q JOIN publications p ON p.number = q.publication WHERE p.attempt = ?",
        )
        .bind(attempt.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(error::query)?;
        rows.iter().map(|row| text(row, "path")).collect()
    }
}

/// How far the pulls of each table have come.
async fn watermarks(
    connection: &mut SqliteConnection,
    product: &ProductKey,
) -> Result<std::collections::BTreeMap<String, Watermark>> {
    let rollbacks = history::rollbacks(connection, product).await?;
    if !rollbacks.is_empty() {
        return history::watermarks(connection, product, &rollbacks).await;
    }
    let rows = sqlx::query(
        "SELECT w.table_name, w.column_name, w.value FROM watermarks w JOIN publications p ON p.number = w.publication
         WHERE p.domain = ? AND p.product = ? AND p.major = ? AND w.publication = (SELECT max(n.publication)
         FROM watermarks n JOIN publications q ON q.number = n.publication WHERE n.table_name = w.table_name
         AND q.domain = p.domain AND q.product = p.product AND q.major = p.major)",
    )
    .bind(&product.domain)
    .bind(&product.product)
    .bind(integer(product.major)?)
    .fetch_all(connection)
    .await
    .map_err(error::query)?;
    let read = |row: &SqliteRow| -> Result<(String, Watermark)> {
        Ok((text(row, "table_name")?, Watermark { column: text(row, "column_name")?, value: text(row, "value")? }))
    };
    rows.iter().map(read).collect()
}

async fn keep_watermark(
    connection: &mut SqliteConnection,
    publication: u64,
    table: &str,
    watermark: &Watermark,
) -> Result<()> {
    sqlx::query("INSERT INTO watermarks (publication, table_name, column_name, value) VALUES (?, ?, ?, ?)")
        .bind(integer(publication)?)
        .bind(table)
        .bind(&watermark.column)
        .bind(&watermark.value)
        .execute(connection)
        .await
        .map_err(error::query)?;
    Ok(())
}

/// Compare-and-swap of a table's pointer. `false`: it is not where the plan saw it.
async fn swap_pointer(
    connection: &mut SqliteConnection,
    request: &CommitRequest,
    table: &datamesh_core::ports::TableCommit,
    publication: u64,
) -> Result<bool> {
    let statement = match &table.expected {
        None => {
            "INSERT INTO tables (metadata_location, metadata, content, total_rows, publication, domain, product, major, table_name)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        }
        Some(_) => {
            "UPDATE tables SET metadata_location = ?, metadata = ?, content = ?, total_rows = ?, publication = ?
             WHERE domain = ? AND product = ? AND major = ? AND table_name = ? AND metadata_location = ?"
        }
    };
    let mut query = sqlx::query(statement)
        .bind(&table.metadata_location)
        .bind(&table.metadata)
        .bind(&table.content)
        .bind(integer(table.total_rows)?)
        .bind(integer(publication)?)
        .bind(&request.product.domain)
        .bind(&request.product.product)
        .bind(integer(request.product.major)?)
        .bind(&table.table);
    if let Some(expected) = &table.expected {
        query = query.bind(expected);
    }
    let done = query.execute(connection).await.map_err(error::query)?;
    Ok(done.rows_affected() == 1)
}

async fn find_key(connection: &mut SqliteConnection, product: &ProductKey, key: &str) -> Result<Option<u64>> {
    let row = sqlx::query(
        "SELECT number FROM publications WHERE domain = ? AND product = ? AND major = ? AND idempotency_key = ?
         AND status = 'published'",
    )
    .bind(&product.domain)
    .bind(&product.product)
    .bind(integer(product.major)?)
    .bind(key)
    .fetch_optional(connection)
    .await
    .map_err(error::query)?;
    row.as_ref().map(|row| number(row, "number")).transpose()
}

fn read_status(status: &str) -> PublicationStatus {
    match status {
        "published" => PublicationStatus::Published,
        _ => PublicationStatus::Rejected,
    }
}

fn read_publication(row: &SqliteRow) -> Result<Publication> {
    let attempt = text(row, "attempt")?;
    Ok(Publication {
        number: number(row, "number")?,
        status: read_status(&text(row, "status")?),
        version: text(row, "version")?,
        at: read_time(&text(row, "at")?)?,
        principal: text(row, "principal")?,
        attempt: AttemptId::parse(&attempt)
            .ok_or_else(|| Error::new(ErrorCode::Registry, format!("the registry holds `{attempt}` as an attempt")))?,
        contract: Some(from_json("a contract", &text(row, "contract")?)?),
        idempotency_key: row.try_get("idempotency_key").map_err(error::query)?,
        report: from_json("a report", &text(row, "report")?)?,
    })
}
