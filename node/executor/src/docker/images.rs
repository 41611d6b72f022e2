//! Images in the engine: loaded under a tag of ours, checked, and removed with that tag.
//!
//! # Shape
//!
//! ```text
//! program ─inspect─► id ─engine has it under our tag?─yes─► run by id
//!                              │ no
//!                              └─ copy, tag `dockercomp-<node>:<id>` ─load─► check id ─► run
//! ```
//!
//! Several nodes may share one engine, and the volunteer's own images are in it too. Each node
//! has a repository name of its own, and removes only tags in it; an image vanishes with its
//! last tag, so what another node or the volunteer still names stays.
//!
//! The copy is written into the request as the engine reads it; no part of it is on disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::query_parameters::{ImportImageOptions, ListImagesOptions, RemoveImageOptions};
use bollard::{Docker, body_try_stream};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;

use super::archive::{CopyError, Image, ImageInfo};
use super::pack::{BINARY_NAME, pack_static_binary};
use super::{is_conflict, is_not_found};
use crate::elf;
use crate::error::{CleanupError, PrepareError};

/// The images of one node in one engine.
#[derive(Debug)]
pub(super) struct Images {
    docker: Docker,
    /// Repository name of this node's tags.
    repository: String,
    /// By program id. The engine is asked each time whether it still has the image.
    known: Mutex<HashMap<String, Loaded>>,
    /// Held while an image is loaded: loads compete for one disk, and two of the same image
    /// would be wasted.
    loading: Mutex<()>,
}

/// An image that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loaded {
    /// As the engine names it.
    image: String,
    /// The tag that holds it there.
    tag: String,
}

impl Images {
    pub(super) fn new(docker: Docker, repository: String) -> Self {
        Self { docker, repository, known: Mutex::default(), loading: Mutex::default() }
    }

    /// Returns the id under which the engine runs the program, loading it if need be.
    pub(super) async fn prepare(&self, id: &str, path: &Path) -> Result<String, PrepareError> {
        if let Some(Loaded { image, .. }) = self.known.lock().await.get(id).cloned()
            && self.has(id, &image).await?
        {
            return Ok(image);
        }
        let _loading = self.loading.lock().await;
        let known = self.known.lock().await.get(id).cloned();
        if let Some(Loaded { image, .. }) = known
            && self.has(id, &image).await?
        {
            return Ok(image);
        }
        let loaded = self.load(id, path).await?;
        let image = loaded.image.clone();
        self.known.lock().await.insert(id.to_owned(), loaded);
        Ok(image)
    }

    /// Removes the image of a program, unless another program is the same one.
    pub(super) async fn forget(&self, id: &str) {
        let _loading = self.loading.lock().await;
        let forgotten = {
            let mut known = self.known.lock().await;
            let forgotten = known.remove(id);
            forgotten.filter(|loaded| !known.values().any(|other| other == loaded))
        };
        let Some(Loaded { tag, .. }) = forgotten else { return };
        match self.docker.remove_image(&tag, None::<RemoveImageOptions>, None).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => tracing::warn!(image = %tag, %error, "image stays in the engine"),
        }
    }

    /// Removes the tags of this node, and with them the images that nobody else names.
    pub(super) async fn cleanup(&self) -> Result<usize, CleanupError> {
        self.known.lock().await.clear();
        let options = ListImagesOptions {
            filters: Some(HashMap::from([("reference".to_owned(), vec![self.repository.clone()])])),
            ..ListImagesOptions::default()
        };
        let action = "list images";
        let images = self
            .docker
            .list_images(Some(options))
            .await
            .map_err(|source| CleanupError::Engine { action, source })?;
        let ours = format!("{}:", self.repository);
        let mut removed = 0;
        for tag in images.into_iter().flat_map(|image| image.repo_tags) {
            if !tag.starts_with(&ours) {
                continue;
            }
            match self.docker.remove_image(&tag, None::<RemoveImageOptions>, None).await {
                Ok(_) => removed += 1,
                Err(error) if is_not_found(&error) => {}
                // A container that is not ours was made from it: the image is its, too.
                Err(error) if is_conflict(&error) => {
                    tracing::warn!(image = %tag, %error, "image is still in use");
                }
                Err(source) => {
                    return Err(CleanupError::Engine { action: "remove an image", source });
                }
            }
        }
        Ok(removed)
    }

    async fn has(&self, id: &str, image: &str) -> Result<bool, PrepareError> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(source) => Err(PrepareError::Engine { id: id.to_owned(), source }),
        }
    }

    async fn load(&self, id: &str, path: &Path) -> Result<Loaded, PrepareError> {
        let image = open(id, path).await?;
        let info = image.info.clone();
        let tag = format!("{}:{}", self.repository, tag_of(&info.id));
        // Left by an earlier life of this node.
        if let Some(found) = self.tagged(id, &tag, &info).await? {
            return Ok(Loaded { image: found, tag });
        }

        let expected = info.id.clone();
        let (bytes, copying) = stream(image, tag.clone());
        // A large image takes longer than an ordinary request may.
        let docker = self.docker.clone().with_timeout(LOAD_TIMEOUT);
        let options = ImportImageOptions { quiet: true, platform: None };
        let loaded = docker
            .import_image(options, body_try_stream(bytes), None)
            .try_for_each(|_| futures::future::ready(Ok(())))
            .await;
        // The copy ends with the request; its own error is the better explanation.
        let copied = copying.await.map_err(|_| PrepareError::Interrupted { id: id.to_owned() })?;
        match copied {
            Err(CopyError::Image(source)) => {
                return Err(PrepareError::Archive { id: id.to_owned(), source });
            }
            Err(CopyError::Io(source)) if source.kind() != io::ErrorKind::BrokenPipe => {
                return Err(read_error(id, path, source));
            }
            Ok(()) | Err(CopyError::Io(_)) => {}
        }
        loaded.map_err(|source| load_error(id, source))?;

        let found = self.tagged(id, &tag, &info).await?;
        let image = found.ok_or_else(|| PrepareError::OtherImage {
            id: id.to_owned(),
            expected,
            actual: "nothing".to_owned(),
        })?;
        Ok(Loaded { image, tag })
    }

    /// The id of the image under our tag, if it is the one that the archive describes.
    async fn tagged(
        &self,
        id: &str,
        tag: &str,
        info: &ImageInfo,
    ) -> Result<Option<String>, PrepareError> {
        let image = match self.docker.inspect_image(tag).await {
            Ok(image) => image,
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(source) => return Err(PrepareError::Engine { id: id.to_owned(), source }),
        };
        let actual = image.id.unwrap_or_default();
        // Engines with a containerd image store (the default from Docker 29) name an image by
        // its manifest, which they write themselves; its layers must be the archive's.
        let has_same_layers = image.descriptor.is_some()
            && image.root_fs.and_then(|fs| fs.layers).unwrap_or_default() == info.diff_ids;
        if actual == info.id || has_same_layers {
            return Ok(Some(actual));
        }
        Err(PrepareError::OtherImage { id: id.to_owned(), expected: info.id.clone(), actual })
    }
}

/// Opens a program as an image; a static binary becomes one in an unnamed temporary file.
async fn open(id: &str, path: &Path) -> Result<Image, PrepareError> {
    let (id, path) = (id.to_owned(), path.to_owned());
    let interrupted = PrepareError::Interrupted { id: id.clone() };
    let opened = spawn_blocking(move || {
        let read = |source| PrepareError::Read { id: id.clone(), path: path.clone(), source };
        let refused = |source| PrepareError::Archive { id: id.clone(), source };
        if path.is_dir() {
            return Image::open(&path).map_err(refused);
        }
        let mut start = [0; 4];
        let mut file = File::open(&path).map_err(read)?;
        let length = file.read(&mut start).map_err(read)?;
        let mut file = if elf::has_magic(&start[..length]) {
            let packed = tempfile::tempfile().map_err(read)?;
            let mut writer = BufWriter::new(&packed);
            pack_static_binary(&path, BINARY_NAME, &mut writer)
                .map_err(|source| PrepareError::Binary { id: id.clone(), source })?;
            writer.flush().map_err(read)?;
            drop(writer);
            packed
        } else {
            file
        };
        file.rewind().map_err(read)?;
        Image::of_archive(file).map_err(refused)
    });
    opened.await.map_err(|_| interrupted)?
}

type CopyTask = tokio::task::JoinHandle<Result<(), CopyError>>;

/// Turns the plain copy of an image into a stream, written by a thread as it is read.
fn stream(
    image: Image,
    tag: String,
) -> (impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static, CopyTask) {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let copying = spawn_blocking(move || {
        let mut writer = BufWriter::with_capacity(CHUNK_BYTES, ChannelWriter(sender.clone()));
        let copied = image.copy(Some(&tag), &mut writer).and_then(|()| Ok(writer.flush()?));
        if copied.is_err() {
            // The engine must not take the beginning of an image for an image.
            let broken = io::Error::other("the image could not be copied");
            drop(sender.blocking_send(Err(broken)));
        }
        copied
    });
    let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    (chunks, copying)
}

struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The beginning of an image id, short enough for a tag and long enough to be unique.
fn tag_of(image_id: &str) -> String {
    image_id.trim_start_matches("sha256:").chars().take(32).collect()
}

fn read_error(id: &str, path: &Path, source: io::Error) -> PrepareError {
    PrepareError::Read { id: id.to_owned(), path: path.to_owned(), source }
}

/// Tells an engine that refuses an archive from one that cannot work at the moment.
fn load_error(id: &str, source: EngineError) -> PrepareError {
    let id = id.to_owned();
    let is_engines_own = match &source {
        EngineError::DockerStreamError { error } => is_about_disk(error),
        EngineError::DockerResponseServerError { message, .. } => is_about_disk(message),
        _ => true,
    };
    if is_engines_own {
        PrepareError::Engine { id, source }
    } else {
        PrepareError::Refused { id, source }
    }
}

fn is_about_disk(message: &str) -> bool {
    ["no space left", "read-only file system", "input/output error", "quota exceeded"]
        .iter()
        .any(|words| message.contains(words))
}

/// Bytes handed to the engine at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Longest load or save of one image.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
