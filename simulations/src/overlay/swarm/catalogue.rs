//! The dataset: its blocks by number, and who holds which.

use std::collections::BTreeMap;

use dockercomp_protocol::Cid;
use dockercomp_protocol::content::{block_cid, chunk_cid};
use dockercomp_protocol::limits::INLINE_FILE_BYTES_MAX;

use super::scenario::Dataset;

/// A manifest's bytes for each chunk: its name and its place.
const ENTRY_BYTES: u64 = 40;
/// What a manifest takes besides.
const HEAD_BYTES: u64 = 100;

/// All blocks. Number 0 is the manifest: without it nobody knows the others.
#[derive(Debug)]
pub(super) struct Catalogue {
    blocks: Vec<(Cid, u64)>,
    numbers: BTreeMap<Cid, usize>,
}

impl Catalogue {
    pub(super) fn new(dataset: &Dataset) -> Self {
        let n_chunks = dataset.bytes.div_ceil(dataset.chunk);
        let manifest = (block_cid(b"manifest"), HEAD_BYTES + n_chunks * ENTRY_BYTES);
        let chunk = |number: u64| {
            let bytes = dataset.chunk.min(dataset.bytes - number * dataset.chunk);
            (chunk_cid(&number.to_le_bytes()), bytes)
        };
        let blocks: Vec<(Cid, u64)> =
            std::iter::once(manifest).chain((0..n_chunks).map(chunk)).collect();
        let numbers = blocks.iter().enumerate().map(|(number, (block, _))| (*block, number));
        Self { numbers: numbers.collect(), blocks }
    }

    pub(super) const fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn block(&self, number: usize) -> Cid {
        self.blocks[number].0
    }

    /// `None`: it is none of this dataset's.
    pub(super) fn number(&self, block: &Cid) -> Option<usize> {
        self.numbers.get(block).copied()
    }

    pub(super) fn bytes(&self, number: usize) -> u64 {
        self.blocks[number].1
    }

    /// Whether a server sends it to whoever asks, without a slot.
    pub(super) fn is_small(&self, number: usize) -> bool {
        self.bytes(number) <= INLINE_FILE_BYTES_MAX
    }
}

/// The blocks that a node has.
#[derive(Clone, Debug)]
pub(super) struct Held {
    rows: Vec<bool>,
    n_held: usize,
}

impl Held {
    pub(super) fn new(n_blocks: usize, all: bool) -> Self {
        Self { rows: vec![all; n_blocks], n_held: if all { n_blocks } else { 0 } }
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.rows[number]
    }

    pub(super) fn add(&mut self, number: usize) {
        if !std::mem::replace(&mut self.rows[number], true) {
            self.n_held += 1;
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.n_held == 0
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.n_held == self.rows.len()
    }
}
