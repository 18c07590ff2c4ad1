//! SQL over the catalog: `domain.product.table`, each table pinned to the pointer that one registry read saw.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext};
use datamesh_core::lineage::{ColumnLineage, Dataset};
use datamesh_core::ports::{CatalogProduct, TablePointer};
use datamesh_core::{Error, ErrorCode, Name, ProductKey, Result};
use datamesh_iceberg::{OpenTable, Storage};

use crate::error::{unwrap, wrap};
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

/// The tables of one product version. Manifests are read when a query names the table.
struct ProductSchema {
    storage: Storage,
    name: String,
    tables: BTreeMap<String, TablePointer>,
    used: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for ProductSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProductSchema").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for ProductSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(pointer) = self.tables.get(name) else { return Ok(None) };
        let table = OpenTable::parse(&self.storage, &pointer.metadata, &pointer.metadata_location).map_err(wrap)?;
        let provider = scan::open_table(&table, None).await.map_err(wrap)?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{}.{name}", self.name));
        Ok(Some(provider))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// Registers every product of the catalog: `product_v1`, and the bare name for the newest active major, else the newest draft.
fn register(context: &SessionContext, storage: &Storage, catalog: &[CatalogProduct]) -> Result<Registered> {
    let used: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut names = SchemaNames::new();
    let mut domains: BTreeMap<&str, Arc<MemoryCatalogProvider>> = BTreeMap::new();
    let mut newest: HashMap<(&str, &str), (bool, u64, &CatalogProduct)> = HashMap::new();
    for product in catalog {
        let key = &product.key;
        let domain = domains.entry(&key.domain).or_insert_with(|| Arc::new(MemoryCatalogProvider::new()));
        add(storage, domain, &key.namespace(), product, &used)?;
        names.insert((key.domain.clone(), key.namespace()), key.clone());
        let contract = &product.revision.contract;
        let draft = match contract.declared.get("status").and_then(serde_json::Value::as_str) {
            Some(status) => status != "active",
            None => contract.version.major == 0,
        };
        let rank = (!draft, key.major, product);
        let best = newest.entry((&key.domain, &key.product)).or_insert(rank);
        if (rank.0, rank.1) > (best.0, best.1) {
            *best = rank;
        }
    }
    for ((domain, name), (_, _, product)) in &newest {
        names.insert(((*domain).to_owned(), (*name).to_owned()), product.key.clone());
        if let Some(domain) = domains.get(domain) {
            add(storage, domain, name, product, &used)?;
        }
    }
    for (name, domain) in domains {
        context.register_catalog(name, domain);
    }
    Ok((used, names))
}

fn add(
    storage: &Storage,
    domain: &MemoryCatalogProvider,
    schema: &str,
    product: &CatalogProduct,
    used: &Arc<Mutex<BTreeSet<String>>>,
) -> Result<()> {
    // A table's SQL name is its normalised one; the registry keeps it as the contract writes it.
    let name = |table: &str| Name::new(table).map_or_else(|_| table.to_owned(), |name| name.sql());
    let tables = product.tables.iter().map(|pointer| (name(&pointer.table), pointer.clone())).collect();
    let provider =
        ProductSchema { storage: storage.clone(), name: product.key.to_string(), tables, used: used.clone() };
    let done = domain.register_schema(schema, Arc::new(provider));
    done.map(|_| ()).map_err(|error| unwrap(ErrorCode::Internal, "cannot register the catalog", error))
}

/// Plans a query. Only reading is allowed.
pub(crate) async fn plan(
    context: &SessionContext,
    storage: &Storage,
    sql: &str,
    catalog: &[CatalogProduct],
) -> Result<PlannedQuery> {
    let (used, names) = register(context, storage, catalog)?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, read_only).await.map_err(|error| {
        let error = unwrap(ErrorCode::InvalidQuery, "the query cannot be planned", error);
        match help(&error, catalog) {
            Some(help) => error.with_help(help),
            None => error,
        }
    })?;
    let tables = used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    Ok(PlannedQuery { frame, tables, names })
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

fn help(error: &Error, catalog: &[CatalogProduct]) -> Option<String> {
    let text = error.to_string();
    if text.contains("not supported") {
        return Some("queries only read; data comes in through `datamesh publish`".to_owned());
    }
    if !text.contains("not found") || !text.contains("table") {
        return None;
    }
    let mut names: Vec<String> = catalog
        .iter()
        .flat_map(|product| {
            let sql = |table: &str| table.to_ascii_lowercase().replace('-', "_");
            product
                .tables
                .iter()
                .map(move |pointer| format!("{}.{}.{}", product.key.domain, product.key.product, sql(&pointer.table)))
        })
        .collect();
    names.sort();
    names.dedup();
    Some(if names.is_empty() {
        "nothing is published yet; `datamesh publish PRODUCT` publishes".to_owned()
    } else {
        format!("a table is named domain.product.table; there are: {}", names.join(", "))
    })
}
