//! Secrets from the environment and from files: looked up when a source is opened, and kept nowhere.

use datamesh_core::secret::{SecretRef, SecretResolver};
use datamesh_core::{Error, ErrorCode, Result};

/// The largest file that is taken for a secret.
const MAX_BYTES: u64 = 1 << 20;

/// Looks secrets up on this machine.
#[derive(Debug)]
pub(crate) struct Secrets;

impl SecretResolver for Secrets {
    fn resolve(&self, secret: &SecretRef) -> Result<String> {
        let missing =
            |why: String| Error::new(ErrorCode::SourceUnreadable, format!("`{secret}` cannot be used: {why}"));
        match secret {
            SecretRef::Env(name) => match std::env::var(name) {
                Ok(value) => Ok(value),
                Err(std::env::VarError::NotPresent) => Err(missing("the environment variable is not set".to_owned())
                    .with_help(format!("set {name} where datamesh runs"))),
                Err(std::env::VarError::NotUnicode(_)) => Err(missing("its value is not UTF-8".to_owned())),
            },
            SecretRef::File(path) => {
                let read = std::fs::metadata(path).and_then(|metadata| {
                    if metadata.len() > MAX_BYTES {
                        return Err(std::io::Error::other("the file is too large for a secret"));
                    }
                    std::fs::read_to_string(path)
                });
                let text = read.map_err(|error| {
                    missing(error.to_string()).with_help("check the path and who may read the file")
                })?;
                // Editors end a file with a line end, which is no part of the secret.
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
            }
        }
    }
}
