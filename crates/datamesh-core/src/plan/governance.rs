//! What changes of what the mesh agreed on: principals, policies and waivers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Scope;
use crate::access::{Governance, PolicyFile, Waiver};

/// What the mesh agreed on changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GovernanceStep {
    /// Number of the revision that the plan was made from; 0: there was none.
    pub revision: u64,
    /// The domain that alone is spoken of, by its normalised name; `None`: the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// What changes, a line each: `+`, `~` or `-`, and what it is.
    pub changes: Vec<String>,
    /// What holds once it is applied.
    pub governance: Governance,
}

/// What a change of `desired` makes of what holds now; `None`: nothing changes. A domain's folder speaks of its own policies
/// and waivers alone, a product's of none.
pub(super) fn step(
    applied: Option<&(u64, Governance)>,
    desired: Option<&Governance>,
    scope: &Scope,
) -> Option<GovernanceStep> {
    let none = Governance::default();
    let (revision, before) = applied.map_or((0, &none), |(revision, before)| (*revision, before));
    let after = match scope {
        Scope::Mesh => desired?.clone(),
        Scope::Domain(domain) => within(before, desired?, domain),
        Scope::Products => return None,
    };
    let changes = changes(before, &after);
    (!changes.is_empty()).then(|| {
        let domain = match scope {
            Scope::Domain(domain) => Some(domain.clone()),
            _ => None,
        };
        GovernanceStep { revision, domain, changes, governance: after }
    })
}

/// `before` with the policies and waivers of one domain as `desired` has them.
fn within(before: &Governance, desired: &Governance, domain: &str) -> Governance {
    let own_file = |file: &&PolicyFile| file.domain.as_deref() == Some(domain);
    let own_waiver = |waiver: &&Waiver| domain_of(&waiver.resource) == domain;
    let mut after = before.clone();
    after.policies.retain(|file| !own_file(&file));
    after.policies.extend(desired.policies.iter().filter(own_file).cloned());
    after.policies.sort_by(|a, b| a.path.cmp(&b.path));
    after.waivers.retain(|waiver| !own_waiver(&waiver));
    after.waivers.extend(desired.waivers.iter().filter(own_waiver).cloned());
    after
}

/// The normalised name of the domain that a resource is or lies in.
fn domain_of(resource: &str) -> String {
    resource.split('/').next().unwrap_or_default().to_ascii_lowercase().replace('-', "_")
}

fn changes(before: &Governance, after: &Governance) -> Vec<String> {
    let mut lines = Vec::new();
    let word = |owner: &Option<String>| owner.clone().unwrap_or_else(|| "nobody".to_owned());
    if before.owner != after.owner {
        lines.push(format!("~ owner: {} -> {}", word(&before.owner), word(&after.owner)));
    }
    if before.separation_of_duties != after.separation_of_duties {
        let word = |governance: &Governance| governance.separation_of_duties.as_str();
        lines.push(format!("~ separation of duties: {} -> {}", word(before), word(after)));
    }
    let teams = |governance: &Governance| named(&governance.teams, |team| team.name.clone());
    compare(&mut lines, "team", &teams(before), &teams(after));
    let kinds = |governance: &Governance| -> BTreeMap<String, &'static str> {
        governance.attributes.iter().map(|(name, kind)| (name.clone(), kind.as_str())).collect()
    };
    compare(&mut lines, "attribute", &kinds(before), &kinds(after));
    let roles = |governance: &Governance| named(&governance.roles, |role| role.name.clone());
    compare(&mut lines, "role", &roles(before), &roles(after));
    let principals = |governance: &Governance| named(&governance.principals, |principal| principal.id());
    compare(&mut lines, "principal", &principals(before), &principals(after));
    let files = |governance: &Governance| named(&governance.policies, |file| file.path.clone());
    compare(&mut lines, "policies", &files(before), &files(after));
    let waived = |waiver: &Waiver| format!("{} of {}", waiver.policy, waiver.resource);
    let waivers = |governance: &Governance| named(&governance.waivers, waived);
    compare(&mut lines, "waiver", &waivers(before), &waivers(after));
    let disabled =
        |governance: &Governance| named(&governance.disabled.iter().cloned().collect::<Vec<_>>(), Clone::clone);
    compare(&mut lines, "switched off", &disabled(before), &disabled(after));
    lines
}

fn named<T: Clone>(all: &[T], name: impl Fn(&T) -> String) -> BTreeMap<String, T> {
    all.iter().map(|one| (name(one), one.clone())).collect()
}

fn compare<T: PartialEq>(
    lines: &mut Vec<String>,
    what: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) {
    for (name, one) in after {
        match before.get(name) {
            None => lines.push(format!("+ {what} {name}")),
            Some(other) if other != one => lines.push(format!("~ {what} {name}")),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    lines.extend(gone.map(|name| format!("- {what} {name}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(domain: Option<&str>, path: &str, text: &str) -> PolicyFile {
        PolicyFile { domain: domain.map(str::to_owned), path: path.to_owned(), text: text.to_owned() }
    }

    fn governance(policies: Vec<PolicyFile>) -> Governance {
        Governance { policies, ..Governance::default() }
    }

    #[test]
    fn what_changes_is_told_and_what_does_not_is_no_step() {
        let before = governance(vec![file(None, "policies/a.cedar", "1"), file(None, "policies/b.cedar", "1")]);
        let mut after = governance(vec![file(None, "policies/a.cedar", "2"), file(None, "policies/c.cedar", "1")]);
        after.owner = Some("platform".into());
        let found = step(Some(&(4, before.clone())), Some(&after), &Scope::Mesh).expect("a step");
        let expected = [
            "~ owner: nobody -> platform",
            "~ policies policies/a.cedar",
            "+ policies policies/c.cedar",
            "- policies policies/b.cedar",
        ];
        assert_eq!((found.revision, found.changes), (4, expected.map(str::to_owned).to_vec()));
        assert_eq!(step(Some(&(4, before.clone())), Some(&before), &Scope::Mesh), None);
        assert_eq!(step(None, Some(&Governance::default()), &Scope::Mesh), None);
        assert_eq!(step(Some(&(4, before)), Some(&after), &Scope::Products), None);
    }

    #[test]
    fn a_domain_changes_its_own_policies_alone() {
        let before = governance(vec![
            file(None, "policies/a.cedar", "1"),
            file(Some("sales"), "domains/sales/policies/s.cedar", "1"),
        ]);
        let desired = governance(vec![
            file(None, "policies/a.cedar", "mine"),
            file(Some("sales"), "domains/sales/policies/t.cedar", "1"),
            file(Some("other"), "domains/other/policies/t.cedar", "1"),
        ]);
        let found = step(Some(&(1, before)), Some(&desired), &Scope::Domain("sales".into())).expect("a step");
        let paths: Vec<_> =
            found.governance.policies.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
        assert_eq!(paths, [("domains/sales/policies/t.cedar", "1"), ("policies/a.cedar", "1")]);
    }
}
