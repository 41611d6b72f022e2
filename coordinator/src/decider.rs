//! The decider: one task that owns the core and its journal.
//!
//! ```text
//! events ──► handle, drain ──► one batch, synced ──► answers, effects
//!            (many at a time)   durable first         visible second
//! ```
//!
//! Events that wait are handled together and made durable with one sync (group commit). If
//! the batch cannot be written, the core is ahead of the disk: the task ends, the process
//! stops, and the next one replays the journal.

use std::time::Duration;

use dockercomp_coordinator_core::{Action, Core, Event, Granted};
use dockercomp_peer::clock::Clock;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp, codec};
use dockercomp_store::{Row, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;
use crate::log::Log;
use crate::receipts;

/// Events that may wait; whoever brings more waits with them.
const QUEUE: usize = 4096;
/// Events that share one sync.
const BATCH: usize = 1024;

/// How often the disk is looked at while it is full.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the core answers to the events that ask something.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a request for work.
    Leases(Vec<Granted>),
    /// To a reported result.
    Verdict(Verdict),
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
    /// Tell the nodes that there is work.
    AnnounceWork,
}

type Look = Box<dyn FnOnce(&Core) + Send>;

enum Command {
    Event { event: Box<Event>, rows: Vec<Row>, answer: oneshot::Sender<Answer> },
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
        self.drain(&mut step);
        self.commit(step).await?;
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
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
            let mut step = Step::default();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                received = self.commands.recv_many(&mut waiting, BATCH) => {
                    if received == 0 {
                        return Ok(());
                    }
                    for command in waiting.drain(..) {
                        self.on_command(command, &mut step);
                    }
                }
                () = sleep => {}
            }
            // Looked at after every batch: commands that never stop must not keep leases alive.
            let is_due = self.core.next_deadline().is_some_and(|at| at <= self.clock.now());
            if is_due && !self.is_paused() {
                self.core.handle(self.clock.now(), Event::DeadlineReached);
                self.drain(&mut step);
            }
            self.commit(step).await?;
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
            Command::Event { answer, .. } if self.is_paused() => {
                let _ = answer.send(Answer::NoRoom);
            }
            Command::Event { event, rows, answer } => {
                self.core.handle(self.clock.now(), *event);
                let answered = self.drain(step).unwrap_or(Answer::Done);
                // What comes with a refused result is refused as well.
                if !matches!(&answered, Answer::Verdict(verdict) if *verdict != Verdict::Stored) {
                    step.rows.extend(rows);
                }
                step.answers.push((answer, answered));
            }
            // What is seen must be durable: looks wait for the commit.
            Command::Look(look) => step.looks.push(look),
        }
    }

    /// Collects what the core wants, and gives the answer among it.
    fn drain(&mut self, step: &mut Step) -> Option<Answer> {
        let mut answer = None;
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Persist(record) => step.records.push(codec::encode(&record)),
                Action::Accept { job, index, inputs, output, at, basis, results } => {
                    let entry = receipts::entry(job, index, inputs, output, at, basis, results);
                    step.rows.push(self.log.append(&entry));
                }
                Action::Lease(granted) => answer = Some(Answer::Leases(granted)),
                Action::Verdict(verdict) => answer = Some(Answer::Verdict(verdict)),
                Action::HeartbeatAnswer { abandon, forget } => {
                    answer = Some(Answer::Heartbeat { abandon, forget });
                }
                Action::FetchOutput { job, index, output, holders } => {
                    step.effects.push(Effect::FetchOutput { job, index, output, holders });
                }
                // Only asked for by jobs whose comparison is not equality.
                Action::Compare { job, index, .. } => {
                    tracing::warn!(%job, index, "outputs cannot be compared");
                }
                Action::AnnounceWork => step.effects.push(Effect::AnnounceWork),
                Action::JobEnded { job, state } => {
                    tracing::info!(%job, ?state, "job ended");
                }
            }
        }
        answer
    }

    async fn commit(&mut self, step: Step) -> Result<(), StoreError> {
        let Step { records, mut rows, answers, effects, looks } = step;
        let head = self.log.close(self.clock.now(), &mut rows);
        if !records.is_empty() || !rows.is_empty() {
            let store = self.store.clone();
            let n_records = records.len() as u64;
            let bytes = records.iter().map(|record| record.len() as u64).sum();
            tokio::task::spawn_blocking(move || store.append(&records, &rows))
                .await
                .expect("appending does not panic")?;
            self.journal.appended(n_records, bytes);
        }
        self.log.publish(head);
        for effect in effects {
            // Nobody listens any more only while the process stops.
            let _ = self.effects.send(effect);
        }
        for (answer, answered) in answers {
            let _ = answer.send(answered);
        }
        for look in looks {
            look(&self.core);
        }
        if self.journal.is_due() {
            self.journal.snapshot(self.core.state().clone()).await;
        }
        Ok(())
    }
}

/// What a batch of events leads to.
#[derive(Default)]
struct Step {
    records: Vec<Vec<u8>>,
    rows: Vec<Row>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    effects: Vec<Effect>,
    looks: Vec<Look>,
}

impl Handle {
    /// Tells the core something and waits until it is durable.
    pub(crate) async fn tell(&self, event: Event) -> Result<Answer, Stopped> {
        self.tell_with(event, Vec::new()).await
    }

    /// The same, with rows that become durable together with the decision.
    pub(crate) async fn tell_with(&self, event: Event, rows: Vec<Row>) -> Result<Answer, Stopped> {
        let pending = self.begin(event, rows).await?;
        pending.await.map_err(|_| Stopped)
    }

    /// Hands an event over without waiting for its answer, so that many can share a sync.
    pub(crate) async fn begin(
        &self,
        event: Event,
        rows: Vec<Row>,
    ) -> Result<oneshot::Receiver<Answer>, Stopped> {
        let (answer, pending) = oneshot::channel();
        let command = Command::Event { event: Box::new(event), rows, answer };
        self.commands.send(command).await.map_err(|_| Stopped)?;
        Ok(pending)
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
