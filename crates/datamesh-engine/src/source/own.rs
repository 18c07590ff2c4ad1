//! Which sources lie within the mesh itself. Published files and the registry are read as tables, under a decision that
//! masks and filters; read by their place they would tell everything.

use std::path::{Path, PathBuf};

use datamesh_app::ports::{BoundIceberg, BoundSource, StageInput};
use datamesh_core::Result;
use datamesh_core::secret::{Redactor, SecretResolver};
use datamesh_iceberg::storage::{is_url, local_path, split};
use datamesh_iceberg::{Storage, TableCache};

use super::database::sqlite_path;
use super::iceberg;
use super::resolve::{SourcePlace, resolve};

/// Where the mesh keeps what is its own.
pub(crate) struct Own<'o> {
    /// URL of the folder of all tables.
    pub(crate) warehouse: &'o str,
    /// The folder of keys and scratch files, and the registry's file.
    pub(crate) private: &'o [PathBuf],
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
            StageInput::Iceberg(bound) => match redactor.resolve(&bound.spec.iceberg, secrets) {
                Ok(location) => self.table(storage, &location, bound).await,
                Err(error) => Err(error),
            },
            StageInput::Database(bound) => redactor.resolve(&bound.spec.database, secrets).map(|url| {
                let path = sqlite_path(&url).filter(|path| within(&bound.folder.join(path), &self.roots()));
                path.map(str::to_owned).into_iter().collect()
            }),
            StageInput::Arrow(_) | StageInput::Quarantine(_) | StageInput::Query(_) => Ok(Vec::new()),
        };
        let found = found.map_err(|error| redactor.redact_error(error))?;
        Ok(found.iter().map(|place| redactor.redact(place)).collect())
    }

    /// Where a table of others is the mesh's own after all: its document, the folder that this names, a manifest, or a data
    /// file. A copy of a document leads to the same rows as the document.
    ///
    /// # Errors
    /// A table that cannot be read.
    async fn table(&self, storage: &Storage, location: &str, bound: &BoundIceberg) -> Result<Vec<String>> {
        if self.has(&bound.folder, location)? {
            return Ok(vec![location.to_owned()]);
        }
        let table = iceberg::open(storage, location, &bound.folder, &bound.spec.iceberg).await?.view(None)?;
        // What a document calls the table's folder need be no address that can be read; its files are.
        if self.has(&bound.folder, table.location()).is_ok_and(|own| own) {
            return Ok(vec![table.location().to_owned()]);
        }
        let cache = TableCache::new(0);
        let manifests = table.manifests(&cache).await?;
        for manifest in manifests.iter() {
            if self.has(&bound.folder, &manifest.manifest_path)? {
                return Ok(vec![manifest.manifest_path.clone()]);
            }
        }
        for file in table.live_files(&manifests, &cache).await? {
            if self.has(&bound.folder, file.url())? {
                return Ok(vec![file.url().to_owned()]);
            }
        }
        Ok(Vec::new())
    }

    /// The files of a source that are the mesh's own.
    ///
    /// # Errors
    /// Secrets and files that are not there.
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
            if path == "-" {
                continue;
            }
            match !path.contains("://") || local_path(&path)?.is_some() {
                true => local.paths.push(path),
                false if self.overlaps(&path)? => own.push(path),
                false => {}
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

    /// Whether what an address in an object store means, a file, a folder or a pattern, may have files of the warehouse
    /// among it.
    fn overlaps(&self, address: &str) -> Result<bool> {
        let ((base, key), (own_base, own_key)) = (split(address)?, split(self.warehouse)?);
        let scheme_less = |base: &str| base.split_once("://").map_or(base.to_owned(), |(_, rest)| rest.to_owned());
        if scheme_less(&base) != scheme_less(&own_base) {
            return Ok(false);
        }
        let mut wanted = key.as_ref().split('/').filter(|part| !part.is_empty());
        for part in own_key.as_ref().split('/').filter(|part| !part.is_empty()) {
            match wanted.next() {
                // A folder has what lies below it; a pattern matches names of its own depth only.
                None => return Ok(!address.contains(['*', '?', '['])),
                Some("**") => return Ok(true),
                Some(pattern) if pattern == part => {}
                Some(pattern) if glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(part)) => {}
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn has(&self, folder: &Path, location: &str) -> Result<bool> {
        if !is_url(location) {
            return Ok(within(&folder.join(location), &self.roots()));
        }
        match local_path(location)? {
            Some(path) => Ok(within(&path, &self.roots())),
            None => self.overlaps(location),
        }
    }

    /// The folders and files on this machine, by the names that lead to them without links.
    fn roots(&self) -> Vec<PathBuf> {
        let warehouse = local_path(self.warehouse).ok().flatten();
        let folders = warehouse.into_iter().chain(self.private.iter().cloned());
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
    fn addresses_that_may_mean_the_warehouse_are_its_own() -> Result<()> {
        let own = Own { warehouse: "s3://lake/mesh", private: &[] };
        for address in [
            "s3://lake/mesh",
            "s3://lake/mesh/d/p_v1/t/part-00000.parquet",
            "s3a://lake/mesh/d",
            "S3://lake/mesh/d",
            "s3://lake//mesh/d",
            "s3://lake",
            "s3://lake/",
            "s3://lake/*/d/x.parquet",
            "s3://lake/m?sh/*.parquet",
            "s3://lake/**/x.parquet",
        ] {
            assert!(own.overlaps(address)?, "{address}");
        }
        for address in [
            "s3://lake/mesh2/x.csv",
            "s3://other/mesh/x.csv",
            "s3://lake/raw/*.csv",
            "s3://lake/*.csv",
            "https://host/mesh/x",
        ] {
            assert!(!own.overlaps(address)?, "{address}");
        }
        Ok(())
    }

    #[test]
    fn links_lead_to_the_warehouse_too() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (inside, outside) = (folder.path().join("warehouse/t"), folder.path().join("raw"));
        std::fs::create_dir_all(&inside)?;
        std::fs::create_dir_all(&outside)?;
        std::fs::write(inside.join("part.parquet"), "")?;
        std::fs::write(outside.join("mine.csv"), "")?;
        let warehouse = datamesh_iceberg::local::to_url(&folder.path().join("warehouse"));
        let own = Own { warehouse: &warehouse, private: &[] };
        assert!(own.has(folder.path(), "warehouse/t/part.parquet")?);
        assert!(own.has(&outside, "../warehouse/t/part.parquet")?);
        assert!(own.has(&outside, &format!("FILE://{}", inside.display()))?);
        assert!(!own.has(&outside, "mine.csv")?);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(inside.join("part.parquet"), outside.join("link.parquet"))?;
            assert!(own.has(&outside, "link.parquet")?);
        }
        Ok(())
    }
}
