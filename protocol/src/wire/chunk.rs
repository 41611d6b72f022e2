//! `/dockercomp/chunk/2`: blocks between nodes, in raw frames with fixed headers.
//!
//! ```text
//! client → server   WANT  0x01 | id u32 | digest [32]
//!                   HAVE? 0x02 | id u32 | digest of a dataset's root [32]
//!                   OPEN? 0x03 | id u32 | token [32]
//!                   STOP  0x04 | id u32 | id of a WANT u32 | 0 [28]
//! server → client   DATA  0x81 | id u32 | len u32 | payload [len]
//!                   MISS  0x82 | id u32 | reason u8
//!                   HAVE  0x83 | id u32 | state u8
//!                   OPEN  0x84 | id u32 | port u16
//! ```
//!
//! `OPEN?` asks whether public blocks may be fetched over a plain TCP connection too: the client
//! connects to the port in the answer (0: it may not), sends the token, and the same frames
//! follow. `docs/decisions/0005-a-plain-plane-for-near-peers.md` says when and why.
//!
//! `STOP` says that a block is not needed any more. It has no answer; the `WANT` still has one,
//! a `MISS` if the block was not on its way yet.
//!
//! Integers are big-endian. A client may have many requests open on one stream; the server
//! answers each exactly once, in any order. The payload never passes through serde, and its
//! length is checked against [`PAYLOAD_BYTES_MAX`] before memory is given to it.

use crate::content::{DIGEST_BYTES, Digest};
use crate::limits::CHUNK_BYTES_MAX;

/// The stream protocol's name; its number is the version of all frames here.
pub const PROTOCOL: &str = "/dockercomp/chunk/2";
/// Largest payload: the largest chunk.
pub const PAYLOAD_BYTES_MAX: u32 = CHUNK_BYTES_MAX;
/// Bytes of every request.
pub const REQUEST_BYTES: usize = 5 + DIGEST_BYTES;
/// Bytes before the payload of an answer. All answers have this length, padded with zeros.
pub const ANSWER_BYTES: usize = 9;

/// What proves on another connection who has opened it.
pub type Token = [u8; DIGEST_BYTES];

/// What a client asks. `id` is chosen by the client and repeated in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The block with this digest.
    Want {
        /// Repeated in the answer.
        id: u32,
        /// BLAKE3 of the block.
        digest: Digest,
    },
    /// How much of this dataset is there.
    Have {
        /// Repeated in the answer.
        id: u32,
        /// BLAKE3 of the root block.
        digest: Digest,
    },
    /// Where public blocks may be fetched without encryption.
    Open {
        /// Repeated in the answer.
        id: u32,
        /// What the client will send first on that connection. It is used once.
        token: Token,
    },
    /// A block that was asked for is not needed any more. This alone has no answer.
    Stop {
        /// Its own number, which nothing repeats.
        id: u32,
        /// The request for the block.
        want: u32,
    },
}

/// What a server answers; a payload of `len` bytes follows [`Answer::Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The block follows.
    Data {
        /// The request.
        id: u32,
        /// Length of the payload in bytes.
        len: u32,
    },
    /// The block does not follow.
    Miss {
        /// The request.
        id: u32,
        /// Why not.
        reason: Miss,
    },
    /// How much of the dataset is there.
    Have {
        /// The request.
        id: u32,
        /// How much.
        state: Held,
    },
    /// Where to connect without encryption.
    Open {
        /// The request.
        id: u32,
        /// The TCP port; 0 for nowhere.
        port: u16,
    },
}

/// Why a block is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// It is not there.
    NotFound,
    /// Too many requests are open.
    Busy,
    /// It is there, but must not be given.
    Denied,
    /// The client has said that it does not need it any more.
    Stopped,
}

/// How much of a dataset a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    None,
    /// The manifest and some chunks.
    Part,
    /// Everything.
    All,
}

/// Bytes that are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first byte, or a code inside, is not known.
    #[error("unknown code {code:#04x} in a chunk frame")]
    Unknown {
        /// The byte.
        code: u8,
    },
    /// The payload would be larger than any chunk.
    #[error("a payload of {len} bytes is more than the {PAYLOAD_BYTES_MAX} allowed")]
    TooLong {
        /// The length that was declared.
        len: u32,
    },
}

impl Request {
    /// The number that the answer repeats.
    #[must_use]
    pub const fn id(&self) -> u32 {
        match self {
            Self::Want { id, .. }
            | Self::Have { id, .. }
            | Self::Open { id, .. }
            | Self::Stop { id, .. } => *id,
        }
    }

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut frame = [0; REQUEST_BYTES];
        let (code, id, rest): (u8, &u32, &[u8]) = match self {
            Self::Want { id, digest } => (0x01, id, digest),
            Self::Have { id, digest } => (0x02, id, digest),
            Self::Open { id, token } => (0x03, id, token),
            Self::Stop { id, want } => (0x04, id, &want.to_be_bytes()),
        };
        frame[0] = code;
        frame[1..5].copy_from_slice(&id.to_be_bytes());
        frame[5..5 + rest.len()].copy_from_slice(rest);
        frame
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`FrameError::Unknown`] for an unknown first byte.
    pub fn decode(frame: &[u8; REQUEST_BYTES]) -> Result<Self, FrameError> {
        let [code, i0, i1, i2, i3, rest @ ..] = frame;
        let id = u32::from_be_bytes([*i0, *i1, *i2, *i3]);
        match code {
            0x01 => Ok(Self::Want { id, digest: *rest }),
            0x02 => Ok(Self::Have { id, digest: *rest }),
            0x03 => Ok(Self::Open { id, token: *rest }),
            0x04 => {
                let [w0, w1, w2, w3, ..] = *rest;
                Ok(Self::Stop { id, want: u32::from_be_bytes([w0, w1, w2, w3]) })
            }
            code => Err(FrameError::Unknown { code: *code }),
        }
    }
}

impl Answer {
    /// The frame, without the payload.
    #[must_use]
    pub fn encode(&self) -> [u8; ANSWER_BYTES] {
        let (code, id, value) = match self {
            Self::Data { id, len } => (0x81, id, len.to_be_bytes()),
            Self::Miss { id, reason } => (0x82, id, [miss_code(*reason), 0, 0, 0]),
            Self::Have { id, state } => (0x83, id, [held_code(*state), 0, 0, 0]),
            Self::Open { id, port } => {
                let [high, low] = port.to_be_bytes();
                (0x84, id, [high, low, 0, 0])
            }
        };
        let mut frame = [0; ANSWER_BYTES];
        frame[0] = code;
        frame[1..5].copy_from_slice(&id.to_be_bytes());
        frame[5..].copy_from_slice(&value);
        frame
    }

    /// Reads a frame, without the payload.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(frame: &[u8; ANSWER_BYTES]) -> Result<Self, FrameError> {
        let [code, i0, i1, i2, i3, v0, v1, v2, v3] = *frame;
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        match code {
            0x81 => {
                let len = u32::from_be_bytes([v0, v1, v2, v3]);
                if len > PAYLOAD_BYTES_MAX {
                    return Err(FrameError::TooLong { len });
                }
                Ok(Self::Data { id, len })
            }
            0x82 => Ok(Self::Miss { id, reason: miss_of(v0)? }),
            0x83 => Ok(Self::Have { id, state: held_of(v0)? }),
            0x84 => Ok(Self::Open { id, port: u16::from_be_bytes([v0, v1]) }),
            code => Err(FrameError::Unknown { code }),
        }
    }
}

const fn miss_code(reason: Miss) -> u8 {
    match reason {
        Miss::NotFound => 1,
        Miss::Busy => 2,
        Miss::Denied => 3,
        Miss::Stopped => 4,
    }
}

const fn miss_of(code: u8) -> Result<Miss, FrameError> {
    match code {
        1 => Ok(Miss::NotFound),
        2 => Ok(Miss::Busy),
        3 => Ok(Miss::Denied),
        4 => Ok(Miss::Stopped),
        code => Err(FrameError::Unknown { code }),
    }
}

const fn held_code(state: Held) -> u8 {
    match state {
        Held::None => 0,
        Held::Part => 1,
        Held::All => 2,
    }
}

const fn held_of(code: u8) -> Result<Held, FrameError> {
    match code {
        0 => Ok(Held::None),
        1 => Ok(Held::Part),
        2 => Ok(Held::All),
        code => Err(FrameError::Unknown { code }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_golden_and_survive_the_round_trip() {
        let requests = [
            (Request::Want { id: 7, digest: [0xab; 32] }, "0100000007"),
            (Request::Have { id: 8, digest: [0xab; 32] }, "0200000008"),
            (Request::Open { id: 9, token: [0xcd; 32] }, "0300000009"),
            (Request::Stop { id: 10, want: 7 }, "040000000a"),
        ];
        for (request, head) in requests {
            let frame = request.encode();
            assert_eq!(hex::encode(&frame[..5]), head);
            assert_eq!(Request::decode(&frame), Ok(request));
        }
        let answers = [
            (Answer::Data { id: 7, len: 1 << 20 }, "810000000700100000"),
            (Answer::Miss { id: 7, reason: Miss::Busy }, "820000000702000000"),
            (Answer::Miss { id: 7, reason: Miss::Stopped }, "820000000704000000"),
            (Answer::Have { id: 7, state: Held::All }, "830000000702000000"),
            (Answer::Open { id: 9, port: 4001 }, "84000000090fa10000"),
        ];
        for (answer, hex) in answers {
            assert_eq!(hex::encode(answer.encode()), hex);
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn a_lying_length_is_refused() {
        let mut frame = Answer::Data { id: 1, len: 0 }.encode();
        frame[5..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Answer::decode(&frame), Err(FrameError::TooLong { len: u32::MAX }));
    }
}
