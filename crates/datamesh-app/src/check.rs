//! Quality checks: rows judged as a publication would judge them, and published nowhere.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::ids::AttemptId;
use datamesh_core::quality::KeyRule;
use datamesh_core::reference::TableReference;
use datamesh_core::rehearsal::judged_columns;
use datamesh_core::rules::{Consequence, Rule, rules};
use datamesh_core::verdict::{MetricResult, Sample, TableReport, Verdict, failure, judge};
use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;

use crate::ports::{Engine, Progress, Rehearsal, Rows, StageInput, StageJob};

/// What to check.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// The contract.
    pub contract: DataProduct,
    /// The table whose rules count.
    pub table: String,
    /// The rows.
    pub input: StageInput,
    /// Whether the failing rows shall be there to be read.
    pub failing: bool,
    /// Local folder of what the check needs on the disk for a while, the caller's to remove.
    pub scratch: PathBuf,
    /// Names what is written there.
    pub attempt: AttemptId,
    /// What freshness is measured against.
    pub now: DateTime<Utc>,
}

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Every row is good, and so is the table.
    Passed,
    /// Some rows would be held back, within the contract's limit.
    Quarantined,
    /// A publication would be rejected.
    Failed,
}

/// What became of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleStatus {
    /// It holds.
    Passed,
    /// It is broken.
    Failed,
    /// It holds, but not far enough.
    #[serde(rename = "warning")]
    Warned,
    /// It needs tables that are not at hand.
    Skipped,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleResult {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// Rows that it judged; 0 where it was skipped.
    pub checked: u64,
    /// Rows that broke it; 0 for a rule that judges the whole table.
    pub failed: u64,
    /// What became of it.
    pub status: RuleStatus,
    /// What is wrong, where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A few of the rows that broke it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// The measurement, for a rule that judges the whole table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<MetricResult>,
}

/// The report of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// `domain/product`.
    pub product: String,
    /// The table.
    pub table: String,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that broke no rule.
    pub passed: u64,
    /// Rows that broke one or more.
    pub failed: u64,
    /// What became of it.
    pub status: CheckStatus,
    /// Why a publication would be rejected.
    pub because: Vec<String>,
    /// Percent of the rows that may fail.
    pub limit_percent: f64,
    /// Every rule, in the contract's order.
    pub rules: Vec<RuleResult>,
    /// Columns of the data that the contract does not name.
    pub ignored_columns: Vec<String>,
    /// Columns of the contract that the data does not have.
    pub missing_columns: Vec<String>,
    /// Bytes that were read.
    pub bytes_read: u64,
}

/// Checks rows against one table of a contract. Rules that read other tables are skipped, and told so.
///
/// # Errors
/// `not-found` where the contract has no such table; data that cannot be read.
pub async fn check<E: Engine>(
    request: CheckRequest,
    engine: &E,
    progress: Arc<dyn Progress>,
) -> Result<(CheckReport, Option<Rows>)> {
    let CheckRequest { contract, table, input, failing, scratch, attempt, now } = request;
    let Some(whole) = contract.table(&table).cloned() else {
        let names: Vec<&str> = contract.tables.iter().map(|table| table.name.as_str()).collect();
        return Err(Error::new(ErrorCode::NotFound, format!("`{}` has no table `{table}`", contract.id))
            .with_help(format!("its tables: {}", names.join(", "))));
    };
    let judged = alone(&whole);
    let contract = DataProduct { tables: vec![judged.clone()], ..contract };
    let late = !KeyRule::of(&judged).is_empty() || !judged.references.is_empty();
    let job = StageJob {
        product: contract.key(),
        table: judged.clone(),
        input,
        pull: None,
        base: None,
        drops: false,
        pinned: Vec::new(),
        attempt,
        rehearsal: Some(Rehearsal {
            scratch,
            // A row whose key turns out to be doubled is taken from the good rows.
            columns: if failing && late { None } else { judged_columns(&contract, &judged) },
            whole_quarantine: failing,
        }),
    };
    let staged = engine.stage(job, progress).await?;
    let mut settled = vec![engine.settle(&staged, None, &[], &[]).await?];
    engine.measure(&mut settled, &[], &[], now).await?;
    let Some(settled) = settled.first() else {
        return Err(Error::new(ErrorCode::Internal, "a table was settled and is gone"));
    };
    let report = report(&contract, &whole, &judged, E::report(settled));
    let files = E::quarantine(settled);
    let rows = if failing && !files.is_empty() {
        Some(engine.read_quarantine(&contract, judged.name.as_str(), files, true).await?)
    } else {
        None
    };
    Ok((report, rows))
}

/// The table without what needs other tables, and without a layout that nobody will read.
fn alone(table: &Table) -> Table {
    let own = |to: &TableReference| to.is_own(&table.name);
    let mut alone = table.clone();
    alone.references.retain(|reference| own(&reference.to));
    alone.metrics.retain(|rule| rule.compare_to.as_ref().is_none_or(|other| own(&other.table)));
    alone.partition_by.clear();
    alone.sort_by.clear();
    alone
}

fn report(contract: &DataProduct, whole: &Table, judged: &Table, found: &TableReport) -> CheckReport {
    let (status, because) = match judge(std::slice::from_ref(found)) {
        Verdict::Publish => (CheckStatus::Passed, Vec::new()),
        Verdict::PublishWithQuarantine => (CheckStatus::Quarantined, Vec::new()),
        Verdict::Reject(because) => (CheckStatus::Failed, because),
    };
    let known: BTreeSet<String> = rules(judged).into_iter().map(|rule| rule.name).collect();
    let mut results: Vec<RuleResult> = rules(whole).into_iter().map(|rule| result(rule, &known, found)).collect();
    // What no rule of the contract says: a record that could not be read.
    let told: BTreeSet<String> = results.iter().map(|result| result.rule.name.clone()).collect();
    for (id, count) in found.reasons.iter().filter(|(id, _)| !told.contains(*id)) {
        let (kind, column) = id.split_once(':').map_or((id.as_str(), None), |(kind, column)| (kind, Some(column)));
        results.push(RuleResult {
            rule: Rule {
                name: id.clone(),
                kind: kind.to_owned(),
                column: column.map(str::to_owned),
                severity: Consequence::Quarantine,
                words: "the row can be read".to_owned(),
                of_table: false,
            },
            checked: found.rows_in,
            failed: count.rows,
            status: RuleStatus::Failed,
            message: Some(broken(count.rows, found.rows_in)),
            samples: count.samples.clone(),
            measured: None,
        });
    }
    CheckReport {
        product: contract.id.to_string(),
        table: whole.name.to_string(),
        rows: found.rows_in,
        passed: found.published,
        failed: found.quarantined,
        status,
        because,
        limit_percent: found.limit_percent,
        rules: results,
        ignored_columns: found.ignored_columns.clone(),
        missing_columns: found.missing_columns.clone(),
        bytes_read: found.bytes_read,
    }
}

fn broken(failed: u64, checked: u64) -> String {
    format!("{failed} of {checked} rows")
}

fn result(rule: Rule, known: &BTreeSet<String>, found: &TableReport) -> RuleResult {
    let nothing = RuleResult {
        rule,
        checked: found.rows_in,
        failed: 0,
        status: RuleStatus::Passed,
        message: None,
        samples: Vec::new(),
        measured: None,
    };
    if !known.contains(&nothing.rule.name) {
        let message = Some("it needs other tables; a publication checks it".to_owned());
        return RuleResult { checked: 0, status: RuleStatus::Skipped, message, ..nothing };
    }
    let measured = found.metrics.iter().find(|metric| metric.rule == nothing.rule.name);
    if nothing.rule.of_table || measured.is_some() {
        let Some(measured) = measured.cloned() else {
            return RuleResult { checked: 0, status: RuleStatus::Skipped, ..nothing };
        };
        let (status, message) = match (measured.passed, measured.warned) {
            (false, _) => (RuleStatus::Failed, Some(failure(&measured).trim_start_matches([':', ' ']).to_owned())),
            (true, true) => (RuleStatus::Warned, measured.warn.as_ref().map(|warn| format!("expected {warn}"))),
            (true, false) => (RuleStatus::Passed, None),
        };
        return RuleResult { checked: found.published, status, message, measured: Some(measured), ..nothing };
    }
    if nothing.rule.column.as_ref().is_some_and(|column| found.missing_required.contains(column)) {
        let message = Some("the data has no such column, which is required".to_owned());
        return RuleResult { checked: 0, status: RuleStatus::Failed, message, ..nothing };
    }
    match found.reasons.get(&nothing.rule.name) {
        Some(count) => RuleResult {
            failed: count.rows,
            status: RuleStatus::Failed,
            message: Some(broken(count.rows, found.rows_in)),
            samples: count.samples.clone(),
            ..nothing
        },
        None => nothing,
    }
}
