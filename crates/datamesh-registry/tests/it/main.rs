//! One suite for both databases, and what only one of them can do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
mod apply;
mod audit;
mod postgres;
mod requests;
mod runs;
mod server;
mod sqlite;
mod suite;
