//! Which sources lie within the mesh itself. Published files and the registry are read as tables, under a decision that
//! masks and filters; read by their place they would tell everything.

use std::path::{Path, PathBuf};

use datamesh_app::ports::{BoundSource, StageInput};
use datamesh_core::Result;
use datamesh_core::secret::{Redactor, SecretResolver};
use datamesh_iceberg::Storage;
use datamesh_iceberg::storage::local_path;

use super::resolve::{SourcePlace, resolve};

/// Where the mesh keeps what is its own.
pub(crate) struct Own<'o> {
    /// URL of the folder of all tables.
    pub(crate) warehouse: &'o str,
    /// The folder of registry, keys and scratch files.
    pub(crate) folder: Option<&'o Path>,
}

impl Own<'_> {
    /// The places that an input reads and that are the mesh's own, as they may be shown.
    ///
    /// # Errors
    /// Secrets and files that are not there.
    pub(crate) async fn places(
        &self,
        storage: &Storage,
        secrets: &dyn SecretResolver,
        input: &StageInput,
    ) -> Result<Vec<String>> {
        let mut redactor = Redactor::default();
        let found = match input {
            StageInput::Source(source) => self.files(storage, secrets, &mut redactor, source).await,
            StageInput::Iceberg(bound) => redactor
                .resolve(&bound.spec.iceberg, secrets)
                .map(|location| self.has(&bound.folder, &location).then_some(location).into_iter().collect()),
            StageInput::Database(bound) => redactor.resolve(&bound.spec.database, secrets).map(|url| {
                let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
                let path = path.map(|path| path.split('?').next().unwrap_or(path).to_owned());
                path.filter(|path| self.has(&bound.folder, path)).into_iter().collect()
            }),
            StageInput::Arrow(_) | StageInput::Quarantine(_) | StageInput::Query(_) => Ok(Vec::new()),
        };
        let found = found.map_err(|error| redactor.redact_error(error))?;
        Ok(found.iter().map(|place| redactor.redact(place)).collect())
    }

    async fn files(
        &self,
        storage: &Storage,
        secrets: &dyn SecretResolver,
        redactor: &mut Redactor,
        source: &BoundSource,
    ) -> Result<Vec<String>> {
        let (mut own, mut local) = (Vec::new(), source.clone());
        local.paths.clear();
        for path in &source.paths {
            let path = redactor.resolve(path, secrets)?;
            let is_remote = path.contains("://") && !path.starts_with("file://");
            match is_remote {
                true if self.overlaps(&path) => own.push(path),
                false if path != "-" => local.paths.push(path),
                _ => {}
            }
        }
        if !local.paths.is_empty() {
            let roots = self.roots();
            for file in resolve(storage, &local).await?.files {
                if let SourcePlace::Local(path) = &file.place
                    && within(path, &roots)
                {
                    own.push(file.name);
                }
            }
        }
        Ok(own)
    }

    /// Whether what an address in an object store means may have files of the warehouse among it.
    fn overlaps(&self, address: &str) -> bool {
        let (fixed, whole) = match address.find(['*', '?', '[']) {
            Some(at) => (&address[..at], false),
            None => (address.trim_end_matches('/'), true),
        };
        let warehouse = self.warehouse;
        let below = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        match whole {
            true => fixed == warehouse || below(fixed, warehouse) || below(warehouse, fixed),
            false => below(fixed, warehouse) || warehouse.starts_with(fixed),
        }
    }

    fn has(&self, folder: &Path, location: &str) -> bool {
        match location.strip_prefix("file://") {
            Some(path) => within(Path::new(path), &self.roots()),
            None if location.contains("://") => self.overlaps(location),
            None => within(&folder.join(location), &self.roots()),
        }
    }

    /// The folders on this machine, by the names that lead to them without links.
    fn roots(&self) -> Vec<PathBuf> {
        let warehouse = local_path(self.warehouse).ok().flatten();
        let folders = warehouse.into_iter().chain(self.folder.map(Path::to_owned));
        folders.filter_map(|folder| folder.canonicalize().ok()).collect()
    }
}

/// Whether a file lies in one of the folders, whatever links lead to it. One that is not there lies nowhere.
fn within(path: &Path, roots: &[PathBuf]) -> bool {
    path.canonicalize().is_ok_and(|path| roots.iter().any(|root| path.starts_with(root)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_may_mean_the_warehouse_are_its_own() {
        let own = Own { warehouse: "s3://lake/mesh", folder: None };
        for address in ["s3://lake/mesh", "s3://lake/mesh/d/p_v1/t", "s3://lake", "s3://lake/", "s3://lake/*/x.parquet"]
        {
            assert!(own.overlaps(address), "{address}");
        }
        for address in ["s3://lake/mesh2/x.csv", "s3://other/mesh/x.csv", "s3://lake/raw/*.csv", "https://lake/mesh/x"]
        {
            assert!(!own.overlaps(address), "{address}");
        }
    }

    #[test]
    fn links_lead_to_the_warehouse_too() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (inside, outside) = (folder.path().join("warehouse/t"), folder.path().join("raw"));
        std::fs::create_dir_all(&inside)?;
        std::fs::create_dir_all(&outside)?;
        std::fs::write(inside.join("part.parquet"), "")?;
        std::fs::write(outside.join("mine.csv"), "")?;
        let warehouse = datamesh_iceberg::local::to_url(&folder.path().join("warehouse"));
        let own = Own { warehouse: &warehouse, folder: None };
        assert!(own.has(folder.path(), "warehouse/t/part.parquet"));
        assert!(own.has(&outside, "../warehouse/t/part.parquet"));
        assert!(!own.has(&outside, "mine.csv"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(inside.join("part.parquet"), outside.join("link.parquet"))?;
            assert!(own.has(&outside, "link.parquet"));
        }
        Ok(())
    }
}
