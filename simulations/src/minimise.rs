//! Minimising: the smallest world that still fails in the same way.
//!
//! Delta debugging over a scenario's parts: leave out a group, a job, a kind of fault; halve
//! hosts, units, times; keep what still fails, until nothing can be left out any more.
//!
//! "In the same way" is the kind of the first violation, or a panic: a smaller world that
//! fails differently is another bug.

use std::mem::{Discriminant, discriminant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::behaviour::Behaviour;
use crate::random::Spread;
use crate::scenario::Scenario;
use crate::violation::Violation;
use crate::world::run;

/// How a run fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A core panicked.
    Panic,
    /// A promise of this kind was broken.
    Broken(Discriminant<Violation>),
}

/// How a scenario fails with a seed, if it does.
#[must_use]
pub(crate) fn failure(scenario: &Scenario, seed: u64) -> Option<Failure> {
    match catch_unwind(AssertUnwindSafe(|| run(scenario, seed))) {
        Err(_) => Some(Failure::Panic),
        Ok(outcome) => outcome.violations.first().map(|v| Failure::Broken(discriminant(v))),
    }
}

/// Shrinks a scenario that fails. Gives it unchanged if it does not. `on_try` hears of each
/// try, and whether it failed as wanted.
#[must_use]
pub(crate) fn minimise(scenario: &Scenario, seed: u64, on_try: &mut dyn FnMut(bool)) -> Scenario {
    let mut smallest = scenario.clone();
    let Some(wanted) = failure(scenario, seed) else { return smallest };
    loop {
        let mut has_shrunk = false;
        for candidate in candidates(&smallest) {
            // A candidate of an earlier scenario may undo what was left out since.
            if candidate == smallest || size(&candidate) >= size(&smallest) {
                continue;
            }
            let fails = failure(&candidate, seed) == Some(wanted);
            on_try(fails);
            if fails {
                smallest = candidate;
                has_shrunk = true;
                break;
            }
        }
        if !has_shrunk {
            return smallest;
        }
    }
}

/// What a world weighs: what every candidate makes less of.
fn size(scenario: &Scenario) -> u64 {
    let hosts: u64 = scenario.crowds.iter().map(|crowd| u64::from(crowd.hosts)).sum();
    let units: u64 = scenario.jobs.iter().map(|job| job.units).sum();
    let groups = scenario.crowds.iter().map(|crowd| {
        let simple = crowd.behaviour == Behaviour::Honest;
        let plain = crowd.operators == 0;
        10 + 20 * u64::from(crowd.churn.is_some())
            + 5 * u64::from(!simple)
            + 2 * u64::from(!plain)
            + u64::from(crowd.clock_ahead != Spread::Fixed(0))
    });
    let network = &scenario.network;
    let faults = u64::from(network.loss > 0.0)
        + u64::from(network.duplication > 0.0)
        + u64::from(scenario.coordinator.churn.is_some());
    let cancelled = scenario.jobs.iter().filter(|job| job.cancel.is_some()).count() as u64;
    1000 * hosts
        + 100 * units
        + 100 * scenario.jobs.len() as u64
        + groups.sum::<u64>()
        + 50 * faults
        + 10 * cancelled
        + u64::from(scenario.reinforcements)
        + scenario.faults_end.as_secs() / 60
}

/// Every scenario with a little less in it, the boldest first.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut candidate = scenario.clone();
        change(&mut candidate);
        all.push(candidate);
    };
    if scenario.crowds.len() > 1 {
        for number in 0..scenario.crowds.len() {
            add(&|s| drop(s.crowds.remove(number)));
        }
    }
    if scenario.jobs.len() > 1 {
        for number in 0..scenario.jobs.len() {
            add(&|s| drop(s.jobs.remove(number)));
        }
    }
    for number in 0..scenario.crowds.len() {
        add(&|s| s.crowds[number].hosts /= 2);
        add(&|s| s.crowds[number].hosts = s.crowds[number].hosts.saturating_sub(1));
        add(&|s| s.crowds[number].churn = None);
        add(&|s| s.crowds[number].behaviour = Behaviour::Honest);
        add(&|s| s.crowds[number].operators = 0);
        add(&|s| s.crowds[number].clock_ahead = Spread::Fixed(0));
    }
    for number in 0..scenario.jobs.len() {
        add(&|s| s.jobs[number].units = (s.jobs[number].units / 2).max(1));
        add(&|s| s.jobs[number].units = (s.jobs[number].units - 1).max(1));
        add(&|s| s.jobs[number].cancel = None);
    }
    add(&|s| s.network.loss = 0.0);
    add(&|s| s.network.duplication = 0.0);
    add(&|s| s.coordinator.churn = None);
    add(&|s| s.reinforcements /= 2);
    add(&|s| s.faults_end /= 2);
    add(&|s| s.faults_end = s.faults_end.saturating_sub(Duration::from_secs(60)));
    // What a scenario file may say, so that the smallest can be written to one.
    all.retain(|candidate| {
        let quorum = candidate.jobs.iter().map(|job| job.validation.min_quorum).max();
        candidate.hosts() >= quorum.unwrap_or(1).max(1) && candidate.check().is_ok()
    });
    all
}
