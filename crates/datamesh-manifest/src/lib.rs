//! Manifest YAML to domain types, with a place on every problem.
//!
//! Text becomes a tree with spans ([`yaml`]), the tree is checked against the one table of keys ([`shape`]), which
//! also makes the JSON Schema ([`schema`]), and is then read into the types of `datamesh-core` ([`read`]).
//! This crate must not know Arrow, SQL, tokio or the registry.

pub mod domain;
pub mod draft;
mod from;
mod governance;
pub mod inputs;
pub mod mesh;
mod place;
mod policies;
pub mod read;
pub mod schema;
pub mod shape;
pub mod source;
pub mod standards;
pub mod transform_tests;
mod write;
pub mod yaml;

pub use governance::Principals;
pub use mesh::{LoadedProduct, Mesh, load_domain, load_mesh, load_product, load_settings};
pub use place::{load_product_in, locate_changes, read_product};
pub use read::MeshSettings;
