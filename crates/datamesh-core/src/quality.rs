//! Quality rules as data. Row rules quarantine rows; metric rules judge the candidate table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::{Column, Table};
use crate::datatype::DataType;

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
}

/// The metrics of ODCS's library, and SQL.
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
}

impl Metric {
    /// The word ODCS uses, `sql` for queries.
    pub fn word(&self) -> &'static str {
        match self {
            Self::RowCount => "rowCount",
            Self::NullValues { .. } => "nullValues",
            Self::MissingValues { .. } => "missingValues",
            Self::InvalidValues { .. } => "invalidValues",
            Self::DuplicateValues { .. } => "duplicateValues",
            Self::Sql { .. } => "sql",
        }
    }

    /// The columns that must be read to measure it.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::RowCount | Self::Sql { .. } => Vec::new(),
            Self::NullValues { column } | Self::MissingValues { column, .. } | Self::InvalidValues { column, .. } => {
                vec![column]
            }
            Self::DuplicateValues { columns } => columns.iter().map(String::as_str).collect(),
        }
    }
}

/// What a measurement counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A number of rows.
    #[default]
    Rows,
    /// Percent of the candidate's rows; 0 for an empty table.
    Percent,
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
            Self::Format(_) => "format",
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
}
