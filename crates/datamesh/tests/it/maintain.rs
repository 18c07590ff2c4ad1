//! `datamesh maintain`: the same rows with fewer files, fewer snapshots, and nothing lost beside those who read and write.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use datamesh_core::ports::PublishStep;
use serde_json::Value;

use crate::faults::check_told;
use crate::support::{TestMesh, finish, start};

const PRODUCT: &str = "shop/sales";

fn mesh(sla: &str) -> TestMesh {
    TestMesh::new().with_product(
        PRODUCT,
        &format!(
            "dataProduct:\n  name: sales\n  version: 1.0.0\n  owner: shop-team\n{sla}  schema:\n    - name: orders\n      sortBy: [id]\n      partitionBy: [shop]\n      quarantine: 100%\n      columns:\n        - {{name: id, type: int, primaryKey: true}}\n        - {{name: shop, type: string, required: true}}\n"
        ),
    )
}

fn publish(mesh: &TestMesh, ids: &[i64]) {
    let rows: String = ids.iter().map(|id| format!("{id},{}\n", if id % 2 == 0 { "even" } else { "odd" })).collect();
    let name = format!("data/{}.csv", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join("-"));
    mesh.write(&name, format!("id,shop\n{rows}"));
    mesh.run(&["publish", PRODUCT, &format!("orders={name}"), "--format", "json"]).expect_code(0);
}

fn maintain(mesh: &TestMesh, arguments: &[&str]) -> Value {
    mesh.run(&[&["maintain", "--format", "json"], arguments].concat()).expect_code(0).json()
}

fn ids(mesh: &TestMesh) -> Vec<i64> {
    let rows = mesh.query("SELECT id FROM shop.sales.orders ORDER BY id");
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

fn data_files(mesh: &TestMesh) -> usize {
    mesh.warehouse().keys().filter(|path| path.contains("/data/")).count()
}

fn snapshots(mesh: &TestMesh) -> usize {
    let document = mesh.registry("SELECT metadata FROM tables")[0][0].as_str().unwrap().to_owned();
    let metadata: Value = serde_json::from_str(&document).unwrap();
    metadata["snapshots"].as_array().unwrap().len()
}

/// Small files become one a partition, sorted; what they were stays until it is unreferenced and old enough.
#[test]
fn small_files_are_merged_and_rows_stay() {
    let mesh = mesh("");
    for ids in [&[5, 6][..], &[3, 4], &[1, 2]] {
        publish(&mesh, ids);
    }
    assert_eq!(data_files(&mesh), 6);
    let planned = maintain(&mesh, &["--dry-run"]);
    assert_eq!((&planned["dryRun"], &planned["tables"][0]["compactedFiles"]), (&true.into(), &6.into()));
    assert_eq!((data_files(&mesh), snapshots(&mesh)), (6, 3), "a dry run changes nothing");

    let report = maintain(&mesh, &["--older-than", "0s"]);
    let table = &report["tables"][0];
    assert_eq!((&table["compactedFiles"], &table["intoFiles"]), (&6.into(), &2.into()), "{report}");
    assert_eq!(ids(&mesh), [1, 2, 3, 4, 5, 6]);
    assert_eq!(data_files(&mesh), 8, "earlier snapshots still need the small files");
    let order = mesh.query("SELECT id FROM shop.sales.orders WHERE shop = 'odd'");
    assert_eq!(order.iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(maintain(&mesh, &[])["tables"], Value::Array(Vec::new()), "there is nothing left to do");

    publish(&mesh, &[7, 8]);
    assert_eq!(ids(&mesh), [1, 2, 3, 4, 5, 6, 7, 8]);
    let earlier = mesh.query("SELECT count(*) AS n FROM shop.sales.orders FOR VERSION AS OF 2");
    assert_eq!(earlier[0]["n"], 4, "the past is still there");
}

/// Files are merged up to the target size, and what is nearly as large stays as it is.
#[test]
fn files_are_merged_up_to_the_target_size() {
    const MIB: u64 = 1 << 20;
    let mesh = mesh("");
    // Numbers far apart, which do not compress; a factor that is odd gives no number twice.
    let publish = |from: u64, rows: u64| {
        let rows: String = (from..from + rows).map(|id| format!("{},odd\n", id * 2_654_435_761 % (1 << 31))).collect();
        mesh.write("data/many.csv", format!("id,shop\n{rows}"));
        mesh.run(&["publish", PRODUCT, "orders=data/many.csv"]).expect_code(0);
    };
    let data = |known: &[&BTreeMap<String, u64>]| -> BTreeMap<String, u64> {
        let is_new = |path: &String| known.iter().all(|files| !files.contains_key(path));
        mesh.warehouse().into_iter().filter(|(path, _)| path.contains("/data/") && is_new(path)).collect()
    };
    publish(0, 600_000);
    let large = data(&[]);
    assert!(large.values().all(|bytes| *bytes > MIB * 3 / 4), "{large:?}");
    for from in 0..4 {
        publish(600_000 + from * 100_000, 100_000);
    }
    let small = data(&[&large]);
    assert!(small.len() >= 4 && small.values().all(|bytes| *bytes < MIB * 3 / 4), "{small:?}");
    for arguments in [&["--target-size", "1", "--dry-run"][..], &["--target-size", "1"]] {
        let report = maintain(&mesh, arguments);
        assert_eq!(report["tables"][0]["compactedFiles"], small.len(), "{report}");
    }
    let merged = data(&[&large, &small]);
    let least = small.values().sum::<u64>().div_ceil(MIB) as usize;
    assert!((least..small.len()).contains(&merged.len()) && merged.len() > 1, "{small:?} {merged:?}");
    assert!(merged.values().all(|bytes| *bytes < MIB * 5 / 4), "{merged:?}");
    assert_eq!(mesh.query("SELECT count(DISTINCT id) AS n FROM shop.sales.orders")[0]["n"], 1_000_000);
    // Without a target of its own all fit one file.
    assert_eq!(maintain(&mesh, &[])["tables"][0]["intoFiles"], 1);
}

/// Snapshots older than the retention go; their files are deleted once they have been unreferenced for long enough.
#[test]
fn snapshots_expire_by_the_contract_and_their_files_later() {
    let mesh = mesh("  sla: {retention: 0s}\n");
    for ids in [&[1][..], &[3], &[5]] {
        publish(&mesh, ids);
    }
    let report = maintain(&mesh, &[]);
    let table = &report["tables"][0];
    assert_eq!(
        (&table["compactedFiles"], &table["intoFiles"], &table["expiredSnapshots"]),
        (&3.into(), &1.into(), &3.into())
    );
    assert_eq!((snapshots(&mesh), data_files(&mesh)), (1, 4), "nobody's files are taken from under a query");
    assert!(report["waitingFiles"].as_u64().unwrap() >= 3, "{report}");
    assert_eq!(maintain(&mesh, &[])["deletedFiles"], 0);
    assert!(maintain(&mesh, &["--older-than", "0s"])["deletedFiles"].as_u64().unwrap() >= 3);
    assert_eq!((data_files(&mesh), ids(&mesh)), (1, vec![1, 3, 5]));
    for earlier in ["1", "2"] {
        let sql = format!("SELECT * FROM shop.sales.orders FOR VERSION AS OF {earlier}");
        let gone = mesh.run(&["query", &sql]).expect_code(6);
        assert!(gone.stderr.contains("name a later publication"), "{gone}");
    }
    check_newest(&mesh, &[1, 3, 5]);
    let refused = mesh.run(&["rollback", PRODUCT, "--to", "1"]);
    assert_ne!(refused.code(), Some(0), "what has expired cannot come back");
    assert_eq!(ids(&mesh), [1, 3, 5]);
    assert!(mesh.registry("SELECT path FROM unreferenced_files").is_empty());
}

/// The newest publication, its number and times from then on show what it published.
#[track_caller]
fn check_newest(mesh: &TestMesh, wanted: &[i64]) {
    let found = |arguments: &[&str]| -> Vec<i64> {
        let rows = mesh.run(&[&["query", "--format", "json"], arguments].concat()).expect_code(0).json();
        rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    for version in ["FOR VERSION AS OF 3", "FOR TIMESTAMP AS OF now()", "FOR TIMESTAMP AS OF '2099-01-01'"] {
        assert_eq!(found(&[&format!("SELECT id FROM shop.sales.orders {version} ORDER BY id")]), wanted, "{version}");
    }
    for as_of in ["3", "2099-01-01"] {
        let sql = "SELECT id FROM shop.sales.orders ORDER BY id";
        assert_eq!(found(&["--as-of", as_of, sql]), wanted, "as of {as_of}");
    }
}

/// Rows that were merged into other files are still those of their publication, which can be read and gone back to.
#[test]
fn what_was_merged_is_still_a_version() {
    let mesh = mesh("  sla: {retention: 0s}\n");
    for ids in [&[1][..], &[3], &[5]] {
        publish(&mesh, ids);
    }
    maintain(&mesh, &[]);
    publish(&mesh, &[7]);
    let then = "SELECT id FROM shop.sales.orders FOR VERSION AS OF 3 ORDER BY id";
    let ids_then = || mesh.query(then).iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids_then(), [1, 3, 5]);
    let at = mesh.registry("SELECT at FROM publications WHERE number = 4")[0][0].as_str().unwrap().to_owned();
    let before = format!(
        "SELECT count(*) AS n FROM shop.sales.orders FOR TIMESTAMP AS OF TIMESTAMP '{at}' - INTERVAL '1 microsecond'"
    );
    assert_eq!(mesh.query(&before)[0]["n"], 3, "maintenance was before");
    mesh.run(&["rollback", PRODUCT, "--to", "3"]).expect_code(0);
    assert_eq!(ids(&mesh), [1, 3, 5]);
    maintain(&mesh, &[]);
    assert_eq!((ids(&mesh), mesh.run(&["query", then]).code()), (vec![1, 3, 5], Some(6)), "nothing keeps version 3");
}

/// A file that nobody knows of is deleted when it is old enough, and one that is referenced never.
#[test]
fn strays_are_deleted_by_age() {
    let mesh = mesh("");
    publish(&mesh, &[1, 2]);
    let stray = "warehouse/shop/sales_v1/orders/data/stray/part-00000.parquet";
    mesh.write(stray, b"nobody's");
    assert_eq!(maintain(&mesh, &[])["deletedFiles"], 0);
    assert_eq!(maintain(&mesh, &["--older-than", "0s", "--no-delete"])["deletedFiles"], 0);
    assert_eq!(maintain(&mesh, &["--older-than", "0s"])["deletedFiles"], 1);
    assert!(!mesh.path(stray).exists());
    assert_eq!(ids(&mesh), [1, 2]);
}

/// Killed at any step, maintenance has happened or has not; the next one cleans up and finishes.
#[test]
fn a_crash_at_any_step_loses_nothing() {
    for step in PublishStep::ALL {
        let mesh = mesh("  sla: {retention: 0s}\n");
        publish(&mesh, &[1, 2]);
        publish(&mesh, &[3, 4]);
        let mut command: Command = mesh.command(&["maintain", "--format", "json"]);
        command.env("DATAMESH_FAULT", format!("kill:{step}"));
        let _ = finish(command);
        assert_eq!(ids(&mesh), [1, 2, 3, 4], "killed at {step}");
        check_told(&mesh);
        mesh.registry("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'");
        maintain(&mesh, &["--older-than", "0s"]);
        maintain(&mesh, &["--older-than", "0s"]);
        assert_eq!((ids(&mesh), data_files(&mesh), snapshots(&mesh)), (vec![1, 2, 3, 4], 2, 1), "after {step}");
        assert!(mesh.registry("SELECT attempt FROM leases").is_empty());
    }
}

/// A publish that is under way while files are merged under it still publishes, and loses no row.
#[test]
fn a_publish_survives_maintenance_beside_it() {
    let mesh = mesh("");
    publish(&mesh, &[1, 2]);
    publish(&mesh, &[3, 4]);
    mesh.write("data/late.csv", "id,shop\n5,odd\n3,odd\n");
    let held = mesh.path("held");
    let mut command = mesh.command(&["publish", PRODUCT, "orders=data/late.csv", "--format", "json"]);
    command.env("DATAMESH_FAULT", format!("hold:judged:{}", held.display()));
    let mut running = start(command);
    running.until("the publish is judged", || held.exists());
    assert_eq!(maintain(&mesh, &["--older-than", "0s"])["tables"][0]["compactedFiles"], 4);
    std::fs::remove_file(&held).unwrap();
    let report = running.wait().expect_code(0).json();
    assert_eq!(ids(&mesh), [1, 2, 3, 4, 5]);
    assert_eq!(report["tables"][0]["quarantined"], 1, "the doubled key is found in the merged file: {report}");
}

/// A query that has begun reads what it began with to its end, while files are merged and snapshots expire under it.
#[test]
fn a_reader_survives_maintenance_beside_it() {
    const ROWS: usize = 40_000;
    let mesh = mesh("  sla: {retention: 0s}\n");
    for start in [0, ROWS] {
        let rows: String = (start..start + ROWS).map(|id| format!("{id},odd\n")).collect();
        mesh.write("data/many.csv", format!("id,shop\n{rows}"));
        mesh.run(&["publish", PRODUCT, "orders=data/many.csv"]).expect_code(0);
    }
    let mut command = mesh.command(&["query", "--format", "csv", "SELECT id, shop FROM shop.sales.orders"]);
    let mut reader = command.stdout(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds: it waits for this test to read on.
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "id,shop");
    let report = maintain(&mesh, &[]);
    let table = &report["tables"][0];
    // As many files a publication as there are cores, at most.
    assert!(table["compactedFiles"].as_u64() >= Some(2), "{report}");
    assert_eq!(table["expiredSnapshots"], 2, "{report}");
    assert!(reader.try_wait().unwrap().is_none(), "it still reads");
    let mut ids: Vec<usize> = lines.map(|line| line.unwrap().split(',').next().unwrap().parse().unwrap()).collect();
    assert!(reader.wait().unwrap().success());
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..2 * ROWS));
}

/// The metadata document names the hundred before it, and those are kept; the ones before these go.
#[test]
fn the_metadata_log_stays_at_a_hundred() {
    let mesh = mesh("");
    for id in 0..103 {
        let rows = format!("id,shop\n{id},odd\n");
        mesh.run_with_input(&["publish", PRODUCT, "orders=-"], rows).expect_code(0);
    }
    let log = || -> Vec<PathBuf> {
        let document = mesh.registry("SELECT metadata FROM tables")[0][0].as_str().unwrap().to_owned();
        let metadata: Value = serde_json::from_str(&document).unwrap();
        let named = metadata["metadata-log"].as_array().unwrap().iter();
        named.map(|entry| entry["metadata-file"].as_str().unwrap().trim_start_matches("file://").into()).collect()
    };
    let documents = || mesh.warehouse().into_keys().filter(|path| path.ends_with(".metadata.json")).count();
    assert_eq!((log().len(), documents()), (100, 103));
    maintain(&mesh, &["--older-than", "0s"]);
    maintain(&mesh, &["--older-than", "0s"]);
    assert_eq!((log().len(), documents()), (100, 101), "those it names, and itself");
    assert!(log().iter().all(|document| document.is_file()), "{:?}", log());
    assert_eq!(ids(&mesh), (0..103).collect::<Vec<_>>());
}

/// A table that cannot be looked after is told, with an exit code of failure, and stays as it is.
#[test]
fn a_failure_is_no_success() {
    let mesh = mesh("");
    publish(&mesh, &[1]);
    publish(&mesh, &[3]);
    let before = mesh.warehouse();
    let broken = before.keys().find(|path| path.contains("/data/")).unwrap();
    std::fs::write(mesh.path(broken), b"not Parquet").unwrap();
    let report = mesh.run(&["maintain", "--format", "json"]).expect_code(8).json();
    let table = &report["tables"][0];
    assert_eq!((&table["failed"], &table["compactedFiles"]), (&true.into(), &0.into()), "{report}");
    assert!(table["skipped"].as_str().unwrap().contains("cannot"), "{report}");
    assert_eq!(mesh.warehouse().into_keys().collect::<Vec<_>>(), before.into_keys().collect::<Vec<_>>());
    assert!(mesh.registry("SELECT attempt FROM leases").is_empty());
}

/// The same with the warehouse on an object store.
mod on_s3 {
    use crate::support::on_object_store;

    #[test]
    fn small_files_are_merged_and_rows_stay() {
        on_object_store(super::small_files_are_merged_and_rows_stay);
    }

    #[test]
    fn snapshots_expire_by_the_contract_and_their_files_later() {
        on_object_store(super::snapshots_expire_by_the_contract_and_their_files_later);
    }

    #[test]
    fn a_crash_at_any_step_loses_nothing() {
        on_object_store(super::a_crash_at_any_step_loses_nothing);
    }

    #[test]
    fn a_publish_survives_maintenance_beside_it() {
        on_object_store(super::a_publish_survives_maintenance_beside_it);
    }
}

/// The same with the registry in PostgreSQL.
mod on_postgres {
    use crate::support::on_postgres;

    #[test]
    fn a_crash_at_any_step_loses_nothing() {
        on_postgres(super::a_crash_at_any_step_loses_nothing);
    }

    #[test]
    fn a_publish_survives_maintenance_beside_it() {
        on_postgres(super::a_publish_survives_maintenance_beside_it);
    }
}
