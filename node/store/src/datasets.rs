//! Datasets as people see them: listed, named, pinned, removed.
//!
//! # Removal
//!
//! ```text
//! mark the row ──► rows of its blocks ──► its own row ──► its files
//! ```
//!
//! Rows go first, so the index never names a file that is gone. A crash on the way is
//! finished when the store is opened. A block that another dataset has too keeps that
//! dataset's row, and its bytes.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use cid::Cid;
use dockercomp_protocol::content::{self, Digest};
use serde::{Deserialize, Serialize};

use crate::catalogue::Row;
use crate::error::{StoreError, at};
use crate::keys::{self, Family, Place};
use crate::origins::Origin;
use crate::{Inner, Store, locked};

/// Bytes of rows that are deleted together, so that a removal does not stop everything else.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How a dataset came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Added by this node's owner.
    Added,
    /// Fetched from others.
    Fetched,
    /// The output of a replica that ran here.
    Output,
}

/// A dataset, or the part of it that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its root.
    pub root: Cid,
    /// Its name on this node.
    pub name: Option<String>,
    /// Number of its files.
    pub files: u64,
    /// Sum of the sizes of its files, in bytes.
    pub bytes: u64,
    /// How many of these bytes are here. Until it is complete, equal small files count once.
    pub held_bytes: u64,
    /// Whether all of it is here.
    pub complete: bool,
    /// How it came here.
    pub kind: Kind,
    /// Whether it is kept from removal.
    pub pinned: bool,
    /// Where bytes that are not here are read from when somebody asks for them.
    pub origin: Option<Origin>,
}

impl Dataset {
    /// Whether this node can give every byte of it to others.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.complete || self.origin.is_some()
    }
}

impl Store {
    /// All datasets, by root.
    ///
    /// # Errors
    /// None yet.
    pub fn datasets(&self) -> Result<Vec<Dataset>, StoreError> {
        let catalogue = locked(&self.inner.catalogue);
        let rows = catalogue.iter().filter(|(_, row)| !row.removing);
        Ok(rows.map(|(root, row)| self.seen(root, row)).collect())
    }

    /// One dataset.
    ///
    /// # Errors
    /// If the identifier is not of our kind.
    pub fn dataset(&self, root: &Cid) -> Result<Option<Dataset>, StoreError> {
        let root = content::digest(root)?;
        let catalogue = locked(&self.inner.catalogue);
        let row = catalogue.get(&root).filter(|row| !row.removing);
        Ok(row.map(|row| self.seen(&root, row)))
    }

    fn seen(&self, root: &Digest, row: &Row) -> Dataset {
        row.dataset(root, if row.complete { 0 } else { self.inner.bodies.fresh_bytes(root) })
    }

    /// Gives a dataset a name on this node. Names need not be unique.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it is not here.
    pub fn name(&self, root: &Cid, name: &str) -> Result<(), StoreError> {
        self.change(root, |row| row.name = Some(name.to_owned()))
    }

    /// Says where a dataset came from, where that is not what fetching or adding it says.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it is not here.
    pub fn mark(&self, root: &Cid, kind: Kind) -> Result<(), StoreError> {
        self.change(root, |row| row.kind = kind)
    }

    /// Keeps a dataset from being removed. Pins are not counted: one [`Self::unpin`] ends it.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it is not here.
    pub fn pin(&self, root: &Cid) -> Result<(), StoreError> {
        self.change(root, |row| row.pinned = true)
    }

    /// Lets a dataset be removed.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it is not here.
    pub fn unpin(&self, root: &Cid) -> Result<(), StoreError> {
        self.change(root, |row| row.pinned = false)
    }

    pub(crate) fn change(
        &self,
        root: &Cid,
        change: impl FnOnce(&mut Row),
    ) -> Result<(), StoreError> {
        let digest = content::digest(root)?;
        let mut catalogue = locked(&self.inner.catalogue);
        let mut batch = self.inner.db.batch();
        if catalogue.get(&digest).is_none_or(|row| row.removing) {
            return Err(StoreError::Unknown { root: *root });
        }
        catalogue.update(&mut batch, &digest, change);
        batch.write_synced()
    }

    /// Forgets a dataset and deletes its files. Staged copies of them stay.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it is not here, [`StoreError::Pinned`] if it is pinned.
    pub fn remove(&self, root: &Cid) -> Result<(), StoreError> {
        let digest = content::digest(root)?;
        let mut catalogue = locked(&self.inner.catalogue);
        match catalogue.get(&digest) {
            Some(row) if row.pinned => return Err(StoreError::Pinned { root: *root }),
            Some(row) if !row.removing => {}
            _ => return Err(StoreError::Unknown { root: *root }),
        }
        let mut batch = self.inner.db.batch();
        catalogue.update(&mut batch, &digest, |row| row.removing = true);
        batch.write()?;
        drop(catalogue);
        // A back-up that is being made finds either its rows and its files, or no rows.
        let _deleting = locked(&self.inner.deleting);
        self.inner.remove_rows(&digest)?;
        self.inner.remove_files(&digest)
    }
}

impl Inner {
    /// Deletes all rows of a dataset that is marked as being removed.
    pub(crate) fn remove_rows(&self, root: &Digest) -> Result<(), StoreError> {
        locked(&self.fetches).remove(root);
        let _one = locked(&self.checkpointing);
        self.bodies.forget_dataset(root);
        self.manifests.forget(root);
        let mut from = Vec::new();
        while self.remove_some_rows(root, &mut from)? {}
        Ok(())
    }

    /// Deletes as many rows as fit a batch, and at last the dataset's own. False: that was it.
    fn remove_some_rows(&self, root: &Digest, from: &mut Vec<u8>) -> Result<bool, StoreError> {
        let mut catalogue = locked(&self.catalogue);
        let mut batch = self.db.batch();
        for pair in self.db.scan(Family::Refs, root, from) {
            let (key, _) = pair?;
            let row = keys::parse_block_key(&key);
            let (_, digest, place) = row.ok_or(StoreError::Row { family: "refs" })?;
            batch.delete(Family::Refs, &key);
            batch.delete(Family::Chunks, &keys::chunk(&digest, root, place));
            if place == Place::Small && !self.is_small_elsewhere(root, &digest)? {
                batch.delete(Family::Small, &digest);
            }
            if batch.bytes() >= BATCH_BYTES_MAX {
                *from = key.into_vec();
                batch.write()?;
                return Ok(true);
            }
        }
        for family in [Family::Have, Family::Origins] {
            for pair in self.db.scan(family, root, &[]) {
                batch.delete(family, &pair?.0);
            }
        }
        catalogue.delete(&mut batch, root);
        batch.write()?;
        Ok(false)
    }

    /// Whether another dataset has this block in family `small`.
    fn is_small_elsewhere(&self, root: &Digest, digest: &Digest) -> Result<bool, StoreError> {
        for pair in self.db.scan(Family::Chunks, digest, &[]) {
            let row = keys::parse_block_key(&pair?.0);
            let (_, owner, place) = row.ok_or(StoreError::Row { family: "chunks" })?;
            if place == Place::Small && owner != *root {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes the files of a dataset that has no rows any more.
    fn remove_files(&self, root: &Digest) -> Result<(), StoreError> {
        let dir = self.bodies.dir(root);
        // Out of the way first: the dataset may be fetched again while they are deleted.
        let number = self.graves.fetch_add(1, Ordering::Relaxed);
        let grave = self.dir.join("tmp").join(number.to_string());
        match fs::rename(&dir, &grave) {
            Ok(()) => fs::remove_dir_all(&grave).map_err(at(&grave)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&dir)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::keys::Family;
    use crate::{AddOptions, Options, Store};

    #[test]
    fn a_removal_that_had_begun_is_finished_when_opening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = dir.path().join("source");
        fs::create_dir(&source).expect("a directory");
        fs::write(source.join("small"), b"small").expect("a file");
        fs::write(source.join("large"), vec![1; 100_000]).expect("a file");
        let home = dir.path().join("home");
        let store = Store::open(&home, Options::default()).expect("a new store");
        let root = store.add(&source, &AddOptions::default()).expect("a plain folder").root;
        store.change(&root, |row| row.removing = true).expect("it is here");
        drop(store);

        let store = Store::open(&home, Options::default()).expect("an old store");
        assert_eq!((store.used_bytes(), store.datasets().expect("a list")), (0, vec![]));
        for family in Family::ALL {
            assert_eq!(store.inner.db.scan(family, &[], &[]).count(), 0, "{family:?}");
        }
        assert_eq!(fs::read_dir(home.join("data")).expect("a directory").count(), 0);
    }
}
