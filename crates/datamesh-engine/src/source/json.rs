//! NDJSON: one object a line. Numbers are read from their text, so nothing is rounded on the way.

use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use std::collections::BTreeSet;

use datamesh_core::DataType;
use datamesh_quality::values::shorten;

use super::build::{BatchBuilder, ObjectKeys};
use super::text::TextReader;
use super::{Content, SourceFile, TableLayout};
use crate::error::wrap;

/// How many names of unknown keys are remembered.
const MAX_IGNORED: usize = 1000;

/// Reads a file and hands over full batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let mut text = TextReader::open(file, &layout.facts).map_err(wrap)?;
    layout.facts.raw_fields().add(index, crate::quarantine::JSON.to_owned());
    let keys = ObjectKeys::new(&layout.table.columns);
    let mut batch = BatchBuilder::new(layout, index);
    let mut content = Content::default();
    let mut ignored = BTreeSet::new();
    let mut readable = false;
    let mut seen = vec![false; layout.table.columns.len()];
    while let Some(line) = text.line().map_err(wrap)? {
        let raw = &text.window()[..line.length];
        if !line.overlong && raw.iter().all(u8::is_ascii_whitespace) {
            text.consume(line.whole, 1);
            continue;
        }
        let position = text.line_number();
        if !line.overlong {
            content.add(0, raw);
        }
        match std::str::from_utf8(raw) {
            _ if line.overlong => batch.append_broken(position, raw, "the record is too long"),
            Err(_) => batch.append_broken(position, raw, "the record is not UTF-8"),
            Ok(record) => match keys.read(record) {
                Err(why) => batch.append_broken(position, raw, &why),
                Ok(object) => {
                    readable = true;
                    for (column, value) in object.values.iter().enumerate() {
                        seen[column] |= value.is_some();
                        match value {
                            Some(value) => batch.append_json(column, value),
                            None => batch.append_null(column),
                        }
                    }
                    for name in object.unknown {
                        if ignored.len() < MAX_IGNORED {
                            ignored.insert(shorten(&name));
                        }
                    }
                    batch.end_record(position, || raw.to_vec());
                }
            },
        }
        if line.overlong {
            content.add(0, &text.skip_line().map_err(wrap)?);
        } else {
            text.consume(line.whole, 1);
        }
        if batch.is_full() && !emit(batch.finish().map_err(wrap)?) {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        emit(batch.finish().map_err(wrap)?);
    }
    if readable {
        let names = layout.table.columns.iter().zip(&seen).filter(|(_, seen)| **seen);
        layout.facts.add_seen(names.map(|(column, _)| column.name.clone()).collect());
    }
    let missing =
        layout.table.columns.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(column, _)| column.name.clone());
    layout.facts.add_columns(ignored.into_iter().collect(), missing.collect());
    layout.facts.add_content(content);
    Ok(())
}

/// Reads one raw record again.
pub(super) fn reread(keys: &ObjectKeys<'_>, raw: &[u8], batch: &mut BatchBuilder<'_>) {
    let record = std::str::from_utf8(raw).map_err(|_| "the record is not UTF-8".to_owned());
    match record.and_then(|record| keys.read(record)) {
        Err(why) => batch.append_broken(0, raw, &why),
        Ok(object) => {
            for (column, value) in object.values.iter().enumerate() {
                match value {
                    Some(value) => batch.append_json(column, value),
                    None => batch.append_null(column),
                }
            }
            batch.end_record(0, || raw.to_vec());
        }
    }
}

/// YAML's numbers that JSON has no form for, as JSON keeps them: as texts.
fn unusual_number(text: &str) -> Option<&'static str> {
    Some(match text.trim_matches('"') {
        ".nan" | ".NaN" | ".NAN" => "NaN",
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "Infinity",
        "-.inf" | "-.Inf" | "-.INF" => "-Infinity",
        _ => return None,
    })
}

/// Rows that are YAML objects, one JSON text each, as one source batch.
pub(crate) fn rows(layout: &TableLayout, texts: &[String]) -> datamesh_core::Result<RecordBatch> {
    let keys = ObjectKeys::new(&layout.table.columns);
    let mut batch = BatchBuilder::new(layout, 0);
    for (position, text) in (1..).zip(texts) {
        match keys.read(text) {
            Err(why) => batch.append_broken(position, text.as_bytes(), &why),
            Ok(object) => {
                layout.facts.add_columns(object.unknown, Vec::new());
                for (column, value) in object.values.iter().enumerate() {
                    let floats = matches!(layout.table.columns[column].data_type, DataType::Float | DataType::Double);
                    match (value, value.and_then(|value| unusual_number(value.get())).filter(|_| floats)) {
                        (_, Some(number)) => batch.append_text(column, number),
                        (Some(value), None) => batch.append_json(column, value),
                        (None, None) => batch.append_null(column),
                    }
                }
                batch.end_record(position, || text.clone().into_bytes());
            }
        }
    }
    batch.finish()
}
