//! Stories of small swarms.

use std::time::Duration;

use super::{Behaviour, Reach, Scenario, ScenarioError, run};
use crate::overlay::Report;

/// A seeder and eight that want 64 MiB, each with a line of 4 MiB/s up and a wide one down.
const EIGHT: &str = r#"
until = "1h"

[dataset]
bytes = "64 MiB"
chunk = "1 MiB"

[network]
latency = { kind = "constant", one_way = "1ms" }

[nodes.getters]
count = 8
up = "4 MiB/s"
down = "100 MiB/s"

[nodes.seeder]
count = 1
holds = true
up = "4 MiB/s"
down = "100 MiB/s"
"#;

fn eight() -> Scenario {
    toml::from_str(EIGHT).unwrap()
}

/// The same with more in it.
fn eight_and(more: &str) -> Scenario {
    toml::from_str(&format!("{EIGHT}\n{more}")).unwrap()
}

/// The same, and so many that say that they have it and do this.
fn eight_and_liars(count: u32, behaviour: &str) -> Scenario {
    eight_and(&format!(
        r#"
        [nodes.liars]
        count = {count}
        holds = true
        up = "4 MiB/s"
        down = "4 MiB/s"
        behaviour = {behaviour}
        "#
    ))
}

#[track_caller]
fn get(report: &Report, name: &str) -> f64 {
    report.metric(name).unwrap_or_else(|| panic!("no {name} in {report:?}"))
}

#[test]
fn one_node_has_it_as_soon_as_the_line_can_bring_it() {
    let mut scenario = eight();
    scenario.nodes.get_mut("getters").unwrap().count = 1;
    let report = run(&scenario, 1).unwrap();
    assert_eq!(get(&report, "bound_s"), 16.0);
    let took = get(&report, "last_s");
    assert!((16.0..16.5).contains(&took), "{took}");
    assert!((get(&report, "seeder_copies") - 1.0).abs() < 0.01);
}

#[test]
fn a_swarm_is_quicker_than_one_after_the_other() {
    for seed in 1..=5 {
        let report = run(&eight(), seed).unwrap();
        assert_eq!(get(&report, "completed"), 1.0);
        let (took, copies) = (get(&report, "last_s"), get(&report, "seeder_copies"));
        assert!(took < 8.0 * 16.0 / 4.0, "seed {seed}: {took} s");
        assert!(copies <= 2.5, "seed {seed}: {copies} copies");
        let received = get(&report, "received_copies");
        assert!((1.0..1.1).contains(&received), "seed {seed}: {received} copies received");
        assert_eq!(get(&report, "honest_blamed"), 0.0);
    }
}

/// Done-when of the exchange, at a size that no test with processes reaches.
#[test]
fn with_three_of_four_providers_lying_everybody_has_it_right() {
    let scenario = eight_and_liars(3, r#"{ kind = "poisoner", rate = 1.0 }"#);
    let report = run(&scenario, 1).unwrap();
    assert_eq!(get(&report, "completed"), 1.0);
    assert_eq!((get(&report, "liars_named"), get(&report, "honest_blamed")), (3.0, 0.0));
    assert!(get(&report, "wrong_blocks") >= 3.0, "{report:?}");
}

#[test]
fn who_promises_and_does_not_give_is_dropped() {
    for (behaviour, least, most) in [("boaster", 1.0, 3.0), ("silent", 0.0, 0.0)] {
        let scenario = eight_and_liars(3, &format!(r#"{{ kind = "{behaviour}" }}"#));
        let report = run(&scenario, 1).unwrap();
        assert_eq!(get(&report, "completed"), 1.0, "{behaviour}");
        let (all, blamed) = (get(&report, "liars_named"), get(&report, "honest_blamed"));
        let is_right = (least..=most).contains(&all) && blamed == 0.0;
        assert!(is_right, "{behaviour}: {all} named, {blamed} of them honest");
    }
}

/// Nothing can be done without the manifest, and every second that it is late another is asked:
/// before, two of the silent ones were waited for at a time, half a minute each.
#[test]
fn many_silent_providers_do_not_keep_the_manifest_for_minutes() {
    let scenario = eight_and_liars(15, r#"{ kind = "silent" }"#);
    let report = run(&scenario, 1).unwrap();
    assert_eq!(get(&report, "completed"), 1.0);
    let took = get(&report, "getters.max_s");
    assert!(took < 60.0, "{took} s");
}

/// Three of four cannot be dialled. Everybody is told of other members first: when all were told
/// of the same ones, half knew nobody but the seeder.
#[test]
fn among_many_that_nobody_can_dial_the_others_are_found() {
    let mut scenario = eight_and(
        r#"
        [nodes.hidden]
        count = 45
        up = "4 MiB/s"
        down = "100 MiB/s"
        reach = "hidden"
        "#,
    );
    scenario.dataset.bytes = 32 << 20;
    scenario.nodes.get_mut("getters").unwrap().count = 15;
    let report = run(&scenario, 1).unwrap();
    assert_eq!(get(&report, "completed"), 1.0);
    let copies = get(&report, "seeder_copies");
    assert!(copies < 6.0, "the seeder sent {copies} copies");
}

#[test]
fn when_the_seeder_leaves_those_that_have_all_there_is_go_on() {
    let mut scenario = eight();
    let seeder = scenario.nodes.get_mut("seeder").unwrap();
    // Before it has sent everything once: nobody can end.
    seeder.leaves = Some(Duration::from_secs(10));
    let report = run(&scenario, 1).unwrap();
    assert_eq!(get(&report, "completed"), 0.0);
    // Another one comes later: all end, and what they had counts.
    let late = r#"
        [nodes.late]
        count = 1
        holds = true
        up = "4 MiB/s"
        down = "4 MiB/s"
        joins = "10m"
    "#;
    let mut scenario = eight_and(late);
    scenario.nodes.get_mut("seeder").unwrap().leaves = Some(Duration::from_secs(10));
    let report = run(&scenario, 1).unwrap();
    assert_eq!(get(&report, "completed"), 1.0);
    let again = get(&report, "late.sent_copies");
    assert!(again < 1.0, "it sent {again} copies");
    assert!((get(&report, "received_copies") - 1.0).abs() < 0.1, "{report:?}");
}

#[test]
fn hidden_nodes_get_from_those_that_they_can_dial_and_give_back() {
    let hidden = |punched: f64| {
        let mut scenario = eight_and(
            r#"
            [nodes.hidden]
            count = 8
            up = "4 MiB/s"
            down = "100 MiB/s"
            reach = "hidden"
            "#,
        );
        scenario.network.punched = punched;
        run(&scenario, 1).unwrap()
    };
    let report = hidden(0.0);
    assert_eq!(get(&report, "completed"), 1.0);
    // They are of use to those that they dialled.
    assert!(get(&report, "hidden.sent_copies") > 1.0, "{report:?}");
    let mut alone = eight();
    alone.nodes.get_mut("getters").unwrap().reach = Reach::Hidden;
    let alone = run(&alone, 1).unwrap();
    assert_eq!(get(&alone, "completed"), 1.0);
    let copies = get(&alone, "seeder_copies");
    assert!((copies - 8.0).abs() < 0.1, "nobody can reach anybody else: {copies} copies");
}

#[test]
fn a_seed_is_a_run() {
    let scenario = eight();
    let [one, again, other] = [1, 1, 2].map(|seed| run(&scenario, seed).unwrap());
    assert_eq!(one, again);
    assert_ne!(one.trace_hash, other.trace_hash);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |edit: fn(&mut Scenario)| {
        let mut scenario = eight();
        edit(&mut scenario);
        scenario.check().unwrap_err()
    };
    assert!(matches!(
        refused(|scenario| scenario.nodes.get_mut("getters").unwrap().holds = true),
        ScenarioError::NoGetters
    ));
    assert!(matches!(
        refused(|scenario| scenario.nodes.get_mut("getters").unwrap().up = 0),
        ScenarioError::Line { .. }
    ));
    assert!(matches!(
        refused(|scenario| {
            scenario.nodes.get_mut("getters").unwrap().behaviour = Behaviour::Boaster;
        }),
        ScenarioError::Liar { .. }
    ));
    assert!(matches!(
        refused(|scenario| {
            let getters = scenario.nodes.get_mut("getters").unwrap();
            (getters.joins, getters.leaves) =
                (Duration::from_secs(9), Some(Duration::from_secs(5)));
        }),
        ScenarioError::Leaves { .. }
    ));
    assert!(matches!(
        refused(|scenario| {
            scenario.nodes.get_mut("seeder").unwrap().behaviour = Behaviour::Silent;
        }),
        ScenarioError::NoHolders
    ));
    assert!(matches!(refused(|scenario| scenario.dataset.chunk = 0), ScenarioError::Chunks { .. }));
    assert!(matches!(
        refused(|scenario| scenario.network.punched = 1.5),
        ScenarioError::Share { .. }
    ));
    assert!(toml::from_str::<Scenario>(&EIGHT.replace("4 MiB/s", "4 MiB")).is_err());
}
