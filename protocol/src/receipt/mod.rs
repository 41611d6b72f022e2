//! Receipts: the proof, checkable offline, of why a result is canonical.
//!
//! ```text
//! project's id ──signs──► charter ──names──► coordinator ──signs──► head: root of the log
//!      └────────signs──► job ──plan──► work unit                            ▲ path
//!                                          ▲                                │
//!              node ──signs──► result ─────┴──────────────► entry ──────► leaf
//! ```
//!
//! The coordinator's decision is an [`Entry`]: one leaf of the project's [log](crate::log).
//! It has no signature of its own: the signed head of the log covers it, and costs one
//! signature for all entries of a batch. A receipt is the entry together with everything
//! that a stranger needs to check it: charter, job, path and head ([`Receipt`] is its form
//! in a file). [`Checker`] trusts nothing but the arithmetic; the one thing the reader must
//! bring is the project's id. [`check_whole`] says whether receipts are all that a job has.
//! [`damage::locate`] names the first wrong byte of a receipt that is not right any more.

mod check;
pub mod damage;
mod file;
mod map;
mod whole;

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use self::check::{Checker, Proof, ReceiptError};
pub use self::file::{FileError, Part, Receipt};
pub use self::whole::{WholeError, check_whole};

use crate::job::{Comparison, Policy, Share, Validation};
use crate::time::Timestamp;
use crate::unit::{Plan, WorkUnit};

/// The coordinator's decision that an output is canonical: a leaf of the project's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Version of the format, 2.
    pub v: u8,
    /// The job's id.
    pub job: Cid,
    /// The work unit's number in the job.
    pub index: u64,
    /// The canonical outputs of other work units that it took, in order. Together with the
    /// job they say what the work unit is; empty where the job alone does.
    pub inputs: Vec<Cid>,
    /// The output that was accepted.
    pub output: Cid,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// By which rule it was accepted.
    pub basis: Basis,
    /// The signed result of every replica that ended with success, agreeing or not.
    pub results: Vec<ByteBuf>,
}

/// Which rule accepted an output. A new rule is a new variant; none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Basis {
    /// Enough results agree: a strict majority of the job's `min_quorum`, more than agree on
    /// any other output, of at least `min_quorum` results.
    Quorum,
    /// One result of a node that the coordinator trusted when it gave it the work unit (policy
    /// `adaptive`).
    Trusted {
        /// The node's replicated valid results in a row, at the time.
        consecutive_valid: u32,
    },
    /// The nodes that agree are credible enough, by their spot-checks (policy `credibility`).
    Credible {
        /// The estimated probability that the output is wrong, rounded up.
        error: Share,
    },
    /// It was in a lot of one node's results that passed its audit (policy `audited`).
    Lot {
        /// Results in the lot.
        results: u32,
        /// Those of them that other nodes confirmed.
        audited: u32,
    },
    /// A dispute was decided among the nodes whose results counted then (policy `audited`).
    Majority {
        /// Results that counted and agree.
        counted: u32,
        /// Results that counted and agree on one other output, at most.
        against: u32,
    },
}

/// How the results of a work unit fall out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Votes {
    /// Results that agree with the accepted output.
    pub agreeing: usize,
    /// Results in all.
    pub successes: usize,
    /// Results that agree with one other output, at most.
    pub rival: usize,
}

impl Entry {
    /// The version that this code writes and reads.
    pub const VERSION: u8 = 2;

    /// The work unit that the entry is about, or nothing if the job has none like it.
    #[must_use]
    pub fn unit(&self, plan: &Plan) -> Option<WorkUnit> {
        plan.unit_of(self.index, &self.inputs)
    }
}

impl Basis {
    /// Whether the owner's terms allow acceptance by this rule.
    #[must_use]
    pub const fn is_allowed_by(&self, terms: &Validation) -> bool {
        match (self, &terms.policy) {
            (Self::Quorum, Policy::Fixed | Policy::Adaptive(_)) => true,
            (Self::Trusted { consecutive_valid }, Policy::Adaptive(rules)) => {
                *consecutive_valid >= rules.trusted_after
            }
            (Self::Credible { error }, Policy::Credibility(rules)) => {
                error.0 <= rules.accepted_error.0
            }
            (Self::Lot { results, .. }, Policy::Audited(rules)) => *results <= rules.lot_max,
            (Self::Majority { counted, against }, Policy::Audited(_)) => *counted > *against,
            (
                Self::Quorum
                | Self::Trusted { .. }
                | Self::Credible { .. }
                | Self::Lot { .. }
                | Self::Majority { .. },
                _,
            ) => false,
        }
    }

    /// Whether the signed results alone show that the rule is fulfilled. Of the others the
    /// receipt shows what the coordinator says of the nodes' records, and that it cannot say
    /// otherwise later.
    #[must_use]
    pub const fn is_proven_by_results(&self) -> bool {
        match self {
            Self::Quorum => true,
            Self::Trusted { .. }
            | Self::Credible { .. }
            | Self::Lot { .. }
            | Self::Majority { .. } => false,
        }
    }

    /// Whether these votes fulfil the rule under the owner's terms.
    #[must_use]
    pub const fn is_met_by(&self, votes: &Votes, terms: &Validation) -> bool {
        if !matches!(terms.comparison, Comparison::Identical) {
            // Which bytes mean the same is the coordinator's to say.
            return votes.agreeing >= 1;
        }
        match self {
            Self::Quorum => {
                votes.successes >= terms.min_quorum as usize
                    && votes.agreeing >= terms.agreement() as usize
                    && votes.agreeing > votes.rival
            }
            // The rest rests on the records of the nodes, which the coordinator answers for.
            Self::Trusted { .. } | Self::Credible { .. } | Self::Lot { .. } => votes.agreeing >= 1,
            Self::Majority { counted, .. } => *counted >= 2 && votes.agreeing >= *counted as usize,
        }
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quorum => f.write_str("quorum"),
            Self::Trusted { consecutive_valid } => {
                write!(f, "trusted node, {consecutive_valid} valid in a row")
            }
            Self::Credible { error } => write!(f, "credible, error at most {error}"),
            Self::Lot { results, audited } => {
                write!(f, "lot of {results}, {audited} confirmed")
            }
            Self::Majority { counted, against } => {
                write!(f, "majority of {counted} to {against}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
