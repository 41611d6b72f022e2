//! The network: nodes that join, refresh their tables, and leave.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::moment::Moment;
use crate::overlay::chance::Chance;
use crate::overlay::digest::Digest;
use crate::overlay::report::Report;
use crate::queue::Queue;

use super::client::{Client, Provide};
use super::key::{Key, NodeId};
use super::lookup::{Lookup, Next};
use super::measure::{self, Reading};
use super::scenario::{Churn, Colocated, Scenario};
use super::table::{Contact, Entry, Table};

/// Buckets that are refreshed on purpose; deeper ones are by looking for oneself.
const REFRESHED_MAX: usize = 15;

enum Event {
    Refresh {
        node: NodeId,
    },
    Depart {
        node: NodeId,
    },
    /// The crawler reads a table.
    Read {
        node: NodeId,
    },
}

/// A server, here or gone.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) key: Key,
    pub(super) is_hidden: bool,
    pub(super) is_up: bool,
    /// The network that it shares with others, if it does.
    pub(super) network: Option<u16>,
    pub(super) table: Table,
}

/// One run. See the module documentation.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) seed: u64,
    pub(super) nodes: Vec<Node>,
    queue: Queue<Event>,
    chance: Chance,
    digest: Digest,
    readings: Vec<Reading>,
    /// Reused by every question.
    answer: Vec<Entry>,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut world = Self {
            scenario,
            seed,
            nodes: Vec::new(),
            queue: Queue::new(),
            chance: Chance::keyed(seed, "kademlia", 0),
            digest: Digest::new(),
            readings: Vec::new(),
            answer: Vec::new(),
        };
        world.populate();
        world
    }

    pub(super) fn run(mut self) -> Report {
        let crawl = Moment(0) + self.scenario.duration;
        let ends = crawl + self.scenario.crawl;
        let mut begun = false;
        while let Some((now, _, event)) = self.queue.pop() {
            if now > ends {
                break;
            }
            if now >= crawl && !begun {
                begun = true;
                self.schedule_crawl(crawl);
            }
            self.on_event(now, event, ends);
        }
        if !begun {
            self.schedule_crawl(crawl);
            while let Some((now, _, event)) = self.queue.pop() {
                self.on_event(now, event, ends);
            }
        }
        let mut report = Report::default();
        measure::tables(&self.nodes, &self.readings, self.scenario.routing.k, &mut report);
        if let Some(lookups) = &self.scenario.lookups {
            let provides = Client::new(&self, lookups, ends).run();
            for Provide { hops, asked, failed, .. } in &provides {
                self.digest.note(ends, 4, [*hops, *asked, *failed]);
            }
            measure::lookups(&provides, &mut report);
        }
        report.set("events", self.digest.events as f64);
        report.trace_hash = self.digest.finish();
        report
    }

    /// Those who are there at the beginning, the oldest first: they met a smaller network.
    fn populate(&mut self) {
        let all = self.scenario.reachable + self.scenario.hidden;
        let mut births: Vec<(Duration, Duration, bool)> = (0..all)
            .map(|number| {
                let is_hidden = number >= self.scenario.reachable;
                let (age, left) = match &self.scenario.churn {
                    Some(churn) => churn.in_the_middle(&mut self.chance),
                    None => (Duration::from_micros(self.chance.number() >> 32), Duration::MAX),
                };
                (age, left, is_hidden)
            })
            .collect();
        births.sort_unstable_by(|one, other| other.cmp(one));
        // Those who everybody knows are reachable, and stay.
        let mut first = 0;
        for place in 0..births.len() {
            if first < self.scenario.bootstrap as usize && !births[place].2 {
                births[place].1 = Duration::MAX;
                births[..=place].rotate_right(1);
                first += 1;
            }
        }
        let networks = self.settle_together(&mut births);
        for (place, (_, left, is_hidden)) in births.into_iter().enumerate() {
            self.arrive(Moment(0), is_hidden, left, networks.get(&place).copied());
        }
    }

    /// Which of those who are there at the beginning share a network with others, by their
    /// place; they stay. They are of any age, as an operator's servers are.
    fn settle_together(
        &mut self,
        births: &mut [(Duration, Duration, bool)],
    ) -> BTreeMap<usize, u16> {
        let Some(Colocated { nodes, networks }) = self.scenario.colocated else {
            return BTreeMap::new();
        };
        let known = self.scenario.bootstrap as usize;
        let mut places: Vec<usize> = (known..births.len()).filter(|at| !births[*at].2).collect();
        let drawn = self.chance.draw(&mut places, nodes as usize);
        let networks = (0..networks).cycle();
        drawn.iter().for_each(|place| births[*place].1 = Duration::MAX);
        drawn.iter().copied().zip(networks).collect()
    }

    fn arrive(&mut self, now: Moment, is_hidden: bool, stays: Duration, network: Option<u16>) {
        let node = NodeId::try_from(self.nodes.len()).expect("bounded by the scenario");
        let key = Key::of(self.seed, "node", node.into());
        let table = Table::new(key, &self.scenario.routing);
        self.nodes.push(Node { key, is_hidden, is_up: true, network, table });
        self.join(now, node);
        let phase = self.scenario.routing.refresh.mul_f64(self.chance.fraction());
        self.queue.push(now + phase, Event::Refresh { node });
        if stays < Duration::MAX {
            self.queue.push(now + stays, Event::Depart { node });
        }
    }

    fn on_event(&mut self, now: Moment, event: Event, ends: Moment) {
        match event {
            Event::Refresh { node } if self.nodes[node as usize].is_up => {
                self.digest.note(now, 1, [node, 0, 0]);
                self.check_on_the_silent(now, node);
                self.refresh(now, node);
                let next = now + self.scenario.routing.refresh;
                if next <= ends {
                    self.queue.push(next, Event::Refresh { node });
                }
            }
            Event::Depart { node } if now <= ends => {
                self.digest.note(now, 2, [node, 0, 0]);
                self.nodes[node as usize].is_up = false;
                let is_hidden = self.nodes[node as usize].is_hidden;
                if let Some(churn) = &self.scenario.churn {
                    let stays = churn.session(&mut self.chance);
                    self.arrive(now, is_hidden, stays, None);
                }
            }
            Event::Read { node } => self.read(now, node),
            Event::Refresh { .. } | Event::Depart { .. } => {}
        }
    }

    pub(super) fn contact(&self, node: NodeId) -> Contact {
        let &Node { key, network, .. } = &self.nodes[node as usize];
        Contact { key, node, network }
    }

    /// Joins through the nodes that everybody knows.
    fn join(&mut self, now: Moment, node: NodeId) {
        for known in 0..self.scenario.bootstrap.min(node) {
            let contact = self.contact(known);
            self.nodes[node as usize].table.hear(contact, seconds(now));
        }
        self.refresh(now, node);
    }

    /// Looks for itself, and for somebody in each bucket.
    fn refresh(&mut self, now: Moment, node: NodeId) {
        let own = self.nodes[node as usize].key;
        self.look_up(now, node, own);
        let deepest = self.nodes[node as usize].table.deepest().min(REFRESHED_MAX);
        for bucket in 0..=deepest {
            let target = own.in_bucket(bucket, &mut self.chance);
            self.look_up(now, node, target);
        }
    }

    /// Dials those who were not heard for long.
    fn check_on_the_silent(&mut self, now: Moment, node: NodeId) {
        let grace = seconds(Moment(0) + self.scenario.routing.grace);
        let due = |entry: &&Entry| entry.heard + grace <= seconds(now);
        let table = &self.nodes[node as usize].table;
        let silent: Vec<Entry> = table.entries().filter(due).copied().collect();
        for entry in silent {
            if self.can_be_asked(now, entry.node, Some(&entry)) {
                let contact = self.contact(entry.node);
                self.nodes[node as usize].table.hear(contact, seconds(now));
            } else {
                self.nodes[node as usize].table.fail(entry.key, entry.node);
            }
        }
    }

    fn look_up(&mut self, now: Moment, node: NodeId, target: Key) {
        let scenario = self.scenario;
        let (own, k) = (self.nodes[node as usize].key, scenario.routing.k);
        let mut answer = std::mem::take(&mut self.answer);
        self.nodes[node as usize].table.closest(target, k, &mut answer);
        let mut lookup = Lookup::new(&scenario.routing, own, target, &answer);
        while let Next::Ask(key, other) = lookup.next() {
            if self.ask(now, node, key, other, target, &mut answer) {
                lookup.on_answer(key, &answer);
            } else {
                lookup.on_failure(key);
            }
        }
        self.answer = answer;
        self.digest.note(now, 3, [node, lookup.asked, lookup.failed]);
    }

    /// One server asks another; both enter each other's table if there is room.
    fn ask(
        &mut self,
        now: Moment,
        node: NodeId,
        key: Key,
        other: NodeId,
        target: Key,
        answer: &mut Vec<Entry>,
    ) -> bool {
        let known = self.nodes[node as usize].table.entry(key, other).copied();
        if !self.can_be_asked(now, other, known.as_ref()) {
            self.nodes[node as usize].table.fail(key, other);
            return false;
        }
        let contact = self.contact(other);
        self.nodes[node as usize].table.hear(contact, seconds(now));
        let (asker, is_hidden) = (self.contact(node), self.nodes[node as usize].is_hidden);
        let hold = seconds(Moment(0) + self.scenario.routing.hidden_connection);
        let table = &mut self.nodes[other as usize].table;
        table.closest(target, self.scenario.routing.k, answer);
        let entered = table.hear(asker, seconds(now));
        if is_hidden && entered {
            let entry = table.entry(asker.key, node).expect("it entered a moment ago");
            if entry.opened + hold <= seconds(now) {
                entry.opened = seconds(now);
            }
        }
        true
    }

    /// Whether a question reaches a node: it must be there, and open to dials, or have dialled
    /// not long ago.
    fn can_be_asked(&self, now: Moment, node: NodeId, known: Option<&Entry>) -> bool {
        let hold = seconds(Moment(0) + self.scenario.routing.hidden_connection);
        let Node { is_up, is_hidden, .. } = self.nodes[node as usize];
        let is_connected = known.is_some_and(|entry| seconds(now) < entry.opened + hold);
        is_up && (!is_hidden || is_connected)
    }

    fn schedule_crawl(&mut self, from: Moment) {
        for node in 0..self.nodes.len() {
            let node = NodeId::try_from(node).expect("bounded by the scenario");
            let at = from + self.scenario.crawl.mul_f64(self.chance.fraction());
            self.queue.push(at, Event::Read { node });
        }
    }

    fn read(&mut self, now: Moment, node: NodeId) {
        let Node { is_up, is_hidden, table, .. } = &self.nodes[node as usize];
        if *is_up && !is_hidden {
            let entries: Vec<Entry> = table.entries().copied().collect();
            let n = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            self.digest.note(now, 5, [node, n, 0]);
            self.readings.push(Reading { node, entries });
        }
    }
}

impl Churn {
    /// The length of a session that begins now.
    fn session(&self, chance: &mut Chance) -> Duration {
        let steps = self.sessions.len() - 1;
        let place = chance.fraction() * steps as f64;
        // In range: not negative, and below `steps`.
        let step = place as usize;
        let (low, high) = (self.sessions[step], self.sessions[step + 1]);
        low + (high - low).mul_f64(place - step as f64)
    }

    /// Age and rest of a session that is met at some time: long ones are met more often.
    fn in_the_middle(&self, chance: &mut Chance) -> (Duration, Duration) {
        let longest = self.sessions.last().copied().unwrap_or_default();
        loop {
            let session = self.session(chance);
            if chance.fraction() * longest.as_secs_f64() < session.as_secs_f64() {
                let age = session.mul_f64(chance.fraction());
                return (age, session - age);
            }
        }
    }
}

pub(super) fn seconds(moment: Moment) -> u32 {
    u32::try_from(moment.0 / 1_000_000).unwrap_or(u32::MAX)
}
