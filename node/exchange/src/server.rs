//! Serves blocks to peers.
//!
//! # Shape
//!
//! ```text
//! stream ──► read requests ──queue──► small blocks, many at once ──────────────► write answers
//!                   │                 large ones, a few ahead (blocking threads) ─►┤
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
//! Large blocks are given to a few peers at a time, see [`dockercomp_exchange_core::slots`]; the others are told that
//! the server is busy. A request that is stopped before its block is on its way is not served.
//!
//! # Bounds
//!
//! A stream: [`OPEN_MAX`] requests waiting (more are answered `Busy`), [`READ_AHEAD`] large blocks
//! and [`BATCH`] small ones in memory. All streams: [`LOADED_MAX`] blocks in memory.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dockercomp_exchange_core::slots::{Slots, n_slots};
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::time::millis;
use dockercomp_protocol::wire::chunk::{Answer, Held, Miss, REQUEST_BYTES, Request};
use dockercomp_protocol::{NodeId, Timestamp};
use dockercomp_store::{Store, StoreError};
use futures::future::{BoxFuture, Either};
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::OPEN_MAX;
use crate::error::ServeError;
use crate::plain::{self, Door};
use crate::rate::{Limits, PIECE_BYTES, RATE_MIN, Rates, time_of};
use crate::swarms::Swarms;
use crate::traffic::Traffic;

/// Blocks of one stream that are read before their turn to be sent.
const READ_AHEAD: usize = 4;
/// Requests that are looked at together. A blocking thread costs more than a small block.
const BATCH: usize = 32;
/// Blocks that are in memory for all streams together.
const LOADED_MAX: usize = 128;
/// Small answers are written many at once.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// How long a server waits for the peer at the other end, before it closes a stream.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a stream may carry no request.
    pub idle: Duration,
    /// How long a peer may take no byte of an answer.
    pub stall: Duration,
    /// Bytes a second: a block must be taken in `stall` and the time that it takes at this rate.
    /// Without that, a few peers could keep all the memory that there is for blocks.
    pub rate_min: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: Duration::from_secs(600), stall: Duration::from_secs(60), rate_min: RATE_MIN }
    }
}

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

/// Brings blocks that this peer gives to others without keeping them.
pub trait Elsewhere: Send + Sync + 'static {
    /// Reads a block, verified. It must answer within half a minute, or whoever asked gives the
    /// peer up: [`Miss::Busy`] if it may be had later, [`Miss::NotFound`] if not.
    fn block(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, Miss>>;
}

/// Serves a store's blocks. Clones share their bounds.
#[derive(Clone)]
pub struct Server {
    store: Store,
    traffic: Traffic,
    authorise: Arc<dyn Authorise>,
    /// One permit for each block in memory.
    loads: Arc<Semaphore>,
    lobby: Arc<Lobby>,
    limits: Arc<Limits>,
    /// Who wants what, for [`crate::swarms`].
    pub(crate) swarms: Arc<Swarms>,
    patience: Patience,
    /// Where public blocks are served without encryption, if anywhere.
    door: Option<Arc<Door>>,
    /// Where blocks that are not in the store come from, if from anywhere.
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

/// Who is at the other end of a stream.
#[derive(Clone, Copy)]
struct Client {
    peer: NodeId,
    /// Whose rights it has on this stream.
    rights: NodeId,
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
    _slot: Option<HeldSlot>,
}

impl From<Answer> for Ready {
    fn from(answer: Answer) -> Self {
        Self { answer, payload: Bytes::new(), _permit: None, _slot: None }
    }
}

/// The slots, and the clock by which they change hands.
struct Lobby {
    slots: Mutex<Slots>,
    began: Instant,
}

impl Lobby {
    fn new(rate_up: Option<u64>) -> Arc<Self> {
        let slots = Mutex::new(Slots::new(n_slots(rate_up)));
        Arc::new(Self { slots, began: Instant::now() })
    }

    fn now(&self) -> Timestamp {
        Timestamp(millis(self.began.elapsed()))
    }
}

/// A request that is served in its peer's slot.
struct HeldSlot {
    lobby: Arc<Lobby>,
    peer: NodeId,
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        locked(&self.lobby.slots).on_done(self.lobby.now(), &self.peer);
    }
}

/// What a look at the index says of a request.
enum Look {
    /// It is answered: the block is small, and here it is.
    Small(Bytes),
    /// The block is here.
    Here,
    /// It is not.
    Absent,
    /// It is no request for a block.
    Other,
}

/// Requests of one stream whose answers are not needed any more.
type Stopped = Mutex<BTreeSet<u32>>;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// A server of `store`.
    #[must_use]
    pub fn new(store: Store, traffic: Traffic, authorise: impl Authorise) -> Self {
        let loads = Arc::new(Semaphore::new(LOADED_MAX));
        let limits = Arc::new(Limits::new(Rates::default()));
        let (authorise, patience) = (Arc::new(authorise), Patience::default());
        let lobby = Lobby::new(None);
        let (swarms, door, elsewhere) = (Arc::default(), None, None);
        Self { store, traffic, authorise, loads, lobby, limits, swarms, patience, door, elsewhere }
    }

    /// The same server, which also gives what it does not have in its store.
    #[must_use]
    pub fn with_elsewhere(mut self, elsewhere: impl Elsewhere) -> Self {
        self.elsewhere = Some(Arc::new(elsewhere));
        self
    }

    /// The same server with this patience.
    #[must_use]
    pub const fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The same server within these limits.
    pub(crate) fn with_limits(mut self, limits: Arc<Limits>) -> Self {
        self.lobby = Lobby::new(limits.rate_up());
        self.limits = limits;
        self
    }

    /// The same server, which also says who wants what in these swarms.
    pub(crate) fn with_swarms(mut self, swarms: Arc<Swarms>) -> Self {
        self.swarms = swarms;
        self
    }

    /// The same server, which also tells peers of this door. [`Self::run_door`] serves there.
    #[must_use]
    pub fn with_door(mut self, door: Door) -> Self {
        self.door = Some(Arc::new(door));
        self
    }

    /// Serves public blocks at the door, to those who were told of it, until `shutdown`.
    pub async fn run_door(self, shutdown: CancellationToken) {
        let Some(door) = self.door.clone() else { return };
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(_) = streams.join_next() => {}
                (peer, stream) = door.next() => {
                    let server = self.clone();
                    streams.spawn(async move {
                        let client = Client { peer, rights: plain::stranger() };
                        if let Err(error) = server.attend(client, stream).await {
                            tracing::debug!(%peer, reason = %error, "plain chunk stream ended");
                        }
                    });
                }
            }
        }
    }

    /// Whether the peer may be told of this block.
    pub(crate) fn may_serve(&self, peer: &NodeId, digest: &Digest) -> bool {
        self.authorise.may_serve(peer, digest)
    }

    /// How long this server waits for others.
    pub(crate) const fn patience(&self) -> Patience {
        self.patience
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
        self.attend(Client { peer, rights: peer }, stream).await
    }

    async fn attend<S>(&self, client: Client, stream: S) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (read, write) = tokio::io::split(stream);
        let (queue, queued) = mpsc::channel(OPEN_MAX);
        let (refuse, refused) = mpsc::channel(OPEN_MAX);
        let stopped = Stopped::default();
        let reading = receive(read, (queue, refuse, &stopped), self.patience.idle);
        tokio::try_join!(reading, self.send(client, write, (queued, refused, &stopped)))?;
        Ok(())
    }

    /// Writes answers, and flushes when there is nothing more to write at the moment.
    async fn send(
        &self,
        client: Client,
        write: impl AsyncWrite + Unpin,
        (mut queued, mut refused, stopped): (
            mpsc::Receiver<Request>,
            mpsc::Receiver<u32>,
            &Stopped,
        ),
    ) -> Result<(), ServeError> {
        let mut write = BufWriter::with_capacity(WRITE_BUFFER_BYTES, write);
        let requests = futures::stream::poll_fn(move |cx| queued.poll_recv(cx));
        let looked_at =
            requests.ready_chunks(BATCH).then(|batch| self.look_at(client, batch).boxed());
        let loading = looked_at.flat_map(stream::iter).map(|next| match next {
            Either::Left(ready) => std::future::ready(ready).boxed(),
            Either::Right((request, slot)) => {
                let is_stopped = locked(stopped).remove(&request.id());
                self.load(client, request, slot, is_stopped).boxed()
            }
        });
        let mut loaded = loading.buffer_unordered(READ_AHEAD).boxed().fuse();
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
                    self.unless_stalled(write.flush()).await?;
                    next.await
                }
            };
            let Some(mut ready) = ready else { break };
            if let Answer::Data { id, .. } = ready.answer
                && locked(stopped).remove(&id)
            {
                ready = Answer::Miss { id, reason: Miss::Stopped }.into();
            }
            self.write(client.peer, &mut write, &ready).await?;
        }
        self.unless_stalled(write.flush()).await?;
        self.unless_stalled(write.shutdown()).await
    }

    async fn write(
        &self,
        peer: NodeId,
        write: &mut (impl AsyncWrite + Unpin),
        ready: &Ready,
    ) -> Result<(), ServeError> {
        self.unless_stalled(write.write_all(&ready.answer.encode())).await?;
        let after = self.patience.stall + time_of(ready.payload.len(), self.patience.rate_min);
        let mut waited = Duration::ZERO;
        let mut rest = &ready.payload[..];
        // Bytes that the line has room for now: a stream may take them in parts.
        let mut paid = 0;
        while !rest.is_empty() {
            if waited > after {
                let bytes = ready.payload.len() - rest.len();
                return Err(ServeError::Slow { bytes, after });
            }
            if !self.limits.limits_up() {
                paid = rest.len();
            } else if paid == 0 {
                paid = rest.len().min(PIECE_BYTES);
                self.limits.up(peer, paid).await;
            }
            // Not the time for which we wait by ourselves.
            let began = Instant::now();
            let n = self.unless_stalled(write.write(&rest[..paid])).await?;
            waited += began.elapsed();
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            paid -= n;
            rest = &rest[n..];
        }
        if !ready.payload.is_empty() {
            self.traffic.on_up(peer, ready.payload.len() as u64);
        }
        Ok(())
    }

    /// Answers requests that may not be served now and those for small blocks, and gives the
    /// others back.
    async fn look_at(
        &self,
        client: Client,
        batch: Vec<Request>,
    ) -> Vec<Either<Ready, (Request, Option<HeldSlot>)>> {
        let n_batch = u32::try_from(batch.len()).expect("a few requests");
        let mut permits = Arc::clone(&self.loads).acquire_many_owned(n_batch).await.ok();
        let may_have = |request: &Request| match request {
            Request::Want { digest, .. } => self.authorise.may_serve(&client.rights, digest),
            Request::Have { .. } | Request::Open { .. } | Request::Stop { .. } => true,
        };
        let allowed: Vec<bool> = batch.iter().map(may_have).collect();
        let asked: Vec<(Request, bool)> = batch.into_iter().zip(allowed).collect();
        let looked = asked.clone();
        let look = move |store: &Store| {
            let one = |(request, may_have): &(Request, bool)| match request {
                Request::Want { .. } if !may_have => Ok(Look::Absent),
                Request::Want { digest, .. } => Ok(match store.small_block(digest)? {
                    Some(bytes) => Look::Small(bytes),
                    None if store.is_here(digest)? => Look::Here,
                    None => Look::Absent,
                }),
                Request::Have { .. } | Request::Open { .. } | Request::Stop { .. } => {
                    Ok(Look::Other)
                }
            };
            looked.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        // A store that fails holds nothing.
        let mut found = self.read(look).await.unwrap_or_default().into_iter();
        let answer = |(request, _): (Request, bool)| {
            let id = request.id();
            match found.next() {
                Some(Look::Small(payload)) => {
                    let answer = Answer::Data { id, len: len_of(&payload) };
                    let permit = permits.as_mut().and_then(|permits| permits.split(1));
                    Either::Left(Ready { answer, payload, _permit: permit, _slot: None })
                }
                Some(Look::Here) if self.traffic.used_up().is_some() => {
                    Either::Left(Answer::Miss { id, reason: Miss::Denied }.into())
                }
                Some(Look::Here) => match self.slot(client.peer) {
                    Some(slot) => Either::Right((request, Some(slot))),
                    None => Either::Left(Answer::Miss { id, reason: Miss::Busy }.into()),
                },
                Some(Look::Other) => Either::Right((request, None)),
                Some(Look::Absent) | None => {
                    Either::Left(Answer::Miss { id, reason: Miss::NotFound }.into())
                }
            }
        };
        asked.into_iter().map(answer).collect()
    }

    /// A place in the peer's slot, if it has one or gets one now.
    fn slot(&self, peer: NodeId) -> Option<HeldSlot> {
        let gave = |peer: &NodeId| self.traffic.down_bytes(peer);
        let is_served = locked(&self.lobby.slots).ask(self.lobby.now(), peer, gave);
        is_served.then(|| HeldSlot { lobby: Arc::clone(&self.lobby), peer })
    }

    /// Answers one request from the store. Whether a block may be served was asked before.
    async fn load(
        &self,
        client: Client,
        request: Request,
        slot: Option<HeldSlot>,
        is_stopped: bool,
    ) -> Ready {
        match request {
            Request::Want { id, .. } if is_stopped => {
                Answer::Miss { id, reason: Miss::Stopped }.into()
            }
            Request::Want { id, digest } => {
                let permit = Arc::clone(&self.loads).acquire_owned().await.ok();
                match self.read(move |store| store.block(&digest)).await.flatten() {
                    Some(payload) => {
                        let answer = Answer::Data { id, len: len_of(&payload) };
                        Ready { answer, payload, _permit: permit, _slot: slot }
                    }
                    None => {
                        // Others need not wait for memory until an origin answers.
                        drop(permit);
                        self.load_elsewhere(id, digest, slot).await
                    }
                }
            }
            Request::Have { id, digest } => {
                let state = if self.authorise.may_serve(&client.rights, &digest) {
                    self.read(move |store| store.held(&digest)).await.unwrap_or(Held::None)
                } else {
                    Held::None
                };
                Answer::Have { id, state }.into()
            }
            Request::Open { id, token } => {
                let door = self.door.as_ref().filter(|_| client.peer == client.rights);
                let port = door.and_then(|door| door.admit(client.peer, token));
                Answer::Open { id, port: port.unwrap_or_default() }.into()
            }
            // It was taken out when it was received.
            Request::Stop { id, .. } => Answer::Miss { id, reason: Miss::Stopped }.into(),
        }
    }

    async fn load_elsewhere(&self, id: u32, digest: Digest, slot: Option<HeldSlot>) -> Ready {
        let found = match &self.elsewhere {
            Some(elsewhere) => elsewhere.block(digest).await,
            None => Err(Miss::NotFound),
        };
        match found {
            Ok(payload) => {
                let permit = Arc::clone(&self.loads).acquire_owned().await.ok();
                let answer = Answer::Data { id, len: len_of(&payload) };
                Ready { answer, payload, _permit: permit, _slot: slot }
            }
            Err(reason) => Answer::Miss { id, reason }.into(),
        }
    }

    async fn unless_stalled<T>(
        &self,
        writing: impl Future<Output = io::Result<T>>,
    ) -> Result<T, ServeError> {
        let after = self.patience.stall;
        match timeout(after, writing).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(ServeError::Stalled { after }),
        }
    }

    /// Reads from the store on a blocking thread. To a peer, a store that fails holds nothing.
    pub(crate) async fn read<T: Send + 'static>(
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

fn len_of(payload: &Bytes) -> u32 {
    u32::try_from(payload.len()).expect("a block is at most 4 MiB")
}

/// Reads requests into the queue until the peer closes its side, or is idle.
async fn receive(
    read: impl AsyncRead + Unpin,
    (queue, refuse, stopped): (mpsc::Sender<Request>, mpsc::Sender<u32>, &Stopped),
    idle_max: Duration,
) -> Result<(), ServeError> {
    let mut read = BufReader::with_capacity(OPEN_MAX * REQUEST_BYTES, read);
    loop {
        let mut frame = [0; REQUEST_BYTES];
        match timeout(idle_max, read.read_exact(&mut frame)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Ok(()),
        }
        let request = Request::decode(&frame)?;
        if let Request::Stop { want, .. } = request {
            let mut stopped = locked(stopped);
            // Those that were answered in the meantime stay here, and are of no more use.
            if stopped.len() >= OPEN_MAX {
                stopped.clear();
            }
            stopped.insert(want);
            continue;
        }
        if let Err(refused) = queue.try_send(request) {
            // Ends only together with this function.
            let _ = refuse.send(refused.into_inner().id()).await;
        }
    }
}
