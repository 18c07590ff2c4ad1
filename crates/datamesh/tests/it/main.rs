//! The real binary on real meshes in temporary folders.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cli;
mod diff;
mod domains;
mod faults;
mod governance;
mod lineage;
mod maintain;
mod modes;
mod plan;
#[path = "../../../datamesh-registry/tests/it/server.rs"]
mod postgres;
mod provision;
mod registry;
mod remote;
mod servers;
mod start;
mod support;
mod transform;
mod warehouse;
