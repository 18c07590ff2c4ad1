//! Decisions: who asked to do what, and what was answered. Kept from the first day.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of [`DecisionRecord`]'s serialised form.
pub const DECISION_FORMAT: u32 = 1;

/// What a principal wants to do. The words are those of the policy schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Find that something exists.
    Discover,
    /// See what something is, with its contract and reports.
    Describe,
    /// Read rows.
    Read,
    /// Read protected values in clear.
    ReadUnmasked,
    /// Publish data.
    Publish,
    /// Change what the mesh's products promise: apply a plan.
    Apply,
    /// Announce the end of a product, or retire it.
    Deprecate,
    /// Approve a request for access, deny it, or revoke a grant.
    Approve,
    /// Look after the mesh: reclaim what expired leases left.
    Administer,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 9] = [
        Self::Discover,
        Self::Describe,
        Self::Read,
        Self::ReadUnmasked,
        Self::Publish,
        Self::Apply,
        Self::Deprecate,
        Self::Approve,
        Self::Administer,
    ];

    /// The action's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Describe => "describe",
            Self::Read => "read",
            Self::ReadUnmasked => "readUnmasked",
            Self::Publish => "publish",
            Self::Apply => "apply",
            Self::Deprecate => "deprecate",
            Self::Approve => "approve",
            Self::Administer => "administer",
        }
    }

    /// The action that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Go on.
    Allow,
    /// Stop.
    Deny,
}

impl Outcome {
    /// The outcome's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Who acts: for an embedded mesh the operating system's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// `user:<name>`.
    pub id: String,
}

/// One decision, as the registry keeps it. Records are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// Version of this form, [`DECISION_FORMAT`].
    pub format: u32,
    /// When.
    pub at: DateTime<Utc>,
    /// Who asked.
    pub principal: Principal,
    /// To do what.
    pub action: Action,
    /// To what: `domain/product`, a list of tables.
    pub resource: String,
    /// The answer.
    pub outcome: Outcome,
    /// Why: the policies that decided.
    pub reasons: Vec<String>,
    /// What else was known: door, statement, attempt.
    pub context: Value,
}
