//! The crate's tests: text against the readers of Terraform, provisioning against servers and faults.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod contracts;
#[cfg(feature = "glue")]
mod glue;
mod log;
mod memory;
mod provider;
mod provision;
#[cfg(feature = "glue")]
mod proxy;
mod terraform;
