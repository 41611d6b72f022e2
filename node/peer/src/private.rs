//! Outputs of a node are shown to the project's coordinator, and to nobody else without its
//! permission.
//!
//! Until a quorum agrees, a lazy node must have nothing to copy: not the output's bytes, and
//! for a small output not even a yes or no to "do you hold this block?". When the quorum has
//! agreed, the coordinator may permit single nodes to have an output, to work on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use dockercomp_protocol::content::Digest;
use dockercomp_protocol::{Cid, NodeId, content};

/// Nodes that may have one output. All replicas of the one unit that works on it are fewer.
const PERMITTED_MAX: usize = 256;

/// Blocks of outputs, and who may have them. Clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Private {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    outputs: BTreeMap<Cid, Output>,
    /// The outputs that a block belongs to.
    blocks: BTreeMap<Digest, Vec<Cid>>,
    trusted: Option<NodeId>,
}

#[derive(Debug, Default)]
struct Output {
    blocks: Vec<Digest>,
    permitted: BTreeSet<NodeId>,
}

impl Private {
    /// Who may have outputs.
    pub(crate) fn trust(&self, peer: NodeId) {
        self.inner.write().expect("no holder of this lock panics").trusted = Some(peer);
    }

    /// Who may have outputs, if that is known yet.
    pub(crate) fn trusted(&self) -> Option<NodeId> {
        self.inner.read().expect("no holder of this lock panics").trusted
    }

    /// Hides an output. Hiding it again changes nothing.
    pub(crate) fn hide(&self, root: Cid, blocks: &[Cid]) {
        let blocks: BTreeSet<Digest> =
            blocks.iter().filter_map(|cid| content::digest(cid).ok()).collect();
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        if inner.outputs.contains_key(&root) {
            return;
        }
        for digest in &blocks {
            inner.blocks.entry(*digest).or_default().push(root);
        }
        let blocks = blocks.into_iter().collect();
        inner.outputs.insert(root, Output { blocks, permitted: BTreeSet::new() });
    }

    /// Lets one more peer have an output that is hidden here.
    pub(crate) fn permit(&self, root: &Cid, peer: NodeId) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        if let Some(output) = inner.outputs.get_mut(root)
            && output.permitted.len() < PERMITTED_MAX
        {
            output.permitted.insert(peer);
        }
    }

    /// Hides an output no longer.
    pub(crate) fn reveal(&self, root: &Cid) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        let Some(output) = inner.outputs.remove(root) else { return };
        for digest in &output.blocks {
            if let Some(roots) = inner.blocks.get_mut(digest) {
                roots.retain(|of| of != root);
                if roots.is_empty() {
                    inner.blocks.remove(digest);
                }
            }
        }
    }

    /// Whether a peer may have a block, or be told whether it is here.
    pub(crate) fn may_serve(&self, peer: &NodeId, digest: &Digest) -> bool {
        let inner = self.inner.read().expect("no holder of this lock panics");
        let Some(roots) = inner.blocks.get(digest) else { return true };
        let permits = |root| {
            inner.outputs.get(root).is_some_and(|output: &Output| output.permitted.contains(peer))
        };
        inner.trusted.as_ref() == Some(peer) || roots.iter().any(permits)
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;

    #[test]
    fn hidden_blocks_are_for_the_coordinator_only() {
        let [coordinator, stranger] =
            [1, 2].map(|_| Keypair::generate_ed25519().public().to_peer_id());
        let block = content::chunk_cid(b"shared by two outputs");
        let digest = content::digest(&block).expect("ours");
        let [one, two] = [b"one", b"two"].map(|name| content::block_cid(name));
        let private = Private::default();
        private.trust(coordinator);
        for root in [one, one, two] {
            private.hide(root, &[root, block]);
        }
        assert!(private.may_serve(&coordinator, &digest));
        assert!(!private.may_serve(&stranger, &digest));
        private.reveal(&one);
        assert!(!private.may_serve(&stranger, &digest));
        private.reveal(&two);
        assert!(private.may_serve(&stranger, &digest));
    }

    /// A permission is for one output and one peer.
    #[test]
    fn a_permission_opens_one_output_to_one_peer() {
        let [friend, stranger] = [1, 2].map(|_| Keypair::generate_ed25519().public().to_peer_id());
        let [one, two] = [b"one", b"two"].map(|name| content::block_cid(name));
        let [digest_of_one, digest_of_two] =
            [one, two].map(|root| content::digest(&root).expect("ours"));
        let private = Private::default();
        // Nothing is opened ahead of time.
        private.permit(&one, friend);
        private.hide(one, &[one]);
        private.hide(two, &[two]);
        assert!(!private.may_serve(&friend, &digest_of_one));
        private.permit(&one, friend);
        assert!(private.may_serve(&friend, &digest_of_one));
        assert!(!private.may_serve(&friend, &digest_of_two));
        assert!(!private.may_serve(&stranger, &digest_of_one));
        // It ends with the output.
        private.reveal(&one);
        private.hide(one, &[one]);
        assert!(!private.may_serve(&friend, &digest_of_one));
    }
}
