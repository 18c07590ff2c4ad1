//! Files by URL: the local disk, and object stores through `object_store`.
//!
//! A URL is the identity of a file and is used verbatim: `file:///a b` names the path `/a b`, `s3://bucket/a%20b` the key
//! `a%20b`. `file:/a` and `file://localhost/a` name `/a` too: others write them. Local files are written so that they are on the disk when we say so, which `object_store` does not promise. An
//! object store's write is durable, and visible as a whole, when it has answered.

mod address;
mod reader;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use datamesh_core::{Error, ErrorCode, Result};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::local;
use address::Address;
pub use address::{folder_of, is_url, join, local_path, shown, spelled, split};
pub use reader::StorageReader;

/// Bytes of one part of an upload; also the largest file that is uploaded in one request.
const PART: usize = 8 << 20;
/// Parts of one upload that are under way at the same time.
const PARTS: usize = 3;
/// Deletions that are under way at the same time.
const DELETIONS: usize = 16;

/// Reads and writes files by URL. Cheap to clone; connections are made when they are needed, and kept.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    options: BTreeMap<String, String>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The options hold credentials.
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

/// A file in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its URL.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last written.
    pub modified: DateTime<Utc>,
}

impl Storage {
    /// Storage that knows these credentials and settings, by the names of the usual environment variables: `AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`, and `DATAMESH_TIMEOUT`, the seconds after which a silent server counts as gone.
    pub fn new(options: impl IntoIterator<Item = (String, String)>) -> Self {
        let inner = Inner { options: options.into_iter().collect(), stores: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The object store that `url` lies in, for readers that know URLs themselves.
    ///
    /// # Errors
    /// A URL of no kind that we know, or settings that cannot be used.
    pub fn object_store(&self, url: &str) -> Result<Arc<dyn ObjectStore>> {
        match Address::parse(url)? {
            Address::Local(_) => Ok(Arc::new(object_store::local::LocalFileSystem::new())),
            Address::Remote(remote) => self.store(&remote),
        }
    }

    fn store(&self, remote: &address::Remote) -> Result<Arc<dyn ObjectStore>> {
        let mut stores = self.inner.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&remote.base) {
            return Ok(store.clone());
        }
        let store = remote.connect(&self.inner.options)?;
        stores.insert(remote.base.clone(), store.clone());
        Ok(store)
    }

    fn remote(&self, url: &str) -> Result<Target> {
        Ok(match Address::parse(url)? {
            Address::Local(path) => Target::Local(path),
            Address::Remote(remote) => {
                let store = self.store(&remote)?;
                Target::Remote(store, remote.key)
            }
        })
    }

    /// Makes a local folder and its missing parents, and synchronises the parents. Object stores have no folders.
    pub fn make_folder(&self, url: &str) -> Result<()> {
        match Address::parse(url)? {
            Address::Local(path) => local::make_folder(&path),
            Address::Remote(_) => Ok(()),
        }
    }

    /// Makes a local folder's entries durable, where the folder exists.
    pub fn sync_folder(&self, url: &str) -> Result<()> {
        match Address::parse(url)? {
            Address::Local(path) if path.exists() => local::sync_folder(&path),
            _ => Ok(()),
        }
    }

    /// Deletes a local folder that is empty.
    pub fn remove_folder(&self, url: &str) {
        if let Ok(Address::Local(path)) = Address::parse(url) {
            // Somebody else may have put a file there in between; then the folder stays.
            let _ = std::fs::remove_dir(path);
        }
    }

    /// Writes a whole file, durably. A local file's folder is synchronised by [`Self::sync_folder`].
    pub async fn write(&self, url: &str, bytes: Bytes) -> Result<()> {
        match self.remote(url)? {
            Target::Local(path) => local::write_file(&path, &bytes),
            Target::Remote(store, key) => {
                let put = store.put(&key, PutPayload::from_bytes(bytes)).await;
                put.map(|_| ()).map_err(|error| address::failed(ErrorCode::WriteFailed, "write", url, error))
            }
        }
    }

    /// Writes a whole file where there is none, durably; `false` where there is one, which is left as it is.
    pub async fn create(&self, url: &str, bytes: Bytes) -> Result<bool> {
        let (store, key) = match self.remote(url)? {
            Target::Local(path) => return local::create_file(&path, &bytes),
            Target::Remote(store, key) => (store, key),
        };
        let payload = PutPayload::from_bytes(bytes.clone());
        let put = store.put_opts(&key, payload, PutOptions::from(PutMode::Create)).await;
        match put {
            Ok(_) => Ok(true),
            // A request that was repeated because its answer was lost finds its own file.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(self.read(url).await? == bytes)
            }
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                // The store cannot exclude others; the names of files carry the attempt, so that there are none.
                self.write(url, bytes).await.map(|()| true)
            }
            Err(error) => Err(address::failed(ErrorCode::WriteFailed, "write", url, error)),
        }
    }

    /// Uploads a local file: in one request where it is small, else in parts, of which a few are held in memory.
    pub async fn upload(&self, path: &Path, url: &str) -> Result<()> {
        let (store, key) = match self.remote(url)? {
            Target::Local(_) => {
                return Err(Error::new(
                    ErrorCode::Internal,
                    format!("`{url}` is local: there is nothing to upload to"),
                ));
            }
            Target::Remote(store, key) => (store, key),
        };
        let read_failed = |error| Error::io(ErrorCode::WriteFailed, "read back", path, error);
        let failed = |error| address::failed(ErrorCode::WriteFailed, "write", url, error);
        let mut file = File::open(path).map_err(read_failed)?;
        let bytes = file.metadata().map_err(read_failed)?.len();
        if bytes <= PART as u64 {
            let payload = PutPayload::from_bytes(next_part(&mut file).map_err(read_failed)?);
            return store.put(&key, payload).await.map(|_| ()).map_err(failed);
        }
        let mut upload = store.put_multipart(&key).await.map_err(failed)?;
        let sent = async {
            let count = bytes.div_ceil(PART as u64);
            let mut parts = stream::FuturesUnordered::new();
            for _ in 0..count {
                if parts.len() >= PARTS {
                    parts.try_next().await.map_err(failed)?;
                }
                let payload = PutPayload::from_bytes(next_part(&mut file).map_err(read_failed)?);
                parts.push(upload.put_part(payload));
            }
            parts.try_collect::<Vec<()>>().await.map_err(failed)
        };
        let done = match sent.await {
            Ok(_) => upload.complete().await.map(|_| ()).map_err(failed),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Parts that cannot be given back are the bucket's lifecycle rule's; the first error is the one to tell.
            let _ = upload.abort().await;
        }
        done
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// `source-unreadable`.
    pub async fn read(&self, url: &str) -> Result<Bytes> {
        match self.remote(url)? {
            Target::Local(path) => std::fs::read(&path)
                .map(Bytes::from)
                .map_err(|error| Error::io(ErrorCode::SourceUnreadable, "read", &path, error)),
            Target::Remote(store, key) => {
                let read = async { store.get(&key).await?.bytes().await };
                read.await.map_err(|error| address::failed(ErrorCode::SourceUnreadable, "read", url, error))
            }
        }
    }

    /// Opens a file for reading wherever in it. Blocking: see [`Self::wait`].
    pub fn open(&self, url: &str) -> Result<StorageReader> {
        match self.remote(url)? {
            Target::Local(path) => StorageReader::local(&path),
            Target::Remote(store, key) => self.wait(StorageReader::remote(self.clone(), url, store, key))?,
        }
    }

    /// Opens a file for one sequential read. Blocking: see [`Self::wait`].
    ///
    /// A web server is asked once for the whole file, since it may not serve parts; an object store is asked part by part,
    /// so that a slow reader keeps no connection waiting.
    pub fn stream(&self, url: &str) -> Result<Box<dyn Read + Send>> {
        match Address::parse(url)? {
            Address::Remote(remote) if remote.is_web() => {
                let store = self.store(&remote)?;
                let stream = self.wait(reader::BodyReader::open(self.clone(), url, store, remote.key))??;
                Ok(Box::new(stream))
            }
            _ => Ok(Box::new(std::io::BufReader::with_capacity(1 << 16, self.open(url)?))),
        }
    }

    /// The size of a file; `None` where there is no such file.
    pub async fn size(&self, url: &str) -> Result<Option<u64>> {
        match self.remote(url)? {
            Target::Local(path) => match std::fs::metadata(&path) {
                Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::io(ErrorCode::SourceUnreadable, "read", &path, error)),
            },
            Target::Remote(store, key) => match store.head(&key).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(address::failed(ErrorCode::SourceUnreadable, "read", url, error)),
            },
        }
    }

    /// Every file directly in a folder, in the order of names; none where there is no such folder.
    pub async fn list(&self, folder: &str) -> Result<Vec<StoredFile>> {
        let mut files = match self.remote(folder)? {
            Target::Local(path) => {
                let failed = |error| Error::io(ErrorCode::SourceUnreadable, "read the folder", &path, error);
                let entries = match std::fs::read_dir(&path) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(error) => return Err(failed(error)),
                };
                let mut files = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(failed)?;
                    let metadata = match entry.metadata() {
                        Ok(metadata) => metadata,
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(failed(error)),
                    };
                    let url = join(folder, &entry.file_name().to_string_lossy());
                    if !metadata.is_dir() {
                        let modified = metadata.modified().map_err(failed)?.into();
                        files.push(StoredFile { url, bytes: metadata.len(), modified });
                    }
                }
                files
            }
            Target::Remote(..) => {
                let own = |file: &StoredFile| folder_of(&file.url) == folder.trim_end_matches('/');
                self.walk(folder).await?.into_iter().filter(own).collect()
            }
        };
        files.sort_by(|a, b| a.url.cmp(&b.url));
        Ok(files)
    }

    /// Every file of an object store below a folder, in the order of names.
    ///
    /// # Errors
    /// `source-unreadable`; `internal` for a local folder, which is walked by who knows what to follow.
    pub async fn walk(&self, folder: &str) -> Result<Vec<StoredFile>> {
        let remote = match Address::parse(folder)? {
            Address::Local(path) => {
                return Err(Error::new(ErrorCode::Internal, format!("`{}` is no object store", path.display())));
            }
            Address::Remote(remote) => remote,
        };
        let failed = |error| address::failed(ErrorCode::SourceUnreadable, "list", folder, error);
        let found: Vec<_> = self.store(&remote)?.list(Some(&remote.key)).try_collect().await.map_err(failed)?;
        let mut files: Vec<StoredFile> = found
            .into_iter()
            .map(|meta| StoredFile {
                url: format!("{}/{}", remote.base, meta.location),
                bytes: meta.size,
                modified: meta.last_modified,
            })
            .collect();
        files.sort_by(|a, b| a.url.cmp(&b.url));
        Ok(files)
    }

    /// Deletes files; returns how many there were. Object stores do not tell, so that there all count.
    pub async fn delete(&self, urls: Vec<String>) -> Result<u64> {
        let deleted = stream::iter(urls).map(|url| async move { self.delete_one(&url).await });
        deleted.buffer_unordered(DELETIONS).try_fold(0, |sum, one| async move { Ok(sum + u64::from(one)) }).await
    }

    async fn delete_one(&self, url: &str) -> Result<bool> {
        match self.remote(url)? {
            Target::Local(path) => match std::fs::remove_file(&path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(Error::io(ErrorCode::WriteFailed, "delete", &path, error)),
            },
            Target::Remote(store, key) => match store.delete(&key).await {
                Ok(()) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(address::failed(ErrorCode::WriteFailed, "delete", url, error)),
            },
        }
    }

    /// Waits for an answer from a thread that may block, or from within a task: the runtime's other tasks go on.
    ///
    /// # Errors
    /// `internal` outside a runtime with several threads.
    pub fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        let handle = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorCode::Internal, "an object store is read outside the runtime").with_source(error)
        })?;
        Ok(tokio::task::block_in_place(|| handle.block_on(answer)))
    }

    /// How long a server may stay silent.
    pub(crate) fn patience(&self) -> std::time::Duration {
        address::patience(&self.inner.options)
    }
}

enum Target {
    Local(PathBuf),
    Remote(Arc<dyn ObjectStore>, Key),
}

/// The next part of a file, shorter at its end.
fn next_part(file: &mut File) -> std::io::Result<Bytes> {
    let mut part = Vec::with_capacity(PART);
    file.take(PART as u64).read_to_end(&mut part)?;
    Ok(part.into())
}
