//! The files of an archive or of a folder of parts, and the image that they describe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use tar::{Archive, EntryType};
use walkdir::WalkDir;

use super::formats::{Descriptor, ImageConfig, OciIndex, OciManifest, SavedImage};
use super::{ArchiveError, Image, ImageInfo, parts};
use crate::docker::hashing::digest;

/// Where the files of an image are.
#[derive(Debug)]
pub(super) enum Source {
    /// In one archive, one after another.
    Archive(File),
    /// In a folder, each by itself.
    Folder(PathBuf),
}

/// One file of an image.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    /// The file's path in the folder or archive.
    pub(super) path: String,
    /// Where it begins in an archive; 0 in a folder.
    offset: u64,
    pub(super) bytes: u64,
}

impl Source {
    pub(super) fn read(&self, blob: &Blob) -> io::Result<io::Take<File>> {
        let mut file = match self {
            Self::Archive(archive) => archive.try_clone()?,
            Self::Folder(folder) => File::open(folder.join(&blob.path))?,
        };
        file.seek(SeekFrom::Start(blob.offset))?;
        Ok(file.take(blob.bytes))
    }
}

enum Node {
    File(Blob),
    /// Another path of the archive: older engines save a repeated layer as a link.
    Link(String),
}

/// The files of an image by their paths.
pub(super) struct Contents {
    source: Source,
    nodes: BTreeMap<String, Node>,
}

/// What the manifest says of an image: paths of its files, and its tags.
struct Manifest {
    config: String,
    layers: Vec<String>,
    tags: Vec<String>,
}

impl Contents {
    /// Reads the headers of an archive.
    pub(super) fn of_archive(mut file: File) -> Result<Self, ArchiveError> {
        let mut start = [0; 4];
        let length = file.read(&mut start).map_err(ArchiveError::from_io)?;
        if is_compressed(&start[..length]) {
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
                    path,
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
        Ok(Self { source: Source::Archive(file), nodes })
    }

    /// Lists a folder of parts, which must hold plain files and nothing else.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, ArchiveError> {
        let mut nodes = BTreeMap::new();
        for (index, entry) in WalkDir::new(folder).min_depth(1).into_iter().enumerate() {
            let entry = entry.map_err(|error| ArchiveError::Read(error.into()))?;
            if index >= ENTRIES_MAX {
                return Err(ArchiveError::TooMany { what: "entries", max: ENTRIES_MAX as u64 });
            }
            let path = entry.path().strip_prefix(folder).expect("the walk started there");
            let path = path.to_string_lossy().into_owned();
            let kind = entry.file_type();
            if kind.is_dir() {
                continue;
            }
            if !kind.is_file() {
                return Err(ArchiveError::UnexpectedEntry { path });
            }
            let metadata = entry.metadata().map_err(|error| ArchiveError::Read(error.into()))?;
            let blob = Blob { path: path.clone(), offset: 0, bytes: metadata.len() };
            nodes.insert(path, Node::File(blob));
        }
        Ok(Self { source: Source::Folder(folder.to_owned()), nodes })
    }

    /// Finds the one image and checks everything but the bytes of its layers.
    pub(super) fn inspect(self) -> Result<Image, ArchiveError> {
        let manifest = if self.nodes.contains_key(parts::MANIFEST) {
            let mut images: Vec<SavedImage> = self.json(parts::MANIFEST, None)?.1;
            let count = images.len();
            let (Some(image), 1) = (images.pop(), count) else {
                return Err(ArchiveError::ImageCount { count });
            };
            let tags = image.repo_tags.unwrap_or_default();
            Manifest { config: image.config, layers: image.layers, tags }
        } else if self.nodes.contains_key("index.json") {
            self.oci_image()?
        } else {
            return Err(ArchiveError::NotAnImage { missing: "manifest.json or index.json" });
        };
        if let Source::Folder(_) = self.source {
            self.check_parts(&manifest)?;
        }

        let named = parts::digest_in(&manifest.config);
        let (config_bytes, config): (_, ImageConfig) =
            self.json(&manifest.config, named.as_deref())?;
        let run = config.config.unwrap_or_default();
        if let Some(path) = run.volumes.unwrap_or_default().into_keys().next() {
            return Err(ArchiveError::Volume { path });
        }
        if config.os != "linux" {
            return Err(ArchiveError::OperatingSystem { os: config.os });
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(ArchiveError::TooMany { what: "layers", max: LAYERS_MAX as u64 });
        }
        let diff_ids = config.rootfs.diff_ids;
        if manifest.layers.len() != diff_ids.len() {
            let (layers, diff_ids) = (manifest.layers.len(), diff_ids.len());
            return Err(ArchiveError::LayerCount { layers, diff_ids });
        }
        // Called as the manifest calls them, which may be by a link.
        let called = |path: String| self.find(&path).map(|blob| Blob { path, ..blob });
        let layers: Vec<Blob> =
            manifest.layers.into_iter().map(called).collect::<Result<_, _>>()?;
        let info = ImageInfo {
            id: digest(&config_bytes),
            tags: manifest.tags,
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            architecture: config.architecture,
            os: config.os,
            diff_ids,
            layer_bytes: layers.iter().map(|layer| layer.bytes).sum(),
        };
        Ok(Image { info, config: config_bytes, layers, source: self.source })
    }

    /// Follows an OCI layout from its index to the one image in it.
    fn oci_image(&self) -> Result<Manifest, ArchiveError> {
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
        Ok(Manifest { config, layers, tags: tag.into_iter().collect() })
    }

    /// A folder of parts holds what its manifest names, each file named by its digest, and
    /// nothing else.
    fn check_parts(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let mut named = BTreeSet::from([parts::MANIFEST]);
        for path in std::iter::once(&manifest.config).chain(&manifest.layers) {
            clean(path, "")?;
            if parts::digest_in(path).is_none() {
                return Err(ArchiveError::NotByDigest { path: path.clone() });
            }
            named.insert(path);
        }
        match self.nodes.keys().find(|path| !named.contains(path.as_str())) {
            Some(path) => Err(ArchiveError::Extra { path: path.clone() }),
            None => Ok(()),
        }
    }

    fn find(&self, path: &str) -> Result<Blob, ArchiveError> {
        let missing = || ArchiveError::Missing { path: path.to_owned() };
        let mut at = clean(path, "")?.ok_or_else(missing)?;
        // A chain of links, or a ring of them, is nothing that an engine writes.
        for _ in 0..LINK_DEPTH_MAX {
            match self.nodes.get(&at).ok_or_else(missing)? {
                Node::File(blob) => return Ok(blob.clone()),
                Node::Link(target) => at = target.clone(),
            }
        }
        Err(missing())
    }

    fn json<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        expected: Option<&str>,
    ) -> Result<(Vec<u8>, T), ArchiveError> {
        let blob = self.find(path)?;
        if blob.bytes > JSON_BYTES_MAX {
            return Err(ArchiveError::TooMany { what: "bytes of JSON", max: JSON_BYTES_MAX });
        }
        let mut bytes = Vec::new();
        let mut file = self.source.read(&blob).map_err(ArchiveError::Read)?;
        file.read_to_end(&mut bytes).map_err(ArchiveError::from_io)?;
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

/// Whether a file that begins like this is compressed. Zstandard may begin with a frame that
/// is skipped.
pub(super) fn is_compressed(start: &[u8]) -> bool {
    COMPRESSED_MAGICS.iter().any(|magic| start.starts_with(magic))
        || matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
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
pub(super) const LAYERS_MAX: usize = 128;
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
