//! A data contract of ODCS against a data product.

use datamesh_core::period::Period;
use datamesh_core::scalar;
use semver::Version as SemanticVersion;

use super::{Version, Walk, column, custom, ordered, table};
use crate::shape;
use crate::standards::lens::{Group, Lens, no_merge};
use crate::standards::names;
use crate::standards::tree::{Map, Tree};

/// Stands for what a document does not tell; our reader refuses it as an owner and as a version.
pub(super) const TODO: &str = "TODO";

/// What a contract must know beside itself: the version of the standard it is read or written in.
pub(super) struct Context {
    pub(super) version: Version,
}

static LENS: Lens<Context> = Lens {
    standard: super::STANDARD,
    nested: &["description", "team"],
    groups: &[
        Group { ours: &["name"], theirs: &["name", "dataProduct"] },
        Group { ours: &["version"], theirs: &["version"] },
        Group { ours: &["owner"], theirs: &["team", "team.name"] },
        Group { ours: &["domain"], theirs: &["domain"] },
        Group { ours: &["status"], theirs: &["status"] },
        Group { ours: &["description"], theirs: &["description.purpose"] },
        Group { ours: &["tags"], theirs: &["tags"] },
        Group { ours: &["sla"], theirs: &["slaProperties"] },
        Group { ours: &["contact"], theirs: &["support"] },
        Group { ours: &["price"], theirs: &["price"] },
        Group { ours: &["custom"], theirs: &["customProperties"] },
    ],
    get,
    put,
    merge,
};

static ROLE: Lens<()> = Lens {
    standard: super::STANDARD,
    nested: &[],
    groups: &[
        Group { ours: &["role"], theirs: &["role"] },
        Group { ours: &["approvers"], theirs: &["firstLevelApprovers"] },
        Group { ours: &["custom"], theirs: &["customProperties"] },
    ],
    get: get_role,
    put: put_role,
    merge: no_merge,
};

const ORDER: &[&str] = &[
    "apiVersion",
    "kind",
    "id",
    "name",
    "version",
    "status",
    "domain",
    "dataProduct",
    "tenant",
    "tags",
    "description",
    "servers",
    "schema",
    "slaProperties",
    "roles",
    "team",
    "support",
    "price",
];

/// Reads a contract.
pub(super) fn import(walk: &Walk<'_>, mut theirs: Map) -> Map {
    let unread = walk.unread("");
    let filled = theirs.get("schema").and_then(Tree::as_list).is_some_and(|list| !list.is_empty());
    let tables = if filled { theirs.take_list("schema") } else { None };
    let tables = tables.map(|list| table::import_all(walk, "schema", list));
    let roles = if unread.iter().any(|key| key == "access") { None } else { theirs.take_list("roles") };
    let access = roles.map(|roles| roles.into_iter().map(import_role).collect::<Vec<_>>());

    let mut ours = LENS.import(theirs, &Context { version: walk.version }, &unread);
    ours.put("schema", tables.unwrap_or_else(table::unknown_tables));
    ours.put_some("access", access);
    ordered(ours, shape::DATA_PRODUCT.keys.iter().map(|key| key.name))
}

/// Writes a contract in one version of the standard.
pub(super) fn export(version: Version, mut ours: Map) -> Map {
    let unknown = Tree::List(table::unknown_tables());
    let tables = ours.take_list("schema").filter(|tables| Tree::List(tables.clone()) != unknown);
    let access = ours.take_list("access");
    let mut theirs = LENS.export(ours, &Context { version });
    theirs.put_some("schema", tables.map(|list| table::export_all(version, list)));
    theirs.put_some("roles", access.map(|list| list.into_iter().map(export_role).collect::<Vec<_>>()));
    ordered(theirs, ORDER.iter().copied())
}

fn get(theirs: &Map, _: &Context) -> Map {
    let mut ours = Map::new();
    let text = |key: &str| theirs.get(key).and_then(Tree::as_text);
    let name = text("dataProduct").or(text("name")).or(text("id")).unwrap_or(TODO);
    ours.put("name", names::name(name));
    ours.put("version", version(text("version").unwrap_or_default()));
    ours.put("owner", owner(theirs).unwrap_or(TODO));
    ours.put_some("domain", text("domain").map(names::name));
    ours.put_some("status", text("status").filter(|status| is_status(status)));
    ours.put_some("description", text("description.purpose"));
    ours.put_some("tags", column::texts(theirs.get("tags")));
    let sla = theirs.get("slaProperties").and_then(Tree::as_list).map(read_sla).unwrap_or_default();
    ours.put_filled("sla", sla);
    ours.put_some("contact", theirs.get("support").and_then(read_contact));
    ours.put_some("price", theirs.get("price").and_then(read_price));
    ours.put_some("custom", custom::read(theirs));
    ours
}

fn put(ours: &Map, context: &Context) -> Map {
    let mut theirs = Map::new();
    let text = |key: &str| ours.get(key).and_then(Tree::scalar);
    theirs.put("apiVersion", context.version.api_version());
    theirs.put("kind", "DataContract");
    let name = text("name").unwrap_or_default();
    let owner = text("owner").unwrap_or_default();
    let domain = text("domain").unwrap_or_else(|| owner.strip_suffix("-domain").unwrap_or(owner));
    theirs.put("id", format!("urn:datamesh:{domain}:{name}"));
    theirs.put("name", name);
    theirs.put_some("version", text("version"));
    theirs.put_some("status", text("status").filter(|status| is_status(status)).or_else(|| default_status(ours)));
    theirs.put_some("domain", text("domain"));
    theirs.put_some("tags", column::texts(ours.get("tags")));
    theirs.put_some("description.purpose", text("description"));
    let sla = write_sla(ours.get("sla"));
    theirs.put_some("slaProperties", Some(sla).filter(|list| !list.is_empty()));
    if owner != TODO {
        if context.version.is_3_0() {
            theirs.put("team", vec![member(owner)]);
        } else {
            theirs.put("team.name", owner);
        }
    }
    theirs.put_some("support", ours.get("contact").and_then(write_contact));
    theirs.put_some("price", text("price").and_then(write_price));
    theirs.put_some("customProperties", custom::write(ours));
    theirs
}

/// Levels, and the owner in a list of members, change in place.
fn merge(ours: &Map, kept: &Map, theirs: &mut Map, _: &Context) {
    if let Some(original) = kept.get("slaProperties").and_then(Tree::as_list)
        && let Some(merged) = merge_sla(ours.get("sla"), original)
    {
        match merged.is_empty() && !original.is_empty() {
            true => _ = theirs.take("slaProperties"),
            false => theirs.put("slaProperties", merged),
        }
    }
    // A contract that names its data product apart from itself goes on doing so.
    let name = ours.get("name").and_then(Tree::scalar).unwrap_or_default();
    if kept.contains("dataProduct") && !theirs.contains("dataProduct") {
        theirs.put("dataProduct", name);
        match kept.get("name") {
            Some(own) => theirs.put("name", own.clone()),
            None => _ = theirs.take("name"),
        }
    }
    let now = ours.get("owner").and_then(Tree::scalar).unwrap_or_default();
    if let Some(members) = kept.get("team").and_then(Tree::as_list)
        && now != TODO
        && owner_among(members) != Some(now)
    {
        let mut members = members.to_vec();
        match members.iter_mut().find(|member| is_owner(member)) {
            Some(Tree::Map(member)) => member.put("username", now),
            _ => members.push(member(now)),
        }
        theirs.take("team.name");
        theirs.put("team", members);
    }
}

fn is_status(status: &str) -> bool {
    ["draft", "active", "deprecated", "retired"].contains(&status)
}

fn default_status(ours: &Map) -> Option<&'static str> {
    let version = ours.get("version").and_then(Tree::scalar)?;
    Some(if version.trim().starts_with("0.") || version.trim() == "0" { "draft" } else { "active" })
}

/// A semantic version, where the document's is one after a leading `v`.
fn version(text: &str) -> String {
    let trimmed = text.trim();
    let padded = |text: &str| match text.split('.').count() {
        1 => format!("{text}.0.0"),
        2 => format!("{text}.0"),
        _ => text.to_owned(),
    };
    let is_version = |text: &str| SemanticVersion::parse(&padded(text)).is_ok();
    let bare = trimmed.strip_prefix(['v', 'V']).unwrap_or(trimmed);
    match (is_version(trimmed), is_version(bare)) {
        (true, _) => text.to_owned(),
        (_, true) => bare.to_owned(),
        _ => TODO.to_owned(),
    }
}

fn owner(theirs: &Map) -> Option<&str> {
    let team = theirs.get("team").and_then(Tree::as_list);
    theirs
        .get("team.name")
        .and_then(Tree::as_text)
        .or_else(|| owner_among(team?))
        .filter(|owner| !owner.trim().is_empty())
}

fn is_owner(member: &Tree) -> bool {
    member.get("role").and_then(Tree::as_text).is_some_and(|role| role.eq_ignore_ascii_case("owner"))
}

fn owner_among(members: &[Tree]) -> Option<&str> {
    members.iter().find(|member| is_owner(member))?.get("username")?.as_text()
}

fn member(owner: &str) -> Tree {
    Tree::Map(Map::from_iter([("username".to_owned(), Tree::text(owner)), ("role".to_owned(), Tree::text("Owner"))]))
}

/// The service levels that we have words for.
const LEVELS: &[&str] = &["availability", "freshness", "retention", "endOfSupport"];

fn read_sla(list: &[Tree]) -> Map {
    let mut sla = Map::new();
    for level in LEVELS {
        let entry = list.iter().find(|entry| is_level(entry, level));
        sla.put_some(*level, entry.and_then(|entry| read_level(level, entry)));
    }
    sla
}

fn is_level(entry: &Tree, level: &str) -> bool {
    entry.get("property").and_then(Tree::as_text) == Some(level) && read_level(level, entry).is_some()
}

fn read_level(level: &str, entry: &Tree) -> Option<Tree> {
    let value = entry.get("value")?.scalar()?;
    let unit = entry.get("unit").and_then(Tree::as_text);
    let period = || format!("{value}{}", unit.unwrap_or_default());
    match level {
        "availability" => match unit {
            Some("percent" | "%") => Some(Tree::Text(format!("{value}%"))),
            None => Some(Tree::text(value)),
            _ => None,
        },
        // A day: an instant is kept in the document's own words.
        "endOfSupport" => (unit.is_none() && scalar::date(value).is_some()).then(|| Tree::text(value)),
        _ => {
            let within = period();
            Period::parse(&within).ok()?;
            let column = entry.get("element").and_then(Tree::as_text).filter(|_| level == "freshness");
            Some(match column {
                Some(column) => Map::from_iter([
                    ("within".to_owned(), Tree::Text(within)),
                    ("column".to_owned(), Tree::text(column)),
                ])
                .into(),
                None => Tree::Text(within),
            })
        }
    }
}

fn write_sla(sla: Option<&Tree>) -> Vec<Tree> {
    let level = |level: &&str| write_level(level, sla?.get(level)?);
    LEVELS.iter().filter_map(level).map(Tree::Map).collect()
}

fn write_level(level: &str, value: &Tree) -> Option<Map> {
    let mut entry = Map::new();
    entry.put("property", level);
    let (text, column) = match value {
        Tree::Map(map) => (map.get("within")?.scalar()?, map.get("column")),
        other => (other.scalar()?, None),
    };
    match level {
        "availability" => match text.trim().strip_suffix('%').and_then(Tree::number) {
            Some(number) => {
                entry.put("value", number);
                entry.put("unit", "percent");
            }
            None => entry.put("value", text),
        },
        "endOfSupport" => entry.put("value", text),
        _ => {
            let text = text.trim();
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let unit = text[digits..].trim();
            match Tree::number(&text[..digits]) {
                Some(number) if !unit.is_empty() && unit.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                    entry.put("value", number);
                    entry.put("unit", unit);
                }
                _ => entry.put("value", text),
            }
            if let Some(column) = column {
                entry.put("element", column.scalar()?);
            }
        }
    }
    Some(entry)
}

/// The document's list with each level as the manifest has it now; `None` where nothing differs.
fn merge_sla(sla: Option<&Tree>, original: &[Tree]) -> Option<Vec<Tree>> {
    let mut list = original.to_vec();
    let mut changed = false;
    for level in LEVELS {
        let now = sla.and_then(|sla| sla.get(level));
        let at = list.iter().position(|entry| is_level(entry, level));
        let written = now.and_then(|now| write_level(level, now));
        let said = at.and_then(|at| read_level(level, &list[at]));
        if said.as_ref().and_then(|said| write_level(level, said)) == written {
            continue;
        }
        changed = true;
        match (at, written) {
            (Some(at), None) => _ = list.remove(at),
            (Some(at), Some(written)) => {
                if let Tree::Map(entry) = &mut list[at] {
                    for key in ["unit", "element"].into_iter().filter(|key| !written.contains(key)) {
                        if key == "unit" || *level == "freshness" {
                            entry.take(key);
                        }
                    }
                    for (key, value) in written {
                        entry.put(key, value);
                    }
                }
            }
            (None, Some(written)) => list.push(Tree::Map(written)),
            (None, None) => {}
        }
    }
    changed.then_some(list)
}

/// `tool: channel`, where the channels are no more than that.
fn read_contact(support: &Tree) -> Option<Map> {
    let mut contact = Map::new();
    for entry in support.as_list()?.iter() {
        let entry = entry.as_map()?;
        let (channel, tool) = (entry.get("channel")?.as_text()?, entry.get("tool")?.as_text()?);
        if entry.len() != 2 || contact.contains(tool) {
            return None;
        }
        contact.put(tool, channel);
    }
    Some(contact).filter(|contact| !contact.is_empty())
}

fn write_contact(contact: &Tree) -> Option<Vec<Tree>> {
    let channel = |(tool, channel): (&str, &Tree)| {
        let channel = Tree::text(channel.as_text()?);
        Some(Tree::Map(Map::from_iter([("channel".to_owned(), channel), ("tool".to_owned(), Tree::text(tool))])))
    };
    contact.as_map()?.iter().map(channel).collect::<Option<Vec<_>>>().filter(|list| !list.is_empty())
}

fn read_price(price: &Tree) -> Option<String> {
    let price = price.as_map()?;
    let amount = match price.get("priceAmount")? {
        Tree::Number(amount) => amount,
        _ => return None,
    };
    let text = |key: &str| price.get(key).and_then(Tree::as_text).filter(|text| is_word(text));
    match (text("priceCurrency"), text("priceUnit")) {
        (Some(currency), Some(unit)) => Some(format!("{amount} {currency}/{unit}")),
        (None, None) if price.len() == 1 && amount == "0" => Some("free".to_owned()),
        _ => None,
    }
}

fn write_price(price: &str) -> Option<Map> {
    let mut map = Map::new();
    if price == "free" {
        map.put("priceAmount", Tree::Number("0".to_owned()));
        return Some(map);
    }
    let (amount, rest) = price.split_once(' ')?;
    let (currency, unit) = rest.split_once('/')?;
    map.put("priceAmount", Tree::number(amount)?);
    map.put("priceCurrency", Some(currency).filter(|text| is_word(text))?);
    map.put("priceUnit", Some(unit).filter(|text| is_word(text))?);
    Some(map)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '/')
}

fn import_role(role: Tree) -> Tree {
    match role {
        Tree::Map(theirs) => Tree::Map(ordered(ROLE.import(theirs, &(), &[]), ["role", "approvers"].into_iter())),
        other => other,
    }
}

fn export_role(access: Tree) -> Tree {
    match access {
        Tree::Map(ours) => {
            Tree::Map(ordered(ROLE.export(ours, &()), ["id", "role", "description", "access"].into_iter()))
        }
        other => other,
    }
}

fn get_role(theirs: &Map, (): &()) -> Map {
    let mut ours = Map::new();
    ours.put_some("role", theirs.get("role").cloned());
    let first = theirs.get("firstLevelApprovers").filter(|first| first.as_text().is_some());
    ours.put_some("approvers", first.map(|first| vec![first.clone()]));
    ours.put_some("custom", custom::read(theirs));
    ours
}

fn put_role(ours: &Map, (): &()) -> Map {
    let mut theirs = Map::new();
    theirs.put_some("role", ours.get("role").and_then(Tree::scalar));
    theirs.put("access", "read");
    if let Some([first]) = ours.get("approvers").and_then(Tree::as_list) {
        theirs.put_some("firstLevelApprovers", first.scalar());
    }
    theirs.put_some("customProperties", custom::write(ours));
    theirs
}
