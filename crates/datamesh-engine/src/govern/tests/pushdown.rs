//! What of a reader's query reaches the files.

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datamesh_app::ports::{Engine, QueryRequest, Visibility};
use datamesh_core::history::History;
use serde_json::json;

use super::super::exec::GovernedExec;
use super::{Mesh, access, filter, people, text};

fn scans(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<Arc<dyn ExecutionPlan>>) {
    if plan.is::<GovernedExec>() {
        found.push(plan.clone());
    }
    plan.children().into_iter().for_each(|child| scans(child, found));
}

/// The governed scans of a query.
async fn governed(mesh: &Mesh, sql: &str, visible: &Visibility) -> Vec<Arc<dyn ExecutionPlan>> {
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    let query = mesh.engine.plan_request(&request, &mesh.catalog, &History::default(), visible).await;
    let plan = query.expect("a plan").frame.create_physical_plan().await.expect("a plan");
    let mut found = Vec::new();
    scans(&plan, &mut found);
    found
}

fn below(scan: &Arc<dyn ExecutionPlan>) -> String {
    let scan = scan.downcast_ref::<GovernedExec>().expect("a governed scan");
    displayable(scan.inner().as_ref()).indent(true).to_string()
}

#[tokio::test]
async fn only_what_is_harmless_reaches_the_files() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let rows = filter("country = principal.country", &[("country", text("DE"))]);
    let visible = mesh.visible("people", access(Some(rows), &[("email", "hash"), ("salary", "null")], &["hush"]));
    for (condition, wanted) in [
        ("id = 2", Some("id@0 = 2")),
        ("id IN (1, 2) AND 10 / div > 1", Some("id@0")),
        ("id > 1 AND email LIKE 'a%'", Some("id@0 > 1")),
        ("digits LIKE '1%'", Some("digits")),
        ("10 / div > 1", None),
        ("CAST(digits AS INT) > 1", None),
        ("email = 'anna@raw.example'", None),
        ("salary > 1", None),
        ("salary IS NULL", None),
        ("upper(digits) = 'X'", None),
    ] {
        let scans = governed(&mesh, &format!("SELECT id FROM hr.staff.people WHERE {condition}"), &visible).await;
        let below = below(&scans[0]);
        assert!(below.contains("country"), "the row filter too: {below}");
        let predicate = below.split("predicate=").nth(1).unwrap_or_default();
        match wanted {
            Some(wanted) => assert!(predicate.contains(wanted), "{condition}: {below}"),
            None => assert!(
                ["id@", "div", "digits", "email", "salary"].iter().all(|name| !predicate.contains(name)),
                "{condition}: {below}"
            ),
        }
        assert!(!predicate.contains('/') && !predicate.contains("CAST"), "{below}");
    }
    let join = "SELECT a.id FROM hr.staff.people a JOIN (VALUES (1), (2)) v(x) ON a.id = v.x";
    let scans = governed(&mesh, join, &visible).await;
    assert!(below(&scans[0]).contains("DynamicFilter"), "{}", below(&scans[0]));
    let top = governed(&mesh, "SELECT id FROM hr.staff.people ORDER BY id LIMIT 1", &visible).await;
    assert!(below(&top[0]).contains("DynamicFilter"), "{}", below(&top[0]));
    let top = governed(&mesh, "SELECT id FROM hr.staff.people ORDER BY salary LIMIT 1", &visible).await;
    assert!(!below(&top[0]).contains("DynamicFilter"), "{}", below(&top[0]));
}

#[tokio::test]
async fn a_filter_that_partitions_settle_costs_nothing() {
    let mut mesh = Mesh::new();
    let (mut table, rows) = people();
    table["partitionBy"] = json!([{ "column": "country", "transform": "identity" }]);
    mesh.publish(table, &rows).await;
    let sql = "SELECT id, salary FROM hr.staff.people";
    for (condition, known) in [
        ("country = 'DE'", Some(3)),
        ("country IN ('FR', 'IT')", Some(4)),
        ("country = 'DE' AND id < 50", Some(3)),
        ("country = 'DE' AND id < 2", None),
        ("id < 3", None),
    ] {
        let visible = mesh.visible("people", access(Some(filter(condition, &[])), &[("salary", "null")], &[]));
        let scans = governed(&mesh, sql, &visible).await;
        let statistics = scans[0].partition_statistics(None).expect("statistics");
        assert_eq!(statistics.num_rows.get_value().copied(), known, "{condition}: {statistics:?}");
        let bounds = |at: usize| statistics.column_statistics[at].max_value.clone();
        assert!(matches!((bounds(0), known), (Precision::Absent, None) | (_, Some(_))), "{condition}");
        assert_eq!(bounds(1), Precision::Absent, "{condition}: a masked column has none");
    }
}

#[tokio::test]
async fn what_is_null_is_admitted_by_no_proof() {
    let mut mesh = Mesh::new();
    let (table, mut rows) = people();
    rows[1]["id"] = serde_json::Value::Null;
    mesh.publish(table, &rows).await;
    for (condition, count) in [("id < 1000", 6), ("id IS NULL OR id < 1000", 7), ("NOT (id >= 1000)", 6)] {
        let visible = mesh.visible("people", access(Some(filter(condition, &[])), &[], &[]));
        let seen = mesh.ask("SELECT count(*) AS n FROM hr.staff.people", &visible).await.expect("an answer");
        assert!(seen.contains(&format!("| {count} |")), "{condition}: {seen}");
    }
}
