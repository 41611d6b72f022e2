//! Checkpoints: sync the files, then name their chunks in the index.
//!
//! The order is what makes a crash harmless: the index never names a chunk whose bytes are
//! not on the disk. If a sync fails the store takes no more writes, because the kernel may
//! have dropped the pages it could not write.
//!
//! There is no thread for it: whoever stores or asks looks whether one is due, and the last
//! chunks of a fetch are published when it is found complete or the store is closed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;

use dockercomp_protocol::content::Digest;

use crate::bodies::{Fresh, Unsynced};
use crate::catalogue::Catalogue;
use crate::error::{StoreError, at};
use crate::keys::{self, Family, Place, Spot};
use crate::{Inner, Store, locked};

/// Syncs at once: the file system commits them together, which a single thread would not
/// profit from.
const SYNC_THREADS: usize = 8;

impl Store {
    /// Makes everything that was stored durable, and known after a crash.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.inner.checkpoint()
    }
}

impl Inner {
    /// Publishes what is fresh if it is time.
    pub(crate) fn checkpoint_if_due(&self) -> Result<(), StoreError> {
        if !self.bodies.is_due() {
            return Ok(());
        }
        let _one = locked(&self.checkpointing);
        // Whoever waited here was probably served by the one it waited for.
        if self.bodies.is_due() { self.publish() } else { Ok(()) }
    }

    /// Publishes what is fresh.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let _one = locked(&self.checkpointing);
        self.publish()
    }

    fn publish(&self) -> Result<(), StoreError> {
        self.db.check_writable()?;
        let Unsynced { chunks, files } = self.bodies.take_unsynced();
        if chunks.is_empty() {
            return Ok(());
        }
        self.sync(&files).inspect_err(|_| self.db.fail())?;
        let mut catalogue = locked(&self.catalogue);
        self.index(&mut catalogue, &chunks)?;
        self.bodies.published(chunks.iter().map(|(spot, _)| *spot));
        Ok(())
    }

    fn sync(&self, files: &[Arc<File>]) -> Result<(), StoreError> {
        let sync_all = |files: &[Arc<File>]| files.iter().try_for_each(|file| file.sync_data());
        let share = files.len().div_ceil(SYNC_THREADS).max(1);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                files.chunks(share).map(|files| scope.spawn(move || sync_all(files))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a sync cannot panic"))
        })
        .map_err(at(&self.dir))
    }

    fn index(&self, catalogue: &mut Catalogue, chunks: &[(Spot, Fresh)]) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        let mut segments: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let mut bytes: BTreeMap<Digest, (u64, u64)> = BTreeMap::new();
        let mut elsewhere: HashMap<(Digest, u64), bool> = HashMap::new();
        // Without a row the dataset was removed while a chunk of it came in.
        let chunks = chunks.iter().filter(|(spot, _)| catalogue.get(&spot.root).is_some());
        let chunks: Vec<&(Spot, Fresh)> = chunks.collect();
        for (spot, Fresh { digest, len }) in chunks {
            let key = keys::segment(spot);
            if !segments.contains_key(&key) {
                let bits = self.db.get(Family::Have, &key)?.unwrap_or_default();
                segments.insert(key.clone(), bits);
            }
            let bits = segments.get_mut(&key).expect("it was put there above");
            let (byte, mask) = keys::bit(spot);
            if bits.len() <= byte {
                bits.resize(byte + 1, 0);
            }
            if bits[byte] & mask == 0 {
                bits[byte] |= mask;
                let (held, theirs) = bytes.entry(spot.root).or_default();
                *held += len;
                let file = (spot.root, spot.file);
                let is_theirs = match elsewhere.get(&file) {
                    Some(known) => *known,
                    None => {
                        let entry = self.entry(&spot.root, spot.file)?;
                        entry.is_some_and(|entry| self.is_elsewhere(&spot.root, &entry.path))
                    }
                };
                elsewhere.insert(file, is_theirs);
                if is_theirs {
                    *theirs += len;
                } else {
                    catalogue.spend(&spot.root, spot.file, *len);
                }
            }
            let place = Place::Body { file: spot.file, index: spot.index };
            batch.put(Family::Chunks, &keys::chunk(digest, &spot.root, place), &[]);
            batch.put(Family::Refs, &keys::reference(&spot.root, digest, place), &[]);
        }
        for (key, bits) in segments {
            batch.put(Family::Have, &key, &bits);
        }
        for (root, (held, theirs)) in bytes {
            catalogue.update(&mut batch, &root, |row| {
                row.held_bytes += held;
                row.elsewhere_bytes += theirs;
            });
        }
        batch.write()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // After a panic the memory may be wrong; what is on disk is right.
        if std::thread::panicking() {
            return;
        }
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "chunks stored last are not known to the index");
        }
    }
}
