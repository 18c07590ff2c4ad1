//! Products made of other products: what they read, which version of it, and in which order they are run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::contract::DataProduct;
use crate::ids::{Name, ProductId, ProductKey};

/// What a table's name ends with in a transform's query where only its new rows are meant.
pub const CHANGES_SUFFIX: &str = "$changes";

/// A product that another one reads: `domain/product@range`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductInput {
    /// The product.
    pub product: ProductId,
    /// The versions that will do; any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<VersionReq>,
}

impl ProductInput {
    /// Parses `domain/product` or `domain/product@range`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (product, range) = match text.split_once('@') {
            Some((product, range)) => (product.trim(), Some(range.trim())),
            None => (text.trim(), None),
        };
        let Some((domain, name)) = product.split_once('/') else { return Err(format!("`{product}` names no domain")) };
        let product = ProductId { domain: Name::new(domain)?, product: Name::new(name)? };
        let range = match range {
            None => None,
            Some(range) => {
                let parsed = VersionReq::parse(range);
                Some(parsed.map_err(|error| format!("`{range}` is not a range of versions: {error}"))?)
            }
        };
        Ok(Self { product, range })
    }

    /// Whether a version will do.
    pub fn admits(&self, version: &Version) -> bool {
        self.range.as_ref().is_none_or(|range| range.matches(version))
    }

    /// Whether this is the product that SQL names `domain.product`.
    pub fn is_named(&self, domain: &str, product: &str) -> bool {
        self.product.domain.sql() == domain && self.product.product.sql() == product
    }

    /// Whether a product is the one that is meant, version aside.
    pub fn names(&self, id: &ProductId) -> bool {
        self.is_named(&id.domain.sql(), &id.product.sql())
    }

    /// The best of several versions that are not retired: an active one before a deprecated one before a draft, then the
    /// newest.
    pub fn choose<'c>(&self, contracts: impl Iterator<Item = &'c DataProduct>) -> Option<&'c DataProduct> {
        contracts
            .filter(|contract| self.names(&contract.id) && self.admits(&contract.version))
            .filter(|contract| contract.status.preference().is_some())
            .max_by(|a, b| (a.status.preference(), &a.version).cmp(&(b.status.preference(), &b.version)))
    }
}

impl fmt::Display for ProductInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.range {
            Some(range) => write!(f, "{}@{range}", self.product),
            None => write!(f, "{}", self.product),
        }
    }
}

/// The query that makes a table's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransformSpec {
    /// The query's text, as the manifest or its file has it.
    pub sql: String,
    /// The file it was read from, relative to the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl TransformSpec {
    /// What people know it by: its file's name, or `transform` where it stands in the manifest.
    pub fn origin(&self) -> &str {
        self.file.as_deref().unwrap_or("transform")
    }
}

/// A query with every `{changes(domain.product.table)}` written as a table of its own: the error says what is wrong.
///
/// The table is `domain.product."table$changes"`. Lines stay lines, so that places in errors are those of the text.
pub fn expand_changes(sql: &str) -> Result<String, String> {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find("{changes") {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let usage = "write `{changes(domain.product.table)}`";
        let Some(end) = found.find('}') else { return Err(format!("`{{changes` has no end: {usage}")) };
        let inner = found["{changes".len()..end].trim();
        let name = inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).map(str::trim);
        let parts: Vec<&str> = name.unwrap_or_default().split('.').map(|part| part.trim().trim_matches('"')).collect();
        let [domain, product, table] = parts.as_slice() else {
            return Err(format!("`{}` names no table of an input: {usage}", &found[..=end]));
        };
        for part in [domain, product, table] {
            Name::new(part).map_err(|why| format!("`{}`: {why}", &found[..=end]))?;
        }
        let sql = |text: &str| text.to_ascii_lowercase().replace('-', "_");
        out.push_str(&format!("{}.{}.\"{}{CHANGES_SUFFIX}\"", sql(domain), sql(product), sql(table)));
        rest = &found[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A table of a product that a query names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRead {
    /// The domain's SQL name.
    pub domain: String,
    /// The product's SQL name.
    pub product: String,
    /// The table's SQL name.
    pub table: String,
    /// Whether only the rows are read that were added since the last run.
    pub changes: bool,
}

impl fmt::Display for TableRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.domain, self.product, self.table)
    }
}

/// A table of an input as one run read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputPin {
    /// The product's major version.
    #[serde(flatten)]
    pub product: ProductKey,
    /// The version of its contract.
    pub version: Version,
    /// The table that was read, by its SQL name.
    pub table: String,
    /// The publication that last wrote it.
    pub publication: u64,
    /// The Iceberg snapshot.
    pub snapshot_id: i64,
    /// Whether only the rows were read that were added after `since`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
    /// The snapshot of the run before; absent where there was none, so that all rows are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

impl InputPin {
    /// Whether both read the same rows, were both to read all of them. Maintenance adds snapshots of the same rows, so the
    /// publication tells, not the snapshot.
    pub fn is_same(&self, other: &Self) -> bool {
        self.product == other.product
            && self.table == other.table
            && self.publication == other.publication
            && self.changes == other.changes
    }
}

/// How a publication made one of its tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransformRun {
    /// The table that was made, by its SQL name.
    pub table: String,
    /// Identity of the query's text.
    pub sql_hash: String,
    /// What it read.
    pub inputs: Vec<InputPin>,
}

impl TransformRun {
    /// Whether running again would read the same rows with the same query.
    pub fn is_same(&self, other: &Self) -> bool {
        let covers = |a: &Self, b: &Self| a.inputs.iter().all(|pin| b.inputs.iter().any(|other| pin.is_same(other)));
        self.table == other.table
            && self.sql_hash == other.sql_hash
            && self.inputs.len() == other.inputs.len()
            && covers(self, other)
            && covers(other, self)
    }
}

/// Who reads whom, by major version: for each product the products it reads.
pub type DependencyGraph = BTreeMap<ProductKey, BTreeSet<ProductKey>>;

/// The graph of these contracts. Inputs that no contract satisfies are left out: they cannot be run from here.
pub fn dependencies<'c>(contracts: impl Iterator<Item = &'c DataProduct> + Clone) -> DependencyGraph {
    let edges = |contract: &DataProduct| -> BTreeSet<ProductKey> {
        let inputs = contract.inputs.iter();
        inputs.filter_map(|input| input.choose(contracts.clone()).map(DataProduct::key)).collect()
    };
    contracts.clone().map(|contract| (contract.key(), edges(contract))).collect()
}

/// A cycle of the graph, from a product back to itself, where there is one. Always the same one for the same graph.
pub fn cycle(graph: &DependencyGraph) -> Option<Vec<ProductKey>> {
    let mut done: BTreeSet<&ProductKey> = BTreeSet::new();
    for start in graph.keys() {
        // A path with, for each product on it, the inputs that are still to be followed.
        let mut path: Vec<(&ProductKey, Vec<&ProductKey>)> = vec![(start, inputs_of(graph, start))];
        if done.contains(start) {
            continue;
        }
        while let Some((node, rest)) = path.last_mut() {
            let Some(next) = rest.pop() else {
                done.insert(node);
                path.pop();
                continue;
            };
            if let Some(at) = path.iter().position(|(node, _)| *node == next) {
                let mut found: Vec<ProductKey> = path[at..].iter().map(|(node, _)| (*node).clone()).collect();
                found.push(next.clone());
                return Some(found);
            }
            if !done.contains(next) && graph.contains_key(next) {
                path.push((next, inputs_of(graph, next)));
            }
        }
    }
    None
}

fn inputs_of<'g>(graph: &'g DependencyGraph, node: &ProductKey) -> Vec<&'g ProductKey> {
    graph.get(node).map(|inputs| inputs.iter().rev().collect()).unwrap_or_default()
}

/// Everything that `wanted` reads, directly or by way of others, and `wanted` itself.
pub fn upstream(graph: &DependencyGraph, wanted: &ProductKey) -> BTreeSet<ProductKey> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![wanted];
    while let Some(node) = waiting.pop() {
        if graph.contains_key(node) && found.insert(node.clone()) {
            waiting.extend(inputs_of(graph, node));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ProductKey {
        ProductKey { domain: "d".into(), product: name.into(), major: 1 }
    }

    fn graph(edges: &[(&str, &[&str])]) -> DependencyGraph {
        edges.iter().map(|(node, inputs)| (key(node), inputs.iter().map(|input| key(input)).collect())).collect()
    }

    #[test]
    fn a_pin_is_the_same_for_as_long_as_nothing_is_published() {
        let product = ProductKey { domain: "sales".into(), product: "crm".into(), major: 1 };
        let pin = |publication, snapshot_id| InputPin {
            product: product.clone(),
            version: Version::new(1, 0, 0),
            table: "orders".into(),
            publication,
            snapshot_id,
            changes: false,
            since: None,
        };
        assert!(pin(1, 10).is_same(&pin(1, 11)), "files were merged");
        assert!(!pin(1, 10).is_same(&pin(2, 10)), "a publication may have the same snapshot id only by chance");
    }

    #[test]
    fn inputs_are_parsed() {
        let input = ProductInput::parse("sales/crm@^2").expect("it is one");
        assert_eq!(input.to_string(), "sales/crm@^2");
        assert!(input.admits(&Version::new(2, 3, 0)) && !input.admits(&Version::new(3, 0, 0)));
        assert!(ProductInput::parse("sales/crm").expect("it is one").admits(&Version::new(0, 1, 0)));
        assert!(ProductInput::parse("sales/crm@>=1.2, <3").expect("it is one").admits(&Version::new(2, 0, 0)));
        for bad in ["crm", "sales/crm@", "sales/crm@latest", "sales/1", "/crm", "sales/crm_v2"] {
            assert!(ProductInput::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn changes_become_a_table_of_their_own() {
        let sql = "SELECT *\nFROM {changes(web.Click-Stream.events)} AS e JOIN a.b.c";
        let expected = "SELECT *\nFROM web.click_stream.\"events$changes\" AS e JOIN a.b.c";
        assert_eq!(expand_changes(sql).as_deref(), Ok(expected));
        assert_eq!(expand_changes("SELECT 1").as_deref(), Ok("SELECT 1"));
        for bad in ["{changes(a.b)}", "{changes a.b.c}", "{changes(a.b.c)", "{changes(a.b.c; DROP)}"] {
            assert!(expand_changes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cycles_are_found_and_named() {
        assert_eq!(cycle(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])), None);
        assert_eq!(cycle(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
        let found = cycle(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]));
        assert_eq!(found, Some(vec![key("b"), key("c"), key("b")]));
        assert_eq!(cycle(&graph(&[("a", &["a"])])), Some(vec![key("a"), key("a")]));
    }

    #[test]
    fn upstream_is_everything_a_product_rests_on() {
        let graph = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &[]), ("d", &["a"])]);
        let found: Vec<String> = upstream(&graph, &key("a")).into_iter().map(|key| key.product).collect();
        assert_eq!(found, ["a", "b", "c"]);
    }
}
