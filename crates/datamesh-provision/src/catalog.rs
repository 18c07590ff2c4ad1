//! Contracts as a catalog of databases and tables: the names, types and comments that AWS Glue allows, for every target.
//!
//! A database is a product's major version, `<domain>_<product>_v<major>`, since Glue has one level of names.

use std::collections::BTreeMap;

use datamesh_core::contract::{DataProduct, PartitionField, Table, Transform};
use datamesh_core::ids::ProductKey;
use datamesh_core::ownership::{OwnedPath, Ownership};
use datamesh_core::{Column, DataType, Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

/// Parameter with the id of the mesh that an object belongs to: the ownership marker.
pub const MESH: &str = "datamesh.mesh";
/// Parameter that says who made an object: [`BY_PROVISION`] or [`BY_TERRAFORM`].
pub const MANAGED_BY: &str = "datamesh.managed-by";
/// Parameter with the product, `domain/product`.
pub const PRODUCT: &str = "datamesh.product";
/// Parameter with the contract's version.
pub const VERSION: &str = "datamesh.version";
/// Parameter with the classification.
pub const CLASSIFICATION: &str = "datamesh.classification";
/// Parameter with the accountable team.
pub const OWNER: &str = "datamesh.owner";
/// Parameter with a table's partition fields, as its contract writes them.
pub const PARTITION_BY: &str = "datamesh.partition-by";
/// Parameter with the number of the publication that a table's pointer is that of.
pub const PUBLICATION: &str = "datamesh.publication";
/// Parameter with the number of the outbox's entry that told of a table's pointer: pointers only move on.
pub const SEQUENCE: &str = "datamesh.sequence";
/// Iceberg's parameter with the kind of table (`iceberg-aws`, `GlueTableOperations`).
pub const TABLE_TYPE: &str = "table_type";
/// Iceberg's parameter with the current metadata document.
pub const METADATA_LOCATION: &str = "metadata_location";
/// Iceberg's parameter with the metadata document before.
pub const PREVIOUS_METADATA_LOCATION: &str = "previous_metadata_location";

/// What [`MANAGED_BY`] says of what `provision` made.
pub const BY_PROVISION: &str = "datamesh";
/// What [`MANAGED_BY`] says of what exported Terraform made.
pub const BY_TERRAFORM: &str = "terraform";

/// Greatest length of a name in Glue.
const NAME_LIMIT: usize = 255;
/// Greatest length of a column's comment in Glue.
const COMMENT_LIMIT: usize = 255;
/// Greatest length of a description in Glue.
const DESCRIPTION_LIMIT: usize = 2048;
/// Greatest length of a column's type in Glue.
const TYPE_LIMIT: usize = 131_072;

/// A database: one major version of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// URL of the folder of its tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What is said of it, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogTable {
    /// Its name.
    pub name: String,
    /// What one row is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The accountable team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// URL of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Its columns, in order.
    pub columns: Vec<CatalogColumn>,
    /// The columns that it is partitioned by as they are. Hive's partition keys have no transforms; all fields are in
    /// [`PARTITION_BY`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_keys: Vec<CatalogColumn>,
    /// What is said of it, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogColumn {
    /// Its name.
    pub name: String,
    /// Its type, in Glue's words.
    #[serde(rename = "type")]
    pub data_type: String,
    /// What a value means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What is said of it, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// How contracts become a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogOptions {
    /// What every database's name begins with.
    pub database_prefix: String,
    /// The id of the mesh, for the ownership marker.
    pub mesh: Option<String>,
    /// What [`MANAGED_BY`] says.
    pub managed_by: Option<&'static str>,
    /// URL of the warehouse.
    pub warehouse: Option<String>,
}

/// The name of the database of a major version.
///
/// # Errors
/// `invalid-argument` where it is longer than Glue allows.
pub fn database_name(key: &ProductKey, prefix: &str) -> Result<String> {
    let name = format!("{prefix}{}_{}", key.domain, key.namespace());
    if name.len() > NAME_LIMIT {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("the database of `{key}` would have a name of {} characters", name.len()),
        )
        .with_help(format!("Glue allows {NAME_LIMIT}: shorten the domain's or the product's name")));
    }
    if let Some(bad) = prefix.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("the prefix of databases has `{}`", bad.escape_default()),
        )
        .with_help("write lower case letters, digits and underscores"));
    }
    // Terraform's labels and Athena's plain names begin so.
    if prefix.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("the prefix of databases begins with `{}`", &prefix[..1]),
        )
        .with_help("begin it with a letter or an underscore"));
    }
    Ok(name)
}

/// The path of a table's folder below the warehouse.
pub fn table_path(key: &ProductKey, table: &Table) -> String {
    format!("{}/{}/{}", key.domain, key.namespace(), table.name.sql())
}

/// The database of a product.
///
/// # Errors
/// `invalid-argument` where Glue cannot hold it.
pub fn database(contract: &DataProduct, options: &CatalogOptions) -> Result<Database> {
    let key = contract.key();
    Ok(Database {
        name: database_name(&key, &options.database_prefix)?,
        description: contract.description.as_deref().and_then(description),
        location: options
            .warehouse
            .as_deref()
            .map(|warehouse| format!("{}/{}/{}", warehouse.trim_end_matches('/'), key.domain, key.namespace())),
        parameters: parameters(contract, &contract.owner, classification(contract), options),
    })
}

/// A table of a product, `metadata` being the URL of its current metadata document.
///
/// # Errors
/// `invalid-argument` where Glue cannot hold it.
pub fn table(
    contract: &DataProduct,
    table: &Table,
    metadata: Option<&str>,
    options: &CatalogOptions,
) -> Result<CatalogTable> {
    let key = contract.key();
    let ownership = Ownership::default();
    let owner = ownership
        .owner_of(OwnedPath::Table(contract, table.name.as_str()))
        .map_or(contract.owner.as_str(), |owner| owner.team);
    let mut parameters = parameters(contract, owner, classification_of_table(contract, table), options);
    parameters.insert(TABLE_TYPE.into(), "ICEBERG".into());
    if let Some(metadata) = metadata {
        parameters.insert(METADATA_LOCATION.into(), metadata.into());
    }
    if !table.partition_by.is_empty() {
        let fields: Vec<String> = table.partition_by.iter().map(partition_field).collect();
        parameters.insert(PARTITION_BY.into(), fields.join(", "));
    }
    let is_key = |column: &CatalogColumn| {
        let mut fields = table.partition_by.iter();
        fields.any(|field| field.column == column.name && field.transform == Transform::Identity)
    };
    let columns = table.columns.iter().map(|column| catalog_column(contract, table, column));
    let (partition_keys, columns) = columns.collect::<Result<Vec<_>>>()?.into_iter().partition(is_key);
    let folder = metadata.and_then(|metadata| metadata.rsplit_once("/metadata/")).map(|(folder, _)| folder.to_owned());
    let default =
        || Some(format!("{}/{}", options.warehouse.as_deref()?.trim_end_matches('/'), table_path(&key, table)));
    Ok(CatalogTable {
        name: table.name.sql(),
        description: table.description.as_deref().and_then(description),
        owner: Some(single_line(owner, NAME_LIMIT)).filter(|owner| !owner.is_empty()),
        location: folder.or_else(default),
        columns,
        partition_keys,
        parameters,
    })
}

fn partition_field(field: &PartitionField) -> String {
    let column = &field.column;
    match field.transform {
        Transform::Identity => column.clone(),
        Transform::Year => format!("year({column})"),
        Transform::Month => format!("month({column})"),
        Transform::Day => format!("day({column})"),
        Transform::Hour => format!("hour({column})"),
        Transform::Bucket(buckets) => format!("bucket({buckets}, {column})"),
        Transform::Truncate(width) => format!("truncate({width}, {column})"),
    }
}

fn parameters(
    contract: &DataProduct,
    owner: &str,
    classification: Option<&str>,
    options: &CatalogOptions,
) -> BTreeMap<String, String> {
    let given = [
        (MESH, options.mesh.clone()),
        (MANAGED_BY, options.managed_by.map(str::to_owned)),
        (PRODUCT, Some(contract.id.to_string())),
        (VERSION, Some(contract.version.to_string())),
        (OWNER, Some(owner.to_owned()).filter(|owner| !owner.is_empty())),
        (CLASSIFICATION, classification.map(str::to_owned)),
    ];
    given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), single_line(&value?, 2048)))).collect()
}

fn catalog_column(contract: &DataProduct, table: &Table, column: &Column) -> Result<CatalogColumn> {
    let refused = |why: String| {
        Error::new(ErrorCode::InvalidArgument, format!("`{}.{}.{}` {why}", contract.key(), table.name, column.name))
    };
    if column.name.encode_utf16().count() > NAME_LIMIT {
        return Err(refused(format!("has a name of more than {NAME_LIMIT} characters, which Glue cannot hold")));
    }
    let data_type = glue_type(&column.data_type).map_err(|field| {
        refused(format!("has a field `{field}`, whose name a Glue type cannot spell"))
            .with_help("name fields of a struct with letters, digits, `_`, `$` and spaces")
    })?;
    if data_type.len() > TYPE_LIMIT {
        return Err(refused("has a type that is longer than Glue can hold".into())
            .with_help("split the struct into several columns"));
    }
    let mut parameters = BTreeMap::new();
    if let Some(classification) = classification_of_column(contract, column) {
        parameters.insert(CLASSIFICATION.to_owned(), single_line(classification, NAME_LIMIT));
    }
    Ok(CatalogColumn {
        name: column.name.clone(),
        data_type,
        comment: column.description.as_deref().map(|text| single_line(text, COMMENT_LIMIT)).filter(|c| !c.is_empty()),
        parameters,
    })
}

/// The classification of a product: that of its columns, where they have none of their own.
pub fn classification(contract: &DataProduct) -> Option<&str> {
    contract.declared.get("classification")?.as_str()
}

/// The classification of a column: its own, else `confidential` where it is personal data, else the product's.
pub fn classification_of_column<'c>(contract: &'c DataProduct, column: &'c Column) -> Option<&'c str> {
    let own = column.declared.get("classification").and_then(serde_json::Value::as_str);
    own.or_else(|| is_personal(column).then_some("confidential")).or_else(|| classification(contract))
}

fn is_personal(column: &Column) -> bool {
    column.pii
        || match &column.data_type {
            DataType::Struct(fields) => fields.iter().any(is_personal),
            DataType::Array(item) => is_personal(item),
            DataType::Map(_, value) => is_personal(value),
            _ => false,
        }
}

/// The highest classification of a table's columns, in the usual order; an unknown word counts above them all.
fn classification_of_table<'c>(contract: &'c DataProduct, table: &'c Table) -> Option<&'c str> {
    const ORDER: [&str; 4] = ["public", "internal", "confidential", "restricted"];
    let rank = |word: &&str| ORDER.iter().position(|known| known == word).unwrap_or(ORDER.len());
    let columns = table.columns.iter().filter_map(|column| classification_of_column(contract, column));
    columns.chain(classification(contract)).max_by_key(|word| (rank(word), *word))
}

/// A type in Glue's words, which are Hive's, as Iceberg's own catalog writes them (`IcebergToGlueConverter`): a time, a
/// UUID and a JSON document are text.
///
/// # Errors
/// The name of a field that such a type cannot spell.
pub fn glue_type(data_type: &DataType) -> Result<String, String> {
    Ok(match data_type {
        DataType::String | DataType::Uuid | DataType::Json | DataType::Time => "string".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int => "int".into(),
        DataType::Long => "bigint".into(),
        DataType::Float => "float".into(),
        DataType::Double => "double".into(),
        DataType::Decimal(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Date => "date".into(),
        DataType::Timestamp | DataType::TimestampNtz => "timestamp".into(),
        DataType::Binary => "binary".into(),
        DataType::Array(item) => format!("array<{}>", glue_type(&item.data_type)?),
        DataType::Map(key, value) => format!("map<{},{}>", glue_type(key)?, glue_type(&value.data_type)?),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| {
                // What Hive's type parser takes as one token.
                let spelt = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ' ');
                if !field.name.chars().all(spelt) {
                    return Err(field.name.clone());
                }
                Ok(format!("{}:{}", field.name, glue_type(&field.data_type)?))
            });
            format!("struct<{}>", fields.collect::<Result<Vec<_>, _>>()?.join(","))
        }
    })
}

fn description(text: &str) -> Option<String> {
    let allowed: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let text = shortened(allowed.trim(), DESCRIPTION_LIMIT);
    (!text.is_empty()).then_some(text)
}

/// Text on one line: control characters and runs of white space become one space; what is too long ends with `…`.
pub fn single_line(text: &str, limit: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    shortened(&words.collect::<Vec<_>>().join(" "), limit)
}

/// At most `limit` UTF-16 units, which is how Glue counts.
fn shortened(text: &str, limit: usize) -> String {
    if text.encode_utf16().count() <= limit {
        return text.to_owned();
    }
    let mut units = 0;
    let kept: String = text
        .chars()
        .take_while(|c| {
            units += c.len_utf16();
            units < limit
        })
        .collect();
    format!("{}…", kept.trim_end())
}
