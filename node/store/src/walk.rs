//! One walk through a manifest and its chunks, looking for what is not here.
//!
//! [`crate::fetch`] says what walks are for; here is how they step.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use cid::Cid;
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::manifest::{Chunks, Root};

use crate::error::{PutError, StoreError};
use crate::keys::Place;
use crate::manifests::{Item, Position, dataset_cid, files_of, pages_of};
use crate::put::Target;
use crate::{Inner, locked};

/// Bytes that one step copies within the store while it has something to name.
const COPY_BYTES_MAX: u64 = 64 << 20;
/// Places that one arriving block is written to; further ones are copied later.
const TARGETS_MAX: usize = 16;

/// Blocks that were named, and where they belong.
pub(crate) type Wanted = HashMap<Digest, Vec<Target>>;

/// How far a walk has come.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The catalogue's count of forgotten blocks when the walk began.
    pub(crate) forgotten: u64,
    /// Whether room for what is missing was promised.
    pub(crate) promised: bool,
    manifest_known: bool,
    /// The first page that was not looked at, and those before it that lack something.
    next_page: u64,
    open_pages: Vec<u64>,
    /// The first chunk that was not looked at.
    next: Position,
    /// What was found missing and did not arrive, in order.
    pub(crate) holes: VecDeque<(Digest, Cid)>,
}

/// What a walk goes through.
pub(crate) struct Ground<'a> {
    pub(crate) store: &'a Inner,
    pub(crate) root: &'a Digest,
    pub(crate) manifest: &'a Root,
    pub(crate) files: Range<u64>,
    pub(crate) wanted: &'a mut Wanted,
}

impl Walk {
    pub(crate) fn new(forgotten: u64) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// Looks for manifest blocks until `max` are missing. Whether all are here.
    pub(crate) fn through_manifest(
        &mut self,
        ground: &mut Ground<'_>,
        max: usize,
    ) -> Result<bool, StoreError> {
        if self.manifest_known {
            return Ok(true);
        }
        self.holes.clear();
        for page in std::mem::take(&mut self.open_pages) {
            self.look_at_page(ground, page)?;
        }
        let pages = pages_of(&ground.files);
        self.next_page = self.next_page.max(pages.start);
        while self.next_page < pages.end && self.holes.len() < max {
            self.look_at_page(ground, self.next_page)?;
            self.next_page += 1;
        }
        if self.holes.is_empty() {
            self.manifest_known = true;
            self.next = Position { file: ground.files.start, index: 0 };
        }
        Ok(self.manifest_known)
    }

    /// Notes what is missing of a page and of the chunk pages of its wanted files.
    fn look_at_page(&mut self, ground: &mut Ground<'_>, number: u64) -> Result<(), StoreError> {
        let index = usize::try_from(number).expect("pages are counted with usize");
        let Some(link) = ground.manifest.pages.get(index) else { return Ok(()) };
        let holes = self.holes.len();
        if self.look_at_block(ground, link, Target::Page(number))? {
            let page = ground.store.page(ground.root, ground.manifest, number)?;
            let page = page.ok_or(StoreError::Incomplete { root: dataset_cid(ground.root) })?;
            let files = ground.files.clone();
            let wanted = files_of(number).zip(&page.files);
            for (file, entry) in wanted.filter(|(file, _)| files.contains(file)) {
                if let Chunks::Paged(links) = &entry.chunks {
                    for (index, link) in (0..).zip(links) {
                        self.look_at_block(ground, &link.0, Target::ChunkPage { file, index })?;
                    }
                }
            }
        }
        if self.holes.len() > holes {
            self.open_pages.push(number);
        }
        Ok(())
    }

    fn look_at_block(
        &mut self,
        ground: &mut Ground<'_>,
        link: &Cid,
        target: Target,
    ) -> Result<bool, StoreError> {
        let digest = content::digest(link)?;
        let store = ground.store;
        if store.holds_small(ground.root, &digest)? || store.adopt(ground.root, &digest, target)? {
            return Ok(true);
        }
        let targets = ground.wanted.entry(digest).or_default();
        if !targets.contains(&target) {
            targets.push(target);
        }
        self.holes.push_back((digest, *link));
        Ok(false)
    }

    /// Looks for chunks until `max` are missing. No holes: all are here.
    pub(crate) fn through_chunks(
        &mut self,
        ground: &mut Ground<'_>,
        max: usize,
    ) -> Result<(), StoreError> {
        self.holes.retain(|(digest, _)| ground.wanted.contains_key(digest));
        let store = ground.store;
        let mut copied = 0;
        while self.holes.len() < max {
            let end = ground.files.end;
            let item = store.item(ground.root, ground.manifest, &mut self.next, end)?;
            let Some(item) = item else { break };
            if !store.holds(&item)? && !store.link_first(ground.manifest, &item)? {
                let target = Target::Chunk(self.next);
                let hole = (item.digest, item.cid);
                if let Some(targets) = ground.wanted.get_mut(&item.digest) {
                    self.holes.push_back(hole);
                    if !targets.contains(&target) {
                        if targets.len() >= TARGETS_MAX {
                            return Ok(());
                        }
                        targets.push(target);
                    }
                } else if copied >= COPY_BYTES_MAX && !self.holes.is_empty() {
                    return Ok(());
                } else if store.keep_written(&item)? || store.copy(&item)? {
                    copied += item.len as u64;
                    store.checkpoint_if_due()?;
                } else {
                    ground.wanted.insert(item.digest, vec![target]);
                    self.holes.push_back(hole);
                }
            }
            self.next.index += 1;
        }
        Ok(())
    }
}

impl Inner {
    /// Stores a manifest block that lies elsewhere in the store in this dataset too.
    pub(crate) fn adopt(
        &self,
        root: &Digest,
        digest: &Digest,
        target: Target,
    ) -> Result<bool, StoreError> {
        let Some(bytes) = self.block(digest)? else { return Ok(false) };
        let stored = self.store(root, &dataset_cid(digest), target, &bytes);
        stored.map_err(|error| of_own_block(root, error))?;
        Ok(true)
    }

    /// Links a large file that another dataset has, when its first chunk is looked for.
    fn link_first(&self, manifest: &Root, item: &Item) -> Result<bool, StoreError> {
        let is_first = item.spot.index == 0 && item.place() != Place::Small;
        Ok(is_first && self.share_file(manifest, item)?)
    }

    /// Keeps a chunk that was written before the process that wrote it was killed.
    fn keep_written(&self, item: &Item) -> Result<bool, StoreError> {
        let root = &item.spot.root;
        if item.place() == Place::Small || !locked(&self.unfinished).contains(root) {
            return Ok(false);
        }
        let entry = item.entry();
        let path = self.bodies.path(root, &entry.path);
        self.bodies.keep(item.spot, item.digest, (&path, entry.size), (item.offset, item.len))
    }

    /// Copies a chunk from elsewhere in the store.
    fn copy(&self, item: &Item) -> Result<bool, StoreError> {
        let Some(bytes) = self.block(&item.digest)? else { return Ok(false) };
        self.store_chunk(item, &bytes).map_err(|error| of_own_block(&item.spot.root, error))?;
        Ok(true)
    }
}

/// An error with a block that this store held already: nobody sent it.
fn of_own_block(root: &Digest, error: PutError) -> StoreError {
    match error {
        PutError::Store(error) => error,
        PutError::Manifest { source, .. } => {
            StoreError::Manifest { root: dataset_cid(root), source }
        }
        PutError::Mismatch(error) => StoreError::Cid(error),
        PutError::NotWanted { .. } => StoreError::Incomplete { root: dataset_cid(root) },
    }
}
