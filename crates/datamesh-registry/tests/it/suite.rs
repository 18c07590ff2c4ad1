//! What every registry must do. Each case gets an empty one.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use datamesh_core::ErrorCode;
use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{
    ColumnLineage, Dataset, FieldLineage, FieldPath, InputField, Inputs, Subtype, TableLineage,
};
use datamesh_core::ports::{
    CommitOutcome, PublicationStatus, PublishStep, QuarantineFile, QuarantineResolution, Registry, ResolutionKind,
    StepObserver,
};
use datamesh_core::transform::{InputPin, TransformRun};
use datamesh_core::watermark::Watermark;
use datamesh_registry::{Location, SqlRegistry};

use crate::access::{access_is_asked_for_and_granted, of_two_approvers_at_once_one_is_the_last};
use crate::apply::{a_moved_product_keeps_its_history, a_plan_is_applied_whole_or_not, an_evolved_table_has_its_rows};
use crate::audit::{
    entries_are_found, everything_has_its_entry, those_who_add_at_once_make_one_chain,
    what_the_mesh_agreed_on_has_revisions, without_a_key_nothing_is_signed,
};
use crate::outbox::{
    a_name_that_was_left_is_told_whoever_comes_late, a_new_consumer_begins_with_what_is_current,
    consumers_keep_their_places, entries_become_visible_in_order, what_did_not_happen_is_not_told,
    whatever_moves_a_pointer_is_told,
};
use crate::requests::{
    Deaf, Key, attempt, commit, contract, decision, key, lease, maintenance, now, publish, request, table,
};
use crate::runs::{a_recorded_run_moves_with_its_product, recorded_runs_stand_beside_publications};

/// A registry under test, and where it is.
pub(crate) struct Mesh {
    pub(crate) registry: Arc<dyn Registry>,
    location: Location,
}

impl Mesh {
    pub(crate) async fn open(location: Location) -> Self {
        let registry = SqlRegistry::open(&location).await.unwrap().with_signer(Arc::new(Key::new(1)));
        Self { registry: Arc::new(registry), location }
    }

    /// The same registry, as another process opens it.
    pub(crate) async fn another(&self) -> Arc<dyn Registry> {
        Arc::new(SqlRegistry::open(&self.location).await.unwrap().with_signer(Arc::new(Key::new(1))))
    }
}

type Case = fn(Mesh) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), (|mesh| Box::pin($name(mesh))) as Case)),*] };
}

/// Runs every case on a registry at a place of its own.
pub(crate) fn run(place: impl Fn() -> Location) {
    let cases = cases![
        an_empty_registry_answers_nothing,
        a_mesh_has_one_identity,
        a_publication_is_kept_whole,
        decisions_are_numbered,
        rows_are_accounted_for,
        a_moved_pointer_is_a_conflict,
        contracts_become_revisions,
        a_key_is_used_once,
        a_claimed_lease_cannot_commit,
        expired_leases_are_claimed,
        claiming_waits_for_a_commit_under_way,
        one_of_many_publishers_wins,
        publications_become_visible_whole_and_in_order,
        a_rejection_moves_nothing,
        a_rollback_takes_rows_out,
        quarantined_rows_are_settled_once,
        watermarks_follow_their_publications,
        transforms_and_lineage_are_kept,
        recorded_runs_stand_beside_publications,
        a_recorded_run_moves_with_its_product,
        a_name_that_was_left_is_told_whoever_comes_late,
        maintenance_moves_a_pointer,
        text_is_ordered_by_its_bytes,
        there_may_be_many_rows,
        the_catalog_has_every_product,
        a_plan_is_applied_whole_or_not,
        an_evolved_table_has_its_rows,
        a_moved_product_keeps_its_history,
        everything_has_its_entry,
        entries_are_found,
        those_who_add_at_once_make_one_chain,
        without_a_key_nothing_is_signed,
        what_the_mesh_agreed_on_has_revisions,
        access_is_asked_for_and_granted,
        of_two_approvers_at_once_one_is_the_last,
        whatever_moves_a_pointer_is_told,
        what_did_not_happen_is_not_told,
        a_new_consumer_begins_with_what_is_current,
        consumers_keep_their_places,
        entries_become_visible_in_order,
    ];
    for (name, case) in cases {
        eprintln!("case {name}");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        runtime.block_on(async { case(Mesh::open(place()).await).await });
    }
}

fn sales() -> ProductKey {
    key("shop", "sales")
}

async fn an_empty_registry_answers_nothing(mesh: Mesh) {
    let registry = &mesh.registry;
    let state = registry.product_state(&sales()).await.unwrap();
    assert!(state.revision.is_none() && state.tables.is_empty() && state.watermarks.is_empty());
    assert!(registry.catalog().await.unwrap().is_empty());
    assert!(registry.publications(&sales(), 10).await.unwrap().is_empty());
    assert!(registry.served_tables(&sales(), 1).await.unwrap().is_empty());
    assert!(registry.rollbacks(&sales()).await.unwrap().is_empty());
    assert!(registry.quarantine_resolutions(&sales()).await.unwrap().is_empty());
    assert!(registry.last_transforms(&sales()).await.unwrap().is_empty());
    assert!(registry.lineage(None).await.unwrap().is_empty());
    assert!(registry.quarantine_files(1).await.unwrap().is_empty());
    assert!(registry.unreferenced_files(now()).await.unwrap().is_empty());
    assert!(registry.leases().await.unwrap().is_empty());
    assert!(registry.known_files(&sales()).await.unwrap().is_empty());
    assert!(registry.attempt_quarantine(&attempt()).await.unwrap().is_empty());
    assert_eq!(registry.find_idempotency_key(&sales(), "k").await.unwrap(), None);
    assert_eq!(registry.find_content(&sales(), "orders", "c").await.unwrap(), None);
    let history = registry.history(&[("shop".to_owned(), "sales".to_owned())]).await.unwrap();
    assert!(history.attempts.is_empty() && history.tables.is_empty());
}

async fn a_mesh_has_one_identity(mesh: Mesh) {
    let identity = mesh.registry.mesh_identity().await.unwrap();
    assert_eq!(identity.id.get_version_num(), 4);
    assert_ne!(identity.key, [0; 32]);
    assert_eq!(mesh.another().await.mesh_identity().await.unwrap(), identity);
    assert_eq!(format!("{identity:?}"), format!("MeshIdentity {{ id: {:?}, .. }}", identity.id));
    assert_eq!(mesh.registry.generation().await.unwrap(), 0);
    let folder = tempfile::tempdir().unwrap();
    let other = SqlRegistry::open_sqlite(&folder.path().join("other.db")).await.unwrap().mesh_identity().await.unwrap();
    assert!(other.id != identity.id && other.key != identity.key);
}

async fn a_publication_is_kept_whole(mesh: Mesh) {
    let registry = mesh.another().await;
    let tables = vec![table("orders", None, "m1"), table("items", None, "m2")];
    let mut request = request(&*mesh.registry, &sales(), tables).await.unwrap();
    request.idempotency_key = Some("night".to_owned());
    assert_eq!(commit(&*mesh.registry, &request).await, Some(1));

    let state = registry.product_state(&sales()).await.unwrap();
    let revision = state.revision.as_ref().unwrap();
    assert_eq!((revision.number, &revision.contract), (1, &request.contract));
    assert_eq!((revision.created_at, revision.created_by.as_str()), (now(), "user:anna"));
    let pointers: Vec<_> = state.tables.iter().map(|pointer| (&*pointer.table, &*pointer.metadata_location)).collect();
    assert_eq!(pointers, [("items", "m2"), ("orders", "m1")]);
    let orders = state.table("orders").unwrap();
    assert_eq!((&*orders.metadata, orders.publication, orders.rows), ("{\"location\":\"m1\"}", 1, 8));

    let catalog = registry.catalog().await.unwrap();
    assert_eq!(catalog.len(), 1);
    assert_eq!((&catalog[0].key, &catalog[0].revision, &catalog[0].tables), (&sales(), revision, &state.tables));

    let publications = registry.publications(&sales(), 10).await.unwrap();
    assert_eq!(publications.len(), 1);
    let kept = &publications[0];
    assert_eq!((kept.number, kept.status, &*kept.version, kept.at), (1, PublicationStatus::Published, "1.0.0", now()));
    assert_eq!(
        (&kept.attempt, &kept.report, &kept.contract),
        (&request.attempt, &request.report, &Some(request.contract.clone()))
    );
    assert_eq!(kept.idempotency_key.as_deref(), Some("night"));

    let served = registry.served_tables(&sales(), 1).await.unwrap();
    assert_eq!(served.iter().map(|table| &*table.table).collect::<Vec<_>>(), ["items", "orders"]);
    assert_eq!((served[1].snapshot_id, &*served[1].content, served[1].total_rows), (i64::MAX - 2, "content of m1", 8));
    assert_eq!(registry.find_content(&sales(), "orders", "content of m1").await.unwrap(), Some(1));
    assert_eq!(registry.find_content(&sales(), "items", "content of m1").await.unwrap(), None);
    assert_eq!(registry.find_idempotency_key(&sales(), "night").await.unwrap(), Some(1));
    assert_eq!(registry.quarantine_files(1).await.unwrap(), request.quarantine);
    let paths = [request.quarantine[0].path.clone()];
    assert_eq!(registry.attempt_quarantine(&request.attempt).await.unwrap(), paths);
    assert_eq!(registry.known_files(&sales()).await.unwrap(), paths);
    let history = registry.history(&[("shop".to_owned(), "sales".to_owned())]).await.unwrap();
    assert_eq!(history.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1]);
    assert_eq!(history.tables.iter().map(|table| &*table.table).collect::<Vec<_>>(), ["items", "orders"]);
    let revisions: Vec<_> = history.revisions.iter().map(|revision| (revision.number, revision.at)).collect();
    assert_eq!(revisions, [(1, history.attempts[0].at)], "the first publication applies its contract");
    // Another major version is another product.
    let second = ProductKey { major: 2, ..sales() };
    assert!(registry.product_state(&second).await.unwrap().revision.is_none());
    assert_eq!(registry.leases().await.unwrap().len(), 1);
    registry.close_lease(&request.attempt).await.unwrap();
    assert!(registry.leases().await.unwrap().is_empty());
}

async fn decisions_are_numbered(mesh: Mesh) {
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(mesh.registry.record_decision(&decision()).await.unwrap());
        numbers.push(mesh.another().await.record_decision(&decision()).await.unwrap());
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

async fn rows_are_accounted_for(mesh: Mesh) {
    let mut wrong = table("orders", None, "m1");
    wrong.published = 9;
    let request = request(&*mesh.registry, &sales(), vec![wrong]).await.unwrap();
    let error = mesh.registry.commit(&request, &Deaf).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Registry);
    assert!(error.to_string().to_lowercase().contains("check constraint"), "{error}");
    let state = mesh.registry.product_state(&sales()).await.unwrap();
    assert!(state.revision.is_none() && state.tables.is_empty());
    assert!(mesh.registry.publications(&sales(), 10).await.unwrap().is_empty());
    // The number was not used up.
    assert_eq!(publish(&*mesh.registry, &sales(), "m2").await, 1);
}

async fn a_moved_pointer_is_a_conflict(mesh: Mesh) {
    let registry = &*mesh.registry;
    assert_eq!(publish(registry, &sales(), "m1").await, 1);
    let conflicts = [
        vec![table("orders", None, "m2")],
        vec![table("orders", Some("m0"), "m2")],
        vec![table("other", Some("m1"), "m2")],
        // The first table would fit.
        vec![table("orders", Some("m1"), "m2"), table("items", Some("m0"), "m3")],
    ];
    for tables in conflicts {
        let request = request(registry, &sales(), tables).await.unwrap();
        assert_eq!(commit(registry, &request).await, None);
    }
    for pinned in [("orders", Some("m0")), ("orders", None), ("items", Some("m1"))] {
        let mut request = request(registry, &sales(), vec![table("new", None, "m2")]).await.unwrap();
        request.pinned = vec![(pinned.0.to_owned(), pinned.1.map(str::to_owned))];
        assert_eq!(commit(registry, &request).await, None, "{pinned:?}");
    }
    let state = registry.product_state(&sales()).await.unwrap();
    assert_eq!(state.tables.len(), 1);
    assert_eq!(state.table("orders").unwrap().metadata_location, "m1");
    let mut request = request(registry, &sales(), vec![table("new", None, "m2")]).await.unwrap();
    request.pinned = vec![("orders".to_owned(), Some("m1".to_owned())), ("items".to_owned(), None)];
    // Conflicts leave no gap in the numbers.
    assert_eq!(commit(registry, &request).await, Some(2));
}

async fn contracts_become_revisions(mesh: Mesh) {
    let registry = &*mesh.registry;
    publish(registry, &sales(), "m1").await;
    publish(registry, &sales(), "m2").await;
    assert_eq!(registry.product_state(&sales()).await.unwrap().revision.unwrap().number, 1);
    let mut stale = request(registry, &sales(), vec![table("orders", Some("m2"), "m3")]).await.unwrap();
    stale.contract = contract(&sales(), "1.1.0");
    let mut fresh = stale.clone();
    fresh.contract = contract(&sales(), "1.2.0");
    stale.expected_revision = 0;
    assert_eq!(commit(registry, &stale).await, None);
    assert_eq!(commit(registry, &fresh).await, Some(3));
    let revision = registry.product_state(&sales()).await.unwrap().revision.unwrap();
    assert_eq!((revision.number, revision.contract.version.to_string().as_str()), (2, "1.2.0"));
    assert_eq!(registry.publications(&sales(), 1).await.unwrap()[0].version, "1.2.0");
    assert_eq!(registry.publications(&sales(), u64::MAX).await.unwrap().len(), 3);
}

async fn a_key_is_used_once(mesh: Mesh) {
    let registry = &*mesh.registry;
    for (product, expected) in [(sales(), Some(1)), (sales(), None), (key("shop", "other"), Some(2))] {
        let name = format!("t{}", registry.leases().await.unwrap().len());
        let mut request = request(registry, &product, vec![table(&name, None, "m")]).await.unwrap();
        request.idempotency_key = Some("night".to_owned());
        assert_eq!(commit(registry, &request).await, expected, "{product}");
    }
    // A rejected attempt does not use its key up.
    let mut rejected = request(registry, &sales(), Vec::new()).await.unwrap();
    rejected.idempotency_key = Some("noon".to_owned());
    assert_eq!(registry.record_rejection(&rejected).await.unwrap(), 3);
    assert_eq!(registry.find_idempotency_key(&sales(), "noon").await.unwrap(), None);
}

async fn a_claimed_lease_cannot_commit(mesh: Mesh) {
    let registry = &*mesh.registry;
    let claimed = request(registry, &sales(), vec![table("orders", None, "m1")]).await.unwrap();
    mesh.another().await.claim_lease(&claimed.attempt).await.unwrap();
    let code = |error: datamesh_core::Error| error.code();
    let deaf = Deaf;
    assert_eq!(registry.commit(&claimed, &deaf).await.map_err(code), Err(ErrorCode::LeaseLost));
    assert_eq!(registry.record_rejection(&claimed).await.map_err(code), Err(ErrorCode::LeaseLost));
    assert_eq!(registry.renew_lease(&claimed.attempt, now()).await.map_err(code), Err(ErrorCode::LeaseLost));
    // It is still there, for whoever claimed it.
    assert_eq!(registry.leases().await.unwrap(), [lease(&claimed.attempt, &sales(), 5)]);
    registry.close_lease(&claimed.attempt).await.unwrap();
    assert_eq!(registry.commit(&claimed, &deaf).await.map_err(code), Err(ErrorCode::LeaseLost));
    assert!(registry.publications(&sales(), 10).await.unwrap().is_empty());
    // Claiming what is gone is no error: there is nothing left that could commit.
    registry.claim_lease(&claimed.attempt).await.unwrap();
    // An attempt has one lease.
    let twice = lease(&attempt(), &sales(), 5);
    registry.open_lease(&twice).await.unwrap();
    assert_eq!(registry.open_lease(&twice).await.map_err(code), Err(ErrorCode::Registry));
}

async fn expired_leases_are_claimed(mesh: Mesh) {
    let registry = &*mesh.registry;
    let old = request(registry, &sales(), vec![table("orders", None, "m1")]).await.unwrap();
    let renewed = request(registry, &sales(), vec![table("orders", None, "m2")]).await.unwrap();
    registry.renew_lease(&renewed.attempt, now() + TimeDelta::minutes(9)).await.unwrap();
    assert!(registry.claim_expired_leases(now() + TimeDelta::minutes(5)).await.unwrap().is_empty());
    let later = now() + TimeDelta::minutes(5) + TimeDelta::microseconds(1);
    assert_eq!(registry.claim_expired_leases(later).await.unwrap(), [lease(&old.attempt, &sales(), 5)]);
    let error = registry.commit(&old, &Deaf).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::LeaseLost);
    assert_eq!(commit(registry, &renewed).await, Some(1));
    // What was claimed and not cleaned up is found again.
    assert_eq!(registry.claim_expired_leases(now()).await.unwrap().len(), 1);
}

/// Holds a commit up when everything is written.
struct Holding {
    reached: std::sync::mpsc::SyncSender<()>,
    go: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl StepObserver for Holding {
    fn reached(&self, step: PublishStep) {
        assert_eq!(step, PublishStep::TransactionWritten);
        self.reached.send(()).unwrap();
        tokio::task::block_in_place(|| self.go.lock().unwrap().recv().unwrap());
    }
}

async fn claiming_waits_for_a_commit_under_way(mesh: Mesh) {
    let request = request(&*mesh.registry, &sales(), vec![table("orders", None, "m1")]).await.unwrap();
    let (reached, is_reached) = std::sync::mpsc::sync_channel(0);
    let (go, may_go) = std::sync::mpsc::sync_channel(0);
    let observer = Holding { reached, go: std::sync::Mutex::new(may_go) };
    let (registry, attempt) = (mesh.registry.clone(), request.attempt.clone());
    let commit = tokio::spawn(async move { registry.commit(&request, &observer).await });
    tokio::task::block_in_place(|| is_reached.recv().unwrap());
    let other = mesh.another().await;
    // What is not committed is seen by nobody.
    assert!(other.product_state(&sales()).await.unwrap().tables.is_empty());
    let done = Arc::new(AtomicBool::new(false));
    let claim = tokio::spawn({
        let (done, other) = (done.clone(), other.clone());
        async move {
            other.claim_lease(&attempt).await.unwrap();
            done.store(true, Ordering::SeqCst);
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!done.load(Ordering::SeqCst), "the lease was claimed although its commit was under way");
    go.send(()).unwrap();
    assert_eq!(commit.await.unwrap().unwrap(), CommitOutcome::Committed(1));
    claim.await.unwrap();
    assert_eq!(other.product_state(&sales()).await.unwrap().tables.len(), 1);
}

async fn one_of_many_publishers_wins(mesh: Mesh) {
    const PUBLISHERS: usize = 12;
    publish(&*mesh.registry, &sales(), "m0").await;
    let mut running = Vec::new();
    for number in 0..PUBLISHERS {
        // Some share a process, some do not.
        let registry = if number % 2 == 0 { mesh.another().await } else { mesh.registry.clone() };
        let location = format!("m{}", number + 1);
        let request = request(&*registry, &sales(), vec![table("orders", Some("m0"), &location)]).await.unwrap();
        running.push(tokio::spawn(async move { (commit(&*registry, &request).await, location) }));
    }
    let mut winners = Vec::new();
    for publisher in running {
        let (number, location) = publisher.await.unwrap();
        winners.extend(number.map(|number| (number, location)));
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(winners[0].0, 2);
    let state = mesh.registry.product_state(&sales()).await.unwrap();
    assert_eq!(state.table("orders").unwrap().metadata_location, winners[0].1);
    assert_eq!(mesh.registry.publications(&sales(), 100).await.unwrap().len(), 2);
}

async fn publications_become_visible_whole_and_in_order(mesh: Mesh) {
    const PRODUCTS: usize = 4;
    const ROUNDS: usize = 12;
    let names: Vec<(String, String)> = (0..PRODUCTS).map(|at| ("shop".to_owned(), format!("p{at}"))).collect();
    let mut publishers = Vec::new();
    for (domain, product) in &names {
        let (registry, product) = (mesh.another().await, key(domain, product));
        publishers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let before = round.checked_sub(1).map(|before| format!("m{before}"));
                let location = format!("m{round}");
                let tables = ["a", "b"].map(|name| table(name, before.as_deref(), &location));
                let request = request(&*registry, &product, tables.to_vec()).await.unwrap();
                assert!(commit(&*registry, &request).await.is_some());
            }
        }));
    }
    let reader = mesh.another().await;
    let mut looks = 0;
    loop {
        let ended = publishers.iter().all(tokio::task::JoinHandle::is_finished);
        let history = reader.history(&names).await.unwrap();
        let numbers: Vec<u64> = history.attempts.iter().map(|attempt| attempt.number).collect();
        // No number appears before a smaller one.
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        let written: BTreeSet<u64> = history.tables.iter().map(|table| table.publication).collect();
        assert_eq!((written.len(), history.tables.len()), (numbers.len(), 2 * numbers.len()));
        for product in reader.catalog().await.unwrap() {
            let places: BTreeSet<_> = product.tables.iter().map(|pointer| pointer.metadata_location.clone()).collect();
            assert_eq!((product.tables.len(), places.len()), (2, 1), "half a publication: {places:?}");
        }
        looks += 1;
        if ended {
            assert_eq!(numbers.len(), PRODUCTS * ROUNDS);
            break;
        }
    }
    assert!(looks > 1);
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

async fn a_rejection_moves_nothing(mesh: Mesh) {
    let registry = &*mesh.registry;
    publish(registry, &sales(), "m1").await;
    let rejected = request(registry, &sales(), Vec::new()).await.unwrap();
    assert_eq!(registry.record_rejection(&rejected).await.unwrap(), 2);
    let newest = &registry.publications(&sales(), 1).await.unwrap()[0];
    assert_eq!((newest.number, newest.status), (2, PublicationStatus::Rejected));
    assert_eq!(registry.quarantine_files(2).await.unwrap(), rejected.quarantine);
    assert_eq!(registry.product_state(&sales()).await.unwrap().table("orders").unwrap().publication, 1);
    // An attempt is recorded once.
    assert_eq!(registry.record_rejection(&rejected).await.unwrap_err().code(), ErrorCode::Registry);
    assert_eq!(publish(registry, &sales(), "m2").await, 3);
    let history = registry.history(&[("shop".to_owned(), "sales".to_owned())]).await.unwrap();
    let statuses: Vec<_> = history.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [PublicationStatus::Published, PublicationStatus::Rejected, PublicationStatus::Published]);
    assert_eq!(registry.served_tables(&sales(), 2).await.unwrap()[0].publication, 1);
}

async fn a_rollback_takes_rows_out(mesh: Mesh) {
    let registry = &*mesh.registry;
    for location in ["m1", "m2"] {
        publish(registry, &sales(), location).await;
    }
    assert_eq!(registry.find_content(&sales(), "orders", "content of m2").await.unwrap(), Some(2));
    let held = async || {
        let held = registry.held_back(&sales(), "orders").await.unwrap();
        held.into_iter().map(|held| (held.publication, held.file.table)).collect::<Vec<_>>()
    };
    assert_eq!(held().await, [(1, "orders".to_owned()), (2, "orders".to_owned())]);
    assert!(registry.held_back(&sales(), "items").await.unwrap().is_empty());
    let mut back = table("orders", Some("m2"), "m3");
    back.content = "content of m1".to_owned();
    let mut request = request(registry, &sales(), vec![back]).await.unwrap();
    request.rollback_to = Some(1);
    assert_eq!(commit(registry, &request).await, Some(3));
    let rollbacks = registry.rollbacks(&sales()).await.unwrap();
    assert_eq!(rollbacks.iter().map(|rollback| (rollback.publication, rollback.target)).collect::<Vec<_>>(), [(3, 1)]);
    assert_eq!(held().await, [(1, "orders".to_owned())]);
    // What was rolled back is no repeat, and what was brought back is one.
    assert_eq!(registry.find_content(&sales(), "orders", "content of m2").await.unwrap(), None);
    assert_eq!(registry.find_content(&sales(), "orders", "content of m1").await.unwrap(), Some(1));
    assert_eq!(registry.served_tables(&sales(), 3).await.unwrap()[0].content, "content of m1");
}

async fn quarantined_rows_are_settled_once(mesh: Mesh) {
    let registry = &*mesh.registry;
    publish(registry, &sales(), "m1").await;
    let settling = |expected: &str, location: &str| {
        let (table, resolution) = (
            table("orders", Some(expected), location),
            QuarantineResolution {
                publication: 1,
                table: "orders".to_owned(),
                resolved_by: None,
                how: ResolutionKind::Mended,
            },
        );
        async move {
            let mut request = request(registry, &sales(), vec![table]).await.unwrap();
            request.resolves = vec![resolution];
            commit(registry, &request).await
        }
    };
    assert_eq!(settling("m1", "m2").await, Some(2));
    assert_eq!(settling("m2", "m3").await, None);
    let done = registry.quarantine_resolutions(&sales()).await.unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!((done[0].publication, done[0].resolved_by, done[0].how), (1, Some(2), ResolutionKind::Mended));
    // A rollback takes the rows out again; then they can be settled anew.
    let mut back = request(registry, &sales(), vec![table("orders", Some("m2"), "m3")]).await.unwrap();
    back.rollback_to = Some(1);
    assert_eq!(commit(registry, &back).await, Some(3));
    assert!(registry.quarantine_resolutions(&sales()).await.unwrap().is_empty());
    assert_eq!(settling("m3", "m4").await, Some(4));
    assert_eq!(registry.quarantine_resolutions(&sales()).await.unwrap()[0].resolved_by, Some(4));
}

async fn watermarks_follow_their_publications(mesh: Mesh) {
    let registry = &*mesh.registry;
    let pull = |expected: Option<&'static str>, location: &'static str, value: Option<&'static str>| async move {
        let mut table = table("orders", expected, location);
        table.watermark = value.map(|value| Watermark { column: "at".to_owned(), value: value.to_owned() });
        let request = request(registry, &sales(), vec![table]).await.unwrap();
        commit(registry, &request).await.unwrap()
    };
    let watermark = || async {
        let state = registry.product_state(&sales()).await.unwrap();
        state.watermarks.get("orders").map(|watermark| watermark.value.clone())
    };
    pull(None, "m1", Some("5")).await;
    assert_eq!(watermark().await.as_deref(), Some("5"));
    pull(Some("m1"), "m2", Some("9")).await;
    assert_eq!(watermark().await.as_deref(), Some("9"));
    pull(Some("m2"), "m3", None).await;
    assert_eq!(watermark().await.as_deref(), Some("9"));
    let mut back = request(registry, &sales(), vec![table("orders", Some("m3"), "m4")]).await.unwrap();
    back.rollback_to = Some(1);
    assert_eq!(commit(registry, &back).await, Some(4));
    assert_eq!(watermark().await.as_deref(), Some("5"));
}

fn lineage_of(columns: usize) -> TableLineage {
    let dataset = Dataset::External { namespace: "file".to_owned(), name: "/data/orders.csv".to_owned() };
    let fields = (0..columns).map(|at| {
        let mut inputs = Inputs::default();
        let input = InputField { dataset: dataset.clone(), field: FieldPath::column(&format!("c{at:05}")) };
        inputs.add(input.clone(), Subtype::Identity.into());
        inputs.add(input, Subtype::Conditional.into());
        FieldLineage { field: FieldPath::column(&format!("o{at:05}")), inputs }
    });
    let reads = BTreeSet::from([Dataset::Table { product: key("web", "clicks"), table: "clicks".to_owned() }]);
    let lineage = ColumnLineage { fields: fields.collect(), dataset: Inputs::default(), reads };
    TableLineage { table: "orders".to_owned(), lineage }
}

async fn transforms_and_lineage_are_kept(mesh: Mesh) {
    let registry = &*mesh.registry;
    let pin = |table: &str, since| InputPin {
        product: key("web", "clicks"),
        version: "1.2.3-rc.1".parse().unwrap(),
        table: table.to_owned(),
        publication: 1,
        snapshot_id: i64::MIN + 1,
        changes: true,
        since,
    };
    let run = TransformRun {
        table: "orders".to_owned(),
        sql_hash: "abc".to_owned(),
        inputs: vec![pin("clicks", Some(-7)), pin("views", None)],
    };
    let mut request = request(registry, &sales(), vec![table("orders", None, "m1")]).await.unwrap();
    request.transforms = vec![run.clone()];
    request.lineage = vec![lineage_of(2)];
    assert_eq!(commit(registry, &request).await, Some(1));
    assert_eq!(registry.last_transforms(&sales()).await.unwrap(), [(1, run.clone())]);
    let edges = registry.lineage(None).await.unwrap();
    let output = Dataset::Table { product: sales(), table: "orders".to_owned() };
    let mut expected = lineage_of(2).lineage.edges(&output);
    let by_text = |edge: &datamesh_core::lineage::Edge| format!("{edge:?}");
    expected.sort_by_key(by_text);
    let mut found = edges.clone();
    found.sort_by_key(by_text);
    assert_eq!(found, expected);
    assert_eq!(registry.lineage(Some(1)).await.unwrap(), edges);
    assert!(registry.lineage(Some(0)).await.unwrap().is_empty());
    // A publication that says nothing leaves what is known.
    publish(registry, &sales(), "m2").await;
    assert_eq!(registry.lineage(None).await.unwrap(), edges);
    assert_eq!(registry.last_transforms(&sales()).await.unwrap(), [(1, run)]);
    // What rows that were published before came from is known for good, each edge once.
    let tables = vec![table("orders", Some("m2"), "m3")];
    let mut again = crate::requests::request(registry, &sales(), tables).await.unwrap();
    again.lineage = vec![lineage_of(3)];
    assert_eq!(commit(registry, &again).await, Some(3));
    let mut every = registry.lineage(None).await.unwrap();
    assert_ne!(every, edges);
    every.extend(edges.iter().filter(|edge| !every.contains(edge)).cloned().collect::<Vec<_>>());
    every.sort_by_key(by_text);
    let mut found = registry.lineage_of(&[sales(), key("web", "clicks")]).await.unwrap();
    found.sort_by_key(by_text);
    assert_eq!(found, every);
    assert!(registry.lineage_of(&[key("web", "clicks")]).await.unwrap().is_empty());
}

async fn maintenance_moves_a_pointer(mesh: Mesh) {
    let registry = &*mesh.registry;
    publish(registry, &sales(), "m1").await;
    let lease = lease(&attempt(), &sales(), 5);
    registry.open_lease(&lease).await.unwrap();
    assert!(!registry.commit_maintenance(&maintenance(&lease, "m0", "m2", &["f1"])).await.unwrap());
    assert!(registry.unreferenced_files(now()).await.unwrap().is_empty());
    assert!(registry.commit_maintenance(&maintenance(&lease, "m1", "m2", &["f2", "f1"])).await.unwrap());
    // A file is noted once.
    assert!(registry.commit_maintenance(&maintenance(&lease, "m2", "m3", &["f1", "f3"])).await.unwrap());
    let orders = registry.product_state(&sales()).await.unwrap().tables.remove(0);
    // The rows are those of the publication.
    assert_eq!((&*orders.metadata_location, &*orders.metadata, orders.publication, orders.rows), ("m3", "{}", 1, 8));
    let paths = |files: Vec<datamesh_core::ports::UnreferencedFile>| {
        files.into_iter().map(|file| (file.product, file.table, file.path)).map(|file| file.2).collect::<Vec<_>>()
    };
    assert!(registry.unreferenced_files(now() - TimeDelta::microseconds(1)).await.unwrap().is_empty());
    assert_eq!(paths(registry.unreferenced_files(now()).await.unwrap()), ["f1", "f2", "f3"]);
    assert_eq!(registry.known_files(&sales()).await.unwrap().len(), 4);
    registry.forget_unreferenced(&["f1".to_owned(), "f3".to_owned(), "f9".to_owned()]).await.unwrap();
    assert_eq!(paths(registry.unreferenced_files(now()).await.unwrap()), ["f2"]);
    registry.claim_lease(&lease.attempt).await.unwrap();
    let error = registry.commit_maintenance(&maintenance(&lease, "m3", "m4", &[])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::LeaseLost);
}

async fn text_is_ordered_by_its_bytes(mesh: Mesh) {
    let registry = &*mesh.registry;
    let mut names = ["b", "B", "a_b", "ab", "aB", "z", "a9"];
    for name in names {
        publish(registry, &key("shop", name), &format!("m-{name}")).await;
    }
    let catalog = registry.catalog().await.unwrap();
    names.sort_unstable();
    assert_eq!(catalog.iter().map(|product| &*product.key.product).collect::<Vec<_>>(), names);
    let mut paths = ["b", "B", "a_b", "ab", "aB", "é", "z", "a.b", "Ω", "a/b", "a b"];
    let lease = lease(&attempt(), &key("shop", "b"), 5);
    registry.open_lease(&lease).await.unwrap();
    assert!(registry.commit_maintenance(&maintenance(&lease, "m-b", "m", &paths)).await.unwrap());
    let files = registry.unreferenced_files(now()).await.unwrap();
    paths.sort_unstable();
    assert_eq!(files.iter().map(|file| &*file.path).collect::<Vec<_>>(), paths);
}

async fn there_may_be_many_rows(mesh: Mesh) {
    const ROWS: usize = 5000;
    let registry = &*mesh.registry;
    let mut request = request(registry, &sales(), vec![table("orders", None, "m1")]).await.unwrap();
    let file = |at| QuarantineFile { table: "orders".to_owned(), path: format!("q{at:05}"), rows: at };
    request.quarantine = (0..ROWS as u64).map(file).collect();
    request.lineage = vec![lineage_of(ROWS)];
    assert_eq!(commit(registry, &request).await, Some(1));
    assert_eq!(registry.quarantine_files(1).await.unwrap(), request.quarantine);
    let edges = registry.lineage(None).await.unwrap();
    assert_eq!(edges.len(), 2 * ROWS + 1);
    let fields: BTreeSet<_> = edges.iter().filter_map(|edge| edge.output.field.clone()).collect();
    assert_eq!(fields.len(), ROWS);
    // What does not fit is refused whole.
    let mut large =
        crate::requests::request(registry, &sales(), vec![table("orders", Some("m1"), "m2")]).await.unwrap();
    large.tables[0].rows_in = u64::MAX;
    assert_eq!(registry.commit(&large, &Deaf).await.unwrap_err().code(), ErrorCode::Internal);
    assert_eq!(registry.publications(&sales(), 10).await.unwrap().len(), 1);
}

async fn the_catalog_has_every_product(mesh: Mesh) {
    let registry = &*mesh.registry;
    for number in 0..20 {
        let product = key(if number % 2 == 0 { "shop" } else { "web" }, &format!("p{number}"));
        let tables = (0..number % 4).map(|at| table(&format!("t{at}"), None, &format!("m{number}-{at}")));
        let request = request(registry, &product, tables.collect()).await.unwrap();
        assert!(commit(registry, &request).await.is_some());
    }
    let catalog = registry.catalog().await.unwrap();
    assert_eq!(catalog.len(), 20);
    assert!(catalog.is_sorted_by(|a, b| a.key < b.key));
    for product in catalog {
        let number: usize = product.key.product[1..].parse().unwrap();
        let expected: Vec<String> = (0..number % 4).map(|at| format!("m{number}-{at}")).collect();
        assert_eq!(product.tables.iter().map(|table| table.metadata_location.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(product.revision.contract.id.product.as_str(), product.key.product);
    }
}
