//! What is simulated: a dataset, who has it, who wants it, and the lines between them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::Error};

use super::flows::Sharing;
use crate::overlay::latency::{Latency, LatencyError};
use crate::overlay::text;

/// Most nodes of one run.
const NODES_MAX: u32 = 10_000;
/// Most chunks of the dataset: every node keeps a row for each.
const CHUNKS_MAX: u64 = 100_000;

/// Everything about a run but its seed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What is to be had.
    pub dataset: Dataset,
    /// Who has it or wants it, by the names of groups. Nodes are numbered in the order of these.
    pub nodes: BTreeMap<String, Group>,
    /// What lies between them.
    pub network: Network,
    /// How they fetch and serve.
    #[serde(default)]
    pub exchange: Exchange,
    /// When the run ends, whoever still lacks something.
    #[serde(deserialize_with = "text::duration")]
    pub until: Duration,
}

/// One file in chunks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Bytes in all.
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
    /// Bytes of a chunk.
    #[serde(deserialize_with = "bytes")]
    pub chunk: u64,
}

/// Nodes that are alike.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub count: u32,
    /// Whether they have the whole dataset from the beginning. Such nodes are named to all that
    /// want it, as a coordinator names those that have what its work needs.
    #[serde(default)]
    pub holds: bool,
    /// What each can send, in bytes a second.
    #[serde(deserialize_with = "rate")]
    pub up: u64,
    /// What each can receive, in bytes a second.
    #[serde(deserialize_with = "rate")]
    pub down: u64,
    /// Who can dial them.
    #[serde(default)]
    pub reach: Reach,
    /// What they do to others.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// When the first of them comes.
    #[serde(default, deserialize_with = "text::duration")]
    pub joins: Duration,
    /// How much later the last of them comes; the others come in between, evenly drawn.
    #[serde(default, deserialize_with = "text::duration")]
    pub over: Duration,
    /// When they are switched off.
    #[serde(default, deserialize_with = "text::optional")]
    pub leaves: Option<Duration>,
    /// How long they stay after they have everything. They stay for good without it.
    #[serde(default, deserialize_with = "text::optional")]
    pub lingers: Option<Duration>,
}

/// Who can open a connection to a node. Both ends use one that is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Everybody.
    #[default]
    Open,
    /// Nobody, as behind a router that translates addresses: it has to dial itself.
    Hidden,
}

/// What a node does to those who ask it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Behaviour {
    /// It gives what it has.
    #[default]
    Honest,
    /// It says that it has everything, and sends wrong bytes.
    Poisoner {
        /// The share of blocks that it sends wrong.
        rate: f64,
    },
    /// It says that it has everything, and has nothing.
    Boaster,
    /// It says that it has everything, and does not answer.
    Silent,
}

/// The network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// One way.
    pub latency: Latency,
    /// What bodies on one line do to each other.
    #[serde(default)]
    pub sharing: Sharing,
    /// The share of pairs of hidden nodes that can connect nevertheless, as by hole punching.
    #[serde(default)]
    pub punched: f64,
}

/// How nodes fetch and serve. The rest is the exchange's own.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exchange {
    /// Most requests that one peer has open at once.
    pub per_peer: usize,
    /// Most blocks that are asked for or in memory.
    pub total: usize,
    /// Opening a connection that nobody answers is given up after this.
    #[serde(deserialize_with = "text::duration")]
    pub dial_timeout: Duration,
    /// What verifying and storing a block takes.
    #[serde(deserialize_with = "text::duration")]
    pub store: Duration,
    /// What looking for nodes that have everything takes, when a block is not to be had.
    #[serde(deserialize_with = "text::duration")]
    pub lookup: Duration,
    /// How many of them are found at most.
    pub found: usize,
}

impl Default for Exchange {
    fn default() -> Self {
        let scheduler = dockercomp_exchange_core::scheduler::Options::default();
        Self {
            per_peer: scheduler.per_peer,
            total: scheduler.total,
            dial_timeout: Duration::from_secs(20),
            store: Duration::from_millis(3),
            lookup: Duration::from_secs(2),
            found: 20,
        }
    }
}

/// Why a scenario cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Too few or too many nodes.
    #[error("{nodes} nodes: there must be 2 to {NODES_MAX}")]
    Nodes {
        /// How many it has.
        nodes: u64,
    },
    /// Nobody wants it.
    #[error("every group holds the dataset: somebody must want it")]
    NoGetters,
    /// No chunks, or too many.
    #[error("{chunks} chunks: there must be 1 to {CHUNKS_MAX}")]
    Chunks {
        /// How many there are.
        chunks: u64,
    },
    /// A node without a line.
    #[error("group {group}: up and down must be above 0")]
    Line {
        /// The group.
        group: String,
    },
    /// Nobody honest has it.
    #[error("nobody honest holds the dataset: nobody could get it")]
    NoHolders,
    /// It would be switched off before it has come.
    #[error("group {group}: leaves must be after joins and over")]
    Leaves {
        /// The group.
        group: String,
    },
    /// It lies about what it has, and so cannot be one that wants it.
    #[error("group {group}: who lies must hold the dataset")]
    Liar {
        /// The group.
        group: String,
    },
    /// No share.
    #[error("{name} is {value}, and must be from 0 to 1")]
    Share {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// Nothing may be asked for.
    #[error("exchange.per_peer and exchange.total must be at least 1")]
    Exchange,
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
        let nodes = self.nodes.values().map(|group| u64::from(group.count)).sum();
        if !(2..=u64::from(NODES_MAX)).contains(&nodes) {
            return Err(ScenarioError::Nodes { nodes });
        }
        if self.nodes.values().all(|group| group.holds || group.count == 0) {
            return Err(ScenarioError::NoGetters);
        }
        let is_seed = |group: &Group| group.holds && group.behaviour == Behaviour::Honest;
        if !self.nodes.values().any(|group| is_seed(group) && group.count > 0) {
            return Err(ScenarioError::NoHolders);
        }
        let chunks = self.dataset.bytes.div_ceil(self.dataset.chunk.max(1));
        if self.dataset.chunk == 0 || !(1..=CHUNKS_MAX).contains(&chunks) {
            return Err(ScenarioError::Chunks { chunks });
        }
        if self.exchange.per_peer == 0 || self.exchange.total == 0 {
            return Err(ScenarioError::Exchange);
        }
        for (name, group) in &self.nodes {
            group.check(name)?;
        }
        share("network.punched", self.network.punched)?;
        Ok(self.network.latency.check()?)
    }
}

impl Group {
    fn check(&self, name: &str) -> Result<(), ScenarioError> {
        if self.up == 0 || self.down == 0 {
            return Err(ScenarioError::Line { group: name.to_owned() });
        }
        if self.leaves.is_some_and(|leaves| leaves < self.joins + self.over) {
            return Err(ScenarioError::Leaves { group: name.to_owned() });
        }
        if !self.holds && self.behaviour != Behaviour::Honest {
            return Err(ScenarioError::Liar { group: name.to_owned() });
        }
        match self.behaviour {
            Behaviour::Poisoner { rate } => share("behaviour.rate", rate),
            Behaviour::Honest | Behaviour::Boaster | Behaviour::Silent => Ok(()),
        }
    }
}

fn share(name: &'static str, value: f64) -> Result<(), ScenarioError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(ScenarioError::Share { name, value }) }
}

/// `"64 MiB"`.
fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse(&String::deserialize(from)?)
}

/// `"4 MiB/s"`.
fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = text
        .strip_suffix("/s")
        .ok_or_else(|| D::Error::custom(format!("{text:?} is not a rate like \"4 MiB/s\"")))?;
    parse(bytes)
}

fn parse<E: Error>(text: &str) -> Result<u64, E> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.as_u64())
        .map_err(|_| E::custom(format!("{text:?} is not a size like \"64 MiB\"")))
}
