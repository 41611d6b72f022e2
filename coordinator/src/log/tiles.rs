//! How the tree of the log is kept: tiles of up to 256 hashes.
//!
//! A tile of level 0 has 256 leaves, one of level 1 the roots of 256 tiles of level 0, and so
//! on; nodes between are computed when they are asked for. Tiles only grow, so whoever reads
//! for an older, smaller log reads the same hashes.
//!
//! ```text
//! key    0x01 | level u8 | number u64
//! value  its hashes, one behind the other
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use dockercomp_protocol::content::{DIGEST_BYTES, Digest};
use dockercomp_protocol::log::{Frontier, Nodes, node_hash};
use dockercomp_store::{Row, Store, Table};

use super::LogError;

/// Levels of the tree that a tile spans.
const TILE_HEIGHT: u32 = 8;
/// Hashes of a full tile.
const TILE_HASHES: u64 = 1 << TILE_HEIGHT;
/// Bytes of a full tile.
const TILE_BYTES: usize = (TILE_HASHES as usize) * DIGEST_BYTES;

/// The right edge of the tree, and the tiles that change with it.
#[derive(Debug, Default)]
pub(super) struct Edge {
    frontier: Frontier,
    /// The unfinished tile of each level.
    open: Vec<OpenTile>,
    /// Tiles that became full since the last [`Self::rows`].
    full: Vec<Row>,
}

#[derive(Debug, Default)]
struct OpenTile {
    hashes: Vec<u8>,
    changed: bool,
}

impl Edge {
    /// Reads the edge of a log of this size. Blocking.
    pub(super) fn load(store: &Store, size: u64) -> Result<Self, LogError> {
        let frontier = Frontier::restore(size, &Tiles::new(store))?;
        let mut open = Vec::new();
        for level in 0.. {
            let nodes = nodes_on(size, level);
            if nodes == 0 {
                break;
            }
            let (number, begun) = (nodes / TILE_HASHES, nodes % TILE_HASHES);
            let mut hashes = Vec::new();
            if begun > 0 {
                hashes = store.get(Table::Log, &key(level, number))?.unwrap_or_default();
                let bytes = usize::try_from(begun).expect("below 256") * DIGEST_BYTES;
                if hashes.len() < bytes {
                    return Err(LogError::Tile { level, number });
                }
                hashes.truncate(bytes);
            }
            open.push(OpenTile { hashes, changed: false });
        }
        Ok(Self { frontier, open, full: Vec::new() })
    }

    pub(super) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn root(&self) -> Digest {
        self.frontier.root()
    }

    pub(super) fn push(&mut self, leaf: Digest) {
        let Self { frontier, open, full } = self;
        frontier.push(leaf, |height, index, digest| {
            if height % TILE_HEIGHT != 0 {
                return;
            }
            let level = height / TILE_HEIGHT;
            if open.len() <= level as usize {
                open.push(OpenTile::default());
            }
            let tile = &mut open[level as usize];
            tile.hashes.extend_from_slice(&digest);
            tile.changed = true;
            if tile.hashes.len() == TILE_BYTES {
                full.push(row(level, index / TILE_HASHES, std::mem::take(&mut tile.hashes)));
                tile.changed = false;
            }
        });
    }

    /// The rows of all tiles that changed since they were last asked for.
    pub(super) fn rows(&mut self) -> Vec<Row> {
        let size = self.size();
        let mut rows = std::mem::take(&mut self.full);
        for (level, tile) in (0..).zip(&mut self.open) {
            if std::mem::take(&mut tile.changed) {
                rows.push(row(level, nodes_on(size, level) / TILE_HASHES, tile.hashes.clone()));
            }
        }
        rows
    }
}

/// The complete nodes of the tree, as stored. Remembers the tiles that it has read, so it is
/// for one answer, not for ever.
pub(crate) struct Tiles<'a> {
    store: &'a Store,
    read: RefCell<BTreeMap<(u32, u64), Vec<Digest>>>,
}

impl<'a> Tiles<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store, read: RefCell::default() }
    }

    /// The subtree over some of a tile's hashes.
    fn fold(&self, level: u32, number: u64, from: usize, hashes: usize) -> Option<Digest> {
        let read = self.read.borrow();
        let mut nodes = read.get(&(level, number))?.get(from..from + hashes)?.to_vec();
        while nodes.len() > 1 {
            nodes = nodes.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        nodes.pop()
    }
}

impl Nodes for Tiles<'_> {
    type Error = LogError;

    fn node(&self, height: u32, index: u64) -> Result<Digest, LogError> {
        let (level, above) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let first = index << above;
        let (number, from) = (first / TILE_HASHES, first % TILE_HASHES);
        if !self.read.borrow().contains_key(&(level, number)) {
            let hashes = self.store.get(Table::Log, &key(level, number))?.unwrap_or_default();
            let hashes = hashes.as_chunks::<DIGEST_BYTES>().0.to_vec();
            self.read.borrow_mut().insert((level, number), hashes);
        }
        let from = usize::try_from(from).expect("below 256");
        self.fold(level, number, from, 1 << above).ok_or(LogError::Tile { level, number })
    }
}

/// How many complete nodes a tree of this size has at the foot of a level's tiles.
const fn nodes_on(size: u64, level: u32) -> u64 {
    match size.checked_shr(level * TILE_HEIGHT) {
        Some(nodes) => nodes,
        None => 0,
    }
}

fn key(level: u32, number: u64) -> Vec<u8> {
    let level = u8::try_from(level).expect("a tree has at most 64 levels");
    let mut key = vec![1, level];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn row(level: u32, number: u64, hashes: Vec<u8>) -> Row {
    Row::Put { table: Table::Log, key: key(level, number), value: hashes }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use dockercomp_protocol::log::{consistency, inclusion, leaf_hash, root};

    use super::*;

    /// The tree kept whole in memory, every node of it.
    #[derive(Default)]
    struct Memory {
        frontier: Frontier,
        nodes: BTreeMap<(u32, u64), Digest>,
    }

    impl Nodes for Memory {
        type Error = Infallible;

        fn node(&self, height: u32, index: u64) -> Result<Digest, Infallible> {
            Ok(self.nodes[&(height, index)])
        }
    }

    /// Appends in batches of many sizes, so that tiles of three levels begin, grow and fill,
    /// loads the edge anew now and then, and reads proofs from the rows.
    #[test]
    fn tiles_give_the_same_tree_after_every_batch_and_restart() {
        const ENTRIES: u64 = 66_000;
        let folder = tempfile::tempdir().expect("a folder");
        let options = dockercomp_store::Options::default();
        let store = Store::open(folder.path(), options).expect("a store");
        let mut memory = Memory::default();
        let mut edge = Edge::default();
        let mut next = 0u64;
        for batch in [1, 1, 253, 2, 700, 30_000].into_iter().cycle() {
            for _ in 0..batch {
                let leaf = leaf_hash(&next.to_be_bytes());
                let Memory { frontier, nodes } = &mut memory;
                frontier.push(leaf, |height, index, digest| {
                    nodes.insert((height, index), digest);
                });
                edge.push(leaf);
                next += 1;
            }
            store.append(&[], &edge.rows()).expect("durable");
            assert_eq!(edge.root(), memory.frontier.root());
            edge = Edge::load(&store, next).expect("it can be read");
            assert_eq!(edge.root(), memory.frontier.root());
            if next > ENTRIES {
                break;
            }
        }
        let tiles = Tiles::new(&store);
        for size in [1, 2, 255, 256, 257, 957, 65_536, 65_537, next] {
            assert_eq!(root(size, &tiles).ok(), root(size, &memory).ok(), "{size}");
            for index in [0, size / 3, size - 1] {
                let path = inclusion(index, size, &tiles).expect("it can be read");
                assert_eq!(Ok(path), inclusion(index, size, &memory), "{index} of {size}");
            }
            let path = consistency(size / 2, size, &tiles).expect("it can be read");
            assert_eq!(Ok(path), consistency(size / 2, size, &memory));
        }
        let beyond = Tiles::new(&store).node(0, next);
        assert!(matches!(beyond, Err(LogError::Tile { level: 0, .. })));
    }
}
