//! Quality rules of tables and columns.

use datamesh_core::quality::{
    Comparison, Dimension, Metric, MetricRule, RowCondition, Severity, Statistic, Threshold, Unit, metric_word,
};
use datamesh_core::reference::{Reference, TableReference};
use datamesh_core::{DataType, Level, Table};

use super::{check_pattern, find_column, text, texts};
use crate::shape::{METRICS, closest};
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
            read_condition(document, table, entry, condition);
        } else if let Some(rule) = read_metric(document, table, entry, column) {
            add_metric(document, table, entry, rule);
        }
    }
}

/// The rules of a table and its columns that nothing enforces, as written, those of columns with the column's name.
pub(super) fn unenforced(table: &Node) -> Vec<serde_json::Value> {
    let is_unenforced = |rule: &&Node| matches!(rule.get("type").and_then(Node::text), Some("text" | "custom"));
    let of = |node: &Node| -> Vec<serde_json::Value> {
        let rules = node.get("quality").and_then(Node::items).unwrap_or_default().iter();
        rules.filter(is_unenforced).map(Node::to_json).collect()
    };
    let mut found = of(table);
    for column in table.get("columns").and_then(Node::items).unwrap_or_default() {
        for mut rule in of(column) {
            if let (Some(keys), Some(name)) = (rule.as_object_mut(), text(column, "name")) {
                keys.insert("column".to_owned(), name.into());
            }
            found.push(rule);
        }
    }
    found
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

/// A condition quarantines the rows that do not meet it; with a threshold, or a severity that does not reject, they are
/// counted.
fn read_condition(document: &mut Document<'_>, table: &mut Table, entry: &Node, condition: &Node) {
    for key in ["metric", "rule", "sql", "query", "compareTo"] {
        if let Some(other) = entry.get(key) {
            let message = format!("a rule with `condition` has no `{key}`");
            document.error("mixed-rule", other.span, message, "write a second rule for it");
        }
    }
    let sql = condition.text().unwrap_or_default().trim();
    if sql.is_empty() {
        document.error(
            "empty-condition",
            condition.span,
            "the condition is empty",
            "write an SQL condition such as `ship_date >= order_date`",
        );
        return;
    }
    let told = ["groupBy", "unit"].iter().find_map(|key| entry.get(key).map(|at| (*key, at)));
    let counts =
        has_threshold(entry) || entry.get("severity").is_some() && read_severity(document, entry) != Severity::Error;
    if counts {
        let metric = Metric::FailedRows { condition: sql.to_owned() };
        if let Some(rule) = finish_rule(document, table, entry, metric, None, Some(Threshold::MustBe(0.0))) {
            add_metric(document, table, entry, rule);
        }
        return;
    }
    if let Some((key, at)) = told {
        let message = format!("a condition judges each row, so it has no `{key}` by itself");
        document.error("mixed-rule", at.span, message, UNCOUNTED);
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
    table.conditions.push(RowCondition {
        name,
        condition: sql.to_owned(),
        description: text(entry, "description"),
        dimension: read_dimension(entry),
        filter: read_filter(document, entry),
    });
}

/// What to do about a group of rows that a rule does not count.
pub(super) const UNCOUNTED: &str =
    "say how many of its rows may fail, such as `fail: \"> 5%\"`: they are counted then instead of quarantined";

/// Whether a rule says how much of something may be.
pub(super) fn has_threshold(entry: &Node) -> bool {
    ["warn", "fail"].iter().chain(&Threshold::KEYS).any(|key| entry.get(key).is_some())
}

/// A reference whose rows are counted.
pub(super) fn read_orphans(document: &mut Document<'_>, table: &mut Table, entry: &Node, reference: Reference) {
    let Reference { columns, to, at, .. } = reference;
    let compared = Comparison { table: to, column: None, filter: None };
    let metric = Metric::OrphanedRows { columns, at };
    if let Some(rule) = finish_rule(document, table, entry, metric, Some(compared), None) {
        add_metric(document, table, entry, rule);
    }
}

/// A rule's `where`.
pub(super) fn read_filter(document: &mut Document<'_>, entry: &Node) -> Option<String> {
    let at = entry.get("where")?;
    let condition = at.text()?.trim();
    if condition.is_empty() {
        document.error(
            "empty-condition",
            at.span,
            "`where` is empty",
            "write an SQL condition such as `country = 'DE'`",
        );
        return None;
    }
    Some(condition.to_owned())
}

/// A severity. ODCS allows any text: what is no word of ours is an error, to be safe, and `check` says so.
pub(super) fn read_severity(document: &mut Document<'_>, entry: &Node) -> Severity {
    let Some(at) = entry.get("severity") else { return Severity::Error };
    match at.text().unwrap_or_default() {
        "warning" | "warn" => Severity::Warning,
        "info" => Severity::Info,
        "error" => Severity::Error,
        other => {
            let help = match closest(other, ["error", "warning", "info"].into_iter()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => "one of: error, warning, info".to_owned(),
            };
            let message = format!("severity `{other}` is read as `error`");
            document.report(Level::Note, "unknown-severity", at.span, message, help);
            Severity::Error
        }
    }
}

fn read_dimension(entry: &Node) -> Option<Dimension> {
    let word = entry.get("dimension").and_then(Node::text)?;
    Dimension::ALL.iter().find(|(name, _)| *name == word).map(|(_, dimension)| *dimension)
}

const SHORT_USAGE: &str = "write `<metric> <operator> <number>[%]`, such as `rowCount > 1000`, `nullValues(segment) < 5%`, `mean(price) between 1 and 5` or `freshness(updated_at) < 1h`";

/// `rowCount > 1000`, `nullValues(segment) < 5%`, `quantile(price, 0.95) between 1 and 5`, `sequenceGaps(id)`; in a
/// column's rules the column is implied.
fn read_short_rule(
    document: &mut Document<'_>,
    table: &Table,
    node: &Node,
    rule: &str,
    column: Option<&str>,
) -> Option<MetricRule> {
    let fail = |document: &mut Document<'_>, why: String| {
        document.error("invalid-rule", node.span, why, SHORT_USAGE);
        None
    };
    let (subject, comparison) = split_subject(rule);
    let comparison = match comparison {
        Some(text) => match read_comparison(text) {
            Ok(comparison) => Some(comparison),
            Err(why) => return fail(document, why),
        },
        None => None,
    };
    let (word, argument) = match subject.strip_suffix(')').and_then(|subject| subject.split_once('(')) {
        Some((word, argument)) => (word.trim(), Some(argument.trim())),
        None => (subject, None),
    };
    let mut columns: Vec<String> = match argument {
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
        None => Vec::new(),
    };
    let mut quantile = None;
    if metric_word(word) == Some("quantile") {
        quantile = columns.last().and_then(|last| last.parse::<f64>().ok());
        if quantile.is_some() {
            columns.pop();
        }
    }
    if columns.is_empty() && metric_word(word) != Some("rowCount") {
        columns = column.map(str::to_owned).into_iter().collect();
    }
    let details = Details { quantile, ..Details::default() };
    let metric = build_metric(document, table, node, word, columns, None, details, SHORT_USAGE)?;
    let (threshold, unit) = match comparison.or_else(|| Some((natural(&metric)?, None))) {
        Some(comparison) => comparison,
        None => return fail(document, format!("`{rule}` has no operator")),
    };
    let unit = fit_unit(document, node, &metric, unit, false)?;
    let mut name = rule.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(column) = column {
        name = format!("{column}: {name}");
    }
    Some(MetricRule {
        name,
        metric,
        unit,
        threshold,
        severity: Severity::Error,
        dimension: None,
        description: None,
        filter: None,
        group_by: Vec::new(),
        warn: None,
        compare_to: None,
    })
}

/// What a rule of this metric means without a threshold.
fn natural(metric: &Metric) -> Option<Threshold> {
    matches!(metric, Metric::OutOfOrderValues { .. } | Metric::SequenceGaps { .. }).then_some(Threshold::MustBe(0.0))
}

/// Splits `mean(a) > 5` before its operator. A parenthesis hides what is in it.
fn split_subject(rule: &str) -> (&str, Option<&str>) {
    let from = rule.rfind(')').map_or(0, |at| at + 1);
    let tail = &rule[from..];
    let word = |word: &str| tail.to_ascii_lowercase().find(word).map(|at| at + 1);
    let at = [tail.find(['<', '>', '=', '!']), word(" not between "), word(" between ")].into_iter().flatten().min();
    match at {
        Some(at) => (rule[..from + at].trim(), Some(rule[from + at..].trim())),
        None => (rule.trim(), None),
    }
}

/// Reads `> 5`, `<= 5%`, `< 1h`, `between 1 and 5`, `not between 1% and 5%`.
fn read_comparison(text: &str) -> Result<(Threshold, Option<Unit>), String> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if let Some(at) = lower.find("between ").filter(|at| matches!(lower[..*at].trim(), "" | "not")) {
        let rest = &text[at + "between ".len()..];
        let split = rest.to_ascii_lowercase().find(" and ").ok_or_else(|| format!("`{text}` has no `and`"))?;
        let (low, first) = read_number(&rest[..split])?;
        let (high, unit) = read_number(&rest[split + " and ".len()..])?;
        if low > high || (first.is_some() && first != unit) {
            return Err(format!("`{text}`: the smaller number comes first, both in one unit"));
        }
        let negated = lower.starts_with("not");
        return Ok((
            if negated { Threshold::MustNotBeBetween(low, high) } else { Threshold::MustBeBetween(low, high) },
            unit,
        ));
    }
    let operator: String = text.chars().take_while(|c| matches!(c, '<' | '>' | '=' | '!')).collect();
    let (number, unit) = read_number(&text[operator.len()..])?;
    let threshold = match operator.as_str() {
        "=" | "==" => Threshold::MustBe(number),
        "!=" | "<>" => Threshold::MustNotBe(number),
        ">" => Threshold::MustBeGreaterThan(number),
        ">=" => Threshold::MustBeGreaterOrEqualTo(number),
        "<" => Threshold::MustBeLessThan(number),
        "<=" => Threshold::MustBeLessOrEqualTo(number),
        "" => return Err(format!("`{text}` has no operator")),
        _ => return Err(format!("`{operator}` is not an operator")),
    };
    Ok((threshold, unit))
}

/// Reads `5`, `5%`, `1.5h`, `2 days`.
fn read_number(text: &str) -> Result<(f64, Option<Unit>), String> {
    let text = text.trim();
    let parse = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    if let Some(number) = parse(text) {
        return Ok((number, None));
    }
    let end = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%').len();
    match (parse(&text[..end]), Unit::parse(&text[end..])) {
        (Some(number), Some(unit)) => Ok((number, Some(unit))),
        (Some(_), None) => Err(format!("`{}` is not a unit", &text[end..])),
        _ => Err(format!("`{text}` is not a number")),
    }
}

/// The unit of a rule, where it fits the metric.
fn fit_unit(
    document: &mut Document<'_>,
    at: &Node,
    metric: &Metric,
    unit: Option<Unit>,
    compared: bool,
) -> Option<Unit> {
    let age = matches!(metric, Metric::Freshness { .. });
    match unit {
        None => Some(if age { Unit::Seconds } else { Unit::Rows }),
        Some(unit) if unit.seconds().is_some() => {
            if !age {
                let message = format!("`{}` is no time", metric.word());
                document.error("invalid-rule", at.span, message, "only `freshness` has a unit of time");
            }
            age.then_some(unit)
        }
        Some(Unit::Percent) if !metric.counts_rows() && !compared => {
            let message = format!("`{}` has no percentage", metric.word());
            document.error("invalid-rule", at.span, message, "remove `%`, or `unit: percent`");
            None
        }
        Some(Unit::Rows) if age => Some(Unit::Seconds),
        Some(unit) => Some(unit),
    }
}

/// What some metrics need beside their columns.
#[derive(Default)]
struct Details {
    quantile: Option<f64>,
    order_by: Vec<String>,
    decreasing: bool,
    strictly: bool,
}

#[expect(clippy::too_many_arguments, reason = "the parts of a rule as they are written")]
fn build_metric(
    document: &mut Document<'_>,
    table: &Table,
    at: &Node,
    word: &str,
    columns: Vec<String>,
    arguments: Option<&Node>,
    details: Details,
    usage: &str,
) -> Option<Metric> {
    let word = metric_word(word).unwrap_or(word);
    for column in columns.iter().chain(&details.order_by) {
        let found = find_column(document, table, at, column)?;
        if let Err(fit) = fits(word, &found.data_type, details.order_by.contains(column)) {
            let message = format!("`{column}` is {}, which `{word}` cannot measure", found.data_type);
            document.error("invalid-rule", at.span, message, format!("use {fit}"));
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
        "minimum" => Metric::Statistic { column: single()?, statistic: Statistic::Minimum },
        "maximum" => Metric::Statistic { column: single()?, statistic: Statistic::Maximum },
        "mean" => Metric::Statistic { column: single()?, statistic: Statistic::Mean },
        "sum" => Metric::Statistic { column: single()?, statistic: Statistic::Sum },
        "standardDeviation" => Metric::Statistic { column: single()?, statistic: Statistic::StandardDeviation },
        "countDistinct" => Metric::Statistic { column: single()?, statistic: Statistic::CountDistinct },
        "quantile" => {
            let column = single()?;
            let Some(share) = details.quantile.filter(|share| (0.0..=1.0).contains(share)) else {
                document.error(
                    "invalid-rule",
                    at.span,
                    "`quantile` needs the share of values below it, 0 to 1",
                    format!("write `quantile({column}, 0.95)`, or `arguments: {{quantile: 0.95}}`"),
                );
                return None;
            };
            Metric::Statistic { column, statistic: Statistic::Quantile(share) }
        }
        "freshness" => Metric::Freshness { column: single()? },
        "sequenceGaps" => Metric::SequenceGaps { column: single()? },
        "outOfOrderValues" => {
            let column = single()?;
            if details.order_by.is_empty() {
                document.error(
                    "invalid-rule",
                    at.span,
                    "`outOfOrderValues` needs to know which row comes before: a table has no order of its own",
                    "write an object with `arguments: {orderBy: [column]}`",
                );
                return None;
            }
            let Details { order_by, decreasing, strictly, .. } = details;
            Metric::OutOfOrderValues { column, order_by, decreasing, strictly }
        }
        _ => {
            let help = match closest(word, METRICS.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => usage.to_owned(),
            };
            document.error("unknown-metric", at.span, format!("unknown metric `{word}`"), help);
            return None;
        }
    })
}

/// Whether a metric can measure a column of this type, or what it can.
fn fits(word: &str, data_type: &DataType, orders: bool) -> Result<(), &'static str> {
    use DataType as T;
    let (fits, what) = match word {
        "duplicateValues" | "countDistinct" => (data_type.is_scalar(), "scalar columns"),
        "minimum" | "maximum" | "mean" | "sum" | "standardDeviation" | "quantile" => {
            (data_type.is_numeric(), "a column of numbers")
        }
        "freshness" => (matches!(data_type, T::Date | T::Timestamp | T::TimestampNtz), "a date or a timestamp"),
        "sequenceGaps" => (matches!(data_type, T::Int | T::Long | T::Date), "a column of whole numbers or dates"),
        "outOfOrderValues" if orders => (data_type.is_scalar(), "scalar columns in `orderBy`"),
        "outOfOrderValues" => (data_type.is_ordered(), "a column whose values have an order"),
        _ => (true, ""),
    };
    if fits { Ok(()) } else { Err(what) }
}

/// The columns of `groupBy`.
fn read_groups(document: &mut Document<'_>, table: &Table, entry: &Node) -> Option<Vec<String>> {
    let Some(at) = entry.get("groupBy") else { return Some(Vec::new()) };
    let columns = texts(Some(at));
    if columns.is_empty() {
        document.error("invalid-rule", at.span, "`groupBy` names no column", "name its columns, or remove it");
        return None;
    }
    for name in &columns {
        let column = find_column(document, table, at, name)?;
        if !column.data_type.is_scalar() {
            let message = format!("`{name}` is {}, which cannot make groups", column.data_type);
            document.error("invalid-rule", at.span, message, "group by scalar columns");
            return None;
        }
    }
    Some(columns)
}

/// The other table of a comparison: `domain/product.table[.column]`, `table[.column]`, or an object.
fn read_compared(document: &mut Document<'_>, entry: &Node, metric: &Metric) -> Option<Option<Comparison>> {
    let Some(at) = entry.get("compareTo") else { return Some(None) };
    let measured = match metric {
        Metric::RowCount => None,
        Metric::NullValues { column } | Metric::Statistic { column, .. } => Some(column.clone()),
        other => {
            let message = format!("`{}` cannot be compared with another table", other.word());
            document.error("invalid-rule", at.span, message, "compare rowCount, nullValues or a statistic");
            return None;
        }
    };
    let (text, object) = match at.text() {
        Some(text) => (text, None),
        None => (at.get("table")?.text()?, Some(at)),
    };
    let parsed = match TableReference::parse(text) {
        Err(why) if object.is_none() && measured.is_some() => match TableReference::parse_column(text) {
            Ok((table, column)) => Ok((table, Some(column))),
            Err(_) => Err(why),
        },
        Ok(table) => Ok((table, None)),
        Err(why) => Err(why),
    };
    match parsed {
        Ok((table, column)) => {
            let column = column.or_else(|| object.and_then(|at| self::text(at, "column")));
            let column = measured.map(|own| column.unwrap_or(own));
            Some(Some(Comparison { table, column, filter: object.and_then(|at| read_filter(document, at)) }))
        }
        Err(why) => {
            let usage = "write `domain/product.table`, or `table` of this product; a column follows after a dot";
            document.error("invalid-reference", at.span, why, usage);
            None
        }
    }
}

/// The thresholds of a rule: what it must be, and what it must be not to be warned about.
struct Thresholds {
    must: Threshold,
    warn: Option<Threshold>,
    unit: Option<Unit>,
    /// Nothing but a warning was asked for.
    only_warns: bool,
}

fn read_thresholds(document: &mut Document<'_>, entry: &Node, natural: Option<Threshold>) -> Option<Thresholds> {
    let mut when = |key: &str| -> Option<Option<(Threshold, Option<Unit>)>> {
        let Some(at) = entry.get(key) else { return Some(None) };
        match read_comparison(at.text()?) {
            Ok((when, unit)) => Some(Some((when.opposite(), unit))),
            Err(why) => {
                let help = format!("`{key}` says when to {key}, such as `{key}: \"> 5%\"`");
                document.error("invalid-rule", at.span, why, help);
                None
            }
        }
    };
    let (warn, fail) = (when("warn")?, when("fail")?);
    let given = Threshold::KEYS.iter().any(|key| entry.get(key).is_some());
    if let Some(at) = entry.get("fail").filter(|_| given) {
        document.error("invalid-rule", at.span, "the rule has both `fail` and a `mustBe…`", "keep one of them");
        return None;
    }
    let units: Vec<Unit> = [warn, fail].into_iter().flatten().filter_map(|(_, unit)| unit).collect();
    if units.iter().any(|unit| *unit != units[0]) {
        document.error("invalid-rule", entry.span, "`warn` and `fail` have different units", "use one unit in both");
        return None;
    }
    let unit = units.first().copied();
    let warning = warn.map(|(threshold, _)| threshold);
    Some(match (fail, warning) {
        (Some((must, _)), warn) => Thresholds { must, warn, unit, only_warns: false },
        (None, Some(must)) if !given => Thresholds { must, warn: None, unit, only_warns: true },
        (None, warn) => {
            let must = if given || natural.is_none() { read_threshold(document, entry)? } else { natural? };
            Thresholds { must, warn, unit, only_warns: false }
        }
    })
}

/// A query with `{column}` and ODCS's `${column}`, `${property}` replaced by the rule's column.
fn with_column(document: &mut Document<'_>, at: &Node, query: &str, column: Option<&str>) -> Option<String> {
    let names = ["${column}", "{column}", "${property}", "{property}"];
    if !names.iter().any(|name| query.contains(name)) {
        return Some(query.to_owned());
    }
    let Some(column) = column else {
        let message = "the query names its column by a placeholder, but the rule has no column";
        document.error("invalid-rule", at.span, message, "put the rule below a column, or add `column:`");
        return None;
    };
    let quoted = format!("\"{}\"", column.replace('"', "\"\""));
    Some(names.iter().fold(query.to_owned(), |query, name| query.replace(name, &quoted)))
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
            let named = text(entry, "column");
            let query = with_column(document, sql, &query, named.as_deref().or(column))?;
            let instead = [
                ("where", "say it in the query, such as `SELECT count(*) FROM {object} WHERE …`"),
                (
                    "groupBy",
                    "say it in the query, such as `SELECT max(n) FROM (SELECT count(*) AS n FROM {object} GROUP BY …)`",
                ),
                ("compareTo", "say it in the query"),
            ];
            for (key, help) in instead {
                if let Some(at) = entry.get(key) {
                    let message = format!("a rule with a query has no `{key}`");
                    document.error("mixed-rule", at.span, message, help);
                    return None;
                }
            }
            Metric::Sql { query }
        }
        (None, Some(word)) => {
            let arguments = entry.get("arguments");
            let mut columns: Vec<String> = texts(arguments.and_then(|arguments| arguments.get("properties")));
            if columns.is_empty() {
                columns = text(entry, "column").or_else(|| column.map(str::to_owned)).into_iter().collect();
            }
            let columns = if word.text().and_then(metric_word) == Some("rowCount") { Vec::new() } else { columns };
            let argument = |key: &str| arguments.and_then(|arguments| arguments.get(key));
            let details = Details {
                quantile: argument("quantile").and_then(Node::number),
                order_by: texts(argument("orderBy")),
                decreasing: argument("decreasing").and_then(Node::boolean).unwrap_or(false),
                strictly: argument("strictly").and_then(Node::boolean).unwrap_or(false),
            };
            build_metric(document, table, entry, word.text()?, columns, arguments, details, usage)?
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
    let compare_to = read_compared(document, entry, &metric)?;
    let natural = natural(&metric).or_else(|| compare_to.is_some().then_some(Threshold::MustBe(0.0)));
    finish_rule(document, table, entry, metric, compare_to, natural)
}

/// The rule of a metric. `natural`: its threshold where it says none.
fn finish_rule(
    document: &mut Document<'_>,
    table: &Table,
    entry: &Node,
    metric: Metric,
    compare_to: Option<Comparison>,
    natural: Option<Threshold>,
) -> Option<MetricRule> {
    let group_by = read_groups(document, table, entry)?;
    let Thresholds { must: threshold, warn, unit, only_warns } = read_thresholds(document, entry, natural)?;
    let declared = match entry.get("unit") {
        Some(at) => match Unit::parse(at.text().unwrap_or_default()) {
            Some(unit) => Some(unit),
            None => {
                // ODCS allows any unit; it then only says what the number counts.
                let text = at.text().unwrap_or_default();
                let help = match closest(text, Unit::WORDS.iter().map(|(word, _)| *word)) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => "rows, percent, seconds, minutes, hours and days are known".to_owned(),
                };
                let message = format!("unit `{text}` changes nothing: the number is compared as it is");
                document.report(Level::Note, "unknown-unit", at.span, message, help);
                None
            }
        },
        None => None,
    };
    if let (Some(declared), Some(written)) = (declared, unit)
        && declared != written
    {
        document.error("invalid-rule", entry.span, "`unit` and the threshold's unit differ", "keep one of them");
        return None;
    }
    let unit = fit_unit(document, entry, &metric, unit.or(declared), compare_to.is_some())?;
    let severity = match entry.get("severity") {
        None if only_warns => Severity::Warning,
        _ => read_severity(document, entry),
    };
    // Other metrics have always rejected so.
    let counts = matches!(metric, Metric::FailedRows { .. } | Metric::OrphanedRows { .. });
    if let Some(at) = entry.get("severity").filter(|_| counts && only_warns && severity == Severity::Error) {
        let message = "the rule says only when to warn, but its severity is `error`";
        document.error("invalid-rule", at.span, message, "say when to reject with `fail`, or remove `severity`");
        return None;
    }
    let filter = read_filter(document, entry);
    let name = text(entry, "name").unwrap_or_else(|| {
        let mut columns = metric.columns();
        if let Metric::OutOfOrderValues { .. } = metric {
            columns.truncate(1);
        }
        let mut subject = metric.word().to_owned();
        match &metric {
            Metric::Statistic { column, statistic: Statistic::Quantile(share) } => {
                subject.push_str(&format!("({column}, {share})"));
            }
            Metric::FailedRows { condition } => {
                subject.push_str(&format!("({})", condition.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
            _ if columns.is_empty() => {}
            _ => subject.push_str(&format!("({})", columns.join(", "))),
        }
        match (&compare_to, &metric) {
            (Some(other), Metric::OrphanedRows { at, .. }) => {
                subject.push_str(&format!(" in {}.{}", other.table, at.join("+")));
            }
            (Some(other), _) => subject.push_str(&format!(" compared to {}", other.table)),
            (None, _) => {}
        }
        if let Some(filter) = &filter {
            subject.push_str(&format!(" where {}", filter.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        if !group_by.is_empty() {
            subject.push_str(&format!(" by {}", group_by.join(", ")));
        }
        let suffix = if unit == Unit::Seconds && declared.is_none() { "" } else { unit.suffix() };
        format!("{subject} {threshold}{suffix}")
    });
    Some(MetricRule {
        name,
        metric,
        unit,
        threshold,
        severity,
        dimension: read_dimension(entry),
        description: text(entry, "description"),
        filter,
        group_by,
        warn,
        compare_to,
    })
}

fn read_threshold(document: &mut Document<'_>, entry: &Node) -> Option<Threshold> {
    let given: Vec<_> = Threshold::KEYS.iter().filter_map(|key| entry.get(key).map(|node| (*key, node))).collect();
    let [(key, node)] = given.as_slice() else {
        let (message, help) = if given.is_empty() {
            (
                "the rule has no threshold",
                "add `fail`, `warn`, or one of mustBe, mustNotBe, mustBeGreaterThan, mustBeGreaterOrEqualTo, mustBeLessThan, mustBeLessOrEqualTo, mustBeBetween, mustNotBeBetween",
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
