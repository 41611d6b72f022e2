//! The books and the indices of the state: kept in step with every change.
//!
//! [`State::apply`] says what a record means for the unit it speaks of. What follows from it
//! everywhere else follows here, in one place each: tallies, deadlines and disagreements in
//! [`State::set_replica`]; lanes, forgetting and the end of jobs in [`State::settle`].

use std::collections::VecDeque;

use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};

use crate::dispatch::Lane;
use crate::job::{JobNumber, JobState};
use crate::node::Disagreement;
use crate::replica::{ReplicaState, ValidateState};
use crate::state::{Effects, KNOWN, State};
use crate::unit::{Stage, UnitKey};

impl State {
    /// Moves a replica to another state: the only place that does, so that the tallies, the
    /// deadlines and the list of disagreements cannot miss one.
    pub(crate) fn set_replica(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        id: ReplicaId,
        state: ReplicaState,
    ) {
        let Some(replica) = self.unit(key).and_then(|unit| unit.replica(id)) else { return };
        if let (ReplicaState::InProgress { deadline }, node) = (&replica.state, replica.node) {
            self.unindex_lease(*deadline, id, node);
        }
        let job = self.jobs.get_mut(&key.job).expect(KNOWN);
        let Some(unit) = job.units.get_mut(&key.index) else { return };
        let Some(replica) = unit.replicas.iter_mut().find(|replica| replica.id == id) else {
            return;
        };
        let books = self.nodes.get_mut(&replica.node).expect("a lease opened the node's books");
        for tally in [&mut job.tally, books] {
            tally.remove(&replica.state);
            tally.add(&state);
        }
        if let ReplicaState::Success { output: said, validate: ValidateState::Invalid } = state
            && let Stage::Accepted { output: canonical, .. } = unit.stage
        {
            let (job, index, node) = (job.id, key.index, replica.node);
            let caught = Disagreement { at, job, index, node, replica: id, said, canonical };
            push_bounded(&mut self.disagreements, caught, self.config.disagreements_max);
        }
        let was_in_progress = replica.state.is_in_progress();
        replica.state = state;
        let replica = replica.clone();
        if was_in_progress {
            self.note_lease_over(key, replica.node);
        }
        self.note_ending(at, key, &replica);
    }

    /// Enters a lease into the indices of leases.
    pub(crate) fn index_lease(&mut self, deadline: Timestamp, id: ReplicaId, node: NodeId) {
        self.deadlines.insert((deadline, id));
        let of_node = self.leases.entry(node).or_default();
        // Nearly always at the end: numbers are given out in order.
        let place = of_node.binary_search(&id).expect_err("a lease is entered once");
        of_node.insert(place, id);
    }

    /// Takes a lease out of them.
    pub(crate) fn unindex_lease(&mut self, deadline: Timestamp, id: ReplicaId, node: NodeId) {
        let had_deadline = self.deadlines.remove(&(deadline, id));
        assert!(had_deadline, "replica {id} was leased without a deadline");
        let of_node = self.leases.get_mut(&node).expect("a lease is in its node's list");
        let place = of_node.binary_search(&id).expect("a lease is in its node's list");
        of_node.remove(place);
        if of_node.is_empty() {
            self.leases.remove(&node);
        }
    }

    /// Gives every replica of a unit the state that `change` names, if it names one.
    pub(crate) fn each_replica(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        change: impl Fn(&ReplicaState) -> Option<ReplicaState>,
    ) {
        let Some(unit) = self.unit(key) else { return };
        let changed: Vec<_> = unit
            .replicas
            .iter()
            .filter_map(|replica| change(&replica.state).map(|state| (replica.id, state)))
            .collect();
        for (id, state) in changed {
            self.set_replica(at, key, id, state);
        }
    }

    /// Judges every success of a unit by its output.
    pub(crate) fn each_success(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        judge: impl Fn(Cid) -> ValidateState,
    ) {
        self.each_replica(at, key, |state| {
            let output = state.output()?;
            Some(ReplicaState::Success { output, validate: judge(output) })
        });
    }

    /// After a unit changed: queues it, forgets it, ends its job, whichever is due.
    pub(crate) fn settle(&mut self, at: Timestamp, key: UnitKey) -> Effects {
        let is_there_new_work = self.tidy(at, key);
        Effects { is_there_new_work, ended: self.complete_if_finished(at, key.job) }
    }

    /// Puts a unit into the lane it belongs to, or forgets it when it is over. Says whether
    /// it came to wait for nodes that nobody expects to be needed.
    pub(crate) fn tidy(&mut self, at: Timestamp, key: UnitKey) -> bool {
        self.refile(at, key);
        let job = self.jobs.get_mut(&key.job).expect(KNOWN);
        let Some(unit) = job.units.get(&key.index) else { return false };
        if unit.is_over() {
            self.forget(key);
            return false;
        }
        let at_first = job.target_at_first();
        let lane = if job.wanted(unit) == 0 {
            None
        } else if unit.is_retry(at_first) {
            Some(Lane::Retry)
        } else {
            Some(Lane::Fresh)
        };
        let held = unit.place;
        if held.map(|place| place.lane) == lane {
            self.note_work(key.job);
            return false;
        }
        if let Some(place) = held {
            job.lanes.remove(place);
        }
        let place = lane.map(|lane| job.lanes.push(lane, key.index, at));
        self.unit_mut(key).place = place;
        self.note_work(key.job);
        lane == Some(Lane::Retry)
    }

    pub(crate) fn forget(&mut self, key: UnitKey) {
        self.unfile(key);
        let job = self.jobs.get_mut(&key.job).expect(KNOWN);
        let Some(unit) = job.units.remove(&key.index) else { return };
        if let Some(place) = unit.place {
            job.lanes.remove(place);
        }
        for replica in &unit.replicas {
            self.replicas.remove(&replica.id);
        }
        self.note_work(key.job);
    }

    /// Keeps the list of jobs that have something to lease.
    pub(crate) fn note_work(&mut self, number: JobNumber) {
        if self.job(number).has_work() {
            self.with_work.insert(number);
        } else {
            self.with_work.remove(&number);
        }
    }

    pub(crate) fn complete_if_finished(
        &mut self,
        at: Timestamp,
        number: JobNumber,
    ) -> Option<JobNumber> {
        let job = self.job_mut(number);
        if !job.is_running() || !job.is_finished() {
            return None;
        }
        job.state = JobState::Completed { at };
        self.note_work(number);
        Some(number)
    }
}

/// Adds to a list that forgets its oldest items.
pub(crate) fn push_bounded<T>(list: &mut VecDeque<T>, item: T, items_max: usize) {
    list.push_back(item);
    while list.len() > items_max {
        list.pop_front();
    }
}
