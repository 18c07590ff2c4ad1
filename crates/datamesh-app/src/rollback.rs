//! Rollback: a publication that brings back, for all tables of a product at once, what an earlier publication served.
//!
//! Only metadata is written. Nothing is undone: the publications in between stay recorded, and a rollback can itself be
//! rolled back.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::Action;
use datamesh_core::ids::AttemptId;
use datamesh_core::ports::{
    CatalogProduct, CommitOutcome, CommitRequest, Lease, Publication, PublicationStatus, PublishStep, Rollback,
    ServedTable, TableCommit, TablePointer,
};
use datamesh_core::verdict::TableReport;
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::lineage::lineage_as_of;
use crate::ports::{Context, Engine, Progress, RestoreJob};
use crate::publish::{LEASE, PublishReport, PublishStatus, REPORT_FORMAT, clean, keep_alive};

/// What to bring back.
#[derive(Clone, Debug)]
pub struct RollbackRequest {
    /// The product, in its newest major version; the publication may belong to another one.
    pub product: CatalogProduct,
    /// The publication whose tables are to serve again.
    pub to: u64,
    /// Check and report, and keep nothing.
    pub dry_run: bool,
}

/// One table's way back.
struct TableBack {
    table: Table,
    pointer: TablePointer,
    /// What it served then; `None` where it did not exist.
    served: Option<ServedTable>,
}

/// Everything that will be done: pure, from what the registry holds.
struct RollbackPlan {
    product: CatalogProduct,
    target: Publication,
    newest: u64,
    tables: Vec<TableBack>,
    repeat: bool,
}

impl RollbackPlan {
    async fn new(request: &RollbackRequest, context: &Context) -> Result<Self> {
        let (product, publications) = find_target(request, context).await?;
        let contract = &product.revision.contract;
        let target = publications.iter().find(|publication| publication.number == request.to);
        let Some(target) = target.cloned() else {
            return Err(Error::new(
                ErrorCode::NotFound,
                format!("`{}` has no publication {}", contract.id, request.to),
            )
            .with_help(format!("see `datamesh publications {}`", contract.id)));
        };
        if target.status == PublicationStatus::Rejected {
            let serving = publications.iter().find(|publication| {
                publication.number < request.to && publication.status == PublicationStatus::Published
            });
            let error = Error::new(
                ErrorCode::InvalidArgument,
                format!("attempt {} of `{}` was rejected, so it served nothing", request.to, contract.id),
            );
            return Err(match serving {
                Some(serving) => {
                    error.with_help(format!("publication {} served then: `--to {}`", serving.number, serving.number))
                }
                None => error.with_help("nothing was published before it"),
            });
        }
        let served = context.registry.served_tables(&product.key, request.to).await?;
        let rollbacks = context.registry.rollbacks(&product.key).await?;
        let newest = publications.iter().find(|publication| publication.status == PublicationStatus::Published);
        let newest = newest.map_or(request.to, |publication| publication.number);
        let repeat = brought_back(&rollbacks, newest) == brought_back(&rollbacks, request.to);
        let mut tables = Vec::new();
        for table in &contract.tables {
            let Some(pointer) = product.tables.iter().find(|pointer| pointer.table == table.name.sql()) else {
                continue;
            };
            let served = served.iter().find(|served| served.table == pointer.table).cloned();
            tables.push(TableBack { table: table.clone(), pointer: pointer.clone(), served });
        }
        Ok(Self { product, target, newest, tables, repeat })
    }

    fn contract(&self) -> &DataProduct {
        &self.product.revision.contract
    }

    /// Tables that the rollback changes: all but those that nobody wrote since.
    fn moving(&self) -> impl Iterator<Item = &TableBack> {
        self.tables.iter().filter(|back| {
            back.served.as_ref().map_or(back.pointer.rows > 0, |served| served.publication != back.pointer.publication)
        })
    }

    fn is_moving(&self, table: &str) -> bool {
        self.moving().any(|back| back.pointer.table == table)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let then = self.target.contract.as_ref();
        for back in self.moving() {
            let name = &back.table.name;
            let before = then.and_then(|contract| contract.table(name.as_str()));
            match (&back.served, before) {
                (None, _) => notes.push(format!("table `{name}` did not exist then: it is left without rows")),
                (Some(_), Some(before)) if !same_promises(before, &back.table) => notes.push(format!(
                    "table `{name}`: the contract changed since publication {}; its rows are not judged again",
                    self.target.number
                )),
                _ => {}
            }
        }
        notes
    }

    fn report(&self, attempt: &AttemptId, status: PublishStatus, publication: Option<u64>) -> PublishReport {
        let carried = self.tables.iter().map(|back| &back.pointer.table).filter(|table| !self.is_moving(table));
        PublishReport {
            format: REPORT_FORMAT,
            product: self.contract().id.to_string(),
            version: self.contract().version.to_string(),
            attempt: attempt.to_string(),
            status,
            publication,
            because: Vec::new(),
            tables: self.moving().map(report_table).collect(),
            carried_forward: carried.cloned().collect(),
            transforms: Vec::new(),
            reaudits: 0,
            rollback_to: Some(self.target.number),
            resolves: Vec::new(),
            notes: self.notes(),
        }
    }
}

/// The major version that the publication belongs to, with all its publications, newest first.
async fn find_target(request: &RollbackRequest, context: &Context) -> Result<(CatalogProduct, Vec<Publication>)> {
    let newest = &request.product;
    let mut majors: Vec<CatalogProduct> = context.registry.catalog().await?;
    majors.retain(|entry| entry.key.domain == newest.key.domain && entry.key.product == newest.key.product);
    majors.sort_by_key(|entry| std::cmp::Reverse(entry.key.major));
    for entry in &majors {
        let publications = context.registry.publications(&entry.key, u64::MAX).await?;
        if publications.iter().any(|publication| publication.number == request.to) {
            return Ok((entry.clone(), publications));
        }
    }
    Ok((newest.clone(), Vec::new()))
}

/// The publication whose tables `number` left: for a rollback the one it went back to.
fn brought_back(rollbacks: &[Rollback], number: u64) -> u64 {
    let mut number = number;
    while let Some(rollback) = rollbacks.iter().find(|rollback| rollback.publication == number) {
        number = rollback.target;
    }
    number
}

/// Whether two contracts of a table judge rows alike.
fn same_promises(a: &Table, b: &Table) -> bool {
    a.columns == b.columns
        && a.unique == b.unique
        && a.conditions == b.conditions
        && a.metrics == b.metrics
        && a.references == b.references
}

fn report_table(back: &TableBack) -> TableReport {
    TableReport {
        table: back.table.name.to_string(),
        write: back.table.write,
        rows_in: 0,
        published: 0,
        quarantined: 0,
        total_rows: back.served.as_ref().map_or(0, |served| served.total_rows),
        changes: None,
        bytes_read: 0,
        content: back.served.as_ref().map(|served| served.content.clone()).unwrap_or_default(),
        limit_percent: back.table.quarantine.percent,
        reasons: BTreeMap::new(),
        metrics: Vec::new(),
        pinned: Vec::new(),
        ignored_columns: Vec::new(),
        missing_columns: Vec::new(),
        missing_required: Vec::new(),
        repeat_of: None,
        watermark: None,
    }
}

/// Brings back what an earlier publication served. Ends early, cleanly, when `stop` does.
///
/// # Errors
/// `not-found` where the publication is none of the product's or its snapshots have expired, `incompatible-change` where
/// its rows do not fit the contract of now. A conflict with somebody else is an outcome.
pub async fn rollback<E: Engine>(
    request: RollbackRequest,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<PublishReport> {
    let plan = RollbackPlan::new(&request, context).await?;
    progress.reached(PublishStep::Planned);
    let attempt = AttemptId::new(context.ids.attempt());
    let details = json!({
        "operation": "rollback",
        "to": request.to,
        "attempt": attempt.as_str(),
        "dryRun": request.dry_run,
    });
    let decision = context.authorize_product(Action::Publish, plan.contract(), details).await?;
    progress.reached(PublishStep::Authorized);
    if plan.repeat {
        return Ok(plan.report(&attempt, PublishStatus::Repeat, Some(plan.newest)));
    }
    for back in plan.moving() {
        if let Some(served) = &back.served {
            let then = plan.target.contract.as_ref().and_then(|contract| contract.table(back.table.name.as_str()));
            engine.check_restore(&back.table, then, &back.pointer, served.snapshot_id).await?;
        }
    }
    if request.dry_run {
        return Ok(plan.report(&attempt, PublishStatus::WouldPublish, None));
    }
    let lease = Lease {
        attempt: attempt.clone(),
        product: plan.product.key.clone(),
        tables: plan.moving().map(|back| back.pointer.table.clone()).collect(),
        folders: plan.moving().filter_map(|back| back.pointer.folder().map(str::to_owned)).collect(),
        expires_at: context.clock.now() + LEASE,
    };
    context.registry.open_lease(&lease).await?;
    progress.reached(PublishStep::Leased);
    let recording = AtomicBool::new(false);
    let work = run(&plan, &attempt, decision, engine, context, &progress, &recording);
    let outcome = keep_alive(context, std::slice::from_ref(&attempt), work, stop).await;
    let keep = outcome.as_ref().map_or_else(|_| HashSet::new(), |(_, keep)| keep.clone());
    let failure = outcome.as_ref().err().map(Error::code);
    let recorded = failure.is_some() && recording.load(Ordering::SeqCst);
    clean(engine, context, &lease, keep, failure, recorded).await;
    progress.reached(PublishStep::Cleaned);
    outcome.map(|(report, _)| report)
}

async fn run<E: Engine>(
    plan: &RollbackPlan,
    attempt: &AttemptId,
    decision: u64,
    engine: &E,
    context: &Context,
    progress: &Arc<dyn Progress>,
    recording: &AtomicBool,
) -> Result<(PublishReport, HashSet<String>)> {
    let mut commits = Vec::new();
    let mut keep = HashSet::new();
    for back in plan.moving() {
        let between = || progress.reached(PublishStep::ManifestsWritten);
        let snapshot = back.served.as_ref().map(|served| served.snapshot_id);
        let job = RestoreJob { table: &back.table, pointer: &back.pointer, snapshot };
        let (now, snapshot) = (context.clock.now(), context.ids.snapshot());
        let prepared = engine.restore(job, attempt, now, snapshot, &between).await?;
        progress.reached(PublishStep::MetadataWritten);
        keep.extend(prepared.files);
        commits.push(TableCommit {
            table: back.pointer.table.clone(),
            write: back.table.write,
            expected: Some(back.pointer.metadata_location.clone()),
            metadata_location: prepared.metadata_location,
            metadata: prepared.metadata,
            snapshot_id: prepared.snapshot_id,
            content: back.served.as_ref().map(|served| served.content.clone()).unwrap_or_default(),
            rows_in: 0,
            published: 0,
            quarantined: 0,
            total_rows: prepared.total_rows,
            watermark: None,
        });
    }
    // What stays must still be what it was then, and no table may have come.
    let mut pinned = Vec::new();
    for table in &plan.contract().tables {
        let name = table.name.sql();
        if !plan.is_moving(&name) {
            let pointer = plan.tables.iter().find(|back| back.pointer.table == name);
            pinned.push((name, pointer.map(|back| back.pointer.metadata_location.clone())));
        }
    }
    let mut report = plan.report(attempt, PublishStatus::Published, None);
    let request = CommitRequest {
        attempt: attempt.clone(),
        product: plan.product.key.clone(),
        contract: plan.contract().clone(),
        expected_revision: plan.product.revision.number,
        principal: context.principal.id.clone(),
        at: context.clock.now(),
        idempotency_key: None,
        decision,
        lineage: lineage_as_of(context, plan.contract(), plan.target.number, &commits).await?,
        tables: commits,
        quarantine: Vec::new(),
        transforms: Vec::new(),
        report: serde_json::to_value(&report)
            .map_err(|error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error))?,
        rollback_to: Some(plan.target.number),
        pinned,
        resolves: Vec::new(),
    };
    recording.store(true, Ordering::SeqCst);
    match context.registry.commit(&request, progress.as_ref()).await? {
        CommitOutcome::Committed(publication) => {
            progress.reached(PublishStep::Committed);
            report.publication = Some(publication);
            Ok((report, keep))
        }
        CommitOutcome::Conflict => {
            report.status = PublishStatus::Conflict;
            report
                .because
                .push("somebody else published meanwhile, and a rollback would undo what it has not seen".to_owned());
            Ok((report, HashSet::new()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_of_a_rollback_is_followed_to_its_end() {
        let back = |publication, target| Rollback { publication, target };
        let rollbacks = [back(6, 4), back(4, 2)];
        assert_eq!([2, 3, 4, 5, 6].map(|number| brought_back(&rollbacks, number)), [2, 3, 2, 5, 2]);
    }
}
