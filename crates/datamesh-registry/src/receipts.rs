//! Receipts of publications, and what the audit log says of them.

use datamesh_core::Result;
use datamesh_core::audit::{AuditEntry, AuditKind, Signer};
use datamesh_core::canonical;
use datamesh_core::ports::{CommitRequest, PublicationStatus};
use datamesh_core::receipt::{self, AuditPlace, CommitFacts};
use serde_json::json;

use crate::store::{Session, sql};
use crate::{audit, identity, state};

/// Writes a publication's receipt, where somebody signs, and its entry, which commits to the receipt.
pub(crate) async fn write(
    session: &mut Session,
    request: &CommitRequest,
    publication: u64,
    status: PublicationStatus,
    signer: Option<&dyn Signer>,
) -> Result<()> {
    let policies = identity::revisions(session).await?.governance;
    let mut head = audit::begin(session, request.at).await?;
    let tables: Vec<_> = request
        .tables
        .iter()
        .map(|table| json!({"table": table.table, "in": table.rows_in, "published": table.published, "quarantined": table.quarantined}))
        .collect();
    let mut details = json!({
        "publication": publication,
        "product": request.product.to_string(),
        "version": request.contract.version.to_string(),
        "attempt": request.attempt.as_str(),
        "tables": tables,
    });
    if status == PublicationStatus::Published
        && let Some(contract) = state::newest_contract(session, &request.product).await?
    {
        details["contract"] = canonical::sha256(contract.as_bytes()).into();
    }
    if let Some(target) = request.rollback_to {
        details["rollbackTo"] = target.into();
    }
    if let Some(signer) = signer {
        let facts = CommitFacts {
            mesh: identity::read(session).await?.id.to_string(),
            publication,
            status,
            policies,
            audit: AuditPlace { sequence: head.sequence, hash: head.hash.clone() },
        };
        let receipt = receipt::sign(request, facts, signer)?;
        details["receipt"] = canonical::sha256(receipt.as_bytes()).into();
        sql("INSERT INTO receipts (publication, receipt) VALUES ($1, $2)")
            .bind(publication)
            .bind(receipt)
            .execute(session)
            .await?;
    }
    let (kind, outcome) = match status {
        PublicationStatus::Published => (AuditKind::Publication, "published"),
        PublicationStatus::Rejected => (AuditKind::Rejection, "rejected"),
    };
    let resource = request.contract.id.to_string();
    let entry = AuditEntry::new(request.at, kind, &request.principal, "publish", &resource, outcome);
    audit::push(session, &mut head, AuditEntry { decision: Some(request.decision), details, ..entry }).await?;
    audit::end(session, head, request.at, signer, true).await
}

pub(crate) async fn read(session: &mut Session, publication: u64) -> Result<Option<String>> {
    let row =
        sql("SELECT receipt FROM receipts WHERE publication = $1").bind(publication).fetch_optional(session).await?;
    row.map(|row| row.text("receipt")).transpose()
}
