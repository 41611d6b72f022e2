//! What the coordinator's control door says, as JSON.
//!
//! Data-transfer types of their own: times are RFC 3339, sizes are bytes, ids are text.

use dockercomp_peer::api::{NodeReasons, PeerStatus, ReasonInfo};
use serde::{Deserialize, Serialize};

/// What a coordinator says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CoordinatorStatus {
    /// The project.
    pub project: String,
    /// What people call it.
    pub name: String,
    /// All that a node needs.
    pub join_link: String,
    /// Why nothing is decided at the moment, if so.
    pub paused: Option<String>,
    /// Its side of the network.
    pub peer: PeerStatus,
}

/// Asks for a back-up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// Absolute path of a directory that does not exist yet.
    pub into: std::path::PathBuf,
}

/// Answer to a submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Submitted {
    /// The job's id.
    pub job: String,
    /// How many work units it has.
    pub work_units: u64,
}

/// A job and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its id.
    pub job: String,
    /// What people call it.
    pub name: String,
    /// `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// When the owner signed it.
    pub submitted_at: String,
    /// How many work units it has.
    pub work_units: u64,
    /// Work units with a canonical result.
    pub accepted: u64,
    /// Work units whose canonical output is safe here.
    pub stored: u64,
    /// Work units that failed.
    pub failed: u64,
    /// Work units in flight.
    pub in_flight: u64,
    /// Work units that wait for a node that can run them and has not had them yet.
    pub waiting_for_nodes: u64,
    /// How far each stage is, the first one first.
    pub stages: Vec<StageInfo>,
    /// Replicas that nodes have now.
    pub replicas_in_progress: u64,
    /// Replicas leased so far.
    pub replicas: u64,
    /// Results that agree with the canonical one.
    pub results_valid: u64,
    /// Results that do not.
    pub results_invalid: u64,
    /// Replicas whose program failed.
    pub results_error: u64,
    /// Replicas whose deadline passed.
    pub results_no_reply: u64,
    /// Results that were outvoted.
    pub disagreements: Vec<DisagreementInfo>,
    /// Work units that failed, with the reason; the first hundred.
    pub failures: Vec<FailureInfo>,
}

/// A stage of a job and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInfo {
    /// What people call it; the first one is `map`.
    pub name: String,
    /// How many work units it has.
    pub work_units: u64,
    /// Work units with a canonical result.
    pub accepted: u64,
    /// Work units whose canonical output is safe at the coordinator.
    pub stored: u64,
    /// Work units that failed.
    pub failed: u64,
}

/// A result that was outvoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisagreementInfo {
    /// The work unit's number.
    pub unit: u64,
    /// Who reported it.
    pub node: String,
    /// What it said.
    pub output: String,
    /// What the quorum agreed on.
    pub canonical: String,
}

/// A work unit that failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureInfo {
    /// The work unit's number.
    pub unit: u64,
    /// Why, in BOINC's names.
    pub reason: String,
    /// The end of what its last failing replica printed.
    pub log_tail: Option<String>,
}

/// Where a work unit stands, and what it waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnitExplained {
    /// The job's id.
    pub job: String,
    /// What people call it.
    pub name: String,
    /// The work unit's number.
    pub unit: u64,
    /// `waiting`, `waiting_for_inputs`, `open`, `accepted`, `failed` or `cancelled`.
    pub state: String,
    /// The same in words.
    pub text: String,
    /// The output that was accepted.
    pub output: Option<String>,
    /// Its replicas, in the order of their leases, until it is over.
    pub replicas: Vec<ReplicaInfo>,
    /// If it waits for a node, whether and why not nodes could have it, those with the same
    /// first reason together.
    pub summary: Vec<GroupInfo>,
    /// The same of each node, at most a thousand.
    pub nodes: Vec<CandidateInfo>,
    /// The end of what its last failing replica printed.
    pub log_tail: Option<String>,
}

/// A replica of a work unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// Its number.
    pub replica: u64,
    /// Who has, or had, it.
    pub node: String,
    /// `docker` or `wasm`.
    pub executor: String,
    /// `in_progress`, `success`, `error`, `validate_error` or `silent`.
    pub state: String,
    /// The same in words.
    pub text: String,
    /// Until when its node may work on it, if it does.
    pub deadline: Option<String>,
}

/// Nodes that a work unit is kept from for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// The reason's name; `free` and `away` are of nodes that could have it.
    pub reason: String,
    /// How many nodes.
    pub nodes: usize,
    /// The same in words.
    pub text: String,
}

/// A node, and what keeps it from a work unit that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateInfo {
    /// Who.
    pub node: String,
    /// When it was last heard of.
    pub last_seen: String,
    /// Every reason, the most lasting first; none if it could have it.
    pub reasons: Vec<ReasonInfo>,
}

/// Why a node gets no work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeExplained {
    /// Its id.
    pub node: String,
    /// Replicas leased to it now.
    pub running: u64,
    /// Everything that is known about it.
    #[serde(flatten)]
    pub reasons: NodeReasons,
}

/// A node as the coordinator knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id.
    pub node: String,
    /// Software name and version.
    pub agent: String,
    /// Executors that are ready.
    pub executors: Vec<String>,
    /// Thousandths of a core that it offers.
    pub cpu_millis: u32,
    /// Bytes of memory that it offers.
    pub memory_bytes: u64,
    /// When it was last heard of.
    pub last_seen: String,
    /// Replicas leased to it now.
    pub running: u64,
    /// Results that agree with the canonical one.
    pub valid: u64,
    /// Results that do not.
    pub invalid: u64,
    /// Replicas whose program failed.
    pub errors: u64,
    /// Replicas whose deadline passed.
    pub no_reply: u64,
    /// Who runs it, if they said so.
    pub operator: Option<String>,
    /// The address range that it is connected from, if that says anything.
    pub address_range: Option<String>,
    /// Replicas that it may have in a day.
    pub quota_per_day: u32,
    /// Those of them that are left today.
    pub quota_left: u32,
    /// What its valid results were worth, in Cobblestones.
    pub credit: f64,
    /// Its record with each executor.
    pub standings: Vec<StandingInfo>,
}

/// What a node's earlier results with an executor say of its next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingInfo {
    /// `docker` or `wasm`.
    pub executor: String,
    /// Valid results in a row that others confirmed (BOINC's `consecutive_valid`).
    pub consecutive_valid: u32,
    /// Spot-checks passed since it was last caught.
    pub checks_passed: u32,
    /// How often it was caught with a wrong result.
    pub caught: u32,
    /// Whether its results count for nothing, in jobs that weigh nodes by their record.
    pub barred: bool,
    /// Results that others must confirm before they count again.
    pub confirmed_needed: u32,
    /// Valid results, of which half is forgotten every 30 days; so are all of the following.
    pub valid_lately: f64,
    /// Results that do not agree with the canonical one.
    pub invalid_lately: f64,
    /// Replicas whose program failed.
    pub errors_lately: f64,
    /// Replicas whose deadline passed.
    pub late_lately: f64,
}

/// Who has earned most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaderboard {
    /// Nodes, the best first.
    pub nodes: Vec<NodeCredit>,
    /// Operators that said who they are, the best first.
    pub operators: Vec<OperatorCredit>,
}

/// What a node has earned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeCredit {
    /// Its id.
    pub node: String,
    /// Who runs it, if they said so.
    pub operator: Option<String>,
    /// What its valid results were worth, in Cobblestones.
    pub credit: f64,
}

/// What the nodes of an operator have earned together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorCredit {
    /// What the operator is called.
    pub operator: String,
    /// Nodes that have earned something.
    pub nodes: u64,
    /// What their valid results were worth, in Cobblestones.
    pub credit: f64,
}
