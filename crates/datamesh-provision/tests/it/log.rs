//! A mesh in memory: one product, its outbox, and a consumer that keeps its place.

use std::sync::Mutex;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datamesh_core::outbox::{Consumer, MovedPointer, Outbox, OutboxBatch, OutboxEntry, OutboxKind};
use datamesh_core::ports::CatalogProduct;
use datamesh_core::{DataProduct, Error, ErrorCode, Name, Result};
use datamesh_provision::outbox::{Delivered, Follower, Wanted};
use datamesh_provision::provision::{ApplyOptions, Desired, Target, Timer};

use crate::contracts::full;
use crate::provision::{desired, published};

/// The one consumer.
const CONSUMER: &str = "memory:test";

/// The mesh.
#[derive(Default)]
pub(crate) struct Log {
    entries: Mutex<Vec<OutboxEntry>>,
    product: Mutex<Option<CatalogProduct>>,
    place: Mutex<u64>,
    loses: Mutex<bool>,
}

impl Log {
    fn add(&self, sequence: u64, kind: OutboxKind, product: CatalogProduct, tells_pointers: bool) {
        let mut entries = self.entries.lock().unwrap();
        let key = product.key.clone();
        if tells_pointers {
            entries.extend(product.tables.iter().map(|pointer| OutboxEntry {
                sequence,
                kind,
                product: key.clone(),
                pointer: Some(MovedPointer {
                    table: pointer.table.clone(),
                    metadata_location: pointer.metadata_location.clone(),
                    publication: pointer.publication,
                }),
                former: None,
            }));
        } else {
            entries.push(OutboxEntry { sequence, kind, product: key, pointer: None, former: None });
        }
        *self.product.lock().unwrap() = Some(product);
    }

    /// Publishes all tables, as entry and publication of this number.
    pub(crate) fn publish(&self, sequence: u64) {
        self.add(sequence, OutboxKind::Published, published(full(), sequence), true);
    }

    /// Moves all pointers, of the publication that there is.
    pub(crate) fn maintain(&self, sequence: u64) {
        let mut product = self.product.lock().unwrap().clone().unwrap();
        for pointer in &mut product.tables {
            let folder = pointer.folder().unwrap();
            pointer.metadata_location = format!("{folder}/metadata/{sequence}-maintained.metadata.json");
            pointer.sequence = sequence;
        }
        self.add(sequence, OutboxKind::Maintained, product, true);
    }

    /// Changes the contract.
    pub(crate) fn apply(&self, sequence: u64, change: impl FnOnce(&mut DataProduct)) {
        let before = self.product.lock().unwrap().clone();
        let mut product =
            before.unwrap_or_else(|| CatalogProduct { tables: Vec::new(), ..published(full(), sequence) });
        change(&mut product.revision.contract);
        self.add(sequence, OutboxKind::Applied, product, false);
    }

    /// Gives the product another name.
    pub(crate) fn rename(&self, sequence: u64, name: &str) {
        let mut product = self.product.lock().unwrap().clone().unwrap();
        let former = product.key.clone();
        product.key.product = name.to_owned();
        product.revision.contract.id.product = Name::new(name).unwrap();
        for pointer in &mut product.tables {
            pointer.sequence = sequence;
        }
        let has_pointers = !product.tables.is_empty();
        self.add(sequence, OutboxKind::Moved, product, has_pointers);
        let mut entries = self.entries.lock().unwrap();
        for entry in entries.iter_mut().filter(|entry| entry.product == former) {
            entry.product.product = name.to_owned();
        }
        for entry in entries.iter_mut().filter(|entry| entry.sequence == sequence) {
            entry.former = Some(former.clone());
        }
    }

    /// The products as they are.
    pub(crate) fn products(&self) -> Vec<CatalogProduct> {
        self.product.lock().unwrap().iter().cloned().collect()
    }

    /// How far the consumer has come.
    pub(crate) fn place(&self) -> u64 {
        *self.place.lock().unwrap()
    }

    /// The next place is not kept, and nobody hears of it: the process is killed there.
    pub(crate) fn lose_next_place(&self) {
        *self.loses.lock().unwrap() = true;
    }

    /// The mesh as somebody sees it who read it before entries after `sequence` came.
    pub(crate) fn at(&self, sequence: u64) -> Self {
        let entries = self.entries.lock().unwrap().iter().filter(|entry| entry.sequence <= sequence).cloned().collect();
        Self {
            entries: Mutex::new(entries),
            product: Mutex::new(self.product.lock().unwrap().clone()),
            place: Mutex::new(self.place()),
            loses: Mutex::new(false),
        }
    }

    /// Delivers what is new to a target.
    pub(crate) async fn follow(
        &self,
        target: &dyn Target,
        options: ApplyOptions,
        timer: &dyn Timer,
    ) -> Result<Delivered> {
        let follower = Follower {
            outbox: self,
            consumer: CONSUMER,
            target,
            wanted: self,
            database_prefix: "",
            options,
            timer,
            at: DateTime::UNIX_EPOCH,
        };
        follower.run().await
    }
}

#[async_trait]
impl Wanted for Log {
    async fn desired(&self) -> Result<Desired> {
        Ok(desired(&self.products()))
    }
}

#[async_trait]
impl Outbox for Log {
    async fn outbox(&self, after: u64, _limit: u64) -> Result<OutboxBatch> {
        let entries = self.entries.lock().unwrap();
        let entries: Vec<OutboxEntry> = entries.iter().filter(|entry| entry.sequence > after).cloned().collect();
        let to = entries.last().map_or(after, |entry| entry.sequence);
        Ok(OutboxBatch { entries, to })
    }

    async fn outbox_head(&self) -> Result<u64> {
        Ok(self.entries.lock().unwrap().last().map_or(0, |entry| entry.sequence))
    }

    async fn consumers(&self) -> Result<Vec<Consumer>> {
        let (name, advanced_at) = (CONSUMER.to_owned(), DateTime::UNIX_EPOCH);
        Ok(vec![Consumer { name, sequence: self.place(), advanced_at }])
    }

    async fn advance_consumer(&self, name: &str, to: u64, _at: DateTime<Utc>) -> Result<()> {
        assert_eq!(name, CONSUMER);
        if std::mem::take(&mut *self.loses.lock().unwrap()) {
            return Err(Error::new(ErrorCode::Registry, "no answer"));
        }
        let mut place = self.place.lock().unwrap();
        *place = to.max(*place);
        Ok(())
    }

    async fn forget_consumer(&self, _name: &str) -> Result<bool> {
        Ok(false)
    }

    async fn trim_outbox(&self, _before: DateTime<Utc>) -> Result<u64> {
        Ok(0)
    }
}
