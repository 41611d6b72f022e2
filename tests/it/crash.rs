//! `kill -9` in the middle of a job: of the coordinator, of a node, of the bootstrap node.

use crate::network::{Network, docker_or_skip};
use crate::wordcount::{corpus, counted_by_coreutils, submit, table};

/// Each process is killed once in the middle of the same job, and started again.
fn survive(executor: &str) {
    let mut network = Network::start();
    network.add_nodes(3, executor, &[]);
    let corpus = corpus(network.folder.path(), 12);
    let job = submit(&network, &corpus);
    let units = network.job(&job)["work_units"].as_u64().expect("a number");
    assert!(units >= 9, "too few work units to be in the middle of them");

    let stored = |part: u64| {
        move |info: &serde_json::Value| info["stored"].as_u64().is_some_and(|stored| stored >= part)
    };
    network.wait_for(&job, "the first work unit", stored(1));
    network.coordinator.kill();
    network.coordinator.restart();
    let info = network.job(&job);
    assert!(info["stored"].as_u64() >= Some(1), "accepted results are lost: {info:#}");
    assert_eq!(info["state"], "running", "the job was over before the crash");

    network.wait_for(&job, "a third of the work", stored(units / 3));
    network.nodes[0].kill();
    network.nodes[0].restart();

    network.wait_for(&job, "half of the work", stored(units / 2));
    network.bootstrap.kill();
    network.bootstrap.restart();

    let info = network.wait_for_done(&job);
    assert_eq!(info["results_invalid"], 0, "{info:#}");
    assert!(
        table(&network, &job, executor) == counted_by_coreutils(&corpus),
        "the tables differ\n{}",
        network.logs()
    );
}

#[test]
fn wasm_jobs_survive_kills() {
    survive("wasm");
}

#[test]
fn docker_jobs_survive_kills() {
    let Some(_docker) = docker_or_skip("docker_jobs_survive_kills") else { return };
    survive("docker");
}

/// A node that joins after everything was killed once finds the network by the same link.
#[test]
fn everything_comes_back() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    network.bootstrap.kill();
    network.coordinator.kill();
    network.nodes.iter_mut().for_each(|node| node.kill());
    network.bootstrap.restart();
    network.coordinator.restart();
    network.nodes.iter_mut().for_each(|node| node.restart());
    network.add_nodes(1, "wasm", &[]);
    let corpus = corpus(network.folder.path(), 1);
    let job = submit(&network, &corpus);
    network.wait_for_done(&job);
}
