//! Why a plan cannot be applied.

use serde::{Deserialize, Serialize};

use super::{Consumer, FieldChange};

/// Which rule a part of the plan breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The changes need a larger step of the version.
    VersionTooSmall,
    /// The version is less than the applied one.
    VersionBackwards,
    /// The status is an earlier one than the applied one.
    LifecycleBackwards,
    /// A retired version was changed.
    RetiredChanged,
    /// Somebody reads what is to be retired.
    RetireWithConsumers,
    /// No product has the name of an input.
    UnknownInput,
    /// No version of an input is within its range.
    UnsatisfiedInput,
    /// Products read each other in a circle.
    InputCycle,
    /// Two names are the same after normalising.
    NameCollision,
    /// What is to be moved is not there.
    UnknownProduct,
    /// What is to be moved would lie on another product.
    MoveOntoExisting,
    /// What a rule or a type asks for does not hold on the published data.
    DataDoesNotHold,
    /// The published table cannot take the change.
    TableCannotChange,
    /// A protection was added in one major version, and is missing in another.
    ProtectionMissing,
    /// A policy forbids it.
    PolicyForbids,
    /// A policy, a principal or a row filter that cannot be used.
    InvalidPolicy,
}

impl RefusalKind {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VersionTooSmall => "version-too-small",
            Self::VersionBackwards => "version-backwards",
            Self::LifecycleBackwards => "lifecycle-backwards",
            Self::RetiredChanged => "retired-changed",
            Self::RetireWithConsumers => "retire-with-consumers",
            Self::UnknownInput => "unknown-input",
            Self::UnsatisfiedInput => "unsatisfied-input",
            Self::InputCycle => "input-cycle",
            Self::NameCollision => "name-collision",
            Self::UnknownProduct => "unknown-product",
            Self::MoveOntoExisting => "move-onto-existing",
            Self::DataDoesNotHold => "data-does-not-hold",
            Self::TableCannotChange => "table-cannot-change",
            Self::ProtectionMissing => "protection-missing",
            Self::PolicyForbids => "policy-forbids",
            Self::InvalidPolicy => "invalid-policy",
        }
    }
}

/// Why a part of a plan cannot be applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The rule.
    pub id: RefusalKind,
    /// The product or domain, as `domain/product` or `domain`.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
    /// The changes that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// Who is affected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Consumer>,
}

impl Refusal {
    /// A refusal about a product or domain.
    pub fn new(id: RefusalKind, subject: impl ToString, message: impl Into<String>, help: impl Into<String>) -> Self {
        let (message, help) = (message.into(), help.into());
        Self { id, subject: subject.to_string(), message, help, changes: Vec::new(), consumers: Vec::new() }
    }
}
