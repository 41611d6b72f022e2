//! An image of the local engine as an archive: how a project owner takes an image that was built
//! with Docker into the network.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bollard::errors::Error as EngineError;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

use super::archive::{self, ArchiveError, ImageInfo, inspect_archive};
use super::connect::{ConnectError, connect};
use super::images::LOAD_TIMEOUT;
use super::is_not_found;

/// Why an image of the local engine could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// No engine answers.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The engine has no image of this name.
    #[error("the engine has no image {reference:?}; pull or build it first")]
    NoSuchImage {
        /// The name that was asked for.
        reference: String,
    },
    /// The engine failed.
    #[error("the engine could not save image {reference:?}")]
    Engine {
        /// The image.
        reference: String,
        /// The engine's words.
        #[source]
        source: EngineError,
    },
    /// The image cannot be run in the network.
    #[error("image {reference:?} cannot be used")]
    Unusable {
        /// The image.
        reference: String,
        /// What is wrong with it.
        #[source]
        source: ArchiveError,
    },
    /// The archive could not be written.
    #[error("archive {path} could not be written")]
    Write {
        /// The archive.
        path: PathBuf,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
}

/// Exports an image of the local engine into an archive, the same bytes for the same image.
///
/// `host` is the engine's address; without one, `DOCKER_HOST` or the default socket. The archive
/// carries no tags, and it is checked to be one that nodes accept.
///
/// # Errors
///
/// When no engine answers, the image is not there or not usable, or the disk refuses.
pub async fn save_image(
    host: Option<&str>,
    reference: &str,
    into: &Path,
) -> Result<ImageInfo, SaveError> {
    let docker = connect(host).await?.docker.with_timeout(LOAD_TIMEOUT);
    let engine = |source| SaveError::Engine { reference: reference.to_owned(), source };
    let image = match docker.inspect_image(reference).await {
        Ok(image) => image.id.unwrap_or_default(),
        Err(error) if is_not_found(&error) => {
            return Err(SaveError::NoSuchImage { reference: reference.to_owned() });
        }
        Err(error) => return Err(engine(error)),
    };
    let write = |source| SaveError::Write { path: into.to_owned(), source };

    // The engine's archive has dates and tags in it; only its plain copy is kept.
    let directory = into.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let saved = tempfile::NamedTempFile::new_in(directory).map_err(write)?;
    let mut file = tokio::fs::File::from_std(saved.reopen().map_err(write)?);
    let mut chunks = std::pin::pin!(docker.export_image(&image));
    while let Some(chunk) = chunks.next().await {
        file.write_all(&chunk.map_err(engine)?).await.map_err(write)?;
    }
    file.flush().await.map_err(write)?;
    drop(file);

    let target = into.to_owned();
    let copied = spawn_blocking(move || {
        let info = inspect_archive(saved.path()).map_err(CopyError::Archive)?;
        let plain = tempfile::NamedTempFile::new_in(saved.path().parent().unwrap_or(&target))?;
        let mut writer = BufWriter::new(plain.as_file());
        archive::copy_image(&mut File::open(saved.path())?, &info, None, &mut writer)?;
        writer.flush()?;
        drop(writer);
        plain.persist(&target).map_err(|error| error.error)?;
        Ok(info)
    });
    match copied.await.map_err(|error| write(io::Error::other(error)))? {
        Ok(info) => Ok(info),
        Err(CopyError::Io(source)) => Err(write(source)),
        Err(CopyError::Archive(source)) => {
            Err(SaveError::Unusable { reference: reference.to_owned(), source })
        }
    }
}

enum CopyError {
    Archive(ArchiveError),
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
