//! Earlier states of a table: decisions name its columns as they are now.

use datamesh_app::ports::Visibility;
use datamesh_core::access::{AccessWay, TableAccess};
use serde_json::{Value, json};

use super::{Mesh, access, filter};

fn column(name: &str, data_type: &str) -> Value {
    json!({ "name": name, "type": data_type })
}

/// A table whose columns were renamed, dropped and added since its first snapshot.
async fn renamed() -> (Mesh, String) {
    let mut mesh = Mesh::new();
    let first = json!({ "name": "people", "columns": [
        column("id", "int"), column("mail", "string"), column("land", "string"), column("pin", "string"),
        { "name": "home", "type": { "struct": [column("road", "string"), column("gone", "string")] } },
    ] });
    let home = json!({ "road": "Raw Road", "gone": "Raw Gone" });
    let rows = [
        json!({ "id": 1, "mail": "raw@example", "land": "DE", "pin": "raw pin", "home": home }),
        json!({ "id": 2, "mail": "far@example", "land": "FR", "pin": "far pin", "home": home }),
    ];
    let snapshot = mesh.publish(first, &rows).await;
    let mut now = json!({ "name": "people", "columns": [
        column("id", "long"),
        { "name": "email", "type": "string", "renamedFrom": "mail" },
        { "name": "country", "type": "string", "renamedFrom": "land" },
        { "name": "home", "type": { "struct": [{ "name": "street", "type": "string", "renamedFrom": "road" }] } },
        column("level", "int"),
    ] });
    let mut row = json!({ "id": 3, "email": "new@example", "country": "DE", "level": 2,
        "home": { "street": "Raw Street" } });
    mesh.publish(now.clone(), &[row.clone()]).await;
    // Another column, under the name that the address had.
    now["columns"].as_array_mut().expect("columns").push(column("mail", "string"));
    for name in ["email", "country"] {
        let columns = now["columns"].as_array_mut().expect("columns");
        let column = columns.iter_mut().find(|column| column["name"] == name).expect("a column");
        column.as_object_mut().expect("an object").remove("renamedFrom");
    }
    (row["id"], row["mail"], row["level"]) = (4.into(), "clear".into(), 1.into());
    mesh.publish(now, &[row]).await;
    (mesh, format!("hr.staff.people FOR VERSION AS OF {snapshot}"))
}

#[tokio::test]
async fn masks_and_filters_follow_a_column_to_the_name_it_had() {
    let (mesh, then) = renamed().await;
    let sql = format!("SELECT * FROM {then} ORDER BY id");
    let open = mesh.ask(&sql, &Visibility::plain(&mesh.catalog)).await.expect("an answer");
    for raw in ["raw@example", "far@example", "raw pin", "Raw Road", "Raw Gone", "FR"] {
        assert!(open.contains(raw), "{open}");
    }
    let decided = access(Some(filter("country = 'DE'", &[])), &[("email", "redact"), ("home.street", "redact")], &[]);
    let seen = mesh.ask(&sql, &mesh.visible("people", decided)).await.expect("an answer");
    assert!(seen.contains("| 1  | ***  | DE   | {road: ***, gone: } |"), "{seen}");
    for raw in ["raw@example", "far@example", "pin", "Raw", "FR"] {
        assert!(!seen.contains(raw), "{raw}: {seen}");
    }
}

#[tokio::test]
async fn a_hidden_column_stays_hidden_under_its_old_name() {
    let (mesh, then) = renamed().await;
    let decided = mesh.visible("people", access(None, &[], &["email"]));
    let error = mesh.ask(&format!("SELECT mail FROM {then}"), &decided).await.expect_err("hidden");
    assert!(error.contains("No field named mail"), "{error}");
    let seen = mesh.ask("SELECT mail FROM hr.staff.people WHERE id = 4", &decided).await.expect("an answer");
    assert!(seen.contains("clear"), "{seen}");
}

#[tokio::test]
async fn what_the_table_no_longer_has_is_seen_by_who_sees_everything_only() {
    let (mesh, then) = renamed().await;
    let sql = format!("SELECT * FROM {then}");
    let granted = TableAccess { ways: vec![AccessWay::default()], ..TableAccess::default() };
    let seen = mesh.ask(&sql, &mesh.visible("people", granted)).await.expect("an answer");
    assert!(seen.contains("raw@example") && !seen.contains("pin") && !seen.contains("Raw Gone"), "{seen}");
}

#[tokio::test]
async fn a_filter_on_a_column_that_was_not_there_admits_nothing() {
    let (mesh, then) = renamed().await;
    let decided = mesh.visible("people", access(Some(filter("level > 1", &[])), &[], &[]));
    let count = |seen: String, count: &str| assert!(seen.contains(&format!("| {count} ")), "{seen}");
    count(mesh.ask(&format!("SELECT count(*) AS n FROM {then}"), &decided).await.expect("an answer"), "0");
    count(mesh.ask("SELECT count(*) AS n FROM hr.staff.people", &decided).await.expect("an answer"), "1");
}
