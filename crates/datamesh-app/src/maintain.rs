//! Looking after a mesh: what crashed publishers left behind is removed once their leases have expired.

use std::collections::HashSet;

use datamesh_core::Result;
use datamesh_core::decision::Action;
use datamesh_core::ports::Lease;
use serde::Serialize;
use serde_json::json;

use crate::ports::{Context, Engine};

/// What `maintain` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintainReport {
    /// Attempts whose leases had expired.
    pub expired_attempts: Vec<String>,
    /// Files deleted.
    pub deleted_files: u64,
}

/// Reclaims what expired leases left behind, and nothing that is referenced.
pub async fn maintain<E: Engine>(engine: &E, context: &Context) -> Result<MaintainReport> {
    context.authorize(Action::Administer, "mesh", json!({ "operation": "maintain" })).await?;
    let mut report = MaintainReport::default();
    for lease in context.registry.claim_expired_leases(context.clock.now()).await? {
        let keep = referenced(engine, context, &lease).await?;
        report.deleted_files += engine.reclaim(&lease, &keep).await?;
        context.registry.close_lease(&lease.attempt).await?;
        report.expired_attempts.push(lease.attempt.to_string());
    }
    Ok(report)
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
