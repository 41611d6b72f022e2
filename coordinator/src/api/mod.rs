//! The coordinator's control door: jobs, nodes, results.

mod explain;
mod jobs;
mod nodes;
mod results;
pub mod types;

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use dockercomp_peer::Peer;
use dockercomp_peer::api::ProblemKind;
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::ids::ProjectId;

use self::types::{BackupRequest, CoordinatorStatus};
use crate::backup::{self, BackupError, Note};
use crate::decider::Handle as Decider;
use crate::directory::Directory;
use crate::jobs::Jobs;
use crate::log::Heads;
use crate::receipts::Seal;

/// Everything that answers need.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) peer: Peer,
    pub(crate) decider: Decider,
    pub(crate) heads: Heads,
    pub(crate) seal: Arc<Seal>,
    pub(crate) jobs: Jobs,
    pub(crate) directory: Directory,
    pub(crate) project: ProjectId,
    pub(crate) name: String,
    pub(crate) link: String,
}

/// The routes.
pub(crate) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/{node}/explain", get(explain::node))
        .route("/api/v1/leaderboard", get(nodes::leaderboard))
        .route("/api/v1/backup", post(back_up))
        .route("/api/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/api/v1/jobs/{job}", get(jobs::one))
        .route("/api/v1/jobs/{job}/cancel", post(jobs::cancel))
        .route("/api/v1/jobs/{job}/units/{index}/explain", get(explain::unit))
        .route("/api/v1/jobs/{job}/results", get(results::archive))
        .route("/api/v1/jobs/{job}/receipts", get(results::receipts))
        .route("/api/v1/log/head", get(results::head))
        .with_state(state)
}

async fn status(State(state): State<ApiState>) -> Json<CoordinatorStatus> {
    Json(CoordinatorStatus {
        project: state.project.to_string(),
        name: state.name.clone(),
        join_link: state.link.clone(),
        paused: state.decider.paused(),
        peer: state.peer.status().await,
    })
}

async fn back_up(
    State(state): State<ApiState>,
    Json(BackupRequest { into }): Json<BackupRequest>,
) -> Result<Json<Note>, Refused> {
    if !into.is_absolute() {
        let message = format!("{} is not an absolute path", into.display());
        return Err(Refused::message(ProblemKind::BadRequest, message));
    }
    let (store, now) = (state.peer.store().clone(), state.decider.now());
    let made = tokio::task::spawn_blocking(move || backup::make(&store, &into, now)).await;
    made.map_err(Refused::internal)?.map(Json).map_err(|error| match &error {
        BackupError::Exists { .. } => Refused::new(ProblemKind::Conflict, error)
            .fix("name a directory that does not exist yet"),
        _ => Refused::internal(error),
    })
}
