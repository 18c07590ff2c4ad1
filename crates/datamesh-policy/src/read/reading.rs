//! The questions about one table, for each way in.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{Context as CedarContext, Entities, Entity, EntityUid, Request, RestrictedExpression};
use datamesh_core::access::{AccessWay, RowFilter};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::Action;
use datamesh_core::mask::Mask;
use datamesh_core::ownership::OwnedPath;
use datamesh_core::protection::Protection;

use super::{Candidate, WayReport, names};
use crate::decide::{Context, GrantContext, cedar_context, cedar_time};
use crate::entity::{Facts, Interest, Kind, Node, action_uid};
use crate::policies::{Policies, Verdict};
use crate::principal::ResolvedPrincipal;
use crate::resource::ProductNodes;
use crate::row_filter::principal_attributes;

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

/// The questions about one table.
pub(super) struct Reading<'a> {
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
    pub(super) fn new(
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
    pub(super) fn way(
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
        // Who owns a table sees what it was before, columns that it no longer has included.
        let of_table = OwnedPath::Table(self.contract, self.table.name.as_str());
        let owns = self.principal.owns_mesh()
            || self.principal.domains.contains(&self.domain)
            || self.policies.ownership.owner_of(of_table).is_some_and(|own| self.principal.teams.contains(own.team));
        let removed = owns && candidate.offer.is_none();
        let mut way =
            AccessWay { grant: candidate.grant.map(|grant| grant.number), rows, removed, ..AccessWay::default() };
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
