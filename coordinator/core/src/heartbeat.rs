//! What a node may drop: work that is not needed any more, and outputs that are safe.
//!
//! A heartbeat names replicas, and the answer names those of them that may go. What the
//! core does not know, or knows as somebody else's, may go too: it belongs to a work unit
//! that is over, or to a job that was cancelled.
//!
//! A lease on a decided unit ends here, as `DidntNeed`, and not with the decision: until its
//! holder is told, it may still report, and a report is still compared.

use std::collections::BTreeSet;

use dockercomp_protocol::limits::HEARTBEAT_REPLICAS_MAX;
use dockercomp_protocol::{NodeId, ReplicaId, Timestamp};

use crate::action::Action;
use crate::job::JobNumber;
use crate::record::{Record, Silence};
use crate::replica::{Replica, ReplicaState};
use crate::unit::{Stage, Unit};
use crate::{Core, state::State};

/// Times that the deadline of a lease is put off at most.
const EXTENSIONS_MAX: u8 = 3;

impl Core {
    /// Puts off the deadlines of replicas whose holders have saved their progress: by half of
    /// the job's delay bound, a few times, and only when the deadline is near.
    pub(crate) fn extend_all(&mut self, now: Timestamp, node: NodeId, saved: &[ReplicaId]) {
        for &replica in saved {
            let Some((job, deadline, extensions)) = self.lease_of(replica, node) else { continue };
            let bound = self.state.job(job).terms.validation.delay_bound();
            if extensions < EXTENSIONS_MAX && deadline.since(now) < bound / 4 {
                let deadline = deadline + bound / 2;
                self.persist(Record::Extended { at: now, replica, deadline });
            }
        }
    }

    /// The job, the deadline and the extensions of a lease that a node has. A spot-check must
    /// not be told apart from other work.
    fn lease_of(&self, replica: ReplicaId, node: NodeId) -> Option<(JobNumber, Timestamp, u8)> {
        if let Some(check) = self.state.checks.get(&replica) {
            return (check.node == node).then_some((check.job, check.deadline, check.extensions));
        }
        let (_, held) = self.state.held_by(replica, node)?;
        let ReplicaState::InProgress { deadline } = held.state else { return None };
        let key = self.state.replicas.get(&replica)?;
        Some((key.job, deadline, held.extensions))
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        now: Timestamp,
        node: NodeId,
        running: &[ReplicaId],
        kept: &[ReplicaId],
    ) {
        self.presence.seen(now, node);
        let state = &self.state;
        let may_go = |ids: &[ReplicaId], is_needed: fn(&Unit, &Replica) -> bool| {
            let may_go = |id: &&ReplicaId| {
                !state.held_by(**id, node).is_some_and(|(unit, replica)| is_needed(unit, replica))
            };
            ids.iter().filter(may_go).copied().collect::<Vec<_>>()
        };
        let abandon = may_go(running, is_run_needed);
        let forget = may_go(kept, is_output_needed);
        // A spot-check must not be told apart from other work.
        let abandon: Vec<ReplicaId> = abandon
            .into_iter()
            .filter(|id| self.state.checks.get(id).is_none_or(|check| check.node != node))
            .collect();
        let own: Vec<ReplicaId> = abandon
            .iter()
            .copied()
            .filter(|&replica| self.state.held_by(replica, node).is_some())
            .collect();
        self.end_all(now, &own, Silence::DidntNeed);
        self.end_lost(now, node, running, kept);
        self.actions.push_back(Action::HeartbeatAnswer { abandon, forget });
        self.ask_for_lost(node, kept);
    }

    /// Asks a node for outputs that it still keeps, though they were given up for lost: it was
    /// away. Others go on computing them, since this one may only say so.
    fn ask_for_lost(&mut self, node: NodeId, kept: &[ReplicaId]) {
        let state = &self.state;
        let fetch = |id: &ReplicaId| {
            let (unit, replica) = state.held_by(*id, node)?;
            let Stage::Accepted { output, .. } = unit.stage else { return None };
            let is_it = unit.is_lost() && replica.state.output() == Some(output);
            let key = state.replicas.get(id).filter(|_| is_it)?;
            let (job, index, holders) = (state.job(key.job).id, key.index, vec![node]);
            Some(Action::FetchOutput { job, index, output, holders })
        };
        let fetches: Vec<Action> = kept.iter().filter_map(fetch).collect();
        self.actions.extend(fetches);
    }
}

impl Core {
    /// Ends the leases of a node's earlier registrations that it does not name in the first
    /// heartbeat of this one: they were lost with what it had in memory, or on their way to it.
    /// Nobody is to wait for their deadlines.
    fn end_lost(
        &mut self,
        now: Timestamp,
        node: NodeId,
        running: &[ReplicaId],
        kept: &[ReplicaId],
    ) {
        let is_complete = running.len().max(kept.len()) < HEARTBEAT_REPLICAS_MAX;
        let visit = self.presence.visits.get_mut(&node).filter(|_| is_complete);
        let Some(first) = visit.and_then(|visit| visit.first_lease.take()) else { return };
        let named: BTreeSet<&ReplicaId> = running.iter().chain(kept).collect();
        let mut lost = self.state.leases_of(node);
        lost.retain(|id| *id < first && !named.contains(id));
        self.end_all(now, &lost, Silence::CouldntSend);
    }
}

/// Whether the result of a replica that runs still matters. One whose lease ran out still
/// does: while the unit is undecided its report would count.
fn is_run_needed(unit: &Unit, replica: &Replica) -> bool {
    match unit.stage {
        Stage::Open { .. } => !replica.state.is_reported(),
        Stage::Accepted { .. } => unit.is_lost() && !replica.state.is_reported(),
        Stage::Failed { .. } => false,
    }
}

/// Whether an output that a node keeps may still have to be fetched from it: by the
/// coordinator, or by nodes that work on it in a later stage.
fn is_output_needed(unit: &Unit, replica: &Replica) -> bool {
    let may_be_wanted = match &replica.state {
        // Its report is under way.
        ReplicaState::InProgress { .. } | ReplicaState::Silent(_) => true,
        ReplicaState::Success { output, .. } => match unit.stage {
            Stage::Accepted { output: canonical, .. } => *output == canonical,
            Stage::Open { .. } | Stage::Failed { .. } => true,
        },
        ReplicaState::ClientError { .. } | ReplicaState::ValidateError => false,
    };
    match unit.stage {
        Stage::Open { .. }
        | Stage::Accepted { stored: false, .. }
        | Stage::Accepted { needed: true, .. } => may_be_wanted,
        Stage::Accepted { .. } | Stage::Failed { .. } => false,
    }
}

impl State {
    /// The leases of a node, that which runs out first at the beginning.
    pub(crate) fn leases_of(&self, node: NodeId) -> Vec<ReplicaId> {
        let deadline = |id: ReplicaId| match self.checks.get(&id) {
            Some(check) => Some(check.deadline),
            None => self.held_by(id, node)?.1.state.deadline(),
        };
        let mut leases = self.leases.get(&node).cloned().unwrap_or_default();
        leases.sort_by_key(|id| (deadline(*id), *id));
        leases
    }

    /// A replica in memory and its unit, if this node holds it.
    pub(crate) fn held_by(&self, id: ReplicaId, node: NodeId) -> Option<(&Unit, &Replica)> {
        let unit = self.unit(*self.replicas.get(&id)?)?;
        let replica = unit.replica(id)?;
        (replica.node == node).then_some((unit, replica))
    }
}
