//! Schema objects, properties and relationships.

use super::shapes::{
    DEFINITIONS, ENUM_VALUE, ID, PROPERTIES, QUALITY, SYNONYM, TAGS, TEXTS, V30, V31, V32, context, key, since,
};
use super::{Checker, Key, Object, Rule, Word, any_object, is_reference, options};
use crate::standards::Tree;
use crate::yaml::Node;

const DEPRECATED: Key = since(V32, "deprecated", Rule::Boolean);
const SYNONYM_LIST: Rule = Rule::List(&Rule::Object(&SYNONYM));
const SYNONYMS: Key = since(V32, "synonyms", SYNONYM_LIST);

pub(super) static TABLE: Object = Object {
    keys: &[
        ID,
        key("name", Rule::Text),
        key("physicalType", Rule::Text),
        key("description", Rule::Text),
        key("businessName", Rule::Text),
        DEPRECATED,
        SYNONYMS,
        DEFINITIONS,
        TAGS,
        PROPERTIES,
        key("logicalType", Rule::Word(&[Word("object", V30), Word("blob", V32)])),
        key("physicalName", Rule::Text),
        key("dataGranularityDescription", Rule::Text),
        key("properties", Rule::List(&Rule::Object(&PROPERTY))),
        since(V31, "relationships", Rule::List(&Rule::Own(of_table))),
        QUALITY,
        since(V32, "context", Rule::Own(context)),
    ],
    required: &["name"],
    open_in_3_0: false,
    also: None,
};

static PROPERTY: Object = Object { keys: KEYS, required: &["name"], open_in_3_0: false, also: Some(options::property) };
static ITEM: Object = Object { keys: KEYS, required: &[], open_in_3_0: false, also: Some(options::item) };

static KEYS: &[Key] = &[
    ID,
    key("name", Rule::Text),
    key("physicalType", Rule::Text),
    key("description", Rule::Text),
    key("businessName", Rule::Text),
    DEPRECATED,
    SYNONYMS,
    DEFINITIONS,
    TAGS,
    PROPERTIES,
    key("primaryKey", Rule::Boolean),
    key("primaryKeyPosition", Rule::Integer(None)),
    key(
        "logicalType",
        Rule::Word(&[
            Word("string", V30),
            Word("date", V30),
            Word("timestamp", V31),
            Word("time", V31),
            Word("number", V30),
            Word("integer", V30),
            Word("object", V30),
            Word("array", V30),
            Word("boolean", V30),
            Word("map", V32),
            Word("vector", V32),
        ]),
    ),
    key("logicalTypeOptions", Rule::Own(any_object)),
    key("physicalName", Rule::Text),
    key("required", Rule::Boolean),
    key("unique", Rule::Boolean),
    since(V32, "semanticType", Rule::Word(&[Word("column", V32), Word("measure", V32), Word("dimension", V32)])),
    key("partitioned", Rule::Boolean),
    key("partitionKeyPosition", Rule::Integer(None)),
    key("classification", Rule::Text),
    key("encryptedName", Rule::Text),
    key("transformSourceObjects", TEXTS),
    key("transformLogic", Rule::Text),
    key("transformDescription", Rule::Text),
    key("examples", Rule::List(&Rule::Any)),
    since(V32, "enum", Rule::Own(allowed)),
    key("criticalDataElement", Rule::Boolean),
    since(V31, "relationships", Rule::List(&Rule::Own(of_property))),
    QUALITY,
    key("properties", Rule::List(&Rule::Object(&PROPERTY))),
    key("items", Rule::Object(&ITEM)),
    since(V32, "map", Rule::Object(&MAP)),
];

static MAP: Object = Object {
    keys: &[key("key", Rule::Object(&ITEM)), key("value", Rule::Object(&ITEM))],
    required: &["key", "value"],
    open_in_3_0: false,
    also: None,
};

fn allowed(checker: &mut Checker<'_, '_>, node: &Node) {
    static VALUE: Rule = Rule::Object(&ENUM_VALUE);
    checker.list(node, &VALUE);
    if node.items().is_some() {
        checker.set(node, 1);
    }
}

fn of_table(checker: &mut Checker<'_, '_>, node: &Node) {
    relationship(checker, node, true);
}

fn of_property(checker: &mut Checker<'_, '_>, node: &Node) {
    relationship(checker, node, false);
}

/// Checks a relationship of a schema object or of a property.
pub(super) fn relationship(checker: &mut Checker<'_, '_>, node: &Node, of_table: bool) {
    static KEYS: &[Key] = &[
        since(V32, "id", Rule::Text),
        key("type", Rule::Word(&[Word("foreignKey", V30)])),
        key("from", Rule::Own(ends)),
        key("to", Rule::Own(ends)),
        PROPERTIES,
    ];
    let required: &[&str] = if of_table { &["from", "to"] } else { &["to"] };
    if !checker.keys(node, KEYS, required, false) {
        return;
    }
    match (node.get("from"), node.get("to")) {
        (Some(from), _) if !of_table => {
            let what = "has `from`, but on a property that is the property itself";
            checker.error("misplaced-key", from.span, what, "remove `from`");
        }
        (Some(from), Some(to)) if from.items().is_some() != to.items().is_some() => {
            let what = "has a list on one side only";
            checker.error("wrong-shape", node.span, what, "write lists of the same length in `from` and `to`");
        }
        _ => {}
    }
}

fn ends(checker: &mut Checker<'_, '_>, node: &Node) {
    static END: Rule = Rule::Own(end);
    match node.items() {
        Some([]) => checker.error("empty-list", node.span, "names no property", "name one, such as `table.column`"),
        Some(_) => checker.list(node, &END),
        None => end(checker, node),
    }
}

fn end(checker: &mut Checker<'_, '_>, node: &Node) {
    match Tree::from_node(node).as_text() {
        Some(text) if is_reference(text, checker.version) => {}
        Some(text) => {
            let what = format!("is `{text}`, which names no property");
            let help =
                "write `table.column`, or `schema/<id>/properties/<id>`, after `file.yaml#` for another contract";
            checker.error("invalid-reference", node.span, &what, help);
        }
        None => checker.wrong(node, "a text"),
    }
}
