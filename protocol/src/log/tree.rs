//! Growing a tree, and making proofs from its complete nodes.

use super::proof::Path;
use super::{empty_root, node_hash};
use crate::content::Digest;

/// The right edge of a tree: all that is needed to append to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The roots of the perfect subtrees that the size splits into, the largest first: one
    /// for each bit that is set in `size`.
    peaks: Vec<Digest>,
}

/// The complete nodes of a tree: those of which all `2^height` leaves are there.
pub trait Nodes {
    /// Why a node cannot be had.
    type Error;

    /// Node number `index` among those of this height; leaves have height 0.
    ///
    /// # Errors
    /// If it cannot be had. Only complete nodes of the tree are asked for.
    fn node(&self, height: u32, index: u64) -> Result<Digest, Self::Error>;
}

impl Frontier {
    /// The right edge of a tree that was kept elsewhere.
    ///
    /// # Errors
    /// Those of `nodes`.
    pub fn restore<N: Nodes>(size: u64, nodes: &N) -> Result<Self, N::Error> {
        let mut peaks = Vec::new();
        let mut begin = 0;
        for height in (0..u64::BITS).rev() {
            if size >> height & 1 == 1 {
                peaks.push(nodes.node(height, begin >> height)?);
                begin += 1 << height;
            }
        }
        Ok(Self { size, peaks })
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and tells of every node that it completes, itself first, with its
    /// height and its number among those of that height.
    pub fn push(&mut self, leaf: Digest, mut completed: impl FnMut(u32, u64, Digest)) {
        let mut node = leaf;
        completed(0, self.size, node);
        let merges = self.size.trailing_ones();
        for height in 1..=merges {
            let left = self.peaks.pop().expect("a peak for each bit that is set in the size");
            node = node_hash(&left, &node);
            completed(height, self.size >> height, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(last, |right, left| node_hash(&left, &right))
    }
}

/// The root of the first `size` leaves.
///
/// # Errors
/// Those of `nodes`.
pub fn root<N: Nodes>(size: u64, nodes: &N) -> Result<Digest, N::Error> {
    if size == 0 { Ok(empty_root()) } else { range(0, size, nodes) }
}

/// The proof that leaf `index` is among the first `size`. RFC 9162, 2.1.3.1.
///
/// # Errors
/// Those of `nodes`.
///
/// # Panics
/// If `index` is not below `size`.
pub fn inclusion<N: Nodes>(index: u64, size: u64, nodes: &N) -> Result<Path, N::Error> {
    assert!(index < size, "leaf {index} is not among the first {size}");
    let mut path = Vec::new();
    let (mut begin, mut end) = (0, size);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            path.push(range(middle, end, nodes)?);
            end = middle;
        } else {
            path.push(range(begin, middle, nodes)?);
            begin = middle;
        }
    }
    path.reverse();
    Ok(Path::new(path))
}

/// The proof that the first `old` leaves are the beginning of the first `new`. RFC 9162,
/// 2.1.4.1.
///
/// # Errors
/// Those of `nodes`.
///
/// # Panics
/// If `old` is greater than `new`.
pub fn consistency<N: Nodes>(old: u64, new: u64, nodes: &N) -> Result<Path, N::Error> {
    assert!(old <= new, "{old} leaves are not the beginning of {new}");
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(Path::new(path));
    }
    let (mut begin, mut end) = (0, new);
    // Until the part that is left ends where the old tree ends.
    while old < end {
        let middle = begin + split(end - begin);
        if old <= middle {
            path.push(range(middle, end, nodes)?);
            end = middle;
        } else {
            path.push(range(begin, middle, nodes)?);
            begin = middle;
        }
    }
    // The old root itself is known to whoever checks.
    if begin != 0 {
        path.push(range(begin, end, nodes)?);
    }
    path.reverse();
    Ok(Path::new(path))
}

/// The root of leaves `begin..end`, which is a subtree that the algorithms above split off.
fn range<N: Nodes>(begin: u64, end: u64, nodes: &N) -> Result<Digest, N::Error> {
    let leaves = end - begin;
    if leaves.is_power_of_two() {
        let height = leaves.trailing_zeros();
        return nodes.node(height, begin >> height);
    }
    let middle = begin + split(leaves);
    Ok(node_hash(&range(begin, middle, nodes)?, &range(middle, end, nodes)?))
}

/// The largest power of two below `leaves`, which is at least 2.
const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::log::leaf_hash;

    /// A tree by definition: all leaves, everything computed anew.
    struct Naive(Vec<Digest>);

    impl Naive {
        fn new(leaves: u64) -> Self {
            Self((0..leaves).map(|number| leaf_hash(&number.to_be_bytes())).collect())
        }

        /// RFC 9162, 2.1.1, word for word.
        fn root_of(leaves: &[Digest]) -> Digest {
            match leaves {
                [] => empty_root(),
                [leaf] => *leaf,
                _ => {
                    let mut k = 1;
                    while k * 2 < leaves.len() {
                        k *= 2;
                    }
                    node_hash(&Self::root_of(&leaves[..k]), &Self::root_of(&leaves[k..]))
                }
            }
        }
    }

    impl Nodes for Naive {
        type Error = Infallible;

        fn node(&self, height: u32, index: u64) -> Result<Digest, Infallible> {
            let from = usize::try_from(index << height).expect("small");
            Ok(Self::root_of(&self.0[from..from + (1 << height)]))
        }
    }

    fn small(number: u64) -> usize {
        usize::try_from(number).expect("small")
    }

    #[test]
    fn roots_are_golden() {
        insta::assert_snapshot!(hex::encode(empty_root()), @"1967ad47552475d56ab6bf3b8ae90e5fbb9abb9298fb70a7350b8ecffb6762b4");
        insta::assert_snapshot!(hex::encode(Naive::root_of(&Naive::new(1).0)), @"ef19270eb431a886a8e53f6a5f3292af85c4dc99cce17ca0e1775d593dbfd19c");
        insta::assert_snapshot!(hex::encode(Naive::root_of(&Naive::new(7).0)), @"9a1ee7507481bad01d446c7b4012208b793de6d7751ac4ecd99977372d6f0563");
    }

    #[test]
    fn growing_gives_the_roots_and_nodes_of_the_definition() {
        let naive = Naive::new(70);
        let mut frontier = Frontier::default();
        for size in 0..70 {
            assert_eq!(frontier.size(), size);
            let expected = Naive::root_of(&naive.0[..small(size)]);
            assert_eq!(frontier.root(), expected);
            assert_eq!(root(size, &naive), Ok(expected));
            assert_eq!(Frontier::restore(size, &naive).as_ref(), Ok(&frontier));
            frontier.push(naive.0[small(size)], |height, index, digest| {
                assert_eq!(Ok(digest), naive.node(height, index), "{height} {index}");
            });
        }
    }

    proptest! {
        #[test]
        fn inclusion_holds_for_the_leaf_and_place_it_was_made_for(
            (size, index) in (1u64..200).prop_flat_map(|size| (Just(size), 0..size)),
            other in 0u64..200,
        ) {
            let naive = Naive::new(200);
            let root = Naive::root_of(&naive.0[..small(size)]);
            let path = inclusion(index, size, &naive).expect("infallible");
            let leaf = naive.0[small(index)];
            prop_assert!(path.check_inclusion(leaf, index, size, &root).is_ok());
            let another = naive.0[small(other)];
            prop_assert_eq!(
                path.check_inclusion(another, index, size, &root).is_ok(),
                other == index
            );
            if other != index {
                prop_assert!(path.check_inclusion(leaf, other, size, &root).is_err());
            }
        }

        #[test]
        fn consistency_holds_between_a_log_and_its_beginning_only(
            (new, old) in (1u64..200).prop_flat_map(|new| (Just(new), 0..=new)),
            changed in 0usize..200,
        ) {
            let naive = Naive::new(200);
            let path = consistency(old, new, &naive).expect("infallible");
            let [old_root, new_root] =
                [old, new].map(|size| Naive::root_of(&naive.0[..small(size)]));
            prop_assert!(path.check_consistency(old, &old_root, new, &new_root).is_ok());
            // A history that was rewritten before `old`, with the best proof it can give.
            let mut forked = Naive::new(200);
            forked.0[changed] = leaf_hash(b"rewritten");
            let forked_root = Naive::root_of(&forked.0[..small(new)]);
            let best = consistency(old, new, &forked).expect("infallible");
            let accepted = best.check_consistency(old, &old_root, new, &forked_root).is_ok();
            prop_assert_eq!(accepted, changed >= small(old));
            if forked_root != new_root {
                prop_assert_eq!(
                    path.check_consistency(old, &old_root, new, &forked_root).is_ok(),
                    old == 0
                );
            }
        }

        #[test]
        fn a_changed_path_proves_nothing(
            (size, index) in (2u64..200).prop_flat_map(|size| (Just(size), 0..size)),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let naive = Naive::new(200);
            let root = Naive::root_of(&naive.0[..small(size)]);
            let path = inclusion(index, size, &naive).expect("infallible");
            let mut bytes = path.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let changed = Path::from_bytes(&bytes).expect("whole hashes");
            let leaf = naive.0[small(index)];
            prop_assert!(changed.check_inclusion(leaf, index, size, &root).is_err());
            bytes.truncate(bytes.len() - 32);
            let shorter = Path::from_bytes(&bytes).expect("whole hashes");
            prop_assert!(shorter.check_inclusion(leaf, index, size, &root).is_err());
        }
    }
}
