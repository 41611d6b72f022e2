//! What is known of nodes: who is there, and who was caught.
//!
//! How a node's replicas ended is part of the state, as one [`Tally`](crate::Tally) a node,
//! kept from its first lease on. Who is there is not: a node registers at the start of every
//! connection, so after a restart presence fills up by itself.
//!
//! # What is not here
//!
//! Reputation. Its input is here (the tallies, the disagreements); a policy that turns it
//! into trust belongs beside this file, and is asked by [`crate::dispatch`] and
//! [`crate::validate`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::wire::work::{Capacity, Platform};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

/// A success that was not equal to the canonical output: who was caught, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disagreement {
    /// When it was found.
    pub at: Timestamp,
    /// The job.
    pub job: Cid,
    /// The work unit's number.
    pub index: u64,
    /// Who.
    pub node: NodeId,
    /// As which replica.
    pub replica: ReplicaId,
    /// What the node said.
    pub said: Cid,
    /// What the quorum said.
    pub canonical: Cid,
}

/// What a node is: what it said of itself, and what the shell saw of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Executors that are ready.
    pub executors: Vec<ExecutorKind>,
    /// Everything it offers.
    pub offer: Capacity,
    /// Who runs it, if they said so.
    pub operator: Option<String>,
    /// What results may depend on.
    pub platform: Platform,
    /// From where it is connected, if that says anything.
    pub range: Option<AddressRange>,
}

impl Profile {
    /// A node that says nothing but what it can do.
    #[must_use]
    pub fn plain(executors: Vec<ExecutorKind>, offer: Capacity) -> Self {
        Self { executors, offer, operator: None, platform: Platform::default(), range: None }
    }
}

/// The part of an address that one customer of a provider usually has to itself: 24 bits of an
/// IPv4 address, 48 of an IPv6 address.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AddressRange {
    /// The first 24 bits.
    V4([u8; 3]),
    /// The first 48 bits.
    V6([u8; 6]),
}

impl AddressRange {
    /// The range of an address; none for addresses that mean something on one machine or in
    /// one house only.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let is_global = !address.is_loopback()
                    && !address.is_private()
                    && !address.is_link_local()
                    && !address.is_unspecified();
                let [a, b, c, _] = address.octets();
                is_global.then_some(Self::V4([a, b, c]))
            }
            IpAddr::V6(address) => {
                let is_global = !address.is_loopback()
                    && !address.is_unique_local()
                    && !address.is_unicast_link_local()
                    && !address.is_unspecified();
                let range = address.octets().first_chunk().copied();
                range.filter(|_| is_global).map(Self::V6)
            }
        }
    }
}

/// A registered node, and when it was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) profile: Profile,
    pub(crate) last_seen: Timestamp,
}

/// The registered nodes, at most `Config::nodes_present_max`.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) visits: BTreeMap<NodeId, Visit>,
}

impl Presence {
    pub(crate) fn register(&mut self, node: NodeId, visit: Visit, nodes_max: usize) {
        if self.visits.len() < nodes_max || self.visits.contains_key(&node) {
            self.visits.insert(node, visit);
        }
    }

    pub(crate) fn seen(&mut self, now: Timestamp, node: NodeId) {
        if let Some(visit) = self.visits.get_mut(&node) {
            visit.last_seen = now;
        }
    }

    pub(crate) fn leave(&mut self, node: NodeId) {
        self.visits.remove(&node);
    }
}
