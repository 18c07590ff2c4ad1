//! The data engine: sources, the audit pass, settling, scans and SQL. The only crate that names DataFusion.
//!
//! It must not know the registry's database, manifests as text, or the command line. Row rules and metric states come
//! from `datamesh-quality`, table metadata from `datamesh-iceberg`; this crate moves the batches between them.

mod analyze;
mod arithmetic;
mod audit;
mod candidate;
mod compact;
mod conditions;
mod engine;
mod error;
mod examine;
mod files;
mod govern;
mod keys;
mod lineage;
mod merge;
mod quarantine;
mod query;
mod references;
mod restore;
mod scan;
mod settle;
mod source;
mod stage;
mod standing;
mod statement;
mod stores;
mod times;
mod transform;
mod transform_test;
mod writer;

pub use conditions::SqlProblem;
pub use engine::{DataEngine, EngineOptions};
pub use transform::{ProblemPlace, TransformProblem};
pub use transform_test::{GivenRows, GivenTable};
