//! The exchange on the real network: streams, provider lookups, and the loop that serves.

use std::collections::HashMap;
use std::net::IpAddr;

use dockercomp_network::{Handle, Incoming, Stream, StreamProtocol};
use dockercomp_protocol::wire::chunk::PROTOCOL;
use dockercomp_protocol::{Cid, NodeId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::dial::{Dial, DialError, Discover};
use crate::plain::is_near;
use crate::server::Server;

/// Streams that are served at once.
const STREAMS_MAX: usize = 512;
/// Streams of one peer that are served at once.
const STREAMS_PER_PEER_MAX: usize = 4;

/// The key under which Kademlia knows who has a dataset.
#[must_use]
pub fn provider_key(root: &Cid) -> Vec<u8> {
    root.to_bytes()
}

impl Dial for Handle {
    type Stream = Stream;

    async fn open(&self, peer: NodeId) -> Result<Stream, DialError> {
        let opened = Self::open(self, peer, StreamProtocol::new(PROTOCOL)).await;
        opened.map_err(|source| DialError { peer, source: Box::new(source) })
    }

    async fn near(&self, peer: NodeId) -> Option<IpAddr> {
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
    pub async fn run(self, mut incoming: Incoming, shutdown: CancellationToken) {
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
                    if peers.len() >= STREAMS_MAX || n_of_peer >= STREAMS_PER_PEER_MAX {
                        tracing::debug!(%peer, "chunk stream refused, too many are open");
                        continue;
                    }
                    let server = self.clone();
                    let task = streams.spawn(async move {
                        if let Err(error) = server.serve(peer, stream).await {
                            tracing::debug!(%peer, reason = %error, "chunk stream ended");
                        }
                    });
                    peers.insert(task.id(), peer);
                }
            }
        }
    }
}
