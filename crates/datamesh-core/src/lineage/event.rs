//! OpenLineage's run event 2-0-2.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::facet::PRODUCER;
use super::{ColumnLineage, Dataset, MESH_NAMESPACE, facet};

const SCHEMA_URL: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";

/// A dataset that a run read or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDataset {
    /// Which.
    pub dataset: Dataset,
    /// Its columns with their types, where they are known.
    pub columns: Vec<(String, Option<String>)>,
    /// The version that was read.
    pub version: Option<String>,
    /// Where its columns come from, of what was made.
    pub lineage: Option<ColumnLineage>,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its identity.
    pub id: Uuid,
    /// What ran.
    pub job: String,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// What was done, in order: names, with a description where there is one.
    pub transformations: Vec<(String, Option<String>)>,
    /// What was read.
    pub inputs: Vec<RunDataset>,
    /// What was made.
    pub outputs: Vec<RunDataset>,
}

fn standard(name: &str, version: &str, fields: Value) -> Value {
    let mut facet = json!({
        "_producer": PRODUCER,
        "_schemaURL": format!("https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"),
    });
    if let (Some(facet), Value::Object(fields)) = (facet.as_object_mut(), fields) {
        facet.extend(fields);
    }
    facet
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn dataset(dataset: &RunDataset) -> Value {
    let mut facets = Map::new();
    if !dataset.columns.is_empty() {
        let fields = dataset.columns.iter().map(|(name, data_type)| match data_type {
            Some(data_type) => json!({ "name": name, "type": data_type }),
            None => json!({ "name": name }),
        });
        let fields = json!({ "fields": fields.collect::<Vec<_>>() });
        facets.insert("schema".to_owned(), standard("SchemaDatasetFacet", "1-2-0", fields));
    }
    if let Some(version) = &dataset.version {
        let version = json!({ "datasetVersion": version });
        facets.insert("version".to_owned(), standard("DatasetVersionDatasetFacet", "1-0-1", version));
    }
    if let Some(lineage) = dataset.lineage.as_ref().filter(|lineage| !lineage.fields.is_empty()) {
        facets.insert("columnLineage".to_owned(), facet(lineage, MESH_NAMESPACE));
    }
    json!({
        "namespace": dataset.dataset.namespace(),
        "name": dataset.dataset.name(),
        "facets": facets,
    })
}

/// The event of a run that ended well.
pub fn run_event(run: &Run) -> Value {
    let job_type = json!({ "processingType": "BATCH", "integration": "DATAMESH", "jobType": "JOB" });
    let mut facets = Map::from_iter([("jobType".to_owned(), standard("JobTypeJobFacet", "2-0-4", job_type))]);
    if !run.transformations.is_empty() {
        let steps = run.transformations.iter().map(|(name, description)| match description {
            Some(description) => format!("{name}: {description}"),
            None => name.clone(),
        });
        let steps = json!({ "description": steps.collect::<Vec<_>>().join("\n"), "contentType": "text/plain" });
        facets.insert("documentation".to_owned(), standard("DocumentationJobFacet", "1-1-0", steps));
    }
    let nominal = json!({ "nominalStartTime": time(run.started), "nominalEndTime": time(run.ended) });
    let engine = json!({ "name": "datamesh", "version": env!("CARGO_PKG_VERSION") });
    json!({
        "eventType": "COMPLETE",
        "eventTime": time(run.ended),
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "run": {
            "runId": run.id.to_string(),
            "facets": {
                "nominalTime": standard("NominalTimeRunFacet", "1-0-1", nominal),
                "processing_engine": standard("ProcessingEngineRunFacet", "1-1-1", engine),
            },
        },
        "job": { "namespace": MESH_NAMESPACE, "name": run.job, "facets": facets },
        "inputs": run.inputs.iter().map(dataset).collect::<Vec<_>>(),
        "outputs": run.outputs.iter().map(dataset).collect::<Vec<_>>(),
    })
}
