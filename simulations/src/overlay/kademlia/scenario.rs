//! What is simulated: who is there and for how long, by which rules, and what is looked up.

use std::time::Duration;

use serde::Deserialize;

use crate::overlay::latency::{Latency, LatencyError};
use crate::overlay::text;

/// Most servers of one run: each costs about ten kilobytes.
const NODES_MAX: u32 = 1_000_000;

/// Everything about a run but its seed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Servers that can be reached, at any time.
    pub reachable: u32,
    /// Servers that say so, and cannot be dialled, at any time: they dial others.
    #[serde(default)]
    pub hidden: u32,
    /// Reachable servers that everybody knows when they join.
    pub bootstrap: u32,
    /// Of the reachable servers, those that share networks with each other. All others are
    /// alone in theirs.
    #[serde(default)]
    pub colocated: Option<Colocated>,
    /// The protocol.
    pub routing: Options,
    /// How nodes come and go, if they do.
    #[serde(default)]
    pub churn: Option<Churn>,
    /// How long the network runs before it is looked at.
    #[serde(deserialize_with = "text::duration")]
    pub duration: Duration,
    /// How long a crawler takes to read all tables; each node is read at some time of it.
    #[serde(deserialize_with = "text::duration")]
    pub crawl: Duration,
    /// Lookups by a client after the crawl, if any.
    #[serde(default)]
    pub lookups: Option<Lookups>,
}

/// Servers of one operator in a few networks. They stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Colocated {
    /// How many.
    pub nodes: u32,
    /// Networks (IPv4 prefixes of 16 bits) that they are spread over evenly.
    pub networks: u16,
}

/// The protocol's parameters.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Whose reading of Kademlia is followed.
    pub rules: Rules,
    /// Peers in a bucket, in an answer, and in a result.
    pub k: usize,
    /// Questions at once.
    pub alpha: usize,
    /// go-libp2p only: so many of the closest must have answered.
    pub beta: usize,
    /// Time between refreshes of a table.
    #[serde(deserialize_with = "text::duration")]
    pub refresh: Duration,
    /// go-libp2p only: who was not heard for so long is dialled at a refresh, and dropped if it
    /// cannot be reached.
    #[serde(deserialize_with = "text::duration")]
    pub grace: Duration,
    /// go-libp2p only: entries of one network in a bucket, and in the whole table
    /// (`maxPrefixCountPerCpl` and `maxPrefixCount` of its `dual` package).
    pub same_network_in_bucket: usize,
    /// See [`Self::same_network_in_bucket`].
    pub same_network_in_table: usize,
    /// How long a connection that a hidden node has made stays open.
    #[serde(deserialize_with = "text::duration")]
    pub hidden_connection: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules::Libp2p,
            k: 20,
            alpha: 3,
            beta: 3,
            refresh: Duration::from_secs(300),
            grace: Duration::from_secs(43 * 60),
            same_network_in_bucket: 2,
            same_network_in_table: 3,
            hidden_connection: Duration::from_secs(300),
        }
    }
}

/// Where implementations differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rules {
    /// go-libp2p-kad-dht of 2022: who fails is dropped, few of one network may enter a table, a
    /// lookup ends when `beta` of the closest have answered and follows up on the rest of the `k`
    /// closest.
    Go,
    /// rust-libp2p 0.57: who fails gives way to newcomers only, a lookup ends when the `k` closest
    /// have answered.
    Libp2p,
}

/// Sessions of nodes. Who leaves is replaced at once by a new node, so that the network keeps
/// its size; at the beginning, ages are those of a network that has run for ever.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Lengths of sessions at equally spaced quantiles, the shortest first, straight lines
    /// between them.
    #[serde(deserialize_with = "text::list")]
    pub sessions: Vec<Duration>,
}

/// What a client looks up: the keys of contents that it provides.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookups {
    /// How many.
    pub count: u32,
    /// The links between the client and servers.
    pub latency: Latency,
    /// Round trips until a connection can be used.
    pub handshake_round_trips: u32,
    /// How long the dial of somebody who cannot be reached takes.
    #[serde(deserialize_with = "text::duration")]
    pub dial_timeout: Duration,
}

/// Why a scenario cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Too few or too many nodes.
    #[error("{nodes} servers: there must be 2 to {NODES_MAX}, some of them for joining")]
    Nodes {
        /// How many it has.
        nodes: u64,
    },
    /// More that share networks than there are, or no networks to share.
    #[error("of {reachable} reachable servers, {nodes} cannot share {networks} networks")]
    Colocated {
        /// Reachable servers, besides those that everybody knows.
        reachable: u32,
        /// How many share networks.
        nodes: u32,
        /// How many networks.
        networks: u16,
    },
    /// A parameter of the protocol that is zero or contradicts another.
    #[error("routing needs k, alpha, beta and a refresh above zero, and beta <= k")]
    Routing,
    /// Quantiles that are no distribution.
    #[error("sessions need at least two quantiles that do not fall, and the last above zero")]
    Sessions,
    /// About the links.
    #[error("the latency cannot be")]
    Latency(#[from] LatencyError),
}

impl Scenario {
    /// Whether this can be.
    ///
    /// # Errors
    ///
    /// The first thing that cannot.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let nodes = u64::from(self.reachable) + u64::from(self.hidden);
        let can_join = (1..=self.reachable).contains(&self.bootstrap);
        if !(2..=u64::from(NODES_MAX)).contains(&nodes) || !can_join {
            return Err(ScenarioError::Nodes { nodes });
        }
        if let Some(Colocated { nodes, networks }) = self.colocated {
            let reachable = self.reachable - self.bootstrap;
            if nodes > reachable || networks == 0 {
                return Err(ScenarioError::Colocated { reachable, nodes, networks });
            }
        }
        let Options { k, alpha, beta, refresh, .. } = self.routing;
        if k == 0 || alpha == 0 || beta == 0 || beta > k || refresh.is_zero() {
            return Err(ScenarioError::Routing);
        }
        if let Some(Churn { sessions }) = &self.churn {
            let last = sessions.last().copied().unwrap_or_default();
            if sessions.len() < 2 || !sessions.is_sorted() || last.is_zero() {
                return Err(ScenarioError::Sessions);
            }
        }
        self.lookups.as_ref().map_or(Ok(()), |lookups| Ok(lookups.latency.check()?))
    }
}
