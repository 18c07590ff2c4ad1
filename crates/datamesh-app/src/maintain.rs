//! Looking after a mesh, safely beside running readers and writers: what crashed attempts left behind is removed, small
//! data files are merged, old snapshots expire, and files that nothing references are deleted once nobody can be reading
//! them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use datamesh_core::contract::Table;
use datamesh_core::decision::Action;
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::ports::{CatalogProduct, Lease, MaintenanceCommit, PublishStep, TablePointer};
use datamesh_core::{ErrorCode, Result};
use serde::Serialize;
use serde_json::json;

use crate::ports::{Context, Engine, MaintainJob, Progress};
use crate::publish::{LEASE, clean, keep_alive};

/// How often a table's maintenance is tried again when somebody publishes in between.
const MAX_RETRIES: usize = 5;
/// How long a file must have been without a reference before it is deleted, unless told otherwise.
pub const DEFAULT_AGE: Duration = Duration::hours(24);
/// Bytes that a compacted data file should have, unless told otherwise.
pub const DEFAULT_TARGET_BYTES: u64 = 256 << 20;

/// How long the outbox keeps its entries for a consumer that does not come.
const OUTBOX_AGE: Duration = Duration::days(30);

/// What to do.
#[derive(Clone, Debug)]
pub struct MaintainRequest {
    /// Only this product; `None`: every one.
    pub product: Option<ProductKey>,
    /// Merge small data files.
    pub compact: bool,
    /// Expire snapshots that are older than the contract's retention.
    pub expire: bool,
    /// Delete files that nothing references.
    pub delete: bool,
    /// Bytes that a compacted data file should have.
    pub target_bytes: u64,
    /// How long a file must have been without a reference before it is deleted: longer than the longest query.
    pub age: Duration,
    /// Report what would be done, and do nothing.
    pub dry_run: bool,
}

/// What was done to one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableMaintenance {
    /// `domain.product_v1.table`.
    pub table: String,
    /// Data files that were merged.
    pub compacted_files: usize,
    /// Data files that they became.
    pub into_files: usize,
    /// Snapshots that expired.
    pub expired_snapshots: usize,
    /// Files that are no longer referenced; they are deleted when they are old enough.
    pub unreferenced_files: usize,
    /// Why the table was left as it is, where something stood in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Whether that was a failure, and not just somebody else's change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl TableMaintenance {
    /// Whether anything was done, or could not be.
    pub fn is_empty(&self) -> bool {
        self.compacted_files == 0
            && self.expired_snapshots == 0
            && self.unreferenced_files == 0
            && self.skipped.is_none()
    }
}

/// What `maintain` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintainReport {
    /// Whether nothing was changed: the counts say what would be done.
    pub dry_run: bool,
    /// Attempts whose leases had expired.
    pub expired_attempts: Vec<String>,
    /// Tables that were changed, or could not be.
    pub tables: Vec<TableMaintenance>,
    /// Files deleted.
    pub deleted_files: u64,
    /// Files that are no longer referenced, but not yet old enough to be deleted.
    pub waiting_files: usize,
    /// Entries of the outbox that were deleted since nobody needs them any more.
    pub outbox_entries: u64,
}

/// Looks after the mesh. Ends early, cleanly, when `stop` does.
pub async fn maintain<E: Engine>(
    request: &MaintainRequest,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<MaintainReport> {
    let details = json!({
        "operation": "maintain",
        "product": request.product.as_ref().map(ToString::to_string),
        "compact": request.compact,
        "expire": request.expire,
        "delete": request.delete,
        "dryRun": request.dry_run,
    });
    context.authorize_mesh(Action::Administer, details).await?;
    tokio::pin!(stop);
    let mut report = MaintainReport { dry_run: request.dry_run, ..MaintainReport::default() };
    if !request.dry_run {
        for lease in context.registry.claim_expired_leases(context.clock.now()).await? {
            let keep = referenced(engine, context, &lease).await?;
            report.deleted_files += engine.reclaim(&lease, &keep).await?;
            context.registry.close_lease(&lease.attempt).await?;
            report.expired_attempts.push(lease.attempt.to_string());
        }
    }
    let wanted = |entry: &CatalogProduct| request.product.as_ref().is_none_or(|product| *product == entry.key);
    let catalog = context.registry.catalog().await?;
    let pinned = if request.expire { pinned(context, &catalog).await? } else { HashMap::new() };
    let products: Vec<CatalogProduct> = catalog.iter().filter(|entry| wanted(entry)).cloned().collect();
    for product in &products {
        for table in &product.revision.contract.tables {
            let Some(pointer) = product.tables.iter().find(|pointer| pointer.table == table.name.sql()) else {
                continue;
            };
            let expire_before = product
                .revision
                .contract
                .retention()
                .filter(|_| request.expire)
                .map(|period| period.before(context.clock.now()));
            let pinned = pinned.get(&(product.key.clone(), table.name.sql())).cloned().unwrap_or_default();
            let one = Tending { request, product: &product.key, table, expire_before, pinned };
            let done = one.tend(engine, context, pointer, &progress, &mut stop).await?;
            if !done.is_empty() {
                report.tables.push(done);
            }
        }
    }
    if request.delete {
        delete(request, engine, context, &products, &catalog, &mut report).await?;
        if !request.dry_run && request.product.is_none() {
            report.outbox_entries = context.registry.trim_outbox(context.clock.now() - OUTBOX_AGE).await?;
        }
    }
    Ok(report)
}

/// One table's turn.
struct Tending<'a> {
    request: &'a MaintainRequest,
    product: &'a ProductKey,
    table: &'a Table,
    expire_before: Option<DateTime<Utc>>,
    pinned: Vec<i64>,
}

/// The snapshots of each table where the next increments of other products begin.
async fn pinned(context: &Context, catalog: &[CatalogProduct]) -> Result<HashMap<(ProductKey, String), Vec<i64>>> {
    let mut pinned: HashMap<(ProductKey, String), Vec<i64>> = HashMap::new();
    for consumer in catalog.iter().filter(|entry| !entry.revision.contract.inputs.is_empty()) {
        for (_, run) in context.registry.last_transforms(&consumer.key).await? {
            for pin in run.inputs.into_iter().filter(|pin| pin.changes) {
                pinned.entry((pin.product, pin.table)).or_default().push(pin.snapshot_id);
            }
        }
    }
    Ok(pinned)
}

impl Tending<'_> {
    async fn tend<E: Engine>(
        &self,
        engine: &E,
        context: &Context,
        pointer: &TablePointer,
        progress: &Arc<dyn Progress>,
        stop: impl Future<Output = ()>,
    ) -> Result<TableMaintenance> {
        let name = format!("{}.{}.{}", self.product.domain, self.product.namespace(), pointer.table);
        let mut done = TableMaintenance { table: name, ..TableMaintenance::default() };
        let attempt = AttemptId::new(context.ids.attempt());
        let job = MaintainJob {
            product: self.product.clone(),
            table: self.table.clone(),
            attempt: attempt.clone(),
            target_bytes: self.request.compact.then_some(self.request.target_bytes),
            expire_before: self.expire_before,
            pinned: self.pinned.clone(),
        };
        let planned = engine.plan_maintenance(&job, pointer).await?;
        done.compacted_files = planned.compacted_files;
        done.expired_snapshots = planned.expired_snapshots;
        if planned.is_empty() || self.request.dry_run {
            return Ok(done);
        }
        let lease = Lease {
            attempt: attempt.clone(),
            product: self.product.clone(),
            tables: vec![pointer.table.clone()],
            folders: pointer.folder().map(str::to_owned).into_iter().collect(),
            expires_at: context.clock.now() + LEASE,
        };
        context.registry.open_lease(&lease).await?;
        progress.reached(PublishStep::Leased);
        let recording = std::sync::atomic::AtomicBool::new(false);
        let work = self.commit(engine, context, &job, progress, &recording);
        let outcome = keep_alive(context, std::slice::from_ref(&attempt), work, stop).await;
        let keep = outcome.as_ref().map(|(_, keep)| keep.clone()).unwrap_or_default();
        let failure = outcome.as_ref().err().map(datamesh_core::Error::code);
        let recorded = failure.is_some() && recording.load(std::sync::atomic::Ordering::SeqCst);
        clean(engine, context, &lease, keep, failure, recorded).await;
        progress.reached(PublishStep::Cleaned);
        match outcome {
            Ok((result, _)) => Ok(TableMaintenance { table: done.table, ..result }),
            // One table's trouble is told, and the others have their turn.
            Err(error) if error.code() != ErrorCode::Interrupted => {
                done.skipped = Some(error.to_string());
                done.failed = error.code() != ErrorCode::Conflict;
                (done.compacted_files, done.expired_snapshots) = (0, 0);
                Ok(done)
            }
            Err(error) => Err(error),
        }
    }

    /// Stages the merged files, then commits, again where somebody publishes in between.
    async fn commit<E: Engine>(
        &self,
        engine: &E,
        context: &Context,
        job: &MaintainJob,
        progress: &Arc<dyn Progress>,
        recording: &std::sync::atomic::AtomicBool,
    ) -> Result<(TableMaintenance, HashSet<String>)> {
        let mut done = TableMaintenance::default();
        let table = self.table.name.sql();
        let mut compacted: Option<E::Compacted> = None;
        for retry in 0..=MAX_RETRIES {
            let state = context.registry.product_state(self.product).await?;
            let Some(pointer) = state.table(&table) else { break };
            if retry == 0 {
                compacted = engine.compact(job, pointer).await?;
                progress.reached(PublishStep::Staged);
            }
            let now = context.clock.now();
            let between = || progress.reached(PublishStep::ManifestsWritten);
            let prepared = engine
                .prepare_maintenance(job, pointer, compacted.as_ref(), now, context.ids.snapshot(), &between)
                .await?;
            let Some(prepared) = prepared else { break };
            progress.reached(PublishStep::MetadataWritten);
            let commit = MaintenanceCommit {
                attempt: job.attempt.clone(),
                product: self.product.clone(),
                table: table.clone(),
                expected: pointer.metadata_location.clone(),
                metadata_location: prepared.metadata_location,
                metadata: prepared.metadata,
                at: now,
                unreferenced: prepared.unreferenced.clone(),
            };
            recording.store(true, std::sync::atomic::Ordering::SeqCst);
            if context.registry.commit_maintenance(&commit).await? {
                progress.reached(PublishStep::Committed);
                done.compacted_files = prepared.compacted_files;
                done.into_files = prepared.into_files;
                done.expired_snapshots = prepared.expired_snapshots;
                done.unreferenced_files = prepared.unreferenced.len();
                return Ok((done, prepared.files.into_iter().collect()));
            }
        }
        done.skipped =
            Some("others changed the table while it was looked after; it is left for the next time".to_owned());
        Ok((done, HashSet::new()))
    }
}

/// Deletes what has been without a reference for long enough: files that were replaced, and files that nobody knows of.
async fn delete<E: Engine>(
    request: &MaintainRequest,
    engine: &E,
    context: &Context,
    products: &[CatalogProduct],
    catalog: &[CatalogProduct],
    report: &mut MaintainReport,
) -> Result<()> {
    let now = context.clock.now();
    let before = now - request.age;
    // INVARIANT: leases are read before the pointers, and files are listed after both. An attempt that commits in between
    // held its lease then, and one that begins in between has files that are younger than `before`.
    let leases = context.registry.leases().await?;
    let mut by_product: BTreeMap<&ProductKey, HashSet<String>> = BTreeMap::new();
    for product in products {
        let state = context.registry.product_state(&product.key).await?;
        let mut keep = HashSet::new();
        for pointer in &state.tables {
            keep.extend(engine.referenced(pointer).await?);
        }
        by_product.insert(&product.key, keep);
    }
    let mut waiting: HashSet<String> = HashSet::new();
    let mut gone = Vec::new();
    for file in context.registry.unreferenced_files(now).await? {
        if by_product.contains_key(&file.product) {
            waiting.insert(file.path);
        }
    }
    for file in context.registry.unreferenced_files(before).await? {
        let Some(keep) = by_product.get(&file.product) else { continue };
        // What came back, by a rollback say, stays.
        if !keep.contains(&file.path) {
            gone.push(file.path);
        }
    }
    let mut orphans = Vec::new();
    for product in products {
        let Some(keep) = by_product.get(&product.key) else { continue };
        let names: Vec<String> = product.tables.iter().map(|pointer| pointer.table.clone()).collect();
        let known: HashSet<String> = context.registry.known_files(&product.key).await?.into_iter().collect();
        // A product that moved has its files where another product of its former name would have its own.
        let others = catalog.iter().filter(|other| other.key != product.key).flat_map(|other| &other.tables);
        let foreign: Vec<String> = others.filter_map(|pointer| Some(format!("{}/", pointer.folder()?))).collect();
        for file in engine.product_files(&product.key, &names).await? {
            let leased = leases.iter().any(|lease| file.url.contains(lease.attempt.as_str()));
            let is_foreign = foreign.iter().any(|folder| file.url.starts_with(folder));
            if file.modified < before
                && !leased
                && !is_foreign
                && !keep.contains(&file.url)
                && !known.contains(&file.url)
            {
                orphans.push(file.url);
            }
        }
    }
    report.waiting_files = waiting.len() - gone.iter().filter(|path| waiting.contains(*path)).count();
    if request.dry_run {
        report.deleted_files = (gone.len() + orphans.len()) as u64;
        return Ok(());
    }
    report.deleted_files += engine.delete_files(gone.clone()).await?;
    context.registry.forget_unreferenced(&gone).await?;
    report.deleted_files += engine.delete_files(orphans).await?;
    Ok(())
}

/// Every file of the lease's product that a table or a recorded quarantine references.
pub(crate) async fn referenced<E: Engine>(engine: &E, context: &Context, lease: &Lease) -> Result<HashSet<String>> {
    let mut keep: HashSet<String> = context.registry.attempt_quarantine(&lease.attempt).await?.into_iter().collect();
    let state = context.registry.product_state(&lease.product).await?;
    for pointer in state.tables.iter().filter(|pointer| lease.tables.contains(&pointer.table)) {
        keep.extend(engine.referenced(pointer).await?);
    }
    Ok(keep)
}
