//! How fast a dataset travels between two stores on loopback.
//!
//! `cargo bench -p dockercomp-exchange`, or with `--profile dev` for the profile that people
//! run. The floor it is compared with is one TCP stream whose receiver also hashes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dockercomp_exchange::{
    Dial, DialError, Exchange, FetchOptions, Options, Protocol, provider_key,
};
use dockercomp_network::{Handle, Keypair, Role, Service, StreamProtocol};
use dockercomp_protocol::wire::chunk;
use dockercomp_protocol::{Cid, NodeId, content};
use dockercomp_store::{AddOptions, Store, Want};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;
const DATASET_MIB: usize = 256;

/// Everybody is at one address.
#[derive(Clone)]
struct Plain(SocketAddr);

impl Dial for Plain {
    type Stream = TcpStream;

    async fn open(&self, peer: NodeId, protocol: Protocol) -> Result<TcpStream, DialError> {
        let opened = match protocol {
            Protocol::Chunk => TcpStream::connect(self.0).await,
            Protocol::Swarm => Err(std::io::ErrorKind::Unsupported.into()),
        };
        opened.map_err(|source| DialError { peer, source: source.into() })
    }
}

fn store(dir: &tempfile::TempDir, name: &str) -> Store {
    let dir = dir.path().join(name);
    std::fs::create_dir(&dir).expect("a fresh directory");
    Store::open(&dir, dockercomp_store::Options::default()).expect("an empty directory")
}

fn report(what: &str, took: Duration) {
    let mib_per_s = DATASET_MIB as f64 / took.as_secs_f64();
    println!("{what:<36} {:>7.2} s {mib_per_s:>8.0} MiB/s", took.as_secs_f64());
}

/// One TCP stream; the receiver hashes every MiB and keeps nothing.
async fn floor(data: Vec<u8>) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(&data).await.expect("an open stream");
    });
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    let mut chunk = vec![0; MIB];
    for _ in 0..DATASET_MIB {
        stream.read_exact(&mut chunk).await.expect("all bytes");
        std::hint::black_box(content::chunk_cid(&chunk));
    }
    sending.await.expect("no panic");
    began.elapsed()
}

async fn fetch<D: Dial>(exchange: &Exchange<D>, root: Cid, from: Vec<NodeId>) -> Duration {
    let began = Instant::now();
    let fetched = exchange.fetch(root, Want::All, from, FetchOptions::default());
    fetched.await.expect("an honest provider");
    began.elapsed()
}

async fn plain(provider: &Store, root: Cid, into: Store) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let dial = Plain(listener.local_addr().expect("a bound socket"));
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    let server = Exchange::new(provider.clone(), dial.clone(), Options::default())
        .server(|_: &_, _: &_| true);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move { server.serve(peer, stream).await });
        }
    });
    let took = fetch(&Exchange::new(into, dial, Options::default()), root, vec![peer]).await;
    serving.abort();
    took
}

async fn service(listen: &str, role: Role) -> (Handle, CancellationToken) {
    let options = dockercomp_network::Options {
        listen: vec![listen.parse().expect("an address")],
        ..dockercomp_network::Options::new(Keypair::generate_ed25519(), role)
    };
    let service = Service::bind(options).await.expect("free ports on loopback");
    let (handle, shutdown) = (service.handle(), CancellationToken::new());
    tokio::spawn(service.run(shutdown.clone()));
    (handle, shutdown)
}

async fn libp2p(listen: &str, provider: &Store, root: Cid, into: Store) -> Duration {
    let (serving, stop_serving) = service(listen, Role::Bootstrap).await;
    let (fetching, stop_fetching) = service(listen, Role::Client).await;
    let peer = serving.local_peer();
    let addresses = serving.advertised_addresses();
    fetching.add_addresses(peer, addresses).await.expect("a running service");
    serving.provide(&provider_key(&root)).await.expect("a running service");
    let server = Exchange::new(provider.clone(), serving.clone(), Options::default())
        .server(|_: &_, _: &_| true);
    let incoming = serving.accept(StreamProtocol::new(chunk::PROTOCOL)).expect("the first");
    tokio::spawn(server.run(incoming, stop_serving.clone()));
    let took = fetch(&Exchange::new(into, fetching, Options::default()), root, vec![peer]).await;
    stop_serving.cancel();
    stop_fetching.cancel();
    took
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let provider = store(&dir, "provider");
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state ^ (state >> 33)).to_le_bytes()
    });
    let data: Vec<u8> = words.flatten().take(DATASET_MIB * MIB).collect();
    let source = dir.path().join("source");
    std::fs::write(&source, &data).expect("room for the dataset");
    let root = provider.add(&source, &AddOptions::default()).expect("a plain file").root;

    println!("{DATASET_MIB} MiB, debug assertions: {}", cfg!(debug_assertions));
    report("TCP and BLAKE3, nothing stored", floor(data).await);
    for round in 1..=2 {
        let into = store(&dir, &format!("tcp-{round}"));
        report("exchange over TCP", plain(&provider, root, into).await);
        for (name, listen) in [("tcp", "tcp/0"), ("quic", "udp/0/quic-v1")] {
            let into = store(&dir, &format!("libp2p-{name}-{round}"));
            let listen = format!("/ip4/127.0.0.1/{listen}");
            let took = libp2p(&listen, &provider, root, into).await;
            report(&format!("exchange over libp2p, {name}"), took);
        }
    }
}
