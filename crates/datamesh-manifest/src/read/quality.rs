//! Quality rules of tables and columns.

use datamesh_core::Table;
use datamesh_core::quality::{Dimension, Metric, MetricRule, RowCondition, Severity, Threshold, Unit};

use super::{check_pattern, find_column, text, texts};
use crate::shape::closest;
use crate::yaml::{Document, Node};

/// Reads the rules of a table, or of one of its columns.
pub(super) fn read_quality(document: &mut Document<'_>, table: &mut Table, node: Option<&Node>, column: Option<&str>) {
    for entry in node.and_then(Node::items).unwrap_or_default() {
        if let Some(text) = entry.text() {
            if let Some(rule) = read_short_rule(document, table, entry, text, column) {
                add_metric(document, table, entry, rule);
            }
            continue;
        }
        if let Some(condition) = entry.get("condition") {
            read_condition(document, table, entry, condition, column);
        } else if let Some(rule) = read_metric(document, table, entry, column) {
            add_metric(document, table, entry, rule);
        }
    }
}

fn add_metric(document: &mut Document<'_>, table: &mut Table, at: &Node, rule: MetricRule) {
    if table.metrics.iter().any(|other| other.name == rule.name) {
        document.error(
            "duplicate-rule",
            at.span,
            format!("rule `{}` is there already", rule.name),
            "give it a `name` of its own",
        );
    } else {
        table.metrics.push(rule);
    }
}

fn read_condition(
    document: &mut Document<'_>,
    table: &mut Table,
    entry: &Node,
    condition: &Node,
    column: Option<&str>,
) {
    let sql = condition.text().unwrap_or_default().trim();
    for key in ["metric", "rule", "sql", "query", "unit"].into_iter().chain(Threshold::KEYS) {
        if let Some(other) = entry.get(key) {
            document.error(
                "mixed-rule",
                other.span,
                format!("a rule with `condition` has no `{key}`"),
                "a condition judges each row; write a second rule for the table",
            );
        }
    }
    if entry.get("severity").and_then(Node::text).is_some_and(|word| word != "error") {
        document.error(
            "mixed-rule",
            entry.span,
            "a row condition always quarantines, so it has no other severity",
            "count the rows with an `sql` rule instead",
        );
    }
    if sql.is_empty() {
        document.error(
            "empty-condition",
            condition.span,
            "the condition is empty",
            "write an SQL condition such as `ship_date >= order_date`",
        );
        return;
    }
    let name = text(entry, "name").unwrap_or_else(|| sql.split_whitespace().collect::<Vec<_>>().join(" "));
    if table.conditions.iter().any(|other| other.name == name) {
        document.error(
            "duplicate-rule",
            entry.span,
            format!("condition `{name}` is there already"),
            "give it a `name` of its own",
        );
        return;
    }
    let _ = column;
    table.conditions.push(RowCondition {
        name,
        condition: sql.to_owned(),
        description: text(entry, "description"),
        dimension: read_dimension(entry),
    });
}

fn read_dimension(entry: &Node) -> Option<Dimension> {
    let word = entry.get("dimension").and_then(Node::text)?;
    Dimension::ALL.iter().find(|(name, _)| *name == word).map(|(_, dimension)| *dimension)
}

/// `rowCount > 1000`, `nullValues(segment) < 5%`; in a column's rules the column is implied.
fn read_short_rule(
    document: &mut Document<'_>,
    table: &Table,
    node: &Node,
    rule: &str,
    column: Option<&str>,
) -> Option<MetricRule> {
    let usage = "write `<metric> <operator> <number>[%]`, such as `rowCount > 1000` or `nullValues(segment) < 5%`";
    let fail = |document: &mut Document<'_>, why: String| {
        document.error("invalid-rule", node.span, why, usage);
        None
    };
    let Some(at) = rule.find(['<', '>', '=', '!']) else {
        return fail(document, format!("`{rule}` has no operator"));
    };
    let operator: String = rule[at..].chars().take_while(|c| matches!(c, '<' | '>' | '=' | '!')).collect();
    let (subject, bound) = (rule[..at].trim(), rule[at + operator.len()..].trim());
    let (word, argument) = match subject.strip_suffix(')').and_then(|subject| subject.split_once('(')) {
        Some((word, argument)) => (word.trim(), Some(argument.trim())),
        None => (subject, column),
    };
    let (number, unit) = match bound.strip_suffix('%') {
        Some(number) => (number.trim(), Unit::Percent),
        None => (bound, Unit::Rows),
    };
    let Some(number) = number.parse::<f64>().ok().filter(|number| number.is_finite()) else {
        return fail(document, format!("`{bound}` is not a number"));
    };
    let threshold = match operator.as_str() {
        "=" | "==" => Threshold::MustBe(number),
        "!=" | "<>" => Threshold::MustNotBe(number),
        ">" => Threshold::MustBeGreaterThan(number),
        ">=" => Threshold::MustBeGreaterOrEqualTo(number),
        "<" => Threshold::MustBeLessThan(number),
        "<=" => Threshold::MustBeLessOrEqualTo(number),
        _ => return fail(document, format!("`{operator}` is not an operator")),
    };
    let columns: Vec<String> = match argument {
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
        None => Vec::new(),
    };
    let metric = build_metric(document, table, node, word, columns, None, usage)?;
    if unit == Unit::Percent && metric == Metric::RowCount {
        return fail(document, "`rowCount` has no percentage".to_owned());
    }
    let mut name = rule.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(column) = column {
        name = format!("{column}: {name}");
    }
    Some(MetricRule { name, metric, unit, threshold, severity: Severity::Error, dimension: None, description: None })
}

fn build_metric(
    document: &mut Document<'_>,
    table: &Table,
    at: &Node,
    word: &str,
    columns: Vec<String>,
    arguments: Option<&Node>,
    usage: &str,
) -> Option<Metric> {
    for column in &columns {
        let found = find_column(document, table, at, column)?;
        if word == "duplicateValues" && !found.data_type.is_scalar() {
            document.error(
                "invalid-rule",
                at.span,
                format!("`{column}` is {}, whose duplicates cannot be counted", found.data_type),
                "use scalar columns",
            );
            return None;
        }
    }
    let mut single = || match columns.as_slice() {
        [column] => Some(column.clone()),
        [] => {
            document.error(
                "invalid-rule",
                at.span,
                format!("`{word}` measures a column, but none is named"),
                format!("add `column:`, or write it as `{word}(column)`"),
            );
            None
        }
        _ => {
            document.error(
                "invalid-rule",
                at.span,
                format!("`{word}` measures one column"),
                "write a rule for each column",
            );
            None
        }
    };
    let values = |key: &str| arguments.and_then(|arguments| arguments.get(key)).and_then(Node::items);
    Some(match word {
        "rowCount" => Metric::RowCount,
        "nullValues" => Metric::NullValues { column: single()? },
        "missingValues" => {
            Metric::MissingValues {
                column: single()?,
                missing: match values("missingValues") {
                    Some(items) => items
                        .iter()
                        .map(|item| {
                            if item.is_null() && item.text() != Some("") {
                                None
                            } else {
                                item.text().map(str::to_owned)
                            }
                        })
                        .collect(),
                    None => vec![None, Some(String::new())],
                },
            }
        }
        "invalidValues" => {
            let column = single()?;
            let valid =
                values("validValues").map(|items| items.iter().filter_map(Node::text).map(str::to_owned).collect());
            let pattern = arguments.and_then(|arguments| arguments.get("pattern"));
            if let Some(pattern) = pattern
                && !check_pattern(document, pattern)
            {
                return None;
            }
            let pattern = pattern.and_then(Node::text).map(str::to_owned);
            if valid.is_none() && pattern.is_none() {
                document.error(
                    "invalid-rule",
                    at.span,
                    "`invalidValues` needs to know which values are valid",
                    "add `arguments: {validValues: […]}` or `arguments: {pattern: …}`",
                );
                return None;
            }
            Metric::InvalidValues { column, valid, pattern }
        }
        "duplicateValues" if columns.is_empty() => {
            single()?;
            return None;
        }
        "duplicateValues" => Metric::DuplicateValues { columns },
        _ => {
            let words = ["rowCount", "nullValues", "missingValues", "invalidValues", "duplicateValues"];
            let help = match closest(word, words.into_iter()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => usage.to_owned(),
            };
            document.error("unknown-metric", at.span, format!("unknown metric `{word}`"), help);
            return None;
        }
    })
}

fn read_metric(document: &mut Document<'_>, table: &Table, entry: &Node, column: Option<&str>) -> Option<MetricRule> {
    let kind = entry.get("type").and_then(Node::text);
    if let Some(kind @ ("text" | "custom")) = kind {
        document.report(
            datamesh_core::Level::Note,
            "not-enforced",
            entry.span,
            format!("a rule of type `{kind}` is declared, not enforced"),
            "",
        );
        return None;
    }
    let sql = entry.get("sql").or_else(|| entry.get("query"));
    let word = entry.get("metric").or_else(|| entry.get("rule"));
    let usage = "give a rule `metric:`, `sql:` or `condition:`";
    let metric = match (sql, word) {
        (Some(sql), None) => {
            let query = sql.text()?.trim().trim_end_matches(';').to_owned();
            if query.is_empty() {
                document.error("invalid-rule", sql.span, "the query is empty", "write a SELECT for one number");
                return None;
            }
            Metric::Sql { query }
        }
        (None, Some(word)) => {
            let arguments = entry.get("arguments");
            let mut columns: Vec<String> = texts(arguments.and_then(|arguments| arguments.get("properties")));
            if columns.is_empty() {
                columns = text(entry, "column").or_else(|| column.map(str::to_owned)).into_iter().collect();
            }
            let columns = if word.text() == Some("rowCount") { Vec::new() } else { columns };
            build_metric(document, table, entry, word.text()?, columns, arguments, usage)?
        }
        (Some(_), Some(word)) => {
            document.error("mixed-rule", word.span, "a rule has either a metric or a query", "write two rules");
            return None;
        }
        (None, None) => {
            document.error("invalid-rule", entry.span, "the rule says nothing to check", usage);
            return None;
        }
    };
    let threshold = read_threshold(document, entry)?;
    let unit = match entry.get("unit").and_then(Node::text) {
        Some("percent") => Unit::Percent,
        _ => Unit::Rows,
    };
    if unit == Unit::Percent && matches!(metric, Metric::Sql { .. } | Metric::RowCount) {
        document.error(
            "invalid-rule",
            entry.span,
            format!("`{}` has no percentage", metric.word()),
            "remove `unit: percent`",
        );
        return None;
    }
    let severity = match entry.get("severity").and_then(Node::text) {
        Some("warning") => Severity::Warning,
        Some("info") => Severity::Info,
        _ => Severity::Error,
    };
    let name = text(entry, "name").unwrap_or_else(|| {
        let columns = metric.columns().join(", ");
        let subject =
            if columns.is_empty() { metric.word().to_owned() } else { format!("{}({columns})", metric.word()) };
        format!("{subject} {threshold}{}", if unit == Unit::Percent { "%" } else { "" })
    });
    Some(MetricRule {
        name,
        metric,
        unit,
        threshold,
        severity,
        dimension: read_dimension(entry),
        description: text(entry, "description"),
    })
}

fn read_threshold(document: &mut Document<'_>, entry: &Node) -> Option<Threshold> {
    let given: Vec<_> = Threshold::KEYS.iter().filter_map(|key| entry.get(key).map(|node| (*key, node))).collect();
    let [(key, node)] = given.as_slice() else {
        let (message, help) = if given.is_empty() {
            (
                "the rule has no threshold",
                "add one of mustBe, mustNotBe, mustBeGreaterThan, mustBeGreaterOrEqualTo, mustBeLessThan, mustBeLessOrEqualTo, mustBeBetween, mustNotBeBetween",
            )
        } else {
            ("the rule has several thresholds", "keep one, or use `mustBeBetween: [low, high]`")
        };
        document.error("invalid-rule", entry.span, message, help);
        return None;
    };
    if let Some(constructor) = match *key {
        "mustBeBetween" => Some(Threshold::MustBeBetween as fn(f64, f64) -> Threshold),
        "mustNotBeBetween" => Some(Threshold::MustNotBeBetween as fn(f64, f64) -> Threshold),
        _ => None,
    } {
        let numbers: Vec<f64> = node.items()?.iter().filter_map(Node::number).collect();
        return match numbers.as_slice() {
            [low, high] if low <= high => Some(constructor(*low, *high)),
            _ => {
                document.error(
                    "invalid-rule",
                    node.span,
                    format!("`{key}` takes two numbers, the smaller first"),
                    "such as [0, 10]",
                );
                None
            }
        };
    }
    let number = node.number()?;
    Some(match *key {
        "mustBe" => Threshold::MustBe(number),
        "mustNotBe" => Threshold::MustNotBe(number),
        "mustBeGreaterThan" => Threshold::MustBeGreaterThan(number),
        "mustBeGreaterOrEqualTo" => Threshold::MustBeGreaterOrEqualTo(number),
        "mustBeLessThan" => Threshold::MustBeLessThan(number),
        _ => Threshold::MustBeLessOrEqualTo(number),
    })
}
