//! The demo, as its user runs it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::network::{docker_or_skip, dockercomp, example, json, repository, rest_of, wait_until};

/// A small picture is as good a proof as a large one, and many times cheaper.
const SMALL: [&str; 6] = ["--width", "256", "--height", "192", "--iterations", "2000"];

/// The example's job file, for a small picture.
fn small_job(folder: &Path) -> PathBuf {
    let job = std::fs::read_to_string(example("mandelbrot/job.toml")).expect("a job file");
    let build = format!("file:{}/", example("mandelbrot/build").display());
    let job = job
        .replace("file:build/", &build)
        .replace("\"1024\"", "\"256\"")
        .replace("\"768\"", "\"192\"")
        .replace("\"20000\"", "\"2000\"");
    let path = folder.join("job.toml");
    std::fs::write(&path, job).expect("a job file");
    path
}

/// The picture as the program computes it alone, without any network.
fn picture_alone(folder: &Path, size: &[&str]) -> Vec<u8> {
    let path = folder.join("alone.png");
    let computed = Command::new(example("mandelbrot/build/mandelbrot"))
        .arg("whole")
        .args(size)
        .arg("--into")
        .arg(&path)
        .status()
        .expect("the example starts");
    assert!(computed.success());
    std::fs::read(path).expect("a picture")
}

fn check(report: &Value, alone: &[u8], executor: &str) {
    assert_eq!(report["executor"], executor);
    assert_eq!(report["work_units"], 64);
    assert!(report["replicas"].as_u64() >= Some(128), "{report:#}");
    assert_eq!(report["receipts_verified"], 64);
    assert!(report["results_valid"].as_u64() >= Some(128), "{report:#}");
    let caught = report["caught"].as_array().expect("a list");
    assert_eq!(caught.len(), 1, "{report:#}");
    assert_eq!(caught[0]["saboteur"], true);
    assert!(report["results_invalid"].as_u64() >= Some(1), "{report:#}");
    let picture = std::fs::read(report["picture"].as_str().expect("a path")).expect("a picture");
    assert!(picture == alone, "the picture differs from the one computed alone");
}

#[test]
fn wasm_gives_the_picture_and_catches_the_saboteur() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("keep");
    let output = dockercomp()
        .current_dir(repository("."))
        .args(["demo", "--executor", "wasm", "--output", "json", "--keep"])
        .arg(&keep)
        .arg("--job")
        .arg(small_job(folder.path()))
        .output()
        .expect("the binary starts");
    check(&json(output), &picture_alone(folder.path(), &SMALL), "wasm");
    receipts_are_brittle(&keep.join("results/receipts/00000000.receipt"));
    outputs_are_bound_to_receipts(&keep.join("results"));
}

/// Every byte of a receipt matters; a few dozen positions stand for all of them here, the
/// protocol's own test tries each.
fn receipts_are_brittle(receipt: &Path) {
    let verify = |path: &Path| {
        dockercomp().arg("verify").arg(path).output().expect("the binary starts").status.code()
    };
    assert_eq!(verify(receipt), Some(0));
    let right = std::fs::read(receipt).expect("a receipt");
    let changed_path = receipt.with_extension("changed");
    for position in (0..right.len()).step_by(right.len() / 40 + 1) {
        let mut changed = right.clone();
        changed[position] ^= 1;
        std::fs::write(&changed_path, changed).expect("a file");
        assert_eq!(verify(&changed_path), Some(13), "byte {position} may change");
    }
    std::fs::remove_file(changed_path).expect("it is there");
}

fn outputs_are_bound_to_receipts(results: &Path) {
    let verify = || dockercomp().arg("verify").arg(results).output().expect("the binary starts");
    assert!(verify().status.success());
    let tile = results.join("units/00000000/tile.ppm");
    let mut bytes = std::fs::read(&tile).expect("a tile");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let right = std::fs::read(&tile).expect("a tile");
    std::fs::write(&tile, bytes).expect("a tile");
    assert_eq!(verify().status.code(), Some(13));
    std::fs::write(&tile, right).expect("a tile");
    assert!(verify().status.success());

    // Two work units change places, with their receipts.
    let swap = |folder: &str, one: &str, two: &str| {
        let path = |name: &str| results.join(folder).join(name);
        std::fs::rename(path(one), path("aside")).expect("renamed");
        std::fs::rename(path(two), path(one)).expect("renamed");
        std::fs::rename(path("aside"), path(two)).expect("renamed");
    };
    swap("units", "00000001", "00000002");
    swap("receipts", "00000001.receipt", "00000002.receipt");
    assert_eq!(verify().status.code(), Some(13));
    swap("units", "00000001", "00000002");
    swap("receipts", "00000001.receipt", "00000002.receipt");
    assert!(verify().status.success());

    // One is missing.
    std::fs::remove_dir_all(results.join("units/00000003")).expect("removed");
    assert_eq!(verify().status.code(), Some(13));
}

#[test]
fn without_an_engine_the_demo_chooses_wasm_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("keep");
    let output = dockercomp()
        .current_dir(repository("."))
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .args(["demo", "--nodes", "3", "--output", "json", "--keep"])
        .arg(&keep)
        .arg("--job")
        .arg(small_job(folder.path()))
        .output()
        .expect("the binary starts");
    let report = json(output);
    assert_eq!(report["executor"], "wasm");
    let reason = report["executor_reason"].as_str().expect("a text");
    assert!(reason.contains("/nonexistent/docker.sock"), "{reason}");
}

#[test]
fn docker_gives_the_picture_in_locked_containers_and_leaves_nothing() {
    let Some(_docker) = docker_or_skip("docker_gives_the_picture") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("keep");
    let images = all_images();
    let mut demo = dockercomp()
        .current_dir(repository("."))
        .args(["demo", "--executor", "docker", "--output", "json", "--keep"])
        .arg(&keep)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut seen = 0;
    wait_until("the demo ends", || {
        seen += inspect_containers();
        demo.try_wait().expect("its status").is_some()
    });
    let report = json(demo.wait_with_output().expect("its output"));
    check(&report, &picture_alone(folder.path(), &[]), "docker");
    assert!(seen > 0, "no container was ever seen");
    assert_nothing_left(&images);
}

/// Checks every limit of the containers that run now; gives how many there were.
fn inspect_containers() -> usize {
    let ids = docker(&["ps", "-q", "--no-trunc", "--filter", "label=dockercomp.node"]);
    let mut checked = 0;
    for id in ids.split_whitespace() {
        // It may be gone by now.
        let Ok(found) = serde_json::from_str::<Value>(&docker(&["inspect", id])) else { continue };
        let Some(container) = found.get(0) else { continue };
        let host = &container["HostConfig"];
        assert_eq!(host["NetworkMode"], "none");
        assert_eq!(host["ReadonlyRootfs"], true);
        assert_eq!(host["CapDrop"][0], "ALL");
        assert_eq!(host["Privileged"], false);
        assert!(host["PidsLimit"].as_i64() > Some(0));
        assert!(host["Memory"].as_i64() > Some(0));
        assert_eq!(host["Memory"], host["MemorySwap"]);
        assert!(host["NanoCpus"].as_i64() > Some(0));
        let options = host["SecurityOpt"].to_string();
        assert!(options.contains("no-new-privileges"), "{options}");
        let user = container["Config"]["User"].as_str().unwrap_or_default();
        assert!(!user.is_empty() && !user.starts_with('0'), "user {user:?}");
        checked += 1;
    }
    checked
}

/// Nothing is in the engine that was not there before.
fn assert_nothing_left(images_before: &BTreeSet<String>) {
    let containers = docker(&["ps", "-aq", "--filter", "label=dockercomp.node"]);
    assert_eq!(containers.trim(), "", "containers are left");
    let left: Vec<String> = all_images().difference(images_before).cloned().collect();
    assert!(left.is_empty(), "images are left: {left:?}");
}

fn all_images() -> BTreeSet<String> {
    let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
    let list = docker(&["images", "--all", "--no-trunc", "--format", format]);
    list.lines().map(str::to_owned).collect()
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = dockercomp()
        .current_dir(repository("."))
        .env("TMPDIR", folder.path())
        .args(["demo", "--executor", "wasm", "--nodes", "2", "--saboteurs", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let pid = demo.id().to_string();
    wait_until("nodes run", || processes_below(folder.path()) >= 4);
    let interrupted = Command::new("kill").args(["-INT", &pid]).status().expect("kill starts");
    assert!(interrupted.success());
    wait_until("the demo ends", || demo.try_wait().expect("its status").is_some());
    let status = demo.wait().expect("its status");
    assert_eq!(status.code(), Some(130), "{}", rest_of(demo.stderr.take()));
    assert_eq!(processes_below(folder.path()), 0, "processes are left");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?} is left");
}

#[test]
fn a_demo_interrupted_while_containers_run_leaves_nothing() {
    let Some(_docker) = docker_or_skip("a_demo_interrupted_while_containers_run") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let images = all_images();
    let mut demo = dockercomp()
        .current_dir(repository("."))
        .env("TMPDIR", folder.path())
        .args(["demo", "--executor", "docker", "--nodes", "2", "--saboteurs", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    wait_until("containers run", || inspect_containers() > 0);
    let pid = demo.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().expect("kill starts");
    wait_until("the demo ends", || demo.try_wait().expect("its status").is_some());
    assert_nothing_left(&images);
    assert_eq!(processes_below(folder.path()), 0, "processes are left");
}

/// How many processes have a folder in their command line.
fn processes_below(folder: &Path) -> usize {
    let folder = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("a system with /proc");
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(&folder))
        .count()
}
