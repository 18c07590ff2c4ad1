//! One difference between two contracts.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::path::ContractPath;
use super::rules::{Bump, Direction, Rule};

/// One difference between two contracts.
#[derive(Clone, Debug, PartialEq)]
pub struct ContractChange {
    /// Where it is; for what was removed, where it was.
    pub path: ContractPath,
    /// The rule that says what it means.
    pub rule: &'static Rule,
    /// What was there; absent where it is new.
    pub before: Option<Value>,
    /// What is there now; absent where it is gone.
    pub after: Option<Value>,
    /// What happened, in one clause: lower case, no final period.
    pub message: String,
    /// The columns it concerns, by the names that consumers of the former contract know, where they knew them.
    pub columns: Vec<String>,
}

/// Whether something came, went or became something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Updated,
}

impl ContractChange {
    /// Whether something came, went or became something else.
    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, Some(_)) => ChangeKind::Added,
            (Some(_), None) => ChangeKind::Removed,
            _ => ChangeKind::Updated,
        }
    }

    /// The table it concerns; `None` where it concerns the whole product.
    pub fn table(&self) -> Option<&str> {
        self.path.table()
    }

    /// The step of the version it needs.
    pub fn bump(&self) -> Bump {
        self.rule.bump
    }

    /// Which way it moves the promise.
    pub fn direction(&self) -> Direction {
        self.rule.direction
    }

    /// Whether it protects people, and so binds every major version at once.
    pub fn protects(&self) -> bool {
        self.rule.protects
    }
}

/// The serialised form. What follows from the rule is written for readers, and not read back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireChange<'a> {
    path: ContractPath,
    rule: std::borrow::Cow<'a, str>,
    #[serde(skip_deserializing)]
    kind: Option<ChangeKind>,
    #[serde(skip_deserializing)]
    direction: Option<Direction>,
    #[serde(skip_deserializing)]
    bump: Option<Bump>,
    #[serde(skip_deserializing, skip_serializing_if = "std::ops::Not::not")]
    protects: bool,
    message: std::borrow::Cow<'a, str>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    table: Option<&'a str>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    columns: std::borrow::Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<std::borrow::Cow<'a, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<std::borrow::Cow<'a, Value>>,
}

impl Serialize for ContractChange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::borrow::Cow::Borrowed;
        WireChange {
            path: self.path.clone(),
            rule: Borrowed(self.rule.id),
            kind: Some(self.kind()),
            direction: Some(self.direction()),
            bump: Some(self.bump()),
            protects: self.protects(),
            message: Borrowed(&self.message),
            table: self.table(),
            columns: Borrowed(&self.columns),
            before: self.before.as_ref().map(Borrowed),
            after: self.after.as_ref().map(Borrowed),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ContractChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireChange::deserialize(deserializer)?;
        let rule = Rule::find(&wire.rule)
            .ok_or_else(|| D::Error::custom(format!("this version knows no rule `{}` for changes", wire.rule)))?;
        Ok(Self {
            path: wire.path,
            rule,
            before: wire.before.map(std::borrow::Cow::into_owned),
            after: wire.after.map(std::borrow::Cow::into_owned),
            message: wire.message.into_owned(),
            columns: wire.columns.into_owned(),
        })
    }
}

/// Collects changes while two contracts are compared.
#[derive(Debug, Default)]
pub(super) struct Changes {
    found: Vec<ContractChange>,
    /// The classification of columns that have none of their own, then and now.
    pub(super) inherited: (Option<String>, Option<String>),
}

impl Changes {
    /// Notes a change. The columns are those of the path.
    pub(super) fn push(
        &mut self,
        rule: &'static Rule,
        path: ContractPath,
        before: Option<Value>,
        after: Option<Value>,
        message: impl Into<String>,
    ) {
        let columns = path.column().map(str::to_owned).into_iter().collect();
        self.found.push(ContractChange { path, rule, before, after, message: message.into(), columns });
    }

    /// Notes a change that concerns these columns.
    pub(super) fn push_for(
        &mut self,
        rule: &'static Rule,
        path: ContractPath,
        before: Option<Value>,
        after: Option<Value>,
        message: impl Into<String>,
        columns: Vec<String>,
    ) {
        self.found.push(ContractChange { path, rule, before, after, message: message.into(), columns });
    }

    /// Notes a change of a value that may be absent, where it changed.
    pub(super) fn value<T: PartialEq + Serialize>(
        &mut self,
        rule: &'static Rule,
        path: ContractPath,
        before: Option<&T>,
        after: Option<&T>,
        what: &str,
    ) {
        if before != after {
            let message = match (before.is_some(), after.is_some()) {
                (false, true) => format!("{what} was added"),
                (true, false) => format!("{what} was removed"),
                _ => format!("{what} was changed"),
            };
            self.push(rule, path, before.map(json), after.map(json), message);
        }
    }

    /// The changes found, in the order of the contract.
    pub(super) fn finish(self) -> Vec<ContractChange> {
        self.found
    }
}

/// A part of a contract as JSON. The contract's types have text keys and finite numbers, so that it is always possible.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// A value as messages show it: short, texts in backticks.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}
