//! The one place where a process reads the system's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dockercomp_protocol::{Timestamp, time::millis};

/// Time since the epoch that never goes backwards: read from the system once, then counted.
///
/// It starts no earlier than the caller says, so that a system clock that was set back cannot
/// revive what had run out.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that reads at least `last`.
    #[must_use]
    pub fn from(last: Timestamp) -> Self {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base: Timestamp(millis(system)).max(last), started: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    /// The moment at which this clock will read `at`.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + at.since(self.base))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// The system's clock was set back by a day since the last record: time stands still.
    #[test]
    fn a_clock_that_was_set_back_does_not_revive_the_past() {
        let last = Clock::from(Timestamp(0)).now() + DAY;
        let clock = Clock::from(last);
        assert!(clock.now() >= last);
        assert!(clock.now().since(last) < Duration::from_secs(60));
    }

    /// The system's clock was set forward by a day, or the process was away for one.
    #[test]
    fn a_clock_that_was_set_forward_is_believed() {
        let system = Clock::from(Timestamp(0)).now();
        let yesterday = Timestamp(system.0 - millis(DAY));
        assert!(Clock::from(yesterday).now() >= system);
    }
}
