//! A published table, opened from its metadata document.

use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use datamesh_core::{Error, ErrorCode, Result};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{DataContentType, Manifest, ManifestContentType, ManifestFile, ManifestList, TableMetadata};

use crate::error::unreadable;
use crate::schema::arrow_schema;
use crate::storage::Storage;

/// How many manifests are read side by side.
const MANIFEST_READS: usize = 8;

/// A table as one metadata document describes it. Everything it names is immutable.
#[derive(Clone, Debug)]
pub struct OpenTable {
    pub(crate) metadata: TableMetadata,
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

impl OpenTable {
    /// Reads a metadata document, which is kept at `metadata_location`.
    ///
    /// # Errors
    /// `registry` where the document is none.
    pub fn parse(storage: &Storage, document: &str, metadata_location: &str) -> Result<Self> {
        let metadata = serde_json::from_str(document).map_err(|error| {
            Error::new(ErrorCode::Registry, format!("the metadata document `{metadata_location}` cannot be read"))
                .with_source(error)
        })?;
        Ok(Self { metadata, location: metadata_location.to_owned(), storage: storage.clone() })
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

    /// The current snapshot.
    pub fn snapshot_id(&self) -> Option<i64> {
        self.metadata.current_snapshot_id()
    }

    pub(crate) async fn current_manifests(&self) -> Result<Vec<ManifestFile>> {
        let Some(snapshot) = self.metadata.current_snapshot() else { return Ok(Vec::new()) };
        self.manifests(snapshot.manifest_list()).await
    }

    async fn manifests(&self, list: &str) -> Result<Vec<ManifestFile>> {
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
            .map(|file| DataFile {
                url: file.file_path().to_owned(),
                bytes: file.file_size_in_bytes(),
                rows: file.record_count(),
            })
            .collect())
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
                files.extend(manifest.entries().iter().map(|entry| entry.data_file().file_path().to_owned()));
            }
        }
        Ok(files)
    }

    /// Reads a manifest. The `iceberg` crate takes it from memory: it has no object stores.
    pub(crate) async fn load(&self, manifest: ManifestFile) -> Result<Manifest> {
        let path = manifest.manifest_path.as_str();
        let bytes = self.storage.read(path).await?;
        let memory = FileIO::new_with_memory();
        let load = async {
            memory.new_output(path)?.write(bytes).await?;
            manifest.load_manifest(&memory).await
        };
        load.await.map_err(unreadable("read the manifest", path))
    }
}
