//! Reading a table as of one snapshot: its schema, its manifests, its live files and the deletes that apply to each.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use datamesh_core::{Error, ErrorCode, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, DataContentType, DataFileFormat, FormatVersion, Manifest, ManifestContentType,
    ManifestFile, ManifestList, NameMapping, NestedFieldRef, PartitionSpecRef, SchemaRef, SnapshotRef, Struct,
};

use crate::cache::TableCache;
use crate::error::unreadable;
use crate::storage::{Storage, spelled};
pub use crate::table::LiveFile;
use crate::table::OpenTable;

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

    /// The snapshot that was current at an instant, in milliseconds since 1970.
    pub fn snapshot_at(&self, instant_ms: i64) -> Option<i64> {
        let log = self.metadata.history().iter();
        log.filter(|entry| entry.timestamp_ms <= instant_ms)
            .max_by_key(|entry| entry.timestamp_ms)
            .map(|entry| entry.snapshot_id)
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
