//! An image of the local engine as a folder of parts: how a project owner takes an image that
//! was built with Docker into the network.

use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use bollard::errors::Error as EngineError;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

use super::archive::{ArchiveError, CopyError, Image, ImageInfo};
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
    /// The parts could not be written.
    #[error("the parts of the image could not be written to {}", folder.display())]
    Write {
        /// The folder.
        folder: PathBuf,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
}

/// Exports an image of the local engine into a folder of parts, the same bytes for the same
/// image.
///
/// `host` is the engine's address; without one, `DOCKER_HOST` or the default socket. The parts
/// carry no tags, and they are checked to be an image that nodes accept. What the engine writes
/// lies in `into` too meanwhile, without a name.
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
    let write = |source| SaveError::Write { folder: into.to_owned(), source };

    std::fs::create_dir_all(into).map_err(write)?;
    // The engine's archive has dates and tags in it; only its parts are kept.
    let mut saved = tempfile::tempfile_in(into).map_err(write)?;
    let mut file = tokio::fs::File::from_std(saved.try_clone().map_err(write)?);
    let mut chunks = std::pin::pin!(docker.export_image(&image));
    while let Some(chunk) = chunks.next().await {
        file.write_all(&chunk.map_err(engine)?).await.map_err(write)?;
    }
    file.flush().await.map_err(write)?;
    drop(file);

    let target = into.to_owned();
    let split = spawn_blocking(move || {
        saved.rewind()?;
        Image::of_archive(saved).map_err(CopyError::Image)?.split(&target)
    });
    match split.await.map_err(|error| write(io::Error::other(error)))? {
        Ok(info) => Ok(info),
        Err(CopyError::Io(source)) => Err(write(source)),
        Err(CopyError::Image(source)) => {
            Err(SaveError::Unusable { reference: reference.to_owned(), source })
        }
    }
}
