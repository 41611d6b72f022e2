//! The worker: one task that owns the agent and carries out what it wants.
//!
//! The agent decides; this loop feeds it and spawns a task for each action. Whatever such a
//! task learns comes back as a message, after it is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_agent::{Action, Agent, Event, Lease};
use dockercomp_protocol::ReplicaId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::Board;
use crate::office::Office;
use crate::replica::Replica;

/// Messages that wait for the agent.
const QUEUE: usize = 1024;

/// How long replicas may take to stop when the node stops.
const PATIENCE: Duration = Duration::from_secs(15);

/// What tasks tell the worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something happened.
    Event(Event),
    /// These leases were accepted and are durable.
    Leased { replicas: Vec<(Replica, Lease)>, retry: Duration },
    /// The task of a replica ended, and this is what came of it.
    Ended { replica: ReplicaId, event: Event },
}

/// Where tasks tell the worker.
pub(crate) type Sender = mpsc::Sender<Message>;

/// A channel to a worker.
pub(crate) fn channel() -> (Sender, mpsc::Receiver<Message>) {
    mpsc::channel(QUEUE)
}

/// The worker, before it runs.
pub(crate) struct Worker {
    agent: Agent,
    office: Arc<Office>,
    board: Board,
    messages: mpsc::Receiver<Message>,
    replicas: BTreeMap<ReplicaId, Replica>,
    busy: BTreeMap<ReplicaId, CancellationToken>,
}

impl Worker {
    /// A worker that goes on with `replicas`, which the agent knows as leases.
    pub(crate) fn new(
        agent: Agent,
        office: Arc<Office>,
        board: Board,
        messages: mpsc::Receiver<Message>,
        replicas: Vec<Replica>,
    ) -> Self {
        let replicas = replicas.into_iter().map(|replica| (replica.id, replica)).collect();
        Self { agent, office, board, messages, replicas, busy: BTreeMap::new() }
    }

    /// Works until `shutdown`, then stops what runs. Leases stay on the desk for the next
    /// start.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.tell(Event::Wake);
        loop {
            let wake = self.agent.next_wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.office.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                message = self.messages.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => break,
                },
                () = sleep => self.tell(Event::Wake),
            }
        }
        for cancel in self.busy.values() {
            cancel.cancel();
        }
        // Runs should end before the executor is cleaned up, which stops what is left of them.
        if tokio::time::timeout(PATIENCE, self.drain()).await.is_err() {
            tracing::warn!(replicas = self.busy.len(), "replicas did not stop in time");
        }
    }

    async fn drain(&mut self) {
        while !self.busy.is_empty() {
            match self.messages.recv().await {
                Some(Message::Ended { replica, .. }) => drop(self.busy.remove(&replica)),
                Some(Message::Event(_) | Message::Leased { .. }) => {}
                None => return,
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.tell(event),
            Message::Leased { replicas, retry } => {
                let leases = replicas.iter().map(|(_, lease)| *lease).collect();
                self.replicas
                    .extend(replicas.into_iter().map(|(replica, _)| (replica.id, replica)));
                self.tell(Event::Assigned { leases, retry });
            }
            Message::Ended { replica, event } => {
                self.busy.remove(&replica);
                if matches!(event, Event::Finished { .. } | Event::Aborted { .. }) {
                    self.replicas.remove(&replica);
                }
                self.tell(event);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let mut waiting = vec![event];
        while let Some(event) = waiting.pop() {
            self.agent.handle(self.office.clock.now(), event);
            while let Some(action) = self.agent.poll_action() {
                waiting.extend(self.carry_out(action));
            }
        }
        self.board.tasks(self.agent.counts());
    }

    /// Begins an action. Gives an event if it is over at once.
    fn carry_out(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::AskForWork { free, leases_max } => {
                let office = Arc::clone(&self.office);
                tokio::spawn(async move { office.ask_for_work(free, leases_max).await });
            }
            Action::Report { replicas } => {
                let office = Arc::clone(&self.office);
                tokio::spawn(async move { office.report(replicas).await });
            }
            Action::Heartbeat { running, kept } => {
                let office = Arc::clone(&self.office);
                tokio::spawn(async move { office.heartbeat(running, kept).await });
            }
            Action::Forget { replica } => {
                let office = Arc::clone(&self.office);
                tokio::spawn(async move { office.forget(replica).await });
            }
            Action::FetchInputs { replica: id } => {
                let Some((replica, cancel)) = self.occupy(id) else {
                    return Some(Event::Aborted { replica: id });
                };
                let office = Arc::clone(&self.office);
                tokio::spawn(async move { office.fetch_inputs(replica, cancel).await });
            }
            Action::Start { replica: id } => {
                let Some((replica, cancel)) = self.occupy(id) else {
                    return Some(Event::Aborted { replica: id });
                };
                let office = Arc::clone(&self.office);
                tokio::spawn(async move { office.run(replica, cancel).await });
            }
            Action::Abort { replica, reason } => {
                tracing::info!(%replica, ?reason, "replica stopped");
                match self.busy.get(&replica) {
                    Some(cancel) => cancel.cancel(),
                    None => {
                        self.replicas.remove(&replica);
                        let office = Arc::clone(&self.office);
                        tokio::spawn(async move { office.drop_lease(replica).await });
                        return Some(Event::Aborted { replica });
                    }
                }
            }
        }
        None
    }

    /// The replica, and the token that stops the task which is about to work on it.
    fn occupy(&mut self, id: ReplicaId) -> Option<(Replica, CancellationToken)> {
        let replica = self.replicas.get(&id)?.clone();
        let cancel = CancellationToken::new();
        self.busy.insert(id, cancel.clone());
        Some((replica, cancel))
    }
}
