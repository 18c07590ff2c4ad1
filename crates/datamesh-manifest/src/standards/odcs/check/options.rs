//! What follows from a property's logical type: its options, and whether there are properties, items or a map below.

use super::shapes::{TEXTS, V30, V32, key};
use super::{Checker, Key, Rule, Word};
use crate::yaml::{Kind, Node};

const COUNT: Rule = Rule::Integer(Some(0));

static OF_TEXT: &[Key] =
    &[key("minLength", COUNT), key("maxLength", COUNT), key("pattern", Rule::Text), key("format", Rule::Text)];
static OF_DATE: &[Key] = &[
    key("format", Rule::Text),
    key("exclusiveMaximum", Rule::Own(text_bound)),
    key("maximum", Rule::Text),
    key("exclusiveMinimum", Rule::Own(text_bound)),
    key("minimum", Rule::Text),
];
static OF_TIME: &[Key] = &[
    key("format", Rule::Text),
    key("exclusiveMaximum", Rule::Own(text_bound)),
    key("maximum", Rule::Text),
    key("exclusiveMinimum", Rule::Own(text_bound)),
    key("minimum", Rule::Text),
    key("timezone", Rule::Boolean),
    key("defaultTimezone", Rule::Text),
];
static OF_INTEGER: &[Key] = &[
    key("multipleOf", Rule::Own(positive)),
    key("maximum", Rule::Number),
    key("exclusiveMaximum", Rule::Own(number_bound)),
    key("minimum", Rule::Number),
    key("exclusiveMinimum", Rule::Own(number_bound)),
    key(
        "format",
        Rule::Word(&[
            Word("i8", V30),
            Word("i16", V30),
            Word("i32", V30),
            Word("i64", V30),
            Word("i128", V30),
            Word("u8", V30),
            Word("u16", V30),
            Word("u32", V30),
            Word("u64", V30),
            Word("u128", V30),
        ]),
    ),
];
static OF_NUMBER: &[Key] = &[
    key("multipleOf", Rule::Own(positive)),
    key("maximum", Rule::Number),
    key("exclusiveMaximum", Rule::Own(number_bound)),
    key("minimum", Rule::Number),
    key("exclusiveMinimum", Rule::Own(number_bound)),
    key("format", Rule::Word(&[Word("f32", V30), Word("f64", V30)])),
];
static OF_OBJECT: &[Key] =
    &[key("maxProperties", COUNT), key("minProperties", COUNT), key("required", Rule::Own(names))];
static OF_ARRAY: &[Key] = &[key("maxItems", COUNT), key("minItems", COUNT), key("uniqueItems", Rule::Boolean)];
static OF_VECTOR: &[Key] = &[
    key("dimensions", Rule::Integer(Some(1))),
    key(
        "elementType",
        Rule::Word(&[
            Word("bfloat16", V32),
            Word("binary", V32),
            Word("float16", V32),
            Word("float32", V32),
            Word("float64", V32),
            Word("int8", V32),
            Word("uint8", V32),
        ]),
    ),
    key(
        "distanceMetric",
        Rule::Word(&[
            Word("cosine", V32),
            Word("dotProduct", V32),
            Word("euclidean", V32),
            Word("hamming", V32),
            Word("manhattan", V32),
        ]),
    ),
    key("embeddingModel", Rule::Text),
    key("embeddingModelVersion", Rule::Text),
    key("normalized", Rule::Boolean),
];
static TEXT: Rule = Rule::Text;
static NUMBER: Rule = Rule::Number;
static BOOLEAN: Rule = Rule::Boolean;

/// An exclusive bound was a flag in 3.0, and is the bound itself since.
fn text_bound(checker: &mut Checker<'_, '_>, node: &Node) {
    checker.rule(node, if checker.version.is_3_0() { &BOOLEAN } else { &TEXT });
}

fn number_bound(checker: &mut Checker<'_, '_>, node: &Node) {
    checker.rule(node, if checker.version.is_3_0() { &BOOLEAN } else { &NUMBER });
}

fn positive(checker: &mut Checker<'_, '_>, node: &Node) {
    checker.rule(node, &NUMBER);
    if node.number().is_some_and(|number| number <= 0.0) {
        checker.wrong(node, "a number greater than zero");
    }
}

fn names(checker: &mut Checker<'_, '_>, node: &Node) {
    checker.rule(node, &TEXTS);
    checker.set(node, 1);
}

/// Checks a property against its logical type.
pub(super) fn property(checker: &mut Checker<'_, '_>, node: &Node) {
    typed(checker, node, false);
}

/// Checks an array's item, or a map's key or value. Those have `properties` whatever their type.
pub(super) fn item(checker: &mut Checker<'_, '_>, node: &Node) {
    typed(checker, node, true);
}

fn typed(checker: &mut Checker<'_, '_>, node: &Node, is_item: bool) {
    let kind = node.get("logicalType").and_then(Node::text);
    let known: Option<&'static [Key]> = match kind {
        Some("string") => Some(OF_TEXT),
        Some("date") => Some(OF_DATE),
        Some("timestamp" | "time") => Some(OF_TIME),
        Some("integer") => Some(OF_INTEGER),
        Some("number") => Some(OF_NUMBER),
        Some("object") => Some(OF_OBJECT),
        Some("array") => Some(OF_ARRAY),
        Some("vector") => Some(OF_VECTOR),
        // Options without a type would have to suit every type at once.
        None => Some(&[]),
        Some(_) => None,
    };
    if let (Some(known), Some(given)) = (known, node.get("logicalTypeOptions"))
        && let Kind::Mapping(entries) = &given.kind
    {
        checker.within("logicalTypeOptions", |inner| {
            for (name, value) in entries {
                let text = name.text().unwrap_or_default();
                if let Some(key) = known.iter().find(|key| key.name == text) {
                    inner.within(text, |inner| inner.rule(value, &key.rule));
                    continue;
                }
                let (what, help) = match kind {
                    Some(kind) => {
                        let names: Vec<_> = known.iter().map(|key| key.name).collect();
                        let what = format!("has `{text}`, which a `{kind}` has not");
                        (what, format!("its options are: {}", names.join(", ")))
                    }
                    None => {
                        let what = format!("has `{text}`, but the property has no `logicalType`");
                        (what, "add `logicalType:`".to_owned())
                    }
                };
                inner.error("unknown-key", name.span, &what, help);
            }
            if kind == Some("vector") {
                inner.require(given, &["dimensions"]);
            }
        });
    }
    if kind == Some("vector") {
        checker.require(node, &["logicalTypeOptions"]);
    }
    if kind == Some("map") {
        checker.require(node, &["map"]);
    }
    for (key, fits) in [
        ("items", matches!(kind, Some("array") | None)),
        ("properties", matches!(kind, Some("object") | None) || is_item),
        ("map", kind == Some("map")),
    ] {
        if let Some(at) = node.get(key).filter(|_| !fits) {
            let what = match kind {
                Some(kind) => format!("has `{key}`, which a `{kind}` has not"),
                None => format!("has `{key}`, but no `logicalType`"),
            };
            checker.error("unknown-key", at.span, &what, "change `logicalType`, or remove it");
        }
    }
}
