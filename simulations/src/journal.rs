//! The coordinator's disk: what a crash leaves.
//!
//! A batch is all or nothing. One that was under way at a crash may be there or not, which is
//! why whoever sends before the commit has ended will be found out.

use std::collections::BTreeSet;

use dockercomp_coordinator_core::{Config, Core, Record};
use dockercomp_protocol::Cid;

use crate::violation::Violation;

/// Durable batches that a lying disk loses.
const LIES: usize = 8;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    records: Vec<Record>,
    /// Records before each batch, to know where one began.
    batches: Vec<usize>,
    /// Outputs that were pulled. They are stored before anybody is told.
    pub(crate) vault: BTreeSet<Cid>,
}

impl Journal {
    pub(crate) fn append(&mut self, records: Vec<Record>) {
        self.batches.push(self.records.len());
        self.records.extend(records);
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Loses the latest batches although they were synced.
    pub(crate) fn lie(&mut self) {
        let batch = self.batches.len().saturating_sub(LIES);
        if let Some(&start) = self.batches.get(batch) {
            self.records.truncate(start);
            self.batches.truncate(batch);
        }
    }

    /// A core with everything that is durable.
    pub(crate) fn replay(&self, config: &Config) -> Result<Core, Box<Violation>> {
        let mut core = Core::new(config.clone());
        for (number, record) in self.records.iter().enumerate() {
            core.apply(record)
                .map_err(|source| Box::new(Violation::ReplayRefused { number, source }))?;
        }
        Ok(core)
    }
}
