//! Who somebody is: roles, teams, domains and attributes, from what the mesh declares.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{Entity, EntityUid, RestrictedExpression};
use datamesh_core::access::{AttributeValue, Governance, PrincipalKind, PrincipalProfile, parse_principal};
use datamesh_core::domain::Domain;
use serde::Serialize;

use crate::entity::{Kind, uid};
use crate::schema::MESH_OWNER;

/// A principal with what follows from the mesh's declarations. Somebody whom they do not know has no role, no team and no
/// attribute.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPrincipal {
    /// `user:alice`. Users' names are compared in lower case, and an address stands for the user name of the same member.
    pub id: String,
    /// Its kind.
    pub kind: PrincipalKind,
    /// Its name.
    pub name: String,
    /// Whether the mesh's governance, or a team, knows it.
    pub known: bool,
    /// Its roles, included ones too.
    pub roles: BTreeSet<String>,
    /// Its teams; of a team, itself.
    pub teams: BTreeSet<String>,
    /// The domains of its teams, by normalised name.
    pub domains: BTreeSet<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, AttributeValue>,
    #[serde(skip)]
    pub(crate) uid: EntityUid,
    #[serde(skip)]
    pub(crate) entity: Entity,
}

impl ResolvedPrincipal {
    /// Whether it has a role, or is one.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Whether it runs the platform.
    pub fn owns_mesh(&self) -> bool {
        self.has_role(MESH_OWNER)
    }

    /// The same with attributes added or replaced, for questions of the kind "what if".
    ///
    /// # Errors
    /// Never for attributes of a mesh; a text that Cedar refuses.
    pub fn with_attributes(mut self, attributes: &BTreeMap<String, AttributeValue>) -> Result<Self, String> {
        self.attributes.extend(attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.entity = self.to_entity()?;
        Ok(self)
    }

    /// The same as one who belongs to a domain, by its normalised name.
    pub(crate) fn within(mut self, domain: &str) -> Result<Self, String> {
        self.domains.insert(domain.to_owned());
        self.entity = self.to_entity()?;
        Ok(self)
    }

    fn to_entity(&self) -> Result<Entity, String> {
        let mut parents: HashSet<EntityUid> = self.roles.iter().map(|role| uid(Kind::Role, role)).collect();
        parents.extend(self.teams.iter().map(|team| uid(Kind::Team, team)));
        parents.extend(self.domains.iter().map(|domain| uid(Kind::Domain, domain)));
        if !self.domains.is_empty() {
            parents.insert(uid(Kind::Mesh, "mesh"));
        }
        parents.remove(&self.uid);
        // Only users and services have attributes by the schema.
        let has_attributes = matches!(self.kind, PrincipalKind::User | PrincipalKind::Service);
        let attributes = self.attributes.iter().filter(|_| has_attributes);
        let attributes = attributes.map(|(name, value)| (name.clone(), attribute(value))).collect();
        Entity::new(self.uid.clone(), attributes, parents).map_err(|error| error.to_string())
    }
}

fn attribute(value: &AttributeValue) -> RestrictedExpression {
    match value {
        AttributeValue::String(text) => RestrictedExpression::new_string(text.clone()),
        AttributeValue::Long(number) => RestrictedExpression::new_long(*number),
        AttributeValue::Boolean(flag) => RestrictedExpression::new_bool(*flag),
        AttributeValue::Strings(texts) => {
            RestrictedExpression::new_set(texts.iter().cloned().map(RestrictedExpression::new_string))
        }
    }
}

/// A principal's name as it is compared: users' in lower case.
pub(crate) fn folded(kind: PrincipalKind, name: &str) -> String {
    if kind == PrincipalKind::User { name.to_lowercase() } else { name.to_owned() }
}

/// Who there is.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    profiles: HashMap<(PrincipalKind, String), PrincipalProfile>,
    /// The roles that each role includes, by themselves and by others.
    roles: HashMap<String, BTreeSet<String>>,
    /// The teams of a member, by user name or address in lower case.
    teams: HashMap<String, BTreeSet<String>>,
    /// The user name of a member by their address, both in lower case.
    aliases: HashMap<String, String>,
    /// The domains of a team, by normalised name.
    pub(crate) domains: HashMap<String, BTreeSet<String>>,
    team_names: HashSet<String>,
    owner: Option<String>,
}

impl Directory {
    pub(crate) fn new(governance: &Governance, domains: &[Domain]) -> Self {
        let mut directory = Self { owner: governance.owner.clone(), ..Self::default() };
        for profile in &governance.principals {
            let key = (profile.kind, folded(profile.kind, &profile.name));
            directory.profiles.entry(key).or_insert_with(|| profile.clone());
        }
        let includes: HashMap<&str, &BTreeSet<String>> =
            governance.roles.iter().map(|role| (role.name.as_str(), &role.includes)).collect();
        for role in &governance.roles {
            let mut all = BTreeSet::new();
            let mut open = vec![role.name.as_str()];
            while let Some(name) = open.pop() {
                if all.insert(name.to_owned()) {
                    open.extend(includes.get(name).into_iter().flat_map(|names| names.iter()).map(String::as_str));
                }
            }
            directory.roles.insert(role.name.clone(), all);
        }
        let of_domains = domains.iter().flat_map(|domain| domain.teams.iter().map(move |team| (Some(domain), team)));
        for (domain, team) in governance.teams.iter().map(|team| (None, team)).chain(of_domains) {
            if let Some(domain) = domain {
                directory.domains.entry(team.name.clone()).or_default().insert(domain.name.sql());
            }
            directory.team_names.insert(team.name.clone());
            for member in &team.members {
                let username = member.username.as_deref().map(str::to_lowercase);
                let email = member.email.as_deref().map(str::to_lowercase);
                if let (Some(username), Some(email)) = (&username, &email) {
                    directory.aliases.entry(email.clone()).or_insert_with(|| username.clone());
                }
                for name in [username, email].into_iter().flatten() {
                    directory.teams.entry(name).or_default().insert(team.name.clone());
                }
            }
        }
        directory.team_names.extend(governance.owner.clone());
        for domain in domains {
            directory.team_names.insert(domain.owner.clone());
            directory.domains.entry(domain.owner.clone()).or_default().insert(domain.name.sql());
        }
        directory
    }

    /// A role with those it includes.
    fn with_included(&self, role: &str) -> BTreeSet<String> {
        self.roles.get(role).cloned().unwrap_or_else(|| BTreeSet::from([role.to_owned()]))
    }

    /// The canonical name of a user: an address stands for the user name of the same member.
    fn canonical(&self, kind: PrincipalKind, name: &str) -> String {
        let name = folded(kind, name);
        match self.aliases.get(&name) {
            Some(username) if kind == PrincipalKind::User => username.clone(),
            _ => name,
        }
    }

    /// The canonical form of a principal's id.
    pub(crate) fn id(&self, text: &str) -> Result<String, String> {
        let (kind, name) = parse_principal(text)?;
        Ok(format!("{}:{}", kind.as_str(), self.canonical(kind, name)))
    }

    /// Who `text` names. `owns_mesh`: whoever runs the program owns the mesh it is embedded in.
    pub(crate) fn resolve(&self, text: &str, owns_mesh: bool) -> Result<ResolvedPrincipal, String> {
        let (kind, given) = parse_principal(text)?;
        let name = self.canonical(kind, given);
        let profile =
            (self.profiles.get(&(kind, name.clone()))).or_else(|| self.profiles.get(&(kind, folded(kind, given))));
        let mut teams = BTreeSet::new();
        let mut roles = BTreeSet::new();
        match kind {
            PrincipalKind::User => {
                for name in [name.clone(), folded(kind, given)] {
                    teams.extend(self.teams.get(&name).into_iter().flatten().cloned());
                }
            }
            PrincipalKind::Team => {
                teams.insert(name.clone());
            }
            PrincipalKind::Role => roles.extend(self.with_included(&name)),
            PrincipalKind::Service => {}
        }
        let known = profile.is_some()
            || match kind {
                PrincipalKind::Role => self.is_role(&name),
                PrincipalKind::Team => self.is_team(&name),
                _ => !teams.is_empty(),
            };
        for role in profile.iter().flat_map(|profile| &profile.roles) {
            roles.extend(self.with_included(role));
        }
        if owns_mesh || self.owner.as_ref().is_some_and(|owner| teams.contains(owner)) {
            roles.insert(MESH_OWNER.to_owned());
        }
        let domains =
            teams.iter().filter_map(|team| self.domains.get(team)).flatten().cloned().collect::<BTreeSet<_>>();
        let uid = uid(Kind::of_principal(kind), &name);
        let mut principal = ResolvedPrincipal {
            id: format!("{}:{name}", kind.as_str()),
            kind,
            known,
            roles,
            teams,
            domains,
            attributes: profile.map(|profile| profile.attributes.clone()).unwrap_or_default(),
            entity: Entity::with_uid(uid.clone()),
            uid,
            name,
        };
        principal.entity = principal.to_entity()?;
        Ok(principal)
    }

    /// Whether a team of this name is declared, or owns the mesh or a domain.
    pub(crate) fn is_team(&self, name: &str) -> bool {
        self.team_names.contains(name)
    }

    /// Whether a role is declared.
    pub(crate) fn is_role(&self, name: &str) -> bool {
        name == MESH_OWNER || self.roles.contains_key(name)
    }
}
