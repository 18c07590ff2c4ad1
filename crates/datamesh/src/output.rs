//! What a user sees: errors, diagnostics, reports and rows.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow::util::pretty::pretty_format_batches;
use datamesh_app::ports::Rows;
use datamesh_app::publish::{PublishReport, PublishStatus};
use datamesh_core::contract::WriteMode;
use datamesh_core::verdict::{MetricResult, RowChanges, failure};
use datamesh_core::{Diagnostic, Error, ErrorCode, Level, Result};
use futures::{StreamExt, TryStreamExt};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;
use serde_json::json;

use crate::cli::RowFormat;

/// Rows that a table for people shows.
const MAX_TABLE_ROWS: usize = 1000;

pub(crate) fn colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

pub(crate) fn paint(text: &str, code: &str, on: bool) -> String {
    if on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A text of somebody's without what a terminal would act on.
pub(crate) fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// A document as printed; writing to a closed pipe is not an error worth telling.
pub(crate) fn print(text: &str) {
    let mut out = crate::caller::out();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error))?;
    print(&format!("{text}\n"));
    Ok(())
}

/// Tells an error: for people on standard error, and as JSON on standard output where that is asked for.
pub fn print_error(error: &Error, as_json: bool) {
    if as_json {
        let document = json!({ "error": { "code": error.code().as_str(), "message": error.to_string(), "help": error.help(), "retryable": error.code().is_retryable() } });
        let _ = print_json(&document);
    }
    let on = colours(crate::caller::stderr_is_terminal());
    let mut text = format!("{} {error}\n", paint("error:", "1;31", on));
    if let Some(help) = error.help() {
        text.push_str(&format!("{} {help}\n", paint("help:", "36", on)));
    }
    crate::caller::tell(&text);
}

/// A diagnostic with the text it is about.
struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    source: Option<NamedSource<String>>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.diagnostic, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.id))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.level {
            Level::Error => miette::Severity::Error,
            Level::Warning => miette::Severity::Warning,
            Level::Note => miette::Severity::Advice,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let location = &self.diagnostic.location;
        (location.line > 0).then(|| {
            let span = LabeledSpan::new(None, location.offset, location.length);
            Box::new(std::iter::once(span)) as Box<dyn Iterator<Item = LabeledSpan>>
        })
    }
}

/// Prints the problems of documents to standard output, notes in one line each.
pub(crate) fn print_diagnostics(diagnostics: &[Diagnostic], sources: &BTreeMap<String, String>) {
    print(&render(diagnostics, sources, crate::caller::stdout_is_terminal()));
}

/// Prints errors and warnings to standard error.
pub(crate) fn print_problems(diagnostics: &[Diagnostic], sources: &BTreeMap<String, String>) {
    let problems: Vec<Diagnostic> =
        diagnostics.iter().filter(|diagnostic| diagnostic.level != Level::Note).cloned().collect();
    if let Some(mut said) = crate::caller::current().as_ref().and_then(|caller| caller.said()) {
        said.problems.extend(problems);
        return;
    }
    crate::caller::tell(&render(&problems, sources, crate::caller::stderr_is_terminal()));
}

/// Whether the line at `offset` is short enough to be worth showing.
fn is_showable(source: &str, offset: usize) -> bool {
    let bytes = source.as_bytes();
    let start = bytes[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let end = bytes[offset..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| offset + at);
    end - start <= 1000
}

fn render(diagnostics: &[Diagnostic], sources: &BTreeMap<String, String>, terminal: bool) -> String {
    let theme = if colours(terminal) { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_context_lines(1).with_width(110);
    let mut text = String::new();
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.level != Level::Note) {
        let location = &diagnostic.location;
        let source = sources.get(&location.file).filter(|source| {
            location.offset <= source.len() && location.line > 0 && is_showable(source, location.offset)
        });
        let source = source.map(|source| NamedSource::new(&location.file, source.clone()));
        if source.is_none() {
            text.push_str(&format!("{}\n", location.file));
        }
        if handler.render_report(&mut text, &Shown { diagnostic, source }).is_err() {
            text.push_str(&format!("{diagnostic}\n"));
        }
        text.push('\n');
    }
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.level == Level::Note) {
        let location = &diagnostic.location;
        text.push_str(&format!(
            "{} {}:{}:{} {}\n",
            paint("note:", "36", colours(terminal)),
            location.file,
            location.line,
            location.column,
            diagnostic.message
        ));
    }
    text
}

/// Numbers as people group them.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Of a pull's rows, those that an earlier one held back.
fn held_before(rows: u64) -> String {
    match rows {
        0 => String::new(),
        1 => "; 1 row that was held back before left out".to_owned(),
        rows => format!("; {} rows that were held back before left out", grouped(rows)),
    }
}

/// The report of a publish, for people.
pub(crate) fn publish_text(report: &PublishReport) -> String {
    let on = colours(crate::caller::stdout_is_terminal());
    let (word, colour) = match report.status {
        PublishStatus::Published => ("published", "1;32"),
        PublishStatus::Repeat => ("repeat, nothing changed", "1;32"),
        PublishStatus::Rejected => ("rejected", "1;31"),
        PublishStatus::Conflict => ("conflict, nothing changed", "1;31"),
        PublishStatus::WouldPublish => ("would be published (dry run)", "1;33"),
        PublishStatus::WouldReject => ("would be rejected (dry run)", "1;31"),
    };
    let number = report.publication.map_or_else(String::new, |number| format!(" as publication {number}"));
    let mut text = format!("{} {} {}{number}\n", report.product, report.version, paint(word, colour, on));
    if let Some(target) = report.rollback_to {
        text.push_str(&format!("  back to what publication {target} served\n"));
    }
    for settled in &report.resolves {
        text.push_str(&format!(
            "  {}: quarantined rows of publication {}, {}\n",
            settled.table,
            settled.publication,
            settled.how.as_str()
        ));
    }
    for table in &report.tables {
        if report.rollback_to.is_some() {
            text.push_str(&format!("  {}: {} rows\n", table.table, grouped(table.total_rows)));
            continue;
        }
        if let Some(earlier) = table.repeat_of {
            let name = table.table.to_lowercase().replace('-', "_");
            let what = if report.transforms.iter().any(|run| run.table == name) { "inputs" } else { "content" };
            let why = match table.watermark.as_ref().and_then(|pull| Some((&pull.column, pull.after.as_ref()?))) {
                Some((column, after)) => format!("no row with {column} after {after}, as of publication {earlier}"),
                None if report.carried_forward.contains(&table.table) => {
                    format!("no new data, as of publication {earlier}")
                }
                None => format!("same {what} as publication {earlier}, carried forward"),
            };
            let held = table.watermark.as_ref().map_or_else(String::new, |pull| held_before(pull.held_before));
            text.push_str(&format!("  {}: {why}{held}\n{}", table.table, missed(&table.metrics, on)));
            continue;
        }
        text.push_str(&format!(
            "  {}: in {} = published {} + quarantined {}\n",
            table.table,
            grouped(table.rows_in),
            grouped(table.published),
            grouped(table.quarantined)
        ));
        if let Some(changes) = &table.changes {
            text.push_str(&changes_text(table.write, changes));
        }
        for (rule, count) in &table.reasons {
            let samples: Vec<&str> =
                count.samples.iter().filter_map(|sample| sample.value.as_deref()).take(3).collect();
            let samples = if samples.is_empty() { String::new() } else { format!("  e.g. {}", samples.join(" | ")) };
            text.push_str(&format!("    {:>8} × {rule}{samples}\n", grouped(count.rows)));
        }
        text.push_str(&missed(&table.metrics, on));
        if let Some(pull) = &table.watermark {
            let after = pull.after.as_ref().map_or_else(|| "everything".to_owned(), |after| format!("after {after}"));
            let last = pull.last.as_ref().map_or_else(String::new, |last| format!(", up to {last}"));
            let skipped = match pull.skipped {
                0 => String::new(),
                skipped => format!("; {} older rows left out", grouped(skipped)),
            };
            let held = held_before(pull.held_before);
            text.push_str(&format!("    watermark {}: {after}{last}{skipped}{held}\n", pull.column));
        }
        if !table.ignored_columns.is_empty() {
            text.push_str(&format!("    not in the contract, left out: {}\n", table.ignored_columns.join(", ")));
        }
        if !table.missing_columns.is_empty() {
            text.push_str(&format!("    not in the source, null: {}\n", table.missing_columns.join(", ")));
        }
    }
    if !report.carried_forward.is_empty() {
        text.push_str(&format!("  carried forward: {}\n", report.carried_forward.join(", ")));
    }
    for note in &report.notes {
        text.push_str(&format!("  {} {note}\n", paint("note", "36", on)));
    }
    for because in &report.because {
        text.push_str(&format!("  {} {because}\n", paint("because", "1", on)));
    }
    text
}

/// The metric rules whose thresholds were missed, for people.
fn missed(metrics: &[MetricResult], on: bool) -> String {
    let mut text = String::new();
    for metric in metrics.iter().filter(|metric| !metric.passed || metric.warned) {
        let severity = match metric.passed {
            true => "warning".to_owned(),
            false => format!("{:?}", metric.severity).to_lowercase(),
        };
        let found = match (metric.passed, metric.value, &metric.warn) {
            (true, Some(value), Some(warn)) => format!(": {} is {}, expected {warn}", metric.metric, round(value)),
            (true, ..) => format!(": {} is not as expected", metric.metric),
            (false, ..) => failure(&MetricResult { value: metric.value.map(round), ..metric.clone() }),
        };
        text.push_str(&format!("    {} {}{found}\n", paint(&severity, "33", on), metric.rule));
    }
    text
}

/// What the published rows changed, for people.
fn changes_text(write: WriteMode, changes: &RowChanges) -> String {
    if write != WriteMode::Upsert {
        return format!("    {} rows of the same partitions made room\n", grouped(changes.removed));
    }
    let absent = match changes.absent {
        0 => String::new(),
        absent => format!(", {} deletions of keys that are not there", grouped(absent)),
    };
    format!(
        "    {} inserted, {} updated, {} deleted{absent}\n",
        grouped(changes.inserted),
        grouped(changes.updated),
        grouped(changes.deleted)
    )
}

fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A schema as the outside sees it: names and types, no field ids.
fn plain(schema: &Schema) -> Arc<Schema> {
    Arc::new(Schema::new(schema.fields().iter().map(plain_field).collect::<Fields>()))
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorCode::WriteFailed, format!("the rows cannot be written: {error}")).with_source(error)
}

/// Whether a write failed only because the reader of a pipe went away.
fn is_closed_pipe(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        if error.to_string().contains("Broken pipe") {
            return true;
        }
        source = error.source();
    }
    false
}

/// Rows as the outside sees them: without field ids.
pub fn plain_rows(rows: Rows) -> Rows {
    let schema = plain(&rows.schema);
    let again = schema.clone();
    let batches = rows.batches.map_ok(move |batch| {
        // The layout is the same; only the metadata of the fields is left behind.
        let columns =
            batch.columns().iter().zip(again.fields()).map(|(column, field)| {
                arrow::compute::cast(column, field.data_type()).unwrap_or_else(|_| column.clone())
            });
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(again.clone(), columns.collect(), &options).unwrap_or(batch)
    });
    Rows { schema, batches: batches.boxed() }
}

/// Writes rows to a file or to standard output.
pub(crate) async fn write_rows(rows: Rows, format: RowFormat, out: Option<&Path>) -> Result<()> {
    let Rows { schema, mut batches } = plain_rows(rows);
    if format == RowFormat::Table && out.is_none() {
        let mut shown = Vec::new();
        let (mut count, mut total) = (0, 0);
        while let Some(batch) = batches.try_next().await? {
            total += batch.num_rows();
            let room = MAX_TABLE_ROWS - count;
            if room > 0 {
                let part = batch.slice(0, batch.num_rows().min(room));
                count += part.num_rows();
                shown.push(part);
            }
        }
        if shown.is_empty() {
            shown.push(RecordBatch::new_empty(schema));
        }
        let table = pretty_format_batches(&shown).map_err(failed)?;
        let more = if total > count {
            format!("{} more rows; use --format csv, json or parquet for all\n", grouped((total - count) as u64))
        } else {
            String::new()
        };
        print(&format!("{table}\n{more}"));
        return Ok(());
    }
    let mut sink = Sink::open(out)?;
    let written = write_stream(&mut sink, format, &schema, &mut batches).await;
    match written {
        Err(error) if out.is_none() && is_closed_pipe(&error) => Ok(()),
        Err(error) => {
            sink.discard();
            Err(error)
        }
        Ok(()) => sink.finish(),
    }
}

async fn write_stream(
    sink: &mut Sink,
    format: RowFormat,
    schema: &Arc<Schema>,
    batches: &mut (impl futures::Stream<Item = Result<RecordBatch>> + Unpin),
) -> Result<()> {
    match format {
        RowFormat::Table => {
            let mut all = Vec::new();
            while let Some(batch) = batches.try_next().await? {
                all.push(batch);
            }
            if all.is_empty() {
                all.push(RecordBatch::new_empty(schema.clone()));
            }
            let table = pretty_format_batches(&all).map_err(failed)?;
            writeln!(sink, "{table}").map_err(failed)?;
        }
        RowFormat::Csv => {
            let flat = flatten(schema);
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *sink);
            // A header is written even where there are no rows.
            writer.write(&RecordBatch::new_empty(flat.clone())).map_err(failed)?;
            while let Some(batch) = batches.try_next().await? {
                writer.write(&flat_batch(&flat, &batch)?).map_err(failed)?;
            }
        }
        RowFormat::Json => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(&mut *sink);
            while let Some(batch) = batches.try_next().await? {
                writer.write(&batch).map_err(failed)?;
            }
            writer.finish().map_err(failed)?;
            drop(writer);
            writeln!(sink).map_err(failed)?;
        }
        RowFormat::Parquet => {
            if sink.is_terminal() {
                return Err(Error::new(ErrorCode::InvalidArgument, "Parquet is not for a terminal")
                    .with_help("add `--out FILE`"));
            }
            let level = parquet::basic::ZstdLevel::try_new(1).map_err(failed)?;
            let properties = parquet::file::properties::WriterProperties::builder()
                .set_compression(parquet::basic::Compression::ZSTD(level))
                .build();
            let mut writer =
                parquet::arrow::ArrowWriter::try_new(&mut *sink, schema.clone(), Some(properties)).map_err(failed)?;
            while let Some(batch) = batches.try_next().await? {
                writer.write(&batch).map_err(failed)?;
            }
            writer.close().map_err(failed)?;
        }
    }
    Ok(())
}

/// CSV has no nested values: they are written as JSON text.
fn flatten(schema: &Schema) -> Arc<Schema> {
    let flat = |field: &FieldRef| {
        let nested =
            field.data_type().is_nested() || matches!(field.data_type(), DataType::Binary | DataType::LargeBinary);
        Field::new(field.name(), if nested { DataType::Utf8 } else { field.data_type().clone() }, true)
    };
    Arc::new(Schema::new(schema.fields().iter().map(flat).collect::<Fields>()))
}

fn flat_batch(flat: &Arc<Schema>, batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = Vec::new();
    for (column, field) in batch.columns().iter().zip(flat.fields()) {
        if column.data_type() == field.data_type() {
            columns.push(column.clone());
            continue;
        }
        let one = Arc::new(Schema::new(vec![Field::new("v", column.data_type().clone(), true)]));
        let mut cells: Vec<Option<String>> = Vec::new();
        for row in 0..column.len() {
            if column.is_null(row) {
                cells.push(None);
                continue;
            }
            let cell = RecordBatch::try_new(one.clone(), vec![column.slice(row, 1)]).map_err(failed)?;
            let mut out = Vec::new();
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(&mut out);
            writer.write(&cell).map_err(failed)?;
            writer.finish().map_err(failed)?;
            drop(writer);
            let value: serde_json::Value = serde_json::from_slice(&out).map_err(failed)?;
            cells.push(Some(match &value["v"] {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            }));
        }
        columns.push(Arc::new(arrow::array::StringArray::from(cells)) as arrow::array::ArrayRef);
    }
    RecordBatch::try_new(flat.clone(), columns).map_err(failed)
}

/// A file that appears whole or not at all, or standard output.
enum Sink {
    Stdout(std::io::BufWriter<Box<dyn Write + Send>>),
    /// `part` becomes `path` at the end; `None` where `path` is a device or a pipe, which nothing can take the place of.
    File {
        file: std::io::BufWriter<std::fs::File>,
        part: Option<std::path::PathBuf>,
        path: std::path::PathBuf,
    },
}

impl Sink {
    fn open(out: Option<&Path>) -> Result<Self> {
        let Some(path) = out else { return Ok(Self::Stdout(std::io::BufWriter::new(crate::caller::out()))) };
        let failed = |path: &Path, error| Error::io(ErrorCode::WriteFailed, "write", path, error);
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
            let file = std::fs::OpenOptions::new().write(true).open(path).map_err(|error| failed(path, error))?;
            return Ok(Self::File { file: std::io::BufWriter::new(file), part: None, path: path.to_owned() });
        }
        let name = path.file_name().map_or_else(|| "rows".to_owned(), |name| name.to_string_lossy().into_owned());
        let part = path.with_file_name(format!(".{name}.part"));
        let file = std::fs::File::create(&part).map_err(|error| failed(&part, error))?;
        Ok(Self::File { file: std::io::BufWriter::new(file), part: Some(part), path: path.to_owned() })
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout(_)) && crate::caller::stdout_is_terminal()
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut out) => match out.flush() {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                Err(error) => Err(failed(error)),
                Ok(()) => Ok(()),
            },
            Self::File { mut file, part, path } => {
                let done = file.flush().and_then(|()| part.map_or(Ok(()), |part| std::fs::rename(part, &path)));
                done.map_err(|error| Error::io(ErrorCode::WriteFailed, "write", &path, error))
            }
        }
    }

    fn discard(self) {
        if let Self::File { part: Some(part), .. } = self {
            // What is left of a failed write is not worth a second error.
            let _ = std::fs::remove_file(part);
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}
