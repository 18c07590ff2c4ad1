//! A checked tree to the types of `datamesh-core`.

mod access;
mod lifecycle;
mod protection;
mod quality;
mod references;

pub(crate) use references::check_across;

use std::collections::{BTreeMap, HashMap};

use datamesh_core::contract::{
    self, CONTRACT_FORMAT, Constraints, DataProduct, PartitionField, QuarantineLimit, SortField, Table, TextFormat,
    Transform, WriteMode,
};
use datamesh_core::datatype::SCALAR_TYPES;
use datamesh_core::dates::DatePattern;
use datamesh_core::domain::Team;
use datamesh_core::{Column, DataType, Name, ProductId, scalar};
use semver::Version;

use crate::governance::Principals;
use crate::inputs;
use crate::shape::{self, closest, percent};
use crate::source;
use crate::yaml::{Document, Node};

/// Reads a `product.yaml`. `domain` is that of the nearest `domain.yaml` above the file, where there is one.
///
/// `None` where an error was reported.
pub fn product(document: &mut Document<'_>, root: &Node, domain: Option<&Name>) -> Option<DataProduct> {
    shape::check(document, root, &shape::MANIFEST, "manifest");
    let node = root.get("dataProduct")?;
    let name = read_name(document, node, "name");
    let version = node.get("version").and_then(|node| read_version(document, node));
    let owner = read_owner(document, node);
    let declared_domain = node.get("domain").and_then(|node| read_name_at(document, node));
    if let (Some(declared), Some(domain), Some(at)) = (&declared_domain, domain, node.get("domain"))
        && declared.sql() != domain.sql()
    {
        document.error(
            "domain-mismatch",
            at.span,
            format!("the product says domain `{declared}`, but it lies in the folder of domain `{domain}`"),
            "leave `domain` out, or move the product",
        );
    }
    let inputs = inputs::read_inputs(document, node);
    let domain = declared_domain.or_else(|| domain.cloned()).or_else(|| domain_of_owner(document, node));

    let mut tables: Vec<Table> = Vec::new();
    for entry in node.get("schema").and_then(Node::items).unwrap_or_default() {
        let Some(table) = read_table(document, entry) else { continue };
        if let Some(other) = tables.iter().find(|other| other.name.sql() == table.name.sql()) {
            let message = if other.name == table.name {
                format!("table `{}` is declared twice", table.name)
            } else {
                format!("tables `{}` and `{}` are the same in SQL", other.name, table.name)
            };
            document.error("duplicate-table", name_span(entry), message, "give each table a name of its own");
            continue;
        }
        tables.push(table);
    }
    if node.get("schema").and_then(Node::items).is_some_and(<[Node]>::is_empty) {
        document.error(
            "no-tables",
            node.get("schema").map_or(node.span, |node| node.span),
            "the product has no table",
            "add one below `schema:`",
        );
    }
    if let (Some(domain), Some(product)) = (&domain, &name) {
        references::make_own(&mut tables, &ProductId { domain: domain.clone(), product: product.clone() });
    }
    references::check_own(document, &tables, node);
    protection::check_classification(document, node);
    access::check(document, node, &tables);
    let status = version.as_ref().map(|version| lifecycle::read_status(document, node, version));
    let id = domain.zip(name).map(|(domain, product)| ProductId { domain, product });
    let moved_from = lifecycle::read_moved_from(document, node, id.as_ref());
    if document.has_errors() {
        return None;
    }
    Some(DataProduct {
        format: CONTRACT_FORMAT,
        id: id?,
        version: version?,
        owner: owner?,
        status: status?,
        moved_from,
        description: text(node, "description"),
        inputs,
        tables,
        declared: declared(node, &shape::DATA_PRODUCT),
    })
}

/// What a `mesh.yaml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// The mesh's name.
    pub name: String,
    /// Who answers for what nobody else does.
    pub owner: Option<String>,
    /// The teams that it declares.
    pub teams: Vec<Team>,
    /// Where tables are kept: a URL, or a path from the mesh's folder. It may have references to secrets.
    pub warehouse: Option<String>,
    /// Where the registry is: a URL of PostgreSQL, or a path from the mesh's folder. It may have references to secrets.
    pub registry: Option<String>,
    /// Who there is, and which policies hold.
    pub principals: Principals,
}

/// Reads a `mesh.yaml`.
pub fn mesh(document: &mut Document<'_>, root: &Node) -> Option<MeshSettings> {
    shape::check(document, root, &shape::MESH, "mesh");
    let warehouse = read_warehouse(document, root);
    let registry = read_registry(document, root);
    let owner = read_owner(document, root);
    let teams = crate::domain::read_teams(document, root);
    let principals = crate::governance::read(document, root);
    if document.has_errors() {
        return None;
    }
    text(root, "name").map(|name| MeshSettings { name, owner, teams, warehouse, registry, principals })
}

fn read_warehouse(document: &mut Document<'_>, root: &Node) -> Option<String> {
    let warehouse = text(root, "warehouse")?;
    let node = root.get("warehouse")?;
    crate::source::check_location(document, node, &warehouse)?;
    let (scheme, _) = warehouse.split_once("://").unwrap_or(("file", ""));
    // All of it, or its beginning, may be a reference: then only the run can tell what it is.
    if !(["file", "s3", "gs", "az"].contains(&scheme) || scheme.contains("${")) {
        document.error(
            "invalid-warehouse",
            node.span,
            format!("tables cannot be kept at `{scheme}://`"),
            "write a folder, or an address such as s3://bucket/prefix",
        );
        return None;
    }
    Some(warehouse)
}

fn read_registry(document: &mut Document<'_>, root: &Node) -> Option<String> {
    let registry = text(root, "registry")?;
    let node = root.get("registry")?;
    crate::source::check_location(document, node, &registry)?;
    let (scheme, _) = registry.split_once("://").unwrap_or(("postgres", ""));
    // All of it, or its beginning, may be a reference: then only the run can tell what it is.
    if !(["postgres", "postgresql"].contains(&scheme) || scheme.contains("${")) {
        document.error(
            "invalid-registry",
            node.span,
            format!("a registry cannot be kept at `{scheme}://`"),
            "write a path to a SQLite file, or `postgres://user:${env:PASSWORD}@host:port/database`",
        );
        return None;
    }
    Some(registry)
}

pub(crate) fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).filter(|node| !node.is_null()).and_then(Node::text).map(|text| text.trim().to_owned())
}

/// The accountable team. A placeholder is nobody, so nobody would answer for what is published.
pub(crate) fn read_owner(document: &mut Document<'_>, node: &Node) -> Option<String> {
    let owner = text(node, "owner")?;
    let placeholder = owner.is_empty()
        || ["todo", "tbd", "fixme"].iter().any(|word| owner.to_ascii_lowercase().split(' ').next() == Some(*word));
    if placeholder && let Some(at) = node.get("owner") {
        document.error(
            "owner-missing",
            at.span,
            "nobody is named as owner yet",
            "write the team that answers for it, such as `weather-team`, in place of the placeholder",
        );
        return None;
    }
    Some(owner)
}

pub(crate) fn texts(node: Option<&Node>) -> Vec<String> {
    match node {
        Some(node) => match node.items() {
            Some(items) => items.iter().filter_map(Node::text).map(str::to_owned).collect(),
            None => node.text().map(str::to_owned).into_iter().collect(),
        },
        None => Vec::new(),
    }
}

fn name_span(node: &Node) -> crate::yaml::Span {
    node.get("name").unwrap_or(node).span
}

fn declared(node: &Node, object: &shape::Object) -> BTreeMap<String, serde_json::Value> {
    let keys = object.keys.iter().filter(|key| key.kept);
    keys.filter_map(|key| Some((key.name.to_owned(), node.get(key.name)?.to_json()))).collect()
}

pub(crate) fn read_name(document: &mut Document<'_>, node: &Node, key: &str) -> Option<Name> {
    node.get(key).and_then(|node| read_name_at(document, node))
}

fn read_name_at(document: &mut Document<'_>, node: &Node) -> Option<Name> {
    match Name::new(node.text()?) {
        Ok(name) => Some(name),
        Err(why) => {
            document.error("invalid-name", node.span, why, "use letters, digits, `-` and `_`, starting with a letter");
            None
        }
    }
}

fn read_version(document: &mut Document<'_>, node: &Node) -> Option<Version> {
    let text = node.text()?.trim();
    let padded = match text.split('.').count() {
        1 => format!("{text}.0.0"),
        2 => format!("{text}.0"),
        _ => text.to_owned(),
    };
    match Version::parse(&padded) {
        Ok(version) => Some(version),
        Err(error) => {
            document.error(
                "invalid-version",
                node.span,
                format!("`{text}` is not a semantic version: {error}"),
                "write `major.minor.patch`, such as 1.0.0",
            );
            None
        }
    }
}

fn domain_of_owner(document: &mut Document<'_>, node: &Node) -> Option<Name> {
    let owner = node.get("owner")?;
    let text = owner.text()?.trim();
    match Name::new(text.strip_suffix("-domain").unwrap_or(text)) {
        Ok(name) => Some(name),
        Err(_) => {
            document.error(
                "no-domain",
                owner.span,
                format!("owner `{text}` does not tell the product's domain"),
                "add `domain:`, or a domain.yaml in a folder above",
            );
            None
        }
    }
}

fn read_table(document: &mut Document<'_>, node: &Node) -> Option<Table> {
    let name = read_name(document, node, "name");
    if let Some(kind) = node.get("type").filter(|kind| kind.text() == Some("view")) {
        document.error("unsupported-view", kind.span, "views are not supported yet", "use `type: table`");
    }
    let write = match node.get("write") {
        None if node.get("transform").is_some() => WriteMode::Replace,
        None => WriteMode::Append,
        Some(mode) => match mode.text() {
            Some("append") => WriteMode::Append,
            Some("replace") => WriteMode::Replace,
            Some("upsert") => WriteMode::Upsert,
            Some("replacePartitions") => WriteMode::ReplacePartitions,
            _ => WriteMode::Append,
        },
    };
    let columns = read_columns(document, node);
    if columns.is_empty() && node.get("columns").and_then(Node::items).is_some() {
        document.error("no-columns", name_span(node), "the table has no column", "add one below `columns:`");
    }
    let mut table = Table {
        name: name?,
        description: text(node, "description"),
        owner: read_owner(document, node),
        write,
        delete_when: None,
        source: node.get("source").and_then(|node| source::read(document, node)),
        watermark: None,
        transform: inputs::read_transform(document, node),
        columns,
        unique: Vec::new(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        conditions: Vec::new(),
        metrics: Vec::new(),
        references: Vec::new(),
        quarantine: QuarantineLimit::default(),
        declared: declared(node, &shape::TABLE),
    };
    for entry in node.get("unique").and_then(Node::items).unwrap_or_default() {
        let key = texts(Some(entry));
        if key.is_empty() {
            document.error(
                "empty-key",
                entry.span,
                "a unique key names at least one column",
                "name its columns, or remove it",
            );
        }
        if key.iter().all(|column| key_column(document, &table, entry, column)) && !key.is_empty() {
            table.unique.push(key);
        }
    }
    check_keys(document, &table, node);
    lifecycle::check_renames(document, &table, node);
    source::read_watermark(document, &mut table, node);
    for entry in node.get("partitionBy").and_then(Node::items).unwrap_or_default() {
        if let Some(field) = read_partition(document, &table, entry) {
            if table.partition_by.contains(&field) {
                document.error(
                    "duplicate-partition",
                    entry.span,
                    "the column has such a partition field already",
                    "keep one of them",
                );
            } else {
                table.partition_by.push(field);
            }
        }
    }
    for entry in node.get("sortBy").and_then(Node::items).unwrap_or_default() {
        if let Some(field) = read_sort(document, &table, entry) {
            table.sort_by.push(field);
        }
    }
    crate::write::check(document, &mut table, node);
    if let Some(limit) = node.get("quarantine") {
        let limit = limit.get("limit").unwrap_or(limit);
        if let Some(percent) = limit.text().and_then(percent) {
            table.quarantine = QuarantineLimit { percent };
        }
    }
    let unenforced = quality::unenforced(node);
    if !unenforced.is_empty() {
        table.declared.insert("quality".to_owned(), unenforced.into());
    }
    references::read_references(document, &mut table, node);
    quality::read_quality(document, &mut table, node.get("quality"), None);
    for entry in node.get("columns").and_then(Node::items).unwrap_or_default() {
        let column = text(entry, "name").filter(|name| table.column(name).is_some());
        if let Some(column) = column {
            quality::read_quality(document, &mut table, entry.get("quality"), Some(&column));
        }
    }
    Some(table)
}

fn check_keys(document: &mut Document<'_>, table: &Table, node: &Node) {
    for entry in node.get("columns").and_then(Node::items).unwrap_or_default() {
        let Some(column) = text(entry, "name").and_then(|name| table.column(&name).cloned()) else { continue };
        if (column.primary_key || column.unique) && !column.data_type.is_scalar() {
            let at = entry.get("primaryKey").or_else(|| entry.get("unique")).unwrap_or(entry).span;
            document.error(
                "invalid-key",
                at,
                format!("`{}` is {}, which cannot be a key", column.name, column.data_type),
                "use a scalar column",
            );
        }
    }
}

fn key_column(document: &mut Document<'_>, table: &Table, at: &Node, name: &str) -> bool {
    match find_column(document, table, at, name) {
        Some(column) if column.data_type.is_scalar() => true,
        Some(column) => {
            document.error(
                "invalid-key",
                at.span,
                format!("`{name}` is {}, which cannot be a key", column.data_type),
                "use a scalar column",
            );
            false
        }
        None => false,
    }
}

pub(crate) fn find_column<'t>(
    document: &mut Document<'_>,
    table: &'t Table,
    at: &Node,
    name: &str,
) -> Option<&'t Column> {
    let found = table.column(name);
    if found.is_none() {
        let help = match closest(name, table.columns.iter().map(|column| column.name.as_str())) {
            Some(column) => format!("did you mean `{column}`?"),
            None => "declare it below `columns:`".to_owned(),
        };
        document.error("unknown-column", at.span, format!("table `{}` has no column `{name}`", table.name), help);
    }
    found
}

fn read_columns(document: &mut Document<'_>, node: &Node) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    for entry in node.get("columns").and_then(Node::items).unwrap_or_default() {
        let Some(name) = entry.get("name") else { continue };
        let Some(column) = read_column(document, entry, text(entry, "name").as_deref()) else { continue };
        if let Some(why) = contract::bad_column_name(&column.name) {
            document.error(
                "invalid-name",
                name.span,
                why,
                "use letters, digits and `_`; dots, brackets, quotes, `+` and control characters are not possible",
            );
        } else if let Some(other) = seen.insert(column.name.to_ascii_lowercase(), column.name.clone()) {
            let message = if other == column.name {
                format!("column `{}` is declared twice", column.name)
            } else {
                format!("columns `{other}` and `{}` differ only in case", column.name)
            };
            document.error("duplicate-column", name.span, message, "give each column a name of its own");
        } else {
            columns.push(column);
        }
    }
    columns
}

fn read_column(document: &mut Document<'_>, node: &Node, name: Option<&str>) -> Option<Column> {
    let type_node = node.get("type")?;
    let type_text = type_node.text()?;
    let data_type = match DataType::parse(type_text) {
        Ok(data_type) => data_type,
        Err(why) => {
            let help = match closest(type_text, SCALAR_TYPES.iter().copied()).or_else(|| synonym(type_text)) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("types: {}, array<…>, map<…,…>, struct", SCALAR_TYPES.join(", ")),
            };
            document.error("invalid-type", type_node.span, why, help);
            return None;
        }
    };
    let column = complete_column(document, node, name?, data_type);
    if let Some(why) = unusable(&column.data_type, 0) {
        document.error("no-columns", type_node.span, why, "add fields below `columns:`, and keep types flat");
    }
    Some(column)
}

fn synonym(text: &str) -> Option<&'static str> {
    let word = text.split(['(', '<']).next().unwrap_or(text).trim().to_ascii_lowercase();
    Some(match word.as_str() {
        "varchar" | "char" | "text" | "str" | "nvarchar" => "string",
        "integer" | "int32" | "smallint" | "tinyint" | "short" => "int",
        "bigint" | "int64" => "long",
        "real" | "float32" => "float",
        "float64" | "number" => "double",
        "numeric" => "decimal(p,s)",
        "bool" => "boolean",
        "timestamptz" | "timestamp_tz" | "datetime" => "timestamp",
        "bytes" | "blob" | "varbinary" => "binary",
        "list" => "array<…>",
        "object" | "record" | "row" => "struct",
        _ => return None,
    })
}

fn complete_column(document: &mut Document<'_>, node: &Node, name: &str, data_type: DataType) -> Column {
    let data_type = complete_type(document, node, data_type);
    let flag = |key: &str| node.get(key).and_then(Node::boolean).unwrap_or(false);
    let constraints = read_constraints(document, node, &data_type);
    protection::check(document, node);
    Column {
        name: name.to_owned(),
        description: text(node, "description"),
        owner: read_owner(document, node),
        primary_key: flag("primaryKey"),
        required: flag("required") || flag("primaryKey"),
        unique: flag("unique"),
        constraints,
        pii: flag("pii"),
        mask: protection::read_mask(document, node, &data_type),
        from: crate::from::read(document, node),
        renamed_from: text(node, "renamedFrom"),
        default: lifecycle::read_default(document, node, &data_type),
        declared: declared(node, &shape::COLUMN),
        data_type,
    }
}

/// Takes a struct's fields from `columns` and an array's item constraints from `items`.
fn complete_type(document: &mut Document<'_>, node: &Node, data_type: DataType) -> DataType {
    match data_type {
        DataType::Struct(fields) => {
            let given = read_columns(document, node);
            refuse_nested_rules(document, node);
            if fields.is_empty() && given.is_empty() {
                document.error("no-columns", node.span, "the struct has no field", "add some below `columns:`");
            } else if !fields.is_empty() && !given.is_empty() {
                document.error(
                    "fields-twice",
                    node.span,
                    "the struct's fields are given in its type and in `columns`",
                    "keep one of them",
                );
            }
            DataType::Struct(if fields.is_empty() { given } else { fields })
        }
        DataType::Array(item) => {
            let mut item = *item;
            if let Some(items) = node.get("items") {
                if let Some(given) = items.get("type").and_then(Node::text)
                    && let Ok(given) = DataType::parse(given)
                    && matches!(&item.data_type, DataType::Struct(fields) if fields.is_empty())
                {
                    item.data_type = given;
                }
                item = complete_column(document, items, "item", item.data_type);
            } else if matches!(&item.data_type, DataType::Struct(_)) {
                item.data_type = complete_type(document, node, item.data_type);
            }
            DataType::Array(Box::new(item))
        }
        other => {
            if let Some(columns) = node.get("columns").filter(|_| !matches!(other, DataType::Map(..))) {
                document.error(
                    "not-a-struct",
                    columns.span,
                    format!("a column of type {other} has no fields"),
                    "use `type: struct`",
                );
            }
            other
        }
    }
}

/// Keys and metric rules are of whole columns; on a nested field nothing would enforce them.
fn refuse_nested_rules(document: &mut Document<'_>, node: &Node) {
    for field in node.get("columns").and_then(Node::items).unwrap_or_default() {
        for key in ["primaryKey", "unique", "quality", "references", "relationships", "completeIf"] {
            if let Some(at) = field.get(key) {
                let message = format!("`{key}` is not possible on a nested field");
                document.error(
                    "misplaced-rule",
                    at.span,
                    message,
                    "use it on a column of the table, or write an `sql` rule",
                );
            }
        }
    }
}

/// The deepest type: it must survive being written as JSON and as Parquet.
const MAX_TYPE_DEPTH: usize = 24;

/// Why a complete type cannot be stored.
fn unusable(data_type: &DataType, depth: usize) -> Option<&'static str> {
    if depth > MAX_TYPE_DEPTH {
        return Some("the type is nested too deep");
    }
    match data_type {
        DataType::Struct(fields) if fields.is_empty() => Some("a struct has no field"),
        DataType::Struct(fields) => fields.iter().find_map(|field| unusable(&field.data_type, depth + 1)),
        DataType::Array(item) => unusable(&item.data_type, depth + 1),
        DataType::Map(_, value) => unusable(&value.data_type, depth + 1),
        _ => None,
    }
}

fn read_constraints(document: &mut Document<'_>, node: &Node, data_type: &DataType) -> Constraints {
    let mut constraints = Constraints::default();
    if let Some(allowed) = node.get("enum") {
        let mut values = Vec::new();
        for value in allowed.items().unwrap_or_default() {
            if value.is_null() {
                document.error(
                    "null-in-enum",
                    value.span,
                    "null is no value",
                    "leave it out: null is allowed unless the column is `required`; quote it if text is meant",
                );
            } else if let Some(text) = value.text()
                && check_scalar(document, value, "enum", text, data_type)
            {
                values.push(text.to_owned());
            }
        }
        if allowed.items().is_some_and(<[Node]>::is_empty) {
            document.error("empty-enum", allowed.span, "an empty `enum` allows nothing", "list the allowed values");
        }
        constraints.allowed = Some(values);
    }
    let mut bound = |key: &'static str| -> Option<String> {
        let at = node.get(key)?;
        let text = at.text()?;
        if !data_type.is_ordered() {
            document.error("misplaced-rule", at.span, format!("`{key}` makes no sense for {data_type}"), "remove it");
            return None;
        }
        check_scalar(document, at, key, text, data_type).then(|| text.to_owned())
    };
    constraints.minimum = bound("minimum");
    constraints.maximum = bound("maximum");
    constraints.exclusive_minimum = bound("exclusiveMinimum");
    constraints.exclusive_maximum = bound("exclusiveMaximum");
    if let Some(at) = node.get("multipleOf") {
        if !data_type.is_numeric() {
            document.error(
                "misplaced-rule",
                at.span,
                format!("`multipleOf` makes no sense for {data_type}"),
                "remove it",
            );
        } else if at
            .text()
            .and_then(|text| text.parse::<f64>().ok())
            .is_none_or(|step| !(step > 0.0 && step.is_finite()))
        {
            document.error(
                "invalid-bound",
                at.span,
                "`multipleOf` must be a number greater than zero",
                "write such a number",
            );
        } else if check_scalar(document, at, "multipleOf", at.text().unwrap_or_default(), data_type) {
            constraints.multiple_of = at.text().map(str::to_owned);
        }
    }
    let measurable = data_type.is_text() || matches!(data_type, DataType::Binary | DataType::Array(_));
    for (key, slot) in [("minLength", &mut constraints.min_length), ("maxLength", &mut constraints.max_length)] {
        let Some(at) = node.get(key) else { continue };
        if measurable {
            *slot = at.text().and_then(|text| text.parse().ok());
        } else {
            document.error("misplaced-rule", at.span, format!("`{key}` makes no sense for {data_type}"), "remove it");
        }
    }
    if let (Some(least), Some(most)) = (constraints.min_length, constraints.max_length)
        && least > most
    {
        document.error(
            "empty-range",
            node.span,
            format!("no length is at least {least} and at most {most}"),
            "swap `minLength` and `maxLength`",
        );
    }
    if let Some(at) = node.get("pattern") {
        let pattern = at.text().unwrap_or_default();
        if !data_type.is_text() {
            document.error("misplaced-rule", at.span, format!("`pattern` makes no sense for {data_type}"), "remove it");
        } else if check_pattern(document, at) {
            constraints.pattern = Some(pattern.to_owned());
        }
    }
    if let Some(at) = node.get("format") {
        read_format(document, at, &mut constraints, data_type);
    }
    constraints.complete_if = text(node, "completeIf");
    check_range(document, node, &constraints, data_type);
    constraints
}

/// A word for a well-known format, or a pattern for dates.
fn read_format(document: &mut Document<'_>, at: &Node, constraints: &mut Constraints, data_type: &DataType) {
    let Some(text) = at.text() else { return };
    if let Some((_, format)) = TextFormat::ALL.iter().find(|(word, _)| *word == text) {
        constraints.format = Some(*format);
    } else {
        match DatePattern::parse(text) {
            Ok(_) => constraints.date_format = Some(text.to_owned()),
            Err(why) => {
                let words = TextFormat::ALL.iter().map(|(word, _)| *word);
                let help = match closest(text, words.clone()) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => format!(
                        "one of: {}, or how dates are written, such as `yyyy-MM-dd` or `%Y-%m-%d`",
                        words.collect::<Vec<_>>().join(", ")
                    ),
                };
                let message = format!("`{text}` is neither a format nor a pattern for dates: {why}");
                document.error("invalid-format", at.span, message, help);
            }
        }
    }
    if !data_type.is_text() {
        document.error("misplaced-rule", at.span, format!("`format` makes no sense for {data_type}"), "remove it");
    }
}

fn check_pattern(document: &mut Document<'_>, at: &Node) -> bool {
    let Err(error) = regex::Regex::new(at.text().unwrap_or_default()) else { return true };
    let error = error.to_string();
    let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
    document.error(
        "invalid-pattern",
        at.span,
        format!("the pattern is not a regular expression: {why}"),
        "see the syntax of the Rust crate `regex`; look-around and back-references are not supported",
    );
    false
}

fn check_range(document: &mut Document<'_>, node: &Node, constraints: &Constraints, data_type: &DataType) {
    let parse = |bound: &Option<String>| bound.as_deref().and_then(|text| scalar::parse(text, data_type).ok());
    let least = parse(&constraints.minimum).or_else(|| parse(&constraints.exclusive_minimum));
    let most = parse(&constraints.maximum).or_else(|| parse(&constraints.exclusive_maximum));
    let empty = match (least, most) {
        (Some(scalar::Scalar::Integer(least)), Some(scalar::Scalar::Integer(most))) => least > most,
        (Some(scalar::Scalar::Double(least)), Some(scalar::Scalar::Double(most))) => least > most,
        (Some(scalar::Scalar::Decimal(least)), Some(scalar::Scalar::Decimal(most))) => least > most,
        (Some(scalar::Scalar::Text(least)), Some(scalar::Scalar::Text(most))) => least > most,
        _ => false,
    };
    if empty {
        let at = node.get("minimum").or_else(|| node.get("exclusiveMinimum")).unwrap_or(node).span;
        document.error("empty-range", at, "no value is above the minimum and below the maximum", "swap them");
    }
}

fn check_scalar(document: &mut Document<'_>, at: &Node, key: &str, text: &str, data_type: &DataType) -> bool {
    // A bound is a number on the column's own scale; one that is finer than the column can hold still bounds it.
    match scalar::parse(text, data_type) {
        Ok(_) => true,
        Err(why) => {
            document.error(
                "invalid-bound",
                at.span,
                format!("`{key}`: {why}"),
                format!("write a value of type {data_type}"),
            );
            false
        }
    }
}

fn read_partition(document: &mut Document<'_>, table: &Table, node: &Node) -> Option<PartitionField> {
    let text = node.text()?.trim();
    let usage = "write `column`, `year(column)`, `month(column)`, `day(column)`, `hour(column)`, `bucket(n, column)` or `truncate(width, column)`";
    let (transform, name) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        None => (Transform::Identity, text),
        Some((function, arguments)) => {
            let parts: Vec<_> = arguments.split(',').map(str::trim).collect();
            let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0 && *number <= 1 << 20);
            match (function.trim(), parts.as_slice()) {
                ("identity", [name]) => (Transform::Identity, *name),
                ("year" | "years", [name]) => (Transform::Year, *name),
                ("month" | "months", [name]) => (Transform::Month, *name),
                ("day" | "days", [name]) => (Transform::Day, *name),
                ("hour" | "hours", [name]) => (Transform::Hour, *name),
                ("bucket", [first, second]) if number(first).or(number(second)).is_some() => {
                    let (n, name) = if number(first).is_some() { (first, second) } else { (second, first) };
                    (Transform::Bucket(number(n)?), *name)
                }
                ("truncate", [first, second]) if number(first).or(number(second)).is_some() => {
                    let (n, name) = if number(first).is_some() { (first, second) } else { (second, first) };
                    (Transform::Truncate(number(n)?), *name)
                }
                _ => {
                    document.error(
                        "invalid-partition",
                        node.span,
                        format!("`{text}` is not a partition transform"),
                        usage,
                    );
                    return None;
                }
            }
        }
    };
    let column = find_column(document, table, node, name)?;
    use DataType as T;
    let fits = match transform {
        Transform::Identity => column.data_type.is_scalar() && !matches!(column.data_type, T::Float | T::Double),
        Transform::Year | Transform::Month | Transform::Day => {
            matches!(column.data_type, T::Date | T::Timestamp | T::TimestampNtz)
        }
        Transform::Hour => matches!(column.data_type, T::Timestamp | T::TimestampNtz),
        Transform::Bucket(_) => {
            column.data_type.is_scalar() && !matches!(column.data_type, T::Boolean | T::Float | T::Double)
        }
        Transform::Truncate(_) => matches!(column.data_type, T::Int | T::Long | T::Decimal(..) | T::String),
    };
    if !fits {
        document.error(
            "invalid-partition",
            node.span,
            format!("`{text}` does not fit a column of type {}", column.data_type),
            usage,
        );
        return None;
    }
    if name.starts_with(|c: char| !(c.is_ascii_alphabetic() || c == '_'))
        || name.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
    {
        document.error(
            "invalid-partition",
            node.span,
            format!("a partition column's name is letters, digits and `_`; `{name}` is not"),
            "rename the column",
        );
        return None;
    }
    Some(PartitionField { column: name.to_owned(), transform })
}

fn read_sort(document: &mut Document<'_>, table: &Table, node: &Node) -> Option<SortField> {
    let text = node.text()?.trim();
    let (name, descending) = match text.rsplit_once(char::is_whitespace) {
        Some((name, word)) if word.eq_ignore_ascii_case("desc") => (name.trim(), true),
        Some((name, word)) if word.eq_ignore_ascii_case("asc") => (name.trim(), false),
        _ => (text, false),
    };
    let column = find_column(document, table, node, name)?;
    if !column.data_type.is_scalar() {
        document.error(
            "invalid-sort",
            node.span,
            format!("`{name}` is {}, which has no order", column.data_type),
            "sort by a scalar column",
        );
        return None;
    }
    Some(SortField { column: name.to_owned(), descending })
}
