//! The rules of a table, one by one and in words.

use serde::Serialize;

use crate::contract::{Table, TextFormat};
use crate::quality::{
    KeyRule, Metric, RULE_COMPLETE_IF, RULE_CONDITION, RULE_TYPE, Severity, ValueRule, value_constraints,
};
use crate::reference::RULE_REFERENCES;
use crate::verdict::rule_id;

/// What breaking a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Consequence {
    /// The row is held back.
    Quarantine,
    /// The publication is rejected.
    Error,
    /// The report says so.
    Warning,
    /// For information only.
    Info,
}

impl From<Severity> for Consequence {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Error,
            Severity::Warning => Self::Warning,
            Severity::Info => Self::Info,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// What reports count it under: `minimum:wind_speed`; the name of a rule that judges the whole table.
    pub name: String,
    /// Its word: `minimum`, `primaryKey`, `condition`; what is measured, for a rule that judges the whole table.
    pub kind: String,
    /// The column it is about, `a+b` for several, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What breaking it does.
    pub severity: Consequence,
    /// What it says.
    pub words: String,
    /// Whether it judges the whole table and not its rows.
    #[serde(skip)]
    pub of_table: bool,
}

impl Rule {
    fn of_rows(kind: &str, path: &str, words: String) -> Self {
        Self {
            name: rule_id(kind, path),
            kind: kind.to_owned(),
            column: Some(path.to_owned()),
            severity: Consequence::Quarantine,
            words,
            of_table: false,
        }
    }
}

/// Every rule of a table: types, values, keys, conditions, references, then those of the whole table.
pub fn rules(table: &Table) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for column in &table.columns {
        rules.push(Rule::of_rows(RULE_TYPE, &column.name, format!("`{}` is a {}", column.name, column.data_type)));
    }
    for constraint in value_constraints(table) {
        let words = format!("`{}` {}", constraint.path, value_words(&constraint.rule));
        rules.push(Rule::of_rows(constraint.rule.word(), &constraint.path, words));
    }
    for column in &table.columns {
        if let Some(condition) = &column.constraints.complete_if {
            let words = format!("`{}` is filled in where {condition}", column.name);
            rules.push(Rule::of_rows(RULE_COMPLETE_IF, &column.name, words));
        }
    }
    for key in KeyRule::of(table) {
        let words = format!("no two rows have the same {}", listed(&key.columns));
        rules.push(Rule::of_rows(&key.rule, &key.path(), words));
    }
    for condition in &table.conditions {
        let filter = condition.filter.as_ref().map_or_else(String::new, |filter| format!(" where {filter}"));
        let words = match &condition.description {
            Some(description) => format!("{}{filter} ({description})", condition.condition),
            None => format!("{}{filter}", condition.condition),
        };
        rules.push(Rule { column: None, ..Rule::of_rows(RULE_CONDITION, &condition.name, words) });
    }
    for reference in &table.references {
        let filter = reference.filter.as_ref().map_or_else(String::new, |filter| format!(" where {filter}"));
        let (columns, there) = (listed(&reference.columns), listed(&reference.at));
        let words = format!("{columns} is found in {there} of `{}`{filter}", reference.to);
        let mut rule = Rule::of_rows(RULE_REFERENCES, &reference.path(), words);
        if !reference.quarantines() {
            rule.severity = reference.severity.into();
        }
        rules.push(rule);
    }
    for metric in &table.metrics {
        let columns = metric.metric.columns();
        let of = match &metric.metric {
            Metric::FailedRows { condition } => format!(" of {condition}"),
            _ if columns.is_empty() => String::new(),
            _ => format!(" of {}", columns.join(", ")),
        };
        let other = metric.compare_to.as_ref().map_or_else(String::new, |to| match &metric.metric {
            Metric::OrphanedRows { at, .. } => format!(" in {} of `{}`", listed(at), to.table),
            _ => format!(" compared to {}", to.table),
        });
        let suffix = metric.unit.suffix();
        rules.push(Rule {
            name: metric.name.clone(),
            kind: metric.metric.word().to_owned(),
            column: (!columns.is_empty()).then(|| columns.join("+")),
            severity: metric.severity.into(),
            words: format!("{}{of}{other} {}{suffix}", metric.metric.word(), metric.threshold),
            of_table: true,
        });
    }
    rules
}

fn listed(columns: &[String]) -> String {
    columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(" and ")
}

fn value_words(rule: &ValueRule) -> String {
    match rule {
        ValueRule::Required => "is never null".to_owned(),
        ValueRule::Json => "is JSON".to_owned(),
        ValueRule::Enum(values) => format!("is one of {}", values.join(", ")),
        ValueRule::Minimum(bound) => format!("is at least {bound}"),
        ValueRule::Maximum(bound) => format!("is at most {bound}"),
        ValueRule::ExclusiveMinimum(bound) => format!("is greater than {bound}"),
        ValueRule::ExclusiveMaximum(bound) => format!("is less than {bound}"),
        ValueRule::MultipleOf(step) => format!("is a multiple of {step}"),
        ValueRule::MinLength(length) => format!("has at least {length} characters"),
        ValueRule::MaxLength(length) => format!("has at most {length} characters"),
        ValueRule::Pattern(pattern) => format!("matches {pattern}"),
        ValueRule::Format(format) => {
            let word = TextFormat::ALL.iter().find(|(_, known)| known == format).map_or("", |(word, _)| *word);
            format!("is a valid {word}")
        }
        ValueRule::DateFormat(format) => format!("is written as {format}"),
    }
}
