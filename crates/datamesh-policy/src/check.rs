//! What of a mesh's governance does not fit together, beside the policies themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use datamesh_core::access::{Governance, PrincipalKind};
use datamesh_core::domain::Domain;

use crate::principal::folded;
use crate::problem::PolicyProblem;
use crate::rule::Rule;
use crate::schema::MESH_OWNER;

/// Checks roles, principals and attributes.
pub(crate) fn governance(governance: &Governance, domains: &[Domain]) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    roles(governance, &mut problems);
    principals(governance, &mut problems);
    let known: BTreeSet<String> = domains.iter().map(|domain| domain.name.sql()).collect();
    for file in governance.policies.iter().filter(|_| !known.is_empty()) {
        if let Some(domain) = file.domain.as_ref().filter(|domain| !known.contains(*domain)) {
            problems.push(PolicyProblem {
                location: datamesh_core::diagnostic::Location { file: file.path.clone(), ..Default::default() },
                id: "unknown-domain",
                message: format!("these are policies of the domain `{domain}`, which has no domain.yaml"),
                help: Some(format!("the domains are: {}", listed(&known))),
                path: Vec::new(),
            });
        }
    }
    problems
}

fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().cloned().collect::<Vec<_>>().join(", ")
}

fn roles(governance: &Governance, problems: &mut Vec<PolicyProblem>) {
    let mut known: BTreeSet<String> = BTreeSet::from([MESH_OWNER.to_owned()]);
    for role in &governance.roles {
        if role.name == MESH_OWNER {
            problems.push(PolicyProblem::of_mesh(
                "reserved-role",
                &["roles", &role.name],
                format!("`{MESH_OWNER}` is the role of the mesh's owner, and there without being declared"),
                Some("take another name; who has the role is in the team that owns the mesh".to_owned()),
            ));
        } else if !known.insert(role.name.clone()) {
            problems.push(PolicyProblem::of_mesh(
                "duplicate-role",
                &["roles", &role.name],
                format!("the role `{}` is declared twice", role.name),
                None,
            ));
        }
    }
    let unknown = |path: &[&str], role: &str, problems: &mut Vec<PolicyProblem>| {
        problems.push(PolicyProblem::of_mesh(
            "unknown-role",
            path,
            format!("nobody declares the role `{role}`"),
            Some(format!("declare it under `roles`; there are: {}", listed(&known))),
        ));
    };
    for role in &governance.roles {
        for included in role.includes.iter().filter(|included| !known.contains(*included)) {
            unknown(&["roles", &role.name, "includes"], included, problems);
        }
    }
    for principal in &governance.principals {
        for role in principal.roles.iter().filter(|role| !known.contains(*role)) {
            unknown(&["principals", &principal.name, "roles"], role, problems);
        }
    }
    let includes: BTreeMap<&str, &BTreeSet<String>> =
        governance.roles.iter().map(|role| (role.name.as_str(), &role.includes)).collect();
    let mut reported: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for role in &governance.roles {
        if let Some(cycle) = cycle(&role.name, &includes)
            && reported.insert(cycle.iter().copied().collect())
        {
            let path: Vec<String> = cycle.iter().chain(cycle.first()).map(|name| format!("`{name}`")).collect();
            problems.push(PolicyProblem::of_mesh(
                "role-cycle",
                &["roles", cycle[0], "includes"],
                format!("roles include each other in a circle: {}", path.join(" includes ")),
                Some("take one of them out".to_owned()),
            ));
        }
    }
}

/// The shortest way from a role back to itself.
fn cycle<'r>(start: &'r str, includes: &BTreeMap<&'r str, &'r BTreeSet<String>>) -> Option<Vec<&'r str>> {
    let mut from: HashMap<&str, &str> = HashMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(role) = open.pop_front() {
        for next in includes.get(role).into_iter().flat_map(|names| names.iter()) {
            if next == start {
                let mut path = vec![role];
                while let Some(previous) = from.get(path[path.len() - 1]) {
                    path.push(previous);
                }
                path.reverse();
                return Some(path);
            }
            if !from.contains_key(next.as_str()) && includes.contains_key(next.as_str()) {
                from.insert(next, role);
                open.push_back(next);
            }
        }
    }
    None
}

fn principals(governance: &Governance, problems: &mut Vec<PolicyProblem>) {
    let mut seen = BTreeSet::new();
    for principal in &governance.principals {
        let path = |key: &'static str| ["principals".to_owned(), principal.name.clone(), key.to_owned()];
        let mut problem = |id, path: &[String], message: String, help: Option<String>| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            problems.push(PolicyProblem::of_mesh(id, &path, message, help));
        };
        if !seen.insert((principal.kind, folded(principal.kind, &principal.name))) {
            problem(
                "duplicate-principal",
                &path("name")[..2],
                format!("`{}` is declared twice; users are told apart without regard to case", principal.id()),
                None,
            );
        }
        if !matches!(principal.kind, PrincipalKind::User | PrincipalKind::Service) {
            problem(
                "principal-kind",
                &path("name")[..2],
                format!("a {} is no principal that is declared here", principal.kind.as_str()),
                Some("declare teams under `teams`, and roles under `roles`".to_owned()),
            );
            continue;
        }
        for (name, value) in &principal.attributes {
            let mut place = path("attributes").to_vec();
            place.push(name.clone());
            match governance.attributes.get(name) {
                None => problem(
                    "unknown-attribute",
                    &place,
                    format!("nobody declares the attribute `{name}`"),
                    Some(format!(
                        "declare it with its type under `attributes`; there are: {}",
                        listed(governance.attributes.keys())
                    )),
                ),
                Some(declared) if *declared != value.attribute_type() => problem(
                    "attribute-type",
                    &place,
                    format!(
                        "`{name}` is declared as {}, but this is a {}",
                        declared.as_str(),
                        value.attribute_type().as_str()
                    ),
                    None,
                ),
                Some(_) => {}
            }
        }
        for name in governance.attributes.keys().filter(|name| !principal.attributes.contains_key(*name)) {
            problem(
                "missing-attribute",
                &path("attributes"),
                format!("`{}` has no `{name}`, which is declared for all principals", principal.id()),
                Some(format!("write `attributes: {{{name}: …}}`")),
            );
        }
    }
}

/// Checks waivers against the policies.
pub(crate) fn waivers(governance: &Governance, rules: &[Rule]) -> Vec<PolicyProblem> {
    let judging: BTreeSet<&String> = rules.iter().filter(|rule| rule.judges()).map(|rule| &rule.id).collect();
    let mut problems = Vec::new();
    for waiver in &governance.waivers {
        let path = ["waivers", waiver.policy.as_str(), "policy"];
        let wrong = match rules.iter().find(|rule| rule.id == waiver.policy) {
            _ if governance.disabled.contains(&waiver.policy) => continue,
            None => format!("there is no policy `{}` to waive", waiver.policy),
            Some(rule) if !rule.judges() => {
                format!("`{}` is about access, which nothing waives", waiver.policy)
            }
            Some(_) => continue,
        };
        let help = format!("what can be waived: {}", listed(judging.iter().copied()));
        problems.push(PolicyProblem::of_mesh("waiver-policy", &path, wrong, Some(help)));
    }
    problems
}
