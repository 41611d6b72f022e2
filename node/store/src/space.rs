//! Room on the disk, looked at before it runs out.
//!
//! RocksDB does not survive a full disk (7.8 ends the process on an assertion), and a disk
//! that is full of data leaves no room to write down that the data is here. So some of it
//! stays free:
//!
//! ```text
//! free   ≥ reserve       everything goes on
//!        < reserve       no dataset is added or fetched; records are still appended
//!        < reserve / 2   the caller should pause, and batches up to reserve / 4 still fit
//!        < reserve / 4   nothing is appended
//! ```
//!
//! The last quarter is for what RocksDB writes by itself: write buffers that are flushed (all
//! together at most the write-ahead log's bound of 128 MiB) and compactions.
//! Deleting is always allowed.
//!
//! # What is not here
//!
//! - Nothing is set aside: other programs may still fill the disk to its last byte between two
//!   looks. Then RocksDB fails, and with it the process; what was synced is there when it is
//!   started again.

use std::path::PathBuf;

use crate::Store;
use crate::error::StoreError;

/// What stays free if the caller says nothing, in bytes: twice the write-ahead log's bound.
pub(crate) const RESERVE_BYTES: u64 = 256 << 20;

/// Looks at one file system.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    reserve: u64,
}

impl Space {
    pub(crate) const fn new(dir: PathBuf, reserve: u64) -> Self {
        Self { dir, reserve }
    }

    /// Refuses data for which there is no room.
    pub(crate) fn admit_data(&self, bytes: u64) -> Result<(), StoreError> {
        self.check(bytes, self.reserve)
    }

    /// Refuses records for which there is no room.
    pub(crate) fn admit_records(&self, bytes: u64) -> Result<(), StoreError> {
        self.check(bytes, self.reserve / 4)
    }

    fn check(&self, bytes: u64, reserve: u64) -> Result<(), StoreError> {
        let Some(free) = self.free() else { return Ok(()) };
        if free >= reserve.saturating_add(bytes) {
            return Ok(());
        }
        Err(StoreError::DiskFull { dir: self.dir.clone(), free, reserve })
    }

    /// Bytes that this process may still write; nothing if the system does not say.
    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.dir).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl Store {
    /// Whether records can be appended now. It says no before the disk is full.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`].
    pub fn check_room(&self) -> Result<(), StoreError> {
        self.inner.space.check(0, self.inner.space.reserve / 2)
    }
}
