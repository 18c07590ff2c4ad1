//! The crate's tests: text against the readers of Terraform, provisioning against servers and faults.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod contracts;
mod memory;
mod provider;
mod provision;
mod terraform;
