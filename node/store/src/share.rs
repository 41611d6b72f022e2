//! Files that are not copied: those that another dataset has, and those that stay their owner's.
//!
//! A large file whose bytes are all in another dataset becomes a hard link to that one's file,
//! so a changed folder takes room only for the files that changed. A file that is seeded in
//! place becomes a symbolic link to its owner's.
//!
//! A manifest may lie about the hash of a whole file, so files are equal if all their chunks are.
//!
//! Chunks of such a file are counted as written like any other and published by the next
//! checkpoint. They are verified when they are read.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::manifest::{ChunkedFile, Root};

use crate::error::{StoreError, at};
use crate::keys::{self, Family, Place, Spot};
use crate::manifests::{Item, Position, files_of};
use crate::{Inner, locked};

impl Inner {
    /// Bytes of these files' chunks that lie anywhere in the store. Equal chunks count as often
    /// as they occur.
    pub(crate) fn shared_bytes(&self, files: &[ChunkedFile]) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for chunk in files.iter().flat_map(|file| &file.chunks) {
            let digest = content::digest(&chunk.0)?;
            let is_here = self.bodies.locate(&digest).is_some() || self.is_indexed(&digest)?;
            bytes += if is_here { u64::from(chunk.1) } else { 0 };
        }
        Ok(bytes)
    }

    /// Whether the index knows a place on this node's disk for a block.
    fn is_indexed(&self, digest: &Digest) -> Result<bool, StoreError> {
        for pair in self.db.scan(Family::Chunks, digest, &[]) {
            let row = keys::parse_block_key(&pair?.0);
            let (_, _, place) = row.ok_or(StoreError::Row { family: "chunks" })?;
            if !matches!(place, Place::Origin { .. }) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Links the file of which `first` is the first chunk to the same file of another dataset.
    /// False: there is none, or this dataset has begun the file already.
    pub(crate) fn share_file(&self, manifest: &Root, first: &Item) -> Result<bool, StoreError> {
        let (root, entry) = (&first.spot.root, first.entry());
        let path = self.bodies.path(root, &entry.path);
        if fs::symlink_metadata(&path).is_ok() {
            return Ok(false);
        }
        let rows: Vec<_> =
            self.db.scan(Family::Chunks, &first.digest, &[]).collect::<Result<_, _>>()?;
        for (key, _) in rows {
            let row = keys::parse_block_key(&key).ok_or(StoreError::Row { family: "chunks" })?;
            let (_, owner, Place::Body { file, index: 0 }) = row else { continue };
            if owner == *root || !self.row_is_complete(&owner) {
                continue;
            }
            let Some(other) = self.entry(&owner, file)? else { continue };
            // Not by the hash of the whole file: nobody has checked that.
            let is_same = other.chunks == entry.chunks && other.exec == entry.exec;
            let from = self.bodies.path(&owner, &other.path);
            let is_plain = fs::symlink_metadata(&from)
                .is_ok_and(|found| found.is_file() && found.len() == entry.size);
            if !is_same || !is_plain {
                continue;
            }
            make_parent(&path)?;
            if fs::hard_link(&from, &path).is_ok() {
                self.count_file(root, manifest, first.spot.file, &path)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the file of which `first` is the first chunk point to its owner's. False: this
    /// dataset has begun the file already.
    pub(crate) fn point_to(
        &self,
        root: &Digest,
        manifest: &Root,
        first: &Item,
        source: &Path,
    ) -> Result<bool, StoreError> {
        let path = self.bodies.path(root, &first.entry().path);
        make_parent(&path)?;
        let source = fs::canonicalize(source).map_err(at(source))?;
        match std::os::unix::fs::symlink(&source, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(at(&path)(error)),
        }
        self.count_file(root, manifest, first.spot.file, &path)?;
        Ok(true)
    }

    /// Counts all chunks of a file as written.
    fn count_file(
        &self,
        root: &Digest,
        manifest: &Root,
        file: u64,
        path: &Path,
    ) -> Result<(), StoreError> {
        let mut next = Position { file, index: 0 };
        let mut chunks = Vec::new();
        while let Some(item) = self.item(root, manifest, &mut next, file + 1)? {
            let spot = Spot { root: *root, file, index: next.index };
            chunks.push((spot, item.digest, item.len as u64));
            next.index += 1;
        }
        self.bodies.count(path, &chunks)
    }

    /// A file's entry, if the page that lists it is here.
    pub(crate) fn entry(
        &self,
        root: &Digest,
        file: u64,
    ) -> Result<Option<dockercomp_protocol::manifest::FileEntry>, StoreError> {
        let Some(manifest) = self.manifest(root)? else { return Ok(None) };
        let number = file / dockercomp_protocol::limits::PAGE_FILES_MAX as u64;
        let Some(page) = self.page(root, &manifest, number)? else { return Ok(None) };
        let mut listed = files_of(number).zip(&page.files);
        Ok(listed.find(|(at, _)| *at == file).map(|(_, entry)| entry.clone()))
    }

    /// Whether bytes of this dataset lie in its owner's files.
    pub(crate) fn is_elsewhere(&self, root: &Digest, path: &str) -> bool {
        let is_link =
            |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        is_link(&self.bodies.path(root, path))
    }

    /// Makes a file that points to its owner's one of our own, before it is written to.
    pub(crate) fn take_over(&self, root: &Digest, path: &str, size: u64) -> Result<(), StoreError> {
        // Closes what is open for reading only.
        self.checkpoint()?;
        let path = self.bodies.path(root, path);
        let draft =
            self.dir.join("tmp").join(format!("take-over-{:?}", std::thread::current().id()));
        match fs::copy(&path, &draft) {
            Ok(_) => {
                let copy = fs::OpenOptions::new().write(true).open(&draft);
                copy.and_then(|copy| copy.sync_data()).map_err(at(&draft))?;
                fs::rename(&draft, &path).map_err(at(&path))?;
            }
            // The owner's is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::remove_file(&path).map_err(at(&path))?;
            }
            Err(error) => return Err(at(&path)(error)),
        }
        let mut catalogue = locked(&self.catalogue);
        let mut batch = self.db.batch();
        catalogue.update(&mut batch, root, |row| {
            row.elsewhere_bytes = row.elsewhere_bytes.saturating_sub(size);
        });
        batch.write()
    }
}

fn make_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(at(parent))
}
