//! A volunteer's node: the shell around the pure household of agents.
//!
//! ```text
//!           ──► ear: announcements ───► ┌─────────────┐ leases, results  ┌───────┐
//!  network                              │   worker    │ ◄──────────────► │ desks │ durable
//!           ◄── sessions, coordinators  │ (household) │                  └───────┘
//!                                       └──────┬──────┘
//!                                              ▼ offices: one method an action
//!                                      replica: fetch, lay out, run, chunk, sign
//! ```
//!
//! A replica runs in a `workplace`, where its checkpoint survives it, and `progress` tells which
//! checkpoints changed. Each project has an office, a session with its coordinator, a watch over its log and a desk
//! of its own; the `roster` knows them. The worker, the executor and the
//! `shelf` of outputs are one for all.
//!
//! # Crash behaviour
//!
//! What was promised is on the desk before it is promised. A node that is killed runs its
//! leases again, from their checkpoints where programs left one, reports its results again, and
//! still has its outputs. What it left in the engine and in working folders is removed at the
//! next start.

pub mod api;
mod attached;
mod borrowed;
mod desk;
mod ear;
mod explain;
mod fault;
mod heads;
mod inline;
mod jobs;
mod office;
mod permits;
mod platform;
mod progress;
mod replica;
mod roster;
mod session;
mod shelf;
mod worker;
mod workplace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dockercomp_agent::{Config, Household};
use dockercomp_executor::{Choice, ChooseError, CleanupError, Executor};
use dockercomp_network::{AcceptError, Role, SubscribeError};
use dockercomp_peer::clock::Clock;
use dockercomp_peer::{Peer, PeerError, Sharing, control};
use dockercomp_protocol::Timestamp;
use dockercomp_protocol::ids::NodeId;
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::wire::work::{Capacity, Register};
use dockercomp_store::StoreError;
use multiaddr::Multiaddr;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::fault::Fault;

use crate::api::ApiState;
use crate::attached::PROJECTS_MAX;
use crate::ear::Ear;
use crate::roster::{Common, Roster, RosterError};
use crate::shelf::Shelf;
use crate::worker::{Standings, Worker};

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its identity, leases and data lie.
    pub dir: PathBuf,
    /// Projects to work for beside those that are remembered, and doors to their networks.
    pub links: Vec<JoinLink>,
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
    /// More projects than a node may have.
    #[error("a node has {PROJECTS_MAX} projects at most")]
    TooManyProjects,
    /// No project was named, and none is remembered.
    #[error("this node is not attached to a project yet")]
    NoProject,
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
    /// Starts a node; it looks for the coordinators of its projects from then on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Self, StartError> {
        let peer_options = dockercomp_peer::Options {
            dir: options.dir.clone(),
            role: Role::Client,
            listen: options.listen,
            external: options.external,
            bootstrap: options.links.iter().flat_map(|link| link.via.clone()).collect(),
            remembered: Some(attached::doors),
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

        let (store, links) = (peer.store().clone(), options.links);
        let kind = executor.kind();
        let reading = tokio::task::spawn_blocking(move || {
            let remembered = roster::enlist(&store, links)?;
            // Nothing runs any more that could write there, and nothing does yet.
            let places = roster::workplaces(&store, &remembered, kind)?;
            if let Err(error) = workplace::clear(store.dir(), &places) {
                tracing::warn!(%error, "not all that earlier runs left was removed");
            }
            Ok::<_, RosterError>((remembered, shelf::needed(&store)?))
        });
        let (remembered, needed) = reading.await.expect("reading does not panic")?;
        if remembered.is_empty() {
            return Err(StartError::NoProject);
        }
        // Before anything runs that makes new ones.
        peer.review_outputs(&needed).await?;
        let (shelf, returned) = Shelf::new(peer.clone(), shutdown.clone());
        let (sender, messages) = worker::channel();
        let (standings, standing) = watch::channel(Standings::new());
        let (farewells, left) = mpsc::channel(PROJECTS_MAX);
        let clock = Clock::from(Timestamp::default());
        let ear = Ear::default();
        let common = Common {
            peer: peer.clone(),
            executor: Arc::clone(&executor),
            faults: options.faults.into(),
            shelf: shelf.clone(),
            ear: ear.clone(),
            register: Register {
                agent: concat!("dockercomp/", env!("CARGO_PKG_VERSION")).to_owned(),
                executors: vec![executor.kind()],
                offer: options.offer,
                addresses: Vec::new(),
                operator: options.operator.clone(),
                platform: platform::platform(),
            },
            worker: sender.clone(),
            standings: standing,
            clock,
            stopping: shutdown.clone(),
        };
        let seed = u64::from_le_bytes(*peer.id().to_bytes().last_chunk().expect("a long id"));
        let household = Household::new(Config::new(options.offer, seed));
        let worker = Worker::new(household, clock, messages, standings, farewells);
        let working = tokio::spawn(worker.run(shutdown.clone()));

        let roster = Roster::new(common);
        roster.restore(remembered).await?;
        helpers.push(tokio::spawn(shelf.take_back(returned)));
        helpers.push(permits::serve(&peer, shutdown.clone())?);
        helpers.push(ear.start(&peer, sender, shutdown.clone()).await?);
        helpers.push(tokio::spawn(roster.clone().run(left)));
        let state = ApiState {
            peer: peer.clone(),
            roster,
            operator: options.operator,
            executor: executor.kind().to_string(),
            executor_reason: chosen.reason.clone(),
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

impl From<RosterError> for StartError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::Store(error) => Self::Store(error),
            RosterError::Full => Self::TooManyProjects,
            RosterError::Unknown { .. } | RosterError::Ambiguous { .. } => Self::NoProject,
        }
    }
}
