//! One assignment of a work unit to one node, and the books that count them.
//!
//! ```text
//!              report            compare
//! InProgress ─────────► Success ─────────► Valid | Invalid | Inconclusive | …
//!     │ └─────────────► ClientError | ValidateError
//!     │ time, heartbeat, detach
//!     └───────────────► NoReply | DidntNeed | ClientDetached | CouldntSend
//!                          └── a late report is still taken ──► Success | …
//! ```
//!
//! The names are BOINC's. `UNSENT` is missing: a replica exists only from its lease on, and
//! what a work unit still lacks is a number, computed by [`crate::validate`].

use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::{Finding, Silence};

/// A replica in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) node: NodeId,
    /// The number of the operator who ran it, if that was known when it was leased.
    pub(crate) operator: Option<u32>,
    pub(crate) executor: ExecutorKind,
    /// What its result claims to be worth, in millionths of a Cobblestone.
    pub(crate) claim: u64,
    /// How often its deadline was put off.
    pub(crate) extensions: u8,
    /// Whether it had been reported when the canonical output of its unit was lost: it is none
    /// of those that try to bring it back, and its output, if it is that, cannot be had.
    pub(crate) is_gone: bool,
    pub(crate) state: ReplicaState,
}

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ReplicaState {
    /// Leased and not heard of again.
    InProgress { deadline: Timestamp },
    /// Over without a report.
    Silent(Silence),
    /// The program did its work; the output is compared.
    Success { output: Cid, validate: ValidateState },
    /// The program failed on this node.
    ClientError { exit: Exit },
    /// The program is said to have succeeded, but nothing is there to compare.
    ValidateError,
}

/// What the comparison said about a successful replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValidateState {
    /// Not compared yet.
    Init,
    /// Equal to the canonical output.
    Valid,
    /// Different from the canonical output.
    Invalid,
    /// Never compared, because the work unit failed, or because the canonical output is lost and
    /// nobody can look at it.
    NoCheck,
    /// Compared, but no quorum agreed yet.
    Inconclusive,
    /// Reported after its work unit had failed.
    TooLate,
}

impl Replica {
    /// A replica that was just leased.
    pub(crate) const fn leased(
        id: ReplicaId,
        node: NodeId,
        executor: ExecutorKind,
        deadline: Timestamp,
    ) -> Self {
        Self {
            id,
            node,
            operator: None,
            executor,
            claim: 0,
            extensions: 0,
            is_gone: false,
            state: ReplicaState::InProgress { deadline },
        }
    }
}

impl ReplicaState {
    /// Whether it is equal to the canonical output.
    pub(crate) const fn is_valid(&self) -> bool {
        matches!(self, Self::Success { validate: ValidateState::Valid, .. })
    }

    /// Whether it is a success that stands so.
    pub(crate) fn stands(&self, standing: ValidateState) -> bool {
        matches!(self, Self::Success { validate, .. } if *validate == standing)
    }

    /// Whether its holder has reported that it got no output.
    pub(crate) const fn is_error(&self) -> bool {
        matches!(self, Self::ClientError { .. } | Self::ValidateError)
    }

    /// Whether a node is still held to this replica by a lease.
    pub(crate) const fn is_in_progress(&self) -> bool {
        matches!(self, Self::InProgress { .. })
    }

    /// When its lease runs out, while there is one.
    pub(crate) const fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::InProgress { deadline } => Some(*deadline),
            Self::Success { .. }
            | Self::Silent(_)
            | Self::ClientError { .. }
            | Self::ValidateError => None,
        }
    }

    /// Whether its holder has reported. The first report is the one that counts.
    pub(crate) const fn is_reported(&self) -> bool {
        match self {
            Self::InProgress { .. } | Self::Silent(_) => false,
            Self::Success { .. } | Self::ClientError { .. } | Self::ValidateError => true,
        }
    }

    /// Whether a report says what was reported before. Usage may differ: a node that ran
    /// the replica twice did not lie about its outcome.
    pub(crate) fn repeats(&self, finding: &Finding) -> bool {
        match (self, finding) {
            (Self::Success { output: held, .. }, Finding::Success { output, .. }) => held == output,
            (Self::ClientError { exit: held }, Finding::ClientError { exit }) => held == exit,
            (Self::ValidateError, Finding::ValidateError) => true,
            (
                Self::InProgress { .. }
                | Self::Silent(_)
                | Self::Success { .. }
                | Self::ClientError { .. }
                | Self::ValidateError,
                _,
            ) => false,
        }
    }

    /// The output of a success.
    pub(crate) const fn output(&self) -> Option<Cid> {
        match self {
            Self::Success { output, .. } => Some(*output),
            Self::InProgress { .. }
            | Self::Silent(_)
            | Self::ClientError { .. }
            | Self::ValidateError => None,
        }
    }
}

/// How many replicas stand where. One is kept for each job and one for each node, and every
/// replica is in exactly one field of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Leased, not over.
    pub in_progress: u64,
    /// Succeeded, not compared yet.
    pub init: u64,
    /// Succeeded and equal to the canonical output.
    pub valid: u64,
    /// Succeeded and different from the canonical output.
    pub invalid: u64,
    /// Succeeded, but the work unit failed before a quorum agreed.
    pub no_check: u64,
    /// Succeeded, and no quorum agrees yet.
    pub inconclusive: u64,
    /// Succeeded after the work unit had failed.
    pub too_late: u64,
    /// The program failed.
    pub client_error: u64,
    /// Said to be a success, but without an output.
    pub validate_error: u64,
    /// The deadline passed.
    pub no_reply: u64,
    /// Told to stop, because the work unit was decided.
    pub didnt_need: u64,
    /// The lease never reached the node.
    pub couldnt_send: u64,
    /// The node left.
    pub client_detached: u64,
}

impl Tally {
    /// All replicas that were ever leased.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.in_progress
            + self.success()
            + self.client_error
            + self.validate_error
            + self.no_reply
            + self.didnt_need
            + self.couldnt_send
            + self.client_detached
    }

    /// Outcome `Success`, whatever the comparison said.
    #[must_use]
    pub const fn success(&self) -> u64 {
        self.init + self.valid + self.invalid + self.no_check + self.inconclusive + self.too_late
    }

    /// Successes whose work unit is undecided.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.init + self.inconclusive
    }

    pub(crate) const fn add(&mut self, state: &ReplicaState) {
        *self.slot(state) += 1;
    }

    pub(crate) const fn remove(&mut self, state: &ReplicaState) {
        *self.slot(state) -= 1;
    }

    const fn slot(&mut self, state: &ReplicaState) -> &mut u64 {
        match state {
            ReplicaState::InProgress { .. } => &mut self.in_progress,
            ReplicaState::Silent(Silence::CouldntSend) => &mut self.couldnt_send,
            ReplicaState::Silent(Silence::NoReply) => &mut self.no_reply,
            ReplicaState::Silent(Silence::DidntNeed) => &mut self.didnt_need,
            ReplicaState::Silent(Silence::ClientDetached) => &mut self.client_detached,
            ReplicaState::Success { validate, .. } => match validate {
                ValidateState::Init => &mut self.init,
                ValidateState::Valid => &mut self.valid,
                ValidateState::Invalid => &mut self.invalid,
                ValidateState::NoCheck => &mut self.no_check,
                ValidateState::Inconclusive => &mut self.inconclusive,
                ValidateState::TooLate => &mut self.too_late,
            },
            ReplicaState::ClientError { .. } => &mut self.client_error,
            ReplicaState::ValidateError => &mut self.validate_error,
        }
    }
}
