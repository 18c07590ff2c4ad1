//! A schema object of ODCS against a table.

use datamesh_core::DataType;

use super::{Version, Walk, column, custom, ordered, references, rule, types};
use crate::shape;
use crate::standards::lens::{Group, Lens, no_merge};
use crate::standards::names;
use crate::standards::tree::{Map, Tree};

struct Context {
    name: String,
    /// The columns whose plain values partition the table, in order.
    partitions: Vec<String>,
}

static LENS: Lens<Context> = Lens {
    standard: super::STANDARD,
    nested: &[],
    groups: &[
        Group { ours: &["name"], theirs: &["name"] },
        Group { ours: &["type"], theirs: &["physicalType"] },
        Group { ours: &["description"], theirs: &["description"] },
        Group { ours: &["tags"], theirs: &["tags"] },
        Group { ours: &["relationships", "references"], theirs: &["relationships"] },
        Group { ours: &["custom"], theirs: &["customProperties"] },
    ],
    get,
    put,
    merge: no_merge,
};

const ORDER: &[&str] = &[
    "id",
    "name",
    "physicalName",
    "businessName",
    "logicalType",
    "physicalType",
    "description",
    "dataGranularityDescription",
    "tags",
    "properties",
];

/// Stands for the columns that a schema object does not tell; our reader refuses it.
fn unknown_columns() -> Vec<Tree> {
    let mut column = Map::new();
    column.put("name", types::TODO);
    column.put("type", types::TODO);
    vec![Tree::Map(column)]
}

/// Stands for the tables that a contract does not tell; our reader refuses it.
pub(super) fn unknown_tables() -> Vec<Tree> {
    let mut table = Map::new();
    table.put("name", types::TODO);
    table.put("columns", unknown_columns());
    vec![Tree::Map(table)]
}

/// Reads the schema of a contract.
pub(super) fn import_all(walk: &Walk<'_>, path: &str, list: Vec<Tree>) -> Vec<Tree> {
    let mut tables: Vec<String> =
        list.iter().map(|entry| names::name(entry.get("name").and_then(Tree::as_text).unwrap_or_default())).collect();
    names::distinct(&mut tables);
    list.into_iter()
        .zip(tables)
        .enumerate()
        .map(|(at, (entry, name))| match entry {
            Tree::Map(theirs) => Tree::Map(import(walk, &format!("{path}/{at}"), theirs, name)),
            other => other,
        })
        .collect()
}

fn import(walk: &Walk<'_>, path: &str, mut theirs: Map, name: String) -> Map {
    let unread = walk.unread(path);
    let partitions = partitions(&theirs);
    let partitions = if unread.iter().any(|key| key == "partitionBy") { Vec::new() } else { partitions };
    let filled = theirs.get("properties").and_then(Tree::as_list).is_some_and(|list| !list.is_empty());
    let columns = if filled { theirs.take_list("properties") } else { None };
    let columns = columns
        .map(|list| column::import_all(walk, &format!("{path}/columns"), list, column::Place::Table, &partitions));
    let rules = if unread.iter().any(|key| key == "quality") { None } else { theirs.take_list("quality") };
    let rules = rules.map(|rules| rule::import_all(walk, &format!("{path}/quality"), rules));

    let context = Context { name, partitions };
    let mut ours = LENS.import(theirs, &context, &unread);
    // Where the document's flags changed since we wrote it, they count.
    if let Some(fields) = ours.get("partitionBy")
        && partitioned(Some(fields)) != context.partitions
    {
        ours.take("partitionBy");
        let plain = context.partitions.iter().map(|column| Tree::text(column.as_str())).collect::<Vec<_>>();
        if !plain.is_empty() {
            ours.put("partitionBy", plain);
        }
    }
    ours.put("columns", columns.unwrap_or_else(unknown_columns));
    ours.put_some("quality", rules);
    ordered(ours, shape::TABLE.keys.iter().map(|key| key.name))
}

/// Writes the schema of a contract.
pub(super) fn export_all(version: Version, list: Vec<Tree>) -> Vec<Tree> {
    list.into_iter()
        .map(|entry| match entry {
            Tree::Map(ours) => Tree::Map(export(version, ours)),
            other => other,
        })
        .collect()
}

fn export(version: Version, mut ours: Map) -> Map {
    let unknown = Tree::List(unknown_columns());
    let columns = ours.take_list("columns").filter(|columns| Tree::List(columns.clone()) != unknown);
    let rules = ours.take_list("quality");
    let partitions = partitioned(ours.get("partitionBy"));
    let name = ours.get("name").and_then(Tree::scalar).unwrap_or_default().to_owned();
    let context = Context { name, partitions };
    let mut theirs = LENS.export(ours, &context);
    let properties = columns.map(|list| column::export_all(version, list, column::Place::Table, &context.partitions));
    theirs.put_some("properties", properties);
    theirs.put_some("quality", rules.map(rule::export_all));
    ordered(theirs, ORDER.iter().copied())
}

/// The columns that a document partitions by, where we could by all of them.
fn partitions(theirs: &Map) -> Vec<String> {
    let mut found: Vec<(i64, String)> = Vec::new();
    for property in theirs.get("properties").and_then(Tree::as_list).unwrap_or_default() {
        if property.get("partitioned").and_then(Tree::as_bool) != Some(true) {
            continue;
        }
        let name = property.get("name").and_then(Tree::as_text).unwrap_or_default().trim();
        let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let our_type = property.as_map().and_then(types::one_line).and_then(|text| DataType::parse(&text).ok());
        let fits = our_type.is_some_and(|t| t.is_scalar() && !matches!(t, DataType::Float | DataType::Double));
        if !is_word || !fits || found.iter().any(|(_, other)| other.eq_ignore_ascii_case(name)) {
            return Vec::new();
        }
        let position = property.get("partitionKeyPosition").and_then(Tree::scalar).and_then(|text| text.parse().ok());
        found.push((position.unwrap_or(i64::MAX), name.to_owned()));
    }
    found.sort_by_key(|(position, _)| *position);
    found.into_iter().map(|(_, name)| name).collect()
}

/// The columns that `partitionBy` names, each once, whatever their transform.
fn partitioned(fields: Option<&Tree>) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for field in fields.and_then(Tree::as_list).unwrap_or_default() {
        let text = field.scalar().unwrap_or_default().trim();
        let inner = text.split_once('(').map_or(text, |(_, rest)| rest.trim_end_matches(')'));
        let column = inner.split(',').map(str::trim).find(|part| part.parse::<u32>().is_err());
        if let Some(column) = column.filter(|column| !columns.iter().any(|other| other == column)) {
            columns.push(column.to_owned());
        }
    }
    columns
}

fn get(theirs: &Map, context: &Context) -> Map {
    let mut ours = Map::new();
    let text = |key: &str| theirs.get(key).filter(|value| value.as_text().is_some());
    if let Some(name) = text("name").and_then(Tree::as_text) {
        let wanted = names::name(name);
        let distinct = names::is_distinct_form(&context.name, &wanted);
        ours.put("name", if distinct { context.name.clone() } else { wanted });
    }
    ours.put_some("type", text("physicalType").filter(|kind| kind.as_text() == Some("table")).cloned());
    ours.put_some("description", text("description").cloned());
    ours.put_some("tags", column::texts(theirs.get("tags")));
    if !context.partitions.is_empty() {
        ours.put("partitionBy", context.partitions.iter().map(|name| Tree::text(name.as_str())).collect::<Vec<_>>());
    }
    let relationships = theirs.get("relationships").filter(|list| list.as_list().is_some());
    ours.put_some("relationships", relationships.cloned());
    ours.put_some("custom", custom::read(theirs));
    ours
}

fn put(ours: &Map, _: &Context) -> Map {
    let mut theirs = Map::new();
    let text = |key: &str| ours.get(key).and_then(Tree::scalar);
    let name = text("name").unwrap_or_default();
    theirs.put_some("name", text("name"));
    theirs.put_some("physicalType", text("type").filter(|kind| *kind == "table"));
    theirs.put_some("description", text("description"));
    theirs.put_some("tags", column::texts(ours.get("tags")));
    theirs.put_some("relationships", references::of_table(ours, name));
    theirs.put_some("customProperties", custom::write(ours));
    theirs
}
