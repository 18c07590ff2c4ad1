//! SQL over the catalog: `domain.product.table`, each table pinned to the pointer that one registry read saw.

mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext};
use datafusion::sql::TableReference;
use datafusion::sql::parser::Statement;
use datamesh_app::ports::{NamedTables, QueryRequest, Sight, TableKey, Visibility};
use datamesh_core::access::TableAccess;
use datamesh_core::history::{AsOf, History, WrittenTable};
use datamesh_core::lineage::{ColumnLineage, Dataset};
use datamesh_core::ports::{CatalogProduct, TablePointer, preferred};
use datamesh_core::{Error, ErrorCode, Name, ProductKey, Result};
use datamesh_iceberg::read::LoggedSnapshot;
use datamesh_iceberg::{OpenTable, Storage, TableCache};

use self::versions::{Version, VersionedTable};
use crate::error::{unwrap, wrap};
use crate::govern::{Governor, MaskKey};
use crate::lineage::column_lineage;
use crate::scan;

/// A query with every table resolved.
#[derive(Debug)]
pub struct PlannedQuery {
    pub(crate) frame: DataFrame,
    pub(crate) tables: Vec<String>,
    names: SchemaNames,
}

/// What each `domain.schema` of SQL is: `product_v1`, and the bare name for the version that it means.
type SchemaNames = BTreeMap<(String, String), ProductKey>;

/// The planned tables that were used, and what the names in the query mean.
type Registered = (Arc<Mutex<BTreeSet<String>>>, SchemaNames);

/// What a query is planned on.
pub(crate) struct Mesh<'a> {
    pub(crate) storage: &'a Storage,
    pub(crate) cache: &'a Arc<TableCache>,
    pub(crate) catalog: &'a [CatalogProduct],
    pub(crate) history: &'a History,
    pub(crate) visible: &'a Visibility,
    /// Compiles row filters; it is none of the query's own, which holds what it compiles.
    pub(crate) compiler: Option<&'a SessionContext>,
    pub(crate) key: Option<&'a MaskKey>,
}

/// What one statement does with the tables that it reads.
struct Use {
    used: Arc<Mutex<BTreeSet<String>>>,
    /// Whether it shows what its operators count.
    measured: bool,
}

/// Which snapshots the tables of a schema have.
#[derive(Clone)]
enum Moment {
    /// The current ones.
    Now,
    /// Those of a moment of the product.
    Then(AsOf, Arc<History>),
    /// Those of a version as SQL names it: also a snapshot's id.
    Version(i64, Arc<History>),
}

/// The tables of one product version that may be seen. Manifests are read when a query names the table.
struct ProductSchema {
    storage: Storage,
    cache: Arc<TableCache>,
    key: ProductKey,
    /// The newest revision of its contract.
    revision: u64,
    tables: BTreeMap<String, (TablePointer, Sight)>,
    moment: Moment,
    used: Arc<Mutex<BTreeSet<String>>>,
    compiler: Option<SessionContext>,
    mask_key: Option<MaskKey>,
    measured: bool,
}

impl ProductSchema {
    fn new(mesh: &Mesh, product: &CatalogProduct, moment: Moment, reading: &Use) -> Self {
        let seen = product.tables.iter().filter_map(|pointer| {
            let name = sql_name(&pointer.table);
            let access = mesh.visible.tables.get(&(product.key.clone(), name.clone()))?;
            let contract = product.revision.contract.table(&name).cloned();
            Some((name, (pointer.clone(), Sight { access: access.clone(), contract })))
        });
        Self {
            storage: mesh.storage.clone(),
            cache: mesh.cache.clone(),
            key: product.key.clone(),
            revision: product.revision.number,
            tables: seen.collect(),
            moment,
            used: reading.used.clone(),
            measured: reading.measured,
            compiler: mesh.compiler.cloned(),
            mask_key: mesh.key.cloned(),
        }
    }

    /// What a table had then.
    fn state(&self, pointer: &TablePointer, table: &OpenTable) -> Result<TableState> {
        let (history, publication, time) = match &self.moment {
            Moment::Now => return Ok(TableState { snapshot: None, moment: None }),
            Moment::Then(as_of, history) => {
                let time = match as_of {
                    AsOf::Time(time) => Some(*time),
                    AsOf::Publication(_) | AsOf::Through(_) => None,
                };
                (history, history.publication(&self.key, *as_of)?, time)
            }
            Moment::Version(number, history) => {
                if table.has_snapshot(*number) {
                    let moment = Some(format!("snapshot {number}"));
                    return Ok(TableState { snapshot: Some(*number), moment });
                }
                let unknown = |_| {
                    Error::new(
                        ErrorCode::NotFound,
                        format!("`{}` has neither a publication nor a snapshot {number}", self.key),
                    )
                };
                let number = u64::try_from(*number).map_err(unknown)?;
                (history, history.publication(&self.key, AsOf::Publication(number))?, None)
            }
        };
        let moment = Some(format!("publication {publication}"));
        let written = history.written(&self.key, &pointer.table, publication)?;
        if let Some(time) = time {
            if self.unchanged_since(history, pointer, written, time) {
                return Ok(TableState { snapshot: None, moment });
            }
            if let Some(snapshot) = self.rewritten(history, pointer, table, written, time) {
                return Ok(TableState { snapshot: Some(snapshot), moment });
            }
        }
        if let Some(snapshot) = table.kept(written.snapshot_id) {
            return Ok(TableState { snapshot: Some(snapshot), moment });
        }
        let published = history.at(written.publication);
        if published.is_some_and(|published| self.unchanged_since(history, pointer, written, published)) {
            return Ok(TableState { snapshot: None, moment });
        }
        let what = format!(
            "table `{}` of `{}` no longer keeps what publication {publication} published",
            pointer.table, self.key
        );
        let help = match history.next_written(&self.key, &pointer.table, publication) {
            Some(_) => "its snapshot has expired; name a later publication",
            None => "its snapshot has expired; name a later time, or no version for what is published now",
        };
        Err(Error::new(ErrorCode::NotFound, what).with_help(help))
    }

    /// Whether a table is now what it was at a time, at which `written` was its newest: no publication has written it
    /// since and no revision was applied. Maintenance changes no row.
    fn unchanged_since(
        &self,
        history: &History,
        pointer: &TablePointer,
        written: &WrittenTable,
        time: DateTime<Utc>,
    ) -> bool {
        let newest = history.revisions_of(&self.key).next_back();
        // What was published or applied after the history was read is not in it.
        pointer.publication == written.publication
            && newest.is_some_and(|newest| newest.number == self.revision && newest.at <= time)
    }

    /// The snapshot at a time of a table whose rows were written anew after their publication, by a revision or by
    /// maintenance.
    fn rewritten(
        &self,
        history: &History,
        pointer: &TablePointer,
        table: &OpenTable,
        written: &WrittenTable,
        time: DateTime<Utc>,
    ) -> Option<i64> {
        let next = history.next_written(&self.key, &pointer.table, written.publication);
        let later = table.snapshots_between(written.snapshot_id, next.map(|next| next.snapshot_id));
        // A snapshot is written before the transaction that applies it; all tables of a product change with that one.
        let revisions = history.revisions_of(&self.key).rev();
        let newest = revisions.map(|revision| revision.at).find(|at| *at <= time)?.timestamp_millis();
        let served = |snapshot: &LoggedSnapshot| {
            snapshot.at_ms <= newest || (snapshot.is_maintained && snapshot.at_ms <= time.timestamp_millis())
        };
        later.into_iter().rev().find(served).map(|snapshot| snapshot.id)
    }
}

/// What a table had at the moment that is asked for.
struct TableState {
    /// The snapshot; `None`: what is published now.
    snapshot: Option<i64>,
    /// What the moment is called; `None`: now.
    moment: Option<String>,
}

impl fmt::Debug for ProductSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProductSchema").field("key", &self.key).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for ProductSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some((pointer, sight)) = self.tables.get(name) else { return Ok(None) };
        let table = OpenTable::parse(&self.storage, &pointer.metadata, &pointer.metadata_location).map_err(wrap)?;
        let state = self.state(pointer, &table).map_err(wrap)?;
        let provider = scan::open_table(&self.cache, &table, state.snapshot).await.map_err(wrap)?;
        let governor = Governor {
            context: self.compiler.as_ref(),
            key: self.mask_key.as_ref(),
            table: &format!("{}.{name}", self.key),
            current: scan::current_schema(&table).map_err(wrap)?,
            measured: self.measured,
        };
        let provider = governor.govern(provider, sight).map_err(wrap)?;
        let used = match state.moment {
            None => format!("{}.{name}", self.key),
            Some(moment) => format!("{}.{name} as of {moment}", self.key),
        };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(used);
        Ok(Some(provider))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// A table's SQL name is its normalised one; the registry keeps it as the contract writes it.
fn sql_name(table: &str) -> String {
    Name::new(table).map_or_else(|_| table.to_owned(), |name| name.sql())
}

/// The products of a catalog by the names that SQL has for them: `product_v1`, and the bare name for the version that it
/// means. Retired ones have none.
fn schemas(catalog: &[CatalogProduct]) -> BTreeMap<(String, String), &CatalogProduct> {
    let mut schemas = BTreeMap::new();
    let mut majors: BTreeMap<(&str, &str), Vec<&CatalogProduct>> = BTreeMap::new();
    let read = catalog.iter().filter(|product| product.revision.contract.preference().is_some());
    for product in read {
        let key = &product.key;
        schemas.insert((key.domain.clone(), key.namespace()), product);
        majors.entry((&key.domain, &key.product)).or_default().push(product);
    }
    for ((domain, name), majors) in majors {
        if let Some(product) = preferred(majors.into_iter()) {
            schemas.insert((domain.to_owned(), name.to_owned()), product);
        }
    }
    schemas
}

/// Registers every product, as of a moment, and the schemas that versioned tables stand in.
fn register(
    context: &SessionContext,
    mesh: &Mesh,
    as_of: Option<AsOf>,
    versioned: &BTreeSet<VersionedTable>,
    measured: bool,
) -> Result<Registered> {
    let reading = Use { used: Arc::default(), measured };
    let history = Arc::new(mesh.history.clone());
    let schemas = schemas(mesh.catalog);
    let mut names: SchemaNames = schemas.iter().map(|(name, product)| (name.clone(), product.key.clone())).collect();
    let mut domains: BTreeMap<&str, Arc<MemoryCatalogProvider>> = BTreeMap::new();
    let add = |domain: &MemoryCatalogProvider, name: &str, schema: ProductSchema| {
        let done = domain.register_schema(name, Arc::new(schema));
        done.map(|_| ()).map_err(|error| unwrap(ErrorCode::Internal, "cannot register the catalog", error))
    };
    let moment = as_of.map_or(Moment::Now, |as_of| Moment::Then(as_of, history.clone()));
    for ((domain, name), product) in &schemas {
        let domain = domains.entry(domain).or_insert_with(|| Arc::new(MemoryCatalogProvider::new()));
        add(domain, name, ProductSchema::new(mesh, product, moment.clone(), &reading))?;
    }
    for table in versioned {
        let Some(name) = &table.schema else { continue };
        let (Some(product), Some(domain)) = (schemas.get(name), domains.get(name.0.as_str())) else {
            let error = Error::new(ErrorCode::InvalidQuery, format!("there is no product `{}.{}`", name.0, name.1));
            return Err(match all_tables(mesh) {
                Some(help) => error.with_help(help),
                None => error,
            });
        };
        let moment = match table.version {
            Version::Number(number) => Moment::Version(number, history.clone()),
            Version::Time(time) => Moment::Then(AsOf::Time(time), history.clone()),
        };
        names.insert((name.0.clone(), table.stand_in.clone()), product.key.clone());
        add(domain, &table.stand_in, ProductSchema::new(mesh, product, moment, &reading))?;
    }
    for (name, domain) in domains {
        context.register_catalog(name, domain);
    }
    Ok((reading.used, names))
}

/// Registers the tables that a query was given by the locations of their metadata, each under its name.
async fn register_given(
    context: &SessionContext,
    mesh: &Mesh<'_>,
    request: &QueryRequest,
    versioned: &BTreeSet<VersionedTable>,
) -> Result<()> {
    for given in &request.tables {
        let table = OpenTable::read(mesh.storage, &given.location).await?;
        let at = |time: DateTime<Utc>| {
            table.snapshot_at(time.timestamp_millis())?.ok_or_else(|| {
                Error::new(ErrorCode::NotFound, format!("table `{}` had no snapshot yet at {time}", given.name))
            })
        };
        let current = match request.as_of {
            None => None,
            Some(AsOf::Time(time)) => Some(at(time)?),
            Some(AsOf::Publication(number) | AsOf::Through(number)) => {
                let what =
                    format!("table `{}` is not of this mesh: publication {number} says nothing of it", given.name);
                return Err(Error::new(ErrorCode::InvalidQuery, what)
                    .with_help("give a time, or `FOR VERSION AS OF` with the id of a snapshot"));
            }
        };
        let mut places = vec![(TableReference::bare(given.name.as_str()), current)];
        for versioned in versioned.iter().filter(|table| table.schema.is_none() && table.table == given.name) {
            let snapshot = match versioned.version {
                Version::Number(id) => id,
                Version::Time(time) => at(time)?,
            };
            let schema = context.catalog("datafusion").filter(|catalog| catalog.schema(&versioned.stand_in).is_none());
            if let Some(catalog) = schema {
                let done = catalog.register_schema(&versioned.stand_in, Arc::new(MemorySchemaProvider::new()));
                done.map_err(|error| unwrap(ErrorCode::Internal, "cannot register a table", error))?;
            }
            places.push((TableReference::partial(versioned.stand_in.as_str(), given.name.as_str()), Some(snapshot)));
        }
        for (place, snapshot) in places {
            let provider = scan::open_table(mesh.cache, &table, snapshot).await?;
            let done = context.register_table(place, provider);
            done.map_err(|error| unwrap(ErrorCode::Internal, "cannot register a table", error))?;
        }
    }
    Ok(())
}

/// The products, `(domain, product)`, whose history decides what a query reads.
pub(crate) fn travels(context: &SessionContext, request: &QueryRequest) -> Result<Vec<(String, String)>> {
    let parsed = versions::parse(context, request)?;
    let mut schemas: BTreeSet<(String, String)> =
        parsed.versioned.into_iter().filter_map(|table| table.schema).collect();
    if request.as_of.is_some() {
        let tables = context.state().resolve_table_references(&parsed.statement);
        let tables = tables.map_err(|error| unwrap(ErrorCode::InvalidQuery, "the query cannot be planned", error))?;
        schemas
            .extend(tables.iter().filter_map(|table| Some((table.catalog()?.to_owned(), table.schema()?.to_owned()))));
    }
    let product = |schema: String| match schema.rsplit_once("_v") {
        Some((product, major)) if !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit()) => {
            product.to_owned()
        }
        _ => schema,
    };
    let products: BTreeSet<_> = schemas.into_iter().map(|(domain, schema)| (domain, product(schema))).collect();
    Ok(products.into_iter().collect())
}

/// Plans a query. Only reading is allowed.
pub(crate) async fn plan(context: &SessionContext, mesh: &Mesh<'_>, request: &QueryRequest) -> Result<PlannedQuery> {
    let parsed = versions::parse(context, request)?;
    // A publication of all products is named by its number, which must be that of one of them.
    let as_of = match request.as_of {
        Some(AsOf::Publication(number) | AsOf::Through(number)) => {
            if !mesh.history.is_published(number) {
                let what =
                    format!("publication {number} is none of the products that the query reads, or was rejected");
                return Err(Error::new(ErrorCode::NotFound, what).with_help("see `datamesh publications`"));
            }
            Some(AsOf::Through(number))
        }
        other => other,
    };
    let measured = matches!(&parsed.statement, Statement::Explain(explain) if explain.analyze);
    let (used, names) = register(context, mesh, as_of, &parsed.versioned, measured)?;
    register_given(context, mesh, request, &parsed.versioned).await?;
    let state = context.state();
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let planned = async {
        let plan = state.statement_to_plan(parsed.statement).await?;
        read_only.verify_plan(&plan)?;
        context.execute_logical_plan(plainly_named(plan, &parsed.plain)?).await
    };
    let frame = planned.await.map_err(|error| {
        let error = unwrap(ErrorCode::InvalidQuery, "the query cannot be planned", error);
        match help(&error, mesh) {
            Some(help) => error.with_help(help),
            None => error,
        }
    })?;
    let tables = used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    Ok(PlannedQuery { frame, tables, names })
}

/// A plan whose columns are called as if nothing stood for a versioned table. `plain` are the names by those that stand
/// for them.
fn plainly_named(plan: LogicalPlan, plain: &BTreeMap<String, String>) -> DataFusionResult<LogicalPlan> {
    // A long name first: a shorter one may be a part of it.
    let mut stand_ins: Vec<_> = plain.iter().collect();
    stand_ins.sort_by_key(|(stand_in, _)| std::cmp::Reverse(stand_in.len()));
    let name = |name: &str| {
        stand_ins.iter().fold(name.to_owned(), |name, (stand_in, table)| name.replace(stand_in.as_str(), table))
    };
    if plan.schema().fields().iter().all(|field| name(field.name()) == *field.name()) {
        return Ok(plan);
    }
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let (column, name) = (Expr::from((qualifier, field)), name(field.name()));
        if name == *field.name() { column } else { column.alias(name) }
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Where each column of a query's result comes from.
pub(crate) fn lineage(query: &PlannedQuery) -> Result<ColumnLineage> {
    let fail = |error| unwrap(ErrorCode::InvalidQuery, "the query cannot be planned", error);
    let (state, plan) = query.frame.clone().into_parts();
    // Types are settled only by the analyzer: a query that could not be run shall have no lineage either.
    state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}).map_err(fail)?;
    let dataset = |name: &TableReference| {
        let TableReference::Full { catalog, schema, table } = name else { return Ok(None) };
        let product = query.names.get(&(catalog.to_string(), schema.to_string()));
        Ok(product.map(|product| Dataset::Table { product: product.clone(), table: table.to_string() }))
    };
    column_lineage(&plan, &dataset)
}

fn help(error: &Error, mesh: &Mesh<'_>) -> Option<String> {
    let text = error.to_string();
    if text.contains("not supported") {
        return Some("queries only read; data comes in through `datamesh publish`".to_owned());
    }
    if !text.contains("not found") || !text.contains("table") {
        return None;
    }
    let is_retired = |product: &&CatalogProduct| {
        let CatalogProduct { key, revision, .. } = product;
        let named = |schema: &str| text.contains(&format!("{}.{schema}.", key.domain));
        let is_known = mesh.visible.known.iter().any(|(known, _)| known == key);
        is_known && revision.contract.preference().is_none() && (named(&key.product) || named(&key.namespace()))
    };
    if let Some(product) = mesh.catalog.iter().find(is_retired) {
        let contract = &product.revision.contract;
        return Some(format!("`{}` version {} is retired: it is not read any more", contract.id, contract.version));
    }
    all_tables(mesh).or_else(|| {
        let nothing = if mesh.catalog.iter().all(|product| product.tables.is_empty()) {
            "nothing is published yet; `datamesh publish PRODUCT` publishes"
        } else {
            "a table is named domain.product.table"
        };
        Some(nothing.to_owned())
    })
}

/// Which tables there are, of those that may be known; `None`: none.
fn all_tables(mesh: &Mesh<'_>) -> Option<String> {
    let read = mesh.catalog.iter().filter(|product| product.revision.contract.preference().is_some());
    let tables =
        read.flat_map(|product| product.tables.iter().map(move |pointer| (&product.key, sql_name(&pointer.table))));
    let known = tables.filter(|(key, table)| mesh.visible.known.contains(&((*key).clone(), table.clone())));
    let mut names: Vec<String> = known.map(|(key, table)| format!("{}.{}.{table}", key.domain, key.product)).collect();
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| format!("a table is named domain.product.table; there are: {}", names.join(", ")))
}

/// What a version of a product is called. One that cannot be resolved is called as it was asked for; planning says why.
fn moment(product: &ProductKey, version: Version, history: &History) -> String {
    let (as_of, otherwise) = match version {
        Version::Number(number) => (u64::try_from(number).ok().map(AsOf::Publication), format!("snapshot {number}")),
        Version::Time(time) => (Some(AsOf::Time(time)), version.to_string()),
    };
    let publication = as_of.and_then(|as_of| history.publication(product, as_of).ok());
    publication.map_or(otherwise, |publication| format!("publication {publication}"))
}

/// The tables of the mesh that a query names.
pub(crate) fn names(
    context: &SessionContext,
    request: &QueryRequest,
    catalog: &[CatalogProduct],
    history: &History,
) -> Result<NamedTables> {
    let parsed = versions::parse(context, request)?;
    let references = context.state().resolve_table_references(&parsed.statement);
    let references =
        references.map_err(|error| unwrap(ErrorCode::InvalidQuery, "the query cannot be planned", error))?;
    let mut schemas = schemas(catalog);
    let mut versions = BTreeMap::new();
    for table in &parsed.versioned {
        let product = table.schema.as_ref().and_then(|name| schemas.get(name)).copied();
        if let (Some((domain, _)), Some(product)) = (&table.schema, product) {
            let name = (domain.clone(), table.stand_in.clone());
            versions.insert(name.clone(), moment(&product.key, table.version, history));
            schemas.insert(name, product);
        }
    }
    let through = |product: &ProductKey| {
        let as_of = match request.as_of? {
            AsOf::Publication(number) => AsOf::Through(number),
            other => other,
        };
        history.publication(product, as_of).ok().map(|publication| format!("publication {publication}"))
    };
    let mut named = NamedTables::default();
    let mut moments: BTreeMap<TableKey, BTreeSet<String>> = BTreeMap::new();
    for reference in references {
        named.lists |= reference.schema() == Some("information_schema");
        let TableReference::Full { catalog, schema, table } = reference else { continue };
        let place = (catalog.to_string(), schema.to_string());
        let product = schemas.get(&place);
        let has = |product: &&&CatalogProduct| product.tables.iter().any(|own| sql_name(&own.table) == *table);
        let found: Option<TableKey> = product.filter(has).map(|product| (product.key.clone(), table.to_string()));
        if let Some(key) = found {
            let moment = versions.get(&place).cloned().or_else(|| through(&key.0));
            moments.entry(key.clone()).or_default().insert(moment.unwrap_or_else(|| "now".to_owned()));
            named.tables.insert(key);
        }
    }
    let earlier = moments.into_iter().filter(|(_, moments)| moments.iter().any(|moment| moment != "now"));
    named.moments = earlier.map(|(key, moments)| (key, Vec::from_iter(moments).join(" and "))).collect();
    Ok(named)
}

/// Whether a row filter is among what is seen.
pub(crate) fn filters(visible: &Visibility) -> bool {
    visible.tables.values().flat_map(|access: &TableAccess| &access.ways).any(|way| way.rows.is_some())
}
