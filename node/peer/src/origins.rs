//! Datasets that stay at their origin, a bucket or a file on a web server, and are passed on
//! from there chunk by chunk.
//!
//! # Shape
//!
//! ```text
//! add:    origin ──read once, chunks named──► store: manifest, and where each chunk lies
//! serve:  peer asks ──► store: not here ──► block ──► cache ──► range of the object ──verify──► peer
//! need:   fetch of this node ──► bring: missing blocks from the origin ──► store
//! ```
//!
//! # Invariants
//!
//! - Nothing leaves that does not hash to what was asked for, or is of an object whose size,
//!   ETag or time of change is not what it was when it was added.
//! - A block is read once for all who ask for it at the same time.
//! - Waiting for an origin holds no thread, and none of the memory that others' blocks need.
//!
//! # What is not here
//!
//! Credentials: they are those of the process's environment, and never stored.
//!
//! # Bounds
//!
//! [`REQUESTS_MAX`] requests at once, [`CACHE_BYTES`] of blocks, [`READ_MAX`] a block. An origin
//! that failed is left alone for [`AWAY`], an object that changed for [`CHANGED`].

mod client;
mod naming;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use dockercomp_exchange::Elsewhere;
use dockercomp_protocol::wire::chunk::Miss;
use dockercomp_protocol::{Cid, content};
use dockercomp_store::{
    AddOptions, Added, Lead, Origin, Position, PutError, Store, StoreError, Want,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use client::OriginError;
pub(crate) use client::shown;
use client::{Client, Patience};

use crate::library::blocking;

/// Requests to all origins that are under way for peers.
const REQUESTS_MAX: usize = 32;
/// Blocks that were just read: several peers often fetch the same dataset side by side.
const CACHE_BYTES: u64 = 64 << 20;
/// How long a peer may wait for a block; after half a minute of silence it would give up.
const READ_MAX: Duration = Duration::from_secs(20);
/// How long an origin that did not answer is not asked again.
const AWAY: Duration = Duration::from_secs(2);
/// How long an object that changed is not looked at again.
const CHANGED: Duration = Duration::from_secs(60);
/// Objects that changed that are remembered.
const CHANGED_MAX: u64 = 100_000;
/// Blocks that are brought or checked together.
const TOGETHER: usize = 16;
/// Names of objects that a check tells.
const NAMES_MAX: usize = 100;

type Digest = content::Digest;

/// The origins of a store's datasets; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    clients: Mutex<HashMap<Origin, Arc<Client>>>,
    blocks: Cache<Digest, Bytes>,
    away: Cache<Origin, ()>,
    /// By dataset and number of the file.
    changed: Cache<(Cid, u64), ()>,
    requests: Semaphore,
}

/// What was found at an origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtOrigin {
    /// Chunks that are there and right.
    pub sound: u64,
    /// Chunks of objects that are gone or not what they were.
    pub gone: u64,
    /// The first of those objects.
    pub objects: BTreeSet<String>,
}

impl Origins {
    pub(crate) fn new(store: Store) -> Self {
        let weigh = |_: &Digest, block: &Bytes| u32::try_from(block.len()).unwrap_or(u32::MAX);
        let inner = Inner {
            store,
            clients: Mutex::default(),
            blocks: Cache::builder().max_capacity(CACHE_BYTES).weigher(weigh).build(),
            away: Cache::builder().max_capacity(CHANGED_MAX).time_to_live(AWAY).build(),
            changed: Cache::builder().max_capacity(CHANGED_MAX).time_to_live(CHANGED).build(),
            requests: Semaphore::new(REQUESTS_MAX),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Reads an origin once and adds it. Its bytes stay there.
    pub(crate) async fn add(
        &self,
        origin: Origin,
        options: AddOptions,
    ) -> Result<Added, OriginError> {
        let client = Arc::new(Client::open(&origin, Patience::Adding)?);
        let files = naming::name_all(client, &options).await?;
        let store = self.inner.store.clone();
        let added = blocking(move || store.add_at(&origin, files, &options)).await?;
        // What was known to be changed may be what was added now.
        self.inner.changed.invalidate_all();
        Ok(added)
    }

    /// Reads a block, verified, from the cache or an origin.
    async fn block(&self, digest: Digest) -> Result<Bytes, OriginError> {
        let reading = self.read_any(digest);
        self.inner.blocks.try_get_with(digest, reading).await.map_err(OriginError::Shared)
    }

    async fn read_any(&self, digest: Digest) -> Result<Bytes, OriginError> {
        let store = self.inner.store.clone();
        let leads = blocking(move || store.leads(&digest)).await?;
        let mut failed = OriginError::Unknown;
        for lead in leads {
            match self.read(&lead).await {
                Ok(block) => return Ok(block),
                Err(_) if failed.is_passing() => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Reads a block where it is said to be, unless that failed a moment ago.
    async fn read(&self, lead: &Lead) -> Result<Bytes, OriginError> {
        let (inner, object) = (&self.inner, || lead.object.key.clone());
        if inner.changed.contains_key(&(lead.root, lead.file)) {
            let what = "it was looked at a moment ago";
            return Err(OriginError::Changed { object: object(), what });
        }
        if inner.away.contains_key(&lead.origin) {
            return Err(OriginError::Away { object: object() });
        }
        let reading = async {
            let _permit = inner.requests.acquire().await;
            self.read_now(lead).await
        };
        let timed_out = |_| OriginError::TimedOut { object: object(), after: READ_MAX };
        let read = timeout(READ_MAX, reading).await.map_err(timed_out).flatten();
        if let Err(error) = &read {
            let reason = crate::reply::chain(error);
            if error.is_passing() {
                inner.away.insert(lead.origin.clone(), ()).await;
                tracing::warn!(dataset = %lead.root, reason, "origin cannot be read");
            } else {
                inner.changed.insert((lead.root, lead.file), ()).await;
                tracing::error!(dataset = %lead.root, reason, "a file is not served any more");
            }
        }
        read
    }

    async fn read_now(&self, lead: &Lead) -> Result<Bytes, OriginError> {
        let range = lead.offset..lead.offset + lead.len;
        let client = self.client(&lead.origin)?;
        let (block, _) = client.read(&lead.object.key, range, Some(&lead.object)).await?;
        if content::digest_of(&block) == lead.digest {
            return Ok(block);
        }
        Err(OriginError::Changed { object: lead.object.key.clone(), what: "its bytes" })
    }

    fn client(&self, origin: &Origin) -> Result<Arc<Client>, OriginError> {
        let mut clients = self.inner.clients.lock().expect("no holder of this lock panics");
        if let Some(client) = clients.get(origin) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Client::open(origin, Patience::Serving)?);
        clients.insert(origin.clone(), Arc::clone(&client));
        Ok(client)
    }

    /// Brings what is wanted of a dataset into the store, if it has an origin. `progress` is
    /// told the bytes brought.
    pub(crate) async fn bring(
        &self,
        root: Cid,
        want: Want,
        progress: impl Fn(u64),
    ) -> Result<(), OriginError> {
        let store = self.inner.store.clone();
        let known = blocking(move || store.dataset(&root)).await?;
        if known.is_none_or(|dataset| dataset.origin.is_none()) {
            return Ok(());
        }
        let brought = self.bring_missing(root, want, progress).await;
        if brought.is_err() {
            // The room that it was promised.
            let store = self.inner.store.clone();
            blocking(move || store.release(&root)).await?;
        }
        brought
    }

    async fn bring_missing(
        &self,
        root: Cid,
        want: Want,
        progress: impl Fn(u64),
    ) -> Result<(), OriginError> {
        let mut done = 0;
        loop {
            let store = self.inner.store.clone();
            let missing = blocking(move || store.missing(&root, &want, TOGETHER)).await?;
            if missing.is_empty() {
                return Ok(());
            }
            let reading = futures::stream::iter(missing).map(|cid| async move {
                let digest = content::digest(&cid).map_err(StoreError::from)?;
                Ok::<_, OriginError>((cid, self.block(digest).await?))
            });
            let blocks: Vec<_> = reading.buffer_unordered(TOGETHER).try_collect().await?;
            done += blocks.iter().map(|(_, block)| block.len() as u64).sum::<u64>();
            let store = self.inner.store.clone();
            let put = blocking(move || store.put_many(&root, &blocks)).await;
            put.into_iter().collect::<Result<(), _>>().map_err(|error| match error {
                PutError::Store(error) => OriginError::Store(error),
                _ => OriginError::Store(StoreError::Incomplete { root }),
            })?;
            progress(done);
        }
    }

    /// Reads everything of a dataset that is not here but at its origin. `progress` is told the
    /// bytes gone through.
    ///
    /// An origin that does not answer is an error: nothing is known then.
    pub(crate) async fn check(
        &self,
        root: Cid,
        progress: impl Fn(u64),
    ) -> Result<AtOrigin, OriginError> {
        let (mut found, mut at, mut done) = (AtOrigin::default(), Position::default(), 0);
        let mut gone = BTreeSet::new();
        loop {
            let store = self.inner.store.clone();
            let listing = move || store.elsewhere(&root, &mut at, TOGETHER).map(|list| (list, at));
            let (leads, next) = blocking(listing).await?;
            if leads.is_empty() {
                return Ok(found);
            }
            at = next;
            let gone_before = &gone;
            let reading = futures::stream::iter(leads).map(|lead| async move {
                let read = match gone_before.contains(&lead.file) {
                    true => Ok(false),
                    false => match self.read_now(&lead).await {
                        Ok(_) => Ok(true),
                        Err(error) if error.is_passing() => Err(error),
                        Err(_) => Ok(false),
                    },
                };
                read.map(|is_sound| (lead, is_sound))
            });
            let read: Vec<_> = reading.buffer_unordered(TOGETHER).try_collect().await?;
            for (lead, is_sound) in read {
                done += lead.len;
                if is_sound {
                    found.sound += 1;
                    self.inner.changed.invalidate(&(root, lead.file)).await;
                    continue;
                }
                found.gone += 1;
                gone.insert(lead.file);
                self.inner.changed.insert((root, lead.file), ()).await;
                if found.objects.len() < NAMES_MAX {
                    found.objects.insert(lead.object.key);
                }
            }
            progress(done);
        }
    }
}

impl Elsewhere for Origins {
    fn block(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, Miss>> {
        let reading = self.block(digest);
        let miss = |error: OriginError| {
            if error.is_passing() { Miss::Busy } else { Miss::NotFound }
        };
        reading.map(move |read| read.map_err(miss)).boxed()
    }
}
