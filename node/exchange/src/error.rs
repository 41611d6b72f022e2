//! Why a fetch, a stream to a peer, or a stream from a peer ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_exchange_core::members::NotOurs;
use dockercomp_network::framed;
use dockercomp_protocol::codec::DecodeError;
use dockercomp_protocol::content::CidError;
use dockercomp_protocol::wire::chunk::FrameError;
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::{PutError, StoreError};

use crate::dial::DialError;
use crate::scheduler::BROKEN_MAX;

/// Why a dataset, or what was wanted of it, is not here.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The root is not an identifier of our kind.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// Nobody gave the missing blocks for as long as the caller had patience. What was stored
    /// stays, and the next fetch goes on from there.
    #[error(
        "dataset {root} is not to be had: at least {} blocks are missing and none of {} peers \
         gave them; start a node that holds it, or try again later",
        missing.len(), tried.len()
    )]
    Unavailable {
        /// The dataset.
        root: Cid,
        /// The first of the blocks that are missing.
        missing: Vec<Cid>,
        /// Every peer that was known.
        tried: Vec<NodeId>,
        /// Those of them that sent wrong bytes or broke the protocol.
        liars: Vec<NodeId>,
    },
    /// The store could not say what is missing, for example because the quota forbids more.
    #[error("failed to prepare dataset {root} in the store")]
    Store {
        /// The dataset.
        root: Cid,
        /// What the store said.
        source: Arc<StoreError>,
    },
    /// The store did not take a block, although it is what was asked for.
    #[error("failed to store a block of dataset {root}")]
    Put {
        /// The dataset.
        root: Cid,
        /// What the store said.
        source: Arc<PutError>,
    },
    /// As much has passed in this month as the owner of this node allows.
    #[error(
        "dataset {root} is not fetched: the volume of {limit_bytes} bytes for {month} (UTC) is \
         used up"
    )]
    Volume {
        /// The dataset.
        root: Cid,
        /// The month, as in `2026-11`.
        month: String,
        /// Bytes that may pass in it.
        limit_bytes: u64,
    },
    /// Too many callers began to fetch the dataset at the same moment.
    #[error("too many fetches of dataset {root} are waiting to begin")]
    Busy {
        /// The dataset.
        root: Cid,
    },
    /// The process is shutting down.
    #[error("the fetch of dataset {root} was interrupted")]
    Interrupted {
        /// The dataset.
        root: Cid,
    },
}

/// Why a stream to a peer is of no more use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no stream to the peer.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Opening the stream took too long.
    #[error("no stream within {after:?}")]
    DialTimedOut {
        /// How long it was tried.
        after: Duration,
    },
    /// The stream broke or was closed.
    #[error("the stream was lost")]
    Lost(#[source] io::Error),
    /// The peer owed an answer and sent nothing.
    #[error("nothing was heard for {after:?}")]
    Silent {
        /// How long it was waited.
        after: Duration,
    },
    /// The peer sent what is not a frame.
    #[error("the peer broke the protocol")]
    Frame(#[from] FrameError),
    /// The peer sent what is not a message about who has what.
    #[error("the peer sent no message")]
    Message(#[from] DecodeError),
    /// A message about who has what is too long, or was cut off.
    #[error(transparent)]
    Framing(#[from] framed::FrameError),
    /// The peer said what it holds of blocks that it was not asked about.
    #[error("the peer sent a map of no list of ours")]
    Map(#[from] NotOurs),
    /// The peer did not give blocks that it said it holds.
    #[error("the peer lacks more than {BROKEN_MAX} blocks that it said it holds")]
    Broken,
    /// The peer answered what was never asked, or twice.
    #[error("answer {id} was not asked for")]
    Unasked {
        /// The number in the answer.
        id: u32,
    },
    /// The peer offers no plain connection, or is not near.
    #[error("there is no plain connection to the peer")]
    NoPlain,
    /// The stream was idle and has been closed by ourselves.
    #[error("the stream was closed")]
    Closed,
}

impl LinkError {
    /// Whether the peer did what no honest peer does.
    #[must_use]
    pub const fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Frame(_)
            | Self::Unasked { .. }
            | Self::Message(_)
            | Self::Framing(framed::FrameError::TooLarge { .. })
            | Self::Map(_)
            | Self::Broken => true,
            Self::Dial(_)
            | Self::DialTimedOut { .. }
            | Self::Lost(_)
            | Self::Silent { .. }
            | Self::NoPlain
            | Self::Framing(_)
            | Self::Closed => false,
        }
    }
}

/// Why serving a stream ended before the peer closed it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The peer sent what is not a request.
    #[error("the peer broke the protocol")]
    Frame(#[from] FrameError),
    /// The stream broke.
    #[error("the stream was lost")]
    Lost(#[from] io::Error),
    /// The peer sent what is not a question about who has what.
    #[error("the peer sent no question")]
    Message(#[from] DecodeError),
    /// A question about who has what is too long, or was cut off.
    #[error(transparent)]
    Framing(#[from] framed::FrameError),
    /// The peer did not say at first, and once, what dataset it asks about.
    #[error("the peer did not join one dataset")]
    NotJoined,
    /// The peer does not take its answers.
    #[error("the peer took no byte of its answer for {after:?}")]
    Stalled {
        /// How long it was waited.
        after: Duration,
    },
    /// The peer takes its answers too slowly to be waited for.
    #[error("the peer took {bytes} bytes of an answer in {after:?}")]
    Slow {
        /// How many it took.
        bytes: usize,
        /// How long it was waited for that.
        after: Duration,
    },
}
