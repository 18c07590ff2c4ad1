//! The words and the pure decisions of a data mesh.
//!
//! Everything here is data and functions over data. This crate must not know tokio, Arrow, SQL, a clock,
//! the environment or any IO: time, randomness and configuration are passed in.

pub mod access;
pub mod access_request;
pub mod audit;
pub mod canonical;
pub mod classification;
pub mod context_map;
pub mod contract;
pub mod datatype;
pub mod dates;
pub mod decision;
pub mod diagnostic;
pub mod domain;
pub mod error;
pub mod evolution;
pub mod history;
pub mod identity;
pub mod ids;
pub mod infer;
pub mod inheritance;
pub mod lifecycle;
pub mod lineage;
pub mod mask;
pub mod outbox;
pub mod ownership;
pub mod period;
pub mod plan;
pub mod policy_test;
pub mod ports;
pub mod profile;
pub mod protection;
pub mod quality;
pub mod receipt;
pub mod reference;
pub mod rehearsal;
pub mod row_condition;
pub mod rules;
pub mod scalar;
pub mod secret;
pub mod transform;
pub mod verdict;
pub mod watermark;

pub use contract::{Column, DataProduct, Table};
pub use datatype::DataType;
pub use diagnostic::{Diagnostic, Level, Location};
pub use error::{Error, ErrorCode, Result};
pub use ids::{AttemptId, DomainName, Name, ProductId, ProductKey, TableName};
pub use lifecycle::Lifecycle;
pub use period::Period;
