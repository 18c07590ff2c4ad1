//! The rules of compatibility on the contracts of a plan: what changed, by which rule, and the step that it needs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::DataProduct;
pub use crate::evolution::Bump;
use crate::evolution::{ContractChange, Direction, compare};

/// One difference of a contract, with its rule and who feels it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Where, as the manifest is nested.
    pub path: String,
    /// The rule that says what it means.
    pub rule: String,
    /// The step of the version it needs.
    pub bump: Bump,
    /// What happened, in one clause.
    pub message: String,
    /// What was there; absent where it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now; absent where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// The table it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The columns it concerns, by their former names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Whether more is promised than before: it must hold on what is published.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tightens: bool,
    /// Whether it protects people, and so binds every major version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protects: bool,
    /// The tables, or their columns, that are made of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affects: Vec<String>,
}

/// What differs. A product that moves is the same product: its domain and name are no differences.
pub(super) fn contract_changes(before: &DataProduct, after: &DataProduct) -> Vec<ContractChange> {
    let same = before.id == after.id;
    let moved = (!same).then(|| DataProduct { id: after.id.clone(), ..before.clone() });
    compare(moved.as_ref().unwrap_or(before), after)
}

/// The changes as a plan shows them.
pub(super) fn shown<'c>(changes: impl IntoIterator<Item = &'c ContractChange>) -> Vec<FieldChange> {
    let one = |change: &ContractChange| FieldChange {
        path: change.path.to_string(),
        rule: change.rule.id.to_owned(),
        bump: change.bump(),
        message: change.message.clone(),
        before: change.before.clone(),
        after: change.after.clone(),
        table: change.table().map(str::to_owned),
        columns: change.columns.clone(),
        tightens: matches!(change.direction(), Direction::Tightens | Direction::Undetermined),
        protects: change.protects(),
        affects: Vec::new(),
    };
    changes.into_iter().map(one).collect()
}
