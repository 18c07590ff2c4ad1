//! Reading: each read is decided and recorded before it happens.

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::access::{AccessWay, TableAccess};
use datamesh_core::contract::DataProduct;
use datamesh_core::history::{AsOf, History};
use datamesh_core::ids::{ProductId, ProductKey, split_major};
use datamesh_core::mask::Mask;
use datamesh_core::ports::{CatalogProduct, Publication, PublicationStatus, Revision, preferred};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use datamesh_core::decision::Action;

use crate::govern::{ReadTable, Reader, Reading, Resource, published};
use crate::ports::{Context, Engine, QueryRequest, Rows, TableKey, Visibility};

/// Runs a query. All its tables are pinned in one read, and show what whoever asks may see.
///
/// # Errors
/// `denied` where a table may not be read at all; a query that cannot be planned.
pub async fn query<E: Engine>(engine: &E, context: &Context, request: &QueryRequest) -> Result<Rows> {
    let mut details = json!({ "statement": request.sql });
    if let (Some(as_of), Some(details)) = (request.as_of, details.as_object_mut()) {
        let as_of = match as_of {
            AsOf::Publication(number) | AsOf::Through(number) => json!(number),
            AsOf::Time(time) => json!(time),
        };
        details.insert("asOf".to_owned(), as_of);
    }
    // The metadata of a table outside the mesh is read to plan the query, so it is decided on before.
    for table in &request.tables {
        context.read_location(&table.location, details.clone()).await?;
    }
    // Versions never change. Read before the catalog, the history knows no snapshot that the catalog's tables lack.
    let travels = engine.travels(request)?;
    let history = if travels.is_empty() { History::default() } else { context.registry.history(&travels).await? };
    let catalog = context.registry.catalog().await?;
    let (reading, visible) = see(engine, context, request, &catalog, &history, details).await?;
    let query = match engine.plan_request(request, &catalog, &history, &visible).await {
        Ok(query) => query,
        // What is not there is told with what there is to find.
        Err(error) if visible.known.is_empty() => {
            let known = context.visibility(&catalog).await?.known;
            let visible = Visibility { known, ..visible };
            return Err(engine.plan_request(request, &catalog, &history, &visible).await.err().unwrap_or(error));
        }
        Err(error) => return Err(error),
    };
    let rows = engine.run_query(query).await?;
    Ok(context.recorded(rows, &reading, "query"))
}

/// Decides on every table that a query names, and says what is seen.
async fn see<E: Engine>(
    engine: &E,
    context: &Context,
    request: &QueryRequest,
    catalog: &[CatalogProduct],
    history: &History,
    details: serde_json::Value,
) -> Result<(Reading, Visibility)> {
    let named = engine.names(request, catalog, history)?;
    let mut tables = tables(catalog, &named.tables);
    for read in &mut tables {
        read.moment = named.moments.get(&read.key()).map(String::as_str);
    }
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    // What may not even be found is not there.
    tables.retain(|read| context.discovers(&rules, &actor, &read.product.revision.contract));
    let reading = context.read_tables(Reader::Asker, catalog, &tables, details).await?;
    let mut visible = if named.lists { context.visibility(catalog).await? } else { Visibility::default() };
    visible.tables.extend(reading.tables.clone());
    Ok((reading, visible))
}

/// Tables of a catalog by their keys. One that the contract no longer has is left out.
pub(crate) fn tables<'c>(catalog: &'c [CatalogProduct], keys: &BTreeSet<TableKey>) -> Vec<ReadTable<'c>> {
    let found = keys.iter().filter_map(|(key, name)| {
        let product = catalog.iter().find(|product| product.key == *key)?;
        Some(ReadTable::now(product, product.revision.contract.table(name)?))
    });
    found.collect()
}

/// The registered product that `wanted` means: `domain/product` or a bare name, with `@1` that major version; without,
/// `major`, else the one that the bare name means in SQL, else the newest.
pub async fn find_product(context: &Context, wanted: &str, major: Option<u64>) -> Result<CatalogProduct> {
    let (wanted, told) = split_major(wanted)?;
    let major = told.or(major);
    let catalog = context.discover(context.registry.catalog().await?).await?;
    let normal = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let (domain, product) = match wanted.split_once('/') {
        Some((domain, product)) => (Some(normal(domain)), normal(product)),
        None => (None, normal(wanted)),
    };
    let found: Vec<&CatalogProduct> = catalog
        .iter()
        .filter(|entry| {
            entry.key.product == product && domain.as_ref().is_none_or(|domain| entry.key.domain == *domain)
        })
        .filter(|entry| major.is_none_or(|major| entry.key.major == major))
        .collect();
    let meant = preferred(found.iter().copied());
    let Some(newest) = meant.or_else(|| found.iter().copied().max_by_key(|entry| entry.key.major)) else {
        let names = names(catalog.iter().map(|entry| &entry.revision.contract.id));
        let help = if names.is_empty() {
            "nothing is published yet; `datamesh publish PRODUCT` publishes".to_owned()
        } else {
            format!("published here: {names}")
        };
        return Err(Error::new(ErrorCode::NotFound, format!("no product `{wanted}` is published")).with_help(help));
    };
    if found.iter().any(|entry| entry.key.domain != newest.key.domain) {
        let names = names(found.iter().map(|entry| &entry.revision.contract.id));
        return Err(Error::new(ErrorCode::InvalidArgument, format!("`{wanted}` could be any of {names}"))
            .with_help("write `domain/product`"));
    }
    Ok(newest.clone())
}

fn names<'a>(ids: impl Iterator<Item = &'a ProductId>) -> String {
    let mut names: Vec<String> = ids.map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// Which quarantined rows to show.
#[derive(Clone, Debug, Default)]
pub struct QuarantineRequest {
    /// The publication; default: the newest attempt.
    pub publication: Option<u64>,
    /// The table; default: every table with quarantined rows.
    pub table: Option<String>,
    /// Show protected values in clear; recorded as such.
    pub reveal: bool,
}

/// The quarantined rows of one recorded attempt, by table.
pub async fn quarantine<E: Engine>(
    engine: &E,
    context: &Context,
    contract: &DataProduct,
    request: &QuarantineRequest,
) -> Result<(Publication, Vec<(String, Rows)>)> {
    let attempts = context.registry.publications(&contract.key(), u64::MAX).await?;
    let publication = match request.publication {
        Some(number) => attempts.into_iter().find(|attempt| attempt.number == number).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("`{}` has no publication {number}", contract.id))
                .with_help(format!("see `datamesh publications {}`", contract.id))
        })?,
        None => attempts.into_iter().next().ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("nothing of `{}` was published yet", contract.id))
        })?,
    };
    if let Some(table) = &request.table
        && contract.table(table).is_none()
    {
        return Err(Error::new(ErrorCode::NotFound, format!("`{}` has no table `{table}`", contract.id)));
    }
    let details = json!({ "operation": "quarantine", "publication": publication.number, "table": request.table });
    // The rows are laid out by the contract they were judged by; what either contract protects is masked.
    let mut judged = publication.contract.clone().unwrap_or_else(|| contract.clone());
    for table in &mut judged.tables {
        let Some(current) = contract.table(table.name.as_str()) else { continue };
        for column in &mut table.columns {
            column.pii |= current.column(&column.name).is_some_and(datamesh_core::Column::is_protected);
        }
    }
    let reading = decide_quarantine(context, contract, &mut judged, request, details).await?;
    let contract = &judged;
    let files = context.registry.quarantine_files(publication.number).await?;
    let mut tables = Vec::new();
    for table in &contract.tables {
        let wanted = request
            .table
            .as_deref()
            .is_none_or(|wanted| contract.table(wanted).is_some_and(|found| found.name == table.name));
        let own: Vec<_> = files.iter().filter(|file| file.table == table.name.sql()).cloned().collect();
        if wanted && !own.is_empty() {
            let rows = engine.read_quarantine(contract, table.name.as_str(), &own, request.reveal).await?;
            let reading =
                Reading { resource: format!("{} quarantine of {}", contract.id, table.name), ..reading.clone() };
            let rows = context.recorded(rows, &reading, "quarantine");
            tables.push((table.name.to_string(), rows));
        }
    }
    Ok((publication, tables))
}

/// Decides on reading quarantined rows. They are what was not understood, so that no row filter applies to them: only who
/// sees all rows and columns of a table sees them, and only who sees everything in clear may have them revealed.
async fn decide_quarantine(
    context: &Context,
    contract: &DataProduct,
    judged: &mut DataProduct,
    request: &QuarantineRequest,
    details: serde_json::Value,
) -> Result<Reading> {
    let catalog = context.registry.catalog().await?;
    // What was never published is decided on by its contract alone.
    let unpublished = || CatalogProduct {
        key: contract.key(),
        revision: Revision {
            number: 0,
            contract: judged.clone(),
            created_at: context.clock.now(),
            created_by: context.principal.id.clone(),
        },
        tables: Vec::new(),
    };
    let known = catalog.iter().find(|product| product.key == contract.key()).cloned();
    let product = known.unwrap_or_else(unpublished);
    // Raw texts hold what the contract does not know: they are for those who publish it.
    context.authorize_product(Action::Publish, &product.revision.contract, details.clone()).await?;
    let wanted = request.table.as_deref();
    let tables: Vec<ReadTable<'_>> = product
        .revision
        .contract
        .tables
        .iter()
        .filter(|table| wanted.is_none_or(|wanted| contract.table(wanted).is_some_and(|own| own.name == table.name)))
        .map(|table| ReadTable::now(&product, table))
        .collect();
    let reading = context.read_tables(Reader::Asker, &catalog, &tables, details.clone()).await?;
    let protected = context.protections(&catalog, &tables).await?;
    if request.reveal {
        let columns = tables.iter().zip(&protected).flat_map(|(read, protections)| {
            protections.iter().map(|own| Resource::Column(&read.product.revision.contract, read.table, &own.path))
        });
        let columns: Vec<Resource<'_>> = columns.collect();
        let resources = if columns.is_empty() {
            tables.iter().map(|read| Resource::Table(contract, read.table)).collect()
        } else {
            columns
        };
        let mut details = details;
        details["reveal"] = true.into();
        context.authorize_all(Action::ReadUnmasked, &resources, details).await?;
    }
    for (read, protections) in tables.iter().zip(protected) {
        let access = reading.access(&read.product.key, &read.table.name.sql());
        let whole = |way: &AccessWay| way.rows.is_none() && way.hidden.is_empty();
        let clear = access.ways.iter().any(|way| whole(way) && way.masked.is_empty());
        if !(if request.reveal { clear } else { access.ways.iter().any(whole) }) {
            let what = if request.reveal { "in clear" } else { "whole" };
            let message = format!(
                "`{}` may not read the quarantine of `{}.{}`: the table is not seen {what}",
                context.principal.id, contract.id, read.table.name
            );
            let help =
                format!("rows that broke a rule cannot be filtered or masked cell by cell; ask `{}`", contract.owner);
            let resource = Resource::Table(contract, read.table);
            return context.deny(Action::Read, resource, "not-seen-whole", message, help).await;
        }
        let Some(table) = judged.tables.iter_mut().find(|table| table.name == read.table.name) else { continue };
        for protection in protections.iter().filter(|protection| protection.mask != Mask::None) {
            let own = table.columns.iter_mut().find(|column| protection.path.first() == Some(&column.name));
            if let Some(column) = own {
                column.pii = true;
            }
        }
    }
    Ok(reading)
}

/// The recorded attempts of a product, newest first, as far as whoever asks may know them: rows that failed are shown to
/// those who publish it, and how many rows there are to those who see them all. What is withheld is replaced by
/// `{"withheld": true}`.
///
/// # Errors
/// A registry that cannot be read.
pub async fn publications(context: &Context, contract: &DataProduct, limit: u64) -> Result<Vec<Publication>> {
    let mut found = context.registry.publications(&contract.key(), limit).await?;
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    let circumstances = context.circumstances();
    let catalog = context.registry.catalog().await?;
    let product = catalog.iter().find(|product| product.key == contract.key());
    // Where nothing is applied the attempts' own contracts decide, not a manifest that somebody may have changed since.
    let mut contracts: Vec<&DataProduct> = match product {
        Some(product) => vec![&product.revision.contract],
        None => found.iter().filter_map(|attempt| attempt.contract.as_ref()).collect(),
    };
    contracts.push(contract);
    let publishes = |contract: &&DataProduct| {
        rules.policies.decide(&actor, Action::Publish, Resource::Product(contract), &circumstances).is_allowed()
    };
    if contracts.iter().all(publishes) {
        return Ok(found);
    }
    let tables: Vec<ReadTable<'_>> = product.into_iter().flat_map(published).collect();
    let decisions = context.decide_tables(&rules, &actor, &catalog, &tables).await?;
    let counts = !decisions.is_empty() && decisions.iter().all(|decision| decision.access.shows_all_rows());
    for publication in &mut found {
        if counts {
            without_samples(&mut publication.report);
        } else {
            publication.report = json!({ "withheld": true });
        }
    }
    Ok(found)
}

/// Takes rows and values out of a report.
fn without_samples(report: &mut serde_json::Value) {
    match report {
        serde_json::Value::Object(fields) => {
            fields.retain(|key, _| !matches!(key.as_str(), "samples" | "because" | "value" | "measured"));
            fields.values_mut().for_each(without_samples);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_samples),
        _ => {}
    }
}

/// What may be told of a published table beside its contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableFacts {
    /// Whether its rows may be counted: all of them are seen.
    pub counted: bool,
    /// Whether it may be told where its files lie: everything is seen in clear, so that reading them tells no more.
    pub located: bool,
    /// The top-level columns that what they are derived from protects.
    pub inherited: BTreeSet<String>,
}

/// What may be told of published tables to whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<TableKey, TableFacts>);

impl Facts {
    /// Of one table; nothing where it is not published.
    pub fn of(&self, product: &ProductKey, table: &str) -> TableFacts {
        self.0.get(&(product.clone(), table.to_owned())).cloned().unwrap_or_default()
    }
}

/// What may be told of the published tables of some products to whoever asks.
///
/// # Errors
/// A registry that cannot be read.
pub async fn facts(context: &Context, products: &[CatalogProduct]) -> Result<Facts> {
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    let tables: Vec<ReadTable<'_>> = products.iter().flat_map(published).collect();
    let protections = context.protections(products, &tables).await?;
    let decisions = match actor.owns_mesh() {
        // Who can open the mesh's folder can read its files.
        true => vec![TableAccess::plain(); tables.len()],
        false => {
            let decisions = context.decide_tables(&rules, &actor, products, &tables).await?;
            decisions.into_iter().map(|decision| decision.access).collect()
        }
    };
    let told = tables.iter().zip(protections).zip(decisions).map(|((read, protections), access)| {
        let inherited = protections.into_iter().filter(|own| !own.from.is_empty() && own.mask != Mask::None);
        let facts = TableFacts {
            counted: access.shows_all_rows(),
            located: access.is_plain(),
            inherited: inherited.filter_map(|own| own.path.first().cloned()).collect(),
        };
        (read.key(), facts)
    });
    Ok(Facts(told.collect()))
}

/// The newest publication that serves.
pub fn serving(publications: &[Publication]) -> Option<&Publication> {
    publications.iter().find(|publication| publication.status == PublicationStatus::Published)
}
