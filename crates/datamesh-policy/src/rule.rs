//! One policy: what its annotations say, and where it stands.

use cedar_policy::{Effect, Policy};
use serde::{Deserialize, Serialize};

use datamesh_core::diagnostic::Location;

/// The annotations that a policy can have.
pub(crate) const ANNOTATIONS: [&str; 5] = ["id", "severity", "message", "help", "owner"];

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth doing.
    Advise,
    /// It looks wrong, and nothing is stopped.
    Warn,
    /// It stops what is done.
    Deny,
}

impl Severity {
    /// Every severity.
    pub const ALL: [Self; 3] = [Self::Deny, Self::Warn, Self::Advise];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Warn => "warn",
            Self::Advise => "advise",
        }
    }

    /// The severity that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }
}

/// Whether a policy allows or forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyEffect {
    /// It allows.
    Permit,
    /// It forbids, whatever is permitted.
    Forbid,
}

/// A policy as users see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Its id, unique in the mesh.
    pub id: String,
    /// The domain whose resources it is about, by normalised name; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where it stands. The file of the default pack is [`crate::PACK_FILE`].
    pub location: Location,
    /// Whether it allows or forbids.
    pub effect: PolicyEffect,
    /// How much its finding matters: of a `forbid` that judges manifests. One without is a matter of access, and nothing
    /// waives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The team that answers for it, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its text.
    pub text: String,
    #[serde(skip)]
    pub(crate) policy: Policy,
}

impl Rule {
    /// Whether it judges manifests: its findings have a severity and can be waived.
    pub fn judges(&self) -> bool {
        self.severity.is_some()
    }
}

pub(crate) fn effect(policy: &Policy) -> PolicyEffect {
    match policy.effect() {
        Effect::Permit => PolicyEffect::Permit,
        Effect::Forbid => PolicyEffect::Forbid,
    }
}

/// Why something was decided: one policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReason {
    /// The policy's id.
    pub id: String,
    /// Its domain; `None`: it is one of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// Whether it allows or forbids.
    pub effect: PolicyEffect,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl From<&Rule> for PolicyReason {
    fn from(rule: &Rule) -> Self {
        Self {
            id: rule.id.clone(),
            domain: rule.domain.clone(),
            file: rule.location.file.clone(),
            line: rule.location.line,
            effect: rule.effect,
            message: rule.message.clone(),
            help: rule.help.clone(),
        }
    }
}

/// A policy that could not be evaluated. Whatever it is about is denied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFailure {
    /// The policy's id.
    pub id: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// Why.
    pub message: String,
}
