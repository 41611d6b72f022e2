//! The log of a project: an append-only Merkle tree over all accepted work units, in the
//! order of their acceptance.
//!
//! The shape of the tree and of its proofs is RFC 6962's (and RFC 9162's), the hash is
//! BLAKE3 with a key of its own for leaves and for inner nodes, so that a leaf can never be
//! taken for a node, nor either for a block of content.
//!
//! ```text
//! leaf = BLAKE3(LEAF_KEY, entry)            entry: what a receipt says of one work unit
//! node = BLAKE3(NODE_KEY, left | right)
//! root of 0 leaves = BLAKE3(NODE_KEY, "")
//! root of n leaves = node(root of the first k, root of the rest),  k < n a power of two, largest
//! ```
//!
//! A coordinator signs a [`Head`] (size, root, time) for each batch that it commits, and
//! announces heads as [`HeadNotice`]s. Whoever has seen a head can hold the coordinator to
//! it: an inclusion [`Path`] shows that an entry is under a root, a consistency [`Path`] that
//! one head's log begins with the other's.
//!
//! # What is not here
//!
//! No storage: whoever keeps a log gives access to its complete nodes through [`Nodes`].
//!
//! # Bounds
//!
//! A path has at most [`LOG_PATH_MAX`](crate::limits::LOG_PATH_MAX) hashes.

mod head;
mod proof;
mod tree;

pub use self::head::{Head, HeadError, HeadNotice, Notice};
pub use self::proof::{Path, PathError};
pub use self::tree::{Frontier, Nodes, consistency, inclusion, root};

use crate::content::Digest;

const LEAF_KEY: &[u8; 32] = b"dockercomp receipt log leaf 2026";
const NODE_KEY: &[u8; 32] = b"dockercomp receipt log node 2026";

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    *blake3::keyed_hash(LEAF_KEY, entry).as_bytes()
}

/// The hash of an inner node.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    *blake3::keyed_hash(NODE_KEY, &both).as_bytes()
}

/// The root of a log without entries.
#[must_use]
pub fn empty_root() -> Digest {
    *blake3::keyed_hash(NODE_KEY, &[]).as_bytes()
}
