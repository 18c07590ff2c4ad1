//! Plans, and what becomes of them when the target fails, answers are lost and others change things.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use datamesh_core::ports::{CatalogProduct, Revision, TablePointer};
use datamesh_core::{DataProduct, ErrorCode, Lifecycle};
use datamesh_provision::catalog::{self, CatalogTable, Database};
use datamesh_provision::local::LocalTarget;
use datamesh_provision::provision::{
    ApplyOptions, Change, Desired, DesiredOptions, FoundDatabase, FoundTable, PointerChange, Retry, State, Target,
    apply, describe, destroy, plan, sync,
};
use proptest::prelude::*;

use crate::contracts::{contracts, full};
use crate::log::Log;
use crate::memory::{Fault, Memory, Waits};

pub(crate) const MESH: &str = "0192f0c1-0000-7000-8000-000000000000";
pub(crate) const DATABASE: &str = "customer_customer_360_v2";
pub(crate) const TABLE: &str = "customer_profile";

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A product of the registry whose tables are all published, as of a publication.
pub(crate) fn published(contract: DataProduct, publication: u64) -> CatalogProduct {
    let key = contract.key();
    let pointer = |table: &datamesh_core::Table| TablePointer {
        table: table.name.sql(),
        metadata_location: format!(
            "s3://lake/{}/metadata/{publication}-x.metadata.json",
            catalog::table_path(&key, table)
        ),
        metadata: String::new(),
        content: String::new(),
        publication,
        rows: 1,
        sequence: publication,
    };
    let tables = contract.tables.iter().map(pointer).collect();
    let revision =
        Revision { number: 1, contract, created_at: chrono::DateTime::UNIX_EPOCH, created_by: "user:a".into() };
    CatalogProduct { key, revision, tables }
}

pub(crate) fn desired(products: &[CatalogProduct]) -> Desired {
    Desired::new(MESH, products, &DesiredOptions { warehouse: Some("s3://lake".into()), ..DesiredOptions::default() })
        .unwrap()
}

pub(crate) fn of(publication: u64) -> Desired {
    desired(&[published(full(), publication)])
}

fn foreign() -> State {
    let table = CatalogTable {
        name: "theirs".into(),
        description: None,
        owner: None,
        location: None,
        columns: Vec::new(),
        partition_keys: Vec::new(),
        parameters: BTreeMap::new(),
    };
    let database = |name: &str, parameters| FoundDatabase {
        database: Database { name: name.into(), description: None, location: None, parameters },
        tables: BTreeMap::from([("theirs".to_owned(), FoundTable { table: table.clone(), version: None })]),
    };
    let marked = BTreeMap::from([(catalog::MESH.to_owned(), MESH.to_owned())]);
    let other = BTreeMap::from([(catalog::MESH.to_owned(), "another".to_owned())]);
    let databases = [("a", BTreeMap::new()), ("b", other), ("c", marked)];
    State { databases: databases.into_iter().map(|(name, p)| (name.to_owned(), database(name, p))).collect() }
}

pub(crate) fn options() -> ApplyOptions {
    ApplyOptions::default()
}

#[test]
fn a_plan_is_shown() {
    let wanted = of(2);
    let shown = |plan: &datamesh_provision::provision::Plan| {
        plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let first = plan(&wanted, &State::default(), false);
    assert_eq!(
        shown(&first),
        "+ database customer_customer_360_v2\n+ table customer_customer_360_v2.customer_notes\n+ table customer_customer_360_v2.customer_profile"
    );
    let memory = Memory::default();
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    let second = plan(&wanted, &memory.state.lock().unwrap(), false);
    insta::assert_snapshot!(shown(&second));
}

#[test]
fn applying_again_changes_nothing() {
    let memory = Memory::default();
    let first = wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    assert_eq!((first.done.len(), first.failed.len()), (3, 0));
    let second = wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    assert!(second.done.is_empty());
}

#[test]
fn edits_by_hand_are_found_and_mended_and_notes_of_others_kept() {
    let memory = Memory::default();
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    {
        let mut state = memory.state.lock().unwrap();
        let database = state.databases.get_mut(DATABASE).unwrap();
        database.database.parameters.insert("theirs".into(), "kept".into());
        database.tables.remove("customer_notes");
        let table = &mut database.tables.get_mut(TABLE).unwrap().table;
        table.columns.remove(1);
        table.columns[0].data_type = "bigint".into();
        table.columns[0].parameters.insert("iceberg.field.id".into(), "1".into());
        table.owner = None;
        table.parameters.insert(catalog::METADATA_LOCATION.into(), "s3://elsewhere/metadata/0.json".into());
        table.parameters.insert("numRows".into(), "7".into());
        table.parameters.insert("datamesh.unknown".into(), "x".into());
    }
    let drift = plan(&of(1), &memory.state.lock().unwrap(), false);
    insta::assert_snapshot!(drift.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    let state = memory.state.lock().unwrap();
    assert!(plan(&of(1), &state, true).is_empty());
    let database = &state.databases[DATABASE];
    let table = &database.tables[TABLE].table;
    assert_eq!(database.database.parameters["theirs"], "kept");
    assert_eq!(table.parameters["numRows"], "7");
    assert_eq!(table.parameters[catalog::PREVIOUS_METADATA_LOCATION], "s3://elsewhere/metadata/0.json");
    assert_eq!(table.columns[0].parameters["iceberg.field.id"], "1");
}

#[test]
fn what_is_not_ours_is_refused_before_anything_is_changed() {
    for marker in [None, Some("another")] {
        let memory = Memory::default();
        wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
        {
            let mut state = memory.state.lock().unwrap();
            let parameters =
                &mut state.databases.get_mut(DATABASE).unwrap().tables.get_mut(TABLE).unwrap().table.parameters;
            parameters.remove(catalog::MESH);
            parameters.extend(marker.map(|marker| (catalog::MESH.to_owned(), marker.to_owned())));
        }
        let before = memory.state.lock().unwrap().clone();
        let error = wait(apply(&memory, &of(2), &options(), &Waits::default())).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PlanRefused);
        assert!(error.to_string().contains("`customer_customer_360_v2.customer_profile` exists"), "{error}");
        assert!(error.help().is_some());
        assert_eq!(*memory.state.lock().unwrap(), before);
    }
}

#[test]
fn every_lost_answer_is_survived() {
    // Whichever call is lost, the second run finds nothing to do and nothing is made twice.
    for (at, fault) in (0..4).flat_map(|at| [(at, Fault::AnswerLost), (at, Fault::RequestLost), (at, Fault::Throttled)])
    {
        let memory = Memory::default();
        let mut faults = vec![Fault::None; at];
        faults.push(fault);
        *memory.faults.lock().unwrap() = faults.into();
        let applied = wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
        assert!(applied.failed.is_empty(), "{at} {fault:?}");
        assert!(plan(&of(1), &memory.state.lock().unwrap(), true).is_empty(), "{at} {fault:?}");
        *memory.faults.lock().unwrap() = [fault].into();
        wait(apply(&memory, &of(2), &options(), &Waits::default())).unwrap();
        assert!(plan(&of(2), &memory.state.lock().unwrap(), true).is_empty(), "{at} {fault:?}");
        *memory.faults.lock().unwrap() = [fault, Fault::None, fault].into();
        wait(destroy(&memory, MESH, None, &options(), &Waits::default())).unwrap();
        assert!(memory.state.lock().unwrap().databases.is_empty(), "{at} {fault:?}");
    }
}

#[test]
fn waits_grow_and_end() {
    let memory = Memory::default();
    *memory.faults.lock().unwrap() = vec![Fault::Throttled; 100].into();
    let waits = Waits::default();
    let retry = Retry { attempts: 5, base: Duration::from_millis(100), cap: Duration::from_millis(500) };
    let applied = wait(apply(&memory, &of(1), &ApplyOptions { retry, ..options() }, &waits)).unwrap();
    assert!(applied.done.is_empty());
    assert_eq!(applied.check().unwrap_err().code(), ErrorCode::WriteFailed);
    assert_eq!(*waits.0.lock().unwrap(), [100, 200, 400, 500].map(Duration::from_millis));
    assert_eq!(*memory.asked.lock().unwrap(), 5, "a target that does not answer is left alone");
    for random in [0.0, 0.3, 0.999] {
        assert!(retry.delay(40, random) <= retry.cap);
    }
}

#[test]
fn a_failure_in_the_middle_is_resumed() {
    let memory = Memory::default();
    *memory.faults.lock().unwrap() = [Fault::None, Fault::Failed].into();
    let applied = wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    assert_eq!((applied.done.len(), applied.failed.len()), (2, 1));
    assert_eq!(applied.failed[0].change.object(), "customer_customer_360_v2.customer_notes");
    let applied = wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    assert_eq!(
        applied.done.iter().map(Change::object).collect::<Vec<_>>(),
        ["customer_customer_360_v2.customer_notes"]
    );
    let memory = Memory::default();
    *memory.faults.lock().unwrap() = [Fault::Failed].into();
    let applied = wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    assert_eq!(*memory.asked.lock().unwrap(), 1, "tables of a database that was not made are not tried");
    assert!(applied.check().is_err());
}

#[test]
fn what_others_change_meanwhile_is_planned_anew() {
    let memory = Memory::default();
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    *memory.meanwhile.lock().unwrap() = Some(Box::new(|state| {
        let found = state.databases.get_mut(DATABASE).unwrap().tables.get_mut("customer_notes").unwrap();
        found.table.parameters.insert("numRows".into(), "9".into());
        found.version = Some("theirs".into());
    }));
    wait(apply(&memory, &of(2), &options(), &Waits::default())).unwrap();
    let state = memory.state.lock().unwrap();
    assert!(plan(&of(2), &state, true).is_empty());
    assert_eq!(state.databases[DATABASE].tables["customer_notes"].table.parameters["numRows"], "9");
}

#[test]
fn a_table_that_is_taken_over_meanwhile_is_left_alone() {
    let memory = Memory::default();
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    *memory.meanwhile.lock().unwrap() = Some(Box::new(|state| {
        let found = state.databases.get_mut(DATABASE).unwrap().tables.get_mut("customer_notes").unwrap();
        found.table.parameters.clear();
        found.version = Some("theirs".into());
    }));
    let error = wait(apply(&memory, &of(2), &options(), &Waits::default())).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PlanRefused);
    assert!(memory.state.lock().unwrap().databases[DATABASE].tables["customer_notes"].table.parameters.is_empty());
}

#[test]
fn pointers_move_on_and_never_back() {
    let memory = Memory::default();
    wait(apply(&memory, &of(5), &options(), &Waits::default())).unwrap();
    let pointer = |publication: u64| PointerChange {
        database: DATABASE.into(),
        table: TABLE.into(),
        metadata_location: format!("s3://lake/metadata/{publication}.json"),
        publication,
        sequence: publication,
    };
    let waits = Waits::default();
    let go = |pointers: &[PointerChange]| wait(sync(&memory, MESH, pointers, &options(), &waits)).unwrap();
    assert_eq!(go(&[pointer(4)]).current.len(), 1);
    *memory.faults.lock().unwrap() = [Fault::AnswerLost].into();
    assert_eq!(go(&[pointer(6), pointer(6), pointer(5)]).moved.len(), 1);
    let absent = PointerChange { table: "nowhere".into(), ..pointer(9) };
    assert_eq!(go(&[absent]).absent, ["customer_customer_360_v2.nowhere"]);
    let location = || {
        let state = memory.state.lock().unwrap();
        state.databases[DATABASE].tables[TABLE].table.parameters[catalog::METADATA_LOCATION].clone()
    };
    assert_eq!(location(), "s3://lake/metadata/6.json");
    // Somebody who read the registry before the sixth publication does not take it back.
    wait(apply(&memory, &of(5), &options(), &waits)).unwrap();
    assert_eq!(location(), "s3://lake/metadata/6.json");
    wait(apply(&memory, &of(7), &options(), &waits)).unwrap();
    assert!(location().contains("/7-x."));
}

#[test]
fn what_terraform_keeps_has_only_its_pointer_moved() {
    let memory = Memory::default();
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    {
        let mut state = memory.state.lock().unwrap();
        let database = state.databases.get_mut(DATABASE).unwrap();
        let by = || (catalog::MANAGED_BY.to_owned(), catalog::BY_TERRAFORM.to_owned());
        database.database.parameters.extend([by()]);
        for found in database.tables.values_mut() {
            found.table.parameters.extend([by()]);
            found.table.owner = Some("somebody".into());
        }
    }
    wait(apply(&memory, &of(2), &options(), &Waits::default())).unwrap();
    wait(destroy(&memory, MESH, None, &options(), &Waits::default())).unwrap();
    {
        let mut state = memory.state.lock().unwrap();
        let tables = &mut state.databases.get_mut(DATABASE).unwrap().tables;
        let table = &tables[TABLE].table;
        assert_eq!(table.owner.as_deref(), Some("somebody"));
        assert!(table.parameters[catalog::METADATA_LOCATION].contains("/2-x."));
        tables.remove("customer_notes");
    }
    // A table that Terraform has not made yet is not made behind its back.
    let plan = plan(&of(2), &memory.state.lock().unwrap(), true);
    assert_eq!((plan.changes.len(), &plan.missing[..]), (0, &[format!("{DATABASE}.customer_notes")][..]));
    assert!(!plan.is_empty(), "it differs");
    let mesh = Log::default();
    mesh.publish(3);
    let delivered = wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    assert_eq!((delivered.missing, delivered.made.len()), (plan.missing, 0));
    assert_eq!((delivered.moved, delivered.to), (vec![format!("{DATABASE}.{TABLE}")], 3));
}

#[test]
fn a_product_that_is_no_longer_wanted_goes_only_when_asked() {
    let mut retired = published(full(), 1);
    retired.revision.contract.status = Lifecycle::Retired;
    let memory = Memory::default();
    wait(apply(&memory, &of(1), &options(), &Waits::default())).unwrap();
    let wanted = desired(&[retired]);
    let kept = plan(&wanted, &memory.state.lock().unwrap(), false);
    assert!(kept.changes.is_empty() && kept.leftovers.len() == 3, "{kept:?}");
    wait(apply(&memory, &wanted, &ApplyOptions { prune: true, ..options() }, &Waits::default())).unwrap();
    assert!(memory.state.lock().unwrap().databases.is_empty());
}

#[test]
fn the_outbox_is_delivered_once_and_again_after_a_crash() {
    let (memory, mesh) = (Memory::default(), Log::default());
    let go = || wait(mesh.follow(&memory, options(), &Waits::default()));
    mesh.publish(3);
    let first = go().unwrap();
    assert_eq!((first.from, first.to, first.made.len()), (0, 3, 3));
    let again = go().unwrap();
    assert_eq!((again.from, again.to, again.moved.len()), (3, 3, 0));
    mesh.publish(4);
    let second = go().unwrap();
    assert_eq!((second.moved.len(), second.to), (2, 4));
    // A crash between the work and the place: the place is behind.
    mesh.publish(5);
    mesh.lose_next_place();
    go().unwrap_err();
    let repeated = go().unwrap();
    assert_eq!((repeated.from, repeated.moved.len(), repeated.current.len(), repeated.to), (4, 0, 2, 5));
    // A target that fails leaves the place where it was.
    mesh.publish(6);
    *memory.faults.lock().unwrap() = [Fault::None, Fault::Failed].into();
    go().unwrap_err();
    let resumed = go().unwrap();
    assert_eq!((resumed.from, resumed.to, resumed.moved.len(), resumed.current.len()), (5, 6, 1, 1));
    mesh.apply(7, |contract| contract.tables[0].description = Some("another".to_owned()));
    assert_eq!(go().unwrap().made.len(), 1);
    assert_eq!(*memory.described.lock().unwrap(), 0, "a catalog of thousands is not read for one table");
}

#[test]
fn of_two_who_follow_at_once_neither_takes_back_what_the_other_did() {
    let (memory, mesh) = (Memory::default(), Log::default());
    mesh.publish(1);
    wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    mesh.publish(2);
    let slow = mesh.at(2);
    mesh.publish(3);
    // The slow one has read entry 2; the quick one delivers 3 before the slow one writes.
    assert_eq!(wait(mesh.follow(&memory, options(), &Waits::default())).unwrap().to, 3);
    let late = wait(slow.follow(&memory, options(), &Waits::default())).unwrap();
    assert_eq!((late.moved.len(), late.current.len()), (0, 2));
    let state = memory.state.lock().unwrap();
    for found in state.databases[DATABASE].tables.values() {
        assert!(found.table.parameters[catalog::METADATA_LOCATION].contains("/3-x."));
        assert_eq!(found.table.parameters[catalog::SEQUENCE], "3");
    }
}

#[test]
fn a_move_without_a_publication_is_followed_and_not_taken_back() {
    let (memory, mesh) = (Memory::default(), Log::default());
    mesh.publish(1);
    wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    let before = mesh.products();
    mesh.maintain(2);
    assert_eq!(wait(mesh.follow(&memory, options(), &Waits::default())).unwrap().moved.len(), 2);
    let location = || {
        let state = memory.state.lock().unwrap();
        state.databases[DATABASE].tables[TABLE].table.parameters[catalog::METADATA_LOCATION].clone()
    };
    assert!(location().ends_with("/2-maintained.metadata.json"));
    // Who read the registry before the maintenance has the same publication, and an earlier entry.
    wait(apply(&memory, &desired(&before), &options(), &Waits::default())).unwrap();
    assert!(location().ends_with("/2-maintained.metadata.json"));
}

#[test]
fn a_changed_product_changes_its_tables_once_it_is_there() {
    let (memory, mesh) = (Memory::default(), Log::default());
    mesh.apply(1, |_| {});
    let waiting = wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    assert_eq!((waiting.to, waiting.made.len()), (1, 0), "it never published");
    mesh.publish(2);
    wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    mesh.apply(3, |contract| contract.tables[0].description = Some("another".to_owned()));
    let delivered = wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    assert!(matches!(&delivered.made[..], [Change::UpdateTable { .. }]), "{delivered:?}");
    let state = memory.state.lock().unwrap();
    let changed =
        state.databases[DATABASE].tables.values().filter(|t| t.table.description.as_deref() == Some("another"));
    assert_eq!(changed.count(), 1);
}

#[test]
fn a_name_that_was_left_is_cleared_once_the_new_one_is_there() {
    let (target, log) = (Memory::default(), Log::default());
    let follow = |log: &Log| wait(log.follow(&target, options(), &Waits::default()));
    let names = || target.state.lock().unwrap().databases.keys().cloned().collect::<Vec<_>>();
    log.publish(1);
    follow(&log).unwrap();
    let [old] = names().try_into().unwrap();
    // Somebody has the new name: what stands under the old one is needed until it is free.
    log.rename(2, "renamed");
    let [new] = Vec::from_iter(desired(&log.products()).databases.into_keys()).try_into().unwrap();
    let mut theirs = target.state.lock().unwrap().databases[&old].clone();
    theirs.database.name = new.clone();
    theirs.database.parameters.clear();
    theirs.tables.clear();
    target.state.lock().unwrap().databases.insert(new.clone(), theirs);
    let error = follow(&log).unwrap_err();
    assert_eq!((error.code(), log.place()), (ErrorCode::PlanRefused, 1));
    assert_eq!(names().len(), 2, "both are there");
    target.state.lock().unwrap().databases.remove(&new);
    // It dies before its place is kept; the next run finds nothing more to do.
    log.lose_next_place();
    follow(&log).unwrap_err();
    assert_eq!(names(), std::slice::from_ref(&new));
    let again = follow(&log).unwrap();
    assert_eq!((again.removed, again.made, log.place()), (vec![], vec![], 2));
    let state = target.state.lock().unwrap().clone();
    assert!(plan(&desired(&log.products()), &state, true).is_empty());
}

#[test]
fn what_is_in_the_way_stops_nobody_else() {
    let (memory, mesh) = (Memory::default(), Log::default());
    mesh.publish(1);
    wait(mesh.follow(&memory, options(), &Waits::default())).unwrap();
    {
        let mut state = memory.state.lock().unwrap();
        let tables = &mut state.databases.get_mut(DATABASE).unwrap().tables;
        tables.get_mut("customer_notes").unwrap().table.parameters.remove(catalog::MESH);
    }
    mesh.publish(2);
    let error = wait(mesh.follow(&memory, options(), &Waits::default())).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PlanRefused);
    assert!(error.to_string().contains("customer_notes"), "{error}");
    let location = |table: &str| {
        let state = memory.state.lock().unwrap();
        state.databases[DATABASE].tables[table].table.parameters[catalog::METADATA_LOCATION].clone()
    };
    assert!(location("customer_notes").contains("/1-x."), "it is not ours any more");
    assert!(location(TABLE).contains("/2-x."));
    assert_eq!(mesh.place(), 1, "what is in the way is told until it is gone");
}

#[test]
fn a_folder_is_a_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalTarget::new(folder.path().join("catalog"));
    let waits = Waits::default();
    let applied = wait(apply(&local, &of(1), &options(), &waits)).unwrap();
    assert_eq!((applied.done.len(), applied.failed.len()), (3, 0));
    let file = folder.path().join("catalog").join(DATABASE).join("customer_profile.table.json");
    let text = std::fs::read_to_string(&file).unwrap();
    insta::assert_snapshot!(text);
    assert!(wait(apply(&local, &of(1), &options(), &waits)).unwrap().done.is_empty());
    std::fs::write(&file, text.replace("\"owner\": \"profile-team\"", "\"owner\": \"me\"")).unwrap();
    let state = wait(describe(&local, &of(1), Retry::default(), &waits)).unwrap();
    assert_eq!(plan(&of(1), &state, true).changes.len(), 1);
    // The update names the text that it was made for.
    let Change::UpdateTable { database, table, differences, .. } = plan(&of(1), &state, true).changes.remove(0) else {
        panic!("it is an update");
    };
    let stale = Change::UpdateTable { database, table, expected: Some(text), differences };
    assert!(matches!(wait(local.execute(&stale)), Err(datamesh_provision::provision::TargetError::Conflict)));
    wait(apply(&local, &of(2), &options(), &waits)).unwrap();
    std::fs::write(folder.path().join("catalog").join(DATABASE).join("README"), "mine").unwrap();
    wait(destroy(&local, MESH, None, &options(), &waits)).unwrap();
    assert!(!file.exists());
    assert!(folder.path().join("catalog").join(DATABASE).join("README").exists());
    std::fs::write(folder.path().join("catalog").join(DATABASE).join("database.json"), "{\"format\": 9}").unwrap();
    assert!(wait(apply(&local, &of(1), &options(), &waits)).unwrap_err().help().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_applied_is_as_wanted(
        products in proptest::collection::btree_map("[a-z]{1,6}", (contracts(), 1_u64..5), 0..3),
        faults in proptest::collection::vec(0..6_u8, 0..24),
        only_some in any::<bool>(),
    ) {
        let products: Vec<CatalogProduct> = products
            .into_iter()
            .map(|(name, (mut contract, publication))| {
                contract.id.domain = datamesh_core::Name::new(&format!("d{name}")).unwrap();
                published(contract, publication)
            })
            .collect();
        let wanted = desired(&products);
        let memory = Memory::default();
        *memory.state.lock().unwrap() = foreign();
        let others = foreign();
        let fault = |number: u8| match number {
            0 => Fault::Throttled,
            1 => Fault::AnswerLost,
            2 => Fault::RequestLost,
            _ => Fault::None,
        };
        *memory.faults.lock().unwrap() = faults.into_iter().map(fault).collect();
        let patient = ApplyOptions { retry: Retry { attempts: 30, ..Retry::default() }, ..options() };
        let applied = wait(apply(&memory, &wanted, &patient, &Waits::default())).unwrap();
        prop_assert!(applied.failed.is_empty());
        let state = memory.state.lock().unwrap().clone();
        prop_assert!(plan(&wanted, &state, false).changes.is_empty());
        for (name, database) in &others.databases {
            prop_assert_eq!(state.databases.get(name), Some(database));
        }
        // What was asked for goes, and only that.
        let some: BTreeSet<String> = wanted.databases.keys().take(1).cloned().collect();
        let gone = wait(destroy(&memory, MESH, only_some.then_some(&some), &patient, &Waits::default())).unwrap();
        prop_assert!(gone.failed.is_empty());
        let state = memory.state.lock().unwrap();
        for (name, database) in &others.databases {
            prop_assert_eq!(state.databases.get(name), Some(database));
        }
        let left = wanted.databases.keys().filter(|name| state.databases.contains_key(*name)).count();
        prop_assert_eq!(left, if only_some { wanted.databases.len() - some.len() } else { 0 });
    }
}
