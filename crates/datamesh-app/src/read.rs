//! Reading: each read is decided and recorded before it happens.

use datamesh_core::contract::DataProduct;
use datamesh_core::decision::Action;
use datamesh_core::history::{AsOf, History};
use datamesh_core::ids::{ProductId, split_major};
use datamesh_core::ports::{CatalogProduct, Publication, PublicationStatus, preferred};
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::ports::{Context, Engine, QueryRequest, Rows, Visibility};

/// Runs a query. All its tables are pinned in one read of the registry.
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
        context.authorize(Action::Read, &table.location, details.clone()).await?;
    }
    // Versions never change. Read before the catalog, the history knows no snapshot that the catalog's tables lack.
    let travels = engine.travels(request)?;
    let history = if travels.is_empty() { History::default() } else { context.registry.history(&travels).await? };
    let catalog = context.registry.catalog().await?;
    let query = engine.plan_request(request, &catalog, &history, &Visibility::plain(&catalog)).await?;
    let tables = E::tables(&query);
    context.authorize(Action::Read, &tables.join(", "), details).await?;
    engine.run_query(query).await
}

/// The registered product that `wanted` means: `domain/product` or a bare name, with `@1` that major version; without,
/// `major`, else the one that the bare name means in SQL, else the newest.
pub async fn find_product(context: &Context, wanted: &str, major: Option<u64>) -> Result<CatalogProduct> {
    let (wanted, told) = split_major(wanted)?;
    let major = told.or(major);
    let catalog = context.registry.catalog().await?;
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
    let action = if request.reveal { Action::ReadUnmasked } else { Action::Read };
    let details = json!({ "operation": "quarantine", "publication": publication.number, "table": request.table, "reveal": request.reveal });
    context.authorize(action, &contract.id.to_string(), details).await?;
    // The rows are laid out by the contract they were judged by; what either contract protects is masked.
    let mut judged = publication.contract.clone().unwrap_or_else(|| contract.clone());
    for table in &mut judged.tables {
        let Some(current) = contract.table(table.name.as_str()) else { continue };
        for column in &mut table.columns {
            column.pii |= current.column(&column.name).is_some_and(datamesh_core::Column::is_protected);
        }
    }
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
            tables.push((table.name.to_string(), rows));
        }
    }
    Ok((publication, tables))
}

/// The newest publication that serves.
pub fn serving(publications: &[Publication]) -> Option<&Publication> {
    publications.iter().find(|publication| publication.status == PublicationStatus::Published)
}
