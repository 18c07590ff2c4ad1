//! Quality rules over Arrow batches: constraints become row masks, metric rules become mergeable counts.
//!
//! Knows Arrow arrays and the rules of `datamesh-core`. This crate must not know DataFusion, Parquet, Iceberg, files or
//! tokio: a batch comes in, a mask or a count goes out.

pub mod arrow_types;
pub mod detect;
pub mod exact;
pub mod format;
pub mod metrics;
mod pattern;
pub mod profile;
pub mod rows;
pub mod sketch;
pub mod values;

pub use metrics::{GroupJudge, Measured, MetricPlan, MetricStates, PackedStatistic, RowFilter};
pub use rows::RowCheck;
