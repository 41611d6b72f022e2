//! A client that provides contents: lookups in time, with handshakes and dial time-outs.
//!
//! It asks servers and is in nobody's table. The network stands still meanwhile.

use crate::moment::Moment;
use crate::overlay::chance::Chance;
use crate::overlay::latency::Links;
use crate::queue::Queue;

use super::key::{Atlas, Key, NodeId};
use super::lookup::{Lookup, Next, State};
use super::scenario::{Lookups, Options};
use super::table::{Contact, Entry, Table};
use super::world::{Node, World, seconds};

/// What came of providing one content.
#[derive(Clone, Debug)]
pub(super) struct Provide {
    /// See the metrics.
    pub(super) hops: u32,
    pub(super) seen: u32,
    pub(super) holders: u32,
    pub(super) asked: u32,
    pub(super) failed: u32,
    /// Share of the closest reachable nodes that are in the result.
    pub(super) accuracy: f64,
    /// Seconds.
    pub(super) took: f64,
}

/// See the module documentation.
pub(super) struct Client<'a> {
    nodes: &'a [Node],
    routing: &'a Options,
    plan: &'a Lookups,
    links: Links<'a>,
    own: NodeId,
    seed: u64,
    key: Key,
    table: Table,
    atlas: Atlas,
    chance: Chance,
    now: Moment,
}

impl<'a> Client<'a> {
    pub(super) fn new(world: &'a World<'a>, plan: &'a Lookups, now: Moment) -> Self {
        let own = NodeId::try_from(world.nodes.len()).expect("bounded by the scenario");
        let key = Key::of(world.seed, "client", 0);
        let mut table = Table::new(key, &world.scenario.routing);
        for known in 0..world.scenario.bootstrap {
            table.hear(world.contact(known), seconds(now));
        }
        let reachable = world.nodes.iter().enumerate().filter(|(_, n)| n.is_up && !n.is_hidden);
        let reachable = reachable.map(|(number, node)| (node.key, number as NodeId));
        let mut client = Self {
            nodes: &world.nodes,
            routing: &world.scenario.routing,
            plan,
            links: Links::new(&plan.latency, own + 1, world.seed),
            own,
            seed: world.seed,
            key,
            table,
            atlas: Atlas::new(reachable),
            chance: Chance::keyed(world.seed, "client", 0),
            now,
        };
        client.join();
        client
    }

    /// Provides all contents, one after the other.
    pub(super) fn run(mut self) -> Vec<Provide> {
        (0..self.plan.count).map(|number| self.provide(number)).collect()
    }

    /// Fills its table, as everybody does on joining.
    fn join(&mut self) {
        self.walk(self.key);
        for bucket in 0..=self.table.deepest() {
            let target = self.key.in_bucket(bucket, &mut self.chance);
            self.walk(target);
        }
    }

    fn provide(&mut self, number: u32) -> Provide {
        let target = Key::of(self.seed, "content", number.into());
        let (lookup, took) = self.walk(target);
        let result: Vec<_> = lookup.closest().copied().collect();
        let is_there = |peer: &NodeId| self.is_reachable(*peer);
        let truth = self.atlas.closest(target, self.routing.k);
        let found = truth.iter().filter(|(key, _)| result.iter().any(|peer| peer.key == *key));
        // Whoever answered is connected; the record goes out at once, and the last to get it
        // is half a round trip away. Whoever failed a moment ago is not dialled again.
        let holders = result.iter().filter(|peer| peer.state == State::Answered);
        let last = holders.clone().map(|peer| self.round_trip(peer.node)).fold(0.0, f64::max);
        Provide {
            hops: lookup.depth(),
            seen: result.iter().map(|peer| peer.depth - 1).max().unwrap_or(0),
            holders: result.iter().map(|peer| peer.node).filter(is_there).count() as u32,
            asked: lookup.asked,
            failed: lookup.failed,
            accuracy: found.count() as f64 / truth.len().max(1) as f64,
            took: took + last / 2.0,
        }
    }

    /// One lookup: what it knew when it was over, and how long it took in seconds.
    fn walk(&mut self, target: Key) -> (Lookup<'a>, f64) {
        let mut answer = Vec::new();
        self.table.closest(target, self.routing.k, &mut answer);
        let mut lookup = Lookup::new(self.routing, self.key, target, &answer);
        let mut answers: Queue<(Key, NodeId)> = Queue::new();
        let begun = self.now;
        loop {
            match lookup.next() {
                Next::Ask(key, node) => {
                    let at = self.now + self.answer_time(node);
                    answers.push(at, (key, node));
                }
                Next::Done => break,
                Next::Wait => {
                    let Some((at, _, (key, node))) = answers.pop() else { break };
                    self.now = at;
                    self.settle(&mut lookup, key, node, target, &mut answer);
                }
            }
        }
        (lookup, (self.now.0 - begun.0) as f64 / 1e6)
    }

    fn settle(
        &mut self,
        lookup: &mut Lookup<'a>,
        key: Key,
        node: NodeId,
        target: Key,
        answer: &mut Vec<Entry>,
    ) {
        if self.is_reachable(node) {
            self.nodes[node as usize].table.closest(target, self.routing.k, answer);
            lookup.on_answer(key, answer);
            let network = self.nodes[node as usize].network;
            self.table.hear(Contact { key, node, network }, seconds(self.now));
        } else {
            lookup.on_failure(key);
            self.table.fail(key, node);
        }
    }

    fn is_reachable(&self, node: NodeId) -> bool {
        let node = &self.nodes[node as usize];
        node.is_up && !node.is_hidden
    }

    /// Until the answer, or until the dial has failed. No connection is left from before.
    fn answer_time(&mut self, node: NodeId) -> std::time::Duration {
        if !self.is_reachable(node) {
            return self.plan.dial_timeout;
        }
        let there_and_back = 2 * (self.plan.handshake_round_trips + 1);
        (0..there_and_back).map(|_| self.links.draw(self.own, node, &mut self.chance)).sum()
    }

    fn round_trip(&self, node: NodeId) -> f64 {
        let mut chance = self.chance.clone();
        2.0 * self.links.draw(self.own, node, &mut chance).as_secs_f64()
    }
}
