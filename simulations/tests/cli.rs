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
    let output = sim(&["fuzz", "--defect", "lost-deadlines", "--seed", "5"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn wrong_usage_exits_with_2() {
    assert_eq!(sim(&["fuzz", "--seed", "1", "--seeds", "2"]).status.code(), Some(2));
}

/// The trace that a run prints is the trace that it has again; another is a difference.
#[test]
fn a_run_is_replayed_to_its_trace() {
    let first = sim(&["replay", "--seed", "41", "--quiet"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let text = out(&first);
    let hash = text.trim().rsplit(' ').next().expect("a hash");
    let again = sim(&["replay", "--seed", "41", "--quiet", "--expect", hash]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    let other = sim(&["replay", "--seed", "42", "--quiet", "--expect", hash]);
    assert_eq!(other.status.code(), Some(7), "{other:?}");
    let twice = sim(&["check-determinism", "--seed", "41", "--seeds", "4"]);
    assert_eq!(twice.status.code(), Some(0), "{twice:?}");
    assert!(out(&twice).starts_with("4 seeds, the same twice"), "{twice:?}");
}

#[test]
fn two_runs_part_at_a_line() {
    let same = sim(&["bisect", "--seed", "7"]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let parted = sim(&["bisect", "--seed", "7", "--other-defect", "early-answers"]);
    assert_eq!(parted.status.code(), Some(7), "{parted:?}");
    let text = out(&parted);
    assert!(text.contains("\n- ") && text.contains("\n+ "), "{text}");
}

#[test]
fn a_scenario_that_cannot_be_simulated_exits_with_2() {
    let output = sim(&["run", "no-such-file.toml"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(last_error_line(&output).contains("no-such-file.toml cannot be read"), "{output:?}");
}

/// One command, its expectations, and an exit code that says what became of them.
#[test]
fn expectations_are_printed_and_decide_the_exit_code() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/availability-boinc.toml");
    let within = sim(&["run", file, "--set", "spells=200_000"]);
    assert_eq!(within.status.code(), Some(0), "{within:?}");
    assert!(out(&within).contains("3 of 3 within their tolerance"), "{within:?}");
    let out_of_it = sim(&["run", file, "--set", "spells=200_000", "--set", "up.gamma.shape=0.4"]);
    assert_eq!(out_of_it.status.code(), Some(6), "{out_of_it:?}");
}
