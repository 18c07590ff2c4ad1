//! What every registry must do when a plan is applied.

use datamesh_core::domain::Domain;
use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{
    ColumnLineage, Dataset, FieldLineage, FieldPath, InputField, Inputs, Subtype, TableLineage,
};
use datamesh_core::ports::{ApplyOutcome, ApplyRequest, NewRevision, ProductMove, Registry, TableEvolution};
use serde_json::json;

use crate::requests::{Deaf, attempt, commit, contract, decision, key, lease, now, publish, request, table};
use crate::suite::Mesh;

fn sales() -> ProductKey {
    key("shop", "sales")
}

/// An apply of nothing, from what the registry is now.
pub(crate) async fn empty(registry: &dyn Registry) -> ApplyRequest {
    ApplyRequest {
        attempts: Vec::new(),
        expected_generation: registry.generation().await.unwrap(),
        principal: "user:anna".to_owned(),
        at: now(),
        decision: registry.record_decision(&decision()).await.unwrap(),
        domains: Vec::new(),
        removed_domains: Vec::new(),
        moves: Vec::new(),
        revisions: Vec::new(),
        tables: Vec::new(),
        pinned: Vec::new(),
        plan: json!({}),
        governance: None,
    }
}

fn revision(product: &ProductKey, expected: u64, version: &str) -> NewRevision {
    NewRevision { expected, contract: contract(product, version) }
}

async fn apply(registry: &dyn Registry, request: &ApplyRequest) -> ApplyOutcome {
    registry.apply(request, &Deaf).await.unwrap()
}

pub(crate) async fn a_plan_is_applied_whole_or_not(mesh: Mesh) {
    let registry = &*mesh.registry;
    let domain = |owner: &str| -> Domain {
        serde_json::from_value(json!({"name": "Shop", "owner": owner, "responsibilities": []})).unwrap()
    };
    let mut first = empty(registry).await;
    first.revisions = vec![revision(&sales(), 0, "1.0.0"), revision(&key("web", "clicks"), 0, "1.2.0")];
    first.domains = vec![domain("a")];
    assert_eq!(apply(registry, &first).await, ApplyOutcome::Applied(1));
    assert_eq!(apply(registry, &first).await, ApplyOutcome::Moved, "the generation has moved on");
    let state = registry.applied_state().await.unwrap();
    assert_eq!((state.generation, state.domains), (1, vec![domain("a")]));
    assert_eq!(state.products.iter().map(|product| product.revision.number).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(registry.majors(&sales()).await.unwrap(), [1]);
    // One revision that is not as expected takes the other back, and the domain.
    let mut second = empty(registry).await;
    second.revisions = vec![revision(&sales(), 1, "1.1.0"), revision(&key("web", "clicks"), 0, "1.3.0")];
    second.domains = vec![domain("b")];
    assert_eq!(apply(registry, &second).await, ApplyOutcome::Moved);
    let state = registry.applied_state().await.unwrap();
    assert_eq!((state.generation, state.domains), (1, vec![domain("a")]));
    assert_eq!(registry.product_state(&sales()).await.unwrap().revision.unwrap().number, 1);
    let mut third = empty(registry).await;
    third.removed_domains = vec!["shop".to_owned()];
    assert_eq!(apply(registry, &third).await, ApplyOutcome::Applied(2));
    assert!(registry.applied_state().await.unwrap().domains.is_empty());
    // What a first publish applies counts as well.
    publish(registry, &key("depot", "stock"), "m1").await;
    assert_eq!(registry.generation().await.unwrap(), 3);
    publish(registry, &key("depot", "stock"), "m2").await;
    assert_eq!(registry.generation().await.unwrap(), 3, "a publication alone applies nothing");
}

pub(crate) async fn an_evolved_table_has_its_rows(mesh: Mesh) {
    let registry = &*mesh.registry;
    publish(registry, &sales(), "m1").await;
    let evolution = |expected: &str, location: &str| TableEvolution {
        product: sales(),
        table: "orders".to_owned(),
        expected: expected.to_owned(),
        metadata_location: location.to_owned(),
        metadata: "{}".to_owned(),
    };
    let lease = lease(&attempt(), &sales(), 5);
    registry.open_lease(&lease).await.unwrap();
    let mut request = empty(registry).await;
    request.attempts = vec![lease.attempt.clone()];
    request.revisions = vec![revision(&sales(), 1, "1.1.0")];
    request.tables = vec![evolution("m0", "m2")];
    assert_eq!(apply(registry, &request).await, ApplyOutcome::Moved);
    request.tables = vec![evolution("m1", "m2")];
    request.pinned = vec![(sales(), "orders".to_owned(), "m0".to_owned())];
    assert_eq!(apply(registry, &request).await, ApplyOutcome::Moved, "other rows than were judged");
    assert_eq!(registry.product_state(&sales()).await.unwrap().revision.unwrap().number, 1);
    request.pinned = vec![(sales(), "orders".to_owned(), "m1".to_owned())];
    assert!(matches!(apply(registry, &request).await, ApplyOutcome::Applied(_)));
    let state = registry.product_state(&sales()).await.unwrap();
    assert_eq!(state.revision.unwrap().contract.version.to_string(), "1.1.0");
    let orders = &state.tables[0];
    assert_eq!((&*orders.metadata_location, orders.publication, orders.rows), ("m2", 1, 8));
    registry.claim_lease(&lease.attempt).await.unwrap();
    let mut late = empty(registry).await;
    late.attempts = vec![lease.attempt];
    let error = registry.apply(&late, &Deaf).await.unwrap_err();
    assert_eq!(error.code(), datamesh_core::ErrorCode::LeaseLost);
}

pub(crate) async fn a_moved_product_keeps_its_history(mesh: Mesh) {
    let registry = &*mesh.registry;
    let to = key("depot", "orders");
    publish(registry, &sales(), "m1").await;
    // Another product reads it, and its lineage says so.
    let mut reader = request(registry, &key("web", "reader"), vec![table("orders", None, "r1")]).await.unwrap();
    let mut inputs = Inputs::default();
    let dataset = Dataset::Table { product: sales(), table: "orders".to_owned() };
    inputs.add(InputField { dataset: dataset.clone(), field: FieldPath::column("id") }, Subtype::Identity.into());
    let fields = vec![FieldLineage { field: FieldPath::column("id"), inputs }];
    let lineage = ColumnLineage { fields, reads: [dataset].into(), ..ColumnLineage::default() };
    reader.lineage = vec![TableLineage { table: "orders".to_owned(), lineage }];
    commit(registry, &reader).await.unwrap();
    let mut request = empty(registry).await;
    request.moves = vec![ProductMove { from: sales(), to: to.clone() }];
    request.revisions = vec![revision(&to, 1, "1.1.0")];
    assert!(matches!(apply(registry, &request).await, ApplyOutcome::Applied(_)));
    assert!(registry.product_state(&sales()).await.unwrap().revision.is_none());
    assert!(registry.publications(&sales(), 10).await.unwrap().is_empty());
    let state = registry.product_state(&to).await.unwrap();
    assert_eq!((state.revision.unwrap().number, &*state.tables[0].metadata_location), (2, "m1"));
    assert_eq!(registry.publications(&to, 10).await.unwrap().len(), 1);
    let found = registry.find_content(&to, "orders", "content of m1").await.unwrap();
    assert_eq!(found, Some(1), "a repeat is known under the new name");
    let edges = registry.lineage(None).await.unwrap();
    let moved = Dataset::Table { product: to, table: "orders".to_owned() };
    assert!(!edges.is_empty() && edges.iter().all(|edge| edge.input.dataset == moved), "{edges:#?}");
}
