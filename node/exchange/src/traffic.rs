//! Who sent how much: bytes in and out, and wrong blocks, by peer.
//!
//! Counted once a block, so one lock is cheap. Bounded: after [`PEERS_MAX`] peers, new ones are
//! counted together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dockercomp_protocol::NodeId;

use crate::volume::Volume;

/// Peers that are counted one by one.
const PEERS_MAX: usize = 4096;

/// What passed between a peer and us since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Bytes of blocks that it sent.
    pub down_bytes: u64,
    /// Bytes of blocks that we sent it.
    pub up_bytes: u64,
    /// Blocks it sent that were not what was asked for, and other breaches of the protocol.
    pub n_wrong: u64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By peer.
    pub peers: BTreeMap<NodeId, PeerTraffic>,
    /// All peers that came after the first 4096.
    pub others: PeerTraffic,
}

impl Snapshot {
    /// All peers together.
    #[must_use]
    pub fn total(&self) -> PeerTraffic {
        self.peers.values().fold(self.others, |sum, peer| PeerTraffic {
            down_bytes: sum.down_bytes + peer.down_bytes,
            up_bytes: sum.up_bytes + peer.up_bytes,
            n_wrong: sum.n_wrong + peer.n_wrong,
        })
    }
}

/// Shared counters; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    counters: Arc<Mutex<Snapshot>>,
    volume: Option<Arc<Volume>>,
}

impl Traffic {
    /// Counters that count against this limit, too.
    pub(crate) fn within(volume: Option<Arc<Volume>>) -> Self {
        Self { counters: Arc::default(), volume }
    }

    /// The month's limit, if it is used up.
    pub(crate) fn used_up(&self) -> Option<&Volume> {
        self.volume.as_deref().filter(|volume| volume.is_used_up())
    }

    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that a peer has sent.
    pub(crate) fn down_bytes(&self, peer: &NodeId) -> u64 {
        let all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        all.peers.get(peer).map_or(0, |counters| counters.down_bytes)
    }

    pub(crate) fn on_down(&self, peer: NodeId, bytes: u64) {
        self.with(peer, |counters| counters.down_bytes += bytes);
        self.count(bytes);
    }

    pub(crate) fn on_up(&self, peer: NodeId, bytes: u64) {
        self.with(peer, |counters| counters.up_bytes += bytes);
        self.count(bytes);
    }

    pub(crate) fn on_wrong(&self, peer: NodeId) {
        self.with(peer, |counters| counters.n_wrong += 1);
    }

    fn count(&self, bytes: u64) {
        if let Some(volume) = &self.volume {
            volume.count(bytes);
        }
    }

    fn with(&self, peer: NodeId, count: impl FnOnce(&mut PeerTraffic)) {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if all.peers.len() >= PEERS_MAX && !all.peers.contains_key(&peer) {
            count(&mut all.others);
        } else {
            count(all.peers.entry(peer).or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> NodeId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend(n.to_be_bytes().repeat(8));
        NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
    }

    #[test]
    fn a_flood_of_strangers_is_counted_but_not_remembered() {
        let traffic = Traffic::default();
        let n_peers = u32::try_from(PEERS_MAX).expect("a few thousand") + 10;
        for n in 0..n_peers {
            traffic.on_up(peer(n), 2);
        }
        traffic.on_down(peer(0), 5);
        traffic.on_wrong(peer(0));
        let snapshot = traffic.snapshot();
        assert_eq!(snapshot.peers.len(), PEERS_MAX);
        assert_eq!(snapshot.others.up_bytes, 20);
        let known = PeerTraffic { down_bytes: 5, up_bytes: 2, n_wrong: 1 };
        assert_eq!(snapshot.peers[&peer(0)], known);
        assert_eq!(snapshot.total().up_bytes, u64::from(n_peers) * 2);
    }
}
