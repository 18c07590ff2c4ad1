//! What every registry must do with its audit log.

use chrono::TimeDelta;
use datamesh_core::ErrorCode;
use datamesh_core::access::Governance;
use datamesh_core::audit::{AuditKind, AuditQuery, ReadOutcome, ReadRecord};
use datamesh_core::domain::Domain;
use datamesh_core::ports::{ApplyOutcome, ProductMove, Registry};
use datamesh_core::receipt;
use datamesh_registry::SqlRegistry;
use serde_json::{Value, json};

use crate::access;
use crate::apply::empty;
use crate::requests::{Deaf, Key, decision, key, now, publish, request};
use crate::suite::Mesh;

fn read(decision: u64) -> ReadRecord {
    ReadRecord {
        decision,
        at: now(),
        principal: "user:anna".to_owned(),
        impersonated_by: Some("user:owner".to_owned()),
        resource: "shop.sales_v1.orders".to_owned(),
        columns: vec!["id".to_owned()],
        rows: 42,
        outcome: ReadOutcome::Complete,
        purpose: Some("billing".to_owned()),
        door: Some("test".to_owned()),
        details: Value::Null,
    }
}

/// Decisions, a read, two publications and a rejection.
async fn history(registry: &dyn Registry) {
    let sales = key("shop", "sales");
    let number = registry.record_decision(&decision()).await.unwrap();
    registry.record_read(&read(number)).await.unwrap();
    publish(registry, &sales, "m1").await;
    publish(registry, &sales, "m2").await;
    let rejected = request(registry, &sales, Vec::new()).await.unwrap();
    registry.record_rejection(&rejected).await.unwrap();
    let mut odd = decision();
    odd.context = json!({"share": 0.123_456_789_012_345_68, "large": u64::MAX, "text": "ö\u{0}\n\"", "door": "x"});
    registry.record_decision(&odd).await.unwrap();
}

pub(crate) async fn everything_has_its_entry(mesh: Mesh) {
    let registry = &*mesh.registry;
    assert!(registry.verify_audit(&Key::new(1), None).await.unwrap().is_sound(), "an empty log is sound");
    assert_eq!(registry.latest_checkpoint().await.unwrap(), None);
    history(registry).await;
    let entries = registry.audit_entries(&AuditQuery::default()).await.unwrap();
    let kinds: Vec<&str> = entries.iter().rev().map(|entry| entry.kind.as_str()).collect();
    let expected = [
        "genesis",
        "decision",
        "read",
        "decision",
        "publication",
        "checkpoint",
        "decision",
        "publication",
        "checkpoint",
        "decision",
        "rejection",
        "checkpoint",
        "decision",
    ];
    assert_eq!(kinds, expected);
    let read = entries.iter().find(|entry| entry.kind == AuditKind::Read).unwrap();
    assert_eq!((read.decision, &read.details), (Some(1), &json!({"columns": ["id"], "rows": 42})));
    let found = registry.verify_audit(&Key::new(1), None).await.unwrap();
    assert!(found.is_sound(), "{:?}", found.flaws);
    assert_eq!((found.entries, found.checkpoints, found.uncovered), (13, 3, 1));
    assert!(!registry.verify_audit(&Key::new(2), None).await.unwrap().is_sound(), "another key has not signed it");
    let checkpoint = registry.checkpoint(now()).await.unwrap();
    assert_eq!(checkpoint.sequence, 13);
    assert_eq!(registry.checkpoint(now()).await.unwrap(), checkpoint, "there is nothing new to sign");
    assert_eq!(mesh.another().await.latest_checkpoint().await.unwrap(), Some(checkpoint.clone()));
    registry.record_decision(&decision()).await.unwrap();
    assert!(registry.verify_audit(&Key::new(1), Some(&checkpoint)).await.unwrap().is_sound());

    let text = registry.receipt(2).await.unwrap().unwrap();
    let second = receipt::verify(&text, &Key::new(1)).unwrap();
    assert_eq!((second.publication, second.tables[0].quarantined, second.audit.sequence), (2, 2, 7));
    assert!(receipt::verify(&text, &Key::new(2)).is_err());
    let rejected = receipt::verify(&registry.receipt(3).await.unwrap().unwrap(), &Key::new(1)).unwrap();
    assert!(rejected.tables.is_empty());
    assert_eq!(registry.receipt(4).await.unwrap(), None);
    // Reads are of decisions that there are.
    assert!(registry.record_read(&read_of(99)).await.is_err());
}

fn read_of(number: u64) -> ReadRecord {
    read(number)
}

pub(crate) async fn entries_are_found(mesh: Mesh) {
    let registry = &*mesh.registry;
    history(registry).await;
    let count = |query: AuditQuery| async move { registry.audit_entries(&query).await.unwrap().len() };
    let all = AuditQuery::default;
    assert_eq!(count(AuditQuery { principal: Some("user:anna".to_owned()), ..all() }).await, 9);
    assert_eq!(count(AuditQuery { principal: Some("user:owner".to_owned()), ..all() }).await, 1);
    assert_eq!(count(AuditQuery { kind: Some(AuditKind::Publication), ..all() }).await, 2);
    assert_eq!(count(AuditQuery { action: Some("read".to_owned()), ..all() }).await, 1);
    assert_eq!(count(AuditQuery { outcome: Some("rejected".to_owned()), ..all() }).await, 1);
    assert_eq!(count(AuditQuery { resource: Some("shop/".to_owned()), ..all() }).await, 8);
    assert_eq!(count(AuditQuery { resource: Some("shop%".to_owned()), ..all() }).await, 0);
    assert_eq!(count(AuditQuery { since: Some(now()), ..all() }).await, 13);
    assert_eq!(count(AuditQuery { until: Some(now()), ..all() }).await, 0);
    assert_eq!(count(AuditQuery { since: Some(now() + TimeDelta::microseconds(1)), ..all() }).await, 0);
    let page = registry.audit_entries(&AuditQuery { before: Some(5), limit: Some(2), ..all() }).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [4, 3]);
}

pub(crate) async fn those_who_add_at_once_make_one_chain(mesh: Mesh) {
    const EACH: usize = 40;
    let begun = std::time::Instant::now();
    for _ in 0..EACH {
        mesh.registry.record_decision(&decision()).await.unwrap();
    }
    eprintln!("a decision takes {:?}", begun.elapsed() / EACH as u32);
    let mut running = Vec::new();
    for writer in 0..6 {
        let registry = mesh.another().await;
        running.push(tokio::spawn(async move {
            for round in 0..EACH {
                if writer == 0 && round % 10 == 0 {
                    publish(&*registry, &key("shop", "sales"), &format!("m{round}")).await;
                } else {
                    registry.record_decision(&decision()).await.unwrap();
                }
            }
        }));
    }
    for writer in running {
        writer.await.unwrap();
    }
    let found = mesh.registry.verify_audit(&Key::new(1), None).await.unwrap();
    assert!(found.is_sound(), "{:?}", found.flaws);
    // The first entry, decisions (a publication has one too), publications, checkpoints.
    assert_eq!(found.entries, 1 + 7 * EACH as u64 + 4 + found.checkpoints);
    assert!(found.uncovered <= 64 && found.checkpoints >= 4, "{found:?}");
}

pub(crate) async fn without_a_key_nothing_is_signed(_: Mesh) {
    let folder = tempfile::tempdir().unwrap();
    let registry = SqlRegistry::open_sqlite(&folder.path().join("registry.db")).await.unwrap();
    history(&registry).await;
    let found = registry.verify_audit(&Key::new(1), None).await.unwrap();
    assert_eq!((found.is_sound(), found.checkpoints, found.uncovered), (true, 0, found.entries));
    assert_eq!(registry.receipt(1).await.unwrap(), None);
    assert_eq!(registry.checkpoint(now()).await.unwrap_err().code(), ErrorCode::InvalidArgument);
}

pub(crate) async fn what_the_mesh_agreed_on_has_revisions(mesh: Mesh) {
    let registry = &*mesh.registry;
    assert_eq!(registry.governance().await.unwrap(), (0, None));
    assert_eq!(registry.applied_state().await.unwrap().governance, None);
    let governance = Governance { format: 1, owner: Some("platform".to_owned()), ..Governance::default() };
    for revision in 1..=2 {
        let mut request = empty(registry).await;
        request.governance = Some(governance.clone());
        assert_eq!(registry.apply(&request, &Deaf).await.unwrap(), ApplyOutcome::Applied(revision));
        request.governance = Some(Governance::default());
        assert_eq!(registry.apply(&request, &Deaf).await.unwrap(), ApplyOutcome::Moved);
        assert_eq!(registry.governance().await.unwrap(), (revision, Some(governance.clone())));
    }
    let request = empty(registry).await;
    assert_eq!(registry.apply(&request, &Deaf).await.unwrap(), ApplyOutcome::Applied(3));
    let revisions = registry.revisions().await.unwrap();
    assert_eq!((revisions.generation, revisions.governance, revisions.grants), (3, 2, 0));
    assert_eq!(mesh.another().await.applied_state().await.unwrap().governance, Some((2, governance)));
}

/// Changes every field of every kind of entry, one at a time, behind the registry's back.
pub(crate) fn tampering_is_found(
    runtime: &tokio::runtime::Runtime,
    registry: &SqlRegistry,
    execute: &dyn Fn(&str) -> Result<(), String>,
    disarm: &str,
) {
    runtime.block_on(history(registry));
    for statement in [
        "UPDATE audit SET outcome = 'deny'",
        "DELETE FROM audit",
        "UPDATE receipts SET receipt = ''",
        "DELETE FROM receipts",
    ] {
        let refused = execute(statement).unwrap_err();
        assert!(refused.contains("never changed or deleted"), "{statement}: {refused}");
    }
    let flaws = |anchor| {
        let found = runtime.block_on(registry.verify_audit(&Key::new(1), anchor)).unwrap();
        found.flaws.into_iter().map(|flaw| (flaw.sequence, flaw.what)).collect::<Vec<_>>()
    };
    let run = |text: &str| execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(flaws(None), []);
    run(disarm);
    run("CREATE TABLE backup AS SELECT * FROM audit");
    let texts = ["at", "kind", "principal", "action", "resource", "outcome", "previous", "hash", "document"];
    let mut changes: Vec<(String, String)> =
        texts.iter().map(|name| ((*name).to_owned(), format!("{name} || 'x'"))).collect();
    changes.push(("impersonated_by".to_owned(), "'user:x'".to_owned()));
    changes.push(("decision".to_owned(), "CASE WHEN decision = 3 THEN NULL ELSE 3 END".to_owned()));
    changes.push(("document".to_owned(), "replace(document, '2026', '2025')".to_owned()));
    for (column, value) in &changes {
        for sequence in [1, 3, 5, 6, 11, 13] {
            let changed = format!("UPDATE audit SET {column} = {value} WHERE sequence = {sequence}");
            if column == "decision" && sequence == 13 {
                // Decision 3 has an entry, and the index allows it one.
                execute(&changed).unwrap_err();
                continue;
            }
            run(&changed);
            let found = flaws(None);
            assert!(found.iter().any(|flaw| flaw.0 == Some(sequence)), "{column} of entry {sequence}: {found:?}");
            run(&format!(
                "UPDATE audit SET {column} = (SELECT b.{column} FROM backup b WHERE b.sequence = {sequence})
                          WHERE sequence = {sequence}"
            ));
        }
    }
    for sequence in 1..=13 {
        run(&format!("DELETE FROM audit WHERE sequence = {sequence}"));
        assert!(!flaws(None).is_empty(), "entry {sequence} was deleted");
        run(&format!("INSERT INTO audit SELECT * FROM backup WHERE sequence = {sequence}"));
    }
    for column in ["at", "principal", "action", "resource", "outcome", "document"] {
        run(&format!("UPDATE decisions SET {column} = {column} || ' ' WHERE number = 2"));
        assert_eq!(flaws(None)[0].0, Some(4), "{column} of decision 2");
        run(&format!("UPDATE decisions SET {column} = substr({column}, 1, length({column}) - 1) WHERE number = 2"));
    }
    run("INSERT INTO decisions (format, at, principal, action, resource, outcome, document)
         SELECT format, at, principal, action, resource, outcome, document FROM decisions WHERE number = 2");
    assert!(flaws(None)[0].1.contains("decision 6 has no entry"));
    // From here on the list of decisions has one more than the log.
    let known = flaws(None);
    run(
        "UPDATE receipts SET receipt = replace(receipt, '\"quarantined\":2', '\"quarantined\":1') WHERE publication = 1",
    );
    assert_eq!(flaws(None)[0].0, Some(5));
    run(
        "UPDATE receipts SET receipt = replace(receipt, '\"quarantined\":1', '\"quarantined\":2') WHERE publication = 1",
    );
    assert_eq!(flaws(None), known);
    // The end is cut off, and the log's own note of it is mended: only a checkpoint kept elsewhere tells.
    let kept = runtime.block_on(registry.checkpoint(now())).unwrap();
    run("DELETE FROM audit WHERE sequence > 12");
    run("DELETE FROM decisions WHERE number > 4");
    assert!(flaws(None).iter().any(|flaw| flaw.1.contains("the log ends with entry 12")));
    run("UPDATE audit_head SET sequence = 12, checkpoint = 12, hash = (SELECT hash FROM backup WHERE sequence = 12)");
    assert_eq!(flaws(None), []);
    assert!(flaws(Some(&kept))[0].1.contains("are missing"));
    what_is_in_force_is_compared(runtime, registry, execute);
}

fn domain(name: &str) -> Domain {
    serde_json::from_value(json!({"name": name, "owner": format!("{name}-team")})).unwrap()
}

/// Changes grants, domains and what the mesh agreed on behind the registry's back.
fn what_is_in_force_is_compared(
    runtime: &tokio::runtime::Runtime,
    registry: &SqlRegistry,
    execute: &dyn Fn(&str) -> Result<(), String>,
) {
    let product = key("depot", "sales");
    runtime.block_on(async {
        let mut request = empty(registry).await;
        request.governance = Some(Governance { owner: Some("platform".to_owned()), ..Governance::default() });
        request.domains = vec![domain("depot"), domain("shop")];
        assert!(matches!(registry.apply(&request, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
        let mut request = empty(registry).await;
        request.removed_domains = vec!["shop".to_owned()];
        assert!(matches!(registry.apply(&request, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
        access::offer(registry, &product).await;
        for (number, user) in [(1, "user:alice"), (2, "user:bob")] {
            registry.access(&access::ask(&product, user), &access::members).await.unwrap();
            registry.access(&access::approve(number, "user:sam"), &access::members).await.unwrap();
        }
        registry.access(&access::revoke(2, "user:sue"), &access::members).await.unwrap();
        let mut moving = empty(registry).await;
        moving.moves = vec![ProductMove { from: product.clone(), to: key("depot", "sold") }];
        assert!(matches!(registry.apply(&moving, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
    });
    let flaws = || {
        let found = runtime.block_on(registry.verify_audit(&Key::new(1), None)).unwrap();
        found.flaws.into_iter().map(|flaw| flaw.what).collect::<Vec<_>>()
    };
    let run = |text: &str| execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(flaws(), Vec::<String>::new());
    for table in ["grants", "domains", "governance", "revisions"] {
        run(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}"));
    }
    for (table, change, told) in [
        ("grants", "UPDATE grants SET principal = 'user:eve' WHERE number = 1", "grant 1 was changed"),
        ("grants", "UPDATE grants SET product = 'other' WHERE number = 1", "it is for `depot.other_v1`"),
        ("grants", "UPDATE grants SET expires_at = NULL WHERE number = 1", "grant 1 was changed"),
        ("grants", "UPDATE grants SET revoked = 0 WHERE number = 2", "grant 2 was changed"),
        (
            "grants",
            "UPDATE grants SET document = replace(document, 'user:alice', 'user:eve') WHERE number = 1",
            "grant 1",
        ),
        (
            "domains",
            "UPDATE domains SET document = replace(document, 'depot-team', 'eve') WHERE name = 'depot'",
            "domain `depot` was changed",
        ),
        ("domains", "UPDATE domains SET name = 'shop'", "domain `shop` was removed, and is there"),
        ("domains", "DELETE FROM domains", "domain `depot` is missing"),
        (
            "governance",
            "UPDATE governance SET document = replace(document, 'platform', 'eve')",
            "not revision 1 any more",
        ),
        ("governance", "DELETE FROM governance", "revision 1, is missing"),
        (
            "revisions",
            "UPDATE revisions SET contract = replace(contract, '90d', '900d') WHERE product = 'sold'",
            "the contract of `depot.sold_v1` was changed",
        ),
        (
            "revisions",
            "UPDATE revisions SET contract = replace(contract, 'shop', 'eve') WHERE domain = 'shop'",
            "the contract of `shop.sales_v1` was changed",
        ),
        ("revisions", "UPDATE revisions SET domain = 'eve' WHERE product = 'sold'", "`eve.sold_v1` has no entry"),
    ] {
        run(change);
        let found = flaws();
        assert!(found.iter().any(|what| what.contains(told)), "{change}: {found:?}");
        // Others refer to grants and contracts, so that these are put back column by column.
        let back = |key: &str, columns: &[&str]| {
            let kept = |column: &&str| {
                format!("{column} = (SELECT k.{column} FROM kept_{table} k WHERE k.{key} = {table}.{key})")
            };
            let columns: Vec<String> = columns.iter().map(kept).collect();
            run(&format!("UPDATE {table} SET {}", columns.join(", ")));
        };
        match table {
            "grants" => back("number", &["principal", "product", "expires_at", "revoked", "document"]),
            "revisions" => back("product", &["domain", "contract"]),
            _ => {
                run(&format!("DELETE FROM {table}"));
                run(&format!("INSERT INTO {table} SELECT * FROM kept_{table}"));
            }
        }
        assert_eq!(flaws(), Vec::<String>::new(), "after {change}");
    }
}
