//! A job in memory: its terms, its books, and the work units in flight.
//!
//! Work units are expanded lazily: `next_unexpanded` counts those of the first stage that were
//! ever leased, those of the others come through the gate ([`crate::gate`]), and only the ones
//! about which something can still change are in `units`. A job of ten million work units is
//! taken on in constant time and costs memory for what is in flight.

use std::collections::{BTreeMap, VecDeque};

use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::job::Policy;
use dockercomp_protocol::layout::Layout;
use dockercomp_protocol::limits::UNIT_REPLICAS_MAX;
use dockercomp_protocol::{Cid, Timestamp};
use serde::{Deserialize, Serialize};

use crate::checks::Known;
use crate::dispatch::Lanes;
use crate::gate::{Gate, Progress};
use crate::record::{Seed, Terms, UnitError};
use crate::replica::Tally;
use crate::unit::Unit;

/// A job, by its place in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct JobNumber(pub(crate) u64);

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JobState {
    /// Work units are waiting or in flight, or outputs are on their way.
    Running,
    /// Every work unit has failed, or was accepted and its output is safe.
    Completed {
        /// Since when.
        at: Timestamp,
    },
    /// The owner wanted no more of it.
    Cancelled {
        /// Since when.
        at: Timestamp,
    },
}

/// Why one work unit was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitFailure {
    /// The work unit's number.
    pub index: u64,
    /// When.
    pub at: Timestamp,
    /// Every reason that held.
    pub errors: Vec<UnitError>,
    /// How its replicas failed, in the order of their leases.
    pub exits: Vec<Exit>,
}

/// A job. What is left of an ended one is small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) id: Cid,
    pub(crate) added_at: Timestamp,
    pub(crate) terms: Terms,
    pub(crate) state: JobState,
    /// What its chance is drawn from.
    pub(crate) seed: Seed,
    /// Which work units belong to which stage, and which take the outputs of which.
    pub(crate) layout: Layout,
    /// Work units in all stages.
    pub(crate) n_units: u64,
    /// Work units of the first stage from this number on were never leased.
    pub(crate) next_unexpanded: u64,
    /// Work units of later stages that wait for outputs.
    pub(crate) gate: Gate,
    /// How far each stage is.
    pub(crate) stages: Vec<Progress>,
    /// Work units that are begun and undecided, or were when the job was cancelled.
    pub(crate) n_open: u64,
    /// Work units in flight.
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) units: BTreeMap<u64, Unit>,
    /// Those of them that lack replicas.
    pub(crate) lanes: Lanes,
    /// Work units accepted.
    pub(crate) n_done: u64,
    /// Those of them whose output is safe.
    pub(crate) n_stored: u64,
    /// Work units given up.
    pub(crate) n_failed: u64,
    /// All replicas, those of forgotten work units included.
    pub(crate) tally: Tally,
    /// Units whose first three results all differed.
    pub(crate) n_scattered: u64,
    /// What it has cost so far, in millionths of a Cobblestone.
    pub(crate) credit: u64,
    /// The latest accepted results, for spot-checks; at most `KNOWN_MAX`.
    pub(crate) known: VecDeque<Known>,
    /// The latest failures, at most `Config::failures_per_job_max`.
    pub(crate) failures: VecDeque<UnitFailure>,
}

impl Job {
    /// A job whose first stage has `n_first` work units.
    pub(crate) fn new(
        id: Cid,
        added_at: Timestamp,
        terms: Terms,
        n_first: u64,
        seed: Seed,
    ) -> Self {
        let layout = Layout::new(n_first, &terms.stages);
        Self {
            id,
            added_at,
            terms,
            state: JobState::Running,
            seed,
            n_units: layout.units(),
            next_unexpanded: 0,
            gate: Gate::default(),
            stages: vec![Progress::default(); layout.stages()],
            n_open: 0,
            layout,
            units: BTreeMap::new(),
            lanes: Lanes::default(),
            n_done: 0,
            n_stored: 0,
            n_failed: 0,
            tally: Tally::default(),
            n_scattered: 0,
            credit: 0,
            known: VecDeque::new(),
            failures: VecDeque::new(),
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.state, JobState::Running)
    }

    /// Whether some node could get a lease on it.
    pub(crate) fn has_work(&self) -> bool {
        self.is_running() && (self.has_new() || !self.lanes.is_empty())
    }

    /// Whether its first stage has work units that nobody has had.
    pub(crate) fn has_new(&self) -> bool {
        self.next_unexpanded < self.layout.first_units()
    }

    /// Results that a new work unit aims at.
    pub(crate) const fn target_at_first(&self) -> u32 {
        match self.terms.validation.policy {
            Policy::Fixed | Policy::Adaptive(_) => self.terms.validation.target_nresults,
            Policy::Credibility(_) | Policy::Audited(_) => 1,
        }
    }

    /// The executor that a node with these is expected to use.
    pub(crate) fn executor_of(&self, executors: &[ExecutorKind]) -> Option<ExecutorKind> {
        self.terms.executors.iter().find(|kind| executors.contains(kind)).copied()
    }

    /// Whether every work unit has come to its end.
    pub(crate) const fn is_finished(&self) -> bool {
        self.n_stored + self.n_failed == self.n_units
    }

    /// Replicas of a unit that wait for a node.
    pub(crate) fn wanted(&self, unit: &Unit) -> u32 {
        match unit.target() {
            None if self.is_running() && unit.is_lost() => {
                // One that agrees is enough: what is right is known.
                u32::from(!unit.is_leased() && unit.replicas.len() < UNIT_REPLICAS_MAX as usize)
            }
            Some(target) if self.is_running() => {
                unit.census().wanted(target, &self.terms.validation)
            }
            Some(_) | None => 0,
        }
    }

    /// Whether a unit is given up though it was accepted: its output is lost, nobody is at work
    /// on it, and too many have tried since and got something else, or nothing. The limits are
    /// those of a unit without agreement.
    ///
    /// What compares equal is something else here: later stages and receipts name the bytes.
    pub(crate) fn is_irrecoverable(&self, unit: &Unit) -> bool {
        if !self.is_running() || !unit.is_lost() || unit.is_leased() {
            return false;
        }
        let rules = &self.terms.validation;
        let tries = unit.replicas.iter().filter(|replica| !replica.is_gone);
        let n_other = tries.clone().filter(|replica| replica.state.output().is_some()).count();
        let n_failed = tries.filter(|replica| replica.state.is_error()).count();
        n_other > rules.max_success_results as usize
            || n_failed > rules.max_error_results as usize
            || unit.replicas.len() >= UNIT_REPLICAS_MAX as usize
    }
}
