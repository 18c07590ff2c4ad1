use datamesh_core::decision::Action;
use datamesh_core::domain::{Member, Team};
use datamesh_core::ids::Name;
use datamesh_policy::{Decision, RequestFacts, Resource};
use serde_json::json;

use crate::mesh::{column, compile, context, customers, governance, policy, principal, product, with_policies};

/// `allow owners`, `deny no-policy`.
fn shown(decision: &Decision) -> String {
    format!("{} {}", decision.outcome.as_str(), decision.policy_ids().join(", "))
}

#[test]
fn who_may_do_what_by_default() {
    let policies = compile(&governance());
    let contract = customers();
    let sales = Name::new("Sales").expect("a name");
    let check = |who: &str, action: Action, resource: Resource<'_>, expected: &str| {
        let decision = policies.decide(&principal(&policies, who), action, resource, &context());
        assert_eq!(shown(&decision), expected, "{who} {}", action.as_str());
    };
    let product = Resource::Product(&contract);
    for who in ["ann", "stranger", "service:other", "team:nobody", "role:analyst"] {
        check(who, Action::Discover, product, "allow findable");
        check(who, Action::Describe, product, "allow findable");
        for action in [Action::Publish, Action::Apply, Action::Deprecate, Action::Approve] {
            check(who, action, product, "deny no-policy");
        }
        check(who, Action::Administer, Resource::Mesh, "deny no-policy");
        check(who, Action::Apply, Resource::Domain(&sales), "deny no-policy");
    }
    for action in [Action::Publish, Action::Apply, Action::Deprecate, Action::Approve] {
        check("olga", action, product, "allow owners");
        check("sales-worker", action, product, "deny no-policy");
        check("pia", action, product, "allow mesh-owner");
    }
    check("olga", Action::Apply, Resource::Domain(&sales), "allow domain-owners");
    check("amy", Action::Apply, Resource::Domain(&sales), "deny no-policy");
    check("olga", Action::Administer, Resource::Mesh, "deny no-policy");
    check("pia", Action::Administer, Resource::Mesh, "allow mesh-owner");
    check("pia", Action::Discover, Resource::Mesh, "allow mesh-owner, findable");
    let refused = policies.decide(&principal(&policies, "pia"), Action::Approve, Resource::Mesh, &context());
    assert_eq!(refused.errors[0].message, "`approve` is not asked of a mesh");
}

#[test]
fn nobody_approves_their_own_request() {
    let policies = compile(&governance());
    let contract = customers();
    let request = |requester: &str, principal: &str, approvers: &[&str]| RequestFacts {
        number: 1,
        requester: requester.to_owned(),
        principal: principal.to_owned(),
        role: "analyst".to_owned(),
        approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
        ..RequestFacts::default()
    };
    let check = |who: &str, request: RequestFacts, expected: &str| {
        let decision = policies.decide(
            &principal(&policies, who),
            Action::Approve,
            Resource::Request(&contract, &request),
            &context(),
        );
        assert_eq!(shown(&decision), expected, "{who} {request:?}");
    };
    check("olga", request("user:ann", "user:ann", &[]), "allow approvers");
    check("olga", request("user:Olga", "user:ann", &[]), "deny own-request");
    check("olga", request("user:ann", "user:olga", &[]), "deny own-request");
    check("olga", request("user:ann", "team:sales-team", &[]), "deny own-request");
    check("pia", request("user:pia", "user:pia", &[]), "deny own-request");
    check("pia", request("user:ann", "service:etl", &[]), "allow mesh-owner");
    check("amy", request("user:ann", "user:ann", &[]), "deny no-policy");
    check("amy", request("user:ann", "user:ann", &["air-team"]), "allow approvers");
    check("olga", request("user:ann", "user:ann", &["air-team"]), "deny no-policy");
    check("sue", request("user:ann", "user:ann", &["sue", "team:air-team"]), "allow approvers");
    // Whoever is called like a team is not in it.
    check("air-team", request("user:ann", "user:ann", &["air-team"]), "deny no-policy");
}

#[test]
fn names_of_resources_are_compared_as_sql_spells_them() {
    let text = r#"
        @id("named") forbid (principal, action == Action::"read", resource == Column::"Air-Traffic/Flight-Legs.People.id");
        @id("user") forbid (principal == User::"Amy", action == Action::"publish", resource in Product::"air_traffic/flight_legs");
    "#;
    let policies = compile(&with_policies(vec![policy(None, "p.cedar", text)]));
    let contract = product("air-traffic/flight-legs", "air-team", json!([column("id", json!({}))]), json!({}));
    let path = ["id".to_owned()];
    let resource = Resource::Column(&contract, &contract.tables[0], &path);
    let decision = policies.decide(&principal(&policies, "amy"), Action::Read, resource, &context());
    assert_eq!(shown(&decision), "deny named");
    let resource = Resource::Product(&contract);
    let decision = policies.decide(&principal(&policies, "amy"), Action::Publish, resource, &context());
    assert_eq!(shown(&decision), "deny user");
}

#[test]
fn principals_are_found_by_user_name_and_address() {
    let mut governance = governance();
    governance.teams.push(Team {
        name: "stewards".into(),
        description: None,
        members: vec![
            Member { username: Some("Ann".into()), email: Some("Ann@Example.com".into()), ..Member::default() },
            Member { email: Some("only@example.com".into()), ..Member::default() },
        ],
        contact: None,
    });
    let policies = compile(&governance);
    let ann = principal(&policies, "user:ANN@example.com");
    assert_eq!(ann.id, "user:ann");
    assert!(ann.known && ann.has_role("analyst") && ann.teams.contains("stewards") && !ann.owns_mesh());
    assert!(principal(&policies, "only@EXAMPLE.com").teams.contains("stewards"));
    let stranger = principal(&policies, "stranger");
    assert!(
        !stranger.known && stranger.roles.is_empty() && stranger.teams.is_empty() && stranger.attributes.is_empty()
    );
    let sue = principal(&policies, "sue");
    assert_eq!(sue.roles.iter().collect::<Vec<_>>(), ["analyst", "support"]);
    assert_eq!(principal(&policies, "sales-worker").domains.iter().collect::<Vec<_>>(), ["sales"]);
    assert!(principal(&policies, "team:platform").owns_mesh());
    assert!(policies.principal_of("x y", false).is_err());
    assert!(policies.principal_of("stranger", true).is_ok_and(|principal| principal.owns_mesh()));
}

#[test]
fn an_answer_is_told_in_words() {
    let policies = compile(&governance());
    let contract = customers();
    let ann = principal(&policies, "ann");
    let decision = policies.decide(&ann, Action::Publish, Resource::Product(&contract), &context());
    assert_eq!(
        decision.explain(&ann, Action::Publish, "sales/customers"),
        [
            "user:ann may not publish sales/customers",
            "no policy permits it",
            "user:ann: roles analyst; attributes country = `NO`, level = 1",
        ]
    );
    let path = ["secret".to_owned()];
    let column = Resource::Column(&contract, &contract.tables[0], &path);
    let decision = policies.decide(&ann, Action::Read, column, &context());
    let lines = decision.explain(&ann, Action::Read, "sales/customers.people.secret");
    assert!(
        lines[1].starts_with("`restricted-columns` forbids it: the column is restricted (default.cedar:"),
        "{lines:#?}"
    );
    assert_eq!(lines[2], "help: ask for a role that the contract unmasks the column for");
}
