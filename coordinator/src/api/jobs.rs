//! Submitting, watching and cancelling jobs.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use dockercomp_coordinator_core::{Core, Disagreement, Event, JobState, JobView, UnitFailure};
use dockercomp_peer::api::ProblemKind;
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::job::JobError;
use dockercomp_protocol::{Cid, content};

use super::ApiState;
use super::types::{DisagreementInfo, FailureInfo, JobInfo, StageInfo, Submitted};
use crate::decider::Answer;
use crate::jobs::{Job, SubmitError};
use crate::logs;

/// Failures that are told with their logs.
const FAILURES_MAX: usize = 100;

/// Takes a sealed job on.
pub(super) async fn submit(
    State(state): State<ApiState>,
    sealed: Bytes,
) -> Result<Json<Submitted>, Refused> {
    let (store, project) = (state.peer.store().clone(), state.project);
    let opened = tokio::task::spawn_blocking(move || {
        let job = Job::open(sealed.to_vec(), project)?;
        job.check_data(&store)?;
        Ok(job)
    })
    .await;
    let job = opened.map_err(Refused::internal)?.map_err(refuse)?;
    let job = state.jobs.insert(job);
    let (spec, units) = (Box::new(job.spec.clone()), job.spec.first_units());
    let event = Event::JobAdded { job: job.cid, spec, units, seed: rand::random() };
    for root in job.roots() {
        state.peer.pin(root).await.map_err(Refused::internal)?;
        state.peer.announce(root).await;
    }
    let answer = state.decider.tell_with(event, vec![job.row()]).await;
    done(&state, answer.map_err(Refused::internal)?)?;
    Ok(Json(Submitted { job: job.cid.to_string(), work_units: job.plan.units() }))
}

fn refuse(error: SubmitError) -> Refused {
    let (kind, fix) = match &error {
        SubmitError::Missing { what, .. } => (
            ProblemKind::NotFound,
            Some(format!(
                "add it here first (dockercomp {} add), or fetch it from peers (dockercomp \
                 dataset get CID)",
                if *what == "image" { "image" } else { "dataset" }
            )),
        ),
        SubmitError::Job(JobError::Open(_) | JobError::Foreign { .. }) => (
            ProblemKind::Verification,
            Some("sign it with the key of this project (owner.key)".to_owned()),
        ),
        SubmitError::Job(_) | SubmitError::Files { .. } => (ProblemKind::BadRequest, None),
        SubmitError::Image { .. } => {
            (ProblemKind::BadRequest, Some("add it with: dockercomp image add".to_owned()))
        }
        SubmitError::Store(_) => (ProblemKind::Internal, None),
    };
    let refused = Refused::new(kind, error);
    match fix {
        Some(fix) => refused.fix(fix),
        None => refused,
    }
}

/// All jobs, the newest last.
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Vec<JobInfo>>, Refused> {
    let views = state.decider.look(|core| core.jobs().collect::<Vec<_>>()).await;
    let views = views.map_err(Refused::internal)?;
    Ok(Json(views.into_iter().map(|view| info(&state, view, &[])).collect()))
}

/// One job.
pub(super) async fn one(
    State(state): State<ApiState>,
    Path(job): Path<String>,
) -> Result<Json<JobInfo>, Refused> {
    describe(&state, parse(&job)?).await.map(Json)
}

/// Cancels a job.
pub(super) async fn cancel(
    State(state): State<ApiState>,
    Path(job): Path<String>,
) -> Result<Json<JobInfo>, Refused> {
    let job = parse(&job)?;
    describe(&state, job).await?;
    let answer = state.decider.tell(Event::JobCancelled { job }).await;
    done(&state, answer.map_err(Refused::internal)?)?;
    describe(&state, job).await.map(Json)
}

/// Nothing is decided while the disk is full.
fn done(state: &ApiState, answer: Answer) -> Result<(), Refused> {
    match answer {
        Answer::NoRoom => {
            let why = state.decider.paused().unwrap_or_else(|| "the disk was full".to_owned());
            Err(Refused::message(ProblemKind::Quota, format!("the coordinator is paused: {why}"))
                .fix("free some room, then try again"))
        }
        _ => Ok(()),
    }
}

async fn describe(state: &ApiState, job: Cid) -> Result<JobInfo, Refused> {
    let look = move |core: &Core| {
        let view = core.job(job)?;
        let disagreements: Vec<Disagreement> =
            core.disagreements().filter(|found| found.job == job).cloned().collect();
        Some((view, disagreements))
    };
    let found = state.decider.look(look).await.map_err(Refused::internal)?;
    let (view, disagreements) = found.ok_or_else(|| unknown(&job))?;
    let mut info = info(state, view, &disagreements);
    let store = state.peer.store().clone();
    let with_logs = tokio::task::spawn_blocking(move || {
        for failure in info.failures.iter_mut().take(FAILURES_MAX) {
            failure.log_tail = logs::of_unit(&store, &job, failure.unit).map(|tail| tail.text);
        }
        info
    });
    with_logs.await.map_err(Refused::internal)
}

fn info(state: &ApiState, view: JobView, disagreements: &[Disagreement]) -> JobInfo {
    let job = state.jobs.get(&view.job);
    let (name, submitted_at) = job.as_ref().map_or_else(
        || (String::new(), String::new()),
        |job| (job.spec.name.clone(), job.spec.submitted_at.to_string()),
    );
    let names: Vec<String> = job.map_or_else(Vec::new, |job| job.stage_names());
    let state = match view.state {
        JobState::Running => "running",
        JobState::Completed { .. } if view.failed > 0 => "failed",
        JobState::Completed { .. } => "done",
        JobState::Cancelled { .. } => "cancelled",
    };
    let tally = view.replicas;
    JobInfo {
        job: view.job.to_string(),
        name,
        state: state.to_owned(),
        submitted_at,
        work_units: view.units,
        accepted: view.done,
        stored: view.stored,
        failed: view.failed,
        in_flight: view.in_flight,
        waiting_for_nodes: view.lacking + view.waiting,
        stages: names
            .into_iter()
            .zip(view.stages)
            .map(|(name, stage)| StageInfo {
                name,
                work_units: stage.units,
                accepted: stage.done,
                stored: stage.stored,
                failed: stage.failed,
            })
            .collect(),
        replicas_in_progress: tally.in_progress,
        replicas: tally.total(),
        results_valid: tally.valid,
        results_invalid: tally.invalid,
        results_error: tally.client_error + tally.validate_error,
        results_no_reply: tally.no_reply,
        disagreements: disagreements
            .iter()
            .map(|found| DisagreementInfo {
                unit: found.index,
                node: found.node.to_string(),
                output: found.said.to_string(),
                canonical: found.canonical.to_string(),
            })
            .collect(),
        failures: view
            .failures
            .iter()
            .map(|failure| FailureInfo {
                unit: failure.index,
                reason: reason(failure),
                log_tail: None,
            })
            .collect(),
    }
}

/// Why a work unit failed: BOINC's names for the rule, then how its replicas ended.
pub(super) fn reason(failure: &UnitFailure) -> String {
    let rules: Vec<String> = failure.errors.iter().map(|error| format!("{error:?}")).collect();
    let mut exits: BTreeMap<String, u32> = BTreeMap::new();
    for exit in &failure.exits {
        *exits.entry(exit.to_string()).or_default() += 1;
    }
    let exits: Vec<String> =
        exits.iter().map(|(exit, count)| format!("{exit} ({count} times)")).collect();
    if exits.is_empty() {
        rules.join(", ")
    } else {
        format!("{}: {}", rules.join(", "), exits.join(", "))
    }
}

/// The job that a path names.
pub(super) fn parse(text: &str) -> Result<Cid, Refused> {
    content::parse(text).map_err(|error| Refused::new(ProblemKind::BadRequest, error))
}

/// There is no such job.
pub(super) fn unknown(job: &Cid) -> Refused {
    Refused::message(ProblemKind::NotFound, format!("there is no job {job}"))
        .fix("dockercomp job list")
}
