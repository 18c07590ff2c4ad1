//! An ordered tree of YAML or JSON values: what the standards are mapped on. Numbers keep their spelling.

mod number;
#[cfg(test)]
mod tests;
mod write;

use datamesh_core::Diagnostic;

use crate::yaml::{Document, Kind, Node, Span};

/// A value. Maps keep the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// YAML's null.
    Null,
    /// True or false.
    Bool(bool),
    /// A number by YAML 1.2's core schema, as it was written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A map.
    Map(Map),
}

/// A map with ordered, distinct keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(String, Tree)>);

/// Reads the text of a YAML or JSON document, and gives its tree with and without places. The error is what keeps it
/// from being read; repeated keys are an error too.
pub fn read<'a>(file: &str, bytes: &'a [u8]) -> Result<(Document<'a>, Node, Tree), Vec<Diagnostic>> {
    let mut document = Document::new(file, bytes).map_err(|diagnostic| vec![*diagnostic])?;
    let node = document.parse();
    match node {
        Some(node) if !document.has_errors() => {
            let tree = Tree::from_node(&node);
            Ok((document, node, tree))
        }
        _ => Err(document.finish()),
    }
}

impl Tree {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number, where the text spells one that JSON could hold too.
    pub fn number(text: &str) -> Option<Self> {
        number::json(text).map(|_| Self::Number(text.to_owned()))
    }

    /// The value as a node without a place.
    pub fn to_node(&self) -> Node {
        let scalar = |text: &str, plain| Kind::Scalar { text: text.to_owned(), plain };
        let kind = match self {
            Self::Null => scalar("null", true),
            Self::Bool(boolean) => scalar(if *boolean { "true" } else { "false" }, true),
            Self::Number(text) => scalar(text, true),
            Self::Text(text) => scalar(text, false),
            Self::List(items) => Kind::Sequence(items.iter().map(Self::to_node).collect()),
            Self::Map(map) => {
                let key = |key: &str| Node { span: Span::default(), kind: scalar(key, false) };
                Kind::Mapping(map.iter().map(|(name, value)| (key(name), value.to_node())).collect())
            }
        };
        Node { span: Span::default(), kind }
    }

    /// The value of a parsed node, plain scalars by YAML 1.2's core schema.
    pub fn from_node(node: &Node) -> Self {
        match &node.kind {
            Kind::Scalar { .. } if node.is_null() => Self::Null,
            Kind::Scalar { text, plain } => match node.boolean() {
                Some(boolean) => Self::Bool(boolean),
                None if *plain && number::is_number(text) => Self::Number(text.clone()),
                None => Self::Text(text.clone()),
            },
            Kind::Sequence(items) => Self::List(items.iter().map(Self::from_node).collect()),
            Kind::Mapping(entries) => Self::Map(Map(entries
                .iter()
                .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), Self::from_node(value)))
                .collect())),
        }
    }

    /// The text, where this is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A scalar as our manifest reader sees it: the text, or how a number or boolean is spelled.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Null | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The boolean, where this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(boolean) => Some(*boolean),
            _ => None,
        }
    }

    /// The items, where this is a list.
    pub fn as_list(&self) -> Option<&[Tree]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The map, where this is one.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The value of `key`, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.as_map().and_then(|map| map.get(key))
    }

    /// The same value with keys sorted and numbers spelled in one way: two documents that say the same are equal then.
    pub fn normalised(&self) -> Self {
        match self {
            Self::Null | Self::Bool(_) | Self::Text(_) => self.clone(),
            Self::Number(text) => Self::Number(number::canonical(text)),
            Self::List(items) => Self::List(items.iter().map(Self::normalised).collect()),
            Self::Map(map) => {
                let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.to_owned(), value.normalised())).collect();
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                Self::Map(Map(entries))
            }
        }
    }

    /// The value as a YAML document. Every text that a YAML 1.1 or 1.2 reader would take for something else is quoted.
    pub fn to_yaml(&self) -> String {
        write::yaml(self)
    }

    /// The value as an indented JSON document.
    pub fn to_json(&self) -> String {
        write::json(self)
    }
}

impl From<Map> for Tree {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl From<Vec<Tree>> for Tree {
    fn from(items: Vec<Tree>) -> Self {
        Self::List(items)
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Tree {
    fn from(boolean: bool) -> Self {
        Self::Bool(boolean)
    }
}

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of `key`, to be changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Takes `key` out: what is left at the end is what nobody modelled.
    pub fn take(&mut self, key: &str) -> Option<Tree> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// Takes `key` out where `model` accepts its value; else leaves it where it is.
    pub fn take_if(&mut self, key: &str, model: impl FnOnce(&Tree) -> bool) -> Option<Tree> {
        if self.get(key).is_some_and(model) { self.take(key) } else { None }
    }

    /// Takes `key` out where it is a text.
    pub fn take_text(&mut self, key: &str) -> Option<String> {
        match self.take_if(key, |value| value.as_text().is_some()) {
            Some(Tree::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Takes `key` out where it is a map.
    pub fn take_map(&mut self, key: &str) -> Option<Map> {
        match self.take_if(key, |value| value.as_map().is_some()) {
            Some(Tree::Map(map)) => Some(map),
            _ => None,
        }
    }

    /// Takes `key` out where it is a list.
    pub fn take_list(&mut self, key: &str) -> Option<Vec<Tree>> {
        match self.take_if(key, |value| value.as_list().is_some()) {
            Some(Tree::List(items)) => Some(items),
            _ => None,
        }
    }

    /// Sets `key`: in its place where it is there, else at the end.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Tree>) {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(place) => *place = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets `key` where there is a value.
    pub fn put_some(&mut self, key: impl Into<String>, value: Option<impl Into<Tree>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Sets `key` where the map is not empty.
    pub fn put_filled(&mut self, key: impl Into<String>, map: Map) {
        if !map.is_empty() {
            self.put(key, map);
        }
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }
}

impl IntoIterator for Map {
    type Item = (String, Tree);
    type IntoIter = std::vec::IntoIter<(String, Tree)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Later values of a key replace earlier ones.
impl FromIterator<(String, Tree)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Tree)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.put(key, value);
        }
        map
    }
}
