//! Governed meshes: access that is asked for, rows and columns that are held back, policies, and the evidence of it all.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Outcome, TestMesh};

const ID: &str = "customer/profiles";
const PROFILES: &str = "SELECT id, email, country FROM customer.profiles.profiles ORDER BY id";
const COUNT: &str = "SELECT count(*) AS n FROM customer.profiles.profiles";

const DENIED: i32 = 14;
const REFUSED: i32 = 16;
const CHANGED: i32 = 21;

const MESH: &str = r#"name: test
owner: platform
teams:
  - {name: platform, members: [{username: pia}]}
  - {name: stewards, members: [{username: steve}]}
  - {name: customer-team, members: [{username: carl}]}
  - {name: sales-team, members: [{username: sid}]}
separationOfDuties: names
attributes: {country: string}
roles: [{name: analyst}, {name: support}]
principals:
  - {user: alice, roles: [analyst], attributes: {country: DE}}
  - {user: quinn, roles: [analyst], attributes: {country: "D'E"}}
  - {user: sam, roles: [support], attributes: {country: US}}
  - {user: bob, attributes: {country: FR}}
"#;

const CONTRACT: &str = r#"dataProduct:
  name: profiles
  version: 1.0.0
  owner: customer-team
  access:
    - {role: analyst, rows: "country = principal.country", approvers: [stewards], expires: 30d}
    - {role: support, unmasked: [email], approvers: [stewards]}
  schema:
    - name: profiles
      quarantine: 100%
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: email, type: string, pii: true, mask: hash}
        - {name: country, type: string}
        - {name: score, type: int, maximum: 100}
"#;

/// Five good rows, three of them of countries that no two people share, and two that break a rule.
const DATA: &str = "id,email,country,score
1,ada@example.com,DE,10
2,ben@example.com,DE,20
3,cyd@example.com,US,30
4,dot@example.com,FR,40
5,eve@example.com,D'E,50
6,fay@example.com,DE,999
7,gus@example.com,US,998
";

/// A mesh whose people, products and policies are not applied yet.
fn unapplied() -> TestMesh {
    let mesh = TestMesh::new().by_hand().with_product(ID, CONTRACT).with_data(ID, "profiles.csv", DATA);
    let text = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    // Where the registry and the warehouse are, the mesh knows.
    let places: String = text
        .lines()
        .filter(|line| !line.starts_with("name:") && !line.starts_with("owner:"))
        .collect::<Vec<_>>()
        .join("\n");
    mesh.write("mesh.yaml", format!("{MESH}{places}\n"));
    mesh
}

fn publish(mesh: &TestMesh) {
    let path = mesh.path("domains/customer/products/profiles/profiles.csv");
    let input = format!("profiles={}", path.display());
    let report = mesh.run(&["publish", ID, &input, "--format", "json"]).expect_code(0).json();
    assert_eq!((&report["tables"][0]["published"], &report["tables"][0]["quarantined"]), (&json!(5), &json!(2)));
}

fn mesh() -> TestMesh {
    let mesh = unapplied();
    mesh.run(&["apply"]).expect_code(0);
    publish(&mesh);
    mesh
}

/// Runs the binary as somebody else.
fn run_as(mesh: &TestMesh, who: &str, arguments: &[&str]) -> Outcome {
    let principal = format!("user:{who}");
    let all: Vec<&str> = ["--as", &principal].into_iter().chain(arguments.iter().copied()).collect();
    mesh.run(&all)
}

#[track_caller]
fn rows_as(mesh: &TestMesh, who: &str, sql: &str) -> Vec<Value> {
    let outcome = run_as(mesh, who, &["query", "--format", "json", sql]).expect_code(0);
    outcome.json().as_array().unwrap().clone()
}

/// Asks as somebody and has a steward approve it; the grant's number is that of the request.
#[track_caller]
fn grant(mesh: &TestMesh, who: &str, role: &str) -> String {
    let asked = ["access", "request", ID, "--role", role, "--reason", "work", "--format", "json"];
    let number = run_as(mesh, who, &asked).expect_code(0).json()["request"]["number"].to_string();
    let outcome = run_as(mesh, "steve", &["access", "approve", &number, "--format", "json"]);
    let granted = outcome.expect_code(0).json();
    assert_eq!(granted["grant"]["principal"], format!("user:{who}"), "{granted:#}");
    granted["grant"]["number"].to_string()
}

fn emails(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["email"].as_str().unwrap()).collect()
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// Fails where an outcome tells any of the data's e-mail addresses.
#[track_caller]
fn assert_no_email(outcome: &Outcome) {
    assert!(!outcome.to_string().contains("@example.com"), "{outcome}");
}

#[test]
fn access_is_asked_for_approved_and_revoked() {
    let mesh = mesh();
    let refused = run_as(&mesh, "alice", &["query", PROFILES]).expect_code(DENIED);
    assert!(refused.stderr.contains("datamesh access request customer/profiles"), "{refused}");
    assert_no_email(&refused);

    let asked = ["access", "request", ID, "--role", "analyst", "--reason", "churn", "--format", "json"];
    let pending = run_as(&mesh, "alice", &asked).expect_code(0).json();
    assert_eq!((&pending["request"]["state"], &pending["grant"]), (&json!("pending"), &Value::Null));
    run_as(&mesh, "alice", &["query", PROFILES]).expect_code(DENIED);

    // Neither she herself nor who is no approver.
    let own = run_as(&mesh, "alice", &["access", "approve", "1"]).expect_code(DENIED);
    assert!(own.stderr.contains("nobody approves their own request"), "{own}");
    run_as(&mesh, "bob", &["access", "approve", "1"]).expect_code(DENIED);
    assert_eq!(mesh.run(&["access", "list", "--format", "json"]).expect_code(0).json()["grants"], json!([]));
    run_as(&mesh, "alice", &["query", PROFILES]).expect_code(DENIED);

    let outcome = run_as(&mesh, "steve", &["access", "approve", "1", "--format", "json"]);
    let granted = outcome.expect_code(0).json();
    assert_eq!(granted["grant"]["approvedBy"], json!(["user:steve"]), "{granted:#}");
    assert!(granted["grant"]["expiresAt"].is_string(), "the contract grants it for 30 days: {granted:#}");

    let seen = rows_as(&mesh, "alice", PROFILES);
    assert_eq!(ids(&seen), [1, 2]);
    assert!(seen.iter().all(|row| row["country"] == "DE"), "{seen:?}");
    let hashes = emails(&seen);
    assert!(hashes.iter().all(|hash| hash.len() == 32 && !hash.contains('@')) && hashes[0] != hashes[1], "{seen:?}");
    assert_eq!(seen, rows_as(&mesh, "alice", PROFILES), "a value has one hash");
    // What is not shown can neither be asked for nor counted.
    let guess =
        "SELECT count(*) AS n FROM customer.profiles.profiles WHERE email = 'ada@example.com' OR country = 'US'";
    assert_eq!(rows_as(&mesh, "alice", guess), [json!({"n": 0})]);
    assert_eq!(rows_as(&mesh, "alice", COUNT), [json!({"n": 2})]);

    grant(&mesh, "sam", "support");
    let raw = rows_as(&mesh, "sam", PROFILES);
    assert_eq!(ids(&raw), [1, 2, 3, 4, 5]);
    assert_eq!(emails(&raw)[0], "ada@example.com");
    run_as(&mesh, "bob", &["query", COUNT]).expect_code(DENIED);

    mesh.run(&["access", "revoke", "1", "--reason", "left the team"]).expect_code(0);
    let ended = run_as(&mesh, "alice", &["query", PROFILES]).expect_code(DENIED);
    assert_no_email(&ended);
    assert_eq!(rows_as(&mesh, "sam", COUNT), [json!({"n": 5})], "another grant stays");
    mesh.run(&["audit", "verify"]).expect_code(0);
}

#[test]
fn an_approver_revokes_a_grant_and_its_holder_does_not_revoke_others() {
    let mesh = mesh();
    let alice = grant(&mesh, "alice", "analyst");
    let sam = grant(&mesh, "sam", "support");
    run_as(&mesh, "alice", &["access", "revoke", &sam, "--reason", "envy"]).expect_code(DENIED);
    assert_eq!(rows_as(&mesh, "sam", COUNT), [json!({"n": 5})]);
    run_as(&mesh, "steve", &["access", "revoke", &alice, "--reason", "left the team"]).expect_code(0);
    run_as(&mesh, "alice", &["query", COUNT]).expect_code(DENIED);
}

#[test]
fn one_person_in_two_names_is_one_person() {
    let mesh = unapplied();
    let text = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    mesh.write("mesh.yaml", text.replace("separationOfDuties: names\n", ""));
    mesh.run(&["apply"]).expect_code(0);
    publish(&mesh);
    run_as(&mesh, "alice", &["access", "request", ID, "--role", "analyst", "--reason", "churn"]).expect_code(0);
    let refused = run_as(&mesh, "steve", &["access", "approve", "1"]).expect_code(DENIED);
    assert!(refused.stderr.contains("nobody approves their own request"), "{refused}");
    run_as(&mesh, "alice", &["query", COUNT]).expect_code(DENIED);

    mesh.write("mesh.yaml", text);
    let plan = mesh.run(&["plan"]).expect_code(0);
    assert!(plan.stdout.contains("separation of duties: people -> names"), "{plan}");
    mesh.run(&["apply"]).expect_code(0);
    run_as(&mesh, "steve", &["access", "approve", "1"]).expect_code(0);
    assert_eq!(rows_as(&mesh, "alice", COUNT), [json!({"n": 2})]);
}

#[test]
fn a_quote_in_an_attribute_is_a_value() {
    let mesh = mesh();
    grant(&mesh, "quinn", "analyst");
    let seen = rows_as(&mesh, "quinn", PROFILES);
    assert_eq!(ids(&seen), [5]);
    assert_eq!(seen[0]["country"], "D'E");
}

#[test]
fn a_changed_log_is_found() {
    let mesh = mesh();
    run_as(&mesh, "alice", &["query", COUNT]).expect_code(DENIED);
    let whole = mesh.run(&["audit", "verify"]).expect_code(0);
    assert!(whole.stdout.starts_with("the log is whole: "), "{whole}");

    // The trigger refuses what an honest program might do by mistake; whoever drops it is found.
    let entry = mesh.registry("SELECT min(sequence) FROM audit WHERE principal = 'user:alice'")[0][0].as_i64().unwrap();
    mesh.registry("DROP TRIGGER audit_no_update");
    mesh.registry(&format!(
        "UPDATE audit SET document = replace(document, 'user:alice', 'user:bobby') WHERE sequence = {entry}"
    ));
    let found = mesh.run(&["audit", "verify"]).expect_code(CHANGED);
    assert!(found.stdout.contains(&format!("entry {entry}: ")), "{found}");
    let flaws = mesh.run(&["audit", "verify", "--format", "json"]).expect_code(CHANGED).json();
    assert_eq!((&flaws["flawCount"], &flaws["flaws"][0]["sequence"]), (&json!(1), &json!(entry)), "{flaws:#}");
}

#[test]
fn a_receipt_is_verified_offline() {
    let mesh = mesh();
    mesh.run(&["receipt", ID, "--out", "1.receipt.json"]).expect_code(0);
    let receipt = fs::read_to_string(mesh.path("1.receipt.json")).unwrap();
    let key = mesh.run(&["audit", "key"]).expect_code(0).stdout;

    // A folder that knows nothing of the mesh.
    let elsewhere = TestMesh::new();
    fs::remove_file(elsewhere.path("mesh.yaml")).unwrap();
    elsewhere.write("r.json", &receipt);
    elsewhere.write("mesh.pub", &key);
    let valid = elsewhere.run(&["verify", "r.json", "--key", "mesh.pub"]).expect_code(0);
    assert!(valid.stdout.contains("in 7 = published 5 + quarantined 2"), "{valid}");
    elsewhere.run(&["verify", "r.json", "--key", key.trim()]).expect_code(0);

    // The sum still adds up.
    let edited =
        receipt.replace("\"published\":5", "\"published\":6").replace("\"quarantined\":2", "\"quarantined\":1");
    assert_ne!(edited, receipt);
    elsewhere.write("edited.json", edited);
    elsewhere.run(&["verify", "edited.json", "--key", "mesh.pub"]).expect_code(CHANGED);

    let other = TestMesh::new();
    other.run(&["apply"]).expect_code(0);
    let other = other.run(&["audit", "key"]).expect_code(0).stdout;
    assert_ne!(other, key);
    elsewhere.run(&["verify", "r.json", "--key", other.trim()]).expect_code(CHANGED);
}

#[test]
fn policies_of_files_bind_and_a_domain_loosens_none() {
    let mesh = unapplied();
    mesh.write(
        "policies/no-weekend.cedar",
        "@id(\"support-only\")\nforbid (principal, action == Action::\"read\", resource)\nunless { context has purpose && context.purpose == \"support\" };\n",
    );
    mesh.run(&["apply"]).expect_code(0);
    publish(&mesh);
    // `carl` is of the team that owns the product.
    let told = run_as(&mesh, "carl", &["query", COUNT]).expect_code(DENIED);
    assert!(told.stderr.contains("policy `support-only` forbids it"), "{told}");
    run_as(&mesh, "carl", &["--purpose", "marketing", "query", COUNT]).expect_code(DENIED);
    run_as(&mesh, "carl", &["--purpose", "support", "query", COUNT]).expect_code(0);
    mesh.run(&["query", COUNT]).expect_code(DENIED);

    // A domain's permit opens its own products, and undoes no policy of the mesh.
    run_as(&mesh, "bob", &["--purpose", "support", "query", COUNT]).expect_code(DENIED);
    mesh.write(
        "domains/customer/policies/open.cedar",
        "@id(\"open\")\npermit (principal, action == Action::\"read\", resource);\n",
    );
    mesh.run(&["apply"]).expect_code(0);
    run_as(&mesh, "bob", &["--purpose", "support", "query", COUNT]).expect_code(0);
    run_as(&mesh, "bob", &["query", COUNT]).expect_code(DENIED);

    mesh.write(
        "policies/broken.cedar",
        "permit (principal, action == Action::\"read\", resource);\n\nforbid nonsense;\n",
    );
    let refused = mesh.run(&["apply"]).expect_code(REFUSED);
    assert!(refused.to_string().contains("policies/broken.cedar:3: "), "{refused}");
    // What was applied before still holds.
    run_as(&mesh, "bob", &["query", COUNT]).expect_code(DENIED);
}

#[test]
fn derived_columns_inherit_the_mask_unless_declassified() {
    let derived = |name: &str, more: &str| {
        format!(
            "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: customer-team\n  inputs: [{ID}@^1]\n  schema:\n    - name: {name}\n      write: replace\n      transform: 'SELECT id, upper(email) AS loud FROM customer.profiles.profiles'\n      columns:\n        - {{name: id, type: long}}\n        - {{name: loud, type: string{more}}}\n"
        )
    };
    let mesh = unapplied()
        .with_product("customer/contacts", &derived("contacts", ""))
        .with_product("customer/cleared", &derived("cleared", ", declassify: agreed with those it names"));
    mesh.run(&["apply"]).expect_code(0);
    publish(&mesh);
    mesh.run(&["run", "customer/contacts"]).expect_code(0);
    mesh.run(&["run", "customer/cleared"]).expect_code(0);

    // Both products are open: they declare no access.
    let loud = |who: &str, name: &str| -> Vec<String> {
        let rows = rows_as(&mesh, who, &format!("SELECT loud FROM customer.{name}.{name} ORDER BY id"));
        rows.iter().map(|row| row["loud"].as_str().unwrap().to_owned()).collect()
    };
    let masked = loud("bob", "contacts");
    assert_eq!(masked.len(), 5);
    assert!(masked.iter().all(|value| value.len() == 32 && !value.contains('@')), "{masked:?}");
    assert_eq!(loud("carl", "contacts")[0], "ADA@EXAMPLE.COM", "who owns it sees it");
    assert_eq!(loud("bob", "cleared")[0], "ADA@EXAMPLE.COM");

    // What is shown of a table says so, and where masked columns lie is not told.
    for (name, protected) in [("contacts", true), ("cleared", false)] {
        let shown = run_as(&mesh, "bob", &["show", &format!("customer/{name}"), "--format", "json"]).expect_code(0);
        let table = &shown.json()["tables"][0];
        assert_eq!(table["columns"][1]["protected"], protected, "{shown}");
        assert_eq!((&table["rows"], table["metadata_location"].is_null()), (&json!(5), protected), "{shown}");
    }
}

/// A product of another domain's team.
fn of_sales(name: &str, column: &str) -> String {
    format!(
        "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: sales-team\n  schema:\n    - name: {name}\n      quarantine: 100%\n      columns:\n        - {{name: email, type: string{column}}}\n"
    )
}

#[test]
fn published_files_and_the_registry_are_no_sources() {
    let mesh = unapplied().with_product("sales/leak", &of_sales("leak", ""));
    mesh.run(&["apply"]).expect_code(0);
    publish(&mesh);
    let metadata = mesh.run(&["show", ID, "--format", "json"]).expect_code(0).json();
    let metadata = metadata["tables"][0]["metadata_location"].as_str().unwrap().to_owned();
    let folder = metadata.strip_prefix("file://").unwrap_or(&metadata).rsplit_once("/metadata/").unwrap().0.to_owned();
    std::os::unix::fs::symlink(format!("{folder}/data"), mesh.path("innocent")).unwrap();
    for place in [
        format!("{folder}/data"),
        format!("FILE://{folder}/data"),
        mesh.path("innocent/*/*.parquet").display().to_string(),
    ] {
        let input = format!("leak={place}");
        let denied = run_as(&mesh, "sid", &["publish", "sales/leak", &input]).expect_code(DENIED);
        assert!(denied.stderr.contains("name a table of the mesh"), "{denied}");
        assert_no_email(&denied);
        assert_no_email(&run_as(&mesh, "sid", &["explain", "sales/leak", &input]).expect_code(DENIED));
    }
    let registry = mesh.path(".datamesh/registry.db");
    let copy = mesh.path("copy.metadata.json");
    fs::copy(metadata.strip_prefix("file://").unwrap_or(&metadata), &copy).unwrap();
    for (version, source) in [
        ("1.0.1", format!("{{iceberg: '{metadata}'}}")),
        ("1.0.2", format!("{{iceberg: '{}'}}", copy.display())),
        (
            "1.0.3",
            format!("{{database: 'sqlite:{}', query: 'SELECT document AS email FROM grants'}}", registry.display()),
        ),
    ] {
        let text = of_sales("leak", "").replace("1.0.0", version);
        let text = text.replace("      columns:", &format!("      source: {source}\n      columns:"));
        mesh.write("domains/sales/products/leak/product.yaml", text);
        mesh.run(&["apply"]).expect_code(0);
        assert_no_email(&run_as(&mesh, "sid", &["publish", "sales/leak"]).expect_code(DENIED));
    }
    // A test of a transform shows what its fixtures hold.
    let data = fs::read_dir(format!("{folder}/data")).unwrap().next().unwrap().unwrap().path();
    let part = fs::read_dir(data).unwrap().next().unwrap().unwrap().path();
    let read = of_sales("copy", "").replace(
        "      columns:",
        "      write: replace\n      transform: SELECT email FROM customer.profiles.profiles\n      columns:",
    );
    let read = read.replace("  schema:", &format!("  inputs: [{ID}@^1]\n  schema:"));
    mesh.write("domains/sales/products/copy/product.yaml", read);
    let tests = format!(
        "tests:\n  - name: peek\n    given: {{customer.profiles.profiles: {{file: '{}'}}}}\n    expect: {{copy: []}}\n",
        part.display()
    );
    mesh.write("domains/sales/products/copy/product.tests.yaml", tests);
    assert_no_email(&run_as(&mesh, "sid", &["test", "sales/copy"]).expect_code(DENIED));
    assert!(mesh.run(&["test", "sales/copy"]).expect_code(3).stdout.contains("@example.com"), "who opens it may");
    // Whoever can open the folder may, and the log tells.
    mesh.run(&["publish", "sales/leak", &format!("leak={folder}/data")]).expect_code(0);
    let log = mesh.run(&["audit", "--action", "read", "--format", "json"]).expect_code(0);
    assert!(log.stdout.contains("part-"), "{log}");
}

#[test]
fn a_reference_to_a_masked_column_is_refused() {
    let people = "dataProduct:\n  name: people\n  version: 1.0.0\n  owner: customer-team\n  schema:\n    - name: people\n      columns:\n        - {name: email, type: string, pii: true, mask: hash}\n";
    let mesh = unapplied()
        .with_product("customer/people", people)
        .with_data("customer/people", "people.csv", "email\nada@example.com\n")
        .with_product("sales/orders", &of_sales("orders", ", references: customer/people.people.email"))
        .with_data("sales/orders", "orders.csv", "email\nada@example.com\n");
    mesh.run(&["apply"]).expect_code(0);
    let input =
        |product: &str, name: &str| format!("{name}={}", mesh.path(&format!("domains/{product}/{name}.csv")).display());
    mesh.run(&["publish", "customer/people", &input("customer/products/people", "people")]).expect_code(0);
    let refused = mesh.run(&["publish", "sales/orders", &input("sales/products/orders", "orders")]);
    let refused = refused.expect_code(DENIED);
    assert!(
        refused.stderr.contains("customer/people.people.email")
            && refused.stderr.contains("--principal team:sales-team"),
        "{refused}"
    );
    assert_no_email(&refused);
}

#[test]
fn nothing_beside_a_query_tells_what_a_query_holds_back() {
    let mesh = mesh();
    let input = format!("profiles={}", mesh.path("domains/customer/products/profiles/profiles.csv").display());
    for is_granted in [false, true] {
        if is_granted {
            grant(&mesh, "alice", "analyst");
        }
        let explained = run_as(&mesh, "alice", &["explain", ID, &input]).expect_code(DENIED);
        assert_no_email(&explained);
        // Rows that broke a rule are filtered by nobody: whoever sees part of the table sees none of them.
        let held = run_as(&mesh, "alice", &["quarantine", ID, "--format", "json"]).expect_code(DENIED);
        assert_no_email(&held);
        assert!(!held.stdout.contains("999"), "{held}");

        let shown = run_as(&mesh, "alice", &["show", ID, "--format", "json"]).expect_code(0);
        assert_no_email(&shown);
        let table = &shown.json()["tables"][0];
        assert_eq!((&table["rows"], &table["metadata_location"]), (&Value::Null, &Value::Null), "{shown}");
        assert!(!run_as(&mesh, "alice", &["show", ID]).expect_code(0).stdout.contains("rows"));
        let listed = run_as(&mesh, "alice", &["publications", ID, "--format", "json"]).expect_code(0);
        assert_no_email(&listed);
        assert_eq!(listed.json()[0]["report"], json!({"withheld": true}), "{listed}");
        // Nor is the table read around the mesh, by where its files are.
        let metadata = mesh.run(&["show", ID, "--format", "json"]).expect_code(0).json();
        let metadata = metadata["tables"][0]["metadata_location"].as_str().unwrap().to_owned();
        let table = format!("t={metadata}");
        assert_no_email(&run_as(&mesh, "alice", &["query", "--table", &table, "SELECT * FROM t"]).expect_code(DENIED));
    }
}

#[test]
fn a_receipt_does_not_tell_the_counts_that_publications_withhold() {
    let mesh = mesh();
    let told = run_as(&mesh, "alice", &["receipt", ID]);
    assert!(!told.stdout.contains("\"rows\":5") && !told.stdout.contains("\"quarantined\":2"), "{told}");
}
