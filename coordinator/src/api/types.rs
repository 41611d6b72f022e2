//! What the coordinator's control door says, as JSON.
//!
//! Data-transfer types of their own: times are RFC 3339, sizes are bytes, ids are text.

use dockercomp_peer::api::PeerStatus;
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
}
