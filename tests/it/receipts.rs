//! `dockercomp verify`: offline, whole jobs, the first wrong byte, two heads.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use crate::forge::{Forge, fetched};
use crate::network::{dockercomp, json};

/// Runs `verify` where there is no network at all: not even loopback is up.
fn verify(args: &[&str], paths: &[&Path]) -> Output {
    let plain = dockercomp();
    let may_unshare = Command::new("unshare").args(["--net", "true"]).output();
    let mut command = if may_unshare.is_ok_and(|tried| tried.status.success()) {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(plain.get_program());
        for (name, value) in plain.get_envs().filter(|(_, value)| value.is_none()) {
            assert_eq!(value, None);
            command.env_remove(name);
        }
        command
    } else {
        eprintln!("not proven offline: only root can make an empty network namespace");
        plain
    };
    command.args(["verify", "--output", "json"]).args(args).args(paths);
    command.output().expect("the binary starts")
}

/// What a command said when it refused.
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(13), "{stderr}");
    let line = stderr.lines().find(|line| line.starts_with('{')).expect("an error as JSON");
    let error: Value = serde_json::from_str(line).expect("JSON");
    error["error"]["message"].as_str().expect("a message").to_owned()
}

#[test]
fn a_fetched_job_is_verified_without_a_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let forge = fetched(folder.path(), 20);
    let project = forge.project().to_string();
    let verified = json(verify(&["--project", &project], &[folder.path()]));
    let receipts = verified.as_array().expect("a list");
    assert_eq!(receipts.len(), 20);
    assert_eq!(receipts[7]["unit"], 7);
    assert_eq!(receipts[7]["leaf"], 12);
    assert_eq!(receipts[7]["log_entries"], 20);
    assert_eq!(receipts[7]["outputs_checked"], true);
    assert_eq!(receipts[7]["rule"], "quorum of 2");
    assert_eq!(receipts[7]["proven_by_results"], true);
    assert_eq!(receipts[7]["agreeing"].as_array().map(Vec::len), Some(2));

    // One receipt proves itself, wherever it lies.
    let alone = folder.path().join("alone");
    fs::copy(folder.path().join("receipts/00000007.receipt"), &alone).expect("copied");
    let verified = json(verify(&["--project", &project], &[&alone]));
    assert_eq!(verified[0]["unit"], 7);
    let stranger = Forge::new(1);
    let other = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
    assert_ne!(stranger.project().to_string(), other);
    let message = refused(&verify(&["--project", other], &[&alone]));
    assert!(message.contains("is of project"), "{message}");
}

#[test]
fn the_first_wrong_byte_of_a_damaged_receipt_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fetched(folder.path(), 3);
    let receipt = folder.path().join("receipts/00000001.receipt");
    let right = fs::read(&receipt).expect("a receipt");
    // In every part of the file, and in each of its last bytes; the protocol's own test tries
    // every byte.
    for position in (0..right.len()).step_by(right.len() / 24).chain([right.len() - 1]) {
        let mut changed = right.clone();
        changed[position] ^= 0x20;
        fs::write(&receipt, &changed).expect("a file");
        for path in [&receipt, &folder.path().to_owned()] {
            let message = refused(&verify(&[], &[path]));
            assert!(message.contains(receipt.to_str().expect("a plain path")), "{message}");
            assert!(message.contains(&format!("byte {position}, ")), "{position}: {message}");
        }
    }
    fs::write(&receipt, &right[..right.len() / 2]).expect("a file");
    let message = refused(&verify(&[], &[folder.path()]));
    assert!(message.contains(&format!("ends at byte {}", right.len() / 2)), "{message}");
    fs::write(&receipt, [&right[..700], b"inserted", &right[700..]].concat()).expect("a file");
    let message = refused(&verify(&[], &[folder.path()]));
    assert!(message.contains("byte 700, "), "{message}");
    assert!(message.contains("8 bytes too many"), "{message}");
}

#[test]
fn a_fetched_job_must_be_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    fetched(folder.path(), 5);
    let path = |name: &str| folder.path().join(name);
    let check = |expected: &str| {
        let message = refused(&verify(&[], &[folder.path()]));
        assert!(message.contains(expected), "no {expected:?} in {message}");
    };
    // A work unit is removed together with its receipt: nothing that is left is wrong.
    fs::rename(path("receipts/00000004.receipt"), path("receipt")).expect("moved");
    fs::rename(path("units/00000004"), path("unit")).expect("moved");
    check("work unit 4 has no receipt; 1 of the job's 5");
    // Another one in its place.
    fs::copy(path("receipts/00000003.receipt"), path("receipts/00000004.receipt")).expect("copied");
    check("it is of work unit 3");
    fs::rename(path("receipt"), path("receipts/00000004.receipt")).expect("moved");
    check("its outputs are not in");
    fs::rename(path("unit"), path("units/00000004")).expect("moved");
    json(verify(&[], &[folder.path()]));

    fs::create_dir(path("units/00000005")).expect("a folder");
    check("5 receipts for 6 outputs");
    fs::remove_dir(path("units/00000005")).expect("removed");
    let output = path("units/00000002/out.txt");
    fs::write(&output, "another output\n").expect("a file");
    check("units/00000002");
    fs::write(&output, "output 2\n").expect("a file");

    for name in ["job", "head"] {
        let right = fs::read(path(name)).expect("a file");
        let mut changed = right.clone();
        changed[50] ^= 1;
        fs::write(path(name), changed).expect("a file");
        check(&format!("{name}: byte 50 "));
        fs::write(path(name), right).expect("a file");
    }
    json(verify(&[], &[folder.path()]));
}

#[test]
fn heads_of_one_log_carry_each_other_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new, blank, fork) = (
        folder.path().join("old.head"),
        folder.path().join("new.head"),
        folder.path().join("blank.head"),
        folder.path().join("fork.head"),
    );
    let mut forge = Forge::new(40);
    for index in 0..11 {
        forge.accept(folder.path(), index);
    }
    fs::write(&old, forge.head(0)).expect("a file");
    for index in 11..37 {
        forge.accept(folder.path(), index);
    }
    fs::write(&new, forge.head(11)).expect("a file");
    fs::write(&blank, forge.head(0)).expect("a file");

    let agreed = json(verify(&["--heads"], &[&old, &new]));
    assert_eq!((&agreed["entries_before"], &agreed["entries"]), (&11.into(), &37.into()));
    json(verify(&["--heads"], &[&new, &old]));
    json(verify(&["--heads"], &[&new, &blank]));
    let unproven = verify(&["--heads"], &[&old, &blank]);
    assert_eq!(unproven.status.code(), Some(12));

    // The same coordinator with another past.
    let mut other = Forge::new(40);
    for index in [1, 0].into_iter().chain(2..37) {
        other.accept(folder.path(), index);
    }
    fs::write(&fork, other.head(11)).expect("a file");
    for before in [&old, &new] {
        let message = refused(&verify(&["--heads"], &[before, &fork]));
        assert!(message.contains("has rewritten its log"), "{message}");
    }
}

/// How long a fetched job of 1,000 receipts takes. Printed, not judged: `make bench-verify`.
#[test]
fn a_thousand_receipts_are_verified() {
    const RECEIPTS: u64 = 1000;
    let folder = tempfile::tempdir().expect("a folder");
    let forge = fetched(folder.path(), RECEIPTS);
    let project = forge.project().to_string();
    let mut best = f64::INFINITY;
    let figure = std::env::var_os("DOCKERCOMP_BENCH_JSON");
    let runs = if figure.is_some() { 3 } else { 1 };
    for _ in 0..runs {
        let started = Instant::now();
        let output = verify(&["--project", &project], &[folder.path()]);
        best = best.min(started.elapsed().as_secs_f64());
        let verified = json(output);
        assert_eq!(verified.as_array().map(Vec::len), Some(1000));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    println!(
        "verify: {RECEIPTS} receipts with 2 results each and their outputs, no network: {best:.3} \
         s (best of {runs}, whole process, {cores} cores, {profile} profile)"
    );
    if let Some(path) = figure {
        let name = format!("verify/{RECEIPTS} receipts/{profile}");
        let value = serde_json::json!([{
            "name": name, "value": best, "unit": "s", "against": "goal 1 s", "ratio": best
        }]);
        fs::write(path, format!("{value:#}\n")).expect("the figure can be written");
    }
}
