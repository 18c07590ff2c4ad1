//! The Data Contract Specification (datacontract.com) up to 1.2.1, import only: its makers gave it up for ODCS.
//!
//! A document is brought into the form of an ODCS contract, and that becomes a manifest as any other does. What ODCS has
//! no key for goes into `custom` at its node, under its own name: `servers`, `terms`, `lineage`, `config`, ….
//! References to `definitions` are written out.

use super::tree::{Map, Tree};
use crate::yaml::{Document, Kind, Node};

/// How deep definitions may lean on each other.
const DEEPEST: usize = 16;

/// Whether a document says that it is of this specification.
pub fn is_contract(tree: &Tree) -> bool {
    tree.get("dataContractSpecification").is_some()
}

/// Checks what the rest of the reading relies on. Problems are reported.
pub(crate) fn check(document: &mut Document<'_>, root: &Node) -> bool {
    let Kind::Mapping(_) = &root.kind else {
        document.error(
            "wrong-shape",
            root.span,
            "a data contract is an object",
            "start with `dataContractSpecification:`",
        );
        return false;
    };
    for key in ["dataContractSpecification", "id", "info"] {
        require(document, root, "the contract", key);
    }
    if let Some(info) = root.get("info") {
        for key in ["title", "version"] {
            require(document, info, "`info`", key);
        }
    }
    if let Some(models) = root.get("models") {
        each(document, models, "models", &mut |document, path, model| {
            if let Some(fields) = model.get("fields") {
                check_fields(document, fields, &format!("{path}.fields"));
            }
        });
    }
    if let Some(definitions) = root.get("definitions") {
        check_fields(document, definitions, "definitions");
    }
    !document.has_errors()
}

fn require(document: &mut Document<'_>, node: &Node, place: &str, key: &str) {
    if node.get(key).is_none() {
        document.error("missing-key", node.span, format!("{place} has no `{key}`"), format!("add `{key}:`"));
    }
}

fn each(document: &mut Document<'_>, node: &Node, path: &str, check: &mut dyn FnMut(&mut Document<'_>, &str, &Node)) {
    let Kind::Mapping(entries) = &node.kind else {
        let message = format!("`{path}` must be an object, but this is {}", node.describe());
        return document.error("wrong-shape", node.span, message, "write an object of names");
    };
    for (name, value) in entries {
        let path = format!("{path}.{}", name.text().unwrap_or_default());
        match &value.kind {
            Kind::Mapping(_) => check(document, &path, value),
            _ => {
                let message = format!("`{path}` must be an object, but this is {}", value.describe());
                document.error("wrong-shape", value.span, message, "write an object");
            }
        }
    }
}

fn check_fields(document: &mut Document<'_>, node: &Node, path: &str) {
    each(document, node, path, &mut |document, path, field| {
        if let Some(kind) = field.get("type").filter(|kind| kind.text().is_none_or(|text| logical(text).is_none())) {
            let text = kind.text().unwrap_or_default();
            let message = format!("`{path}.type` is `{text}`, which is no type of the specification");
            let help = "such as string, int, long, decimal, double, boolean, date, timestamp, array, map, object";
            document.error("unknown-word", kind.span, message, help);
        }
        if let Some(fields) = field.get("fields") {
            check_fields(document, fields, &format!("{path}.fields"));
        }
    });
}

/// The logical and, where it says more, the physical type.
fn logical(word: &str) -> Option<(&'static str, Option<&'static str>)> {
    Some(match word {
        "string" => ("string", None),
        "text" | "varchar" | "null" => ("string", Some("string")),
        "bytes" => ("string", Some("binary")),
        "number" => ("number", None),
        "decimal" | "numeric" => ("number", Some("decimal")),
        "int" | "integer" => ("integer", Some("int")),
        "long" | "bigint" => ("integer", None),
        "float" => ("number", Some("float")),
        "double" => ("number", None),
        "boolean" => ("boolean", None),
        "timestamp" | "timestamp_tz" => ("timestamp", None),
        "timestamp_ntz" => ("timestamp", Some("timestamp_ntz")),
        "date" => ("date", None),
        "time" => ("time", None),
        "array" => ("array", None),
        "map" => ("map", None),
        "object" | "record" | "struct" | "json" | "variant" => ("object", None),
        _ => return None,
    })
}

/// The contract in the form of ODCS 3.2.
pub(crate) fn to_odcs(tree: &Tree) -> Tree {
    let mut rest = tree.as_map().cloned().unwrap_or_default();
    let definitions = rest.take_map("definitions").unwrap_or_default();
    let mut contract = Map::new();
    contract.put("apiVersion", "v3.2.0");
    contract.put("kind", "DataContract");
    contract.put_some("id", rest.take("id"));
    let mut description = Map::new();
    if let Some(mut info) = rest.take_map("info") {
        contract.put_some("name", info.take_text("title"));
        contract.put_some("version", info.take("version").and_then(|version| version.scalar().map(str::to_owned)));
        contract.put_some("status", info.take_text("status"));
        if let Some(owner) = info.take_text("owner") {
            contract.put("team", Map::from_iter([("name".to_owned(), Tree::Text(owner))]));
        }
        description.put_some("purpose", info.take_text("description"));
        rest.put_filled("info", info);
    }
    if let Some(mut terms) = rest.take_map("terms") {
        description.put_some("usage", terms.take_text("usage"));
        description.put_some("limitations", terms.take_text("limitations"));
        rest.put_filled("terms", terms);
    }
    contract.put_filled("description", description);
    contract.put_some("tags", rest.take_list("tags"));
    let levels = rest.get("servicelevels").map(service_levels).unwrap_or_default();
    contract.put_some("slaProperties", Some(levels).filter(|levels| !levels.is_empty()));
    let models = rest.take_map("models").unwrap_or_default();
    let schema: Vec<Tree> = models.into_iter().map(|(name, model)| table(name, model, &definitions)).collect();
    contract.put("schema", schema);
    rest.take("dataContractSpecification");
    contract.put_some("customProperties", properties(rest));
    Tree::Map(contract)
}

/// What is left of a node, as custom properties.
fn properties(rest: Map) -> Option<Vec<Tree>> {
    let entry = |(name, value): (String, Tree)| {
        Tree::Map(Map::from_iter([("property".to_owned(), Tree::Text(name)), ("value".to_owned(), value)]))
    };
    Some(rest.into_iter().map(entry).collect::<Vec<_>>()).filter(|list| !list.is_empty())
}

fn service_levels(levels: &Tree) -> Vec<Tree> {
    let text = |level: &str, key: &str| levels.get(level).and_then(|level| level.get(key)).and_then(Tree::scalar);
    let mut found = Vec::new();
    let mut add = |property: &str, value: Tree, unit: Option<&str>, element: Option<&str>| {
        let mut level = Map::new();
        level.put("property", property);
        level.put("value", value);
        level.put_some("unit", unit);
        level.put_some("element", element);
        found.push(Tree::Map(level));
    };
    if let Some(number) = text("availability", "percentage").and_then(|share| Tree::number(share.strip_suffix('%')?)) {
        add("availability", number, Some("percent"), None);
    }
    if let Some(threshold) = text("freshness", "threshold") {
        add("freshness", Tree::text(threshold), None, text("freshness", "timestampField"));
    }
    if let Some(period) = text("retention", "period") {
        add("retention", Tree::text(period), None, None);
    }
    found
}

fn table(name: String, model: Tree, definitions: &Map) -> Tree {
    let Tree::Map(mut rest) = model else { return Tree::Null };
    let mut table = Map::new();
    table.put("name", name);
    table.put_some("businessName", rest.take_text("title"));
    table.put_some("physicalType", rest.take_text("type"));
    table.put_some("description", rest.take_text("description"));
    table.put_some("tags", rest.take_list("tags"));
    let keys = rest.take_list("primaryKey").unwrap_or_default();
    let fields = rest.take_map("fields").unwrap_or_default();
    let fields: Vec<Tree> = fields
        .into_iter()
        .map(|(name, field)| {
            let position = keys.iter().position(|key| key.as_text() == Some(name.as_str()));
            let mut property = property(field, definitions, 0);
            if let Some(position) = position {
                property.put("primaryKey", true);
                property.put("primaryKeyPosition", Tree::Number((position + 1).to_string()));
            }
            Tree::Map(named(name, property))
        })
        .collect();
    table.put("properties", fields);
    table.put_some("quality", rest.take_list("quality").map(rules));
    table.put_some("customProperties", properties(rest));
    Tree::Map(table)
}

fn named(name: String, property: Map) -> Map {
    std::iter::once(("name".to_owned(), Tree::Text(name))).chain(property).collect()
}

fn property(field: Tree, definitions: &Map, depth: usize) -> Map {
    let Tree::Map(mut rest) = field else { return Map::new() };
    for _ in 0..DEEPEST {
        let name = rest.get("$ref").and_then(Tree::as_text).and_then(|at| at.strip_prefix("#/definitions/"));
        let Some(definition) = name.and_then(|name| definitions.get(name)).and_then(Tree::as_map).cloned() else {
            break;
        };
        rest.take("$ref");
        // What the field says itself counts.
        rest =
            definition.into_iter().filter(|(key, _)| !matches!(key.as_str(), "domain" | "name")).chain(rest).collect();
    }
    let mut theirs = Map::new();
    let word = rest.take_text("type");
    let (logical, physical) = word.as_deref().and_then(logical).unzip();
    theirs.put_some("businessName", rest.take_text("title"));
    theirs.put_some("description", rest.take_text("description"));
    theirs.put_some("logicalType", logical);
    let is_number = logical == Some("number");
    let precision = if is_number { rest.take("precision") } else { None };
    let scale = if is_number { rest.take("scale") } else { None };
    let digits = |value: Option<Tree>, usual: &str| {
        value.and_then(|value| value.scalar().map(str::to_owned)).unwrap_or(usual.to_owned())
    };
    if physical == Some(Some("decimal")) || precision.is_some() {
        theirs.put("physicalType", format!("decimal({},{})", digits(precision, "38"), digits(scale, "0")));
    } else if let Some(physical) = physical.flatten().filter(|physical| *physical != "string") {
        theirs.put("physicalType", physical);
    }
    for key in ["required", "unique"] {
        theirs.put_some(key, rest.take_if(key, |value| value.as_bool().is_some()));
    }
    let primary = [rest.take("primaryKey"), rest.take("primary")].into_iter().flatten().find_map(|key| key.as_bool());
    theirs.put_some("primaryKey", primary);
    theirs.put_some("classification", rest.take_text("classification"));
    theirs.put_some("tags", rest.take_list("tags"));
    if let Some(values) = rest.take_list("enum").filter(|values| !values.is_empty()) {
        let entry = |value: Tree| Tree::Map(Map::from_iter([("value".to_owned(), value)]));
        theirs.put("enum", values.into_iter().map(entry).collect::<Vec<_>>());
    }
    let mut options = Map::new();
    let known: &[&str] = match logical {
        Some("string") => &["minLength", "maxLength", "pattern", "format"],
        Some("integer" | "number") => &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
        _ => &[],
    };
    for key in known {
        options.put_some(*key, rest.take(key));
    }
    theirs.put_filled("logicalTypeOptions", options);
    let mut examples = rest.take_list("examples").unwrap_or_default();
    examples.extend(rest.take("example"));
    theirs.put_some("examples", Some(examples).filter(|examples| !examples.is_empty()));
    if let Some(to) = rest.take_text("references") {
        theirs.put("relationships", vec![Tree::Map(Map::from_iter([("to".to_owned(), Tree::Text(to))]))]);
    }
    theirs.put_some("quality", rest.take_list("quality").map(rules));
    if depth < crate::yaml::MAX_DEPTH {
        let mut inner = |key: &str| rest.take_map(key).map(|inner| property(Tree::Map(inner), definitions, depth + 1));
        let (items, key, value) = (inner("items"), inner("keys"), inner("values"));
        theirs.put_some("items", items);
        if let (Some(key), Some(value)) = (key, value) {
            theirs.put(
                "map",
                Map::from_iter([("key".to_owned(), Tree::Map(key)), ("value".to_owned(), Tree::Map(value))]),
            );
        }
        if let Some(fields) = rest.take_map("fields") {
            let fields = fields.into_iter();
            let each = |(name, field)| Tree::Map(named(name, property(field, definitions, depth + 1)));
            theirs.put("properties", fields.map(each).collect::<Vec<_>>());
        }
    }
    let pii = rest.take_if("pii", |pii| pii.as_bool().is_some());
    let mut custom = properties(rest).unwrap_or_default();
    if let Some(pii) = pii {
        let own = Map::from_iter([("pii".to_owned(), pii)]);
        custom.push(Tree::Map(Map::from_iter([
            ("property".to_owned(), Tree::text(super::lens::OWN)),
            ("value".to_owned(), Tree::Map(own)),
        ])));
    }
    theirs.put_some("customProperties", Some(custom).filter(|custom| !custom.is_empty()));
    theirs
}

/// Rules are those of ODCS, but for two former words and the SQL's dialect.
fn rules(rules: Vec<Tree>) -> Vec<Tree> {
    rules
        .into_iter()
        .map(|rule| match rule {
            Tree::Map(mut rule) => {
                for (former, word) in [
                    ("mustBeGreaterThanOrEqualTo", "mustBeGreaterOrEqualTo"),
                    ("mustBeLessThanOrEqualTo", "mustBeLessOrEqualTo"),
                ] {
                    if let Some(value) = rule.take(former) {
                        rule.put(word, value);
                    }
                }
                if let Some(dialect) = rule.take("dialect") {
                    let dialect = Map::from_iter([("dialect".to_owned(), dialect)]);
                    rule.put_some("customProperties", properties(dialect));
                }
                Tree::Map(rule)
            }
            other => other,
        })
        .collect()
}
