//! What somebody sees of a table: the ways in, and what each shows.

mod reading;

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::access::{AccessOffer, AccessWay, Grant, PrincipalKind, TableAccess, offers};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::Outcome;
use datamesh_core::mask::Mask;
use datamesh_core::protection::Protection;
use serde::Serialize;

use self::reading::Reading;
use crate::decide::Context;
use crate::grants::Grants;
use crate::policies::{Policies, Verdict};
use crate::principal::ResolvedPrincipal;
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
