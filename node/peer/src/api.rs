//! What the control door of every process says about peers and datasets, as JSON.
//!
//! Data-transfer types of their own: times are RFC 3339, sizes are bytes, ids are text.

use std::path::PathBuf;

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
    /// Peers it is connected to.
    pub peers: Vec<ConnectedPeer>,
    /// Bytes of blocks to and from each peer, since the process started.
    pub traffic: Vec<PeerTraffic>,
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
}

/// Asks a process to fetch a dataset, and to lay it out in a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRequest {
    /// The dataset's root.
    pub cid: String,
    /// Absolute path of an empty or missing folder; only fetched if left out.
    pub into: Option<PathBuf>,
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
