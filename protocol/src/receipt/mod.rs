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

use crate::job::{Policy, Validation};
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
        // No plan has work units yet that take the outputs of others.
        if self.inputs.is_empty() { plan.unit(self.index) } else { None }
    }
}

impl Basis {
    /// Whether the owner's terms allow acceptance by this rule.
    #[must_use]
    pub const fn is_allowed_by(&self, terms: &Validation) -> bool {
        match (self, terms.policy) {
            (Self::Quorum, Policy::Fixed) => true,
        }
    }

    /// Whether these votes fulfil the rule under the owner's terms.
    #[must_use]
    pub const fn is_met_by(&self, votes: &Votes, terms: &Validation) -> bool {
        match self {
            Self::Quorum => {
                votes.successes >= terms.min_quorum as usize
                    && votes.agreeing >= terms.agreement() as usize
                    && votes.agreeing > votes.rival
            }
        }
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quorum => "quorum",
        })
    }
}

#[cfg(test)]
mod tests;
