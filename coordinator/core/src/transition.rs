//! What happens when a replica ends: time runs out, a node leaves, a result comes in.
//!
//! However it ended, the unit is looked at once ([`Core::transition`]), and what
//! [`crate::validate`] decides becomes a record. This is BOINC's transitioner, except that it
//! runs at the event instead of polling.

use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::{NodeId, ReplicaId, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::job::Job;
use crate::lots::LotKey;
use crate::node::Visit;
use crate::record::{Record, Silence, UnitError};
use crate::replica::ValidateState;
use crate::state::State;
use crate::unit::{Stage, Unit, UnitKey};
use crate::validate::Decision;

impl Core {
    pub(crate) fn on_deadline_reached(&mut self, now: Timestamp) {
        if now < self.grace_until {
            return;
        }
        let expired: Vec<ReplicaId> = self
            .state
            .deadlines
            .iter()
            .take_while(|&&(at, _)| at <= now)
            .take(self.state.config.expiries_per_step_max)
            .map(|&(_, id)| id)
            .collect();
        self.end_all(now, &expired, Silence::NoReply);
        let due = self.state.lots.deadlines.iter().take_while(|&&(at, _)| at <= now);
        let due: Vec<LotKey> = due.map(|&(_, lot)| lot).collect();
        self.state.dirty.lots.extend(due);
    }

    pub(crate) fn on_node_detached(&mut self, now: Timestamp, node: NodeId) {
        self.presence.leave(node);
        let leases = self.state.leases_of(node);
        self.end_all(now, &leases, Silence::ClientDetached);
    }

    /// Ends leases without a report, and decides what that means for their units. Replicas
    /// that are over already are passed over.
    pub(crate) fn end_all(&mut self, now: Timestamp, replicas: &[ReplicaId], silence: Silence) {
        for &replica in replicas {
            if self.state.checks.contains_key(&replica) {
                self.persist(Record::Ended { at: now, replica, silence });
                continue;
            }
            let Some(&key) = self.state.replicas.get(&replica) else { continue };
            let unit = self.state.unit(key).and_then(|unit| unit.replica(replica));
            if unit.is_some_and(|replica| replica.state.is_in_progress()) {
                self.persist(Record::Ended { at: now, replica, silence });
                self.transition(now, key);
            }
        }
    }

    /// Decides what is to be done with a unit after one of its replicas ended.
    pub(crate) fn transition(&mut self, now: Timestamp, key: UnitKey) {
        if self.forgo(now, key) || self.wants_comparison(key) {
            return;
        }
        let Some((decision, basis)) = self.decide(key) else { return };
        let (job, index) = (self.state.job(key.job).id, key.index);
        match decision {
            Decision::Wait => self.audit_early(now, key),
            Decision::Inconclusive { target } => {
                self.persist(Record::Inconclusive { at: now, job, index, target });
            }
            Decision::Fail { errors } => {
                self.persist(Record::Failed { at: now, job, index, errors });
            }
            Decision::Accept { output } => {
                self.accept(now, key, output, basis);
            }
        }
    }

    /// Gives up an accepted unit whose output nobody can bring back. Says whether it did.
    pub(crate) fn forgo(&mut self, now: Timestamp, key: UnitKey) -> bool {
        let job = self.state.job(key.job);
        let is_gone = self.state.unit(key).is_some_and(|unit| job.is_irrecoverable(unit));
        if is_gone {
            let (job, index, errors) = (job.id, key.index, vec![UnitError::OutputLost]);
            self.persist(Record::Failed { at: now, job, index, errors });
        }
        is_gone
    }

    /// What to do with a unit, or nothing if it is decided, forgotten, or was judged before.
    fn decide(&self, key: UnitKey) -> Option<(Decision, Basis)> {
        let job = self.state.job(key.job);
        let unit = self.state.unit(key).filter(|_| job.is_running())?;
        let target = unit.target()?;
        let (decision, basis) =
            self.state.judge(job, unit, target, || self.is_nobody_else(job, unit));
        let is_old_news =
            decision == Decision::Inconclusive { target } && !unit.has_success(ValidateState::Init);
        (!is_old_news).then_some((decision, basis))
    }

    /// Whether no node is there that could still give a result of a unit. Not after a restart,
    /// before the nodes have had time to come back.
    fn is_nobody_else(&self, job: &Job, unit: &Unit) -> bool {
        let could = |(node, visit): (&NodeId, &Visit)| {
            let executor = job.executor_of(&visit.profile.executors);
            executor.is_some_and(|executor| {
                let operator = visit.profile.operator.as_deref();
                let operator = operator.and_then(|name| self.state.identities.number(name));
                !unit.knows(*node, operator) && !self.state.standing_of(*node, executor).is_barred
            })
        };
        self.is_settled && !self.presence.visits.iter().any(could)
    }
}

impl State {
    /// The signed successes of an undecided unit, in the order of their leases.
    pub(crate) fn sealed(&self, key: UnitKey) -> Vec<Vec<u8>> {
        match self.unit(key).map(|unit| &unit.stage) {
            Some(Stage::Open { sealed, .. }) => sealed.values().cloned().collect(),
            Some(Stage::Accepted { .. } | Stage::Failed { .. }) | None => Vec::new(),
        }
    }

    /// Whether the output of a unit is canonical, but not yet safe.
    pub(crate) fn is_unsafe(&self, key: UnitKey) -> bool {
        let stage = self.unit(key).map(|unit| &unit.stage);
        self.job(key.job).is_running()
            && matches!(stage, Some(Stage::Accepted { stored: false, .. }))
    }

    /// The fetch that a unit still owes: its output is canonical, but not yet safe.
    pub(crate) fn owed_fetch(&self, key: UnitKey) -> Option<Action> {
        let job = self.job(key.job);
        let unit = job.units.get(&key.index)?;
        match unit.stage {
            Stage::Accepted { output, stored: false, .. } => {
                let holders = unit.holders();
                if holders.is_empty() {
                    // Lost; somebody will compute it again.
                    return None;
                }
                Some(Action::FetchOutput { job: job.id, index: key.index, output, holders })
            }
            Stage::Accepted { .. } | Stage::Open { .. } | Stage::Failed { .. } => None,
        }
    }
}
