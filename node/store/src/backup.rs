//! A copy of the store while it is in use, as of one instant.
//!
//! ```text
//! INTO/version, INTO/db/     a checkpoint of the database: one instant, between two batches
//! INTO/data/<root>/<path>    the files that it names: linked if whole, copied if not
//! ```
//!
//! Writers go on meanwhile; only the deletion of datasets waits, so that no file goes between
//! the checkpoint and its copy. Files that come to be after the checkpoint are left out or
//! are strays, which opening deletes.
//!
//! # What a link means
//!
//! A linked file is the same bytes on the same disk: it costs no room and no time, and a disk
//! that breaks takes both. Bytes of a whole file never change.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use dockercomp_protocol::content::{self, DAG_CBOR};
use walkdir::WalkDir;

use crate::error::StoreError;
use crate::open::write_version;
use crate::{Store, locked};

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something already.
    #[error("{} exists and is not empty; name a new directory", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system failed.
    #[error("the back-up could not use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Store {
    /// Copies the store into `into`, which must be empty or missing.
    ///
    /// # Errors
    /// See [`BackupError`]; what was copied until then is left.
    pub fn copy_to(&self, into: &Path) -> Result<(), BackupError> {
        if fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(BackupError::Exists { dir: into.to_owned() });
        }
        fs::create_dir_all(into.join("data")).map_err(at(into))?;
        let _nothing_is_deleted = locked(&self.inner.deleting);
        // What has been written to files so far counts for the copy.
        self.checkpoint()?;
        self.inner.db.checkpoint(&into.join("db"))?;
        let datasets: Vec<_> = {
            let catalogue = locked(&self.inner.catalogue);
            catalogue.iter().map(|(root, row)| (*root, row.complete)).collect()
        };
        for (root, is_complete) in datasets {
            let name = content::from_digest(DAG_CBOR, root).to_string();
            let (from, to) = (self.inner.bodies.dir(&root), into.join("data").join(name));
            copy_tree(&from, &to, is_complete)?;
        }
        write_version(into).map_err(at(into))?;
        sync_dir(into).map_err(at(into))
    }
}

/// Copies a directory with all that is in it, if it is there.
fn copy_tree(from: &Path, to: &Path, may_link: bool) -> Result<(), BackupError> {
    if !from.exists() {
        return Ok(());
    }
    for entry in WalkDir::new(from) {
        let entry = entry
            .map_err(|error| BackupError::Io { path: from.to_owned(), source: error.into() })?;
        let relative = entry.path().strip_prefix(from).expect("a walk stays below its root");
        let target = to.join(relative);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target).map_err(at(&target))?;
        } else {
            copy_file(entry.path(), &target, may_link).map_err(at(&target))?;
        }
    }
    Ok(())
}

/// Links a file, or copies it durably where that cannot be.
fn copy_file(from: &Path, to: &Path, may_link: bool) -> io::Result<()> {
    if may_link && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + '_ {
    move |source| BackupError::Io { path: path.to_owned(), source }
}
