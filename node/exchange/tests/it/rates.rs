//! Limits of bandwidth hold, in both directions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockercomp_exchange::{FetchError, FetchOptions, Options, Rates, Used, Volume};
use dockercomp_protocol::content::{self, chunk_cid};
use dockercomp_protocol::wire::chunk::{ANSWER_BYTES, Answer, Miss, Request};
use dockercomp_protocol::{NodeId, Timestamp};
use dockercomp_store::Want;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use crate::support::{MIB, Nature, World, files, noise, quick, within};

const RATE: u64 = 4 << 20;

/// 4 MiB at 4 MiB/s take a second, less what passes at once.
const AT_LEAST: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_download_keeps_to_its_limit() {
    let world = World::default();
    let files = files(1, 4 * MIB);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let rates = Rates { down: Some(RATE), ..Rates::default() };
    let exchange = node.exchange_with(Options { rates, ..quick() });
    let began = Instant::now();
    let fetching = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
    within(fetching).await.expect("an honest provider");
    assert!(began.elapsed() >= AT_LEAST, "{:?}", began.elapsed());
    node.assert_holds(&root, &files);
}

#[tokio::test]
async fn uploads_to_all_together_keep_to_their_limit() {
    let world = World::default();
    let files = files(1, 2 * MIB);
    let rates = Rates { up: Some(RATE), ..Rates::default() };
    let (mut provider, root) = world.provider(&files, Nature::Honest).await;
    provider.serve_within(rates).await;
    let (one, two) = (world.node(), world.node());
    let began = Instant::now();
    let fetch = async |node: &crate::support::Node| {
        let exchange = node.exchange();
        let fetching = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
        within(fetching).await.expect("an honest provider");
    };
    tokio::join!(fetch(&one), fetch(&two));
    assert!(began.elapsed() >= AT_LEAST, "{:?}", began.elapsed());
    one.assert_holds(&root, &files);
    two.assert_holds(&root, &files);
}

fn request(n: u64) -> Request {
    let chunk = chunk_cid(&noise(n, MIB));
    Request::Want { id: 1, digest: content::digest(&chunk).expect("our kind") }
}

fn somebody() -> NodeId {
    libp2p_identity::Keypair::generate_ed25519().public().to_peer_id()
}

/// Bytes are paid for once, however small the parts are that a stream takes: yamux takes 16 KiB.
#[tokio::test]
async fn a_stream_that_takes_little_at_a_time_is_as_fast_as_its_limit() {
    let node = World::default().node();
    node.add(&files(1, MIB));
    let rates = Rates { up: Some(RATE), ..Rates::default() };
    let server = node.exchange_with(Options { rates, ..quick() }).server(|_: &_, _: &_| true);
    let (mut client, stream) = duplex(2 << 10);
    let serving = tokio::spawn(async move { server.serve(somebody(), stream).await });
    let began = Instant::now();
    client.write_all(&request(1).encode()).await.expect("an open stream");
    let mut answer = vec![0; ANSWER_BYTES + MIB];
    within(client.read_exact(&mut answer)).await.expect("the block");
    // A quarter of a second; if each part paid for a whole piece it would be eight.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(client);
    within(serving).await.expect("no panic").expect("a clean end");
}

/// A limit of so many MiB a month, of which some have passed.
fn volume(limit_mib: usize, used_mib: usize) -> Option<Arc<Volume>> {
    let used = Used { month: "1970-01".into(), bytes: (used_mib * MIB) as u64 };
    Some(Arc::new(Volume::new((limit_mib * MIB) as u64, used, || Timestamp(0))))
}

#[tokio::test]
async fn what_is_paid_by_volume_stops_when_that_is_used_up() {
    let world = World::default();
    let files = files(1, 40 * MIB);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let volume = volume(10, 2);
    let exchange = node.exchange_with(Options { volume: volume.clone(), ..quick() });
    let fetching = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
    let error = within(fetching).await.expect_err("more than may pass");
    assert!(matches!(error, FetchError::Volume { .. }), "{error}");
    let used = volume.expect("a limit").used().bytes / MIB as u64;
    // What was on its way may still have come.
    assert!((10..=26).contains(&used), "{used} MiB passed");

    // And nothing large is given to others.
    let other = world.node();
    other.add(&files[..1]);
    let limited = other.exchange_with(Options { volume: self::volume(1, 1), ..quick() });
    // What may not be known of looks as ever.
    for (server, expected) in [
        (limited.server(|_: &_, _: &_| true), Miss::Denied),
        (limited.server(|_: &_, _: &_| false), Miss::NotFound),
    ] {
        let (mut client, stream) = duplex(1 << 10);
        tokio::spawn(async move { server.serve(somebody(), stream).await });
        let chunk = chunk_cid(&files[0].1[39 * MIB..]);
        let digest = content::digest(&chunk).expect("our kind");
        let want = Request::Want { id: 1, digest };
        client.write_all(&want.encode()).await.expect("an open stream");
        let mut answer = [0; ANSWER_BYTES];
        within(client.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(Answer::decode(&answer), Ok(Answer::Miss { id: 1, reason: expected }));
    }
}
