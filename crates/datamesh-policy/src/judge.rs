//! Manifests judged by policies: what a product, its tables, columns and ports are like, and whether that is so agreed.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::num::NonZeroUsize;
use std::rc::Rc;

use cedar_policy::{Context as CedarContext, Entities, Request};
use chrono::{DateTime, Utc};
use datamesh_core::access::Waiver;
use datamesh_core::contract::{Column, DataProduct, Table};
use datamesh_core::decision::Action;
use datamesh_core::protection::{Protection, protections};
use serde::{Deserialize, Serialize};

use crate::compile::Asked;
use crate::decide::{Change, ChangeKind, Context, cedar_context, cedar_time};
use crate::entity::{Facts, Kind, Node, action_uid};
use crate::policies::{Policies, Verdict};
use crate::principal::ResolvedPrincipal;
use crate::resource::{ProductNodes, fields};
use crate::rule::Severity;

/// What a policy finds wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The policy's id.
    pub policy: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: `domain/product`, `domain/product.table`, `domain/product.table.column`, `domain/product#port`.
    pub resource: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The policy's file.
    pub file: String,
    /// The policy's line.
    pub line: usize,
    /// The team that answers for the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The waiver that lets it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived_by: Option<Waiver>,
    /// A waiver that no longer does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Waiver>,
}

impl Finding {
    /// Whether it stops what is done.
    pub fn stops(&self) -> bool {
        self.severity == Severity::Deny && self.waived_by.is_none()
    }
}

/// The parts of a resource's name as they are compared: domain, product and table as SQL spells them.
fn parts(resource: &str) -> Vec<String> {
    let sql = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let Some((domain, rest)) = resource.split_once('/') else { return vec![sql(resource)] };
    let mut found = vec![sql(domain)];
    if let Some((product, port)) = rest.split_once('#') {
        found.extend([sql(product), format!("#{port}")]);
        return found;
    }
    for (at, part) in rest.split('.').enumerate() {
        found.push(if at < 2 { sql(part) } else { part.to_owned() });
    }
    found
}

/// The waiver of a policy for a resource: one that counts, else the one that expired last. What a domain waives is its own
/// policies; those of the mesh, of which `domain` is `None`, only the mesh does.
fn waiver<'w>(
    waivers: &'w [Waiver],
    policy: &str,
    domain: Option<&str>,
    resource: &str,
    now: DateTime<Utc>,
) -> Option<&'w Waiver> {
    let counts =
        |waiver: &&Waiver| waiver.policy == policy && (waiver.domain.is_none() || waiver.domain.as_deref() == domain);
    if !waivers.iter().any(|waiver| counts(&waiver)) {
        return None;
    }
    let resource = parts(resource);
    let about = waivers.iter().filter(|waiver| counts(waiver) && resource.starts_with(&parts(&waiver.resource)));
    about.max_by_key(|waiver| (waiver.expires > now, waiver.expires))
}

/// What is asked of resources that are alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Question<'q> {
    /// The domain whose policies are asked; `None`: the mesh's.
    layer: Option<&'q str>,
    action: Action,
    /// The place of the change among those that were judged.
    change: usize,
    kind: Kind,
}

/// What was found of resources that are alike in what policies look at.
struct Known {
    layer: Option<String>,
    action: Action,
    change: usize,
    kind: Kind,
    facts: Facts<'static>,
    verdict: Rc<Verdict>,
}

impl Known {
    fn is_of(&self, question: &Question<'_>) -> bool {
        let own = Question { layer: self.layer.as_deref(), action: self.action, change: self.change, kind: self.kind };
        own == *question
    }
}

/// Judges many products. Resources of which policies know the same are judged once.
pub struct Judge<'p> {
    policies: &'p Policies,
    principal: &'p ResolvedPrincipal,
    context: &'p Context,
    changes: Vec<(Change, CedarContext)>,
    known: HashMap<u64, Vec<Known>>,
    hasher: RandomState,
}

impl Policies {
    /// A judge of products, for a principal who publishes or applies them.
    pub fn judging<'p>(&'p self, principal: &'p ResolvedPrincipal, context: &'p Context) -> Judge<'p> {
        Judge {
            policies: self,
            principal,
            context,
            changes: Vec::new(),
            known: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Judges a product with its tables, columns and ports, by all that `forbid` what is done to it. With
    /// [`ChangeKind::Publish`] these are the policies of `publish`, else those of `apply`.
    ///
    /// Policies without a severity are matters of access: they stop, and nothing waives them.
    pub fn judge(
        &self,
        principal: &ResolvedPrincipal,
        contract: &DataProduct,
        change: &Change,
        context: &Context,
    ) -> Vec<Finding> {
        self.judging(principal, context).judge(contract, change)
    }

    /// Judges many products on several threads. The findings are in the products' order.
    pub fn judge_all(
        &self,
        principal: &ResolvedPrincipal,
        products: &[(&DataProduct, Change)],
        context: &Context,
        threads: NonZeroUsize,
    ) -> Vec<Vec<Finding>> {
        let share = products.len().div_ceil(threads.get()).max(1);
        let judge = |products: &[(&DataProduct, Change)]| -> Vec<Vec<Finding>> {
            let mut judge = self.judging(principal, context);
            products.iter().map(|(contract, change)| judge.judge(contract, change)).collect()
        };
        if products.len() <= share {
            return judge(products);
        }
        std::thread::scope(|scope| {
            let parts: Vec<_> = products.chunks(share).map(|part| (part, scope.spawn(move || judge(part)))).collect();
            // A part whose thread failed is judged again here, so that nothing is left unjudged.
            parts.into_iter().flat_map(|(part, thread)| thread.join().unwrap_or_else(|_| judge(part))).collect()
        })
    }
}

impl Judge<'_> {
    /// What is wrong with a product, and with what lies in it, in the contract's order.
    pub fn judge(&mut self, contract: &DataProduct, change: &Change) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(message) = self.walk(contract, change, &mut findings) {
            findings.push(Finding {
                policy: "question".to_owned(),
                severity: Severity::Deny,
                resource: contract.id.to_string(),
                message: format!("it cannot be judged: {message}"),
                help: None,
                file: String::new(),
                line: 0,
                owner: None,
                waived_by: None,
                expired: None,
            });
        }
        findings
    }

    fn walk(&mut self, contract: &DataProduct, change: &Change, findings: &mut Vec<Finding>) -> Result<(), String> {
        let action = if change.kind == ChangeKind::Publish { Action::Publish } else { Action::Apply };
        let at = self.change(change, action)?;
        let policies = self.policies;
        let product = ProductNodes::new(contract, &policies.ownership);
        let id = &contract.id;
        self.one(contract, action, at, &product.product(), || id.to_string(), findings)?;
        let none = std::collections::BTreeMap::new();
        for table in &contract.tables {
            let protections = protections(contract, table, &none);
            let node = product.table(table, !protections.is_empty());
            let name = format!("{id}.{}", table.name);
            self.one(contract, action, at, &node, || name.clone(), findings)?;
            let mut inner = Columns { contract, product: &product, table, protections: &protections, action, at };
            for column in &table.columns {
                self.column(&mut inner, &mut vec![column], &name, findings)?;
            }
        }
        for node in product.ports().filter_map(|port| product.port(port)) {
            let name = node.id.rsplit_once('#').map_or("", |(_, name)| name).to_owned();
            self.one(contract, action, at, &node, || format!("{id}#{name}"), findings)?;
        }
        Ok(())
    }

    fn column<'c>(
        &mut self,
        within: &mut Columns<'c, '_>,
        chain: &mut Vec<&'c Column>,
        above: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<(), String> {
        let Some(column) = chain.last().copied() else { return Ok(()) };
        let node = within.product.column(within.table, chain, within.protections);
        let name = || format!("{above}.{}", column.name);
        self.one(within.contract, within.action, within.at, &node, name, findings)?;
        let below = fields(&column.data_type);
        if !below.is_empty() {
            let name = name();
            for field in below {
                chain.push(field);
                self.column(within, chain, &name, findings)?;
                chain.pop();
            }
        }
        Ok(())
    }

    fn change(&mut self, change: &Change, action: Action) -> Result<usize, String> {
        if let Some(at) = self.changes.iter().position(|(known, _)| known == change) {
            return Ok(at);
        }
        let context = Context { change: Some(change.clone()), ..self.context.clone() };
        self.changes.push((change.clone(), cedar_context(&context, &cedar_time(&context), action, None)?));
        Ok(self.changes.len() - 1)
    }

    fn one(
        &mut self,
        contract: &DataProduct,
        action: Action,
        at: usize,
        node: &Node<'_>,
        name: impl Fn() -> String,
        findings: &mut Vec<Finding>,
    ) -> Result<(), String> {
        let policies = self.policies;
        let domain = contract.id.domain.sql();
        let slices = policies.slices(Some(&domain), action, node.kind);
        // The mesh's policies answer alike in all domains, unless they look at it.
        for (layer, slice) in [None, Some(domain.as_str())].into_iter().zip(slices) {
            let Some(asked) = slice.map(|slice| &slice.governance).filter(|asked| !asked.set.is_empty()) else {
                continue;
            };
            let question = Question { layer, action, change: at, kind: node.kind };
            let hash = {
                let mut hasher = self.hasher.build_hasher();
                question.hash(&mut hasher);
                node.seen(&asked.interest).for_each(|fact| fact.hash(&mut hasher));
                hasher.finish()
            };
            let known = self.known.get(&hash).into_iter().flatten();
            let found = known
                .filter(|known| known.is_of(&question) && known.facts.iter().eq(node.seen(&asked.interest)))
                .map(|known| Rc::clone(&known.verdict))
                .next();
            let verdict = match found.filter(|_| !asked.interest.names_one) {
                Some(verdict) => verdict,
                None => {
                    let verdict = Rc::new(self.ask(contract, action, at, node, asked)?);
                    if !asked.interest.names_one {
                        let facts = node.seen(&asked.interest);
                        let facts = facts.map(|(name, fact)| (*name, fact.clone().into_owned())).collect();
                        let layer = layer.map(str::to_owned);
                        let known =
                            Known { layer, action, change: at, kind: node.kind, facts, verdict: Rc::clone(&verdict) };
                        self.known.entry(hash).or_default().push(known);
                    }
                    verdict
                }
            };
            self.note(&verdict, &name, findings);
        }
        Ok(())
    }

    fn ask(
        &self,
        contract: &DataProduct,
        action: Action,
        at: usize,
        node: &Node<'_>,
        asked: &Asked,
    ) -> Result<Verdict, String> {
        let mut entities = self.policies.around(self.principal, Some(&contract.id.domain), node.teams())?;
        entities.push(node.entity(&asked.interest)?);
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let context = self.changes[at].1.clone();
        let request = Request::new(self.principal.uid.clone(), action_uid(action), node.uid(), context, None)
            .map_err(|error| error.to_string())?;
        let mut verdict = Verdict::default();
        self.policies.ask(&asked.set, &request, &entities, &mut verdict);
        Ok(verdict)
    }

    fn note(&self, verdict: &Verdict, name: &impl Fn() -> String, findings: &mut Vec<Finding>) {
        let mut push = |at: usize, severity: Severity, message: String, waivable: bool| {
            let rule = &self.policies.rules[at];
            let resource = name();
            let now = self.context.time;
            let waiver =
                waiver(&self.policies.waivers, &rule.id, rule.domain.as_deref(), &resource, now).filter(|_| waivable);
            let counts = waiver.is_some_and(|waiver| waiver.expires > now);
            findings.push(Finding {
                policy: rule.id.clone(),
                severity,
                message,
                help: rule.help.clone(),
                file: rule.location.file.clone(),
                line: rule.location.line,
                owner: self.policies.owner_of(rule).map(|owner| owner.team.to_owned()),
                waived_by: waiver.filter(|_| counts).cloned(),
                expired: waiver.filter(|_| !counts).cloned(),
                resource,
            });
        };
        for at in &verdict.forbids {
            let rule = &self.policies.rules[*at];
            let message = rule.message.clone().unwrap_or_else(|| format!("`{}` forbids it", rule.id));
            push(*at, rule.severity.unwrap_or(Severity::Deny), message, rule.judges());
        }
        for (at, message) in &verdict.errors {
            push(*at, Severity::Deny, format!("the policy cannot be evaluated: {message}"), false);
        }
    }
}

/// The columns of a table that is judged.
struct Columns<'c, 'n> {
    contract: &'c DataProduct,
    product: &'n ProductNodes<'c>,
    table: &'c Table,
    protections: &'n [Protection],
    action: Action,
    at: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiver_is_for_a_subtree() {
        let now: DateTime<Utc> = "2026-05-04T10:00:00Z".parse().expect("a time");
        let waiver_of = |resource: &str, expires: &str| Waiver {
            domain: None,
            policy: "p".into(),
            resource: resource.into(),
            owner: "team".into(),
            reason: "migration".into(),
            expires: expires.parse().expect("a time"),
        };
        let check = |about: &str, resource: &str, expected: bool| {
            let waivers = [waiver_of(about, "2027-01-01T00:00:00Z")];
            assert_eq!(waiver(&waivers, "p", None, resource, now).is_some(), expected, "{about} {resource}");
            assert!(waiver(&waivers, "q", None, resource, now).is_none());
        };
        check("air-traffic", "air_traffic/flights.legs.id", true);
        check("air_traffic/flights", "air-traffic/flights", true);
        check("sales/orders", "sales/orders-2", false);
        check("sales/orders.lines", "sales/orders.lines.price.net", true);
        check("sales/orders.lines.price", "sales/orders.lines.prices", false);
        check("sales/orders.lines", "sales/orders", false);
        check("sales/orders", "sales/orders#files", true);
        let both = [waiver_of("sales", "2026-01-01T00:00:00Z"), waiver_of("sales/orders", "2026-06-01T00:00:00Z")];
        assert_eq!(waiver(&both, "p", None, "sales/orders", now).map(|w| w.resource.as_str()), Some("sales/orders"));
        // A domain waives its own policies, and none of the mesh.
        let own = [Waiver { domain: Some("sales".to_owned()), ..waiver_of("sales", "2027-01-01T00:00:00Z") }];
        assert!(waiver(&own, "p", None, "sales/orders", now).is_none());
        assert!(waiver(&own, "p", Some("sales"), "sales/orders", now).is_some());
        assert_eq!(waiver(&both, "p", None, "sales/other", now).map(|w| w.resource.as_str()), Some("sales"));
    }
}
