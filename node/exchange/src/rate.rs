//! Limits of bandwidth that a volunteer sets.
//!
//! ```text
//! reserve(bytes) ──► how long to wait before they may pass
//! ```
//!
//! A [`Meter`] is pure: time is an argument. It lets through what was not used for up to
//! [`BURST`], and after that exactly the rate, so it needs no timer of its own (the generic cell
//! rate algorithm of ATM, with bytes for cells).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dockercomp_protocol::NodeId;
use tokio::time::{Instant, sleep};

/// How long unused bandwidth is remembered.
const BURST: Duration = Duration::from_millis(250);
/// Pieces in which limited bytes pass, so that several streams share a slow line evenly.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// Peers whose use of the line is remembered; those that use none are forgotten first.
const PEERS_MAX: usize = 1024;

/// The slowest rate at which a block may be taken, in bytes a second: a line of 1 Mbit/s on
/// which thirty blocks come at once.
pub(crate) const RATE_MIN: u64 = 4 << 10;

/// How long so many bytes take at this rate.
pub(crate) fn time_of(bytes: usize, per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64)
}

/// Bytes a second in each direction; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// To all peers together.
    pub up: Option<u64>,
    /// To each peer.
    pub up_per_peer: Option<u64>,
    /// From all peers together.
    pub down: Option<u64>,
}

/// How far a line is paid for.
#[derive(Clone, Copy, Debug)]
struct Meter {
    paid_until: Instant,
}

impl Meter {
    /// Counts bytes as passed, and says how long they must wait.
    fn reserve(&mut self, now: Instant, bytes: usize, per_second: u64) -> Duration {
        let cost = time_of(bytes, per_second);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.paid_until = self.paid_until.max(earliest) + cost;
        self.paid_until.saturating_duration_since(now)
    }
}

/// The limits of one exchange, which all its streams share.
#[derive(Debug)]
pub(crate) struct Limits {
    rates: Rates,
    up: Mutex<Meter>,
    down: Mutex<Meter>,
    peers: Mutex<HashMap<NodeId, Meter>>,
}

impl Limits {
    pub(crate) fn new(rates: Rates) -> Self {
        let meter = || Meter { paid_until: Instant::now() };
        let (up, down) = (Mutex::new(meter()), Mutex::new(meter()));
        Self { rates, up, down, peers: Mutex::default() }
    }

    /// Bytes a second that all peers together are sent at most.
    pub(crate) const fn rate_up(&self) -> Option<u64> {
        self.rates.up
    }

    /// Whether anything that is sent must wait.
    pub(crate) const fn limits_up(&self) -> bool {
        self.rates.up.is_some() || self.rates.up_per_peer.is_some()
    }

    /// Waits until so many bytes may be sent to a peer.
    pub(crate) async fn up(&self, peer: NodeId, bytes: usize) {
        pause(self.reserve_up(Instant::now(), peer, bytes)).await;
    }

    fn reserve_up(&self, now: Instant, peer: NodeId, bytes: usize) -> Duration {
        let mut wait = Duration::ZERO;
        if let Some(rate) = self.rates.up {
            wait = locked(&self.up).reserve(now, bytes, rate);
        }
        if let Some(rate) = self.rates.up_per_peer {
            let mut peers = locked(&self.peers);
            if peers.len() >= PEERS_MAX {
                peers.retain(|_, meter| meter.paid_until > now);
            }
            let meter = peers.entry(peer).or_insert(Meter { paid_until: now });
            wait = wait.max(meter.reserve(now, bytes, rate));
        }
        wait
    }

    /// Waits as long as bytes that were received must last.
    pub(crate) async fn down(&self, bytes: usize) {
        if let Some(rate) = self.rates.down {
            let wait = locked(&self.down).reserve(Instant::now(), bytes, rate);
            pause(wait).await;
        }
    }
}

async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_exactly_the_rate() {
        let start = Instant::now() + Duration::from_secs(1);
        let mut meter = Meter { paid_until: Instant::now() };
        assert_eq!(meter.reserve(start, 250, 1000), Duration::ZERO);
        assert_eq!(meter.reserve(start, 100, 1000), Duration::from_millis(100));
        let later = start + Duration::from_millis(100);
        assert_eq!(meter.reserve(later, 1000, 1000), Duration::from_secs(1));
        // Rest is remembered for a quarter of a second and no longer.
        let much_later = start + Duration::from_secs(60);
        assert_eq!(meter.reserve(much_later, 1250, 1000), Duration::from_secs(1));
    }

    #[test]
    fn each_peer_has_a_limit_of_its_own() {
        let rates = Rates { up_per_peer: Some(1000), up: Some(10_000), ..Rates::default() };
        let limits = Limits::new(rates);
        let peer = |n: u8| {
            let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
            bytes.extend([n; 32]);
            NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
        };
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(limits.reserve_up(now, peer(1), 1000), Duration::from_secs(1));
        assert_eq!(limits.reserve_up(now, peer(2), 1000), Duration::from_secs(1));
        assert_eq!(limits.reserve_up(now, peer(1), 1000), Duration::from_secs(2));
        // All together: 24 000 bytes at 10 000 a second, of which 2500 pass at once.
        let last = (3..24).map(|n| limits.reserve_up(now, peer(n), 1000)).max();
        assert_eq!(last, Some(Duration::from_millis(2150)));
    }
}
