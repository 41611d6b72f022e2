//! The world around the nodes: connections, messages on their way, bodies on lines, time.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use dockercomp_exchange_core::scheduler;

use super::catalogue::{Catalogue, Held};
use super::flows::{Flows, Pair};
use super::getter::Getter;
use super::giver::Giver;
use super::measure;
use super::message::{Action, Message};
use super::node::Node;
use super::scenario::{Group, Reach, Scenario};
use crate::moment::Moment;
use crate::overlay::chance::{Chance, of_pair};
use crate::overlay::digest::Digest;
use crate::overlay::latency::Links;
use crate::overlay::report::Report;
use crate::queue::Queue;

/// Opening a connection: TCP, and twice each the security and the streams over it.
const HANDSHAKE_TRIPS: u32 = 4;
/// News gather for this long before they are told.
const GATHER: Duration = Duration::from_millis(100);
/// A node that wakes up for nothing does not do so again at once.
const WAKE_MIN: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum Event {
    Comes(u32),
    Leaves(u32),
    Wakes(u32),
    Arrives {
        from: u32,
        to: u32,
        message: Message,
    },
    /// A dial has failed.
    Unreachable {
        node: u32,
        peer: u32,
    },
    Stored {
        node: u32,
        from: u32,
        number: usize,
        is_right: bool,
    },
    Gathered {
        node: u32,
        member: u32,
    },
    Found(u32),
}

/// One run. See the module documentation.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    catalogue: Catalogue,
    links: Links<'a>,
    flows: Flows,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    groups: Vec<&'a Group>,
    /// Open connections, the smaller number first, and since when they can be used.
    connections: BTreeMap<Pair, Moment>,
    /// Dials that will fail, and what waits for them: the other end may dial meanwhile.
    failing: BTreeMap<Pair, Vec<Message>>,
    /// Getters and the liars whose streams they closed: nothing more is asked on them.
    cut: BTreeSet<Pair>,
    /// When the last message of a pair arrives: none overtakes another.
    arrivals: BTreeMap<Pair, Moment>,
    /// Each node's stream for latencies.
    chances: Vec<Chance>,
    /// Getters that lack something and may still come or are there.
    n_lacking: usize,
    digest: Digest,
    actions: Vec<Action>,
}

/// Whichever way round, a pair has one connection.
const fn ends(one: u32, other: u32) -> Pair {
    if one < other { (one, other) } else { (other, one) }
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let groups: Vec<&Group> = scenario
            .nodes
            .values()
            .flat_map(|group| std::iter::repeat_n(group, group.count as usize))
            .collect();
        let count = u32::try_from(groups.len()).expect("bounded by the scenario's check");
        let catalogue = Catalogue::new(&scenario.dataset);
        let keyed = |purpose, node: u32| Chance::keyed(seed, purpose, node.into());
        let node = |(number, group): (u32, &&Group)| {
            // Who lies has nothing: what it sends is wrong, or nothing.
            let held = Held::new(catalogue.len(), group.holds);
            let giver = Giver::new(group.behaviour, group.up, keyed("poison", number));
            Node::new(held, giver)
        };
        let lines = groups.iter().map(|group| (group.up as f64, group.down as f64));
        let mut queue = Queue::new();
        // Who has it is there before those that want it, if they come at one moment.
        let (holders, getters): (Vec<_>, Vec<_>) =
            (0..count).zip(&groups).partition(|(_, group)| group.holds);
        for (number, group) in holders.into_iter().chain(getters) {
            let place = keyed("comes", number).fraction();
            let comes = Moment(0) + group.joins + group.over.mul_f64(place);
            queue.push(comes, Event::Comes(number));
            if let Some(leaves) = group.leaves {
                queue.push(Moment(0) + leaves, Event::Leaves(number));
            }
        }
        Self {
            scenario,
            seed,
            links: Links::new(&scenario.network.latency, count, seed),
            flows: Flows::new(scenario.network.sharing, lines),
            queue,
            nodes: (0..count).zip(&groups).map(node).collect(),
            n_lacking: groups.iter().filter(|group| !group.holds).count(),
            groups,
            connections: BTreeMap::new(),
            failing: BTreeMap::new(),
            cut: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            chances: (0..count).map(|number| keyed("latency", number)).collect(),
            catalogue,
            digest: Digest::new(),
            actions: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Report {
        let ends = Moment(0) + self.scenario.until;
        let mut now = Moment(0);
        while self.n_lacking > 0 {
            let next = self.queue.next_at();
            // Whatever happens at one moment is looked at together.
            if next != Some(now) {
                self.flows.settle(now);
            }
            let through = self.flows.next_end();
            let through = through.filter(|(at, _)| next.is_none_or(|next| *at <= next));
            let Some(at) = through.map(|(at, _)| at).or(next).filter(|at| *at <= ends) else {
                break;
            };
            now = at;
            if let Some((_, pair)) = through {
                self.on_through(now, pair);
            } else if let Some((_, _, event)) = self.queue.pop() {
                self.on_event(now, event);
            }
        }
        let mut report = measure::report(self.scenario, &self.nodes, &self.groups);
        report.set("events", self.digest.events as f64);
        report.trace_hash = self.digest.finish();
        report
    }

    fn node(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize]
    }

    /// A body has left.
    fn on_through(&mut self, now: Moment, (from, to): Pair) {
        self.digest.note(now, 20, [from, to, 0]);
        let Self { nodes, catalogue, actions, flows, .. } = self;
        let node = &mut nodes[from as usize];
        node.story.sent_bytes += node.giver.on_sent(now.timestamp(), to, catalogue, actions);
        // Unless the next one follows it.
        if !actions.iter().any(|action| matches!(action, Action::Transmit { .. })) {
            flows.end((from, to));
        }
        self.carry_out(now, from);
    }

    fn on_event(&mut self, now: Moment, event: Event) {
        let time = now.timestamp();
        match event {
            Event::Comes(node) => {
                self.digest.note(now, 21, [node, 0, 0]);
                self.come(now, node);
            }
            Event::Leaves(node) => {
                self.digest.note(now, 22, [node, 0, 0]);
                self.leave(now, node);
            }
            Event::Wakes(node) => {
                if self.nodes[node as usize].wakes_at != Some(now) {
                    return;
                }
                self.digest.note(now, 23, [node, 0, 0]);
                self.node(node).wakes_at = None;
                self.step(now, node);
            }
            Event::Arrives { from, to, message } => {
                // What had left when the connection closed still comes.
                let is_last = matches!(message, Message::Closed | Message::Data(..));
                let is_open = self.connections.contains_key(&ends(from, to)) || is_last;
                let is_cut = matches!(message, Message::Want(_)) && self.cut.contains(&(from, to));
                if !self.nodes[to as usize].is_up || !is_open || is_cut {
                    return;
                }
                let block = message.block().and_then(|block| self.catalogue.number(block));
                let about = block.map_or(u32::MAX, |number| u32::try_from(number).expect("few"));
                self.digest.note(now, message.kind(), [from, to, about]);
                let Self { nodes, catalogue, actions, .. } = self;
                nodes[to as usize].on_message(time, (from, message), catalogue, actions);
                self.step(now, to);
            }
            Event::Unreachable { node, peer } => {
                if self.failing.remove(&(node, peer)).is_none() {
                    // The peer has dialled meanwhile.
                    return;
                }
                self.digest.note(now, 24, [node, peer, 0]);
                let Self { nodes, actions, .. } = self;
                nodes[node as usize].on_unreachable(peer, actions);
                self.step(now, node);
            }
            Event::Stored { node, from, number, is_right } => {
                let about = u32::try_from(number).expect("few");
                self.digest.note(now, 25 + u8::from(is_right), [node, from, about]);
                let Self { nodes, catalogue, actions, .. } = self;
                let stored = (from, number, is_right);
                if nodes[node as usize].is_up
                    && nodes[node as usize].on_stored(stored, catalogue, actions)
                {
                    self.on_done(now, node);
                }
                self.step(now, node);
            }
            Event::Gathered { node, member } => {
                if !self.nodes[node as usize].is_up {
                    return;
                }
                let Self { nodes, catalogue, actions, .. } = self;
                let Node { giver, held, .. } = &mut nodes[node as usize];
                giver.on_gathered(member, (catalogue, held), actions);
                self.carry_out(now, node);
            }
            Event::Found(node) => {
                let found = self.whole_holders(node);
                self.digest.note(now, 27, [node, u32::try_from(found.len()).expect("few"), 0]);
                let Self { nodes, actions, .. } = self;
                if let Some(getter) = &mut nodes[node as usize].getter {
                    getter.on_found(found, actions);
                }
                self.step(now, node);
            }
        }
    }

    fn come(&mut self, now: Moment, number: u32) {
        let groups = &self.groups;
        let options = scheduler::Options {
            per_peer: self.scenario.exchange.per_peer,
            total: self.scenario.exchange.total,
            seed: Chance::keyed(self.seed, "ties", number.into()).number(),
            ..scheduler::Options::default()
        };
        let providers = (0..).zip(groups).filter(|(_, group)| group.holds).map(|(node, _)| node);
        let node = &mut self.nodes[number as usize];
        node.is_up = true;
        node.story.came_at = Some(now);
        if !groups[number as usize].holds {
            let getter = Getter::new(options, providers, &self.catalogue, &mut self.actions);
            node.getter = Some(getter);
        }
        self.step(now, number);
    }

    fn on_done(&mut self, now: Moment, node: u32) {
        self.node(node).story.done_at = Some(now);
        self.n_lacking -= 1;
        if let Some(lingers) = self.groups[node as usize].lingers {
            self.queue.push(now + lingers, Event::Leaves(node));
        }
    }

    /// The node is switched off. Its peers see their connections close.
    fn leave(&mut self, now: Moment, number: u32) {
        let node = self.node(number);
        if !std::mem::replace(&mut node.is_up, false) {
            return;
        }
        let was_lacking = node.getter.take().is_some();
        self.n_lacking -= usize::from(was_lacking);
        let peers: Vec<u32> = self
            .connections
            .keys()
            .filter(|(one, other)| *one == number || *other == number)
            .map(|(one, other)| if *one == number { *other } else { *one })
            .collect();
        for peer in peers {
            self.flows.end((number, peer));
            self.flows.end((peer, number));
            self.post(now, number, peer, Message::Closed);
            self.connections.remove(&ends(number, peer));
        }
    }

    /// Nodes that have everything and can be found; announcing is every such node's business.
    fn whole_holders(&mut self, asker: u32) -> Vec<u32> {
        let is_whole =
            |(number, node): &(u32, &Node)| *number != asker && node.is_up && node.held.is_whole();
        let all = (0..).zip(&self.nodes).filter(is_whole);
        let mut all: Vec<u32> = all.map(|(number, _)| number).collect();
        let found = self.scenario.exchange.found;
        self.chances[asker as usize].draw(&mut all, found).to_vec()
    }

    /// Lets a node do what it can now, and wakes it when it can do more.
    fn step(&mut self, now: Moment, number: u32) {
        let Self { nodes, actions, .. } = self;
        let time = now.timestamp();
        if let Some(getter) = &mut nodes[number as usize].getter {
            getter.pump(time, actions);
        }
        self.carry_out(now, number);
        let node = &self.nodes[number as usize];
        let Some(wakes) = node.getter.as_ref().and_then(|getter| getter.wakes_at(time)) else {
            return;
        };
        let wakes = Moment::at(wakes).max(now + WAKE_MIN);
        if node.wakes_at != Some(wakes) {
            self.node(number).wakes_at = Some(wakes);
            self.queue.push(wakes, Event::Wakes(number));
        }
    }

    fn carry_out(&mut self, now: Moment, node: u32) {
        let actions = std::mem::take(&mut self.actions);
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(now, node, to, message),
                Action::Transmit { to, bytes } => self.flows.begin(now, (node, to), bytes),
                Action::Cut { from } => {
                    self.cut.insert((node, from));
                    self.flows.end((from, node));
                    self.node(from).giver.on_cut(now.timestamp(), node);
                }
                Action::Store { from, number, is_right } => {
                    let event = Event::Stored { node, from, number, is_right };
                    self.queue.push(now + self.scenario.exchange.store, event);
                }
                Action::Look => {
                    self.queue.push(now + self.scenario.exchange.lookup, Event::Found(node));
                }
                Action::Gather { member } => {
                    self.queue.push(now + GATHER, Event::Gathered { node, member });
                }
            }
        }
    }

    /// Sends a message over the connection that there is, or that this node opens for it. One
    /// that cannot be opened may yet be, from the other end.
    fn send(&mut self, now: Moment, from: u32, to: u32, message: Message) {
        debug_assert!(self.nodes[from as usize].is_up, "a node that is off sends nothing");
        match self.connect(now, from, to) {
            Some(opens) => self.post(now.max(opens), from, to, message),
            None => self.failing.entry((from, to)).or_default().push(message),
        }
    }

    fn post(&mut self, now: Moment, from: u32, to: u32, message: Message) {
        let arrives = now + self.links.draw(from, to, &mut self.chances[from as usize]);
        let last = self.arrivals.entry((from, to)).or_default();
        *last = arrives.max(*last);
        self.queue.push(*last, Event::Arrives { from, to, message });
    }

    /// When the connection between two nodes can be used. `None`: there is none, and none can
    /// be opened from here, which the node will learn.
    fn connect(&mut self, now: Moment, from: u32, to: u32) -> Option<Moment> {
        let pair = ends(from, to);
        if let Some(opens) = self.connections.get(&pair) {
            return Some(*opens);
        }
        let trip = 2 * self.links.draw(from, to, &mut self.chances[from as usize]);
        let is_there = self.nodes[to as usize].is_up;
        if is_there && self.can_dial(from, to) {
            let opens = now + HANDSHAKE_TRIPS * trip;
            self.connections.insert(pair, opens);
            for (from, to) in [(from, to), (to, from)] {
                for message in self.failing.remove(&(from, to)).into_iter().flatten() {
                    self.post(opens, from, to, message);
                }
            }
            return Some(opens);
        }
        // A machine that is there refuses what is switched off; a router swallows it.
        let is_refused = self.groups[to as usize].reach == Reach::Open;
        let learns = if is_refused { trip } else { self.scenario.exchange.dial_timeout };
        if let Entry::Vacant(fails) = self.failing.entry((from, to)) {
            fails.insert(Vec::new());
            self.queue.push(now + learns, Event::Unreachable { node: from, peer: to });
        }
        None
    }

    fn can_dial(&self, from: u32, to: u32) -> bool {
        match (self.groups[from as usize].reach, self.groups[to as usize].reach) {
            (_, Reach::Open) => true,
            (Reach::Open, Reach::Hidden) => false,
            (Reach::Hidden, Reach::Hidden) => {
                of_pair(self.seed, "punched", from, to) < self.scenario.network.punched
            }
        }
    }
}
