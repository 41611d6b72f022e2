//! What is still missing of a dataset, or of some of its files.
//!
//! A [`Walk`] goes through the manifest once and through the chunks once. What it finds
//! missing it remembers as holes; blocks that arrive close them, and the walk goes on only
//! when there are fewer holes than asked for. So a fetch of any number of files looks at each
//! of them once.
//!
//! ```text
//! pages and chunk pages ──all here──► room promised ──► chunks ──no hole left──► complete
//! ```
//!
//! A chunk that lies elsewhere in the store is copied instead of named.
//!
//! # Bounds
//!
//! [`FETCHES_MAX`] datasets and [`WALKS_MAX`] wants of each are remembered; a forgotten walk
//! begins anew.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use cid::Cid;
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::manifest::Root;

use crate::error::StoreError;
use crate::manifests::{Position, dataset_cid};
use crate::put::Target;
use crate::walk::{Ground, Walk, Wanted};
use crate::{Inner, Store, Want, locked};

const FETCHES_MAX: usize = 1024;
const WALKS_MAX: usize = 256;

/// The fetches of one dataset that go on.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    wanted: Wanted,
    walks: VecDeque<(Want, Walk)>,
}

impl Fetch {
    /// Where a named block belongs.
    pub(crate) fn targets(&self, digest: &Digest) -> Vec<Target> {
        self.wanted.get(digest).cloned().unwrap_or_default()
    }

    /// A block is stored at these places. The answer are those that were added meanwhile.
    pub(crate) fn arrived(&mut self, digest: &Digest, stored: &[Target]) -> Vec<Target> {
        let Some(targets) = self.wanted.get_mut(digest) else { return Vec::new() };
        targets.retain(|target| !stored.contains(target));
        let left = targets.clone();
        if left.is_empty() {
            self.wanted.remove(digest);
        }
        left
    }

    fn take(&mut self, want: Want, forgotten: u64) -> Walk {
        let at = self.walks.iter().position(|(found, _)| *found == want);
        let walk = at.and_then(|at| self.walks.remove(at)).map(|(_, walk)| walk);
        let walk = walk.filter(|walk| walk.forgotten == forgotten);
        if walk.is_none() && self.walks.is_empty() {
            self.wanted.clear();
        }
        walk.unwrap_or_else(|| Walk::new(forgotten))
    }

    fn keep(&mut self, want: Want, walk: Walk) {
        if self.walks.len() >= WALKS_MAX {
            self.walks.pop_front();
        }
        self.walks.push_back((want, walk));
    }
}

impl Store {
    /// The next blocks needed before `want` is complete, at most `max` (at least one is
    /// always named): manifest blocks until the manifest is known, then chunks, in order and
    /// each once. Blocks that were named before and did not arrive are named again.
    ///
    /// Empty: complete, and durable.
    ///
    /// # Errors
    /// [`StoreError::Quota`] if what is missing does not fit, before any of it is stored.
    pub fn missing(&self, root: &Cid, want: &Want, max: usize) -> Result<Vec<Cid>, StoreError> {
        let inner = &self.inner;
        let digest = content::digest(root)?;
        inner.checkpoint_if_due()?;
        if inner.row_is_complete(&digest) {
            return Ok(Vec::new());
        }
        let fetch = inner.fetch(&digest);
        let mut fetch = locked(&fetch);
        let Some(manifest) = inner.adopt_root(&digest)? else {
            fetch.wanted.insert(digest, vec![Target::Root]);
            return Ok(vec![*root]);
        };
        loop {
            let forgotten = locked(&inner.catalogue).forgotten;
            let mut walk = fetch.take(*want, forgotten);
            match inner.advance(&digest, &manifest, want, &mut fetch.wanted, &mut walk, max.max(1))
            {
                Ok(()) if walk.holes.is_empty() => {
                    inner.checkpoint()?;
                    if inner.finish(&digest, &manifest, want, forgotten)? {
                        return Ok(Vec::new());
                    }
                }
                Ok(()) => {
                    let mut seen = HashSet::new();
                    let holes = walk.holes.iter().take(max.max(1));
                    let named = holes.filter(|(digest, _)| seen.insert(*digest));
                    let named = named.map(|(_, cid)| *cid).collect();
                    fetch.keep(*want, walk);
                    return Ok(named);
                }
                // A manifest block has rotted: its page is looked for again.
                Err(StoreError::Incomplete { .. })
                    if locked(&inner.catalogue).forgotten != forgotten => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether everything that is wanted is here. Changes nothing.
    ///
    /// # Errors
    /// If the store failed.
    pub fn is_complete(&self, root: &Cid, want: &Want) -> Result<bool, StoreError> {
        let digest = content::digest(root)?;
        if self.inner.row_is_complete(&digest) {
            return Ok(true);
        }
        let Some(manifest) = self.inner.manifest(&digest)? else { return Ok(false) };
        let files = want.range(&manifest);
        let mut at = Position { file: files.start, index: 0 };
        loop {
            match self.inner.item(&digest, &manifest, &mut at, files.end) {
                Ok(None) => return Ok(true),
                Ok(Some(item)) if self.inner.holds(&item)? => at.index += 1,
                Ok(Some(_)) | Err(StoreError::Incomplete { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back the room that fetches of this dataset were promised, after they were given
    /// up. What is stored stays.
    ///
    /// # Errors
    /// If the identifier is not of our kind.
    pub fn release(&self, root: &Cid) -> Result<(), StoreError> {
        let digest = content::digest(root)?;
        locked(&self.inner.fetches).remove(&digest);
        locked(&self.inner.catalogue).release(&digest, None);
        Ok(())
    }
}

impl Inner {
    pub(crate) fn row_is_complete(&self, root: &Digest) -> bool {
        let catalogue = locked(&self.catalogue);
        catalogue.get(root).is_some_and(|row| row.complete && !row.removing)
    }

    /// The fetches of a dataset.
    pub(crate) fn fetch(&self, root: &Digest) -> Arc<Mutex<Fetch>> {
        let mut fetches = locked(&self.fetches);
        if fetches.len() >= FETCHES_MAX && !fetches.contains_key(root) {
            fetches.retain(|_, fetch| Arc::strong_count(fetch) > 1);
        }
        Arc::clone(fetches.entry(*root).or_default())
    }

    fn adopt_root(&self, root: &Digest) -> Result<Option<Arc<Root>>, StoreError> {
        if let Some(found) = self.manifest(root)? {
            return Ok(Some(found));
        }
        if self.adopt(root, root, Target::Root)? { self.manifest(root) } else { Ok(None) }
    }

    /// Steps on until there are `max` holes, or nothing is missing.
    fn advance(
        &self,
        root: &Digest,
        manifest: &Root,
        want: &Want,
        wanted: &mut Wanted,
        walk: &mut Walk,
        max: usize,
    ) -> Result<(), StoreError> {
        // For a whole dataset the root says how much it is, for some files their pages do.
        if *want == Want::All {
            self.promise(root, manifest, want, walk)?;
        }
        let files = if *want == Want::Manifest { 0..manifest.files } else { want.range(manifest) };
        let mut ground = Ground { store: self, root, manifest, files, wanted };
        if walk.through_manifest(&mut ground, max)? && *want != Want::Manifest {
            self.promise(root, manifest, want, walk)?;
            walk.through_chunks(&mut ground, max)?;
        }
        Ok(())
    }

    /// Promises room for what is missing, once a walk.
    fn promise(
        &self,
        root: &Digest,
        manifest: &Root,
        want: &Want,
        walk: &mut Walk,
    ) -> Result<(), StoreError> {
        if walk.promised {
            return Ok(());
        }
        let mut bytes = 0;
        if *want == Want::All {
            let held = locked(&self.catalogue).get(root).map_or(0, |row| row.held_bytes);
            bytes = manifest.bytes.saturating_sub(held);
        } else {
            let files = want.range(manifest);
            let mut at = Position { file: files.start, index: 0 };
            while let Some(item) = self.item(root, manifest, &mut at, files.end)? {
                // What is fresh is counted, because publishing it will spend the promise.
                if !self.holds(&item)? || self.bodies.is_fresh(&item.spot) {
                    bytes += item.len as u64;
                }
                at.index += 1;
            }
        }
        locked(&self.catalogue).promise(root, *want, bytes)?;
        walk.promised = true;
        Ok(())
    }

    /// Notes that a walk found everything. False: something was forgotten meanwhile.
    pub(crate) fn finish(
        &self,
        root: &Digest,
        manifest: &Root,
        want: &Want,
        forgotten: u64,
    ) -> Result<bool, StoreError> {
        let mut catalogue = locked(&self.catalogue);
        if catalogue.forgotten != forgotten {
            return Ok(false);
        }
        catalogue.release(root, Some(*want));
        if want.range(manifest) == (0..manifest.files) {
            catalogue.release(root, None);
            let mut batch = self.db.batch();
            catalogue.touch(&mut batch, root);
            if !catalogue.update(&mut batch, root, |row| row.complete = true) {
                return Err(StoreError::Unknown { root: dataset_cid(root) });
            }
            batch.write()?;
            locked(&self.unfinished).remove(root);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_added_while_a_block_is_stored_is_not_forgotten() {
        let mut fetch = Fetch::default();
        let at = |file| Target::Chunk(Position { file, index: 0 });
        fetch.wanted.insert([1; 32], vec![at(0)]);
        let stored = fetch.targets(&[1; 32]);
        fetch.wanted.entry([1; 32]).or_default().push(at(7));
        assert_eq!(fetch.arrived(&[1; 32], &stored), [at(7)]);
        assert_eq!(fetch.arrived(&[1; 32], &[at(7)]), []);
        assert_eq!(fetch.targets(&[1; 32]), []);
    }
}
