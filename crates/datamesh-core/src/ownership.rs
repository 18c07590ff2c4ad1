//! Who answers for what: exactly one team for everything, the one that is named nearest.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contract::{Column, DataProduct};
use crate::datatype::DataType;
use crate::domain::{Domain, Team};
use crate::ids::Name;

/// What an owner was named on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnedBy {
    /// The mesh.
    Mesh,
    /// The domain.
    Domain,
    /// The product.
    Product,
    /// The table.
    Table,
    /// The column, or a column that it lies in.
    Column,
    /// The policy.
    Policy,
}

impl OwnedBy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Domain => "domain",
            Self::Product => "product",
            Self::Table => "table",
            Self::Column => "column",
            Self::Policy => "policy",
        }
    }
}

/// An accountable owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Owner<'a> {
    /// The team's name.
    pub team: &'a str,
    /// What it was named on; what lies below inherits it.
    pub named_on: OwnedBy,
}

/// What somebody asks the owner of.
#[derive(Clone, Copy, Debug)]
pub enum OwnedPath<'a> {
    /// The mesh itself.
    Mesh,
    /// A domain.
    Domain(&'a Name),
    /// A product.
    Product(&'a DataProduct),
    /// A table of a product.
    Table(&'a DataProduct, &'a str),
    /// A column of a table, by the names from the top-level column down.
    Column(&'a DataProduct, &'a str, &'a [String]),
    /// A policy: its own owner, where it names one, else that of the domain it belongs to, else the mesh's.
    Policy {
        /// The owner that it names.
        owner: Option<&'a str>,
        /// Its domain; `None` for a policy of the mesh.
        domain: Option<&'a Name>,
    },
}

/// The owners and teams that a mesh declares outside its products.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ownership {
    mesh: Option<String>,
    /// By SQL name.
    domains: BTreeMap<String, String>,
    /// Where each team is declared (a domain's SQL name; `None` for the mesh), and the team.
    teams: Vec<(Option<String>, Team)>,
}

impl Ownership {
    /// Collects what a mesh and its domains declare.
    pub fn new<'d>(
        mesh_owner: Option<&str>,
        mesh_teams: &[Team],
        domains: impl IntoIterator<Item = &'d Domain>,
    ) -> Self {
        let mut ownership = Self {
            mesh: mesh_owner.map(str::to_owned),
            domains: BTreeMap::new(),
            teams: mesh_teams.iter().map(|team| (None, team.clone())).collect(),
        };
        for domain in domains {
            ownership.domains.insert(domain.name.sql(), domain.owner.clone());
            ownership.teams.extend(domain.teams.iter().map(|team| (Some(domain.name.sql()), team.clone())));
        }
        ownership
    }

    /// Every declared team, with the SQL name of the domain that declares it.
    pub fn teams(&self) -> impl Iterator<Item = (Option<&str>, &Team)> {
        self.teams.iter().map(|(domain, team)| (domain.as_deref(), team))
    }

    /// The declared team of a name.
    pub fn team(&self, name: &str) -> Option<&Team> {
        self.teams.iter().map(|(_, team)| team).find(|team| team.name == name)
    }

    /// Who answers for `path`: the owner that is named nearest, column before table before product before domain before
    /// mesh. `None` where nobody is named, or where there is no such table or column.
    pub fn owner_of<'a>(&'a self, path: OwnedPath<'a>) -> Option<Owner<'a>> {
        let mesh = || self.mesh.as_deref().map(|team| Owner { team, named_on: OwnedBy::Mesh });
        let domain = |name: &Name| {
            let own = self.domains.get(&name.sql());
            own.map(|team| Owner { team, named_on: OwnedBy::Domain }).or_else(mesh)
        };
        match path {
            OwnedPath::Mesh => mesh(),
            OwnedPath::Domain(name) => domain(name),
            OwnedPath::Policy { owner: Some(team), .. } => Some(Owner { team, named_on: OwnedBy::Policy }),
            OwnedPath::Policy { owner: None, domain: Some(name) } => domain(name),
            OwnedPath::Policy { owner: None, domain: None } => mesh(),
            OwnedPath::Product(contract) => owner_of_product(contract).or_else(|| domain(&contract.id.domain)),
            OwnedPath::Table(contract, table) => owner_of(contract, table, &[]),
            OwnedPath::Column(contract, table, column) => owner_of(contract, table, column),
        }
        .or_else(|| match path {
            OwnedPath::Table(contract, table) => {
                contract.table(table).and_then(|_| self.owner_of(OwnedPath::Product(contract)))
            }
            OwnedPath::Column(contract, table, column) => {
                find(contract, table, column).and_then(|_| self.owner_of(OwnedPath::Product(contract)))
            }
            _ => None,
        })
    }
}

fn owner_of_product(contract: &DataProduct) -> Option<Owner<'_>> {
    (!contract.owner.is_empty()).then_some(Owner { team: &contract.owner, named_on: OwnedBy::Product })
}

/// The columns that `column` leads through, outermost first; `None` where there is none.
fn find<'c>(contract: &'c DataProduct, table: &str, column: &[String]) -> Option<Vec<&'c Column>> {
    let mut columns = contract.table(table)?.columns.as_slice();
    let mut found = Vec::new();
    for name in column {
        let column = columns.iter().find(|column| column.name == *name)?;
        columns = fields(&column.data_type);
        found.push(column);
    }
    Some(found)
}

/// The named fields below a type.
fn fields(data_type: &DataType) -> &[Column] {
    match data_type {
        DataType::Struct(fields) => fields,
        DataType::Array(item) => fields(&item.data_type),
        DataType::Map(_, value) => fields(&value.data_type),
        _ => &[],
    }
}

/// Who answers for a table, or for a column of it, by what the contract alone says: `column` is the names from the
/// top-level column down, and empty for the table itself. `None` where there is no such table or column.
pub fn owner_of<'a>(contract: &'a DataProduct, table: &str, column: &[String]) -> Option<Owner<'a>> {
    let own = contract.table(table)?.owner.as_deref().map(|team| Owner { team, named_on: OwnedBy::Table });
    let inner = find(contract, table, column)?.into_iter().rev().find_map(|column| column.owner.as_deref());
    inner.map(|team| Owner { team, named_on: OwnedBy::Column }).or(own).or_else(|| owner_of_product(contract))
}

/// The owners that a contract names below the product: `table` or `table.column.field`, and the team.
pub fn named_owners(contract: &DataProduct) -> Vec<(String, &str)> {
    fn walk<'c>(path: &str, columns: &'c [Column], found: &mut Vec<(String, &'c str)>) {
        for column in columns {
            let path = format!("{path}.{}", column.name);
            found.extend(column.owner.as_deref().map(|owner| (path.clone(), owner)));
            walk(&path, fields(&column.data_type), found);
        }
    }
    let mut found = Vec::new();
    for table in &contract.tables {
        let name = table.name.to_string();
        found.extend(table.owner.as_deref().map(|owner| (name.clone(), owner)));
        walk(&name, &table.columns, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contract() -> DataProduct {
        serde_json::from_value(json!({
            "format": 1, "id": {"domain": "sales", "product": "crm"}, "version": "1.0.0", "owner": "crm-team",
            "tables": [
                {"name": "plain", "columns": [{"name": "id", "type": "int"}]},
                {"name": "owned", "owner": "table-team", "columns": [{"name": "id", "type": "int"}]},
            ],
        }))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    fn path(parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    #[test]
    fn the_nearest_owner_answers() {
        let mut contract = contract();
        let inner = Column { owner: Some("city-team".into()), ..Column::anonymous("city", DataType::String) };
        let outer = Column {
            owner: Some("address-team".into()),
            ..Column::anonymous("address", DataType::Struct(vec![inner, Column::anonymous("zip", DataType::String)]))
        };
        contract.tables[1].columns.push(outer);
        let check = |table: &str, column: &[&str], expected: Option<(&str, OwnedBy)>| {
            let found = owner_of(&contract, table, &path(column)).map(|owner| (owner.team, owner.named_on));
            assert_eq!(found, expected, "{table} {column:?}");
        };
        check("plain", &[], Some(("crm-team", OwnedBy::Product)));
        check("plain", &["id"], Some(("crm-team", OwnedBy::Product)));
        check("owned", &[], Some(("table-team", OwnedBy::Table)));
        check("owned", &["id"], Some(("table-team", OwnedBy::Table)));
        check("owned", &["address"], Some(("address-team", OwnedBy::Column)));
        check("owned", &["address", "zip"], Some(("address-team", OwnedBy::Column)));
        check("owned", &["address", "city"], Some(("city-team", OwnedBy::Column)));
        check("owned", &["adress"], None);
        check("missing", &[], None);
        let named: Vec<_> = named_owners(&contract);
        let expected =
            [("owned", "table-team"), ("owned.address", "address-team"), ("owned.address.city", "city-team")];
        assert_eq!(named, expected.map(|(path, owner)| (path.to_owned(), owner)));
    }

    #[test]
    fn what_a_product_does_not_say_its_domain_or_mesh_does() {
        let mut contract = contract();
        contract.owner.clear();
        contract.tables[1].owner = None;
        let domain = Domain {
            name: contract.id.domain.clone(),
            owner: "sales-team".into(),
            description: None,
            purpose: None,
            responsibilities: Vec::new(),
            terms: Vec::new(),
            relationships: Vec::new(),
            teams: Vec::new(),
        };
        let with = Ownership::new(Some("platform"), &[], [&domain]);
        let column = path(&["id"]);
        let team = |ownership: &Ownership, path: OwnedPath<'_>| {
            ownership.owner_of(path).map(|owner| (owner.team.to_owned(), owner.named_on))
        };
        let expected = Some(("sales-team".to_owned(), OwnedBy::Domain));
        assert_eq!(team(&with, OwnedPath::Product(&contract)), expected);
        assert_eq!(team(&with, OwnedPath::Table(&contract, "owned")), expected);
        assert_eq!(team(&with, OwnedPath::Column(&contract, "owned", &column)), expected);
        assert_eq!(team(&with, OwnedPath::Policy { owner: None, domain: Some(&domain.name) }), expected);
        assert_eq!(team(&with, OwnedPath::Column(&contract, "owned", &path(&["nothing"]))), None);
        let without = Ownership::new(Some("platform"), &[], []);
        let expected = Some(("platform".to_owned(), OwnedBy::Mesh));
        assert_eq!(team(&without, OwnedPath::Column(&contract, "owned", &column)), expected);
        assert_eq!(team(&without, OwnedPath::Policy { owner: None, domain: None }), expected);
        assert_eq!(team(&Ownership::default(), OwnedPath::Mesh), None);
    }
}
