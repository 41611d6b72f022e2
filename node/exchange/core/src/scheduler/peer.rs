//! What the scheduler knows of one peer.

use std::time::Duration;

use dockercomp_protocol::time::millis;
use dockercomp_protocol::{NodeId, Timestamp};

use crate::rank;

/// Requests that a peer has open before anything is known of its speed.
const WINDOW_FIRST: usize = 2;
/// A peer that answers within this time may have one more request open.
const ANSWER_GOOD: Duration = Duration::from_millis(500);
/// A peer that takes longer has too many open: what waits there could be asked of others.
const ANSWER_BAD: Duration = Duration::from_secs(1);

/// Whether a peer may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may.
    Active,
    /// It left or was silent; it may come back.
    Gone,
    /// It lied. There is no way back.
    Liar,
}

/// What a peer has said of the blocks that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: it is asked for any block.
    Nothing,
    /// That it holds the whole dataset.
    All,
    /// Which blocks of our lists it holds, up to the list with this number.
    Lists(u32),
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) standing: Standing,
    pub(super) said: Said,
    /// Requests that it has not answered.
    pub(super) n_open: usize,
    /// Requests that it may have open, as far as its answers come quickly.
    window: usize,
    /// It said it was busy, and is left alone until then.
    pub(super) busy_until: Option<Timestamp>,
    /// Smoothed time from request to answer, in milliseconds. Zero before the first answer, so
    /// that peers nobody has measured are tried.
    pub(super) answer_ms: u64,
    /// Blocks that it said it holds and did not give.
    pub(super) n_broken: usize,
    /// Its place where all else is equal, as the seed says.
    pub(super) rank: u64,
    /// When it last answered, or was asked while it had nothing else to do.
    heard_at: Timestamp,
}

impl Peer {
    pub(super) fn new(id: NodeId, seed: u64) -> Self {
        Self {
            id,
            standing: Standing::Active,
            said: Said::Nothing,
            n_open: 0,
            window: WINDOW_FIRST,
            busy_until: None,
            answer_ms: 0,
            n_broken: 0,
            rank: rank(&id.to_bytes(), seed),
            heard_at: Timestamp::default(),
        }
    }

    /// Whether one more request may be sent to it, of at most `per_peer`.
    pub(super) fn is_free(&self, now: Timestamp, per_peer: usize) -> bool {
        self.standing == Standing::Active
            && self.busy_until.is_none_or(|until| until <= now)
            && self.n_open < self.window.min(per_peer)
    }

    /// The best is the least: few open requests, then those that hold a part only, because
    /// whole holders are needed for what nobody else has, then the fastest.
    pub(super) fn merit(&self) -> impl Ord + use<> {
        (self.n_open, self.said == Said::All, self.answer_ms, self.rank)
    }

    /// When its silence will have lasted too long, if anything is asked of it.
    pub(super) fn overdue_at(&self, silence_max: Duration) -> Option<Timestamp> {
        (self.standing == Standing::Active && self.n_open > 0).then(|| self.heard_at + silence_max)
    }

    pub(super) fn on_asked(&mut self, now: Timestamp) {
        if self.n_open == 0 {
            self.heard_at = now;
        }
        self.n_open += 1;
    }

    pub(super) fn on_answered(&mut self, now: Timestamp) {
        self.n_open = self.n_open.saturating_sub(1);
        self.heard_at = now;
    }

    /// It owes one answer less: what it was asked for came from another.
    pub(super) fn on_stopped(&mut self) {
        self.n_open = self.n_open.saturating_sub(1);
    }

    pub(super) fn on_busy(&mut self, until: Timestamp) {
        self.busy_until = Some(until);
        self.window = 1;
    }

    /// Takes a measured answer time into the average, with the weight 1/8 of RFC 6298, and
    /// lets the window follow: more while answers come at once, fewer while they queue.
    pub(super) fn on_measured(&mut self, took: Duration, per_peer: usize) {
        if took < ANSWER_GOOD {
            self.window = (self.window + 1).min(per_peer);
        } else if took > ANSWER_BAD {
            self.window = (self.window - 1).max(1);
        }
        let took_ms = millis(took).max(1);
        self.answer_ms = match self.answer_ms {
            0 => took_ms,
            average => (average.saturating_mul(7).saturating_add(took_ms)) / 8,
        };
    }
}
