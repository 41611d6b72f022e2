//! Opening a data directory: its lock, its version, and order after a crash.
//!
//! The version is looked at before the database is, because an older RocksDB fails on a newer
//! database without saying why.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use dockercomp_protocol::content;

use crate::bodies::Bodies;
use crate::catalogue::Catalogue;
use crate::db::Db;
use crate::error::{OpenError, StoreError, at_opening as at};
use crate::keys::{SCHEMA_VERSION, SCHEMA_VERSION_OLDEST};
use crate::lock::DataLock;
use crate::manifests::Manifests;
use crate::space::Space;
use crate::{Inner, Options, Store, journal, locked};

impl Store {
    /// Opens or makes the data directory, which no other process may use meanwhile.
    ///
    /// # Errors
    /// [`OpenError::Held`] if another process uses it, [`OpenError::Newer`] or
    /// [`OpenError::Older`] if another version of this program wrote it.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = DataLock::acquire(dir)?;
        check_version(dir)?;
        for name in ["data", "tmp"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        let failed = |error| OpenError::Store { dir: dir.to_owned(), source: Box::new(error) };
        let db = Db::open(&dir.join("db")).map_err(|error| failed(error.into()))?;
        let space = Space::new(dir.to_owned(), options.reserve_bytes);
        let catalogue = Catalogue::load(&db, options.quota_bytes, space.clone()).map_err(failed)?;
        let unfinished = catalogue.iter().filter(|(_, row)| !row.complete);
        let unfinished: HashSet<_> = unfinished.map(|(root, _)| *root).collect();
        let journal_next = journal::next_number(&db).map_err(failed)?;
        let store = Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                db,
                bodies: Bodies::new(dir.join("data")),
                manifests: Manifests::default(),
                catalogue: Mutex::new(catalogue),
                fetches: Mutex::new(HashMap::new()),
                checkpointing: Mutex::new(()),
                unfinished: Mutex::new(unfinished),
                leases: Arc::default(),
                graves: AtomicU64::new(0),
                journal_next: Mutex::new(journal_next),
                space,
                deleting: Mutex::new(()),
                _lock: lock,
            }),
        };
        store.finish_removals().map_err(failed)?;
        store.delete_strays()?;
        store.forget_drafts().map_err(failed)?;
        Ok(store)
    }

    fn finish_removals(&self) -> Result<(), StoreError> {
        let catalogue = locked(&self.inner.catalogue);
        let rows = catalogue.iter().filter(|(_, row)| row.removing);
        let begun: Vec<_> = rows.map(|(root, _)| *root).collect();
        drop(catalogue);
        begun.iter().try_for_each(|root| self.inner.remove_rows(root))
    }

    /// Deletes files that no dataset owns: a crash came between its rows and its files.
    fn delete_strays(&self) -> Result<(), OpenError> {
        let data = self.inner.dir.join("data");
        for entry in fs::read_dir(&data).map_err(at(&data))? {
            let entry = entry.map_err(at(&data))?;
            let name = entry.file_name();
            let root = name.to_str().and_then(|name| content::parse(name).ok());
            let Some(root) = root.and_then(|cid| content::digest(&cid).ok()) else { continue };
            if locked(&self.inner.catalogue).get(&root).is_none() {
                fs::remove_dir_all(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        let tmp = self.inner.dir.join("tmp");
        fs::remove_dir_all(&tmp).and_then(|()| fs::create_dir(&tmp)).map_err(at(&tmp))
    }
}

fn check_version(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("version");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found: u32 =
                text.trim().parse().map_err(|_| OpenError::Version { path: path.clone() })?;
            if found > SCHEMA_VERSION {
                let known = SCHEMA_VERSION;
                return Err(OpenError::Newer { dir: dir.to_owned(), found, known });
            }
            if found < SCHEMA_VERSION_OLDEST {
                return Err(OpenError::Older { dir: dir.to_owned(), found });
            }
            // An older program would fail on the families that are made now, and not say why.
            if found < SCHEMA_VERSION { write_version(dir).map_err(at(&path)) } else { Ok(()) }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A database without a version would be somebody else's.
            if dir.join("db").exists() {
                return Err(OpenError::Version { path });
            }
            write_version(dir).map_err(at(&path))
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// Writes the version of this program, entirely or not at all.
pub(crate) fn write_version(dir: &Path) -> io::Result<()> {
    let path = dir.join("version");
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{SCHEMA_VERSION}")?;
    file.sync_all()?;
    fs::rename(&draft, &path)
}
