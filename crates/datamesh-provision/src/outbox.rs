//! The outbox's consumer that keeps a target's pointers current.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use async_trait::async_trait;
use datamesh_core::outbox::{Cursor, Cursors, OUTBOX_FORMAT, Outbox, OutboxEntry, of_pointers, pending};
use datamesh_core::ports::CatalogProduct;
use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;

use crate::catalog;
use crate::provision::{ApplyOptions, Change, Desired, PointerChange, Target, Timer, apply, sync};

/// Entries that are read at once.
const BATCH: u64 = 500;

/// The outbox of a catalog that was read: its pointers as they are.
#[derive(Clone, Debug)]
pub struct PointerOutbox<'c>(pub &'c [CatalogProduct]);

#[async_trait]
impl Outbox for PointerOutbox<'_> {
    async fn entries(&self, after: u64, _limit: u64) -> Result<Vec<OutboxEntry>> {
        Ok(of_pointers(self.0, after))
    }
}

/// Cursors as files of a folder, one a consumer.
#[derive(Clone, Debug)]
pub struct FileCursors {
    folder: PathBuf,
}

impl FileCursors {
    /// The cursors of a folder, which is made with the first.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, consumer: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if consumer.is_empty() || consumer.starts_with('.') || !consumer.chars().all(plain) {
            let message = format!("`{}` cannot name a consumer", consumer.escape_default());
            return Err(
                Error::new(ErrorCode::InvalidArgument, message).with_help("write letters, digits, `-`, `_` and `.`")
            );
        }
        Ok(self.folder.join(format!("{consumer}.cursor.json")))
    }

    fn read(&self, consumer: &str) -> Result<Cursor> {
        let path = self.path(consumer)?;
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Cursor::start(consumer)),
            text => text.map_err(|error| Error::io(ErrorCode::SourceUnreadable, "read", &path, error))?,
        };
        let read: Option<Cursor> = serde_json::from_str(&text).ok();
        read.filter(|cursor| cursor.format == OUTBOX_FORMAT && cursor.consumer == consumer).ok_or_else(|| {
            Error::new(ErrorCode::SourceUnreadable, format!("`{}` is no cursor of this version", path.display()))
                .with_help("remove it: everything is delivered once more, which does no harm")
        })
    }
}

#[async_trait]
impl Cursors for FileCursors {
    async fn cursor(&self, consumer: &str) -> Result<Cursor> {
        self.read(consumer)
    }

    async fn advance(&self, from: &Cursor, to: u64) -> Result<bool> {
        let path = self.path(&from.consumer)?;
        let wrong = |doing: &'static str| {
            let path = path.clone();
            move |error| Error::io(ErrorCode::WriteFailed, doing, &path, error)
        };
        fs::create_dir_all(&self.folder).map_err(wrong("make the folder of"))?;
        // Two runs at once are told from each other by the lock; the system releases it with the process.
        let lock = fs::File::create(self.folder.join("cursors.lock")).map_err(wrong("lock"))?;
        lock.lock().map_err(wrong("lock"))?;
        if self.read(&from.consumer)? != *from {
            return Ok(false);
        }
        let cursor = Cursor { sequence: to, ..from.clone() };
        let text = serde_json::to_string(&cursor)
            .map_err(|error| Error::new(ErrorCode::Internal, "a cursor cannot be written").with_source(error))?;
        let staged = path.with_extension("tmp");
        let written = fs::File::create(&staged).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&staged, &path)
        });
        written.map_err(wrong("write"))?;
        Ok(true)
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// The cursor before.
    pub from: u64,
    /// The cursor now.
    pub to: u64,
    /// Tables whose pointers moved, `database.table`.
    pub moved: Vec<String>,
    /// Tables that were current already.
    pub current: Vec<String>,
    /// What was made because it was not there.
    pub made: Vec<Change>,
    /// Tables that no contract has any more.
    pub dropped: Vec<String>,
}

/// Delivers what is after a target's cursor and moves the cursor behind it. `desired` is what should be there, read from
/// the registry: a table that is not there yet is made from it. The consumer is called as the target is.
///
/// # Errors
/// As `sync` and `apply`; the cursor then stays before what was not delivered.
pub async fn run(
    outbox: &dyn Outbox,
    cursors: &dyn Cursors,
    target: &dyn Target,
    desired: &Desired,
    database_prefix: &str,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<Delivered> {
    let consumer = target.name();
    let mut cursor = cursors.cursor(consumer).await?;
    let mut delivered = Delivered { from: cursor.sequence, to: cursor.sequence, ..Delivered::default() };
    loop {
        let entries = outbox.entries(cursor.sequence, BATCH).await?;
        let Some(last) = entries.iter().map(|entry| entry.sequence).max().filter(|last| *last > cursor.sequence) else {
            return Ok(delivered);
        };
        deliver(&pending(&entries, cursor.sequence), target, desired, database_prefix, options, timer, &mut delivered)
            .await?;
        if !cursors.advance(&cursor, last).await? {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("somebody else delivers to `{consumer}` at the same time"),
            )
            .with_help("let one of them run; what was delivered twice does no harm"));
        }
        cursor.sequence = last;
        delivered.to = last;
    }
}

async fn deliver(
    entries: &[OutboxEntry],
    target: &dyn Target,
    desired: &Desired,
    database_prefix: &str,
    options: &ApplyOptions,
    timer: &dyn Timer,
    delivered: &mut Delivered,
) -> Result<()> {
    let change = |entry: &OutboxEntry| -> Result<PointerChange> {
        Ok(PointerChange {
            database: catalog::database_name(&entry.product, database_prefix)?,
            table: entry.table.clone(),
            metadata_location: entry.metadata_location.clone(),
            publication: entry.publication,
        })
    };
    let changes = entries.iter().map(change).collect::<Result<Vec<_>>>()?;
    let synced = sync(target, &desired.mesh, &changes, options, timer).await?;
    delivered.moved.extend(synced.moved);
    delivered.current.extend(synced.current);
    let mut absent = BTreeSet::new();
    for object in synced.absent {
        let (database, table) = object.split_once('.').unwrap_or((&object, ""));
        match desired.databases.get(database) {
            Some(wanted) if wanted.tables.contains_key(table) => {
                absent.insert(database.to_owned());
            }
            _ => delivered.dropped.push(object),
        }
    }
    if !absent.is_empty() {
        let options = ApplyOptions { prune: false, ..*options };
        let applied = apply(target, &desired.only(&absent), &options, timer).await?;
        applied.check()?;
        delivered.made.extend(applied.done);
    }
    Ok(())
}
