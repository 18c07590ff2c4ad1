//! Metadata that describes the same rows with fewer files or fewer snapshots.

use std::collections::HashSet;

use datamesh_core::{Error, ErrorCode, Result};
use iceberg::spec::{Operation, SnapshotRef, Summary, TableMetadata};

use super::{Changes, ManifestFiles, PreparedCommit, RewrittenFile, TableDraft, totals};
use crate::error::internal;
use crate::read::{ROWS_OF, rows_of};
use crate::schema::arrow_schema;
use crate::storage::join;
use crate::table::OpenTable;

/// Data files that take the place of others with the same rows.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// URLs of the files that go.
    pub removed: &'a HashSet<String>,
    /// The files that hold their rows now.
    pub files: &'a [RewrittenFile],
}

/// Which snapshots expire.
#[derive(Clone, Copy, Debug)]
pub struct Expiry<'a> {
    /// Those whose rows were served last before this, in milliseconds since 1970.
    pub before_ms: i64,
    /// But none of these, where increments begin, and none that is younger than the oldest of these.
    pub pinned: &'a [i64],
}

/// A document that maintenance wrote.
#[derive(Clone, Debug)]
pub struct Maintained {
    /// The document that waits for its pointer.
    pub commit: PreparedCommit,
    /// Files that the document before it references and it does not.
    pub unreferenced: Vec<String>,
    /// Snapshots that it no longer has.
    pub expired_snapshots: usize,
}

impl OpenTable {
    /// The snapshots that expire and that nothing needs: neither the current one nor one that a branch or a tag names.
    ///
    /// # Errors
    /// `internal` where the document cannot be written, from which the branches and tags are read.
    pub fn expirable(&self, expiry: Expiry<'_>) -> Result<Vec<i64>> {
        expirable(&self.metadata, expiry)
    }
}

fn expirable(metadata: &TableMetadata, expiry: Expiry<'_>) -> Result<Vec<i64>> {
    // An increment walks from the newest snapshot back to the one it begins at: none in between may be gone.
    let begun = expiry.pinned.iter().filter_map(|id| Some(metadata.snapshot_by_id(*id)?.timestamp_ms())).min();
    let document = serde_json::to_value(metadata)
        .map_err(|error| Error::new(ErrorCode::Internal, "cannot write the table's metadata").with_source(error))?;
    let references = document.get("refs").and_then(serde_json::Value::as_object);
    let named = references.into_iter().flat_map(|references| references.values());
    let kept: HashSet<i64> = named
        .filter_map(|reference| reference.get("snapshot-id")?.as_i64())
        .chain(metadata.current_snapshot_id())
        .collect();
    let old = metadata.snapshots().filter(|snapshot| {
        begun.is_none_or(|begun| snapshot.timestamp_ms() < begun)
            && superseded_ms(metadata, snapshot) < expiry.before_ms
    });
    let mut ids: Vec<i64> = old.map(|snapshot| snapshot.snapshot_id()).filter(|id| !kept.contains(id)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Since when a snapshot is not needed for what was served: since another became current, or, where that one has its
/// rows, since it was written.
fn superseded_ms(metadata: &TableMetadata, snapshot: &SnapshotRef) -> i64 {
    let log = metadata.history();
    let place = log.iter().rposition(|entry| entry.snapshot_id == snapshot.snapshot_id());
    let Some(next) = place.and_then(|place| log.get(place + 1)) else { return snapshot.timestamp_ms() };
    let replaces = |next: &SnapshotRef| {
        next.summary().operation == Operation::Replace && next.parent_snapshot_id() == Some(snapshot.snapshot_id())
    };
    if metadata.snapshot_by_id(next.snapshot_id).is_some_and(replaces) {
        return snapshot.timestamp_ms();
    }
    next.timestamp_ms
}

impl TableDraft {
    /// A published table as it is: maintenance changes neither schema nor partition fields.
    pub fn unchanged(base: OpenTable) -> Result<Self> {
        let metadata = TableMetadata::clone(&base.metadata).into_builder(Some(base.location.clone())).build();
        let metadata = metadata.map_err(internal("build the table's metadata"))?.metadata;
        let arrow = arrow_schema(metadata.current_schema())?;
        let location = base.table_location().to_owned();
        Ok(Self { base: Some(base), metadata, arrow, location })
    }

    /// Writes a document with merged files in place of others, and without the snapshots that expire.
    ///
    /// # Errors
    /// `conflict` where one of the merged files is not live any more.
    pub async fn maintain(
        &self,
        merged: Option<Merged<'_>>,
        expiry: Option<Expiry<'_>>,
        attempt: &str,
        now_ms: i64,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<Maintained> {
        let base = self
            .base
            .as_ref()
            .ok_or_else(|| Error::new(ErrorCode::Internal, "a table that is not published needs no maintenance"))?;
        let (storage, folder) = (base.storage(), join(&self.location, "metadata"));
        let mut writer =
            ManifestFiles { storage, draft: self, folder: &folder, attempt, snapshot_id, written: Vec::new() };
        let metadata = match merged {
            None => self.metadata.clone(),
            Some(merged) => {
                let live: HashSet<String> =
                    base.live_files(None).await?.iter().map(|file| file.url().to_owned()).collect();
                if !merged.removed.is_subset(&live) {
                    return Err(Error::new(ErrorCode::Conflict, "somebody else replaced the files that were merged")
                        .with_help("run the same command again"));
                }
                let mut changes = Changes::default();
                let mut manifests = writer.rewritten(merged.files, &mut changes).await?;
                manifests.extend(writer.without(base.current_manifests().await?, merged.removed, &mut changes).await?);
                let parent = self.metadata.current_snapshot();
                let mut properties = totals(changes.summary(), parent.map(|parent| parent.summary()), attempt);
                if let Some(parent) = parent {
                    properties.insert(ROWS_OF.to_owned(), rows_of(&self.metadata, parent).to_string());
                }
                let summary = Summary { operation: Operation::Replace, additional_properties: properties };
                self.with_snapshot(self.snapshot(&mut writer, manifests, summary, now_ms).await?)?
            }
        };
        between();
        // The snapshot that was current before the merge may be old enough too.
        let expired = expiry.map_or_else(|| Ok(Vec::new()), |expiry| expirable(&metadata, expiry))?;
        let commit = self.write_document(writer, without_snapshots(metadata, &expired)?).await?;
        let after = OpenTable::parse(base.storage(), &commit.metadata, &commit.metadata_location)?;
        let referenced = after.referenced_files().await?;
        let mut unreferenced: Vec<String> =
            base.referenced_files().await?.into_iter().filter(|file| !referenced.contains(file)).collect();
        unreferenced.sort();
        Ok(Maintained { commit, unreferenced, expired_snapshots: expired.len() })
    }
}

fn without_snapshots(metadata: TableMetadata, expired: &[i64]) -> Result<TableMetadata> {
    if expired.is_empty() {
        return Ok(metadata);
    }
    let built = metadata.into_builder(None).remove_snapshots(expired).build();
    Ok(built.map_err(internal("expire snapshots"))?.metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::tests::metadata;

    #[track_caller]
    fn check(snapshots: &[(i64, Option<i64>, bool)], before: i64, pinned: &[i64], expected: &[i64]) {
        let log: Vec<i64> = snapshots.iter().map(|(id, ..)| *id).collect();
        let found =
            expirable(&metadata(snapshots, &log), Expiry { before_ms: before * 1000, pinned }).expect("an answer");
        assert_eq!(found, expected, "before {before}");
    }

    #[test]
    fn a_snapshot_is_as_old_as_its_successor() {
        let plain = [(1, None, false), (50, Some(1), false), (60, Some(50), false)];
        check(&plain, 50, &[], &[]);
        check(&plain, 51, &[], &[1]);
        check(&plain, 61, &[], &[1, 50]);
        check(&plain, 90, &[], &[1, 50]);
        check(&plain, 90, &[50], &[1]);
        check(&plain, 90, &[1], &[]);
    }

    #[test]
    fn a_snapshot_whose_rows_were_merged_is_as_old_as_it_is() {
        let merged = [(1, None, false), (50, Some(1), true), (60, Some(50), false)];
        check(&merged, 2, &[], &[1]);
        check(&merged, 60, &[], &[1]);
        check(&merged, 61, &[], &[1, 50]);
    }
}
