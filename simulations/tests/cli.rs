//! The binary as people and CI meet it: exit codes, replay command, JSON.

use std::process::{Command, Output};

use serde_json::Value;

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dockercomp-sim")).args(args).output().expect("it starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn last_error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn seeds_that_hold_exit_with_0_and_replay_to_the_same_trace() {
    let all = sim(&["fuzz", "--seeds", "3", "--first-seed", "40", "--json"]);
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let text = out(&all);
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4, "three seeds and a summary: {text}");
    assert_eq!((&lines[3]["runs"], &lines[3]["held"]), (&3.into(), &3.into()));
    let again = sim(&["fuzz", "--seed", "41", "--json"]);
    let again: Value = serde_json::from_str(out(&again).trim()).expect("JSON");
    assert_eq!(again, lines[1]);
    assert_eq!(again["judgement"], "held");
}

#[test]
fn a_safety_violation_exits_with_3_and_names_the_replay() {
    let broken =
        ["fuzz", "--defect", "quorum-of-one", "--calm", "5", "--units", "5", "--seed", "9"];
    let output = sim(&broken);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let line = last_error_line(&output);
    let (_, command) = line.split_once("dockercomp-sim ").expect("a command");
    let replayed = sim(&command.split(' ').collect::<Vec<_>>());
    assert_eq!(replayed.status.code(), Some(3), "{replayed:?}");
    assert!(last_error_line(&replayed).contains("--seed 9"));
}

#[test]
fn a_liveness_violation_exits_with_4() {
    // A drawn world in which a lease is lost, and nobody tells the core of its deadline.
    let output = sim(&["fuzz", "--defect", "lost-deadlines", "--seed", "2"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn wrong_usage_exits_with_2() {
    assert_eq!(sim(&["fuzz", "--seed", "1", "--seeds", "2"]).status.code(), Some(2));
}
