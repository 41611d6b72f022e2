//! What is signed, and by whom.
//!
//! | Statement | Signed by | Says |
//! |---|---|---|
//! | [`Charter`] | the project's owner | this coordinator speaks for the project |
//! | [`JobSpec`](crate::job::JobSpec) | the project's owner | run this |
//! | [`ResultStatement`] | a node, many at once ([`batch`](crate::batch)) | my replica of this work unit gave this output |
//! | [`Announcement`] | the coordinator | the project has work |
//! | [`Head`](crate::log::Head) | the coordinator | these outputs are canonical, and why |

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::batch::BatchError;
use crate::codec::DecodeError;
use crate::content::{self, CidError};
use crate::envelope::{self, OpenError, Statement};
use crate::execution::{ExecutorKind, Exit, Usage};
use crate::ids::{NodeId, ProjectId, ReplicaId};
use crate::limits::{ANNOUNCEMENT_BYTES_MAX, SEALED_RESULT_BYTES_MAX};
use crate::time::Timestamp;

/// Names the coordinator of a project. A node trusts a coordinator only with a charter that
/// the project's own key has signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// Version of the format, 1.
    pub v: u8,
    /// The project.
    pub project: ProjectId,
    /// What people call it.
    pub name: String,
    /// Who coordinates it.
    pub coordinator: NodeId,
}

impl Statement for Charter {
    const DOMAIN: &'static str = "dockercomp/charter/1";
}

/// Why a charter does not make somebody a project's coordinator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CharterError {
    /// The envelope is not right.
    #[error("the charter cannot be opened")]
    Open(#[from] OpenError),
    /// Right, but of another project, or not signed by the project's key.
    #[error("the charter is not of project {project}, or not signed by its key")]
    Project {
        /// The project that was expected.
        project: ProjectId,
    },
    /// Right, but it names another coordinator.
    #[error("the charter names {named} as coordinator, not {asked}")]
    Coordinator {
        /// Whom it names.
        named: NodeId,
        /// Who claims to be it.
        asked: NodeId,
    },
}

impl Charter {
    /// Opens a charter and checks that it makes `coordinator` the coordinator of `project`.
    ///
    /// # Errors
    /// See [`CharterError`].
    pub fn open_for(
        bytes: &[u8],
        project: ProjectId,
        coordinator: NodeId,
    ) -> Result<Self, CharterError> {
        let opened = envelope::open::<Self>(bytes)?;
        let charter = opened.statement;
        if opened.signer != project || charter.project != project {
            return Err(CharterError::Project { project });
        }
        if charter.coordinator != coordinator {
            let named = charter.coordinator;
            return Err(CharterError::Coordinator { named, asked: coordinator });
        }
        Ok(charter)
    }
}

/// The result of one replica. It names work unit, replica and node, so it can neither be
/// replayed for another nor claimed by another.
///
/// It is signed together with others, see [`batch`](crate::batch).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultStatement {
    /// Version of the format, 1.
    pub v: u8,
    /// The job.
    pub job: Cid,
    /// The work unit.
    pub unit: Cid,
    /// The replica.
    pub replica: ReplicaId,
    /// Who ran it; must be the signer.
    pub node: NodeId,
    /// What ran it.
    pub executor: ExecutorKind,
    /// How the program ended.
    pub exit: Exit,
    /// The root of what it left in `/output`, if it ended with success.
    pub output: Option<Cid>,
    /// What it used.
    pub usage: Usage,
}

/// Why a result was refused before it could reach the coordinator's decisions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// Longer than any result.
    #[error("the result has {bytes} bytes, more than the {SEALED_RESULT_BYTES_MAX} allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
    },
    /// Not a result.
    #[error("the result cannot be read")]
    Malformed(#[from] DecodeError),
    /// The signed root is not right, or not of this result.
    #[error("the result is not signed")]
    Batch(#[from] BatchError),
    /// A format that this version does not know.
    #[error("the result has version {found}, this program reads version 1")]
    Version {
        /// What it says.
        found: u8,
    },
    /// Somebody signed for somebody else.
    #[error("the result of node {node} is signed by {signer}")]
    Stolen {
        /// Who is said to have run it.
        node: NodeId,
        /// Who signed.
        signer: NodeId,
    },
    /// The output is not named as we name datasets.
    #[error("the result's output is not one of our identifiers")]
    Output(#[from] CidError),
    /// Success without output, or output without success.
    #[error("the result's exit and output contradict each other")]
    Inconsistent,
}

impl ResultStatement {
    /// Checks a result of which it is known who signed it.
    pub(crate) fn check_signed_by(&self, signer: NodeId) -> Result<(), ResultError> {
        if self.v != 1 {
            return Err(ResultError::Version { found: self.v });
        }
        if signer != self.node {
            return Err(ResultError::Stolen { node: self.node, signer });
        }
        if self.exit.is_success() != self.output.is_some() {
            return Err(ResultError::Inconsistent);
        }
        if let Some(output) = &self.output {
            content::digest(output)?;
        }
        Ok(())
    }
}

/// "Work is there": told to all nodes by gossipsub, so that they need not poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Version of the format, 1.
    pub v: u8,
    /// The project that has work.
    pub project: ProjectId,
    /// The charter that entitles the signer to say so.
    #[serde(with = "serde_bytes")]
    pub charter: Vec<u8>,
    /// When it was said.
    pub issued_at: Timestamp,
    /// When it stops being news.
    pub expires_at: Timestamp,
}

impl Statement for Announcement {
    const DOMAIN: &'static str = "dockercomp/announcement/1";
}

impl Announcement {
    /// The gossip topic of all projects' announcements.
    pub const TOPIC: &str = "/dockercomp/announce/1";

    /// Opens an announcement and checks that the coordinator of the project it names made it.
    #[must_use]
    pub fn open(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return None;
        }
        let opened = envelope::open::<Self>(bytes).ok()?;
        let announcement = opened.statement;
        let project = announcement.project;
        let entitled = announcement.v == 1
            && Charter::open_for(&announcement.charter, project, opened.signer).is_ok();
        entitled.then_some(announcement)
    }
}

/// The Kademlia key under which a project's coordinator announces itself.
#[must_use]
pub fn project_key(project: &ProjectId) -> Vec<u8> {
    [b"/dockercomp/project/1/".as_slice(), &project.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::codec;
    use crate::content::{block_cid, chunk_cid};

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
    }

    fn result(node: &Keypair) -> ResultStatement {
        ResultStatement {
            v: 1,
            job: block_cid(b"job"),
            unit: block_cid(b"unit"),
            replica: ReplicaId(9),
            node: node.public().to_peer_id(),
            executor: ExecutorKind::Docker,
            exit: Exit::Code { code: 0 },
            output: Some(block_cid(b"output")),
            usage: Usage { cpu_ms: 10, wall_ms: 12, memory_peak_bytes: 4096, fuel: 0 },
        }
    }

    #[test]
    fn result_is_golden() {
        insta::assert_snapshot!(hex::encode(codec::encode(&result(&key(1)))), @"a9617601636a6f62d82a58250001711e2063a2265e5c677a2d89fceda7adffcf95a8597d0927d2c1a27c00d89af997f9e66465786974a164636f6465a164636f646500646e6f646558260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c64756e6974d82a58250001711e206216b71f2f00c6068c2c8ba82898fdaf4e70eb8d15119b27e0e24c0143d5d2bf657573616765a4646675656c00666370755f6d730a6777616c6c5f6d730c716d656d6f72795f7065616b5f6279746573191000666f7574707574d82a58250001711e2096e754fa8b2ab9d1f3f8f2d2bb4ec79a18016b212cf44f8fd2f7441e6e97a48b677265706c69636109686578656375746f7266646f636b6572");
    }

    #[test]
    fn a_stolen_result_is_refused() {
        let stolen = result(&key(1)).seal(&key(2));
        assert!(matches!(ResultStatement::open(&stolen), Err(ResultError::Stolen { .. })));
    }

    #[test]
    fn success_without_output_is_refused() {
        let mut claim = result(&key(1));
        claim.output = None;
        let sealed = claim.seal(&key(1));
        assert!(matches!(ResultStatement::open(&sealed), Err(ResultError::Inconsistent)));
        let mut failed = result(&key(1));
        failed.exit = Exit::TimedOut;
        failed.output = Some(chunk_cid(b"x"));
        let sealed = failed.seal(&key(1));
        assert!(matches!(ResultStatement::open(&sealed), Err(ResultError::Inconsistent)));
    }

    #[test]
    fn only_the_project_can_charter() {
        let (owner, coordinator, stranger) = (key(1), key(2), key(3));
        let [project, named, other] =
            [&owner, &coordinator, &stranger].map(|key| key.public().to_peer_id());
        let charter = Charter { v: 1, project, name: "p".into(), coordinator: named };
        let right = envelope::seal(&owner, &charter);
        assert!(Charter::open_for(&right, project, named).is_ok());
        assert!(Charter::open_for(&right, project, other).is_err());
        assert!(Charter::open_for(&right, other, named).is_err());
        assert!(Charter::open_for(&envelope::seal(&stranger, &charter), project, named).is_err());
    }
}
