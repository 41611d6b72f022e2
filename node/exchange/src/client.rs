//! The entry: fetch a dataset, or some of its files.
//!
//! Callers that fetch the same dataset at the same time share one session: its streams, its
//! knowledge of who has what, and its requests. The first caller starts it, and it ends with the
//! last, also when that one is merely dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dockercomp_network::Multiaddr;
use dockercomp_protocol::content::{DAG_CBOR, Digest};
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_protocol::{Cid, NodeId, content};
use dockercomp_store::{Store, Want};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use crate::dial::Dial;
use crate::error::{FetchError, LinkError};
use crate::link::Links;
use crate::options::{FetchOptions, Fetched, Options};
use crate::rate::Limits;
use crate::server::{Authorise, Server};
use crate::session::{Join, Message, Session};
use crate::swarms::Swarms;
use crate::traffic::Traffic;

/// Callers and hints that wait for one session's attention.
const SESSION_QUEUE: usize = 256;

/// Fetches blocks from peers into the store. Clones are cheap and share everything.
pub struct Exchange<D: Dial> {
    shared: Arc<Shared<D>>,
}

/// What sessions share.
pub(crate) struct Shared<D: Dial> {
    pub(crate) store: Store,
    pub(crate) links: Links<D>,
    limits: Arc<Limits>,
    pub(crate) options: Arc<Options>,
    pub(crate) traffic: Traffic,
    pub(crate) swarms: Arc<Swarms>,
    /// The sessions that run. A session takes itself out, under the lock, when nobody needs it.
    sessions: Mutex<HashMap<Cid, mpsc::Sender<Message>>>,
}

impl<D: Dial> Clone for Exchange<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Dial> std::fmt::Debug for Exchange<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl<D: Dial> Exchange<D> {
    /// An exchange that puts what it fetches into `store`.
    #[must_use]
    pub fn new(store: Store, dial: D, options: Options) -> Self {
        let options = Arc::new(options);
        let limits = Arc::new(Limits::new(options.rates));
        let traffic = Traffic::within(options.volume.clone());
        let shared = Shared {
            store,
            links: Links::new(dial, Arc::clone(&options), Arc::clone(&limits)),
            limits,
            options,
            traffic,
            swarms: Arc::default(),
            sessions: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Bytes in and out, by peer.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic.clone()
    }

    /// What ties between peers are broken by.
    pub(crate) fn seed(&self) -> u64 {
        self.shared.options.seed
    }

    /// A server of the same store that counts into the same [`Traffic`].
    #[must_use]
    pub fn server(&self, authorise: impl Authorise) -> Server {
        let (store, traffic) = (self.shared.store.clone(), self.shared.traffic.clone());
        Server::new(store, traffic, authorise)
            .with_limits(Arc::clone(&self.shared.limits))
            .with_swarms(Arc::clone(&self.shared.swarms))
    }

    /// Brings what is wanted of a dataset into the store, and returns when it is complete.
    ///
    /// Dropping the future leaves the session; what was stored stays. The caller decides how
    /// many datasets are fetched at once: each has [`Options::blocks_in_flight`] of its own.
    ///
    /// # Errors
    ///
    /// [`FetchError::Unavailable`] if nobody gives what is missing for as long as the caller has
    /// patience; the others say that the store failed or has no room.
    pub async fn fetch(
        &self,
        root: Cid,
        want: Want,
        providers: impl Into<Vec<NodeId>>,
        options: FetchOptions,
    ) -> Result<Fetched, FetchError> {
        content::digest(&root)?;
        let (reply, outcome) = oneshot::channel();
        let (_stay, left) = oneshot::channel();
        let join = Join { want, providers: providers.into(), options, reply, left };
        self.shared.send(root, Message::Join(join), |inbox| {
            let session = Session::new(Arc::clone(&self.shared), root, inbox);
            tokio::spawn(session.run());
        })?;
        outcome.await.unwrap_or(Err(FetchError::Interrupted { root }))
    }

    /// Tells a running fetch of more peers that may have the dataset. `false` if none runs.
    pub fn add_providers(&self, root: Cid, peers: impl Into<Vec<NodeId>>) -> bool {
        self.shared.tell(root, Message::Providers(peers.into()))
    }

    /// Where a peer is said to be.
    pub(crate) async fn addresses(&self, peer: NodeId) -> Vec<Multiaddr> {
        self.shared.links.dial().addresses(peer).await
    }

    /// A peer wants this dataset too: it may soon have what we lack.
    pub(crate) fn on_member(&self, root: &Digest, peer: NodeId) {
        let root = content::from_digest(DAG_CBOR, *root);
        self.shared.tell(root, Message::Member(peer));
    }

    /// Asks a peer how much of a dataset it holds. It may say less than is true to strangers.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if it does not answer.
    pub async fn held(&self, peer: NodeId, root: Cid) -> Result<Held, Arc<LinkError>> {
        match content::digest(&root) {
            Ok(digest) => self.shared.links.held(peer, digest).await,
            Err(_) => Ok(Held::None),
        }
    }
}

impl<D: Dial> Shared<D> {
    /// Sends a message to the session of a dataset, which is started where there is none.
    fn send(
        &self,
        root: Cid,
        message: Message,
        start: impl FnOnce(mpsc::Receiver<Message>),
    ) -> Result<(), FetchError> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let message = match sessions.get(&root) {
            Some(session) => match session.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(FetchError::Busy { root }),
                // Its task was cut off: by a bug, or by a runtime that is shutting down.
                Err(TrySendError::Closed(message)) => message,
            },
            None => message,
        };
        let (session, inbox) = mpsc::channel(SESSION_QUEUE);
        session.try_send(message).map_err(|_| FetchError::Busy { root })?;
        sessions.insert(root, session);
        start(inbox);
        Ok(())
    }

    fn tell(&self, root: Cid, message: Message) -> bool {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&root).is_some_and(|session| session.try_send(message).is_ok())
    }

    /// Takes a session out that nobody needs. `false` if somebody has just joined it.
    pub(crate) fn close(&self, root: &Cid, inbox: &mpsc::Receiver<Message>) -> bool {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.is_empty() {
            sessions.remove(root);
        }
        inbox.is_empty()
    }
}
