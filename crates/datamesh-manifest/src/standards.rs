//! The field's standards, to and from our manifest, **tree to tree**: what one side does not model is kept at its
//! node, so that nothing is lost on the way there and back.
//!
//! No standard is read into the types of `datamesh-core` directly; a manifest tree is, by the ordinary reader.

pub mod datacontract;
pub mod dbt;
mod lens;
mod names;
pub mod odcs;
pub mod odps;
mod read;
pub mod tree;

pub use read::{Imported, Standard, import, read_contract};
pub use tree::{Map, Tree};
