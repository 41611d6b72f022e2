//! Collecting garbage: datasets that nobody needs go when room is short.
//!
//! ```text
//! needed = pinned, added by the owner, output, leased, or being fetched
//! rest   ──least recently used first──► removed, until so much room is free
//! ```
//!
//! What is needed is marked by dataset. Files that others share by hard link, and small blocks
//! that others hold, stay with the others. Outputs are forgotten by whoever owes them, when they
//! are acknowledged, and never here. After blocks of the database went, it is compacted, because
//! it gives no room back by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cid::Cid;
use dockercomp_protocol::content::{self, Digest};

use crate::error::StoreError;
use crate::{Kind, Store, locked};

/// Datasets that must not go, and how many ask for each.
pub(crate) type Leases = Arc<Mutex<HashMap<Digest, usize>>>;

/// Keeps a dataset from being collected until it is dropped. The dataset need not be here yet.
#[derive(Debug)]
#[must_use = "the dataset may be collected as soon as this is dropped"]
pub struct Lease {
    root: Digest,
    leases: Leases,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = locked(&self.leases);
        if let Some(count) = leases.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.root);
            }
        }
    }
}

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Datasets that went, in the order in which they did.
    pub roots: Vec<Cid>,
    /// Bytes that they were counted with.
    pub bytes: u64,
}

impl Store {
    /// Keeps a dataset from being collected for as long as the lease lives.
    ///
    /// # Errors
    /// If the identifier is not of our kind.
    pub fn lease(&self, root: &Cid) -> Result<Lease, StoreError> {
        let root = content::digest(root)?;
        *locked(&self.inner.leases).entry(root).or_default() += 1;
        Ok(Lease { root, leases: Arc::clone(&self.inner.leases) })
    }

    /// Removes datasets that nobody needs, the least recently used first, until no more than
    /// `used_max` bytes are used or nothing is left that may go.
    ///
    /// # Errors
    /// If the store failed.
    pub fn collect(&self, used_max: u64) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        while self.used_bytes() > used_max {
            let before = self.used_bytes();
            let Some(root) = self.least_needed() else { break };
            match self.remove(&root) {
                Ok(()) => {}
                // Somebody pinned it, or removed it, in between.
                Err(StoreError::Pinned { .. } | StoreError::Unknown { .. }) => continue,
                Err(error) => return Err(error),
            }
            let bytes = before.saturating_sub(self.used_bytes());
            tracing::info!(%root, bytes, "dataset collected to make room");
            collected.bytes += bytes;
            collected.roots.push(root);
        }
        if !collected.roots.is_empty() {
            self.inner.db.compact_small();
        }
        Ok(collected)
    }

    fn least_needed(&self) -> Option<Cid> {
        let catalogue = locked(&self.inner.catalogue);
        let leases = locked(&self.inner.leases);
        let may_go = |(root, row): &(&Digest, &crate::catalogue::Row)| {
            row.kind == Kind::Fetched
                && !row.pinned
                && !row.removing
                && !leases.contains_key(*root)
                && !catalogue.has_promises(root)
        };
        let rows = catalogue.iter().filter(may_go);
        rows.min_by_key(|(_, row)| row.used).map(|(root, _)| crate::manifests::dataset_cid(root))
    }
}
