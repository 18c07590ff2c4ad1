//! The Open Data Contract Standard, both ways, against its own files where they are on this machine.

use std::path::{Path, PathBuf};

use datamesh_manifest::standards::odcs::{self, Version};
use datamesh_manifest::standards::tree::{self, Map};
use datamesh_manifest::standards::{Standard, Tree, import, read_contract};

use crate::{ARTICLE, REFERENCE};

/// The standards' own files; `None` after a loud word where they are not on this machine.
pub(crate) fn specs() -> Option<PathBuf> {
    let folder = match std::env::var_os("DATAMESH_SPECS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/specs"),
    };
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: the standards' files are not at {}; CI has them", folder.display());
    None
}

/// All files below `folder` whose name ends so, sorted.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} below {}", folder.display());
    found
}

pub(crate) fn parse(text: &str) -> Tree {
    match tree::read("test", text.as_bytes()) {
        Ok((_, _, tree)) => tree,
        Err(diagnostics) => panic!("{diagnostics:?}\n{text}"),
    }
}

/// The manifest, after a trip through its own text: what a user would have in a file.
pub(crate) fn imported(name: &str, text: &str) -> Tree {
    match import(Standard::Odcs, name, text.as_bytes()) {
        Ok(imported) => parse(&imported.manifest.to_yaml()),
        Err(diagnostics) => panic!("{name}: {diagnostics:#?}"),
    }
}

/// The contract, after a trip through its own text.
fn exported(manifest: &Tree) -> Tree {
    parse(&odcs::export(manifest, None).unwrap_or_else(|why| panic!("{why}\n{}", manifest.to_yaml())).to_yaml())
}

/// Where two trees differ: `schema[0].name`, sorted.
pub(crate) fn differences(one: &Tree, other: &Tree) -> Vec<String> {
    fn walk(path: &str, one: &Tree, other: &Tree, found: &mut Vec<String>) {
        match (one, other) {
            (Tree::Map(one), Tree::Map(other)) => {
                let mut keys: Vec<&str> = one.keys().chain(other.keys()).collect();
                keys.sort_unstable();
                keys.dedup();
                for key in keys {
                    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    match (one.get(key), other.get(key)) {
                        (Some(one), Some(other)) => walk(&path, one, other, found),
                        (Some(value), None) => found.push(format!("{path} is gone: {}", value.to_yaml().trim())),
                        (None, Some(value)) => found.push(format!("{path} is new: {}", value.to_yaml().trim())),
                        (None, None) => {}
                    }
                }
            }
            (Tree::List(one), Tree::List(other)) if one.len() == other.len() => {
                for (at, (one, other)) in one.iter().zip(other).enumerate() {
                    walk(&format!("{path}[{at}]"), one, other, found);
                }
            }
            _ if one == other => {}
            _ => found.push(format!("{path}: {} -> {}", one.to_yaml().trim(), other.to_yaml().trim())),
        }
    }
    let mut found = Vec::new();
    walk("", &one.normalised(), &other.normalised(), &mut found);
    found
}

fn schemas(specs: &Path) -> Vec<(&'static str, jsonschema::Validator)> {
    ["3.0.2-strict", "3.1.0", "3.2.0"]
        .into_iter()
        .map(|version| {
            let path = specs.join(format!("odcs/schema/odcs-json-schema-v{version}.json"));
            let schema = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (version.trim_end_matches("-strict"), jsonschema::validator_for(&schema).unwrap())
        })
        .collect()
}

fn json(tree: &Tree) -> serde_json::Value {
    serde_json::from_str(&tree.to_json()).unwrap()
}

fn assert_valid(schemas: &[(&str, jsonschema::Validator)], contract: &Tree, name: &str) {
    let said = contract.get("apiVersion").and_then(Tree::as_text).unwrap_or_default();
    let version = if said.starts_with("v3.0") { "3.0.2" } else { said.trim_start_matches('v') };
    // Some official examples name an older version than they use: what comes back of them is what they were.
    if schemas.iter().any(|(known, schema)| *known >= version && schema.is_valid(&json(contract))) {
        return;
    }
    let (_, schema) = schemas.iter().find(|(known, _)| *known == version).unwrap();
    let problems: Vec<_> = schema.iter_errors(&json(contract)).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(problems.is_empty(), "{name}: {problems:#?}\n{}", contract.to_yaml());
}

#[test]
fn every_example_comes_back_as_it_was() {
    let Some(specs) = specs() else { return };
    let schemas = schemas(&specs);
    for path in files(&specs.join("odcs/examples"), ".odcs.yaml") {
        let (name, text) = (path.display().to_string(), std::fs::read_to_string(&path).unwrap());
        let manifest = imported(&name, &text);
        let contract = exported(&manifest);
        let found = differences(&parse(&text), &contract);
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
        assert_valid(&schemas, &contract, &name);
        // Once more: what an import makes of an export is the same manifest.
        let again = imported(&name, &contract.to_yaml());
        assert_eq!(differences(&manifest, &again), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn every_negative_example_is_refused_at_its_place() {
    let Some(specs) = specs() else { return };
    let mut told = String::new();
    for path in files(&specs.join("odcs/negative"), ".odcs.yaml") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Err(diagnostics) = import(Standard::Odcs, &name, &std::fs::read(&path).unwrap()) else {
            panic!("{name} is accepted");
        };
        for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
            assert!(diagnostic.help.is_some() && diagnostic.location.line > 0, "{name}: {diagnostic}");
            told.push_str(&format!(
                "{name}:{}: [{}] {}\n",
                diagnostic.location.line, diagnostic.id, diagnostic.message
            ));
        }
    }
    // The files' names and places are facts; no text of theirs is kept.
    insta::assert_snapshot!("odcs_negative", told);
}

/// Our checks against the official schemas, on documents that are broken in one place each.
#[test]
fn documents_broken_in_one_place_are_judged_as_the_schemas_do() {
    let Some(specs) = specs() else { return };
    let schemas = schemas(&specs);
    let mut judged = [0, 0];
    for path in files(&specs.join("odcs/examples/v3.2.0"), ".odcs.yaml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let original = parse(&text);
        for broken in mutations(&original) {
            for (version, schema) in &schemas[1..] {
                let mut contract = broken.as_map().cloned().unwrap();
                if contract.contains("apiVersion") {
                    contract.put("apiVersion", format!("v{version}"));
                }
                let contract = Tree::Map(contract);
                // A later version's rules are as good.
                let later = schemas.iter().filter(|(later, _)| later >= version);
                let valid = later.clone().any(|(_, schema)| schema.is_valid(&json(&contract)));
                let text = contract.to_yaml();
                let (mut document, node, _) = tree::read("broken", text.as_bytes()).unwrap();
                let ours = odcs::check_document(&mut document, &node);
                judged[usize::from(valid)] += 1;
                assert_eq!(
                    ours.is_some(),
                    valid,
                    "{} under {version}: {:?} against {:?}\n{text}",
                    path.display(),
                    document.finish().iter().map(ToString::to_string).collect::<Vec<_>>(),
                    schema
                        .iter_errors(&json(&contract))
                        .map(|e| format!("{}: {e}", e.instance_path()))
                        .collect::<Vec<_>>(),
                );
            }
        }
    }
    assert!(judged[0] > 500 && judged[1] > 100, "{judged:?}");
}

/// The document with one key gone, one key more, or one value of another kind, at every place in turn.
fn mutations(tree: &Tree) -> Vec<Tree> {
    let mut found = Vec::new();
    match tree {
        Tree::Map(map) => {
            let mut more = map.clone();
            more.put("somethingElse", "x");
            found.push(Tree::Map(more));
            for (key, value) in map.iter() {
                let mut less = map.clone();
                less.take(key);
                found.push(Tree::Map(less));
                for changed in mutations(value) {
                    let mut other = map.clone();
                    other.put(key, changed);
                    found.push(Tree::Map(other));
                }
            }
        }
        Tree::List(items) => {
            found.push(Tree::text("a text"));
            for (at, item) in items.iter().enumerate().take(3) {
                for changed in mutations(item) {
                    let mut other = items.clone();
                    other[at] = changed;
                    found.push(Tree::List(other));
                }
            }
        }
        Tree::Text(_) => found.extend([Tree::Bool(true), Tree::text("some text"), Tree::Map(Map::new())]),
        Tree::Bool(_) | Tree::Number(_) => found.extend([Tree::text("a b"), Tree::number("-7").unwrap()]),
        Tree::Null => found.push(Tree::text("x")),
    }
    found
}

/// Changes what stands at a path such as `dataProduct.schema.0.columns.1.description`.
fn edit(tree: &Tree, path: &str, value: Option<Tree>) -> Tree {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    match tree {
        Tree::Map(map) => {
            let mut map = map.clone();
            match (rest, value) {
                (Some(rest), value) => {
                    let inner = map.get(head).unwrap_or_else(|| panic!("no {head}"));
                    let inner = edit(inner, rest, value);
                    map.put(head, inner);
                }
                (None, Some(value)) => map.put(head, value),
                (None, None) => _ = map.take(head),
            }
            Tree::Map(map)
        }
        Tree::List(items) => {
            let mut items = items.clone();
            let at: usize = head.parse().unwrap();
            items[at] = edit(&items[at], rest.unwrap_or_default(), value);
            Tree::List(items)
        }
        _ => panic!("nothing below {path}"),
    }
}

#[test]
fn an_edit_changes_that_field_of_the_export_and_no_other() {
    let Some(specs) = specs() else { return };
    let full = "odcs/examples/v3.2.0/all/full-example.odcs.yaml";
    let new = "odcs/examples/v3.2.0/all/all-new-fields-v3.2.0.odcs.yaml";
    let base = "odcs/breaking-oracle/base.odcs.yaml";
    let text = |text: &str| Some(Tree::text(text));
    let number = |text: &str| Tree::number(text);
    let cases: Vec<(&str, &str, Option<Tree>, &[&str])> = vec![
        (full, "description", text("Other views."), &["description.purpose: "]),
        (full, "version", text("1.2.0"), &["version: "]),
        (full, "status", text("deprecated"), &["status: "]),
        (full, "owner", text("other-team"), &["team.name: "]),
        (full, "name", text("other"), &["dataProduct: "]),
        (full, "tags", Some(Tree::List(vec![Tree::text("a")])), &["tags[0]: "]),
        (full, "price", text("8.50 USD/megabyte"), &["price.priceAmount: "]),
        (full, "sla.retention", text("5y"), &["slaProperties[4].value: "]),
        (base, "sla.endOfSupport", None, &["slaProperties: "]),
        (full, "access.1.role", text("someone"), &["roles[1].role: "]),
        (full, "access.2.approvers", Some(Tree::List(vec![Tree::text("x")])), &["roles[2].firstLevelApprovers: "]),
        (full, "schema.0.description", text("Else"), &["schema[0].description: "]),
        (full, "schema.0.name", text("tbl2"), &["schema[0].name: "]),
        (full, "schema.0.columns.1.description", text("Else"), &["schema[0].properties[1].description: "]),
        (full, "schema.0.columns.1.name", text("receiver"), &["schema[0].properties[1].name: "]),
        (full, "schema.0.columns.1.required", Some(Tree::Bool(true)), &["schema[0].properties[1].required: "]),
        (full, "schema.0.columns.1.classification", text("x"), &["schema[0].properties[1].classification: "]),
        (
            full,
            "schema.0.columns.1.type",
            text("long"),
            &["schema[0].properties[1].logicalType: ", "schema[0].properties[1].physicalType is gone: "],
        ),
        (full, "schema.0.quality.0.mustBeGreaterThan", number("5"), &["schema[0].quality[0].mustBeGreaterThan: "]),
        (full, "schema.0.quality.0.severity", text("warning"), &["schema[0].quality[0].severity: "]),
        (full, "schema.1.columns.0.unique", None, &["schema[1].properties[0].unique is gone: "]),
        (
            new,
            "schema.0.columns.1.enum",
            Some(Tree::List(vec![Tree::text("FR"), Tree::text("IT")])),
            &["schema[0].properties[1].enum[1].label is gone: ", "schema[0].properties[1].enum[1].value: "],
        ),
        (new, "schema.0.columns.0.minimum", number("0"), &["schema[0].properties[0].logicalTypeOptions is new: "]),
        (new, "schema.0.columns.4.description", text("x"), &["schema[0].properties[4].description: "]),
        (
            base,
            "schema.0.columns.1.maxLength",
            number("90"),
            &["schema[0].properties[1].logicalTypeOptions.maxLength: "],
        ),
        (base, "schema.0.columns.1.pattern", None, &["schema[0].properties[1].logicalTypeOptions.pattern is gone: "]),
        (base, "schema.0.columns.3.type", text("decimal(12,2)"), &["schema[0].properties[3].physicalType: "]),
        (base, "schema.0.columns.8.type", text("array<long>"), &["schema[0].properties[8].items.logicalType: "]),
        (base, "schema.0.quality.2.sql", text("SELECT 1"), &["schema[0].quality[2].query: "]),
        (base, "sla.freshness.within", text("8h"), &["slaProperties[0].value: "]),
        (base, "sla.availability", text("99%"), &["slaProperties[1].value: "]),
        (base, "contact.slack", text("#other"), &["support[0].channel: "]),
        (base, "price", text("2 EUR/GB"), &["price.priceAmount: "]),
        (base, "custom.costCenter", text("MKT"), &["customProperties is new: "]),
    ];
    for (file, path, value, expected) in cases {
        let original = parse(&std::fs::read_to_string(specs.join(file)).unwrap());
        let mut manifest = imported(file, &original.to_yaml());
        if path.starts_with("custom.") && manifest.get("dataProduct").unwrap().get("custom").is_none() {
            manifest = edit(&manifest, "dataProduct.custom", Some(Tree::Map(Map::new())));
        }
        let edited = edit(&manifest, &format!("dataProduct.{path}"), value);
        let found = differences(&original, &exported(&edited));
        let fits =
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, start)| found.starts_with(start));
        assert!(fits, "{file}: {path}: {found:#?}");
    }
}

#[test]
fn the_pairs_of_the_breaking_oracle_are_read() {
    let Some(specs) = specs() else { return };
    let base = std::fs::read_to_string(specs.join("odcs/breaking-oracle/base.odcs.yaml")).unwrap();
    let cases = std::fs::read_to_string(specs.join("odcs/breaking-oracle/cases.jsonl")).unwrap();
    let mut seen = 0;
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        for side in ["v1", "v2"] {
            let text = if case[side].is_null() { base.clone() } else { case[side].to_string() };
            let product = read_contract("contract", text.as_bytes());
            assert!(product.is_ok(), "{} {side}: {product:#?}", case["id"]);
            let manifest = imported("contract", &text);
            assert_eq!(differences(&parse(&text), &exported(&manifest)), Vec::<String>::new(), "{}", case["id"]);
            seen += 1;
        }
    }
    assert_eq!(seen, 144);
}

#[test]
fn the_fixtures_of_change_logs_are_read() {
    let Some(specs) = specs() else { return };
    for path in files(&specs.join("odcs/changelog-fixtures"), ".yaml") {
        let text = std::fs::read_to_string(&path).unwrap();
        // Some break the schema that they name: a query is missing.
        let valid = schemas(&specs).iter().any(|(_, schema)| schema.is_valid(&json(&parse(&text))));
        let product = read_contract("contract", text.as_bytes());
        assert_eq!(product.is_ok(), valid, "{}: {product:#?}", path.display());
        if valid {
            assert_eq!(differences(&parse(&text), &exported(&imported("c", &text))), Vec::<String>::new());
        }
    }
}

#[test]
fn our_manifests_come_back_and_their_exports_are_valid() {
    let schemas = specs().map(|specs| schemas(&specs));
    let mut manifests =
        vec![("article".to_owned(), ARTICLE.to_owned()), ("reference".to_owned(), REFERENCE.to_owned())];
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for path in files(&examples, "product.yaml") {
        manifests.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
    }
    for (name, text) in manifests {
        let manifest = parse(&text);
        for version in [None, Some(Version::V3_2_0)] {
            let contract = parse(&odcs::export(&manifest, version).unwrap().to_yaml());
            if let Some(schemas) = &schemas {
                assert_valid(schemas, &contract, &name);
            }
            if version.is_none() {
                let again = imported(&name, &contract.to_yaml());
                assert_eq!(differences(&manifest, &again), Vec::<String>::new(), "{name}\n{}", contract.to_yaml());
            }
        }
    }
}

/// What a product must say, and one column.
fn manifest(more: &str, column: &str) -> Tree {
    parse(&format!(
        "dataProduct:\n  name: x\n  version: 1.0.0\n  owner: lab-domain\n{more}  schema:\n    - name: t\n      columns:\n        - {{{column}}}\n"
    ))
}

#[test]
fn the_oldest_version_that_loses_nothing_is_written() {
    let version = |manifest: &Tree| exported(manifest).get("apiVersion").and_then(Tree::as_text).map(str::to_owned);
    for (column, expected) in [
        ("name: a, type: string", "v3.0.2"),
        ("name: a, type: int, exclusiveMinimum: 3", "v3.0.2"),
        ("name: a, type: timestamp", "v3.1.0"),
        ("name: a, type: int, quality: [{metric: nullValues, mustBe: 0}]", "v3.1.0"),
        ("name: a, type: string, enum: [x]", "v3.2.0"),
        ("name: a, type: 'map<string,long>'", "v3.2.0"),
    ] {
        assert_eq!(version(&manifest("", column)).as_deref(), Some(expected), "{column}");
    }
    let refused = odcs::export(&manifest("", "name: a, type: timestamp"), Some(Version::V3_0_2)).unwrap_err();
    assert!(refused.contains("3.0.2") && refused.contains("timestamp"), "{refused}");
}

#[test]
fn what_a_document_does_not_tell_is_a_todo_that_check_refuses() {
    let text = "apiVersion: v3.1.0\nkind: DataContract\nid: a b\nversion: latest\n";
    let found = import(Standard::Odcs, "c.yaml", text.as_bytes()).unwrap();
    let manifest = found.manifest.to_yaml();
    for line in ["owner: TODO", "version: TODO", "name: a_b", "type: TODO"] {
        assert!(manifest.contains(line), "{line}\n{manifest}");
    }
    let ids: Vec<_> = found.open.iter().map(|diagnostic| diagnostic.id).collect();
    assert_eq!(ids, ["invalid-version", "owner-missing", "no-columns", "invalid-type"], "{:#?}", found.open);
    assert_eq!(differences(&parse(text), &exported(&found.manifest)), Vec::<String>::new());
}

#[test]
fn documents_that_are_no_contract_are_refused() {
    for (text, id, line) in [
        ("apiVersion: v2.2.2\nkind: DataContract\n", "unknown-standard-version", 1),
        ("kind: DataContract\nid: 5\nversion: 1.0.0\napiVersion: v3.2.0\n", "wrong-shape", 2),
        ("a: [\n", "yaml-syntax", 2),
        ("apiVersion: v3.2.0\nkind: DataContract\nid: a\nid: b\nversion: 1.0.0\n", "duplicate-key", 4),
        ("- 1\n", "wrong-shape", 1),
    ] {
        let diagnostics = import(Standard::Odcs, "c.yaml", text.as_bytes()).unwrap_err();
        assert!(
            diagnostics.iter().any(|found| (found.id, found.location.line) == (id, line)),
            "{text}: {diagnostics:#?}"
        );
    }
    let unknown = read_contract("c.yaml", b"hello: world\n").unwrap_err();
    assert_eq!(unknown[0].id, "unknown-document");
}

#[test]
fn contracts_of_the_data_contract_specification_become_manifests() {
    let Some(specs) = specs() else { return };
    for path in files(&specs.join("datacontract-specification"), "datacontract.yaml") {
        let (name, bytes) = (path.display().to_string(), std::fs::read(&path).unwrap());
        let found = import(Standard::DataContract, &name, &bytes).unwrap_or_else(|all| panic!("{name}: {all:#?}"));
        let text = found.manifest.to_yaml();
        for open in &found.open {
            assert!(matches!(open.id, "owner-missing" | "no-domain" | "invalid-type"), "{name}: {open}\n{text}");
        }
        assert!(read_contract(&name, &bytes).is_ok(), "{name}: {:#?}", read_contract(&name, &bytes));
        // Nothing is lost on the way on to ODCS and back.
        let again = imported(&name, &exported(&found.manifest).to_yaml());
        assert_eq!(differences(&found.manifest, &again), Vec::<String>::new(), "{name}");
    }
    let orders = specs.join("datacontract-specification/v1.2.1/examples/orders-latest/datacontract.yaml");
    let found = import(Standard::DataContract, "orders", &std::fs::read(orders).unwrap()).unwrap();
    let text = found.manifest.to_yaml();
    for line in [
        "name: Orders_Latest",
        "owner: Checkout Team",
        "pii: true",
        "primaryKey: true",
        "availability: 99.9%",
        "noticePeriod: P3M",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let refused = import(
        Standard::DataContract,
        "c",
        b"dataContractSpecification: 1.2.1\nid: a\nmodels: {m: {fields: {f: {type: strnig}}}}\n",
    );
    let ids: Vec<_> = refused.unwrap_err().iter().map(|found| (found.id, found.location.line)).collect();
    assert_eq!(ids, [("missing-key", 1), ("unknown-word", 3)]);
}
