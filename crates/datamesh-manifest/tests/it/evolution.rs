//! Changes of data contracts, judged as the pairs of `specs/odcs` judge them.

use std::collections::BTreeSet;

use datamesh_core::DataProduct;
use datamesh_core::evolution::{Bump, ChangeKind, ContractChange, compare};
use datamesh_manifest::standards::read_contract;
use serde_json::Value;

use crate::odcs::specs;

#[track_caller]
fn read(name: &str, text: &str) -> DataProduct {
    read_contract(name, text.as_bytes()).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"))
}

/// Pairs whose verdict here is another than the oracle's, and why: what protects people needs no new major version.
const EXCEPTIONS: [&str; 2] = ["classification-raised", "classification-added"];

/// Pairs in which nothing of the contract differs: when a rule is checked and the version of the document's format are
/// no part of it. They need no step at all, which a patch is enough for.
const NO_CHANGE: [&str; 2] = ["quality-schedule-changed", "api-version-upgrade"];

#[test]
fn every_judged_pair() {
    let Some(specs) = specs() else { return };
    let folder = specs.join("odcs/breaking-oracle");
    let base = std::fs::read_to_string(folder.join("base.odcs.yaml")).unwrap();
    let cases = std::fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        count += 1;
        // JSON is YAML.
        let side = |key: &str| match &case[key] {
            Value::Null => read(id, &base),
            document => read(id, &document.to_string()),
        };
        let changes = compare(&side("v1"), &side("v2"));
        let found = changes.iter().map(ContractChange::bump).max();
        let proposed = case["proposed_bump"].as_str().unwrap();
        let agrees = match found {
            Some(Bump::Minor) if EXCEPTIONS.contains(&id) => {
                proposed == "major" && changes.iter().any(ContractChange::protects)
            }
            None => NO_CHANGE.contains(&id) && proposed == "patch",
            Some(bump) => bump.as_str() == proposed,
        };
        if !agrees {
            let changes: Vec<String> =
                changes.iter().map(|change| format!("{} {} {}", change.bump(), change.rule.id, change.path)).collect();
            wrong.push(format!("{id}: {found:?} and not {proposed}: {changes:#?}"));
        }
    }
    assert_eq!(count, 72);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A change as a change log of data contracts names it: what came, went or was changed, down to the column. Ours are
/// finer (a column's type and description are changes of their own), and the version is what changes are judged by.
fn logged(before: &DataProduct, after: &DataProduct) -> BTreeSet<(ChangeKind, String)> {
    let mut log: BTreeSet<_> = compare(before, after)
        .iter()
        .map(|change| {
            let segments = change.path.segments();
            let whole = match segments {
                [schema, table] if schema == "schema" => Some(format!("schema.{table}")),
                [_, table, columns, column] if columns == "columns" => {
                    Some(format!("schema.{table}.properties.{column}"))
                }
                _ => None,
            };
            match (whole, segments) {
                (Some(whole), _) => (change.kind(), whole),
                (None, [_, table, columns, column, ..]) if columns == "columns" => {
                    (ChangeKind::Updated, format!("schema.{table}.properties.{column}"))
                }
                (None, [sla, level, ..]) if sla == "sla" => (ChangeKind::Updated, format!("slaProperties.{level}")),
                _ => (change.kind(), change.path.to_string()),
            }
        })
        .collect();
    if before.version != after.version {
        log.insert((ChangeKind::Updated, "version".to_owned()));
    }
    log
}

#[test]
fn the_change_log_of_two_contracts() {
    let Some(specs) = specs() else { return };
    let folder = specs.join("odcs/changelog-fixtures");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    // The fixtures name a version that is older than what they use (`logicalType: timestamp` is of 3.1).
    let side = |name: &str| read(name, &text(name).replace("apiVersion: v3.0.2", "apiVersion: v3.2.0"));
    let found = logged(&side("changelog_integration_v1.yaml"), &side("changelog_integration_v2.yaml"));
    // The first table of the log: `│ Added │ schema.customers │`.
    let golden = text("golden_changelog_text.txt");
    let summary = golden.split("Details").next().unwrap();
    let expected: BTreeSet<(ChangeKind, String)> = summary
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('│').map(str::trim).skip(1);
            let kind = match cells.next()? {
                "Added" => ChangeKind::Added,
                "Removed" => ChangeKind::Removed,
                "Updated" => ChangeKind::Updated,
                _ => return None,
            };
            Some((kind, cells.next()?.to_owned()))
        })
        .collect();
    assert_eq!(expected.len(), 8);
    assert_eq!(found, expected);
}

#[test]
fn every_part_of_a_contract_that_the_change_log_tells() {
    let Some(specs) = specs() else { return };
    let folder = specs.join("odcs/changelog-fixtures");
    // The fixtures name a version older than what they use, and leave out what it demands: the query of an SQL rule, the
    // account and schema of a server.
    let side = |name: &str| {
        let text =
            std::fs::read_to_string(folder.join(name)).unwrap().replace("apiVersion: v3.0.2", "apiVersion: v3.2.0");
        let mended: Vec<String> = text
            .lines()
            .map(|line| {
                let missing = match line.trim() {
                    "type: sql" => "query: SELECT count(*) FROM {object}",
                    "type: snowflake" => "account: a\n    schema: s",
                    _ => return line.to_owned(),
                };
                let indent = line.len() - line.trim_start().len();
                format!("{line}\n{}{missing}", " ".repeat(indent))
            })
            .collect();
        read(name, &mended.join("\n"))
    };
    let changes = compare(&side("changelog_unit_v1.yaml"), &side("changelog_unit_v2.yaml"));
    // The fixture's own remarks, as places of ours; a version is what changes are judged by.
    for expected in [
        "updated name",
        "updated status",
        "updated domain",
        "updated description",
        "updated price",
        "updated sla.availability",
        "added access.viewer",
        "updated schema.orders.custom.domain",
        "updated schema.orders.quality.row_count",
        "updated schema.orders.columns.order_id.description",
        "removed schema.orders.columns.customer_id",
        "updated schema.orders.columns.order_date.type",
        "updated schema.orders.columns.total_amount.required",
        "updated schema.orders.quality.positive",
        "updated schema.orders.columns.total_amount.custom.pii",
        "added schema.orders.columns.region",
        "added schema.customers",
        "updated custom.classification",
        // Below these the document's own words are kept.
        "custom.odcs.description",
        "custom.odcs.servers.production",
        "custom.odcs.team",
    ] {
        let told = |change: &ContractChange| format!("{:?} {}", change.kind(), change.path).to_lowercase();
        assert!(changes.iter().any(|change| told(change).contains(expected)), "{expected}: {changes:#?}");
    }
}
