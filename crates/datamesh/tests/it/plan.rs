//! `plan` and `apply` on real meshes: what may change and how, what is refused, and that nothing is half done.

use serde_json::{Value, json};

use crate::faults::check_told;
use crate::support::{BINARY, Outcome, TestMesh, finish, start};

const ORDERS: &str = "sales/orders";
const FILE: &str = "domains/sales/products/orders/product.yaml";

/// The manifest of `sales/orders`, with these columns and further lines of the product.
fn orders(version: &str, columns: &str, rest: &str) -> String {
    named("orders", version, columns, rest)
}

fn named(name: &str, version: &str, columns: &str, rest: &str) -> String {
    format!(
        "dataProduct:\n  name: {name}\n  version: {version}\n  owner: sales-team\n{rest}  schema:\n    - name: orders\n      write: append\n      columns:\n{columns}"
    )
}

fn columns(columns: &[&str]) -> String {
    columns.iter().map(|column| format!("        - {{{column}}}\n")).collect()
}

const ID: &str = "name: id, type: int, primaryKey: true";
const AMOUNT: &str = "name: amount, type: int";

/// A mesh with version 1.0.0 applied and three rows published.
fn published(version: &str) -> TestMesh {
    let mesh = TestMesh::new().by_hand().with_product(ORDERS, &orders(version, &columns(&[ID, AMOUNT]), "")).with_data(
        ORDERS,
        "rows.csv",
        "id,amount\n1,10\n2,20\n3,30\n",
    );
    apply(&mesh);
    publish(&mesh, "rows.csv").expect_code(0);
    mesh
}

fn apply(mesh: &TestMesh) -> Value {
    mesh.run(&["apply", "--format", "json"]).expect_code(0).json()
}

fn publish(mesh: &TestMesh, file: &str) -> Outcome {
    mesh.run(&["publish", ORDERS, &format!("orders=domains/sales/products/orders/{file}"), "--format", "json"])
}

fn plan(mesh: &TestMesh, code: i32) -> Value {
    mesh.run(&["plan", "--format", "json"]).expect_code(code).json()
}

/// The ids of what a plan is refused for.
#[track_caller]
fn refused(mesh: &TestMesh, expected: &[&str]) -> Value {
    let before = mesh.registry("SELECT generation FROM mesh");
    let planned = plan(mesh, 16);
    let ids: Vec<&str> =
        planned["refusals"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, expected, "{planned:#}");
    mesh.run(&["apply"]).expect_code(16);
    assert_eq!(mesh.registry("SELECT generation FROM mesh"), before, "nothing was changed");
    planned["refusals"][0].clone()
}

#[test]
fn a_product_is_planned_applied_and_published() {
    let mesh = TestMesh::new().by_hand().with_product(ORDERS, &orders("1.0.0", &columns(&[ID, AMOUNT]), "")).with_data(
        ORDERS,
        "rows.csv",
        "id,amount\n1,10\n",
    );
    mesh.write("domains/sales/domain.yaml", "name: sales\nowner: sales-team\n");
    let text = mesh.run(&["plan"]).expect_code(0).stdout;
    assert!(text.contains("+ domain sales is new") && text.contains("+ sales/orders 1.0.0 is new"), "{text}");
    mesh.run(&["plan", "--detailed-exitcode"]).expect_code(2);
    let applied = apply(&mesh);
    assert_eq!((&applied["generation"], &applied["changed"]), (&json!(1), &json!(true)));
    assert_eq!(apply(&mesh)["changed"], json!(false), "applied once, there is nothing to do");
    mesh.run(&["plan", "--detailed-exitcode"]).expect_code(0);
    publish(&mesh, "rows.csv").expect_code(0);
    // Comments and the order of keys are no change.
    let text = "# orders\ndataProduct:\n  version: '1.0.0'\n  owner: sales-team   # who answers\n  name: orders\n  schema:\n    - write: append\n      name: orders\n      columns:\n        - {type: int, primaryKey: true, name: id}\n        - {type: int, name: amount}\n";
    mesh.write(FILE, text);
    assert_eq!(plan(&mesh, 0)["changes"], json!(false));
    publish(&mesh, "rows.csv").expect_code(0);
    let shown = mesh.run(&["show", ORDERS, "--format", "json"]).expect_code(0).json();
    assert_eq!((&shown["status"], &shown["revision"], &shown["major"]), (&json!("active"), &json!(1), &json!(1)));
    assert!(shown["applied_by"].as_str().unwrap().starts_with("user:"));
}

#[test]
fn a_manifest_that_was_not_applied_is_not_published() {
    let mesh = published("1.0.0");
    mesh.write(FILE, orders("1.1.0", &columns(&[ID, AMOUNT, "name: note, type: string"]), ""));
    let outcome = publish(&mesh, "rows.csv").expect_code(15);
    assert!(outcome.stderr.contains("datamesh apply"), "{outcome}");
    mesh.write(FILE, orders("2.0.0", &columns(&[ID]), ""));
    publish(&mesh, "rows.csv").expect_code(15);
}

#[test]
fn a_breaking_change_is_refused_and_then_stands_beside() {
    let mesh = published("1.0.0");
    mesh.write(FILE, orders("1.1.0", &columns(&[ID]), ""));
    let refusal = refused(&mesh, &["version-too-small"]);
    assert_eq!(refusal["changes"][0]["rule"], json!("column-removed"));
    // Version 2 beside version 1, which is kept up.
    mesh.write(FILE, orders("2.0.0", &columns(&[ID]), ""));
    mesh.write("domains/sales/products/orders/product.v1.yaml", orders("1.0.0", &columns(&[ID, AMOUNT]), ""));
    let applied = apply(&mesh);
    assert_eq!(applied["products"][0]["action"], json!("new-major"));
    assert_eq!(mesh.count("sales.orders.orders"), 3, "version 1 serves until version 2 has something to serve");
    mesh.write("domains/sales/products/orders/two.csv", "id\n7\n");
    publish(&mesh, "two.csv").expect_code(0);
    assert_eq!(mesh.count("sales.orders_v1.orders"), 3);
    assert_eq!(mesh.count("sales.orders_v2.orders"), 1);
    assert_eq!(mesh.count("sales.orders.orders"), 1);
    mesh.write("domains/sales/products/orders/one.csv", "id,amount\n4,40\n");
    let one = "orders=domains/sales/products/orders/one.csv";
    mesh.run(&["publish", "sales/orders@1", one]).expect_code(0);
    assert_eq!(mesh.count("sales.orders_v1.orders"), 4);
    // Without its manifest, version 1 is the registry's.
    std::fs::remove_file(mesh.path("domains/sales/products/orders/product.v1.yaml")).unwrap();
    assert_eq!(plan(&mesh, 0)["changes"], json!(false));
    mesh.write("domains/sales/products/orders/more.csv", "id,amount\n5,50\n");
    mesh.run(&["publish", "sales/orders@1", "orders=domains/sales/products/orders/more.csv"]).expect_code(0);
    assert_eq!(mesh.count("sales.orders_v1.orders"), 5);
    let shown = mesh.run(&["show", "sales/orders@1", "--format", "json"]).expect_code(0).json();
    assert_eq!((&shown["version"], shown["majors"].as_array().unwrap().len()), (&json!("1.0.0"), 2));
}

#[test]
fn a_minor_version_evolves_the_table_in_place() {
    let mesh = published("1.0.0");
    let added = columns(&[ID, "name: amount, type: long", "name: note, type: string"]);
    mesh.write(FILE, orders("1.1.0", &added, ""));
    let applied = apply(&mesh);
    assert_eq!(applied["evolved"], json!(["sales.orders_v1.orders"]));
    let rows = mesh.query("SELECT id, amount, note FROM sales.orders.orders ORDER BY id");
    assert_eq!(rows[0], json!({"id": 1, "amount": 10, "note": null}));
    mesh.write("domains/sales/products/orders/more.csv", "id,amount,note\n4,3000000000,late\n");
    publish(&mesh, "more.csv").expect_code(0);
    let rows = mesh.query("SELECT amount, note FROM sales.orders.orders WHERE id = 4");
    assert_eq!(rows, [json!({"amount": 3_000_000_000_i64, "note": "late"})]);
    // A key of an old file is found in its new type.
    mesh.write("domains/sales/products/orders/again.csv", "id,amount,note\n1,1,twice\n");
    publish(&mesh, "again.csv").expect_code(3);
    assert_eq!(apply(&mesh)["changed"], json!(false));
}

#[test]
fn a_rename_keeps_the_values_and_a_default_fills_old_rows() {
    let mesh = published("0.1.0");
    let renamed = columns(&[
        ID,
        "name: total, type: int, renamedFrom: amount",
        "name: currency, type: string, required: true, default: EUR",
    ]);
    mesh.write(FILE, orders("0.2.0", &renamed, ""));
    let applied = apply(&mesh);
    assert_eq!(applied["backfilled"], json!(["sales.orders_v0.orders"]), "{applied:#}");
    let rows = mesh.query("SELECT id, total, currency FROM sales.orders.orders ORDER BY id");
    assert_eq!(rows[2], json!({"id": 3, "total": 30, "currency": "EUR"}));
    assert_eq!(rows.len(), 3);
    mesh.write("domains/sales/products/orders/more.csv", "id,total,currency\n4,40,USD\n");
    publish(&mesh, "more.csv").expect_code(0);
    assert_eq!(mesh.count("sales.orders.orders"), 4);
    // Below 1.0.0 a column may go, and its place is not taken by another of its name.
    mesh.write(FILE, orders("0.3.0", &columns(&[ID, "name: currency, type: string"]), ""));
    apply(&mesh);
    mesh.write(FILE, orders("0.4.0", &columns(&[ID, "name: currency, type: string", "name: total, type: int"]), ""));
    apply(&mesh);
    let rows = mesh.query("SELECT total FROM sales.orders.orders WHERE id = 1");
    assert_eq!(rows, [json!({"total": null})], "a new column of an old name is a new column");
}

/// A time from an apply on shows the rows that it left, a time before it those that were published.
#[test]
fn a_time_after_an_apply_shows_what_it_left() {
    let mesh = published("0.1.0");
    let at = |sql: &str| mesh.registry(sql)[0][0].as_str().unwrap().to_owned();
    let published_at = at("SELECT at FROM publications");
    let renamed = columns(&[
        ID,
        "name: total, type: int, renamedFrom: amount",
        "name: currency, type: string, required: true, default: EUR",
    ]);
    mesh.write(FILE, orders("0.2.0", &renamed, ""));
    apply(&mesh);
    let applied_at = at("SELECT created_at FROM revisions WHERE number = 2");
    let first = |version: &str| {
        mesh.query(&format!("SELECT * FROM sales.orders.orders {version} ORDER BY id LIMIT 1")).remove(0)
    };
    let (then, now) = (json!({"id": 1, "amount": 10}), json!({"id": 1, "total": 10, "currency": "EUR"}));
    let check = || {
        assert_eq!(first(&format!("FOR TIMESTAMP AS OF '{published_at}'")), then);
        assert_eq!(first("FOR VERSION AS OF 1"), then, "a publication is what it published");
        let before = format!("FOR TIMESTAMP AS OF TIMESTAMP '{applied_at}' - INTERVAL '1 microsecond'");
        assert_eq!(first(&before), then);
        assert_eq!(first(&format!("FOR TIMESTAMP AS OF '{applied_at}'")), now);
        assert_eq!(first("FOR TIMESTAMP AS OF now()"), now);
        let as_of =
            mesh.run(&["query", "--as-of", "2099-01-01", "--format", "json", "SELECT * FROM sales.orders.orders"]);
        assert!(as_of.expect_code(0).json().as_array().unwrap().contains(&now));
    };
    check();
    // Neither what is published later nor what is merged changes what was.
    mesh.write("domains/sales/products/orders/more.csv", "id,total,currency\n4,40,USD\n");
    publish(&mesh, "more.csv").expect_code(0);
    check();
    mesh.run(&["maintain"]).expect_code(0);
    check();
    let count = format!("SELECT id FROM sales.orders.orders FOR TIMESTAMP AS OF '{applied_at}'");
    assert_eq!(mesh.query(&count).len(), 3);
}

/// A revision that changes names and types only is seen from its time on too.
#[test]
fn a_time_after_the_last_change_shows_the_columns_of_now() {
    let mesh = published("0.1.0");
    mesh.write(FILE, orders("0.2.0", &columns(&[ID, "name: total, type: int, renamedFrom: amount"]), ""));
    apply(&mesh);
    let rows = mesh.query("SELECT * FROM sales.orders.orders FOR TIMESTAMP AS OF now() ORDER BY id LIMIT 1");
    assert_eq!(rows, [json!({"id": 1, "total": 10})]);
    let rows = mesh.query("SELECT * FROM sales.orders.orders FOR VERSION AS OF 1 ORDER BY id LIMIT 1");
    assert_eq!(rows, [json!({"id": 1, "amount": 10})]);
}

#[test]
fn what_is_promised_must_hold_on_what_is_published() {
    let mesh = published("1.0.0");
    let limited = columns(&[ID, "name: amount, type: int, maximum: 20"]);
    mesh.write(FILE, orders("1.1.0", &limited, ""));
    let refusal = refused(&mesh, &["data-does-not-hold"]);
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("1 row breaks `maximum:amount`") && message.contains("of 3 rows"), "{message}");
    let required = columns(&[ID, AMOUNT, "name: note, type: string, required: true"]);
    mesh.write(FILE, orders("1.1.0", &required, ""));
    refused(&mesh, &["data-does-not-hold"]);
    let files = mesh.warehouse();
    mesh.write(FILE, orders("1.1.0", &columns(&[ID, "name: amount, type: int, maximum: 30"]), ""));
    apply(&mesh);
    assert_eq!(mesh.warehouse(), files, "a rule alone writes nothing");
    publish(&mesh, "rows.csv").expect_code(0);
}

#[test]
fn what_a_table_cannot_become_is_refused() {
    let mesh = published("0.1.0");
    mesh.write(FILE, orders("0.2.0", &columns(&[ID, "name: amount, type: string"]), ""));
    refused(&mesh, &["table-cannot-change"]);
    assert_eq!(mesh.count("sales.orders.orders"), 3);
}

#[test]
fn a_plan_file_is_applied_as_it_is_or_not_at_all() {
    let mesh = published("1.0.0");
    mesh.write(FILE, orders("1.0.1", &columns(&[ID, AMOUNT]), "  description: every order\n"));
    mesh.run(&["plan", "--out", "week.plan"]).expect_code(0);
    let text = std::fs::read_to_string(mesh.path("week.plan")).unwrap();
    mesh.write("edited.plan", text.replace("every order", "any order"));
    let outcome = mesh.run(&["apply", "edited.plan"]).expect_code(17);
    assert!(outcome.stderr.contains("changed after it was written"), "{outcome}");
    let other = TestMesh::new().by_hand();
    other.write("week.plan", &text);
    other.run(&["apply", "week.plan"]).expect_code(18);
    mesh.write("newer.plan", text.replace("\"format\": 2,\n    \"mesh\"", "\"format\": 3,\n    \"mesh\""));
    mesh.run(&["apply", "newer.plan"]).expect_code(19);
    mesh.write("none.plan", "{}");
    mesh.run(&["apply", "none.plan"]).expect_code(2);
    // The manifests may have changed since: the plan says what is applied.
    mesh.write(FILE, orders("1.0.2", &columns(&[ID, AMOUNT]), "  description: something else\n"));
    mesh.run(&["apply", "week.plan"]).expect_code(0);
    let shown = mesh.run(&["show", ORDERS, "--format", "json"]).expect_code(0).json();
    assert_eq!((&shown["version"], &shown["description"]), (&json!("1.0.1"), &json!("every order")));
    mesh.run(&["apply", "week.plan"]).expect_code(20);
    // What was published since makes a plan for that table stale.
    mesh.write(FILE, orders("1.1.0", &columns(&[ID, AMOUNT, "name: note, type: string"]), ""));
    mesh.run(&["plan", "--out", "next.plan"]).expect_code(0);
    mesh.write("domains/sales/products/orders/old.yaml", "");
    mesh.registry("UPDATE tables SET metadata_location = metadata_location || 'x'");
    mesh.run(&["apply", "next.plan"]).expect_code(20);
}

#[test]
fn retiring_lists_who_reads_and_then_nobody_does() {
    let mesh = published("1.0.0");
    let reader = "dataProduct:\n  name: totals\n  version: 1.0.0\n  owner: sales-team\n  inputs: [sales/orders@^1]\n  schema:\n    - name: t\n      transform: 'SELECT sum(amount) AS n FROM sales.orders.orders'\n      columns: [{name: n, type: long}]\n";
    mesh.write("domains/sales/products/totals/product.yaml", reader);
    apply(&mesh);
    std::fs::remove_dir_all(mesh.path("domains/sales/products/orders")).unwrap();
    let refusal = refused(&mesh, &["retire-with-consumers"]);
    assert_eq!(refusal["consumers"][0]["product"], json!("sales/totals"));
    mesh.run(&["apply", "--allow-retire"]).expect_code(0);
    let outcome = mesh.run(&["query", "SELECT * FROM sales.orders.orders"]).expect_code(9);
    assert!(outcome.stderr.contains("is retired"), "{outcome}");
    mesh.write("rows.csv", "id,amount\n9,9\n");
    let outcome = mesh.run(&["publish", "sales/orders@1", "orders=rows.csv"]).expect_code(15);
    assert!(outcome.stderr.contains("is retired"), "{outcome}");
    assert_eq!(plan(&mesh, 0)["changes"], json!(false));
}

#[test]
fn a_domain_is_applied_alone() {
    let mesh = published("1.0.0");
    mesh.write("domains/sales/domain.yaml", "name: sales\nowner: sales-team\n");
    let other = named("stock", "1.0.0", &columns(&[ID]), "");
    mesh.write("domains/depot/domain.yaml", "name: depot\nowner: depot-team\n");
    mesh.write("domains/depot/products/stock/product.yaml", other);
    apply(&mesh);
    std::fs::remove_dir_all(mesh.path("domains/depot/products/stock")).unwrap();
    let planned = mesh.run(&["plan", "domains/sales", "--format", "json"]).expect_code(0).json();
    assert_eq!(planned["changes"], json!(false), "{planned:#}");
    let planned = mesh.run(&["plan", "domains/depot", "--format", "json"]).expect_code(0).json();
    assert_eq!(planned["products"][0]["action"], json!("retire"));
}

#[test]
fn a_product_moves_with_its_history() {
    let mesh = published("1.0.0");
    let moved = orders("1.0.0", &columns(&[ID, AMOUNT]), "  movedFrom: sales/orders\n");
    mesh.write("domains/shop/products/orders/product.yaml", moved);
    std::fs::remove_dir_all(mesh.path("domains/sales")).unwrap();
    let applied = apply(&mesh);
    assert_eq!(applied["moves"][0]["to"], json!({"domain": "shop", "product": "orders"}));
    assert_eq!(mesh.count("shop.orders.orders"), 3);
    assert_eq!(mesh.publications("shop/orders").len(), 1);
    mesh.run(&["query", "SELECT * FROM sales.orders.orders"]).expect_code(9);
    mesh.write("more.csv", "id,amount\n4,40\n");
    mesh.run(&["publish", "shop/orders", "orders=more.csv"]).expect_code(0);
    assert_eq!(mesh.count("shop.orders.orders"), 4);
    mesh.run(&["publish", "shop/orders", "orders=more.csv"]).expect_code(0);
    assert_eq!(mesh.count("shop.orders.orders"), 4, "a repeat is known after the move");
    mesh.run(&["lineage", "shop/orders"]).expect_code(0);
    mesh.run(&["maintain", "--older-than", "0s"]).expect_code(0);
    assert_eq!(mesh.count("shop.orders.orders"), 4, "its files stay where they are");
    assert_eq!(apply(&mesh)["changed"], json!(false));
    // Another product of the former name does not harm what moved.
    mesh.write(FILE, orders("1.0.0", &columns(&[ID]), ""));
    mesh.write("new.csv", "id\n1\n");
    mesh.run(&["publish", "sales/orders", "orders=new.csv"]).expect_code(0);
    mesh.run(&["maintain", "--older-than", "0s"]).expect_code(0);
    assert_eq!((mesh.count("shop.orders.orders"), mesh.count("sales.orders.orders")), (4, 1));
}

#[test]
fn bad_input_changes_nothing() {
    let mesh = published("1.0.0");
    let with = |rest: &str| named("other", "1.0.0", &columns(&[ID]), rest);
    let other = "domains/sales/products/other/product.yaml";
    mesh.write(other, with("  inputs: [sales/nothing]\n"));
    refused(&mesh, &["unknown-input"]);
    mesh.write(other, with("  inputs: [sales/orders@^7]\n"));
    refused(&mesh, &["unsatisfied-input"]);
    mesh.write(other, with("  movedFrom: sales/nothing\n"));
    refused(&mesh, &["unknown-product"]);
    mesh.write(other, with("  inputs: [sales/orders]\n"));
    mesh.write(FILE, orders("1.0.1", &columns(&[ID, AMOUNT]), "  inputs: [sales/other]\n"));
    refused(&mesh, &["input-cycle"]);
    std::fs::remove_dir_all(mesh.path("domains/sales/products/other")).unwrap();
    mesh.write(FILE, named("Orders", "1.0.0", &columns(&[ID, AMOUNT]), ""));
    refused(&mesh, &["name-collision"]);
    mesh.write(FILE, orders("1.0.0", &columns(&[ID, AMOUNT]), "  status: draft\n"));
    refused(&mesh, &["lifecycle-backwards"]);
    mesh.write(FILE, orders("0.9.0", &columns(&[ID, AMOUNT]), ""));
    refused(&mesh, &["version-backwards"]);
    mesh.write(FILE, orders("1.1.0", &columns(&[ID, AMOUNT]), "  status: deprecated\n"));
    let outcome = mesh.run(&["plan"]).expect_code(4);
    assert!(outcome.stderr.contains("endOfSupport"), "{outcome}");
    mesh.write(FILE, "dataProduct: {name: broken}\n");
    mesh.run(&["apply"]).expect_code(4);
    mesh.run(&["apply", "nowhere"]).expect_code(6);
    mesh.write(FILE, orders("1.0.0", &columns(&[ID, AMOUNT]), ""));
    assert_eq!(plan(&mesh, 0)["changes"], json!(false));
    assert_eq!(mesh.count("sales.orders.orders"), 3);
    mesh.registry("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 8");
    mesh.run(&["plan"]).expect_code(11);
}

#[test]
fn of_two_applies_at_once_one_wins() {
    let mesh = published("1.0.0");
    mesh.write(FILE, orders("1.1.0", &columns(&[ID, AMOUNT, "name: note, type: string"]), ""));
    mesh.run(&["plan", "--out", "a.plan"]).expect_code(0);
    let running: Vec<_> = (0..2).map(|_| start(mesh.command(&["apply", "a.plan"]))).collect();
    let mut codes: Vec<_> = running.into_iter().map(|running| running.wait().code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(20)]);
    assert_eq!(mesh.count("sales.orders.orders"), 3);
    publish(&mesh, "rows.csv").expect_code(0);
}

#[test]
fn a_publish_under_way_does_not_undo_an_apply() {
    let mesh = published("1.0.0");
    mesh.write("more.csv", "id,amount\n4,40\n");
    let held = mesh.path("held");
    let mut command = mesh.command(&["publish", ORDERS, "orders=more.csv", "--format", "json"]);
    command.env("DATAMESH_FAULT", format!("hold:judged:{}", held.display()));
    let mut running = start(command);
    running.until("it is judged", || held.exists());
    mesh.write(FILE, orders("1.1.0", &columns(&[ID, AMOUNT, "name: note, type: string"]), ""));
    apply(&mesh);
    std::fs::remove_file(&held).unwrap();
    let outcome = running.wait().expect_code(5);
    assert!(outcome.json()["because"].to_string().contains("applied another contract"), "{outcome}");
    assert_eq!(mesh.count("sales.orders.orders"), 3);
}

#[test]
fn a_crash_in_an_apply_leaves_what_was() {
    for step in ["authorized", "leased", "staged", "metadata-written", "transaction-written", "committed", "cleaned"] {
        let mesh = published("1.0.0");
        let added = columns(&[ID, AMOUNT, "name: currency, type: string, default: EUR"]);
        mesh.write(FILE, orders("1.1.0", &added, ""));
        let mut command = mesh.wrapped(BINARY, &["apply"]);
        command.env("DATAMESH_FAULT", format!("kill:{step}"));
        assert_eq!(finish(command).signal(), Some(9), "{step}");
        check_told(&mesh);
        let committed = ["committed", "cleaned"].contains(&step);
        let known = mesh.run(&["query", "SELECT currency FROM sales.orders.orders"]).code() == Some(0);
        assert_eq!(known, committed, "{step}");
        assert_eq!(mesh.count("sales.orders.orders"), 3, "{step}");
        assert_eq!(apply(&mesh)["changed"], json!(!committed), "{step}");
        let rows = mesh.query("SELECT DISTINCT currency FROM sales.orders.orders");
        assert_eq!(rows, [json!({"currency": "EUR"})], "{step}");
        mesh.registry("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'");
        mesh.run(&["maintain", "--no-compact"]).expect_code(0);
        assert_eq!(mesh.count("sales.orders.orders"), 3, "{step}");
        assert_eq!(mesh.registry("SELECT attempt FROM leases").len(), 0, "{step}");
    }
}
