//! Links: a pipelined stream or two to each peer, shared by all that is fetched from it.
//!
//! # Shape
//!
//! ```text
//! Links::block ──Command──► link task: open ─► send    ──WANT──► peer
//!      ▲                                  └► receive ◄──DATA──
//!      └────────────── reply (oneshot) ◄────────┘
//! ```
//!
//! Sending and receiving go on at the same time, so two ends that both have much to say cannot
//! block each other. A payload is read straight into the buffer that is later stored. A link
//! that broke answers all its questions with the same error; the next question opens a new one.
//!
//! # Two planes
//!
//! Blocks of a near peer are asked for over plain TCP first, where it offers that: the cipher
//! and the multiplexer cost more than everything else together. Whatever goes wrong there, the
//! same block is asked for over the authenticated stream, because only that proves who said
//! what; and for [`PLAIN_PAUSE`] nothing more is asked for over plain TCP.
//!
//! # Bounds
//!
//! [`crate::OPEN_MAX`] requests open on a stream, what is more waits in the queue; one payload in
//! memory at a time, its length checked first.

mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dockercomp_protocol::NodeId;
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::wire::chunk::{Held, Miss, Request, Token};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::stream::Link;
use crate::dial::{Dial, Protocol};
use crate::error::LinkError;
use crate::options::Options;
use crate::rate::Limits;

/// Questions that wait for a place on one stream.
const QUEUE: usize = 256;

/// For how long a peer is not asked over plain TCP after that failed.
const PLAIN_PAUSE: Duration = Duration::from_secs(60);

/// How bytes came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plane {
    /// Over an authenticated stream: what it carried was said by the peer.
    Sealed,
    /// Over plain TCP: anybody on the way may have changed it.
    Plain,
}

/// What a peer says when it is asked for a block.
pub(crate) type BlockAnswer = Result<Bytes, Miss>;

type Reply<T> = oneshot::Sender<Result<T, Arc<LinkError>>>;

/// A question and where its answer goes.
enum Command {
    Block {
        digest: Digest,
        reply: Reply<BlockAnswer>,
    },
    Held {
        digest: Digest,
        reply: Reply<Held>,
    },
    Open {
        token: Token,
        reply: Reply<u16>,
    },
    /// The block that was asked for is not needed any more. Nothing answers it.
    Stop {
        digest: Digest,
    },
}

impl Command {
    /// The request that it is sent as. A stop is none of its own: it names one.
    fn request(&self, id: u32) -> Option<Request> {
        match self {
            Self::Block { digest, .. } => Some(Request::Want { id, digest: *digest }),
            Self::Held { digest, .. } => Some(Request::Have { id, digest: *digest }),
            Self::Open { token, .. } => Some(Request::Open { id, token: *token }),
            Self::Stop { .. } => None,
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Block { reply, .. } => reply.is_closed(),
            Self::Held { reply, .. } => reply.is_closed(),
            Self::Open { reply, .. } => reply.is_closed(),
            Self::Stop { .. } => false,
        }
    }

    /// Whoever asked may have gone: then there is nobody to tell.
    fn fail(self, error: Arc<LinkError>) {
        match self {
            Self::Block { reply, .. } => drop(reply.send(Err(error))),
            Self::Held { reply, .. } => drop(reply.send(Err(error))),
            Self::Open { reply, .. } => drop(reply.send(Err(error))),
            Self::Stop { .. } => {}
        }
    }
}

/// The streams of one exchange.
#[derive(Clone)]
pub(crate) struct Links<D> {
    dial: D,
    options: Arc<Options>,
    limits: Arc<Limits>,
    open: Arc<Mutex<BTreeMap<(NodeId, Plane), Entry>>>,
    /// Peers that are not asked over plain TCP, and until when.
    sealed_only: Arc<Mutex<BTreeMap<NodeId, Instant>>>,
}

/// A link's task, seen from outside.
struct Entry {
    queue: mpsc::Sender<Command>,
    cut: CancellationToken,
}

impl<D: Dial> Links<D> {
    pub(crate) fn new(dial: D, options: Arc<Options>, limits: Arc<Limits>) -> Self {
        Self { dial, options, limits, open: Arc::default(), sealed_only: Arc::default() }
    }

    /// Asks a peer for a block. The bytes are not verified.
    pub(crate) async fn block(
        &self,
        peer: NodeId,
        digest: Digest,
    ) -> Result<(BlockAnswer, Plane), Arc<LinkError>> {
        let ask =
            async |plane| self.ask((peer, plane), |reply| Command::Block { digest, reply }).await;
        if self.may_be_plain(&peer) {
            match ask(Plane::Plain).await {
                Ok(answer @ (Ok(_) | Err(Miss::Busy | Miss::Stopped))) => {
                    return Ok((answer, Plane::Plain));
                }
                // Blocks that are not public are given to some over the other plane.
                Ok(Err(Miss::NotFound | Miss::Denied)) => {}
                Err(error) => {
                    tracing::debug!(%peer, reason = %error, "not over plain TCP");
                    self.seal(peer);
                }
            }
        }
        Ok((ask(Plane::Sealed).await?, Plane::Sealed))
    }

    /// What opens streams.
    pub(crate) const fn dial(&self) -> &D {
        &self.dial
    }

    /// Tells a peer that a block that it was asked for is not needed any more. It may be on its
    /// way.
    pub(crate) fn stop(&self, peer: NodeId, digest: Digest) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for plane in [Plane::Plain, Plane::Sealed] {
            if let Some(entry) = open.get(&(peer, plane)) {
                // A full queue costs one block that comes twice.
                let _ = entry.queue.try_send(Command::Stop { digest });
            }
        }
    }

    /// Asks a peer how much of a dataset it holds.
    pub(crate) async fn held(&self, peer: NodeId, digest: Digest) -> Result<Held, Arc<LinkError>> {
        self.ask((peer, Plane::Sealed), |reply| Command::Held { digest, reply }).await
    }

    async fn ask<T>(
        &self,
        to: (NodeId, Plane),
        command: impl Fn(Reply<T>) -> Command,
    ) -> Result<T, Arc<LinkError>> {
        let attempt = async || {
            let (reply, answer) = oneshot::channel();
            let queue = self.queue(to);
            let sent = queue.send(command(reply)).await;
            sent.map_err(|_| Arc::new(LinkError::Closed))?;
            answer.await.unwrap_or_else(|_| Err(Arc::new(LinkError::Closed)))
        };
        match attempt().await {
            // An idle link was closing just then.
            Err(error) if matches!(*error, LinkError::Closed) => attempt().await,
            answer => answer,
        }
    }

    /// The queue of one of the peer's links; the link is started where there is none.
    fn queue(&self, to: (NodeId, Plane)) -> mpsc::Sender<Command> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get(&to)
            && !entry.queue.is_closed()
            && !entry.cut.is_cancelled()
        {
            return entry.queue.clone();
        }
        open.retain(|_, entry| !entry.queue.is_closed());
        let (queue, commands) = mpsc::channel(QUEUE);
        let cut = CancellationToken::new();
        let (peer, plane) = to;
        let link = Link::new(peer, Arc::clone(&self.options), Arc::clone(&self.limits));
        match plane {
            Plane::Sealed => {
                let dial = self.dial.clone();
                let opening = async move { Ok(dial.open(peer, Protocol::Chunk).await?) };
                tokio::spawn(link.run(opening, commands, cut.clone()));
            }
            Plane::Plain => {
                let links = self.clone();
                let opening = async move { links.open_plain(peer).await };
                tokio::spawn(link.run(opening, commands, cut.clone()));
            }
        }
        open.insert(to, Entry { queue: queue.clone(), cut });
        queue
    }

    /// Connects to where the peer says over the authenticated stream, with a token that only
    /// the two know until it is used.
    async fn open_plain(&self, peer: NodeId) -> Result<TcpStream, LinkError> {
        let address = self.dial.near(peer).await.ok_or(LinkError::NoPlain)?;
        let token: Token = rand::random();
        let asked = self.ask((peer, Plane::Sealed), |reply| Command::Open { token, reply });
        let port = asked.await.map_err(|_| LinkError::NoPlain)?;
        if port == 0 {
            return Err(LinkError::NoPlain);
        }
        let connected = async {
            let mut stream = TcpStream::connect((address, port)).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&token).await?;
            Ok(stream)
        };
        connected.await.map_err(LinkError::Lost)
    }

    fn may_be_plain(&self, peer: &NodeId) -> bool {
        let mut sealed = self.sealed_only.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        sealed.retain(|_, until| *until > now);
        self.options.plain && !sealed.contains_key(peer)
    }

    /// Asks a peer over the authenticated stream only, for a while.
    pub(crate) fn seal(&self, peer: NodeId) {
        let until = Instant::now() + PLAIN_PAUSE;
        self.sealed_only.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, until);
        self.close((peer, Plane::Plain));
    }

    /// Closes the streams to a peer, with whatever is still on its way.
    pub(crate) fn cut(&self, peer: &NodeId) {
        self.close((*peer, Plane::Plain));
        self.close((*peer, Plane::Sealed));
    }

    fn close(&self, link: (NodeId, Plane)) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.remove(&link) {
            entry.cut.cancel();
        }
    }
}
