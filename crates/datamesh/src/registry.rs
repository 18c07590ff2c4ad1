//! Which registry the mesh has.

use std::path::Path;

use datamesh_core::secret::Redactor;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_registry::Location;

use crate::secrets::Secrets;

/// Where the registry is: as the environment says, else `mesh.yaml`, else a file of the mesh.
pub(crate) fn location(root: &Path) -> Result<Location> {
    const HELP: &str = "set `registry:` in mesh.yaml, or DATAMESH_REGISTRY, to a file or to postgres://…";
    if let Some(told) = std::env::var_os("DATAMESH_REGISTRY").filter(|told| !told.is_empty()) {
        let folder =
            std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
        // The environment is where secrets are, so what it says is meant as it stands.
        return match told.to_str() {
            Some(told) => Location::parse(told, &folder),
            None => Err(Error::new(ErrorCode::InvalidArgument, "DATAMESH_REGISTRY is not UTF-8").with_help(HELP)),
        };
    }
    let Some(told) = datamesh_manifest::load_settings(root)?.registry else {
        return Ok(Location::Sqlite(root.join(".datamesh").join("registry.db")));
    };
    let mut redactor = Redactor::default();
    let unknown = |error: Error| {
        let help = error.help().unwrap_or(HELP).to_owned();
        Error::new(ErrorCode::Registry, format!("the registry's place is not known: {error}")).with_help(help)
    };
    let url = redactor.resolve(&told, &Secrets).map_err(unknown)?;
    Location::parse(&url, root).map_err(|error| redactor.redact_error(error))
}
