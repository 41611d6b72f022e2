//! Why something does not run: asked by the owner, by a node's operator, by the coordinator's.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::network::{Network, dockercomp, example, json, run_on, wait_until};

/// A job of tiles that take no time, at a quorum.
pub(crate) fn job_file(
    network: &Network,
    name: &str,
    program: &str,
    columns: u32,
    quorum: u32,
) -> String {
    let build = example("mandelbrot/build");
    let build = build.to_str().expect("a plain path");
    let last = columns - 1;
    let text = format!(
        r#"version = 1
name = "{name}"
[program]
{}
args = [
    "tile", "--column", "{{column}}", "--row", "0", "--columns", "{columns}", "--rows", "1",
    "--width", "64", "--height", "16", "--iterations", "20000",
]
[sweep]
column = {{ from = 0, to = {last} }}
[resources]
cpus = 0.25
memory = "32 MiB"
wall_time = "20s"
[validation]
policy = "fixed"
min_quorum = {quorum}
target_nresults = {quorum}
max_error_results = 8
max_total_results = 40
max_success_results = 8
delay_bound = "2min"
"#,
        program.replace("BUILD", build)
    );
    let path = network.folder.path().join(format!("{name}.toml"));
    fs::write(&path, text).expect("a job file");
    network.submit(&path, &[])
}

pub(crate) const WASM: &str = "module = \"file:BUILD/mandelbrot.wasm\"";
pub(crate) const DOCKER: &str = "image = \"file:BUILD/mandelbrot\"";

fn unit(network: &Network, job: &str, index: &str) -> Value {
    network.owner(&["job", "explain", job, index])
}

/// How many nodes there are for each reason.
fn summary(explained: &Value) -> Vec<(String, u64)> {
    let groups = explained["summary"].as_array().expect("a list").iter();
    let group = |group: &Value| {
        (group["reason"].as_str().expect("text").to_owned(), group["nodes"].as_u64().expect("few"))
    };
    groups.map(group).collect()
}

/// What a command says to people.
fn words(dir: &Path, args: &[&str]) -> String {
    let output: Output =
        dockercomp().args(args).arg("--data-dir").arg(dir).output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The reasons that a node's coordinator gives it for a job.
fn reasons(explained: &Value, job: &str) -> Vec<String> {
    let there = &explained["projects"][0]["there"];
    let jobs = there["jobs"].as_array().or(explained["jobs"].as_array());
    let of_job = jobs.expect("a list").iter().find(|told| told["job"] == job);
    let reasons = of_job.expect("the job")["reasons"].as_array().expect("a list").iter();
    reasons.map(|why| why["reason"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn a_job_that_no_node_can_run_says_so_to_everybody() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    let job = job_file(&network, "docker-only", DOCKER, 3, 2);
    wait_until("both nodes are there", || {
        summary(&unit(&network, &job, "2")) == [("no_executor".to_owned(), 2)]
    });
    let explained = unit(&network, &job, "2");
    assert_eq!(explained["state"], "waiting", "{explained:#}");
    assert_eq!(explained["nodes"].as_array().map(Vec::len), Some(2));
    let told = words(&network.coordinator.dir, &["job", "explain", &job, "2"]);
    assert!(told.contains("2 work units of its job come before it"), "{told}");
    assert!(told.contains("2 nodes lack an executor for it"), "{told}");

    // The nodes, and the coordinator's operator, hear the same.
    let node = &network.nodes[0];
    let own = json(run_on(&node.dir, &["node", "explain"]));
    assert_eq!(reasons(&own, &job), ["no_executor"], "{own:#}");
    assert_eq!(own["here"], Value::Array(vec![]), "{own:#}");
    assert_eq!(own["projects"][0]["here"], Value::Array(vec![]), "{own:#}");
    let told = words(&node.dir, &["node", "explain"]);
    assert!(told.contains("the job needs docker, which it does not have"), "{told}");
    let seen = network.owner(&["coordinator", "explain", &node.text("peer_id")]);
    assert_eq!(reasons(&seen, &job), ["no_executor"], "{seen:#}");

    // What is not there is said so.
    let wrong = run_on(&network.coordinator.dir, &["job", "explain", &job, "3"]);
    assert_eq!(wrong.status.code(), Some(12));
    let stranger = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE";
    let wrong = run_on(&network.coordinator.dir, &["coordinator", "explain", stranger]);
    assert_eq!(wrong.status.code(), Some(12));
}

#[test]
fn a_quorum_larger_than_the_network_is_explained_until_one_more_node_comes() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    let job = job_file(&network, "three", WASM, 1, 3);
    let waits = || {
        let explained = unit(&network, &job, "0");
        let had = summary(&explained) == [("had_it".to_owned(), 2)];
        had && explained["text"].as_str().is_some_and(|text| text.contains("2 are there"))
    };
    wait_until("both nodes have reported", waits);
    let told = words(&network.coordinator.dir, &["job", "explain", "last", "0"]);
    assert!(told.contains("it aims at 3 results; 2 are there"), "{told}");
    assert!(told.contains("it waits for 1 more node"), "{told}");
    assert!(told.contains("2 nodes already had it"), "{told}");

    // A node hears why it is not the one, and nothing of the other.
    let ids: Vec<String> = network.nodes.iter().map(|node| node.text("peer_id")).collect();
    let own = json(run_on(&network.nodes[0].dir, &["node", "explain"]));
    assert_eq!(reasons(&own, &job), ["had_it"], "{own:#}");
    assert!(!own.to_string().contains(&ids[1]), "{own:#}");

    network.add_nodes(1, "wasm", &[]);
    network.wait_for_done(&job);
    let explained = unit(&network, &job, "0");
    assert_eq!(explained["state"], "accepted", "{explained:#}");
    assert!(explained["output"].is_string(), "{explained:#}");
    wait_until("the node hears that no job is left", || {
        let own = json(run_on(&network.nodes[0].dir, &["node", "explain"]));
        own["projects"][0]["there"]["reasons"][0]["reason"] == "no_jobs"
    });

    // Without a coordinator the node says what it knows itself.
    network.coordinator.kill();
    let here = || {
        let own = json(run_on(&network.nodes[0].dir, &["node", "explain"]));
        let own = &own["projects"][0];
        own["here"][0]["reason"] == "coordinator_lost" && own["there"].is_null()
    };
    wait_until("the coordinator is missed", here);
    let told = words(&network.nodes[0].dir, &["node", "explain"]);
    assert!(told.contains("does not answer; the node looks for it again"), "{told}");
}

#[test]
fn a_node_that_gave_wrong_results_learns_what_that_costs() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &["--fault", "wrong-results"]).add_nodes(3, "wasm", &[]);
    wait_until("all nodes are there", || {
        network.owner(&["coordinator", "nodes"]).as_array().map(Vec::len) == Some(4)
    });
    let job = job_file(&network, "lies", WASM, 64, 2);
    let info = network.wait_for_done(&job);
    assert!(info["results_invalid"].as_u64() > Some(0), "{info:#}");

    let told = words(&network.nodes[0].dir, &["node", "explain"]);
    assert!(told.contains("it was caught with a wrong result with wasm"), "{told}");
    assert!(told.contains("count again after others have confirmed 10 more"), "{told}");
    assert!(told.contains("fell with errors, wrong results or missed deadlines"), "{told}");
    let seen = network.owner(&["coordinator", "explain", &network.nodes[0].text("peer_id")]);
    assert!(seen["quota_per_day"].as_u64() < Some(100_000), "{seen:#}");
    let nodes = network.owner(&["coordinator", "nodes"]);
    for node in nodes.as_array().expect("a list") {
        let is_liar = node["node"] == network.nodes[0].ready["peer_id"];
        let Some(standing) = node["standings"].get(0) else { continue };
        assert_eq!(standing["caught"], u64::from(is_liar), "{node:#}");
        assert_eq!(standing["barred"], is_liar, "{node:#}");
        assert_eq!(standing["invalid_lately"].as_f64() > Some(0.0), is_liar, "{node:#}");
    }
    let board = network.owner(&["coordinator", "leaderboard"]);
    let credits: Vec<f64> = board["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|node| node["credit"].as_f64())
        .collect();
    assert!(credits.len() >= 2 && credits.iter().all(|&credit| credit > 0.0), "{board:#}");
    assert!(credits.is_sorted_by(|a, b| a >= b), "{board:#}");
    let told = words(&network.coordinator.dir, &["coordinator", "nodes"]);
    assert!(told.contains("until 10 confirmed"), "{told}");

    let honest = json(run_on(&network.nodes[1].dir, &["node", "explain"]));
    assert_eq!(honest["projects"][0]["there"]["standing"], Value::Array(vec![]), "{honest:#}");
}

#[test]
fn two_nodes_of_one_operator_never_share_a_work_unit() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &["--operator", "farm"]);
    let job = job_file(&network, "strangers", WASM, 8, 2);
    // Each unit is with one of the two, and the other may not have it.
    let is_stuck = |index: u64| {
        let explained = unit(&network, &job, &index.to_string());
        let expected = [("had_it".to_owned(), 1), ("operator_had_it".to_owned(), 1)];
        summary(&explained) == expected && explained["replicas"][0]["state"] == "success"
    };
    wait_until("all units have one result", || (0..8).all(is_stuck));
    let told = words(&network.coordinator.dir, &["job", "explain", &job, "0"]);
    assert!(told.contains("1 node belongs to an operator who already had it"), "{told}");
    let own = json(run_on(&network.nodes[1].dir, &["node", "status"]));
    assert_eq!(own["operator"], "farm", "{own:#}");
    let own = json(run_on(&network.nodes[1].dir, &["node", "explain"]));
    let reasons = reasons(&own, &job);
    assert!(["had_it", "operator_had_it"].contains(&&*reasons[0]), "{own:#}");
    // Nodes on one machine share no address range that would mean something.
    let nodes = network.owner(&["coordinator", "nodes"]);
    for node in nodes.as_array().expect("a list") {
        assert_eq!((&node["operator"], &node["address_range"]), (&"farm".into(), &Value::Null));
    }

    network.add_nodes(1, "wasm", &[]);
    network.wait_for_done(&job);
    let board = network.owner(&["coordinator", "leaderboard"]);
    assert_eq!(board["operators"][0]["operator"], "farm", "{board:#}");
    let stranger = network.nodes[2].text("peer_id");
    let valid_of_stranger = network
        .owner(&["coordinator", "nodes"])
        .as_array()
        .expect("a list")
        .iter()
        .find(|node| node["node"] == stranger.as_str())
        .and_then(|node| node["valid"].as_u64());
    assert_eq!(valid_of_stranger, Some(8), "one result of every unit is a stranger's");
}

#[test]
fn the_name_of_an_operator_is_checked_at_the_start() {
    let link = "dockercomp://12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE?via=/ip4/\
                127.0.0.1/tcp/4001/p2p/12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE";
    let long = "x".repeat(65);
    for wrong in ["", "  ", "a\u{1b}[2Jb", &long] {
        let output = dockercomp().args(["node", "start", link, "--operator", wrong]).output();
        let output = output.expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("a name has 1 to 64 bytes"), "{told}");
    }
}
