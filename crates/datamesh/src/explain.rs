//! `datamesh explain`: what a publish or a run would do, and why.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use datamesh_app::Progress;
use datamesh_app::publish::{PublishReport, PublishRequest, PublishStatus, rehearse};
use datamesh_app::run::{RunRequest, rehearse as rehearse_run};
use datamesh_core::contract::{DataProduct, WriteMode};
use datamesh_core::evolution::{ChangeKind, ContractChange, compare};
use datamesh_core::infer::grouped;
use datamesh_core::ports::ProductState;
use datamesh_core::verdict::{MetricResult, RuleCount, TableReport, failure};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_manifest::load_mesh;
use serde_json::{Value, json};

use crate::cli::{InputFormat, PublishArguments, ReportFormat};
use crate::commands::{exit_code, find_manifest, manifest_sources, sources};
use crate::observer::Observer;
use crate::output::{colours, paint};
use crate::{home, output};

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// domain/product, a product's name, or the folder of its manifest
    pub(crate) product: String,
    /// Data for a table: a file, folder or glob, or `-` for standard input; may be repeated
    #[arg(value_name = "TABLE=PATH")]
    pub(crate) inputs: Vec<String>,
    /// Format of the data named on the command line (default: as in the manifest, else by file name)
    #[arg(long, value_enum)]
    pub(crate) input_format: Option<InputFormat>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

/// How many rules, samples and changes the text shows.
const RULES: usize = 20;
const CHANGES: usize = 20;

pub(crate) async fn run(
    arguments: ExplainArguments,
    told: Option<&Path>,
    memory: usize,
    stop: impl Future<Output = ()>,
) -> Result<u8> {
    let root = home::find(told)?;
    let product = match find_manifest(&root, &arguments.product) {
        Ok(product) => product,
        Err(error) if error.code() == ErrorCode::InvalidManifest && arguments.format == ReportFormat::Json => {
            let mesh = load_mesh(&root)?;
            output::print_json(&json!({
                "product": arguments.product,
                "status": "invalid",
                "because": [error.to_string()],
                "diagnostics": mesh.diagnostics,
            }))?;
            return Ok(ErrorCode::InvalidManifest.exit_code());
        }
        Err(error) => return Err(error),
    };
    let publish = PublishArguments {
        product: arguments.product,
        inputs: arguments.inputs,
        input_format: arguments.input_format,
        dry_run: true,
        again: false,
        full: false,
        idempotency_key: None,
        format: arguments.format,
    };
    let contract = product.contract.clone();
    // What is made of other products is run; data named on the command line is published.
    let runs = publish.inputs.is_empty() && contract.tables.iter().any(|table| table.transform.is_some());
    let inputs = if runs { manifest_sources(&product) } else { sources(&publish, &product)? };
    let scratch = tempfile::Builder::new()
        .prefix("datamesh-explain-")
        .tempdir()
        .map_err(|error| Error::io(ErrorCode::WriteFailed, "make a folder in", &std::env::temp_dir(), error))?;
    let context = home::context(&root).await?;
    let engine = home::governed(&root, memory, &context).await?;
    let show = arguments.format == ReportFormat::Text && crate::caller::stderr_is_terminal();
    let progress: Arc<dyn Progress> = Arc::new(Observer::new(show));
    let folder = scratch.path().to_owned();
    let rehearsed = if runs {
        let request = RunRequest {
            contract: product.contract,
            sources: inputs,
            again: false,
            full_refresh: false,
            dry_run: true,
            idempotency_key: None,
        };
        rehearse_run(request, folder, &engine, &context, progress, stop).await
    } else {
        let request = PublishRequest {
            inputs,
            contract: product.contract,
            again: false,
            full: false,
            idempotency_key: None,
            dry_run: true,
            resolves: Vec::new(),
        };
        rehearse(request, folder, &engine, &context, progress, stop).await
    };
    let removed = scratch.close();
    let (report, state) = rehearsed?;
    removed.map_err(|error| Error::io(ErrorCode::WriteFailed, "remove", &std::env::temp_dir(), error))?;
    let difference = match &state.revision {
        Some(revision) => compare(&revision.contract, &contract),
        None => Vec::new(),
    };
    match arguments.format {
        ReportFormat::Json => output::print_json(&document(&report, &contract, &state, &difference)?)?,
        ReportFormat::Text => output::print(&narrative(&report, &contract, &state, &difference)),
    }
    Ok(exit_code(&report))
}

/// What to do about rows that broke a rule.
fn hint(rule: &str) -> &'static str {
    match rule.split(':').next().unwrap_or(rule) {
        "record" => "mend the line, or tell `source` how the text is written (delimiter, quote, header)",
        "type" => {
            "mend the values, list texts that mean \"missing\" in the source's `nullText`, or widen the column's type"
        }
        "required" => "fill the values in at the source, or drop `required` where null is fine",
        "primaryKey" | "unique" => {
            "rows that share a key are all held back: remove the doubles, or add the column that tells them apart to the key"
        }
        "enum" => "mend the spelling at the source, or add the new value to `enum`",
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => {
            "check the unit and the sensor or form it comes from; move the bound only where such values are right"
        }
        "minLength" | "maxLength" | "pattern" | "format" | "json" => {
            "mend the text at the source, or loosen the rule where such texts are right"
        }
        "condition" => "compare the columns that the condition names; mend the rows, or the condition",
        _ => "mend the rows at the source, or the rule in the manifest",
    }
}

fn pointer_rows(state: &ProductState, table: &TableReport) -> Option<u64> {
    let name = datamesh_core::Name::new(&table.table).ok()?.sql();
    state.table(&name).map(|pointer| pointer.rows)
}

/// What would become of the rows that are published now.
fn effect(table: &TableReport, published: Option<u64>) -> String {
    match (published, table.write) {
        (None, _) => "the table's first rows".to_owned(),
        (Some(rows), WriteMode::Replace) => format!("in place of the {} published now", grouped(rows)),
        (Some(rows), WriteMode::Append) => format!("beside the {} published now", grouped(rows)),
        (Some(rows), WriteMode::Upsert) => {
            format!("among the {} published now, in place of those with the same key", grouped(rows))
        }
        (Some(rows), WriteMode::ReplacePartitions) => {
            format!("among the {} published now, in place of those in the same partitions", grouped(rows))
        }
    }
}

fn document(
    report: &PublishReport,
    contract: &DataProduct,
    state: &ProductState,
    difference: &[ContractChange],
) -> Result<Value> {
    let failed = |error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error);
    let mut document = serde_json::to_value(report).map_err(failed)?;
    if let Some(tables) = document.get_mut("tables").and_then(Value::as_array_mut) {
        for (value, table) in tables.iter_mut().zip(&report.tables) {
            let hints: serde_json::Map<String, Value> =
                table.reasons.keys().map(|rule| (rule.clone(), hint(rule).into())).collect();
            value["hints"] = Value::Object(hints);
            value["publishedNow"] = pointer_rows(state, table).into();
        }
    }
    document["firstPublication"] = state.revision.is_none().into();
    document["owner"] = contract.owner.clone().into();
    document["changes"] = serde_json::to_value(difference).map_err(failed)?;
    Ok(document)
}

fn narrative(
    report: &PublishReport,
    contract: &DataProduct,
    state: &ProductState,
    difference: &[ContractChange],
) -> String {
    let on = colours(crate::caller::stdout_is_terminal());
    let (verdict, colour) = match report.status {
        PublishStatus::WouldReject | PublishStatus::Rejected => ("would be refused", "1;31"),
        PublishStatus::Repeat => ("is published already: nothing would change", "1;32"),
        PublishStatus::Conflict => ("would meet another publication", "1;31"),
        PublishStatus::WouldPublish | PublishStatus::Published => ("would be published", "1;32"),
    };
    let mut text = format!("{} {} {}\n", report.product, report.version, paint(verdict, colour, on));
    for because in &report.because {
        text.push_str(&format!("  {} {because}\n", paint("because", "1", on)));
    }
    if !report.because.is_empty() && !state.tables.is_empty() && report.status == PublishStatus::WouldReject {
        text.push_str("  the last good publication would go on serving\n");
    }
    for table in &report.tables {
        text.push('\n');
        text.push_str(&table_text(table, contract, state, on));
    }
    if !report.carried_forward.is_empty() {
        text.push_str(&format!("\nwithout new data, as they are: {}\n", report.carried_forward.join(", ")));
    }
    if let Some(revision) = &state.revision {
        let title = format!("contract, compared with the published version {}", revision.contract.version);
        if difference.is_empty() {
            text.push_str(&format!("\n{title}: the same\n"));
        } else {
            text.push_str(&format!("\n{title}:\n"));
        }
        for change in difference.iter().take(CHANGES) {
            text.push_str(&format!("  {}\n", change_text(change)));
        }
        if difference.len() > CHANGES {
            text.push_str(&format!("  and {} more; see --format json\n", difference.len() - CHANGES));
        }
    } else {
        text.push_str("\nthis would be the product's first publication\n");
    }
    text.push_str("\nnothing was changed; that you looked is in the log of decisions\n");
    text
}

fn table_text(table: &TableReport, contract: &DataProduct, state: &ProductState, on: bool) -> String {
    let mut text = format!("table {}\n", paint(&table.table, "1", on));
    if let Some(earlier) = table.repeat_of {
        text.push_str(&format!("  the same content as publication {earlier}: it would stay as it is\n"));
        text.push_str(&metrics_text("rules on the tables as they would be", &table.metrics, on));
        return text;
    }
    if !table.missing_required.is_empty() {
        text.push_str(&format!("  the source lacks required columns: {}\n", table.missing_required.join(", ")));
        text.push_str("    → name them in the source's header, or drop `required` where null is fine\n");
        return text;
    }
    let width = grouped(table.rows_in).len();
    let row = |number: u64, words: &str| format!("  {:>width$} {words}\n", grouped(number));
    text.push_str(&row(table.rows_in, "rows read"));
    text.push_str(&row(table.published, &format!("would be published, {}", effect(table, pointer_rows(state, table)))));
    let share = table.quarantined as f64 * 100.0 / table.rows_in.max(1) as f64;
    let held = if table.quarantined == 0 {
        "would be quarantined".to_owned()
    } else {
        let share = if share < 0.01 { "less than 0.01".to_owned() } else { format!("{share:.2}") };
        format!("would be quarantined: {share}% of the rows, the limit is {}%", table.limit_percent)
    };
    text.push_str(&row(table.quarantined, &held));
    let mut reasons: Vec<(&String, &RuleCount)> = table.reasons.iter().collect();
    reasons.sort_by(|a, b| b.1.rows.cmp(&a.1.rows).then_with(|| a.0.cmp(b.0)));
    for (rule, count) in reasons.iter().take(RULES) {
        text.push_str(&format!("\n  {} × {}\n", grouped(count.rows), paint(rule, "33", on)));
        if let Some(about) = describe(rule, contract, table) {
            text.push_str(&format!("    {about}\n"));
        }
        let samples: Vec<String> =
            count.samples.iter().take(3).map(sample_text).filter(|text| !text.is_empty()).collect();
        if !samples.is_empty() {
            text.push_str(&format!("    e.g. {}\n", samples.join(" | ")));
        }
        text.push_str(&format!("    → {}\n", hint(rule)));
    }
    if reasons.len() > RULES {
        text.push_str(&format!("\n  and {} more rules; see --format json\n", reasons.len() - RULES));
    }
    text.push_str(&metrics_text("rules on the table as it would be", &table.metrics, on));
    if !table.ignored_columns.is_empty() {
        text.push_str(&format!("  not in the contract, left out: {}\n", table.ignored_columns.join(", ")));
    }
    if !table.missing_columns.is_empty() {
        text.push_str(&format!("  not in the source, null: {}\n", table.missing_columns.join(", ")));
    }
    text
}

/// What the manifest says of a condition.
fn describe(rule: &str, contract: &DataProduct, table: &TableReport) -> Option<String> {
    let name = rule.strip_prefix("condition:")?;
    let condition = contract.table(&table.table)?.conditions.iter().find(|condition| condition.name == name)?;
    Some(match &condition.description {
        Some(description) => format!("{} ({description})", condition.condition),
        None => condition.condition.clone(),
    })
}

fn sample_text(sample: &datamesh_core::verdict::Sample) -> String {
    let file = sample
        .file
        .as_deref()
        .map(|file| Path::new(file).file_name().map_or(file.to_owned(), |name| name.to_string_lossy().into_owned()));
    let place = match (file, sample.position) {
        (Some(file), Some(position)) => format!("{file}:{position}"),
        (None, Some(position)) => format!("row {position}"),
        (Some(file), None) => file,
        (None, None) => String::new(),
    };
    match &sample.value {
        Some(value) if place.is_empty() => value.clone(),
        Some(value) => format!("{value} ({place})"),
        None => place,
    }
}

fn metrics_text(title: &str, metrics: &[MetricResult], on: bool) -> String {
    let mut text = if metrics.is_empty() { String::new() } else { format!("\n  {title}\n") };
    for metric in metrics {
        text.push_str(&format!("    {}\n", metric_text(metric, on)));
    }
    text
}

fn metric_text(metric: &MetricResult, on: bool) -> String {
    let severity = format!("{:?}", metric.severity).to_lowercase();
    let mark = if metric.passed { paint("ok", "32", on) } else { paint(&severity, "31", on) };
    let found = match (&metric.error, metric.value) {
        (Some(error), _) => error.clone(),
        _ if !metric.passed && !metric.samples.is_empty() => failure(metric).trim_start_matches(": ").to_owned(),
        (None, Some(value)) => {
            format!("{} is {}, must be {}", metric.metric, (value * 1e6).round() / 1e6, metric.expected)
        }
        (None, None) => "was not measured".to_owned(),
    };
    format!("{mark} {}: {found}", metric.rule)
}

fn change_text(change: &ContractChange) -> String {
    let sign = match change.kind() {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Updated => '~',
    };
    format!("{sign} {}: {} ({})", change.path, change.message, change.bump())
}
