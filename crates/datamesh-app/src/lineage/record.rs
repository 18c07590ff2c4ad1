//! Runs outside the mesh that somebody records: a program that read tables and files, and made a product's rows.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use datamesh_core::audit::{AuditEntry, AuditKind};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::Action;
use datamesh_core::ids::{ProductKey, split_major};
use datamesh_core::lineage::{
    ColumnLineage, Dataset, FieldLineage, FieldPath, InputField, Inputs, MESH_NAMESPACE, Run, RunDataset, Subject,
    Subtype, run_event,
};
use datamesh_core::ports::{CatalogProduct, RecordedRun, RecordedTable, preferred};
use datamesh_core::{Error, ErrorCode, Name, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::govern::Resource;
use crate::ports::Context;

/// A dataset as whoever records a run names it: `domain/product[.table]` or its SQL name in the namespace `datamesh`, else
/// as OpenLineage names datasets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RunPart {
    /// The namespace.
    #[serde(default = "mesh_namespace")]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The publication that was read.
    #[serde(default)]
    pub publication: Option<u64>,
    /// The columns, where they are known.
    #[serde(default)]
    pub columns: Vec<String>,
}

fn mesh_namespace() -> String {
    MESH_NAMESPACE.to_owned()
}

/// What was done to the rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum RunStep {
    /// Its name.
    Name(String),
    /// Its name, and what it does.
    Described {
        /// The name.
        name: String,
        /// What it does.
        #[serde(default)]
        description: Option<String>,
    },
}

/// A column of an input that a column of the output is made of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RunColumn {
    /// The input's namespace.
    #[serde(default = "mesh_namespace")]
    pub namespace: String,
    /// The input's name, as among the inputs.
    pub name: String,
    /// The column.
    pub field: String,
}

/// A run, as whoever did it tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// What ran.
    pub job: String,
    /// What was read.
    pub inputs: Vec<RunPart>,
    /// What was made: tables of products.
    pub outputs: Vec<RunPart>,
    /// What was done, in order.
    #[serde(default)]
    pub transformations: Vec<RunStep>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// For columns of the output, what they are made of.
    #[serde(default)]
    pub columns: BTreeMap<String, Vec<RunColumn>>,
}

/// A table of the mesh that a run read or made.
#[derive(Clone, Debug)]
struct MeshTable {
    key: ProductKey,
    table: String,
    contract: Option<Table>,
}

impl MeshTable {
    fn dataset(&self) -> Dataset {
        Dataset::Table { product: self.key.clone(), table: self.table.clone() }
    }
}

/// A product, and whether it is applied.
#[derive(Clone, Debug)]
struct Known<'a> {
    key: ProductKey,
    contract: &'a DataProduct,
    applied: bool,
}

/// Where products are looked up.
struct Lookup<'a> {
    catalog: &'a [CatalogProduct],
    /// Products whose manifests the mesh has, applied or not.
    drafts: &'a [DataProduct],
}

impl<'a> Lookup<'a> {
    fn product(&self, subject: &Subject, major: Option<u64>) -> Option<Known<'a>> {
        let is_it = |key: &ProductKey| {
            subject.domain.as_ref().is_none_or(|domain| key.domain == *domain)
                && key.product == subject.product
                && major.is_none_or(|major| key.major == major)
        };
        let applied: Vec<&CatalogProduct> = self.catalog.iter().filter(|product| is_it(&product.key)).collect();
        let newest = preferred(applied.iter().copied());
        let newest = newest.or_else(|| applied.iter().copied().max_by_key(|product| product.key.major));
        if let Some(product) = newest {
            return Some(Known { key: product.key.clone(), contract: &product.revision.contract, applied: true });
        }
        let drafts = self.drafts.iter().map(|contract| (contract.key(), contract));
        let newest = drafts.filter(|(key, _)| is_it(key)).max_by_key(|(key, _)| key.major);
        newest.map(|(key, contract)| Known { key, contract, applied: false })
    }

    /// The tables that a name means. `None`: no such product is known.
    fn tables(&self, name: &str) -> Result<Option<(Vec<MeshTable>, Known<'a>)>> {
        let (plain, major) = split_major(name)?;
        let subject = Subject::parse(plain)?;
        if let Some(field) = &subject.field {
            let message = format!("`{name}` names the column `{field}` where a table is meant");
            return Err(Error::new(ErrorCode::InvalidArgument, message).with_help("write `domain/product.table`"));
        }
        let Some(known) = self.product(&subject, major.or(subject.major)) else { return Ok(None) };
        let contract = known.contract;
        let wanted: Vec<&Table> = match &subject.table {
            None => contract.tables.iter().collect(),
            Some(name) => vec![contract.table(name).ok_or_else(|| {
                let names: Vec<&str> = contract.tables.iter().map(|table| table.name.as_str()).collect();
                Error::new(ErrorCode::NotFound, format!("`{}` has no table `{name}`", contract.id))
                    .with_help(format!("its tables: {}", names.join(", ")))
            })?],
        };
        let table = |table: &Table| MeshTable {
            key: known.key.clone(),
            table: table.name.sql(),
            contract: Some(table.clone()),
        };
        Ok(Some((wanted.into_iter().map(table).collect(), known)))
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorCode::NotFound, format!("no product of this mesh is `{name}`"))
        .with_help("write `domain/product.table`; data outside the mesh has a URL, or a namespace of its own")
}

/// Records a run: its edges in the registry and its entry in the audit log, in one transaction. `drafts` are the products
/// whose manifests the mesh has. Gives its OpenLineage event.
///
/// # Errors
/// `denied` where whoever records it may not publish what was made; inputs and outputs that are not known.
pub async fn record(context: &Context, record: RunRecord, drafts: &[DataProduct]) -> Result<Value> {
    if record.outputs.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "the run made nothing")
            .with_help("name what it made: `domain/product.table`"));
    }
    if record.ended < record.started {
        return Err(Error::new(ErrorCode::InvalidArgument, "the run ended before it began"));
    }
    let catalog = context.discover(context.registry.catalog().await?).await?;
    let lookup = Lookup { catalog: &catalog, drafts };
    let mut inputs: Vec<(&RunPart, Vec<RunDataset>)> = Vec::new();
    for part in &record.inputs {
        inputs.push((part, read_datasets(&lookup, part)?));
    }
    let mut outputs: Vec<(&RunPart, MeshTable)> = Vec::new();
    let mut products: BTreeMap<ProductKey, Known<'_>> = BTreeMap::new();
    let mut domains: BTreeMap<String, Name> = BTreeMap::new();
    for part in &record.outputs {
        if part.namespace != MESH_NAMESPACE {
            let message = format!("`{}` in `{}` is no table of this mesh", part.name, part.namespace);
            return Err(Error::new(ErrorCode::InvalidArgument, message)
                .with_help("a run is recorded with the product that it made: `domain/product.table`"));
        }
        match lookup.tables(&part.name)? {
            Some((tables, known)) => {
                products.insert(known.key.clone(), known);
                outputs.extend(tables.into_iter().map(|table| (part, table)));
            }
            None => {
                let (domain, table) = draft(&part.name)?;
                domains.insert(domain.sql(), domain);
                outputs.push((part, table));
            }
        }
    }
    check_columns(&record, &outputs)?;
    let names: Vec<String> = outputs.iter().map(|(_, table)| table.dataset().to_string()).collect();
    let details = json!({ "operation": "record lineage", "job": record.job, "outputs": names });
    let decision = authorize(context, &products, &domains, details).await?;
    let mut made = Vec::new();
    let mut tables = Vec::new();
    for (part, table) in &outputs {
        let lineage = lineage_of(&record, &inputs, table)?;
        made.push(RunDataset {
            dataset: table.dataset(),
            columns: columns(part, table.contract.as_ref()),
            version: None,
            lineage: Some(lineage.clone()),
        });
        tables.push(RecordedTable { product: table.key.clone(), table: table.table.clone(), lineage });
    }
    let step = |step: &RunStep| match step {
        RunStep::Name(name) => (name.clone(), None),
        RunStep::Described { name, description } => (name.clone(), description.clone()),
    };
    let run = Run {
        id: context.ids.attempt(),
        job: record.job.clone(),
        started: record.started,
        ended: record.ended,
        transformations: record.transformations.iter().map(step).collect(),
        inputs: inputs.into_iter().flat_map(|(_, datasets)| datasets).collect(),
        outputs: made,
    };
    let at = context.clock.now();
    let read: Vec<String> = run.inputs.iter().map(|input| input.dataset.to_string()).collect();
    let entry = AuditEntry {
        impersonated_by: context.impersonated_by.clone(),
        purpose: context.purpose.clone(),
        door: Some(context.door.clone()),
        decision: Some(decision),
        details: json!({ "run": run.id.to_string(), "job": run.job, "inputs": read }),
        ..AuditEntry::new(
            at,
            AuditKind::LineageRecorded,
            &context.principal.id,
            Action::Publish.as_str(),
            &names.join(", "),
            "recorded",
        )
    };
    let recorded = RecordedRun {
        id: run.id,
        job: run.job.clone(),
        at,
        principal: context.principal.id.clone(),
        decision,
        tables,
        event: run_event(&run),
        entry,
    };
    context.registry.record_run(&recorded).await?;
    Ok(recorded.event)
}

/// Lineage says what a product is made of, so whoever may publish it may record it, and whoever may begin one in its domain
/// where there is none yet. The number of the last decision.
async fn authorize(
    context: &Context,
    products: &BTreeMap<ProductKey, Known<'_>>,
    domains: &BTreeMap<String, Name>,
    details: Value,
) -> Result<u64> {
    for known in products.values() {
        context.authorize_first(known.contract, known.applied.then_some(known.contract)).await?;
    }
    let mut decision = 0;
    if !domains.is_empty() {
        let resources: Vec<Resource<'_>> = domains.values().map(Resource::Domain).collect();
        decision = context.authorize_all(Action::Apply, &resources, details.clone()).await?;
    }
    if !products.is_empty() {
        let resources: Vec<Resource<'_>> = products.values().map(|known| Resource::Product(known.contract)).collect();
        decision = context.authorize_all(Action::Publish, &resources, details).await?;
    }
    Ok(decision)
}

/// A table of a product that has no manifest yet, by its name alone.
fn draft(name: &str) -> Result<(Name, MeshTable)> {
    let (plain, major) = split_major(name)?;
    let subject = Subject::parse(plain)?;
    let Some(domain) = subject.domain.clone() else { return Err(unknown(name)) };
    let invalid = |why: String| Error::new(ErrorCode::InvalidArgument, why);
    let named = Name::new(&domain).map_err(invalid)?;
    Name::new(&subject.product).map_err(invalid)?;
    let table = subject.table.clone().unwrap_or_else(|| subject.product.clone());
    let major = major.or(subject.major).unwrap_or(1);
    let key = ProductKey { domain, product: subject.product, major };
    Ok((named, MeshTable { key, table, contract: None }))
}

/// A dataset's columns: those that were told, else those of its contract.
fn columns(part: &RunPart, contract: Option<&Table>) -> Vec<(String, Option<String>)> {
    let typed = |name: &String| {
        let column = contract.and_then(|table| table.column(name));
        (name.clone(), column.map(|column| column.data_type.to_string()))
    };
    match contract {
        Some(table) if part.columns.is_empty() => table.columns.iter().map(|column| typed(&column.name)).collect(),
        _ => part.columns.iter().map(typed).collect(),
    }
}

/// The datasets that an input means.
fn read_datasets(lookup: &Lookup<'_>, part: &RunPart) -> Result<Vec<RunDataset>> {
    let version = part.publication.map(|publication| publication.to_string());
    if part.namespace != MESH_NAMESPACE {
        let dataset = Dataset::External { namespace: part.namespace.clone(), name: part.name.clone() };
        return Ok(vec![RunDataset { dataset, columns: columns(part, None), version, lineage: None }]);
    }
    let (tables, _) = lookup.tables(&part.name)?.ok_or_else(|| unknown(&part.name))?;
    let dataset = |table: MeshTable| RunDataset {
        dataset: table.dataset(),
        columns: columns(part, table.contract.as_ref()),
        version: version.clone(),
        lineage: None,
    };
    Ok(tables.into_iter().map(dataset).collect())
}

/// Each column that is told of must be one of an output.
fn check_columns(record: &RunRecord, outputs: &[(&RunPart, MeshTable)]) -> Result<()> {
    let contracts: Option<Vec<&Table>> = outputs.iter().map(|(_, table)| table.contract.as_ref()).collect();
    let Some(contracts) = contracts else { return Ok(()) };
    let is_one = |column: &String| contracts.iter().any(|table| table.column(column).is_some());
    match record.columns.keys().find(|column| !is_one(column)) {
        None => Ok(()),
        Some(wrong) => {
            let known: BTreeSet<&str> =
                contracts.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            Err(Error::new(ErrorCode::NotFound, format!("the output has no column `{wrong}`"))
                .with_help(format!("there are: {}", known.join(", "))))
        }
    }
}

/// Where an output's columns come from: what was told of them. An input of which no column was told was read as a whole.
fn lineage_of(record: &RunRecord, inputs: &[(&RunPart, Vec<RunDataset>)], table: &MeshTable) -> Result<ColumnLineage> {
    let mut lineage = ColumnLineage {
        reads: inputs.iter().flat_map(|(_, datasets)| datasets).map(|input| input.dataset.clone()).collect(),
        ..ColumnLineage::default()
    };
    for (column, made_of) in &record.columns {
        if table.contract.as_ref().is_some_and(|contract| contract.column(column).is_none()) {
            continue;
        }
        let mut found = Inputs::default();
        for from in made_of {
            let part = inputs.iter().find(|(part, _)| part.namespace == from.namespace && part.name == from.name);
            let Some((_, datasets)) = part else {
                let message = format!("column `{column}` is made of `{}`, which was not read", from.name);
                return Err(Error::new(ErrorCode::InvalidArgument, message).with_help("name it among the inputs too"));
            };
            for input in datasets {
                let field = InputField { dataset: input.dataset.clone(), field: FieldPath::column(&from.field) };
                // How a value was made of another is not known, so it counts as computed.
                found.add(field, Subtype::Transformation.into());
            }
        }
        lineage.fields.push(FieldLineage { field: FieldPath::column(column), inputs: found });
    }
    Ok(lineage)
}
