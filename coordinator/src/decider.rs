//! The decider: one task that owns the core and its journal.
//!
//! ```text
//! events ──► handle, drain ──► one batch, synced ──► answers, effects
//!            (many at a time)   durable first         visible second
//! ```
//!
//! Events that wait are handled together and made durable with one sync (group commit). While
//! one batch is being written the next is decided, and it is written when the first is on disk,
//! so there is never more than one under way and their order is the order of decisions. If
//! the batch cannot be written, the core is ahead of the disk: the task ends, the process
//! stops, and the next one replays the journal.
//!
//! Whoever looks at the core sees only what is durable: a look waits until everything decided
//! before it is on disk, and nothing is decided meanwhile.

use std::sync::Arc;
use std::time::Duration;

use dockercomp_coordinator_core::{Action, Core, Event, Granted, Record};
use dockercomp_peer::clock::Clock;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp, codec};
use dockercomp_store::{Row, Store, StoreError};
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::inline;
use crate::journal::Journal;
use crate::log::{Log, SealedHead};
use crate::receipts;

/// Events that may wait; whoever brings more waits with them.
const QUEUE: usize = 4096;
/// Commands that are taken at one time, so that a free disk does not wait for long.
const BATCH: usize = 16;
/// Records and rows that one batch holds before it must be written; then commands wait. Two
/// batches are in memory at a time, and each change is some hundred bytes.
const BATCH_CHANGES_MAX: usize = 16 << 10;

/// How often the disk is looked at while it is full.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the core answers to the events that ask something.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a request for work.
    Leases(Vec<Granted>),
    /// To a reported result.
    Verdict(Verdict),
    /// To a report.
    Verdicts(Vec<Verdict>),
    /// To a heartbeat.
    Heartbeat { abandon: Vec<ReplicaId>, forget: Vec<ReplicaId> },
    /// To everything else: it is durable.
    Done,
    /// To anything: the disk is full, nothing was decided; ask again.
    NoRoom,
}

/// What must be done elsewhere once a decision is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Pull this output.
    FetchOutput { job: Cid, index: u64, output: Cid, holders: Vec<NodeId> },
    /// Say which of these outputs are the same.
    Compare { job: Cid, index: u64, outputs: Vec<(ReplicaId, NodeId, Cid)> },
    /// Tell the nodes that there is work.
    AnnounceWork,
}

/// A result that was checked.
#[derive(Debug)]
pub(crate) struct Reported {
    /// What it says.
    pub(crate) result: Box<ResultStatement>,
    /// The same as it is kept.
    pub(crate) sealed: Vec<u8>,
    /// What its failed program printed, to be kept if the result is.
    pub(crate) log: Option<Row>,
    /// The blocks of its output, if they came with it.
    pub(crate) output: Vec<ByteBuf>,
}

type Look = Box<dyn FnOnce(&Core) + Send>;

enum Command {
    Event { event: Box<Event>, rows: Vec<Row>, answer: oneshot::Sender<Answer> },
    Report { results: Vec<Reported>, answer: oneshot::Sender<Answer> },
    Look(Look),
}

/// The decider is gone: the coordinator stops.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is stopping")]
pub(crate) struct Stopped;

/// Access to the decider.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    paused: watch::Receiver<Option<String>>,
    clock: Clock,
}

/// The task itself, before it runs.
pub(crate) struct Decider {
    core: Core,
    journal: Journal,
    clock: Clock,
    store: Store,
    log: Log,
    commands: mpsc::Receiver<Command>,
    effects: mpsc::UnboundedSender<Effect>,
    /// Why nothing is decided at the moment.
    paused: watch::Sender<Option<String>>,
}

impl Decider {
    /// A decider for a core that was replayed, and access to it.
    pub(crate) fn new(
        core: Core,
        journal: Journal,
        clock: Clock,
        store: Store,
        log: Log,
    ) -> (Self, Handle, mpsc::UnboundedReceiver<Effect>) {
        let (sender, commands) = mpsc::channel(QUEUE);
        // Bounded by the core: one output for each unit in flight, one announcement a step.
        let (effects, effects_receiver) = mpsc::unbounded_channel();
        let (paused, paused_receiver) = watch::channel(None);
        let handle = Handle { commands: sender, paused: paused_receiver, clock };
        let decider = Self { core, journal, clock, store, log, commands, effects, paused };
        (decider, handle, effects_receiver)
    }

    /// Decides until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        self.core.resume(self.clock.now());
        let mut step = Step::default();
        self.drain(&mut step, None);
        let mut writing: Option<Writing> = None;
        // Whether somebody waits to see what is being written: nothing else may be seen.
        let mut is_looked_at = false;
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            if writing.is_none() && !step.is_empty() {
                let step = std::mem::take(&mut step);
                if step.records.is_empty() && step.rows.is_empty() {
                    self.publish(step);
                } else {
                    is_looked_at = !step.looks.is_empty();
                    writing = Some(self.write(step));
                }
            }
            if writing.is_none() && self.journal.is_due() {
                self.journal.snapshot(self.core.state().clone()).await;
            }
            // A snapshot is of what is durable, like a look.
            let may_decide = step.may_grow() && !is_looked_at && !self.journal.is_due();
            self.look_at_disk();
            let deadline = if self.is_paused() {
                Some(tokio::time::Instant::now() + LOOK_AGAIN)
            } else {
                self.core.next_deadline().map(|at| self.clock.instant(at))
            };
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                written = written(&mut writing) => {
                    self.publish(written?);
                    (writing, is_looked_at) = (None, false);
                    continue;
                }
                received = self.commands.recv_many(&mut waiting, BATCH), if may_decide => {
                    if received == 0 {
                        return Ok(());
                    }
                    for command in waiting.drain(..) {
                        self.on_command(command, &mut step);
                    }
                }
                () = sleep, if may_decide => {}
            }
            // Looked at after every batch: commands that never stop must not keep leases alive.
            let is_due = self.core.next_deadline().is_some_and(|at| at <= self.clock.now());
            if is_due && !self.is_paused() {
                self.core.handle(self.clock.now(), Event::DeadlineReached);
                self.drain(&mut step, None);
            }
        }
    }

    /// Pauses while the disk is nearly full: what is decided could not be written down.
    fn look_at_disk(&mut self) {
        match (self.store.check_room(), self.is_paused()) {
            (Ok(()), false) | (Err(_), true) => {}
            (Err(error), false) => {
                tracing::error!(%error, "paused: nothing is decided until there is room");
                self.paused.send_replace(Some(error.to_string()));
            }
            (Ok(()), true) => {
                tracing::info!("there is room on the disk again, work goes on");
                // Nodes could not report meanwhile.
                self.core.excuse(self.clock.now());
                self.paused.send_replace(None);
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.paused.borrow().is_some()
    }

    fn on_command(&mut self, command: Command, step: &mut Step) {
        match command {
            Command::Event { answer, .. } | Command::Report { answer, .. } if self.is_paused() => {
                let _ = answer.send(Answer::NoRoom);
            }
            Command::Event { event, rows, answer } => {
                self.core.handle(self.clock.now(), *event);
                let answered = self.drain(step, None).unwrap_or(Answer::Done);
                step.rows.extend(rows);
                step.answers.push((answer, answered));
            }
            Command::Report { results, answer } => {
                let verdicts = results.into_iter().map(|result| self.on_result(result, step));
                let verdicts = verdicts.collect();
                step.answers.push((answer, Answer::Verdicts(verdicts)));
            }
            // What is seen must be durable: looks wait for the commit.
            Command::Look(look) => step.looks.push(look),
        }
    }

    fn on_result(&mut self, reported: Reported, step: &mut Step) -> Verdict {
        let Reported { result, sealed, log, output } = reported;
        let came = result.output.filter(|_| !output.is_empty());
        let came = came.map(|root| Came { root, blocks: &output });
        self.core.handle(self.clock.now(), Event::ResultReported { result, sealed });
        match self.drain(step, came) {
            Some(Answer::Verdict(verdict)) => {
                // What comes with a refused result is refused as well.
                step.rows.extend(log.filter(|_| verdict == Verdict::Stored));
                verdict
            }
            _ => unreachable!("the core answers a report with a verdict"),
        }
    }

    /// Collects what the core wants, and gives the answer among it. An output that is wanted
    /// and `came` with the event is kept at once.
    fn drain(&mut self, step: &mut Step, came: Option<Came<'_>>) -> Option<Answer> {
        let mut answer = None;
        let mut here = Vec::new();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Persist(record) => step.records.push(record),
                Action::Accept { job, index, inputs, output, at, basis, results } => {
                    let entry = receipts::entry(job, index, inputs, output, at, basis, results);
                    step.rows.push(self.log.append(&entry));
                }
                Action::Lease(granted) => answer = Some(Answer::Leases(granted)),
                Action::Verdict(verdict) => answer = Some(Answer::Verdict(verdict)),
                Action::HeartbeatAnswer { abandon, forget } => {
                    answer = Some(Answer::Heartbeat { abandon, forget });
                }
                Action::FetchOutput { job, index, output, holders } => match came {
                    Some(Came { root, blocks }) if root == output => {
                        step.rows.push(inline::row(&output, blocks));
                        here.push((job, index));
                    }
                    _ => step.effects.push(Effect::FetchOutput { job, index, output, holders }),
                },
                Action::Compare { job, index, outputs } => {
                    step.effects.push(Effect::Compare { job, index, outputs });
                }
                Action::AnnounceWork => step.effects.push(Effect::AnnounceWork),
                Action::JobEnded { job, state } => {
                    tracing::info!(%job, ?state, "job ended");
                }
            }
        }
        for (job, index) in here {
            self.core.handle(self.clock.now(), Event::OutputStored { job, index });
            self.drain(step, None);
        }
        answer
    }

    /// Begins to make a step durable.
    fn write(&mut self, mut step: Step) -> Writing {
        step.head = self.log.close(self.clock.now(), &mut step.rows);
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let records: Vec<Vec<u8>> =
                std::mem::take(&mut step.records).iter().map(codec::encode).collect();
            let rows = std::mem::take(&mut step.rows);
            if !records.is_empty() || !rows.is_empty() {
                store.append(&records, &rows)?;
            }
            let bytes = records.iter().map(|record| record.len() as u64).sum();
            step.appended = (records.len() as u64, bytes);
            Ok(step)
        })
    }

    /// Lets a step be seen that is durable.
    fn publish(&mut self, step: Step) {
        let (n_records, bytes) = step.appended;
        self.journal.appended(n_records, bytes);
        self.log.publish(step.head);
        for effect in step.effects {
            // Nobody listens any more only while the process stops.
            let _ = self.effects.send(effect);
        }
        for (answer, answered) in step.answers {
            let _ = answer.send(answered);
        }
        for look in step.looks {
            look(&self.core);
        }
    }
}

/// A step on its way to the disk.
type Writing = JoinHandle<Result<Step, StoreError>>;

/// Waits until what is being written is durable; for ever if nothing is.
async fn written(writing: &mut Option<Writing>) -> Result<Step, StoreError> {
    match writing {
        Some(writing) => writing.await.expect("appending does not panic"),
        None => std::future::pending().await,
    }
}

/// The output that came with a result.
#[derive(Clone, Copy)]
struct Came<'a> {
    root: Cid,
    blocks: &'a [ByteBuf],
}

/// What a batch of events leads to.
#[derive(Default)]
struct Step {
    records: Vec<Record>,
    rows: Vec<Row>,
    /// The head of the log after this step, if the step added to the log.
    head: Option<Arc<SealedHead>>,
    /// Records that were appended, and their bytes, once they are durable.
    appended: (u64, u64),
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    effects: Vec<Effect>,
    looks: Vec<Look>,
}

impl Step {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.rows.is_empty()
            && self.answers.is_empty()
            && self.effects.is_empty()
            && self.looks.is_empty()
    }

    /// Whether more may be decided before it is written.
    fn may_grow(&self) -> bool {
        self.looks.is_empty() && self.records.len() + self.rows.len() < BATCH_CHANGES_MAX
    }
}

impl Handle {
    /// Tells the core something and waits until it is durable.
    pub(crate) async fn tell(&self, event: Event) -> Result<Answer, Stopped> {
        self.tell_with(event, Vec::new()).await
    }

    /// The same, with rows that become durable together with the decision.
    pub(crate) async fn tell_with(&self, event: Event, rows: Vec<Row>) -> Result<Answer, Stopped> {
        let (answer, pending) = oneshot::channel();
        let command = Command::Event { event: Box::new(event), rows, answer };
        self.commands.send(command).await.map_err(|_| Stopped)?;
        pending.await.map_err(|_| Stopped)
    }

    /// Tells the core of results, and waits until what became of them is durable: one verdict
    /// each, in order.
    pub(crate) async fn report(&self, results: Vec<Reported>) -> Result<Vec<Verdict>, Stopped> {
        let (answer, pending) = oneshot::channel();
        let command = Command::Report { results, answer };
        self.commands.send(command).await.map_err(|_| Stopped)?;
        match pending.await {
            Ok(Answer::Verdicts(verdicts)) => Ok(verdicts),
            // Nothing is decided for want of room, or any more: the node tries again.
            _ => Err(Stopped),
        }
    }

    /// Looks at the core between two decisions.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, pending) = oneshot::channel();
        let command = Command::Look(Box::new(move |core| {
            let _ = answer.send(look(core));
        }));
        self.commands.send(command).await.map_err(|_| Stopped)?;
        pending.await.map_err(|_| Stopped)
    }

    /// Why nothing is decided at the moment, if so.
    pub(crate) fn paused(&self) -> Option<String> {
        self.paused.borrow().clone()
    }

    /// The time as the core sees it.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[cfg(test)]
mod tests;
