//! What the exchange needs from a network: streams to peers, and who may have a dataset.

use std::error::Error;
use std::future::{Future, ready};
use std::net::IpAddr;

use dockercomp_network::Multiaddr;
use dockercomp_protocol::wire::{chunk, swarm};
use dockercomp_protocol::{Cid, NodeId};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// What is spoken on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Blocks: [`dockercomp_protocol::wire::chunk`].
    Chunk,
    /// Who has what: [`dockercomp_protocol::wire::swarm`].
    Swarm,
}

impl Protocol {
    /// The protocol's name and version.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chunk => chunk::PROTOCOL,
            Self::Swarm => swarm::PROTOCOL,
        }
    }
}

/// Opens streams to peers, and knows where they are.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A byte stream in both directions.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a stream to the peer, connecting to it where needed.
    fn open(
        &self,
        peer: NodeId,
        protocol: Protocol,
    ) -> impl Future<Output = Result<Self::Stream, DialError>> + Send;

    /// Where a peer is said to be, to tell others. By default that is not known.
    fn addresses(&self, _peer: NodeId) -> impl Future<Output = Vec<Multiaddr>> + Send {
        ready(Vec::new())
    }

    /// Remembers where a peer is said to be. Only opening a stream shows whether it is true. By
    /// default nothing is remembered.
    fn learn(&self, _peer: NodeId, _addresses: Vec<Multiaddr>) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// The IP address of a peer on a near network, where public blocks may come over plain TCP,
    /// connecting to it where needed. By default no network is near.
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
