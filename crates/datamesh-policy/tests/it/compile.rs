use std::collections::BTreeSet;

use datamesh_core::access::{AttributeType, AttributeValue, Governance, PrincipalKind, PrincipalProfile, Role, Waiver};
use datamesh_core::domain::Domain;
use datamesh_policy::{PACK, Policies, schema_text};

use crate::mesh::{compile, domains, governance, now, policy, with_policies};

fn check_in(governance: &Governance, domains: &[Domain], expected: &[&str]) {
    let found: Vec<String> = match Policies::compile(governance, domains) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|problem| {
                let place = if problem.path.is_empty() {
                    format!("{}:{}:{}", problem.location.file, problem.location.line, problem.location.column)
                } else {
                    problem.path.join(".")
                };
                format!("{} {place}: {}", problem.id, problem.message)
            })
            .collect(),
    };
    assert_eq!(found, expected);
}

fn check(governance: &Governance, expected: &[&str]) {
    check_in(governance, &domains(), expected);
}

fn check_policy(text: &str, expected: &[&str]) {
    check(&with_policies(vec![policy(None, "p.cedar", text)]), expected);
}

#[test]
fn the_default_pack_is_valid_and_says_what_it_does() {
    let policies = compile(&governance());
    assert!(policies.rules().iter().all(|rule| rule.message.is_some() && !rule.id.contains('#')));
    assert_eq!(policies.rules().len(), PACK.matches("@id(").count());
    assert_eq!(policies.rule("owners").map(|rule| rule.text.starts_with("@id(\"owners\")")), Some(true));
    assert_eq!(policies.owner_of(&policies.rules()[0]).map(|owner| owner.team), Some("platform"));
}

#[test]
fn declared_attributes_are_in_the_schema() {
    let schema = schema_text(&governance().attributes);
    assert!(schema.contains("\"country\"?: String,") && schema.contains("\"level\"?: Long,"), "{schema}");
    check_policy(
        r#"permit (principal, action == Action::"read", resource) when { principal has level && principal.level > 3 };"#,
        &[],
    );
}

#[test]
fn a_policy_that_does_not_parse_is_told_with_its_place() {
    check_policy(
        "permit (principal, action, resource);\npermit (principal action, resource);",
        &[
            "policy-syntax p.cedar:2:19: unexpected token `action`: expected `!=`, `)`, `,`, `:`, `<`, `<=`, `==`, `>`, `>=`, `in`, or `is`",
        ],
    );
    check_policy(
        "permit (principal == ?principal, action, resource);",
        &[
            "policy-template p.cedar:1:1: a policy with `?principal` or `?resource` is a template, which nothing would fill in",
        ],
    );
}

#[test]
fn a_policy_is_checked_against_the_schema() {
    // An attribute that a principal need not have is asked for first, and what never holds is refused.
    check_policy(
        r#"permit (principal, action == Action::"read", resource is Table) when { resource.colour == "red" };
permit (principal is User, action == Action::"read", resource) when { principal.country == "NO" };
forbid (principal, action == Action::"raed", resource);
forbid (principal, action == Action::"publish", resource is Request);
forbid (principal, action == Action::"read", resource is Table) when { resource.sensitivity == "high" };"#,
        &[
            "policy-invalid p.cedar:1:72: attribute `colour` on entity type `Table` not found",
            "policy-invalid p.cedar:2:71: unable to guarantee safety of access to optional attribute `country` on entity type `User`",
            "policy-invalid p.cedar:3:30: unrecognized action `Action::\"raed\"`",
            "policy-invalid p.cedar:4:1: unable to find an applicable action given the policy scope constraints",
            "policy-invalid p.cedar:5:72: the types Long and String are not compatible",
        ],
    );
}

#[test]
fn annotations_are_known_ones() {
    check_policy(
        r#"@id("a") @sevrity("deny") forbid (principal, action == Action::"apply", resource) when { context.door == "x" };"#,
        &["policy-annotation p.cedar:1:1: `@sevrity` means nothing here"],
    );
    check_policy(
        r#"@severity("fatal") forbid (principal, action == Action::"apply", resource) when { context.door == "x" };"#,
        &["policy-annotation p.cedar:1:1: `fatal` is no severity"],
    );
    check_policy(
        r#"@severity("warn") permit (principal, action == Action::"apply", resource);"#,
        &["policy-annotation p.cedar:1:1: a `permit` has no severity"],
    );
    check_policy(
        r#"@severity("warn") forbid (principal, action == Action::"read", resource) when { context.door == "x" };"#,
        &[
            "policy-annotation p.cedar:1:1: a severity is for what is judged on `publish` and `apply`; other actions are forbidden or not",
        ],
    );
}

#[test]
fn ids_are_unique() {
    let text = "@id(\"a\") permit (principal, action == Action::\"read\", resource);";
    check(
        &with_policies(vec![policy(None, "b.cedar", text), policy(Some("sales"), "a.cedar", text)]),
        &["duplicate-policy-id b.cedar:1:1: there is another policy `a`"],
    );
    let text = "@id(\"findable\") permit (principal, action == Action::\"discover\", resource);";
    let mut own = with_policies(vec![policy(None, "a.cedar", text)]);
    check(&own, &["duplicate-policy-id a.cedar:1:1: there is another policy `findable`"]);
    own.disabled = BTreeSet::from(["findable".to_owned()]);
    check(&own, &[]);
    let policies = compile(&with_policies(vec![policy(
        None,
        "c.cedar",
        "permit (principal, action == Action::\"read\", resource);\n\npermit (principal, action == Action::\"apply\", resource);",
    )]));
    let rule = policies.rule("c.cedar#2").expect("a rule");
    assert_eq!((rule.location.line, rule.location.column), (3, 1));
}

#[test]
fn what_cannot_be_switched_off_is_told() {
    let mut governance = governance();
    governance.disabled = BTreeSet::from(["fresness".to_owned()]);
    check(&governance, &["unknown-policy policies.disable.fresness: the default pack has no policy `fresness`"]);
}

#[test]
fn roles_are_declared_and_include_each_other_in_no_circle() {
    let role = |name: &str, includes: &[&str]| Role {
        name: name.to_owned(),
        description: None,
        includes: includes.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut governance = governance();
    governance.roles =
        vec![role("analyst", &["support"]), role("support", &["auditor"]), role("auditor", &["analyst"])];
    check(
        &governance,
        &[
            "role-cycle roles.analyst.includes: roles include each other in a circle: `analyst` includes `support` includes `auditor` includes `analyst`",
        ],
    );
    governance.roles = vec![role("analyst", &["suport"]), role("mesh-owner", &[])];
    governance.principals.truncate(1);
    check(
        &governance,
        &[
            "reserved-role roles.mesh-owner: `mesh-owner` is the role of the mesh's owner, and there without being declared",
            "unknown-role roles.analyst.includes: nobody declares the role `suport`",
        ],
    );
    check_policy(
        r#"permit (principal in Role::"anlyst", action == Action::"read", resource);"#,
        &["unknown-role p.cedar:1:1: nobody declares the role `anlyst`"],
    );
}

#[test]
fn principals_have_the_declared_attributes() {
    let mut governance = governance();
    governance.attributes.insert("team".into(), AttributeType::Strings);
    governance.principals = vec![PrincipalProfile {
        kind: PrincipalKind::User,
        name: "ann".into(),
        description: None,
        roles: BTreeSet::from(["boss".to_owned()]),
        attributes: [
            ("country".to_owned(), AttributeValue::Long(1)),
            ("colour".to_owned(), AttributeValue::Boolean(true)),
            ("team".to_owned(), AttributeValue::Strings(BTreeSet::new())),
        ]
        .into(),
    }];
    governance.principals.push(PrincipalProfile { name: "ANN".into(), ..governance.principals[0].clone() });
    governance.principals[1].attributes = [
        ("country".to_owned(), AttributeValue::String("NO".into())),
        ("level".to_owned(), AttributeValue::Long(1)),
        ("team".to_owned(), AttributeValue::Strings(BTreeSet::new())),
    ]
    .into();
    governance.principals[1].roles.clear();
    check(
        &governance,
        &[
            "attribute-type principals.ann.attributes.country: `country` is declared as string, but this is a long",
            "duplicate-principal principals.ANN: `user:ANN` is declared twice; users are told apart without regard to case",
            "missing-attribute principals.ann.attributes: `user:ann` has no `level`, which is declared for all principals",
            "unknown-attribute principals.ann.attributes.colour: nobody declares the attribute `colour`",
            "unknown-role principals.ann.roles: nobody declares the role `boss`",
        ],
    );
}

#[test]
fn policies_of_a_domain_are_about_that_domain() {
    let text = r#"forbid (principal, action == Action::"read", resource in Domain::"air-traffic");"#;
    check(
        &with_policies(vec![policy(Some("sales"), "p.cedar", text)]),
        &[
            "policy-of-another-domain p.cedar:1:1: it is about the domain `air_traffic`, but a policy of `sales` counts for that domain's resources only",
        ],
    );
    check(&with_policies(vec![policy(Some("air_traffic"), "p.cedar", text)]), &[]);
    check(
        &with_policies(vec![policy(
            Some("elsewhere"),
            "p.cedar",
            "permit (principal, action == Action::\"read\", resource);",
        )]),
        &["unknown-domain p.cedar:0:0: these are policies of the domain `elsewhere`, which has no domain.yaml"],
    );
    check_in(
        &with_policies(vec![policy(
            Some("elsewhere"),
            "p.cedar",
            "permit (principal, action == Action::\"read\", resource);",
        )]),
        &[],
        &[],
    );
}

#[test]
fn only_what_judges_manifests_is_waived() {
    let mut governance = governance();
    for id in ["restricted-columns", "nothing", "freshness"] {
        governance.waivers.push(Waiver {
            domain: None,
            policy: id.into(),
            resource: "sales".into(),
            owner: "platform".into(),
            reason: "because".into(),
            expires: now(),
        });
    }
    check(
        &governance,
        &[
            "waiver-policy waivers.restricted-columns.policy: `restricted-columns` is about access, which nothing waives",
            "waiver-policy waivers.nothing.policy: there is no policy `nothing` to waive",
        ],
    );
}
