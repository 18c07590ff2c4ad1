//! The decision: may somebody do something to something?

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Context as CedarContext, Entities, Entity, EntityUid, Request, RestrictedExpression};
use chrono::{DateTime, SecondsFormat, Utc};
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::evolution::{self, Bump};
use datamesh_core::ownership::OwnedPath;
use datamesh_core::protection::protections;
use serde::{Deserialize, Serialize};

use crate::entity::{Interest, Kind, Node, action_uid, uid};
use crate::policies::{Policies, Verdict};
use crate::principal::ResolvedPrincipal;
use crate::resource::{ProductNodes, Resource};
use crate::rule::{PolicyFailure, PolicyReason};

/// What else is known of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// When.
    pub time: DateTime<Utc>,
    /// Through which door: `query`, `publish`, `show`, …
    pub door: String,
    /// What it is for.
    pub purpose: Option<String>,
    /// What becomes of the contract, where something does.
    pub change: Option<Change>,
}

impl Context {
    /// A context without a purpose.
    pub fn new(time: DateTime<Utc>, door: &str) -> Self {
        Self { time, door: door.to_owned(), purpose: None, change: None }
    }
}

/// What becomes of a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Create,
    /// It is another.
    Update,
    /// Its end is announced.
    Deprecate,
    /// It ends.
    Retire,
    /// It stays as it is; data is published.
    Publish,
}

impl ChangeKind {
    /// Its word in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Deprecate => "deprecate",
            Self::Retire => "retire",
            Self::Publish => "publish",
        }
    }
}

/// A change of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What kind.
    pub kind: ChangeKind,
    /// The step of the version that it needs.
    pub needs: Option<Bump>,
    /// The step that it takes.
    pub gives: Option<Bump>,
    /// Whether the version is far enough from the one before.
    pub enough: bool,
}

impl Change {
    /// Data is published, the contract stays.
    pub fn publish() -> Self {
        Self { kind: ChangeKind::Publish, needs: None, gives: None, enough: true }
    }

    /// The change from a contract to another; `None` where there was none. `acknowledged`: changes of which the text does
    /// not tell whether they break anything are known to break nothing.
    pub fn between(before: Option<&DataProduct>, after: &DataProduct, acknowledged: bool) -> Self {
        use datamesh_core::Lifecycle::{Deprecated, Retired};
        let Some(before) = before else {
            return Self { kind: ChangeKind::Create, needs: None, gives: None, enough: true };
        };
        let kind = match after.status {
            Retired if before.status != Retired => ChangeKind::Retire,
            Deprecated if before.status != Deprecated => ChangeKind::Deprecate,
            _ => ChangeKind::Update,
        };
        let changes = evolution::compare(before, after);
        let needs = evolution::needed_bump(&changes, acknowledged);
        match evolution::judge(&before.version, &after.version, &changes, acknowledged) {
            Ok(judgement) => Self { kind, needs, gives: judgement.taken, enough: true },
            Err(_) => Self { kind, needs, gives: None, enough: false },
        }
    }

    /// Whether consumers lose what they were promised.
    pub fn is_breaking(&self) -> bool {
        self.needs.is_some_and(|needs| needs >= Bump::Review)
    }
}

/// What a read comes by, as policies see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantContext<'a> {
    pub(crate) number: u64,
    pub(crate) role: &'a str,
    pub(crate) purpose: Option<&'a str>,
    pub(crate) tables: &'a BTreeSet<String>,
    pub(crate) unmasked: &'a BTreeSet<String>,
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

/// The time of a context, which costs more to make than everything else in it.
pub(crate) fn cedar_time(context: &Context) -> RestrictedExpression {
    RestrictedExpression::new_datetime(context.time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The context of a question about an action. `grant` comes with whether it unmasks what is asked about.
pub(crate) fn cedar_context(
    context: &Context,
    time: &RestrictedExpression,
    action: Action,
    grant: Option<(GrantContext<'_>, bool)>,
) -> Result<CedarContext, String> {
    let mut pairs = vec![("time".to_owned(), time.clone()), ("door".to_owned(), string(&context.door))];
    pairs.extend(context.purpose.as_deref().map(|purpose| ("purpose".to_owned(), string(purpose))));
    let record = |fields: Vec<(String, RestrictedExpression)>| {
        RestrictedExpression::new_record(fields).map_err(|error| error.to_string())
    };
    let texts = |texts: &BTreeSet<String>| RestrictedExpression::new_set(texts.iter().map(|text| string(text)));
    if let (Some(change), Action::Publish | Action::Apply | Action::Deprecate) = (&context.change, action) {
        let mut fields = vec![
            ("kind".to_owned(), string(change.kind.as_str())),
            ("breaking".to_owned(), RestrictedExpression::new_bool(change.is_breaking())),
            ("enough".to_owned(), RestrictedExpression::new_bool(change.enough)),
        ];
        fields.extend(change.needs.map(|bump| ("needs".to_owned(), string(bump.as_str()))));
        fields.extend(change.gives.map(|bump| ("gives".to_owned(), string(bump.as_str()))));
        pairs.push(("change".to_owned(), record(fields)?));
    }
    if let (Some((grant, unmasks)), Action::Read | Action::ReadUnmasked) = (grant, action) {
        let mut fields = vec![
            ("number".to_owned(), RestrictedExpression::new_long(i64::try_from(grant.number).unwrap_or(i64::MAX))),
            ("role".to_owned(), string(grant.role)),
            ("tables".to_owned(), texts(grant.tables)),
            ("unmasked".to_owned(), texts(grant.unmasked)),
            ("unmasks".to_owned(), RestrictedExpression::new_bool(unmasks)),
        ];
        fields.extend(grant.purpose.map(|purpose| ("purpose".to_owned(), string(purpose))));
        pairs.push(("grant".to_owned(), record(fields)?));
    }
    CedarContext::from_pairs(pairs).map_err(|error| error.to_string())
}

/// An answer, with why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The answer.
    pub outcome: Outcome,
    /// The policies that decided: those that permit, or those that forbid. None where nothing permits it.
    pub reasons: Vec<PolicyReason>,
    /// The policies that could not be evaluated; any denies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<PolicyFailure>,
}

impl Decision {
    /// Whether it is allowed.
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allow
    }

    /// The ids of the policies that decided, as a decision's record keeps them; `no-policy` where nothing permits it.
    pub fn policy_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.reasons.iter().map(|reason| reason.id.clone()).collect();
        ids.extend(self.errors.iter().map(|error| format!("error:{}", error.id)));
        if ids.is_empty() {
            ids.push("no-policy".to_owned());
        }
        ids
    }

    pub(crate) fn of(policies: &Policies, verdict: &Verdict) -> Self {
        let errors = verdict.errors.iter().map(|(at, message)| policies.failure(*at, message)).collect();
        let (outcome, reasons) =
            if verdict.allows() { (Outcome::Allow, &verdict.permits) } else { (Outcome::Deny, &verdict.forbids) };
        Self { outcome, reasons: reasons.iter().map(|at| policies.reason(*at)).collect(), errors }
    }

    /// A denial because the question itself cannot be put.
    pub(crate) fn refused(message: String) -> Self {
        let failure = PolicyFailure { id: "question".to_owned(), file: String::new(), line: 0, message };
        Self { outcome: Outcome::Deny, reasons: Vec::new(), errors: vec![failure] }
    }
}

impl Policies {
    /// Decides whether somebody may do something to something.
    ///
    /// Exactly the policies of the mesh and of the resource's domain are asked. It is allowed where one permits it, none
    /// forbids it, and all could be evaluated. What manifests are judged by is not asked here but in
    /// [`Policies::judge`](Self::judge); rows and columns are [`Policies::read_table`](Self::read_table)'s.
    pub fn decide(
        &self,
        principal: &ResolvedPrincipal,
        action: Action,
        resource: Resource<'_>,
        context: &Context,
    ) -> Decision {
        match self.verdict(principal, action, resource, context) {
            Ok(verdict) => Decision::of(self, &verdict),
            Err(message) => Decision::refused(message),
        }
    }

    fn verdict(
        &self,
        principal: &ResolvedPrincipal,
        action: Action,
        resource: Resource<'_>,
        context: &Context,
    ) -> Result<Verdict, String> {
        let (kind, domain) = kind_of(resource);
        if !crate::entity::resources_of(action).contains(&kind) {
            return Err(format!("`{}` is not asked of a {}", action.as_str(), kind.as_str().to_lowercase()));
        }
        let slices = self.slices(domain.as_deref(), action, kind);
        let mut interest = Interest::default();
        for slice in slices.into_iter().flatten() {
            interest.merge(&slice.access.interest);
        }
        let (subject, entities) = self.subject(principal, resource, &interest)?;
        let mut verdict = Verdict::default();
        let request = Request::new(
            principal.uid.clone(),
            action_uid(action),
            subject,
            cedar_context(context, &cedar_time(context), action, None)?,
            None,
        )
        .map_err(|error| error.to_string())?;
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        for slice in slices.into_iter().flatten() {
            self.ask(&slice.access.set, &request, &entities, &mut verdict);
        }
        Ok(verdict)
    }

    /// The resource's id, and it and what is around it as entities.
    fn subject(
        &self,
        principal: &ResolvedPrincipal,
        resource: Resource<'_>,
        interest: &Interest,
    ) -> Result<(EntityUid, Vec<Entity>), String> {
        let (Resource::Product(contract)
        | Resource::Table(contract, _)
        | Resource::Column(contract, ..)
        | Resource::Port(contract, _)
        | Resource::Request(contract, _)) = resource
        else {
            let Resource::Domain(name) = resource else {
                return Ok((uid(Kind::Mesh, "mesh"), self.around(principal, None, [])?));
            };
            let owner = self.ownership.owner_of(OwnedPath::Domain(name)).map(|owner| owner.team);
            return Ok((uid(Kind::Domain, &name.sql()), self.around(principal, Some(name), owner)?));
        };
        let product = ProductNodes::new(contract, &self.ownership);
        let node: Node<'_> = match resource {
            Resource::Mesh | Resource::Domain(_) | Resource::Product(_) => product.product(),
            Resource::Table(_, table) => product.table(table, table.has_protected_columns()),
            Resource::Column(_, table, path) => {
                let protections = protections(contract, table, &BTreeMap::new());
                product.column_at(table, path, &protections).ok_or_else(|| {
                    format!("table `{}` of {} has no column `{}`", table.name, contract.id, path.join("."))
                })?
            }
            Resource::Port(_, name) => {
                let port = product.ports().find(|port| {
                    port.get("name").or_else(|| port.get("type")).and_then(serde_json::Value::as_str) == Some(name)
                });
                port.and_then(|port| product.port(port))
                    .ok_or_else(|| format!("{} has no port `{name}`", contract.id))?
            }
            Resource::Request(_, request) => product.request(request, &self.directory)?,
        };
        let mut entities = self.around(principal, Some(&contract.id.domain), node.teams())?;
        entities.push(node.entity(interest)?);
        Ok((node.uid(), entities))
    }
}

/// The type of a resource, and its domain's normalised name.
fn kind_of(resource: Resource<'_>) -> (Kind, Option<String>) {
    let (kind, domain) = match resource {
        Resource::Mesh => return (Kind::Mesh, None),
        Resource::Domain(name) => (Kind::Domain, name),
        Resource::Product(contract) => (Kind::Product, &contract.id.domain),
        Resource::Table(contract, _) => (Kind::Table, &contract.id.domain),
        Resource::Column(contract, ..) => (Kind::Column, &contract.id.domain),
        Resource::Port(contract, _) => (Kind::Port, &contract.id.domain),
        Resource::Request(contract, _) => (Kind::Request, &contract.id.domain),
    };
    (kind, Some(domain.sql()))
}
