//! Laying files out where a program can read them.
//!
//! Large files become hard links to the store's own, so staging 100 GB takes no room and no
//! time; where links are not possible (another file system) they are copied. Both are
//! read-only, but a link *is* the store's file: give the directory to programs only through a
//! read-only mount. Should one be changed nevertheless, it is noticed when it is next read.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use cid::Cid;
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::manifest::{Chunks, FileEntry};

use crate::error::{StageError, StoreError};
use crate::manifests::{dataset_cid, is_small};
use crate::{Store, Want, locked};

impl Store {
    /// Lays the wanted files out under `into`, an existing empty directory. Files are
    /// read-only (0444, or 0555 if executable).
    ///
    /// # Errors
    /// [`StageError::Incomplete`] if some of what is wanted is not here. After an error
    /// `into` may hold some of the files.
    pub fn stage(&self, root: &Cid, want: &Want, into: &Path) -> Result<(), StageError> {
        let is_empty = fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            return Err(StageError::NotEmpty { dir: into.to_owned() });
        }
        self.lay(root, want, into)?;
        let digest = content::digest(root).map_err(StoreError::from)?;
        let mut catalogue = locked(&self.inner.catalogue);
        let mut batch = self.inner.db.batch();
        catalogue.touch(&mut batch, &digest);
        Ok(batch.write()?)
    }

    fn lay(&self, root: &Cid, want: &Want, into: &Path) -> Result<(), StageError> {
        if !self.is_complete(root, want)? {
            return Err(StageError::Incomplete { root: *root });
        }
        let digest = content::digest(root).map_err(StoreError::from)?;
        let manifest = self.inner.manifest(&digest)?;
        let manifest = manifest.ok_or(StageError::Incomplete { root: *root })?;
        let files = want.range(&manifest);
        let mut directory = into.to_owned();
        let entries = self.files(root, files.start, files.end - files.start)?;
        for (number, entry) in files.zip(entries) {
            let path = into.join(&entry.path);
            let parent = path.parent().unwrap_or(into);
            if parent != directory {
                fs::create_dir_all(parent).map_err(at(parent))?;
                parent.clone_into(&mut directory);
            }
            if is_small(&entry) {
                self.write(root, &entry, &path)?;
            } else {
                self.link(&digest, number, &entry, &path)?;
            }
        }
        Ok(())
    }

    /// Copies files of a dataset to `into`, an existing empty directory, for their owner to
    /// change as they like. Files are writable.
    ///
    /// # Errors
    /// See [`Self::stage`].
    pub fn export(&self, root: &Cid, wants: &[Want], into: &Path) -> Result<(), StageError> {
        // A thread exports one dataset at a time.
        let name = format!("export-{:?}", std::thread::current().id());
        let draft = self.inner.dir.join("tmp").join(name);
        fs::create_dir(&draft).map_err(at(&draft))?;
        let copied = wants
            .iter()
            .try_for_each(|want| self.lay(root, want, &draft))
            .and_then(|()| copy(&draft, into).map_err(at(into)));
        let removed = fs::remove_dir_all(&draft).map_err(at(&draft));
        copied.and(removed)
    }

    fn write(&self, root: &Cid, entry: &FileEntry, path: &Path) -> Result<(), StageError> {
        let bytes = match &entry.chunks {
            Chunks::Inline(links) if !links.is_empty() => {
                let digest = content::digest(&links[0].0).map_err(StoreError::from)?;
                self.inner.block(&digest)?.ok_or(StageError::Incomplete { root: *root })?
            }
            _ => bytes::Bytes::new(),
        };
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode(entry));
        let mut file = options.open(path).map_err(at(path))?;
        file.write_all(&bytes).map_err(at(path))
    }

    fn link(
        &self,
        root: &Digest,
        number: u64,
        entry: &FileEntry,
        path: &Path,
    ) -> Result<(), StageError> {
        let body = self.inner.bodies.path(root, &entry.path);
        if self.inner.is_elsewhere(root, &entry.path) {
            // Its owner may change theirs, and a link would lead out of the directory.
            fs::copy(&body, path).map_err(at(path))?;
            let mode = Permissions::from_mode(mode(entry));
            return fs::set_permissions(path, mode).map_err(at(path));
        }
        let metadata = match fs::symlink_metadata(&body) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(StageError::Io { path: body, source }),
        };
        let Some(metadata) = metadata.filter(|metadata| metadata.len() == entry.size) else {
            // Somebody deleted or cut it. Reading it makes the store forget what is gone.
            self.inner.reread(root, number)?;
            return Err(StageError::Incomplete { root: dataset_cid(root) });
        };
        if metadata.mode() & 0o777 != mode(entry) {
            fs::set_permissions(&body, Permissions::from_mode(mode(entry))).map_err(at(&body))?;
        }
        if fs::hard_link(&body, path).is_err() {
            fs::copy(&body, path).map_err(at(path))?;
        }
        Ok(())
    }
}

const fn mode(entry: &FileEntry) -> u32 {
    if entry.exec { 0o555 } else { 0o444 }
}

/// Copies a folder's files into another folder; the owner may write to the copies.
fn copy(from: &Path, into: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry?;
        let target = into.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = entry.metadata()?.mode() | 0o200;
            fs::set_permissions(&target, Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StageError + '_ {
    move |source| StageError::Io { path: path.to_owned(), source }
}
