//! Signed heads, and how they are announced and handed on.

use serde::{Deserialize, Serialize};

use super::proof::{Path, PathError};
use crate::codec::{self, DecodeError};
use crate::content::Digest;
use crate::envelope::{self, OpenError, Statement};
use crate::ids::{NodeId, ProjectId};
use crate::limits::HEAD_NOTICE_BYTES_MAX;
use crate::statement::{Charter, CharterError};
use crate::time::Timestamp;

/// The coordinator's word on the log of its project at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Version of the format, 1.
    pub v: u8,
    /// The project.
    pub project: ProjectId,
    /// How many work units were accepted so far.
    pub size: u64,
    /// The root of the tree over them.
    #[serde(with = "serde_bytes")]
    pub root: Digest,
    /// When it was signed.
    pub at: Timestamp,
}

impl Statement for Head {
    const DOMAIN: &'static str = "dockercomp/head/1";
}

/// A head that can be passed on: with the charter that entitles its signer, and the proof
/// that it carries an earlier one on. Told to all nodes by gossipsub, and the form of a head
/// in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadNotice {
    /// Version of the format, 1.
    pub v: u8,
    /// The project's sealed charter.
    #[serde(with = "serde_bytes")]
    pub charter: Vec<u8>,
    /// The sealed [`Head`].
    #[serde(with = "serde_bytes")]
    pub head: Vec<u8>,
    /// The size of an earlier head, often the one that was announced before.
    pub since: u64,
    /// The proof that this head carries that one on.
    pub proof: Path,
}

/// A head whose signer is the coordinator of its project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it says.
    pub head: Head,
    /// Who signed it.
    pub coordinator: NodeId,
    /// The size of an earlier head.
    pub since: u64,
    /// The proof that this head carries that one on.
    pub proof: Path,
}

/// Why a head is not to be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not a notice.
    #[error("it cannot be read as a head")]
    Decode(#[from] DecodeError),
    /// The charter is not right.
    #[error("the charter cannot be opened")]
    CharterEnvelope(#[source] OpenError),
    /// The signer is not the project's coordinator.
    #[error("the head's signer is not the project's coordinator")]
    Charter(#[from] CharterError),
    /// The head's signature is not right.
    #[error("the signed head cannot be opened")]
    Open(#[source] OpenError),
    /// A format that this version does not know.
    #[error("the head has version {found}, this program reads version 1")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The head is of another project.
    #[error("the head is of project {found}, not {expected}")]
    Project {
        /// The project whose charter comes with it, or the one that is trusted.
        expected: ProjectId,
        /// The head's.
        found: ProjectId,
    },
    /// The proof is of sizes that contradict the head.
    #[error("the head's proof does not fit it")]
    Proof(#[source] PathError),
}

impl Head {
    /// Opens a head that `coordinator` must have signed for `project`.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn open_for(
        bytes: &[u8],
        project: ProjectId,
        coordinator: NodeId,
    ) -> Result<Self, HeadError> {
        let opened = envelope::open::<Self>(bytes).map_err(HeadError::Open)?;
        let head = opened.statement;
        if head.v != 1 {
            return Err(HeadError::Version { found: head.v });
        }
        if head.project != project {
            return Err(HeadError::Project { expected: project, found: head.project });
        }
        if opened.signer != coordinator {
            let (named, asked) = (coordinator, opened.signer);
            return Err(CharterError::Coordinator { named, asked }.into());
        }
        Ok(head)
    }
}

impl HeadNotice {
    /// The gossip topic of all projects' heads.
    pub const TOPIC: &str = "/dockercomp/heads/1";

    /// Opens a notice and checks that the coordinator of the head's project signed the head.
    /// The proof is not checked: that needs the earlier head.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn open(bytes: &[u8]) -> Result<Notice, HeadError> {
        let notice: Self = codec::decode_within(bytes, HEAD_NOTICE_BYTES_MAX)?;
        if notice.v != 1 {
            return Err(HeadError::Version { found: notice.v });
        }
        let charter =
            envelope::open::<Charter>(&notice.charter).map_err(HeadError::CharterEnvelope)?;
        let (project, coordinator) = (charter.signer, charter.statement.coordinator);
        Charter::open_for(&notice.charter, project, coordinator)?;
        let head = Head::open_for(&notice.head, project, coordinator)?;
        let Self { since, proof, .. } = notice;
        if since > head.size {
            let order = PathError::Order { old: since, new: head.size };
            return Err(HeadError::Proof(order));
        }
        Ok(Notice { head, coordinator, since, proof })
    }
}

impl Notice {
    /// Whether this head carries `old` on, by the proof that comes with it. Nothing if the
    /// proof is about another size.
    #[must_use]
    pub fn carries_on(&self, old: &Head) -> Option<bool> {
        if self.head.size == old.size {
            return Some(self.head.root == old.root);
        }
        let checked = || {
            let Head { size, root, .. } = &self.head;
            self.proof.check_consistency(old.size, &old.root, *size, root).is_ok()
        };
        (self.since == old.size && old.size < self.head.size).then(checked)
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::log::leaf_hash;
    use crate::log::tree::Frontier;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
    }

    fn head_of(entries: &[&[u8]]) -> Head {
        let mut frontier = Frontier::default();
        for entry in entries {
            frontier.push(leaf_hash(entry), |_, _, _| {});
        }
        let project = key(1).public().to_peer_id();
        let (size, root) = (frontier.size(), frontier.root());
        Head { v: 1, project, size, root, at: Timestamp(7) }
    }

    fn notice(signer: &Keypair, head: &Head) -> HeadNotice {
        let (owner, coordinator) = (key(1), key(2));
        let project = owner.public().to_peer_id();
        let coordinator = coordinator.public().to_peer_id();
        let charter = Charter { v: 1, project, name: "p".into(), coordinator };
        HeadNotice {
            v: 1,
            charter: envelope::seal(&owner, &charter),
            head: envelope::seal(signer, head),
            since: head.size,
            proof: Path::default(),
        }
    }

    #[test]
    fn head_is_golden() {
        let head = head_of(&[b"a", b"b", b"c"]);
        insta::assert_snapshot!(hex::encode(codec::encode(&head)), @"a56176016261740764726f6f745820130f0a4ab128e862213139397aca3d96d860887c9f1c0f2e36eb06a15a60ff296473697a65036770726f6a65637458260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
        let notice = codec::encode(&notice(&key(2), &head));
        insta::assert_snapshot!(crate::content::block_cid(&notice), @"bafyr4ifcivzquygqcplcl7gf3qv5cuef6b5oyl4ci5qivyjhftidjujadu");
    }

    #[test]
    fn only_the_coordinator_signs_heads() {
        let head = head_of(&[b"a"]);
        let right = codec::encode(&notice(&key(2), &head));
        assert_eq!(HeadNotice::open(&right).expect("a head").head, head);
        let forged = codec::encode(&notice(&key(3), &head));
        assert!(matches!(HeadNotice::open(&forged), Err(HeadError::Charter(_))));
        let foreign = Head { project: key(4).public().to_peer_id(), ..head };
        let foreign = codec::encode(&notice(&key(2), &foreign));
        assert!(matches!(HeadNotice::open(&foreign), Err(HeadError::Project { .. })));
    }

    #[test]
    fn every_changed_byte_of_a_notice_is_noticed() {
        let right = codec::encode(&notice(&key(2), &head_of(&[b"a", b"b"])));
        for position in 0..right.len() {
            let mut changed = right.clone();
            changed[position] ^= 1;
            assert!(HeadNotice::open(&changed).is_err(), "byte {position} may change");
        }
    }

    #[test]
    fn a_rewritten_history_is_not_carried_on() {
        let old = head_of(&[b"a", b"b"]);
        let mut frontier = Frontier::default();
        frontier.push(leaf_hash(b"c"), |_, _, _| {});
        let proof = Path::new(vec![frontier.root()]);
        let open = |head: &Head, since| {
            let notice = HeadNotice { since, proof: proof.clone(), ..notice(&key(2), head) };
            HeadNotice::open(&codec::encode(&notice)).expect("rightly signed")
        };
        assert_eq!(open(&head_of(&[b"a", b"b", b"c"]), 2).carries_on(&old), Some(true));
        assert_eq!(open(&head_of(&[b"x", b"b", b"c"]), 2).carries_on(&old), Some(false));
        assert_eq!(open(&head_of(&[b"a", b"b", b"c"]), 1).carries_on(&old), None);
        assert_eq!(open(&head_of(&[b"a", b"x"]), 2).carries_on(&old), Some(false));
        assert_eq!(open(&old, 2).carries_on(&old), Some(true));
        // A log that shrank carries nothing on, and no proof can say so.
        assert_eq!(open(&head_of(&[b"a"]), 1).carries_on(&old), None);
    }
}
