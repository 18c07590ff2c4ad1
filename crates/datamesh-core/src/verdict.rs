//! The verdict: rules, thresholds and results -> publish, publish with quarantine, or reject. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contract::WriteMode;
use crate::quality::{Dimension, Severity};
use crate::reference::{PUBLISHED_REFERENCES, PinnedTable, RULE_REFERENCES};
use crate::watermark::WatermarkReport;

/// One rule that a row broke, as quarantine and samples show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule's word: `minimum`, `type`, `primaryKey`, ….
    pub rule: String,
    /// The place: a column path, joined key columns, or a condition's name; empty for `record`.
    pub column: String,
    /// The offending value or problem as text; absent where there is none, or where it is masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Reason {
    /// The rule's id in counts: `minimum:wind_speed`, `record`.
    pub fn id(&self) -> String {
        rule_id(&self.rule, &self.column)
    }
}

/// `rule:column`, or the rule alone where it has no column.
pub fn rule_id(rule: &str, column: &str) -> String {
    if column.is_empty() { rule.to_owned() } else { format!("{rule}:{column}") }
}

/// A failing row, shortened for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The file it came from, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line (text formats) or row (Parquet) in that file, from 1, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// What was found there; absent where it is masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What one rule found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// Rows that broke it.
    pub rows: u64,
    /// A few of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// How many samples a report keeps for each rule.
pub const SAMPLES_PER_RULE: usize = 5;

/// What a metric rule measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricResult {
    /// The rule's name.
    pub rule: String,
    /// What was measured, such as `nullValues`.
    pub metric: String,
    /// The measurement; absent where it failed.
    pub value: Option<f64>,
    /// The threshold in words.
    pub expected: String,
    /// Whether it was met.
    pub passed: bool,
    /// What a failure does.
    pub severity: Severity,
    /// ODCS quality dimension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimension: Option<Dimension>,
    /// Why it could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The threshold for a warning, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<String>,
    /// Whether the threshold for a warning was missed, whatever became of the other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warned: bool,
    /// Whether the measurement is kept back because it would show a protected value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
    /// What the other table measured, where two are compared; `value` is the difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<f64>,
    /// With `groupBy`: how the groups did. `value` is that of the worst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupResults>,
    /// A few of the rows that a count of rows counts, where it knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// How the groups of a rule with `groupBy` did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupResults {
    /// How many groups there are.
    pub count: u64,
    /// How many of them miss the threshold.
    pub failed: u64,
    /// How many of them miss the threshold for a warning.
    #[serde(default)]
    pub warned: u64,
    /// A few of them, the worst first.
    pub worst: Vec<GroupResult>,
}

/// One group's measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupResult {
    /// The group's values, in the order of the rule's columns; absent where one is protected. Null is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Vec<Option<String>>>,
    /// Its measurement; absent where there is no value to measure, or where it is masked.
    pub value: Option<f64>,
    /// What the other table measured of it, where two are compared; `value` is the difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<f64>,
    /// Whether it met the threshold.
    pub passed: bool,
}

impl GroupResult {
    /// The group in words: `JFK, 2013`.
    pub fn name(&self) -> String {
        match &self.group {
            Some(values) => {
                values.iter().map(|value| value.as_deref().unwrap_or("null")).collect::<Vec<_>>().join(", ")
            }
            None => "a masked group".to_owned(),
        }
    }
}

/// What the applied rows of an upsert or of replaced partitions changed.
///
/// With upsert `published == inserted + updated + deleted + absent`; with replaced partitions `inserted == published`,
/// and `removed` published rows made room for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RowChanges {
    /// Rows that no published row had to make room for.
    pub inserted: u64,
    /// Rows that took the place of the published row with their key.
    pub updated: u64,
    /// Rows that deleted the published row with their key.
    pub deleted: u64,
    /// Rows that would delete, but no published row has their key.
    pub absent: u64,
    /// Published rows that are gone: replaced or deleted.
    pub removed: u64,
}

/// The facts about one table of an attempt.
///
/// INVARIANT: `rows_in == published + quarantined` once the table is settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// How it is written.
    pub write: WriteMode,
    /// Rows read.
    #[serde(rename = "in")]
    pub rows_in: u64,
    /// Rows that were, or would be, published; with upsert the rows applied, deletions too.
    pub published: u64,
    /// Rows held back.
    pub quarantined: u64,
    /// Rows of the table once committed; with append more than `published`.
    pub total_rows: u64,
    /// What the published rows changed, with upsert and replaced partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<RowChanges>,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Identity of the content, independent of file names, times and row order; empty where it was not asked for.
    pub content: String,
    /// Percent of the rows read that may be quarantined.
    pub limit_percent: f64,
    /// Rows by rule id; a row counts once under each rule it broke.
    pub reasons: BTreeMap<String, RuleCount>,
    /// The metric rules.
    pub metrics: Vec<MetricResult>,
    /// The tables that references and comparisons read, and in which state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<PinnedTable>,
    /// Columns of the source that the contract does not name; they were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_columns: Vec<String>,
    /// Columns of the contract that the source does not have; they are null.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_columns: Vec<String>,
    /// Of those, the ones that are required: the publication is rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_required: Vec<String>,
    /// The publication whose content this repeats: the table is carried forward unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_of: Option<u64>,
    /// How far an incremental pull came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkReport>,
}

/// The outcome of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "because")]
pub enum Verdict {
    /// Every row is good.
    Publish,
    /// Some rows are held back, within the limits.
    PublishWithQuarantine,
    /// Nothing is published, for these reasons.
    Reject(Vec<String>),
}

/// Judges all tables of an attempt together: one rejected table rejects all. A table that stays as it is is judged by the
/// rules alone that read others.
pub fn judge(tables: &[TableReport]) -> Verdict {
    let mut because = Vec::new();
    for table in tables {
        let (name, is_new) = (&table.table, table.repeat_of.is_none());
        for column in &table.missing_required {
            because.push(format!("table `{name}`: the source has no column `{column}`, which is required"));
        }
        if is_new && exceeds(table.quarantined, table.rows_in, table.limit_percent) {
            because.push(format!(
                "table `{name}`: {} of {} rows are quarantined, more than the limit of {}%",
                table.quarantined, table.rows_in, table.limit_percent
            ));
        }
        for metric in table.metrics.iter().filter(|metric| !metric.passed && metric.severity == Severity::Error) {
            because.push(format!("table `{name}`: rule `{}`{}", metric.rule, failure(metric)));
        }
    }
    if !because.is_empty() {
        Verdict::Reject(because)
    } else if tables.iter().any(|table| table.repeat_of.is_none() && table.quarantined > 0) {
        Verdict::PublishWithQuarantine
    } else {
        Verdict::Publish
    }
}

/// What went wrong with a rule that failed, to follow its name.
pub fn failure(metric: &MetricResult) -> String {
    if let Some(error) = &metric.error {
        return format!(" failed: {error}");
    }
    let of = match &metric.groups {
        Some(groups) => {
            let worst = groups.worst.first().map(GroupResult::name).unwrap_or_default();
            format!(" of `{worst}` ({} of {} groups fail)", groups.failed, groups.count)
        }
        None => String::new(),
    };
    let (metric_word, expected) = (&metric.metric, &metric.expected);
    if let (Some(rows), RULE_REFERENCES | PUBLISHED_REFERENCES) = (metric.value, metric.metric.as_str()) {
        let is_one = rows == 1.0;
        let samples: Vec<&str> = metric.samples.iter().filter_map(|sample| sample.value.as_deref()).take(3).collect();
        let samples = if samples.is_empty() { String::new() } else { format!(", e.g. {}", samples.join(" | ")) };
        return match metric.metric == RULE_REFERENCES {
            true => {
                format!(": {rows} of the rows read {} to nothing{samples}", if is_one { "refers" } else { "refer" })
            }
            false => {
                let row = if is_one { "row" } else { "rows" };
                format!(
                    ": {rows} published {row} would lose what {} to{samples}",
                    if is_one { "it refers" } else { "they refer" }
                )
            }
        };
    }
    match (metric.value, metric.compared_to) {
        (Some(value), Some(other)) => {
            format!(": {metric_word}{of} differs by {value} from the other table's {other}, must be {expected}")
        }
        (Some(value), None) => format!(": {metric_word}{of} is {value}, must be {expected}"),
        (None, _) if metric.masked => format!(": {metric_word}{of} is masked, and not {expected}"),
        (None, _) if metric.groups.is_some() => format!(": {metric_word}{of} has no value to measure"),
        (None, _) => " measured nothing".to_owned(),
    }
}

fn exceeds(quarantined: u64, rows_in: u64, limit_percent: f64) -> bool {
    quarantined > 0 && quarantined as f64 * 100.0 > limit_percent * rows_in as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows_in: u64, quarantined: u64) -> TableReport {
        TableReport {
            table: "t".into(),
            write: WriteMode::Append,
            rows_in,
            published: rows_in - quarantined,
            quarantined,
            total_rows: rows_in - quarantined,
            changes: None,
            bytes_read: 0,
            content: String::new(),
            limit_percent: 5.0,
            reasons: BTreeMap::new(),
            metrics: Vec::new(),
            pinned: Vec::new(),
            ignored_columns: Vec::new(),
            missing_columns: Vec::new(),
            missing_required: Vec::new(),
            repeat_of: None,
            watermark: None,
        }
    }

    fn metric(passed: bool, severity: Severity) -> MetricResult {
        MetricResult {
            rule: "r".into(),
            metric: "rowCount".into(),
            value: Some(1.0),
            expected: "> 1".into(),
            passed,
            severity,
            ..MetricResult::default()
        }
    }

    #[test]
    fn the_breaker_trips_above_the_limit_only() {
        assert_eq!(judge(&[report(100, 0)]), Verdict::Publish);
        assert_eq!(judge(&[report(100, 5)]), Verdict::PublishWithQuarantine);
        assert!(matches!(judge(&[report(100, 6)]), Verdict::Reject(_)));
        assert!(matches!(judge(&[report(1, 1)]), Verdict::Reject(_)));
        assert_eq!(judge(&[report(0, 0)]), Verdict::Publish);
    }

    #[test]
    fn one_rejected_table_rejects_all() {
        assert!(matches!(judge(&[report(100, 0), report(100, 50)]), Verdict::Reject(why) if why.len() == 1));
    }

    #[test]
    fn severity_decides_what_a_failed_metric_does() {
        for (severity, rejects) in [(Severity::Error, true), (Severity::Warning, false), (Severity::Info, false)] {
            let table = TableReport { metrics: vec![metric(false, severity)], ..report(10, 0) };
            assert_eq!(matches!(judge(&[table]), Verdict::Reject(_)), rejects);
        }
    }

    #[test]
    fn a_failure_names_the_worst_group() {
        let text = |value: Option<f64>, compared_to: Option<f64>| {
            let worst = GroupResult {
                group: Some(vec![Some("DE".into()), None]),
                value,
                compared_to,
                ..GroupResult::default()
            };
            let groups = GroupResults { count: 3, failed: 2, warned: 0, worst: vec![worst] };
            failure(&MetricResult { value, compared_to, groups: Some(groups), ..metric(false, Severity::Error) })
        };
        assert_eq!(text(Some(1.0), None), ": rowCount of `DE, null` (2 of 3 groups fail) is 1, must be > 1");
        assert_eq!(
            text(Some(1.0), Some(4.0)),
            ": rowCount of `DE, null` (2 of 3 groups fail) differs by 1 from the other table's 4, must be > 1"
        );
        assert_eq!(text(None, None), ": rowCount of `DE, null` (2 of 3 groups fail) has no value to measure");
    }

    #[test]
    fn a_repeated_table_is_not_judged() {
        let table = TableReport { repeat_of: Some(1), ..report(10, 10) };
        assert_eq!(judge(&[table]), Verdict::Publish);
    }

    #[test]
    fn what_a_repeated_table_says_of_others_is_judged() {
        let lost = |severity, rows: f64| MetricResult {
            rule: "references:p".into(),
            metric: PUBLISHED_REFERENCES.into(),
            value: Some(rows),
            samples: vec![Sample { file: None, position: None, value: Some("7".into()) }],
            ..metric(false, severity)
        };
        let stays = |metrics| TableReport { repeat_of: Some(1), metrics, ..report(0, 0) };
        assert_eq!(judge(&[stays(vec![lost(Severity::Warning, 1.0)])]), Verdict::Publish);
        let why = "table `t`: rule `references:p`: 1 published row would lose what it refers to, e.g. 7";
        assert_eq!(judge(&[stays(vec![lost(Severity::Error, 1.0)])]), Verdict::Reject(vec![why.into()]));
        let two = failure(&lost(Severity::Error, 2.0));
        assert_eq!(two, ": 2 published rows would lose what they refer to, e.g. 7");
        let read = MetricResult { metric: RULE_REFERENCES.into(), samples: Vec::new(), ..lost(Severity::Error, 2.0) };
        assert_eq!(failure(&read), ": 2 of the rows read refer to nothing");
    }
}
