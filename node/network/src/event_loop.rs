//! The event loop: the one task that owns the swarm.
//!
//! # Shape
//!
//! ```text
//! Handle ──Command──► ┌─────────┐ ◄──events── swarm (connections run in tasks of their own)
//!        ◄──answer─── │ Service │ ◄──deadline─ redial
//!                     └─────────┘
//! ```
//!
//! Each source is served by an `on_…` method that neither awaits nor blocks: answers and messages
//! go into bounded queues or are dropped. Decisions live in small state machines beside this file:
//! `redial` (lost bootstrap nodes), `dialer` (who waits for whom), `kademlia` (lookups and
//! announcements), `peers` (who is connected), [`crate::gossip`] (who listens to what).
//!
//! # What is not here
//!
//! No payload: streams are used by the tasks that opened or accepted them.
//!
//! # After a restart
//!
//! Nothing is kept on disk. A restarted bootstrap node has lost all provider records; those who
//! were connected notice, redial it and announce their keys again.

mod commands;
mod dialer;
mod gossip;
mod identity;
mod kademlia;
mod peers;
mod redial;

pub use self::kademlia::PROVIDERS_MAX;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, transport::TransportError},
    identify,
    swarm::{ConnectionId, DialError as SwarmDialError, SwarmEvent},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    dialer::Dialer,
    kademlia::{Announcer, Lookups},
    redial::Redial,
};
use crate::{
    addresses,
    behaviour::{self, Behaviour, BehaviourEvent},
    command::Command,
    error::BindError,
    gossip::Topics,
    handle::Handle,
    info::OwnAddresses,
    options::Options,
    streams::Registry,
};

/// Commands that wait for the event loop.
const COMMAND_QUEUE: usize = 1024;

/// How long listeners may take to report their addresses. They do so at once or never.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A network service that listens already and works while [`Service::run`] runs.
pub struct Service {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    handle: Handle,
    own: watch::Sender<OwnAddresses>,
    listening: BTreeSet<Multiaddr>,
    /// Whether the caller said what to tell others.
    external_is_fixed: bool,
    peers: peers::Table,
    dialer: Dialer,
    redial: Redial,
    lookups: Lookups,
    announcer: Announcer,
    topics: Topics,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Service {
    /// Binds all listen addresses and waits until their ports are known.
    ///
    /// # Errors
    ///
    /// [`BindError`] if an address cannot be bound or an option is wrong.
    pub async fn bind(options: Options) -> Result<Self, BindError> {
        let local_peer = options.keypair.public().to_peer_id();
        let redial = Redial::new(
            options.redial,
            bootstrap_peers(&options.bootstrap, local_peer)?,
            Instant::now(),
        );
        let registry = Arc::new(Registry::new());
        let swarm = behaviour::swarm(&options, Arc::clone(&registry))?;
        let (commands_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (own, own_receiver) = watch::channel(OwnAddresses::default());
        let mut service = Self {
            swarm,
            commands,
            handle: Handle {
                local_peer,
                timeouts: options.timeouts,
                commands: commands_sender,
                own: own_receiver,
                registry,
            },
            own,
            listening: BTreeSet::new(),
            external_is_fixed: !options.external.is_empty(),
            peers: peers::Table::default(),
            dialer: Dialer::default(),
            redial,
            lookups: Lookups::default(),
            announcer: Announcer::default(),
            topics: Topics::new(&options.topics),
        };
        for address in options.external {
            let address = addresses::without_peer(address, local_peer);
            address.into_iter().for_each(|address| service.swarm.add_external_address(address));
        }
        service.listen(options.listen).await?;
        service.publish_own_addresses();
        Ok(service)
    }

    /// Access for the rest of the process.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Works until `shutdown` is cancelled; then all connections close and all handles, streams
    /// of [`crate::Incoming`] and subscriptions end.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tracing::info!(peer = %self.handle.local_peer, "network service running");
        loop {
            let redial_due = self.redial.next_deadline();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(command) = self.commands.recv() => self.on_command(command),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                () = until(redial_due) => self.on_redial_due(),
            }
        }
        tracing::info!(peer = %self.handle.local_peer, "network service stopped");
    }

    /// Starts all listeners and polls the swarm until each has reported an address.
    async fn listen(&mut self, wanted: Vec<Multiaddr>) -> Result<(), BindError> {
        let mut silent = HashSet::new();
        for address in wanted {
            let listener = self.swarm.listen_on(address.clone()).map_err(|error| match error {
                TransportError::Other(source) => BindError::Listen { address, source },
                TransportError::MultiaddrNotSupported(address) => {
                    BindError::UnsupportedAddress { address }
                }
            })?;
            silent.insert(listener);
        }
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        while !silent.is_empty() {
            let Ok(event) = timeout_at(deadline, self.swarm.select_next_some()).await else {
                let (pending, after) = (silent.len(), LISTEN_TIMEOUT);
                return Err(BindError::ListenTimedOut { pending, after });
            };
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                silent.remove(listener_id);
            }
            self.on_swarm_event(event);
        }
        Ok(())
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id, connection_id, num_established, cause, ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id, error } => {
                self.on_dial_failed(peer, connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "incoming connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.listening.insert(address);
                self.advertise();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "no longer listening");
                self.listening.remove(&address);
                self.advertise();
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "listener closed");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener failed"),
            // New candidates for external addresses are the business of AutoNAT, and the rest
            // needs no reaction. The enum is open: there is no way to name all of it.
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => self.on_identified(peer_id, connection_id, info),
            BehaviourEvent::Identify(
                identify::Event::Sent { .. } | identify::Event::Pushed { .. },
            ) => {}
            BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. }) => {
                tracing::debug!(peer = %peer_id, %error, "identification failed");
            }
            BehaviourEvent::Ping(event) => match event.result {
                Ok(rtt) => self.peers.on_rtt(event.peer, event.connection, rtt),
                Err(error) => tracing::debug!(peer = %event.peer, %error, "ping failed"),
            },
            BehaviourEvent::Kad(event) => self.on_kad_event(event),
            BehaviourEvent::Gossip(event) => self.on_gossip_event(event),
            BehaviourEvent::Store(_) => {}
            BehaviourEvent::Limits(never)
            | BehaviourEvent::Bans(never)
            | BehaviourEvent::Streams(never) => match never {},
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        tracing::debug!(%peer, address = %endpoint.get_remote_address(), "connected");
        self.peers.on_connected(peer, id, endpoint);
        self.redial.on_connected(peer);
        for waiting in self.dialer.on_connected(peer) {
            self.serve(peer, waiting);
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId, n_remaining: u32) {
        self.peers.on_closed(peer, id);
        if n_remaining == 0 && self.redial.on_lost(peer, Instant::now(), rand::random()) {
            tracing::info!(%peer, "bootstrap node lost");
        }
    }

    fn on_dial_failed(&mut self, peer: PeerId, id: ConnectionId, error: &SwarmDialError) {
        tracing::debug!(%peer, %error, "dial failed");
        if self.redial.on_failed(peer, id, Instant::now(), rand::random()) {
            tracing::warn!(%peer, %error, "bootstrap node does not answer");
        }
        self.on_attempt_failed(peer, id, error);
    }

    fn on_redial_due(&mut self) {
        for (peer, addresses) in self.redial.due(Instant::now()) {
            match self.dial_bootstrap(peer, addresses) {
                Ok(connection) => self.redial.on_dialling(peer, connection),
                Err(error) => {
                    tracing::debug!(%peer, %error, "bootstrap node not dialled");
                    self.redial.on_not_dialled(peer, Instant::now(), rand::random());
                }
            }
        }
    }
}

impl Drop for Service {
    /// Connections' tasks share the registry and may outlive us for a moment.
    fn drop(&mut self) {
        self.handle.registry.close();
    }
}

/// Groups bootstrap addresses by peer, without ourselves.
fn bootstrap_peers(
    addresses: &[Multiaddr],
    local_peer: PeerId,
) -> Result<Vec<(PeerId, Multiaddr)>, BindError> {
    let split = |address: &Multiaddr| {
        addresses::split_peer(address.clone())
            .ok_or_else(|| BindError::BootstrapWithoutPeer { address: address.clone() })
    };
    let peers: Vec<_> = addresses.iter().map(split).collect::<Result<_, _>>()?;
    Ok(peers.into_iter().filter(|(peer, _)| *peer != local_peer).collect())
}

/// Waits for a deadline, or for ever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
