//! A small mesh: two domains, a few people, one product with protected columns.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use datamesh_core::access::{Governance, Grant, PolicyFile};
use datamesh_core::contract::DataProduct;
use datamesh_core::domain::Domain;
use datamesh_core::protection::protections;
use datamesh_policy::{Context, Grants, Policies, PolicyProblem, ResolvedPrincipal, TableDecision};
use serde_json::{Value, json};

/// Ten o'clock on a day in May.
pub fn now() -> DateTime<Utc> {
    "2026-05-04T10:00:00Z".parse().expect("a time")
}

pub fn context() -> Context {
    Context::new(now(), "query")
}

pub fn governance() -> Governance {
    let value = json!({
        "format": 1,
        "owner": "platform",
        "teams": [{"name": "platform", "members": [{"username": "pia", "email": "pia@example.com"}]}],
        "attributes": {"country": "string", "level": "long"},
        "roles": [
            {"name": "analyst"},
            {"name": "support", "includes": ["analyst"]},
            {"name": "auditor"},
        ],
        "principals": [
            {"kind": "user", "name": "ann", "roles": ["analyst"],
             "attributes": {"country": {"string": "NO"}, "level": {"long": 1}}},
            {"kind": "user", "name": "sue", "roles": ["support"],
             "attributes": {"country": {"string": "SE"}, "level": {"long": 2}}},
            {"kind": "service", "name": "etl", "roles": ["analyst"],
             "attributes": {"country": {"string": "DK"}, "level": {"long": 0}}},
        ],
    });
    serde_json::from_value(value).expect("governance")
}

pub fn domain(name: &str, owner: &str, members: &[&str]) -> Domain {
    let members: Vec<Value> = members.iter().map(|name| json!({"username": name})).collect();
    let value = json!({"name": name, "owner": owner, "teams": [
        {"name": owner, "members": members},
        {"name": format!("{name}-people"), "members": [{"username": format!("{name}-worker")}]},
    ]});
    serde_json::from_value(value).expect("a domain")
}

pub fn domains() -> Vec<Domain> {
    vec![domain("sales", "sales-team", &["olga", "otto"]), domain("air-traffic", "air-team", &["amy"])]
}

/// A product `domain/name` with one table and further keys.
pub fn product(id: &str, owner: &str, columns: Value, declared: Value) -> DataProduct {
    let (domain, name) = id.split_once('/').expect("domain/product");
    let value = json!({
        "format": 1,
        "id": {"domain": domain, "product": name},
        "version": "1.0.0",
        "owner": owner,
        "status": "active",
        "description": "a product",
        "tables": [{"name": "people", "description": "one row a person", "columns": columns}],
        "declared": declared,
    });
    serde_json::from_value(value).expect("a contract")
}

pub fn column(name: &str, more: Value) -> Value {
    let mut value = json!({"name": name, "type": "string", "description": name});
    if let (Some(object), Value::Object(more)) = (value.as_object_mut(), more) {
        object.extend(more);
    }
    value
}

/// `sales/customers`: an analyst sees the rows of their country, masked; support sees the e-mail.
pub fn customers() -> DataProduct {
    product(
        "sales/customers",
        "sales-team",
        json!([
            column("id", json!({})),
            column("email", json!({"pii": true, "mask": "hash"})),
            column("country", json!({})),
            column("secret", json!({"declared": {"classification": "restricted"}})),
        ]),
        json!({
            "classification": "internal",
            "access": [
                {"role": "analyst", "rows": "country = principal.country"},
                {"role": "support", "unmasked": ["email"], "columns": ["id", "email", "country"]},
            ],
        }),
    )
}

pub fn policy(domain: Option<&str>, path: &str, text: &str) -> PolicyFile {
    PolicyFile { domain: domain.map(str::to_owned), path: path.to_owned(), text: text.to_owned() }
}

pub fn with_policies(files: Vec<PolicyFile>) -> Governance {
    Governance { policies: files, ..governance() }
}

pub fn compile(governance: &Governance) -> Policies {
    match Policies::compile(governance, &domains()) {
        Ok(policies) => policies,
        Err(problems) => panic!("{}", shown(&problems)),
    }
}

pub fn shown(problems: &[PolicyProblem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

pub fn principal(policies: &Policies, id: &str) -> ResolvedPrincipal {
    policies.principal_of(id, false).expect("a principal")
}

pub fn grant(number: u64, principal: &str, contract: &DataProduct, role: &str) -> Grant {
    Grant {
        number,
        request: number,
        principal: principal.to_owned(),
        product: contract.key(),
        tables: Default::default(),
        role: role.to_owned(),
        purpose: None,
        granted_at: now() - chrono::Duration::days(1),
        approved_by: vec!["user:olga".to_owned()],
        expires_at: None,
        revoked: None,
    }
}

pub fn read(policies: &Policies, id: &str, contract: &DataProduct, grants: &Grants) -> TableDecision {
    let table = &contract.tables[0];
    let protections = protections(contract, table, &BTreeMap::new());
    policies.read_table(&principal(policies, id), contract, table, &protections, grants, &context())
}
