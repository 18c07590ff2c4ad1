//! Upserts, replaced partitions, rollbacks and quarantine retries: crashes at every step, races, and what each must refuse.

use std::process::Command;

use datamesh_core::ports::PublishStep;
use serde_json::{Value, json};

use crate::support::{Outcome, TestMesh, finish, start};

const PRODUCT: &str = "shop/sales";
const SIGKILL: i32 = 9;

/// A manifest with these tables, each given as its lines below the name.
fn manifest(tables: &[(&str, &str)]) -> String {
    let mut text = "dataProduct:\n  name: sales\n  version: 0.1.0\n  owner: shop-team\n  schema:\n".to_owned();
    for (name, lines) in tables {
        text.push_str(&format!("    - name: {name}\n"));
        lines.lines().for_each(|line| text.push_str(&format!("      {line}\n")));
    }
    text
}

fn mesh(tables: &[(&str, &str)]) -> TestMesh {
    TestMesh::new().with_product(PRODUCT, &manifest(tables))
}

fn remake(mesh: &TestMesh, tables: &[(&str, &str)]) {
    mesh.write("domains/shop/products/sales/product.yaml", manifest(tables));
}

const UPSERT: &str = "write: upsert
deleteWhen: amount = 0
columns:
  - {name: id, type: int, primaryKey: true}
  - {name: amount, type: int, minimum: 0}
quarantine: 50%";

const APPEND: &str = "columns:
  - {name: id, type: int, primaryKey: true}
  - {name: amount, type: int, minimum: 0}
quarantine: 50%";

fn csv(rows: &[(i64, i64)]) -> String {
    let lines = rows.iter().map(|(id, amount)| format!("{id},{amount}\n"));
    std::iter::once("id,amount\n".to_owned()).chain(lines).collect()
}

fn publish(mesh: &TestMesh, inputs: &[(&str, &str)]) -> Command {
    let mut command = mesh.command(&["publish", PRODUCT, "--format", "json"]);
    for (at, (table, text)) in inputs.iter().enumerate() {
        let name =
            format!("data/{table}-{at}-{:x}.csv", text.len() * 31 + text.bytes().map(usize::from).sum::<usize>());
        mesh.write(&name, text);
        command.arg(format!("{table}={name}"));
    }
    command
}

fn published(mesh: &TestMesh, inputs: &[(&str, &str)]) -> Value {
    let report = finish(publish(mesh, inputs)).expect_code(0).json();
    assert_eq!(report["status"], "published", "{report}");
    report
}

fn fault(mut command: Command, fault: &str) -> Command {
    command.env("DATAMESH_FAULT", fault);
    command
}

#[track_caller]
fn status(outcome: &Outcome) -> String {
    outcome.json()["status"].as_str().unwrap_or_else(|| panic!("no status: {outcome}")).to_owned()
}

fn served(mesh: &TestMesh, table: &str) -> Vec<(i64, i64)> {
    let rows = mesh.query(&format!("SELECT id, amount FROM shop.sales.{table} ORDER BY id"));
    rows.iter().map(|row| (row["id"].as_i64().unwrap(), row["amount"].as_i64().unwrap_or(-999))).collect()
}

fn is_committed(step: PublishStep) -> bool {
    let at = |wanted| PublishStep::ALL.iter().position(|step| *step == wanted);
    at(step) >= at(PublishStep::Committed)
}

fn tidy(mesh: &TestMesh) {
    mesh.registry("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'");
    mesh.run(&["maintain", "--format", "json"]).expect_code(0);
    assert!(mesh.registry("SELECT attempt FROM leases").is_empty());
}

/// Kills a command at every step that it reaches, and runs it again. `before` makes the state that the command changes
/// and returns the command; `after` checks what it must have done.
fn check_kills<T: PartialEq + std::fmt::Debug>(
    mesh: &TestMesh,
    mut before: impl FnMut(&TestMesh) -> (Command, Command),
    look: impl Fn(&TestMesh) -> T,
    mut after: impl FnMut(&TestMesh),
) -> usize {
    let mut steps = 0;
    for step in PublishStep::ALL {
        for count in 1.. {
            let (first, again) = before(mesh);
            let (old, recorded) = (look(mesh), mesh.publications(PRODUCT).len());
            let outcome = finish(fault(first, &format!("kill:{step}:{count}")));
            if outcome.signal().is_none() {
                outcome.expect_code(0);
                after(mesh);
                break;
            }
            assert_eq!(outcome.signal(), Some(SIGKILL), "{outcome}");
            steps += 1;
            let committed = is_committed(step);
            if committed {
                after(mesh);
            } else {
                assert_eq!(look(mesh), old, "after a crash at `{step}`");
            }
            let retry = finish(again).expect_code(0);
            assert_eq!(status(&retry), if committed { "repeat" } else { "published" }, "after a crash at `{step}`");
            after(mesh);
            assert_eq!(mesh.publications(PRODUCT).len(), recorded + 1, "after a crash at `{step}`");
        }
    }
    tidy(mesh);
    after(mesh);
    steps
}

#[test]
fn an_upsert_killed_at_any_step_is_applied_once() {
    let mesh = mesh(&[("orders", UPSERT)]);
    let all: Vec<(i64, i64)> = (1..=50).map(|id| (id, 1000)).collect();
    published(&mesh, &[("orders", &csv(&all))]);
    let round = std::cell::Cell::new(0);
    // Every round updates some rows, deletes one that the round before added, and adds one; one row is bad.
    let rows = |round: i64| {
        csv(&[(round % 40 + 10, 2000 + round), (1000 + round, 7), (999 + round, 0), (2, -5), (3, 2000 + round)])
    };
    let steps = check_kills(
        &mesh,
        |mesh| {
            round.set(round.get() + 1);
            let text = rows(round.get());
            (publish(mesh, &[("orders", &text)]), publish(mesh, &[("orders", &text)]))
        },
        |mesh| served(mesh, "orders"),
        |mesh| {
            let now = served(mesh, "orders");
            let round = round.get();
            assert_eq!(now.iter().filter(|(id, _)| *id == 1000 + round).count(), 1);
            assert!(!now.iter().any(|(id, _)| *id == 999 + round), "{now:?}");
            assert!(now.contains(&(3, 2000 + round)), "{now:?}");
            assert_eq!(now.len(), 51, "{now:?}");
        },
    );
    assert!(steps >= PublishStep::ALL.len(), "{steps}");
    assert!(served(&mesh, "orders").iter().any(|(id, amount)| *id == 2 && *amount != -5), "the published row stands");
}

#[test]
fn a_rollback_killed_at_any_step_goes_back_once() {
    let mesh = mesh(&[("orders", APPEND), ("items", APPEND)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1)])), ("items", &csv(&[(1, 1)]))]);
    let target = first["publication"].as_u64().unwrap().to_string();
    let round = std::cell::Cell::new(1);
    let look = |mesh: &TestMesh| (served(mesh, "orders"), served(mesh, "items"));
    let steps = check_kills(
        &mesh,
        |mesh| {
            round.set(round.get() + 1);
            let text = csv(&[(round.get(), 5)]);
            published(mesh, &[("orders", &text), ("items", &text)]);
            let back = || mesh.command(&["rollback", PRODUCT, "--to", &target, "--format", "json"]);
            (back(), back())
        },
        look,
        |mesh| assert_eq!(look(mesh), (vec![(1, 1)], vec![(1, 1)])),
    );
    assert!(steps >= 8, "{steps}");
}

#[test]
fn a_retry_killed_at_any_step_publishes_once() {
    let mesh = mesh(&[("orders", APPEND)]);
    let lax = APPEND.replace(", minimum: 0", "");
    let round = std::cell::Cell::new(0);
    let steps = check_kills(
        &mesh,
        |mesh| {
            round.set(round.get() + 1);
            let first = round.get() * 10;
            // A rule that holds on what the rounds before have published.
            let strict = format!("{lax}\nquality: [{{name: later, condition: 'id <> {}'}}]", first + 2);
            remake(mesh, &[("orders", &strict)]);
            published(mesh, &[("orders", &csv(&[(first, 1), (first + 1, 1), (first + 2, -1)]))]);
            remake(mesh, &[("orders", &lax)]);
            let retry = || mesh.command(&["quarantine", "retry", PRODUCT, "--format", "json"]);
            (retry(), retry())
        },
        |mesh| served(mesh, "orders"),
        |mesh| {
            let now = served(mesh, "orders");
            assert_eq!(now.iter().filter(|(_, amount)| *amount == -1).count() as i64, round.get(), "{now:?}");
            assert_eq!(now.len() as i64, round.get() * 3);
        },
    );
    assert!(steps >= PublishStep::ALL.len(), "{steps}");
    let again = mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0);
    assert_eq!(status(&again), "repeat");
}

/// Starts a command that waits at a step, runs `winner`, and lets the first go on.
fn race(mesh: &TestMesh, loser: Command, step: PublishStep, winner: impl FnOnce(&TestMesh)) -> Outcome {
    let hold = mesh.path("hold");
    let mut held = start(fault(loser, &format!("hold:{step}:{}", hold.display())));
    held.until("it reached the step", || hold.exists());
    winner(mesh);
    std::fs::remove_file(&hold).unwrap();
    held.wait()
}

#[test]
fn a_racing_upsert_is_planned_anew() {
    let mesh = mesh(&[("orders", UPSERT)]);
    published(&mesh, &[("orders", &csv(&[(1, 10), (2, 20), (3, 30)]))]);
    let loser = publish(&mesh, &[("orders", &csv(&[(1, 11), (4, 44), (3, 0)]))]);
    let outcome = race(&mesh, loser, PublishStep::Judged, |mesh| {
        published(mesh, &[("orders", &csv(&[(1, 12), (2, 0), (4, 40), (5, 50)]))]);
    });
    let report = outcome.expect_code(0).json();
    assert_eq!(report["reaudits"], 1);
    // The loser is applied after the winner, whose 4 it now updates.
    let changes = json!({ "inserted": 0, "updated": 2, "deleted": 1, "absent": 0, "removed": 3 });
    assert_eq!(report["tables"][0]["changes"], changes, "{report}");
    assert_eq!(served(&mesh, "orders"), [(1, 11), (4, 44), (5, 50)]);
    assert!(mesh.registry("SELECT attempt FROM leases").is_empty());
}

const PARTITIONED: &str = "write: replacePartitions
partitionBy: [amount]
columns:
  - {name: id, type: int, primaryKey: true}
  - {name: amount, type: int, minimum: 0}
quarantine: 50%";

#[test]
fn a_racing_backfill_conflicts_only_over_its_own_partitions() {
    for (winner, code, serves) in
        [(&[(7, 2), (8, 2)][..], 0, vec![(5, 1), (7, 2), (8, 2)]), (&[(9, 1)][..], 5, vec![(2, 2), (9, 1)])]
    {
        let mesh = mesh(&[("orders", PARTITIONED)]);
        published(&mesh, &[("orders", &csv(&[(1, 1), (2, 2)]))]);
        let loser = publish(&mesh, &[("orders", &csv(&[(5, 1)]))]);
        let outcome = race(&mesh, loser, PublishStep::Judged, |mesh| {
            published(mesh, &[("orders", &csv(winner))]);
        });
        let outcome = outcome.expect_code(code);
        assert_eq!(status(&outcome), if code == 0 { "published" } else { "conflict" }, "{outcome}");
        assert_eq!(served(&mesh, "orders"), serves);
    }
}

#[test]
fn a_racing_rollback_reports_the_conflict() {
    let mesh = mesh(&[("orders", APPEND)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1)]))])["publication"].to_string();
    published(&mesh, &[("orders", &csv(&[(2, 2)]))]);
    let back = mesh.command(&["rollback", PRODUCT, "--to", &first, "--format", "json"]);
    let outcome = race(&mesh, back, PublishStep::MetadataWritten, |mesh| {
        published(mesh, &[("orders", &csv(&[(3, 3)]))]);
    });
    assert_eq!(status(&outcome.expect_code(5)), "conflict");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2), (3, 3)]);
    tidy(&mesh);
}

#[test]
fn racing_retries_publish_once() {
    let mesh = mesh(&[("orders", APPEND)]);
    published(&mesh, &[("orders", &csv(&[(1, 1), (2, -2)]))]);
    remake(&mesh, &[("orders", &APPEND.replace(", minimum: 0", ""))]);
    let retry = || mesh.command(&["quarantine", "retry", PRODUCT, "--format", "json"]);
    let outcome = race(&mesh, retry(), PublishStep::Judged, |_| {
        assert_eq!(status(&finish(retry()).expect_code(0)), "published");
    });
    let outcome = outcome.expect_code(5);
    assert!(outcome.json()["because"].to_string().contains("settled the same quarantined rows"), "{outcome}");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, -2)]);
}

#[test]
fn a_repeated_upsert_changes_nothing_until_another_came_between() {
    let mesh = mesh(&[("orders", UPSERT)]);
    let (one, two) = (csv(&[(1, 10), (2, 20)]), csv(&[(1, 11), (2, 0)]));
    published(&mesh, &[("orders", &one)]);
    published(&mesh, &[("orders", &two)]);
    assert_eq!(status(&finish(publish(&mesh, &[("orders", &two)])).expect_code(0)), "repeat");
    published(&mesh, &[("orders", &one)]);
    assert_eq!(served(&mesh, "orders"), [(1, 10), (2, 20)]);
}

#[test]
fn a_deletion_is_judged_by_its_key_alone() {
    let lines = UPSERT.replace("amount = 0", "note = 'gone'") + "\nquality: [{condition: amount <> 13, name: unlucky}]";
    let lines = lines.replace("minimum: 0}", "minimum: 0, required: true}\n  - {name: note, type: string}");
    let mesh = mesh(&[("orders", &lines)]);
    published(&mesh, &[("orders", "id,amount,note\n1,1,\n2,2,\n3,3,\n4,4,\n")]);
    let report = published(&mesh, &[("orders", "id,amount,note\n1,-1,gone\n2,13,gone\n3,,gone\n,1,gone\n9,1,gone\n")]);
    let table = &report["tables"][0];
    assert_eq!((&table["published"], &table["quarantined"]), (&json!(4), &json!(1)), "{report}");
    assert_eq!(table["changes"]["deleted"], 3);
    assert_eq!(table["changes"]["absent"], 1);
    assert_eq!(served(&mesh, "orders"), [(4, 4)]);
}

#[test]
fn rows_of_one_key_are_held_back_and_the_published_one_stands() {
    let mesh = mesh(&[("orders", UPSERT)]);
    published(&mesh, &[("orders", &csv(&[(1, 1), (2, 2), (3, 3), (4, 4)]))]);
    let report = published(&mesh, &[("orders", &csv(&[(1, 5), (1, 0), (2, -2), (3, 33), (9, 9), (8, 8)]))]);
    assert_eq!(report["tables"][0]["quarantined"], 3, "{report}");
    assert_eq!(report["tables"][0]["reasons"]["primaryKey:id"]["rows"], 2);
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2), (3, 33), (4, 4), (8, 8), (9, 9)]);
}

const PEOPLE: &str = "write: replace
columns:
  - {name: id, type: int, primaryKey: true}
  - {name: amount, type: int}";

/// A table whose `amount` names one of the people.
fn of_people(write: &str) -> String {
    format!(
        "write: {write}\nquarantine: 50%\ncolumns:\n  - {{name: id, type: int, primaryKey: true}}\n  - {{name: amount, \
         type: int, minimum: 0, references: people.id}}"
    )
}

/// Publishes what must be rejected, for this reason among others, and leave the table as it is.
#[track_caller]
fn rejected(mesh: &TestMesh, table: &str, inputs: &[(&str, &str)], because: &str) -> Value {
    let before = served(mesh, table);
    let outcome = finish(publish(mesh, inputs)).expect_code(3);
    let report = outcome.json();
    let reasons = report["because"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason.as_str().unwrap().contains(because)), "no `{because}`: {outcome}");
    assert_eq!(served(mesh, table), before);
    report
}

#[test]
fn a_table_that_stays_must_find_what_it_refers_to() {
    let mesh = mesh(&[("orders", &of_people("replace")), ("people", PEOPLE)]);
    let (orders, both, one) = (csv(&[(1, 1), (2, 2)]), csv(&[(1, 0), (2, 0)]), csv(&[(1, 0)]));
    published(&mesh, &[("orders", &orders), ("people", &both)]);
    let lost = "table `orders`: rule `references:amount`: 1 published row would lose what it refers to, e.g. 2";
    let report = rejected(&mesh, "people", &[("people", &one)], lost);
    let stays = report["tables"].as_array().unwrap().iter().find(|table| table["table"] == "orders").unwrap();
    assert_eq!((&stays["in"], &stays["metrics"][0]["samples"]), (&json!(0), &json!([{ "value": "2" }])), "{report}");
    assert_eq!(report["carriedForward"], json!(["orders"]));
    mesh.write("one.csv", &one);
    let explained = mesh.run(&["explain", PRODUCT, "people=one.csv", "--format", "json"]);
    assert_eq!(status(&explained), "would-reject", "{explained}");
    assert!(mesh.run(&["publish", PRODUCT, "people=one.csv"]).expect_code(3).stdout.contains(lost));

    // The same orders over other people are no repeat.
    let report = published(&mesh, &[("orders", &orders), ("people", &one)]);
    assert_eq!(report["tables"][0]["reasons"]["references:amount"]["rows"], 1, "{report}");
    assert_eq!(served(&mesh, "orders"), [(1, 1)]);
    published(&mesh, &[("orders", &orders), ("people", &both)]);
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2)]);
    assert_eq!(status(&finish(publish(&mesh, &[("orders", &orders), ("people", &both)])).expect_code(0)), "repeat");
    published(&mesh, &[("people", &csv(&[(1, 0), (2, 0), (3, 0)]))]);
}

#[test]
fn rows_published_before_must_find_what_they_refer_to() {
    for write in ["append", "upsert"] {
        let mesh = mesh(&[("orders", &of_people(write)), ("people", PEOPLE)]);
        let (orders, both, one) = (csv(&[(1, 1), (2, 2)]), csv(&[(1, 0), (2, 0)]), csv(&[(1, 0)]));
        published(&mesh, &[("orders", &orders), ("people", &both)]);
        let lost = "table `orders`: rule `references:amount`: 1 published row would lose what it refers to, e.g. 2";
        let more = csv(&[(3, 1)]);
        rejected(&mesh, "orders", &[("orders", &more), ("people", &one)], lost);
        rejected(&mesh, "people", &[("orders", &orders), ("people", &one)], lost);
        published(&mesh, &[("orders", &more), ("people", &csv(&[(2, 0), (1, 0), (4, 0)]))]);
        assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2), (3, 1)]);
    }
}

#[test]
fn what_referred_to_nothing_before_is_not_lost() {
    let mesh = mesh(&[("orders", PEOPLE), ("people", PEOPLE)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 9)])), ("people", &csv(&[(1, 0)]))]);
    published(&mesh, &[("orders", &csv(&[(1, 1)]))]);
    remake(&mesh, &[("orders", &of_people("replace")), ("people", PEOPLE)]);
    published(&mesh, &[("orders", &csv(&[(2, 1)]))]);
    // Rows that a rollback brings back are not judged again.
    mesh.run(&["rollback", PRODUCT, "--to", &first["publication"].to_string()]).expect_code(0);
    published(&mesh, &[("people", &csv(&[(1, 0), (2, 0)]))]);
    published(&mesh, &[("people", &csv(&[(2, 0), (9, 0)]))]);
    let lost = "table `orders`: rule `references:amount`: 1 published row would lose what it refers to, e.g. 9";
    rejected(&mesh, "people", &[("people", &csv(&[(2, 0)]))], lost);
}

#[test]
fn a_row_that_others_refer_to_is_updated_but_not_deleted() {
    let mesh = mesh(&[("orders", &of_people("append")), ("people", UPSERT)]);
    published(&mesh, &[("orders", &csv(&[(1, 1), (2, 2)])), ("people", &csv(&[(1, 1), (2, 2), (3, 3)]))]);
    published(&mesh, &[("people", &csv(&[(2, 5)]))]);
    let lost = "table `orders`: rule `references:amount`: 1 published row would lose what it refers to, e.g. 2";
    rejected(&mesh, "people", &[("people", &csv(&[(2, 0), (1, 7)]))], lost);
    published(&mesh, &[("people", &csv(&[(3, 0)]))]);
    assert_eq!(served(&mesh, "people"), [(1, 1), (2, 5)]);
}

#[test]
fn rules_that_compare_tables_bind_those_that_stay() {
    let compared = format!("{PEOPLE}\nquality: [{{name: same, metric: rowCount, compareTo: b, mustBe: 0}}]");
    let within = "SELECT count(*) FROM {object} WHERE id NOT IN (SELECT id FROM a)";
    let asked = format!("{PEOPLE}\nquality: [{{name: in_a, sql: '{within}', mustBe: 0}}]");
    let mesh = mesh(&[("a", &compared), ("b", PEOPLE), ("c", &asked), ("d", PEOPLE)]);
    let (two, three) = (csv(&[(1, 0), (2, 0)]), csv(&[(1, 0), (2, 0), (3, 0)]));
    published(&mesh, &[("a", &two), ("b", &two), ("c", &two), ("d", &two)]);
    let differs = "table `a`: rule `same`: rowCount differs by 1 from the other table's 3";
    rejected(&mesh, "b", &[("b", &three)], differs);
    rejected(&mesh, "b", &[("a", &two), ("b", &three)], differs);
    published(&mesh, &[("a", &three), ("b", &three)]);
    let other = csv(&[(1, 0), (4, 0), (5, 0)]);
    rejected(&mesh, "a", &[("a", &other)], "table `c`: rule `in_a`: sql is 1, must be = 0");
    rejected(&mesh, "a", &[("a", &other), ("c", &two)], "table `c`: rule `in_a`: sql is 1, must be = 0");
    // What no rule of theirs reads binds nobody.
    let report = published(&mesh, &[("d", &three)]);
    assert_eq!(report["tables"].as_array().unwrap().len(), 1, "{report}");
}

const TREE: &str = "write: upsert
deleteWhen: note = 'gone'
quarantine: 50%
columns:
  - {name: id, type: int, primaryKey: true}
  - {name: amount, type: int, references: rows.id}
  - {name: note, type: string}";

#[test]
fn rows_on_their_way_out_are_not_referred_to() {
    let mesh = mesh(&[("rows", TREE)]);
    published(&mesh, &[("rows", "id,amount,note\n1,,a\n2,1,a\n")]);
    let read = "table `rows`: rule `references:amount`: 1 of the rows read refers to nothing, e.g. 1";
    let lost = "table `rows`: rule `references:amount`: 1 published row would lose what it refers to, e.g. 1";
    rejected(&mesh, "rows", &[("rows", "id,amount,note\n1,,gone\n2,,b\n7,1,b\n")], read);
    rejected(&mesh, "rows", &[("rows", "id,amount,note\n1,,gone\n")], lost);
    published(&mesh, &[("rows", "id,amount,note\n1,,b\n8,1,b\n")]);
    published(&mesh, &[("rows", "id,amount,note\n1,,gone\n2,,b\n8,2,b\n7,2,b\n")]);
    assert_eq!(served(&mesh, "rows"), [(2, -999), (7, 2), (8, 2)]);

    let parted = TREE.replace("upsert\ndeleteWhen: note = 'gone'", "replacePartitions\npartitionBy: [note]");
    let mesh = self::mesh(&[("rows", &parted)]);
    published(&mesh, &[("rows", "id,amount,note\n1,,a\n2,,b\n3,2,b\n")]);
    let read = "table `rows`: rule `references:amount`: 1 of the rows read refers to nothing, e.g. 2";
    rejected(&mesh, "rows", &[("rows", "id,amount,note\n5,1,b\n6,2,b\n")], read);
    published(&mesh, &[("rows", "id,amount,note\n5,1,b\n6,5,b\n")]);
    assert_eq!(served(&mesh, "rows"), [(1, -999), (5, 1), (6, 5)]);
    rejected(&mesh, "rows", &[("rows", "id,amount,note\n9,,a\n")], lost);
}

#[test]
fn a_reference_that_is_known_late_rejects_what_takes_the_place_of_published_rows() {
    for (write, columns) in [("upsert", ""), ("replacePartitions", "\npartitionBy: [id]")] {
        let lines = of_people(write) + columns;
        let mesh = mesh(&[("orders", &lines), ("people", PEOPLE)]);
        let people = csv(&[(1, 0), (2, 0)]);
        published(&mesh, &[("orders", &csv(&[(1, 1)])), ("people", &people)]);
        let (more, dangling) = (csv(&[(1, 0), (2, 0), (3, 0)]), csv(&[(1, 2), (4, 777)]));
        let read = "table `orders`: rule `references:amount`: 1 of the rows read refers to nothing, e.g. 777";
        rejected(&mesh, "orders", &[("orders", &dangling), ("people", &more)], read);
        // By themselves, the rows are judged one by one against the people that stay.
        let report = published(&mesh, &[("orders", &dangling)]);
        assert_eq!(report["tables"][0]["reasons"]["references:amount"]["rows"], 1, "{report}");
        // A row that is held back for another reason takes no row's place.
        let report = published(&mesh, &[("orders", &csv(&[(1, 1), (4, -5)])), ("people", &more)]);
        assert_eq!(report["tables"][0]["quarantined"], 1, "{report}");
        assert_eq!(served(&mesh, "orders"), [(1, 1)]);

        let hidden = lines.replace("minimum: 0", "pii: true");
        let mesh = self::mesh(&[("orders", &hidden), ("people", PEOPLE)]);
        let outcome = finish(publish(&mesh, &[("orders", &dangling), ("people", &people)])).expect_code(3);
        let (report, reason) = (outcome.json(), "1 of the rows read refers to nothing");
        let told = report["because"].as_array().unwrap().iter().any(|told| told.as_str().unwrap().ends_with(reason));
        assert!(told && !report["because"].to_string().contains("777"), "{outcome}");
        assert!(report["tables"].as_array().unwrap().iter().all(|table| !table["metrics"].to_string().contains("777")));
    }
}

#[test]
fn the_same_rows_are_judged_again_by_other_rules() {
    let strict =
        PEOPLE.replace("{name: amount, type: int}", "{name: amount, type: int, maximum: 5}") + "\nquarantine: 50%";
    let mesh = mesh(&[("orders", &strict)]);
    let rows = csv(&[(1, 1), (2, 9)]);
    published(&mesh, &[("orders", &rows)]);
    let looser = manifest(&[("orders", &strict.replace("maximum: 5", "maximum: 10"))]);
    mesh.write("domains/shop/products/sales/product.yaml", looser.replace("0.1.0", "0.2.0"));
    mesh.run(&["apply"]).expect_code(0);
    assert_eq!(served(&mesh, "orders"), [(1, 1)]);
    published(&mesh, &[("orders", &rows)]);
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 9)]);
    assert_eq!(status(&finish(publish(&mesh, &[("orders", &rows)])).expect_code(0)), "repeat");
}

#[test]
fn an_upsert_finds_its_rows_by_keys_that_were_renamed() {
    let mesh = mesh(&[("orders", UPSERT)]);
    published(&mesh, &[("orders", &csv(&[(1, 10), (2, 20)]))]);
    let renamed = UPSERT.replace("{name: id, type: int,", "{name: number, renamedFrom: id, type: int,");
    let renamed = renamed.replace("{name: amount, type: int,", "{name: total, renamedFrom: amount, type: int,");
    let renamed = renamed.replace("amount = 0", "total = 0");
    remake(&mesh, &[("orders", &(renamed + "\nquality: [{metric: sum, column: total, mustBeLessThan: 40}]"))]);
    // The sum counts the row that stays, in a file that is written anew and calls it by its former name.
    finish(publish(&mesh, &[("orders", "number,total\n1,25\n")])).expect_code(3);
    let report = published(&mesh, &[("orders", "number,total\n1,11\n")]);
    assert_eq!(report["tables"][0]["changes"]["updated"], 1, "{report}");
    let rows = mesh.query("SELECT number, total FROM shop.sales.orders ORDER BY number");
    assert_eq!(json!(rows), json!([{ "number": 1, "total": 11 }, { "number": 2, "total": 20 }]));
}

#[test]
fn an_upsert_finds_its_rows_by_keys_that_were_widened() {
    let mesh = mesh(&[("orders", UPSERT)]);
    published(&mesh, &[("orders", &csv(&[(1, 10), (2, 20)]))]);
    let wider = UPSERT.replace("type: int", "type: long");
    let measured = "\nquality: [{metric: sum, column: amount, where: amount > 10, mustBeLessThan: 40}]";
    remake(&mesh, &[("orders", &(wider + measured))]);
    finish(publish(&mesh, &[("orders", "id,amount\n1,25\n")])).expect_code(3);
    let report = published(&mesh, &[("orders", "id,amount\n1,11\n3000000000,4\n")]);
    assert_eq!(report["tables"][0]["changes"]["updated"], 1, "{report}");
    let rows = mesh.query("SELECT id, amount FROM shop.sales.orders ORDER BY id");
    let expected = [(1, 11), (2, 20), (3_000_000_000_i64, 4)].map(|(id, amount)| json!({ "id": id, "amount": amount }));
    assert_eq!(rows, expected);
}

#[test]
fn only_files_with_a_replaced_key_are_written_anew() {
    let mesh = mesh(&[("orders", UPSERT)]);
    for first in [0, 100, 200] {
        let rows: Vec<_> = (1..=50).map(|id| (first + id, 1)).collect();
        published(&mesh, &[("orders", &csv(&rows))]);
    }
    let data = |mesh: &TestMesh| mesh.warehouse().keys().filter(|path| path.contains("/data/")).count();
    let before = data(&mesh);
    published(&mesh, &[("orders", &csv(&[(120, 7), (1000, 7)]))]);
    // One file of new rows, one new version of the file that held 120.
    assert_eq!(data(&mesh), before + 2);
    assert_eq!(mesh.count("shop.sales.orders"), 151);
}

#[test]
fn rolled_back_rows_can_be_published_again() {
    let mesh = mesh(&[("orders", APPEND)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1)]))])["publication"].to_string();
    let second = csv(&[(2, 2)]);
    let number = published(&mesh, &[("orders", &second)])["publication"].to_string();
    let back = |to: &str| mesh.run(&["rollback", PRODUCT, "--to", to, "--format", "json"]).expect_code(0);
    assert_eq!(status(&back(&first)), "published");
    assert_eq!(status(&back(&first)), "repeat");
    assert_eq!(served(&mesh, "orders"), [(1, 1)]);
    published(&mesh, &[("orders", &second)]);
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2)]);
    back(&first);
    // Rolling the rollback back brings the rows back, and with them that they are a repeat.
    assert_eq!(status(&back(&number)), "published");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2)]);
    assert_eq!(status(&finish(publish(&mesh, &[("orders", &second)])).expect_code(0)), "repeat");
    let text = mesh.run(&["publications", PRODUCT]).expect_code(0).stdout;
    assert!(text.contains(&format!("back to publication {number}")), "{text}");
}

#[test]
fn a_rollback_takes_all_tables_and_leaves_new_ones_empty() {
    let mesh = mesh(&[("orders", APPEND)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1)]))])["publication"].to_string();
    remake(&mesh, &[("orders", APPEND), ("items", APPEND)]);
    published(&mesh, &[("orders", &csv(&[(2, 2)])), ("items", &csv(&[(7, 7)]))]);
    let both = published(&mesh, &[("items", &csv(&[(8, 8)]))])["publication"].to_string();
    let dry = mesh.run(&["rollback", PRODUCT, "--to", &first, "--dry-run", "--format", "json"]).expect_code(0);
    assert_eq!(status(&dry), "would-publish");
    assert_eq!(served(&mesh, "items").len(), 2);
    let report = mesh.run(&["rollback", PRODUCT, "--to", &first, "--format", "json"]).expect_code(0).json();
    assert_eq!((served(&mesh, "orders"), served(&mesh, "items")), (vec![(1, 1)], vec![]));
    assert!(report["notes"].to_string().contains("`items` did not exist then"), "{report}");
    mesh.run(&["rollback", PRODUCT, "--to", &both]).expect_code(0);
    assert_eq!((served(&mesh, "orders").len(), served(&mesh, "items").len()), (2, 2));
}

#[test]
fn a_rollback_refuses_what_it_cannot_bring_back() {
    let mesh = mesh(&[("orders", APPEND)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1)]))])["publication"].to_string();
    let rejected =
        finish(publish(&mesh, &[("orders", &csv(&[(5, -1)]))])).expect_code(3).json()["publication"].to_string();
    let longer = APPEND.replace("quarantine", "  - {name: note, type: string, required: true, default: y}\nquarantine");
    remake(&mesh, &[("orders", &longer)]);
    let tables = "id,amount,note\n2,2,x\n";
    published(&mesh, &[("orders", tables)]);
    for (to, code, text) in [
        (first.as_str(), 13, "column `note` is required since, and 1 of its rows have none"),
        (rejected.as_str(), 2, "was rejected, so it served nothing"),
        ("999", 6, "has no publication 999"),
    ] {
        let outcome = mesh.run(&["rollback", PRODUCT, "--to", to]).expect_code(code);
        assert!(outcome.stderr.contains(text), "{outcome}");
    }
    assert_eq!(served(&mesh, "orders").len(), 2);
}

#[test]
fn a_retry_reads_raw_texts_again_by_the_columns_of_their_file() {
    let lines = "source: {path: rows.csv, nullText: ['']}
columns:
  - {name: id, type: int, primaryKey: true}
  - {name: amount, type: int}
  - {name: note, type: string, required: true}
quarantine: 100%";
    // The file has another order than the contract, a column of its own, and texts that are no numbers.
    let data = "note,other,amount,id\na,x,1,1\nb,x,n/a,2\n\"c\n\",x,3,3\n,x,4,4\nd,x,bad,5\ne,x,6\n";
    let mesh = mesh(&[("orders", lines)]).with_data(PRODUCT, "rows.csv", data);
    let first = mesh.run(&["publish", PRODUCT, "--format", "json"]).expect_code(0).json();
    assert_eq!(first["tables"][0]["quarantined"], 4, "{first}");
    let mended = lines.replace("['']", "['', n/a]").replace(", required: true", "");
    remake(&mesh, &[("orders", &mended)]);
    let report = mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0).json();
    let table = &report["tables"][0];
    assert_eq!(
        (&table["in"], &table["published"], &table["quarantined"]),
        (&json!(4), &json!(2), &json!(2)),
        "{report}"
    );
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, -999), (3, 3), (4, 4)]);
    let shown = mesh.run(&["quarantine", PRODUCT, "--format", "json"]).expect_code(0).json();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert!(shown.to_string().contains("rows.csv") && shown.to_string().contains("too few fields"), "{shown}");
    let settled = mesh.run(&["quarantine", PRODUCT, "--publication", &first["publication"].to_string()]).expect_code(0);
    assert!(settled.stdout.contains(&format!("retried by publication {}", report["publication"])), "{settled}");
    // Nothing was mended, so nothing passes, and what is left stays where it is.
    let again = mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(3);
    assert!(again.json()["because"].to_string().contains("not one row passed"), "{again}");
    // The rows that are left are mended by hand.
    mesh.run(&[
        "quarantine",
        PRODUCT,
        "--publication",
        &report["publication"].to_string(),
        "--format",
        "csv",
        "--reveal",
        "--out",
        "left.csv",
    ])
    .expect_code(0);
    let left = std::fs::read_to_string(mesh.path("left.csv")).unwrap();
    assert_eq!(left.lines().count(), 3, "{left}");
    mesh.write("mended.csv", "id,amount,note\n5,5,d\n6,6,e\n");
    let mended = mesh.run(&["quarantine", "retry", PRODUCT, "--from", "mended.csv", "--format", "json"]).expect_code(0);
    assert_eq!(mended.json()["resolves"][0]["how"], "mended", "{mended}");
    assert_eq!(mesh.count("shop.sales.orders"), 6);
    assert_eq!(status(&mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0)), "repeat");
}

#[test]
fn an_exported_mask_is_no_value() {
    let lines = "columns:
  - {name: id, type: int, primaryKey: true}
  - {name: mail, type: string, pii: true}
  - {name: amount, type: int, minimum: 0}
quarantine: 60%";
    let mesh = mesh(&[("orders", lines)]);
    published(&mesh, &[("orders", "id,mail,amount\n1,a@b,1\n2,c@d,-1\n")]);
    mesh.run(&["quarantine", PRODUCT, "--format", "csv", "--out", "masked.csv"]).expect_code(0);
    let text = std::fs::read_to_string(mesh.path("masked.csv")).unwrap();
    assert!(text.contains("***") && !text.contains("c@d"), "{text}");
    mesh.write("masked.csv", text.replace(",-1", ",1"));
    let outcome =
        mesh.run(&["quarantine", "retry", PRODUCT, "--from", "masked.csv", "--format", "json"]).expect_code(3);
    assert!(outcome.json()["tables"][0]["reasons"].to_string().contains("mail is not masked"), "{outcome}");
    assert_eq!(served(&mesh, "orders").len(), 1);
}

#[test]
fn a_replaced_table_takes_a_retry_only_while_it_serves() {
    let lines = APPEND.to_owned() + "\nwrite: replace";
    let mesh = mesh(&[("orders", &lines)]);
    let one = csv(&[(1, 1), (2, -2)]);
    let first = published(&mesh, &[("orders", &one)])["publication"].to_string();
    let lax = lines.replace(", minimum: 0", "");
    remake(&mesh, &[("orders", &lax)]);
    assert_eq!(status(&mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0)), "published");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, -2)]);
    // What is promised again must hold on what is published.
    published(&mesh, &[("orders", &csv(&[(1, 1)]))]);
    remake(&mesh, &[("orders", &lines)]);
    let second = published(&mesh, &[("orders", &csv(&[(3, 3), (4, -4)]))])["publication"].to_string();
    published(&mesh, &[("orders", &csv(&[(5, 5)]))]);
    let outcome = mesh.run(&["quarantine", "retry", PRODUCT, "--publication", &second]).expect_code(2);
    assert!(outcome.stderr.contains("was replaced since"), "{outcome}");
    let settled =
        mesh.run(&["quarantine", "retry", PRODUCT, "--publication", &first, "--format", "json"]).expect_code(0);
    assert_eq!(status(&settled), "repeat");
}

#[test]
fn a_rolled_back_replacement_does_not_outdate_what_was_held_back() {
    let lines = APPEND.to_owned() + "\nwrite: replace";
    let mesh = mesh(&[("orders", &lines)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1), (2, -2)]))])["publication"].to_string();
    published(&mesh, &[("orders", &csv(&[(5, 5)]))]);
    mesh.run(&["rollback", PRODUCT, "--to", &first]).expect_code(0);
    finish(publish(&mesh, &[("orders", &csv(&[(9, -9)]))])).expect_code(3);
    remake(&mesh, &[("orders", &lines.replace(", minimum: 0", ""))]);
    let retry = mesh.run(&["quarantine", "retry", PRODUCT, "--publication", &first, "--format", "json"]);
    assert_eq!(status(&retry.expect_code(0)), "published");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, -2)]);
}

#[test]
fn a_retry_publishes_nothing_over_newer_rows() {
    let lax = UPSERT.replace(", minimum: 0", "");
    for (newer, serves) in [((5, 500), vec![(1, 1), (5, 500)]), ((5, 0), vec![(1, 1)])] {
        let mesh = mesh(&[("orders", UPSERT)]);
        let first = published(&mesh, &[("orders", &csv(&[(1, 1), (5, -5)]))])["publication"].to_string();
        let second = published(&mesh, &[("orders", &csv(&[newer]))])["publication"].to_string();
        remake(&mesh, &[("orders", &lax)]);
        let named = ["quarantine", "retry", PRODUCT, "--publication", first.as_str()];
        for asked in [&named[..], &named[..3]] {
            let refused = mesh.run(asked).expect_code(2);
            assert!(refused.stderr.contains(&format!("publication {second} was published since")), "{refused}");
            assert!(refused.stderr.contains(&format!("--publication {first} --over-newer")), "{refused}");
        }
        assert_eq!(served(&mesh, "orders"), serves);
        mesh.run(&["quarantine", "retry", PRODUCT, "--over-newer"]).expect_code(2);
        let over = [&named[..], &["--over-newer", "--format", "json"]].concat();
        let report = mesh.run(&over).expect_code(0).json();
        assert!(report["notes"].to_string().contains(&format!("over what publication {second}")), "{report}");
        assert_eq!(served(&mesh, "orders"), [(1, 1), (5, -5)]);
    }
}

#[test]
fn what_changed_no_row_of_an_upsert_outdates_nothing() {
    let mesh = mesh(&[("orders", UPSERT)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1), (5, -5)]))])["publication"].to_string();
    published(&mesh, &[("orders", &csv(&[(5, 500)]))]);
    mesh.run(&["rollback", PRODUCT, "--to", &first]).expect_code(0);
    published(&mesh, &[("orders", &csv(&[]))]);
    finish(publish(&mesh, &[("orders", &csv(&[(5, -50)]))])).expect_code(3);
    remake(&mesh, &[("orders", &UPSERT.replace(", minimum: 0", ""))]);
    let retry = || mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0);
    assert_eq!(status(&retry()), "published");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (5, -5)]);
    assert_eq!(status(&retry()), "repeat");
}

#[test]
fn of_an_upsert_the_newest_rows_are_retried_and_keep_their_age() {
    let mesh = mesh(&[("orders", UPSERT)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1), (2, 2), (5, -5), (6, -60)]))])["publication"].to_string();
    let second = published(&mesh, &[("orders", &csv(&[(3, 3), (5, -6)]))])["publication"].clone();
    remake(&mesh, &[("orders", &UPSERT.replace("minimum: 0", "minimum: -10"))]);
    let report = mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0).json();
    assert_eq!(report["resolves"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["resolves"][0]["publication"], second, "{report}");
    assert!(report["notes"].to_string().contains(&format!("since publication {first} held rows back")), "{report}");
    let serves = [(1, 1), (2, 2), (3, 3), (5, -6)];
    assert_eq!(served(&mesh, "orders"), serves);
    // What fails again in a retry is as old as it was.
    let over = ["quarantine", "retry", PRODUCT, "--over-newer", "--publication", first.as_str(), "--format", "json"];
    let report = mesh.run(&over).expect_code(0).json();
    assert_eq!((&report["tables"][0]["published"], &report["tables"][0]["quarantined"]), (&json!(1), &json!(1)));
    published(&mesh, &[("orders", &csv(&[(5, 7)]))]);
    remake(&mesh, &[("orders", &UPSERT.replace(", minimum: 0", ""))]);
    mesh.run(&["quarantine", "retry", PRODUCT]).expect_code(2);
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, 2), (3, 3), (5, 7)]);
}

#[test]
fn a_retry_that_a_publication_overtakes_is_a_conflict() {
    let mesh = mesh(&[("orders", UPSERT)]);
    published(&mesh, &[("orders", &csv(&[(1, 1), (5, -5)]))]);
    remake(&mesh, &[("orders", &UPSERT.replace(", minimum: 0", ""))]);
    let retry = mesh.command(&["quarantine", "retry", PRODUCT, "--format", "json"]);
    let outcome = race(&mesh, retry, PublishStep::Judged, |mesh| {
        published(mesh, &[("orders", &csv(&[(5, 500)]))]);
    });
    let outcome = outcome.expect_code(5);
    assert!(outcome.json()["because"].to_string().contains("may be out of date"), "{outcome}");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (5, 500)]);
}

#[test]
fn a_retry_that_was_rolled_back_can_be_made_again() {
    let mesh = mesh(&[("orders", APPEND)]);
    let first = published(&mesh, &[("orders", &csv(&[(1, 1), (2, -2)]))])["publication"].to_string();
    remake(&mesh, &[("orders", &APPEND.replace(", minimum: 0", ""))]);
    let retry = || mesh.run(&["quarantine", "retry", PRODUCT, "--format", "json"]).expect_code(0);
    assert_eq!(status(&retry()), "published");
    mesh.run(&["rollback", PRODUCT, "--to", &first]).expect_code(0);
    assert_eq!(served(&mesh, "orders"), [(1, 1)]);
    let again = retry();
    assert_eq!(status(&again), "published");
    assert_eq!(status(&retry()), "repeat");
    assert_eq!(served(&mesh, "orders"), [(1, 1), (2, -2)]);
    // What a publication held back that was rolled back itself is gone with it.
    let strict = format!("{}\nquality: [{{name: later, condition: 'id <> 4'}}]", APPEND.replace(", minimum: 0", ""));
    remake(&mesh, &[("orders", &strict)]);
    let gone = published(&mesh, &[("orders", &csv(&[(3, 3), (4, -4)]))])["publication"].to_string();
    mesh.run(&["rollback", PRODUCT, "--to", &again.json()["publication"].to_string()]).expect_code(0);
    assert_eq!(status(&retry()), "repeat");
    let refused = mesh.run(&["quarantine", "retry", PRODUCT, "--publication", &gone]).expect_code(2);
    assert!(refused.stderr.contains("was rolled back"), "{refused}");
}

#[test]
fn a_product_called_retry_is_written_with_its_domain() {
    let mesh = TestMesh::new()
        .with_product("shop/retry", &manifest(&[("orders", APPEND)]).replace("name: sales", "name: retry"));
    mesh.write("rows.csv", csv(&[(1, 1), (2, -2)]));
    mesh.run(&["publish", "shop/retry", "orders=rows.csv"]).expect_code(0);
    let shown = mesh.run(&["quarantine", "shop/retry"]).expect_code(0);
    assert!(shown.stdout.contains("minimum"), "{shown}");
    mesh.run(&["quarantine", "retry", "retry", "--dry-run"]).expect_code(3);
    mesh.run(&["quarantine"]).expect_code(2);
}

/// The same on an S3 server.
mod on_s3 {
    use crate::support::on_object_store;

    #[test]
    fn an_upsert_killed_at_any_step_is_applied_once() {
        on_object_store(super::an_upsert_killed_at_any_step_is_applied_once);
    }

    #[test]
    fn a_rollback_killed_at_any_step_goes_back_once() {
        on_object_store(super::a_rollback_killed_at_any_step_goes_back_once);
    }

    #[test]
    fn a_retry_killed_at_any_step_publishes_once() {
        on_object_store(super::a_retry_killed_at_any_step_publishes_once);
    }

    #[test]
    fn a_racing_upsert_is_planned_anew() {
        on_object_store(super::a_racing_upsert_is_planned_anew);
    }

    #[test]
    fn a_racing_backfill_conflicts_only_over_its_own_partitions() {
        on_object_store(super::a_racing_backfill_conflicts_only_over_its_own_partitions);
    }

    #[test]
    fn a_racing_rollback_reports_the_conflict() {
        on_object_store(super::a_racing_rollback_reports_the_conflict);
    }

    #[test]
    fn racing_retries_publish_once() {
        on_object_store(super::racing_retries_publish_once);
    }
}

/// What a write that broke off leaves is no table without rows, so nothing is replaced by it. A header alone is one, and so
/// is what has no header to lack.
#[test]
fn an_empty_file_takes_no_rows_away() {
    let product = |name: &str, source: &str| {
        format!(
            "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: lab\n  schema:\n    - name: rows\n      write: replace\n{source}      \
             columns: [{{name: id, type: int}}, {{name: n, type: int}}]\n"
        )
    };
    let mesh = TestMesh::new()
        .with_product("lab/counts", &product("counts", ""))
        .with_product("lab/bare", &product("bare", "      source: {path: bare.csv, header: false}\n"));
    let publish = |path: &str| mesh.run(&["publish", "lab/counts", &format!("rows={path}")]);
    mesh.write("good.csv", "id,n\n1,1\n");
    publish("good.csv").expect_code(0);
    mesh.write("folder/a.csv", "id,n\n2,2\n");
    for empty in [&b""[..], b"\xef\xbb\xbf", b"\n\r\n\n"] {
        mesh.write("empty.csv", empty);
        mesh.write("folder/b.csv", empty);
        for (path, name) in [("empty.csv", "empty.csv"), ("folder", "b.csv"), ("folder/*.csv", "b.csv")] {
            let outcome = publish(path).expect_code(7);
            for text in [format!("{name}` is empty").as_str(), "help: a header alone is a table without rows"] {
                assert!(outcome.stderr.contains(text), "no `{text}` in: {outcome}");
            }
        }
    }
    let piped = mesh.run_with_input(&["publish", "lab/counts", "rows=-"], "").expect_code(7);
    assert!(piped.stderr.contains("`standard input` is empty"), "{piped}");
    assert_eq!((mesh.count("lab.counts.rows"), mesh.publications("lab/counts").len()), (1, 1));

    mesh.write("empty.csv", "id,n\n");
    publish("empty.csv").expect_code(0);
    assert_eq!(mesh.count("lab.counts.rows"), 0);
    mesh.write("more.csv", "id,n\n2,2\n");
    publish("more.csv").expect_code(0);
    assert_eq!(mesh.count("lab.counts.rows"), 1);
    mesh.write("empty.ndjson", "");
    mesh.run(&["publish", "lab/counts", "rows=empty.ndjson", "--again"]).expect_code(0);
    assert_eq!(mesh.count("lab.counts.rows"), 0, "no lines are no objects");

    mesh.write("domains/lab/products/bare/bare.csv", "");
    mesh.run(&["publish", "lab/bare"]).expect_code(0);
    assert_eq!(mesh.count("lab.bare.rows"), 0);
}

/// The same with the registry in PostgreSQL.
mod on_postgres {
    use crate::support::on_postgres;

    #[test]
    fn an_upsert_killed_at_any_step_is_applied_once() {
        on_postgres(super::an_upsert_killed_at_any_step_is_applied_once);
    }

    #[test]
    fn a_rollback_killed_at_any_step_goes_back_once() {
        on_postgres(super::a_rollback_killed_at_any_step_goes_back_once);
    }

    #[test]
    fn a_retry_killed_at_any_step_publishes_once() {
        on_postgres(super::a_retry_killed_at_any_step_publishes_once);
    }

    #[test]
    fn racing_retries_publish_once() {
        on_postgres(super::racing_retries_publish_once);
    }
}
