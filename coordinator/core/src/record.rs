//! What the journal holds: decisions, each with every time and id that it needs.
//!
//! The state of a core is its records, applied in order, and nothing else: no clock and no
//! chance enters when they are applied. A record says what was decided, not why, so a later
//! version may decide otherwise and still read an older journal.
//!
//! # Format
//!
//! Canonical DAG-CBOR of [`Record`], an externally tagged enum; version [`VERSION`], which
//! the shell writes once at the head of its journal. Fields are never renamed or reused: a
//! change of meaning is a new variant, and the golden bytes in the tests say when one
//! happened by accident.

use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::job::{Gather, JobSpec, Validation, Work};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp, codec};
use serde::{Deserialize, Serialize};

use crate::credit;
use crate::identity::Identity;

/// Version of the records that this code writes. [`Record::read`] knows the older ones.
pub const VERSION: u8 = 1;
/// The oldest version that [`Record::read`] knows.
pub const OLDEST: u8 = VERSION;

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A job was taken on.
    JobAdded {
        /// When.
        at: Timestamp,
        /// Its id.
        job: Cid,
        /// What the core keeps of its specification.
        terms: Terms,
        /// How many work units its first stage has.
        units: u64,
        /// What its chance is drawn from.
        seed: Seed,
    },
    /// A job was cancelled, and with it whatever was undecided.
    JobCancelled {
        /// When.
        at: Timestamp,
        /// Its id.
        job: Cid,
    },
    /// The coordinator was away, or its clock jumped: every lease lasts as much longer.
    Away {
        /// When it was back.
        at: Timestamp,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A replica was made and given to a node.
    Leased {
        /// When.
        at: Timestamp,
        /// The replica; always the next number.
        replica: ReplicaId,
        /// The job.
        job: Cid,
        /// The work unit's number. It is expanded by its first lease.
        index: u64,
        /// The holder.
        node: NodeId,
        /// What it is expected to run it with.
        executor: ExecutorKind,
        /// The holder's `consecutive_valid`, if it is trusted to decide the unit alone.
        trusted: Option<u32>,
        /// When the lease runs out.
        deadline: Timestamp,
    },
    /// A unit whose result is known was given to a node, to check the node.
    SpotCheck {
        /// When.
        at: Timestamp,
        /// The replica; always the next number.
        replica: ReplicaId,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// The holder.
        node: NodeId,
        /// What it is expected to run it with.
        executor: ExecutorKind,
        /// When the lease runs out.
        deadline: Timestamp,
    },
    /// The holder of a replica reported.
    Reported {
        /// When.
        at: Timestamp,
        /// The replica.
        replica: ReplicaId,
        /// What it reported.
        finding: Finding,
    },
    /// A replica ended without a report.
    Ended {
        /// When.
        at: Timestamp,
        /// The replica.
        replica: ReplicaId,
        /// Why.
        silence: Silence,
    },
    /// The successes of a work unit were compared, and no quorum agreed.
    Inconclusive {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// How many results it now aims at.
        target: u32,
    },
    /// The shell compared outputs of a work unit that differ in their bytes.
    Compared {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// Replicas whose outputs are the same, class by class.
        classes: Vec<Vec<ReplicaId>>,
        /// Replicas whose outputs could not be read.
        unreadable: Vec<ReplicaId>,
    },
    /// A held result is to be confirmed by other nodes.
    Sampled {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// How many results it now aims at.
        target: u32,
    },
    /// A lot takes no more results.
    LotClosed {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// Whose results it holds.
        node: NodeId,
        /// Which of the node's lots.
        number: u32,
        /// How many audits it must pass.
        audits: u32,
        /// How many results must agree for one of them to be passed.
        agreeing: u32,
    },
    /// A quorum agreed.
    Accepted {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// The canonical output.
        output: Cid,
    },
    /// A work unit was given up.
    Failed {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
        /// Every reason that held; never empty.
        errors: Vec<UnitError>,
    },
    /// What ties a node to others, when it is first given work or has changed.
    NodeKnown {
        /// When.
        at: Timestamp,
        /// Who.
        node: NodeId,
        /// What is known.
        identity: Identity,
    },
    /// The deadline of a lease was put off, because its holder has saved its progress.
    Extended {
        /// When.
        at: Timestamp,
        /// The replica.
        replica: ReplicaId,
        /// When the lease now runs out.
        deadline: Timestamp,
    },
    /// No holder of a canonical output has it any more.
    OutputLost {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
    /// The canonical output of a work unit is safe.
    OutputStored {
        /// When.
        at: Timestamp,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
}

impl Record {
    /// Reads a record that a program of version `version` wrote, as this version says it.
    ///
    /// # Errors
    /// If the bytes are not a record of that version, or if the version is newer.
    pub fn read(version: u8, bytes: &[u8]) -> Result<Self, codec::DecodeError> {
        match version {
            OLDEST..=VERSION => codec::decode_within(bytes, usize::MAX),
            _ => Err(codec::DecodeError::Malformed {
                reason: format!("records of version {version} are not known"),
            }),
        }
    }

    /// When it was decided.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::JobAdded { at, .. }
            | Self::JobCancelled { at, .. }
            | Self::Away { at, .. }
            | Self::Leased { at, .. }
            | Self::NodeKnown { at, .. }
            | Self::Extended { at, .. }
            | Self::OutputLost { at, .. }
            | Self::SpotCheck { at, .. }
            | Self::Compared { at, .. }
            | Self::Sampled { at, .. }
            | Self::LotClosed { at, .. }
            | Self::Reported { at, .. }
            | Self::Ended { at, .. }
            | Self::Inconclusive { at, .. }
            | Self::Accepted { at, .. }
            | Self::Failed { at, .. }
            | Self::OutputStored { at, .. } => *at,
        }
    }
}

/// What the chance in a job is drawn from. Not shown: who knows it can tell what is checked.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What the core keeps of a job's specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What one replica takes.
    pub need: Capacity,
    /// Executors that can run it.
    pub executors: Vec<ExecutorKind>,
    /// The dataset that its work units read, if any.
    pub dataset: Option<Cid>,
    /// When a result counts.
    pub validation: Validation,
    /// What its other stages do with the outputs of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Gather>,
}

impl Terms {
    /// The terms of a specification.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        let docker = spec.program.image.map(|_| ExecutorKind::Docker);
        let wasm = spec.program.module.map(|_| ExecutorKind::Wasm);
        let dataset = match &spec.work {
            Work::Files { dataset, .. } => Some(*dataset),
            Work::Sweep(_) => None,
        };
        Self {
            need: Capacity::of(&spec.limits),
            executors: docker.into_iter().chain(wasm).collect(),
            dataset,
            validation: spec.validation.clone(),
            stages: spec.stages.iter().map(|stage| stage.gather).collect(),
        }
    }
}

/// What a report says, as far as the core cares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Finding {
    /// The program succeeded.
    Success {
        /// The root of what it left.
        output: Cid,
        /// What it claims to be worth, in millionths of a Cobblestone.
        claim: u64,
        /// The signed statement, for the receipt and as evidence.
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
    },
    /// The program failed.
    ClientError {
        /// How.
        exit: Exit,
    },
    /// Success is claimed, but there is no output to compare.
    ValidateError,
}

impl Finding {
    /// What a result says.
    #[must_use]
    pub fn of(result: &ResultStatement, sealed: Vec<u8>) -> Self {
        match result.output {
            _ if !result.exit.is_success() => Self::ClientError { exit: result.exit.clone() },
            Some(output) => {
                let claim = credit::claim(result.executor, &result.usage);
                Self::Success { output, claim, sealed }
            }
            None => Self::ValidateError,
        }
    }
}

/// Why a replica ended without a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// The lease could not be delivered.
    CouldntSend,
    /// The deadline passed.
    NoReply,
    /// Its work unit was decided without it, and the node was told to stop.
    DidntNeed,
    /// The node left the project.
    ClientDetached,
}

/// Why a work unit was given up: the bits of BOINC's error mask that can occur here.
///
/// `COULDNT_SEND_RESULT` cannot: a replica that was not delivered is simply replaced.
/// Cancelling is a state of the job, see [`JobState`](crate::JobState).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitError {
    /// More replicas than `max_error_results` ended in an error.
    TooManyErrorResults,
    /// More than `max_success_results` succeeded, and no quorum agreed.
    TooManySuccessResults,
    /// `max_total_results` replicas are used up, and nobody is left who could still report.
    TooManyTotalResults,
    /// A work unit whose output it needs was given up.
    InputFailed,
    /// It was accepted, its output is lost, and as many as may be asked computed something else
    /// or nothing.
    OutputLost,
}
