//! Canonical DAG-CBOR: one value, one encoding.

use cid::Cid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::content;
use crate::limits::BLOCK_BYTES_MAX;

/// Why bytes were not accepted as a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than the bound for this kind of value; nothing was decoded.
    #[error("{bytes} bytes are more than the {max} allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Not DAG-CBOR, or not the expected shape.
    #[error("not the expected DAG-CBOR: {reason}")]
    Malformed {
        /// What the decoder met.
        reason: String,
    },
    /// The value has another, canonical encoding.
    #[error("not the canonical encoding")]
    NotCanonical,
}

/// The canonical encoding of a value.
///
/// # Panics
/// If the value cannot be encoded, which is a bug in its type: our types hold no floats
/// and no maps with keys other than strings.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("our types always encode")
}

/// Encodes a value as a block and names it.
#[must_use]
pub fn block<T: Serialize>(value: &T) -> (Cid, Vec<u8>) {
    let bytes = encode(value);
    (content::block_cid(&bytes), bytes)
}

/// Decodes a block of at most [`BLOCK_BYTES_MAX`] bytes, strictly.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within(bytes, BLOCK_BYTES_MAX)
}

/// Decodes at most `max` bytes, strictly: re-encoding must give the same bytes.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_within<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { bytes: bytes.len(), max });
    }
    decode_borrowed(bytes)
}

/// Decodes a value that borrows from its bytes, whose length the caller has bounded, strictly.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_borrowed<'a, T: Serialize + Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    let value: T = serde_ipld_dagcbor::from_slice(bytes)
        .map_err(|error| DecodeError::Malformed { reason: error.to_string() })?;
    if encode(&value) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_integer_is_not_canonical() {
        assert_eq!(decode::<u8>(&[0x01]).ok(), Some(1));
        assert!(decode::<u8>(&[0x18, 0x01]).is_err());
    }

    #[test]
    fn the_bound_comes_before_the_decoder() {
        let long = encode(&"x".repeat(100));
        assert!(matches!(
            decode_within::<String>(&long, 50),
            Err(DecodeError::TooLong { max: 50, .. })
        ));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(decode::<u8>(&[0x01, 0x01]).is_err());
    }
}
