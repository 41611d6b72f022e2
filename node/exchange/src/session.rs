//! A session: one dataset on its way into the store, for one caller or several.
//!
//! The loop around the [`Scheduler`]. It does one thing at a time and never blocks: requests,
//! hashing and disk run as futures beside it and come back as [`Step`]s.
//!
//! # Shape
//!
//! ```text
//! caller ──Join──► list what is missing ──► scheduler ──► links ──► Answered ──► put ──► Stored
//!                        ▲                                                                 │
//!                        └─────────── the caller's list is done ◄──────────────────────────┘
//! ```
//!
//! Lists are short, at most 1024 blocks, because the manifest is itself fetched block by block:
//! each list is as long as what is known allows.
//!
//! Where there is more than a few blocks to be had, the peers are asked what they hold
//! ([`members`]), and tell of others that want the same dataset.
//!
//! # When nobody has a block
//!
//! [`Options::discover`] is asked, at once the first time; after a pause, which doubles, every
//! peer but liars gets another chance. A caller whose patience ends gets
//! [`FetchError::Unavailable`]; patience begins anew with each of its blocks that is stored.
//!
//! [`Options::discover`]: crate::Options::discover

mod events;
mod listing;
mod members;
mod waiter;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dockercomp_exchange_core::members::Members;
use dockercomp_protocol::time::millis;
use dockercomp_protocol::{Cid, NodeId, Timestamp, content};
use dockercomp_store::{PutError, StoreError, Want};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::listing::Listed;
use self::members::Streams;
use self::waiter::Waiter;
use crate::client::Shared;
use crate::dial::Dial;
use crate::error::{FetchError, LinkError};
use crate::link::{BlockAnswer, Plane};
use crate::options::{FetchOptions, Fetched};
use crate::scheduler::{Ask, Scheduler};
use crate::swarms::{Part, digest};

/// Missing blocks that an error names.
const MISSING_NAMED_MAX: usize = 16;

/// A caller who wants (a part of) the dataset.
pub(crate) struct Join {
    pub(crate) want: Want,
    pub(crate) providers: Vec<NodeId>,
    pub(crate) options: FetchOptions,
    pub(crate) reply: oneshot::Sender<Result<Fetched, FetchError>>,
    /// Resolves when the caller is gone.
    pub(crate) left: oneshot::Receiver<()>,
}

/// What a session is told.
pub(crate) enum Message {
    Join(Join),
    Providers(Vec<NodeId>),
    /// Somebody else wants the dataset, and will have some of it.
    Member(NodeId),
}

/// Something that went on beside the loop has ended.
enum Step {
    Listed {
        waiter: u64,
        result: Result<Listed, StoreError>,
    },
    Left {
        waiter: u64,
    },
    Answered {
        ask: Ask,
        result: Result<(BlockAnswer, Plane), Arc<LinkError>>,
    },
    Stored(Vec<Stored>),
    Discovered {
        peers: Vec<NodeId>,
    },
    Learned {
        peer: NodeId,
        can_be_dialled: bool,
    },
    /// The runtime is shutting down.
    CutOff,
}

/// A block that is here and is to be stored.
struct Came {
    ask: Ask,
    plane: Plane,
    bytes: Bytes,
}

/// What became of it.
struct Stored {
    ask: Ask,
    plane: Plane,
    bytes: u64,
    result: Result<(), PutError>,
}

/// See the module documentation.
pub(crate) struct Session<D: Dial> {
    shared: Arc<Shared<D>>,
    root: Cid,
    inbox: mpsc::Receiver<Message>,
    scheduler: Scheduler,
    members: Members,
    streams: Streams,
    _part: Part,
    waiters: BTreeMap<u64, Waiter>,
    next_waiter: u64,
    steps: FuturesUnordered<BoxFuture<'static, Step>>,
    liars: BTreeSet<NodeId>,
    /// Small blocks that wait for those before them to be stored.
    small: Vec<Came>,
    is_storing_small: bool,
    /// Origin of the scheduler's time.
    began: Instant,
    /// When failed peers are tried again, once it has been necessary.
    retry_at: Option<Instant>,
    retry_pause: Duration,
    is_discovering: bool,
}

impl<D: Dial> Session<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>, root: Cid, inbox: mpsc::Receiver<Message>) -> Self {
        Self {
            scheduler: Scheduler::new(shared.options.scheduler()),
            members: Members::default(),
            streams: Streams::default(),
            _part: shared.swarms.begin(digest(&root)),
            retry_pause: shared.options.retry_first,
            shared,
            root,
            inbox,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            steps: FuturesUnordered::new(),
            liars: BTreeSet::new(),
            small: Vec::new(),
            is_storing_small: false,
            began: Instant::now(),
            retry_at: None,
            is_discovering: false,
        }
    }

    /// Runs until nobody wants anything any more.
    pub(crate) async fn run(mut self) {
        loop {
            self.stop_if_used_up();
            self.send_requests();
            self.help_if_stuck();
            if self.waiters.is_empty() && self.shared.close(&self.root, &self.inbox) {
                return;
            }
            let wake_at = self.next_wake();
            tokio::select! {
                Some(message) = self.inbox.recv() => self.on_message(message),
                Some(step) = self.steps.next() => self.on_step(step),
                Some(heard) = self.streams.inbox.recv() => self.on_heard(heard),
                () = sleep_until(wake_at) => self.on_time(),
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(millis(self.began.elapsed()))
    }

    /// Tells all callers, when nothing more may pass in this month.
    fn stop_if_used_up(&mut self) {
        if self.scheduler.n_blocks() > 0
            && let Some(volume) = self.shared.traffic.used_up()
        {
            let (month, limit_bytes) = (volume.used().month, volume.limit_bytes());
            self.fail_all(&FetchError::Volume { root: self.root, month, limit_bytes });
        }
    }

    fn send_requests(&mut self) {
        let now = self.now();
        while let Some(ask) = self.scheduler.next_ask(now) {
            let links = self.shared.links.clone();
            let digest = content::digest(&ask.block).expect("checked when it was listed");
            let asking =
                async move { Step::Answered { ask, result: links.block(ask.peer, digest).await } };
            self.steps.push(asking.boxed());
        }
        while let Some(Ask { peer, block }) = self.scheduler.next_stop() {
            let digest = content::digest(&block).expect("checked when it was listed");
            self.shared.links.stop(peer, digest);
        }
    }

    /// Looks for other peers, and tries the known ones again, when some block has no one left.
    fn help_if_stuck(&mut self) {
        if self.scheduler.n_stuck() == 0 {
            return;
        }
        let now = Instant::now();
        match self.retry_at {
            Some(at) if now < at => return,
            Some(_) => {
                self.scheduler.revive();
                self.watch_members();
                self.retry_pause = (self.retry_pause * 2).min(self.shared.options.retry_max);
            }
            None => {}
        }
        self.retry_at = Some(now + self.retry_pause);
        self.discover();
        self.send_requests();
    }

    fn discover(&mut self) {
        if let Some(discover) = &self.shared.options.discover
            && !self.is_discovering
        {
            self.is_discovering = true;
            let peers = discover.providers(self.root);
            self.steps.push(peers.map(|peers| Step::Discovered { peers }).boxed());
        }
    }

    fn next_wake(&self) -> Instant {
        let deadline = self.scheduler.next_deadline(self.now());
        let deadline = deadline.map(|at| self.began + at.since(Timestamp(0)));
        let retry = self.retry_at.filter(|_| self.scheduler.n_stuck() > 0);
        let patience = self.waiters.values().filter_map(Waiter::gives_up_at).min();
        let soonest = [deadline, retry, patience].into_iter().flatten().min();
        soonest.unwrap_or_else(|| Instant::now() + Duration::from_secs(60))
    }

    fn on_time(&mut self) {
        for peer in self.scheduler.on_timeout(self.now()) {
            tracing::debug!(%peer, root = %self.root, "provider is silent");
        }
        let now = Instant::now();
        let gave_up = |waiter: &Waiter| waiter.gives_up_at().is_some_and(|at| at <= now);
        let ids: Vec<u64> =
            self.waiters.iter().filter(|(_, waiter)| gave_up(waiter)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(waiter) = self.waiters.get_mut(&id) {
                waiter.fail(FetchError::Unavailable {
                    root: self.root,
                    missing: waiter.missing().take(MISSING_NAMED_MAX).copied().collect(),
                    tried: self.scheduler.peers(),
                    liars: self.liars.iter().copied().collect(),
                });
            }
            self.remove(id);
        }
    }

    fn fail_all(&mut self, error: &FetchError) {
        for (_, mut waiter) in std::mem::take(&mut self.waiters) {
            waiter.fail(error.clone());
        }
        self.scheduler.retain(|_| false);
    }

    /// Forgets a caller, and what only that one wanted.
    fn remove(&mut self, id: u64) {
        if self.waiters.remove(&id).is_some() {
            let waiters = &self.waiters;
            self.scheduler.retain(|block| waiters.values().any(|waiter| waiter.wants(block)));
        }
    }
}
