//! Keeping a catalog as contracts and pointers say.
//!
//! What should be there is compared with what is, which yields changes; both are data, and the comparison is pure. A
//! [`Target`] only reads objects and carries out one change. Nothing is changed or removed that does not carry the marker
//! of this mesh ([`catalog::MESH`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use datamesh_core::ports::CatalogProduct;
use datamesh_core::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

use crate::catalog::{self, CatalogOptions, CatalogTable, Database};

mod compare;
mod execute;
mod retry;

pub use compare::{Difference, Ownership, ownership};
pub use execute::{
    Applied, ApplyOptions, PointerChange, Synced, apply, clear, describe, destroy, holds, refresh, sync,
};
pub use retry::{Retry, Timer, TokioTimer};

/// What should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The id of the mesh.
    pub mesh: String,
    /// The databases with their tables, by name.
    pub databases: BTreeMap<String, DesiredDatabase>,
}

/// A database that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredDatabase {
    /// The database.
    pub database: Database,
    /// Its tables, by name.
    pub tables: BTreeMap<String, CatalogTable>,
}

/// How products become databases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredOptions {
    /// What every database's name begins with.
    pub database_prefix: String,
    /// URL of the warehouse.
    pub warehouse: Option<String>,
}

impl Desired {
    /// What products should be, with the pointers that the registry has. Retired ones should not be there.
    ///
    /// # Errors
    /// `invalid-argument` where two products would be one database, or where a catalog cannot hold a name or type.
    pub fn new(mesh: &str, products: &[CatalogProduct], options: &DesiredOptions) -> Result<Self> {
        let options = CatalogOptions {
            database_prefix: options.database_prefix.clone(),
            mesh: Some(mesh.to_owned()),
            managed_by: Some(catalog::BY_PROVISION),
            warehouse: options.warehouse.clone(),
        };
        let mut databases = BTreeMap::new();
        for product in products {
            let contract = &product.revision.contract;
            if contract.preference().is_none() {
                continue;
            }
            let database = catalog::database(contract, &options)?;
            let mut tables = BTreeMap::new();
            for table in &contract.tables {
                let pointer = product.tables.iter().find(|pointer| pointer.table == table.name.sql());
                let location = pointer.map(|pointer| pointer.metadata_location.as_str());
                let mut described = catalog::table(contract, table, location, &options)?;
                if let Some(pointer) = pointer {
                    described.parameters.insert(catalog::PUBLICATION.into(), pointer.publication.to_string());
                    described.parameters.insert(catalog::SEQUENCE.into(), pointer.sequence.to_string());
                }
                tables.insert(described.name.clone(), described);
            }
            let name = database.name.clone();
            if databases.insert(name.clone(), DesiredDatabase { database, tables }).is_some() {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("`{}` and another product would both be the database `{name}`", product.key),
                )
                .with_help("a catalog has one level of names: rename one of them"));
            }
        }
        Ok(Self { mesh: mesh.to_owned(), databases })
    }

    /// The part about some databases.
    #[must_use]
    pub fn only(&self, databases: &BTreeSet<String>) -> Self {
        let kept = self.databases.iter().filter(|(name, _)| databases.contains(*name));
        Self { mesh: self.mesh.clone(), databases: kept.map(|(name, d)| (name.clone(), d.clone())).collect() }
    }
}

/// What is there, of the databases that were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The databases, by name.
    pub databases: BTreeMap<String, FoundDatabase>,
}

/// A database that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDatabase {
    /// The database.
    pub database: Database,
    /// Its tables, by name.
    pub tables: BTreeMap<String, FoundTable>,
}

/// A table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    /// The table.
    pub table: CatalogTable,
    /// What tells this state of it from others; an update names it.
    pub version: Option<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// A database is made.
    CreateDatabase {
        /// It.
        database: Database,
    },
    /// A database becomes what it should be.
    UpdateDatabase {
        /// As it will be, with what others wrote into it.
        database: Database,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// A table is made.
    CreateTable {
        /// Its database.
        database: String,
        /// It.
        table: CatalogTable,
    },
    /// A table becomes what it should be.
    UpdateTable {
        /// Its database.
        database: String,
        /// As it will be, with what others wrote into it.
        table: CatalogTable,
        /// The state that it must still be in.
        expected: Option<String>,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// A table is taken out of the catalog. Its files stay.
    DeleteTable {
        /// Its database.
        database: String,
        /// Its name.
        table: String,
    },
    /// An empty database is removed.
    DeleteDatabase {
        /// Its name.
        database: String,
    },
}

impl Change {
    /// The database that it is about.
    pub fn database(&self) -> &str {
        match self {
            Self::CreateDatabase { database } | Self::UpdateDatabase { database, .. } => &database.name,
            Self::CreateTable { database, .. }
            | Self::UpdateTable { database, .. }
            | Self::DeleteTable { database, .. }
            | Self::DeleteDatabase { database } => database,
        }
    }

    /// What it is about: `database` or `database.table`.
    pub fn object(&self) -> String {
        match self {
            Self::CreateTable { database, table } | Self::UpdateTable { database, table, .. } => {
                format!("{database}.{}", table.name)
            }
            Self::DeleteTable { database, table } => format!("{database}.{table}"),
            _ => self.database().to_owned(),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = self.object();
        let (sign, kind) = match self {
            Self::CreateDatabase { .. } => ("+", "database"),
            Self::CreateTable { .. } => ("+", "table"),
            Self::UpdateDatabase { .. } => ("~", "database"),
            Self::UpdateTable { .. } => ("~", "table"),
            Self::DeleteTable { .. } => ("-", "table"),
            Self::DeleteDatabase { .. } => ("-", "database"),
        };
        write!(f, "{sign} {kind} {object}")?;
        if let Self::UpdateDatabase { differences, .. } | Self::UpdateTable { differences, .. } = self {
            for difference in differences {
                write!(f, "\n    {difference}")?;
            }
        }
        Ok(())
    }
}

/// Something that is in the way and is not this mesh's to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// `database` or `database.table`.
    pub object: String,
    /// What is in the way.
    pub why: String,
}

/// What to do, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The changes, in the order in which they are possible.
    pub changes: Vec<Change>,
    /// What is in the way.
    pub refusals: Vec<Refusal>,
    /// Objects of this mesh that no contract asks for any more: `database` or `database.table`. Without `prune` they stay.
    pub leftovers: Vec<String>,
    /// Tables that are not there, in databases that Terraform keeps: they are its to make.
    pub missing: Vec<String>,
}

impl Plan {
    /// Whether everything is as it should be.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.refusals.is_empty() && self.leftovers.is_empty() && self.missing.is_empty()
    }

    /// An error where something is in the way.
    ///
    /// # Errors
    /// `plan-refused`, naming every object.
    pub fn check(&self, mesh: &str) -> Result<()> {
        if self.refusals.is_empty() {
            return Ok(());
        }
        let list: Vec<String> =
            self.refusals.iter().map(|refusal| format!("`{}` {}", refusal.object, refusal.why)).collect();
        Err(Error::new(ErrorCode::PlanRefused, list.join("; ")).with_help(format!(
            "give this mesh's databases another prefix, or remove what is in the way; to hand something over, set its parameter `{}` to `{mesh}`",
            catalog::MESH
        )))
    }
}

/// What must change for `current` to become `desired`. With `prune`, what is this mesh's and no longer wanted goes.
pub fn plan(desired: &Desired, current: &State, prune: bool) -> Plan {
    let mut plan = Plan::default();
    for (name, wanted) in &desired.databases {
        let Some(found) = current.databases.get(name) else {
            plan.changes.push(Change::CreateDatabase { database: wanted.database.clone() });
            plan.changes.extend(
                wanted
                    .tables
                    .values()
                    .map(|table| Change::CreateTable { database: name.clone(), table: table.clone() }),
            );
            continue;
        };
        let owner = ownership(&found.database.parameters, &desired.mesh);
        match owner {
            Ownership::Foreign => {
                plan.refusals
                    .push(Refusal { object: name.clone(), why: "exists, and this mesh did not make it".into() });
                continue;
            }
            Ownership::Terraform => {}
            Ownership::Ours => {
                let (database, differences) = compare::database(&found.database, &wanted.database);
                if !differences.is_empty() {
                    plan.changes.push(Change::UpdateDatabase { database, differences });
                }
            }
        }
        for (table_name, table) in &wanted.tables {
            let there = found.tables.get(table_name);
            if there.is_none() && owner == Ownership::Terraform {
                plan.missing.push(format!("{name}.{table_name}"));
                continue;
            }
            plan_table(&mut plan, &desired.mesh, name, there, table);
        }
    }
    leftovers(&mut plan, desired, current, prune);
    plan
}

fn plan_table(plan: &mut Plan, mesh: &str, database: &str, found: Option<&FoundTable>, wanted: &CatalogTable) {
    let Some(found) = found else {
        plan.changes.push(Change::CreateTable { database: database.to_owned(), table: wanted.clone() });
        return;
    };
    let (table, differences) = match ownership(&found.table.parameters, mesh) {
        Ownership::Foreign => {
            let object = format!("{database}.{}", wanted.name);
            plan.refusals.push(Refusal { object, why: "exists, and this mesh did not make it".into() });
            return;
        }
        Ownership::Terraform => compare::pointer(&found.table, &wanted.parameters),
        Ownership::Ours => compare::table(&found.table, wanted),
    };
    if !differences.is_empty() {
        let expected = found.version.clone();
        plan.changes.push(Change::UpdateTable { database: database.to_owned(), table, expected, differences });
    }
}

fn leftovers(plan: &mut Plan, desired: &Desired, current: &State, prune: bool) {
    for (name, found) in &current.databases {
        let wanted = desired.databases.get(name);
        let ours = |parameters: &BTreeMap<String, String>| ownership(parameters, &desired.mesh) == Ownership::Ours;
        let mut empty = true;
        for (table_name, table) in &found.tables {
            if wanted.is_some_and(|wanted| wanted.tables.contains_key(table_name)) || !ours(&table.table.parameters) {
                empty = false;
                continue;
            }
            if prune {
                plan.changes.push(Change::DeleteTable { database: name.clone(), table: table_name.clone() });
            } else {
                plan.leftovers.push(format!("{name}.{table_name}"));
            }
        }
        if wanted.is_none() && empty && ours(&found.database.parameters) {
            if prune {
                plan.changes.push(Change::DeleteDatabase { database: name.clone() });
            } else {
                plan.leftovers.push(name.clone());
            }
        }
    }
}

/// Why a target did not do what it was asked for.
#[derive(Debug)]
pub enum TargetError {
    /// It has too much to do.
    Throttled(Error),
    /// There was no answer: it may be done, or not.
    Unanswered(Error),
    /// What was to be made is there.
    Exists,
    /// What was to be changed or removed is not there.
    Missing,
    /// Somebody else changed the object since it was read.
    Conflict,
    /// It cannot be done.
    Failed(Error),
}

/// What is asked of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The id of the mesh: databases that carry it are looked at.
    pub mesh: Option<String>,
    /// Names of databases that are looked at whosever they are.
    pub databases: BTreeSet<String>,
}

impl Scope {
    /// Whether a database is looked at.
    pub fn covers(&self, database: &Database) -> bool {
        self.databases.contains(&database.name)
            || self.mesh.as_ref().is_some_and(|mesh| database.parameters.get(catalog::MESH) == Some(mesh))
    }
}

/// A catalog. Reading and one change at a time; what to change, whether it may be, and trying again are decided above.
#[async_trait]
pub trait Target: Send + Sync {
    /// Its word on the command line.
    fn name(&self) -> &'static str;

    /// Where it is, in a few characters that mean the same place to everybody: a region and account, a folder.
    fn place(&self) -> String;

    /// The databases of a scope, with all their tables.
    async fn describe(&self, scope: &Scope) -> Result<State, TargetError>;

    /// A database with all its tables.
    async fn database(&self, name: &str) -> Result<Option<FoundDatabase>, TargetError>;

    /// A table.
    async fn table(&self, database: &str, name: &str) -> Result<Option<FoundTable>, TargetError>;

    /// Carries out one change. An update of a table fails with [`TargetError::Conflict`] where the table is not in the
    /// expected state.
    async fn execute(&self, change: &Change) -> Result<(), TargetError>;
}
