//! The JSON Schema for editors, made from the same table of keys that `check` uses.

use serde_json::{Map, Value, json};

use crate::shape::{DOMAIN, MANIFEST, MESH, Object, POLICY_TESTS, Shape, TESTS, WAIVERS};

/// The JSON Schema (2020-12) of a `product.yaml`.
pub fn manifest_schema() -> Value {
    document_schema(&MANIFEST, "urn:datamesh:manifest:1", "datamesh product manifest")
}

/// The JSON Schema (2020-12) of a `product.tests.yaml`.
pub fn tests_schema() -> Value {
    document_schema(&TESTS, "urn:datamesh:tests:1", "datamesh tests of a product's transforms")
}

/// The JSON Schema (2020-12) of a `domain.yaml`.
pub fn domain_schema() -> Value {
    document_schema(&DOMAIN, "urn:datamesh:domain:1", "datamesh domain")
}

/// The JSON Schema (2020-12) of a `mesh.yaml`.
pub fn mesh_schema() -> Value {
    document_schema(&MESH, "urn:datamesh:mesh:1", "datamesh mesh")
}

/// The JSON Schema (2020-12) of a `waivers.yaml`.
pub fn waivers_schema() -> Value {
    document_schema(&WAIVERS, "urn:datamesh:waivers:1", "datamesh waivers of policies")
}

/// The JSON Schema (2020-12) of a `policies/*.tests.yaml`.
pub fn policy_tests_schema() -> Value {
    document_schema(&POLICY_TESTS, "urn:datamesh:policy-tests:1", "datamesh tests of policies")
}

fn document_schema(document: &'static Object, id: &str, title: &str) -> Value {
    let mut definitions = Map::new();
    let root = reference(document, &mut definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": id,
        "title": title,
        "$ref": root["$ref"],
        "$defs": definitions,
    })
}

fn reference(object: &'static Object, definitions: &mut Map<String, Value>) -> Value {
    if !definitions.contains_key(object.name) {
        definitions.insert(object.name.to_owned(), Value::Null);
        let mut properties = Map::new();
        for key in object.keys {
            let mut schema = shape(&key.shape, definitions);
            let about =
                if key.enforced { key.about.to_owned() } else { format!("{} (declared, not enforced)", key.about) };
            if let Some(object) = schema.as_object_mut() {
                object.insert("description".into(), about.into());
            }
            properties.insert(key.name.to_owned(), schema);
        }
        let required: Vec<_> = object.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
        let mut definition = json!({
            "type": "object",
            "description": object.about,
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            definition["required"] = json!(required);
        }
        definitions.insert(object.name.to_owned(), definition);
    }
    json!({ "$ref": format!("#/$defs/{}", object.name) })
}

fn shape(shape_: &'static Shape, definitions: &mut Map<String, Value>) -> Value {
    match shape_ {
        Shape::Text => json!({ "type": ["string", "number", "boolean"] }),
        Shape::TextOrNull => json!({ "type": ["string", "number", "boolean", "null"] }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Count => json!({ "type": "integer", "minimum": 0 }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Percent => json!({
            "anyOf": [
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? *%?$" },
                { "type": "number", "minimum": 0, "maximum": 100 },
            ]
        }),
        Shape::List(item) => json!({ "type": "array", "items": shape(item, definitions) }),
        Shape::Object(object) => reference(object, definitions),
        Shape::Short(short, object) => json!({ "anyOf": [shape(short, definitions), reference(object, definitions)] }),
        Shape::Either(first, second) => json!({ "anyOf": [shape(first, definitions), shape(second, definitions)] }),
        Shape::Map(value) => json!({ "type": "object", "additionalProperties": shape(value, definitions) }),
        Shape::Any => json!({}),
    }
}
