//! Leases of staging prefixes.

use chrono::{DateTime, Utc};
use datamesh_core::ids::AttemptId;
use datamesh_core::ports::Lease;
use datamesh_core::{Error, ErrorCode, Result};

use crate::store::{Session, sql};
use crate::text::{from_json, time, to_json};

/// Fails unless the attempt's lease is still its own.
pub(crate) async fn check(session: &mut Session, attempt: &AttemptId) -> Result<()> {
    let row =
        sql("SELECT claimed FROM leases WHERE attempt = $1").bind(attempt.as_str()).fetch_optional(session).await?;
    match row.map(|row| row.flag("claimed")).transpose()? {
        Some(false) => Ok(()),
        _ => Err(lost(attempt)),
    }
}

fn lost(attempt: &AttemptId) -> Error {
    Error::new(
        ErrorCode::LeaseLost,
        format!("the staging lease of attempt {attempt} ran out, and its files were reclaimed"),
    )
    .with_help("run the same command again: nothing was committed")
}

pub(crate) async fn open(session: &mut Session, lease: &Lease) -> Result<()> {
    sql("INSERT INTO leases (attempt, document, expires_at) VALUES ($1, $2, $3)")
        .bind(lease.attempt.as_str())
        .bind(to_json(lease)?)
        .bind(time(lease.expires_at))
        .execute(session)
        .await?;
    Ok(())
}

pub(crate) async fn renew(session: &mut Session, attempt: &AttemptId, expires_at: DateTime<Utc>) -> Result<()> {
    let changed = sql("UPDATE leases SET expires_at = $1 WHERE attempt = $2 AND claimed = 0")
        .bind(time(expires_at))
        .bind(attempt.as_str())
        .execute(session)
        .await?;
    if changed == 1 { Ok(()) } else { Err(lost(attempt)) }
}

pub(crate) async fn close(session: &mut Session, attempt: &AttemptId) -> Result<()> {
    sql("DELETE FROM leases WHERE attempt = $1").bind(attempt.as_str()).execute(session).await?;
    Ok(())
}

pub(crate) async fn claim(session: &mut Session, attempt: &AttemptId) -> Result<()> {
    sql("UPDATE leases SET claimed = 1 WHERE attempt = $1").bind(attempt.as_str()).execute(session).await?;
    Ok(())
}

pub(crate) async fn claim_expired(session: &mut Session, now: DateTime<Utc>) -> Result<Vec<Lease>> {
    sql("UPDATE leases SET claimed = 1 WHERE expires_at < $1").bind(time(now)).execute(session).await?;
    let rows = sql("SELECT document FROM leases WHERE claimed = 1 ORDER BY attempt").fetch_all(session).await?;
    rows.iter().map(|row| from_json("a lease", &row.text("document")?)).collect()
}

pub(crate) async fn all(session: &mut Session) -> Result<Vec<Lease>> {
    let rows = sql("SELECT document FROM leases ORDER BY attempt").fetch_all(session).await?;
    rows.iter().map(|row| from_json("a lease", &row.text("document")?)).collect()
}
