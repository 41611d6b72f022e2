//! The world: one loop over the queue, until everything is done or patience ends.
//!
//! ```text
//! pop ──► now = its time ──► the host or the coordinator it concerns ──► push
//! ```

use std::sync::Arc;
use std::time::Duration;

use dockercomp_coordinator_core::{JobState, Record};
use dockercomp_protocol::job::Policy;

use crate::behaviour::Behaviour;
use crate::books::{Books, VIOLATIONS_MAX};
use crate::context::{Context, Event};
use crate::coordinator::Coordinator;
use crate::direct;
use crate::host::Host;
use crate::jobs::Jobs;
use crate::moment::Moment;
use crate::names;
use crate::outcome::{Counters, Outcome};
use crate::queue::Queue;
use crate::scenario::{Crowd, Engine, Scenario};
use crate::trace::{Trace, What};
use crate::violation::Violation;

/// Time between two looks whether all is done.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Events at one moment beyond which somebody goes in a circle.
const EVENTS_AT_ONCE_MAX: u64 = 1_000_000;

/// Runs a scenario. The same scenario and seed give the same outcome, bit for bit.
///
/// # Panics
/// If a core finds itself contradicted, or if a job of the scenario could not be submitted.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64) -> Outcome {
    match scenario.engine {
        Engine::Full => World::new(scenario, seed, None).run(),
        Engine::Direct => direct::run(scenario, seed, None),
    }
}

/// The same, and tells the story: one line for each event and decision.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_told(scenario: &Scenario, seed: u64, tell: &mut dyn FnMut(&str)) -> Outcome {
    match scenario.engine {
        Engine::Full => World::new(scenario, seed, Some(tell)).run(),
        Engine::Direct => direct::run(scenario, seed, Some(tell)),
    }
}

/// The same in the full engine, and what the coordinator made durable: a journal of which
/// [`History`](crate::history::History) makes a scenario again.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_recorded(scenario: &Scenario, seed: u64) -> (Outcome, Vec<Record>) {
    let mut world = World::new(scenario, seed, None);
    world.cx.recorded = Some(Vec::new());
    world.go();
    let records = world.cx.recorded.take().unwrap_or_default();
    (world.finish(), records)
}

struct World<'a> {
    cx: Context<'a>,
    hosts: Vec<Host>,
    coordinator: Coordinator,
    /// When faults stopped.
    calm_since: Option<Moment>,
    /// When the last job ended.
    over_since: Option<Moment>,
    n_events: u64,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64, tell: Option<&'a mut dyn FnMut(&str)>) -> Self {
        let reinforcements = reinforcements(scenario);
        let crowds = scenario.crowds.iter().chain([&reinforcements]).cloned().map(Arc::new);
        let crowds: Vec<Arc<Crowd>> = crowds.collect();
        let each = crowds.iter().flat_map(|crowd| (0..crowd.hosts).map(move |_| crowd));
        let behaviours: Vec<Behaviour> = each.clone().map(|crowd| crowd.behaviour).collect();
        let operators =
            (0..).zip(each.clone()).map(|(number, crowd)| crowd.operator_of(number)).collect();
        let mut hosts = Vec::with_capacity(behaviours.len());
        let mut cx = Context {
            now: Moment::default(),
            seed,
            scenario,
            queue: Queue::new(),
            trace: Trace::new(tell),
            books: Books::new(behaviours, operators),
            jobs: Jobs::new(scenario),
            faults: scenario.faults_end > Duration::ZERO,
            job_ended: None,
            recorded: None,
        };
        for (number, crowd) in (0..).zip(each) {
            let (host, joins) = Host::new(seed, number, crowd);
            hosts.push(host);
            if number < scenario.hosts() {
                cx.after(joins, Event::HostJoins { host: number });
            }
        }
        for (job, plan) in (0..).zip(&scenario.jobs) {
            cx.after(plan.submit, Event::OwnerActs { job });
        }
        cx.after(scenario.faults_end, Event::FaultsEnd);
        cx.after(LOOK_EVERY, Event::Look);
        let coordinator = Coordinator::new(&mut cx);
        Self { cx, hosts, coordinator, calm_since: None, over_since: None, n_events: 0 }
    }

    fn run(mut self) -> Outcome {
        self.go();
        self.finish()
    }

    fn go(&mut self) {
        let mut at_once = 0;
        while let Some((at, _, event)) = self.cx.queue.pop() {
            at_once = if at == self.cx.now { at_once + 1 } else { 0 };
            self.cx.now = at;
            self.n_events += 1;
            if at_once > EVENTS_AT_ONCE_MAX {
                self.cx.violated(Violation::TimeStandsStill { events: at_once });
            }
            if matches!(event, Event::Look) {
                if self.is_done() {
                    break;
                }
                self.cx.after(LOOK_EVERY, Event::Look);
            } else {
                self.dispatch(event);
            }
            let violations = self.cx.books.violations();
            let is_broken = violations.iter().any(|violation| {
                matches!(
                    violation,
                    Violation::SnapshotRefused { .. }
                        | Violation::ReplayRefused { .. }
                        | Violation::TimeStandsStill { .. }
                )
            });
            if is_broken || violations.len() >= VIOLATIONS_MAX {
                break;
            }
        }
    }

    fn dispatch(&mut self, event: Event) {
        let cx = &mut self.cx;
        match event {
            Event::HostJoins { host } | Event::HostReturns { host } => {
                cx.note(What::HostReturns, [host.into(), 0, 0]);
                self.hosts[host as usize].switch_on(cx);
            }
            Event::HostStarted { host, life } => self.hosts[host as usize].start(cx, life),
            Event::HostCrashes { host, life } => self.hosts[host as usize].on_crash(cx, life),
            Event::HostTimer { host, life, at } => {
                self.hosts[host as usize].on_timer(cx, life, at);
            }
            Event::TaskEnds { host, life, replica, task, end } => {
                self.hosts[host as usize].on_task_ends(cx, life, (replica, task), end);
            }
            Event::ToHost { host, life, question, answer } => {
                self.hosts[host as usize].on_answer(cx, life, question, *answer);
            }
            Event::Announced { host } => self.hosts[host as usize].on_announced(cx),
            Event::ToCoordinator { calling, request } => {
                self.coordinator.on_request(cx, calling, *request);
            }
            Event::CoordinatorCrashes { life } => self.coordinator.on_crash(cx, life),
            Event::CoordinatorReturns => {
                cx.note(What::CoordinatorReturns, [0; 3]);
                self.coordinator.start(cx);
            }
            Event::Committed { life } => self.coordinator.on_committed(cx, life),
            Event::Deadline { life, at } => self.coordinator.on_deadline(cx, life, at),
            Event::Pull { life, unit } => {
                let (hosts, departed) = (&self.hosts, cx.scenario.departed_outputs);
                let serves = |host: u32, output| hosts[host as usize].serves(output, departed);
                self.coordinator.on_pull(cx, life, unit, serves);
            }
            Event::OwnerActs { job } => {
                if let Some(pause) = self.coordinator.on_owner(cx, job) {
                    cx.after(pause, Event::OwnerActs { job });
                }
            }
            Event::FaultsEnd => self.end_faults(),
            Event::Look => {}
        }
    }

    fn end_faults(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        self.calm_since = Some(self.cx.now);
        self.cx.faults = false;
        self.cx.note(What::FaultsEnd, [0; 3]);
        let first = self.cx.scenario.hosts();
        for host in first..first + self.cx.scenario.reinforcements {
            self.cx.after(Duration::ZERO, Event::HostJoins { host });
        }
    }

    /// Whether all is done, or patience has ended.
    fn is_done(&mut self) -> bool {
        let patience = self.cx.scenario.patience;
        if self.over_since.is_none() && self.coordinator.are_jobs_over(&self.cx) {
            self.over_since = Some(self.cx.now);
            self.end_faults();
        }
        match (self.over_since, self.calm_since) {
            (Some(since), _) => {
                let is_calm = self.is_calm();
                if !is_calm && self.cx.now > since + patience {
                    self.report_unrest(patience);
                    return true;
                }
                is_calm
            }
            (None, Some(since)) if self.cx.now > since + patience => {
                self.report_stall(patience);
                true
            }
            (None, _) => false,
        }
    }

    /// Whether nothing of the jobs is left anywhere.
    fn is_calm(&self) -> bool {
        let is_calm = |host: &Host| !host.is_expected() && host.n_tasks() == 0;
        let mut joined = self.hosts.iter().filter(|host| host.has_joined);
        let leases_out = self.coordinator.core().is_none_or(|core| core.next_deadline().is_some());
        !leases_out && joined.all(is_calm)
    }

    fn report_unrest(&mut self, patience: Duration) {
        for (number, host) in (0..).zip(&self.hosts) {
            let replicas = host.n_tasks();
            if replicas > 0 {
                self.cx.books.report(Violation::NotCalm { host: number, replicas, patience });
            }
        }
        if self.coordinator.core().is_none_or(|core| core.next_deadline().is_some()) {
            self.cx.books.report(Violation::LeasesOut { patience });
        }
    }

    fn report_stall(&mut self, patience: Duration) {
        let core = self.coordinator.core();
        for (number, job) in self.cx.jobs.iter() {
            let Some(view) = core.and_then(|core| core.job(job.cid)) else {
                self.cx.books.report(Violation::NeverTaken { job: number, patience });
                continue;
            };
            if view.state == JobState::Running && !self.is_deserted(job.spec.validation.policy) {
                self.cx.books.report(Violation::Stalled {
                    job: number,
                    patience,
                    done: view.done,
                    stored: view.stored,
                    failed: view.failed,
                    in_flight: view.in_flight,
                    waiting: view.waiting,
                });
            }
        }
    }

    /// Whether a job may be left without nodes: policy `credibility` gives nothing more to whoever
    /// contradicts what was accepted, so that a wrong output that enough hosts agreed on bars
    /// honest ones. That new nodes suffice is promised only while none of them is barred.
    fn is_deserted(&self, policy: Policy) -> bool {
        let Some(core) = self.coordinator.core() else { return false };
        let scenario = self.cx.scenario;
        let mut last_to_join = scenario.hosts()..scenario.hosts() + scenario.reinforcements;
        matches!(policy, Policy::Credibility(_))
            && last_to_join.any(|host| {
                let node = core.node(names::name(host));
                node.is_some_and(|node| node.standings.values().any(|of| of.is_barred))
            })
    }

    /// When the last job ended, or the run did.
    fn ended(&self) -> Moment {
        self.over_since.and(self.cx.job_ended).unwrap_or(self.cx.now)
    }

    fn finish(mut self) -> Outcome {
        self.coordinator.check_at_the_end(&mut self.cx);
        let mut counters = Counters {
            wrong_accepted: self.cx.books.wrong_accepted(),
            withdrawn: self.cx.books.withdrawn(),
            host_crashes: self.hosts.iter().map(|host| host.n_crashes).sum(),
            coordinator_crashes: self.coordinator.n_crashes,
            records: self.coordinator.n_records(),
            events: self.n_events,
            virtual_seconds: self.ended().age().as_secs_f64(),
            units: self.cx.scenario.jobs.iter().map(|job| job.units).sum(),
            ..Counters::default()
        };
        if let Some(core) = self.coordinator.core() {
            counters.take_core(core, self.cx.scenario);
        }
        let Context { books, mut trace, now, seed, .. } = self.cx;
        let violations = books.into_violations();
        for violation in &violations {
            trace.note(now, What::Violated, [u64::from(violation.is_of_safety()), 0, 0]);
            trace.remark(now, violation);
        }
        Outcome { seed, trace_hash: trace.finish().to_hex().to_string(), counters, violations }
    }
}

/// The honest hosts that join when faults stop.
fn reinforcements(scenario: &Scenario) -> Crowd {
    Crowd { joins: crate::Spread::Fixed(0), ..Crowd::honest(scenario.reinforcements) }
}
