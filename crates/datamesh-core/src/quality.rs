//! Quality rules as data. Row rules quarantine rows; metric rules judge the candidate table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::{Column, Table};
use crate::datatype::DataType;
use crate::reference::{Reference, TableReference};

/// A row condition: an SQL boolean expression over the table's columns. Null passes, as in SQL's `CHECK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowCondition {
    /// Names the rule: `condition:<name>`.
    pub name: String,
    /// The SQL expression.
    pub condition: String,
    /// Why it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// ODCS quality dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<Dimension>,
    /// An SQL condition: only rows that meet it are judged.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// A rule that a metric of the candidate table meets a threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricRule {
    /// Unique among the table's rules; derived where the manifest gives no name.
    pub name: String,
    /// What is measured.
    pub metric: Metric,
    /// Rows or percent of the rows.
    #[serde(default)]
    pub unit: Unit,
    /// What the measurement must be.
    pub threshold: Threshold,
    /// Whether a failure rejects.
    #[serde(default)]
    pub severity: Severity,
    /// ODCS quality dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<Dimension>,
    /// Why the rule is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An SQL condition: only rows that meet it are measured.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Columns: each combination of their values is measured by itself, and the worst group is judged. A group without a
    /// value to measure fails; without any row the rule is judged as if it had none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_by: Vec<String>,
    /// What the measurement must be not to be warned about, beside the threshold that rejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Threshold>,
    /// Another table: what is judged is the difference to the same metric there, of orphaned rows their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare_to: Option<Comparison>,
}

impl MetricRule {
    /// Whether the measurement would show a value of a protected column.
    pub fn shows_protected(&self, table: &Table) -> bool {
        match &self.metric {
            Metric::Statistic { column, statistic } => *statistic != Statistic::CountDistinct && table.protects(column),
            Metric::Freshness { column } => table.protects(column),
            _ => false,
        }
    }

    /// The reference whose rows it counts, where it counts orphaned ones.
    pub fn reference(&self) -> Option<Reference> {
        let (Metric::OrphanedRows { columns, at }, Some(other)) = (&self.metric, &self.compare_to) else { return None };
        Some(Reference {
            columns: columns.clone(),
            to: other.table.clone(),
            at: at.clone(),
            severity: self.severity,
            description: self.description.clone(),
            filter: self.filter.clone(),
        })
    }

    /// The columns that it reads of the other table, beside those of an SQL condition there.
    pub fn columns_there(&self) -> Vec<&str> {
        let Some(other) = &self.compare_to else { return Vec::new() };
        match &self.metric {
            Metric::OrphanedRows { at, .. } => at.iter().map(String::as_str).collect(),
            metric => {
                let measured = other.column.as_deref().map_or_else(|| metric.columns(), |column| vec![column]);
                measured.into_iter().chain(self.group_by.iter().map(String::as_str)).collect()
            }
        }
    }

    /// Whether the groups' names would show a value of a protected column.
    pub fn names_protected(&self, table: &Table) -> bool {
        self.group_by.iter().any(|column| table.protects(column))
    }
}

/// The other side of a rule that compares two tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The other table.
    pub table: TableReference,
    /// The measured column there, where the metric measures one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// An SQL condition on the other table's rows.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// A statistic of one column, nulls left out. A statistic over a NaN is NaN and meets no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Statistic {
    /// Least number.
    Minimum,
    /// Greatest number.
    Maximum,
    /// Arithmetic mean.
    Mean,
    /// Sum; 0 where there is no value.
    Sum,
    /// Standard deviation of a sample (divided by n - 1).
    StandardDeviation,
    /// The value below which this share (0 to 1) of the values lies, interpolated between its two neighbours.
    Quantile(f64),
    /// Number of different values.
    CountDistinct,
}

/// The library metrics by every word they are known by, the first being the one that reports use. The words are those
/// of ODCS, then those of Deequ in ODCS's spelling, then what else is common.
pub const METRIC_WORDS: [(&str, &[&str]); 15] = [
    ("rowCount", &["size"]),
    ("nullValues", &[]),
    ("missingValues", &[]),
    ("invalidValues", &[]),
    ("duplicateValues", &[]),
    ("minimum", &["min"]),
    ("maximum", &["max"]),
    ("mean", &["avg", "average"]),
    ("sum", &[]),
    ("standardDeviation", &["stddev", "stdev", "stddevSamp"]),
    ("quantile", &["percentile", "exactQuantile"]),
    ("countDistinct", &["distinctCount", "uniqueValueCount"]),
    ("freshness", &[]),
    ("outOfOrderValues", &["monotonic"]),
    ("sequenceGaps", &["gapFree"]),
];

/// The word that reports use for a metric that the manifest calls `word`.
pub fn metric_word(word: &str) -> Option<&'static str> {
    METRIC_WORDS.iter().find(|(name, others)| *name == word || others.contains(&word)).map(|(name, _)| *name)
}

/// The metrics of ODCS's library, further ones of Deequ and Great Expectations, and SQL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Metric {
    /// Number of rows.
    RowCount,
    /// Number of rows where the column is null.
    NullValues {
        /// The measured column.
        column: String,
    },
    /// Number of rows where the column is one of the values that mean missing. Null is one where no list is given.
    MissingValues {
        /// The measured column.
        column: String,
        /// Texts that mean missing; `None` in the list is null.
        missing: Vec<Option<String>>,
    },
    /// Number of rows whose value is not null and neither in `valid` nor matching `pattern`.
    InvalidValues {
        /// The measured column.
        column: String,
        /// The valid values, as text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        valid: Option<Vec<String>>,
        /// A regular expression that valid values contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
    },
    /// Number of rows beyond the first of each distinct combination of values, rows with a null left out.
    DuplicateValues {
        /// The measured columns.
        columns: Vec<String>,
    },
    /// The single number an SQL query answers; `{object}` is the candidate table.
    Sql {
        /// One `SELECT`.
        query: String,
    },
    /// A statistic of a column's values.
    Statistic {
        /// The measured column.
        column: String,
        /// Which one.
        statistic: Statistic,
    },
    /// The time from the column's greatest value to now.
    Freshness {
        /// The measured column: a date or a timestamp; those without a zone are read as UTC.
        column: String,
    },
    /// Number of rows whose value is on the wrong side of the row before, within each group. Rows with a null in the
    /// column or in the order have no place in the sequence and are left out.
    OutOfOrderValues {
        /// The measured column.
        column: String,
        /// The columns that say which row comes before.
        order_by: Vec<String>,
        /// Whether values must fall instead of rise.
        #[serde(default)]
        decreasing: bool,
        /// Whether equal neighbours are out of order too.
        #[serde(default)]
        strictly: bool,
    },
    /// Number of values missing between the least and the greatest, a step of 1 (a day for dates) apart.
    SequenceGaps {
        /// The measured column: whole numbers or dates.
        column: String,
    },
    /// Number of rows where an SQL condition is false; null passes, as in [`RowCondition`].
    FailedRows {
        /// The SQL expression.
        condition: String,
    },
    /// Number of rows whose values are found in no row of the table in `compare_to`; a row with a null among them refers
    /// to nothing.
    OrphanedRows {
        /// The referring columns, in order.
        columns: Vec<String>,
        /// The columns there, in the same order.
        at: Vec<String>,
    },
}

impl Metric {
    /// The word ODCS uses, `sql` for queries. `failedRows` and `orphanedRows` are written as a condition and as references
    /// with a threshold.
    pub fn word(&self) -> &'static str {
        match self {
            Self::RowCount => "rowCount",
            Self::NullValues { .. } => "nullValues",
            Self::MissingValues { .. } => "missingValues",
            Self::InvalidValues { .. } => "invalidValues",
            Self::DuplicateValues { .. } => "duplicateValues",
            Self::Sql { .. } => "sql",
            Self::Statistic { statistic, .. } => match statistic {
                Statistic::Minimum => "minimum",
                Statistic::Maximum => "maximum",
                Statistic::Mean => "mean",
                Statistic::Sum => "sum",
                Statistic::StandardDeviation => "standardDeviation",
                Statistic::Quantile(_) => "quantile",
                Statistic::CountDistinct => "countDistinct",
            },
            Self::Freshness { .. } => "freshness",
            Self::OutOfOrderValues { .. } => "outOfOrderValues",
            Self::SequenceGaps { .. } => "sequenceGaps",
            Self::FailedRows { .. } => "failedRows",
            Self::OrphanedRows { .. } => "orphanedRows",
        }
    }

    /// The columns that must be read to measure it, beside those that SQL names.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::RowCount | Self::Sql { .. } | Self::FailedRows { .. } => Vec::new(),
            Self::NullValues { column } | Self::MissingValues { column, .. } | Self::InvalidValues { column, .. } => {
                vec![column]
            }
            Self::DuplicateValues { columns } | Self::OrphanedRows { columns, .. } => {
                columns.iter().map(String::as_str).collect()
            }
            Self::Statistic { column, .. } | Self::Freshness { column } | Self::SequenceGaps { column } => vec![column],
            Self::OutOfOrderValues { column, order_by, .. } => {
                std::iter::once(column).chain(order_by).map(String::as_str).collect()
            }
        }
    }

    /// What it measures of no rows; `None` where there is no value to measure.
    pub fn of_no_rows(&self) -> Option<f64> {
        match self {
            Self::RowCount
            | Self::NullValues { .. }
            | Self::MissingValues { .. }
            | Self::InvalidValues { .. }
            | Self::DuplicateValues { .. }
            | Self::OutOfOrderValues { .. }
            | Self::SequenceGaps { .. }
            | Self::FailedRows { .. }
            | Self::OrphanedRows { .. }
            | Self::Statistic { statistic: Statistic::Sum | Statistic::CountDistinct, .. } => Some(0.0),
            Self::Statistic { .. } | Self::Freshness { .. } | Self::Sql { .. } => None,
        }
    }

    /// Whether it counts rows, so that it has a percentage of the rows.
    pub fn counts_rows(&self) -> bool {
        matches!(
            self,
            Self::NullValues { .. }
                | Self::MissingValues { .. }
                | Self::InvalidValues { .. }
                | Self::DuplicateValues { .. }
                | Self::OutOfOrderValues { .. }
                | Self::FailedRows { .. }
                | Self::OrphanedRows { .. }
        )
    }
}

/// What a measurement counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A number of rows.
    #[default]
    Rows,
    /// Percent of the candidate's rows (with `compareTo`: of the other table's measurement); 0 for an empty table.
    Percent,
    /// Seconds of time.
    Seconds,
    /// Minutes of time.
    Minutes,
    /// Hours of time.
    Hours,
    /// Days of time, 24 hours each.
    Days,
}

impl Unit {
    /// Every word for a unit, as ODCS's SLA properties and people write them.
    pub const WORDS: [(&'static str, Self); 16] = [
        ("rows", Self::Rows),
        ("percent", Self::Percent),
        ("%", Self::Percent),
        ("s", Self::Seconds),
        ("second", Self::Seconds),
        ("seconds", Self::Seconds),
        ("m", Self::Minutes),
        ("min", Self::Minutes),
        ("minute", Self::Minutes),
        ("minutes", Self::Minutes),
        ("h", Self::Hours),
        ("hour", Self::Hours),
        ("hours", Self::Hours),
        ("d", Self::Days),
        ("day", Self::Days),
        ("days", Self::Days),
    ];

    /// The unit that `word` means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, unit)| *unit)
    }

    /// Length in seconds of a unit of time.
    pub fn seconds(self) -> Option<f64> {
        match self {
            Self::Rows | Self::Percent => None,
            Self::Seconds => Some(1.0),
            Self::Minutes => Some(60.0),
            Self::Hours => Some(3600.0),
            Self::Days => Some(86_400.0),
        }
    }

    /// What follows a number in this unit.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Rows => "",
            Self::Percent => "%",
            Self::Seconds => "s",
            Self::Minutes => "m",
            Self::Hours => "h",
            Self::Days => "d",
        }
    }
}

/// ODCS's eight comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Threshold {
    /// Equal.
    MustBe(f64),
    /// Not equal.
    MustNotBe(f64),
    /// Greater.
    MustBeGreaterThan(f64),
    /// Greater or equal.
    MustBeGreaterOrEqualTo(f64),
    /// Less.
    MustBeLessThan(f64),
    /// Less or equal.
    MustBeLessOrEqualTo(f64),
    /// Within, both ends included.
    MustBeBetween(f64, f64),
    /// Outside, both ends excluded from the allowed values.
    MustNotBeBetween(f64, f64),
}

impl Threshold {
    /// The keys, as ODCS spells them.
    pub const KEYS: [&'static str; 8] = [
        "mustBe",
        "mustNotBe",
        "mustBeGreaterThan",
        "mustBeGreaterOrEqualTo",
        "mustBeLessThan",
        "mustBeLessOrEqualTo",
        "mustBeBetween",
        "mustNotBeBetween",
    ];

    /// Whether `value` meets the threshold. NaN meets none.
    pub fn holds(self, value: f64) -> bool {
        if value.is_nan() {
            return false;
        }
        match self {
            Self::MustBe(bound) => value == bound,
            Self::MustNotBe(bound) => value != bound,
            Self::MustBeGreaterThan(bound) => value > bound,
            Self::MustBeGreaterOrEqualTo(bound) => value >= bound,
            Self::MustBeLessThan(bound) => value < bound,
            Self::MustBeLessOrEqualTo(bound) => value <= bound,
            Self::MustBeBetween(low, high) => (low..=high).contains(&value),
            Self::MustNotBeBetween(low, high) => !(low..=high).contains(&value),
        }
    }

    /// The threshold that holds where this one does not: a rule that warns or fails *when* something is so.
    pub fn opposite(self) -> Self {
        match self {
            Self::MustBe(bound) => Self::MustNotBe(bound),
            Self::MustNotBe(bound) => Self::MustBe(bound),
            Self::MustBeGreaterThan(bound) => Self::MustBeLessOrEqualTo(bound),
            Self::MustBeGreaterOrEqualTo(bound) => Self::MustBeLessThan(bound),
            Self::MustBeLessThan(bound) => Self::MustBeGreaterOrEqualTo(bound),
            Self::MustBeLessOrEqualTo(bound) => Self::MustBeGreaterThan(bound),
            Self::MustBeBetween(low, high) => Self::MustNotBeBetween(low, high),
            Self::MustNotBeBetween(low, high) => Self::MustBeBetween(low, high),
        }
    }

    /// How far `value` is on the wrong side of the threshold; negative on the right side, infinite for NaN. Orders
    /// groups from worst to best.
    pub fn excess(self, value: f64) -> f64 {
        if value.is_nan() {
            return f64::INFINITY;
        }
        match self {
            Self::MustBe(bound) => (value - bound).abs(),
            Self::MustNotBe(bound) => -(value - bound).abs(),
            Self::MustBeGreaterThan(bound) | Self::MustBeGreaterOrEqualTo(bound) => bound - value,
            Self::MustBeLessThan(bound) | Self::MustBeLessOrEqualTo(bound) => value - bound,
            Self::MustBeBetween(low, high) => (low - value).max(value - high),
            Self::MustNotBeBetween(low, high) => (value - low).min(high - value),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MustBe(bound) => write!(f, "= {bound}"),
            Self::MustNotBe(bound) => write!(f, "!= {bound}"),
            Self::MustBeGreaterThan(bound) => write!(f, "> {bound}"),
            Self::MustBeGreaterOrEqualTo(bound) => write!(f, ">= {bound}"),
            Self::MustBeLessThan(bound) => write!(f, "< {bound}"),
            Self::MustBeLessOrEqualTo(bound) => write!(f, "<= {bound}"),
            Self::MustBeBetween(low, high) => write!(f, "between {low} and {high}"),
            Self::MustNotBeBetween(low, high) => write!(f, "not between {low} and {high}"),
        }
    }
}

/// What a failed metric rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The publication is rejected.
    #[default]
    Error,
    /// The publication goes on and the report says so.
    Warning,
    /// For information only.
    Info,
}

/// ODCS's data quality dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words are ODCS's own")]
pub enum Dimension {
    Accuracy,
    Completeness,
    Conformity,
    Consistency,
    Coverage,
    Timeliness,
    Uniqueness,
}

impl Dimension {
    /// Every dimension and its word.
    pub const ALL: [(&'static str, Self); 7] = [
        ("accuracy", Self::Accuracy),
        ("completeness", Self::Completeness),
        ("conformity", Self::Conformity),
        ("consistency", Self::Consistency),
        ("coverage", Self::Coverage),
        ("timeliness", Self::Timeliness),
        ("uniqueness", Self::Uniqueness),
    ];
}

/// Rule word of a record that cannot be tokenised.
pub const RULE_RECORD: &str = "record";
/// Rule word of a column that is null although its `completeIf` holds.
pub const RULE_COMPLETE_IF: &str = "completeIf";
/// Rule word of a row condition.
pub const RULE_CONDITION: &str = "condition";
/// Rule word of a cell that does not parse as, or would lose information in, its declared type.
pub const RULE_TYPE: &str = "type";

/// A key whose values may not repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRule {
    /// `primaryKey` or `unique`.
    pub rule: String,
    /// The columns, in order.
    pub columns: Vec<String>,
}

impl KeyRule {
    /// The columns as reasons name them: `origin+year`.
    pub fn path(&self) -> String {
        self.columns.join("+")
    }

    /// Every key of a table: the primary key, `unique: true` columns, the table's `unique` lists.
    pub fn of(table: &Table) -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        let mut add = |rule: &str, columns: Vec<String>| {
            if !columns.is_empty() && !keys.iter().any(|key| key.columns == columns) {
                keys.push(Self { rule: rule.to_owned(), columns });
            }
        };
        add("primaryKey", table.primary_key());
        for column in table.columns.iter().filter(|column| column.unique) {
            add("unique", vec![column.name.clone()]);
        }
        for columns in &table.unique {
            add("unique", columns.clone());
        }
        keys
    }
}

/// A step from a column towards a nested value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the struct field of this name.
    Field(String),
    /// Into each item of an array.
    Items,
    /// Into each value of a map.
    Values,
}

/// A constraint's kind, with what it needs.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the words are those of `Constraints`")]
pub enum ValueRule {
    Required,
    Json,
    Enum(Vec<String>),
    Minimum(String),
    Maximum(String),
    ExclusiveMinimum(String),
    ExclusiveMaximum(String),
    MultipleOf(String),
    MinLength(u64),
    MaxLength(u64),
    Pattern(String),
    Format(crate::contract::TextFormat),
    DateFormat(String),
}

impl ValueRule {
    /// The rule's word in reasons and reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Json => "json",
            Self::Enum(_) => "enum",
            Self::Minimum(_) => "minimum",
            Self::Maximum(_) => "maximum",
            Self::ExclusiveMinimum(_) => "exclusiveMinimum",
            Self::ExclusiveMaximum(_) => "exclusiveMaximum",
            Self::MultipleOf(_) => "multipleOf",
            Self::MinLength(_) => "minLength",
            Self::MaxLength(_) => "maxLength",
            Self::Pattern(_) => "pattern",
            Self::Format(_) | Self::DateFormat(_) => "format",
        }
    }
}

/// A constraint on the values at one place of the row.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueConstraint {
    /// Index of the top-level column.
    pub column: usize,
    /// From the column to the value.
    pub steps: Vec<Step>,
    /// How reasons name the place: `address.city`, `tags[]`.
    pub path: String,
    /// Type of the value.
    pub data_type: DataType,
    /// What it must satisfy.
    pub rule: ValueRule,
}

/// Every value constraint of a table, nested ones too, in manifest order.
pub fn value_constraints(table: &Table) -> Vec<ValueConstraint> {
    let mut out = Vec::new();
    for (index, column) in table.columns.iter().enumerate() {
        collect(index, column, &mut Vec::new(), &column.name, &mut out);
    }
    out
}

fn collect(index: usize, column: &Column, steps: &mut Vec<Step>, path: &str, out: &mut Vec<ValueConstraint>) {
    let limits = &column.constraints;
    let mut rules = Vec::new();
    if column.required || column.primary_key {
        rules.push(ValueRule::Required);
    }
    if column.data_type == DataType::Json {
        rules.push(ValueRule::Json);
    }
    rules.extend(limits.allowed.clone().map(ValueRule::Enum));
    rules.extend(limits.minimum.clone().map(ValueRule::Minimum));
    rules.extend(limits.maximum.clone().map(ValueRule::Maximum));
    rules.extend(limits.exclusive_minimum.clone().map(ValueRule::ExclusiveMinimum));
    rules.extend(limits.exclusive_maximum.clone().map(ValueRule::ExclusiveMaximum));
    rules.extend(limits.multiple_of.clone().map(ValueRule::MultipleOf));
    rules.extend(limits.min_length.map(ValueRule::MinLength));
    rules.extend(limits.max_length.map(ValueRule::MaxLength));
    rules.extend(limits.pattern.clone().map(ValueRule::Pattern));
    rules.extend(limits.format.map(ValueRule::Format));
    rules.extend(limits.date_format.clone().map(ValueRule::DateFormat));
    out.extend(rules.into_iter().map(|rule| ValueConstraint {
        column: index,
        steps: steps.clone(),
        path: path.to_owned(),
        data_type: column.data_type.clone(),
        rule,
    }));
    match &column.data_type {
        DataType::Struct(fields) => {
            for field in fields {
                steps.push(Step::Field(field.name.clone()));
                collect(index, field, steps, &format!("{path}.{}", field.name), out);
                steps.pop();
            }
        }
        DataType::Array(item) => {
            steps.push(Step::Items);
            collect(index, item, steps, &format!("{path}[]"), out);
            steps.pop();
        }
        DataType::Map(_, value) => {
            steps.push(Step::Values);
            collect(index, value, steps, &format!("{path}{{}}"), out);
            steps.pop();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_operators() {
        let cases = [
            (Threshold::MustBe(1.0), vec![1.0], vec![0.0, 2.0]),
            (Threshold::MustNotBe(1.0), vec![0.0, 2.0], vec![1.0]),
            (Threshold::MustBeGreaterThan(1.0), vec![1.1], vec![1.0, 0.0]),
            (Threshold::MustBeGreaterOrEqualTo(1.0), vec![1.0, 2.0], vec![0.9]),
            (Threshold::MustBeLessThan(1.0), vec![0.9], vec![1.0]),
            (Threshold::MustBeLessOrEqualTo(1.0), vec![1.0], vec![1.1]),
            (Threshold::MustBeBetween(1.0, 2.0), vec![1.0, 1.5, 2.0], vec![0.9, 2.1]),
            (Threshold::MustNotBeBetween(1.0, 2.0), vec![0.9, 2.1], vec![1.0, 1.5, 2.0]),
        ];
        for (threshold, good, bad) in cases {
            assert!(good.iter().all(|value| threshold.holds(*value)), "{threshold}");
            assert!(!bad.iter().any(|value| threshold.holds(*value)), "{threshold}");
            assert!(!threshold.holds(f64::NAN), "{threshold}");
        }
    }

    #[test]
    fn a_threshold_or_its_opposite_holds_and_excess_says_which() {
        let bounds = [
            Threshold::MustBe(1.0),
            Threshold::MustNotBe(1.0),
            Threshold::MustBeGreaterThan(1.0),
            Threshold::MustBeGreaterOrEqualTo(1.0),
            Threshold::MustBeLessThan(1.0),
            Threshold::MustBeLessOrEqualTo(1.0),
            Threshold::MustBeBetween(1.0, 2.0),
            Threshold::MustNotBeBetween(1.0, 2.0),
        ];
        for threshold in bounds {
            for value in [-1.0, 0.5, 1.0, 1.5, 2.0, 2.5] {
                assert_ne!(threshold.holds(value), threshold.opposite().holds(value), "{threshold} {value}");
                let excess = threshold.excess(value);
                assert!(if threshold.holds(value) { excess <= 0.0 } else { excess >= 0.0 }, "{threshold} {value}");
            }
            assert!(!threshold.opposite().holds(f64::NAN), "{threshold}");
            assert_eq!(threshold.excess(f64::NAN), f64::INFINITY, "{threshold}");
        }
    }

    #[test]
    fn every_metric_word_is_known_once() {
        let mut words: Vec<&str> = METRIC_WORDS
            .iter()
            .flat_map(|(name, others)| std::iter::once(*name).chain(others.iter().copied()))
            .collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert_eq!(metric_word("stddev"), Some("standardDeviation"));
        assert_eq!(metric_word("nothing"), None);
    }
}
