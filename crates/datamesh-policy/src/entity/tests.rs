use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Context as CedarContext, Entities, Request, Schema};
use chrono::{DateTime, Utc};
use datamesh_core::access::{AttributeType, AttributeValue, Governance};
use datamesh_core::contract::DataProduct;
use datamesh_core::evolution::Bump;
use datamesh_core::protection::protections;

use super::*;
use crate::decide::{Change, ChangeKind, Context, GrantContext, cedar_context, cedar_time};
use crate::policies::Policies;
use crate::resource::{ProductNodes, RequestFacts};
use crate::schema::schema_text;

fn governance() -> Governance {
    let types = [
        ("country", AttributeType::String, AttributeValue::String("NO".into())),
        ("level", AttributeType::Long, AttributeValue::Long(-1)),
        ("is staff", AttributeType::Boolean, AttributeValue::Boolean(true)),
        ("regions", AttributeType::Strings, AttributeValue::Strings(BTreeSet::from(["a".to_owned()]))),
    ];
    let mut governance: Governance = serde_json::from_value(serde_json::json!({
        "format": 1, "owner": "platform",
        "roles": [{"name": "analyst", "includes": ["reader"]}, {"name": "reader"}],
        "principals": [{"kind": "user", "name": "ann", "roles": ["analyst"]}, {"kind": "service", "name": "etl"}],
    }))
    .expect("governance");
    for (name, attribute_type, value) in types {
        governance.attributes.insert(name.to_owned(), attribute_type);
        for principal in &mut governance.principals {
            principal.attributes.insert(name.to_owned(), value.clone());
        }
    }
    governance
}

fn contract() -> DataProduct {
    serde_json::from_value(serde_json::json!({
        "format": 1, "id": {"domain": "air-traffic", "product": "legs"}, "version": "1.2.3-rc.1", "owner": "air-team",
        "status": "active",
        "tables": [{"name": "Flight-Legs", "columns": [
            {"name": "id", "type": "long", "primary_key": true, "owner": "key-team"},
            {"name": "price", "type": {"decimal": [18, 2]}, "mask": "bucket(10)"},
            {"name": "address", "type": {"struct": [{"name": "city", "type": "string", "pii": true}]}},
        ], "declared": {"tags": "one"}}],
        "declared": {
            "type": "aggregate", "tags": ["a", "b"], "classification": "internal", "sla": {"freshness": "1d"},
            "ports": [{"name": "files", "type": "parquet", "tables": ["Flight-Legs"], "write": "audited"}],
        },
    }))
    .expect("a contract")
}

#[test]
fn what_is_built_conforms_to_the_schema() {
    let governance = governance();
    let domain = serde_json::json!({"name": "air-traffic", "owner": "air-team", "teams": [
        {"name": "air-team", "members": [{"username": "amy"}]}, {"name": "pilots"}]});
    let domains = [serde_json::from_value(domain).expect("a domain")];
    let policies = Policies::compile(&governance, &domains).expect("policies");
    let contract = contract();
    let (schema, warnings) = Schema::from_cedarschema_str(&schema_text(&governance.attributes)).expect("a schema");
    assert_eq!(warnings.count(), 0);

    let product = ProductNodes::new(&contract, &policies.ownership);
    let table = &contract.tables[0];
    let protections = protections(&contract, table, &BTreeMap::new());
    let request = RequestFacts {
        number: 7,
        requester: "ann".into(),
        principal: "team:pilots".into(),
        role: "analyst".into(),
        purpose: Some("planning".into()),
        approvers: vec!["air-team".into(), "amy".into()],
        unmasked: BTreeSet::from(["price".to_owned()]),
    };
    let path = ["address".to_owned(), "city".to_owned()];
    let mut nodes = vec![
        product.product(),
        product.table(table, true),
        product.column_at(table, &path, &protections).expect("a field"),
        product.request(&request, &policies.directory).expect("a request"),
    ];
    for column in &table.columns {
        nodes.push(product.column(table, &[column], &protections));
    }
    nodes.extend(product.ports().filter_map(|port| product.port(port)));
    let everything = Interest { all: true, ..Interest::default() };
    for id in ["ann", "stranger", "amy", "service:etl", "team:air-team", "role:analyst"] {
        for owns_mesh in [false, true] {
            let principal = policies.principal_of(id, owns_mesh).expect("a principal");
            let teams = ["air-team", "pilots"];
            let mut entities = policies.around(&principal, Some(&contract.id.domain), teams).expect("entities");
            entities.extend(nodes.iter().map(|node| node.entity(&everything).expect("an entity")));
            if let Err(error) = Entities::from_entities(entities, Some(&schema)) {
                panic!("{id}: {:?}", miette::Report::new(error));
            }
        }
    }

    let context = Context {
        purpose: Some("planning".into()),
        change: Some(Change {
            kind: ChangeKind::Update,
            needs: Some(Bump::Major),
            gives: Some(Bump::Minor),
            enough: false,
        }),
        ..Context::new("2026-05-04T10:00:00Z".parse::<DateTime<Utc>>().expect("a time"), "query")
    };
    let names = BTreeSet::from(["price".to_owned()]);
    let grant =
        GrantContext { number: 1, role: "analyst", purpose: Some("planning"), tables: &names, unmasked: &names };
    let ann = policies.principal_of("ann", false).expect("a principal");
    let of = |kind: Kind| nodes.iter().find(|node| node.kind == kind).map(Node::uid);
    for action in Action::ALL {
        let built: CedarContext =
            cedar_context(&context, &cedar_time(&context), action, Some((grant, true))).expect("a context");
        for kind in Kind::RESOURCES {
            let resource = of(kind).unwrap_or_else(|| uid(kind, "air_traffic"));
            let asked = Request::new(ann.uid.clone(), action_uid(action), resource, built.clone(), Some(&schema));
            assert_eq!(asked.is_ok(), resources_of(action).contains(&kind), "{action:?} {kind:?}: {asked:?}");
        }
    }
}

#[test]
fn only_what_policies_look_at_is_built() {
    let contract = contract();
    let ownership = Default::default();
    let product = ProductNodes::new(&contract, &ownership);
    let interest = Interest { attributes: BTreeSet::from(["name".to_owned()]), ..Interest::default() };
    let entity = product.product().entity(&interest).expect("an entity");
    assert!(entity.attr("name").is_some() && entity.attr("status").is_none());
}
