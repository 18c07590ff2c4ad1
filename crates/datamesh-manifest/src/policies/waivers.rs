//! `waivers.yaml`: policies that somebody need not keep for a while.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use datamesh_core::Name;
use datamesh_core::access::Waiver;
use datamesh_core::policy_test::ResourceName;

use crate::read::text;
use crate::shape;
use crate::yaml::{Document, Node};

/// Reads a `waivers.yaml`; that of a domain is about its own resources.
pub(super) fn read(document: &mut Document<'_>, root: &Node, domain: Option<&Name>) -> Vec<Waiver> {
    shape::check(document, root, &shape::WAIVERS, "waivers");
    let mut waivers: Vec<Waiver> = Vec::new();
    for entry in root.get("waivers").and_then(Node::items).unwrap_or_default() {
        let Some(waiver) = read_waiver(document, entry, domain) else { continue };
        if waivers.iter().any(|other| (&other.policy, &other.resource) == (&waiver.policy, &waiver.resource)) {
            let at = entry.get("policy").unwrap_or(entry).span;
            let message = format!("`{}` is waived for `{}` twice", waiver.policy, waiver.resource);
            document.error("duplicate-waiver", at, message, "keep one of the two");
            continue;
        }
        waivers.push(waiver);
    }
    waivers
}

/// A text that says something; an empty one is reported.
fn said(document: &mut Document<'_>, node: &Node, key: &str, help: &str) -> Option<String> {
    let found = text(node, key)?;
    if found.is_empty() {
        let at = node.get(key).unwrap_or(node).span;
        document.error("empty-text", at, format!("`{key}` is empty"), help);
        return None;
    }
    Some(found)
}

fn read_waiver(document: &mut Document<'_>, node: &Node, domain: Option<&Name>) -> Option<Waiver> {
    let policy = said(document, node, "policy", "name the policy by its id");
    let owner = said(document, node, "owner", "name the team that answers for it");
    let reason = said(document, node, "reason", "say why the policy need not be kept");
    let resource = node.get("resource").and_then(|at| read_resource(document, at, domain));
    let expires = node.get("expires").and_then(|at| {
        let moment = at.text().and_then(moment);
        if moment.is_none() {
            let message = format!("`{}` is no day and no time", at.text().unwrap_or_default().escape_default());
            document.error("invalid-time", at.span, message, "write such as 2026-12-31, or 2026-12-31T18:00:00Z");
        }
        moment
    });
    Some(Waiver {
        domain: domain.map(Name::sql),
        policy: policy?,
        resource: resource?.to_string(),
        owner: owner?,
        reason: reason?,
        expires: expires?,
    })
}

fn read_resource(document: &mut Document<'_>, at: &Node, domain: Option<&Name>) -> Option<ResourceName> {
    let form = "write `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`";
    let resource = match ResourceName::parse(at.text()?) {
        Ok(ResourceName::Mesh) => {
            let help =
                "name a domain, or list a policy of the default pack below `policies: {disable: […]}` in mesh.yaml";
            document.error("invalid-resource", at.span, "a policy cannot be waived for the whole mesh", help);
            return None;
        }
        Ok(resource) if !at.text()?.contains(['@', '#']) => resource,
        Ok(_) => {
            document.error("invalid-resource", at.span, "a waiver is of all major versions, and of no port", form);
            return None;
        }
        Err(why) => {
            document.error("invalid-resource", at.span, why, form);
            return None;
        }
    };
    if let (Some(domain), Some(other)) = (domain, resource.domain())
        && domain.sql() != other.sql()
    {
        let message = format!("`{resource}` is not of domain `{domain}`, whose waivers these are");
        document.error("foreign-resource", at.span, message, "waive it in that domain's policies, or in the mesh's");
        return None;
    }
    Some(resource)
}

/// A day, which begins in UTC, or a time with its zone (RFC 3339).
pub(super) fn moment(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    // chrono accepts shorter forms of both; a year of two digits would be one of the first century.
    let day = || {
        let exact = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| exact)
    };
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.to_utc()),
        Err(_) => day().map(|day| day.and_time(NaiveTime::MIN).and_utc()),
    }
}
