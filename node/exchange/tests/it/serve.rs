//! The server, spoken to frame by frame.

use std::collections::BTreeSet;
use std::time::Duration;

use dockercomp_exchange::{OPEN_MAX, Patience, ServeError, Server, Traffic};
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::wire::chunk::{ANSWER_BYTES, Answer, Held, Miss, REQUEST_BYTES, Request};
use dockercomp_protocol::{Cid, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use crate::support::{MIB, Node, World, files, noise, within};

/// A client of an impatient server of `node`.
fn hurried(node: &Node) -> (DuplexStream, JoinHandle<Result<(), ServeError>>) {
    let patience = Patience {
        idle: Duration::from_millis(300),
        stall: Duration::from_millis(300),
        rate_min: 4 * MIB as u64,
    };
    let server = Server::new(node.store.clone(), Traffic::default(), |_: &_, _: &_| true);
    let (client, stream) = duplex(16 << 10);
    let (server, peer) = (server.with_patience(patience), node.id);
    (client, tokio::spawn(async move { server.serve(peer, stream).await }))
}

/// A client of a server of `node`, which is allowed what `may` says.
fn client(
    node: &Node,
    traffic: &Traffic,
    may: impl Fn(&NodeId, &Digest) -> bool + Send + Sync + 'static,
) -> (DuplexStream, JoinHandle<Result<(), ServeError>>) {
    let server = Server::new(node.store.clone(), traffic.clone(), may);
    let (client, stream) = duplex(16 << 10);
    let peer = node.id;
    (client, tokio::spawn(async move { server.serve(peer, stream).await }))
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (Answer, Vec<u8>) {
    let mut frame = [0; ANSWER_BYTES];
    within(stream.read_exact(&mut frame)).await.expect("an answer");
    let answer = Answer::decode(&frame).expect("a frame");
    let len = if let Answer::Data { len, .. } = answer { len as usize } else { 0 };
    let mut payload = vec![0; len];
    within(stream.read_exact(&mut payload)).await.expect("a payload");
    (answer, payload)
}

fn digest(cid: &Cid) -> Digest {
    content::digest(cid).expect("our kind")
}

#[tokio::test]
async fn blocks_are_served_and_counted() {
    let node = World::default().node();
    let root = digest(&node.add(&files(1, MIB)));
    let traffic = Traffic::default();
    let (mut stream, serving) = client(&node, &traffic, |_, _| true);

    let chunk = content::chunk_cid(&noise(1, MIB));
    let want = Request::Want { id: 7, digest: digest(&chunk) };
    stream.write_all(&want.encode()).await.expect("an open stream");
    let (head, payload) = answer(&mut stream).await;
    assert_eq!(head, Answer::Data { id: 7, len: 1 << 20 });
    assert_eq!(content::verify(&chunk, &payload), Ok(()));

    let have = Request::Have { id: 8, digest: root };
    stream.write_all(&have.encode()).await.expect("an open stream");
    assert_eq!(answer(&mut stream).await.0, Answer::Have { id: 8, state: Held::All });

    drop(stream);
    within(serving).await.expect("no panic").expect("a clean end");
    assert_eq!(traffic.snapshot().peers[&node.id].up_bytes, MIB as u64);
}

#[tokio::test]
async fn what_a_peer_may_not_have_looks_like_what_is_not_here() {
    let node = World::default().node();
    let secret = digest(&node.add(&files(1, 10)));
    let me = node.id;
    let (mut stream, _serving) =
        client(&node, &Traffic::default(), move |peer, digest| *peer == me && *digest != secret);
    for (id, digest) in [(1, secret), (2, [9; 32])] {
        stream.write_all(&Request::Want { id, digest }.encode()).await.expect("an open stream");
        let (head, _) = answer(&mut stream).await;
        assert_eq!(head, Answer::Miss { id, reason: Miss::NotFound });
        stream.write_all(&Request::Have { id, digest }.encode()).await.expect("an open stream");
        let (head, _) = answer(&mut stream).await;
        assert_eq!(head, Answer::Have { id, state: Held::None });
    }
}

#[tokio::test]
async fn garbage_closes_the_stream() {
    let node = World::default().node();
    let (mut stream, serving) = client(&node, &Traffic::default(), |_, _| true);
    stream.write_all(&[0x7f; 64]).await.expect("an open stream");
    let ended = within(serving).await.expect("no panic");
    assert!(matches!(ended, Err(ServeError::Frame(_))), "{ended:?}");
    assert_eq!(stream.read(&mut [0; 8]).await.expect("an end of the stream"), 0);
}

#[tokio::test]
async fn half_a_request_ends_the_stream_and_nothing_else() {
    let node = World::default().node();
    let chunk = node.add(&files(1, 10));
    let want = Request::Want { id: 7, digest: digest(&chunk) }.encode();
    for len in [0, 1, REQUEST_BYTES / 2, REQUEST_BYTES - 1] {
        let (mut stream, serving) = client(&node, &Traffic::default(), |_, _| true);
        // What was asked before is answered.
        stream.write_all(&want).await.expect("an open stream");
        stream.write_all(&want[..len]).await.expect("an open stream");
        stream.shutdown().await.expect("an open stream");
        assert!(matches!(answer(&mut stream).await.0, Answer::Data { id: 7, .. }));
        assert_eq!(stream.read(&mut [0; 8]).await.expect("an end of the stream"), 0);
        within(serving).await.expect("no panic").expect("a clean end");
    }
}

#[tokio::test]
async fn who_says_nothing_or_half_of_it_is_let_go() {
    let node = World::default().node();
    for begun in [0, REQUEST_BYTES - 1] {
        let (mut stream, serving) = hurried(&node);
        stream.write_all(&vec![0x01; begun]).await.expect("an open stream");
        within(serving).await.expect("no panic").expect("an end, and nobody's fault");
        assert_eq!(stream.read(&mut [0; 8]).await.expect("an end of the stream"), 0);
    }
}

/// Each byte comes before the server takes the peer for stalled, and the block never.
#[tokio::test]
async fn who_takes_an_answer_byte_by_byte_is_let_go() {
    let node = World::default().node();
    node.add(&files(1, MIB));
    let (mut stream, serving) = hurried(&node);
    let want = Request::Want { id: 7, digest: digest(&content::chunk_cid(&noise(1, MIB))) };
    stream.write_all(&want.encode()).await.expect("an open stream");
    let ended = within(async {
        while !serving.is_finished() {
            let read = stream.read(&mut [0; 1]).await;
            if read.is_ok_and(|n| n == 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        serving.await.expect("no panic")
    });
    let ended = ended.await;
    assert!(matches!(ended, Err(ServeError::Slow { bytes, .. }) if bytes < MIB), "{ended:?}");
}

/// Memory is bounded by what may be open, and not by what is asked.
#[tokio::test]
async fn a_hundred_thousand_requests_at_once_are_answered_once_each() {
    const N: u32 = 100_000;
    let node = World::default().node();
    node.add(&files(1, 10));
    let (stream, serving) = client(&node, &Traffic::default(), |_, _| true);
    let (mut read, mut write) = tokio::io::split(stream);
    let digest = digest(&content::chunk_cid(&noise(1, 10)));
    let asking = async {
        let ask = |id| Request::Want { id, digest }.encode();
        let frames: Vec<u8> = (0..N).flat_map(ask).collect();
        write.write_all(&frames).await.expect("an open stream");
        write.shutdown().await.expect("an open stream");
    };
    let answers = async {
        let mut open: BTreeSet<u32> = (0..N).collect();
        while !open.is_empty() {
            match answer(&mut read).await.0 {
                Answer::Data { id, len: 10 } | Answer::Miss { id, reason: Miss::Busy } => {
                    assert!(open.remove(&id), "request {id} was answered twice");
                }
                other => panic!("neither the block nor busy: {other:?}"),
            }
        }
        assert_eq!(read.read(&mut [0; 8]).await.expect("an end of the stream"), 0);
    };
    within(async { tokio::join!(asking, answers) }).await;
    within(serving).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_flood_is_answered_with_busy_and_each_request_once() {
    let node = World::default().node();
    node.add(&files(1, MIB));
    let (mut stream, _serving) = client(&node, &Traffic::default(), |_, _| true);

    // No answer is taken meanwhile, so the first payload blocks all that come after it.
    let n_requests = u32::try_from(2 * OPEN_MAX).expect("a few");
    let digest = digest(&content::chunk_cid(&noise(1, MIB)));
    for id in 0..n_requests {
        let request = Request::Want { id, digest }.encode();
        within(stream.write_all(&request)).await.expect("an open stream");
    }
    let mut ids = BTreeSet::new();
    let mut n_busy = 0;
    for _ in 0..n_requests {
        let id = match answer(&mut stream).await.0 {
            Answer::Data { id, .. } => id,
            Answer::Miss { id, reason: Miss::Busy } => {
                n_busy += 1;
                id
            }
            other => panic!("neither the block nor busy: {other:?}"),
        };
        assert!(id < n_requests && ids.insert(id), "request {id} was answered twice");
    }
    assert!((1..=OPEN_MAX).contains(&n_busy), "{n_busy} requests were refused");
}
