use std::collections::BTreeSet;

use datamesh_core::access::{AttributeValue, Revocation};
use datamesh_core::decision::Outcome;
use datamesh_policy::{Grants, TableDecision};
use serde_json::json;

use crate::mesh::{
    column, compile, context, customers, governance, grant, now, policy, principal, product, read, with_policies,
};

/// What is seen, in the words of a table's access.
fn check(decision: &TableDecision, expected: &str) {
    assert_eq!(decision.access.to_string(), expected, "{decision:#?}");
}

#[test]
fn who_has_no_grant_is_told_how_to_get_one() {
    let policies = compile(&governance());
    let decision = read(&policies, "ann", &customers(), &Grants::default());
    check(&decision, "deny");
    assert_eq!(decision.outcome(), Outcome::Deny);
    assert_eq!(decision.policy_ids(), ["no-policy"]);
    assert_eq!(
        decision.help.as_deref(),
        Some(
            "ask for it: `datamesh access request sales/customers.people --role analyst`; offered to: analyst, support"
        )
    );
}

#[test]
fn a_grant_opens_what_the_contract_offers_the_role() {
    let policies = compile(&governance());
    let contract = customers();
    let grants = Grants::new([
        grant(1, "user:ann", &contract, "analyst"),
        grant(2, "user:sue", &contract, "support"),
        grant(3, "service:etl", &contract, "analyst"),
    ]);
    let ann = read(&policies, "ann", &contract, &grants);
    check(&ann, "filter rows, mask email, hide secret");
    assert_eq!(ann.policy_ids(), ["granted"]);
    let rows = ann.access.ways[0].rows.clone().expect("a filter");
    assert_eq!(rows.attributes["country"], AttributeValue::String("NO".into()));
    assert_eq!(
        ann.ways.iter().find(|way| way.grant == Some(1)).expect("a way").hidden["secret"],
        ["restricted-columns"]
    );
    check(&read(&policies, "sue", &contract, &grants), "hide secret");
    check(&read(&policies, "service:etl", &contract, &grants), "filter rows, mask email, hide secret");
    check(&read(&policies, "service:ann", &contract, &grants), "deny");
}

#[test]
fn a_grant_ends_with_its_time_its_revocation_its_role_and_its_offer() {
    let contract = customers();
    let mut expired = grant(1, "user:ann", &contract, "analyst");
    expired.expires_at = Some(now());
    let mut revoked = grant(2, "user:ann", &contract, "analyst");
    revoked.revoked = Some(Revocation { at: now(), by: "user:olga".into(), reason: None });
    let support = grant(3, "user:ann", &contract, "support");
    let unknown = grant(4, "user:ann", &contract, "auditor");
    let mut elsewhere = grant(5, "user:ann", &contract, "analyst");
    elsewhere.tables = BTreeSet::from(["other".to_owned()]);
    let mut major = grant(6, "user:ann", &contract, "analyst");
    major.product.major = 2;
    let policies = compile(&governance());
    for (grant, why) in [
        (expired, Some("it expired on 2026-05-04 10:00")),
        (revoked, Some("it was revoked on 2026-05-04 10:00 by user:olga")),
        (support, Some("`user:ann` does not have the role `support` any more")),
        (unknown, Some("`user:ann` does not have the role `auditor` any more")),
        (elsewhere, None),
        (major, None),
    ] {
        let number = grant.number;
        let decision = read(&policies, "ann", &contract, &Grants::new([grant]));
        check(&decision, "deny");
        let way = decision.ways.iter().find(|way| way.grant == Some(number));
        assert_eq!(way.and_then(|way| way.closed.as_deref()), why);
    }
}

#[test]
fn what_a_team_was_granted_is_for_its_members() {
    let policies = compile(&governance());
    let contract = customers();
    let grants = Grants::new([grant(7, "team:air-team", &contract, "support")]);
    check(&read(&policies, "amy", &contract, &grants), "hide secret");
    check(&read(&policies, "team:air-team", &contract, &grants), "hide secret");
    check(&read(&policies, "ann", &contract, &grants), "deny");
    // The analysts' rows depend on a country, which neither has.
    let grants = Grants::new([grant(8, "team:air-team", &contract, "analyst")]);
    let decision = read(&policies, "amy", &contract, &grants);
    check(&decision, "deny");
    let way = decision.ways.iter().find(|way| way.grant == Some(8)).expect("a way");
    assert_eq!(way.closed.as_deref(), Some("its rows depend on `principal.country`, which `user:amy` does not have"));
}

#[test]
fn several_grants_are_several_ways() {
    let policies = compile(&governance());
    let contract = customers();
    let grants = Grants::new([grant(1, "user:sue", &contract, "analyst"), grant(2, "user:sue", &contract, "support")]);
    let sue = read(&policies, "sue", &contract, &grants);
    // Support shows every row and the e-mail: what an analyst sees is within it.
    assert_eq!(sue.access.ways.iter().map(|way| way.grant).collect::<Vec<_>>(), [Some(2)]);
}

#[test]
fn owners_see_everything_and_their_domain_all_but_what_is_restricted() {
    let policies = compile(&governance());
    let contract = customers();
    let none = Grants::default();
    for owner in ["olga", "user:OTTO", "team:sales-team"] {
        let decision = read(&policies, owner, &contract, &none);
        check(&decision, "allow");
        assert_eq!(decision.policy_ids(), ["owners", "domain-teams"]);
    }
    check(&read(&policies, "pia", &contract, &none), "allow");
    check(&read(&policies, "pia@example.com", &contract, &none), "allow");
    check(&read(&policies, "sales-worker", &contract, &none), "hide secret");
    check(&read(&policies, "amy", &contract, &none), "deny");
    let table = &contract.tables[0];
    let runs = policies.principal_of("whoever", true).expect("a principal");
    check(&policies.read_table(&runs, &contract, table, &[], &none, &context()), "allow");
}

#[test]
fn a_role_sees_what_it_is_offered() {
    let policies = compile(&governance());
    let contract = customers();
    check(&read(&policies, "role:support", &contract, &Grants::default()), "hide secret");
    check(&read(&policies, "role:auditor", &contract, &Grants::default()), "deny");
}

#[test]
fn what_declares_no_access_is_open_and_masked() {
    let policies = compile(&governance());
    let columns = json!([
        column("id", json!({})),
        column("email", json!({"pii": true})),
        column(
            "address",
            json!({"type": {"struct": [column("city", json!({"mask": "redact"})), column("zip", json!({}))]}})
        ),
        column("salary", json!({"declared": {"classification": "confidential"}})),
    ]);
    let open = product("sales/open", "sales-team", columns.clone(), json!({}));
    let decision = read(&policies, "somebody", &open, &Grants::default());
    check(&decision, "mask address, email, hide salary");
    assert_eq!(decision.policy_ids(), ["open-products"]);
    let masks: Vec<String> =
        decision.access.masks.iter().map(|(path, mask)| format!("{}={mask}", path.join("."))).collect();
    assert_eq!(masks, ["address.city=redact", "email=null"]);
    for declared in
        [json!({"classification": "confidential"}), json!({"access": []}), json!({"classification": "secret"})]
    {
        let closed = product("sales/closed", "sales-team", columns.clone(), declared);
        let decision = read(&policies, "somebody", &closed, &Grants::default());
        check(&decision, "deny");
        assert_eq!(
            decision.help.as_deref(),
            Some("the contract offers the table to no role: ask `sales-team`, who owns it")
        );
    }
}

#[test]
fn columns_are_forbidden_by_name() {
    let text = r#"
        @id("no-country") @message("countries are ours") @help("ask legal")
        forbid (principal, action == Action::"read", resource is Column)
        when { resource.name == "country" } unless { principal in Team::"sales-team" };
    "#;
    let policies = compile(&with_policies(vec![policy(Some("sales"), "domains/sales/policies/a.cedar", text)]));
    let contract = customers();
    let grants = Grants::new([grant(2, "user:sue", &contract, "support")]);
    check(&read(&policies, "sue", &contract, &grants), "hide country, secret");
    check(&read(&policies, "olga", &contract, &grants), "allow");
}

#[test]
fn a_policy_that_errs_closes_the_way_and_is_named() {
    let text = r#"@id("overflow") permit (principal, action == Action::"read", resource is Table)
        when { context.grant.number + 9223372036854775807 > 0 };"#;
    let files = vec![policy(None, "policies/a.cedar", text)];
    // Unchecked, as a revision would be that an older version had applied.
    let policies = datamesh_policy::Policies::load(&with_policies(files), &crate::mesh::domains()).expect("policies");
    let contract = customers();
    let decision = read(&policies, "olga", &contract, &Grants::default());
    check(&decision, "deny");
    assert_eq!(decision.policy_ids(), ["error:overflow"]);
    assert_eq!((decision.errors[0].file.as_str(), decision.errors[0].line), ("policies/a.cedar", 1));
    assert!(principal(&policies, "olga").teams.contains("sales-team"));
}
