use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray};
use datamesh_core::quality::Severity;
use datamesh_core::{Column, DataType};
use proptest::prelude::*;

use super::*;

fn table(data_type: &str, metrics: Vec<MetricRule>) -> Table {
    let bare = serde_json::json!({ "name": "t", "columns": [] });
    let columns = vec![Column::anonymous("c", DataType::parse(data_type).expect("a type"))];
    Table { columns, metrics, ..serde_json::from_value(bare).expect("a table") }
}

fn rule(metric: Metric, threshold: Threshold) -> MetricRule {
    MetricRule {
        name: metric.word().to_owned(),
        metric,
        unit: Unit::Rows,
        threshold,
        severity: Severity::Error,
        dimension: None,
        description: None,
        filter: None,
        group_by: Vec::new(),
        warn: None,
        compare_to: None,
    }
}

fn statistic(statistic: Statistic) -> Metric {
    Metric::Statistic { column: "c".into(), statistic }
}

fn plan(data_type: &str, metric: Metric) -> MetricPlan {
    let rule = rule(metric, Threshold::MustBe(0.0));
    MetricPlan::compile(&table(data_type, vec![rule]), |_| Err("no filter".into())).expect("a plan")
}

fn batch(array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([("c", array)]).expect("a batch")
}

fn measure(data_type: &str, metric: Metric, array: ArrayRef) -> Result<f64, String> {
    let plan = plan(data_type, metric);
    let mut states = MetricStates::default();
    plan.update(&mut states, &batch(array), None);
    let result = plan.judge(&states, 0, |_| None).pop().expect("a result");
    result.value.ok_or_else(|| result.error.unwrap_or_default())
}

fn doubles(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

const ALL: [Statistic; 5] =
    [Statistic::Minimum, Statistic::Maximum, Statistic::Mean, Statistic::Sum, Statistic::StandardDeviation];

/// Checks least, greatest, mean, sum and deviation; `None` where there is none.
fn check(data_type: &str, array: ArrayRef, expected: [Option<f64>; 5]) {
    for (kind, expected) in ALL.into_iter().zip(expected) {
        let found = measure(data_type, statistic(kind), array.clone()).ok();
        let same = match (found, expected) {
            (Some(found), Some(expected)) => found == expected || found.is_nan() && expected.is_nan(),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        assert!(same, "{kind:?}: {found:?}, not {expected:?}");
    }
}

#[test]
fn statistics_leave_nulls_out() {
    check(
        "double",
        doubles(&[Some(1.0), None, Some(3.0)]),
        [Some(1.0), Some(3.0), Some(2.0), Some(4.0), Some(2.0_f64.sqrt())],
    );
    check("double", doubles(&[Some(5.0)]), [Some(5.0), Some(5.0), Some(5.0), Some(5.0), None]);
    check("double", doubles(&[None, None]), [None, None, None, Some(0.0), None]);
    check("double", doubles(&[]), [None, None, None, Some(0.0), None]);
}

#[test]
fn a_statistic_over_nan_is_nan_and_infinities_are_kept() {
    let nan = Some(f64::NAN);
    check("double", doubles(&[Some(1.0), nan]), [nan, nan, nan, nan, nan]);
    let infinite = Some(f64::INFINITY);
    check("double", doubles(&[Some(1.0), infinite]), [Some(1.0), infinite, infinite, infinite, nan]);
    check("double", doubles(&[Some(f64::NEG_INFINITY), infinite]), [Some(f64::NEG_INFINITY), infinite, nan, nan, nan]);
}

#[test]
fn huge_numbers_do_not_overflow() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, i64::MAX, i64::MIN]));
    let (max, min) = (i64::MAX as f64, i64::MIN as f64);
    let sum = (2 * i128::from(i64::MAX) + i128::from(i64::MIN)) as f64;
    for (kind, expected) in [(Statistic::Minimum, min), (Statistic::Maximum, max), (Statistic::Sum, sum)] {
        assert_eq!(measure("long", statistic(kind), array.clone()), Ok(expected));
    }
    let array = Decimal128Array::from(vec![10_i128.pow(38) - 1, 10_i128.pow(38) - 1, 10_i128.pow(38) - 1]);
    let array: ArrayRef = Arc::new(array.with_precision_and_scale(38, 2).expect("a decimal"));
    assert_eq!(measure("decimal(38,2)", statistic(Statistic::Sum), array.clone()), Ok(3e36));
    assert_eq!(measure("decimal(38,2)", statistic(Statistic::StandardDeviation), array), Ok(0.0));
    let array = Decimal128Array::from(vec![150, 250]).with_precision_and_scale(10, 2).expect("a decimal");
    assert_eq!(measure("decimal(10,2)", statistic(Statistic::Mean), Arc::new(array)), Ok(2.0));
}

#[test]
fn freshness_is_measured_from_the_clock_that_is_passed_in() {
    let metric = Metric::Freshness { column: "c".into() };
    let mut hours = rule(metric, Threshold::MustBeLessThan(25.0));
    hours.unit = Unit::Hours;
    let plan = MetricPlan::compile(&table("date", vec![hours]), |_| Err("no filter".into())).expect("a plan");
    let mut states = MetricStates::default();
    plan.update(&mut states, &batch(Arc::new(Date32Array::from(vec![Some(10), None, Some(3)]))), None);
    let at = |day: i64, hour: i64| plan.judge(&states, (day * 24 + hour) * 3_600_000_000, |_| None).pop();
    let result = at(11, 0).expect("a result");
    assert_eq!((result.value, result.passed), (Some(24.0), true));
    assert!(!at(11, 1).expect("a result").passed);
    let none = plan.judge(&MetricStates::default(), 0, |_| None).pop().expect("a result");
    assert_eq!((none.passed, none.error.as_deref()), (false, Some(NO_VALUE)));
}

#[test]
fn warnings_have_a_threshold_of_their_own() {
    let mut both = rule(Metric::NullValues { column: "c".into() }, Threshold::MustBeLessOrEqualTo(50.0));
    both.unit = Unit::Percent;
    both.warn = Some(Threshold::MustBeLessOrEqualTo(10.0));
    let plan = MetricPlan::compile(&table("double", vec![both]), |_| Err("no filter".into())).expect("a plan");
    for (nulls, passed, warned) in
        [(0, true, false), (1, true, false), (2, true, true), (5, true, true), (6, false, true)]
    {
        let values: Vec<_> = (0..10).map(|row| (row >= nulls).then_some(1.0)).collect();
        let mut states = MetricStates::default();
        plan.update(&mut states, &batch(doubles(&values)), None);
        let result = plan.judge(&states, 0, |_| None).pop().expect("a result");
        assert_eq!((result.passed, result.warned), (passed, warned), "{nulls}");
        assert_eq!(result.warn.as_deref(), Some("<= 10%"));
    }
}

#[derive(Debug)]
struct Positive(Vec<String>);

impl RowFilter for Positive {
    fn columns(&self) -> &[String] {
        &self.0
    }

    fn select(&self, batch: &RecordBatch) -> Result<BooleanBuffer, String> {
        crate::values::test_doubles(batch.column(0), |value| value > 0.0).ok_or_else(|| "no doubles".into())
    }

    fn fails(&self, batch: &RecordBatch) -> Result<BooleanBuffer, String> {
        let column = batch.column(0).as_primitive_opt::<Float64Type>().ok_or("no doubles")?;
        if column.iter().flatten().any(f64::is_infinite) {
            return Err("too large".into());
        }
        Ok(BooleanBuffer::collect_bool(column.len(), |row| column.is_valid(row) && column.value(row) < 2.0))
    }
}

#[test]
fn rows_that_fail_a_condition_are_counted_among_those_of_the_filter() {
    let values = doubles(&[Some(1.0), Some(-3.0), None, Some(5.0), Some(f64::NEG_INFINITY)]);
    let filter = |_: &str| Ok(Arc::new(Positive(vec!["c".into()])) as Arc<dyn RowFilter>);
    let judged = |where_: Option<&str>, unit: Unit, rows: usize| {
        let mut rule = rule(Metric::FailedRows { condition: "c >= 2".into() }, Threshold::MustBe(0.0));
        (rule.filter, rule.unit) = (where_.map(str::to_owned), unit);
        let plan = MetricPlan::compile(&table("double", vec![rule]), filter).expect("a plan");
        assert_eq!(plan.columns(), ["c"]);
        let mut states = MetricStates::default();
        plan.update(&mut states, &batch(values.slice(0, rows)), None);
        let result = plan.judge(&states, 0, |_| None).pop().expect("a result");
        (result.value, result.passed, result.error)
    };
    assert_eq!(judged(None, Unit::Rows, 4), (Some(2.0), false, None));
    assert_eq!(judged(None, Unit::Percent, 4), (Some(50.0), false, None));
    // The condition is computed for no row that the filter leaves out.
    assert_eq!(judged(Some("c > 0"), Unit::Rows, 5), (Some(1.0), false, None));
    assert_eq!(judged(Some("c > 0"), Unit::Percent, 5), (Some(50.0), false, None));
    assert_eq!(judged(None, Unit::Rows, 5), (None, false, Some("too large".into())));
}

#[test]
fn a_filter_chooses_the_rows_of_any_metric() {
    for (metric, expected) in [
        (Metric::RowCount, 2.0),
        (statistic(Statistic::Sum), 6.0),
        (statistic(Statistic::Minimum), 1.0),
        (Metric::InvalidValues { column: "c".into(), valid: Some(vec!["5".into()]), pattern: None }, 1.0),
    ] {
        let mut rule = rule(metric, Threshold::MustBe(expected));
        rule.filter = Some("c > 0".into());
        let filter = |_: &str| Ok(Arc::new(Positive(vec!["c".into()])) as Arc<dyn RowFilter>);
        let plan = MetricPlan::compile(&table("double", vec![rule]), filter).expect("a plan");
        assert_eq!(plan.columns(), ["c"]);
        let mut states = MetricStates::default();
        plan.update(&mut states, &batch(doubles(&[Some(1.0), Some(-3.0), None, Some(5.0)])), None);
        let result = plan.judge(&states, 0, |_| None).pop().expect("a result");
        assert_eq!((result.value, result.passed), (Some(expected), true), "{}", result.metric);
    }
}

#[test]
fn a_filter_that_fails_fails_its_rule() {
    let mut rule = rule(Metric::RowCount, Threshold::MustBe(1.0));
    rule.filter = Some("c > 0".into());
    let filter = |_: &str| Ok(Arc::new(Positive(vec!["c".into()])) as Arc<dyn RowFilter>);
    let plan = MetricPlan::compile(&table("string", vec![rule]), filter).expect("a plan");
    let mut states = MetricStates::default();
    plan.update(&mut states, &batch(Arc::new(StringArray::from(vec!["x"]))), None);
    let result = plan.judge(&states, 0, |_| None).pop().expect("a result");
    assert_eq!((result.passed, result.error.as_deref()), (false, Some("no doubles")));
}

#[test]
fn an_extreme_that_goes_has_to_be_measured_anew() {
    let plan = plan("double", statistic(Statistic::Minimum));
    let state = |values: &[Option<f64>]| {
        let mut states = MetricStates::default();
        plan.update(&mut states, &batch(doubles(values)), None);
        states
    };
    let whole = state(&[Some(1.0), Some(2.0), Some(3.0)]);
    for (gone, stale) in [(vec![Some(2.0)], false), (vec![Some(1.0)], true), (vec![None], false)] {
        let mut left = whole.clone();
        left.subtract(&state(&gone));
        assert_eq!(plan.deferred(&left).count() == 1, stale, "{gone:?}");
        assert_eq!(plan.needs_candidate(&left, "minimum"), stale, "{gone:?}");
    }
}

#[test]
fn comparisons_judge_the_difference() {
    for (own, other, unit, expected) in [
        (10.0, 10.0, Unit::Rows, 0.0),
        (8.0, 10.0, Unit::Rows, 2.0),
        (8.0, 10.0, Unit::Percent, 20.0),
        (0.0, 0.0, Unit::Percent, 0.0),
        (1.0, 0.0, Unit::Percent, f64::INFINITY),
    ] {
        assert_eq!(difference(own, other, unit), expected);
    }
}

#[test]
fn the_worst_groups_are_kept_in_order() {
    let mut limits = rule(Metric::RowCount, Threshold::MustBeLessThan(10.0));
    limits.warn = Some(Threshold::MustBeLessThan(5.0));
    for order in [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]] {
        let mut judge = GroupJudge::new(&limits, false);
        for group in order {
            judge.add(Some(vec![Some(group.to_string())]), Some(f64::from(group / 2 * 5)));
        }
        let results = judge.finish();
        assert_eq!((results.count, results.failed, results.warned), (7, 3, 5));
        let names: Vec<_> = results.worst.iter().map(GroupResult::name).collect();
        assert_eq!(names, ["6", "4", "5", "2", "3"], "{order:?}");
    }
    let mut judge = GroupJudge::new(&limits, true);
    judge.add(None, Some(12.0));
    let results = judge.finish();
    assert_eq!(results.worst, [GroupResult::default()]);
}

#[test]
fn a_group_without_a_value_fails_and_is_the_worst() {
    let mut late = rule(Metric::Freshness { column: "c".into() }, Threshold::MustBeLessOrEqualTo(1.0));
    late.warn = Some(Threshold::MustBeLessOrEqualTo(0.5));
    let mut judge = GroupJudge::new(&late, false);
    for (group, value) in [("late", Some(9.0)), ("none", None), ("good", Some(0.0))] {
        judge.add(Some(vec![Some(group.to_owned())]), value);
    }
    let results = judge.finish();
    assert_eq!((results.count, results.failed, results.warned), (3, 2, 1));
    let found: Vec<_> = results.worst.iter().map(|group| (group.name(), group.value, group.passed)).collect();
    let expected = [("none", None, false), ("late", Some(9.0), false), ("good", Some(0.0), true)];
    assert_eq!(found, expected.map(|(name, value, passed)| (name.to_owned(), value, passed)));
}

#[test]
fn groups_of_two_tables_are_judged_by_their_difference() {
    let mut share = rule(statistic(Statistic::Mean), Threshold::MustBeLessThan(50.0));
    share.unit = Unit::Percent;
    for (masked, shown) in [(false, Some((50.0, 10.0))), (true, None)] {
        let mut judge = GroupJudge::new(&share, masked);
        judge.add_compared(None, Some(15.0), Some(10.0));
        let found = judge.finish();
        assert_eq!((found.count, found.failed), (1, 1));
        assert_eq!(found.worst.first().and_then(|group| group.value.zip(group.compared_to)), shown);
    }
    for (own, other) in [(None, Some(1.0)), (Some(1.0), None), (None, None)] {
        let mut judge = GroupJudge::new(&share, false);
        judge.add_compared(None, own, other);
        assert_eq!(judge.finish().worst, [GroupResult::default()], "{own:?} {other:?}");
    }
}

#[test]
fn packed_statistics_measure_what_the_states_do() {
    let decimals = Decimal128Array::from(vec![10, 20, 30]).with_precision_and_scale(10, 2).expect("a decimal");
    let cases: [(&str, ArrayRef); 6] = [
        ("decimal(10,2)", Arc::new(decimals)),
        ("long", Arc::new(Int64Array::from(vec![i64::MAX, 3, i64::MIN, -7]))),
        ("double", doubles(&[Some(0.1), None, Some(0.2), Some(0.3), Some(1e300), Some(-1e300), Some(-0.4)])),
        ("double", doubles(&[Some(f64::INFINITY), Some(1.0)])),
        ("double", doubles(&[None])),
        ("double", doubles(&[])),
    ];
    for (data_type, array) in cases {
        for kind in [Statistic::Mean, Statistic::Sum, Statistic::StandardDeviation] {
            let empty = PackedStatistic::new(kind, array.data_type()).expect("a column of numbers");
            // The last row comes first, each in a part of its own.
            let mut whole = empty.clone();
            for row in (0..array.len()).rev() {
                let mut part = empty.clone();
                part.update(&array.slice(row, 1)).expect("its type");
                whole.merge(empty.packed()).expect("no values");
                whole.merge(part.packed()).expect("its own bytes");
            }
            let found = whole.value().expect("its own bytes");
            let expected = measure(data_type, statistic(kind), array.clone()).ok();
            assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits), "{kind:?} of {array:?}");
        }
    }
    let mut sum = PackedStatistic::new(Statistic::Sum, &Arrow::Int64).expect("a column of numbers");
    assert!(sum.merge(&[1, 2, 3]).is_err());
    assert!(sum.update(&StringArray::from(vec!["1"])).is_err());
    assert!(PackedStatistic::new(Statistic::Sum, &Arrow::Utf8).is_none());
    assert!(PackedStatistic::new(Statistic::Minimum, &Arrow::Int64).is_none());
}

proptest! {
    #[test]
    fn merge_is_associative_commutative_and_one_pass(
        values in prop::collection::vec(prop::option::of(-1e9..1e9_f64), 0..60),
        first in 0..60_usize,
        second in 0..60_usize,
    ) {
        let (low, high) = (first.min(second).min(values.len()), first.max(second).min(values.len()));
        for metric in ALL.into_iter().map(statistic).chain([Metric::NullValues { column: "c".into() }, Metric::RowCount]) {
            let plan = plan("double", metric);
            let state = |values: &[Option<f64>]| {
                let mut states = MetricStates::default();
                plan.update(&mut states, &batch(doubles(values)), None);
                states
            };
            let merged = |parts: &[&MetricStates]| {
                parts.iter().fold(MetricStates::default(), |mut sum, part| { sum.merge(part); sum })
            };
            let whole = state(&values);
            let (a, b, c) = (state(&values[..low]), state(&values[low..high]), state(&values[high..]));
            prop_assert_eq!(&merged(&[&merged(&[&a, &b]), &c]), &whole);
            prop_assert_eq!(&merged(&[&c, &merged(&[&b, &a])]), &whole);
            let mut back = whole.clone();
            back.subtract(&c);
            if !plan.needs_candidate(&back, "minimum") && !plan.needs_candidate(&back, "maximum") {
                let value = |states: &MetricStates| plan.judge(states, 0, |_| None).pop().map(|result| (result.value, result.error));
                prop_assert_eq!(value(&back), value(&merged(&[&a, &b])));
            }
        }
    }
}
