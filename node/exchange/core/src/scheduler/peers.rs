//! All peers of a scheduler, numbered, and sets of them.
//!
//! A peer keeps its number for as long as the scheduler lives, so what is known of a block is a
//! few words of bits, and a walk over a thousand blocks costs microseconds.

use std::collections::BTreeMap;
use std::ops::{BitAnd, BitOr, Not};

use dockercomp_protocol::NodeId;

use super::PEERS_MAX;
use super::peer::Peer;

const WORDS: usize = PEERS_MAX / 64;

/// A set of peers, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerSet([u64; WORDS]);

impl PeerSet {
    pub(super) fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(super) fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|word| with(self.0[word], other.0[word])))
    }
}

impl BitAnd for PeerSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.zip(other, |one, other| one & other)
    }
}

impl BitOr for PeerSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.zip(other, |one, other| one | other)
    }
}

impl Not for PeerSet {
    type Output = Self;

    fn not(self) -> Self {
        self.zip(self, |word, _| !word)
    }
}

/// Every peer that was ever added. Its index is its number.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: Vec<Peer>,
    numbers: BTreeMap<NodeId, usize>,
}

impl Peers {
    /// The peer's number. `None`: it is not known, and there are too many.
    pub(super) fn add(&mut self, id: NodeId, seed: u64) -> Option<usize> {
        if let Some(number) = self.numbers.get(&id) {
            return Some(*number);
        }
        let number = self.all.len();
        if number >= PEERS_MAX {
            return None;
        }
        self.all.push(Peer::new(id, seed));
        self.numbers.insert(id, number);
        Some(number)
    }

    pub(super) fn number(&self, id: &NodeId) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Peer> {
        self.number(id).map(|number| &self.all[number])
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Peer> {
        self.number(id).map(|number| &mut self.all[number])
    }

    pub(super) fn by_number(&mut self, number: usize) -> &mut Peer {
        &mut self.all[number]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter()
    }

    /// Those for which this holds.
    pub(super) fn which(&self, holds: impl Fn(&Peer) -> bool) -> PeerSet {
        let mut set = PeerSet::default();
        for (number, peer) in self.all.iter().enumerate() {
            if holds(peer) {
                set.insert(number);
            }
        }
        set
    }

    /// The best of a set.
    pub(super) fn best(&self, of: PeerSet) -> Option<&Peer> {
        let all = self.all.iter().enumerate();
        let chosen = all.filter(|(number, _)| of.contains(*number)).map(|(_, peer)| peer);
        chosen.min_by_key(|peer| peer.merit())
    }
}
