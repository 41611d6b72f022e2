//! `/dockercomp/swarm/1`: who has which blocks of a dataset, and who else wants it.
//!
//! ```text
//! asker ──JOIN root──► holder     "I want this dataset"
//!       ──LIST n────►             "of these blocks, which have you?"
//!       ◄──MAP n─────             one bit for each
//!       ◄──HAVE n────             those that it has got since
//!       ◄──ALL───────             it has the whole dataset: no lists are needed
//!       ◄──MEMBERS───             who else has joined here, and where they are
//! ```
//!
//! A stream is about one dataset. Blocks are named by their digests, so both ends need not
//! agree on how they are numbered, and a block that lies in another dataset counts too. A new
//! list replaces the one before.
//!
//! A message is canonical DAG-CBOR behind a four-byte length, at most
//! [`SWARM_MESSAGE_BYTES_MAX`] bytes. What a peer says here costs it nothing, so nothing is
//! believed beyond what asking for a block costs.

use serde::{Deserialize, Serialize};

use super::work::HintPeer;
use crate::codec::{self, DecodeError};
use crate::content::{DIGEST_BYTES, Digest};
use crate::limits::{
    HINT_ADDRESS_BYTES_MAX, HINT_ADDRESSES_MAX, SWARM_LIST_MAX, SWARM_MEMBERS_MAX,
    SWARM_MESSAGE_BYTES_MAX,
};

/// The stream protocol's name; its number is the version of all messages here.
pub const PROTOCOL: &str = "/dockercomp/swarm/1";

/// What the one says that wants a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// "I want this dataset": sent first, and once.
    Join {
        /// BLAKE3 of the root block.
        #[serde(with = "serde_bytes")]
        root: Digest,
    },
    /// "Which of these have you?"
    List {
        /// Its number, which the answers repeat.
        list: u32,
        /// BLAKE3 of each block, one after the other, at most [`SWARM_LIST_MAX`].
        #[serde(with = "serde_bytes")]
        digests: Vec<u8>,
    },
}

/// What the one says that may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum News {
    /// It has the whole dataset.
    All,
    /// Which blocks of a list it has.
    Map {
        /// The list.
        list: u32,
        /// Bit `n % 8` of byte `n / 8`, the lowest first, is block `n`.
        #[serde(with = "serde_bytes")]
        bits: Vec<u8>,
    },
    /// Blocks of a list that it has got since.
    Have {
        /// The list.
        list: u32,
        /// Their places in the list, at most [`SWARM_LIST_MAX`].
        blocks: Vec<u16>,
    },
    /// Others that have joined here.
    Members {
        /// At most [`SWARM_MEMBERS_MAX`].
        members: Vec<HintPeer>,
    },
}

impl Question {
    /// A list of these blocks.
    #[must_use]
    pub fn list<'a>(list: u32, digests: impl IntoIterator<Item = &'a Digest>) -> Self {
        Self::List { list, digests: digests.into_iter().flatten().copied().collect() }
    }

    /// Decodes a question and checks its bounds.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let question: Self = codec::decode_within(bytes, SWARM_MESSAGE_BYTES_MAX)?;
        let fits = match &question {
            Self::Join { .. } => true,
            Self::List { digests, .. } => {
                digests.len().is_multiple_of(DIGEST_BYTES)
                    && digests.len() <= SWARM_LIST_MAX * DIGEST_BYTES
            }
        };
        if fits { Ok(question) } else { Err(out_of_bounds()) }
    }
}

impl News {
    /// A map of a list's blocks.
    #[must_use]
    pub fn map(list: u32, held: &[bool]) -> Self {
        let byte = |bits: &[bool]| {
            let shifted = bits.iter().enumerate().map(|(bit, held)| u8::from(*held) << bit);
            shifted.fold(0, |byte, bit| byte | bit)
        };
        Self::Map { list, bits: held.chunks(8).map(byte).collect() }
    }

    /// Decodes news and checks their bounds.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let news: Self = codec::decode_within(bytes, SWARM_MESSAGE_BYTES_MAX)?;
        let fits = match &news {
            Self::All => true,
            Self::Map { bits, .. } => bits.len() <= SWARM_LIST_MAX.div_ceil(8),
            Self::Have { blocks, .. } => blocks.len() <= SWARM_LIST_MAX,
            Self::Members { members } => {
                members.len() <= SWARM_MEMBERS_MAX
                    && members.iter().all(|member| {
                        member.addresses.len() <= HINT_ADDRESSES_MAX
                            && member.addresses.iter().all(|at| at.len() <= HINT_ADDRESS_BYTES_MAX)
                    })
            }
        };
        if fits { Ok(news) } else { Err(out_of_bounds()) }
    }
}

/// The places that a map's bits mark, of a list of `n_blocks`. `None`: it is not a map of that
/// list.
#[must_use]
pub fn marked(bits: &[u8], n_blocks: usize) -> Option<Vec<usize>> {
    let is_set = |n: &usize| bits.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1);
    let is_right_long = bits.len() == n_blocks.div_ceil(8);
    let has_no_more = !(n_blocks..bits.len() * 8).any(|n| is_set(&n));
    (is_right_long && has_no_more).then(|| (0..n_blocks).filter(is_set).collect())
}

fn out_of_bounds() -> DecodeError {
    DecodeError::Malformed { reason: "a list is longer than its bound".into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(n_addresses: usize) -> HintPeer {
        let mut peer = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        peer.extend([7; 32]);
        HintPeer {
            peer: crate::NodeId::from_bytes(&peer).expect("an inlined ed25519 key"),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".into(); n_addresses],
        }
    }

    #[test]
    fn messages_are_golden() {
        let join = Question::Join { root: [0xab; 32] };
        let list = Question::list(7, [&[1; 32], &[2; 32]]);
        for (question, head) in
            [(join, "a1646a6f696ea164726f6f745820ab"), (list, "a1646c697374a2646c69737407")]
        {
            let bytes = codec::encode(&question);
            assert!(hex::encode(&bytes).starts_with(head), "{}", hex::encode(&bytes));
            assert_eq!(Question::decode(&bytes).expect("what was encoded"), question);
        }
        let told = [
            (News::All, "63616c6c"),
            (News::map(7, &[true, false, true]), "a1636d6170a26462697473410564"),
            (News::Have { list: 7, blocks: vec![1] }, "a16468617665a2646c69737407"),
            (News::Members { members: vec![member(1)] }, "a1676d656d62657273a1676d656d62657273"),
        ];
        for (news, head) in told {
            let bytes = codec::encode(&news);
            assert!(hex::encode(&bytes).starts_with(head), "{}", hex::encode(&bytes));
            assert_eq!(News::decode(&bytes).expect("what was encoded"), news);
        }
    }

    #[test]
    fn what_is_over_its_bound_is_refused() {
        let long =
            Question::List { list: 1, digests: vec![0; (SWARM_LIST_MAX + 1) * DIGEST_BYTES] };
        let crooked = Question::List { list: 1, digests: vec![0; DIGEST_BYTES + 1] };
        for question in [long, crooked] {
            assert!(Question::decode(&codec::encode(&question)).is_err());
        }
        let told = [
            News::Map { list: 1, bits: vec![0; SWARM_LIST_MAX / 8 + 1] },
            News::Have { list: 1, blocks: vec![0; SWARM_LIST_MAX + 1] },
            News::Members { members: vec![member(1); SWARM_MEMBERS_MAX + 1] },
            News::Members { members: vec![member(HINT_ADDRESSES_MAX + 1)] },
            News::Members { members: vec![member(10_000)] },
        ];
        for news in told {
            assert!(News::decode(&codec::encode(&news)).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_map_says_what_is_held(held in prop::collection::vec(any::<bool>(), 0..100)) {
            let News::Map { bits, .. } = News::map(1, &held) else { unreachable!("a map") };
            let places: Vec<usize> = (0..held.len()).filter(|n| held[*n]).collect();
            prop_assert_eq!(marked(&bits, held.len()), Some(places));
        }

        #[test]
        fn bytes_of_strangers_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Question::decode(&bytes);
            if let Ok(News::Map { bits, .. }) = News::decode(&bytes) {
                let _ = marked(&bits, 8);
            }
        }
    }

    #[test]
    fn a_map_of_another_list_is_none() {
        assert_eq!(marked(&[0b101], 3), Some(vec![0, 2]));
        for (bits, n_blocks) in [(&[][..], 3), (&[1, 0][..], 3), (&[0b1000][..], 3), (&[0][..], 0)]
        {
            assert_eq!(marked(bits, n_blocks), None);
        }
    }
}
