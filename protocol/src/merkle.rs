//! Merkle trees: one hash that stands for a list, and short proofs of what is in it.
//!
//! The shape is RFC 6962's: leaves are paired from the left, and a node without a partner
//! moves up as it is. Hashes are BLAKE3, keyed with what they are for ([`Domain`]): a leaf
//! cannot pass for an inner node, nor a tree of one kind for another.
//!
//! ```text
//!        root
//!       /    \
//!      ab     c        the path of b: a, c
//!     /  \     \       the path of c: ab
//!    a    b     c
//! ```

use crate::content::{DIGEST_BYTES, Digest};

/// What the hashes of one kind of tree are keyed with.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// For leaves.
    pub leaf: &'static [u8; 32],
    /// For inner nodes.
    pub inner: &'static [u8; 32],
}

impl Domain {
    /// The hash of a leaf.
    #[must_use]
    pub fn leaf(&self, bytes: &[u8]) -> Digest {
        *blake3::keyed_hash(self.leaf, bytes).as_bytes()
    }

    /// The hash of an inner node.
    #[must_use]
    pub fn inner(&self, left: &Digest, right: &Digest) -> Digest {
        let mut both = [0; 2 * DIGEST_BYTES];
        both[..DIGEST_BYTES].copy_from_slice(left);
        both[DIGEST_BYTES..].copy_from_slice(right);
        *blake3::keyed_hash(self.inner, &both).as_bytes()
    }

    /// The root that a path leads to from leaf number `index` of `n`; nothing if the path is
    /// not as long as it must be there.
    #[must_use]
    pub fn climb(&self, leaf: Digest, index: u64, n: u64, path: &[Digest]) -> Option<Digest> {
        if index >= n {
            return None;
        }
        let (mut node, mut index, mut width) = (leaf, index, n);
        let mut path = path.iter();
        while width > 1 {
            if index % 2 == 1 {
                node = self.inner(path.next()?, &node);
            } else if index + 1 < width {
                node = self.inner(&node, path.next()?);
            }
            index /= 2;
            width = width.div_ceil(2);
        }
        path.next().is_none().then_some(node)
    }
}

/// A whole tree, to make many paths of.
#[derive(Clone, Debug)]
pub struct Tree {
    /// From the leaves up; the last has one node, the root.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over these leaves; nothing if there are none.
    #[must_use]
    pub fn new(domain: &Domain, leaves: Vec<Digest>) -> Option<Self> {
        let mut below = leaves;
        if below.is_empty() {
            return None;
        }
        let mut levels = Vec::new();
        while below.len() > 1 {
            let pair = |pair: &[Digest]| match pair {
                [left, right] => domain.inner(left, right),
                alone => alone[0],
            };
            let above = below.chunks(2).map(pair).collect();
            levels.push(std::mem::replace(&mut below, above));
        }
        levels.push(below);
        Some(Self { levels })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels[self.levels.len() - 1][0]
    }

    /// The partners of leaf number `index` on the way up.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<Digest> {
        let partner = |(height, level): (usize, &Vec<Digest>)| {
            let at = index >> height;
            level.get(at ^ 1).copied()
        };
        self.levels.iter().enumerate().filter_map(partner).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: Domain = Domain { leaf: &[1; 32], inner: &[2; 32] };

    fn leaves(n: usize) -> Vec<Digest> {
        (0..n).map(|number| DOMAIN.leaf(&number.to_be_bytes())).collect()
    }

    /// RFC 6962, section 2.1, word for word: split at the largest power of two below n.
    fn by_definition(leaves: &[Digest]) -> Digest {
        if let [leaf] = leaves {
            return *leaf;
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        DOMAIN.inner(&by_definition(left), &by_definition(right))
    }

    #[test]
    fn the_shape_is_the_standards() {
        for n in 1..70 {
            let tree = Tree::new(&DOMAIN, leaves(n)).expect("leaves");
            assert_eq!(tree.root(), by_definition(&leaves(n)), "{n} leaves");
        }
        assert!(Tree::new(&DOMAIN, vec![]).is_none());
    }

    proptest! {
        /// A path proves its own leaf, at its own place, in a tree of its own size; nothing else.
        #[test]
        fn a_path_proves_one_leaf(n in 1_usize..70, at in any::<prop::sample::Index>(), other in 0_u64..80, size in 1_u64..80) {
            let index = at.index(n);
            let leaves = leaves(n);
            let tree = Tree::new(&DOMAIN, leaves.clone()).expect("leaves");
            let path = tree.path(index);
            let root = Some(tree.root());
            let (at, n) = (index as u64, n as u64);
            prop_assert_eq!(DOMAIN.climb(leaves[index], at, n, &path), root);
            if other != at {
                prop_assert_ne!(DOMAIN.climb(leaves[index], other, n, &path), root);
            }
            for (number, leaf) in leaves.iter().enumerate().filter(|(number, _)| *number != index) {
                prop_assert_ne!(DOMAIN.climb(*leaf, at, n, &path), root, "leaf {}", number);
            }
            // Sizes with another way up from this place are refused; the size itself is
            // signed beside the root.
            let way = |size: u64| (0..64).map(|height| {
                let (at, width) = (at >> height, size.div_ceil(1 << height));
                if width <= 1 { 'x' } else if at % 2 == 1 { 'l' } else if at + 1 < width { 'r' } else { '-' }
            }).filter(|step| "lr".contains(*step)).collect::<String>();
            if at >= size || way(size) != way(n) {
                prop_assert_ne!(DOMAIN.climb(leaves[index], at, size, &path), root);
            }
        }

        #[test]
        fn a_longer_or_shorter_path_is_refused(n in 1_usize..70, at in any::<prop::sample::Index>()) {
            let index = at.index(n);
            let tree = Tree::new(&DOMAIN, leaves(n)).expect("leaves");
            let leaf = leaves(n)[index];
            let mut path = tree.path(index);
            path.push([0; DIGEST_BYTES]);
            prop_assert_eq!(DOMAIN.climb(leaf, index as u64, n as u64, &path), None);
            path.pop();
            if path.pop().is_some() {
                prop_assert_eq!(DOMAIN.climb(leaf, index as u64, n as u64, &path), None);
            }
        }
    }
}
