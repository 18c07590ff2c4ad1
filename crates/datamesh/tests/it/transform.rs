//! Products made of other products: chains, pins, increments, what `check` and `test` say of them, and crashes.

use datamesh_core::ports::PublishStep;
use serde_json::{Value, json};

use crate::support::{Outcome, TestMesh, finish, start};

const SIGKILL: i32 = 9;

/// A product of events that only grow.
const EVENTS: &str = "dataProduct:
  name: events
  version: 1.2.0
  owner: web-team
  schema:
    - name: clicks
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: shop, type: string}
        - {name: amount, type: int}
      quarantine: {limit: 100%}
";

fn product(name: &str, inputs: &str, tables: &str) -> String {
    format!(
        "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: shop-team\n  inputs: [{inputs}]\n  schema:\n{tables}"
    )
}

/// A table with these columns (`name type`), made by a transform.
fn table(name: &str, write: &str, transform: &str, columns: &[&str]) -> String {
    let mut text = format!("    - name: {name}\n      write: {write}\n      transform: {transform}\n      columns:\n");
    for column in columns {
        let (column, kind) = column.split_once(' ').unwrap();
        text.push_str(&format!("        - {{name: {column}, type: {kind}}}\n"));
    }
    text
}

/// A chain of three: clicks, what each shop took, and the best shop.
fn chain() -> TestMesh {
    let totals = table("totals", "replace", "totals.sql", &["shop string", "clicks long", "amount long"]);
    let best = table(
        "best",
        "replace",
        "'SELECT shop FROM shop.totals.totals ORDER BY amount DESC LIMIT 1'",
        &["shop string"],
    );
    TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("shop/totals", &product("totals", "web/events@^1", &totals))
        .with_data(
            "shop/totals",
            "totals.sql",
            "-- What each shop took.\nSELECT shop, count(*) AS clicks, sum(amount) AS amount\nFROM web.events.clicks\nGROUP BY shop\n",
        )
        .with_product("shop/best", &product("best", "shop/totals@^1", &best))
}

/// Publishes clicks with these ids, ten cents each, in shop `a` or `b` by turns.
fn publish(mesh: &TestMesh, ids: std::ops::RangeInclusive<i64>) {
    let rows = ids.map(|id| format!("{id},{},10\n", if id % 2 == 0 { "a" } else { "b" }));
    let text: String = std::iter::once("id,shop,amount\n".to_owned()).chain(rows).collect();
    let path = mesh.write("data/clicks.csv", text);
    mesh.run(&["publish", "web/events", &format!("clicks={}", path.display())]).expect_code(0);
}

fn run(mesh: &TestMesh, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["run"].iter().chain(arguments).chain(&["--format", "json"]).copied().collect();
    mesh.run(&arguments).expect_code(0).json()
}

/// What became of each product of a chain, in the order in which they ended.
fn outcomes(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{document}")).to_owned();
    let products = document["products"].as_array().unwrap_or_else(|| panic!("{document}"));
    products.iter().map(|product| (text(&product["product"]), text(&product["outcome"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_chain_runs_in_the_order_of_its_dependencies() {
    let mesh = chain();
    let outcome = mesh.run(&["run", "shop/best"]).expect_code(6);
    assert!(outcome.stderr.contains("`shop/totals` is not published"), "{outcome}");
    publish(&mesh, 1..=5);

    let document = run(&mesh, &["best", "--upstream"]);
    let expected = [("web/events", "nothing-to-run"), ("shop/totals", "published"), ("shop/best", "published")];
    assert_eq!(outcomes(&document), pairs(&expected));
    assert_eq!(mesh.query("SELECT * FROM shop.totals.totals ORDER BY shop").len(), 2);
    assert_eq!(mesh.query("SELECT shop FROM shop.best.best"), [json!({ "shop": "b" })]);

    let repeat = run(&mesh, &["best", "--upstream"]);
    let expected = [("web/events", "nothing-to-run"), ("shop/totals", "repeat"), ("shop/best", "repeat")];
    assert_eq!(outcomes(&repeat), pairs(&expected));
    assert_eq!(mesh.publications("shop/totals").len(), 1);

    publish(&mesh, 6..=10);
    publish(&mesh, 12..=12);
    assert_eq!(run(&mesh, &["--all"])["exitCode"], 0);
    assert_eq!(mesh.query("SELECT shop FROM shop.best.best"), [json!({ "shop": "a" })]);
}

#[test]
fn what_was_read_is_recorded_with_the_publication() {
    let mesh = chain();
    publish(&mesh, 1..=5);
    let report = run(&mesh, &["totals"]);
    let pin = &report["transforms"][0]["inputs"][0];
    assert_eq!(pin["domain"], "web");
    assert_eq!(pin["product"], "events");
    assert_eq!(pin["major"], 1);
    assert_eq!(pin["version"], "1.2.0");
    assert_eq!(pin["table"], "clicks");
    assert_eq!(pin["publication"], 1);
    let rows = mesh.registry(
        "SELECT i.publication, t.sql_hash, i.input_table, i.snapshot_id, i.input_publication FROM publication_inputs i
         JOIN publication_transforms t ON t.publication = i.publication AND t.table_name = i.table_name",
    );
    let expected = json!([[2, report["transforms"][0]["sqlHash"], "clicks", pin["snapshotId"], 1]]);
    assert_eq!(json!(rows), expected);
    let reads = mesh.registry("SELECT resource FROM decisions WHERE action = 'read'");
    assert_eq!(json!(reads), json!([["web.events_v1.clicks"]]));
    let contract = &mesh.registry("SELECT contract FROM revisions WHERE product = 'totals'")[0][0];
    assert!(contract.as_str().unwrap().contains("What each shop took."), "the query's text is part of the contract");
}

#[test]
fn another_query_or_contract_is_no_repeat() {
    let mesh = chain();
    publish(&mesh, 1..=5);
    run(&mesh, &["totals"]);
    let sql = "SELECT shop, count(*) AS clicks, 2 * sum(amount) AS amount FROM web.events.clicks GROUP BY shop";
    mesh.write("domains/shop/products/totals/totals.sql", sql);
    assert_eq!(run(&mesh, &["totals"])["status"], "published");
    assert_eq!(mesh.number("SELECT sum(amount) FROM shop.totals.totals"), 100);
    assert_eq!(run(&mesh, &["totals"])["status"], "repeat");
    assert_eq!(run(&mesh, &["totals", "--again"])["status"], "published");
    let path = mesh.write("data/totals.csv", "shop,clicks,amount\nx,1,1\n");
    mesh.run(&["publish", "totals", &format!("totals={}", path.display())]).expect_code(0);
    assert_eq!(run(&mesh, &["totals"])["status"], "published", "what was published by hand is no run");
    assert_eq!(mesh.count("shop.totals.totals"), 2);
}

#[test]
fn several_tables_and_a_source_are_published_together_or_not_at_all() {
    let tables = table("shops", "replace", "'SELECT DISTINCT shop FROM web.events.clicks'", &["shop string"])
        + &table("ids", "replace", "'SELECT id FROM web.events.clicks'", &["id long"])
        + "      quality: [rowCount < 6]\n"
        + "    - name: names\n      write: replace\n      source: names.csv\n      columns: [{name: shop, type: string}]\n";
    let mesh = TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("shop/lists", &product("lists", "web/events", &tables))
        .with_data("shop/lists", "names.csv", "shop\na\nb\nc\n");
    publish(&mesh, 1..=5);
    let report = run(&mesh, &["lists"]);
    assert_eq!(report["tables"].as_array().unwrap().len(), 3);
    assert_eq!(mesh.publications("lists").len(), 1);
    let counts = || ["shops", "ids", "names"].map(|table| mesh.count(&format!("shop.lists.{table}")));
    assert_eq!(counts(), [2, 5, 3]);

    publish(&mesh, 6..=7);
    let path = mesh.write("data/one.csv", "id,shop,amount\n100,z,1\n");
    mesh.run(&["publish", "web/events", &format!("clicks={}", path.display())]).expect_code(0);
    let rejected = mesh.run(&["run", "lists", "--format", "json"]).expect_code(3).json();
    assert_eq!(rejected["status"], "rejected");
    assert_eq!(counts(), [2, 5, 3], "the last good publication still serves, whole");
}

#[test]
fn a_replaced_table_is_made_again_when_one_that_it_refers_to_changes() {
    let base = "dataProduct:
  name: base
  version: 1.0.0
  owner: web-team
  schema:
    - {name: people, write: replace, columns: [{name: id, type: long}]}
    - {name: visits, write: replace, columns: [{name: id, type: long}, {name: person, type: long}]}
";
    let people = table("people", "replace", "'SELECT id FROM web.base.people'", &["id long"]);
    let columns = ["id long", "person long, references: people.id"];
    let visits = table("visits", "replace", "'SELECT id, person FROM web.base.visits'", &columns);
    let tables = format!("{people}{visits}      quarantine: 50%\n");
    let mesh = TestMesh::new()
        .with_product("web/base", base)
        .with_product("shop/kept", &product("kept", "web/base@^1", &tables));
    mesh.write("people.csv", "id\n1\n2\n");
    mesh.write("visits.csv", "id,person\n1,1\n2,2\n");
    mesh.run(&["publish", "web/base", "people=people.csv", "visits=visits.csv"]).expect_code(0);
    mesh.run(&["run", "shop/kept"]).expect_code(0);
    let served = |mesh: &TestMesh| mesh.query("SELECT id FROM shop.kept.visits ORDER BY id");
    assert_eq!(served(&mesh), [json!({ "id": 1 }), json!({ "id": 2 })]);

    mesh.write("people.csv", "id\n1\n");
    mesh.run(&["publish", "web/base", "people=people.csv"]).expect_code(0);
    mesh.run(&["run", "shop/kept"]).expect_code(0);
    assert_eq!(served(&mesh), [json!({ "id": 1 })]);
    mesh.run(&["run", "shop/kept"]).expect_code(0);
    assert_eq!(mesh.publications("shop/kept").len(), 2);
}

#[test]
fn a_failed_product_stops_only_those_that_rest_on_it() {
    let one = |name: &str, input: &str, sql: &str| product(name, input, &table("t", "replace", sql, &["n long"]));
    let mesh = TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("shop/bad", &one("bad", "web/events", "'SELECT 1 / (amount - 10) AS n FROM web.events.clicks'"))
        .with_product("shop/after", &one("after", "shop/bad", "'SELECT n FROM shop.bad.t'"))
        .with_product("shop/last", &one("last", "shop/after", "'SELECT n FROM shop.after.t'"))
        .with_product("shop/good", &one("good", "web/events", "'SELECT count(*) AS n FROM web.events.clicks'"));
    publish(&mesh, 1..=5);
    let outcome = mesh.run(&["run", "--all", "--format", "json"]).expect_code(9);
    let document = outcome.json();
    let mut found = outcomes(&document);
    found.sort();
    let expected = [
        ("shop/after", "not-run"),
        ("shop/bad", "failed"),
        ("shop/good", "published"),
        ("shop/last", "not-run"),
        ("web/events", "nothing-to-run"),
    ];
    assert_eq!(found, pairs(&expected), "{outcome}");
    let failed = document["products"].as_array().unwrap().iter().find(|product| product["outcome"] == "failed");
    assert_eq!(failed.unwrap()["error"]["code"], "invalid-query");
    assert_eq!(mesh.count("shop.good.t"), 1);
    assert!(mesh.warehouse().keys().all(|path| !path.contains("/bad_v1/")), "a failed run leaves no files");
}

#[test]
fn a_range_means_the_newest_published_version_within_it() {
    let versioned = |version: &str| EVENTS.replace("1.2.0", version);
    let mesh = TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("web/events-two", &versioned("2.1.0"))
        .with_product("web/events-next", &versioned("0.9.0"));
    let path = mesh.write("data/two.csv", "id,shop,amount\n1,x,1\n2,x,1\n");
    mesh.run(&["apply"]).expect_code(0);
    for folder in ["events", "events-two", "events-next"] {
        let folder = format!("domains/web/products/{folder}");
        mesh.run(&["publish", &folder, &format!("clicks={}", path.display())]).expect_code(0);
    }
    let pinned = |input: &str| {
        let tables = table("n", "replace", "'SELECT count(*) AS n FROM web.events.clicks'", &["n long"]);
        mesh.write("domains/shop/products/reader/product.yaml", product("reader", input, &tables));
        let report = run(&mesh, &["reader", "--again"]);
        report["transforms"][0]["inputs"][0]["version"].as_str().unwrap().to_owned()
    };
    assert_eq!(pinned("web/events"), "2.1.0");
    assert_eq!(pinned("web/events@^1"), "1.2.0");
    assert_eq!(pinned("'web/events@<2'"), "1.2.0", "an active version before a draft");
    assert_eq!(pinned("web/events@^0.9"), "0.9.0");
    mesh.write(
        "domains/shop/products/reader/product.yaml",
        product(
            "reader",
            "web/events@^3",
            &table("n", "replace", "'SELECT id AS n FROM web.events.clicks'", &["n long"]),
        ),
    );
    let outcome = mesh.run(&["plan"]).expect_code(16);
    assert!(outcome.stdout.contains("web/events@^3") && outcome.stdout.contains("2.1.0"), "{outcome}");
    mesh.run(&["run", "reader"]).expect_code(6);
}

/// A mesh whose product adds up clicks that are new.
fn incremental() -> TestMesh {
    let columns = ["id long", "amount int"];
    let changes = "'SELECT id, amount FROM {changes(web.events.clicks)}'";
    let tables = table("log", "append", changes, &columns) + "      quality: [\"rowCount < 1000\"]\n";
    TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("shop/log", &product("log", "web/events@^1", &tables).replace("version: 1.0.0", "version: 0.1.0"))
}

fn ids(mesh: &TestMesh) -> Vec<i64> {
    let rows = mesh.query("SELECT id FROM shop.log.log ORDER BY id");
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[test]
fn changes_are_read_once_each() {
    let mesh = incremental();
    publish(&mesh, 1..=5);
    let first = run(&mesh, &["log"]);
    assert_eq!(first["tables"][0]["in"], 5);
    assert!(first["transforms"][0]["inputs"][0].get("since").is_none(), "{first}");
    assert_eq!(run(&mesh, &["log"])["status"], "repeat");

    publish(&mesh, 6..=8);
    publish(&mesh, 9..=9);
    let second = run(&mesh, &["log"]);
    assert_eq!(second["tables"][0]["in"], 4, "two publications at once");
    assert_eq!(second["transforms"][0]["inputs"][0]["since"], first["transforms"][0]["inputs"][0]["snapshotId"]);
    assert_eq!(ids(&mesh), (1..=9).collect::<Vec<_>>());

    // A dry run and a rejected one leave the pin where it was.
    publish(&mesh, 10..=12);
    assert_eq!(run(&mesh, &["log", "--dry-run"])["tables"][0]["in"], 3);
    let manifest = "domains/shop/products/log/product.yaml";
    let good = std::fs::read_to_string(mesh.path(manifest)).unwrap();
    mesh.write(manifest, good.replace("rowCount < 1000", "rowCount < 10"));
    mesh.run(&["run", "log"]).expect_code(3);
    mesh.write(manifest, good);
    publish(&mesh, 13..=13);
    assert_eq!(run(&mesh, &["log"])["tables"][0]["in"], 4);
    assert_eq!(ids(&mesh), (1..=13).collect::<Vec<_>>());

    let refreshed = run(&mesh, &["log", "--full-refresh"]);
    assert_eq!(refreshed["tables"][0]["write"], "replace");
    assert_eq!(ids(&mesh), (1..=13).collect::<Vec<_>>());
    publish(&mesh, 14..=14);
    assert_eq!(run(&mesh, &["log"])["tables"][0]["in"], 1, "increments go on after a refresh");
}

/// What was held back is among the rows of a run that makes all of them anew.
#[test]
fn a_refresh_outdates_what_was_held_back() {
    let mesh = incremental();
    let manifest = "domains/shop/products/log/product.yaml";
    let good = std::fs::read_to_string(mesh.path(manifest)).unwrap();
    let strict = "quarantine: 50%\n      quality: [{name: small, condition: id < 5}]";
    mesh.write(manifest, good.replace("quality: [\"rowCount < 1000\"]", strict));
    publish(&mesh, 1..=5);
    assert_eq!(run(&mesh, &["log"])["tables"][0]["quarantined"], 1);
    mesh.write(manifest, good);
    run(&mesh, &["log", "--full-refresh"]);
    let retried = mesh.run(&["quarantine", "retry", "shop/log"]).expect_code(0);
    assert!(retried.stdout.contains("`log` was replaced since"), "{retried}");
    assert_eq!(ids(&mesh), [1, 2, 3, 4, 5]);
}

/// Merged files hold no news, and what a consumer has not read yet neither expires nor is it deleted.
#[test]
fn increments_survive_maintenance() {
    let events = EVENTS.replace("  schema:", "  sla: {retention: 0s}\n  schema:");
    let mesh = incremental().with_product("web/events", &events);
    publish(&mesh, 1..=2);
    publish(&mesh, 3..=4);
    run(&mesh, &["log"]);
    publish(&mesh, 5..=6);
    publish(&mesh, 7..=8);
    let maintain = || mesh.run(&["maintain", "--older-than", "0s", "--format", "json"]).expect_code(0).json();
    let report = maintain();
    let clicks = &report["tables"].as_array().unwrap().iter().find(|table| table["table"] == "web.events_v1.clicks");
    let clicks = clicks.unwrap_or_else(|| panic!("{report}"));
    assert_eq!((&clicks["compactedFiles"], &clicks["expiredSnapshots"]), (&json!(4), &json!(1)), "{report}");

    publish(&mesh, 9..=9);
    assert_eq!(run(&mesh, &["log"])["tables"][0]["in"], 5, "those that were merged, and one more");
    assert_eq!(ids(&mesh), (1..=9).collect::<Vec<_>>());
    let report = maintain();
    let expired = report["tables"].as_array().unwrap().iter().map(|table| table["expiredSnapshots"].as_i64().unwrap());
    assert!(expired.sum::<i64>() >= 4, "what was read may go: {report}");
    publish(&mesh, 10..=10);
    assert_eq!(run(&mesh, &["log"])["tables"][0]["in"], 1);
}

/// Over a rollback it cannot be told what is new: some of it was read already.
#[test]
fn increments_over_a_rollback_are_refused() {
    let mesh = incremental();
    publish(&mesh, 1..=2);
    publish(&mesh, 3..=4);
    run(&mesh, &["log"]);
    mesh.run(&["rollback", "web/events", "--to", "1"]).expect_code(0);
    let refused = mesh.run(&["run", "log"]).expect_code(13);
    assert!(refused.stderr.contains("is no append") && refused.stderr.contains("--full-refresh"), "{refused}");
    assert_eq!(ids(&mesh), [1, 2, 3, 4]);
    run(&mesh, &["log", "--full-refresh"]);
    assert_eq!(ids(&mesh), [1, 2]);
}

/// What a consumer reads of its inputs shows in `lineage`, both ways.
#[test]
fn lineage_follows_a_transform_from_end_to_end() {
    let mesh = chain();
    publish(&mesh, 1..=5);
    run(&mesh, &["best", "--upstream"]);
    let up = mesh.run(&["lineage", "shop/best.best.shop", "--up", "--format", "json"]).expect_code(0).json();
    let text = up.to_string();
    assert!(text.contains("shop.totals_v1.totals") && text.contains("web.events_v1.clicks"), "{up}");
    let down = mesh.run(&["lineage", "web.events.clicks.amount", "--down"]).expect_code(0);
    assert!(down.stdout.contains("shop.totals_v1.totals") && down.stdout.contains("AGGREGATION"), "{down}");
    let mermaid = mesh.run(&["lineage", "shop/best", "--format", "mermaid"]).expect_code(0);
    assert!(mermaid.stdout.starts_with("flowchart") && mermaid.stdout.contains("totals"), "{mermaid}");
}

#[test]
fn changes_with_the_same_content_are_news() {
    let mesh = TestMesh::new();
    let events = EVENTS.replace(", primaryKey: true", "");
    let tables = table(
        "log",
        "append",
        "'SELECT shop, count(*) AS n FROM {changes(web.events.clicks)} GROUP BY shop'",
        &["shop string", "n long"],
    );
    let mesh =
        mesh.with_product("web/events", &events).with_product("shop/log", &product("log", "web/events", &tables));
    publish(&mesh, 1..=4);
    run(&mesh, &["log"]);
    publish(&mesh, 5..=8);
    assert_eq!(run(&mesh, &["log"])["status"], "published");
    assert_eq!(mesh.number("SELECT sum(n) FROM shop.log.log"), 8);
}

#[test]
fn changes_need_an_input_that_only_grows() {
    let mesh = incremental();
    for mode in ["upsert", "replace"] {
        mesh.write(
            "domains/web/products/events/product.yaml",
            EVENTS.replace("name: clicks", &format!("name: clicks\n      write: {mode}")),
        );
        let outcome = mesh.run(&["check"]).expect_code(4);
        assert!(outcome.stdout.contains("needs an input that only grows"), "{mode}: {outcome}");
    }
    publish(&mesh, 1..=5);
    let outcome = mesh.run(&["run", "log"]).expect_code(4);
    assert!(outcome.stderr.contains("needs an input that only grows"), "{outcome}");

    // The contract appends now, but the history has rows replaced.
    publish(&mesh, 1..=6);
    mesh.write("domains/web/products/events/product.yaml", EVENTS);
    publish(&mesh, 7..=7);
    run(&mesh, &["log"]);
    assert_eq!(ids(&mesh), (1..=7).collect::<Vec<_>>(), "the first run reads everything");
    mesh.write(
        "domains/web/products/events/product.yaml",
        EVENTS.replace("name: clicks", "name: clicks\n      write: replace"),
    );
    publish(&mesh, 1..=8);
    mesh.write("domains/web/products/events/product.yaml", EVENTS);
    publish(&mesh, 9..=9);
    let outcome = mesh.run(&["run", "log"]).expect_code(13);
    assert!(
        outcome.stderr.contains("is no append but `overwrite`") && outcome.stderr.contains("--full-refresh"),
        "{outcome}"
    );
    run(&mesh, &["log", "--full-refresh"]);
    assert_eq!(ids(&mesh), (1..=9).collect::<Vec<_>>());
}

/// An increment is where a lost pin would lose rows and a doubled commit would double them.
#[test]
fn an_increment_killed_at_any_step_commits_once() {
    let mesh = incremental();
    publish(&mesh, 1..=10);
    run(&mesh, &["log"]);
    let mut last = 10;
    for step in PublishStep::ALL {
        publish(&mesh, last + 1..=last + 10);
        let mut command = mesh.command(&["run", "log", "--format", "json"]);
        command.env("DATAMESH_FAULT", format!("kill:{step}"));
        let outcome = finish(command);
        assert_eq!(outcome.signal(), Some(SIGKILL), "{outcome}");
        let at = |wanted| PublishStep::ALL.iter().position(|step| *step == wanted);
        let committed = at(step) >= at(PublishStep::Committed);
        let serves = if committed { last + 10 } else { last };
        assert_eq!(ids(&mesh), (1..=serves).collect::<Vec<_>>(), "after a crash at `{step}`");
        last += 10;
        assert_eq!(run(&mesh, &["log"])["status"], if committed { "repeat" } else { "published" });
        assert_eq!(ids(&mesh), (1..=last).collect::<Vec<_>>(), "after a crash at `{step}`");
    }
}

#[test]
fn runs_at_the_same_time_add_each_row_once() {
    let mesh = incremental();
    publish(&mesh, 1..=10);
    for round in 1..=3 {
        let runs: Vec<_> = (0..4).map(|_| start(mesh.command(&["run", "log", "--format", "json"]))).collect();
        let ended: Vec<Outcome> = runs.into_iter().map(|running| running.wait().expect_code(0)).collect();
        let published = ended.iter().filter(|outcome| outcome.json()["status"] == "published").count();
        assert_eq!(published, 1, "{ended:?}");
        assert_eq!(ids(&mesh), (1..=10 * round).collect::<Vec<_>>());
        publish(&mesh, 10 * round + 1..=10 * round + 10);
    }

    // One is held with everything staged, while another commits.
    let flag = mesh.path("held");
    let mut command = mesh.command(&["run", "log", "--format", "json"]);
    command.env("DATAMESH_FAULT", format!("hold:judged:{}", flag.display()));
    let mut held = start(command);
    held.until("it is held", || flag.exists());
    assert_eq!(run(&mesh, &["log"])["status"], "published");
    std::fs::remove_file(&flag).unwrap();
    let outcome = held.wait().expect_code(0);
    assert_eq!(outcome.json()["status"], "repeat", "{outcome}");
    assert_eq!(ids(&mesh), (1..=40).collect::<Vec<_>>());
}

#[track_caller]
fn diagnostics(mesh: &TestMesh, arguments: &[&str]) -> Vec<(String, String, u64, String)> {
    let arguments: Vec<&str> = ["check", "--format", "json"].iter().chain(arguments).copied().collect();
    let outcome = mesh.run(&arguments);
    let document = outcome.json();
    let found = document["diagnostics"].as_array().unwrap().iter().filter(|found| found["level"] != "note");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    found
        .map(|found| {
            let file = text(&found["location"]["file"]);
            let file = file.rsplit('/').next().unwrap_or_default().to_owned();
            (text(&found["id"]), file, found["location"]["line"].as_u64().unwrap(), text(&found["message"]))
        })
        .collect()
}

/// Checks a product `shop/p` with one table `t` over `web/events`.
#[track_caller]
fn check_one(inputs: &str, rest: &str, sql: &str, expected: &[(&str, &str, u64, &str)]) {
    let tables = format!(
        "    - name: t\n      transform: t.sql\n{rest}      columns:\n        - {{name: id, type: long, primaryKey: true}}\n        - {{name: shop, type: string}}\n"
    );
    let mesh = TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("shop/p", &product("p", inputs, &tables))
        .with_data("shop/p", "t.sql", sql);
    let found = diagnostics(&mesh, &[]);
    let short: Vec<_> = found.iter().map(|(id, file, line, _)| (id.as_str(), file.as_str(), *line)).collect();
    let wanted: Vec<_> = expected.iter().map(|(id, file, line, _)| (*id, *file, *line)).collect();
    assert_eq!(short, wanted, "{found:#?}");
    for ((_, _, _, message), (_, _, _, part)) in found.iter().zip(expected) {
        assert!(message.contains(part), "`{message}` does not have `{part}`");
    }
}

#[test]
fn check_plans_transforms_against_the_contracts_of_their_inputs() {
    let good = "SELECT id, shop\nFROM web.events.clicks";
    check_one("web/events@^1", "", good, &[]);
    check_one(
        "web/events@^1",
        "",
        "-- Nothing is what it seems.\nSELECT id, shop\nFROM web.events.click",
        &[("unknown-table", "t.sql", 3, "`web/events` has no table `click`")],
    );
    check_one(
        "web/events@^1",
        "",
        "SELECT id, shop,\n  mood\nFROM web.events.clicks",
        &[("invalid-transform", "t.sql", 2, "mood")],
    );
    check_one("web/events@^1", "", "SELECT id,\n shop FORM x", &[("invalid-transform", "t.sql", 2, "")]);
    check_one("web/events@^1", "", "DELETE FROM web.events.clicks", &[("invalid-transform", "t.sql", 1, "one SELECT")]);
    check_one(
        "web/events@^1",
        "",
        "SELECT amount AS shop, id, amount FROM web.events.clicks",
        &[
            ("column-type", "product.yaml", 11, "column `shop` as Int32, which is never string"),
            ("ignored-column", "t.sql", 1, "amount"),
        ],
    );
    check_one(
        "web/events@^1",
        "",
        "SELECT shop FROM web.events.clicks",
        &[("missing-column", "product.yaml", 10, "required column `id`")],
    );
    check_one(
        "web/events@^1",
        "",
        "SELECT a.id, b.id, a.shop FROM web.events.clicks a, web.events.clicks b",
        &[("duplicate-column", "t.sql", 1, "`id`")],
    );
    check_one(
        "web/events@^1",
        "",
        "SELECT id, shop FROM web.events_v1.clicks",
        &[("unused-input", "product.yaml", 5, ""), ("undeclared-input", "t.sql", 1, "by its major version")],
    );
    check_one(
        "web/events@^1",
        "",
        "SELECT id, shop FROM {changes(web.events.clicks)}",
        &[("invalid-changes", "product.yaml", 8, "each run replaces")],
    );
    check_one("web/events@^1", "      write: append\n", "SELECT id, shop FROM {changes(web.events.clicks)}", &[]);
    check_one("web/events@^1", "      source: x.csv\n", good, &[("source-and-transform", "product.yaml", 9, "")]);
}

#[test]
fn check_knows_the_inputs_of_a_mesh() {
    let good = "SELECT id, shop\nFROM web.events.clicks";
    check_one("", "", good, &[("undeclared-input", "t.sql", 2, "`inputs:` does not name `web/events`")]);
    check_one(
        "web/event@^1",
        "",
        good,
        &[
            ("unknown-input", "product.yaml", 5, "no product `web/event`"),
            ("unused-input", "product.yaml", 5, ""),
            ("undeclared-input", "t.sql", 2, ""),
        ],
    );
    check_one(
        "web/events@^2",
        "",
        good,
        &[("unsatisfied-input", "product.yaml", 5, "no version of `web/events` is within `^2`")],
    );
    check_one("web/events@new", "", good, &[("invalid-input", "product.yaml", 5, "`new` is not a range")]);
    check_one("web/events@^1, web/events@^1.1", "", good, &[("duplicate-input", "product.yaml", 5, "")]);

    let mesh = TestMesh::new();
    let tables = table("t", "replace", "'SELECT id FROM web.events.clicks'", &["id long"]);
    let mesh = mesh.with_product("shop/p", &product("p", "web/events@^1", &tables));
    let single = diagnostics(&mesh, &["domains/shop/products/p"]);
    assert_eq!(single[0].0, "unknown-input");
    mesh.run(&["check", "domains/shop/products/p"]).expect_code(0);
    mesh.run(&["check"]).expect_code(4);
    // What the registry knows is known, too: its manifest may be in another folder.
    let mesh = mesh.with_product("web/events", EVENTS);
    publish(&mesh, 1..=5);
    std::fs::remove_dir_all(mesh.path("domains/web")).unwrap();
    assert_eq!(diagnostics(&mesh, &[]), []);
    mesh.run(&["run", "p"]).expect_code(0);
}

#[test]
fn cycles_are_refused_and_named() {
    let one = |name: &str, input: &str| {
        let sql = format!("'SELECT n FROM shop.{input}.t'");
        product(name, &format!("shop/{input}"), &table("t", "replace", &sql, &["n long"]))
    };
    let mesh = TestMesh::new()
        .with_product("shop/a", &one("a", "b"))
        .with_product("shop/b", &one("b", "c"))
        .with_product("shop/c", &one("c", "a"));
    let found = diagnostics(&mesh, &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].0.as_str(), found[0].2), ("input-cycle", 5));
    assert!(found[0].3.contains("shop/a → shop/b → shop/c → shop/a"), "{found:#?}");
    let outcome = mesh.run(&["run", "a", "--upstream"]).expect_code(4);
    assert!(outcome.stderr.contains("shop/a → shop/b → shop/c → shop/a"), "{outcome}");
}

#[test]
fn tests_compare_rows_and_show_what_differs() {
    let mesh = chain();
    let tests = "tests:
  - name: adds up
    given:
      web.events.clicks:
        - {id: 1, shop: a, amount: 1}
        - {id: 2, shop: a, amount: 2}
        - {id: 3, shop: b}
    expect:
      totals:
        - {shop: b, clicks: 1, amount: null}
        - {shop: a, clicks: 2, amount: 3}
  - name: reads a file
    given: {web.events.clicks: {file: rows.csv}}
    expect: {totals: [{shop: x, amount: 7}]}
";
    let folder = "domains/shop/products/totals";
    mesh.write(&format!("{folder}/product.tests.yaml"), tests);
    mesh.write(&format!("{folder}/rows.csv"), "id,shop,amount\n1,x,3\n2,x,4\n");
    let outcome = mesh.run(&["test"]).expect_code(0);
    assert!(outcome.stdout.contains("2 passed, 0 failed"), "{outcome}");
    assert!(!mesh.path(".datamesh").exists() && !mesh.path("warehouse").exists(), "a test writes nothing");

    mesh.write(&format!("{folder}/product.tests.yaml"), tests.replace("clicks: 2, amount: 3", "clicks: 2, amount: 4"));
    let outcome = mesh.run(&["test", "totals"]).expect_code(3);
    for part in [
        "FAIL shop/totals: adds up",
        "product.tests.yaml:2",
        "- a     2       »4«",
        "+ a     2       »3«",
        "1 passed, 1 failed",
    ] {
        assert!(outcome.stdout.contains(part), "no `{part}` in {outcome}");
    }
    let document = mesh.run(&["test", "--format", "json"]).expect_code(3).json();
    assert_eq!(document["failed"], 1);
    assert_eq!(document["tests"][0]["differences"][0]["missing"][0]["amount"], 4);

    // `check` knows the shape of a test, and the columns of both sides.
    let broken = tests.replace("shop: a, amount: 1", "shop: a, price: 1").replace("totals: [{", "total: [{");
    mesh.write(&format!("{folder}/product.tests.yaml"), broken);
    let found = diagnostics(&mesh, &[]);
    let ids: Vec<_> = found.iter().map(|(id, _, line, _)| (id.as_str(), *line)).collect();
    assert_eq!(ids, [("unknown-column", 5), ("no-expectation", 12), ("unknown-table", 14)], "{found:#?}");
    mesh.run(&["test"]).expect_code(4);
}

/// YAML has numbers that JSON lacks; none of them is null. A test that does not say the time is told which it is.
#[test]
fn tests_know_every_number_and_the_time() {
    let sql = "\"SELECT id, amount, -amount AS other FROM web.events.clicks WHERE date_part('year', now()) > 2005\"";
    let numbers = table("numbers", "replace", sql, &["id long", "amount double", "other float"]);
    let mesh = TestMesh::new()
        .with_product("web/events", &EVENTS.replace("amount, type: int", "amount, type: double"))
        .with_product("shop/numbers", &product("numbers", "web/events@^1", &numbers));
    let tests = "tests:
  - name: numbers
    now: 2013-01-01T00:00:00Z
    given:
      web.events.clicks:
        - {id: 1, amount: .nan}
        - {id: 2, amount: -.INF}
        - {id: 3, amount: 1.5}
        - {id: 4}
    expect:
      numbers:
        - {id: 1, amount: .NaN, other: .nan}
        - {id: 2, amount: -.inf, other: +.inf}
        - {id: 3, amount: 1.5, other: -1.5}
        - {id: 4, amount: null, other: null}
";
    let path = "domains/shop/products/numbers/product.tests.yaml";
    let help = "help: the transform asks for the time, which is 2000-01-01T00:00:00Z here; say `now:` in the test";
    mesh.write(path, tests);
    mesh.run(&["test"]).expect_code(0);

    mesh.write(path, tests.replace("amount: .NaN, other", "amount: null, other"));
    let outcome = mesh.run(&["test"]).expect_code(3);
    assert!(outcome.stdout.contains("»NaN«") && !outcome.stdout.contains(help), "{outcome}");

    mesh.write(path, tests.replace("    now: 2013-01-01T00:00:00Z\n", ""));
    let outcome = mesh.run(&["test"]).expect_code(3);
    assert!(outcome.stdout.contains("expected 4 rows, found 0") && outcome.stdout.contains(help), "{outcome}");
}

#[test]
fn one_now_for_the_whole_run() {
    let now = "'SELECT now() AS at FROM web.events.clicks'";
    let tables = table("one", "replace", now, &["at timestamp"]) + &table("two", "replace", now, &["at timestamp"]);
    let mesh = TestMesh::new()
        .with_product("web/events", EVENTS)
        .with_product("shop/clock", &product("clock", "web/events", &tables));
    publish(&mesh, 1..=5);
    let report = run(&mesh, &["clock"]);
    assert_eq!(report["tables"][0]["published"], 5, "a clock's time fits a column: {report}");
    let times =
        "SELECT count(DISTINCT at) FROM (SELECT at FROM shop.clock.one UNION ALL SELECT at FROM shop.clock.two) AS t";
    assert_eq!(mesh.number(times), 1);
}
