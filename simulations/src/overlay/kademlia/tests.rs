//! Stories of small networks.

use std::time::Duration;

use super::{Colocated, Rules, Scenario, ScenarioError, run};
use crate::overlay::Report;

const SMALL: &str = r#"
reachable = 300
bootstrap = 3
duration = "10m"
crawl = "1m"

[routing]
rules = "go"
alpha = 10
refresh = "10m"

[lookups]
count = 50
latency = { kind = "uniform", low = "10ms", high = "150ms", jitter = 0.1 }
handshake_round_trips = 4
dial_timeout = "5s"
"#;

const CHURN: &str = r#"sessions = ["1m", "20m", "2h"]"#;

fn scenario() -> Scenario {
    toml::from_str(SMALL).unwrap()
}

fn metric(report: &Report, name: &str) -> f64 {
    report.metric(name).unwrap_or_else(|| panic!("{name} is not measured"))
}

/// Of 300 nodes a bucket has as many candidates as its share of the space; the full ones have k.
#[test]
fn in_a_calm_network_tables_are_as_full_as_can_be() {
    for rules in [Rules::Go, Rules::Libp2p] {
        let mut scenario = scenario();
        scenario.routing.rules = rules;
        let report = run(&scenario, 1).unwrap();
        assert_eq!(metric(&report, "reachable"), 300.0);
        assert_eq!(metric(&report, "bucket_0"), 20.0, "{rules:?}");
        // 299 / 64 on average; the seed decides how many pairs there are.
        let filled = metric(&report, "bucket_5");
        assert!((3.7..5.7).contains(&filled), "{rules:?}: {filled}");
        let knows = metric(&report, "knows_20");
        assert!(knows > 0.85, "{rules:?}: {knows}");
        assert_eq!(metric(&report, "unreachable_0"), 0.0);
        assert!(metric(&report, "accuracy") > 0.98, "{rules:?}");
        assert_eq!(metric(&report, "failed"), 0.0);
        assert!(metric(&report, "provide_p90_s") < 5.0, "nobody is waited for in vain");
        assert!(metric(&report, "asked") >= 20.0, "the whole result is asked");
    }
}

#[test]
fn who_left_lingers_in_tables_and_costs_time() {
    let mut scenario = scenario();
    scenario.churn = Some(toml::from_str(CHURN).unwrap());
    scenario.duration = Duration::from_secs(1200);
    let report = run(&scenario, 2).unwrap();
    assert!(metric(&report, "discovered") > metric(&report, "reachable"));
    let stale = metric(&report, "unreachable_0");
    assert!((0.01..0.5).contains(&stale), "{stale}");
    assert!(metric(&report, "failed") > 0.0);
    assert!(metric(&report, "provide_p90_s") > 5.0, "a dial that times out is waited for");
}

#[test]
fn hidden_nodes_crowd_the_buckets_that_are_not_full() {
    let mut scenario = scenario();
    scenario.hidden = 60;
    let report = run(&scenario, 3).unwrap();
    assert_eq!(metric(&report, "reachable"), 300.0);
    assert_eq!(metric(&report, "discovered"), 360.0);
    let report = (metric(&report, "holders_p50"), metric(&report, "failed"));
    assert!(report.0 < 20.0 && report.1 > 0.0, "{report:?}");
}

/// Twelve networks of many servers each: a table takes three of each, so most of those who are
/// close to each other and of one network do not know each other.
#[test]
fn servers_of_few_networks_are_not_in_all_tables_that_they_belong_to() {
    let knows = |rules, colocated: Option<Colocated>| {
        let mut scenario = scenario();
        (scenario.colocated, scenario.routing.rules) = (colocated, rules);
        let report = run(&scenario, 5).unwrap();
        assert_eq!(metric(&report, "reachable"), 300.0);
        metric(&report, "knows_20")
    };
    let many = Some(Colocated { nodes: 200, networks: 12 });
    let spread = Some(Colocated { nodes: 200, networks: 200 });
    let (filtered, free) = (knows(Rules::Go, many), knows(Rules::Go, spread));
    assert!(filtered < 0.2 && free > 0.85, "{filtered} {free}");
    assert!(knows(Rules::Libp2p, many) > 0.85, "rust-libp2p has no such filter");
}

/// rust-libp2p never drops who fails: who left long ago is still found in tables.
#[test]
fn by_libp2p_rules_the_gone_are_found_for_longer() {
    let gone = |rules| {
        let mut scenario = scenario();
        scenario.reachable = 100;
        scenario.routing.rules = rules;
        scenario.lookups = None;
        scenario.churn = Some(toml::from_str(CHURN).unwrap());
        scenario.duration = Duration::from_secs(3600);
        let report = run(&scenario, 4).unwrap();
        metric(&report, "discovered") - metric(&report, "reachable")
    };
    let (go, libp2p) = (gone(Rules::Go), gone(Rules::Libp2p));
    assert!(libp2p > go, "{libp2p} {go}");
}

/// The hash is golden: a change of it means that every recorded run means something else now.
#[test]
fn a_run_is_bit_exact() {
    let mut scenario = scenario();
    scenario.reachable = 100;
    scenario.churn = Some(toml::from_str(CHURN).unwrap());
    let first = run(&scenario, 1).unwrap();
    assert_eq!(first, run(&scenario, 1).unwrap());
    assert_ne!(first.trace_hash, run(&scenario, 2).unwrap().trace_hash);
    assert_eq!(&first.trace_hash[..16], "c189d8f7e21aef42");
}

#[test]
fn what_cannot_be_is_refused() {
    let refusal = |change: &dyn Fn(&mut Scenario)| {
        let mut scenario = scenario();
        change(&mut scenario);
        run(&scenario, 0).unwrap_err()
    };
    assert_eq!(refusal(&|s| s.reachable = 0), ScenarioError::Nodes { nodes: 0 });
    assert_eq!(refusal(&|s| s.bootstrap = 0), ScenarioError::Nodes { nodes: 300 });
    let shared = |nodes, networks| refusal(&|s| s.colocated = Some(Colocated { nodes, networks }));
    for (nodes, networks) in [(298, 1), (1, 0)] {
        let expected = ScenarioError::Colocated { reachable: 297, nodes, networks };
        assert_eq!(shared(nodes, networks), expected);
    }
    assert_eq!(refusal(&|s| s.routing.k = 0), ScenarioError::Routing);
    assert_eq!(refusal(&|s| s.routing.beta = 21), ScenarioError::Routing);
    let falling = r#"sessions = ["2h", "1h"]"#;
    let refused = refusal(&|s| s.churn = Some(toml::from_str(falling).unwrap()));
    assert_eq!(refused, ScenarioError::Sessions);
    let typo = toml::from_str::<Scenario>(&SMALL.replace("alpha", "alhpa")).unwrap_err();
    assert!(typo.to_string().contains("alhpa"), "{typo}");
}
