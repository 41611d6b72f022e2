//! Cancelling a job: nodes stop what runs and forget it.

use serde_json::Value;

use crate::network::{Network, example, json, run_on, wait_until};

#[test]
fn a_cancelled_job_is_stopped_everywhere() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    let job = network.submit(&example("mandelbrot/job.toml"), &[]);
    let tasks = |node: &crate::network::Process| -> u64 {
        let status: Value = json(run_on(&node.dir, &["node", "status"]));
        let tasks = status["tasks"].as_object().expect("counts");
        tasks.values().filter_map(Value::as_u64).sum()
    };
    wait_until("work is under way", || network.nodes.iter().all(|node| tasks(node) > 0));

    let info = network.owner(&["job", "cancel", &job]);
    assert_eq!(info["state"], "cancelled", "{info:#}");
    wait_until("all nodes are idle", || network.nodes.iter().all(|node| tasks(node) == 0));
    let into = network.folder.path().join("results");
    let into = into.to_str().expect("a plain path");
    let fetched = run_on(&network.coordinator.dir, &["job", "fetch", &job, "--into", into]);
    assert_eq!(fetched.status.code(), Some(20));
}
