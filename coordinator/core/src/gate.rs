//! The gate between stages: when a unit of a later stage has what it needs.
//!
//! ```text
//!                 the last input is safe              its output is safe
//! waiting ───────────────────────────────► in memory ─────────────────────► inputs released
//!    │            an input is given up         │ given up
//!    └───────────────────────────► InputFailed ┴────────────────► what depends on it fails too
//! ```
//!
//! Units come through one by one, each as soon as the outputs that it takes are accepted and
//! safe at the coordinator; it does not wait for the rest of the stage. From then on it is
//! leased and validated like any other. Its inputs stay in memory, and their holders keep them,
//! until its own output is safe.
//!
//! Which units take the outputs of which is the [`Layout`](dockercomp_protocol::layout)'s to
//! say. Here is counted how many each waiting unit still lacks, so that the state grows with
//! what is between two stages at the moment, not with the job.
//!
//! # When a unit is given up
//!
//! Whatever depends on it can never be computed, and is given up at once with
//! [`UnitError::InputFailed`]. When nothing of the job's result is left to come, the job ends:
//! what was begun or waits is given up as well, since nobody would use it.

use std::collections::BTreeMap;

use dockercomp_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::Input;
use crate::books::push_bounded;
use crate::job::{Job, JobNumber, UnitFailure};
use crate::record::UnitError;
use crate::state::State;
use crate::unit::{Stage, Unit, UnitKey};
use crate::view::UnitView;

/// How far a stage is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Work units accepted.
    pub(crate) done: u64,
    /// Those of them whose output is safe.
    pub(crate) stored: u64,
    /// Work units given up.
    pub(crate) failed: u64,
}

/// Units of later stages some of whose inputs, but not all, have come to their end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gate {
    #[serde(with = "crate::snapshot::pairs")]
    groups: BTreeMap<u64, Group>,
    /// Units of the last level that were given up.
    n_results_failed: u64,
}

/// The inputs of one waiting unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Inputs that are neither safe nor given up; at least 1.
    open: u64,
    /// Whether one was given up, and the unit with it.
    has_failed: bool,
}

/// What became of a group when one more of its inputs came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Others are missing, or it has failed before.
    None,
    /// It is complete.
    Complete,
    /// It can never be complete any more.
    Failed,
}

impl Gate {
    /// One input of a unit, which has `n_inputs` in all, came to its end.
    fn advance(&mut self, unit: u64, n_inputs: u64, is_failure: bool) -> Change {
        let fresh = Group { open: n_inputs, has_failed: false };
        let group = self.groups.entry(unit).or_insert(fresh);
        group.open -= 1;
        let change = match (group.has_failed, is_failure, group.open) {
            (false, true, _) => Change::Failed,
            (false, false, 0) => Change::Complete,
            (true, ..) | (false, false, _) => Change::None,
        };
        group.has_failed |= is_failure;
        if group.open == 0 {
            self.groups.remove(&unit);
        }
        change
    }

    fn has_failed(&self, unit: u64) -> bool {
        self.groups.get(&unit).is_some_and(|group| group.has_failed)
    }

    /// Panics if it contradicts its job.
    pub(crate) fn assert_invariants(&self, job: &Job) {
        for (&index, group) in &self.groups {
            let inputs = job.layout.inputs(index);
            let n_inputs = inputs.end - inputs.start;
            assert!((1..n_inputs).contains(&group.open), "group {index} of {}", job.id);
            assert!(!job.units.contains_key(&index), "unit {index} of {} waits", job.id);
            let safe = |input: &u64| job.units.get(input).is_some_and(Unit::is_safe);
            let n_safe = inputs.filter(safe).count() as u64;
            let is_right = group.has_failed || n_safe + group.open == n_inputs;
            assert!(is_right, "group {index} of {} is counted wrongly", job.id);
        }
    }
}

impl Unit {
    /// Whether its output is accepted and safe.
    pub(crate) const fn is_safe(&self) -> bool {
        matches!(self.stage, Stage::Accepted { stored: true, .. })
    }
}

impl Job {
    /// The books of the stage that a unit belongs to.
    pub(crate) fn progress(&mut self, index: u64) -> &mut Progress {
        &mut self.stages[self.layout.stage_of(index)]
    }

    /// The outputs that a unit of a later stage takes, and who has them.
    pub(crate) fn inputs(&self, index: u64) -> Vec<Input> {
        let inputs = self.layout.inputs(index).filter_map(|input| {
            let unit = self.units.get(&input)?;
            let Stage::Accepted { output, .. } = unit.stage else { return None };
            Some(Input { output, holders: unit.holders() })
        });
        inputs.collect()
    }

    /// Whether a later unit may come to need the output of an undecided one.
    pub(crate) fn is_needed(&self, index: u64) -> bool {
        self.layout.consumer(index).is_some_and(|consumer| !self.gate.has_failed(consumer))
    }

    /// Whether a unit's output was given to others than those who computed it: the unit that
    /// takes it has come through the gate, or is over already.
    pub(crate) fn is_shown(&self, index: u64) -> bool {
        let Some(consumer) = self.layout.consumer(index) else { return false };
        match self.units.get(&index).map(|unit| &unit.stage) {
            Some(Stage::Accepted { needed: true, .. }) => self.units.contains_key(&consumer),
            Some(Stage::Accepted { needed: false, .. }) => !self.gate.has_failed(consumer),
            Some(Stage::Open { .. } | Stage::Failed { .. }) | None => false,
        }
    }

    /// Where a unit stands that is not in memory.
    pub(crate) fn explain(&self, index: u64) -> UnitView {
        if let Some(group) = self.gate.groups.get(&index) {
            return if group.has_failed {
                UnitView::Failed { errors: vec![UnitError::InputFailed] }
            } else {
                UnitView::WaitingForInputs { missing: group.open }
            };
        }
        if self.is_begun(index) {
            return UnitView::Over;
        }
        if !self.is_running() {
            return UnitView::Cancelled;
        }
        match self.layout.inputs(index) {
            inputs if inputs.is_empty() => {
                UnitView::Waiting { before: index.saturating_sub(self.next_unexpanded) }
            }
            inputs => UnitView::WaitingForInputs { missing: inputs.end - inputs.start },
        }
    }

    /// Whether a unit that is not in memory and lacks no input was there once. A later unit is
    /// begun when its inputs are safe, and these are needed until it is over: so it was, if
    /// they were and are not.
    fn is_begun(&self, index: u64) -> bool {
        let mut unit = index;
        loop {
            let inputs = self.layout.inputs(unit);
            if inputs.is_empty() {
                return unit < self.next_unexpanded;
            }
            if self.gate.groups.contains_key(&inputs.start) {
                return false;
            }
            match self.units.get(&inputs.start).map(|unit| &unit.stage) {
                Some(Stage::Open { .. } | Stage::Accepted { needed: true, .. }) => return false,
                Some(Stage::Accepted { needed: false, .. } | Stage::Failed { .. }) => return true,
                None => unit = inputs.start,
            }
        }
    }
}

impl State {
    /// A unit's output is safe: whatever waited for nothing else may begin, and what the unit
    /// itself took is not needed any more. Says whether something may begin.
    pub(crate) fn pass_output(&mut self, at: Timestamp, key: UnitKey) -> bool {
        self.release_inputs(at, key);
        let job = self.job_mut(key.job);
        let Some(consumer) = job.layout.consumer(key.index) else { return false };
        let inputs = job.layout.inputs(consumer);
        if job.gate.advance(consumer, inputs.end - inputs.start, false) != Change::Complete {
            return false;
        }
        let target = job.target_at_first();
        job.units.insert(consumer, Unit::new(target));
        job.n_open += 1;
        self.tidy(at, UnitKey { job: key.job, index: consumer });
        true
    }

    /// A unit was given up: so is everything that depends on it.
    pub(crate) fn pass_failure(&mut self, at: Timestamp, key: UnitKey) {
        self.release_inputs(at, key);
        let mut index = key.index;
        self.count_failed_result(key.job, index);
        let failures_max = self.config.failures_per_job_max;
        while let Some(consumer) = self.job(key.job).layout.consumer(index) {
            let job = self.job_mut(key.job);
            let inputs = job.layout.inputs(consumer);
            if job.gate.advance(consumer, inputs.end - inputs.start, true) != Change::Failed {
                return;
            }
            job.n_failed += 1;
            job.progress(consumer).failed += 1;
            let errors = vec![UnitError::InputFailed];
            let failure = UnitFailure { index: consumer, at, errors, exits: Vec::new() };
            push_bounded(&mut job.failures, failure, failures_max);
            self.release_inputs(at, UnitKey { job: key.job, index: consumer });
            self.count_failed_result(key.job, consumer);
            index = consumer;
        }
        self.end_if_hopeless(at, key);
    }

    /// What a unit took may be forgotten.
    fn release_inputs(&mut self, at: Timestamp, key: UnitKey) {
        for index in self.job(key.job).layout.inputs(key.index) {
            let job = self.job_mut(key.job);
            if let Some(Stage::Accepted { needed, .. }) =
                job.units.get_mut(&index).map(|unit| &mut unit.stage)
            {
                *needed = false;
                self.tidy(at, UnitKey { job: key.job, index });
            }
        }
    }

    fn count_failed_result(&mut self, number: JobNumber, index: u64) {
        let job = self.job_mut(number);
        job.gate.n_results_failed += u64::from(job.layout.results().contains(&index));
    }

    /// Gives up the rest of a job with stages when all of its last level has failed.
    fn end_if_hopeless(&mut self, at: Timestamp, key: UnitKey) {
        let job = self.job(key.job);
        let results = job.layout.results();
        let is_hopeless = job.gate.n_results_failed == results.end - results.start;
        if job.layout.stages() == 1 || !is_hopeless {
            return;
        }
        self.forget_all(at, key.job);
        let job = self.job_mut(key.job);
        job.n_open = 0;
        job.n_done = job.n_stored;
        job.n_failed = job.n_units - job.n_stored;
        for (stage, progress) in job.stages.iter_mut().enumerate() {
            progress.done = progress.stored;
            progress.failed = job.layout.units_of_stage(stage) - progress.stored;
        }
    }
}
