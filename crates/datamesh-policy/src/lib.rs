//! Policies in Cedar: the schema, the entities, layered policy sets, and decisions with their reasons.
//!
//! For a resource exactly the mesh's policies and those of its own domain are asked: a domain cannot undo a `forbid` of the
//! mesh, and cannot reach another domain's resources. Cedar leaves out policies that err; here any of them denies.
//!
//! This crate must not know YAML, SQL, Arrow, the registry, a clock or any IO.

mod cases;
mod check;
mod compile;
mod decide;
mod entity;
mod explain;
mod grants;
mod judge;
mod policies;
mod principal;
mod problem;
mod read;
mod resource;
mod resource_path;
mod row_filter;
mod rule;
mod schema;

pub use cases::TestMesh;
pub use compile::{PACK, PACK_FILE};
pub use decide::{Change, ChangeKind, Context, Decision};
pub use explain::explain_principal;
pub use grants::Grants;
pub use judge::{Finding, Judge};
pub use policies::Policies;
pub use principal::ResolvedPrincipal;
pub use problem::{MESH_FILE, PolicyProblem};
pub use read::{TableDecision, WayReport};
pub use resource::{RequestFacts, Resource};
pub use resource_path::{ProductPart, ResourcePath};
pub use rule::{PolicyEffect, PolicyFailure, PolicyReason, Rule, Severity};
pub use schema::{MESH_OWNER, schema_text};
