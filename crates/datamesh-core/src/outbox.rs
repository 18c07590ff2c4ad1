//! The outbox: what others must be told of pointers that moved and products that changed.
//!
//! The registry writes an entry in the transaction that makes the change. A consumer reads the entries after its place,
//! acts, and then moves its place. What happens between is repeated after a crash, so entries are delivered at least once,
//! and acting on one twice must do nothing the second time. Entries say where a pointer went, not what changed: of several
//! for one table only the newest counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::ProductKey;

/// Why there is an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboxKind {
    /// A publication.
    Published,
    /// A rollback: what an earlier publication served, again.
    RolledBack,
    /// Maintenance: other files, the same rows.
    Maintained,
    /// The table's schema changed with an apply.
    Evolved,
    /// The product's contract changed.
    Applied,
    /// The product got this domain or name.
    Moved,
    /// Nothing happened: this is how things are, for a consumer that begins or that fell behind what is kept.
    Current,
}

impl OutboxKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Published, Self::RolledBack, Self::Maintained, Self::Evolved, Self::Applied, Self::Moved, Self::Current];

    /// The kind's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::RolledBack => "rolled-back",
            Self::Maintained => "maintained",
            Self::Evolved => "evolved",
            Self::Applied => "applied",
            Self::Moved => "moved",
            Self::Current => "current",
        }
    }

    /// The kind that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for OutboxKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that others must be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxEntry {
    /// Its number, rising in the order of commits.
    pub sequence: u64,
    /// Why.
    pub kind: OutboxKind,
    /// The product's major version.
    pub product: ProductKey,
    /// The pointer that moved; `None`: the product changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<MovedPointer>,
    /// What the product was called before: what is told under that name is told no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<ProductKey>,
}

/// Where a pointer went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedPointer {
    /// The table's normalised name.
    pub table: String,
    /// URL of the metadata document that is current since.
    pub metadata_location: String,
    /// The publication whose rows it serves.
    pub publication: u64,
}

/// What comes after a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxBatch {
    /// The entries, in order.
    pub entries: Vec<OutboxEntry>,
    /// The place behind them: who has done them has done everything up to and with this number.
    pub to: u64,
}

/// How far a consumer has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Who: one name a place that is kept current.
    pub name: String,
    /// Everything up to and with this number is done.
    pub sequence: u64,
    /// When it came there.
    pub advanced_at: DateTime<Utc>,
}

/// What is to be done of some entries: of each table its newest pointer, in order, and the products that changed.
pub fn pending(entries: &[OutboxEntry]) -> (Vec<&OutboxEntry>, BTreeSet<&ProductKey>) {
    let mut newest: BTreeMap<(&ProductKey, &str), &OutboxEntry> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    for entry in entries {
        let Some(pointer) = &entry.pointer else {
            changed.insert(&entry.product);
            continue;
        };
        if entry.kind == OutboxKind::Evolved {
            changed.insert(&entry.product);
        }
        let kept = newest.entry((&entry.product, &pointer.table)).or_insert(entry);
        if entry.sequence > kept.sequence {
            *kept = entry;
        }
    }
    let mut pointers: Vec<&OutboxEntry> = newest.into_values().collect();
    pointers.sort_by_key(|entry| entry.sequence);
    (pointers, changed)
}

/// The names that products had before, each with all that were called so and have other names now.
pub fn left(entries: &[OutboxEntry]) -> BTreeMap<&ProductKey, BTreeSet<&ProductKey>> {
    let named = entries.iter().filter_map(|entry| Some((entry.former.as_ref()?, &entry.product)));
    let mut left: BTreeMap<&ProductKey, BTreeSet<&ProductKey>> = BTreeMap::new();
    for (former, product) in named.filter(|(former, product)| former != product) {
        left.entry(former).or_default().insert(product);
    }
    left
}

/// The outbox, and how far its consumers have come.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// What comes after a place: at most `limit` entries, or everything as it is now, where the place is 0 or older than
    /// what is kept. Without anything new there are no entries, and the place is the one given.
    async fn outbox(&self, after: u64, limit: u64) -> Result<OutboxBatch>;

    /// The number of the newest entry; 0: there never was one.
    async fn outbox_head(&self) -> Result<u64>;

    /// The consumers, by name.
    async fn consumers(&self) -> Result<Vec<Consumer>>;

    /// Notes that a consumer has done everything up to and with `to`. A place never moves back.
    async fn advance_consumer(&self, name: &str, to: u64, at: DateTime<Utc>) -> Result<()>;

    /// Forgets a consumer: entries are no longer kept for it. `false`: there is none.
    async fn forget_consumer(&self, name: &str) -> Result<bool>;

    /// Deletes the entries that every consumer has done, and those from before `before`; how many there were. Nothing is
    /// lost to a consumer: who comes later gets everything as it is then.
    async fn trim_outbox(&self, before: DateTime<Utc>) -> Result<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> ProductKey {
        ProductKey { domain: "d".into(), product: "p".into(), major: 1 }
    }

    fn entry(sequence: u64, kind: OutboxKind, table: Option<&str>) -> OutboxEntry {
        let pointer = table.map(|table| MovedPointer {
            table: table.into(),
            metadata_location: format!("s3://w/{table}/metadata/{sequence}.json"),
            publication: 1,
        });
        OutboxEntry { sequence, kind, product: product(), pointer, former: None }
    }

    #[test]
    fn the_newest_pointer_of_each_table_counts_once() {
        use OutboxKind::{Applied, Evolved, Maintained, Published};
        let entries = [
            entry(3, Published, Some("a")),
            entry(1, Published, Some("a")),
            entry(2, Maintained, Some("b")),
            entry(3, Published, Some("a")),
        ];
        let (pointers, changed) = pending(&entries);
        assert_eq!(pointers.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [2, 3]);
        assert!(changed.is_empty(), "the same rows, or others: the product is as it was");
        for change in [entry(4, Applied, None), entry(4, Evolved, Some("a"))] {
            assert_eq!(pending(&[change]).1, BTreeSet::from([&product()]));
        }
    }

    #[test]
    fn a_name_that_was_left_is_told_once_and_not_where_it_was_come_back_to() {
        let former = ProductKey { product: "old".into(), ..product() };
        let moved = |former: ProductKey| OutboxEntry { former: Some(former), ..entry(1, OutboxKind::Moved, Some("a")) };
        let entries = [entry(1, OutboxKind::Published, Some("a")), moved(former.clone()), moved(former.clone())];
        assert_eq!(left(&entries), BTreeMap::from([(&former, BTreeSet::from([&product()]))]));
        let second =
            OutboxEntry { product: ProductKey { product: "two".into(), ..product() }, ..moved(former.clone()) };
        assert_eq!(left(&[moved(former.clone()), second])[&former].len(), 2, "one name can be left twice");
        assert!(left(&[moved(product())]).is_empty());
    }

    #[test]
    fn kinds_have_words() {
        for kind in OutboxKind::ALL {
            assert_eq!(OutboxKind::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("a word"), kind.as_str());
        }
        assert_eq!(OutboxKind::parse("lost"), None);
    }
}
