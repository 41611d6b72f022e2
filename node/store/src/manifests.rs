//! Manifest blocks as values, and the walk over a dataset's chunks.
//!
//! A block that was read, verified and decoded once is kept, so that a fetch of many small
//! files does not decode their page again for each of them.
//!
//! # Bounds
//!
//! Decoded blocks with [`CACHE_ENTRIES_MAX`] entries (files or links) in all; the least
//! recently used go first.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use cid::Cid;
use dockercomp_protocol::content::{self, DAG_CBOR, Digest};
use dockercomp_protocol::limits::{INLINE_FILE_BYTES_MAX, PAGE_CHUNKS_MAX, PAGE_FILES_MAX};
use dockercomp_protocol::manifest::{
    Chunk, ChunkPage, Chunks, FileEntry, ManifestError, Page, Root,
};

use crate::error::StoreError;
use crate::keys::{Family, Place, Spot};
use crate::{Inner, keys, locked};

/// Entries of decoded blocks in memory, about 200 bytes each.
const CACHE_ENTRIES_MAX: usize = 128 << 10;
const FILES: u64 = PAGE_FILES_MAX as u64;
const LINKS: u64 = PAGE_CHUNKS_MAX as u64;

/// Decoded manifest blocks.
#[derive(Debug, Default)]
pub(crate) struct Manifests(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    nodes: HashMap<Key, Cached>,
    entries: usize,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    node: Node,
    entries: usize,
    used: u64,
}

/// A block's place in its dataset, on which its checks depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Root(Digest),
    Page(Digest, u64),
    Chunks(Digest, u64, u64),
}

#[derive(Clone, Debug)]
enum Node {
    Root(Arc<Root>),
    Page(Arc<Page>),
    Chunks(Arc<Located>),
}

/// A page of chunks, and where in the page's part of the file each begins.
#[derive(Debug)]
struct Located {
    page: ChunkPage,
    starts: Vec<u64>,
}

impl From<ChunkPage> for Located {
    fn from(page: ChunkPage) -> Self {
        let mut next = 0;
        let starts = page.chunks.iter().map(|chunk| {
            let start = next;
            next += u64::from(chunk.1);
            start
        });
        Self { starts: starts.collect(), page }
    }
}

impl Key {
    const fn root(&self) -> &Digest {
        match self {
            Self::Root(root) | Self::Page(root, _) | Self::Chunks(root, ..) => root,
        }
    }
}

impl Manifests {
    fn get(&self, key: &Key) -> Option<Node> {
        let mut cache = locked(&self.0);
        cache.clock += 1;
        let clock = cache.clock;
        let cached = cache.nodes.get_mut(key)?;
        cached.used = clock;
        Some(cached.node.clone())
    }

    fn insert(&self, key: Key, node: Node, entries: usize) {
        let mut cache = locked(&self.0);
        cache.clock += 1;
        let used = cache.clock;
        cache.entries += entries;
        if let Some(old) = cache.nodes.insert(key, Cached { node, entries, used }) {
            cache.entries -= old.entries;
        }
        while cache.entries > CACHE_ENTRIES_MAX && cache.nodes.len() > 1 {
            let oldest = cache.nodes.iter().min_by_key(|(_, cached)| cached.used);
            let Some(key) = oldest.map(|(key, _)| *key) else { break };
            if let Some(gone) = cache.nodes.remove(&key) {
                cache.entries -= gone.entries;
            }
        }
    }

    /// Forgets all blocks of a dataset.
    pub(crate) fn forget(&self, root: &Digest) {
        let mut cache = locked(&self.0);
        cache.nodes.retain(|key, _| key.root() != root);
        cache.entries = cache.nodes.values().map(|cached| cached.entries).sum();
    }
}

/// One chunk of a dataset, and where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) cid: Cid,
    pub(crate) digest: Digest,
    pub(crate) spot: Spot,
    pub(crate) offset: u64,
    pub(crate) len: usize,
    page: Arc<Page>,
}

impl Item {
    /// The file it is part of.
    pub(crate) fn entry(&self) -> &FileEntry {
        &self.page.files[within(self.spot.file, FILES)]
    }

    /// Where it is kept.
    pub(crate) fn place(&self) -> Place {
        if is_small(self.entry()) {
            Place::Small
        } else {
            Place::Body { file: self.spot.file, index: self.spot.index }
        }
    }
}

/// Whether the file is kept in the database.
pub(crate) const fn is_small(entry: &FileEntry) -> bool {
    entry.size <= INLINE_FILE_BYTES_MAX
}

/// The pages that these files are listed in.
pub(crate) const fn pages_of(files: &Range<u64>) -> Range<u64> {
    if files.start >= files.end { 0..0 } else { files.start / FILES..files.end.div_ceil(FILES) }
}

/// The files that this page lists.
pub(crate) const fn files_of(page: u64) -> Range<u64> {
    page * FILES..(page + 1) * FILES
}

/// A chunk's number in the dataset: where a walk has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub(crate) file: u64,
    pub(crate) index: u64,
}

impl Inner {
    /// The root block, if it is here.
    pub(crate) fn manifest(&self, root: &Digest) -> Result<Option<Arc<Root>>, StoreError> {
        let key = Key::Root(*root);
        if let Some(Node::Root(found)) = self.manifests.get(&key) {
            return Ok(Some(found));
        }
        let Some(bytes) = self.manifest_block(root, root)? else { return Ok(None) };
        let found = Arc::new(Root::decode(&bytes).map_err(invalid(root))?);
        self.manifests.insert(key, Node::Root(Arc::clone(&found)), found.pages.len() + 1);
        Ok(Some(found))
    }

    /// Page `index`, if it is here.
    pub(crate) fn page(
        &self,
        root: &Digest,
        manifest: &Root,
        index: u64,
    ) -> Result<Option<Arc<Page>>, StoreError> {
        let key = Key::Page(*root, index);
        if let Some(Node::Page(found)) = self.manifests.get(&key) {
            return Ok(Some(found));
        }
        let number = usize::try_from(index).expect("pages are counted with usize");
        let Some(cid) = manifest.pages.get(number) else { return Ok(None) };
        let Some(bytes) = self.manifest_block(root, &content::digest(cid)?)? else {
            return Ok(None);
        };
        let found = Arc::new(Page::decode(&bytes, manifest, number).map_err(invalid(root))?);
        self.manifests.insert(key, Node::Page(Arc::clone(&found)), found.files.len() + 1);
        Ok(Some(found))
    }

    /// Page `index` of the chunks of a large file, if it is here.
    fn chunk_page(
        &self,
        root: &Digest,
        manifest: &Root,
        (file, entry): (u64, &FileEntry),
        (index, cid): (u64, &Cid),
    ) -> Result<Option<Arc<Located>>, StoreError> {
        let key = Key::Chunks(*root, file, index);
        if let Some(Node::Chunks(found)) = self.manifests.get(&key) {
            return Ok(Some(found));
        }
        let Some(bytes) = self.manifest_block(root, &content::digest(cid)?)? else {
            return Ok(None);
        };
        let number = usize::try_from(index).expect("pages are counted with usize");
        let found = ChunkPage::decode(&bytes, entry, manifest.chunker, number);
        let found = Arc::new(Located::from(found.map_err(invalid(root))?));
        self.manifests.insert(key, Node::Chunks(Arc::clone(&found)), found.page.chunks.len() + 1);
        Ok(Some(found))
    }

    /// The first chunk at or after `at`, which is moved there, of the files before `end`.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if the manifest is not here so far.
    pub(crate) fn item(
        &self,
        root: &Digest,
        manifest: &Root,
        at: &mut Position,
        end: u64,
    ) -> Result<Option<Item>, StoreError> {
        let incomplete = || StoreError::Incomplete { root: dataset_cid(root) };
        while at.file < end {
            let page = self.page(root, manifest, at.file / FILES)?.ok_or_else(incomplete)?;
            let entry = &page.files[within(at.file, FILES)];
            let Some(found) = self.chunk(root, manifest, (at.file, entry), at.index)? else {
                *at = Position { file: at.file + 1, index: 0 };
                continue;
            };
            let (Chunk(cid, len), offset) = found.ok_or_else(incomplete)?;
            return Ok(Some(Item {
                cid,
                digest: content::digest(&cid)?,
                spot: Spot { root: *root, file: at.file, index: at.index },
                offset,
                len: usize::try_from(len).expect("a chunk has at most 4 MiB"),
                page,
            }));
        }
        Ok(None)
    }

    /// A chunk of a file and its offset. `None`: the file ends before. `Some(None)`: the page
    /// that lists it is not here.
    fn chunk(
        &self,
        root: &Digest,
        manifest: &Root,
        (file, entry): (u64, &FileEntry),
        index: u64,
    ) -> Result<Option<Option<(Chunk, u64)>>, StoreError> {
        let nth = |chunks: &[Chunk], nth: usize| {
            let before = chunks.get(..nth)?.iter().map(|chunk| u64::from(chunk.1)).sum::<u64>();
            chunks.get(nth).map(|chunk| (*chunk, before))
        };
        match &entry.chunks {
            Chunks::Inline(chunks) => {
                let found = usize::try_from(index).ok().and_then(|at| nth(chunks, at));
                Ok(found.map(Some))
            }
            Chunks::Paged(pages) => {
                let number = within(index / LINKS, u64::MAX);
                let Some(link) = pages.get(number) else { return Ok(None) };
                let page =
                    self.chunk_page(root, manifest, (file, entry), (index / LINKS, &link.0))?;
                let Some(page) = page else { return Ok(Some(None)) };
                let at = within(index, LINKS);
                let Some(chunk) = page.page.chunks.get(at) else { return Ok(None) };
                let before: u64 = pages[..number].iter().map(|page| page.1).sum();
                Ok(Some(Some((*chunk, before + page.starts[at]))))
            }
        }
    }

    /// Whether the dataset itself has this chunk.
    pub(crate) fn holds(&self, item: &Item) -> Result<bool, StoreError> {
        match item.place() {
            Place::Small => self.holds_small(&item.spot.root, &item.digest),
            Place::Body { .. } | Place::Origin { .. } => self.bodies.contains(&self.db, &item.spot),
        }
    }

    /// Whether the dataset itself has this block in family `small`.
    pub(crate) fn holds_small(&self, root: &Digest, digest: &Digest) -> Result<bool, StoreError> {
        self.db.contains(Family::Refs, &keys::reference(root, digest, Place::Small))
    }

    fn manifest_block(
        &self,
        root: &Digest,
        digest: &Digest,
    ) -> Result<Option<bytes::Bytes>, StoreError> {
        if self.holds_small(root, digest)? { self.read_small(digest) } else { Ok(None) }
    }
}

/// The identifier of the dataset with this root.
pub(crate) fn dataset_cid(root: &Digest) -> Cid {
    content::from_digest(DAG_CBOR, *root)
}

fn invalid(root: &Digest) -> impl FnOnce(ManifestError) -> StoreError + '_ {
    move |source| StoreError::Manifest { root: dataset_cid(root), source: Box::new(source) }
}

/// A number's place in its page.
fn within(number: u64, page: u64) -> usize {
    usize::try_from(number % page).expect("a place in a list that is in memory")
}
