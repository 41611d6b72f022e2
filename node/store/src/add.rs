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
use dockercomp_protocol::limits::{CHUNK_BYTES_DEFAULT, INLINE_FILE_BYTES_MAX};
use dockercomp_protocol::manifest::{self, Built, ChunkedFile, Chunker};

use crate::error::{AddError, PutError, StoreError};
use crate::keys::Place;
use crate::manifests::{Position, dataset_cid};
use crate::progress::{Progress, Report, Step};
use crate::source::{self, SourceFile};
use crate::{Inner, Kind, Store, Want, locked};

/// Bytes of small blocks that are written together.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Files from this size are hashed by all threads together, in bytes.
const LARGE_BYTES_MIN: u64 = 32 << 20;
/// Threads that hash; more would only wait for the disk.
const HASH_THREADS_MAX: usize = 8;

/// How a folder is added.
#[derive(Clone)]
pub struct AddOptions {
    /// The dataset's name on this node.
    pub name: Option<String>,
    /// How files are cut.
    pub chunker: Chunker,
    /// Whether large files stay where they are, and the store only points there. Their owner
    /// must not change them: a chunk that was changed is not served.
    pub in_place: bool,
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
    /// Bytes of its chunks that were here before, in this dataset or in others.
    pub shared_bytes: u64,
}

impl Default for AddOptions {
    fn default() -> Self {
        Self {
            name: None,
            chunker: Chunker::default(),
            in_place: false,
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
            .field("chunker", &self.chunker)
            .field("in_place", &self.in_place)
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
        let built = manifest::build(options.chunker, files.clone())?;
        let root = content::digest(&built.cid).map_err(StoreError::from)?;
        let was_here = self.inner.row_is_complete(&root);
        let mut shared_bytes = built.root.bytes;
        if !was_here {
            shared_bytes = self.inner.shared_bytes(&files)?;
            let is_new = locked(&self.inner.catalogue).get(&root).is_none();
            let stored = self.inner.fill(&root, &built, &sources, options);
            if stored.is_err() && is_new {
                self.discard(&built.cid);
            }
            stored?;
        }
        self.describe(&built.cid, options)?;
        let Built { cid, root, .. } = built;
        Ok(Added { root: cid, files: root.files, bytes: root.bytes, was_here, shared_bytes })
    }

    pub(crate) fn describe(&self, root: &Cid, options: &AddOptions) -> Result<(), StoreError> {
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

    pub(crate) fn discard(&self, root: &Cid) {
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
        let manifest_bytes: usize = built.blocks.iter().map(|(_, block)| block.len()).sum();
        let catalogue = locked(&self.catalogue);
        let held = catalogue.get(root).map_or(0, |row| row.held_bytes + row.manifest_bytes);
        let is_small = |source: &&SourceFile| source.size <= INLINE_FILE_BYTES_MAX;
        let bytes = if options.in_place {
            sources.iter().filter(is_small).map(|source| source.size).sum()
        } else {
            built.root.bytes
        };
        catalogue.admit((bytes + manifest_bytes as u64).saturating_sub(held))?;
        drop(catalogue);
        self.store_manifest(root, built, options.kind)?;
        loop {
            let mut catalogue = locked(&self.catalogue);
            let held = catalogue.get(root).map_or(0, |row| row.held_bytes);
            catalogue.promise(root, Want::All, bytes.saturating_sub(held))?;
            let forgotten = catalogue.forgotten;
            drop(catalogue);
            self.copy_from(root, built, sources, options)?;
            self.checkpoint()?;
            if self.finish(root, &built.root, &Want::All, forgotten)? {
                return Ok(());
            }
        }
    }

    /// Stores all blocks of a manifest, which make an empty dataset.
    pub(crate) fn store_manifest(
        &self,
        root: &Digest,
        built: &Built,
        kind: Kind,
    ) -> Result<(), StoreError> {
        let (_, root_block) = built.blocks.last().expect("a manifest has a root");
        self.create(root, &built.root, kind, root_block)?;
        let mut smalls = Smalls::default();
        for (cid, block) in &built.blocks {
            smalls.push(self, root, content::digest(cid)?, (block.clone(), None))?;
        }
        smalls.write(self, root)
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
            let in_file = |file: u64| usize::try_from(file).expect("it is listed in memory");
            if at.index == 0 && item.place() != Place::Small && !self.holds(&item)? {
                let source = &sources[in_file(at.file)];
                let is_here =
                    options.in_place && self.point_to(root, &built.root, &item, source.path())?;
                if is_here || self.share_file(&built.root, &item)? {
                    report.done(item.entry().size);
                    at = Position { file: at.file + 1, index: 0 };
                    self.checkpoint_if_due()?;
                    continue;
                }
            }
            if !self.holds(&item)? {
                let number = item.spot.file;
                let source = &sources[in_file(number)];
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
            chunker: Chunker::Fixed { size: CHUNK_BYTES_DEFAULT },
            in_place: false,
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
    Ok(manifest::build(options.chunker, files)?.cid)
}

/// Names the chunks of all files, on several threads: small files one a thread, large ones one
/// after another on all.
fn hash(sources: &[SourceFile], options: &AddOptions) -> Result<Vec<ChunkedFile>, AddError> {
    let report = Report::new(Step::Hash, sources, options);
    let (large, small): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| source.size >= LARGE_BYTES_MIN);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(source) = small.get(next.fetch_add(1, Ordering::Relaxed)) {
            match source.hash(options, 1, |_| {}) {
                Ok(file) => {
                    report.done(file.size);
                    done.push(file);
                }
                Err(error) => {
                    next.store(small.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(HASH_THREADS_MAX);
    let mut files = std::thread::scope(|scope| {
        let count = cores.min(small.len());
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let mut files = Vec::with_capacity(sources.len());
        for thread in threads {
            files.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, AddError>(files)
    })?;
    for source in large {
        files.push(source.hash(options, cores.max(2), |bytes| report.done(bytes))?);
    }
    Ok(files)
}

fn of_own_chunk(root: &Digest, error: PutError) -> AddError {
    match error {
        PutError::Store(error) => error.into(),
        PutError::Manifest { source, .. } => AddError::Manifest(*source),
        PutError::Mismatch(error) => StoreError::Cid(error).into(),
        PutError::NotWanted { .. } => StoreError::Incomplete { root: dataset_cid(root) }.into(),
    }
}
