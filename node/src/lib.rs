//! A volunteer's node: the shell around the pure agent.
//!
//! ```text
//!              announcements            ┌─────────┐ leases, results  ┌──────────┐
//!  network ───────────────────────────► │ worker  │ ◄──────────────► │ desk     │ durable
//!           ◄── session ── coordinator  │ (agent) │                  └──────────┘
//!                                       └────┬────┘
//!                                            ▼ office: one method an action
//!                                    replica: fetch, lay out, run, chunk, sign
//! ```
//!
//! # Crash behaviour
//!
//! What was promised is on the desk before it is promised. A node that is killed runs its
//! leases again, reports its results again, and still has its outputs. What it left in the
//! engine is removed at the next start.

pub mod api;
mod borrowed;
mod desk;
mod explain;
mod fault;
mod heads;
mod inline;
mod jobs;
mod office;
mod permits;
mod platform;
mod replica;
mod session;
mod worker;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dockercomp_agent::{Agent, Config, Event, Restored};
use dockercomp_executor::{Choice, ChooseError, CleanupError, Executor};
use dockercomp_network::{AcceptError, Role, SubscribeError};
use dockercomp_peer::clock::Clock;
use dockercomp_peer::{Peer, PeerError, Sharing, control};
use dockercomp_protocol::ids::{NodeId, ProjectId};
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::statement::Announcement;
use dockercomp_protocol::wire::work::{Capacity, Register};
use dockercomp_protocol::{Cid, Timestamp};
use dockercomp_store::StoreError;
use multiaddr::Multiaddr;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::fault::Fault;

use crate::api::{ApiState, Board};
use crate::borrowed::Borrowed;
use crate::desk::Desk;
use crate::heads::Watch;
use crate::jobs::{Job, Jobs, LeaseError};
use crate::office::{Office, agent_lease};
use crate::replica::{Bench, Hints, Replica, unit_cid};
use crate::session::Session;
use crate::worker::{Message, Worker};

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its identity, leases and data lie.
    pub dir: PathBuf,
    /// The project to work for, and doors to its network.
    pub link: JoinLink,
    /// What work may use.
    pub offer: Capacity,
    /// How data is passed on.
    pub sharing: Sharing,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others are told, where they differ.
    pub external: Vec<Multiaddr>,
    /// Loopback address of the control door.
    pub api: SocketAddr,
    /// Who runs it, if they say so; nodes of one operator never share a work unit. What
    /// [`is_operator`](dockercomp_protocol::wire::work::is_operator) refuses, coordinators
    /// refuse.
    pub operator: Option<String>,
    /// What runs the work.
    pub executor: Choice,
    /// Ways to misbehave, none for an honest node.
    pub faults: Vec<Fault>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its data directory or its side of the network is not to be had.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Nothing can run work.
    #[error(transparent)]
    Executor(#[from] ChooseError),
    /// What an earlier run left in the engine cannot be removed.
    #[error("cannot remove what an earlier run left behind")]
    Cleanup(#[from] CleanupError),
    /// Leases and results cannot be read.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// Another part of this process answers permissions already.
    #[error("cannot answer nodes")]
    Accept(#[from] AcceptError),
    /// Announcements cannot be heard.
    #[error("cannot listen to announcements")]
    Subscribe(#[from] SubscribeError),
    /// The control door cannot be opened.
    #[error(transparent)]
    Control(#[from] control::ControlError),
}

/// A running node.
pub struct Service {
    peer: Peer,
    executor: Arc<dyn Executor>,
    executor_reason: String,
    working: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts a node; it looks for its coordinator from then on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Self, StartError> {
        let project = options.link.project;
        let peer_options = dockercomp_peer::Options {
            dir: options.dir.clone(),
            role: Role::Client,
            listen: options.listen,
            external: options.external,
            bootstrap: options.link.via.clone(),
            quota_bytes: Some(options.offer.disk_bytes),
            reserve_bytes: None,
            sharing: options.sharing,
            lie: options.faults.contains(&Fault::WrongChunks),
        };
        let (peer, mut helpers) = Peer::start(peer_options, shutdown.clone()).await?;
        let executor_options = dockercomp_executor::Options {
            node: peer.id().to_string(),
            ..dockercomp_executor::Options::default()
        };
        let chosen = dockercomp_executor::choose(options.executor, &executor_options).await?;
        let executor = chosen.executor;
        let removed = executor.cleanup().await?;
        if removed.containers > 0 {
            tracing::info!(containers = removed.containers, "left-over containers removed");
        }

        replica::clear(peer.store().dir()).await;

        let board = Board::default();
        let (borrowed, returned) = Borrowed::new();
        let bench = Bench {
            peer: peer.clone(),
            executor: Arc::clone(&executor),
            board: board.clone(),
            faults: options.faults.into(),
            hints: Hints::default(),
            borrowed: borrowed.clone(),
            outputs: Arc::default(),
            stopping: shutdown.clone(),
        };
        let register = Register {
            agent: concat!("dockercomp/", env!("CARGO_PKG_VERSION")).to_owned(),
            executors: vec![executor.kind()],
            offer: options.offer,
            addresses: Vec::new(),
            operator: options.operator.clone(),
            platform: platform::platform(),
        };
        let (welcomes, welcomed) = mpsc::channel(4);
        let (session, asking) = Session::new(peer.network().clone(), project, register, welcomes);
        let (sender, messages) = worker::channel();
        let desk = Desk::new(peer.store().clone());
        let (restored, replicas, outputs) = restore(&desk, project, &borrowed).await?;
        peer.review_outputs(&outputs).await?;
        let seed = u64::from_le_bytes(*peer.id().to_bytes().last_chunk().expect("a long id"));
        let clock = Clock::from(Timestamp::default());
        let agent = Agent::new(Config::new(options.offer, seed), restored, clock.now());
        let watching = Watch::start(&peer, project, asking.clone(), board.clone()).await?;
        let (found, news) = watch::channel(());
        helpers.push(tokio::spawn(watching.run(news, shutdown.clone())));
        let office = Office {
            project,
            bench,
            session: asking.clone(),
            desk,
            jobs: Jobs::default(),
            worker: sender.clone(),
            clock,
        };
        let office = Arc::new(office);
        helpers.push(tokio::spawn(take_back(Arc::clone(&office), returned, shutdown.clone())));
        helpers.push(permits::serve(&peer, shutdown.clone())?);
        let worker = Worker::new(agent, office, board.clone(), messages, replicas);
        helpers.push(tokio::spawn(session.run(shutdown.clone())));
        helpers.push(listen(&peer, project, sender.clone(), shutdown.clone()).await?);
        helpers.push(tokio::spawn(greet(
            peer.clone(),
            board.clone(),
            welcomed,
            found,
            sender,
            shutdown.clone(),
        )));
        let working = tokio::spawn(worker.run(shutdown.clone()));
        let state = ApiState {
            peer: peer.clone(),
            board,
            project: project.to_string(),
            operator: options.operator,
            executor: executor.kind().to_string(),
            executor_reason: chosen.reason.clone(),
            session: asking,
            offer: options.offer,
            stopping: shutdown.clone(),
        };
        let router = api::router(state).merge(dockercomp_peer::datasets::router(peer.clone()));
        helpers.push(control::serve(&options.dir, options.api, router, shutdown).await?);
        Ok(Self { peer, executor, executor_reason: chosen.reason, working, helpers })
    }

    /// Its id on the network.
    #[must_use]
    pub fn peer_id(&self) -> NodeId {
        self.peer.id()
    }

    /// What runs work, and why it was chosen.
    #[must_use]
    pub fn executor(&self) -> (String, String) {
        (self.executor.kind().to_string(), self.executor_reason.clone())
    }

    /// Waits until it has been shut down and has removed what it made in the engine.
    pub async fn stopped(self) {
        let _ = self.working.await;
        if let Err(error) = self.executor.cleanup().await {
            tracing::error!(%error, "not everything was removed from the engine");
        }
        for helper in self.helpers {
            let _ = helper.await;
        }
    }
}

/// Reads the desk.
async fn restore(
    desk: &Desk,
    project: ProjectId,
    borrowed: &Borrowed,
) -> Result<(Restored, Vec<Replica>, BTreeSet<Cid>), StoreError> {
    let (desk, borrowed) = (desk.clone(), borrowed.clone());
    let read = tokio::task::spawn_blocking(move || {
        let (leases, results, kept) = (desk.leases()?, desk.results()?, desk.kept()?);
        let outputs = results.iter().filter_map(|(_, result)| result.output);
        let outputs = outputs.chain(kept.iter().filter_map(|(_, kept)| kept.output)).collect();
        let mut restored = Restored {
            leases: Vec::new(),
            unreported: results.into_iter().map(|(replica, _)| replica).collect(),
            kept: kept.into_iter().map(|(replica, _)| replica).collect(),
        };
        let mut replicas = Vec::new();
        for (id, row) in leases {
            let opened = Job::open(row.job, project).map_err(LeaseError::from).and_then(|job| {
                let unit = job.unit(&row.unit)?;
                let (unit_cid, permission) = (unit_cid(&row.unit), row.permission);
                let outputs = unit.outputs();
                let loan = (!outputs.is_empty()).then(|| borrowed.borrow(outputs));
                Ok(Replica { id, job: Arc::new(job), unit, unit_cid, permission, _loan: loan })
            });
            match opened {
                Ok(replica) => {
                    restored.leases.push(agent_lease(&replica, row.expires_at));
                    replicas.push(replica);
                }
                // For example after joining another project: the lease runs out.
                Err(_) => desk.dropped(id)?,
            }
        }
        Ok((restored, replicas, outputs))
    });
    read.await.expect("reading does not panic")
}

/// Tells the worker when the project says that there is work.
async fn listen(
    peer: &Peer,
    project: ProjectId,
    worker: worker::Sender,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, SubscribeError> {
    let is_right = |bytes: &[u8]| Announcement::open(bytes).is_some();
    let mut subscription = peer.network().subscribe(Announcement::TOPIC, is_right).await?;
    Ok(tokio::spawn(async move {
        let mut latest = Timestamp::default();
        while let Some(gossip) = tokio::select! {
            () = shutdown.cancelled() => None,
            gossip = subscription.next() => gossip,
        } {
            // An old one that somebody repeats is no news.
            let news = Announcement::open(&gossip.data)
                .filter(|news| news.project == project && news.issued_at > latest);
            if let Some(news) = news {
                latest = news.issued_at;
                tracing::info!("work announced");
                if worker.send(Message::Event(Event::Announced)).await.is_err() {
                    return;
                }
            }
        }
    }))
}

/// Forgets outputs of others when nobody here works on them any more.
async fn take_back(
    office: Arc<Office>,
    mut returned: mpsc::UnboundedReceiver<Cid>,
    shutdown: CancellationToken,
) {
    while let Some(output) = tokio::select! {
        () = shutdown.cancelled() => None,
        output = returned.recv() => output,
    } {
        office.return_output(output).await;
    }
}

/// Passes the coordinator's welcomes on.
async fn greet(
    peer: Peer,
    board: Board,
    mut welcomed: mpsc::Receiver<session::Welcome>,
    found: watch::Sender<()>,
    worker: worker::Sender,
    shutdown: CancellationToken,
) {
    while let Some(welcome) = tokio::select! {
        () = shutdown.cancelled() => None,
        welcome = welcomed.recv() => welcome,
    } {
        peer.trust(welcome.coordinator);
        board.coordinator(Some(welcome.coordinator.to_string()));
        found.send_replace(());
        let event = Event::Welcomed { heartbeat: welcome.heartbeat };
        if worker.send(Message::Event(event)).await.is_err() {
            return;
        }
    }
}
