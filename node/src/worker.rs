//! The worker: one task that owns the household and carries out what its projects want.
//!
//! The household decides; this loop feeds it and spawns a task for each action. Whatever such
//! a task learns comes back as a message, after it is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_agent::{Action, Event, Household, Lease, Member, Share, Standing};
use dockercomp_peer::clock::Clock;
use dockercomp_protocol::ReplicaId;
use dockercomp_protocol::ids::ProjectId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::office::Office;
use crate::replica::Replica;

/// Messages that wait for the household.
const QUEUE: usize = 1024;

/// How long replicas may take to stop when the node stops.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the worker is told.
pub(crate) enum Message {
    /// Something of one project.
    Of(ProjectId, Said),
    /// A project joins.
    Attach(Box<Newcomer>),
    /// A project has another share from now on.
    SetShare(ProjectId, Share),
    /// A project is gone.
    Remove(ProjectId),
}

/// What tasks of a project say.
#[derive(Debug)]
pub(crate) enum Said {
    /// Something happened.
    Event(Event),
    /// These leases were accepted and are durable.
    Leased { replicas: Vec<(Replica, Lease)>, retry: Duration },
    /// The task of a replica ended, and this is what came of it.
    Ended { replica: ReplicaId, event: Event },
}

/// A project that joins.
pub(crate) struct Newcomer {
    pub(crate) office: Arc<Office>,
    pub(crate) member: Member,
    /// The replicas that `member` has leases on.
    pub(crate) replicas: Vec<Replica>,
    /// How it is left, if it is.
    pub(crate) leave: Option<Event>,
}

/// Where all projects stand.
pub(crate) type Standings = BTreeMap<ProjectId, Standing>;

/// Where tasks tell the worker.
pub(crate) type Sender = mpsc::Sender<Message>;

/// A channel to a worker.
pub(crate) fn channel() -> (Sender, mpsc::Receiver<Message>) {
    mpsc::channel(QUEUE)
}

/// The worker, before it runs.
pub(crate) struct Worker {
    household: Household,
    hands: BTreeMap<ProjectId, Hands>,
    clock: Clock,
    messages: mpsc::Receiver<Message>,
    standings: watch::Sender<Standings>,
    /// Who sees projects off of which nothing is left.
    farewells: mpsc::Sender<ProjectId>,
}

/// What is done for one project.
struct Hands {
    office: Arc<Office>,
    replicas: BTreeMap<ReplicaId, Replica>,
    busy: BTreeMap<ReplicaId, CancellationToken>,
}

impl Worker {
    /// A worker without projects.
    pub(crate) fn new(
        household: Household,
        clock: Clock,
        messages: mpsc::Receiver<Message>,
        standings: watch::Sender<Standings>,
        farewells: mpsc::Sender<ProjectId>,
    ) -> Self {
        Self { household, hands: BTreeMap::new(), clock, messages, standings, farewells }
    }

    /// Works until `shutdown`, then stops what runs. Leases stay on the desks for the next
    /// start.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wake = self.household.next_wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
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
                () = sleep => {
                    self.household.wake(self.clock.now());
                    self.carry_out_all();
                }
            }
        }
        for cancel in self.hands.values().flat_map(|hands| hands.busy.values()) {
            cancel.cancel();
        }
        // Runs should end before the executor is cleaned up, which stops what is left of them.
        if tokio::time::timeout(PATIENCE, self.drain()).await.is_err() {
            tracing::warn!(replicas = self.n_busy(), "replicas did not stop in time");
        }
    }

    fn n_busy(&self) -> usize {
        self.hands.values().map(|hands| hands.busy.len()).sum()
    }

    async fn drain(&mut self) {
        while self.n_busy() > 0 {
            let Some(message) = self.messages.recv().await else { return };
            if let Message::Of(project, Said::Ended { replica, .. }) = message
                && let Some(hands) = self.hands.get_mut(&project)
            {
                hands.busy.remove(&replica);
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Of(project, said) => self.on_said(project, said),
            Message::Attach(newcomer) => {
                let Newcomer { office, member, replicas, leave } = *newcomer;
                let project = office.project;
                let replicas = replicas.into_iter().map(|replica| (replica.id, replica)).collect();
                self.hands.insert(project, Hands { office, replicas, busy: BTreeMap::new() });
                self.household.attach(now, project, member);
                if let Some(leave) = leave {
                    self.household.handle(now, &project, leave);
                }
            }
            Message::SetShare(project, share) => self.household.set_share(now, &project, share),
            Message::Remove(project) => {
                self.household.remove(now, &project);
                self.hands.remove(&project);
            }
        }
        self.carry_out_all();
    }

    fn on_said(&mut self, project: ProjectId, said: Said) {
        let Some(hands) = self.hands.get_mut(&project) else { return };
        let event = match said {
            Said::Event(event) => event,
            Said::Leased { replicas, retry } => {
                let leases = replicas.iter().map(|(_, lease)| *lease).collect();
                hands
                    .replicas
                    .extend(replicas.into_iter().map(|(replica, _)| (replica.id, replica)));
                Event::Assigned { leases, retry }
            }
            Said::Ended { replica, event } => {
                hands.busy.remove(&replica);
                if matches!(event, Event::Finished { .. } | Event::Aborted { .. }) {
                    hands.replicas.remove(&replica);
                }
                event
            }
        };
        self.household.handle(self.clock.now(), &project, event);
    }

    fn carry_out_all(&mut self) {
        while let Some((project, action)) = self.household.poll_action() {
            let Some(hands) = self.hands.get_mut(&project) else { continue };
            if action == Action::TakeLeave {
                // There is room: there are no more projects than it holds.
                let _ = self.farewells.try_send(project);
            }
            if let Some(event) = hands.carry_out(action) {
                self.household.handle(self.clock.now(), &project, event);
            }
        }
        self.standings.send_replace(self.household.standings().collect());
    }
}

impl Hands {
    /// Begins an action. Gives an event if it is over at once.
    fn carry_out(&mut self, action: Action) -> Option<Event> {
        let office = Arc::clone(&self.office);
        match action {
            Action::AskForWork { free, leases_max } => {
                tokio::spawn(async move { office.ask_for_work(free, leases_max).await });
            }
            Action::Report { replicas } => {
                tokio::spawn(async move { office.report(replicas).await });
            }
            Action::Heartbeat { running, kept } => {
                tokio::spawn(async move { office.heartbeat(running, kept).await });
            }
            Action::Forget { replica } => {
                tokio::spawn(async move { office.forget(replica).await });
            }
            Action::FetchInputs { replica: id } => {
                let Some((replica, cancel)) = self.occupy(id) else {
                    return Some(Event::Aborted { replica: id });
                };
                tokio::spawn(async move { office.fetch_inputs(replica, cancel).await });
            }
            Action::Start { replica: id } => {
                let Some((replica, cancel)) = self.occupy(id) else {
                    return Some(Event::Aborted { replica: id });
                };
                tokio::spawn(async move { office.run(replica, cancel).await });
            }
            Action::Abort { replica, reason } => {
                tracing::info!(%replica, ?reason, "replica stopped");
                match self.busy.get(&replica) {
                    Some(cancel) => cancel.cancel(),
                    None => {
                        self.replicas.remove(&replica);
                        tokio::spawn(async move { office.drop_lease(replica).await });
                        return Some(Event::Aborted { replica });
                    }
                }
            }
            // The roster sees it off.
            Action::TakeLeave => {}
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
