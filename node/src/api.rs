//! What a node's control door says, as JSON.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use dockercomp_agent::Counts;
use dockercomp_peer::Peer;
use dockercomp_peer::api::PeerStatus;
use dockercomp_protocol::log::Head;
use serde::{Deserialize, Serialize};

/// What a node says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The project that it works for.
    pub project: String,
    /// The coordinator, once it has been reached.
    pub coordinator: Option<String>,
    /// `docker` or `wasm`.
    pub executor: String,
    /// The executor's version, and why it was chosen.
    pub executor_reason: String,
    /// Why work does not go on, if it does not.
    pub trouble: Option<String>,
    /// Replicas by state.
    pub tasks: TaskCounts,
    /// The coordinator's log of accepted work units, as far as this node has seen it.
    pub log: Option<LogInfo>,
    /// What is wrong with that log, if the coordinator was caught rewriting it.
    pub fork: Option<ForkInfo>,
    /// Its side of the network.
    pub peer: PeerStatus,
}

/// A head of the coordinator's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInfo {
    /// Work units accepted so far.
    pub entries: u64,
    /// The root over them, in hexadecimal.
    pub root: String,
    /// When the coordinator signed it.
    pub signed_at: String,
}

impl LogInfo {
    pub(crate) fn of(head: &Head) -> Self {
        let root = head.root.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { entries: head.size, root, signed_at: head.at.to_string() }
    }
}

/// A coordinator that rewrote its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkInfo {
    /// What was found.
    pub message: String,
    /// The signed heads that show it, for `dockercomp verify --heads`.
    pub evidence: Vec<PathBuf>,
}

/// Replicas by state.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Waiting for inputs.
    pub fetching: usize,
    /// Waiting for room.
    pub ready: usize,
    /// Running.
    pub running: usize,
    /// Finished, not yet acknowledged.
    pub unreported: usize,
    /// Reported, output kept for the coordinator.
    pub kept: usize,
}

impl From<Counts> for TaskCounts {
    fn from(counts: Counts) -> Self {
        let Counts { fetching, ready, running, unreported, kept } = counts;
        Self { fetching, ready, running, unreported, kept }
    }
}

/// What changes while a node runs; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    inner: Arc<Mutex<Notes>>,
}

#[derive(Clone, Debug, Default)]
struct Notes {
    coordinator: Option<String>,
    trouble: Option<String>,
    tasks: TaskCounts,
    log: Option<LogInfo>,
    fork: Option<ForkInfo>,
}

impl Board {
    pub(crate) fn coordinator(&self, coordinator: Option<String>) {
        self.with(|notes| notes.coordinator = coordinator);
    }

    pub(crate) fn trouble(&self, trouble: Option<String>) {
        self.with(|notes| notes.trouble = trouble);
    }

    pub(crate) fn log(&self, log: Option<LogInfo>, fork: Option<ForkInfo>) {
        self.with(|notes| {
            notes.log = log;
            // Once caught, always caught.
            notes.fork = fork.or(notes.fork.take());
        });
    }

    pub(crate) fn tasks(&self, counts: Counts) {
        self.with(|notes| notes.tasks = counts.into());
    }

    fn with<T>(&self, act: impl FnOnce(&mut Notes) -> T) -> T {
        act(&mut self.inner.lock().expect("no holder of this lock panics"))
    }
}

/// Everything that answers need.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) peer: Peer,
    pub(crate) board: Board,
    pub(crate) project: String,
    pub(crate) executor: String,
    pub(crate) executor_reason: String,
}

/// The routes.
pub(crate) fn router(state: ApiState) -> Router {
    Router::new().route("/api/v1/status", get(status)).with_state(state)
}

async fn status(State(state): State<ApiState>) -> Json<NodeStatus> {
    let notes = state.board.with(|notes| notes.clone());
    Json(NodeStatus {
        project: state.project.clone(),
        coordinator: notes.coordinator,
        executor: state.executor.clone(),
        executor_reason: state.executor_reason.clone(),
        trouble: notes.trouble,
        tasks: notes.tasks,
        log: notes.log,
        fork: notes.fork,
        peer: state.peer.status().await,
    })
}
