//! Why an archive or a folder of parts is refused, in words that its owner can act on.

use std::io;

/// Why an archive is not an image that can be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The operating system could not read the file, or one of the folder.
    #[error("the image could not be read")]
    Read(#[source] io::Error),
    /// The file is not a tar archive, or ends too early.
    #[error("it is not a complete tar archive")]
    Malformed(#[source] io::Error),
    /// The archive as a whole is compressed.
    #[error("it is compressed; decompress it first (gunzip, unzstd)")]
    Compressed,
    /// It has neither `manifest.json` nor `index.json`.
    #[error("it is neither a docker-save archive nor an OCI layout: no {missing}")]
    NotAnImage {
        /// The file that would make it one.
        missing: &'static str,
    },
    /// It holds none or several images.
    #[error("it holds {count} images, but exactly one can be run; save them one by one")]
    ImageCount {
        /// How many there are.
        count: usize,
    },
    /// A path is absolute or leads out of the archive.
    #[error("its entry {path:?} leads out of the archive")]
    UnsafePath {
        /// The path.
        path: String,
    },
    /// A device, a pipe or a sparse file.
    #[error("its entry {path:?} is not a plain file, directory or link")]
    UnexpectedEntry {
        /// The path.
        path: String,
    },
    /// Too many entries, layers or bytes of JSON.
    #[error("it has more than {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A file that another one names is not there.
    #[error("its file {path:?} is missing")]
    Missing {
        /// The path.
        path: String,
    },
    /// One of its JSON files has another shape.
    #[error("its file {path:?} is malformed")]
    Json {
        /// The path.
        path: String,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// A file does not hash to its name.
    #[error("its file {path:?} does not hash to {digest}")]
    Digest {
        /// The path.
        path: String,
        /// The digest that another file gives for it.
        digest: String,
    },
    /// A folder of parts holds a file that its manifest does not name.
    #[error("its file {path:?} is not a part that its manifest names")]
    Extra {
        /// The path.
        path: String,
    },
    /// The manifest of a folder of parts names a file that cannot be one of them.
    #[error("its manifest names {path:?}, and not a part by its digest (blobs/sha256/…)")]
    NotByDigest {
        /// The path.
        path: String,
    },
    /// The number of layers differs between manifest and configuration.
    #[error("its manifest lists {layers} layers and its configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// The image is for another operating system.
    #[error("it is an image for {os}, and only linux images run here")]
    OperatingSystem {
        /// The operating system in its configuration.
        os: String,
    },
    /// The image declares volumes, which an engine would create as unlimited directories.
    #[error(
        "its image declares the volume {path:?}; remove VOLUME, only /output and /checkpoint are writable"
    )]
    Volume {
        /// The first of them.
        path: String,
    },
}

impl ArchiveError {
    /// Whether the archive is to blame and not the disk it is read from.
    #[must_use]
    pub fn is_archives_fault(&self) -> bool {
        !matches!(self, Self::Read(_))
    }

    /// The tar reader reports malformed archives as errors without a code of the system.
    pub(super) fn from_io(error: io::Error) -> Self {
        if error.raw_os_error().is_some() { Self::Read(error) } else { Self::Malformed(error) }
    }
}
