//! Finding each other: over TCP, over QUIC, and by gossip.

use std::fs;

use serde_json::Value;

use crate::network::{Network, json, run_on, wait_until};
use crate::wordcount::{corpus, submit};

/// Whether a process has logged a line.
fn has_logged(network: &Network, name: &str, line: &str) -> bool {
    let log = fs::read_to_string(network.folder.path().join(format!("{name}.log")));
    log.is_ok_and(|log| log.contains(line))
}

/// A network whose only door is reached over one transport runs a job.
fn meet_over(transport: &str, name: &str) {
    let mut network = Network::start_over(transport);
    network.add_nodes(2, "wasm", &[]);
    let door = network.bootstrap.ready["addresses"][0].as_str().expect("an address").to_owned();
    let door = door.rsplit('/').next().expect("an id");
    let corpus = corpus(network.folder.path(), 1);
    let job = submit(&network, &corpus);
    network.wait_for_done(&job);
    for node in &network.nodes {
        let status: Value = json(run_on(&node.dir, &["node", "status"]));
        let peers = status["peer"]["peers"].as_array().expect("a list").clone();
        let to_door = peers.iter().find(|peer| peer["peer_id"] == door).expect("the door");
        assert_eq!(to_door["transport"], name, "{to_door}");
    }
}

#[test]
fn nodes_meet_over_tcp() {
    meet_over("/tcp/", "tcp");
}

#[test]
fn nodes_meet_over_quic() {
    meet_over("/quic-v1/", "quic");
}

#[test]
fn idle_nodes_hear_of_work_by_gossip() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    wait_until("the nodes have asked and got nothing", || {
        let nodes = network.owner(&["coordinator", "nodes"]);
        nodes.as_array().is_some_and(|nodes| nodes.len() == 2)
    });
    let corpus = corpus(network.folder.path(), 1);
    let job = submit(&network, &corpus);
    for name in ["node-1", "node-2"] {
        wait_until("the announcement is heard", || has_logged(&network, name, "work announced"));
    }
    network.wait_for_done(&job);
}
