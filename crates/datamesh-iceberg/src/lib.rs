//! Iceberg metadata: schemas, partition specs, data file statistics, manifests, snapshots, metadata documents.
//!
//! Uses the specification types of the `iceberg` crate only: we own the catalog, so its `Catalog`, `Table` and
//! `Transaction` have no part in this. It must not know DataFusion, SQL or the registry.

mod changes;
mod commit;
mod error;
pub mod local;
mod schema;
mod statistics;
pub mod storage;
mod table;

pub use commit::{
    KeyRanges, NewDataFile, Partition, PreparedCommit, Restored, RewrittenFile, SnapshotChange, TableDraft,
};
pub use schema::arrow_schema;
pub use storage::Storage;
pub use table::{DataFile, LiveFile, OpenTable};
