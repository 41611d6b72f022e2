//! Streams: raw byte streams between peers, multiplexed over their connections.
//!
//! # Shape
//!
//! ```text
//! Handle::open ──► event loop ──► Behaviour::open ──► Handler (one a connection) ──► peer
//! Handle::accept ─► Registry ◄── inbound stream ── Handler ◄── peer
//!                      └────────► Incoming (bounded queue)
//! ```
//!
//! A stream, once opened, is polled by the task that uses it: no payload passes through the
//! event loop or through a connection's handler.
//!
//! The behaviour is our own and not `libp2p-stream`, because that one loses inbound streams in
//! bursts (its queue holds one), can wait for ever for a dial, and leaks a sender a connection.
//!
//! # What is not here
//!
//! No dialling: [`Behaviour::open`] needs a connection, and the event loop makes it first.
//!
//! # Bounds
//!
//! [`STREAMS_PER_CONNECTION_MAX`] streams that we opened a connection and twice as many that the
//! peer opened, [`INCOMING_QUEUE`] streams waiting a protocol. What is over is reset, which the
//! opener sees as a closed stream.

mod handler;

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use self::handler::Handler;
use crate::error::{AcceptError, OpenError, Unavailable};

/// Streams that we open on one connection at once. Together with the peer's far below the 512 at
/// which the multiplexer treats one more as an attack and closes the connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 128;

/// Streams that a peer may have open on one connection at once. More than it opens if it keeps
/// to the same limit, because it may be done with a stream that we still hold.
const INBOUND_PER_CONNECTION_MAX: usize = 2 * STREAMS_PER_CONNECTION_MAX;

/// Inbound streams of one protocol that wait to be taken.
pub const INCOMING_QUEUE: usize = 256;

/// Requests to open a stream that wait in one connection. All that waited for the dial come at
/// once.
const OPEN_QUEUE: usize = STREAMS_PER_CONNECTION_MAX;

/// A bidirectional byte stream to a peer.
pub struct Stream {
    io: Compat<libp2p::Stream>,
    /// Given back when the stream is dropped.
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    fn new(io: libp2p::Stream, permit: OwnedSemaphorePermit) -> Self {
        Self { io: io.compat(), _permit: permit }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Streams that peers open to us for one protocol. Dropping it stops the protocol.
#[derive(Debug)]
pub struct Incoming {
    queue: mpsc::Receiver<(PeerId, Stream)>,
}

impl Incoming {
    /// The next stream, or `None` once the service has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<(PeerId, Stream)> {
        self.queue.recv().await
    }
}

/// Which protocols are accepted, and where their streams go. Shared by all connections.
#[derive(Debug)]
pub(crate) struct Registry {
    /// `None` once the service has stopped.
    queues: RwLock<Option<Queues>>,
}

type Queues = HashMap<StreamProtocol, mpsc::Sender<(PeerId, Stream)>>;

impl Registry {
    pub(crate) fn new() -> Self {
        Self { queues: RwLock::new(Some(Queues::new())) }
    }

    /// Starts to accept a protocol.
    pub(crate) fn accept(&self, protocol: StreamProtocol) -> Result<Incoming, AcceptError> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let queues = queues.as_mut().ok_or(Unavailable::Stopped)?;
        queues.retain(|_, queue| !queue.is_closed());
        if queues.contains_key(&protocol) {
            return Err(AcceptError::AlreadyAccepted { protocol });
        }
        let (sender, queue) = mpsc::channel(INCOMING_QUEUE);
        queues.insert(protocol, sender);
        Ok(Incoming { queue })
    }

    /// Ends every [`Incoming`] and refuses new ones.
    pub(crate) fn close(&self) {
        *self.queues.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The protocols that somebody accepts at the moment.
    fn protocols(&self) -> Vec<StreamProtocol> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let open = queues.iter().flatten().filter(|(_, queue)| !queue.is_closed());
        open.map(|(protocol, _)| protocol.clone()).collect()
    }

    /// Queues an inbound stream, or drops it (a reset for the peer) if nobody takes it.
    fn deliver(&self, peer: PeerId, protocol: &StreamProtocol, stream: Stream) {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.as_ref().and_then(|queues| queues.get(protocol)) else {
            tracing::debug!(%peer, %protocol, "inbound stream that nobody accepts");
            return;
        };
        if queue.try_send((peer, stream)).is_err() {
            tracing::warn!(%peer, %protocol, "inbound stream dropped, its queue is full or gone");
        }
    }
}

/// Where the outcome of an opening goes.
pub(crate) type OpenReply = oneshot::Sender<Result<Stream, OpenError>>;

/// A stream to be opened on one connection.
#[derive(Debug)]
struct OpenRequest {
    protocol: StreamProtocol,
    reply: OpenReply,
}

/// The part of the swarm that opens and accepts streams.
#[derive(Debug)]
pub(crate) struct Behaviour {
    registry: Arc<Registry>,
    /// Every connection's queue, oldest first.
    connections: HashMap<PeerId, Vec<(ConnectionId, mpsc::Sender<OpenRequest>)>>,
}

impl Behaviour {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, connections: HashMap::new() }
    }

    /// Opens a stream on the newest connection with the peer.
    ///
    /// The newest, because an older one may belong to a process that was killed and not yet be
    /// known to be dead.
    pub(crate) fn open(&self, peer: PeerId, protocol: StreamProtocol, reply: OpenReply) {
        let Some((_, queue)) = self.connections.get(&peer).and_then(|all| all.last()) else {
            // The caller may have given up: then there is nobody to tell.
            let _ = reply.send(Err(OpenError::ConnectionLost { peer }));
            return;
        };
        if let Err(refused) = queue.try_send(OpenRequest { protocol, reply }) {
            let (request, error) = match refused {
                mpsc::error::TrySendError::Full(request) => (request, OpenError::Busy { peer }),
                mpsc::error::TrySendError::Closed(request) => {
                    (request, OpenError::ConnectionLost { peer })
                }
            };
            let _ = request.reply.send(Err(error));
        }
    }

    fn handler(&mut self, peer: PeerId, connection: ConnectionId) -> Handler {
        let (sender, requests) = mpsc::channel(OPEN_QUEUE);
        self.connections.entry(peer).or_default().push((connection, sender));
        Handler::new(peer, Arc::clone(&self.registry), requests)
    }

    fn forget(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.retain(|(id, _)| *id != connection);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        _local_addr: &Multiaddr,
        _remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, connection_id))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        _addr: &Multiaddr,
        _role_override: Endpoint,
        _port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, connection_id))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.forget(peer_id, connection_id);
            }
            // Another behaviour may deny a connection after our handler was made for it.
            FromSwarm::DialFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.forget(peer, failure.connection_id);
                }
            }
            FromSwarm::ListenFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.forget(peer, failure.connection_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer_id: PeerId,
        _connection_id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
