//! The structure of the standard's documents: one table for both editions.

use super::super::tree::{Map, Tree};
use crate::shape::closest;
use crate::yaml::{Document, Kind as NodeKind, Node, Span};

/// An edition of the standard. v0.9.0 is read as v1.0.0, whose schema admits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edition {
    /// v1.0.0
    V1_0,
    /// v1.1.0
    V1_1,
}

impl Edition {
    /// As `apiVersion` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "v1.0.0",
            Self::V1_1 => "v1.1.0",
        }
    }
}

/// The oldest edition whose structure `document` has.
pub fn edition(document: &Tree) -> Edition {
    let mut problems = Vec::new();
    Walk { edition: Edition::V1_0, problems: &mut problems }.object(document, &ROOT, &mut Vec::new());
    if problems.is_empty() { Edition::V1_0 } else { Edition::V1_1 }
}

/// The keys of a document in the order of the standard's own examples.
pub(super) fn in_order(mut document: Map) -> Map {
    let known: Vec<_> =
        ROOT.keys.iter().filter_map(|key| Some((key.name.to_owned(), document.take(key.name)?))).collect();
    known.into_iter().chain(document).collect()
}

/// Checks the structure of a document, and reports every problem at its place.
pub(crate) fn check(document: &mut Document<'_>, node: &Node, tree: &Tree) {
    let edition = match tree.get("apiVersion").and_then(Tree::as_text) {
        Some("v0.9.0" | "v1.0.0") => Edition::V1_0,
        _ => Edition::V1_1,
    };
    let mut problems = Vec::new();
    Walk { edition, problems: &mut problems }.object(tree, &ROOT, &mut Vec::new());
    for Problem { id, path, at_key, message, help } in problems {
        document.error(id, span(node, &path, at_key), message, help);
    }
}

/// Where a path leads: the key itself, or its value.
fn span(node: &Node, path: &[Step], at_key: bool) -> Span {
    let Some((step, rest)) = path.split_first() else { return node.span };
    let (key, value) = match (step, &node.kind) {
        (Step::Key(name), NodeKind::Mapping(entries)) => {
            match entries.iter().find(|(key, _)| key.text() == Some(name)) {
                Some((key, value)) => (key.span, value),
                None => return Span { start: node.span.start, end: node.span.start },
            }
        }
        (Step::Item(index), NodeKind::Sequence(items)) => match items.get(*index) {
            Some(item) => (item.span, item),
            None => return node.span,
        },
        _ => return node.span,
    };
    if rest.is_empty() && at_key { key } else { span(value, rest, at_key) }
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Item(usize),
}

struct Problem {
    id: &'static str,
    path: Vec<Step>,
    at_key: bool,
    message: String,
    help: String,
}

enum Kind {
    Text,
    Bool,
    Any,
    Word(&'static [&'static str]),
    Texts,
    One(&'static Object),
    Many(&'static Object),
}

struct Object {
    keys: &'static [Key],
}

struct Key {
    name: &'static str,
    kind: Kind,
    /// The first edition that has it.
    since: Edition,
    /// The last edition that needs it.
    needed: Option<Edition>,
}

const fn may(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, since: Edition::V1_0, needed: None }
}

/// Needed by every edition.
const fn must(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, since: Edition::V1_0, needed: Some(Edition::V1_1) }
}

/// Needed by v1.0.0 only.
const fn once(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, since: Edition::V1_0, needed: Some(Edition::V1_0) }
}

const fn new(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, since: Edition::V1_1, needed: None }
}

const TAGS: Key = may("tags", Kind::Texts);
const CUSTOM: Key = may("customProperties", Kind::Many(&CUSTOM_PROPERTY));
const DEFINITIONS: Key = may("authoritativeDefinitions", Kind::Many(&DEFINITION));
const ID: Key = new("id", Kind::Text);
const DEPRECATED: Key = new("deprecated", Kind::Bool);
const SYNONYMS: Key = new("synonyms", Kind::Many(&SYNONYM));
const CONTEXT: Key = new("context", Kind::One(&CONTEXT_OBJECT));

static ROOT: Object = Object {
    keys: &[
        must("apiVersion", Kind::Word(&["v1.1.0", "v1.0.0", "v0.9.0"])),
        must("kind", Kind::Word(&["DataProduct"])),
        must("id", Kind::Text),
        may("name", Kind::Text),
        DEPRECATED,
        SYNONYMS,
        may("version", Kind::Text),
        once("status", Kind::Text),
        may("domain", Kind::Text),
        new("type", Kind::Text),
        CONTEXT,
        may("tenant", Kind::Text),
        DEFINITIONS,
        may("description", Kind::One(&DESCRIPTION)),
        CUSTOM,
        TAGS,
        may("inputPorts", Kind::Many(&INPUT_PORT)),
        may("outputPorts", Kind::Many(&OUTPUT_PORT)),
        may("managementPorts", Kind::Many(&MANAGEMENT_PORT)),
        may("support", Kind::Many(&SUPPORT)),
        may("team", Kind::One(&TEAM)),
        may("productCreatedTs", Kind::Text),
    ],
};

static DESCRIPTION: Object = Object {
    keys: &[may("purpose", Kind::Text), may("limitations", Kind::Text), may("usage", Kind::Text), DEFINITIONS, CUSTOM],
};

static CUSTOM_PROPERTY: Object = Object {
    keys: &[
        ID,
        must("property", Kind::Text),
        must("value", Kind::Any),
        may("description", Kind::Text),
        new("vendor", Kind::Text),
    ],
};

static SYNONYM: Object = Object {
    keys: &[
        ID,
        must("synonym", Kind::Text),
        may("description", Kind::Text),
        may("locale", Kind::Text),
        may("source", Kind::Text),
        may("status", Kind::Text),
        CUSTOM,
    ],
};

static DEFINITION: Object =
    Object { keys: &[ID, must("type", Kind::Text), must("url", Kind::Text), may("description", Kind::Text)] };

static INPUT_PORT: Object = Object {
    keys: &[
        DEPRECATED,
        ID,
        must("name", Kind::Text),
        once("version", Kind::Text),
        once("contractId", Kind::Text),
        TAGS,
        CUSTOM,
        DEFINITIONS,
    ],
};

static OUTPUT_PORT: Object = Object {
    keys: &[
        DEPRECATED,
        ID,
        must("name", Kind::Text),
        may("description", Kind::Text),
        may("type", Kind::Text),
        once("version", Kind::Text),
        may("contractId", Kind::Text),
        may("sbom", Kind::Many(&SBOM)),
        may("inputContracts", Kind::Many(&INPUT_CONTRACT)),
        SYNONYMS,
        TAGS,
        CUSTOM,
        DEFINITIONS,
        CONTEXT,
    ],
};

static SBOM: Object = Object {
    keys: &[
        ID,
        may("type", Kind::Text),
        once("url", Kind::Text),
        new("tags", Kind::Texts),
        new("customProperties", Kind::Many(&CUSTOM_PROPERTY)),
        new("authoritativeDefinitions", Kind::Many(&DEFINITION)),
    ],
};

static INPUT_CONTRACT: Object = Object { keys: &[must("id", Kind::Text), must("version", Kind::Text)] };

static MANAGEMENT_PORT: Object = Object {
    keys: &[
        DEPRECATED,
        ID,
        must("name", Kind::Text),
        must("content", Kind::Text),
        may("type", Kind::Text),
        may("url", Kind::Text),
        may("channel", Kind::Text),
        may("description", Kind::Text),
        TAGS,
        CUSTOM,
        DEFINITIONS,
    ],
};

static SUPPORT: Object = Object {
    keys: &[
        ID,
        must("channel", Kind::Text),
        must("url", Kind::Text),
        may("description", Kind::Text),
        may("tool", Kind::Text),
        may("scope", Kind::Text),
        may("invitationUrl", Kind::Text),
        TAGS,
        CUSTOM,
        DEFINITIONS,
    ],
};

static TEAM: Object = Object {
    keys: &[
        may("name", Kind::Text),
        may("description", Kind::Text),
        may("members", Kind::Many(&TEAM_MEMBER)),
        TAGS,
        CUSTOM,
        DEFINITIONS,
    ],
};

static TEAM_MEMBER: Object = Object {
    keys: &[
        ID,
        must("username", Kind::Text),
        may("name", Kind::Text),
        may("description", Kind::Text),
        may("role", Kind::Text),
        may("dateIn", Kind::Text),
        may("dateOut", Kind::Text),
        may("replacedByUsername", Kind::Text),
        TAGS,
        CUSTOM,
        DEFINITIONS,
    ],
};

static CONTEXT_OBJECT: Object = Object {
    keys: &[
        may("instructions", Kind::Text),
        may("verifiedStatements", Kind::Many(&STATEMENT)),
        may("constraints", Kind::Many(&CONSTRAINT)),
    ],
};

static STATEMENT: Object =
    Object { keys: &[ID, must("question", Kind::Text), may("answer", Kind::Text), DEFINITIONS, TAGS, CUSTOM] };

static CONSTRAINT: Object = Object { keys: &[ID, must("constraint", Kind::Text), DEFINITIONS, TAGS, CUSTOM] };

/// Whether `value` is what the standard has at this key of a document.
pub(super) fn admits(key: &str, value: &Tree) -> bool {
    let Some(key) = ROOT.keys.iter().find(|other| other.name == key) else { return false };
    let mut problems = Vec::new();
    Walk { edition: Edition::V1_1, problems: &mut problems }.value(value, &key.kind, &mut Vec::new());
    problems.is_empty()
}

/// Whether `item` may be in the list at this key of a document.
pub(super) fn admits_item(key: &str, item: &Tree) -> bool {
    admits(key, &Tree::List(vec![item.clone()]))
}

struct Walk<'p> {
    edition: Edition,
    problems: &'p mut Vec<Problem>,
}

impl Walk<'_> {
    fn object(&mut self, value: &Tree, object: &'static Object, path: &mut Vec<Step>) {
        let Some(map) = value.as_map() else {
            return self.wrong(value, "an object", path);
        };
        for (name, value) in map.iter() {
            path.push(Step::Key(name.to_owned()));
            match object.keys.iter().find(|key| key.name == name) {
                Some(key) if key.since > self.edition => {
                    let message = format!("`{}` is not part of ODPS {}", show(path), self.edition.as_str());
                    let help = format!("write `apiVersion: {}`, or remove it", key.since.as_str());
                    self.report("unknown-key", path, true, message, help);
                }
                Some(key) => self.value(value, &key.kind, path),
                None => {
                    let known = || object.keys.iter().filter(|key| key.since <= self.edition).map(|key| key.name);
                    let help = match closest(name, known()) {
                        Some(name) => format!("did you mean `{name}`?"),
                        None => format!(
                            "known keys: {}; put others into `customProperties`",
                            known().collect::<Vec<_>>().join(", ")
                        ),
                    };
                    let message = format!("unknown key `{}`", show(path));
                    self.report("unknown-key", path, true, message, help);
                }
            }
            path.pop();
        }
        self.missing(map, object, path);
    }

    fn missing(&mut self, map: &Map, object: &'static Object, path: &[Step]) {
        let edition = self.edition;
        for key in object.keys.iter().filter(|key| key.needed >= Some(edition) && !map.contains(key.name)) {
            let place = if path.is_empty() { "the document".to_owned() } else { format!("`{}`", show(path)) };
            let newer = if key.needed == Some(Edition::V1_0) {
                format!("; without it the document needs `apiVersion: {}`", Edition::V1_1.as_str())
            } else {
                String::new()
            };
            let message = format!("{place} has no `{}`", key.name);
            self.report("missing-key", path, false, message, format!("add `{}:`{newer}", key.name));
        }
    }

    fn value(&mut self, value: &Tree, kind: &Kind, path: &mut Vec<Step>) {
        match kind {
            Kind::Any => {}
            Kind::Text if value.as_text().is_some() => {}
            Kind::Text => self.wrong(value, "a text", path),
            Kind::Bool if value.as_bool().is_some() => {}
            Kind::Bool => self.wrong(value, "`true` or `false`", path),
            Kind::Word(words) => match value.as_text() {
                Some(text) if words.contains(&text) => {}
                Some(text) => {
                    let help = match closest(text, words.iter().copied()) {
                        Some(word) => format!("did you mean `{word}`?"),
                        None => format!("one of: {}", words.join(", ")),
                    };
                    let message = format!("`{text}` is not a value of `{}`", show(path));
                    self.report("unknown-word", path, false, message, help);
                }
                None => self.wrong(value, "a text", path),
            },
            Kind::Texts => self.items(value, path, |walk, item, path| walk.value(item, &Kind::Text, path)),
            Kind::One(object) => self.object(value, object, path),
            Kind::Many(object) => self.items(value, path, |walk, item, path| walk.object(item, object, path)),
        }
    }

    fn items(&mut self, value: &Tree, path: &mut Vec<Step>, mut each: impl FnMut(&mut Self, &Tree, &mut Vec<Step>)) {
        let Some(items) = value.as_list() else {
            return self.wrong(value, "a list", path);
        };
        for (index, item) in items.iter().enumerate() {
            path.push(Step::Item(index));
            each(self, item, path);
            path.pop();
        }
    }

    fn wrong(&mut self, value: &Tree, expected: &str, path: &[Step]) {
        let place = if path.is_empty() { "the document".to_owned() } else { format!("`{}`", show(path)) };
        let (found, help) = match value {
            Tree::Null => ("nothing".to_owned(), format!("write {expected}, or remove the key")),
            Tree::Bool(_) | Tree::Number(_) if expected == "a text" => {
                let spelled = value.scalar().unwrap_or_default();
                (format!("`{spelled}` without quotes"), format!("write it as \"{spelled}\""))
            }
            Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {
                ("a single value".to_owned(), format!("write {expected}"))
            }
            Tree::List(_) => ("a list".to_owned(), format!("write {expected}")),
            Tree::Map(_) => ("an object".to_owned(), format!("write {expected}")),
        };
        self.report("wrong-shape", path, false, format!("{place} must be {expected}, but this is {found}"), help);
    }

    fn report(&mut self, id: &'static str, path: &[Step], at_key: bool, message: String, help: String) {
        self.problems.push(Problem { id, path: path.to_vec(), at_key, message, help });
    }
}

/// A path in words: `outputPorts[2].sbom`.
fn show(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(name) if text.is_empty() => text.push_str(name),
            Step::Key(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}
