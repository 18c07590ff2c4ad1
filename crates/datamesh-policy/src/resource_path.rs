//! Resources by name, as tests of policies, waivers and `policy explain` give them.

use std::fmt;

use datamesh_core::contract::DataProduct;
use datamesh_core::ids::{Name, ProductId};

use crate::resource::Resource;

/// The name of a resource: `mesh`, `domain`, `domain/product`, `domain/product@2.table`, `domain/product.table.column.field`,
/// `domain/product#port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourcePath {
    /// The mesh.
    Mesh,
    /// A domain.
    Domain(Name),
    /// A product, or what lies in it.
    Product {
        /// The product.
        id: ProductId,
        /// The major version; `None`: the one that a bare name means.
        major: Option<u64>,
        /// What of it.
        part: ProductPart,
    },
}

/// What of a product is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProductPart {
    /// All of it.
    Whole,
    /// A table.
    Table(String),
    /// A column, or a field of one.
    Column(String, Vec<String>),
    /// A port.
    Port(String),
}

impl ResourcePath {
    /// Reads the name of a resource.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "mesh" {
            return Ok(Self::Mesh);
        }
        let Some((domain, rest)) = text.split_once('/') else { return Name::new(text).map(Self::Domain) };
        let domain = Name::new(domain)?;
        let end = rest.find(['@', '.', '#']).unwrap_or(rest.len());
        let product = Name::new(&rest[..end])?;
        let mut rest = &rest[end..];
        let mut major = None;
        if let Some(after) = rest.strip_prefix('@') {
            let end = after.find(['.', '#']).unwrap_or(after.len());
            let number = after[..end].strip_prefix('v').unwrap_or(&after[..end]);
            major = Some(number.parse().map_err(|_| format!("`{text}`: `{number}` is not a major version"))?);
            rest = &after[end..];
        }
        let empty = || format!("`{text}` ends where a name should follow");
        let part = if let Some(port) = rest.strip_prefix('#') {
            ProductPart::Port(Some(port).filter(|port| !port.is_empty()).ok_or_else(empty)?.to_owned())
        } else if let Some(names) = rest.strip_prefix('.') {
            let mut names = names.split('.').map(str::to_owned);
            let table = names.next().filter(|table| !table.is_empty()).ok_or_else(empty)?;
            let path: Vec<String> = names.collect();
            if path.iter().any(String::is_empty) {
                return Err(empty());
            }
            if path.is_empty() { ProductPart::Table(table) } else { ProductPart::Column(table, path) }
        } else {
            ProductPart::Whole
        };
        Ok(Self::Product { id: ProductId { domain, product }, major, part })
    }

    /// The resource of this name among products.
    ///
    /// # Errors
    /// That there is none.
    pub fn find<'a>(&'a self, contracts: impl IntoIterator<Item = &'a DataProduct>) -> Result<Resource<'a>, String> {
        let (id, major, part) = match self {
            Self::Mesh => return Ok(Resource::Mesh),
            Self::Domain(name) => return Ok(Resource::Domain(name)),
            Self::Product { id, major, part } => (id, major, part),
        };
        let same = |contract: &&DataProduct| {
            contract.id.key(0) == id.key(0) && major.is_none_or(|major| contract.version.major == major)
        };
        let contract = contracts.into_iter().filter(same).max_by_key(|contract| contract.preference());
        let contract = contract.ok_or_else(|| match major {
            Some(major) => format!("there is no product {id} of major version {major}"),
            None => format!("there is no product {id}"),
        })?;
        let table = |name: &str| {
            contract.table(name).ok_or_else(|| {
                let tables: Vec<&str> = contract.tables.iter().map(|table| table.name.as_str()).collect();
                format!("{id} has no table `{name}`; its tables are: {}", tables.join(", "))
            })
        };
        Ok(match part {
            ProductPart::Whole => Resource::Product(contract),
            ProductPart::Table(name) => Resource::Table(contract, table(name)?),
            ProductPart::Column(name, path) => Resource::Column(contract, table(name)?, path),
            ProductPart::Port(name) => Resource::Port(contract, name),
        })
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Domain(name) => name.fmt(f),
            Self::Product { id, major, part } => {
                id.fmt(f)?;
                if let Some(major) = major {
                    write!(f, "@{major}")?;
                }
                match part {
                    ProductPart::Whole => Ok(()),
                    ProductPart::Table(table) => write!(f, ".{table}"),
                    ProductPart::Column(table, path) => write!(f, ".{table}.{}", path.join(".")),
                    ProductPart::Port(port) => write!(f, "#{port}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for text in
            ["mesh", "sales", "sales/orders", "sales/orders@2", "sales/orders@2.lines", "sales/orders.lines.a.b"]
        {
            assert_eq!(ResourcePath::parse(text).map(|path| path.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(
            ResourcePath::parse("sales/orders#files").map(|path| path.to_string()),
            Ok("sales/orders#files".into())
        );
        for text in
            ["", "sales/", "/orders", "sales/orders.", "sales/orders.a..b", "sales/orders@x", "sales/orders#", "a b"]
        {
            assert!(ResourcePath::parse(text).is_err(), "{text}");
        }
    }
}
