//! What must hold after every event, whatever came in.
//!
//! Compiled into debug builds. Everything is recomputed from the units in memory, so an
//! index or a counter that drifted is found at the event that did it. Cost grows with what
//! is in flight: a large state is checked after every 1024th event only.

use std::collections::BTreeSet;

use dockercomp_protocol::ReplicaId;
use dockercomp_protocol::job::Policy;
use dockercomp_protocol::limits::UNIT_REPLICAS_MAX;

use crate::Core;
use crate::dispatch::Lane;
use crate::job::Job;
use crate::replica::{Replica, ReplicaState, Tally, ValidateState};
use crate::state::State;
use crate::trust::Dirty;
use crate::unit::{Stage, Unit, UnitKey};

/// Replicas in memory up to which every event is checked.
const CHECK_ALWAYS_REPLICAS: usize = 256;
/// With more, one event of this many is.
const CHECK_EVERY_EVENTS: u64 = 1024;

impl Core {
    /// Panics if the state contradicts itself.
    pub(crate) fn assert_invariants(&mut self) {
        self.n_events += 1;
        let is_small = self.state.replicas.len() <= CHECK_ALWAYS_REPLICAS;
        if cfg!(debug_assertions) && (is_small || self.n_events.is_multiple_of(CHECK_EVERY_EVENTS))
        {
            self.state.assert_invariants();
        }
    }
}

impl State {
    pub(crate) fn assert_invariants(&self) {
        let mut open = Tally::default();
        let (mut n_replicas, mut n_leases) = (0, 0);
        for (&number, job) in &self.jobs {
            assert_job(job);
            assert!(number < self.next_job, "job {}", job.id);
            assert_eq!(self.with_work.contains(&number), job.has_work(), "job {}", job.id);
            assert_eq!(self.numbers.get(&job.id), Some(&number), "job {}", job.id);
            for unit in job.units.values() {
                n_replicas += unit.replicas.len();
                for replica in &unit.replicas {
                    open.add(&replica.state);
                    assert!(self.replicas.contains_key(&replica.id), "replica {}", replica.id);
                    assert!(replica.id.0 < self.next_replica, "replica {}", replica.id);
                    if let ReplicaState::InProgress { deadline } = replica.state {
                        n_leases += 1;
                        let is_timed = self.deadlines.contains(&(deadline, replica.id));
                        assert!(is_timed, "replica {} is leased without a deadline", replica.id);
                    }
                }
            }
        }
        assert_eq!(n_replicas, self.replicas.len(), "the index of replicas");
        for check in self.checks.values() {
            n_leases += 1;
            open.add(&ReplicaState::InProgress { deadline: check.deadline });
        }
        assert_eq!(n_leases, self.deadlines.len(), "the index of deadlines");
        assert_eq!(n_leases, self.leases.values().map(Vec::len).sum::<usize>(), "leases of nodes");
        for (&node, leases) in &self.leases {
            let is_leased = |&id: &ReplicaId| match self.checks.get(&id) {
                Some(check) => check.node == node,
                None => self.held_by(id, node).is_some_and(|(_, it)| it.state.is_in_progress()),
            };
            assert!(leases.iter().all(is_leased), "a lease of {node} is none");
            assert!(leases.is_sorted() && !leases.is_empty(), "the leases of {node}");
        }
        self.assert_books(&open);
        let earned: u64 = self.trust.values().map(|trust| trust.credit).sum();
        assert_eq!(earned, self.jobs.values().map(|job| job.credit).sum::<u64>(), "credit");
        self.assert_lots();
        assert_eq!(self.dirty, Dirty::default(), "something was not looked at again");
        assert!(self.disagreements.len() <= self.config.disagreements_max);
    }

    /// Every held result is in the one lot that it belongs to, and nothing else is in any.
    fn assert_lots(&self) {
        let mut n_held = 0;
        for (key, lot) in &self.lots.lots {
            assert!(!lot.held.is_empty(), "an empty lot");
            let rules = self.job(key.job).audited().expect("lots are of jobs that audit");
            assert!(lot.held.len() <= rules.lot_max as usize, "a lot of {}", lot.held.len());
            for (&index, &held) in &lot.held {
                let unit = UnitKey { job: key.job, index };
                let filed = self.unit(unit).expect("a held unit is in memory");
                assert_eq!(filed.filed.as_deref(), Some(key), "unit {index}");
                assert_eq!(self.filing(unit, filed), Some((key.node, held)), "unit {index}");
                n_held += 1;
            }
        }
        assert_eq!(n_held, self.lots.n_held, "held results");
        let mut in_hand = 0;
        for (&number, job) in self.jobs.iter().filter(|(_, job)| job.audited().is_some()) {
            for (&index, unit) in &job.units {
                let key = UnitKey { job: number, index };
                assert_eq!(unit.filed.is_some(), self.filing(key, unit).is_some(), "unit {index}");
                let leased = unit.replicas.iter().filter(|replica| replica.state.is_in_progress());
                in_hand += leased.count();
            }
        }
        let counted: u32 = self.lots.accounts.values().map(|account| account.in_hand).sum();
        assert_eq!(counted as usize, in_hand, "leases of accounts");
    }

    /// Every replica is counted once for its job and once for its node, and those that can
    /// still change are in memory.
    fn assert_books(&self, open: &Tally) {
        let sum = |total: fn(&Tally) -> u64| {
            let jobs: u64 = self.jobs.values().map(|job| total(&job.tally)).sum();
            let nodes: u64 = self.nodes.values().map(total).sum();
            assert_eq!(jobs, nodes, "the books of jobs and nodes differ");
            jobs
        };
        assert_eq!(sum(Tally::total), self.next_replica, "replicas counted");
        assert_eq!(sum(|tally| tally.in_progress), open.in_progress, "leases counted");
        assert_eq!(sum(Tally::pending), open.pending(), "undecided successes counted");
        for total in [
            |tally: &Tally| tally.valid,
            |tally: &Tally| tally.invalid,
            |tally: &Tally| tally.client_error,
            |tally: &Tally| tally.no_reply,
        ] {
            assert!(sum(total) >= total(open), "fewer counted than in memory");
        }
    }
}

fn assert_job(job: &Job) {
    let id = job.id;
    let open = job.units.values().filter(|unit| unit.target().is_some()).count() as u64;
    assert!(job.next_unexpanded <= job.layout.first_units(), "job {id}");
    assert!(job.n_stored <= job.n_done, "job {id}");
    if job.is_running() {
        assert_eq!(job.n_open, open, "undecided units of job {id}");
        assert!(job.n_open + job.n_done + job.n_failed <= job.n_units, "units of job {id}");
        assert!(!job.is_finished(), "job {id} is finished but running");
    } else {
        assert_eq!(open, 0, "job {id} is over but has undecided units");
    }
    let queued = Lane::ALL.iter().map(|&lane| job.lanes.lane(lane).len()).sum::<usize>();
    let placed = job.units.values().filter(|unit| unit.place.is_some()).count();
    assert_eq!(queued, placed, "lanes of job {id}");
    for (&index, unit) in &job.units {
        assert_unit(job, index, unit);
    }
    assert_gate(job);
}

fn assert_unit(job: &Job, index: u64, unit: &Unit) {
    let id = job.id;
    let rules = &job.terms.validation;
    let nodes: BTreeSet<_> = unit.replicas.iter().map(|replica| replica.node).collect();
    assert_eq!(nodes.len(), unit.replicas.len(), "a node is twice in unit {index} of {id}");
    let operators = unit.replicas.iter().filter_map(|replica| replica.operator);
    let (n_named, distinct) = (operators.clone().count(), operators.collect::<BTreeSet<_>>());
    assert_eq!(distinct.len(), n_named, "an operator is twice in unit {index} of {id}");
    // What was lost is computed again, whatever it had cost before.
    let n_lost = unit.replicas.iter().filter(|replica| replica.is_gone).count();
    let within = unit.replicas.len() <= rules.max_total_results as usize;
    assert!(within || n_lost > 0, "unit {index} of {id}");
    assert!(unit.replicas.len() <= UNIT_REPLICAS_MAX as usize, "unit {index} of {id}");
    assert!(!unit.is_over(), "unit {index} of {id} is over but in memory");
    assert_eq!(unit.place.is_some(), job.wanted(unit) > 0, "unit {index} of {id}");
    if let Some(place) = unit.place {
        let queued = job.lanes.lane(place.lane).get(&place.ticket);
        assert_eq!(queued, Some(&index), "unit {index} of {id} is not at its place");
    }
    match &unit.stage {
        Stage::Open { target: _, sealed } => {
            assert_eq!(sealed.len(), unit.census().outputs.len(), "unit {index} of {id}");
        }
        Stage::Accepted { output, .. } => {
            let same = |replica: &&Replica| {
                replica.state.output().is_some_and(|said| unit.class_of(said) == *output)
            };
            let agreeing = unit.replicas.iter().filter(same).count();
            let needed = match rules.policy {
                Policy::Fixed => rules.agreement(),
                Policy::Adaptive(_) if unit.trusted.is_none() => rules.agreement(),
                Policy::Adaptive(_) | Policy::Credibility(_) | Policy::Audited(_) => 1,
            };
            assert!(agreeing >= needed as usize, "unit {index} of {id}");
            for replica in &unit.replicas {
                if let ReplicaState::Success { output: said, validate } = replica.state {
                    let agrees = match validate {
                        ValidateState::Valid => true,
                        // Only where it could have been copied.
                        ValidateState::TooLate => job.layout.consumer(index).is_some(),
                        ValidateState::Init
                        | ValidateState::Invalid
                        | ValidateState::NoCheck
                        | ValidateState::Inconclusive => false,
                    };
                    let is_same = unit.class_of(said) == *output;
                    assert!(agrees == is_same || job.compares(), "replica {}", replica.id);
                }
            }
        }
        Stage::Failed { errors } => assert!(!errors.is_empty(), "unit {index} of {id}"),
    }
}

/// Later units are in memory only when all their inputs are there and safe, and every output
/// that a later unit may need is in memory.
fn assert_gate(job: &Job) {
    let id = job.id;
    for (&index, unit) in &job.units {
        let is_open = unit.target().is_some();
        for input in job.layout.inputs(index) {
            let is_safe = job.units.get(&input).is_some_and(Unit::is_safe);
            assert!(is_safe || !is_open, "unit {index} of {id} lacks the output of {input}");
        }
        if let Stage::Accepted { needed: true, .. } = unit.stage {
            assert!(job.layout.consumer(index).is_some(), "unit {index} of {id}");
        }
    }
    job.gate.assert_invariants(job);
    let sum = |count: fn(&crate::gate::Progress) -> u64| job.stages.iter().map(count).sum::<u64>();
    let sums = (sum(|stage| stage.done), sum(|stage| stage.stored), sum(|stage| stage.failed));
    assert_eq!(sums, (job.n_done, job.n_stored, job.n_failed), "stages of job {id}");
}
