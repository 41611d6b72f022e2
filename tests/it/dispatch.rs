//! Dispatch under load: agents that answer at once, as in `make bench-dispatch`, but few units.

use std::path::Path;

use dockercomp_protocol::link::peer_of;
use multiaddr::Multiaddr;
use tokio_util::sync::CancellationToken;

use crate::network::{Network, dockercomp, json};

// What the benchmark's agents process runs.
#[path = "../../coordinator/benches/dispatch/agents.rs"]
mod agents;

use agents::Agent;

const UNITS: u64 = 3000;

/// Every work unit is accepted by two signed results, its output came with them, and what is
/// fetched after a crash is right and proves itself.
#[test]
fn agents_that_answer_at_once_are_kept_busy() {
    let mut network = Network::start();
    let job = network.folder.path().join("job.toml");
    std::fs::write(network.folder.path().join("program.wasm"), b"\0asm\x01\0\0\0").expect("a file");
    let text = format!(
        "version = 1\nname = \"numbers\"\n[program]\nmodule = \"file:program.wasm\"\n\
         args = [\"{{n}}\"]\n[sweep]\nn = {{ from = 1, to = {UNITS} }}\n\
         [validation]\npolicy = \"fixed\"\nmin_quorum = 2\n"
    );
    std::fs::write(&job, text).expect("a job file");
    let job = network.submit(&job, &[]);

    work(&network, || {
        let info = network.wait_for_done(&job);
        assert_eq!(info["results_invalid"], 0, "{info:#}");
    });
    network.coordinator.kill();
    network.coordinator.restart();

    let results = network.fetch(&job, "wasm");
    check(&results);
    let verify = dockercomp().args(["verify", "--output", "json"]).arg(&results).output();
    json(verify.expect("the binary starts"));
}

/// Lets two agents work, and a third stay idle, while `act` runs.
fn work(network: &Network, act: impl FnOnce()) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let status = network.owner(&["coordinator", "status"]);
    let addresses = status["peer"]["addresses"].as_array().expect("a list").iter();
    let address = addresses.filter_map(|a| a.as_str()).find(|a| a.contains("/tcp/"));
    let address: Multiaddr = address.expect("an address").parse().expect("a multiaddr");
    let peer = peer_of(&address).expect("it names the coordinator");
    let shutdown = CancellationToken::new();
    let connect = |streams| {
        runtime
            .block_on(Agent::connect((peer, &address), streams, shutdown.clone()))
            .expect("an agent that is registered")
    };
    let (first, second, idle) = (connect(2), connect(2), connect(1));
    let working = runtime.spawn(first.work(shutdown.clone()));
    runtime.spawn(second.work(shutdown.clone()));
    let idling = runtime.spawn(idle.idle(shutdown.clone()));
    act();
    shutdown.cancel();
    runtime.block_on(working).expect("no panic").expect("every answer was as expected");
    runtime.block_on(idling).expect("no panic").expect("heartbeats were answered");
}

/// Every unit's folder has its number, and nothing else.
fn check(results: &Path) {
    for unit in 0..UNITS {
        let folder = results.join("units").join(format!("{unit:08}"));
        let files = std::fs::read_dir(&folder).expect("a unit's folder").count();
        let number = std::fs::read_to_string(folder.join("number")).expect("the output");
        assert_eq!((files, number), (1, unit.to_string()));
    }
}
