//! What a mesh's manifests would change of the applied state: domains and products made, changed, moved and retired, and
//! why some of it cannot be. Pure.
//!
//! [`plan`] compares contracts, not texts: comments and the order of keys make no step.

mod changes;
mod compare;
mod consumers;
mod governance;
mod refusal;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use changes::{Bump, FieldChange};
pub use compare::plan;
pub use consumers::Consumer;
pub use governance::GovernanceStep;
pub use refusal::{Refusal, RefusalKind};
pub use step::{DomainAction, DomainStep, Move, ProductAction, ProductStep};

use crate::access::Governance;
use crate::contract::DataProduct;
use crate::domain::Domain;
use crate::ids::ProductKey;
use crate::lineage::Edge;

/// Version of the serialised form of [`MeshPlan`].
pub const PLAN_FORMAT: u32 = 2;

/// Which part of the mesh the manifests tell all of: what is not among them there is to be retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// The whole mesh.
    Mesh,
    /// One domain, by its normalised name.
    Domain(String),
    /// Only the products that are given; nothing is retired.
    Products,
}

impl Scope {
    /// Whether the manifests would hold the products of this domain.
    fn covers(&self, domain: &str) -> bool {
        match self {
            Self::Mesh => true,
            Self::Domain(own) => own == domain,
            Self::Products => false,
        }
    }
}

/// What the manifests say.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The domains that have a `domain.yaml`.
    pub domains: Vec<Domain>,
    /// The products, each major version.
    pub products: Vec<DataProduct>,
    /// What the mesh agrees on; `None` leaves what holds.
    pub governance: Option<Governance>,
    /// What of the mesh this is all of.
    pub scope: Scope,
}

/// A major version as the registry has it.
#[derive(Clone, Debug)]
pub struct AppliedProduct {
    /// Its key.
    pub key: ProductKey,
    /// Number of its newest revision.
    pub revision: u64,
    /// The newest revision's contract.
    pub contract: DataProduct,
    /// The metadata documents of its published tables, by normalised name.
    pub tables: BTreeMap<String, String>,
}

/// The registry's state, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The mesh's identity.
    pub mesh: String,
    /// How often it was applied to.
    pub generation: u64,
    /// The applied domains.
    pub domains: Vec<Domain>,
    /// What the mesh agreed on, with the number of its revision.
    pub governance: Option<(u64, Governance)>,
    /// The applied products.
    pub products: Vec<AppliedProduct>,
    /// The lineage of what is published. It only says who is affected; without it consumers are those that declare it.
    pub edges: Vec<Edge>,
}

/// What whoever plans allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanOptions {
    /// Products that have consumers may be retired.
    pub allow_retire: bool,
    /// Changes of which the text does not tell whether they break anything are known to break nothing.
    pub acknowledge: bool,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPlan {
    /// Version of this form, [`PLAN_FORMAT`].
    pub format: u32,
    /// The mesh's identity.
    pub mesh: String,
    /// The registry's generation that the plan was made from.
    pub generation: u64,
    /// What was allowed.
    pub options: PlanOptions,
    /// What changes of principals and policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<GovernanceStep>,
    /// Domains that are made, changed or removed.
    pub domains: Vec<DomainStep>,
    /// Products that move, before anything else is done to them.
    pub moves: Vec<Move>,
    /// Major versions that are made, changed or retired, by key.
    pub products: Vec<ProductStep>,
}

impl MeshPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.governance.is_none() && self.domains.is_empty() && self.moves.is_empty() && self.products.is_empty()
    }
}

/// Something that a policy warns of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyNote {
    /// The policy.
    pub policy: String,
    /// What it is about, as `domain/product.table.column`.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// A plan with what stands against it. Only a plan without refusals may be applied.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The steps, those included that are refused.
    pub plan: MeshPlan,
    /// Why it cannot be applied, by product.
    pub refusals: Vec<Refusal>,
    /// What policies only warn of.
    pub notes: Vec<PolicyNote>,
    /// How many major versions stay as they are.
    pub unchanged: usize,
}
