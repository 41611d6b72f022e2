//! Map-reduce over files of a dataset, compared with coreutils; chunks come from peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::network::{Network, docker_or_skip, example, repository, run_on};

/// A corpus of text that is here anyway: this repository's own sources and documents, several
/// times over under different names.
pub(crate) fn corpus(folder: &Path, copies: usize) -> PathBuf {
    let corpus = folder.join("corpus");
    for copy in 0..copies {
        for part in ["protocol", "node", "coordinator", "docs", "examples"] {
            let from = repository(part);
            for entry in walkdir::WalkDir::new(&from).sort_by_file_name() {
                let entry = entry.expect("readable");
                let path = entry.path();
                let is_text =
                    path.extension().is_some_and(|end| end == "rs" || end == "md" || end == "toml");
                if !entry.file_type().is_file() || !is_text {
                    continue;
                }
                let relative = path.strip_prefix(repository(".")).expect("below it");
                let into = corpus.join(format!("copy-{copy}")).join(relative);
                fs::create_dir_all(into.parent().expect("a folder")).expect("a folder");
                let mut text = format!("copy{copy} ").into_bytes();
                text.extend(fs::read(path).expect("readable"));
                fs::write(into, text).expect("a file");
            }
        }
    }
    corpus
}

/// What coreutils count in the same files.
pub(crate) fn counted_by_coreutils(corpus: &Path) -> Vec<u8> {
    let counted =
        Command::new(example("wordcount/check.sh")).arg(corpus).output().expect("it starts");
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    counted.stdout
}

/// Adds a corpus and submits the word count on it.
pub(crate) fn submit(network: &Network, corpus: &Path) -> String {
    let path = corpus.to_str().expect("a plain path");
    let added = network.owner(&["dataset", "add", path, "--name", "corpus"]);
    let cid = added["cid"].as_str().expect("an id").to_owned();
    network.submit(&example("wordcount/job.toml"), &["--dataset", &cid])
}

/// The table that a job ended with.
pub(crate) fn table(network: &Network, job: &str, executor: &str) -> Vec<u8> {
    let results = network.fetch(job, executor);
    fs::read(results.join("result/words.tsv")).expect("a table")
}

fn count_with(executor: &str) {
    let mut network = Network::start();
    network.add_nodes(3, executor, &[]);
    let corpus = corpus(network.folder.path(), 4);
    let job = submit(&network, &corpus);
    network.wait_for_done(&job);
    assert!(
        table(&network, &job, executor) == counted_by_coreutils(&corpus),
        "the tables differ\n{}",
        network.logs()
    );
    for node in &network.nodes {
        let status: Value =
            serde_json::from_slice(&run_on(&node.dir, &["node", "status"]).stdout).expect("JSON");
        assert_eq!(status["executor"], executor);
        let traffic = status["peer"]["traffic"].as_array().expect("a list");
        let down: u64 = traffic.iter().filter_map(|peer| peer["down_bytes"].as_u64()).sum();
        assert!(down > 0, "no chunk came from a peer: {status:#}");
    }
}

#[test]
fn wasm_counts_what_coreutils_count() {
    count_with("wasm");
}

#[test]
fn docker_counts_what_coreutils_count() {
    let Some(_docker) = docker_or_skip("docker_counts_what_coreutils_count") else { return };
    count_with("docker");
}

/// The job of the example, for nodes that may die: what they had is given to others after
/// seconds.
fn impatient_job(folder: &Path) -> PathBuf {
    let text = fs::read_to_string(example("wordcount/stages.toml")).expect("the job file");
    let build = format!("file:{}/", example("wordcount/build").display());
    let text = text
        .replace("file:build/", &build)
        .replace("\"10min\"", "\"20s\"")
        .replace("\"30min\"", "\"20s\"");
    let path = folder.join("job.toml");
    fs::write(&path, text).expect("a job file");
    path
}

/// A saboteur takes part, and one honest node dies in the middle and never comes back.
fn count_in_stages_with(executor: &str) {
    let mut network = Network::start();
    network.add_nodes(4, executor, &[]);
    network.add_nodes(1, executor, &["--fault", "wrong-results"]);
    let corpus = corpus(network.folder.path(), 6);
    let added = network.owner(&["dataset", "add", corpus.to_str().expect("a plain path")]);
    let dataset = added["cid"].as_str().expect("an id").to_owned();
    let job = network.submit(&impatient_job(network.folder.path()), &["--dataset", &dataset]);
    let stages = |info: &Value| info["stages"].as_array().expect("stages").clone();
    let count = |stage: &Value, key: &str| stage[key].as_u64().expect("a number");

    let info = network.wait_for(&job, "the first quarter of the maps", |info| {
        let map = &stages(info)[0];
        count(map, "stored") * 4 >= count(map, "work_units")
    });
    network.nodes[0].kill();
    let map = &stages(&info)[0];
    assert!(count(map, "stored") < count(map, "work_units"), "the maps were over: {info:#}");

    let info = network.wait_for_done(&job);
    assert!(info["results_invalid"].as_u64() > Some(0), "nobody was caught: {info:#}");
    for stage in stages(&info) {
        assert_eq!(count(&stage, "stored"), count(&stage, "work_units"), "{info:#}");
    }
    assert!(
        table(&network, &job, executor) == counted_by_coreutils(&corpus),
        "the tables differ\n{}",
        network.logs()
    );
    // The receipts of all stages, and the output of the last one.
    let results = network.folder.path().join("results");
    let entries = |folder: &str| fs::read_dir(results.join(folder)).expect("a folder").count();
    let work_units = info["work_units"].as_u64().expect("a number");
    assert_eq!((entries("receipts") as u64, entries("units")), (work_units, 1));
    // A node that is killed leaves its containers, and removes them when it starts again.
    network.nodes[0].restart();
}

#[test]
fn wasm_counts_in_stages() {
    count_in_stages_with("wasm");
}

#[test]
fn docker_counts_in_stages() {
    let Some(_docker) = docker_or_skip("docker_counts_in_stages") else { return };
    count_in_stages_with("docker");
}
