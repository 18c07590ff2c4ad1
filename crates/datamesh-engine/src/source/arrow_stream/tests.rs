//! Streams of batches through the audit, by way of a check.

use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::array::{
    ArrayRef, AsArray, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, LargeListArray, ListArray,
    RecordBatch, RecordBatchIterator, RunArray, StringArray, StringViewArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use datafusion::arrow::error::ArrowError;
use datamesh_app::Progress;
use datamesh_app::check::{CheckReport, CheckRequest, CheckStatus, RuleStatus, check};
use datamesh_app::ports::{ArrowInput, StageInput};
use datamesh_core::contract::DataProduct;
use datamesh_core::ids::AttemptId;
use datamesh_core::ports::{PublishStep, StepObserver};
use datamesh_core::{ErrorCode, Result};
use datamesh_iceberg::local::to_url;
use datamesh_iceberg::storage::Storage;
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{DataEngine, EngineOptions};

struct Silent;

impl StepObserver for Silent {
    fn reached(&self, _: PublishStep) {}
}

impl Progress for Silent {
    fn read(&self, _: &str, _: u64, _: Option<u64>) {}
}

fn contract(table: &Value) -> DataProduct {
    serde_json::from_value(json!({
        "format": 1, "id": { "domain": "shop", "product": "orders" }, "version": "1.0.0", "owner": "team",
        "status": "active", "tables": [table],
    }))
    .expect("a contract")
}

fn input(batches: Vec<Result<RecordBatch, ArrowError>>, schema: Arc<Schema>) -> ArrowInput {
    ArrowInput::new("test.Frame", Box::new(RecordBatchIterator::new(batches, schema)))
}

fn whole(columns: Vec<(&str, ArrayRef)>) -> ArrowInput {
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let schema = batch.schema();
    input(vec![Ok(batch)], schema)
}

/// Checks a stream, and gives the failing rows.
async fn judge(table: Value, input: ArrowInput) -> Result<(CheckReport, Vec<RecordBatch>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = DataEngine::new(EngineOptions {
        warehouse: to_url(&folder.path().join("warehouse")),
        storage: Storage::new([]),
        scratch: folder.path().join("scratch"),
        private: Vec::new(),
        parallelism: 2,
        memory: 256 << 20,
        batch_size: 3,
    })?;
    let request = CheckRequest {
        table: table["name"].as_str().expect("a name").to_owned(),
        contract: contract(&table),
        input: StageInput::Arrow(input),
        failing: true,
        scratch: folder.path().join("rows"),
        attempt: AttemptId::new(Uuid::from_u128(1)),
        now: DateTime::UNIX_EPOCH,
    };
    let (report, rows) = check(request, &engine, Arc::new(Silent)).await?;
    let batches = match rows {
        Some(rows) => rows.batches.try_collect().await?,
        None => Vec::new(),
    };
    assert!(!folder.path().join("warehouse").exists(), "a check writes nothing to the warehouse");
    Ok((report, batches))
}

fn column(name: &str, data_type: Value) -> Value {
    json!({ "name": name, "type": data_type })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_layout_of_a_type_is_that_type() {
    let words = ["a", "b", "a", "c"];
    let lists = || ListArray::from_iter_primitive::<Int64Type, _, _>((0..4).map(|row| Some(vec![Some(row)])));
    let views = cast(
        &(Arc::new(lists()) as ArrayRef),
        &DataType::ListView(Arc::new(Field::new_list_field(DataType::Int64, true))),
    );
    let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 4]), &StringArray::from(vec!["x", "y"]));
    let dictionary: DictionaryArray<Int32Type> = words.into_iter().collect();
    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>((0..4).map(|row| Some(vec![Some(row)])));
    let uuids = FixedSizeBinaryArray::try_from_iter((0..4_u8).map(|row| [row; 16])).expect("uuids");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("word", Arc::new(dictionary)),
        ("view", Arc::new(StringViewArray::from(words.to_vec()))),
        ("large", Arc::new(large)),
        ("listed", views.expect("views")),
        ("run", Arc::new(runs.expect("runs"))),
        ("id", Arc::new(uuids)),
        ("number", Arc::new(StringArray::from(vec!["1", "2", "3", "4"]))),
    ];
    let longs = || json!({ "array": column("element", json!("long")) });
    let one_of =
        |name: &str, allowed: &[&str]| json!({ "name": name, "type": "string", "constraints": { "enum": allowed } });
    let table = json!({
        "name": "orders",
        "columns": [
            one_of("word", &["a", "b", "c"]), one_of("view", &["a", "b", "c"]), column("large", longs()),
            column("listed", longs()), one_of("run", &["x", "y"]), column("id", json!("uuid")), column("number", json!("long")),
        ],
    });
    let (report, rows) = judge(table, whole(columns)).await.expect("checked");
    assert_eq!((report.rows, report.passed, report.failed), (4, 4, 0), "{report:?}");
    assert_eq!((report.status, rows.len()), (CheckStatus::Passed, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_rows_come_whole_with_their_reasons() {
    let table = json!({
        "name": "orders",
        "quarantine": { "percent": 100.0 },
        "columns": [
            { "name": "id", "type": "long", "primaryKey": true },
            { "name": "amount", "type": "long", "constraints": { "minimum": "0" } },
            column("note", json!("string")),
        ],
    });
    let frame = || {
        whole(vec![
            ("id", Arc::new(Int64Array::from(vec![1, 2, 2, 3, 4])) as ArrayRef),
            ("amount", Arc::new(Int64Array::from(vec![5, 6, 7, -1, 8]))),
            ("note", Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]))),
            ("extra", Arc::new(Int64Array::from(vec![0; 5]))),
        ])
    };
    let (report, rows) = judge(table, frame()).await.expect("checked");
    assert_eq!((report.rows, report.passed, report.failed), (5, 2, 3), "{report:?}");
    assert_eq!(report.status, CheckStatus::Quarantined);
    assert_eq!(report.ignored_columns, ["extra"]);
    let rule = |name: &str| report.rules.iter().find(|result| result.rule.name == name).expect("a rule");
    assert_eq!((rule("primaryKey:id").failed, rule("minimum:amount").failed, rule("type:id").failed), (2, 1, 0));
    assert_eq!((rule("minimum:amount").status, rule("type:id").status), (RuleStatus::Failed, RuleStatus::Passed));
    let mut notes: Vec<String> = rows
        .iter()
        .flat_map(|batch| batch.column_by_name("note").expect("a column").as_string::<i32>().iter().flatten())
        .map(str::to_owned)
        .collect();
    notes.sort();
    assert_eq!(notes, ["b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_column_that_is_not_there_fails_the_check() {
    let table = json!({
        "name": "orders",
        "columns": [{ "name": "id", "type": "long", "required": true }, column("note", json!("string"))],
    });
    let frame = whole(vec![("note", Arc::new(StringArray::from(vec!["a"])) as ArrayRef)]);
    let (report, _) = judge(table, frame).await.expect("checked");
    assert_eq!(report.status, CheckStatus::Failed);
    assert_eq!(report.because, ["table `orders`: the source has no column `id`, which is required"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_producer_says_is_told() {
    let table = json!({ "name": "orders", "columns": [column("id", json!("long"))] });
    let first = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).expect("a batch");
    let schema = first.schema();
    let broken = ArrowError::CDataInterface("ValueError: the tap ran dry".to_owned());
    let error = judge(table, input(vec![Ok(first), Err(broken)], schema)).await.expect_err("a broken stream");
    assert_eq!(error.code(), ErrorCode::SourceUnreadable);
    assert!(error.to_string().contains("test.Frame") && error.to_string().contains("the tap ran dry"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_once() {
    let table = json!({ "name": "orders", "columns": [column("id", json!("long"))] });
    let frame = whole(vec![("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    judge(table.clone(), frame.clone()).await.expect("checked");
    let error = judge(table, frame).await.expect_err("a stream that was read");
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
}
