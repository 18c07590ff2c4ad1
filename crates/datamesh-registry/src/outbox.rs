//! The outbox: written with what it tells of, read by consumers that keep their place.

use chrono::{DateTime, Utc};
use datamesh_core::ids::ProductKey;
use datamesh_core::outbox::{Consumer, MovedPointer, OutboxBatch, OutboxEntry, OutboxKind};
use datamesh_core::{Error, ErrorCode, Result};

use crate::identity;
use crate::store::{Row, Session, Value, insert_all, sql};
use crate::text::{read_key, read_time, time};

/// Something that happens in a transaction.
pub(crate) struct Event<'a> {
    pub(crate) kind: OutboxKind,
    pub(crate) product: &'a ProductKey,
    /// Table, metadata document and publication.
    pub(crate) pointer: Option<(&'a str, &'a str, u64)>,
    /// What the product was called before.
    pub(crate) former: Option<&'a ProductKey>,
}

impl<'a> Event<'a> {
    /// A product that changed.
    pub(crate) fn of_product(kind: OutboxKind, product: &'a ProductKey) -> Self {
        Self { kind, product, pointer: None, former: None }
    }
}

/// Takes so many numbers; the first of them. The transaction holds the mesh's row, so that numbers rise in the order of
/// commits and have no gaps.
pub(crate) async fn take(session: &mut Session, count: usize) -> Result<u64> {
    let taken = sql("UPDATE mesh SET outbox_sequence = outbox_sequence + $1 RETURNING outbox_sequence")
        .bind(count as u64)
        .fetch_optional(session)
        .await?;
    let last = taken.ok_or_else(identity::missing)?.number("outbox_sequence")?;
    Ok(last + 1 - count as u64)
}

/// Writes events by the numbers that were taken for them.
pub(crate) async fn write(
    session: &mut Session,
    at: DateTime<Utc>,
    first: u64,
    events: impl IntoIterator<Item = Event<'_>>,
) -> Result<()> {
    let at = time(at);
    let events: Vec<Event<'_>> = events.into_iter().collect();
    let names = (first..).zip(&events).filter_map(|(sequence, event)| {
        let (product, former) = (event.product, event.former?);
        Some(vec![
            sequence.into(),
            (&product.domain).into(),
            (&product.product).into(),
            product.major.into(),
            (&former.domain).into(),
            (&former.product).into(),
        ])
    });
    let insert = "INSERT INTO former_names (sequence, domain, product, major, former_domain, former_product)";
    insert_all(session, insert, names.collect(), "").await?;
    let rows = (first..).zip(&events).map(|(sequence, event)| -> Vec<Value<'_>> {
        let (table, location, publication) = match event.pointer {
            Some((table, location, publication)) => (Some(table), Some(location), Some(publication)),
            None => (None, None, None),
        };
        vec![
            sequence.into(),
            (&at).into(),
            event.kind.as_str().into(),
            (&event.product.domain).into(),
            (&event.product.product).into(),
            event.product.major.into(),
            Value::Text(table),
            Value::Text(location),
            publication.into(),
        ]
    });
    let rows = rows.collect();
    let insert =
        "INSERT INTO outbox (sequence, at, kind, domain, product, major, table_name, metadata_location, publication)";
    insert_all(session, insert, rows, "").await
}

/// The newest number, and the newest that is no longer kept.
async fn ends(session: &mut Session) -> Result<(u64, u64)> {
    let row = sql("SELECT outbox_sequence, outbox_trimmed FROM mesh").fetch_optional(session).await?;
    let row = row.ok_or_else(identity::missing)?;
    Ok((row.number("outbox_sequence")?, row.number("outbox_trimmed")?))
}

pub(crate) async fn head(session: &mut Session) -> Result<u64> {
    Ok(ends(session).await?.0)
}

pub(crate) fn read_pointer(row: &Row) -> Result<MovedPointer> {
    Ok(MovedPointer {
        table: row.text("table_name")?,
        metadata_location: row.text("metadata_location")?,
        publication: row.number("publication")?,
    })
}

fn read_entry(row: &Row) -> Result<OutboxEntry> {
    let kind = row.text("kind")?;
    let pointer = row.optional_text("table_name")?.map(|_| read_pointer(row)).transpose()?;
    let product = read_key(row)?;
    let former = row.optional_text("former_domain")?.map(|_| read_former(row, &product)).transpose()?;
    Ok(OutboxEntry {
        sequence: row.number("sequence")?,
        kind: OutboxKind::parse(&kind).ok_or_else(|| {
            Error::new(ErrorCode::Registry, format!("the registry holds `{kind}` as a kind of the outbox"))
        })?,
        product,
        pointer,
        former,
    })
}

fn read_former(row: &Row, product: &ProductKey) -> Result<ProductKey> {
    Ok(ProductKey { domain: row.text("former_domain")?, product: row.text("former_product")?, major: product.major })
}

/// What comes after a place.
pub(crate) async fn read(session: &mut Session, after: u64, limit: u64) -> Result<OutboxBatch> {
    let (head, trimmed) = ends(session).await?;
    if after >= head {
        return Ok(OutboxBatch { entries: Vec::new(), to: after });
    }
    if after == 0 || after < trimmed {
        return Ok(OutboxBatch { entries: current(session, after, head).await?, to: head });
    }
    let rows = sql("SELECT outbox.*, former_domain, former_product FROM outbox
                    LEFT JOIN former_names ON former_names.sequence = outbox.sequence
                    WHERE outbox.sequence > $1 ORDER BY outbox.sequence LIMIT $2")
    .bind(after)
    .bind(i64::try_from(limit.max(1)).unwrap_or(i64::MAX))
    .fetch_all(session)
    .await?;
    let entries = rows.iter().map(read_entry).collect::<Result<Vec<_>>>()?;
    let Some(last) = entries.last() else {
        return Err(Error::new(ErrorCode::Registry, format!("the outbox lacks what came after entry {after}"))
            .with_help(
                "restore the registry from a backup, or forget the consumer: it then begins with what is current",
            ));
    };
    let to = last.sequence;
    Ok(OutboxBatch { entries, to })
}

/// Everything as it is: every product, the pointers that moved after a place, and the names that were left after it.
async fn current(session: &mut Session, after: u64, head: u64) -> Result<Vec<OutboxEntry>> {
    let kind = OutboxKind::Current;
    let rows = sql("SELECT domain, product, major, table_name, metadata_location, publication, sequence FROM tables
                    WHERE sequence > $1 ORDER BY sequence")
    .bind(after)
    .fetch_all(session)
    .await?;
    let pointers = rows.iter().map(|row| {
        let (product, pointer) = (read_key(row)?, Some(read_pointer(row)?));
        Ok(OutboxEntry { sequence: row.number("sequence")?, kind, product, pointer, former: None })
    });
    let mut entries = pointers.collect::<Result<Vec<_>>>()?;
    let rows = sql("SELECT DISTINCT domain, product, major FROM revisions ORDER BY domain, product, major")
        .fetch_all(session)
        .await?;
    for row in &rows {
        entries.push(OutboxEntry { sequence: head, kind, product: read_key(row)?, pointer: None, former: None });
    }
    let rows = sql("SELECT max(sequence) AS sequence, domain, product, major, former_domain, former_product
                    FROM former_names WHERE sequence > $1
                    GROUP BY domain, product, major, former_domain, former_product ORDER BY max(sequence)")
    .bind(after)
    .fetch_all(session)
    .await?;
    for row in &rows {
        let product = read_key(row)?;
        let former = Some(read_former(row, &product)?);
        let sequence = row.number("sequence")?;
        entries.push(OutboxEntry { sequence, kind: OutboxKind::Moved, product, pointer: None, former });
    }
    Ok(entries)
}

pub(crate) async fn consumers(session: &mut Session) -> Result<Vec<Consumer>> {
    let rows = sql("SELECT name, sequence, advanced_at FROM outbox_consumers ORDER BY name").fetch_all(session).await?;
    let read = |row: &Row| -> Result<Consumer> {
        Ok(Consumer {
            name: row.text("name")?,
            sequence: row.number("sequence")?,
            advanced_at: read_time(&row.text("advanced_at")?)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Moves a consumer's place on, never back.
pub(crate) async fn advance(session: &mut Session, name: &str, to: u64, at: DateTime<Utc>) -> Result<()> {
    sql("INSERT INTO outbox_consumers (name, sequence, advanced_at) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence, advanced_at = excluded.advanced_at
         WHERE outbox_consumers.sequence < excluded.sequence")
    .bind(name)
    .bind(to)
    .bind(time(at))
    .execute(session)
    .await?;
    Ok(())
}

pub(crate) async fn forget(session: &mut Session, name: &str) -> Result<bool> {
    Ok(sql("DELETE FROM outbox_consumers WHERE name = $1").bind(name).execute(session).await? > 0)
}

/// Deletes what every consumer has passed and what is from before a time; how many entries there were.
pub(crate) async fn trim(session: &mut Session, before: DateTime<Utc>) -> Result<u64> {
    let (head, trimmed) = ends(session).await?;
    let passed = consumers(session).await?.iter().map(|consumer| consumer.sequence).min().unwrap_or(head);
    let old = sql("SELECT coalesce(max(sequence), 0) AS sequence FROM outbox WHERE at < $1")
        .bind(time(before))
        .fetch_one(session)
        .await?
        .number("sequence")?;
    let to = passed.max(old);
    if to <= trimmed {
        return Ok(0);
    }
    sql("UPDATE mesh SET outbox_trimmed = $1").bind(to).execute(session).await?;
    sql("DELETE FROM outbox WHERE sequence <= $1").bind(to).execute(session).await
}
