use proptest::prelude::*;

use super::{Map, Tree, read};

fn parse(text: &str) -> Tree {
    match read("tree.yaml", text.as_bytes()) {
        Ok((_, _, tree)) => tree,
        Err(diagnostics) => panic!("{diagnostics:?}\n{text}"),
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,30}",
        "[ -~\\t\\n]{0,24}",
        "[a-c \\n]{0,16}",
        "[-+]?[0-9.:_eExoT-]{1,10}",
        "[a-z:#,{}\\[\\]&*!|>'\"%@`? -]{0,8}",
        any::<String>(),
        prop::sample::select(vec![
            "",
            "~",
            "null",
            "on",
            "Yes",
            "NO",
            "y",
            "2024-01-01",
            "2024-01-01T00:00:00Z",
            "012",
            "0x1F",
            "1_000",
            "1:30",
            ".inf",
            "-.Inf",
            ".NaN",
            "<<",
            "=",
            "---",
            "...",
            "- a",
            "a: b",
            "a #b",
            "#",
            "\u{85}",
            "\u{2028}x",
            "\u{feff}",
            "line\n",
            "line\n\n",
            "\nline",
            " line\nline",
            "line \n line\n",
            "a\r\nb",
            "\t",
            "a\tb",
            "trailing ",
            "'",
            "\"",
            "'\"\\",
            "1e5",
            "+",
            "-",
            ".",
            "1.0.0",
            "v1",
        ])
        .prop_map(str::to_owned),
    ]
}

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:?}")),
        prop::sample::select(vec!["0x1F", "0o17", "007", "+5", ".5", "5.", "-0", "1.50", ".inf", "-.INF", ".nan"])
            .prop_map(str::to_owned),
    ]
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        numbers().prop_map(Tree::Number),
        texts().prop_map(Tree::Text),
        texts().prop_map(Tree::Text),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::List),
            prop::collection::vec((texts(), inner), 0..5).prop_map(|entries| Tree::Map(Map::from_iter(entries))),
        ]
    })
}

/// JSON has no infinities: those become texts there.
fn as_json_says(tree: &Tree) -> Tree {
    match tree.normalised() {
        Tree::Number(text) if text.contains(['i', 'n']) => Tree::Text(text),
        Tree::List(items) => Tree::List(items.iter().map(as_json_says).collect()),
        Tree::Map(map) => Tree::Map(map.into_iter().map(|(key, value)| (key, as_json_says(&value))).collect()),
        other => other,
    }
}

fn lower_specials(tree: Tree) -> Tree {
    match tree {
        Tree::Text(text) if super::number::is_special(&text) => Tree::Text(text.to_ascii_lowercase()),
        Tree::List(items) => Tree::List(items.into_iter().map(lower_specials).collect()),
        Tree::Map(map) => Tree::Map(map.into_iter().map(|(key, value)| (key, lower_specials(value))).collect()),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(tree in trees()) {
        let text = tree.to_yaml();
        prop_assert_eq!(parse(&text), tree, "{}", text);
    }

    #[test]
    fn json_says_the_same(tree in trees()) {
        let value: serde_json::Value = serde_json::from_str(&tree.to_json()).expect("JSON");
        let again = parse(&value.to_string());
        // A reader of floats keeps 17 digits; the exact spelling is compared above.
        if !tree.to_json().contains(['.', 'e']) {
            prop_assert_eq!(lower_specials(again.normalised()), lower_specials(as_json_says(&tree)));
        }
    }

    #[test]
    fn normalising_is_idempotent(tree in trees()) {
        prop_assert_eq!(tree.normalised().normalised(), tree.normalised());
    }
}

#[test]
fn texts_that_look_like_something_else_are_quoted() {
    for text in [
        "on",
        "yes",
        "No",
        "null",
        "~",
        "true",
        "2024-01-01",
        "0123",
        "1_000",
        "12:30",
        "1e3",
        "0x10",
        ".5",
        "",
        "- x",
        "a: b",
        "a #b",
        "<<",
        "=",
        "1.0",
        "2024-01-01 10:00:00",
    ] {
        let line = Tree::text(text).to_yaml();
        assert!(line.starts_with(['"', '\'']), "{line}");
    }
    for text in
        ["word", "two words", "a:b", "a#b", "v1", "1.0.0-rc.1x", "rowCount > 1000", "domain/product.table", "it's"]
    {
        assert_eq!(Tree::text(text).to_yaml(), format!("{text}\n"));
    }
}

#[test]
fn lines_become_a_block() {
    let map =
        Map::from_iter([("a".to_owned(), Tree::text("one\n\ntwo\n")), ("b".to_owned(), Tree::text("one\n  two"))]);
    assert_eq!(Tree::Map(map).to_yaml(), "a: |\n  one\n\n  two\nb: |-\n  one\n    two\n");
}

#[test]
fn numbers_of_one_value_have_one_spelling() {
    for (one, other) in
        [("1", "1.0"), ("+1", "1"), ("10e-1", "1"), ("0x10", "16"), ("0.50", ".5"), ("-0", "0"), ("100", "1e2")]
    {
        assert_eq!(parse(one).normalised(), parse(other).normalised(), "{one} {other}");
    }
    assert_ne!(parse("1").normalised(), parse("\"1\"").normalised());
    assert_eq!(parse("[007, +5, .5, 5., 0x1F]").to_json().split_whitespace().collect::<String>(), "[7,5,0.5,5.0,31]");
}

#[test]
fn a_repeated_key_is_an_error_with_a_place() {
    let diagnostics = read("tree.yaml", b"a: 1\nb: 2\na: 3\n").err().expect("refused");
    assert_eq!((diagnostics[0].id, diagnostics[0].location.line), ("duplicate-key", 3));
}
