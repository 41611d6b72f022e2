//! The network around the routers: connections, links, heartbeats, publications, churn.

use crate::moment::Moment;
use crate::overlay::chance::Chance;
use crate::overlay::digest::Digest;
use crate::overlay::latency::Links;
use crate::overlay::report::Report;
use crate::queue::Queue;

use super::measure::Measure;
use super::message::{Action, Message, MessageId, NodeId};
use super::router::Router;
use super::scenario::{Churn, Options, Rules, Scenario};

enum Event {
    /// A dial has succeeded.
    Connected {
        dialer: NodeId,
        dialled: NodeId,
    },
    Arrives {
        to: NodeId,
        from: NodeId,
        message: Message,
    },
    Heartbeat {
        node: NodeId,
    },
    Publish {
        id: MessageId,
    },
    /// Chance decides who leaves and returns.
    Tick,
}

/// One run. See the module documentation.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    links: Links<'a>,
    queue: Queue<Event>,
    routers: Vec<Router<'a>>,
    /// Each node's stream for latencies.
    links_chance: Vec<Chance>,
    is_up: Vec<bool>,
    sources: Vec<NodeId>,
    script: Chance,
    measure: Measure,
    digest: Digest,
    actions: Vec<Action>,
    ends: Moment,
    churn: Option<Churning<'a>>,
}

struct Churning<'a> {
    plan: &'a Churn,
    /// Nodes that ever leave, and whom they dial when they return.
    leavers: Vec<(NodeId, Vec<NodeId>)>,
    chance: Chance,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let nodes = scenario.nodes;
        let keyed = |purpose, node: NodeId| Chance::keyed(seed, purpose, node.into());
        let mut script = keyed("script", 0);
        let mut sources: Vec<NodeId> = (0..nodes).collect();
        let sources = script.draw(&mut sources, scenario.traffic.sources as usize).to_vec();
        let traffic = &scenario.traffic;
        let last = traffic.start + traffic.interval * (traffic.messages - 1);
        let router = &scenario.router;
        let mut world = Self {
            scenario,
            links: Links::new(&scenario.latency, nodes, seed),
            queue: Queue::new(),
            routers: (0..nodes).map(|node| Router::new(router, keyed("router", node))).collect(),
            links_chance: (0..nodes).map(|node| keyed("latency", node)).collect(),
            is_up: vec![true; nodes as usize],
            sources,
            script,
            measure: Measure::new(),
            digest: Digest::new(),
            actions: Vec::new(),
            ends: Moment(0) + last + traffic.linger,
            churn: scenario.churn.as_ref().map(|plan| Churning::new(plan, nodes, seed)),
        };
        world.connect(seed);
        world.schedule(seed, router);
        world
    }

    fn connect(&mut self, seed: u64) {
        for node in 0..self.scenario.nodes {
            let mut chance = Chance::keyed(seed, "dials", node.into());
            let mut others: Vec<NodeId> =
                (0..self.scenario.nodes).filter(|other| *other != node).collect();
            let dialled = chance.draw(&mut others, self.scenario.dials as usize).to_vec();
            for other in &dialled {
                match self.scenario.router.rules {
                    // All there before anything else happens.
                    Rules::Simsub => self.on_connected(Moment(0), node, *other),
                    Rules::Libp2p => {
                        let place =
                            (f64::from(node) + chance.fraction()) / f64::from(self.scenario.nodes);
                        let at = Moment(0) + self.scenario.connecting.mul_f64(place);
                        let event = Event::Connected { dialer: node, dialled: *other };
                        self.queue.push(at, event);
                    }
                }
            }
            if let Some(churn) = &mut self.churn {
                churn.remember(node, dialled);
            }
        }
    }

    fn schedule(&mut self, seed: u64, router: &Options) {
        for node in 0..self.scenario.nodes {
            let phase = Chance::keyed(seed, "phase", node.into()).fraction();
            let first = router.first_heartbeat + router.heartbeat.mul_f64(phase);
            self.queue.push(Moment(0) + first, Event::Heartbeat { node });
        }
        let traffic = &self.scenario.traffic;
        for id in 0..traffic.messages {
            let at = Moment(0) + traffic.start + traffic.interval * id;
            self.queue.push(at, Event::Publish { id });
        }
        if let Some(churn) = &self.churn {
            self.queue.push(Moment(0) + churn.plan.tick, Event::Tick);
        }
    }

    pub(super) fn run(mut self) -> Report {
        while let Some((now, _, event)) = self.queue.pop() {
            if now > self.ends {
                break;
            }
            self.on_event(now, event);
        }
        let degrees: usize = self.routers.iter().map(Router::mesh_degree).sum();
        let mesh_degree = degrees as f64 / f64::from(self.scenario.nodes);
        let events = self.digest.events as f64;
        let hash = self.digest.finish();
        let mut report = self.measure.report(self.scenario.nodes, mesh_degree, hash);
        report.set("events", events);
        report
    }

    fn on_event(&mut self, now: Moment, event: Event) {
        match event {
            Event::Connected { dialer, dialled } => {
                self.digest.note(now, 10, [dialer, dialled, 0]);
                self.on_connected(now, dialer, dialled);
            }
            Event::Arrives { to, from, message } => {
                let (kind, about) = message.kind();
                self.digest.note(now, kind, [to, from, about]);
                self.on_arrival(now, to, from, message);
            }
            Event::Heartbeat { node } => {
                self.digest.note(now, 11, [node, 0, 0]);
                self.queue.push(now + self.scenario.router.heartbeat, Event::Heartbeat { node });
                if self.is_up[node as usize] {
                    self.routers[node as usize].heartbeat(now, &mut self.actions);
                    self.carry_out(now, node);
                }
            }
            Event::Publish { id } => self.on_publish(now, id),
            Event::Tick => self.on_tick(now),
        }
    }

    /// Who is down hears nothing, and nothing is heard from who is no peer any more.
    fn on_arrival(&mut self, now: Moment, to: NodeId, from: NodeId, message: Message) {
        let router = &mut self.routers[to as usize];
        let is_known = message == Message::Connect || router.is_peer(from);
        if self.is_up[to as usize] && self.is_up[from as usize] && is_known {
            router.handle(now, from, message, &mut self.actions);
            self.carry_out(now, to);
        }
    }

    fn on_connected(&mut self, now: Moment, dialer: NodeId, dialled: NodeId) {
        if self.is_up[dialer as usize] && self.is_up[dialled as usize] {
            for (node, other, outbound) in [(dialer, dialled, true), (dialled, dialer, false)] {
                self.routers[node as usize].on_connected(other, outbound, &mut self.actions);
                self.carry_out(now, node);
            }
        }
    }

    fn on_publish(&mut self, now: Moment, id: MessageId) {
        // Always a draw, so that churn does not move the choices after it.
        let up: Vec<NodeId> =
            self.sources.iter().copied().filter(|node| self.is_up[*node as usize]).collect();
        let choice = self.script.fraction();
        let there = self.is_up.iter().filter(|is_up| **is_up).count();
        self.measure.published(now, u32::try_from(there).expect("at most all nodes"));
        let Some(source) = up.get((choice * up.len() as f64) as usize).copied() else { return };
        self.digest.note(now, 12, [source, id, 0]);
        self.routers[source as usize].publish(now, id, &mut self.actions);
        self.carry_out(now, source);
    }

    fn carry_out(&mut self, now: Moment, node: NodeId) {
        for action in self.actions.drain(..) {
            match action {
                Action::Deliver { id, hops } => self.measure.delivered(now, node, id, hops),
                Action::Send { to, message } => {
                    self.measure.sent(&message);
                    let chance = &mut self.links_chance[node as usize];
                    let at = now + self.links.draw(node, to, chance);
                    self.queue.push(at, Event::Arrives { to, from: node, message });
                }
            }
        }
    }

    fn on_tick(&mut self, now: Moment) {
        let Some(mut churn) = self.churn.take() else { return };
        self.queue.push(now + churn.plan.tick, Event::Tick);
        for (node, dials) in &churn.leavers {
            let moves = churn.chance.fraction();
            if self.is_up[*node as usize] && moves < churn.plan.leaves {
                self.digest.note(now, 13, [*node, 0, 0]);
                self.leave(*node);
            } else if !self.is_up[*node as usize] && moves < churn.plan.returns {
                self.digest.note(now, 14, [*node, 0, 0]);
                self.is_up[*node as usize] = true;
                dials.iter().for_each(|other| self.on_connected(now, *node, *other));
            }
        }
        self.churn = Some(churn);
    }

    fn leave(&mut self, node: NodeId) {
        self.is_up[node as usize] = false;
        let peers: Vec<NodeId> = self.routers[node as usize].peer_ids().collect();
        for peer in peers {
            self.routers[peer as usize].on_disconnected(node);
        }
        self.routers[node as usize].restart();
    }
}

impl<'a> Churning<'a> {
    fn new(plan: &'a Churn, nodes: u32, seed: u64) -> Self {
        let mut chance = Chance::keyed(seed, "churn", 0);
        let leavers = (0..nodes).filter(|_| chance.fraction() < plan.share);
        Self { plan, leavers: leavers.map(|node| (node, Vec::new())).collect(), chance }
    }

    fn remember(&mut self, node: NodeId, dialled: Vec<NodeId>) {
        if let Ok(place) = self.leavers.binary_search_by_key(&node, |leaver| leaver.0) {
            self.leavers[place].1 = dialled;
        }
    }
}
