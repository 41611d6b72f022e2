//! Storing one block of a dataset at its final place.
//!
//! ```text
//! bytes ──hash──► right for the cid? ──manifest──► fits its target? ──► small | body
//! ```
//!
//! Nothing is stored before both questions are answered: the first tells a lying sender, the
//! second a broken dataset.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use dockercomp_protocol::content::{self, CidError, Digest};
use dockercomp_protocol::manifest::{ChunkPage, Chunks, ManifestError, Page, Root};

use crate::catalogue::{Catalogue, Row};
use crate::db::Batch;
use crate::error::{PutError, StoreError};
use crate::keys::{self, Family, Place};
use crate::manifests::{Item, Position, dataset_cid, files_of};
use crate::{Inner, Kind, Store, Want, locked};

/// What a block is in its dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The root.
    Root,
    /// The page with this number.
    Page(u64),
    /// A page of the chunks of a large file.
    ChunkPage { file: u64, index: u64 },
    /// A chunk of a file.
    Chunk(Position),
}

impl Store {
    /// Verifies a block and stores it at its final place.
    ///
    /// It is readable when this returns, and survives a crash after the next checkpoint. A
    /// block that [`Store::missing`] did not name is looked for in the whole manifest.
    ///
    /// # Errors
    /// [`PutError::Mismatch`] if the bytes are wrong; nothing is stored after any error.
    pub fn put(&self, root: &Cid, cid: &Cid, bytes: &Bytes) -> Result<(), PutError> {
        let dataset = content::digest(root).map_err(StoreError::from)?;
        let digest = verified(cid, bytes)?;
        let inner = &self.inner;
        inner.db.check_writable()?;
        let fetch = inner.fetch(&dataset);
        let mut targets = locked(&fetch).targets(&digest);
        if targets.is_empty() {
            let target = inner.find_target(&dataset, &digest)?;
            targets.push(target.ok_or(PutError::NotWanted { cid: *cid })?);
        }
        while !targets.is_empty() {
            for target in &targets {
                inner.store(&dataset, cid, *target, bytes)?;
            }
            targets = locked(&fetch).arrived(&digest, &targets);
        }
        inner.checkpoint_if_due()?;
        Ok(())
    }
}

impl Store {
    /// Like [`Self::put`] for several blocks, which is quicker where they are small files.
    /// Each has an outcome of its own.
    pub fn put_many(&self, root: &Cid, blocks: &[(Cid, Bytes)]) -> Vec<Result<(), PutError>> {
        let together = self.put_together(root, blocks).unwrap_or_default();
        let one = |(index, (cid, bytes)): (usize, &(Cid, Bytes))| {
            if together.contains(&index) { Ok(()) } else { self.put(root, cid, bytes) }
        };
        blocks.iter().enumerate().map(one).collect()
    }

    /// Stores those of the blocks in one batch that are right and are all of a small file. The
    /// numbers of those. After an error nothing of it is stored.
    fn put_together(
        &self,
        root: &Cid,
        blocks: &[(Cid, Bytes)],
    ) -> Result<HashSet<usize>, PutError> {
        let dataset = content::digest(root).map_err(StoreError::from)?;
        let inner = &self.inner;
        inner.db.check_writable()?;
        let fetch = inner.fetch(&dataset);
        let Some(manifest) = inner.manifest(&dataset)? else { return Ok(HashSet::new()) };
        let mut chosen: HashMap<Digest, (usize, u64, Vec<Target>)> = HashMap::new();
        for (index, (cid, bytes)) in blocks.iter().enumerate() {
            let Ok(digest) = verified(cid, bytes) else { continue };
            let targets = locked(&fetch).targets(&digest);
            let small = |target: &Target| inner.small_file(&dataset, &manifest, target, &digest);
            let files = targets.iter().map(small).collect::<Result<Option<Vec<_>>, _>>()?;
            // All small files with these bytes have them from one row.
            if let Some(&[file, ..]) = files.as_deref() {
                chosen.insert(digest, (index, file, targets));
            }
        }
        let mut catalogue = locked(&inner.catalogue);
        let mut batch = inner.db.batch();
        for (digest, (index, file, _)) in &chosen {
            let key = (&dataset, digest);
            inner.add_small(&mut catalogue, &mut batch, key, &blocks[*index].1, Some(*file))?;
        }
        batch.write()?;
        drop(catalogue);
        let mut stored = HashSet::new();
        for (digest, (index, _, targets)) in chosen {
            // A place that was added meanwhile stays wanted, and is named again.
            locked(&fetch).arrived(&digest, &targets);
            stored.insert(index);
        }
        Ok(stored)
    }
}

/// The digest of a block whose bytes are right.
fn verified(cid: &Cid, bytes: &[u8]) -> Result<Digest, PutError> {
    match content::verify(cid, bytes) {
        Ok(()) => Ok(content::digest(cid).map_err(StoreError::from)?),
        Err(error @ CidError::Mismatch { .. }) => Err(PutError::Mismatch(Box::new(error))),
        Err(error) => Err(StoreError::from(error).into()),
    }
}

impl Inner {
    /// The file of a target that is the only chunk of a small file.
    fn small_file(
        &self,
        root: &Digest,
        manifest: &Root,
        target: &Target,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        let Target::Chunk(mut at) = *target else { return Ok(None) };
        let item = self.item(root, manifest, &mut at, manifest.files)?;
        let item = item.filter(|item| item.digest == *digest && item.place() == Place::Small);
        Ok(item.map(|item| item.spot.file))
    }

    /// Stores a block whose bytes are known to be right.
    pub(crate) fn store(
        &self,
        root: &Digest,
        cid: &Cid,
        target: Target,
        bytes: &Bytes,
    ) -> Result<(), PutError> {
        let unfit = |source| PutError::Manifest { cid: *cid, source: Box::new(source) };
        let digest = content::digest(cid).map_err(StoreError::from)?;
        if target == Target::Root {
            let manifest = Root::decode(bytes).map_err(unfit)?;
            return Ok(self.create(root, &manifest, Kind::Fetched, bytes)?);
        }
        let not_wanted = || PutError::NotWanted { cid: *cid };
        let manifest = self.manifest(root)?.ok_or_else(not_wanted)?;
        match target {
            Target::Root => {}
            Target::Page(number) => {
                let index = usize::try_from(number).expect("pages are counted with usize");
                let page = Page::decode(bytes, &manifest, index).map_err(unfit)?;
                self.check_neighbours(root, &manifest, number, &page)?.map_err(unfit)?;
                self.store_small(root, &digest, bytes, None)?;
            }
            Target::ChunkPage { file, index } => {
                let page = self.page(root, &manifest, pages_index(file))?.ok_or_else(not_wanted)?;
                let entry =
                    files_of(pages_index(file)).zip(&page.files).find(|(at, _)| *at == file);
                let (_, entry) = entry.ok_or_else(not_wanted)?;
                let index = usize::try_from(index).expect("pages are counted with usize");
                ChunkPage::decode(bytes, entry, manifest.chunker, index).map_err(unfit)?;
                self.store_small(root, &digest, bytes, None)?;
            }
            Target::Chunk(mut at) => {
                let item = self.item(root, &manifest, &mut at, manifest.files)?;
                let item = item.filter(|item| item.digest == digest).ok_or_else(not_wanted)?;
                self.store_chunk(&item, bytes)?;
            }
        }
        Ok(())
    }

    /// Stores a chunk of a file.
    pub(crate) fn store_chunk(&self, item: &Item, bytes: &Bytes) -> Result<(), PutError> {
        let root = &item.spot.root;
        if bytes.len() != item.len {
            let source = Box::new(ManifestError::Inconsistent { what: "length of a chunk" });
            return Err(PutError::Manifest { cid: item.cid, source });
        }
        if item.place() == Place::Small {
            return Ok(self.store_small(root, &item.digest, bytes, Some(item.spot.file))?);
        }
        if self.bodies.contains(&self.db, &item.spot)? {
            return Ok(());
        }
        let entry = item.entry();
        if self.is_elsewhere(root, &entry.path) {
            self.take_over(root, &entry.path, entry.size)?;
        }
        self.reserve_file(root, item.spot.file, (item.len as u64, entry.size))?;
        let path = self.bodies.path(root, &entry.path);
        let (file, at) = ((path.as_path(), entry.size), (item.offset, &bytes[..]));
        Ok(self.bodies.write(item.spot, item.digest, file, at)?)
    }

    /// Makes room for a chunk that no fetch has reserved room for.
    fn reserve_file(&self, root: &Digest, file: u64, sizes: (u64, u64)) -> Result<(), StoreError> {
        let mut catalogue = locked(&self.catalogue);
        if catalogue.get(root).is_none_or(|row| row.removing) {
            return Err(StoreError::Unknown { root: dataset_cid(root) });
        }
        let (chunk, whole) = sizes;
        if catalogue.is_promised(root, file, chunk) {
            return Ok(());
        }
        catalogue.promise(root, Want::Files { first: file, count: 1 }, whole)
    }

    /// Adds a dataset with its root block, unless it is there.
    pub(crate) fn create(
        &self,
        root: &Digest,
        manifest: &Root,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let mut catalogue = locked(&self.catalogue);
        let mut batch = self.db.batch();
        if catalogue.get(root).is_none() {
            catalogue.admit(bytes.len() as u64)?;
            catalogue.insert(&mut batch, root, Row::new(manifest, kind));
        }
        self.add_small(&mut catalogue, &mut batch, (root, root), bytes, None)?;
        batch.write()
    }

    /// Stores a block in the database: of this file, or of the manifest.
    pub(crate) fn store_small(
        &self,
        root: &Digest,
        digest: &Digest,
        bytes: &[u8],
        file: Option<u64>,
    ) -> Result<(), StoreError> {
        // Held until the row is written, or a removal between would be undone.
        let mut catalogue = locked(&self.catalogue);
        let mut batch = self.db.batch();
        self.add_small(&mut catalogue, &mut batch, (root, digest), bytes, file)?;
        batch.write()
    }

    /// Like [`Self::store_small`], in a batch. The batch must not have the block already.
    pub(crate) fn add_small(
        &self,
        catalogue: &mut Catalogue,
        batch: &mut Batch<'_>,
        (root, digest): (&Digest, &Digest),
        bytes: &[u8],
        file: Option<u64>,
    ) -> Result<(), StoreError> {
        if self.holds_small(root, digest)? {
            return Ok(());
        }
        let len = bytes.len() as u64;
        if catalogue.get(root).is_none_or(|row| row.removing) {
            return Err(StoreError::Unknown { root: dataset_cid(root) });
        }
        if !file.is_some_and(|file| catalogue.is_promised(root, file, len)) {
            catalogue.admit(len)?;
        }
        batch.put(Family::Small, digest, bytes);
        batch.put(Family::Chunks, &keys::chunk(digest, root, Place::Small), &[]);
        let value = keys::small_value(file.is_none(), bytes.len());
        batch.put(Family::Refs, &keys::reference(root, digest, Place::Small), &value);
        catalogue.update(batch, root, |row| match file {
            Some(_) => row.held_bytes += len,
            None => row.manifest_bytes += len,
        });
        if let Some(file) = file {
            catalogue.spend(root, file, len);
        }
        Ok(())
    }

    /// Pages are checked for themselves when they are decoded; this checks the order across
    /// their borders, so that no two files have one path.
    fn check_neighbours(
        &self,
        root: &Digest,
        manifest: &Arc<Root>,
        number: u64,
        page: &Page,
    ) -> Result<Result<(), ManifestError>, StoreError> {
        let before = match number.checked_sub(1) {
            Some(before) => self.page(root, manifest, before)?,
            None => None,
        };
        let after = self.page(root, manifest, number + 1)?;
        let borders = [
            (before.as_ref().and_then(|page| page.files.last()), page.files.first()),
            (page.files.last(), after.as_ref().and_then(|page| page.files.first())),
        ];
        let sorted = borders.iter().all(|border| match border {
            (Some(left), Some(right)) => left.path < right.path,
            _ => true,
        });
        let what = "files are not sorted by path";
        Ok(if sorted { Ok(()) } else { Err(ManifestError::Inconsistent { what }) })
    }

    /// Looks for a block in all that is known of the manifest.
    fn find_target(&self, root: &Digest, digest: &Digest) -> Result<Option<Target>, StoreError> {
        if root == digest {
            return Ok(Some(Target::Root));
        }
        let Some(manifest) = self.manifest(root)? else { return Ok(None) };
        let is_it = |cid: &Cid| content::digest(cid).is_ok_and(|found| found == *digest);
        if let Some(number) = manifest.pages.iter().position(is_it) {
            return Ok(Some(Target::Page(number as u64)));
        }
        for number in 0..manifest.pages.len() as u64 {
            let Some(page) = self.page(root, &manifest, number)? else { continue };
            for (file, entry) in files_of(number).zip(&page.files) {
                if let Chunks::Paged(pages) = &entry.chunks
                    && let Some(index) = pages.iter().position(|page| is_it(&page.0))
                {
                    return Ok(Some(Target::ChunkPage { file, index: index as u64 }));
                }
                if let Some(found) = self.find_chunk(root, &manifest, file, digest)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn find_chunk(
        &self,
        root: &Digest,
        manifest: &Root,
        file: u64,
        digest: &Digest,
    ) -> Result<Option<Target>, StoreError> {
        let mut at = Position { file, index: 0 };
        loop {
            match self.item(root, manifest, &mut at, file + 1) {
                Ok(Some(item)) if item.digest == *digest => return Ok(Some(Target::Chunk(at))),
                Ok(Some(_)) => at.index += 1,
                Ok(None) | Err(StoreError::Incomplete { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The page that lists this file.
const fn pages_index(file: u64) -> u64 {
    file / dockercomp_protocol::limits::PAGE_FILES_MAX as u64
}
