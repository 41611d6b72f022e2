//! A coordinator's past, run again in the simulator.

use std::path::Path;
use std::process::Output;

use crate::explain::{WASM, job_file};
use crate::network::{Network, dockercomp, json, run_on};

fn simulate(file: &Path, more: &[&str]) -> Output {
    let mut command = dockercomp();
    command.args(["sim", "run"]).arg(file).args(["--seeds", "2"]).args(more);
    command.output().expect("the binary starts")
}

#[test]
fn a_journal_becomes_a_scenario_and_another_policy_is_tried_on_it() {
    const UNITS: u32 = 12;
    let mut network = Network::start();
    network.add_nodes(3, "wasm", &[]);
    let job = job_file(&network, "past", WASM, UNITS, 2);
    network.wait_for_done(&job);

    let coordinator = network.coordinator.dir.clone();
    let file = network.folder.path().join("past.toml");
    let history = ["coordinator", "history", "--into", file.to_str().expect("a plain path")];
    // Two processes never share a store.
    assert_eq!(run_on(&coordinator, &history).status.code(), Some(5));
    // A back-up is made while it runs, and will do.
    let backup = network.folder.path().join("backup");
    network.owner(&["coordinator", "backup", backup.to_str().expect("a plain path")]);
    let told = json(run_on(&backup, &history));
    assert_eq!(
        (&told["hosts"], &told["jobs"], &told["units"]),
        (&3.into(), &1.into(), &UNITS.into())
    );
    let happened = told["targets"]["replicas_per_unit"].as_f64().expect("a number");
    assert!((2.0..=3.0).contains(&happened), "{told:#}");
    assert_eq!(told["targets"]["completed"], 1.0, "{told:#}");

    // Units of milliseconds say little of a makespan: whether it is within is not the point.
    let output = simulate(&file, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 6)), "{text}{output:?}");
    assert!(text.contains("replicas_per_unit") && text.contains("journal"), "{text}");
    let other = simulate(&file, &["--set", "jobs.j00.validation.policy=adaptive"]);
    assert!(matches!(other.status.code(), Some(0 | 6)), "{other:?}");

    let nowhere = network.folder.path().join("nowhere");
    assert_eq!(run_on(&nowhere, &history).status.code(), Some(12));
}
