//! Nodes that lie: about chunks and about results.

use serde_json::Value;

use crate::network::{Network, json, run_on, wait_until};
use crate::wordcount::{corpus, counted_by_coreutils, submit, table};

/// A node that serves wrong bytes is noticed, its blocks are fetched elsewhere, and the job
/// still ends right.
#[test]
fn wrong_chunks_are_refused_and_fetched_elsewhere() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &["--fault", "wrong-chunks"]);
    // The liar holds the whole dataset before anybody else wants it.
    let corpus = corpus(network.folder.path(), 2);
    let path = corpus.to_str().expect("a plain path");
    let added = network.owner(&["dataset", "add", path]);
    let cid = added["cid"].as_str().expect("an id").to_owned();
    json(run_on(&network.nodes[0].dir, &["dataset", "get", &cid]));

    network.add_nodes(2, "wasm", &[]);
    let job = submit(&network, &corpus);
    network.wait_for_done(&job);
    assert!(table(&network, &job, "wasm") == counted_by_coreutils(&corpus), "the tables differ");

    let wrong = |node: &crate::network::Process| -> u64 {
        let status: Value = json(run_on(&node.dir, &["node", "status"]));
        let traffic = status["peer"]["traffic"].as_array().expect("a list");
        traffic.iter().filter_map(|peer| peer["wrong_blocks"].as_u64()).sum()
    };
    // Once more, straight from both holders, so that the liar is asked for certain.
    for node in &network.nodes[1..] {
        json(run_on(&node.dir, &["dataset", "get", &cid]));
    }
    wait_until("a lie is noticed", || network.nodes[1..].iter().map(&wrong).sum::<u64>() > 0);
}

/// Two saboteurs of five do not agree with each other, so the right result wins.
#[test]
fn two_saboteurs_are_caught() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &["--fault", "wrong-results"]).add_nodes(3, "wasm", &[]);
    let corpus = corpus(network.folder.path(), 2);
    let job = submit(&network, &corpus);
    let info = network.wait_for_done(&job);
    assert!(table(&network, &job, "wasm") == counted_by_coreutils(&corpus), "the tables differ");
    let saboteurs: Vec<String> =
        network.nodes[..2].iter().map(|node| node.text("peer_id")).collect();
    let caught = info["disagreements"].as_array().expect("a list");
    assert!(!caught.is_empty(), "{info:#}");
    for disagreement in caught {
        let node = disagreement["node"].as_str().expect("an id").to_owned();
        assert!(saboteurs.contains(&node), "an honest node was caught: {disagreement}");
    }
}
