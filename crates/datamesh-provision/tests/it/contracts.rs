//! Contracts for tests: from YAML, and generated ones with hostile text.

use std::fs;

use datamesh_core::contract::{PartitionField, Transform};
use datamesh_core::{Column, DataProduct, DataType};
use proptest::prelude::*;

/// The article's manifest, as printed.
pub(crate) const ARTICLE: &str = r#"dataProduct:
  name: customer-360
  version: 1.0.0
  owner: customer-domain
  schema:
    - name: customer_profile
      type: table
      columns:
        - name: customer_id
          type: string
          description: "Unique identifier"
        - name: preferences
          type: json
          description: "Customer preferences"
  sla:
    availability: 99.9%
    freshness: 1h
"#;

/// A manifest with everything that infrastructure shows.
const FULL: &str = r#"dataProduct:
  name: customer-360
  version: 2.1.0
  owner: customer-domain
  domain: customer
  description: One row per customer, refreshed hourly.
  classification: internal
  schema:
    - name: customer_profile
      description: Current profile of each customer.
      owner: profile-team
      columns:
        - {name: customer_id, type: string, description: Unique identifier, primaryKey: true}
        - {name: email, type: string, pii: true, mask: hash}
        - {name: lifetime_value, type: 'decimal(18,2)'}
        - {name: preferences, type: json, description: Customer preferences}
        - name: address
          type: struct
          columns:
            - {name: city, type: string}
            - {name: country, type: string}
        - {name: tags, type: array<string>}
        - {name: scores, type: 'map<string,double>'}
        - {name: country, type: string}
        - {name: born, type: date}
        - {name: wakes_at, type: time}
        - {name: token, type: uuid, classification: restricted}
        - {name: visits, type: long}
        - {name: active, type: boolean}
        - {name: ratio, type: float}
        - {name: level, type: int}
        - {name: photo, type: binary}
        - {name: seen_at, type: timestamp_ntz}
        - {name: updated_at, type: timestamp, required: true}
      partitionBy: [country, day(updated_at)]
    - name: customer-notes
      columns:
        - {name: customer_id, type: string}
        - {name: note, type: string, pii: true}
  access:
    - {role: analyst, tables: [customer_profile], rows: "country = principal.country AND level >= 3", expires: 90d}
    - {role: crm-support, unmasked: [email, customer-notes.note]}
    - {role: researcher, tables: [customer_profile], rows: "lower(country) = 'de'"}
"#;

/// The contract of a manifest.
pub(crate) fn contract(yaml: &str) -> DataProduct {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("product.yaml");
    fs::write(&path, yaml).unwrap();
    let mut mesh = datamesh_manifest::load_product(&path).unwrap();
    assert!(!mesh.has_errors(), "{:?}", mesh.diagnostics);
    mesh.products.remove(0).contract
}

/// The contract of [`FULL`], with an offer of single columns.
pub(crate) fn full() -> DataProduct {
    let mut contract = contract(FULL);
    let offers = contract.declared.get_mut("access").unwrap().as_array_mut().unwrap();
    offers.push(serde_json::json!({"role": "auditor", "tables": ["customer-notes"], "columns": ["customer_id"]}));
    contract
}

/// Text that somebody could try to break out of a quoted string with.
pub(crate) fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("${".to_owned()),
        Just("%{".to_owned()),
        Just("$".to_owned()),
        Just("%".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("<<EOF".to_owned()),
        Just("\"\n}\nresource \"x\" \"y\" {".to_owned()),
        Just("${file(\"/etc/passwd\")}".to_owned()),
        Just("%{ for x in y }".to_owned()),
        Just("# ".to_owned()),
        Just("*/".to_owned()),
        Just("\u{202e}".to_owned()),
        Just("\u{0}".to_owned()),
        Just("é".to_owned()),
        Just("🦀".to_owned()),
        Just("\u{e0041}".to_owned()),
        "[a-z ]{0,6}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn column_name() -> impl Strategy<Value = String> {
    let hostile = hostile_text().prop_map(|text| {
        text.chars()
            .filter(|c| datamesh_core::contract::bad_column_name(&format!("x{c}")).is_none())
            .collect::<String>()
    });
    prop_oneof![3 => "[a-z][a-z0-9_]{0,8}".boxed(), 1 => hostile.prop_map(|text| format!("x{text}")).boxed()]
}

fn data_type() -> impl Strategy<Value = DataType> {
    let scalar = prop_oneof![
        Just(DataType::String),
        Just(DataType::Uuid),
        Just(DataType::Json),
        Just(DataType::Boolean),
        Just(DataType::Int),
        Just(DataType::Long),
        Just(DataType::Float),
        Just(DataType::Double),
        Just(DataType::Decimal(18, 2)),
        Just(DataType::Date),
        Just(DataType::Time),
        Just(DataType::Timestamp),
        Just(DataType::TimestampNtz),
        Just(DataType::Binary),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        let field = ("[a-z][a-z0-9_]{0,6}", inner.clone()).prop_map(|(name, kind)| Column::anonymous(&name, kind));
        prop_oneof![
            inner.clone().prop_map(|item| DataType::Array(Box::new(Column::anonymous("item", item)))),
            inner.prop_map(|value| DataType::Map(
                Box::new(DataType::String),
                Box::new(Column::anonymous("value", value))
            )),
            proptest::collection::vec(field, 1..3).prop_map(DataType::Struct),
        ]
    })
}

fn column() -> impl Strategy<Value = Column> {
    (column_name(), data_type(), proptest::option::of(hostile_text()), any::<bool>()).prop_map(
        |(name, data_type, description, pii)| Column { description, pii, ..Column::anonymous(&name, data_type) },
    )
}

/// Any contract, with text that tries to get out.
pub(crate) fn contracts() -> impl Strategy<Value = DataProduct> {
    let table = (
        "[a-z][a-z0-9-]{0,8}[a-z]",
        proptest::collection::vec(column(), 1..6),
        proptest::option::of(hostile_text()),
        any::<bool>(),
    );
    let access = prop_oneof![
        Just(None),
        (hostile_text(), proptest::option::of(hostile_text())).prop_map(|(role, value)| {
            let rows = value.map(|value| format!("a_key = '{}'", value.replace('\'', "''")));
            // A role has a name.
            Some(serde_json::json!([{"role": format!("r{role}"), "rows": rows}]))
        })
    ];
    let text = proptest::option::of(hostile_text());
    ("[a-z][a-z-]{0,6}[a-z]", proptest::collection::vec(table, 1..3), text, hostile_text(), access).prop_map(
        |(name, tables, description, owner, access)| {
            let mut contract = contract(ARTICLE);
            contract.id.product = datamesh_core::Name::new(&name).unwrap();
            contract.description = description;
            contract.owner = owner;
            contract.declared.extend(access.map(|access| ("access".to_owned(), access)));
            let model = contract.tables.remove(0);
            for (at, (name, mut columns, description, partitioned)) in tables.into_iter().enumerate() {
                columns.push(Column::anonymous("a_key", DataType::String));
                let mut seen = std::collections::HashSet::new();
                columns.retain(|column| seen.insert(column.name.to_lowercase()));
                let mut table = model.clone();
                table.name = datamesh_core::Name::new(&format!("{name}_{at}")).unwrap();
                table.description = description;
                table.columns = columns;
                if partitioned {
                    table.partition_by =
                        vec![PartitionField { column: "a_key".into(), transform: Transform::Identity }];
                }
                contract.tables.push(table);
            }
            contract
        },
    )
}
