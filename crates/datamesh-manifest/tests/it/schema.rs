use datamesh_manifest::schema::manifest_schema;
use serde_json::Value;

use crate::{ARTICLE, REFERENCE};

fn to_json(text: &str) -> Value {
    let mut document = datamesh_manifest::yaml::Document::new("product.yaml", text.as_bytes()).expect("readable");
    document.parse().expect("YAML").to_json()
}

#[test]
fn the_schema_accepts_what_check_accepts() {
    let validator = jsonschema::validator_for(&manifest_schema()).expect("a JSON Schema");
    for manifest in [ARTICLE, REFERENCE] {
        let errors: Vec<String> = validator
            .iter_errors(&to_json(manifest))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[test]
fn the_schema_refuses_what_check_refuses() {
    let validator = jsonschema::validator_for(&manifest_schema()).expect("a JSON Schema");
    for manifest in [
        "dataProduct: {name: x, version: 1.0.0, owner: y, schema: [], nam: z}",
        "dataProduct: {name: x, version: 1.0.0, owner: y}",
        "dataProduct: {name: x, version: 1.0.0, owner: y, schema: [{name: t, columns: [{name: a, type: int, requird: true}]}]}",
        "dataProduct: {name: x, version: 1.0.0, owner: y, schema: [{name: t, write: sometimes, columns: []}]}",
    ] {
        assert!(!validator.is_valid(&to_json(manifest)), "{manifest}");
    }
}

#[test]
fn the_committed_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema/product.schema.json");
    let committed: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("schema/product.schema.json")).expect("JSON");
    assert_eq!(committed, manifest_schema(), "run `make schema` and commit the result");
}
