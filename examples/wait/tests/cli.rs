//! The program as a work unit meets it: a process with arguments, a directory and an exit code.

use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn it_waits_and_then_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |argument: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wait"));
        command.arg(argument).arg("--into").arg(folder.path());
        command.status().expect("the program starts").code()
    };
    let started = Instant::now();
    assert_eq!(run("3:200"), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(200));
    let written = std::fs::read_to_string(folder.path().join("unit.txt")).expect("an output");
    assert!(written.starts_with("this is work unit 3\n"), "{written}");
    assert_eq!(run("3"), Some(2));
}
