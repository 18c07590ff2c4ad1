//! Run: makes a product's tables of other products. Every input is pinned in one read of the registry; what is made goes
//! through the same audit and commit as published data.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datamesh_core::contract::{DataProduct, Table, WriteMode};
use datamesh_core::decision::Action;
use datamesh_core::ids::AttemptId;
use datamesh_core::ports::{CatalogProduct, ProductState, TablePointer};
use datamesh_core::transform::{InputPin, ProductInput, TableRead, TransformRun, TransformSpec};
use datamesh_core::{Error, ErrorCode, Name, Result};
use serde_json::json;

use crate::govern::Reader;
use crate::ports::{Context, Engine, PinnedTable, Progress, Sight, StageInput, TableKey, TransformInput};
use crate::publish::{PublishReport, PublishRequest, PublishStatus, REPORT_FORMAT, publish, repeated};
use crate::read::tables;
use crate::references;

/// How often a run that met somebody else's publication is planned anew.
const MAX_RETRIES: usize = 5;

/// What to run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The contract, from the folder's manifest.
    pub contract: DataProduct,
    /// The data of tables that have a source, by table name; read in the same publication.
    pub sources: BTreeMap<String, StageInput>,
    /// Run even if the same inputs were read before.
    pub again: bool,
    /// Read the whole of every input, and replace what incremental tables hold.
    pub full_refresh: bool,
    /// Stop after the verdict and keep nothing.
    pub dry_run: bool,
    /// Names this publication; a second one with the same key is a repeat.
    pub idempotency_key: Option<String>,
}

impl RunRequest {
    /// What to publish, once the inputs are pinned.
    fn publishing(&self, inputs: BTreeMap<String, StageInput>) -> PublishRequest {
        PublishRequest {
            contract: self.contract.clone(),
            inputs,
            again: self.again,
            full: self.full_refresh,
            idempotency_key: self.idempotency_key.clone(),
            dry_run: self.dry_run,
            resolves: Vec::new(),
        }
    }
}

/// Runs a product's transforms and publishes what they make, with the tables that have sources.
///
/// # Errors
/// Inputs that are not published or not declared, queries that fail, and what [`publish`] fails with.
pub async fn run<E: Engine>(
    request: RunRequest,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()> + Clone,
) -> Result<PublishReport> {
    // One time for the whole run: every `now()` of every query is the same.
    let now = context.clock.now();
    let mut tries = 0;
    loop {
        let last_try = tries == MAX_RETRIES;
        tries += 1;
        let mut planned = plan(&request, engine, context, now).await?;
        if planned.inputs.is_empty() && !planned.repeats.is_empty() {
            return repeat(&request, context, &planned).await;
        }
        authorize(&request, context, &mut planned).await?;
        let publishing = request.publishing(planned.inputs);
        // A transform is a function of its inputs: where somebody else published first, it is planned over what there is
        // now, which undoes nothing that it has not seen.
        match publish(publishing, engine, context, progress.clone(), stop.clone()).await {
            Ok(report) if report.status == PublishStatus::Conflict && !last_try => {}
            Err(error) if error.code() == ErrorCode::Conflict && !last_try => {}
            outcome => return outcome,
        }
    }
}

/// Says what a run would publish, hold back and refuse, with the product's state; everything is made in `scratch`, and
/// nothing else is touched.
///
/// # Errors
/// What [`run`] fails with.
pub async fn rehearse<E: Engine>(
    request: RunRequest,
    scratch: PathBuf,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<(PublishReport, ProductState)> {
    let mut planned = plan(&request, engine, context, context.clock.now()).await?;
    if planned.inputs.is_empty() && !planned.repeats.is_empty() {
        let report = repeat(&request, context, &planned).await?;
        return Ok((report, context.registry.product_state(&request.contract.key()).await?));
    }
    authorize(&request, context, &mut planned).await?;
    crate::publish::rehearse(request.publishing(planned.inputs), scratch, engine, context, progress, stop).await
}

/// What a run will read.
struct Planned {
    inputs: BTreeMap<String, StageInput>,
    /// Tables whose query would read the same rows as the publication that made them.
    repeats: Vec<(Table, TablePointer, TransformRun)>,
    /// The catalog that they were pinned in.
    catalog: Vec<CatalogProduct>,
}

async fn plan<E: Engine>(request: &RunRequest, engine: &E, context: &Context, now: DateTime<Utc>) -> Result<Planned> {
    let contract = &request.contract;
    // The pointers are read before the last runs: were somebody to publish in between, the pointer would be the older one,
    // which the publish notices.
    let catalog = context.registry.catalog().await?;
    let last = context.registry.last_transforms(&contract.key()).await?;
    let own = catalog.iter().find(|product| product.key == contract.key());
    let mut planned = Planned { inputs: request.sources.clone(), repeats: Vec::new(), catalog: Vec::new() };
    let mut repeats: Vec<(&Table, &TablePointer, TransformInput)> = Vec::new();
    for table in &contract.tables {
        let Some(transform) = &table.transform else { continue };
        let base = own.and_then(|own| own.tables.iter().find(|pointer| pointer.table == table.name.sql()));
        let earlier = last.iter().find(|(_, run)| run.table == table.name.sql());
        let input = pin(request, engine, &catalog, table, transform, earlier.map(|(_, run)| run), base, now)?;
        let repeated = earlier.zip(base).filter(|((publication, earlier), base)| {
            let unchanged = own.is_some_and(|own| own.revision.contract == *contract);
            // A replaced table holds what its last run made only where nobody published into it since.
            let intact = table.write == WriteMode::Append || (base.publication == *publication && unchanged);
            let by_hand = request.again || request.full_refresh || request.idempotency_key.is_some();
            earlier.is_same(&input.run) && intact && !by_hand
        });
        match repeated {
            Some((_, base)) => repeats.push((table, base, input)),
            None => {
                planned.inputs.insert(table.name.to_string(), StageInput::Query(Box::new(input)));
            }
        }
    }
    // Over other tables of its product the same rows may be judged otherwise.
    let runs = |table: &Table, inputs: &BTreeMap<String, StageInput>| {
        contract.tables.iter().any(|other| {
            matches!(inputs.get(other.name.as_str()), Some(StageInput::Query(_)))
                && references::names(table, &other.name)
        })
    };
    let again = |(table, ..): &(&Table, &TablePointer, TransformInput), inputs: &BTreeMap<String, StageInput>| {
        table.write == WriteMode::Replace && runs(table, inputs)
    };
    while let Some(at) = repeats.iter().position(|repeat| again(repeat, &planned.inputs)) {
        let (table, _, input) = repeats.remove(at);
        planned.inputs.insert(table.name.to_string(), StageInput::Query(Box::new(input)));
    }
    let repeats = repeats.into_iter().map(|(table, base, input)| (table.clone(), base.clone(), input.run));
    planned.repeats = repeats.collect();
    planned.catalog = catalog;
    Ok(planned)
}

#[expect(clippy::too_many_arguments, reason = "what a table's input depends on, read at one moment")]
fn pin<E: Engine>(
    request: &RunRequest,
    engine: &E,
    catalog: &[CatalogProduct],
    table: &Table,
    transform: &TransformSpec,
    earlier: Option<&TransformRun>,
    base: Option<&TablePointer>,
    now: DateTime<Utc>,
) -> Result<TransformInput> {
    let contract = &request.contract;
    let reads = engine.transform_reads(transform).map_err(|error| within(table, &error))?;
    let mut tables: Vec<PinnedTable> = Vec::new();
    for read in reads.tables {
        let input = declared(contract, &read).map_err(|error| within(table, &error))?;
        let product = choose(catalog, input).map_err(|error| within(table, &error))?;
        let pointer = published(product, &read).map_err(|error| within(table, &error))?;
        let snapshot_id = engine
            .snapshot(pointer)?
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("`{read}` has no snapshot that could be read")))?;
        let mut pin = InputPin {
            product: product.key.clone(),
            version: product.revision.contract.version.clone(),
            table: read.table.clone(),
            publication: pointer.publication,
            snapshot_id,
            changes: read.changes,
            since: None,
        };
        if read.changes {
            appends(product, &read, table, request.full_refresh).map_err(|error| within(table, &error))?;
            if !request.full_refresh && base.is_some() {
                pin.since = since(earlier, &pin).map_err(|error| within(table, &error))?;
            }
        }
        tables.push(PinnedTable { pin, pointer: pointer.clone(), sight: Sight::plain() });
    }
    Ok(TransformInput {
        transform: transform.clone(),
        run: TransformRun {
            table: table.name.sql(),
            sql_hash: reads.hash,
            inputs: tables.iter().map(|table| table.pin.clone()).collect(),
        },
        tables,
        base: base.map(|pointer| pointer.metadata_location.clone()),
        full_refresh: request.full_refresh,
        now,
        decided: None,
    })
}

fn within(table: &Table, error: &Error) -> Error {
    let new = Error::new(error.code(), format!("table `{}`: {error}", table.name));
    match error.help() {
        Some(help) => new.with_help(help),
        None => new,
    }
}

/// The entry of `inputs` that allows reading a table.
///
/// # Errors
/// `invalid-manifest`, naming the entry that is missing.
pub fn declared<'c>(contract: &'c DataProduct, read: &TableRead) -> Result<&'c ProductInput> {
    if let Some(input) = contract.inputs.iter().find(|input| input.is_named(&read.domain, &read.product)) {
        return Ok(input);
    }
    let unversioned = read.product.rsplit_once("_v").filter(|(_, digits)| digits.parse::<u64>().is_ok());
    if let Some((bare, _)) = unversioned
        && contract.inputs.iter().any(|input| input.is_named(&read.domain, bare))
    {
        return Err(Error::new(
            ErrorCode::InvalidManifest,
            format!("the transform reads `{read}` by its major version"),
        )
        .with_help(format!(
            "write `{}.{bare}.{}`: the range in `inputs:` chooses the version",
            read.domain, read.table
        )));
    }
    if contract.id.domain.sql() == read.domain && contract.id.product.sql() == read.product {
        return Err(Error::new(
            ErrorCode::InvalidManifest,
            format!("the transform reads `{read}`, a table of its own product"),
        )
        .with_help("a transform reads inputs only; repeat the other table's query as a common table expression"));
    }
    let id = format!("{}/{}", read.domain, read.product);
    Err(Error::new(
        ErrorCode::InvalidManifest,
        format!("the transform reads `{read}`, but `inputs:` does not name `{id}`"),
    )
    .with_help(format!("add `{id}` to `inputs:`, or `{id}@^1` to stay within a major version")))
}

/// The published major version that an input means: an active one before a draft, then the newest.
fn choose<'c>(catalog: &'c [CatalogProduct], input: &ProductInput) -> Result<&'c CatalogProduct> {
    let named: Vec<&CatalogProduct> = catalog
        .iter()
        .filter(|product| input.names(&product.revision.contract.id) && !product.tables.is_empty())
        .collect();
    let best = input.choose(named.iter().map(|product| &product.revision.contract));
    if let Some(found) = best.and_then(|best| named.iter().find(|product| product.key == best.key())) {
        return Ok(found);
    }
    if named.is_empty() {
        return Err(Error::new(ErrorCode::NotFound, format!("its input `{}` is not published", input.product))
            .with_help(format!(
                "`datamesh run {}` or `datamesh publish {}` first, or add `--upstream`",
                input.product, input.product
            )));
    }
    let versions: Vec<String> = named.iter().map(|product| product.revision.contract.version.to_string()).collect();
    Err(Error::new(ErrorCode::NotFound, format!("no published version of its input is within `{input}`"))
        .with_help(format!("published: {}", versions.join(", "))))
}

fn published<'c>(product: &'c CatalogProduct, read: &TableRead) -> Result<&'c TablePointer> {
    let sql = |name: &str| Name::new(name).map_or_else(|_| name.to_owned(), |name| name.sql());
    if let Some(pointer) = product.tables.iter().find(|pointer| sql(&pointer.table) == read.table) {
        return Ok(pointer);
    }
    let id = &product.revision.contract.id;
    if product.revision.contract.table(&read.table).is_some() {
        return Err(Error::new(
            ErrorCode::NotFound,
            format!("table `{}` of its input `{id}` is not published", read.table),
        )
        .with_help(format!("publish it first: `datamesh publish {id} {}=FILE`", read.table)));
    }
    let names: Vec<String> = product.tables.iter().map(|pointer| sql(&pointer.table)).collect();
    Err(Error::new(ErrorCode::NotFound, format!("its input `{id}` has no table `{}`", read.table))
        .with_help(format!("its tables: {}", names.join(", "))))
}

/// Refuses to read changes where rows can go away.
fn appends(product: &CatalogProduct, read: &TableRead, table: &Table, full_refresh: bool) -> Result<()> {
    let mode = product.revision.contract.table(&read.table).map_or(WriteMode::Append, |table| table.write);
    if mode != WriteMode::Append {
        return Err(Error::new(
            ErrorCode::InvalidManifest,
            format!("`{{changes({read})}}` needs an input that only grows, but the table's write is {}", mode.as_str()),
        )
        .with_help(format!("read the whole table as `{read}`")));
    }
    if matches!(table.write, WriteMode::Replace | WriteMode::ReplacePartitions) && !full_refresh {
        return Err(Error::new(
            ErrorCode::InvalidManifest,
            format!("`{{changes({read})}}` reads new rows only, but each run replaces the table's rows"),
        )
        .with_help("add `write: append`, or read the whole table"));
    }
    Ok(())
}

/// The snapshot after which rows are new.
fn since(earlier: Option<&TransformRun>, pin: &InputPin) -> Result<Option<i64>> {
    let Some(earlier) = earlier else { return Ok(None) };
    let same = |other: &&InputPin| {
        other.product.domain == pin.product.domain
            && other.product.product == pin.product.product
            && other.table == pin.table
    };
    let Some(last) = earlier.inputs.iter().find(same) else { return Ok(None) };
    if last.product.major != pin.product.major {
        return Err(Error::new(
            ErrorCode::IncompatibleChange,
            format!(
                "`{}` was read in major version {} and is now read in {}: what is new in it cannot be told",
                pin.table, last.product.major, pin.product.major
            ),
        )
        .with_help("run once with `--full-refresh`, which reads everything and replaces the table's rows"));
    }
    Ok(Some(last.snapshot_id))
}

/// Decides what the product's domain sees of what its transforms read, and binds it to them.
async fn authorize(request: &RunRequest, context: &Context, planned: &mut Planned) -> Result<()> {
    let Planned { inputs, catalog, .. } = planned;
    let mut keys: BTreeSet<TableKey> = BTreeSet::new();
    for input in inputs.values() {
        if let StageInput::Query(input) = input {
            keys.extend(input.tables.iter().map(|table| (table.pin.product.clone(), table.pin.table.clone())));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let own = catalog.iter().find(|product| product.key == request.contract.key());
    context.authorize_first(&request.contract, own.map(|own| &own.revision.contract)).await?;
    let read = tables(catalog, &keys);
    let details = json!({ "operation": "run", "product": request.contract.id.to_string(), "dryRun": request.dry_run });
    let reading = context.read_tables(Reader::Product(&request.contract), catalog, &read, details).await?;
    for input in inputs.values_mut() {
        let StageInput::Query(input) = input else { continue };
        input.decided = Some(reading.decided());
        for table in &mut input.tables {
            let own = read
                .iter()
                .find(|read| read.product.key == table.pin.product && read.table.name.sql() == table.pin.table);
            let missing = || Error::new(ErrorCode::NotFound, format!("`{}` has no contract", table.pin.table));
            let contract = own.ok_or_else(missing)?.table.clone();
            table.sight = Sight::new(reading.access(&table.pin.product, &table.pin.table), contract);
        }
    }
    Ok(())
}

async fn repeat(request: &RunRequest, context: &Context, planned: &Planned) -> Result<PublishReport> {
    let contract = &request.contract;
    let attempt = AttemptId::new(context.ids.attempt());
    let publication = planned.repeats.iter().map(|(_, pointer, _)| pointer.publication).max();
    let details = json!({ "attempt": attempt.as_str(), "operation": "run", "repeatOf": publication });
    context.authorize_product(Action::Publish, contract, details).await?;
    let tables = planned
        .repeats
        .iter()
        .map(|(table, pointer, _)| repeated(table, Some(pointer.publication), pointer.content.clone(), pointer.rows));
    Ok(PublishReport {
        format: REPORT_FORMAT,
        product: contract.id.to_string(),
        version: contract.version.to_string(),
        attempt: attempt.to_string(),
        status: PublishStatus::Repeat,
        publication,
        because: Vec::new(),
        tables: tables.collect(),
        carried_forward: Vec::new(),
        transforms: planned.repeats.iter().map(|(_, _, run)| run.clone()).collect(),
        reaudits: 0,
        rollback_to: None,
        resolves: Vec::new(),
        notes: Vec::new(),
    })
}
