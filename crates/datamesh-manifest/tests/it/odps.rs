//! The Open Data Product Standard: official examples, its JSON Schemas, and the algebra of import and export.

use std::path::{Path, PathBuf};

use datamesh_manifest::standards::odps::{self, export, import};
use datamesh_manifest::standards::{Map, Tree};
use proptest::prelude::*;

use crate::{ARTICLE, REFERENCE, read_in};

/// The standards' files, where they are on this machine.
fn specs() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/specs");
    let folder = std::env::var_os("DATAMESH_SPECS").map_or(beside, PathBuf::from).join("odps-bitol");
    if !folder.is_dir() {
        eprintln!("!!! SKIPPED: the files of ODPS are not on this machine ({})", folder.display());
        return None;
    }
    Some(folder)
}

fn examples() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for edition in ["v1.0.0", "v1.1.0"] {
        let Some(folder) = specs() else { return found };
        for entry in std::fs::read_dir(folder.join("examples").join(edition)).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    assert_eq!(found.len(), 4);
    found
}

fn validators() -> Vec<(&'static str, jsonschema::Validator)> {
    let Some(folder) = specs() else { return Vec::new() };
    ["v1.0.0", "v1.1.0"]
        .into_iter()
        .map(|edition| {
            let text = std::fs::read(folder.join(format!("schema/odps-json-schema-{edition}.json"))).unwrap();
            let schema = serde_json::from_slice(&text).unwrap();
            (edition, jsonschema::validator_for(&schema).unwrap())
        })
        .collect()
}

fn read(text: &str) -> Tree {
    odps::read("product.odps.yaml", text.as_bytes()).unwrap()
}

fn manifest(text: &str) -> Tree {
    datamesh_manifest::standards::tree::read("product.yaml", text.as_bytes()).unwrap().2
}

fn text(tree: &Tree, key: &str) -> String {
    tree.get(key).and_then(Tree::as_text).unwrap_or_default().to_owned()
}

/// A document without its edition: the export's is the oldest that loses nothing.
fn without_edition(document: &Tree) -> Tree {
    let mut map = document.as_map().unwrap().clone();
    map.put("apiVersion", "");
    Tree::from(map).normalised()
}

fn assert_valid(document: &Tree) {
    let json = serde_json::from_str(&document.to_json()).unwrap();
    for (edition, validator) in validators() {
        if text(document, "apiVersion").as_str() <= edition {
            let errors: Vec<_> = validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{edition}: {errors:#?}\n{}", document.to_yaml());
        }
    }
    let again = odps::read("export", document.to_yaml().as_bytes());
    assert_eq!(again.map(|tree| tree.normalised()), Ok(document.normalised()));
}

#[test]
fn official_examples_come_back() {
    for (path, text) in examples() {
        let document = read(&text);
        let exported = export(&import(&document), None);
        assert_eq!(without_edition(&exported), without_edition(&document), "{path}");
        assert_valid(&exported);
    }
}

#[test]
fn the_edition_is_the_oldest_that_loses_nothing() {
    let editions: Vec<_> = examples()
        .iter()
        .map(|(path, yaml)| {
            let name = Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
            (name, text(&export(&import(&read(yaml)), None), "apiVersion"))
        })
        .collect();
    for (name, edition) in editions {
        let expected = if name.starts_with("deprecated") { "v1.1.0" } else { "v1.0.0" };
        assert_eq!(edition, expected, "{name}");
    }
    let with = |line: &str| {
        let yaml = format!("{ARTICLE}\n  {line}\n");
        text(&export(&manifest(&yaml), None), "apiVersion")
    };
    assert_eq!(with("price: free"), "v1.0.0");
    assert_eq!(with("type: aggregate"), "v1.1.0");
    assert_eq!(with("inputs: [a/b@^1]"), "v1.0.0");
    assert_eq!(with("inputs: [a/b]"), "v1.1.0");
}

#[test]
fn an_import_is_refused_until_it_has_a_schema() {
    for (path, text) in examples() {
        let yaml = import(&read(&text)).to_yaml();
        let (product, diagnostics) = read_in(yaml.as_bytes(), Some("sales"));
        assert!(product.is_none(), "{path}");
        let refused =
            |d: &datamesh_core::Diagnostic| d.id == "wrong-shape" && d.message.starts_with("`schema` must be a list");
        assert!(diagnostics.iter().any(refused), "{path}: {diagnostics:#?}");
        let known = ["wrong-shape", "owner-missing", "invalid-version", "domain-mismatch"];
        let other: Vec<_> = diagnostics.iter().filter(|d| d.is_error() && !known.contains(&d.id)).collect();
        assert!(other.is_empty(), "{path}: {other:#?}\n{yaml}");
    }
}

#[test]
fn what_an_example_says_is_where_the_manifest_says_it() {
    let document = "apiVersion: v1.1.0\nkind: DataProduct\nid: x-1\nname: Customer 360 View\nversion: v2.1.0\nstatus: proposed\ndomain: Customer Care\ntype: consumerAligned\ntenant: Example\ndescription: {purpose: One row, usage: Read it}\ntags: [gold]\ninputPorts:\n- {name: sales/crm, version: ^2, contractId: 'urn:datamesh:sales:crm'}\n- {name: legacy, version: 1.0.0, contractId: abc}\noutputPorts:\n- {name: tables, type: iceberg, version: 2.0.0, contractId: c-1, customProperties: [{property: tier, value: 1}]}\nteam: {name: customer-team, members: [{username: ada}]}\nsupport:\n- {channel: care@example.com, url: 'mailto:care@example.com', tool: email}\ncustomProperties:\n- {property: costCenter, value: MKT-4711}\n- {property: origin, value: here, description: Where}\n";
    insta::assert_snapshot!(import(&read(document)).to_yaml());
}

#[test]
fn the_articles_manifest_is_exported() {
    let exported = export(&manifest(ARTICLE), None);
    assert_valid(&exported);
    insta::assert_snapshot!(exported.to_yaml());
}

#[test]
fn our_own_manifests_come_back() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights/domains");
    let mut texts = vec![ARTICLE.to_owned(), REFERENCE.to_owned()];
    for domain in std::fs::read_dir(examples).unwrap() {
        for product in std::fs::read_dir(domain.unwrap().path().join("products")).unwrap() {
            texts.push(std::fs::read_to_string(product.unwrap().path().join("product.yaml")).unwrap());
        }
    }
    assert!(texts.len() > 6);
    for yaml in texts {
        let manifest = manifest(&yaml);
        for domain in [None, Some("weather")] {
            let exported = export(&manifest, domain);
            assert_valid(&exported);
            assert_eq!(import(&exported).normalised(), manifest.normalised());
        }
    }
}

/// Every leaf of a document by its path, and the empty objects and lists.
fn leaves(tree: &Tree, path: &str, found: &mut Vec<(String, String)>) {
    match tree {
        Tree::Map(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), found));
        }
        Tree::List(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, item)| leaves(item, &format!("{path}/{index}"), found));
        }
        leaf => found.push((path.to_owned(), leaf.to_json())),
    }
}

fn changed(one: &Tree, other: &Tree) -> Vec<String> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    leaves(one, "", &mut before);
    leaves(other, "", &mut after);
    let mut paths: Vec<String> = before
        .iter()
        .filter(|leaf| !after.contains(leaf))
        .chain(after.iter().filter(|leaf| !before.contains(leaf)))
        .map(|(path, _)| path.clone())
        .filter(|path| path != "/apiVersion")
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

#[test]
fn an_edited_field_is_the_only_one_that_changes() {
    for (path, yaml) in examples() {
        let document = read(&yaml);
        let before = import(&document);
        let edits: [(&str, Tree, &[&str]); 8] = [
            ("name", "renamed".into(), &["/name"]),
            ("version", "9.9.9".into(), &["/version"]),
            ("status", "retired".into(), &["/status"]),
            ("domain", "elsewhere".into(), &["/domain"]),
            ("owner", "another-team".into(), &["/team/name"]),
            ("description", "Something else".into(), &["/description/purpose"]),
            ("tags", vec!["fresh".into()].into(), &["/tags", "/tags/0", "/tags/1"]),
            ("inputs", vec!["sales/crm@^3".into()].into(), &["/inputPorts"]),
        ];
        for (key, value, expected) in edits {
            let mut product = before.get("dataProduct").and_then(Tree::as_map).unwrap().clone();
            product.put(key, value);
            let after = Tree::Map([("dataProduct".to_owned(), Tree::Map(product))].into_iter().collect());
            let paths = changed(&export(&before, None), &export(&after, None));
            assert!(!paths.is_empty(), "{path}: {key}");
            let only = |path: &String| expected.iter().any(|one| path == one || path.starts_with(&format!("{one}/")));
            assert!(paths.iter().all(only), "{path}: {key} changes {paths:?}");
        }
        // A port's own text changes that port's.
        let mut product = before.get("dataProduct").and_then(Tree::as_map).unwrap().clone();
        if let Some(Tree::List(ports)) = product.get_mut("ports")
            && let Some(Tree::Map(port)) = ports.first_mut()
        {
            port.put("description", "Edited");
        }
        let after = Tree::Map([("dataProduct".to_owned(), Tree::Map(product))].into_iter().collect());
        assert_eq!(changed(&export(&before, None), &export(&after, None)), ["/outputPorts/0/description"]);
    }
}

#[test]
fn an_edit_of_the_document_is_the_only_change_of_the_manifest() {
    let exported = export(&manifest(REFERENCE), None);
    let before = import(&exported);
    for (key, value, path) in [
        ("status", Tree::from("deprecated"), "/dataProduct/status"),
        ("name", "customers".into(), "/dataProduct/name"),
        ("tags", vec!["one".into()].into(), "/dataProduct/tags"),
    ] {
        let mut map = exported.as_map().unwrap().clone();
        map.put(key, value);
        let paths = changed(&before, &import(&map.into()));
        assert!(paths.iter().any(|changed| changed.starts_with(path)), "{key}: {paths:?}");
        let others: Vec<_> =
            paths.iter().filter(|changed| !changed.starts_with(path) && !changed.contains("/odps/id")).collect();
        assert!(key == "name" || others.is_empty(), "{key}: {others:?}");
    }
}

fn problems(text: &str) -> Vec<String> {
    match odps::read("p.odps.yaml", text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.iter().map(|d| format!("{} {d}", d.id)).collect(),
    }
}

#[test]
fn wrong_documents_are_refused_at_their_place() {
    let head = "apiVersion: v1.1.0\nkind: DataProduct\nid: x\n";
    let cases = [
        ("".to_owned(), "the file is empty"),
        ("- a\n".to_owned(), "1:1: the document must be an object, but this is a list"),
        ("kind: DataProduct\nid: x\n".to_owned(), "the document has no `apiVersion`"),
        ("apiVersion: v1.0.0\nkind: DataProduct\nid: x\n".to_owned(), "the document has no `status`"),
        ("apiVersion: v3.1.0\nkind: DataProduct\nid: x\n".to_owned(), "1:13: `v3.1.0` is not a value of `apiVersion`"),
        ("apiVersion: v1.1.0\nkind: DataContract\nid: x\n".to_owned(), "2:7: `DataContract` is not a value of `kind`"),
        (format!("{head}verzion: 1.0.0\n"), "4:1: unknown key `verzion` (help: did you mean `version`?)"),
        (format!("{head}version: 1.0\n"), "4:10: `version` must be a text, but this is `1.0` without quotes"),
        (format!("{head}tags: gold\n"), "4:7: `tags` must be a list"),
        (format!("{head}tags: [gold, 5]\n"), "4:14: `tags[1]` must be a text"),
        (format!("{head}team: core\n"), "4:7: `team` must be an object"),
        (format!("{head}team:\n  members:\n  - name: Ada\n"), "`team.members[0]` has no `username`"),
        (format!("{head}outputPorts:\n- type: tables\n"), "5:3: `outputPorts[0]` has no `name`"),
        (format!("{head}outputPorts:\n- name: a\n  deprecated: yes\n"), "must be `true` or `false`"),
        (format!("{head}support:\n- channel: a\n"), "`support[0]` has no `url`"),
        (format!("{head}customProperties:\n- property: a\n"), "`customProperties[0]` has no `value`"),
        (format!("{head}id: y\n"), "`id` is given twice"),
        (
            "apiVersion: v1.0.0\nkind: DataProduct\nid: x\nstatus: draft\ndeprecated: true\n".to_owned(),
            "5:1: `deprecated` is not part of ODPS v1.0.0 (help: write `apiVersion: v1.1.0`",
        ),
    ];
    for (text, expected) in cases {
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{text}\n{found:#?}");
    }
}

/// Every document that is one change away from an official example is judged as its JSON Schema judges it.
#[test]
fn mutated_examples_are_judged_as_by_the_schemas() {
    let validators = validators();
    let mut refused = 0;
    for (path, yaml) in examples() {
        let document = read(&yaml);
        let edition = text(&document, "apiVersion").replace("v0.9.0", "v1.0.0");
        let validator = &validators.iter().find(|(name, _)| *name == edition).unwrap().1;
        for mutant in mutants(&document) {
            let Some(edition_of) = mutant.get("apiVersion").and_then(Tree::as_text) else {
                assert!(!problems(&mutant.to_yaml()).is_empty());
                continue;
            };
            if edition_of != text(&document, "apiVersion") {
                continue;
            }
            let json = serde_json::from_str(&mutant.to_json()).unwrap();
            let found = problems(&mutant.to_yaml());
            assert_eq!(validator.is_valid(&json), found.is_empty(), "{path}\n{}\n{found:#?}", mutant.to_yaml());
            refused += usize::from(!found.is_empty());
        }
    }
    assert!(validators.is_empty() || refused > 300, "{refused}");
}

/// Each node left out, of another type, and each object with a key more.
fn mutants(tree: &Tree) -> Vec<Tree> {
    let mut found = vec![Tree::Null, 5.to_string().as_str().into(), Tree::Number("5".into()), Tree::List(Vec::new())];
    match tree {
        Tree::Map(map) => {
            let mut more = map.clone();
            more.put("unheardOf", "x");
            found.push(more.into());
            for (key, value) in map.iter() {
                let mut less = map.clone();
                less.take(key);
                found.push(less.into());
                for mutant in mutants(value) {
                    let mut other = map.clone();
                    other.put(key, mutant);
                    found.push(other.into());
                }
            }
        }
        Tree::List(items) => {
            for (index, item) in items.iter().enumerate() {
                for mutant in mutants(item) {
                    let mut others = items.clone();
                    others[index] = mutant;
                    found.push(others.into());
                }
            }
        }
        _ => found.push(Tree::Map(Map::new())),
    }
    found
}

fn map<const N: usize>(entries: [(&'static str, BoxedStrategy<Tree>); N]) -> BoxedStrategy<Tree> {
    let entries: Vec<_> = entries
        .into_iter()
        .map(|(key, value)| proptest::option::weighted(0.7, value).prop_map(move |value| (key, value)))
        .collect();
    entries
        .prop_map(|entries| {
            entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map>().into()
        })
        .boxed()
}

/// A map that has `key` for certain.
fn with(key: &'static str, value: BoxedStrategy<Tree>, rest: BoxedStrategy<Tree>) -> BoxedStrategy<Tree> {
    (value, rest)
        .prop_map(move |(value, rest)| {
            let mut map = Map::new();
            map.put(key, value);
            map.into_iter().chain(rest.as_map().unwrap().clone()).collect::<Map>().into()
        })
        .boxed()
}

fn list(item: BoxedStrategy<Tree>) -> BoxedStrategy<Tree> {
    proptest::collection::vec(item, 0..4).prop_map(Tree::List).boxed()
}

fn one_of(texts: &'static [&'static str]) -> BoxedStrategy<Tree> {
    proptest::sample::select(texts).prop_map(Tree::from).boxed()
}

fn any_text() -> BoxedStrategy<Tree> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(Tree::Text),
        one_of(&[
            "",
            " ",
            "true",
            "1.0",
            "null",
            "TODO",
            "a: b",
            "# x",
            "é\n\tz",
            "2024-01-01",
            "datamesh.name",
            "odps"
        ]),
    ]
    .boxed()
}

fn any_value() -> BoxedStrategy<Tree> {
    let leaf = prop_oneof![
        any_text(),
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<i32>().prop_map(|number| Tree::Number(number.to_string())),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Tree::List),
            proptest::collection::vec(("[a-z]{1,3}", inner), 0..3)
                .prop_map(|entries| Tree::Map(entries.into_iter().collect())),
        ]
    })
    .boxed()
}

fn properties() -> BoxedStrategy<Tree> {
    let name = one_of(&["costCenter", "tier", "odps", "vendor", "x y", "", "other"]);
    list(with(
        "property",
        name,
        with("value", any_value(), map([("description", any_text()), ("vendor", any_text()), ("id", any_text())])),
    ))
}

fn odps_document() -> BoxedStrategy<Tree> {
    let input = with(
        "name",
        one_of(&["sales/crm", "web/sessions", "payments", "a/b@1", "x/"]),
        map([
            ("version", one_of(&["1.0.0", "^2", "*", "latest", ""])),
            ("contractId", one_of(&["urn:datamesh:sales:crm", "c-1", ""])),
            ("tags", list(any_text())),
            ("customProperties", properties()),
            ("deprecated", any::<bool>().prop_map(Tree::Bool).boxed()),
        ]),
    );
    let output = with(
        "name",
        one_of(&["tables", "changes", ""]),
        map([
            ("type", one_of(&["iceberg", "tables", "kafka"])),
            ("description", any_text()),
            ("version", one_of(&["1.0.0", "v2", "2.0.0"])),
            ("contractId", one_of(&["urn:datamesh:customer:customer-360", "c-2"])),
            ("customProperties", properties()),
            ("tags", list(any_text())),
            ("inputContracts", list(with("id", any_text(), with("version", any_text(), map([]))))),
        ]),
    );
    let support = with(
        "channel",
        one_of(&["a@b.c", "#help"]),
        with("url", one_of(&["mailto:a@b.c", "https://example.com"]), map([("tool", one_of(&["email", "slack"]))])),
    );
    let rest = map([
        ("name", prop_oneof![any_text(), one_of(&["customer-360", "Customer 360", "360"])].boxed()),
        ("version", one_of(&["1.0.0", "v1.0.0", "0.1", "one", ""])),
        ("status", one_of(&["active", "draft", "Retired", "proposed", "live", ""])),
        ("domain", one_of(&["customer", "Customer Care", "", "9"])),
        ("type", one_of(&["sourceAligned", "aggregate", "source-aligned", "other"])),
        ("tenant", any_text()),
        ("description", map([("purpose", any_text()), ("usage", any_text()), ("customProperties", properties())])),
        ("tags", list(any_text())),
        ("inputPorts", list(input)),
        ("outputPorts", list(output)),
        ("managementPorts", list(with("name", any_text(), with("content", any_text(), map([("url", any_text())]))))),
        ("support", list(support)),
        ("team", map([("name", any_text()), ("description", any_text()), ("tags", list(any_text()))])),
        ("productCreatedTs", any_text()),
        ("customProperties", properties()),
    ]);
    with("apiVersion", one_of(&["v1.1.0"]), with("kind", one_of(&["DataProduct"]), with("id", any_text(), rest)))
}

fn custom() -> BoxedStrategy<Tree> {
    prop_oneof![
        map([
            ("costCenter", any_value()),
            ("odcs", prop_oneof![any_value(), map([("id", any_text())])].boxed()),
            ("datamesh", any_value()),
            ("odps", any_value()),
            ("", any_value()),
        ]),
        any_value(),
    ]
    .boxed()
}

fn our_manifest() -> BoxedStrategy<Tree> {
    let port = with(
        "name",
        one_of(&["tables", "changes"]),
        with(
            "type",
            one_of(&["iceberg", "kafka"]),
            map([
                ("tables", list(any_text())),
                ("write", one_of(&["refused", "audited"])),
                ("description", any_text()),
                ("custom", custom()),
            ]),
        ),
    );
    let contact = prop_oneof![
        map([("email", any_text()), ("slack", any_text()), ("support", any_value())]),
        any_value(),
        list(with("channel", any_text(), with("url", any_text(), map([("tool", any_text())])))),
    ];
    let product = with(
        "name",
        one_of(&["customer-360", "crm"]),
        with(
            "version",
            one_of(&["1.0.0", "0.2.0", "2", "TODO"]),
            with(
                "owner",
                one_of(&["customer-domain", "sales team", "TODO", "TODO the accountable team", "TBD"]),
                with(
                    "schema",
                    any_value(),
                    map([
                        ("domain", one_of(&["customer", "sales"])),
                        ("type", one_of(&["source-aligned", "aggregate", "consumer-aligned"])),
                        ("status", one_of(&["draft", "active", "deprecated", "retired"])),
                        ("description", any_text()),
                        ("tags", list(prop_oneof![any_text(), any_value()].boxed())),
                        ("classification", any_text()),
                        ("inputs", list(one_of(&["sales/crm", "sales/crm@^2", "web/s@ >=1, <3", "x", "a/b@"]))),
                        ("trigger", one_of(&["inputs", "0 * * * *"])),
                        ("ports", list(port)),
                        ("access", any_value()),
                        ("sla", any_value()),
                        ("contact", contact.boxed()),
                        ("price", any_text()),
                        ("custom", custom()),
                    ]),
                ),
            ),
        ),
    );
    with("dataProduct", product, map([]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_document_comes_back(document in odps_document()) {
        let exported = export(&import(&document), None);
        prop_assert_eq!(without_edition(&exported), without_edition(&document));
    }

    #[test]
    fn any_manifest_comes_back(manifest in our_manifest(), domain in proptest::option::of("[a-z]{1,5}")) {
        let exported = export(&manifest, domain.as_deref());
        prop_assert_eq!(import(&exported).normalised(), manifest.normalised());
        let read = odps::read("export", exported.to_yaml().as_bytes());
        prop_assert_eq!(read.map(|tree| tree.normalised()), Ok(exported.normalised()));
    }

    #[test]
    fn any_manifest_is_exported_as_the_schemas_demand(manifest in our_manifest()) {
        thread_local!(static VALIDATORS: Vec<(&'static str, jsonschema::Validator)> = validators());
        let exported = export(&manifest, None);
        let json = serde_json::from_str(&exported.to_json()).unwrap();
        VALIDATORS.with(|validators| {
            for (edition, validator) in validators {
                if text(&exported, "apiVersion") == *edition {
                    assert!(validator.is_valid(&json), "{}", exported.to_yaml());
                }
            }
        });
    }
}
