//! Keys on disk.
//!
//! A key file holds the protobuf encoding of an ed25519 key pair (libp2p's own form) and is
//! readable by its owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libp2p_identity::Keypair;

/// The name of a process's own key in its data directory.
pub const FILE: &str = "identity.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file can be neither read nor made.
    #[error("the key file {path} cannot be read or made")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not hold a key; restore it from a copy, or move it away to get a new one")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the key in `path`, or makes one there.
///
/// # Errors
/// See [`IdentityError`].
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes)
            .map_err(|_| IdentityError::NotAKey { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(source) => Err(IdentityError::Io { path: path.to_owned(), source }),
    }
}

/// Reads the key in `path`, which must be there.
///
/// # Errors
/// See [`IdentityError`].
pub fn load(path: &Path) -> Result<Keypair, IdentityError> {
    let bytes =
        fs::read(path).map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    Keypair::from_protobuf_encoding(&bytes)
        .map_err(|_| IdentityError::NotAKey { path: path.to_owned() })
}

fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding().expect("an ed25519 key has an encoding");
    let written = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // A crash in the middle leaves only the temporary file.
        let temporary = path.with_extension("new");
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/identity.key");
        let made = load_or_create(&path).expect("a new key");
        let read = load_or_create(&path).expect("the same key");
        assert_eq!(made.public(), read.public());
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn rubbish_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("identity.key");
        fs::write(&path, b"rubbish").expect("a file");
        assert!(matches!(load_or_create(&path), Err(IdentityError::NotAKey { .. })));
        assert_eq!(fs::read(&path).expect("still there"), b"rubbish");
    }
}
