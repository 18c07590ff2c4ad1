//! Which registry a mesh has, and a mesh that has it in PostgreSQL.

use std::net::TcpListener;
use std::process::Command;

use crate::postgres::{SECRET, postgres};
use crate::support::{Outcome, TestMesh, finish, on_postgres, start};

const PRODUCT: &str = "shop/sales";

fn manifest(name: &str) -> String {
    format!(
        "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: shop-team\n  schema:\n    - name: orders\n      write: replace\n      quarantine: 50%\n      \
         columns: [{{name: id, type: int, primaryKey: true}}, {{name: amount, type: int, minimum: 0}}]\n"
    )
}

fn mesh() -> TestMesh {
    TestMesh::new().with_product(PRODUCT, &manifest("sales"))
}

fn publish(mesh: &TestMesh, product: &str, rows: &str) -> Command {
    let name = format!("{}-{}.csv", product.replace('/', "-"), rows.len());
    mesh.write(&name, format!("id,amount\n{rows}"));
    mesh.command(&["publish", product, &format!("orders={name}"), "--format", "json"])
}

/// No output shows the registry's password.
#[track_caller]
fn shows_no_secret(outcome: Outcome) -> Outcome {
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains(SECRET), "{outcome}");
    outcome
}

/// Every command that reads or writes the registry, from one folder and from a copy of it.
#[test]
fn a_mesh_lives_in_postgres() {
    on_postgres(|| {
        let mesh = mesh();
        let run = |arguments: &[&str]| shows_no_secret(mesh.run(arguments)).expect_code(0);
        run(&["check"]);
        // Checking makes nothing.
        let url = mesh.registry_url().unwrap().to_owned();
        let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned();
        let schemas = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
        let count_schemas = || postgres().unwrap().sql("", &schemas);
        assert_eq!(count_schemas(), ["0"]);
        for (rows, code) in [("1,1\n2,2\n3,-3\n", 0), ("4,4\n", 0), ("5,-5\n", 3)] {
            shows_no_secret(finish(publish(&mesh, PRODUCT, rows))).expect_code(code);
        }
        assert_eq!(count_schemas(), ["1"]);
        assert!(!mesh.path(".datamesh/registry.db").exists());
        let publications = mesh.publications(PRODUCT);
        let numbers: Vec<_> = publications.iter().map(|publication| publication["number"].as_i64().unwrap()).collect();
        assert_eq!(numbers, [3, 2, 1]);
        assert_eq!(mesh.count("shop.sales.orders"), 1, "a publish replaces");
        assert!(run(&["quarantine", PRODUCT, "--publication", "1"]).stdout.contains("minimum"));
        run(&["lineage", "shop/sales"]);
        run(&["rollback", PRODUCT, "--to", "1"]);
        assert_eq!(mesh.count("shop.sales.orders"), 2);
        let then = run(&["query", "--format", "json", "--as-of", "2", "SELECT id FROM shop.sales.orders"]).json();
        assert_eq!(then[0]["id"], 4);
        run(&["maintain", "--older-than", "0s"]);
        assert_eq!(mesh.count("shop.sales.orders"), 2);

        // Somebody else's folder with the same registry and warehouse is the same mesh.
        let elsewhere = tempfile::tempdir().unwrap();
        let warehouse = mesh.path("warehouse").display().to_string();
        std::fs::write(elsewhere.path().join("mesh.yaml"), format!("name: test\nwarehouse: {warehouse}\n")).unwrap();
        let mut command = mesh.command(&["query", "--format", "json", "SELECT count(*) AS n FROM shop.sales.orders"]);
        command.current_dir(elsewhere.path()).env("DATAMESH_REGISTRY", &url);
        assert_eq!(shows_no_secret(finish(command)).expect_code(0).json()[0]["n"], 2);
        assert!(!elsewhere.path().join(".datamesh/registry.db").exists());
    });
}

/// Processes that publish different products at once all commit, under numbers without a gap.
#[test]
fn processes_publish_at_once() {
    const PROCESSES: usize = 6;
    on_postgres(|| {
        let mut mesh = mesh();
        for at in 0..PROCESSES {
            mesh = mesh.with_product(&format!("shop/p{at}"), &manifest(&format!("p{at}")));
        }
        let publish = |at: usize| start(publish(&mesh, &format!("shop/p{at}"), "1,1\n"));
        let running: Vec<_> = (0..PROCESSES).map(publish).collect();
        let report = |outcome: Outcome| outcome.expect_code(0).json()["publication"].as_i64().unwrap();
        let mut numbers: Vec<i64> = running.into_iter().map(|running| report(running.wait())).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=PROCESSES as i64).collect::<Vec<_>>());
    });
}

#[test]
fn the_environment_says_where_the_registry_is() {
    let mesh = mesh();
    mesh.write("mesh.yaml", "name: test\nregistry: state/told.db\n");
    finish(publish(&mesh, PRODUCT, "1,1\n")).expect_code(0);
    assert!(mesh.path("state/told.db").is_file() && !mesh.path(".datamesh/registry.db").exists());
    let mut elsewhere = mesh.command(&["publications", PRODUCT, "--format", "json"]);
    elsewhere.current_dir(mesh.path("domains")).env("DATAMESH_REGISTRY", "other.db");
    assert_eq!(finish(elsewhere).expect_code(0).json(), serde_json::json!([]));
    // A path in the environment is relative to where the command runs.
    assert!(mesh.path("domains/other.db").is_file());
}

#[test]
fn a_registry_that_cannot_be_used_is_told() {
    let mesh = mesh();
    let check = |registry: &str, told: &[&str]| {
        mesh.write("mesh.yaml", format!("name: test\nregistry: {registry}\n"));
        let outcome = shows_no_secret(mesh.run(&["check"])).expect_code(4);
        for text in told {
            assert!(outcome.stdout.contains(text) || outcome.stderr.contains(text), "no `{text}` in: {outcome}");
        }
    };
    check("mysql://db/mesh", &["invalid-registry", "a registry cannot be kept at `mysql://`"]);
    check("${env:}", &["invalid-reference"]);
    mesh.write("mesh.yaml", "name: test\nregistry: postgres://anna:hunter2@db/mesh\n");
    let outcome = mesh.run(&["publications", PRODUCT]).expect_code(4);
    assert!(outcome.stderr.contains("a password must not stand in a manifest"), "{outcome}");

    let run = |url: &str, code: i32, told: &[&str]| {
        mesh.write("mesh.yaml", "name: test\nregistry: ${env:MESH_REGISTRY}\n");
        let mut command = mesh.command(&["publications", PRODUCT]);
        if !url.is_empty() {
            command.env("MESH_REGISTRY", url);
        }
        let outcome = shows_no_secret(finish(command)).expect_code(code);
        for text in told {
            assert!(outcome.stderr.contains(text), "no `{text}` in: {outcome}");
        }
    };
    run("", 10, &["the registry's place is not known", "set MESH_REGISTRY where datamesh runs"]);
    run("mysql://anna:s3cret@db/mesh", 2, &["the registry's URL is not one of PostgreSQL"]);
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("postgres://anna:s3cret@127.0.0.1:{free}/mesh");
    run(&url, 10, &[&format!("cannot open the registry `127.0.0.1:{free}/mesh`"), "check host and port"]);
    assert!(!mesh.path(".datamesh").exists(), "nothing is made where nothing is known");
}
