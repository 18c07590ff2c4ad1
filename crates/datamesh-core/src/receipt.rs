//! Receipts: what a publication was, signed by the mesh, to be checked by anybody who has the mesh's public key.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::{Signer, Verifier};
use crate::canonical;
use crate::error::{Error, ErrorCode, Result};
use crate::ports::{CommitRequest, PublicationStatus, TableCommit};
use crate::transform::InputPin;

/// Version of a receipt's form.
pub const RECEIPT_FORMAT: u32 = 1;

/// What the file is, in its `kind`.
const KIND: &str = "datamesh-receipt";

/// A receipt. What other readers of JSON could not hold exactly is text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// What it is.
    kind: String,
    /// Version of this form, [`RECEIPT_FORMAT`].
    pub format: u32,
    /// The mesh's id.
    pub mesh: String,
    /// The product's major version: `domain.product_v1`.
    pub product: String,
    /// The contract's version.
    pub version: String,
    /// The publication's number.
    pub publication: u64,
    /// Published, or rejected.
    pub status: PublicationStatus,
    /// The publication whose tables it brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
    /// The attempt.
    pub attempt: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Who published.
    pub principal: String,
    /// The number of the decision that allowed it.
    pub decision: u64,
    /// SHA-256 of the contract's canonical JSON, in which fractions are text.
    pub contract: String,
    /// The revision of the mesh's policies; 0: none were applied.
    pub policies: u64,
    /// What was read of other products.
    pub inputs: Vec<ReceiptInput>,
    /// What was written. Nothing for a rejection.
    pub tables: Vec<ReceiptTable>,
    /// Where the audit log was, just before the entry of this publication.
    pub audit: AuditPlace,
    /// The key that signed.
    pub key_id: String,
    /// The signature, in hexadecimal digits, over everything else.
    pub signature: String,
}

/// A snapshot of another product's table that a transform read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptInput {
    /// The table that was made of it.
    pub into: String,
    /// Its product's major version.
    pub product: String,
    /// The version of its contract.
    pub version: String,
    /// The table.
    pub table: String,
    /// The publication that had written it.
    pub publication: u64,
    /// The snapshot.
    pub snapshot: String,
    /// Whether only new rows were read.
    pub changes: bool,
    /// The snapshot after which rows were new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl ReceiptInput {
    fn new(into: &str, pin: &InputPin) -> Self {
        Self {
            into: into.to_owned(),
            product: pin.product.to_string(),
            version: pin.version.to_string(),
            table: pin.table.clone(),
            publication: pin.publication,
            snapshot: pin.snapshot_id.to_string(),
            changes: pin.changes,
            since: pin.since.map(|snapshot| snapshot.to_string()),
        }
    }
}

/// A table that a publication wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptTable {
    /// The table.
    pub table: String,
    /// How it was written.
    pub write: String,
    /// Rows read.
    #[serde(rename = "in")]
    pub rows_in: u64,
    /// Rows added.
    pub published: u64,
    /// Rows held back.
    pub quarantined: u64,
    /// Rows in the snapshot.
    pub rows: u64,
    /// Content identity.
    pub content: String,
    /// The snapshot.
    pub snapshot: String,
    /// Where the metadata document is.
    pub metadata: String,
    /// SHA-256 of the document.
    pub metadata_hash: String,
}

impl ReceiptTable {
    fn new(table: &TableCommit) -> Self {
        Self {
            table: table.table.clone(),
            write: table.write.as_str().to_owned(),
            rows_in: table.rows_in,
            published: table.published,
            quarantined: table.quarantined,
            rows: table.total_rows,
            content: table.content.clone(),
            snapshot: table.snapshot_id.to_string(),
            metadata: table.metadata_location.clone(),
            metadata_hash: canonical::sha256(table.metadata.as_bytes()),
        }
    }
}

/// A place in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditPlace {
    /// The number of an entry.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

/// What only the transaction that commits a publication knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// The mesh's id.
    pub mesh: String,
    /// The publication's number.
    pub publication: u64,
    /// Published, or rejected.
    pub status: PublicationStatus,
    /// The revision of the mesh's policies.
    pub policies: u64,
    /// Where the audit log is.
    pub audit: AuditPlace,
}

/// The receipt of what a transaction commits, signed; its text.
///
/// # Errors
/// `internal` where it cannot be written.
pub fn sign(request: &CommitRequest, facts: CommitFacts, signer: &dyn Signer) -> Result<String> {
    let tables = match facts.status {
        PublicationStatus::Published => request.tables.iter().map(ReceiptTable::new).collect(),
        PublicationStatus::Rejected => Vec::new(),
    };
    let inputs =
        request.transforms.iter().flat_map(|run| run.inputs.iter().map(|pin| ReceiptInput::new(&run.table, pin)));
    let mut receipt = Receipt {
        kind: KIND.to_owned(),
        format: RECEIPT_FORMAT,
        mesh: facts.mesh,
        product: request.product.to_string(),
        version: request.contract.version.to_string(),
        publication: facts.publication,
        status: facts.status,
        rollback_to: request.rollback_to,
        attempt: request.attempt.to_string(),
        at: request.at,
        principal: request.principal.clone(),
        decision: request.decision,
        contract: canonical::digest(&request.contract)?,
        policies: facts.policies,
        inputs: inputs.collect(),
        tables,
        audit: facts.audit,
        key_id: signer.key_id().to_owned(),
        signature: String::new(),
    };
    let document = serde_json::to_value(&receipt)
        .map_err(|error| Error::new(ErrorCode::Internal, "a receipt cannot be written").with_source(error))?;
    let message = message(document)
        .map_err(|why| Error::new(ErrorCode::Internal, format!("a receipt cannot be written: {why}")))?;
    receipt.signature = canonical::hex(&signer.sign(message.as_bytes()));
    Ok(canonical::document_text(&receipt)? + "\n")
}

/// What is signed: the canonical text without the signature.
fn message(mut document: Value) -> Result<String, String> {
    if let Some(fields) = document.as_object_mut() {
        fields.remove("signature");
    }
    canonical::to_string(&document)
}

/// Why a receipt is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptFlaw {
    /// It is no receipt.
    Unreadable(String),
    /// It was written by a newer version.
    TooNew(u64),
    /// Nobody knows its key.
    UnknownKey(String),
    /// It was changed, or somebody else signed it.
    Forged,
    /// It was signed, and yet contradicts itself.
    Contradiction(String),
}

impl fmt::Display for ReceiptFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the file is no receipt: {why}"),
            Self::TooNew(format) => {
                write!(f, "the receipt has format {format}, and this datamesh reads formats up to {RECEIPT_FORMAT}")
            }
            Self::UnknownKey(key) => {
                write!(f, "the receipt was signed by the key `{}`, which is another than the given one", key.escape_default())
            }
            Self::Forged => f.write_str(
                "the receipt was changed after it was signed, or forged: its signature is not that of its key over what it says",
            ),
            Self::Contradiction(what) => write!(f, "the receipt contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for ReceiptFlaw {}

/// Reads a receipt and checks that a known key signed exactly this. Spaces and the order of keys do not count.
///
/// # Errors
/// What is wrong with it.
pub fn verify(text: &str, verifier: &dyn Verifier) -> Result<Receipt, ReceiptFlaw> {
    let document = canonical::parse(text).map_err(ReceiptFlaw::Unreadable)?;
    if document.get("kind").and_then(Value::as_str) != Some(KIND) {
        return Err(ReceiptFlaw::Unreadable(format!("its `kind` is not `{KIND}`")));
    }
    match document.get("format").and_then(Value::as_u64) {
        Some(format) if format > u64::from(RECEIPT_FORMAT) => return Err(ReceiptFlaw::TooNew(format)),
        Some(_) => {}
        None => return Err(ReceiptFlaw::Unreadable("it has no `format`".to_owned())),
    }
    let receipt: Receipt =
        serde_json::from_value(document.clone()).map_err(|error| ReceiptFlaw::Unreadable(error.to_string()))?;
    if !verifier.knows(&receipt.key_id) {
        return Err(ReceiptFlaw::UnknownKey(receipt.key_id));
    }
    let message = message(document).map_err(ReceiptFlaw::Unreadable)?;
    let signature = canonical::unhex(&receipt.signature).unwrap_or_default();
    if !verifier.verify(&receipt.key_id, message.as_bytes(), &signature) {
        return Err(ReceiptFlaw::Forged);
    }
    for table in &receipt.tables {
        if table.published.checked_add(table.quarantined) != Some(table.rows_in) {
            return Err(ReceiptFlaw::Contradiction(format!(
                "of table `{}`, in = {} is not published + quarantined = {} + {}",
                table.table, table.rows_in, table.published, table.quarantined
            )));
        }
    }
    if receipt.status == PublicationStatus::Rejected && !receipt.tables.is_empty() {
        return Err(ReceiptFlaw::Contradiction("a rejected attempt has published tables".to_owned()));
    }
    Ok(receipt)
}

#[cfg(test)]
mod tests;
