use std::collections::BTreeMap;

use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::policy_test::PolicyTest;
use datamesh_core::protection::{Protection, protections};
use datamesh_policy::TestMesh;
use serde_json::{Value, json};

use crate::mesh::{compile, customers, governance, now};

/// Runs one case and compares what failed.
fn check(case: Value, expected: &[&str]) {
    let case: PolicyTest = serde_json::from_value(case).expect("a case");
    let contracts = [customers()];
    let own =
        |contract: &DataProduct, table: &Table| -> Vec<Protection> { protections(contract, table, &BTreeMap::new()) };
    let mesh = TestMesh { contracts: &contracts, protections: &own, now: now() };
    let results = compile(&governance()).test(&[case], &mesh);
    assert_eq!(results[0].failures, expected, "{:#?}", results[0].explanation);
}

#[test]
fn cases_say_what_is_expected() {
    let table = "sales/customers.people";
    check(
        json!({"name": "n", "principal": "ann", "action": "read", "resource": table,
               "expect": {"outcome": "deny", "policies": []}}),
        &[],
    );
    let granted = |expect: Value| {
        json!({"name": "n", "principal": "ann", "action": "read", "resource": table,
               "context": {"grants": [{"role": "analyst"}]}, "expect": expect})
    };
    check(
        granted(json!({"outcome": "allow", "policies": ["granted"], "masked": {"email": "hash"}, "hidden": ["secret"],
                       "rows": ["country = principal.country"]})),
        &[],
    );
    check(
        granted(json!({"outcome": "deny", "policies": ["owners"], "masked": {}, "hidden": ["id"], "rows": []})),
        &[
            "expected deny, got allow",
            "policies: expected `owners`, got `granted`",
            "hidden columns: expected `id`, got `secret`",
            "row filters: expected none, got `country = principal.country`",
            "masked columns: expected none, got `email: hash`",
        ],
    );
    check(
        json!({"name": "n", "principal": "sue", "action": "readUnmasked", "resource": format!("{table}.email"),
               "context": {"grants": [{"role": "support"}]}, "expect": {"outcome": "allow"}}),
        &[],
    );
    check(
        json!({"name": "n", "principal": "ann", "action": "readUnmasked", "resource": format!("{table}.email"),
               "context": {"grants": [{"role": "analyst"}]}, "expect": {"outcome": "deny"}}),
        &[],
    );
    check(
        json!({"name": "n", "principal": "olga", "action": "publish", "resource": "sales/customers",
               "expect": {"outcome": "allow", "policies": ["owners"], "findings":
               ["freshness sales/customers", "pii-classified sales/customers.people.email"]}}),
        &[],
    );
    check(
        json!({"name": "n", "principal": "olga", "action": "apply", "resource": "sales/customers",
               "context": {"needs": "major", "gives": "minor"},
               "expect": {"outcome": "deny", "policies": ["breaking-change"]}}),
        &[],
    );
    check(
        json!({"name": "n", "principal": "olga", "action": "approve", "resource": "sales/customers",
               "context": {"requester": "olga"}, "expect": {"outcome": "deny", "policies": ["own-request"]}}),
        &[],
    );
    check(
        json!({"name": "n", "principal": "ann", "action": "read", "resource": "sales/customers.nothing",
               "expect": {"outcome": "deny"}}),
        &["sales/customers has no table `nothing`; its tables are: people"],
    );
}

#[test]
fn a_read_is_told_in_words() {
    let case = json!({"name": "n", "principal": "ann", "action": "read", "resource": "sales/customers.people",
                      "context": {"grants": [{"role": "analyst"}, {"role": "support"}]}, "expect": {"outcome": "allow"}});
    let case: PolicyTest = serde_json::from_value(case).expect("a case");
    let contracts = [customers()];
    let own = |contract: &DataProduct, table: &Table| protections(contract, table, &BTreeMap::new());
    let mesh = TestMesh { contracts: &contracts, protections: &own, now: now() };
    let results = compile(&governance()).test(&[case], &mesh);
    let explanation = results[0].explanation.join("\n");
    let expected = "\
user:ann may read sales/customers.people: filter rows, mask email, hide secret
`granted` permits it: a grant lets its holder read (default.cedar:";
    assert!(explanation.starts_with(expected), "{explanation}");
    for line in [
        "grant 2 (support): no way in, `user:ann` does not have the role `support` any more",
        "without a grant: no way in, no policy permits `user:ann` to read sales/customers",
        "grant 1 (analyst): rows where country = principal.country, by granted",
        "grant 1 (analyst): `secret` is not seen, by restricted-columns",
        "`email` is masked: hash",
    ] {
        assert!(explanation.lines().any(|found| found == line), "{line}\n{explanation}");
    }
}
