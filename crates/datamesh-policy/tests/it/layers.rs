//! What the layers promise, whatever the policies.

use datamesh_core::access::PolicyFile;
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::mask::Mask;
use datamesh_policy::{Context, Grants, Policies, Resource};
use proptest::prelude::*;
use serde_json::json;

use crate::mesh::{column, compile, domains, now, policy, product, with_policies};

const ACTIONS: [Action; 6] =
    [Action::Discover, Action::Describe, Action::Read, Action::ReadUnmasked, Action::Publish, Action::Apply];

const PRINCIPALS: [&str; 8] = ["ann", "sue", "olga", "amy", "pia", "stranger", "service:etl", "team:air-team"];

/// Scopes and conditions that policies are made of; each is valid for reads of columns and for whole products.
fn texts() -> impl Strategy<Value = String> {
    let effect = prop_oneof![Just("permit"), Just("forbid")];
    let principal = prop_oneof![
        Just("principal"),
        Just("principal in Role::\"analyst\""),
        Just("principal == User::\"olga\""),
        Just("principal in Team::\"air-team\""),
        Just("principal is Service"),
    ];
    let action = prop_oneof![
        Just("action"),
        Just("action == Action::\"read\""),
        Just("action in [Action::\"publish\", Action::\"apply\", Action::\"discover\"]"),
        Just("action in [Action::\"read\", Action::\"readUnmasked\"]"),
    ];
    let resource = prop_oneof![Just("resource"), Just("resource in Mesh::\"mesh\"")];
    let condition = prop_oneof![
        Just(""),
        Just(" when { context.door == \"query\" }"),
        Just(" when { resource has name && resource.name like \"*a*\" }"),
        Just(" when { resource has sensitivity && resource.sensitivity < 3 }"),
        Just(" unless { resource has pii && resource.pii }"),
        Just(" when { principal has level && principal.level > 1 }"),
    ];
    (effect, principal, action, resource, condition).prop_map(|(effect, principal, action, resource, condition)| {
        format!("{effect} ({principal}, {action}, {resource}){condition};\n")
    })
}

fn file(domain: Option<&'static str>, name: &'static str) -> impl Strategy<Value = PolicyFile> {
    prop::collection::vec(texts(), 0..4).prop_map(move |texts| {
        policy(domain, &format!("{}/{name}.cedar", domain.unwrap_or("policies")), &texts.concat())
    })
}

fn contracts() -> [DataProduct; 2] {
    let columns = || {
        json!([
            column("name", json!({"pii": true, "mask": "hash"})),
            column("city", json!({"declared": {"classification": "confidential"}})),
            column("total", json!({})),
        ])
    };
    [
        product("sales/orders", "sales-team", columns(), json!({})),
        product("air-traffic/legs", "air-team", columns(), json!({"access": [{"role": "analyst"}]})),
    ]
}

/// Every answer about a product: each question's outcome and policies, and what is seen of its table.
fn answers(policies: &Policies, contract: &DataProduct) -> Vec<String> {
    let context = Context::new(now(), "query");
    let table = &contract.tables[0];
    let path = ["name".to_owned()];
    let grants = Grants::new([crate::mesh::grant(1, "user:ann", contract, "analyst")]);
    let mut found = Vec::new();
    for id in PRINCIPALS {
        let principal = policies.principal_of(id, false).expect("a principal");
        for action in ACTIONS {
            for resource in [
                Resource::Product(contract),
                Resource::Table(contract, table),
                Resource::Column(contract, table, &path),
            ] {
                let decision = policies.decide(&principal, action, resource, &context);
                let mut ids = decision.policy_ids();
                ids.sort();
                found.push(format!("{id} {} {} {ids:?}", action.as_str(), decision.outcome.as_str()));
            }
        }
        let protections = datamesh_core::protection::protections(contract, table, &Default::default());
        assert!(protections.iter().any(|protection| protection.mask == Mask::Hash));
        let read = policies.read_table(&principal, contract, table, &protections, &grants, &context);
        found.push(format!("{id} {} {:?} {:?}", read.access, read.access, read.policy_ids()));
    }
    found
}

/// Some policies never hold, which the check would refuse: what is asked here holds of them too.
fn load(files: Vec<PolicyFile>) -> Policies {
    match Policies::load(&with_policies(files), &domains()) {
        Ok(policies) => policies,
        Err(problems) => panic!("{}", crate::mesh::shown(&problems)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn policies_of_a_domain_change_nothing_in_another(mesh in file(None, "m"), own in file(Some("sales"), "a")) {
        let [sales, air] = contracts();
        let before = load(vec![mesh.clone()]);
        let after = load(vec![mesh, own.clone()]);
        prop_assert_eq!(answers(&before, &air), answers(&after, &air));
        // Not because nothing would ever change.
        if own.text.contains("permit (principal, action, resource);") {
            prop_assert_ne!(answers(&before, &sales), answers(&after, &sales));
        }
    }

    #[test]
    fn a_forbid_of_the_mesh_always_wins(mesh in file(None, "m"), own in file(Some("sales"), "a")) {
        let everything = policy(Some("sales"), "sales/b.cedar", "@id(\"all\") permit (principal, action, resource);");
        let no = policy(None, "policies/no.cedar", "@id(\"no\") forbid (principal, action, resource) when { context.door == \"query\" };");
        let [sales, _] = contracts();
        let open = load(vec![everything.clone()]);
        let closed = load(vec![mesh, own, everything, no]);
        let context = Context::new(now(), "query");
        for id in PRINCIPALS {
            for action in ACTIONS {
                let resource = if matches!(action, Action::Read | Action::ReadUnmasked) {
                    Resource::Table(&sales, &sales.tables[0])
                } else {
                    Resource::Product(&sales)
                };
                let ask = |policies: &Policies| {
                    let principal = policies.principal_of(id, true).expect("a principal");
                    policies.decide(&principal, action, resource, &context)
                };
                prop_assert_eq!(ask(&open).outcome, Outcome::Allow);
                let decision = ask(&closed);
                prop_assert_eq!(decision.outcome, Outcome::Deny);
                prop_assert!(decision.policy_ids().contains(&"no".to_owned()));
            }
            let principal = closed.principal_of(id, true).expect("a principal");
            let read = closed.read_table(&principal, &sales, &sales.tables[0], &[], &Grants::default(), &context);
            prop_assert_eq!(read.outcome(), Outcome::Deny);
        }
    }

    #[test]
    fn a_policy_that_errs_always_denies(
        mesh in file(None, "m"), own in file(Some("sales"), "a"), effect in prop_oneof![Just("permit"), Just("forbid")],
        domain in prop_oneof![Just(None), Just(Some("sales"))],
    ) {
        let text = format!("@id(\"errs\") {effect} (principal, action, resource) when {{ 9223372036854775807 + 1 > 0 }};");
        let everything = policy(Some("sales"), "sales/b.cedar", "@id(\"all\") permit (principal, action, resource);");
        let policies = load(vec![mesh, own, everything, policy(domain, "policies/errs.cedar", &text)]);
        let [sales, _] = contracts();
        let context = Context::new(now(), "query");
        for id in PRINCIPALS {
            let principal = policies.principal_of(id, true).expect("a principal");
            for action in [Action::Discover, Action::Publish, Action::Apply] {
                let decision = policies.decide(&principal, action, Resource::Product(&sales), &context);
                prop_assert_eq!(decision.outcome, Outcome::Deny);
                prop_assert_eq!(&decision.errors[0].id, "errs");
                prop_assert!(decision.errors[0].message.contains("overflow"), "{}", decision.errors[0].message);
            }
            let read = policies.read_table(&principal, &sales, &sales.tables[0], &[], &Grants::default(), &context);
            prop_assert_eq!(read.outcome(), Outcome::Deny);
            prop_assert_eq!(&read.errors[0].id, "errs");
        }
    }

    #[test]
    fn the_order_of_files_does_not_matter(
        first in file(None, "a"), second in file(None, "b"), third in file(Some("sales"), "c"), fourth in file(Some("air_traffic"), "d"),
    ) {
        let files = vec![first, second, third, fourth];
        let mut reversed = files.clone();
        reversed.reverse();
        let (one, other) = (load(files), load(reversed));
        for contract in &contracts() {
            prop_assert_eq!(answers(&one, contract), answers(&other, contract));
        }
    }
}

#[test]
fn an_unscoped_permit_of_a_domain_is_for_that_domain() {
    let all = "@id(\"all\") permit (principal, action, resource);";
    let policies = compile(&with_policies(vec![policy(Some("sales"), "sales/a.cedar", all)]));
    let [sales, air] = contracts();
    let stranger = policies.principal_of("stranger", false).expect("a principal");
    let context = Context::new(now(), "query");
    let ask = |contract: &DataProduct| {
        policies.decide(&stranger, Action::Publish, Resource::Product(contract), &context).policy_ids()
    };
    assert_eq!(ask(&sales), ["all"]);
    assert_eq!(ask(&air), ["no-policy"]);
    let sees = |contract: &DataProduct| {
        policies
            .read_table(&stranger, contract, &contract.tables[0], &[], &Grants::default(), &context)
            .access
            .to_string()
    };
    assert_eq!(sees(&sales), "allow");
    assert_eq!(sees(&air), "deny");
}
