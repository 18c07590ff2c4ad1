//! The outbox: what others must be told of pointers that moved.
//!
//! A consumer reads the entries after its cursor, acts, and then moves the cursor. What happens between is repeated after
//! a crash, so entries are delivered at least once, and acting on one twice must do nothing the second time. Entries say
//! where a pointer went, not what changed: of several for one table only the newest counts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::ProductKey;
use crate::ports::CatalogProduct;

/// Version of the serialised form of [`OutboxEntry`] and [`Cursor`].
pub const OUTBOX_FORMAT: u32 = 1;

/// Why a pointer moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutboxKind {
    /// A publication, or a rollback.
    Published,
    /// Maintenance: other files, the same rows.
    Maintained,
    /// The schema changed with an apply.
    Evolved,
}

/// A pointer that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxEntry {
    /// Its number: entries of one transaction may share one, those of later transactions have greater ones.
    pub sequence: u64,
    /// Why.
    pub kind: OutboxKind,
    /// The product's major version.
    pub product: ProductKey,
    /// The table's normalised name.
    pub table: String,
    /// URL of the metadata document that is current since.
    pub metadata_location: String,
    /// The publication whose rows it serves.
    pub publication: u64,
}

/// How far a consumer has come: everything up to and with `sequence` is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Version of this form, [`OUTBOX_FORMAT`].
    pub format: u32,
    /// Who.
    pub consumer: String,
    /// The last entry that is done; 0 at first.
    pub sequence: u64,
}

impl Cursor {
    /// Of a consumer that has done nothing yet.
    pub fn start(consumer: &str) -> Self {
        Self { format: OUTBOX_FORMAT, consumer: consumer.to_owned(), sequence: 0 }
    }
}

/// What is to be done of `entries` by a consumer that has done everything up to `after`: of each table the newest, in
/// order. Entries may come twice and in any order.
pub fn pending(entries: &[OutboxEntry], after: u64) -> Vec<OutboxEntry> {
    let mut newest: BTreeMap<(&ProductKey, &str), &OutboxEntry> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.sequence > after) {
        let kept = newest.entry((&entry.product, &entry.table)).or_insert(entry);
        if entry.sequence > kept.sequence {
            *kept = entry;
        }
    }
    let mut pending: Vec<OutboxEntry> = newest.into_values().cloned().collect();
    pending.sort_by(|a, b| (a.sequence, &a.product, &a.table).cmp(&(b.sequence, &b.product, &b.table)));
    pending
}

/// An outbox made of pointers as they are: publications are numbered without gaps in commit order, so each pointer's
/// publication serves as its sequence. Moves without a publication (maintenance, evolution) show with the next one.
pub fn of_pointers(catalog: &[CatalogProduct], after: u64) -> Vec<OutboxEntry> {
    let mut entries: Vec<OutboxEntry> = catalog
        .iter()
        .flat_map(|product| {
            product.tables.iter().filter(|pointer| pointer.publication > after).map(|pointer| OutboxEntry {
                sequence: pointer.publication,
                kind: OutboxKind::Published,
                product: product.key.clone(),
                table: pointer.table.clone(),
                metadata_location: pointer.metadata_location.clone(),
                publication: pointer.publication,
            })
        })
        .collect();
    entries.sort_by(|a, b| (a.sequence, &a.product, &a.table).cmp(&(b.sequence, &b.product, &b.table)));
    entries
}

/// Where entries are read. A registry that writes them with the pointers they are about reads them here.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The entries after `after`, in order: at least all that share the first number, and no number in part. Empty where
    /// there are none.
    async fn entries(&self, after: u64, limit: u64) -> Result<Vec<OutboxEntry>>;
}

/// Where cursors are kept.
#[async_trait]
pub trait Cursors: Send + Sync {
    /// The cursor of a consumer; [`Cursor::start`] where there is none.
    async fn cursor(&self, consumer: &str) -> Result<Cursor>;

    /// Moves a cursor on. `false`: somebody else moved it since it was read; nothing was written.
    async fn advance(&self, from: &Cursor, to: u64) -> Result<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, table: &str) -> OutboxEntry {
        OutboxEntry {
            sequence,
            kind: OutboxKind::Published,
            product: ProductKey { domain: "d".into(), product: "p".into(), major: 1 },
            table: table.into(),
            metadata_location: format!("s3://w/{table}/metadata/{sequence}.json"),
            publication: sequence,
        }
    }

    #[test]
    fn the_newest_of_each_table_counts_once() {
        let entries = [entry(3, "a"), entry(1, "a"), entry(2, "b"), entry(3, "a"), entry(3, "b")];
        assert_eq!(pending(&entries, 0), [entry(3, "a"), entry(3, "b")]);
        assert_eq!(pending(&entries, 2), [entry(3, "a"), entry(3, "b")]);
        assert_eq!(pending(&entries, 3), []);
        assert_eq!(pending(&[entry(2, "b"), entry(1, "a")], 0), [entry(1, "a"), entry(2, "b")]);
    }
}
