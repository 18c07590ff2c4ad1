//! The mesh's key: Ed25519 (RFC 8032). It signs checkpoints of the audit log and receipts of publications.
//!
//! A file holds the private key as PKCS#8 (RFC 5958). The public key is text, `ed25519:<base64>`, which travels with
//! receipts to whoever checks them.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datamesh_core::audit::{Signer, Verifier};
use datamesh_core::canonical;
use datamesh_core::{Error, ErrorCode, Result};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// What a public key's text begins with.
const PREFIX: &str = "ed25519:";

/// Bytes of a public key.
const PUBLIC_KEY_LENGTH: usize = 32;

/// A private key, with which the mesh signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads the key in a file, which is made at random where there is none. Of several that make it at once, one wins, and
    /// all have its key.
    ///
    /// # Errors
    /// `write-failed` where it cannot be made, `invalid-argument` where it is no key or others may read it.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(bytes) => Self::read(path, &bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path)?;
                let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
                Self::read(path, &bytes)
            }
            Err(error) => Err(unreadable(path, error)),
        }
    }

    fn read(path: &Path, bytes: &[u8]) -> Result<Self> {
        check_mode(path)?;
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|why| {
            Error::new(ErrorCode::InvalidArgument, format!("`{}` is no Ed25519 key: {why}", path.display())).with_help(
                "restore it from a backup; what was signed with it can be verified with its public key alone",
            )
        })?;
        let bytes = pair.public_key().as_ref();
        let public = PublicKey::from_bytes(bytes)
            .ok_or_else(|| Error::new(ErrorCode::Internal, "an Ed25519 key has no public key of 32 bytes"))?;
        Ok(Self { pair, public })
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl Signer for SigningKey {
    fn key_id(&self) -> &str {
        &self.public.id
    }

    fn public_key(&self) -> String {
        self.public.to_string()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::io(ErrorCode::InvalidArgument, "read the key", path, error)
}

/// Makes the file whole and synchronised under another name first, and gives it its own where that is still free.
fn make(path: &Path) -> Result<()> {
    let failed = |doing: &str, error| Error::io(ErrorCode::WriteFailed, doing, path, error);
    let random = |_| Error::new(ErrorCode::Internal, "the system gives no random numbers");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder).map_err(|error| failed("make the folder of", error))?;
    let system = SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&system).map_err(random)?;
    let mut number = [0; 8];
    ring::rand::SecureRandom::fill(&system, &mut number).map_err(random)?;
    let own = path.with_extension(format!("{}.new", canonical::hex(&number)));
    let written = write_private(&own, document.as_ref()).and_then(|()| match fs::hard_link(&own, path) {
        // Somebody else was first, and the key is theirs.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&own);
    written
        .and(removed)
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .map_err(|error| failed("make the key", error))
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|error| unreadable(path, error))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("others may read or write the key `{}`: its mode is {:o}", path.display(), mode & 0o777),
    )
    .with_help(format!("run `chmod 600 {}`, and make a new key if somebody may have read it", path.display())))
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<()> {
    Ok(())
}

/// A public key, with which anybody verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; PUBLIC_KEY_LENGTH],
    id: String,
}

impl PublicKey {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; PUBLIC_KEY_LENGTH] = bytes.try_into().ok()?;
        // Half of a SHA-256 still has 128 bits.
        let id = canonical::sha256(&bytes).chars().take(32).collect();
        Some(Self { bytes, id })
    }

    /// Reads `ed25519:<base64>`, with or without spaces around it.
    ///
    /// # Errors
    /// `invalid-argument` for what is no such text.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        bytes.and_then(|bytes| Self::from_bytes(&bytes)).ok_or_else(|| {
            Error::new(ErrorCode::InvalidArgument, "this is no public key of a mesh")
                .with_help(format!("it is one line, `{PREFIX}` and 44 characters"))
        })
    }

    /// What it is known by: a hash of it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.bytes))
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Verifier for PublicKey {
    fn knows(&self, key_id: &str) -> bool {
        self.id == key_id
    }

    fn verify(&self, key_id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.knows(key_id) && UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature).is_ok()
    }
}

/// Several public keys: those that a mesh has had, and those of several machines that write to one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing(pub Vec<PublicKey>);

impl KeyRing {
    /// Reads keys, one a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// `invalid-argument` where a line is no key, or there is none.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(PublicKey::parse).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Err(Error::new(ErrorCode::InvalidArgument, "there is no public key in it")
                .with_help(format!("write one a line, `{PREFIX}` and 44 characters")));
        }
        Ok(Self(keys))
    }
}

impl Verifier for KeyRing {
    fn knows(&self, key_id: &str) -> bool {
        self.0.iter().any(|key| key.knows(key_id))
    }

    fn verify(&self, key_id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| key.verify(key_id, message, signature))
    }
}

#[cfg(test)]
mod tests;
