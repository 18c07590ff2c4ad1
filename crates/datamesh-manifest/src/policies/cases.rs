//! `*.tests.yaml` of a policies folder: tests of policies.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use datamesh_core::access::{AttributeValue, parse_principal};
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::evolution::Bump;
use datamesh_core::mask::Mask;
use datamesh_core::policy_test::{
    Expectation, PolicyCase, PolicyTest, PolicyTestContext, PolicyTestGrant, ResourceName,
};
use datamesh_core::{Location, Name};

use super::waivers::moment;
use crate::governance::distinct;
use crate::read::{text, texts};
use crate::shape;
use crate::yaml::{Document, Kind, Node};

/// Reads the tests of a file, which lies at `path` within the mesh's folder.
pub(super) fn read(document: &mut Document<'_>, root: &Node, domain: Option<&Name>, path: &str) -> Vec<PolicyCase> {
    shape::check(document, root, &shape::POLICY_TESTS, "policy tests");
    let mut cases: Vec<PolicyCase> = Vec::new();
    for entry in root.get("tests").and_then(Node::items).unwrap_or_default() {
        let Some(case) = read_case(document, entry, domain, path) else { continue };
        if cases.iter().any(|other| other.test.name == case.test.name) {
            let at = entry.get("name").unwrap_or(entry).span;
            let message = format!("there is a test `{}` already", case.test.name);
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
    let grants = node.get("grants").and_then(Node::items).unwrap_or_default();
    let grants: Vec<PolicyTestGrant> = grants.iter().filter_map(|grant| read_grant(document, grant)).collect();
    if let (Some(at), Some((ResourceName::Mesh | ResourceName::Domain(_), _))) =
        (node.get("grants").filter(|_| !grants.is_empty()), &resource)
    {
        let help = "name a product, or something in one, as the resource; or take the grants out";
        document.error("misplaced-grants", at.span, "a grant is of a product, but the resource is none", help);
    }
    let context = node.get("context").map(|context| read_context(document, context)).unwrap_or_default();
    let expect = node.get("expect").and_then(|expect| read_expectation(document, expect));
    let test = PolicyTest {
        name: name?,
        principal: principal?,
        action: action?,
        resource: resource?.1,
        context: PolicyTestContext { grants, ..context },
        expect: expect?,
    };
    Some(PolicyCase { test, location, domain: domain.map(Name::sql) })
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

/// The resource, and its text as written.
fn read_resource(document: &mut Document<'_>, at: &Node, domain: Option<&Name>) -> Option<(ResourceName, String)> {
    let text = at.text()?.trim();
    let resource = match ResourceName::parse(text) {
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
    Some((resource, text.to_owned()))
}

fn read_moment(document: &mut Document<'_>, node: &Node, key: &str) -> Option<DateTime<Utc>> {
    let at = node.get(key)?;
    let time = at.text().and_then(moment);
    if time.is_none() {
        let message = format!("`{}` is no day and no time", at.text().unwrap_or_default().escape_default());
        document.error("invalid-time", at.span, message, "write such as 2026-01-31T12:00:00Z");
    }
    time
}

fn read_context(document: &mut Document<'_>, node: &Node) -> PolicyTestContext {
    let bump = |key: &str| match text(node, key).as_deref() {
        Some("patch") => Some(Bump::Patch),
        Some("minor") => Some(Bump::Minor),
        Some("review") => Some(Bump::Review),
        Some("major") => Some(Bump::Major),
        _ => None,
    };
    let attributes = match node.get("attributes").map(|node| &node.kind) {
        Some(Kind::Mapping(given)) => given
            .iter()
            .filter(|(_, value)| !value.is_null() && !matches!(value.kind, Kind::Mapping(_)))
            .map(|(name, value)| (name.text().unwrap_or_default().to_owned(), value_of(value)))
            .collect(),
        _ => BTreeMap::new(),
    };
    PolicyTestContext {
        purpose: text(node, "purpose"),
        time: read_moment(document, node, "time"),
        door: text(node, "door"),
        owns_mesh: node.get("ownsMesh").and_then(Node::boolean).unwrap_or(false),
        attributes,
        grants: Vec::new(),
        needs: bump("needs"),
        gives: bump("gives"),
        requester: read_principal(document, node, "requester"),
    }
}

/// The value of an attribute, of the type that it is written as.
fn value_of(node: &Node) -> AttributeValue {
    let plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
    match (node.boolean(), node.text()) {
        (Some(value), _) => AttributeValue::Boolean(value),
        (None, None) => AttributeValue::Strings(texts(Some(node)).into_iter().collect()),
        (None, Some(text)) => match text.parse().ok().filter(|_| plain) {
            Some(number) => AttributeValue::Long(number),
            None => AttributeValue::String(text.to_owned()),
        },
    }
}

fn read_grant(document: &mut Document<'_>, node: &Node) -> Option<PolicyTestGrant> {
    let short = node.text().map(|role| role.trim().to_owned());
    let at = node.get("role").unwrap_or(node).span;
    let role = short.or_else(|| text(node, "role"))?;
    if role.is_empty() {
        document.error("empty-text", at, "the grant names no role", "name a role that the product offers");
        return None;
    }
    Some(PolicyTestGrant {
        role,
        tables: tables(document, node),
        purpose: text(node, "purpose"),
        expires: read_moment(document, node, "expires"),
        team: text(node, "team"),
    })
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
    let names = |key: &str, document: &mut Document<'_>| node.get(key).map(|_| distinct(document, node, key));
    let masked = match node.get("masked").map(|node| &node.kind) {
        Some(Kind::Mapping(given)) => {
            Some(given.iter().filter_map(|(column, mask)| read_masked(document, column, mask)).collect())
        }
        _ => None,
    };
    let expectation = Expectation {
        outcome,
        policies: names("policies", document),
        masked,
        hidden: names("hidden", document),
        rows: names("rows", document),
        findings: names("findings", document),
    };
    for key in ["masked", "hidden", "rows"] {
        if let Some(at) = node.get(key).filter(|_| outcome == Outcome::Deny) {
            let message = format!("where nothing is seen, `{key}` says nothing");
            document.error("misplaced-expectation", at.span, message, "take it out, or expect `allow`");
        }
    }
    Some(expectation)
}

/// A column with its mask, as masks are written.
fn read_masked(document: &mut Document<'_>, column: &Node, mask: &Node) -> Option<(String, String)> {
    let text = if mask.is_null() { "null" } else { mask.text()? };
    match Mask::parse(text) {
        Ok(mask) => Some((column.text()?.trim().to_owned(), mask.to_string())),
        Err(why) => {
            document.error("invalid-mask", mask.span, why, "write the mask that the column has");
            None
        }
    }
}
