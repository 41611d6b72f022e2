//! Content identifiers: CIDv1 with BLAKE3-256.
//!
//! Chunks of files have codec `raw`, structured blocks have codec `dag-cbor`, so any IPLD
//! tool that knows BLAKE3 (multihash 0x1e) can read and check them.

use cid::Cid;
use multihash::Multihash;

/// Multicodec of plain bytes.
pub const RAW: u64 = 0x55;
/// Multicodec of DAG-CBOR.
pub const DAG_CBOR: u64 = 0x71;
/// Multihash code of BLAKE3.
pub const BLAKE3: u64 = 0x1e;
/// Bytes of a BLAKE3-256 digest.
pub const DIGEST_BYTES: usize = 32;

/// A BLAKE3-256 digest.
pub type Digest = [u8; DIGEST_BYTES];

/// Why an identifier is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// Not version 1, not BLAKE3-256, or neither raw nor DAG-CBOR.
    #[error(
        "{cid} is not a CIDv1 with BLAKE3-256 and codec raw or dag-cbor (those start with \"bafkr4i\" or \"bafyr4i\")"
    )]
    Foreign {
        /// The identifier as given.
        cid: Cid,
    },
    /// Not a CID at all.
    #[error("{text:?} is not a CID")]
    NotACid {
        /// The text as given.
        text: String,
    },
    /// The bytes hash to another identifier.
    #[error("the bytes of {expected} hash to {actual}")]
    Mismatch {
        /// What was asked for.
        expected: Cid,
        /// What the bytes hash to.
        actual: Cid,
    },
}

/// The digest of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Digest {
    *blake3::hash(bytes).as_bytes()
}

/// The identifier of a chunk of a file.
#[must_use]
pub fn chunk_cid(bytes: &[u8]) -> Cid {
    from_digest(RAW, *blake3::hash(bytes).as_bytes())
}

/// The identifier of a structured block.
#[must_use]
pub fn block_cid(bytes: &[u8]) -> Cid {
    from_digest(DAG_CBOR, *blake3::hash(bytes).as_bytes())
}

/// The identifier with this codec and digest.
#[must_use]
pub fn from_digest(codec: u64, digest: Digest) -> Cid {
    let hash = Multihash::wrap(BLAKE3, &digest).expect("32 bytes fit a 64-byte multihash");
    Cid::new_v1(codec, hash)
}

/// The digest inside one of our identifiers.
///
/// # Errors
/// [`CidError::Foreign`] if the identifier is not of our kind.
pub fn digest(cid: &Cid) -> Result<Digest, CidError> {
    let ours = cid.version() == cid::Version::V1
        && (cid.codec() == RAW || cid.codec() == DAG_CBOR)
        && cid.hash().code() == BLAKE3;
    match <Digest>::try_from(cid.hash().digest()) {
        Ok(digest) if ours => Ok(digest),
        _ => Err(CidError::Foreign { cid: *cid }),
    }
}

/// Parses an identifier that a person typed.
///
/// # Errors
/// [`CidError::NotACid`] or [`CidError::Foreign`].
pub fn parse(text: &str) -> Result<Cid, CidError> {
    let cid = Cid::try_from(text).map_err(|_| CidError::NotACid { text: text.to_owned() })?;
    digest(&cid)?;
    Ok(cid)
}

/// Checks that `bytes` are what `cid` names.
///
/// # Errors
/// [`CidError::Mismatch`] if they hash to something else, [`CidError::Foreign`] if the
/// identifier is not of our kind.
pub fn verify(cid: &Cid, bytes: &[u8]) -> Result<(), CidError> {
    let actual = *blake3::hash(bytes).as_bytes();
    if digest(cid)? == actual {
        Ok(())
    } else {
        Err(CidError::Mismatch { expected: *cid, actual: from_digest(cid.codec(), actual) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_golden() {
        insta::assert_snapshot!(chunk_cid(b"hello"), @"bafkr4ihkr4ld3m4gqkjf4reryxsy2s5tkbxprqkow6fin2iiyvreuzzab4");
        insta::assert_snapshot!(block_cid(b"\xa0"), @"bafyr4ia7stf7ge5tzyrsk6tskhva7sk2erkw5jqr4t4pi5pfjglrxlw3ai");
    }

    #[test]
    fn another_byte_is_a_mismatch() {
        let cid = chunk_cid(b"hello");
        assert_eq!(verify(&cid, b"hello"), Ok(()));
        assert!(matches!(verify(&cid, b"hellp"), Err(CidError::Mismatch { .. })));
    }

    #[test]
    fn foreign_identifiers_are_refused() {
        let sha256 = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
        assert!(matches!(parse(sha256), Err(CidError::Foreign { .. })));
        assert!(matches!(parse("alpine:3.19"), Err(CidError::NotACid { .. })));
    }
}
