//! `/dockercomp/permit/1`: a node shows a holder of outputs that it may have them.
//!
//! Outputs are served to the coordinator only. A node that is to work on outputs of an earlier
//! stage gets, with its lease, the coordinator's signed permission, and shows it to those who
//! hold the outputs. A permission names one node and is good for nobody else.
//!
//! A question is a frame that holds the sealed [`Permission`], at most
//! [`PERMISSION_BYTES_MAX`] bytes; the answer is a frame with one byte, [`GRANTED`] or
//! [`REFUSED`].

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::envelope::{self, OpenError, Statement};
use crate::ids::NodeId;
use crate::limits::{FAN_IN_MAX, PERMISSION_BYTES_MAX};

/// The stream protocol's name; its number is the version of all messages here.
pub const PROTOCOL: &str = "/dockercomp/permit/1";
/// The answer to a permission that is right.
pub const GRANTED: &[u8] = &[1];
/// The answer to anything else.
pub const REFUSED: &[u8] = &[0];

/// "This node may have these outputs": said by the coordinator, once they are canonical.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// Version of the format, 1.
    pub v: u8,
    /// Who may have them.
    pub asker: NodeId,
    /// The outputs' roots, at most [`FAN_IN_MAX`].
    pub outputs: Vec<Cid>,
}

impl Statement for Permission {
    const DOMAIN: &'static str = "dockercomp/permission/1";
}

/// Why a permission permits nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PermissionError {
    /// Longer than any permission.
    #[error("the permission has {bytes} bytes, more than the {PERMISSION_BYTES_MAX} allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
    },
    /// The envelope is not right.
    #[error("the permission cannot be opened")]
    Open(#[from] OpenError),
    /// A format that this version does not know.
    #[error("the permission has version {found}, this program reads version 1")]
    Version {
        /// What it says.
        found: u8,
    },
    /// More outputs than a work unit takes.
    #[error("the permission names {found} outputs, more than the {FAN_IN_MAX} allowed")]
    TooMany {
        /// How many it names.
        found: usize,
    },
    /// It is not the coordinator's.
    #[error("the permission is signed by {signer}, who is not the coordinator")]
    Signer {
        /// Who signed.
        signer: NodeId,
    },
    /// It is somebody else's.
    #[error("the permission is for {named}, not for {asker}")]
    Asker {
        /// Whom it names.
        named: NodeId,
        /// Who showed it.
        asker: NodeId,
    },
}

impl Permission {
    /// Opens a permission that `coordinator` must have given to `asker`.
    ///
    /// # Errors
    /// See [`PermissionError`].
    pub fn open_for(
        bytes: &[u8],
        coordinator: NodeId,
        asker: NodeId,
    ) -> Result<Self, PermissionError> {
        if bytes.len() > PERMISSION_BYTES_MAX {
            return Err(PermissionError::TooLong { bytes: bytes.len() });
        }
        let opened = envelope::open::<Self>(bytes)?;
        let permission = opened.statement;
        if permission.v != 1 {
            return Err(PermissionError::Version { found: permission.v });
        }
        if permission.outputs.len() > FAN_IN_MAX as usize {
            return Err(PermissionError::TooMany { found: permission.outputs.len() });
        }
        if opened.signer != coordinator {
            return Err(PermissionError::Signer { signer: opened.signer });
        }
        if permission.asker != asker {
            return Err(PermissionError::Asker { named: permission.asker, asker });
        }
        Ok(permission)
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::content::block_cid;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
    }

    fn permission(outputs: usize) -> Permission {
        let asker = key(2).public().to_peer_id();
        Permission { v: 1, asker, outputs: vec![block_cid(b"output"); outputs] }
    }

    #[test]
    fn permission_is_golden() {
        let sealed = envelope::seal(&key(1), &permission(1));
        insta::assert_snapshot!(block_cid(&sealed), @"bafyr4ih5mtc5jeiutgka7oeettr7uazvnyd3cr7jjpkj5pzvwr2wiromcu");
    }

    #[test]
    fn only_the_coordinators_own_words_for_the_one_who_asks_permit() {
        let [coordinator, asker, other] = [1, 2, 3].map(|seed| key(seed).public().to_peer_id());
        let open = |sealed: &[u8], asker| Permission::open_for(sealed, coordinator, asker);
        let largest = permission(FAN_IN_MAX as usize);
        let sealed = envelope::seal(&key(1), &largest);
        assert_eq!(open(&sealed, asker).expect("it is right"), largest);
        assert!(matches!(open(&sealed, other), Err(PermissionError::Asker { .. })));

        let forged = envelope::seal(&key(2), &largest);
        assert!(matches!(open(&forged, asker), Err(PermissionError::Signer { .. })));
        let too_many = envelope::seal(&key(1), &permission(FAN_IN_MAX as usize + 1));
        assert!(matches!(open(&too_many, asker), Err(PermissionError::TooMany { .. })));
        let mut broken = sealed;
        broken[90] ^= 1;
        assert!(matches!(open(&broken, asker), Err(PermissionError::Open(_))));
        let long = vec![0; PERMISSION_BYTES_MAX + 1];
        assert!(matches!(open(&long, asker), Err(PermissionError::TooLong { .. })));
    }
}
