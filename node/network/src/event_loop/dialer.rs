//! The dialer: who waits for a connection with whom.
//!
//! Many callers may wait for one peer; one attempt serves them all. An address that turns out to
//! belong to somebody else is forgotten and the rest are tried, because one stranger who answers
//! quickly would otherwise fail the attempt for the right one.
//!
//! # Bounds
//!
//! [`PEERS_MAX`] peers are dialled at once on behalf of callers, [`WAITING_PER_PEER_MAX`] callers
//! wait for one, and an attempt is repeated [`TRIES_MAX`] times.

use std::collections::HashMap;

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    swarm::{
        ConnectionId, DialError as SwarmDialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::Service;
use crate::{
    command::{Reply, answer},
    error::{DialError, OpenError},
    streams::OpenReply,
};

/// Peers that are dialled at once on behalf of callers.
const PEERS_MAX: usize = 256;

/// Callers that wait for one peer.
const WAITING_PER_PEER_MAX: usize = 128;

/// Dials of one attempt, the first included.
const TRIES_MAX: u8 = 4;

/// A caller and what it wants once there is a connection.
#[derive(Debug)]
pub(super) enum Waiting {
    Connect { reply: Reply<Result<(), DialError>> },
    Open { protocol: StreamProtocol, reply: OpenReply },
}

impl Waiting {
    fn fail(self, error: DialError) {
        match self {
            Self::Connect { reply } => answer(reply, Err(error)),
            Self::Open { reply, .. } => answer(reply, Err(OpenError::Dial(error))),
        }
    }
}

/// Attempts under way on behalf of callers.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    attempts: HashMap<PeerId, Attempt>,
}

#[derive(Debug, Default)]
struct Attempt {
    /// The dial that decides; absent while a dial of another part of the swarm is awaited.
    connection: Option<ConnectionId>,
    n_tries: u8,
    waiting: Vec<Waiting>,
}

impl Dialer {
    /// Those who were waiting for the peer.
    pub(super) fn on_connected(&mut self, peer: PeerId) -> Vec<Waiting> {
        self.attempts.remove(&peer).map(|attempt| attempt.waiting).unwrap_or_default()
    }

    /// Queues a caller. `Ok(true)` if a dial is to be made; the caller back if there is no room.
    fn wait(&mut self, peer: PeerId, waiting: Waiting) -> Result<bool, Waiting> {
        let is_full = self.attempts.len() >= PEERS_MAX;
        match self.attempts.get_mut(&peer) {
            Some(attempt) if attempt.waiting.len() >= WAITING_PER_PEER_MAX => Err(waiting),
            Some(attempt) => {
                attempt.waiting.push(waiting);
                Ok(false)
            }
            None if is_full => Err(waiting),
            None => {
                let attempt = Attempt { waiting: vec![waiting], ..Attempt::default() };
                self.attempts.insert(peer, attempt);
                Ok(true)
            }
        }
    }
}

impl Service {
    /// Gives a caller what it wants, now or once the peer is connected.
    pub(super) fn reach(&mut self, peer: PeerId, waiting: Waiting) {
        if peer == self.handle.local_peer {
            return waiting.fail(DialError::Own { peer });
        }
        if self.swarm.is_connected(&peer) {
            return self.serve(peer, waiting);
        }
        match self.dialer.wait(peer, waiting) {
            Ok(true) => self.dial(peer, DialError::NoAddresses { peer }),
            Ok(false) => {}
            Err(waiting) => waiting.fail(DialError::Busy { peer }),
        }
    }

    /// The peer is connected: gives a caller what it wants.
    pub(super) fn serve(&mut self, peer: PeerId, waiting: Waiting) {
        match waiting {
            Waiting::Connect { reply } => answer(reply, Ok(())),
            Waiting::Open { protocol, reply } => {
                self.swarm.behaviour().streams.open(peer, protocol, reply);
            }
        }
    }

    /// Dials a bootstrap node at the addresses that the user gave.
    pub(super) fn dial_bootstrap(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> Result<ConnectionId, SwarmDialError> {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .build();
        let connection = options.connection_id();
        self.swarm.dial(options).map(|()| connection)
    }

    /// Dials a peer at all addresses that the user, the peer store and Kademlia know. If there are
    /// none, `without_addresses` is what the callers are told.
    fn dial(&mut self, peer: PeerId, without_addresses: DialError) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(self.redial.addresses(peer))
            .extend_addresses_through_behaviour()
            .build();
        let connection = options.connection_id();
        let dialled = self.swarm.dial(options);
        let Some(attempt) = self.dialer.attempts.get_mut(&peer) else { return };
        match dialled {
            Ok(()) => {
                attempt.connection = Some(connection);
                attempt.n_tries += 1;
            }
            // Somebody else dials the peer: its success is ours, its failure makes us dial.
            Err(SwarmDialError::DialPeerConditionFalse(_)) => attempt.connection = None,
            Err(SwarmDialError::NoAddresses) => self.give_up(peer, &without_addresses),
            Err(error) => self.give_up(peer, &told(peer, &error)),
        }
    }

    /// A dial to the peer failed, ours or another's.
    pub(super) fn on_attempt_failed(
        &mut self,
        peer: PeerId,
        failed: ConnectionId,
        error: &SwarmDialError,
    ) {
        let told = told(peer, error);
        let stranger = match error {
            SwarmDialError::WrongPeerId { address, .. }
            | SwarmDialError::LocalPeerId { address } => Some(address),
            _ => None,
        };
        if let Some(address) = stranger {
            self.forget_address(peer, address.clone());
        }
        let Some(attempt) = self.dialer.attempts.get_mut(&peer) else { return };
        attempt.waiting.retain(|waiting| !waiting.is_gone());
        let again = match attempt.connection {
            None => true,
            Some(connection) if connection == failed => stranger.is_some(),
            Some(_) => return,
        };
        if again && attempt.n_tries < TRIES_MAX && !attempt.waiting.is_empty() {
            self.dial(peer, told);
        } else {
            self.give_up(peer, &told);
        }
    }

    fn give_up(&mut self, peer: PeerId, error: &DialError) {
        for waiting in self.dialer.on_connected(peer) {
            waiting.fail(error.clone());
        }
    }
}

impl Waiting {
    /// Whether the caller has given up.
    fn is_gone(&self) -> bool {
        match self {
            Self::Connect { reply } => reply.is_closed(),
            Self::Open { reply, .. } => reply.is_closed(),
        }
    }
}

/// What callers are told of the swarm's error. Its details are in the log.
fn told(peer: PeerId, error: &SwarmDialError) -> DialError {
    match error {
        SwarmDialError::LocalPeerId { .. } => DialError::Own { peer },
        SwarmDialError::NoAddresses => DialError::NoAddresses { peer },
        SwarmDialError::DialPeerConditionFalse(_) | SwarmDialError::Aborted => {
            DialError::Abandoned { peer }
        }
        SwarmDialError::WrongPeerId { obtained, address } => {
            DialError::WrongPeer { peer, obtained: Box::new(*obtained), address: address.clone() }
        }
        SwarmDialError::Denied { .. } => DialError::Denied { peer },
        SwarmDialError::Transport(tried) => DialError::Unreachable { peer, tried: tried.len() },
    }
}
