//! Outputs of a node are shown to the coordinator of the project that they were computed for,
//! and to nobody else without its permission.
//!
//! Until a quorum agrees, a lazy node must have nothing to copy: not the output's bytes, and
//! for a small output not even a yes or no to "do you hold this block?". When the quorum has
//! agreed, the coordinator may permit single nodes to have an output, to work on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use dockercomp_protocol::content::Digest;
use dockercomp_protocol::ids::ProjectId;
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
    /// Who coordinates each project.
    trusted: BTreeMap<ProjectId, NodeId>,
}

#[derive(Debug, Default)]
struct Output {
    blocks: Vec<Digest>,
    /// The projects that it was computed for.
    projects: BTreeSet<ProjectId>,
    /// Who else may have it, by whose project's permission.
    permitted: BTreeMap<NodeId, ProjectId>,
}

impl Private {
    /// Says who coordinates a project, and may have its outputs.
    pub(crate) fn trust(&self, project: ProjectId, coordinator: NodeId) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        inner.trusted.insert(project, coordinator);
    }

    /// Forgets a project: its coordinator, and what that permitted.
    pub(crate) fn distrust(&self, project: &ProjectId) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        inner.trusted.remove(project);
        for output in inner.outputs.values_mut() {
            output.projects.remove(project);
            output.permitted.retain(|_, by| by != project);
        }
    }

    /// Who coordinates which project, as far as that is known yet.
    pub(crate) fn trusted(&self) -> BTreeMap<ProjectId, NodeId> {
        self.inner.read().expect("no holder of this lock panics").trusted.clone()
    }

    /// Hides an output of a project. Hiding it again for another project lets that one's
    /// coordinator have it as well.
    pub(crate) fn hide(&self, root: Cid, blocks: &[Cid], project: ProjectId) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        if let Some(output) = inner.outputs.get_mut(&root) {
            output.projects.insert(project);
            return;
        }
        let blocks: BTreeSet<Digest> =
            blocks.iter().filter_map(|cid| content::digest(cid).ok()).collect();
        for digest in &blocks {
            inner.blocks.entry(*digest).or_default().push(root);
        }
        let (blocks, projects) = (blocks.into_iter().collect(), [project].into());
        inner.outputs.insert(root, Output { blocks, projects, permitted: BTreeMap::new() });
    }

    /// Lets one more peer have an output of a project that is hidden here.
    pub(crate) fn permit(&self, project: ProjectId, root: &Cid, peer: NodeId) {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        if let Some(output) = inner.outputs.get_mut(root)
            && output.projects.contains(&project)
            && output.permitted.len() < PERMITTED_MAX
        {
            output.permitted.insert(peer, project);
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
        roots.iter().filter_map(|root| inner.outputs.get(root)).any(|output| {
            let coordinates = |project| inner.trusted.get(project) == Some(peer);
            output.permitted.contains_key(peer) || output.projects.iter().any(coordinates)
        })
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;

    fn peers<const N: usize>() -> [NodeId; N] {
        [(); N].map(|()| Keypair::generate_ed25519().public().to_peer_id())
    }

    #[test]
    fn hidden_blocks_are_for_the_coordinator_only() {
        let [project, coordinator, stranger] = peers();
        let block = content::chunk_cid(b"shared by two outputs");
        let digest = content::digest(&block).expect("ours");
        let [one, two] = [b"one", b"two"].map(|name| content::block_cid(name));
        let private = Private::default();
        private.trust(project, coordinator);
        for root in [one, one, two] {
            private.hide(root, &[root, block], project);
        }
        assert!(private.may_serve(&coordinator, &digest));
        assert!(!private.may_serve(&stranger, &digest));
        private.reveal(&one);
        assert!(!private.may_serve(&stranger, &digest));
        private.reveal(&two);
        assert!(private.may_serve(&stranger, &digest));
    }

    /// Neither another project's coordinator nor whom it permits may have an output.
    #[test]
    fn projects_are_kept_apart() {
        let [mine, yours, my_coordinator, your_coordinator, friend] = peers();
        let output = content::block_cid(b"output");
        let digest = content::digest(&output).expect("ours");
        let private = Private::default();
        private.trust(mine, my_coordinator);
        private.trust(yours, your_coordinator);
        private.hide(output, &[output], mine);
        private.permit(yours, &output, friend);
        assert!(private.may_serve(&my_coordinator, &digest));
        assert!(!private.may_serve(&your_coordinator, &digest));
        assert!(!private.may_serve(&friend, &digest));
        // The same bytes were computed for the other project too.
        private.hide(output, &[output], yours);
        private.permit(yours, &output, friend);
        assert!(private.may_serve(&your_coordinator, &digest));
        assert!(private.may_serve(&friend, &digest));
        private.distrust(&yours);
        assert!(private.may_serve(&my_coordinator, &digest));
        assert!(!private.may_serve(&your_coordinator, &digest));
        assert!(!private.may_serve(&friend, &digest));
    }

    /// A permission is for one output and one peer.
    #[test]
    fn a_permission_opens_one_output_to_one_peer() {
        let [project, friend, stranger] = peers();
        let [one, two] = [b"one", b"two"].map(|name| content::block_cid(name));
        let [digest_of_one, digest_of_two] =
            [one, two].map(|root| content::digest(&root).expect("ours"));
        let private = Private::default();
        // Nothing is opened ahead of time.
        private.permit(project, &one, friend);
        private.hide(one, &[one], project);
        private.hide(two, &[two], project);
        assert!(!private.may_serve(&friend, &digest_of_one));
        private.permit(project, &one, friend);
        assert!(private.may_serve(&friend, &digest_of_one));
        assert!(!private.may_serve(&friend, &digest_of_two));
        assert!(!private.may_serve(&stranger, &digest_of_one));
        // It ends with the output.
        private.reveal(&one);
        private.hide(one, &[one], project);
        assert!(!private.may_serve(&friend, &digest_of_one));
    }
}
