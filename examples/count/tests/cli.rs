//! The program as a work unit meets it: killed, started again, and none the wiser.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct Folders {
    output: TempDir,
    checkpoint: TempDir,
}

impl Folders {
    fn new() -> Self {
        let [output, checkpoint] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        Self { output, checkpoint }
    }

    fn start(&self, task: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_count"));
        command.args([task, "--tell", "--into"]).arg(self.output.path());
        command.arg("--checkpoint").arg(self.checkpoint.path());
        command.spawn().expect("the program starts")
    }

    fn run(&self, task: &str) -> Option<i32> {
        self.start(task).wait().expect("it ends").code()
    }

    fn output(&self, name: &str) -> String {
        fs::read_to_string(self.output.path().join(name)).expect("an output")
    }
}

/// The step that was saved last.
fn saved(checkpoint: &Path) -> Option<u64> {
    let text = fs::read_to_string(checkpoint.join("count.txt")).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_count_that_was_killed_goes_on_and_comes_to_the_same() {
    let undisturbed = Folders::new();
    assert_eq!(undisturbed.run("3:20:0"), Some(0));
    assert_eq!(undisturbed.output("from.txt"), "0\n");

    let folders = Folders::new();
    let mut child = folders.start("3:20:100");
    let until = Instant::now() + Duration::from_secs(60);
    while saved(folders.checkpoint.path()).is_none_or(|step| step < 3) {
        assert!(Instant::now() < until, "nothing was saved in a minute");
        std::thread::yield_now();
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let step = saved(folders.checkpoint.path()).expect("a checkpoint");
    assert!((3..20).contains(&step), "{step}");

    assert_eq!(folders.run("3:20:0"), Some(0));
    assert_eq!(folders.output("from.txt"), format!("{step}\n"));
    assert_eq!(folders.output("count.txt"), undisturbed.output("count.txt"));
}

#[test]
fn what_cannot_be_saved_is_an_error() {
    let folders = Folders::new();
    fs::remove_dir(folders.checkpoint.path()).expect("it is empty");
    assert_eq!(folders.run("3:1:0"), Some(1));
    assert_eq!(folders.run("3:1"), Some(2));
}
