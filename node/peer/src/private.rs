//! Outputs are shown to the project's coordinator only.
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
    /// How many hidden datasets a block belongs to.
    blocks: BTreeMap<Digest, usize>,
    trusted: Option<NodeId>,
}

impl Private {
    /// Who may have outputs.
    pub(crate) fn trust(&self, peer: Option<NodeId>) {
        self.inner.write().expect("no holder of this lock panics").trusted = peer;
    }

    /// Hides blocks.
    pub(crate) fn hide(&self, blocks: &[Cid]) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        for digest in blocks.iter().filter_map(|cid| content::digest(cid).ok()) {
            *inner.blocks.entry(digest).or_default() += 1;
        }
    }

    /// Hides blocks no longer, once for each time that they were hidden.
    pub(crate) fn reveal(&self, blocks: &[Cid]) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        for digest in blocks.iter().filter_map(|cid| content::digest(cid).ok()) {
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
        let block = content::chunk_cid(b"output");
        let digest = content::digest(&block).expect("ours");
        let private = Private::default();
        private.trust(Some(coordinator));
        private.hide(&[block]);
        private.hide(&[block]);
        assert!(private.may_serve(&coordinator, &digest));
        assert!(!private.may_serve(&stranger, &digest));
        private.reveal(&[block]);
        assert!(!private.may_serve(&stranger, &digest));
        private.reveal(&[block]);
        assert!(private.may_serve(&stranger, &digest));
    }
}
