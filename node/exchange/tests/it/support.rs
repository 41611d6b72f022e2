//! Nodes on loopback: each a real store and a real server behind a TCP socket.
//!
//! A misbehaving node is a real server whose answers pass through a [`Nature`] on their way to
//! the socket.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dockercomp_exchange::{
    Dial, DialError, Exchange, FetchOptions, Options, Protocol, Rates, Server,
};
use dockercomp_network::Multiaddr;
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::manifest::Chunker;
use dockercomp_protocol::wire::chunk::ANSWER_BYTES;
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::{AddOptions, Store};
use tempfile::TempDir;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, duplex, split,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const MIB: usize = 1 << 20;
/// How long any test may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the test's deadline")
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Who listens where.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook(Arc<Mutex<BTreeMap<NodeId, SocketAddr>>>);

/// Opens TCP streams; the first bytes on one say who opened it, what is spoken, and at which
/// port the opener serves, as identify does in libp2p.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    me: NodeId,
    book: AddressBook,
    is_near: bool,
}

impl Dial for Dialer {
    type Stream = TcpStream;

    async fn open(&self, peer: NodeId, protocol: Protocol) -> Result<TcpStream, DialError> {
        let address = self.book.0.lock().expect("not poisoned").get(&peer).copied();
        let opened = async {
            let address = address.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let me = self.me.to_bytes();
            stream.write_all(&me).await?;
            stream.write_all(&[u8::from(protocol == Protocol::Swarm)]).await?;
            let served = self.book.0.lock().expect("not poisoned").get(&self.me).copied();
            let port = served.map_or(0, |at| at.port());
            stream.write_all(&port.to_be_bytes()).await?;
            Ok(stream)
        };
        opened.await.map_err(|source: std::io::Error| DialError { peer, source: source.into() })
    }

    async fn addresses(&self, peer: NodeId) -> Vec<Multiaddr> {
        let known = self.book.0.lock().expect("not poisoned").get(&peer).copied();
        let address = |at: SocketAddr| format!("/ip4/{}/tcp/{}", at.ip(), at.port());
        known.map(|at| address(at).parse().expect("an address")).into_iter().collect()
    }

    async fn learn(&self, peer: NodeId, addresses: Vec<Multiaddr>) {
        let parts: Vec<String> = addresses[0].to_string().split('/').map(str::to_owned).collect();
        let address = format!("{}:{}", parts[2], parts[4]).parse().expect("an address");
        self.book.0.lock().expect("not poisoned").entry(peer).or_insert(address);
    }

    async fn near(&self, _: NodeId) -> Option<IpAddr> {
        self.is_near.then_some(Ipv4Addr::LOCALHOST.into())
    }
}

/// What a node does to the answers of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    Honest,
    /// Turns around a bit of every payload.
    Flips,
    /// Closes each stream after so many answers.
    LeavesAfter(usize),
    /// Takes requests and answers none.
    Silent,
    /// Says that a payload of 4 GiB follows.
    Boasts,
    /// Sends half of an answer, and then nothing.
    Halves,
    /// Sends each payload byte by byte.
    Trickles,
    /// Repeats each answer.
    Repeats,
    /// Waits before each answer.
    Slow(Duration),
}

/// A node of the test network.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) store: Store,
    pub(crate) dir: PathBuf,
    pub(crate) served: Served,
    book: AddressBook,
    /// Stops listening, and closes all streams.
    serving: Option<DropGuard>,
    _dir: TempDir,
}

/// What a node was asked for, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served(Arc<Mutex<Vec<Digest>>>);

impl Served {
    pub(crate) fn all(&self) -> Vec<Digest> {
        self.0.lock().expect("not poisoned").clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }
}

/// A network of nodes that know each other's addresses.
#[derive(Default)]
pub(crate) struct World {
    book: AddressBook,
}

impl World {
    /// A node with an empty store that serves nobody.
    pub(crate) fn node(&self) -> Node {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store_dir = dir.path().join("store");
        fs::create_dir(&store_dir).expect("a fresh directory");
        let store = Store::open(&store_dir, dockercomp_store::Options::default());
        Node {
            id: libp2p_identity::Keypair::generate_ed25519().public().to_peer_id(),
            store: store.expect("an empty directory"),
            dir: dir.path().to_owned(),
            served: Served::default(),
            book: self.book.clone(),
            serving: None,
            _dir: dir,
        }
    }

    /// A node that knows nobody.
    pub(crate) fn stranger() -> Node {
        Self::default().node()
    }

    /// A node that holds these files and serves them.
    pub(crate) async fn provider(
        &self,
        files: &[(String, Vec<u8>)],
        nature: Nature,
    ) -> (Node, Cid) {
        let mut node = self.node();
        let root = node.add(files);
        node.serve(nature).await;
        (node, root)
    }
}

impl Node {
    /// Adds files to the store as one dataset.
    pub(crate) fn add(&self, files: &[(String, Vec<u8>)]) -> Cid {
        self.add_in_chunks(files, 1 << 20)
    }

    /// Like [`Self::add`], in chunks of this size.
    pub(crate) fn add_in_chunks(&self, files: &[(String, Vec<u8>)], chunk_bytes: u32) -> Cid {
        let source = self.dir.join("source");
        for (path, bytes) in files {
            let path = source.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a fresh directory");
            fs::write(path, bytes).expect("a fresh file");
        }
        let options =
            AddOptions { chunker: Chunker::Fixed { size: chunk_bytes }, ..AddOptions::default() };
        self.store.add(&source, &options).expect("plain files").root
    }

    /// Serves on a socket of its own, instead of what was served before.
    pub(crate) async fn serve(&mut self, nature: Nature) {
        self.serve_as(nature, Rates::default()).await;
    }

    /// Serves honestly, with limits.
    pub(crate) async fn serve_within(&mut self, rates: Rates) {
        self.serve_as(Nature::Honest, rates).await;
    }

    async fn serve_as(&mut self, nature: Nature, rates: Rates) {
        let shutdown = CancellationToken::new();
        self.serving = Some(shutdown.clone().drop_guard());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        self.book.0.lock().expect("not poisoned").insert(self.id, address);
        let asked = self.served.clone();
        let exchange = self.exchange_with(Options { rates, ..quick() });
        let server = exchange.server(move |_: &_, digest: &_| {
            asked.0.lock().expect("not poisoned").push(*digest);
            true
        });
        tokio::spawn(async move {
            let mut streams = JoinSet::new();
            let accepting = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let server = server.clone();
                    streams.spawn(async move { attend(server, stream, nature, None).await });
                }
            };
            shutdown.run_until_cancelled(accepting).await;
        });
    }

    /// Serves within these limits and says what it has. The exchange fetches, too.
    pub(crate) async fn join(&mut self, options: Options) -> Exchange<Dialer> {
        let shutdown = CancellationToken::new();
        self.serving = Some(shutdown.clone().drop_guard());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        self.book.0.lock().expect("not poisoned").insert(self.id, address);
        let dialer = Dialer { me: self.id, book: self.book.clone(), is_near: true };
        let exchange = Exchange::new(self.store.clone(), dialer, options);
        let server = exchange.server(|_: &_, _: &_| true);
        let (book, told) = (self.book.clone(), exchange.clone());
        tokio::spawn(async move {
            let mut streams = JoinSet::new();
            let accepting = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let (server, told, book) = (server.clone(), told.clone(), book.clone());
                    streams.spawn(async move {
                        attend(server, stream, Nature::Honest, Some((told, book))).await;
                    });
                }
            };
            shutdown.run_until_cancelled(accepting).await;
        });
        exchange
    }

    /// Tells it where another node serves.
    pub(crate) fn know(&self, other: &Self) {
        self.know_at(other.id, other.address());
    }

    /// Tells it where a peer serves.
    pub(crate) fn know_at(&self, peer: NodeId, address: SocketAddr) {
        self.book.0.lock().expect("not poisoned").insert(peer, address);
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.book.0.lock().expect("not poisoned")[&self.id]
    }

    /// Stops serving and closes all streams. The store stays open.
    pub(crate) fn leave(&mut self) {
        self.serving = None;
    }

    /// An exchange with short times.
    pub(crate) fn exchange(&self) -> Exchange<Dialer> {
        self.exchange_with(quick())
    }

    pub(crate) fn exchange_with(&self, options: Options) -> Exchange<Dialer> {
        let dialer = Dialer { me: self.id, book: self.book.clone(), is_near: false };
        Exchange::new(self.store.clone(), dialer, options)
    }

    /// Lays the dataset out and compares it with the files it was made of.
    pub(crate) fn assert_holds(&self, root: &Cid, files: &[(String, Vec<u8>)]) {
        let into = tempfile::tempdir_in(&self.dir).expect("a temporary directory");
        self.store
            .stage(root, &dockercomp_store::Want::All, into.path())
            .expect("a complete dataset");
        for (path, bytes) in files {
            let staged = fs::read(into.path().join(path)).expect("a staged file");
            assert!(staged == *bytes, "{path} differs");
        }
        let n_files = walk(into.path());
        assert_eq!(n_files, files.len());
    }
}

fn walk(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

/// Options that make failures quick. Silence is borne for longer than any test may take, so that
/// nothing else is taken for it.
pub(crate) fn quick() -> Options {
    Options {
        silence_max: 2 * DEADLINE,
        busy_pause: Duration::from_millis(10),
        retry_first: Duration::from_millis(20),
        retry_max: Duration::from_millis(100),
        seed: 1,
        ..Options::default()
    }
}

pub(crate) fn patience(patience: Duration) -> FetchOptions {
    FetchOptions { patience, ..FetchOptions::default() }
}

/// Serves one stream, in the way that the node's nature is. Who has what is told only by nodes
/// that take part in swarms, which notice where a peer serves.
async fn attend(
    server: Server,
    mut stream: TcpStream,
    nature: Nature,
    swarm: Option<(Exchange<Dialer>, AddressBook)>,
) {
    let mut client = [0; 38];
    let mut rest = [0; 3];
    if stream.read_exact(&mut client).await.is_err() || stream.read_exact(&mut rest).await.is_err()
    {
        return;
    }
    let client = NodeId::from_bytes(&client).expect("a client that names itself");
    let [protocol, port @ ..] = rest;
    if protocol == 1 {
        if let Some((exchange, book)) = swarm {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::from_be_bytes(port)));
            book.0.lock().expect("not poisoned").entry(client).or_insert(at);
            // However it ends, it is over.
            let _ = exchange.tell(&server, client, stream).await;
        }
        return;
    }
    if nature == Nature::Honest {
        // However it ends, it is over.
        let _ = server.serve(client, stream).await;
        return;
    }
    let (inner, outer) = duplex(4 * MIB);
    let (client_read, client_write) = split(stream);
    let (server_read, server_write) = split(outer);
    tokio::select! {
        _ = server.serve(client, inner) => {}
        _ = pass(client_read, server_write) => {}
        _ = distort(server_read, client_write, nature) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    copy(&mut from, &mut to).await?;
    Ok(())
}

/// Passes answers on, changed.
async fn distort(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    nature: Nature,
) -> std::io::Result<()> {
    for n_answers in 1.. {
        let mut head = [0; ANSWER_BYTES];
        from.read_exact(&mut head).await?;
        let is_data = head[0] == 0x81;
        let len = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; if is_data { len as usize } else { 0 }];
        from.read_exact(&mut payload).await?;
        match nature {
            Nature::Honest => {}
            Nature::Flips => {
                let middle = payload.len() / 2;
                payload[middle] ^= 0x10;
            }
            Nature::LeavesAfter(n) if n_answers > n => return Ok(()),
            Nature::LeavesAfter(_) => {}
            Nature::Silent => std::future::pending().await,
            Nature::Slow(pause) => tokio::time::sleep(pause).await,
            Nature::Boasts => head[5..].fill(0xff),
            Nature::Halves => {
                to.write_all(&head).await?;
                to.write_all(&payload[..payload.len() / 2]).await?;
                to.flush().await?;
                std::future::pending().await
            }
            Nature::Trickles => {
                to.write_all(&head).await?;
                for byte in payload {
                    to.write_all(&[byte]).await?;
                    to.flush().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                continue;
            }
            Nature::Repeats => {
                to.write_all(&head).await?;
                to.write_all(&payload).await?;
            }
        }
        to.write_all(&head).await?;
        to.write_all(&payload).await?;
        to.flush().await?;
    }
    Ok(())
}

/// `n` files of `len` bytes each.
pub(crate) fn files(n: usize, len: usize) -> Vec<(String, Vec<u8>)> {
    (0..n).map(|n| (format!("part/{n:05}"), noise(n as u64 + 1, len))).collect()
}
