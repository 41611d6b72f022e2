//! The plain plane: public blocks over TCP without encryption.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use dockercomp_exchange::{
    Dial, DialError, Door, Exchange, FetchOptions, Options, Protocol, Server, Traffic,
};
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::Want;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{MIB, Node, World, files, quick, within};

/// Streams to one provider, which is near: at this address.
#[derive(Clone)]
struct Near {
    me: NodeId,
    at: SocketAddr,
    near: IpAddr,
}

impl Dial for Near {
    type Stream = TcpStream;

    async fn open(&self, peer: NodeId, protocol: Protocol) -> Result<TcpStream, DialError> {
        let opened = async {
            if protocol == Protocol::Swarm {
                return Err(std::io::ErrorKind::Unsupported.into());
            }
            let mut stream = TcpStream::connect(self.at).await?;
            stream.write_all(&self.me.to_bytes()).await?;
            Ok(stream)
        };
        opened.await.map_err(|source: std::io::Error| DialError { peer, source: source.into() })
    }

    async fn near(&self, _: NodeId) -> Option<IpAddr> {
        Some(self.near)
    }
}

/// Who asked for a block, and whether it was given.
type Asked = Arc<Mutex<Vec<(NodeId, Digest)>>>;

struct Provider {
    node: Node,
    root: Cid,
    at: SocketAddr,
    port: u16,
    asked: Asked,
    _serving: DropGuard,
}

/// A provider with a door. `may` says who may have blocks.
async fn provider(
    world: &World,
    files: &[(String, Vec<u8>)],
    may: impl Fn(&NodeId) -> bool + Send + Sync + 'static,
) -> Provider {
    let node = world.node();
    let root = node.add(files);
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let authorise = move |peer: &NodeId, digest: &Digest| {
        seen.lock().expect("not poisoned").push((*peer, *digest));
        may(peer)
    };
    let door = Door::bind(Ipv4Addr::LOCALHOST.into()).await.expect("a free port");
    let port = door.port();
    let server = Server::new(node.store.clone(), Traffic::default(), authorise).with_door(door);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("a bound socket");
    let shutdown = CancellationToken::new();
    tokio::spawn(server.clone().run_door(shutdown.clone()));
    let sealed = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut client = [0; 38];
                stream.read_exact(&mut client).await.expect("a client that names itself");
                let client = NodeId::from_bytes(&client).expect("an id");
                // However it ends, it is over.
                let _ = server.serve(client, stream).await;
            });
        }
    };
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(sealed));
    Provider { node, root, at, port, asked, _serving: shutdown.drop_guard() }
}

impl Provider {
    /// Has `node` fetch everything. Those who asked for blocks that lie in files, by whose rights.
    async fn fetch(&self, node: &Node, near: Ipv4Addr) -> dockercomp_exchange::Fetched {
        let dial = Near { me: node.id, at: self.at, near: near.into() };
        let exchange = Exchange::new(node.store.clone(), dial, quick());
        let fetching =
            exchange.fetch(self.root, Want::All, [self.node.id], FetchOptions::default());
        within(fetching).await.expect("an honest provider")
    }

    /// How often `node` asked with its own rights.
    fn n_sealed(&self, node: &Node) -> usize {
        let asked = self.asked.lock().expect("not poisoned");
        asked.iter().filter(|(asker, _)| *asker == node.id).count()
    }

    /// How often it asked with a stranger's.
    fn n_plain(&self, node: &Node) -> usize {
        let n_all = self.asked.lock().expect("not poisoned").len();
        n_all - self.n_sealed(node)
    }
}

#[tokio::test]
async fn a_near_peer_gives_public_blocks_over_plain_tcp() {
    let world = World::default();
    let files = files(3, 4 * MIB + 11);
    let provider = provider(&world, &files, |_| true).await;
    let node = world.node();
    let fetched = provider.fetch(&node, Ipv4Addr::LOCALHOST).await;
    node.assert_holds(&provider.root, &files);
    assert_eq!(fetched.n_blocks, 2 + 3 * 5);
    assert_eq!(provider.n_sealed(&node), 0, "something came over the sealed stream");
}

#[tokio::test]
async fn what_a_stranger_may_not_have_comes_over_the_sealed_stream() {
    let world = World::default();
    let files = files(2, 2 * MIB);
    let node = world.node();
    let trusted = node.id;
    let provider = provider(&world, &files, move |peer| *peer == trusted).await;
    let fetched = provider.fetch(&node, Ipv4Addr::LOCALHOST).await;
    node.assert_holds(&provider.root, &files);
    assert_eq!(provider.n_sealed(&node) as u64, fetched.n_blocks);
}

/// Wrong bytes over a connection that anybody may tamper with prove nothing about the peer.
#[tokio::test]
async fn tampering_on_the_way_is_not_blamed_on_the_peer() {
    let world = World::default();
    let files = files(1, 8 * MIB);
    let provider = provider(&world, &files, |_| true).await;
    let node = world.node();
    let between = Ipv4Addr::new(127, 0, 0, 2);
    let listener = TcpListener::bind((between, provider.port)).await.expect("a free port");
    let port = provider.port;
    let tampering = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let door = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a door");
            tokio::spawn(tamper(client, door));
        }
    });
    let fetched = provider.fetch(&node, between).await;
    tampering.abort();
    node.assert_holds(&provider.root, &files);
    assert_eq!(fetched.liars, []);
    assert!(provider.n_sealed(&node) >= 8, "it was not asked over the sealed stream");
    assert!(provider.n_plain(&node) > 0, "it was never asked at the door");
}

/// Passes on what the client says, and changes the last byte of all that the door says.
async fn tamper(client: TcpStream, door: TcpStream) {
    let (mut client_read, mut client_write) = client.into_split();
    let (mut door_read, mut door_write) = door.into_split();
    let requests = tokio::io::copy(&mut client_read, &mut door_write);
    let answers = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = door_read.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, std::io::Error>(());
            }
            // Headers stay whole: a broken frame would be noticed before the bytes are.
            if n > 1024 {
                buffer[n - 1] ^= 1;
            }
            client_write.write_all(&buffer[..n]).await?;
        }
    };
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
    }
}

#[tokio::test]
async fn nothing_is_plain_where_that_is_not_wanted() {
    let world = World::default();
    let files = files(1, 2 * MIB);
    let provider = provider(&world, &files, |_| true).await;
    let node = world.node();
    let dial = Near { me: node.id, at: provider.at, near: Ipv4Addr::LOCALHOST.into() };
    let options = Options { plain: false, ..quick() };
    let exchange = Exchange::new(node.store.clone(), dial, options);
    let fetching =
        exchange.fetch(provider.root, Want::All, [provider.node.id], FetchOptions::default());
    within(fetching).await.expect("an honest provider");
    assert_eq!(provider.n_plain(&node), 0);
}
