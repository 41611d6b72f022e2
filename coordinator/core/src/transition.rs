//! What happens when a replica ends: time runs out, a node leaves, a result comes in.
//!
//! However it ended, the unit is looked at once ([`Core::transition`]), and what
//! [`crate::validate`] decides becomes a record. This is BOINC's transitioner, except that it
//! runs at the event instead of polling.

use dockercomp_protocol::{NodeId, ReplicaId, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::record::{Record, Silence};
use crate::replica::ValidateState;
use crate::state::State;
use crate::unit::{Stage, UnitKey};
use crate::validate::{self, Decision};

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
    }

    pub(crate) fn on_node_detached(&mut self, now: Timestamp, node: NodeId) {
        self.presence.leave(node);
        if self.state.nodes.get(&node).is_none_or(|tally| tally.in_progress == 0) {
            return;
        }
        // Rare enough to look through all leases instead of keeping an index of them.
        let is_held = |id: &ReplicaId| {
            let unit = self.state.replicas.get(id).and_then(|&key| self.state.unit(key));
            unit.and_then(|unit| unit.replica(*id)).is_some_and(|replica| replica.node == node)
        };
        let leases: Vec<ReplicaId> =
            self.state.deadlines.iter().map(|&(_, id)| id).filter(is_held).collect();
        self.end_all(now, &leases, Silence::ClientDetached);
    }

    /// Ends leases without a report, and decides what that means for their units. Replicas
    /// that are over already are passed over.
    pub(crate) fn end_all(&mut self, now: Timestamp, replicas: &[ReplicaId], silence: Silence) {
        for &replica in replicas {
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
        let Some(decision) = self.state.decide(key) else { return };
        let (job, index) = (self.state.job(key.job).id, key.index);
        match decision {
            Decision::Wait => {}
            Decision::Inconclusive { target } => {
                self.persist(Record::Inconclusive { at: now, job, index, target });
            }
            Decision::Fail { errors } => {
                self.persist(Record::Failed { at: now, job, index, errors });
            }
            Decision::Accept { output } => {
                let results = self.state.sealed(key);
                self.persist(Record::Accepted { at: now, job, index, output });
                self.actions.push_back(Action::Accept { job, index, output, at: now, results });
                self.actions.extend(self.state.owed_fetch(key));
            }
        }
    }
}

impl State {
    /// What to do with a unit, or nothing if it is decided, forgotten, or was judged before.
    fn decide(&self, key: UnitKey) -> Option<Decision> {
        let job = self.job(key.job);
        let unit = self.unit(key)?;
        let target = unit.target()?;
        let decision = validate::decide(&unit.census(), target, &job.terms.validation);
        let is_old_news =
            decision == Decision::Inconclusive { target } && !unit.has_success(ValidateState::Init);
        (!is_old_news).then_some(decision)
    }

    /// The signed successes of an undecided unit, in the order of their leases.
    fn sealed(&self, key: UnitKey) -> Vec<Vec<u8>> {
        match self.unit(key).map(|unit| &unit.stage) {
            Some(Stage::Open { sealed, .. }) => sealed.values().cloned().collect(),
            Some(Stage::Accepted { .. } | Stage::Failed { .. }) | None => Vec::new(),
        }
    }

    /// The fetch that a unit still owes: its output is canonical, but not yet safe.
    pub(crate) fn owed_fetch(&self, key: UnitKey) -> Option<Action> {
        let job = self.job(key.job);
        let unit = job.units.get(&key.index)?;
        match unit.stage {
            Stage::Accepted { output, stored: false } => {
                let holders = unit.holders();
                Some(Action::FetchOutput { job: job.id, index: key.index, output, holders })
            }
            Stage::Accepted { .. } | Stage::Open { .. } | Stage::Failed { .. } => None,
        }
    }
}
