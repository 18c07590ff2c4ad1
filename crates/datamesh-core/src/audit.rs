//! The audit log: what was decided, read, published, applied and granted, in a chain of hashes that shows every change.
//!
//! An entry's hash is SHA-256 over the previous one's hash and the entry's canonical JSON (RFC 8785). Now and then a
//! checkpoint, itself an entry, signs how far the chain has come: whoever rewrites the chain from somewhere on would have to
//! sign as well. Only a checkpoint that was kept elsewhere shows that the end is missing.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::canonical;
use crate::decision::DecisionRecord;
use crate::error::{Error, ErrorCode, Result};

mod state;
mod verify;

pub use state::StoredGrant;
pub use verify::{AuditVerification, Flaw, Legacy, StoredDecision, StoredEntry, Verification};

/// Version of [`AuditEntry`]'s serialised form.
pub const AUDIT_FORMAT: u32 = 1;

/// Version of [`Checkpoint`]'s serialised form.
pub const CHECKPOINT_FORMAT: u32 = 1;

/// What an exported checkpoint is, in its `kind`.
const CHECKPOINT_KIND: &str = "datamesh-checkpoint";

/// How many entries may wait for a signature.
pub const CHECKPOINT_EVERY: u64 = 64;

/// What stands before the first entry.
pub const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Signs as the mesh.
pub trait Signer: Send + Sync + fmt::Debug {
    /// What the public key is known by: a hash of it.
    fn key_id(&self) -> &str;
    /// The public key, as text.
    fn public_key(&self) -> String;
    /// The signature of a message.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// Knows public keys.
pub trait Verifier: Send + Sync {
    /// Whether the key is known.
    fn knows(&self, key_id: &str) -> bool;
    /// Whether the key signed the message.
    fn verify(&self, key_id: &str, message: &[u8], signature: &[u8]) -> bool;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $word:literal),* $(,)?) => {
        /// What an entry is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum AuditKind {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl AuditKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind's word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The kind that a word means.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// The chain begins, and commits to the decisions from before it.
    Genesis => "genesis",
    /// Something was allowed or denied.
    Decision => "decision",
    /// A governed read has ended.
    Read => "read",
    /// A publication was committed.
    Publication => "publication",
    /// An attempt to publish was rejected.
    Rejection => "rejection",
    /// A plan was applied.
    Apply => "apply",
    /// Somebody asked for access.
    AccessRequested => "access-requested",
    /// One of several approvers agreed.
    AccessApproved => "access-approved",
    /// The last approver agreed, and the grant was written.
    AccessGranted => "access-granted",
    /// An approver refused.
    AccessDenied => "access-denied",
    /// A request was taken back.
    AccessWithdrawn => "access-withdrawn",
    /// A grant was ended.
    AccessRevoked => "access-revoked",
    /// A run outside the mesh was recorded.
    LineageRecorded => "lineage-recorded",
    /// The chain was signed as far as it had come.
    Checkpoint => "checkpoint",
}

/// One entry. Entries are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Version of this form, [`AUDIT_FORMAT`].
    pub format: u32,
    /// Its number, from 1 without gaps.
    pub sequence: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What it is about.
    pub kind: AuditKind,
    /// Who acted.
    pub principal: String,
    /// Who acted in that one's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonated_by: Option<String>,
    /// What was done, or asked for.
    pub action: String,
    /// To what.
    pub resource: String,
    /// What came of it.
    pub outcome: String,
    /// Why: the policies that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The door that it came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The number of the decision that it is, or that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<u64>,
    /// What else was known.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl AuditEntry {
    /// An entry without anything that it may do without. Its number is the log's to give.
    pub fn new(
        at: DateTime<Utc>,
        kind: AuditKind,
        principal: &str,
        action: &str,
        resource: &str,
        outcome: &str,
    ) -> Self {
        Self {
            format: AUDIT_FORMAT,
            sequence: 0,
            at,
            kind,
            principal: principal.to_owned(),
            impersonated_by: None,
            action: action.to_owned(),
            resource: resource.to_owned(),
            outcome: outcome.to_owned(),
            policies: Vec::new(),
            purpose: None,
            door: None,
            decision: None,
            details: Value::Null,
        }
    }

    /// The entry of a decision with its number. What the decision's context says as text of `door`, `purpose` and
    /// `impersonatedBy` has a field of its own here.
    pub fn of_decision(record: &DecisionRecord, number: u64) -> Self {
        let mut details = record.context.clone();
        let mut take = |key: &str| -> Option<String> {
            let fields = details.as_object_mut()?;
            fields.get(key)?.as_str()?;
            fields.remove(key).and_then(|value| value.as_str().map(str::to_owned))
        };
        let (door, purpose, impersonated_by) = (take("door"), take("purpose"), take("impersonatedBy"));
        if details.as_object().is_some_and(serde_json::Map::is_empty) {
            details = Value::Null;
        }
        Self {
            impersonated_by,
            policies: record.reasons.clone(),
            purpose,
            door,
            decision: Some(number),
            details,
            ..Self::new(
                record.at,
                AuditKind::Decision,
                &record.principal.id,
                record.action.as_str(),
                &record.resource,
                record.outcome.as_str(),
            )
        }
    }

    /// Its canonical text, which is what the log keeps.
    ///
    /// # Errors
    /// `internal` where it cannot be written.
    pub fn text(&self) -> Result<String> {
        canonical::document_text(self)
    }
}

/// The hash of an entry, from the hash of the one before it and its canonical text.
///
/// # Errors
/// `registry` where the previous hash is none.
pub fn chain(previous: &str, text: &str) -> Result<String> {
    let before = canonical::unhex(previous).filter(|bytes| bytes.len() == 32).ok_or_else(|| {
        Error::new(ErrorCode::Registry, format!("the audit log holds `{}` as a hash", previous.escape_default()))
    })?;
    let hash = Sha256::new().chain_update(before).chain_update(text.as_bytes()).finalize();
    Ok(canonical::hex(&hash))
}

/// What became of a read that was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadOutcome {
    /// Every row was handed over.
    Complete,
    /// It ended with an error; the rows so far were handed over.
    Failed,
    /// The reader went away; the rows so far were handed over.
    Cancelled,
}

impl ReadOutcome {
    /// The outcome's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The end of a governed read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadRecord {
    /// The number of the decision that allowed it.
    pub decision: u64,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Who read.
    pub principal: String,
    /// Who read in that one's name.
    pub impersonated_by: Option<String>,
    /// What was read: a list of tables.
    pub resource: String,
    /// The columns that were handed over.
    pub columns: Vec<String>,
    /// How many rows.
    pub rows: u64,
    /// How it ended.
    pub outcome: ReadOutcome,
    /// What for.
    pub purpose: Option<String>,
    /// The door.
    pub door: Option<String>,
    /// What else was known; null, or an object.
    pub details: Value,
}

impl ReadRecord {
    /// Its entry.
    pub fn entry(&self) -> AuditEntry {
        let mut details = match &self.details {
            Value::Object(fields) => fields.clone(),
            Value::Null => serde_json::Map::new(),
            other => serde_json::Map::from_iter([("details".to_owned(), other.clone())]),
        };
        details.insert("columns".to_owned(), self.columns.clone().into());
        details.insert("rows".to_owned(), self.rows.into());
        AuditEntry {
            impersonated_by: self.impersonated_by.clone(),
            purpose: self.purpose.clone(),
            door: self.door.clone(),
            decision: Some(self.decision),
            details: Value::Object(details),
            ..AuditEntry::new(self.at, AuditKind::Read, &self.principal, "read", &self.resource, self.outcome.as_str())
        }
    }
}

/// Which entries are asked for. What is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditQuery {
    /// Who acted, or in whose name.
    pub principal: Option<String>,
    /// What an entry is about.
    pub kind: Option<AuditKind>,
    /// What was done.
    pub action: Option<String>,
    /// What the resource begins with.
    pub resource: Option<String>,
    /// What came of it.
    pub outcome: Option<String>,
    /// The first moment.
    pub since: Option<DateTime<Utc>>,
    /// The moment after the last one.
    pub until: Option<DateTime<Utc>>,
    /// Only entries with a smaller number: those after the page that ended with it.
    pub before: Option<u64>,
    /// How many at most.
    pub limit: Option<u64>,
}

/// How far the chain had come, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// What it is.
    kind: String,
    /// Version of this form, [`CHECKPOINT_FORMAT`].
    pub format: u32,
    /// The mesh's id.
    pub mesh: String,
    /// The last entry that it covers.
    pub sequence: u64,
    /// That entry's hash.
    pub hash: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The key that signed.
    pub key_id: String,
    /// The signature, in hexadecimal digits.
    #[serde(default)]
    pub signature: String,
}

impl Checkpoint {
    /// Signs that the chain of a mesh has come so far.
    ///
    /// # Errors
    /// `internal` where it cannot be written.
    pub fn sign(mesh: &str, sequence: u64, hash: &str, at: DateTime<Utc>, signer: &dyn Signer) -> Result<Self> {
        let mut checkpoint = Self {
            kind: CHECKPOINT_KIND.to_owned(),
            format: CHECKPOINT_FORMAT,
            mesh: mesh.to_owned(),
            sequence,
            hash: hash.to_owned(),
            at,
            key_id: signer.key_id().to_owned(),
            signature: String::new(),
        };
        checkpoint.signature = canonical::hex(&signer.sign(checkpoint.message()?.as_bytes()));
        Ok(checkpoint)
    }

    /// What is signed: everything but the signature.
    fn message(&self) -> Result<String> {
        let mut document = serde_json::to_value(self)
            .map_err(|error| Error::new(ErrorCode::Internal, "a checkpoint cannot be written").with_source(error))?;
        if let Some(fields) = document.as_object_mut() {
            fields.remove("signature");
        }
        canonical::document_text(&document)
    }

    /// Whether a known key signed it; otherwise why not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, verifier: &dyn Verifier) -> Result<(), String> {
        if self.kind != CHECKPOINT_KIND || self.format != CHECKPOINT_FORMAT {
            return Err(format!("it is no checkpoint of format {CHECKPOINT_FORMAT}"));
        }
        if !verifier.knows(&self.key_id) {
            return Err(format!(
                "it was signed by the key `{}`, which is not known here",
                self.key_id.escape_default()
            ));
        }
        let signature = canonical::unhex(&self.signature).unwrap_or_default();
        let message = self.message().map_err(|error| error.to_string())?;
        match verifier.verify(&self.key_id, message.as_bytes(), &signature) {
            true => Ok(()),
            false => Err("its signature is not that of its key over what it says".to_owned()),
        }
    }

    /// The entry that keeps it in the log.
    ///
    /// # Errors
    /// `internal` where it cannot be written.
    pub fn entry(&self) -> Result<AuditEntry> {
        let details = serde_json::to_value(self)
            .map_err(|error| Error::new(ErrorCode::Internal, "a checkpoint cannot be written").with_source(error))?;
        let principal = format!("key:{}", self.key_id);
        let resource = format!("audit:{}", self.sequence);
        let entry = AuditEntry::new(self.at, AuditKind::Checkpoint, &principal, "sign", &resource, "signed");
        Ok(AuditEntry { details, ..entry })
    }

    /// The checkpoint as a file, to be kept where whoever can change the log cannot.
    ///
    /// # Errors
    /// `internal` where it cannot be written.
    pub fn to_text(&self) -> Result<String> {
        Ok(canonical::document_text(self)? + "\n")
    }

    /// Reads a file that [`Self::to_text`] wrote. It is not verified yet.
    ///
    /// # Errors
    /// `invalid-argument` for what is no checkpoint.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| {
            Error::new(ErrorCode::InvalidArgument, format!("the file is no checkpoint of an audit log: {why}"))
                .with_help("`datamesh audit checkpoint` writes one")
        };
        let document = canonical::parse(text).map_err(invalid)?;
        let checkpoint: Self = serde_json::from_value(document).map_err(|error| invalid(error.to_string()))?;
        if checkpoint.kind != CHECKPOINT_KIND {
            return Err(invalid(format!("its `kind` is not `{CHECKPOINT_KIND}`")));
        }
        if checkpoint.format != CHECKPOINT_FORMAT {
            return Err(invalid(format!(
                "it has format {}, and this datamesh reads {CHECKPOINT_FORMAT}",
                checkpoint.format
            )));
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
