//! What the core asks of the shell: effects, in the order given.

use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};

use crate::job::JobState;
use crate::record::Record;

/// An effect the shell must carry out.
///
/// **Durable first, visible second**: all records of a step, and the receipts of its
/// [`Action::Accept`]s, are committed in one batch before anything of it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the record durable before any other action of this step becomes visible.
    Persist(Record),
    /// The answer to [`Event::WorkRequested`](crate::Event::WorkRequested); empty if there
    /// is nothing for this node.
    Lease(Vec<Granted>),
    /// The answer to [`Event::ResultReported`](crate::Event::ResultReported).
    Verdict(Verdict),
    /// The answer to [`Event::Heartbeat`](crate::Event::Heartbeat).
    HeartbeatAnswer {
        /// Replicas whose results are not needed any more.
        abandon: Vec<ReplicaId>,
        /// Replicas whose outputs may be forgotten.
        forget: Vec<ReplicaId>,
    },
    /// A quorum agreed. Append it to the log and store it in the same batch as the records of
    /// this step: it is the only place where the signed results outlive the decision.
    Accept {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// The outputs that the unit took, as in [`Granted::inputs`].
        inputs: Vec<Cid>,
        /// The canonical output.
        output: Cid,
        /// When it was accepted.
        at: Timestamp,
        /// By which rule.
        basis: Basis,
        /// Every sealed success of the unit, agreeing or not, in the order of their leases.
        results: Vec<Vec<u8>>,
    },
    /// Compare these outputs of an undecided unit by the job's
    /// [`Comparison`](dockercomp_protocol::job::Comparison), then say
    /// [`Event::Compared`](crate::Event::Compared). Asked again, with more of them, when
    /// another result comes in, and after a restart.
    Compare {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// The outputs, in the order of their leases: who has which.
        outputs: Vec<(ReplicaId, NodeId, Cid)>,
    },
    /// Bring a canonical output to the coordinator, then say
    /// [`Event::OutputStored`](crate::Event::OutputStored). Asked again, with more holders,
    /// when another node proves to have it, and after a restart; and of one that says it has it
    /// after it was lost, each time.
    FetchOutput {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// The output.
        output: Cid,
        /// Nodes that computed it, in the order of their leases; never empty.
        holders: Vec<NodeId>,
    },
    /// There is work again that idle nodes do not know of. Said once for each time that
    /// nodes went away with less than they could have done, not for each work unit.
    AnnounceWork,
    /// A job reached its last state.
    JobEnded {
        /// The job.
        job: Cid,
        /// How it ended.
        state: JobState,
    },
}

/// A lease: the right and the duty of one node to run one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The replica.
    pub replica: ReplicaId,
    /// The job.
    pub job: Cid,
    /// The work unit's number.
    pub index: u64,
    /// Until when.
    pub deadline: Timestamp,
    /// The outputs of earlier stages that the unit takes, in order; all of them are safe at
    /// the coordinator. None for a unit of the first stage.
    pub inputs: Vec<Input>,
}

/// A canonical output that a unit of a later stage takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its root.
    pub output: Cid,
    /// Nodes that computed it and keep it until it has been taken.
    pub holders: Vec<NodeId>,
}
