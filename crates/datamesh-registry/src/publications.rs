//! Publications: what a commit writes, and what is read of them later.

use std::collections::BTreeMap;

use datamesh_core::audit::Signer;
use datamesh_core::history::{AppliedRevision, Attempt, History, WrittenTable};
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::outbox::OutboxKind;
use datamesh_core::ports::{
    CommitRequest, Publication, PublicationStatus, QuarantineFile, TableCommit, newest_effective,
};
use datamesh_core::transform::{InputPin, TransformRun};
use datamesh_core::{Error, ErrorCode, Result};

use crate::outbox::{self, Event};
use crate::store::{Row, Session, Value, insert_all, sql};
use crate::text::{from_json, read_time, time, to_json};
use crate::{history, leases, lineage, receipts, state};

/// Writes everything of a publication; its number. `None`: somebody else was first, and nothing may be committed.
pub(crate) async fn write(
    session: &mut Session,
    request: &CommitRequest,
    signer: Option<&dyn Signer>,
) -> Result<Option<u64>> {
    leases::check(session, &request.attempt).await?;
    let Some((revision, is_new)) = state::register(session, request).await? else { return Ok(None) };
    if let Some(key) = &request.idempotency_key
        && find_key(session, &request.product, key).await?.is_some()
    {
        return Ok(None);
    }
    let publication = insert(session, request, revision, PublicationStatus::Published).await?;
    let first = outbox::take(session, request.tables.len() + usize::from(is_new)).await?;
    for (sequence, table) in (first..).zip(&request.tables) {
        insert_table(session, publication, table).await?;
        if !state::swap_pointer(session, &request.product, table, publication, sequence).await? {
            return Ok(None);
        }
    }
    tell(session, request, first, publication, is_new).await?;
    lineage::insert(session, &request.product, publication, &request.lineage).await?;
    if !history::write(session, request, publication).await? {
        return Ok(None);
    }
    receipts::write(session, request, publication, PublicationStatus::Published, signer).await?;
    Ok(Some(publication))
}

/// Tells of the pointers that moved, and of a contract that was registered.
async fn tell(
    session: &mut Session,
    request: &CommitRequest,
    first: u64,
    publication: u64,
    is_new: bool,
) -> Result<()> {
    let kind = if request.rollback_to.is_some() { OutboxKind::RolledBack } else { OutboxKind::Published };
    let moved = request.tables.iter().map(|table| Event {
        kind,
        product: &request.product,
        pointer: Some((&table.table, &table.metadata_location, publication)),
        former: None,
    });
    let applied = is_new.then(|| Event::of_product(OutboxKind::Applied, &request.product));
    outbox::write(session, request.at, first, moved.chain(applied)).await
}

/// Writes what is kept of a rejected attempt; its number.
pub(crate) async fn write_rejection(
    session: &mut Session,
    request: &CommitRequest,
    signer: Option<&dyn Signer>,
) -> Result<u64> {
    leases::check(session, &request.attempt).await?;
    let publication = insert(session, request, request.expected_revision, PublicationStatus::Rejected).await?;
    receipts::write(session, request, publication, PublicationStatus::Rejected, signer).await?;
    Ok(publication)
}

async fn insert(
    session: &mut Session,
    request: &CommitRequest,
    revision: u64,
    status: PublicationStatus,
) -> Result<u64> {
    let status = match status {
        PublicationStatus::Published => "published",
        PublicationStatus::Rejected => "rejected",
    };
    // No publication is ever deleted and one transaction writes at a time, so numbers have no gaps.
    let row = sql("INSERT INTO publications (number, domain, product, major, revision, version, status, at, principal,
                   attempt, decision, idempotency_key, report, contract)
                   VALUES ((SELECT coalesce(max(number), 0) + 1 FROM publications),
                   $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING number")
    .bind(&request.product.domain)
    .bind(&request.product.product)
    .bind(request.product.major)
    .bind(revision)
    .bind(request.contract.version.to_string())
    .bind(status)
    .bind(time(request.at))
    .bind(&request.principal)
    .bind(request.attempt.as_str())
    .bind(request.decision)
    .bind(&request.idempotency_key)
    .bind(to_json(&request.report)?)
    .bind(to_json(&request.contract)?)
    .fetch_one(session)
    .await?;
    let publication = row.number("number")?;
    let files = request.quarantine.iter().map(|file| -> Vec<Value<'_>> {
        vec![publication.into(), (&file.table).into(), (&file.path).into(), file.rows.into()]
    });
    insert_all(session, "INSERT INTO quarantine_files (publication, table_name, path, row_count)", files.collect(), "")
        .await?;
    for run in &request.transforms {
        insert_transform(session, publication, run).await?;
    }
    Ok(publication)
}

async fn insert_table(session: &mut Session, publication: u64, table: &TableCommit) -> Result<()> {
    sql(
        "INSERT INTO publication_tables (publication, table_name, write_mode, snapshot_id, content, rows_in, published,
         quarantined, total_rows) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(publication)
    .bind(&table.table)
    .bind(table.write.as_str())
    .bind(table.snapshot_id)
    .bind(&table.content)
    .bind(table.rows_in)
    .bind(table.published)
    .bind(table.quarantined)
    .bind(table.total_rows)
    .execute(session)
    .await?;
    if let Some(watermark) = &table.watermark {
        sql("INSERT INTO watermarks (publication, table_name, column_name, value) VALUES ($1, $2, $3, $4)")
            .bind(publication)
            .bind(&table.table)
            .bind(&watermark.column)
            .bind(&watermark.value)
            .execute(session)
            .await?;
    }
    Ok(())
}

async fn insert_transform(session: &mut Session, publication: u64, run: &TransformRun) -> Result<()> {
    sql("INSERT INTO publication_transforms (publication, table_name, sql_hash) VALUES ($1, $2, $3)")
        .bind(publication)
        .bind(&run.table)
        .bind(&run.sql_hash)
        .execute(session)
        .await?;
    let pins = run.inputs.iter().map(|pin| -> Vec<Value<'_>> {
        vec![
            publication.into(),
            (&run.table).into(),
            (&pin.product.domain).into(),
            (&pin.product.product).into(),
            pin.product.major.into(),
            pin.version.to_string().into(),
            (&pin.table).into(),
            pin.publication.into(),
            pin.snapshot_id.into(),
            pin.changes.into(),
            pin.since.into(),
        ]
    });
    let insert = "INSERT INTO publication_inputs (publication, table_name, input_domain, input_product, input_major,
                  input_version, input_table, input_publication, snapshot_id, changes, since)";
    insert_all(session, insert, pins.collect(), "").await
}

fn read_pin(row: &Row) -> Result<InputPin> {
    let version = row.text("input_version")?;
    Ok(InputPin {
        product: ProductKey {
            domain: row.text("input_domain")?,
            product: row.text("input_product")?,
            major: row.number("input_major")?,
        },
        version: version.parse().map_err(|_| {
            Error::new(ErrorCode::Registry, format!("the registry holds `{version}`, which is no version"))
        })?,
        table: row.text("input_table")?,
        publication: row.number("input_publication")?,
        snapshot_id: row.integer("snapshot_id")?,
        changes: row.flag("changes")?,
        since: row.optional_integer("since")?,
    })
}

/// The publication, or rejection, that an attempt became.
pub(crate) async fn find_attempt(session: &mut Session, attempt: &AttemptId) -> Result<Option<u64>> {
    let row = sql("SELECT number FROM publications WHERE attempt = $1").bind(attempt.as_str()).fetch_optional(session);
    row.await?.map(|row| row.number("number")).transpose()
}

pub(crate) async fn find_key(session: &mut Session, product: &ProductKey, key: &str) -> Result<Option<u64>> {
    let row = sql("SELECT number FROM publications WHERE domain = $1 AND product = $2 AND major = $3
                   AND idempotency_key = $4 AND status = 'published'")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .bind(key)
    .fetch_optional(session)
    .await?;
    row.map(|row| row.number("number")).transpose()
}

pub(crate) async fn find_content(
    session: &mut Session,
    product: &ProductKey,
    table: &str,
    content: &str,
) -> Result<Option<u64>> {
    let rows =
        sql("SELECT p.number AS number FROM publications p JOIN publication_tables t ON t.publication = p.number
                    WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 AND p.status = 'published'
                    AND t.table_name = $4 AND t.content = $5")
        .bind(&product.domain)
        .bind(&product.product)
        .bind(product.major)
        .bind(table)
        .bind(content)
        .fetch_all(session)
        .await?;
    let numbers = rows.iter().map(|row| row.number("number")).collect::<Result<Vec<_>>>()?;
    Ok(newest_effective(&numbers, &history::rollbacks(session, product).await?))
}

pub(crate) async fn last_transforms(session: &mut Session, product: &ProductKey) -> Result<Vec<(u64, TransformRun)>> {
    let rows = sql("SELECT t.publication, t.table_name, t.sql_hash FROM publication_transforms t
                    JOIN publications p ON p.number = t.publication
                    WHERE p.domain = $1 AND p.product = $2 AND p.major = $3 AND p.status = 'published'
                    ORDER BY t.table_name, t.publication DESC")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    let rollbacks = history::rollbacks(session, product).await?;
    let mut recorded: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in &rows {
        recorded.entry(row.text("table_name")?).or_default().push(row.number("publication")?);
    }
    let mut runs = Vec::new();
    for row in &rows {
        let (publication, table) = (row.number("publication")?, row.text("table_name")?);
        // What a rollback took back has not been run.
        let numbers = recorded.get(&table).map_or(&[][..], Vec::as_slice);
        if newest_effective(numbers, &rollbacks) != Some(publication) {
            continue;
        }
        let pins = sql("SELECT * FROM publication_inputs WHERE publication = $1 AND table_name = $2
                        ORDER BY input_domain, input_product, input_major, input_table, changes")
        .bind(publication)
        .bind(&table)
        .fetch_all(session)
        .await?;
        let inputs = pins.iter().map(read_pin).collect::<Result<_>>()?;
        runs.push((publication, TransformRun { table, sql_hash: row.text("sql_hash")?, inputs }));
    }
    Ok(runs)
}

pub(crate) async fn newest(session: &mut Session, product: &ProductKey, limit: u64) -> Result<Vec<Publication>> {
    let rows = sql("SELECT * FROM publications WHERE domain = $1 AND product = $2 AND major = $3
                    ORDER BY number DESC LIMIT $4")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(session)
    .await?;
    rows.iter().map(read).collect()
}

fn read_status(status: &str) -> Result<PublicationStatus> {
    match status {
        "published" => Ok(PublicationStatus::Published),
        "rejected" => Ok(PublicationStatus::Rejected),
        other => Err(Error::new(ErrorCode::Registry, format!("the registry holds `{other}` as a status"))),
    }
}

fn read(row: &Row) -> Result<Publication> {
    let attempt = row.text("attempt")?;
    Ok(Publication {
        number: row.number("number")?,
        status: read_status(&row.text("status")?)?,
        version: row.text("version")?,
        at: read_time(&row.text("at")?)?,
        principal: row.text("principal")?,
        attempt: AttemptId::parse(&attempt)
            .ok_or_else(|| Error::new(ErrorCode::Registry, format!("the registry holds `{attempt}` as an attempt")))?,
        contract: Some(from_json("a contract", &row.text("contract")?)?),
        idempotency_key: row.optional_text("idempotency_key")?,
        report: from_json("a report", &row.text("report")?)?,
    })
}

/// What was published when, of every major version of a product.
pub(crate) async fn history(session: &mut Session, domain: &str, product: &str, history: &mut History) -> Result<()> {
    let rows = sql("SELECT major, number, at, status FROM publications WHERE domain = $1 AND product = $2
                    ORDER BY number")
    .bind(domain)
    .bind(product)
    .fetch_all(session)
    .await?;
    for row in &rows {
        history.attempts.push(Attempt {
            product: ProductKey { domain: domain.to_owned(), product: product.to_owned(), major: row.number("major")? },
            number: row.number("number")?,
            at: read_time(&row.text("at")?)?,
            status: read_status(&row.text("status")?)?,
        });
    }
    let rows = sql("SELECT t.publication, t.table_name, t.snapshot_id FROM publications p
                    JOIN publication_tables t ON t.publication = p.number
                    WHERE p.domain = $1 AND p.product = $2 AND p.status = 'published'
                    ORDER BY t.publication, t.table_name")
    .bind(domain)
    .bind(product)
    .fetch_all(session)
    .await?;
    for row in &rows {
        history.tables.push(WrittenTable {
            publication: row.number("publication")?,
            table: row.text("table_name")?,
            snapshot_id: row.integer("snapshot_id")?,
        });
    }
    let rows = sql("SELECT major, number, created_at FROM revisions WHERE domain = $1 AND product = $2
                    ORDER BY major, number")
    .bind(domain)
    .bind(product)
    .fetch_all(session)
    .await?;
    for row in &rows {
        history.revisions.push(AppliedRevision {
            product: ProductKey { domain: domain.to_owned(), product: product.to_owned(), major: row.number("major")? },
            number: row.number("number")?,
            at: read_time(&row.text("created_at")?)?,
        });
    }
    Ok(())
}

pub(crate) async fn quarantine_files(session: &mut Session, publication: u64) -> Result<Vec<QuarantineFile>> {
    let rows = sql("SELECT * FROM quarantine_files WHERE publication = $1 ORDER BY table_name, path")
        .bind(publication)
        .fetch_all(session)
        .await?;
    let read = |row: &Row| -> Result<QuarantineFile> {
        Ok(QuarantineFile { table: row.text("table_name")?, path: row.text("path")?, rows: row.number("row_count")? })
    };
    rows.iter().map(read).collect()
}

pub(crate) async fn attempt_quarantine(session: &mut Session, attempt: &AttemptId) -> Result<Vec<String>> {
    let rows = sql("SELECT q.path AS path FROM quarantine_files q JOIN publications p ON p.number = q.publication
                    WHERE p.attempt = $1 ORDER BY q.path")
    .bind(attempt.as_str())
    .fetch_all(session)
    .await?;
    rows.iter().map(|row| row.text("path")).collect()
}
