//! YAML text to a tree whose every node knows its place. Bounded: size, depth and the work that aliases can cause.

use std::collections::HashMap;

use datamesh_core::{Diagnostic, Level, Location};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::Value as Json;

/// Largest document, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Most nodes, counting what aliases repeat.
pub const MAX_NODES: usize = 500_000;
/// Most problems reported for one document.
pub const MAX_DIAGNOSTICS: usize = 200;

/// A byte range of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A scalar; `plain` where it was written without quotes.
    Scalar {
        /// The text, unescaped.
        text: String,
        /// Whether quotes or block style force it to be text.
        plain: bool,
    },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in document order, without repeated keys.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The scalar's text.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether this is YAML's null.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value of `key`, where this is a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The items, where this is a sequence.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The boolean, by YAML 1.2's core schema.
    pub fn boolean(&self) -> Option<bool> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The number, where the plain text is one.
    pub fn number(&self) -> Option<f64> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => text.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// The tree as JSON, scalars by YAML 1.2's core schema.
    pub fn to_json(&self) -> Json {
        match &self.kind {
            Kind::Scalar { text, .. } => {
                if self.is_null() {
                    Json::Null
                } else if let Some(boolean) = self.boolean() {
                    Json::Bool(boolean)
                } else if let Kind::Scalar { plain: true, .. } = self.kind
                    && let Ok(integer) = text.parse::<i64>()
                {
                    Json::from(integer)
                } else if let Some(number) = self.number() {
                    Json::from(number)
                } else {
                    Json::from(text.as_str())
                }
            }
            Kind::Sequence(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Kind::Mapping(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// What the node is, in the user's words.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "an object",
        }
    }
}

/// A document's text and name, and the problems found in it so far.
pub struct Document<'a> {
    file: String,
    text: &'a str,
    line_starts: Vec<usize>,
    diagnostics: Vec<Diagnostic>,
    suppressed: usize,
}

impl<'a> Document<'a> {
    /// Starts on `bytes`, which the user calls `file`. The error is the one reason it cannot be read at all.
    pub fn new(file: &str, bytes: &'a [u8]) -> Result<Self, Box<Diagnostic>> {
        let whole = |id, message: String, help: &str, offset: usize| {
            let before = &bytes[..offset.min(bytes.len())];
            let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            Box::new(Diagnostic {
                id,
                level: Level::Error,
                message,
                help: Some(help.to_owned()),
                location: Location {
                    file: file.to_owned(),
                    line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
                    column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
                    offset,
                    length: 0,
                },
            })
        };
        if bytes.len() > MAX_BYTES {
            let message = format!("the file has {} bytes; a manifest has at most {MAX_BYTES}", bytes.len());
            return Err(whole(
                "file-too-large",
                message,
                "data does not belong in the manifest; name it in `source`",
                0,
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            whole("not-utf8", "the file is not UTF-8 text".into(), "save it as UTF-8", error.valid_up_to())
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Ok(Self { file: file.to_owned(), text, line_starts, diagnostics: Vec::new(), suppressed: 0 })
    }

    /// Reports a problem at `span`.
    pub fn report(
        &mut self,
        level: Level,
        id: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS && level != Level::Error
            || self.diagnostics.len() >= 2 * MAX_DIAGNOSTICS
        {
            self.suppressed += 1;
            return;
        }
        let help: String = help.into();
        let location = self.location(span);
        self.diagnostics.push(Diagnostic {
            id,
            level,
            message: message.into(),
            help: if help.is_empty() { None } else { Some(help) },
            location,
        });
    }

    /// Reports an error at `span`.
    pub fn error(&mut self, id: &'static str, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.report(Level::Error, id, span, message, help);
    }

    /// The text, without a byte order mark.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Line and column of a span.
    pub fn location(&self, span: Span) -> Location {
        let line = self.line_starts.partition_point(|start| *start <= span.start).max(1);
        let line_start = self.line_starts[line - 1];
        let column = self.text.get(line_start..span.start).map_or(0, |before| before.chars().count()) + 1;
        Location {
            file: self.file.clone(),
            line,
            column,
            offset: span.start,
            length: span.end.saturating_sub(span.start),
        }
    }

    /// Whether an error was reported.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The problems, in document order.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        if self.suppressed > 0 {
            let message = format!("{} more problems are not shown", self.suppressed);
            let location = Location { file: self.file.clone(), ..Location::default() };
            self.diagnostics.push(Diagnostic {
                id: "too-many-problems",
                level: Level::Warning,
                message,
                help: None,
                location,
            });
        }
        self.diagnostics.sort_by(|a, b| (a.location.offset, a.level, a.id).cmp(&(b.location.offset, b.level, b.id)));
        self.diagnostics
    }

    /// Parses the text. `None` where there is no tree; the reasons are reported.
    pub fn parse(&mut self) -> Option<Node> {
        let mut builder = Builder { nodes: 0, anchors: HashMap::new(), stack: Vec::new(), root: None };
        let offsets = CharOffsets::new(self.text);
        let mut documents = 0;
        for event in Parser::new_from_str(self.text) {
            let (event, span) = match event {
                Ok((event, span)) => (event, offsets.span(span.start.index(), span.end.index())),
                Err(error) => {
                    let at = offsets.span(error.marker().index(), error.marker().index());
                    if error.info().contains("recursion limit") {
                        let message = format!("the document is nested deeper than {MAX_DEPTH} levels");
                        self.error("nested-too-deep", at, message, "flatten it");
                    } else {
                        let message = format!("this is not YAML: {}", error.info());
                        self.error("yaml-syntax", at, message, "check indentation, quotes and brackets near here");
                    }
                    return None;
                }
            };
            if let Event::DocumentStart(_) = event {
                documents += 1;
                if documents > 1 {
                    self.error(
                        "several-documents",
                        span,
                        "a file holds one document",
                        "move what follows `---` into a file of its own",
                    );
                    return None;
                }
            }
            if let Err((id, message, help)) = builder.event(self, event, span) {
                self.error(id, span, message, help);
                return None;
            }
        }
        if builder.root.is_none() {
            self.error("empty-file", Span::default(), "the file is empty", "start with `dataProduct:`");
        }
        builder.root
    }
}

/// Byte offsets of character positions; identity for ASCII.
struct CharOffsets(Option<Vec<usize>>, usize);

impl CharOffsets {
    fn new(text: &str) -> Self {
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self(offsets, text.len())
    }

    fn byte(&self, character: usize) -> usize {
        match &self.0 {
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.1),
            None => character.min(self.1),
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let start = self.byte(start);
        Span { start, end: self.byte(end).max(start) }
    }
}

type Refusal = (&'static str, String, &'static str);

enum Frame {
    Sequence { start: usize, anchor: usize, items: Vec<Node> },
    Mapping { start: usize, anchor: usize, entries: Vec<(Node, Node)>, seen: HashMap<String, ()>, key: Option<Node> },
}

struct Builder {
    nodes: usize,
    anchors: HashMap<usize, (Node, usize)>,
    stack: Vec<Frame>,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, document: &mut Document<'_>, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let node = Node { span, kind: Kind::Scalar { text: text.into_owned(), plain } };
                let size = weight(&node);
                self.complete(document, node, anchor, size)
            }
            Event::SequenceStart(anchor, _) => {
                self.deeper()?;
                self.stack.push(Frame::Sequence { start: span.start, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(anchor, _) => {
                self.deeper()?;
                self.stack.push(Frame::Mapping {
                    start: span.start,
                    anchor,
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    key: None,
                });
                Ok(())
            }
            Event::SequenceEnd => match self.stack.pop() {
                Some(Frame::Sequence { start, anchor, items }) => {
                    let end = items.last().map_or(span.end, |last| last.span.end.max(start));
                    let node = Node { span: Span { start, end }, kind: Kind::Sequence(items) };
                    self.complete(document, node, anchor, 1)
                }
                _ => Err(unbalanced()),
            },
            Event::MappingEnd => match self.stack.pop() {
                Some(Frame::Mapping { start, anchor, entries, .. }) => {
                    let end = entries.last().map_or(span.end, |(_, last)| last.span.end.max(start));
                    let node = Node { span: Span { start, end }, kind: Kind::Mapping(entries) };
                    self.complete(document, node, anchor, 1)
                }
                _ => Err(unbalanced()),
            },
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err((
                        "unknown-anchor",
                        "this alias names no finished anchor".into(),
                        "write the value out",
                    ));
                };
                // The budget is spent before anything is copied.
                if self.nodes + *size > MAX_NODES {
                    return Err(too_many());
                }
                let (node, size) = (Node { span, kind: node.kind.clone() }, *size);
                self.complete(document, node, 0, size)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn deeper(&self) -> Result<(), Refusal> {
        if self.stack.len() >= MAX_DEPTH {
            return Err((
                "nested-too-deep",
                format!("the document is nested deeper than {MAX_DEPTH} levels"),
                "flatten it",
            ));
        }
        Ok(())
    }

    fn complete(&mut self, document: &mut Document<'_>, node: Node, anchor: usize, size: usize) -> Result<(), Refusal> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(too_many());
        }
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
            self.nodes += size;
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::Sequence { items, .. }) => items.push(node),
            Some(Frame::Mapping { entries, seen, key, .. }) => match key.take() {
                None => {
                    if node.text().is_none() {
                        return Err(("complex-key", "a key must be a single value".into(), "put quotes around it"));
                    }
                    *key = Some(node);
                }
                Some(name) => {
                    let text = name.text().unwrap_or_default().to_owned();
                    if seen.insert(text.clone(), ()).is_some() {
                        document.error(
                            "duplicate-key",
                            name.span,
                            format!("`{text}` is given twice"),
                            "keep one of them",
                        );
                    } else {
                        entries.push((name, node));
                    }
                }
            },
        }
        Ok(())
    }
}

fn unbalanced() -> Refusal {
    ("yaml-syntax", "brackets do not match".into(), "check the brackets near here")
}

fn too_many() -> Refusal {
    let message = format!("the document has more than {MAX_NODES} values, counting what aliases repeat");
    ("too-many-values", message, "split the manifest, or write fewer aliases")
}

/// What a scalar costs: long texts count as several values.
fn weight(node: &Node) -> usize {
    1 + node.text().map_or(0, |text| text.len() / 64)
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => weight(node),
        Kind::Sequence(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Mapping(entries) => 1 + entries.iter().map(|(key, value)| count(key) + count(value)).sum::<usize>(),
    }
}
