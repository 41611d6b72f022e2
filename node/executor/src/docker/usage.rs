//! What a container uses, read while it runs.
//!
//! The numbers live in the container's control group, which vanishes with it, so they are
//! sampled: at once, then at growing intervals up to [`INTERVAL_MAX`]. The last sample before
//! the end is what is reported; work done after it is not counted, and a program that ends
//! within a few milliseconds may report zero. What the engine spends inside the group to start
//! the container, some 20 ms, is part of it.
//!
//! A local engine's control groups are files that cost nothing to read. Where they are not
//! visible (a remote engine, an engine in a virtual machine), the engine's statistics are asked
//! for instead, once a second; those have no peak, so the highest memory sample stands for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::StatsOptions;
use futures::StreamExt;

/// The highest values seen so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<Mutex<Reading>>);

/// What a container has used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) cpu: Duration,
    pub(super) memory_peak_bytes: u64,
}

impl Meter {
    pub(super) fn reading(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples until it is dropped.
    pub(super) async fn run(&self, docker: &Docker, container: &str) {
        let mut interval = INTERVAL_MIN;
        let group = ControlGroup::find(container);
        loop {
            let reading = match &group {
                Some(group) => Some(group.read()),
                None => ask(docker, container).await,
            };
            if let Some(reading) = reading {
                self.add(reading);
            }
            tokio::time::sleep(if group.is_some() { interval } else { ASK_INTERVAL }).await;
            interval = (interval * 2).min(INTERVAL_MAX);
        }
    }

    fn add(&self, reading: Reading) {
        let mut highest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        highest.cpu = highest.cpu.max(reading.cpu);
        highest.memory_peak_bytes = highest.memory_peak_bytes.max(reading.memory_peak_bytes);
    }
}

/// The files of a container's control group.
enum ControlGroup {
    V1 { cpu: PathBuf, memory: PathBuf },
    V2(PathBuf),
}

impl ControlGroup {
    fn find(container: &str) -> Option<Self> {
        Self::find_below(Path::new("/sys/fs/cgroup"), container)
    }

    fn find_below(root: &Path, container: &str) -> Option<Self> {
        // As the drivers `cgroupfs` and `systemd` name it.
        let names =
            [format!("docker/{container}"), format!("system.slice/docker-{container}.scope")];
        for name in &names {
            let v2 = root.join(name);
            if v2.join("cpu.stat").exists() {
                return Some(Self::V2(v2));
            }
            let (cpu, memory) = (root.join("cpuacct").join(name), root.join("memory").join(name));
            if cpu.exists() && memory.exists() {
                return Some(Self::V1 { cpu, memory });
            }
        }
        None
    }

    fn read(&self) -> Reading {
        match self {
            Self::V1 { cpu, memory } => Reading {
                cpu: Duration::from_nanos(number(&cpu.join("cpuacct.usage"))),
                memory_peak_bytes: number(&memory.join("memory.max_usage_in_bytes")),
            },
            Self::V2(path) => Reading {
                cpu: Duration::from_micros(field(&path.join("cpu.stat"), "usage_usec")),
                // Older kernels have no peak.
                memory_peak_bytes: number(&path.join("memory.peak"))
                    .max(number(&path.join("memory.current"))),
            },
        }
    }
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn field(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

async fn ask(docker: &Docker, container: &str) -> Option<Reading> {
    let options = StatsOptions { stream: false, one_shot: true };
    let stats = std::pin::pin!(docker.stats(container, Some(options))).next().await?.ok()?;
    let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
    let memory = stats.memory_stats;
    let peak = memory.and_then(|memory| memory.max_usage.max(memory.usage));
    Some(Reading {
        cpu: Duration::from_nanos(cpu.unwrap_or(0)),
        memory_peak_bytes: peak.unwrap_or(0),
    })
}

/// Time to the second sample.
const INTERVAL_MIN: Duration = Duration::from_millis(4);
/// Longest time between samples.
const INTERVAL_MAX: Duration = Duration::from_millis(250);
/// Time between questions to the engine, which are far more expensive.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(path, text).expect("file");
    }

    #[test]
    fn both_versions_and_both_drivers_are_read() {
        let root = tempfile::tempdir().expect("temporary directory");
        let root = root.path();
        write(root, "cpuacct/docker/a/cpuacct.usage", "7000000\n");
        write(root, "memory/docker/a/memory.max_usage_in_bytes", "42\n");
        write(root, "system.slice/docker-b.scope/cpu.stat", "user_usec 1\nusage_usec 9000\n");
        write(root, "system.slice/docker-b.scope/memory.current", "77\n");

        let read = |name| ControlGroup::find_below(root, name).map(|group| group.read());
        let reading =
            |ms, memory_peak_bytes| Reading { cpu: Duration::from_millis(ms), memory_peak_bytes };
        assert_eq!(read("a"), Some(reading(7, 42)));
        assert_eq!(read("b"), Some(reading(9, 77)));
        assert_eq!(read("c"), None);
    }
}
