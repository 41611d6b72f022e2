//! Many nodes that want one dataset, and peers that say wrong things about it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dockercomp_exchange::scheduler::BROKEN_MAX;
use dockercomp_exchange::{FetchOptions, Options, Rates, ServeError};
use dockercomp_network::framed::{read_frame, write_frame};
use dockercomp_protocol::codec;
use dockercomp_protocol::content::{self, Digest, chunk_cid};
use dockercomp_protocol::limits::{SWARM_LIST_MAX, SWARM_MESSAGE_BYTES_MAX};
use dockercomp_protocol::wire::chunk::{Answer, Miss, REQUEST_BYTES, Request};
use dockercomp_protocol::wire::swarm::{News, Question};
use dockercomp_protocol::wire::work::HintPeer;
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::Want;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Node, World, files, noise, quick, within};

const KIB: u64 = 1 << 10;

fn identity() -> NodeId {
    libp2p_identity::Keypair::generate_ed25519().public().to_peer_id()
}

/// The seeder and each node can send so much; all know the seeder, and of each other only what
/// they are told.
#[tokio::test]
async fn eight_nodes_get_from_each_other_what_a_slow_seeder_gives_them() {
    const N_NODES: usize = 8;
    let rates = Rates { up: Some(1 << 20), ..Rates::default() };
    let slow = |seed| Options { rates, seed, ..quick() };
    let files = files(2, 3 << 20);
    let mut seeder = World::stranger();
    let root = seeder.add_in_chunks(&files, 256 << 10);
    let seeding = seeder.join(slow(0)).await;
    let mut nodes = Vec::new();
    for seed in 1..=N_NODES as u64 {
        let mut node = World::stranger();
        let exchange = node.join(slow(seed)).await;
        node.know(&seeder);
        nodes.push((node, exchange));
    }
    let fetching = nodes
        .iter()
        .map(|(_, exchange)| exchange.fetch(root, Want::All, [seeder.id], FetchOptions::default()));
    for fetched in within(futures::future::join_all(fetching)).await {
        let fetched = fetched.expect("an honest seeder");
        assert_eq!(fetched.liars, []);
        assert!(fetched.bytes_by_peer.len() > 2, "only from {:?}", fetched.bytes_by_peer);
    }
    for (node, _) in &nodes {
        node.assert_holds(&root, &files);
    }
    let copies = seeding.traffic().snapshot().total().up_bytes as f64 / (6 << 20) as f64;
    assert!(copies <= 2.5, "the seeder sent {copies:.2} copies");
}

/// Who fetches has something to give, and is found by whoever it asks.
#[tokio::test]
async fn a_node_that_still_fetches_gives_what_it_has() {
    let files = files(1, 20 * (256 << 10));
    let mut whole = World::stranger();
    let root = whole.add_in_chunks(&files, 256 << 10);
    let rates = Rates { up: Some(512 * KIB), ..Rates::default() };
    let _whole = whole.join(Options { rates, ..quick() }).await;
    let mut first = World::stranger();
    first.know(&whole);
    let first_exchange = first.join(quick()).await;
    let mut second = World::stranger();
    second.know(&first);
    let second_exchange = second.join(quick()).await;
    // The second is told of nobody but the first, which has nothing when it is asked.
    let (one, two) = within(futures::future::join(
        first_exchange.fetch(root, Want::All, [whole.id], FetchOptions::default()),
        second_exchange.fetch(root, Want::All, [first.id], FetchOptions::default()),
    ))
    .await;
    one.expect("an honest seeder");
    let fetched = two.expect("an honest node");
    assert!(fetched.bytes_by_peer.contains_key(&first.id), "{:?}", fetched.bytes_by_peer);
    second.assert_holds(&root, &files);
}

/// More blocks than one list names: from one that has all, and from one that gets them meanwhile.
#[tokio::test]
async fn a_dataset_of_many_lists_passes_from_one_to_the_next() {
    let files = files(3000, 20);
    let mut whole = World::stranger();
    let root = whole.add(&files);
    let _whole = whole.join(quick()).await;
    let mut first = World::stranger();
    first.know(&whole);
    let first_exchange = first.join(quick()).await;
    let second = World::stranger();
    second.know(&first);
    let second_exchange = second.exchange();
    let (one, two) = within(futures::future::join(
        first_exchange.fetch(root, Want::All, [whole.id], FetchOptions::default()),
        second_exchange.fetch(root, Want::All, [first.id], FetchOptions::default()),
    ))
    .await;
    one.expect("an honest seeder");
    two.expect("an honest node");
    second.assert_holds(&root, &files);
}

/// A peer that says `news` when it is asked what it holds, and holds nothing.
struct Boaster {
    id: NodeId,
    at: SocketAddr,
    /// How often it was asked for a block.
    n_asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Boaster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Boaster {
    async fn new(news: impl Fn(u32, usize) -> Vec<u8> + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("a bound socket");
        let n_asked = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&n_asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (news, counter) = (news.clone(), Arc::clone(&counter));
                // However it ends, it is over.
                tokio::spawn(async move { boast(stream, news, &counter).await });
            }
        });
        Self { id: identity(), at, n_asked, task }
    }
}

async fn boast(
    mut stream: TcpStream,
    news: impl Fn(u32, usize) -> Vec<u8>,
    n_asked: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = [0; 41];
    stream.read_exact(&mut head).await?;
    if head[38] == 0 {
        loop {
            let mut frame = [0; REQUEST_BYTES];
            stream.read_exact(&mut frame).await?;
            let id = Request::decode(&frame).expect("a request").id();
            n_asked.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&Answer::Miss { id, reason: Miss::NotFound }.encode()).await?;
        }
    }
    loop {
        let frame = read_frame(&mut stream, SWARM_MESSAGE_BYTES_MAX).await;
        let Ok(frame) = frame else { return Ok(()) };
        if let Ok(Question::List { list, digests }) = Question::decode(&frame) {
            let bytes = news(list, digests.len() / 32);
            stream.write_all(&u32::try_from(bytes.len()).expect("short").to_be_bytes()).await?;
            stream.write_all(&bytes).await?;
        }
    }
}

/// A node fetches from a boaster, which is blamed, and then from an honest peer. The boaster.
async fn fetch_beside(
    news: impl Fn(u32, usize) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> Boaster {
    let boaster = Boaster::new(news).await;
    let files = files(80, 1000);
    let mut honest = World::stranger();
    let root = honest.add(&files);
    let _honest = honest.join(quick()).await;
    let node = World::stranger();
    node.know(&honest);
    node.know_at(boaster.id, boaster.at);
    // The manifest is here: it is about the chunks.
    let exchange = node.exchange();
    let manifest = exchange.fetch(root, Want::Manifest, [honest.id], FetchOptions::default());
    within(manifest).await.expect("an honest peer");

    let fetching = exchange.fetch(root, Want::All, [boaster.id], FetchOptions::default());
    let helping = async {
        while exchange.traffic().snapshot().total().n_wrong == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(exchange.add_providers(root, [honest.id]), "the fetch runs");
    };
    let (fetched, ()) = within(futures::future::join(fetching, helping)).await;
    assert_eq!(fetched.expect("an honest peer").liars, [boaster.id]);
    node.assert_holds(&root, &files);
    boaster
}

#[tokio::test]
async fn a_map_that_lies_costs_little_and_is_blamed() {
    let all = |list, n_blocks| codec::encode(&News::map(list, &vec![true; n_blocks]));
    let boaster = fetch_beside(all).await;
    let n_asked = boaster.n_asked.load(Ordering::Relaxed);
    assert!(n_asked > BROKEN_MAX && n_asked <= BROKEN_MAX + 16, "asked {n_asked} times");
    let boaster = fetch_beside(|_, _| codec::encode(&News::All)).await;
    let n_asked = boaster.n_asked.load(Ordering::Relaxed);
    assert!(n_asked <= BROKEN_MAX + 16, "asked {n_asked} times");
}

#[tokio::test]
async fn what_is_no_map_of_our_list_is_blamed() {
    let others: [fn(u32, usize) -> Vec<u8>; 7] = [
        // Of a list that we never sent.
        |list, n_blocks| codec::encode(&News::map(list + 1, &vec![true; n_blocks])),
        // Too long, too short, and with bits for blocks that are not on the list.
        |list, n_blocks| codec::encode(&News::map(list, &vec![false; n_blocks + 8])),
        |list, _| codec::encode(&News::map(list, &[])),
        |list, _| codec::encode(&News::Map { list, bits: vec![0; SWARM_LIST_MAX] }),
        // Places beyond its end.
        |list, n_blocks| {
            let beyond = u16::try_from(n_blocks).expect("a short list");
            codec::encode(&News::Have { list, blocks: vec![beyond] })
        },
        // Ten thousand addresses.
        |_, _| {
            let addresses = vec!["/ip4/192.0.2.1/tcp/1".to_owned(); 10_000];
            let members = vec![HintPeer { peer: identity(), addresses }];
            let mut bytes = codec::encode(&News::Members { members });
            bytes.truncate(SWARM_MESSAGE_BYTES_MAX + 1);
            bytes
        },
        |_, _| b"not a message".to_vec(),
    ];
    for news in others {
        fetch_beside(news).await;
    }
}

/// A node is told of members at addresses that do not answer: it asks them for nothing, and no
/// block waits for them.
#[tokio::test]
async fn members_that_do_not_answer_are_asked_for_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("a bound socket").port();
    let told = move |_, _| {
        let member = |_| HintPeer {
            peer: identity(),
            addresses: vec!["/ip4/0.0.0.0/tcp/1".into(), format!("/ip4/127.0.0.1/tcp/{port}")],
        };
        codec::encode(&News::Members { members: (0..16).map(member).collect() })
    };
    let gossip = Boaster::new(told).await;
    let files = files(80, 1000);
    let mut honest = World::stranger();
    let root = honest.add(&files);
    let _honest = honest.join(quick()).await;
    let mut node = World::stranger();
    node.know(&honest);
    node.know_at(gossip.id, gossip.at);
    let exchange = node.join(quick()).await;
    let began = std::time::Instant::now();
    let providers = [gossip.id, honest.id];
    let fetched = within(exchange.fetch(root, Want::All, providers, FetchOptions::default())).await;
    let fetched = fetched.expect("an honest peer");
    assert_eq!(fetched.bytes_by_peer.keys().collect::<Vec<_>>(), [&honest.id]);
    assert!(began.elapsed() < quick().dial_timeout, "blocks waited for the silent");
}

/// A client of a node that tells who has what, to those who may know what `may` says.
fn asker(
    node: &Node,
    may: impl Fn(&NodeId, &Digest) -> bool + Send + Sync + 'static,
) -> (DuplexStream, JoinHandle<Result<(), ServeError>>) {
    let exchange = node.exchange();
    let server = exchange.server(may);
    let (client, stream) = duplex(64 << 10);
    (client, tokio::spawn(async move { exchange.tell(&server, identity(), stream).await }))
}

async fn say(stream: &mut DuplexStream, question: &Question) {
    let bytes = codec::encode(question);
    write_frame(stream, &bytes, SWARM_MESSAGE_BYTES_MAX).await.expect("an open stream");
}

async fn hear(stream: &mut DuplexStream) -> News {
    let frame = within(read_frame(stream, SWARM_MESSAGE_BYTES_MAX)).await.expect("news");
    News::decode(&frame).expect("news")
}

fn digest(cid: &Cid) -> Digest {
    content::digest(cid).expect("our kind")
}

#[tokio::test]
async fn who_may_not_have_a_dataset_is_told_as_if_it_were_not_here() {
    let node = World::stranger();
    let secret = digest(&node.add(&files(1, 100)));
    let chunk = digest(&chunk_cid(&noise(1, 100)));
    for root in [secret, [9; 32]] {
        let (mut stream, _telling) = asker(&node, |_, _| false);
        say(&mut stream, &Question::Join { root }).await;
        say(&mut stream, &Question::list(1, [&chunk, &[7; 32]])).await;
        assert_eq!(hear(&mut stream).await, News::map(1, &[false, false]));
    }
    let (mut stream, _telling) = asker(&node, |_, _| true);
    say(&mut stream, &Question::Join { root: secret }).await;
    assert_eq!(hear(&mut stream).await, News::All);
    // A dataset that is not here: what lies in another one is told, and nothing of others.
    let (mut stream, _telling) = asker(&node, |_, _| true);
    say(&mut stream, &Question::Join { root: [9; 32] }).await;
    say(&mut stream, &Question::list(1, [&chunk, &[7; 32]])).await;
    assert_eq!(hear(&mut stream).await, News::map(1, &[true, false]));
}

#[tokio::test]
async fn who_does_not_ask_by_the_rules_is_let_go() {
    let node = World::stranger();
    let root = digest(&node.add(&files(1, 100)));
    let join = codec::encode(&Question::Join { root });
    let long =
        codec::encode(&Question::List { list: 1, digests: vec![0; 32 * (SWARM_LIST_MAX + 1)] });
    let list = codec::encode(&Question::list(1, [&root]));
    let cases: [&[&[u8]]; 4] = [&[&list], &[&join, &join], &[b"garbage"], &[&join, &long]];
    for frames in cases {
        let (mut stream, telling) = asker(&node, |_, _| true);
        for frame in frames {
            write_frame(&mut stream, frame, SWARM_MESSAGE_BYTES_MAX).await.expect("an open stream");
        }
        let ended = within(telling).await.expect("no panic");
        assert!(matches!(ended, Err(ServeError::NotJoined | ServeError::Message(_))), "{ended:?}");
    }
    // A frame that says 4 GiB.
    let (mut stream, telling) = asker(&node, |_, _| true);
    stream.write_all(&[0xff; 4]).await.expect("an open stream");
    let ended = within(telling).await.expect("no panic");
    assert!(matches!(ended, Err(ServeError::Framing(_))), "{ended:?}");
}

/// Memory is bounded by what waits, and not by what is asked.
#[tokio::test]
async fn a_hundred_thousand_lists_at_once_are_answered_once_each() {
    const N: u32 = 100_000;
    let node = World::stranger();
    node.add(&files(1, 100));
    let (stream, telling) = asker(&node, |_, _| true);
    let (mut read, mut write) = tokio::io::split(stream);
    let asking = async {
        let join = codec::encode(&Question::Join { root: [9; 32] });
        write_frame(&mut write, &join, SWARM_MESSAGE_BYTES_MAX).await.expect("an open stream");
        for list in 0..N {
            let list = codec::encode(&Question::list(list, [&[1; 32]]));
            write_frame(&mut write, &list, SWARM_MESSAGE_BYTES_MAX).await.expect("an open stream");
        }
        write.shutdown().await.expect("an open stream");
    };
    let answers = async {
        let mut open: BTreeSet<u32> = (0..N).collect();
        while !open.is_empty() {
            let frame = read_frame(&mut read, SWARM_MESSAGE_BYTES_MAX).await.expect("an answer");
            let News::Map { list, bits } = News::decode(&frame).expect("news") else {
                panic!("no map");
            };
            assert!(open.remove(&list) && bits == [0], "list {list} was answered twice");
        }
    };
    within(async { tokio::join!(asking, answers) }).await;
    within(telling).await.expect("no panic").expect("a clean end");
}
