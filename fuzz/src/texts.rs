//! What people write or paste.

use std::str;

use dockercomp_protocol::job::{JobFile, JobSpec, SpecError};
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::{Timestamp, content};
use libp2p_identity::Keypair;

/// A job file: what can be read can be made a specification, whatever its references turn out
/// to be.
pub(crate) fn job_file(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    match JobFile::parse(text) {
        Ok(file) => {
            let spec = specification(file).expect("a file that was read");
            assert!(spec.units() > 0);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// The specification that a file describes if what it refers to is there; a dataset has one file.
///
/// # Errors
/// If it breaks a rule.
pub fn specification(file: JobFile) -> Result<JobSpec, SpecError> {
    let cid = content::chunk_cid(b"whatever it refers to");
    // A dataset that a file does not name is named when it is submitted.
    let [image, module, _] = file.references().map(|named| named.is_some().then_some(cid));
    let owner = Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key");
    let project = owner.public().to_peer_id();
    file.resolve(project, Timestamp(0), image, module, Some((cid, 1)))
}

/// A join link, or a CID.
pub(crate) fn join_link(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let cid = content::parse(text).is_ok_and(|cid| {
        assert_eq!(content::parse(&cid.to_string()).ok(), Some(cid));
        true
    });
    let link = text.parse::<JoinLink>().is_ok_and(|link| {
        assert_eq!(link.to_string().parse().ok(), Some(link));
        true
    });
    cid || link
}
