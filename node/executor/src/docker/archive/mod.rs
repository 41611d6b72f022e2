//! Image archives: what is in one, and a plain copy of it for an engine.
//!
//! An archive comes from a stranger. Loading it as it is would let it choose tags, and so
//! replace the volunteer's own `debian:latest`; and an engine reads more formats than we check.
//! So an archive is first *inspected*, bounded and strictly, and then *copied*: the engine only
//! ever sees a docker-save archive that this module wrote, with one image under one tag of ours.
//!
//! # Shape
//!
//! ```text
//! docker-save: manifest.json ─► configuration, layers
//! OCI layout:  index.json ─► manifest ─► configuration, layers        (digests checked)
//!                                         │
//!                       image id = sha256(configuration)
//! ```
//!
//! # Bounds
//!
//! At most 10,000 entries, 128 layers and 4 MiB of JSON a file.
//! Layers are never held in memory. Long-name extensions are not interpreted: the files of an
//! image have short names.

mod error;
mod formats;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

pub use self::error::ArchiveError;
use self::formats::{Descriptor, ImageConfig, OciIndex, OciManifest, SavedImage};
use super::tarball;

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Size of the layers as they are stored in the archive.
    pub layer_bytes: u64,
    config: Vec<u8>,
    layers: Vec<Blob>,
}

/// Reads what an image archive holds. Blocks; call it from a thread that may.
///
/// # Errors
///
/// When the file cannot be read or is not an archive with exactly one usable image.
pub fn inspect_archive(path: &Path) -> Result<ImageInfo, ArchiveError> {
    inspect(File::open(path).map_err(ArchiveError::Read)?)
}

/// As [`inspect_archive`], for an open file.
pub(super) fn inspect(file: File) -> Result<ImageInfo, ArchiveError> {
    Contents::read(file)?.inspect()
}

/// Writes a docker-save archive of exactly this image, the same bytes for the same image.
///
/// `source` is the archive that `info` was read from, `tag` the only tag that it will carry.
pub(super) fn copy_image(
    source: &mut File,
    info: &ImageInfo,
    tag: Option<&str>,
    into: &mut impl Write,
) -> io::Result<()> {
    let layers: Vec<String> = (0..info.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    tarball::manifest(into, &info.id, tag, &layers)?;
    tarball::file(into, &tarball::config_name(&info.id), &info.config)?;
    for (name, layer) in layers.iter().zip(&info.layers) {
        source.seek(SeekFrom::Start(layer.offset))?;
        tarball::header(into, name, layer.bytes, 0o644)?;
        let copied = io::copy(&mut source.take(layer.bytes), into)?;
        if copied != layer.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        tarball::pad(into, layer.bytes)?;
    }
    tarball::end(into)
}

/// The id of the image with this configuration.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Where a file lies in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blob {
    offset: u64,
    bytes: u64,
}

enum Node {
    File(Blob),
    /// Another path of the archive: older engines save a repeated layer as a link.
    Link(String),
}

struct Contents {
    file: File,
    nodes: BTreeMap<String, Node>,
}

impl Contents {
    fn read(mut file: File) -> Result<Self, ArchiveError> {
        let mut start = [0; 4];
        let length = file.read(&mut start).map_err(ArchiveError::from_io)?;
        let start = &start[..length];
        if COMPRESSED_MAGICS.iter().any(|magic| start.starts_with(magic)) {
            return Err(ArchiveError::Compressed);
        }
        file.rewind().map_err(ArchiveError::Read)?;

        let mut nodes = BTreeMap::new();
        let mut archive = Archive::new(&file);
        // Raw: extensions that the reader would hold in memory are passed over instead.
        let entries = archive.entries_with_seek().map_err(ArchiveError::from_io)?.raw(true);
        for (index, entry) in entries.enumerate() {
            let entry = entry.map_err(ArchiveError::from_io)?;
            if index >= ENTRIES_MAX {
                return Err(ArchiveError::TooMany { what: "entries", max: ENTRIES_MAX as u64 });
            }
            let kind = entry.header().entry_type();
            if is_extension(kind) {
                continue;
            }
            let path = text(&entry.path_bytes());
            let Some(clean) = clean(&path, "")? else { continue };
            let node = match kind {
                EntryType::Regular | EntryType::Continuous => Node::File(Blob {
                    offset: entry.raw_file_position(),
                    bytes: entry.header().entry_size().map_err(ArchiveError::from_io)?,
                }),
                EntryType::Directory => continue,
                EntryType::Symlink | EntryType::Link => {
                    let target = text(&entry.link_name_bytes().unwrap_or_default());
                    let parent = match clean.rsplit_once('/') {
                        Some((parent, _)) if kind == EntryType::Symlink => parent,
                        _ => "",
                    };
                    let target = self::clean(&target, parent)?;
                    Node::Link(target.ok_or(ArchiveError::UnsafePath { path })?)
                }
                _ => return Err(ArchiveError::UnexpectedEntry { path }),
            };
            nodes.insert(clean, node);
        }
        let end = file.seek(SeekFrom::End(0)).map_err(ArchiveError::Read)?;
        let is_cut = |node: &Node| match node {
            Node::File(blob) => blob.offset.checked_add(blob.bytes).is_none_or(|to| to > end),
            Node::Link(_) => false,
        };
        if nodes.values().any(is_cut) {
            return Err(ArchiveError::Malformed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Self { file, nodes })
    }

    fn inspect(mut self) -> Result<ImageInfo, ArchiveError> {
        let (config_path, layer_paths, tags) = if self.nodes.contains_key("manifest.json") {
            let mut images: Vec<SavedImage> = self.json("manifest.json", None)?.1;
            let count = images.len();
            let (Some(image), 1) = (images.pop(), count) else {
                return Err(ArchiveError::ImageCount { count });
            };
            (image.config, image.layers, image.repo_tags.unwrap_or_default())
        } else if self.nodes.contains_key("index.json") {
            self.oci_image()?
        } else {
            return Err(ArchiveError::NotAnImage { missing: "manifest.json or index.json" });
        };

        let (config_bytes, config): (_, ImageConfig) = self.json(&config_path, None)?;
        let run = config.config.unwrap_or_default();
        if let Some(path) = run.volumes.unwrap_or_default().into_keys().next() {
            return Err(ArchiveError::Volume { path });
        }
        if config.os != "linux" {
            return Err(ArchiveError::OperatingSystem { os: config.os });
        }
        if layer_paths.len() > LAYERS_MAX {
            return Err(ArchiveError::TooMany { what: "layers", max: LAYERS_MAX as u64 });
        }
        let diff_ids = config.rootfs.diff_ids;
        if layer_paths.len() != diff_ids.len() {
            let (layers, diff_ids) = (layer_paths.len(), diff_ids.len());
            return Err(ArchiveError::LayerCount { layers, diff_ids });
        }
        let layers: Vec<Blob> =
            layer_paths.iter().map(|path| self.find(path)).collect::<Result<_, _>>()?;
        Ok(ImageInfo {
            id: digest(&config_bytes),
            tags,
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            architecture: config.architecture,
            os: config.os,
            diff_ids,
            layer_bytes: layers.iter().map(|layer| layer.bytes).sum(),
            config: config_bytes,
            layers,
        })
    }

    /// Follows an OCI layout from its index to the one image in it.
    fn oci_image(&mut self) -> Result<(String, Vec<String>, Vec<String>), ArchiveError> {
        let index: OciIndex = self.json("index.json", None)?.1;
        let mut descriptor = one_image(index)?;
        let tag = descriptor.annotations.get(OCI_TAG).cloned();
        if descriptor.is_index() {
            let path = descriptor.path()?;
            let nested: OciIndex = self.json(&path, Some(&descriptor.digest))?.1;
            descriptor = one_image(nested)?;
        }
        let path = descriptor.path()?;
        let manifest: OciManifest = self.json(&path, Some(&descriptor.digest))?.1;
        let config = manifest.config.path()?;
        self.json::<serde::de::IgnoredAny>(&config, Some(&manifest.config.digest))?;
        let layers: Vec<String> =
            manifest.layers.iter().map(Descriptor::path).collect::<Result<_, _>>()?;
        Ok((config, layers, tag.into_iter().collect()))
    }

    fn find(&self, path: &str) -> Result<Blob, ArchiveError> {
        let missing = || ArchiveError::Missing { path: path.to_owned() };
        let mut at = clean(path, "")?.ok_or_else(missing)?;
        // A chain of links, or a ring of them, is nothing that an engine writes.
        for _ in 0..LINK_DEPTH_MAX {
            match self.nodes.get(&at).ok_or_else(missing)? {
                Node::File(blob) => return Ok(*blob),
                Node::Link(target) => at = target.clone(),
            }
        }
        Err(missing())
    }

    fn json<T: for<'a> Deserialize<'a>>(
        &mut self,
        path: &str,
        expected: Option<&str>,
    ) -> Result<(Vec<u8>, T), ArchiveError> {
        let blob = self.find(path)?;
        if blob.bytes > JSON_BYTES_MAX {
            return Err(ArchiveError::TooMany { what: "bytes of JSON", max: JSON_BYTES_MAX });
        }
        self.file.seek(SeekFrom::Start(blob.offset)).map_err(ArchiveError::Read)?;
        let mut bytes = Vec::new();
        (&self.file).take(blob.bytes).read_to_end(&mut bytes).map_err(ArchiveError::from_io)?;
        if let Some(expected) = expected
            && digest(&bytes) != expected
        {
            let (path, digest) = (path.to_owned(), expected.to_owned());
            return Err(ArchiveError::Digest { path, digest });
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|source| ArchiveError::Json { path: path.to_owned(), source })?;
        Ok((bytes, value))
    }
}

/// The one image of an index. Attestations that build tools add are no images.
fn one_image(index: OciIndex) -> Result<Descriptor, ArchiveError> {
    let mut images: Vec<Descriptor> = index
        .manifests
        .into_iter()
        .filter(|d| !d.annotations.contains_key(OCI_ATTESTATION))
        .collect();
    match images.pop() {
        Some(image) if images.is_empty() => Ok(image),
        last => Err(ArchiveError::ImageCount { count: images.len() + usize::from(last.is_some()) }),
    }
}

/// Resolves `path` against `parent`, both inside the archive; `None` is the archive itself.
fn clean(path: &str, parent: &str) -> Result<Option<String>, ArchiveError> {
    let unsafe_path = || ArchiveError::UnsafePath { path: path.to_owned() };
    let mut parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(unsafe_path)?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop().ok_or_else(unsafe_path)?;
            }
            Component::RootDir | Component::Prefix(_) => return Err(unsafe_path()),
        }
    }
    Ok(if parts.is_empty() { None } else { Some(parts.join("/")) })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
    )
}

/// Entries of an archive. Images of a hundred layers have about four hundred.
const ENTRIES_MAX: usize = 10_000;
/// Layers of an image; engines allow fewer.
const LAYERS_MAX: usize = 128;
/// Largest manifest or configuration.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// Links followed to reach a layer.
const LINK_DEPTH_MAX: usize = 8;
/// How compressed files begin: gzip, zstd, bzip2, xz.
const COMPRESSED_MAGICS: [&[u8]; 4] =
    [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd\x37\x7a\x58"];
/// Annotation that holds a tag.
const OCI_TAG: &str = "org.opencontainers.image.ref.name";
/// Annotation that marks an attestation about an image.
const OCI_ATTESTATION: &str = "vnd.docker.reference.type";
