//! Facts: what callers are told about peers, providers and ourselves. Plain data.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

/// Which side made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

/// What a connection runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with noise and yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// A connected peer, described by its newest connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who it is.
    pub peer: PeerId,
    /// Where it says that it listens, or where we reached it.
    pub addresses: Vec<Multiaddr>,
    /// The other end of the newest connection.
    pub remote: Multiaddr,
    /// What it calls itself, once it has said so; printable and at most 128 characters.
    pub agent: Option<String>,
    /// Which side made the newest connection.
    pub direction: Direction,
    /// What the newest connection runs over.
    pub transport: Transport,
    /// The last round-trip time measured on the newest connection.
    pub rtt: Option<Duration>,
    /// How many connections there are.
    pub n_connections: usize,
    /// Whether it answers Kademlia requests.
    pub serves_kademlia: bool,
    /// Gossip from it, its own or forwarded, that a validator refused.
    pub n_gossip_rejected: u64,
}

/// Somebody who provides a key, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who provides.
    pub peer: PeerId,
    /// Where it can be reached; [`crate::Handle::open`] knows these addresses already.
    pub addresses: Vec<Multiaddr>,
}

/// Our own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnAddresses {
    pub(crate) listening: Vec<Multiaddr>,
    /// With `/p2p/<our id>` at the end.
    pub(crate) advertised: Vec<Multiaddr>,
}
