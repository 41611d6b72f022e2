//! `/dockercomp/work/1`: answering nodes.
//!
//! One task for each stream. It reads, checks bounds and signatures, asks the decider, and
//! answers; nothing that a node sends reaches the core unchecked, and nothing can make this
//! panic.

use std::sync::Arc;
use std::time::Duration;

use dockercomp_coordinator_core::{Core, Event, Granted, Profile};
use dockercomp_network::framed::{read_frame, write_frame};
use dockercomp_network::{AcceptError, Handle as Network, Stream, StreamProtocol};
use dockercomp_peer::reply::chain;
use dockercomp_protocol::batch::{Batch, BatchError};
use dockercomp_protocol::ids::NodeId;
use dockercomp_protocol::limits::{HINT_ADDRESSES_MAX, LEASES_MAX, WORK_MESSAGE_BYTES_MAX};
use dockercomp_protocol::statement::{ResultError, ResultStatement};
use dockercomp_protocol::time::millis;
use dockercomp_protocol::wire::work::{
    Assignment, Hint, HintPeer, Lease, PROTOCOL, Refusal, Register, Report, Request, Response,
    Verdict, WorkRequest,
};
use dockercomp_protocol::{Cid, codec};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::decider::{Answer, Handle as Decider, Stopped};
use crate::directory::Directory;
use crate::jobs::Jobs;
use crate::log::Heads;
use crate::logs::{self, Tail};
use crate::receipts::Seal;

/// Time between heartbeats of a node.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// When a node that got nothing asks again without being told that there is work: only in
/// case it missed the announcement.
const RETRY: Duration = Duration::from_secs(60);
/// Outputs of earlier stages whose holders one answer names.
const OUTPUT_HINTS_MAX: usize = LEASES_MAX;
/// A stream on which nothing was asked for this long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(300);

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
                Ok(Request::Work(request)) => self.on_work(node, request).await,
                Ok(Request::Head { since }) => (self.on_head(since).await, Vec::new()),
                Ok(Request::Job { job }) => (self.on_job(&job), Vec::new()),
                Ok(Request::Report { root, results }) => {
                    (self.on_report(node, root, results).await, Vec::new())
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
        let profile = Profile { executors, offer, operator, platform, range: None };
        match self.decider.tell(Event::NodeRegistered { node, profile }).await {
            Ok(_) => Response::Welcome {
                charter: self.seal.charter.clone(),
                heartbeat_ms: millis(HEARTBEAT),
            },
            Err(Stopped) => busy(),
        }
    }

    async fn on_work(
        &self,
        node: NodeId,
        request: WorkRequest,
    ) -> (Response, Vec<dockercomp_protocol::ReplicaId>) {
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
        let leases = granted.into_iter().filter_map(|granted| self.lease(node, granted)).collect();
        (Response::Work(Assignment { leases, hints, retry_ms: millis(RETRY) }), replicas)
    }

    fn lease(&self, node: NodeId, granted: Granted) -> Option<Lease> {
        let inputs: Vec<Cid> = granted.inputs.iter().map(|input| input.output).collect();
        let (_, unit) = self.jobs.get(&granted.job)?.unit(granted.index, &inputs)?;
        let left = granted.deadline.since(self.decider.now());
        let permission = self.seal.permission(node, inputs);
        Some(Lease { replica: granted.replica, unit, expires_in_ms: millis(left), permission })
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

    fn on_job(&self, job: &Cid) -> Response {
        match self.jobs.get(job) {
            Some(job) => Response::Job { job: job.sealed.clone() },
            None => Response::Refused(Refusal::UnknownJob),
        }
    }

    /// Checks the signature first, then lets all results of the report share one sync.
    async fn on_report(&self, node: NodeId, root: Vec<u8>, reports: Vec<Report>) -> Response {
        let n = reports.len();
        let opened = tokio::task::spawn_blocking(move || open_all(root, reports)).await;
        let opened = match opened.expect("opening does not panic") {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%node, error = chain(&error), "report refused");
                return Response::Reported { verdicts: vec![Verdict::NotRight; n] };
            }
        };
        let mut pending = Vec::with_capacity(opened.len());
        for (result, log_tail) in opened {
            pending.push(match result {
                Ok((result, _)) if result.node != node => Err(Verdict::NotYours),
                Ok((result, sealed)) => match self.begin_report(result, sealed, log_tail).await {
                    Ok(begun) => begun,
                    // A verdict would make the node throw its work away.
                    Err(Stopped) => return busy(),
                },
                Err(error) => {
                    tracing::warn!(%node, error = chain(&error), "result refused");
                    Err(Verdict::NotRight)
                }
            });
        }
        let mut verdicts = Vec::with_capacity(pending.len());
        for pending in pending {
            verdicts.push(match pending {
                Err(verdict) => verdict,
                Ok(answer) => match answer.await {
                    Ok(Answer::Verdict(verdict)) => verdict,
                    _ => return busy(),
                },
            });
        }
        Response::Reported { verdicts }
    }

    async fn begin_report(
        &self,
        result: ResultStatement,
        sealed: Vec<u8>,
        log_tail: String,
    ) -> Result<Result<oneshot::Receiver<Answer>, Verdict>, Stopped> {
        let replica = result.replica;
        let look = move |core: &Core| {
            let (job, index) = core.unit_of(replica)?;
            Some((job, index, core.inputs_of(job, index)))
        };
        let granted = self.decider.look(look).await?;
        let mut rows = Vec::new();
        // A replica whose unit is over and forgotten is answered by the core.
        if let Some((job, index, inputs)) = granted {
            let unit = self.jobs.get(&job).and_then(|job| job.unit(index, &inputs));
            if job != result.job || unit.is_none_or(|(cid, _)| cid != result.unit) {
                return Ok(Err(Verdict::NotRight));
            }
            if !result.exit.is_success() {
                let tail = Tail::new(result.node, &log_tail);
                rows.push(logs::row(&job, index, &tail));
            }
        }
        let event = Event::ResultReported { result: Box::new(result), sealed };
        self.decider.begin(event, rows).await.map(Ok)
    }

    async fn on_heartbeat(&self, heartbeat: Event) -> Response {
        match self.decider.tell(heartbeat).await {
            Ok(Answer::Heartbeat { abandon, forget }) => Response::Heartbeat { abandon, forget },
            _ => busy(),
        }
    }
}

fn busy() -> Response {
    Response::Refused(Refusal::Busy { retry_ms: 5000 })
}

/// A result, checked and as it is kept, or why it is refused; and what its program printed last.
type Opened = (Result<(ResultStatement, Vec<u8>), ResultError>, String);

/// Checks the one signature of a report and reads its results.
fn open_all(root: Vec<u8>, reports: Vec<Report>) -> Result<Vec<Opened>, BatchError> {
    let (statements, tails): (Vec<_>, Vec<_>) =
        reports.into_iter().map(|report| (report.statement, report.log_tail)).unzip();
    let batch = Batch::open(root, statements)?;
    Ok(batch.results().zip(tails).collect())
}
