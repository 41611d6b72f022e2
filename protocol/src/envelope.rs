//! Signed statements on the wire: libp2p's signed envelope (RFC 0002), domain-separated.
//!
//! A [`Statement`] is a value with a domain of its own. [`seal`] signs it, [`open`] checks
//! the signature and gives the value together with the one who signed it. A statement that
//! was signed for one purpose cannot be opened as another.
//!
//! # What is not here
//!
//! - Whether the signer was *entitled* to say it: that is checked where the statement is
//!   used, with [`Opened::signer`].

use libp2p_identity::{Keypair, PeerId, PublicKey};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use unsigned_varint::encode::usize as varint;
use unsigned_varint::encode::usize_buffer;

use crate::codec::{self, DecodeError};
use crate::limits::ENVELOPE_BYTES_MAX;

/// A value that can be signed.
pub trait Statement: Serialize + DeserializeOwned {
    /// Separates this kind of statement from all others; part of what is signed.
    const DOMAIN: &'static str;
}

/// The payload type of every statement: canonical DAG-CBOR.
const PAYLOAD_TYPE: &[u8] = b"/dockercomp/dag-cbor/1";

/// The protobuf message of RFC 0002.
#[derive(Clone, PartialEq, Eq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    payload_type: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    signature: Vec<u8>,
}

/// Why an envelope was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Longer than any statement.
    #[error("the envelope has {bytes} bytes, more than the {ENVELOPE_BYTES_MAX} allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
    },
    /// Not a signed envelope, or not in its one canonical encoding.
    #[error("not a signed envelope")]
    Malformed,
    /// The key is not one that we know.
    #[error("the envelope's public key cannot be read")]
    Key,
    /// The signature is not of this key, domain and payload.
    #[error("the signature is not valid for a {domain:?} statement of {signer}")]
    Signature {
        /// The domain that was expected.
        domain: &'static str,
        /// Who is said to have signed.
        signer: PeerId,
    },
    /// Rightly signed, but not the expected value.
    #[error("the signed statement cannot be read")]
    Payload(#[from] DecodeError),
}

/// A statement whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<T> {
    /// What was said.
    pub statement: T,
    /// Who said it.
    pub signer: PeerId,
}

/// Signs a statement.
///
/// # Panics
/// If the key cannot sign; ed25519 keys, the only ones we make, always can.
#[must_use]
pub fn seal<T: Statement>(key: &Keypair, statement: &T) -> Vec<u8> {
    let payload = codec::encode(statement);
    let signature = key.sign(&signed_bytes(T::DOMAIN, &payload)).expect("ed25519 always signs");
    Envelope {
        public_key: key.public().encode_protobuf(),
        payload_type: PAYLOAD_TYPE.to_vec(),
        payload,
        signature,
    }
    .encode_to_vec()
}

/// Checks an envelope and reads its statement.
///
/// # Errors
/// See [`OpenError`].
pub fn open<T: Statement>(bytes: &[u8]) -> Result<Opened<T>, OpenError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(OpenError::TooLong { bytes: bytes.len() });
    }
    let envelope = Envelope::decode(bytes).map_err(|_| OpenError::Malformed)?;
    if envelope.payload_type != PAYLOAD_TYPE || envelope.encode_to_vec() != bytes {
        return Err(OpenError::Malformed);
    }
    let key = PublicKey::try_decode_protobuf(&envelope.public_key).map_err(|_| OpenError::Key)?;
    if key.encode_protobuf() != envelope.public_key {
        return Err(OpenError::Malformed);
    }
    let signer = key.to_peer_id();
    if !key.verify(&signed_bytes(T::DOMAIN, &envelope.payload), &envelope.signature) {
        return Err(OpenError::Signature { domain: T::DOMAIN, signer });
    }
    let statement = codec::decode_within(&envelope.payload, ENVELOPE_BYTES_MAX)?;
    Ok(Opened { statement, signer })
}

/// What RFC 0002 signs: domain, payload type and payload, each after its length as varint.
fn signed_bytes(domain: &str, payload: &[u8]) -> Vec<u8> {
    let parts = [domain.as_bytes(), PAYLOAD_TYPE, payload];
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 10).sum());
    for part in parts {
        bytes.extend_from_slice(varint(part.len(), &mut usize_buffer()));
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use libp2p_core::SignedEnvelope;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(String);

    impl Statement for Note {
        const DOMAIN: &'static str = "dockercomp/note/1";
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Other(String);

    impl Statement for Other {
        const DOMAIN: &'static str = "dockercomp/other/1";
    }

    fn key() -> Keypair {
        Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes are an ed25519 seed")
    }

    #[test]
    fn envelope_is_golden() {
        insta::assert_snapshot!(hex::encode(seal(&key(), &Note("hi".into()))), @"0a2408011220ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c12162f646f636b6572636f6d702f6461672d63626f722f311a036268692a40238d8f861d30d006b2ded29b3cd7c59a18a1617e4d79503bd8ac7bf861fc37dc5db0701631e62fb51f2487103abcbba91912001e45b8b2a6eee57bc8561a4c06");
    }

    #[test]
    fn libp2p_reads_ours_and_we_read_libp2ps() {
        let ours = seal(&key(), &Note("hi".into()));
        let theirs = SignedEnvelope::from_protobuf_encoding(&ours).expect("an envelope");
        let (payload, signer) = theirs
            .payload_and_signing_key(Note::DOMAIN.into(), PAYLOAD_TYPE)
            .expect("a right signature");
        assert_eq!(payload, codec::encode(&Note("hi".into())));
        assert_eq!(*signer, key().public());

        let made = SignedEnvelope::new(
            &key(),
            Note::DOMAIN.into(),
            PAYLOAD_TYPE.to_vec(),
            codec::encode(&Note("hi".into())),
        )
        .expect("ed25519 always signs");
        assert_eq!(made.into_protobuf_encoding(), ours);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealed = seal(&key(), &Note("hi".into()));
        let right = open::<Note>(&sealed).expect("untouched");
        for position in 0..sealed.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = sealed.clone();
                changed[position] ^= flip;
                if let Ok(opened) = open::<Note>(&changed) {
                    panic!("byte {position} ^ {flip:#x} was accepted: {opened:?}, not {right:?}");
                }
            }
        }
    }

    #[test]
    fn a_statement_is_not_another_kind() {
        let sealed = seal(&key(), &Note("hi".into()));
        assert!(matches!(open::<Other>(&sealed), Err(OpenError::Signature { .. })));
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(open::<Note>(b"").is_err());
        assert!(open::<Note>(&[0xff; 64]).is_err());
        assert!(matches!(
            open::<Note>(&vec![0; ENVELOPE_BYTES_MAX + 1]),
            Err(OpenError::TooLong { .. })
        ));
    }
}
