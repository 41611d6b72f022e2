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

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::wire::work::Capacity;
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

/// What a registered node said of itself, and when it was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) executors: Vec<ExecutorKind>,
    pub(crate) offer: Capacity,
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
