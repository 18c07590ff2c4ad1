//! What is in force, compared with what the log says of it: grants, domains, and what the mesh agreed on. Whoever changes
//! these tables by hand adds no entry, so that the log tells.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AuditEntry, AuditKind};
use crate::access::Grant;
use crate::canonical;
use crate::ids::ProductKey;

/// A grant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGrant {
    /// Its number.
    pub number: u64,
    /// What it is for, as it is called now.
    pub product: ProductKey,
    /// Who has it.
    pub principal: String,
    /// Its end, as it is found by.
    pub expires_at: Option<String>,
    /// Whether it was ended.
    pub revoked: bool,
    /// The [`Grant`], as JSON.
    pub document: String,
}

/// What the log says of a grant.
#[derive(Clone, Debug)]
struct LoggedGrant {
    sequence: u64,
    /// Of its document. Entries from before this was kept have none.
    hash: Option<String>,
    /// `domain.product_v1`.
    product: String,
}

/// What the log says is in force, entry by entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Logged {
    grants: BTreeMap<u64, LoggedGrant>,
    /// Hashes of the domains' documents; `None`: removed.
    domains: BTreeMap<String, (u64, Option<String>)>,
    /// An entry did not tell its domains, so that some may be unknown.
    untold_domains: bool,
    /// Entry, revision, hash.
    governance: Option<(u64, u64, String)>,
}

/// A flaw: the entry that says otherwise, and what is wrong.
pub(super) type Told = (Option<u64>, String);

impl Logged {
    /// The next entry.
    pub(super) fn push(&mut self, entry: &AuditEntry) {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let details = &entry.details;
        match entry.kind {
            AuditKind::AccessGranted | AuditKind::AccessRevoked => {
                let Some(number) = details.get("grant").and_then(Value::as_u64) else { return };
                let product = text(details, "product").unwrap_or_default();
                let logged = LoggedGrant { sequence: entry.sequence, hash: text(details, "grantHash"), product };
                self.grants.insert(number, logged);
            }
            AuditKind::Apply => {
                for moved in details.get("moved").and_then(Value::as_array).into_iter().flatten() {
                    let (Some(from), Some(to)) = (text(moved, "from"), text(moved, "to")) else { continue };
                    for grant in self.grants.values_mut() {
                        let major = grant.product.strip_prefix(&from).and_then(|rest| rest.strip_prefix("_v"));
                        if let Some(major) = major.filter(|major| major.parse::<u64>().is_ok()) {
                            grant.product = format!("{to}_v{major}");
                        }
                    }
                }
                match details.get("domains").and_then(Value::as_object) {
                    None => self.untold_domains = true,
                    Some(domains) => self.domains.extend(
                        domains
                            .iter()
                            .map(|(name, hash)| (name.clone(), (entry.sequence, hash.as_str().map(str::to_owned)))),
                    ),
                }
                if let Some(governance) = details.get("governance")
                    && let Some(revision) = governance.get("revision").and_then(Value::as_u64)
                {
                    let hash = text(governance, "hash").unwrap_or_default();
                    self.governance = Some((entry.sequence, revision, hash));
                }
            }
            _ => {}
        }
    }

    /// What is wrong with a grant.
    pub(super) fn grant(&mut self, stored: &StoredGrant) -> Option<Told> {
        let number = stored.number;
        let Some(logged) = self.grants.remove(&number) else {
            return Some((None, format!("grant {number} of `{}` has no entry", stored.principal.escape_default())));
        };
        let at = Some(logged.sequence);
        let changed = |what: &str| Some((at, format!("grant {number} was changed: {what}")));
        if logged.hash.is_some_and(|hash| hash != canonical::sha256(stored.document.as_bytes())) {
            return changed("it is not what the entry says");
        }
        let Ok(grant) = serde_json::from_str::<Grant>(&stored.document) else {
            return changed("it cannot be read");
        };
        let expires_at = grant.expires_at.map(super::verify::time);
        if (&grant.principal, &expires_at, grant.revoked.is_some(), grant.number)
            != (&stored.principal, &stored.expires_at, stored.revoked, number)
        {
            return changed("what it is found by is not what it says");
        }
        if stored.product.to_string() != logged.product {
            return changed(&format!("it is for `{}`, and was given for `{}`", stored.product, logged.product));
        }
        None
    }

    /// What is wrong with a domain as it is kept.
    pub(super) fn domain(&mut self, name: &str, document: &str) -> Option<Told> {
        match self.domains.remove(name) {
            None if self.untold_domains => None,
            None => Some((None, format!("domain `{}` has no entry", name.escape_default()))),
            Some((sequence, None)) => {
                Some((Some(sequence), format!("domain `{}` was removed, and is there", name.escape_default())))
            }
            Some((sequence, Some(hash))) => (hash != canonical::sha256(document.as_bytes())).then(|| {
                (
                    Some(sequence),
                    format!("domain `{}` was changed: it is not what the entry says", name.escape_default()),
                )
            }),
        }
    }

    /// What is wrong with what the mesh agreed on: its newest revision, with its document.
    pub(super) fn governance(&self, newest: Option<(u64, &str)>) -> Option<Told> {
        let digest = |document: &str| {
            let document: Value = serde_json::from_str(document).ok()?;
            canonical::digest(&document).ok()
        };
        match (&self.governance, newest) {
            (None, None) => None,
            (None, Some((revision, _))) => {
                Some((None, format!("what the mesh agreed on, revision {revision}, has no entry")))
            }
            (Some((at, revision, _)), None) => {
                Some((Some(*at), format!("what the mesh agreed on, revision {revision}, is missing")))
            }
            (Some((at, revision, hash)), Some((stored, document))) => {
                let same = stored == *revision && digest(document).as_ref() == Some(hash);
                (!same).then(|| {
                    (Some(*at), format!("what the mesh agreed on was changed: it is not revision {revision} any more"))
                })
            }
        }
    }

    /// What the log says is there and nobody has shown.
    pub(super) fn missing(self) -> Vec<Told> {
        let grants = self.grants.iter().map(|(number, logged)| (logged.sequence, format!("grant {number} is missing")));
        let domains = self.domains.iter().filter_map(|(name, (at, hash))| {
            hash.as_ref().map(|_| (*at, format!("domain `{}` is missing", name.escape_default())))
        });
        grants.chain(domains).map(|(at, what)| (Some(at), what)).collect()
    }
}
