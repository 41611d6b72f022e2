//! What a node's control door says, as JSON.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use dockercomp_agent::Counts;
use dockercomp_peer::Peer;
use dockercomp_peer::api::{NodeReasons, PeerStatus, ReasonInfo};
use dockercomp_protocol::log::Head;
use dockercomp_protocol::wire::work::Capacity;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::explain::{self, Own, Said};
use crate::session::Handle as Session;

/// What a node says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The project that it works for.
    pub project: String,
    /// Who runs it, if they said so.
    pub operator: Option<String>,
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

/// Why a node has nothing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeExplained {
    /// Its id.
    pub node: String,
    /// The coordinator, once it has been reached.
    pub coordinator: Option<String>,
    /// Whether it has something to do after all.
    pub busy: bool,
    /// Replicas by state.
    pub tasks: TaskCounts,
    /// Reasons on this side.
    pub here: Vec<ReasonInfo>,
    /// What the coordinator says, if it answers.
    pub there: Option<NodeReasons>,
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

impl TaskCounts {
    /// Whether there is something to do.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.fetching + self.ready + self.running > 0
    }
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
    pub(crate) operator: Option<String>,
    pub(crate) executor: String,
    pub(crate) executor_reason: String,
    pub(crate) session: Session,
    pub(crate) offer: Capacity,
    pub(crate) stopping: CancellationToken,
}

/// The routes.
pub(crate) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/explain", get(explain))
        .with_state(state)
}

async fn explain(State(state): State<ApiState>) -> Json<NodeExplained> {
    let said = explain::ask(&state.session).await;
    let notes = state.board.with(|notes| notes.clone());
    let peer = state.peer.status().await;
    let own = Own {
        coordinator: notes.coordinator.as_deref(),
        n_peers: peer.peers.len(),
        trouble: notes.trouble.as_deref(),
        is_stopping: state.stopping.is_cancelled(),
        offer: state.offer,
        used_bytes: peer.used_bytes,
        volume: peer.volume.as_ref(),
    };
    let here = explain::reasons(&own, &said);
    Json(NodeExplained {
        node: peer.peer_id,
        busy: notes.tasks.is_busy(),
        tasks: notes.tasks,
        here,
        there: match said {
            Said::Reasons(reasons) => Some(*reasons),
            Said::Other | Said::Nothing => None,
        },
        coordinator: notes.coordinator,
    })
}

async fn status(State(state): State<ApiState>) -> Json<NodeStatus> {
    let notes = state.board.with(|notes| notes.clone());
    Json(NodeStatus {
        project: state.project.clone(),
        operator: state.operator.clone(),
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
