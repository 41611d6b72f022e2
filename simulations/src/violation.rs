//! What a checker can find.

use std::time::Duration;

use dockercomp_coordinator_core::ApplyError;
use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::{Cid, ReplicaId};

/// A broken promise. Hosts and jobs are named by their number in the scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// One host got two replicas of one unit.
    #[error("host {host} holds two replicas of unit {index} of job {job}, the second is {replica}")]
    TwoReplicas {
        /// Who.
        host: u32,
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// The second one.
        replica: ReplicaId,
    },
    /// Two hosts of one operator got replicas of one unit.
    #[error(
        "operator {operator} has two replicas of unit {index} of job {job}, the second is {replica}"
    )]
    OneOperator {
        /// Who.
        operator: u32,
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// The second one.
        replica: ReplicaId,
    },
    /// A replica's number was given out before.
    #[error("replica {replica} was leased twice")]
    LeasedTwice {
        /// Which.
        replica: ReplicaId,
    },
    /// A host heard of a lease that is not durable, or is somebody else's.
    #[error("host {host} was given replica {replica}, which is not durable as its own")]
    GrantedBeforeDurable {
        /// Who.
        host: u32,
        /// Which.
        replica: ReplicaId,
    },
    /// A host was told that its result is stored, and no durable record says so.
    #[error("the report of replica {replica} was acknowledged before it was durable")]
    AcknowledgedBeforeDurable {
        /// Which.
        replica: ReplicaId,
    },
    /// A result that was acknowledged is unknown after a restart.
    #[error("the report of replica {replica} was acknowledged, and is unknown after a restart")]
    AcknowledgedLost {
        /// Which.
        replica: ReplicaId,
    },
    /// A job that was acknowledged is unknown after a restart.
    #[error("job {job} was acknowledged, and is unknown after a restart")]
    JobLost {
        /// Which.
        job: u32,
    },
    /// A unit has two acceptances.
    #[error("unit {index} of job {job} was accepted twice, as {first} and as {second}")]
    AcceptedTwice {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// The first output.
        first: Cid,
        /// The second output; may be the same.
        second: Cid,
    },
    /// A unit of a cancelled job was accepted.
    #[error("unit {index} of job {job} was accepted after the job was cancelled")]
    AcceptedAfterCancel {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
    },
    /// An acceptance without a receipt, or a receipt without an acceptance.
    #[error("acceptance and receipt of unit {index} of job {job} are not in one batch")]
    NoReceipt {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
    },
    /// Accepted by a rule that the owner's policy does not allow.
    #[error("unit {index} of job {job} was accepted by {basis}, which its owner does not allow")]
    ForeignRule {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// The rule.
        basis: Basis,
    },
    /// Fewer votes than the rule that accepted it demands.
    #[error(
        "unit {index} of job {job} was accepted by {basis} with {agreeing} equal of {successes} \
         results, and {rival} with another output (min_quorum {min_quorum})"
    )]
    TooFewVotes {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// The rule.
        basis: Basis,
        /// Equal to the accepted output.
        agreeing: usize,
        /// Results in the receipt.
        successes: usize,
        /// Equal to one other output, at most.
        rival: usize,
        /// How many results there must be.
        min_quorum: u32,
    },
    /// A receipt says more of its nodes than they ever gave.
    #[error(
        "unit {index} of job {job} was accepted by {basis}, which the records of its nodes do \
         not bear out"
    )]
    NotBorneOut {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// The rule.
        basis: Basis,
    },
    /// A lot was accepted in part, or with fewer audits than its owner demands.
    #[error(
        "a lot of {results} results of job {job} was accepted with {audited} audits, too few \
         or not as a whole"
    )]
    LotNotAudited {
        /// The job.
        job: u32,
        /// Results in the lot.
        results: u32,
        /// Those that it says were confirmed.
        audited: u32,
    },
    /// A receipt holds two results of one node.
    #[error("a node voted twice on unit {index} of job {job}")]
    VotedTwice {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
    },
    /// A receipt holds a result that its node never computed.
    #[error(
        "the receipt of unit {index} of job {job} counts a result that nobody computed \
             for replica {replica}"
    )]
    ForgedVote {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// Whose result it is said to be.
        replica: ReplicaId,
    },
    /// A wrong output was accepted although too few hosts could collude over it.
    #[error(
        "unit {index} of job {job} was accepted with a wrong output that only {supporters} \
         hosts would give"
    )]
    WrongAccepted {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
        /// How many.
        supporters: u32,
    },
    /// An output is said to be safe, and is not there.
    #[error("the output of unit {index} of job {job} is said to be safe, and is not there")]
    OutputNotThere {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
    },
    /// An accepted unit was given up though its output was not lost.
    #[error("unit {index} of job {job} was accepted, and given up though its output was there")]
    Withdrawn {
        /// The job.
        job: u32,
        /// The unit.
        index: u64,
    },
    /// A job's figures contradict what was seen of it.
    #[error("job {job} is said to have {said} accepted units, {seen} were seen")]
    Miscounted {
        /// The job.
        job: u32,
        /// Its figure.
        said: u64,
        /// What was seen.
        seen: u64,
    },
    /// The state as it was written cannot be read again.
    #[error("the snapshot after {records} records of the journal cannot be read: {reason}")]
    SnapshotRefused {
        /// Records before it.
        records: usize,
        /// Why.
        reason: String,
    },
    /// The journal cannot be replayed.
    #[error("record {number} of the journal cannot be applied")]
    ReplayRefused {
        /// Its place, from 0.
        number: usize,
        /// Why.
        source: ApplyError,
    },
    /// The replayed journal gives another state than the core had.
    #[error("{records} durable records replay to another state than the live core's")]
    ReplayDiffers {
        /// How many there are.
        records: usize,
    },
    /// Jobs did not end in time.
    #[error(
        "job {job} has not ended {patience:?} after the faults: {done} accepted, {stored} of \
         them safe, {failed} failed, {in_flight} in flight, {waiting} waiting"
    )]
    Stalled {
        /// The job.
        job: u32,
        /// How long was waited.
        patience: Duration,
        /// Units accepted.
        done: u64,
        /// Those whose output is safe.
        stored: u64,
        /// Units given up.
        failed: u64,
        /// Units begun and undecided.
        in_flight: u64,
        /// Units that nobody had.
        waiting: u64,
    },
    /// A job could not even be submitted, or its coordinator is gone.
    #[error("job {job} is not known to a coordinator {patience:?} after the faults")]
    NeverTaken {
        /// The job.
        job: u32,
        /// How long was waited.
        patience: Duration,
    },
    /// A host still holds replicas of jobs that ended long ago.
    #[error("host {host} still holds {replicas} replicas {patience:?} after all jobs ended")]
    NotCalm {
        /// Who.
        host: u32,
        /// How many.
        replicas: usize,
        /// How long was waited.
        patience: Duration,
    },
    /// Leases are out although all jobs ended long ago.
    #[error("the coordinator still waits for leases {patience:?} after all jobs ended")]
    LeasesOut {
        /// How long was waited.
        patience: Duration,
    },
    /// Events follow each other without time passing: somebody asks in a circle.
    #[error("time stands still: {events} events at one moment")]
    TimeStandsStill {
        /// How many.
        events: u64,
    },
}

impl Violation {
    /// Whether something bad happened; if not, something good did not.
    #[must_use]
    pub const fn is_of_safety(&self) -> bool {
        !matches!(
            self,
            Self::Stalled { .. }
                | Self::NeverTaken { .. }
                | Self::NotCalm { .. }
                | Self::LeasesOut { .. }
                | Self::TimeStandsStill { .. }
        )
    }
}
