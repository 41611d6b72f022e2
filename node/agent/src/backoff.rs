//! When a question to the coordinator may be asked (again).

use std::time::Duration;

use dockercomp_protocol::Timestamp;

use crate::Config;

/// One kind of question: at most one on its way, repeated with exponential back-off and
/// jitter after failures.
#[derive(Debug)]
pub(crate) struct Question {
    state: State,
    failures: u32,
    first: Duration,
    max: Duration,
    random: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be asked from then on.
    At(Timestamp),
    /// There was nothing to be had; not before then, unless there is news.
    Waiting(Timestamp),
    /// On its way; `again` if there was news meanwhile.
    Asked { again: bool },
}

impl Question {
    pub(crate) fn new(seed: u64, config: &Config, now: Timestamp) -> Self {
        Self {
            state: State::At(now),
            failures: 0,
            first: config.retry_first,
            max: config.retry_max,
            random: seed,
        }
    }

    /// Something changed that makes it worth asking now.
    pub(crate) fn due(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Asked { .. } => State::Asked { again: true },
            State::At(at) | State::Waiting(at) if self.failures == 0 => State::At(at.min(now)),
            state @ (State::At(_) | State::Waiting(_)) => state,
        };
    }

    /// There is room now, which is no reason to ask one who just said "nothing".
    pub(crate) fn due_unless_waiting(&mut self, now: Timestamp) {
        if !matches!(self.state, State::Waiting(_)) {
            self.due(now);
        }
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// When it is due, unless it is on its way.
    pub(crate) const fn next(&self) -> Option<Timestamp> {
        match self.state {
            State::At(at) | State::Waiting(at) => Some(at),
            State::Asked { .. } => None,
        }
    }

    pub(crate) const fn asked(&mut self) {
        self.state = State::Asked { again: false };
    }

    /// It was answered; the next one is due after `pause`.
    pub(crate) fn answered(&mut self, now: Timestamp, pause: Duration) {
        self.failures = 0;
        self.state = State::At(now + self.unless_news(pause));
    }

    /// It was answered with "nothing"; ask again after `pause` or when there is news.
    pub(crate) fn answered_empty(&mut self, now: Timestamp, pause: Duration) {
        self.failures = 0;
        self.state = State::Waiting(now + self.unless_news(pause));
    }

    /// It was not answered: wait twice as long as last time, give or take a quarter.
    pub(crate) fn failed(&mut self, now: Timestamp) {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.random = splitmix64(self.random);
        let jitter = u32::try_from(self.random % 51).expect("at most 50");
        self.state = State::At(now + doubled * (75 + jitter) / 100);
    }

    fn unless_news(&self, pause: Duration) -> Duration {
        if self.state == (State::Asked { again: true }) { Duration::ZERO } else { pause }
    }
}

/// One step of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): enough for jitter.
const fn splitmix64(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
