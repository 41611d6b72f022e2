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
//!  └────┘ add_peer, on_map, on_have
//! ```
//!
//! # Which block
//!
//! What leads to others (the manifest) first, in order; then the block that the fewest peers
//! hold of those that say which ones they hold, and of equals any, as the seed says: nodes that
//! begin together so fetch different blocks, and have something to give each other.
//!
//! # Of whom
//!
//! Of a peer that may have it and has room in its window, the one with the fewest open requests.
//! A peer may have a block if it said so ([`Scheduler::on_map`]), or said nothing at all. A
//! window grows while answers come at once, and shrinks while they queue.
//!
//! # End game
//!
//! When nothing waits and at most [`END_GAME_MAX`] blocks are missing, one that is late is asked
//! of another peer as well: a chunk of [`CHUNK_ASKED_MAX`], a block of the manifest of one more
//! each time that it is late again, because nothing can be done without it and providers may be
//! silent. The first answer counts; [`Scheduler::next_stop`] names the other requests.
//!
//! # Invariants
//!
//! - Outside the end game a block is asked of one peer at a time; the bytes that are kept come
//!   from one in any case, so a wrong byte has exactly one author.
//! - A peer that sent a wrong byte, or broke its word about what it holds more than
//!   [`BROKEN_MAX`] times, is never asked again.
//! - Every block ends stored or stuck, as long as each request ends in one of the events.
//!
//! # Bounds
//!
//! [`Options::per_peer`] requests outstanding with a peer, [`Options::total`] blocks outstanding
//! or in memory, [`PEERS_MAX`] peers.

mod events;
mod maps;
mod peer;
mod peers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dockercomp_protocol::content::RAW;
use dockercomp_protocol::{Cid, NodeId, Timestamp};

pub use self::maps::List;
use self::peer::{Peer, Said, Standing};
use self::peers::{PeerSet, Peers};
use crate::rank;

/// Peers that one scheduler takes note of: more would only be more strangers to wait for.
pub const PEERS_MAX: usize = 256;
/// Blocks that are missing when a late one is asked of a second peer.
pub const END_GAME_MAX: usize = 8;
/// Peers that are asked for one chunk at once.
pub const CHUNK_ASKED_MAX: usize = 2;
/// How often a peer may lack a block that it said it holds: it may have lost some, and as many
/// requests as it has open come back at once when it has lost all.
pub const BROKEN_MAX: usize = 32;
/// In the end game, a block is late after this time and twice what another peer takes.
const LATE_MIN: Duration = Duration::from_secs(1);

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
    /// Breaks ties between peers and between blocks, so that different nodes ask different
    /// peers for different blocks first.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            per_peer: 16,
            total: 64,
            // One chunk of 1 MiB may come at 35 kB/s.
            silence_max: Duration::from_secs(30),
            busy_pause: Duration::from_millis(250),
            seed: 0,
        }
    }
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

/// A request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    peer: NodeId,
    at: Timestamp,
}

/// Where a block stands. Stored blocks are forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nobody is asked for it.
    Waiting,
    /// A peer was asked, in the end game others after it, and none has answered.
    Asked(Vec<Asked>),
    /// The peer's answer is here and is being verified and stored.
    Held { peer: NodeId },
}

/// A block's place among those that wait: the least is asked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Whether it is a chunk. Blocks of the manifest come before.
    is_chunk: bool,
    /// Peers that have said that they hold it.
    n_holders: u32,
    tie: u64,
}

#[derive(Debug)]
struct Block {
    state: State,
    place: Place,
    /// The first of our lists that named it; 0 for none.
    list: u32,
    /// Peers whose maps have it.
    holders: PeerSet,
    /// Peers that have said that they cannot give it.
    lacking: PeerSet,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Scheduler {
    options: Options,
    blocks: BTreeMap<Cid, Block>,
    /// Blocks in [`State::Waiting`] that some active peer may give, in the order to ask.
    waiting: BTreeSet<(Place, Cid)>,
    /// Blocks in [`State::Waiting`] that no active peer can give.
    stuck: BTreeSet<(Place, Cid)>,
    peers: Peers,
    /// Blocks that are [`State::Asked`] or [`State::Held`].
    n_open: usize,
    /// Requests whose answers are not needed any more.
    stops: VecDeque<Ask>,
    next_order: u64,
    /// Number of the newest list.
    list: u32,
    /// Blocks that no list has named.
    n_unlisted: usize,
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
            peers: Peers::default(),
            n_open: 0,
            stops: VecDeque::new(),
            next_order: 0,
            list: 0,
            n_unlisted: 0,
        }
    }

    /// Adds a block to those that are to be fetched. Nothing changes if it is among them.
    pub fn want(&mut self, block: Cid) {
        if self.blocks.contains_key(&block) {
            return;
        }
        let is_chunk = block.codec() == RAW;
        let tie =
            if is_chunk { rank(block.hash().digest(), self.options.seed) } else { self.next_order };
        self.next_order += 1;
        self.n_unlisted += 1;
        let entry = Block {
            state: State::Waiting,
            place: Place { is_chunk, n_holders: 0, tie },
            list: 0,
            holders: PeerSet::default(),
            lacking: PeerSet::default(),
        };
        self.blocks.insert(block, entry);
        self.place(block);
    }

    /// Forgets the blocks that are not asked for yet and that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&Cid) -> bool) {
        self.blocks.retain(|block, entry| entry.state != State::Waiting || keep(block));
        self.waiting.retain(|(_, block)| self.blocks.contains_key(block));
        self.stuck.retain(|(_, block)| self.blocks.contains_key(block));
        self.n_unlisted = self.blocks.values().filter(|entry| entry.list == 0).count();
    }

    /// How many blocks are to be fetched, those on their way included.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Takes note of a peer that may have the blocks, or may have them by now: one that has left
    /// or lacked something is asked again. `false` if it is not welcome: it has lied, or there
    /// are too many.
    pub fn add_peer(&mut self, peer: NodeId) -> bool {
        let is_welcome = self.take_back(peer);
        self.replace_all();
        is_welcome
    }

    /// Gives every peer that has not lied another chance.
    pub fn revive(&mut self) {
        for peer in self.peers() {
            self.take_back(peer);
        }
        self.replace_all();
    }

    fn take_back(&mut self, peer: NodeId) -> bool {
        let Some(number) = self.peers.add(peer, self.options.seed) else { return false };
        let known = self.peers.by_number(number);
        if known.standing == Standing::Liar {
            return false;
        }
        known.standing = Standing::Active;
        for block in self.blocks.values_mut() {
            block.lacking.remove(number);
        }
        true
    }

    /// The next request to send, or `None` if none can be sent for now.
    pub fn next_ask(&mut self, now: Timestamp) -> Option<Ask> {
        let ask = self.next_first(now).or_else(|| self.next_late(now))?;
        self.peers.get_mut(&ask.peer).expect("a chosen peer is known").on_asked(now);
        Some(ask)
    }

    /// The first waiting block that a peer with a free place in its window may give, and the
    /// best such peer.
    fn next_first(&mut self, now: Timestamp) -> Option<Ask> {
        if self.n_open >= self.options.total {
            return None;
        }
        let free = self.free(now);
        if free.is_empty() {
            return None;
        }
        let (anything, listed) = self.by_what_they_say();
        let (place, ask) = self.waiting.iter().find_map(|(place, block)| {
            let may_give = self.blocks.get(block)?.may_give(anything, listed);
            let peer = self.peers.best(free & may_give)?;
            Some((*place, Ask { peer: peer.id, block: *block }))
        })?;
        self.waiting.remove(&(place, ask.block));
        let entry = self.blocks.get_mut(&ask.block).expect("a block that waits is known");
        entry.state = State::Asked(vec![Asked { peer: ask.peer, at: now }]);
        self.n_open += 1;
        Some(ask)
    }

    /// In the end game, a late block and another peer that may give it.
    fn next_late(&mut self, now: Timestamp) -> Option<Ask> {
        let (ask, _) = self.late(now).into_iter().find(|(_, late_at)| *late_at <= now)?;
        let entry = self.blocks.get_mut(&ask.block)?;
        if let State::Asked(asked) = &mut entry.state {
            asked.push(Asked { peer: ask.peer, at: now });
        }
        Some(ask)
    }

    /// Blocks of the end game, whom else to ask for them, and when.
    fn late(&self, now: Timestamp) -> Vec<(Ask, Timestamp)> {
        let is_end = self.waiting.is_empty() && self.blocks.len() <= END_GAME_MAX;
        if !is_end || self.n_open == 0 {
            return Vec::new();
        }
        let free = self.free(now);
        let (anything, listed) = self.by_what_they_say();
        let late = |(block, entry): (&Cid, &Block)| {
            let State::Asked(asked) = &entry.state else { return None };
            if entry.place.is_chunk && asked.len() >= CHUNK_ASKED_MAX {
                return None;
            }
            let mut may_give = free & entry.may_give(anything, listed);
            for Asked { peer, .. } in asked {
                may_give.remove(self.peers.number(peer)?);
            }
            let other = self.peers.best(may_give)?;
            let patience = LATE_MIN + Duration::from_millis(other.answer_ms.saturating_mul(2));
            Some((Ask { peer: other.id, block: *block }, asked.last()?.at + patience))
        };
        self.blocks.iter().filter_map(late).collect()
    }

    /// A request whose answer is not needed any more.
    pub fn next_stop(&mut self) -> Option<Ask> {
        self.stops.pop_front()
    }

    /// When [`Self::on_timeout`] or [`Self::next_ask`] is to be called although nothing happened.
    #[must_use]
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let busy = |peer: &Peer| peer.busy_until.filter(|until| *until > now);
        let active = self.peers.iter().filter(|peer| peer.standing == Standing::Active);
        let of_peers =
            active.flat_map(|peer| [peer.overdue_at(self.options.silence_max), busy(peer)]);
        let late = self.late(now).into_iter().map(|(_, at)| Some(at));
        of_peers.chain(late).flatten().min()
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
        let place = self.blocks.get(block).map(|entry| entry.place);
        place.is_some_and(|place| self.stuck.contains(&(place, *block)))
    }

    /// Every peer that was ever added.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        self.peers.iter().map(|peer| peer.id).collect()
    }

    /// Whether the peer was ever added.
    #[must_use]
    pub fn knows(&self, peer: &NodeId) -> bool {
        self.peers.get(peer).is_some()
    }

    /// Whether the peer has been asked for the block and has not answered.
    #[must_use]
    pub fn is_asked(&self, peer: NodeId, block: &Cid) -> bool {
        self.asked_at(peer, block).is_some()
    }

    fn asked_at(&self, peer: NodeId, block: &Cid) -> Option<Timestamp> {
        let State::Asked(asked) = &self.blocks.get(block)?.state else { return None };
        asked.iter().find(|asked| asked.peer == peer).map(|asked| asked.at)
    }

    fn free(&self, now: Timestamp) -> PeerSet {
        self.peers.which(|peer| peer.is_free(now, self.options.per_peer))
    }

    /// Active peers that may have anything, and those that have answered lists.
    fn by_what_they_say(&self) -> (PeerSet, PeerSet) {
        let lists = |peer: &Peer| matches!(peer.said, Said::Lists(_));
        let is_active = |peer: &Peer| peer.standing == Standing::Active;
        let anything = self.peers.which(|peer| is_active(peer) && !lists(peer));
        (anything, self.peers.which(|peer| is_active(peer) && lists(peer)))
    }

    /// Files a block that waits under `waiting` or `stuck`.
    fn place(&mut self, block: Cid) {
        let sets = self.by_what_they_say();
        self.place_by(block, sets);
    }

    fn place_by(&mut self, block: Cid, (anything, listed): (PeerSet, PeerSet)) {
        let Some(entry) = self.blocks.get_mut(&block) else { return };
        if entry.state != State::Waiting {
            return;
        }
        self.waiting.remove(&(entry.place, block));
        self.stuck.remove(&(entry.place, block));
        entry.place.n_holders = (entry.holders & listed).len();
        // A peer that has not answered the list may yet say that it has it.
        let list = entry.list;
        let may_say = self.peers.which(|peer| match peer.said {
            Said::Lists(heard) => peer.standing == Standing::Active && heard < list,
            Said::Nothing | Said::All => false,
        });
        let hope = entry.may_give(anything, listed) | (may_say & !entry.lacking);
        let file = if hope.is_empty() { &mut self.stuck } else { &mut self.waiting };
        file.insert((entry.place, block));
    }

    /// Files all blocks that wait anew, after what is known of a peer has changed.
    fn replace_all(&mut self) {
        let sets = self.by_what_they_say();
        let waiting = std::mem::take(&mut self.waiting);
        let stuck = std::mem::take(&mut self.stuck);
        for (_, block) in waiting.into_iter().chain(stuck) {
            self.place_by(block, sets);
        }
    }
}

impl Block {
    /// Those of the peers that may give it: who says which blocks they hold is believed, the
    /// others may have anything.
    fn may_give(&self, anything: PeerSet, listed: PeerSet) -> PeerSet {
        let said = if self.list == 0 { listed } else { listed & self.holders };
        (anything | said) & !self.lacking
    }
}
