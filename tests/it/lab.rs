//! The lab, as its user runs it: scenarios with real processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::network::{docker_or_skip, dockercomp, example, json, repository, wait_until};

/// A scenario of the repository; the program that its hosts run must be there.
fn scenario(name: &str) -> PathBuf {
    example("wait/build/wait.wasm");
    repository("simulations/scenarios").join(name)
}

/// A command, with a directory for temporary files that nobody else uses.
fn lab(temporary: &Path) -> Command {
    let mut command = dockercomp();
    command.current_dir(repository(".")).env("TMPDIR", temporary);
    command
}

fn number(run: &Value, metric: &str) -> f64 {
    run["measures"][metric]["number"].as_f64().unwrap_or_else(|| panic!("no {metric} in {run:#}"))
}

fn share(run: &Value, metric: &str) -> (u64, u64) {
    let share = &run["measures"][metric]["share"];
    let part = |name: &str| share[name].as_u64().unwrap_or_else(|| panic!("no {metric}: {run:#}"));
    (part("hits"), part("of"))
}

/// Processes whose command line names `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("a plain path");
    let entries = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}

fn nothing_is_left(temporary: &Path) {
    wait_until("the end of all processes", || processes_of(temporary).is_empty());
    let left: Vec<_> = fs::read_dir(temporary).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What the weather of the seed and the rules of the job decide, however fast the machine is.
#[test]
fn a_scenario_runs_with_real_processes() {
    let temporary = tempfile::tempdir().expect("a folder");
    let output = lab(temporary.path())
        .args(["lab", "run", "--output", "json", "--seed", "3"])
        .arg(scenario("lab-small.toml"))
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let run = json(output);
    assert_eq!(share(&run, "completed"), (10, 10), "{told}");
    assert_eq!(share(&run, "accepted_error_rate"), (0, 10));
    assert_eq!(share(&run, "caught"), (1, 1));
    assert_eq!(number(&run, "blamed"), 0.0);
    assert_eq!(number(&run, "valid"), 20.0, "two equal results for each unit: {run:#}");
    assert!(number(&run, "invalid") >= 1.0, "{run:#}");
    let ended = ["valid", "invalid", "errors", "no_reply"].map(|metric| number(&run, metric));
    assert!(number(&run, "replicas") >= ended.iter().sum(), "{run:#}");
    // Twenty results of a second or more on four hosts of one core, after two seconds.
    assert!(number(&run, "makespan_seconds") >= 7.0, "{run:#}");
    assert_eq!(run["problems"], Value::Array(vec![]));
    assert!(number(&run, "host_crashes") >= 1.0, "{told}");
    assert_eq!(told.matches(" crashes\n").count() as f64, number(&run, "host_crashes"));
    nothing_is_left(temporary.path());
}

/// A host that is down at the end left its containers, and nobody else would remove them.
#[test]
fn a_scenario_runs_with_docker_and_leaves_no_container() {
    let Some(_engine) = docker_or_skip("a_scenario_runs_with_docker_and_leaves_no_container")
    else {
        return;
    };
    let temporary = tempfile::tempdir().expect("a folder");
    let kept = tempfile::tempdir().expect("a folder");
    let output = lab(temporary.path())
        .args(["lab", "run", "--output", "json", "--executor", "docker", "--out"])
        .arg(kept.path())
        .arg(scenario("lab-small.toml"))
        .output()
        .expect("the binary starts");
    let run = json(output);
    assert_eq!(share(&run, "completed"), (10, 10), "{run:#}");
    assert_eq!(share(&run, "caught"), (1, 1));
    assert!(number(&run, "host_crashes") >= 1.0, "{run:#}");
    for host in 0..4 {
        let log = kept.path().join(format!("seed-1/host-{host:02}.log"));
        let log = fs::read_to_string(log).expect("a log");
        let (_, id) = log.split_once("local_peer_id=").expect("the node says who it is");
        let id = id.split_whitespace().next().expect("an id");
        let list = ["ps", "-aq", "--filter", &format!("label=dockercomp.node={id}")];
        let output = Command::new("docker").args(list).output().expect("docker starts");
        let left = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && left.is_empty(), "host {host} left {left}");
    }
    nothing_is_left(temporary.path());
}

/// Interrupted in the middle, it stops its processes and removes its folder.
#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a folder");
    let child = lab(temporary.path())
        .args(["lab", "run"])
        .arg(scenario("lab-small.toml"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A bootstrap node, a coordinator and some hosts.
    wait_until("the start of processes", || processes_of(temporary.path()).len() >= 4);
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.expect("kill starts").success());
    let output = child.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("interrupted"), "{told}");
    nothing_is_left(temporary.path());
}

/// `kill -9` of the lab itself: its processes see their standard input close.
#[test]
fn no_process_outlives_a_lab_that_is_killed() {
    let temporary = tempfile::tempdir().expect("a folder");
    let mut child = lab(temporary.path())
        .args(["lab", "run"])
        .arg(scenario("lab-small.toml"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    wait_until("the start of processes", || processes_of(temporary.path()).len() >= 4);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    wait_until("the end of all processes", || processes_of(temporary.path()).is_empty());
}

fn fidelity(more: &[&str]) -> Output {
    let mut command = dockercomp();
    command.current_dir(repository(".")).args(["sim", "fidelity"]).args(more);
    command.output().expect("the binary starts")
}

/// Both sides have every figure, and those that no machine is too slow for agree.
#[test]
fn model_and_lab_are_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let file = scenario("lab-small.toml");
    let [file, out] = [&file, &out].map(|path| path.to_str().expect("a plain path"));
    let output = fidelity(&[file, "--runs", "1", "--seeds", "20", "--json", "--out", out]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!((&report["model_runs"], &report["lab_runs"]), (&20.into(), &1.into()));
    let figures = report["figures"].as_array().expect("a list");
    assert_eq!(figures.len(), 9, "{report:#}");
    for figure in figures {
        let [low, high] = ["low", "high"].map(|key| figure[key].as_f64().expect("a number"));
        assert!(low <= high, "{figure:#}");
        if ["completed", "accepted_error_rate", "caught", "blamed"]
            .contains(&figure["metric"].as_str().expect("a name"))
        {
            assert_eq!(figure["agrees"], true, "{figure:#}");
        }
    }
    for kept in ["scenario.toml", "lab-runs.jsonl", "fidelity.json", "seed-1/coordinator.log"] {
        assert!(Path::new(out).join(kept).is_file(), "{kept}");
    }
    // 0 if all agree, and 6 if one is out.
    let expected = if report["agrees"] == true { 0 } else { 6 };
    assert_eq!(output.status.code(), Some(expected), "{report:#}");
}

#[test]
fn what_the_lab_cannot_do_is_refused() {
    let file = scenario("lab-small.toml");
    let file = file.to_str().expect("a plain path");
    for (setting, place) in [
        ("network.loss=0.1", "network.loss"),
        ("population=1000", "population"),
        ("hosts.saboteurs.behaviour=lazy", "hosts.saboteurs.behaviour"),
    ] {
        let output = fidelity(&[file, "--set", setting]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("{place}: ")), "{setting}: {told}");
    }
}
