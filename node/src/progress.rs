//! Which running replicas have saved their progress: those whose checkpoints changed.
//!
//! ```text
//! run begins ──► baseline ──► heartbeat: look, name what differs ──answered──► baseline
//! ```
//!
//! A coordinator puts off the deadlines of replicas that are named, so what an earlier attempt
//! left is not progress of this one, and what was named in a heartbeat without an answer is
//! named again.
//!
//! # Bounds
//!
//! A look at a checkpoint visits [`ENTRIES_MAX`] entries at most, and reads nothing but their
//! sizes and times. A program could set these as it likes; it gains what it could have by writing
//! a byte, and the coordinator extends a lease a few times only.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dockercomp_protocol::ReplicaId;

/// The checkpoints of one project's running replicas; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    running: Arc<Mutex<BTreeMap<ReplicaId, Running>>>,
}

/// A checkpoint at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The newest time of modification, in seconds and nanoseconds.
    newest: (i64, i64),
    bytes: u64,
    n_files: u64,
}

#[derive(Clone, Debug)]
struct Running {
    checkpoint: PathBuf,
    /// As it was when the coordinator last heard of it, or when the run began.
    known: Mark,
}

/// Replicas that have saved something since the coordinator last heard of it.
#[derive(Debug, Default)]
pub(crate) struct Saved(Vec<(ReplicaId, Mark)>);

/// Lives as long as a replica runs.
#[derive(Debug)]
pub(crate) struct Attempt {
    progress: Progress,
    replica: ReplicaId,
}

impl Mark {
    /// Looks at a checkpoint. Blocks.
    pub(crate) fn of(checkpoint: &Path) -> Self {
        Self::within(checkpoint, ENTRIES_MAX)
    }

    fn within(checkpoint: &Path, entries_max: usize) -> Self {
        let walk = walkdir::WalkDir::new(checkpoint).follow_root_links(false);
        // What vanishes meanwhile is not looked at.
        let entries = walk.into_iter().take(entries_max).filter_map(Result::ok);
        let mut mark = Self::default();
        for metadata in entries.filter_map(|entry| entry.metadata().ok()) {
            mark.newest = mark.newest.max((metadata.mtime(), metadata.mtime_nsec()));
            if metadata.is_file() {
                mark.bytes = mark.bytes.saturating_add(metadata.len());
                mark.n_files += 1;
            }
        }
        mark
    }
}

impl Progress {
    /// A replica runs from now on; `known` is what it finds.
    pub(crate) fn begin(&self, replica: ReplicaId, checkpoint: PathBuf, known: Mark) -> Attempt {
        self.with(|running| running.insert(replica, Running { checkpoint, known }));
        Attempt { progress: self.clone(), replica }
    }

    /// Looks which of these have saved something. Blocks.
    pub(crate) fn look(&self, replicas: &[ReplicaId]) -> Saved {
        let running = self.with(|running| running.clone());
        let mut saved = Vec::new();
        for &replica in replicas {
            let Some(Running { checkpoint, known }) = running.get(&replica) else { continue };
            let mark = Mark::of(checkpoint);
            if mark.n_files > 0 && mark != *known {
                saved.push((replica, mark));
            }
        }
        Saved(saved)
    }

    /// The coordinator has heard of it.
    pub(crate) fn heard(&self, saved: &Saved) {
        self.with(|running| {
            for (replica, mark) in &saved.0 {
                if let Some(running) = running.get_mut(replica) {
                    running.known = *mark;
                }
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ReplicaId, Running>) -> T) -> T {
        act(&mut self.running.lock().expect("no holder of this lock panics"))
    }
}

impl Saved {
    pub(crate) fn replicas(&self) -> Vec<ReplicaId> {
        self.0.iter().map(|(replica, _)| *replica).collect()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.progress.with(|running| running.remove(&self.replica));
    }
}

/// Entries of a checkpoint that are looked at. A program that saves its progress in more of them
/// renames something in one of the first, or in the folder itself.
const ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const ONE: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(2);

    fn begin(progress: &Progress, replica: ReplicaId, checkpoint: &Path) -> Attempt {
        progress.begin(replica, checkpoint.to_owned(), Mark::of(checkpoint))
    }

    /// As a program is told to: under another name, and then renamed.
    fn save(checkpoint: &Path, text: &str) {
        let new = checkpoint.join("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, checkpoint.join("saved")).expect("a file");
    }

    #[test]
    fn what_was_saved_is_named_until_the_coordinator_has_heard_of_it() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let progress = Progress::default();
        let look = || progress.look(&[ONE, OTHER]);
        let attempt = begin(&progress, ONE, one.path());
        let _other = begin(&progress, OTHER, other.path());
        assert_eq!(look().replicas(), []);

        save(one.path(), "step 1");
        assert_eq!(look().replicas(), [ONE]);
        let unheard = look();
        assert_eq!(look().replicas(), [ONE], "there was no answer");
        save(one.path(), "step 12");
        progress.heard(&unheard);
        assert_eq!(look().replicas(), [ONE], "it was saved while the answer was on its way");
        progress.heard(&look());
        assert_eq!(look().replicas(), []);

        save(other.path(), "step 1");
        assert_eq!(look().replicas(), [OTHER]);
        assert_eq!(progress.look(&[ONE]).replicas(), [], "the agent does not count it as running");
        save(one.path(), "step 123");
        drop(attempt);
        assert_eq!(look().replicas(), [OTHER], "the first one has ended");
    }

    /// A node that is started again and again without getting anywhere puts no deadline off.
    #[test]
    fn what_an_earlier_attempt_left_is_not_progress() {
        let checkpoint = tempfile::tempdir().expect("a directory");
        save(checkpoint.path(), "step 7");
        let progress = Progress::default();
        let _attempt = begin(&progress, ONE, checkpoint.path());
        assert_eq!(progress.look(&[ONE]).replicas(), []);
        save(checkpoint.path(), "step 8!");
        assert_eq!(progress.look(&[ONE]).replicas(), [ONE]);
        fs::remove_file(checkpoint.path().join("saved")).expect("it is removed");
        assert_eq!(progress.look(&[ONE]).replicas(), [], "there is nothing to go on from");
    }

    #[test]
    fn a_look_is_bounded_and_follows_no_link() {
        let [checkpoint, outside] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        fs::write(outside.path().join("large"), [0; 1000]).expect("a file");
        for name in ["a", "b", "c"] {
            symlink(outside.path(), checkpoint.path().join(name)).expect("a link");
        }
        let mark = Mark::of(checkpoint.path());
        assert_eq!((mark.bytes, mark.n_files), (0, 0));
        for number in 0..20 {
            fs::write(checkpoint.path().join(number.to_string()), [0; 1]).expect("a file");
        }
        assert_eq!(Mark::of(checkpoint.path()).n_files, 20);
        assert!((1..9).contains(&Mark::within(checkpoint.path(), 9).n_files));
        assert_eq!(Mark::of(&checkpoint.path().join("a")).n_files, 0, "nor if it is one itself");
        assert_eq!(Mark::of(&checkpoint.path().join("missing")), Mark::default());
    }
}
