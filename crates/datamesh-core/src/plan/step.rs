//! The steps of a plan.

use std::collections::BTreeMap;
use std::fmt;

use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Bump, Consumer, FieldChange};
use crate::contract::DataProduct;
use crate::domain::Domain;
use crate::ids::{Name, ProductId, ProductKey};

/// What becomes of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainAction {
    /// It is new.
    Create,
    /// Its `domain.yaml` says something else.
    Update,
    /// It has no `domain.yaml` any more.
    Remove,
}

/// A domain that is made, changed or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainStep {
    /// What becomes of it.
    pub action: DomainAction,
    /// Its name.
    pub name: Name,
    /// The fields that change, as `name: before -> after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What is kept of it; absent where it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
}

/// A product that goes to another domain, or gets another name, with all its major versions and their history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// What it was.
    pub from: ProductId,
    /// What it will be.
    pub to: ProductId,
    /// The products that read it by its former name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Consumer>,
}

/// What becomes of a major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProductAction {
    /// The product is new.
    Create,
    /// A major version beside those there are.
    NewMajor,
    /// It changes within its major version.
    Update,
    /// It changes, and will be gone after its end of support.
    Deprecate,
    /// It is gone: neither published nor read.
    Retire,
}

impl ProductAction {
    /// What a reader is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::NewMajor => "new-major",
            Self::Update => "update",
            Self::Deprecate => "deprecate",
            Self::Retire => "retire",
        }
    }
}

impl fmt::Display for ProductAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A major version that is made, changed or retired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProductStep {
    /// What becomes of it.
    pub action: ProductAction,
    /// The product, as it will be called.
    pub product: ProductId,
    /// The version of the revision before, or with a new major of the newest older one; absent for a new product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Version>,
    /// The version of the new revision.
    pub version: Version,
    /// Number of the revision that the plan was made from; 0: there was none.
    pub revision: u64,
    /// The step of the version that the changes need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Bump>,
    /// What changes, field by field. For a new major: what it changes of the newest older one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// Who reads it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Consumer>,
    /// The metadata documents of its published tables that the plan was made from, by normalised name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, String>,
    /// The contract of the new revision.
    pub contract: DataProduct,
}

impl ProductStep {
    /// Whether something changes that tables hold, or that their rows are judged by.
    pub fn changes_tables(&self) -> bool {
        self.changes.iter().any(|change| change.table.is_some())
            || self.contract.tables.iter().flat_map(|table| &table.columns).any(|column| column.renamed_from.is_some())
    }

    /// The major version's key, as it will be.
    pub fn key(&self) -> ProductKey {
        self.contract.key()
    }
}
