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
//! | Module | What |
//! |---|---|
//! | `process` | what reaches the shell, and what the core makes of it |
//! | `effects` | what becomes visible once it is durable |
//! | `promises` | what must be true after a crash and at the end |

mod effects;
mod process;
mod promises;

use std::collections::BTreeSet;
use std::time::Duration;

use dockercomp_coordinator_core::{Core, Event as Fact, JobState, Record};
use dockercomp_protocol::Cid;

pub(crate) use process::Receipt;

use crate::context::{Context, Event};
use crate::defect::Defect;
use crate::jobs::UnitId;
use crate::journal::Journal;
use crate::message::{Calling, Request};
use crate::moment::Moment;
use crate::random::{Entity, Purpose, Random};
use crate::trace::What;
use process::{Input, Process, Step};

/// Inputs that share one sync.
const BATCH: usize = 1024;

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
        self.process = Some(Process::new(core));
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
        if self.journal.wants_snapshot()
            && let Some(process) = &self.process
        {
            self.journal.snapshot(&process.core);
        }
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
        if let Some(recorded) = &mut cx.recorded {
            recorded.extend_from_slice(&records);
        }
        self.journal.append(records);
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

/// The first bytes of an output's digest: enough for the trace.
fn short(output: Cid) -> u64 {
    output.hash().digest().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
