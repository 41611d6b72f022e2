//! Checkpoints: a replica that was interrupted goes on where it was, and nothing of it stays.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::explain::{DOCKER, job_file};
use crate::network::{Network, docker_or_skip, example, json, run_on, wait_until};

/// Four steps a second, for ten seconds.
const TASK: &str = "7:40:250";

/// A job of one unit that counts, at a quorum.
fn submit(network: &Network, task: &str, more: &[&str], quorum: u32) -> String {
    submit_within(network, task, more, quorum, "10min")
}

/// The same, with so much time for a lease and for an attempt.
fn submit_within(network: &Network, task: &str, more: &[&str], quorum: u32, time: &str) -> String {
    let args = [&["{unit}"], more].concat();
    let build = example("count/build");
    let build = build.to_str().expect("a plain path");
    let text = format!(
        r#"version = 1
name = "count"
[program]
image = "file:{build}/count"
module = "file:{build}/count.wasm"
args = {args:?}
[sweep]
unit = ["{task}"]
[resources]
cpus = 1.0
memory = "32 MiB"
output = "1 MiB"
output_files = 4
wall_time = "{time}"
[validation]
policy = "fixed"
min_quorum = {quorum}
target_nresults = {quorum}
max_error_results = 1
max_total_results = {quorum}
max_success_results = {quorum}
delay_bound = "{time}"
"#
    );
    let path = network.folder.path().join("job.toml");
    fs::write(&path, text).expect("a job file");
    network.submit(&path, &[])
}

/// The step that the program on a node has saved last.
fn saved(node: &Path) -> Option<u64> {
    let files = walkdir::WalkDir::new(node.join("work")).into_iter().filter_map(Result::ok);
    let mut steps = files.filter_map(|entry| {
        let folder = entry.path().parent()?.file_name()?.to_str()?;
        let is_saved = folder.starts_with("checkpoint-") && entry.file_name() == "count.txt";
        let text = is_saved.then(|| fs::read_to_string(entry.path()).ok())??;
        text.split(' ').nth(1)?.parse().ok()
    });
    steps.next()
}

fn nothing_is_left(node: &Path) -> bool {
    fs::read_dir(node.join("work")).is_ok_and(|mut entries| entries.next().is_none())
}

/// What the program writes when nobody disturbs it.
fn undisturbed(folder: &Path) -> String {
    let [into, checkpoint] = ["into", "checkpoint"].map(|name| folder.join(name));
    for folder in [&into, &checkpoint] {
        fs::create_dir(folder).expect("a folder");
    }
    let mut command = Command::new(example("count/build/count"));
    command.args(["7:40:0", "--into"]).arg(&into).arg("--checkpoint").arg(&checkpoint);
    assert!(command.status().expect("it starts").success());
    fs::read_to_string(into.join("count.txt")).expect("an output")
}

/// The node is killed, then stopped, and the program says from where it went on.
fn go_on(executor: &str) {
    let mut network = Network::start();
    network.add_nodes(1, executor, &[]);
    let job = submit(&network, TASK, &["--tell"], 1);
    let dir = network.nodes[0].dir.clone();
    wait_until("some steps", || saved(&dir) >= Some(3));
    network.nodes[0].kill();
    let killed = saved(&dir).expect("a checkpoint");
    network.nodes[0].restart();
    // A container goes on until the node is there again, and removes it.
    let killed = saved(&dir).unwrap_or(killed);
    wait_until("more steps", || {
        let now = saved(&dir);
        assert!(now.is_none_or(|step| step >= killed), "it began anew: {now:?} after {killed}");
        now >= Some(killed + 3)
    });
    network.nodes[0].stop();
    let stopped = saved(&dir).expect("a checkpoint");
    assert!(stopped < 40, "it was over before it was stopped");
    network.nodes[0].restart();

    let info = network.wait_for_done(&job);
    assert_eq!(info["results_valid"], 1, "{info:#}");
    let results = network.fetch(&job, executor).join("units/00000000");
    let read = |name: &str| fs::read_to_string(results.join(name)).expect("an output");
    assert_eq!(read("from.txt"), format!("{stopped}\n"), "{}", network.logs());
    assert_eq!(read("count.txt"), undisturbed(network.folder.path()));
    assert_eq!(fs::read_dir(&results).expect("a folder").count(), 2, "only the output");
    wait_until("the end of the checkpoint", || nothing_is_left(&dir));
}

#[test]
fn wasm_replicas_go_on_where_they_were() {
    go_on("wasm");
}

#[test]
fn docker_replicas_go_on_where_they_were() {
    let Some(_docker) = docker_or_skip("docker_replicas_go_on_where_they_were") else { return };
    go_on("docker");
}

#[test]
fn a_result_is_the_same_whether_its_replica_was_interrupted_or_not() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    let job = submit(&network, TASK, &[], 2);
    let dir = network.nodes[0].dir.clone();
    wait_until("some steps", || saved(&dir) >= Some(3));
    network.nodes[0].kill();
    network.nodes[0].restart();
    let info = network.wait_for_done(&job);
    assert_eq!((&info["results_valid"], &info["results_invalid"]), (&2.into(), &0.into()));
}

/// A machine is switched on, and its engine is not there yet: the node gives back what it cannot
/// run, and neither the program nor the node is blamed.
#[test]
fn a_node_without_its_engine_blames_nobody() {
    let Some(_docker) = docker_or_skip("a_node_without_its_engine_blames_nobody") else { return };
    let mut network = Network::start();
    network.add_nodes(1, "docker", &[]);
    let job = job_file(&network, "engine", DOCKER, 64, 1);
    let status = || network.job(&job);
    wait_until("some results", || status()["results_valid"].as_u64() > Some(2));
    let link = network.coordinator.text("join_link");
    let with = |executor| {
        ["node", "start", &link, "--ip", "127.0.0.1", "--cpus", "1", "--executor", executor]
    };
    network.nodes[0].kill();
    network.nodes[0].restart_with(&with("wasm"));
    let own = || json(run_on(&network.nodes[0].dir, &["node", "status"]));
    wait_until("the end of its leases", || {
        let tasks = own()["tasks"].as_object().expect("counts").clone();
        tasks.values().filter_map(Value::as_u64).sum::<u64>() == 0
    });
    wait_until("word of it", || {
        let nodes = network.owner(&["coordinator", "nodes"]);
        nodes[0]["running"] == 0
    });
    let nodes = network.owner(&["coordinator", "nodes"]);
    assert_eq!((&nodes[0]["errors"], &nodes[0]["no_reply"]), (&0.into(), &0.into()), "{nodes:#}");
    assert_eq!(network.job(&job)["state"], "running");

    // With its engine it removes what it had left there.
    network.nodes[0].stop();
    network.nodes[0].restart_with(&with("docker"));
}

/// Its lease ends while the program runs, and while the node is away.
#[test]
fn nothing_is_left_of_a_replica_that_nobody_needs() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &[]);
    let dir = network.nodes[0].dir.clone();
    for is_away in [false, true] {
        let job = submit(&network, "7:4000:250", &[], 1);
        wait_until("a step", || saved(&dir).is_some());
        if is_away {
            network.nodes[0].kill();
        }
        network.owner(&["job", "cancel", &job]);
        if is_away {
            assert!(saved(&dir).is_some());
            network.nodes[0].restart();
        }
        wait_until("the end of the checkpoint", || nothing_is_left(&dir));
    }
}

/// The coordinator hears that the program gets on, and puts the deadline off when it is near.
#[test]
fn a_replica_that_saves_its_progress_gets_more_time() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &[]);
    // The last quarter of the time has two heartbeats.
    let job = submit_within(&network, "7:4000:250", &[], 1, "40s");
    let deadline = || {
        let explained = network.owner(&["job", "explain", &job, "0"]);
        explained["replicas"][0]["deadline"].as_str().map(str::to_owned)
    };
    wait_until("the lease", || deadline().is_some());
    let first = deadline().expect("a deadline");
    let mut last = Some(first.clone());
    wait_until("another deadline", || {
        last = deadline();
        last.as_ref() != Some(&first)
    });
    assert!(last.is_some(), "the lease ran out: {}", network.logs());
}
