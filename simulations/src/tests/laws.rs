//! Figures that are known in closed form.
//!
//! The formulas are for workers drawn independently; here a host never gets a unit twice, so
//! drawing is without replacement, which at 200 hosts moves a figure by less than one percent.
//! Tolerances are four standard errors of the stated variance.

use crate::{Behaviour, Counters, Crowd, Scenario, Spread};

const UNITS: u64 = 4000;

/// 200 hosts that differ in nothing but what they answer: of `bad` behave so.
fn mixed(bad: u32, behaviour: Behaviour) -> Counters {
    let alike = |hosts| Crowd {
        speed: Spread::Fixed(100),
        cores: Spread::Fixed(1),
        ..Crowd::honest(hosts)
    };
    let mut scenario = Scenario::calm(0, UNITS);
    scenario.crowds = vec![alike(200 - bad), Crowd { behaviour, ..alike(bad) }];
    // Limits far away: only agreement ends a unit.
    let rules = &mut scenario.jobs[0].validation;
    (rules.max_total_results, rules.max_success_results) = (50, 50);
    rules.max_error_results = 50;
    let counters = super::run_held(&scenario, 7).counters;
    assert_eq!((counters.accepted, counters.failed), (UNITS, 0));
    counters
}

#[test]
fn without_faults_a_quorum_of_two_costs_exactly_two() {
    for seed in 1..=3 {
        let counters = super::run_held(&Scenario::calm(25, 400), seed).counters;
        assert_eq!(counters.replicas, 2 * 400);
        assert_eq!((counters.valid, counters.accepted), (2 * 400, 400));
        assert_eq!((counters.invalid, counters.errors, counters.no_reply), (0, 0, 0));
    }
}

/// Sarmenta's m-first voting with m = 2, all wrong results equal, phi = 0.2: redundancy
/// 2 + 2 phi (1 - phi) = 2.32 and error 3 phi^2 (1 - phi) + phi^3 = 0.104. BOINC's rule with
/// `min_quorum` 2 is the same rule: two results, and one more while they differ.
#[test]
fn colluders_cost_what_sarmenta_says() {
    let counters = mixed(40, Behaviour::COLLUDER);
    let n = UNITS as f64;
    let (phi, disagree) = (0.2, 0.32f64);
    let expected = 2.0 + 2.0 * phi * (1.0 - phi);
    let error = (disagree * (1.0 - disagree) / n).sqrt();
    let redundancy = counters.replicas_per_unit();
    assert!((redundancy - expected).abs() < 4.0 * error, "redundancy {redundancy}");
    let wrong = counters.wrong_accepted as f64 / n;
    let error = (0.104 * (1.0 - 0.104) / n).sqrt();
    assert!((wrong - 0.104f64).abs() < 4.0 * error, "accepted error rate {wrong}");
}

/// Saboteurs that cannot agree: a unit ends with its second honest result, so it takes a
/// negative binomial number of results with mean 2 / (1 - phi) = 2.5 and variance
/// 2 phi / (1 - phi)^2 = 0.625. No wrong output is ever accepted.
#[test]
fn lone_saboteurs_cost_a_negative_binomial_and_buy_nothing() {
    let counters = mixed(40, Behaviour::SABOTEUR);
    let error = (0.625 / UNITS as f64).sqrt();
    let redundancy = counters.replicas_per_unit();
    assert!((redundancy - 2.5f64).abs() < 4.0 * error, "redundancy {redundancy}");
    assert_eq!(counters.wrong_accepted, 0);
    assert_eq!(counters.valid, 2 * UNITS);
}

/// Programs that fail are replaced one by one: the same law, with failures for sabotage.
#[test]
fn failures_cost_a_negative_binomial() {
    let counters = mixed(200, Behaviour::Flaky { failure: 0.2 });
    let error = (0.625 / UNITS as f64).sqrt();
    let redundancy = counters.replicas_per_unit();
    assert!((redundancy - 2.5f64).abs() < 4.0 * error, "redundancy {redundancy}");
    assert_eq!(counters.errors, counters.replicas - 2 * UNITS);
}
