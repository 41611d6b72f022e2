//! Watching a process and its children from outside: processor time and memory.
//!
//! Read from `/proc`, so that every contender is measured alike. The kernel's clock ticks a
//! hundred times a second, which is its unit of processor time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the peak of memory is looked at; the kernel keeps it for each process.
const EVERY: Duration = Duration::from_millis(20);
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process and its children have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// Sum of the peaks of all its processes.
    pub(crate) peak_bytes: u64,
}

/// A process that is watched, and ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) child: Child,
    began: Instant,
    peaks: Arc<Mutex<BTreeMap<u32, u64>>>,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Watched {
    pub(crate) fn new(child: Child, began: Instant) -> Self {
        let peaks = Arc::<Mutex<BTreeMap<u32, u64>>>::default();
        let over = Arc::<AtomicBool>::default();
        let (id, seen, stop) = (child.id(), Arc::clone(&peaks), Arc::clone(&over));
        let looking = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                for process in tree(id) {
                    let peak = peak_bytes(process).unwrap_or_default();
                    let known = seen.entry(process).or_default();
                    *known = peak.max(*known);
                }
                drop(seen);
                thread::sleep(EVERY);
            }
        });
        Self { child, began, peaks, over, looking: Some(looking) }
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        let ticks: u64 = tree(self.child.id()).into_iter().filter_map(ticks).sum();
        let peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        Usage { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, peak_bytes: peaks.values().sum() }
    }

    /// Waits for its end. Its usage is read between its end and its burial.
    pub(crate) fn finish(mut self) -> io::Result<(ExitStatus, Duration, Usage)> {
        while !is_zombie(self.child.id()) {
            thread::sleep(Duration::from_millis(1));
        }
        let took = self.began.elapsed();
        let usage = self.usage();
        Ok((self.child.wait()?, took, usage))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.over.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            let _ = looking.join();
        }
    }
}

/// A process and all its descendants.
fn tree(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let mut next = 0;
    while next < all.len() {
        let threads = fs::read_dir(format!("/proc/{}/task", all[next])).into_iter().flatten();
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

/// The fields of `/proc/ID/stat` after the name, which may itself contain spaces.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn is_zombie(id: u32) -> bool {
    stat(id).is_none_or(|fields| fields.first().is_none_or(|state| state == "Z"))
}

/// Its own time in user and kernel mode, and that of its children that have ended.
fn ticks(id: u32) -> Option<u64> {
    let fields = stat(id)?;
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

fn peak_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}
