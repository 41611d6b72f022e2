//! What hosts and the coordinator say to each other, as values.
//!
//! The questions and answers of `/dockercomp/work/1`, without their encoding.
//!
//! # What is not here
//!
//! Bytes, signatures and the charter: their place is the codec's and the shells' tests. Who
//! sent a message is known from the connection, and results are checked against it.

use std::time::Duration;

use dockercomp_protocol::ReplicaId;
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::{Capacity, Verdict, WorkRequest};

use crate::jobs::UnitId;

/// What a host asks.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Register { executors: Vec<ExecutorKind>, offer: Capacity, operator: Option<u32> },
    Work(WorkRequest),
    Report(Vec<ResultStatement>),
    Heartbeat { running: Vec<ReplicaId>, kept: Vec<ReplicaId> },
}

/// What the coordinator answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Welcome,
    Work(Vec<Lease>),
    Reported(Vec<Verdict>),
    Heartbeat {
        abandon: Vec<ReplicaId>,
        forget: Vec<ReplicaId>,
    },
    /// The coordinator was restarted and knows nothing of this connection.
    RegisterFirst,
}

/// A lease as it travels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) replica: ReplicaId,
    pub(crate) unit: UnitId,
    /// Time left: clocks need not agree.
    pub(crate) expires_in: Duration,
}

/// Who asked, on which connection, and what.
#[derive(Clone, Debug)]
pub(crate) struct Calling {
    pub(crate) host: u32,
    /// The start of the host's machine that asked: answers to an earlier one are void.
    pub(crate) life: u32,
    /// The number of the question.
    pub(crate) question: u64,
    /// The replicas that a report is about, in its order.
    pub(crate) reported: Vec<ReplicaId>,
}
