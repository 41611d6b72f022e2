//! What users get wrong: refused with the reason, the fix, and the documented exit code.

use std::fs;
use std::process::Output;

use crate::network::{Network, dockercomp, example, repository, run_on};

const JOB: &str = r#"version = 1
name = "test"
[program]
module = "file:program.wasm"
[sweep]
x = [1, 2]
[resources]
memory = "64 MiB"
"#;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn job_files_are_refused_with_line_reason_and_fix() {
    let network = Network::start();
    let folder = network.folder.path().join("job");
    fs::create_dir(&folder).expect("a folder");
    fs::copy(example("wordcount/build/wordcount.wasm"), folder.join("program.wasm"))
        .expect("a module");
    let cases = [
        ("memory = ", "memroy = ", 2, &["8:1", "unknown field", "fix:"] as &[&str]),
        ("\"64 MiB\"", "\"64 parsec\"", 2, &["8:10", "is not a size", "fix:"]),
        ("file:program.wasm", "alpine:3.19", 2, &["4:10", "not pinned", "image add"]),
        ("file:program.wasm", "file:nowhere.wasm", 2, &["nowhere.wasm", "fix:"]),
        (
            "file:program.wasm",
            "bafkr4ihkr4ld3m4gqkjf4reryxsy2s5tkbxprqkow6fin2iiyvreuzzab4",
            12,
            &["is not here", "fix:"],
        ),
        (
            "[sweep]\nx = [1, 2]",
            "[inputs]\ndataset = \"bafyr4ia7stf7ge5tzyrsk6tskhva7sk2erkw5jqr4t4pi5pfjglrxlw3ai\"\n\
             files_per_unit = 1",
            12,
            &["dataset", "is not here", "dataset add"],
        ),
    ];
    for (from, to, code, parts) in cases {
        let file = folder.join("job.toml");
        fs::write(&file, JOB.replace(from, to)).expect("a job file");
        let file = file.to_str().expect("a plain path");
        let output = dockercomp()
            .args(["job", "submit", file, "--data-dir"])
            .arg(&network.coordinator.dir)
            .output()
            .expect("the binary starts");
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{to}: {message}");
        for part in parts {
            assert!(message.contains(part), "{to}: no {part:?} in {message}");
        }
    }
    // Nothing of all that was stored.
    let jobs = network.owner(&["job", "list"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(0), "{jobs}");
}

#[test]
fn a_second_process_on_a_directory_is_refused_with_the_holder() {
    let network = Network::start();
    let pid = fs::read_to_string(network.coordinator.dir.join("LOCK")).expect("a lock");
    let address = network.bootstrap.ready["addresses"][0].as_str().expect("an address").to_owned();
    let output = run_on(
        &network.coordinator.dir,
        &["coordinator", "start", "--ip", "127.0.0.1", "--bootstrap", &address],
    );
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains(pid.trim()), "{}", stderr(&output));
    let output = run_on(&network.bootstrap.dir, &["bootstrap", "start", "--ip", "127.0.0.1"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

#[test]
fn no_engine_and_docker_asked_for_is_an_error_with_the_remedy() {
    let output = dockercomp()
        .current_dir(repository("."))
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .args(["demo", "--nodes", "2", "--executor", "docker"])
        .output()
        .expect("the binary starts");
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(11), "{message}");
    assert!(message.contains("/nonexistent/docker.sock"), "{message}");
    assert!(message.contains("--executor wasm"), "{message}");
}

#[test]
fn commands_without_a_process_say_how_to_start_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for args in [&["job", "list"] as &[&str], &["node", "status"], &["dataset", "list"]] {
        let output = run_on(folder.path(), args);
        assert_eq!(output.status.code(), Some(10), "{args:?}: {}", stderr(&output));
    }
    let output = dockercomp().args(["node", "start", "http://example.org"]).output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("dockercomp://"), "{}", stderr(&output));
}

#[test]
fn a_failing_program_is_told_to_the_owner() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    let folder = network.folder.path().join("job");
    fs::create_dir(&folder).expect("a folder");
    fs::copy(example("mandelbrot/build/mandelbrot.wasm"), folder.join("program.wasm"))
        .expect("a module");
    // The program does not know this argument, says so, and ends with an error.
    let job = JOB
        .replace("[sweep]", "args = [\"nonsense\"]\n[sweep]")
        .replace("[resources]", "[validation]\nmax_error_results = 1\n[resources]");
    fs::write(folder.join("job.toml"), job).expect("a job file");
    let job = network.submit(&folder.join("job.toml"), &[]);
    let info = network.wait_for(&job, "the end of the job", |info| info["state"] != "running");
    assert_eq!(info["state"], "failed", "{info:#}");
    let failure = &info["failures"][0];
    assert!(
        failure["reason"].as_str().is_some_and(|r| r.contains("TooManyErrorResults")),
        "{info:#}"
    );
    assert!(failure["log_tail"].as_str().is_some_and(|tail| !tail.is_empty()), "{info:#}");
    let watched = run_on(&network.coordinator.dir, &["job", "watch", &job]);
    assert_eq!(watched.status.code(), Some(20));
}
