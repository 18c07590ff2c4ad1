//! What holds for all changes.

use proptest::prelude::*;
use semver::Version;

use super::*;
use crate::quality::{Metric, MetricRule, Severity, Threshold, Unit};

/// Edits of the base that touch different things, so that each is reported the same with or without the others.
fn edits() -> Vec<(&'static str, Value)> {
    vec![
        ("/owner", json!("shop-team")),
        ("/description", json!("All orders")),
        ("/inputs", json!([])),
        ("/declared/tags", json!([])),
        ("/declared/price", json!("1 EUR")),
        ("/declared/status", json!("deprecated")),
        ("/declared/sla/availability", json!("99%")),
        ("/declared/sla/freshness/within", json!("1h")),
        ("/declared/sla/retention", json!("5y")),
        ("/declared/ports/1/type", json!("amqp")),
        ("/declared/access/1", Value::Null),
        ("/declared/access/0/rows", json!("true")),
        ("/declared/custom/costCenter", json!("B")),
        ("/tables/0/columns/0/primaryKey", Value::Null),
        ("/tables/0/columns/1/required", json!(false)),
        ("/tables/0/columns/1/unique", Value::Null),
        ("/tables/0/columns/1/pii", Value::Null),
        ("/tables/0/columns/1/constraints/pattern", json!("x")),
        ("/tables/0/columns/1/constraints/maxLength", json!(10)),
        ("/tables/0/columns/2/constraints/minimum", json!("-5")),
        ("/tables/0/columns/2/constraints/exclusiveMaximum", json!("50")),
        ("/tables/0/columns/3/type", json!({"decimal": [12, 2]})),
        ("/tables/0/columns/4/type", json!("string")),
        ("/tables/0/columns/5/constraints/enum", json!(["gold"])),
        ("/tables/0/columns/5/declared/classification", json!("restricted")),
        ("/tables/0/columns/6/required", json!(true)),
        ("/tables/0/columns/7/constraints/completeIf", Value::Null),
        ("/tables/0/columns/8/type/struct/-", json!({"name": "country", "type": "string"})),
        ("/tables/0/columns/9/type/array/type", json!("long")),
        ("/tables/0/columns/-", json!({"name": "nick", "type": "string"})),
        ("/tables/0/write", json!("replace")),
        ("/tables/0/quarantine/percent", json!(1.0)),
        ("/tables/0/conditions/0/condition", json!("true")),
        ("/tables/0/metrics/0/threshold", json!({"mustBeGreaterThan": 7.0})),
        ("/tables/0/metrics/1/threshold", json!({"mustBeGreaterThan": 7.0})),
        ("/tables/0/metrics/2/metric/query", json!("SELECT 1")),
        ("/tables/0/metrics/3/severity", json!("warning")),
        ("/tables/0/references/0/severity", json!("warning")),
        ("/tables/0/partitionBy", json!([])),
        ("/tables/1/columns/1/description", json!("What people read")),
    ]
}

fn some_edits() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    proptest::sample::subsequence(edits(), 0..=edits().len())
}

fn reversed(direction: Direction) -> Direction {
    match direction {
        Direction::Loosens => Direction::Tightens,
        Direction::Tightens => Direction::Loosens,
        other => other,
    }
}

fn threshold() -> impl Strategy<Value = Threshold> {
    // Halves, so that bounds between whole numbers occur.
    let bound = (-4..12i32).prop_map(|halves| f64::from(halves) / 2.0);
    (0..8u8, bound.clone(), bound).prop_map(|(kind, a, b)| match kind {
        0 => Threshold::MustBe(a),
        1 => Threshold::MustNotBe(a),
        2 => Threshold::MustBeGreaterThan(a),
        3 => Threshold::MustBeGreaterOrEqualTo(a),
        4 => Threshold::MustBeLessThan(a),
        5 => Threshold::MustBeLessOrEqualTo(a),
        6 => Threshold::MustBeBetween(a.min(b), a.max(b)),
        _ => Threshold::MustNotBeBetween(a.min(b), a.max(b)),
    })
}

fn rule(metric: Metric) -> MetricRule {
    MetricRule {
        name: "r".into(),
        metric,
        unit: Unit::Rows,
        threshold: Threshold::MustBe(0.0),
        severity: Severity::Error,
        dimension: None,
        description: None,
        filter: None,
        group_by: Vec::new(),
        warn: None,
        compare_to: None,
    }
}

proptest! {
    #[test]
    fn nothing_changes_between_a_contract_and_itself(edits in some_edits()) {
        let one = product(edited(&edits));
        prop_assert_eq!(compare(&one, &one), vec![]);
    }

    #[test]
    fn a_union_of_edits_has_the_changes_of_each(edits in some_edits()) {
        let together = changes(&edits);
        let mut apart: Vec<ContractChange> = edits.iter().flat_map(|edit| changes(std::slice::from_ref(edit))).collect();
        prop_assert!(edits.iter().all(|edit| !changes(std::slice::from_ref(edit)).is_empty()));
        prop_assert_eq!(needed_bump(&together, false), needed_bump(&apart, false));
        prop_assert_eq!(needed_bump(&together, true), needed_bump(&apart, true));
        let mut together = together;
        let key = |change: &ContractChange| (change.path.clone(), change.rule.id);
        together.sort_by_key(key);
        apart.sort_by_key(key);
        prop_assert_eq!(together, apart);
    }

    #[test]
    fn what_tightens_loosens_when_it_is_taken_back(edits in some_edits()) {
        let (before, after) = (product(base()), product(edited(&edits)));
        let directions = |changes: Vec<ContractChange>, turn: fn(Direction) -> Direction| {
            // What is neutral or undetermined one way may be the other thing back: a wider type holds all, a narrower one not.
            let moved = |direction: &Direction| matches!(direction, Direction::Loosens | Direction::Tightens);
            let mut found: Vec<Direction> = changes.iter().map(ContractChange::direction).filter(moved).map(turn).collect();
            found.sort_unstable();
            found
        };
        let there = directions(compare(&before, &after), |direction| direction);
        let back = directions(compare(&after, &before), reversed);
        prop_assert_eq!(there, back);
    }

    #[test]
    fn changes_survive_being_written(edits in some_edits()) {
        let found = changes(&edits);
        let text = serde_json::to_string(&found).expect("text");
        let read: Vec<ContractChange> = serde_json::from_str(&text).expect("changes");
        prop_assert_eq!(read, found);
    }

    #[test]
    fn paths_survive_being_written(segments in proptest::collection::vec("[a-z.\" ]{0,6}", 1..5)) {
        let path = segments.iter().fold(ContractPath::root(), |path, segment| path.join(segment));
        prop_assert_eq!(ContractPath::try_from(path.to_string()), Ok(path));
    }

    #[test]
    fn reading_a_path_never_panics(text in "\\PC*") {
        let _ = ContractPath::try_from(text);
    }

    #[test]
    fn thresholds_are_compared_as_they_hold(a in threshold(), b in threshold(), whole in any::<bool>()) {
        let metric = if whole { Metric::RowCount } else { Metric::Sql { query: String::new() } };
        let range = thresholds::Range::of(&rule(metric));
        let accepted = |threshold| thresholds::Accepted::of(threshold, range, 1.0);
        // Quarters lie between all bounds, so that they tell all sets apart.
        let points = (-20..=40i32).map(|quarters| f64::from(quarters) / 4.0);
        let mut points = points.filter(|point| !whole || (point.fract() == 0.0 && *point >= 0.0));
        let within = points.all(|point| !a.holds(point) || b.holds(point));
        prop_assert_eq!(accepted(a).is_within(&accepted(b)), within, "{} in {}", a, b);
    }

    #[test]
    fn the_least_version_is_enough_and_none_below_it(
        (major, minor, patch) in (0..3u64, 0..3u64, 0..3u64),
        edits in some_edits(),
    ) {
        let before = Version::new(major, minor, patch);
        let found = changes(&edits);
        if let Some(needed) = needed_bump(&found, false) {
            let least = least_version(&before, needed);
            prop_assert!(least > before);
            prop_assert!(judge(&before, &least, &found, false).is_ok());
            prop_assert!(judge(&before, &Version::new(major + 1, 0, 0), &found, false).is_ok());
            prop_assert!(judge(&before, &before, &found, false).is_err());
            if least.patch == 0 {
                let closer = Version::new(major, minor, patch + 1);
                prop_assert!(judge(&before, &closer, &found, false).is_err());
            }
        }
    }
}
