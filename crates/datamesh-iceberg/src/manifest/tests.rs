use super::*;

const AVRO: &str = r#"{"type": "record", "name": "manifest_entry", "fields": [{"name": "status", "type": "int"},
    {"name": "data_file", "type": {"type": "record", "name": "r2", "fields": [
        {"name": "partition", "type": {"type": "record", "name": "r102", "fields": FIELDS}}]}}]}"#;
const SCHEMA: &str =
    r#"{"type": "struct", "fields": [{"id": 2, "name": "my day", "required": false, "type": "string"}]}"#;

fn manifest(spec: &str, fields: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let entries = vec![
        entry("avro.schema", &AVRO.replace("FIELDS", fields)),
        entry("schema", SCHEMA),
        entry("partition-spec", spec),
        entry("format-version", "1"),
    ];
    Header { entries, rest: b"sixteen bytes...and blocks" }.write().to_vec()
}

fn json_of(header: &Header<'_>, key: &str) -> Value {
    serde_json::from_slice(header.get(key).expect("an entry")).expect("JSON")
}

#[test]
fn a_manifest_that_can_be_read_is_left_as_it_is() {
    let spec = r#"[{"source-id": 2, "field-id": 1000, "name": "day", "transform": "identity"}]"#;
    let fields = r#"[{"name": "day", "type": ["null", "string"], "field-id": 1000}]"#;
    assert!(rewritten(&manifest(spec, fields)).is_none());
    for broken in
        [&b"Obj\x01"[..], b"Obj\x01\x02\x7f", b"PAR1", b"", b"Obj\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        assert_eq!(readable(Bytes::copy_from_slice(broken)), broken);
    }
}

#[test]
fn a_name_that_avro_does_not_know_is_found_by_its_id() {
    let spec = r#"[{"source-id": 2, "field-id": 1000, "name": "my day", "transform": "identity"}]"#;
    let fields = r#"[{"name": "my_x20day", "type": ["null", "string"], "field-id": 1000}]"#;
    let bytes = rewritten(&manifest(spec, fields)).expect("a manifest");
    let header = Header::read(&bytes).expect("a header");
    assert_eq!(header.rest, b"sixteen bytes...and blocks");
    assert_eq!(header.get("format-version"), Some(&b"1"[..]));
    let field = &json_of(&header, "partition-spec")[0];
    let written = &json_of(&header, "avro.schema")["fields"][1]["type"]["fields"][0]["type"]["fields"][0];
    assert_eq!(field["name"], written["name"]);
    assert_eq!((&field["source-id"], &field["transform"]), (&json!(2), &json!("identity")));
    assert_eq!(json_of(&header, "schema")["fields"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_name_that_avro_does_not_know_is_replaced_in_the_schema_too() {
    let spec = r#"[{"source-id": 2, "field-id": 1000, "name": "Straße", "transform": "identity"}]"#;
    let fields = r#"[{"name": "Straße", "type": ["null", "string"], "field-id": 1000}]"#;
    let bytes = rewritten(&manifest(spec, fields)).expect("a manifest");
    assert!(!String::from_utf8_lossy(&bytes).contains("Straße"));
    assert!(is_name("_day_1") && !is_name("1st") && !is_name("a b") && !is_name("a.b"));
}

#[test]
fn void_fields_have_columns_of_their_own() {
    let spec = r#"[{"source-id": 2, "field-id": 1000, "name": "my day", "transform": "void"},
        {"source-id": 2, "field-id": 1001, "name": "other", "transform": "void"}]"#;
    let bytes = rewritten(&manifest(spec, r#"[{"name": "day", "type": ["null", "string"], "field-id": 1000}]"#));
    let bytes = bytes.expect("a manifest");
    let header = Header::read(&bytes).expect("a header");
    let (spec, schema) = (json_of(&header, "partition-spec"), json_of(&header, "schema"));
    for (at, field) in spec.as_array().expect("fields").iter().enumerate() {
        let column = &schema["fields"][at + 1];
        assert_eq!(field["source-id"], column["id"]);
        // Only identity fields may be called like a column.
        assert_ne!(field["name"], column["name"]);
    }
    assert_ne!(spec[0]["name"], spec[1]["name"]);
    assert_eq!(schema["fields"][0]["name"], "my day");
}
