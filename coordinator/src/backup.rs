//! Back-up of a coordinator, running or not, and taking one up again.
//!
//! ```text
//! BACKUP/backup.json               what this is; written last
//! BACKUP/identity.key, owner.key   the coordinator's key and the project's
//! BACKUP/version, db/, data/       the store as of one instant
//! ```
//!
//! The store's copy is one instant between two batches, so records, receipts, the log and all
//! tables agree in it; decisions go on meanwhile. A back-up is made under another name and
//! renamed when it is whole: a directory that is called what was asked for is a whole one.
//!
//! # What is not here
//!
//! - No encryption: a back-up holds the project's key, and whoever has it *is* the project.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dockercomp_coordinator_core::Config;
use dockercomp_peer::identity;
use dockercomp_protocol::Timestamp;
use dockercomp_store::{BackupError as CopyError, OpenError, Store};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::OWNER_KEY;
use crate::journal::{self, ReplayError, Rhythm};

/// The file that says that a directory is a back-up.
const FILE: &str = "backup.json";
/// Version of [`Note`].
const VERSION: u32 = 1;

/// What `backup.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Version of the back-up's form.
    pub version: u32,
    /// The program that made it.
    pub agent: String,
    /// When it was begun, RFC 3339.
    pub begun_at: String,
    /// Records of the journal that it holds at least.
    pub records: u64,
}

/// Why there is no back-up, or nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something already.
    #[error("{} exists; name a directory that does not", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// What should be restored is no back-up, or not a whole one.
    #[error("{} is not a whole back-up: it has no readable {FILE}", dir.display())]
    NotOne {
        /// The directory.
        dir: PathBuf,
    },
    /// A newer program made it.
    #[error("{} is a back-up of version {found}, this program knows up to {VERSION}", dir.display())]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// What it says.
        found: u32,
    },
    /// There is no coordinator in the data directory.
    #[error("there is no coordinator's data in {}", dir.display())]
    Nothing {
        /// The directory.
        dir: PathBuf,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be copied.
    #[error("the store cannot be copied")]
    Copy(#[from] CopyError),
    /// What was restored cannot be started.
    #[error("the back-up's journal cannot be taken up")]
    Replay(#[from] ReplayError),
    /// The file system failed.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Copies a data directory whose store is open, by whoever has it open. Blocking.
pub(crate) fn make(store: &Store, into: &Path, now: Timestamp) -> Result<Note, BackupError> {
    let note = Note {
        version: VERSION,
        agent: concat!("dockercomp/", env!("CARGO_PKG_VERSION")).to_owned(),
        begun_at: now.to_string(),
        records: store.next_record(),
    };
    let draft = begin(into)?;
    let made = store.copy_to(&draft).map_err(BackupError::from).and_then(|()| {
        for name in [identity::FILE, OWNER_KEY] {
            copy(&store.dir().join(name), &draft.join(name))?;
        }
        write_note(&draft, &note)
    });
    finish(made, &draft, into)?;
    Ok(note)
}

/// Copies the data directory of a coordinator that does not run. Blocking.
///
/// # Errors
/// See [`BackupError`].
pub fn offline(dir: &Path, into: &Path) -> Result<Note, BackupError> {
    if !dir.join("db").exists() {
        return Err(BackupError::Nothing { dir: dir.to_owned() });
    }
    let store = Store::open(dir, dockercomp_store::Options::default())?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    make(&store, into, Timestamp(dockercomp_protocol::time::millis(now.unwrap_or_default())))
}

/// Makes a data directory of a back-up, and proves that a coordinator can start on it.
/// Blocking. The back-up is left as it is.
///
/// # Errors
/// See [`BackupError`]; nothing is left behind then.
pub fn restore(from: &Path, into: &Path) -> Result<Note, BackupError> {
    let note = read_note(from)?;
    let draft = begin(into)?;
    let made = copy_all(from, &draft).and_then(|()| {
        let store = Store::open(&draft, dockercomp_store::Options::default())?;
        journal::recover(&store, Rhythm::default(), Config::default())?;
        Ok(())
    });
    finish(made, &draft, into)?;
    Ok(note)
}

/// The name under which a directory is made, which is free.
fn begin(into: &Path) -> Result<PathBuf, BackupError> {
    if into.exists() && fs::read_dir(into).map_or(true, |mut entries| entries.next().is_some()) {
        return Err(BackupError::Exists { dir: into.to_owned() });
    }
    let mut name = into.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let draft = into.with_file_name(name);
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(at(&draft))?;
    }
    fs::create_dir_all(&draft).map_err(at(&draft))?;
    Ok(draft)
}

/// Gives a draft its name if it is whole, and deletes it if it is not.
fn finish(made: Result<(), BackupError>, draft: &Path, into: &Path) -> Result<(), BackupError> {
    if let Err(error) = made {
        let _ = fs::remove_dir_all(draft);
        return Err(error);
    }
    fs::rename(draft, into).map_err(at(into))?;
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(at(parent))
}

/// Copies everything of a back-up but its note.
fn copy_all(from: &Path, to: &Path) -> Result<(), BackupError> {
    for entry in WalkDir::new(from).min_depth(1) {
        let entry = entry
            .map_err(|error| BackupError::Io { path: from.to_owned(), source: error.into() })?;
        let relative = entry.path().strip_prefix(from).expect("a walk stays below its root");
        let target = to.join(relative);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target).map_err(at(&target))?;
        } else if relative != Path::new(FILE) {
            copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Copies a file durably, with its permissions.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::copy(from, to).map_err(at(from))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(at(to))
}

fn write_note(dir: &Path, note: &Note) -> Result<(), BackupError> {
    let path = dir.join(FILE);
    let text = serde_json::to_string_pretty(note).expect("a note is plain text and numbers");
    let written = File::create(&path).and_then(|mut file| {
        writeln!(file, "{text}")?;
        file.sync_all()
    });
    written.map_err(at(&path))
}

fn read_note(dir: &Path) -> Result<Note, BackupError> {
    let not_one = || BackupError::NotOne { dir: dir.to_owned() };
    let bytes = fs::read(dir.join(FILE)).map_err(|_| not_one())?;
    // The version first: a newer note may have other fields.
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| not_one())?;
    match value["version"].as_u64().and_then(|found| u32::try_from(found).ok()) {
        Some(found) if found > VERSION => Err(BackupError::Newer { dir: dir.to_owned(), found }),
        _ => serde_json::from_value(value).map_err(|_| not_one()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + '_ {
    move |source| BackupError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &Path) -> PathBuf {
        let home = folder.join("home");
        drop(Store::open(&home, dockercomp_store::Options::default()).expect("a store"));
        for name in [identity::FILE, OWNER_KEY] {
            identity::load_or_create(&home.join(name)).expect("a key");
        }
        home
    }

    #[test]
    fn a_back_up_comes_back_with_its_keys_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, backup) = (home(folder.path()), folder.path().join("backup"));
        let note = offline(&home, &backup).expect("a back-up");
        assert!(matches!(offline(&home, &backup), Err(BackupError::Exists { .. })));
        let back = folder.path().join("back");
        assert_eq!(restore(&backup, &back).expect("a data directory"), note);
        for name in [identity::FILE, OWNER_KEY] {
            let read = |dir: &Path| fs::read(dir.join(name)).expect("a key");
            assert_eq!(read(&home), read(&back));
        }
        assert!(!back.join(FILE).exists());
        assert!(matches!(restore(&backup, &home), Err(BackupError::Exists { .. })));
    }

    #[test]
    fn what_is_no_whole_back_up_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, backup) = (home(folder.path()), folder.path().join("backup"));
        let back = folder.path().join("back");
        assert!(matches!(restore(&home, &back), Err(BackupError::NotOne { .. })));
        let nothing = offline(&folder.path().join("nowhere"), &backup);
        assert!(matches!(nothing, Err(BackupError::Nothing { .. })));
        let note = offline(&home, &backup).expect("a back-up");
        write_note(&backup, &Note { version: VERSION + 1, ..note.clone() }).expect("a write");
        assert!(matches!(restore(&backup, &back), Err(BackupError::Newer { found: 2, .. })));
        write_note(&backup, &note).expect("a write");
        fs::remove_file(backup.join("db/CURRENT")).expect("it is there");
        assert!(restore(&backup, &back).is_err(), "a back-up without a database");
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["backup", "home"]);
    }
}
