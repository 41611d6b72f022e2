//! Nodes that lie: about chunks and about results.

use serde_json::Value;

use crate::network::{Network, example, json, run_on, wait_until};
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

/// Two nodes agree on an output and then give nothing but wrong bytes of it. While nobody else
/// is there it is asked for without end; when somebody comes it is computed again.
#[test]
fn an_output_that_nobody_gives_is_computed_again() {
    let mut network = Network::start_as("/tcp/", &["--outputs-lost-after", "1s"]);
    network.add_nodes(2, "wasm", &["--fault", "wrong-chunks"]);
    let folder = network.folder.path();
    std::fs::copy(example("mandelbrot/build/mandelbrot.wasm"), folder.join("program.wasm"))
        .expect("a module");
    // Larger than what travels with a result.
    let text = r#"version = 1
name = "picture"
[program]
module = "file:program.wasm"
args = [
    "tile", "--column", "{column}", "--row", "0", "--columns", "1", "--rows", "1",
    "--width", "256", "--height", "256", "--iterations", "10",
]
[sweep]
column = { from = 0, to = 0 }
[resources]
wall_time = "20s"
[validation]
policy = "fixed"
min_quorum = 2
target_nresults = 2
max_error_results = 8
max_total_results = 40
max_success_results = 8
delay_bound = "2min"
"#;
    std::fs::write(folder.join("job.toml"), text).expect("a job file");
    let job = network.submit(&folder.join("job.toml"), &[]);
    network.wait_for(&job, "the agreement", |info| info["accepted"] == 1);
    // It is asked for in vain, for longer than it takes to be lost, and once more.
    let log = network.folder.path().join("coordinator.log");
    let times = |what: &str| std::fs::read_to_string(&log).expect("a log").matches(what).count();
    wait_until("it is asked for twice", || times("output not fetched yet") >= 2);
    let info = network.job(&job);
    assert_eq!((&info["stored"], &info["replicas"]), (&0.into(), &2.into()), "{info:#}");
    assert_eq!(times("output lost"), 0, "{}", network.logs());

    network.add_nodes(1, "wasm", &[]);
    let info = network.wait_for_done(&job);
    assert_eq!(times("output lost"), 1, "{}", network.logs());
    assert_eq!((&info["replicas"], &info["results_valid"]), (&3.into(), &3.into()), "{info:#}");
    let results = network.fetch(&job, "wasm");
    assert!(results.join("units/00000000").read_dir().expect("a folder").count() > 0);
}
