//! What was added to a table between two of its snapshots.

use datamesh_core::{Error, ErrorCode, Result};
use iceberg::spec::{DataContentType, ManifestContentType, ManifestStatus, Operation, SnapshotRef};

use crate::table::{DataFile, OpenTable};

fn untellable(table: &OpenTable, why: &str) -> Error {
    Error::new(
        ErrorCode::IncompatibleChange,
        format!("what is new in `{}` cannot be told: {why}", table.table_location()),
    )
    .with_help("run once with `--full-refresh`, which reads everything and replaces the table's rows")
}

impl OpenTable {
    /// The data files that appends added after snapshot `since`, up to the current one. Compaction adds no rows.
    ///
    /// # Errors
    /// `incompatible-change` where rows were replaced or removed in between, or where the snapshots in between are gone.
    pub async fn added_since(&self, since: i64) -> Result<Vec<DataFile>> {
        let mut files = Vec::new();
        for snapshot in self.snapshots_since(since)? {
            let id = snapshot.snapshot_id();
            match snapshot.summary().operation {
                Operation::Append => {}
                Operation::Replace => continue,
                Operation::Overwrite | Operation::Delete => {
                    let word = snapshot.summary().operation.as_str();
                    return Err(untellable(self, &format!("snapshot {id} is no append but `{word}`")));
                }
            }
            for manifest in self.manifests(snapshot.manifest_list()).await? {
                if manifest.added_snapshot_id != id {
                    continue;
                }
                if manifest.content == ManifestContentType::Deletes {
                    return Err(untellable(self, &format!("snapshot {id} deletes rows")));
                }
                let manifest = self.load(manifest).await?;
                let added = manifest.entries().iter().filter(|entry| {
                    entry.status() == ManifestStatus::Added
                        && entry.snapshot_id().is_none_or(|added| added == id)
                        && entry.data_file().content_type() == DataContentType::Data
                });
                files.extend(added.map(|entry| DataFile::of(entry.data_file())));
            }
        }
        Ok(files)
    }

    /// The snapshots after `since`, oldest first.
    fn snapshots_since(&self, since: i64) -> Result<Vec<SnapshotRef>> {
        let mut chain = Vec::new();
        let mut next = self.metadata.current_snapshot().cloned();
        while let Some(snapshot) = next {
            if snapshot.snapshot_id() == since {
                chain.reverse();
                return Ok(chain);
            }
            next = match snapshot.parent_snapshot_id() {
                None => None,
                Some(parent) => match self.metadata.snapshot_by_id(parent) {
                    Some(parent) => Some(parent.clone()),
                    None => return Err(untellable(self, &format!("its snapshot {parent} has expired"))),
                },
            };
            chain.push(snapshot);
        }
        Err(untellable(self, &format!("snapshot {since}, which the last run read, is not in its history")))
    }
}
