//! Decisions in words.

use datamesh_core::access::{AccessWay, AttributeValue};
use datamesh_core::decision::{Action, Outcome};

use crate::decide::Decision;
use crate::judge::Finding;
use crate::principal::ResolvedPrincipal;
use crate::read::{TableDecision, WayReport};
use crate::rule::{PolicyEffect, PolicyFailure, PolicyReason, Severity};

/// Who somebody is, in one line.
pub fn explain_principal(principal: &ResolvedPrincipal) -> String {
    let list = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !principal.roles.is_empty() {
        parts.push(format!("roles {}", list(&principal.roles)));
    }
    if !principal.teams.is_empty() {
        parts.push(format!("teams {}", list(&principal.teams)));
    }
    if !principal.domains.is_empty() {
        parts.push(format!("domains {}", list(&principal.domains)));
    }
    if !principal.attributes.is_empty() {
        let attributes = principal.attributes.iter().map(|(name, value)| format!("{name} = {}", shown(value)));
        parts.push(format!("attributes {}", attributes.collect::<Vec<_>>().join(", ")));
    }
    match (parts.is_empty(), principal.known) {
        (true, false) => format!("{}: not known to the mesh, so without roles, teams and attributes", principal.id),
        (true, true) => format!("{}: no roles, teams or attributes", principal.id),
        _ => format!("{}: {}", principal.id, parts.join("; ")),
    }
}

fn shown(value: &AttributeValue) -> String {
    match value {
        AttributeValue::String(text) => format!("`{text}`"),
        AttributeValue::Long(number) => number.to_string(),
        AttributeValue::Boolean(flag) => flag.to_string(),
        AttributeValue::Strings(texts) => format!("{texts:?}"),
    }
}

fn reason(reason: &PolicyReason) -> String {
    let verb = match reason.effect {
        PolicyEffect::Permit => "permits",
        PolicyEffect::Forbid => "forbids",
    };
    let scope = reason.domain.as_ref().map_or_else(String::new, |domain| format!(" of domain {domain}"));
    let message = reason.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
    format!("`{}`{scope} {verb} it{message} ({}:{})", reason.id, reason.file, reason.line)
}

fn failure(failure: &PolicyFailure) -> String {
    if failure.file.is_empty() {
        return failure.message.clone();
    }
    format!(
        "`{}` cannot be evaluated, and what a policy errs on is denied: {} ({}:{})",
        failure.id, failure.message, failure.file, failure.line
    )
}

impl Decision {
    /// Why it was decided so, in words: the answer first, then a line for each policy.
    pub fn explain(&self, principal: &ResolvedPrincipal, action: Action, resource: &str) -> Vec<String> {
        let may = if self.outcome == Outcome::Allow { "may" } else { "may not" };
        let mut lines = vec![format!("{} {may} {} {resource}", principal.id, action.as_str())];
        lines.extend(self.errors.iter().map(failure));
        lines.extend(self.reasons.iter().map(reason));
        if self.reasons.is_empty() && self.errors.is_empty() {
            lines.push("no policy permits it".to_owned());
        }
        lines.extend(self.reasons.iter().filter(|reason| reason.effect == PolicyEffect::Forbid).filter_map(help));
        lines.push(explain_principal(principal));
        lines
    }
}

fn help(reason: &PolicyReason) -> Option<String> {
    reason.help.as_ref().map(|help| format!("help: {help}"))
}

impl TableDecision {
    /// Why it was decided so, in words: what is seen first, then each way in, or why it is none.
    pub fn explain(&self, principal: &ResolvedPrincipal, resource: &str) -> Vec<String> {
        let mut lines = vec![match self.outcome() {
            Outcome::Deny => format!("{} may not read {resource}", principal.id),
            Outcome::Allow if self.access.is_plain() => format!("{} may read all of {resource}", principal.id),
            Outcome::Allow => format!("{} may read {resource}: {}", principal.id, self.access),
        }];
        lines.extend(self.errors.iter().map(failure));
        lines.extend(self.reasons.iter().map(reason));
        for way in &self.ways {
            lines.extend(self.explain_way(way));
        }
        for (path, mask) in &self.access.masks {
            lines.push(format!("`{}` is masked: {mask}", path.join(".")));
        }
        lines.extend(self.help.iter().map(|help| format!("help: {help}")));
        lines.push(explain_principal(principal));
        lines
    }

    fn explain_way(&self, way: &WayReport) -> Vec<String> {
        let name = match (way.grant, &way.role) {
            (Some(number), Some(role)) => format!("grant {number} ({role})"),
            (None, Some(role)) => format!("what is offered to {role}"),
            _ => "without a grant".to_owned(),
        };
        if let Some(why) = &way.closed {
            return vec![format!("{name}: no way in, {why}")];
        }
        let taken = self.access.ways.iter().find(|taken| taken.grant == way.grant);
        let rows = match taken.and_then(|taken: &AccessWay| taken.rows.as_ref()) {
            Some(filter) => format!("rows where {}", filter.condition),
            None if taken.is_some() => "all rows".to_owned(),
            None => "nothing that another way does not show".to_owned(),
        };
        let mut lines = vec![format!("{name}: {rows}, by {}", way.policies.join(", "))];
        for (column, policies) in &way.hidden {
            let why = match policies.as_slice() {
                [] => "no policy permits it".to_owned(),
                [one] if one == "offer" => "the contract does not offer it".to_owned(),
                all => format!("by {}", all.join(", ")),
            };
            lines.push(format!("{name}: `{column}` is not seen, {why}"));
        }
        for (column, policies) in &way.unmasked {
            lines.push(format!("{name}: `{column}` is seen in clear, by {}", policies.join(", ")));
        }
        lines
    }
}

impl Finding {
    /// What was found, in words.
    pub fn explain(&self) -> Vec<String> {
        let word = match self.severity {
            Severity::Deny => "denied",
            Severity::Warn => "warning",
            Severity::Advise => "advice",
        };
        let mut lines = vec![format!(
            "{word}: {}: {} (`{}`, {}:{})",
            self.resource, self.message, self.policy, self.file, self.line
        )];
        lines.extend(self.help.iter().map(|help| format!("help: {help}")));
        if let Some(waiver) = &self.waived_by {
            lines.push(format!(
                "waived until {} by {}: {}",
                waiver.expires.format("%Y-%m-%d %H:%M"),
                waiver.owner,
                waiver.reason
            ));
        }
        if let Some(waiver) = &self.expired {
            lines.push(format!(
                "the waiver of {} expired on {}",
                waiver.owner,
                waiver.expires.format("%Y-%m-%d %H:%M")
            ));
        }
        lines
    }
}
