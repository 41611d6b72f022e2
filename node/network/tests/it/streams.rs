//! Streams: what works, and how each thing that does not work is told.

use std::{collections::BTreeSet, time::Duration};

use dockercomp_network::{
    AcceptError, ConnectError, DialError, Keypair, OpenError, PeerId, Role, StreamProtocol,
    Unavailable,
    framed::{FrameError, read_frame, write_frame},
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{ECHO, FRAME_MAX, Node, Over, eventually, options, soon};

/// Two nodes, the second of which knows where the first is.
async fn pair(over: Over) -> (Node, Node) {
    let answering = Node::start(options(Role::Client, over)).await;
    let asking = Node::start(options(Role::Client, over)).await;
    introduce(&asking, &answering).await;
    (answering, asking)
}

async fn introduce(to: &Node, whom: &Node) {
    let (peer, addresses) = (whom.handle.local_peer(), whom.handle.advertised_addresses());
    to.handle.add_addresses(peer, addresses).await.expect("the service runs");
}

async fn echo_works(over: Over) {
    let (answering, asking) = pair(over).await;
    answering.echo();
    let peer = answering.handle.local_peer();
    let mut stream = asking.handle.open(peer, ECHO).await.expect("it is reachable");
    for size in [0, 1, 64 * 1024, FRAME_MAX] {
        write_frame(&mut stream, &vec![7; size], FRAME_MAX).await.expect("the stream works");
        let answer = read_frame(&mut stream, FRAME_MAX).await.expect("the stream works");
        assert_eq!(answer, vec![7; size]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_echoed_over_tcp() {
    echo_works(Over::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_echoed_over_quic() {
    echo_works(Over::Quic).await;
}

/// Each side sees where the other is; of a stranger nothing is known.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_connected_peer_is_known() {
    let (answering, asking) = pair(Over::Tcp).await;
    let peer = answering.handle.local_peer();
    assert_eq!(asking.handle.remote_ip(peer).await.expect("the service runs"), None);
    asking.handle.connect(peer).await.expect("it is reachable");
    for (here, there) in [(&asking, &answering), (&answering, &asking)] {
        let there = there.handle.local_peer();
        let address = eventually("the connection is known", async || {
            here.handle.remote_ip(there).await.expect("the service runs")
        })
        .await;
        assert!(address.is_loopback(), "{address:?}");
    }
}

/// Many streams at once: none is lost on the way to the one who accepts them.
#[tokio::test(flavor = "multi_thread")]
async fn burst_of_streams_arrives_whole() {
    const N_STREAMS: u32 = 100;
    let (answering, asking) = pair(Over::Tcp).await;
    answering.echo();
    let peer = answering.handle.local_peer();
    let mut tasks = JoinSet::new();
    for id in 0..N_STREAMS {
        let handle = asking.handle.clone();
        tasks.spawn(async move {
            let mut stream = handle.open(peer, ECHO).await.expect("it is reachable");
            write_frame(&mut stream, &id.to_be_bytes(), FRAME_MAX).await.expect("it works");
            let answer = read_frame(&mut stream, FRAME_MAX).await.expect("it works");
            assert_eq!(answer, id.to_be_bytes().as_slice());
            id
        });
    }
    let answered: BTreeSet<_> = soon("all answers", tasks.join_all()).await.into_iter().collect();
    assert_eq!(answered, (0..N_STREAMS).collect());
}

/// The reader's limit holds even though the writer's is larger.
#[tokio::test(flavor = "multi_thread")]
async fn oversize_frame_is_refused() {
    let (answering, asking) = pair(Over::Tcp).await;
    let mut incoming = answering.handle.accept(ECHO).expect("accepted once");
    let peer = answering.handle.local_peer();
    let mut stream = asking.handle.open(peer, ECHO).await.expect("it is reachable");
    write_frame(&mut stream, &[0; 1001], FRAME_MAX).await.expect("within its own limit");
    let (from, mut stream) = soon("the stream", incoming.next()).await.expect("it runs");
    assert_eq!(from, asking.handle.local_peer());
    let error = soon("the refusal", read_frame(&mut stream, 1000)).await.expect_err("over it");
    assert!(matches!(error, FrameError::TooLarge { declared: 1001, max: 1000 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_protocol_is_refused() {
    let (answering, asking) = pair(Over::Tcp).await;
    let peer = answering.handle.local_peer();
    let other = StreamProtocol::new("/test/unknown/1");
    let error = asking.handle.open(peer, other.clone()).await.expect_err("nobody accepts it");
    assert!(matches!(error, OpenError::Unsupported { protocol, .. } if protocol == other));
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_is_accepted_once_at_a_time() {
    let node = Node::start(options(Role::Client, Over::Tcp)).await;
    let incoming = node.handle.accept(ECHO).expect("the first one");
    let second = node.handle.accept(ECHO);
    assert!(matches!(second, Err(AcceptError::AlreadyAccepted { .. })));
    drop(incoming);
    node.handle.accept(ECHO).expect("it is free again");
}

/// Each way in which a peer cannot be reached has its own error, in good time.
#[tokio::test(flavor = "multi_thread")]
async fn unreachable_peers_are_told_apart() {
    let (answering, asking) = pair(Over::Tcp).await;
    let unknown = PeerId::random();
    let error = asking.handle.open(unknown, ECHO).await.expect_err("nobody knows it");
    assert!(matches!(error, OpenError::Dial(DialError::NoAddresses { peer }) if peer == unknown));

    let us = asking.handle.local_peer();
    let error = asking.handle.open(us, ECHO).await.expect_err("it is us");
    assert!(matches!(error, OpenError::Dial(DialError::Own { .. })));

    let gone = PeerId::random();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = closed.local_addr().expect("it is bound").port();
    drop(closed);
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("a valid address");
    asking.handle.add_addresses(gone, vec![address]).await.expect("the service runs");
    let error = asking.handle.open(gone, ECHO).await.expect_err("nobody listens");
    assert!(matches!(error, OpenError::Dial(DialError::Unreachable { tried: 1, .. })));

    // Somebody answers, but it is not who we asked for.
    let claimed = PeerId::from(Keypair::generate_ed25519().public());
    let addresses = answering.handle.listen_addresses();
    asking.handle.add_addresses(claimed, addresses).await.expect("the service runs");
    let error = asking.handle.open(claimed, ECHO).await.expect_err("the identity is checked");
    let real = answering.handle.local_peer();
    assert!(
        matches!(error, OpenError::Dial(DialError::WrongPeer { obtained, .. }) if *obtained == real)
    );
    assert!(asking.handle.addresses(claimed).await.expect("runs").is_empty());
}

/// A stranger's address among a peer's addresses costs a try, not the peer.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_address_does_not_hide_the_right_one() {
    let (stranger, asking) = pair(Over::Tcp).await;
    let wanted = Node::start(options(Role::Client, Over::Tcp)).await;
    let peer = wanted.handle.local_peer();
    let mut addresses = stranger.handle.listen_addresses();
    addresses.extend(wanted.handle.listen_addresses());
    asking.handle.add_addresses(peer, addresses).await.expect("the service runs");
    asking.handle.connect(peer).await.expect("one of the addresses is right");
    assert!(asking.is_connected_to(&wanted).await);
}

/// Somebody who accepts the connection and then says nothing costs no more than the timeout.
#[tokio::test(flavor = "multi_thread")]
async fn silent_peer_costs_a_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = silent.local_addr().expect("it is bound").port();
    let mut impatient = options(Role::Client, Over::Tcp);
    impatient.timeouts.open = Duration::from_millis(300);
    let asking = Node::start(impatient).await;
    let peer = PeerId::random();
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("a valid address");
    asking.handle.add_addresses(peer, vec![address]).await.expect("the service runs");

    let start = Instant::now();
    let error = asking.handle.open(peer, ECHO).await.expect_err("nobody speaks");
    assert!(matches!(error, OpenError::TimedOut { peer: named, .. } if named == peer));
    assert!(start.elapsed() < Duration::from_secs(4), "not the dial's own five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn banned_peer_stays_out() {
    let (answering, asking) = pair(Over::Tcp).await;
    let (answering_peer, asking_peer) = (answering.handle.local_peer(), asking.handle.local_peer());
    asking.handle.connect(answering_peer).await.expect("it is reachable");
    assert!(asking.handle.ban(answering_peer).await.expect("the service runs"));
    eventually("the connection is closed", async || {
        (!asking.is_connected_to(&answering).await).then_some(())
    })
    .await;
    let error = asking.handle.connect(answering_peer).await.expect_err("it is banned");
    assert!(matches!(error, ConnectError::Dial(DialError::Denied { .. })), "{error:?}");
    introduce(&answering, &asking).await;
    // The ban shows to the other side as a connection that closes at once or never comes up.
    let _ = answering.handle.open(asking_peer, ECHO).await.expect_err("it is banned");

    assert!(asking.handle.unban(answering_peer).await.expect("the service runs"));
    asking.handle.connect(answering_peer).await.expect("the ban is lifted");
}

/// After the end every handle, queue and stream ends too, instead of waiting for ever.
#[tokio::test(flavor = "multi_thread")]
async fn everything_ends_with_the_service() {
    let (answering, asking) = pair(Over::Tcp).await;
    let mut incoming = answering.handle.accept(ECHO).expect("accepted once");
    let peer = answering.handle.local_peer();
    let mut stream = asking.handle.open(peer, ECHO).await.expect("it is reachable");
    let handle = answering.handle.clone();
    soon("the first stream", incoming.next()).await.expect("it runs");
    answering.stop().await;

    assert!(soon("the end of the queue", incoming.next()).await.is_none());
    assert!(matches!(handle.peers().await, Err(Unavailable::Stopped)));
    assert!(matches!(handle.accept(ECHO), Err(AcceptError::Unavailable(_))));
    let error = soon("the end of the stream", read_frame(&mut stream, FRAME_MAX)).await;
    assert!(error.expect_err("the peer is gone").is_broken_stream());
}
