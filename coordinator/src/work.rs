//! `/dockercomp/work/1`: answering nodes.
//!
//! One task for each stream. It reads, checks bounds and signatures, asks the decider, and
//! answers; nothing that a node sends reaches the core unchecked, and nothing can make this
//! panic.

use std::sync::Arc;
use std::time::Duration;

use dockercomp_coordinator_core::{AddressRange, Core, Event, Granted, Profile};
use dockercomp_network::framed::{read_frame, write_frame};
use dockercomp_network::{AcceptError, Handle as Network, Stream, StreamProtocol};
use dockercomp_peer::reply::chain;
use dockercomp_protocol::ids::NodeId;
use dockercomp_protocol::limits::{HINT_ADDRESSES_MAX, LEASES_MAX, WORK_MESSAGE_BYTES_MAX};
use dockercomp_protocol::time::millis;
use dockercomp_protocol::wire::work::{
    Assignment, Hint, HintPeer, Lease, PROTOCOL, Refusal, Register, Report, Request, Response,
    Verdict, WorkRequest,
};
use dockercomp_protocol::{Cid, ReplicaId, codec};
use serde_bytes::ByteBuf;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::decider::{Answer, Handle as Decider, Reported, Stopped};
use crate::directory::Directory;
use crate::explain;
use crate::jobs::{Job, Jobs};
use crate::known::{Known, Unit};
use crate::log::Heads;
use crate::logs::{self, Tail};
use crate::receipts::Seal;
use crate::report::{self, Opened};

/// Time between heartbeats of a node, where nodes are few.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The same at most: well below the ten minutes after which a node counts as silent.
const HEARTBEAT_MAX: Duration = Duration::from_secs(120);
/// What each node that has registered adds to the time between heartbeats of the next one, so
/// that ten thousand send 160 a second in all: 25 times (1 + ln 24) those that came before
/// the interval reached its most, and one in two minutes those that came after.
const HEARTBEAT_SHARE: Duration = Duration::from_millis(40);
/// When a node that got nothing asks again without being told that there is work: only in
/// case it missed the announcement.
const RETRY: Duration = Duration::from_secs(60);
/// Outputs of earlier stages whose holders one answer names.
const OUTPUT_HINTS_MAX: usize = LEASES_MAX;
/// A stream on which nothing was asked for this long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A node is told anew why it gets nothing after this long, and the same as before until then.
const EXPLAIN_EVERY: Duration = Duration::from_secs(1);

/// A node that takes no answer for this long is given up.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// All that is needed to answer a node.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) network: Network,
    pub(crate) decider: Decider,
    pub(crate) jobs: Jobs,
    pub(crate) directory: Directory,
    pub(crate) seal: Arc<Seal>,
    pub(crate) heads: Heads,
    /// Reports are opened on as many threads as there are cores: more would only keep memory.
    pub(crate) opening: Arc<Semaphore>,
}

impl Server {
    /// Answers nodes until `shutdown`.
    pub(crate) fn start(
        self,
        shutdown: CancellationToken,
    ) -> Result<tokio::task::JoinHandle<()>, AcceptError> {
        let mut incoming = self.network.accept(StreamProtocol::new(PROTOCOL))?;
        Ok(tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    () = shutdown.cancelled() => return,
                    next = incoming.next() => next,
                };
                let Some((node, stream)) = next else { return };
                let (server, shutdown) = (self.clone(), shutdown.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = server.converse(node, stream) => {}
                    }
                });
            }
        }))
    }

    /// Answers one node until it goes away or misbehaves.
    async fn converse(&self, node: NodeId, mut stream: Stream) {
        let mut registered = false;
        let mut known = Known::default();
        let mut explained = None;
        loop {
            let read = read_frame(&mut stream, WORK_MESSAGE_BYTES_MAX);
            let Ok(Ok(frame)) = tokio::time::timeout(SILENCE_MAX, read).await else { return };
            let (response, leased) = match Request::decode(&frame) {
                Err(error) => {
                    tracing::warn!(%node, %error, "malformed request");
                    (Response::Refused(Refusal::Malformed), Vec::new())
                }
                Ok(Request::Register(register)) => {
                    registered = true;
                    (self.on_register(node, register).await, Vec::new())
                }
                Ok(_) if !registered => (Response::Refused(Refusal::RegisterFirst), Vec::new()),
                Ok(Request::Work(request)) => self.on_work(node, request, &mut known).await,
                Ok(Request::Head { since }) => (self.on_head(since).await, Vec::new()),
                Ok(Request::Explain) => (self.on_explain(node, &mut explained).await, Vec::new()),
                Ok(Request::Job { job }) => (self.on_job(&job), Vec::new()),
                Ok(Request::Detach) => {
                    registered = false;
                    (self.on_detach(node).await, Vec::new())
                }
                Ok(Request::Report { root, results }) => {
                    (self.on_report(node, root, results, &mut known).await, Vec::new())
                }
                Ok(Request::Heartbeat { running, kept, checkpointed }) => {
                    let heartbeat = Event::Heartbeat { node, running, kept, checkpointed };
                    (self.on_heartbeat(heartbeat).await, Vec::new())
                }
            };
            let malformed = response == Response::Refused(Refusal::Malformed);
            let bytes = codec::encode(&response);
            let write = write_frame(&mut stream, &bytes, WORK_MESSAGE_BYTES_MAX);
            let written = matches!(tokio::time::timeout(WRITE_MAX, write).await, Ok(Ok(())));
            if !written && !leased.is_empty() {
                let _ = self.decider.tell(Event::LeasesUndelivered { replicas: leased }).await;
            }
            if !written || malformed {
                return;
            }
        }
    }

    async fn on_register(&self, node: NodeId, register: Register) -> Response {
        self.directory.registered(node, &register);
        tracing::info!(%node, agent = register.agent, "node registered");
        let Register { executors, offer, operator, platform, .. } = register;
        // It has just asked something, so it is connected.
        let address = self.network.remote_ip(node).await.ok().flatten();
        let range = address.and_then(AddressRange::of);
        let profile = Profile { executors, offer, operator, platform, range };
        match self.decider.tell(Event::NodeRegistered { node, profile }).await {
            Ok(_) => Response::Welcome {
                charter: self.seal.charter.clone(),
                heartbeat_ms: millis(heartbeat(self.directory.n_nodes())),
            },
            Err(Stopped) => busy(),
        }
    }

    async fn on_work(
        &self,
        node: NodeId,
        request: WorkRequest,
        known: &mut Known,
    ) -> (Response, Vec<ReplicaId>) {
        // Only what jobs need is remembered: a node may name anything.
        for root in request.cached.iter().filter(|root| self.jobs.need(root)) {
            self.directory.holds(node, *root);
        }
        let Ok(Answer::Leases(granted)) =
            self.decider.tell(Event::WorkRequested { node, request }).await
        else {
            return (busy(), Vec::new());
        };
        let replicas = granted.iter().map(|granted| granted.replica).collect();
        let hints = self.hints(node, &granted);
        let leases = self.leases(node, granted, known);
        (Response::Work(Assignment { leases, hints, retry_ms: millis(RETRY) }), replicas)
    }

    fn leases(&self, node: NodeId, granted: Vec<Granted>, known: &mut Known) -> Vec<Lease> {
        let now = self.decider.now();
        let mut job: Option<Arc<Job>> = None;
        let lease = |Granted { replica, job: of, index, deadline, inputs, .. }| {
            // Leases of one job come one after the other.
            if job.as_ref().is_none_or(|job| job.cid != of) {
                job = self.jobs.get(&of);
            }
            let inputs: Vec<Cid> = inputs.iter().map(|input| input.output).collect();
            let (cid, unit) = job.as_ref()?.unit(index, &inputs)?;
            known.insert(replica, Unit { job: of, index, cid });
            let permission = self.seal.permission(node, inputs);
            Some(Lease { replica, unit, expires_in_ms: millis(deadline.since(now)), permission })
        };
        granted.into_iter().filter_map(lease).collect()
    }

    /// Who holds what the leases need. The node itself is about to hold it as well.
    fn hints(&self, node: NodeId, granted: &[Granted]) -> Vec<Hint> {
        let mut jobs: Vec<Cid> = granted.iter().map(|granted| granted.job).collect();
        jobs.sort_unstable();
        jobs.dedup();
        let mut roots: Vec<Cid> = jobs
            .iter()
            .filter_map(|job| self.jobs.get(job))
            .flat_map(|job| job.roots().collect::<Vec<_>>())
            .collect();
        roots.sort_unstable();
        roots.dedup();
        let own = self.network.advertised_addresses();
        let coordinator = HintPeer {
            peer: self.network.local_peer(),
            addresses: own.iter().take(HINT_ADDRESSES_MAX).map(ToString::to_string).collect(),
        };
        let datasets = roots.into_iter().map(|root| {
            let hint = self.directory.hint(root, node, &coordinator);
            self.directory.holds(node, root);
            hint
        });
        // Without a hint the coordinator is asked, so the message stays within its bound.
        let outputs = granted.iter().flat_map(|granted| &granted.inputs).take(OUTPUT_HINTS_MAX);
        let outputs = outputs.map(|input| {
            self.directory.output_hint(input.output, &input.holders, node, &coordinator)
        });
        datasets.chain(outputs).collect()
    }

    async fn on_head(&self, since: Vec<u64>) -> Response {
        match self.heads.notices(since).await {
            Ok(notices) => {
                Response::Head { notices: notices.into_iter().map(ByteBuf::from).collect() }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the log cannot be read");
                busy()
            }
        }
    }

    /// Looks anew at most once in [`EXPLAIN_EVERY`], since a look keeps others waiting.
    async fn on_explain(&self, node: NodeId, last: &mut Option<(Instant, Response)>) -> Response {
        if let Some((at, response)) = last
            && at.elapsed() < EXPLAIN_EVERY
        {
            return response.clone();
        }
        match explain::for_node(&self.decider, &self.jobs, node).await {
            Ok(explanation) => {
                let response = Response::Explained(explanation);
                *last = Some((Instant::now(), response.clone()));
                response
            }
            Err(Stopped) => busy(),
        }
    }

    async fn on_detach(&self, node: NodeId) -> Response {
        tracing::info!(%node, "node left");
        match self.decider.tell(Event::NodeDetached { node }).await {
            Ok(_) => {
                self.directory.left(&node);
                Response::Detached
            }
            Err(Stopped) => busy(),
        }
    }

    fn on_job(&self, job: &Cid) -> Response {
        match self.jobs.get(job) {
            Some(job) => Response::Job { job: job.sealed.clone() },
            None => Response::Refused(Refusal::UnknownJob),
        }
    }

    /// Checks the signature first, then lets all results of the report share one sync.
    async fn on_report(
        &self,
        node: NodeId,
        root: Vec<u8>,
        reports: Vec<Report>,
        known: &mut Known,
    ) -> Response {
        let mut verdicts = vec![Verdict::NotRight; reports.len()];
        let Ok(permit) = Arc::clone(&self.opening).acquire_owned().await else { return busy() };
        let opened = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            report::open(node, root, reports)
        })
        .await;
        let opened = match opened.expect("opening does not panic") {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%node, error = chain(&error), "report refused");
                return Response::Reported { verdicts };
            }
        };
        let replicas: Vec<ReplicaId> = opened.iter().map(|opened| opened.result.replica).collect();
        let Ok(units) = self.units(&replicas, known).await else { return busy() };
        let (mut places, mut results) = (Vec::new(), Vec::new());
        for (opened, unit) in opened.into_iter().zip(units) {
            let Opened { place, result, sealed, log_tail, output } = opened;
            // A replica whose unit is over and forgotten is answered by the core.
            if unit.is_some_and(|unit| unit.job != result.job || unit.cid != result.unit) {
                tracing::warn!(%node, replica = %result.replica, "result of another work unit");
                continue;
            }
            let failed = unit.filter(|_| !result.exit.is_success());
            let log = failed.map(|unit| {
                let tail = Tail::new(node, &log_tail);
                logs::row(&unit.job, unit.index, &tail)
            });
            // What a later stage takes must be here as a dataset, so that nodes can fetch it.
            let job = self.jobs.get(&result.job);
            let stays = job.is_some_and(|job| job.spec.stages.is_empty());
            let output = if stays { output } else { Vec::new() };
            places.push(place);
            results.push(Reported { result: Box::new(result), sealed, log, output });
        }
        match self.decider.report(results).await {
            Ok(decided) => {
                for (place, verdict) in places.into_iter().zip(decided) {
                    verdicts[place] = verdict;
                }
                Response::Reported { verdicts }
            }
            // A verdict would make the node throw its work away.
            Err(Stopped) => busy(),
        }
    }

    /// The work units of these replicas, of those that are not over and forgotten.
    async fn units(
        &self,
        replicas: &[ReplicaId],
        known: &mut Known,
    ) -> Result<Vec<Option<Unit>>, Stopped> {
        let mut units: Vec<_> = replicas.iter().map(|replica| known.take(*replica)).collect();
        let strange = replicas.iter().zip(&units).filter(|(_, unit)| unit.is_none());
        let strange: Vec<ReplicaId> = strange.map(|(replica, _)| *replica).collect();
        if strange.is_empty() {
            return Ok(units);
        }
        let look = move |core: &Core| -> Vec<_> {
            let unit = |replica: &ReplicaId| {
                let (job, index) = core.unit_of(*replica)?;
                Some((job, index, core.inputs_of(job, index)))
            };
            strange.iter().map(unit).collect()
        };
        let mut asked = self.decider.look(look).await?.into_iter();
        for unit in units.iter_mut().filter(|unit| unit.is_none()) {
            *unit = asked.next().flatten().map(|(job, index, inputs)| {
                let described = self.jobs.get(&job).and_then(|job| job.unit(index, &inputs));
                let (cid, _) = described.expect("the core knows only units of jobs that we store");
                Unit { job, index, cid }
            });
        }
        Ok(units)
    }

    async fn on_heartbeat(&self, heartbeat: Event) -> Response {
        match self.decider.tell(heartbeat).await {
            Ok(Answer::Heartbeat { abandon, forget }) => Response::Heartbeat { abandon, forget },
            _ => busy(),
        }
    }
}

fn heartbeat(n_nodes: usize) -> Duration {
    let shares = u32::try_from(n_nodes).unwrap_or(u32::MAX);
    HEARTBEAT_SHARE.saturating_mul(shares).clamp(HEARTBEAT, HEARTBEAT_MAX)
}

fn busy() -> Response {
    Response::Refused(Refusal::Busy { retry_ms: 5000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_heard_of_less_often() {
        let seconds = [1, 125, 500, 3000, 10_000_000].map(|n| heartbeat(n).as_secs());
        assert_eq!(seconds, [5, 5, 20, 120, 120]);
        let a_second: f64 = (1..=10_000).map(|n| 1.0 / heartbeat(n).as_secs_f64()).sum();
        assert!((150.0..170.0).contains(&a_second), "{a_second}");
    }
}
