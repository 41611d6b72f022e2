//! Swarms, as seen by those who may have something: who wants a dataset here, and what we tell.
//!
//! ```text
//! peer ──JOIN──► Swarms ──────────MEMBERS──────────► all others that have joined
//!      ──LIST──► Store::is_here ──MAP──► peer
//! our own session stores a block ──► Swarms::stored ──HAVE──► all that have asked for it
//! ```
//!
//! Who may not have a dataset is told what those are told who ask for something that is not here.
//!
//! # Bounds
//!
//! A stream: one list of at most 1024 blocks, and [`QUEUE`] questions waiting. A dataset:
//! [`MEMBERS_MAX`] members. All streams: [`LOOKS_MAX`] lists are looked up at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dockercomp_exchange_core::members::to_tell;
use dockercomp_network::framed::{FrameError, read_frame, write_frame};
use dockercomp_protocol::codec;
use dockercomp_protocol::content::{DIGEST_BYTES, Digest};
use dockercomp_protocol::limits::{
    HINT_ADDRESS_BYTES_MAX, HINT_ADDRESSES_MAX, SWARM_MEMBERS_MAX, SWARM_MESSAGE_BYTES_MAX,
};
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_protocol::wire::swarm::{News, Question};
use dockercomp_protocol::wire::work::HintPeer;
use dockercomp_protocol::{Cid, NodeId, content};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::client::Exchange;
use crate::dial::Dial;
use crate::error::ServeError;
use crate::server::Server;

/// Questions of one stream that wait.
const QUEUE: usize = 2;
/// Members of one dataset that are remembered, and told to others.
const MEMBERS_MAX: usize = 64;
/// Lists that are looked up at once.
const LOOKS_MAX: usize = 4;
/// News gather for this long before they are told.
const GATHER: Duration = Duration::from_millis(100);

/// All swarms of one exchange.
#[derive(Debug)]
pub(crate) struct Swarms {
    by_root: Mutex<BTreeMap<Digest, Swarm>>,
    looks: Semaphore,
}

/// One dataset.
#[derive(Debug, Default)]
struct Swarm {
    /// Who has joined, by how many streams.
    members: BTreeMap<NodeId, usize>,
    /// Sessions of our own.
    n_sessions: usize,
    /// Changes with each member and each block that is stored.
    version: watch::Sender<u64>,
}

/// One that takes part in a swarm; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    swarms: Arc<Swarms>,
    root: Digest,
    /// Who it is; none for ourselves.
    member: Option<NodeId>,
}

impl Default for Swarms {
    fn default() -> Self {
        Self { by_root: Mutex::default(), looks: Semaphore::new(LOOKS_MAX) }
    }
}

impl Swarms {
    /// Takes part with a session of our own.
    pub(crate) fn begin(self: &Arc<Self>, root: Digest) -> Part {
        self.locked().entry(root).or_default().n_sessions += 1;
        Part { swarms: Arc::clone(self), root, member: None }
    }

    /// A peer joins. `None`: there are too many, and it is told of others but not told to them.
    fn join(self: &Arc<Self>, root: Digest, peer: NodeId) -> Option<Part> {
        let mut all = self.locked();
        let swarm = all.entry(root).or_default();
        if swarm.members.len() >= MEMBERS_MAX && !swarm.members.contains_key(&peer) {
            return None;
        }
        *swarm.members.entry(peer).or_default() += 1;
        swarm.version.send_modify(|version| *version += 1);
        Some(Part { swarms: Arc::clone(self), root, member: Some(peer) })
    }

    /// Blocks of a dataset were stored.
    pub(crate) fn stored(&self, root: &Digest) {
        if let Some(swarm) = self.locked().get(root) {
            swarm.version.send_modify(|version| *version += 1);
        }
    }

    /// Whether we fetch the dataset ourselves.
    fn is_fetched(&self, root: &Digest) -> bool {
        self.locked().get(root).is_some_and(|swarm| swarm.n_sessions > 0)
    }

    fn members(&self, root: &Digest) -> BTreeSet<NodeId> {
        let all = self.locked();
        all.get(root).map(|swarm| swarm.members.keys().copied().collect()).unwrap_or_default()
    }

    fn watch(&self, root: &Digest) -> watch::Receiver<u64> {
        let all = self.locked();
        all.get(root)
            .map_or_else(|| watch::Sender::default().subscribe(), |swarm| swarm.version.subscribe())
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Digest, Swarm>> {
        self.by_root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut all = self.swarms.locked();
        let Some(swarm) = all.get_mut(&self.root) else { return };
        match self.member {
            None => swarm.n_sessions -= 1,
            Some(member) => {
                if let Some(n_streams) = swarm.members.get_mut(&member) {
                    *n_streams -= 1;
                    if *n_streams == 0 {
                        swarm.members.remove(&member);
                    }
                }
            }
        }
        if swarm.n_sessions == 0 && swarm.members.is_empty() {
            all.remove(&self.root);
        }
    }
}

/// What one member is told.
struct Teller<'a, D: Dial> {
    exchange: &'a Exchange<D>,
    server: &'a Server,
    peer: NodeId,
    root: Digest,
    /// Its newest list, and which of the blocks it was told of. A block that it may not have is
    /// in no place.
    list: u32,
    asked: Vec<(Digest, bool)>,
    has_told_all: bool,
    told: BTreeSet<NodeId>,
}

impl<D: Dial> Exchange<D> {
    /// Tells a peer, on one stream, who has what of the dataset that it wants, until it closes
    /// its side.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the peer broke the protocol, or the stream broke.
    pub async fn tell<S>(&self, server: &Server, peer: NodeId, stream: S) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut read, write) = tokio::io::split(stream);
        let join = timeout(server.patience().stall, next(&mut read)).await;
        let Some(Question::Join { root }) = join.unwrap_or(Ok(None))? else {
            return Err(ServeError::NotJoined);
        };
        let (queue, questions) = mpsc::channel(QUEUE);
        let reading = async {
            while let Some(question) = next(&mut read).await? {
                // Ends only together with this function.
                let _ = queue.send(question).await;
            }
            drop(queue);
            Ok(())
        };
        let mut teller = Teller {
            exchange: self,
            server,
            peer,
            root,
            list: 0,
            asked: Vec::new(),
            has_told_all: false,
            told: BTreeSet::new(),
        };
        tokio::try_join!(reading, teller.tell(write, questions))?;
        Ok(())
    }
}

/// The next question; none at the end of the stream.
async fn next(read: &mut (impl AsyncRead + Unpin)) -> Result<Option<Question>, ServeError> {
    match read_frame(read, SWARM_MESSAGE_BYTES_MAX).await {
        Ok(frame) => Ok(Some(Question::decode(&frame)?)),
        Err(FrameError::Closed) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl<D: Dial> Teller<'_, D> {
    async fn tell(
        &mut self,
        mut write: impl AsyncWrite + Unpin,
        mut questions: mpsc::Receiver<Question>,
    ) -> Result<(), ServeError> {
        let swarms = &self.server.swarms;
        // A stranger must not learn that something is here, nor make us keep a list of those who
        // want what we do not have.
        let is_ours = self.server.may_serve(&self.peer, &self.root)
            && (self.held().await != Held::None || swarms.is_fetched(&self.root));
        let _part = if is_ours { swarms.join(self.root, self.peer) } else { None };
        let mut version = swarms.watch(&self.root);
        if is_ours {
            self.exchange.on_member(&self.root, self.peer);
        }
        loop {
            let mut news = if is_ours { self.news().await } else { Vec::new() };
            loop {
                for news in news {
                    self.send(&mut write, &news).await?;
                }
                tokio::select! {
                    question = questions.recv() => match question {
                        Some(Question::List { list, digests }) => {
                            news = vec![self.map(list, &digests).await];
                        }
                        Some(Question::Join { .. }) => return Err(ServeError::NotJoined),
                        None => return Ok(()),
                    },
                    Ok(()) = version.changed() => break,
                }
            }
            sleep(GATHER).await;
            version.mark_unchanged();
        }
    }

    /// What the member does not know yet.
    async fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        if !self.has_told_all && self.held().await == Held::All {
            self.has_told_all = true;
            self.asked.clear();
            news.push(News::All);
        }
        news.extend(self.have().await);
        while let Some(members) = self.members().await {
            news.push(members);
        }
        news
    }

    async fn held(&self) -> Held {
        let root = self.root;
        self.server.read(move |store| store.held(&root)).await.unwrap_or(Held::None)
    }

    /// The answer to a list.
    async fn map(&mut self, list: u32, digests: &[u8]) -> News {
        let (digests, _) = digests.as_chunks::<DIGEST_BYTES>();
        let may_know = |digest: &Digest| self.server.may_serve(&self.peer, digest);
        let allowed: Vec<bool> = digests.iter().map(may_know).collect();
        let here = self.which_are_here(digests.to_vec()).await;
        let held: Vec<bool> =
            here.into_iter().zip(&allowed).map(|(here, may)| here && *may).collect();
        self.list = list;
        // What it may not know is never told, so it counts as told.
        let known = held.iter().zip(&allowed).map(|(held, may)| *held || !may);
        self.asked = digests.iter().copied().zip(known).collect();
        News::map(list, &held)
    }

    /// Blocks of its list that have come since.
    async fn have(&mut self) -> Option<News> {
        let open: Vec<usize> = (0..self.asked.len()).filter(|n| !self.asked[*n].1).collect();
        if open.is_empty() {
            return None;
        }
        let here = self.which_are_here(open.iter().map(|n| self.asked[*n].0).collect()).await;
        let come: Vec<usize> =
            open.into_iter().zip(here).filter(|(_, here)| *here).map(|(n, _)| n).collect();
        for n in &come {
            self.asked[*n].1 = true;
        }
        let place = |n| u16::try_from(n).expect("a list is bounded");
        let blocks: Vec<u16> = come.into_iter().map(place).collect();
        (!blocks.is_empty()).then_some(News::Have { list: self.list, blocks })
    }

    async fn which_are_here(&self, digests: Vec<Digest>) -> Vec<bool> {
        let _permit = self.server.swarms.looks.acquire().await;
        let n_digests = digests.len();
        let look = move |store: &dockercomp_store::Store| {
            digests.iter().map(|digest| store.is_here(digest)).collect()
        };
        // A store that fails holds nothing.
        self.server.read(look).await.unwrap_or_else(|| vec![false; n_digests])
    }

    /// Others that it has not been told of.
    async fn members(&mut self) -> Option<News> {
        let all = self.server.swarms.members(&self.root);
        let fresh = to_tell(all, &self.told, &self.peer, self.exchange.seed());
        let mut members = Vec::new();
        for peer in fresh {
            if members.len() >= SWARM_MEMBERS_MAX {
                break;
            }
            let addresses = self.exchange.addresses(peer).await;
            let addresses = addresses.iter().map(ToString::to_string);
            let short = addresses.filter(|address| address.len() <= HINT_ADDRESS_BYTES_MAX);
            let addresses: Vec<String> = short.take(HINT_ADDRESSES_MAX).collect();
            // Nobody can dial one whose address is not known; it may be known later.
            if !addresses.is_empty() {
                self.told.insert(peer);
                members.push(HintPeer { peer, addresses });
            }
        }
        (!members.is_empty()).then_some(News::Members { members })
    }

    async fn send(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        news: &News,
    ) -> Result<(), ServeError> {
        let bytes = codec::encode(news);
        let after = self.server.patience().stall;
        let writing = write_frame(write, &bytes, SWARM_MESSAGE_BYTES_MAX);
        timeout(after, writing).await.map_err(|_| ServeError::Stalled { after })??;
        Ok(())
    }
}

/// The digest of a root that was checked when its session began.
pub(crate) fn digest(root: &Cid) -> Digest {
    content::digest(root).expect("checked when the fetch began")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> NodeId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([n; 32]);
        NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
    }

    #[test]
    fn a_swarm_is_forgotten_with_its_last_part() {
        let swarms = Arc::new(Swarms::default());
        let session = swarms.begin([1; 32]);
        assert!(swarms.is_fetched(&[1; 32]));
        let (once, twice) = (swarms.join([1; 32], peer(1)), swarms.join([1; 32], peer(1)));
        drop((session, once));
        assert_eq!(swarms.members(&[1; 32]), [peer(1)].into());
        drop(twice);
        assert!(swarms.locked().is_empty());
    }

    #[test]
    fn a_crowd_is_told_of_others_and_not_remembered() {
        let swarms = Arc::new(Swarms::default());
        let n_peers = u8::try_from(MEMBERS_MAX).expect("a few");
        let parts: Vec<Part> = (0..n_peers).filter_map(|n| swarms.join([1; 32], peer(n))).collect();
        assert_eq!(parts.len(), MEMBERS_MAX);
        assert!(swarms.join([1; 32], peer(200)).is_none());
        assert!(swarms.join([1; 32], peer(3)).is_some(), "a second stream of a member");
    }
}
