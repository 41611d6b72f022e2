//! Where a node keeps datasets, and what must survive its end.
//!
//! # Shape
//!
//! ```text
//! DIR/LOCK               held by the process that uses the directory; its process id
//! DIR/version            the format of all below
//! DIR/db/                RocksDB: index, manifests, files up to 64 KiB, journal, tables
//! DIR/data/<root>/<path> larger files, as in the dataset itself, sparse until complete
//! DIR/tmp/               what is being deleted
//!
//! add:    folder ──chunks──► manifest ──► blocks at their place ──► complete
//!         origin ──chunks──► manifest ──► where each block lies there
//! fetch:  missing ──► (somebody brings the blocks) ──► put … ──► missing is empty
//! use:    stage (hard links), block (to serve it to others)
//! ```
//!
//! Everything blocks: call it from a thread that may. A [`Store`] is a cheap clone.
//!
//! # Invariants
//!
//! - The index never names bytes that are not on disk, whenever the process is killed.
//! - No byte is stored before it is verified, none is given out before it is verified again.
//! - A block that rots is forgotten when it is read, and becomes missing again.
//!
//! # What is not here
//!
//! - No network: [`Store::missing`] says what is needed, and who brings it is not known here.
//! - No decision when to collect garbage: [`Store::collect`] does it when it is called.
//!
//! # Crash behaviour
//!
//! Opening finishes removals that had begun and deletes files that no dataset owns. Chunks
//! that were not part of a checkpoint (every 64 MiB or two seconds) are looked for in the files:
//! those that are whole are kept, and only the others are missing again.

mod add;
mod backup;
mod blocks;
mod bodies;
mod car;
mod catalogue;
mod check;
mod checkpoint;
mod collect;
mod cut;
mod datasets;
mod db;
mod error;
mod fetch;
mod journal;
mod keys;
mod lock;
mod manifests;
mod open;
mod origins;
mod progress;
mod put;
mod share;
mod snapshots;
mod source;
mod space;
mod stage;
mod walk;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use dockercomp_protocol::content::Digest;
use dockercomp_protocol::manifest::Root;

pub use crate::add::{AddOptions, Added, root_of};
pub use crate::backup::BackupError;
pub use crate::check::Checked;
pub use crate::collect::{Collected, Lease};
pub use crate::datasets::{Dataset, Kind};
pub use crate::error::{AddError, CarError, OpenError, PutError, StageError, StoreError};
pub use crate::journal::Row;
pub use crate::keys::Table;
pub use crate::lock::DataLock;
pub use crate::manifests::Position;
pub use crate::origins::{Lead, Object, Origin, chunked};
pub use crate::progress::{Progress, Step};

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Hard limit for the blocks of all datasets, in bytes; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of the disk that are left free: below this nothing is added, below half of it
    /// nothing is appended either. See [`space`](crate::Store::check_room).
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { quota_bytes: None, reserve_bytes: space::RESERVE_BYTES }
    }
}

/// An open data directory. See the crate's documentation.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Locks are taken in this order: `deleting`, one of `fetches`, `checkpointing`, `catalogue`, then those
/// inside `bodies` and `manifests`, which are never held together.
struct Inner {
    dir: PathBuf,
    db: db::Db,
    bodies: bodies::Bodies,
    manifests: manifests::Manifests,
    catalogue: Mutex<catalogue::Catalogue>,
    fetches: Mutex<HashMap<Digest, Arc<Mutex<fetch::Fetch>>>>,
    checkpointing: Mutex<()>,
    /// Datasets that were incomplete when the directory was opened: their files may hold chunks
    /// that no checkpoint has published.
    unfinished: Mutex<HashSet<Digest>>,
    /// Taken after the catalogue.
    leases: collect::Leases,
    /// Counts directories that were moved to `tmp`.
    graves: AtomicU64,
    journal_next: Mutex<u64>,
    space: space::Space,
    /// Held by whoever deletes files, and by a back-up that must find them.
    deleting: Mutex<()>,
    /// Last, so that the directory is given up only when the database is closed.
    _lock: DataLock,
}

/// Which files of a dataset are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// All.
    All,
    /// None, but the whole manifest, which says what there is.
    Manifest,
    /// Consecutive ones, in manifest order. What lies beyond the last is left out.
    Files {
        /// Number of the first, from 0.
        first: u64,
        /// How many.
        count: u64,
    },
}

impl Want {
    /// The numbers of the files.
    fn range(&self, manifest: &Root) -> Range<u64> {
        match self {
            Self::All => 0..manifest.files,
            Self::Manifest => 0..0,
            Self::Files { first, count } => {
                let end = first.saturating_add(*count).min(manifest.files);
                (*first).min(end)..end
            }
        }
    }

    const fn covers(&self, file: u64) -> bool {
        match self {
            Self::All => true,
            Self::Manifest => false,
            Self::Files { first, count } => file >= *first && file - *first < *count,
        }
    }
}

impl Store {
    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Bytes that may still be stored; `None` is no limit.
    #[must_use]
    pub fn room_bytes(&self) -> Option<u64> {
        let catalogue = locked(&self.inner.catalogue);
        catalogue.quota().map(|quota| quota.saturating_sub(catalogue.used()))
    }

    /// Bytes of blocks that are stored or promised to fetches that go on.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        locked(&self.inner.catalogue).used()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a thread panicked in the store, so its memory is not to be trusted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_can_be_shared_by_threads() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Store>();
    }

    #[test]
    fn wants_do_not_overflow() {
        let want = Want::Files { first: 3, count: u64::MAX };
        assert!(want.covers(u64::MAX - 1) && want.covers(3) && !want.covers(2));
        let root = Root {
            v: 1,
            chunker: dockercomp_protocol::manifest::Chunker::default(),
            files: 5,
            bytes: 0,
            pages: vec![],
        };
        assert_eq!(want.range(&root), 3..5);
        assert!(Want::Files { first: 9, count: 1 }.range(&root).is_empty());
    }
}
