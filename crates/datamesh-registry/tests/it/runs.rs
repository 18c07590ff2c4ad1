//! Runs outside the mesh that somebody recorded.

use std::collections::BTreeSet;

use datamesh_core::audit::{AuditEntry, AuditKind, AuditQuery};
use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{ColumnLineage, Dataset, Edge, FieldLineage, FieldPath, InputField, Inputs, Subtype};
use datamesh_core::ports::{ApplyOutcome, ProductMove, RecordedRun, RecordedTable};
use serde_json::json;
use uuid::Uuid;

use crate::apply::empty;
use crate::requests::{Deaf, Key, decision, key, now, publish};
use crate::suite::Mesh;

fn lineage(file: &str) -> ColumnLineage {
    let dataset = Dataset::External { namespace: "file".to_owned(), name: file.to_owned() };
    let mut inputs = Inputs::default();
    inputs.add(InputField { dataset: dataset.clone(), field: FieldPath::column("a") }, Subtype::Transformation.into());
    let reads =
        BTreeSet::from([dataset, Dataset::External { namespace: "memory".to_owned(), name: "frame".to_owned() }]);
    ColumnLineage { fields: vec![FieldLineage { field: FieldPath::column("id"), inputs }], reads, ..Default::default() }
}

fn run(id: u128, job: &str, file: &str, decision: u64) -> RecordedRun {
    RecordedRun {
        id: Uuid::from_u128(id),
        job: job.to_owned(),
        at: now(),
        principal: "user:anna".to_owned(),
        decision,
        tables: vec![RecordedTable {
            product: key("shop", "sales"),
            table: "orders".to_owned(),
            lineage: lineage(file),
        }],
        event: json!({ "eventType": "COMPLETE" }),
        entry: AuditEntry {
            decision: Some(decision),
            ..AuditEntry::new(
                now(),
                AuditKind::LineageRecorded,
                "user:anna",
                "publish",
                "shop.sales_v1.orders",
                "recorded",
            )
        },
    }
}

fn edges(file: &str) -> BTreeSet<Edge> {
    let output = Dataset::Table { product: key("shop", "sales"), table: "orders".to_owned() };
    lineage(file).edges(&output).into_iter().collect()
}

pub(crate) async fn recorded_runs_stand_beside_publications(mesh: Mesh) {
    let registry = &*mesh.registry;
    let found = async |publication| registry.lineage(publication).await.unwrap().into_iter().collect::<BTreeSet<_>>();
    let allowed = registry.record_decision(&decision()).await.unwrap();
    let before = registry.revisions().await.unwrap().grants;
    registry.record_run(&run(1, "nightly", "/a.csv", allowed)).await.unwrap();
    assert_eq!(found(None).await, edges("/a.csv"));
    assert!(registry.revisions().await.unwrap().grants > before, "what was decided before holds no longer");
    // The newest run of each job counts, up to the publication that is asked about.
    publish(registry, &key("shop", "sales"), "m1").await;
    registry.record_run(&run(2, "nightly", "/b.csv", allowed)).await.unwrap();
    registry.record_run(&run(3, "by hand", "/c.csv", allowed)).await.unwrap();
    let both: BTreeSet<Edge> = edges("/b.csv").union(&edges("/c.csv")).cloned().collect();
    assert_eq!(found(None).await, both);
    assert_eq!(found(Some(0)).await, edges("/a.csv"));
    assert_eq!(mesh.another().await.lineage(None).await.unwrap().len(), both.len());
    // Rows that an older run made may be there still.
    let every: BTreeSet<Edge> = both.union(&edges("/a.csv")).cloned().collect();
    let of: BTreeSet<Edge> = registry.lineage_of(&[key("shop", "sales")]).await.unwrap().into_iter().collect();
    assert_eq!(of, every);
    // A run is recorded once, with its entry or not at all.
    assert!(registry.record_run(&run(3, "by hand", "/d.csv", allowed)).await.is_err());
    let query = AuditQuery { kind: Some(AuditKind::LineageRecorded), limit: None, ..AuditQuery::default() };
    assert_eq!(registry.audit_entries(&query).await.unwrap().len(), 3);
    assert!(registry.verify_audit(&Key::new(1), None).await.unwrap().is_sound());
    assert_eq!(found(None).await, both);
}

/// What was recorded of a product is found under its new name, on both sides of an edge, and nothing under the old one.
pub(crate) async fn a_recorded_run_moves_with_its_product(mesh: Mesh) {
    let registry = &*mesh.registry;
    let (sales, orders) = (key("shop", "sales"), key("depot", "orders"));
    for product in [&sales, &key("web", "clicks")] {
        publish(registry, product, "m1").await;
    }
    let allowed = registry.record_decision(&decision()).await.unwrap();
    registry.record_run(&run(1, "nightly", "/a.csv", allowed)).await.unwrap();
    // Another run made something of it.
    let of = |product: &ProductKey| Dataset::Table { product: product.clone(), table: "orders".to_owned() };
    let mut inputs = Inputs::default();
    inputs.add(InputField { dataset: of(&sales), field: FieldPath::column("id") }, Subtype::Identity.into());
    let fields = vec![FieldLineage { field: FieldPath::column("id"), inputs }];
    let mut reading = run(2, "weekly", "/unused.csv", allowed);
    reading.tables[0].product = key("web", "clicks");
    reading.tables[0].lineage =
        ColumnLineage { fields, reads: BTreeSet::from([of(&sales)]), ..ColumnLineage::default() };
    registry.record_run(&reading).await.unwrap();
    let before: BTreeSet<Edge> = registry.lineage(None).await.unwrap().into_iter().collect();
    assert!(
        before.iter().any(|edge| edge.output.dataset == of(&sales))
            && before.iter().any(|edge| edge.input.dataset == of(&sales))
    );

    let mut moving = empty(registry).await;
    moving.moves = vec![ProductMove { from: sales.clone(), to: orders.clone() }];
    assert!(matches!(registry.apply(&moving, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
    let renamed = |mut edge: Edge| {
        for dataset in [&mut edge.output.dataset, &mut edge.input.dataset] {
            if *dataset == of(&sales) {
                *dataset = of(&orders);
            }
        }
        edge
    };
    let after: BTreeSet<Edge> = registry.lineage(None).await.unwrap().into_iter().collect();
    assert_eq!(after, before.into_iter().map(renamed).collect());
    let edges: Vec<Edge> = registry.lineage_of(&[orders]).await.unwrap();
    assert!(!edges.is_empty());
    assert!(registry.lineage_of(&[sales]).await.unwrap().is_empty());
    assert!(registry.verify_audit(&Key::new(1), None).await.unwrap().is_sound());
}
