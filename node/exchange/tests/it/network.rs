//! The exchange over real libp2p.

use dockercomp_exchange::{Exchange, FetchOptions, Options, provider_key};
use dockercomp_network::{Handle, Keypair, Multiaddr, Role, Service, StreamProtocol};
use dockercomp_protocol::wire::chunk;
use dockercomp_store::Want;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{MIB, World, files, within};

/// A running network service; it stops when the guard is dropped.
async fn service(listen: &str, bootstrap: Vec<Multiaddr>) -> (Handle, DropGuard) {
    let options = dockercomp_network::Options {
        listen: vec![listen.parse().expect("an address")],
        bootstrap,
        ..dockercomp_network::Options::new(Keypair::generate_ed25519(), Role::Bootstrap)
    };
    let service = within(Service::bind(options)).await.expect("free ports on loopback");
    let handle = service.handle();
    let shutdown = CancellationToken::new();
    tokio::spawn(service.run(shutdown.clone()));
    (handle, shutdown.drop_guard())
}

#[tokio::test]
async fn a_dataset_travels_over_libp2p() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let world = World::default();
        let (provider, node) = (world.node(), world.node());
        let files = files(40, MIB / 2);
        let root = provider.add(&files);
        let (serving, _serving) = service(listen, vec![]).await;
        let (fetching, _fetching) = service(listen, serving.advertised_addresses()).await;

        let server = Exchange::new(provider.store.clone(), serving.clone(), Options::default())
            .server(|_: &_, _: &_| true);
        let incoming = serving.accept(StreamProtocol::new(chunk::PROTOCOL)).expect("the first");
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(server.run(incoming, shutdown.clone()));

        // Nobody is named: the provider is found through Kademlia.
        serving.provide(&provider_key(&root)).await.expect("a running service");
        let options = Options { discover: Some(Arc::new(fetching.clone())), ..Options::default() };
        let exchange = Exchange::new(node.store.clone(), fetching.clone(), options);
        let fetched = within(exchange.fetch(root, Want::All, [], FetchOptions::default())).await;

        let bytes = fetched.expect("an honest provider").bytes_by_peer[&serving.local_peer()];
        assert!(bytes > 20 * MIB as u64, "{listen}: {bytes} bytes");
        node.assert_holds(&root, &files);
        shutdown.cancel();
        within(served).await.expect("the server stops");
    }
}
