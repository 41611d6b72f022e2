//! Options: everything a [`crate::Service`] is told before it starts.
//!
//! [`Options::new`] gives defaults that suit the [`Role`]; callers overwrite fields. Nothing is
//! read from the environment or from files here.

use std::time::Duration;

use libp2p::{Multiaddr, identity::Keypair};

/// What a process is to the network. It decides the Kademlia mode and the connection limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A door to the network: keeps provider records and accepts many connections.
    Bootstrap,
    /// A well-known process such as a coordinator: takes part in Kademlia.
    Server,
    /// A volunteer's node: asks Kademlia but keeps nothing for others.
    Client,
}

impl Role {
    /// Whether the process answers Kademlia requests of others.
    #[must_use]
    pub fn serves_kademlia(self) -> bool {
        match self {
            Self::Bootstrap | Self::Server => true,
            Self::Client => false,
        }
    }
}

/// How many connections are allowed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Incoming connections that have not finished their handshake.
    pub pending_incoming: u32,
    /// Dials under way.
    pub pending_outgoing: u32,
    /// Established connections in all.
    pub established: u32,
    /// Established connections with one peer.
    pub established_per_peer: u32,
}

impl Limits {
    /// The limits that suit a role: a volunteer's router must not suffer from thousands of flows.
    #[must_use]
    pub fn of(role: Role) -> Self {
        match role {
            Role::Bootstrap | Role::Server => Self {
                pending_incoming: 512,
                pending_outgoing: 128,
                established: 16_384,
                established_per_peer: 4,
            },
            Role::Client => Self {
                pending_incoming: 32,
                pending_outgoing: 32,
                established: 128,
                established_per_peer: 4,
            },
        }
    }
}

/// Exponential back-off with jitter, used to reach lost bootstrap nodes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the first retry.
    pub first: Duration,
    /// No delay is longer than this.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The delay before retry number `attempt`, counted from zero.
    ///
    /// `jitter` in `0.0..=1.0` spreads the upper half of the delay, so that nodes that lost the
    /// same bootstrap node at the same moment do not come back at the same moment.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(attempt)).min(self.max);
        let half = doubled / 2;
        half + half.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One connection attempt: dial, encryption and multiplexing.
    pub dial: Duration,
    /// [`crate::Handle::open`] as a whole: dial where needed, and negotiation.
    pub open: Duration,
    /// One Kademlia query.
    pub query: Duration,
    /// An idle connection is closed after this time.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            open: Duration::from_secs(15),
            query: Duration::from_secs(20),
            idle: Duration::from_secs(60),
        }
    }
}

/// Everything a [`crate::Service`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The identity of this install. Its public half is the peer id.
    pub keypair: Keypair,
    /// What this process is to the network.
    pub role: Role,
    /// Addresses to listen on, TCP or QUIC. Port 0 lets the system choose.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others are told, where they differ from what we listen on (a port
    /// forwarding, a public name). Empty: the listen addresses are told, and loopback addresses
    /// only where we listen on nothing else.
    pub external: Vec<Multiaddr>,
    /// Bootstrap nodes, each ending in `/p2p/<peer id>`.
    pub bootstrap: Vec<Multiaddr>,
    /// The only gossip topics that this process handles, its own or another's.
    pub topics: Vec<String>,
    /// What we call ourselves to peers, for example `dockercomp/0.1.0`.
    pub agent: String,
    /// How many connections are allowed at once.
    pub limits: Limits,
    /// How often lost bootstrap nodes are tried.
    pub redial: Backoff,
    /// How long things may take.
    pub timeouts: Timeouts,
}

impl Options {
    /// Options that listen nowhere and know nobody, with the defaults of the role.
    #[must_use]
    pub fn new(keypair: Keypair, role: Role) -> Self {
        Self {
            keypair,
            role,
            listen: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            topics: Vec::new(),
            agent: concat!("dockercomp/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::of(role),
            redial: Backoff::default(),
            timeouts: Timeouts::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delays double up to the maximum, and jitter only ever shortens them, by half at most.
    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        assert_eq!(backoff.delay(0, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(3, 1.0), Duration::from_secs(8));
        assert_eq!(backoff.delay(3, 0.0), Duration::from_secs(4));
        assert_eq!(backoff.delay(6, 1.0), Duration::from_secs(60));
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(60));
    }
}
