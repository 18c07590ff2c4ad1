//! Tests of policies: who asks to do what, and what must be decided, by which policies.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::decision::{Action, Outcome};
use crate::diagnostic::Location;
use crate::evolution::Bump;
use crate::ids::{DomainName, Name, ProductId, TableName};
use crate::period::Period;

/// What an action is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceName {
    /// All of it: `mesh`.
    Mesh,
    /// A domain: `customer`.
    Domain(DomainName),
    /// A product: `customer/customer-360`.
    Product(ProductId),
    /// A table: `customer/customer-360.profile`.
    Table(ProductId, TableName),
    /// A column: `customer/customer-360.profile.email`; with fields of structs `….address.city`.
    Column(ProductId, TableName, Vec<String>),
}

impl ResourceName {
    /// Reads `mesh`, `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "mesh" {
            return Ok(Self::Mesh);
        }
        let Some((domain, rest)) = text.split_once('/') else { return Ok(Self::Domain(Name::new(text)?)) };
        let mut parts = rest.split('.');
        let product = ProductId { domain: Name::new(domain)?, product: Name::new(parts.next().unwrap_or_default())? };
        let Some(table) = parts.next() else { return Ok(Self::Product(product)) };
        let table = Name::new(table)?;
        let column: Vec<String> = parts.map(str::to_owned).collect();
        if column.iter().any(|name| name.trim().is_empty()) {
            return Err(format!("`{text}` names no column"));
        }
        Ok(if column.is_empty() { Self::Table(product, table) } else { Self::Column(product, table, column) })
    }

    /// The domain that it belongs to; `None` for the mesh.
    pub fn domain(&self) -> Option<&DomainName> {
        match self {
            Self::Mesh => None,
            Self::Domain(domain) => Some(domain),
            Self::Product(product) | Self::Table(product, _) | Self::Column(product, ..) => Some(&product.domain),
        }
    }

    /// The product that it is or lies in.
    pub fn product(&self) -> Option<&ProductId> {
        match self {
            Self::Mesh | Self::Domain(_) => None,
            Self::Product(product) | Self::Table(product, _) | Self::Column(product, ..) => Some(product),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Domain(domain) => domain.fmt(f),
            Self::Product(product) => product.fmt(f),
            Self::Table(product, table) => write!(f, "{product}.{table}"),
            Self::Column(product, table, column) => write!(f, "{product}.{table}.{}", column.join(".")),
        }
    }
}

/// One test of the policies.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyCase {
    /// What it shows.
    pub name: String,
    /// Where it stands; the file's path is that within the mesh's folder.
    pub location: Location,
    /// The normalised name of the domain whose test it is; `None`: the mesh's.
    pub domain: Option<String>,
    /// Who asks: `user:alice`, `service:etl`, `team:fleet-team`, `role:analyst`.
    pub principal: String,
    /// To do what.
    pub action: Action,
    /// To what.
    pub resource: ResourceName,
    /// What else is known.
    pub context: CaseContext,
    /// What the principal was granted of the resource's product.
    pub grants: Vec<CaseGrant>,
    /// What must be decided.
    pub expect: Expectation,
}

/// What is known beside principal, action and resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseContext {
    /// What for.
    pub purpose: Option<String>,
    /// The way in: `cli`, `rest`, `flight-sql`.
    pub door: Option<String>,
    /// When; `None`: at a moment of the runner's choice.
    pub time: Option<DateTime<Utc>>,
    /// What a change needs of the version, where something is applied.
    pub change: Option<Bump>,
    /// What is asked for, where a request is approved.
    pub grant: Option<RequestedGrant>,
}

/// A grant that somebody asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedGrant {
    /// Who asks for it: `user:alice`.
    pub principal: Option<String>,
    /// The role.
    pub role: Option<String>,
    /// Normalised names of the tables; empty: all that the role is offered.
    pub tables: BTreeSet<String>,
    /// The protected columns that it would show in clear, `column` or `table.column`.
    pub unmasked: BTreeSet<String>,
    /// What for.
    pub purpose: Option<String>,
    /// For how long; `None`: until it is revoked.
    pub expires: Option<Period>,
}

/// A grant that the principal of a test has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseGrant {
    /// The role.
    pub role: String,
    /// Normalised names of the tables; empty: all that the role is offered.
    pub tables: BTreeSet<String>,
    /// What for.
    pub purpose: Option<String>,
}

/// What must be decided. What is `None` may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    /// Whether it is allowed.
    pub outcome: Outcome,
    /// The ids of the policies that determine it: these, and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<BTreeSet<String>>,
    /// The columns that are masked in some row, by their paths: these, and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked: Option<BTreeSet<String>>,
    /// The columns that are not seen at all: these, and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<BTreeSet<String>>,
    /// Whether only some of the rows are seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<bool>,
}

impl Expectation {
    /// An outcome, whatever it is determined by.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, policies: None, masked: None, hidden: None, rows: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_and_written() {
        for text in ["mesh", "sales", "sales/crm", "sales/crm.leads", "sales/crm.leads.email", "a/b.c.address.city"] {
            assert_eq!(ResourceName::parse(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "sales/", "/crm", "sales/crm.", "sales/crm.leads.", "a b", "sales/crm.leads..x"] {
            assert!(ResourceName::parse(text).is_err(), "{text:?}");
        }
    }
}
