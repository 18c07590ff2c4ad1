//! The registry of a mesh on SQLite or PostgreSQL: contracts, table pointers, publications, leases, grants and
//! the audit log.
//!
//! Implements the `Registry` port of `datamesh-core`. It must not know Arrow, Iceberg or where data lies: pointers and
//! paths are texts to it. `store` has what differs between the databases; the SQL of the other modules is that of both.

mod access;
mod apply;
mod audit;
mod error;
mod history;
mod identity;
mod leases;
mod lineage;
mod location;
mod maintenance;
mod outbox;
mod postgres;
mod publications;
mod receipts;
mod registry;
mod sqlite;
mod state;
mod store;
mod text;

pub use location::{Location, PostgresUrl};
pub use registry::SqlRegistry;
