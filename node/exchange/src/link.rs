//! Links: one pipelined stream to each peer, shared by all that is fetched from it.
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
//! # Bounds
//!
//! [`crate::OPEN_MAX`] requests open on a stream, what is more waits in the queue; one payload in
//! memory at a time, its length checked first.

mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dockercomp_protocol::NodeId;
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::wire::chunk::{Held, Miss, Request};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::stream::Link;
use crate::dial::Dial;
use crate::error::LinkError;
use crate::options::Options;

/// Questions that wait for a place on one stream.
const QUEUE: usize = 256;

/// What a peer says when it is asked for a block.
pub(crate) type BlockAnswer = Result<Bytes, Miss>;

type Reply<T> = oneshot::Sender<Result<T, Arc<LinkError>>>;

/// A question and where its answer goes.
enum Command {
    Block { digest: Digest, reply: Reply<BlockAnswer> },
    Held { digest: Digest, reply: Reply<Held> },
}

impl Command {
    fn request(&self, id: u32) -> Request {
        match self {
            Self::Block { digest, .. } => Request::Want { id, digest: *digest },
            Self::Held { digest, .. } => Request::Have { id, digest: *digest },
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Block { reply, .. } => reply.is_closed(),
            Self::Held { reply, .. } => reply.is_closed(),
        }
    }

    /// Whoever asked may have gone: then there is nobody to tell.
    fn fail(self, error: Arc<LinkError>) {
        match self {
            Self::Block { reply, .. } => drop(reply.send(Err(error))),
            Self::Held { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// The streams of one exchange.
#[derive(Clone)]
pub(crate) struct Links<D> {
    dial: D,
    options: Arc<Options>,
    open: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
}

/// A link's task, seen from outside.
struct Entry {
    queue: mpsc::Sender<Command>,
    cut: CancellationToken,
}

impl<D: Dial> Links<D> {
    pub(crate) fn new(dial: D, options: Arc<Options>) -> Self {
        Self { dial, options, open: Arc::default() }
    }

    /// Asks a peer for a block. The bytes are not verified.
    pub(crate) async fn block(
        &self,
        peer: NodeId,
        digest: Digest,
    ) -> Result<BlockAnswer, Arc<LinkError>> {
        self.ask(peer, |reply| Command::Block { digest, reply }).await
    }

    /// Asks a peer how much of a dataset it holds.
    pub(crate) async fn held(&self, peer: NodeId, digest: Digest) -> Result<Held, Arc<LinkError>> {
        self.ask(peer, |reply| Command::Held { digest, reply }).await
    }

    async fn ask<T>(
        &self,
        peer: NodeId,
        command: impl Fn(Reply<T>) -> Command,
    ) -> Result<T, Arc<LinkError>> {
        let attempt = async || {
            let (reply, answer) = oneshot::channel();
            let queue = self.queue(peer);
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

    /// The queue of the peer's link; the link is started where there is none.
    fn queue(&self, peer: NodeId) -> mpsc::Sender<Command> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get(&peer)
            && !entry.queue.is_closed()
            && !entry.cut.is_cancelled()
        {
            return entry.queue.clone();
        }
        open.retain(|_, entry| !entry.queue.is_closed());
        let (queue, commands) = mpsc::channel(QUEUE);
        let cut = CancellationToken::new();
        let link = Link::new(peer, Arc::clone(&self.options));
        tokio::spawn(link.run(self.dial.clone(), commands, cut.clone()));
        open.insert(peer, Entry { queue: queue.clone(), cut });
        queue
    }

    /// Closes the stream to a peer, with whatever is still on its way.
    pub(crate) fn cut(&self, peer: &NodeId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.remove(peer) {
            entry.cut.cancel();
        }
    }
}
