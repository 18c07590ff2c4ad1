//! The policies of a small mesh, asked from outside.

mod compile;
mod decide;
mod mesh;
mod read;
