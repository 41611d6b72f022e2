//! Questions and answers over a persistent stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dockercomp_network::{
    Role, StreamProtocol,
    framed::{FrameError, read_frame, write_frame},
    rpc::{CallError, Client},
};

use crate::support::{Node, Over, options};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/test/rpc/1");
const MAX: usize = 1024;

/// Answers each question with itself in capitals, except for some that it handles as their name
/// says. Counts the streams that it accepted.
fn serve(node: &Node) -> Arc<AtomicUsize> {
    let mut incoming = node.handle.accept(PROTOCOL).expect("accepted once");
    let n_streams = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_streams);
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while let Ok(question) = read_frame(&mut stream, MAX).await {
                    let answer = match &question[..] {
                        b"answer and hang up" => {
                            let _ = write_frame(&mut stream, b"BYE", MAX).await;
                            return;
                        }
                        b"hang up" => return,
                        b"say nothing" => std::future::pending().await,
                        b"say too much" => vec![0; MAX + 1],
                        other => other.to_ascii_uppercase(),
                    };
                    if write_frame(&mut stream, &answer, usize::MAX).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    n_streams
}

async fn client(timeout: Duration) -> (Client, Arc<AtomicUsize>, [Node; 2]) {
    let answering = Node::start(options(Role::Server, Over::Tcp)).await;
    let asking = Node::start(options(Role::Client, Over::Tcp)).await;
    let (peer, addresses) =
        (answering.handle.local_peer(), answering.handle.advertised_addresses());
    asking.handle.add_addresses(peer, addresses).await.expect("the service runs");
    let n_streams = serve(&answering);
    let client = Client::new(asking.handle.clone(), peer, PROTOCOL, MAX, timeout);
    (client, n_streams, [answering, asking])
}

/// One stream serves many calls; one that the server closed is replaced without the caller
/// noticing.
#[tokio::test(flavor = "multi_thread")]
async fn stream_is_reused_and_reopened_once() {
    let (mut client, n_streams, _nodes) = client(Duration::from_secs(10)).await;
    for _ in 0..3 {
        assert_eq!(client.call(b"hello").await.expect("answered"), "HELLO");
    }
    assert_eq!(n_streams.load(Ordering::SeqCst), 1);

    assert_eq!(client.call(b"answer and hang up").await.expect("answered"), "BYE");
    assert_eq!(client.call(b"again").await.expect("answered"), "AGAIN");
    assert_eq!(n_streams.load(Ordering::SeqCst), 2);

    // A server that always hangs up is asked twice, not for ever.
    let error = client.call(b"hang up").await.expect_err("never answered");
    assert!(matches!(error, CallError::Frame { source, .. } if source.is_broken_stream()));
    assert_eq!(n_streams.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_breaks_the_rules_is_told_from_a_slow_one() {
    let (mut client, n_streams, _nodes) = client(Duration::from_millis(500)).await;
    assert_eq!(client.call(b"hello").await.expect("answered"), "HELLO");
    let error = client.call(b"say too much").await.expect_err("over the limit");
    let CallError::Frame { source: FrameError::TooLarge { declared, .. }, .. } = error else {
        panic!("another error: {error:?}");
    };
    assert_eq!(declared, MAX + 1);

    let error = client.call(b"say nothing").await.expect_err("never answered");
    assert!(matches!(error, CallError::TimedOut { .. }));
    // A late answer to the old question cannot be taken for one to the next.
    assert_eq!(client.call(b"next").await.expect("answered"), "NEXT");
    assert_eq!(n_streams.load(Ordering::SeqCst), 3);
}
