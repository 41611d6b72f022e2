//! `kill -9` of the receiver, again and again, at random instants of one download.
//!
//! The receiver is this test binary in a process of its own, told by the environment what to
//! do. The provider counts what it is asked for: what was stored before a kill is never asked
//! for again.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dockercomp_exchange::{Dial, DialError, Exchange, FetchOptions, Options, Protocol};
use dockercomp_protocol::manifest::Chunker;
use dockercomp_protocol::{Cid, NodeId, content};
use dockercomp_store::{AddOptions, Store, Want};
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Nature, Node, World, noise, quick};

const DIR: &str = "DOCKERCOMP_KILL_TEST_DIR";
const ROOT: &str = "DOCKERCOMP_KILL_TEST_ROOT";
const PEER: &str = "DOCKERCOMP_KILL_TEST_PEER";
const ADDRESS: &str = "DOCKERCOMP_KILL_TEST_ADDRESS";
/// Size of the download in MiB; `make test-kill` sets 1024.
const SIZE: &str = "DOCKERCOMP_KILL_TEST_MIB";

const N_KILLS: usize = 20;
const CHUNK_BYTES: u32 = 256 << 10;
/// Blocks that may be on their way when the receiver is killed.
const IN_FLIGHT: usize = 4;

#[derive(Clone)]
struct Fixed {
    me: NodeId,
    address: SocketAddr,
}

impl Dial for Fixed {
    type Stream = TcpStream;

    async fn open(&self, peer: NodeId, protocol: Protocol) -> Result<TcpStream, DialError> {
        let opened = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(&self.me.to_bytes()).await?;
            stream.write_all(&[u8::from(protocol == Protocol::Swarm), 0, 0]).await?;
            Ok(stream)
        };
        opened.await.map_err(|source: std::io::Error| DialError { peer, source: source.into() })
    }
}

/// The child: fetches everything and says so, unless it is killed before.
#[tokio::test]
async fn child_receives() {
    let Ok(dir) = env::var(DIR) else { return };
    let variable = |name| env::var(name).expect("the parent sets it");
    let store = Store::open(Path::new(&dir), dockercomp_store::Options::default());
    let store = store.expect("the one before is dead");
    let root = content::parse(&variable(ROOT)).expect("a root");
    let peer: NodeId = variable(PEER).parse().expect("an id");
    let me = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
    let dial = Fixed { me, address: variable(ADDRESS).parse().expect("an address") };
    let options = Options { blocks_per_peer: IN_FLIGHT, blocks_in_flight: IN_FLIGHT, ..quick() };
    let exchange = Exchange::new(store, dial, options);
    let fetched = exchange.fetch(root, Want::All, [peer], FetchOptions::default()).await;
    fetched.expect("an honest provider");
    println!("everything is here");
}

/// A receiver that is killed when this is dropped.
struct Receiver(Child);

impl Receiver {
    fn start(dir: &Path, provider: &Node, root: &Cid) -> Self {
        let mut child = Command::new(env::current_exe().expect("this binary"));
        child.args(["kill::child_receives", "--exact", "--nocapture"]);
        child.env(DIR, dir).env(ROOT, root.to_string()).env(PEER, provider.id.to_string());
        child.env(ADDRESS, provider.address().to_string());
        Self(child.stdout(Stdio::piped()).spawn().expect("a child process"))
    }

    fn finish(mut self) {
        let said = BufReader::new(self.0.stdout.take().expect("it is piped"));
        let mut lines = said.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("everything is here")), "it did not finish");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // SIGKILL. It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_killed_again_and_again_fetches_nothing_twice() {
    let mib: usize = env::var(SIZE).map_or(48, |size| size.parse().expect("a number of MiB"));
    let world = World::default();
    let mut provider = world.node();
    let source = provider.dir.join("source");
    std::fs::create_dir(&source).expect("a fresh directory");
    let size = mib << 20;
    std::fs::write(source.join("large"), noise(7, size)).expect("room");
    std::fs::write(source.join("small"), noise(8, 1000)).expect("room");
    let options =
        AddOptions { chunker: Chunker::Fixed { size: CHUNK_BYTES }, ..AddOptions::default() };
    let root = provider.store.add(&source, &options).expect("a plain folder").root;
    provider.serve(Nature::Honest).await;

    let n_blocks = size / CHUNK_BYTES as usize + 1;
    let target = provider.dir.join("target");
    std::fs::create_dir(&target).expect("a fresh directory");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(mib as u64);
    for kill in 0..N_KILLS {
        let served = provider.served.len();
        let wanted = served + random.random_range(1..=n_blocks / (N_KILLS + 4));
        let receiver = Receiver::start(&target, &provider, &root);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while provider.served.len() < wanted {
            assert!(tokio::time::Instant::now() < deadline, "receiver {kill} does not ask");
            tokio::task::yield_now().await;
        }
        drop(receiver);
    }
    Receiver::start(&target, &provider, &root).finish();

    let mut asked: BTreeMap<_, usize> = BTreeMap::new();
    for digest in provider.served.all() {
        *asked.entry(digest).or_default() += 1;
    }
    let again: usize = asked.values().map(|n| n - 1).sum();
    assert!(again <= N_KILLS * IN_FLIGHT, "{again} blocks were asked for again");
    let store = Store::open(&target, dockercomp_store::Options::default()).expect("a store");
    assert_eq!(store.check(&root, |_| {}).expect("a store").rotten, 0);
    let into = provider.dir.join("into");
    std::fs::create_dir(&into).expect("a fresh directory");
    store.stage(&root, &Want::All, &into).expect("a complete dataset");
    let arrived = std::fs::read(into.join("large")).expect("a file");
    assert!(arrived == std::fs::read(source.join("large")).expect("a file"));
}
