//! Spot-checks: work whose result is known, given out like any other.
//!
//! Under policy `credibility` a share of the leases are of units that are accepted already. To
//! the node they look like any lease; it gets no unit that it has had before. What it reports
//! is compared with what is known, and then forgotten.
//!
//! # Bounds
//!
//! [`KNOWN_MAX`] known results are kept for each job, the latest, so that a check is about as
//! old as work that is tried again. A check that is leased is in memory until it ends.

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::{Credibility, Policy};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::chance::{Purpose, draw, falls_into};
use crate::job::{Job, JobNumber};
use crate::record::{Finding, Silence};
use crate::replica::{ReplicaState, ValidateState};
use crate::standing::Ending;
use crate::state::{ApplyError, Effects, KNOWN, State};
use crate::unit::{Unit, UnitKey};

/// Known results that a job keeps.
pub(crate) const KNOWN_MAX: usize = 64;
/// Nodes that one known result can be given to; then it is known to too many.
const HAD_MAX: usize = 64;

/// A unit whose result is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    pub(crate) index: u64,
    pub(crate) output: Cid,
    /// Nodes that have had it.
    pub(crate) had: Vec<NodeId>,
}

/// A spot-check that is leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    pub(crate) job: JobNumber,
    pub(crate) index: u64,
    pub(crate) node: NodeId,
    pub(crate) executor: ExecutorKind,
    pub(crate) deadline: Timestamp,
    pub(crate) output: Cid,
    /// How often its deadline was put off.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(crate) extensions: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(extensions: &u8) -> bool {
    *extensions == 0
}

impl Job {
    /// The rules of policy `credibility`, if it is the job's.
    pub(crate) const fn credibility(&self) -> Option<&Credibility> {
        match &self.terms.validation.policy {
            Policy::Credibility(rules) => Some(rules),
            Policy::Fixed | Policy::Adaptive(_) | Policy::Audited(_) => None,
        }
    }

    /// Remembers a result that was accepted.
    pub(crate) fn remember(&mut self, index: u64) {
        let Some(unit) = self.units.get(&index) else { return };
        let crate::unit::Stage::Accepted { output, .. } = unit.stage else { return };
        let had = unit.replicas.iter().map(|replica| replica.node).collect();
        self.known.push_back(Known { index, output, had });
        if self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
    }
}

impl State {
    /// The unit that a node is to be checked with instead of getting the next lease, if chance
    /// says so and there is one that neither it nor another node of its operator has had, and
    /// that cannot be lost any more.
    pub(crate) fn due_check(&self, number: JobNumber, node: NodeId) -> Option<u64> {
        let job = self.job(number);
        let rules = job.credibility()?;
        let replica = self.next_replica;
        let drawn = draw(&job.seed, Purpose::SpotCheck, replica, &[]);
        if !falls_into(drawn, rules.spot_checks.0.into(), 1_000_000_000) {
            return None;
        }
        let operator = self.identities.operator(node);
        // What one node of an operator had, the others may know.
        let is_told = |other: &NodeId| {
            *other == node || (operator.is_some() && self.identities.operator(*other) == operator)
        };
        let fresh: Vec<u64> = job
            .known
            .iter()
            .filter(|known| known.had.len() < HAD_MAX && !known.had.iter().any(is_told))
            // What is lost goes out again, and nobody gets it twice.
            .filter(|known| job.units.get(&known.index).is_none_or(Unit::is_safe))
            .map(|known| known.index)
            .collect();
        let drawn = draw(&job.seed, Purpose::Known, replica, &[]);
        let place = usize::try_from(drawn % fresh.len().max(1) as u64).unwrap_or(0);
        fresh.get(place).copied()
    }

    pub(crate) fn lease_check(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        replica: ReplicaId,
        node: NodeId,
        executor: ExecutorKind,
        deadline: Timestamp,
    ) -> Result<Effects, ApplyError> {
        let job = self.jobs.get_mut(&key.job).expect(KNOWN);
        let wrong = ApplyError::WrongLease { replica, job: job.id, index: key.index };
        let known = job.known.iter_mut().find(|known| known.index == key.index);
        let Some(known) = known.filter(|known| !known.had.contains(&node)) else {
            return Err(wrong);
        };
        if replica.0 != self.next_replica {
            return Err(wrong);
        }
        known.had.push(node);
        let output = known.output;
        self.next_replica += 1;
        let state = ReplicaState::InProgress { deadline };
        job.tally.add(&state);
        self.nodes.entry(node).or_default().add(&state);
        self.trust.entry(node).or_default().quota.note_lease(at);
        let (job, index) = (key.job, key.index);
        let check = Check { job, index, node, executor, deadline, output, extensions: 0 };
        self.checks.insert(replica, check);
        self.index_lease(deadline, replica, node);
        Ok(Effects::default())
    }

    /// A check was reported: it ends here, whatever it says.
    pub(crate) fn report_check(
        &mut self,
        at: Timestamp,
        id: ReplicaId,
        finding: &Finding,
    ) -> Result<Effects, ApplyError> {
        let check = self.checks.get(&id).ok_or(ApplyError::WrongReplica { replica: id })?;
        let (state, ending) = match finding {
            Finding::Success { output, .. } if *output == check.output => {
                (success(*output, ValidateState::Valid), Ending::CheckPassed)
            }
            Finding::Success { output, .. } => {
                (success(*output, ValidateState::Invalid), Ending::CheckFailed)
            }
            Finding::ClientError { exit } => {
                (ReplicaState::ClientError { exit: exit.clone() }, Ending::Error)
            }
            Finding::ValidateError => (ReplicaState::ValidateError, Ending::Error),
        };
        self.end_check(at, id, &state, Some(ending));
        Ok(Effects::default())
    }

    /// A check ended without a report.
    pub(crate) fn drop_check(&mut self, at: Timestamp, id: ReplicaId, silence: Silence) -> Effects {
        let ending = match silence {
            Silence::NoReply => Some(Ending::Late),
            Silence::CouldntSend | Silence::DidntNeed | Silence::ClientDetached => None,
        };
        self.end_check(at, id, &ReplicaState::Silent(silence), ending);
        Effects::default()
    }

    /// The checks of a job that was cancelled are over with it.
    pub(crate) fn drop_checks_of(&mut self, at: Timestamp, job: JobNumber) {
        let of_job = self.checks.iter().filter(|(_, check)| check.job == job);
        let ids: Vec<ReplicaId> = of_job.map(|(&id, _)| id).collect();
        for id in ids {
            self.drop_check(at, id, Silence::DidntNeed);
        }
    }

    fn end_check(
        &mut self,
        at: Timestamp,
        id: ReplicaId,
        state: &ReplicaState,
        ending: Option<Ending>,
    ) {
        let Some(check) = self.checks.remove(&id) else { return };
        let in_progress = ReplicaState::InProgress { deadline: check.deadline };
        self.unindex_lease(check.deadline, id, check.node);
        let books = self.nodes.get_mut(&check.node).expect("a lease opened the node's books");
        for tally in [&mut self.jobs.get_mut(&check.job).expect(KNOWN).tally, books] {
            tally.remove(&in_progress);
            tally.add(state);
        }
        if let Some(ending) = ending {
            self.note_standing(at, check.node, check.executor, ending);
        }
    }
}

const fn success(output: Cid, validate: ValidateState) -> ReplicaState {
    ReplicaState::Success { output, validate }
}
