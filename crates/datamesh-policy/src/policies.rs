//! The compiled policies of a mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cedar_policy::{Authorizer, Entities, Entity, EntityUid, PolicySet, Request, Response, Schema};
use datamesh_core::access::{Governance, PrincipalKind, Waiver};
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::Action;
use datamesh_core::domain::Domain;
use datamesh_core::ids::Name;
use datamesh_core::ownership::{OwnedPath, Owner, Ownership};

use crate::compile::{Layers, Slice, read_rules, validate};
use crate::entity::{Kind, uid};
use crate::principal::{Directory, ResolvedPrincipal};
use crate::problem::PolicyProblem;
use crate::rule::{PolicyFailure, PolicyReason, Rule};
use crate::schema::{MESH_OWNER, schema_text};

/// The policies of a mesh, with who there is: everything that decisions need but the resource and the context.
#[derive(Debug)]
pub struct Policies {
    pub(crate) rules: Vec<Rule>,
    pub(crate) directory: Directory,
    pub(crate) ownership: Ownership,
    pub(crate) waivers: Vec<Waiver>,
    pub(crate) attributes: BTreeMap<String, datamesh_core::access::AttributeType>,
    names: BTreeMap<String, Name>,
    layers: Layers,
    domains: HashMap<String, Entity>,
    teams: HashMap<String, Entity>,
    mesh: Entity,
    authorizer: Authorizer,
}

impl Policies {
    /// Compiles what a mesh declares and checks it: policies against the schema, principals against the declared attributes
    /// and roles, waivers against the policies.
    ///
    /// # Errors
    /// Every problem, each with its place.
    pub fn compile(governance: &Governance, domains: &[Domain]) -> Result<Self, Vec<PolicyProblem>> {
        Self::build(governance, domains, true)
    }

    /// Compiles what was checked when it was applied: policies are parsed, but their types are not checked again. One that
    /// does not fit the schema errs when it is evaluated, and denies.
    ///
    /// # Errors
    /// As of [`Self::compile`].
    pub fn load(governance: &Governance, domains: &[Domain]) -> Result<Self, Vec<PolicyProblem>> {
        Self::build(governance, domains, false)
    }

    fn build(governance: &Governance, domains: &[Domain], check: bool) -> Result<Self, Vec<PolicyProblem>> {
        let mut problems = crate::check::governance(governance, domains);
        let directory = Directory::new(governance, domains);
        let (rules, found) = read_rules(governance, &directory);
        problems.extend(found);
        if check {
            match Schema::from_cedarschema_str(&schema_text(&governance.attributes)) {
                Ok((schema, _)) => {
                    let mut files: HashMap<&str, &str> =
                        governance.policies.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
                    files.insert(crate::PACK_FILE, crate::PACK);
                    problems.extend(validate(&rules, &schema, &files));
                }
                // The names of attributes are checked before; what is left is told all the same.
                Err(error) => problems.push(PolicyProblem::of_mesh(
                    "policy-schema",
                    &["attributes"],
                    format!("the attributes make no schema: {error}"),
                    None,
                )),
            }
        }
        problems.extend(crate::check::waivers(governance, &rules));
        let compiled = Self::assemble(governance, domains, rules, directory);
        match compiled {
            Ok(policies) if problems.is_empty() => Ok(policies),
            Ok(_) => {
                problems.sort();
                Err(problems)
            }
            Err(message) => {
                problems.push(PolicyProblem::of_mesh("policy-entities", &[], message, None));
                problems.sort();
                Err(problems)
            }
        }
    }

    fn assemble(
        governance: &Governance,
        domains: &[Domain],
        rules: Vec<Rule>,
        directory: Directory,
    ) -> Result<Self, String> {
        let owner_attribute = |owner: Option<&str>| {
            let owner = owner.map(|team| {
                ("owner".to_owned(), cedar_policy::RestrictedExpression::new_entity_uid(uid(Kind::Team, team)))
            });
            owner.into_iter().collect::<HashMap<_, _>>()
        };
        let entity = |id: EntityUid, attributes, parents: Vec<EntityUid>| {
            Entity::new(id, attributes, parents.into_iter().collect()).map_err(|error| error.to_string())
        };
        let mesh_uid = uid(Kind::Mesh, "mesh");
        let mesh = entity(mesh_uid.clone(), owner_attribute(governance.owner.as_deref()), Vec::new())?;
        let mut by_domain = HashMap::new();
        for domain in domains {
            let mut attributes =
                owner_attribute(Some(&domain.owner).filter(|owner| !owner.is_empty()).map(|o| o.as_str()));
            attributes.insert(
                "name".to_owned(),
                cedar_policy::RestrictedExpression::new_string(domain.name.as_str().to_owned()),
            );
            let id = uid(Kind::Domain, &domain.name.sql());
            by_domain.insert(domain.name.sql(), entity(id, attributes, vec![mesh_uid.clone()])?);
        }
        let mut teams = HashMap::new();
        let declared = governance.teams.iter().chain(domains.iter().flat_map(|domain| &domain.teams));
        let owners = governance.owner.iter().chain(domains.iter().map(|domain| &domain.owner));
        let names: BTreeSet<&String> = declared.map(|team| &team.name).chain(owners).collect();
        for team in names {
            let mut parents: Vec<EntityUid> =
                directory.domains.get(team).into_iter().flatten().map(|domain| uid(Kind::Domain, domain)).collect();
            if !parents.is_empty() {
                parents.push(mesh_uid.clone());
            }
            if governance.owner.as_ref() == Some(team) {
                parents.push(uid(Kind::Role, MESH_OWNER));
            }
            teams.insert(team.clone(), entity(uid(Kind::Team, team), HashMap::new(), parents)?);
        }
        Ok(Self {
            layers: Layers::new(&rules)?,
            rules,
            directory,
            ownership: Ownership::new(governance.owner.as_deref(), &governance.teams, domains),
            waivers: governance.waivers.clone(),
            attributes: governance.attributes.clone(),
            names: domains.iter().map(|domain| (domain.name.sql(), domain.name.clone())).collect(),
            domains: by_domain,
            teams,
            mesh,
            authorizer: Authorizer::new(),
        })
    }

    /// Every policy, those of the default pack first.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The policy of an id.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// The schema's text, for editors and documentation.
    pub fn schema(&self) -> String {
        schema_text(&self.attributes)
    }

    /// The team that answers for a policy: its own owner, else its domain's, else the mesh's.
    pub fn owner_of<'a>(&'a self, rule: &'a Rule) -> Option<Owner<'a>> {
        let domain = rule.domain.as_ref().and_then(|domain| self.names.get(domain));
        self.ownership.owner_of(OwnedPath::Policy { owner: rule.owner.as_deref(), domain })
    }

    /// Who `id` names: `alice`, `user:alice`, `service:etl`, `team:fleet-team`, `role:analyst`. `owns_mesh`: whoever runs the
    /// program owns the mesh that it is embedded in.
    ///
    /// # Errors
    /// What is wrong with the id.
    pub fn principal_of(&self, id: &str, owns_mesh: bool) -> Result<ResolvedPrincipal, String> {
        self.directory.resolve(id, owns_mesh)
    }

    /// Who a product's transforms read their inputs as: the team that owns it, which is one of its domain whether that
    /// declares it or not.
    ///
    /// # Errors
    /// An owner whose name is none.
    pub fn domain_reader(&self, contract: &DataProduct) -> Result<ResolvedPrincipal, String> {
        let owner = self.ownership.owner_of(OwnedPath::Product(contract)).map(|owner| owner.team);
        let owner = owner.ok_or("it has no owner")?;
        self.directory.resolve(&format!("team:{owner}"), false)?.within(&contract.id.domain.sql())
    }

    /// The form of a principal's id in which two of them are compared: that of [`ResolvedPrincipal::id`].
    ///
    /// # Errors
    /// What is wrong with the id.
    pub fn canonical_id(&self, id: &str) -> Result<String, String> {
        self.directory.id(id)
    }

    /// The slices of the layers that count for a resource of a domain: the mesh's, and that domain's.
    pub(crate) fn slices(&self, domain: Option<&str>, action: Action, kind: Kind) -> [Option<&Slice>; 2] {
        let local = domain.and_then(|domain| self.layers.domains.get(domain));
        [self.layers.mesh.get(&(action, kind)), local.and_then(|layer| layer.get(&(action, kind)))]
    }

    /// The entities that every question needs beside the resources: the mesh, the domain, the principal, and the teams that
    /// are named.
    pub(crate) fn around<'t>(
        &self,
        principal: &ResolvedPrincipal,
        domain: Option<&Name>,
        teams: impl IntoIterator<Item = &'t str>,
    ) -> Result<Vec<Entity>, String> {
        let mut found = vec![self.mesh.clone(), principal.entity.clone()];
        if let Some(domain) = domain {
            found.push(self.domain_entity(domain)?);
        }
        let mut names: BTreeSet<&str> = teams.into_iter().collect();
        if principal.kind == PrincipalKind::Team {
            names.remove(principal.name.as_str());
        }
        found.extend(names.into_iter().filter_map(|team| self.teams.get(team)).cloned());
        Ok(found)
    }

    /// A domain as policies know it, also where no `domain.yaml` declares it.
    fn domain_entity(&self, name: &Name) -> Result<Entity, String> {
        if let Some(entity) = self.domains.get(&name.sql()) {
            return Ok(entity.clone());
        }
        let name_attribute = cedar_policy::RestrictedExpression::new_string(name.as_str().to_owned());
        let attributes = HashMap::from([("name".to_owned(), name_attribute)]);
        let parents = [uid(Kind::Mesh, "mesh")].into_iter().collect();
        Entity::new(uid(Kind::Domain, &name.sql()), attributes, parents).map_err(|error| error.to_string())
    }

    /// Asks a set of policies and notes what they say.
    pub(crate) fn ask(&self, set: &PolicySet, request: &Request, entities: &Entities, verdict: &mut Verdict) {
        if set.is_empty() {
            return;
        }
        verdict.note(&self.authorizer.is_authorized(request, set, entities));
    }

    pub(crate) fn reason(&self, at: usize) -> PolicyReason {
        PolicyReason::from(&self.rules[at])
    }

    pub(crate) fn failure(&self, at: usize, message: &str) -> PolicyFailure {
        let rule = &self.rules[at];
        PolicyFailure {
            id: rule.id.clone(),
            file: rule.location.file.clone(),
            line: rule.location.line,
            message: message.to_owned(),
        }
    }
}

/// What policies said to one question, by their places among the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) permits: BTreeSet<usize>,
    pub(crate) forbids: BTreeSet<usize>,
    pub(crate) errors: BTreeMap<usize, String>,
}

impl Verdict {
    fn note(&mut self, response: &Response) {
        let place = |id: &cedar_policy::PolicyId| AsRef::<str>::as_ref(id).parse::<usize>().ok();
        let reasons = response.diagnostics().reason().filter_map(place);
        match response.decision() {
            cedar_policy::Decision::Allow => self.permits.extend(reasons),
            cedar_policy::Decision::Deny => self.forbids.extend(reasons),
        }
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            if let Some(at) = place(error.policy_id()) {
                self.errors.insert(at, error.inner().to_string());
            }
        }
    }

    /// Allowed: something permits it, nothing forbids it, and every policy could be evaluated.
    pub(crate) fn allows(&self) -> bool {
        !self.permits.is_empty() && self.forbids.is_empty() && self.errors.is_empty()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.permits.extend(&other.permits);
        self.forbids.extend(&other.forbids);
        self.errors.extend(other.errors.iter().map(|(at, message)| (*at, message.clone())));
    }
}
