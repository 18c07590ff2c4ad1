//! Looking at data without publishing it: files of any format, and the rows of a query.

use std::path::PathBuf;
use std::sync::Arc;

use datamesh_app::Progress;
use datamesh_app::ports::{BoundSource, Rows};
use datamesh_core::profile::{Origin, TableProfile};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::Storage;
use datamesh_quality::profile::{KeySink, KeySinks, TableProfiler};
use futures::TryStreamExt;

use crate::keys::{KeyEntry, KeyRuns, Place, for_each_hit};
use crate::source::{SourceFacts, add_typed, profile, resolve};

/// Follows hashes in sorted runs on the disk.
struct RunSink {
    runs: KeyRuns,
}

impl KeySink for RunSink {
    fn push(&mut self, hash: u128) -> Result<()> {
        self.runs.push(KeyEntry { hash: hash as u64, place: Place::opaque((hash >> 64) as u64) })
    }

    fn finish(self: Box<Self>) -> Result<bool> {
        let runs = self.runs.finish();
        let mut unique = true;
        for_each_hit(std::iter::once(&runs), |hits| {
            // Entries come sorted, so the same hash stands side by side.
            unique &= hits.windows(2).all(|pair| pair[0].place != pair[1].place);
            Ok(())
        })?;
        Ok(unique)
    }
}

/// A folder for runs that is removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("datamesh-profile-{}-{}", std::process::id(), unique_number()));
        std::fs::create_dir(&folder)
            .map_err(|error| Error::io(ErrorCode::WriteFailed, "make the folder", &folder, error))?;
        Ok(Self(folder))
    }

    fn sinks(&self) -> KeySinks {
        let folder = self.0.clone();
        let mut number = 0;
        Box::new(move || {
            number += 1;
            Box::new(RunSink { runs: KeyRuns::new(&folder, format!("key-{number}")) })
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it lies in the system's folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn unique_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Profiles a source that has no contract yet. `told`: the dialect in the source's specification counts; else it is
/// detected.
pub(crate) async fn examine_source(
    source: BoundSource,
    told: bool,
    storage: &Storage,
    batch_size: usize,
    progress: Arc<dyn Progress>,
) -> Result<TableProfile> {
    let resolved = resolve(storage, &source).await?;
    let work = move || {
        let scratch = Scratch::new()?;
        let facts = SourceFacts::new("reading", resolved.total, progress);
        let csv = told.then(|| source.spec.csv.clone());
        profile(&resolved.files, csv, facts, batch_size, scratch.sinks())
    };
    blocking(work).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::new(ErrorCode::Internal, "looking at the data stopped").with_source(error))?
}

/// Profiles rows.
pub(crate) async fn examine_rows(rows: Rows) -> Result<TableProfile> {
    let Rows { schema, mut batches } = rows;
    let scratch = Scratch::new()?;
    let mut profiler = TableProfiler::of_schema(&schema, scratch.sinks());
    let mut position = 0;
    while let Some(batch) = batches.try_next().await? {
        add_typed(&mut profiler, &batch, position)?;
        position += batch.num_rows() as u64;
    }
    blocking(move || {
        let profile = profiler.finish(0, Origin::Typed);
        drop(scratch);
        profile
    })
    .await
}
