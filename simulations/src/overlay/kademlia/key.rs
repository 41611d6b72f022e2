//! Keys: where nodes and contents lie in Kademlia's space.
//!
//! libp2p hashes a peer's id with SHA-256 and compares all 256 bits. Here the first 64 of them
//! stand for the whole: two of 20,000 nodes share them with a probability of 10^-11.

use sha2::{Digest as _, Sha256};

use crate::overlay::chance::Chance;

/// A node, by its number.
pub(super) type NodeId = u32;

/// A place in the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64);

impl Key {
    /// The key of an identity, which the number and the seed stand for.
    pub(super) fn of(seed: u64, kind: &str, number: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(kind.as_bytes());
        hash.update(number.to_le_bytes());
        let hash = hash.finalize();
        let first: [u8; 8] = hash[..8].try_into().expect("eight of 32 bytes");
        Self(u64::from_be_bytes(first))
    }

    pub(super) const fn distance(self, other: Self) -> u64 {
        self.0 ^ other.0
    }

    /// Leading bits in common: the bucket of one in the other's table.
    pub(super) const fn bucket(self, other: Self) -> usize {
        self.distance(other).leading_zeros() as usize
    }

    /// A key that falls into this bucket of this node's table.
    pub(super) fn in_bucket(self, bucket: usize, chance: &mut Chance) -> Self {
        let below = (u64::MAX >> bucket) >> 1;
        let flipped = self.0 ^ (1 << (63 - bucket.min(63)));
        Self((flipped & !below) | (chance.number() & below))
    }
}

/// All nodes in order, to know the truth.
#[derive(Debug)]
pub(super) struct Atlas {
    sorted: Vec<(Key, NodeId)>,
}

impl Atlas {
    pub(super) fn new(nodes: impl Iterator<Item = (Key, NodeId)>) -> Self {
        let mut sorted: Vec<_> = nodes.collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The `n` closest, the closest first.
    pub(super) fn closest(&self, target: Key, n: usize) -> Vec<(Key, NodeId)> {
        let mut all = &self.sorted[..];
        // Whoever shares more leading bits is closer, and they lie side by side.
        for bits in 1..=64u32 {
            let mask = if bits == 64 { u64::MAX } else { !(u64::MAX >> bits) };
            let low = all.partition_point(|(key, _)| key.0 & mask < target.0 & mask);
            let high = all.partition_point(|(key, _)| key.0 & mask <= target.0 & mask);
            if high - low < n {
                break;
            }
            all = &all[low..high];
        }
        let mut near = all.to_vec();
        near.sort_unstable_by_key(|(key, _)| key.distance(target));
        near.truncate(n);
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_bucket_share_exactly_its_bits() {
        let mut chance = Chance::keyed(1, "keys", 0);
        let me = Key::of(1, "node", 0);
        for bucket in 0..64 {
            assert_eq!(me.bucket(me.in_bucket(bucket, &mut chance)), bucket);
        }
    }

    #[test]
    fn the_atlas_finds_whom_a_search_of_all_finds() {
        let nodes: Vec<_> = (0..500).map(|node| (Key::of(2, "node", node.into()), node)).collect();
        let atlas = Atlas::new(nodes.iter().copied());
        for number in 0..50 {
            let target = Key::of(2, "content", number);
            let mut all = nodes.clone();
            all.sort_unstable_by_key(|(key, _)| key.distance(target));
            assert_eq!(atlas.closest(target, 20), all[..20]);
        }
    }
}
