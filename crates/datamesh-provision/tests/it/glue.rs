//! Glue: a real client against moto's server, with a proxy between that throttles, loses and overtakes.

use std::time::Duration;

use aws_sdk_glue::Client;
use aws_sdk_glue::config::retry::RetryConfig;
use aws_sdk_glue::config::timeout::TimeoutConfig;
use aws_sdk_glue::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_glue::types::{DatabaseInput, TableInput};
use datamesh_core::ErrorCode;
use datamesh_provision::catalog;
use datamesh_provision::glue::GlueTarget;
use datamesh_provision::provision::{
    ApplyOptions, PointerChange, Retry, State, TokioTimer, apply, describe, destroy, plan, sync,
};

use crate::contracts::full;
use crate::log::Log;
use crate::provision::{DATABASE, MESH, TABLE, desired, of, options, published, wait};
use crate::proxy::{Fault, Proxy};

const WRITES: [&str; 6] =
    ["CreateDatabase", "UpdateDatabase", "DeleteDatabase", "CreateTable", "UpdateTable", "DeleteTable"];

struct Catalog {
    proxy: Proxy,
    client: Client,
    target: GlueTarget,
}

/// A catalog of its own for each test: that of a region.
fn catalog_of(region: &'static str) -> Option<Catalog> {
    let proxy = Proxy::start()?;
    let config = aws_sdk_glue::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(region))
        .credentials_provider(Credentials::new("test", "not-so-secret", None, None, "tests"))
        .endpoint_url(format!("http://127.0.0.1:{}", proxy.port))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(20)).build())
        .build();
    let client = Client::from_conf(config);
    Some(Catalog { target: GlueTarget::new(client.clone(), None), client, proxy })
}

fn quick() -> ApplyOptions {
    let retry = Retry { attempts: 6, base: Duration::from_millis(1), cap: Duration::from_millis(5) };
    ApplyOptions { retry, ..options() }
}

impl Catalog {
    async fn state(&self, publication: u64) -> State {
        describe(&self.target, &of(publication), quick().retry, &TokioTimer).await.unwrap()
    }

    fn writes(&self) -> Vec<String> {
        self.proxy.calls().into_iter().filter(|call| WRITES.contains(&call.as_str())).collect()
    }
}

#[test]
fn a_mesh_is_provisioned_followed_and_removed() {
    let Some(catalog) = catalog_of("us-east-1") else { return };
    wait(async {
        let target = &catalog.target;
        let applied = apply(target, &of(1), &quick(), &TokioTimer).await.unwrap();
        applied.check().unwrap();
        assert_eq!(catalog.writes(), ["CreateDatabase", "CreateTable", "CreateTable"]);
        assert!(plan(&of(1), &catalog.state(1).await, true).is_empty(), "what Glue keeps is what it was given");
        apply(target, &of(1), &quick(), &TokioTimer).await.unwrap();
        assert!(catalog.writes().is_empty(), "applying again writes nothing");

        let table = catalog.client.get_table().database_name(DATABASE).name(TABLE).send().await.unwrap().table.unwrap();
        let parameters = table.parameters.unwrap();
        assert_eq!(parameters["table_type"], "ICEBERG");
        assert!(parameters["metadata_location"].ends_with("/metadata/1-x.metadata.json"));
        assert_eq!(table.storage_descriptor.unwrap().columns.unwrap()[1].name, "email");
        assert_eq!(table.table_type.as_deref(), Some("EXTERNAL_TABLE"));

        apply(target, &of(2), &quick(), &TokioTimer).await.unwrap();
        let table = catalog.client.get_table().database_name(DATABASE).name(TABLE).send().await.unwrap().table.unwrap();
        let parameters = table.parameters.unwrap();
        assert!(parameters["metadata_location"].contains("/2-x."));
        assert!(parameters["previous_metadata_location"].contains("/1-x."));

        destroy(target, MESH, None, &quick(), &TokioTimer).await.unwrap().check().unwrap();
        assert!(catalog.state(1).await.databases.is_empty());
    });
}

#[test]
fn edits_by_hand_are_found_and_mended() {
    let Some(catalog) = catalog_of("us-east-2") else { return };
    wait(async {
        let target = &catalog.target;
        apply(target, &of(1), &quick(), &TokioTimer).await.unwrap();
        let input = TableInput::builder()
            .name(TABLE)
            .parameters(catalog::MESH, MESH)
            .parameters("numRows", "7")
            .view_original_text("theirs")
            .retention(3)
            .build()
            .unwrap();
        catalog.client.update_table().database_name(DATABASE).table_input(input).send().await.unwrap();
        catalog.client.delete_table().database_name(DATABASE).name("customer_notes").send().await.unwrap();
        let drift = plan(&of(1), &catalog.state(1).await, false);
        assert_eq!(
            drift.changes.iter().map(|change| change.object()).collect::<Vec<_>>(),
            ["customer_customer_360_v2.customer_notes", "customer_customer_360_v2.customer_profile"]
        );
        apply(target, &of(1), &quick(), &TokioTimer).await.unwrap().check().unwrap();
        assert!(plan(&of(1), &catalog.state(1).await, true).is_empty());
        let table = catalog.client.get_table().database_name(DATABASE).name(TABLE).send().await.unwrap().table.unwrap();
        assert_eq!((table.retention, table.view_original_text.as_deref()), (3, Some("theirs")), "it is not ours");
        assert_eq!(table.parameters.unwrap()["numRows"], "7");
    });
}

#[test]
fn faults_are_survived_wherever_they_come() {
    let Some(catalog) = catalog_of("us-west-1") else { return };
    let faults = [Fault::Throttled, Fault::AnswerLost, Fault::RequestLost, Fault::Unavailable];
    wait(async {
        let target = &catalog.target;
        for fault in faults {
            for write in ["CreateDatabase", "CreateTable"] {
                catalog.proxy.fail([(write, fault), (write, Fault::Throttled), (write, fault)]);
            }
            catalog.proxy.fail([("UpdateTable", fault)]);
            apply(target, &of(1), &quick(), &TokioTimer).await.unwrap().check().unwrap();
            apply(target, &of(2), &quick(), &TokioTimer).await.unwrap().check().unwrap();
            assert!(plan(&of(2), &catalog.state(2).await, true).is_empty(), "{fault:?}");
            catalog.proxy.fail([("GetDatabases", fault), ("DeleteTable", fault), ("DeleteDatabase", fault)]);
            destroy(target, MESH, None, &quick(), &TokioTimer).await.unwrap().check().unwrap();
            assert!(catalog.state(1).await.databases.is_empty(), "{fault:?}");
            assert_eq!(catalog.proxy.left(), 0, "{fault:?}: every fault happened");
        }
    });
}

#[test]
fn a_lost_answer_makes_nothing_twice() {
    let Some(catalog) = catalog_of("us-west-2") else { return };
    wait(async {
        catalog.proxy.fail([("CreateTable", Fault::AnswerLost)]);
        let applied = apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap();
        assert_eq!((applied.done.len(), applied.failed.len()), (3, 0), "it counts as done, once");
        assert_eq!(catalog.writes(), ["CreateDatabase", "CreateTable", "CreateTable", "CreateTable"]);
        catalog.proxy.fail([("UpdateTable", Fault::AnswerLost)]);
        apply(&catalog.target, &of(2), &quick(), &TokioTimer).await.unwrap().check().unwrap();
        assert_eq!(catalog.proxy.left(), 0);
        let parameters = &catalog.state(2).await.databases[DATABASE].tables["customer_notes"].table.parameters;
        assert!(parameters[catalog::PREVIOUS_METADATA_LOCATION].contains("/1-x."), "{parameters:?}");
    });
}

#[test]
fn throttling_without_end_ends() {
    let Some(catalog) = catalog_of("eu-central-1") else { return };
    wait(async {
        catalog.proxy.fail(vec![("CreateTable", Fault::Throttled); 6]);
        let applied = apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap();
        let error = applied.check().unwrap_err();
        assert!(error.to_string().contains("ThrottlingException"), "{error}");
        assert!(error.help().unwrap().contains("goes on where it stopped"));
        assert_eq!(applied.done.len(), 1, "the database was made");
        let resumed = apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap();
        assert_eq!((resumed.done.len(), resumed.failed.len()), (2, 0));
    });
}

#[test]
fn a_failure_in_the_middle_is_resumed() {
    let Some(catalog) = catalog_of("eu-west-1") else { return };
    wait(async {
        catalog.proxy.fail([("CreateTable", Fault::Failed)]);
        let applied = apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap();
        assert_eq!((applied.done.len(), applied.failed.len()), (2, 1));
        assert!(applied.check().unwrap_err().to_string().contains("InvalidInputException"));
        catalog.writes();
        apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap().check().unwrap();
        assert_eq!(catalog.writes(), ["CreateTable"]);
    });
}

#[test]
fn what_somebody_else_changes_meanwhile_is_kept() {
    let Some(catalog) = catalog_of("eu-west-2") else { return };
    wait(async {
        apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap().check().unwrap();
        catalog.proxy.fail([("UpdateTable", Fault::Overtaken)]);
        apply(&catalog.target, &of(2), &quick(), &TokioTimer).await.unwrap().check().unwrap();
        assert_eq!(catalog.proxy.left(), 0);
        let state = catalog.state(2).await;
        assert!(plan(&of(2), &state, true).is_empty());
        let notes =
            state.databases[DATABASE].tables.values().filter(|found| found.table.parameters.contains_key("numRows"));
        assert_eq!(notes.count(), 1, "the other's note survived");
        // Two who follow the same table at once: both end at the newest.
        let pointer = |publication: u64| PointerChange {
            database: DATABASE.into(),
            table: TABLE.into(),
            metadata_location: format!("s3://lake/metadata/{publication}.json"),
            publication,
            sequence: publication,
        };
        let (nine, eight) = ([pointer(9)], [pointer(8)]);
        let quick = quick();
        let (one, two) = tokio::join!(
            sync(&catalog.target, MESH, &nine, &quick, &TokioTimer),
            sync(&catalog.target, MESH, &eight, &quick, &TokioTimer)
        );
        one.unwrap();
        two.unwrap();
        let state = catalog.state(2).await;
        let parameters = &state.databases[DATABASE].tables[TABLE].table.parameters;
        assert_eq!(parameters[catalog::METADATA_LOCATION], "s3://lake/metadata/9.json");
    });
}

#[test]
fn what_is_somebody_elses_is_not_touched() {
    let Some(catalog) = catalog_of("eu-west-3") else { return };
    wait(async {
        let input = DatabaseInput::builder().name(DATABASE).description("theirs").build().unwrap();
        catalog.client.create_database().database_input(input).send().await.unwrap();
        catalog.proxy.calls();
        let error = apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PlanRefused);
        destroy(&catalog.target, MESH, None, &quick(), &TokioTimer).await.unwrap().check().unwrap();
        assert!(catalog.writes().is_empty());
        assert_eq!(catalog.state(1).await.databases.len(), 1);

        // A table of somebody else's keeps the database that it stands in.
        catalog.client.delete_database().name(DATABASE).send().await.unwrap();
        apply(&catalog.target, &of(1), &quick(), &TokioTimer).await.unwrap().check().unwrap();
        let input = TableInput::builder().name("theirs").build().unwrap();
        catalog.client.create_table().database_name(DATABASE).table_input(input).send().await.unwrap();
        destroy(&catalog.target, MESH, None, &quick(), &TokioTimer).await.unwrap().check().unwrap();
        let state = catalog.state(1).await;
        assert_eq!(state.databases[DATABASE].tables.keys().collect::<Vec<_>>(), ["theirs"]);
    });
}

#[test]
fn many_pages_are_read() {
    let Some(catalog) = catalog_of("ap-south-1") else { return };
    wait(async {
        let mut contract = full();
        let model = contract.tables[1].clone();
        for number in 0..120 {
            let mut table = model.clone();
            table.name = datamesh_core::Name::new(&format!("table-{number}")).unwrap();
            contract.tables.push(table);
        }
        let wanted = desired(&[published(contract, 1)]);
        apply(&catalog.target, &wanted, &quick(), &TokioTimer).await.unwrap().check().unwrap();
        let state = describe(&catalog.target, &wanted, quick().retry, &TokioTimer).await.unwrap();
        assert!(plan(&wanted, &state, true).is_empty());
        assert_eq!(state.databases[DATABASE].tables.len(), 122);
    });
}

#[test]
fn publications_are_followed_through_the_outbox() {
    let Some(catalog) = catalog_of("ca-central-1") else { return };
    let mesh = Log::default();
    wait(async {
        for sequence in 1..6 {
            if sequence % 2 == 0 {
                mesh.maintain(sequence)
            } else {
                mesh.publish(sequence)
            }
            catalog.proxy.fail([("UpdateTable", Fault::AnswerLost), ("UpdateTable", Fault::Throttled)]);
            let delivered = mesh.follow(&catalog.target, quick(), &TokioTimer).await.unwrap();
            assert_eq!(delivered.to, sequence);
            let state = catalog.state(sequence).await;
            assert!(plan(&desired(&mesh.products()), &state, true).is_empty(), "entry {sequence}");
        }
        // The place is lost with the answer: what is delivered again changes nothing.
        mesh.publish(6);
        mesh.lose_next_place();
        mesh.follow(&catalog.target, quick(), &TokioTimer).await.unwrap_err();
        catalog.writes();
        let again = mesh.follow(&catalog.target, quick(), &TokioTimer).await.unwrap();
        assert_eq!((again.to, again.current.len()), (6, 2));
        assert!(catalog.writes().is_empty());
    });
}
