//! Where changes of a contract stand in documents.

use datamesh_core::Location;
use datamesh_core::evolution::ContractPath;
use datamesh_manifest::locate_changes;

const MANIFEST: &str = "\
dataProduct:
  name: orders
  version: 1.0.0
  owner: sales
  sla:
    availability: 99.9%
    freshness: {within: 1h}
  access:
    - {role: analyst, rows: \"true\"}
  schema:
    - name: orders
      columns:
        - {name: id, type: long, primaryKey: true}
        - name: address
          type: struct
          columns:
            - {name: zip, type: string, maxLength: 5}
        - name: tags
          type: array<string>
          items: {maxLength: 9}
      quality:
        - rowCount  >  100
        - {name: sane, condition: id > 0}
";

const CONTRACT: &str = "\
apiVersion: v3.2.0
kind: DataContract
id: x
version: 1.0.0
schema:
  - name: orders
    properties:
      - name: email
        logicalType: string
        logicalTypeOptions:
          maxLength: 100
slaProperties:
  - property: availability
    value: 99
roles:
  - role: analyst
    access: read
team:
  name: sales
";

/// Where a path is found, as `line:column text`.
#[track_caller]
fn check(document: &str, path: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    std::fs::write(&file, document).unwrap();
    let path = ContractPath::try_from(path.to_owned()).unwrap();
    let (places, source) = locate_changes(&file, [&path]).unwrap();
    let [location] = places.as_slice() else { panic!("{places:?}") };
    assert_eq!(source, document);
    let text = &document[location.offset..location.offset + location.length];
    assert_eq!(format!("{}:{} {text}", location.line, location.column), expected, "{path}");
}

#[test]
fn a_manifest() {
    for (path, expected) in [
        ("version", "3:12 1.0.0"),
        ("owner", "4:10 sales"),
        ("sla.availability", "6:19 99.9%"),
        ("sla.freshness", "7:5 freshness"),
        ("sla.retention", "5:3 sla"),
        ("access.analyst.rows", "9:29 \"true\""),
        ("access.gone", "8:3 access"),
        ("price", "1:1 dataProduct"),
        ("schema.orders", "11:13 orders"),
        ("schema.orders.columns.id", "13:18 id"),
        ("schema.orders.columns.id.primaryKey", "13:46 true"),
        ("schema.orders.columns.id.required", "13:18 id"),
        ("schema.orders.columns.gone", "12:7 columns"),
        ("schema.orders.columns.address.columns.zip.maxLength", "17:52 5"),
        ("schema.orders.columns.tags.items.maxLength", "20:30 9"),
        ("schema.orders.quality.rowCount > 100", "22:11 rowCount  >  100"),
        ("schema.orders.quality.sane", "23:18 sane"),
        ("schema.gone", "10:3 schema"),
    ] {
        check(MANIFEST, path, expected);
    }
}

#[test]
fn a_data_contract() {
    for (path, expected) in [
        ("version", "4:10 1.0.0"),
        ("schema.orders.columns.email.maxLength", "11:22 100"),
        ("schema.orders.columns.email.type", "9:22 string"),
        ("schema.orders.columns.gone", "7:5 properties"),
        ("sla.availability", "13:15 availability"),
        ("access.analyst", "16:11 analyst"),
        ("access.analyst.custom.odcs.access", "17:13 read"),
        ("owner", "18:1 team"),
    ] {
        check(CONTRACT, path, expected);
    }
}

#[test]
fn a_document_that_has_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    let version = ContractPath::root().join("version");
    for text in ["", "[1, 2]", "a: [", "just text"] {
        std::fs::write(&file, text).unwrap();
        let (places, _) = locate_changes(&file, [&version]).unwrap();
        let Location { line, .. } = &places[0];
        assert!(*line <= 1, "{text}: {places:?}");
    }
    assert!(locate_changes(&folder.path().join("missing.yaml"), [&version]).is_err());
}
