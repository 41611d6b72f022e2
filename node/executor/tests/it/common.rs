//! What the tests of both executors share: directories, limits, a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use dockercomp_executor::{Labels, Program, Run};
use dockercomp_protocol::execution::Limits;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// An input, an output and a checkpoint directory.
pub(crate) struct Directories {
    root: TempDir,
}

impl Directories {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        for name in ["input", "output", "checkpoint"] {
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

    pub(crate) fn checkpoint(&self, name: &str) -> String {
        let path = self.root.path().join("checkpoint").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Takes the output away, as for another attempt; the checkpoint stays.
    pub(crate) fn empty_output(&self) {
        let output = self.root.path().join("output");
        std::fs::remove_dir_all(&output).expect("it is removed");
        std::fs::create_dir(output).expect("directory");
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
            checkpoint: self.root.path().join("checkpoint"),
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

/// An image for `docker load`, made without an engine.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

impl TestImage {
    /// An image of these layers whose entry point is `/busybox`.
    pub(crate) fn of(layers: &[&[u8]]) -> Self {
        let digests = layers.iter().map(|layer| format!("sha256:{}", sha256(layer)));
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/busybox"]},
            "rootfs": {"type": "layers", "diff_ids": digests.collect::<Vec<_>>()},
        });
        let layers = layers.iter().map(|layer| layer.to_vec()).collect();
        Self { config: config.to_string().into_bytes(), layers }
    }

    pub(crate) fn id(&self) -> String {
        format!("sha256:{}", sha256(&self.config))
    }

    /// Writes it as docker-save does, under a tag.
    pub(crate) fn save(&self, path: &Path) {
        let names: Vec<String> =
            (0..self.layers.len()).map(|n| format!("l{n}/layer.tar")).collect();
        let manifest =
            json!([{"Config": "c.json", "RepoTags": ["debian:latest"], "Layers": names}]);
        let manifest = manifest.to_string();
        let mut files =
            vec![("manifest.json", 0o644, manifest.as_bytes()), ("c.json", 0o644, &self.config)];
        files.extend(
            names.iter().zip(&self.layers).map(|(name, bytes)| (name.as_str(), 0o644, &bytes[..])),
        );
        std::fs::write(path, layer(&files)).expect("an archive");
    }
}

/// A tar archive of files with these names, modes and bytes.
pub(crate) fn layer(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, name, *bytes).expect("entry");
    }
    builder.into_inner().expect("an archive")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// All files below a folder, by their paths.
pub(crate) fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.expect("a folder");
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(folder).expect("below it");
            let bytes = std::fs::read(entry.path()).expect("a file");
            files.insert(path.to_str().expect("a plain path").to_owned(), bytes);
        }
    }
    files
}
