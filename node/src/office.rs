//! The node's dealings with one project: what the worker's tasks do, one method an action.
//!
//! Each method ends by telling the worker what came of it, after that is durable.

use std::time::Duration;

use dockercomp_agent::{Event, Lease};
use dockercomp_peer::Located;
use dockercomp_peer::clock::Clock;
use dockercomp_peer::reply::chain;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::limits::CACHED_ROOTS_MAX;
use dockercomp_protocol::unit::WorkUnit;
use dockercomp_protocol::wire::work::{
    Assignment, Capacity, Hint, Report, Request, Response, Verdict, WorkRequest,
};
use dockercomp_protocol::{Cid, ReplicaId, batch, codec, wire};
use dockercomp_store::{Kind, StoreError};
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk, KeptRow, LeaseRow, ResultRow};
use crate::jobs::{Job, Jobs, LeaseError};
use crate::replica::{Bench, Outcome, Replica, unit_cid};
use crate::session::{Handle as Session, NoAnswer};
use crate::worker::{Message, Said, Sender};

/// How long the coordinator may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(10);

/// Everything that dealings need.
pub(crate) struct Office {
    pub(crate) project: ProjectId,
    pub(crate) bench: Bench,
    pub(crate) session: Session,
    pub(crate) desk: Desk,
    pub(crate) jobs: Jobs,
    pub(crate) worker: Sender,
    pub(crate) clock: Clock,
}

impl Office {
    /// Asks for leases, checks them, and remembers them.
    pub(crate) async fn ask_for_work(&self, mut free: Capacity, leases_max: u32) {
        // Inputs could not be fetched.
        if self.bench.peer.volume_is_used_up() {
            return self.tell(Said::Event(Event::AskFailed)).await;
        }
        let store = self.bench.peer.store().clone();
        let used = tokio::task::spawn_blocking(move || store.used_bytes()).await;
        free.disk_bytes = free.disk_bytes.saturating_sub(used.unwrap_or_default());
        let request = WorkRequest {
            free,
            leases_max: leases_max.min(wire_leases_max()),
            executors: vec![self.bench.executor.kind()],
            cached: self.cached().await,
        };
        let said = match self.session.ask(Request::Work(request)).await {
            Ok(Response::Work(assignment)) => self.accept(assignment).await,
            _ => Said::Event(Event::AskFailed),
        };
        self.tell(said).await;
    }

    async fn accept(&self, assignment: Assignment) -> Said {
        let Assignment { leases, hints, retry_ms } = assignment;
        for hint in hints {
            let root = hint.root;
            self.bench.shelf.hints.learn(self.project, root, located(hint));
        }
        let mut replicas = Vec::new();
        let mut rows = Vec::new();
        for lease in leases {
            match self.check(&lease).await {
                Ok(replica) => {
                    let expires_at = self.clock.now() + Duration::from_millis(lease.expires_in_ms);
                    let job = replica.job.sealed.clone();
                    let wire::work::Lease { unit, permission, .. } = lease;
                    rows.push((replica.id, LeaseRow { unit, job, expires_at, permission }));
                    replicas.push((replica.clone(), agent_lease(&replica, expires_at)));
                }
                Err(error) => {
                    tracing::warn!(replica = %lease.replica, error = chain(&error), "lease refused");
                }
            }
        }
        let retry = Duration::from_millis(retry_ms.clamp(100, 3_600_000));
        match self.at_desk(move |desk| desk.leased(&rows)).await {
            Ok(()) => Said::Leased { replicas, retry },
            Err(_) => Said::Event(Event::AskFailed),
        }
    }

    /// Checks that a lease is one of a job that the owner signed. Asks for the job if this
    /// node has not met it.
    async fn check(&self, lease: &wire::work::Lease) -> Result<Replica, LeaseError> {
        let unit: WorkUnit = codec::decode(&lease.unit)?;
        let job = match self.jobs.get(&unit.job) {
            Some(job) => job,
            None => {
                let answer = self.session.ask(Request::Job { job: unit.job }).await;
                let Ok(Response::Job { job: sealed }) = answer else {
                    return Err(LeaseError::NoAnswer);
                };
                let job = Job::open(sealed, self.project)?;
                if job.cid != unit.job {
                    return Err(LeaseError::Other);
                }
                self.jobs.insert(job)
            }
        };
        let (unit_cid, unit) = (unit_cid(&lease.unit), job.unit(&lease.unit)?);
        let permission = lease.permission.clone();
        let loan = self.bench.shelf.lend(&unit).await;
        Ok(Replica { id: lease.replica, unit, unit_cid, job, permission, _loan: loan })
    }

    /// Brings inputs and program of a replica here.
    pub(crate) async fn fetch_inputs(&self, replica: Replica, cancel: CancellationToken) {
        let id = replica.id;
        let event = match self.bench.prepare(&replica, &cancel).await {
            None => self.abort(id).await,
            Some(Ok(())) => Event::InputsReady { replica: id },
            Some(Err(outcome)) => self.finish(id, outcome).await,
        };
        self.tell(Said::Ended { replica: id, event }).await;
    }

    /// Runs a replica to its result.
    pub(crate) async fn run(&self, replica: Replica, cancel: CancellationToken) {
        let id = replica.id;
        let event = match self.bench.run(&replica, &cancel).await {
            Some(outcome) => self.finish(id, outcome).await,
            None => self.abort(id).await,
        };
        self.tell(Said::Ended { replica: id, event }).await;
    }

    async fn finish(&self, replica: ReplicaId, outcome: Outcome) -> Event {
        match self.at_desk(move |desk| desk.finished(replica, &outcome.row)).await {
            Ok(()) => {
                self.bench.clear_away(replica).await;
                Event::Finished { replica }
            }
            // What cannot be made durable is not promised to anybody.
            Err(_) => Event::Aborted { replica },
        }
    }

    /// A replica was stopped. If the node is stopping, its lease and its checkpoint stay for the
    /// next start.
    async fn abort(&self, replica: ReplicaId) -> Event {
        if !self.worker_is_stopping() {
            self.drop_lease(replica).await;
        }
        Event::Aborted { replica }
    }

    /// Forgets a lease that is not worked on any more.
    pub(crate) async fn drop_lease(&self, replica: ReplicaId) {
        if self.at_desk(move |desk| desk.dropped(replica)).await.is_ok() {
            self.bench.clear_away(replica).await;
        }
    }

    /// Reports results that are on the desk.
    pub(crate) async fn report(&self, replicas: Vec<ReplicaId>) {
        let read = self.at_desk(move |desk| {
            let mut rows = Vec::with_capacity(replicas.len());
            for replica in replicas {
                if let Some(row) = desk.result(replica)? {
                    rows.push((replica, row));
                }
            }
            Ok(rows)
        });
        let event = match read.await {
            Ok(rows) => self.send_report(rows).await,
            Err(_) => None,
        };
        self.tell(Said::Event(event.unwrap_or(Event::ReportFailed))).await;
    }

    async fn send_report(&self, rows: Vec<(ReplicaId, ResultRow)>) -> Option<Event> {
        if rows.is_empty() {
            return None;
        }
        let statements: Vec<&[u8]> = rows.iter().map(|(_, row)| &*row.statement).collect();
        let root = batch::sign(self.bench.peer.key(), &statements);
        let results = rows.iter().map(|(_, row)| Report {
            statement: row.statement.clone(),
            log_tail: row.log_tail.clone(),
            output: row.inline.clone(),
        });
        let answer = self.session.ask(Request::Report { root, results: results.collect() }).await;
        let Ok(Response::Reported { verdicts }) = answer else { return None };
        if verdicts.len() != rows.len() {
            return None;
        }
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for ((replica, row), verdict) in rows.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Stored if row.output.is_some() => {
                    kept.push((replica, KeptRow { output: row.output }));
                }
                Verdict::Stored => refused.push(replica),
                Verdict::TooLate | Verdict::NotYours | Verdict::NotRight => {
                    tracing::info!(%replica, ?verdict, "result not wanted");
                    refused.push(replica);
                }
            }
        }
        let stored = kept.iter().map(|(replica, _)| *replica).collect();
        self.at_desk(move |desk| desk.reported(&kept)).await.ok()?;
        Some(Event::Reported { stored, refused })
    }

    /// Tells the coordinator what is here and which replicas have saved their progress, and
    /// learns what is not needed.
    pub(crate) async fn heartbeat(&self, running: Vec<ReplicaId>, kept: Vec<ReplicaId>) {
        let (progress, named) = (self.bench.progress.clone(), running.clone());
        let looking = tokio::task::spawn_blocking(move || progress.look(&named));
        let saved = looking.await.expect("looking does not panic");
        let checkpointed = saved.replicas();
        let asked = self.session.ask(Request::Heartbeat { running, kept, checkpointed });
        let event = match asked.await {
            Ok(Response::Heartbeat { abandon, forget }) => {
                self.bench.progress.heard(&saved);
                Event::HeartbeatAnswered { abandon, forget }
            }
            Ok(_) | Err(NoAnswer) => Event::HeartbeatFailed,
        };
        self.tell(Said::Event(event)).await;
    }

    /// Forgets a replica and, unless it is needed otherwise, its output.
    pub(crate) async fn forget(&self, replica: ReplicaId) {
        self.bench.shelf.forget(&self.desk, replica).await;
    }

    /// Tells the coordinator that this node has left. If it does not answer, leases run out.
    pub(crate) async fn take_leave(&self) {
        match tokio::time::timeout(FAREWELL, self.session.ask(Request::Detach)).await {
            Ok(Ok(Response::Detached)) => {}
            // One of an older version does not know the word.
            Ok(_) | Err(_) => tracing::info!(project = %self.project, "left without an answer"),
        }
    }

    /// Datasets that are here whole, so that work on them is preferred.
    async fn cached(&self) -> Vec<Cid> {
        let store = self.bench.peer.store().clone();
        let datasets = tokio::task::spawn_blocking(move || store.datasets()).await;
        let datasets = datasets.ok().and_then(Result::ok).unwrap_or_default();
        let whole = datasets.into_iter().filter(|d| d.complete && d.kind != Kind::Output);
        whole.map(|dataset| dataset.root).take(CACHED_ROOTS_MAX).collect()
    }

    fn worker_is_stopping(&self) -> bool {
        self.bench.stopping.is_cancelled()
    }

    async fn at_desk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Desk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let desk = self.desk.clone();
        self.bench.shelf.durable(move |_| act(&desk)).await
    }

    async fn tell(&self, said: Said) {
        // The worker is gone only while the node stops.
        let _ = self.worker.send(Message::Of(self.project, said)).await;
    }
}

/// A new lease as the agent knows it.
pub(crate) fn agent_lease(replica: &Replica, expires_at: dockercomp_protocol::Timestamp) -> Lease {
    let need = Capacity::of(&replica.job.spec.limits);
    Lease { replica: replica.id, need, expires_at, begun: false }
}

fn located(hint: Hint) -> Vec<Located> {
    let peers = hint.peers.into_iter().map(|peer| Located {
        peer: peer.peer,
        addresses: peer.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
    });
    peers.collect()
}

const fn wire_leases_max() -> u32 {
    dockercomp_protocol::limits::LEASES_MAX as u32
}
