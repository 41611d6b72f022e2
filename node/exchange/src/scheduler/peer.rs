//! What the scheduler knows of one peer.

use std::time::Duration;

use dockercomp_protocol::time::millis;
use dockercomp_protocol::{NodeId, Timestamp};

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

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) standing: Standing,
    /// Requests that it has not answered.
    pub(super) n_open: usize,
    /// It said it was busy, and is left alone until then.
    pub(super) busy_until: Option<Timestamp>,
    /// Smoothed time from request to answer, in milliseconds. Zero before the first answer, so
    /// that peers nobody has measured are tried.
    pub(super) answer_ms: u64,
    /// Its place where all else is equal, as the seed says.
    pub(super) rank: u64,
    /// When it last answered, or was asked while it had nothing else to do.
    heard_at: Timestamp,
}

impl Peer {
    pub(super) fn new(id: &NodeId, seed: u64) -> Self {
        Self {
            standing: Standing::Active,
            n_open: 0,
            busy_until: None,
            answer_ms: 0,
            rank: rank(id, seed),
            heard_at: Timestamp::default(),
        }
    }

    pub(super) fn is_free(&self, now: Timestamp) -> bool {
        self.standing == Standing::Active && self.busy_until.is_none_or(|until| until <= now)
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

    /// Takes a measured answer time into the average, with the weight 1/8 of RFC 6298.
    pub(super) fn on_measured(&mut self, took: Duration) {
        let took_ms = millis(took).max(1);
        self.answer_ms = match self.answer_ms {
            0 => took_ms,
            average => (average.saturating_mul(7).saturating_add(took_ms)) / 8,
        };
    }
}

/// FNV-1a over seed and id: spreads well enough, and is the same on every platform.
fn rank(id: &NodeId, seed: u64) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(id.to_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
