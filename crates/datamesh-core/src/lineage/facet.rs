//! OpenLineage's ColumnLineageDatasetFacet 1-2-0.

use serde_json::{Map, Value, json};

use super::{ColumnLineage, Dataset, InputField, Inputs, Transformation};

const SCHEMA_URL: &str =
    "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json#/$defs/ColumnLineageDatasetFacet";
pub(super) const PRODUCER: &str = concat!("https://crates.io/crates/datamesh/", env!("CARGO_PKG_VERSION"));

fn input(field: &InputField, transformations: impl Iterator<Item = Transformation>, namespace: &str) -> Value {
    let transformations: Vec<Value> = transformations
        .map(|transformation| {
            json!({
                "type": transformation.kind().as_str(),
                "subtype": transformation.subtype.as_str(),
                "description": "",
                "masking": transformation.masking,
            })
        })
        .collect();
    let namespace = match &field.dataset {
        Dataset::Table { .. } => namespace,
        other => other.namespace(),
    };
    json!({
        "namespace": namespace,
        "name": field.dataset.name(),
        "field": field.field.to_string(),
        "transformations": transformations,
    })
}

fn inputs(inputs: &Inputs, namespace: &str) -> Vec<Value> {
    inputs.fields().map(|(field, ways)| input(field, ways.iter().copied(), namespace)).collect()
}

/// The facet of an output dataset, with `namespace` for the mesh's own tables. What decides the rows is in `dataset`.
pub fn facet(lineage: &ColumnLineage, namespace: &str) -> Value {
    let mut fields = Map::new();
    for field in &lineage.fields {
        fields.insert(field.field.to_string(), json!({ "inputFields": inputs(&field.inputs, namespace) }));
    }
    json!({
        "_producer": PRODUCER,
        "_schemaURL": SCHEMA_URL,
        "fields": fields,
        "dataset": inputs(&lineage.dataset, namespace),
    })
}
