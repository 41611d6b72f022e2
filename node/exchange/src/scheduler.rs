//! Which block to ask of whom.
//!
//! A [`Scheduler`] turns "these blocks, from any of these peers" into single requests, and says
//! which blocks nobody can give. Pure: time arrives as an argument, and a request leaves as the
//! value [`Scheduler::next_ask`] returns. The times need a common origin only; the session counts
//! them from its own start by a clock that never jumps.
//!
//! # Shape
//!
//! ```text
//!          next_ask            on_received             on_block
//! Waiting ─────────► Asked{peer} ─────────► Held{peer} ─────────► gone from here: stored
//!  ▲   │               │ on_miss, on_peer_gone, │ on_wrong_bytes
//!  │   │               │ on_timeout             │ (and the peer is never asked again)
//!  │   ▼               ▼                        ▼
//!  │  stuck ◄────── Waiting ◄───────────────────┘
//!  └────┘ add_peer
//! ```
//!
//! # Invariants
//!
//! - A block is asked of one peer at a time, so a wrong byte has exactly one author.
//! - A peer that sent a wrong byte is never asked again.
//! - Every block ends stored or stuck, as long as each request ends in one of the events.
//!
//! # What is not here
//!
//! - No bitmaps, so no rarest first: blocks leave in the order in which they were wanted. The
//!   place for another order is the key of `waiting`.
//! - No measured windows and no end game: the place for them is `Scheduler::choose`.
//!
//! # Bounds
//!
//! [`Options::per_peer`] requests outstanding with a peer, [`Options::total`] blocks outstanding
//! or in memory, [`PEERS_MAX`] peers.

mod events;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dockercomp_protocol::{Cid, NodeId, Timestamp};

use self::peer::{Peer, Standing};

/// Peers that one scheduler takes note of: more would only be more strangers to wait for.
pub const PEERS_MAX: usize = 256;

/// The limits of a [`Scheduler`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Most requests that one peer has open at once.
    pub per_peer: usize,
    /// Most blocks that are asked for, or are here and not yet stored.
    pub total: usize,
    /// A peer with open requests that completes none for this long is taken for gone.
    pub silence_max: Duration,
    /// For how long a peer that says it is busy is left alone.
    pub busy_pause: Duration,
    /// Breaks ties between peers, so that different nodes ask different peers first.
    pub seed: u64,
}

/// Send this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whom to ask.
    pub peer: NodeId,
    /// What to ask for.
    pub block: Cid,
}

/// No known peer can give this block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The first of the blocks that nobody can give.
    pub block: Cid,
    /// Every peer that lacks it, has left, or lied.
    pub tried: Vec<NodeId>,
}

/// Where a block stands. Stored blocks are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody is asked for it.
    Waiting,
    /// The peer was asked and has not answered.
    Asked { peer: NodeId, at: Timestamp },
    /// The peer's answer is here and is being verified and stored.
    Held { peer: NodeId },
}

#[derive(Debug)]
struct Block {
    state: State,
    /// Its place among the blocks that wait.
    order: u64,
    /// Peers that have said that they cannot give it.
    lacking: BTreeSet<NodeId>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Scheduler {
    options: Options,
    blocks: BTreeMap<Cid, Block>,
    /// Blocks in [`State::Waiting`] that some active peer may give, in the order to ask.
    waiting: BTreeSet<(u64, Cid)>,
    /// Blocks in [`State::Waiting`] that no active peer can give.
    stuck: BTreeSet<(u64, Cid)>,
    peers: BTreeMap<NodeId, Peer>,
    /// Blocks that are [`State::Asked`] or [`State::Held`].
    n_open: usize,
    next_order: u64,
}

impl Scheduler {
    /// A scheduler that wants nothing and knows nobody.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            blocks: BTreeMap::new(),
            waiting: BTreeSet::new(),
            stuck: BTreeSet::new(),
            peers: BTreeMap::new(),
            n_open: 0,
            next_order: 0,
        }
    }

    /// Adds a block to those that are to be fetched. Nothing changes if it is among them.
    pub fn want(&mut self, block: Cid) {
        if self.blocks.contains_key(&block) {
            return;
        }
        let order = self.next_order;
        self.next_order += 1;
        self.blocks.insert(block, Block { state: State::Waiting, order, lacking: BTreeSet::new() });
        self.place(block);
    }

    /// Forgets the blocks that are not asked for yet and that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&Cid) -> bool) {
        self.blocks.retain(|block, entry| entry.state != State::Waiting || keep(block));
        self.waiting.retain(|(_, block)| self.blocks.contains_key(block));
        self.stuck.retain(|(_, block)| self.blocks.contains_key(block));
    }

    /// Takes note of a peer that may have the blocks, or may have them by now: one that has left
    /// or lacked something is asked again. `false` if it is not welcome: it has lied, or there
    /// are too many.
    pub fn add_peer(&mut self, peer: NodeId) -> bool {
        let full = self.peers.len() >= PEERS_MAX;
        match self.peers.get_mut(&peer) {
            Some(known) if known.standing == Standing::Liar => return false,
            Some(known) => known.standing = Standing::Active,
            None if full => return false,
            None => {
                self.peers.insert(peer, Peer::new(&peer, self.options.seed));
            }
        }
        for block in self.blocks.values_mut() {
            block.lacking.remove(&peer);
        }
        self.waiting.append(&mut self.stuck);
        true
    }

    /// Gives every peer that has not lied another chance.
    pub fn revive(&mut self) {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.add_peer(peer);
        }
    }

    /// The next request to send, or `None` if none can be sent for now.
    pub fn next_ask(&mut self, now: Timestamp) -> Option<Ask> {
        if self.n_open >= self.options.total {
            return None;
        }
        let (order, ask) = self.choose(now)?;
        self.waiting.remove(&(order, ask.block));
        let entry = self.blocks.get_mut(&ask.block).expect("a block that waits is known");
        entry.state = State::Asked { peer: ask.peer, at: now };
        self.peers.get_mut(&ask.peer).expect("a chosen peer is known").on_asked(now);
        self.n_open += 1;
        Some(ask)
    }

    /// The first waiting block that a peer with a free slot may give, and the best such peer:
    /// the one with the fewest open requests, of those the fastest, of those as the seed says.
    fn choose(&self, now: Timestamp) -> Option<(u64, Ask)> {
        let mut free: Vec<(&NodeId, &Peer)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_free(now) && peer.n_open < self.options.per_peer)
            .collect();
        if free.is_empty() {
            return None;
        }
        free.sort_unstable_by_key(|(_, peer)| (peer.n_open, peer.answer_ms, peer.rank));
        self.waiting.iter().find_map(|(order, block)| {
            let lacking = &self.blocks.get(block)?.lacking;
            let (peer, _) = free.iter().find(|(peer, _)| !lacking.contains(peer))?;
            Some((*order, Ask { peer: **peer, block: *block }))
        })
    }

    /// When [`Self::on_timeout`] or [`Self::next_ask`] is to be called although nothing happened.
    #[must_use]
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let busy = |peer: &Peer| peer.busy_until.filter(|until| *until > now);
        let deadlines = self.peers.values().filter(|peer| peer.standing == Standing::Active);
        deadlines
            .flat_map(|peer| [peer.overdue_at(self.options.silence_max), busy(peer)])
            .flatten()
            .min()
    }

    /// The first block that no peer can give, if there is one.
    #[must_use]
    pub fn stuck(&self) -> Option<Stuck> {
        let (_, block) = self.stuck.first()?;
        Some(Stuck { block: *block, tried: self.peers() })
    }

    /// How many blocks no peer can give.
    #[must_use]
    pub fn n_stuck(&self) -> usize {
        self.stuck.len()
    }

    /// Whether no peer can give this block.
    #[must_use]
    pub fn is_stuck(&self, block: &Cid) -> bool {
        let order = self.blocks.get(block).map(|entry| entry.order);
        order.is_some_and(|order| self.stuck.contains(&(order, *block)))
    }

    /// Every peer that was ever added.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }

    /// Whether the peer has been asked for the block and has not answered.
    #[must_use]
    pub fn is_asked(&self, peer: NodeId, block: &Cid) -> bool {
        self.asked_at(peer, block).is_some()
    }

    fn asked_at(&self, peer: NodeId, block: &Cid) -> Option<Timestamp> {
        match self.blocks.get(block)?.state {
            State::Asked { peer: asked, at } if asked == peer => Some(at),
            State::Waiting | State::Asked { .. } | State::Held { .. } => None,
        }
    }

    /// Files a block that waits under `waiting` or `stuck`.
    fn place(&mut self, block: Cid) {
        let Some(entry) = self.blocks.get(&block) else { return };
        let hope = self.peers.iter().any(|(peer, known)| {
            known.standing == Standing::Active && !entry.lacking.contains(peer)
        });
        let file = if hope { &mut self.waiting } else { &mut self.stuck };
        file.insert((entry.order, block));
    }
}
