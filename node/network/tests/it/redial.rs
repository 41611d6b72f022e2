//! A bootstrap node is killed and comes back with nothing but its identity and its port.

use dockercomp_network::{ConnectError, DialError, Options, Role};

use crate::{
    discovery::find,
    support::{Node, Over, eventually, options},
};

#[tokio::test(flavor = "multi_thread")]
async fn restarted_bootstrap_node_is_found_again() {
    let door = options(Role::Bootstrap, Over::Tcp);
    let bootstrap = Node::start(door.clone()).await;
    let listen = bootstrap.handle.listen_addresses();
    let holder = Node::client(Over::Tcp, &bootstrap).await;
    let seeker = Node::client(Over::Tcp, &bootstrap).await;
    let holder_peer = holder.handle.local_peer();
    holder.handle.provide(b"a dataset root").await.expect("there is room");
    find(&seeker, holder_peer).await;

    let door_peer = bootstrap.handle.local_peer();
    bootstrap.kill().await;
    for node in [&holder, &seeker] {
        eventually("the loss is noticed", async || {
            let peers = node.handle.peers().await.expect("the service runs");
            peers.iter().all(|info| info.peer != door_peer).then_some(())
        })
        .await;
    }

    let bootstrap = Node::start(Options { listen, ..door }).await;
    assert_eq!(bootstrap.handle.local_peer(), door_peer);
    // A newcomer asks too: it cannot have learned anything before the restart.
    let newcomer = Node::client(Over::Tcp, &bootstrap).await;
    for node in [&newcomer, &seeker] {
        find(node, holder_peer).await;
    }
    for node in [&holder, &seeker] {
        eventually("it is connected again", async || {
            node.is_connected_to(&bootstrap).await.then_some(())
        })
        .await;
    }
}

/// Somebody else on the bootstrap node's port is not taken for it, and does not make us forget
/// where the right one belongs.
#[tokio::test(flavor = "multi_thread")]
async fn impostor_on_the_port_is_refused() {
    let door = options(Role::Bootstrap, Over::Tcp);
    let bootstrap = Node::start(door.clone()).await;
    let listen = bootstrap.handle.listen_addresses();
    let client = Node::client(Over::Tcp, &bootstrap).await;
    let door_peer = bootstrap.handle.local_peer();
    client.handle.connect(door_peer).await.expect("it is reachable");
    bootstrap.stop().await;

    let impostor = options(Role::Bootstrap, Over::Tcp);
    let impostor = Node::start(Options { listen: listen.clone(), ..impostor }).await;
    eventually("the impostor is noticed", async || match client.handle.connect(door_peer).await {
        Err(ConnectError::Dial(DialError::WrongPeer { obtained, .. })) => {
            (*obtained == impostor.handle.local_peer()).then_some(())
        }
        _ => None,
    })
    .await;
    assert!(!client.is_connected_to(&impostor).await);
    impostor.stop().await;

    let bootstrap = Node::start(Options { listen, ..door }).await;
    eventually("the right one is back", async || {
        client.is_connected_to(&bootstrap).await.then_some(())
    })
    .await;
}
