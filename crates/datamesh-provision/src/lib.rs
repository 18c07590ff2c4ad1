//! Self-serve infrastructure from contracts: Terraform as text, and catalogs that are kept as contracts and pointers say.
//!
//! This crate must not know the registry's store, Arrow, Iceberg's files, YAML or the command line: contracts and pointers
//! come in, text and calls of a catalog go out. It reads no environment but what the AWS client's own configuration does.

pub mod catalog;
#[cfg(feature = "glue")]
pub mod glue;
pub mod hcl;
pub mod local;
pub mod outbox;
pub mod provision;
pub mod terraform;
