//! Delimited text (RFC 4180), record by record.
//!
//! A record that is not RFC 4180 is a fault of its own and stops nothing. A quote that is opened and not closed could
//! swallow the rest of the file: where a record over several lines turns out broken, only its first line is at fault,
//! and reading goes on with the next line.

use std::borrow::Cow;
use std::ops::Range;

use datafusion::error::DataFusionError;
use datamesh_core::contract::CsvOptions;
use datamesh_core::{Error, ErrorCode, Result};
use memchr::{memchr, memchr_iter, memchr2};
use twox_hash::XxHash3_64;

use super::build::BatchBuilder;
use super::text::{MAX_RECORD, TextReader};
use super::{Content, SourceFile, TableLayout, match_columns};
use crate::error::wrap;

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldRange {
    range: Range<usize>,
    /// Has doubled quotes to undo.
    escaped: bool,
}

/// What a piece of text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// A record of so many bytes, its end included, over so many lines.
    Record { whole: usize, lines: u64 },
    /// The text ends within quotes.
    Open,
    /// Not RFC 4180.
    Broken(&'static str),
}

/// Reads a record that may have quotes. `fields` is filled with ranges into `text`.
pub(super) fn tokenize(text: &[u8], delimiter: u8, quote: u8, at_end: bool, fields: &mut Vec<FieldRange>) -> Tokens {
    fields.clear();
    let mut at = 0;
    let mut lines = 1;
    loop {
        if text.get(at) == Some(&quote) {
            let start = at + 1;
            let mut escaped = false;
            let mut from = start;
            let end = loop {
                let Some(found) = memchr(quote, &text[from..]).map(|found| from + found) else { return Tokens::Open };
                if text.get(found + 1) == Some(&quote) {
                    escaped = true;
                    from = found + 2;
                } else if found + 1 == text.len() && !at_end {
                    return Tokens::Open;
                } else {
                    break found;
                }
            };
            lines += memchr_iter(b'\n', &text[start..end]).count() as u64;
            fields.push(FieldRange { range: start..end, escaped });
            at = end + 1;
        } else {
            let stop = memchr2(delimiter, b'\n', &text[at..]).map_or(text.len(), |found| at + found);
            if memchr(quote, &text[at..stop]).is_some() {
                return Tokens::Broken("a quote stands within an unquoted field");
            }
            let mut end = stop;
            if text.get(stop) != Some(&delimiter) && end > at && text[end - 1] == b'\r' {
                end -= 1;
            }
            fields.push(FieldRange { range: at..end, escaped: false });
            at = stop;
        }
        match text.get(at) {
            Some(byte) if *byte == delimiter => at += 1,
            Some(b'\n') => return Tokens::Record { whole: at + 1, lines },
            Some(b'\r') if text.get(at + 1) == Some(&b'\n') => return Tokens::Record { whole: at + 2, lines },
            Some(b'\r') if at + 1 == text.len() => {
                return if at_end { Tokens::Record { whole: at + 1, lines } } else { Tokens::Open };
            }
            None => return if at_end { Tokens::Record { whole: at, lines } } else { Tokens::Open },
            Some(_) => return Tokens::Broken("text follows a closing quote"),
        }
    }
}

#[inline]
fn unescape<'t>(text: &'t str, field: &FieldRange, quote: char) -> Cow<'t, str> {
    let text = &text[field.range.clone()];
    if field.escaped {
        Cow::Owned(text.replace(&format!("{quote}{quote}"), &quote.to_string()))
    } else {
        Cow::Borrowed(text)
    }
}

/// The cells of a tokenised record, as text; bytes that are not UTF-8 are replaced.
pub(super) fn cells(record: &[u8], fields: &[FieldRange], quote: Option<char>) -> Vec<String> {
    let cell = |field: &FieldRange| {
        let text = String::from_utf8_lossy(&record[field.range.clone()]).into_owned();
        match quote.filter(|_| field.escaped) {
            Some(quote) => text.replace(&format!("{quote}{quote}"), &quote.to_string()),
            None => text,
        }
    };
    fields.iter().map(cell).collect()
}

/// Reads a file and hands over full batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(datafusion::arrow::array::RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let mut text = TextReader::open(file, &layout.facts).map_err(wrap)?;
    refuse_lone_returns(&mut text, file, &layout.csv).map_err(wrap)?;
    let mut reader = CsvReader {
        layout,
        delimiter: layout.csv.delimiter as u8,
        quote: layout.csv.quote.map(|quote| quote as u8),
        fields: Vec::new(),
        content: Content::default(),
        seed: 0,
        width: layout.table.columns.len(),
        targets: (0..layout.table.columns.len()).collect(),
    };
    let names = if layout.csv.header {
        reader.header(&mut text, &file.name)?
    } else {
        let names: Vec<&str> = layout.table.columns.iter().map(|column| column.name.as_str()).collect();
        reader.seed = seed(&layout.csv, &names);
        names.into_iter().map(str::to_owned).collect()
    };
    // A list of texts always serialises.
    layout.facts.raw_fields().add(index, serde_json::to_string(&names).unwrap_or_default());
    let mut batch = BatchBuilder::new(layout, index);
    while reader.record(&mut text, &mut batch).map_err(wrap)? {
        if batch.is_full() && !emit(batch.finish().map_err(wrap)?) {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        emit(batch.finish().map_err(wrap)?);
    }
    layout.facts.add_content(reader.content);
    Ok(())
}

/// Refuses a text whose lines end with a carriage return alone: all of it would be the header.
fn refuse_lone_returns(text: &mut TextReader, file: &SourceFile, options: &CsvOptions) -> Result<()> {
    let Some(line) = text.line()? else { return Ok(()) };
    let window = text.window();
    let first = window[..line.length].trim_ascii_end();
    let Some(at) = memchr(b'\r', first) else { return Ok(()) };
    // A cell in quotes may have one, and so may a record that a line feed ends.
    let quoted = options.quote.is_some_and(|quote| memchr_iter(quote as u8, &first[..at]).count() % 2 == 1);
    if quoted || (!options.header && window[..line.whole].ends_with(b"\n")) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::SourceUnreadable,
        format!("the lines of `{}` end with a carriage return alone", file.name),
    )
    .with_help("write it with line feeds: `tr '\\r' '\\n' < OLD.csv > NEW.csv`"))
}

/// What gives a record its meaning: the names of its fields and how it is written.
fn seed(options: &CsvOptions, names: &[&str]) -> u64 {
    let nulls = options.null_text.join("\u{1f}");
    let CsvOptions { delimiter, quote, .. } = options;
    XxHash3_64::oneshot(format!("{delimiter}{quote:?}\u{1e}{nulls}\u{1e}{}", names.join("\u{1f}")).as_bytes())
}

struct CsvReader<'a> {
    layout: &'a TableLayout,
    delimiter: u8,
    quote: Option<u8>,
    fields: Vec<FieldRange>,
    content: Content,
    seed: u64,
    /// Fields that a record has.
    width: usize,
    /// For each contract column the field it comes from; `usize::MAX` for none.
    targets: Vec<usize>,
}

/// A record of the window.
struct Found {
    length: usize,
    whole: usize,
    lines: u64,
    fault: Option<&'static str>,
}

impl CsvReader<'_> {
    /// Finds the next record. `None` at the end of the file. Blank lines are passed over.
    fn find(&mut self, text: &mut TextReader) -> Result<Option<Found>> {
        loop {
            let Some(line) = text.line()? else { return Ok(None) };
            if line.overlong {
                let fault = Some("the record is too long");
                return Ok(Some(Found { length: line.length, whole: line.whole, lines: 0, fault }));
            }
            let window = text.window();
            // In a file of one column a blank line is a record with an empty cell.
            if line.length == 0 && self.width != 1 {
                text.consume(line.whole, 1);
                continue;
            }
            let plain = &window[..line.length];
            let quote = self.quote.filter(|quote| memchr(*quote, plain).is_some());
            let Some(quote) = quote else {
                self.fields.clear();
                let mut start = 0;
                for end in memchr_iter(self.delimiter, plain).chain([plain.len()]) {
                    self.fields.push(FieldRange { range: start..end, escaped: false });
                    start = end + 1;
                }
                return Ok(Some(Found { length: line.length, whole: line.whole, lines: 1, fault: None }));
            };
            let first_line = |fault| Found { length: line.length, whole: line.whole, lines: 1, fault: Some(fault) };
            let mut tokens = tokenize(window, self.delimiter, quote, text.at_end(), &mut self.fields);
            while tokens == Tokens::Open && text.window().len() <= MAX_RECORD && text.fill()? {
                tokens = tokenize(text.window(), self.delimiter, quote, text.at_end(), &mut self.fields);
            }
            if tokens == Tokens::Open && text.at_end() {
                tokens = tokenize(text.window(), self.delimiter, quote, true, &mut self.fields);
            }
            return Ok(Some(match tokens {
                Tokens::Record { lines, .. }
                    if lines > 1 && self.width != usize::MAX && self.fields.len() != self.width =>
                {
                    first_line("a quote is not closed on its line, and what follows has another number of fields")
                }
                Tokens::Record { whole, lines } => {
                    let record = &text.window()[..whole];
                    let trimmed = record.strip_suffix(b"\n").unwrap_or(record);
                    let length = trimmed.strip_suffix(b"\r").unwrap_or(trimmed).len();
                    Found { length, whole, lines, fault: None }
                }
                Tokens::Open => first_line("a quote is not closed"),
                Tokens::Broken(why) => first_line(why),
            }));
        }
    }

    fn header(&mut self, text: &mut TextReader, file: &str) -> Result<Vec<String>, DataFusionError> {
        // How many fields a record has is not known yet.
        self.width = usize::MAX;
        let refuse = |why: &str| {
            let help = "the first record must name the columns; add `header: false` to the source where it does not";
            wrap(
                Error::new(
                    ErrorCode::SourceUnreadable,
                    format!("the header of table `{}` cannot be read: {why}", self.layout.table.name),
                )
                .with_help(help),
            )
        };
        let Some(found) = self.find(text).map_err(wrap)? else {
            // A write that broke off leaves such a file, and rows that were not written are no rows to take away.
            let what = format!("`{file}` is empty: it has not even a header");
            return Err(wrap(Error::new(ErrorCode::SourceUnreadable, what).with_help(
                "a header alone is a table without rows; write one, or add `header: false` to the source where files have none",
            )));
        };
        if let Some(fault) = found.fault {
            return Err(refuse(fault));
        }
        let record = std::str::from_utf8(&text.window()[..found.length]).map_err(|_| refuse("it is not UTF-8"))?;
        let quote = self.layout.csv.quote.unwrap_or('"');
        let names: Vec<String> =
            self.fields.iter().map(|field| unescape(record, field, quote).trim().to_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for column in &self.layout.table.columns {
            if names.iter().filter(|name| **name == column.name).count() > 1 {
                return Err(refuse(&format!("it names column `{}` twice", column.name)));
            }
        }
        if !names.iter().any(|name| self.layout.table.column(name).is_some()) {
            return Err(refuse("it names no column of the contract"));
        }
        match_columns(self.layout, &names).map_err(|missing| DataFusionError::External(Box::new(missing)))?;
        self.width = names.len();
        self.targets = self
            .layout
            .table
            .columns
            .iter()
            .map(|column| names.iter().position(|name| *name == column.name).unwrap_or(usize::MAX))
            .collect();
        self.seed = seed(&self.layout.csv, &names);
        text.consume(found.whole, found.lines);
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// Reads one record into the batch; `false` at the end of the file.
    fn record(&mut self, text: &mut TextReader, batch: &mut BatchBuilder<'_>) -> Result<bool> {
        let Some(found) = self.find(text)? else { return Ok(false) };
        let position = text.line_number();
        let raw = &text.window()[..found.length];
        if found.lines > 0 {
            self.content.add(self.seed, raw);
        }
        let mut fault = found.fault;
        if fault.is_none() && self.fields.len() != self.width {
            fault = Some(if self.fields.len() < self.width {
                "the record has too few fields"
            } else {
                "the record has too many fields"
            });
        }
        match (fault, std::str::from_utf8(raw)) {
            (Some(fault), _) => batch.append_broken(position, raw, fault),
            (None, Err(_)) => batch.append_broken(position, raw, "the record is not UTF-8"),
            (None, Ok(record)) => {
                let quote = self.layout.csv.quote.unwrap_or('"');
                for (column, target) in self.targets.iter().enumerate() {
                    match self.fields.get(*target) {
                        Some(field) => {
                            let cell = unescape(record, field, quote);
                            if self.layout.csv.null_text.iter().any(|null| *null == cell) {
                                batch.append_null(column);
                            } else {
                                batch.append_text(column, &cell);
                            }
                        }
                        None => batch.append_null(column),
                    }
                }
                batch.end_record(position, || raw.to_vec());
            }
        }
        if found.lines == 0 {
            let digest = text.skip_line()?;
            self.content.add(self.seed, &digest);
        } else {
            text.consume(found.whole, found.lines);
        }
        Ok(true)
    }
}

/// Reads one raw record again, whose fields have these names, as the source is described now.
pub(super) fn reread(layout: &TableLayout, raw: &[u8], names: &[String], batch: &mut BatchBuilder<'_>) {
    let options = &layout.csv;
    let quote = options.quote.map(|quote| quote as u8).filter(|quote| memchr(*quote, raw).is_some());
    let mut fields = Vec::new();
    let mut fault = None;
    match quote {
        Some(quote) => match tokenize(raw, options.delimiter as u8, quote, true, &mut fields) {
            Tokens::Record { whole, .. } if whole == raw.len() => {}
            Tokens::Record { .. } => fault = Some("the record has several lines"),
            Tokens::Open => fault = Some("a quote is not closed"),
            Tokens::Broken(why) => fault = Some(why),
        },
        None => {
            let mut start = 0;
            for end in memchr_iter(options.delimiter as u8, raw).chain([raw.len()]) {
                fields.push(FieldRange { range: start..end, escaped: false });
                start = end + 1;
            }
        }
    }
    if fault.is_none() && fields.len() != names.len() {
        fault = Some(if fields.len() < names.len() {
            "the record has too few fields"
        } else {
            "the record has too many fields"
        });
    }
    match (fault, std::str::from_utf8(raw)) {
        (Some(fault), _) => batch.append_broken(0, raw, fault),
        (None, Err(_)) => batch.append_broken(0, raw, "the record is not UTF-8"),
        (None, Ok(record)) => {
            for (column, contract) in layout.table.columns.iter().enumerate() {
                let field = names.iter().position(|name| *name == contract.name).and_then(|at| fields.get(at));
                match field.map(|field| unescape(record, field, options.quote.unwrap_or('"'))) {
                    Some(cell) if !options.null_text.iter().any(|null| *null == cell) => {
                        batch.append_text(column, &cell);
                    }
                    _ => batch.append_null(column),
                }
            }
            batch.end_record(0, || raw.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Result<Vec<String>, Tokens> {
        let mut ranges = Vec::new();
        match tokenize(text.as_bytes(), b',', b'"', true, &mut ranges) {
            Tokens::Record { .. } => Ok(ranges.iter().map(|field| unescape(text, field, '"').into_owned()).collect()),
            other => Err(other),
        }
    }

    #[test]
    fn records_are_tokenised() {
        assert_eq!(fields("a,b\n"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(fields("\"a,\"\"b\",\r\n"), Ok(vec!["a,\"b".into(), String::new()]));
        assert_eq!(fields("\"a\nb\",c"), Ok(vec!["a\nb".into(), "c".into()]));
        assert_eq!(fields("\"\""), Ok(vec![String::new()]));
        assert_eq!(fields("\"a"), Err(Tokens::Open));
        assert_eq!(fields("\"a\"b,c\n"), Err(Tokens::Broken("text follows a closing quote")));
        assert_eq!(fields("a\"b,c\n"), Err(Tokens::Broken("a quote stands within an unquoted field")));
    }

    proptest! {
        #[test]
        fn any_text_is_tokenised_without_panic(text in "[a,\"\n\r é]{0,40}", at_end: bool) {
            let mut ranges = Vec::new();
            if let Tokens::Record { whole, lines } = tokenize(text.as_bytes(), b',', b'"', at_end, &mut ranges) {
                prop_assert!(whole <= text.len() && lines >= 1);
                for field in &ranges {
                    unescape(&text, field, '"');
                }
            }
        }

        #[test]
        fn what_is_quoted_comes_back(cells in prop::collection::vec("[a,\"\n é]{0,10}", 1..5)) {
            let text = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(fields(&text), Ok(cells));
        }
    }
}
