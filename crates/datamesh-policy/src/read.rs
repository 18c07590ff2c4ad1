//! What somebody sees of a table: the ways in, and what each shows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{Context as CedarContext, Entities, Entity, EntityUid, Request, RestrictedExpression};
use datamesh_core::access::{AccessOffer, AccessWay, Grant, PrincipalKind, RowFilter, TableAccess, offers};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::mask::Mask;
use datamesh_core::protection::Protection;
use serde::Serialize;

use crate::decide::{Context, GrantContext, cedar_context, cedar_time};
use crate::entity::{Facts, Interest, Kind, Node, action_uid};
use crate::grants::Grants;
use crate::policies::{Policies, Verdict};
use crate::principal::ResolvedPrincipal;
use crate::resource::ProductNodes;
use crate::row_filter::principal_attributes;
use crate::rule::{PolicyFailure, PolicyReason};

/// What somebody sees of a table, with why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableDecision {
    /// What is seen.
    pub access: TableAccess,
    /// The policies that decided: those that permit the ways, or those that forbid the table.
    pub reasons: Vec<PolicyReason>,
    /// The policies that could not be evaluated; each closes the ways it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<PolicyFailure>,
    /// The ways that were looked at, and what became of each.
    pub ways: Vec<WayReport>,
    /// How to get in, where there is no way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// One way that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WayReport {
    /// The number of its grant; `None`: the way without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<u64>,
    /// The grant's role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Why it is no way in; `None`: it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// The policies that permit the table, or forbid it.
    pub policies: Vec<String>,
    /// Columns that are not seen, and the policies or the offer that say so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hidden: BTreeMap<String, Vec<String>>,
    /// Protected columns that are seen in clear, and the policies that permit it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unmasked: BTreeMap<String, Vec<String>>,
}

impl TableDecision {
    /// Whether anything is seen.
    pub fn outcome(&self) -> Outcome {
        if self.access.ways.is_empty() { Outcome::Deny } else { Outcome::Allow }
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

    fn closed(why: String) -> Self {
        Self {
            access: TableAccess::default(),
            reasons: Vec::new(),
            errors: Vec::new(),
            ways: vec![WayReport { closed: Some(why), ..WayReport::open(None, None) }],
            help: None,
        }
    }
}

impl WayReport {
    fn open(grant: Option<u64>, role: Option<&str>) -> Self {
        Self {
            grant,
            role: role.map(str::to_owned),
            closed: None,
            policies: Vec::new(),
            hidden: BTreeMap::new(),
            unmasked: BTreeMap::new(),
        }
    }
}

/// A way to be looked at.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    grant: Option<&'a Grant>,
    offer: Option<&'a AccessOffer>,
}

/// Columns that are alike in what policies look at: the answer for one is that for all.
struct Group<'a> {
    facts: Facts<'a>,
    uid: EntityUid,
}

/// A path of a table that is asked about: a top-level column, or something protected.
struct Asked {
    path: Vec<String>,
    group: usize,
}

impl Policies {
    /// Decides what somebody sees of a table.
    ///
    /// There is a way without a grant, and one for each grant of the principal, or of a team or role that it is in, that is
    /// effective, covers the table and is for a role that the principal has and the contract offers. A team's grant needs
    /// no role. Of each way are asked: `read` of the table, `read` of each top-level column, which is hidden where that is
    /// denied, and `readUnmasked` of each protected path, which is masked where that is denied.
    ///
    /// A role as a principal sees what the contract offers it, as if it had been granted.
    pub fn read_table(
        &self,
        principal: &ResolvedPrincipal,
        contract: &DataProduct,
        table: &Table,
        protections: &[Protection],
        grants: &Grants,
        context: &Context,
    ) -> TableDecision {
        match self.reading(principal, contract, table, protections, grants, context) {
            Ok(decision) => decision,
            Err(why) => TableDecision::closed(why),
        }
    }

    fn reading(
        &self,
        principal: &ResolvedPrincipal,
        contract: &DataProduct,
        table: &Table,
        protections: &[Protection],
        grants: &Grants,
        context: &Context,
    ) -> Result<TableDecision, String> {
        let offers = offers(contract)?;
        let mut reports = Vec::new();
        let held = grants.of(principal, &contract.key());
        let candidates = candidates(principal, table, &held, &offers, context, &mut reports);
        let mut reading = Reading::new(self, principal, contract, table, protections, context)?;
        let mut ways: Vec<AccessWay> = Vec::new();
        let (mut permits, mut refused) = (BTreeSet::new(), Verdict::default());
        for candidate in candidates {
            let mut report = WayReport::open(
                candidate.grant.map(|grant| grant.number),
                candidate.offer.map(|offer| offer.role.as_str()),
            );
            match reading.way(candidate, &mut report, &mut refused)? {
                Some((way, verdict)) => {
                    permits.extend(verdict.permits);
                    ways.push(way);
                }
                None => debug_assert!(report.closed.is_some()),
            }
            reports.push(report);
        }
        let ways = without_lesser(ways);
        let mut masks = BTreeMap::new();
        for path in ways.iter().flat_map(|way| &way.masked) {
            let mask = protections.iter().find(|protection| protection.path == *path);
            masks.insert(path.clone(), mask.map_or(Mask::Null, |protection| protection.mask.clone()));
        }
        let decided = if ways.is_empty() { &refused.forbids } else { &permits };
        let help = ways.is_empty().then(|| help(principal, contract, table, &offers, &refused, self));
        Ok(TableDecision {
            reasons: decided.iter().map(|at| self.reason(*at)).collect(),
            errors: refused.errors.iter().map(|(at, message)| self.failure(*at, message)).collect(),
            access: TableAccess { masks, ways },
            ways: reports,
            help,
        })
    }
}

fn candidates<'a>(
    principal: &ResolvedPrincipal,
    table: &Table,
    held: &[&'a Grant],
    offers: &'a [AccessOffer],
    context: &Context,
    reports: &mut Vec<WayReport>,
) -> Vec<Candidate<'a>> {
    let mut found = vec![Candidate { grant: None, offer: None }];
    if principal.kind == PrincipalKind::Role {
        let offered = offers.iter().filter(|offer| principal.has_role(&offer.role) && offer.covers(table));
        found.extend(offered.map(|offer| Candidate { grant: None, offer: Some(offer) }));
    }
    for grant in held.iter().copied().filter(|grant| grant.covers(table)) {
        let mut closed = |why: String| {
            reports.push(WayReport { closed: Some(why), ..WayReport::open(Some(grant.number), Some(&grant.role)) });
        };
        if let Some(revoked) = &grant.revoked {
            closed(format!("it was revoked on {} by {}", revoked.at.format("%Y-%m-%d %H:%M"), revoked.by));
            continue;
        }
        if !grant.is_effective(context.time) {
            let until = grant.expires_at.map(|at| at.format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
            closed(format!("it expired on {until}"));
            continue;
        }
        // What was granted to a team is granted to whoever is in it.
        let is_personal = matches!(grant.principal.split_once(':'), None | Some(("user" | "service", _)));
        if is_personal && !principal.has_role(&grant.role) {
            closed(format!("`{}` does not have the role `{}` any more", principal.id, grant.role));
            continue;
        }
        let of_role: Vec<&AccessOffer> = offers.iter().filter(|offer| offer.role == grant.role).collect();
        let covering: Vec<&AccessOffer> = of_role.iter().copied().filter(|offer| offer.covers(table)).collect();
        if covering.is_empty() {
            closed(if of_role.is_empty() {
                format!("the contract does not offer anything to the role `{}` any more", grant.role)
            } else {
                format!("the contract does not offer the table to the role `{}`", grant.role)
            });
            continue;
        }
        let fits = |offer: &&AccessOffer| {
            offer.purposes.is_empty() || grant.purpose.as_ref().is_some_and(|purpose| offer.purposes.contains(purpose))
        };
        let before = found.len();
        found.extend(
            covering.into_iter().filter(fits).map(|offer| Candidate { grant: Some(grant), offer: Some(offer) }),
        );
        if found.len() == before {
            closed(format!(
                "the contract does not offer the role `{}` for {}",
                grant.role,
                grant.purpose.as_ref().map_or_else(|| "no purpose".to_owned(), |purpose| format!("`{purpose}`"))
            ));
        }
    }
    found
}

/// Whether a list of an offer, `column`, `table.column`, `column.field`, names a path of a table, or what it lies in.
fn names(list: &BTreeSet<String>, table: &Table, path: &[String]) -> bool {
    (1..=path.len()).any(|length| {
        let name = path[..length].join(".");
        list.contains(&name)
            || list.contains(&format!("{}.{name}", table.name.as_str()))
            || list.contains(&format!("{}.{name}", table.name.sql()))
    })
}

/// Ways without those that show nothing another one does not show, the first of equal ones left.
fn without_lesser(ways: Vec<AccessWay>) -> Vec<AccessWay> {
    let covers = |wide: &AccessWay, way: &AccessWay| {
        (wide.rows.is_none() || wide.rows == way.rows)
            && wide.hidden.is_subset(&way.hidden)
            && wide
                .masked
                .iter()
                .all(|path| way.masked.contains(path) || path.first().is_some_and(|name| way.hidden.contains(name)))
    };
    let mut kept: Vec<AccessWay> = Vec::new();
    for way in ways {
        if kept.iter().any(|wide| covers(wide, &way)) {
            continue;
        }
        kept.retain(|narrow| !covers(&way, narrow));
        kept.push(way);
    }
    kept
}

fn help(
    principal: &ResolvedPrincipal,
    contract: &DataProduct,
    table: &Table,
    offers: &[AccessOffer],
    refused: &Verdict,
    policies: &Policies,
) -> String {
    if let Some(help) = refused.forbids.iter().find_map(|at| policies.rules[*at].help.clone()) {
        return help;
    }
    if !refused.errors.is_empty() {
        return "a policy cannot be evaluated: its owner has to mend it".to_owned();
    }
    let roles: BTreeSet<&str> =
        offers.iter().filter(|offer| offer.covers(table)).map(|offer| offer.role.as_str()).collect();
    if roles.is_empty() {
        return format!("the contract offers the table to no role: ask `{}`, who owns it", contract.owner);
    }
    let own = roles.iter().find(|role| principal.has_role(role)).or_else(|| roles.iter().next());
    format!(
        "ask for it: `datamesh access request {}.{} --role {}`; offered to: {}",
        contract.id,
        table.name,
        own.copied().unwrap_or_default(),
        roles.iter().copied().collect::<Vec<_>>().join(", ")
    )
}

/// The questions about one table.
struct Reading<'a> {
    policies: &'a Policies,
    principal: &'a ResolvedPrincipal,
    contract: &'a DataProduct,
    table: &'a Table,
    context: &'a Context,
    time: RestrictedExpression,
    domain: String,
    table_uid: EntityUid,
    groups: Vec<Group<'a>>,
    columns: Vec<Asked>,
    protected: Vec<Asked>,
    entities: Entities,
}

impl<'a> Reading<'a> {
    fn new(
        policies: &'a Policies,
        principal: &'a ResolvedPrincipal,
        contract: &'a DataProduct,
        table: &'a Table,
        protections: &[Protection],
        context: &'a Context,
    ) -> Result<Self, String> {
        let product = ProductNodes::new(contract, &policies.ownership);
        let domain = product.domain.clone();
        let table_node = product.table(table, !protections.is_empty());
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut teams: BTreeSet<String> = table_node.teams().into_iter().map(str::to_owned).collect();
        let interest_in = |kind: Kind| {
            let mut interest = Interest::default();
            for slice in [Action::Read, Action::ReadUnmasked].map(|action| policies.slices(Some(&domain), action, kind))
            {
                slice.into_iter().flatten().for_each(|slice| interest.merge(&slice.access.interest));
            }
            interest
        };
        let interest = interest_in(Kind::Column);
        let mut nodes: Vec<Entity> = Vec::new();
        let mut asked = |node: Node<'a>, path: Vec<String>| -> Result<Asked, String> {
            let alike = |group: &Group<'a>| group.facts.iter().eq(node.seen(&interest));
            let known = groups.iter().position(alike).filter(|_| !interest.names_one);
            let group = match known {
                Some(at) => at,
                None => {
                    teams.extend(node.teams().into_iter().map(str::to_owned));
                    nodes.push(node.entity(&interest)?);
                    groups.push(Group { facts: node.seen(&interest).cloned().collect(), uid: node.uid() });
                    groups.len() - 1
                }
            };
            Ok(Asked { path, group })
        };
        let mut columns = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            let node = product.column(table, &[column], protections);
            columns.push(asked(node, vec![column.name.clone()])?);
        }
        let mut protected = Vec::new();
        for protection in protections.iter().filter(|protection| protection.mask != Mask::None) {
            let node = product.column_at(table, &protection.path, protections).ok_or_else(|| {
                format!("table `{}` of {} has no column `{}`", table.name, contract.id, protection.path.join("."))
            })?;
            protected.push(asked(node, protection.path.clone())?);
        }
        let table_uid = table_node.uid();
        let mut entities = policies.around(principal, Some(&contract.id.domain), teams.iter().map(String::as_str))?;
        entities.push(table_node.entity(&interest_in(Kind::Table))?);
        // What is protected and at the top is asked about twice, by the same id.
        let mut known = HashSet::new();
        entities.extend(nodes.into_iter().filter(|entity| known.insert(entity.uid())));
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        Ok(Self {
            policies,
            principal,
            contract,
            table,
            context,
            time: cedar_time(context),
            domain,
            table_uid,
            groups,
            columns,
            protected,
            entities,
        })
    }

    fn ask(&self, action: Action, kind: Kind, resource: &EntityUid, context: &CedarContext) -> Result<Verdict, String> {
        let request =
            Request::new(self.principal.uid.clone(), action_uid(action), resource.clone(), context.clone(), None)
                .map_err(|error| error.to_string())?;
        let mut verdict = Verdict::default();
        for slice in self.policies.slices(Some(&self.domain), action, kind).into_iter().flatten() {
            self.policies.ask(&slice.access.set, &request, &self.entities, &mut verdict);
        }
        Ok(verdict)
    }

    /// What one way shows. What it is refused for is noted.
    fn way(
        &mut self,
        candidate: Candidate<'_>,
        report: &mut WayReport,
        refused: &mut Verdict,
    ) -> Result<Option<(AccessWay, Verdict)>, String> {
        let none = BTreeSet::new();
        let grant = candidate.offer.map(|offer| GrantContext {
            number: candidate.grant.map_or(0, |grant| grant.number),
            role: &offer.role,
            purpose: candidate.grant.and_then(|grant| grant.purpose.as_deref()),
            tables: candidate.grant.map_or(&none, |grant| &grant.tables),
            unmasked: &offer.unmasked,
        });
        let rows = match candidate.offer.and_then(|offer| offer.rows.as_deref()) {
            None => None,
            Some(condition) => match self.filter(condition) {
                Ok(filter) => Some(filter),
                Err(why) => {
                    report.closed = Some(why);
                    return Ok(None);
                }
            },
        };
        // Only what unmasks has contexts of its own.
        let plain = cedar_context(self.context, &self.time, Action::Read, grant.map(|grant| (grant, false)))?;
        let unmasking = match grant {
            Some(grant) if !grant.unmasked.is_empty() => {
                cedar_context(self.context, &self.time, Action::Read, Some((grant, true)))?
            }
            _ => plain.clone(),
        };
        let verdict = self.ask(Action::Read, Kind::Table, &self.table_uid, &plain)?;
        report.policies = self.ids(&verdict, verdict.allows());
        if !verdict.allows() {
            report.closed = Some(self.why(&verdict));
            refused.merge(&Verdict { permits: BTreeSet::new(), ..verdict });
            return Ok(None);
        }
        let mut way = AccessWay { grant: candidate.grant.map(|grant| grant.number), rows, ..AccessWay::default() };
        let mut memo: HashMap<(Action, usize, bool), Verdict> = HashMap::new();
        let unmasks = |path: &[String]| candidate.offer.is_some_and(|offer| names(&offer.unmasked, self.table, path));
        let mut answer = |action: Action, asked: &Asked| -> Result<Verdict, String> {
            let unmasks = unmasks(&asked.path);
            let context = if unmasks { &unmasking } else { &plain };
            if let Some(known) = memo.get(&(action, asked.group, unmasks)) {
                return Ok(known.clone());
            }
            let verdict = self.ask(action, Kind::Column, &self.groups[asked.group].uid, context)?;
            memo.insert((action, asked.group, unmasks), verdict.clone());
            Ok(verdict)
        };
        for column in &self.columns {
            let Some(name) = column.path.first() else { continue };
            if let Some(shown) = candidate.offer.and_then(|offer| offer.columns.as_ref())
                && !names(shown, self.table, &column.path)
            {
                report.hidden.insert(name.clone(), vec!["offer".to_owned()]);
                way.hidden.insert(name.clone());
                continue;
            }
            let verdict = answer(Action::Read, column)?;
            if !verdict.allows() {
                report.hidden.insert(name.clone(), self.ids(&verdict, false));
                refused.errors.extend(verdict.errors.iter().map(|(at, message)| (*at, message.clone())));
                way.hidden.insert(name.clone());
            }
        }
        if way.hidden.len() == self.columns.len() {
            report.closed = Some("no column of the table may be seen".to_owned());
            return Ok(None);
        }
        for protected in &self.protected {
            if protected.path.first().is_some_and(|name| way.hidden.contains(name)) {
                continue;
            }
            let verdict = answer(Action::ReadUnmasked, protected)?;
            if verdict.allows() {
                report.unmasked.insert(protected.path.join("."), self.ids(&verdict, true));
            } else {
                refused.errors.extend(verdict.errors.iter().map(|(at, message)| (*at, message.clone())));
                way.masked.insert(protected.path.clone());
            }
        }
        Ok(Some((way, verdict)))
    }

    fn filter(&self, condition: &str) -> Result<RowFilter, String> {
        let mut attributes = BTreeMap::new();
        for name in principal_attributes(condition) {
            let value = self.principal.attributes.get(&name).ok_or_else(|| {
                format!("its rows depend on `principal.{name}`, which `{}` does not have", self.principal.id)
            })?;
            attributes.insert(name, value.clone());
        }
        Ok(RowFilter { condition: condition.to_owned(), attributes })
    }

    fn ids(&self, verdict: &Verdict, allowed: bool) -> Vec<String> {
        let decided = if allowed { &verdict.permits } else { &verdict.forbids };
        let errors = verdict.errors.keys();
        decided.iter().chain(errors).map(|at| self.policies.rules[*at].id.clone()).collect()
    }

    fn why(&self, verdict: &Verdict) -> String {
        if let Some((at, message)) = verdict.errors.first_key_value() {
            return format!("the policy `{}` cannot be evaluated: {message}", self.policies.rules[*at].id);
        }
        match verdict.forbids.first() {
            Some(at) => {
                let rule = &self.policies.rules[*at];
                format!("`{}` forbids it: {}", rule.id, rule.message.as_deref().unwrap_or("it gives no reason"))
            }
            None => format!("no policy permits `{}` to read {}", self.principal.id, self.contract.id),
        }
    }
}
