//! What is simulated: nodes, links, routing options, traffic.

use std::time::Duration;

use serde::Deserialize;

use crate::overlay::latency::{Latency, LatencyError};
use crate::overlay::text;

/// Most nodes of one run: each costs kilobytes, and ids are 32 bits.
const NODES_MAX: u32 = 1_000_000;

/// Everything about a run but its seed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Nodes, all of them in the topic.
    pub nodes: u32,
    /// Other nodes that each dials, drawn evenly. Who is dialled is a peer just as well.
    pub dials: u32,
    /// By libp2p's rules: how long it takes until all have dialled, one node after the other. By
    /// simsub's, all connections are there from the beginning.
    #[serde(default = "one_second", deserialize_with = "text::duration")]
    pub connecting: Duration,
    /// The links.
    pub latency: Latency,
    /// How nodes route.
    pub router: Options,
    /// What is published.
    pub traffic: Traffic,
    /// How nodes leave and return, if they do.
    #[serde(default)]
    pub churn: Option<Churn>,
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

/// The protocol's parameters. Names are those of the gossipsub specification.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Whose reading of the specification is followed.
    pub rules: Rules,
    /// The protocol version.
    pub version: Version,
    /// Mesh peers that a node wants.
    pub d: u32,
    /// Below this many, it grafts.
    pub d_low: u32,
    /// Above this many, it prunes.
    pub d_high: u32,
    /// Mesh peers that it dialled itself, at least; only by libp2p's rules.
    pub d_out: u32,
    /// Peers that are told of messages in a heartbeat, at least.
    pub d_lazy: u32,
    /// Time between heartbeats.
    #[serde(deserialize_with = "text::duration")]
    pub heartbeat: Duration,
    /// The first one comes after this and up to one period more.
    #[serde(deserialize_with = "text::duration")]
    pub first_heartbeat: Duration,
    /// Heartbeats for which a message can be asked for.
    pub history: u32,
    /// Heartbeats for which a message is told of.
    pub gossip_window: u32,
    /// How long a message is recognised as seen.
    #[serde(deserialize_with = "text::duration")]
    pub duplicate_cache: Duration,
    /// v1.1: the publisher sends to all peers, not only to those in its mesh.
    pub flood_publish: bool,
    /// v1.1: share of the peers outside the mesh that are told of messages.
    pub gossip_factor: f64,
    /// v1.1: peers that are named to a pruned one.
    pub peer_exchange: u32,
    /// v1.1 by libp2p's rules: nobody is grafted again within this time after a prune.
    #[serde(deserialize_with = "text::duration")]
    pub prune_backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules::Libp2p,
            version: Version::V11,
            d: 6,
            d_low: 4,
            d_high: 12,
            d_out: 2,
            d_lazy: 6,
            heartbeat: Duration::from_secs(1),
            first_heartbeat: Duration::from_secs(1),
            history: 5,
            gossip_window: 3,
            duplicate_cache: Duration::from_secs(60),
            flood_publish: true,
            gossip_factor: 0.25,
            peer_exchange: 0,
            prune_backoff: Duration::from_secs(60),
        }
    }
}

/// Where implementations read the specification differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rules {
    /// The protocol author's simulator, gerbil-simsub: every GRAFT is accepted, meshes are filled
    /// by heartbeats only, each peer outside the mesh is told of messages with the probability
    /// `gossip_factor`, a message is asked for at every IHAVE until it is there, no back-off.
    Simsub,
    /// rust-libp2p 0.57: a GRAFT is refused during back-off and by a full mesh unless we dialled,
    /// a new peer is grafted at once while the mesh is low, a fixed share of the peers outside the
    /// mesh is told of messages, a message is asked for once in a heartbeat.
    Libp2p,
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Version {
    /// No flood publishing, adaptive gossip, peer exchange or back-off, whatever the options say.
    #[serde(rename = "v1.0")]
    V10,
    /// With them.
    #[serde(rename = "v1.1")]
    V11,
}

/// Who publishes, and when.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Publishers, drawn evenly from the nodes; each message comes from one of them.
    pub sources: u32,
    /// Messages.
    pub messages: u32,
    /// Time between two.
    #[serde(deserialize_with = "text::duration")]
    pub interval: Duration,
    /// When the first is published.
    #[serde(deserialize_with = "text::duration")]
    pub start: Duration,
    /// How long the network runs on after the last.
    #[serde(deserialize_with = "text::duration")]
    pub linger: Duration,
}

/// Nodes that leave and return. Their peers notice at once, as connections close.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Share of the nodes that ever leave.
    pub share: f64,
    /// How often chance decides.
    #[serde(deserialize_with = "text::duration")]
    pub tick: Duration,
    /// Probability to leave, in each tick.
    pub leaves: f64,
    /// Probability to return, in each tick.
    pub returns: f64,
}

/// Why a scenario cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Too few or too many nodes.
    #[error("{nodes} nodes: there must be 2 to {NODES_MAX}")]
    Nodes {
        /// How many it has.
        nodes: u32,
    },
    /// A node cannot dial so many others.
    #[error("each node dials {dials} of {nodes} nodes: it must be 1 to all others")]
    Dials {
        /// How many each dials.
        dials: u32,
        /// How many there are.
        nodes: u32,
    },
    /// The bounds of the mesh contradict each other.
    #[error("the mesh needs 0 < d_low <= d <= d_high and 2 * d_out <= d, below d_low")]
    Degrees,
    /// The options of gossip contradict each other.
    #[error("gossip needs a heartbeat, and 0 < gossip_window <= history")]
    Windows,
    /// No probability.
    #[error("{name} is {value}, and must be from 0 to 1")]
    Probability {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// More publishers than nodes, or none.
    #[error("{sources} publishers among {nodes} nodes: there must be at least one")]
    Sources {
        /// Publishers.
        sources: u32,
        /// Nodes.
        nodes: u32,
    },
    /// Nothing to measure, or churn without time.
    #[error("there must be at least one message, and ticks of churn must last")]
    Empty,
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
        let Self { nodes, dials, router, traffic, .. } = self;
        if !(2..=NODES_MAX).contains(nodes) {
            return Err(ScenarioError::Nodes { nodes: *nodes });
        }
        if *dials == 0 || dials >= nodes {
            return Err(ScenarioError::Dials { dials: *dials, nodes: *nodes });
        }
        if traffic.sources == 0 || traffic.sources > *nodes {
            return Err(ScenarioError::Sources { sources: traffic.sources, nodes: *nodes });
        }
        if traffic.messages == 0 || self.churn.as_ref().is_some_and(|churn| churn.tick.is_zero()) {
            return Err(ScenarioError::Empty);
        }
        self.latency.check()?;
        router.check()?;
        self.churn.as_ref().map_or(Ok(()), Churn::check)
    }
}

impl Options {
    fn check(&self) -> Result<(), ScenarioError> {
        let ordered = 0 < self.d_low && self.d_low <= self.d && self.d <= self.d_high;
        let outbound = 2 * self.d_out <= self.d && self.d_out <= self.d_low;
        if !ordered || !outbound {
            return Err(ScenarioError::Degrees);
        }
        let windows = 0 < self.gossip_window && self.gossip_window <= self.history;
        if self.heartbeat.is_zero() || !windows {
            return Err(ScenarioError::Windows);
        }
        probability("gossip_factor", self.gossip_factor)
    }

    pub(super) fn floods(&self) -> bool {
        self.version == Version::V11 && self.flood_publish
    }

    pub(super) fn factor(&self) -> f64 {
        if self.version == Version::V11 { self.gossip_factor } else { 0.0 }
    }

    pub(super) fn exchange(&self) -> u32 {
        if self.version == Version::V11 { self.peer_exchange } else { 0 }
    }
}

impl Churn {
    fn check(&self) -> Result<(), ScenarioError> {
        probability("churn.share", self.share)?;
        probability("churn.leaves", self.leaves)?;
        probability("churn.returns", self.returns)
    }
}

fn probability(name: &'static str, value: f64) -> Result<(), ScenarioError> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(ScenarioError::Probability { name, value })
    }
}
