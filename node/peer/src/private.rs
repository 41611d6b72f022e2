//! Outputs of a node are shown to the project's coordinator only.
//!
//! Until a quorum agrees, a lazy node must have nothing to copy: not the output's bytes, and
//! for a small output not even a yes or no to "do you hold this block?".

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use dockercomp_protocol::content::Digest;
use dockercomp_protocol::{Cid, NodeId, content};

/// Blocks of outputs, and who may have them. Clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Private {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    outputs: BTreeMap<Cid, Vec<Digest>>,
    /// How many of the outputs a block belongs to.
    blocks: BTreeMap<Digest, usize>,
    trusted: Option<NodeId>,
}

impl Private {
    /// Who may have outputs.
    pub(crate) fn trust(&self, peer: NodeId) {
        self.inner.write().expect("no holder of this lock panics").trusted = Some(peer);
    }

    /// Hides an output. Hiding it again changes nothing.
    pub(crate) fn hide(&self, root: Cid, blocks: &[Cid]) {
        self.reveal(&root);
        let digests: Vec<Digest> =
            blocks.iter().filter_map(|cid| content::digest(cid).ok()).collect();
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        for digest in &digests {
            *inner.blocks.entry(*digest).or_default() += 1;
        }
        inner.outputs.insert(root, digests);
    }

    /// Hides an output no longer.
    pub(crate) fn reveal(&self, root: &Cid) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        for digest in inner.outputs.remove(root).unwrap_or_default() {
            if let Some(count) = inner.blocks.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    inner.blocks.remove(&digest);
                }
            }
        }
    }

    /// Whether a peer may have a block, or be told whether it is here.
    pub(crate) fn may_serve(&self, peer: &NodeId, digest: &Digest) -> bool {
        let inner = self.inner.read().expect("no holder of this lock panics");
        inner.trusted.as_ref() == Some(peer) || !inner.blocks.contains_key(digest)
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
}
