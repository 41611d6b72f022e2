//! Seeders leave when nearly everything is there.

use std::collections::BTreeSet;
use std::time::Duration;

use dockercomp_exchange::{FetchError, FetchOptions, Options, Progress};
use dockercomp_protocol::content;
use dockercomp_store::Want;
use tokio::sync::watch;

use crate::support::{MIB, Nature, Node, World, files, patience, quick, within};

const CHUNK_BYTES: u32 = 256 << 10;

/// Waits until so much of a fetch is done, in thousandths.
async fn until(progress: &mut watch::Receiver<Progress>, permille: u64) {
    let reached = |now: &Progress| {
        now.total_bytes.is_some_and(|total| now.done_bytes * 1000 >= total * permille)
    };
    within(progress.wait_for(reached)).await.expect("the fetch goes on");
}

/// Three that are quick and one that is slow, with the same 200 chunks.
async fn seeders(world: &World) -> (Vec<Node>, Node, dockercomp_protocol::Cid) {
    let files = files(1, 50 * MIB);
    let mut root = None;
    let mut seeder = async |nature| {
        let mut node = world.node();
        root = Some(node.add_in_chunks(&files, CHUNK_BYTES));
        node.serve(nature).await;
        node
    };
    let slow = seeder(Nature::Slow(Duration::from_millis(40))).await;
    let mut quick = Vec::new();
    for _ in 0..3 {
        quick.push(seeder(Nature::Honest).await);
    }
    (quick, slow, root.expect("a seeder"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_ends_though_seeders_leave_at_99_percent() {
    let world = World::default();
    let (mut quick_ones, mut slow, root) = seeders(&world).await;
    let node = world.node();
    let exchange =
        node.exchange_with(Options { retry_first: Duration::from_millis(50), ..quick() });
    let providers: Vec<_> = quick_ones.iter().chain([&slow]).map(|seeder| seeder.id).collect();

    let (sender, mut progress) = watch::channel(Progress::default());
    let options = FetchOptions { patience: Duration::from_secs(1), progress: Some(sender) };
    let fetching = tokio::spawn({
        let (exchange, providers) = (exchange.clone(), providers.clone());
        async move { exchange.fetch(root, Want::All, providers, options).await }
    });
    until(&mut progress, 990).await;
    quick_ones.iter_mut().for_each(Node::leave);
    // The slow one goes on alone, one chunk after another, until it leaves too.
    until(&mut progress, 993).await;
    slow.leave();
    let failed = within(fetching).await.expect("no panic");
    let Err(FetchError::Unavailable { missing, tried, liars, .. }) = failed else {
        panic!("expected Unavailable, not {failed:?}");
    };
    assert!((1..=2).contains(&missing.len()), "{} chunks are missing", missing.len());
    assert_eq!(tried.len(), 4, "it does not say whom it asked");
    assert_eq!(liars, []);

    slow.serve(Nature::Honest).await;
    let before = slow.served.len();
    let again = exchange.fetch(root, Want::All, providers, patience(Duration::from_secs(30)));
    let fetched = within(again).await.expect("the slow one is back");
    assert_eq!(fetched.n_blocks, missing.len() as u64, "it started over");
    let asked: BTreeSet<_> = slow.served.all().split_off(before).into_iter().collect();
    let lacking = missing.iter().map(|cid| content::digest(cid).expect("ours")).collect();
    assert_eq!(asked, lacking);
    assert_eq!(node.store.check(&root, |_| {}).expect("a store").sound, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slowest_seeder_finishes_alone() {
    let world = World::default();
    let (mut quick_ones, slow, root) = seeders(&world).await;
    let node = world.node();
    let exchange = node.exchange();
    let providers: Vec<_> = quick_ones.iter().chain([&slow]).map(|seeder| seeder.id).collect();
    let (sender, mut progress) = watch::channel(Progress::default());
    let options = FetchOptions { patience: Duration::from_secs(10), progress: Some(sender) };
    let fetching =
        tokio::spawn(async move { exchange.fetch(root, Want::All, providers, options).await });
    until(&mut progress, 990).await;
    quick_ones.iter_mut().for_each(Node::leave);
    let fetched = within(fetching).await.expect("no panic").expect("one seeder is left");
    assert!(fetched.bytes_by_peer[&slow.id] >= u64::from(CHUNK_BYTES));
    assert_eq!(node.store.check(&root, |_| {}).expect("a store").sound, 200);
}
