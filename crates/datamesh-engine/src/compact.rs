//! Maintenance of a table's files: small data files of one partition become larger ones, in the table's sort order, and
//! snapshots expire.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::SortExpr;
use datafusion::prelude::{SessionContext, ident};
use datamesh_app::ports::{MaintainJob, MaintenancePlan, PreparedMaintenance, ProductFile};
use datamesh_core::ids::ProductKey;
use datamesh_core::ports::TablePointer;
use datamesh_core::{Error, ErrorCode, Result, Table};
use datamesh_iceberg::storage::{join, local_path};
use datamesh_iceberg::{Expiry, LiveFile, Merged, OpenTable, RewrittenFile, TableDraft};
use futures::TryStreamExt;

use crate::engine::DataEngine;
use crate::error::{arrow, unwrap};
use crate::files::{FilesTable, ScanFile};
use crate::writer::PartWriter;

/// A file of more than this share of the target is left as it is.
const LARGE: f64 = 0.75;

/// Data files that were merged, and what they became.
#[derive(Debug)]
pub struct CompactedFiles {
    removed: HashSet<String>,
    files: Vec<RewrittenFile>,
}

/// The files to merge, each list into as few files as possible.
fn bins(files: Vec<LiveFile>, target_bytes: u64) -> Vec<Vec<LiveFile>> {
    let large = (target_bytes as f64 * LARGE) as u64;
    let mut open: HashMap<_, (u64, Vec<LiveFile>)> = HashMap::new();
    let mut order = Vec::new();
    let mut bins = Vec::new();
    for file in files.into_iter().filter(|file| file.bytes() < large) {
        let partition = file.partition_key();
        let (bytes, bin) = open.entry(partition.clone()).or_insert_with(|| {
            order.push(partition);
            (0, Vec::new())
        });
        if *bytes + file.bytes() > target_bytes && !bin.is_empty() {
            bins.push(std::mem::take(bin));
            *bytes = 0;
        }
        *bytes += file.bytes();
        bin.push(file);
    }
    bins.extend(order.iter().filter_map(|partition| open.remove(partition)).map(|(_, bin)| bin));
    bins.retain(|bin| bin.len() > 1);
    bins
}

fn sort_order(table: &Table) -> Vec<SortExpr> {
    // The order that staged files have: nulls are the least.
    table.sort_by.iter().map(|field| ident(&field.column).sort(!field.descending, !field.descending)).collect()
}

fn failed(error: DataFusionError) -> Error {
    unwrap(ErrorCode::SourceUnreadable, "data files cannot be merged", error)
}

fn close(writer: Option<PartWriter>, origin: &LiveFile, done: &mut CompactedFiles) -> Result<()> {
    if let Some(writer) = writer {
        let part = writer.close()?;
        done.files.push(RewrittenFile {
            url: part.url,
            bytes: part.bytes,
            footer: part.footer,
            nan_counts: part.nan_counts,
            origin: origin.clone(),
        });
    }
    Ok(())
}

impl DataEngine {
    fn open_published(&self, pointer: &TablePointer) -> Result<OpenTable> {
        self.open(Some(pointer))?.ok_or_else(|| Error::new(ErrorCode::Internal, "a published table has no metadata"))
    }

    async fn bins(&self, job: &MaintainJob, table: &OpenTable) -> Result<Vec<Vec<LiveFile>>> {
        match job.target_bytes {
            Some(target) => Ok(bins(table.live_files(None).await?, target)),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) async fn plan_maintenance_of(
        &self,
        job: &MaintainJob,
        pointer: &TablePointer,
    ) -> Result<MaintenancePlan> {
        let table = self.open_published(pointer)?;
        Ok(MaintenancePlan {
            compacted_files: self.bins(job, &table).await?.iter().map(Vec::len).sum(),
            expired_snapshots: expired(job, &table)?.len(),
        })
    }

    /// Reads the files of each bin and writes them anew.
    pub(crate) async fn compact_files(
        &self,
        job: &MaintainJob,
        pointer: &TablePointer,
    ) -> Result<Option<CompactedFiles>> {
        let table = self.open_published(pointer)?;
        let bins = self.bins(job, &table).await?;
        if bins.is_empty() {
            return Ok(None);
        }
        let draft = TableDraft::unchanged(table.clone())?;
        let folder = join(&join(draft.location(), "data"), job.attempt.as_str());
        let storage = table.storage();
        storage.make_folder(&folder)?;
        let context = self.context();
        // One partition, so that rows without a sort order keep the order they have.
        context.state_ref().write().config_mut().options_mut().execution.target_partitions = 1;
        let mut done = CompactedFiles { removed: HashSet::new(), files: Vec::new() };
        for bin in bins {
            let Some(origin) = bin.first() else { continue };
            let rows = self.merge(job, &context, &draft, &folder, &bin, origin, &mut done).await?;
            let before: u64 = bin.iter().map(LiveFile::rows).sum();
            if rows != before {
                let message = format!("{before} rows were to be merged, but {rows} were read");
                return Err(Error::new(ErrorCode::Internal, message));
            }
            done.removed.extend(bin.iter().map(|file| file.url().to_owned()));
        }
        storage.sync_folder(&folder)?;
        Ok(Some(done))
    }

    #[expect(clippy::too_many_arguments, reason = "one loop's body")]
    async fn merge(
        &self,
        job: &MaintainJob,
        context: &SessionContext,
        draft: &TableDraft,
        folder: &str,
        bin: &[LiveFile],
        origin: &LiveFile,
        done: &mut CompactedFiles,
    ) -> Result<u64> {
        let files =
            bin.iter().map(|file| ScanFile { url: file.url().to_owned(), bytes: file.bytes(), rows: file.rows() });
        let provider = FilesTable::new(draft.arrow_schema().clone(), files.collect());
        let mut frame = context.read_table(Arc::new(provider)).map_err(failed)?;
        let order = sort_order(&job.table);
        if !order.is_empty() {
            frame = frame.sort(order).map_err(failed)?;
        }
        let mut batches = frame.execute_stream().await.map_err(failed)?;
        let mut writer: Option<PartWriter> = None;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            // The reader does not keep the schema's own metadata objects; the layout is the same.
            let batch = RecordBatch::try_new(draft.arrow_schema().clone(), batch.columns().to_vec()).map_err(arrow)?;
            rows += batch.num_rows() as u64;
            if writer.as_ref().is_none_or(PartWriter::is_full) {
                close(writer.take(), origin, done)?;
                let url = join(folder, &format!("part-{:05}.parquet", done.files.len()));
                writer = Some(self.part_writer(&job.attempt, &url, draft.arrow_schema())?);
            }
            if let Some(writer) = &mut writer {
                writer.write(&batch)?;
            }
        }
        close(writer, origin, done)?;
        Ok(rows)
    }

    pub(crate) async fn prepare_maintenance_of(
        &self,
        job: &MaintainJob,
        pointer: &TablePointer,
        compacted: Option<&CompactedFiles>,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<Option<PreparedMaintenance>> {
        let table = self.open_published(pointer)?;
        if compacted.is_none() && expired(job, &table)?.is_empty() {
            return Ok(None);
        }
        let merged = compacted.map(|done| Merged { removed: &done.removed, files: &done.files });
        let draft = TableDraft::unchanged(table)?;
        let (attempt, now) = (job.attempt.as_str(), now.timestamp_millis());
        let done = draft.maintain(merged, expiry(job), attempt, now, snapshot_id, between).await?;
        let mut files = done.commit.files;
        files.extend(compacted.iter().flat_map(|done| &done.files).map(|file| file.url.clone()));
        Ok(Some(PreparedMaintenance {
            metadata_location: done.commit.metadata_location,
            metadata: done.commit.metadata,
            files,
            unreferenced: done.unreferenced,
            compacted_files: compacted.map_or(0, |done| done.removed.len()),
            into_files: compacted.map_or(0, |done| done.files.len()),
            expired_snapshots: done.expired_snapshots,
        }))
    }

    /// Every file below the folders of a product's tables.
    pub(crate) async fn files_of(&self, product: &ProductKey, tables: &[String]) -> Result<Vec<ProductFile>> {
        let storage = self.storage();
        let mut found = Vec::new();
        for table in tables {
            let location = self.table_location(product, table);
            let files = match local_path(&location)? {
                None => storage.walk(&location).await?,
                Some(path) => {
                    let mut files = storage.list(&join(&location, "metadata")).await?;
                    for kind in ["data", "quarantine"] {
                        let folder = join(&location, kind);
                        for attempt in subfolders(&path.join(kind))? {
                            files.extend(storage.list(&join(&folder, &attempt)).await?);
                        }
                    }
                    files
                }
            };
            found.extend(files.into_iter().map(|file| ProductFile { url: file.url, modified: file.modified }));
        }
        Ok(found)
    }
}

fn expiry(job: &MaintainJob) -> Option<Expiry<'_>> {
    let before_ms = job.expire_before?.timestamp_millis();
    Some(Expiry { before_ms, pinned: &job.pinned })
}

fn expired(job: &MaintainJob, table: &OpenTable) -> Result<Vec<i64>> {
    expiry(job).map_or_else(|| Ok(Vec::new()), |expiry| table.expirable(expiry))
}

fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io(ErrorCode::SourceUnreadable, "read the folder", folder, error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
