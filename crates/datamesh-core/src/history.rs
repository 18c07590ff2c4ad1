//! Versions of products: which snapshot a table had as of a publication or a moment.
//!
//! A publication of a product is a version of all its tables. A table that a publication left as it was has the snapshot
//! of the last publication before it that wrote it.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::error::{Error, ErrorCode, Result};
use crate::ids::ProductKey;
use crate::ports::PublicationStatus;

/// A moment in the life of a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// Right after a publication, which must be one of the product's own.
    Publication(u64),
    /// Right after a publication of any product: numbers rise throughout the mesh.
    Through(u64),
    /// A moment: what was published at or before it.
    Time(DateTime<Utc>),
}

/// A recorded attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The product's major version.
    pub product: ProductKey,
    /// The publication's number.
    pub number: u64,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// Whether it was published.
    pub status: PublicationStatus,
}

/// A snapshot that a publication gave a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenTable {
    /// The publication's number.
    pub publication: u64,
    /// The table's normalised name.
    pub table: String,
    /// The snapshot.
    pub snapshot_id: i64,
}

/// A revision of a product's contract. Published tables become what it says in the transaction that applies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedRevision {
    /// The product's major version.
    pub product: ProductKey,
    /// The revision's number.
    pub number: u64,
    /// When it was applied.
    pub at: DateTime<Utc>,
}

/// What was published when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The recorded attempts, in the order of their numbers.
    pub attempts: Vec<Attempt>,
    /// What they wrote.
    pub tables: Vec<WrittenTable>,
    /// The revisions that were applied, in the order of their numbers.
    pub revisions: Vec<AppliedRevision>,
}

impl History {
    fn of<'a>(&'a self, product: &'a ProductKey) -> impl DoubleEndedIterator<Item = &'a Attempt> {
        self.attempts.iter().filter(move |attempt| attempt.product == *product)
    }

    fn published<'a>(&'a self, product: &'a ProductKey) -> impl DoubleEndedIterator<Item = &'a Attempt> {
        self.of(product).filter(|attempt| attempt.status == PublicationStatus::Published)
    }

    /// Whether any product has published under this number.
    pub fn is_published(&self, number: u64) -> bool {
        self.attempts.iter().any(|attempt| attempt.number == number && attempt.status == PublicationStatus::Published)
    }

    /// The publication that served as of a moment.
    ///
    /// # Errors
    /// `not-found` where there was none, where it was rejected, or where the product has no such publication.
    pub fn publication(&self, product: &ProductKey, as_of: AsOf) -> Result<u64> {
        let newest = |wanted: &dyn Fn(&Attempt) -> bool| {
            self.published(product).filter(|attempt| wanted(attempt)).map(|attempt| attempt.number).max()
        };
        let found = match as_of {
            AsOf::Publication(number) => newest(&|attempt| attempt.number == number),
            AsOf::Through(number) => newest(&|attempt| attempt.number <= number),
            AsOf::Time(time) => newest(&|attempt| attempt.at <= time),
        };
        found.ok_or_else(|| self.missing(product, as_of))
    }

    fn missing(&self, product: &ProductKey, as_of: AsOf) -> Error {
        let show = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let what = match as_of {
            AsOf::Publication(number) if self.of(product).any(|attempt| attempt.number == number) => {
                format!("publication {number} of `{product}` was rejected, so that it is no version")
            }
            AsOf::Publication(number) => format!("`{product}` has no publication {number}"),
            AsOf::Through(number) => format!("`{product}` was not published yet as of publication {number}"),
            AsOf::Time(time) => format!("`{product}` was not published yet at {}", show(time)),
        };
        let help = match (self.published(product).next(), self.published(product).next_back()) {
            (Some(first), Some(last)) if first.number == last.number => {
                format!("its only publication is {}, of {}", first.number, show(first.at))
            }
            (Some(first), Some(last)) => format!(
                "its publications are {} of {} to {} of {}; see `datamesh publications`",
                first.number,
                show(first.at),
                last.number,
                show(last.at)
            ),
            _ => "nothing of it was published".to_owned(),
        };
        Error::new(ErrorCode::NotFound, what).with_help(help)
    }

    /// What a table had right after a publication of its product.
    ///
    /// # Errors
    /// `not-found` where the table did not exist then.
    pub fn written(&self, product: &ProductKey, table: &str, publication: u64) -> Result<&WrittenTable> {
        let written = self.of_table(product, table).filter(|written| written.publication <= publication);
        written.max_by_key(|written| written.publication).ok_or_else(|| {
            let what = format!("table `{table}` of `{product}` did not exist yet as of publication {publication}");
            Error::new(ErrorCode::NotFound, what).with_help("name a later publication")
        })
    }

    /// What the next publication that wrote a table gave it; `None`: none has since.
    pub fn next_written(&self, product: &ProductKey, table: &str, publication: u64) -> Option<&WrittenTable> {
        let written = self.of_table(product, table).filter(|written| written.publication > publication);
        written.min_by_key(|written| written.publication)
    }

    fn of_table<'a>(&'a self, product: &ProductKey, table: &str) -> impl Iterator<Item = &'a WrittenTable> {
        let own = move |number: u64| self.published(product).any(|attempt| attempt.number == number);
        self.tables.iter().filter(move |written| written.table == table && own(written.publication))
    }

    /// The revisions of a product's contract, in the order of their numbers.
    pub fn revisions_of<'a>(&'a self, product: &'a ProductKey) -> impl DoubleEndedIterator<Item = &'a AppliedRevision> {
        self.revisions.iter().filter(move |revision| revision.product == *product)
    }

    /// When a publication was recorded.
    pub fn at(&self, publication: u64) -> Option<DateTime<Utc>> {
        self.attempts.iter().find(|attempt| attempt.number == publication).map(|attempt| attempt.at)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn key(product: &str) -> ProductKey {
        ProductKey { domain: "lab".into(), product: product.into(), major: 1 }
    }

    /// Publications 1 and 4 of `a` (4 wrote only `x`), 2 of `b`, 3 of `a` rejected; one a minute.
    fn history() -> (History, DateTime<Utc>) {
        let start = DateTime::UNIX_EPOCH;
        let attempt = |(number, product, status): (u64, &str, PublicationStatus)| Attempt {
            product: key(product),
            number,
            at: start + TimeDelta::minutes(number as i64),
            status,
        };
        let (published, rejected) = (PublicationStatus::Published, PublicationStatus::Rejected);
        let attempts = [(1, "a", published), (2, "b", published), (3, "a", rejected), (4, "a", published)];
        let tables = [(1, "x", 10), (1, "y", 11), (2, "x", 20), (4, "x", 40)];
        let written = |(publication, table, snapshot_id): (u64, &str, i64)| WrittenTable {
            publication,
            table: table.into(),
            snapshot_id,
        };
        let revisions = vec![AppliedRevision { product: key("a"), number: 1, at: start }];
        let history =
            History { attempts: attempts.map(attempt).to_vec(), tables: tables.map(written).to_vec(), revisions };
        (history, start)
    }

    #[test]
    fn a_table_that_was_left_as_it_was_keeps_its_snapshot() {
        let (history, _) = history();
        let snapshot = |product, table, publication| {
            history.written(&key(product), table, publication).ok().map(|written| written.snapshot_id)
        };
        assert_eq!(snapshot("a", "x", 4), Some(40));
        assert_eq!(snapshot("a", "y", 4), Some(11));
        assert_eq!(snapshot("a", "x", 1), Some(10), "not that of another product");
        assert_eq!(snapshot("b", "x", 4), Some(20));
        assert_eq!(snapshot("b", "y", 4), None);
        let next = |product, table, publication| {
            history.next_written(&key(product), table, publication).map(|written| written.snapshot_id)
        };
        assert_eq!((next("a", "x", 1), next("a", "x", 4), next("a", "y", 1)), (Some(40), None, None));
        assert_eq!((next("a", "x", 0), next("b", "x", 1)), (Some(10), Some(20)));
    }

    #[test]
    fn moments_find_what_served_then() {
        let (history, start) = history();
        let at = |minutes| AsOf::Time(start + TimeDelta::minutes(minutes));
        let number = |product, as_of| history.publication(&key(product), as_of).ok();
        assert_eq!(number("a", at(1)), Some(1));
        assert_eq!(number("a", at(3)), Some(1), "a rejected attempt changes nothing");
        assert_eq!(number("a", at(99)), Some(4));
        assert_eq!(number("a", at(0)), None);
        assert_eq!(number("a", AsOf::Publication(4)), Some(4));
        assert_eq!(number("a", AsOf::Publication(3)), None);
        assert_eq!(number("a", AsOf::Publication(2)), None);
        assert_eq!(number("a", AsOf::Through(2)), Some(1));
        assert_eq!(number("b", AsOf::Through(1)), None);
        let error = history.publication(&key("a"), AsOf::Publication(3)).expect_err("rejected").to_string();
        assert!(error.contains("was rejected"), "{error}");
    }
}
