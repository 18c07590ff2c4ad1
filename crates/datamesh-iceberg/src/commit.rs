//! A commit of one table: from the contract and the staged files to a new metadata document on the disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{
    DataType as Arrow, Date32Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use bytes::Bytes;
use chrono::{Datelike, NaiveDate};
use datamesh_core::contract::Table;
use datamesh_core::{Error, ErrorCode, Result};
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile as IcebergDataFile, DataFileBuilder, DataFileFormat, FormatVersion, Literal, MAIN_BRANCH,
    ManifestFile, ManifestListWriter, ManifestWriterBuilder, Operation, PartitionSpec, Snapshot, Struct, Summary,
    TableMetadata, TableMetadataBuilder, Transform,
};
use iceberg::transform::create_transform_function;
use parquet::file::metadata::ParquetMetaData;

use crate::error::internal;
use crate::schema::{arrow_schema, iceberg_schema, partition_spec, sort_order};
use crate::statistics;
use crate::storage::{Storage, join};
use crate::table::{LiveFile, OpenTable};

mod maintain;
mod overwrite;

pub use maintain::{Expiry, Maintained, Merged};
pub use overwrite::{KeyRanges, Partition, Restored};

/// The table as it will be once a publication commits: schema, partition spec and sort order are settled, files are not.
#[derive(Clone, Debug)]
pub struct TableDraft {
    base: Option<OpenTable>,
    /// The base with the contract's schema, spec and order; still without the new snapshot.
    metadata: TableMetadata,
    arrow: SchemaRef,
    location: String,
}

/// A staged data file.
#[derive(Clone, Debug)]
pub struct NewDataFile {
    /// Where it is.
    pub url: String,
    /// Exact size in bytes.
    pub bytes: u64,
    /// The file's footer.
    pub footer: Arc<ParquetMetaData>,
    /// One array of one row for each partition field: the transformed values.
    pub partition: Vec<ArrayRef>,
    /// NaN values by field id, for float and double columns.
    pub nan_counts: HashMap<i32, u64>,
}

/// A published data file's new version, without the rows that were replaced or deleted.
#[derive(Clone, Debug)]
pub struct RewrittenFile {
    /// Its URL.
    pub url: String,
    /// Exact size in bytes.
    pub bytes: u64,
    /// The file's footer.
    pub footer: Arc<ParquetMetaData>,
    /// NaN values by field id, for float and double columns.
    pub nan_counts: HashMap<i32, u64>,
    /// The file it takes the place of; it keeps that one's partition and sort order.
    pub origin: LiveFile,
}

/// How a snapshot's data files follow from those of the snapshot before.
#[derive(Clone, Copy, Debug)]
pub enum SnapshotChange<'a> {
    /// They stay; new ones are added.
    Append,
    /// All of them go; new ones take their place.
    Replace,
    /// Those in `removed`, by URL, go, the others stay; new ones are added, among them `rewritten` ones.
    Overwrite {
        /// URLs of the files that go.
        removed: &'a HashSet<String>,
        /// New versions of some of them.
        rewritten: &'a [RewrittenFile],
    },
}

/// A metadata document that is on the disk, waiting for its pointer.
#[derive(Clone, Debug)]
pub struct PreparedCommit {
    /// URL of the document.
    pub metadata_location: String,
    /// The document.
    pub metadata: String,
    /// The new snapshot.
    pub snapshot_id: i64,
    /// Rows in the new snapshot.
    pub total_rows: u64,
    /// URLs of every file that was written for it.
    pub files: Vec<String>,
}

impl TableDraft {
    /// Brings `base` to the contract, or starts a table at the URL `location`.
    ///
    /// # Errors
    /// `incompatible-change` where published data does not fit the contract.
    pub fn new(table: &Table, location: &str, base: Option<OpenTable>) -> Result<Self> {
        Self::evolved(table, location, base, false)
    }

    /// Brings `base` to the contract; with `drops`, columns that the contract no longer has go.
    ///
    /// # Errors
    /// Those of [`TableDraft::new`].
    pub fn evolved(table: &Table, location: &str, base: Option<OpenTable>, drops: bool) -> Result<Self> {
        let metadata = match &base {
            Some(base) => evolve(table, base, drops)?,
            None => create(table, location)?,
        };
        let arrow = arrow_schema(metadata.current_schema())?;
        let location = base.as_ref().map_or(location, OpenTable::table_location).to_owned();
        Ok(Self { base, metadata, arrow, location })
    }

    /// Whether files staged for `other` fit this draft: the same partition fields and sort order.
    pub fn same_layout(&self, other: &Self) -> bool {
        self.metadata.default_partition_spec().fields() == other.metadata.default_partition_spec().fields()
            && self.metadata.default_sort_order().fields == other.metadata.default_sort_order().fields
    }

    /// The document of the base under the contract, with the snapshots it has; `None`: schema, partition fields and sort
    /// order stay as they are.
    ///
    /// # Errors
    /// `internal` where the document cannot be written.
    pub fn evolution(&self) -> Result<Option<String>> {
        let Some(base) = &self.base else { return Ok(None) };
        let layout = |metadata: &TableMetadata| {
            (metadata.current_schema_id(), metadata.default_partition_spec_id(), metadata.default_sort_order_id())
        };
        if layout(&self.metadata) == layout(&base.metadata) {
            return Ok(None);
        }
        ordered(&self.metadata)
            .map(Some)
            .map_err(|error| Error::new(ErrorCode::Internal, "cannot write the table's metadata").with_source(error))
    }

    /// Writes the document of the base under the contract, with the rows and snapshots it has.
    pub async fn write_evolution(&self, storage: &Storage, attempt: &str) -> Result<PreparedCommit> {
        let folder = join(&self.location, "metadata");
        let snapshot_id = self.metadata.current_snapshot_id().unwrap_or_default();
        let writer = ManifestFiles { storage, draft: self, folder: &folder, attempt, snapshot_id, written: Vec::new() };
        self.write_document(writer, self.metadata.clone()).await
    }

    /// The Arrow schema of data files, with field ids.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The base the draft was made from.
    pub fn base(&self) -> Option<&OpenTable> {
        self.base.as_ref()
    }

    /// URL of the folder of the table's files.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// How many partition fields a data file has.
    pub fn partition_fields(&self) -> usize {
        self.metadata.default_partition_spec().fields().len()
    }

    /// Whether the source columns of a partition transform keep the transform's order, so that sorting by them groups
    /// its values.
    pub fn partition_columns(&self) -> Vec<(usize, bool)> {
        let fields = self.metadata.default_partition_spec().fields().iter();
        fields
            .filter_map(|field| {
                Some((self.column_of(field.source_id)?, !matches!(field.transform, Transform::Bucket(_))))
            })
            .collect()
    }

    fn column_of(&self, id: i32) -> Option<usize> {
        self.metadata.current_schema().as_struct().fields().iter().position(|field| field.id == id)
    }

    /// The transformed partition values of a batch: one array of the batch's length for each partition field.
    pub fn partition_values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut values = Vec::new();
        for field in self.metadata.default_partition_spec().fields() {
            let column = self.column_of(field.source_id).ok_or_else(|| {
                Error::new(ErrorCode::Internal, format!("partition field `{}` has no column", field.name))
            })?;
            let array = transform_values(&field.transform, batch.column(column))?;
            values.push(array);
        }
        Ok(values)
    }

    /// Writes manifests, manifest list and metadata document, and synchronises them with their folder.
    ///
    /// `between` is called when the manifests are written and the document is not. File names carry `attempt`, so that
    /// what a crash leaves can be told from what is referenced.
    #[expect(clippy::too_many_arguments, reason = "each is another kind of thing, and there is one caller")]
    pub async fn write(
        &self,
        storage: &Storage,
        change: SnapshotChange<'_>,
        files: &[NewDataFile],
        attempt: &str,
        now_ms: i64,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<PreparedCommit> {
        let folder = join(&self.location, "metadata");
        storage.make_folder(&folder)?;
        let spec = self.metadata.default_partition_spec().clone();
        let added = files.iter().map(|file| self.data_file(file, &spec)).collect::<Result<Vec<_>>>()?;

        let parent = self.metadata.current_snapshot();
        let mut changes = Changes::default();
        for file in &added {
            changes.add(file);
        }
        let mut manifests = Vec::new();
        let mut writer =
            ManifestFiles { storage, draft: self, folder: &folder, attempt, snapshot_id, written: Vec::new() };
        if !added.is_empty() {
            manifests.push(writer.added(added).await?);
        }
        let carried = match &self.base {
            Some(base) => base.current_manifests().await?,
            None => Vec::new(),
        };
        let operation = match change {
            SnapshotChange::Append => {
                manifests.extend(carried);
                Operation::Append
            }
            SnapshotChange::Replace => {
                manifests.extend(writer.removed(carried, &mut changes).await?);
                if parent.is_some() { Operation::Overwrite } else { Operation::Append }
            }
            SnapshotChange::Overwrite { removed, rewritten } => {
                manifests.extend(writer.rewritten(rewritten, &mut changes).await?);
                manifests.extend(writer.without(carried, removed, &mut changes).await?);
                Operation::Overwrite
            }
        };
        let properties = totals(changes.summary(), parent.map(|parent| parent.summary()), attempt);
        self.seal(writer, manifests, Summary { operation, additional_properties: properties }, now_ms, between).await
    }

    /// Writes the manifest list and the metadata document of a snapshot with these manifests.
    async fn seal(
        &self,
        mut writer: ManifestFiles<'_>,
        manifests: Vec<ManifestFile>,
        summary: Summary,
        now_ms: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<PreparedCommit> {
        let snapshot = self.snapshot(&mut writer, manifests, summary, now_ms).await?;
        between();
        let metadata = self.with_snapshot(snapshot)?;
        self.write_document(writer, metadata).await
    }

    /// Writes the manifest list of a snapshot with these manifests.
    async fn snapshot(
        &self,
        writer: &mut ManifestFiles<'_>,
        manifests: Vec<ManifestFile>,
        summary: Summary,
        now_ms: i64,
    ) -> Result<Snapshot> {
        let (storage, folder, snapshot_id) = (writer.storage, writer.folder, writer.snapshot_id);
        let parent = self.metadata.current_snapshot();
        let timestamp_ms =
            now_ms.max(parent.map_or(0, |parent| parent.timestamp_ms())).max(self.metadata.last_updated_ms());
        let sequence_number = self.metadata.next_sequence_number();
        let list_url = join(folder, &format!("snap-{snapshot_id}-{}.avro", writer.attempt));
        let memory = FileIO::new_with_memory();
        let output = memory.new_output(&list_url).map_err(internal("write the manifest list"))?;
        let parent_id = parent.map(|parent| parent.snapshot_id());
        let sink = output.writer().await.map_err(internal("write the manifest list"))?;
        let mut list = ManifestListWriter::v2(sink, snapshot_id, parent_id, sequence_number);
        list.add_manifests(manifests.into_iter()).map_err(internal("write the manifest list"))?;
        list.close().await.map_err(internal("write the manifest list"))?;
        flush(storage, &memory, &list_url).await?;
        writer.written.push(list_url.clone());
        storage.sync_folder(folder)?;
        Ok(Snapshot::builder()
            .with_snapshot_id(snapshot_id)
            .with_parent_snapshot_id(parent_id)
            .with_sequence_number(sequence_number)
            .with_timestamp_ms(timestamp_ms)
            .with_manifest_list(list_url)
            .with_summary(summary)
            .with_schema_id(self.metadata.current_schema_id())
            .build())
    }

    /// The table's metadata with one more snapshot, as its current one.
    fn with_snapshot(&self, snapshot: Snapshot) -> Result<TableMetadata> {
        let draft = self.metadata.clone().into_builder(None);
        let built = draft.set_branch_snapshot(snapshot, MAIN_BRANCH).and_then(|builder| builder.build());
        Ok(built.map_err(internal("build the table's metadata"))?.metadata)
    }

    /// Writes a metadata document.
    async fn write_document(&self, writer: ManifestFiles<'_>, metadata: TableMetadata) -> Result<PreparedCommit> {
        let ManifestFiles { storage, folder, attempt, snapshot_id, written, .. } = writer;
        let current = metadata.current_snapshot().map(|snapshot| &snapshot.summary().additional_properties);
        let total_rows =
            current.and_then(|summary| summary.get("total-records")).and_then(|rows| rows.parse().ok()).unwrap_or(0);
        let document = ordered(&metadata)
            .map_err(|error| Error::new(ErrorCode::Internal, "cannot write the table's metadata").with_source(error))?;
        let version = self.next_version();
        let mut metadata_location = join(folder, &format!("{version:05}-{attempt}.metadata.json"));
        let bytes = Bytes::from(document.clone());
        if !storage.create(&metadata_location, bytes.clone()).await? {
            // This attempt was settled before against another base of some other table. A document is never replaced.
            metadata_location = join(folder, &format!("{version:05}-{attempt}-{snapshot_id}.metadata.json"));
            if !storage.create(&metadata_location, bytes).await? {
                let message = format!("the metadata document `{metadata_location}` is there already");
                return Err(Error::new(ErrorCode::WriteFailed, message).with_help("run the same command again"));
            }
        }
        storage.sync_folder(folder)?;
        let mut files = written;
        files.push(metadata_location.clone());
        Ok(PreparedCommit { metadata_location, metadata: document, snapshot_id, total_rows, files })
    }

    fn next_version(&self) -> u64 {
        let name = self.base.as_ref().and_then(|base| base.location.rsplit('/').next());
        name.and_then(|name| name.split('-').next())
            .and_then(|version| version.parse::<u64>().ok())
            .map_or(0, |version| version + 1)
    }

    fn data_file(&self, file: &NewDataFile, spec: &PartitionSpec) -> Result<IcebergDataFile> {
        let schema = self.metadata.current_schema();
        let types = spec.partition_type(schema).map_err(internal("read the partition spec"))?;
        let mut partition: Vec<Option<Literal>> = Vec::new();
        for (array, field) in file.partition.iter().zip(types.fields()) {
            let literals =
                arrow_primitive_to_literal(array, &field.field_type).map_err(internal("read partition values"))?;
            partition.push(literals.into_iter().next().flatten());
        }
        if partition.len() != spec.fields().len() {
            return Err(Error::new(ErrorCode::Internal, "a staged file does not have its partition values"));
        }
        let order = i32::try_from(self.metadata.default_sort_order().order_id).ok();
        let described =
            Described { url: &file.url, bytes: file.bytes, footer: &file.footer, nan_counts: &file.nan_counts };
        self.describe(&described, Struct::from_iter(partition), spec.spec_id(), order)
    }

    fn describe(
        &self,
        file: &Described<'_>,
        partition: Struct,
        spec_id: i32,
        sort_order: Option<i32>,
    ) -> Result<IcebergDataFile> {
        let columns = statistics::collect(file.footer, self.metadata.current_schema())?;
        let mut builder = DataFileBuilder::default();
        builder
            .content(DataContentType::Data)
            .file_path(file.url.to_owned())
            .file_format(DataFileFormat::Parquet)
            .partition(partition)
            .partition_spec_id(spec_id)
            .record_count(file.footer.file_metadata().num_rows().max(0) as u64)
            .file_size_in_bytes(file.bytes)
            .column_sizes(columns.column_sizes)
            .value_counts(columns.value_counts)
            .null_value_counts(columns.null_value_counts)
            .nan_value_counts(file.nan_counts.clone())
            .lower_bounds(columns.lower_bounds)
            .upper_bounds(columns.upper_bounds)
            .split_offsets(Some(columns.split_offsets));
        if let Some(order) = sort_order {
            builder.sort_order_id(order);
        }
        builder
            .build()
            .map_err(|error| Error::new(ErrorCode::Internal, format!("cannot describe a data file: {error}")))
    }
}

/// A data file as its writer knows it.
struct Described<'a> {
    url: &'a str,
    bytes: u64,
    footer: &'a ParquetMetaData,
    nan_counts: &'a HashMap<i32, u64>,
}

/// Writes the manifests of one snapshot, through memory to synced files.
struct ManifestFiles<'a> {
    storage: &'a Storage,
    draft: &'a TableDraft,
    folder: &'a str,
    attempt: &'a str,
    snapshot_id: i64,
    written: Vec<String>,
}

impl ManifestFiles<'_> {
    fn builder(&mut self, memory: &FileIO, spec: &PartitionSpec) -> Result<(String, ManifestWriterBuilder)> {
        let url = join(self.folder, &format!("{}-m{}.avro", self.attempt, self.written.len()));
        self.written.push(url.clone());
        let output = memory.new_output(&url).map_err(internal("write a manifest"))?;
        let schema = self.draft.metadata.current_schema().clone();
        Ok((url, ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec.clone())))
    }

    async fn added(&mut self, files: Vec<IcebergDataFile>) -> Result<ManifestFile> {
        let memory = FileIO::new_with_memory();
        let spec = self.draft.metadata.default_partition_spec().clone();
        let (url, builder) = self.builder(&memory, &spec)?;
        let mut writer = builder.build_v2_data();
        for file in files {
            // A negative sequence number is inherited from the snapshot.
            writer.add_file(file, -1).map_err(internal("write a manifest"))?;
        }
        let manifest = writer.write_manifest_file().await.map_err(internal("write a manifest"))?;
        flush(self.storage, &memory, &url).await?;
        Ok(manifest)
    }

    /// Marks every live file of `carried` as deleted: one manifest for each partition spec.
    async fn removed(&mut self, carried: Vec<ManifestFile>, changes: &mut Changes) -> Result<Vec<ManifestFile>> {
        let mut by_spec: BTreeMap<i32, Vec<iceberg::spec::ManifestEntryRef>> = BTreeMap::new();
        for manifest in carried {
            let spec_id = manifest.partition_spec_id;
            let Some(base) = &self.draft.base else { continue };
            let manifest = base.load(manifest).await?;
            by_spec
                .entry(spec_id)
                .or_default()
                .extend(manifest.entries().iter().filter(|entry| entry.is_alive()).cloned());
        }
        let mut manifests = Vec::new();
        for (spec_id, entries) in by_spec {
            if entries.is_empty() {
                continue;
            }
            let spec = self
                .draft
                .metadata
                .partition_spec_by_id(spec_id)
                .ok_or_else(|| Error::new(ErrorCode::Internal, format!("the table has no partition spec {spec_id}")))?
                .clone();
            let memory = FileIO::new_with_memory();
            let (url, builder) = self.builder(&memory, &spec)?;
            let mut writer = builder.build_v2_data();
            for entry in entries {
                let missing = || Error::new(ErrorCode::Internal, "a manifest entry has no sequence number");
                let sequence = entry.sequence_number().ok_or_else(missing)?;
                let file = entry.data_file().clone();
                changes.remove(&file);
                writer
                    .add_delete_file(file, sequence, entry.file_sequence_number.or(Some(sequence)))
                    .map_err(internal("write a manifest"))?;
            }
            manifests.push(writer.write_manifest_file().await.map_err(internal("write a manifest"))?);
            flush(self.storage, &memory, &url).await?;
        }
        Ok(manifests)
    }
}

/// The metadata document, its lists in the order of their ids: the library keeps them in hash maps.
fn ordered(metadata: &TableMetadata) -> serde_json::Result<String> {
    let mut document = serde_json::to_value(metadata)?;
    for (list, key) in [
        ("snapshots", "sequence-number"),
        ("schemas", "schema-id"),
        ("partition-specs", "spec-id"),
        ("sort-orders", "order-id"),
    ] {
        if let Some(items) = document.get_mut(list).and_then(serde_json::Value::as_array_mut) {
            items.sort_by_key(|item| item.get(key).and_then(serde_json::Value::as_i64));
        }
    }
    serde_json::to_string(&document)
}

/// The partition values of a column.
pub(crate) fn transform_values(transform: &Transform, array: &ArrayRef) -> Result<ArrayRef> {
    if let Some(array) = own_transform(transform, array) {
        return Ok(array);
    }
    let function = create_transform_function(transform).map_err(internal("make the partition transform"))?;
    function.transform(array.clone()).map_err(internal("compute partition values"))
}

/// Transforms that the library does not do as the specification says: its time transforms round instants before 1970
/// towards the future, and its `truncate` overflows at the smallest integers. `None` for all others.
fn own_transform(transform: &Transform, array: &ArrayRef) -> Option<ArrayRef> {
    match (transform, array.data_type()) {
        (Transform::Truncate(width), Arrow::Int32) => {
            let width = i32::try_from(*width).ok()?;
            let floor = |value: i32| value.wrapping_sub(value.rem_euclid(width));
            return Some(Arc::new(array.as_primitive::<Int32Type>().unary::<_, Int32Type>(floor)));
        }
        (Transform::Truncate(width), Arrow::Int64) => {
            let width = i64::from(*width);
            let floor = |value: i64| value.wrapping_sub(value.rem_euclid(width));
            return Some(Arc::new(array.as_primitive::<Int64Type>().unary::<_, Int64Type>(floor)));
        }
        (_, Arrow::Timestamp(TimeUnit::Microsecond, _)) => {}
        _ => return None,
    }
    let micros = array.as_primitive::<TimestampMicrosecondType>();
    let day = |micros: i64| micros.div_euclid(86_400_000_000);
    let months = |micros: i64| {
        let date = NaiveDate::default().checked_add_signed(chrono::TimeDelta::try_days(day(micros))?)?;
        Some((date.year() - 1970) * 12 + date.month0() as i32)
    };
    let values = |value: &dyn Fn(i64) -> Option<i32>| -> Int32Array {
        micros.iter().map(|micros| micros.and_then(value)).collect()
    };
    Some(match transform {
        Transform::Year => Arc::new(values(&|micros| months(micros).map(|months| months.div_euclid(12)))),
        Transform::Month => Arc::new(values(&months)),
        Transform::Day => Arc::new(values(&|micros| i32::try_from(day(micros)).ok()).reinterpret_cast::<Date32Type>()),
        Transform::Hour => Arc::new(values(&|micros| i32::try_from(micros.div_euclid(3_600_000_000)).ok())),
        _ => return None,
    })
}

/// What a snapshot adds and removes.
///
/// The `iceberg` crate's own collector shows partition values as text, which panics for instants before 1970.
#[derive(Default)]
struct Changes {
    added: [u64; 3],
    removed: [u64; 3],
    partitions: HashSet<String>,
}

impl Changes {
    fn add(&mut self, file: &IcebergDataFile) {
        Self::count(&mut self.added, &mut self.partitions, file);
    }

    fn remove(&mut self, file: &IcebergDataFile) {
        Self::count(&mut self.removed, &mut self.partitions, file);
    }

    fn count(sums: &mut [u64; 3], partitions: &mut HashSet<String>, file: &IcebergDataFile) {
        for (sum, one) in sums.iter_mut().zip([1, file.record_count(), file.file_size_in_bytes()]) {
            *sum += one;
        }
        partitions.insert(format!("{:?}", file.partition()));
    }

    fn summary(&self) -> HashMap<String, String> {
        let mut summary = HashMap::from([("changed-partition-count".to_owned(), self.partitions.len().to_string())]);
        let added = ["added-data-files", "added-records", "added-files-size"];
        let removed = ["deleted-data-files", "deleted-records", "removed-files-size"];
        for (key, sum) in added.iter().zip(self.added).chain(removed.iter().zip(self.removed)) {
            if sum > 0 {
                summary.insert((*key).to_owned(), sum.to_string());
            }
        }
        summary
    }
}

/// Brings a file that was written to memory to its place, durably.
async fn flush(storage: &Storage, memory: &FileIO, url: &str) -> Result<()> {
    let input = memory.new_input(url).map_err(internal("write metadata"))?;
    let bytes = input.read().await.map_err(internal("write metadata"))?;
    storage.write(url, bytes).await
}

/// The snapshot's summary with its totals (Iceberg spec, appendix F).
fn totals(mut summary: HashMap<String, String>, parent: Option<&Summary>, attempt: &str) -> HashMap<String, String> {
    let read = |map: &HashMap<String, String>, key: &str| map.get(key).and_then(|value| value.parse::<i64>().ok());
    for (total, added, removed) in [
        ("total-data-files", "added-data-files", "deleted-data-files"),
        ("total-records", "added-records", "deleted-records"),
        ("total-files-size", "added-files-size", "removed-files-size"),
        ("total-delete-files", "added-delete-files", "removed-delete-files"),
        ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
        ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
    ] {
        let before = parent.and_then(|parent| read(&parent.additional_properties, total)).unwrap_or(0);
        let after = before + read(&summary, added).unwrap_or(0) - read(&summary, removed).unwrap_or(0);
        summary.insert(total.to_owned(), after.max(0).to_string());
    }
    summary.insert("datamesh.attempt".to_owned(), attempt.to_owned());
    summary
}

fn create(table: &Table, location: &str) -> Result<TableMetadata> {
    let schema = iceberg_schema(table, None, false)?;
    let spec = partition_spec(table, &schema)?;
    let order = sort_order(table, &schema)?;
    let mut properties = HashMap::from([("write.format.default".to_owned(), "parquet".to_owned())]);
    properties.insert("write.parquet.compression-codec".to_owned(), "zstd".to_owned());
    if let Some(description) = &table.description {
        properties.insert("comment".to_owned(), description.clone());
    }
    let builder = TableMetadataBuilder::new(schema, spec, order, location.to_owned(), FormatVersion::V2, properties);
    let built = builder.and_then(|builder| builder.build()).map_err(internal("build the table's metadata"))?;
    Ok(built.metadata)
}

fn evolve(table: &Table, base: &OpenTable, drops: bool) -> Result<TableMetadata> {
    let current = base.metadata.current_schema();
    let schema = iceberg_schema(table, Some((current, base.metadata.last_column_id())), drops)?;
    let mut builder = TableMetadata::clone(&base.metadata).into_builder(Some(base.location.clone()));
    let changed = schema.as_struct() != current.as_struct();
    if changed {
        builder = builder.add_current_schema(schema.clone()).map_err(internal("evolve the table's schema"))?;
    }
    let spec = partition_spec(table, &schema)?;
    let bound = spec.clone().bind(Arc::new(schema.clone())).map_err(internal("bind the partition spec"))?;
    if !bound.is_compatible_with(base.metadata.default_partition_spec()) {
        builder = builder.add_default_partition_spec(spec).map_err(internal("evolve the partition spec"))?;
    }
    let order = sort_order(table, &schema)?;
    if order.fields != base.metadata.default_sort_order().fields {
        builder = builder
            .add_sort_order(order)
            .and_then(|builder| builder.set_default_sort_order(i64::from(TableMetadataBuilder::LAST_ADDED)))
            .map_err(internal("evolve the sort order"))?;
    }
    Ok(builder.build().map_err(internal("build the table's metadata"))?.metadata)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn instants_round_towards_the_past() {
        let instants: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(0), None, Some(i64::MIN)]));
        let days = own_transform(&Transform::Day, &instants).expect("ours");
        assert_eq!(days.as_primitive::<Date32Type>().value(0), -1);
        assert!(days.is_null(2));
        for transform in [Transform::Year, Transform::Month, Transform::Hour] {
            let values = own_transform(&transform, &instants).expect("ours");
            assert_eq!(
                (values.as_primitive::<Int32Type>().value(0), values.as_primitive::<Int32Type>().value(1)),
                (-1, 0)
            );
        }
    }

    #[test]
    fn truncate_does_not_overflow() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, -1, 7, 10, i64::MAX]));
        let floors = own_transform(&Transform::Truncate(10), &numbers).expect("ours");
        assert_eq!(&floors.as_primitive::<Int64Type>().values()[1..4], &[-10, 0, 10]);
    }
}
