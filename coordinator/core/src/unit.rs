//! A work unit in memory: from its first lease until nothing about it can change.
//!
//! ```text
//!              quorum agrees             output is safe, all replicas over
//! Open ───────────────────────► Accepted ──────────────────────────────► forgotten
//!   │                             │   and no later unit needs it
//!   │                             │ output is lost, and nobody
//!   │     limits are reached      ▼ gets the same again
//!   └─────────────────────────► Failed ────────────────────────────────► forgotten
//! ```
//!
//! A unit has no id of its own in the core: it is a job and a number.

use std::collections::BTreeMap;

use dockercomp_protocol::{Cid, NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::compare::Classes;
use crate::dispatch::Place;
use crate::job::JobNumber;
use crate::lots::LotKey;
use crate::record::UnitError;
use crate::replica::{Replica, ReplicaState, ValidateState};
use crate::validate::Census;

/// Which work unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitKey {
    pub(crate) job: JobNumber,
    pub(crate) index: u64,
}

/// A work unit with at least one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unit {
    /// In the order of their leases; at most `max_total_results`, until its output is lost.
    pub(crate) replicas: Vec<Replica>,
    pub(crate) stage: Stage,
    /// Where it waits for nodes, if it lacks replicas.
    pub(crate) place: Option<Place>,
    /// The `consecutive_valid` of the node that may decide it alone (policy `adaptive`).
    pub(crate) trusted: Option<u32>,
    /// What the shell found when it compared its outputs.
    pub(crate) classes: Option<Box<Classes>>,
    /// The lot that its result waits in (policy `audited`).
    pub(crate) filed: Option<Box<LotKey>>,
}

/// How far a work unit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Stage {
    /// Undecided.
    Open {
        /// How many results it aims at.
        target: u32,
        /// The signed successes, kept for the receipt; gone with the decision.
        #[serde(with = "crate::snapshot::byte_pairs")]
        sealed: BTreeMap<ReplicaId, Vec<u8>>,
    },
    /// A quorum agreed.
    Accepted {
        /// On this.
        output: Cid,
        /// Whether it is safe at the coordinator.
        stored: bool,
        /// Whether a unit of a later stage may still take it.
        needed: bool,
    },
    /// Given up, for these reasons.
    Failed { errors: Vec<UnitError> },
}

impl Unit {
    /// A unit that nobody has yet.
    pub(crate) const fn new(target: u32) -> Self {
        let stage = Stage::Open { target, sealed: BTreeMap::new() };
        Self { replicas: Vec::new(), stage, place: None, trusted: None, classes: None, filed: None }
    }

    pub(crate) fn replica(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id == id)
    }

    /// How many results it aims at, while it is undecided.
    pub(crate) const fn target(&self) -> Option<u32> {
        match self.stage {
            Stage::Open { target, .. } => Some(target),
            Stage::Accepted { .. } | Stage::Failed { .. } => None,
        }
    }

    /// Whether an earlier replica was lost, or its results did not agree: such a unit holds
    /// its job up and goes first.
    pub(crate) fn is_retry(&self, target_at_first: u32) -> bool {
        let raised = self.is_lost() || self.target().is_some_and(|target| target > target_at_first);
        raised
            || self.replicas.iter().any(|replica| match replica.state {
                ReplicaState::InProgress { .. } | ReplicaState::Success { .. } => false,
                ReplicaState::Silent(_)
                | ReplicaState::ClientError { .. }
                | ReplicaState::ValidateError => true,
            })
    }

    /// Whether nothing about it can change any more, short of reports nobody needs.
    pub(crate) fn is_over(&self) -> bool {
        let settled = match self.stage {
            Stage::Open { .. } => false,
            Stage::Accepted { stored, needed, .. } => stored && !needed,
            Stage::Failed { .. } => true,
        };
        settled && !self.is_leased()
    }

    /// Whether a success stands so.
    pub(crate) fn has_success(&self, standing: ValidateState) -> bool {
        self.replicas.iter().any(|replica| replica.state.stands(standing))
    }

    /// Whether a node may still report a result of it in time.
    pub(crate) fn is_leased(&self) -> bool {
        self.replicas.iter().any(|replica| replica.state.is_in_progress())
    }

    /// What the validator has to know.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for replica in &self.replicas {
            census.total += 1;
            match replica.state {
                ReplicaState::InProgress { .. } => census.in_progress += 1,
                ReplicaState::Success { output, .. } => {
                    census.outputs.push(self.class_of(output));
                }
                ReplicaState::ClientError { .. } | ReplicaState::ValidateError => {
                    census.errors += 1;
                }
                ReplicaState::Silent(_) => {}
            }
        }
        census
    }

    /// Whether it is accepted, but its output is lost and must be computed again.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.stage, Stage::Accepted { stored: false, .. }) && self.holders().is_empty()
    }

    /// Nodes that computed the canonical output and still have it. If it is safe and all of them
    /// were given up, those: one was back, and gave it.
    pub(crate) fn holders(&self) -> Vec<NodeId> {
        let Stage::Accepted { output, stored, .. } = self.stage else { return Vec::new() };
        let agree = |replica: &&Replica| replica.state.output() == Some(output);
        let had: Vec<&Replica> = self.replicas.iter().filter(agree).collect();
        let is_any_left = had.iter().any(|replica| !replica.is_gone);
        let have = had.into_iter().filter(|replica| !replica.is_gone || stored && !is_any_left);
        have.map(|replica| replica.node).collect()
    }
}
