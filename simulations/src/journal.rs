//! The coordinator's disk: what a crash leaves.
//!
//! A batch is all or nothing. One that was under way at a crash may be there or not, which is
//! why whoever sends before the commit has ended will be found out.
//!
//! Now and then the state is written as a whole, as the coordinator's own journal does it, and
//! the records before it are forgotten: a restart is a snapshot and the records after it.
//!
//! # Bounds
//!
//! Two snapshots at most, and the records after the older one: a snapshot is made when the
//! records since the last one have grown to [`GROWTH`] for each replica and node in it.

use std::collections::{BTreeSet, VecDeque};

use dockercomp_coordinator_core::{Config, Core, Record, SnapshotError};
use dockercomp_protocol::Cid;

use crate::violation::Violation;

/// Durable batches that a lying disk loses.
const LIES: usize = 8;
/// Records between two snapshots, at least: some for each crash of a small world.
const RECORDS_MIN: usize = 500;
/// Bytes of a snapshot that are worth one record, about: with as many records as that the
/// journal is as large as the snapshot.
const GROWTH: usize = 256;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Records that are in every snapshot, and are gone.
    n_forgotten: usize,
    records: VecDeque<Record>,
    /// Records before each of the latest batches, to know where one began.
    batches: VecDeque<usize>,
    /// The state after so many records, the older one first.
    snapshots: VecDeque<(usize, Vec<u8>)>,
    /// Outputs that were pulled. They are stored before anybody is told.
    pub(crate) vault: BTreeSet<Cid>,
}

impl Journal {
    pub(crate) fn append(&mut self, records: Vec<Record>) {
        self.batches.push_back(self.len());
        if self.batches.len() > LIES {
            self.batches.pop_front();
        }
        self.records.extend(records);
    }

    /// Records so far.
    pub(crate) fn len(&self) -> usize {
        self.n_forgotten + self.records.len()
    }

    /// Whether there are so many new records that [`Self::snapshot`] pays.
    pub(crate) fn wants_snapshot(&self) -> bool {
        let (at, bytes) = self.snapshots.back().map_or((0, 0), |(at, bytes)| (*at, bytes.len()));
        self.len() - at >= RECORDS_MIN.max(bytes / GROWTH)
    }

    /// Takes the state of a core that has applied all records.
    pub(crate) fn snapshot(&mut self, core: &Core) {
        self.snapshots.push_back((self.len(), core.state().encode()));
        if self.snapshots.len() > 2 {
            self.snapshots.pop_front();
        }
        // The records after the older one stay, for a disk that lies may lose the newer one.
        let keeps = if self.snapshots.len() == 2 { self.snapshots[0].0 } else { 0 };
        self.records.drain(..keeps - self.n_forgotten);
        self.n_forgotten = keeps;
    }

    /// Loses the latest batches although they were synced.
    pub(crate) fn lie(&mut self) {
        if let Some(start) = self.batches.iter().copied().find(|&at| at >= self.n_forgotten) {
            self.records.truncate(start - self.n_forgotten);
            self.batches.clear();
            self.snapshots.retain(|(at, _)| *at <= start);
        }
    }

    /// A core with everything that is durable.
    pub(crate) fn replay(&self, config: &Config) -> Result<Core, Box<Violation>> {
        let (at, mut core) = match self.snapshots.back() {
            None => (0, Core::new(config.clone())),
            Some((at, bytes)) => {
                let refused = |error: SnapshotError| Violation::SnapshotRefused {
                    records: *at,
                    reason: error.to_string(),
                };
                (*at, Core::restore(config.clone(), bytes).map_err(refused)?)
            }
        };
        for (number, record) in (at..).zip(self.records.range(at - self.n_forgotten..)) {
            core.apply(record).map_err(|source| Violation::ReplayRefused { number, source })?;
        }
        Ok(core)
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::Timestamp;

    use super::*;

    fn away(ms: u64) -> Vec<Record> {
        vec![Record::Away { at: Timestamp(ms), ms }]
    }

    /// Batches of one record, with a snapshot after each so many.
    fn journal(batches: u64, every: u64) -> (Journal, Core) {
        let (mut journal, mut core) = (Journal::default(), Core::new(Config::default()));
        for ms in 1..=batches {
            let records = away(ms);
            core.apply(&records[0]).expect("any coordinator may have been away");
            journal.append(records);
            if ms.is_multiple_of(every) {
                journal.snapshot(&core);
            }
        }
        (journal, core)
    }

    #[test]
    fn a_snapshot_and_what_came_after_it_are_the_state() {
        for every in [1, 3, 10, 100] {
            let (journal, core) = journal(40, every);
            let standby = journal.replay(&Config::default()).expect("a journal");
            assert_eq!(standby.state(), core.state(), "a snapshot after each {every}");
            assert_eq!(journal.len(), 40);
            assert!(journal.records.len() as u64 <= 2 * every.min(40));
        }
    }

    #[test]
    fn a_disk_that_lies_loses_the_latest_batches_and_their_snapshots() {
        for every in [20, 6, 100] {
            let (mut lying, _) = journal(40, every);
            lying.lie();
            let (_, core) = journal(32, every);
            let standby = lying.replay(&Config::default()).expect("a journal");
            assert_eq!(standby.state(), core.state(), "a snapshot after each {every}");
        }
    }
}
