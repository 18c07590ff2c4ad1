//! `datamesh profile`: what a file or a published table holds.

use std::path::Path;

use clap::Args;
use datamesh_app::explore::profile_table;
use datamesh_core::contract::Table;
use datamesh_core::infer::{TableDraft, draft_table, grouped};
use datamesh_core::profile::{Origin, TableProfile, ValueProfile};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::{Value, json};

use crate::cli::{InputFormat, ReportFormat};
use crate::new::{Meant, examine, examine_database, meant};
use crate::output::{colours, paint};
use crate::{home, output};

#[derive(Debug, Args)]
pub(crate) struct ProfileArguments {
    /// A file, folder, glob or address (s3://…, https://…), a published table as domain.product.table, any Iceberg table by its
    /// metadata document or local folder, or a table of a database as ADDRESS#TABLE ('${env:CRM_URL}#public.customers',
    /// sqlite:crm.db#customers)
    #[arg(value_name = "FILE|TABLE")]
    pub(crate) data: String,
    /// Format of the files (default: by file name)
    #[arg(long, value_enum)]
    pub(crate) input_format: Option<InputFormat>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

/// Frequent values that the text shows.
const TOP: usize = 5;

pub(crate) async fn run(
    arguments: ProfileArguments,
    told: Option<&Path>,
    memory: usize,
    stop: impl Future<Output = ()>,
) -> Result<u8> {
    tokio::select! {
        biased;
        code = profile(arguments, told, memory) => code,
        () = stop => Err(Error::new(ErrorCode::Interrupted, "stopped")),
    }
}

async fn profile(arguments: ProfileArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let (profile, contract) = match meant(&arguments.data, arguments.input_format)? {
        Meant::Source(source) => {
            home::read_location(told, &arguments.data, "profile").await?;
            let engine = home::engine_without_tables()?;
            (examine(&engine, *source, false).await?, None)
        }
        Meant::Iceberg(location) => {
            home::read_location(told, &location, "profile").await?;
            let working = std::env::current_dir()
                .map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
            (home::engine_without_tables()?.examine_iceberg(&location, &working).await?, None)
        }
        Meant::Database(bound) => {
            home::read_location(told, &arguments.data, "profile").await?;
            (examine_database(&home::engine_without_tables()?, &bound).await?.0, None)
        }
        Meant::Table(name) => {
            let root = home::find(told)?;
            let context = home::context(&root).await?;
            let engine = home::governed(&root, memory, &context).await?;
            let profiled = profile_table(&engine, &context, &name).await?;
            (profiled.profile, Some(profiled.table))
        }
    };
    let draft = draft_table("rows", &profile);
    match arguments.format {
        ReportFormat::Json => output::print_json(&document(&arguments.data, &profile, &draft, contract.as_ref())?)?,
        ReportFormat::Text => output::print(&text(&arguments.data, &profile, &draft, contract.as_ref())),
    }
    Ok(0)
}

/// The type, whether the values are hidden, and why the column looks like personal data.
fn facts(value: &ValueProfile, draft: &TableDraft, contract: Option<&Table>) -> (String, bool, Option<String>) {
    let known = contract.and_then(|table| table.column(&value.name));
    let drafted = draft.columns.iter().find(|column| column.column.name == value.name);
    let data_type = known.or(drafted.map(|drafted| &drafted.column)).map(|column| column.data_type.to_string());
    let hidden = contract.is_some() && known.is_none_or(datamesh_core::Column::is_protected);
    let suspicion = drafted.and_then(|drafted| drafted.suspicion.clone());
    (data_type.unwrap_or_else(|| "none".to_owned()), hidden, suspicion)
}

fn document(data: &str, profile: &TableProfile, draft: &TableDraft, contract: Option<&Table>) -> Result<Value> {
    let failed = |error| Error::new(ErrorCode::Internal, "the profile cannot be written").with_source(error);
    let mut document = serde_json::to_value(profile).map_err(failed)?;
    document["data"] = data.into();
    if let Some(columns) = document.get_mut("columns").and_then(Value::as_array_mut) {
        for (column, value) in columns.iter_mut().zip(&profile.columns) {
            let (data_type, hidden, suspicion) = facts(value, draft, contract);
            column["type"] = data_type.into();
            column["protected"] = hidden.into();
            column["suspicion"] = suspicion.into();
        }
    }
    document["misfits"] = json!(draft.misfits);
    Ok(document)
}

fn text(data: &str, profile: &TableProfile, draft: &TableDraft, contract: Option<&Table>) -> String {
    let on = colours(crate::caller::stdout_is_terminal());
    let kind = match &profile.origin {
        Origin::Csv(options) => {
            let delimiter =
                if options.delimiter == '\t' { "tab".to_owned() } else { format!("`{}`", options.delimiter) };
            let header = if options.header { "with a header" } else { "without a header" };
            format!(", delimited by {delimiter}, {header}")
        }
        Origin::Json => ", JSON objects".to_owned(),
        Origin::Typed => String::new(),
    };
    let mut text =
        format!("{}: {} rows, {} columns{kind}\n", paint(data, "1", on), grouped(profile.rows), profile.columns.len());
    for fault in &profile.faults {
        text.push_str(&format!(
            "  {} records cannot be read: {} (first at {})\n",
            grouped(fault.rows),
            fault.why,
            fault.first
        ));
    }
    for value in &profile.columns {
        let (data_type, hidden, suspicion) = facts(value, draft, contract);
        text.push_str(&format!("\n{}  {data_type}\n", paint(&value.name, "1", on)));
        column_text(&mut text, value, hidden, on);
        if let Some(suspicion) = suspicion {
            text.push_str(&format!("  {} {suspicion}\n", paint("personal data?", "33", on)));
        }
    }
    text
}

fn column_text(text: &mut String, value: &ValueProfile, hidden: bool, on: bool) {
    let about = if value.distinct_exact { "" } else { "about " };
    let nulls = value.nulls as f64 * 100.0 / value.rows.max(1) as f64;
    let unique = if value.unique == Some(true) && value.distinct > 0 { ", all different" } else { "" };
    text.push_str(&format!(
        "  nulls {} ({nulls:.1}%), distinct {about}{}{unique}\n",
        grouped(value.nulls),
        grouped(value.distinct)
    ));
    if let Some((least, most)) = value.lengths {
        text.push_str(&format!("  length {} to {}\n", grouped(least), grouped(most)));
    }
    if hidden {
        text.push_str("  values ***\n");
        return;
    }
    if let Some((least, greatest)) = &value.range {
        text.push_str(&format!("  range {} to {}\n", shown(least), shown(greatest)));
    }
    // The mean of dates and times is no number that means something to a reader.
    let temporal = value.range.as_ref().is_some_and(|(least, _)| least.parse::<f64>().is_err());
    if let Some(numbers) = &value.numbers {
        if !temporal {
            let about = if numbers.quantiles_exact { "" } else { "about " };
            let deviation = numbers.deviation.map_or_else(|| "none".to_owned(), number);
            text.push_str(&format!("  mean {}, deviation {deviation}\n", number(numbers.mean)));
            if let [p1, p5, p25, p50, p75, p95, p99] = numbers.quantiles.as_slice() {
                text.push_str(&format!(
                    "  quantiles {about}1% {}, 5% {}, 25% {}, 50% {}, 75% {}, 95% {}, 99% {}\n",
                    number(*p1),
                    number(*p5),
                    number(*p25),
                    number(*p50),
                    number(*p75),
                    number(*p95),
                    number(*p99)
                ));
            }
        }
        if numbers.maximum > numbers.minimum {
            text.push_str(&format!("  histogram {}\n", paint(&bars(&numbers.histogram), "36", on)));
        }
    }
    if let Some((_, most)) = value.top.first().filter(|(_, count)| *count > 1) {
        let at_least = if value.top_exact { "" } else { "at least " };
        let width = most.to_string().len();
        let listed: Vec<String> = value
            .top
            .iter()
            .take(TOP)
            .map(|(word, count)| {
                format!("    {:>width$} {}\n", grouped(*count), shown(word), width = width + width / 3)
            })
            .collect();
        text.push_str(&format!(
            "  most frequent{}\n{}",
            if at_least.is_empty() { "" } else { ", counts are lower bounds" },
            listed.concat()
        ));
    }
    for (word, seen) in &value.null_texts {
        text.push_str(&format!("  {} stands {} times, perhaps for null\n", shown(word), grouped(seen.count)));
    }
    for (sign, count) in &value.signs {
        let word = format!("{sign:?}").to_lowercase();
        text.push_str(&format!("  {} look like: {word}\n", grouped(*count)));
    }
}

/// A value on one line.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let more = if text.chars().count() > 60 { "…" } else { "" };
    format!("{}{more}", short.escape_debug())
}

fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() >= 1e9 || value.abs() < 1e-3) {
        format!("{value:.3e}")
    } else {
        format!("{}", (value * 1000.0).round() / 1000.0)
    }
}

fn bars(counts: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let bar = |count: &u64| if *count == 0 { ' ' } else { BARS[((count * 8).div_ceil(most) as usize).clamp(1, 8) - 1] };
    counts.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bars_show_shares() {
        assert_eq!(super::bars(&[0, 1, 4, 8]), " ▁▄█");
    }
}
