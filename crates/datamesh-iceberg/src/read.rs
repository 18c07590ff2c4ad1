//! Reading a table as of one snapshot: its schema, its manifests, its live files and the deletes that apply to each.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use datamesh_core::{Error, ErrorCode, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, DataContentType, DataFileFormat, FormatVersion, Manifest, ManifestContentType,
    ManifestFile, ManifestList, NameMapping, NestedFieldRef, Operation, PartitionSpecRef, SchemaRef, SnapshotLog,
    SnapshotRef, Struct, TableMetadata,
};

use crate::cache::TableCache;
use crate::error::unreadable;
use crate::storage::{Storage, spelled};
pub use crate::table::LiveFile;
use crate::table::OpenTable;

/// What the summary of a snapshot that maintenance wrote says of whose rows it has.
pub(crate) const ROWS_OF: &str = "datamesh.rows-of";
/// How many manifests are read side by side.
const MANIFEST_READS: usize = 8;
/// How much more memory a parsed manifest takes than its file.
const PARSED: usize = 6;

/// A table as of one snapshot.
#[derive(Clone, Debug)]
pub struct TableView {
    table: OpenTable,
    schema: SchemaRef,
    snapshot: Option<SnapshotRef>,
}

/// A snapshot as a table's log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedSnapshot {
    /// Its id.
    pub id: i64,
    /// When it became the current one, in milliseconds since 1970.
    pub at_ms: i64,
    /// Whether maintenance wrote it: it has the rows of the one before.
    pub is_maintained: bool,
}

impl LiveFile {
    fn partition(&self) -> (i32, &Struct) {
        (self.spec_id, self.entry.data_file().partition())
    }

    fn sequence(&self) -> i64 {
        self.entry.sequence_number().unwrap_or(0)
    }
}

impl OpenTable {
    /// The table as of a snapshot, with the schema of then; `None`: the current snapshot and schema.
    ///
    /// # Errors
    /// `not-found` where the table has no such snapshot, or has it no longer.
    pub fn view(&self, snapshot: Option<i64>) -> Result<TableView> {
        let (table, metadata) = (self.clone(), &self.metadata);
        let Some(id) = snapshot else {
            let (schema, snapshot) = (metadata.current_schema().clone(), metadata.current_snapshot().cloned());
            return Ok(TableView { table, schema, snapshot });
        };
        let Some(snapshot) = metadata.snapshot_by_id(id).cloned() else {
            return Err(Error::new(
                ErrorCode::NotFound,
                format!("table `{}` has no snapshot {id}", metadata.location()),
            )
            .with_help("it may have expired; only snapshots that the table still keeps can be read"));
        };
        let schema = snapshot.schema(metadata).map_err(unreadable("read the schema of", metadata.location()))?;
        Ok(TableView { table, schema, snapshot: Some(snapshot) })
    }

    /// Reads a metadata document from where it is; it may be compressed with gzip.
    ///
    /// # Errors
    /// `source-unreadable` where there is none.
    pub async fn read(storage: &Storage, location: &str) -> Result<Self> {
        let bytes = storage.read(location).await?;
        let broken = |why: String| {
            Error::new(ErrorCode::SourceUnreadable, format!("`{location}` is no Iceberg table: {why}"))
                .with_help("name the metadata document of a table, such as `…/metadata/00003-….metadata.json`")
        };
        let document = if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut text = String::new();
            let read = flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut text);
            read.map_err(|error| broken(error.to_string()))?;
            text
        } else {
            String::from_utf8(bytes.to_vec()).map_err(|error| broken(error.to_string()))?
        };
        Self::read_document(storage, &document, location).map_err(broken)
    }

    /// Whether the table still has a snapshot.
    pub fn has_snapshot(&self, id: i64) -> bool {
        self.metadata.snapshot_by_id(id).is_some()
    }

    /// The snapshot that was current at an instant, in milliseconds since 1970; `None` where there was none yet.
    ///
    /// # Errors
    /// `not-found` where it cannot be told any more: the log lacks a snapshot that came after the one it has for then.
    pub fn snapshot_at(&self, instant_ms: i64) -> Result<Option<i64>> {
        let log = self.metadata.history();
        let Some(at) = log.iter().rposition(|entry| entry.timestamp_ms <= instant_ms) else { return Ok(None) };
        let found = log[at].snapshot_id;
        let next = log.get(at + 1).and_then(|next| self.metadata.snapshot_by_id(next.snapshot_id));
        let number = self.metadata.snapshot_by_id(found).map_or(0, |found| found.sequence_number());
        // The next one is made of this one, or, after a rollback, of another that is kept. Some writers forget a parent that
        // expires; then a number is left out.
        let is_gap = next.is_some_and(|next| match next.parent_snapshot_id() {
            Some(parent) => parent != found && !self.has_snapshot(parent),
            None => next.sequence_number() > number + 1,
        });
        if is_gap {
            let what = format!("table `{}` no longer keeps every snapshot of that time", self.metadata.location());
            return Err(Error::new(ErrorCode::NotFound, what)
                .with_help("what was current then may have expired; name a later time, or a snapshot's id"));
        }
        Ok(Some(found))
    }

    /// The snapshot that still has the rows of another: itself, or the newest that maintenance made of it.
    pub fn kept(&self, id: i64) -> Option<i64> {
        if self.has_snapshot(id) {
            return Some(id);
        }
        let same = self.metadata.snapshots().filter(|snapshot| rows_of(&self.metadata, snapshot) == id);
        same.max_by_key(|snapshot| snapshot.sequence_number()).map(|snapshot| snapshot.snapshot_id())
    }

    /// The snapshots that were current after one and before another, oldest first. `before` of `None`: up to the current
    /// one.
    pub fn snapshots_between(&self, after: i64, before: Option<i64>) -> Vec<LoggedSnapshot> {
        let log = self.metadata.history();
        let place = |id: i64| log.iter().rposition(|entry| entry.snapshot_id == id);
        let end = match before.map(place) {
            None => log.len(),
            Some(Some(end)) => end,
            // A log begins anew behind a snapshot that has expired: what came before that is not in it either.
            Some(None) => 0,
        };
        let start = place(after).map_or(0, |start| start + 1);
        let logged = |entry: &SnapshotLog| {
            let snapshot = self.metadata.snapshot_by_id(entry.snapshot_id)?;
            let is_maintained = snapshot.summary().operation == Operation::Replace;
            Some(LoggedSnapshot { id: entry.snapshot_id, at_ms: entry.timestamp_ms, is_maintained })
        };
        log.iter().take(end).skip(start).filter_map(logged).collect()
    }
}

impl TableView {
    /// The schema of that moment.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The snapshot; a table that was never written has none.
    pub fn snapshot_id(&self) -> Option<i64> {
        self.snapshot.as_ref().map(|snapshot| snapshot.snapshot_id())
    }

    /// Where its files are read.
    pub fn storage(&self) -> &Storage {
        self.table.storage()
    }

    /// The table's folder.
    pub fn location(&self) -> &str {
        self.table.metadata.location()
    }

    /// A partition spec, by its id.
    pub fn spec(&self, id: i32) -> Option<&PartitionSpecRef> {
        self.table.metadata.partition_spec_by_id(id)
    }

    /// A field as the newest schema that has it says, dropped ones included.
    pub fn any_field(&self, id: i32) -> Option<NestedFieldRef> {
        let mut schemas: Vec<&SchemaRef> = self.table.metadata.schemas_iter().collect();
        schemas.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
        let mut schemas = std::iter::once(&self.schema).chain(schemas);
        schemas.find_map(|schema| schema.field_by_id(id).cloned())
    }

    /// Field ids for files without any, by name (table property `schema.name-mapping.default`).
    ///
    /// # Errors
    /// `source-unreadable` for a mapping that is none.
    pub fn name_mapping(&self) -> Result<Option<NameMapping>> {
        let Some(text) = self.table.metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| {
            let what = format!("table `{}` has a `{DEFAULT_SCHEMA_NAME_MAPPING}` that cannot be read", self.location());
            Error::new(ErrorCode::SourceUnreadable, what).with_source(error)
        })
    }

    /// The manifests of the snapshot.
    ///
    /// # Errors
    /// `source-unreadable` where the manifest list is missing or broken.
    pub async fn manifests(&self, cache: &TableCache) -> Result<Arc<Vec<ManifestFile>>> {
        let Some(snapshot) = &self.snapshot else { return Ok(Arc::default()) };
        let location = snapshot.manifest_list();
        if let Some(list) = cache.get::<Vec<ManifestFile>>(location) {
            return Ok(list);
        }
        let bytes = self.table.storage().read(location).await?;
        let version = self.table.metadata.format_version();
        let parse = |version| ManifestList::parse_with_version(&bytes, version);
        // A list is as old as its snapshot: the table may have been upgraded since.
        let older = [FormatVersion::V2, FormatVersion::V1].into_iter().filter(|older| *older < version);
        let parsed = parse(version).or_else(|error| older.map(parse).find(Result::is_ok).unwrap_or(Err(error)));
        let parsed = parsed.map_err(unreadable("read the manifest list", location))?;
        let list: Vec<ManifestFile> = parsed.consume_entries().into_iter().collect();
        let list = Arc::new(list);
        cache.put(location, list.clone(), bytes.len() * PARSED);
        Ok(list)
    }

    /// The live files of some manifests, in their order.
    ///
    /// # Errors
    /// `source-unreadable` where a manifest is missing or broken.
    pub async fn live_files(&self, manifests: &[ManifestFile], cache: &TableCache) -> Result<Vec<LiveFile>> {
        let read = stream::iter(manifests.to_vec()).map(|file| async move {
            let manifest = self.manifest(&file, cache).await?;
            Ok::<_, Error>((file.partition_spec_id, manifest))
        });
        let manifests: Vec<(i32, Arc<Manifest>)> = read.buffered(MANIFEST_READS).try_collect().await?;
        let live = manifests.iter().flat_map(|(spec_id, manifest)| {
            let live = manifest.entries().iter().filter(|entry| entry.is_alive()).cloned();
            live.map(|entry| LiveFile { entry, spec_id: *spec_id })
        });
        let live: Vec<LiveFile> = live.collect();
        match live.iter().find(|file| file.entry.data_file().file_format() != DataFileFormat::Parquet) {
            None => Ok(live),
            Some(file) => Err(self.unsupported(file)),
        }
    }

    fn unsupported(&self, file: &LiveFile) -> Error {
        let file = file.entry.data_file();
        let what = match (file.content_type(), file.file_format()) {
            (DataContentType::Data, format) => format!("data files in {format}; only Parquet can be read"),
            (_, DataFileFormat::Puffin) => "deletion vectors (format version 3), which cannot be read".to_owned(),
            (_, format) => format!("delete files in {format}; only Parquet can be read"),
        };
        Error::new(ErrorCode::SourceUnreadable, format!("table `{}` has {what}", self.location()))
            .with_help("rewrite its files as Parquet without deletion vectors, with the engine that wrote them")
    }

    /// The deletes of the snapshot.
    ///
    /// # Errors
    /// `source-unreadable` for deletes that cannot be read.
    pub async fn deletes(&self, manifests: &[ManifestFile], cache: &TableCache) -> Result<DeleteIndex> {
        let manifests: Vec<ManifestFile> =
            manifests.iter().filter(|manifest| manifest.content == ManifestContentType::Deletes).cloned().collect();
        let mut index = DeleteIndex::default();
        for file in self.live_files(&manifests, cache).await? {
            let data_file = file.entry.data_file();
            let partition = (file.spec_id, data_file.partition().clone());
            match data_file.content_type() {
                DataContentType::Data => {}
                DataContentType::PositionDeletes => match data_file.referenced_data_file() {
                    Some(path) => index.by_path.entry(spelled(&path).to_owned()).or_default().push(file),
                    None => index.positions.entry(partition).or_default().push(file),
                },
                DataContentType::EqualityDeletes => {
                    if self.spec(file.spec_id).is_some_and(|spec| spec.is_unpartitioned()) {
                        index.global.push(file);
                    } else {
                        index.equality.entry(partition).or_default().push(file);
                    }
                }
            }
        }
        Ok(index)
    }

    async fn manifest(&self, file: &ManifestFile, cache: &TableCache) -> Result<Arc<Manifest>> {
        let location = &file.manifest_path;
        if let Some(manifest) = cache.get::<Manifest>(location) {
            return Ok(manifest);
        }
        let manifest = Arc::new(self.table.load(file.clone()).await?);
        let bytes = usize::try_from(file.manifest_length).unwrap_or(0).saturating_mul(PARSED);
        cache.put(location, manifest.clone(), bytes);
        Ok(manifest)
    }
}

/// The snapshot whose rows a snapshot has: maintenance writes the same rows into other files.
pub(crate) fn rows_of(metadata: &TableMetadata, snapshot: &SnapshotRef) -> i64 {
    let mut snapshot = snapshot;
    while snapshot.summary().operation == Operation::Replace {
        let told = snapshot.summary().additional_properties.get(ROWS_OF).and_then(|id| id.parse().ok());
        let Some(id) = told.or(snapshot.parent_snapshot_id()) else { break };
        match metadata.snapshot_by_id(id) {
            Some(parent) if told.is_none() => snapshot = parent,
            _ => return id,
        }
    }
    snapshot.snapshot_id()
}

/// Which deletes apply to which data files (specification, "Scan planning").
#[derive(Clone, Debug, Default)]
pub struct DeleteIndex {
    by_path: HashMap<String, Vec<LiveFile>>,
    positions: HashMap<(i32, Struct), Vec<LiveFile>>,
    equality: HashMap<(i32, Struct), Vec<LiveFile>>,
    global: Vec<LiveFile>,
}

impl DeleteIndex {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty() && self.positions.is_empty() && self.equality.is_empty() && self.global.is_empty()
    }

    /// The deletes that apply to a data file: positions of its own or a later snapshot, equality deletes of a later one.
    pub fn of(&self, file: &LiveFile) -> Vec<LiveFile> {
        let (spec, partition) = file.partition();
        let key = (spec, partition.clone());
        let path = file.entry.data_file().file_path();
        let own = self.by_path.get(spelled(path)).into_iter().flatten();
        let positions = own.chain(self.positions.get(&key).into_iter().flatten());
        let positions =
            positions.filter(|delete| delete.sequence() >= file.sequence() && may_name(delete, path)).cloned();
        let equality = self.equality.get(&key).into_iter().flatten().chain(&self.global);
        let equality = equality.filter(|delete| delete.sequence() > file.sequence()).cloned();
        positions.chain(equality).collect()
    }
}

/// What precedes the path in the URL of a local file.
fn prefix(url: &str) -> Option<&str> {
    let path = spelled(url);
    path.starts_with('/').then(|| &url[..url.len() - path.len()])
}

/// Whether a position delete file can name a data file, by the bounds of its paths.
fn may_name(delete: &LiveFile, path: &str) -> bool {
    const FILE_PATH: i32 = 2_147_483_546;
    let bound = |datum: Option<&iceberg::spec::Datum>| match datum.map(|datum| datum.literal()) {
        // What is spelled otherwise, or cut off within what may be spelled otherwise, cannot be compared.
        Some(iceberg::spec::PrimitiveLiteral::String(text)) if prefix(text) == prefix(path) => Some(text.clone()),
        _ => None,
    };
    let file = delete.entry.data_file();
    bound(file.lower_bounds().get(&FILE_PATH)).is_none_or(|lower| lower.as_str() <= path)
        // An upper bound may have been cut off without being raised.
        && bound(file.upper_bounds().get(&FILE_PATH)).is_none_or(|upper| path <= upper.as_str() || path.starts_with(&upper))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Metadata with snapshots `(id, parent, replaces)`, written at a thousand times their id, and a log of some of them.
    pub(crate) fn metadata(snapshots: &[(i64, Option<i64>, bool)], log: &[i64]) -> TableMetadata {
        let last = log.last().copied().expect("a current snapshot");
        let snapshot = |(id, parent, replaces): &(i64, Option<i64>, bool)| {
            let operation = if *replaces { "replace" } else { "append" };
            let mut snapshot = json!({
                "snapshot-id": id, "sequence-number": id, "timestamp-ms": id * 1000, "manifest-list": "none",
                "summary": { "operation": operation }, "schema-id": 0,
            });
            if let Some(parent) = parent {
                snapshot["parent-snapshot-id"] = json!(parent);
            }
            snapshot
        };
        let logged = |id: &i64| json!({ "snapshot-id": id, "timestamp-ms": id * 1000 });
        let document = json!({
            "format-version": 2, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1", "location": "file:///t",
            "last-sequence-number": last, "last-updated-ms": last * 1000, "last-column-id": 1,
            "schemas": [{ "type": "struct", "schema-id": 0,
                "fields": [{ "id": 1, "name": "a", "required": false, "type": "int" }] }],
            "current-schema-id": 0, "partition-specs": [{ "spec-id": 0, "fields": [] }], "default-spec-id": 0,
            "last-partition-id": 999, "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
            "properties": {}, "current-snapshot-id": last,
            "snapshots": snapshots.iter().map(snapshot).collect::<Vec<Value>>(),
            "snapshot-log": log.iter().map(logged).collect::<Vec<Value>>(), "metadata-log": [],
            "refs": { "main": { "snapshot-id": last, "type": "branch" } },
        });
        serde_json::from_value(document).expect("metadata")
    }

    fn table(snapshots: &[(i64, Option<i64>, bool)], log: &[i64]) -> OpenTable {
        let document = serde_json::to_string(&metadata(snapshots, log)).expect("a document");
        OpenTable::parse(&Storage::new([]), &document, "file:///t/metadata/0.metadata.json").expect("a table")
    }

    #[test]
    fn a_gap_in_the_log_is_no_answer() {
        let whole = table(&[(1, None, false), (2, Some(1), false), (3, Some(2), false)], &[1, 2, 3]);
        let found = |table: &OpenTable, at: i64| table.snapshot_at(at).ok();
        assert_eq!((found(&whole, 999), found(&whole, 1000)), (Some(None), Some(Some(1))));
        assert_eq!((found(&whole, 2999), found(&whole, 9000)), (Some(Some(2)), Some(Some(3))));
        // The second of four has expired: what was current before the third is not known.
        let gap = table(&[(1, None, false), (3, Some(2), false), (4, Some(3), false)], &[1, 3, 4]);
        let error = gap.snapshot_at(2500).expect_err("a gap");
        assert_eq!(error.code(), ErrorCode::NotFound);
        assert_eq!((found(&gap, 1000), found(&gap, 3000), found(&gap, 4000)), (None, Some(Some(3)), Some(Some(4))));
        // After a rollback to the first, the next one is made of that.
        let back = table(&[(1, None, false), (2, Some(1), false), (3, Some(1), false)], &[1, 2, 3]);
        assert_eq!(found(&back, 2500), Some(Some(2)));
    }

    #[test]
    fn rows_are_kept_by_what_maintenance_made_of_them() {
        let merged = table(&[(2, Some(1), true), (3, Some(2), false)], &[2, 3]);
        assert_eq!((merged.kept(1), merged.kept(2), merged.kept(3), merged.kept(4)), (Some(2), Some(2), Some(3), None));
        // Through a merge of a merge, but not through what was published between.
        let twice = table(&[(2, Some(1), true), (3, Some(2), true)], &[2, 3]);
        assert_eq!(twice.kept(1), Some(3));
        let other = table(&[(3, Some(2), true)], &[3]);
        assert_eq!((other.kept(1), other.kept(2)), (None, Some(3)));
    }

    #[test]
    fn the_log_tells_what_was_current_in_between() {
        let table = table(&[(1, None, false), (2, Some(1), true), (3, Some(2), false)], &[1, 2, 3]);
        let ids = |after, before| table.snapshots_between(after, before).iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!((ids(1, Some(3)), ids(1, None), ids(3, None)), (vec![2], vec![2, 3], vec![]));
        assert_eq!((ids(3, Some(1)), ids(3, Some(3)), ids(9, Some(8))), (vec![], vec![], vec![]));
        assert_eq!(ids(9, Some(3)), [1, 2], "what came before the log has expired");
        assert!(table.snapshots_between(1, Some(3))[0].is_maintained);
    }
}
