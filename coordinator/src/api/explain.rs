//! Why a work unit waits, and why a node gets nothing, in words.

use axum::Json;
use axum::extract::{Path, State};
use dockercomp_coordinator_core::{
    Candidate, Core, JobState, ReplicaFate, ReplicaView, Silence, UnitError, UnitFailure, UnitView,
    ValidateState,
};
use dockercomp_peer::api::{NodeReasons, ProblemKind, ReasonInfo};
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::Policy;
use dockercomp_protocol::limits::ENVELOPE_BYTES_MAX;
use dockercomp_protocol::receipt::Entry;
use dockercomp_protocol::{Cid, NodeId, Timestamp, codec};
use dockercomp_store::Store;

use super::ApiState;
use super::jobs::{parse, reason as failure_reason, unknown};
use super::types::{CandidateInfo, GroupInfo, NodeExplained, ReplicaInfo, UnitExplained};
use crate::{explain, logs, receipts};

/// All that the core knows of a work unit.
struct Known {
    view: UnitView,
    state: JobState,
    failure: Option<UnitFailure>,
    /// Whether its job has failures that are not remembered.
    forgets_failures: bool,
    replicas: Vec<ReplicaView>,
    candidates: Vec<Candidate>,
}

/// Where a work unit stands, and what it waits for.
pub(super) async fn unit(
    State(state): State<ApiState>,
    Path((job, index)): Path<(String, u64)>,
) -> Result<Json<UnitExplained>, Refused> {
    let cid = parse(&job)?;
    let job = state.jobs.get(&cid).ok_or_else(|| unknown(&cid))?;
    let now = state.decider.now();
    let look = move |core: &Core| {
        let of_job = core.job(cid)?;
        let forgets_failures = of_job.failed > of_job.failures.len() as u64;
        let failure = of_job.failures.into_iter().find(|failure| failure.index == index);
        Some(Known {
            view: core.explain_unit(cid, index)?,
            state: of_job.state,
            failure,
            forgets_failures,
            replicas: core.replicas_of(cid, index),
            candidates: core.who_may(now, cid, index),
        })
    };
    let known = state.decider.look(look).await.map_err(Refused::internal)?;
    let known = known.ok_or_else(|| {
        let units = job.plan.units();
        let message = format!("job {cid} has {units} work units, counted from 0");
        Refused::message(ProblemKind::NotFound, message)
    })?;
    let store = state.peer.store().clone();
    let kept = tokio::task::spawn_blocking(move || Kept::of(&store, &cid, index));
    let kept = kept.await.map_err(Refused::internal)?.map_err(Refused::internal)?;

    let needs = explain::executors_of(&job.spec.program);
    let (name, policy) = (job.spec.name.clone(), &job.spec.validation.policy);
    let Told { state, text, output } = tell(&known, &kept, policy);
    let candidates = known.candidates.iter().map(|candidate| candidate_info(candidate, &needs));
    let nodes: Vec<CandidateInfo> = candidates.collect();
    let groups = known.candidates.iter().zip(&nodes).map(|(candidate, info)| {
        let is_away = now.since(candidate.last_seen) >= explain::AWAY_AFTER;
        let spare = if is_away { "away" } else { "free" };
        info.reasons.first().map_or(spare, |first| &first.reason)
    });
    Ok(Json(UnitExplained {
        job: cid.to_string(),
        name,
        unit: index,
        state: state.to_owned(),
        text,
        output: output.map(|output| output.to_string()),
        replicas: known.replicas.iter().map(replica_info).collect(),
        summary: summary(groups),
        nodes,
        log_tail: kept.log_tail,
    }))
}

/// Why a node gets no work.
pub(super) async fn node(
    State(state): State<ApiState>,
    Path(text): Path<String>,
) -> Result<Json<NodeExplained>, Refused> {
    let node: NodeId = text.parse().map_err(|_| {
        Refused::message(ProblemKind::BadRequest, format!("{text:?} is not the id of a node"))
    })?;
    let found = explain::of_node(&state.decider, &state.jobs, node).await;
    let explanation = found.map_err(Refused::internal)?.ok_or_else(|| {
        Refused::message(ProblemKind::NotFound, format!("no node {node} has ever come here"))
            .fix("dockercomp coordinator nodes")
    })?;
    let look = move |core: &Core| core.node(node).map_or(0, |view| view.replicas.in_progress);
    let running = state.decider.look(look).await.map_err(Refused::internal)?;
    let reasons = NodeReasons::from(&explanation);
    Ok(Json(NodeExplained { node: node.to_string(), running, reasons }))
}

/// What the store keeps of a work unit.
#[derive(Default)]
struct Kept {
    entry: Option<Entry>,
    log_tail: Option<String>,
}

impl Kept {
    /// Blocking.
    fn of(store: &Store, job: &Cid, index: u64) -> Result<Self, dockercomp_store::StoreError> {
        let stored = receipts::of_unit(store, job, index)?;
        let entry =
            stored.and_then(|stored| codec::decode_within(&stored.entry, ENVELOPE_BYTES_MAX).ok());
        Ok(Self { entry, log_tail: logs::of_unit(store, job, index).map(|tail| tail.text) })
    }
}

/// Where a work unit stands, in words.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    state: &'static str,
    text: String,
    output: Option<Cid>,
}

fn tell(known: &Known, kept: &Kept, policy: &Policy) -> Told {
    let told = |state, text: String| Told { state, text, output: None };
    match &known.view {
        UnitView::Waiting { before: 0 } => {
            told("waiting", "nobody has had it yet; it is the next of its job".to_owned())
        }
        UnitView::Waiting { before } => {
            let before = count(*before, "work unit of its job comes", "work units of its job come");
            told("waiting", format!("nobody has had it yet; {before} before it"))
        }
        UnitView::WaitingForInputs { missing } => {
            let missing = count(*missing, "is", "are");
            told(
                "waiting_for_inputs",
                format!("it takes outputs of an earlier stage, of which {missing} not there yet"),
            )
        }
        UnitView::Open { .. } => told("open", open(&known.view, policy)),
        UnitView::Accepted { output, stored } => {
            let text = if *stored {
                "it is accepted, and its output is safe at the coordinator"
            } else if known.candidates.is_empty() {
                "it is accepted; its output is fetched from the nodes that computed it"
            } else {
                "it is accepted, but its output was lost with the nodes that had it, and one \
                 more node is to compute it again"
            };
            Told { state: "accepted", text: text.to_owned(), output: Some(*output) }
        }
        UnitView::Failed { errors } => told("failed", given_up(errors, known.failure.as_ref())),
        UnitView::Cancelled => {
            told("cancelled", "its job was cancelled before anybody had it".to_owned())
        }
        UnitView::Over => over(known, kept),
    }
}

/// What is left to say of a work unit that is over and forgotten.
fn over(known: &Known, kept: &Kept) -> Told {
    let told = |state, text: String| Told { state, text, output: None };
    if let Some(failure) = &known.failure {
        return told("failed", given_up(&failure.errors, Some(failure)));
    }
    if let Some(entry) = &kept.entry {
        let results = count(entry.results.len() as u64, "result is", "results are");
        let Entry { accepted_at, basis, output, .. } = entry;
        let safe = if known.forgets_failures {
            "its output is safe at the coordinator, if it is none of those that were lost later \
             and are not remembered"
        } else {
            "its output is safe at the coordinator"
        };
        let text = format!(
            "it was accepted at {accepted_at} ({basis}), and {safe}; {results} in its receipt"
        );
        return Told { state: "accepted", text, output: Some(*output) };
    }
    match known.state {
        JobState::Cancelled { .. } => {
            told("cancelled", "it was cancelled with its job, or had been given up".to_owned())
        }
        JobState::Running | JobState::Completed { .. } => {
            let text = "it was given up; why is not remembered, as later ones were given up too";
            told("failed", text.to_owned())
        }
    }
}

fn given_up(errors: &[UnitError], failure: Option<&UnitFailure>) -> String {
    let rules: Vec<&str> = errors
        .iter()
        .map(|error| match error {
            UnitError::TooManyErrorResults => {
                "more replicas ended in an error than max_error_results allows"
            }
            UnitError::TooManySuccessResults => {
                "more results than max_success_results came, and not enough of them agree"
            }
            UnitError::TooManyTotalResults => {
                "max_total_results replicas are used up, and nobody is left who could report"
            }
            UnitError::InputFailed => "a work unit whose output it takes was given up",
            UnitError::OutputLost => {
                "its output was lost after it was accepted, and what others computed again is not \
                 the same"
            }
        })
        .collect();
    let told = failure.map(|failure| format!(" [{}]", failure_reason(failure)));
    format!("it was given up: {}{}", rules.join("; "), told.unwrap_or_default())
}

/// Where an undecided work unit stands; nothing of any other.
fn open(view: &UnitView, policy: &Policy) -> String {
    let UnitView::Open {
        target,
        in_progress,
        next_deadline,
        successes,
        is_inconclusive,
        errors,
        silent,
        lacking,
    } = view
    else {
        return String::new();
    };
    let aim = count((*target).into(), "result", "results");
    let mut parts = vec![format!("it aims at {aim}; {}", count((*successes).into(), "is", "are"))];
    parts[0] += " there";
    if *is_inconclusive {
        parts.push("those do not agree yet".to_owned());
    }
    if *in_progress > 0 {
        let mut part = count((*in_progress).into(), "node works on it", "nodes work on it");
        if let Some(deadline) = next_deadline {
            part += &format!(", the first lease runs out at {deadline}");
        }
        parts.push(part);
    }
    if *errors > 0 {
        parts.push(count(
            (*errors).into(),
            "replica ended in an error",
            "replicas ended in errors",
        ));
    }
    if *silent > 0 {
        let ended = ["replica ended without a report", "replicas ended without a report"];
        parts.push(count((*silent).into(), ended[0], ended[1]));
    }
    if *lacking > 0 {
        parts.push(format!("it waits for {}", count((*lacking).into(), "more node", "more nodes")));
    } else if *in_progress == 0 && !*is_inconclusive {
        parts.push(pending(policy).to_owned());
    }
    parts.join("; ")
}

/// What a work unit waits for whose results are there.
const fn pending(policy: &Policy) -> &'static str {
    match policy {
        Policy::Fixed | Policy::Adaptive(_) => "its outputs are being compared",
        Policy::Credibility(_) => {
            "it waits until the nodes that gave its result are believed enough"
        }
        Policy::Audited(_) => {
            "its result waits in a lot with others of its node, until a sample of them was \
             computed again"
        }
    }
}

fn replica_info(view: &ReplicaView) -> ReplicaInfo {
    let mut deadline = None;
    let (state, text) = match &view.fate {
        ReplicaFate::InProgress { deadline: at } => {
            deadline = Some(Timestamp::to_string(at));
            ("in_progress", format!("works on it, until {at}"))
        }
        ReplicaFate::Silent(silence) => (
            "silent",
            match silence {
                Silence::CouldntSend => "never got the lease",
                Silence::NoReply => "did not report in time",
                Silence::DidntNeed => "was told to stop, because it was decided without it",
                Silence::ClientDetached => "left the project",
            }
            .to_owned(),
        ),
        ReplicaFate::Success(validate) => (
            "success",
            match validate {
                ValidateState::Init => "gave a result that is not compared yet",
                ValidateState::Valid => "gave the accepted output",
                ValidateState::Invalid => "gave another output than the accepted one",
                ValidateState::NoCheck => "gave a result before the work unit was given up",
                ValidateState::Inconclusive => "gave a result; not enough agree yet",
                ValidateState::TooLate => "gave a result after the work unit was given up",
            }
            .to_owned(),
        ),
        ReplicaFate::ClientError { exit } => ("error", format!("its program failed: {exit}")),
        ReplicaFate::ValidateError => {
            ("validate_error", "said that it succeeded, but left no output".to_owned())
        }
    };
    ReplicaInfo {
        replica: view.replica.0,
        node: view.node.to_string(),
        executor: view.executor.to_string(),
        state: state.to_owned(),
        text,
        deadline,
    }
}

fn candidate_info(candidate: &Candidate, needs: &[ExecutorKind]) -> CandidateInfo {
    let reasons = candidate.reasons.iter().map(|why| {
        let reason = explain::reason(why.clone(), needs);
        ReasonInfo::from(&reason)
    });
    CandidateInfo {
        node: candidate.node.to_string(),
        last_seen: candidate.last_seen.to_string(),
        reasons: reasons.collect(),
    }
}

/// Counts nodes by what keeps them from a work unit, the most common first.
fn summary<'a>(reasons: impl Iterator<Item = &'a str>) -> Vec<GroupInfo> {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for reason in reasons {
        match groups.iter_mut().find(|(name, _)| *name == reason) {
            Some((_, nodes)) => *nodes += 1,
            None => groups.push((reason, 1)),
        }
    }
    groups.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let groups = groups.into_iter().map(|(reason, nodes)| {
        let (one, many) = phrase(reason);
        let text = count(nodes as u64, &format!("node {one}"), &format!("nodes {many}"));
        GroupInfo { reason: reason.to_owned(), nodes, text }
    });
    groups.collect()
}

/// What is said of one node, and of many, that a reason holds for.
fn phrase(reason: &str) -> (&str, &str) {
    match reason {
        "free" => {
            ("could have it, and is busy or asks soon", "could have it, and are busy or ask soon")
        }
        "away" => ("could have it, but is silent", "could have it, but are silent"),
        "had_it" => ("already had it", "already had it"),
        "operator_had_it" => (
            "belongs to an operator who already had it",
            "belong to an operator who already had it",
        ),
        "no_executor" => ("lacks an executor for it", "lack an executor for it"),
        "too_large" => ("offers less than it takes", "offer less than it takes"),
        "barred" => ("is barred after a wrong result", "are barred after a wrong result"),
        "quota_used" => ("used up its quota of today", "used up their quota of today"),
        "leases_full" => ("holds as many leases as it may", "hold as many leases as they may"),
        "other_class" => (
            "is of another platform or executor than the first",
            "are of another platform or executor than the first",
        ),
        "near_another" => (
            "is in the address range of one that has it",
            "are in the address range of one that has it",
        ),
        "not_drawn" => ("was not drawn to check it", "were not drawn to check it"),
        other => (other, other),
    }
}

/// A number with its noun.
fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_unit(successes: u32, in_progress: u32, lacking: u32) -> UnitView {
        UnitView::Open {
            target: 3,
            in_progress,
            next_deadline: None,
            successes,
            is_inconclusive: false,
            errors: 0,
            silent: 1,
            lacking,
        }
    }

    #[test]
    fn an_open_unit_says_what_is_there_and_what_it_waits_for() {
        let words = open(&open_unit(2, 0, 1), &Policy::Fixed);
        assert_eq!(
            words,
            "it aims at 3 results; 2 are there; 1 replica ended without a report; it waits for 1 \
             more node"
        );
        let words = open(&open_unit(1, 2, 0), &Policy::Fixed);
        assert!(words.contains("1 is there; 2 nodes work on it"), "{words}");
        let words = open(&open_unit(3, 0, 0), &Policy::Fixed);
        assert!(words.ends_with("its outputs are being compared"), "{words}");
    }

    #[test]
    fn nodes_are_counted_by_their_first_reason() {
        let reasons = ["no_executor", "had_it", "had_it", "free", "no_executor", "had_it"];
        let groups = summary(reasons.into_iter());
        let texts: Vec<&str> = groups.iter().map(|group| &*group.text).collect();
        assert_eq!(
            texts,
            [
                "3 nodes already had it",
                "2 nodes lack an executor for it",
                "1 node could have it, and is busy or asks soon",
            ]
        );
    }

    #[test]
    fn every_reason_has_a_phrase() {
        use dockercomp_coordinator_core::{Hindrance, NoWork};
        use dockercomp_protocol::wire::work::Capacity;
        let capacity = Capacity::default();
        let hindrances = [
            Hindrance::HadIt,
            Hindrance::OperatorHadIt,
            Hindrance::NoExecutor,
            Hindrance::OtherClass,
            Hindrance::NearAnother,
            Hindrance::NotDrawn,
        ];
        let hindered = hindrances.map(|hindrance| NoWork::NoneForIt { index: 0, hindrance });
        let others = [
            NoWork::LeasesFull { max: 1 },
            NoWork::QuotaUsed { per_day: 1 },
            NoWork::NoExecutor,
            NoWork::TooLarge { need: capacity, offer: capacity },
            NoWork::Barred { confirmed_needed: 1 },
        ];
        for why in hindered.into_iter().chain(others) {
            let reason = explain::reason(why, &[]);
            assert_ne!(phrase(reason.name()).0, reason.name(), "{reason:?}");
        }
    }

    #[test]
    fn a_unit_that_is_over_is_told_from_what_is_kept() {
        let known = Known {
            view: UnitView::Over,
            state: JobState::Cancelled { at: Timestamp(1) },
            failure: None,
            forgets_failures: false,
            replicas: vec![],
            candidates: vec![],
        };
        let told = tell(&known, &Kept::default(), &Policy::Fixed);
        assert_eq!(told.state, "cancelled");
        let errors = vec![UnitError::TooManyErrorResults];
        let failure = UnitFailure { index: 0, at: Timestamp(1), errors, exits: vec![] };
        let known = Known { failure: Some(failure), ..known };
        let told = tell(&known, &Kept::default(), &Policy::Fixed);
        assert_eq!(told.state, "failed");
        assert!(told.text.contains("max_error_results"), "{}", told.text);
        let output = dockercomp_protocol::content::block_cid(b"output");
        let basis = dockercomp_protocol::receipt::Basis::Quorum;
        let entry = receipts::entry(output, 0, vec![], output, Timestamp(9), basis, vec![]);
        let kept = Kept { entry: Some(entry), log_tail: None };
        // It was accepted, and its output was lost for good.
        assert_eq!(tell(&known, &kept, &Policy::Fixed).state, "failed");
        let known = Known { failure: None, ..known };
        let told = tell(&known, &kept, &Policy::Fixed);
        assert_eq!((told.state, told.output), ("accepted", Some(output)));
        let forgetful = Known { forgets_failures: true, ..known };
        let told = tell(&forgetful, &kept, &Policy::Fixed);
        assert!(told.text.contains("none of those that were lost"), "{}", told.text);
    }
}
