//! The registry of a mesh on SQLite: contracts, table pointers, publications, decisions and leases.
//!
//! Implements the `Registry` port of `datamesh-core`. It must not know Arrow, Iceberg or where data lies: pointers and
//! paths are texts to it.

mod error;
mod history;
mod lineage;
mod maintenance;
mod sqlite;

pub use sqlite::SqliteRegistry;
