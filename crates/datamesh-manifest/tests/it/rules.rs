//! Quality rules and references: what is read, and what is told of mistakes.

use datamesh_core::contract::{Table, TextFormat};
use datamesh_core::quality::{METRIC_WORDS, Metric, Severity, Statistic, Threshold, Unit};

use crate::read_manifest;

/// A manifest with one table that has a column of many types.
fn manifest(lines: &str) -> String {
    let columns = "columns: [{name: id, type: long}, {name: price, type: double}, {name: segment, type: string}, {name: at, type: timestamp}]";
    let indented: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: orders\n      {columns}\n{indented}"
    )
}

fn table(lines: &str) -> Table {
    let (product, diagnostics) = read_manifest(manifest(lines).as_bytes());
    product.unwrap_or_else(|| panic!("{lines}: {diagnostics:?}")).tables.remove(0)
}

/// Checks that the one problem of a manifest has this message and help.
fn refused(lines: &str, message: &str, help: &str) {
    let (product, diagnostics) = read_manifest(manifest(lines).as_bytes());
    assert!(product.is_none(), "{lines}");
    let [problem] = diagnostics.as_slice() else { panic!("{lines}: {diagnostics:?}") };
    assert!(problem.message.contains(message), "{lines}: {problem}");
    assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{lines}: {problem}");
    assert!(problem.location.line > 6, "{problem}");
}

#[test]
fn short_rules() {
    let of = |rule: &str| {
        let rule = table(&format!("quality: [\"{rule}\"]")).metrics.remove(0);
        (rule.metric.word(), rule.threshold, rule.unit)
    };
    let cases = [
        ("rowCount > 1000", ("rowCount", Threshold::MustBeGreaterThan(1000.0), Unit::Rows)),
        ("nullValues(segment) < 5%", ("nullValues", Threshold::MustBeLessThan(5.0), Unit::Percent)),
        ("mean(price) between 1 and 5", ("mean", Threshold::MustBeBetween(1.0, 5.0), Unit::Rows)),
        ("avg( price ) NOT BETWEEN -1.5 AND 5", ("mean", Threshold::MustNotBeBetween(-1.5, 5.0), Unit::Rows)),
        ("quantile(price, 0.95) < 100", ("quantile", Threshold::MustBeLessThan(100.0), Unit::Rows)),
        ("distinctCount(segment) <= 5", ("countDistinct", Threshold::MustBeLessOrEqualTo(5.0), Unit::Rows)),
        ("countDistinct(segment) <= 5", ("countDistinct", Threshold::MustBeLessOrEqualTo(5.0), Unit::Rows)),
        ("freshness(at) < 1h", ("freshness", Threshold::MustBeLessThan(1.0), Unit::Hours)),
        ("freshness(at) < 90", ("freshness", Threshold::MustBeLessThan(90.0), Unit::Seconds)),
        ("freshness(at) <= 2 days", ("freshness", Threshold::MustBeLessOrEqualTo(2.0), Unit::Days)),
        ("sequenceGaps(id)", ("sequenceGaps", Threshold::MustBe(0.0), Unit::Rows)),
        ("nullValues(segment) between 1% and 5%", ("nullValues", Threshold::MustBeBetween(1.0, 5.0), Unit::Percent)),
    ];
    for (rule, expected) in cases {
        assert_eq!(of(rule), expected, "{rule}");
    }
}

#[test]
fn objects_with_all_their_parts() {
    let table = table(
        "quality:\n- {metric: quantile, column: price, arguments: {quantile: 0.5}, where: id > 5, groupBy: segment, warn: '> 1', fail: '> 5'}\n- {metric: nullValues, column: segment, warn: '> 1%', fail: '>= 5 %'}\n- {metric: sum, column: price, compareTo: {table: a/b.c, column: total, where: x > 1}}\n- {metric: rowCount, compareTo: a/b.c, unit: percent, mustBeLessThan: 1}\n- {metric: sum, column: id, compareTo: a/b.c.total}\n- {metric: outOfOrderValues, column: id, arguments: {orderBy: at, strictly: true}, groupBy: [segment]}\n- {metric: rowCount, warn: '< 10'}",
    );
    let [quantile, nulls, sums, rows, short, order, warned] = table.metrics.as_slice() else {
        panic!("{:?}", table.metrics)
    };
    assert_eq!(quantile.metric, Metric::Statistic { column: "price".into(), statistic: Statistic::Quantile(0.5) });
    assert_eq!(
        (quantile.filter.as_deref(), quantile.group_by.as_slice()),
        (Some("id > 5"), &["segment".to_owned()][..])
    );
    assert_eq!(quantile.threshold, Threshold::MustBeLessOrEqualTo(5.0));
    assert_eq!(quantile.warn, Some(Threshold::MustBeLessOrEqualTo(1.0)));
    assert_eq!((nulls.unit, nulls.threshold), (Unit::Percent, Threshold::MustBeLessThan(5.0)));
    let other = sums.compare_to.as_ref().expect("a comparison");
    assert_eq!((other.table.to_string().as_str(), other.column.as_deref()), ("a/b.c", Some("total")));
    assert_eq!((other.filter.as_deref(), sums.threshold), (Some("x > 1"), Threshold::MustBe(0.0)));
    assert_eq!((rows.unit, rows.compare_to.as_ref().and_then(|other| other.column.clone())), (Unit::Percent, None));
    assert_eq!(short.compare_to.as_ref().and_then(|other| other.column.as_deref()), Some("total"));
    assert_eq!(
        order.metric,
        Metric::OutOfOrderValues {
            column: "id".into(),
            order_by: vec!["at".into()],
            decreasing: false,
            strictly: true
        }
    );
    assert_eq!((warned.severity, warned.threshold), (Severity::Warning, Threshold::MustBeGreaterOrEqualTo(10.0)));
    let text = serde_json::to_string(&table).expect("text");
    assert_eq!(serde_json::from_str::<Table>(&text).expect("a table"), table);
}

#[test]
fn a_comparison_can_be_made_by_groups() {
    let table = table("quality: [{metric: sum, column: price, groupBy: segment, compareTo: a/b.c.total}]");
    let [rule] = table.metrics.as_slice() else { panic!("{:?}", table.metrics) };
    assert_eq!(rule.name, "sum(price) compared to a/b.c by segment = 0");
    assert_eq!(rule.group_by, ["segment"]);
    assert_eq!(rule.compare_to.as_ref().and_then(|other| other.column.as_deref()), Some("total"));
}

#[test]
fn a_reference_can_judge_some_rows_only() {
    let table = table("references: [{columns: [id], to: a/b.c, where: ' price > 5 '}]");
    assert_eq!(table.references.first().and_then(|reference| reference.filter.as_deref()), Some("price > 5"));
    let text = serde_json::to_string(&table).expect("text");
    assert_eq!(serde_json::from_str::<Table>(&text).expect("a table"), table);
}

#[test]
fn a_condition_and_a_reference_with_a_threshold_are_counted() {
    let table = table(
        "quality:\n- {condition: id >  1, where: price > 5, groupBy: segment, warn: '> 1%', fail: '> 5%'}\n- {name: small, condition: id > 1, mustBeLessThan: 3, severity: info}\n- {condition: id > 2, severity: warning}\n- {condition: id > 3, severity: error}\nreferences:\n- {columns: [id, segment], to: a/b.c, at: [x, y], where: price > 5, groupBy: segment, fail: '> 5%'}\n- {columns: [id], to: a/b.c, at: [x], warn: '> 0', name: known}",
    );
    let [orphans, known, groups, small, warned] = table.metrics.as_slice() else { panic!("{:?}", table.metrics) };
    let failed = |condition: &str| Metric::FailedRows { condition: condition.to_owned() };
    assert_eq!((&groups.metric, groups.unit), (&failed("id >  1"), Unit::Percent));
    assert_eq!(groups.name, "failedRows(id > 1) where price > 5 by segment <= 5%");
    assert_eq!(
        (groups.filter.as_deref(), groups.group_by.as_slice()),
        (Some("price > 5"), &["segment".to_owned()][..])
    );
    assert_eq!(
        (groups.threshold, groups.warn),
        (Threshold::MustBeLessOrEqualTo(5.0), Some(Threshold::MustBeLessOrEqualTo(1.0)))
    );
    assert_eq!(
        (small.name.as_str(), small.threshold, small.severity),
        ("small", Threshold::MustBeLessThan(3.0), Severity::Info)
    );
    assert_eq!((warned.threshold, warned.severity), (Threshold::MustBe(0.0), Severity::Warning));
    let [kept] = table.conditions.as_slice() else { panic!("{:?}", table.conditions) };
    assert_eq!(kept.condition, "id > 3");
    assert_eq!(orphans.name, "orphanedRows(id, segment) in a/b.c.x+y where price > 5 by segment <= 5%");
    let reference = orphans.reference().expect("a reference");
    assert_eq!(
        (reference.columns, reference.at),
        (vec!["id".to_owned(), "segment".into()], vec!["x".to_owned(), "y".into()])
    );
    assert_eq!(orphans.columns_there(), ["x", "y"]);
    assert_eq!(
        (known.name.as_str(), known.severity, known.threshold),
        ("known", Severity::Warning, Threshold::MustBeLessOrEqualTo(0.0))
    );
    assert!(table.references.is_empty());
    let text = serde_json::to_string(&table).expect("text");
    assert_eq!(serde_json::from_str::<Table>(&text).expect("a table"), table);
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let cases = [
        ("quality: [meen(price) > 1]", "unknown metric `meen`", "did you mean `mean`?"),
        ("quality: [mean(segment) > 1]", "`segment` is string, which `mean` cannot measure", "a column of numbers"),
        ("quality: [freshness(price) < 1h]", "`price` is double, which `freshness`", "a date or a timestamp"),
        ("quality: [sequenceGaps(price)]", "`price` is double", "whole numbers or dates"),
        ("quality: [freshness(at) < 5%]", "`freshness` has no percentage", "remove `%`"),
        ("quality: [mean(price) < 5%]", "`mean` has no percentage", "remove `%`"),
        ("quality: [mean(price) < 5h]", "`mean` is no time", "only `freshness`"),
        ("quality: [mean(price)]", "has no operator", "such as"),
        ("quality: [mean(price) between 5 and 1]", "the smaller number comes first", "such as"),
        ("quality: [mean(price) between 5]", "has no `and`", "such as"),
        ("quality: [rowCount > 5 apples]", "`apples` is not a unit", "such as"),
        ("quality: [quantile(price) < 5]", "`quantile` needs the share", "quantile(price, 0.95)"),
        ("quality: ['quantile(price, 95) < 5']", "needs the share of values below it, 0 to 1", "0.95"),
        ("quality: [outOfOrderValues(id)]", "needs to know which row comes before", "orderBy"),
        (
            "quality: [{metric: mean, column: price, groupBy: segmnt, mustBe: 1}]",
            "no column `segmnt`",
            "did you mean `segment`?",
        ),
        ("quality: [{metric: mean, column: price, warn: '5'}]", "`5` has no operator", "`warn` says when to warn"),
        ("quality: [{metric: mean, column: price, fail: '> 5', mustBe: 1}]", "both `fail` and a `mustBe…`", "keep one"),
        (
            "quality: [{metric: nullValues, column: price, fail: '> 5', warn: '> 1%', unit: rows}]",
            "`unit` and the threshold's unit differ",
            "keep one",
        ),
        (
            "quality: [{sql: 'SELECT 1', mustBe: 1, groupBy: segment}]",
            "a rule with a query has no `groupBy`",
            "in the query, such as `SELECT max(n)",
        ),
        ("quality: [{sql: 'SELECT count(${column})', mustBe: 1}]", "the rule has no column", "below a column"),
        (
            "quality: [{metric: duplicateValues, column: id, compareTo: a/b.c}]",
            "`duplicateValues` cannot be compared",
            "compare rowCount",
        ),
        (
            "quality: [{metric: rowCount, compareTo: nothing}]",
            "the product has no table `nothing`",
            "its tables: orders",
        ),
        (
            "quality: [{sql: 'SELECT 1', mustBe: 1, where: id > 1}]",
            "a rule with a query has no `where`",
            "in the query, such as `SELECT count(*)",
        ),
        (
            "quality: [{condition: id > 1, groupBy: segment}]",
            "a condition judges each row, so it has no `groupBy` by itself",
            "how many of its rows may fail, such as `fail: \"> 5%\"`",
        ),
        (
            "quality: [{condition: id > 1, metric: rowCount, fail: '> 1'}]",
            "a rule with `condition` has no `metric`",
            "a second rule",
        ),
        (
            "quality: [{condition: id > 1, severity: error, warn: '> 1%'}]",
            "says only when to warn, but its severity is `error`",
            "with `fail`",
        ),
        ("quality: [{condition: id > 1, fail: '> 1h'}]", "`failedRows` is no time", "only `freshness`"),
        (
            "references: [{columns: [id], to: a/b.c, groupBy: segment}]",
            "a reference is judged row by row",
            "such as `fail: \"> 5%\"`",
        ),
        ("references: [{columns: [id], to: a/b.c, fail: '5'}]", "`5` has no operator", "`fail` says when to fail"),
        (
            "references: [{columns: [id], to: orders, at: [segment], warn: '> 0'}]",
            "`id` is long, but `orders.segment` is string",
            "the same type",
        ),
        ("references: [{columns: [id, segment], to: a/b.c, at: [x]}]", "2 columns refer to 1", "as many columns"),
        ("references: [{columns: [id], to: a/b.c, where: ''}]", "`where` is empty", "an SQL condition"),
        ("references: [{columns: [idd], to: a/b.c}]", "no column `idd`", "did you mean `id`?"),
        ("references: [{columns: [id], to: a.b}]", "does not name a table", "domain/product.table"),
        ("references: [{columns: [id], to: order}]", "the product has no table `order`", "did you mean `orders`?"),
        (
            "references: [{columns: [id], to: orders, at: [segment]}]",
            "`id` is long, but `orders.segment` is string",
            "the same type",
        ),
        ("relationships: [{to: a.b}]", "which columns refer", "add `from:`"),
    ];
    for (lines, message, help) in cases {
        refused(lines, message, help);
    }
}

#[test]
fn free_text_of_odcs_is_accepted_with_a_note() {
    let lines = "quality: [{metric: nullValues, column: price, mustBe: 0, severity: critical, unit: cells}]";
    let (product, diagnostics) = read_manifest(manifest(lines).as_bytes());
    let rule = product.expect("a product").tables.remove(0).metrics.remove(0);
    assert_eq!((rule.severity, rule.unit), (Severity::Error, Unit::Rows));
    let ids: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.id).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&"unknown-severity") && ids.contains(&"unknown-unit"), "{diagnostics:?}");
}

fn column(keys: &str) -> (Option<Table>, Vec<String>) {
    let text = format!(
        "dataProduct:\n  name: p\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: t\n      columns: [{{name: a, type: string, {keys}}}, {{name: b, type: int}}]\n    - name: u\n      columns: [{{name: k, type: string}}]\n"
    );
    let (product, diagnostics) = read_manifest(text.as_bytes());
    (product.map(|mut product| product.tables.remove(0)), diagnostics.iter().map(ToString::to_string).collect())
}

#[test]
fn rules_of_columns() {
    let good = |keys: &str| column(keys).0.unwrap_or_else(|| panic!("{keys}: {:?}", column(keys).1));
    assert_eq!(good("format: date-time").columns[0].constraints.format, Some(TextFormat::DateTime));
    assert_eq!(good("format: dd.MM.yyyy").columns[0].constraints.date_format.as_deref(), Some("dd.MM.yyyy"));
    assert_eq!(good("completeIf: b > 1").columns[0].constraints.complete_if.as_deref(), Some("b > 1"));
    let query = good("quality: [{sql: 'SELECT count(*) FROM ${object} WHERE ${column} = {property}', mustBe: 0}]");
    assert_eq!(
        query.metrics[0].metric,
        Metric::Sql { query: "SELECT count(*) FROM ${object} WHERE \"a\" = \"a\"".into() }
    );
    for keys in [
        "references: u.k",
        "references: {to: u.k}",
        "relationships: [{to: u.k, type: foreignKey}]",
        "references: sales/p.u.k",
    ] {
        let table = good(keys);
        let [reference] = table.references.as_slice() else { panic!("{keys}") };
        assert_eq!(
            (reference.columns.as_slice(), reference.at.as_slice()),
            (&["a".to_owned()][..], &["k".to_owned()][..])
        );
        assert_eq!((reference.to.to_string().as_str(), reference.quarantines()), ("u", true), "{keys}");
    }
    assert!(!good("references: {to: x/y.z.k, severity: warning}").references[0].quarantines());
    for (keys, message) in [
        ("format: dat", "did you mean `date`?"),
        ("format: yyyy-QQ", "`QQ` in `yyyy-QQ` is not supported"),
        ("references: u", "does not name a table's column"),
        ("references: u.j", "table `u` has no column `j`"),
        ("references: {to: u.k, severty: warning}", "did you mean `severity`?"),
        ("references: u.k, relationships: [{to: u.k}]", "refer to that table already"),
    ] {
        let (table, problems) = column(keys);
        assert!(table.is_none(), "{keys}");
        assert!(problems.iter().any(|problem| problem.contains(message)), "{keys}: {problems:?}");
    }
}

#[test]
fn tables_cannot_refer_to_each_other_in_a_circle() {
    let text = "dataProduct:\n  name: p\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: t\n      columns: [{name: a, type: int, references: u.a}]\n    - name: u\n      columns: [{name: a, type: int, references: t.a}]\n";
    let (product, diagnostics) = read_manifest(text.as_bytes());
    assert!(product.is_none());
    assert_eq!(diagnostics.len(), 2, "{diagnostics:?}");
    assert!(diagnostics[0].message.contains("refer to each other in a circle"), "{diagnostics:?}");
    let own = "dataProduct:\n  name: p\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: t\n      columns: [{name: a, type: int, references: t.b}, {name: b, type: int}]\n";
    assert!(read_manifest(own.as_bytes()).0.is_some());
}

#[test]
fn the_schema_knows_every_metric() {
    let schema = datamesh_manifest::schema::manifest_schema();
    let words = schema["$defs"]["Quality"]["properties"]["metric"]["enum"].as_array().expect("words").clone();
    let known: Vec<&str> =
        METRIC_WORDS.iter().flat_map(|(name, others)| std::iter::once(*name).chain(others.iter().copied())).collect();
    assert_eq!(words, known);
}
