//! Sources read without a contract, to find out what one would say.
//!
//! Delimited text goes through the same reader as a publication's, under a contract of text columns that is made up
//! from the header; JSON is read object by object, typed formats batch by batch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType as Arrow;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef, UInt64Type};
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datamesh_core::contract::{CsvOptions, SourceFormat};
use datamesh_core::profile::{Origin, TableProfile};
use datamesh_core::verdict::Reason;
use datamesh_core::{Column, DataType, Error, ErrorCode, Result, Table};
use datamesh_quality::profile::{KeySinks, TableProfiler};

use serde_json::json;

use super::resolve::SourcePlace;
use super::text::TextReader;
use super::{Hidden, SourceFacts, SourceFile, TableLayout, Tap, csv, dialect, exec};
use crate::error::{parquet_read, unwrap};

/// How much text the dialect is detected from.
const SAMPLE: usize = 1 << 20;

/// Profiles files of one format, in one pass over all of them. `csv`: the dialect, where it is known.
pub(crate) fn profile(
    files: &[SourceFile],
    csv: Option<CsvOptions>,
    facts: SourceFacts,
    batch_size: usize,
    sinks: KeySinks,
) -> Result<TableProfile> {
    let Some(first) = files.first() else {
        return Err(Error::new(ErrorCode::SourceUnreadable, "there is no file to look at"));
    };
    if let Some(other) = files.iter().find(|file| file.format != first.format) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("`{}` and `{}` are of different formats", first.name, other.name),
        )
        .with_help("name files of one format"));
    }
    match first.format {
        SourceFormat::Csv => profile_csv(files, csv, &Arc::new(facts), batch_size, sinks),
        SourceFormat::Ndjson => profile_ndjson(files, &Arc::new(facts), sinks),
        SourceFormat::Parquet => profile_parquet(files, &facts, batch_size, sinks),
        SourceFormat::Json | SourceFormat::Arrow | SourceFormat::Avro => {
            profile_tapped(files, facts, batch_size, sinks)
        }
    }
}

/// Takes what a publication's own reader finds, before it would put a contract to it.
struct ProfileTap(Mutex<Tapped>);

/// The keys, the profile of the columns with their schema, and the rows so far.
type Tapped = (Option<KeySinks>, Option<(SchemaRef, TableProfiler)>, u64);

impl ProfileTap {
    fn lock(&self) -> MutexGuard<'_, Tapped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap for ProfileTap {
    fn batch(&self, batch: &RecordBatch) -> Result<()> {
        let mut state = self.lock();
        let (sinks, profiler, position) = &mut *state;
        if profiler.is_none()
            && let Some(sinks) = sinks.take()
        {
            *profiler = Some((batch.schema(), TableProfiler::of_schema(&batch.schema(), sinks)));
        }
        let Some((schema, profiler)) = profiler else { return Ok(()) };
        if schema.fields() != batch.schema().fields() {
            return Err(Error::new(ErrorCode::SourceUnreadable, "the files have different columns")
                .with_help("look at files of one schema at a time"));
        }
        add_typed(profiler, batch, *position)?;
        *position += batch.num_rows() as u64;
        Ok(())
    }

    fn record(&self, record: &str, position: u64) -> Result<()> {
        let mut state = self.lock();
        let (sinks, profiler, _) = &mut *state;
        if profiler.is_none()
            && let Some(sinks) = sinks.take()
        {
            *profiler = Some((Arc::new(Schema::empty()), TableProfiler::of_json(sinks)));
        }
        let Some((_, profiler)) = profiler else { return Ok(()) };
        if let Err(why) = profiler.add_object(record, position)? {
            profiler.add_fault(&why, position);
        }
        Ok(())
    }
}

fn profile_tapped(
    files: &[SourceFile],
    facts: SourceFacts,
    batch_size: usize,
    sinks: KeySinks,
) -> Result<TableProfile> {
    let tap = Arc::new(ProfileTap(Mutex::new((Some(sinks), None, 0))));
    let facts = Arc::new(facts.with_tap(tap.clone()));
    let layout = TableLayout {
        table: plain_table(&[])?,
        schema: Arc::new(Schema::empty()),
        csv: CsvOptions::default(),
        facts: facts.clone(),
        batch_size,
    };
    let mut faults = Vec::new();
    let mut json = false;
    for file in files {
        tap.lock().2 = 0;
        json |= file.format == SourceFormat::Json;
        // Only records that no profiler could take come out as rows.
        let mut take = |batch: RecordBatch| {
            faults.extend(faults_of(&batch));
            true
        };
        exec::read(&layout, file, 0, &mut take).map_err(read_failed)?;
    }
    let (sinks, profiler, _) = std::mem::take(&mut *tap.lock());
    let mut profiler = match (profiler, sinks) {
        (Some((_, profiler)), _) => profiler,
        (None, Some(sinks)) => TableProfiler::of_json(sinks),
        (None, None) => return Err(Error::new(ErrorCode::Internal, "there is no profile")),
    };
    for (why, position) in faults {
        profiler.add_fault(&broken(why), position);
    }
    profiler.finish(facts.bytes_read(), if json { Origin::Json } else { Origin::Typed })
}

/// Why the rows of a batch are at fault, and where they stand.
pub(crate) fn faults_of(batch: &RecordBatch) -> Vec<(Vec<Reason>, u64)> {
    let (Some(faults), Some(positions)) =
        (batch.column_by_name(Hidden::FAULTS), batch.column_by_name(Hidden::POSITION))
    else {
        return Vec::new();
    };
    let (faults, positions) = (faults.as_string::<i32>(), positions.as_primitive::<UInt64Type>());
    let reasons = |row: usize| serde_json::from_str(faults.value(row)).unwrap_or_default();
    (0..batch.num_rows()).filter(|row| !faults.is_null(*row)).map(|row| (reasons(row), positions.value(row))).collect()
}

/// Why a record cannot be read.
fn broken(reasons: Vec<Reason>) -> String {
    reasons.into_iter().find_map(|reason| reason.value).unwrap_or_else(|| "the record is broken".to_owned())
}

fn profile_csv(
    files: &[SourceFile],
    options: Option<CsvOptions>,
    facts: &Arc<SourceFacts>,
    batch_size: usize,
    sinks: KeySinks,
) -> Result<TableProfile> {
    let (detected, first) = beginning(&files[0])?;
    let options = options.unwrap_or(detected);
    let names: Vec<String> = if options.header {
        first.iter().map(|name| name.trim().to_owned()).collect()
    } else {
        (1..=first.len()).map(|number| format!("column_{number}")).collect()
    };
    let mut usable = Vec::new();
    let mut left_out = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            left_out.push((format!("column {}", at + 1), "the header does not name it"));
        } else if names.iter().filter(|other| *other == name).count() > 1 {
            if !left_out.iter().any(|(other, _)| other == name) {
                left_out.push((name.clone(), "the header names it more than once"));
            }
        } else if name.starts_with("__") {
            // The reader's own columns have such names.
            left_out.push((name.clone(), "names that start with `__` are reserved"));
        } else {
            usable.push(name.clone());
        }
    }
    let columns: Vec<Column> = usable.iter().map(|name| Column::anonymous(name, DataType::String)).collect();
    let fields: Vec<Field> = usable.iter().map(|name| Field::new(name, Arrow::Utf8, true)).collect();
    // Every cell is wanted as it stands, the empty ones too.
    let layout = TableLayout {
        table: plain_table(&columns)?,
        schema: Arc::new(Schema::new(fields)),
        csv: CsvOptions { null_text: Vec::new(), ..options.clone() },
        facts: facts.clone(),
        batch_size,
    };
    let mut profiler = TableProfiler::of_cells(&usable, sinks);
    for (name, why) in left_out {
        profiler.leave_out(&name, why);
    }
    if !usable.is_empty() {
        for file in files {
            let mut failed = None;
            let mut take = |batch: RecordBatch| match add_cells(&mut profiler, &batch) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            };
            csv::read(&layout, file, 0, &mut take).map_err(read_failed)?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }
    for name in facts.columns().0.into_iter().filter(|name| options.header && !names.contains(name)) {
        let name = if name.is_empty() { "column without a name".to_owned() } else { name };
        profiler.leave_out(&name, &format!("the header of `{}` does not name it", files[0].name));
    }
    profiler.finish(facts.bytes_read(), Origin::Csv(options))
}

fn read_failed(error: DataFusionError) -> Error {
    unwrap(ErrorCode::SourceUnreadable, "the source cannot be read", error)
}

/// A table of these columns without any promise.
pub(crate) fn plain_table(columns: &[Column]) -> Result<Table> {
    serde_json::from_value(json!({ "name": "source", "columns": columns }))
        .map_err(|error| Error::new(ErrorCode::Internal, "a table cannot be made up").with_source(error))
}

/// The dialect of a text file and the cells of its first record.
fn beginning(file: &SourceFile) -> Result<(CsvOptions, Vec<String>)> {
    if file.place == SourcePlace::StandardInput {
        return Err(Error::new(ErrorCode::InvalidArgument, "standard input cannot be looked at twice")
            .with_help("save it to a file first"));
    }
    // What is read here is read again, so it does not count.
    let facts = Arc::new(SourceFacts::new("", None, Arc::new(Silent)));
    let mut text = TextReader::open(file, &facts)?;
    while text.window().len() < SAMPLE && text.fill()? {}
    let window = text.window();
    let whole = text.at_end();
    let options = dialect::detect(window, whole);
    let mut fields = Vec::new();
    let mut start = 0;
    while window[start..].starts_with(b"\n") || window[start..].starts_with(b"\r\n") {
        start += if window[start] == b'\n' { 1 } else { 2 };
    }
    let rest = &window[start..];
    let quote = options.quote.map_or(0, |quote| quote as u8);
    let cells = match csv::tokenize(rest, options.delimiter as u8, quote, true, &mut fields) {
        csv::Tokens::Record { whole, .. } if !rest.is_empty() => csv::cells(&rest[..whole], &fields, options.quote),
        _ => Vec::new(),
    };
    Ok((options, cells))
}

struct Silent;

impl datamesh_core::ports::StepObserver for Silent {
    fn reached(&self, _: datamesh_core::ports::PublishStep) {}
}

impl datamesh_app::Progress for Silent {
    fn read(&self, _: &str, _: u64, _: Option<u64>) {}
}

/// Adds the rows of a batch of text cells; the rows at fault are counted apart.
fn add_cells(profiler: &mut TableProfiler, batch: &RecordBatch) -> Result<()> {
    for (why, position) in faults_of(batch) {
        profiler.add_fault(&broken(why), position);
    }
    let hidden = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| Error::new(ErrorCode::Internal, format!("a batch has no {name}")))
    };
    let positions = hidden(Hidden::POSITION)?.as_primitive::<UInt64Type>().clone();
    let faults = hidden(Hidden::FAULTS)?;
    let rows: Vec<usize> = (0..batch.num_rows()).filter(|row| faults.is_null(*row)).collect();
    profiler.add_batch(batch, &rows, &|row| positions.value(row))
}

fn profile_ndjson(files: &[SourceFile], facts: &Arc<SourceFacts>, sinks: KeySinks) -> Result<TableProfile> {
    let mut profiler = TableProfiler::of_json(sinks);
    for file in files {
        let mut text = TextReader::open(file, facts)?;
        while let Some(line) = text.line()? {
            let position = text.line_number();
            let raw = &text.window()[..line.length];
            if line.overlong {
                profiler.add_fault("the record is too long", position);
                text.skip_line()?;
                continue;
            }
            if !raw.iter().all(u8::is_ascii_whitespace) {
                match std::str::from_utf8(raw) {
                    Err(_) => profiler.add_fault("the record is not UTF-8", position),
                    Ok(record) => {
                        if let Err(why) = profiler.add_object(record, position)? {
                            profiler.add_fault(&why, position);
                        }
                    }
                }
            }
            text.consume(line.whole, 1);
        }
    }
    profiler.finish(facts.bytes_read(), Origin::Json)
}

fn profile_parquet(
    files: &[SourceFile],
    facts: &SourceFacts,
    batch_size: usize,
    sinks: KeySinks,
) -> Result<TableProfile> {
    let mut profiler: Option<(SchemaRef, TableProfiler)> = None;
    let mut sinks = Some(sinks);
    for file in files {
        let open = file.open_ranged()?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(open).map_err(|error| parquet_read(&file.name, error))?;
        let schema = builder.schema().clone();
        if profiler.is_none()
            && let Some(sinks) = sinks.take()
        {
            profiler = Some((schema.clone(), TableProfiler::of_schema(&schema, sinks)));
        }
        let Some((known, profiler)) = profiler.as_mut() else { continue };
        let same = known.fields().len() == schema.fields().len()
            && known
                .fields()
                .iter()
                .zip(schema.fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if !same {
            return Err(Error::new(
                ErrorCode::SourceUnreadable,
                format!("`{}` has other columns than the files before it", file.name),
            )
            .with_help("look at files of one schema at a time"));
        }
        let groups = builder.metadata().row_groups();
        facts.read(groups.iter().map(|group| group.compressed_size().max(0) as u64).sum());
        let reader = builder.with_batch_size(batch_size).build().map_err(|error| parquet_read(&file.name, error))?;
        let mut position = 0_u64;
        for batch in reader {
            let batch = batch.map_err(|error| parquet_read(&file.name, error))?;
            add_typed(profiler, &batch, position)?;
            position += batch.num_rows() as u64;
        }
    }
    let profiler = profiler.map(|(_, profiler)| profiler);
    let Some(profiler) = profiler else {
        return Err(Error::new(ErrorCode::SourceUnreadable, "there is no file to look at"));
    };
    profiler.finish(facts.bytes_read(), Origin::Typed)
}

/// Adds a batch of typed columns whose first row is the one after `position`.
pub(crate) fn add_typed(profiler: &mut TableProfiler, batch: &RecordBatch, position: u64) -> Result<()> {
    let rows: Vec<usize> = (0..batch.num_rows()).collect();
    profiler.add_batch(batch, &rows, &|row| position + row as u64 + 1)
}
