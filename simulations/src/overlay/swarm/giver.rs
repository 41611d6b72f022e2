//! The half of a node that gives: who is served, and who is told what is here.
//!
//! As the exchange's server and its tellers do it; the slots are theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use dockercomp_exchange_core::members::to_tell;
use dockercomp_exchange_core::scheduler::List;
use dockercomp_exchange_core::slots::{Slots, n_slots};
use dockercomp_protocol::limits::SWARM_MEMBERS_MAX;
use dockercomp_protocol::wire::chunk::Miss;
use dockercomp_protocol::wire::swarm::News;
use dockercomp_protocol::wire::work::HintPeer;
use dockercomp_protocol::{NodeId, Timestamp};

use super::catalogue::{Catalogue, Held};
use super::message::{Action, Message};
use super::scenario::Behaviour;
use crate::names::name;
use crate::overlay::chance::Chance;

/// Members of one dataset that are remembered, and told to others.
const MEMBERS_MAX: usize = 64;

/// A body that waits for its turn, or is on its way.
#[derive(Clone, Copy, Debug)]
struct Body {
    number: usize,
    is_right: bool,
    has_slot: bool,
}

/// Somebody who wants the dataset, and what it was told.
#[derive(Debug, Default)]
struct Member {
    list: Option<Arc<List>>,
    /// Places in its list that it was not told of.
    untold: BTreeSet<u16>,
    has_told_all: bool,
    told: BTreeSet<NodeId>,
    /// Others are told of it.
    is_listed: bool,
    /// News for it gather.
    is_gathering: bool,
}

#[derive(Debug)]
pub(super) struct Giver {
    behaviour: Behaviour,
    chance: Chance,
    /// What the order is drawn by in which members are told.
    seed: u64,
    slots: Slots,
    /// Bytes that a peer gave us.
    gave: BTreeMap<NodeId, u64>,
    /// What each peer is sent, in order; the first is on its way.
    lines: BTreeMap<u32, VecDeque<Body>>,
    members: BTreeMap<u32, Member>,
}

impl Giver {
    pub(super) fn new(behaviour: Behaviour, up: u64, mut chance: Chance) -> Self {
        Self {
            behaviour,
            seed: chance.number(),
            chance,
            slots: Slots::new(n_slots(Some(up))),
            gave: BTreeMap::new(),
            lines: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }

    /// Whether it says that it has everything.
    fn claims_all(&self, held: &Held) -> bool {
        held.is_whole() || self.behaviour != Behaviour::Honest
    }

    pub(super) fn on_given(&mut self, peer: u32, bytes: u64) {
        *self.gave.entry(name(peer)).or_default() += bytes;
    }

    /// A peer wants a block.
    pub(super) fn on_want(
        &mut self,
        now: Timestamp,
        peer: u32,
        number: usize,
        (catalogue, held): (&Catalogue, &Held),
        actions: &mut Vec<Action>,
    ) {
        let block = catalogue.block(number);
        let mut miss = |reason| {
            actions.push(Action::Send { to: peer, message: Message::Miss(block, reason) });
        };
        let is_right = match self.behaviour {
            Behaviour::Silent => return,
            Behaviour::Boaster => return miss(Miss::NotFound),
            Behaviour::Honest if !held.has(number) => return miss(Miss::NotFound),
            Behaviour::Honest => true,
            Behaviour::Poisoner { rate } => self.chance.fraction() >= rate,
        };
        let has_slot = !catalogue.is_small(number);
        let gave = |peer: &NodeId| self.gave.get(peer).copied().unwrap_or_default();
        if has_slot && !self.slots.ask(now, name(peer), gave) {
            return miss(Miss::Busy);
        }
        let line = self.lines.entry(peer).or_default();
        line.push_back(Body { number, is_right, has_slot });
        if line.len() == 1 {
            actions.push(Action::Transmit { to: peer, bytes: catalogue.bytes(number) });
        }
    }

    /// A peer does not need a block any more. One that is on its way goes on.
    pub(super) fn on_stop(&mut self, now: Timestamp, peer: u32, number: usize) {
        let Some(line) = self.lines.get_mut(&peer) else { return };
        let waiting = line.iter().skip(1).position(|body| body.number == number);
        if let Some(body) = waiting.and_then(|place| line.remove(place + 1))
            && body.has_slot
        {
            self.slots.on_done(now, &name(peer));
        }
    }

    /// The body that was on its way to a peer has left; its bytes. The next one follows it.
    pub(super) fn on_sent(
        &mut self,
        now: Timestamp,
        peer: u32,
        catalogue: &Catalogue,
        actions: &mut Vec<Action>,
    ) -> u64 {
        let Some(line) = self.lines.get_mut(&peer) else { return 0 };
        let mut bytes = 0;
        if let Some(body) = line.pop_front() {
            bytes = catalogue.bytes(body.number);
            if body.has_slot {
                self.slots.on_done(now, &name(peer));
            }
            let message = Message::Data(catalogue.block(body.number), body.is_right);
            actions.push(Action::Send { to: peer, message });
        }
        match line.front() {
            Some(next) => {
                actions.push(Action::Transmit { to: peer, bytes: catalogue.bytes(next.number) });
            }
            None => drop(self.lines.remove(&peer)),
        }
        bytes
    }

    /// Nothing more is sent to a peer.
    pub(super) fn on_cut(&mut self, now: Timestamp, peer: u32) {
        for body in self.lines.remove(&peer).into_iter().flatten() {
            if body.has_slot {
                self.slots.on_done(now, &name(peer));
            }
        }
    }

    /// A peer wants the dataset. `false`: it is of no use to it, and there is nothing to tell.
    pub(super) fn on_join(
        &mut self,
        peer: u32,
        (held, is_getting): (&Held, bool),
        actions: &mut Vec<Action>,
    ) -> bool {
        if held.is_empty() && !is_getting && !self.claims_all(held) {
            return false;
        }
        let n_listed = self.members.values().filter(|member| member.is_listed).count();
        let member = Member { is_listed: n_listed < MEMBERS_MAX, ..Member::default() };
        self.members.insert(peer, member);
        self.tell(peer, held, actions);
        self.on_change(actions);
        true
    }

    pub(super) fn on_leave(&mut self, peer: u32) {
        self.members.remove(&peer);
    }

    /// There is something to tell: a block was stored, or somebody came.
    pub(super) fn on_change(&mut self, actions: &mut Vec<Action>) {
        for (peer, member) in &mut self.members {
            if !std::mem::replace(&mut member.is_gathering, true) {
                actions.push(Action::Gather { member: *peer });
            }
        }
    }

    /// A member asks which blocks are here.
    pub(super) fn on_list(
        &mut self,
        peer: u32,
        list: Arc<List>,
        (catalogue, held): (&Catalogue, &Held),
        actions: &mut Vec<Action>,
    ) {
        let claims_all = self.claims_all(held);
        let Some(member) = self.members.get_mut(&peer) else { return };
        let here = |block| catalogue.number(block).is_some_and(|number| held.has(number));
        let bits: Vec<bool> = list.blocks.iter().map(|block| claims_all || here(block)).collect();
        let places = bits.iter().zip(0..).filter(|(here, _)| !**here);
        member.untold = places.map(|(_, place)| place).collect();
        let news = News::map(list.number, &bits);
        member.list = Some(list);
        actions.push(Action::Send { to: peer, message: Message::News(news) });
    }

    /// The news of a member have gathered.
    pub(super) fn on_gathered(
        &mut self,
        peer: u32,
        (catalogue, held): (&Catalogue, &Held),
        actions: &mut Vec<Action>,
    ) {
        self.tell(peer, held, actions);
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.is_gathering = false;
        let Some(list) = &member.list else { return };
        let is_here = |place: &u16| {
            let number = catalogue.number(&list.blocks[usize::from(*place)]);
            number.is_some_and(|number| held.has(number))
        };
        let blocks: Vec<u16> = member.untold.iter().copied().filter(is_here).collect();
        if !blocks.is_empty() && !member.has_told_all {
            for place in &blocks {
                member.untold.remove(place);
            }
            let news = News::Have { list: list.number, blocks };
            actions.push(Action::Send { to: peer, message: Message::News(news) });
        }
    }

    /// Tells a member that everything is here, and who else wants it.
    fn tell(&mut self, peer: u32, held: &Held, actions: &mut Vec<Action>) {
        let claims_all = self.claims_all(held);
        let listed = self.members.iter().filter(|(_, member)| member.is_listed);
        let all: Vec<NodeId> = listed.map(|(other, _)| name(*other)).collect();
        let Some(member) = self.members.get_mut(&peer) else { return };
        let mut say = |news| actions.push(Action::Send { to: peer, message: Message::News(news) });
        if claims_all && !std::mem::replace(&mut member.has_told_all, true) {
            say(News::All);
        }
        let fresh = to_tell(all, &member.told, &name(peer), self.seed);
        member.told.extend(&fresh);
        for some in fresh.chunks(SWARM_MEMBERS_MAX) {
            // Addresses are the world's: it knows who can be dialled.
            let hint = |peer: &NodeId| HintPeer { peer: *peer, addresses: Vec::new() };
            say(News::Members { members: some.iter().map(hint).collect() });
        }
    }
}
