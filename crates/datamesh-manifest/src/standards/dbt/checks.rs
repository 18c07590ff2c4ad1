//! dbt's tests as rules.
//!
//! A test that passes only if no row is faulty becomes a constraint, so faulty rows are quarantined. One that only
//! warns, or tolerates some rows, becomes a rule that counts them.

mod meaning;

use super::table::{Referral, TableDraft, refer};
use super::{Report, text_of};
use crate::standards::tree::{Map, Tree};
use meaning::{Meaning, Test, meaning};

/// How dbt judges a test.
pub(super) struct Settings {
    warns: bool,
    filter: Option<String>,
    warn_if: Option<String>,
    error_if: Option<String>,
    /// What keeps the settings from being mapped.
    odd: Option<String>,
}

impl Settings {
    fn of(node: &Map) -> Self {
        let config = |key: &str| super::table::config(node, key).and_then(Tree::scalar).map(str::trim);
        let mut odd = None;
        let mut limit = |key: &str| {
            let text = config(key).unwrap_or("!= 0");
            let spaced = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match spaced.as_str() {
                "!= 0" | "!=0" | "<> 0" | "<>0" | "> 0" | ">0" => None,
                other if is_comparison(other) => Some(other.to_owned()),
                other => {
                    odd = Some(format!("`{key}: {other}` is no comparison with a number"));
                    None
                }
            }
        };
        let (warn_if, error_if) = (limit("warn_if"), limit("error_if"));
        if config("fail_calc").is_some_and(|calculation| !calculation.eq_ignore_ascii_case("count(*)")) {
            odd = Some("`fail_calc` counts something of its own".to_owned());
        }
        let filter = config("where").filter(|filter| !filter.is_empty()).map(str::to_owned);
        if filter.as_deref().is_some_and(is_template) {
            odd = Some("`where` is a template".to_owned());
        }
        let warns = config("severity").is_some_and(|severity| severity.eq_ignore_ascii_case("warn"));
        Self { warns, filter, warn_if, error_if, odd }
    }

    /// Whether one faulty row is one too many.
    fn is_strict(&self) -> bool {
        !self.warns && self.error_if.is_none()
    }

    /// Says when a count of faulty rows is too high.
    fn judge(&self, rule: &mut Map) {
        match (self.warns, &self.error_if, &self.warn_if) {
            (true, _, None) => {
                rule.put("mustBe", Tree::Number("0".into()));
                rule.put("severity", "warning");
            }
            (true, _, Some(warn)) => rule.put("warn", warn.as_str()),
            (false, None, _) => rule.put("mustBe", Tree::Number("0".into())),
            (false, Some(error), warn) => {
                if warn.as_ref() != Some(error) {
                    rule.put("warn", warn.as_deref().unwrap_or("> 0"));
                }
                rule.put("fail", error.as_str());
            }
        }
    }
}

/// Whether a text is `> 10`, `<= 5` or `between 1 and 5`.
fn is_comparison(text: &str) -> bool {
    let number = |text: &str| text.trim().parse::<f64>().is_ok_and(f64::is_finite);
    let lower = text.to_ascii_lowercase();
    let range = lower.strip_prefix("not ").unwrap_or(&lower).strip_prefix("between ");
    if let Some((low, high)) = range.and_then(|range| range.split_once(" and ")) {
        return number(low) && number(high);
    }
    let operators = [">=", "<=", "!=", "<>", "==", "=", ">", "<"];
    operators.iter().find_map(|operator| text.strip_prefix(operator)).is_some_and(number)
}

/// Whether a text is not SQL yet.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The model that `ref('…')` names, the last of its words; `None` for other texts.
pub(super) fn referred(text: &str) -> Option<String> {
    let (_, arguments) = text.split_once("ref(")?;
    let (arguments, _) = arguments.split_once(')')?;
    let mut names = arguments.split(',').map(str::trim).filter(|argument| argument.starts_with(['\'', '"']));
    names.next_back().map(|name| name.trim_matches(['\'', '"']).to_owned())
}

/// A column's name in SQL.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Adds the tests of the tables' models. What is left are those of several models.
pub(super) fn add(report: &mut Report, tables: &mut [TableDraft], nodes: &[(String, Map)]) -> Vec<Tree> {
    let mut left = Vec::new();
    for (id, node) in nodes.iter().filter(|(_, node)| text_of(node, "resource_type") == Some("test")) {
        if super::table::config(node, "enabled").and_then(Tree::as_bool) == Some(false) {
            continue;
        }
        let needs = node.get("depends_on").and_then(|needs| needs.get("nodes")).and_then(Tree::as_list);
        let needs: Vec<&str> = needs.unwrap_or_default().iter().filter_map(Tree::as_text).collect();
        let Some(index) = table_of(tables, node, &needs) else {
            if tables.iter().any(|table| needs.contains(&table.id.as_str())) && text_of(node, "attached_node").is_none()
            {
                let message = format!("test `{id}` looks at several models, and is not mapped");
                report.warn(
                    "not-imported",
                    message,
                    "it is kept below `custom.dbt.tests`; write an `sql` rule for one of the tables",
                );
                left.push(kept(id, node));
            }
            continue;
        };
        let column = column_of(node);
        match add_test(tables, index, node, column.as_deref(), &needs) {
            Ok(None) => {}
            Ok(Some(note)) => {
                report.warn("mapped-loosely", format!("test `{id}`: {note}"), "");
            }
            Err(why) => {
                let message = format!("test `{id}` is not mapped: {why}");
                report.warn(
                    "not-imported",
                    message,
                    "it is kept below `custom.dbt.tests`; write it as an `sql` rule or a `condition` if it matters",
                );
                let test = kept(id, node);
                match column.and_then(|column| tables[index].column_mut(&column)) {
                    Some(column) => column.tests.push(test),
                    None => tables[index].tests.push(test),
                }
            }
        }
    }
    left
}

/// The table that a test is about.
fn table_of(tables: &[TableDraft], node: &Map, needs: &[&str]) -> Option<usize> {
    let by_id = |id: &str| tables.iter().position(|table| table.id == id);
    if let Some(attached) = text_of(node, "attached_node") {
        return by_id(attached);
    }
    let model = arguments(node).and_then(|arguments| arguments.get("model")).and_then(Tree::as_text).and_then(referred);
    if let Some(model) = model {
        return tables.iter().position(|table| table.model == model && needs.contains(&table.id.as_str()));
    }
    match needs {
        [only] => by_id(only),
        _ => None,
    }
}

fn arguments(node: &Map) -> Option<&Map> {
    node.get("test_metadata").and_then(|test| test.get("kwargs")).and_then(Tree::as_map)
}

fn column_of(node: &Map) -> Option<String> {
    let argument = arguments(node).and_then(|arguments| arguments.get("column_name")).and_then(Tree::as_text);
    let name = text_of(node, "column_name").or(argument)?;
    Some(name.trim_matches(['"', '`', '[', ']']).to_owned())
}

/// A test that has no counterpart, as dbt says it.
fn kept(id: &str, node: &Map) -> Tree {
    let mut test = Map::new();
    test.put("unique_id", id);
    if let Some(metadata) = node.get("test_metadata") {
        let name = metadata.get("name").and_then(Tree::as_text).unwrap_or_default();
        let space = metadata.get("namespace").and_then(Tree::as_text);
        test.put("test", space.map_or_else(|| name.to_owned(), |space| format!("{space}.{name}")));
        let mut arguments = arguments(node).cloned().unwrap_or_default();
        arguments.take("model");
        test.put_filled("arguments", arguments);
    }
    let mut settings = Map::new();
    for key in ["severity", "where", "warn_if", "error_if", "fail_calc", "limit"] {
        let value = super::table::config(node, key);
        let default = ["ERROR", "error", "!= 0", "count(*)"];
        settings
            .put_some(key, value.filter(|value| value.as_text().is_none_or(|text| !default.contains(&text))).cloned());
    }
    test.put_filled("config", settings);
    if node.get("test_metadata").is_none() {
        let code = ["compiled_code", "raw_code"].into_iter().find_map(|key| text_of(node, key));
        test.put_some("sql", code.map(str::trim));
        let needs = node.get("depends_on").and_then(|needs| needs.get("nodes"));
        test.put_some("depends_on", needs.cloned());
    }
    test.put_some("description", text_of(node, "description").filter(|text| !text.is_empty()));
    test.into()
}

/// Maps one test; a note tells where the rule is not quite the same. The error says why there is no counterpart.
fn add_test(
    tables: &mut [TableDraft],
    index: usize,
    node: &Map,
    column: Option<&str>,
    needs: &[&str],
) -> Result<Option<String>, String> {
    let settings = Settings::of(node);
    if let Some(odd) = &settings.odd {
        return Err(odd.clone());
    }
    let name = rule_name(&tables[index], text_of(node, "name").unwrap_or("test"));
    let description = text_of(node, "description").map(str::trim).filter(|text| !text.is_empty());
    let rule = || {
        let mut rule = Map::new();
        rule.put("name", name.as_str());
        rule.put_some("description", description);
        rule
    };
    let Some(metadata) = node.get("test_metadata").filter(|metadata| metadata.as_map().is_some()) else {
        let query = singular(&tables[index], node)?;
        let mut rule = rule();
        rule.put("sql", format!("SELECT count(*) FROM (\n{query}\n) AS failures"));
        settings.judge(&mut rule);
        tables[index].quality.push(rule.into());
        return Ok(None);
    };
    let test = Test {
        name: metadata.get("name").and_then(Tree::as_text).unwrap_or_default(),
        namespace: metadata.get("namespace").and_then(Tree::as_text),
        arguments: arguments(node).cloned().unwrap_or_default(),
        column: column.map(str::to_owned),
        needs,
    };
    match meaning(&test, &tables[index])? {
        Meaning::Implied => Ok(None),
        Meaning::Rows { column, keys, good } => {
            if settings.is_strict() && settings.filter.is_none() {
                let free = column.as_ref().and_then(|name| tables[index].column_mut(name)).filter(|column| {
                    !keys.is_empty()
                        && keys.iter().all(|(key, value)| column.keys.get(key).is_none_or(|there| there == value))
                });
                if let Some(column) = free {
                    for (key, value) in keys {
                        column.keys.put(key, value);
                    }
                    return Ok(None);
                }
            }
            let mut rule = rule();
            rule.put("condition", good);
            rule.put_some("where", settings.filter.clone());
            if !settings.is_strict() {
                settings.judge(&mut rule);
            }
            tables[index].quality.push(rule.into());
            Ok(None)
        }
        Meaning::Unique { columns } => {
            if settings.is_strict() && settings.filter.is_none() {
                return if tables[index].add_unique(&columns) {
                    Ok(None)
                } else {
                    Err("a key has scalar columns only".to_owned())
                };
            }
            let mut rule = rule();
            rule.put("metric", "duplicateValues");
            match columns.as_slice() {
                [only] => rule.put("column", only.as_str()),
                several => {
                    let columns: Vec<Tree> = several.iter().map(Tree::text).collect();
                    rule.put("arguments", Map::from_iter([("properties".to_owned(), Tree::List(columns))]));
                }
            }
            rule.put_some("where", settings.filter.clone());
            settings.judge(&mut rule);
            tables[index].quality.push(rule.into());
            let counts = settings.warn_if.is_some() || settings.error_if.is_some();
            Ok(counts
                .then(|| "dbt counts doubled values, the rule counts the rows beyond the first of each".to_owned()))
        }
        Meaning::Measures(measures) => {
            if settings.warn_if.is_some() || settings.error_if.is_some() {
                return Err("`warn_if` and `error_if` count rows, but the test looks at one number".to_owned());
            }
            let several = measures.len() > 1;
            for (number, measure) in measures.into_iter().enumerate() {
                let mut rule = rule();
                if several {
                    rule.put("name", format!("{name}_{}", number + 1));
                }
                for (key, value) in measure {
                    rule.put(key, value);
                }
                if let Some(filter) = &settings.filter {
                    match rule.get("where").and_then(Tree::as_text).map(str::to_owned) {
                        Some(own) => rule.put("where", format!("({own}) AND ({filter})")),
                        None if rule.contains("sql") => return Err("a rule with a query has no `where`".to_owned()),
                        None => rule.put("where", filter.as_str()),
                    }
                }
                if settings.warns {
                    rule.put("severity", "warning");
                }
                tables[index].quality.push(rule.into());
            }
            Ok(None)
        }
        Meaning::Refers { column, to, at } => {
            let mut how = Map::new();
            how.put_some("where", settings.filter.clone());
            match (settings.warns, &settings.warn_if, &settings.error_if) {
                (true, None, _) => how.put("severity", "warning"),
                (true, Some(_), _) | (false, _, Some(_)) => {
                    how.put("name", name.as_str());
                    settings.judge(&mut how);
                }
                (false, _, None) => {}
            }
            let referral = Referral { columns: vec![column], to, at: vec![at], how };
            refer(tables, index, &referral).map(|()| None)
        }
    }
}

/// A rule's name, unique in its table.
fn rule_name(table: &TableDraft, wanted: &str) -> String {
    let taken = |name: &str| table.quality.iter().any(|rule| rule.get("name").and_then(Tree::as_text) == Some(name));
    let mut name = wanted.to_owned();
    let mut number = 2;
    while taken(&name) {
        name = format!("{wanted}_{number}");
        number += 1;
    }
    name
}

/// The query of a singular test over one model, with the candidate table in place of the model.
fn singular(table: &TableDraft, node: &Map) -> Result<String, String> {
    let clean = |code: &str| code.trim().trim_end_matches(';').trim().to_owned();
    if let (Some(code), Some(relation)) = (text_of(node, "compiled_code"), table.relation.as_deref())
        && code.contains(relation)
        && !is_template(code)
    {
        return Ok(clean(&code.replace(relation, "{object}")));
    }
    let raw = text_of(node, "raw_code").ok_or("its query is not in the manifest")?;
    let mut query = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        let Some((template, after)) = after.split_once("}}") else { break };
        if referred(template).as_deref() != Some(table.model.as_str()) {
            return Err("its query is a template; run `dbt compile` first".to_owned());
        }
        query.push_str(before);
        query.push_str("{object}");
        rest = after;
    }
    query.push_str(rest);
    if is_template(&query) || !query.contains("{object}") {
        return Err("its query is a template; run `dbt compile` first".to_owned());
    }
    Ok(clean(&query))
}
