//! The coordinator's shell, modelled: the loop around the real core.
//!
//! ```text
//! inbox ──► handle, drain ──► one batch ──sync──► journal, then answers and effects
//!           (many at a time)  durable first       visible second
//! ```
//!
//! The same loop as the production shell's decider: events that wait share one sync, and
//! nothing leaves before it. A crash takes everything but the journal.
//!
//! # What is not here
//!
//! Signatures and encodings. A result is refused here if it does not come from the node that
//! it names, which in production its signature and the connection prove.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dockercomp_coordinator_core::{Action, Core, Event as Fact, Granted, JobState, Record};
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::{Capacity, Verdict};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, codec};

use crate::context::{Context, Event};
use crate::defect::Defect;
use crate::jobs::{UnitId, statement};
use crate::journal::Journal;
use crate::message::{Answer, Calling, Lease, Request};
use crate::moment::Moment;
use crate::names;
use crate::random::{Entity, Purpose, Random};
use crate::trace::What;
use crate::violation::Violation;

/// Inputs that share one sync.
const BATCH: usize = 1024;

/// A canonical result, as somebody who was not there could check it.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) unit: UnitId,
    pub(crate) output: Cid,
    /// Encoded results; the signature around each is left out.
    pub(crate) results: Vec<Vec<u8>>,
}

/// What reaches the shell.
#[derive(Debug)]
enum Input {
    Asked { calling: Calling, request: Request },
    Submitted { job: u32 },
    Cancelled { job: u32 },
    Undelivered { replicas: Vec<ReplicaId> },
    Pulled { unit: UnitId },
}

/// What a batch makes visible, in order.
#[derive(Debug)]
enum Effect {
    Answer { calling: Calling, answer: Answer },
    Acknowledge { job: u32, cancelled: bool },
    Announce,
    Pull { unit: UnitId, output: Cid, holders: Vec<NodeId> },
}

/// What a batch of inputs leads to.
#[derive(Debug, Default)]
struct Step {
    records: Vec<Record>,
    receipts: Vec<Receipt>,
    effects: Vec<Effect>,
}

/// What the core answered to one event.
enum Said {
    Leases(Vec<Granted>),
    Verdict(Verdict),
    Heartbeat { abandon: Vec<ReplicaId>, forget: Vec<ReplicaId> },
    Nothing,
}

/// An output that is being pulled.
#[derive(Debug)]
struct Pulling {
    output: Cid,
    holders: BTreeSet<u32>,
}

/// The process, while it runs.
#[derive(Debug)]
struct Process {
    core: Core,
    inbox: VecDeque<Input>,
    /// The batch that is being made durable.
    under_way: Option<Step>,
    /// Hosts whose connection was greeted, by their life.
    greeted: BTreeMap<u32, u32>,
    pulling: BTreeMap<UnitId, Pulling>,
    /// When the queue will remind of the deadline.
    reminder: Option<Moment>,
}

/// The coordinator's machine.
#[derive(Debug)]
pub(crate) struct Coordinator {
    process: Option<Process>,
    journal: Journal,
    life: u32,
    /// What the owner was told: taken on, and cancelled.
    acknowledged: BTreeSet<u32>,
    cancelled: BTreeSet<u32>,
    network: Random,
    work: Random,
    churn: Random,
    n_batches: u32,
    pub(crate) n_crashes: u64,
}

impl Coordinator {
    pub(crate) fn new(cx: &mut Context) -> Self {
        let stream = |purpose| Random::keyed(cx.seed, Entity::Coordinator, purpose);
        let mut coordinator = Self {
            process: None,
            journal: Journal::default(),
            life: 0,
            acknowledged: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            network: stream(Purpose::Network),
            work: stream(Purpose::Work),
            churn: stream(Purpose::Churn),
            n_batches: 0,
            n_crashes: 0,
        };
        coordinator.start(cx);
        coordinator
    }
}

/// Starting, crashing, returning.
impl Coordinator {
    /// Starts a process on what the journal holds.
    pub(crate) fn start(&mut self, cx: &mut Context) {
        let config = &cx.scenario.coordinator.core;
        let core = match self.journal.replay(config) {
            Ok(core) => core,
            Err(violation) => return cx.violated(*violation),
        };
        self.process = Some(Process {
            core,
            inbox: VecDeque::new(),
            under_way: None,
            greeted: BTreeMap::new(),
            pulling: BTreeMap::new(),
            reminder: None,
        });
        if let Some(churn) = &cx.scenario.coordinator.churn {
            let up = self.churn.duration(&churn.up);
            cx.after(up, Event::CoordinatorCrashes { life: self.life });
        }
        let is_first = self.journal.len() == 0;
        if is_first || !cx.has(Defect::NoResume) {
            let mut step = Step::default();
            if let Some(process) = &mut self.process {
                process.core.resume(cx.now.timestamp());
                process.drain(cx, &mut step);
            }
            self.commit(cx, step);
        }
        self.go_on(cx);
    }

    pub(crate) fn on_crash(&mut self, cx: &mut Context, life: u32) {
        if life != self.life || !cx.faults {
            return;
        }
        let Some(process) = self.process.take() else { return };
        self.life += 1;
        self.n_crashes += 1;
        cx.note(What::CoordinatorCrashes, [self.n_crashes, self.journal.len() as u64, 0]);
        let is_kept = self.churn.chance(0.5);
        match process.under_way {
            Some(step) if is_kept => {
                cx.note(What::BatchKept, [step.records.len() as u64, 0, 0]);
                self.store(cx, step.records, &step.receipts);
            }
            Some(step) => cx.note(What::BatchLost, [step.records.len() as u64, 0, 0]),
            None => self.compare(cx, &process.core),
        }
        if cx.has(Defect::LyingDisk) {
            self.journal.lie();
        }
        self.check_promises(cx);
        let churn = cx.scenario.coordinator.churn.as_ref();
        let down = churn.map_or(Duration::ZERO, |churn| self.churn.duration(&churn.down));
        cx.after(down, Event::CoordinatorReturns);
    }

    /// Whatever a host was told is stored must be known to the next process: a report that is
    /// sent again must change nothing.
    fn check_promises(&self, cx: &mut Context) {
        let mut probe = match self.journal.replay(&cx.scenario.coordinator.core) {
            Ok(core) => core,
            Err(violation) => return cx.violated(*violation),
        };
        for &job in &self.acknowledged {
            if probe.job_state(cx.jobs.job(job).cid).is_none() {
                cx.violated(Violation::JobLost { job });
            }
        }
        let mut lost = Vec::new();
        for (replica, host, unit, product) in cx.books.promises() {
            let result = statement(&cx.jobs, replica, unit, names::name(host), product);
            let sealed = codec::encode(&result);
            probe.handle(
                cx.now.timestamp(),
                Fact::ResultReported { result: Box::new(result), sealed },
            );
            let mut is_known = false;
            while let Some(action) = probe.poll_action() {
                match action {
                    Action::Verdict(Verdict::Stored | Verdict::TooLate) => is_known = true,
                    Action::Persist(_) => {
                        lost.push(replica);
                        is_known = true;
                    }
                    _ => {}
                }
            }
            if !is_known {
                lost.push(replica);
            }
        }
        for replica in lost {
            cx.violated(Violation::AcknowledgedLost { replica });
        }
    }

    /// The live core must be what its durable records say.
    fn compare(&self, cx: &mut Context, core: &Core) {
        match self.journal.replay(&cx.scenario.coordinator.core) {
            Ok(standby) if standby.state() == core.state() => {}
            Ok(_) => cx.violated(Violation::ReplayDiffers { records: self.journal.len() }),
            Err(violation) => cx.violated(*violation),
        }
    }

    /// The last comparisons of a run.
    pub(crate) fn check_at_the_end(&self, cx: &mut Context) {
        let Some(process) = &self.process else { return };
        if process.under_way.is_none() {
            self.compare(cx, &process.core);
        }
        let figures: Vec<(u32, u64)> = cx
            .jobs
            .iter()
            .filter_map(|(number, job)| Some((number, process.core.job(job.cid)?.done)))
            .collect();
        for (job, done) in figures {
            cx.books.count(job, done);
        }
    }
}

/// The loop.
impl Coordinator {
    fn push(&mut self, cx: &mut Context, input: Input) {
        if let Some(process) = &mut self.process {
            process.inbox.push_back(input);
            self.go_on(cx);
        }
    }

    /// Handles what waits, until a batch is under way or nothing is left to do.
    pub(crate) fn go_on(&mut self, cx: &mut Context) {
        loop {
            let Some(process) = &mut self.process else { return };
            if process.under_way.is_some() {
                return;
            }
            let now = cx.now.timestamp();
            let mut step = Step::default();
            if !process.inbox.is_empty() {
                let n = process.inbox.len().min(BATCH);
                let inputs: Vec<Input> = process.inbox.drain(..n).collect();
                for input in inputs {
                    process.on_input(cx, input, &mut step);
                }
            } else if process.core.next_deadline().is_some_and(|at| at <= now)
                && !cx.has(Defect::LostDeadlines)
            {
                process.core.handle(now, Fact::DeadlineReached);
                process.drain(cx, &mut step);
            } else {
                process.remind(cx, self.life);
                return;
            }
            self.commit(cx, step);
        }
    }

    fn commit(&mut self, cx: &mut Context, mut step: Step) {
        if step.records.is_empty() {
            return self.publish(cx, step.effects);
        }
        if cx.has(Defect::EarlyAnswers) {
            self.publish(cx, std::mem::take(&mut step.effects));
        }
        let sync = self.work.duration(&cx.scenario.coordinator.sync);
        cx.after(sync, Event::Committed { life: self.life });
        if let Some(process) = &mut self.process {
            process.under_way = Some(step);
        }
    }

    pub(crate) fn on_committed(&mut self, cx: &mut Context, life: u32) {
        if life != self.life {
            return;
        }
        let Some(process) = &mut self.process else { return };
        let Some(step) = process.under_way.take() else { return };
        cx.note(What::Committed, [step.records.len() as u64, step.receipts.len() as u64, 0]);
        self.store(cx, step.records, &step.receipts);
        self.n_batches += 1;
        let every = cx.scenario.coordinator.compare_every;
        if every > 0
            && self.n_batches.is_multiple_of(every)
            && let Some(process) = &self.process
        {
            self.compare(cx, &process.core);
        }
        self.publish(cx, step.effects);
        self.go_on(cx);
    }

    fn store(&mut self, cx: &mut Context, records: Vec<Record>, receipts: &[Receipt]) {
        for receipt in receipts {
            let UnitId { job, index } = receipt.unit;
            cx.note(What::Accepted, [job.into(), index, short(receipt.output)]);
        }
        cx.books.durable(&cx.jobs, &self.journal.vault, &records, receipts);
        self.journal.append(records);
    }

    fn publish(&mut self, cx: &mut Context, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { calling, answer } => self.send(cx, calling, answer),
                Effect::Acknowledge { job, cancelled: false } => {
                    self.acknowledged.insert(job);
                }
                Effect::Acknowledge { job, cancelled: true } => {
                    self.cancelled.insert(job);
                }
                Effect::Announce => self.announce(cx),
                Effect::Pull { unit, output, holders } => self.pull(cx, unit, output, &holders),
            }
        }
    }
}

/// What becomes visible.
impl Coordinator {
    fn send(&mut self, cx: &mut Context, calling: Calling, answer: Answer) {
        let Calling { host, life, question, reported } = calling;
        match &answer {
            Answer::Work(leases) => {
                for lease in leases {
                    cx.note(What::Granted, [host.into(), lease.replica.0, lease.unit.index]);
                    cx.books.granted(host, lease.replica, lease.unit);
                }
            }
            Answer::Reported(verdicts) => {
                for (verdict, replica) in verdicts.iter().zip(&reported) {
                    cx.note(What::Verdict, [host.into(), replica.0, *verdict as u64]);
                    if *verdict == Verdict::Stored {
                        cx.books.acknowledged(*replica);
                    }
                }
            }
            Answer::Welcome | Answer::Heartbeat { .. } | Answer::RegisterFirst => {}
        }
        let mut is_lost = true;
        for latency in cx.carry(&mut self.network) {
            is_lost = false;
            let answer = Box::new(answer.clone());
            cx.after(latency, Event::ToHost { host, life, question, answer });
        }
        // Sometimes the shell sees that an answer could not be sent, sometimes it does not.
        let is_noticed = self.network.chance(0.5);
        if is_lost {
            cx.note(What::AnswerLost, [host.into(), question, u64::from(is_noticed)]);
            if let (Answer::Work(leases), true, Some(process)) =
                (answer, is_noticed, &mut self.process)
            {
                let replicas: Vec<ReplicaId> = leases.iter().map(|lease| lease.replica).collect();
                if !replicas.is_empty() {
                    process.inbox.push_back(Input::Undelivered { replicas });
                }
            }
        }
    }

    fn announce(&mut self, cx: &mut Context) {
        cx.note(What::Announced, [0; 3]);
        for host in 0..cx.scenario.hosts() + cx.scenario.reinforcements {
            for latency in cx.carry(&mut self.network) {
                cx.after(latency, Event::Announced { host });
            }
        }
    }

    fn pull(&mut self, cx: &mut Context, unit: UnitId, output: Cid, holders: &[NodeId]) {
        let Some(process) = &mut self.process else { return };
        let holders = holders.iter().map(names::host);
        if let Some(pulling) = process.pulling.get_mut(&unit) {
            pulling.holders.extend(holders);
            return;
        }
        process.pulling.insert(unit, Pulling { output, holders: holders.collect() });
        let time = self.work.duration(&cx.scenario.coordinator.pull);
        cx.after(time, Event::Pull { life: self.life, unit });
    }

    /// Tries to pull an output; `serves` says whether a host gives it.
    pub(crate) fn on_pull(
        &mut self,
        cx: &mut Context,
        life: u32,
        unit: UnitId,
        serves: impl Fn(u32, Cid) -> bool,
    ) {
        /// Pause before an output that nobody gave is asked for again.
        const RETRY: Duration = Duration::from_secs(2);
        if life != self.life {
            return;
        }
        let Some(process) = &mut self.process else { return };
        let Some(pulling) = process.pulling.get(&unit) else { return };
        let output = pulling.output;
        let is_here = self.journal.vault.contains(&output)
            || pulling.holders.iter().any(|&host| serves(host, output));
        let UnitId { job, index } = unit;
        if is_here {
            cx.note(What::OutputPulled, [job.into(), index, short(output)]);
            self.journal.vault.insert(output);
            process.pulling.remove(&unit);
            self.push(cx, Input::Pulled { unit });
        } else {
            cx.note(What::OutputMissing, [job.into(), index, short(output)]);
            cx.after(RETRY, Event::Pull { life, unit });
        }
    }
}

/// What happens outside.
impl Coordinator {
    pub(crate) fn on_request(&mut self, cx: &mut Context, calling: Calling, request: Request) {
        self.push(cx, Input::Asked { calling, request });
    }

    pub(crate) fn on_deadline(&mut self, cx: &mut Context, life: u32, at: Moment) {
        if life == self.life
            && let Some(process) = &mut self.process
            && process.reminder == Some(at)
        {
            process.reminder = None;
            self.go_on(cx);
        }
    }

    /// The owner submits or cancels a job, unless it was acknowledged. Says whether there is
    /// anything left to come back for.
    pub(crate) fn on_owner(&mut self, cx: &mut Context, job: u32) -> Option<Duration> {
        /// Pause of an owner who got no answer.
        const RETRY: Duration = Duration::from_secs(10);
        if !self.acknowledged.contains(&job) {
            self.push(cx, Input::Submitted { job });
            return Some(RETRY);
        }
        let cancel = cx.jobs.job(job).plan.cancel?;
        if self.cancelled.contains(&job) {
            return None;
        }
        let age = cx.now.age();
        if age < cancel {
            return Some(cancel - age);
        }
        self.push(cx, Input::Cancelled { job });
        Some(RETRY)
    }

    /// The core, to look at.
    pub(crate) fn core(&self) -> Option<&Core> {
        self.process.as_ref().map(|process| &process.core)
    }

    /// Whether every job was taken on and has ended.
    pub(crate) fn are_jobs_over(&self, cx: &Context) -> bool {
        let Some(core) = self.core() else { return false };
        cx.jobs.iter().all(|(number, job)| {
            let is_over = |state| state != JobState::Running;
            self.acknowledged.contains(&number) && core.job_state(job.cid).is_some_and(is_over)
        })
    }

    pub(crate) fn n_records(&self) -> u64 {
        self.journal.len() as u64
    }
}

impl Process {
    fn on_input(&mut self, cx: &mut Context, input: Input, step: &mut Step) {
        match input {
            Input::Asked { calling, request } => {
                if let Some(answer) = self.on_request(cx, &calling, request, step) {
                    step.effects.push(Effect::Answer { calling, answer });
                }
            }
            Input::Submitted { job } => {
                cx.note(What::JobSubmitted, [job.into(), 0, 0]);
                let submitted = cx.jobs.job(job);
                let spec = Box::new(submitted.submitted(cx.scenario.defect));
                let (cid, units) = (submitted.cid, submitted.plan.units);
                self.tell(cx, Fact::JobAdded { job: cid, spec, units }, step);
                step.effects.push(Effect::Acknowledge { job, cancelled: false });
            }
            Input::Cancelled { job } => {
                cx.note(What::JobCancelled, [job.into(), 0, 0]);
                let cid = cx.jobs.job(job).cid;
                self.tell(cx, Fact::JobCancelled { job: cid }, step);
                step.effects.push(Effect::Acknowledge { job, cancelled: true });
            }
            Input::Undelivered { replicas } => {
                self.tell(cx, Fact::LeasesUndelivered { replicas }, step);
            }
            Input::Pulled { unit } => {
                let (job, index) = (cx.jobs.job(unit.job).cid, unit.index);
                self.tell(cx, Fact::OutputStored { job, index }, step);
            }
        }
    }

    fn on_request(
        &mut self,
        cx: &mut Context,
        calling: &Calling,
        request: Request,
        step: &mut Step,
    ) -> Option<Answer> {
        let host = calling.host;
        let node = self.name(cx, host, calling.life);
        let is_greeted = self.greeted.get(&host) == Some(&calling.life);
        Some(match request {
            Request::Register { executors, offer } => {
                self.greeted.insert(host, calling.life);
                self.register(cx, node, executors, offer, step);
                Answer::Welcome
            }
            _ if !is_greeted => Answer::RegisterFirst,
            Request::Work(request) => {
                let said = self.tell(cx, Fact::WorkRequested { node, request }, step);
                let Said::Leases(granted) = said else { return None };
                Answer::Work(granted.iter().map(|granted| lease(cx, granted)).collect())
            }
            Request::Report(results) => {
                let verdicts =
                    results.into_iter().map(|result| self.report(cx, node, result, step));
                Answer::Reported(verdicts.collect())
            }
            Request::Heartbeat { running, kept } => {
                let said = self.tell(cx, Fact::Heartbeat { node, running, kept }, step);
                let Said::Heartbeat { abandon, forget } = said else { return None };
                Answer::Heartbeat { abandon, forget }
            }
        })
    }

    fn register(
        &mut self,
        cx: &mut Context,
        node: NodeId,
        executors: Vec<ExecutorKind>,
        offer: Capacity,
        step: &mut Step,
    ) {
        self.tell(cx, Fact::NodeRegistered { node, executors, offer }, step);
    }

    /// Checks what the core trusts the shell to have checked, then tells it.
    fn report(
        &mut self,
        cx: &mut Context,
        node: NodeId,
        mut result: ResultStatement,
        step: &mut Step,
    ) -> Verdict {
        if cx.has(Defect::NewNames) {
            result.node = node;
        }
        if result.node != node && !cx.has(Defect::StolenNames) {
            return Verdict::NotYours;
        }
        if let Some((job, index)) = self.core.unit_of(result.replica) {
            let unit = cx.jobs.unit(&job, index);
            if job != result.job || cx.jobs.unit_cid(unit) != result.unit {
                return Verdict::NotRight;
            }
        }
        let sealed = codec::encode(&result);
        let fact = Fact::ResultReported { result: Box::new(result), sealed };
        match self.tell(cx, fact, step) {
            Said::Verdict(verdict) => verdict,
            Said::Leases(_) | Said::Heartbeat { .. } | Said::Nothing => Verdict::NotRight,
        }
    }

    /// Under which name the core knows a host.
    fn name(&self, cx: &Context, host: u32, life: u32) -> NodeId {
        if cx.has(Defect::NewNames) { names::alias(host, life) } else { names::name(host) }
    }

    fn tell(&mut self, cx: &mut Context, fact: Fact, step: &mut Step) -> Said {
        self.core.handle(cx.now.timestamp(), fact);
        self.drain(cx, step)
    }

    /// Collects what the core wants, and gives the answer among it.
    fn drain(&mut self, cx: &mut Context, step: &mut Step) -> Said {
        let mut said = Said::Nothing;
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Persist(record) => step.records.push(record),
                Action::Lease(granted) => said = Said::Leases(granted),
                Action::Verdict(verdict) => said = Said::Verdict(verdict),
                Action::HeartbeatAnswer { abandon, forget } => {
                    said = Said::Heartbeat { abandon, forget };
                }
                Action::Accept { job, index, output, at: _, results } => {
                    let unit = cx.jobs.unit(&job, index);
                    step.receipts.push(Receipt { unit, output, results });
                }
                Action::FetchOutput { job, index, output, holders } => {
                    let unit = cx.jobs.unit(&job, index);
                    step.effects.push(Effect::Pull { unit, output, holders });
                }
                Action::AnnounceWork => step.effects.push(Effect::Announce),
                Action::JobEnded { job, state: _ } => {
                    let number = cx.jobs.unit(&job, 0).job;
                    cx.note(What::JobEnded, [number.into(), 0, 0]);
                }
            }
        }
        said
    }

    /// Has the queue remind of the core's next deadline.
    fn remind(&mut self, cx: &mut Context, life: u32) {
        let Some(at) = self.core.next_deadline().map(Moment::at) else { return };
        if cx.has(Defect::LostDeadlines) || self.reminder.is_some_and(|reminder| reminder <= at) {
            return;
        }
        self.reminder = Some(at);
        cx.queue.push(at, Event::Deadline { life, at });
    }
}

fn lease(cx: &Context, granted: &Granted) -> Lease {
    Lease {
        replica: granted.replica,
        unit: cx.jobs.unit(&granted.job, granted.index),
        expires_in: granted.deadline.since(cx.now.timestamp()),
    }
}

/// The first bytes of an output's digest: enough for the trace.
fn short(output: Cid) -> u64 {
    output.hash().digest().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
