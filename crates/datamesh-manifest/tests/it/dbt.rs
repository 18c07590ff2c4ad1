//! dbt projects as manifests. `dbt-shop.json` is written here, in the form of dbt 1.10.

use datamesh_core::{Diagnostic, Level};
use datamesh_manifest::standards::Tree;
use datamesh_manifest::standards::dbt::{self, Imported};

use crate::read_in;

const SHOP: &str = include_str!("../manifests/dbt-shop.json");

fn import(text: &str, select: &[&str]) -> Result<Imported, Vec<Diagnostic>> {
    let select: Vec<String> = select.iter().map(|name| (*name).to_owned()).collect();
    dbt::import("manifest.json", text.as_bytes(), &select)
}

fn at<'t>(tree: &'t Tree, path: &str) -> Option<&'t Tree> {
    path.split('/').try_fold(tree, |node, step| match node {
        Tree::List(items) => items.iter().find(|item| item.get("name").and_then(Tree::as_text) == Some(step)),
        node => node.get(step),
    })
}

fn json(tree: &Tree, path: &str) -> serde_json::Value {
    at(tree, path).map_or(serde_json::Value::Null, |node| serde_json::from_str(&node.to_json()).unwrap())
}

#[test]
fn a_project_becomes_a_manifest() {
    insta::assert_snapshot!(import(SHOP, &[]).unwrap().manifest.to_yaml());
}

#[test]
fn what_is_not_mapped_is_told() {
    let remarks = import(SHOP, &[]).unwrap().remarks;
    let told: Vec<String> = remarks.iter().map(|remark| format!("{} {}", remark.id, remark.message)).collect();
    insta::assert_snapshot!(told.join("\n"));
    assert!(remarks.iter().all(|remark| remark.level != Level::Error));
}

#[test]
fn the_draft_is_accepted_once_the_gaps_are_filled() {
    let yaml = import(SHOP, &[]).unwrap().manifest.to_yaml();
    let (product, diagnostics) = read_in(yaml.as_bytes(), Some("sales"));
    assert!(product.is_none());
    let errors: Vec<_> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    assert_eq!(errors.iter().map(|error| error.id).collect::<Vec<_>>(), ["invalid-type"], "{errors:#?}\n{yaml}");
    let filled = yaml.replace("TODO dbt says geography", "string");
    let (product, diagnostics) = read_in(filled.as_bytes(), Some("sales"));
    let product = product.unwrap_or_else(|| panic!("{diagnostics:#?}"));
    assert_eq!(product.owner, "customer-team");
    let names: Vec<&str> = product.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["customers", "orders"]);
    // The columns keep their order.
    let columns: Vec<&str> = product.tables[1].columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns[..4], ["order_id", "customer_id", "line", "status"]);
}

#[test]
fn no_test_is_lost() {
    let document: serde_json::Value = serde_json::from_str(SHOP).unwrap();
    let tests = document["nodes"].as_object().unwrap().values().filter(|node| node["resource_type"] == "test");
    let imported = import(SHOP, &[]).unwrap();
    let yaml = imported.manifest.to_yaml();
    let told: String = imported.remarks.iter().map(|remark| remark.message.clone()).collect();
    let mut lost = Vec::new();
    for test in tests {
        let (id, name) = (test["unique_id"].as_str().unwrap(), test["name"].as_str().unwrap());
        // A kept test is told; one that became a rule carries its name; the others are keys of a column or table.
        if yaml.contains(id) {
            assert!(told.contains(id), "{id} is kept in silence");
        } else if !yaml.contains(name) {
            lost.push(name.to_owned());
        }
    }
    lost.sort();
    let keys = [
        "accepted_values_orders_line",
        "accepted_values_orders_status",
        "dbt_expectations_expect_column_to_exist_orders_note",
        "dbt_expectations_expect_column_value_lengths_to_be_between_orders_code",
        "dbt_expectations_expect_column_values_to_match_regex_orders_code",
        "dbt_utils_accepted_range_orders_amount",
        "dbt_utils_not_empty_string_customers_country",
        "dbt_utils_unique_combination_of_columns_orders",
        "not_null_orders_order_id",
        "relationships_orders_customer_id",
        "unique_customers_email",
        "unique_orders_order_id",
    ];
    assert_eq!(lost, keys);
}

#[test]
fn tests_become_keys_where_they_admit_no_faulty_row() {
    let manifest = import(SHOP, &[]).unwrap().manifest;
    let column = |name: &str| json(&manifest, &format!("dataProduct/schema/orders/columns/{name}"));
    assert_eq!(column("order_id")["required"], true);
    assert_eq!(column("order_id")["unique"], true);
    assert_eq!(column("status")["enum"], serde_json::json!(["placed", "shipped", "it's late"]));
    assert_eq!(column("customer_id")["references"], "customers.customer_id");
    assert_eq!(column("amount")["exclusiveMinimum"], 0);
    assert_eq!(column("code")["pattern"], "^[A-Z]{2}[0-9]+$");
    assert_eq!(column("note")["required"], serde_json::Value::Null);
    assert_eq!(json(&manifest, "dataProduct/schema/orders/unique"), serde_json::json!([["order_id", "line"]]));
    let customer = |name: &str| json(&manifest, &format!("dataProduct/schema/customers/columns/{name}"));
    assert_eq!(customer("customer_id")["primaryKey"], true);
    assert_eq!(customer("country")["required"], true);
    assert_eq!(customer("email")["pii"], true);
    assert_eq!(customer("email")["maxLength"], 255);
}

#[test]
fn tests_that_tolerate_rows_become_rules() {
    let manifest = import(SHOP, &[]).unwrap().manifest;
    let rule = |name: &str| json(&manifest, &format!("dataProduct/schema/orders/quality/{name}"));
    assert_eq!(rule("not_null_orders_note")["severity"], "warning");
    assert_eq!(rule("not_null_orders_note")["mustBe"], 0);
    assert_eq!(rule("not_null_orders_amount")["condition"], "\"amount\" IS NOT NULL");
    assert_eq!(rule("not_null_orders_amount")["where"], "status = 'shipped'");
    assert_eq!(rule("not_null_orders_discount")["fail"], "> 100");
    assert_eq!(rule("not_null_orders_discount")["warn"], ">10");
    assert_eq!(rule("dbt_utils_not_null_proportion_orders_note")["mustBeLessOrEqualTo"], 5);
    assert_eq!(rule("dbt_utils_recency_orders")["unit"], "days");
    let sql = rule("no_shipped_without_amount")["sql"].as_str().unwrap().to_owned();
    assert!(sql.contains("select * from {object} where") && !sql.contains(';'), "{sql}");
}

#[test]
fn a_relationship_that_tolerates_rows_counts_them() {
    let reference = |config: &str| {
        let mut shop: serde_json::Value = serde_json::from_str(SHOP).unwrap();
        // A foreign key would say it of every row.
        shop["nodes"]["model.shop.orders"]["constraints"] = serde_json::json!([]);
        let test = &mut shop["nodes"]["test.shop.relationships_orders_customer_id.66cee76d3f"]["config"];
        let config: serde_json::Value = serde_json::from_str(config).unwrap();
        config.as_object().unwrap().iter().for_each(|(key, value)| test[key] = value.clone());
        let manifest = import(&shop.to_string(), &[]).unwrap().manifest;
        let filled = manifest.to_yaml().replace("TODO dbt says geography", "string");
        let (product, diagnostics) = read_in(filled.as_bytes(), Some("sales"));
        assert!(product.is_some(), "{diagnostics:?}");
        json(&manifest, "dataProduct/schema/orders/columns/customer_id")["references"].clone()
    };
    let to = "customers.customer_id";
    let name = "relationships_orders_customer_id";
    for (config, expected) in [
        (r#"{"where": "line = 1"}"#, serde_json::json!({"to": to, "where": "line = 1"})),
        (r#"{"severity": "warn"}"#, serde_json::json!({"to": to, "severity": "warning"})),
        (r#"{"severity": "warn", "warn_if": "> 5"}"#, serde_json::json!({"to": to, "name": name, "warn": "> 5"})),
        (
            r#"{"error_if": "> 10", "warn_if": "> 5", "where": "line = 1"}"#,
            serde_json::json!({"to": to, "name": name, "where": "line = 1", "warn": "> 5", "fail": "> 10"}),
        ),
        (r#"{"warn_if": "> 5"}"#, serde_json::json!(to)),
    ] {
        assert_eq!(reference(config), expected, "{config}");
    }
}

#[test]
fn models_are_selected_by_name() {
    let names = |select: &[&str]| -> Vec<String> {
        let manifest = import(SHOP, select).unwrap().manifest;
        let tables = at(&manifest, "dataProduct/schema").and_then(Tree::as_list).unwrap().to_vec();
        tables.iter().map(|table| table.get("name").and_then(Tree::as_text).unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["orders"]), ["orders"]);
    assert_eq!(names(&["model.shop.stg_customers", "orders"]), ["stg_customers", "orders"]);
    let manifest = import(SHOP, &["orders"]).unwrap();
    // The other table is not there, so nothing refers to it.
    assert_eq!(
        json(&manifest.manifest, "dataProduct/schema/orders/columns/customer_id")["references"],
        serde_json::Value::Null
    );
    assert!(
        manifest
            .remarks
            .iter()
            .any(|remark| remark.message.contains("`model.shop.customers` is no table of the product"))
    );
    let refused = import(SHOP, &["order"]).unwrap_err();
    assert_eq!(refused[0].to_string(), "manifest.json:0:0: there is no model `order` (help: did you mean `orders`?)");
}

#[test]
fn an_owner_that_models_disagree_on_is_left_to_do() {
    let other = SHOP.replace("@customer-team", "another-team");
    let manifest = import(&other, &[]).unwrap().manifest;
    assert_eq!(json(&manifest, "dataProduct/owner"), "TODO the accountable team");
    let (_, diagnostics) = read_in(manifest.to_yaml().as_bytes(), Some("sales"));
    assert!(diagnostics.iter().any(|diagnostic| diagnostic.id == "owner-missing"));
    // The owner of a model's group answers for it.
    let group =
        SHOP.replace("\"owner\": \"customer-team\"", "\"x\": 1").replace("\"@customer-team\"", "\"sales-team\"");
    assert_eq!(json(&import(&group, &[]).unwrap().manifest, "dataProduct/owner"), "sales-team");
}

#[test]
fn older_manifests_are_read() {
    for version in ["v10", "v11"] {
        let older = SHOP.replace("manifest/v12.json", &format!("manifest/{version}.json"));
        let older = older.replace("\"attached_node\"", "\"unattached_node\"");
        let manifest = import(&older, &[]).unwrap().manifest;
        assert_eq!(json(&manifest, "dataProduct/schema/orders/columns/order_id")["unique"], true, "{version}");
    }
}

#[test]
fn what_is_no_manifest_of_dbt_is_refused() {
    let cases = [
        ("", "not-dbt", "this is no dbt manifest"),
        ("{\"metadata\": ", "not-dbt", "this is no dbt manifest"),
        ("[]", "not-dbt", "this is no dbt manifest"),
        ("{}", "not-dbt", "it has no `metadata.dbt_schema_version`"),
        ("{\"nodes\": {\"a\": 5}}", "not-dbt", "`a` is not an object"),
        (
            "{\"metadata\": {\"dbt_schema_version\": \"https://schemas.getdbt.com/dbt/catalog/v1.json\"}, \"nodes\": {}}",
            "not-dbt",
            "is no dbt manifest",
        ),
        (
            "{\"metadata\": {\"dbt_schema_version\": \"https://schemas.getdbt.com/dbt/manifest/v9.json\"}, \"nodes\": {}}",
            "unsupported-version",
            "version 9",
        ),
        (
            "{\"metadata\": {\"dbt_schema_version\": \"https://schemas.getdbt.com/dbt/manifest/v12.json\"}}",
            "not-dbt",
            "no `nodes`",
        ),
        (
            "{\"metadata\": {\"dbt_schema_version\": \"https://schemas.getdbt.com/dbt/manifest/v12.json\"}, \"nodes\": {}}",
            "no-models",
            "no model that is built",
        ),
    ];
    for (text, id, message) in cases {
        let refused = import(text, &[]).unwrap_err();
        assert_eq!(refused[0].id, id, "{text}");
        assert!(refused[0].message.contains(message), "{}", refused[0]);
        assert!(refused[0].help.is_some());
    }
    let deep = format!("{{\"nodes\": {}", "[".repeat(100_000));
    assert_eq!(import(&deep, &[]).unwrap_err()[0].id, "not-dbt");
}

/// Any value of another kind anywhere makes an error or a draft, never a panic.
#[test]
fn odd_values_are_survived() {
    let document: serde_json::Value = serde_json::from_str(SHOP).unwrap();
    let mut places = Vec::new();
    walk(&document, String::new(), &mut places);
    let nodes = places.iter().filter(|place| place.starts_with("/nodes/") || place.starts_with("/metadata"));
    for place in nodes.step_by(5) {
        for odd in [
            serde_json::json!(null),
            serde_json::json!(["x"]),
            serde_json::json!({"{{": -1.5e300}),
            serde_json::json!("{{ '"),
        ] {
            let mut other = document.clone();
            *other.pointer_mut(place).unwrap() = odd;
            if let Ok(imported) = import(&other.to_string(), &[]) {
                read_in(imported.manifest.to_yaml().as_bytes(), Some("sales"));
            }
        }
    }
}

fn walk(value: &serde_json::Value, place: String, places: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                walk(value, format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| walk(item, format!("{place}/{index}"), places));
        }
        _ => {}
    }
    if !place.is_empty() {
        places.push(place);
    }
}
