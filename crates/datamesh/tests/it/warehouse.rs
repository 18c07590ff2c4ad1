//! Where tables are kept: a folder or an object store, by configuration alone.

use std::process::Command;

use crate::servers::{BUCKET, s3};
use crate::support::{Outcome, TestMesh, finish, on_object_store};

const ID: &str = "sales/orders";

fn mesh() -> TestMesh {
    TestMesh::new().with_product(
        ID,
        "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: orders\n      quarantine: 50%\n      \
         columns: [{name: id, type: long, primaryKey: true}, {name: name, type: string}]\n",
    )
}

fn csv(ids: impl Iterator<Item = i64>, name: impl Fn(i64) -> String) -> String {
    std::iter::once("id,name\n".to_owned()).chain(ids.map(|id| format!("{id},{}\n", name(id)))).collect()
}

fn publish(mesh: &TestMesh, text: &str) -> Command {
    mesh.write("rows.csv", text);
    mesh.command(&["publish", ID, "orders=rows.csv", "--format", "json"])
}

#[track_caller]
fn failed(outcome: Outcome, code: i32, says: &[&str]) {
    let outcome = outcome.expect_code(code);
    for text in says.iter().chain(&["help: "]) {
        assert!(outcome.stderr.contains(text), "no `{text}` in: {outcome}");
    }
}

/// Text that hardly compresses.
fn noise(id: i64) -> String {
    let mut state = id as u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!("{:016x}", mixed ^ (mixed >> 27))
    };
    (0..40).map(|_| next()).collect()
}

/// Files larger than one part go up in several, doubled keys are found in what is read back, and both tables agree.
#[test]
fn large_files_are_kept_on_an_object_store() {
    on_object_store(|| {
        let mesh = mesh();
        let ids = (1..=120_000).chain([7, 119_999]);
        let report = finish(publish(&mesh, &csv(ids, noise))).expect_code(0).json();
        let table = &report["tables"][0];
        assert_eq!(
            (table["published"].as_i64(), table["quarantined"].as_i64()),
            (Some(119_998), Some(4)),
            "{report:#}"
        );
        let largest = mesh.warehouse().into_values().max().unwrap();
        assert!(largest > 16 << 20, "{largest} bytes are not in several parts");
        assert_eq!(mesh.number("SELECT sum(id) AS n FROM sales.orders.orders"), 120_000 * 120_001 / 2 - 7 - 119_999);
        let rows = mesh.run(&["quarantine", ID, "--format", "json"]).expect_code(0).json();
        assert_eq!(rows.as_array().unwrap().len(), 4, "{rows}");
        assert!(
            !mesh.files("").keys().any(|path| path.contains("warehouse") || path.contains("scratch/")),
            "{:?}",
            mesh.files("")
        );
    });
}

#[test]
fn an_object_store_that_cannot_be_written_is_explained() {
    let Some(server) = s3() else { return };
    let mesh = mesh();
    let try_at = |warehouse: &str, more: &[(&str, &str)]| {
        let mut command = publish(&mesh, "id,name\n1,a\n");
        command.env("DATAMESH_WAREHOUSE", warehouse).env("DATAMESH_TIMEOUT", "2");
        command.envs(server.environment()).envs(more.iter().copied());
        finish(command)
    };
    failed(try_at("s3://no-such-bucket/a", &[]), 8, &["no such bucket"]);
    failed(try_at("s3://bucket/a", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]), 8, &["AWS_ENDPOINT_URL"]);
    failed(try_at("https://example.org/a", &[]), 2, &["https://example.org/a", "DATAMESH_WAREHOUSE"]);
    failed(try_at("s3://me:sesame@bucket/a", &[]), 2, &["user or a password"]);
    failed(try_at(&format!("s3://{BUCKET}/a%20b"), &[]), 2, &["`%`"]);
    assert_eq!(mesh.publications(ID).len(), 0);
    // What could not be written does not stand in the way later.
    try_at(&format!("s3://{BUCKET}/later"), &[]).expect_code(0);
}

/// References in `mesh.yaml` are looked up; the variable that stands for the whole place is meant as it stands.
#[test]
fn the_warehouse_may_be_a_reference() {
    let mesh = mesh();
    mesh.write("mesh.yaml", "name: test\nwarehouse: \"${env:TABLES}/${file:/dev/null}kept\"\n");
    let at = |folder: Option<&str>, text: &str| {
        let mut command = publish(&mesh, text);
        if let Some(folder) = folder {
            command.env("TABLES", folder);
        }
        finish(command)
    };
    failed(at(None, "id,name\n1,a\n"), 2, &["the warehouse's place is not known", "set TABLES"]);
    failed(at(Some("https://example.org"), "id,name\n1,a\n"), 2, &["tables cannot be kept at", "${env:TABLES}"]);
    assert!(!mesh.files("").keys().any(|path| path.ends_with(".parquet")), "{:?}", mesh.files(""));
    at(Some("tables"), "id,name\n1,a\n").expect_code(0);
    let files = mesh.files("");
    assert!(files.keys().any(|path| path.contains("tables/kept/")), "{files:?}");
    assert!(!files.keys().any(|path| path.contains("${")), "{files:?}");

    mesh.write("mesh.yaml", "name: test\nwarehouse: \"${file:/dev/null}\"\n");
    failed(finish(publish(&mesh, "id,name\n2,a\n")), 2, &["it is empty"]);
}

/// A table is not torn apart when the warehouse is moved: it is still read where it is, and not written elsewhere.
#[test]
fn a_table_outside_the_warehouse_is_read_but_not_written() {
    let mesh = mesh();
    finish(publish(&mesh, "id,name\n7,a\n8,b\n")).expect_code(0);
    finish(publish(&mesh, "id,name\n1,a\n")).expect_code(0);
    let before = mesh.warehouse();
    for told in ["elsewhere", "../elsewhere", "warehouse-2"] {
        mesh.write("mesh.yaml", format!("name: test\nwarehouse: {told}\n"));
        failed(finish(publish(&mesh, "id,name\n2,b\n")), 2, &["outside the warehouse", "orders"]);
        failed(mesh.run(&["rollback", ID, "--to", "1"]), 2, &["outside the warehouse", "orders"]);
        assert_eq!(mesh.count("sales.orders.orders"), 3);
    }
    for told in ["warehouse", "./warehouse/", "domains/../warehouse"] {
        mesh.write("mesh.yaml", format!("name: test\nwarehouse: {told}\n"));
        finish(publish(&mesh, &format!("id,name\n{},b\n", told.len()))).expect_code(0);
    }
    assert!(mesh.warehouse().keys().count() > before.len());
    mesh.write("mesh.yaml", "name: test\nwarehouse: ftp://host/a\n");
    failed(finish(publish(&mesh, "id,name\n3,c\n")), 4, &["ftp://"]);
    assert!(mesh.run(&["check"]).expect_code(4).stdout.contains("tables cannot be kept at `ftp://`"));
}

/// What takes the place of nothing is written through.
#[test]
fn answers_go_to_devices_too() {
    let mesh = mesh();
    finish(publish(&mesh, "id,name\n1,a\n")).expect_code(0);
    for format in ["csv", "json", "parquet"] {
        mesh.run(&["query", "SELECT * FROM sales.orders.orders", "--out", "/dev/null", "--format", format])
            .expect_code(0);
    }
    assert!(!std::path::Path::new("/dev/.null.part").exists());
}
