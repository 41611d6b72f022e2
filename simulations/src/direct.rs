//! The direct engine: the real core, the hosts' behaviour, and nothing between them.
//!
//! A free core of a host asks for one replica, computes it, reports it, and asks again. There
//! is no agent, message, crash, journal or set of books, so a replica costs one event, and
//! studies of millions of replicas take minutes. What it says about validation is what the
//! full engine says: a test compares the two.
//!
//! # What is not here
//!
//! Everything that the network and the disks do, and every checker of the books: here wrong
//! outputs are counted, not judged. A result's work unit is not named by its CID, which the
//! core does not look at, and no result is sealed.
//!
//! # Bounds
//!
//! Some hundred bytes a work unit: which outputs it got, and what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use dockercomp_coordinator_core::{Action, Core, Event as Fact, Granted, JobState, Profile};
use dockercomp_protocol::execution::{ExecutorKind, Usage};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::{Capacity, WorkRequest};
use dockercomp_protocol::{Cid, NodeId, ReplicaId};

use crate::behaviour::{Behaviour, Product, Sight, honest_output};
use crate::jobs::{CORE_MEMORY_BYTES, Jobs, UnitId, chance_of};
use crate::moment::Moment;
use crate::names;
use crate::outcome::{Counters, Outcome};
use crate::queue::Queue;
use crate::random::{Entity, Purpose, Random};
use crate::scenario::{Crowd, RunPer, Scenario};
use crate::trace::{Trace, What};
use crate::violation::Violation;
use crate::weather;

/// How long a host that lies without working takes.
const NOTHING: Duration = Duration::from_millis(5);

/// Runs a scenario with the direct engine.
pub(crate) fn run<'a>(
    scenario: &'a Scenario,
    seed: u64,
    tell: Option<&'a mut dyn FnMut(&str)>,
) -> Outcome {
    World::new(scenario, seed, tell).run()
}

enum Event {
    Submits {
        job: u32,
    },
    Joins {
        host: u32,
    },
    /// A core of a host is free.
    Asks {
        host: u32,
    },
    Ends {
        host: u32,
        replica: ReplicaId,
        unit: UnitId,
    },
    Deadline,
}

struct Host {
    name: NodeId,
    behaviour: Behaviour,
    /// In percent.
    speed: u32,
    cores: u32,
    executors: Vec<ExecutorKind>,
    operator: Option<u32>,
    work: Random,
}

/// What became of a unit.
#[derive(Default)]
struct Fate {
    /// What was reported, by whom, while it is undecided.
    said: Vec<(u32, Cid)>,
    canonical: Option<Cid>,
    /// What the ring of copiers has.
    ring: Option<Cid>,
}

struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    now: Moment,
    queue: Queue<Event>,
    trace: Trace<'a>,
    jobs: Jobs,
    core: Core,
    hosts: Vec<Host>,
    accepted_of: Vec<u64>,
    fates: BTreeMap<UnitId, Fate>,
    running: usize,
    reminder: Option<Moment>,
    counters: Counters,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64, tell: Option<&'a mut dyn FnMut(&str)>) -> Self {
        let mut world = Self {
            scenario,
            seed,
            now: Moment::default(),
            queue: Queue::new(),
            trace: Trace::new(tell),
            jobs: Jobs::new(scenario),
            core: Core::new(scenario.coordinator.core.clone()),
            hosts: Vec::new(),
            accepted_of: vec![0; scenario.hosts() as usize],
            fates: BTreeMap::new(),
            running: scenario.jobs.len(),
            reminder: None,
            counters: Counters::default(),
        };
        for crowd in &scenario.crowds {
            for _ in 0..crowd.hosts {
                world.add_host(crowd);
            }
        }
        for (job, plan) in (0..).zip(&scenario.jobs) {
            world.queue.push(Moment::default() + plan.submit, Event::Submits { job });
        }
        world
    }

    fn add_host(&mut self, crowd: &Crowd) {
        let host = u32::try_from(self.hosts.len()).expect("hosts are counted in 32 bits");
        let stream = |purpose| Random::keyed(self.seed, Entity::Host(host), purpose);
        let mut nature = stream(Purpose::Nature);
        let cores = crowd.cores.draw(&mut nature).clamp(1, 1024);
        let speed = u32::try_from(crowd.speed.draw(&mut nature).max(1)).unwrap_or(u32::MAX);
        self.hosts.push(Host {
            name: names::name(host),
            behaviour: crowd.behaviour,
            speed,
            cores: u32::try_from(cores).expect("at most 1024"),
            executors: crowd.executors.clone(),
            operator: crowd.operator_of(host),
            work: stream(Purpose::Work),
        });
        let joins = nature.duration(&crowd.joins);
        self.queue.push(Moment::default() + joins, Event::Joins { host });
    }

    fn run(mut self) -> Outcome {
        let patience = Moment::default() + self.scenario.faults_end + self.scenario.patience;
        let mut violations = Vec::new();
        while self.running > 0 {
            let Some((at, _, event)) = self.queue.pop() else { break };
            self.now = at;
            self.counters.events += 1;
            if at > patience {
                break;
            }
            self.dispatch(event);
            self.remind();
        }
        self.counters.take_core(&self.core, self.scenario);
        self.counters.units = self.scenario.jobs.iter().map(|job| job.units).sum();
        self.counters.virtual_seconds = self.now.age().as_secs_f64();
        if self.running > 0 {
            violations = self.stalled();
        }
        let trace_hash = self.trace.finish().to_hex().to_string();
        Outcome { seed: self.seed, trace_hash, counters: self.counters, violations }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Submits { job } => {
                let submitted = self.jobs.job(job);
                let spec = Box::new(submitted.spec.clone());
                let (cid, units) = (submitted.cid, submitted.plan.units);
                let seed = chance_of(self.seed, job);
                self.tell(Fact::JobAdded { job: cid, spec, units, seed });
            }
            Event::Joins { host } => self.on_joins(host),
            Event::Asks { host } => self.on_asks(host),
            Event::Ends { host, replica, unit } => {
                self.on_ends(host, replica, unit);
                self.on_asks(host);
            }
            Event::Deadline => {
                self.reminder = None;
                self.tell(Fact::DeadlineReached);
            }
        }
    }

    fn on_joins(&mut self, number: u32) {
        let host = &self.hosts[number as usize];
        let (node, executors, cores) = (host.name, host.executors.clone(), host.cores);
        let operator = host.operator.map(names::operator);
        let profile = Profile { operator, ..Profile::plain(executors, capacity(cores)) };
        self.tell(Fact::NodeRegistered { node, profile });
        for _ in 0..cores {
            self.on_asks(number);
        }
    }

    fn on_asks(&mut self, number: u32) {
        let host = &self.hosts[number as usize];
        let (node, executors) = (host.name, host.executors.clone());
        let request = WorkRequest { free: capacity(1), leases_max: 1, executors, cached: vec![] };
        let granted = self.tell(Fact::WorkRequested { node, request });
        if granted.is_empty() {
            let again = self.now + self.scenario.coordinator.retry;
            self.queue.push(again, Event::Asks { host: number });
        }
        for granted in granted {
            self.begin(number, &granted);
        }
    }

    fn begin(&mut self, number: u32, granted: &Granted) {
        let unit = self.jobs.unit(&granted.job, granted.index);
        let sight = self.sight(number, unit);
        let host = &mut self.hosts[number as usize];
        let plan = &self.jobs.job(unit.job).plan;
        let full = match plan.run_per {
            RunPer::Replica => host.work.duration(&plan.run),
            RunPer::Unit => weather::run_time(self.seed, unit, &plan.run),
        };
        let time = if host.behaviour.works(&sight) { full * 100 / host.speed } else { NOTHING };
        self.trace.note(self.now, What::Granted, [number.into(), granted.replica.0, unit.index]);
        let event = Event::Ends { host: number, replica: granted.replica, unit };
        self.queue.push(self.now + time, event);
    }

    fn on_ends(&mut self, number: u32, replica: ReplicaId, unit: UnitId) {
        let sight = self.sight(number, unit);
        let host = &mut self.hosts[number as usize];
        let product = host.behaviour.run(self.seed, unit, number, &mut host.work, sight);
        let (node, shares) = (host.name, host.behaviour.shares());
        if let Some(output) = product.output {
            let fate = self.fates.entry(unit).or_default();
            if shares {
                fate.ring.get_or_insert(output);
            }
            match fate.canonical {
                None => fate.said.push((number, output)),
                Some(canonical) => {
                    self.accepted_of[number as usize] += u64::from(canonical == output);
                }
            }
        }
        self.trace.note(self.now, What::Finished, [number.into(), replica.0, unit.index]);
        let result = Box::new(self.statement(node, replica, unit, product));
        self.tell(Fact::ResultReported { result, sealed: Vec::new() });
    }

    fn statement(
        &self,
        node: NodeId,
        replica: ReplicaId,
        unit: UnitId,
        product: Product,
    ) -> ResultStatement {
        let job = self.jobs.job(unit.job).cid;
        ResultStatement {
            v: 1,
            job,
            unit: job,
            replica,
            node,
            executor: ExecutorKind::Wasm,
            exit: product.exit,
            output: product.output,
            usage: Usage::default(),
        }
    }

    fn sight(&self, host: u32, unit: UnitId) -> Sight {
        let fate = self.fates.get(&unit);
        Sight {
            accepted: self.accepted_of[host as usize],
            is_decided: fate.is_some_and(|fate| fate.canonical.is_some()),
            copied: fate.and_then(|fate| fate.ring),
        }
    }
}

/// The core's loop.
impl World<'_> {
    /// Tells the core something and carries out what it wants. Gives the leases among it.
    fn tell(&mut self, fact: Fact) -> Vec<Granted> {
        let mut leases = Vec::new();
        let mut waiting = vec![fact];
        while let Some(fact) = waiting.pop() {
            self.core.handle(self.now.timestamp(), fact);
            while let Some(action) = self.core.poll_action() {
                match action {
                    Action::Lease(granted) => leases.extend(granted),
                    Action::Accept { job, index, output, .. } => {
                        self.accepted(self.jobs.unit(&job, index), output);
                    }
                    // Every output is at hand.
                    Action::FetchOutput { job, index, output: _, holders: _ } => {
                        waiting.push(Fact::OutputStored { job, index });
                    }
                    Action::JobEnded { job: _, state: _ } => self.running -= 1,
                    Action::Persist(_) => self.counters.records += 1,
                    // Whoever got nothing asks again soon.
                    Action::AnnounceWork
                    | Action::Compare { .. }
                    | Action::Verdict(_)
                    | Action::HeartbeatAnswer { .. } => {}
                }
            }
        }
        leases
    }

    fn accepted(&mut self, unit: UnitId, output: Cid) {
        let is_wrong = output != honest_output(unit);
        self.counters.wrong_accepted += u64::from(is_wrong);
        self.trace.note(self.now, What::Accepted, [unit.job.into(), unit.index, is_wrong.into()]);
        let fate = self.fates.entry(unit).or_default();
        fate.canonical = Some(output);
        for (host, said) in std::mem::take(&mut fate.said) {
            self.accepted_of[host as usize] += u64::from(said == output);
        }
    }

    fn remind(&mut self) {
        let Some(at) = self.core.next_deadline().map(Moment::at) else { return };
        if self.reminder.is_none_or(|reminder| at < reminder) {
            self.reminder = Some(at.max(self.now));
            self.queue.push(at.max(self.now), Event::Deadline);
        }
    }

    fn stalled(&self) -> Vec<Violation> {
        let patience = self.scenario.patience;
        let views = self.jobs.iter().filter_map(|(number, job)| {
            let view = self.core.job(job.cid)?;
            (view.state == JobState::Running).then_some(Violation::Stalled {
                job: number,
                patience,
                done: view.done,
                stored: view.stored,
                failed: view.failed,
                in_flight: view.in_flight,
                waiting: view.waiting,
            })
        });
        views.collect()
    }
}

fn capacity(cores: u32) -> Capacity {
    Capacity {
        cpu_millis: cores * 1000,
        memory_bytes: u64::from(cores) * CORE_MEMORY_BYTES,
        disk_bytes: 1 << 40,
    }
}
