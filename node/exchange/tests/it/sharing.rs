//! Several callers of one exchange.

use std::collections::BTreeSet;
use std::time::Duration;

use dockercomp_exchange::{FetchError, FetchOptions};
use dockercomp_store::Want;

use crate::support::{MIB, Nature, World, files, patience, within};

#[tokio::test]
async fn callers_of_one_dataset_share_one_session() {
    let world = World::default();
    let files = files(12, MIB + 1);
    let (a, root) = world.provider(&files, Nature::Honest).await;
    let (b, _) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let exchange = node.exchange();
    let fetch = |want| exchange.fetch(root, want, [a.id, b.id], FetchOptions::default());

    let overlapping = [
        fetch(Want::All),
        fetch(Want::All),
        fetch(Want::Files { first: 2, count: 6 }),
        fetch(Want::Files { first: 5, count: 7 }),
    ];
    for fetched in within(futures::future::join_all(overlapping)).await {
        fetched.expect("two honest providers");
    }

    node.assert_holds(&root, &files);
    let asked = [a.served.all(), b.served.all()].concat();
    let distinct: BTreeSet<_> = asked.iter().collect();
    assert_eq!(asked.len(), distinct.len(), "a block was asked for twice");
    assert_eq!(asked.len(), 2 + 12 * 2);
}

#[tokio::test]
async fn a_small_want_does_not_wait_for_a_large_one_that_fails() {
    let world = World::default();
    let all = files(6, MIB);
    let (provider, root) = world.provider(&all, Nature::Honest).await;
    // This one takes part of the dataset and serves no more than that.
    let mut part = world.node();
    let want = Want::Files { first: 0, count: 2 };
    let exchange = part.exchange();
    let fetched = exchange.fetch(root, want, [provider.id], FetchOptions::default());
    within(fetched).await.expect("an honest provider");
    part.serve(Nature::Honest).await;

    let node = world.node();
    let exchange = node.exchange();
    let soon = || patience(Duration::from_secs(1));
    let large = exchange.fetch(root, Want::All, [part.id], soon());
    let small = exchange.fetch(root, want, [part.id], soon());
    let (large, small) = within(futures::future::join(large, small)).await;
    small.expect("what the provider has");
    let Err(FetchError::Unavailable { missing, .. }) = large else {
        panic!("expected Unavailable, not {large:?}");
    };
    assert_eq!(missing.len(), 4);
}

#[tokio::test]
async fn a_caller_that_loses_interest_leaves_the_others_alone() {
    let world = World::default();
    let files = files(2, 6 * MIB);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let exchange = node.exchange();
    let dropped = {
        let exchange = exchange.clone();
        let caller =
            async move { exchange.fetch(root, Want::All, [], FetchOptions::default()).await };
        tokio::spawn(caller)
    };
    let want = Want::Files { first: 0, count: 1 };
    let staying = exchange.fetch(root, want, [], FetchOptions::default());
    let fetched = within(async {
        let mut staying = std::pin::pin!(staying);
        let poll = tokio::time::timeout(Duration::from_millis(1), &mut staying).await;
        assert!(poll.is_err(), "ended without a provider: {poll:?}");
        dropped.abort();
        assert!(dropped.await.expect_err("a cancelled task").is_cancelled());
        assert!(exchange.add_providers(root, [provider.id]), "the fetch runs");
        staying.await
    });
    assert_eq!(fetched.await.expect("an honest provider").n_blocks, 2 + 6);
    assert_eq!(provider.served.len(), 2 + 6, "blocks were fetched that nobody wants");
    within(async {
        // The session ends by itself, and is then not there to be told of providers.
        while exchange.add_providers(root, []) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
