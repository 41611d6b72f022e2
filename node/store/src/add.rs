//! Adding a folder or a file: the dataset is named first and stored second.
//!
//! ```text
//! list ──► hash every chunk (all cores) ──► manifest, room ──► copy what is not here
//! ```
//!
//! The source is read twice. In return the root, and with it the room needed and every
//! chunk's final place, is known before anything is written: adding is a fetch whose only
//! provider is the folder. A crash leaves an incomplete dataset like any other, adding again
//! goes on where it ended, and adding what is here already writes nothing. A file that
//! changes in between is noticed, because its chunks are verified as they are copied.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cid::Cid;
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::limits::CHUNK_BYTES_DEFAULT;
use dockercomp_protocol::manifest::{self, Built, ChunkedFile};

use crate::error::{AddError, PutError, StoreError};
use crate::keys::Place;
use crate::manifests::{Position, dataset_cid};
use crate::progress::{Progress, Report, Step};
use crate::source::{self, SourceFile};
use crate::{Inner, Kind, Store, Want, locked};

/// Bytes of small blocks that are written together.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Threads that hash; more would only wait for the disk.
const HASH_THREADS_MAX: usize = 8;

/// How a folder is added.
#[derive(Clone)]
pub struct AddOptions {
    /// The dataset's name on this node.
    pub name: Option<String>,
    /// Size of a chunk in bytes, a power of two.
    pub chunk_bytes: u32,
    /// What the dataset is.
    pub kind: Kind,
    /// Is told how far it is, after every file and chunk, from several threads.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Whether files lose their executable bit, so that outputs do not differ by it.
    pub normalise: bool,
}

/// A dataset that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its root.
    pub root: Cid,
    /// Number of its files.
    pub files: u64,
    /// Sum of the sizes of its files, in bytes.
    pub bytes: u64,
    /// Whether all of it was here before.
    pub was_here: bool,
}

impl Default for AddOptions {
    fn default() -> Self {
        Self {
            name: None,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            kind: Kind::Added,
            progress: None,
            normalise: false,
        }
    }
}

impl fmt::Debug for AddOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddOptions")
            .field("name", &self.name)
            .field("chunk_bytes", &self.chunk_bytes)
            .field("kind", &self.kind)
            .field("normalise", &self.normalise)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Copies a folder, or one file, into the store. It is durable when this returns.
    ///
    /// # Errors
    /// See [`AddError`]; then nothing is left in the store that was not there before.
    pub fn add(&self, source: &Path, options: &AddOptions) -> Result<Added, AddError> {
        let sources = source::list(source)?;
        let files = hash(&sources, options)?;
        let built = manifest::build(options.chunk_bytes, files)?;
        let root = content::digest(&built.cid).map_err(StoreError::from)?;
        let was_here = self.inner.row_is_complete(&root);
        if !was_here {
            let is_new = locked(&self.inner.catalogue).get(&root).is_none();
            let stored = self.inner.fill(&root, &built, &sources, options);
            if stored.is_err() && is_new {
                self.discard(&built.cid);
            }
            stored?;
        }
        self.describe(&built.cid, options)?;
        let Built { cid, root, .. } = built;
        Ok(Added { root: cid, files: root.files, bytes: root.bytes, was_here })
    }

    fn describe(&self, root: &Cid, options: &AddOptions) -> Result<(), StoreError> {
        self.change(root, |row| {
            if let Some(name) = &options.name {
                row.name = Some(name.clone());
            }
            // What the owner added stays so when an output happens to equal it.
            if options.kind == Kind::Added {
                row.kind = Kind::Added;
            }
        })
    }

    fn discard(&self, root: &Cid) {
        match self.remove(root) {
            Ok(()) | Err(StoreError::Unknown { .. }) => {}
            Err(error) => tracing::warn!(%root, %error, "a dataset half added was not removed"),
        }
    }
}

impl Inner {
    /// Stores the manifest and all chunks.
    fn fill(
        &self,
        root: &Digest,
        built: &Built,
        sources: &[SourceFile],
        options: &AddOptions,
    ) -> Result<(), AddError> {
        let (_, root_block) = built.blocks.last().expect("a manifest has a root");
        let manifest_bytes: usize = built.blocks.iter().map(|(_, block)| block.len()).sum();
        let catalogue = locked(&self.catalogue);
        let held = catalogue.get(root).map_or(0, |row| row.held_bytes + row.manifest_bytes);
        catalogue.admit((built.root.bytes + manifest_bytes as u64).saturating_sub(held))?;
        drop(catalogue);
        self.create(root, &built.root, options.kind, root_block)?;
        let mut smalls = Smalls::default();
        for (cid, block) in &built.blocks {
            let digest = content::digest(cid).map_err(StoreError::from)?;
            smalls.push(self, root, digest, (block.clone(), None))?;
        }
        smalls.write(self, root)?;
        loop {
            let mut catalogue = locked(&self.catalogue);
            let held = catalogue.get(root).map_or(0, |row| row.held_bytes);
            catalogue.promise(root, Want::All, built.root.bytes.saturating_sub(held))?;
            let forgotten = catalogue.forgotten;
            drop(catalogue);
            self.copy_from(root, built, sources, options)?;
            self.checkpoint()?;
            if self.finish(root, &built.root, &Want::All, forgotten)? {
                return Ok(());
            }
        }
    }

    /// Copies every chunk that is not here.
    fn copy_from(
        &self,
        root: &Digest,
        built: &Built,
        sources: &[SourceFile],
        options: &AddOptions,
    ) -> Result<(), AddError> {
        let report = Report::new(Step::Store, sources, options);
        let mut smalls = Smalls::default();
        let mut open: Option<(u64, File)> = None;
        let mut at = Position::default();
        while let Some(item) = self.item(root, &built.root, &mut at, built.root.files)? {
            if !self.holds(&item)? {
                let number = item.spot.file;
                let source = &sources[usize::try_from(number).expect("it is listed in memory")];
                let file = match open.take() {
                    Some((opened, file)) if opened == number => file,
                    _ => source.open()?,
                };
                let bytes = source.read(&file, &item.cid, (item.offset, item.len))?;
                open = Some((number, file));
                if item.place() == Place::Small {
                    smalls.push(self, root, item.digest, (bytes, Some(number)))?;
                } else {
                    let stored = self.store_chunk(&item, &bytes.into());
                    stored.map_err(|error| of_own_chunk(root, error))?;
                    self.checkpoint_if_due()?;
                }
            }
            report.done(item.len as u64);
            at.index += 1;
        }
        Ok(smalls.write(self, root)?)
    }
}

/// Small blocks that wait to be written together.
#[derive(Debug, Default)]
struct Smalls {
    blocks: Vec<(Digest, Vec<u8>, Option<u64>)>,
    digests: HashSet<Digest>,
    bytes: usize,
}

impl Smalls {
    fn push(
        &mut self,
        store: &Inner,
        root: &Digest,
        digest: Digest,
        (block, file): (Vec<u8>, Option<u64>),
    ) -> Result<(), StoreError> {
        if !self.digests.insert(digest) {
            return Ok(());
        }
        self.bytes += block.len();
        self.blocks.push((digest, block, file));
        if self.bytes >= BATCH_BYTES_MAX { self.write(store, root) } else { Ok(()) }
    }

    fn write(&mut self, store: &Inner, root: &Digest) -> Result<(), StoreError> {
        let mut catalogue = locked(&store.catalogue);
        let mut batch = store.db.batch();
        for (digest, block, file) in self.blocks.drain(..) {
            store.add_small(&mut catalogue, &mut batch, (root, &digest), &block, file)?;
        }
        self.digests.clear();
        self.bytes = 0;
        batch.write()
    }
}

impl AddOptions {
    /// How outputs are chunked: by the default size and without executable bits, so that equal
    /// outputs have equal roots everywhere.
    #[must_use]
    pub const fn output() -> Self {
        Self {
            name: None,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            kind: Kind::Output,
            progress: None,
            normalise: true,
        }
    }
}

/// The root that a file or folder would have as an output, without storing anything.
///
/// # Errors
/// See [`AddError`].
pub fn root_of(source: &Path) -> Result<Cid, AddError> {
    let options = AddOptions::output();
    let files = hash(&source::list(source)?, &options)?;
    Ok(manifest::build(options.chunk_bytes, files)?.cid)
}

/// Names the chunks of all files, on several threads.
fn hash(sources: &[SourceFile], options: &AddOptions) -> Result<Vec<ChunkedFile>, AddError> {
    let report = Report::new(Step::Hash, sources, options);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = Vec::new();
        let mut done = Vec::new();
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            match source.hash(options.chunk_bytes, options.normalise, &mut buffer) {
                Ok(file) => {
                    report.done(file.size);
                    done.push(file);
                }
                Err(error) => {
                    next.store(sources.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = cores.min(HASH_THREADS_MAX).min(sources.len()).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let mut files = Vec::with_capacity(sources.len());
        for thread in threads {
            files.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(files)
    })
}

fn of_own_chunk(root: &Digest, error: PutError) -> AddError {
    match error {
        PutError::Store(error) => error.into(),
        PutError::Manifest { source, .. } => AddError::Manifest(*source),
        PutError::Mismatch(error) => StoreError::Cid(error).into(),
        PutError::NotWanted { .. } => StoreError::Incomplete { root: dataset_cid(root) }.into(),
    }
}
