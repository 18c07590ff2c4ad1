//! Quarantine retry: quarantined rows go through the audit again, or mended rows take their place.
//!
//! A retry is a publication like any other, with the rows as its input. The transaction that commits it also marks them
//! as settled, so that no row is published twice. Rows that fail again are in the retry's own quarantine.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use datamesh_core::contract::{CsvOptions, DataProduct, FileSource, SourceFormat, Table, WriteMode};
use datamesh_core::decision::Action;
use datamesh_core::ports::{
    Publication, PublicationStatus, QuarantineResolution, ResolutionKind, Rollback, newest_effective,
};
use datamesh_core::secret::escape;
use datamesh_core::verdict::TableReport;
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::ports::{BoundSource, Context, Engine, Progress, QuarantineInput, StageInput};
use crate::publish::{PublishReport, PublishRequest, PublishStatus, REPORT_FORMAT, publish_over, read_report};

/// Which quarantined rows to publish.
#[derive(Clone, Debug)]
pub struct RetryRequest {
    /// The contract to judge them by, from the folder's manifest.
    pub contract: DataProduct,
    /// The publication whose quarantine it is; default: every one with rows that are not settled.
    pub publication: Option<u64>,
    /// The table; default: every one.
    pub table: Option<String>,
    /// A file with mended rows that take the place of the quarantined ones, with the folder its path starts from.
    pub mended: Option<(String, std::path::PathBuf)>,
    /// Publish rows of the named publication into an upsert table even where newer ones were published since.
    pub over_newer: bool,
    /// Stop after the verdict and keep nothing.
    pub dry_run: bool,
}

/// Publishes quarantined rows again. Ends early, cleanly, when `stop` does.
///
/// # Errors
/// `not-found` for a publication or table that is not there, `invalid-argument` for rows that cannot be retried, and what
/// [`publish`](crate::publish::publish) fails with.
pub async fn retry<E: Engine>(
    request: RetryRequest,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<PublishReport> {
    let contract = &request.contract;
    let key = contract.key();
    let details =
        json!({ "operation": "quarantine retry", "publication": request.publication, "table": request.table });
    // Who publishes rows again need not see them.
    context.authorize_product(Action::Publish, contract, details).await?;
    let only = match &request.table {
        Some(name) => Some(
            contract
                .table(name)
                .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("`{}` has no table `{name}`", contract.id)))?,
        ),
        None => None,
    };
    // Read first: what is committed after it is a winner, and moves its tables.
    let state = context.registry.product_state(&key).await?;
    let attempts = context.registry.publications(&key, u64::MAX).await?;
    let rollbacks = context.registry.rollbacks(&key).await?;
    let written = written(&attempts, &rollbacks)?;
    let wanted = wanted(&request, attempts, &rollbacks)?;
    let settled = context.registry.quarantine_resolutions(&key).await?;
    let kind = if request.mended.is_some() { ResolutionKind::Mended } else { ResolutionKind::Retried };
    let mut files: BTreeMap<String, QuarantineInput> = BTreeMap::new();
    let mut resolves = Vec::new();
    let mut notes = Vec::new();
    let mut stale = None;
    for publication in &wanted {
        let number = publication.number;
        let mut own: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for file in context.registry.quarantine_files(number).await? {
            own.entry(file.table.clone()).or_default().push(file);
        }
        for (name, own) in own {
            let Some(table) = contract.table(&name).filter(|table| only.is_none_or(|only| only.name == table.name))
            else {
                continue;
            };
            if let Some(by) = settled.iter().find(|done| done.publication == number && done.table == name) {
                if request.publication.is_some() {
                    notes.push(format!(
                        "table `{}`: publication {} settled these rows",
                        table.name,
                        by.resolved_by.unwrap_or_default()
                    ));
                }
                continue;
            }
            if let Some(newer) = newer(table, number, &written) {
                let upsert = table.write == WriteMode::Upsert;
                if upsert && request.over_newer && request.publication.is_some() {
                    notes.push(format!(
                        "table `{}`: the rows of publication {number} go over what publication {newer} published since",
                        table.name
                    ));
                } else {
                    let error = outdated(contract, table, number, newer);
                    if request.publication.is_some() {
                        return Err(error);
                    }
                    notes.push(error.to_string());
                    // Somebody must say what counts; rows of a replaced table are settled by their source.
                    stale = stale.or(Some(error).filter(|_| upsert));
                    continue;
                }
            }
            resolves.push(QuarantineResolution { publication: number, table: name, resolved_by: None, how: kind });
            let input = files.entry(table.name.to_string()).or_default();
            input.files.extend(own.into_iter().map(|file| (number, file)));
        }
    }
    if files.is_empty() {
        return match stale {
            Some(error) => Err(error),
            None => Ok(nothing(contract, context, notes)),
        };
    }
    let inputs = match &request.mended {
        Some((path, folder)) => {
            let [table] = files.keys().collect::<Vec<_>>()[..] else {
                let names: Vec<_> = files.keys().map(String::as_str).collect();
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("several tables have quarantined rows: {}", names.join(", ")),
                )
                .with_help("name the one that the file has the rows of with `--table`"));
            };
            // What a user names is a path, not a reference to a secret.
            let named = escape(path);
            let spec = FileSource { path: named.clone(), ..plain(format_of(path)) };
            let source = BoundSource { spec, paths: vec![named], folder: folder.clone(), pulled: false };
            BTreeMap::from([(table.clone(), StageInput::Source(source))])
        }
        None => files.into_iter().map(|(table, input)| (table, StageInput::Quarantine(input))).collect(),
    };
    let publishing = PublishRequest {
        contract: request.contract,
        inputs,
        again: true,
        idempotency_key: None,
        dry_run: request.dry_run,
        resolves,
        full: false,
    };
    let mut report = publish_over(state, publishing, engine, context, progress, stop).await?;
    report.notes.extend(notes);
    Ok(report)
}

/// How a file that `datamesh quarantine` wrote is read, whatever the table's own source is.
fn plain(format: Option<SourceFormat>) -> FileSource {
    FileSource { path: String::new(), format, csv: CsvOptions::default() }
}

fn format_of(path: &str) -> Option<SourceFormat> {
    (path == "-").then_some(SourceFormat::Csv)
}

fn wanted(request: &RetryRequest, attempts: Vec<Publication>, rollbacks: &[Rollback]) -> Result<Vec<Publication>> {
    let id = &request.contract.id;
    let Some(number) = request.publication else {
        let published = |attempt: &Publication| {
            attempt.status == PublicationStatus::Published && newest_effective(&[attempt.number], rollbacks).is_some()
        };
        return Ok(attempts.into_iter().filter(published).collect());
    };
    let found = attempts.into_iter().find(|attempt| attempt.number == number).ok_or_else(|| {
        Error::new(ErrorCode::NotFound, format!("`{id}` has no publication {number}"))
            .with_help(format!("see `datamesh publications {id}`"))
    })?;
    if found.status == PublicationStatus::Rejected {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("attempt {number} of `{id}` was rejected, so none of its rows were published"),
        )
        .with_help("mend the contract or the rows, and publish all of them again"));
    }
    if newest_effective(&[number], rollbacks).is_none() {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("publication {number} of `{id}` was rolled back, so the rows beside those it held back are gone"),
        )
        .with_help("publish its data again, or roll the rollback back"));
    }
    Ok(vec![found])
}

/// What a publication that no rollback has taken out wrote.
struct Written {
    /// The tables whose rows it changed, or might have changed.
    tables: Vec<String>,
    /// Those of them that it replaced.
    replaced: Vec<String>,
    /// Whose held-back rows it published, for a retry.
    resolves: Vec<QuarantineResolution>,
}

fn written(attempts: &[Publication], rollbacks: &[Rollback]) -> Result<BTreeMap<u64, Written>> {
    let mut all = BTreeMap::new();
    for attempt in attempts {
        let number = attempt.number;
        if attempt.status != PublicationStatus::Published || newest_effective(&[number], rollbacks).is_none() {
            continue;
        }
        let report = read_report(&attempt.report, number)?;
        // No row replaces all rows with none, and changes nothing otherwise.
        let wrote = |table: &&TableReport| {
            table.repeat_of.is_none() && (table.rows_in > 0 || table.write == WriteMode::Replace)
        };
        let wrote = report.tables.iter().filter(wrote);
        let replaced = wrote.clone().filter(|table| table.write == WriteMode::Replace);
        let replaced = replaced.map(|table| table.table.clone()).collect();
        let tables = wrote.map(|table| table.table.clone()).collect();
        all.insert(number, Written { tables, replaced, resolves: report.resolves });
    }
    Ok(all)
}

/// The publications that the rows of one come from: those that held them back first, where it was a retry.
fn origins(number: u64, table: &Table, written: &BTreeMap<u64, Written>) -> Vec<u64> {
    let resolves = written.get(&number).map(|publication| publication.resolves.as_slice()).unwrap_or_default();
    let own = resolves.iter().filter(|of| of.table == table.name.sql() && of.publication < number);
    let origins: Vec<u64> = own.flat_map(|of| origins(of.publication, table, written)).collect();
    if origins.is_empty() { vec![number] } else { origins }
}

/// The newest publication with newer rows than those that `publication` held back from a table: they may be of the same
/// keys, or in their place. A deletion leaves no trace that could tell otherwise.
fn newer(table: &Table, publication: u64, written: &BTreeMap<u64, Written>) -> Option<u64> {
    let oldest = origins(publication, table, written).into_iter().min();
    let wrote = |(number, other): &(&u64, &Written)| {
        // What is appended takes no row's place, unless a run made the whole table anew.
        let tables = if table.write == WriteMode::Append { &other.replaced } else { &other.tables };
        **number != publication
            && tables.iter().any(|name| name == table.name.as_str())
            && origins(**number, table, written).into_iter().max() > oldest
    };
    written.iter().filter(wrote).map(|(number, _)| *number).max()
}

/// Rows that were held back from a table cannot just be added to it any more.
fn outdated(contract: &DataProduct, table: &Table, publication: u64, newer: u64) -> Error {
    let (id, name) = (&contract.id, &table.name);
    if table.write != WriteMode::Upsert {
        let why = format!(
            "table `{name}` was replaced since: the rows that publication {publication} held back belong to data that serves no more"
        );
        return Error::new(ErrorCode::InvalidArgument, why)
            .with_help("publish their source again: a table that is replaced takes all rows from there");
    }
    let why = format!(
        "table `{name}`: publication {newer} was published since publication {publication} held rows back, so they may be older than what serves, or deleted"
    );
    let source = match &table.watermark {
        Some(_) => format!("`datamesh publish {id} --full` reads rows as they are in their source now"),
        None => "publish the rows as they are in their source now".to_owned(),
    };
    Error::new(ErrorCode::InvalidArgument, why).with_help(format!(
        "{source}; after a look at `datamesh quarantine {id} --publication {publication}`, `datamesh quarantine retry {id} --publication {publication} --over-newer` publishes what was held back over what is newer"
    ))
}

fn nothing(contract: &DataProduct, context: &Context, mut notes: Vec<String>) -> PublishReport {
    if notes.is_empty() {
        notes.push("there are no quarantined rows to publish".to_owned());
    }
    PublishReport {
        format: REPORT_FORMAT,
        product: contract.id.to_string(),
        version: contract.version.to_string(),
        attempt: context.ids.attempt().to_string(),
        status: PublishStatus::Repeat,
        publication: None,
        because: Vec::new(),
        tables: Vec::new(),
        carried_forward: Vec::new(),
        transforms: Vec::new(),
        reaudits: 0,
        rollback_to: None,
        resolves: Vec::new(),
        notes,
    }
}

/// The table as the rows of a retry are judged and written: they are added to what serves, the breaker does not trip
/// on rows that were held back before, and a mask that was exported is no value.
pub(crate) fn retried(table: &Table) -> Table {
    let mut table = table.clone();
    if matches!(table.write, WriteMode::Replace | WriteMode::ReplacePartitions) {
        table.write = WriteMode::Append;
    }
    table.quarantine.percent = 100.0;
    for column in table.columns.iter_mut().filter(|column| column.is_protected()) {
        if matches!(column.data_type, datamesh_core::DataType::String) {
            let name = column.name.replace('"', "\"\"");
            table.conditions.push(datamesh_core::quality::RowCondition {
                name: format!("{} is not masked", column.name),
                condition: format!("\"{name}\" IS NULL OR \"{name}\" <> '***'"),
                description: None,
                dimension: None,
                filter: None,
            });
        }
    }
    table
}
