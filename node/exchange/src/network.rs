//! The exchange on the real network: streams, provider lookups, and the loop that serves.

use std::collections::HashMap;
use std::net::IpAddr;

use dockercomp_network::{Handle, Incoming, Multiaddr, Stream, StreamProtocol};
use dockercomp_protocol::{Cid, NodeId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::client::Exchange;
use crate::dial::{Dial, DialError, Discover, Protocol};
use crate::error::ServeError;
use crate::plain::is_near;
use crate::server::Server;

/// Streams that are served at once.
const STREAMS_MAX: usize = 512;
/// Streams of one peer that are served at once.
const STREAMS_PER_PEER_MAX: usize = 4;
/// Datasets of which one peer is told who has what.
const SWARMS_PER_PEER_MAX: usize = 32;

/// The key under which Kademlia knows who has a dataset.
#[must_use]
pub fn provider_key(root: &Cid) -> Vec<u8> {
    root.to_bytes()
}

impl Dial for Handle {
    type Stream = Stream;

    async fn open(&self, peer: NodeId, protocol: Protocol) -> Result<Stream, DialError> {
        let opened = Self::open(self, peer, StreamProtocol::new(protocol.name())).await;
        opened.map_err(|source| DialError { peer, source: Box::new(source) })
    }

    async fn addresses(&self, peer: NodeId) -> Vec<Multiaddr> {
        Self::addresses(self, peer).await.unwrap_or_default()
    }

    async fn learn(&self, peer: NodeId, addresses: Vec<Multiaddr>) {
        // It only helps dialling, which says what cannot be reached.
        let _ = self.add_addresses(peer, addresses).await;
    }

    async fn near(&self, peer: NodeId) -> Option<IpAddr> {
        self.connect(peer).await.ok()?;
        self.remote_ip(peer).await.ok().flatten().filter(is_near)
    }
}

impl Discover for Handle {
    fn providers(&self, root: Cid) -> BoxFuture<'static, Vec<NodeId>> {
        let handle = self.clone();
        async move {
            match Self::providers(&handle, &provider_key(&root)).await {
                Ok(providers) => providers.into_iter().map(|provider| provider.peer).collect(),
                Err(error) => {
                    tracing::debug!(%root, reason = %error, "lookup of providers failed");
                    Vec::new()
                }
            }
        }
        .boxed()
    }
}

impl Server {
    /// Serves all streams that come in, until the network stops or `shutdown` is cancelled.
    pub async fn run(self, incoming: Incoming, shutdown: CancellationToken) {
        let serve = |peer, stream| {
            let server = self.clone();
            async move { server.serve(peer, stream).await }
        };
        attend_all(incoming, STREAMS_PER_PEER_MAX, serve, shutdown).await;
    }

    /// Says on all streams that come in who has what, until the network stops or `shutdown` is
    /// cancelled.
    pub async fn run_swarms<D: Dial>(
        self,
        exchange: Exchange<D>,
        incoming: Incoming,
        shutdown: CancellationToken,
    ) {
        let serve = |peer, stream| {
            let (server, exchange) = (self.clone(), exchange.clone());
            async move { exchange.tell(&server, peer, stream).await }
        };
        attend_all(incoming, SWARMS_PER_PEER_MAX, serve, shutdown).await;
    }
}

/// Attends to streams, each in a task of its own, at most `per_peer_max` of one peer.
async fn attend_all<F>(
    mut incoming: Incoming,
    per_peer_max: usize,
    serve: impl Fn(NodeId, Stream) -> F,
    shutdown: CancellationToken,
) where
    F: Future<Output = Result<(), ServeError>> + Send + 'static,
{
    let mut streams = JoinSet::new();
    let mut peers: HashMap<task::Id, NodeId> = HashMap::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(ended) = streams.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                peers.remove(&id);
            }
            next = incoming.next() => {
                let Some((peer, stream)) = next else { return };
                let n_of_peer = peers.values().filter(|other| **other == peer).count();
                if peers.len() >= STREAMS_MAX || n_of_peer >= per_peer_max {
                    tracing::debug!(%peer, "stream refused, too many are open");
                    continue;
                }
                let serving = serve(peer, stream);
                let task = streams.spawn(async move {
                    if let Err(error) = serving.await {
                        tracing::debug!(%peer, reason = %error, "stream of a peer ended");
                    }
                });
                peers.insert(task.id(), peer);
            }
        }
    }
}
