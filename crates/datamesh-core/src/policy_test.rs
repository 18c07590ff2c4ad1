//! Tests of policies: what somebody asks, and what they should be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::access::AttributeValue;
use crate::decision::{Action, Outcome};
use crate::diagnostic::Location;
use crate::evolution::Bump;
use crate::ids::{DomainName, Name, ProductId, TableName};

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
    /// Reads `mesh`, `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`. The major version of
    /// `product@2` is left out, and a port of `domain/product#port` stands for its product.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "mesh" {
            return Ok(Self::Mesh);
        }
        let Some((domain, rest)) = text.split_once('/') else { return Ok(Self::Domain(Name::new(text)?)) };
        let (rest, port) = rest.split_once('#').map_or((rest, None), |(rest, port)| (rest, Some(port)));
        let mut parts = rest.split('.');
        let product = parts.next().unwrap_or_default();
        let (product, major) =
            product.split_once('@').map_or((product, None), |(product, major)| (product, Some(major)));
        if major.is_some_and(|major| major.parse::<u64>().is_err()) {
            return Err(format!("`{text}` names no major version"));
        }
        let product = ProductId { domain: Name::new(domain)?, product: Name::new(product)? };
        if let Some(port) = port {
            let alone = !port.trim().is_empty() && parts.next().is_none();
            return if alone {
                Ok(Self::Product(product))
            } else {
                Err(format!("`{text}` names no port of a product"))
            };
        }
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

/// A case with the place where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyCase {
    /// The case.
    pub test: PolicyTest,
    /// Where it stands; the file's path is that within the mesh's folder.
    pub location: Location,
    /// The normalised name of the domain whose case it is; `None`: the mesh's.
    pub domain: Option<String>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTest {
    /// What the case shows.
    pub name: String,
    /// Who asks: `alice`, `service:etl`, `team:fleet-team`, `role:analyst`.
    pub principal: String,
    /// To do what.
    pub action: Action,
    /// To what: `mesh`, `domain`, `domain/product`, `domain/product.table`, `domain/product.table.column`,
    /// `domain/product#port`; `product@2` where another major is meant than the newest.
    pub resource: String,
    /// What else is known.
    #[serde(default)]
    pub context: PolicyTestContext,
    /// The answer.
    pub expect: Expectation,
}

/// What else is known of a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyTestContext {
    /// What it is for.
    pub purpose: Option<String>,
    /// When; now where absent.
    pub time: Option<DateTime<Utc>>,
    /// Through which door; `query` where absent.
    pub door: Option<String>,
    /// Whether the principal owns the embedded mesh.
    pub owns_mesh: bool,
    /// Attributes that the principal has in this case, beside its own.
    pub attributes: BTreeMap<String, AttributeValue>,
    /// Grants that the principal has in this case, for the product that is asked about. They are the only ones.
    pub grants: Vec<PolicyTestGrant>,
    /// The step of the version that the change needs, for `apply`; its change is an update then.
    pub needs: Option<Bump>,
    /// The step of the version that it takes.
    pub gives: Option<Bump>,
    /// Who asked, for `approve`.
    pub requester: Option<String>,
}

/// A grant of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTestGrant {
    /// The role.
    pub role: String,
    /// The tables; empty: all that the role is offered.
    #[serde(default)]
    pub tables: BTreeSet<String>,
    /// What for.
    #[serde(default)]
    pub purpose: Option<String>,
    /// From when on it no longer counts.
    #[serde(default)]
    pub expires: Option<DateTime<Utc>>,
    /// The team it was granted to, where it is not the principal's own.
    #[serde(default)]
    pub team: Option<String>,
}

/// What a case expects. What is absent is not looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// The answer.
    pub outcome: Outcome,
    /// The ids of the policies that decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<BTreeSet<String>>,
    /// Columns that are masked in every way that shows them, `column.field`, and their masks; of a table that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<BTreeMap<String, String>>,
    /// Columns that are not seen at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<BTreeSet<String>>,
    /// The conditions of the row filters, one a way; empty: every row is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<BTreeSet<String>>,
    /// Findings, `policy resource`, for `publish` and `apply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<BTreeSet<String>>,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTestResult {
    /// The case's name.
    pub name: String,
    /// Where it was not as expected: what was expected and what it is. Empty: it passed.
    pub failures: Vec<String>,
    /// Why it was decided so, in words.
    pub explanation: Vec<String>,
}

impl PolicyTestResult {
    /// Whether all is as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
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
        for text in ["sales/crm@2", "sales/crm#rest", "sales/crm@2#rest"] {
            assert_eq!(ResourceName::parse(text).map(|name| name.to_string()), Ok("sales/crm".to_owned()));
        }
        for text in [
            "",
            "sales/",
            "/crm",
            "sales/crm.",
            "sales/crm.leads.",
            "a b",
            "sales/crm.leads..x",
            "a/b@x",
            "a/b#",
            "a/b.c#d",
        ] {
            assert!(ResourceName::parse(text).is_err(), "{text:?}");
        }
    }
}
