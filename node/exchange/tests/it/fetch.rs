//! Fetching from peers that come, go, and are silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_exchange::{Discover, FetchError, FetchOptions, Fetched, Options, Progress};
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_protocol::{Cid, NodeId, content};
use dockercomp_store::Want;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::support::{MIB, Nature, World, files, patience, quick, within};

#[tokio::test]
async fn two_providers_share_the_work() {
    let world = World::default();
    let files = files(3, 8 * MIB + 17);
    let (a, root) = world.provider(&files, Nature::Honest).await;
    let (b, same) = world.provider(&files, Nature::Honest).await;
    assert_eq!(root, same, "equal folders have equal roots");
    let node = world.node();
    let exchange = node.exchange();

    let providers = vec![a.id, b.id];
    let fetched = within(exchange.fetch(root, Want::All, providers, FetchOptions::default()));
    let Fetched { n_blocks, bytes_by_peer, liars } = fetched.await.expect("two honest providers");

    node.assert_holds(&root, &files);
    assert_eq!(n_blocks, 2 + 3 * 9, "a root, a page, and the chunks");
    assert_eq!(liars, []);
    for provider in [&a, &b] {
        assert!(bytes_by_peer[&provider.id] >= 4 * MIB as u64, "one did all: {bytes_by_peer:?}");
    }
    let asked: Vec<_> = [a.served.all(), b.served.all()].concat();
    assert_eq!(asked.len() as u64, n_blocks, "something was asked for twice");
    let traffic = exchange.traffic().snapshot();
    for (peer, bytes) in bytes_by_peer {
        assert_eq!(traffic.peers[&peer].down_bytes, bytes);
    }
    let held = within(exchange.held(a.id, root)).await.expect("an honest provider");
    assert_eq!(held, Held::All);
}

#[tokio::test]
async fn what_is_here_is_not_fetched() {
    let world = World::default();
    let (provider, root) = world.provider(&files(1, 10), Nature::Honest).await;
    let exchange = provider.exchange();
    let fetched = within(exchange.fetch(root, Want::All, [], FetchOptions::default())).await;
    assert_eq!(fetched.expect("a complete dataset"), Fetched::default());
}

#[tokio::test]
async fn another_takes_over_from_a_provider_that_leaves() {
    let world = World::default();
    let files = files(1, 24 * MIB);
    let (deserter, root) = world.provider(&files, Nature::LeavesAfter(5)).await;
    let (other, _) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    // A retry would only meet the deserter again.
    let exchange = node.exchange_with(Options { retry_first: Duration::from_secs(60), ..quick() });

    let providers = vec![deserter.id, other.id];
    let fetched = within(exchange.fetch(root, Want::All, providers, FetchOptions::default())).await;

    let fetched = fetched.expect("an honest provider");
    node.assert_holds(&root, &files);
    assert_eq!(fetched.liars, [], "leaving is no lie");
    assert!(fetched.bytes_by_peer[&other.id] >= 19 * MIB as u64);
}

#[tokio::test]
async fn a_fetch_that_failed_goes_on_where_it_ended() {
    let world = World::default();
    let files = files(1, 16 * MIB);
    let (mut provider, root) = world.provider(&files, Nature::LeavesAfter(6)).await;
    let node = world.node();
    // A stream that is opened again would bring six more.
    let options = Options { retry_first: Duration::from_secs(60), ..quick() };
    let exchange = node.exchange_with(options);

    let soon = patience(Duration::from_secs(2));
    let failed = within(exchange.fetch(root, Want::All, [provider.id], soon)).await;

    let Err(FetchError::Unavailable { missing, tried, liars, .. }) = failed else {
        panic!("expected Unavailable, not {failed:?}");
    };
    assert_eq!(tried, [provider.id]);
    assert_eq!(liars, []);
    assert_eq!(missing.len(), 12, "16 chunks, of which the root and the page left room for 4");
    let lacking: BTreeSet<Cid> =
        node.store.missing(&root, &Want::All, 99).expect("a store").into_iter().collect();
    assert_eq!(missing.into_iter().collect::<BTreeSet<_>>(), lacking);

    provider.leave();
    let soon = patience(Duration::from_millis(100));
    let failed = within(exchange.fetch(root, Want::All, [provider.id], soon)).await;
    assert!(matches!(failed, Err(FetchError::Unavailable { .. })), "{failed:?}");

    provider.serve(Nature::Honest).await;
    let n_before = provider.served.len();
    let again = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
    let fetched = within(again).await.expect("an honest provider");
    node.assert_holds(&root, &files);
    assert_eq!(fetched.n_blocks, 12);
    let asked: BTreeSet<_> = provider.served.all().split_off(n_before).into_iter().collect();
    let lacking = lacking.iter().map(|cid| content::digest(cid).expect("our kind")).collect();
    assert_eq!(asked, lacking, "a stored block was asked for again");
}

#[tokio::test]
async fn a_provider_that_returns_is_found_again() {
    let world = World::default();
    let files = files(1, 20 * MIB);
    let (provider, root) = world.provider(&files, Nature::LeavesAfter(6)).await;
    let node = world.node();
    let exchange = node.exchange();
    let fetched = within(exchange.fetch(root, Want::All, [provider.id], FetchOptions::default()));
    let fetched = fetched.await.expect("six blocks each time");
    assert_eq!(fetched.n_blocks, 3 + 20, "a root, a page, a page of chunks, and the chunks");
    node.assert_holds(&root, &files);
}

#[tokio::test]
async fn nobody_waits_for_a_provider_that_never_answers() {
    for nature in [Nature::Silent, Nature::Halves, Nature::Trickles] {
        let world = World::default();
        let files = files(1, 8 * MIB);
        let (silent, root) = world.provider(&files, nature).await;
        let (other, _) = world.provider(&files, Nature::Honest).await;
        let node = world.node();
        let silence_max = Duration::from_millis(300);
        let exchange = node.exchange_with(Options { silence_max, ..quick() });
        let fetch = exchange.fetch(root, Want::All, [silent.id], FetchOptions::default());
        let fetched = within(async {
            let mut fetch = std::pin::pin!(fetch);
            // Surely the silent one is asked.
            while silent.served.len() == 0 {
                let poll = tokio::time::timeout(Duration::from_millis(1), &mut fetch).await;
                assert!(poll.is_err(), "ended without an honest provider: {poll:?}");
            }
            assert!(exchange.add_providers(root, [other.id]), "the fetch runs");
            fetch.await
        });
        let fetched = fetched.await.expect("an honest provider");
        node.assert_holds(&root, &files);
        let from: Vec<_> = fetched.bytes_by_peer.into_keys().collect();
        assert_eq!(from, [other.id], "{nature:?}");
        assert_eq!(fetched.liars, [], "{nature:?}");
    }
}

#[tokio::test]
async fn only_the_wanted_files_are_fetched() {
    let world = World::default();
    let files = files(10, MIB + 5);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let exchange = node.exchange();

    let want = Want::Files { first: 3, count: 2 };
    let (sender, progress) = watch::channel(Progress::default());
    let options = FetchOptions { progress: Some(sender), ..FetchOptions::default() };
    let fetched = within(exchange.fetch(root, want, [provider.id], options)).await;

    assert_eq!(fetched.expect("an honest provider").n_blocks, 2 + 2 * 2);
    assert!(node.store.is_complete(&root, &want).expect("a store"));
    let wanted: BTreeSet<_> = files[3..5]
        .iter()
        .flat_map(|(_, bytes)| bytes.chunks(MIB))
        .map(|chunk| content::digest(&content::chunk_cid(chunk)).expect("our kind"))
        .collect();
    let asked: BTreeSet<_> = provider.served.all().into_iter().skip(2).collect();
    assert_eq!(asked, wanted);
    let total = 2 * (MIB as u64 + 5);
    let end = *progress.borrow();
    assert_eq!(end, Progress { done_bytes: total, total_bytes: Some(total) });
}

#[tokio::test]
async fn thousands_of_small_files_come_quickly() {
    let world = World::default();
    let files = files(2000, 100);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let exchange = node.exchange();
    let fetch = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
    let fetched = tokio::time::timeout(Duration::from_secs(20), fetch).await;
    let fetched = fetched.expect("far less than ten milliseconds each").expect("a provider");
    assert_eq!(fetched.n_blocks, 1 + 4 + 2000);
    // Laying all these files out would take longer than the fetch.
    assert!(node.store.is_complete(&root, &Want::All).expect("a store"));
    for (path, bytes) in &files {
        let digest = content::digest(&content::chunk_cid(bytes)).expect("our kind");
        let held = node.store.block(&digest).expect("a store");
        assert_eq!(held.as_deref(), Some(bytes.as_slice()), "{path} differs");
    }
}

#[tokio::test]
async fn a_dataset_that_nobody_has_is_unavailable() {
    let world = World::default();
    let (empty, _) = world.provider(&files(1, 1), Nature::Honest).await;
    let node = world.node();
    let root = content::block_cid(b"a root that nobody has");
    let soon = patience(Duration::from_millis(100));
    let failed = within(node.exchange().fetch(root, Want::All, [empty.id], soon)).await;
    let Err(FetchError::Unavailable { missing, tried, .. }) = failed else {
        panic!("expected Unavailable, not {failed:?}");
    };
    assert_eq!((missing, tried), (vec![root], vec![empty.id]));
}

struct Lookup(NodeId);

impl Discover for Lookup {
    fn providers(&self, _: Cid) -> BoxFuture<'static, Vec<NodeId>> {
        futures::future::ready(vec![self.0]).boxed()
    }
}

#[tokio::test]
async fn providers_are_looked_up_when_none_is_known() {
    let world = World::default();
    let files = files(1, MIB);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let discover = Some(Arc::new(Lookup(provider.id)) as Arc<dyn Discover>);
    let exchange = node.exchange_with(Options { discover, ..quick() });
    let fetched = within(exchange.fetch(root, Want::All, [], FetchOptions::default())).await;
    assert_eq!(fetched.expect("a provider").bytes_by_peer.len(), 1);
    node.assert_holds(&root, &files);
}
