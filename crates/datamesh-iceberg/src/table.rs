//! A published table, opened from its metadata document.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datamesh_core::{Error, ErrorCode, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, Manifest, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestList, TableMetadata,
};
use serde_json::{Map, Value};

use crate::error::unreadable;
use crate::manifest;
use crate::schema::arrow_schema;
use crate::storage::Storage;

/// How many manifests are read side by side.
const MANIFEST_READS: usize = 8;

/// A table as one metadata document describes it. Everything it names is immutable.
#[derive(Clone, Debug)]
pub struct OpenTable {
    pub(crate) metadata: Arc<TableMetadata>,
    pub(crate) location: String,
    storage: Storage,
}

/// A live data file of the current snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// URL as the manifest names it.
    pub url: String,
    /// Exact size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl DataFile {
    pub(crate) fn of(file: &iceberg::spec::DataFile) -> Self {
        Self { url: file.file_path().to_owned(), bytes: file.file_size_in_bytes(), rows: file.record_count() }
    }
}

/// A live data file with its manifest entry.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// Its entry; sequence numbers are those that count.
    pub entry: ManifestEntryRef,
    /// The partition spec its partition values belong to.
    pub spec_id: i32,
}

impl LiveFile {
    /// URL as the manifest names it.
    pub fn url(&self) -> &str {
        self.entry.data_file().file_path()
    }

    /// What tells its partition from others: the partition spec, and the values of its fields.
    pub fn partition_key(&self) -> (i32, iceberg::spec::Struct) {
        (self.spec_id, self.entry.data_file().partition().clone())
    }

    /// Exact size in bytes.
    pub fn bytes(&self) -> u64 {
        self.entry.data_file().file_size_in_bytes()
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.entry.data_file().record_count()
    }
}

impl OpenTable {
    /// Reads a metadata document, which is kept at `metadata_location`.
    ///
    /// # Errors
    /// `registry` where the document is none.
    pub fn parse(storage: &Storage, document: &str, metadata_location: &str) -> Result<Self> {
        Self::read_document(storage, document, metadata_location).map_err(|why| {
            let what = format!("the metadata document `{metadata_location}` cannot be read: {why}");
            Error::new(ErrorCode::Registry, what)
        })
    }

    /// Reads a metadata document, as [`OpenTable::parse`] does.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read_document(
        storage: &Storage,
        document: &str,
        metadata_location: &str,
    ) -> std::result::Result<Self, String> {
        let metadata = metadata_of(document)?;
        Ok(Self { metadata: Arc::new(metadata), location: metadata_location.to_owned(), storage: storage.clone() })
    }

    /// Where its files are read.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The current schema, with field ids in the metadata of every field.
    pub fn arrow_schema(&self) -> Result<SchemaRef> {
        arrow_schema(self.metadata.current_schema())
    }

    /// The table's folder.
    pub fn table_location(&self) -> &str {
        self.metadata.location()
    }

    /// Where the metadata document is.
    pub fn metadata_location(&self) -> &str {
        &self.location
    }

    /// The current snapshot.
    pub fn snapshot_id(&self) -> Option<i64> {
        self.metadata.current_snapshot_id()
    }

    pub(crate) async fn current_manifests(&self) -> Result<Vec<ManifestFile>> {
        let Some(snapshot) = self.metadata.current_snapshot() else { return Ok(Vec::new()) };
        self.manifests(snapshot.manifest_list()).await
    }

    pub(crate) async fn manifests(&self, list: &str) -> Result<Vec<ManifestFile>> {
        let bytes = self.storage.read(list).await?;
        let list = ManifestList::parse_with_version(&bytes, self.metadata.format_version())
            .map_err(unreadable("read the manifest list", list))?;
        Ok(list.consume_entries().into_iter().collect())
    }

    /// The data files of the current snapshot, in manifest order.
    ///
    /// # Errors
    /// `source-unreadable` where a manifest is missing or broken, and for delete files, which are not supported yet.
    pub async fn data_files(&self) -> Result<Vec<DataFile>> {
        let manifests = self.current_manifests().await?;
        if manifests.iter().any(|manifest| manifest.content == ManifestContentType::Deletes) {
            return Err(Error::new(
                ErrorCode::SourceUnreadable,
                format!("table `{}` has delete files", self.metadata.location()),
            )
            .with_help("datamesh does not write them, and does not read them yet"));
        }
        let manifests: Vec<Manifest> =
            stream::iter(manifests).map(|manifest| self.load(manifest)).buffered(MANIFEST_READS).try_collect().await?;
        let entries = manifests.iter().flat_map(Manifest::entries).filter(|entry| entry.is_alive());
        Ok(entries
            .map(|entry| entry.data_file())
            .filter(|file| file.content_type() == DataContentType::Data)
            .map(DataFile::of)
            .collect())
    }

    /// The live data files of a snapshot (`None`: of the current one) with their manifest entries, in manifest order.
    ///
    /// # Errors
    /// `not-found` where the table does not have the snapshot any more; otherwise those of [`OpenTable::data_files`].
    pub async fn live_files(&self, snapshot: Option<i64>) -> Result<Vec<LiveFile>> {
        let manifests = match snapshot {
            None => self.current_manifests().await?,
            Some(id) => self.snapshot_manifests(id).await?,
        };
        if manifests.iter().any(|manifest| manifest.content == ManifestContentType::Deletes) {
            return Err(Error::new(
                ErrorCode::SourceUnreadable,
                format!("table `{}` has delete files", self.metadata.location()),
            )
            .with_help("only tables that datamesh wrote can be written to; it does not write delete files"));
        }
        let read = stream::iter(manifests)
            .map(|manifest| async move { Ok::<_, Error>((manifest.partition_spec_id, self.load(manifest).await?)) });
        let manifests: Vec<(i32, Manifest)> = read.buffered(MANIFEST_READS).try_collect().await?;
        let mut files = Vec::new();
        for (spec_id, manifest) in manifests {
            let (entries, _) = manifest.into_parts();
            files.extend(entries.into_iter().filter(|entry| entry.is_alive()).map(|entry| LiveFile { entry, spec_id }));
        }
        Ok(files)
    }

    pub(crate) async fn snapshot_manifests(&self, snapshot: i64) -> Result<Vec<ManifestFile>> {
        match self.metadata.snapshot_by_id(snapshot) {
            Some(snapshot) => self.manifests(snapshot.manifest_list()).await,
            None => Err(Error::new(
                ErrorCode::NotFound,
                format!("table `{}` does not have snapshot {snapshot} any more", self.metadata.location()),
            )
            .with_help("it has expired; an older state cannot be brought back once its snapshot is gone")),
        }
    }

    /// Every file that any snapshot of the table needs: data files, manifests, manifest lists, metadata documents.
    pub async fn referenced_files(&self) -> Result<HashSet<String>> {
        let mut files = HashSet::from([self.location.clone()]);
        files.extend(self.metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone()));
        for snapshot in self.metadata.snapshots() {
            files.insert(snapshot.manifest_list().to_owned());
            for manifest in self.manifests(snapshot.manifest_list()).await? {
                if !files.insert(manifest.manifest_path.clone()) {
                    continue;
                }
                let manifest = self.load(manifest).await?;
                // What a snapshot deleted is referenced by the snapshots before it, as long as they are kept.
                let live = manifest.entries().iter().filter(|entry| entry.is_alive());
                files.extend(live.map(|entry| entry.data_file().file_path().to_owned()));
            }
        }
        Ok(files)
    }

    /// Reads a manifest. The `iceberg` crate takes it from memory: it has no object stores.
    pub(crate) async fn load(&self, manifest: ManifestFile) -> Result<Manifest> {
        let path = manifest.manifest_path.as_str();
        let bytes = manifest::readable(self.storage.read(path).await?);
        let memory = FileIO::new_with_memory();
        let load = async {
            memory.new_output(path)?.write(bytes).await?;
            manifest.load_manifest(&memory).await
        };
        load.await.map_err(unreadable("read the manifest", path))
    }
}

/// Keys without which a document is no metadata of its format version (specification, "Table metadata fields").
const REQUIRED: [&str; 3] = ["location", "last-updated-ms", "last-column-id"];
const REQUIRED_SINCE_V2: [&str; 8] = [
    "table-uuid",
    "schemas",
    "current-schema-id",
    "partition-specs",
    "default-spec-id",
    "last-partition-id",
    "sort-orders",
    "default-sort-order-id",
];

fn metadata_of(document: &str) -> std::result::Result<TableMetadata, String> {
    let error = match serde_json::from_str(document) {
        Ok(metadata) => return Ok(metadata),
        Err(error) => error,
    };
    let Ok(Value::Object(mut document)) = serde_json::from_str(document) else {
        return Err(format!("it is no JSON object: {error}"));
    };
    let version = match document.get("format-version").and_then(Value::as_u64) {
        Some(version @ 1..=3) => version,
        Some(version) => return Err(format!("its format version is {version}; known are 1, 2 and 3")),
        None => return Err("it has no `format-version`".to_owned()),
    };
    // DuckDB leaves it out. Every snapshot has a number that is not greater.
    if version > 1 && !document.contains_key("last-sequence-number") {
        let snapshots = document.get("snapshots").and_then(Value::as_array).into_iter().flatten();
        let numbers = snapshots.filter_map(|snapshot| snapshot.get("sequence-number")?.as_i64());
        let last = numbers.max().unwrap_or(0);
        document.insert("last-sequence-number".to_owned(), last.into());
    }
    outlive(&mut document);
    let since_v2 = REQUIRED_SINCE_V2.iter().filter(|_| version > 1);
    let missing: Vec<String> = REQUIRED
        .iter()
        .chain(since_v2)
        .filter(|key| !document.contains_key(**key))
        .map(|key| format!("`{key}`"))
        .collect();
    if !missing.is_empty() {
        return Err(format!("it has no {}", missing.join(", ")));
    }
    serde_json::from_str(&Value::Object(document).to_string()).map_err(|error| error.to_string())
}

/// A void field may outlive its column (format version 1). It is always null, so that any column will do.
fn outlive(document: &mut Map<String, Value>) {
    let id = document.get("current-schema-id");
    let schemas = document.get("schemas").and_then(Value::as_array).into_iter().flatten();
    let mut schemas = schemas.filter(|schema| schema.get("schema-id") == id).chain(document.get("schema"));
    let Some(column) = schemas.find_map(|schema| schema.get("fields")?.get(0)?.get("id").cloned()) else { return };
    let specs = document.get_mut("partition-specs").and_then(Value::as_array_mut).into_iter().flatten();
    let fields = specs.filter_map(|spec| spec.get_mut("fields")?.as_array_mut()).flatten();
    for field in fields.filter(|field| field.get("transform").and_then(Value::as_str) == Some("void")) {
        field["source-id"] = column.clone();
    }
}

#[cfg(test)]
mod tests;
