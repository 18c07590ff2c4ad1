//! A JSON array of objects, element by element: the document is never whole in memory. An element that is no object of
//! the contract is one faulty row; a document that is no array, or not a whole one, is an error, because nobody could
//! tell which rows it lacks.

use std::collections::BTreeSet;
use std::hash::Hasher;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_quality::values::shorten;
use twox_hash::XxHash3_64;

use super::build::{BatchBuilder, ObjectKeys};
use super::text::{MAX_RECORD, TextReader};
use super::{Content, SourceFile, TableLayout};
use crate::error::wrap;

/// How many names of unknown keys are remembered.
const MAX_IGNORED: usize = 1000;

/// Where an element of the array ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At a comma: another one follows.
    Comma,
    /// At the bracket that closes the array.
    Bracket,
}

/// Looks for the end of an element, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
struct Scanner {
    depth: u64,
    in_text: bool,
    escaped: bool,
}

impl Scanner {
    /// Goes on through `bytes`; tells where the element ends, the byte that ends it excluded.
    fn scan(&mut self, bytes: &[u8]) -> Option<(usize, End)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_text {
                if self.escaped {
                    self.escaped = false;
                    at += 1;
                    continue;
                }
                let next = memchr::memchr2(b'"', b'\\', &bytes[at..])?;
                at += next;
                if bytes[at] == b'"' {
                    self.in_text = false;
                } else {
                    self.escaped = true;
                }
                at += 1;
                continue;
            }
            match bytes[at] {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                b']' if self.depth == 0 => return Some((at, End::Bracket)),
                b',' if self.depth == 0 => return Some((at, End::Comma)),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        None
    }
}

/// An element of the array.
struct Element {
    /// Length of its text, or of its beginning where it is too long to be kept.
    length: usize,
    end: End,
    overlong: bool,
}

/// Walks through the array's elements.
struct Elements {
    text: TextReader,
    name: String,
}

impl Elements {
    fn open(text: TextReader, name: &str) -> Result<Self> {
        let mut elements = Self { text, name: name.to_owned() };
        elements.skip_space()?;
        match elements.text.window().first() {
            Some(b'[') => elements.text.consume(1, 0),
            None => {
                return Err(elements.broken("it is empty").with_help("an array without rows is written `[]`"));
            }
            Some(b'{') => {
                return Err(elements
                    .broken("it begins with an object, not with `[`")
                    .with_help("where it has one object a line, say `format: ndjson`"));
            }
            Some(_) => return Err(elements.broken("it does not begin with `[`")),
        }
        Ok(elements)
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(ErrorCode::SourceUnreadable, format!("`{}` is not a JSON array: {why}", self.name))
            .with_help("nothing was committed; check that the file is whole and is one array of objects")
    }

    fn skip_space(&mut self) -> Result<()> {
        loop {
            let window = self.text.window();
            let space = window.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
            let rest = window.len() - space;
            self.text.consume(space, 0);
            if rest > 0 || !self.text.fill()? {
                return Ok(());
            }
        }
    }

    /// Finds the end of the element that the window starts with.
    fn next(&mut self) -> Result<Element> {
        let mut scanner = Scanner::default();
        let mut scanned = 0;
        loop {
            let window = self.text.window();
            if let Some((at, end)) = scanner.scan(&window[scanned..]) {
                let length = scanned + at;
                return Ok(Element { length: length.min(MAX_RECORD), end, overlong: length > MAX_RECORD });
            }
            scanned = window.len();
            if scanned > MAX_RECORD {
                return Ok(Element { length: MAX_RECORD, end: End::Comma, overlong: true });
            }
            if !self.text.fill()? {
                return Err(self.broken("it is cut off: the array is not closed"));
            }
        }
    }

    /// Moves past an element that is too long for the window, and returns its end and a digest of it.
    fn skip_long(&mut self) -> Result<(End, [u8; 8])> {
        let mut digest = XxHash3_64::new();
        let mut scanner = Scanner::default();
        loop {
            let window = self.text.window();
            if let Some((at, end)) = scanner.scan(window) {
                digest.write(&window[..at]);
                self.text.consume(at + 1, 0);
                return Ok((end, digest.finish().to_le_bytes()));
            }
            digest.write(window);
            let all = window.len();
            self.text.consume(all, 0);
            if !self.text.fill()? {
                return Err(self.broken("it is cut off: the array is not closed"));
            }
        }
    }

    /// Checks that nothing follows the array.
    fn finish(&mut self) -> Result<()> {
        self.skip_space()?;
        if self.text.window().is_empty() { Ok(()) } else { Err(self.broken("something follows the closing `]`")) }
    }
}

/// Reads a file and hands over full batches.
pub(super) fn read(
    layout: &TableLayout,
    file: &SourceFile,
    index: u32,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), DataFusionError> {
    let text = TextReader::open(file, &layout.facts).map_err(wrap)?;
    let mut elements = Elements::open(text, &file.name).map_err(wrap)?;
    let keys = ObjectKeys::new(&layout.table.columns);
    let mut batch = BatchBuilder::new(layout, index);
    let mut content = Content::default();
    let mut ignored = BTreeSet::new();
    let mut readable = false;
    let mut seen = vec![false; layout.table.columns.len()];
    let mut position = 0_u64;
    loop {
        elements.skip_space().map_err(wrap)?;
        if position == 0 && elements.text.window().first() == Some(&b']') {
            elements.text.consume(1, 0);
            break;
        }
        position += 1;
        let element = elements.next().map_err(wrap)?;
        let raw = elements.text.window()[..element.length].trim_ascii_end();
        let mut end = element.end;
        if element.overlong {
            batch.append_broken(position, raw, "the record is too long");
            let (found, digest) = elements.skip_long().map_err(wrap)?;
            end = found;
            content.add(0, &digest);
        } else {
            content.add(0, raw);
            match std::str::from_utf8(raw) {
                Err(_) => batch.append_broken(position, raw, "the record is not UTF-8"),
                Ok("") => batch.append_broken(position, raw, "there is no value between two commas"),
                Ok(record) if layout.facts.tap().is_some() => {
                    layout.facts.tap().map_or(Ok(()), |tap| tap.record(record, position)).map_err(wrap)?;
                }
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
            elements.text.consume(element.length + 1, 0);
        }
        if batch.is_full() && !emit(batch.finish().map_err(wrap)?) {
            return Ok(());
        }
        if end == End::Bracket {
            break;
        }
    }
    elements.finish().map_err(wrap)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::tests::{TestSource, read_with};

    fn elements(text: &str) -> Result<Vec<String>, String> {
        let source = TestSource::new("rows.json", text.as_bytes());
        let reader =
            TextReader::open(&source.file, &source.layout("a: long").facts).map_err(|error| error.to_string())?;
        let mut elements = Elements::open(reader, "rows.json").map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        loop {
            elements.skip_space().map_err(|error| error.to_string())?;
            if found.is_empty() && elements.text.window().first() == Some(&b']') {
                elements.text.consume(1, 0);
                break;
            }
            let element = elements.next().map_err(|error| error.to_string())?;
            let raw = elements.text.window()[..element.length].trim_ascii_end();
            found.push(String::from_utf8_lossy(raw).into_owned());
            elements.text.consume(element.length + 1, 0);
            if element.end == End::Bracket {
                break;
            }
        }
        elements.finish().map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn an_array_falls_into_its_elements() {
        for (text, expected) in [
            ("[]", &[][..]),
            (" [ ] \n", &[]),
            (r#"[{"a":1}]"#, &[r#"{"a":1}"#]),
            (r#"[ {"a":"],[{\"" } , [1,2],"x,y" ,7]"#, &[r#"{"a":"],[{\"" }"#, "[1,2]", r#""x,y""#, "7"]),
            ("[1,,2]", &["1", "", "2"]),
            ("[1,]", &["1", ""]),
            (r#"[{"a":1]}, {"b":2}]"#, &[r#"{"a":1]}"#, r#"{"b":2}"#]),
            ("[\"\\\\\",\"\\\"\"]", &["\"\\\\\"", "\"\\\"\""]),
        ] {
            let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(elements(text).as_deref(), Ok(&expected[..]), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_array_is_an_error() {
        for (text, why) in [
            ("", "empty"),
            ("  \n", "empty"),
            ("{\"a\":1}\n{\"a\":2}", "begins with an object"),
            ("7", "does not begin"),
            ("[", "cut off"),
            ("[{\"a\":1}", "cut off"),
            ("[{\"a\":1},", "cut off"),
            ("[{\"a\":\"", "cut off"),
            ("[1] x", "follows"),
            ("[1][2]", "follows"),
        ] {
            let found = elements(text).expect_err(text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn bad_elements_are_faults_of_their_own_row() {
        let text = br#"[{"a":1}, 5, null, [1], {"a":"x"}, {"a":2,"a":3}, {"a":}, {"a":4}{"a":5}, "t", , {"a":6}]"#;
        let source = TestSource::new("rows.json", text);
        let rows = read_with(&source, "a: long", read).expect("an array");
        let faults: Vec<bool> = rows.iter().map(|(_, fault)| fault.is_some()).collect();
        assert_eq!(faults, [false, true, true, true, true, true, true, true, true, true, false]);
        assert_eq!(rows[0].0.as_deref(), Some("1"));
        assert_eq!(rows[10].0.as_deref(), Some("6"));
    }

    #[test]
    fn a_long_element_is_one_fault() {
        let text = format!("[{{\"a\":1}},{{\"a\":\"{}\"}},{{\"a\":2}}]", "x,]}".repeat(MAX_RECORD / 4 + 10));
        let source = TestSource::new("rows.json", text.as_bytes());
        let rows = read_with(&source, "a: long", read).expect("an array");
        assert_eq!(rows.len(), 3);
        assert!(rows[1].1.as_deref().is_some_and(|fault| fault.contains("too long")), "{:?}", rows[1].1);
        assert_eq!(rows[2].0.as_deref(), Some("2"));
    }

    fn json(depth: u32) -> BoxedStrategy<serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            "\\PC*".prop_map(serde_json::Value::from),
            "[\\[\\]{},\"\\\\]{0,8}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(depth, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::hash_map("\\PC{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
        .boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn elements_are_those_of_a_json_parser(values in prop::collection::vec(json(4), 0..8), pretty in any::<bool>()) {
            let array = serde_json::Value::from(values.clone());
            let text = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) };
            let found = elements(&text.expect("JSON")).expect("an array");
            let parsed: Vec<serde_json::Value> =
                found.iter().map(|text| serde_json::from_str(text).expect("an element")).collect();
            prop_assert_eq!(parsed, values);
        }

        #[test]
        fn pieces_do_not_matter(text in "[\\[\\]{},\"\\\\ab ]{0,40}", cut in 0_usize..40) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let whole = Scanner::default().scan(bytes);
            let mut scanner = Scanner::default();
            let pieces = scanner.scan(&bytes[..cut]).or_else(|| scanner.scan(&bytes[cut..]).map(|(at, end)| (at + cut, end)));
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn nothing_panics(text in "[\\[\\]{}:,\"\\\\a1 \n]{0,80}") {
            let source = TestSource::new("rows.json", text.as_bytes());
            let _ = read_with(&source, "a: long", read);
        }
    }
}
