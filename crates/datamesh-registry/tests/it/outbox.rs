//! What every registry must tell of what happens in it.

use chrono::TimeDelta;
use datamesh_core::ids::ProductKey;
use datamesh_core::outbox::{Outbox, OutboxBatch, OutboxEntry};
use datamesh_core::ports::{
    ApplyOutcome, NewRevision, ProductMove, PublishStep, Registry, StepObserver, TableEvolution,
};
use datamesh_registry::SqlRegistry;
use tokio::runtime::Runtime;

use crate::apply::empty;
use crate::requests::{Deaf, attempt, commit, contract, key, lease, maintenance, now, publish, request, table};
use crate::suite::Mesh;

fn sales() -> ProductKey {
    key("shop", "sales")
}

/// Entries in short: number, kind, product, document.
fn short(entries: &[OutboxEntry]) -> Vec<String> {
    let short = |entry: &OutboxEntry| {
        let document = entry.pointer.as_ref().map_or("", |pointer| &pointer.metadata_location);
        format!("{} {} {}/{} {document}", entry.sequence, entry.kind, entry.product.domain, entry.product.product)
    };
    entries.iter().map(short).map(|line| line.trim_end().to_owned()).collect()
}

async fn after(registry: &dyn Registry, place: u64) -> OutboxBatch {
    registry.outbox(place, 100).await.unwrap()
}

/// Each pointer's number is that of the newest entry about it, which says where it is.
async fn check_pointers(registry: &dyn Registry, place: u64) {
    let told = after(registry, place).await.entries;
    let mut pointers = 0;
    for product in registry.catalog().await.unwrap() {
        for pointer in product.tables {
            let newest = told.iter().filter(|entry| {
                let about = entry.pointer.as_ref().filter(|moved| moved.table == pointer.table);
                entry.product == product.key && about.is_some()
            });
            let newest = newest.max_by_key(|entry| entry.sequence).expect("every pointer is told of");
            let moved = newest.pointer.as_ref().unwrap();
            assert_eq!((newest.sequence, &moved.metadata_location), (pointer.sequence, &pointer.metadata_location));
            assert_eq!(moved.publication, pointer.publication);
            pointers += 1;
        }
    }
    assert!(pointers > 0);
}

pub(crate) async fn whatever_moves_a_pointer_is_told(mesh: Mesh) {
    let registry = &*mesh.registry;
    // A consumer with a place of its own is told each move; 1 is the first entry.
    publish(registry, &sales(), "m1").await;
    publish(registry, &sales(), "m2").await;
    let mut back = request(registry, &sales(), vec![table("orders", Some("m2"), "m3")]).await.unwrap();
    back.rollback_to = Some(1);
    assert_eq!(commit(registry, &back).await, Some(3));
    let lease = lease(&attempt(), &sales(), 5);
    registry.open_lease(&lease).await.unwrap();
    assert!(registry.commit_maintenance(&maintenance(&lease, "m3", "m4", &["f"])).await.unwrap());
    let mut evolve = empty(registry).await;
    evolve.revisions = vec![NewRevision { expected: 1, contract: contract(&sales(), "1.1.0") }];
    evolve.tables = vec![TableEvolution {
        product: sales(),
        table: "orders".to_owned(),
        expected: "m4".to_owned(),
        metadata_location: "m5".to_owned(),
        metadata: "{}".to_owned(),
    }];
    assert_eq!(registry.apply(&evolve, &Deaf).await.unwrap(), ApplyOutcome::Applied(2));
    check_pointers(registry, 1).await;
    let told = after(registry, 1).await;
    assert_eq!(
        short(&told.entries),
        [
            "2 applied shop/sales",
            "3 published shop/sales m2",
            "4 rolled-back shop/sales m3",
            "5 maintained shop/sales m4",
            "6 applied shop/sales",
            "7 evolved shop/sales m5",
        ]
    );
    assert_eq!(told.to, 7);
    let publications: Vec<_> =
        told.entries.iter().filter_map(|entry| Some(entry.pointer.as_ref()?.publication)).collect();
    assert_eq!(publications, [2, 3, 3, 3], "maintenance and evolution serve the rows of the rollback");
    // A product that moves takes what was told along, and its tables are told by their new name.
    let mut moving = empty(registry).await;
    moving.moves = vec![ProductMove { from: sales(), to: key("depot", "orders") }];
    assert!(matches!(registry.apply(&moving, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
    assert_eq!(short(&after(registry, 6).await.entries), ["7 evolved depot/orders m5", "8 moved depot/orders m5"]);
    check_pointers(registry, 1).await;
    let formers = |batch: OutboxBatch| batch.entries.into_iter().filter_map(|entry| entry.former).collect::<Vec<_>>();
    assert_eq!(formers(after(registry, 6).await), [sales()]);
    // Batches have an end, and nothing new is nothing.
    let part = registry.outbox(2, 2).await.unwrap();
    assert_eq!((part.entries.len(), part.to), (2, 4));
    assert_eq!(after(registry, 8).await, OutboxBatch { entries: Vec::new(), to: 8 });
    assert_eq!(registry.outbox_head().await.unwrap(), 8);
}

/// Dies once everything is written.
struct Dies;

impl StepObserver for Dies {
    fn reached(&self, step: PublishStep) {
        assert_ne!(step, PublishStep::TransactionWritten, "it dies here");
    }
}

pub(crate) async fn what_did_not_happen_is_not_told(mesh: Mesh) {
    let registry = mesh.another().await;
    publish(&*registry, &sales(), "m1").await;
    let before = after(&*registry, 0).await;
    // A conflict, a rejection, maintenance that came late, an apply of something else.
    let late = request(&*registry, &sales(), vec![table("orders", Some("m0"), "m2")]).await.unwrap();
    assert_eq!(commit(&*registry, &late).await, None);
    let rejected = request(&*registry, &sales(), Vec::new()).await.unwrap();
    registry.record_rejection(&rejected).await.unwrap();
    let lease = lease(&attempt(), &sales(), 5);
    registry.open_lease(&lease).await.unwrap();
    assert!(!registry.commit_maintenance(&maintenance(&lease, "m0", "m2", &[])).await.unwrap());
    let mut wrong = empty(&*registry).await;
    wrong.revisions = vec![NewRevision { expected: 7, contract: contract(&sales(), "1.1.0") }];
    assert_eq!(registry.apply(&wrong, &Deaf).await.unwrap(), ApplyOutcome::Moved);
    // A process that dies between what it wrote and its commit.
    let dying = request(&*registry, &sales(), vec![table("orders", Some("m1"), "m2")]).await.unwrap();
    let victim = registry.clone();
    tokio::spawn(async move { victim.commit(&dying, &Dies).await }).await.unwrap_err();
    let mut dying = empty(&*registry).await;
    dying.revisions = vec![NewRevision { expected: 1, contract: contract(&sales(), "1.1.0") }];
    let victim = registry.clone();
    tokio::spawn(async move { victim.apply(&dying, &Dies).await }).await.unwrap_err();
    assert_eq!(after(&*registry, 0).await, before);
    // Nor does it leave a gap.
    publish(&*registry, &sales(), "m2").await;
    let head = before.to;
    assert_eq!(short(&after(&*registry, head).await.entries), [format!("{} published shop/sales m2", head + 1)]);
}

pub(crate) async fn a_new_consumer_begins_with_what_is_current(mesh: Mesh) {
    let registry = &*mesh.registry;
    assert_eq!(after(registry, 0).await, OutboxBatch::default());
    for location in ["m1", "m2", "m3"] {
        publish(registry, &sales(), location).await;
    }
    publish(registry, &key("web", "clicks"), "c1").await;
    let begun = after(registry, 0).await;
    assert_eq!(
        short(&begun.entries),
        ["4 current shop/sales m3", "5 current web/clicks c1", "6 current shop/sales", "6 current web/clicks"]
    );
    assert_eq!(begun.to, 6);
}

pub(crate) async fn a_name_that_was_left_is_told_whoever_comes_late(mesh: Mesh) {
    let registry = &*mesh.registry;
    publish(registry, &sales(), "m1").await;
    // Nothing is published of this one.
    let mut made = empty(registry).await;
    made.revisions = vec![NewRevision { expected: 0, contract: contract(&key("shop", "plans"), "1.0.0") }];
    assert!(matches!(registry.apply(&made, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
    let place = registry.outbox_head().await.unwrap();
    let moves = [("sales", "deals"), ("plans", "drafts"), ("deals", "orders")];
    for (from, to) in moves {
        let mut moving = empty(registry).await;
        moving.moves = vec![ProductMove { from: key("shop", from), to: key("shop", to) }];
        assert!(matches!(registry.apply(&moving, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
    }
    let told = |batch: OutboxBatch| {
        let names = batch.entries.into_iter().filter_map(|entry| Some((entry.former?.product, entry.product.product)));
        names.collect::<Vec<_>>()
    };
    let pair = |former: &str, now: &str| (former.to_owned(), now.to_owned());
    let all = [pair("sales", "orders"), pair("plans", "drafts"), pair("deals", "orders")];
    assert_eq!(told(after(registry, place).await), all);
    // Whoever is new hears of them too, and whoever comes when the entries are gone.
    assert_eq!(told(after(registry, 0).await), all);
    registry.trim_outbox(now() + TimeDelta::microseconds(1)).await.unwrap();
    assert_eq!(told(after(registry, place).await), all);
    assert_eq!(told(after(registry, place + 1).await), all[1..]);
}

pub(crate) async fn consumers_keep_their_places(mesh: Mesh) {
    let registry = &*mesh.registry;
    for location in ["m1", "m2", "m3", "m4"] {
        publish(registry, &sales(), location).await;
    }
    let places = || async {
        let consumers = registry.consumers().await.unwrap();
        consumers.into_iter().map(|consumer| (consumer.name, consumer.sequence)).collect::<Vec<_>>()
    };
    let place = |name: &str, sequence| (name.to_owned(), sequence);
    assert!(places().await.is_empty());
    registry.advance_consumer("glue:eu", 2, now()).await.unwrap();
    registry.advance_consumer("glue:us", 4, now()).await.unwrap();
    registry.advance_consumer("glue:eu", 3, now()).await.unwrap();
    // Of two at once the slower one does not take the place back.
    registry.advance_consumer("glue:eu", 1, now() + TimeDelta::hours(1)).await.unwrap();
    assert_eq!(places().await, [place("glue:eu", 3), place("glue:us", 4)]);
    assert_eq!(registry.consumers().await.unwrap()[0].advanced_at, now());

    // What all have passed goes; the rest stays.
    assert_eq!(registry.trim_outbox(now()).await.unwrap(), 3);
    assert_eq!(registry.trim_outbox(now()).await.unwrap(), 0);
    assert_eq!(short(&after(registry, 3).await.entries), ["4 published shop/sales m3", "5 published shop/sales m4"]);
    // Who is behind what is kept gets what is current, and goes on from there.
    let behind = after(registry, 2).await;
    assert_eq!(short(&behind.entries), ["5 current shop/sales m4", "5 current shop/sales"]);
    assert_eq!(behind.to, 5);
    assert!(registry.forget_consumer("glue:eu").await.unwrap());
    assert!(!registry.forget_consumer("glue:eu").await.unwrap());
    assert_eq!(registry.trim_outbox(now()).await.unwrap(), 1);
    // Nobody waits for ever for one that does not come.
    assert_eq!(registry.trim_outbox(now() + TimeDelta::microseconds(1)).await.unwrap(), 1);
    assert_eq!(short(&after(registry, 4).await.entries), ["5 current shop/sales m4", "5 current shop/sales"]);
    publish(registry, &sales(), "m5").await;
    assert_eq!(short(&after(registry, 5).await.entries), ["6 published shop/sales m5"]);
}

pub(crate) async fn entries_become_visible_in_order(mesh: Mesh) {
    const PRODUCTS: usize = 4;
    const ROUNDS: usize = 12;
    let mut publishers = Vec::new();
    for number in 0..PRODUCTS {
        let (registry, product) = (mesh.another().await, key("shop", &format!("p{number}")));
        publishers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                publish(&*registry, &product, &format!("m{round}")).await;
            }
        }));
    }
    // Somebody reads all the while, and trims, and keeps the place: nothing is missed and nothing comes twice.
    let reader = mesh.another().await;
    let (mut place, mut pointers) = (0, 0);
    loop {
        let ended = publishers.iter().all(tokio::task::JoinHandle::is_finished);
        let batch = reader.outbox(place.max(1), 7).await.unwrap();
        let numbers: Vec<u64> = batch.entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!(numbers, (place.max(1) + 1..=batch.to).collect::<Vec<_>>());
        pointers += batch.entries.iter().filter(|entry| entry.pointer.is_some()).count();
        if batch.to > place {
            place = batch.to;
            reader.advance_consumer("reader", place, now()).await.unwrap();
            reader.trim_outbox(now()).await.unwrap();
        } else if ended {
            break;
        }
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    // The first entry of all is a pointer, and was left out.
    assert_eq!((pointers + 1, place), (PRODUCTS * ROUNDS, (PRODUCTS * ROUNDS + PRODUCTS) as u64));
}

/// A registry of the format before has its pointers numbered when it is brought up to date.
pub(crate) fn a_registry_from_before_begins_with_what_is_current(
    runtime: &Runtime,
    open: &dyn Fn() -> SqlRegistry,
    execute: &dyn Fn(&str) -> Result<(), String>,
) {
    let registry = open();
    runtime.block_on(async {
        for (product, location) in [("b", "b1"), ("a", "a1"), ("b", "b2")] {
            publish(&registry, &key("shop", product), location).await;
        }
    });
    drop(registry);
    for statement in [
        "DROP TABLE former_names",
        "DROP TABLE recorded_edges",
        "DROP TABLE recorded_runs",
        "DROP TABLE outbox",
        "DROP TABLE outbox_consumers",
        "ALTER TABLE mesh DROP COLUMN outbox_sequence",
        "ALTER TABLE mesh DROP COLUMN outbox_trimmed",
        "ALTER TABLE tables DROP COLUMN sequence",
        "DELETE FROM _sqlx_migrations WHERE version >= 10",
    ] {
        execute(statement).unwrap();
    }
    let registry = open();
    runtime.block_on(async {
        let begun = after(&registry, 0).await;
        assert_eq!(
            short(&begun.entries),
            ["1 current shop/a a1", "2 current shop/b b2", "4 current shop/a", "4 current shop/b"]
        );
        check_pointers(&registry, 0).await;
        registry.advance_consumer("glue:eu", begun.to, now()).await.unwrap();
        publish(&registry, &key("shop", "a"), "a2").await;
        assert_eq!(short(&after(&registry, begun.to).await.entries), ["5 published shop/a a2"]);
    });
}
