//! Publish, DESIGN's main verb: plan, authorize, audit and stage, verdict, commit. Each stage is a type whose only
//! constructor is the stage before, so that skipping one does not compile.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datamesh_core::contract::{DataProduct, Lifecycle, Table, WriteMode};
use datamesh_core::decision::Action;
use datamesh_core::evolution::compare;
use datamesh_core::ids::{AttemptId, ProductId, ProductKey};
use datamesh_core::lineage::{ColumnLineage, TableLineage};
use datamesh_core::ports::{
    CommitOutcome, CommitRequest, Lease, ProductState, PublicationStatus, PublishStep, QuarantineResolution,
    TableCommit, TablePointer, newest_effective,
};
use datamesh_core::quality::{RULE_CONDITION, RULE_RECORD};
use datamesh_core::rehearsal::judged_columns;
use datamesh_core::transform::TransformRun;
use datamesh_core::verdict::{TableReport, Verdict, judge};
use datamesh_core::watermark::{self, Watermark, WatermarkReport};
use datamesh_core::{Error, ErrorCode, Name, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::govern::Resource;
use crate::lineage::{newest_major, source_lineage};
use crate::ports::{CarriedTable, Context, Engine, PinnedInput, Progress, Pull, Rehearsal, StageInput, StageJob};
use crate::references;

/// How long a lease lasts when it is not renewed.
pub(crate) const LEASE: chrono::Duration = chrono::Duration::hours(1);
/// How often a running publish renews it.
const RENEWAL: Duration = Duration::from_secs(300);
/// How often an append is settled anew against a winner before it gives up.
const MAX_RETRIES: usize = 10;
/// Version of [`PublishReport`]'s serialised form.
pub const REPORT_FORMAT: u32 = 1;

/// What to publish.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// The contract, from the folder's manifest.
    pub contract: DataProduct,
    /// The data of each table that gets new input, by table name.
    pub inputs: BTreeMap<String, StageInput>,
    /// Publish even if the content was published before.
    pub again: bool,
    /// Read everything again, whatever a watermark says.
    pub full: bool,
    /// Names this publication; a second one with the same key is a repeat.
    pub idempotency_key: Option<String>,
    /// Stop after the verdict and keep nothing.
    pub dry_run: bool,
    /// Quarantined rows that the inputs are, or take the place of.
    pub resolves: Vec<QuarantineResolution>,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishStatus {
    /// Committed: it serves now.
    Published,
    /// The same content serves already: nothing was changed.
    Repeat,
    /// Rejected by the audit: the last good publication still serves.
    Rejected,
    /// Somebody else published first, and a replace must not overwrite what it has not seen.
    Conflict,
    /// A dry run that would publish.
    WouldPublish,
    /// A dry run that would be rejected.
    WouldReject,
}

/// The report of an attempt, kept with its publication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishReport {
    /// Version of this form, [`REPORT_FORMAT`].
    pub format: u32,
    /// `domain/product`.
    pub product: String,
    /// The contract's version.
    pub version: String,
    /// The attempt.
    pub attempt: String,
    /// What became of it.
    pub status: PublishStatus,
    /// The publication's number, where it was recorded; of the earlier one for a repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication: Option<u64>,
    /// Why it was rejected, or what stood in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The tables with new input; and those without where a rule of theirs fails on what others would become.
    pub tables: Vec<TableReport>,
    /// The tables without new input, which stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_forward: Vec<String>,
    /// How tables were made of other products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<TransformRun>,
    /// How often the audit was repeated because somebody else published in between.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reaudits: usize,
    /// The publication whose tables this one brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
    /// The quarantined rows that were judged again, or replaced by mended ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolves: Vec<QuarantineResolution>,
    /// What is worth knowing beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What will be done: pure, from the request and what the registry holds.
#[derive(Debug)]
pub struct Plan {
    request: PublishRequest,
    key: ProductKey,
    state: ProductState,
}

impl Plan {
    /// Plans a publish.
    ///
    /// # Errors
    /// Sources for tables that the contract does not have, no source at all, published tables that the contract drops.
    pub fn new(request: PublishRequest, state: ProductState) -> Result<Self> {
        let contract = &request.contract;
        for name in request.inputs.keys() {
            if contract.table(name).is_none() {
                let names: Vec<_> = contract.tables.iter().map(|table| table.name.as_str()).collect();
                return Err(Error::new(ErrorCode::InvalidArgument, format!("`{}` has no table `{name}`", contract.id))
                    .with_help(format!("its tables: {}", names.join(", "))));
            }
        }
        if request.inputs.is_empty() {
            if contract.tables.iter().any(|table| table.transform.is_some()) {
                let message = format!("`{}` is made of other products, not of data from outside", contract.id);
                return Err(Error::new(ErrorCode::InvalidArgument, message)
                    .with_help(format!("`datamesh run {}` runs its transforms", contract.id)));
            }
            let first = contract.tables.first().map_or("table", |table| table.name.as_str());
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("nothing says where the data of `{}` comes from", contract.id),
            )
            .with_help(format!(
                "add `source:` to a table of the manifest, or name files: `datamesh publish {} {first}=FILE`",
                contract.id
            )));
        }
        if let Some(gone) = state.tables.iter().find(|pointer| contract.table(&pointer.table).is_none()) {
            return Err(Error::new(
                ErrorCode::IncompatibleChange,
                format!("table `{}` is published, but the manifest no longer has it", gone.table),
            )
            .with_help("put it back, or raise the product's major version"));
        }
        let key = contract.key();
        let plan = Self { request, key, state };
        for (table, input) in plan.inputs() {
            plan.check_whole(table, input)?;
        }
        // What a query adds was chosen by what the table held: over anything else rows could be doubled or lost.
        let moved = plan.inputs().into_iter().find(|(table, input)| match input {
            StageInput::Query(query) => {
                let current = plan.state.table(&table.name.sql()).map(|pointer| &pointer.metadata_location);
                current != query.base.as_ref()
            }
            _ => false,
        });
        if let Some((table, _)) = moved {
            let message = format!("table `{}`: somebody else published since its inputs were pinned", table.name);
            return Err(Error::new(ErrorCode::Conflict, message).with_help("run the same command again"));
        }
        Ok(plan)
    }

    /// How the tables of this plan are made of other products.
    fn transforms(&self) -> Vec<TransformRun> {
        let query = |(_, input): (&Table, &StageInput)| match input {
            StageInput::Query(query) => Some(query.run.clone()),
            _ => None,
        };
        self.inputs().into_iter().filter_map(query).collect()
    }

    /// The same plan over what the registry holds now, after somebody else committed.
    ///
    /// # Errors
    /// What [`Plan::new`] refuses.
    fn renew(self, state: ProductState) -> Result<Self> {
        Self::new(self.request, state)
    }

    fn inputs(&self) -> Vec<(&Table, &StageInput)> {
        let tables = self.request.contract.tables.iter();
        tables.filter_map(|table| Some((table, self.request.inputs.get(table.name.as_str())?))).collect()
    }

    /// Where the pull of a table starts, where it has a watermark and its data is pulled.
    fn pull(&self, table: &Table, input: &StageInput) -> Result<Option<Pull>> {
        let Some(column) = table.watermark.as_ref().filter(|_| input.is_pulled()) else { return Ok(None) };
        let start = if self.is_whole() { None } else { self.start(table, column)? };
        let after = start.map(|kept| kept.value);
        Ok(Some(Pull { column: column.clone(), after, first: true, held_back: Vec::new() }))
    }

    /// Whether all rows are pulled, whatever was pulled before.
    fn is_whole(&self) -> bool {
        self.request.again || self.request.full
    }

    /// How far the pulls of a table by its watermark have come.
    fn start(&self, table: &Table, column: &str) -> Result<Option<Watermark>> {
        let kept = self.state.watermarks.get(&table.name.sql());
        let data_type = table.column(column).map(|column| &column.data_type).ok_or_else(|| {
            Error::new(ErrorCode::InvalidManifest, format!("table `{}` has no column `{column}`", table.name))
        })?;
        watermark::start(kept, table.name.as_str(), column, data_type)
    }

    /// Refuses to pull rows again that an append would add to themselves. Where another watermark leaves no other way
    /// to go on, who asks for all rows was told what it means.
    fn check_whole(&self, table: &Table, input: &StageInput) -> Result<()> {
        let Some(column) = table.watermark.as_ref().filter(|_| input.is_pulled() && self.is_whole()) else {
            return Ok(());
        };
        if table.write != WriteMode::Append || !matches!(self.start(table, column), Ok(Some(_))) {
            return Ok(());
        }
        let flag = if self.request.full { "--full" } else { "--again" };
        let name = &table.name;
        Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("table `{name}` has `write: append`, so `{flag}` would add the rows again that were pulled before"),
        )
        .with_help(format!(
            "with `write: upsert` a row that is read again replaces itself, without a watermark `write: replace` reads all \
             rows each time; rows that arrived late can be named by hand: `datamesh publish {} {name}=FILE`",
            self.request.contract.id
        )))
    }

    /// The pull with what the pulls before it leave for it to know.
    async fn resumed(&self, context: &Context, table: &Table, input: &StageInput) -> Result<Option<Pull>> {
        let Some(mut pull) = self.pull(table, input)? else { return Ok(None) };
        let name = table.name.sql();
        if self.is_whole() || self.state.table(&name).is_none() {
            return Ok(Some(pull));
        }
        for held in context.registry.held_back(&self.key, &name).await? {
            let report = pulled(&held.report, held.publication, table)?;
            if report.is_some_and(|report| meets_again(&report, &pull.column)) {
                pull.held_back.push(held.file);
            }
        }
        pull.first = pull.after.is_none() && !self.was_pulled(context, table).await?;
        Ok(Some(pull))
    }

    /// Whether the table has rows of a pull.
    async fn was_pulled(&self, context: &Context, table: &Table) -> Result<bool> {
        let rollbacks = context.registry.rollbacks(&self.key).await?;
        for attempt in context.registry.publications(&self.key, u64::MAX).await? {
            let stands = attempt.status == PublicationStatus::Published
                && newest_effective(&[attempt.number], &rollbacks).is_some();
            if stands && pulled(&attempt.report, attempt.number, table)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a published table was judged by the rules that it has now.
    async fn judged_so(&self, context: &Context, table: &Table, pointer: &TablePointer) -> Result<bool> {
        if self.state.revision.as_ref().is_none_or(|revision| revision.contract != self.request.contract) {
            return Ok(false);
        }
        // It is most often among the newest.
        let mut found = None;
        for limit in [8, u64::MAX] {
            let attempts = context.registry.publications(&self.key, limit).await?;
            found = attempts.into_iter().find(|attempt| attempt.number == pointer.publication);
            if found.is_some() {
                break;
            }
        }
        let Some(contract) = found.and_then(|attempt| attempt.contract) else { return Ok(true) };
        Ok(contract.table(table.name.as_str()).is_some_and(|then| then == table))
    }

    fn is_retry(&self) -> bool {
        !self.request.resolves.is_empty()
    }

    /// The table as its rows are judged and written.
    fn judged(&self, table: &Table) -> Table {
        if self.is_retry() { crate::retry::retried(table) } else { table.clone() }
    }

    fn carried(&self) -> Vec<CarriedTable> {
        let tables = self.request.contract.tables.iter();
        let untouched = tables.filter(|table| !self.request.inputs.contains_key(table.name.as_str()));
        untouched.filter_map(|table| Some(carried(table, self.state.table(&table.name.sql())?))).collect()
    }

    /// Asks whether the principal may publish, and records the answer.
    pub async fn authorize(self, context: &Context) -> Result<AuthorizedPlan> {
        let attempt = AttemptId::new(context.ids.attempt());
        let tables: Vec<_> = self.inputs().iter().map(|(table, _)| table.name.to_string()).collect();
        let details = json!({
            "attempt": attempt.as_str(),
            "version": self.request.contract.version.to_string(),
            "tables": tables,
            "dryRun": self.request.dry_run,
        });
        let applied = self.state.revision.as_ref().map(|revision| &revision.contract);
        context.authorize_first(&self.request.contract, applied).await?;
        // A manifest names its owner itself: where something is applied, that decides too.
        let contracts = std::iter::once(&self.request.contract).chain(applied);
        let resources: Vec<Resource<'_>> = contracts.map(Resource::Product).collect();
        let decision = context.authorize_all(Action::Publish, &resources, details).await?;
        context.judge_publish(&self.request.contract).await?;
        Ok(AuthorizedPlan { plan: self, attempt, decision, scratch: None })
    }
}

/// A publication's report, as the registry holds it.
pub(crate) fn read_report(report: &Value, publication: u64) -> Result<PublishReport> {
    PublishReport::deserialize(report).map_err(|error| {
        let message = format!("the registry holds a report of publication {publication} that cannot be read");
        Error::new(ErrorCode::Registry, message).with_source(error)
    })
}

/// What a publication's report says of a table that it pulled by the table's watermark.
fn pulled(report: &Value, publication: u64, table: &Table) -> Result<Option<TableReport>> {
    let tables = read_report(report, publication)?.tables;
    let own = |report: &TableReport| {
        report.table == table.name.as_str()
            && report.watermark.as_ref().map(|pull| &pull.column) == table.watermark.as_ref()
    };
    Ok(tables.into_iter().find(own))
}

/// Whether rows that a pull held back may not have moved its watermark, so that the next one meets them again: those that
/// broke a rule of its column, or one that may be of it alone, and those that could not be read.
fn meets_again(report: &TableReport, column: &str) -> bool {
    report.reasons.keys().any(|id| match id.split_once(':') {
        Some((rule, of)) => rule == RULE_CONDITION || of == column,
        None => id == RULE_RECORD,
    })
}

fn carried(table: &Table, pointer: &TablePointer) -> CarriedTable {
    let protected = table.has_protected_columns();
    CarriedTable { table: table.name.to_string(), pointer: pointer.clone(), protected, rules: None }
}

/// A plan that may be carried out.
#[derive(Debug)]
pub struct AuthorizedPlan {
    plan: Plan,
    attempt: AttemptId,
    decision: u64,
    scratch: Option<PathBuf>,
}

impl AuthorizedPlan {
    fn lease(&self, context: &Context) -> Lease {
        Lease {
            attempt: self.attempt.clone(),
            product: self.plan.key.clone(),
            tables: self.plan.inputs().iter().map(|(table, _)| table.name.sql()).collect(),
            folders: self.plan.state.tables.iter().filter_map(|table| table.folder().map(str::to_owned)).collect(),
            expires_at: context.clock.now() + LEASE,
        }
    }

    /// One pass over every table's source. The staged files are audited, but not yet judged against a base.
    async fn stage<E: Engine>(
        self,
        engine: &E,
        context: &Context,
        progress: &Arc<dyn Progress>,
    ) -> Result<StagedPlan<E>> {
        for (_, input) in self.plan.inputs() {
            if let Some(place) = engine.own_places(input).await?.first() {
                let details = json!({ "operation": "publish", "for": self.plan.request.contract.id.to_string() });
                context.read_location(place, details).await?;
            }
        }
        let fresh: Vec<&Table> = self.plan.inputs().into_iter().map(|(table, _)| table).collect();
        let pinned = references::pin(context, &self.plan.request.contract, &self.plan.state, &fresh).await?;
        for table in &self.plan.request.contract.tables {
            // The new contract binds the tables that stay as they are too.
            if let Some(pointer) = self.plan.state.table(&table.name.sql()) {
                engine.check_carried(table, pointer)?;
            }
        }
        let (mut staged, mut pulls) = (Vec::new(), Vec::new());
        for (table, input) in self.plan.inputs() {
            let pull = self.plan.resumed(context, table, input).await?;
            pulls.push(pull.clone());
            let made_of = match input {
                StageInput::Query(query) => Some(engine.transform_lineage(table, query).await?),
                _ => None,
            };
            let judged = self.plan.judged(table);
            // Rows that break a rule are told without what their columns inherit.
            let mut judged = context.protect(&self.plan.request.contract, judged, made_of.as_ref()).await?;
            if matches!(input, StageInput::Query(query) if query.full_refresh) {
                judged.write = WriteMode::Replace;
            }
            let job = StageJob {
                product: self.plan.key.clone(),
                pull,
                input: input.clone(),
                base: self.plan.state.table(&table.name.sql()).cloned(),
                drops: false,
                pinned: pinned.clone(),
                attempt: self.attempt.clone(),
                table: judged,
                rehearsal: self.scratch.as_ref().map(|scratch| Rehearsal {
                    scratch: scratch.clone(),
                    columns: judged_columns(&self.plan.request.contract, table),
                    whole_quarantine: false,
                }),
            };
            let done = engine.stage(job, progress.clone()).await;
            if let StageInput::Query(query) = input
                && let Some(decided) = &query.decided
            {
                let columns = made_of.as_ref().map(ColumnLineage::columns_read).unwrap_or_default();
                let rows = done.as_ref().ok().map(E::rows_read);
                let recorded = context.record_read(decided, columns, rows, "run").await;
                staged.push(done?);
                recorded?;
            } else {
                staged.push(done?);
            }
            progress.reached(PublishStep::Staged);
        }
        Ok(StagedPlan { authorized: self, staged, pulls, pinned, reaudits: 0 })
    }
}

/// A plan whose data is staged.
struct StagedPlan<E: Engine> {
    authorized: AuthorizedPlan,
    staged: Vec<E::Staged>,
    /// How each of them was pulled, where it was.
    pulls: Vec<Option<Pull>>,
    pinned: Vec<PinnedInput>,
    reaudits: usize,
}

impl<E: Engine> StagedPlan<E> {
    fn plan(&self) -> &Plan {
        &self.authorized.plan
    }

    /// Which staged tables repeat what is published, by publication number.
    async fn repeats(&self, context: &Context) -> Result<Vec<Option<u64>>> {
        let plan = self.plan();
        let mut repeats = Vec::new();
        for (((table, input), staged), pull) in plan.inputs().into_iter().zip(&self.staged).zip(&self.pulls) {
            // New rows that a query makes may look like older ones: whether it repeats is told by what it read.
            let by_hand = plan.request.again
                || plan.request.full
                || plan.request.idempotency_key.is_some()
                || matches!(input, StageInput::Query(_));
            if E::rows_read(staged) == 0 && E::content(staged).is_some() && pull.as_ref().is_some_and(Pull::goes_on) {
                // Nothing is newer than the watermark, but for what was held back before.
                repeats.push(plan.state.table(&table.name.sql()).map(|pointer| pointer.publication));
                continue;
            }
            let Some(content) = E::content(staged).filter(|_| !by_hand) else {
                repeats.push(None);
                continue;
            };
            let repeat = if table.write == WriteMode::Append {
                context.registry.find_content(&plan.key, &table.name.sql(), &content).await?
            } else {
                // The same content under other rules may be judged otherwise, so it is no repeat.
                match plan.state.table(&table.name.sql()).filter(|pointer| pointer.content == content) {
                    Some(pointer) if plan.judged_so(context, table, pointer).await? => Some(pointer.publication),
                    _ => None,
                }
            };
            repeats.push(repeat);
        }
        // Over other tables the same rows may be judged otherwise. What is appended or merged in would not be the same again.
        let inputs = plan.inputs();
        let again = |at: usize, repeats: &[Option<u64>]| {
            let (table, _) = inputs[at];
            let changed = inputs.iter().zip(repeats).filter(|(_, repeat)| repeat.is_none());
            repeats[at].is_some()
                && table.write == WriteMode::Replace
                && E::rows_read(&self.staged[at]) > 0
                && changed.into_iter().any(|((other, _), _)| references::names(table, &other.name))
        };
        while let Some(at) = (0..repeats.len()).find(|at| again(*at, &repeats)) {
            repeats[at] = None;
        }
        Ok(repeats)
    }

    /// Binds the tables that stay to what their rules say of others, and to what their columns inherit.
    async fn bind(&self, context: &Context, carried: &mut [CarriedTable]) -> Result<()> {
        let contract = &self.plan().request.contract;
        for other in carried {
            let Some(table) = contract.table(&other.table) else { continue };
            let table = context.protect(contract, table.clone(), None).await?;
            other.protected = table.has_protected_columns();
            if references::reads_others(contract, &table) {
                other.rules = Some(table);
            }
        }
        Ok(())
    }

    /// Settles every table against the published state, measures the candidates and judges them together.
    async fn audit(self, engine: &E, context: &Context, progress: &Arc<dyn Progress>) -> Result<AuditedPlan<E>> {
        let repeats = self.repeats(context).await?;
        let plan = self.plan();
        let mut carried = plan.carried();
        let inputs = plan.inputs();
        let mut reports: Vec<Option<TableReport>> = Vec::new();
        for (((table, _), (staged, pull)), repeat) in
            inputs.iter().zip(self.staged.iter().zip(&self.pulls)).zip(&repeats)
        {
            if repeat.is_none() {
                reports.push(None);
                continue;
            }
            let base = plan.state.table(&table.name.sql());
            carried.extend(base.map(|pointer| self::carried(table, pointer)));
            let content = E::content(staged).unwrap_or_default();
            let mut report = repeated(table, *repeat, content, base.map_or(0, |pointer| pointer.rows));
            report.watermark = pull.as_ref().filter(|pull| pull.goes_on()).map(|pull| WatermarkReport {
                column: pull.column.clone(),
                after: pull.after.clone(),
                last: None,
                skipped: 0,
                held_before: E::held_before(staged),
            });
            reports.push(Some(report));
        }
        let tables: Vec<&Table> = inputs.iter().map(|(table, _)| *table).collect();
        let mut settled: Vec<E::Settled> = Vec::new();
        let mut places = Vec::new();
        for at in references::settling_order(&tables).into_iter().filter(|at| repeats[*at].is_none()) {
            let base = plan.state.table(&tables[at].name.sql());
            settled.push(engine.settle(&self.staged[at], base, &settled, &carried).await?);
            places.push(at);
            progress.reached(PublishStep::Settled);
        }
        let mut in_order: Vec<(usize, E::Settled)> = places.into_iter().zip(settled).collect();
        in_order.sort_by_key(|(at, _)| *at);
        let mut settled: Vec<E::Settled> = in_order.into_iter().map(|(_, settled)| settled).collect();
        if !settled.is_empty() {
            self.bind(context, &mut carried).await?;
        }
        let measured = engine.measure(&mut settled, &carried, &self.pinned, context.clock.now()).await;
        let mut recorded = Ok(());
        for pinned in &self.pinned {
            let Some(decided) = &pinned.decided else { continue };
            let columns = references::columns(&self.plan().request.contract, &pinned.reference);
            let rows = measured.is_ok().then_some(pinned.pointer.rows);
            recorded = recorded.and(context.record_read(decided, columns, rows, "reference").await);
        }
        let mut stay = measured.and_then(|stay| recorded.map(|()| stay))?;
        let mut fresh = settled.iter();
        let mut tables: Vec<TableReport> = reports
            .into_iter()
            .filter_map(|report| report.or_else(|| fresh.next().map(|settled| E::report(settled).clone())))
            .collect();
        for other in &carried {
            let Some(results) = stay.remove(&other.table) else { continue };
            if let Some(report) = tables.iter_mut().find(|report| report.table == other.table) {
                report.metrics = results;
            } else if let Some(table) = plan.request.contract.table(&other.table)
                && results.iter().any(|result| !result.passed || result.warned)
            {
                let TablePointer { publication, content, rows, .. } = other.pointer.clone();
                tables.push(TableReport { metrics: results, ..repeated(table, Some(publication), content, rows) });
            }
        }
        let mut verdict = judge(&tables);
        if plan.is_retry()
            && verdict == Verdict::PublishWithQuarantine
            && tables.iter().all(|table| table.published == 0)
        {
            verdict = Verdict::Reject(vec!["not one row passed: each broke a rule again".to_owned()]);
        }
        progress.reached(PublishStep::Judged);
        Ok(AuditedPlan { staged: self, settled, tables, repeats, verdict })
    }
}

pub(crate) fn repeated(table: &Table, repeat_of: Option<u64>, content: String, total_rows: u64) -> TableReport {
    TableReport {
        table: table.name.to_string(),
        write: table.write,
        rows_in: 0,
        published: 0,
        quarantined: 0,
        total_rows,
        changes: None,
        bytes_read: 0,
        content,
        limit_percent: table.quarantine.percent,
        reasons: BTreeMap::new(),
        metrics: Vec::new(),
        pinned: Vec::new(),
        ignored_columns: Vec::new(),
        missing_columns: Vec::new(),
        missing_required: Vec::new(),
        repeat_of,
        watermark: None,
    }
}

/// A plan with its verdict.
struct AuditedPlan<E: Engine> {
    staged: StagedPlan<E>,
    settled: Vec<E::Settled>,
    tables: Vec<TableReport>,
    repeats: Vec<Option<u64>>,
    verdict: Verdict,
}

/// What became of one try to commit.
enum Commit<E: Engine> {
    Committed(HashSet<String>),
    Rejected(HashSet<String>),
    Replayed,
    Conflict(Box<StagedPlan<E>>),
    DryRun,
}

impl<E: Engine> AuditedPlan<E> {
    fn report(&self, status: PublishStatus, publication: Option<u64>, because: Vec<String>) -> PublishReport {
        let plan = self.staged.plan();
        PublishReport {
            format: REPORT_FORMAT,
            product: plan.request.contract.id.to_string(),
            version: plan.request.contract.version.to_string(),
            attempt: self.staged.authorized.attempt.to_string(),
            status,
            publication,
            because,
            tables: self.tables.clone(),
            carried_forward: plan.carried().into_iter().map(|carried| carried.table).collect(),
            transforms: plan.transforms(),
            reaudits: self.staged.reaudits,
            rollback_to: None,
            resolves: plan.request.resolves.clone(),
            notes: Vec::new(),
        }
    }

    /// Where the columns of the tables that are committed come from.
    async fn lineage(&self, engine: &E, context: &Context) -> Result<Vec<TableLineage>> {
        let plan = self.staged.plan();
        let contract = &plan.request.contract;
        let catalog = context.registry.catalog().await?;
        let major = |id: &ProductId| newest_major(&catalog, id);
        let mut lineage = Vec::new();
        for settled in &self.settled {
            let report = E::report(settled);
            let Some(table) = contract.table(&report.table) else { continue };
            let Some(input) = plan.request.inputs.get(table.name.as_str()) else { continue };
            let found = match input {
                // Its rows had been read before, so the lineage that the table has stays.
                StageInput::Quarantine(_) => continue,
                StageInput::Query(query) => engine.transform_lineage(table, query).await?,
                input => source_lineage(table, input, &report.missing_columns, &major),
            };
            lineage.push(TableLineage { table: table.name.sql(), lineage: found });
        }
        Ok(lineage)
    }

    /// The content that the table's pointer names. A retry adds to a publication: that one's source stays a repeat.
    fn content(&self, table: &str, report: &TableReport) -> String {
        let plan = self.staged.plan();
        let own = plan.request.contract.table(table).map(|table| table.write);
        match plan.state.table(table) {
            Some(pointer) if plan.is_retry() && own != Some(WriteMode::Append) => pointer.content.clone(),
            _ => report.content.clone(),
        }
    }

    fn request(
        &self,
        context: &Context,
        report: &PublishReport,
        tables: Vec<TableCommit>,
        lineage: Vec<TableLineage>,
    ) -> Result<CommitRequest> {
        let authorized = &self.staged.authorized;
        let plan = &authorized.plan;
        Ok(CommitRequest {
            attempt: authorized.attempt.clone(),
            product: plan.key.clone(),
            contract: plan.request.contract.clone(),
            expected_revision: plan.state.revision.as_ref().map_or(0, |revision| revision.number),
            principal: context.principal.id.clone(),
            at: context.clock.now(),
            idempotency_key: plan.request.idempotency_key.clone(),
            decision: authorized.decision,
            tables,
            quarantine: self.settled.iter().flat_map(|settled| E::quarantine(settled).to_vec()).collect(),
            lineage,
            transforms: plan.transforms(),
            report: serde_json::to_value(report)
                .map_err(|error| Error::new(ErrorCode::Internal, "the report cannot be written").with_source(error))?,
            rollback_to: None,
            pinned: Vec::new(),
            resolves: plan.request.resolves.clone(),
        })
    }

    /// Commits, in one transaction for all tables, or keeps only the report and quarantine of a rejected attempt.
    async fn commit(
        self,
        engine: &E,
        context: &Context,
        progress: &Arc<dyn Progress>,
        recording: &AtomicBool,
    ) -> Result<(PublishReport, Commit<E>)> {
        if self.settled.is_empty() && self.repeats.iter().all(Option::is_some) {
            let earlier = self.repeats.iter().flatten().max().copied();
            return Ok((self.report(PublishStatus::Repeat, earlier, Vec::new()), Commit::Replayed));
        }
        let dry_run = self.staged.plan().request.dry_run;
        if let Verdict::Reject(because) = &self.verdict {
            if dry_run {
                return Ok((self.report(PublishStatus::WouldReject, None, because.clone()), Commit::DryRun));
            }
            let mut report = self.report(PublishStatus::Rejected, None, because.clone());
            let request = self.request(context, &report, Vec::new(), Vec::new())?;
            recording.store(true, Ordering::SeqCst);
            let publication = context.registry.record_rejection(&request).await?;
            report.publication = Some(publication);
            progress.reached(PublishStep::Committed);
            let keep = request.quarantine.iter().map(|file| file.path.clone()).collect();
            return Ok((report, Commit::Rejected(keep)));
        }
        if dry_run {
            return Ok((self.report(PublishStatus::WouldPublish, None, Vec::new()), Commit::DryRun));
        }
        let attempt = &self.staged.authorized.attempt;
        let mut commits = Vec::new();
        let mut keep = HashSet::new();
        for settled in &self.settled {
            let between = || progress.reached(PublishStep::ManifestsWritten);
            let prepared =
                engine.prepare(settled, attempt, context.clock.now(), context.ids.snapshot(), &between).await?;
            progress.reached(PublishStep::MetadataWritten);
            let report = E::report(settled);
            let name = Name::new(&report.table).map_or_else(|_| report.table.clone(), |name| name.sql());
            keep.extend(E::kept(settled));
            keep.extend(prepared.files);
            commits.push(TableCommit {
                write: report.write,
                expected: self.staged.plan().state.table(&name).map(|pointer| pointer.metadata_location.clone()),
                metadata_location: prepared.metadata_location,
                metadata: prepared.metadata,
                snapshot_id: prepared.snapshot_id,
                content: self.content(&name, report),
                rows_in: report.rows_in,
                published: report.published,
                quarantined: report.quarantined,
                total_rows: prepared.total_rows,
                watermark: report
                    .watermark
                    .as_ref()
                    .and_then(|pull| Some(Watermark { column: pull.column.clone(), value: pull.last.clone()? })),
                table: name,
            });
        }
        let mut report = self.report(PublishStatus::Published, None, Vec::new());
        let request = self.request(context, &report, commits, self.lineage(engine, context).await?)?;
        recording.store(true, Ordering::SeqCst);
        match context.registry.commit(&request, progress.as_ref()).await? {
            CommitOutcome::Committed(publication) => {
                progress.reached(PublishStep::Committed);
                report.publication = Some(publication);
                Ok((report, Commit::Committed(keep)))
            }
            CommitOutcome::Conflict => {
                report.status = PublishStatus::Conflict;
                Ok((report, Commit::Conflict(Box::new(self.staged))))
            }
        }
    }
}

/// Publishes: every table's new data, or nothing. Ends early, cleanly, when `stop` does.
///
/// # Errors
/// Sources that cannot be read, files that cannot be written, contracts that do not fit what is published. A rejection
/// by the audit is no error but an outcome; so is a conflict.
pub async fn publish<E: Engine>(
    request: PublishRequest,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<PublishReport> {
    let state = context.registry.product_state(&request.contract.key()).await?;
    publish_over(state, request, engine, context, progress, stop).await
}

/// Publishes over what the product had when `state` was read: whatever was committed since is a winner.
pub(crate) async fn publish_over<E: Engine>(
    state: ProductState,
    request: PublishRequest,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<PublishReport> {
    check_applied(&request.contract, &state, context).await?;
    let plan = Plan::new(request, state)?;
    progress.reached(PublishStep::Planned);
    let authorized = plan.authorize(context).await?;
    progress.reached(PublishStep::Authorized);
    if let Some(report) = repeated_key(&authorized, context).await? {
        return Ok(report);
    }
    let lease = authorized.lease(context);
    context.registry.open_lease(&lease).await?;
    progress.reached(PublishStep::Leased);
    // Set before the registry is asked to record the attempt: from then on it may be recorded whatever we hear.
    let recording = AtomicBool::new(false);
    let outcome = keep_alive(
        context,
        std::slice::from_ref(&lease.attempt),
        run(authorized, engine, context, &progress, &recording),
        stop,
    )
    .await;
    let keep = match &outcome {
        Ok((_, keep)) => keep.clone(),
        Err(_) => HashSet::new(),
    };
    let failure = outcome.as_ref().err().map(Error::code);
    let recorded = failure.is_some() && recording.load(Ordering::SeqCst);
    clean(engine, context, &lease, keep, failure, recorded).await;
    progress.reached(PublishStep::Cleaned);
    outcome.map(|(report, _)| report)
}

/// Data is published under the applied revision. A product of which nothing was ever applied is applied by its first
/// publish.
async fn check_applied(contract: &DataProduct, state: &ProductState, context: &Context) -> Result<()> {
    let refused = |why: String, help: String| Err(Error::new(ErrorCode::NotApplied, why).with_help(help));
    let id = &contract.id;
    let Some(revision) = &state.revision else {
        if contract.status == Lifecycle::Retired {
            return refused(format!("`{id}` is retired"), "a retired product is not published".to_owned());
        }
        let majors = context.registry.majors(&contract.key()).await?;
        let Some(newest) = majors.last() else { return Ok(()) };
        return refused(
            format!("major version {} of `{id}` was never applied; {newest} was", contract.version.major),
            "run `datamesh apply`, then publish".to_owned(),
        );
    };
    if revision.contract.status == Lifecycle::Retired {
        let why = format!("`{id}` version {} is retired", revision.contract.version);
        return refused(why, "publish to a newer major version".to_owned());
    }
    if revision.contract == *contract {
        return Ok(());
    }
    let changed = compare(&revision.contract, contract);
    let paths: Vec<String> = changed.iter().take(3).map(|change| change.path.to_string()).collect();
    let more = if changed.len() > paths.len() { ", …" } else { "" };
    refused(
        format!(
            "the manifest of `{id}` differs from the applied revision {} in {}{more}",
            revision.number,
            paths.join(", ")
        ),
        "run `datamesh apply`, then publish; `datamesh plan` shows what it would change".to_owned(),
    )
}

/// Says what [`publish`] would do, and touches nothing but the log of decisions: what must be staged to know it goes
/// below `scratch`, which is the caller's to remove.
///
/// # Errors
/// Those of [`publish`].
pub async fn rehearse<E: Engine>(
    request: PublishRequest,
    scratch: PathBuf,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<(PublishReport, ProductState)> {
    let state = context.registry.product_state(&request.contract.key()).await?;
    let plan = Plan::new(PublishRequest { dry_run: true, ..request }, state.clone())?;
    let mut authorized = plan.authorize(context).await?;
    if let Some(report) = repeated_key(&authorized, context).await? {
        return Ok((report, state));
    }
    authorized.scratch = Some(scratch);
    let recording = AtomicBool::new(false);
    tokio::select! {
        biased;
        outcome = run(authorized, engine, context, &progress, &recording) => outcome.map(|(report, _)| (report, state)),
        () = stop => Err(Error::new(ErrorCode::Interrupted, "stopped; nothing was changed")),
    }
}

/// A publication with a key set by hand repeats an earlier one with that key, whatever its content.
async fn repeated_key(authorized: &AuthorizedPlan, context: &Context) -> Result<Option<PublishReport>> {
    let plan = &authorized.plan;
    let Some(key) = plan.request.idempotency_key.as_deref().filter(|_| !plan.request.again) else { return Ok(None) };
    let Some(publication) = context.registry.find_idempotency_key(&plan.key, key).await? else { return Ok(None) };
    Ok(Some(PublishReport {
        format: REPORT_FORMAT,
        product: plan.request.contract.id.to_string(),
        version: plan.request.contract.version.to_string(),
        attempt: authorized.attempt.to_string(),
        status: PublishStatus::Repeat,
        publication: Some(publication),
        because: vec![format!("idempotency key `{key}` was used by publication {publication}")],
        tables: Vec::new(),
        carried_forward: plan.state.tables.iter().map(|pointer| pointer.table.clone()).collect(),
        transforms: Vec::new(),
        reaudits: 0,
        rollback_to: None,
        resolves: Vec::new(),
        notes: Vec::new(),
    }))
}

async fn run<E: Engine>(
    authorized: AuthorizedPlan,
    engine: &E,
    context: &Context,
    progress: &Arc<dyn Progress>,
    recording: &AtomicBool,
) -> Result<(PublishReport, HashSet<String>)> {
    let mut staged = authorized.stage(engine, context, progress).await?;
    let mut last: Option<PublishReport> = None;
    loop {
        let audited = match (staged.audit(engine, context, progress).await, last.take()) {
            (Ok(audited), _) => audited,
            // What the winner did does not go together with this attempt: that is an outcome.
            (Err(error), Some(mut report)) if error.code() == ErrorCode::Conflict => {
                report.because.push(error.to_string());
                return Ok((report, HashSet::new()));
            }
            (Err(error), _) => return Err(error),
        };
        let (mut report, commit) = audited.commit(engine, context, progress, recording).await?;
        let mut conflicted = match commit {
            Commit::Committed(keep) | Commit::Rejected(keep) => return Ok((report, keep)),
            Commit::Replayed | Commit::DryRun => return Ok((report, HashSet::new())),
            Commit::Conflict(staged) => *staged,
        };
        // Somebody else committed first. What was audited against the old state must be audited against the new one.
        let before = conflicted.authorized.plan;
        let (revision, old) = (before.state.revision.clone(), before.state.tables.clone());
        let watermarks = before.state.watermarks.clone();
        let state = context.registry.product_state(&before.key).await?;
        let plan = before.renew(state)?;
        if let Some(key) = &plan.request.idempotency_key
            && let Some(publication) = context.registry.find_idempotency_key(&plan.key, key).await?
        {
            report.status = PublishStatus::Repeat;
            report.publication = Some(publication);
            return Ok((report, HashSet::new()));
        }
        if plan.is_retry() {
            let settled = context.registry.quarantine_resolutions(&plan.key).await?;
            let own = |done: &QuarantineResolution| {
                plan.request.resolves.iter().any(|own| own.publication == done.publication && own.table == done.table)
            };
            if let Some(done) = settled.into_iter().find(own) {
                report.because.push(format!(
                    "table `{}`: publication {} settled the same quarantined rows while this attempt ran",
                    done.table,
                    done.resolved_by.unwrap_or_default()
                ));
                return Ok((report, HashSet::new()));
            }
        }
        let newest = plan.state.revision.as_ref();
        if newest != revision.as_ref() && newest.is_none_or(|newest| newest.contract != plan.request.contract) {
            report.because.push("somebody else applied another contract while this attempt ran".to_owned());
            return Ok((report, HashSet::new()));
        }
        // Maintenance moves pointers too, but it changes no row.
        let publication = |tables: &[TablePointer], table: &Table| {
            tables.iter().find(|pointer| pointer.table == table.name.sql()).map(|pointer| pointer.publication)
        };
        let moved = |table: &Table| publication(&old, table) != publication(&plan.state.tables, table);
        let replaced = plan.inputs().into_iter().find(|(table, _)| table.write == WriteMode::Replace && moved(table));
        // Nor must rows that were held back be published over newer ones.
        let overtaken = plan
            .inputs()
            .into_iter()
            .find(|(table, _)| plan.is_retry() && table.write != WriteMode::Append && moved(table));
        if let Some((table, _)) = overtaken {
            report.because.push(format!(
                "table `{}`: somebody else published while this attempt ran, so what was held back may be out of date",
                table.name
            ));
            return Ok((report, HashSet::new()));
        }
        if let Some((table, _)) = replaced {
            report.because.push(format!(
                "table `{}`: somebody else published while this attempt ran, and a replace would undo what it has not seen",
                table.name
            ));
            return Ok((report, HashSet::new()));
        }
        let mut overtaken = None;
        for ((table, input), pull) in plan.inputs().into_iter().zip(&conflicted.pulls) {
            let name = table.name.sql();
            // A pull that moves no watermark may still have held rows back.
            if pull.is_some()
                && (watermarks.get(&name) != plan.state.watermarks.get(&name)
                    || *pull != plan.resumed(context, table, input).await?)
            {
                overtaken = Some(table);
                break;
            }
        }
        if let Some(table) = overtaken {
            report.because.push(format!(
                "table `{}`: somebody else pulled while this attempt ran, so some of its rows are there already",
                table.name
            ));
            return Ok((report, HashSet::new()));
        }
        conflicted.authorized.plan = plan;
        conflicted.reaudits += 1;
        if conflicted.reaudits > MAX_RETRIES {
            report.because.push(format!("others published {MAX_RETRIES} times while this attempt was audited"));
            return Ok((report, HashSet::new()));
        }
        staged = conflicted;
        last = Some(report);
    }
}

/// Renews the leases while `work` runs.
pub(crate) async fn keep_alive<T>(
    context: &Context,
    attempts: &[AttemptId],
    work: impl Future<Output = Result<T>>,
    stop: impl Future<Output = ()>,
) -> Result<T> {
    let renew = async {
        loop {
            tokio::time::sleep(RENEWAL).await;
            for attempt in attempts {
                if let Err(error) = context.registry.renew_lease(attempt, context.clock.now() + LEASE).await
                    && error.code() == ErrorCode::LeaseLost
                {
                    return error;
                }
            }
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        error = renew => Err(error),
        () = stop => Err(Error::new(ErrorCode::Interrupted, "stopped; nothing was published").with_help("run the same command again")),
    }
}

/// Deletes what the attempt staged and nothing references, then closes the lease.
///
/// Failing here loses nothing: the lease stays, and `maintain` cleans up when it has expired.
pub(crate) async fn clean<E: Engine>(
    engine: &E,
    context: &Context,
    lease: &Lease,
    mut keep: HashSet<String>,
    failure: Option<ErrorCode>,
    recorded: bool,
) {
    if recorded {
        // A commit that was cut off may still happen, and an error may hide that it did. Claiming the lease waits for a
        // transaction that is under way and stops one that is not; after it, what the registry references must stay.
        if context.registry.claim_lease(&lease.attempt).await.is_err() {
            return;
        }
        let Ok(more) = crate::maintain::referenced(engine, context, lease).await else { return };
        keep.extend(more);
    }
    let reclaimed = engine.reclaim(lease, &keep).await.is_ok();
    // A stopped attempt's last writer may still be at it: what it leaves is for `maintain`, when the lease has expired.
    if reclaimed && failure != Some(ErrorCode::Interrupted) {
        // A lease that cannot be closed now is closed by `maintain`.
        let _ = context.registry.close_lease(&lease.attempt).await;
    }
}
