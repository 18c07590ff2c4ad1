//! Every way to a table's rows in the engine.

use chrono::DateTime;
use datamesh_app::ports::{
    Engine, NamedTables, PinnedTable, QueryRequest, Sight, StageInput, TransformInput, Visibility,
};
use datamesh_core::history::History;
use datamesh_core::transform::{InputPin, TransformRun, TransformSpec};
use serde_json::json;

use super::{Mesh, access, filter, key, people};

fn names(mesh: &Mesh, sql: &str) -> NamedTables {
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    mesh.engine.names(&request, &mesh.catalog, &History::default()).expect("a query")
}

#[tokio::test]
async fn a_query_names_its_tables_before_it_is_planned() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    let snapshot = mesh.publish(table, &rows).await;
    for sql in [
        "SELECT * FROM hr.staff.people",
        "SELECT * FROM hr.staff_v1.people",
        "SELECT * FROM HR.Staff.\"people\" LIMIT 1",
        "WITH x AS (SELECT id FROM hr.staff.people) SELECT * FROM x",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM hr.staff.people)",
        "EXPLAIN ANALYZE SELECT * FROM hr.staff.people",
        "DESCRIBE hr.staff.people",
        &format!("SELECT * FROM hr.staff.people FOR VERSION AS OF {snapshot} AS p"),
        "SELECT (SELECT max(id) FROM hr.staff.people) UNION SELECT 1",
    ] {
        let named = names(&mesh, sql);
        assert_eq!(named.tables.into_iter().collect::<Vec<_>>(), [(key(), "people".to_owned())], "{sql}");
        assert!(!named.lists, "{sql}");
    }
    for sql in ["SHOW TABLES", "SELECT * FROM information_schema.columns", "SHOW COLUMNS FROM hr.staff.people"] {
        assert!(names(&mesh, sql).lists, "{sql}");
    }
    assert_eq!(names(&mesh, "SELECT * FROM hr.staff.nobody, nowhere.at.all, x"), NamedTables::default());
}

fn input(mesh: &Mesh, sql: &str, since: Option<i64>, sight: Sight) -> StageInput {
    let pointer = mesh.catalog[0].tables.iter().find(|pointer| pointer.table == "people").expect("a table").clone();
    let pin = InputPin {
        product: key(),
        version: mesh.catalog[0].revision.contract.version.clone(),
        table: "people".into(),
        publication: pointer.publication,
        snapshot_id: 1,
        changes: since.is_some(),
        since,
    };
    StageInput::Query(Box::new(TransformInput {
        transform: TransformSpec { sql: sql.to_owned(), file: None },
        run: TransformRun { table: "copy".into(), sql_hash: String::new(), inputs: vec![pin.clone()] },
        tables: vec![PinnedTable { pin, pointer, sight }],
        base: None,
        full_refresh: false,
        now: DateTime::UNIX_EPOCH,
        decided: None,
    }))
}

#[tokio::test]
async fn a_transform_sees_what_its_domain_sees() {
    let mut mesh = Mesh::new();
    let (mut table, rows) = people();
    let first = mesh.publish(table.clone(), &rows[..1]).await;
    mesh.publish(table.clone(), &rows[1..]).await;
    let contract = serde_json::from_value(table["columns"].take()).map(|columns| {
        let mut contract = mesh.catalog[0].revision.contract.tables[0].clone();
        contract.columns = columns;
        contract
    });
    let decided = access(Some(filter("country = 'DE'", &[])), &[("email", "redact"), ("salary", "null")], &["hush"]);
    let sight = Sight::new(decided, contract.expect("columns"));
    let column = |name: &str, data_type: &str| json!({ "name": name, "type": data_type });
    let copy = json!({ "name": "copy", "write": "replace", "columns": [
        column("id", "long"), column("email", "string"), column("salary", "int"), column("div", "int"),
    ] });
    let everything = |mesh: &Mesh| Visibility::plain(&mesh.catalog);
    for (sql, since, count) in [
        ("SELECT id, email, salary, 100 / div AS div FROM hr.staff.people", None, 3),
        ("SELECT id, email, salary, 100 / div AS div FROM {changes(hr.staff.people)}", Some(first), 2),
    ] {
        let input = input(&mesh, sql, since, sight.clone());
        mesh.publish_input(copy.clone(), input).await;
        let seen = mesh.ask("SELECT * FROM hr.staff.copy", &everything(&mesh)).await.expect("an answer");
        assert_eq!(seen.matches("| ***   |        |").count(), count, "{seen}");
        assert_eq!(seen.lines().count(), count + 4, "{seen}");
    }
    let StageInput::Query(hidden) = input(&mesh, "SELECT id, hush AS email FROM hr.staff.people", None, sight) else {
        unreachable!("it is a query")
    };
    let copy = serde_json::from_value(copy).expect("a table");
    let error = mesh.engine.transform_lineage(&copy, &hidden).await.expect_err("hidden");
    assert!(error.to_string().contains("No field named hush"), "{error}");
}

#[tokio::test]
async fn lists_tell_of_what_may_be_seen() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table.clone(), &rows).await;
    let mut other = table;
    other["name"] = "others".into();
    mesh.publish(other, &rows[..1]).await;
    let mut visible = Visibility::plain(&mesh.catalog);
    visible.tables.retain(|(_, table), _| table == "people");
    visible.known.retain(|(_, table)| table == "people");
    for sql in ["SHOW TABLES", "SELECT table_name, column_name FROM information_schema.columns"] {
        let listed = mesh.ask(sql, &visible).await.expect("a list");
        assert!(listed.contains("people") && !listed.contains("others"), "{listed}");
    }
    let error = mesh.ask("SELECT * FROM hr.staff.others", &visible).await.expect_err("not there");
    assert!(error.contains("there are: hr.staff.people") && !error.contains("hr.staff.others,"), "{error}");
}
