//! The use cases of a mesh, over ports: publish, read, tell lineage, look after.
//!
//! Ports without data live in `datamesh-core`; those that carry data live here and may name Arrow. This crate must not
//! know SQLite, DataFusion, Iceberg, files or the command line.

pub mod access;
pub mod apply;
pub mod check;
pub mod explore;
pub mod govern;
pub mod lineage;
pub mod maintain;
pub mod plan_file;
pub mod ports;
pub mod publish;
pub mod read;
mod recorded;
mod references;
pub mod retry;
pub mod rollback;
pub mod run;
pub mod signing;

pub use ports::{Clock, Context, Engine, Ids, Progress};
