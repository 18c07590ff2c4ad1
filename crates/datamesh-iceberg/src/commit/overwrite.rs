//! Snapshots that take some data files out and put others in, and snapshots that bring an earlier state back.

use std::collections::HashSet;

use arrow::array::{ArrayRef, RecordBatch};
use datamesh_core::{Error, ErrorCode, Result};
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::io::FileIO;
use iceberg::spec::{
    Datum, Literal, ManifestEntry, ManifestFile, Operation, PartitionSpec, PrimitiveType, Struct, Summary, Type,
};
use parquet::file::metadata::ParquetMetaData;

use super::{Changes, Described, ManifestFiles, PreparedCommit, RewrittenFile, TableDraft, flush, totals};
use crate::error::internal;
use crate::statistics::{ColumnRange, column_range};
use crate::storage::join;
use crate::table::LiveFile;

/// The values of a partition spec's fields that a file's rows share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition(Struct);

/// What the key columns of some rows may hold, column by column.
#[derive(Clone, Debug)]
pub struct KeyRanges(Vec<ColumnRange>);

impl KeyRanges {
    /// Whether a row of one and a row of the other may have the same key.
    pub fn overlap(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine.overlaps(theirs))
    }
}

/// What bringing back an earlier snapshot changes.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The metadata document that waits for its pointer.
    pub commit: PreparedCommit,
    /// Data files that are live again.
    pub files_back: u64,
    /// Data files that are live no more.
    pub files_gone: u64,
}

impl TableDraft {
    /// The partition of each row of a batch with all columns of the table.
    pub fn partitions(&self, batch: &RecordBatch) -> Result<Vec<Partition>> {
        self.partition_tuples(&self.partition_values(batch)?, batch.num_rows())
    }

    /// The partition that a staged file's transformed values mean.
    pub fn partition_of(&self, values: &[ArrayRef]) -> Result<Partition> {
        let none = || Error::new(ErrorCode::Internal, "a staged file does not have its partition values");
        self.partition_tuples(values, 1)?.into_iter().next().ok_or_else(none)
    }

    fn partition_tuples(&self, values: &[ArrayRef], rows: usize) -> Result<Vec<Partition>> {
        let spec = self.metadata.default_partition_spec();
        let types = spec.partition_type(self.metadata.current_schema()).map_err(internal("read the partition spec"))?;
        let mut tuples: Vec<Vec<Option<Literal>>> = vec![Vec::with_capacity(values.len()); rows];
        for (array, field) in values.iter().zip(types.fields()) {
            let literals =
                arrow_primitive_to_literal(array, &field.field_type).map_err(internal("read partition values"))?;
            for (tuple, literal) in tuples.iter_mut().zip(literals) {
                tuple.push(literal);
            }
        }
        Ok(tuples.into_iter().map(|tuple| Partition(Struct::from_iter(tuple))).collect())
    }

    /// The partition of a published file, where it was written by the table's current partition fields; `None` where
    /// only its rows can tell.
    pub fn partition_of_file(&self, file: &LiveFile) -> Option<Partition> {
        let current = self.metadata.default_partition_spec();
        (file.spec_id == current.spec_id()).then(|| Partition(file.entry.data_file().partition().clone()))
    }

    /// The columns that the partition fields are computed from.
    pub fn partition_sources(&self) -> Vec<String> {
        let schema = self.metadata.current_schema();
        let fields = self.metadata.default_partition_spec().fields().iter();
        fields.filter_map(|field| schema.name_by_field_id(field.source_id).map(str::to_owned)).collect()
    }

    /// The ranges of key columns in a file that is not published yet.
    pub fn key_ranges(&self, footer: &ParquetMetaData, columns: &[String]) -> KeyRanges {
        let range = |column: &String| match self.key_column(column) {
            Some((_, primitive)) => column_range(footer, column, &primitive),
            None => ColumnRange::Any,
        };
        KeyRanges(columns.iter().map(range).collect())
    }

    /// The ranges of key columns in a published file, as its manifest entry has them.
    pub fn published_ranges(&self, file: &LiveFile, columns: &[String]) -> KeyRanges {
        let entry = file.entry.data_file();
        let range = |column: &String| {
            let Some((id, primitive)) = self.key_column(column) else { return ColumnRange::Any };
            let typed = |datum: Option<&Datum>| datum.filter(|datum| *datum.data_type() == primitive).cloned();
            match (typed(entry.lower_bounds().get(&id)), typed(entry.upper_bounds().get(&id))) {
                (Some(lower), Some(upper)) => ColumnRange::Between(lower, upper),
                _ => ColumnRange::Any,
            }
        };
        KeyRanges(columns.iter().map(range).collect())
    }

    /// A key column whose bounds enclose all its values: those of floats leave NaN out.
    fn key_column(&self, name: &str) -> Option<(i32, PrimitiveType)> {
        let fields = self.metadata.current_schema().as_struct().fields();
        let field = fields.iter().find(|field| field.name == name)?;
        match field.field_type.as_ref() {
            Type::Primitive(PrimitiveType::Float | PrimitiveType::Double) => None,
            Type::Primitive(primitive) => Some((field.id, primitive.clone())),
            _ => None,
        }
    }

    /// Writes a snapshot with the data files of an earlier one of the table, or with none. Metadata only.
    ///
    /// The manifests of the earlier snapshot are named again, so its files keep their sequence numbers. Columns that
    /// the table got since are null in them.
    ///
    /// # Errors
    /// `not-found` where the snapshot has expired.
    pub async fn restore(
        &self,
        target: Option<i64>,
        attempt: &str,
        now_ms: i64,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<Restored> {
        let base = self
            .base
            .as_ref()
            .ok_or_else(|| Error::new(ErrorCode::Internal, "a table that is not published cannot go back"))?;
        let storage = base.storage();
        let folder = join(&self.location, "metadata");
        storage.make_folder(&folder)?;
        let (manifests, wanted) = match target {
            Some(target) => (base.snapshot_manifests(target).await?, base.live_files(Some(target)).await?),
            None => (Vec::new(), Vec::new()),
        };
        let live = base.live_files(None).await?;
        let urls = |files: &[LiveFile]| files.iter().map(|file| file.url().to_owned()).collect::<HashSet<_>>();
        let (wanted_urls, live_urls) = (urls(&wanted), urls(&live));
        let mut changes = Changes::default();
        let (mut files_back, mut files_gone) = (0, 0);
        for file in wanted.iter().filter(|file| !live_urls.contains(file.url())) {
            changes.add(file.entry.data_file());
            files_back += 1;
        }
        for file in live.iter().filter(|file| !wanted_urls.contains(file.url())) {
            changes.remove(file.entry.data_file());
            files_gone += 1;
        }
        let parent = self.metadata.current_snapshot();
        let mut properties = totals(changes.summary(), parent.map(|parent| parent.summary()), attempt);
        if let Some(target) = target {
            properties.insert("datamesh.restored-snapshot".to_owned(), target.to_string());
        }
        let summary = Summary { operation: Operation::Overwrite, additional_properties: properties };
        let writer = ManifestFiles { storage, draft: self, folder: &folder, attempt, snapshot_id, written: Vec::new() };
        let commit = self.seal(writer, manifests, summary, now_ms, between).await?;
        Ok(Restored { commit, files_back, files_gone })
    }

    /// How many nulls files have in a column, by name; a file written before the column was there counts with all its
    /// rows. `None` where a file does not say.
    pub fn nulls_in(&self, files: &[LiveFile], column: &str) -> Option<u64> {
        let schema = self.metadata.current_schema();
        let id = schema.as_struct().fields().iter().find(|field| field.name == column)?.id;
        files.iter().try_fold(0, |sum, file| {
            let entry = file.entry.data_file();
            let nulls = match entry.null_value_counts().get(&id) {
                Some(nulls) => *nulls,
                // A writer that counts a file's columns counts them all, so this file does not have the column.
                None if !entry.value_counts().is_empty() && !entry.value_counts().contains_key(&id) => file.rows(),
                None => return None,
            };
            Some(sum + nulls)
        })
    }
}

impl ManifestFiles<'_> {
    /// Adds new versions of published files, each in the partition spec of the file it takes the place of.
    pub(super) async fn rewritten(
        &mut self,
        files: &[RewrittenFile],
        changes: &mut Changes,
    ) -> Result<Vec<ManifestFile>> {
        let mut specs: Vec<i32> = files.iter().map(|file| file.origin.spec_id).collect();
        specs.sort_unstable();
        specs.dedup();
        let mut manifests = Vec::new();
        for spec_id in specs {
            let memory = FileIO::new_with_memory();
            let spec = self.spec(spec_id)?;
            let (url, builder) = self.builder(&memory, &spec)?;
            let mut writer = builder.build_v2_data();
            for file in files.iter().filter(|file| file.origin.spec_id == spec_id) {
                let origin = file.origin.entry.data_file();
                let described =
                    Described { url: &file.url, bytes: file.bytes, footer: &file.footer, nan_counts: &file.nan_counts };
                let new =
                    self.draft.describe(&described, origin.partition().clone(), spec_id, origin.sort_order_id())?;
                changes.add(&new);
                writer.add_file(new, -1).map_err(internal("write a manifest"))?;
            }
            manifests.push(writer.write_manifest_file().await.map_err(internal("write a manifest"))?);
            flush(self.storage, &memory, &url).await?;
        }
        Ok(manifests)
    }

    /// The manifests of `carried` without the files in `removed`: those that name none of them stay as they are, the
    /// others are written anew, with the removed files marked as deleted and the rest as existing.
    pub(super) async fn without(
        &mut self,
        carried: Vec<ManifestFile>,
        removed: &HashSet<String>,
        changes: &mut Changes,
    ) -> Result<Vec<ManifestFile>> {
        let mut manifests = Vec::new();
        for manifest in carried {
            if !manifest.has_added_files() && !manifest.has_existing_files() {
                // It only says what an earlier snapshot deleted.
                continue;
            }
            let Some(base) = &self.draft.base else { break };
            let loaded = base.load(manifest.clone()).await?;
            let is_removed = |entry: &ManifestEntry| removed.contains(entry.data_file().file_path());
            let live: Vec<_> = loaded.entries().iter().filter(|entry| entry.is_alive()).cloned().collect();
            if !live.iter().any(|entry| is_removed(entry)) {
                manifests.push(manifest);
                continue;
            }
            let memory = FileIO::new_with_memory();
            let spec = self.spec(manifest.partition_spec_id)?;
            let (url, builder) = self.builder(&memory, &spec)?;
            let mut writer = builder.build_v2_data();
            for entry in live {
                let missing = || Error::new(ErrorCode::Internal, "a manifest entry has no sequence number");
                let sequence = entry.sequence_number().ok_or_else(missing)?;
                let file_sequence = entry.file_sequence_number.or(Some(sequence));
                let file = entry.data_file().clone();
                let done = if is_removed(&entry) {
                    changes.remove(&file);
                    writer.add_delete_file(file, sequence, file_sequence)
                } else {
                    let snapshot = entry.snapshot_id().unwrap_or(manifest.added_snapshot_id);
                    writer.add_existing_file(file, snapshot, sequence, file_sequence)
                };
                done.map_err(internal("write a manifest"))?;
            }
            manifests.push(writer.write_manifest_file().await.map_err(internal("write a manifest"))?);
            flush(self.storage, &memory, &url).await?;
        }
        Ok(manifests)
    }

    fn spec(&self, spec_id: i32) -> Result<PartitionSpec> {
        let spec = self.draft.metadata.partition_spec_by_id(spec_id);
        let missing = || Error::new(ErrorCode::Internal, format!("the table has no partition spec {spec_id}"));
        Ok(spec.ok_or_else(missing)?.as_ref().clone())
    }
}
