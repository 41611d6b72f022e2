//! One node that works for two projects: shares, a coordinator that goes away, and leaving.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::network::{Network, Process, example, json, run_on, wait_until};

/// A job of small tiles, each computed once, that a node of one core runs one at a time.
fn submit(network: &Network, coordinator: &Process, name: &str, rows: u32) -> String {
    let module = example("mandelbrot/build/mandelbrot.wasm");
    let text = format!(
        r#"version = 1
name = "{name}"
[program]
module = "file:{}"
args = [
    "tile", "--column", "{{column}}", "--row", "{{row}}", "--columns", "16", "--rows", "8",
    "--width", "1024", "--height", "384", "--iterations", "1000",
]
[sweep]
column = {{ from = 0, to = 15 }}
row = {{ from = 0, to = {} }}
[resources]
cpus = 1.0
memory = "32 MiB"
wall_time = "1min"
[validation]
policy = "fixed"
min_quorum = 1
target_nresults = 1
max_error_results = 2
max_total_results = 8
max_success_results = 4
delay_bound = "30min"
"#,
        module.display(),
        rows - 1,
    );
    let path = network.folder.path().join(format!("{name}.toml"));
    fs::write(&path, text).expect("a job file");
    let path = path.to_str().expect("a plain path");
    let submitted = json(run_on(&coordinator.dir, &["job", "submit", path]));
    submitted["job"].as_str().expect("an id").to_owned()
}

fn job(coordinator: &Process, job: &str) -> Value {
    json(run_on(&coordinator.dir, &["job", "status", job]))
}

fn accepted(coordinator: &Process, id: &str) -> u64 {
    job(coordinator, id)["accepted"].as_u64().expect("a number")
}

fn wait_for_done(network: &Network, coordinator: &Process, id: &str) {
    wait_until("the end of the job", || job(coordinator, id)["state"] != "running");
    let info = job(coordinator, id);
    assert_eq!(info["state"], "done", "{info:#}\n{}", network.logs());
    assert_eq!(info["results_invalid"], 0, "{info:#}");
}

/// What a node says of the project of a join link, if it is attached to it.
fn find(node: &Path, link: &str) -> Option<Value> {
    let projects = json(run_on(node, &["node", "projects"]));
    let all = projects.as_array().expect("a list").iter();
    all.clone().find(|info| link.contains(info["project"].as_str().expect("an id"))).cloned()
}

fn project(node: &Path, link: &str) -> Value {
    find(node, link).expect("the node is attached to the project")
}

fn used(info: &Value) -> f64 {
    info["used_seconds"].as_f64().expect("a number")
}

fn link(coordinator: &Process) -> String {
    coordinator.text("join_link")
}

#[test]
fn two_projects_share_a_node_three_to_one_and_one_alone_has_it_whole() {
    let mut network = Network::start();
    let other = network.start_another_project("other");
    network.add_nodes(1, "wasm", &[&link(&other)]);
    let node = network.nodes[0].dir.clone();
    for (coordinator, share) in [(&network.coordinator, "300"), (&other, "100")] {
        let link = link(coordinator);
        let info = json(run_on(&node, &["node", "share", &link, share]));
        assert_eq!(info["share"].to_string(), share, "{info:#}");
    }
    wait_until("both coordinators have welcomed the node", || {
        [&network.coordinator, &other]
            .iter()
            .all(|coordinator| project(&node, &link(coordinator))["state"] == "no_work")
    });

    let mine = submit(&network, &network.coordinator, "mine", 4);
    let theirs = submit(&network, &other, "theirs", 2);
    wait_until("the first has much of its work done", || {
        accepted(&network.coordinator, &mine) >= 24
    });
    let [one, two] = [&network.coordinator, &other].map(|of| project(&node, &link(of)));
    assert_eq!((&one["state"], &two["state"]), (&"works".into(), &"works".into()), "{two:#}");
    let part = one["part_used"].as_f64().expect("a number");
    assert!((0.65..0.85).contains(&part), "one has {part:.3} of the node\n{one:#}\n{two:#}");

    // One coordinator goes: the other project has the whole machine.
    network.coordinator.kill();
    let link_of_one = link(&network.coordinator);
    wait_until("the coordinator is missed, and what was leased is done", || {
        let info = project(&node, &link_of_one);
        let tasks = &info["tasks"];
        let is_busy = ["fetching", "ready", "running"].iter().any(|state| tasks[state] != 0);
        info["state"] == "unreachable" && !is_busy
    });
    // Its first job may be done by now.
    let more = submit(&network, &other, "more", 2);
    wait_until("the other goes on", || accepted(&other, &more) >= 2);
    let (before, started) = (project(&node, &link(&other)), Instant::now());
    wait_until("the other goes on", || accepted(&other, &more) >= 12);
    let after = project(&node, &link(&other));
    let part = (used(&after) - used(&before)) / started.elapsed().as_secs_f64();
    assert!(part > 0.7, "the other has {part:.3} of the node\n{before:#}\n{after:#}");

    network.coordinator.restart();
    wait_for_done(&network, &network.coordinator, &mine);
    wait_for_done(&network, &other, &theirs);
    wait_for_done(&network, &other, &more);
    let told = json(run_on(&node, &["node", "explain"]));
    assert_eq!(told["projects"].as_array().map(Vec::len), Some(2), "{told:#}");
    assert_eq!(told["projects"][0]["there"]["reasons"][0]["reason"], "no_jobs", "{told:#}");
}

#[test]
fn a_node_that_leaves_a_project_reports_first_or_drops_and_remembers_the_rest() {
    let mut network = Network::start();
    let other = network.start_another_project("other");
    network.add_nodes(1, "wasm", &[]);
    let node = network.nodes[0].dir.clone();
    let mine = submit(&network, &network.coordinator, "mine", 2);
    let attached = json(run_on(&node, &["node", "attach", &link(&other), "--share", "100"]));
    assert_eq!(attached["share"], 100, "{attached:#}");
    let theirs = submit(&network, &other, "theirs", 2);
    wait_until("it works for the other", || accepted(&other, &theirs) >= 3);

    // By its name, which the coordinator told. What was leased is finished and reported, and
    // nothing stays leased to a node that has gone.
    json(run_on(&node, &["node", "detach", "other"]));
    wait_until("it has left", || find(&node, &link(&other)).is_none());
    let info = job(&other, &theirs);
    assert_eq!(info["replicas_in_progress"], 0, "{info:#}");
    assert_eq!(info["replicas"], info["results_valid"], "every replica was reported: {info:#}");
    assert_eq!(info["state"], "running", "{info:#}");

    // Again, and this time what is there is dropped.
    json(run_on(&node, &["node", "attach", &link(&other)]));
    wait_until("it works for the other again", || {
        let info = job(&other, &theirs);
        info["state"] == "running" && info["replicas_in_progress"] != 0
    });
    json(run_on(&node, &["node", "detach", "other", "--now"]));
    wait_until("it has left", || find(&node, &link(&other)).is_none());
    assert_eq!(job(&other, &theirs)["replicas_in_progress"], 0);
    let unknown = run_on(&node, &["node", "detach", "other"]);
    assert_eq!(unknown.status.code(), Some(12));
    let wrong = run_on(&node, &["node", "share", &link(&network.coordinator), "0"]);
    assert_eq!(wrong.status.code(), Some(2));

    // Without a link it goes on with what it is attached to, and only with that.
    json(run_on(&node, &["node", "share", &link(&network.coordinator), "42"]));
    network.nodes[0].kill();
    network.nodes[0].restart_with(&[
        "node",
        "start",
        "--ip",
        "127.0.0.1",
        "--cpus",
        "1",
        "--executor",
        "wasm",
    ]);
    assert_eq!(project(&node, &link(&network.coordinator))["share"], 42);
    assert!(find(&node, &link(&other)).is_none());
    wait_for_done(&network, &network.coordinator, &mine);

    // Others compute what the node left.
    network.nodes[0].kill();
    let args = ["node", "start", &link(&other), "--ip", "127.0.0.1", "--executor", "wasm"];
    let dir = network.folder.path().join("node-2");
    let log = network.folder.path().join("node-2.log");
    let _stranger = Process::start(log, dir, args.map(str::to_owned).to_vec());
    wait_for_done(&network, &other, &theirs);
}

#[test]
fn a_node_without_a_project_says_what_it_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused =
        run_on(folder.path(), &["node", "start", "--ip", "127.0.0.1", "--executor", "wasm"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("name the join link"), "{told}");
}
