//! An image as a folder of its parts, which is how it travels in the network.
//!
//! # Shape
//!
//! ```text
//! manifest.json                 names the other two, and has no tags
//! blobs/sha256/<digest>         the configuration
//! blobs/sha256/<digest>         each layer, as it was in the archive
//! ```
//!
//! As a dataset, a layer that two images have in common is one file with the same chunks: it is
//! stored once and fetched once. The same image becomes the same folder, whether it came from an
//! engine or an archive, if its layers came uncompressed or the same way compressed.
//! `tar -c -C FOLDER . | docker load` works too.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::contents::LAYERS_MAX;
use super::{ArchiveError, CopyError, Image, ImageInfo};
use crate::docker::hashing::digest;
use crate::docker::pack::{self, PackError};
use crate::docker::tarball;
use crate::elf;

/// Why an image was not split into its parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The archive is not an image that can be run.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The binary cannot be packed.
    #[error(transparent)]
    Binary(#[from] PackError),
    /// The parts could not be read or written.
    #[error("the parts of the image could not be copied to {}", folder.display())]
    Copy {
        /// The folder.
        folder: PathBuf,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
}

/// Splits an image into its parts, each of them verified: a docker-save archive, an OCI layout
/// archive, a static binary, or a folder of parts. Blocks; call it from a thread that may.
///
/// # Errors
///
/// When it is no usable image, its layers are not those that it names, or the disk refuses.
/// Then some of the parts may be in the folder.
pub fn split_image(source: &Path, into: &Path) -> Result<ImageInfo, SplitError> {
    let io = |source| SplitError::Copy { folder: into.to_owned(), source };
    if is_binary(source)? {
        let parts = Parts::new(into).map_err(io)?;
        pack::split_static_binary(source, pack::BINARY_NAME, parts)?;
        return Ok(super::inspect_archive(into)?);
    }
    match Image::open(source)?.split(into) {
        Ok(info) => Ok(info),
        Err(CopyError::Image(error)) => Err(error.into()),
        Err(CopyError::Io(error)) => Err(io(error)),
    }
}

/// Whether a dataset with files at these paths is an image in parts, as far as their names say.
pub fn are_parts<'a>(paths: impl IntoIterator<Item = &'a str>) -> bool {
    let mut count = 0;
    let mut has_manifest = false;
    for path in paths {
        count += 1;
        has_manifest |= path == MANIFEST;
        if count > PARTS_MAX || (path != MANIFEST && digest_in(path).is_none()) {
            return false;
        }
    }
    has_manifest
}

impl Image {
    /// Writes the image as a folder of parts.
    pub(in crate::docker) fn split(&self, into: &Path) -> Result<ImageInfo, CopyError> {
        let parts = Parts::new(into)?;
        let layers = (0..self.layers.len())
            .map(|number| parts.blob(|into| self.copy_layer(number, into), CopyError::Io));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        parts.finish(&self.config, &layers)?;
        Ok(self.info.clone())
    }
}

/// A folder of parts that is being written.
pub(in crate::docker) struct Parts {
    folder: PathBuf,
}

impl Parts {
    fn new(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join(BLOBS))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes one part; `write` returns its digest.
    pub(in crate::docker) fn blob<E>(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<String, E>,
        failed: fn(io::Error) -> E,
    ) -> Result<String, E> {
        let draft = self.folder.join(DRAFT);
        let mut into = BufWriter::new(File::create(&draft).map_err(failed)?);
        let digest = write(&mut into)?;
        into.flush().map_err(failed)?;
        fs::rename(&draft, self.folder.join(path_of(&digest))).map_err(failed)?;
        Ok(digest)
    }

    /// Writes configuration and manifest of an image with these layers, given by their digests.
    pub(in crate::docker) fn finish(self, config: &[u8], layers: &[String]) -> io::Result<()> {
        let layers: Vec<String> = layers.iter().map(|layer| path_of(layer)).collect();
        let path = path_of(&digest(config));
        fs::write(self.folder.join(&path), config)?;
        fs::write(self.folder.join(MANIFEST), tarball::manifest(&path, None, &layers))
    }
}

/// Where a part with this digest lies.
fn path_of(digest: &str) -> String {
    format!("{BLOBS}/{}", digest.trim_start_matches("sha256:"))
}

/// The digest that a path gives for its file, if it is one of a part.
pub(super) fn digest_in(path: &str) -> Option<String> {
    let name = path.strip_prefix(BLOBS)?.strip_prefix('/')?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (name.len() == DIGEST_DIGITS && name.bytes().all(is_hex)).then(|| format!("sha256:{name}"))
}

fn is_binary(path: &Path) -> Result<bool, SplitError> {
    if path.is_dir() {
        return Ok(false);
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(ArchiveError::Read)?;
    file.take(4).read_to_end(&mut start).map_err(ArchiveError::Read)?;
    Ok(elf::has_magic(&start))
}

/// The file that names the parts.
pub(super) const MANIFEST: &str = "manifest.json";
/// Where the other parts lie.
const BLOBS: &str = "blobs/sha256";
/// A part that is not complete yet, and has no name of its own.
const DRAFT: &str = ".part";
/// Digits of a digest.
const DIGEST_DIGITS: usize = 64;
/// Files of an image in parts: manifest, configuration and layers.
pub const PARTS_MAX: usize = 2 + LAYERS_MAX;
