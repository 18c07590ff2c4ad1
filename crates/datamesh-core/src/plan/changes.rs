//! The seam to the rules of compatibility: what changed, by which rule, and the step of the version it needs.

use std::fmt;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::changes;
use crate::contract::DataProduct;

/// The step of a semantic version that a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bump {
    /// Nobody who relies on the contract notices.
    Patch,
    /// Consumers get more than before.
    Minor,
    /// The text does not tell: major, unless it is acknowledged that nothing breaks.
    Review,
    /// Consumers get less than they were promised.
    Major,
}

impl Bump {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Review => "review",
            Self::Major => "major",
        }
    }
}

impl fmt::Display for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

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

/// What differs, field by field. The version itself, and where a product or column was before, are no differences.
pub(super) fn field_changes(before: &DataProduct, after: &DataProduct) -> Vec<FieldChange> {
    changes(before, after).into_iter().filter_map(classify).collect()
}

fn classify(change: crate::change::Change) -> Option<FieldChange> {
    let parts: Vec<&str> = change.path.split('.').collect();
    if matches!(parts.as_slice(), ["version" | "movedFrom" | "id", ..]) {
        return None;
    }
    let table = match parts.as_slice() {
        ["tables", table, ..] => Some((*table).to_owned()),
        _ => None,
    };
    let (columns, field) = match parts.as_slice() {
        ["tables", _, "columns", column, rest @ ..] => (vec![(*column).to_owned()], rest.first().copied()),
        ["tables", _, field, ..] => (Vec::new(), Some(*field)),
        [field, ..] => (Vec::new(), Some(*field)),
        [] => return None,
    };
    if matches!(field, Some("renamedFrom" | "default")) {
        return None;
    }
    let whole = field.is_none();
    let (bump, rule) = match (whole, field, &change.before, &change.after) {
        (true, _, None, Some(_)) => (Bump::Minor, "added"),
        (true, _, Some(_), None) => (Bump::Major, "removed"),
        (_, Some("description" | "source" | "transform" | "inputs" | "partition_by" | "sort_by"), ..) => {
            (Bump::Patch, "prose")
        }
        (_, Some("type" | "primaryKey"), ..) => (Bump::Major, "type-changed"),
        (_, Some("required" | "unique"), None, _) => (Bump::Minor, "tightened"),
        (_, Some("required" | "unique"), Some(_), _) => (Bump::Major, "loosened"),
        _ => (Bump::Minor, "changed"),
    };
    let verb = match (&change.before, &change.after) {
        (None, _) => "was added",
        (_, None) => "was removed",
        _ => "was changed",
    };
    Some(FieldChange {
        message: format!("`{}` {verb}", change.path),
        path: change.path.clone(),
        rule: rule.to_owned(),
        bump,
        before: change.before,
        after: change.after,
        table,
        columns,
        tightens: bump == Bump::Minor,
        protects: matches!(field, Some("pii" | "mask")),
        affects: Vec::new(),
    })
}

/// The step between two versions of one major; `None`: they are the same.
pub(super) fn step(before: &Version, after: &Version) -> Option<Bump> {
    match after {
        after if after.major != before.major => Some(Bump::Major),
        after if after.minor != before.minor => Some(Bump::Minor),
        after if after != before => Some(Bump::Patch),
        _ => None,
    }
}

/// The step that changes need from a version on. Below 1.0.0 nobody relies on anything yet: major counts as minor.
pub(super) fn needed(before: &Version, changes: &[FieldChange], acknowledge: bool) -> Option<Bump> {
    let one = |change: &FieldChange| match change.bump {
        Bump::Review if acknowledge => Bump::Minor,
        Bump::Review | Bump::Major if before.major == 0 => Bump::Minor,
        Bump::Review => Bump::Major,
        bump => bump,
    };
    changes.iter().map(one).max()
}

/// The least version that a step leads to.
pub(super) fn least_version(before: &Version, bump: Bump) -> Version {
    match bump {
        Bump::Patch => Version::new(before.major, before.minor, before.patch + 1),
        Bump::Minor => Version::new(before.major, before.minor + 1, 0),
        Bump::Review | Bump::Major => Version::new(before.major + 1, 0, 0),
    }
}
