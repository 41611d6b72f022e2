//! Bodies: the plain files under `data/`, in the dataset's own layout.
//!
//! ```text
//! write at its offset ──► fresh ──checkpoint: sync the file, then the index──► published
//! ```
//!
//! A fresh chunk is readable in this process at once; the index names it only after its file
//! is synced. A crash loses the fresh chunks and nothing else. Directories are not synced:
//! ext4, XFS and Btrfs make a new file's name durable with the file, and a file that is gone
//! nevertheless is found missing when it is read.
//!
//! # What is not here
//!
//! When to publish, and the batch that does it: [`crate::checkpoint`].
//!
//! # Bounds
//!
//! A checkpoint is due after [`FRESH_BYTES_MAX`], [`FRESH_FILES_MAX`] or [`FRESH_AGE_MAX`],
//! and at most [`SEGMENTS_MAX`] bitmaps are remembered.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dockercomp_protocol::content::{self, DAG_CBOR, Digest};

use crate::db::Db;
use crate::error::{StoreError, at};
use crate::keys::{self, Family, Spot};
use crate::locked;

/// Bytes that a crash may cost: they are fetched again.
const FRESH_BYTES_MAX: u64 = 64 << 20;
/// Files held open for their sync; volunteers' limits for open files are low.
const FRESH_FILES_MAX: usize = 256;
/// How long a chunk stays fresh while others come in.
const FRESH_AGE_MAX: Duration = Duration::from_secs(2);
/// Bitmaps in memory; each has at most a KiB.
const SEGMENTS_MAX: usize = 4096;

/// The files, and which of their chunks are there.
#[derive(Debug)]
pub(crate) struct Bodies {
    data: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fresh: HashMap<Spot, Fresh>,
    by_digest: HashMap<Digest, Spot>,
    /// Files with fresh chunks.
    files: HashMap<(Digest, u64), Arc<File>>,
    bytes: u64,
    since: Option<Instant>,
    /// Published bitmaps as the database has them, by their key.
    segments: HashMap<Vec<u8>, Vec<u8>>,
}

/// A chunk that is written but not published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    pub(crate) digest: Digest,
    pub(crate) len: u64,
}

/// Everything that was fresh at one moment.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) chunks: Vec<(Spot, Fresh)>,
    pub(crate) files: Vec<Arc<File>>,
}

impl Bodies {
    pub(crate) fn new(data: PathBuf) -> Self {
        Self { data, state: Mutex::default() }
    }

    /// The directory of a dataset.
    pub(crate) fn dir(&self, root: &Digest) -> PathBuf {
        self.data.join(content::from_digest(DAG_CBOR, *root).to_string())
    }

    /// The file of a path that the manifest has been checked for.
    pub(crate) fn path(&self, root: &Digest, path: &str) -> PathBuf {
        self.dir(root).join(path)
    }

    /// Writes a chunk to its final place.
    pub(crate) fn write(
        &self,
        spot: Spot,
        digest: Digest,
        (path, size): (&Path, u64),
        (offset, bytes): (u64, &[u8]),
    ) -> Result<(), StoreError> {
        let key = (spot.root, spot.file);
        let open = locked(&self.state).files.get(&key).cloned();
        let file = match open {
            Some(file) => file,
            None => Arc::new(open_for_write(path, size).map_err(at(path))?),
        };
        file.write_all_at(bytes, offset).map_err(at(path))?;
        // Only now: a checkpoint that runs meanwhile must not think the file is synced.
        self.wrote(spot, Fresh { digest, len: bytes.len() as u64 }, file);
        Ok(())
    }

    /// Counts chunks as written that are in a file already, whose bytes are taken for right.
    pub(crate) fn count(
        &self,
        path: &Path,
        chunks: &[(Spot, Digest, u64)],
    ) -> Result<(), StoreError> {
        // A file of our own may be written to later. Its owner's must not be.
        let is_ours = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        let file = if is_ours {
            let size = fs::metadata(path).map_err(at(path))?.len();
            open_for_write(path, size)
        } else {
            File::open(path)
        };
        let file = Arc::new(file.map_err(at(path))?);
        for (spot, digest, len) in chunks {
            self.wrote(*spot, Fresh { digest: *digest, len: *len }, Arc::clone(&file));
        }
        Ok(())
    }

    fn wrote(&self, spot: Spot, fresh: Fresh, file: Arc<File>) {
        let mut state = locked(&self.state);
        state.fresh.insert(spot, fresh);
        state.by_digest.insert(fresh.digest, spot);
        state.files.insert((spot.root, spot.file), file);
        state.bytes += fresh.len;
        state.since.get_or_insert_with(Instant::now);
    }

    /// Counts a chunk as written that is already in its file, if its bytes are right.
    pub(crate) fn keep(
        &self,
        spot: Spot,
        digest: Digest,
        (path, size): (&Path, u64),
        (offset, len): (u64, usize),
    ) -> Result<bool, StoreError> {
        match read(path, offset, len)? {
            Some(bytes) if content::digest_of(&bytes) == digest => {}
            _ => return Ok(false),
        }
        let file = Arc::new(open_for_write(path, size).map_err(at(path))?);
        self.wrote(spot, Fresh { digest, len: len as u64 }, file);
        Ok(true)
    }

    /// Whether the chunk was written, published or not.
    pub(crate) fn contains(&self, db: &Db, spot: &Spot) -> Result<bool, StoreError> {
        let mut state = locked(&self.state);
        if state.fresh.contains_key(spot) {
            return Ok(true);
        }
        let (byte, mask) = keys::bit(spot);
        let key = keys::segment(spot);
        if !state.segments.contains_key(&key) {
            if state.segments.len() >= SEGMENTS_MAX {
                state.segments.clear();
            }
            let bits = db.get(Family::Have, &key)?.unwrap_or_default();
            state.segments.insert(key.clone(), bits);
        }
        let bits = &state.segments[&key];
        Ok(bits.get(byte).is_some_and(|bits| bits & mask != 0))
    }

    /// Whether the chunk was written but not published.
    pub(crate) fn is_fresh(&self, spot: &Spot) -> bool {
        locked(&self.state).fresh.contains_key(spot)
    }

    /// Where a fresh chunk lies.
    pub(crate) fn locate(&self, digest: &Digest) -> Option<Spot> {
        locked(&self.state).by_digest.get(digest).copied()
    }

    /// Bytes of a dataset that are not counted in its row yet.
    pub(crate) fn fresh_bytes(&self, root: &Digest) -> u64 {
        let state = locked(&self.state);
        state.fresh.iter().filter(|(spot, _)| spot.root == *root).map(|(_, f)| f.len).sum()
    }

    /// Whether it is time to publish.
    pub(crate) fn is_due(&self) -> bool {
        let state = locked(&self.state);
        state.bytes >= FRESH_BYTES_MAX
            || state.files.len() >= FRESH_FILES_MAX
            || state.since.is_some_and(|since| since.elapsed() >= FRESH_AGE_MAX)
    }

    /// Takes what must be synced. Its chunks stay fresh until [`Self::published`].
    pub(crate) fn take_unsynced(&self) -> Unsynced {
        let mut state = locked(&self.state);
        state.bytes = 0;
        state.since = None;
        Unsynced {
            chunks: state.fresh.iter().map(|(spot, fresh)| (*spot, *fresh)).collect(),
            files: state.files.drain().map(|(_, file)| file).collect(),
        }
    }

    /// These chunks are in the index now.
    pub(crate) fn published(&self, spots: impl Iterator<Item = Spot>) {
        let mut state = locked(&self.state);
        for spot in spots {
            state.forget(&spot);
        }
    }

    /// This chunk is rotten or gone, here and in the index.
    pub(crate) fn forget(&self, spot: &Spot) {
        locked(&self.state).forget(spot);
    }

    /// A dataset is removed.
    pub(crate) fn forget_dataset(&self, root: &Digest) {
        let mut state = locked(&self.state);
        state.fresh.retain(|spot, _| spot.root != *root);
        state.by_digest.retain(|_, spot| spot.root != *root);
        state.files.retain(|(owner, _), _| owner != root);
        state.segments.retain(|key, _| !key.starts_with(root));
    }
}

impl State {
    fn forget(&mut self, spot: &Spot) {
        if let Some(Fresh { digest, .. }) = self.fresh.remove(spot)
            && self.by_digest.get(&digest) == Some(spot)
        {
            self.by_digest.remove(&digest);
        }
        self.segments.remove(&keys::segment(spot));
    }
}

/// Reads a chunk. `None`: the file is gone or too short.
pub(crate) fn read(path: &Path, offset: u64, len: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = vec![0; len];
    match File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset)) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(at(path)(error)),
        },
    }
}

/// Opens a file of this size, sparse where nothing was written.
fn open_for_write(path: &Path, size: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            options.open(path)?
        }
        // It was complete and staged, so it is read-only; a rotten chunk comes anew.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            fs::set_permissions(path, Permissions::from_mode(0o644))?;
            options.open(path)?
        }
        other => other?,
    };
    if file.metadata()?.len() != size {
        file.set_len(size)?;
    }
    Ok(file)
}
