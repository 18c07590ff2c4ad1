//! What publishers ask of a registry.

use chrono::{DateTime, TimeDelta, Utc};
use datamesh_core::audit::{Signer, Verifier};
use datamesh_core::contract::WriteMode;
use datamesh_core::decision::{Action, DECISION_FORMAT, DecisionRecord, Outcome, Principal};
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::ports::{
    CommitOutcome, CommitRequest, Lease, MaintenanceCommit, PublishStep, QuarantineFile, Registry, StepObserver,
    TableCommit,
};
use datamesh_core::{DataProduct, Result};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::json;
use uuid::Uuid;

/// A decision that allows something.
fn decide(
    at: DateTime<Utc>,
    principal: &Principal,
    action: Action,
    resource: &str,
    context: serde_json::Value,
) -> DecisionRecord {
    DecisionRecord {
        format: DECISION_FORMAT,
        at,
        principal: principal.clone(),
        action,
        resource: resource.to_owned(),
        outcome: Outcome::Allow,
        reasons: vec!["mesh-owner".to_owned()],
        context,
    }
}

/// Hears nothing.
pub(crate) struct Deaf;

impl StepObserver for Deaf {
    fn reached(&self, _step: PublishStep) {}
}

pub(crate) fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00.123456Z".parse().unwrap()
}

pub(crate) fn attempt() -> AttemptId {
    AttemptId::new(Uuid::now_v7())
}

pub(crate) fn key(domain: &str, product: &str) -> ProductKey {
    ProductKey { domain: domain.to_owned(), product: product.to_owned(), major: 1 }
}

/// A contract with one table of one column; the version tells revisions apart.
pub(crate) fn contract(product: &ProductKey, version: &str) -> DataProduct {
    serde_json::from_value(json!({
        "format": 1,
        "id": {"domain": product.domain, "product": product.product},
        "version": version,
        "owner": "team",
        "tables": [{"name": "orders", "columns": [{"name": "id", "type": "int"}]}],
    }))
    .unwrap()
}

pub(crate) fn decision() -> DecisionRecord {
    decide(now(), &Principal { id: "user:anna".to_owned() }, Action::Publish, "shop/sales", json!({"door": "test"}))
}

pub(crate) fn lease(attempt: &AttemptId, product: &ProductKey, minutes: i64) -> Lease {
    Lease {
        attempt: attempt.clone(),
        product: product.clone(),
        tables: vec!["orders".to_owned()],
        folders: Vec::new(),
        expires_at: now() + TimeDelta::minutes(minutes),
    }
}

/// A table's part of a commit, with 10 rows of which 2 are held back.
pub(crate) fn table(name: &str, expected: Option<&str>, location: &str) -> TableCommit {
    TableCommit {
        table: name.to_owned(),
        write: WriteMode::Append,
        expected: expected.map(str::to_owned),
        metadata_location: location.to_owned(),
        metadata: format!("{{\"location\":\"{location}\"}}"),
        snapshot_id: i64::MAX - location.len() as i64,
        content: format!("content of {location}"),
        rows_in: 10,
        published: 8,
        quarantined: 2,
        total_rows: 8,
        watermark: None,
    }
}

/// A publisher with its lease and its decision.
pub(crate) async fn request(
    registry: &dyn Registry,
    product: &ProductKey,
    tables: Vec<TableCommit>,
) -> Result<CommitRequest> {
    let attempt = attempt();
    let decision = registry.record_decision(&decision()).await?;
    registry.open_lease(&lease(&attempt, product, 5)).await?;
    let revision = registry.product_state(product).await?.revision;
    Ok(CommitRequest {
        quarantine: vec![QuarantineFile {
            table: "orders".to_owned(),
            path: format!("file:///q/{attempt}/part-0.parquet"),
            rows: 2,
        }],
        attempt,
        product: product.clone(),
        contract: contract(product, "1.0.0"),
        expected_revision: revision.map_or(0, |revision| revision.number),
        principal: "user:anna".to_owned(),
        at: now(),
        idempotency_key: None,
        decision,
        tables,
        lineage: Vec::new(),
        transforms: Vec::new(),
        report: json!({"note": "Größe \u{0} 'quoted' \\"}),
        rollback_to: None,
        pinned: Vec::new(),
        resolves: Vec::new(),
    })
}

/// Publishes one table, from where it is now to `location`.
pub(crate) async fn publish(registry: &dyn Registry, product: &ProductKey, location: &str) -> u64 {
    let state = registry.product_state(product).await.unwrap();
    let expected = state.table("orders").map(|pointer| pointer.metadata_location.clone());
    let request = request(registry, product, vec![table("orders", expected.as_deref(), location)]).await.unwrap();
    commit(registry, &request).await.expect("nobody else publishes")
}

/// The publication's number; `None`: a conflict.
pub(crate) async fn commit(registry: &dyn Registry, request: &CommitRequest) -> Option<u64> {
    match registry.commit(request, &Deaf).await.unwrap() {
        CommitOutcome::Committed(number) => Some(number),
        CommitOutcome::Conflict => None,
    }
}

pub(crate) fn maintenance(lease: &Lease, expected: &str, location: &str, unreferenced: &[&str]) -> MaintenanceCommit {
    MaintenanceCommit {
        attempt: lease.attempt.clone(),
        product: lease.product.clone(),
        table: "orders".to_owned(),
        expected: expected.to_owned(),
        metadata_location: location.to_owned(),
        metadata: "{}".to_owned(),
        at: now(),
        unreferenced: unreferenced.iter().map(|path| (*path).to_owned()).collect(),
    }
}

/// A key of the tests' own.
#[derive(Debug)]
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }
}

impl Signer for Key {
    fn key_id(&self) -> &str {
        "tests"
    }

    fn public_key(&self) -> String {
        format!("{:?}", self.0.public_key())
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl Verifier for Key {
    fn knows(&self, key_id: &str) -> bool {
        key_id == "tests"
    }

    fn verify(&self, key_id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.knows(key_id) && UnparsedPublicKey::new(&ED25519, self.0.public_key()).verify(message, signature).is_ok()
    }
}
