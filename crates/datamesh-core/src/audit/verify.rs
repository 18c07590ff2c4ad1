//! Whether the log is as it was written. Entries are read in order, and nothing of them is kept.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::state::{Logged, StoredGrant, Told};
use super::{AUDIT_FORMAT, AuditEntry, AuditKind, Checkpoint, ORIGIN, Verifier, chain};
use crate::canonical;
use crate::decision::DecisionRecord;
use crate::error::Result;
use crate::ids::ProductKey;

/// How many flaws are told; all are counted.
const TOLD: usize = 100;

/// An entry as it is kept: its text, its place in the chain, and what is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its number.
    pub sequence: u64,
    /// When, in RFC 3339 with microseconds.
    pub at: String,
    /// The word of its kind.
    pub kind: String,
    /// Who acted.
    pub principal: String,
    /// Who acted in that one's name.
    pub impersonated_by: Option<String>,
    /// What was done.
    pub action: String,
    /// To what.
    pub resource: String,
    /// What came of it.
    pub outcome: String,
    /// The decision's number.
    pub decision: Option<u64>,
    /// The publication's number.
    pub publication: Option<u64>,
    /// The hash of the entry before it.
    pub previous: String,
    /// Its hash.
    pub hash: String,
    /// Its canonical text.
    pub text: String,
    /// The decision that it is the entry of, as the list of decisions has it.
    pub record: Option<StoredDecision>,
    /// The receipt of the publication that it is the entry of.
    pub receipt: Option<String>,
}

impl StoredEntry {
    /// An entry in its place after another.
    ///
    /// # Errors
    /// `internal` where it cannot be written, `registry` where the hash before it is none.
    pub fn new(entry: &AuditEntry, previous: &str) -> Result<Self> {
        let text = entry.text()?;
        Ok(Self {
            sequence: entry.sequence,
            at: time(entry.at),
            kind: entry.kind.as_str().to_owned(),
            principal: entry.principal.clone(),
            impersonated_by: entry.impersonated_by.clone(),
            action: entry.action.clone(),
            resource: entry.resource.clone(),
            outcome: entry.outcome.clone(),
            decision: entry.decision,
            publication: publication(entry),
            previous: previous.to_owned(),
            hash: chain(previous, &text)?,
            text,
            record: None,
            receipt: None,
        })
    }
}

/// A row of the list of decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredDecision {
    /// Its number.
    pub number: u64,
    /// Version of its form.
    pub format: u64,
    /// When, in RFC 3339 with microseconds.
    pub at: String,
    /// Who asked.
    pub principal: String,
    /// To do what.
    pub action: String,
    /// To what.
    pub resource: String,
    /// The answer.
    pub outcome: String,
    /// The [`DecisionRecord`], as JSON.
    pub document: String,
}

/// What the first entry says of the decisions from before the chain.
#[derive(Clone, Debug)]
pub struct Legacy {
    hash: Sha256,
    /// How many there are.
    pub decisions: u64,
    /// The number of the last one.
    pub last: u64,
}

impl Default for Legacy {
    fn default() -> Self {
        Self { hash: Sha256::new(), decisions: 0, last: 0 }
    }
}

impl Legacy {
    /// The next decision, by number.
    pub fn push(&mut self, decision: &StoredDecision) {
        let StoredDecision { number, format, at, principal, action, resource, outcome, document } = decision;
        self.decisions += 1;
        self.last = self.last.max(*number);
        // Lengths keep one field's text from passing as that of the next.
        for field in [&number.to_string(), &format.to_string(), at, principal, action, resource, outcome, document] {
            self.hash.update((field.len() as u64).to_be_bytes());
            self.hash.update(field.as_bytes());
        }
    }

    /// The log's first entry.
    pub fn entry(&self, at: DateTime<Utc>, mesh: &str) -> AuditEntry {
        let hash = canonical::hex(&self.hash.clone().finalize());
        let details = json!({"decisions": self.decisions, "last": self.last, "hash": hash});
        let resource = format!("mesh:{mesh}");
        let entry = AuditEntry::new(at, AuditKind::Genesis, "service:datamesh", "begin", &resource, "begun");
        AuditEntry { sequence: 1, details, ..entry }
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// The entry's number; `None`: it is about the log as such.
    pub sequence: Option<u64>,
    /// What.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerification {
    /// How many entries there are.
    pub entries: u64,
    /// How many decisions from before the chain its first entry commits to.
    pub legacy: u64,
    /// How many valid checkpoints there are.
    pub checkpoints: u64,
    /// How many entries at the end no valid checkpoint covers yet: who rewrote them all would not be found out.
    pub uncovered: u64,
    /// Number and hash of the last entry.
    pub head: Option<(u64, String)>,
    /// What is wrong, in the order of the log; only the first hundred.
    pub flaws: Vec<Flaw>,
    /// How much is wrong.
    pub flaw_count: u64,
}

impl AuditVerification {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.flaw_count == 0
    }
}

/// A verification under way.
pub struct Verification<'v> {
    mesh: String,
    verifier: &'v dyn Verifier,
    anchor: Option<&'v Checkpoint>,
    legacy: Legacy,
    last: u64,
    previous: String,
    /// The entry of the last valid checkpoint.
    covered: u64,
    logged: Logged,
    found: AuditVerification,
}

impl<'v> Verification<'v> {
    /// Begins with the log of a mesh. `anchor` is a checkpoint that was kept elsewhere.
    pub fn new(mesh: &str, verifier: &'v dyn Verifier, anchor: Option<&'v Checkpoint>) -> Self {
        let mut new = Self {
            mesh: mesh.to_owned(),
            verifier,
            anchor,
            legacy: Legacy::default(),
            last: 0,
            previous: ORIGIN.to_owned(),
            covered: 0,
            logged: Logged::default(),
            found: AuditVerification::default(),
        };
        if let Some(anchor) = anchor {
            if anchor.mesh != mesh {
                new.flaw(
                    None,
                    format!("the checkpoint to compare with is that of mesh `{}`", anchor.mesh.escape_default()),
                );
            }
            if let Err(why) = anchor.check(verifier) {
                new.flaw(None, format!("the checkpoint to compare with is not to be trusted: {why}"));
            }
        }
        new
    }

    fn flaw(&mut self, sequence: Option<u64>, what: impl Into<String>) {
        self.found.flaw_count += 1;
        if self.found.flaws.len() < TOLD {
            self.found.flaws.push(Flaw { sequence, what: what.into() });
        }
    }

    /// The next decision from before the chain, by number.
    pub fn legacy(&mut self, decision: &StoredDecision) {
        self.legacy.push(decision);
    }

    /// The next entry, by number.
    pub fn push(&mut self, stored: &StoredEntry) {
        let sequence = stored.sequence;
        let at = Some(sequence);
        if sequence != self.last + 1 {
            let (first, last) = (self.last + 1, sequence.saturating_sub(1));
            let what = if first == last {
                "the entry is missing".to_owned()
            } else {
                format!("entries {first} to {last} are missing")
            };
            self.flaw(Some(first), what);
        } else if stored.previous != self.previous {
            let changed = self.last.max(1);
            self.flaw(Some(changed), format!("it is not the entry that entry {sequence} was written after"));
        }
        match chain(&stored.previous, &stored.text) {
            Ok(hash) if hash == stored.hash => self.check_entry(stored),
            _ => self.flaw(at, "it was changed: its hash is not that of its text"),
        }
        if let Some(anchor) = self.anchor
            && anchor.sequence == sequence
            && anchor.hash != stored.hash
        {
            self.flaw(at, "it, or one before it, is not what the checkpoint to compare with has signed");
        }
        self.found.entries += 1;
        self.last = sequence;
        self.previous = stored.hash.clone();
    }

    fn check_entry(&mut self, stored: &StoredEntry) {
        let at = Some(stored.sequence);
        let entry: AuditEntry = match serde_json::from_str(&stored.text) {
            Ok(entry) => entry,
            Err(error) => return self.flaw(at, format!("its text cannot be read: {error}")),
        };
        if entry.format != AUDIT_FORMAT {
            return self.flaw(at, format!("it has format {}, which this datamesh does not know", entry.format));
        }
        // What is found by must say what the text says.
        match StoredEntry::new(&entry, &stored.previous) {
            Ok(own) => {
                if let Some(field) = difference(&own, stored) {
                    self.flaw(at, format!("it was changed: `{field}` is not what its text says"));
                }
            }
            Err(error) => self.flaw(at, error.to_string()),
        }
        self.logged.push(&entry);
        match entry.kind {
            AuditKind::Genesis => self.check_genesis(&entry),
            AuditKind::Decision => self.check_decision(stored, &entry),
            AuditKind::Publication | AuditKind::Rejection => self.check_receipt(stored, &entry),
            AuditKind::Checkpoint => self.check_checkpoint(stored, &entry),
            _ => {}
        }
    }

    fn check_genesis(&mut self, entry: &AuditEntry) {
        if entry.sequence != 1 {
            return self.flaw(Some(entry.sequence), "only the first entry begins the log");
        }
        let field = |name: &str| entry.details.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
        self.found.legacy = field("decisions");
        if self.legacy.entry(entry.at, &self.mesh) != *entry {
            let what = format!(
                "the decisions from before the chain are not the {} that it commits to, up to decision {}",
                field("decisions"),
                field("last")
            );
            self.flaw(Some(1), what);
        }
    }

    fn check_decision(&mut self, stored: &StoredEntry, entry: &AuditEntry) {
        let at = Some(stored.sequence);
        let number = entry.decision.unwrap_or_default();
        let Some(row) = &stored.record else {
            return self.flaw(at, format!("decision {number} is missing"));
        };
        let Ok(record) = serde_json::from_str::<DecisionRecord>(&row.document) else {
            return self.flaw(at, format!("decision {number} was changed: it cannot be read"));
        };
        let own = AuditEntry { sequence: entry.sequence, at: entry.at, ..AuditEntry::of_decision(&record, number) };
        let same = own.text().is_ok_and(|text| text == stored.text)
            && serde_json::to_string(&record).is_ok_and(|text| text == row.document)
            && time(record.at) == time(entry.at)
            && *row
                == StoredDecision {
                    number,
                    format: u64::from(record.format),
                    at: time(record.at),
                    principal: record.principal.id,
                    action: record.action.as_str().to_owned(),
                    resource: record.resource,
                    outcome: record.outcome.as_str().to_owned(),
                    document: row.document.clone(),
                };
        if !same {
            self.flaw(at, format!("decision {number} was changed: it is not what the entry says"));
        }
    }

    fn check_receipt(&mut self, stored: &StoredEntry, entry: &AuditEntry) {
        let at = Some(stored.sequence);
        let number = publication(entry).unwrap_or_default();
        let digest = entry.details.get("receipt").and_then(serde_json::Value::as_str);
        match (digest, &stored.receipt) {
            (None, None) => {}
            (Some(_), None) => self.flaw(at, format!("the receipt of publication {number} is missing")),
            (None, Some(_)) => self.flaw(at, format!("publication {number} had no receipt, and now has one")),
            (Some(digest), Some(receipt)) => {
                if canonical::sha256(receipt.as_bytes()) != digest {
                    self.flaw(at, format!("the receipt of publication {number} was changed"));
                }
            }
        }
    }

    fn check_checkpoint(&mut self, stored: &StoredEntry, entry: &AuditEntry) {
        let at = Some(stored.sequence);
        let forged = |why: &str| format!("its checkpoint is not to be trusted: {why}");
        let checkpoint: Checkpoint = match serde_json::from_value(entry.details.clone()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return self.flaw(at, forged(&error.to_string())),
        };
        if let Err(why) = checkpoint.check(self.verifier) {
            return self.flaw(at, forged(&why));
        }
        let own = checkpoint.entry().map(|own| AuditEntry { sequence: entry.sequence, ..own });
        if checkpoint.mesh != self.mesh || !own.is_ok_and(|own| own == *entry) {
            return self.flaw(at, forged("the entry does not say what was signed"));
        }
        if checkpoint.sequence + 1 != stored.sequence || checkpoint.hash != stored.previous {
            let first = self.covered + 1;
            let what = format!("its checkpoint has signed other entries than {first} to {}", stored.sequence - 1);
            return self.flaw(at, what);
        }
        self.found.checkpoints += 1;
        self.covered = stored.sequence;
    }

    /// A decision that is on the list of decisions and has no entry.
    pub fn unchained(&mut self, decision: u64) {
        self.flaw(None, format!("decision {decision} has no entry"));
    }

    /// A receipt that no entry knows.
    pub fn unknown_receipt(&mut self, publication: u64) {
        self.flaw(None, format!("the receipt of publication {publication} has no entry"));
    }

    /// The next grant, once every entry was read.
    pub fn grant(&mut self, stored: &StoredGrant) {
        let told = self.logged.grant(stored);
        self.told(told);
    }

    /// The next domain by its normalised name, with its document, once every entry was read.
    pub fn domain(&mut self, name: &str, document: &str) {
        let told = self.logged.domain(name, document);
        self.told(told);
    }

    /// A product's newest contract by its document, once every entry was read.
    pub fn contract(&mut self, product: &ProductKey, document: &str) {
        let told = self.logged.contract(product, document);
        self.told(told);
    }

    /// What the mesh agreed on, its newest revision with the document, once every entry was read.
    pub fn governance(&mut self, newest: Option<(u64, &str)>) {
        let told = self.logged.governance(newest);
        self.told(told);
    }

    fn told(&mut self, flaws: impl IntoIterator<Item = Told>) {
        for (sequence, what) in flaws {
            self.flaw(sequence, what);
        }
    }

    /// What was found. `head` is the number and hash of the last entry, as the log's own note has it.
    pub fn finish(mut self, head: Option<(u64, String)>) -> AuditVerification {
        let missing = std::mem::take(&mut self.logged).missing();
        self.told(missing);
        let own = (self.last > 0).then(|| (self.last, self.previous.clone()));
        if head != own {
            let noted = head.map_or(0, |(sequence, _)| sequence);
            self.flaw(None, format!("the log ends with entry {}, and should end with entry {noted}", self.last));
        }
        if own.is_none() {
            // A registry that nothing was recorded in since it was brought up to date.
            self.found.legacy = self.legacy.decisions;
        }
        if let Some(anchor) = self.anchor
            && anchor.sequence > self.last
        {
            let what = format!(
                "entries {} to {} are missing: the checkpoint to compare with has signed them at {}",
                self.last + 1,
                anchor.sequence,
                time(anchor.at)
            );
            self.flaw(Some(self.last + 1), what);
        }
        self.found.uncovered = self.last - self.covered;
        self.found.head = own;
        self.found
    }
}

/// The field in which two entries differ.
fn difference(own: &StoredEntry, stored: &StoredEntry) -> Option<&'static str> {
    let fields = [
        ("sequence", own.sequence == stored.sequence),
        ("at", own.at == stored.at),
        ("kind", own.kind == stored.kind),
        ("principal", own.principal == stored.principal),
        ("impersonatedBy", own.impersonated_by == stored.impersonated_by),
        ("action", own.action == stored.action),
        ("resource", own.resource == stored.resource),
        ("outcome", own.outcome == stored.outcome),
        ("decision", own.decision == stored.decision),
        ("publication", own.publication == stored.publication),
        ("document", own.text == stored.text),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

fn publication(entry: &AuditEntry) -> Option<u64> {
    match entry.kind {
        AuditKind::Publication | AuditKind::Rejection => entry.details.get("publication")?.as_u64(),
        _ => None,
    }
}

pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
