//! A quality rule of ODCS against one of ours. Ours have all of the standard's keys under the same names; what the
//! standard cannot say is one of its custom rules, for the engine `datamesh`.

use datamesh_core::quality::metric_word;

use super::ordered;
use crate::shape;
use crate::standards::lens::{Group, Lens, OWN, no_merge};
use crate::standards::tree::{Map, Tree};

/// The keys that every ODCS rule may have.
pub(super) const COMMON: &[&str] = &[
    "id",
    "name",
    "description",
    "dimension",
    "severity",
    "businessImpact",
    "method",
    "schedule",
    "scheduler",
    "tags",
    "authoritativeDefinitions",
    "customProperties",
];

/// The keys that say what is checked, together.
const RULE: &[&str] = &[
    "line",
    "type",
    "metric",
    "rule",
    "sql",
    "query",
    "condition",
    "column",
    "where",
    "groupBy",
    "compareTo",
    "warn",
    "fail",
    "arguments",
    "engine",
    "implementation",
    "unit",
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
];

/// Holds a rule that was one line, inside an ODCS rule.
const LINE: &str = "line";

static LENS: Lens<()> = Lens {
    standard: super::STANDARD,
    nested: &[],
    groups: &[Group { ours: RULE, theirs: RULE }, Group { ours: &["customProperties"], theirs: &["customProperties"] }],
    get,
    put,
    merge: no_merge,
};

/// Reads the rules of a table or column.
pub(super) fn import_all(walk: &super::Walk<'_>, path: &str, rules: Vec<Tree>) -> Vec<Tree> {
    let each = rules.into_iter().enumerate();
    each.map(|(at, rule)| match rule {
        Tree::Map(theirs) if walk.is_opaque(&format!("{path}/{at}")) => Tree::Map(opaque(theirs)),
        Tree::Map(theirs) => import(theirs),
        other => other,
    })
    .collect()
}

/// Writes the rules of a table or column.
pub(super) fn export_all(rules: Vec<Tree>) -> Vec<Tree> {
    rules
        .into_iter()
        .map(|rule| match rule {
            Tree::Map(ours) => Tree::Map(export(ours)),
            Tree::Text(line) => {
                let mut ours = Map::new();
                ours.put(LINE, line);
                Tree::Map(export(ours))
            }
            other => other,
        })
        .collect()
}

fn import(theirs: Map) -> Tree {
    let mut ours = LENS.import(theirs, &(), &[]);
    if ours.len() == 1
        && let Some(line) = ours.take_text(LINE)
    {
        return Tree::Text(line);
    }
    Tree::Map(ordered(ours, shape::QUALITY.keys.iter().map(|key| key.name)))
}

/// A rule that our reader would refuse: what it says to people, and the whole of it as it is.
fn opaque(theirs: Map) -> Map {
    let mut ours = Map::new();
    for key in ["name", "description"] {
        ours.put_some(key, theirs.get(key).filter(|value| value.as_text().is_some()).cloned());
    }
    ours.put("type", "text");
    let kept = Map::from_iter([("rule".to_owned(), Tree::Map(theirs))]);
    ours.put("custom", Map::from_iter([(super::STANDARD.to_owned(), Tree::Map(kept))]));
    ours
}

fn export(ours: Map) -> Map {
    let whole = ours.get("custom").and_then(|custom| custom.get(super::STANDARD)).and_then(|kept| kept.get("rule"));
    if let Some(Tree::Map(whole)) = whole {
        let mut theirs = whole.clone();
        for key in ["name", "description"] {
            match (ours.get(key), whole.get(key)) {
                (Some(value), _) => theirs.put(key, value.clone()),
                (None, Some(Tree::Text(_))) => _ = theirs.take(key),
                _ => {}
            }
        }
        return theirs;
    }
    ordered(LENS.export(ours, &()), COMMON.iter().copied().take(2))
}

fn get(theirs: &Map, (): &()) -> Map {
    let mut ours = theirs.clone();
    let kind = theirs.get("type").and_then(Tree::as_text);
    if kind == Some("custom") && theirs.get("engine").and_then(Tree::as_text) == Some(OWN) {
        match theirs.get("implementation") {
            Some(Tree::Map(inner)) => {
                for key in ["type", "engine", "implementation"] {
                    ours.take(key);
                }
                for (key, value) in inner.iter() {
                    ours.put(key, value.clone());
                }
            }
            Some(Tree::Text(line)) => {
                let line = line.clone();
                for key in ["type", "engine", "implementation"] {
                    ours.take(key);
                }
                ours.put(LINE, line);
            }
            _ => {}
        }
    } else if kind == Some("sql")
        && let Some(query) = ours.take("query")
    {
        ours.take("type");
        ours.put("sql", query);
    }
    ours
}

fn put(ours: &Map, (): &()) -> Map {
    if let Some(Tree::Text(line)) = ours.get(LINE) {
        return match simple(line) {
            Some(theirs) => theirs,
            None => own_rule(Map::new(), Tree::text(line.as_str())),
        };
    }
    let mut theirs = ours.clone();
    theirs.take("custom");
    if !ours.contains("type")
        && !ours.contains("query")
        && let Some(query) = theirs.take("sql")
    {
        theirs.put("type", "sql");
        theirs.put("query", query);
    }
    if super::check::is_rule(&Tree::Map(theirs.clone())) {
        return theirs;
    }
    let mut common = Map::new();
    let mut inner = Map::new();
    for (key, value) in ours.iter().filter(|(key, _)| *key != "custom") {
        let mut alone = Map::from_iter([(key.to_owned(), value.clone())]);
        alone.put("type", "text");
        let fits = COMMON.contains(&key) && super::check::is_rule(&Tree::Map(alone));
        if fits { common.put(key, value.clone()) } else { inner.put(key, value.clone()) }
    }
    own_rule(common, Tree::Map(inner))
}

fn own_rule(mut theirs: Map, implementation: Tree) -> Map {
    theirs.put("type", "custom");
    theirs.put("engine", OWN);
    theirs.put("implementation", implementation);
    theirs
}

/// A line such as `rowCount > 1000` or `nullValues < 5%`, where ODCS has the metric.
fn simple(line: &str) -> Option<Map> {
    let line = line.trim();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric())?;
    let metric =
        metric_word(&line[..end]).filter(|metric| ["rowCount", "nullValues", "duplicateValues"].contains(metric))?;
    let rest = line[end..].trim_start();
    let operator = [
        (">=", "mustBeGreaterOrEqualTo"),
        ("<=", "mustBeLessOrEqualTo"),
        ("!=", "mustNotBe"),
        ("<>", "mustNotBe"),
        ("==", "mustBe"),
        (">", "mustBeGreaterThan"),
        ("<", "mustBeLessThan"),
        ("=", "mustBe"),
    ];
    let (sign, key) = operator.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
    let number = rest[sign.len()..].trim();
    let (number, percent) = match number.strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (number, false),
    };
    let mut theirs = Map::new();
    theirs.put("metric", metric);
    theirs.put(key, Tree::number(number)?);
    if percent {
        theirs.put("unit", "percent");
    }
    Some(theirs)
}
