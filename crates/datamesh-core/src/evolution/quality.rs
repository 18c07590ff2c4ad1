//! Metric rules and row conditions.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::change::{Changes, json};
use super::path::ContractPath;
use super::rules::{self, Rule};
use super::thresholds::{Accepted, Range};
use crate::contract::Table;
use crate::quality::{Metric, MetricRule, RowCondition, Severity, Unit};

/// Compares the metric rules of a table.
pub(super) fn compare_metrics(changes: &mut Changes, table: &ContractPath, before: &[MetricRule], now: &Table) {
    let after = &now.metrics;
    let old: HashSet<&str> = before.iter().map(|rule| rule.name.as_str()).collect();
    let mut open: BTreeMap<usize, &MetricRule> = after.iter().enumerate().collect();
    let by_name: HashMap<&str, usize> = after.iter().enumerate().map(|(at, rule)| (rule.name.as_str(), at)).collect();
    let mut pairs: Vec<(&MetricRule, Option<&MetricRule>)> = Vec::new();
    for rule in before {
        pairs.push((rule, by_name.get(rule.name.as_str()).and_then(|at| open.remove(at))));
    }
    // A rule without a name of its own is named by what it says, so it has another name once its threshold changes.
    for (rule, pair) in pairs.iter_mut().filter(|(_, pair)| pair.is_none()) {
        let same = |other: &MetricRule| measures_the_same(rule, other) && !old.contains(other.name.as_str());
        let found = open.iter().find(|(_, other)| same(other)).map(|(at, _)| *at);
        *pair = found.and_then(|at| open.remove(&at));
    }
    for (rule, pair) in pairs {
        match pair {
            Some(now) => compare_metric(changes, table, rule, now),
            None if quarantines_now(rule, now) => {
                let message = format!("rule `{}` counted rows that are quarantined now", rule.name);
                note(changes, &rules::QUALITY_NOTED, table, Some(rule), None, message);
            }
            None => {
                let kind = if rejects(rule) { &rules::QUALITY_REMOVED } else { &rules::QUALITY_NOTED };
                note(changes, kind, table, Some(rule), None, format!("rule `{}` was removed", rule.name));
            }
        }
    }
    for rule in open.into_values() {
        let kind = if rejects(rule) { &rules::QUALITY_ADDED } else { &rules::QUALITY_NOTED };
        note(changes, kind, table, None, Some(rule), format!("rule `{}` was added", rule.name));
    }
}

/// Whether a table holds back every row that a rule counted, which it accepted none of.
fn quarantines_now(rule: &MetricRule, now: &Table) -> bool {
    let kept = match (&rule.metric, rule.reference()) {
        (Metric::FailedRows { condition }, _) => {
            now.conditions.iter().any(|other| same_sql(&other.condition, condition) && other.filter == rule.filter)
        }
        (_, Some(counted)) => now.references.iter().filter(|other| other.quarantines()).any(|other| {
            (&other.columns, &other.to, &other.at, &other.filter)
                == (&counted.columns, &counted.to, &counted.at, &counted.filter)
        }),
        _ => false,
    };
    kept && rule.threshold.holds(0.0)
}

fn rejects(rule: &MetricRule) -> bool {
    rule.severity == Severity::Error
}

fn note(
    changes: &mut Changes,
    kind: &'static Rule,
    table: &ContractPath,
    before: Option<&MetricRule>,
    after: Option<&MetricRule>,
    message: String,
) {
    let Some(rule) = after.or(before) else { return };
    let columns = rule.metric.columns().into_iter().map(str::to_owned).collect();
    let path = table.join("quality").join(&rule.name);
    changes.push_for(kind, path, before.map(json), after.map(json), message, columns);
}

/// Whether two rules measure the same number; a time may be measured in another unit.
fn measures_the_same(a: &MetricRule, b: &MetricRule) -> bool {
    let units = a.unit == b.unit || (a.unit.seconds().is_some() && b.unit.seconds().is_some());
    let metric = match (&a.metric, &b.metric) {
        (Metric::Sql { query: a }, Metric::Sql { query: b })
        | (Metric::FailedRows { condition: a }, Metric::FailedRows { condition: b }) => same_sql(a, b),
        (a, b) => a == b,
    };
    units && metric && a.filter == b.filter && a.group_by == b.group_by && a.compare_to == b.compare_to
}

fn compare_metric(changes: &mut Changes, table: &ContractPath, before: &MetricRule, after: &MetricRule) {
    if before == after {
        return;
    }
    // INVARIANT: a further part of a rule does not compile until it is compared.
    let MetricRule {
        name,
        metric: _,
        unit,
        threshold,
        severity,
        dimension: _,
        description,
        filter: _,
        group_by: _,
        warn: _,
        compare_to: _,
    } = after;
    let mut found = |kind: &'static Rule, message: String| {
        note(changes, kind, table, Some(before), Some(after), message);
    };
    if !rejects(before) && !rejects(after) {
        return found(&rules::QUALITY_NOTED, format!("rule `{name}`, which only warns, was changed"));
    }
    let severity_rule = match (rejects(before), rejects(after)) {
        (true, false) => Some(&rules::QUALITY_SEVERITY_LOOSENED),
        (false, true) => Some(&rules::QUALITY_SEVERITY_TIGHTENED),
        _ => None,
    };
    if let Some(kind) = severity_rule {
        let word = |severity: Severity| format!("{severity:?}").to_lowercase();
        found(kind, format!("rule `{name}` had severity {} and has {} now", word(before.severity), word(*severity)));
        // Where it did not reject, or no longer does, its threshold promises nothing.
        return;
    }
    if !measures_the_same(before, after) {
        return found(&rules::QUALITY_MEASURE_CHANGED, format!("rule `{name}` measures something else"));
    }
    let scale = |unit: Unit| unit.seconds().unwrap_or(1.0);
    let range = Range::of(after);
    let old = Accepted::of(before.threshold, range, scale(before.unit));
    let new = Accepted::of(*threshold, range, scale(*unit));
    let show = |rule: &MetricRule| format!("{}{}", rule.threshold, rule.unit.suffix());
    let (from, to) = (show(before), show(after));
    match (new.is_within(&old), old.is_within(&new)) {
        (true, true) => {
            let what = if from != to {
                format!("rule `{name}` says the same as before: {to}")
            } else if before.name != *name {
                format!("rule `{}` is called `{name}` now", before.name)
            } else if before.description != *description {
                format!("the description of rule `{name}` was changed")
            } else {
                format!("rule `{name}` says the same as before")
            };
            found(&rules::QUALITY_RESTATED, what);
        }
        (true, false) => {
            found(&rules::QUALITY_TIGHTENED, format!("rule `{name}` asked for {from} and asks for {to} now"))
        }
        (false, true) => {
            found(&rules::QUALITY_LOOSENED, format!("rule `{name}` asked for {from} and asks for {to} now"))
        }
        (false, false) => found(&rules::QUALITY_MOVED, format!("rule `{name}` asked for {from} and asks for {to} now")),
    }
}

/// Compares the row conditions of a table.
pub(super) fn compare_conditions(
    changes: &mut Changes,
    table: &ContractPath,
    before: &[RowCondition],
    after: &[RowCondition],
) {
    let mut open: Vec<&RowCondition> = after.iter().collect();
    let mut pairs: Vec<(&RowCondition, Option<&RowCondition>)> = Vec::new();
    for condition in before {
        let by_name = open.iter().position(|other| other.name == condition.name);
        pairs.push((condition, by_name.map(|at| open.remove(at))));
    }
    for (condition, pair) in &mut pairs {
        if pair.is_none() {
            let says_the_same = |other: &&RowCondition| same_sql(&other.condition, &condition.condition);
            *pair = open.iter().position(says_the_same).map(|at| open.remove(at));
        }
    }
    let path = |condition: &RowCondition| table.join("quality").join(&condition.name);
    for (old, pair) in pairs {
        let Some(new) = pair else {
            let message = format!("the condition `{}` was removed", old.name);
            changes.push(&rules::CONDITION_REMOVED, path(old), Some(json(old)), None, message);
            continue;
        };
        if old == new {
            continue;
        }
        // INVARIANT: a further part of a condition does not compile until it is compared.
        let RowCondition { name, condition, description: _, dimension: _, filter } = new;
        let same = same_sql(condition, &old.condition)
            && match (filter, &old.filter) {
                (Some(filter), Some(former)) => same_sql(filter, former),
                (None, None) => true,
                _ => false,
            };
        let (kind, message) = if same {
            (&rules::QUALITY_RESTATED, format!("the condition `{name}` says the same as before"))
        } else if filter.is_none() && old.filter.is_some() && same_sql(condition, &old.condition) {
            (&rules::CONDITION_ADDED, format!("the condition `{name}` judges every row now"))
        } else if filter.is_some() && old.filter.is_none() && same_sql(condition, &old.condition) {
            (&rules::CONDITION_REMOVED, format!("the condition `{name}` judges only some rows now"))
        } else {
            (&rules::CONDITION_CHANGED, format!("the condition `{name}` says something else"))
        };
        changes.push(kind, path(new), Some(json(old)), Some(json(new)), message);
    }
    for condition in open {
        let message = format!("the condition `{}` was added", condition.name);
        changes.push(&rules::CONDITION_ADDED, path(condition), None, Some(json(condition)), message);
    }
}

/// Compares rules that are declared and not enforced (ODCS: types `text` and `custom`), as they are written.
pub(super) fn compare_unenforced(
    changes: &mut Changes,
    path: &ContractPath,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let items = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut old, mut new) = (items(before), items(after));
    old.retain(|rule| match new.iter().position(|other| other == rule) {
        Some(at) => {
            new.remove(at);
            false
        }
        None => true,
    });
    // What of a rule says nothing about what is checked.
    const PROSE: [&str; 8] =
        ["id", "description", "businessImpact", "schedule", "scheduler", "tags", "customProperties", "custom"];
    let named = |rule: &Value| rule.get("name").and_then(Value::as_str).map(str::to_owned);
    let rejects = |rule: &Value| {
        let severity = rule.get("severity").and_then(Value::as_str).unwrap_or("error");
        rule.get("type").and_then(Value::as_str) == Some("custom") && !["warning", "info"].contains(&severity)
    };
    let mut note = |kind: &'static Rule, was: Option<&Value>, is: Option<&Value>| {
        let name = is.or(was).and_then(named).unwrap_or_else(|| "without a name".to_owned());
        let verb = match (was, is) {
            (None, _) => "was added",
            (_, None) => "was removed",
            _ => "was changed",
        };
        let message = format!("rule `{name}`, which this mesh does not enforce, {verb}");
        changes.push(kind, path.join(&name), was.cloned(), is.cloned(), message);
    };
    for was in &old {
        let same = |is: &Value| named(is).is_some() && named(is) == named(was) && is.get("column") == was.get("column");
        let Some(at) = new.iter().position(same) else {
            note(if rejects(was) { &rules::QUALITY_REMOVED } else { &rules::QUALITY_NOTED }, Some(was), None);
            continue;
        };
        let is = new.remove(at);
        let plain = |rule: &Value| {
            let mut rule = rule.as_object().cloned().unwrap_or_default();
            rule.retain(|key, _| !PROSE.contains(&key.as_str()));
            rule
        };
        let kind = match (rejects(was), rejects(&is)) {
            (true, false) => &rules::QUALITY_SEVERITY_LOOSENED,
            (false, true) => &rules::QUALITY_SEVERITY_TIGHTENED,
            (false, false) => &rules::QUALITY_NOTED,
            (true, true) if plain(was) == plain(&is) => &rules::QUALITY_RESTATED,
            (true, true) => &rules::QUALITY_MEASURE_CHANGED,
        };
        note(kind, Some(was), Some(&is));
    }
    for is in &new {
        note(if rejects(is) { &rules::QUALITY_ADDED } else { &rules::QUALITY_NOTED }, None, Some(is));
    }
}

/// Whether two SQL texts are the same but for white space outside of quotes. A comment may end with its line, so texts
/// that may hold one are compared as they are.
pub(super) fn same_sql(a: &str, b: &str) -> bool {
    let comments = |sql: &str| sql.contains("--") || sql.contains("/*");
    if comments(a) || comments(b) { a.trim() == b.trim() } else { squeezed(a) == squeezed(b) }
}

fn squeezed(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut quote = None;
    for character in sql.trim().chars() {
        match quote {
            Some(open) => {
                out.push(character);
                if character == open {
                    quote = None;
                }
            }
            None if character.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            None => {
                if matches!(character, '\'' | '"') {
                    quote = Some(character);
                }
                out.push(character);
            }
        }
    }
    out
}
