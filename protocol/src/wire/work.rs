//! `/dockercomp/work/1`: a node asks, its coordinator answers.
//!
//! Pull-based: a node behind NAT works, a slow node is never flooded, and an outage of the
//! coordinator costs nothing but time. Every request may be sent again: registering is
//! idempotent, a lease that was lost runs out, a result is known by its replica.
//!
//! A message is canonical DAG-CBOR behind a four-byte length, at most
//! [`WORK_MESSAGE_BYTES_MAX`] bytes.

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::explain::Explanation;
use crate::codec::{self, DecodeError};
use crate::execution::ExecutorKind;
use crate::ids::ReplicaId;
use crate::inline;
use crate::limits::{
    AGENT_BYTES_MAX, CACHED_ROOTS_MAX, HEAD_NOTICE_BYTES_MAX, HEADS_ASKED_MAX,
    HEARTBEAT_REPLICAS_MAX, HINT_ADDRESS_BYTES_MAX, HINT_ADDRESSES_MAX, HINT_PEERS_MAX,
    LABEL_BYTES_MAX, LEASES_MAX, LOG_TAIL_BYTES_MAX, PERMISSION_BYTES_MAX, REPORTS_MAX,
    RESULT_BYTES_MAX, WORK_MESSAGE_BYTES_MAX,
};

/// The stream protocol's name; its number is the version of all messages here.
pub const PROTOCOL: &str = "/dockercomp/work/1";

/// What a node asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// "I am here": sent first on every stream.
    Register(Register),
    /// "I have room."
    Work(WorkRequest),
    /// "What is this job?"
    Job {
        /// Its id.
        job: Cid,
    },
    /// "What is the newest head of the log, and does it carry on these?"
    Head {
        /// Sizes of heads that were seen before, at most [`HEADS_ASKED_MAX`].
        since: Vec<u64>,
    },
    /// "Why do I get nothing?"
    Explain,
    /// "I am done with these."
    Report {
        /// The signed root over the statements of all results, see [`batch`](crate::batch).
        #[serde(with = "serde_bytes")]
        root: Vec<u8>,
        /// One for each replica, at most [`REPORTS_MAX`].
        results: Vec<Report>,
    },
    /// "I leave, and have nothing any more": leases go to others at once.
    Detach,
    /// "I still have these."
    Heartbeat {
        /// Replicas that are not reported yet, at most [`HEARTBEAT_REPLICAS_MAX`].
        running: Vec<ReplicaId>,
        /// Reported replicas whose outputs are kept, at most [`HEARTBEAT_REPLICAS_MAX`].
        kept: Vec<ReplicaId>,
        /// Those of `running` that have saved how far they are since the last heartbeat, so
        /// that more time would not be wasted on them.
        checkpointed: Vec<ReplicaId>,
    },
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Software name and version.
    pub agent: String,
    /// Executors that are ready.
    pub executors: Vec<ExecutorKind>,
    /// Everything it offers.
    pub offer: Capacity,
    /// Addresses at which other nodes can fetch chunks from it.
    pub addresses: Vec<String>,
    /// Who runs it, if they say so: nodes of one operator never get replicas of one work
    /// unit. See [`is_operator`].
    pub operator: Option<String>,
    /// What results may depend on.
    pub platform: Platform,
}

/// What the results of a program that is not portable may depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// The operating system, as `std::env::consts::OS` names it; at most
    /// [`LABEL_BYTES_MAX`] bytes.
    pub os: String,
    /// The vendor of the CPU, as it names itself, for example `GenuineIntel`; empty if it is
    /// not known. At most [`LABEL_BYTES_MAX`] bytes.
    pub cpu: String,
}

/// CPU and memory, offered or free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk for inputs and outputs.
    pub disk_bytes: u64,
}

impl Capacity {
    /// Whether `need` fits.
    #[must_use]
    pub const fn holds(&self, need: &Self) -> bool {
        self.cpu_millis >= need.cpu_millis
            && self.memory_bytes >= need.memory_bytes
            && self.disk_bytes >= need.disk_bytes
    }

    /// What is left when `used` is taken, never below zero.
    #[must_use]
    pub const fn minus(&self, used: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(used.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(used.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(used.disk_bytes),
        }
    }

    /// What is in both.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.min(other.cpu_millis),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            disk_bytes: self.disk_bytes.min(other.disk_bytes),
        }
    }

    /// What a replica under these limits takes.
    #[must_use]
    pub const fn of(limits: &crate::execution::Limits) -> Self {
        Self {
            cpu_millis: limits.cpu_millis,
            memory_bytes: limits.memory_bytes,
            disk_bytes: limits.output_bytes,
        }
    }
}

/// A request for leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkRequest {
    /// What is free now.
    pub free: Capacity,
    /// Leases wanted at most, up to [`LEASES_MAX`].
    pub leases_max: u32,
    /// Executors that are ready.
    pub executors: Vec<ExecutorKind>,
    /// Datasets that are held whole, at most [`CACHED_ROOTS_MAX`].
    pub cached: Vec<Cid>,
}

/// One finished replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The encoded [`ResultStatement`](crate::statement::ResultStatement).
    #[serde(with = "serde_bytes")]
    pub statement: Vec<u8>,
    /// The end of what the program printed, for people.
    pub log_tail: String,
    /// All blocks of the output if it is small enough to travel here, see
    /// [`crate::inline`]; else nothing.
    pub output: Vec<ByteBuf>,
}

/// What a coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// To [`Request::Register`].
    Welcome {
        /// The project's signed charter.
        #[serde(with = "serde_bytes")]
        charter: Vec<u8>,
        /// Time between heartbeats, in milliseconds.
        heartbeat_ms: u64,
    },
    /// To [`Request::Work`].
    Work(Assignment),
    /// To [`Request::Job`]: the owner's signed job.
    Job {
        /// The sealed [`JobSpec`](crate::job::JobSpec).
        #[serde(with = "serde_bytes")]
        job: Vec<u8>,
    },
    /// To [`Request::Head`]: the newest head once for each size, with the proof that it
    /// carries that one on; none before the first work unit was accepted.
    Head {
        /// Encoded [`HeadNotice`](crate::log::HeadNotice)s, all of one head.
        notices: Vec<ByteBuf>,
    },
    /// To [`Request::Explain`].
    Explained(Explanation),
    /// To [`Request::Report`]: one verdict for each result, in order.
    Reported {
        /// What became of each.
        verdicts: Vec<Verdict>,
    },
    /// To [`Request::Heartbeat`].
    Heartbeat {
        /// Replicas whose results are not needed any more.
        abandon: Vec<ReplicaId>,
        /// Replicas whose outputs may be forgotten.
        forget: Vec<ReplicaId>,
    },
    /// To [`Request::Detach`].
    Detached,
    /// To anything that cannot be answered.
    Refused(Refusal),
}

/// Leases, and what is needed to start on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The leases, at most [`LEASES_MAX`].
    pub leases: Vec<Lease>,
    /// Who holds the datasets and outputs that the leases need.
    pub hints: Vec<Hint>,
    /// When to ask again if there was too little, in milliseconds.
    pub retry_ms: u64,
}

/// The right to work on one replica until its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The replica.
    pub replica: ReplicaId,
    /// The work unit's description, DAG-CBOR of a [`WorkUnit`](crate::unit::WorkUnit).
    #[serde(with = "serde_bytes")]
    pub unit: Vec<u8>,
    /// Time left until the deadline, in milliseconds: clocks need not agree.
    pub expires_in_ms: u64,
    /// The sealed [`Permission`](super::permit::Permission) to have the outputs that the work
    /// unit takes; empty if it takes none.
    #[serde(with = "serde_bytes", default, skip_serializing_if = "Vec::is_empty")]
    pub permission: Vec<u8>,
}

/// Who holds a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    /// The dataset's root.
    pub root: Cid,
    /// Nodes that hold it or parts of it, at most [`HINT_PEERS_MAX`].
    pub peers: Vec<HintPeer>,
}

/// A node and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HintPeer {
    /// Its id.
    pub peer: crate::ids::NodeId,
    /// Its addresses, at most [`HINT_ADDRESSES_MAX`].
    pub addresses: Vec<String>,
}

/// What became of a reported result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is stored, now or by an earlier report. It need not be sent again.
    Stored,
    /// It came after its lease had run out or its work unit was decided. Not needed.
    TooLate,
    /// The replica is not this node's, or not known.
    NotYours,
    /// The signature or its content is not right.
    NotRight,
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Refusal {
    /// [`Request::Register`] must come first.
    RegisterFirst,
    /// It breaks a bound or cannot be read.
    Malformed,
    /// The job is not known.
    UnknownJob,
    /// The coordinator is shutting down or overloaded.
    Busy {
        /// When to try again, in milliseconds.
        retry_ms: u64,
    },
}

/// Whether text may be a label: nothing that a terminal would obey, and at most
/// [`LABEL_BYTES_MAX`] bytes.
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Whether text may be the name of an operator: a label with something to read in it, without
/// white space around it, so that equal names look equal.
#[must_use]
pub fn is_operator(text: &str) -> bool {
    is_label(text) && !text.is_empty() && text.trim() == text
}

impl Register {
    fn has_right_labels(&self) -> bool {
        self.operator.iter().all(|operator| is_operator(operator))
            && is_label(&self.platform.os)
            && is_label(&self.platform.cpu)
    }
}

impl Request {
    /// Decodes a request and checks its bounds.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let request: Self = codec::decode_within(bytes, WORK_MESSAGE_BYTES_MAX)?;
        let fits = match &request {
            Self::Register(register) => {
                register.agent.len() <= AGENT_BYTES_MAX
                    && register.executors.len() <= 2
                    && register.addresses.len() <= HINT_ADDRESSES_MAX
                    && register
                        .addresses
                        .iter()
                        .all(|address| address.len() <= HINT_ADDRESS_BYTES_MAX)
                    && register.has_right_labels()
            }
            Self::Work(work) => {
                work.leases_max as usize <= LEASES_MAX
                    && work.executors.len() <= 2
                    && work.cached.len() <= CACHED_ROOTS_MAX
            }
            Self::Job { .. } | Self::Explain | Self::Detach => true,
            Self::Head { since } => since.len() <= HEADS_ASKED_MAX,
            Self::Report { root: _, results } => {
                results.len() <= REPORTS_MAX
                    && results.iter().all(|report| {
                        report.statement.len() <= RESULT_BYTES_MAX
                            && report.log_tail.len() <= LOG_TAIL_BYTES_MAX
                            && inline::fits(&report.output)
                    })
            }
            Self::Heartbeat { running, kept, checkpointed } => {
                [running, kept, checkpointed].iter().all(|ids| ids.len() <= HEARTBEAT_REPLICAS_MAX)
            }
        };
        if fits { Ok(request) } else { Err(out_of_bounds()) }
    }
}

impl Response {
    /// Decodes an answer and checks its bounds.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let response: Self = codec::decode_within(bytes, WORK_MESSAGE_BYTES_MAX)?;
        let fits = match &response {
            Self::Work(assignment) => {
                assignment.leases.len() <= LEASES_MAX
                    && assignment
                        .leases
                        .iter()
                        .all(|lease| lease.permission.len() <= PERMISSION_BYTES_MAX)
                    && assignment.hints.len() <= 4 * LEASES_MAX
                    && assignment.hints.iter().all(|hint| {
                        hint.peers.len() <= HINT_PEERS_MAX
                            && hint
                                .peers
                                .iter()
                                .all(|peer| peer.addresses.len() <= HINT_ADDRESSES_MAX)
                    })
            }
            Self::Reported { verdicts } => verdicts.len() <= REPORTS_MAX,
            Self::Heartbeat { abandon, forget } => {
                abandon.len() <= HEARTBEAT_REPLICAS_MAX && forget.len() <= HEARTBEAT_REPLICAS_MAX
            }
            Self::Head { notices } => {
                notices.len() <= HEADS_ASKED_MAX
                    && notices.iter().all(|notice| notice.len() <= HEAD_NOTICE_BYTES_MAX)
            }
            Self::Explained(explanation) => explanation.fits(),
            Self::Welcome { .. } | Self::Job { .. } | Self::Detached | Self::Refused(_) => true,
        };
        if fits { Ok(response) } else { Err(out_of_bounds()) }
    }
}

fn out_of_bounds() -> DecodeError {
    DecodeError::Malformed { reason: "a list is longer than its bound".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::block_cid;

    #[test]
    fn messages_are_golden() {
        let request = Request::Work(WorkRequest {
            free: Capacity { cpu_millis: 2000, memory_bytes: 1 << 30, disk_bytes: 1 << 33 },
            leases_max: 4,
            executors: vec![ExecutorKind::Docker],
            cached: vec![block_cid(b"root")],
        });
        insta::assert_snapshot!(hex::encode(codec::encode(&request)), @"a164776f726ba46466726565a36a6370755f6d696c6c69731907d06a6469736b5f62797465731b00000002000000006c6d656d6f72795f62797465731a400000006663616368656481d82a58250001711e2092a2b787a06d7272df43eaf87acc3b9c1d315d79d599d61c285983483e431998696578656375746f72738166646f636b65726a6c65617365735f6d617804");
        let response = Response::Work(Assignment {
            leases: vec![Lease {
                replica: ReplicaId(3),
                unit: vec![1, 2, 3],
                expires_in_ms: 60_000,
                permission: vec![],
            }],
            hints: vec![],
            retry_ms: 1000,
        });
        insta::assert_snapshot!(hex::encode(codec::encode(&response)), @"a164776f726ba36568696e747380666c656173657381a364756e697443010203677265706c696361036d657870697265735f696e5f6d7319ea606872657472795f6d731903e8");
    }

    #[test]
    fn report_is_golden() {
        let report = Report {
            statement: vec![4, 5],
            log_tail: "tail".into(),
            output: vec![ByteBuf::from(vec![6])],
        };
        let request = Request::Report { root: vec![1, 2, 3], results: vec![report] };
        insta::assert_snapshot!(hex::encode(codec::encode(&request)), @"a1667265706f7274a264726f6f744301020367726573756c747381a3666f7574707574814106686c6f675f7461696c647461696c6973746174656d656e74420405");
    }

    #[test]
    fn taking_leave_is_golden() {
        insta::assert_snapshot!(hex::encode(codec::encode(&Request::Detach)), @"66646574616368");
        insta::assert_snapshot!(hex::encode(codec::encode(&Response::Detached)), @"686465746163686564");
    }

    #[test]
    fn names_that_cannot_be_told_apart_or_move_the_cursor_are_refused() {
        let decode = |operator: &str, cpu: &str| {
            let register = Register {
                agent: "test".into(),
                executors: vec![],
                offer: Capacity::default(),
                addresses: vec![],
                operator: Some(operator.into()),
                platform: Platform { os: "linux".into(), cpu: cpu.into() },
            };
            Request::decode(&codec::encode(&Request::Register(register)))
        };
        let longest = "é".repeat(LABEL_BYTES_MAX / 2);
        for right in ["farm", "Universität Ulm, Räume 1-3", longest.as_str()] {
            assert!(decode(right, "").is_ok(), "{right:?}");
        }
        let long = "x".repeat(LABEL_BYTES_MAX + 1);
        for wrong in ["", " ", "farm ", "\tfarm", "\u{1b}[2Jfarm", "a\nb", long.as_str()] {
            assert!(decode(wrong, "").is_err(), "{wrong:?}");
        }
        assert!(decode("farm", "\u{1b}[2J").is_err());
    }

    #[test]
    fn long_lists_are_refused() {
        let running = vec![ReplicaId(1); HEARTBEAT_REPLICAS_MAX + 1];
        let bytes =
            codec::encode(&Request::Heartbeat { running, kept: vec![], checkpointed: vec![] });
        assert!(Request::decode(&bytes).is_err());
        let running = vec![ReplicaId(1); HEARTBEAT_REPLICAS_MAX];
        let bytes =
            codec::encode(&Request::Heartbeat { running, kept: vec![], checkpointed: vec![] });
        assert!(Request::decode(&bytes).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let _ = Request::decode(&bytes);
            let _ = Response::decode(&bytes);
        }
    }
}
