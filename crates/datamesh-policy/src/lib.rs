//! Policies in Cedar: the schema, the entities, layered policy sets, and decisions with their reasons.
//!
//! For a resource exactly the mesh's policies and those of its own domain are asked: a domain cannot undo a `forbid` of the
//! mesh, and cannot reach another domain's resources. Cedar leaves out policies that err; here any of them denies.
//!
//! This crate must not know YAML, SQL, Arrow, the registry, a clock or any IO.

mod check;
mod compile;
mod decide;
mod entity;
mod grants;
mod policies;
mod principal;
mod problem;
mod read;
mod resource;
mod row_filter;
mod rule;
mod schema;

pub use compile::{PACK, PACK_FILE};
pub use decide::{Change, ChangeKind, Context, Decision};
pub use grants::Grants;
pub use policies::Policies;
pub use principal::ResolvedPrincipal;
pub use problem::{MESH_FILE, PolicyProblem};
pub use read::{TableDecision, WayReport};
pub use resource::{RequestFacts, Resource};
pub use rule::{PolicyEffect, PolicyFailure, PolicyReason, Rule, Severity};
pub use schema::{MESH_OWNER, schema_text};
