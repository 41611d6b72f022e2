//! Each policy against what is known of it.

use dockercomp_protocol::job::{Adaptive, Audited, Credibility, Policy, Share};

use super::town::{Nature, accompany, crowd, settle};

const NOBODY: Nature = Nature::Honest { errors: 0 };

fn adaptive() -> Policy {
    Policy::Adaptive(Adaptive::default())
}

fn audited(accepted_error: u32, saboteurs: u32) -> Policy {
    Policy::Audited(Audited {
        accepted_error: Share::from_millionths(accepted_error),
        saboteurs: Share::from_millionths(saboteurs),
        ..Audited::default()
    })
}

fn credibility(accepted_error: u32, saboteurs: u32) -> Policy {
    Policy::Credibility(Credibility {
        accepted_error: Share::from_millionths(accepted_error),
        saboteurs: Share::from_millionths(saboteurs),
        ..Credibility::default()
    })
}

/// BOINC's published aim is 5 to 10 % of overhead; its rule computes to 1.20 at 50 units a
/// node and 1.08 at 200.
#[test]
fn adaptive_replication_costs_what_its_rule_says() {
    let balance = settle(adaptive(), 2000, &crowd(40, 0, NOBODY), 1);
    assert!((1.15..1.26).contains(&balance.cost()), "{balance:?} {}", balance.cost());
    assert_eq!(balance.wrong, 0);
}

/// BOINC's rule (sched_send.cpp and validator.cpp at c5c6cb7: trusted with ten replicated valid
/// results in a row, and then with probability 1 - 1 / their number) for one host that is wrong
/// with probability `p` in each of `n` units and found out whenever it is replicated: the
/// expected shares of units that are replicated, and that are accepted wrong.
fn law_of_adaptive_replication(n: usize, p: f64) -> (f64, f64) {
    let mut in_a_row = vec![0.0; n + 1];
    in_a_row[0] = 1.0;
    let (mut replicated, mut wrong) = (0.0, 0.0);
    for _ in 0..n {
        let mut next = vec![0.0; n + 1];
        for (valid, &here) in in_a_row.iter().enumerate().filter(|(_, here)| **here > 0.0) {
            let trusted = if valid < 10 { 0.0 } else { 1.0 - 1.0 / valid as f64 };
            let checked = here * (1.0 - trusted);
            replicated += checked;
            wrong += here * trusted * p;
            next[valid] += here * trusted;
            next[0] += checked * p;
            next[(valid + 1).min(n)] += checked * (1.0 - p);
        }
        in_a_row = next;
    }
    (replicated / n as f64, wrong / n as f64)
}

/// The law's own values first, as they were computed elsewhere; then the core against it.
#[test]
fn adaptive_replication_follows_its_exact_law() {
    const RUNS: u64 = 5;
    for (n, millionths, of_replicated, of_wrong) in [
        (100, 0u32, 0.1681, 0.0),
        (1000, 0, 0.0458, 0.0),
        (1000, 10_000, 0.0529, 9.47e-3),
        (1000, 100_000, 0.1678, 8.32e-2),
        (1000, 500_000, 0.9906, 4.68e-3),
    ] {
        let (replicated, wrong) = law_of_adaptive_replication(n, f64::from(millionths) / 1e6);
        assert!((replicated - of_replicated).abs() < 6e-5, "{n} {millionths}: {replicated}");
        assert!((wrong - of_wrong).abs() <= of_wrong * 6e-4, "{n} {millionths}: {wrong}");

        let runs: Vec<(f64, f64)> = (0..RUNS)
            .map(|run| accompany(adaptive(), n as u64, millionths.into(), run))
            .map(|(replicated, balance)| (replicated as f64 / n as f64, balance.error()))
            .collect();
        let is_near = |found: Vec<f64>, expected: f64| {
            let mean = found.iter().sum::<f64>() / RUNS as f64;
            let variance =
                found.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (RUNS - 1) as f64;
            let deviation = (variance / RUNS as f64).sqrt();
            assert!(
                (mean - expected).abs() <= 3.0 * deviation + 1e-12,
                "{n} units, {millionths} millionths wrong: {mean} +- {deviation}, not {expected}"
            );
        };
        is_near(runs.iter().map(|run| run.0).collect(), replicated);
        is_near(runs.iter().map(|run| run.1).collect(), wrong);
    }
}

/// A fifth of the nodes collude always: fixed quorum and adaptive replication let through what
/// they are known to, and the two that state a rate keep to it.
#[test]
fn only_policies_that_state_a_rate_keep_it_under_collusion() {
    let nodes = crowd(40, 8, Nature::Saboteur { rate: 1_000_000 });
    let error = |policy| settle(policy, 2000, &nodes, 2).error();
    assert!(error(Policy::Fixed) > 0.05);
    assert!(error(adaptive()) > 0.03);
    assert!(error(credibility(1000, 200_000)) <= 0.003);
    assert!(error(audited(10_000, 200_000)) <= 0.01);
}

/// Saboteurs who behave until they are trusted: a record alone is no defence, but results that
/// are held until some of them were checked are.
#[test]
fn who_sleeps_until_it_is_trusted_gains_nothing_from_lots() {
    let nodes = crowd(40, 8, Nature::Sleeper { rate: 1_000_000, after: 30 });
    assert!(settle(adaptive(), 2000, &nodes, 3).error() > 0.03);
    let balance = settle(audited(10_000, 200_000), 2000, &nodes, 3);
    assert!(balance.error() <= 0.01, "{balance:?}");
    assert!(balance.cost() < 2.0, "{balance:?}");
    assert_eq!(balance.failed, 0);
}
