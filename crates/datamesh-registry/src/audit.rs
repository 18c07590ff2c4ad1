//! The audit log: entries are added one transaction at a time, and read in pages.

use chrono::{DateTime, SubsecRound, Utc};
use datamesh_core::audit::{
    AuditEntry, AuditQuery, AuditVerification, CHECKPOINT_EVERY, Checkpoint, Legacy, ORIGIN, ReadRecord, Signer,
    StoredDecision, StoredEntry, StoredGrant, Verification, Verifier,
};
use datamesh_core::canonical;
use datamesh_core::decision::DecisionRecord;
use datamesh_core::{Error, ErrorCode, Result};

use crate::identity;
use crate::store::{Row, Session, Value, sql};
use crate::text::{from_json, read_key, time, to_json};

/// How many rows are held at once while the log is verified.
const PAGE: u64 = 1000;

/// Where the log ends. Whoever has it is the only one who adds to the log until the transaction ends.
pub(crate) struct Head {
    /// The last entry's number.
    pub(crate) sequence: u64,
    /// Its hash.
    pub(crate) hash: String,
    /// The number of the last checkpoint's entry; 0: there is none.
    checkpoint: u64,
}

/// Times are kept with microseconds.
fn rounded(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

/// Nobody can sign.
pub(crate) fn unsigned() -> Error {
    Error::new(ErrorCode::InvalidArgument, "nobody signs here: the registry was opened without a key")
        .with_help("the mesh's key lies in `.datamesh/keys/signing.key`")
}

fn headless() -> Error {
    Error::new(ErrorCode::Registry, "the audit log does not say where it ends: its table `audit_head` is empty")
        .with_help("restore the registry from a backup")
}

/// Takes the log's end, and begins the log where it is empty.
pub(crate) async fn begin(session: &mut Session, at: DateTime<Utc>) -> Result<Head> {
    let text = match session.has_row_locks() {
        true => "SELECT sequence, hash, checkpoint FROM audit_head FOR NO KEY UPDATE",
        false => "SELECT sequence, hash, checkpoint FROM audit_head",
    };
    let row = sql(text).fetch_optional(session).await?.ok_or_else(headless)?;
    let mut head =
        Head { sequence: row.number("sequence")?, hash: row.text("hash")?, checkpoint: row.number("checkpoint")? };
    if head.sequence == 0 {
        let mesh = identity::read(session).await?.id.to_string();
        let mut legacy = Legacy::default();
        let mut last = None;
        loop {
            let page = decisions(session, last, u64::MAX >> 1).await?;
            page.iter().for_each(|decision| legacy.push(decision));
            match page.last() {
                Some(decision) => last = Some(decision.number),
                None => break,
            }
        }
        push(session, &mut head, legacy.entry(rounded(at), &mesh)).await?;
    }
    Ok(head)
}

/// Adds an entry, and gives it its number.
pub(crate) async fn push(session: &mut Session, head: &mut Head, mut entry: AuditEntry) -> Result<u64> {
    entry.sequence = head.sequence + 1;
    entry.at = rounded(entry.at);
    let stored = StoredEntry::new(&entry, &head.hash)?;
    sql("INSERT INTO audit (sequence, at, kind, principal, impersonated_by, action, resource, outcome, decision,
         publication, previous, hash, document) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)")
    .bind(stored.sequence)
    .bind(&stored.at)
    .bind(&stored.kind)
    .bind(&stored.principal)
    .bind(&stored.impersonated_by)
    .bind(&stored.action)
    .bind(&stored.resource)
    .bind(&stored.outcome)
    .bind(stored.decision)
    .bind(stored.publication)
    .bind(&stored.previous)
    .bind(&stored.hash)
    .bind(&stored.text)
    .execute(session)
    .await?;
    head.sequence = stored.sequence;
    head.hash = stored.hash;
    Ok(head.sequence)
}

/// Notes where the log ends now. It is signed where it must be, or where enough entries wait for it.
pub(crate) async fn end(
    session: &mut Session,
    mut head: Head,
    at: DateTime<Utc>,
    signer: Option<&dyn Signer>,
    must_sign: bool,
) -> Result<()> {
    if let Some(signer) = signer
        && (must_sign || head.sequence - head.checkpoint >= CHECKPOINT_EVERY)
    {
        sign(session, &mut head, at, signer).await?;
    }
    note(session, &head).await
}

async fn sign(session: &mut Session, head: &mut Head, at: DateTime<Utc>, signer: &dyn Signer) -> Result<Checkpoint> {
    let mesh = identity::read(session).await?.id.to_string();
    let checkpoint = Checkpoint::sign(&mesh, head.sequence, &head.hash, rounded(at), signer)?;
    head.checkpoint = push(session, head, checkpoint.entry()?).await?;
    Ok(checkpoint)
}

async fn note(session: &mut Session, head: &Head) -> Result<()> {
    sql("UPDATE audit_head SET sequence = $1, hash = $2, checkpoint = $3")
        .bind(head.sequence)
        .bind(&head.hash)
        .bind(head.checkpoint)
        .execute(session)
        .await?;
    Ok(())
}

/// Adds a decision to the list of decisions and to the log; its number.
pub(crate) async fn record_decision(
    session: &mut Session,
    decision: &DecisionRecord,
    signer: Option<&dyn Signer>,
) -> Result<u64> {
    // Numbers that are not read back exactly would look as if somebody had changed them.
    let decision = &DecisionRecord { context: canonical::exact(decision.context.clone()), ..decision.clone() };
    let mut head = begin(session, decision.at).await?;
    let row = sql("INSERT INTO decisions (format, at, principal, action, resource, outcome, document)
                   VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number")
    .bind(i64::from(decision.format))
    .bind(time(decision.at))
    .bind(&decision.principal.id)
    .bind(decision.action.as_str())
    .bind(&decision.resource)
    .bind(decision.outcome.as_str())
    .bind(to_json(decision)?)
    .fetch_one(session)
    .await?;
    let number = row.number("number")?;
    push(session, &mut head, AuditEntry::of_decision(decision, number)).await?;
    end(session, head, decision.at, signer, false).await?;
    Ok(number)
}

/// Adds the end of a read; the entry's number.
pub(crate) async fn record_read(session: &mut Session, read: &ReadRecord, signer: Option<&dyn Signer>) -> Result<u64> {
    let mut head = begin(session, read.at).await?;
    let sequence = push(session, &mut head, read.entry()).await?;
    end(session, head, read.at, signer, false).await?;
    Ok(sequence)
}

/// Signs the log as it is; where it ends with a checkpoint, that one does.
pub(crate) async fn checkpoint(session: &mut Session, at: DateTime<Utc>, signer: &dyn Signer) -> Result<Checkpoint> {
    let mut head = begin(session, at).await?;
    if head.sequence == head.checkpoint
        && let Some(checkpoint) = latest_checkpoint(session).await?
    {
        return Ok(checkpoint);
    }
    let checkpoint = sign(session, &mut head, at, signer).await?;
    note(session, &head).await?;
    Ok(checkpoint)
}

pub(crate) async fn latest_checkpoint(session: &mut Session) -> Result<Option<Checkpoint>> {
    let row = sql("SELECT a.document AS document FROM audit a JOIN audit_head h ON h.checkpoint = a.sequence")
        .fetch_optional(session)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let entry: AuditEntry = from_json("an audit entry", &row.text("document")?)?;
    Ok(Some(from_json("a checkpoint", &to_json(&entry.details)?)?))
}

/// The entries that a query asks for, newest first.
pub(crate) async fn entries(session: &mut Session, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
    let mut conditions = Vec::new();
    let mut values: Vec<Value<'_>> = Vec::new();
    let mut add = |condition: &str, value: Value<'static>| {
        values.push(value);
        conditions.push(condition.replace('?', &format!("${}", values.len())));
    };
    if let Some(principal) = &query.principal {
        add("(principal = ? OR impersonated_by = ?)", principal.clone().into());
    }
    if let Some(kind) = query.kind {
        add("kind = ?", kind.as_str().into());
    }
    if let Some(action) = &query.action {
        add("action = ?", action.clone().into());
    }
    if let Some(outcome) = &query.outcome {
        add("outcome = ?", outcome.clone().into());
    }
    if let Some(since) = query.since {
        add("at >= ?", time(since).into());
    }
    if let Some(until) = query.until {
        add("at < ?", time(until).into());
    }
    if let Some(before) = query.before {
        add("sequence < ?", i64::try_from(before).unwrap_or(i64::MAX).into());
    }
    if let Some(prefix) = &query.resource {
        add("substr(resource, 1, length(CAST(? AS TEXT))) = ?", prefix.clone().into());
    }
    let limit = query.limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX);
    let filter = if conditions.is_empty() { "1 = 1".to_owned() } else { conditions.join(" AND ") };
    let place = values.len() + 1;
    let text = format!("SELECT document FROM audit WHERE {filter} ORDER BY sequence DESC LIMIT ${place}");
    let statement = values.into_iter().fold(sql(&text).once(), |statement, value| statement.bind(value));
    let rows = statement.bind(limit).fetch_all(session).await?;
    rows.iter().map(|row| from_json("an audit entry", &row.text("document")?)).collect()
}

/// A page of decisions, by number.
async fn decisions(session: &mut Session, after: Option<u64>, last: u64) -> Result<Vec<StoredDecision>> {
    let rows = sql("SELECT number AS d_number, format AS d_format, at AS d_at, principal AS d_principal,
                    action AS d_action, resource AS d_resource, outcome AS d_outcome, document AS d_document
                    FROM decisions WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3")
    .bind(after.map_or(i64::MIN, |after| i64::try_from(after).unwrap_or(i64::MAX)))
    .bind(last)
    .bind(PAGE)
    .fetch_all(session)
    .await?;
    rows.iter().map(read_decision).collect()
}

fn read_decision(row: &Row) -> Result<StoredDecision> {
    Ok(StoredDecision {
        number: row.number("d_number")?,
        format: row.number("d_format")?,
        at: row.text("d_at")?,
        principal: row.text("d_principal")?,
        action: row.text("d_action")?,
        resource: row.text("d_resource")?,
        outcome: row.text("d_outcome")?,
        document: row.text("d_document")?,
    })
}

/// Reads the whole log, a page at a time.
pub(crate) async fn verify(
    session: &mut Session,
    verifier: &dyn Verifier,
    anchor: Option<&Checkpoint>,
) -> Result<AuditVerification> {
    let mesh = identity::read(session).await?.id.to_string();
    let mut verification = Verification::new(&mesh, verifier, anchor);
    let first = sql("SELECT document FROM audit WHERE sequence = 1").fetch_optional(session).await?;
    let first = first.map(|row| row.text("document")).transpose()?;
    let empty = sql("SELECT count(*) AS entries FROM audit").fetch_one(session).await?.number("entries")? == 0;
    // A first entry that cannot be read is told as what it is, further on.
    let genesis = first.and_then(|text| serde_json::from_str::<AuditEntry>(&text).ok());
    let noted = genesis.and_then(|entry| entry.details.get("last").and_then(serde_json::Value::as_u64));
    let last = if empty { u64::MAX >> 1 } else { noted.unwrap_or(0) };
    let mut after = None;
    loop {
        let page = decisions(session, after, last).await?;
        page.iter().for_each(|decision| verification.legacy(decision));
        match page.last() {
            Some(decision) => after = Some(decision.number),
            None => break,
        }
    }
    let mut after = i64::MIN;
    loop {
        let rows =
            sql("SELECT a.sequence, a.at, a.kind, a.principal, a.impersonated_by, a.action, a.resource, a.outcome,
                        a.decision, a.publication, a.previous, a.hash, a.document,
                        d.number AS d_number, d.format AS d_format, d.at AS d_at, d.principal AS d_principal,
                        d.action AS d_action, d.resource AS d_resource, d.outcome AS d_outcome,
                        d.document AS d_document, r.receipt AS receipt
                        FROM audit a LEFT JOIN decisions d ON d.number = a.decision AND a.kind = 'decision'
                        LEFT JOIN receipts r ON r.publication = a.publication
                        WHERE a.sequence > $1 ORDER BY a.sequence LIMIT $2")
            .bind(after)
            .bind(PAGE)
            .fetch_all(session)
            .await?;
        for row in &rows {
            verification.push(&read_entry(row)?);
        }
        match rows.last() {
            Some(row) => after = row.integer("sequence")?,
            None => break,
        }
    }
    let lone = sql("SELECT d.number AS number FROM decisions d WHERE d.number > $1 AND NOT EXISTS (
                        SELECT 1 FROM audit a WHERE a.kind = 'decision' AND a.decision = d.number)
                    ORDER BY d.number")
    .bind(last);
    for row in lone.fetch_all(session).await? {
        verification.unchained(row.number("number")?);
    }
    let lone = "SELECT r.publication AS publication FROM receipts r WHERE NOT EXISTS (
                    SELECT 1 FROM audit a WHERE a.publication = r.publication) ORDER BY r.publication";
    for row in sql(lone).fetch_all(session).await? {
        verification.unknown_receipt(row.number("publication")?);
    }
    in_force(session, &mut verification).await?;
    let row = sql("SELECT sequence, hash FROM audit_head").fetch_optional(session).await?.ok_or_else(headless)?;
    let head = (row.number("sequence")?, row.text("hash")?);
    let head = (head != (0, ORIGIN.to_owned())).then_some(head);
    Ok(verification.finish(head))
}

/// Shows a verification what is in force, to compare with what the log says.
async fn in_force(session: &mut Session, verification: &mut Verification<'_>) -> Result<()> {
    let mut after = i64::MIN;
    loop {
        let rows = sql("SELECT * FROM grants WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(after)
            .bind(PAGE)
            .fetch_all(session)
            .await?;
        for row in &rows {
            verification.grant(&StoredGrant {
                number: row.number("number")?,
                product: read_key(row)?,
                principal: row.text("principal")?,
                expires_at: row.optional_text("expires_at")?,
                revoked: row.integer("revoked")? != 0,
                document: row.text("document")?,
            });
        }
        match rows.last() {
            Some(row) => after = row.integer("number")?,
            None => break,
        }
    }
    for row in sql("SELECT name, document FROM domains ORDER BY name").fetch_all(session).await? {
        verification.domain(&row.text("name")?, &row.text("document")?);
    }
    let newest = "SELECT r.domain AS domain, r.product AS product, r.major AS major, r.contract AS contract
                  FROM revisions r WHERE r.number = (SELECT max(o.number) FROM revisions o
                      WHERE o.domain = r.domain AND o.product = r.product AND o.major = r.major)
                  ORDER BY r.domain, r.product, r.major";
    for row in sql(newest).fetch_all(session).await? {
        verification.contract(&read_key(&row)?, &row.text("contract")?);
    }
    let newest = sql("SELECT revision, document FROM governance ORDER BY revision DESC LIMIT 1");
    let newest = newest.fetch_optional(session).await?;
    let newest = newest.map(|row| Ok::<_, Error>((row.number("revision")?, row.text("document")?))).transpose()?;
    verification.governance(newest.as_ref().map(|(revision, document)| (*revision, document.as_str())));
    Ok(())
}

fn read_entry(row: &Row) -> Result<StoredEntry> {
    let record = row.optional_number("d_number")?.map(|_| read_decision(row)).transpose()?;
    Ok(StoredEntry {
        sequence: row.number("sequence")?,
        at: row.text("at")?,
        kind: row.text("kind")?,
        principal: row.text("principal")?,
        impersonated_by: row.optional_text("impersonated_by")?,
        action: row.text("action")?,
        resource: row.text("resource")?,
        outcome: row.text("outcome")?,
        decision: row.optional_number("decision")?,
        publication: row.optional_number("publication")?,
        previous: row.text("previous")?,
        hash: row.text("hash")?,
        text: row.text("document")?,
        record,
        receipt: row.optional_text("receipt")?,
    })
}
