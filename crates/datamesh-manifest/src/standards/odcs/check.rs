//! Whether a document is one of ODCS 3.0, 3.1 or 3.2, from the standard's own rules: keys, their values, and what goes
//! with what. Each problem has its place.
//!
//! Sources: the standard's text and its schemas for 3.0.2 (the strict one), 3.1.0 and 3.2.0.

mod options;
mod property;
mod rule;
mod server;
mod shapes;

use std::sync::LazyLock;

use regex::Regex;

use super::Version;
use crate::shape::closest;
use crate::standards::tree::Tree;
use crate::yaml::{Document, Kind, Node, Span};

/// Checks a document by the rules of `version`. `strict` refuses keys that 3.0 leaves open.
pub(super) fn check(document: &mut Document<'_>, root: &Node, version: Version, strict: bool) {
    let mut checker = Checker { document, version, strict, path: Vec::new() };
    checker.object(root, &shapes::CONTRACT);
}

/// Whether a document is a contract by the rules of `version`, with what 3.0 leaves open.
pub(super) fn is_valid(root: &Node, version: Version) -> bool {
    problems(|document| check(document, root, version, false)).is_empty()
}

/// Whether a tree is a contract by the rules of `version`; the error is the first place that is not.
pub(super) fn first_problem(tree: &Tree, version: Version) -> Option<String> {
    let problems = problems(|document| check(document, &tree.to_node(), version, true));
    problems.into_iter().next()
}

/// Whether a tree is a quality rule that the standard can say.
pub(super) fn is_rule(tree: &Tree) -> bool {
    alone(|checker| rule::check(checker, &tree.to_node()))
}

/// Whether a tree is a relationship that the standard can say.
pub(super) fn is_relationship(tree: &Tree, of_table: bool) -> bool {
    alone(|checker| property::relationship(checker, &tree.to_node(), of_table))
}

fn alone(check: impl FnOnce(&mut Checker<'_, '_>)) -> bool {
    problems(|document| {
        check(&mut Checker { document, version: Version::V3_2_0, strict: true, path: Vec::new() });
    })
    .is_empty()
}

fn problems(check: impl FnOnce(&mut Document<'_>)) -> Vec<String> {
    let Ok(mut document) = Document::new("", b"") else { return Vec::new() };
    check(&mut document);
    document.finish().into_iter().map(|diagnostic| diagnostic.message).collect()
}

/// What a value may be.
pub(super) enum Rule {
    Text,
    Boolean,
    Number,
    /// A whole number, at least this.
    Integer(Option<i64>),
    /// A whole number, or a text that stands for one.
    Port,
    /// Neither a list nor an object.
    Scalar,
    Any,
    StableId,
    Word(&'static [Word]),
    List(&'static Rule),
    Object(&'static Object),
    /// Code of its own.
    Own(fn(&mut Checker<'_, '_>, &Node)),
}

/// A word, and the version it is known since.
pub(super) struct Word(pub(super) &'static str, pub(super) Version);

/// A key of an object.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) since: Version,
}

/// An object's keys.
pub(super) struct Object {
    pub(super) keys: &'static [Key],
    pub(super) required: &'static [&'static str],
    /// Whether 3.0 lets other keys be.
    pub(super) open_in_3_0: bool,
    /// What else holds.
    pub(super) also: Option<fn(&mut Checker<'_, '_>, &Node)>,
}

pub(super) struct Checker<'d, 't> {
    document: &'d mut Document<'t>,
    version: Version,
    strict: bool,
    path: Vec<String>,
}

impl Checker<'_, '_> {
    fn place(&self) -> String {
        if self.path.is_empty() {
            return "the contract".to_owned();
        }
        let mut place = String::new();
        for part in &self.path {
            if !place.is_empty() && !part.starts_with('[') {
                place.push('.');
            }
            place.push_str(part);
        }
        format!("`{place}`")
    }

    fn error(&mut self, id: &'static str, span: Span, what: &str, help: impl Into<String>) {
        let message = format!("{} {what}", self.place());
        self.document.error(id, span, message, help);
    }

    fn within(&mut self, part: impl Into<String>, check: impl FnOnce(&mut Self)) {
        self.path.push(part.into());
        check(self);
        self.path.pop();
    }

    fn object(&mut self, node: &Node, object: &'static Object) {
        self.keys(node, object.keys, object.required, object.open_in_3_0);
        if let Some(also) = object.also {
            also(self, node);
        }
    }

    /// Checks an object's keys. Whether it is one is told.
    fn keys(&mut self, node: &Node, keys: &'static [Key], required: &[&str], open: bool) -> bool {
        let Kind::Mapping(entries) = &node.kind else {
            let what = format!("must be an object, but this is {}", node.describe());
            self.error("wrong-shape", node.span, &what, "write an object");
            return false;
        };
        for (name, value) in entries {
            let text = name.text().unwrap_or_default();
            match keys.iter().find(|key| key.name == text) {
                Some(key) if key.since <= self.version => self.within(text, |inner| inner.rule(value, &key.rule)),
                _ if open && self.version.is_3_0() && !self.strict => {}
                Some(key) => {
                    let what = format!("has `{text}`, which ODCS {} does not know", self.version);
                    self.error("unknown-key", name.span, &what, format!("it is there since ODCS {}", key.since));
                }
                None => {
                    let help = match closest(text, keys.iter().map(|key| key.name)) {
                        Some(word) => format!("did you mean `{word}`?"),
                        None => "put what the standard does not know into `customProperties`".to_owned(),
                    };
                    self.error("unknown-key", name.span, &format!("has `{text}`, which ODCS does not know"), help);
                }
            }
        }
        self.require(node, required);
        true
    }

    fn require(&mut self, node: &Node, required: &[&str]) {
        for key in required.iter().filter(|key| node.get(key).is_none()) {
            let at = Span { start: node.span.start, end: node.span.start };
            self.error("missing-key", at, &format!("has no `{key}`"), format!("add `{key}:`"));
        }
    }

    fn wrong(&mut self, node: &Node, wanted: &str) {
        let what = format!("must be {wanted}, but this is {}", describe(node));
        self.error("wrong-shape", node.span, &what, format!("write {wanted}"));
    }

    fn rule(&mut self, node: &Node, rule: &'static Rule) {
        let value = Tree::from_node(node);
        let number = |value: &Tree| matches!(value, Tree::Number(_)) && node.number().is_some();
        match rule {
            Rule::Any => {}
            Rule::Own(check) => check(self, node),
            Rule::Object(object) => self.object(node, object),
            Rule::List(item) => self.list(node, item),
            Rule::Text if value.as_text().is_none() => {
                let help = match value.scalar() {
                    Some(text) => format!("put quotes around it: \"{text}\""),
                    None => "write a text".to_owned(),
                };
                let what = format!("must be a text, but this is {}", describe(node));
                self.error("wrong-shape", node.span, &what, help);
            }
            Rule::Boolean if value.as_bool().is_none() => self.wrong(node, "`true` or `false`"),
            Rule::Number if !number(&value) => self.wrong(node, "a number"),
            Rule::Integer(least) => {
                let whole = node.number().filter(|found| number(&value) && found.fract() == 0.0);
                match (whole, least) {
                    (None, _) => self.wrong(node, "a whole number"),
                    (Some(found), Some(least)) if found < *least as f64 => {
                        self.wrong(node, &format!("a whole number, {least} or more"));
                    }
                    _ => {}
                }
            }
            Rule::Port => {
                let text = value.as_text().is_some() && Version::V3_2_0 <= self.version;
                let whole = number(&value) && node.number().is_some_and(|found| found.fract() == 0.0);
                if !text && !whole {
                    self.wrong(node, "a whole number");
                }
            }
            Rule::Scalar if matches!(value, Tree::List(_) | Tree::Map(_)) => self.wrong(node, "a single value"),
            Rule::StableId => match value.as_text() {
                Some(id) if is_stable_id(id, self.version) => {}
                Some(id) => {
                    let what = format!("is `{id}`, which is no stable identifier");
                    let help = if self.version < Version::V3_2_0 {
                        "an identifier is letters, digits, `-` and `_`"
                    } else {
                        "an identifier has no space and none of . # / \\ @ ! % & ^"
                    };
                    self.error("invalid-identifier", node.span, &what, help);
                }
                None => self.wrong(node, "a text"),
            },
            Rule::Word(words) => match value.as_text() {
                Some(text) => {
                    let known = || words.iter().filter(|word| word.1 <= self.version).map(|word| word.0);
                    if !known().any(|word| word == text) {
                        let help = match closest(text, known()) {
                            Some(word) => format!("did you mean `{word}`?"),
                            None => format!("one of: {}", known().collect::<Vec<_>>().join(", ")),
                        };
                        let what = format!("is `{text}`, which ODCS {} does not know there", self.version);
                        self.error("unknown-word", node.span, &what, help);
                    }
                }
                None => self.wrong(node, "a text"),
            },
            Rule::Text | Rule::Boolean | Rule::Number | Rule::Scalar => {}
        }
    }

    fn list(&mut self, node: &Node, item: &'static Rule) {
        let Some(items) = node.items() else { return self.wrong(node, "a list") };
        for (at, entry) in items.iter().enumerate() {
            self.within(format!("[{at}]"), |inner| inner.rule(entry, item));
        }
    }

    /// A list without repeated entries and with at least `least`.
    fn set(&mut self, node: &Node, least: usize) {
        let items = node.items().unwrap_or_default();
        if items.len() < least {
            let what = format!("must have at least {least} entry");
            self.error("empty-list", node.span, &what, "add one, or leave the key out");
        }
        let values: Vec<Tree> = items.iter().map(|item| Tree::from_node(item).normalised()).collect();
        for (at, item) in items.iter().enumerate() {
            if values[..at].contains(&values[at]) {
                self.error("duplicate-entry", item.span, "has the same entry twice", "keep one of them");
            }
        }
    }
}

fn any_object(checker: &mut Checker<'_, '_>, node: &Node) {
    if !matches!(node.kind, Kind::Mapping(_)) {
        checker.wrong(node, "an object");
    }
}

/// What a node is, with its value where that is short.
fn describe(node: &Node) -> String {
    match Tree::from_node(node) {
        Tree::Null => "nothing".to_owned(),
        Tree::Text(text) if text.len() <= 40 => format!("the text `{text}`"),
        Tree::Text(_) => "a text".to_owned(),
        Tree::Number(text) => format!("the number {text}"),
        Tree::Bool(boolean) => format!("`{boolean}`"),
        Tree::List(_) => "a list".to_owned(),
        Tree::Map(_) => "an object".to_owned(),
    }
}

fn is_stable_id(id: &str, version: Version) -> bool {
    !id.is_empty()
        && if version < Version::V3_2_0 {
            id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        } else {
            !id.contains(|c: char| c.is_whitespace() || ".#/\\@!%&^".contains(c))
        }
}

/// `table.column`, and a place in this or another contract's file.
fn is_reference(text: &str, version: Version) -> bool {
    static OLD: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let name = r"[A-Za-z_]\w*";
        Regex::new(&format!(
            r"^(?-u:{name}\.{name}|(?:(?:https?://)?[A-Za-z0-9._\-/]+\.yaml#)?/?{name}/[\w-]+(?:/{name}/[\w-]+)*)$"
        ))
        .ok()
    });
    static NEW: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let (name, id) = (r"[A-Za-z_][A-Za-z0-9_]*", r"[^\s.#/\\@!%&^]+");
        Regex::new(&format!(
            r"^(?:[A-Za-z_][A-Za-z0-9_\-]*(?:\.[A-Za-z_][A-Za-z0-9_\-]*)+|(?:(?:https?://)?[A-Za-z0-9._\-/]+\.ya?ml#)?/?{name}/{id}(?:/{name}/{id})*)$"
        ))
        .ok()
    });
    let pattern = if version < Version::V3_2_0 { &OLD } else { &NEW };
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}
