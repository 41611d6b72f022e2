//! A host: the real agent, and a model of the shell around it.
//!
//! The agent decides what to ask, fetch, run, report and forget; what is modelled is how long
//! that takes, what comes of it, and what a crash leaves.
//!
//! # What is not here
//!
//! - Chunks and bandwidth: inputs arrive after a time of their own.
//! - The volunteer: hours, pauses and idleness come with the agent's preferences.

mod office;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dockercomp_agent::{Action, Agent, Config, Event as Fact, Lease as Held, Restored};
use dockercomp_protocol::execution::Exit;
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{Cid, ReplicaId, Timestamp};

use crate::behaviour::Product;
use crate::context::{Context, Event, TaskEnd};
use crate::desk::{Desk, ResultRow};
use crate::jobs::CORE_MEMORY_BYTES;
use crate::moment::Moment;
use crate::random::{Entity, Purpose, Random, Spread};
use crate::scenario::{Crowd, DepartedOutputs, RunPer};
use crate::session::{Question, Session};
use crate::trace::What;
use crate::weather::{self, Nature, Spells};

/// The longest that stopping a program takes.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long a program that does nothing takes.
const NOTHING: Duration = Duration::from_millis(5);

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Host {
    number: u32,
    /// Whose it is one of; kept once for all of them.
    crowd: Arc<Crowd>,
    /// In percent.
    speed: u32,
    operator: Option<u32>,
    config: Config,
    /// How far its clock is ahead.
    clock_ahead: Duration,
    spells: Option<Box<Spells>>,
    desk: Desk,
    /// Whether the machine runs; the process comes when it has started.
    is_on: bool,
    process: Option<Process>,
    life: u32,
    has_departed: bool,
    pub(crate) has_joined: bool,
    network: Random,
    work: Random,
    machine: Random,
    pub(crate) n_crashes: u64,
}

/// What is lost at a crash.
#[derive(Debug)]
struct Process {
    agent: Agent,
    session: Session,
    /// The task of each replica that something is done for.
    busy: BTreeMap<ReplicaId, Task>,
    next_task: u64,
    /// Jobs whose programs are ready, or will be when what is being fetched is.
    prepared: BTreeSet<u32>,
    /// When the queue will call.
    timer: Option<Moment>,
}

/// Something that is done for a replica.
#[derive(Clone, Copy, Debug)]
struct Task {
    /// Tells it from earlier ones of the same replica.
    number: u64,
    /// What of its time is the program's.
    ran: Duration,
}

impl Host {
    /// A host of a crowd, and when it joins.
    pub(crate) fn new(seed: u64, number: u32, crowd: &Arc<Crowd>) -> (Self, Duration) {
        let stream = |purpose| Random::keyed(seed, Entity::Host(number), purpose);
        let nature = Nature::of(seed, number, crowd);
        let offer = Capacity {
            cpu_millis: u32::try_from(nature.cores * 1000).expect("at most 1024 cores"),
            memory_bytes: nature.cores * CORE_MEMORY_BYTES,
            disk_bytes: 1 << 40,
        };
        let host = Self {
            number,
            crowd: Arc::clone(crowd),
            speed: nature.speed,
            operator: crowd.operator_of(number),
            config: Config::new(offer, nature.agent),
            clock_ahead: nature.clock_ahead,
            spells: Spells::of(seed, number, crowd).map(Box::new),
            desk: Desk::default(),
            is_on: false,
            process: None,
            life: 0,
            has_departed: false,
            has_joined: false,
            network: stream(Purpose::Network),
            work: stream(Purpose::Work),
            machine: stream(Purpose::Machine),
            n_crashes: 0,
        };
        (host, nature.joins)
    }

    /// Replicas that it still knows of, while it is there.
    pub(crate) fn n_tasks(&self) -> usize {
        let counts = self.process.as_ref().map(|process| process.agent.counts());
        counts.map_or(0, |counts| {
            counts.fetching + counts.ready + counts.running + counts.unreported + counts.kept
        })
    }

    /// Whether it is down and will come back.
    pub(crate) const fn is_expected(&self) -> bool {
        self.process.is_none() && !self.has_departed
    }

    /// Whether the coordinator can pull an output from it.
    pub(crate) fn serves(&self, output: Cid, departed: DepartedOutputs) -> bool {
        let is_there = match departed {
            DepartedOutputs::Reachable => self.process.is_some() || self.has_departed,
            DepartedOutputs::Lost => self.process.is_some(),
        };
        is_there && self.desk.holds(output)
    }

    fn clock(&self, now: Moment) -> Timestamp {
        now.timestamp() + self.clock_ahead
    }
}

/// Starting, crashing, returning.
impl Host {
    /// The machine is switched on.
    pub(crate) fn switch_on(&mut self, cx: &mut Context) {
        self.has_joined = true;
        self.is_on = true;
        let (host, life) = (self.number, self.life);
        if let Some(spells) = &mut self.spells {
            cx.after(spells.up(cx.now.age()), Event::HostCrashes { host, life });
        }
        let startup = self.machine.duration(&self.crowd.startup);
        if startup == Duration::ZERO {
            self.start(cx, life);
        } else {
            cx.after(startup, Event::HostStarted { host, life });
        }
    }

    /// The machine has started, and the node with it.
    pub(crate) fn start(&mut self, cx: &mut Context, life: u32) {
        if life != self.life {
            return;
        }
        let leases = self.desk.leases.iter().map(|(&replica, row)| Held {
            replica,
            need: cx.jobs.job(row.unit.job).need(),
            expires_at: row.expires_at,
            // The model's programs leave no checkpoints.
            begun: false,
        });
        let restored = Restored {
            leases: leases.collect(),
            unreported: self.desk.results.keys().copied().collect(),
            kept: self.desk.kept.keys().copied().collect(),
        };
        self.process = Some(Process {
            agent: Agent::new(self.config.clone(), restored, self.clock(cx.now)),
            session: Session::new(cx.now),
            busy: BTreeMap::new(),
            next_task: 0,
            prepared: BTreeSet::new(),
            timer: None,
        });
        self.tell(cx, Fact::Wake);
        self.go_on(cx);
    }

    pub(crate) fn on_crash(&mut self, cx: &mut Context, life: u32) {
        let Some(spells) = &mut self.spells else { return };
        if life != self.life || !self.is_on || !cx.faults {
            return;
        }
        self.process = None;
        self.is_on = false;
        self.life += 1;
        self.n_crashes += 1;
        let down = spells.down(cx.now.age());
        let what = if down.is_none() { What::HostDeparts } else { What::HostCrashes };
        cx.note(what, [self.number.into(), self.life.into(), 0]);
        self.has_departed = down.is_none();
        if let Some(down) = down {
            cx.after(down, Event::HostReturns { host: self.number });
        }
    }
}

/// The agent's loop.
impl Host {
    /// Tells the agent something and carries out what it wants.
    fn tell(&mut self, cx: &mut Context, fact: Fact) {
        let now = self.clock(cx.now);
        let mut waiting = vec![fact];
        while let Some(fact) = waiting.pop() {
            let Some(process) = &mut self.process else { return };
            process.agent.handle(now, fact);
            while let Some(action) = self.process.as_mut().and_then(|p| p.agent.poll_action()) {
                waiting.extend(self.carry_out(cx, action));
            }
        }
    }

    /// Begins an action. Gives a fact if it is over at once.
    fn carry_out(&mut self, cx: &mut Context, action: Action) -> Option<Fact> {
        let question = match action {
            Action::FetchInputs { replica } => return self.fetch(cx, replica),
            Action::Start { replica } => return self.run(cx, replica),
            Action::Abort { replica, reason: _ } => return self.stop(cx, replica),
            Action::Forget { replica } => {
                cx.note(What::Forgotten, [self.number.into(), replica.0, 0]);
                self.desk.forget(replica);
                return None;
            }
            // Hosts work for one project, and leave it by not coming back.
            Action::TakeLeave => return None,
            Action::AskForWork { free, leases_max } => Question::Work { free, leases_max },
            Action::Report { replicas } => Question::Report { replicas },
            Action::Heartbeat { running, kept } => Question::Heartbeat { running, kept },
        };
        let session = &mut self.process.as_mut()?.session;
        session.ask(question).err().and_then(|question| question.failed())
    }

    fn fetch(&mut self, cx: &mut Context, replica: ReplicaId) -> Option<Fact> {
        let Some(row) = self.desk.leases.get(&replica) else {
            return Some(Fact::Aborted { replica });
        };
        let job = row.unit.job;
        let mut time = self.work.duration(&cx.jobs.job(job).plan.fetch);
        if self.process.as_mut().is_some_and(|process| process.prepared.insert(job)) {
            time += self.machine.duration(&self.crowd.prepare);
        }
        self.occupy(cx, replica, (time, Duration::ZERO), TaskEnd::Fetched);
        None
    }

    fn run(&mut self, cx: &mut Context, replica: ReplicaId) -> Option<Fact> {
        let Some(row) = self.desk.leases.get(&replica) else {
            return Some(Fact::Aborted { replica });
        };
        cx.note(What::Started, [self.number.into(), replica.0, row.unit.index]);
        let job = cx.jobs.job(row.unit.job);
        let full = match job.plan.run_per {
            RunPer::Replica => self.work.duration(&job.plan.run),
            RunPer::Unit => weather::run_time(cx.seed, row.unit, &job.plan.run),
        };
        let limit = job.spec.limits.wall_time();
        let sight = cx.books.sight(self.number, row.unit);
        let time =
            if self.crowd.behaviour.works(&sight) { full * 100 / self.speed } else { NOTHING };
        let end = if time > limit { TaskEnd::RanOut } else { TaskEnd::Ran };
        let (ran, staging) = (time.min(limit), self.machine.duration(&self.crowd.staging));
        self.occupy(cx, replica, (ran + staging, ran), end);
        None
    }

    /// Stops a task. It may still come to its own end first, as in life.
    fn stop(&mut self, cx: &mut Context, replica: ReplicaId) -> Option<Fact> {
        let process = self.process.as_ref()?;
        let Some(&task) = process.busy.get(&replica) else {
            self.desk.leases.remove(&replica);
            return Some(Fact::Aborted { replica });
        };
        let time = self.work.duration(&Spread::times(Duration::ZERO, STOP_MAX));
        let (task, end) = (task.number, TaskEnd::Stopped);
        let (host, life) = (self.number, self.life);
        cx.after(time, Event::TaskEnds { host, life, replica, task, end });
        None
    }

    /// Begins a task that takes some time, and its program a part of it.
    fn occupy(
        &mut self,
        cx: &mut Context,
        replica: ReplicaId,
        (time, ran): (Duration, Duration),
        end: TaskEnd,
    ) {
        let Some(process) = &mut self.process else { return };
        let task = process.next_task;
        process.next_task += 1;
        process.busy.insert(replica, Task { number: task, ran });
        let (host, life) = (self.number, self.life);
        cx.after(time, Event::TaskEnds { host, life, replica, task, end });
    }

    pub(crate) fn on_task_ends(
        &mut self,
        cx: &mut Context,
        life: u32,
        (replica, task): (ReplicaId, u64),
        end: TaskEnd,
    ) {
        if life != self.life {
            return;
        }
        let Some(process) = &mut self.process else { return };
        let Some(&Task { ran, .. }) = process.busy.get(&replica).filter(|busy| busy.number == task)
        else {
            return;
        };
        process.busy.remove(&replica);
        let fact = match end {
            TaskEnd::Fetched => {
                cx.note(What::Fetched, [self.number.into(), replica.0, 0]);
                Fact::InputsReady { replica }
            }
            TaskEnd::Stopped => {
                cx.note(What::Aborted, [self.number.into(), replica.0, 0]);
                self.desk.leases.remove(&replica);
                Fact::Aborted { replica }
            }
            TaskEnd::Ran => self.finish(cx, replica, ran, None),
            TaskEnd::RanOut => {
                let product = Product { exit: Exit::TimedOut, output: None };
                self.finish(cx, replica, ran, Some(product))
            }
        };
        self.tell(cx, fact);
        self.go_on(cx);
    }

    fn finish(
        &mut self,
        cx: &mut Context,
        replica: ReplicaId,
        ran: Duration,
        cut: Option<Product>,
    ) -> Fact {
        let Some(row) = self.desk.leases.get(&replica).copied() else {
            return Fact::Aborted { replica };
        };
        let sight = cx.books.sight(self.number, row.unit);
        let whole =
            || self.crowd.behaviour.run(cx.seed, row.unit, self.number, &mut self.work, sight);
        let product = cut.unwrap_or_else(whole);
        cx.note(
            What::Finished,
            [self.number.into(), replica.0, u64::from(product.exit.is_success())],
        );
        cx.books.computed(replica, product.clone());
        self.desk.finished(replica, ResultRow { unit: row.unit, product, ran });
        Fact::Finished { replica }
    }
}

/// Time.
impl Host {
    fn set_timer(&mut self, cx: &mut Context) {
        let Some(process) = &mut self.process else { return };
        let wake = process.agent.next_wake().map(|at| Moment::at(at - self.clock_ahead));
        let next = [wake, process.session.next_timer()].into_iter().flatten().min();
        let Some(at) = next.map(|at| at.max(cx.now)) else { return };
        if process.timer.is_none_or(|timer| at < timer) {
            process.timer = Some(at);
            let (host, life) = (self.number, self.life);
            cx.queue.push(at, Event::HostTimer { host, life, at });
        }
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context, life: u32, at: Moment) {
        let now = self.clock(cx.now);
        if life != self.life {
            return;
        }
        let Some(process) = &mut self.process else { return };
        if process.timer != Some(at) {
            return;
        }
        process.timer = None;
        if process.session.is_overdue(cx.now) {
            cx.note(What::TimedOut, [self.number.into(), 0, 0]);
            self.lose_session(cx, None);
        }
        let wake = self.process.as_ref().and_then(|process| process.agent.next_wake());
        if wake.is_some_and(|wake| wake <= now) {
            cx.note(What::HostWakes, [self.number.into(), 0, 0]);
            self.tell(cx, Fact::Wake);
        }
        self.go_on(cx);
    }
}
