use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn product(id: &str, version: &str, edits: Value) -> DataProduct {
    let (domain, name) = id.split_once('/').expect("an id");
    let mut value = json!({
        "format": 1,
        "id": {"domain": domain, "product": name},
        "version": version,
        "owner": format!("{domain}-team"),
        "tables": [{"name": "t", "columns": [{"name": "a", "type": "int"}, {"name": "b", "type": "string"}]}],
    });
    for (key, edit) in edits.as_object().expect("edits") {
        value[key] = edit.clone();
    }
    serde_json::from_value(value).expect("a contract")
}

fn reads(inputs: &[&str]) -> Value {
    let one = |input: &&str| {
        let (product, range) = input.split_once('@').map_or((*input, None), |(product, range)| (product, Some(range)));
        let (domain, name) = product.split_once('/').expect("an id");
        json!({"product": {"domain": domain, "product": name}, "range": range})
    };
    json!({"inputs": inputs.iter().map(one).collect::<Vec<_>>()})
}

fn applied(products: Vec<DataProduct>) -> Applied {
    let one =
        |contract: DataProduct| AppliedProduct { key: contract.key(), revision: 3, contract, tables: BTreeMap::new() };
    Applied { mesh: "m".into(), generation: 5, products: products.into_iter().map(one).collect(), ..Applied::default() }
}

fn desired(products: Vec<DataProduct>) -> Desired {
    Desired { domains: Vec::new(), products, governance: None, scope: Scope::Mesh }
}

/// Each step as `action id version`, then each refusal as `id subject`.
fn check(before: Vec<DataProduct>, after: Vec<DataProduct>, options: PlanOptions, expected: &[&str]) -> Planned {
    let planned = plan(&desired(after), &applied(before), options);
    let moves = planned.plan.moves.iter().map(|moved| format!("move {} {}", moved.from, moved.to));
    let steps = planned.plan.products.iter().map(|step| format!("{} {} {}", step.action, step.product, step.version));
    let refusals = planned.refusals.iter().map(|refusal| format!("{} {}", refusal.id.as_str(), refusal.subject));
    let found: Vec<String> = moves.chain(steps).chain(refusals).collect();
    assert_eq!(found, expected, "{:#?}", planned.refusals);
    planned
}

const NONE: PlanOptions = PlanOptions { allow_retire: false, acknowledge: false };

#[test]
fn what_is_as_it_should_be_is_no_step() {
    let planned = check(vec![product("a/p", "1.0.0", json!({}))], vec![product("a/p", "1.0.0", json!({}))], NONE, &[]);
    assert!(planned.plan.is_empty() && planned.unchanged == 1);
    assert_eq!((planned.plan.generation, planned.plan.mesh.as_str()), (5, "m"));
}

#[test]
fn products_are_made_changed_deprecated_and_retired() {
    let old = || product("a/p", "1.0.0", json!({}));
    check(vec![], vec![old()], NONE, &["create a/p 1.0.0"]);
    check(vec![old()], vec![old(), product("a/p", "2.0.0", json!({}))], NONE, &["new-major a/p 2.0.0"]);
    let described = product("a/p", "1.0.1", json!({"description": "all of it"}));
    let planned = check(vec![old()], vec![described], NONE, &["update a/p 1.0.1"]);
    assert_eq!(planned.plan.products[0].needs, Some(Bump::Patch));
    let deprecated = json!({"status": "deprecated", "declared": {"sla": {"endOfSupport": "2027-01-01"}}});
    check(vec![old()], vec![product("a/p", "1.1.0", deprecated)], NONE, &["deprecate a/p 1.1.0"]);
    check(vec![old()], vec![], NONE, &["retire a/p 1.0.0"]);
}

#[test]
fn a_major_without_a_manifest_stays_where_another_has_one() {
    let (one, two) = (product("a/p", "1.0.0", json!({})), product("a/p", "2.0.0", json!({})));
    check(vec![one, two.clone()], vec![two], NONE, &[]);
}

#[test]
fn a_step_too_small_is_refused_with_its_changes_and_readers() {
    let removed = json!({"tables": [{"name": "t", "columns": [{"name": "a", "type": "int"}]}]});
    let reader = || product("b/q", "1.0.0", reads(&["a/p@^1"]));
    let planned = check(
        vec![product("a/p", "1.0.0", json!({})), reader()],
        vec![product("a/p", "1.1.0", removed.clone()), reader()],
        NONE,
        &["update a/p 1.1.0", "version-too-small a/p"],
    );
    let refusal = &planned.refusals[0];
    assert_eq!(refusal.changes.iter().map(|change| change.rule.as_str()).collect::<Vec<_>>(), ["column-removed"]);
    assert_eq!(refusal.consumers[0].product, "b/q");
    assert!(refusal.help.contains("2.0.0") && refusal.help.contains("product.v1.yaml"), "{}", refusal.help);
    // Below 1.0.0 a minor step will do.
    check(
        vec![product("a/p", "0.1.0", json!({}))],
        vec![product("a/p", "0.2.0", removed)],
        NONE,
        &["update a/p 0.2.0"],
    );
}

#[test]
fn what_needs_a_review_is_major_unless_it_is_acknowledged() {
    let with = |pattern: &str| json!({"tables": [{"name": "t", "columns": [{"name": "b", "type": "string", "constraints": {"pattern": pattern}}]}]});
    let (before, after) = (product("a/p", "1.0.0", with("^a")), product("a/p", "1.1.0", with("^b")));
    check(vec![before.clone()], vec![after.clone()], NONE, &["update a/p 1.1.0", "version-too-small a/p"]);
    let acknowledged = PlanOptions { acknowledge: true, ..NONE };
    check(vec![before], vec![after], acknowledged, &["update a/p 1.1.0"]);
}

#[test]
fn neither_versions_nor_lives_go_backwards() {
    let status = |status: &str| json!({"status": status});
    let check =
        |before: DataProduct, after: DataProduct, expected: &[&str]| check(vec![before], vec![after], NONE, expected);
    check(
        product("a/p", "1.2.0", json!({})),
        product("a/p", "1.1.0", json!({})),
        &["update a/p 1.1.0", "version-backwards a/p"],
    );
    check(
        product("a/p", "2.0.0", json!({})),
        product("a/p", "1.0.0", json!({})),
        &["new-major a/p 1.0.0", "version-backwards a/p"],
    );
    check(
        product("a/p", "1.0.0", json!({})),
        product("a/p", "1.1.0", status("draft")),
        &["update a/p 1.1.0", "lifecycle-backwards a/p"],
    );
    check(
        product("a/p", "1.0.0", status("retired")),
        product("a/p", "1.1.0", json!({})),
        &["update a/p 1.1.0", "lifecycle-backwards a/p"],
    );
    check(
        product("a/p", "1.0.0", status("retired")),
        product("a/p", "1.0.1", json!({"status": "retired", "description": "gone"})),
        &["update a/p 1.0.1", "retired-changed a/p"],
    );
}

#[test]
fn retiring_what_others_read_has_to_be_allowed() {
    let reader = || product("b/q", "1.0.0", reads(&["a/p"]));
    let before = || vec![product("a/p", "1.0.0", json!({})), reader()];
    let planned = check(before(), vec![reader()], NONE, &["retire a/p 1.0.0", "retire-with-consumers a/p"]);
    assert!(planned.refusals[0].message.contains("`b/q` (b-team)"), "{}", planned.refusals[0].message);
    check(before(), vec![reader()], PlanOptions { allow_retire: true, ..NONE }, &["retire a/p 1.0.0"]);
    // Who goes with it reads it no more.
    check(before(), vec![], NONE, &["retire a/p 1.0.0", "retire b/q 1.0.0"]);
}

#[test]
fn a_domain_retires_its_own_products_only() {
    let before = applied(vec![product("a/p", "1.0.0", json!({})), product("b/q", "1.0.0", json!({}))]);
    let of = |scope| {
        plan(&Desired { domains: vec![], products: vec![], governance: None, scope }, &before, NONE).plan.products
    };
    let ids = |steps: Vec<ProductStep>| steps.iter().map(|step| step.product.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(of(Scope::Domain("a".into()))), ["a/p"]);
    assert_eq!(ids(of(Scope::Products)), [""; 0]);
}

#[test]
fn inputs_must_be_there_and_within_their_ranges() {
    let p = || product("a/p", "1.0.0", json!({}));
    let q = |input: &str| product("b/q", "1.0.0", reads(&[input]));
    check(vec![], vec![p(), q("a/p@^1")], NONE, &["create a/p 1.0.0", "create b/q 1.0.0"]);
    check(vec![p()], vec![p(), q("a/x")], NONE, &["create b/q 1.0.0", "unknown-input b/q"]);
    let planned = check(vec![p()], vec![p(), q("a/p@^2")], NONE, &["create b/q 1.0.0", "unsatisfied-input b/q"]);
    assert!(planned.refusals[0].help.contains("1.0.0"), "{}", planned.refusals[0].help);
}

#[test]
fn circles_are_refused() {
    let found = check(
        vec![product("a/p", "1.0.0", json!({}))],
        vec![product("a/p", "1.0.1", reads(&["b/q"])), product("b/q", "1.0.0", reads(&["a/p"]))],
        NONE,
        &["update a/p 1.0.1", "create b/q 1.0.0", "input-cycle a.p_v1"],
    );
    assert!(found.refusals[0].message.contains("a.p_v1 → b.q_v1 → a.p_v1"), "{}", found.refusals[0].message);
}

#[test]
fn names_that_are_the_same_in_sql_collide() {
    check(
        vec![product("a/daily-orders", "1.0.0", json!({}))],
        vec![product("a/daily_orders", "2.0.0", json!({}))],
        NONE,
        &["new-major a/daily_orders 2.0.0", "name-collision a/daily_orders"],
    );
}

#[test]
fn a_product_moves_with_all_its_majors() {
    let from = json!({"movedFrom": {"domain": "a", "product": "p"}, "owner": "a-team"});
    let (one, two) = (product("a/p", "1.0.0", json!({})), product("a/p", "2.0.0", json!({})));
    let moved = || product("b/p", "2.0.0", from.clone());
    let before = || vec![one.clone(), two.clone()];
    let planned = check(before(), vec![moved()], NONE, &["move a/p b/p", "update b/p 1.0.0", "update b/p 2.0.0"]);
    assert!(planned.plan.products.iter().all(|step| step.revision == 3 && step.changes.is_empty()));
    // Applied once, it is done.
    let after = planned.plan.products.iter().map(|step| step.contract.clone()).collect();
    check(after, vec![moved()], NONE, &[]);
    check(vec![], vec![moved()], NONE, &["create b/p 2.0.0", "unknown-product b/p"]);
    let there = vec![two.clone(), product("b/p", "2.0.0", json!({"owner": "a-team"}))];
    check(there, vec![moved()], NONE, &["retire a/p 2.0.0", "update b/p 2.0.0", "move-onto-existing b/p"]);
    check(before(), vec![moved(), two.clone()], NONE, &["create b/p 2.0.0", "move-onto-existing b/p"]);
}

#[test]
fn protection_binds_every_major_at_once() {
    let pii = json!({"tables": [{"name": "t", "columns": [
        {"name": "a", "type": "int"}, {"name": "b", "type": "string", "pii": true}]}]});
    let (one, two) = (product("a/p", "1.0.0", json!({})), product("a/p", "2.0.0", json!({})));
    let strict = product("a/p", "2.1.0", pii.clone());
    let before = || vec![one.clone(), two.clone()];
    check(before(), vec![strict.clone()], NONE, &["update a/p 2.1.0", "protection-missing a/p"]);
    let both = vec![strict, product("a/p", "1.1.0", pii)];
    check(before(), both, NONE, &["update a/p 1.1.0", "update a/p 2.1.0"]);
}

#[test]
fn domains_are_made_changed_and_removed() {
    let domain = |name: &str, owner: &str| -> Domain {
        serde_json::from_value(json!({"name": name, "owner": owner, "responsibilities": []})).expect("a domain")
    };
    let before = Applied { domains: vec![domain("a", "x"), domain("b", "x")], ..applied(vec![]) };
    let desired = |domains| Desired { domains, products: vec![], governance: None, scope: Scope::Mesh };
    let planned = plan(&desired(vec![domain("a", "y"), domain("c", "x")]), &before, NONE);
    let steps: Vec<_> = planned.plan.domains.iter().map(|step| (step.action, step.name.to_string())).collect();
    let expected = [
        (DomainAction::Update, "a".to_owned()),
        (DomainAction::Remove, "b".to_owned()),
        (DomainAction::Create, "c".to_owned()),
    ];
    assert_eq!(steps, expected);
    assert_eq!(planned.plan.domains[0].changes, ["owner: \"x\" -> \"y\""]);
    let planned = plan(&desired(vec![domain("A", "x"), domain("b", "x")]), &before, NONE);
    assert_eq!(planned.refusals[0].id, RefusalKind::NameCollision);
}
