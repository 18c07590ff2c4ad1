//! The context map: how the domains of a mesh lean on each other, by what they declare and by what their products
//! really read, and where the two disagree.

mod build;
mod claims;
mod findings;
mod layout;
mod render;
mod svg;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

pub use build::context_map;
pub use claims::{SourceClaim, source_claims};
pub use layout::{Area, Drawn, Layout, Link, layout};
pub use render::{mermaid, text, to_json};
pub use svg::svg;

use crate::contract::DataProduct;
use crate::diagnostic::Level;
use crate::domain::{Domain, KindEnd, Relationship, RelationshipKind};
use crate::lineage::Edge;
use crate::ownership::Ownership;

/// What a context map is made of.
#[derive(Clone, Copy, Debug)]
pub struct MapInput<'a> {
    /// The declared domains.
    pub domains: &'a [Domain],
    /// The owners and teams that the mesh declares.
    pub ownership: &'a Ownership,
    /// The products: one contract for each major version.
    pub products: &'a [&'a DataProduct],
    /// What publications recorded of where their tables come from.
    pub lineage: &'a [Edge],
    /// Which tables are taken from which data outside the mesh.
    pub sources: &'a [SourceClaim],
}

/// The domains of a mesh and what is between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContextMap {
    /// Every domain, by name.
    pub domains: Vec<MapDomain>,
    /// What is between them, by their names; at most one link for each direction of two domains.
    pub links: Vec<MapLink>,
    /// What disagrees, the worst first.
    pub findings: Vec<Finding>,
}

/// A domain on the map.
#[derive(Clone, Debug, PartialEq)]
pub struct MapDomain {
    /// Its name as it is written, or its SQL name where only that is known.
    pub name: String,
    /// The accountable team, where one is known.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// What it is responsible for.
    pub responsibilities: Vec<String>,
    /// Whether it has a `domain.yaml`.
    pub declared: bool,
    /// Its products' names, each once.
    pub products: Vec<String>,
    /// Its tables; those of the newest major version of each product count.
    pub tables: usize,
    /// How many domains it takes from.
    pub upstream: usize,
    /// How many domains take from it.
    pub downstream: usize,
}

impl MapDomain {
    /// The name as SQL and the warehouse spell it.
    pub fn sql(&self) -> String {
        sql(&self.name)
    }
}

/// A name as [`crate::Name::sql`] spells it.
fn sql(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// How declaration and dependencies of a link agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Declared, and so it is.
    Agreed,
    /// A product reads what no declared relationship covers.
    Undeclared,
    /// Declared, but nothing is read.
    Unsupported,
    /// Declared to go separate ways, and so it is.
    Apart,
    /// Declared to go separate ways, but a product reads the other domain's.
    Crossed,
}

impl LinkState {
    /// The state's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Undeclared => "undeclared",
            Self::Unsupported => "unsupported",
            Self::Apart => "apart",
            Self::Crossed => "crossed",
        }
    }
}

/// What is between two domains, in one direction or in both.
#[derive(Clone, Debug, PartialEq)]
pub struct MapLink {
    /// Index of the upstream domain; of the first by name where the link is symmetric.
    pub upstream: usize,
    /// Index of the downstream domain.
    pub downstream: usize,
    /// Whether neither is upstream of the other.
    pub symmetric: bool,
    /// What is declared, by either.
    pub declared: Vec<DeclaredRelationship>,
    /// What products read.
    pub dependencies: Vec<Dependency>,
    /// Whether these agree.
    pub state: LinkState,
    /// Whether it is part of a cycle of domains.
    pub cyclic: bool,
}

impl MapLink {
    /// The marks at the upstream end, each once, in the order of the kinds.
    pub fn upstream_marks(&self) -> Vec<&'static str> {
        self.marks(KindEnd::Downstream)
    }

    /// The marks at the downstream end.
    pub fn downstream_marks(&self) -> Vec<&'static str> {
        self.marks(KindEnd::Upstream)
    }

    fn marks(&self, other_end: KindEnd) -> Vec<&'static str> {
        let kinds: BTreeSet<RelationshipKind> =
            self.declared.iter().map(|declared| declared.relationship.kind).collect();
        kinds.into_iter().filter(|kind| kind.end() != other_end).map(RelationshipKind::mark).collect()
    }
}

/// A relationship and who declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredRelationship {
    /// Index of the domain that declares it.
    pub by: usize,
    /// What it declares.
    pub relationship: Relationship,
}

/// Where it shows that one product depends on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The manifest's `inputs`.
    Input,
    /// A reference, or a rule that compares: published rows are judged by the other product's.
    Reference,
    /// A column's `from`.
    From,
    /// The lineage of what is published.
    Lineage,
}

impl Evidence {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Reference => "reference",
            Self::From => "from",
            Self::Lineage => "lineage",
        }
    }
}

/// One product that depends on another domain's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The product that is read, `domain/product`.
    pub supplier: String,
    /// Index of its domain.
    pub upstream: usize,
    /// The product that reads.
    pub consumer: String,
    /// Index of its domain.
    pub downstream: usize,
    /// Where that shows.
    pub evidence: BTreeSet<Evidence>,
    /// Whether a declared relationship covers it.
    pub covered: bool,
}

/// Something that disagrees, or that nobody answers for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How much it matters: a warning, or a note.
    pub level: Level,
    /// Stable kebab-case id.
    pub id: &'static str,
    /// What disagrees: lower case, no final period.
    pub message: String,
    /// How to mend it.
    pub help: String,
    /// The domains that it is about, by name.
    pub domains: Vec<String>,
    /// The products that it is about, `domain/product`.
    pub products: Vec<String>,
}

impl ContextMap {
    /// The place of the domain of a name, compared as SQL would.
    pub fn domain(&self, name: &str) -> Option<usize> {
        self.domains.iter().position(|domain| domain.sql() == sql(name))
    }

    /// Whether there is a finding at warning level or above.
    pub fn has_warnings(&self) -> bool {
        self.findings.iter().any(|finding| finding.level <= Level::Warning)
    }
}
