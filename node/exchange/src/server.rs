//! Serves blocks to peers.
//!
//! # Shape
//!
//! ```text
//! stream ──► read requests ──queue──► load (blocking threads, a few ahead) ──► write answers
//!                   └───────refused───────────────────────────────────────────────►┘
//! ```
//!
//! Each request is answered once, in the order in which blocks are loaded. What a peer may not
//! have is answered exactly like what is not here: a stranger must not even learn that we hold
//! the output of an undecided unit, or it would know whom to make a pact with.
//!
//! A stream that carries anything but requests is closed. So is one whose peer does not take
//! its answers.
//!
//! # What is not here
//!
//! Upload slots and limits of bandwidth; the place for them is where `loads` is acquired.
//!
//! # Bounds
//!
//! A stream: [`OPEN_MAX`] requests waiting (more are answered `Busy`), [`READ_AHEAD`] blocks in
//! memory. All streams: [`LOADED_MAX`] blocks in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dockercomp_protocol::NodeId;
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::wire::chunk::{Answer, Held, Miss, REQUEST_BYTES, Request};
use dockercomp_store::{Store, StoreError};
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::OPEN_MAX;
use crate::error::ServeError;
use crate::traffic::Traffic;

/// Blocks of one stream that are read before their turn to be sent.
const READ_AHEAD: usize = 4;
/// Blocks that are in memory for all streams together.
const LOADED_MAX: usize = 128;
/// Small answers are written many at once.
const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// How long a peer may take no byte of an answer, before its stream is closed.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long a stream may carry no request, before it is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Says who may have what.
pub trait Authorise: Send + Sync + 'static {
    /// Whether this peer may be given this block, or be told whether it is here. Called for each
    /// request: it must be quick and must not wait.
    fn may_serve(&self, peer: &NodeId, digest: &Digest) -> bool;
}

impl<F: Fn(&NodeId, &Digest) -> bool + Send + Sync + 'static> Authorise for F {
    fn may_serve(&self, peer: &NodeId, digest: &Digest) -> bool {
        self(peer, digest)
    }
}

/// Serves a store's blocks. Clones share their bounds.
#[derive(Clone)]
pub struct Server {
    store: Store,
    traffic: Traffic,
    authorise: Arc<dyn Authorise>,
    /// One permit for each block in memory.
    loads: Arc<Semaphore>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// An answer on its way out.
struct Ready {
    answer: Answer,
    payload: Bytes,
    /// Given back when the payload is written.
    _permit: Option<OwnedSemaphorePermit>,
}

impl From<Answer> for Ready {
    fn from(answer: Answer) -> Self {
        Self { answer, payload: Bytes::new(), _permit: None }
    }
}

impl Server {
    /// A server of `store`.
    #[must_use]
    pub fn new(store: Store, traffic: Traffic, authorise: impl Authorise) -> Self {
        let loads = Arc::new(Semaphore::new(LOADED_MAX));
        Self { store, traffic, authorise: Arc::new(authorise), loads }
    }

    /// Answers what a peer asks on one stream, until it closes it.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the peer broke the protocol, the stream broke, or nothing moves.
    pub async fn serve<S>(&self, peer: NodeId, stream: S) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (read, write) = tokio::io::split(stream);
        let (queue, queued) = mpsc::channel(OPEN_MAX);
        let (refuse, refused) = mpsc::channel(OPEN_MAX);
        let reading = receive(read, queue, refuse);
        tokio::try_join!(reading, self.send(peer, write, queued, refused))?;
        Ok(())
    }

    /// Writes answers, and flushes when there is nothing more to write at the moment.
    async fn send(
        &self,
        peer: NodeId,
        write: impl AsyncWrite + Unpin,
        mut queued: mpsc::Receiver<Request>,
        mut refused: mpsc::Receiver<u32>,
    ) -> Result<(), ServeError> {
        let mut write = BufWriter::with_capacity(WRITE_BUFFER_BYTES, write);
        let requests = futures::stream::poll_fn(move |cx| queued.poll_recv(cx));
        let mut loaded =
            requests.map(|request| self.load(peer, request)).buffer_unordered(READ_AHEAD).fuse();
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    Some(id) = refused.recv() => {
                        Some(Answer::Miss { id, reason: Miss::Busy }.into())
                    }
                    ready = loaded.next() => ready,
                }
            };
            let mut next = std::pin::pin!(next);
            let ready: Option<Ready> = match (&mut next).now_or_never() {
                Some(ready) => ready,
                None => {
                    unless_stalled(write.flush()).await?;
                    next.await
                }
            };
            let Some(ready) = ready else { break };
            self.write(peer, &mut write, &ready).await?;
        }
        unless_stalled(write.flush()).await?;
        unless_stalled(write.shutdown()).await
    }

    async fn write(
        &self,
        peer: NodeId,
        write: &mut (impl AsyncWrite + Unpin),
        ready: &Ready,
    ) -> Result<(), ServeError> {
        unless_stalled(write.write_all(&ready.answer.encode())).await?;
        let mut rest = &ready.payload[..];
        while !rest.is_empty() {
            let n = unless_stalled(write.write(rest)).await?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            rest = &rest[n..];
        }
        if !ready.payload.is_empty() {
            self.traffic.on_up(peer, ready.payload.len() as u64);
        }
        Ok(())
    }

    /// Answers one request from the store.
    async fn load(&self, peer: NodeId, request: Request) -> Ready {
        match request {
            Request::Want { id, digest } => {
                if !self.authorise.may_serve(&peer, &digest) {
                    return Answer::Miss { id, reason: Miss::NotFound }.into();
                }
                let permit = Arc::clone(&self.loads).acquire_owned().await.ok();
                match self.read(move |store| store.block(&digest)).await.flatten() {
                    Some(payload) => {
                        let len = u32::try_from(payload.len()).expect("a block is at most 4 MiB");
                        Ready { answer: Answer::Data { id, len }, payload, _permit: permit }
                    }
                    None => Answer::Miss { id, reason: Miss::NotFound }.into(),
                }
            }
            Request::Have { id, digest } => {
                let state = if self.authorise.may_serve(&peer, &digest) {
                    self.read(move |store| store.held(&digest)).await.unwrap_or(Held::None)
                } else {
                    Held::None
                };
                Answer::Have { id, state }.into()
            }
        }
    }

    /// Reads from the store on a blocking thread. To a peer, a store that fails holds nothing.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<T> {
        let store = self.store.clone();
        match spawn_blocking(move || read(&store)).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::error!(reason = %error, "failed to read a block for a peer");
                None
            }
            // The runtime is shutting down.
            Err(_) => None,
        }
    }
}

/// Reads requests into the queue until the peer closes its side, or is idle.
async fn receive(
    read: impl AsyncRead + Unpin,
    queue: mpsc::Sender<Request>,
    refuse: mpsc::Sender<u32>,
) -> Result<(), ServeError> {
    let mut read = BufReader::with_capacity(OPEN_MAX * REQUEST_BYTES, read);
    loop {
        let mut frame = [0; REQUEST_BYTES];
        match timeout(IDLE_MAX, read.read_exact(&mut frame)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Ok(()),
        }
        let request = Request::decode(&frame)?;
        if let Err(refused) = queue.try_send(request) {
            let (Request::Want { id, .. } | Request::Have { id, .. }) = refused.into_inner();
            // Ends only together with this function.
            let _ = refuse.send(id).await;
        }
    }
}

async fn unless_stalled<T>(writing: impl Future<Output = io::Result<T>>) -> Result<T, ServeError> {
    match timeout(STALL_MAX, writing).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(ServeError::Stalled { after: STALL_MAX }),
    }
}
