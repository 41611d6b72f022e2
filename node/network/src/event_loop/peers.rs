//! Peers: who is connected, and what it said and did.
//!
//! Data only. Entries live as long as there is a connection, so the connection limits bound them.

use std::{collections::HashMap, time::Duration};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};

use crate::{
    addresses::is_quic,
    info::{Direction, PeerInfo, Transport},
};

/// Characters of a peer's agent that are kept.
const AGENT_CHARS_MAX: usize = 128;

/// The connected peers.
#[derive(Debug, Default)]
pub(super) struct Table {
    peers: HashMap<PeerId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// Oldest first, never empty.
    connections: Vec<Connection>,
    /// `None` until the peer has identified itself.
    identity: Option<Identity>,
    n_gossip_rejected: u64,
}

#[derive(Debug)]
struct Identity {
    agent: String,
    addresses: Vec<Multiaddr>,
    serves_kademlia: bool,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    remote: Multiaddr,
    direction: Direction,
    rtt: Option<Duration>,
}

impl Table {
    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, at: &ConnectedPoint) {
        self.peers.entry(peer).or_default().connections.push(Connection {
            id,
            remote: at.get_remote_address().clone(),
            direction: if at.is_dialer() { Direction::Outbound } else { Direction::Inbound },
            rtt: None,
        });
    }

    pub(super) fn on_closed(&mut self, peer: PeerId, closed: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.connections.retain(|connection| connection.id != closed);
            if entry.connections.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    pub(super) fn on_rtt(&mut self, peer: PeerId, id: ConnectionId, rtt: Duration) {
        if let Some(connection) = self.connection_mut(peer, id) {
            connection.rtt = Some(rtt);
        }
    }

    /// `true` if this is news: the first time since it connected, or it has become a server.
    pub(super) fn on_identified(
        &mut self,
        peer: PeerId,
        agent: &str,
        addresses: Vec<Multiaddr>,
        serves_kademlia: bool,
    ) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else { return false };
        let agent = agent.chars().filter(|c| !c.is_control()).take(AGENT_CHARS_MAX).collect();
        let before = entry.identity.replace(Identity { agent, addresses, serves_kademlia });
        before.is_none_or(|before| before.serves_kademlia != serves_kademlia)
    }

    pub(super) fn on_gossip_rejected(&mut self, peer: PeerId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.n_gossip_rejected = entry.n_gossip_rejected.saturating_add(1);
        }
    }

    /// The other end of a connection.
    pub(super) fn remote(&self, peer: PeerId, id: ConnectionId) -> Option<&Multiaddr> {
        let connections = &self.peers.get(&peer)?.connections;
        connections.iter().find(|connection| connection.id == id).map(|found| &found.remote)
    }

    /// The other end of the newest connection to a peer.
    pub(super) fn newest(&self, peer: PeerId) -> Option<&Multiaddr> {
        self.peers.get(&peer)?.connections.last().map(|newest| &newest.remote)
    }

    /// Whether any connected peer answers Kademlia requests.
    pub(super) fn any_serves(&self) -> bool {
        self.peers.values().any(|peer| peer.identity.as_ref().is_some_and(|i| i.serves_kademlia))
    }

    /// A description of everybody, in the order of their ids.
    pub(super) fn list(&self) -> Vec<PeerInfo> {
        let mut all: Vec<_> =
            self.peers.iter().filter_map(|(peer, entry)| entry.describe(*peer)).collect();
        all.sort_by_key(|info| info.peer);
        all
    }

    fn connection_mut(&mut self, peer: PeerId, id: ConnectionId) -> Option<&mut Connection> {
        let connections = &mut self.peers.get_mut(&peer)?.connections;
        connections.iter_mut().find(|connection| connection.id == id)
    }
}

impl Peer {
    fn describe(&self, peer: PeerId) -> Option<PeerInfo> {
        let newest = self.connections.last()?;
        let identity = self.identity.as_ref();
        let reached = || match newest.direction {
            Direction::Outbound => vec![newest.remote.clone()],
            // The port of an inbound connection leads nowhere.
            Direction::Inbound => Vec::new(),
        };
        Some(PeerInfo {
            peer,
            addresses: identity.map_or_else(reached, |identity| identity.addresses.clone()),
            remote: newest.remote.clone(),
            agent: identity.map(|identity| identity.agent.clone()),
            direction: newest.direction,
            transport: if is_quic(&newest.remote) { Transport::Quic } else { Transport::Tcp },
            rtt: newest.rtt,
            n_connections: self.connections.len(),
            serves_kademlia: identity.is_some_and(|identity| identity.serves_kademlia),
            n_gossip_rejected: self.n_gossip_rejected,
        })
    }
}
