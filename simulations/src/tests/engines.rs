//! The direct engine says of validation what the full one says.

use super::run_held;
use crate::{Answer, Behaviour, Crowd, Deceit, Engine, Scenario, Spread, Wakes};

fn colluding(engine: Engine) -> Scenario {
    let alike = |hosts| Crowd {
        speed: Spread::Fixed(100),
        cores: Spread::Fixed(1),
        ..Crowd::honest(hosts)
    };
    let deceit =
        Deceit { rate: 0.5, wakes: Wakes::AfterAccepted(5), ..Deceit::always(Answer::Shared) };
    let mut scenario = Scenario::calm(0, 2000);
    let bad = Crowd { behaviour: Behaviour::Deceiver(deceit), ..alike(40) };
    scenario.crowds = vec![alike(60), bad];
    scenario.engine = engine;
    scenario
}

/// Four standard errors of the two shares.
#[test]
fn both_engines_accept_and_spend_the_same() {
    let full = run_held(&colluding(Engine::Full), 3).counters;
    let direct = run_held(&colluding(Engine::Direct), 3).counters;
    let rate = |wrong: u64| wrong as f64 / 2000.0;
    let (one, other) = (rate(full.wrong_accepted), rate(direct.wrong_accepted));
    let error = (2.0 * one * (1.0 - one) / 2000.0).sqrt();
    assert!(one > 0.05 && (one - other).abs() < 4.0 * error, "{one} and {other}");
    let cost = (full.replicas_per_unit(), direct.replicas_per_unit());
    assert!((cost.0 - cost.1).abs() < 0.06, "{cost:?}");
    assert_eq!(direct.accepted, 2000);
}

#[test]
fn the_direct_engine_repeats_itself() {
    let scenario = colluding(Engine::Direct);
    assert_eq!(run_held(&scenario, 8), run_held(&scenario, 8));
    assert_ne!(run_held(&scenario, 8).trace_hash, run_held(&scenario, 9).trace_hash);
}
