use proptest::prelude::*;
use serde_json::json;

use super::*;

fn canonical(text: &str) -> String {
    to_string(&serde_json::from_str(text).expect("it is JSON")).expect("it has a canonical text")
}

/// RFC 8785, section 3.2.2 and 3.2.3: its examples.
#[test]
fn the_examples_of_the_specification() {
    let sample = r#"{
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    assert_eq!(
        canonical(sample),
        "{\"literals\":[null,true,false],\
         \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
    );
    let order = r#"{
        "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    let text = canonical(order);
    let places: Vec<_> = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
        .map(|word| text.find(word).expect("it is there"))
        .to_vec();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn integers_are_exact_or_refused() {
    for (number, text) in [(json!(0), "0"), (json!(-7), "-7"), (json!(9_007_199_254_740_991_u64), "9007199254740991")] {
        assert_eq!(to_string(&number).as_deref(), Ok(text));
    }
    for number in [
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_992_u64),
        json!(u64::MAX),
        json!(i64::MIN + 1),
        json!(0.5),
        json!(1.0),
    ] {
        assert!(to_string(&number).is_err(), "{number}");
        assert_eq!(exact(json!([number.clone()])), json!([number.to_string()]));
    }
    assert_eq!(digest(&json!({"a": u64::MAX})).ok(), digest(&json!({"a": u64::MAX.to_string()})).ok());
}

#[test]
fn doubled_keys_are_refused() {
    assert_eq!(parse(r#"{"a": [1, {"b": null}], "c": -1.5}"#), Ok(json!({"a": [1, {"b": null}], "c": -1.5})));
    for text in [r#"{"a": 1, "a": 1}"#, r#"[{"b": {"a": 1, "\u0061": 2}}]"#] {
        assert!(parse(text).is_err_and(|why| why.contains("twice")), "{text}");
    }
}

#[test]
fn digits_are_read_back() {
    assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(unhex("00ff1a"), Some(vec![0, 255, 26]));
    for text in ["0", "0g", "FF", "é"] {
        assert_eq!(unhex(text), None, "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_canonical_text_is_its_own(value in any_json()) {
        let text = to_string(&exact(value)).expect("nothing is inexact any more");
        let again = parse(&text).expect("it is JSON");
        prop_assert_eq!(to_string(&again).expect("it is canonical"), text);
    }
}
