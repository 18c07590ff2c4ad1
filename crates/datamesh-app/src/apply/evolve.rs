//! Published tables under changed contracts: what more is promised must hold on their rows, and their schemas evolve in
//! place, by field id.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datamesh_core::contract::{DataProduct, Table, WriteMode};
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::plan::{FieldChange, MeshPlan, ProductAction, ProductStep, Refusal, RefusalKind};
use datamesh_core::ports::{Lease, ProductState, PublishStep, TableEvolution, TablePointer};
use datamesh_core::rehearsal::judged_columns;
use datamesh_core::transform::{InputPin, TransformRun, TransformSpec};
use datamesh_core::verdict::{TableReport, failure};
use datamesh_core::{Column, DataType, Error, ErrorCode, Result};

use crate::ports::{
    CarriedTable, Context, Engine, EvolutionJob, PinnedTable, Progress, Rehearsal, Sight, StageInput, StageJob,
    TransformInput,
};
use crate::references;

/// What evolving did, waiting for its transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Evolved {
    /// The pointers to swap.
    pub(super) tables: Vec<TableEvolution>,
    /// Pointers of tables that were judged and stay as they are: their rows must be the ones that were judged.
    pub(super) judged: Vec<(ProductKey, String, String)>,
    /// Files that must stay once the pointers are swapped.
    pub(super) files: HashSet<String>,
    /// Their names, as `domain.product_v1.table`.
    pub(super) names: Vec<String>,
    /// Of those, the ones that were written anew.
    pub(super) backfilled: Vec<String>,
}

/// Whether published tables of a step may have to change with it.
pub(super) fn may_evolve(step: &ProductStep) -> bool {
    step.revision > 0 && !step.tables.is_empty() && step.action != ProductAction::Retire && step.changes_tables()
}

/// A step with the state of its product.
struct Subject<'p> {
    step: &'p ProductStep,
    /// The key before the plan.
    key: ProductKey,
    /// The contract before.
    before: DataProduct,
    state: ProductState,
}

impl<'p> Subject<'p> {
    async fn load(plan: &'p MeshPlan, step: &'p ProductStep, context: &Context) -> Result<Option<Self>> {
        let key = super::former_key(plan, step);
        let state = context.registry.product_state(&key).await?;
        let before = state.revision.as_ref().map(|revision| revision.contract.clone());
        Ok(before.map(|before| Self { step, key, before, state }))
    }

    /// The published tables, each with its new contract.
    fn tables(&self) -> impl Iterator<Item = (&Table, &TablePointer)> {
        let tables = self.step.contract.tables.iter();
        tables.filter_map(|table| Some((table, self.state.table(&table.name.sql())?)))
    }

    /// Below 1.0.0 a column may go.
    fn drops(&self) -> bool {
        self.step.version.major == 0
    }

    /// The columns of a table that are new and have a default.
    fn defaults<'t>(&self, table: &'t Table) -> Vec<&'t Column> {
        let old = self.before.table(table.name.as_str());
        let is_new = |column: &&Column| {
            column.default.is_some()
                && column.renamed_from.as_ref().is_none_or(|from| old.is_none_or(|old| old.column(from).is_none()))
                && old.is_none_or(|old| old.column(&column.name).is_none())
        };
        table.columns.iter().filter(is_new).collect()
    }

    /// Whether the rows of a table have to be judged again: something is asked of them that was not asked before.
    fn must_judge(&self, table: &Table) -> bool {
        let asks = |change: &FieldChange| {
            // Nothing is asked of a new column but that it is null.
            let free = change.rule == "column-added"
                && change.columns.iter().all(|name| table.column(name).is_none_or(|column| !column.required));
            change.tightens && !free
        };
        let tightened = |change: &FieldChange| {
            asks(change) && change.table.as_deref().is_some_and(|name| self.step.contract.table(name) == Some(table))
        };
        self.step.changes.iter().any(tightened)
    }

    fn job<'j>(&self, table: &'j Table, pointer: &'j TablePointer) -> EvolutionJob<'j> {
        EvolutionJob { table, pointer, drops: self.drops() }
    }
}

/// Judges the published rows of what is promised more: each reason why a promise does not hold on them.
pub(super) async fn judge_published<E: Engine>(
    plan: &MeshPlan,
    scratch: PathBuf,
    engine: &E,
    context: &Context,
    progress: &Arc<dyn Progress>,
) -> Result<Vec<Refusal>> {
    let mut refusals = Vec::new();
    for step in plan.products.iter().filter(|step| may_evolve(step)) {
        let Some(subject) = Subject::load(plan, step, context).await? else { continue };
        let gone = subject.state.tables.iter().find(|pointer| step.contract.table(&pointer.table).is_none());
        if let Some(gone) = gone {
            refusals.push(Refusal::new(
                RefusalKind::TableCannotChange,
                &step.product,
                format!("table `{}` is published, but the manifest no longer has it", gone.table),
                "put it back, or raise the product's major version",
            ));
            continue;
        }
        for (table, pointer) in subject.tables() {
            let evolved = match engine.evolved(&subject.job(table, pointer)) {
                Ok(evolved) => evolved,
                Err(error) if error.code() == ErrorCode::IncompatibleChange => {
                    let help = error.help().unwrap_or("raise the product's major version").to_owned();
                    refusals.push(Refusal::new(RefusalKind::TableCannotChange, &step.product, error.to_string(), help));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if subject.must_judge(table) {
                let rows = evolved.unwrap_or_else(|| pointer.clone());
                let report = judge(&subject, table, rows, &scratch, engine, context, progress).await?;
                refusals.extend(broken(&subject, table, &report));
            }
        }
    }
    Ok(refusals)
}

/// One table's published rows through the audit of its new contract. Nothing of it is kept.
async fn judge<E: Engine>(
    subject: &Subject<'_>,
    table: &Table,
    rows: TablePointer,
    scratch: &Path,
    engine: &E,
    context: &Context,
    progress: &Arc<dyn Progress>,
) -> Result<TableReport> {
    let attempt = AttemptId::new(context.ids.attempt());
    let columns = judged_columns(&subject.step.contract, table);
    let rehearsal = Rehearsal { scratch: scratch.to_owned(), columns, whole_quarantine: false };
    let job = job(subject, table, rows, None, attempt, Some(rehearsal), engine, context).await?;
    let pinned = job.pinned.clone();
    let staged = engine.stage(job, progress.clone()).await?;
    let carried = carried(subject, table);
    let mut settled = [engine.settle(&staged, None, &[], &carried).await?];
    engine.measure(&mut settled, &carried, &pinned, context.clock.now()).await?;
    let [settled] = &settled;
    Ok(E::report(settled).clone())
}

fn carried(subject: &Subject<'_>, table: &Table) -> Vec<CarriedTable> {
    let others = subject.tables().filter(|(other, _)| other.name != table.name);
    others
        .map(|(other, pointer)| CarriedTable {
            table: other.name.to_string(),
            pointer: pointer.clone(),
            protected: other.has_protected_columns(),
            rules: None,
        })
        .collect()
}

/// The pass over a table's own rows, with the defaults of new columns.
#[expect(clippy::too_many_arguments, reason = "what one pass depends on, and there are two callers")]
async fn job<E: Engine>(
    subject: &Subject<'_>,
    table: &Table,
    rows: TablePointer,
    base: Option<TablePointer>,
    attempt: AttemptId,
    rehearsal: Option<Rehearsal>,
    engine: &E,
    context: &Context,
) -> Result<StageJob> {
    let mut judged = table.clone();
    judged.write = WriteMode::Replace;
    judged.delete_when = None;
    judged.watermark = None;
    judged.quarantine.percent = 100.0;
    let pinned = references::pin(context, &subject.step.contract, &subject.state, &[table]).await?;
    let sql = select(table, &subject.defaults(table), &subject.key);
    let pin = InputPin {
        product: subject.key.clone(),
        version: subject.before.version.clone(),
        table: table.name.sql(),
        publication: rows.publication,
        snapshot_id: engine.snapshot(&rows)?.unwrap_or_default(),
        changes: false,
        since: None,
    };
    let run = TransformRun { table: table.name.sql(), sql_hash: String::new(), inputs: vec![pin.clone()] };
    Ok(StageJob {
        product: subject.key.clone(),
        table: judged,
        input: StageInput::Query(Box::new(TransformInput {
            transform: TransformSpec { sql, file: None },
            run,
            tables: vec![PinnedTable { pin, pointer: rows, sight: Sight::plain() }],
            base: base.as_ref().map(|base| base.metadata_location.clone()),
            full_refresh: true,
            now: context.clock.now(),
            // The product's own rows.
            decided: None,
        })),
        pull: None,
        base,
        drops: subject.drops(),
        pinned,
        attempt,
        rehearsal,
    })
}

/// All columns of a table's evolved rows, and the defaults of those that are new.
fn select(table: &Table, defaults: &[&Column], key: &ProductKey) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| match &column.default {
            Some(value) if defaults.iter().any(|other| other.name == column.name) => {
                let value = value.replace('\'', "''");
                format!("CAST('{value}' AS {}) AS {}", sql_type(&column.data_type), quoted(&column.name))
            }
            _ => quoted(&column.name),
        })
        .collect();
    let (domain, product, table) = (quoted(&key.domain), quoted(&key.product), quoted(&table.name.sql()));
    format!("SELECT {} FROM {domain}.{product}.{table}", columns.join(", "))
}

/// The type's name in SQL. Other types have no defaults: the manifest's reader refuses them.
fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int => "INT".to_owned(),
        DataType::Long => "BIGINT".to_owned(),
        DataType::Float => "REAL".to_owned(),
        DataType::Double => "DOUBLE".to_owned(),
        DataType::Decimal(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date => "DATE".to_owned(),
        DataType::Time => "TIME".to_owned(),
        DataType::Timestamp => "TIMESTAMP WITH TIME ZONE".to_owned(),
        DataType::TimestampNtz => "TIMESTAMP".to_owned(),
        _ => "VARCHAR".to_owned(),
    }
}

/// What of the new contract does not hold on a table's published rows.
fn broken(subject: &Subject<'_>, table: &Table, report: &TableReport) -> Vec<Refusal> {
    let mut why: Vec<String> = Vec::new();
    for (rule, count) in &report.reasons {
        let rows = if count.rows == 1 { "row breaks" } else { "rows break" };
        why.push(format!("{} {rows} `{rule}`", count.rows));
    }
    for column in &report.missing_required {
        why.push(format!("column `{column}` is required, and the published rows have none"));
    }
    // What failed under the former contract too is no change.
    let old = subject.before.table(table.name.as_str());
    let is_old = |name: &str| {
        let find = |table: &Table| table.metrics.iter().find(|rule| rule.name == name).cloned();
        find(table).is_some() && old.and_then(find) == find(table)
    };
    let failed = report.metrics.iter().filter(|metric| {
        !metric.passed && metric.severity == datamesh_core::quality::Severity::Error && !is_old(&metric.rule)
    });
    why.extend(failed.map(|metric| format!("rule `{}`{}", metric.rule, failure(metric))));
    if why.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "table `{}`: what is promised does not hold on what is published: {} (of {} rows)",
        table.name,
        why.join("; "),
        report.rows_in
    );
    let help = "mend the published rows first, give a new column a `default:`, or publish under a new major version";
    vec![Refusal::new(RefusalKind::DataDoesNotHold, &subject.step.product, message, help)]
}

/// Writes the metadata of tables whose schema changes, and the rows of those that get a default.
pub(super) async fn evolve<E: Engine>(
    plan: &MeshPlan,
    leases: &[Lease],
    engine: &E,
    context: &Context,
    progress: &Arc<dyn Progress>,
) -> Result<Evolved> {
    let mut done = Evolved::default();
    let steps = plan.products.iter().filter(|step| may_evolve(step));
    for (step, lease) in steps.zip(leases) {
        let Some(subject) = Subject::load(plan, step, context).await? else { continue };
        for (table, pointer) in subject.tables() {
            // INVARIANT: the rows that were judged are the ones that the new contract is accepted for. Somebody who published
            // while they were judged moved the pointer away from where the plan saw it.
            if step.tables.get(&pointer.table) != Some(&pointer.metadata_location) {
                return Err(super::stale(&format!("somebody published table `{name}`", name = pointer.table)));
            }
            done.judged.push((step.key(), pointer.table.clone(), pointer.metadata_location.clone()));
            let Some(evolved) = engine.evolved(&subject.job(table, pointer))? else { continue };
            let name = format!("{}.{}", step.key(), pointer.table);
            let prepared = if subject.defaults(table).is_empty() {
                engine.prepare_evolution(&subject.job(table, pointer), &lease.attempt).await?
            } else {
                let attempt = lease.attempt.clone();
                let base = Some(pointer.clone());
                let job = job(&subject, table, evolved, base, attempt.clone(), None, engine, context).await?;
                let staged = engine.stage(job, progress.clone()).await?;
                progress.reached(PublishStep::Staged);
                let settled = engine.settle(&staged, Some(pointer), &[], &carried(&subject, table)).await?;
                let report = E::report(&settled);
                if report.quarantined > 0 || !report.missing_required.is_empty() {
                    return Err(Error::new(
                        ErrorCode::PlanRefused,
                        format!("table `{}`: {} rows do not fit the new contract", table.name, report.quarantined),
                    )
                    .with_help("plan anew: the reasons are told there"));
                }
                let between = || progress.reached(PublishStep::ManifestsWritten);
                let (now, snapshot) = (context.clock.now(), context.ids.snapshot());
                let prepared = engine.prepare(&settled, &attempt, now, snapshot, &between).await?;
                done.files.extend(E::kept(&settled));
                done.backfilled.push(name.clone());
                prepared
            };
            progress.reached(PublishStep::MetadataWritten);
            done.files.extend(prepared.files);
            done.names.push(name);
            done.tables.push(TableEvolution {
                product: step.key(),
                table: pointer.table.clone(),
                expected: pointer.metadata_location.clone(),
                metadata_location: prepared.metadata_location,
                metadata: prepared.metadata,
            });
        }
    }
    Ok(done)
}
