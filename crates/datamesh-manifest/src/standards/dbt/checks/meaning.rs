//! What the well-known tests mean: those of dbt itself, of dbt_utils and of dbt_expectations.

use datamesh_core::{DataType, scalar};

use super::super::table::{ColumnDraft, TableDraft};
use super::{identifier, is_template, referred};
use crate::standards::tree::{Map, Tree};

/// A generic test as dbt records it.
pub(super) struct Test<'t> {
    pub(super) name: &'t str,
    /// The package that it comes from; `None` is dbt itself.
    pub(super) namespace: Option<&'t str>,
    pub(super) arguments: Map,
    pub(super) column: Option<String>,
    /// The unique ids of the models and sources it looks at.
    pub(super) needs: &'t [&'t str],
}

/// What a test means in our words.
pub(super) enum Meaning {
    /// Nothing that a contract does not say anyway.
    Implied,
    /// Each row must meet a condition; on a column, keys can say the same.
    Rows { column: Option<String>, keys: Vec<(&'static str, Tree)>, good: String },
    /// Columns are a key.
    Unique { columns: Vec<String> },
    /// Metric rules, without severity.
    Measures(Vec<Map>),
    /// Values are found in a column of another model.
    Refers { column: String, to: String, at: String },
}

/// What a test means. The error says why there is no counterpart.
pub(super) fn meaning(test: &Test<'_>, table: &TableDraft) -> Result<Meaning, String> {
    let asked = Asked { test, table };
    match (test.namespace.unwrap_or("dbt"), test.name) {
        ("dbt", "not_null") | ("dbt_expectations", "expect_column_values_to_not_be_null") => asked.not_null(),
        ("dbt", "unique") | ("dbt_expectations", "expect_column_values_to_be_unique") => {
            let columns = vec![asked.column()?.name.clone()];
            asked.without_row_condition(Meaning::Unique { columns })
        }
        ("dbt", "accepted_values") => asked.accepted("values", true),
        ("dbt_expectations", "expect_column_values_to_be_in_set") => asked.accepted("value_set", true),
        ("dbt_utils", "not_accepted_values") => asked.accepted("values", false),
        ("dbt_expectations", "expect_column_values_to_not_be_in_set") => asked.accepted("value_set", false),
        ("dbt", "relationships") => asked.relationship(),
        ("dbt_utils", "unique_combination_of_columns") => asked.combination("combination_of_columns"),
        ("dbt_expectations", "expect_compound_columns_to_be_unique") => asked.combination("column_list"),
        ("dbt_utils" | "dbt_expectations", "expression_is_true") => asked.expression(),
        ("dbt_utils", "accepted_range") => asked.range(asked.flag("inclusive", true)),
        ("dbt_expectations", "expect_column_values_to_be_between") => asked.range(!asked.flag("strictly", false)),
        ("dbt_utils", "not_null_proportion") => asked.proportion(),
        ("dbt_utils", "not_empty_string") => {
            let trims = asked.flag("trim_whitespace", true);
            let name = identifier(&asked.column()?.name);
            let (pattern, good) =
                if trims { (r"\S", format!("trim({name}) <> ''")) } else { ("(?s).", format!("{name} <> ''")) };
            asked.rows(vec![("pattern", pattern.into())], good)
        }
        ("dbt_utils", "not_constant") => {
            asked.measure("countDistinct", [("mustBeGreaterThan", Tree::Number("1".into()))])
        }
        ("dbt_utils", "at_least_one") => {
            let good = identifier(&asked.column()?.name);
            let mut rule = Map::new();
            rule.put("sql", format!("SELECT count({good}) FROM {{object}}"));
            rule.put("mustBeGreaterThan", Tree::Number("0".into()));
            Ok(Meaning::Measures(vec![rule]))
        }
        ("dbt_utils", "recency") => asked.recency(asked.text("field").map(str::to_owned)),
        ("dbt_expectations", "expect_row_values_to_have_recent_data") => asked.recency(asked.test.column.clone()),
        ("dbt_expectations", "expect_column_values_to_match_regex") => asked.regex(),
        ("dbt_expectations", "expect_column_value_lengths_to_be_between") => asked.lengths("min_value", "max_value"),
        ("dbt_expectations", "expect_column_value_lengths_to_equal") => asked.lengths("value", "value"),
        ("dbt_expectations", "expect_table_row_count_to_be_between") => asked.bounded("rowCount"),
        ("dbt_expectations", "expect_table_row_count_to_equal") => {
            let value = asked.number("value")?.ok_or("it has no `value`")?;
            asked.measure("rowCount", [("mustBe", value)])
        }
        ("dbt_expectations", "expect_column_min_to_be_between") => asked.bounded("minimum"),
        ("dbt_expectations", "expect_column_max_to_be_between") => asked.bounded("maximum"),
        ("dbt_expectations", "expect_column_mean_to_be_between") => asked.bounded("mean"),
        ("dbt_expectations", "expect_column_sum_to_be_between") => asked.bounded("sum"),
        ("dbt_expectations", "expect_column_stdev_to_be_between") => asked.bounded("standardDeviation"),
        ("dbt_expectations", "expect_column_unique_value_count_to_be_between") => asked.bounded("countDistinct"),
        ("dbt_expectations", "expect_column_distinct_count_to_equal") => {
            let value = asked.number("value")?.ok_or("it has no `value`")?;
            asked.measure("countDistinct", [("mustBe", value)])
        }
        ("dbt_expectations", "expect_column_distinct_count_to_be_greater_than") => {
            let value = asked.number("value")?.ok_or("it has no `value`")?;
            asked.measure("countDistinct", [("mustBeGreaterThan", value)])
        }
        ("dbt_expectations", "expect_column_pair_values_A_to_be_greater_than_B") => {
            let name = |key: &str| asked.text(key).map(str::to_owned).ok_or_else(|| format!("it has no `{key}`"));
            let operator = if asked.flag("or_equal", false) { ">=" } else { ">" };
            let good = format!("{} {operator} {}", name("column_A")?, name("column_B")?);
            asked.condition(None, good)
        }
        ("dbt_expectations", "expect_column_to_exist") if asked.column().is_ok() => {
            asked.without_row_condition(Meaning::Implied)
        }
        (space, name) => Err(format!("`{space}.{name}` has no counterpart")),
    }
}

struct Asked<'t> {
    test: &'t Test<'t>,
    table: &'t TableDraft,
}

impl Asked<'_> {
    fn argument(&self, key: &str) -> Option<&Tree> {
        // dbt 1.10.5 and later may nest a test's own arguments.
        let nested = self.test.arguments.get("arguments").and_then(|arguments| arguments.get(key));
        self.test.arguments.get(key).or(nested).filter(|value| **value != Tree::Null)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.argument(key).and_then(Tree::as_text).map(str::trim).filter(|text| !text.is_empty())
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.argument(key).and_then(Tree::as_bool).unwrap_or(default)
    }

    fn number(&self, key: &str) -> Result<Option<Tree>, String> {
        let Some(value) = self.argument(key) else { return Ok(None) };
        let number = value.scalar().filter(|text| text.trim().parse::<f64>().is_ok_and(f64::is_finite));
        match number {
            Some(number) => Ok(Some(Tree::Number(number.trim().to_owned()))),
            None => Err(format!("`{key}` is no number")),
        }
    }

    fn column(&self) -> Result<&ColumnDraft, String> {
        let name = self.test.column.as_deref().ok_or("it names no column")?;
        self.table.column(name).ok_or_else(|| format!("`{name}` is no column of the table"))
    }

    /// A condition on which rows are looked at is known to some of the tests only.
    fn without_row_condition(&self, meaning: Meaning) -> Result<Meaning, String> {
        match self.text("row_condition") {
            None => Ok(meaning),
            Some(_) => Err("its `row_condition` has no counterpart".to_owned()),
        }
    }

    fn rows(&self, keys: Vec<(&'static str, Tree)>, good: String) -> Result<Meaning, String> {
        let column = self.column()?;
        let fits = |key: &str| match (key, &column.data_type) {
            (_, None) | ("required" | "enum", _) => true,
            ("minLength" | "maxLength" | "pattern", Some(data_type)) => data_type.is_text(),
            (_, Some(data_type)) => data_type.is_ordered(),
        };
        let keys = if keys.iter().all(|(key, _)| fits(key)) { keys } else { Vec::new() };
        self.condition(Some((column.name.clone(), keys)), good)
    }

    /// A row condition, for the rows that `row_condition` names.
    fn condition(&self, on: Option<(String, Vec<(&'static str, Tree)>)>, good: String) -> Result<Meaning, String> {
        if is_template(&good) {
            return Err("it is a template".to_owned());
        }
        let (column, keys) = on.map_or((None, Vec::new()), |(column, keys)| (Some(column), keys));
        Ok(match self.text("row_condition") {
            None => Meaning::Rows { column, keys, good },
            Some(rows) if is_template(rows) => return Err("its `row_condition` is a template".to_owned()),
            Some(rows) => Meaning::Rows { column, keys: Vec::new(), good: format!("NOT ({rows}) OR ({good})") },
        })
    }

    fn not_null(&self) -> Result<Meaning, String> {
        let good = format!("{} IS NOT NULL", identifier(&self.column()?.name));
        self.rows(vec![("required", true.into())], good)
    }

    fn accepted(&self, key: &str, inside: bool) -> Result<Meaning, String> {
        let column = self.column()?;
        let values = self.argument(key).and_then(Tree::as_list).ok_or_else(|| format!("it has no list `{key}`"))?;
        // Null is none of the values, and passes dbt's test as it passes ours.
        let values: Vec<&str> = values.iter().filter_map(Tree::scalar).collect();
        if values.is_empty() {
            return Err(format!("`{key}` is empty"));
        }
        if let Some(data_type) = &column.data_type
            && let Some(odd) = values.iter().find(|value| scalar::parse(value, data_type).is_err())
        {
            return Err(format!("`{odd}` is no value of type {data_type}"));
        }
        if !self.flag("quote", true)
            && values.iter().any(|value| value.parse::<f64>().is_err())
            && column.data_type.as_ref().is_none_or(DataType::is_text)
        {
            return Err("its values are SQL expressions".to_owned());
        }
        let literals: Vec<String> = values.iter().map(|value| literal(value, column.data_type.as_ref())).collect();
        let operator = if inside { "IN" } else { "NOT IN" };
        let good = format!("{} {operator} ({})", identifier(&column.name), literals.join(", "));
        let allowed = Tree::List(values.iter().map(|value| Tree::text(*value)).collect());
        self.rows(if inside { vec![("enum", allowed)] } else { Vec::new() }, good)
    }

    fn relationship(&self) -> Result<Meaning, String> {
        let column = self.column()?.name.clone();
        let at = self.text("field").ok_or("it has no `field`")?.trim_matches(['"', '`']).to_owned();
        let to = self.text("to").ok_or("it has no `to`")?;
        let Some(name) = referred(to) else {
            return Err(format!("`{to}` is no model of the project"));
        };
        // The unique id tells apart models of one name in several packages.
        let suffix = format!(".{name}");
        let id = self.test.needs.iter().find(|id| id.ends_with(&suffix) && **id != self.table.id);
        let to = id.map_or(name, |id| (*id).to_owned());
        Ok(Meaning::Refers { column, to, at })
    }

    fn combination(&self, key: &str) -> Result<Meaning, String> {
        let list = self.argument(key).and_then(Tree::as_list).unwrap_or_default();
        let columns: Vec<&str> = list.iter().filter_map(Tree::as_text).collect();
        if columns.is_empty() {
            return Err(format!("it has no list `{key}`"));
        }
        if let Some(unknown) = columns.iter().find(|name| self.table.column(name).is_none()) {
            return Err(format!("`{unknown}` is no column of the table"));
        }
        let named = columns.iter().filter_map(|name| self.table.column(name)).map(|column| column.name.clone());
        self.without_row_condition(Meaning::Unique { columns: named.collect() })
    }

    fn expression(&self) -> Result<Meaning, String> {
        let expression = self.text("expression").ok_or("it has no `expression`")?;
        match &self.test.column {
            Some(_) => {
                let column = self.column()?;
                let good = format!("{} {expression}", identifier(&column.name));
                self.condition(Some((column.name.clone(), Vec::new())), good)
            }
            None => self.condition(None, expression.to_owned()),
        }
    }

    fn range(&self, inclusive: bool) -> Result<Meaning, String> {
        let column = self.column()?;
        let name = identifier(&column.name);
        let mut keys = Vec::new();
        let mut conditions = Vec::new();
        let sides = if inclusive {
            [("min_value", "minimum", ">="), ("max_value", "maximum", "<=")]
        } else {
            [("min_value", "exclusiveMinimum", ">"), ("max_value", "exclusiveMaximum", "<")]
        };
        let mut plain = true;
        for (key, ours, operator) in sides {
            let Some(value) = self.argument(key) else { continue };
            let text = value.scalar().ok_or_else(|| format!("`{key}` is no value"))?.trim();
            // A text is an SQL expression: `'2020-01-01'` is a value, `current_date` is not.
            let quoted =
                text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).filter(|text| !text.contains('\''));
            let bound = quoted.unwrap_or(text);
            let is_value = (quoted.is_some() || text.parse::<f64>().is_ok_and(f64::is_finite))
                && column.data_type.as_ref().is_none_or(|data_type| scalar::parse(bound, data_type).is_ok());
            plain &= is_value;
            let number = matches!(value, Tree::Number(_)) || quoted.is_none();
            keys.push((ours, if number && is_value { Tree::Number(bound.to_owned()) } else { Tree::text(bound) }));
            conditions.push(format!("{name} {operator} {text}"));
        }
        if conditions.is_empty() {
            return Err("it has no bound".to_owned());
        }
        self.rows(if plain { keys } else { Vec::new() }, conditions.join(" AND "))
    }

    fn proportion(&self) -> Result<Meaning, String> {
        let share = |key: &str, default: &str| -> Result<f64, String> {
            let number = self.number(key)?.unwrap_or(Tree::Number(default.to_owned()));
            let share = number.scalar().and_then(|text| text.parse::<f64>().ok());
            share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| format!("`{key}` is no share"))
        };
        // Percent without the noise of binary fractions.
        let percent = |share: f64| Tree::Number((((1.0 - share) * 1e12).round() / 1e10).to_string());
        let (least, most) = (share("at_least", "0")?, share("at_most", "1")?);
        let mut rule = self.column_rule("nullValues")?;
        if most < 1.0 {
            rule.put("mustBeBetween", vec![percent(most), percent(least)]);
        } else {
            rule.put("mustBeLessOrEqualTo", percent(least));
        }
        rule.put("unit", "percent");
        self.measured(rule)
    }

    fn column_rule(&self, metric: &str) -> Result<Map, String> {
        let mut rule = Map::new();
        rule.put("metric", metric);
        if metric != "rowCount" {
            let column = self.column()?;
            let fits = match metric {
                "minimum" | "maximum" | "mean" | "sum" | "standardDeviation" => {
                    column.data_type.as_ref().is_none_or(DataType::is_numeric)
                }
                "countDistinct" => column.data_type.as_ref().is_none_or(DataType::is_scalar),
                "freshness" => column.data_type.as_ref().is_none_or(|data_type| {
                    matches!(data_type, DataType::Date | DataType::Timestamp | DataType::TimestampNtz)
                }),
                _ => true,
            };
            if !fits {
                return Err(format!("`{metric}` cannot measure `{}`", column.name));
            }
            rule.put("column", column.name.as_str());
        }
        Ok(rule)
    }

    fn measure<const N: usize>(&self, metric: &str, thresholds: [(&str, Tree); N]) -> Result<Meaning, String> {
        let mut rule = self.column_rule(metric)?;
        for (key, value) in thresholds {
            rule.put(key, value);
        }
        self.measured(rule)
    }

    /// A metric rule, by group and for some rows only where the test says so.
    fn measured(&self, mut rule: Map) -> Result<Meaning, String> {
        let groups = ["group_by", "group_by_columns"].into_iter().find_map(|key| self.argument(key));
        match groups {
            None => {}
            Some(Tree::List(groups)) if groups.is_empty() => {}
            Some(Tree::List(groups)) => {
                let columns: Option<Vec<Tree>> = groups
                    .iter()
                    .map(|group| Some(Tree::text(self.table.column(group.as_text()?)?.name.as_str())))
                    .collect();
                rule.put("groupBy", columns.ok_or("it makes groups by what is no column")?);
            }
            Some(_) => return Err("it makes groups by what is no list of columns".to_owned()),
        }
        match self.text("row_condition") {
            Some(rows) if is_template(rows) => return Err("its `row_condition` is a template".to_owned()),
            Some(rows) => rule.put("where", rows),
            None => {}
        }
        Ok(Meaning::Measures(vec![rule]))
    }

    fn bounded(&self, metric: &str) -> Result<Meaning, String> {
        let strictly = self.flag("strictly", false);
        let (above, below) = if strictly {
            ("mustBeGreaterThan", "mustBeLessThan")
        } else {
            ("mustBeGreaterOrEqualTo", "mustBeLessOrEqualTo")
        };
        match (self.number("min_value")?, self.number("max_value")?) {
            (None, None) => Err("it has no bound".to_owned()),
            (Some(least), None) => self.measure(metric, [(above, least)]),
            (None, Some(most)) => self.measure(metric, [(below, most)]),
            (Some(least), Some(most)) if !strictly => {
                self.measure(metric, [("mustBeBetween", Tree::List(vec![least, most]))])
            }
            (Some(least), Some(most)) => {
                let mut rules = Vec::new();
                for (key, value) in [(above, least), (below, most)] {
                    if let Meaning::Measures(found) = self.measure(metric, [(key, value)])? {
                        rules.extend(found);
                    }
                }
                Ok(Meaning::Measures(rules))
            }
        }
    }

    fn recency(&self, field: Option<String>) -> Result<Meaning, String> {
        let field = field.ok_or("it names no column")?;
        let column = self
            .table
            .column(field.trim_matches(['"', '`']))
            .ok_or_else(|| format!("`{field}` is no column of the table"))?;
        let interval = self.number("interval")?.ok_or("it has no `interval`")?;
        let interval: f64 = interval.scalar().and_then(|text| text.parse().ok()).unwrap_or_default();
        let part = self.text("datepart").unwrap_or_default().to_ascii_lowercase();
        let (unit, factor) = match part.trim_end_matches('s') {
            "second" => ("seconds", 1.0),
            "minute" => ("minutes", 1.0),
            "hour" => ("hours", 1.0),
            "day" => ("days", 1.0),
            "week" => ("days", 7.0),
            other => return Err(format!("`{other}` has no fixed length")),
        };
        let asked = Asked {
            test: &Test { column: Some(column.name.clone()), arguments: self.test.arguments.clone(), ..*self.test },
            table: self.table,
        };
        asked.measure(
            "freshness",
            [("mustBeLessOrEqualTo", Tree::Number((interval * factor).to_string())), ("unit", unit.into())],
        )
    }

    fn regex(&self) -> Result<Meaning, String> {
        let pattern = self.text("regex").ok_or("it has no `regex`")?;
        let flags = self.text("flags").unwrap_or_default();
        if flags.chars().any(|flag| !matches!(flag, 'i' | 'm' | 's' | 'x')) {
            return Err(format!("the flags `{flags}` have no counterpart"));
        }
        let pattern = if flags.is_empty() { pattern.to_owned() } else { format!("(?{flags}){pattern}") };
        // What a manifest keeps as text between quotes doubled the backslashes for the warehouse's own literal.
        if let Err(error) = regex::Regex::new(&pattern) {
            let why = error.to_string().lines().last().unwrap_or_default().to_owned();
            return Err(format!("its pattern is none here: {}", why.trim_start_matches("error: ")));
        }
        let good = format!("regexp_like({}, {})", identifier(&self.column()?.name), quoted(&pattern));
        self.rows(vec![("pattern", pattern.as_str().into())], good)
    }

    fn lengths(&self, least: &str, most: &str) -> Result<Meaning, String> {
        let name = identifier(&self.column()?.name);
        let strictly = self.flag("strictly", false);
        let mut keys = Vec::new();
        let mut conditions = Vec::new();
        for (key, ours, operator, step) in [(least, "minLength", ">=", 1), (most, "maxLength", "<=", -1)] {
            let Some(number) = self.number(key)? else { continue };
            let length: i64 =
                number.scalar().and_then(|text| text.parse().ok()).ok_or_else(|| format!("`{key}` is no length"))?;
            let length = length.saturating_add(if strictly { step } else { 0 });
            if length < 0 {
                return Err(format!("`{key}` is no length"));
            }
            keys.push((ours, Tree::Number(length.to_string())));
            conditions.push(format!("char_length({name}) {operator} {length}"));
        }
        if conditions.is_empty() {
            return Err("it has no bound".to_owned());
        }
        self.rows(keys, conditions.join(" AND "))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value in SQL, as a column of this type is compared with.
fn literal(text: &str, data_type: Option<&DataType>) -> String {
    match data_type {
        Some(DataType::Boolean) => text.to_ascii_lowercase(),
        Some(data_type) if data_type.is_numeric() => text.to_owned(),
        _ => quoted(text),
    }
}
