//! Reading blocks, verified, and forgetting those that have rotted.
//!
//! A block may lie in several places: once in the database, and in the files of any number
//! of datasets. They are tried in turn. A place whose bytes are gone or wrong is forgotten
//! there and then, so the dataset is no longer complete and [`Store::missing`] names the
//! block again.

use bytes::Bytes;
use cid::Cid;
use dockercomp_protocol::content::{self, Digest, RAW};
use dockercomp_protocol::manifest::{FileEntry, Root};
use dockercomp_protocol::wire::chunk::Held;

use crate::bodies;
use crate::error::StoreError;
use crate::keys::{self, Family, Place, Spot};
use crate::manifests::{Position, dataset_cid};
use crate::{Inner, Store, locked};

impl Store {
    /// Reads a block from wherever it lies, verified against its digest.
    ///
    /// `None`: it is not here, or not any more because it had rotted.
    ///
    /// # Errors
    /// If the store failed.
    pub fn block(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.inner.block(digest)
    }

    /// Like [`Self::block`], but only if the block is small and thus quickly read.
    ///
    /// # Errors
    /// If the store failed.
    pub fn small_block(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.inner.read_small(digest)
    }

    /// Whether this node can give a block, as far as the index knows: from its disk, or from
    /// where its dataset stays. Nothing is read.
    ///
    /// # Errors
    /// If the store failed.
    pub fn is_here(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.inner.is_here(digest)
    }

    /// How much of a dataset this node can give: what is at its origin counts.
    ///
    /// # Errors
    /// None yet.
    pub fn held(&self, root: &Digest) -> Result<Held, StoreError> {
        let catalogue = locked(&self.inner.catalogue);
        Ok(match catalogue.get(root) {
            None => Held::None,
            Some(row) if row.removing => Held::None,
            Some(row) if row.complete || row.origin.is_some() => Held::All,
            Some(_) => Held::Part,
        })
    }

    /// The root block of a dataset, if it is here.
    ///
    /// # Errors
    /// If the store failed.
    pub fn root(&self, root: &Cid) -> Result<Option<Root>, StoreError> {
        let manifest = self.inner.manifest(&content::digest(root)?)?;
        Ok(manifest.map(|manifest| Root::clone(&manifest)))
    }

    /// Consecutive files of a dataset; fewer than `count` if it ends before.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if the pages that list them are not here.
    pub fn files(&self, root: &Cid, first: u64, count: u64) -> Result<Vec<FileEntry>, StoreError> {
        let digest = content::digest(root)?;
        let manifest = self.inner.manifest(&digest)?.ok_or(StoreError::Unknown { root: *root })?;
        let files = crate::Want::Files { first, count }.range(&manifest);
        let mut entries = Vec::new();
        for number in crate::manifests::pages_of(&files) {
            let page = self.inner.page(&digest, &manifest, number)?;
            let page = page.ok_or(StoreError::Incomplete { root: *root })?;
            let listed = crate::manifests::files_of(number).zip(&page.files);
            entries.extend(
                listed.filter(|(file, _)| files.contains(file)).map(|(_, entry)| entry.clone()),
            );
        }
        Ok(entries)
    }
}

impl Inner {
    /// See [`Store::is_here`].
    pub(crate) fn is_here(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.bodies.locate(digest).is_some()
            || self.db.scan(Family::Chunks, digest, &[]).next().transpose()?.is_some())
    }

    /// See [`Store::block`].
    pub(crate) fn block(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if let Some(spot) = self.bodies.locate(digest)
            && let Some(bytes) = self.read_spot(&spot, digest)?
        {
            return Ok(Some(bytes));
        }
        if let Some(bytes) = self.read_small(digest)? {
            return Ok(Some(bytes));
        }
        let rows: Vec<_> = self.db.scan(Family::Chunks, digest, &[]).collect::<Result<_, _>>()?;
        for (key, _) in rows {
            let row = keys::parse_block_key(&key);
            let (_, root, place) = row.ok_or(StoreError::Row { family: "chunks" })?;
            if let Place::Body { file, index } = place
                && let Some(bytes) = self.read_spot(&Spot { root, file, index }, digest)?
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Reads a block of family `small`, or forgets it.
    pub(crate) fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        match self.db.get_or_damaged(Family::Small, digest)? {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) if is_right(digest, &bytes) => Ok(Some(bytes.into())),
            Ok(Some(_)) | Err(_) => {
                self.forget_small(digest)?;
                Ok(None)
            }
        }
    }

    /// Reads a chunk from a dataset's file, or forgets it. It stays if the manifest that
    /// tells the file's name is not here now.
    pub(crate) fn read_spot(
        &self,
        spot: &Spot,
        digest: &Digest,
    ) -> Result<Option<Bytes>, StoreError> {
        let Some(manifest) = self.manifest(&spot.root)? else { return Ok(None) };
        let mut at = Position { file: spot.file, index: spot.index };
        let item = match self.item(&spot.root, &manifest, &mut at, manifest.files) {
            Ok(item) => item,
            Err(StoreError::Incomplete { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(item) = item.filter(|item| item.spot == *spot) else { return Ok(None) };
        let path = self.bodies.path(&spot.root, &item.entry().path);
        match bodies::read(&path, item.offset, item.len)? {
            Some(bytes) if is_right(digest, &bytes) => Ok(Some(bytes.into())),
            _ => {
                self.forget_spot(spot, digest, item.len as u64)?;
                Ok(None)
            }
        }
    }

    /// Reads every chunk of a file that a dataset keeps, so that those that are gone are
    /// forgotten.
    pub(crate) fn reread(&self, root: &Digest, file: u64) -> Result<(), StoreError> {
        let Some(manifest) = self.manifest(root)? else { return Ok(()) };
        let mut at = Position { file, index: 0 };
        while let Some(item) = self.item(root, &manifest, &mut at, file + 1)? {
            self.read_spot(&item.spot, &item.digest)?;
            at.index += 1;
        }
        Ok(())
    }

    fn forget_spot(&self, spot: &Spot, digest: &Digest, len: u64) -> Result<(), StoreError> {
        tracing::warn!(
            dataset = %dataset_cid(&spot.root), file = spot.file, chunk = spot.index,
            "a chunk on disk is not what it was, it must be fetched again"
        );
        // A checkpoint that runs now may publish the chunk after it is forgotten here.
        let _one = locked(&self.checkpointing);
        let mut catalogue = locked(&self.catalogue);
        self.bodies.forget(spot);
        let mut batch = self.db.batch();
        let place = Place::Body { file: spot.file, index: spot.index };
        batch.delete(Family::Chunks, &keys::chunk(digest, &spot.root, place));
        batch.delete(Family::Refs, &keys::reference(&spot.root, digest, place));
        let (byte, mask) = keys::bit(spot);
        let key = keys::segment(spot);
        let mut bits = self.db.get(Family::Have, &key)?.unwrap_or_default();
        let was_published = bits.get(byte).is_some_and(|bits| bits & mask != 0);
        if was_published {
            bits[byte] &= !mask;
            batch.put(Family::Have, &key, &bits);
        }
        catalogue.update(&mut batch, &spot.root, |row| {
            row.complete = false;
            row.held_bytes = row.held_bytes.saturating_sub(if was_published { len } else { 0 });
        });
        catalogue.forgotten += 1;
        batch.write()?;
        self.bodies.forget(spot);
        Ok(())
    }

    fn forget_small(&self, digest: &Digest) -> Result<(), StoreError> {
        let block = content::from_digest(RAW, *digest);
        tracing::warn!(%block, "a block in the database is damaged, it must be fetched again");
        let mut catalogue = locked(&self.catalogue);
        let mut batch = self.db.batch();
        batch.delete(Family::Small, digest);
        for pair in self.db.scan(Family::Chunks, digest, &[]) {
            let (key, _) = pair?;
            let row = keys::parse_block_key(&key);
            let (_, root, place) = row.ok_or(StoreError::Row { family: "chunks" })?;
            if place == Place::Small {
                batch.delete(Family::Chunks, &key);
                let reference = keys::reference(&root, digest, place);
                let value = self.db.get(Family::Refs, &reference)?.unwrap_or_default();
                let (is_manifest, len) = keys::parse_small_value(&value).unwrap_or_default();
                batch.delete(Family::Refs, &reference);
                catalogue.update(&mut batch, &root, |row| {
                    row.complete = false;
                    let counter =
                        if is_manifest { &mut row.manifest_bytes } else { &mut row.held_bytes };
                    *counter = counter.saturating_sub(len);
                });
                self.manifests.forget(&root);
            }
        }
        catalogue.forgotten += 1;
        batch.write()
    }
}

fn is_right(digest: &Digest, bytes: &[u8]) -> bool {
    content::verify(&content::from_digest(RAW, *digest), bytes).is_ok()
}
