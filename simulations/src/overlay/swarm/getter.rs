//! The half of a node that gets: the exchange's session, around its own scheduler and members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dockercomp_exchange_core::members::Members;
use dockercomp_exchange_core::scheduler::{Ask, Options, Scheduler};
use dockercomp_protocol::wire::chunk::Miss;
use dockercomp_protocol::wire::swarm::News;
use dockercomp_protocol::{Cid, NodeId, Timestamp};

use super::catalogue::{Catalogue, Held};
use super::message::{Action, Message};
use crate::names::{host, name};

/// Blocks that a session asks its store for at once.
const LIST_MAX: usize = 1024;
/// With so few left of them it asks for the next.
const LOW: usize = LIST_MAX / 4;
/// The first pause before peers that failed are tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

#[derive(Debug)]
pub(super) struct Getter {
    scheduler: Scheduler,
    members: Members,
    liars: BTreeSet<NodeId>,
    /// Peers that are asked what they hold, and whether they said that it is everything.
    streams: BTreeMap<u32, bool>,
    /// Blocks of the catalogue before this number are stored or wanted.
    listed: usize,
    /// Those of them that are wanted.
    n_missing: usize,
    retry_at: Option<Timestamp>,
    retry_pause: Duration,
    is_looking: bool,
}

impl Getter {
    /// A session that knows these providers, and only the dataset's root.
    pub(super) fn new(
        options: Options,
        providers: impl IntoIterator<Item = u32>,
        catalogue: &Catalogue,
        actions: &mut Vec<Action>,
    ) -> Self {
        let mut getter = Self {
            scheduler: Scheduler::new(options),
            members: Members::default(),
            liars: BTreeSet::new(),
            streams: BTreeMap::new(),
            listed: 1,
            n_missing: 1,
            retry_at: None,
            retry_pause: RETRY.0,
            is_looking: false,
        };
        getter.scheduler.want(catalogue.block(0));
        getter.add_peers(providers, actions);
        getter
    }

    fn add_peers(&mut self, peers: impl IntoIterator<Item = u32>, actions: &mut Vec<Action>) {
        let liars = &self.liars;
        for peer in peers.into_iter().filter(|peer| !liars.contains(&name(*peer))) {
            self.members.forget_candidate(&name(peer));
            self.scheduler.add_peer(name(peer));
        }
        self.watch(actions);
    }

    /// Asks all members that are known what they hold.
    fn watch(&mut self, actions: &mut Vec<Action>) {
        let liars = &self.liars;
        let watch = self.members.watch(&mut self.scheduler, |peer| liars.contains(peer));
        let mut send = |to, message| actions.push(Action::Send { to, message });
        let begin: Vec<u32> = watch.begin.iter().map(host).collect();
        for peer in &begin {
            self.streams.insert(*peer, false);
            send(*peer, Message::Join);
        }
        let (list, to) = match (&watch.list, self.members.newest()) {
            (Some(list), _) => (list, self.streams.keys().copied().collect()),
            (None, Some(list)) => (list, begin),
            (None, None) => return,
        };
        for peer in to.into_iter().filter(|peer| self.streams.get(peer) == Some(&false)) {
            send(peer, Message::List(list.clone()));
        }
    }

    /// Somebody wants the dataset, and will have some of it.
    pub(super) fn on_member(&mut self, peer: u32, actions: &mut Vec<Action>) {
        if self.liars.contains(&name(peer)) {
            return;
        }
        self.members.add_candidate(&self.scheduler, name(peer));
        self.watch(actions);
    }

    /// Does whatever can be done now.
    pub(super) fn pump(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.scheduler.on_timeout(now);
        self.send_requests(now, actions);
        self.help_if_stuck(now, actions);
    }

    fn send_requests(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some(Ask { peer, block }) = self.scheduler.next_ask(now) {
            actions.push(Action::Send { to: host(&peer), message: Message::Want(block) });
        }
        while let Some(Ask { peer, block }) = self.scheduler.next_stop() {
            actions.push(Action::Send { to: host(&peer), message: Message::Stop(block) });
        }
    }

    fn help_if_stuck(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.scheduler.n_stuck() == 0 {
            return;
        }
        match self.retry_at {
            Some(at) if now < at => return,
            Some(_) => {
                self.scheduler.revive();
                self.watch(actions);
                self.retry_pause = (self.retry_pause * 2).min(RETRY.1);
            }
            None => {}
        }
        self.retry_at = Some(now + self.retry_pause);
        if !std::mem::replace(&mut self.is_looking, true) {
            actions.push(Action::Look);
        }
        self.send_requests(now, actions);
    }

    /// When to call [`Self::pump`] although nothing happened.
    pub(super) fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let retry = self.retry_at.filter(|_| self.scheduler.n_stuck() > 0);
        [self.scheduler.next_deadline(now), retry].into_iter().flatten().min()
    }

    /// The look for others is over.
    pub(super) fn on_found(&mut self, peers: Vec<u32>, actions: &mut Vec<Action>) {
        self.is_looking = false;
        self.add_peers(peers, actions);
    }

    /// A block has come. `true`: it is to be stored.
    pub(super) fn on_data(&mut self, now: Timestamp, peer: u32, block: Cid) -> bool {
        self.scheduler.on_received(now, name(peer), block)
    }

    /// A block is stored. `true`: it was the last.
    pub(super) fn on_stored(
        &mut self,
        peer: u32,
        number: usize,
        (catalogue, held): (&Catalogue, &Held),
        actions: &mut Vec<Action>,
    ) -> bool {
        self.scheduler.on_block(name(peer), catalogue.block(number));
        self.retry_pause = RETRY.0;
        self.n_missing -= 1;
        let has_more = self.listed < catalogue.len();
        if has_more && self.n_missing <= if number == 0 { 0 } else { LOW } {
            while self.n_missing < LIST_MAX && self.listed < catalogue.len() {
                if !held.has(self.listed) {
                    self.scheduler.want(catalogue.block(self.listed));
                    self.n_missing += 1;
                }
                self.listed += 1;
            }
            self.watch(actions);
        }
        if held.is_whole() {
            let leave = |to: &u32| Action::Send { to: *to, message: Message::Leave };
            actions.extend(self.streams.keys().map(leave));
        }
        held.is_whole()
    }

    /// A peer sent wrong bytes. `true`: it is named for the first time.
    pub(super) fn on_wrong(&mut self, peer: u32, block: Cid, actions: &mut Vec<Action>) -> bool {
        self.scheduler.on_wrong_bytes(name(peer), block);
        self.blame(peer, actions)
    }

    fn blame(&mut self, peer: u32, actions: &mut Vec<Action>) -> bool {
        actions.push(Action::Cut { from: peer });
        self.liars.insert(name(peer))
    }

    /// A peer does not give a block. `true`: it is named as a liar.
    pub(super) fn on_miss(
        &mut self,
        now: Timestamp,
        peer: u32,
        (block, reason): (Cid, Miss),
        actions: &mut Vec<Action>,
    ) -> bool {
        self.scheduler.on_miss(now, name(peer), block, reason) && self.blame(peer, actions)
    }

    /// A peer says what it holds, or who else there is. `true`: it is named as a liar.
    pub(super) fn on_news(&mut self, peer: u32, news: News, actions: &mut Vec<Action>) -> bool {
        let id = name(peer);
        if self.liars.contains(&id) || !self.streams.contains_key(&peer) {
            return false;
        }
        if news == News::All {
            self.streams.insert(peer, true);
        }
        if self.members.on_news(&mut self.scheduler, id, &news).is_err() {
            self.scheduler.on_garbage(id);
            return self.blame(peer, actions);
        }
        if let News::Members { members } = news {
            self.members.on_told(&self.scheduler, id, members);
            self.learn(actions);
        }
        false
    }

    /// Asks members that others told of, as far as they are believed.
    fn learn(&mut self, actions: &mut Vec<Action>) {
        while let Some((_, told)) = self.members.next_believed(&self.scheduler) {
            self.on_member(host(&told.peer), actions);
        }
    }

    /// The connection to a peer is closed, or could not be opened.
    pub(super) fn on_closed(&mut self, peer: u32, actions: &mut Vec<Action>) {
        self.streams.remove(&peer);
        self.members.on_closed(&mut self.scheduler, name(peer));
        self.scheduler.on_peer_gone(name(peer));
        self.learn(actions);
    }
}
