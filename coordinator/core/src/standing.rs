//! What a node's earlier results say about its next one.
//!
//! One standing is kept for each node and each executor that it has used. It is computed from
//! the records of results alone, so a replay gives the same.
//!
//! ```text
//!              a result is invalid, or a spot-check fails
//! in standing ────────────────────────────────────────────► barred
//!      ▲          enough confirmed results, twice as many        │
//!      └───────── each time it is caught ◄───────────────────────┘
//! ```
//!
//! While a node is barred its results are compared but count for nothing, and those that it
//! gave before and that nobody has confirmed yet count for nothing either (backtracking).

use dockercomp_protocol::{ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::odds::Odds;

/// Confirmed results after which a node that was caught once counts again.
const PROBATION_RESULTS: u32 = 10;
/// How often that doubles at most.
const PROBATION_DOUBLINGS_MAX: u32 = 8;

/// A node's record with one executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Replicated valid results since the last one that was invalid, an error or late
    /// (BOINC's `consecutive_valid`).
    pub consecutive_valid: u32,
    /// Spot-checks passed since it was last caught.
    pub checked: u32,
    /// Valid results since it was last caught.
    pub clean: u32,
    /// Those of them that another node confirmed.
    pub confirmed: u32,
    /// How often it was caught.
    pub caught: u32,
    /// How its results ended lately.
    pub record: Record,
    /// Whether its results count for nothing at the moment.
    pub is_barred: bool,
    /// Results of earlier replicas count for nothing.
    pub(crate) counts_from: ReplicaId,
}

/// How a node's results ended, each counted as [`Record::ONE`] and halved every 30 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Equal to the canonical output.
    pub valid: u32,
    /// Different from it.
    pub invalid: u32,
    /// The program failed, or left nothing.
    pub error: u32,
    /// The deadline passed.
    pub late: u32,
    /// When it was last brought up to date.
    pub at: Timestamp,
}

/// How a result ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Valid { is_replicated: bool },
    Invalid,
    Error,
    Late,
    CheckPassed,
    CheckFailed,
}

impl Default for Standing {
    /// Of a node that nothing is known of.
    fn default() -> Self {
        Self {
            consecutive_valid: 0,
            checked: 0,
            clean: 0,
            confirmed: 0,
            caught: 0,
            record: Record::default(),
            is_barred: false,
            counts_from: ReplicaId(0),
        }
    }
}

impl Standing {
    /// Of a node that nothing is known of; a doubtful one has to prove itself first.
    pub(crate) fn of_stranger(is_doubtful: bool) -> Self {
        let counts_from = ReplicaId(if is_doubtful { u64::MAX } else { 0 });
        Self { is_barred: is_doubtful, counts_from, ..Self::default() }
    }

    /// Takes the end of a result into account. Says whether the node was caught by it.
    pub(crate) fn note(&mut self, ending: Ending, at: Timestamp, next: ReplicaId) -> bool {
        self.record.note(ending, at);
        match ending {
            Ending::Valid { is_replicated } => {
                self.clean += 1;
                if is_replicated {
                    self.confirmed += 1;
                    self.consecutive_valid += 1;
                    self.readmit_if_due(next);
                }
            }
            Ending::CheckPassed => {
                self.checked += 1;
                self.clean += 1;
                self.confirmed += 1;
                self.consecutive_valid += 1;
                self.readmit_if_due(next);
            }
            Ending::Error | Ending::Late => self.consecutive_valid = 0,
            // What it did before it was caught adds nothing to that.
            Ending::Invalid | Ending::CheckFailed if self.is_barred => {
                self.consecutive_valid = 0;
                self.confirmed = 0;
            }
            Ending::Invalid | Ending::CheckFailed => {
                self.consecutive_valid = 0;
                self.checked = 0;
                self.clean = 0;
                self.confirmed = 0;
                self.caught += 1;
                self.is_barred = true;
                // Nothing that it did so far, and nothing that it does from now on.
                self.counts_from = ReplicaId(u64::MAX);
                return true;
            }
        }
        false
    }

    fn readmit_if_due(&mut self, next: ReplicaId) {
        if self.is_barred && self.confirmed >= self.probation() {
            self.is_barred = false;
            self.counts_from = next;
        }
    }

    /// Confirmed results that it needs in all to count again.
    #[must_use]
    pub const fn probation(&self) -> u32 {
        let doublings = self.caught.saturating_sub(1);
        let most = PROBATION_DOUBLINGS_MAX;
        PROBATION_RESULTS << if doublings < most { doublings } else { most }
    }

    /// Confirmed results that it still needs before its results count again; none while they
    /// count.
    #[must_use]
    pub const fn confirmed_needed(&self) -> u32 {
        if self.is_barred { self.probation().saturating_sub(self.confirmed) } else { 0 }
    }

    /// Whether a result of this replica counts.
    pub(crate) fn counts(&self, replica: ReplicaId) -> bool {
        replica >= self.counts_from
    }

    /// Its credibility by the spot-checks it has passed (policy `credibility`).
    pub(crate) const fn credibility(&self, saboteurs: u32) -> Odds {
        Odds::after(self.checked, saboteurs)
    }

    /// Its credibility by the results that others confirmed (policy `audited`).
    pub(crate) const fn reliability(&self, saboteurs: u32) -> Odds {
        Odds::after(self.confirmed, saboteurs)
    }
}

impl Record {
    /// What one result counts when it ends.
    pub const ONE: u32 = 256;
    const DAY_MS: u64 = 24 * 3600 * 1000;
    /// What a day leaves of 10,000: half of it after 30 days.
    const KEPT_PER_DAY: u32 = 9772;
    /// Nothing is left after a year.
    const DAYS_MAX: u64 = 365;

    fn note(&mut self, ending: Ending, at: Timestamp) {
        self.decay(at);
        let count = match ending {
            Ending::Valid { .. } | Ending::CheckPassed => &mut self.valid,
            Ending::Invalid | Ending::CheckFailed => &mut self.invalid,
            Ending::Error => &mut self.error,
            Ending::Late => &mut self.late,
        };
        *count = count.saturating_add(Self::ONE);
    }

    /// Brings it up to a time, in whole days.
    pub(crate) fn decay(&mut self, at: Timestamp) {
        let days = at.0.saturating_sub(self.at.0) / Self::DAY_MS;
        if days == 0 {
            return;
        }
        self.at = Timestamp(self.at.0 + days * Self::DAY_MS);
        for count in [&mut self.valid, &mut self.invalid, &mut self.error, &mut self.late] {
            if days >= Self::DAYS_MAX {
                *count = 0;
            }
            for _ in 0..days.min(Self::DAYS_MAX) {
                let kept = u64::from(*count) * u64::from(Self::KEPT_PER_DAY) / 10_000;
                *count = u32::try_from(kept).unwrap_or(u32::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: ReplicaId = ReplicaId(9);
    const CONFIRMED: Ending = Ending::Valid { is_replicated: true };

    #[test]
    fn only_replicated_valid_results_count_in_a_row() {
        let mut standing = Standing::default();
        let mut note = |ending| {
            standing.note(ending, Timestamp(0), NEXT);
            standing.consecutive_valid
        };
        assert_eq!(note(Ending::Valid { is_replicated: false }), 0);
        assert_eq!(note(CONFIRMED), 1);
        assert_eq!(note(CONFIRMED), 2);
        for end in [Ending::Error, Ending::Late, Ending::Invalid] {
            assert_eq!(note(end), 0);
            assert_eq!(note(CONFIRMED), 1);
        }
    }

    #[test]
    fn who_is_caught_counts_again_after_a_probation_that_doubles() {
        let mut standing = Standing::default();
        assert!(standing.counts(ReplicaId(0)));
        for needed in [10, 20, 40] {
            assert!(standing.note(Ending::Invalid, Timestamp(0), NEXT));
            for _ in 0..needed {
                assert!(standing.is_barred && !standing.counts(NEXT));
                standing.note(CONFIRMED, Timestamp(0), NEXT);
            }
            assert!(!standing.is_barred && standing.counts(NEXT));
            assert!(!standing.counts(ReplicaId(8)), "what it did before still counts for nothing");
        }
    }

    #[test]
    fn a_record_halves_in_thirty_days() {
        let mut record = Record::default();
        for _ in 0..100 {
            record.note(Ending::Error, Timestamp(0));
        }
        record.decay(Timestamp(30 * Record::DAY_MS));
        assert!((12_500..13_000).contains(&record.error), "{}", record.error);
        record.decay(Timestamp(400 * Record::DAY_MS));
        assert_eq!(record.error, 0);
    }
}
