//! Manifests that nobody wrote: every key there is, in every kind of node, there and back.

use datamesh_manifest::shape::{self, Object, Shape};
use datamesh_manifest::standards::odcs;
use datamesh_manifest::standards::tree::Map;
use datamesh_manifest::standards::{Standard, Tree, import};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::odcs::{differences, parse};
use crate::read_manifest;

fn texts() -> BoxedStrategy<Tree> {
    prop_oneof![
        "[a-z]{1,6}",
        "[ -~]{1,12}",
        "[a-z \\n]{1,12}",
        Just("2024-01-01".to_owned()),
        Just(" odd  \n".to_owned())
    ]
    .prop_map(Tree::Text)
    .boxed()
}

fn numbers() -> BoxedStrategy<Tree> {
    prop_oneof![any::<i32>().prop_map(|number| number.to_string()), Just("1.50".to_owned()), Just("0".to_owned())]
        .prop_map(Tree::Number)
        .boxed()
}

fn anything() -> BoxedStrategy<Tree> {
    let leaf = prop_oneof![texts(), numbers(), any::<bool>().prop_map(Tree::Bool), Just(Tree::Null)];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Tree::List),
            prop::collection::vec(("[a-z]{1,8}|datamesh|omit", inner), 0..3)
                .prop_map(|list| Tree::Map(Map::from_iter(list))),
        ]
    })
    .boxed()
}

/// Any value of this shape, down to `depth`.
fn of_shape(shape: &'static Shape, depth: usize) -> BoxedStrategy<Tree> {
    match shape {
        Shape::Text => prop_oneof![4 => texts(), 1 => numbers()].boxed(),
        Shape::Word(words) => prop::sample::select(*words).prop_map(Tree::text).boxed(),
        Shape::Number => numbers(),
        Shape::Count => (0..100_u32).prop_map(|number| Tree::Number(number.to_string())).boxed(),
        Shape::Boolean => any::<bool>().prop_map(Tree::Bool).boxed(),
        Shape::Percent => Just(Tree::text("5%")).boxed(),
        Shape::List(item) => prop::collection::vec(of_shape(item, depth), 0..3).prop_map(Tree::List).boxed(),
        Shape::Object(object) if depth == 0 => required(object).boxed(),
        Shape::Object(object) => of_object(object, depth - 1),
        Shape::Short(short, _) if depth == 0 => of_shape(short, 0),
        Shape::Short(short, object) => prop_oneof![of_shape(short, depth), of_object(object, depth - 1)].boxed(),
        Shape::Either(one, other) => prop_oneof![of_shape(one, depth), of_shape(other, depth)].boxed(),
        Shape::TextOrNull => prop_oneof![4 => texts(), 1 => Just(Tree::Null)].boxed(),
        Shape::Map(value) => prop::collection::vec(("[a-z]{1,8}", of_shape(value, depth)), 0..3)
            .prop_map(|list| Tree::Map(Map::from_iter(list)))
            .boxed(),
        Shape::Any => anything(),
    }
}

fn required(object: &'static Object) -> BoxedStrategy<Tree> {
    let keys: Vec<_> = object.keys.iter().filter(|key| key.required).collect();
    let values: Vec<_> = keys.iter().map(|key| value(object, key.name, &key.shape, 0)).collect();
    let names: Vec<_> = keys.iter().map(|key| key.name.to_owned()).collect();
    values.prop_map(move |values| Tree::Map(names.iter().cloned().zip(values).collect())).boxed()
}

/// Names and types that our reader takes, so that most manifests are read.
fn value(object: &'static Object, key: &str, shape: &'static Shape, depth: usize) -> BoxedStrategy<Tree> {
    match (object.name, key) {
        ("DataProduct" | "Table", "name") => "[a-z][a-z0-9_-]{0,5}x".prop_map(Tree::Text).boxed(),
        ("Column", "name") => "[a-zA-Z][a-z ]{0,5}".prop_map(Tree::Text).boxed(),
        ("Column" | "Item", "type") => {
            let types = [
                "string",
                "int",
                "long",
                "double",
                "float",
                "decimal(10,2)",
                "decimal( 5 )",
                "date",
                "time",
                "timestamp",
                "TIMESTAMP",
                "timestamp_ntz",
                "boolean",
                "uuid",
                "json",
                "binary",
                "array<string>",
                "array<int>",
                "array",
                "array<struct>",
                "struct",
                "map<string,long>",
                "map<string, array<struct<a: int>>>",
                "array<array<int>>",
                "struct<a: int, b: string>",
                "Struct",
                "array<struct<a: int>>",
                "array< string >",
            ];
            prop::sample::select(types.to_vec()).prop_map(Tree::text).boxed()
        }
        ("DataProduct", "version") => {
            prop::sample::select(vec!["1.0.0", "0.1.0", "2.1", "3"]).prop_map(Tree::text).boxed()
        }
        ("DataProduct", "owner") => prop::sample::select(vec!["lab-domain", "lab"]).prop_map(Tree::text).boxed(),
        ("DataProduct", "domain") => Just(Tree::text("lab")).boxed(),
        ("DataProduct", "movedFrom") => Just(Tree::text("old/x")).boxed(),
        ("Column" | "Item", "mask") => prop::sample::select(vec!["null", "none"]).prop_map(Tree::text).boxed(),
        ("Column", "declassify") => Just(Tree::text("counts only")).boxed(),
        ("Access", "approvals") => Just(Tree::Number("1".to_owned())).boxed(),
        ("Access", "expires") => Just(Tree::text("90d")).boxed(),
        ("Access", "columns" | "unmasked") => Just(Tree::List(vec![Tree::text("a")])).boxed(),
        ("Sla", "endOfSupport") => Just(Tree::text("2030-12-31")).boxed(),
        ("Table", "partitionBy") => prop::sample::select(vec!["a", "bucket(4, a)"])
            .prop_map(|field| Tree::List(vec![Tree::text(field)]))
            .boxed(),
        _ => of_shape(shape, depth),
    }
}

fn of_object(object: &'static Object, depth: usize) -> BoxedStrategy<Tree> {
    let entries: Vec<_> = object
        .keys
        .iter()
        .map(|key| {
            let name = key.name;
            let often = if key.required { 1.0 } else { 0.3 };
            (prop::bool::weighted(often), value(object, name, &key.shape, depth))
                .prop_map(move |(present, value)| present.then(|| (name.to_owned(), value)))
        })
        .collect();
    entries.prop_map(|entries| Tree::Map(entries.into_iter().flatten().collect())).boxed()
}

fn product() -> BoxedStrategy<Tree> {
    of_object(&shape::MANIFEST, 6)
}

/// A manifest that our reader takes, made of one that it may refuse by leaving out what it refuses.
fn accepted(mut manifest: Tree) -> Option<Tree> {
    for _ in 0..60 {
        let text = manifest.to_yaml();
        let (found, diagnostics) = read_manifest(text.as_bytes());
        if found.is_some() {
            return Some(manifest);
        }
        let lines: Vec<usize> = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .map(|diagnostic| diagnostic.location.line)
            .collect();
        // The innermost key at the first bad line goes, with what is below it.
        let line = *lines.first()?;
        manifest = without_line(&text, line)?;
    }
    None
}

fn without_line(text: &str, line: usize) -> Option<Tree> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let start = line.checked_sub(1)?;
    let depth = indent(lines.get(start)?);
    let end = (start + 1..lines.len()).find(|at| indent(lines[*at]) <= depth).unwrap_or(lines.len());
    let mut kept = lines[..start].to_vec();
    let dash = lines[start].trim_start().starts_with("- ");
    if dash && end < lines.len() && indent(lines[end]) == depth && !lines[end].trim_start().starts_with("- ") {
        let moved = format!("{}- {}", " ".repeat(depth.checked_sub(2)?), lines[end].trim_start());
        let mut rest = kept.join("\n");
        rest.push_str(&format!("\n{moved}\n{}\n", lines[end + 1..].join("\n")));
        return datamesh_manifest::standards::tree::read("t", rest.as_bytes()).ok().map(|(_, _, tree)| tree);
    }
    kept.extend(&lines[end..]);
    let rest = kept.join("\n") + "\n";
    datamesh_manifest::standards::tree::read("t", rest.as_bytes()).ok().map(|(_, _, tree)| tree)
}

fn there_and_back(manifest: &Tree) -> Result<(), String> {
    let contract = odcs::export(manifest, None).map_err(|why| format!("{why}\n{}", manifest.to_yaml()))?;
    let text = contract.to_yaml();
    let again = import(Standard::Odcs, "c", text.as_bytes()).map_err(|all| format!("{all:#?}\n{text}"))?.manifest;
    let found = differences(manifest, &again);
    if found.is_empty() { Ok(()) } else { Err(format!("{}\n{}\n{text}", found.join("\n"), manifest.to_yaml())) }
}

#[test]
fn any_manifest_comes_back() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 600, ..ProptestConfig::default() });
    let read = std::cell::Cell::new(0);
    let result = runner.run(&product(), |manifest| {
        let Some(manifest) = accepted(parse(&manifest.to_yaml())) else { return Ok(()) };
        read.set(read.get() + 1);
        there_and_back(&manifest).map_err(TestCaseError::fail)
    });
    if let Err(why) = result {
        panic!("{why}");
    }
    assert!(read.get() > 100, "{} manifests were read", read.get());
}

/// One manifest for each key of each object, so that none is left to chance.
#[test]
fn every_key_comes_back() {
    let fixed = [
        ("dataProduct", &shape::DATA_PRODUCT),
        ("schema", &shape::TABLE),
        ("columns", &shape::COLUMN),
        ("quality", &shape::QUALITY),
    ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = 0;
    for (place, object) in fixed {
        for key in object.keys {
            for _ in 0..6 {
                let value = value(object, key.name, &key.shape, 3).new_tree(&mut runner).unwrap().current();
                let mut product = parse("name: x\nversion: 1.0.0\nowner: lab\n").as_map().cloned().unwrap();
                let mut table = parse("name: t").as_map().cloned().unwrap();
                let mut column = parse("name: a\ntype: string").as_map().cloned().unwrap();
                let mut rule = Map::new();
                let target = match place {
                    "dataProduct" => &mut product,
                    "schema" => &mut table,
                    "columns" => &mut column,
                    _ => &mut rule,
                };
                if !(target.contains(key.name) || matches!(key.name, "schema" | "columns")) {
                    target.put(key.name, value);
                }
                if !table.contains("columns") {
                    table.put("columns", vec![Tree::Map(column)]);
                }
                if place == "quality" {
                    table.put("quality", vec![Tree::Map(rule)]);
                }
                product.put("schema", vec![Tree::Map(table)]);
                let manifest = Tree::Map(Map::from_iter([("dataProduct".to_owned(), Tree::Map(product))]));
                let Some(manifest) = accepted(manifest) else { continue };
                if let Err(why) = there_and_back(&manifest) {
                    panic!("{place}.{}: {why}", key.name);
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 300, "{seen}");
}
