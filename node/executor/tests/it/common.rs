//! What the tests of both executors share: directories, limits, a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use dockercomp_executor::{Labels, Program, Run};
use dockercomp_protocol::execution::Limits;
use tempfile::TempDir;

/// An input and an output directory.
pub(crate) struct Directories {
    root: TempDir,
}

impl Directories {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        for name in ["input", "output"] {
            std::fs::create_dir(root.path().join(name)).expect("directory");
        }
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn output(&self, name: &str) -> String {
        let path = self.root.path().join("output").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn write_input(&self, name: &str, text: &str) {
        std::fs::write(self.root.path().join("input").join(name), text).expect("input file");
    }

    pub(crate) fn run(&self, program: &Program, args: &[&str]) -> Run {
        Run {
            program: program.clone(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: BTreeMap::new(),
            input: self.root.path().join("input"),
            output: self.root.path().join("output"),
            limits: limits(),
            labels: Labels { job: "job".into(), unit: "unit".into(), replica: "replica".into() },
        }
    }
}

/// Limits that a harmless program does not meet.
pub(crate) fn limits() -> Limits {
    Limits {
        cpu_millis: 1000,
        memory_bytes: 64 << 20,
        tmp_bytes: 4 << 20,
        output_bytes: 4 << 20,
        output_files: 100,
        pids: 32,
        wall_ms: 60_000,
    }
}

/// Waits until `condition` holds; fails when it does not within half a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within 30 seconds");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The smallest file that passes for a static program of this processor (an ELF machine).
pub(crate) fn tiny_elf(machine: u8) -> Vec<u8> {
    let mut elf = vec![0; 64 + 56];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2; // an executable
    elf[18] = machine;
    elf[32] = 64; // where the program headers are
    elf[54] = 56; // the size of one
    elf[56] = 1; // how many
    elf[64] = 1; // it is loaded
    elf
}
