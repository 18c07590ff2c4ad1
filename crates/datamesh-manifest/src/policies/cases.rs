//! `*.tests.yaml` of a policies folder: tests of policies.

use std::collections::BTreeSet;

use datamesh_core::access::parse_principal;
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::evolution::Bump;
use datamesh_core::policy_case::{CaseContext, CaseGrant, Expectation, PolicyCase, RequestedGrant, ResourceName};
use datamesh_core::{Location, Name, Period};

use super::waivers::moment;
use crate::governance::distinct;
use crate::read::text;
use crate::shape;
use crate::yaml::{Document, Node};

/// Reads the tests of a file, which lies at `path` within the mesh's folder.
pub(super) fn read(document: &mut Document<'_>, root: &Node, domain: Option<&Name>, path: &str) -> Vec<PolicyCase> {
    shape::check(document, root, &shape::POLICY_TESTS, "policy tests");
    let mut cases: Vec<PolicyCase> = Vec::new();
    for entry in root.get("tests").and_then(Node::items).unwrap_or_default() {
        let Some(case) = read_case(document, entry, domain, path) else { continue };
        if cases.iter().any(|other| other.name == case.name) {
            let at = entry.get("name").unwrap_or(entry).span;
            let message = format!("there is a test `{}` already", case.name);
            document.error("duplicate-test", at, message, "give each test a name of its own");
            continue;
        }
        cases.push(case);
    }
    cases
}

fn read_case(document: &mut Document<'_>, node: &Node, domain: Option<&Name>, path: &str) -> Option<PolicyCase> {
    let name = text(node, "name");
    let at = node.get("name").unwrap_or(node);
    if name.as_deref() == Some("") {
        document.error("empty-text", at.span, "`name` is empty", "say what the test shows");
        return None;
    }
    let location = Location { file: path.to_owned(), ..document.location(at.span) };
    let principal = read_principal(document, node, "principal");
    let resource = node.get("resource").and_then(|at| read_resource(document, at, domain));
    let action = text(node, "action").and_then(|word| Action::parse(&word));
    let context = node.get("context").map(|context| read_context(document, context)).unwrap_or_default();
    let grants = node.get("grants").and_then(Node::items).unwrap_or_default();
    let grants: Vec<CaseGrant> = grants.iter().filter_map(|grant| read_grant(document, grant)).collect();
    if let (Some(at), Some(ResourceName::Mesh | ResourceName::Domain(_))) =
        (node.get("grants").filter(|_| !grants.is_empty()), &resource)
    {
        let help = "name a product, or something in one, as the resource; or take the grants out";
        document.error("misplaced-grants", at.span, "a grant is of a product, but the resource is none", help);
    }
    let expect = node.get("expect").and_then(|expect| read_expectation(document, expect));
    Some(PolicyCase {
        name: name?,
        location,
        domain: domain.map(Name::sql),
        principal: principal?,
        action: action?,
        resource: resource?,
        context,
        grants,
        expect: expect?,
    })
}

/// A principal with its kind before a colon.
fn read_principal(document: &mut Document<'_>, node: &Node, key: &str) -> Option<String> {
    let at = node.get(key)?;
    match parse_principal(at.text()?.trim()) {
        Ok((kind, name)) => Some(format!("{}:{name}", kind.as_str())),
        Err(why) => {
            document.error("invalid-principal", at.span, why, "write such as `user:alice` or `service:etl`");
            None
        }
    }
}

fn read_resource(document: &mut Document<'_>, at: &Node, domain: Option<&Name>) -> Option<ResourceName> {
    let resource = match ResourceName::parse(at.text()?) {
        Ok(resource) => resource,
        Err(why) => {
            let form =
                "write `mesh`, `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`";
            document.error("invalid-resource", at.span, why, form);
            return None;
        }
    };
    if let Some(domain) = domain
        && resource.domain().is_none_or(|other| other.sql() != domain.sql())
    {
        let message = format!("`{resource}` is not of domain `{domain}`, whose tests these are");
        document.error("foreign-resource", at.span, message, "put the test into the mesh's policies");
        return None;
    }
    Some(resource)
}

fn read_context(document: &mut Document<'_>, node: &Node) -> CaseContext {
    let time = node.get("time").and_then(|at| {
        let time = at.text().and_then(moment);
        if time.is_none() {
            let message = format!("`{}` is no day and no time", at.text().unwrap_or_default().escape_default());
            document.error("invalid-time", at.span, message, "write such as 2026-01-31T12:00:00Z");
        }
        time
    });
    let change = match text(node, "change").as_deref() {
        Some("patch") => Some(Bump::Patch),
        Some("minor") => Some(Bump::Minor),
        Some("review") => Some(Bump::Review),
        Some("major") => Some(Bump::Major),
        _ => None,
    };
    CaseContext {
        purpose: text(node, "purpose"),
        door: text(node, "door"),
        time,
        change,
        grant: node.get("grant").map(|grant| read_requested(document, grant)),
    }
}

fn read_requested(document: &mut Document<'_>, node: &Node) -> RequestedGrant {
    let expires = node.get("expires").and_then(|at| match Period::parse(at.text().unwrap_or_default()) {
        Ok(period) => Some(period),
        Err(why) => {
            document.error("invalid-period", at.span, why, "write such as `90d`");
            None
        }
    });
    RequestedGrant {
        principal: read_principal(document, node, "principal"),
        role: text(node, "role"),
        tables: tables(document, node),
        unmasked: distinct(document, node, "unmasked"),
        purpose: text(node, "purpose"),
        expires,
    }
}

fn read_grant(document: &mut Document<'_>, node: &Node) -> Option<CaseGrant> {
    let short = node.text().map(|role| role.trim().to_owned());
    let at = node.get("role").unwrap_or(node).span;
    let role = short.or_else(|| text(node, "role"))?;
    if role.is_empty() {
        document.error("empty-text", at, "the grant names no role", "name a role that the product offers");
        return None;
    }
    Some(CaseGrant { role, tables: tables(document, node), purpose: text(node, "purpose") })
}

/// Names of tables, as SQL spells them.
fn tables(document: &mut Document<'_>, node: &Node) -> BTreeSet<String> {
    let names = distinct(document, node, "tables");
    names.iter().map(|name| name.to_ascii_lowercase().replace('-', "_")).collect()
}

fn read_expectation(document: &mut Document<'_>, node: &Node) -> Option<Expectation> {
    let word = node.text().or_else(|| node.get("outcome")?.text())?;
    let outcome = match word {
        "allow" => Outcome::Allow,
        "deny" => Outcome::Deny,
        _ => return None,
    };
    let mut names = |key: &str| node.get(key).map(|_| distinct(document, node, key));
    let expectation = Expectation {
        outcome,
        policies: names("policies"),
        masked: names("masked"),
        hidden: names("hidden"),
        rows: node.get("rows").and_then(Node::boolean),
    };
    for key in ["masked", "hidden", "rows"] {
        if let Some(at) = node.get(key).filter(|_| outcome == Outcome::Deny) {
            let message = format!("where nothing is seen, `{key}` says nothing");
            document.error("misplaced-expectation", at.span, message, "take it out, or expect `allow`");
        }
    }
    Some(expectation)
}
