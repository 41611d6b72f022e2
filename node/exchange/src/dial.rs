//! What the exchange needs from a network: streams to peers, and who may have a dataset.

use std::error::Error;
use std::future::{Future, ready};
use std::net::IpAddr;

use dockercomp_protocol::{Cid, NodeId};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Opens streams of the chunk protocol to peers.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A byte stream in both directions.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a stream to the peer, connecting to it where needed.
    fn open(&self, peer: NodeId) -> impl Future<Output = Result<Self::Stream, DialError>> + Send;

    /// The IP address of a connected peer on a near network, where public blocks may come over
    /// plain TCP. By default no network is near.
    fn near(&self, _peer: NodeId) -> impl Future<Output = Option<IpAddr>> + Send {
        ready(None)
    }
}

/// Why there is no stream to a peer.
#[derive(Debug, thiserror::Error)]
#[error("no stream to peer {peer}")]
pub struct DialError {
    /// The peer that was to be reached.
    pub peer: NodeId,
    /// What the network said.
    pub source: Box<dyn Error + Send + Sync>,
}

/// Finds peers that may have a dataset. Asked when all known ones have failed, one question at
/// a time and with growing pauses.
pub trait Discover: Send + Sync + 'static {
    /// Peers that may have blocks of the dataset; none is a fine answer.
    fn providers(&self, root: Cid) -> BoxFuture<'static, Vec<NodeId>>;
}
