//! The files that a scan reads, beside those that `plan_files` of the `iceberg` crate plans from the same metadata.
//!
//! Without a filter both read the same files with the same deletes. With one, every file that has a row which the filter
//! accepts is among ours, and ours are among theirs; only from buckets within an OR, or of several values at once, we may
//! conclude less. The data files themselves are never opened.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::datasource::source::DataSourceExec;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use datamesh_iceberg::{LiveFile, OpenTable, Storage, TableCache};
use futures::TryStreamExt;
use iceberg::TableIdent;
use iceberg::expr::{Predicate, Reference};
use iceberg::io::FileIO;
use iceberg::scan::FileScanTask;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Literal, ManifestContentType,
    ManifestListWriter, ManifestWriterBuilder, PartitionSpec, Struct, TableMetadata,
};
use iceberg::table::StaticTable;
use iceberg::transform::create_transform_function;
use serde_json::json;

use super::open_table;
use super::source::TableFileSource;

const SNAPSHOT: i64 = 77;
/// Batches of rows; each is one snapshot's worth of files of one partition spec.
const BATCHES: i64 = 9;

#[derive(Clone, Debug)]
struct Row {
    id: i64,
    day: i32,
    name: Option<String>,
}

/// Numbers that look random, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn row(&mut self) -> Row {
        let name = match self.below(6) {
            0 => None,
            first => Some(format!("{}{}", ["aa", "ab", "bb", "Zü", "日本"][first as usize - 1], self.below(4))),
        };
        Row { id: self.below(300) as i64, day: 19_700 + self.below(70) as i32, name }
    }
}

/// A filter as they take it, as we take it, and what it means.
#[derive(Clone)]
struct Filter {
    theirs: Predicate,
    ours: Expr,
    accepts: Rc<dyn Fn(&Row) -> bool>,
    /// Whether we may conclude less.
    less: bool,
}

impl Filter {
    fn new(theirs: Predicate, ours: Expr, accepts: impl Fn(&Row) -> bool + 'static) -> Self {
        Self { theirs, ours, accepts: Rc::new(accepts), less: false }
    }

    /// Whether it is about the column that is kept in buckets.
    fn is_of_id(&self) -> bool {
        self.ours.column_refs().iter().any(|column| column.name == "id")
    }

    fn and(&self, other: &Self) -> Self {
        let (one, two) = (self.accepts.clone(), other.accepts.clone());
        let (theirs, ours) = (self.theirs.clone().and(other.theirs.clone()), self.ours.clone().and(other.ours.clone()));
        let both = Self::new(theirs, ours, move |row| one(row) && two(row));
        let both_of_id = self.is_of_id() && other.is_of_id();
        Self { less: self.less || other.less || both_of_id, ..both }
    }

    fn or(&self, other: &Self) -> Self {
        let (one, two) = (self.accepts.clone(), other.accepts.clone());
        let (theirs, ours) = (self.theirs.clone().or(other.theirs.clone()), self.ours.clone().or(other.ours.clone()));
        Self { less: true, ..Self::new(theirs, ours, move |row| one(row) || two(row)) }
    }

    /// Filters about the values of a row.
    fn about(row: &Row) -> Vec<Self> {
        let (id, day) = (row.id, row.day);
        let name = row.name.clone().unwrap_or_else(|| "aa1".to_owned());
        let date = lit(ScalarValue::Date32(Some(day)));
        let (id_is, day_is, name_is) = (|| Reference::new("id"), || Reference::new("day"), || Reference::new("name"));
        let prefix: String = name.chars().take(2).collect();
        let (equal, less, starts) = (name.clone(), name.clone(), prefix.clone());
        vec![
            Self::new(id_is().equal_to(Datum::long(id)), col("id").eq(lit(id)), move |row| row.id == id),
            Self::new(id_is().less_than(Datum::long(id)), col("id").lt(lit(id)), move |row| row.id < id),
            Self::new(id_is().not_equal_to(Datum::long(id)), col("id").not_eq(lit(id)), move |row| row.id != id),
            Self::new(
                id_is().is_in([Datum::long(id), Datum::long(id + 1)]),
                col("id").in_list(vec![lit(id), lit(id + 1)], false),
                move |row| row.id == id || row.id == id + 1,
            ),
            Self::new(day_is().equal_to(Datum::date(day)), col("day").eq(date.clone()), move |row| row.day == day),
            Self::new(day_is().greater_than(Datum::date(day)), col("day").gt(date.clone()), move |row| row.day > day),
            Self::new(day_is().less_than_or_equal_to(Datum::date(day)), col("day").lt_eq(date), move |row| {
                row.day <= day
            }),
            Self::new(name_is().equal_to(Datum::string(&name)), col("name").eq(lit(name.as_str())), move |row| {
                row.name.as_deref() == Some(equal.as_str())
            }),
            Self::new(name_is().less_than(Datum::string(&name)), col("name").lt(lit(name.as_str())), move |row| {
                row.name.as_deref().is_some_and(|name| name < less.as_str())
            }),
            Self::new(
                name_is().starts_with(Datum::string(&prefix)),
                col("name").like(lit(format!("{prefix}%"))),
                move |row| row.name.as_deref().is_some_and(|name| name.starts_with(&starts)),
            ),
            Self::new(name_is().is_null(), col("name").is_null(), |row| row.name.is_none()),
            Self::new(name_is().is_not_null(), col("name").is_not_null(), |row| row.name.is_some()),
        ]
    }
}

/// The partition of a row.
fn partition(spec: &PartitionSpec, row: &Row) -> Struct {
    let value = |field: &iceberg::spec::PartitionField| {
        let source = match field.source_id {
            1 => Some(Datum::long(row.id)),
            2 => Some(Datum::date(row.day)),
            _ => row.name.as_ref().map(Datum::string),
        };
        let function = create_transform_function(&field.transform).expect("a transform");
        let value = source.and_then(|source| function.transform_literal(&source).expect("a value"));
        value.map(|value| Literal::Primitive(value.literal().clone()))
    };
    spec.fields().iter().map(value).collect()
}

fn order(a: &Datum, b: &Datum) -> Ordering {
    a.partial_cmp(b).expect("values of one type")
}

fn data_file(url: &str, spec_id: i32, partition: Struct, rows: &[Row]) -> DataFile {
    let names = || rows.iter().filter_map(|row| row.name.as_ref());
    let bounds = |extreme: fn(&mut dyn Iterator<Item = Datum>) -> Option<Datum>| -> HashMap<i32, Datum> {
        let columns = [
            (1, extreme(&mut rows.iter().map(|row| Datum::long(row.id)))),
            (2, extreme(&mut rows.iter().map(|row| Datum::date(row.day)))),
            (3, extreme(&mut names().map(Datum::string))),
        ];
        columns.into_iter().filter_map(|(id, bound)| Some((id, bound?))).collect()
    };
    let count = rows.len() as u64;
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(url.to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .partition_spec_id(spec_id)
        .record_count(count)
        .file_size_in_bytes(1000)
        .value_counts([(1, count), (2, count), (3, count)].into_iter().collect())
        .null_value_counts([(1, 0), (2, 0), (3, count - names().count() as u64)].into_iter().collect())
        .lower_bounds(bounds(|values| values.min_by(order)))
        .upper_bounds(bounds(|values| values.max_by(order)))
        .build()
        .expect("a data file")
}

fn delete_file(url: &str, content: DataContentType, spec_id: i32, partition: Struct) -> DataFile {
    DataFileBuilder::default()
        .content(content)
        .file_path(url.to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .partition_spec_id(spec_id)
        .record_count(1)
        .file_size_in_bytes(100)
        .equality_ids((content == DataContentType::EqualityDeletes).then(|| vec![1]))
        .build()
        .expect("a delete file")
}

/// Writes a table's metadata; returns its document and the rows of its data files.
async fn table(folder: &Path, numbers: &mut Numbers) -> (String, BTreeMap<String, Vec<Row>>) {
    let location = format!("file://{}", folder.display());
    std::fs::create_dir_all(folder.join("metadata")).expect("a folder");
    let field = |source: i32, id: i32, transform: &str| json!({ "source-id": source, "field-id": id, "name": format!("part_{id}"), "transform": transform });
    let column = |id: i32, name: &str, kind: &str| json!({ "id": id, "name": name, "required": false, "type": kind });
    let mut document = json!({
        "format-version": 2, "table-uuid": "1b103740-1010-47dc-b505-179f797712c3", "location": location,
        "last-sequence-number": BATCHES, "last-updated-ms": 1_795_418_136_065_i64, "last-column-id": 3,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields":
            [column(1, "id", "long"), column(2, "day", "date"), column(3, "name", "string")] }],
        "current-schema-id": 0, "default-spec-id": 2, "last-partition-id": 1003,
        "partition-specs": [
            { "spec-id": 0, "fields": [] },
            { "spec-id": 1, "fields": [field(2, 1000, "identity"), field(3, 1001, "truncate[2]")] },
            { "spec-id": 2, "fields": [field(1, 1002, "bucket[4]"), field(2, 1003, "month")] },
        ],
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
    });
    let metadata: TableMetadata = serde_json::from_value(document.clone()).expect("metadata");
    let io = FileIO::new_with_fs();
    let (mut manifests, mut files) = (Vec::new(), BTreeMap::new());
    for batch in 0..BATCHES {
        let spec_id = (batch % 3) as i32;
        let spec = metadata.partition_spec_by_id(spec_id).expect("a spec").as_ref().clone();
        let mut parts: BTreeMap<String, (Struct, Vec<Row>)> = BTreeMap::new();
        for row in (0..12).map(|_| numbers.row()) {
            let partition = partition(&spec, &row);
            parts.entry(format!("{partition:?}")).or_insert_with(|| (partition, Vec::new())).1.push(row);
        }
        let manifest = |name: &str| {
            let output = io.new_output(format!("{location}/metadata/{name}-{batch}.avro")).expect("a place");
            ManifestWriterBuilder::new(output, Some(SNAPSHOT), metadata.current_schema().clone(), spec.clone())
        };
        let (mut data, mut deletes) = (manifest("data").build_v2_data(), manifest("deletes").build_v2_deletes());
        for (at, (partition, rows)) in parts.into_values().enumerate() {
            let url = format!("{location}/data/{batch}-{at}.parquet");
            data.add_file(data_file(&url, spec_id, partition.clone(), &rows), batch + 1).expect("an entry");
            files.insert(url, rows);
            for (kind, content) in
                [("positions", DataContentType::PositionDeletes), ("equality", DataContentType::EqualityDeletes)]
            {
                if at == 0 || numbers.below(3) == 0 {
                    let url = format!("{location}/data/{kind}-{batch}-{at}.parquet");
                    let sequence = 1 + numbers.below(BATCHES as u64) as i64;
                    let file = delete_file(&url, content, spec_id, partition.clone());
                    deletes.add_file(file, sequence).expect("an entry");
                }
            }
        }
        manifests.push(data.write_manifest_file().await.expect("a manifest"));
        manifests.push(deletes.write_manifest_file().await.expect("a manifest"));
    }
    let list_url = format!("{location}/metadata/snap.avro");
    let sink = io.new_output(&list_url).expect("a place").writer().await.expect("a writer");
    let mut list = ManifestListWriter::v2(sink, SNAPSHOT, None, BATCHES);
    list.add_manifests(manifests.into_iter()).expect("manifests");
    list.close().await.expect("a list");
    document["current-snapshot-id"] = json!(SNAPSHOT);
    document["snapshots"] = json!([{ "snapshot-id": SNAPSHOT, "sequence-number": BATCHES, "schema-id": 0,
        "timestamp-ms": 1_795_418_136_065_i64, "manifest-list": list_url, "summary": { "operation": "append" } }]);
    let path = folder.join("metadata/00001.metadata.json");
    std::fs::write(&path, document.to_string()).expect("a document");
    (format!("file://{}", path.display()), files)
}

async fn theirs(document: &str, filter: Option<&Filter>) -> Vec<FileScanTask> {
    let name = TableIdent::from_strs(["db", "t"]).expect("a name");
    let table = StaticTable::from_metadata_file(document, name, FileIO::new_with_fs()).await.expect("a table");
    let scan = table.scan();
    let scan = if let Some(filter) = filter { scan.with_filter(filter.theirs.clone()) } else { scan };
    let scan = scan.build().expect("a scan");
    scan.plan_files().await.expect("a plan").try_collect().await.expect("files")
}

/// The files that we read.
async fn ours(document: &str, filter: Option<&Filter>) -> BTreeSet<String> {
    read_with(&Arc::new(TableCache::new(0)), document, filter).await.expect("a plan")
}

async fn read_with(
    cache: &Arc<TableCache>,
    document: &str,
    filter: Option<&Filter>,
) -> Result<BTreeSet<String>, String> {
    let table = OpenTable::read(&Storage::new([]), document).await.expect("a table");
    let provider = open_table(cache, &table, None).await.map_err(|error| error.to_string())?;
    let filters: Vec<Expr> = filter.into_iter().map(|filter| filter.ours.clone()).collect();
    let plan = provider.scan(&SessionContext::new().state(), None, &filters, None).await;
    let plan = plan.map_err(|error| error.to_string())?;
    let scan = plan.downcast_ref::<DataSourceExec>().expect("a scan");
    let (config, _) = scan.downcast_to_file_source::<TableFileSource>().expect("files");
    let files = config.file_groups.iter().flat_map(|group| group.files());
    Ok(files.map(|file| format!("file:///{}", file.object_meta.location)).collect())
}

/// The deletes that we apply, by data file.
async fn our_deletes(document: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cache = TableCache::new(0);
    let table = OpenTable::read(&Storage::new([]), document).await.expect("a table");
    let view = table.view(None).expect("a view");
    let manifests = view.manifests(&cache).await.expect("manifests");
    let data: Vec<_> =
        manifests.iter().filter(|manifest| manifest.content == ManifestContentType::Data).cloned().collect();
    let deletes = view.deletes(&manifests, &cache).await.expect("deletes");
    let files = view.live_files(&data, &cache).await.expect("files");
    let urls = |file: &LiveFile| deletes.of(file).iter().map(|delete| delete.url().to_owned()).collect();
    files.iter().map(|file| (file.url().to_owned(), urls(file))).collect()
}

#[tokio::test]
async fn manifests_are_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (document, files) = table(folder.path(), &mut Numbers(1)).await;
    let cache = Arc::new(TableCache::new(1 << 24));
    let wanted: BTreeSet<String> = files.into_keys().collect();
    assert_eq!(read_with(&cache, &document, None).await.as_ref(), Ok(&wanted));
    for file in std::fs::read_dir(folder.path().join("metadata")).expect("a folder") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|ending| ending == "avro") {
            std::fs::remove_file(path).expect("removed");
        }
    }
    assert_eq!(read_with(&cache, &document, None).await.as_ref(), Ok(&wanted), "nobody asks for what is known");
    let without = read_with(&Arc::new(TableCache::new(0)), &document, None).await;
    assert!(without.as_ref().is_err_and(|why| why.contains(".avro")), "{without:?}");
}

#[tokio::test]
async fn files_are_those_that_the_iceberg_crate_plans() {
    for seed in 1..=4 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut numbers = Numbers(seed);
        let (document, files) = table(folder.path(), &mut numbers).await;

        let planned = theirs(&document, None).await;
        let read = ours(&document, None).await;
        assert_eq!(read, files.keys().cloned().collect::<BTreeSet<_>>());
        assert_eq!(read, planned.iter().map(|task| task.data_file_path.clone()).collect::<BTreeSet<_>>());
        let planned: BTreeMap<String, BTreeSet<String>> = planned
            .into_iter()
            .map(|task| (task.data_file_path, task.deletes.into_iter().map(|delete| delete.file_path).collect()))
            .collect();
        assert!(planned.values().any(|deletes| deletes.len() > 1), "some files have deletes");
        assert_eq!(our_deletes(&document).await, planned);

        let leaves: Vec<Filter> = (0..4).flat_map(|_| Filter::about(&numbers.row())).collect();
        let mut filters = leaves.clone();
        for _ in 0..30 {
            let mut pick = || leaves[numbers.below(leaves.len() as u64) as usize].clone();
            let (one, two, three) = (pick(), pick(), pick());
            filters.extend([one.and(&two), one.or(&two), one.or(&two).and(&three), one.and(&two).or(&three)]);
        }
        let mut left_out = 0;
        for filter in filters {
            let planned: BTreeSet<String> =
                theirs(&document, Some(&filter)).await.into_iter().map(|task| task.data_file_path).collect();
            let read = ours(&document, Some(&filter)).await;
            let more: Vec<&String> = read.difference(&planned).collect();
            assert!(filter.less || more.is_empty(), "{} of {seed}: more than planned: {more:?}", filter.ours);
            for (file, rows) in &files {
                let wanted = rows.iter().any(|row| (filter.accepts)(row));
                assert!(!wanted || read.contains(file), "{} of {seed}: {file} is not read", filter.ours);
            }
            left_out += files.len() - read.len();
        }
        assert!(left_out > files.len(), "filters leave files out");
    }
}
