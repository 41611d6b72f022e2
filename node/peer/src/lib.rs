//! What every process that holds data is: an identity, a store, a side of the network, and
//! the exchange between them.
//!
//! Nodes and coordinators are built on a [`Peer`]. It serves the blocks that it holds, fetches
//! those that it is asked for, announces whole datasets in Kademlia (and again after a
//! restart), and answers commands about datasets on its control door.
//!
//! # What is not here
//!
//! - No jobs, leases or results: [`Peer`] does not know what the data is for.

pub mod api;
pub mod clock;
pub mod control;
pub mod datasets;
mod fault;
pub mod identity;
pub mod library;
mod origins;
mod private;
pub mod reply;
mod room;
mod spool;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_exchange::{Door, Exchange, FetchOptions, Fetched, Server, Volume, provider_key};
pub use dockercomp_exchange::{FetchError, Progress, Rates};
use dockercomp_network as network;
use dockercomp_network::{Handle as Network, Role, StreamProtocol};
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::log::HeadNotice;
use dockercomp_protocol::manifest::{ChunkPage, Chunks, PageLink};
use dockercomp_protocol::statement::Announcement;
use dockercomp_protocol::wire::{chunk, swarm};
use dockercomp_protocol::{Cid, NodeId, content};
use dockercomp_store::{
    AddError, AddOptions, Added, Kind, Lease, OpenError, Origin, Store, StoreError, Want,
};
use libp2p_identity::Keypair;
use multiaddr::{Multiaddr, Protocol};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{ConnectedPeer, PeerStatus, PeerTraffic, VolumeStatus};
use crate::fault::Lying;
use crate::origins::Origins;
pub use crate::origins::{AtOrigin, OriginError};
use crate::private::Private;

/// How long a fetch goes on without progress before it fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a peer needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where identity and data lie.
    pub dir: PathBuf,
    /// Its part in the network.
    pub role: Role,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others are told, where they differ.
    pub external: Vec<Multiaddr>,
    /// Doors to the network, each ending in `/p2p/<id>`.
    pub bootstrap: Vec<Multiaddr>,
    /// Reads more such doors from the store, for who remembers some there.
    pub remembered: Option<fn(&Store) -> Vec<Multiaddr>>,
    /// Bytes of data that may be held.
    pub quota_bytes: Option<u64>,
    /// How data is passed on.
    pub sharing: Sharing,
    /// Bytes of the disk that are left free; the store's own default if not said.
    pub reserve_bytes: Option<u64>,
    /// Send wrong bytes, so that others can be seen to withstand it.
    pub lie: bool,
}

/// How data is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Limits of bandwidth.
    pub rates: Rates,
    /// Encrypt everything, also between near peers, where public blocks go over plain TCP else.
    pub sealed: bool,
    /// Bytes that may pass in a month of the calendar, in both directions together.
    pub monthly_bytes: Option<u64>,
}

/// Why a peer did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The data directory is in use, or cannot be used.
    #[error("cannot use the data directory")]
    Open(#[from] OpenError),
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The store failed.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// The addresses cannot be listened on.
    #[error("cannot start the network")]
    Bind(#[from] network::BindError),
    /// Another part of this process serves chunks already.
    #[error("cannot serve chunks")]
    Accept(#[from] network::AcceptError),
}

/// A peer and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its id.
    pub peer: NodeId,
    /// Its addresses.
    pub addresses: Vec<Multiaddr>,
}

/// A running peer; clones share it.
#[derive(Clone, Debug)]
pub struct Peer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: Keypair,
    store: Store,
    network: Network,
    exchange: Exchange<Network>,
    origins: Origins,
    private: Private,
    volume: Option<Arc<Volume>>,
}

impl Peer {
    /// Starts a peer; it can be reached when this returns. Also gives its tasks, which end
    /// with `shutdown`.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn start(
        options: Options,
        shutdown: CancellationToken,
    ) -> Result<(Self, Vec<JoinHandle<()>>), PeerError> {
        let dir = options.dir.clone();
        let defaults = dockercomp_store::Options::default();
        let store_options = dockercomp_store::Options {
            quota_bytes: options.quota_bytes,
            reserve_bytes: options.reserve_bytes.unwrap_or(defaults.reserve_bytes),
        };
        let opening = tokio::task::spawn_blocking(move || {
            let store = Store::open(&dir, store_options)?;
            let key = identity::load_or_create(&dir.join(identity::FILE))?;
            let mut doors = options.bootstrap;
            let remembered = options.remembered.map(|read| read(&store)).unwrap_or_default();
            doors.extend(remembered);
            Ok::<_, PeerError>((store, key, doors))
        });
        let (store, key, doors) = opening.await.expect("opening does not panic")?;
        let service = network::Service::bind(network::Options {
            listen: options.listen,
            external: options.external,
            bootstrap: doors,
            topics: vec![Announcement::TOPIC.to_owned(), HeadNotice::TOPIC.to_owned()],
            ..network::Options::new(key.clone(), options.role)
        })
        .await?;
        let network = service.handle();
        let volume = match options.sharing.monthly_bytes {
            Some(limit_bytes) => Some(volume::load(&store, limit_bytes).await?),
            None => None,
        };
        let exchange = Exchange::new(
            store.clone(),
            network.clone(),
            dockercomp_exchange::Options {
                discover: Some(Arc::new(network.clone())),
                plain: !options.sharing.sealed,
                rates: options.sharing.rates,
                volume: volume.clone(),
                ..dockercomp_exchange::Options::default()
            },
        );
        let (private, origins) = (Private::default(), Origins::new(store.clone()));
        let inner =
            Inner { key, store, network, exchange, origins, private, volume: volume.clone() };
        let peer = Self { inner: Arc::new(inner) };
        let mut tasks = if options.lie {
            vec![peer.serve_lies(shutdown.clone())?]
        } else {
            peer.serve(options.sharing.sealed, shutdown.clone()).await?
        };
        if let Some(volume) = volume {
            let keeping = volume::keep(peer.inner.store.clone(), volume, shutdown.clone());
            tasks.push(tokio::spawn(keeping));
        }
        tasks.push(tokio::spawn(service.run(shutdown)));
        peer.announce_all().await?;
        Ok((peer, tasks))
    }

    /// Its id on the network.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.network.local_peer()
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &Keypair {
        &self.inner.key
    }

    /// Its store. Blocking: use it off the async threads.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Its side of the network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// Lets this peer have the outputs of a project, and others only with [`Self::permit`].
    pub fn trust(&self, project: ProjectId, coordinator: NodeId) {
        self.inner.private.trust(project, coordinator);
    }

    /// Lets nobody have the outputs of a project any more.
    pub fn distrust(&self, project: &ProjectId) {
        self.inner.private.distrust(project);
    }

    /// Who may have the outputs of which project, as far as that is known.
    #[must_use]
    pub fn trusted(&self) -> BTreeMap<ProjectId, NodeId> {
        self.inner.private.trusted()
    }

    /// Lets one more peer have outputs of a project, those of them that are here and hidden.
    pub fn permit(&self, project: ProjectId, outputs: &[Cid], asker: NodeId) {
        for output in outputs {
            self.inner.private.permit(project, output, asker);
        }
    }

    /// Fetches what is wanted of a dataset from these peers, and from those that Kademlia
    /// names if they do not have it.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(
        &self,
        root: Cid,
        want: Want,
        holders: Vec<Located>,
        progress: Option<watch::Sender<Progress>>,
    ) -> Result<Fetched, FetchError> {
        let providers = self.locate(holders).await;
        let options = FetchOptions { patience: PATIENCE, progress };
        self.fetch_with(root, want, providers, options).await
    }

    /// Fetches an output from those who computed it. A dataset that is here for another
    /// reason stays what it is.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch_output(
        &self,
        root: Cid,
        holders: Vec<Located>,
        patience: Duration,
        progress: Option<watch::Sender<Progress>>,
    ) -> Result<(), FetchError> {
        let providers = self.locate(holders).await;
        let _lease = self.lease(&root);
        let options = FetchOptions { patience, progress };
        let fetched = self.fetch_with(root, Want::All, providers, options).await?;
        if fetched.n_blocks > 0 {
            let store = self.inner.store.clone();
            let mark = move || store.mark(&root, Kind::Output);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(mark).await {
                tracing::warn!(%root, %error, "output not marked as such");
            }
        }
        Ok(())
    }

    /// Keeps a dataset from being collected for as long as the lease lives: take it before the
    /// dataset is fetched. `None`: the identifier is not of our kind, and nothing has it.
    #[must_use]
    pub fn lease(&self, root: &Cid) -> Option<Lease> {
        self.inner.store.lease(root).ok()
    }

    /// Fetches; room that was promised to a fetch that failed is given back.
    async fn fetch_with(
        &self,
        root: Cid,
        want: Want,
        providers: Vec<NodeId>,
        options: FetchOptions,
    ) -> Result<Fetched, FetchError> {
        // What is fetched must not make room for itself.
        let _lease = self.lease(&root);
        let FetchOptions { patience, progress } = options;
        let again = FetchOptions { patience, progress: progress.clone() };
        let options = FetchOptions { patience, progress };
        let mut fetched = self.fetch_once(root, want, providers.clone(), options).await;
        if let Err(FetchError::Store { source, .. }) = &fetched
            && let StoreError::Quota { needed, quota, .. } = **source
            && self.make_room(quota.saturating_sub(needed)).await
        {
            fetched = self.fetch_once(root, want, providers, again).await;
        }
        if fetched.is_ok() {
            self.keep_room().await;
        }
        if fetched.is_err() {
            let store = self.inner.store.clone();
            let _ = tokio::task::spawn_blocking(move || store.release(&root)).await;
        }
        fetched
    }

    /// Fetches, first from the dataset's origin if it has one, and the rest from peers.
    async fn fetch_once(
        &self,
        root: Cid,
        want: Want,
        providers: Vec<NodeId>,
        options: FetchOptions,
    ) -> Result<Fetched, FetchError> {
        let report = |done_bytes| {
            if let Some(progress) = &options.progress {
                progress.send_replace(Progress { done_bytes, total_bytes: None });
            }
        };
        if let Err(error) = self.inner.origins.bring(root, want, report).await {
            let reason = reply::chain(&error);
            tracing::warn!(%root, reason, "dataset not fetched from its origin, asking peers");
        }
        self.inner.exchange.fetch(root, want, providers, options).await
    }

    /// Tells a fetch that is under way of more peers that may have the dataset.
    pub async fn add_providers(&self, root: Cid, holders: Vec<Located>) {
        let providers = self.locate(holders).await;
        self.inner.exchange.add_providers(root, providers);
    }

    async fn locate(&self, holders: Vec<Located>) -> Vec<NodeId> {
        let mut peers = Vec::with_capacity(holders.len());
        for Located { peer, addresses } in holders {
            if peer != self.id() {
                // It only helps dialling; the exchange says what cannot be reached.
                let _ = self.inner.network.add_addresses(peer, addresses).await;
                peers.push(peer);
            }
        }
        peers
    }

    /// Chunks a file or folder into the store and announces it.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add(&self, source: PathBuf, options: AddOptions) -> Result<Added, AddError> {
        let added = self.chunk(source, options).await?;
        self.announce(added.root).await;
        Ok(added)
    }

    /// Chunks an output that was computed for a project into the store, and hides it.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_output(&self, source: PathBuf, project: ProjectId) -> Result<Added, AddError> {
        let added = self.chunk(source, AddOptions::output()).await?;
        self.hide(added.root, [project].into()).await;
        Ok(added)
    }

    async fn chunk(&self, source: PathBuf, options: AddOptions) -> Result<Added, AddError> {
        let store = self.inner.store.clone();
        let adding = tokio::task::spawn_blocking(move || store.add(&source, &options));
        adding.await.expect("adding does not panic")
    }

    /// Adds a dataset that stays at its origin, and announces it: the origin is read once, and
    /// again where somebody asks for it. [`AddOptions::in_place`] and
    /// [`AddOptions::normalise`] mean nothing here.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub async fn add_at(&self, origin: Origin, options: AddOptions) -> Result<Added, OriginError> {
        let added = self.inner.origins.add(origin, options).await?;
        self.announce(added.root).await;
        Ok(added)
    }

    /// Brings all of a dataset that stays at its origin into the store; `progress` is told the
    /// bytes brought. Nothing happens to one without an origin.
    ///
    /// # Errors
    /// See [`OriginError`].
    pub async fn bring(&self, root: Cid, progress: impl Fn(u64)) -> Result<(), OriginError> {
        self.inner.origins.bring(root, Want::All, progress).await
    }

    /// Reads all of a dataset that is not here but at its origin; `progress` is told the bytes
    /// gone through.
    ///
    /// # Errors
    /// See [`OriginError`]; among them that the origin does not answer.
    pub async fn check_origin(
        &self,
        root: Cid,
        progress: impl Fn(u64),
    ) -> Result<AtOrigin, OriginError> {
        self.inner.origins.check(root, progress).await
    }

    /// Forgets an output. A dataset that is here for another reason stays.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn forget_output(&self, root: Cid) -> Result<(), StoreError> {
        let store = self.inner.store.clone();
        let forgetting = tokio::task::spawn_blocking(move || {
            let is_output = store.dataset(&root)?.is_some_and(|d| d.kind == Kind::Output);
            if is_output { store.remove(&root) } else { Ok(()) }
        });
        forgetting.await.expect("forgetting does not panic")?;
        self.inner.private.reveal(&root);
        Ok(())
    }

    /// Goes through the outputs that are here after a restart: hides those that are needed for
    /// some project, and forgets the others, which a crash left.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn review_outputs(
        &self,
        needed: &BTreeMap<Cid, BTreeSet<ProjectId>>,
    ) -> Result<(), StoreError> {
        for dataset in self.datasets().await? {
            if dataset.kind != Kind::Output {
                continue;
            }
            match needed.get(&dataset.root) {
                Some(projects) => self.hide(dataset.root, projects.clone()).await,
                None => self.forget_output(dataset.root).await?,
            }
        }
        Ok(())
    }

    /// Keeps a dataset from being collected.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn pin(&self, root: Cid) -> Result<(), StoreError> {
        let store = self.inner.store.clone();
        tokio::task::spawn_blocking(move || store.pin(&root)).await.expect("it does not panic")
    }

    /// Says in Kademlia that this peer holds a dataset.
    pub async fn announce(&self, root: Cid) {
        if let Err(error) = self.inner.network.provide(&provider_key(&root)).await {
            tracing::warn!(%root, %error, "dataset not announced");
        }
    }

    /// Whether as much has passed in this month as may: nothing can be fetched then.
    #[must_use]
    pub fn volume_is_used_up(&self) -> bool {
        self.inner.volume.as_ref().is_some_and(|volume| volume.is_used_up())
    }

    /// What this peer says about itself.
    pub async fn status(&self) -> PeerStatus {
        let peers = self.inner.network.peers().await.unwrap_or_default();
        let snapshot = self.inner.exchange.traffic().snapshot();
        let store = self.inner.store.clone();
        let used = tokio::task::spawn_blocking(move || store.used_bytes()).await;
        PeerStatus {
            peer_id: self.id().to_string(),
            agent: concat!("dockercomp/", env!("CARGO_PKG_VERSION")).to_owned(),
            pid: std::process::id(),
            data_dir: self.inner.store.dir().to_owned(),
            addresses: strings(&self.inner.network.advertised_addresses()),
            used_bytes: used.unwrap_or_default(),
            volume: self.inner.volume.as_deref().map(VolumeStatus::from),
            peers: peers
                .into_iter()
                .map(|peer| ConnectedPeer {
                    peer_id: peer.peer.to_string(),
                    agent: peer.agent.unwrap_or_default(),
                    transport: format!("{:?}", peer.transport).to_lowercase(),
                    direction: format!("{:?}", peer.direction).to_lowercase(),
                    rtt_seconds: peer.rtt.map(|rtt| rtt.as_secs_f64()),
                })
                .collect(),
            traffic: snapshot
                .peers
                .iter()
                .map(|(peer, traffic)| PeerTraffic {
                    peer_id: peer.to_string(),
                    down_bytes: traffic.down_bytes,
                    up_bytes: traffic.up_bytes,
                    wrong_blocks: traffic.n_wrong,
                })
                .collect(),
        }
    }

    /// Serves blocks over streams and, unless `sealed`, at a door for near peers; and says who
    /// has what.
    async fn serve(
        &self,
        sealed: bool,
        shutdown: CancellationToken,
    ) -> Result<Vec<JoinHandle<()>>, network::AcceptError> {
        let incoming = self.inner.network.accept(StreamProtocol::new(chunk::PROTOCOL))?;
        let mut server = self.server();
        let mut tasks = Vec::new();
        if !sealed && let Some(door) = self.door().await {
            server = server.with_door(door);
            tasks.push(tokio::spawn(server.clone().run_door(shutdown.clone())));
        }
        let (telling, exchange) = (server.clone(), self.inner.exchange.clone());
        let askers = self.inner.network.accept(StreamProtocol::new(swarm::PROTOCOL))?;
        tasks.push(tokio::spawn(telling.run_swarms(exchange, askers, shutdown.clone())));
        tasks.push(tokio::spawn(server.run(incoming, shutdown)));
        Ok(tasks)
    }

    /// A door where this peer listens for TCP. Without one, all goes over streams.
    async fn door(&self) -> Option<Door> {
        let listening = self.inner.network.listen_addresses();
        let is_tcp = |part| matches!(part, Protocol::Tcp(_));
        let ip = listening.iter().filter(|at| at.iter().any(is_tcp)).find_map(|at| {
            match at.iter().next()? {
                Protocol::Ip4(ip) => Some(IpAddr::from(ip)),
                Protocol::Ip6(ip) => Some(ip.into()),
                _ => None,
            }
        });
        match Door::bind(ip?).await {
            Ok(door) => Some(door),
            Err(error) => {
                tracing::warn!(%error, "near peers are served with encryption only");
                None
            }
        }
    }

    fn server(&self) -> Server {
        let private = self.inner.private.clone();
        let may_have = move |peer: &NodeId, digest: &_| private.may_serve(peer, digest);
        self.inner.exchange.server(may_have).with_elsewhere(self.inner.origins.clone())
    }

    /// Serves wrong bytes.
    fn serve_lies(
        &self,
        shutdown: CancellationToken,
    ) -> Result<JoinHandle<()>, network::AcceptError> {
        let mut incoming = self.inner.network.accept(StreamProtocol::new(chunk::PROTOCOL))?;
        let server = self.server();
        Ok(tokio::spawn(async move {
            while let Some((peer, stream)) = tokio::select! {
                () = shutdown.cancelled() => None,
                next = incoming.next() => next,
            } {
                let server = server.clone();
                tokio::spawn(async move { server.serve(peer, Lying::new(stream)).await });
            }
        }))
    }

    /// Announces every dataset that is whole, since Kademlia forgets what is not repeated.
    async fn announce_all(&self) -> Result<(), StoreError> {
        for dataset in self.datasets().await? {
            if dataset.is_whole() && dataset.kind != Kind::Output {
                self.announce(dataset.root).await;
            }
        }
        Ok(())
    }

    async fn hide(&self, root: Cid, projects: BTreeSet<ProjectId>) {
        let (store, private) = (self.inner.store.clone(), self.inner.private.clone());
        let hidden = tokio::task::spawn_blocking(move || {
            let blocks = blocks_of(&store, &root)?;
            projects.into_iter().for_each(|project| private.hide(root, &blocks, project));
            Ok::<_, StoreError>(())
        });
        if let Ok(Err(error)) = hidden.await {
            tracing::warn!(%root, %error, "output could not be hidden");
        }
    }

    async fn datasets(&self) -> Result<Vec<dockercomp_store::Dataset>, StoreError> {
        let store = self.inner.store.clone();
        tokio::task::spawn_blocking(move || store.datasets()).await.expect("it does not panic")
    }
}

/// Every block of a dataset that is here. Blocking.
fn blocks_of(store: &Store, root: &Cid) -> Result<Vec<Cid>, StoreError> {
    const PAGE: u64 = 512;
    let mut blocks = vec![*root];
    let Some(manifest) = store.root(root)? else { return Ok(blocks) };
    blocks.extend(&manifest.pages);
    let mut first = 0;
    while first < manifest.files {
        for entry in store.files(root, first, PAGE.min(manifest.files - first))? {
            match &entry.chunks {
                Chunks::Inline(chunks) => blocks.extend(chunks.iter().map(|chunk| chunk.0)),
                Chunks::Paged(pages) => {
                    for (index, PageLink(page, _)) in pages.iter().enumerate() {
                        blocks.push(*page);
                        let Some(bytes) = store.block(&content::digest(page)?)? else { continue };
                        let chunker = manifest.chunker;
                        if let Ok(page) = ChunkPage::decode(&bytes, &entry, chunker, index) {
                            blocks.extend(page.chunks.iter().map(|chunk| chunk.0));
                        }
                    }
                }
            }
        }
        first += PAGE;
    }
    Ok(blocks)
}

fn strings(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
