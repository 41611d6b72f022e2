//! What the shell tells the core: facts, already checked for form and signature.

use dockercomp_protocol::job::JobSpec;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::WorkRequest;
use dockercomp_protocol::{Cid, NodeId, ReplicaId};

use crate::node::Profile;

/// A fact the shell observed.
///
/// The shell has checked what needs keys, bytes or the work unit's description: signatures,
/// [`JobSpec::check`], the bounds of messages, and that a result names the unit CID of its
/// replica ([`Core::unit_of`](crate::Core::unit_of) says which unit that is).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The owner submitted a job. A job that is known already changes nothing.
    JobAdded {
        /// Its id.
        job: Cid,
        /// Its specification; only [`Terms`](crate::Terms) are kept.
        spec: Box<JobSpec>,
        /// How many work units its first stage has.
        units: u64,
        /// What chance in this job is drawn from: fresh, and known to nobody outside. It is
        /// journaled, so that a replay draws the same.
        seed: [u8; 32],
    },
    /// The owner wants no more of a job. Changes nothing unless the job is running.
    JobCancelled {
        /// Its id.
        job: Cid,
    },
    /// A node said what it is. It may do so again at any time.
    NodeRegistered {
        /// Who.
        node: NodeId,
        /// What it is.
        profile: Profile,
    },
    /// A node has left for good: its leases are given to others at once.
    NodeDetached {
        /// Who.
        node: NodeId,
    },
    /// A node has room. Answered by exactly one [`Action::Lease`](crate::Action::Lease).
    WorkRequested {
        /// Who asks.
        node: NodeId,
        /// For what.
        request: WorkRequest,
    },
    /// The answer to a request could not be handed to the transport, so that the node will
    /// never hear of these leases.
    LeasesUndelivered {
        /// The replicas that were leased.
        replicas: Vec<ReplicaId>,
    },
    /// A node reported a result. Answered by exactly one
    /// [`Action::Verdict`](crate::Action::Verdict).
    ResultReported {
        /// What it says.
        result: Box<ResultStatement>,
        /// The same, as the node signed it.
        sealed: Vec<u8>,
    },
    /// A node said what it has. Answered by exactly one
    /// [`Action::HeartbeatAnswer`](crate::Action::HeartbeatAnswer).
    Heartbeat {
        /// Who.
        node: NodeId,
        /// Replicas that wait or run there.
        running: Vec<ReplicaId>,
        /// Replicas whose outputs it keeps.
        kept: Vec<ReplicaId>,
        /// Those of `running` that saved how far they are since the last heartbeat.
        checkpointed: Vec<ReplicaId>,
    },
    /// The answer to [`Action::Compare`](crate::Action::Compare): which outputs are the same.
    Compared {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// The replicas that were asked about, in the same order. An answer to an earlier
        /// question changes nothing: one with more of them is under way.
        asked: Vec<ReplicaId>,
        /// Those of them whose outputs are the same, class by class. One that is in no class has
        /// an output that could not be fetched or read.
        classes: Vec<Vec<ReplicaId>>,
    },
    /// The canonical output of a work unit is safe at the coordinator.
    OutputStored {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
    /// No holder of a canonical output can give it any more: it is lost.
    OutputLost {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
    /// The time returned by [`Core::next_deadline`](crate::Core::next_deadline) has come.
    DeadlineReached,
}
