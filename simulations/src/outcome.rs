//! What came of a run.

use dockercomp_coordinator_core::Core;
use serde::Serialize;

use crate::names;
use crate::scenario::Scenario;
use crate::violation::Violation;

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The seed it was run with.
    pub seed: u64,
    /// BLAKE3 over everything that happened: equal if and only if two runs took the same way.
    pub trace_hash: String,
    /// Figures.
    pub counters: Counters,
    /// What the checkers found, in the order in which they did; empty if all is well.
    pub violations: Vec<Violation>,
}

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Work units of all jobs.
    pub units: u64,
    /// Work units accepted.
    pub accepted: u64,
    /// Those accepted with a wrong output, because enough hosts colluded.
    pub wrong_accepted: u64,
    /// Work units given up within the rules of their job.
    pub failed: u64,
    /// Those of them that were accepted before, and whose output was lost for good.
    pub withdrawn: u64,
    /// Replicas leased.
    pub replicas: u64,
    /// Results equal to the canonical output.
    pub valid: u64,
    /// Results different from it.
    pub invalid: u64,
    /// Replicas whose program failed.
    pub errors: u64,
    /// Replicas whose deadline passed.
    pub no_reply: u64,
    /// Hosts that may give wrong outputs.
    pub saboteurs: u64,
    /// Those of them that gave a result which differs from the canonical output of its unit.
    pub caught: u64,
    /// Hosts that never give wrong outputs, and of which the same is said: where a wrong output
    /// was accepted, and where a flaky one erred.
    pub blamed: u64,
    /// Crashes of hosts.
    pub host_crashes: u64,
    /// Crashes of the coordinator.
    pub coordinator_crashes: u64,
    /// Durable records.
    pub records: u64,
    /// Events simulated.
    pub events: u64,
    /// Virtual time until the last job ended, or the run did, in seconds.
    pub virtual_seconds: f64,
}

/// How a run is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judgement {
    /// Every promise was kept.
    Held,
    /// Something that had to happen did not.
    LivenessViolated,
    /// Something happened that must not.
    SafetyViolated,
}

impl Outcome {
    /// The worst that was found.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        let worst = self.violations.iter().map(|violation| {
            if violation.is_of_safety() {
                Judgement::SafetyViolated
            } else {
                Judgement::LivenessViolated
            }
        });
        worst.max().unwrap_or(Judgement::Held)
    }
}

impl Counters {
    /// Mean replicas for each unit.
    #[must_use]
    pub fn replicas_per_unit(&self) -> f64 {
        self.replicas as f64 / self.units.max(1) as f64
    }

    /// Takes what the core counts.
    pub(crate) fn take_core(&mut self, core: &Core, scenario: &Scenario) {
        for job in core.jobs() {
            self.accepted += job.done;
            self.failed += job.failed;
            self.replicas += job.replicas.total();
            self.valid += job.replicas.valid;
            self.invalid += job.replicas.invalid;
            self.errors += job.replicas.client_error;
            self.no_reply += job.replicas.no_reply;
        }
        self.saboteurs = scenario.saboteurs();
        for node in core.nodes().iter().filter(|node| node.replicas.invalid > 0) {
            let lies = scenario.behaviour(names::host(&node.node)).may_lie();
            self.caught += u64::from(lies);
            self.blamed += u64::from(!lies);
        }
    }

    /// Adds the figures of another run.
    pub fn add(&mut self, other: &Self) {
        self.units += other.units;
        self.accepted += other.accepted;
        self.wrong_accepted += other.wrong_accepted;
        self.failed += other.failed;
        self.withdrawn += other.withdrawn;
        self.replicas += other.replicas;
        self.valid += other.valid;
        self.invalid += other.invalid;
        self.errors += other.errors;
        self.no_reply += other.no_reply;
        self.saboteurs += other.saboteurs;
        self.caught += other.caught;
        self.blamed += other.blamed;
        self.host_crashes += other.host_crashes;
        self.coordinator_crashes += other.coordinator_crashes;
        self.records += other.records;
        self.events += other.events;
        self.virtual_seconds += other.virtual_seconds;
    }
}
