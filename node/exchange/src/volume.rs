//! How much may pass in a month, for lines that are paid by volume.
//!
//! Blocks of both directions count together, over a month of the calendar in UTC. When it is
//! used up, nothing more is fetched and no large block is served until the next month begins;
//! what is on its way still comes.
//!
//! The clock and the record that outlives the process are the caller's: see [`Volume::used`].

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use dockercomp_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// What passed in one month.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// The month, as in `2026-11`.
    pub month: String,
    /// Bytes of blocks, in both directions.
    pub bytes: u64,
}

/// A limit, and what passed in the month that is.
pub struct Volume {
    limit_bytes: u64,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    used: Mutex<Used>,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("limit_bytes", &self.limit_bytes).finish_non_exhaustive()
    }
}

impl Volume {
    /// A limit of so many bytes a month, of which `used` have passed before.
    #[must_use]
    pub fn new(
        limit_bytes: u64,
        used: Used,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self { limit_bytes, now: Box::new(now), used: Mutex::new(used) }
    }

    /// Bytes that may pass in a month.
    #[must_use]
    pub const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// What has passed in this month: to be kept, and given to [`Self::new`] the next time.
    #[must_use]
    pub fn used(&self) -> Used {
        self.current().clone()
    }

    /// Whether nothing more may pass.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.current().bytes >= self.limit_bytes
    }

    pub(crate) fn count(&self, bytes: u64) {
        let mut used = self.current();
        used.bytes = used.bytes.saturating_add(bytes);
    }

    /// The month that is. A clock that was set back does not bring an old one back.
    fn current(&self) -> MutexGuard<'_, Used> {
        let month = month((self.now)());
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if month > used.month {
            *used = Used { month, bytes: 0 };
        }
        used
    }
}

fn month(now: Timestamp) -> String {
    let now = UNIX_EPOCH + Duration::from_millis(now.0);
    let mut text = humantime::format_rfc3339_seconds(now).to_string();
    text.truncate("2026-11".len());
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn at(text: &str) -> u64 {
        let at = humantime::parse_rfc3339(text).expect("a time");
        u64::try_from(at.duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("u64")
    }

    #[test]
    fn a_new_month_begins_with_nothing_used_and_an_old_one_does_not_come_back() {
        let clock = Arc::new(AtomicU64::new(at("2026-02-28T23:59:59Z")));
        let now = Arc::clone(&clock);
        let read = move || Timestamp(now.load(Ordering::Relaxed));
        let volume = Volume::new(100, Used::default(), read.clone());
        volume.count(60);
        assert!(!volume.is_used_up());
        volume.count(40);
        assert!(volume.is_used_up());
        assert_eq!(volume.used(), Used { month: "2026-02".into(), bytes: 100 });

        clock.store(at("2026-03-01T00:00:00Z"), Ordering::Relaxed);
        assert!(!volume.is_used_up());
        volume.count(100);
        clock.store(at("2026-02-01T00:00:00Z"), Ordering::Relaxed);
        assert!(volume.is_used_up(), "the clock was set back");

        // A restart within the month.
        let again = Volume::new(100, volume.used(), read);
        assert!(again.is_used_up());
    }
}
