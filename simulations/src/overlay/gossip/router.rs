//! One node's gossipsub: what arrives or is due goes in, what to send and deliver comes out.
//!
//! Pure: time is an argument, chance is a stream of the node's own.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::moment::Moment;
use crate::overlay::chance::Chance;

use super::cache::Cache;
use super::message::{Action, Message, MessageId, NodeId};
use super::scenario::{Options, Rules};

/// A node's state. See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Router<'a> {
    options: &'a Options,
    chance: Chance,
    /// By id.
    peers: Vec<Peer>,
    cache: Cache,
    /// Asked for since the last heartbeat; libp2p's rules only.
    asked: BTreeSet<MessageId>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    id: NodeId,
    /// We dialled it.
    outbound: bool,
    in_mesh: bool,
    /// No GRAFT before then, either way.
    backoff: Moment,
}

impl<'a> Router<'a> {
    pub(super) fn new(options: &'a Options, chance: Chance) -> Self {
        let asked = BTreeSet::new();
        Self { options, chance, peers: Vec::new(), cache: Cache::default(), asked }
    }

    pub(super) fn mesh_degree(&self) -> usize {
        self.peers.iter().filter(|peer| peer.in_mesh).count()
    }

    pub(super) fn peer_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|peer| peer.id)
    }

    pub(super) fn is_peer(&self, id: NodeId) -> bool {
        self.place(id).is_ok()
    }

    /// A peer is connected and in the topic.
    pub(super) fn on_connected(&mut self, id: NodeId, outbound: bool, out: &mut Vec<Action>) {
        let Err(place) = self.place(id) else { return };
        self.peers.insert(place, Peer { id, outbound, in_mesh: false, backoff: Moment(0) });
        let grafts_at_once = self.options.rules == Rules::Libp2p;
        if grafts_at_once && self.mesh_degree() < self.options.d_low as usize {
            self.graft(place, out);
        }
    }

    /// A peer is gone.
    pub(super) fn on_disconnected(&mut self, id: NodeId) {
        if let Ok(place) = self.place(id) {
            self.peers.remove(place);
        }
    }

    /// The node itself starts anew: it knows no peer and no message.
    pub(super) fn restart(&mut self) {
        self.peers.clear();
        self.cache.clear();
        self.asked.clear();
    }

    /// The node publishes a message.
    pub(super) fn publish(&mut self, now: Moment, id: MessageId, out: &mut Vec<Action>) {
        self.cache.insert(id, 0, now + self.options.duplicate_cache);
        out.push(Action::Deliver { id, hops: 0 });
        let floods = self.options.floods();
        self.send_data(id, 1, |peer| floods || peer.in_mesh, out);
    }

    /// A message of a peer.
    pub(super) fn handle(
        &mut self,
        now: Moment,
        from: NodeId,
        message: Message,
        out: &mut Vec<Action>,
    ) {
        match message {
            Message::Data { id, hops } => self.on_data(now, from, id, hops, out),
            Message::IHave(ids) => self.on_ihave(from, &ids, out),
            Message::IWant(ids) => self.on_iwant(from, &ids, out),
            Message::Graft => self.on_graft(now, from, out),
            Message::Prune { others } => self.on_prune(now, from, others, out),
            Message::Connect => self.on_connected(from, false, out),
        }
    }

    /// The mesh is mended, old messages are forgotten, and others are told of new ones.
    pub(super) fn heartbeat(&mut self, now: Moment, out: &mut Vec<Action>) {
        let degree = self.mesh_degree();
        let Options { d, d_low, d_high, .. } = *self.options;
        if degree < d_low as usize {
            self.graft_some(now, d as usize - degree, |_| true, out);
        } else if degree > d_high as usize {
            self.prune_some(now, degree - d as usize, out);
        }
        if self.options.rules == Rules::Libp2p {
            self.graft_outbound(now, out);
            self.asked.clear();
        }
        self.cache.shift(now, self.options.history);
        self.gossip(out);
    }

    fn place(&self, id: NodeId) -> Result<usize, usize> {
        self.peers.binary_search_by_key(&id, |peer| peer.id)
    }

    fn send_data(
        &self,
        id: MessageId,
        hops: u8,
        to: impl Fn(&Peer) -> bool,
        out: &mut Vec<Action>,
    ) {
        for peer in self.peers.iter().filter(|peer| to(peer)) {
            out.push(Action::Send { to: peer.id, message: Message::Data { id, hops } });
        }
    }

    fn on_data(
        &mut self,
        now: Moment,
        from: NodeId,
        id: MessageId,
        hops: u8,
        out: &mut Vec<Action>,
    ) {
        if self.cache.has_seen(id) {
            return;
        }
        self.cache.insert(id, hops, now + self.options.duplicate_cache);
        out.push(Action::Deliver { id, hops });
        self.send_data(id, hops.saturating_add(1), |peer| peer.in_mesh && peer.id != from, out);
    }

    fn on_ihave(&mut self, from: NodeId, ids: &[MessageId], out: &mut Vec<Action>) {
        let mut wanted: Vec<MessageId> =
            ids.iter().copied().filter(|id| !self.cache.has_seen(*id)).collect();
        if self.options.rules == Rules::Libp2p {
            wanted.retain(|id| self.asked.insert(*id));
        }
        if !wanted.is_empty() {
            out.push(Action::Send { to: from, message: Message::IWant(wanted) });
        }
    }

    fn on_iwant(&self, from: NodeId, ids: &[MessageId], out: &mut Vec<Action>) {
        for id in ids {
            if let Some(hops) = self.cache.held(*id) {
                let message = Message::Data { id: *id, hops: hops.saturating_add(1) };
                out.push(Action::Send { to: from, message });
            }
        }
    }

    fn on_graft(&mut self, now: Moment, from: NodeId, out: &mut Vec<Action>) {
        let Ok(place) = self.place(from) else { return };
        let Peer { in_mesh, backoff, outbound, .. } = self.peers[place];
        let is_full = !outbound && self.mesh_degree() >= self.options.d_high as usize;
        let refused = self.options.rules == Rules::Libp2p && (now < backoff || is_full);
        if !in_mesh && refused {
            self.prune(now, place, out);
        } else {
            self.peers[place].in_mesh = true;
        }
    }

    fn on_prune(&mut self, now: Moment, from: NodeId, others: Vec<NodeId>, out: &mut Vec<Action>) {
        if let Ok(place) = self.place(from) {
            self.peers[place].in_mesh = false;
            self.peers[place].backoff = now + self.options.prune_backoff;
        }
        for other in others {
            if !self.is_peer(other) {
                self.on_connected(other, true, out);
                out.push(Action::Send { to: other, message: Message::Connect });
            }
        }
    }

    fn graft(&mut self, place: usize, out: &mut Vec<Action>) {
        self.peers[place].in_mesh = true;
        out.push(Action::Send { to: self.peers[place].id, message: Message::Graft });
    }

    fn prune(&mut self, now: Moment, place: usize, out: &mut Vec<Action>) {
        self.peers[place].in_mesh = false;
        self.peers[place].backoff = now + self.options.prune_backoff;
        let to = self.peers[place].id;
        let mut others: Vec<NodeId> = self.peer_ids().filter(|id| *id != to).collect();
        let others = self.chance.draw(&mut others, self.options.exchange() as usize).to_vec();
        out.push(Action::Send { to, message: Message::Prune { others } });
    }

    fn graft_some(
        &mut self,
        now: Moment,
        n: usize,
        eligible: impl Fn(&Peer) -> bool,
        out: &mut Vec<Action>,
    ) {
        let backs_off = self.options.rules == Rules::Libp2p;
        let may = |peer: &Peer| !(peer.in_mesh || backs_off && now < peer.backoff);
        let mut candidates = self.places(|peer| may(peer) && eligible(peer));
        for place in self.chance.draw(&mut candidates, n) {
            self.graft(*place, out);
        }
    }

    /// libp2p: some of the mesh must be peers that we chose ourselves, whoever fills it.
    fn graft_outbound(&mut self, now: Moment, out: &mut Vec<Action>) {
        let have = self.peers.iter().filter(|peer| peer.in_mesh && peer.outbound).count();
        let missing = (self.options.d_out as usize).saturating_sub(have);
        if missing > 0 && self.mesh_degree() >= self.options.d_low as usize {
            self.graft_some(now, missing, |peer| peer.outbound, out);
        }
    }

    fn prune_some(&mut self, now: Moment, n: usize, out: &mut Vec<Action>) {
        let mut candidates = self.places(|peer| peer.in_mesh);
        let order = candidates.len();
        let candidates = self.chance.draw(&mut candidates, order);
        let outbound = candidates.iter().filter(|place| self.peers[**place].outbound).count();
        let mut spare = match self.options.rules {
            Rules::Simsub => outbound,
            Rules::Libp2p => outbound.saturating_sub(self.options.d_out as usize),
        };
        let mut left = n;
        for place in candidates.iter().copied() {
            if left == 0 {
                break;
            }
            if self.peers[place].outbound {
                if spare == 0 {
                    continue;
                }
                spare -= 1;
            }
            self.prune(now, place, out);
            left -= 1;
        }
    }

    fn gossip(&mut self, out: &mut Vec<Action>) {
        let ids = self.cache.recent(self.options.gossip_window);
        if ids.is_empty() {
            return;
        }
        let ids: Rc<[MessageId]> = ids.into();
        let mut candidates = self.places(|peer| !peer.in_mesh);
        let n = self.listeners(candidates.len());
        for place in self.chance.draw(&mut candidates, n) {
            let message = Message::IHave(Rc::clone(&ids));
            out.push(Action::Send { to: self.peers[*place].id, message });
        }
    }

    /// How many of the peers outside the mesh are told of messages.
    fn listeners(&mut self, candidates: usize) -> usize {
        let factor = self.options.factor();
        let share = match self.options.rules {
            Rules::Simsub => (0..candidates).filter(|_| self.chance.fraction() < factor).count(),
            Rules::Libp2p => (factor * candidates as f64) as usize,
        };
        share.max(self.options.d_lazy as usize)
    }

    fn places(&self, of: impl Fn(&Peer) -> bool) -> Vec<usize> {
        (0..self.peers.len()).filter(|place| of(&self.peers[*place])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000);

    fn libp2p() -> Options {
        Options { d_out: 0, ..Options::default() }
    }

    fn simsub() -> Options {
        Options { rules: Rules::Simsub, ..Options::default() }
    }

    /// A node 0 with peers 1 to `peers`, that all dialled it.
    fn router(options: &Options, peers: NodeId) -> Router<'_> {
        let mut router = Router::new(options, Chance::keyed(1, "test", 0));
        for peer in 1..=peers {
            router.on_connected(peer, false, &mut Vec::new());
        }
        router
    }

    fn told(router: &mut Router<'_>, from: NodeId, message: Message) -> Vec<Action> {
        let mut out = Vec::new();
        router.handle(NOW, from, message, &mut out);
        out
    }

    fn heartbeat(router: &mut Router<'_>, now: Moment) -> Vec<Action> {
        let mut out = Vec::new();
        router.heartbeat(now, &mut out);
        out
    }

    fn count(actions: &[Action], of: impl Fn(&Message) -> bool) -> usize {
        let is = |action: &&Action| matches!(action, Action::Send { message, .. } if of(message));
        actions.iter().filter(is).count()
    }

    #[test]
    fn a_message_is_forwarded_once_and_not_back() {
        let options = libp2p();
        let mut router = router(&options, 3);
        let data = Message::Data { id: 7, hops: 1 };
        let out = told(&mut router, 2, data.clone());
        let forwarded = Message::Data { id: 7, hops: 2 };
        let send = |to| Action::Send { to, message: forwarded.clone() };
        assert_eq!(out, [Action::Deliver { id: 7, hops: 1 }, send(1), send(3)]);
        assert_eq!(told(&mut router, 1, data), []);
    }

    #[test]
    fn a_missed_message_is_asked_for_and_sent() {
        let options = libp2p();
        let mut holder = router(&options, 20);
        let mut asker = router(&options, 20);
        holder.publish(NOW, 7, &mut Vec::new());
        let out = heartbeat(&mut holder, NOW);
        // 16 of 20 are outside the mesh of 4; a quarter of them is fewer than d_lazy.
        assert_eq!(count(&out, |message| matches!(message, Message::IHave(_))), 6);
        let ihave = Message::IHave([7].into());
        let iwant = Message::IWant(vec![7]);
        let ask = |to| vec![Action::Send { to, message: iwant.clone() }];
        assert_eq!(told(&mut asker, 1, ihave.clone()), ask(1));
        assert_eq!(told(&mut asker, 2, ihave), [], "libp2p asks one peer in a heartbeat");
        let data = Message::Data { id: 7, hops: 1 };
        assert_eq!(told(&mut holder, 5, iwant), [Action::Send { to: 5, message: data }]);
    }

    #[test]
    fn simsub_asks_everybody_until_the_message_is_there() {
        let options = simsub();
        let mut asker = router(&options, 20);
        for peer in [1, 2] {
            let out = told(&mut asker, peer, Message::IHave([7].into()));
            assert_eq!(count(&out, |message| matches!(message, Message::IWant(_))), 1);
        }
    }

    #[test]
    fn the_mesh_is_kept_between_its_bounds() {
        let options = simsub();
        let mut router = router(&options, 20);
        let grafts = heartbeat(&mut router, NOW);
        assert_eq!(count(&grafts, |message| *message == Message::Graft), 6);
        for peer in 1..=20 {
            assert_eq!(told(&mut router, peer, Message::Graft), []);
        }
        assert_eq!(router.mesh_degree(), 20, "simsub accepts every GRAFT");
        let prunes = heartbeat(&mut router, NOW);
        assert_eq!(count(&prunes, |message| matches!(message, Message::Prune { .. })), 14);
        assert_eq!(router.mesh_degree(), 6);
    }

    #[test]
    fn libp2p_refuses_grafts_to_a_full_mesh_and_during_back_off() {
        let options = libp2p();
        let mut router = router(&options, 20);
        assert_eq!(router.mesh_degree(), 4, "new peers are grafted at once up to d_low");
        let refusals: usize = (1..=20)
            .map(|peer| told(&mut router, peer, Message::Graft))
            .map(|out| count(&out, |message| matches!(message, Message::Prune { .. })))
            .sum();
        assert_eq!((router.mesh_degree(), refusals), (12, 8));
        let member = router.peers.iter().find(|peer| peer.in_mesh).expect("twelve are").id;
        told(&mut router, member, Message::Prune { others: Vec::new() });
        assert_eq!(count(&told(&mut router, member, Message::Graft), |_| true), 1, "too early");
        let mut out = Vec::new();
        let later = NOW + options.prune_backoff;
        router.handle(later, member, Message::Graft, &mut out);
        assert_eq!((out.len(), router.mesh_degree()), (0, 12));
    }

    #[test]
    fn peers_that_a_prune_names_are_connected() {
        let options = simsub();
        let mut router = router(&options, 2);
        let out = told(&mut router, 1, Message::Prune { others: vec![2, 9] });
        assert_eq!(out, [Action::Send { to: 9, message: Message::Connect }]);
        assert!(router.is_peer(9));
    }

    #[test]
    fn libp2p_keeps_peers_that_it_dialled_itself_in_the_mesh() {
        let options = Options::default();
        let mut router = router(&options, 8);
        for peer in 20..24 {
            router.on_connected(peer, true, &mut Vec::new());
        }
        let grafts = heartbeat(&mut router, NOW);
        assert_eq!(count(&grafts, |message| *message == Message::Graft), 2);
        assert_eq!(router.peers.iter().filter(|peer| peer.in_mesh && peer.outbound).count(), 2);
    }
}
