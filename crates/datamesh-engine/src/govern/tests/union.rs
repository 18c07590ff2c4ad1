//! Several ways in: a cell is in clear where one and the same way admits its row and shows its column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema};
use datafusion::datasource::MemTable;
use datafusion::parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use datafusion::prelude::SessionContext;
use datamesh_app::ports::Sight;
use datamesh_core::access::{AccessWay, AttributeValue, RowFilter, TableAccess};
use datamesh_core::mask::Mask;
use datamesh_core::{Column, DataType as ContractType, Table};
use proptest::prelude::*;
use serde_json::json;

use super::super::{Governor, MaskKey};

/// `a`, `b` and `c` of a row, `s.x` and `s.y`.
type Row = (Option<i64>, Option<i64>, Option<String>, Option<String>, Option<i64>);

#[derive(Clone, Debug)]
struct Way {
    /// `a <op> value`, where there is one.
    rows: Option<(&'static str, i64)>,
    masked: BTreeSet<Vec<String>>,
    hidden: BTreeSet<String>,
}

fn field(id: i32, name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
        .with_metadata([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())].into_iter().collect())
}

fn batch(rows: &[Row]) -> RecordBatch {
    let parts = Fields::from(vec![field(5, "x", DataType::Utf8), field(6, "y", DataType::Int64)]);
    let numbers = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let texts = |values: Vec<Option<String>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let (x, y) = (rows.iter().map(|row| row.3.clone()).collect(), rows.iter().map(|row| row.4).collect());
    let structs = StructArray::new(parts.clone(), vec![texts(x), numbers(y)], None);
    let schema = Schema::new(vec![
        field(1, "a", DataType::Int64),
        field(2, "b", DataType::Int64),
        field(3, "c", DataType::Utf8),
        field(4, "s", DataType::Struct(parts)),
    ]);
    let columns = vec![
        numbers(rows.iter().map(|row| row.0).collect()),
        numbers(rows.iter().map(|row| row.1).collect()),
        texts(rows.iter().map(|row| row.2.clone()).collect()),
        Arc::new(structs) as ArrayRef,
    ];
    RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
}

fn contract() -> Table {
    let mut table: Table = serde_json::from_value(json!({ "name": "t", "columns": [] })).expect("a table");
    let column = Column::anonymous;
    table.columns = vec![
        column("a", ContractType::Long),
        column("b", ContractType::Long),
        column("c", ContractType::String),
        column("s", ContractType::Struct(vec![column("x", ContractType::String), column("y", ContractType::Long)])),
    ];
    table
}

fn admits(way: &Way, a: Option<i64>) -> bool {
    match (way.rows, a) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(("<", value)), Some(a)) => a < value,
        (Some((">=", value)), Some(a)) => a >= value,
        (Some((_, value)), Some(a)) => a == value,
    }
}

/// What is seen of a cell: the value, its mask or null.
fn cell(ways: &[&Way], path: &[&str], value: Option<String>, mask: impl Fn(&str) -> Option<String>) -> Option<String> {
    let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
    let hides = |way: &Way| way.hidden.contains(&path[0]);
    let covers = |way: &Way| (1..path.len()).any(|length| way.masked.contains(&path[..length]));
    let value = value?;
    if ways.iter().any(|way| !hides(way) && !covers(way) && !way.masked.contains(&path)) {
        return Some(value);
    }
    ways.iter().any(|way| !hides(way) && !covers(way)).then(|| mask(&value)).flatten()
}

fn ways() -> impl Strategy<Value = Vec<Way>> {
    let rows = prop::option::weighted(0.8, (prop::sample::select(vec!["<", ">=", "="]), 0..6_i64));
    let paths: Vec<Vec<String>> =
        ["b", "c", "s", "s.x", "s.y"].iter().map(|path| path.split('.').map(str::to_owned).collect()).collect();
    let masked = prop::collection::btree_set(prop::sample::select(paths), 0..4);
    let hidden = prop::collection::btree_set(prop::sample::select(vec!["b".to_owned(), "c".into(), "s".into()]), 0..2);
    let way = (rows, masked, hidden).prop_map(|(rows, masked, hidden)| Way { rows, masked, hidden });
    prop::collection::vec(way, 1..4)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let number = || prop::option::weighted(0.9, 0..6_i64);
    let text = || prop::option::weighted(0.9, "[a-c]{0,3}");
    prop::collection::vec((number(), number(), text(), text(), number()), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn several_ways_show_what_each_of_them_shows(ways in ways(), rows in rows()) {
        let bucket = |text: &str| text.parse::<i64>().ok().map(|number| (number.div_euclid(3) * 3).to_string());
        let partial = |text: &str| {
            let count = text.chars().count();
            Some(if count <= 1 { "*".repeat(count) } else { "*".repeat(count - 1) + &text[text.len() - 1..] })
        };
        let masks = BTreeMap::from([
            (vec!["b".to_owned()], Mask::Bucket("3".into())),
            (vec!["c".to_owned()], Mask::Partial { first: 0, last: 1 }),
            (vec!["s".to_owned()], Mask::Null),
            (vec!["s".to_owned(), "x".to_owned()], Mask::Redact),
            (vec!["s".to_owned(), "y".to_owned()], Mask::Null),
        ]);
        let decided = ways.iter().map(|way| AccessWay {
            rows: way.rows.map(|(op, value)| RowFilter {
                condition: format!("a {op} principal.n"),
                attributes: BTreeMap::from([("n".to_owned(), AttributeValue::Long(value))]),
            }),
            masked: way.masked.clone(),
            hidden: way.hidden.clone(),
            ..AccessWay::default()
        });
        let sight = Sight::new(TableAccess { masks, ways: decided.collect() }, contract());
        let data = batch(&rows);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let seen = runtime.block_on(async {
            let table = MemTable::try_new(data.schema(), vec![vec![data.slice(0, rows.len() / 2), data.slice(rows.len() / 2, rows.len() - rows.len() / 2)]]);
            let context = SessionContext::new();
            let key = MaskKey::derive(&[1; 32]);
            let governor = Governor { context: Some(&context), key: Some(&key), table: "t", current: data.schema(), measured: false };
            let governed = governor.govern(Arc::new(table.expect("a table")), &sight).expect("governed");
            context.read_table(governed).expect("a table").collect().await.expect("rows")
        });
        let schema = seen.first().map(RecordBatch::schema);
        let seen: Vec<RecordBatch> = seen.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        let text = |array: Option<&ArrayRef>, row: usize| -> Option<String> {
            let array = array?;
            if array.is_null(row) {
                return None;
            }
            match array.data_type() {
                DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(row).to_string()),
                _ => Some(array.as_string::<i32>().value(row).to_owned()),
            }
        };
        let mut found = Vec::new();
        for batch in &seen {
            for row in 0..batch.num_rows() {
                let column = |name: &str| batch.column_by_name(name);
                let structs = column("s").map(|array| array.as_struct());
                let part = |name: &str| structs.filter(|array| array.is_valid(row)).and_then(|array| text(array.column_by_name(name), row));
                let is_there = structs.map(|array| array.is_valid(row));
                found.push((text(column("a"), row), text(column("b"), row), text(column("c"), row), is_there, part("x"), part("y")));
            }
        }
        let hidden = |name: &str| ways.iter().all(|way| way.hidden.contains(name));
        let mut wanted = Vec::new();
        for (a, b, c, x, y) in &rows {
            let admitting: Vec<&Way> = ways.iter().filter(|way| admits(way, *a)).collect();
            if admitting.is_empty() {
                continue;
            }
            let number = |value: &Option<i64>| value.map(|value| value.to_string());
            let there = admitting.iter().any(|way| !way.hidden.contains("s") && !way.masked.contains(&vec!["s".to_owned()]));
            wanted.push((
                number(a),
                cell(&admitting, &["b"], number(b), bucket),
                cell(&admitting, &["c"], c.clone(), partial),
                (!hidden("s")).then_some(there),
                cell(&admitting, &["s", "x"], x.clone(), |_| Some("***".into())),
                cell(&admitting, &["s", "y"], number(y), |_| None),
            ));
        }
        // Batches are read side by side.
        found.sort();
        wanted.sort();
        prop_assert_eq!(found, wanted);
        if let Some(schema) = schema {
            for name in ["b", "c", "s"] {
                prop_assert_eq!(schema.index_of(name).is_err(), hidden(name));
            }
        }
    }
}
