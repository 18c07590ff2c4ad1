//! The outbox's consumer that keeps a target current: pointers follow each move, tables each change of their product.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datamesh_core::ids::ProductKey;
use datamesh_core::outbox::{Outbox, OutboxEntry, left, pending};
use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;

use crate::catalog;
use crate::provision::{
    ApplyOptions, Change, Desired, Plan, PointerChange, Target, Timer, clear, holds, refresh, sync,
};

/// Entries that are read at once.
const BATCH: u64 = 500;

/// What should be there, as the registry says now. It is read after the entries that are to be delivered, so that what
/// they tell of is in it.
#[async_trait]
pub trait Wanted: Send + Sync {
    /// Every product, with the pointers of now.
    async fn desired(&self) -> Result<Desired>;
}

/// Who follows the outbox, and how.
pub struct Follower<'a> {
    /// Where entries and places are kept.
    pub outbox: &'a dyn Outbox,
    /// The consumer's name: one a target's place.
    pub consumer: &'a str,
    /// What follows.
    pub target: &'a dyn Target,
    /// What should be there.
    pub wanted: &'a dyn Wanted,
    /// What every database's name begins with.
    pub database_prefix: &'a str,
    /// How changes are carried out. Nothing is removed but what stands under a name that its product has left.
    pub options: ApplyOptions,
    /// Waits between tries.
    pub timer: &'a dyn Timer,
    /// When the run began.
    pub at: DateTime<Utc>,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// Who.
    pub consumer: String,
    /// The place before.
    pub from: u64,
    /// The place now.
    pub to: u64,
    /// Tables whose pointers moved, `database.table`.
    pub moved: Vec<String>,
    /// Tables that were current already, or further.
    pub current: Vec<String>,
    /// What was made because it was not there, and what was changed because its product was.
    pub made: Vec<Change>,
    /// What this mesh had made under names that products have left.
    pub removed: Vec<Change>,
    /// Tables that no contract has any more.
    pub dropped: Vec<String>,
    /// Tables that are not there, in databases that Terraform keeps: they are its to make.
    pub missing: Vec<String>,
}

/// What of a run is done, and what was in its way.
struct Run {
    delivered: Delivered,
    /// What is not this mesh's to change, by what is told of it.
    refused: BTreeMap<String, Error>,
}

impl Run {
    /// Goes on where something is in the way; ends where the target fails.
    fn refuse(&mut self, error: Error) -> Result<()> {
        if error.code() != ErrorCode::PlanRefused {
            return Err(error);
        }
        self.refused.entry(error.to_string()).or_insert(error);
        Ok(())
    }

    /// The error of what was in the way.
    fn end(mut self) -> Result<Delivered> {
        let Some((text, first)) = self.refused.pop_first() else { return Ok(self.delivered) };
        match self.refused.len() {
            0 => Err(first),
            more => {
                let help = first.help().unwrap_or_default().to_owned();
                Err(Error::new(first.code(), format!("{text}, and {more} more are in the way")).with_help(help))
            }
        }
    }
}

impl Follower<'_> {
    /// Delivers what comes after the consumer's place, and moves the place behind it. A table that is not there yet is
    /// made, a product's change is carried out where its database is there; a product that never published waits. What stands
    /// under a name that a product has left is made under its new one, and then removed.
    ///
    /// Several may follow for one consumer at once: a table that has gone further is not taken back, and neither is the
    /// place.
    ///
    /// # Errors
    /// `plan-refused` where something is not this mesh's to change: everything else is delivered, and the place stays
    /// before it. The target's own failures end the run; what was delivered is delivered again, which does no harm.
    pub async fn run(&self) -> Result<Delivered> {
        let known = self.outbox.consumers().await?;
        let from = known.iter().find(|consumer| consumer.name == self.consumer).map_or(0, |known| known.sequence);
        let delivered = Delivered { consumer: self.consumer.to_owned(), from, to: from, ..Delivered::default() };
        let mut run = Run { delivered, refused: BTreeMap::new() };
        let mut place = from;
        loop {
            let batch = self.outbox.outbox(place, BATCH).await?;
            if batch.to <= place {
                break;
            }
            self.deliver(&batch.entries, &mut run).await?;
            place = batch.to;
            if run.refused.is_empty() {
                self.outbox.advance_consumer(self.consumer, place, self.at).await?;
                run.delivered.to = place;
            }
        }
        run.end()
    }

    async fn deliver(&self, entries: &[OutboxEntry], run: &mut Run) -> Result<()> {
        let (pointers, products) = pending(entries);
        let desired = self.wanted.desired().await?;
        let mut changed = BTreeSet::new();
        for product in products {
            changed.insert(self.database(product)?);
        }
        self.refresh(&desired.only(&changed), false, run).await?;
        let mut absent = BTreeSet::new();
        for entry in pointers {
            let Some(pointer) = &entry.pointer else { continue };
            let change = PointerChange {
                database: self.database(&entry.product)?,
                table: pointer.table.clone(),
                metadata_location: pointer.metadata_location.clone(),
                publication: pointer.publication,
                sequence: entry.sequence,
            };
            let synced = match sync(
                self.target,
                &desired.mesh,
                std::slice::from_ref(&change),
                &self.options,
                self.timer,
            )
            .await
            {
                Ok(synced) => synced,
                Err(error) => {
                    run.refuse(error)?;
                    continue;
                }
            };
            run.delivered.moved.extend(synced.moved);
            run.delivered.current.extend(synced.current);
            for object in synced.absent {
                match desired.databases.get(&change.database) {
                    Some(wanted) if wanted.tables.contains_key(&change.table) => {
                        absent.insert((change.database.clone(), object));
                    }
                    _ => run.delivered.dropped.push(object),
                }
            }
        }
        let databases = absent.iter().map(|(database, _)| database.clone()).collect();
        self.refresh(&desired.only(&databases), true, run).await?;
        let made: BTreeSet<String> = run.delivered.made.iter().map(Change::object).collect();
        if run.refused.is_empty() {
            run.delivered.missing.extend(absent.into_iter().map(|(_, object)| object).filter(|o| !made.contains(o)));
        }
        for (former, products) in left(entries) {
            let now = products.into_iter().map(|product| self.database(product)).collect::<Result<_>>()?;
            self.leave(&desired, &self.database(former)?, &now, run).await?;
        }
        Ok(())
    }

    /// Removes what this mesh made in a database whose products have others now, once these are there.
    async fn leave(&self, desired: &Desired, former: &str, now: &BTreeSet<String>, run: &mut Run) -> Result<()> {
        if !holds(self.target, &desired.mesh, former, &self.options, self.timer).await? {
            return Ok(());
        }
        if !self.refresh(&desired.only(now), true, run).await? {
            return Ok(());
        }
        let cleared = clear(self.target, desired, former, &self.options, self.timer).await?;
        cleared.check()?;
        run.delivered.removed.extend(cleared.done);
        Ok(())
    }

    fn database(&self, product: &ProductKey) -> Result<String> {
        catalog::database_name(product, self.database_prefix)
    }

    /// Brings databases up to date, or makes them. `false`: something is in the way.
    async fn refresh(&self, desired: &Desired, make: bool, run: &mut Run) -> Result<bool> {
        let (applied, refusals) = refresh(self.target, desired, make, &self.options, self.timer).await?;
        let is_free = refusals.is_empty();
        for refusal in refusals {
            let refused = Plan { refusals: vec![refusal], ..Plan::default() };
            refused.check(&desired.mesh).or_else(|error| run.refuse(error))?;
        }
        applied.check()?;
        run.delivered.made.extend(applied.done);
        Ok(is_free)
    }
}
