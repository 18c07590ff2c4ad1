//! Attacks. Each leaks when nothing is governed, or it would prove nothing, and does not when it is.

use datamesh_app::ports::Visibility;
use datamesh_core::access::TableAccess;

use super::{Mesh, access, filter, people, text};

/// What gives an attack away.
#[derive(Clone, Copy, Debug)]
enum Leak {
    /// The answer, or the error, has this in it.
    Shows(&'static str),
    /// It fails.
    Fails,
}

impl Leak {
    fn is_in(self, answer: &Result<String, String>) -> bool {
        match (self, answer) {
            (Self::Shows(text), Ok(answer) | Err(answer)) => answer.contains(text),
            (Self::Fails, answer) => answer.is_err(),
        }
    }
}

fn decided() -> TableAccess {
    let rows = filter("country = principal.country", &[("country", text("DE"))]);
    let masks = [("email", "hash"), ("name", "partial(1, 0)"), ("salary", "null"), ("address.street", "redact")];
    access(Some(rows), &masks, &["hush"])
}

/// What a reader must never see of the rows that are theirs, nor anything of the others.
const RAW: [&str; 12] =
    ["@raw.example", "anna Raw", "zoe", "yves", "zeno", "yann", "7777", "8444", "unseen", "Street of", "hush ", "104"];

#[rustfmt::skip]
const ATTACKS: &[(&str, Leak)] = &[
    // Expressions that fail on rows that are not seen.
    ("SELECT 100 / div FROM people", Leak::Fails),
    ("SELECT id FROM people WHERE 100 / div > 0", Leak::Fails),
    ("SELECT id FROM people WHERE country = 'DE' OR 100 / div > 0", Leak::Fails),
    ("SELECT id FROM people WHERE CASE WHEN country <> 'DE' THEN 100 / div > 0 ELSE true END", Leak::Fails),
    ("SELECT coalesce(CAST(NULL AS INT), 100 / div) FROM people", Leak::Fails),
    ("SELECT id FROM people WHERE CAST(digits AS INT) > 0", Leak::Shows("(unseen")),
    ("SELECT sum(CAST(digits AS INT)) FROM people", Leak::Shows("(unseen")),
    ("SELECT country FROM people GROUP BY country HAVING sum(100 / div) > 0", Leak::Fails),
    ("SELECT id FROM people ORDER BY CAST(digits AS INT) LIMIT 1", Leak::Shows("(unseen")),
    ("SELECT id FROM people WHERE regexp_like('x', digits)", Leak::Shows("unseen")),
    ("SELECT id FROM (SELECT id, 100 / div AS q FROM people) t WHERE q > 0", Leak::Fails),
    ("SELECT id FROM people WHERE id IN (SELECT 100 / div FROM people)", Leak::Fails),
    ("SELECT a.id FROM people a JOIN people b ON a.id = b.id AND 100 / b.div > 0", Leak::Fails),
    ("SELECT p.id, l.q FROM people p CROSS JOIN LATERAL (SELECT max(100 / q.div) AS q FROM people q WHERE q.id = p.id) l", Leak::Fails),
    ("SELECT rank() OVER (ORDER BY 100 / div) FROM people", Leak::Fails),
    ("SELECT id FROM people WHERE abs(1 / div) > 0 AND country IN ('DE', 'FR')", Leak::Fails),
    ("SELECT id FROM people WHERE arrow_cast(digits, 'Int32') = 1", Leak::Shows("(unseen")),
    // Expressions that fail on masked values, and quote them.
    ("SELECT CAST(email AS INT) FROM people WHERE id = 1", Leak::Shows("anna@raw")),
    ("SELECT id FROM people WHERE CAST(name AS DATE) > DATE '2020-01-01' AND id = 1", Leak::Shows("anna Raw")),
    ("SELECT 1 / (salary - 77777) FROM people", Leak::Fails),
    ("SELECT id FROM people WHERE 1 / (salary - 77777) > 0", Leak::Fails),
    ("SELECT CAST(address['street'] AS INT) FROM people WHERE id = 1", Leak::Shows("Street of anna")),
    ("SELECT CASE WHEN email LIKE 'anna%' THEN 1 / (id - 1) ELSE 0 END FROM people", Leak::Fails),
    // Counts, extremes and other aggregates, from statistics or not.
    ("SELECT count(*) AS n FROM people", Leak::Shows("| 7 ")),
    ("SELECT count(1) FILTER (WHERE country = 'FR') AS n FROM people", Leak::Shows("| 4 ")),
    ("SELECT count(id) AS n FROM people", Leak::Shows("| 7 ")),
    ("SELECT min(div) AS n FROM people", Leak::Shows("| 0 ")),
    ("SELECT max(id) FROM people", Leak::Shows("104")),
    ("SELECT max(country) FROM people", Leak::Shows("FR")),
    ("SELECT max(salary) FROM people WHERE country = 'DE'", Leak::Shows("77777")),
    ("SELECT min(email) FROM people", Leak::Shows("anna@raw")),
    ("SELECT count(salary) AS n FROM people WHERE country = 'DE'", Leak::Shows("| 3 ")),
    ("SELECT approx_distinct(country) AS n FROM people", Leak::Shows("| 2 ")),
    ("SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY salary) FROM people WHERE id = 3", Leak::Shows("77777")),
    ("SELECT array_agg(email) FROM people", Leak::Shows("anna@raw")),
    ("SELECT string_agg(name, ',') FROM people", Leak::Shows("anna Raw")),
    ("SELECT country FROM people GROUP BY ROLLUP (country)", Leak::Shows("FR")),
    // Plans, and what they measure.
    ("EXPLAIN SELECT id FROM people", Leak::Shows("parquet")),
    ("EXPLAIN SELECT id FROM people", Leak::Shows("files=")),
    ("EXPLAIN VERBOSE SELECT id FROM people", Leak::Shows("Rows=Exact(7)")),
    ("EXPLAIN VERBOSE SELECT id FROM people", Leak::Shows("104")),
    ("EXPLAIN VERBOSE SELECT id FROM people WHERE div > 0", Leak::Shows("parquet")),
    ("EXPLAIN FORMAT TREE SELECT id FROM people", Leak::Shows("files")),
    ("EXPLAIN FORMAT INDENT SELECT id FROM people WHERE id > 100", Leak::Shows("parquet")),
    ("EXPLAIN ANALYZE SELECT id FROM people", Leak::Shows("output_rows=7")),
    ("EXPLAIN ANALYZE SELECT id FROM people WHERE id > 1000", Leak::Shows("pruned")),
    ("EXPLAIN ANALYZE VERBOSE SELECT id FROM people WHERE id > 100", Leak::Shows("row_groups")),
    ("EXPLAIN SELECT count(*) FROM people", Leak::Shows("7")),
    ("EXPLAIN SELECT max(id) FROM people", Leak::Shows("104")),
    // Rows by way of other operators.
    ("SELECT id FROM people", Leak::Shows("104")),
    ("SELECT id FROM people LIMIT 100", Leak::Shows("104")),
    ("SELECT id FROM people ORDER BY id DESC LIMIT 1", Leak::Shows("104")),
    ("SELECT id FROM people OFFSET 3", Leak::Shows("104")),
    ("SELECT id FROM people UNION SELECT id FROM people", Leak::Shows("104")),
    ("SELECT id FROM people INTERSECT SELECT id FROM people", Leak::Shows("104")),
    ("SELECT id FROM people EXCEPT SELECT 1", Leak::Shows("104")),
    ("SELECT a.id FROM people a JOIN (VALUES (104)) v(x) ON a.id = v.x", Leak::Shows("104 |")),
    ("SELECT v.x FROM (VALUES (104)) v(x) WHERE EXISTS (SELECT 1 FROM people WHERE id = v.x)", Leak::Shows("104 |")),
    ("SELECT id FROM people WHERE country = 'FR'", Leak::Shows("104")),
    ("SELECT count(*) OVER () AS n FROM people LIMIT 1", Leak::Shows("| 7 ")),
    ("SELECT lead(id) OVER (ORDER BY id) FROM people", Leak::Shows("104")),
    ("WITH RECURSIVE r AS (SELECT 101 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 104 AND n + 1 IN (SELECT id FROM people)) SELECT max(n) AS n FROM r", Leak::Shows("104")),
    ("SELECT unnest(tags) FROM people", Leak::Shows("tag zoe")),
    ("SELECT (SELECT count(*) FROM people q WHERE q.country = 'FR') AS n", Leak::Shows("| 4 ")),
    // Masked values by way of other operators.
    ("SELECT * FROM people", Leak::Shows("anna@raw")),
    ("SELECT DISTINCT salary FROM people WHERE country = 'DE'", Leak::Shows("77777")),
    ("SELECT email, count(*) FROM people GROUP BY email", Leak::Shows("anna@raw")),
    ("SELECT id AS n FROM people WHERE email = 'anna@raw.example'", Leak::Shows("| 1 ")),
    ("SELECT id AS n FROM people WHERE email LIKE 'anna%'", Leak::Shows("| 1 ")),
    ("SELECT id AS n FROM people WHERE email IN ('anna@raw.example')", Leak::Shows("| 1 ")),
    ("SELECT id AS n FROM people WHERE salary > 77000 AND country = 'DE'", Leak::Shows("| 3 ")),
    ("SELECT id AS n FROM people WHERE salary BETWEEN 71000 AND 72000", Leak::Shows("| 1 ")),
    ("SELECT id AS n FROM people WHERE salary IS NOT NULL AND id = 3", Leak::Shows("| 3 ")),
    ("SELECT p.id AS n FROM people p JOIN (VALUES (77777)) v(x) ON p.salary = v.x", Leak::Shows("| 3 ")),
    ("SELECT (SELECT max(q.salary) FROM people q WHERE q.id = p.id) FROM people p", Leak::Shows("77777")),
    ("SELECT lag(salary) OVER (ORDER BY id) FROM people", Leak::Shows("77777")),
    ("SELECT first_value(email ORDER BY id) FROM people", Leak::Shows("anna@raw")),
    ("SELECT id AS n FROM people WHERE country = 'DE' ORDER BY salary DESC, id LIMIT 1", Leak::Shows("| 3 ")),
    ("SELECT substr(name, 2) FROM people", Leak::Shows("nna Raw")),
    ("SELECT md5(email) FROM people WHERE id = 1", Leak::Shows("769509117554a9816198cbd0976ef0b4")),
    ("SELECT address['street'] FROM people", Leak::Shows("Street of anna")),
    ("SELECT address FROM people", Leak::Shows("Street of anna")),
    ("SELECT get_field(address, 'street') FROM people WHERE address['street'] > 'A'", Leak::Shows("Street of anna")),
    ("SELECT unnest(address) FROM people", Leak::Shows("Street of anna")),
    ("SELECT id AS n FROM people WHERE address['street'] = 'Street of anna'", Leak::Shows("| 1 ")),
    // Columns that are not there.
    ("SELECT * FROM people WHERE id = 1", Leak::Shows("hush")),
    ("SELECT hush FROM people WHERE id = 1", Leak::Shows("hush anna")),
    ("SELECT id AS n FROM people WHERE hush LIKE 'hush a%'", Leak::Shows("| 1 ")),
    ("SELECT * EXCEPT (id) FROM people WHERE id = 1", Leak::Shows("hush")),
    ("SELECT count(*) FROM people a JOIN people b USING (hush)", Leak::Shows("7")),
    ("DESCRIBE hr.staff.people", Leak::Shows("hush")),
    ("SELECT column_name FROM information_schema.columns WHERE table_name = 'people'", Leak::Shows("hush")),
    ("SHOW COLUMNS FROM hr.staff.people", Leak::Shows("hush")),
];

fn named(sql: &str) -> String {
    sql.replace("FROM people", "FROM hr.staff.people").replace("JOIN people", "JOIN hr.staff.people")
}

/// A plan without the times that it took, whose digits are any.
fn without_times(answer: &str) -> String {
    let is_time = |metric: &&str| {
        let value = metric.rsplit('=').next().unwrap_or_default().trim_end_matches([',', ']', ' ', '\n']);
        let seconds = value.trim_end_matches('s').trim_end_matches(['n', 'µ', 'm']);
        metric.contains("_timestamp{") || (value.ends_with('s') && seconds.parse::<f64>().is_ok())
    };
    answer.split_inclusive([',', ']', '\n']).filter(|metric| !is_time(metric)).collect()
}

#[tokio::test]
async fn attacks_leak_only_where_nothing_is_governed() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let everything = Visibility::plain(&mesh.catalog);
    let governed = mesh.visible("people", decided());
    let mut wrong = Vec::new();
    for (sql, leak) in ATTACKS {
        let sql = named(sql);
        let open = mesh.ask(&sql, &everything).await;
        if !leak.is_in(&open) {
            wrong.push(format!("proves nothing: {sql}: {leak:?}\n{open:?}"));
        }
        let closed = mesh.ask(&sql, &governed).await;
        // An error comes back with what the reader wrote.
        let told = closed.as_ref().is_err_and(|_| matches!(leak, Leak::Shows(text) if sql.contains(text)));
        if leak.is_in(&closed) && !told {
            wrong.push(format!("leaks: {sql}: {leak:?}\n{closed:?}"));
        }
        let (Ok(answer) | Err(answer)) = &closed;
        let answer = without_times(answer);
        // What a reader writes comes back in plans and in the names of columns.
        for raw in RAW.iter().filter(|raw| !sql.contains(**raw)) {
            if answer.contains(raw) {
                wrong.push(format!("shows `{raw}`: {sql}\n{answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn a_hidden_column_is_as_one_that_does_not_exist() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let governed = mesh.visible("people", decided());
    let hidden = mesh.ask("SELECT hush FROM hr.staff.people", &governed).await.expect_err("hidden");
    let missing = mesh.ask("SELECT gush FROM hr.staff.people", &governed).await.expect_err("missing");
    assert_eq!(hidden.replace("hush", "gush"), missing);
}

#[tokio::test]
async fn what_is_seen_is_what_was_decided() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let governed = mesh.visible("people", decided());
    let sql = "SELECT id, country, name, salary, address, arrow_typeof(email) AS t, length(email) AS l FROM hr.staff.people \
               WHERE id < 3 ORDER BY id";
    let seen = mesh.ask(sql, &governed).await.expect("an answer");
    for row in [
        "| 1  | DE      | a******* |        | {city: City of anna, street: ***} | Utf8 | 32 |",
        "| 2  | DE      | b******* |        | {city: City of bert, street: ***} | Utf8 | 32 |",
    ] {
        assert!(seen.contains(row), "{seen}");
    }
    let joined = "SELECT count(*) AS n FROM hr.staff.people a JOIN hr.staff.people b ON a.email = b.email";
    assert!(mesh.ask(joined, &governed).await.expect("an answer").contains("| 3 "));
    let plan = mesh.ask("EXPLAIN SELECT id FROM hr.staff.people WHERE id = 2", &governed).await.expect("a plan");
    assert!(
        plan.contains("GovernedScan: table=hr.staff_v1.people, access=filter rows, mask address, email, name, salary"),
        "{plan}"
    );
}

#[tokio::test]
async fn a_table_that_nobody_decided_on_is_not_there() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let nothing = Visibility::default();
    let unseen = mesh.ask("SELECT * FROM hr.staff.people", &nothing).await.expect_err("undecided");
    assert!(unseen.contains("not found") && !unseen.contains("there are"), "{unseen}");
    let other = mesh.ask("SELECT * FROM hr.staff.nobody", &nothing).await.expect_err("missing");
    assert_eq!(unseen.replace("people", "nobody"), other);
    let listed = mesh.ask("SELECT table_name FROM information_schema.tables", &nothing).await.expect("a list");
    assert!(!listed.contains("people"), "{listed}");
    let version = mesh.ask("SELECT * FROM hr.none.people FOR VERSION AS OF 1", &nothing).await.expect_err("missing");
    assert!(!version.contains("there are"), "{version}");
    let denied = mesh.visible("people", TableAccess::default());
    let denied = mesh.ask("SELECT * FROM hr.staff.people", &denied).await.expect_err("denied");
    assert!(denied.contains("nothing of table `hr.staff_v1.people` may be seen"), "{denied}");
}

#[tokio::test]
async fn a_row_filter_that_fails_says_nothing_of_the_row() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let rows = filter("CAST(digits AS INT) > 0", &[]);
    let governed = mesh.visible("people", access(Some(rows), &[], &[]));
    let error = mesh.ask("SELECT id FROM hr.staff.people", &governed).await.expect_err("a failure");
    assert!(error.contains("the row filter of table `hr.staff_v1.people` failed"), "{error}");
    assert!(!error.contains("unseen") && !error.contains("digits"), "{error}");
    // Nor does it depend on what the reader asks for, or failures would tell which rows there are.
    let narrowed = mesh.ask("SELECT id FROM hr.staff.people WHERE id = 1", &governed).await.expect_err("a failure");
    assert_eq!(narrowed, error);
}

#[tokio::test]
async fn measurements_do_not_tell_how_many_rows_lie_beside_those_that_are_seen() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table.clone(), &rows[..1]).await;
    let rest: Vec<_> = rows[1..].to_vec();
    mesh.publish(with_append(table), &rest).await;
    let governed = mesh.visible("people", decided());
    // Whether a file is left out by the reader's predicate does not show.
    for sql in ["SELECT id FROM hr.staff.people WHERE id = 1", "SELECT id FROM hr.staff.people"] {
        let plan = mesh.ask(&format!("EXPLAIN ANALYZE {sql}"), &governed).await.expect("a plan");
        let scan = plan.lines().find(|line| line.contains("GovernedScan")).expect("the scan");
        assert!(scan.contains("output_rows=3"), "{scan}");
        let open =
            mesh.ask(&format!("EXPLAIN ANALYZE {sql}"), &Visibility::plain(&mesh.catalog)).await.expect("a plan");
        assert!(open.contains("files_pruned_bounds") || open.contains("files="), "{open}");
    }
}

fn with_append(mut table: serde_json::Value) -> serde_json::Value {
    table["write"] = "append".into();
    table
}

fn data_files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            data_files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "parquet") {
            found.push(entry);
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_named() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let mut files = Vec::new();
    data_files(mesh.folder.path(), &mut files);
    for file in &files {
        std::fs::remove_file(file).expect("removed");
    }
    let sql = "SELECT id FROM hr.staff.people";
    let open = mesh.ask(sql, &Visibility::plain(&mesh.catalog)).await.expect_err("no file");
    assert!(open.contains(".parquet"), "{open}");
    let closed = mesh.ask(sql, &mesh.visible("people", decided())).await.expect_err("no file");
    assert!(closed.contains("the files of table `hr.staff_v1.people` cannot be read"), "{closed}");
    assert!(!closed.contains("parquet") && !closed.contains(mesh.folder.path().to_str().expect("a path")), "{closed}");
}
