//! Terraform from contracts: what a platform engineer would write, as text. OpenTofu reads it too.
//!
//! Names and order depend on the contracts alone, so that the text of two runs differs only where the contracts do.

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::access::{AttributeType, offers};
use datamesh_core::contract::DataProduct;
use datamesh_core::ids::ProductKey;
use datamesh_core::{Error, ErrorCode, Result};

use crate::catalog::{self, CatalogColumn, CatalogOptions, CatalogTable, Database};
use crate::hcl::{self, Body, Expression, Item, Key, Part, block, resource};

mod access;
mod article;
mod filter;
pub mod generated;

/// The version constraint of the AWS provider: the first major version whose `aws_glue_catalog_table` takes all that is
/// written, and none after it, which may break.
const PROVIDER_VERSION: &str = "~> 6.0";

/// What the infrastructure is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TerraformTarget {
    /// AWS Glue and Lake Formation.
    #[default]
    Glue,
}

impl TerraformTarget {
    /// Every target.
    pub const ALL: [Self; 1] = [Self::Glue];

    /// Its word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Glue => "glue",
        }
    }
}

/// How much is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// A whole root module: variables, databases a product, tables with all that is known of them, access, outputs.
    #[default]
    Standard,
    /// One database a domain and bare tables, as in articles about data mesh.
    Article,
}

impl Style {
    /// Every style.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Article];

    /// Its word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Article => "article",
        }
    }
}

/// What becomes of a table that was never published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpublished {
    /// It is declared; engines can read it from its first publication on.
    #[default]
    Declared,
    /// Glue makes an empty Iceberg table at its place, which the first publication takes over.
    Empty,
}

/// How Terraform is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TerraformOptions {
    /// What it is made of.
    pub target: TerraformTarget,
    /// How much is written.
    pub style: Style,
    /// What becomes of tables without a publication.
    pub unpublished: Unpublished,
    /// The id of the mesh, for the ownership marker.
    pub mesh: Option<String>,
    /// The region that is suggested.
    pub region: Option<String>,
    /// URL of the warehouse; where it is on S3, its bucket and prefix are suggested.
    pub warehouse: Option<String>,
    /// What every database's name begins with.
    pub database_prefix: String,
    /// URLs of current metadata documents, by product and normalised table.
    pub pointers: BTreeMap<(ProductKey, String), String>,
    /// The types of principals' attributes; one that is not here is text.
    pub attributes: BTreeMap<String, AttributeType>,
}

/// A file of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerraformFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The module, and what of the contracts it could not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The files, by name.
    pub files: Vec<TerraformFile>,
    /// What is not granted, though a contract offers it, and why.
    pub warnings: Vec<String>,
}

/// Writes products as Terraform.
///
/// # Errors
/// `invalid-argument` where two names become one, where Glue cannot hold a name or a type, or where an `access:` is wrong.
pub fn render(products: &[DataProduct], options: &TerraformOptions) -> Result<Rendered> {
    let mut products: Vec<&DataProduct> = products.iter().collect();
    products.sort_by_key(|contract| contract.key());
    match options.style {
        Style::Article => article::render(&products, options),
        Style::Standard => standard(&products, options),
    }
}

/// A product with what it becomes.
struct Entry<'c> {
    contract: &'c DataProduct,
    key: ProductKey,
    database: Database,
    /// The tables, in the contract's order, each with its current metadata document.
    tables: Vec<(CatalogTable, Option<&'c str>)>,
}

impl Entry<'_> {
    fn database_label(&self) -> &str {
        &self.database.name
    }

    fn table_label(&self, table: &CatalogTable) -> String {
        format!("{}_{}", self.database.name, table.name)
    }

    /// What a table is called in variables and outputs.
    fn table_key(&self, table: &CatalogTable) -> String {
        format!("{}.{}", self.key, table.name)
    }
}

fn standard(products: &[&DataProduct], options: &TerraformOptions) -> Result<Rendered> {
    let catalog_options = CatalogOptions {
        database_prefix: options.database_prefix.clone(),
        mesh: options.mesh.clone(),
        managed_by: Some(catalog::BY_TERRAFORM),
        warehouse: None,
    };
    let mut labels = Labels::default();
    let mut entries = Vec::new();
    for contract in products {
        let key = contract.key();
        let database = catalog::database(contract, &catalog_options)?;
        labels.take(&database.name, "database", &key.to_string())?;
        let mut tables = Vec::new();
        for table in &contract.tables {
            let metadata = options.pointers.get(&(key.clone(), table.name.sql())).map(String::as_str);
            let table = catalog::table(contract, table, metadata, &catalog_options)?;
            tables.push((table, metadata));
        }
        let entry = Entry { contract, key, database, tables };
        for (table, _) in &entry.tables {
            labels.take(&entry.table_label(table), "table", &entry.table_key(table))?;
        }
        entries.push(entry);
    }
    let mut governed = Vec::new();
    let mut grants = BTreeSet::new();
    let mut warnings = Vec::new();
    for entry in &entries {
        let offers = offers(entry.contract)
            .map_err(|why| Error::new(ErrorCode::InvalidArgument, format!("`{}`: {why}", entry.key)))?;
        let access = access::access(entry, &offers, options, &mut grants, &mut warnings);
        governed.push(access);
    }
    let unreachable: Vec<String> = entries
        .iter()
        .flat_map(|entry| entry.tables.iter().map(move |(table, metadata)| (entry, table, metadata)))
        .filter(|(_, _, metadata)| metadata.is_some_and(|metadata| bucket_and_prefix(metadata).is_none()))
        .map(|(entry, table, _)| format!("`{}`", entry.table_key(table)))
        .collect();
    if !unreachable.is_empty() {
        warnings.push(format!(
            "{} {} published where AWS cannot read: put `warehouse:` of mesh.yaml on S3",
            catalog::single_line(&unreachable.join(", "), 1000),
            if unreachable.len() == 1 { "is" } else { "are" },
        ));
    }
    let roles: BTreeSet<&str> = governed.iter().flat_map(|access| &access.roles).map(String::as_str).collect();

    let mut files = vec![
        ("versions.tf".to_owned(), versions()),
        ("variables.tf".to_owned(), variables(&entries, &roles, options)),
        ("main.tf".to_owned(), locals(!roles.is_empty())),
        ("outputs.tf".to_owned(), outputs(&entries)),
    ];
    for (entry, access) in entries.iter().zip(governed) {
        let mut body = product(entry, options);
        if !access.body.is_empty() {
            body.push(Item::Blank);
            body.extend(access.body);
        }
        files.push((format!("{}.tf", entry.database.name), body));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    let files = files.into_iter().map(|(name, body)| TerraformFile { name, text: hcl::write(&body) }).collect();
    Ok(Rendered { files, warnings })
}

/// The labels that are taken: two things cannot share one.
#[derive(Default)]
struct Labels(BTreeMap<(&'static str, String), String>);

impl Labels {
    fn take(&mut self, label: &str, kind: &'static str, owner: &str) -> Result<()> {
        match self.0.insert((kind, label.to_owned()), owner.to_owned()) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("`{other}` and `{owner}` would both be the {kind} `{label}`"),
            )
            .with_help("Glue knows one level of names: rename one of them, or export them into different accounts")),
        }
    }
}

fn versions() -> Body {
    let aws = Expression::Object(vec![
        (Key::Name("source"), Expression::text("hashicorp/aws")),
        (Key::Name("version"), Expression::text(PROVIDER_VERSION)),
    ]);
    vec![
        block(
            "terraform",
            vec![
                Item::Attribute("required_version", Expression::text(">= 1.3")),
                Item::Blank,
                block("required_providers", vec![Item::Attribute("aws", aws)]),
            ],
        ),
        Item::Blank,
        Item::Block("provider", vec!["aws".into()], vec![Item::Attribute("region", Expression::raw("var.region"))]),
    ]
}

/// A variable; without a default it must be given.
fn variable(name: &str, kind: &str, description: &str, default: Option<Expression>) -> Item {
    let mut body = vec![
        Item::Attribute("description", Expression::text(description)),
        Item::Attribute("type", Expression::raw(kind)),
    ];
    body.extend(default.map(|default| Item::Attribute("default", default)));
    Item::Block("variable", vec![name.to_owned()], body)
}

fn variables(entries: &[Entry<'_>], roles: &BTreeSet<&str>, options: &TerraformOptions) -> Body {
    let null = || Expression::raw("null");
    let place = options.warehouse.as_deref().and_then(bucket_and_prefix);
    let known = entries.iter().flat_map(|entry| {
        entry
            .tables
            .iter()
            .filter_map(|(table, metadata)| Some((Key::Text(entry.table_key(table)), (*metadata)?)))
            // What Glue's engines cannot reach is not suggested.
            .filter(|(_, metadata)| bucket_and_prefix(metadata).is_some())
            .map(|(table, metadata)| (table, Expression::text(metadata)))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut blocks = vec![
        variable("region", "string", "The AWS region.", options.region.as_deref().map(Expression::text)),
        variable("catalog_id", "string", "The account whose Glue catalog it is; null: the caller's.", Some(null())),
        variable(
            "warehouse_bucket",
            "string",
            "The S3 bucket of the warehouse.",
            place.map(|(b, _)| Expression::text(b)),
        ),
        variable(
            "warehouse_prefix",
            "string",
            "The folder of the warehouse within its bucket.",
            Some(Expression::text(place.map_or("", |(_, prefix)| prefix))),
        ),
        variable(
            "metadata_locations",
            "map(string)",
            "Where the current Iceberg metadata of each published table is. Later publications are none of Terraform's business: `datamesh outbox run` follows them.",
            Some(Expression::Object(known)),
        ),
    ];
    if !roles.is_empty() {
        let roles = format!("Roles: {}.", roles.iter().copied().collect::<Vec<_>>().join(", "));
        blocks.push(variable(
            "principals",
            "map(map(object({ arn = string, attributes = optional(map(string), {}) })))",
            &format!("Who has which role in AWS: by role, under names of your choice, ARNs with the attributes that row filters compare. {roles}"),
            Some(Expression::Object(Vec::new())),
        ));
        blocks.push(variable(
            "lakeformation_role_arn",
            "string",
            "The role by which Lake Formation reads the warehouse; null: its service-linked role.",
            Some(null()),
        ));
    }
    spaced(blocks)
}

/// Blocks with an empty line between each other.
fn spaced(blocks: Vec<Item>) -> Body {
    let mut body = Vec::new();
    for item in blocks {
        if !body.is_empty() {
            body.push(Item::Blank);
        }
        body.push(item);
    }
    body
}

/// Bucket and prefix of an S3 URL.
fn bucket_and_prefix(url: &str) -> Option<(&str, &str)> {
    let path = ["s3://", "s3a://", "s3n://"].iter().find_map(|scheme| url.strip_prefix(scheme))?;
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    (!bucket.is_empty()).then_some((bucket, prefix.trim_matches('/')))
}

fn locals(governed: bool) -> Body {
    let mut body = vec![Item::Attribute(
        "warehouse",
        Expression::raw(r#"join("/", compact([var.warehouse_bucket, trim(var.warehouse_prefix, "/")]))"#),
    )];
    let mut blocks = Vec::new();
    if governed {
        let data = |kind: &str| Item::Block("data", vec![kind.to_owned(), "current".into()], Vec::new());
        blocks.push(data("aws_caller_identity"));
        blocks.push(data("aws_partition"));
        body.push(Item::Attribute(
            "catalog_id",
            Expression::raw("coalesce(var.catalog_id, data.aws_caller_identity.current.account_id)"),
        ));
    }
    blocks.push(block("locals", body));
    spaced(blocks)
}

fn outputs(entries: &[Entry<'_>]) -> Body {
    let databases = entries.iter().map(|entry| {
        let reference = format!("aws_glue_catalog_database.{}.name", entry.database_label());
        (Key::Text(entry.key.to_string()), Expression::raw(reference))
    });
    let mut tables: Vec<_> = entries
        .iter()
        .flat_map(|entry| {
            entry.tables.iter().map(|(table, _)| {
                let reference = format!("aws_glue_catalog_table.{}.arn", entry.table_label(table));
                (Key::Text(entry.table_key(table)), Expression::raw(reference))
            })
        })
        .collect();
    tables.sort_by(|(a, _), (b, _)| a.cmp(b));
    let output = |name: &str, description: &str, entries: Vec<_>| {
        let body = vec![
            Item::Attribute("description", Expression::text(description)),
            Item::Attribute("value", Expression::Object(entries)),
        ];
        Item::Block("output", vec![name.to_owned()], body)
    };
    spaced(vec![
        output("databases", "Names of the databases, by product.", databases.collect()),
        output("tables", "ARNs of the tables, by product and table.", tables),
    ])
}

fn pairs(pairs: &BTreeMap<String, String>) -> Expression {
    let key = |key: &String| match key.as_str() {
        catalog::TABLE_TYPE => Key::Name(catalog::TABLE_TYPE),
        _ => Key::Text(key.clone()),
    };
    Expression::Object(pairs.iter().map(|(name, value)| (key(name), Expression::text(value))).collect())
}

/// A tag's value: AWS takes letters, digits, spaces and `_.:/=+-@`, 256 of them.
fn tag(text: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@');
    catalog::single_line(text, 255).chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

fn tags(contract: &DataProduct) -> Expression {
    let given = [
        ("domain", Some(contract.id.domain.as_str())),
        ("product", Some(contract.id.product.as_str())),
        ("owner", Some(contract.owner.as_str()).filter(|owner| !owner.is_empty())),
        ("classification", catalog::classification(contract)),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((Key::Name(name), Expression::text(tag(value?)))));
    Expression::Object(given.collect())
}

/// A place within the warehouse.
fn warehouse_url(path: &str) -> Expression {
    let parts =
        vec![Part::Text("s3://".into()), Part::Expression("local.warehouse".into()), Part::Text(format!("/{path}"))];
    Expression::Template(parts)
}

fn product(entry: &Entry<'_>, options: &TerraformOptions) -> Body {
    let path = format!("{}/{}", entry.key.domain, entry.key.namespace());
    let mut database = vec![
        Item::Attribute("catalog_id", Expression::raw("var.catalog_id")),
        Item::Attribute("name", Expression::text(&entry.database.name)),
    ];
    database
        .extend(entry.database.description.as_ref().map(|text| Item::Attribute("description", Expression::text(text))));
    database.extend([
        Item::Attribute("location_uri", warehouse_url(&path)),
        Item::Blank,
        Item::Attribute("parameters", pairs(&entry.database.parameters)),
        Item::Blank,
        Item::Attribute("tags", tags(entry.contract)),
    ]);
    let mut body = vec![
        Item::Comment(format!("{} {}", entry.contract.id, entry.contract.version)),
        Item::Blank,
        resource("aws_glue_catalog_database", entry.database_label(), database),
    ];
    for (table, metadata) in &entry.tables {
        body.push(Item::Blank);
        body.push(table_resource(entry, table, *metadata, options));
    }
    body
}

fn table_resource(entry: &Entry<'_>, table: &CatalogTable, metadata: Option<&str>, options: &TerraformOptions) -> Item {
    let path = format!("{}/{}/{}", entry.key.domain, entry.key.namespace(), table.name);
    // A product that moved has its files where they were.
    let usual = options.warehouse.as_deref().map(|url| format!("{}/{path}", url.trim_end_matches('/')));
    let location = match &table.location {
        Some(folder) if usual.as_ref() != Some(folder) && bucket_and_prefix(folder).is_some() => {
            Expression::text(folder)
        }
        _ => warehouse_url(&path),
    };
    let empty = metadata.is_none() && options.unpublished == Unpublished::Empty;
    let mut parameters = table.parameters.clone();
    parameters.remove(catalog::METADATA_LOCATION);
    if empty {
        parameters.remove(catalog::TABLE_TYPE);
    }
    let database = format!("aws_glue_catalog_database.{}.name", entry.database_label());
    let mut body = vec![
        Item::Attribute("catalog_id", Expression::raw("var.catalog_id")),
        Item::Attribute("name", Expression::text(&table.name)),
        Item::Attribute("database_name", Expression::raw(database)),
    ];
    body.extend(table.description.as_ref().map(|text| Item::Attribute("description", Expression::text(text))));
    body.extend(table.owner.as_ref().map(|owner| Item::Attribute("owner", Expression::text(owner))));
    let current = format!(
        r#"{{ for table, location in var.metadata_locations : "{}" => location if table == {} }}"#,
        catalog::METADATA_LOCATION,
        hcl::quoted(&entry.table_key(table)),
    );
    body.extend([
        Item::Attribute("table_type", Expression::text("EXTERNAL_TABLE")),
        Item::Blank,
        Item::Attribute(
            "parameters",
            if empty {
                pairs(&parameters)
            } else {
                Expression::Call("merge", vec![pairs(&parameters), Expression::raw(current)])
            },
        ),
    ]);
    if empty {
        let iceberg = vec![
            Item::Attribute("metadata_operation", Expression::text("CREATE")),
            Item::Attribute("version", Expression::text("2")),
        ];
        body.extend([Item::Blank, block("open_table_format_input", vec![block("iceberg_input", iceberg)])]);
    }
    for column in &table.partition_keys {
        body.extend([Item::Blank, column_block("partition_keys", column)]);
    }
    let mut storage = vec![Item::Attribute("location", location)];
    for column in &table.columns {
        storage.extend([Item::Blank, column_block("columns", column)]);
    }
    body.extend([Item::Blank, block("storage_descriptor", storage)]);
    body.extend([Item::Blank, block("lifecycle", vec![Item::Attribute("ignore_changes", ignored())])]);
    resource("aws_glue_catalog_table", &entry.table_label(table), body)
}

/// What others than Terraform change: publications move the pointer, and an empty table becomes a published one.
fn ignored() -> Expression {
    let parameters = [
        catalog::TABLE_TYPE,
        catalog::METADATA_LOCATION,
        catalog::PREVIOUS_METADATA_LOCATION,
        catalog::PUBLICATION,
        catalog::SEQUENCE,
    ];
    let parameters = parameters.iter().map(|name| Expression::raw(format!("parameters[{}]", hcl::quoted(name))));
    Expression::List(std::iter::once(Expression::raw("open_table_format_input")).chain(parameters).collect())
}

fn column_block(kind: &'static str, column: &CatalogColumn) -> Item {
    let mut body = vec![
        Item::Attribute("name", Expression::text(&column.name)),
        Item::Attribute("type", Expression::text(&column.data_type)),
    ];
    body.extend(column.comment.as_ref().map(|comment| Item::Attribute("comment", Expression::text(comment))));
    if !column.parameters.is_empty() {
        body.push(Item::Attribute("parameters", pairs(&column.parameters)));
    }
    block(kind, body)
}
