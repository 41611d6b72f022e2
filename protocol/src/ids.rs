//! Who and which: identities that are not content.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process on the network, by the hash of its public key.
pub type NodeId = libp2p_identity::PeerId;

/// A project, by the hash of its owner's public key.
pub type ProjectId = libp2p_identity::PeerId;

/// One assignment of a work unit to one node.
///
/// Unique within a coordinator for ever: every re-execution gets a new id, so a message
/// about an old one can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The last eight characters of an identity: enough to tell a handful apart in a table.
#[must_use]
pub fn short(id: &impl fmt::Display) -> String {
    let text = id.to_string();
    let start = text.len().saturating_sub(8);
    text.get(start..).unwrap_or(&text).to_owned()
}
