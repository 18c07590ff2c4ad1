//! The Open Data Contract Standard (ODCS) 3.0, 3.1 and 3.2, both ways.
//!
//! Where a contract's keys go:
//!
//! | ODCS | manifest |
//! | --- | --- |
//! | `dataProduct`, else `name`, else `id` | `name`, with what our names cannot have replaced by `_` |
//! | `version`, `domain`, `status`, `tags` | the same; a version that is no semantic version is a `TODO` |
//! | `description.purpose` | `description` |
//! | `team.name`, or the member of role owner | `owner`; without one a `TODO` |
//! | `slaProperties`: availability, freshness, retention, endOfSupport | `sla` |
//! | `roles` | `access`; `firstLevelApprovers` is `approvers` |
//! | `support`, where it says no more than tool and channel | `contact` |
//! | `price`, of amount, currency and unit | `price` |
//! | `schema`, `schema[].properties` | `schema`, `columns`; without any a `TODO` |
//! | `logicalType`, `physicalType` | `type`, and `columns`, `items` |
//! | `logicalTypeOptions` | `minimum`, `maxLength`, `pattern`, `format`, … |
//! | `primaryKey`, `required`, `unique`, `classification`, `enum`, `relationships` | the same |
//! | `partitioned`, `partitionKeyPosition` | `partitionBy` of the table |
//! | `transformSourceObjects`, where they are columns of products | `from` |
//! | `quality` | `quality`, under the same keys; a rule of type sql is `sql:` |
//! | `customProperties`, where they are names with values | `custom` |
//!
//! All else is kept below `custom: {odcs: …}` at its node, under its own name, and so is what our reader would refuse
//! (a relationship to a table that is not there, a pattern with look-around). How the two sides keep each other's
//! remainders is told in [`super::lens`].

mod check;
mod column;
mod custom;
mod product;
mod references;
mod rule;
mod table;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::tree::{Map, Tree};
use crate::yaml::{Document, Node};

/// The key below `custom`.
pub(crate) const STANDARD: &str = "odcs";

/// A version of the standard that we write. Those of 3.0 differ in no more than their schemas' mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 3.0.2, and 3.0.0 and 3.0.1 where they are read.
    V3_0_2,
    /// 3.1.0.
    V3_1_0,
    /// 3.2.0.
    V3_2_0,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_0_2, Self::V3_1_0, Self::V3_2_0];

    /// Reads `3.1.0`, with or without a `v` before it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('v').unwrap_or(text) {
            "3.0.0" | "3.0.1" | "3.0.2" | "3.0" => Some(Self::V3_0_2),
            "3.1.0" | "3.1" => Some(Self::V3_1_0),
            "3.2.0" | "3.2" => Some(Self::V3_2_0),
            _ => None,
        }
    }

    fn api_version(self) -> String {
        format!("v{self}")
    }

    fn is_3_0(self) -> bool {
        self == Self::V3_0_2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_0_2 => "3.0.2",
            Self::V3_1_0 => "3.1.0",
            Self::V3_2_0 => "3.2.0",
        })
    }
}

/// What of a document is left unread because our reader would refuse it, by place in the manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    /// Keys, by the path of their node.
    pub(crate) keys: BTreeMap<String, BTreeSet<String>>,
    /// The paths of rules.
    pub(crate) rules: BTreeSet<String>,
}

/// What reading a document's nodes needs.
struct Walk<'a> {
    version: Version,
    unread: &'a Unread,
}

impl Walk<'_> {
    fn unread(&self, path: &str) -> Vec<String> {
        self.unread.keys.get(path).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    fn is_opaque(&self, path: &str) -> bool {
        self.unread.rules.contains(path)
    }
}

/// Whether a document says that it is a contract of this standard.
pub fn is_contract(tree: &Tree) -> bool {
    tree.get("apiVersion").is_some() || tree.get("kind").and_then(Tree::as_text) == Some("DataContract")
}

/// Checks a document by the rules of the version that it names, else by those of a later one, and gives the version
/// whose rules it follows. Problems are reported.
pub fn check_document(document: &mut Document<'_>, root: &Node) -> Option<Version> {
    let api = root.get("apiVersion");
    let version = match api.map(|api| api.text().and_then(Version::parse)) {
        Some(None) => {
            let (span, text) = api.map_or((root.span, ""), |api| (api.span, api.text().unwrap_or_default()));
            let message = format!("`apiVersion` is `{text}`, which is no version of ODCS that is read here");
            document.error(
                "unknown-standard-version",
                span,
                message,
                "v3.0.0 to v3.2.0 are read; bring an older contract to v3 first",
            );
            return None;
        }
        Some(Some(version)) => version,
        None => Version::V3_2_0,
    };
    // Many documents name an older version than the one they are written in; the official examples do.
    let later = || Version::ALL.into_iter().filter(|later| *later >= version);
    if let Some(version) = later().find(|version| check::is_valid(root, *version)) {
        return Some(version);
    }
    check::check(document, root, version, false);
    None
}

/// Reads a contract that was checked into the tree of a manifest.
pub(crate) fn import(tree: &Tree, version: Version, unread: &Unread) -> Tree {
    let theirs = tree.as_map().cloned().unwrap_or_default();
    let mut ours = product::import(&Walk { version, unread }, theirs);
    // The version is remembered where it is not the one that would be written.
    let said = tree.get("apiVersion").and_then(Tree::as_text).map(str::to_owned);
    let fits = |version: &Version| check::first_problem(&with_version(tree, *version), *version).is_none();
    let usual = Version::ALL.into_iter().find(fits).unwrap_or(version).api_version();
    let bare = ours.get("custom").is_some_and(|custom| custom.as_map().is_some_and(Map::is_empty));
    let mut custom = ours.take_map("custom").unwrap_or_default();
    let mut kept = custom.take_map(STANDARD).unwrap_or_default();
    kept.take("apiVersion");
    let said = said.filter(|said| *said != usual).map(|said| ("apiVersion".to_owned(), Tree::Text(said)));
    custom.put_filled(STANDARD, said.into_iter().chain(kept).collect());
    if bare || !custom.is_empty() {
        ours.put("custom", custom);
    }
    let mut root = Map::new();
    root.put("dataProduct", ours);
    Tree::Map(root)
}

/// A manifest that was not read from a document of this standard has no version of it to remember.
pub(crate) fn forget_version(mut manifest: Tree) -> Tree {
    if let Tree::Map(root) = &mut manifest
        && let Some(Tree::Map(product)) = root.get_mut("dataProduct")
        && let Some(Tree::Map(custom)) = product.get_mut("custom")
        && let Some(Tree::Map(kept)) = custom.get_mut(STANDARD)
    {
        kept.take("apiVersion");
    }
    manifest
}

fn with_version(tree: &Tree, version: Version) -> Tree {
    let mut map = tree.as_map().cloned().unwrap_or_default();
    map.put("apiVersion", version.api_version());
    Tree::Map(map)
}

/// Writes a manifest as a contract: in the version that is asked for, else in the one it was read from, else in the
/// oldest that loses nothing.
///
/// # Errors
/// What the wanted version cannot say, in words; or why no version can.
pub fn export(manifest: &Tree, wanted: Option<Version>) -> Result<Tree, String> {
    let ours = manifest.get("dataProduct").and_then(Tree::as_map).cloned().unwrap_or_default();
    let kept = ours.get("custom").and_then(|custom| custom.get(STANDARD));
    let said = kept.and_then(|kept| kept.get("apiVersion")).and_then(Tree::as_text).map(str::to_owned);
    let write = |version: Version, api_version: &str| {
        let mut theirs = product::export(version, ours.clone());
        theirs.put("apiVersion", api_version);
        Tree::Map(theirs)
    };
    if let Some(version) = wanted {
        let theirs = write(version, &version.api_version());
        return match check::first_problem(&theirs, version) {
            None => Ok(theirs),
            Some(problem) => Err(format!("ODCS {version} cannot say all of this: {problem}")),
        };
    }
    if let Some(said) = said
        && let Some(version) = Version::parse(&said)
    {
        for version in Version::ALL.into_iter().filter(|later| *later >= version) {
            let theirs = write(version, &said);
            if check::is_valid(&theirs.to_node(), version) {
                return Ok(theirs);
            }
        }
    }
    let mut last = String::new();
    for version in Version::ALL {
        let theirs = write(version, &version.api_version());
        match check::first_problem(&theirs, version) {
            None => return Ok(theirs),
            Some(problem) => last = problem,
        }
    }
    Err(format!("no version of ODCS can say this: {last}"))
}

/// The map with these keys first, `custom` and `customProperties` last.
fn ordered<'a>(mut map: Map, first: impl Iterator<Item = &'a str>) -> Map {
    let mut out = Map::new();
    for key in first.filter(|key| *key != "custom") {
        out.put_some(key, map.take(key));
    }
    let last: Vec<_> = ["customProperties", "custom"].into_iter().map(|key| (key, map.take(key))).collect();
    for (key, value) in map {
        out.put(key, value);
    }
    for (key, value) in last {
        out.put_some(key, value);
    }
    out
}
