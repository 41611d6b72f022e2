//! Redial: keeping in touch with the bootstrap nodes.
//!
//! # Shape
//!
//! ```text
//! Waiting{due} ──due──► Dialling ──connected──► Connected
//!      ▲                   │ failed                 │ lost
//!      └───longer delay────┴──────first delay───────┘
//! ```
//!
//! Pure: time, jitter and connection ids are arguments. It never gives up, because a node without
//! a bootstrap node may have no other way back.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use crate::options::Backoff;

/// The bootstrap nodes and where we stand with each.
#[derive(Debug)]
pub(super) struct Redial {
    backoff: Backoff,
    doors: BTreeMap<PeerId, Door>,
}

#[derive(Debug)]
struct Door {
    addresses: Vec<Multiaddr>,
    /// Attempts that failed since the last connection.
    n_failed: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { due: Instant },
    Dialling { connection: ConnectionId },
    Connected,
}

impl Redial {
    /// All bootstrap nodes are due at once.
    pub(super) fn new(backoff: Backoff, addresses: Vec<(PeerId, Multiaddr)>, now: Instant) -> Self {
        let mut doors = BTreeMap::new();
        for (peer, address) in addresses {
            let state = State::Waiting { due: now };
            let door = doors.entry(peer).or_insert_with(|| Door {
                addresses: Vec::new(),
                n_failed: 0,
                state,
            });
            door.addresses.push(address);
        }
        Self { backoff, doors }
    }

    pub(super) fn is_bootstrap(&self, peer: PeerId) -> bool {
        self.doors.contains_key(&peer)
    }

    /// Where the user said that a bootstrap node is; nothing for other peers.
    pub(super) fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        self.doors.get(&peer).map(|door| door.addresses.clone()).unwrap_or_default()
    }

    /// When [`Self::due`] is to be asked next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = |door: &Door| match door.state {
            State::Waiting { due } => Some(due),
            State::Dialling { .. } | State::Connected => None,
        };
        self.doors.values().filter_map(due).min()
    }

    /// Whom to dial now. Each must be answered by [`Self::on_dialling`] or
    /// [`Self::on_not_dialled`].
    pub(super) fn due(&self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let is_due = |door: &Door| matches!(door.state, State::Waiting { due } if due <= now);
        let due = self.doors.iter().filter(|(_, door)| is_due(door));
        due.map(|(peer, door)| (*peer, door.addresses.clone())).collect()
    }

    pub(super) fn on_dialling(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(door) = self.doors.get_mut(&peer) {
            door.state = State::Dialling { connection };
        }
    }

    /// The swarm refused the dial, for example because another one is under way.
    pub(super) fn on_not_dialled(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        self.wait(peer, now, jitter);
    }

    pub(super) fn on_connected(&mut self, peer: PeerId) {
        if let Some(door) = self.doors.get_mut(&peer) {
            door.n_failed = 0;
            door.state = State::Connected;
        }
    }

    /// The last connection to a peer closed. `true` if it was a bootstrap node.
    pub(super) fn on_lost(&mut self, peer: PeerId, now: Instant, jitter: f64) -> bool {
        let is_bootstrap = self.is_bootstrap(peer);
        if is_bootstrap {
            self.wait(peer, now, jitter);
        }
        is_bootstrap
    }

    /// A dial failed. `true` if it was ours and to be waited for again.
    pub(super) fn on_failed(
        &mut self,
        peer: PeerId,
        failed: ConnectionId,
        now: Instant,
        jitter: f64,
    ) -> bool {
        let ours = self.doors.get(&peer).is_some_and(
            |door| matches!(door.state, State::Dialling { connection } if connection == failed),
        );
        if ours {
            self.wait(peer, now, jitter);
        }
        ours
    }

    fn wait(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        if let Some(door) = self.doors.get_mut(&peer) {
            let due = now + self.backoff.delay(door.n_failed, jitter);
            door.n_failed = door.n_failed.saturating_add(1);
            door.state = State::Waiting { due };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(4) };

    fn connection(id: usize) -> ConnectionId {
        ConnectionId::new_unchecked(id)
    }

    /// A node that stays away is tried ever more seldom, up to the maximum; once it was reached
    /// and is lost again, the delays begin anew.
    #[test]
    fn delays_grow_until_connected() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut redial = Redial::new(BACKOFF, vec![(peer, Multiaddr::empty())], start);
        assert_eq!(redial.next_deadline(), Some(start));

        let mut now = start;
        for (id, seconds) in [1, 2, 4, 4].into_iter().enumerate() {
            assert_eq!(redial.due(now).len(), 1);
            redial.on_dialling(peer, connection(id));
            assert_eq!(redial.next_deadline(), None);
            assert!(redial.on_failed(peer, connection(id), now, 1.0));
            let due = now + Duration::from_secs(seconds);
            assert_eq!(redial.next_deadline(), Some(due));
            assert!(redial.due(now).is_empty());
            now = due;
        }
        redial.on_connected(peer);
        assert_eq!(redial.next_deadline(), None);
        assert!(redial.on_lost(peer, now, 1.0));
        assert_eq!(redial.next_deadline(), Some(now + Duration::from_secs(1)));
    }

    /// Failures of dials that others made, and peers that are no bootstrap nodes, change nothing.
    #[test]
    fn strangers_are_ignored() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut redial = Redial::new(BACKOFF, vec![(peer, Multiaddr::empty())], start);
        redial.on_dialling(peer, connection(1));
        assert!(!redial.on_failed(peer, connection(2), start, 1.0));
        assert!(!redial.on_lost(PeerId::random(), start, 1.0));
        assert_eq!(redial.next_deadline(), None);
    }
}
