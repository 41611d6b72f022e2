//! Which members of a swarm to ask what they hold, and what to make of their answers.
//!
//! ```text
//! told of a peer ──► candidate ──watch──► asked what it holds ──on_news──► asked for blocks
//! ```
//!
//! A provider that the caller named is asked for blocks whatever it says; everybody else only
//! after saying that there is something to be had.
//!
//! What a peer says of others costs it nothing, so few are believed of one, and few of all. One
//! that cannot be reached, as behind most routers, or has left, makes room for the next that was
//! told of; but nobody sends a session on more than [`ERRANDS_PER_TELLER_MAX`] such errands, and
//! all together on [`ERRANDS_MAX`].
//!
//! # Bounds
//!
//! [`WATCHED_MAX`] peers that are asked what they hold, [`LEARNED_MAX`] members learned from
//! others, [`LEARNED_PER_TELLER_MAX`] of them from one, [`TOLD_MAX`] of each of [`TELLERS_MAX`]
//! tellers that wait for a place, [`ERRANDS_MAX`] that were tried in vain, and the last
//! `LISTS_KEPT` lists.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use dockercomp_protocol::wire::swarm::{News, marked};
use dockercomp_protocol::wire::work::HintPeer;
use dockercomp_protocol::{Cid, NodeId};

use crate::rank;
use crate::scheduler::{List, Scheduler};

/// With so few blocks missing it is not worth a stream to ask who has them.
const WORTH_ASKING: usize = 4;
/// Peers that are asked what they hold at once.
pub const WATCHED_MAX: usize = 64;
/// Peers that may have something and have not said so.
const CANDIDATES_MAX: usize = 128;
/// Members that are learned from others.
pub const LEARNED_MAX: usize = 64;
/// Members that are learned from one.
pub const LEARNED_PER_TELLER_MAX: usize = 32;
/// Members that a session ever takes note of because one peer told of them.
pub const ERRANDS_PER_TELLER_MAX: usize = 128;
/// The same of all peers together.
pub const ERRANDS_MAX: usize = 1024;
/// Members that one peer told of and that wait for a place.
pub const TOLD_MAX: usize = 64;
/// Peers that may tell of others.
pub const TELLERS_MAX: usize = 256;
/// Lists whose answers may still be on their way.
const LISTS_KEPT: usize = 4;

/// News about a list that was never sent, or that do not fit it: the peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("news that fit no list of ours")]
pub struct NotOurs;

/// What a session has to do so that it hears of everybody.
#[derive(Debug, Default)]
pub struct Watch {
    /// Peers to begin to ask.
    pub begin: Vec<NodeId>,
    /// A list to send to all that are asked, those in `begin` included.
    pub list: Option<Arc<List>>,
}

/// The members of a swarm that a session knows.
#[derive(Debug, Default)]
pub struct Members {
    /// Peers that are asked what they hold, or soon will be.
    watched: BTreeSet<NodeId>,
    /// Peers that are asked for blocks only after they said that they have some.
    candidates: BTreeSet<NodeId>,
    /// Members that are believed in, and who told of each.
    learned: BTreeMap<NodeId, NodeId>,
    /// Who told of members.
    tellers: BTreeMap<NodeId, Teller>,
    /// Members that could not be reached.
    in_vain: BTreeSet<NodeId>,
    kept: VecDeque<Arc<List>>,
}

/// A peer that told of others.
#[derive(Debug, Default)]
struct Teller {
    /// Members of its that were ever believed in.
    n_errands: usize,
    /// Members of its that wait for a place.
    told: VecDeque<HintPeer>,
}

/// A list, and those of its blocks that a peer holds.
type Marked = (Arc<List>, Vec<Cid>);

/// Of all members, those that an asker was not told of yet, in the order to tell them: `seed`, the
/// teller's own, and the asker make it another for each two, so that not all turn to the same few.
#[must_use]
pub fn to_tell(
    all: impl IntoIterator<Item = NodeId>,
    told: &BTreeSet<NodeId>,
    asker: &NodeId,
    seed: u64,
) -> Vec<NodeId> {
    let seed = rank(&asker.to_bytes(), seed);
    let fresh = all.into_iter().filter(|member| member != asker && !told.contains(member));
    let mut fresh: Vec<(u64, NodeId)> =
        fresh.map(|member| (rank(&member.to_bytes(), seed), member)).collect();
    fresh.sort_unstable();
    fresh.into_iter().map(|(_, member)| member).collect()
}

impl Members {
    /// Whom to begin to ask, if there is much to be had, and what.
    pub fn watch(&mut self, scheduler: &mut Scheduler, is_liar: impl Fn(&NodeId) -> bool) -> Watch {
        if scheduler.n_blocks() <= WORTH_ASKING && self.watched.is_empty() {
            return Watch::default();
        }
        let mut begin = Vec::new();
        for peer in scheduler.peers().into_iter().chain(self.candidates.iter().copied()) {
            let is_full = self.watched.len() >= WATCHED_MAX;
            if !is_full && !is_liar(&peer) && self.watched.insert(peer) {
                begin.push(peer);
            }
        }
        let list = scheduler.new_list().map(Arc::new);
        if let Some(list) = &list {
            self.kept.push_back(Arc::clone(list));
            if self.kept.len() > LISTS_KEPT {
                self.kept.pop_front();
            }
        }
        Watch { begin, list }
    }

    /// The newest list; none before the first.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<List>> {
        self.kept.back()
    }

    /// A peer may have some of the dataset, or will have.
    pub fn add_candidate(&mut self, scheduler: &Scheduler, peer: NodeId) {
        let is_full = self.candidates.len() >= CANDIDATES_MAX;
        if scheduler.knows(&peer) || is_full {
            self.learned.remove(&peer);
        } else {
            self.candidates.insert(peer);
        }
    }

    /// The peer is asked for blocks whatever it says.
    pub fn forget_candidate(&mut self, peer: &NodeId) {
        self.candidates.remove(peer);
    }

    /// The peer says no more, or could not be reached. Then there may be room for another
    /// ([`Self::next_believed`]).
    pub fn on_closed(&mut self, scheduler: &mut Scheduler, peer: NodeId) {
        self.watched.remove(&peer);
        self.candidates.remove(&peer);
        if self.learned.remove(&peer).is_some() && !scheduler.knows(&peer) {
            self.in_vain.insert(peer);
        }
        scheduler.on_quiet(peer);
    }

    /// Nobody knows where a member is that was believed in. It may have come by itself.
    pub fn on_nowhere(&mut self, peer: NodeId) {
        self.learned.remove(&peer);
        self.in_vain.insert(peer);
    }

    /// The peer says what it holds. Members that it tells of are for [`Self::on_told`].
    ///
    /// # Errors
    ///
    /// [`NotOurs`]: the peer breaks the protocol.
    pub fn on_news(
        &mut self,
        scheduler: &mut Scheduler,
        peer: NodeId,
        news: &News,
    ) -> Result<(), NotOurs> {
        match news {
            News::All => {
                self.admit(scheduler, peer);
                scheduler.on_holds_all(peer);
            }
            News::Map { list, bits } => {
                if let Some((list, held)) = self.marked(*list, bits)? {
                    self.admit(scheduler, peer);
                    scheduler.on_map(peer, &list, &held);
                }
            }
            News::Have { list, blocks } => {
                if let Some(blocks) = self.at(*list, blocks)? {
                    scheduler.on_have(peer, &blocks);
                }
            }
            News::Members { .. } => {}
        }
        Ok(())
    }

    /// A candidate has said what it holds: now it is asked.
    fn admit(&mut self, scheduler: &mut Scheduler, peer: NodeId) {
        if self.candidates.remove(&peer) {
            scheduler.add_peer(peer);
        }
    }

    /// A peer tells of members.
    pub fn on_told(&mut self, scheduler: &Scheduler, teller: NodeId, members: Vec<HintPeer>) {
        if self.tellers.len() >= TELLERS_MAX && !self.tellers.contains_key(&teller) {
            return;
        }
        for member in members {
            let is_news = self.is_news(scheduler, &member.peer);
            let told = &mut self.tellers.entry(teller).or_default().told;
            let is_new = is_news && told.iter().all(|other| other.peer != member.peer);
            if is_new && told.len() < TOLD_MAX {
                told.push_back(member);
            }
        }
    }

    fn is_news(&self, scheduler: &Scheduler, peer: &NodeId) -> bool {
        let is_candidate = self.candidates.contains(peer) || self.learned.contains_key(peer);
        !is_candidate && !scheduler.knows(peer) && !self.in_vain.contains(peer)
    }

    /// The next member that was told of and is believed in, and who told of it. It has a place
    /// from now on: [`Self::add_candidate`] when it can be dialled, else [`Self::on_nowhere`].
    pub fn next_believed(&mut self, scheduler: &Scheduler) -> Option<(NodeId, HintPeer)> {
        let n_errands: usize = self.tellers.values().map(|teller| teller.n_errands).sum();
        if self.learned.len() >= LEARNED_MAX || n_errands >= ERRANDS_MAX {
            return None;
        }
        let mut all: Vec<(usize, NodeId)> =
            self.tellers.iter().map(|(id, teller)| (teller.n_errands, *id)).collect();
        // Whoever has told of least first.
        all.sort_unstable();
        for (n_errands, id) in all {
            let n_learned = self.learned.values().filter(|other| **other == id).count();
            if n_learned >= LEARNED_PER_TELLER_MAX || n_errands >= ERRANDS_PER_TELLER_MAX {
                continue;
            }
            while let Some(member) = self.tellers.get_mut(&id)?.told.pop_front() {
                if self.is_news(scheduler, &member.peer) {
                    self.tellers.get_mut(&id)?.n_errands += 1;
                    self.learned.insert(member.peer, id);
                    return Some((id, member));
                }
            }
        }
        None
    }

    /// The blocks of a list that a map marks. `None`: we do not know the list any more.
    fn marked(&self, list: u32, bits: &[u8]) -> Result<Option<Marked>, NotOurs> {
        let Some(list) = self.list(list)? else { return Ok(None) };
        let places = marked(bits, list.blocks.len()).ok_or(NotOurs)?;
        let blocks = places.into_iter().map(|place| list.blocks[place]).collect();
        Ok(Some((list, blocks)))
    }

    /// The blocks of a list at these places. `None`: we do not know the list any more.
    fn at(&self, list: u32, places: &[u16]) -> Result<Option<Vec<Cid>>, NotOurs> {
        let Some(list) = self.list(list)? else { return Ok(None) };
        let block = |place: &u16| list.blocks.get(usize::from(*place)).copied();
        places.iter().map(block).collect::<Option<_>>().map(Some).ok_or(NotOurs)
    }

    fn list(&self, number: u32) -> Result<Option<Arc<List>>, NotOurs> {
        let newest = self.newest().map_or(0, |list| list.number);
        if number == 0 || number > newest {
            return Err(NotOurs);
        }
        Ok(self.kept.iter().find(|list| list.number == number).cloned())
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::chunk_cid;
    use dockercomp_protocol::limits::SWARM_MEMBERS_MAX;

    use super::*;
    use crate::scheduler::Options;
    use crate::testing::peer;

    fn told(peers: impl IntoIterator<Item = u8>) -> Vec<HintPeer> {
        peers.into_iter().map(|n| HintPeer { peer: peer(n), addresses: Vec::new() }).collect()
    }

    /// A scheduler that wants so many blocks.
    fn wanting(n_blocks: u32) -> Scheduler {
        let mut scheduler = Scheduler::new(Options::default());
        (0..n_blocks).for_each(|n| scheduler.want(chunk_cid(&n.to_le_bytes())));
        scheduler
    }

    /// All that are believed now.
    fn believed(members: &mut Members, scheduler: &Scheduler) -> Vec<NodeId> {
        std::iter::from_fn(|| members.next_believed(scheduler)).map(|(_, told)| told.peer).collect()
    }

    #[test]
    fn few_members_are_believed_of_one_and_of_all() {
        let (mut members, scheduler) = (Members::default(), wanting(10));
        let mut believed = |teller, of: std::ops::Range<u8>| {
            members.on_told(&scheduler, peer(teller), told(of));
            believed(&mut members, &scheduler).len()
        };
        assert_eq!(believed(1, 10..100), LEARNED_PER_TELLER_MAX);
        assert_eq!(believed(1, 100..110), 0);
        assert_eq!(believed(2, 100..200), LEARNED_MAX - LEARNED_PER_TELLER_MAX);
        assert_eq!(believed(3, 200..210), 0);
    }

    /// Most are behind routers: those that are not must be found all the same.
    #[test]
    fn who_cannot_be_reached_or_has_left_makes_room_for_the_next() {
        let (mut members, mut scheduler) = (Members::default(), wanting(10));
        members.on_told(&scheduler, peer(1), told(10..70));
        let first = believed(&mut members, &scheduler);
        members.add_candidate(&scheduler, first[0]);
        members.on_closed(&mut scheduler, first[0]);
        assert_eq!(believed(&mut members, &scheduler), [peer(10 + 32)]);
        members.on_nowhere(first[1]);
        assert_eq!(believed(&mut members, &scheduler), [peer(10 + 33)]);
        // One that gave something and then left.
        members.add_candidate(&scheduler, first[2]);
        members.on_news(&mut scheduler, first[2], &News::All).expect("it may have all");
        assert!(scheduler.knows(&first[2]));
        members.on_closed(&mut scheduler, first[2]);
        assert_eq!(believed(&mut members, &scheduler), [peer(10 + 34)]);
        // Whoever tells of it again: it was tried.
        members.on_told(&scheduler, peer(2), told(10..12));
        assert_eq!(believed(&mut members, &scheduler), []);
    }

    /// What a teller says of somebody who is here already does not push that one out.
    #[test]
    fn who_came_by_itself_stays_whatever_was_said_of_it() {
        let (mut members, mut scheduler) = (Members::default(), wanting(10));
        members.on_told(&scheduler, peer(1), told(7..8));
        assert_eq!(believed(&mut members, &scheduler), [peer(7)]);
        members.add_candidate(&scheduler, peer(7));
        members.on_nowhere(peer(7));
        members.on_news(&mut scheduler, peer(7), &News::All).expect("it may have all");
        assert!(scheduler.knows(&peer(7)));
    }

    #[test]
    fn a_session_is_not_sent_on_errands_without_end_and_hears_others_meanwhile() {
        let (mut members, scheduler) = (Members::default(), wanting(10));
        let mut tried: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut flood = |members: &mut Members, teller: u8| {
            for round in 0..20_u8 {
                let strangers = (0..60_u8).map(|n| {
                    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
                    bytes.extend([teller; 10]);
                    bytes.extend([round; 11]);
                    bytes.extend([n; 11]);
                    let peer = NodeId::from_bytes(&bytes).expect("an inlined ed25519 key");
                    HintPeer { peer, addresses: vec![] }
                });
                members.on_told(&scheduler, peer(teller), strangers.collect());
                while let Some((teller, member)) = members.next_believed(&scheduler) {
                    *tried.entry(teller).or_default() += 1;
                    members.on_nowhere(member.peer);
                }
            }
            tried.get(&peer(teller)).copied().unwrap_or_default()
        };
        assert_eq!(flood(&mut members, 200), ERRANDS_PER_TELLER_MAX);
        // Somebody honest is heard all the same.
        members.on_told(&scheduler, peer(1), told(10..12));
        assert_eq!(members.next_believed(&scheduler).map(|(teller, _)| teller), Some(peer(1)));
        let all: usize = (201..220).map(|teller| flood(&mut members, teller)).sum();
        assert!(all + ERRANDS_PER_TELLER_MAX < ERRANDS_MAX, "{all}");
        let waiting = members.tellers.values().map(|teller| teller.told.len()).max();
        assert!(waiting <= Some(TOLD_MAX) && members.in_vain.len() <= ERRANDS_MAX);
    }

    #[test]
    fn who_is_known_is_no_news() {
        let (mut members, mut scheduler) = (Members::default(), wanting(10));
        scheduler.add_peer(peer(1));
        members.add_candidate(&scheduler, peer(1));
        members.add_candidate(&scheduler, peer(2));
        assert_eq!(members.candidates, [peer(2)].into(), "who is asked anyway is no candidate");
        members.on_told(&scheduler, peer(9), told(1..4));
        assert_eq!(believed(&mut members, &scheduler), [peer(3)]);
    }

    #[test]
    fn everybody_is_told_of_others_and_each_of_other_ones() {
        let all: Vec<NodeId> = (0..60).map(peer).collect();
        let tell = |asker, seed| {
            let mut told = to_tell(all.iter().copied(), &BTreeSet::new(), &asker, seed);
            assert_eq!(told.len(), 59, "all but the one that asks");
            told.truncate(SWARM_MEMBERS_MAX);
            told
        };
        let first = tell(peer(0), 1);
        assert!(first != tell(peer(1), 1) && first != tell(peer(0), 2));
        let mut named: BTreeMap<NodeId, usize> = BTreeMap::new();
        for asker in &all {
            tell(*asker, 1).into_iter().for_each(|peer| *named.entry(peer).or_default() += 1);
        }
        // Sixteen times each, if all were equal.
        assert_eq!(named.len(), 60);
        assert!(named.values().all(|n| (4..40).contains(n)), "{named:?}");
        let told: BTreeSet<NodeId> = first.iter().copied().collect();
        let next = to_tell(all.iter().copied(), &told, &peer(0), 1);
        assert!(next.iter().all(|peer| !told.contains(peer)));
    }

    #[test]
    fn a_candidate_is_asked_for_blocks_once_it_says_that_it_has_some() {
        let (mut members, mut scheduler) = (Members::default(), wanting(10));
        members.add_candidate(&scheduler, peer(1));
        let watch = members.watch(&mut scheduler, |_| false);
        assert_eq!(watch.begin, [peer(1)]);
        let list = watch.list.expect("blocks that nobody was asked about");
        assert_eq!(list.blocks.len(), 10);
        assert!(!scheduler.knows(&peer(1)));
        let map = News::map(list.number, &[true; 10]);
        members.on_news(&mut scheduler, peer(1), &map).expect("a map of our list");
        assert!(scheduler.knows(&peer(1)));
        let again = members.watch(&mut scheduler, |_| false);
        assert!(again.begin.is_empty() && again.list.is_none(), "{again:?}");
        members.on_closed(&mut scheduler, peer(1));
        assert_eq!(members.watch(&mut scheduler, |_| false).begin, [peer(1)]);
    }

    #[test]
    fn neither_liars_are_asked_nor_anybody_about_a_few_blocks() {
        let (mut members, mut scheduler) = (Members::default(), wanting(4));
        scheduler.add_peer(peer(1));
        scheduler.add_peer(peer(2));
        assert!(members.watch(&mut scheduler, |_| false).begin.is_empty());
        (4..10_u32).for_each(|n| scheduler.want(chunk_cid(&n.to_le_bytes())));
        assert_eq!(members.watch(&mut scheduler, |who| *who == peer(1)).begin, [peer(2)]);
    }

    /// A late answer is no lie; one to a question that was never put is.
    #[test]
    fn a_map_must_be_of_a_list_of_ours() {
        let mut members = Members::default();
        let blocks = vec![chunk_cid(b"a"), chunk_cid(b"b")];
        members.kept.push_back(Arc::new(List { number: 3, blocks: blocks.clone() }));
        let right = members.marked(3, &[0b10]).expect("a map").expect("our list");
        assert_eq!(right.1, blocks[1..]);
        assert!(members.marked(2, &[0b10]).expect("a late one").is_none());
        assert_eq!(members.at(3, &[0]).expect("places"), Some(blocks[..1].to_vec()));
        for (list, bits) in [(4, &[0b10][..]), (0, &[0b10]), (3, &[0b100]), (3, &[0, 0]), (3, &[])]
        {
            assert_eq!(members.marked(list, bits).err(), Some(NotOurs), "{list} {bits:?}");
        }
        assert_eq!(members.at(3, &[2]), Err(NotOurs));
    }
}
