//! What is in force, compared with what the log says of it: grants, domains, contracts, and what the
//! mesh agreed on. Whoever changes
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
    /// `domain.product_v1`; `None`: it may have moved when moves were not told yet.
    product: Option<String>,
}

/// What the log says is in force, entry by entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Logged {
    grants: BTreeMap<u64, LoggedGrant>,
    /// Hashes of the domains' documents; `None`: removed.
    domains: BTreeMap<String, (u64, Option<String>)>,
    /// Hashes of the products' newest contracts, by `domain.product_v1`.
    contracts: BTreeMap<String, (u64, String)>,
    /// Something was applied before entries told of domains and contracts, so that some may be unknown.
    untold: bool,
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
            // What was applied before the log began has no entry.
            AuditKind::Genesis => {
                self.untold |= details.get("decisions").and_then(Value::as_u64).is_some_and(|decisions| decisions > 0);
            }
            AuditKind::Publication => {
                if let (Some(product), Some(hash)) = (text(details, "product"), text(details, "contract")) {
                    self.contracts.insert(product, (entry.sequence, hash));
                }
            }
            AuditKind::AccessGranted | AuditKind::AccessRevoked => {
                let Some(number) = details.get("grant").and_then(Value::as_u64) else { return };
                let product = text(details, "product");
                let logged = LoggedGrant { sequence: entry.sequence, hash: text(details, "grantHash"), product };
                self.grants.insert(number, logged);
            }
            AuditKind::Apply => {
                for moved in details.get("moved").and_then(Value::as_array).into_iter().flatten() {
                    let (Some(from), Some(to)) = (text(moved, "from"), text(moved, "to")) else { continue };
                    let renamed = |product: &str| {
                        let major = product.strip_prefix(&from)?.strip_prefix("_v")?;
                        major.parse::<u64>().ok().map(|major| format!("{to}_v{major}"))
                    };
                    for product in self.grants.values_mut().filter_map(|grant| grant.product.as_mut()) {
                        *product = renamed(product).unwrap_or_else(|| product.clone());
                    }
                    let contracts = std::mem::take(&mut self.contracts);
                    let named = |(product, told): (String, _)| (renamed(&product).unwrap_or(product), told);
                    self.contracts = contracts.into_iter().map(named).collect();
                }
                match (details.get("domains").and_then(Value::as_object), details.get("contracts")) {
                    (Some(domains), Some(Value::Object(contracts))) => {
                        let hash = |hash: &Value| (entry.sequence, hash.as_str().map(str::to_owned));
                        self.domains.extend(domains.iter().map(|(name, own)| (name.clone(), hash(own))));
                        let told = contracts
                            .iter()
                            .filter_map(|(name, own)| Some((name.clone(), (entry.sequence, own.as_str()?.to_owned()))));
                        self.contracts.extend(told);
                    }
                    _ => {
                        self.untold = true;
                        self.contracts.clear();
                        self.grants.values_mut().for_each(|grant| grant.product = None);
                    }
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
        match logged.product.filter(|product| *product != stored.product.to_string()) {
            Some(product) => changed(&format!("it is for `{}`, and was given for `{product}`", stored.product)),
            None => None,
        }
    }

    /// What is wrong with a product's newest contract, by its document.
    pub(super) fn contract(&mut self, product: &ProductKey, document: &str) -> Option<Told> {
        match self.contracts.remove(&product.to_string()) {
            None if self.untold => None,
            None => Some((None, format!("the contract of `{product}` has no entry"))),
            Some((sequence, hash)) => (hash != canonical::sha256(document.as_bytes())).then(|| {
                (Some(sequence), format!("the contract of `{product}` was changed: it is not what the entry says"))
            }),
        }
    }

    /// What is wrong with a domain as it is kept.
    pub(super) fn domain(&mut self, name: &str, document: &str) -> Option<Told> {
        match self.domains.remove(name) {
            None if self.untold => None,
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
        let contracts = self.contracts.iter();
        let contracts = contracts.map(|(name, (at, _))| (*at, format!("the contract of `{name}` is missing")));
        grants.chain(domains).chain(contracts).map(|(at, what)| (Some(at), what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn entry(kind: AuditKind, details: Value) -> AuditEntry {
        let at = DateTime::from_timestamp(1_700_000_000, 0).expect("it is a time");
        AuditEntry { details, ..AuditEntry::new(at, kind, "user:sam", "approve", "shop/sales", "granted") }
    }

    fn grant(number: u64) -> StoredGrant {
        let product = ProductKey { domain: "shop".into(), product: "sales".into(), major: 1 };
        let document = json!({
            "number": number, "request": 1, "principal": "user:alice", "role": "analyst", "tables": [],
            "product": {"domain": "shop", "product": "sales", "major": 1},
            "grantedAt": "2026-01-01T00:00:00Z", "approvedBy": ["user:sam"],
        });
        let (principal, document) = ("user:alice".to_owned(), document.to_string());
        StoredGrant { number, product, principal, expires_at: None, revoked: false, document }
    }

    fn granted(number: u64) -> Logged {
        let mut logged = Logged::default();
        let hash = canonical::sha256(grant(number).document.as_bytes());
        let details = json!({"grant": number, "grantHash": hash, "product": "shop.sales_v1"});
        logged.push(&entry(AuditKind::AccessGranted, details));
        logged
    }

    #[test]
    fn grants_that_are_missing_or_were_never_given_are_told() {
        assert_eq!(granted(1).grant(&grant(1)), None);
        assert_eq!(granted(1).missing(), [(Some(0), "grant 1 is missing".to_owned())]);
        let (_, what) = granted(1).grant(&grant(2)).expect("it has no entry");
        assert_eq!(what, "grant 2 of `user:alice` has no entry");
    }

    #[test]
    fn what_older_entries_do_not_tell_is_no_flaw() {
        let mut logged = granted(1);
        let moved = ProductKey { domain: "depot".into(), ..grant(1).product };
        assert!(logged.clone().grant(&StoredGrant { product: moved.clone(), ..grant(1) }).is_some());
        // Something moved without being told.
        logged.push(&entry(AuditKind::Apply, json!({"generation": 1})));
        assert_eq!(logged.grant(&StoredGrant { product: moved.clone(), ..grant(1) }), None);
        assert_eq!((logged.domain("depot", "{}"), logged.contract(&moved, "{}")), (None, None));
        let mut new = Logged::default();
        new.push(&entry(AuditKind::Genesis, json!({"decisions": 0})));
        assert!(new.clone().domain("depot", "{}").is_some() && new.clone().contract(&moved, "{}").is_some());
        let mut old = Logged::default();
        old.push(&entry(AuditKind::Genesis, json!({"decisions": 7})));
        assert_eq!((old.domain("depot", "{}"), old.contract(&moved, "{}")), (None, None));
    }
}
