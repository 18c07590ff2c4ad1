//! Tests of policies: cases are asked, and the answers compared with what was expected.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use datamesh_core::access::{Grant, PrincipalKind, TableAccess, offers};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::policy_test::{Expectation, PolicyTest, PolicyTestResult};
use datamesh_core::protection::Protection;

use crate::decide::{Change, ChangeKind, Context};
use crate::grants::Grants;
use crate::judge::Finding;
use crate::policies::Policies;
use crate::principal::ResolvedPrincipal;
use crate::resource::{RequestFacts, Resource};
use crate::resource_path::ResourcePath;

/// What cases are asked of.
pub struct TestMesh<'a> {
    /// The products, every major version.
    pub contracts: &'a [DataProduct],
    /// The protected columns of a table, inherited ones too.
    pub protections: &'a dyn Fn(&DataProduct, &Table) -> Vec<Protection>,
    /// The time of cases that give none.
    pub now: DateTime<Utc>,
}

/// What was answered, as far as an expectation can look at it.
#[derive(Default)]
struct Answer {
    denied: bool,
    policies: BTreeSet<String>,
    masked: BTreeMap<String, String>,
    hidden: BTreeSet<String>,
    rows: BTreeSet<String>,
    findings: BTreeSet<String>,
    explanation: Vec<String>,
}

impl Policies {
    /// Runs cases, in their order.
    pub fn test(&self, cases: &[PolicyTest], mesh: &TestMesh<'_>) -> Vec<PolicyTestResult> {
        cases.iter().map(|case| self.test_one(case, mesh)).collect()
    }

    fn test_one(&self, case: &PolicyTest, mesh: &TestMesh<'_>) -> PolicyTestResult {
        let name = case.name.clone();
        match self.answer(case, mesh) {
            Ok(answer) => {
                let failures = answer.compare(&case.expect);
                PolicyTestResult { name, failures, explanation: answer.explanation }
            }
            Err(why) => PolicyTestResult { name, failures: vec![why], explanation: Vec::new() },
        }
    }

    fn answer(&self, case: &PolicyTest, mesh: &TestMesh<'_>) -> Result<Answer, String> {
        let given = &case.context;
        let principal = self.principal_of(&case.principal, given.owns_mesh)?.with_attributes(&given.attributes)?;
        let path = ResourcePath::parse(&case.resource)?;
        let resource = path.find(mesh.contracts)?;
        let change = match case.action {
            Action::Publish => Some(Change::publish()),
            Action::Apply => Some(change(case)),
            _ => None,
        };
        let context = Context {
            time: given.time.unwrap_or(mesh.now),
            door: given.door.clone().unwrap_or_else(|| "query".to_owned()),
            purpose: given.purpose.clone(),
            change: change.clone(),
        };
        match (case.action, resource) {
            (Action::Read, Resource::Table(contract, table)) => {
                self.answer_read(case, &principal, contract, table, mesh, &context)
            }
            (Action::Read | Action::ReadUnmasked, Resource::Column(contract, table, column)) => {
                let whole = self.answer_read(case, &principal, contract, table, mesh, &context)?;
                Ok(whole.of_column(case.action, column))
            }
            (Action::Approve, Resource::Product(contract)) if given.requester.is_some() => {
                let role = given.grants.first().map(|grant| grant.role.clone()).unwrap_or_default();
                let offer = offers(contract)?.into_iter().find(|offer| offer.role == role);
                let requester = given.requester.clone().unwrap_or_default();
                let request = RequestFacts {
                    number: 0,
                    principal: match given.grants.first().and_then(|grant| grant.team.as_ref()) {
                        Some(team) => format!("team:{team}"),
                        None => requester.clone(),
                    },
                    requester,
                    role,
                    purpose: given.purpose.clone(),
                    approvers: offer.as_ref().map(|offer| offer.approvers.clone()).unwrap_or_default(),
                    unmasked: offer.map(|offer| offer.unmasked).unwrap_or_default(),
                };
                Ok(self.answer_plain(case, &principal, Resource::Request(contract, &request), &context, &[]))
            }
            (Action::Publish | Action::Apply, Resource::Product(contract)) => {
                let change = change.unwrap_or_else(Change::publish);
                let findings = self.judge(&principal, contract, &change, &context);
                Ok(self.answer_plain(case, &principal, resource, &context, &findings))
            }
            _ => Ok(self.answer_plain(case, &principal, resource, &context, &[])),
        }
    }

    fn answer_plain(
        &self,
        case: &PolicyTest,
        principal: &ResolvedPrincipal,
        resource: Resource<'_>,
        context: &Context,
        findings: &[Finding],
    ) -> Answer {
        let decision = self.decide(principal, case.action, resource, context);
        let mut explanation = decision.explain(principal, case.action, &case.resource);
        let mut policies: BTreeSet<String> = decision.policy_ids().into_iter().filter(|id| id != "no-policy").collect();
        let stopping: Vec<&Finding> = findings.iter().filter(|finding| finding.stops()).collect();
        if decision.is_allowed() && !stopping.is_empty() {
            policies = stopping.iter().map(|finding| finding.policy.clone()).collect();
        }
        explanation.extend(findings.iter().flat_map(Finding::explain));
        Answer {
            denied: !decision.is_allowed() || !stopping.is_empty(),
            policies,
            findings: findings
                .iter()
                .filter(|finding| finding.waived_by.is_none())
                .map(|finding| format!("{} {}", finding.policy, finding.resource))
                .collect(),
            explanation,
            ..Answer::default()
        }
    }

    fn answer_read(
        &self,
        case: &PolicyTest,
        principal: &ResolvedPrincipal,
        contract: &DataProduct,
        table: &Table,
        mesh: &TestMesh<'_>,
        context: &Context,
    ) -> Result<Answer, String> {
        let grants = case.context.grants.iter().enumerate().map(|(at, grant)| Grant {
            number: at as u64 + 1,
            request: 0,
            principal: match &grant.team {
                Some(team) => format!("{}:{team}", PrincipalKind::Team.as_str()),
                None => principal.id.clone(),
            },
            product: contract.key(),
            tables: grant.tables.iter().map(|name| name.to_ascii_lowercase().replace('-', "_")).collect(),
            role: grant.role.clone(),
            purpose: grant.purpose.clone(),
            granted_at: context.time,
            approved_by: Vec::new(),
            expires_at: grant.expires,
            revoked: None,
        });
        let protections = (mesh.protections)(contract, table);
        let decision = self.read_table(principal, contract, table, &protections, &Grants::new(grants), context);
        let mut answer = Answer {
            denied: decision.outcome() == Outcome::Deny,
            policies: decision.policy_ids().into_iter().filter(|id| id != "no-policy").collect(),
            explanation: decision.explain(principal, &case.resource),
            ..Answer::default()
        };
        answer.see(&decision.access, table);
        Ok(answer)
    }
}

fn change(case: &PolicyTest) -> Change {
    let (needs, gives) = (case.context.needs, case.context.gives);
    Change { kind: ChangeKind::Update, needs, gives, enough: needs.is_none_or(|needs| gives >= Some(needs)) }
}

impl Answer {
    fn see(&mut self, access: &TableAccess, table: &Table) {
        if access.ways.is_empty() {
            return;
        }
        self.hidden =
            table.columns.iter().map(|column| &column.name).filter(|name| access.is_hidden(name)).cloned().collect();
        for (path, mask) in &access.masks {
            // Masked is what no way shows in clear; a way that hides the column does not show it.
            let clear = access
                .ways
                .iter()
                .any(|way| !way.masked.contains(path) && path.first().is_none_or(|name| !way.hidden.contains(name)));
            if !clear {
                self.masked.insert(path.join("."), mask.to_string());
            }
        }
        if !access.shows_all_rows() {
            self.rows =
                access.ways.iter().filter_map(|way| way.rows.as_ref()).map(|rows| rows.condition.clone()).collect();
        }
    }

    /// The answer for one column of the table.
    fn of_column(mut self, action: Action, path: &[String]) -> Self {
        let hidden = path.first().is_some_and(|name| self.hidden.contains(name));
        let masked = (1..=path.len()).any(|length| self.masked.contains_key(&path[..length].join(".")));
        self.denied |= hidden || (action == Action::ReadUnmasked && masked);
        self
    }

    fn compare(&self, expect: &Expectation) -> Vec<String> {
        let mut failures = Vec::new();
        let outcome = if self.denied { Outcome::Deny } else { Outcome::Allow };
        if expect.outcome != outcome {
            failures.push(format!("expected {}, got {}", expect.outcome.as_str(), outcome.as_str()));
        }
        let shown = |names: &BTreeSet<String>| match names.len() {
            0 => "none".to_owned(),
            _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        for (what, expected, found) in [
            ("policies", &expect.policies, &self.policies),
            ("hidden columns", &expect.hidden, &self.hidden),
            ("row filters", &expect.rows, &self.rows),
            ("findings", &expect.findings, &self.findings),
        ] {
            if let Some(expected) = expected.as_ref().filter(|expected| *expected != found) {
                failures.push(format!("{what}: expected {}, got {}", shown(expected), shown(found)));
            }
        }
        if let Some(expected) = expect.masked.as_ref().filter(|expected| **expected != self.masked) {
            let shown = |masks: &BTreeMap<String, String>| {
                shown(&masks.iter().map(|(name, mask)| format!("{name}: {mask}")).collect())
            };
            failures.push(format!("masked columns: expected {}, got {}", shown(expected), shown(&self.masked)));
        }
        failures
    }
}
