//! The rules on contracts written by hand, and the algebra of changes.

mod algebra;
mod versions;

use serde_json::{Value, json};

use super::rules::{ALL, Bump, Direction};
use super::*;
use crate::DataProduct;

/// A product with something of everything.
fn base() -> Value {
    json!({
        "format": 1,
        "id": {"domain": "sales", "product": "orders"},
        "version": "1.2.3",
        "owner": "sales-team",
        "description": "Every order",
        "inputs": [{"product": {"domain": "crm", "product": "customers"}, "range": "^2"}],
        "declared": {
            "type": "aggregate",
            "status": "active",
            "tags": ["gold"],
            "classification": "internal",
            "contact": {"slack": "#orders"},
            "price": "free",
            "ports": [
                {"name": "tables", "type": "iceberg"},
                {"name": "events", "type": "kafka", "tables": ["orders"], "write": "refused"}
            ],
            "access": [
                {"role": "analyst", "rows": "country = 'DE'", "unmasked": ["email"], "expires": "90d", "approvers": ["stewards"]},
                {"role": "support", "tables": ["orders", "lines"], "columns": ["id", "email"]}
            ],
            "sla": {"availability": "99.9%", "freshness": {"within": "4h", "column": "orders.at"}, "retention": "3y", "endOfSupport": "2030-01-01"},
            "custom": {"costCenter": "A", "odcs": {"servers": [{"server": "prod", "location": "s3://b/c"}], "slaProperties": [{"property": "latency", "value": 5}]}}
        },
        "tables": [
            {
                "name": "orders",
                "description": "One row per order",
                "columns": [
                    {"name": "id", "type": "long", "primaryKey": true, "required": true},
                    {"name": "email", "type": "string", "required": true, "unique": true, "pii": true, "mask": "hash",
                     "constraints": {"maxLength": 100, "minLength": 3, "pattern": "^.+@.+$", "format": "email"}},
                    {"name": "visits", "type": "int", "constraints": {"minimum": "0", "exclusiveMaximum": "100"}},
                    {"name": "score", "type": {"decimal": [10, 2]}, "constraints": {"multipleOf": "0.5"}},
                    {"name": "ratio", "type": "float"},
                    {"name": "segment", "type": "string", "constraints": {"enum": ["gold", "silver"]},
                     "declared": {"classification": "confidential", "tags": ["s"]}},
                    {"name": "at", "type": "timestamp"},
                    {"name": "day", "type": "string", "constraints": {"dateFormat": "yyyy-MM-dd", "completeIf": "visits > 0"}},
                    {"name": "address", "type": {"struct": [{"name": "city", "type": "string"}, {"name": "zip", "type": "string"}]}},
                    {"name": "words", "type": {"array": {"name": "item", "type": "int"}}},
                    {"name": "notes", "type": {"map": ["string", {"name": "value", "type": "int"}]}}
                ],
                "unique": [["segment", "at"]],
                "partitionBy": [{"column": "at", "transform": "day"}],
                "sortBy": [{"column": "id"}],
                "conditions": [{"name": "sane", "condition": "visits >= 0"}],
                "metrics": [
                    {"name": "rows", "metric": {"kind": "rowCount"}, "threshold": {"mustBeGreaterThan": 100.0}},
                    {"name": "soft", "metric": {"kind": "rowCount"}, "threshold": {"mustBeGreaterThan": 1000.0}, "severity": "warning"},
                    {"name": "sql", "metric": {"kind": "sql", "query": "SELECT count(*) FROM {object}"}, "threshold": {"mustBe": 0.0}},
                    {"name": "late", "metric": {"kind": "freshness", "column": "at"}, "unit": "hours", "threshold": {"mustBeLessThan": 4.0}}
                ],
                "references": [{"columns": ["segment"], "to": "segments", "at": ["name"], "severity": "error"}],
                "quarantine": {"percent": 5.0}
            },
            {"name": "segments", "columns": [{"name": "name", "type": "string", "primaryKey": true, "required": true}, {"name": "label", "type": "string"}]}
        ]
    })
}

fn product(value: Value) -> DataProduct {
    serde_json::from_value(value).expect("a contract")
}

/// The base with the values at these JSON pointers set; null removes a key or an item.
fn edited(edits: &[(&str, Value)]) -> Value {
    let mut value = base();
    for (pointer, new) in edits {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match value.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}")) {
            Value::Object(object) if new.is_null() => {
                object.remove(key).unwrap_or_else(|| panic!("nothing at {pointer}"));
            }
            Value::Object(object) => {
                object.insert(key.to_owned(), new.clone());
            }
            Value::Array(items) if key == "-" => items.push(new.clone()),
            Value::Array(items) if new.is_null() => {
                items.remove(key.parse::<usize>().expect("an index"));
            }
            Value::Array(items) => items[key.parse::<usize>().expect("an index")] = new.clone(),
            other => panic!("{parent} is {other}"),
        }
    }
    value
}

/// The rules, in their order, that an edit of the base falls under, each with its path.
fn changes(edits: &[(&str, Value)]) -> Vec<ContractChange> {
    compare(&product(base()), &product(edited(edits)))
}

/// One edit of the base and the `rule path` it must be reported as.
#[track_caller]
fn check(edits: &[(&str, Value)], expected: &[&str]) {
    let found = changes(edits);
    let found: Vec<String> = found.iter().map(|change| format!("{} {}", change.rule.id, change.path)).collect();
    assert_eq!(found, expected, "{edits:?}");
}

const COLUMN: &str = "/tables/0/columns";

#[test]
fn nothing_changed() {
    check(&[], &[]);
    check(&[("/version", json!("9.0.0"))], &[]);
    // What is there without being said is no change either.
    let mut value = base();
    value["declared"].as_object_mut().expect("keys").remove("ports");
    value["declared"].as_object_mut().expect("keys").remove("status");
    let mut explicit = value.clone();
    explicit["declared"]["ports"] = json!([{"name": "tables", "type": "iceberg"}]);
    explicit["declared"]["status"] = json!("active");
    assert_eq!(compare(&product(value), &product(explicit)), []);
}

#[test]
fn the_product() {
    check(&[("/id/product", json!("sales-orders"))], &["product-renamed name"]);
    check(&[("/id/domain", json!("shop"))], &["product-moved domain"]);
    check(&[("/owner", json!("shop-team"))], &["owner-changed owner"]);
    check(&[("/description", Value::Null)], &["description-changed description"]);
    check(&[("/inputs", json!([]))], &["inputs-changed inputs"]);
    check(&[("/declared/type", json!("source-aligned"))], &["metadata-changed type"]);
    check(&[("/declared/tags", json!(["silver"]))], &["tags-changed tags"]);
    check(&[("/declared/contact", Value::Null)], &["contact-changed contact"]);
    check(&[("/declared/price", json!("9 EUR"))], &["price-changed price"]);
    check(&[("/declared/status", json!("deprecated"))], &["status-changed status"]);
    check(&[("/declared/status", json!("draft"))], &["status-withdrawn status"]);
    check(&[("/declared/status", json!("retired"))], &["status-withdrawn status"]);
    check(&[("/declared/trigger", json!("inputs"))], &["metadata-changed trigger"]);
    check(&[("/declared/newKey", json!("x"))], &["unclassified-change newKey"]);
    check(&[("/declared/custom/costCenter", json!("B"))], &["metadata-changed custom.costCenter"]);
}

#[test]
fn tables() {
    check(&[("/tables/1", Value::Null)], &["table-removed schema.segments"]);
    check(&[("/tables/1/name", json!("groups"))], &["table-removed schema.segments", "table-added schema.groups"]);
    check(&[("/tables/0/write", json!("upsert"))], &["write-mode-changed schema.orders.write"]);
    check(&[("/tables/0/deleteWhen", json!("gone"))], &["write-mode-changed schema.orders.deleteWhen"]);
    check(&[("/tables/0/source", json!({"path": "x.csv"}))], &["source-changed schema.orders.source"]);
    check(&[("/tables/0/watermark", json!("at"))], &["source-changed schema.orders.watermark"]);
    check(&[("/tables/0/transform", json!({"sql": "SELECT 1"}))], &["transform-changed schema.orders.transform"]);
    check(&[("/tables/0/partitionBy", json!([]))], &["partitioning-changed schema.orders.partitionBy"]);
    check(&[("/tables/0/sortBy", json!([]))], &["sorting-changed schema.orders.sortBy"]);
    check(&[("/tables/0/quarantine/percent", json!(10.0))], &["quarantine-limit-raised schema.orders.quarantine"]);
    check(&[("/tables/0/quarantine/percent", json!(1.0))], &["quarantine-limit-lowered schema.orders.quarantine"]);
    check(
        &[(
            "/tables/0/declared",
            json!({"tags": ["t"], "custom": {"physicalName": "mine", "odcs": {"physicalName": "o"}}}),
        )],
        &[
            "tags-changed schema.orders.tags",
            "physical-name-changed schema.orders.custom.odcs.physicalName",
            "metadata-changed schema.orders.custom.physicalName",
        ],
    );
    let mut swapped = base();
    swapped["tables"].as_array_mut().expect("tables").swap(0, 1);
    let found = compare(&product(base()), &product(swapped));
    assert_eq!(found.iter().map(|change| change.rule.id).collect::<Vec<_>>(), ["metadata-changed"]);
}

#[test]
fn columns() {
    let at = |rest: &str| format!("{COLUMN}/{rest}");
    check(&[(&at("-"), json!({"name": "nick", "type": "string"}))], &["column-added schema.orders.columns.nick"]);
    check(
        &[(&at("-"), json!({"name": "nick", "type": "string", "required": true, "unique": true}))],
        &["column-added schema.orders.columns.nick"],
    );
    check(&[(&at("4"), Value::Null)], &["column-removed schema.orders.columns.ratio"]);
    check(
        &[(&at("4/name"), json!("share"))],
        &["column-removed schema.orders.columns.ratio", "column-added schema.orders.columns.share"],
    );
    check(
        &[(&at("4/name"), json!("share")), (&at("4/declared"), json!({"renamedFrom": "ratio"}))],
        &["column-renamed schema.orders.columns.share.name"],
    );
    check(&[(&at("2/type"), json!("long"))], &["type-widened schema.orders.columns.visits.type"]);
    check(&[(&at("4/type"), json!("double"))], &["type-widened schema.orders.columns.ratio.type"]);
    check(&[(&at("3/type"), json!({"decimal": [18, 2]}))], &["type-widened schema.orders.columns.score.type"]);
    check(&[(&at("3/type"), json!({"decimal": [18, 4]}))], &["type-changed schema.orders.columns.score.type"]);
    check(&[(&at("3/type"), json!({"decimal": [8, 2]}))], &["type-changed schema.orders.columns.score.type"]);
    check(&[(&at("0/type"), json!("int"))], &["type-changed schema.orders.columns.id.type"]);
    check(&[(&at("6/type"), json!("timestamp_ntz"))], &["type-changed schema.orders.columns.at.type"]);
    check(&[(&at("1/required"), json!(false))], &["required-loosened schema.orders.columns.email.required"]);
    check(&[(&at("2/required"), json!(true))], &["required-tightened schema.orders.columns.visits.required"]);
    check(&[(&at("2/description"), json!("x"))], &["description-changed schema.orders.columns.visits.description"]);
    check(&[(&at("2/from"), json!(["a/b.c.d"]))], &["lineage-changed schema.orders.columns.visits.from"]);
    check(&[(&at("2/declared"), json!({"default": 7}))], &["default-changed schema.orders.columns.visits.default"]);
    check(
        &[(&at("2/declared"), json!({"custom": {"odcs": {"deprecated": true, "physicalType": "smallint"}}}))],
        &[
            "deprecation-changed schema.orders.columns.visits.custom.odcs.deprecated",
            "physical-type-changed schema.orders.columns.visits.custom.odcs.physicalType",
        ],
    );
    let mut swapped = base();
    swapped["tables"][0]["columns"].as_array_mut().expect("columns").swap(2, 3);
    let found = compare(&product(base()), &product(swapped));
    assert_eq!(found.iter().map(|change| change.rule.id).collect::<Vec<_>>(), ["columns-reordered"]);
}

#[test]
fn nested_columns() {
    let at = |rest: &str| format!("{COLUMN}/{rest}");
    check(
        &[(&at("8/type/struct/-"), json!({"name": "country", "type": "string"}))],
        &["column-added schema.orders.columns.address.columns.country"],
    );
    check(&[(&at("8/type/struct/1"), Value::Null)], &["column-removed schema.orders.columns.address.columns.zip"]);
    check(
        &[
            (&at("8/type/struct/1/name"), json!("postcode")),
            (&at("8/type/struct/1/declared"), json!({"renamedFrom": "zip"})),
        ],
        &["column-renamed schema.orders.columns.address.columns.postcode.name"],
    );
    check(&[(&at("9/type/array/type"), json!("long"))], &["type-widened schema.orders.columns.words.items.type"]);
    check(&[(&at("9/type/array/type"), json!("string"))], &["type-changed schema.orders.columns.words.items.type"]);
    check(
        &[(&at("9/type/array/required"), json!(true))],
        &["required-tightened schema.orders.columns.words.items.required"],
    );
    check(&[(&at("10/type/map/0"), json!("int"))], &["type-changed schema.orders.columns.notes.keys.type"]);
    check(&[(&at("10/type/map/1/type"), json!("long"))], &["type-widened schema.orders.columns.notes.values.type"]);
    let found = changes(&[(&at("8/type/struct/1"), Value::Null)]);
    assert_eq!((found[0].table(), found[0].columns.as_slice()), (Some("orders"), ["address".to_owned()].as_slice()));
}

#[test]
fn a_rename_takes_keys_and_layout_along() {
    let edits = [
        ("/tables/0/columns/5/name", json!("tier")),
        ("/tables/0/columns/5/declared/renamedFrom", json!("segment")),
        ("/tables/0/unique", json!([["tier", "at"]])),
        ("/tables/0/references/0/columns", json!(["tier"])),
        ("/tables/0/columns/6/name", json!("moment")),
        ("/tables/0/columns/6/declared", json!({"renamedFrom": "at"})),
        ("/tables/0/unique", json!([["tier", "moment"]])),
        ("/tables/0/partitionBy/0/column", json!("moment")),
        ("/tables/0/metrics/3", Value::Null),
    ];
    let found = changes(&edits);
    let rules: Vec<&str> = found.iter().map(|change| change.rule.id).collect();
    assert_eq!(rules, ["column-renamed", "column-renamed", "quality-rule-removed"]);
    assert_eq!(found[0].columns, ["segment"], "consumers know the former name");
}

#[test]
fn keys_and_references() {
    check(&[("/tables/0/columns/0/primaryKey", Value::Null)], &["primary-key-removed schema.orders.primaryKey"]);
    check(&[("/tables/0/columns/1/primaryKey", json!(true))], &["primary-key-changed schema.orders.primaryKey"]);
    check(
        &[("/tables/1/columns/0/primaryKey", Value::Null), ("/tables/1/columns/1/primaryKey", json!(true))],
        &["primary-key-changed schema.segments.primaryKey"],
    );
    check(&[("/tables/0/columns/1/unique", Value::Null)], &["unique-removed schema.orders.columns.email.unique"]);
    check(&[("/tables/0/columns/2/unique", json!(true))], &["unique-added schema.orders.columns.visits.unique"]);
    check(&[("/tables/0/unique", json!([]))], &["unique-removed schema.orders.unique.at, segment"]);
    check(&[("/tables/0/unique", json!([["at", "segment"]]))], &[]);
    check(&[("/tables/0/unique/-", json!(["visits", "id"]))], &["unique-restated schema.orders.unique.id, visits"]);
    check(
        &[("/tables/0/unique", json!([["at"]]))],
        &["unique-restated schema.orders.unique.at, segment", "unique-added schema.orders.columns.at.unique"],
    );
    check(&[("/tables/0/references", json!([]))], &["reference-removed schema.orders.columns.segment.references"]);
    check(
        &[("/tables/0/references/0/severity", json!("warning"))],
        &["reference-removed schema.orders.columns.segment.references"],
    );
    check(
        &[("/tables/0/references/0/description", json!("x"))],
        &["reference-noted schema.orders.columns.segment.references"],
    );
    check(
        &[("/tables/0/references/0/where", json!("visits > 1"))],
        &[
            "reference-removed schema.orders.columns.segment.references",
            "reference-added schema.orders.columns.segment.references",
        ],
    );
    check(
        &[(
            "/tables/0/references/-",
            json!({"columns": ["id", "at"], "to": "a/b.c", "at": ["x", "y"], "severity": "error"}),
        )],
        &["reference-added schema.orders.references.id+at"],
    );
}

#[test]
fn constraints() {
    let cases = [
        ("1/constraints/maxLength", json!(200), "length-loosened email.maxLength"),
        ("1/constraints/maxLength", json!(50), "length-tightened email.maxLength"),
        ("1/constraints/maxLength", Value::Null, "length-loosened email.maxLength"),
        ("1/constraints/minLength", Value::Null, "length-loosened email.minLength"),
        ("1/constraints/minLength", json!(4), "length-tightened email.minLength"),
        ("1/constraints/pattern", json!("@"), "pattern-changed email.pattern"),
        ("1/constraints/pattern", Value::Null, "pattern-removed email.pattern"),
        ("1/constraints/format", Value::Null, "format-removed email.format"),
        ("1/constraints/format", json!("uri"), "format-changed email.format"),
        ("5/constraints/format", json!("uri"), "format-added segment.format"),
        ("7/constraints/dateFormat", json!("dd.MM.yyyy"), "format-changed day.format"),
        ("2/constraints/minimum", json!("1"), "minimum-tightened visits.minimum"),
        ("2/constraints/minimum", json!("-1"), "minimum-loosened visits.minimum"),
        ("2/constraints/minimum", Value::Null, "minimum-loosened visits.minimum"),
        ("2/constraints/minimum", json!("00"), "constraint-restated visits.minimum"),
        ("2/constraints/exclusiveMaximum", json!("101"), "maximum-loosened visits.exclusiveMaximum"),
        ("2/constraints/exclusiveMaximum", json!("99"), "maximum-tightened visits.exclusiveMaximum"),
        ("3/constraints/minimum", json!("0"), "minimum-tightened score.minimum"),
        ("3/constraints/multipleOf", json!("1"), "multiple-of-tightened score.multipleOf"),
        ("3/constraints/multipleOf", json!("0.25"), "multiple-of-loosened score.multipleOf"),
        ("3/constraints/multipleOf", json!("0.75"), "multiple-of-changed score.multipleOf"),
        ("3/constraints/multipleOf", json!("0.50"), "constraint-restated score.multipleOf"),
        ("3/constraints/multipleOf", Value::Null, "multiple-of-loosened score.multipleOf"),
        ("5/constraints/enum", json!(["gold", "silver", "bronze"]), "enum-value-added segment.enum"),
        ("5/constraints/enum", json!(["gold"]), "enum-value-removed segment.enum"),
        ("5/constraints/enum", json!(["silver", "gold"]), "constraint-restated segment.enum"),
        ("5/constraints/enum", Value::Null, "enum-removed segment.enum"),
        ("2/constraints/enum", json!(["1"]), "enum-added visits.enum"),
        ("7/constraints/completeIf", Value::Null, "complete-if-removed day.completeIf"),
        ("7/constraints/completeIf", json!("visits > 1"), "complete-if-changed day.completeIf"),
        ("7/constraints/completeIf", json!("visits  >\n0"), "constraint-restated day.completeIf"),
    ];
    for (pointer, value, expected) in cases {
        let (rule, place) = expected.split_once(' ').expect("a rule and a place");
        let expected = format!("{rule} schema.orders.columns.{place}");
        check(&[(&format!("{COLUMN}/{pointer}"), value)], &[&expected]);
    }
    // The same bound, said otherwise: below 100 is at most 99 for whole numbers.
    check(
        &[
            (&format!("{COLUMN}/2/constraints/exclusiveMaximum"), Value::Null),
            (&format!("{COLUMN}/2/constraints/maximum"), json!("99")),
        ],
        &["constraint-restated schema.orders.columns.visits.maximum"],
    );
    check(
        &[(&format!("{COLUMN}/5/constraints/enum"), json!(["gold", "bronze"]))],
        &[
            "enum-value-added schema.orders.columns.segment.enum",
            "enum-value-removed schema.orders.columns.segment.enum",
        ],
    );
}

#[test]
fn quality() {
    let rule = |rest: &str| format!("/tables/0/metrics/{rest}");
    let cases = [
        ("0/threshold", json!({"mustBeGreaterThan": 500.0}), "quality-threshold-tightened rows"),
        ("0/threshold", json!({"mustBeGreaterThan": 10.0}), "quality-threshold-loosened rows"),
        ("0/threshold", json!({"mustBeGreaterOrEqualTo": 101.0}), "quality-rule-restated rows"),
        ("0/threshold", json!({"mustBeBetween": [101.0, 200.0]}), "quality-threshold-tightened rows"),
        ("0/threshold", json!({"mustBeLessThan": 100.0}), "quality-threshold-moved rows"),
        ("0/threshold", json!({"mustNotBeBetween": [0.0, 100.0]}), "quality-rule-restated rows"),
        ("0/severity", json!("warning"), "quality-severity-loosened rows"),
        ("1/severity", json!("error"), "quality-severity-tightened soft"),
        ("1/severity", json!("info"), "quality-warning-changed soft"),
        ("1/threshold", json!({"mustBe": 1.0}), "quality-warning-changed soft"),
        ("0/warn", json!({"mustBe": 1.0}), "quality-rule-restated rows"),
        ("0/description", json!("x"), "quality-rule-restated rows"),
        ("0/where", json!("visits > 0"), "quality-measure-changed rows"),
        ("2/metric/query", json!("SELECT 0"), "quality-measure-changed sql"),
        ("0", Value::Null, "quality-rule-removed rows"),
        ("1", Value::Null, "quality-warning-changed soft"),
        ("3/threshold", json!({"mustBeLessThan": 5.0}), "quality-threshold-loosened late"),
        ("0/name", json!("size"), "quality-rule-restated size"),
    ];
    for (pointer, value, expected) in cases {
        let (id, name) = expected.split_once(' ').expect("a rule and a name");
        check(&[(&rule(pointer), value)], &[&format!("{id} schema.orders.quality.{name}")]);
    }
    check(
        &[(&rule("3/unit"), json!("minutes")), (&rule("3/threshold"), json!({"mustBeLessThan": 240.0}))],
        &["quality-rule-restated schema.orders.quality.late"],
    );
    // A rule that is named by what it says is the same rule with another threshold.
    check(
        &[(&rule("0/name"), json!("rowCount > 500")), (&rule("0/threshold"), json!({"mustBeGreaterThan": 500.0}))],
        &["quality-threshold-tightened schema.orders.quality.rowCount > 500"],
    );
    let condition = "/tables/0/conditions/0";
    check(&[(condition, Value::Null)], &["row-condition-removed schema.orders.quality.sane"]);
    check(
        &[(&format!("{condition}/condition"), json!("visits > 0"))],
        &["row-condition-changed schema.orders.quality.sane"],
    );
    check(
        &[(&format!("{condition}/condition"), json!("visits\n  >= 0"))],
        &["quality-rule-restated schema.orders.quality.sane"],
    );
    // A comment ends with its line, so white space may mean something.
    assert!(!quality::same_sql("a -- b\n AND c", "a -- b AND c"));
    check(&[(&format!("{condition}/where"), json!("id > 0"))], &["row-condition-removed schema.orders.quality.sane"]);
    check(
        &[("/tables/0/conditions/-", json!({"name": "new", "condition": "id > 0"}))],
        &["row-condition-added schema.orders.quality.new"],
    );
}

#[test]
fn what_was_counted_may_be_quarantined() {
    let counted = |metric: Value, more: Value| {
        let mut rule = json!({"name": "few", "metric": metric, "threshold": {"mustBeLessThan": 9.0}});
        more.as_object().expect("keys").iter().for_each(|(key, value)| rule[key] = value.clone());
        ("/tables/0/metrics/-", rule)
    };
    let failed = counted(json!({"kind": "failedRows", "condition": "id > 0"}), json!({"where": "visits > 1"}));
    let orphaned = counted(
        json!({"kind": "orphanedRows", "columns": ["id"], "at": ["visits"]}),
        json!({"compareTo": {"table": "segments"}}),
    );
    let strict = json!({"columns": ["id"], "to": "segments", "at": ["visits"], "severity": "error"});
    let condition =
        |filter: &str| ("/tables/0/conditions/-", json!({"name": "n", "condition": "id > 0", "where": filter}));
    let edits = [
        (&failed, condition("visits > 1"), "quality-warning-changed", "row-condition-added schema.orders.quality.n"),
        (&failed, condition("visits > 2"), "quality-rule-removed", "row-condition-added schema.orders.quality.n"),
        (
            &orphaned,
            ("/tables/0/references/-", strict),
            "quality-warning-changed",
            "reference-added schema.orders.columns.id.references",
        ),
    ];
    for (before, after, rule, added) in edits {
        let found = compare(&product(edited(std::slice::from_ref(before))), &product(edited(&[after])));
        let mut found: Vec<String> = found.iter().map(|change| format!("{} {}", change.rule.id, change.path)).collect();
        found.sort();
        assert_eq!(found, {
            let mut expected = vec![format!("{rule} schema.orders.quality.few"), added.to_owned()];
            expected.sort();
            expected
        });
    }
}

#[test]
fn service_levels() {
    let cases = [
        ("availability", json!("99%"), "sla-loosened sla.availability"),
        ("availability", json!("99.99%"), "sla-tightened sla.availability"),
        ("availability", json!("99.90"), "sla-restated sla.availability"),
        ("availability", json!(99.9), "sla-restated sla.availability"),
        ("availability", json!("high"), "sla-changed sla.availability"),
        ("availability", Value::Null, "sla-removed sla.availability"),
        ("freshness/within", json!("8h"), "sla-loosened sla.freshness"),
        ("freshness/within", json!("PT1H"), "sla-tightened sla.freshness"),
        ("freshness/within", json!("240m"), "sla-restated sla.freshness"),
        ("freshness", Value::Null, "sla-removed sla.freshness"),
        ("freshness/column", json!("orders.day"), "sla-changed sla.freshness.column"),
        ("retention", json!("1y"), "sla-loosened sla.retention"),
        ("retention", Value::Null, "sla-tightened sla.retention"),
        ("endOfSupport", json!("2028-01-01"), "sla-loosened sla.endOfSupport"),
        ("endOfSupport", json!("2031-01-01"), "sla-tightened sla.endOfSupport"),
        ("endOfSupport", Value::Null, "sla-tightened sla.endOfSupport"),
        ("custom", json!({"latency": "500ms"}), "sla-added sla.custom.latency"),
    ];
    for (key, value, expected) in cases {
        check(&[(&format!("/declared/sla/{key}"), value)], &[expected]);
    }
    let mut without = base();
    without["declared"]["sla"].as_object_mut().expect("levels").remove("endOfSupport");
    let found = compare(&product(without), &product(base()));
    assert_eq!(found[0].rule.id, "end-of-support-announced");
}

#[test]
fn what_a_standards_document_says_in_its_own_words() {
    let levels = "/declared/custom/odcs/slaProperties";
    check(&[(&format!("{levels}/0/value"), json!(9))], &["sla-changed custom.odcs.slaProperties.latency.value"]);
    check(&[(&format!("{levels}/0/id"), json!("x"))], &["metadata-changed custom.odcs.slaProperties.latency.id"]);
    check(&[(levels, Value::Null)], &["sla-removed custom.odcs.slaProperties.latency"]);
    let column = |odcs: Value| json!({"custom": {"odcs": odcs}});
    let at = format!("{COLUMN}/2/declared");
    let place = "schema.orders.columns.visits.custom.odcs";
    for (kept, rule, key) in [
        (json!({"physicalType": "integer"}), "metadata-changed", "physicalType"),
        (json!({"physicalType": "int(3)"}), "physical-type-changed", "physicalType"),
        (json!({"physicalName": "v"}), "physical-name-changed", "physicalName"),
        (json!({"logicalTypeOptions": {"pattern": "(?=x)"}}), "pattern-added", "logicalTypeOptions.pattern"),
        (json!({"logicalTypeOptions": {"timezone": true}}), "unclassified-change", "logicalTypeOptions.timezone"),
        (json!({"relationships": "x"}), "metadata-changed", "relationships"),
        (json!({"relationships": "x", "unread": ["relationships"]}), "reference-added", "relationships"),
        (json!({"businessName": "Visits"}), "description-changed", "businessName"),
        (json!({"examples": [1]}), "metadata-changed", "examples"),
    ] {
        check(&[(&at, column(kept))], &[&format!("{rule} {place}.{key}")]);
    }
    // The word follows the type.
    check(
        &[(&format!("{COLUMN}/2/type"), json!("long")), (&at, column(json!({"physicalType": "bigint"})))],
        &["type-widened schema.orders.columns.visits.type", &format!("metadata-changed {place}.physicalType")],
    );
    check(
        &[("/tables/0/declared", json!({"custom": {"odcs": {"physicalType": "view"}}}))],
        &["table-kind-changed schema.orders.custom.odcs.physicalType"],
    );
    check(&[("/tables/0/declared", json!({"custom": {"odcs": {"omit": ["x"]}}}))], &[]);
}

#[test]
fn rules_that_nothing_enforces() {
    let with = |rules: Value| {
        let mut value = base();
        value["tables"][0]["declared"] = json!({ "quality": rules });
        product(value)
    };
    let rule = |extra: Value| {
        let mut rule = json!({"name": "soda", "type": "custom", "engine": "soda", "implementation": "x"});
        rule.as_object_mut().expect("keys").extend(extra.as_object().expect("keys").clone());
        json!([rule])
    };
    let text = json!([{"type": "text", "description": "all is well"}]);
    for (before, after, expected) in [
        (json!([]), rule(json!({})), "quality-rule-added"),
        (rule(json!({})), json!([]), "quality-rule-removed"),
        (rule(json!({})), rule(json!({"implementation": "y"})), "quality-measure-changed"),
        (rule(json!({})), rule(json!({"schedule": "0 * * * *"})), "quality-rule-restated"),
        (rule(json!({})), rule(json!({"severity": "warning"})), "quality-severity-loosened"),
        (json!([]), text, "quality-warning-changed"),
    ] {
        let found = compare(&with(before), &with(after));
        assert_eq!(found.iter().map(|change| change.rule.id).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn ports_and_access() {
    let cases = [
        ("ports/1", Value::Null, "port-removed ports.events"),
        ("ports/1/tables", Value::Null, "port-widened ports.events.tables"),
        ("ports/1/tables", json!([]), "port-narrowed ports.events.tables"),
        ("ports/0/tables", json!(["orders"]), "port-narrowed ports.tables.tables"),
        ("ports/1/type", json!("amqp"), "port-changed ports.events.type"),
        ("ports/1/write", json!("audited"), "port-widened ports.events.write"),
        ("ports/-", json!({"name": "more", "type": "kafka"}), "port-added ports.more"),
        ("access/0", Value::Null, "role-removed access.analyst"),
        ("access/-", json!({"role": "ml"}), "role-added access.ml"),
        ("access/0/rows", Value::Null, "row-filter-removed access.analyst.rows"),
        ("access/0/rows", json!("false"), "row-filter-changed access.analyst.rows"),
        ("access/1/rows", json!("false"), "row-filter-added access.support.rows"),
        ("access/0/unmasked", Value::Null, "unmasked-narrowed access.analyst.unmasked"),
        ("access/0/unmasked", json!(["email", "id"]), "unmasked-widened access.analyst.unmasked"),
        ("access/1/tables", json!(["orders"]), "role-narrowed access.support.tables"),
        ("access/1/tables", Value::Null, "role-widened access.support.tables"),
        ("access/0/expires", json!("30d"), "role-narrowed access.analyst.expires"),
        ("access/0/expires", json!("1y"), "role-widened access.analyst.expires"),
        ("access/0/approvers", json!(["x"]), "role-terms-changed access.analyst.approvers"),
        ("access/0/approvals", json!(2), "role-terms-changed access.analyst.approvals"),
        ("access/0/approvals", json!(1), "metadata-changed access.analyst.approvals"),
        ("access/0/columns", json!(["id"]), "visible-columns-narrowed access.analyst.columns"),
        ("access/1/columns", json!(["id"]), "visible-columns-narrowed access.support.columns"),
        ("access/1/columns", Value::Null, "visible-columns-widened access.support.columns"),
        ("access/1/columns", json!(["id", "email", "x"]), "visible-columns-widened access.support.columns"),
        ("access/1/columns", json!(["id", "x"]), "visible-columns-narrowed access.support.columns"),
        ("access/1/columns", json!(["email", "id"]), "metadata-changed access.support.columns"),
        ("custom/odcs/servers/0/location", json!("s3://d"), "server-changed custom.odcs.servers.prod.location"),
        ("custom/odcs/servers/0/server", json!("dev"), "server-removed custom.odcs.servers.prod"),
    ];
    for (key, value, expected) in cases {
        let found = changes(&[(&format!("/declared/{key}"), value)]);
        let first = found.first().expect("a change");
        assert_eq!(format!("{} {}", first.rule.id, first.path), expected, "{key}");
        assert!(found.len() == 1 || key == "custom/odcs/servers/0/server", "{key}: {found:?}");
    }
}

#[test]
fn what_protects_people_needs_no_major_version() {
    let column = |rest: &str| format!("{COLUMN}/{rest}");
    let cases = [
        (column("1/pii"), Value::Null, "pii-withdrawn", false),
        (column("2/pii"), json!(true), "pii-declared", true),
        (column("1/mask"), Value::Null, "mask-removed", false),
        (column("1/mask"), json!("none"), "mask-removed", false),
        (column("1/mask"), json!("redact"), "mask-changed", true),
        (column("2/mask"), json!("hash"), "mask-added", true),
        (column("5/declared/classification"), json!("restricted"), "classification-raised", true),
        (column("5/declared/classification"), json!("internal"), "classification-lowered", false),
        (column("5/declared/classification"), json!("secret"), "classification-changed", true),
        // Without a word of its own a column is classified as the product is.
        (column("5/declared/classification"), Value::Null, "classification-lowered", false),
        (column("2/declared"), json!({"classification": "internal"}), "metadata-changed", false),
        (column("2/declared"), json!({"classification": "confidential"}), "classification-raised", true),
        (column("2/declared"), json!({"declassify": "harmless"}), "declassify-changed", true),
        ("/declared/classification".to_owned(), json!("confidential"), "classification-raised", true),
        ("/declared/classification".to_owned(), Value::Null, "classification-lowered", false),
    ];
    for (pointer, value, expected, protects) in cases {
        let found = changes(&[(&pointer, value)]);
        let [change] = found.as_slice() else { panic!("{pointer}: {found:?}") };
        assert_eq!((change.rule.id, change.protects()), (expected, protects), "{pointer}");
        assert!(change.bump() <= Bump::Minor, "{pointer}");
    }
}

#[test]
fn every_rule_is_named_once_and_its_bump_fits_its_direction() {
    let mut ids: Vec<&str> = ALL.iter().map(|rule| rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ALL.len());
    for rule in ALL {
        assert!(rule.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", rule.id);
        assert!(!rule.about.is_empty() && !rule.about.ends_with('.'), "{}", rule.id);
        match rule.direction {
            Direction::Loosens if rule.protects => assert_eq!(rule.bump, Bump::Minor, "{}", rule.id),
            Direction::Loosens => assert_eq!(rule.bump, Bump::Major, "{}", rule.id),
            Direction::Tightens => assert_eq!(rule.bump, Bump::Minor, "{}", rule.id),
            Direction::Neutral => assert!(rule.bump <= Bump::Minor, "{}", rule.id),
            Direction::Undetermined => assert!(rule.bump >= Bump::Review || rule.protects, "{}", rule.id),
        }
    }
}
