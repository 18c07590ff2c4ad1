use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int32Array, Int64Array, MapArray, StringArray, StructArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datamesh_iceberg::spec::{Literal as Value, NameMapping};

use super::adapter::{FieldIds, FileFields, PartitionValues};
use super::convert::{Conversion, Lookup, field_id};

fn field(id: i32, name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
        .with_metadata([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())].into_iter().collect())
}

fn rewritten(
    ids: FieldIds,
    table: Vec<Field>,
    file: Vec<Field>,
    column: &str,
) -> Result<Arc<dyn PhysicalExpr>, String> {
    let table = Arc::new(Schema::new(table));
    let at = table.index_of(column).expect("a column of the table");
    let adapter = ids.create(table, Arc::new(Schema::new(file))).expect("an adapter");
    adapter.rewrite(Arc::new(Column::new(column, at))).map_err(|error| error.to_string())
}

#[test]
fn columns_are_found_by_id_and_not_by_name() {
    let table = vec![field(1, "b", DataType::Utf8), field(2, "a", DataType::Int64), field(3, "c", DataType::Date32)];
    let file = vec![field(2, "b", DataType::Int32), field(1, "a", DataType::Utf8)];
    let read = |column| rewritten(FieldIds::default(), table.clone(), file.clone(), column).expect("readable");
    assert_eq!(read("b").downcast_ref::<Column>(), Some(&Column::new("a", 1)));
    let promoted = read("a");
    let cast = promoted.downcast_ref::<CastExpr>().expect("a cast");
    assert_eq!(cast.expr().downcast_ref::<Column>(), Some(&Column::new("b", 0)));
    let missing = read("c");
    assert_eq!(missing.downcast_ref::<Literal>().expect("a value").value(), &ScalarValue::Date32(None));
}

#[test]
fn what_a_file_lacks_has_its_default() {
    let defaults = [(2, ScalarValue::Int64(Some(7)))].into_iter().collect();
    let ids = FieldIds { mapping: None, defaults };
    let table = vec![field(1, "a", DataType::Int64), field(2, "b", DataType::Int64)];
    let value = rewritten(ids, table, vec![field(1, "a", DataType::Int64)], "b").expect("readable");
    assert_eq!(value.downcast_ref::<Literal>().expect("a value").value(), &ScalarValue::Int64(Some(7)));
}

#[test]
fn what_a_file_lacks_is_what_its_partition_gives() {
    let table = vec![field(1, "a", DataType::Int64), field(2, "b", DataType::Int64), field(3, "c", DataType::Date32)];
    let read = |file: Vec<Field>, mapping: Option<NameMapping>, column: &str| {
        let defaults = [(2, ScalarValue::Int64(Some(7)))].into_iter().collect();
        // The first was promoted since; the last fits no date.
        let values = [(1, None), (2, Some(Value::int(5))), (3, Some(Value::string("x")))];
        let partition = Arc::new(PartitionValues(values.into_iter().collect()));
        let fields = FileFields { field_ids: Arc::new(FieldIds { mapping, defaults }), partition };
        let schema = Arc::new(Schema::new(table.clone()));
        let at = schema.index_of(column).expect("a column of the table");
        let adapter = fields.create(schema, Arc::new(Schema::new(file))).expect("an adapter");
        adapter.rewrite(Arc::new(Column::new(column, at))).map_err(|error| error.to_string())
    };
    let value = |read: &Arc<dyn PhysicalExpr>| read.downcast_ref::<Literal>().map(|literal| literal.value().clone());
    let other = || vec![field(9, "other", DataType::Int64)];
    let of_partition = read(other(), None, "b").expect("readable");
    assert_eq!(value(&of_partition), Some(ScalarValue::Int64(Some(5))), "it goes before the default");
    assert_eq!(value(&read(other(), None, "a").expect("readable")), Some(ScalarValue::Int64(None)));
    let error = read(other(), None, "c").expect_err("text is no date");
    assert!(error.contains("column `c`"), "{error}");
    // What the file has counts, unless it has it by name only.
    let own = read(vec![field(2, "x", DataType::Int64)], None, "b").expect("readable");
    assert_eq!(own.downcast_ref::<Column>(), Some(&Column::new("x", 0)));
    let mapping = serde_json::from_str(r#"[{"field-id": 2, "names": ["b"]}]"#).expect("a mapping");
    let named = read(vec![Field::new("b", DataType::Int64, true)], Some(mapping), "b").expect("readable");
    assert_eq!(value(&named), Some(ScalarValue::Int64(Some(5))));
}

#[test]
fn a_column_that_does_not_fit_harms_only_who_reads_it() {
    let table = vec![field(1, "a", DataType::Int64), field(2, "b", DataType::Int64)];
    let file = vec![field(1, "a", DataType::Utf8), field(2, "b", DataType::Int64)];
    assert!(rewritten(FieldIds::default(), table.clone(), file.clone(), "b").is_ok());
    let error = rewritten(FieldIds::default(), table, file, "a").expect_err("text is no number");
    assert!(error.contains("column `a`"), "{error}");
}

#[test]
fn files_without_ids_get_them() {
    let item = Field::new("item", DataType::Utf8, true);
    let file = Schema::new(vec![
        Field::new("tags", DataType::List(Arc::new(item)), true),
        Field::new("place", DataType::Struct(Fields::from(vec![Field::new("city", DataType::Utf8, true)])), true),
        Field::new("other", DataType::Int64, true),
    ]);
    let mapping: NameMapping = serde_json::from_str(
        r#"[{"field-id": 3, "names": ["where", "place"], "fields": [{"field-id": 4, "names": ["city"]}]},
            {"field-id": 5, "names": ["tags"], "fields": [{"field-id": 6, "names": ["element"]}]}]"#,
    )
    .expect("a mapping");
    let (labelled, lookup) = FieldIds { mapping: Some(mapping), ..FieldIds::default() }.label(&file);
    assert_eq!(lookup, Lookup::GivenIds);
    assert_eq!(labelled.fields().iter().map(|field| field_id(field)).collect::<Vec<_>>(), [Some(5), Some(3), None]);
    let DataType::List(element) = labelled.field(0).data_type() else { panic!("a list") };
    assert_eq!(field_id(element), Some(6));
    let DataType::Struct(fields) = labelled.field(1).data_type() else { panic!("a struct") };
    assert_eq!(field_id(&fields[0]), Some(4));
    let (labelled, lookup) = FieldIds::default().label(&file);
    assert_eq!(lookup, Lookup::Names);
    assert_eq!(labelled.fields().iter().map(|field| field_id(field)).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

fn convert(from: &Field, to: &Field, array: &ArrayRef) -> ArrayRef {
    let missing = |field: &Field| ScalarValue::try_new_null(field.data_type());
    let conversion = Conversion::plan(from, to, Lookup::OwnIds, &missing).expect("a conversion");
    let array = conversion.apply(array).expect("converted");
    assert_eq!(array.data_type(), to.data_type());
    array
}

fn map_of(value: Fields) -> DataType {
    let key = field(2, "key", DataType::Utf8).with_nullable(false);
    let entries = Fields::from(vec![key, field(3, "value", DataType::Struct(value))]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
}

#[test]
fn a_struct_within_a_map_gains_fields() {
    let old = Fields::from(vec![field(4, "mark", DataType::Int32)]);
    let new = Fields::from(vec![field(5, "by", DataType::Utf8), field(4, "points", DataType::Int64)]);
    let (from, to) = (field(1, "marks", map_of(old.clone())), field(1, "marks", map_of(new)));
    let DataType::Map(entries, _) = from.data_type() else { panic!("a map") };
    let DataType::Struct(fields) = entries.data_type() else { panic!("entries") };
    let marks = StructArray::new(old, vec![Arc::new(Int32Array::from(vec![5, 6])) as ArrayRef], None);
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let pairs = StructArray::new(fields.clone(), vec![keys, Arc::new(marks)], None);
    let offsets = OffsetBuffer::new(vec![0, 2, 2, 2].into());
    let nulls = NullBuffer::from(vec![true, true, false]);
    let map: ArrayRef = Arc::new(MapArray::new(entries.clone(), offsets, pairs, Some(nulls), false));
    let converted = convert(&from, &to, &map);
    let converted = converted.as_map();
    assert!(converted.is_null(2));
    let values = converted.values().as_struct();
    assert_eq!(values.column(1).as_primitive::<Int64Type>().values(), &[5, 6]);
    assert_eq!(values.column(0).null_count(), 2);
}

#[test]
fn nulls_of_structs_stay() {
    let old = Fields::from(vec![field(2, "x", DataType::Int64), field(3, "gone", DataType::Int64)]);
    let new = Fields::from(vec![field(4, "new", DataType::Utf8), field(2, "y", DataType::Int64)]);
    let (from, to) = (field(1, "s", DataType::Struct(old.clone())), field(1, "s", DataType::Struct(new)));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])), Arc::new(Int64Array::from(vec![7, 8, 9]))];
    let nulls = NullBuffer::from(vec![true, true, false]);
    let array: ArrayRef = Arc::new(StructArray::new(old, columns, Some(nulls)));
    let converted = convert(&from, &to, &array);
    assert!(converted.is_null(2) && converted.is_valid(1));
    assert_eq!(converted.as_struct().column(1).as_primitive::<Int64Type>().value(0), 1);
}

#[test]
fn uuids_are_text() {
    let bytes = FixedSizeBinaryArray::try_from_iter([[0x11_u8; 16]].iter()).expect("uuids");
    let (from, to) = (field(1, "u", DataType::FixedSizeBinary(16)), field(1, "u", DataType::Utf8));
    let array: ArrayRef = Arc::new(bytes);
    assert_eq!(convert(&from, &to, &array).as_string::<i32>().value(0), "11111111-1111-1111-1111-111111111111");
}

#[test]
fn only_promotions_are_conversions() {
    let missing = |field: &Field| ScalarValue::try_new_null(field.data_type());
    let plan = |from: DataType, to: DataType| {
        Conversion::plan(&field(1, "a", from), &field(1, "a", to), Lookup::OwnIds, &missing).is_ok()
    };
    use DataType as T;
    for (from, to) in [
        (T::Int32, T::Int64),
        (T::Float32, T::Float64),
        (T::Decimal128(9, 2), T::Decimal128(18, 2)),
        (T::LargeUtf8, T::Utf8),
    ] {
        assert!(plan(from.clone(), to.clone()), "{from} to {to}");
    }
    for (from, to) in [
        (T::Int64, T::Int32),
        (T::Float64, T::Float32),
        (T::Decimal128(18, 2), T::Decimal128(9, 2)),
        (T::Decimal128(9, 2), T::Decimal128(18, 3)),
        (T::Int32, T::Float64),
        (T::Utf8, T::Int64),
        (T::Int64, T::Utf8),
    ] {
        assert!(!plan(from.clone(), to.clone()), "{from} to {to}");
    }
}
