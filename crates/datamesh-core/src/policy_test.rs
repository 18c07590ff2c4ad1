//! Tests of policies: what somebody asks, and what they should be told.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::access::AttributeValue;
use crate::decision::{Action, Outcome};
use crate::evolution::Bump;

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTest {
    /// What the case shows.
    pub name: String,
    /// Who asks: `alice`, `service:etl`, `team:fleet-team`, `role:analyst`.
    pub principal: String,
    /// To do what.
    pub action: Action,
    /// To what: `mesh`, `domain`, `domain/product`, `domain/product.table`, `domain/product.table.column`,
    /// `domain/product#port`; `product@2` where another major is meant than the newest.
    pub resource: String,
    /// What else is known.
    #[serde(default)]
    pub context: PolicyTestContext,
    /// The answer.
    pub expect: Expectation,
}

/// What else is known of a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyTestContext {
    /// What it is for.
    pub purpose: Option<String>,
    /// When; now where absent.
    pub time: Option<DateTime<Utc>>,
    /// Through which door; `query` where absent.
    pub door: Option<String>,
    /// Whether the principal owns the embedded mesh.
    pub owns_mesh: bool,
    /// Attributes that the principal has in this case, beside its own.
    pub attributes: BTreeMap<String, AttributeValue>,
    /// Grants that the principal has in this case, for the product that is asked about. They are the only ones.
    pub grants: Vec<PolicyTestGrant>,
    /// The step of the version that the change needs, for `apply`; its change is an update then.
    pub needs: Option<Bump>,
    /// The step of the version that it takes.
    pub gives: Option<Bump>,
    /// Who asked, for `approve`.
    pub requester: Option<String>,
}

/// A grant of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTestGrant {
    /// The role.
    pub role: String,
    /// The tables; empty: all that the role is offered.
    #[serde(default)]
    pub tables: BTreeSet<String>,
    /// What for.
    #[serde(default)]
    pub purpose: Option<String>,
    /// From when on it no longer counts.
    #[serde(default)]
    pub expires: Option<DateTime<Utc>>,
    /// The team it was granted to, where it is not the principal's own.
    #[serde(default)]
    pub team: Option<String>,
}

/// What a case expects. What is absent is not looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// The answer.
    pub outcome: Outcome,
    /// The ids of the policies that decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<BTreeSet<String>>,
    /// Columns that are masked in every way that shows them, `column.field`, and their masks; of a table that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<BTreeMap<String, String>>,
    /// Columns that are not seen at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<BTreeSet<String>>,
    /// The conditions of the row filters, one a way; empty: every row is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<BTreeSet<String>>,
    /// Findings, `policy resource`, for `publish` and `apply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<BTreeSet<String>>,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTestResult {
    /// The case's name.
    pub name: String,
    /// Where it was not as expected: what was expected and what it is. Empty: it passed.
    pub failures: Vec<String>,
    /// Why it was decided so, in words.
    pub explanation: Vec<String>,
}

impl PolicyTestResult {
    /// Whether all is as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}
