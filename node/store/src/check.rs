//! Checking what is at rest: reads everything that a dataset has here, and forgets what has
//! rotted, so that a fetch brings it anew.

use cid::Cid;
use dockercomp_protocol::content;

use crate::error::StoreError;
use crate::keys::Place;
use crate::manifests::Position;
use crate::{Store, locked};

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Chunks that were read and are right.
    pub sound: u64,
    /// Their bytes.
    pub sound_bytes: u64,
    /// Chunks that were not what they should be; they are missing now.
    pub rotten: u64,
    /// Chunks that were not here to begin with.
    pub missing: u64,
}

impl Store {
    /// Reads and verifies all of a dataset that is here. `progress` is told the bytes gone
    /// through, after each chunk.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it is not here, [`StoreError::Incomplete`] if its manifest is
    /// not, or has rotted: then a fetch brings it first.
    pub fn check(&self, root: &Cid, mut progress: impl FnMut(u64)) -> Result<Checked, StoreError> {
        let digest = content::digest(root)?;
        let inner = &self.inner;
        let unknown = StoreError::Unknown { root: *root };
        if locked(&inner.catalogue).get(&digest).is_none_or(|row| row.removing) {
            return Err(unknown);
        }
        // What is remembered of manifest blocks says nothing about the disk.
        inner.manifests.forget(&digest);
        let manifest = inner.manifest(&digest)?.ok_or(unknown)?;
        let (mut checked, mut at, mut done) = (Checked::default(), Position::default(), 0);
        while let Some(item) = inner.item(&digest, &manifest, &mut at, manifest.files)? {
            if inner.holds(&item)? {
                let is_sound = match item.place() {
                    Place::Small => inner.read_small(&item.digest)?.is_some(),
                    Place::Body { .. } | Place::Origin { .. } => {
                        inner.read_spot(&item.spot, &item.digest)?.is_some()
                    }
                };
                if is_sound {
                    checked.sound += 1;
                    checked.sound_bytes += item.len as u64;
                } else {
                    checked.rotten += 1;
                }
            } else {
                checked.missing += 1;
            }
            done += item.len as u64;
            progress(done);
            at.index += 1;
        }
        Ok(checked)
    }
}
