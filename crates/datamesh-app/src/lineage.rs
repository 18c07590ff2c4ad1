//! Lineage: what a publication records of where its columns come from, and what was recorded, walked up and down.

mod record;

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::contract::{DataProduct, DatabaseRows, Table};
use datamesh_core::decision::Action;
use datamesh_core::history::History;
use datamesh_core::ids::{ProductId, ProductKey};
use datamesh_core::lineage::{
    ColumnLineage, Dataset, Direction, FieldLineage, FieldPath, InputField, Inputs, LineageGraph, Node, Subject,
    Subtype, TableLineage, Trace, database_dataset, external_dataset, iceberg_dataset,
};
use datamesh_core::ports::{CatalogProduct, PublicationStatus, TableCommit, preferred};
use datamesh_core::{Column, DataType, Error, ErrorCode, Result};
use serde_json::json;

use crate::govern::Resource;
use crate::ports::{BoundDatabase, Context, Engine, QueryRequest, StageInput, Visibility};
use crate::read::find_product;

pub use record::{RunColumn, RunPart, RunRecord, RunStep, record};

/// The namespace of data in the memory of whoever embeds the mesh.
pub const MEMORY_NAMESPACE: &str = "memory";

/// The lineage of a table that is read from outside the mesh: each column is the source's column of its name, and comes
/// from what its `from:` says. `missing` are columns that the source does not have. `major` says which major version of
/// a product is meant.
pub fn source_lineage(
    table: &Table,
    input: &StageInput,
    missing: &[String],
    major: &dyn Fn(&ProductId) -> u64,
) -> ColumnLineage {
    let datasets = external_datasets(input);
    let mut lineage = ColumnLineage { reads: datasets.clone(), ..ColumnLineage::default() };
    for column in &table.columns {
        let field = FieldPath::column(&column.name);
        let mut inputs = Inputs::default();
        if !missing.contains(&column.name) {
            for dataset in &datasets {
                inputs.merge(Inputs::identity(dataset.clone(), field.clone()));
            }
        }
        lineage.fields.push(FieldLineage { field: field.clone(), inputs });
        declared(column, &field, major, &mut lineage);
    }
    lineage
}

/// What an input reads, under names without secrets. A reference to a secret stays a reference.
fn external_datasets(input: &StageInput) -> BTreeSet<Dataset> {
    match input {
        StageInput::Source(source) => source.paths.iter().map(|path| external_dataset(path, &source.folder)).collect(),
        StageInput::Arrow(input) => {
            BTreeSet::from([Dataset::External { namespace: MEMORY_NAMESPACE.to_owned(), name: input.name.clone() }])
        }
        // The rows were read by an earlier publication, which has their lineage.
        StageInput::Quarantine(_) => BTreeSet::new(),
        // Its columns' lineage is that of the query, which reads tables of the mesh.
        StageInput::Query(_) => BTreeSet::new(),
        StageInput::Iceberg(source) => BTreeSet::from([iceberg_dataset(&source.spec.iceberg, &source.folder)]),
        StageInput::Database(BoundDatabase { spec, folder }) => {
            let table = match &spec.rows {
                DatabaseRows::Table(table) => Some(table.as_str()),
                // Its text is in the database's own words and may be long; the contract has it.
                DatabaseRows::Query(_) => None,
            };
            BTreeSet::from([database_dataset(&spec.database, table, folder)])
        }
    }
}

/// The lineage that these tables had with a publication, to be recorded with one that takes them back to it.
pub(crate) async fn lineage_as_of(
    context: &Context,
    contract: &DataProduct,
    publication: u64,
    tables: &[TableCommit],
) -> Result<Vec<TableLineage>> {
    let edges = context.registry.lineage(Some(publication)).await?;
    let of = |commit: &TableCommit| {
        let columns = contract.table(&commit.table).map(|table| table.columns.as_slice()).unwrap_or_default();
        let columns: Vec<FieldPath> = columns.iter().map(|column| FieldPath::column(&column.name)).collect();
        let dataset = Dataset::Table { product: contract.key(), table: commit.table.clone() };
        TableLineage { table: commit.table.clone(), lineage: ColumnLineage::from_edges(&dataset, &columns, &edges) }
    };
    Ok(tables.iter().map(of).collect())
}

/// The major version that a product's bare name means; the first where none is registered yet.
pub(crate) fn newest_major(catalog: &[CatalogProduct], id: &ProductId) -> u64 {
    let same = |key: &ProductKey| key.domain == id.domain.sql() && key.product == id.product.sql();
    preferred(catalog.iter().filter(|product| same(&product.key))).map_or(1, |product| product.key.major)
}

/// Adds what `from:` says of a column and of the fields below it. How a value was made of another is not known, so it
/// counts as computed.
fn declared(column: &Column, field: &FieldPath, major: &dyn Fn(&ProductId) -> u64, lineage: &mut ColumnLineage) {
    let mut inputs = Inputs::default();
    for reference in &column.from {
        let product = reference.product.key(major(&reference.product));
        let dataset = Dataset::Table { product, table: reference.table.sql() };
        lineage.reads.insert(dataset.clone());
        inputs.add(InputField { dataset, field: reference.field.clone() }, Subtype::Transformation.into());
    }
    if !inputs.is_empty() {
        match lineage.fields.iter_mut().find(|known| known.field == *field) {
            Some(known) => known.inputs.merge(inputs),
            None => lineage.fields.push(FieldLineage { field: field.clone(), inputs }),
        }
    }
    if let DataType::Struct(fields) = &column.data_type {
        for inner in fields {
            declared(inner, &field.child(&inner.name), major, lineage);
        }
    }
}

/// What to show of a lineage.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineageScope {
    /// One direction; both where absent.
    pub direction: Option<Direction>,
    /// At most so many steps.
    pub depth: Option<usize>,
    /// Only what values are made of.
    pub direct_only: bool,
}

impl LineageScope {
    fn walk(&self, graph: &LineageGraph, roots: &[Node], direction: Direction) -> Option<Trace> {
        let wanted = self.direction.is_none_or(|only| only == direction);
        wanted.then(|| graph.walk(roots, direction, self.depth, self.direct_only))
    }
}

/// Where something comes from, and what is made of it.
#[derive(Clone, Debug)]
pub struct LineageReport {
    /// What was asked for: columns, and the rows of tables.
    pub roots: Vec<Node>,
    /// The walk to its inputs.
    pub up: Option<Trace>,
    /// The walk to what is made of it.
    pub down: Option<Trace>,
    /// The whole lineage of each table that was asked for, one step up.
    pub tables: Vec<(Dataset, ColumnLineage)>,
}

impl LineageReport {
    /// The products of the mesh that it tells of.
    fn products(&self) -> BTreeSet<ProductKey> {
        let reached = [&self.up, &self.down].into_iter().flatten().flat_map(|trace| trace.effects.keys());
        let datasets = reached.chain(&self.roots).map(|node| &node.dataset);
        let inputs = self.tables.iter().flat_map(|(_, lineage)| &lineage.reads);
        datasets
            .chain(inputs)
            .filter_map(|dataset| match dataset {
                Dataset::Table { product, .. } => Some(product.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Decides on describing the report's products, where they are registered.
async fn authorize(
    context: &Context,
    catalog: &[CatalogProduct],
    report: &LineageReport,
    details: serde_json::Value,
) -> Result<()> {
    let products = report.products();
    let known = catalog.iter().filter(|product| products.contains(&product.key));
    let resources: Vec<Resource<'_>> = known.map(|product| Resource::Product(&product.revision.contract)).collect();
    let resources = if resources.is_empty() { vec![Resource::Mesh] } else { resources };
    context.authorize_all(Action::Describe, &resources, details).await.map(|_| ())
}

/// The column that `wanted` means: as written, else ignoring case as SQL does. Only columns of the contract are found.
fn find_field(table: &Table, wanted: &FieldPath) -> Result<FieldPath> {
    let mut columns: &[Column] = &table.columns;
    let mut parts = Vec::new();
    for part in wanted.parts() {
        let exact = columns.iter().find(|column| column.name == *part);
        let Some(column) = exact.or_else(|| columns.iter().find(|column| column.name.eq_ignore_ascii_case(part)))
        else {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            let help = if names.is_empty() {
                "it is no struct".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            return Err(Error::new(ErrorCode::NotFound, format!("table `{}` has no column `{wanted}`", table.name))
                .with_help(help));
        };
        parts.push(column.name.clone());
        columns = match &column.data_type {
            DataType::Struct(fields) => fields,
            _ => &[],
        };
    }
    Ok(FieldPath::new(parts).unwrap_or_else(|| wanted.clone()))
}

/// Which nodes a subject means.
fn roots(contract: &DataProduct, key: &ProductKey, subject: &Subject) -> Result<Vec<Node>> {
    let tables: Vec<&Table> = match &subject.table {
        None => contract.tables.iter().collect(),
        Some(name) => vec![contract.table(name).ok_or_else(|| {
            let names: Vec<&str> = contract.tables.iter().map(|table| table.name.as_str()).collect();
            Error::new(ErrorCode::NotFound, format!("`{}` has no table `{name}`", contract.id))
                .with_help(format!("its tables: {}", names.join(", ")))
        })?],
    };
    let mut roots = Vec::new();
    for table in tables {
        let dataset = Dataset::Table { product: key.clone(), table: table.name.sql() };
        match &subject.field {
            Some(field) => roots.push(Node { dataset, field: Some(find_field(table, field)?) }),
            None => {
                for column in &table.columns {
                    roots.push(Node { dataset: dataset.clone(), field: Some(FieldPath::column(&column.name)) });
                }
                roots.push(Node { dataset, field: None });
            }
        }
    }
    Ok(roots)
}

/// The recorded lineage of a product, a table or a column: as it is, or as it was with `publication`.
///
/// # Errors
/// A subject that is not published, and a publication that is none of the product's.
pub async fn recorded(
    context: &Context,
    subject: &str,
    publication: Option<u64>,
    scope: LineageScope,
) -> Result<LineageReport> {
    let parsed = Subject::parse(subject)?;
    let wanted = match &parsed.domain {
        Some(domain) => format!("{domain}/{}", parsed.product),
        None => parsed.product.clone(),
    };
    let product = find_product(context, &wanted, parsed.major).await?;
    let mut contract = product.revision.contract.clone();
    if let Some(number) = publication {
        let publications = context.registry.publications(&product.key, u64::MAX).await?;
        let found = publications.into_iter().find(|publication| publication.number == number).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("`{}` has no publication {number}", contract.id))
                .with_help(format!("see `datamesh publications {}`", contract.id))
        })?;
        if found.status != PublicationStatus::Published {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("attempt {number} of `{}` was rejected: nothing was made of its data", contract.id),
            ));
        }
        contract = found.contract.unwrap_or(contract);
    }
    let details = json!({ "operation": "lineage", "subject": subject, "publication": publication });
    let roots = match roots(&contract, &product.key, &parsed) {
        Ok(roots) => roots,
        // The error tells tables and columns.
        Err(error) => {
            context.authorize_product(Action::Describe, &product.revision.contract, details).await?;
            return Err(error);
        }
    };
    let graph = LineageGraph::new(context.registry.lineage(publication).await?);
    let mut tables = BTreeMap::new();
    for root in &roots {
        let Dataset::Table { table: name, .. } = &root.dataset else { continue };
        let columns = contract.table(name).map(|table| table.columns.as_slice()).unwrap_or_default();
        let columns: Vec<FieldPath> = columns.iter().map(|column| FieldPath::column(&column.name)).collect();
        let lineage = || ColumnLineage::from_edges(&root.dataset, &columns, graph.edges());
        tables.entry(root.dataset.clone()).or_insert_with(lineage);
    }
    let report = LineageReport {
        up: scope.walk(&graph, &roots, Direction::Up),
        down: scope.walk(&graph, &roots, Direction::Down),
        tables: tables.into_iter().collect(),
        roots,
    };
    authorize(context, &context.registry.catalog().await?, &report, details).await?;
    Ok(report)
}

/// The lineage of a query's result, and on from there of the tables that it reads. Nothing is run.
///
/// # Errors
/// A query that cannot be planned.
pub async fn of_query<E: Engine>(
    engine: &E,
    context: &Context,
    sql: &str,
    scope: LineageScope,
) -> Result<LineageReport> {
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    // As for a query, the history is read before the catalog.
    let travels = engine.travels(&request)?;
    let history = if travels.is_empty() { History::default() } else { context.registry.history(&travels).await? };
    let catalog = context.registry.catalog().await?;
    // Where columns come from tells nothing of what they hold: a table need only be found.
    let found = context.discover(catalog.clone()).await?;
    let query = engine.plan_request(&request, &found, &history, &Visibility::plain(&found)).await?;
    let lineage = E::query_lineage(&query)?;
    let mut edges = context.registry.lineage(None).await?;
    edges.extend(lineage.edges(&Dataset::Query));
    let graph = LineageGraph::new(edges);
    let columns = lineage.fields.iter().map(|field| Some(field.field.clone()));
    let mut roots: Vec<Node> = columns.chain([None]).map(|field| Node { dataset: Dataset::Query, field }).collect();
    // A query may yield two columns of one name; their inputs are told together.
    let mut seen = BTreeSet::new();
    roots.retain(|root| seen.insert(root.clone()));
    let up = graph.walk(&roots, Direction::Up, scope.depth, scope.direct_only);
    let report = LineageReport { roots, up: Some(up), down: None, tables: vec![(Dataset::Query, lineage)] };
    authorize(context, &catalog, &report, json!({ "operation": "lineage", "statement": sql })).await?;
    Ok(report)
}
