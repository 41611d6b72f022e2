//! The one place where the coordinator reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dockercomp_protocol::{Timestamp, time::millis};

/// Time since the epoch that never goes backwards: read from the system once, then counted.
///
/// It starts no earlier than the last record of the journal, so that a system clock that was
/// set back cannot revive leases that had run out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that reads at least `last`.
    pub(crate) fn from(last: Timestamp) -> Self {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base: Timestamp(millis(system)).max(last), started: Instant::now() }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    /// The moment at which this clock will read `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + at.since(self.base))
    }
}
