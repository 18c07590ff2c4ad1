//! Plan and apply: what the manifests would change of the registry, and changing it, all of it or nothing.

mod evolve;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datamesh_core::access::{AttributeType, offers};
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::Action;
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::plan::{
    Applied, AppliedProduct, Desired, DomainStep, GovernanceStep, MeshPlan, Move, PlanOptions, Planned, PolicyNote,
    ProductAction, ProductStep, Refusal, RefusalKind, plan,
};
use datamesh_core::ports::{
    AppliedState, ApplyOutcome, ApplyRequest, CatalogProduct, Lease, NewRevision, ProductMove, PublishStep,
};
use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;
use serde_json::json;

use crate::govern::{Change, Policies, PolicyProblem, Resource, Severity};
use crate::ports::{Context, Engine, Progress};
use crate::publish::{LEASE, clean, keep_alive};

/// Compares manifests with the registry. Where a published table is promised more than before, its rows are judged, and
/// what must be staged for that goes below `scratch`, which is the caller's to remove. Nothing is changed but the log of
/// decisions.
///
/// # Errors
/// A registry that cannot be read; data that cannot be read. What stands against the plan is no error but in its answer.
pub async fn plan_mesh<E: Engine>(
    desired: &Desired,
    options: PlanOptions,
    scratch: PathBuf,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
) -> Result<Planned> {
    context.authorize_mesh(Action::Describe, json!({ "operation": "plan" })).await?;
    let state = context.registry.applied_state().await?;
    let mut applied = applied(context, state).await?;
    let mut planned = plan(desired, &applied, options);
    judge_plan(&mut planned, &applied, engine, context).await?;
    if planned.plan.products.is_empty() && planned.plan.moves.is_empty() {
        return Ok(planned);
    }
    // Only a plan that changes something has to say who feels it.
    applied.edges = context.registry.lineage(None).await?;
    if !applied.edges.is_empty() {
        planned = plan(desired, &applied, options);
        judge_plan(&mut planned, &applied, engine, context).await?;
    }
    if planned.refusals.is_empty() {
        let found = evolve::judge_published(&planned.plan, scratch, engine, context, &progress).await?;
        planned.refusals.extend(found);
    }
    Ok(planned)
}

/// What a plan changes, for whoever must allow it.
fn touched_resources(plan: &MeshPlan) -> Vec<Resource<'_>> {
    let mut resources: Vec<Resource<'_>> = Vec::new();
    let of_domain = |name: &String| plan.domains.iter().find(|step| step.name.sql() == *name);
    if let Some(step) = &plan.governance {
        let own = step.domain.as_ref();
        let named = own.and_then(|name| {
            of_domain(name)
                .map(|step| &step.name)
                .or_else(|| plan.products.iter().map(|step| &step.product.domain).find(|domain| domain.sql() == *name))
        });
        resources.push(named.map_or(Resource::Mesh, Resource::Domain));
    }
    resources.extend(plan.domains.iter().map(|step| Resource::Domain(&step.name)));
    resources.extend(plan.products.iter().map(|step| Resource::Product(&step.contract)));
    if resources.is_empty() || !plan.moves.is_empty() {
        resources.push(Resource::Mesh);
    }
    resources
}

/// What policies say against a plan: those that hold once it is applied.
async fn judge_plan<E: Engine>(planned: &mut Planned, applied: &Applied, engine: &E, context: &Context) -> Result<()> {
    let step = planned.plan.governance.as_ref();
    let applied_governance = applied.governance.as_ref().map(|(_, governance)| governance.clone()).unwrap_or_default();
    let governance = step.map_or(&applied_governance, |step| &step.governance);
    let domains = planned.plan.domains.iter().fold(applied.domains.clone(), |mut domains, step| {
        domains.retain(|domain| domain.name.sql() != step.name.sql());
        domains.extend(step.domain.clone());
        domains
    });
    planned.notes.clear();
    let policies = match if step.is_some() {
        Policies::compile(governance, &domains)
    } else {
        Policies::load(governance, &domains)
    } {
        Ok(policies) => policies,
        Err(problems) => {
            planned.refusals.extend(problems.iter().map(|problem| {
                let help = problem.help.clone().unwrap_or_else(|| "mend it, and plan again".to_owned());
                Refusal::new(RefusalKind::InvalidPolicy, place(problem), &problem.message, help)
            }));
            return Ok(());
        }
    };
    let resolved = policies.principal_of(&context.principal.id, context.owns_mesh);
    let actor = resolved.map_err(|why| Error::new(ErrorCode::InvalidArgument, why))?;
    let circumstances = context.circumstances();
    let mut judge = policies.judging(&actor, &circumstances);
    for step in planned.plan.products.iter().filter(|step| step.action != ProductAction::Retire) {
        let key = former_key(&planned.plan, step);
        let before = applied.products.iter().find(|product| product.key == key).map(|product| &product.contract);
        // A move alone breaks nothing that the plan does not refuse itself.
        let before = before.map(|before| DataProduct { id: step.contract.id.clone(), ..before.clone() });
        let mut change = Change::between(before.as_ref(), &step.contract, planned.plan.options.acknowledge);
        let told = |refusal: &Refusal| refusal.subject == step.product.to_string();
        change.enough |= planned.refusals.iter().any(told);
        for finding in judge.judge(&step.contract, &change) {
            let help = finding.help.clone().unwrap_or_else(|| "see `datamesh policy check`".to_owned());
            let text = format!("{} (policy {})", finding.message, finding.policy);
            if finding.stops() {
                planned.refusals.push(Refusal::new(RefusalKind::PolicyForbids, &finding.resource, text, help));
            } else if finding.severity == Severity::Warn && finding.waived_by.is_none() {
                planned.notes.push(PolicyNote {
                    policy: finding.policy,
                    subject: finding.resource,
                    message: finding.message,
                    help,
                });
            }
        }
        planned.refusals.extend(row_filters(&step.contract, &governance.attributes, engine));
    }
    Ok(())
}

/// Where a problem is: a file and its line.
fn place(problem: &PolicyProblem) -> String {
    let location = &problem.location;
    match location.line {
        0 if problem.path.is_empty() => location.file.clone(),
        0 => format!("{} {}", location.file, problem.path.join(".")),
        line => format!("{}:{line}", location.file),
    }
}

/// Row filters that cannot be used.
fn row_filters<E: Engine>(
    contract: &DataProduct,
    attributes: &BTreeMap<String, AttributeType>,
    engine: &E,
) -> Vec<Refusal> {
    let offers = match offers(contract) {
        Ok(offers) => offers,
        Err(why) => {
            let help = "see `access:` in the manifest";
            return vec![Refusal::new(RefusalKind::InvalidPolicy, &contract.id, why, help)];
        }
    };
    let mut found = Vec::new();
    for offer in &offers {
        let Some(condition) = &offer.rows else { continue };
        for table in contract.tables.iter().filter(|table| offer.covers(table)) {
            if let Err(problem) = engine.check_row_filter(table, attributes, condition) {
                let message = format!("the row filter of role `{}`, `{condition}`: {}", offer.role, problem.message);
                let help = problem.help.unwrap_or_else(|| "mend `rows:` in the manifest".to_owned());
                let subject = format!("{}.{}", contract.id, table.name);
                found.push(Refusal::new(RefusalKind::InvalidPolicy, subject, message, help));
            }
        }
    }
    found
}

async fn applied(context: &Context, state: AppliedState) -> Result<Applied> {
    let product = |product: CatalogProduct| AppliedProduct {
        tables: product.tables.into_iter().map(|pointer| (pointer.table, pointer.metadata_location)).collect(),
        key: product.key,
        revision: product.revision.number,
        contract: product.revision.contract,
    };
    Ok(Applied {
        mesh: context.registry.mesh_identity().await?.id.to_string(),
        generation: state.generation,
        domains: state.domains,
        governance: state.governance,
        products: state.products.into_iter().map(product).collect(),
        edges: Vec::new(),
    })
}

/// What was applied.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyReport {
    /// The registry's generation now.
    pub generation: u64,
    /// Whether anything was changed.
    pub changed: bool,
    /// What changed of principals and policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governance: Option<GovernanceStep>,
    /// Domains that were made, changed or removed.
    pub domains: Vec<DomainStep>,
    /// Products that moved.
    pub moves: Vec<Move>,
    /// Major versions that were made, changed or retired.
    pub products: Vec<ProductStep>,
    /// Published tables whose schema changed, as `domain.product_v1.table`.
    pub evolved: Vec<String>,
    /// Of those, the ones that were written anew, with the default of a new column in the old rows.
    pub backfilled: Vec<String>,
}

fn stale(what: &str) -> Error {
    Error::new(ErrorCode::PlanStale, format!("{what} since the plan was made; nothing was changed"))
        .with_help("plan anew, and see what has become of it")
}

/// Applies a plan: all of it in one transaction, or nothing. Ends early, cleanly, when `stop` does.
///
/// # Errors
/// `plan-stale` where what it was made from has changed; `plan-refused` where published data does not allow it any more.
pub async fn apply_plan<E: Engine>(
    plan: MeshPlan,
    scratch: PathBuf,
    engine: &E,
    context: &Context,
    progress: Arc<dyn Progress>,
    stop: impl Future<Output = ()>,
) -> Result<ApplyReport> {
    let report = |plan: MeshPlan, generation: u64, done: &evolve::Evolved| ApplyReport {
        generation,
        changed: !plan.is_empty(),
        governance: plan.governance,
        domains: plan.domains,
        moves: plan.moves,
        products: plan.products,
        evolved: done.names.clone(),
        backfilled: done.backfilled.clone(),
    };
    let touched: Vec<String> = plan.products.iter().map(|step| step.product.to_string()).collect();
    let details = json!({ "operation": "apply", "generation": plan.generation, "products": touched });
    let state = context.registry.applied_state().await?;
    // Whoever changes a product must be allowed to by what it is, not only by what it would be: a manifest names its owner.
    let mut resources = touched_resources(&plan);
    let new = plan.products.iter().filter(|step| step.revision == 0);
    resources.extend(new.map(|step| Resource::Domain(&step.product.domain)));
    resources.extend(plan.products.iter().filter_map(|step| {
        let key = former_key(&plan, step);
        let before = state.products.iter().find(|product| product.key == key)?;
        Some(Resource::Product(&before.revision.contract))
    }));
    let decision = context.authorize_all(Action::Apply, &resources, details).await?;
    progress.reached(PublishStep::Authorized);
    if plan.is_empty() {
        return Ok(report(plan, state.generation, &evolve::Evolved::default()));
    }
    check_fresh(&plan, &state)?;
    let leases = leases(&plan, context);
    for lease in &leases {
        context.registry.open_lease(lease).await?;
    }
    progress.reached(PublishStep::Leased);
    let recording = AtomicBool::new(false);
    let attempts: Vec<AttemptId> = leases.iter().map(|lease| lease.attempt.clone()).collect();
    let work = async {
        let refused = evolve::judge_published(&plan, scratch, engine, context, &progress).await?;
        if let Some(refusal) = refused.first() {
            let message = format!("`{}`: {}; nothing was changed", refusal.subject, refusal.message);
            return Err(Error::new(ErrorCode::PlanRefused, message).with_help(refusal.help.clone()));
        }
        let done = evolve::evolve(&plan, &leases, engine, context, &progress).await?;
        let request = request(&plan, attempts.clone(), &done, decision, context)?;
        recording.store(true, Ordering::SeqCst);
        match context.registry.apply(&request, progress.as_ref()).await? {
            ApplyOutcome::Applied(generation) => {
                progress.reached(PublishStep::Committed);
                Ok((generation, done))
            }
            ApplyOutcome::Moved => Err(stale("somebody else changed the registry")),
        }
    };
    let outcome = keep_alive(context, &attempts, work, stop).await;
    let failure = outcome.as_ref().err().map(Error::code);
    let keep: HashSet<String> = outcome.as_ref().map(|(_, done)| done.files.clone()).unwrap_or_default();
    let recorded = failure.is_some() && recording.load(Ordering::SeqCst);
    for lease in &leases {
        clean(engine, context, lease, keep.clone(), failure, recorded).await;
    }
    progress.reached(PublishStep::Cleaned);
    let (generation, done) = outcome?;
    Ok(report(plan, generation, &done))
}

/// Whether every revision and pointer is as the plan saw it.
fn check_fresh(plan: &MeshPlan, state: &AppliedState) -> Result<()> {
    if plan.generation != state.generation {
        let message =
            format!("the registry has changed: it was generation {}, and is {}", plan.generation, state.generation);
        return Err(stale(&message));
    }
    let now: BTreeMap<&ProductKey, &CatalogProduct> =
        state.products.iter().map(|product| (&product.key, product)).collect();
    for step in &plan.products {
        let key = former_key(plan, step);
        let product = now.get(&key);
        if product.map_or(0, |product| product.revision.number) != step.revision {
            return Err(stale(&format!("the contract of `{}` has changed", step.product)));
        }
        for (table, location) in &step.tables {
            let pointer = product.and_then(|product| product.tables.iter().find(|pointer| pointer.table == *table));
            if pointer.is_none_or(|pointer| pointer.metadata_location != *location) {
                return Err(stale(&format!("somebody published table `{table}` of `{}`", step.product)));
            }
        }
    }
    Ok(())
}

/// The key that a step's product has before the plan is applied.
fn former_key(plan: &MeshPlan, step: &ProductStep) -> ProductKey {
    let moved = plan.moves.iter().find(|moved| moved.to == step.product);
    moved.map_or_else(|| step.key(), |moved| moved.from.key(step.key().major))
}

/// A lease for each product whose published tables may be written.
fn leases(plan: &MeshPlan, context: &Context) -> Vec<Lease> {
    let written = plan.products.iter().filter(|step| evolve::may_evolve(step));
    written
        .map(|step| Lease {
            attempt: AttemptId::new(context.ids.attempt()),
            product: former_key(plan, step),
            tables: step.tables.keys().cloned().collect(),
            folders: step
                .tables
                .values()
                .filter_map(|location| Some(location.rsplit_once("/metadata/")?.0.to_owned()))
                .collect(),
            expires_at: context.clock.now() + LEASE,
        })
        .collect()
}

fn request(
    plan: &MeshPlan,
    attempts: Vec<AttemptId>,
    done: &evolve::Evolved,
    decision: u64,
    context: &Context,
) -> Result<ApplyRequest> {
    let removed = plan.domains.iter().filter(|step| step.domain.is_none());
    Ok(ApplyRequest {
        attempts,
        expected_generation: plan.generation,
        principal: context.principal.id.clone(),
        at: context.clock.now(),
        decision,
        domains: plan.domains.iter().filter_map(|step| step.domain.clone()).collect(),
        removed_domains: removed.map(|step| step.name.sql()).collect(),
        moves: plan.moves.iter().map(|moved| ProductMove { from: moved.from.key(0), to: moved.to.key(0) }).collect(),
        revisions: plan
            .products
            .iter()
            .map(|step| NewRevision { expected: step.revision, contract: step.contract.clone() })
            .collect(),
        tables: done.tables.clone(),
        pinned: done.judged.clone(),
        plan: serde_json::to_value(plan)
            .map_err(|error| Error::new(ErrorCode::Internal, "the plan cannot be written").with_source(error))?,
        governance: plan.governance.as_ref().map(|step| step.governance.clone()),
    })
}
