//! Why the store refused or failed, one type for each kind of operation.
//!
//! Identifiers are large, so an error holds one of them and boxes the rest: every `Result`
//! is as large as its error.

use std::io;
use std::path::{Path, PathBuf};

use cid::Cid;
use dockercomp_protocol::content::CidError;
use dockercomp_protocol::manifest::ManifestError;

/// Why an operation on an open store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// RocksDB failed.
    #[error("the store's database failed")]
    Database(#[from] rocksdb::Error),
    /// The file system failed.
    #[error("the store could not use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write could not be made durable, so nothing is written any more.
    #[error("an earlier write failed, so the store takes no more until it is opened again")]
    Failed,
    /// An identifier that is not of our kind.
    #[error(transparent)]
    Cid(Box<CidError>),
    /// A manifest that is addressed rightly but says something impossible: its maker's fault.
    #[error("the manifest of dataset {root} is not valid")]
    Manifest {
        /// The dataset.
        root: Cid,
        /// What is wrong.
        source: Box<ManifestError>,
    },
    /// No such dataset is here.
    #[error("dataset {root} is not in the store")]
    Unknown {
        /// The dataset.
        root: Cid,
    },
    /// Blocks that the operation needs are not here (yet).
    #[error("dataset {root} is not complete in the store")]
    Incomplete {
        /// The dataset.
        root: Cid,
    },
    /// The quota does not allow it. Nothing was written.
    #[error(
        "{needed} more bytes do not fit: {used} of the store's {quota} are taken; \
         raise the quota or remove a dataset"
    )]
    Quota {
        /// Bytes that would be added.
        needed: u64,
        /// Bytes that are stored or promised already.
        used: u64,
        /// The limit.
        quota: u64,
    },
    /// The disk is nearly full. Nothing was written.
    #[error(
        "the disk of {} has {free} bytes free, and {reserve} must stay free; free some room, or \
         keep less in reserve (--disk-reserve)", dir.display()
    )]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that must stay free.
        reserve: u64,
    },
    /// A record of the journal is missing.
    #[error("the journal has no record {number}, but later ones")]
    Gap {
        /// The first one that is missing.
        number: u64,
    },
    /// A pinned dataset is not removed.
    #[error("dataset {root} is pinned; unpin it before it is removed")]
    Pinned {
        /// The dataset.
        root: Cid,
    },
    /// A row of the database has a form that this version never writes.
    #[error("a row of family {family:?} in the store's database cannot be read")]
    Row {
        /// The column family.
        family: &'static str,
    },
}

impl From<CidError> for StoreError {
    fn from(error: CidError) -> Self {
        Self::Cid(Box::new(error))
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses it.
    #[error("{} is in use{}", dir.display(), by(*pid))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
    /// A newer program wrote it.
    #[error(
        "{} was written in format {found}, this program knows up to {known}; \
         use the newer program or another directory", dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// The version found.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// An older program wrote it, whose datasets nobody can read any more.
    #[error(
        "{} was written in format {found}, whose datasets this program cannot read; \
         use the program that wrote it or another directory", dir.display()
    )]
    Older {
        /// The directory.
        dir: PathBuf,
        /// The version found.
        found: u32,
    },
    /// It holds something else than a store.
    #[error("{} holds no version number; choose an empty directory", path.display())]
    Version {
        /// The file that should hold it.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("the store could not use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed, or what it holds could not be put in order after a crash.
    #[error("the store in {} could not be opened", dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// What happened.
        source: Box<StoreError>,
    },
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(|| " by another process".into(), |pid| format!(" by process {pid}"))
}

/// Why a block was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The bytes are not what the identifier names: whoever sent them is to blame.
    #[error("the bytes are not the block that was asked for")]
    Mismatch(#[source] Box<CidError>),
    /// The dataset has no such block, or its root is not here yet.
    #[error("block {cid} is not part of the dataset, as far as it is known here")]
    NotWanted {
        /// The block.
        cid: Cid,
    },
    /// The block is what was asked for but contradicts the dataset: its maker's fault.
    #[error("block {cid} does not fit into its dataset")]
    Manifest {
        /// The block.
        cid: Cid,
        /// What is wrong.
        source: Box<ManifestError>,
    },
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PutError {
    /// Whether whoever sent the bytes is to blame.
    #[must_use]
    pub const fn is_senders_fault(&self) -> bool {
        match self {
            Self::Mismatch(_) => true,
            Self::NotWanted { .. } | Self::Manifest { .. } | Self::Store(_) => false,
        }
    }
}

/// Why a folder or file could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// A link, socket, pipe or device.
    #[error("{} is neither a file nor a directory; datasets hold nothing else", path.display())]
    Kind {
        /// What it is.
        path: PathBuf,
    },
    /// A name that is not UTF-8.
    #[error("the name of {} is not UTF-8; rename it first", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// It changed while it was read.
    #[error("{} changed while it was added; try again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path or the chunk size is not allowed, or there are too many files.
    #[error("the manifest could not be built")]
    Manifest(#[from] ManifestError),
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why files could not be laid out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// Some of what is wanted is not here.
    #[error("what is wanted of dataset {root} is not complete; fetch it first")]
    Incomplete {
        /// The dataset.
        root: Cid,
    },
    /// The target is not an empty directory.
    #[error("{} is not an empty directory", dir.display())]
    NotEmpty {
        /// The target.
        dir: PathBuf,
    },
    /// The file system failed.
    #[error("{} could not be laid out", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for StageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Incomplete { root } | StoreError::Unknown { root } => {
                Self::Incomplete { root }
            }
            other => Self::Store(other),
        }
    }
}

/// Names the path in an I/O error of the store: `.map_err(at(path))`.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

/// Names the path in an I/O error of opening: `.map_err(at_opening(path))`.
pub(crate) fn at_opening(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// Why a CAR file was not written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// The file cannot be read or written, or ends within a block.
    #[error("the CAR file cannot be read or written")]
    Io(#[from] io::Error),
    /// The header is not that of a CAR file of version 1 with one root.
    #[error("this is not a CAR file of version 1 with one root")]
    Header,
    /// A block begins with something that is not a CID.
    #[error("the CAR file holds something that is not a block")]
    Block,
    /// A block would be larger than any of ours.
    #[error("the CAR file holds a block of {len} bytes, at most {max} are allowed")]
    Length {
        /// What the file says.
        len: u64,
        /// What is allowed.
        max: u64,
    },
    /// A block is wrong, or not one of the dataset's; parents come before their children.
    #[error("block {cid} of the CAR file cannot be stored")]
    Put {
        /// The block.
        cid: Cid,
        /// What the store said.
        source: PutError,
    },
    /// The file ends and the dataset is not whole.
    #[error("the CAR file lacks block {missing} of its dataset")]
    Incomplete {
        /// One of the blocks that are missing.
        missing: Cid,
    },
    /// A block of the dataset has rotted.
    #[error("block {cid} has rotted; check the dataset, which fetches it anew")]
    Gone {
        /// The block.
        cid: Cid,
    },
    /// A manifest block that is here is not right.
    #[error("the manifest cannot be read")]
    Manifest(#[source] ManifestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
