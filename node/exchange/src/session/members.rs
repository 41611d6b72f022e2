//! Which members of a swarm to ask, and which of the addresses that they tell to believe.
//!
//! What a peer says of others is believed no further than a dial: a stream that opens shows
//! that the address is that of the peer (the handshake proves its key). So that nobody can send
//! us on errands, few are believed, and none that lie where the teller cannot know them.
//!
//! # Bounds
//!
//! [`WATCHED_MAX`] streams of a session, and [`LEARNED_MAX`] members that it learned from others,
//! [`LEARNED_PER_TELLER_MAX`] of them from one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use dockercomp_network::Multiaddr;
use dockercomp_protocol::wire::swarm::{News, marked};
use dockercomp_protocol::wire::work::HintPeer;
use dockercomp_protocol::{Cid, NodeId};
use futures::FutureExt as _;
use multiaddr::Protocol;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::watch::{Heard, watch};
use super::{Session, Step};
use crate::dial::Dial;
use crate::error::LinkError;
use crate::plain::is_near;
use crate::scheduler::List;
use crate::swarms::digest;

/// With so few blocks missing it is not worth a stream to ask who has them.
const WORTH_ASKING: usize = 4;
const WATCHED_MAX: usize = 64;
const LEARNED_MAX: usize = 64;
const LEARNED_PER_TELLER_MAX: usize = 32;
/// Lists whose answers may still be on their way.
const LISTS_KEPT: usize = 4;
/// News that wait for the session.
const HEARD_QUEUE: usize = 64;

/// The members of a swarm that a session knows.
pub(super) struct Members {
    /// Streams to members.
    tasks: JoinSet<()>,
    /// Peers to which a stream is open or being opened.
    watched: BTreeSet<NodeId>,
    /// Peers that are asked for blocks only after they said that they have some.
    candidates: BTreeSet<NodeId>,
    /// How many members a peer has told us of.
    learned: BTreeMap<NodeId, usize>,
    lists: watch::Sender<Option<Arc<List>>>,
    kept: VecDeque<Arc<List>>,
    heard: mpsc::Sender<Heard>,
    pub(super) inbox: mpsc::Receiver<Heard>,
}

impl Default for Members {
    fn default() -> Self {
        let (heard, inbox) = mpsc::channel(HEARD_QUEUE);
        Self {
            tasks: JoinSet::new(),
            watched: BTreeSet::new(),
            candidates: BTreeSet::new(),
            learned: BTreeMap::new(),
            lists: watch::Sender::default(),
            kept: VecDeque::new(),
            heard,
            inbox,
        }
    }
}

/// A list, and those of its blocks that a peer holds.
type Marked = (Arc<List>, Vec<Cid>);

impl Members {
    /// The blocks of a list that a map marks. `None`: we do not know the list any more.
    fn marked(&self, list: u32, bits: &[u8]) -> Result<Option<Marked>, LinkError> {
        let Some(list) = self.list(list)? else { return Ok(None) };
        let places = marked(bits, list.blocks.len()).ok_or(LinkError::Map)?;
        let blocks = places.into_iter().map(|place| list.blocks[place]).collect();
        Ok(Some((list, blocks)))
    }

    /// The blocks of a list at these places. `None`: we do not know the list any more.
    fn at(&self, list: u32, places: &[u16]) -> Result<Option<Vec<Cid>>, LinkError> {
        let Some(list) = self.list(list)? else { return Ok(None) };
        let block = |place: &u16| list.blocks.get(usize::from(*place)).copied();
        places.iter().map(block).collect::<Option<_>>().map(Some).ok_or(LinkError::Map)
    }

    fn list(&self, number: u32) -> Result<Option<Arc<List>>, LinkError> {
        let newest = self.kept.back().map_or(0, |list| list.number);
        if number == 0 || number > newest {
            return Err(LinkError::Map);
        }
        Ok(self.kept.iter().find(|list| list.number == number).cloned())
    }

    /// The peer is asked for blocks whatever it says.
    pub(super) fn forget_candidate(&mut self, peer: &NodeId) {
        self.candidates.remove(peer);
    }

    /// How many more members are believed of a peer.
    fn room(&self, teller: &NodeId) -> usize {
        let told = self.learned.get(teller).copied().unwrap_or_default();
        let all: usize = self.learned.values().sum();
        (LEARNED_MAX.saturating_sub(all)).min(LEARNED_PER_TELLER_MAX.saturating_sub(told))
    }
}

impl<D: Dial> Session<D> {
    /// Asks all members that we know what they hold, if there is much to be had.
    pub(super) fn watch_members(&mut self) {
        while self.members.tasks.try_join_next().is_some() {}
        if self.scheduler.n_blocks() <= WORTH_ASKING && self.members.watched.is_empty() {
            return;
        }
        let known = self.scheduler.peers().into_iter().chain(self.members.candidates.clone());
        for peer in known {
            let is_full = self.members.watched.len() >= WATCHED_MAX;
            if is_full || self.liars.contains(&peer) || !self.members.watched.insert(peer) {
                continue;
            }
            let links = (self.shared.links.dial().clone(), Arc::clone(&self.shared.options));
            let (lists, heard) = (self.members.lists.subscribe(), self.members.heard.clone());
            self.members.tasks.spawn(watch(links, (peer, digest(&self.root)), lists, heard));
        }
        if let Some(list) = self.scheduler.new_list() {
            let list = Arc::new(list);
            self.members.kept.push_back(Arc::clone(&list));
            if self.members.kept.len() > LISTS_KEPT {
                self.members.kept.pop_front();
            }
            self.members.lists.send_replace(Some(list));
        }
    }

    /// A peer may have some of the dataset, or will have.
    pub(super) fn add_candidate(&mut self, peer: NodeId) {
        let is_known = self.scheduler.peers().contains(&peer);
        if !is_known && self.members.candidates.len() < LEARNED_MAX {
            self.members.candidates.insert(peer);
        }
        self.watch_members();
    }

    pub(super) fn on_heard(&mut self, (peer, heard): Heard) {
        let followed = match heard {
            Ok(news) => self.on_news(peer, news),
            Err(error) => {
                self.members.watched.remove(&peer);
                self.members.candidates.remove(&peer);
                self.scheduler.on_quiet(peer);
                Err(error)
            }
        };
        match followed {
            Err(error) if error.is_misbehaviour() => {
                self.scheduler.on_garbage(peer);
                self.blame(peer, &error);
            }
            Err(error) => tracing::debug!(%peer, reason = %error, "member says no more"),
            Ok(()) => {}
        }
    }

    fn on_news(&mut self, peer: NodeId, news: News) -> Result<(), LinkError> {
        if self.liars.contains(&peer) {
            return Ok(());
        }
        match news {
            News::All => {
                self.admit(peer);
                self.scheduler.on_holds_all(peer);
            }
            News::Map { list, bits } => {
                if let Some((list, held)) = self.members.marked(list, &bits)? {
                    self.admit(peer);
                    self.scheduler.on_map(peer, &list, &held);
                }
            }
            News::Have { list, blocks } => {
                if let Some(blocks) = self.members.at(list, &blocks)? {
                    self.scheduler.on_have(peer, &blocks);
                }
            }
            News::Members { members } => self.on_members(peer, members),
        }
        Ok(())
    }

    /// A candidate has said what it holds: now it is asked.
    fn admit(&mut self, peer: NodeId) {
        if self.members.candidates.remove(&peer) {
            self.scheduler.add_peer(peer);
        }
    }

    fn on_members(&mut self, teller: NodeId, members: Vec<HintPeer>) {
        let known: BTreeSet<NodeId> = self.scheduler.peers().into_iter().collect();
        let is_new = |member: &HintPeer| {
            !known.contains(&member.peer) && !self.members.candidates.contains(&member.peer)
        };
        let room = self.members.room(&teller);
        let fresh: Vec<HintPeer> = members.into_iter().filter(is_new).take(room).collect();
        *self.members.learned.entry(teller).or_default() += fresh.len();
        if fresh.is_empty() {
            return;
        }
        let dial = self.shared.links.dial().clone();
        let learning = async move {
            let near = dial.near(teller).await;
            let mut learned = Vec::new();
            for HintPeer { peer, addresses } in fresh {
                let addresses = believable(peer, &addresses, near);
                if !addresses.is_empty() {
                    dial.learn(peer, addresses).await;
                    learned.push(peer);
                }
            }
            Step::Learned { peers: learned }
        };
        self.steps.push(learning.boxed());
    }

    pub(super) fn on_learned(&mut self, peers: Vec<NodeId>) {
        for peer in peers {
            self.add_candidate(peer);
        }
    }
}

/// Those of a peer's addresses that are worth a dial. `teller` is where the one is that told
/// them, if that is near: only it can know what lies on this machine or this network.
fn believable(peer: NodeId, addresses: &[String], teller: Option<IpAddr>) -> Vec<Multiaddr> {
    let addresses = addresses.iter().filter_map(|address| address.parse::<Multiaddr>().ok());
    addresses.filter(|address| is_believable(peer, address, teller)).collect()
}

fn is_believable(peer: NodeId, address: &Multiaddr, teller: Option<IpAddr>) -> bool {
    let ip: IpAddr = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        // A name would have us ask for it wherever it leads.
        _ => return false,
    };
    let is_right_place = if ip.is_loopback() {
        teller.is_some_and(|teller| teller.is_loopback())
    } else {
        !is_near(&ip) || teller.is_some()
    };
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let is_host = !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast;
    let has_port = address
        .iter()
        .any(|part| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0));
    let is_its_own = match address.iter().last() {
        Some(Protocol::P2p(id)) => id == peer,
        _ => true,
    };
    is_right_place && is_host && has_port && is_its_own
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::chunk_cid;

    use super::*;

    fn peer(n: u8) -> NodeId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([n; 32]);
        NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
    }

    #[test]
    fn addresses_are_believed_of_those_who_can_know_them() {
        let far = "/ip4/192.0.2.1/tcp/4001";
        let (lan, here) = ("/ip4/10.0.0.7/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1");
        let told = [
            far.to_owned(),
            lan.to_owned(),
            here.to_owned(),
            "/ip4/0.0.0.0/tcp/4001".to_owned(),
            "/ip6/::/tcp/4001".to_owned(),
            "/ip4/224.0.0.1/udp/4001/quic-v1".to_owned(),
            "/ip4/255.255.255.255/tcp/4001".to_owned(),
            "/ip4/192.0.2.1/tcp/0".to_owned(),
            "/ip4/192.0.2.1".to_owned(),
            "/dns4/example.org/tcp/4001".to_owned(),
            format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(2)),
            "no address".to_owned(),
        ];
        let believed = |teller: Option<&str>| -> Vec<String> {
            let teller = teller.map(|ip| ip.parse().expect("an address"));
            believable(peer(1), &told, teller).iter().map(ToString::to_string).collect()
        };
        assert_eq!(believed(None), [far]);
        assert_eq!(believed(Some("10.0.0.9")), [far, lan]);
        assert_eq!(believed(Some("127.0.0.1")), [far, lan, here]);
    }

    #[test]
    fn few_members_are_believed_of_one_and_of_all() {
        let mut members = Members::default();
        members.learned.insert(peer(1), LEARNED_PER_TELLER_MAX - 1);
        assert_eq!(members.room(&peer(1)), 1);
        assert_eq!(members.room(&peer(2)), LEARNED_PER_TELLER_MAX);
        members.learned.insert(peer(3), LEARNED_MAX);
        assert_eq!(members.room(&peer(2)), 0);
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
            assert!(matches!(members.marked(list, bits), Err(LinkError::Map)), "{list} {bits:?}");
        }
        assert!(matches!(members.at(3, &[2]), Err(LinkError::Map)));
    }
}
