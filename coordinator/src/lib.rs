//! A project's coordinator: the shell around the pure core.
//!
//! ```text
//!  nodes ──work RPC──► work ──┐                        ┌──► announce ──gossip──► nodes
//!                             ├──► decider (core, journal)
//!  owner ──control───► api  ──┘                        └──► outputs ──chunks───► store
//! ```
//!
//! `decider` is the only task that owns the core; everything else checks what comes in,
//! and carries out what was decided once it is durable.
//!
//! # Crash behaviour
//!
//! `kill -9` at any instant loses nothing that was answered: records and receipts are synced
//! before anything of a step becomes visible, and a restart is a replay of the journal.
//!
//! # What is not here
//!
//! - No decision: who gets work and which result counts is the core's.
//! - No bodies of datasets: `dockercomp_store` keeps them.

mod announce;
pub mod api;
pub mod backup;
mod compare;
mod decider;
mod directory;
mod explain;
pub mod history;
mod inline;
mod jobs;
mod journal;
mod known;
mod log;
mod logs;
mod outputs;
mod receipts;
mod report;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_coordinator_core::Config;
use dockercomp_network::{AcceptError, ProvideError, Role};
use dockercomp_peer::clock::Clock;
use dockercomp_peer::identity::{self, IdentityError};
use dockercomp_peer::{Peer, PeerError, control};
use dockercomp_protocol::envelope;
use dockercomp_protocol::ids::{NodeId, ProjectId};
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::statement::{Charter, project_key};
use dockercomp_store::StoreError;
use multiaddr::Multiaddr;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::jobs::SubmitError;
pub use crate::journal::{ReplayError, Rhythm};
pub use crate::log::LogError;

use crate::announce::Announcer;
use crate::decider::Decider;
use crate::directory::Directory;
use crate::jobs::Jobs;
use crate::log::Log;
use crate::outputs::Effects;
use crate::receipts::Seal;
use crate::work::Server;

/// The name of the project's own key in the coordinator's data directory.
pub const OWNER_KEY: &str = "owner.key";

/// What a coordinator needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its identity, journal and data lie.
    pub dir: PathBuf,
    /// What people call the project.
    pub name: String,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others are told, where they differ.
    pub external: Vec<Multiaddr>,
    /// Doors to the network, each ending in `/p2p/<id>`.
    pub bootstrap: Vec<Multiaddr>,
    /// Loopback address of the control door.
    pub api: SocketAddr,
    /// Bytes of the disk that are left free, if not the store's default.
    pub reserve_bytes: Option<u64>,
    /// How often the state is written as a whole, so that a restart replays little.
    pub rhythm: Rhythm,
    /// No lease runs out for this long after a restart.
    pub restart_grace: Duration,
    /// An accepted output is computed again when nobody gave anything of it for this long.
    pub outputs_lost_after: Duration,
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its data directory or its side of the network is not to be had.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// There is no project key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The log of accepted work units cannot be carried on.
    #[error("cannot carry the log of accepted work units on")]
    Log(#[from] LogError),
    /// A job that was accepted cannot be read any more.
    #[error("an accepted job cannot be read")]
    Jobs(#[from] SubmitError),
    /// Another part of this process answers nodes already.
    #[error("cannot answer nodes")]
    Accept(#[from] AcceptError),
    /// The project cannot be announced.
    #[error("cannot announce the project")]
    Provide(#[from] ProvideError),
    /// The control door cannot be opened.
    #[error(transparent)]
    Control(#[from] control::ControlError),
}

/// Why a coordinator stopped by itself.
#[derive(Debug, thiserror::Error)]
#[error("the journal could not be written; nothing that was answered is lost")]
pub struct StopError(#[from] StoreError);

/// A running coordinator.
#[derive(Debug)]
pub struct Service {
    peer: Peer,
    link: JoinLink,
    deciding: JoinHandle<Result<(), StoreError>>,
    helpers: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

impl Service {
    /// Starts a coordinator; nodes and commands are answered when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Self, StartError> {
        let peer_options = dockercomp_peer::Options {
            dir: options.dir.clone(),
            role: Role::Server,
            listen: options.listen,
            external: options.external,
            bootstrap: options.bootstrap.clone(),
            remembered: None,
            quota_bytes: None,
            sharing: dockercomp_peer::Sharing::default(),
            reserve_bytes: options.reserve_bytes,
            lie: false,
        };
        let (peer, mut helpers) = Peer::start(peer_options, shutdown.clone()).await?;
        let owner = identity::load_or_create(&options.dir.join(OWNER_KEY))?;
        let project = owner.public().to_peer_id();
        let charter = Charter { v: 1, project, name: options.name.clone(), coordinator: peer.id() };
        let seal =
            Arc::new(Seal { key: peer.key().clone(), charter: envelope::seal(&owner, &charter) });

        let (store, signer) = (peer.store().clone(), Arc::clone(&seal));
        let config = Config { resume_grace: options.restart_grace, ..Config::default() };
        let replayed = tokio::task::spawn_blocking(move || {
            let jobs = Jobs::load(&store, project)?;
            let (core, journal) = journal::recover(&store, options.rhythm, config)?;
            let (log, heads) = Log::load(&store, project, signer)?;
            Ok::<_, StartError>((jobs, core, journal, log, heads))
        });
        let (jobs, core, journal, log, heads) =
            replayed.await.expect("replaying does not panic")?;
        let clock = Clock::from(core.last_record_at());
        let (decider, handle, effects) =
            Decider::new(core, journal, clock, peer.store().clone(), log);
        let directory = Directory::default();
        let announcer = Announcer::default();
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let server = Server {
            network: peer.network().clone(),
            decider: handle.clone(),
            jobs: jobs.clone(),
            directory: directory.clone(),
            seal: Arc::clone(&seal),
            heads: heads.clone(),
            opening: Arc::new(Semaphore::new(n_cores)),
        };
        let pulling = Effects {
            peer: peer.clone(),
            decider: handle.clone(),
            directory: directory.clone(),
            jobs: jobs.clone(),
            announcer: announcer.clone(),
            checking: Arc::default(),
            lost_after: options.outputs_lost_after,
        };
        let network = peer.network().clone();
        helpers.push(server.start(shutdown.clone())?);
        helpers.push(tokio::spawn(pulling.run(effects, shutdown.clone())));
        helpers.push(tokio::spawn(announcer.run(
            project,
            Arc::clone(&seal),
            network.clone(),
            handle.clone(),
            shutdown.clone(),
        )));
        helpers.push(tokio::spawn(heads.clone().announce(network, shutdown.clone())));
        let deciding = tokio::spawn(decider.run(shutdown.clone()));
        peer.network().provide(&project_key(&project)).await?;

        let link = JoinLink { project, via: options.bootstrap };
        let state = api::ApiState {
            peer: peer.clone(),
            decider: handle,
            heads,
            seal,
            jobs,
            directory,
            project,
            name: options.name,
            link: link.to_string(),
        };
        let router = api::router(state).merge(dockercomp_peer::datasets::router(peer.clone()));
        helpers.push(control::serve(&options.dir, options.api, router, shutdown.clone()).await?);
        Ok(Self { peer, link, deciding, helpers, shutdown })
    }

    /// Its id on the network.
    #[must_use]
    pub fn peer_id(&self) -> NodeId {
        self.peer.id()
    }

    /// The project that it coordinates.
    #[must_use]
    pub fn project(&self) -> ProjectId {
        self.link.project
    }

    /// All that a node needs to join.
    #[must_use]
    pub fn join_link(&self) -> &JoinLink {
        &self.link
    }

    /// Waits until it has been shut down.
    ///
    /// # Errors
    /// [`StopError`] if it stopped because the journal could not be written.
    pub async fn stopped(self) -> Result<(), StopError> {
        let decided = self.deciding.await.expect("the decider does not panic");
        self.shutdown.cancel();
        for helper in self.helpers {
            let _ = helper.await;
        }
        Ok(decided?)
    }
}
