//! What the simulator promises, and what it says about the cores.

mod defects;
mod engines;
mod laws;
mod shrinking;
mod stories;

use std::panic::catch_unwind;

use dockercomp_protocol::job::Policy;

use crate::{Judgement, Outcome, Scenario, run, run_told};

/// Runs a scenario that must hold. Whatever goes wrong names the seed.
fn run_held(scenario: &Scenario, seed: u64) -> Outcome {
    let outcome = catch_unwind(|| run(scenario, seed));
    let outcome = outcome.unwrap_or_else(|_| panic!("a core panicked with seed {seed}"));
    let problems: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    assert_eq!(outcome.judgement(), Judgement::Held, "seed {seed}: {problems:#?}");
    outcome
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let scenario = Scenario::fuzz(seed);
        let (first, second) = (run(&scenario, seed), run(&scenario, seed));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.trace_hash, run(&scenario, seed + 1).trace_hash, "seed {seed}");
    }
}

/// Whoever asks for the story gets the same run.
#[test]
fn telling_changes_nothing() {
    let scenario = Scenario::fuzz(5);
    let mut lines = 0;
    let told = run_told(&scenario, 5, &mut |_| lines += 1);
    assert_eq!(told, run(&scenario, 5));
    assert!(lines > 100, "{lines} lines");
}

/// Every policy and operators are drawn, and often.
#[test]
fn drawn_worlds_differ_in_their_rules() {
    let mut n = [0; 5];
    for scenario in (1..=100).map(Scenario::fuzz) {
        for job in &scenario.jobs {
            n[match job.validation.policy {
                Policy::Fixed => 0,
                Policy::Adaptive(_) => 1,
                Policy::Credibility(_) => 2,
                Policy::Audited(_) => 3,
            }] += 1;
        }
        n[4] += u32::from(scenario.crowds.iter().any(|crowd| crowd.operators > 0));
    }
    assert!(n.iter().all(|&n| n >= 20), "fixed, adaptive, credibility, audited, operators: {n:?}");
}

#[test]
fn drawn_worlds_hold() {
    let mut total = crate::Counters::default();
    for seed in 1..=200 {
        total.add(&run_held(&Scenario::fuzz(seed), seed).counters);
    }
    // The worlds are not harmless.
    assert!(total.host_crashes > 500 && total.coordinator_crashes > 200, "{total:?}");
    assert!(total.invalid > 500 && total.no_reply > 500 && total.failed > 100, "{total:?}");
    assert!(total.accepted > 2000 && total.wrong_accepted > 0, "{total:?}");
}
