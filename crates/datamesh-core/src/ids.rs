//! Names and identifiers. Constructors check; a value that exists is valid.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};

/// A name of a domain, product or table: letters, digits, `-` and `_`, starting with a letter, at most 128 bytes.
///
/// Two names are the same after [`Name::sql`] normalisation: hyphens become underscores and letters lower case,
/// as AWS Glue demands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The name of a domain.
pub type DomainName = Name;
/// The name of a table within a product.
pub type TableName = Name;

impl Name {
    /// Checks `text` as a name; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a name must not be empty".into());
        }
        if text.len() > 128 {
            return Err(format!("a name has at most 128 characters, this one has {}", text.len()));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("`{text}` must start with a letter"));
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_')) {
            return Err(format!("`{text}` has `{}`; a name is letters, digits, `-` and `_`", bad.escape_default()));
        }
        if has_version_suffix(text) {
            return Err(format!(
                "`{text}` ends like a version; the suffix `_v<digits>` is reserved for major versions"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as SQL and the warehouse spell it: lower case, hyphens as underscores.
    pub fn sql(&self) -> String {
        self.0.to_ascii_lowercase().replace('-', "_")
    }
}

fn has_version_suffix(text: &str) -> bool {
    let text = text.to_ascii_lowercase().replace('-', "_");
    match text.rsplit_once("_v") {
        Some((_, digits)) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => false,
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A data product, written `domain/product`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProductId {
    /// The domain that publishes the product.
    pub domain: DomainName,
    /// The product's name, unique in its domain after normalising.
    pub product: Name,
}

impl ProductId {
    /// Parses `domain/product`.
    pub fn parse(text: &str) -> crate::Result<Self> {
        let invalid = |why: String| Error::new(ErrorCode::InvalidArgument, why).with_help("write `domain/product`");
        let Some((domain, product)) = text.split_once('/') else {
            return Err(invalid(format!("`{text}` names no domain")));
        };
        Ok(Self { domain: Name::new(domain).map_err(invalid)?, product: Name::new(product).map_err(invalid)? })
    }

    /// The key under which the registry keeps one major version of this product.
    pub fn key(&self, major: u64) -> ProductKey {
        ProductKey { domain: self.domain.sql(), product: self.product.sql(), major }
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.product)
    }
}

/// One major version of a product, by normalised names: the unit that has tables, publications and a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProductKey {
    /// Normalised domain name.
    pub domain: String,
    /// Normalised product name.
    pub product: String,
    /// The major version.
    pub major: u64,
}

impl ProductKey {
    /// The SQL schema and Iceberg namespace of this major version: `product_v1`.
    pub fn namespace(&self) -> String {
        format!("{}_v{}", self.product, self.major)
    }
}

impl fmt::Display for ProductKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.domain, self.namespace())
    }
}

/// A product and its major version as the command line names them: `domain/product@1`.
///
/// # Errors
/// `invalid-argument` where what follows `@` is no number.
pub fn split_major(wanted: &str) -> crate::Result<(&str, Option<u64>)> {
    let Some((product, major)) = wanted.split_once('@') else { return Ok((wanted, None)) };
    match major.strip_prefix('v').unwrap_or(major).parse() {
        Ok(major) => Ok((product, Some(major))),
        Err(_) => Err(Error::new(ErrorCode::InvalidArgument, format!("`{wanted}`: `{major}` is not a major version"))
            .with_help(format!("write a number, such as `{product}@1`"))),
    }
}

/// One attempt to publish: names its staged files, its lease and its metadata files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId(String);

impl AttemptId {
    /// Takes a fresh unique identifier, which the caller made (a UUID v7, so that folders sort by time).
    pub fn new(uuid: uuid::Uuid) -> Self {
        Self(uuid.to_string())
    }

    /// Reads an identifier that was written before.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::parse_str(text).ok().map(Self::new)
    }

    /// The text of the identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "customer-360", "daily_transactions", "V1", "x_v", "x_vintage"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "a/b", "a.b", "é", "orders_v2", "orders-v2", "ORDERS_V10", "a\n"] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Name::new("Customer-360").map(|n| n.sql()), Ok("customer_360".into()));
    }

    #[test]
    fn product_ids_are_parsed() {
        assert_eq!(ProductId::parse("sales/crm").map(|p| p.to_string()).ok(), Some("sales/crm".into()));
        assert!(ProductId::parse("crm").is_err());
        assert!(ProductId::parse("a/b/c").is_err());
    }
}
