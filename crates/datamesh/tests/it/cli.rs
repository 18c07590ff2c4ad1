//! What a user sees of each command: sources, rules, repeats, masks, formats, exit codes.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::support::{Outcome, TestMesh};

const ID: &str = "sales/orders";

/// A manifest of one table, `orders`, whose further lines are given.
fn manifest(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: orders\n      quarantine: 100%\n{indented}"
    )
}

fn mesh(lines: &str) -> TestMesh {
    TestMesh::new().with_product(ID, &manifest(lines))
}

/// Publishes `data` (a file of this name) and returns the report.
#[track_caller]
fn publish(mesh: &TestMesh, name: &str, data: impl AsRef<[u8]>) -> Value {
    let path = mesh.write(name, data);
    let input = format!("orders={}", path.display());
    mesh.run(&["publish", ID, &input, "--format", "json"]).expect_code(0).json()
}

fn reasons(report: &Value) -> BTreeMap<String, u64> {
    let counts = report["tables"][0]["reasons"].as_object().unwrap();
    counts.iter().map(|(rule, count)| (rule.clone(), count["rows"].as_u64().unwrap())).collect()
}

/// Publishes `data` and checks how many rows are published and which rules quarantine how many of the others.
#[track_caller]
fn check(lines: &str, name: &str, data: impl AsRef<[u8]>, published: u64, expected: &[(&str, u64)]) -> TestMesh {
    let mesh = mesh(lines);
    let report = publish(&mesh, name, data);
    let table = &report["tables"][0];
    let expected: BTreeMap<String, u64> = expected.iter().map(|(rule, rows)| ((*rule).to_owned(), *rows)).collect();
    assert_eq!(reasons(&report), expected, "{report:#}");
    assert_eq!(table["published"], published, "{report:#}");
    let sum = table["published"].as_u64().unwrap() + table["quarantined"].as_u64().unwrap();
    assert_eq!(table["in"].as_u64(), Some(sum));
    assert_eq!(mesh.count("sales.orders.orders"), i64::try_from(published).unwrap());
    mesh
}

fn quarantined(mesh: &TestMesh, arguments: &[&str]) -> Vec<Value> {
    let all: Vec<&str> = ["quarantine", ID, "--format", "json"].into_iter().chain(arguments.iter().copied()).collect();
    mesh.run(&all).expect_code(0).json().as_array().unwrap().clone()
}

const TWO: &str = "columns: [{name: id, type: long}, {name: name, type: string}]";

#[test]
fn records_that_cannot_be_tokenised_stop_nothing() {
    let data = b"id,name\n1,a\n2\n3,c,x\n4,\"open\n5,e\n6,\"a\"b\n7,\xff\xfe\n8,\"two\nlines\"\n9,i";
    let mesh = check(TWO, "a.csv", data, 4, &[("record", 5)]);
    let rows = mesh.query("SELECT id, name FROM sales.orders.orders ORDER BY id");
    assert_eq!(rows[2], json!({"id": 8, "name": "two\nlines"}));
    let raw: Vec<(u64, String)> = quarantined(&mesh, &[])
        .iter()
        .map(|row| (row["position"].as_u64().unwrap(), row["raw"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [(3, "2"), (4, "3,c,x"), (5, "4,\"open"), (7, "6,\"a\"b"), (8, "7,\u{fffd}\u{fffd}")];
    assert_eq!(raw, expected.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn a_quote_that_is_never_closed_faults_one_line() {
    let rows: String = (0..1000).map(|id| format!("{id},n{id}\n")).collect();
    check(TWO, "a.csv", format!("id,name\n7,\"open\n{rows}"), 1000, &[("record", 1)]);
}

#[test]
fn broken_json_lines_stop_nothing() {
    let data = "{\"id\": 1, \"name\": \"a\"}\n{\"id\": 2\n[3]\n\n{\"id\": 4, \"name\": null, \"more\": {\"x\": 1}}\n";
    let mesh = check(TWO, "a.ndjson", data, 2, &[("record", 2)]);
    assert_eq!(mesh.query("SELECT id FROM sales.orders.orders WHERE name IS NULL"), [json!({"id": 4})]);
}

#[test]
fn cells_must_fit_their_types_without_loss() {
    let lines = "columns:\n  - {name: i, type: int}\n  - {name: d, type: 'decimal(10,2)'}\n  - {name: t, type: timestamp}\n  - {name: b, type: boolean}\n  - {name: u, type: uuid}";
    let data = "i,d,t,b,u\n1,0.10,2013-01-01T06:00:00Z,true,123e4567-e89b-12d3-a456-426614174000\n3000000000,0.1004,2013-01-01T06:00:00,yes,x\n,,,,\n1.5,1e1,2013-01-01 06:00+01,FALSE,123E4567-E89B-12D3-A456-426614174000\n";
    let mesh =
        check(lines, "a.csv", data, 2, &[("type:b", 1), ("type:d", 1), ("type:i", 2), ("type:t", 1), ("type:u", 1)]);
    let rows = quarantined(&mesh, &[]);
    assert_eq!(rows[0]["raw"], "3000000000,0.1004,2013-01-01T06:00:00,yes,x");
    assert_eq!(rows[0]["reasons"].as_array().unwrap().len(), 5);
    // The same cells as numbers and texts of JSON.
    let data = "{\"i\": 1, \"d\": 0.10}\n{\"i\": 3000000000, \"d\": 0.1004}\n{\"i\": \"1\", \"d\": \"2.5\"}\n{\"i\": 1.5, \"b\": \"true\"}\n";
    check(lines, "a.ndjson", data, 1, &[("type:b", 1), ("type:d", 1), ("type:i", 3)]);
}

#[test]
fn every_rule_that_a_row_broke_is_told() {
    let lines = "columns:\n  - {name: id, type: long, primaryKey: true}\n  - {name: code, type: string, minLength: 2, maxLength: 3, pattern: '^[A-Z]+$', enum: [AB, CD, x]}\n  - {name: n, type: int, minimum: 0, exclusiveMaximum: 10, multipleOf: 2}\n  - {name: ip, type: string, format: ipv4}\n  - {name: doc, type: json}\nquality: [{name: small, condition: 'n < 5'}]";
    let data = "id,code,n,ip,doc\n1,AB,2,1.2.3.4,{}\n2,x,11,nowhere,{\n,CD,4,,\n1,AB,0,,\n";
    let mesh = check(
        lines,
        "a.csv",
        data,
        0,
        &[
            ("condition:small", 1),
            ("exclusiveMaximum:n", 1),
            ("format:ip", 1),
            ("json:doc", 1),
            ("minLength:code", 1),
            ("multipleOf:n", 1),
            ("pattern:code", 1),
            ("primaryKey:id", 2),
            ("required:id", 1),
        ],
    );
    let rows = quarantined(&mesh, &[]);
    let worst = rows.iter().find(|row| row["id"] == 2).unwrap();
    assert_eq!(worst["reasons"].as_array().unwrap().len(), 7);
    assert_eq!(rows.iter().filter(|row| row["id"] == 1).count(), 2, "both rows of a doubled key are held back");
}

#[test]
fn keys_count_rows_that_break_other_rules_and_nulls_are_distinct() {
    let lines =
        "columns: [{name: a, type: int}, {name: b, type: string}, {name: n, type: int, maximum: 5}]\nunique: [[a, b]]";
    let data = "a,b,n\n1,x,1\n1,x,9\n1,y,1\n,x,1\n,x,1\n2,,1\n2,,1\n";
    check(lines, "a.csv", data, 5, &[("maximum:n", 1), ("unique:a+b", 2)]);
}

#[test]
fn with_append_the_published_row_stays() {
    let mesh = mesh("columns: [{name: id, type: long, primaryKey: true}, {name: v, type: string}]");
    publish(&mesh, "a.csv", "id,v\n1,old\n2,old\n");
    let report = publish(&mesh, "b.csv", "id,v\n2,new\n3,new\n");
    assert_eq!(reasons(&report), BTreeMap::from([("primaryKey:id".to_owned(), 1)]));
    let rows = mesh.query("SELECT id, v FROM sales.orders.orders ORDER BY id");
    assert_eq!(rows, [json!({"id": 1, "v": "old"}), json!({"id": 2, "v": "old"}), json!({"id": 3, "v": "new"})]);
}

#[test]
fn nested_fields_and_items_are_judged() {
    let lines = "columns:\n  - {name: tags, type: array<string>, maxLength: 2, items: {pattern: '^[a-z]+$'}}\n  - name: address\n    type: struct\n    columns: [{name: city, type: string, required: true}, {name: zip, type: int, minimum: 1000}]\n  - {name: prices, type: 'map<string,decimal(5,2)>'}";
    let data = "{\"tags\": [\"a\"], \"address\": {\"city\": \"X\", \"zip\": 1000}, \"prices\": {\"eur\": 1.25}}\n{\"tags\": [\"a\", \"B\", \"c\"], \"address\": {\"zip\": 1}, \"prices\": null}\n{\"address\": null, \"prices\": {\"eur\": 1.255}}\n{\"tags\": \"a\", \"address\": {\"city\": \"X\", \"zip\": \"no\"}}\n";
    let mesh = check(
        lines,
        "a.ndjson",
        data,
        1,
        &[
            ("maxLength:tags", 1),
            ("minimum:address.zip", 1),
            ("pattern:tags[]", 1),
            ("required:address.city", 1),
            ("type:address.zip", 1),
            ("type:prices{}", 1),
            ("type:tags", 1),
        ],
    );
    let row = &mesh.query("SELECT address, prices, tags FROM sales.orders.orders")[0];
    assert_eq!(row["address"], json!({"city": "X", "zip": 1000}));
}

#[test]
fn a_condition_that_cannot_be_computed_breaks_its_row_only() {
    let lines =
        "columns: [{name: a, type: int}, {name: b, type: int}]\nquality: [{name: ratio, condition: 'a / b > 1'}]";
    check(lines, "a.csv", "a,b\n4,2\n1,0\n1,1\n,1\n", 2, &[("condition:ratio", 2)]);
}

#[test]
fn metric_rules_reject_at_severity_error_only() {
    let rules = "columns: [{name: a, type: string}, {name: b, type: int}]\nquality:\n  - rowCount >= 4\n  - nullValues(a) <= 25%\n  - {metric: missingValues, column: a, arguments: {missingValues: [null, 'n/a']}, mustBe: 2}\n  - {metric: invalidValues, column: b, arguments: {validValues: [1, 2]}, mustBeLessThan: 2}\n  - {metric: duplicateValues, column: b, mustBeBetween: [1, 2]}\n  - {name: total, sql: 'SELECT sum(b) FROM {object}', mustBe: 7}\n  - {name: hopeless, sql: 'SELECT count(*) FROM {object}', mustBe: 0, severity: warning}";
    let mesh = mesh(rules);
    let report = publish(&mesh, "a.csv", "a,b\nx,1\nn/a,1\n,2\ny,3\n");
    let failed: Vec<&str> = report["tables"][0]["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|metric| metric["passed"] == false)
        .map(|metric| metric["rule"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["hopeless"]);
    // With append the rules judge the new rows together with the published ones: five rows, and a total of 9.
    let path = mesh.write("b.csv", "a,b\nz,2\n");
    let outcome = mesh.run(&["publish", ID, &format!("orders={}", path.display()), "--format", "json"]).expect_code(3);
    let because = outcome.json()["because"][0].as_str().unwrap().to_owned();
    assert_eq!(because, "table `orders`: rule `total`: sql is 9, must be = 7");
    assert_eq!(mesh.count("sales.orders.orders"), 4);
}

#[test]
fn a_rule_that_fails_to_run_rejects_with_its_reason() {
    let mesh = mesh(
        "columns: [{name: a, type: int}]\nquality: [{name: broken, sql: 'SELECT nothing FROM {object}', mustBe: 0}]",
    );
    let path = mesh.write("a.csv", "a\n1\n");
    let outcome = mesh.run(&["publish", ID, &format!("orders={}", path.display())]).expect_code(3);
    assert!(outcome.stdout.contains("rule `broken` failed") && outcome.stdout.contains("nothing"), "{outcome}");
}

#[test]
fn the_breaker_rejects_and_the_last_good_publication_serves() {
    let mesh = TestMesh::new().with_product(
        ID,
        &manifest("columns: [{name: a, type: int}]").replace("quarantine: 100%", "quarantine: {limit: 50%}"),
    );
    publish(&mesh, "a.csv", "a\n1\n2\n");
    let path = mesh.write("b.csv", "a\n3\nx\ny\n");
    let outcome = mesh.run(&["publish", ID, &format!("orders={}", path.display()), "--format", "json"]).expect_code(3);
    assert_eq!(outcome.json()["status"], "rejected");
    assert_eq!(mesh.count("sales.orders.orders"), 2);
    assert_eq!(quarantined(&mesh, &[]).len(), 2, "a rejected attempt keeps its quarantine");
    let attempts = mesh.publications(ID);
    assert_eq!((attempts.len(), &attempts[0]["status"]), (2, &json!("rejected")));
}

#[test]
fn one_rejected_table_rejects_all() {
    let text = "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - {name: good, columns: [{name: a, type: int}], source: good.csv}\n    - {name: bad, columns: [{name: a, type: int}], source: bad.csv}\n";
    let mesh =
        TestMesh::new().with_product(ID, text).with_data(ID, "good.csv", "a\n1\n").with_data(ID, "bad.csv", "a\nx\n");
    mesh.run(&["publish", ID]).expect_code(3);
    mesh.run(&["query", "SELECT * FROM sales.orders.good"]).expect_code(9);
    assert!(mesh.warehouse().keys().all(|file| file.contains("/quarantine/")), "{:?}", mesh.warehouse());
}

#[test]
fn columns_are_matched_by_name() {
    let mesh = mesh("columns: [{name: a, type: int, required: true}, {name: b, type: int}]");
    let report = publish(&mesh, "a.csv", "z,a\n9,1\n");
    assert_eq!(report["tables"][0]["ignoredColumns"], json!(["z"]));
    assert_eq!(report["tables"][0]["missingColumns"], json!(["b"]));
    let path = mesh.write("b.csv", "b\n1\n");
    let outcome = mesh.run(&["publish", ID, &format!("orders={}", path.display())]).expect_code(3);
    assert!(outcome.stdout.contains("no column `a`, which is required"), "{outcome}");
}

#[test]
fn csv_options_are_honoured() {
    let lines = "columns: [{name: a, type: int}, {name: b, type: string}]\nsource: {path: in, format: csv, delimiter: ';', quote: \"'\", header: false, nullText: ['', NA]}";
    let mesh = mesh(lines).with_data(ID, "in/1.csv", "1;'x;''y'\r\n").with_data(ID, "in/2.csv", "NA;NA\r\n2;\"z\"");
    mesh.run(&["publish", ID]).expect_code(0);
    let rows = mesh.query("SELECT a, b FROM sales.orders.orders ORDER BY a NULLS FIRST");
    assert_eq!(rows, [json!({"a": null, "b": null}), json!({"a": 1, "b": "x;'y"}), json!({"a": 2, "b": "\"z\""})]);
}

#[test]
fn gzip_globs_folders_and_standard_input_are_read() {
    let mesh = mesh(TWO);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"id,name\n1,a\n").unwrap();
    mesh.write("in/1.csv.gz", gzip.finish().unwrap());
    mesh.write("in/2.csv", "name,id\nb,2\n");
    mesh.write("in/3.ndjson", "{\"id\": 3}\n");
    mesh.run(&["publish", ID, "orders=in"]).expect_code(0);
    assert_eq!(mesh.number("SELECT sum(id) FROM sales.orders.orders"), 6);
    mesh.write("more/4.csv", "id,name\n4,d\n");
    mesh.write("more/5.csv", "id,name\n5,e\n");
    mesh.run(&["publish", ID, "orders=more/*.csv"]).expect_code(0);
    mesh.run_with_input(&["publish", ID, "orders=-"], "id,name\n6,f\n").expect_code(0);
    assert_eq!(mesh.number("SELECT sum(id) FROM sales.orders.orders"), 21);
}

#[test]
fn a_damaged_file_commits_nothing() {
    let mesh = mesh(TWO);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let rows: String = (0..50_000).map(|id| format!("{id},name-{}\n", id * 7919 % 10007)).collect();
    gzip.write_all(format!("id,name\n{rows}").as_bytes()).unwrap();
    let mut bytes = gzip.finish().unwrap();
    bytes.truncate(bytes.len() / 2);
    for (name, bytes) in [("a.csv.gz", bytes), ("a.parquet", b"PAR1 not really PAR1".to_vec())] {
        let path = mesh.write(name, bytes);
        let outcome = mesh.run(&["publish", ID, &format!("orders={}", path.display())]).expect_code(7);
        assert!(outcome.stderr.contains("help:"), "{outcome}");
        assert!(mesh.publications(ID).is_empty());
        assert!(mesh.warehouse().is_empty(), "{:?}", mesh.warehouse());
    }
}

#[test]
fn repeats_are_recognised_by_content() {
    let append = mesh(TWO);
    publish(&append, "a.csv", "id,name\n1,a\n2,b\n");
    // Another name and another order of the same records are the same content.
    let report = publish(&append, "other.csv", "id,name\n2,b\n1,a\n");
    assert_eq!((&report["status"], &report["publication"]), (&json!("repeat"), &json!(1)));
    publish(&append, "b.csv", "id,name\n3,c\n");
    let report = publish(&append, "a.csv", "id,name\n1,a\n2,b\n");
    assert_eq!(report["status"], "repeat", "with append any publication counts");
    assert_eq!(append.count("sales.orders.orders"), 3);
    append.run(&["publish", ID, "orders=a.csv", "--again"]).expect_code(0);
    assert_eq!(append.count("sales.orders.orders"), 5);

    let replace = mesh(&format!("write: replace\n{TWO}"));
    publish(&replace, "a.csv", "id,name\n1,a\n");
    publish(&replace, "b.csv", "id,name\n2,b\n");
    assert_eq!(publish(&replace, "b.csv", "id,name\n2,b\n")["status"], "repeat");
    assert_eq!(
        publish(&replace, "a.csv", "id,name\n1,a\n")["status"],
        "published",
        "with replace only the current one counts"
    );
    assert_eq!(replace.query("SELECT id FROM sales.orders.orders"), [json!({"id": 1})]);
}

#[test]
fn a_key_set_by_hand_names_a_publication() {
    let mesh = mesh(TWO);
    mesh.write("a.csv", "id,name\n1,a\n");
    mesh.write("b.csv", "id,name\n2,b\n");
    mesh.run(&["publish", ID, "orders=a.csv", "--idempotency-key", "monday"]).expect_code(0);
    let outcome =
        mesh.run(&["publish", ID, "orders=b.csv", "--idempotency-key", "monday", "--format", "json"]).expect_code(0);
    assert_eq!(outcome.json()["status"], "repeat");
    mesh.run(&["publish", ID, "orders=b.csv", "--idempotency-key", "tuesday"]).expect_code(0);
    assert_eq!(mesh.count("sales.orders.orders"), 2);
}

#[test]
fn a_dry_run_commits_nothing() {
    let mesh = mesh(TWO);
    mesh.write("a.csv", "id,name\n1,a\nx,b\n");
    let outcome = mesh.run(&["publish", ID, "orders=a.csv", "--dry-run", "--format", "json"]).expect_code(0);
    assert_eq!(
        (&outcome.json()["status"], &outcome.json()["tables"][0]["quarantined"]),
        (&json!("would-publish"), &json!(1))
    );
    assert!(mesh.publications(ID).is_empty() && mesh.warehouse().is_empty(), "{:?}", mesh.warehouse());
}

#[test]
fn tables_without_new_input_carry_forward() {
    let text = "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - {name: a, columns: [{name: x, type: int}]}\n    - {name: b, columns: [{name: x, type: int}], quality: [{name: in_a, sql: 'SELECT count(*) FROM {object} WHERE x NOT IN (SELECT x FROM a)', mustBe: 0}]}\n";
    let mesh = TestMesh::new().with_product(ID, text);
    mesh.write("a.csv", "x\n1\n2\n");
    mesh.write("b.csv", "x\n2\n");
    mesh.run(&["publish", ID, "a=a.csv"]).expect_code(0);
    let outcome = mesh.run(&["publish", ID, "b=b.csv", "--format", "json"]).expect_code(0);
    assert_eq!(outcome.json()["carriedForward"], json!(["a"]));
    assert_eq!((mesh.count("sales.orders.a"), mesh.count("sales.orders_v1.b")), (2, 1));
}

#[test]
fn protected_columns_are_masked_everywhere() {
    let lines = "columns:\n  - {name: id, type: int, maximum: 5}\n  - {name: email, type: string, pii: true, pattern: '@', unique: true}\n  - {name: born, type: date, mask: 'null'}\nquality: [{name: mail, condition: \"email <> 'secret-4@x'\"}]";
    let mesh = mesh(lines);
    let data = "id,email,born\n1,secret-1,2000-01-01\n9,secret-2@x,secret-date\n2,secret-3@x,2000-01-01\n3,secret-3@x,2000-01-01\n4,secret-4@x,2000-01-01\n";
    let path = mesh.write("a.csv", data);
    let input = format!("orders={}", path.display());
    let outcome = mesh.run(&["publish", ID, &input, "--format", "json"]).expect_code(0);
    let silent = |outcome: &Outcome| {
        assert!(!outcome.stdout.contains("secret") && !outcome.stderr.contains("secret"), "{outcome}")
    };
    silent(&outcome);
    silent(&mesh.run(&["publications", ID, "--format", "json"]).expect_code(0));
    for format in ["table", "csv", "json"] {
        silent(&mesh.run(&["quarantine", ID, "--format", format]).expect_code(0));
    }
    assert_eq!(quarantined(&mesh, &[])[0]["email"], "***");
    let revealed = quarantined(&mesh, &["--reveal"]);
    assert!(revealed.iter().any(|row| row["raw"].as_str().is_some_and(|raw| raw.contains("secret-date"))));
    let decisions = mesh.registry("SELECT action FROM decisions WHERE document LIKE '%\"reveal\":true%'");
    assert_eq!(decisions, [[json!("readUnmasked")]]);
    assert_eq!(mesh.registry("SELECT count(*) FROM publications WHERE report LIKE '%secret%'"), [[json!(0)]]);
}

#[test]
fn decisions_are_recorded_and_cannot_be_changed() {
    let mesh = mesh(TWO);
    publish(&mesh, "a.csv", "id,name\n1,a\n");
    mesh.count("sales.orders.orders");
    let rows = mesh.registry("SELECT action, resource, outcome FROM decisions ORDER BY number");
    // The first publish begins the product in its domain.
    assert_eq!(rows[0], [json!("apply"), json!("sales"), json!("allow")]);
    assert_eq!(rows[1], [json!("publish"), json!(ID), json!("allow")]);
    assert_eq!(rows[2], [json!("read"), json!("sales.orders_v1.orders"), json!("allow")]);
    let user = mesh.registry("SELECT DISTINCT principal FROM decisions");
    assert!(user[0][0].as_str().is_some_and(|user| user.starts_with("user:") && user.len() > 5));
    let script = "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1])\nfor sql in ('DELETE FROM decisions', \"UPDATE decisions SET outcome = 'deny'\"):\n    try:\n        connection.execute(sql)\n    except sqlite3.Error as error:\n        assert 'never' in str(error), error\n    else:\n        raise SystemExit('changed')\n";
    let mut python = mesh.wrapped("python3", &["-c", script]);
    python.arg(mesh.path(".datamesh/registry.db"));
    crate::support::finish(python).expect_code(0);
}

#[test]
fn queries_only_read_and_name_what_there_is() {
    let mesh = mesh(TWO);
    publish(&mesh, "a.csv", "id,name\n1,a\n");
    for sql in [
        "DROP TABLE sales.orders.orders",
        "INSERT INTO sales.orders.orders VALUES (2, 'b')",
        "COPY (SELECT 1) TO 'x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; SELECT 2",
    ] {
        let outcome = mesh.run(&["query", sql]).expect_code(9);
        assert!(outcome.stderr.starts_with("error:"), "{outcome}");
    }
    let outcome = mesh.run(&["query", "SELECT * FROM sales.orders.nothing"]).expect_code(9);
    assert!(outcome.stderr.contains("sales.orders.orders"), "{outcome}");
    mesh.run(&["query", "SELECT * FROM '/etc/passwd'"]).expect_code(9);
    assert!(!mesh.path("x.csv").exists());
}

#[test]
fn rows_come_in_every_format() {
    let mesh = mesh("columns: [{name: id, type: long}, {name: tags, type: array<string>}]");
    publish(&mesh, "a.ndjson", "{\"id\": 1, \"tags\": [\"x\", \"y,z\"]}\n{\"id\": 2}\n");
    let sql = "SELECT id, tags FROM sales.orders.orders ORDER BY id";
    let csv = mesh.run(&["query", "--format", "csv", sql]).expect_code(0).stdout;
    assert_eq!(csv, "id,tags\n1,\"[\"\"x\"\",\"\"y,z\"\"]\"\n2,\n");
    let empty = mesh
        .run(&["query", "--format", "csv", "SELECT id FROM sales.orders.orders WHERE id > 5"])
        .expect_code(0)
        .stdout;
    assert_eq!(empty, "id\n");
    assert_eq!(mesh.query("SELECT id FROM sales.orders.orders WHERE id > 5"), Vec::<Value>::new());
    let table = mesh.run(&["query", sql]).expect_code(0).stdout;
    assert!(table.contains("| 1  | [x, y,z] |"), "{table}");
    mesh.run(&["query", "--out", "rows.parquet", sql]).expect_code(0);
    // What was written can be published in turn.
    let report = publish(&mesh, "again/rows.parquet", std::fs::read(mesh.path("rows.parquet")).unwrap());
    assert_eq!(report["tables"][0]["published"], 2);
}

#[test]
fn a_changed_contract_is_registered_and_columns_can_be_added() {
    let mesh = mesh(TWO);
    publish(&mesh, "a.csv", "id,name\n1,a\n");
    mesh.write(
        "domains/sales/products/orders/product.yaml",
        manifest("columns: [{name: id, type: long}, {name: name, type: string}, {name: extra, type: int}]"),
    );
    publish(&mesh, "b.csv", "id,name,extra\n2,b,7\n");
    let rows = mesh.query("SELECT id, extra FROM sales.orders.orders ORDER BY id");
    assert_eq!(rows, [json!({"id": 1, "extra": null}), json!({"id": 2, "extra": 7})]);
    mesh.write("domains/sales/products/orders/product.yaml", manifest("columns: [{name: id, type: string}]"));
    let outcome = mesh.run(&["publish", ID, "orders=b.csv"]).expect_code(15);
    assert!(outcome.stderr.contains("datamesh apply"), "{outcome}");
}

#[test]
fn two_majors_have_tables_of_their_own() {
    let mesh = mesh(TWO);
    publish(&mesh, "a.csv", "id,name\n1,a\n");
    mesh.write(
        "domains/sales/products/orders/product.yaml",
        manifest("columns: [{name: id, type: string}]").replace("1.0.0", "2.0.0"),
    );
    publish(&mesh, "b.csv", "id\nx\ny\n");
    assert_eq!(
        (mesh.count("sales.orders_v1.orders"), mesh.count("sales.orders_v2.orders"), mesh.count("sales.orders.orders")),
        (1, 2, 2)
    );
}

#[test]
fn errors_help_and_have_their_own_exit_codes() {
    let mesh = mesh(TWO);
    mesh.write("domains/sales/products/broken/product.yaml", "dataProduct: {name: broken}\n");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["publish", "sales/order"], 4, "datamesh check"),
        (&["publish", ID], 2, "add `source:`"),
        (&["publish", ID, "order=a.csv"], 2, "its tables: orders"),
        (&["publish", ID, "orders=missing.csv"], 7, "there is no such file"),
        (&["publish", ID, "orders"], 2, "TABLE=PATH"),
        (&["show", "nothing"], 6, "nothing is published yet"),
        (&["check", "nowhere"], 6, "name a mesh directory"),
        (&["--mesh", "nowhere", "show"], 6, "mesh.yaml"),
        (&["fly"], 2, "unrecognized subcommand"),
    ];
    for (arguments, code, help) in cases {
        let outcome = mesh.run(arguments).expect_code(*code);
        assert!(outcome.stderr.contains(help), "{arguments:?}: {outcome}");
    }
    let outcome = mesh.run(&["check", "--format", "json"]).expect_code(4);
    assert!(outcome.json()["errors"].as_u64().unwrap() > 0);
    let outcome = mesh.run(&["show", "nothing", "--format", "json"]).expect_code(6);
    assert_eq!(outcome.json()["error"]["code"], "not-found");
}

#[test]
fn check_compiles_the_conditions() {
    let mesh = mesh(
        "columns: [{name: a, type: int}]\nquality:\n  - {name: wrong, condition: 'amount > 5'}\n  - {name: sum, condition: 'sum(a) > 5'}",
    );
    let outcome = mesh.run(&["check", "--format", "json"]).expect_code(4);
    let found: Vec<(String, u64)> = outcome.json()["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (problem["id"].as_str().unwrap().to_owned(), problem["location"]["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, [("invalid-condition".to_owned(), 10), ("invalid-condition".to_owned(), 11)]);
}

#[test]
fn show_tells_where_the_tables_are() {
    let mesh = mesh(TWO);
    publish(&mesh, "a.csv", "id,name\n1,a\n");
    let shown = mesh.run(&["show", "orders", "--format", "json"]).expect_code(0).json();
    let location = shown["tables"][0]["metadata_location"].as_str().unwrap().to_owned();
    let document: Value =
        serde_json::from_str(&std::fs::read_to_string(location.strip_prefix("file://").unwrap()).unwrap()).unwrap();
    assert_eq!(document["format-version"], 2);
    assert!(mesh.run(&["show", ID]).expect_code(0).stdout.contains("serving publication 1"));
}
