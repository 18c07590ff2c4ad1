use datamesh_core::DataType;
use datamesh_core::contract::WriteMode;

use crate::{ARTICLE, REFERENCE, read_in, read_manifest};

/// A manifest with one table, whose lines are given.
fn table(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    format!("dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: orders\n{indented}")
}

/// Checks that the errors and warnings of a manifest are exactly `expected`: `line:column id message`.
fn check(manifest: &str, expected: &[&str]) {
    let (product, diagnostics) = read_manifest(manifest.as_bytes());
    let found: Vec<String> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.id != "not-enforced")
        .map(|diagnostic| {
            format!(
                "{}:{} {} {}",
                diagnostic.location.line, diagnostic.location.column, diagnostic.id, diagnostic.message
            )
        })
        .collect();
    assert_eq!(found, expected, "{manifest}");
    assert_eq!(product.is_some(), !diagnostics.iter().any(datamesh_core::Diagnostic::is_error), "{manifest}");
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        assert!(diagnostic.help.as_ref().is_some_and(|help| !help.is_empty()), "{diagnostic} has no help");
    }
}

#[test]
fn the_article_is_valid_verbatim() {
    let (product, diagnostics) = read_in(ARTICLE.as_bytes(), None);
    assert!(diagnostics.iter().all(|diagnostic| diagnostic.id == "not-enforced"), "{diagnostics:?}");
    let product = product.unwrap();
    assert_eq!(product.id.to_string(), "customer/customer-360");
    assert_eq!(product.tables[0].columns[1].data_type, DataType::Json);
    assert_eq!(product.declared["sla"]["availability"], "99.9%");
}

#[test]
fn the_reference_is_valid_and_says_what_is_not_enforced() {
    let (product, diagnostics) = read_in(REFERENCE.as_bytes(), None);
    assert!(diagnostics.iter().all(|diagnostic| diagnostic.id == "not-enforced"), "{diagnostics:?}");
    assert!(diagnostics.iter().any(|diagnostic| diagnostic.message == "`ports` is declared, not enforced"));
    let product = product.unwrap();
    let profile = &product.tables[0];
    assert_eq!(profile.write, WriteMode::Replace);
    assert_eq!(profile.metrics.len(), 4, "{:?}", profile.metrics);
    assert_eq!(profile.primary_key(), ["customer_id"]);
    assert!(profile.column("address").unwrap().is_protected());
    assert_eq!(profile.partition_by.len(), 1);
}

#[test]
fn a_contract_survives_the_registrys_form() {
    let product = read_in(REFERENCE.as_bytes(), None).0.unwrap();
    let text = serde_json::to_string(&product).unwrap();
    assert_eq!(serde_json::from_str::<datamesh_core::DataProduct>(&text).unwrap(), product);
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    check(
        "dataProduct:\n  nam: x\n  version: one\n  owner: sales\n  schema:\n    - name: t\n      columns:\n        - {name: a, type: varchar}\n        - {name: b, type: int, minimum: x}\n",
        &[
            "2:3 missing-key `dataProduct` has no `name`",
            "2:3 unknown-key unknown key `nam` in `dataProduct`",
            "3:12 invalid-version `one` is not a semantic version: unexpected character 'o' while parsing major version number",
            "8:27 invalid-type unknown type `varchar`",
            "9:41 invalid-bound `minimum`: `x` is not a valid int",
        ],
    );
}

#[test]
fn suggestions_are_made() {
    let cases = [
        ("columns: [{name: a, type: string, requird: true}]", "did you mean `required`?"),
        ("columns: [{name: a, type: strin}]", "did you mean `string`?"),
        ("columns: [{name: a, type: bigint}]", "did you mean `long`?"),
        ("write: apend\ncolumns: [{name: a, type: string}]", "did you mean `append`?"),
        ("columns: [{name: amount, type: int}]\nsortBy: [amuont]", "did you mean `amount`?"),
        ("columns: [{name: amount, type: int}]\nquality: [rowcount > 5]", "did you mean `rowCount`?"),
    ];
    for (lines, help) in cases {
        let (_, diagnostics) = read_manifest(table(lines).as_bytes());
        assert!(
            diagnostics.iter().any(|diagnostic| diagnostic.help.as_deref() == Some(help)),
            "{lines}: {diagnostics:?}"
        );
    }
}

#[test]
fn each_mistake_has_its_diagnostic() {
    let cases: &[(&str, &str)] = &[
        ("type: view\ncolumns: [{name: a, type: int}]", "unsupported-view"),
        ("write: upsert\ncolumns: [{name: a, type: int}]", "upsert-without-key"),
        ("write: replacePartitions\ncolumns: [{name: a, type: int}]", "replace-without-partitions"),
        ("deleteWhen: a < 0\ncolumns: [{name: a, type: int, primaryKey: true}]", "misplaced-delete"),
        ("write: upsert\ndeleteWhen: ''\ncolumns: [{name: a, type: int, primaryKey: true}]", "empty-condition"),
        ("columns: []", "no-columns"),
        ("columns: [{name: a, type: int}]\nsource: https://me:pass@host/a.csv", "literal-secret"),
        ("columns: [{name: a, type: int}]\nsource: {path: 'https://host/a?sig=b', format: csv}", "literal-secret"),
        ("columns: [{name: a, type: int}, {name: A, type: int}]", "duplicate-column"),
        ("columns: [{name: __a, type: int}]", "invalid-name"),
        ("columns: [{name: a, type: struct}]", "no-columns"),
        ("columns: [{name: a, type: int, columns: [{name: b, type: int}]}]", "not-a-struct"),
        ("columns: [{name: a, type: array<int>, primaryKey: true}]", "invalid-key"),
        ("columns: [{name: a, type: int}]\nunique: [[b]]", "unknown-column"),
        ("columns: [{name: a, type: boolean, minimum: 1}]", "misplaced-rule"),
        ("columns: [{name: a, type: int, pattern: x}]", "misplaced-rule"),
        ("columns: [{name: a, type: int, minLength: 1}]", "misplaced-rule"),
        ("columns: [{name: a, type: string, pattern: '('}]", "invalid-pattern"),
        ("columns: [{name: a, type: string, format: phone}]", "invalid-format"),
        ("columns: [{name: a, type: int, minimum: 5, maximum: 1}]", "empty-range"),
        ("columns: [{name: a, type: string, minLength: 5, maxLength: 1}]", "empty-range"),
        ("columns: [{name: a, type: int, multipleOf: 0}]", "invalid-bound"),
        ("columns: [{name: a, type: int, enum: []}]", "empty-enum"),
        ("columns: [{name: a, type: int, enum: [1, null]}]", "null-in-enum"),
        ("columns: [{name: a, type: int, enum: [x]}]", "invalid-bound"),
        ("columns: [{name: a, type: int}]\npartitionBy: [day(a)]", "invalid-partition"),
        ("columns: [{name: a, type: int}]\npartitionBy: [week(a)]", "invalid-partition"),
        ("columns: [{name: a, type: int}]\npartitionBy: [a, a]", "duplicate-partition"),
        ("columns: [{name: a, type: int}]\nquarantine: {limit: 101%}", "wrong-shape"),
        ("columns: [{name: a, type: int}]\nquality: [rowCount]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [rowCount > many]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [nullValues < 5]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [{metric: rowCount}]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [{metric: rowCount, mustBe: 1, mustNotBe: 2}]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [{metric: rowCount, mustBeBetween: [2, 1]}]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [{metric: invalidValues, column: a, mustBe: 0}]", "invalid-rule"),
        ("columns: [{name: a, type: int}]\nquality: [{condition: a > 1, unit: percent}]", "mixed-rule"),
        ("columns: [{name: a, type: int}]\nquality: [rowCount > 1, rowCount > 1]", "duplicate-rule"),
        ("columns: [{name: a, type: int}]\nsource: {path: x, delimiter: ab}", "invalid-character"),
        ("columns: {name: a}", "wrong-shape"),
    ];
    for (lines, id) in cases {
        let (product, diagnostics) = read_manifest(table(lines).as_bytes());
        let found = diagnostics.iter().find(|diagnostic| diagnostic.id == *id);
        let found = found.unwrap_or_else(|| panic!("{lines}: {diagnostics:?}"));
        assert!(found.is_error() && product.is_none(), "{lines}");
        assert!(found.location.line >= 6, "{lines}: {found}");
    }
}

#[test]
fn shorthand_and_long_forms_mean_the_same() {
    let short = table("columns: [{name: a, type: int}]\nquality: [nullValues(a) < 5%]\nquarantine: 7%\nsource: x.csv");
    let long = table(
        "columns: [{name: a, type: int}]\nquality: [{name: 'nullValues(a) < 5%', metric: nullValues, column: a, mustBeLessThan: 5, unit: percent}]\nquarantine: {limit: 7}\nsource: {path: x.csv}",
    );
    assert_eq!(read_manifest(short.as_bytes()).0.unwrap(), read_manifest(long.as_bytes()).0.unwrap());
}

#[test]
fn write_modes_are_read() {
    let upsert = "write: upsert\ndeleteWhen: gone\ncolumns: [{name: a, type: int, primaryKey: true}, {name: gone, type: boolean}]";
    let product = read_manifest(table(upsert).as_bytes()).0.unwrap();
    assert_eq!(product.tables[0].write, WriteMode::Upsert);
    assert_eq!(product.tables[0].delete_when.as_deref(), Some("gone"));
    let backfill = "write: replacePartitions\ncolumns: [{name: a, type: int}]\npartitionBy: [a]";
    let product = read_manifest(table(backfill).as_bytes()).0.unwrap();
    assert_eq!(product.tables[0].write, WriteMode::ReplacePartitions);
    let text = serde_json::to_string(&product).unwrap();
    assert!(text.contains("\"write\":\"replacePartitions\""), "{text}");
    assert_eq!(serde_json::from_str::<datamesh_core::DataProduct>(&text).unwrap(), product);
}

#[test]
fn odcs_quality_objects_are_read_verbatim() {
    let lines = "columns:\n  - name: a\n    type: string\n    quality:\n      - {id: q1, type: library, metric: missingValues, arguments: {missingValues: [null, '', N/A]}, mustBeLessOrEqualTo: 1, unit: percent, dimension: completeness, severity: warning, businessImpact: operational}\n      - {metric: invalidValues, arguments: {validValues: [x, y]}, mustBe: 0}\nquality:\n  - {type: library, metric: duplicateValues, arguments: {properties: [a]}, mustBe: 0}\n  - {type: sql, query: 'SELECT count(*) FROM ${object}', mustBeGreaterThan: 0}\n  - {type: text, description: looks fine}";
    let (product, diagnostics) = read_manifest(table(lines).as_bytes());
    let product = product.unwrap_or_else(|| panic!("{diagnostics:?}"));
    assert_eq!(product.tables[0].metrics.len(), 4);
    assert!(diagnostics.iter().any(|diagnostic| diagnostic.message.contains("`text` is declared, not enforced")));
}

#[test]
fn nested_types_take_their_fields_from_columns_and_items() {
    let lines = "columns:\n  - {name: tags, type: array<string>, items: {pattern: '^[a-z]+$', maxLength: 5}}\n  - name: lines\n    type: array<struct>\n    columns: [{name: sku, type: string, required: true}]\n  - {name: point, type: 'struct<x: double, y: double>'}";
    let product = read_manifest(table(lines).as_bytes()).0.unwrap();
    let types: Vec<String> = product.tables[0].columns.iter().map(|column| column.data_type.to_string()).collect();
    assert_eq!(types, ["array<string>", "array<struct<sku: string>>", "struct<x: double, y: double>"]);
    let paths: Vec<String> =
        datamesh_core::quality::value_constraints(&product.tables[0]).into_iter().map(|rule| rule.path).collect();
    assert_eq!(paths, ["tags[]", "tags[]", "lines[].sku"]);
}
