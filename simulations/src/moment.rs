//! Virtual time: microseconds since the world began.
//!
//! The cores count milliseconds since the Unix epoch; [`Moment::timestamp`] is the one place
//! where the two meet. A moment between two milliseconds is told to a core rounded down, as a
//! clock would.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use dockercomp_protocol::Timestamp;

/// The world begins in September 2001: large, like any real time, so that a core which
/// mistakes an age for a date is found out.
const BEGINNING_MS: u64 = 1_000_000_000_000;

/// A point in virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// What a right clock shows.
    pub(crate) const fn timestamp(self) -> Timestamp {
        Timestamp(BEGINNING_MS + self.0 / 1000)
    }

    /// The first moment at which a right clock shows this.
    pub(crate) const fn at(timestamp: Timestamp) -> Self {
        Self(timestamp.0.saturating_sub(BEGINNING_MS).saturating_mul(1000))
    }

    /// Time since the world began.
    pub(crate) const fn age(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_when_its_moment_has() {
        let deadline = Moment(1_234_567).timestamp();
        assert_eq!(deadline, Timestamp(BEGINNING_MS + 1234));
        assert_eq!(Moment::at(deadline), Moment(1_234_000));
        assert_eq!(Moment::at(deadline).timestamp(), deadline);
    }
}
