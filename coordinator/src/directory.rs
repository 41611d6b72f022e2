//! Who is where, and who probably holds what: hints for nodes that need data.
//!
//! Kept in memory only: nodes register at the start of every connection, and a wrong hint
//! costs one failed request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use dockercomp_protocol::limits::HINT_PEERS_MAX;
use dockercomp_protocol::wire::work::{Hint, HintPeer, Register};
use dockercomp_protocol::{Cid, NodeId};

/// Nodes remembered as holders of one dataset: enough to spread load, few enough to be fresh.
const HOLDERS_MAX: usize = 64;
/// Holders of one output that are hinted: enough that one may be away.
const OUTPUT_HOLDERS_MAX: usize = 3;
/// Nodes remembered with their addresses.
const NODES_MAX: usize = 100_000;

/// The directory; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<NodeId, Entry>,
    holders: BTreeMap<Cid, VecDeque<NodeId>>,
}

#[derive(Clone, Debug)]
struct Entry {
    agent: String,
    addresses: Vec<String>,
}

impl Directory {
    /// Remembers what a node said of itself.
    pub(crate) fn registered(&self, node: NodeId, register: &Register) {
        self.with(|inner| {
            if inner.nodes.len() < NODES_MAX || inner.nodes.contains_key(&node) {
                let entry =
                    Entry { agent: register.agent.clone(), addresses: register.addresses.clone() };
                inner.nodes.insert(node, entry);
            }
        });
    }

    /// Forgets a node that has left.
    pub(crate) fn left(&self, node: &NodeId) {
        self.with(|inner| {
            inner.nodes.remove(node);
            for holders in inner.holders.values_mut() {
                holders.retain(|holder| holder != node);
            }
        });
    }

    /// Nodes that have registered since the start.
    pub(crate) fn n_nodes(&self) -> usize {
        self.with(|inner| inner.nodes.len())
    }

    /// Remembers that a node holds, or is about to hold, parts of a dataset.
    pub(crate) fn holds(&self, node: NodeId, root: Cid) {
        self.with(|inner| {
            let holders = inner.holders.entry(root).or_default();
            if !holders.contains(&node) {
                holders.push_back(node);
                if holders.len() > HOLDERS_MAX {
                    holders.pop_front();
                }
            }
        });
    }

    /// Whom `asker` may ask for a dataset: the coordinator, and other nodes in turn, so that
    /// load is spread.
    pub(crate) fn hint(&self, root: Cid, asker: NodeId, coordinator: &HintPeer) -> Hint {
        self.with(|inner| {
            let mut peers = vec![coordinator.clone()];
            if let Some(holders) = inner.holders.get_mut(&root) {
                // The next asker is sent to other nodes first.
                let turn = HINT_PEERS_MAX.min(holders.len());
                holders.rotate_left(turn);
                let others = holders.iter().filter(|node| **node != asker);
                let located = others.filter_map(|peer| {
                    let addresses = inner.nodes.get(peer)?.addresses.clone();
                    (!addresses.is_empty()).then_some(HintPeer { peer: *peer, addresses })
                });
                peers.extend(located.take(HINT_PEERS_MAX - 1));
            }
            Hint { root, peers }
        })
    }

    /// Whom `asker` may ask for an output: those of its holders that are known to be somewhere,
    /// a few of them, and the coordinator.
    pub(crate) fn output_hint(
        &self,
        root: Cid,
        holders: &[NodeId],
        asker: NodeId,
        coordinator: &HintPeer,
    ) -> Hint {
        self.with(|inner| {
            let others = holders.iter().filter(|node| **node != asker);
            let located = others.filter_map(|peer| {
                let addresses = inner.nodes.get(peer)?.addresses.clone();
                (!addresses.is_empty()).then_some(HintPeer { peer: *peer, addresses })
            });
            let mut peers: Vec<HintPeer> = located.take(OUTPUT_HOLDERS_MAX).collect();
            peers.push(coordinator.clone());
            Hint { root, peers }
        })
    }

    /// What a node calls itself.
    pub(crate) fn agent(&self, node: &NodeId) -> Option<String> {
        self.with(|inner| inner.nodes.get(node).map(|entry| entry.agent.clone()))
    }

    /// Where a node is.
    pub(crate) fn addresses(&self, node: &NodeId) -> Vec<String> {
        self.with(|inner| inner.nodes.get(node).map(|entry| entry.addresses.clone()))
            .unwrap_or_default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().expect("no holder of this lock panics"))
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::block_cid;
    use dockercomp_protocol::wire::work::{Capacity, Platform};
    use libp2p_identity::Keypair;

    use super::*;

    fn node(seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a seed");
        key.public().to_peer_id()
    }

    #[test]
    fn hints_name_the_coordinator_and_other_located_holders() {
        let directory = Directory::default();
        let root = block_cid(b"root");
        let coordinator = HintPeer { peer: node(1), addresses: vec!["/memory/1".into()] };
        let register = |addresses: &[&str]| Register {
            agent: "test".into(),
            executors: vec![],
            offer: Capacity::default(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            operator: None,
            platform: Platform::default(),
        };
        directory.registered(node(2), &register(&["/memory/2"]));
        directory.registered(node(3), &register(&["/memory/3"]));
        directory.registered(node(4), &register(&[]));
        for seed in 2..=4 {
            directory.holds(node(seed), root);
        }
        let peers: Vec<NodeId> =
            directory.hint(root, node(3), &coordinator).peers.iter().map(|p| p.peer).collect();
        assert_eq!(peers, [node(1), node(2)]);
    }
}
