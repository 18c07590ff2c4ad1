//! JSON to trees that keep the order of keys, since dbt's columns have one. What is not needed is skipped unread.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::standards::tree::{Map, Tree};

/// The parts of a `manifest.json` that matter here.
#[derive(Default)]
pub(super) struct Document {
    pub(super) metadata: Map,
    /// Models, tests, seeds, … by unique id.
    pub(super) nodes: Vec<(String, Map)>,
    pub(super) groups: Vec<(String, Map)>,
    pub(super) unit_tests: usize,
    pub(super) has_nodes: bool,
}

struct Value(Tree);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(Value(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Map::new();
        while let Some((key, Value(value))) = entries.next_entry::<String, _>()? {
            map.put(key, value);
        }
        Ok(Tree::Map(map))
    }
}

/// Entries in order, without looking for repeated keys: there may be many thousands.
struct Entries(Vec<(String, Map)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Entries, A::Error> {
                let mut list = Vec::new();
                while let Some((key, Value(value))) = entries.next_entry::<String, _>()? {
                    match value {
                        Tree::Map(map) => list.push((key, map)),
                        _ => return Err(serde::de::Error::custom(format!("`{key}` is not an object"))),
                    }
                }
                Ok(Entries(list))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;
        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the object of a dbt manifest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Document, A::Error> {
                let mut document = Document::default();
                while let Some(key) = entries.next_key::<String>()? {
                    match key.as_str() {
                        "metadata" => {
                            if let Value(Tree::Map(metadata)) = entries.next_value()? {
                                document.metadata = metadata;
                            }
                        }
                        "nodes" => {
                            document.has_nodes = true;
                            document.nodes = entries.next_value::<Entries>()?.0;
                        }
                        "groups" => {
                            document.groups = entries.next_value::<Option<Entries>>()?.map_or_else(Vec::new, |e| e.0)
                        }
                        "unit_tests" => {
                            document.unit_tests =
                                entries.next_value::<Option<Entries>>()?.map_or(0, |entries| entries.0.len());
                        }
                        _ => {
                            entries.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(DocumentVisitor)
    }
}
