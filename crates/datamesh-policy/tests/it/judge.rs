use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use datamesh_core::access::Waiver;
use datamesh_core::contract::DataProduct;
use datamesh_policy::{Change, Context, Finding, Policies, Severity};
use serde_json::{Value, json};

use crate::mesh::{column, compile, customers, governance, now, policy, principal, product, with_policies};

fn judge(policies: &Policies, contract: &DataProduct, change: &Change) -> Vec<Finding> {
    let context = Context::new(now(), "publish");
    policies.judge(&principal(policies, "olga"), contract, change, &context)
}

/// `severity policy resource`.
fn shown(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| format!("{} {} {}", finding.severity.as_str(), finding.policy, finding.resource);
    findings.iter().map(line).collect()
}

fn check(columns: Value, declared: Value, expected: &[&str]) {
    let policies = compile(&governance());
    let contract = product("sales/orders", "sales-team", columns, declared);
    assert_eq!(shown(&judge(&policies, &contract, &Change::publish())), expected);
}

fn fresh() -> Value {
    json!({"sla": {"freshness": "1d"}})
}

#[test]
fn a_manifest_is_judged_part_by_part() {
    check(json!([column("id", json!({}))]), fresh(), &[]);
    check(json!([column("id", json!({}))]), json!({}), &["advise freshness sales/orders"]);
    check(
        json!([column("email", json!({"pii": true, "mask": "none"})), column("phone", json!({"pii": true}))]),
        fresh(),
        &["deny pii-masked sales/orders.people.email"],
    );
    check(
        json!([
            column("email", json!({"pii": true, "declared": {"classification": "internal"}})),
            column("phone", json!({"pii": true, "declared": {"classification": "confidential"}})),
        ]),
        fresh(),
        &["warn pii-classified sales/orders.people.email"],
    );
    check(
        json!([
            {"name": "Total Sum", "type": "long"},
            column("address", json!({"type": {"struct": [{"name": "city", "type": "string", "pii": true, "mask": "none"}]}})),
            column("tags", json!({"type": {"array": {"name": "item", "type": "string", "pii": true, "mask": "none"}}})),
        ]),
        fresh(),
        &[
            "advise descriptions sales/orders.people.Total Sum",
            "advise naming sales/orders.people.Total Sum",
            "deny pii-masked sales/orders.people.address.city",
            "advise descriptions sales/orders.people.address.city",
            "deny pii-masked sales/orders.people.tags",
        ],
    );
    let mut ports = fresh();
    ports["ports"] = json!([{"name": "Files", "type": "parquet"}]);
    check(
        json!([column("id", json!({}))]),
        ports,
        &["advise descriptions sales/orders#Files", "advise naming sales/orders#Files"],
    );
}

#[test]
fn somebody_is_accountable() {
    let policies = Policies::compile(&datamesh_core::access::Governance { format: 1, ..Default::default() }, &[])
        .expect("policies");
    let contract = product("sales/orders", "", json!([column("id", json!({}))]), fresh());
    let findings = policies.judge(
        &policies.principal_of("x", true).expect("a principal"),
        &contract,
        &Change::publish(),
        &Context::new(now(), "publish"),
    );
    assert_eq!(shown(&findings), ["deny owner-set sales/orders"]);
    assert!(findings[0].stops() && findings[0].owner.is_none());
    // The domain's owner answers for what names nobody.
    let policies = compile(&governance());
    assert_eq!(shown(&judge(&policies, &contract, &Change::publish())), Vec::<String>::new());
}

#[test]
fn a_breaking_change_needs_a_major() {
    let policies = compile(&governance());
    let before =
        product("sales/orders", "sales-team", json!([column("id", json!({})), column("gone", json!({}))]), fresh());
    let mut after = product("sales/orders", "sales-team", json!([column("id", json!({}))]), fresh());
    let found = |after: &DataProduct| shown(&judge(&policies, after, &Change::between(Some(&before), after, false)));
    assert_eq!(found(&after), ["deny breaking-change sales/orders"]);
    after.version = semver::Version::new(1, 1, 0);
    assert_eq!(found(&after), ["deny breaking-change sales/orders"]);
    after.version = semver::Version::new(2, 0, 0);
    assert_eq!(found(&after), Vec::<String>::new());
    assert_eq!(shown(&judge(&policies, &before, &Change::between(None, &before, false))), Vec::<String>::new());
}

#[test]
fn a_waiver_counts_for_a_while_and_then_says_so() {
    let mut governance = governance();
    let waiver = |resource: &str, hours: i64| Waiver {
        domain: None,
        policy: "pii-masked".into(),
        resource: resource.into(),
        owner: "platform".into(),
        reason: "migration".into(),
        expires: now() + chrono::Duration::hours(hours),
    };
    governance.waivers = vec![waiver("sales/orders.people.email", 1), waiver("sales/orders.people.phone", 0)];
    let policies = compile(&governance);
    let open = json!({"pii": true, "mask": "none"});
    let columns = json!([column("email", open.clone()), column("phone", open.clone()), column("fax", open)]);
    let contract = product("sales/orders", "sales-team", columns, fresh());
    let findings = judge(&policies, &contract, &Change::publish());
    let by: BTreeMap<&str, (bool, bool, bool)> = findings
        .iter()
        .map(|finding| {
            let name = finding.resource.rsplit('.').next().unwrap_or_default();
            (name, (finding.stops(), finding.waived_by.is_some(), finding.expired.is_some()))
        })
        .collect();
    assert_eq!(by["email"], (false, true, false));
    assert_eq!(by["phone"], (true, false, true));
    assert_eq!(by["fax"], (true, false, false));
    assert_eq!(findings[1].explain()[2], "the waiver of platform expired on 2026-05-04 10:00");
}

#[test]
fn a_domain_judges_its_own_and_what_errs_stops() {
    let text = r#"
        @id("lower-ids") @severity("warn") @message("ids are called id")
        forbid (principal, action in [Action::"publish", Action::"apply"], resource is Column)
        when { resource.primaryKey && resource.name != "id" };
        @id("broken") @severity("advise") @message("it adds up")
        forbid (principal, action == Action::"publish", resource is Table)
        when { resource.major + 9223372036854775807 > 0 };
    "#;
    let governance = with_policies(vec![policy(Some("sales"), "domains/sales/policies/own.cedar", text)]);
    let policies = compile(&governance);
    let key = json!([column("id", json!({"primaryKey": true})), column("code", json!({"primaryKey": true}))]);
    let ours = product("sales/orders", "sales-team", key.clone(), fresh());
    let findings = judge(&policies, &ours, &Change::publish());
    assert_eq!(shown(&findings), ["deny broken sales/orders.people", "warn lower-ids sales/orders.people.code"]);
    assert!(findings[0].message.starts_with("the policy cannot be evaluated: integer overflow"), "{findings:#?}");
    assert_eq!(findings[0].owner.as_deref(), Some("sales-team"));
    let theirs = product("air-traffic/legs", "air-team", key, fresh());
    assert_eq!(shown(&judge(&policies, &theirs, &Change::publish())), Vec::<String>::new());
}

#[test]
fn many_products_are_judged_as_each_alone() {
    let text = r#"
        @id("no-x") @severity("warn") @message("no x")
        forbid (principal, action == Action::"publish", resource is Column) when { resource.path == "x" };
    "#;
    let policies = compile(&with_policies(vec![policy(None, "p.cedar", text)]));
    let olga = principal(&policies, "olga");
    let context = Context::new(now(), "publish");
    let mut judge = policies.judging(&olga, &context);
    let names = ["x", "y"];
    let mut all = Vec::new();
    for (at, domain) in (0..20).flat_map(|at| ["sales", "air-traffic"].map(|domain| (at, domain))) {
        let columns = json!([
            column(names[at % 2], json!({"pii": at % 3 == 0, "mask": if at % 5 == 0 { "none" } else { "null" }})),
            column("id", json!({"description": if at % 4 == 0 { "" } else { "id" }})),
        ]);
        let contract = product(&format!("{domain}/p{at}"), "sales-team", columns, json!({}));
        let together = judge.judge(&contract, &Change::publish());
        assert_eq!(together, policies.judge(&olga, &contract, &Change::publish(), &context));
        assert_eq!(together.iter().any(|finding| finding.policy == "no-x"), at % 2 == 0);
        all.push((contract, together));
    }
    let changes: Vec<_> = all.iter().map(|(contract, _)| (contract, Change::publish())).collect();
    for threads in [1, 3, 100] {
        let threads = NonZeroUsize::new(threads).expect("a number of threads");
        let found = policies.judge_all(&olga, &changes, &context, threads);
        assert_eq!(found, all.iter().map(|(_, findings)| findings.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn what_forbids_without_a_severity_stops_and_is_not_waived() {
    let text = r#"@id("frozen") forbid (principal, action == Action::"publish", resource is Product)
        when { context.time > datetime("2026-01-01") };"#;
    let policies = compile(&with_policies(vec![policy(None, "p.cedar", text)]));
    let findings = judge(&policies, &customers(), &Change::publish());
    let frozen = findings.iter().find(|finding| finding.policy == "frozen").expect("a finding");
    assert!(frozen.severity == Severity::Deny && frozen.stops());
}
