//! What differs between an object as it is and as it should be, and what it becomes.
//!
//! Keys that others wrote (an engine's statistics, a crawler's notes) are kept: only those of [`is_managed`] are ours.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::{self, CatalogColumn, CatalogTable, Database};

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This mesh's.
    Ours,
    /// This mesh's, kept by the Terraform that it exported: its pointer is ours to move, nothing else.
    Terraform,
    /// Somebody else's.
    Foreign,
}

/// Whose an object with these parameters is.
pub fn ownership(parameters: &BTreeMap<String, String>, mesh: &str) -> Ownership {
    if parameters.get(catalog::MESH).map(String::as_str) != Some(mesh) {
        return Ownership::Foreign;
    }
    match parameters.get(catalog::MANAGED_BY).map(String::as_str) {
        Some(catalog::BY_TERRAFORM) => Ownership::Terraform,
        _ => Ownership::Ours,
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What: `owner`, `column email`, `parameter metadata_location`.
    pub of: String,
    /// As it is.
    pub is: Option<String>,
    /// As it should be.
    pub should_be: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(f, "{}: {} -> {}", self.of, text(&self.is), text(&self.should_be))
    }
}

fn differ(differences: &mut Vec<Difference>, of: impl Into<String>, is: Option<&str>, should_be: Option<&str>) {
    if is != should_be {
        let (is, should_be) = (is.map(str::to_owned), should_be.map(str::to_owned));
        differences.push(Difference { of: of.into(), is, should_be });
    }
}

/// Whether a parameter is ours to set and to take out.
fn is_managed(key: &str) -> bool {
    key.starts_with("datamesh.") || matches!(key, catalog::TABLE_TYPE | catalog::METADATA_LOCATION)
}

/// A database as it will be, and what differs.
pub(super) fn database(found: &Database, wanted: &Database) -> (Database, Vec<Difference>) {
    let mut differences = Vec::new();
    differ(&mut differences, "description", found.description.as_deref(), wanted.description.as_deref());
    let location = wanted.location.as_ref().or(found.location.as_ref());
    differ(&mut differences, "location", found.location.as_deref(), location.map(String::as_str));
    let parameters = parameters(&mut differences, "", &found.parameters, &wanted.parameters);
    let merged = Database {
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        location: location.cloned(),
        parameters,
    };
    (merged, differences)
}

/// A table as it will be, and what differs.
pub(super) fn table(found: &CatalogTable, wanted: &CatalogTable) -> (CatalogTable, Vec<Difference>) {
    let mut differences = Vec::new();
    let behind = is_behind(&found.parameters, &wanted.parameters);
    differ(&mut differences, "description", found.description.as_deref(), wanted.description.as_deref());
    differ(&mut differences, "owner", found.owner.as_deref(), wanted.owner.as_deref());
    let location = wanted.location.as_ref().filter(|_| !behind).or(found.location.as_ref());
    differ(&mut differences, "location", found.location.as_deref(), location.map(String::as_str));
    let columns = columns(&mut differences, "column", &found.columns, &wanted.columns);
    let partition_keys =
        self::columns(&mut differences, "partition key", &found.partition_keys, &wanted.partition_keys);
    let mut wanted_parameters = wanted.parameters.clone();
    if behind {
        for key in [catalog::METADATA_LOCATION, catalog::PUBLICATION, catalog::SEQUENCE] {
            wanted_parameters.remove(key);
            wanted_parameters.extend(found.parameters.get(key).map(|value| (key.to_owned(), value.clone())));
        }
    }
    let mut parameters = parameters(&mut differences, "", &found.parameters, &wanted_parameters);
    keep_previous(&found.parameters, &mut parameters);
    let merged = CatalogTable {
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        owner: wanted.owner.clone(),
        location: location.cloned(),
        columns,
        partition_keys,
        parameters,
    };
    (merged, differences)
}

/// A table with the pointer of `wanted`, and what differs. It is moved on, never back.
pub(super) fn pointer(found: &CatalogTable, wanted: &BTreeMap<String, String>) -> (CatalogTable, Vec<Difference>) {
    let mut differences = Vec::new();
    let mut merged = found.clone();
    if wanted.contains_key(catalog::METADATA_LOCATION) && !is_behind(&found.parameters, wanted) {
        for key in [catalog::TABLE_TYPE, catalog::METADATA_LOCATION, catalog::PUBLICATION, catalog::SEQUENCE] {
            let Some(value) = wanted.get(key) else { continue };
            let is = found.parameters.get(key).map(String::as_str);
            differ(&mut differences, format!("parameter {key}"), is, Some(value));
            merged.parameters.insert(key.to_owned(), value.clone());
        }
        keep_previous(&found.parameters, &mut merged.parameters);
    }
    (merged, differences)
}

/// Whether what is wanted is an earlier pointer than what is there. One that was written before entries were counted has
/// its publication alone.
fn is_behind(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    let number = |parameters: &BTreeMap<String, String>, key: &str| -> Option<u64> {
        parameters.get(catalog::METADATA_LOCATION)?;
        parameters.get(key)?.parse().ok()
    };
    let of = |key: &str| Some(number(wanted, key)? < number(found, key)?);
    of(catalog::SEQUENCE).or_else(|| of(catalog::PUBLICATION)).unwrap_or(false)
}

/// Notes the metadata document before, as Iceberg's own catalog does.
fn keep_previous(found: &BTreeMap<String, String>, merged: &mut BTreeMap<String, String>) {
    let before = found.get(catalog::METADATA_LOCATION);
    if let Some(before) = before.filter(|before| merged.get(catalog::METADATA_LOCATION) != Some(before)) {
        merged.insert(catalog::PREVIOUS_METADATA_LOCATION.into(), before.clone());
    }
}

fn parameters(
    differences: &mut Vec<Difference>,
    prefix: &str,
    found: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut merged = wanted.clone();
    for (key, value) in found {
        if !merged.contains_key(key) {
            if is_managed(key) {
                differ(differences, format!("{prefix}parameter {key}"), Some(value), None);
            } else {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    for (key, value) in wanted {
        let is = found.get(key).map(String::as_str);
        differ(differences, format!("{prefix}parameter {key}"), is, Some(value));
    }
    merged
}

fn columns(
    differences: &mut Vec<Difference>,
    kind: &str,
    found: &[CatalogColumn],
    wanted: &[CatalogColumn],
) -> Vec<CatalogColumn> {
    let by_name: BTreeMap<&str, &CatalogColumn> = found.iter().map(|column| (column.name.as_str(), column)).collect();
    let mut merged = Vec::new();
    for column in wanted {
        let of = format!("{kind} {}", column.name);
        let Some(before) = by_name.get(column.name.as_str()) else {
            differ(differences, of, None, Some(&column.data_type));
            merged.push(column.clone());
            continue;
        };
        differ(differences, &of, Some(&before.data_type), Some(&column.data_type));
        differ(differences, format!("{of} comment"), before.comment.as_deref(), column.comment.as_deref());
        let parameters = parameters(differences, &format!("{of} "), &before.parameters, &column.parameters);
        merged.push(CatalogColumn { parameters, ..column.clone() });
    }
    for column in found.iter().filter(|column| !wanted.iter().any(|wanted| wanted.name == column.name)) {
        differ(differences, format!("{kind} {}", column.name), Some(&column.data_type), None);
    }
    let names = |columns: &[CatalogColumn]| columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
    if found.len() == wanted.len() && wanted.iter().all(|column| by_name.contains_key(column.name.as_str())) {
        differ(differences, format!("order of {kind}s"), Some(&names(found)), Some(&names(wanted)));
    }
    merged
}
