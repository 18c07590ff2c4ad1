//! The contract: what a data product promises, as plain data.

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::datatype::DataType;
use crate::ids::{ProductId, ProductKey, TableName};
pub use crate::lifecycle::Lifecycle;
use crate::lineage::ColumnReference;
use crate::period::Period;
use crate::quality::{MetricRule, RowCondition};
use crate::reference::Reference;
pub use crate::transform::{ProductInput, TransformSpec};

mod stored;

/// Version of the serialised form of [`DataProduct`] that the registry keeps.
pub const CONTRACT_FORMAT: u32 = 1;

/// A data product: one manifest, resolved. The registry keeps it as a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "stored::StoredProduct")]
pub struct DataProduct {
    /// Version of this serialised form, [`CONTRACT_FORMAT`].
    pub format: u32,
    /// `domain/product`.
    pub id: ProductId,
    /// The contract's semantic version.
    pub version: Version,
    /// The accountable team.
    pub owner: String,
    /// Where this major version is in its life.
    pub status: Lifecycle,
    /// The product that this one was before it moved or got another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<ProductId>,
    /// What the product is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The products it reads, in manifest order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<ProductInput>,
    /// The tables, in manifest order.
    pub tables: Vec<Table>,
    /// Keys that are declared but not enforced by this version, as written (ports, access, sla, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<String, Value>,
}

impl DataProduct {
    /// The major version's key in registry and warehouse.
    pub fn key(&self) -> ProductKey {
        self.id.key(self.version.major)
    }

    /// How long a table's snapshots are kept, from `sla.retention`; `None`: for ever.
    pub fn retention(&self) -> Option<Period> {
        let text = self.declared.get("sla")?.get("retention")?.as_str()?;
        Period::parse(text).ok()
    }

    /// Whether nobody should rely on it yet.
    pub fn is_draft(&self) -> bool {
        self.status == Lifecycle::Draft
    }

    /// The last day of support, from `sla.endOfSupport`, as written.
    pub fn end_of_support(&self) -> Option<&str> {
        self.declared.get("sla")?.get("endOfSupport")?.as_str()
    }

    /// How much a bare name means this major version: an active one before a deprecated one before a draft, then the
    /// newest. `None`: it is retired.
    pub fn preference(&self) -> Option<(u8, u64)> {
        Some((self.status.preference()?, self.version.major))
    }

    /// The table called `name`, compared as SQL would.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.as_str() == name || table.name.sql() == name)
    }
}

/// How a publication changes a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    /// New rows are added.
    #[default]
    Append,
    /// New rows take the place of all the old ones.
    Replace,
    /// New rows take the place of those with the same primary key; others are added.
    Upsert,
    /// New rows take the place of all rows in the partitions they fall into.
    #[serde(rename = "replacePartitions")]
    ReplacePartitions,
}

impl WriteMode {
    /// The word the manifest uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Replace => "replace",
            Self::Upsert => "upsert",
            Self::ReplacePartitions => "replacePartitions",
        }
    }
}

/// One table of a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// The table's name, unique in its product after normalising.
    pub name: TableName,
    /// What one row is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The accountable team, where it is not the product's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How a publication changes it.
    #[serde(default)]
    pub write: WriteMode,
    /// With upsert: an SQL condition over the incoming row; where it is true, the row deletes the published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_when: Option<String>,
    /// Where its data comes from, when `publish` is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSpec>,
    /// The column by which the source is pulled incrementally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// The query that makes its rows, where it is made of other products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<TransformSpec>,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Further unique keys, each a list of columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Vec<String>>,
    /// Iceberg partition fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<PartitionField>,
    /// Sort order within data files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sort_by: Vec<SortField>,
    /// Row conditions: rows where one is false are quarantined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<RowCondition>,
    /// Rules that judge the candidate table, of the table and its columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricRule>,
    /// What its rows must find in other tables, of the table and its columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// The circuit breaker.
    #[serde(default)]
    pub quarantine: QuarantineLimit,
    /// Keys that are declared but not enforced by this version, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<String, Value>,
}

impl Table {
    /// The columns of the primary key, empty where there is none.
    pub fn primary_key(&self) -> Vec<String> {
        self.columns.iter().filter(|column| column.primary_key).map(|column| column.name.clone()).collect()
    }

    /// Top-level column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether any column, at any depth, must not be shown in clear.
    pub fn has_protected_columns(&self) -> bool {
        self.columns.iter().any(Column::is_protected)
    }

    /// Whether a rule on `path` (`address.city`, `tags[]`, `a+b`) touches a protected column.
    pub fn protects(&self, path: &str) -> bool {
        path.split('+').any(|path| {
            let top = path.split(['.', '[', '{']).next().unwrap_or(path);
            self.column(top).is_none_or(Column::is_protected)
        })
    }
}

/// One column, or a nested field, or the item of an array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// The column's name, unique among its siblings ignoring case.
    pub name: String,
    /// The column's type.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// What a value means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The accountable team, where it is not the one of what the column stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Part of the primary key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub primary_key: bool,
    /// Null is not allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// No two rows share a value; nulls are distinct.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// Constraints on each value.
    #[serde(default, skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// Personal data: shown masked in quarantine and samples.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pii: bool,
    /// How the column is masked for those who may not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Columns of other products that it comes from, where there is no SQL to read that from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ColumnReference>,
    /// The column's name in the revision before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// Its value, as text, in rows that were published before the column was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Keys that are declared but not enforced by this version, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<String, Value>,
}

impl Column {
    /// A column without any promise but its type.
    pub fn anonymous(name: &str, data_type: DataType) -> Self {
        Self {
            name: name.to_owned(),
            data_type,
            description: None,
            owner: None,
            primary_key: false,
            required: false,
            unique: false,
            constraints: Constraints::default(),
            pii: false,
            mask: None,
            from: Vec::new(),
            renamed_from: None,
            default: None,
            declared: BTreeMap::new(),
        }
    }

    /// Why it carries none of the protection of the columns that it is derived from.
    pub fn declassify(&self) -> Option<&str> {
        self.declared.get("declassify")?.as_str().map(str::trim).filter(|reason| !reason.is_empty())
    }

    /// Whether the column, or a field in it, is personal data or masked.
    pub fn is_protected(&self) -> bool {
        self.pii
            || self.mask.as_deref().is_some_and(|mask| mask != "none")
            || match &self.data_type {
                DataType::Struct(fields) => fields.iter().any(Self::is_protected),
                DataType::Array(item) => item.is_protected(),
                DataType::Map(_, value) => value.is_protected(),
                _ => false,
            }
    }
}

/// Why a column cannot have this name; `None` where it can.
pub fn bad_column_name(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("a column's name must not be empty".into())
    } else if name.len() > 255 {
        Some(format!("a column's name has at most 255 bytes, this one has {}", name.len()))
    } else if name.starts_with("__") {
        Some(format!("`{name}`: names that start with `__` are reserved"))
    } else {
        let bad =
            name.chars().find(|c| c.is_control() || matches!(c, '.' | '[' | ']' | '{' | '}' | '+' | '"' | '`'))?;
        Some(format!("`{}` has `{}`, which a column's name cannot have", name.escape_default(), bad.escape_default()))
    }
}

/// What each value of a column must satisfy. Bounds are kept as text and read by the column's type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Constraints {
    /// The allowed values, as text.
    #[serde(rename = "enum", skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// Smallest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<String>,
    /// Largest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<String>,
    /// Every value is greater.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive_minimum: Option<String>,
    /// Every value is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive_maximum: Option<String>,
    /// Every value is a whole multiple of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple_of: Option<String>,
    /// Least number of characters (text) or items (array).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    /// Greatest number of characters (text) or items (array).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// A regular expression that must be found in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// A well-known text format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
    /// How dates and times are written in the text: `yyyy-MM-dd` (as in Java and ODCS) or `%Y-%m-%d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_format: Option<String>,
    /// An SQL condition on the row: where it holds, null is not allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_if: Option<String>,
}

impl Constraints {
    /// Whether nothing is constrained.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Well-known text formats, as JSON Schema names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// An e-mail address (the HTML standard's production).
    Email,
    /// A UUID (RFC 9562).
    Uuid,
    /// An absolute URI (RFC 3986).
    Uri,
    /// Dotted decimal IPv4 address.
    Ipv4,
    /// IPv6 address (RFC 4291).
    Ipv6,
    /// A host name (RFC 1123).
    Hostname,
    /// A calendar day, `2013-01-31` (RFC 3339 `full-date`).
    Date,
    /// An instant, `2013-01-31T06:00:00Z` (RFC 3339 `date-time`).
    #[serde(rename = "date-time")]
    DateTime,
    /// A time of day, `06:00:00`, with or without an offset (ISO 8601; RFC 3339 `full-time` has one).
    Time,
}

impl TextFormat {
    /// Every format and its word.
    pub const ALL: [(&'static str, Self); 9] = [
        ("email", Self::Email),
        ("uuid", Self::Uuid),
        ("uri", Self::Uri),
        ("ipv4", Self::Ipv4),
        ("ipv6", Self::Ipv6),
        ("hostname", Self::Hostname),
        ("date", Self::Date),
        ("date-time", Self::DateTime),
        ("time", Self::Time),
    ];
}

/// An Iceberg partition field: `day(updated_at)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionField {
    /// The source column.
    pub column: String,
    /// The transform.
    pub transform: Transform,
}

impl PartitionField {
    /// The field's name in the table: `updated_at_day`, or the column's own for identity.
    pub fn name(&self) -> String {
        let suffix = match self.transform {
            Transform::Identity => "",
            Transform::Year => "_year",
            Transform::Month => "_month",
            Transform::Day => "_day",
            Transform::Hour => "_hour",
            Transform::Bucket(_) => "_bucket",
            Transform::Truncate(_) => "_trunc",
        };
        format!("{}{suffix}", self.column)
    }
}

/// Iceberg's partition transforms (spec: Partition Transforms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// The value itself.
    Identity,
    /// Years since 1970.
    Year,
    /// Months since 1970-01.
    Month,
    /// Days since 1970-01-01.
    Day,
    /// Hours since the epoch.
    Hour,
    /// Murmur3 hash modulo N.
    Bucket(u32),
    /// Width W prefix or floor.
    Truncate(u32),
}

/// One sort column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortField {
    /// The column.
    pub column: String,
    /// Largest first.
    #[serde(default)]
    pub descending: bool,
}

/// Where a table's data comes from. Which kind it is shows in its keys: `database`, `iceberg`, else `path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SourceSpec {
    /// A table or query of a database.
    Database(DatabaseSource),
    /// An Iceberg table that this mesh did not publish.
    Iceberg(IcebergSource),
    /// Files.
    Files(FileSource),
}

/// A table or query of a database. Texts may hold references to secrets; what they stand for is never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSource {
    /// `postgres://…` or `sqlite:path`, mostly a reference such as `${env:CRM_URL}`.
    pub database: String,
    /// The rows.
    #[serde(flatten)]
    pub rows: DatabaseRows,
    /// An SQL condition in the database's own dialect.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What of a database is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseRows {
    /// A table or view, `schema.table` or `table`.
    Table(String),
    /// The rows of a SELECT.
    Query(String),
}

/// An Iceberg table by its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IcebergSource {
    /// A metadata document, or the table's folder: then the newest document in it.
    pub iceberg: String,
    /// An SQL condition over the table's columns.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// Files, and how they are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSource {
    /// A file, folder or glob, relative to the manifest; `-` is standard input.
    pub path: String,
    /// The format; by file name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<SourceFormat>,
    /// CSV options.
    #[serde(default)]
    pub csv: CsvOptions,
}

/// File formats a source can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// Delimited text (RFC 4180), plain or gzip.
    Csv,
    /// One JSON object a line, plain or gzip.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// One JSON array of objects, plain or gzip.
    Json,
    /// Apache Arrow IPC, file or stream format.
    Arrow,
    /// An Avro object container file.
    Avro,
}

impl SourceFormat {
    /// Every format and its words; the first word is the format's name.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("csv", Self::Csv),
        ("ndjson", Self::Ndjson),
        ("json", Self::Json),
        ("parquet", Self::Parquet),
        ("arrow", Self::Arrow),
        ("ipc", Self::Arrow),
        ("avro", Self::Avro),
    ];

    /// The format that the ending of a file's name says, `.gz` aside, which only texts have.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (name, gzip) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let format = match name.rsplit_once('.')?.1 {
            "csv" => Self::Csv,
            "ndjson" | "jsonl" => Self::Ndjson,
            "json" => Self::Json,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "arrows" | "ipc" | "feather" => Self::Arrow,
            "avro" => Self::Avro,
            _ => return None,
        };
        (!gzip || format.is_text()).then_some(format)
    }

    /// Whether records are text, which may be compressed with gzip as a whole.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Ndjson | Self::Json)
    }
}

/// How delimited text is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsvOptions {
    /// One ASCII character.
    pub delimiter: char,
    /// Whether the first record names the columns; without, the contract's order counts.
    pub header: bool,
    /// The quote character; none switches quoting off.
    pub quote: Option<char>,
    /// Texts that mean null; by default the empty text (an unquoted or quoted empty cell).
    pub null_text: Vec<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: ',', header: true, quote: Some('"'), null_text: vec![String::new()] }
    }
}

/// The share of rows read that may be quarantined before the publication is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuarantineLimit {
    /// In percent, 0 to 100.
    pub percent: f64,
}

impl Default for QuarantineLimit {
    fn default() -> Self {
        Self { percent: 5.0 }
    }
}
