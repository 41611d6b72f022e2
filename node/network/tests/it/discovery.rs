//! Strangers who share nothing but a bootstrap address find each other.

use dockercomp_network::{
    BindError, Multiaddr, Options, PeerId, Provider, Role, Service, Transport,
    framed::{read_frame, write_frame},
};

use crate::support::{ECHO, FRAME_MAX, Node, Over, eventually, options};

const KEY: &[u8] = b"a dataset root";

/// Waits until a lookup finds exactly the expected provider.
pub(crate) async fn find(seeker: &Node, expected: PeerId) -> Provider {
    eventually("the provider is found", async || {
        let found = seeker.handle.providers(KEY).await.expect("the service runs");
        found.into_iter().find(|provider| provider.peer == expected)
    })
    .await
}

async fn strangers_meet(over: Over, transport: Transport) {
    let bootstrap = Node::start(options(Role::Bootstrap, over)).await;
    let holder = Node::client(over, &bootstrap).await;
    let seeker = Node::client(over, &bootstrap).await;
    holder.echo();
    assert!(!seeker.is_connected_to(&holder).await, "they are to meet through kademlia only");
    let holder_peer = holder.handle.local_peer();
    assert!(seeker.handle.addresses(holder_peer).await.expect("runs").is_empty());

    holder.handle.provide(KEY).await.expect("there is room");
    let provider = find(&seeker, holder_peer).await;
    assert_eq!(provider.addresses, holder.handle.listen_addresses());

    let mut stream = seeker.handle.open(holder_peer, ECHO).await.expect("it is reachable");
    write_frame(&mut stream, b"hello", FRAME_MAX).await.expect("the stream works");
    let answer = read_frame(&mut stream, FRAME_MAX).await.expect("the stream works");
    assert_eq!(answer, b"hello".as_slice());

    let peers = seeker.handle.peers().await.expect("the service runs");
    let info = peers.iter().find(|info| info.peer == holder_peer).expect("it is connected");
    assert_eq!(info.transport, transport);
    assert!(!info.serves_kademlia, "a client keeps nothing for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_meet_over_tcp() {
    strangers_meet(Over::Tcp, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_meet_over_quic() {
    strangers_meet(Over::Quic, Transport::Quic).await;
}

/// What a lookup learned outlives its query, even if no connection came of it.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_outlive_the_lookup() {
    let bootstrap = Node::start(options(Role::Bootstrap, Over::Tcp)).await;
    let holder = Node::client(Over::Tcp, &bootstrap).await;
    let seeker = Node::client(Over::Tcp, &bootstrap).await;
    holder.echo();
    let holder_peer = holder.handle.local_peer();
    holder.handle.provide(KEY).await.expect("there is room");
    // The ban keeps Kademlia itself from connecting, which would teach the addresses too.
    assert!(seeker.handle.ban(holder_peer).await.expect("the service runs"));
    find(&seeker, holder_peer).await;
    assert!(!seeker.is_connected_to(&holder).await);

    let known = seeker.handle.addresses(holder_peer).await.expect("the service runs");
    assert_eq!(known, holder.handle.listen_addresses());
    assert!(seeker.handle.unban(holder_peer).await.expect("the service runs"));
    seeker.handle.open(holder_peer, ECHO).await.expect("the addresses are still known");
}

/// A key that was announced while nobody was there to hear it is announced once somebody is.
#[tokio::test(flavor = "multi_thread")]
async fn keys_provided_off_line_are_announced_later() {
    let door = options(Role::Bootstrap, Over::Tcp);
    let first = Node::start(door.clone()).await;
    let address = first.handle.advertised_addresses();
    let listen = first.handle.listen_addresses();
    first.stop().await;

    let mut holder = options(Role::Client, Over::Tcp);
    holder.bootstrap = address;
    let holder = Node::start(holder).await;
    holder.handle.provide(KEY).await.expect("providing works off line");
    assert!(holder.handle.providers(KEY).await.expect("looking works off line").is_empty());

    let bootstrap = Node::start(Options { listen, ..door }).await;
    let seeker = Node::client(Over::Tcp, &bootstrap).await;
    find(&seeker, holder.handle.local_peer()).await;
}

/// The bootstrap node itself finds providers in the records that it keeps.
#[tokio::test(flavor = "multi_thread")]
async fn keeper_of_the_records_finds_providers_too() {
    let bootstrap = Node::start(options(Role::Bootstrap, Over::Tcp)).await;
    let holder = Node::client(Over::Tcp, &bootstrap).await;
    holder.handle.provide(KEY).await.expect("there is room");
    let provider = find(&bootstrap, holder.handle.local_peer()).await;
    assert_eq!(provider.addresses, holder.handle.listen_addresses());
}

/// Wrong options are refused with the address that is wrong.
#[tokio::test]
async fn wrong_addresses_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = taken.local_addr().expect("it is bound").port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("valid");
    let mut wrong = options(Role::Client, Over::Tcp);
    wrong.listen = vec![address.clone()];
    let error = Service::bind(wrong).await.expect_err("the port is taken");
    assert!(matches!(error, BindError::Listen { address: named, .. } if named == address));

    let mut wrong = options(Role::Client, Over::Tcp);
    wrong.listen = vec!["/ip4/127.0.0.1/udp/1".parse().expect("valid")];
    let error = Service::bind(wrong).await.expect_err("bare UDP is no transport");
    assert!(matches!(error, BindError::UnsupportedAddress { .. }));

    let mut wrong = options(Role::Client, Over::Tcp);
    wrong.bootstrap = vec![address.clone()];
    let error = Service::bind(wrong).await.expect_err("the peer id is missing");
    assert!(
        matches!(error, BindError::BootstrapWithoutPeer { address: named } if named == address)
    );
}
