//! The Rust half of `data_mesh_framework`: the same commands, the same audit and the same decisions as the command
//! line's, with data that crosses by Arrow's PyCapsule interface.
//!
//! Private to the Python package. Rust works with the interpreter released; it never calls into Python but to pull a
//! Python producer's batches, and to tell the calling thread how far it is.

mod capsule;
mod checking;
mod convert;
mod drive;
mod errors;
mod runtime;
mod session;
mod stream;

use pyo3::prelude::*;

/// The Rust half of `data_mesh_framework`.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::register(module)?;
    module.add_class::<session::Session>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<stream::Batch>()?;
    module.add_class::<drive::Stop>()?;
    module.add_function(wrap_pyfunction!(session::command, module)?)?;
    module.add_function(wrap_pyfunction!(checking::check, module)?)?;
    module.add_function(wrap_pyfunction!(checking::infer, module)?)?;
    module.add_function(wrap_pyfunction!(runtime::before_fork, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
