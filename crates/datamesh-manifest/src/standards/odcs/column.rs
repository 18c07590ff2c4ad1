//! A property, nested property or array item of ODCS, against a column, nested column or item of ours.

use datamesh_core::DataType;
use datamesh_core::lineage::ColumnReference;

use super::{Version, custom, ordered, references, rule, types};
use crate::shape;
use crate::standards::lens::{Group, Lens};
use crate::standards::names;
use crate::standards::tree::{Map, Tree};

/// Where a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a table.
    Table,
    /// In a struct.
    Struct,
    /// As an array's item.
    Item,
}

/// What a column must know of its surroundings.
pub(super) struct Context {
    pub(super) version: Version,
    pub(super) place: Place,
    /// Its name, made distinct among its siblings.
    pub(super) name: String,
    /// The type of its items, where it is an array.
    pub(super) item: Option<String>,
    /// Whether it has fields.
    pub(super) fields: bool,
    /// Which part of the primary key it is, from 1.
    pub(super) key_position: Option<usize>,
    /// Which of the table's partition fields it makes, from 1.
    pub(super) partition: Option<usize>,
}

/// What a column has below it that stands apart from its lists of children.
const APART: &str = "itemsApart";
const ITEM_TYPE: &str = "itemType";

static LENS: Lens<Context> = Lens {
    standard: super::STANDARD,
    nested: &["logicalTypeOptions"],
    groups: &[
        Group { ours: &["name"], theirs: &["name"] },
        Group { ours: &["type"], theirs: &["logicalType", "physicalType", "map"] },
        Group { ours: &["description"], theirs: &["description"] },
        Group { ours: &["primaryKey"], theirs: &["primaryKey", "primaryKeyPosition"] },
        Group { ours: &["required"], theirs: &["required"] },
        Group { ours: &["unique"], theirs: &["unique"] },
        Group { ours: &["tags"], theirs: &["tags"] },
        Group { ours: &["classification"], theirs: &["classification"] },
        Group { ours: &["enum"], theirs: &["enum"] },
        Group {
            ours: &["minimum", "exclusiveMinimum"],
            theirs: &["logicalTypeOptions.minimum", "logicalTypeOptions.exclusiveMinimum"],
        },
        Group {
            ours: &["maximum", "exclusiveMaximum"],
            theirs: &["logicalTypeOptions.maximum", "logicalTypeOptions.exclusiveMaximum"],
        },
        Group { ours: &["multipleOf"], theirs: &["logicalTypeOptions.multipleOf"] },
        Group { ours: &["minLength"], theirs: &["logicalTypeOptions.minLength", "logicalTypeOptions.minItems"] },
        Group { ours: &["maxLength"], theirs: &["logicalTypeOptions.maxLength", "logicalTypeOptions.maxItems"] },
        Group { ours: &["pattern"], theirs: &["logicalTypeOptions.pattern"] },
        Group { ours: &["format"], theirs: &["logicalTypeOptions.format"] },
        Group { ours: &["from"], theirs: &["transformSourceObjects"] },
        Group { ours: &["relationships", "references"], theirs: &["relationships"] },
        Group { ours: &["custom"], theirs: &["customProperties"] },
    ],
    get,
    put,
    merge,
};

/// The order in which ODCS documents list a property's keys.
const ORDER: &[&str] = &[
    "id",
    "name",
    "physicalName",
    "businessName",
    "logicalType",
    "physicalType",
    "logicalTypeOptions",
    "description",
    "primaryKey",
    "primaryKeyPosition",
    "required",
    "unique",
    "classification",
    "tags",
    "enum",
];

/// Reads the properties of a table or struct.
pub(super) fn import_all(
    walk: &super::Walk<'_>,
    path: &str,
    list: Vec<Tree>,
    place: Place,
    partitions: &[String],
) -> Vec<Tree> {
    let mut columns: Vec<String> =
        list.iter().map(|entry| names::column(entry.get("name").and_then(Tree::as_text).unwrap_or_default())).collect();
    names::distinct(&mut columns);
    let mut keys = 0;
    list.into_iter()
        .zip(columns)
        .enumerate()
        .map(|(at, (entry, name))| {
            let Tree::Map(theirs) = entry else { return entry };
            let is_key = place == Place::Table && theirs.get("primaryKey").and_then(Tree::as_bool) == Some(true);
            keys += usize::from(is_key);
            let context = Context {
                version: walk.version,
                place,
                item: None,
                fields: false,
                key_position: is_key.then_some(keys),
                partition: partition_position(partitions, &name),
                name,
            };
            Tree::Map(import(walk, &format!("{path}/{at}"), theirs, context))
        })
        .collect()
}

fn import(walk: &super::Walk<'_>, path: &str, mut theirs: Map, mut context: Context) -> Map {
    let logical = theirs.get("logicalType").and_then(Tree::as_text).map(str::to_owned);
    let logical = logical.as_deref();
    let is_array = logical == Some("array") || logical.is_none() && theirs.contains("items");
    let mut item = None;
    if is_array && let Some(items) = theirs.take_map("items") {
        let inner = Context {
            place: Place::Item,
            name: String::new(),
            item: None,
            fields: false,
            key_position: None,
            partition: None,
            version: context.version,
        };
        let mut ours = import(walk, &format!("{path}/items"), items, inner);
        context.item = ours.take("type").and_then(|our_type| our_type.scalar().map(str::to_owned));
        if let Some(own) = ours.take(ITEM_TYPE) {
            ours.put("type", own);
        }
        item = Some(ours);
    }
    let is_struct = matches!(logical, Some("object") | None) && !is_array;
    let filled = theirs.get("properties").and_then(Tree::as_list).is_some_and(|list| !list.is_empty());
    let mut fields = None;
    if is_struct
        && filled
        && let Some(list) = theirs.take_list("properties")
    {
        context.fields = true;
        fields = Some(import_all(walk, &format!("{path}/columns"), list, Place::Struct, &[]));
    }
    let unread = walk.unread(path);
    let rules = match context.place {
        Place::Table if !unread.iter().any(|key| key == "quality") => theirs.take_list("quality"),
        _ => None,
    };
    let rules = rules.map(|rules| rule::import_all(walk, &format!("{path}/quality"), rules));

    let mut ours = LENS.import(theirs, &context, &unread);
    ours.put_some("quality", rules);
    ours.put_some("columns", fields);
    let apart = ours.take(APART).is_some();
    if let Some(mut item) = item {
        let hoisted = item.len() == 1 && !apart;
        match item.take_if("columns", |_| hoisted) {
            Some(columns) => ours.put("columns", columns),
            None if item.is_empty() && !apart => {}
            None => ours.put("items", item),
        }
    }
    let object = if context.place == Place::Item { shape::ITEM.keys } else { shape::COLUMN.keys };
    ordered(ours, object.iter().map(|key| key.name))
}

/// Where a column stands among those that the table is partitioned by, from 1. The spaces around its name are not a part
/// of it for our reader.
fn partition_position(partitions: &[String], name: &str) -> Option<usize> {
    partitions.iter().position(|column| column == name.trim()).map(|at| at + 1)
}

/// Writes the columns of a table or struct.
pub(super) fn export_all(version: Version, list: Vec<Tree>, place: Place, partitions: &[String]) -> Vec<Tree> {
    let mut keys = 0;
    list.into_iter()
        .map(|entry| {
            let Tree::Map(ours) = entry else { return entry };
            let is_key = place == Place::Table && ours.get("primaryKey").and_then(Tree::as_bool) == Some(true);
            keys += usize::from(is_key);
            let name = ours.get("name").and_then(Tree::scalar).unwrap_or_default().to_owned();
            let context = Context {
                version,
                place,
                item: None,
                fields: false,
                key_position: is_key.then_some(keys),
                partition: partition_position(partitions, &name),
                name,
            };
            Tree::Map(export(ours, context))
        })
        .collect()
}

fn export(mut ours: Map, mut context: Context) -> Map {
    let our_type = ours.get("type").and_then(Tree::scalar).unwrap_or_default().to_owned();
    let data_type = DataType::parse(&our_type);
    let is_bare = |data_type: &DataType| matches!(data_type, DataType::Struct(fields) if fields.is_empty());
    let version = context.version;
    let mut fields = None;
    let mut item = None;
    match &data_type {
        Ok(data_type) if is_bare(data_type) => {
            fields = take_filled(&mut ours, "columns");
            context.fields = fields.is_some();
        }
        Ok(DataType::Array(inner)) => {
            let mut below = Map::new();
            let mut item_type = types::item(&our_type).unwrap_or("struct").to_owned();
            match ours.take_map("items") {
                Some(given) => {
                    if given.keys().all(|key| key == "columns") {
                        ours.put(APART, true);
                    }
                    below = given;
                    if let Some(own) = below.take("type") {
                        if is_bare(&inner.data_type)
                            && let Some(own) = own.scalar()
                        {
                            item_type = own.to_owned();
                        }
                        below.put(ITEM_TYPE, own);
                    }
                }
                None if is_bare(&inner.data_type) => {
                    below.put_some("columns", take_filled(&mut ours, "columns"));
                }
                None => {}
            }
            below.put("type", item_type.as_str());
            context.item = Some(item_type);
            item = Some(below);
        }
        _ => {}
    }
    let rules = if context.place == Place::Table { ours.take_list("quality") } else { None };
    drop_stale_partition(&mut ours, &context);

    let mut theirs = LENS.export(ours, &context);
    // What was a vector still is one, and its elements are told by its options.
    let is_vector = theirs.get("logicalType").and_then(Tree::as_text) == Some("vector");
    if let Some(below) = item.filter(|_| !is_vector) {
        let place = Place::Item;
        let inner = Context {
            version,
            place,
            name: String::new(),
            item: None,
            fields: false,
            key_position: None,
            partition: None,
        };
        theirs.put("items", export(below, inner));
    }
    theirs.put_some("properties", fields.map(|fields| export_all(version, fields, Place::Struct, &[])));
    theirs.put_some("quality", rules.map(rule::export_all));
    ordered(theirs, ORDER.iter().copied())
}

/// Takes a list out that has something in it.
fn take_filled(map: &mut Map, key: &str) -> Option<Vec<Tree>> {
    if map.get(key)?.as_list()?.is_empty() { None } else { map.take_list(key) }
}

/// What the document said of its partition does not count once the manifest says otherwise.
fn drop_stale_partition(ours: &mut Map, context: &Context) {
    let Some(Tree::Map(custom)) = ours.get_mut("custom") else { return };
    let Some(Tree::Map(kept)) = custom.get_mut(super::STANDARD) else { return };
    if context.partition.is_some() == kept.contains("partitioned") {
        let is_position = |value: &Tree| value.scalar().is_some_and(|text| !text.starts_with(['-', '0']));
        kept.take("partitioned");
        kept.take_if("partitionKeyPosition", is_position);
    }
}

fn get(theirs: &Map, context: &Context) -> Map {
    let mut ours = Map::new();
    if context.place != Place::Item
        && let Some(name) = theirs.get("name").and_then(Tree::as_text)
    {
        let wanted = names::column(name);
        let distinct = names::is_distinct_form(&context.name, &wanted);
        ours.put("name", if distinct { context.name.clone() } else { wanted });
    }
    let our_type = types::read(theirs, context.item.as_deref(), context.fields);
    let data_type = DataType::parse(&our_type).ok();
    ours.put("type", our_type);
    let mut copy = |key: &str, fits: fn(&Tree) -> bool| {
        if let Some(value) = theirs.get(key).filter(|value| fits(value)) {
            ours.put(key, value.clone());
        }
    };
    let is_text = |value: &Tree| value.as_text().is_some();
    let is_bool = |value: &Tree| value.as_bool().is_some();
    copy("description", is_text);
    if context.place == Place::Table {
        copy("primaryKey", is_bool);
        copy("unique", is_bool);
        copy("relationships", |value| {
            value.as_list().is_some_and(|list| list.iter().all(|entry| entry.as_map().is_some()))
        });
    }
    copy("required", is_bool);
    if context.place != Place::Item {
        copy("tags", |value| value.as_list().is_some_and(|list| list.iter().all(|tag| tag.as_text().is_some())));
        copy("classification", is_text);
        if let Some(from) = theirs.get("transformSourceObjects").and_then(Tree::as_list)
            && !from.is_empty()
            && from.iter().all(|entry| entry.as_text().is_some_and(|text| ColumnReference::parse(text.trim()).is_ok()))
        {
            ours.put("from", from.to_vec());
        }
    }
    if let Some(values) = theirs.get("enum").and_then(Tree::as_list) {
        let values: Option<Vec<Tree>> = values.iter().map(|entry| entry.get("value").cloned()).collect();
        ours.put_some("enum", values);
    }
    if let Some(data_type) = &data_type {
        options(theirs, data_type, &mut ours);
    }
    ours.put_some("custom", custom::read(theirs));
    ours
}

/// The options that constrain a value of this type.
fn options(theirs: &Map, data_type: &DataType, ours: &mut Map) {
    let option = |key: &str| theirs.get(&format!("logicalTypeOptions.{key}"));
    let is_scalar = |value: &&Tree| matches!(value, Tree::Number(_) | Tree::Text(_));
    let is_array = matches!(data_type, DataType::Array(_));
    if data_type.is_ordered() && !data_type.is_text() {
        for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
            match (option(bound).filter(is_scalar), option(exclusive)) {
                // Until 3.0 a flag said whether the bound itself is allowed.
                (Some(value), Some(Tree::Bool(true))) => ours.put(exclusive, value.clone()),
                (value, other) => {
                    ours.put_some(bound, value.cloned());
                    ours.put_some(exclusive, other.filter(is_scalar).cloned());
                }
            }
        }
    }
    if data_type.is_numeric() {
        ours.put_some("multipleOf", option("multipleOf").filter(is_scalar).cloned());
    }
    let (least, most) = if is_array { ("minItems", "maxItems") } else { ("minLength", "maxLength") };
    if is_array || data_type.is_text() || *data_type == DataType::Binary {
        ours.put_some("minLength", option(least).filter(is_scalar).cloned());
        ours.put_some("maxLength", option(most).filter(is_scalar).cloned());
    }
    if data_type.is_text() {
        for key in ["pattern", "format"] {
            ours.put_some(key, option(key).filter(|value| value.as_text().is_some()).cloned());
        }
    }
}

fn put(ours: &Map, context: &Context) -> Map {
    let mut theirs = Map::new();
    let text = |key: &str| ours.get(key).and_then(Tree::scalar);
    if context.place != Place::Item {
        theirs.put_some("name", text("name"));
    }
    let our_type = text("type").unwrap_or_default();
    for (key, value) in types::write(our_type) {
        theirs.put(key, value);
    }
    let data_type = DataType::parse(our_type).ok();
    put_options(ours, data_type.as_ref(), context, &mut theirs);
    theirs.put_some("description", text("description"));
    let flag = |key: &str| ours.get(key).and_then(Tree::as_bool);
    if context.place == Place::Table {
        theirs.put_some("primaryKey", flag("primaryKey"));
        if flag("primaryKey") == Some(true) {
            theirs.put_some("primaryKeyPosition", context.key_position.map(|at| Tree::Number(at.to_string())));
        }
    }
    theirs.put_some("required", flag("required"));
    if context.place == Place::Table {
        theirs.put_some("unique", flag("unique"));
    }
    if context.place != Place::Item {
        theirs.put_some("classification", text("classification"));
        theirs.put_some("tags", texts(ours.get("tags")));
    }
    let distinct = |values: &&[Tree]| {
        let values: Vec<Tree> = values.iter().map(Tree::normalised).collect();
        !values.is_empty() && values.iter().enumerate().all(|(at, value)| !values[..at].contains(value))
    };
    if let Some(values) = ours.get("enum").and_then(Tree::as_list).filter(distinct) {
        theirs.put("enum", values.iter().map(|value| enum_value(value.clone())).collect::<Vec<_>>());
    }
    if let Some(at) = context.partition {
        theirs.put("partitioned", true);
        theirs.put("partitionKeyPosition", Tree::Number(at.to_string()));
    }
    if context.place != Place::Item {
        let from = match ours.get("from") {
            Some(Tree::Text(one)) => Some(vec![Tree::text(one.as_str())]),
            other => texts(other),
        };
        theirs.put_some("transformSourceObjects", from.filter(|from| !from.is_empty()));
    }
    if context.place == Place::Table {
        theirs.put_some("relationships", references::of_column(ours));
    }
    theirs.put_some("customProperties", custom::write(ours));
    theirs
}

fn put_options(ours: &Map, data_type: Option<&DataType>, context: &Context, theirs: &mut Map) {
    let Some(data_type) = data_type else { return };
    let mut put = |key: &str, value: Tree| theirs.put(format!("logicalTypeOptions.{key}"), value);
    let number = |key: &str| {
        let text = ours.get(key).and_then(Tree::scalar)?;
        Tree::number(text)
    };
    let text = |key: &str| ours.get(key).and_then(Tree::scalar).map(Tree::text);
    if data_type.is_ordered() && !data_type.is_text() {
        for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
            let value = |key: &str| if data_type.is_numeric() { number(key) } else { text(key) };
            match (value(bound), value(exclusive)) {
                (None, Some(value)) if context.version.is_3_0() => {
                    put(bound, value);
                    put(exclusive, Tree::Bool(true));
                }
                (value, other) => {
                    if let Some(value) = value {
                        put(bound, value);
                    }
                    if let Some(value) = other {
                        put(exclusive, value);
                    }
                }
            }
        }
    }
    if data_type.is_numeric()
        && let Some(value) = number("multipleOf")
        && value.scalar().and_then(|text| text.parse::<f64>().ok()).is_some_and(|step| step > 0.0)
    {
        put("multipleOf", value);
    }
    let (least, most) = match data_type {
        DataType::Array(_) => ("minItems", "maxItems"),
        DataType::String | DataType::Uuid | DataType::Binary => ("minLength", "maxLength"),
        _ => return,
    };
    for (key, theirs) in [("minLength", least), ("maxLength", most)] {
        if let Some(value) = number(key) {
            put(theirs, value);
        }
    }
    if matches!(data_type, DataType::String | DataType::Uuid) {
        for key in ["pattern", "format"] {
            if let Some(value) = text(key) {
                put(key, value);
            }
        }
    }
}

fn enum_value(value: Tree) -> Tree {
    Tree::Map(Map::from_iter([("value".to_owned(), value)]))
}

/// Values that stay keep their label, id and description.
fn merge(_: &Map, kept: &Map, theirs: &mut Map, _: &Context) {
    let (Some(original), Some(Tree::List(values))) = (kept.get("enum").and_then(Tree::as_list), theirs.get_mut("enum"))
    else {
        return;
    };
    for value in values {
        if let Some(known) = original.iter().find(|known| known.get("value") == value.get("value")) {
            *value = known.clone();
        }
    }
}

/// A list of scalars as a list of texts.
pub(super) fn texts(list: Option<&Tree>) -> Option<Vec<Tree>> {
    list?.as_list()?.iter().map(|entry| entry.scalar().map(Tree::text)).collect()
}
