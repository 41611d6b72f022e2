//! How much work a node may have in a day: less and less for one that fails.
//!
//! BOINC's `max_jobs_per_day`: it doubles with each valid result, falls with each error, wrong
//! result or missed deadline, and is never less than one, so that who has mended a machine
//! finds back. A node that was never heard of begins with plenty.
//!
//! Unlike BOINC's it falls by a share, not by one: a machine that fails every unit in a
//! second is down to a handful within a hundred units, not a thousand.

use dockercomp_protocol::Timestamp;
use serde::{Deserialize, Serialize};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Replicas a day that a node begins with, and the most that it can have.
const MOST: u32 = 100_000_000;
/// Where the fall begins: the first failure brings a node down to this.
const BRINK: u32 = 100_000;
/// What is left after a failure, of ten.
const KEPT_OF_TEN: u32 = 9;

/// A node's quota, and what it used of it today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Replicas that it may have in a day.
    pub per_day: u32,
    /// Replicas that it got on the day that `day` counts, from the epoch.
    pub used: u32,
    /// Which day that is.
    pub day: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { per_day: MOST, used: 0, day: 0 }
    }
}

impl Quota {
    pub(crate) fn note_good(&mut self) {
        self.per_day = self.per_day.saturating_mul(2).min(MOST);
    }

    pub(crate) fn note_bad(&mut self) {
        let fallen = u64::from(self.per_day.min(BRINK)) * u64::from(KEPT_OF_TEN) / 10;
        self.per_day = u32::try_from(fallen).unwrap_or(BRINK).max(1);
    }

    pub(crate) fn note_lease(&mut self, at: Timestamp) {
        let today = at.0 / DAY_MS;
        if self.day != today {
            (self.day, self.used) = (today, 0);
        }
        self.used = self.used.saturating_add(1);
    }

    /// Whether failures have brought it down.
    #[must_use]
    pub const fn has_fallen(&self) -> bool {
        self.per_day < MOST
    }

    /// What is left of it at a time.
    #[must_use]
    pub const fn left(&self, at: Timestamp) -> u32 {
        if self.day == at.0 / DAY_MS {
            self.per_day.saturating_sub(self.used)
        } else {
            self.per_day
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_gets_less_and_less_and_finds_back() {
        let mut quota = Quota::default();
        for _ in 0..150 {
            quota.note_bad();
        }
        assert_eq!(quota.per_day, 1);
        assert!(quota.has_fallen() && !Quota::default().has_fallen());
        let (noon, tomorrow) = (Timestamp(DAY_MS / 2), Timestamp(DAY_MS));
        quota.note_lease(noon);
        assert_eq!((quota.left(noon), quota.left(tomorrow)), (0, 1));
        for expected in [2, 4, 8] {
            quota.note_good();
            assert_eq!(quota.per_day, expected);
        }
    }
}
