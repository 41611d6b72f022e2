//! Checking proofs: RFC 9162's algorithms, which need no tree.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::node_hash;
use crate::content::{DIGEST_BYTES, Digest};
use crate::limits::LOG_PATH_MAX;

/// The hashes of a proof, from the leaves upwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ByteBuf", into = "ByteBuf")]
pub struct Path(Vec<Digest>);

/// Why a path proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Not a list of hashes, or a longer one than any tree has.
    #[error("{bytes} bytes are not at most {LOG_PATH_MAX} hashes")]
    Bytes {
        /// How many bytes came.
        bytes: usize,
    },
    /// The place is not in a log of that size.
    #[error("place {index} is not in a log of {size} entries")]
    Place {
        /// The leaf's number.
        index: u64,
        /// The log's size.
        size: u64,
    },
    /// The old log is said to be the longer one.
    #[error("a log of {old} entries cannot be the beginning of one of {new}")]
    Order {
        /// The size of the one.
        old: u64,
        /// The size of the other.
        new: u64,
    },
    /// The path has too many or too few hashes for the sizes.
    #[error("the path has {hashes} hashes, which does not fit the size of the log")]
    Length {
        /// How many it has.
        hashes: usize,
    },
    /// The hashes lead to another root.
    #[error("the path does not lead to the root of the log")]
    Root,
}

impl Path {
    /// A path of these hashes.
    #[must_use]
    pub const fn new(hashes: Vec<Digest>) -> Self {
        Self(hashes)
    }

    /// The hashes, one behind the other.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`PathError::Bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        let (hashes, rest) = bytes.as_chunks::<DIGEST_BYTES>();
        if !rest.is_empty() || hashes.len() > LOG_PATH_MAX {
            return Err(PathError::Bytes { bytes: bytes.len() });
        }
        Ok(Self(hashes.to_vec()))
    }

    /// Checks that `leaf` is number `index` of the `size` leaves under `root`. RFC 9162,
    /// 2.1.3.2.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn check_inclusion(
        &self,
        leaf: Digest,
        index: u64,
        size: u64,
        root: &Digest,
    ) -> Result<(), PathError> {
        if index >= size {
            return Err(PathError::Place { index, size });
        }
        let mut climb = Climb { node: index, last: size - 1 };
        let mut hash = leaf;
        for sibling in &self.0 {
            match climb.side().ok_or(PathError::Length { hashes: self.0.len() })? {
                Side::Left => hash = node_hash(sibling, &hash),
                Side::Right => hash = node_hash(&hash, sibling),
            }
        }
        climb.end(self.0.len())?;
        if hash == *root { Ok(()) } else { Err(PathError::Root) }
    }

    /// Checks that the log of `old` entries under `old_root` is the beginning of the log of
    /// `new` entries under `new_root`. RFC 9162, 2.1.4.2.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn check_consistency(
        &self,
        old: u64,
        old_root: &Digest,
        new: u64,
        new_root: &Digest,
    ) -> Result<(), PathError> {
        let length = PathError::Length { hashes: self.0.len() };
        if old > new {
            return Err(PathError::Order { old, new });
        }
        if old == 0 || old == new {
            // Every log begins with nothing and with itself.
            let equal = old == 0 || old_root == new_root;
            return match (self.0.is_empty(), equal) {
                (false, _) => Err(length),
                (true, false) => Err(PathError::Root),
                (true, true) => Ok(()),
            };
        }
        let mut climb = Climb { node: old - 1, last: new - 1 };
        climb.skip(climb.node.trailing_ones());
        let mut hashes = self.0.iter();
        // A power of two is one complete node, its own root.
        let start = if old.is_power_of_two() { old_root } else { hashes.next().ok_or(length)? };
        let (mut old_hash, mut new_hash) = (*start, *start);
        for sibling in hashes {
            match climb.side().ok_or(length)? {
                Side::Left => {
                    old_hash = node_hash(sibling, &old_hash);
                    new_hash = node_hash(sibling, &new_hash);
                }
                Side::Right => new_hash = node_hash(&new_hash, sibling),
            }
        }
        climb.end(self.0.len())?;
        if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(PathError::Root) }
    }
}

/// On which side of the way up the next hash stands.
enum Side {
    Left,
    Right,
}

/// The way from a node up to the root, in a tree whose last node on the same level is known.
struct Climb {
    node: u64,
    last: u64,
}

impl Climb {
    /// Goes up to the next level on which there is a sibling; nothing if this is the root.
    fn side(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.node & 1 == 1 {
            Side::Left
        } else if self.node == self.last {
            // The right edge has no sibling until it is itself a right child.
            self.skip(self.node.trailing_zeros());
            Side::Left
        } else {
            Side::Right
        };
        self.skip(1);
        Some(side)
    }

    fn skip(&mut self, levels: u32) {
        self.node = self.node.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }

    /// The way must have led to the root.
    const fn end(&self, hashes: usize) -> Result<(), PathError> {
        if self.last == 0 { Ok(()) } else { Err(PathError::Length { hashes }) }
    }
}

impl TryFrom<ByteBuf> for Path {
    type Error = PathError;

    fn try_from(bytes: ByteBuf) -> Result<Self, PathError> {
        Self::from_bytes(&bytes)
    }
}

impl From<Path> for ByteBuf {
    fn from(path: Path) -> Self {
        Self::from(path.to_bytes())
    }
}
