//! Peers that send wrong bytes or break the protocol.

use std::time::Duration;

use dockercomp_exchange::{FetchError, FetchOptions};
use dockercomp_store::Want;

use crate::support::{MIB, Nature, World, files, patience, quick, within};

/// The most that a liar can be asked before the first of its lies is known.
fn asked_max() -> usize {
    quick().blocks_per_peer
}

#[tokio::test]
async fn a_liar_is_named_and_its_bytes_are_not_stored() {
    let world = World::default();
    let files = files(4, 12 * MIB);
    let (liar, root) = world.provider(&files, Nature::Flips).await;
    let (honest, _) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let exchange = node.exchange();

    let providers = vec![liar.id, honest.id];
    let fetched = within(exchange.fetch(root, Want::All, providers, FetchOptions::default())).await;

    let fetched = fetched.expect("an honest provider");
    assert_eq!(fetched.liars, [liar.id]);
    assert_eq!(fetched.bytes_by_peer.into_keys().collect::<Vec<_>>(), [honest.id]);
    node.assert_holds(&root, &files);
    assert!(liar.served.len() <= asked_max(), "it was asked {} times", liar.served.len());
    let traffic = exchange.traffic().snapshot();
    assert!(traffic.peers[&liar.id].n_wrong >= 1);
    assert_eq!(traffic.peers[&honest.id].n_wrong, 0);
}

#[tokio::test]
async fn with_liars_only_nothing_is_stored() {
    let world = World::default();
    let (liar, root) = world.provider(&files(1, MIB), Nature::Flips).await;
    let node = world.node();
    let before = node.store.used_bytes();
    let soon = patience(Duration::from_secs(1));
    let failed = within(node.exchange().fetch(root, Want::All, [liar.id], soon)).await;
    let Err(FetchError::Unavailable { missing, liars, .. }) = failed else {
        panic!("expected Unavailable, not {failed:?}");
    };
    assert_eq!((missing, liars), (vec![root], vec![liar.id]));
    assert_eq!(liar.served.len(), 1, "a liar was asked again");
    assert_eq!(node.store.used_bytes(), before);
    assert!(node.store.root(&root).expect("a store").is_none());
}

#[tokio::test]
async fn who_breaks_the_protocol_is_dropped() {
    for nature in [Nature::Boasts, Nature::Repeats] {
        let world = World::default();
        let files = files(1, 6 * MIB);
        let (rogue, root) = world.provider(&files, nature).await;
        let (honest, _) = world.provider(&files, Nature::Honest).await;
        let node = world.node();
        let exchange = node.exchange();
        // The rogue is the only one at first, so that it is surely asked.
        let fetch = exchange.fetch(root, Want::All, [rogue.id], FetchOptions::default());
        let fetched = within(async {
            let mut fetch = std::pin::pin!(fetch);
            while rogue.served.len() == 0 {
                let poll = tokio::time::timeout(Duration::from_millis(1), &mut fetch).await;
                assert!(poll.is_err(), "ended without an honest provider: {poll:?}");
            }
            assert!(exchange.add_providers(root, [honest.id]), "the fetch runs");
            fetch.await
        });
        let fetched = fetched.await.expect("an honest provider");
        assert_eq!(fetched.liars, [rogue.id], "{nature:?}");
        node.assert_holds(&root, &files);
        assert!(rogue.served.len() <= asked_max(), "{nature:?} was asked again");
    }
}
