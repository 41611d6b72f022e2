//! What the control door of every process says about peers and datasets, as JSON.
//!
//! Data-transfer types of their own: times are RFC 3339, sizes are bytes, ids are text.

use std::path::PathBuf;

use dockercomp_protocol::wire::explain::{Explanation, Reason};
use serde::{Deserialize, Serialize};

/// What a process says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id on the network.
    pub peer_id: String,
    /// Software name and version.
    pub agent: String,
    /// The process.
    pub pid: u32,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where others reach it, each ending in `/p2p/<id>`.
    pub addresses: Vec<String>,
    /// Bytes of data held.
    pub used_bytes: u64,
    /// What passed in this month, if that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeStatus>,
    /// Peers it is connected to.
    pub peers: Vec<ConnectedPeer>,
    /// Bytes of blocks to and from each peer, since the process started.
    pub traffic: Vec<PeerTraffic>,
}

/// What passed in a month of the calendar, and may pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// The month in UTC, as in `2026-11`.
    pub month: String,
    /// Bytes of blocks that passed, in both directions.
    pub used_bytes: u64,
    /// Bytes that may pass.
    pub limit_bytes: u64,
}

impl VolumeStatus {
    /// Whether nothing more may pass.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        self.used_bytes >= self.limit_bytes
    }
}

impl From<&dockercomp_exchange::Volume> for VolumeStatus {
    fn from(volume: &dockercomp_exchange::Volume) -> Self {
        let dockercomp_exchange::Used { month, bytes } = volume.used();
        Self { month, used_bytes: bytes, limit_bytes: volume.limit_bytes() }
    }
}

/// A peer that a process is connected to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectedPeer {
    /// Its id.
    pub peer_id: String,
    /// What it calls itself.
    pub agent: String,
    /// `tcp` or `quic`.
    pub transport: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Round-trip time in seconds, once measured.
    pub rtt_seconds: Option<f64>,
}

/// Blocks exchanged with one peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerTraffic {
    /// Its id.
    pub peer_id: String,
    /// Bytes of verified blocks that came from it.
    pub down_bytes: u64,
    /// Bytes of blocks that went to it.
    pub up_bytes: u64,
    /// Blocks from it that did not hash to what was asked for, and were dropped.
    pub wrong_blocks: u64,
}

/// Why something does not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonInfo {
    /// A name that does not change, for programs.
    pub reason: String,
    /// The same in words.
    pub text: String,
}

impl ReasonInfo {
    /// A reason by its name, in words.
    pub fn new(reason: &str, text: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), text: text.into() }
    }
}

impl From<&Reason> for ReasonInfo {
    fn from(reason: &Reason) -> Self {
        Self::new(reason.name(), reason.to_string())
    }
}

/// Why a node gets no work, as its coordinator says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReasons {
    /// What holds for all jobs.
    pub reasons: Vec<ReasonInfo>,
    /// What holds for each running job.
    pub jobs: Vec<JobReasonsInfo>,
    /// Running jobs that are left off.
    pub more_jobs: u64,
    /// Replicas that it may have in a day, if that has fallen.
    pub quota_per_day: Option<u32>,
    /// Those of them that are left today.
    pub quota_left: Option<u32>,
    /// How it stands, in words: its quota if that has fallen, and with which executors its
    /// results count for nothing.
    pub standing: Vec<String>,
}

/// Why a node gets no work of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReasonsInfo {
    /// The job's id.
    pub job: String,
    /// What people call it.
    pub name: String,
    /// Every reason; none if it could get work of it.
    pub reasons: Vec<ReasonInfo>,
}

impl From<&Explanation> for NodeReasons {
    fn from(explanation: &Explanation) -> Self {
        let Explanation { general, jobs, more_jobs, quota, doubts } = explanation;
        let of_job = jobs.iter().map(|job| JobReasonsInfo {
            job: job.job.to_string(),
            name: job.name.clone(),
            reasons: job.reasons.iter().map(ReasonInfo::from).collect(),
        });
        let quota_words = quota.iter().map(ToString::to_string);
        Self {
            reasons: general.iter().map(ReasonInfo::from).collect(),
            jobs: of_job.collect(),
            more_jobs: *more_jobs,
            quota_per_day: quota.map(|quota| quota.per_day),
            quota_left: quota.map(|quota| quota.left),
            standing: quota_words.chain(doubts.iter().map(ToString::to_string)).collect(),
        }
    }
}

/// A dataset in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// Its root.
    pub cid: String,
    /// What it is called here, if anything.
    pub name: Option<String>,
    /// `added`, `fetched` or `output`.
    pub kind: String,
    /// Number of files.
    pub files: u64,
    /// Size of all files.
    pub bytes: u64,
    /// How much of it is here.
    pub held_bytes: u64,
    /// Whether all of it is here.
    pub complete: bool,
    /// Whether it is kept from removal.
    pub pinned: bool,
    /// The bucket or web server where bytes that are not here are read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// After adding: how many of its bytes were here before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_bytes: Option<u64>,
    /// After a check: what it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// What a check of a dataset found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Chunks that were read and are right.
    pub sound_chunks: u64,
    /// Chunks that were not what they should be.
    pub rotten_chunks: u64,
    /// Chunks that were not here.
    pub missing_chunks: u64,
    /// Whether those that were not right or not here have been fetched anew.
    pub mended: bool,
    /// Chunks of objects that are gone from the dataset's origin, or changed there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gone_chunks: u64,
    /// The first of those objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_objects: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's shape
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Names a dataset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetRequest {
    /// Its root.
    pub cid: String,
}

/// Asks a process to write a dataset to a CAR file, or to read one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarRequest {
    /// The dataset's root; left out when reading.
    pub cid: Option<String>,
    /// Absolute path of the file.
    pub path: PathBuf,
    /// What to call a dataset that is read.
    pub name: Option<String>,
}

/// Somebody who says that they provide a dataset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProviderInfo {
    /// Their id.
    pub peer_id: String,
    /// Where they are said to be.
    pub addresses: Vec<String>,
    /// `all`, `part` or `none` of it, or `unreachable`.
    pub holds: String,
}

/// Asks a process to chunk a file or folder into its store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// Absolute path.
    pub path: PathBuf,
    /// What to call it.
    pub name: Option<String>,
    /// Chunk size in bytes; 1 MiB if left out.
    pub chunk_bytes: Option<u32>,
    /// Let the content say where chunks end.
    #[serde(default)]
    pub content_defined: bool,
    /// Leave large files where they are and seed them from there.
    #[serde(default)]
    pub in_place: bool,
}

/// Asks a process to add what a bucket or web server has, which stays there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginRequest {
    /// `https://host/path/file`, `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// The URL of an S3 server that is not Amazon's.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// Allow an origin without encryption.
    #[serde(default)]
    pub allow_http: bool,
    /// Do not sign requests to an S3 server.
    #[serde(default)]
    pub anonymous: bool,
    /// Also bring everything into the store.
    #[serde(default)]
    pub copy: bool,
    /// What to call the dataset.
    pub name: Option<String>,
    /// Chunk size in bytes; 1 MiB if left out.
    pub chunk_bytes: Option<u32>,
    /// Let the content say where chunks end.
    #[serde(default)]
    pub content_defined: bool,
}

/// What is said about a dataset that is sent as the body of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRequest {
    /// The name of its one file.
    pub file: String,
    /// What to call it.
    pub name: Option<String>,
    /// Let the content say where chunks end.
    #[serde(default)]
    pub content_defined: bool,
}

/// Asks a process to fetch a dataset, and to lay it out in a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRequest {
    /// The dataset's root.
    pub cid: String,
    /// Absolute path of an empty or missing folder; only fetched if left out.
    pub into: Option<PathBuf>,
    /// Patterns of paths, such as `images/**/*.png`; everything if there are none.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// One line of the answer to a long request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// How far it is.
    Progress {
        /// Bytes done.
        done_bytes: u64,
        /// Bytes in all, once known.
        total_bytes: u64,
    },
    /// It is done.
    Done(DatasetInfo),
    /// It failed.
    Failed(Problem),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// What kind of problem, for exit codes.
    pub kind: ProblemKind,
    /// What is wrong, with its causes.
    pub message: String,
    /// What to do about it, if that is known.
    pub fix: Option<String>,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request itself is wrong.
    BadRequest,
    /// What it names is not there.
    NotFound,
    /// It cannot be done in the present state.
    Conflict,
    /// Bytes or signatures are not right.
    Verification,
    /// No room.
    Quota,
    /// Something failed here.
    Internal,
}
