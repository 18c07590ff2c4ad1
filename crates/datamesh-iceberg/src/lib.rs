//! Iceberg metadata: schemas, partition specs, data file statistics, manifests, snapshots, metadata documents.
//!
//! Uses the specification types of the `iceberg` crate only: we own the catalog, so its `Catalog`, `Table` and
//! `Transaction` have no part in this. It must not know DataFusion, SQL or the registry.

mod cache;
mod changes;
mod commit;
mod error;
pub mod local;
mod manifest;
pub mod projection;
pub mod read;
mod schema;
mod statistics;
pub mod storage;
mod table;

pub use cache::TableCache;
pub use commit::{
    Expiry, KeyRanges, Maintained, Merged, NewDataFile, Partition, PreparedCommit, Restored, RewrittenFile,
    SnapshotChange, TableDraft,
};
/// The specification types, for those who read tables.
pub use iceberg::spec;
pub use schema::arrow_schema;
pub use storage::Storage;
pub use table::{DataFile, LiveFile, OpenTable};
