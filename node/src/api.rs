//! What a node's control door says, as JSON.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use dockercomp_agent::{Connection, Counts, Share, Standing};
use dockercomp_peer::Peer;
use dockercomp_peer::api::{NodeReasons, PeerStatus, ProblemKind, ReasonInfo};
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::link::LinkError;
use dockercomp_protocol::log::Head;
use dockercomp_protocol::wire::work::Capacity;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::attached::Leaving;
use crate::explain::{self, OfProject, Own, Said};
use crate::roster::{Project, Roster, RosterError};

/// What a node says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The projects that it works for.
    pub projects: Vec<ProjectInfo>,
    /// Who runs it, if they said so.
    pub operator: Option<String>,
    /// `docker` or `wasm`.
    pub executor: String,
    /// The executor's version, and why it was chosen.
    pub executor_reason: String,
    /// Replicas of all projects by state.
    pub tasks: TaskCounts,
    /// Its side of the network.
    pub peer: PeerStatus,
}

/// How a project stands on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProjectInfo {
    /// Its id.
    pub project: String,
    /// What its coordinator calls it, once that was reached.
    pub name: Option<String>,
    /// The join link that the node has.
    pub link: String,
    /// How much of the machine it gets, in proportion to the shares of the others.
    pub share: u32,
    /// Its part of what all projects have used of the machine lately, from 0 to 1.
    pub part_used: f64,
    /// Seconds on the whole machine that it has used; what was a day ago counts half.
    pub used_seconds: f64,
    /// `works`, `no_work`, `unreachable` or `leaving`.
    pub state: String,
    /// The same in words.
    pub text: String,
    /// The coordinator, once it has been reached.
    pub coordinator: Option<String>,
    /// Why work does not go on, if it does not.
    pub trouble: Option<String>,
    /// Replicas by state.
    pub tasks: TaskCounts,
    /// The coordinator's log of accepted work units, as far as this node has seen it.
    pub log: Option<LogInfo>,
    /// What is wrong with that log, if the coordinator was caught rewriting it.
    pub fork: Option<ForkInfo>,
}

/// Asks a node to work for a project.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The join link that the project's coordinator printed.
    pub link: String,
    /// How much of the machine it gets; as before, or 100, if left out.
    pub share: Option<u32>,
}

/// Asks a node to work for a project no more.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Its id, name, or the end of its id.
    pub project: String,
    /// Drop what runs, and what the coordinator has not fetched.
    pub now: bool,
}

/// Gives a project another share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Its id, name, or the end of its id.
    pub project: String,
    /// How much of the machine it gets from now on.
    pub share: u32,
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
    /// Whether it has something to do after all.
    pub busy: bool,
    /// Replicas of all projects by state.
    pub tasks: TaskCounts,
    /// Reasons on this side that hold for all projects.
    pub here: Vec<ReasonInfo>,
    /// What holds for each project.
    pub projects: Vec<ProjectExplained>,
}

/// Why a node has nothing to do for one project.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProjectExplained {
    /// How the project stands.
    pub info: ProjectInfo,
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

    fn plus(self, other: Self) -> Self {
        Self {
            fetching: self.fetching + other.fetching,
            ready: self.ready + other.ready,
            running: self.running + other.running,
            unreported: self.unreported + other.unreported,
            kept: self.kept + other.kept,
        }
    }
}

impl From<Counts> for TaskCounts {
    fn from(counts: Counts) -> Self {
        let Counts { fetching, ready, running, unreported, kept } = counts;
        Self { fetching, ready, running, unreported, kept }
    }
}

/// What changes about a project while a node runs; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    inner: Arc<Mutex<Notes>>,
}

#[derive(Clone, Debug, Default)]
struct Notes {
    coordinator: Option<String>,
    trouble: Option<String>,
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

    fn with<T>(&self, act: impl FnOnce(&mut Notes) -> T) -> T {
        act(&mut self.inner.lock().expect("no holder of this lock panics"))
    }
}

/// Everything that answers need.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) peer: Peer,
    pub(crate) roster: Roster,
    pub(crate) operator: Option<String>,
    pub(crate) executor: String,
    pub(crate) executor_reason: String,
    pub(crate) offer: Capacity,
    pub(crate) stopping: CancellationToken,
}

/// The routes.
pub(crate) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/explain", get(explain))
        .route("/api/v1/projects", get(projects))
        .route("/api/v1/projects/attach", post(attach))
        .route("/api/v1/projects/detach", post(detach))
        .route("/api/v1/projects/share", post(share))
        .with_state(state)
}

impl ProjectInfo {
    fn new(id: &ProjectId, project: &Project, standing: Option<&Standing>) -> Self {
        let notes = project.board.with(|notes| notes.clone());
        let tasks = standing.map(|standing| standing.counts.into()).unwrap_or_default();
        let (state, text) = words(standing, project.attached.leaving.is_some(), tasks);
        Self {
            project: id.to_string(),
            name: project.attached.name.clone(),
            link: project.attached.link.to_string(),
            share: project.attached.share.get(),
            part_used: standing.map_or(0.0, |standing| standing.part_used),
            used_seconds: standing.map_or(0.0, |standing| standing.usage.seconds()),
            state: state.to_owned(),
            text,
            coordinator: notes.coordinator,
            trouble: notes.trouble,
            tasks,
            log: notes.log,
            fork: notes.fork,
        }
    }
}

/// How a project is, as a name that does not change and in words.
fn words(
    standing: Option<&Standing>,
    is_leaving: bool,
    tasks: TaskCounts,
) -> (&'static str, String) {
    let TaskCounts { fetching, ready, running, unreported, kept } = tasks;
    let left = [
        (running, "running"),
        (fetching + ready, "waiting to run"),
        (unreported, "to report"),
        (kept, "outputs kept for its coordinator"),
    ];
    let left = left.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    let left = left.collect::<Vec<_>>().join(", ");
    let with = |text: &str| match &*left {
        "" => text.to_owned(),
        left => format!("{text}: {left}"),
    };
    let connection = standing.map_or(Connection::Unreached, |standing| standing.connection);
    match connection {
        Connection::Unreached if is_leaving => {
            ("leaving", with("detached, but its coordinator cannot be reached"))
        }
        _ if is_leaving => ("leaving", with("detached, its last replicas finish")),
        Connection::Unreached => ("unreachable", with("cannot be reached")),
        Connection::WithoutWork if !tasks.is_busy() => ("no_work", with("no work")),
        Connection::WithoutWork | Connection::Gives => ("works", with("works")),
    }
}

impl ApiState {
    async fn projects(&self) -> Vec<(ProjectInfo, Project)> {
        let (projects, standings) = self.roster.projects().await;
        let info = |(id, project): (ProjectId, Project)| {
            (ProjectInfo::new(&id, &project, standings.get(&id)), project)
        };
        projects.into_iter().map(info).collect()
    }

    async fn project(&self, id: ProjectId) -> Result<Json<ProjectInfo>, Refused> {
        let (projects, standings) = self.roster.projects().await;
        let project = projects.get(&id).ok_or_else(|| {
            // It was left at once, since there was nothing to finish.
            Refused::message(ProblemKind::NotFound, "the project has been left meanwhile")
        })?;
        Ok(Json(ProjectInfo::new(&id, project, standings.get(&id))))
    }
}

async fn projects(State(state): State<ApiState>) -> Json<Vec<ProjectInfo>> {
    Json(state.projects().await.into_iter().map(|(info, _)| info).collect())
}

async fn attach(
    State(state): State<ApiState>,
    Json(asked): Json<Attach>,
) -> Result<Json<ProjectInfo>, Refused> {
    let link = asked
        .link
        .parse()
        .map_err(|error: LinkError| Refused::new(ProblemKind::BadRequest, error))?;
    let share = asked.share.map(checked).transpose()?;
    let id = state.roster.attach(link, share).await.map_err(refused)?;
    state.project(id).await
}

async fn detach(
    State(state): State<ApiState>,
    Json(asked): Json<Detach>,
) -> Result<Json<Detach>, Refused> {
    let leaving = if asked.now { Leaving::Drop } else { Leaving::Finish };
    let id = state.roster.detach(&asked.project, leaving).await.map_err(refused)?;
    Ok(Json(Detach { project: id.to_string(), ..asked }))
}

async fn share(
    State(state): State<ApiState>,
    Json(asked): Json<Shared>,
) -> Result<Json<ProjectInfo>, Refused> {
    let share = checked(asked.share)?;
    let id = state.roster.set_share(&asked.project, share).await.map_err(refused)?;
    state.project(id).await
}

fn checked(share: u32) -> Result<Share, Refused> {
    Share::new(share).ok_or_else(|| {
        let message = format!("a share is a number from 1 to {}, not {share}", Share::MAX);
        Refused::message(ProblemKind::BadRequest, message)
    })
}

fn refused(error: RosterError) -> Refused {
    const LIST: &str = "dockercomp node projects lists them";
    match &error {
        RosterError::Unknown { .. } => Refused::new(ProblemKind::NotFound, error).fix(LIST),
        RosterError::Ambiguous { .. } => Refused::new(ProblemKind::BadRequest, error).fix(LIST),
        RosterError::Full => Refused::new(ProblemKind::Conflict, error)
            .fix("leave one first: dockercomp node detach PROJECT"),
        RosterError::Store(_) => Refused::internal(error),
    }
}

async fn explain(State(state): State<ApiState>) -> Json<NodeExplained> {
    let peer = state.peer.status().await;
    let projects = state.projects().await;
    let said = join_all(projects.iter().map(|(_, project)| explain::ask(&project.session))).await;
    let own = Own {
        n_projects: projects.len(),
        is_stopping: state.stopping.is_cancelled(),
        offer: state.offer,
        used_bytes: peer.used_bytes,
        volume: peer.volume.as_ref(),
    };
    let tasks = total(projects.iter().map(|(info, _)| info.tasks));
    let explained = |((info, _), said): ((ProjectInfo, Project), Said)| {
        let own = OfProject {
            coordinator: info.coordinator.as_deref(),
            n_peers: peer.peers.len(),
            trouble: info.trouble.as_deref(),
            is_leaving: info.state == "leaving",
        };
        let here = explain::reasons_of_project(&own, &said);
        let there = match said {
            Said::Reasons(reasons) => Some(*reasons),
            Said::Other | Said::Nothing => None,
        };
        ProjectExplained { info, here, there }
    };
    Json(NodeExplained {
        busy: tasks.is_busy(),
        tasks,
        here: explain::reasons(&own),
        projects: projects.into_iter().zip(said).map(explained).collect(),
        node: peer.peer_id,
    })
}

async fn status(State(state): State<ApiState>) -> Json<NodeStatus> {
    let projects: Vec<ProjectInfo> =
        state.projects().await.into_iter().map(|(info, _)| info).collect();
    Json(NodeStatus {
        tasks: total(projects.iter().map(|project| project.tasks)),
        projects,
        operator: state.operator.clone(),
        executor: state.executor.clone(),
        executor_reason: state.executor_reason.clone(),
        peer: state.peer.status().await,
    })
}

fn total(counts: impl Iterator<Item = TaskCounts>) -> TaskCounts {
    counts.fold(TaskCounts::default(), TaskCounts::plus)
}

#[cfg(test)]
mod tests {
    use dockercomp_agent::Usage;

    use super::*;

    #[test]
    fn a_project_is_described_by_what_holds_it_up() {
        let idle = TaskCounts::default();
        let busy = TaskCounts { running: 1, ready: 2, ..idle };
        let done = TaskCounts { kept: 3, ..idle };
        let told = |connection, is_leaving, tasks| {
            let standing = Standing {
                share: Share::default(),
                usage: Usage::default(),
                part_used: 0.0,
                counts: Counts::default(),
                connection,
                is_leaving,
            };
            let (name, text) = words(Some(&standing), is_leaving, tasks);
            format!("{name}|{text}")
        };
        use Connection::{Gives, Unreached, WithoutWork};
        for (connection, is_leaving, tasks, expected) in [
            (Gives, false, busy, "works|works: 1 running, 2 waiting to run"),
            (WithoutWork, false, busy, "works|works: 1 running, 2 waiting to run"),
            (WithoutWork, false, done, "no_work|no work: 3 outputs kept for its coordinator"),
            (Unreached, false, idle, "unreachable|cannot be reached"),
            (
                Gives,
                true,
                done,
                "leaving|detached, its last replicas finish: 3 outputs kept for its coordinator",
            ),
            (Unreached, true, idle, "leaving|detached, but its coordinator cannot be reached"),
        ] {
            assert_eq!(told(connection, is_leaving, tasks), expected);
        }
    }
}
