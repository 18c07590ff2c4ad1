//! The `datamesh` command: configuration, wiring, and what a user sees. Decisions live in the crates below.
//!
//! A library, so that other doors to a mesh run the very same commands: each says who it is by a [`caller::Caller`].

mod access;
mod apply;
mod audit;
pub mod caller;
mod check;
mod cli;
mod commands;
mod diff;
mod domains;
mod explain;
mod export;
mod findings;
pub mod home;
mod import;
mod init;
mod lineage;
mod machine;
mod maintain;
mod new;
mod observer;
mod output;
mod plan;
mod plan_text;
mod policy;
mod profile;
mod promise;
mod provision;
mod receipt;
mod registry;
mod retry;
mod rollback;
mod run;
mod secrets;
mod terraform;
mod test;

pub use cli::{Cli, parse_as_of};
pub use commands::{dispatch, find_maintained, find_product_or_attempt, manifest_sources};
pub use output::{plain_rows, print_error};
pub use promise::promise;

/// Exit code of `plan --detailed-exitcode` where there are changes: that of `terraform plan`.
pub(crate) const EXIT_CHANGES: u8 = 2;
/// Exit code of a publication that the audit rejected, and of a change that its version does not allow.
pub(crate) const EXIT_REJECTED: u8 = 3;
