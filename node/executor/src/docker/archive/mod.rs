//! Images outside an engine: what is in one, and a plain copy of it for an engine.
//!
//! An image comes as an archive or as a folder of [`parts`], and from a stranger. Loading it as
//! it is would let it choose tags, and so replace the volunteer's own `debian:latest`; and an
//! engine reads more formats than we check. So an image is first *inspected*, bounded and
//! strictly, and then *copied*: the engine only ever sees a docker-save archive that this module
//! wrote, with one image under one tag of ours. An image in parts is copied from its files
//! straight into the engine.
//!
//! # Shape
//!
//! ```text
//! docker-save: manifest.json ─► configuration, layers
//! parts:       manifest.json ─► configuration, layers                 (digests checked)
//! OCI layout:  index.json ─► manifest ─► configuration, layers        (digests checked)
//!                                         │
//!                       image id = sha256(configuration)
//! ```
//!
//! The configuration and manifests are checked when the image is inspected, and each layer while
//! it is copied: the digest in its name, and, unless it is compressed, the one that the
//! configuration has for it. What a compressed layer holds is left to the engine, which compares
//! it with the configuration as well.
//!
//! # Bounds
//!
//! At most 10,000 entries, 128 layers and 4 MiB of JSON a file.
//! Layers are never held in memory. Long-name extensions are not interpreted: the files of an
//! image have short names.

mod contents;
mod error;
mod formats;
pub mod parts;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use self::contents::{Blob, Contents, Source};
pub use self::error::ArchiveError;
use super::hashing::Hashing;
use super::tarball;

/// What an archive or a folder of parts holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The image id, `sha256:` and the hash of its configuration. Docker's classic image store
    /// gives the loaded image exactly this id.
    pub id: String,
    /// Tags written in the archive. They are shown to people and never given to an engine.
    pub tags: Vec<String>,
    /// The entry point; empty when the image has none.
    pub entrypoint: Vec<String>,
    /// The default arguments, used when a run has none of its own.
    pub cmd: Vec<String>,
    /// Processor architecture, for example `amd64`.
    pub architecture: String,
    /// Operating system, `linux` for every image that runs here.
    pub os: String,
    /// Hashes of the uncompressed layers, the lowest first.
    pub diff_ids: Vec<String>,
    /// Size of the layers as they are stored.
    pub layer_bytes: u64,
}

/// Reads what an image holds: an archive, or a folder of [`parts`]. The bytes of its layers are
/// not looked at. Blocks; call it from a thread that may.
///
/// # Errors
///
/// When it cannot be read or is not exactly one usable image.
pub fn inspect_archive(path: &Path) -> Result<ImageInfo, ArchiveError> {
    Ok(Image::open(path)?.info)
}

/// An image that was inspected and can be copied.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) info: ImageInfo,
    config: Vec<u8>,
    /// The lowest first; one that occurs twice is here twice.
    layers: Vec<Blob>,
    source: Source,
}

/// Why an image was not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// A layer is not the one that the image names.
    #[error(transparent)]
    Image(ArchiveError),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Image {
    /// Inspects an archive or a folder of parts.
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        if path.is_dir() {
            return Contents::of_folder(path)?.inspect();
        }
        Self::of_archive(File::open(path).map_err(ArchiveError::Read)?)
    }

    /// Inspects an open archive.
    pub(super) fn of_archive(file: File) -> Result<Self, ArchiveError> {
        Contents::of_archive(file)?.inspect()
    }

    /// Writes a docker-save archive of exactly this image, the same bytes for the same image
    /// whatever it came as. `tag` is the only tag that it carries.
    ///
    /// A layer that is not what it should be is an error before the archive's end is written.
    pub(super) fn copy(&self, tag: Option<&str>, into: &mut impl Write) -> Result<(), CopyError> {
        let names: Vec<String> = (0..self.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
        let config = tarball::config_name(&self.info.id);
        tarball::file(into, parts::MANIFEST, &tarball::manifest(&config, tag, &names))?;
        tarball::file(into, &config, &self.config)?;
        for (number, name) in names.iter().enumerate() {
            let bytes = self.layers[number].bytes;
            tarball::header(into, name, bytes, 0o644)?;
            self.copy_layer(number, into)?;
            tarball::pad(into, bytes)?;
        }
        Ok(tarball::end(into)?)
    }

    /// Copies one layer, checks on the way that it is the one that the image names, and returns
    /// the digest of its bytes.
    fn copy_layer(&self, number: usize, into: &mut impl Write) -> Result<String, CopyError> {
        let layer = &self.layers[number];
        let mut bytes = self.source.read(layer)?;
        let mut start = Vec::new();
        bytes.by_ref().take(MAGIC_BYTES).read_to_end(&mut start)?;
        let mut into = Hashing::new(into);
        let copied = io::copy(&mut start.as_slice().chain(bytes), &mut into)?;
        if copied != layer.bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let digest = into.finish();
        let is_plain = !contents::is_compressed(&start);
        let by_config = is_plain.then(|| self.info.diff_ids[number].clone());
        let by_name = parts::digest_in(&layer.path);
        match by_name.into_iter().chain(by_config).find(|expected| *expected != digest) {
            Some(digest) => {
                let path = layer.path.clone();
                Err(CopyError::Image(ArchiveError::Digest { path, digest }))
            }
            None => Ok(digest),
        }
    }
}

/// Bytes by which a compressed layer is known.
const MAGIC_BYTES: u64 = 4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::docker::hashing::digest;

    /// What an engine gets depends on the image alone, and not on what it came as.
    #[test]
    fn an_archive_and_its_parts_are_copied_alike() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let layers = [&b"the lowest"[..], b"the highest"];
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"diff_ids": layers.map(digest)},
        });
        let names = ["0".to_owned(), "1".to_owned()];
        let mut bytes = Vec::new();
        let manifest = tarball::manifest("c.json", Some("debian:latest"), &names);
        let mut file = |name: &str, content: &[u8]| tarball::file(&mut bytes, name, content);
        file("1", layers[1]).expect("memory");
        file("c.json", config.to_string().as_bytes()).expect("memory");
        file("0", layers[0]).expect("memory");
        file("manifest.json", &manifest).expect("memory");
        tarball::end(&mut bytes).expect("memory");
        let path = folder.path().join("image.tar");
        std::fs::write(&path, bytes).expect("an archive");

        let archive = Image::open(&path).expect("an image");
        let parts = folder.path().join("parts");
        archive.split(&parts).expect("parts");
        let copy = |image: &Image| {
            let mut copy = Vec::new();
            image.copy(Some("dockercomp:1"), &mut copy).expect("memory");
            copy
        };
        let copied = copy(&archive);
        assert!(copied == copy(&Image::open(&parts).expect("an image")));
        std::fs::write(&path, copied).expect("an archive");
        let again = Image::open(&path).expect("an image");
        assert_eq!(
            (&again.info.id, &again.info.tags[..]),
            (&archive.info.id, &["dockercomp:1".to_owned()][..])
        );
    }
}
