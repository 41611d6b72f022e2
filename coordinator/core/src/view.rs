//! What people may see: plain values, made on demand.
//!
//! Of an undecided work unit they hold counts only. Its outputs are nobody's business: a lazy
//! node that could read them would have something to copy.

use std::collections::BTreeMap;

use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};

use crate::Core;
use crate::identity::Identity;
use crate::job::{Job, JobNumber, JobState, UnitFailure};
use crate::node::Disagreement;
use crate::quota::Quota;
use crate::record::{Silence, UnitError};
use crate::replica::{Replica, ReplicaState, Tally, ValidateState};
use crate::standing::Standing;
use crate::trust::Trust;
use crate::unit::{Stage, Unit};

/// A job, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub job: Cid,
    /// Where it stands.
    pub state: JobState,
    /// When it was taken on.
    pub added_at: Timestamp,
    /// Work units in all: `waiting + in_flight + done + failed`, and in a cancelled job those
    /// that were in flight then.
    pub units: u64,
    /// Work units that nobody has had yet.
    pub waiting: u64,
    /// Work units that are begun and undecided.
    pub in_flight: u64,
    /// Those of them that wait for a node.
    pub lacking: u64,
    /// Work units accepted.
    pub done: u64,
    /// Those of them whose output is safe at the coordinator.
    pub stored: u64,
    /// Work units given up.
    pub failed: u64,
    /// How far each stage is, the first one first.
    pub stages: Vec<StageView>,
    /// Its replicas.
    pub replicas: Tally,
    /// Whether its program seems to give another output each time.
    pub is_nondeterministic: bool,
    /// What it has cost, in millionths of a Cobblestone.
    pub credit: u64,
    /// The latest failures, with reasons.
    pub failures: Vec<UnitFailure>,
}

/// A stage of a job, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageView {
    /// Work units in all.
    pub units: u64,
    /// Work units accepted.
    pub done: u64,
    /// Those of them whose output is safe at the coordinator.
    pub stored: u64,
    /// Work units given up.
    pub failed: u64,
}

/// A node, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Who.
    pub node: NodeId,
    /// Its replicas.
    pub replicas: Tally,
    /// Its record with each executor that it has used, or could use if it is doubted from the
    /// first.
    pub standings: BTreeMap<ExecutorKind, Standing>,
    /// How much work it may have in a day: less and less for one that fails.
    pub quota: Quota,
    /// What its valid results were worth, in millionths of a Cobblestone.
    pub credit: u64,
    /// What ties it to others: as of its latest lease, or what it says now if it had none.
    pub identity: Option<Identity>,
    /// What it said of itself, unless it has not registered since the last restart.
    pub registered: Option<Registered>,
}

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Executors that are ready.
    pub executors: Vec<ExecutorKind>,
    /// Everything it offers.
    pub offer: Capacity,
    /// When it was last heard.
    pub last_seen: Timestamp,
}

/// Where a work unit stands, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitView {
    /// Nobody has had it yet.
    Waiting {
        /// Units of its job that nobody has had either and that come before it.
        before: u64,
    },
    /// It takes outputs of an earlier stage that are not all safe yet.
    WaitingForInputs {
        /// How many of them are not.
        missing: u64,
    },
    /// Begun and undecided.
    Open {
        /// Results it aims at.
        target: u32,
        /// Replicas that nodes work on.
        in_progress: u32,
        /// When the first of their leases runs out.
        next_deadline: Option<Timestamp>,
        /// Results that are there.
        successes: u32,
        /// Whether they were compared and do not agree.
        is_inconclusive: bool,
        /// Replicas that ended in an error.
        errors: u32,
        /// Replicas that ended without a report.
        silent: u32,
        /// Replicas that wait for a node that has not had this unit.
        lacking: u32,
    },
    /// A quorum agreed.
    Accepted {
        /// On this.
        output: Cid,
        /// Whether it is safe at the coordinator.
        stored: bool,
    },
    /// Given up.
    Failed {
        /// Every reason that held.
        errors: Vec<UnitError>,
    },
    /// Its job was cancelled before anybody had it.
    Cancelled,
    /// Over and forgotten: a receipt tells that it was accepted; without one it failed, or was
    /// cancelled.
    Over,
}

/// A replica of a work unit, without what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its id.
    pub replica: ReplicaId,
    /// Who has, or had, it.
    pub node: NodeId,
    /// By what it is run.
    pub executor: ExecutorKind,
    /// What became of it.
    pub fate: ReplicaFate,
}

/// What became of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaFate {
    /// Its node works on it.
    InProgress {
        /// Until then.
        deadline: Timestamp,
    },
    /// It ended without a report.
    Silent(Silence),
    /// It succeeded, and this is what the comparison says.
    Success(ValidateState),
    /// Its program failed.
    ClientError {
        /// Like this.
        exit: Exit,
    },
    /// It is said to have succeeded, but left nothing.
    ValidateError,
}

impl Core {
    /// All jobs, in the order of submission.
    pub fn jobs(&self) -> impl Iterator<Item = JobView> {
        self.state.jobs.values().map(view_job)
    }

    /// One job.
    #[must_use]
    pub fn job(&self, job: Cid) -> Option<JobView> {
        self.find(job).map(|number| view_job(self.state.job(number)))
    }

    /// Where a job stands: [`Self::job`], when nothing else matters.
    #[must_use]
    pub fn job_state(&self, job: Cid) -> Option<JobState> {
        self.find(job).map(|number| self.state.job(number).state)
    }

    /// One node; nothing if it never registered nor had a lease.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<NodeView> {
        let is_known =
            self.state.nodes.contains_key(&node) || self.presence.visits.contains_key(&node);
        is_known.then(|| self.view_node(node))
    }

    /// All nodes that registered or ever had a lease.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let strangers =
            self.presence.visits.keys().filter(|node| !self.state.nodes.contains_key(*node));
        let known = self.state.nodes.keys().chain(strangers);
        known.map(|&node| self.view_node(node)).collect()
    }

    /// Who was caught, and how: the latest last.
    pub fn disagreements(&self) -> impl Iterator<Item = &Disagreement> {
        self.state.disagreements.iter()
    }

    /// Nodes by what they have earned, the most first, and among equals by name.
    #[must_use]
    pub fn leaderboard(&self, most: usize) -> Vec<(NodeId, u64)> {
        let earned = self.state.trust.iter().filter(|(_, trust)| trust.credit > 0);
        let mut board: Vec<_> = earned.map(|(&node, trust)| (node, trust.credit)).collect();
        board.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        board.truncate(most);
        board
    }

    /// Operators by what their nodes have earned, the most first, and among equals by name,
    /// each with the number of those nodes. Nodes whose operator is not known are left out.
    #[must_use]
    pub fn operators(&self, most: usize) -> Vec<(String, u64, u64)> {
        let mut earned: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (&node, trust) in self.state.trust.iter().filter(|(_, trust)| trust.credit > 0) {
            let identity = self.state.identities.get(node);
            if let Some(operator) = identity.and_then(|identity| identity.operator.as_deref()) {
                let (nodes, credit) = earned.entry(operator).or_default();
                (*nodes, *credit) = (*nodes + 1, credit.saturating_add(trust.credit));
            }
        }
        let mut board: Vec<_> = earned
            .into_iter()
            .map(|(operator, (nodes, credit))| (operator.to_owned(), nodes, credit))
            .collect();
        board.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        board.truncate(most);
        board
    }

    /// Where a work unit stands; nothing if the job or the number is not known.
    #[must_use]
    pub fn explain_unit(&self, job: Cid, index: u64) -> Option<UnitView> {
        let job = self.state.job(self.find(job)?);
        if index >= job.n_units {
            return None;
        }
        Some(match job.units.get(&index) {
            Some(unit) => view_unit(job, unit),
            None => job.explain(index),
        })
    }

    /// The replicas of a work unit in the order of their leases, while it is in memory.
    #[must_use]
    pub fn replicas_of(&self, job: Cid, index: u64) -> Vec<ReplicaView> {
        let job = self.find(job).map(|number| self.state.job(number));
        let unit = job.and_then(|job| job.units.get(&index));
        unit.into_iter().flat_map(|unit| &unit.replicas).map(view_replica).collect()
    }

    fn find(&self, job: Cid) -> Option<JobNumber> {
        self.state.numbers.get(&job).copied()
    }

    fn view_node(&self, node: NodeId) -> NodeView {
        let replicas = self.state.nodes.get(&node).copied().unwrap_or_default();
        let visit = self.presence.visits.get(&node);
        let registered = visit.map(|visit| Registered {
            executors: visit.profile.executors.clone(),
            offer: visit.profile.offer,
            last_seen: visit.last_seen,
        });
        let trust = self.state.trust.get(&node).cloned().unwrap_or_default();
        let said = visit.map(|visit| Identity::from(&visit.profile));
        let identity = self.state.identities.get(node).cloned().or(said);
        let mut standings = trust.standings.clone();
        if trust.is_doubtful {
            // One that is to prove itself first stands somewhere before its first result.
            let executors = registered.iter().flat_map(|said: &Registered| &said.executors);
            for &executor in executors {
                standings.entry(executor).or_insert_with(|| trust.standing(executor));
            }
        }
        let Trust { quota, credit, .. } = trust;
        NodeView { node, replicas, standings, quota, credit, identity, registered }
    }
}

fn view_job(job: &Job) -> JobView {
    let stages = job.stages.iter().enumerate().map(|(stage, progress)| StageView {
        units: job.layout.units_of_stage(stage),
        done: progress.done,
        stored: progress.stored,
        failed: progress.failed,
    });
    JobView {
        job: job.id,
        state: job.state,
        added_at: job.added_at,
        units: job.n_units,
        waiting: job.n_units - job.n_open - job.n_done - job.n_failed,
        in_flight: if job.is_running() { job.n_open } else { 0 },
        lacking: job.lanes.len() as u64,
        done: job.n_done,
        stored: job.n_stored,
        failed: job.n_failed,
        stages: stages.collect(),
        replicas: job.tally,
        is_nondeterministic: job.is_nondeterministic(),
        credit: job.credit,
        failures: job.failures.iter().cloned().collect(),
    }
}

fn view_replica(replica: &Replica) -> ReplicaView {
    let fate = match &replica.state {
        ReplicaState::InProgress { deadline } => ReplicaFate::InProgress { deadline: *deadline },
        ReplicaState::Silent(silence) => ReplicaFate::Silent(*silence),
        ReplicaState::Success { validate, .. } => ReplicaFate::Success(*validate),
        ReplicaState::ClientError { exit } => ReplicaFate::ClientError { exit: exit.clone() },
        ReplicaState::ValidateError => ReplicaFate::ValidateError,
    };
    let Replica { id, node, executor, .. } = *replica;
    ReplicaView { replica: id, node, executor, fate }
}

fn view_unit(job: &Job, unit: &Unit) -> UnitView {
    let target = match &unit.stage {
        Stage::Accepted { output, stored, .. } => {
            return UnitView::Accepted { output: *output, stored: *stored };
        }
        Stage::Failed { errors } => return UnitView::Failed { errors: errors.clone() },
        Stage::Open { target, .. } => *target,
    };
    let census = unit.census();
    let deadlines = unit.replicas.iter().filter_map(|replica| match replica.state {
        ReplicaState::InProgress { deadline } => Some(deadline),
        ReplicaState::Silent(_)
        | ReplicaState::Success { .. }
        | ReplicaState::ClientError { .. }
        | ReplicaState::ValidateError => None,
    });
    let successes = census.successes();
    UnitView::Open {
        target,
        in_progress: census.in_progress,
        next_deadline: deadlines.min(),
        successes,
        is_inconclusive: unit.has_success(ValidateState::Inconclusive),
        errors: census.errors,
        silent: census.total - census.in_progress - successes - census.errors,
        lacking: job.wanted(unit),
    }
}
