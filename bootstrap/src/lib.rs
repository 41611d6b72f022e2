//! The bootstrap node: the door by which every other process finds the network.
//!
//! It keeps Kademlia's provider records (who coordinates which project, who holds which
//! dataset) and passes announcements on. It belongs to no project and holds no data: what it
//! knows is announced to it again after a restart.
//!
//! # What is not here
//!
//! - No relay and no AutoNAT server yet: nodes that nobody can dial work, but serve no chunks.

use std::path::PathBuf;

use dockercomp_network as network;
use dockercomp_peer::identity::{self, IdentityError};
use dockercomp_protocol::log::HeadNotice;
use dockercomp_protocol::statement::Announcement;
use dockercomp_store::{DataLock, OpenError};
use multiaddr::Multiaddr;
use tokio_util::sync::CancellationToken;

/// What a bootstrap node needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its identity lies.
    pub dir: PathBuf,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others are told, where they differ.
    pub external: Vec<Multiaddr>,
}

/// Why a bootstrap node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process runs on the directory, or it cannot be made.
    #[error("cannot use the data directory")]
    Directory(#[from] OpenError),
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The addresses cannot be listened on.
    #[error("cannot start the network")]
    Network(#[from] network::BindError),
    /// Announcements cannot be passed on.
    #[error("cannot take part in announcements")]
    Gossip(#[from] network::SubscribeError),
}

/// A running bootstrap node.
#[derive(Debug)]
pub struct Service {
    network: tokio::task::JoinHandle<()>,
    handle: network::Handle,
    _lock: DataLock,
}

impl Service {
    /// Starts a bootstrap node; it is reachable when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Self, StartError> {
        let lock = DataLock::acquire(&options.dir)?;
        let keypair = identity::load_or_create(&options.dir.join(identity::FILE))?;
        let options = network::Options {
            listen: options.listen,
            external: options.external,
            topics: vec![Announcement::TOPIC.to_owned(), HeadNotice::TOPIC.to_owned()],
            ..network::Options::new(keypair, network::Role::Bootstrap)
        };
        let service = network::Service::bind(options).await?;
        let handle = service.handle();
        let network = tokio::spawn(service.run(shutdown));
        handle.forward(Announcement::TOPIC, |bytes| Announcement::open(bytes).is_some()).await?;
        handle.forward(HeadNotice::TOPIC, |bytes| HeadNotice::open(bytes).is_ok()).await?;
        Ok(Self { network, handle, _lock: lock })
    }

    /// Its addresses, each ending in `/p2p/<id>`.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.handle.advertised_addresses()
    }

    /// Waits until it has been shut down.
    pub async fn stopped(self) {
        if let Err(error) = self.network.await {
            tracing::error!(%error, "network task failed");
        }
    }
}
