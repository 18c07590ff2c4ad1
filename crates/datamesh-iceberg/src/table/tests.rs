use super::*;

const DOCUMENT: &str = r#"{
    "format-version": 2, "table-uuid": "1b103740-1010-47dc-b505-179f797712c3", "location": "/table",
    "last-sequence-number": 7, "last-updated-ms": 1795418136065, "last-column-id": 1,
    "schemas": [{"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": "id", "required": false, "type": "long"}]}],
    "current-schema-id": 0, "partition-specs": [{"spec-id": 0, "fields": []}], "default-spec-id": 0,
    "last-partition-id": 0, "sort-orders": [], "default-sort-order-id": 0, "current-snapshot-id": 4, "snapshots": [
        {"snapshot-id": 3, "sequence-number": 5, "timestamp-ms": 1795418136064, "manifest-list": "/a.avro",
         "summary": {"operation": "append"}, "schema-id": 0},
        {"snapshot-id": 4, "sequence-number": 2, "timestamp-ms": 1795418136065, "manifest-list": "/b.avro",
         "summary": {"operation": "append"}, "schema-id": 0}]
}"#;

fn without(key: &str) -> String {
    let mut document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    document.as_object_mut().expect("an object").remove(key).expect("the key");
    document.to_string()
}

#[test]
fn a_last_sequence_number_that_is_missing_is_that_of_the_snapshots() {
    assert_eq!(metadata_of(DOCUMENT).expect("metadata").last_sequence_number(), 7);
    let document = without("last-sequence-number");
    assert_eq!(metadata_of(&document).expect("metadata").last_sequence_number(), 5);
    let mut empty: Value = serde_json::from_str(&document).expect("JSON");
    empty["snapshots"] = Value::Array(Vec::new());
    empty["current-snapshot-id"] = Value::Null;
    assert_eq!(metadata_of(&empty.to_string()).expect("metadata").last_sequence_number(), 0);
}

#[test]
fn a_void_field_may_outlive_its_column() {
    let field = |transform: &str| {
        let field =
            format!(r#""fields": [{{"source-id": 2, "field-id": 1000, "name": "day", "transform": "{transform}"}}]"#);
        DOCUMENT.replace(r#""spec-id": 0, "fields": []"#, &format!(r#""spec-id": 0, {field}"#))
    };
    assert!(metadata_of(&field("void")).is_ok());
    assert!(metadata_of(&field("identity")).is_err());
}

#[test]
fn what_is_no_metadata_says_why() {
    for (document, why) in [
        ("no JSON".to_owned(), "no JSON object"),
        ("[]".to_owned(), "no JSON object"),
        ("{}".to_owned(), "no `format-version`"),
        (DOCUMENT.replace(r#""format-version": 2"#, r#""format-version": 9"#), "format version is 9"),
        (without("schemas"), "no `schemas`"),
        (without("location"), "no `location`"),
    ] {
        let error = metadata_of(&document).expect_err("refused");
        assert!(error.contains(why), "{error}");
    }
}
