//! References: what a table's rows must find in another table, and how tables of other products are named.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::datatype::DataType;
use crate::ids::{Name, ProductId, TableName};
use crate::quality::Severity;

/// A table by name: `domain/product.table`, or `table` of the same product.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableReference {
    /// The product; `None` is the product that says so.
    pub product: Option<ProductId>,
    /// The table.
    pub table: TableName,
}

impl TableReference {
    /// Parses `domain/product.table` or `table`.
    ///
    /// # Errors
    /// Says in one clause what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (product, parts) = split(text)?;
        match parts.as_slice() {
            [table] => Ok(Self { product, table: Name::new(table)? }),
            _ => Err(format!("`{text}` does not name a table")),
        }
    }

    /// Parses `domain/product.table.column` or `table.column`.
    ///
    /// # Errors
    /// Says in one clause what is wrong with the text.
    pub fn parse_column(text: &str) -> Result<(Self, String), String> {
        let (product, parts) = split(text)?;
        match parts.as_slice() {
            [table, column] if !column.is_empty() => {
                Ok((Self { product, table: Name::new(table)? }, (*column).to_owned()))
            }
            _ => Err(format!("`{text}` does not name a table's column")),
        }
    }

    /// Whether it means the table `name` of the same product.
    pub fn is_own(&self, name: &TableName) -> bool {
        self.product.is_none() && self.table.sql() == name.sql()
    }
}

/// The product, where one is named, and the names after it. Within a product's part there are no dots.
fn split(text: &str) -> Result<(Option<ProductId>, Vec<&str>), String> {
    let text = text.trim();
    match text.split_once('/') {
        Some((domain, rest)) => {
            let mut parts = rest.split('.');
            let product = parts.next().unwrap_or_default();
            let product = ProductId { domain: Name::new(domain)?, product: Name::new(product)? };
            Ok((Some(product), parts.collect()))
        }
        None => Ok((None, text.split('.').collect())),
    }
}

impl fmt::Display for TableReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.product {
            Some(product) => write!(f, "{product}.{}", self.table),
            None => write!(f, "{}", self.table),
        }
    }
}

impl TryFrom<String> for TableReference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<TableReference> for String {
    fn from(reference: TableReference) -> Self {
        reference.to_string()
    }
}

/// A promise that each row's values are found in another table. A row with a null among them refers to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// The referring columns, in order.
    pub columns: Vec<String>,
    /// The table that has the keys.
    pub to: TableReference,
    /// Its columns, in the same order.
    pub at: Vec<String>,
    /// An error quarantines the row; a warning or an information only counts it.
    #[serde(default)]
    pub severity: Severity,
    /// Why it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An SQL condition: only rows that meet it are judged.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// Rule word of a row whose values are not found where they refer to.
pub const RULE_REFERENCES: &str = "references";

/// Rule word of rows that are published already and would lose what they refer to.
pub const PUBLISHED_REFERENCES: &str = "publishedReferences";

impl Reference {
    /// The referring columns as reasons name them: `origin+year`.
    pub fn path(&self) -> String {
        self.columns.join("+")
    }

    /// Whether rows that find nothing are held back. Where that is known too late, the publication is rejected instead.
    pub fn quarantines(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Whether values of two columns can be the same: one type, whole numbers of any width, or text.
pub fn comparable(a: &DataType, b: &DataType) -> bool {
    use DataType as T;
    match (a, b) {
        (T::Int | T::Long, T::Int | T::Long) | (T::String | T::Uuid, T::String | T::Uuid) => true,
        _ => a == b && a.is_scalar(),
    }
}

/// A published table that was read during an audit, with the state it was read in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedTable {
    /// As the contract names it.
    pub table: TableReference,
    /// The product's contract version, or absent for a table of the same attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The publication that last wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<u64>,
    /// Its metadata document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_location: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_columns_are_parsed() {
        let (table, column) = TableReference::parse_column("geo/countries.countries.code").expect("a column");
        assert_eq!((table.to_string().as_str(), column.as_str()), ("geo/countries.countries", "code"));
        let (table, column) = TableReference::parse_column("customers.id").expect("a column");
        assert_eq!((table.product, table.table.as_str(), column.as_str()), (None, "customers", "id"));
        assert_eq!(TableReference::parse("a/b-c.d").map(|table| table.to_string()), Ok("a/b-c.d".into()));
        for bad in ["", "a", "a/b", "a/b.c", "a.b.c", "a/b.c.d.e", "a/.c.d", "/b.c.d", "a/b.c."] {
            assert!(TableReference::parse_column(bad).is_err(), "{bad}");
        }
        for bad in ["", "a.b", "a/b", "a/b.c.d", "a/b."] {
            assert!(TableReference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_survives_the_registrys_form() {
        let reference = Reference {
            columns: vec!["a".into()],
            to: TableReference::parse("x/y.z").expect("a table"),
            at: vec!["b".into()],
            severity: Severity::Warning,
            description: None,
            filter: None,
        };
        let text = serde_json::to_string(&reference).expect("text");
        assert_eq!(text, r#"{"columns":["a"],"to":"x/y.z","at":["b"],"severity":"warning"}"#);
        assert_eq!(serde_json::from_str::<Reference>(&text).expect("a reference"), reference);
    }
}
