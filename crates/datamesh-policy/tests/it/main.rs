//! The policies of a small mesh, asked from outside.

mod cases;
mod compile;
mod decide;
mod judge;
mod layers;
mod matrix;
mod mesh;
mod read;
