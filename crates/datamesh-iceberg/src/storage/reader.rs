//! Reading wherever in a file, with one look ahead that fits both one pass and jumps.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use datamesh_core::{Error, ErrorCode, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::{Storage, address};

/// Bytes are fetched in blocks of this size.
const BLOCK: u64 = 1 << 20;
/// Blocks fetched at once where the one before was read too.
const AHEAD: u64 = 8;
/// Blocks kept: enough for the pages of a good many columns that are read side by side.
const KEPT: usize = 64;

/// A file open for reading. Clones share what was fetched, and each has a position of its own.
#[derive(Clone)]
pub struct StorageReader {
    file: Arc<Source>,
    bytes: u64,
    position: u64,
}

enum Source {
    Local(File),
    Remote(Box<RemoteFile>),
}

struct RemoteFile {
    storage: Storage,
    url: String,
    store: Arc<dyn ObjectStore>,
    key: Key,
    /// Holds readers to the one version of the file that they opened.
    tag: Option<String>,
    /// Blocks by number, the latest read last.
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
}

impl std::fmt::Debug for StorageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageReader")
            .field("bytes", &self.bytes)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl StorageReader {
    /// Opens a local file, whatever its name.
    pub fn local(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(ErrorCode::SourceUnreadable, "open", path, error);
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Self { file: Arc::new(Source::Local(file)), bytes, position: 0 })
    }

    pub(super) async fn remote(storage: Storage, url: &str, store: Arc<dyn ObjectStore>, key: Key) -> Result<Self> {
        let meta = store.head(&key).await;
        let meta = meta.map_err(|error| address::failed(ErrorCode::SourceUnreadable, "open", url, error))?;
        let (url, blocks) = (url.to_owned(), Mutex::default());
        let file = RemoteFile { storage, url, store, key, tag: meta.e_tag, blocks };
        Ok(Self { file: Arc::new(Source::Remote(Box::new(file))), bytes: meta.size, position: 0 })
    }

    /// The file's size.
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// Reads from `offset`; nothing at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.as_ref() {
            Source::Local(file) => file.read_at(buffer, offset),
            Source::Remote(_) if offset >= self.bytes || buffer.is_empty() => Ok(0),
            Source::Remote(file) => {
                let block = file.block(offset / BLOCK, self.bytes).map_err(io::Error::other)?;
                let start = (offset % BLOCK) as usize;
                let count = buffer.len().min(block.len().saturating_sub(start));
                buffer[..count].copy_from_slice(&block[start..start + count]);
                Ok(count)
            }
        }
    }
}

impl RemoteFile {
    /// A block, from those kept or from the store.
    fn block(&self, number: u64, bytes: u64) -> Result<Bytes> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = blocks.iter().position(|(kept, _)| *kept == number) {
            let found = blocks.remove(at).map(|(_, block)| block).unwrap_or_default();
            blocks.push_back((number, found.clone()));
            return Ok(found);
        }
        let sequel = number > 0 && blocks.iter().any(|(kept, _)| *kept == number - 1);
        let end = ((number + if sequel { AHEAD } else { 1 }) * BLOCK).min(bytes);
        let fetched = self.fetch(number * BLOCK, end)?;
        let count = fetched.len().div_ceil(BLOCK as usize);
        for at in (0..count).rev() {
            let block = fetched.slice(at * BLOCK as usize..fetched.len().min((at + 1) * BLOCK as usize));
            // Those ahead lie together, so they are a copy each: one that is kept must not keep the others.
            let block = if count > 1 { Bytes::copy_from_slice(&block) } else { block };
            blocks.retain(|(kept, _)| *kept != number + at as u64);
            blocks.push_back((number + at as u64, block));
        }
        while blocks.len() > KEPT {
            blocks.pop_front();
        }
        Ok(blocks.back().map(|(_, block)| block.clone()).unwrap_or_default())
    }

    fn fetch(&self, start: u64, end: u64) -> Result<Bytes> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            if_match: self.tag.clone(),
            ..GetOptions::default()
        };
        let get = async { self.store.get_opts(&self.key, options).await?.bytes().await };
        let patience = self.storage.patience();
        let answer = self.storage.wait(async { tokio::time::timeout(patience * 5, get).await })?;
        match answer {
            Ok(bytes) => bytes.map_err(|error| address::failed(ErrorCode::SourceUnreadable, "read", &self.url, error)),
            Err(_) => Err(address::silent(&self.url, patience * 5)),
        }
    }
}

/// The body of one answer, which a web server sends as it can.
pub(super) struct BodyReader {
    storage: Storage,
    url: String,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
    /// Bytes that are still to come.
    left: u64,
}

impl BodyReader {
    pub(super) async fn open(storage: Storage, url: &str, store: Arc<dyn ObjectStore>, key: Key) -> Result<Self> {
        let failed = |error| address::failed(ErrorCode::SourceUnreadable, "read", url, error);
        let patience = storage.patience() * 2;
        let answer = tokio::time::timeout(patience, store.get(&key)).await;
        let answer = answer.map_err(|_| address::silent(url, patience))?.map_err(failed)?;
        let left = answer.meta.size;
        Ok(Self { storage, url: url.to_owned(), body: answer.into_stream(), chunk: Bytes::new(), left })
    }

    fn next(&mut self) -> Result<bool> {
        let patience = self.storage.patience();
        let storage = self.storage.clone();
        let chunk = storage.wait(async { tokio::time::timeout(patience, self.body.next()).await })?;
        let chunk = chunk.map_err(|_| address::silent(&self.url, patience))?;
        match chunk.transpose().map_err(|error| address::cut_off(&self.url, self.left, &error))? {
            Some(chunk) => {
                self.left = self.left.saturating_sub(chunk.len() as u64);
                self.chunk = chunk;
                Ok(true)
            }
            None if self.left > 0 => Err(address::cut_off(&self.url, self.left, &"it ended early")),
            None => Ok(false),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if buffer.is_empty() || !self.next().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

impl Read for StorageReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for StorageReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl Length for StorageReader {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for StorageReader {
    type T = io::BufReader<Self>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(io::BufReader::new(Self { position: start, ..self.clone() }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match self.read_at(&mut bytes[filled..], start + filled as u64) {
                Ok(0) => return Err(ParquetError::EOF(format!("the file ends within {length} bytes from {start}"))),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ParquetError::External(Box::new(error))),
            }
        }
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_byte_is_read_from_any_place() {
        let content: Vec<u8> = (0..BLOCK * 12 + 345).map(|at| (at * 31 % 251) as u8).collect();
        let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let key = Key::from("file");
        store.put(&key, content.clone().into()).await.expect("written");
        let storage = Storage::new([]);
        let mut reader =
            StorageReader::remote(storage, "s3://bucket/file", store.clone(), key.clone()).await.expect("opened");
        assert_eq!(reader.size(), content.len() as u64);
        let mut whole = Vec::new();
        reader.read_to_end(&mut whole).expect("read");
        assert!(whole == content, "one pass");
        for (start, length) in
            [(0, 10), (BLOCK - 5, 10), (BLOCK * 12, 345), (3, BLOCK as usize * 5), (BLOCK * 7 + 1, 1)]
        {
            let bytes = reader.get_bytes(start, length).expect("read");
            assert!(bytes[..] == content[start as usize..start as usize + length], "{length} bytes from {start}");
        }
        assert!(reader.get_bytes(content.len() as u64 - 1, 2).is_err(), "past the end");

        // A file that was replaced is not read on.
        let fresh = StorageReader::remote(Storage::new([]), "s3://bucket/file", store.clone(), key.clone())
            .await
            .expect("opened");
        store.put(&key, vec![0; content.len()].into()).await.expect("written");
        let error = fresh.get_bytes(0, 10).expect_err("another version");
        assert!(error.to_string().contains("changed while it was read"), "{error}");
    }
}
