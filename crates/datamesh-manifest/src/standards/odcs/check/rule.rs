//! Quality rules: what each type of rule must and may say.

use super::shapes::{DEFINITIONS, ID, PROPERTIES, TAGS, V30, key};
use super::{Checker, Key, Rule, Word};
use crate::standards::Tree;
use crate::yaml::{Kind, Node};

static COMMON: &[Key] = &[
    ID,
    DEFINITIONS,
    key("businessImpact", Rule::Text),
    PROPERTIES,
    key("description", Rule::Text),
    key(
        "dimension",
        Rule::Word(&[
            Word("accuracy", V30),
            Word("completeness", V30),
            Word("conformity", V30),
            Word("consistency", V30),
            Word("coverage", V30),
            Word("timeliness", V30),
            Word("uniqueness", V30),
        ]),
    ),
    key("method", Rule::Text),
    key("name", Rule::Text),
    key("schedule", Rule::Text),
    key("scheduler", Rule::Text),
    key("severity", Rule::Text),
    TAGS,
    key("type", Rule::Word(&[Word("text", V30), Word("library", V30), Word("sql", V30), Word("custom", V30)])),
    key("unit", Rule::Text),
];

static METRIC: Rule = Rule::Word(&[
    Word("nullValues", V30),
    Word("missingValues", V30),
    Word("invalidValues", V30),
    Word("duplicateValues", V30),
    Word("rowCount", V30),
]);
static TEXT: Rule = Rule::Text;
static ANY: Rule = Rule::Any;
static NUMBER: Rule = Rule::Number;
static RANGE: Rule = Rule::Own(range);
static OBJECT: Rule = Rule::Own(super::any_object);
static IMPLEMENTATION: Rule = Rule::Own(text_or_object);

/// The operators, with what they compare to.
const OPERATORS: &[(&str, &Rule)] = &[
    ("mustBe", &ANY),
    ("mustNotBe", &ANY),
    ("mustBeGreaterThan", &NUMBER),
    ("mustBeGreaterOrEqualTo", &NUMBER),
    ("mustBeLessThan", &NUMBER),
    ("mustBeLessOrEqualTo", &NUMBER),
    ("mustBeBetween", &RANGE),
    ("mustNotBeBetween", &RANGE),
];

/// Checks one quality rule.
pub(super) fn check(checker: &mut Checker<'_, '_>, node: &Node) {
    let Kind::Mapping(entries) = &node.kind else { return checker.wrong(node, "an object") };
    let old = checker.version.is_3_0();
    let kind = node.get("type").and_then(Node::text);
    let has_metric = node.get("metric").is_some_and(|metric| Tree::from_node(metric).as_text().is_some());
    let library = if old { matches!(kind, None | Some("library")) } else { kind == Some("library") || has_metric };
    let (sql, custom) = (kind == Some("sql"), kind == Some("custom"));
    let operators = if old { library } else { library || sql };

    for (name, value) in entries {
        let text = name.text().unwrap_or_default();
        let rule = match text {
            "metric" if library && !old => Some(&METRIC),
            "rule" if library => Some(&TEXT),
            "arguments" if library && !old => Some(&OBJECT),
            "query" if sql => Some(&TEXT),
            "engine" if custom => Some(&TEXT),
            "implementation" if custom => Some(&IMPLEMENTATION),
            _ if operators => OPERATORS.iter().find(|(operator, _)| *operator == text).map(|(_, rule)| *rule),
            _ => None,
        };
        let common = COMMON.iter().find(|key| key.name == text && key.since <= checker.version).map(|key| &key.rule);
        match common.or(rule) {
            Some(rule) => checker.within(text, |inner| inner.rule(value, rule)),
            None if old && !checker.strict => {}
            None => {
                let what = match kind {
                    Some(kind) => format!("has `{text}`, which a rule of type `{kind}` has not"),
                    None => format!("has `{text}`, which a rule without `metric` or `type` has not"),
                };
                let help =
                    "say what is measured by `metric:`, or the kind of rule by `type:` (library, sql, custom, text)";
                checker.error("unknown-key", name.span, &what, help);
            }
        }
    }
    let mut needed: Vec<&str> = Vec::new();
    if library {
        needed.push(if old { "rule" } else { "metric" });
    }
    if sql {
        needed.push("query");
    }
    if custom {
        needed.extend(["engine", "implementation"]);
    }
    checker.require(node, &needed);
    if operators && !old {
        let given: Vec<_> = OPERATORS.iter().filter(|(operator, _)| node.get(operator).is_some()).collect();
        match given.as_slice() {
            [_] => {}
            [] => {
                let names: Vec<_> = OPERATORS.iter().map(|(operator, _)| *operator).collect();
                let help = format!("add one of: {}", names.join(", "));
                checker.error("missing-key", node.span, "does not say what the number must be", help);
            }
            [first, second, ..] => {
                let what = format!("has both `{}` and `{}`", first.0, second.0);
                checker.error("several-operators", node.span, &what, "keep one, or write a second rule");
            }
        }
    }
}

fn range(checker: &mut Checker<'_, '_>, node: &Node) {
    checker.list(node, &NUMBER);
    match node.items() {
        Some([_, _]) => checker.set(node, 0),
        Some(items) => {
            let what = format!("must have two numbers, but this has {}", items.len());
            checker.error("wrong-shape", node.span, &what, "write such as [0, 10]");
        }
        None => {}
    }
}

fn text_or_object(checker: &mut Checker<'_, '_>, node: &Node) {
    if !matches!(node.kind, Kind::Mapping(_)) {
        checker.rule(node, &TEXT);
    }
}
