//! Limits of bandwidth hold, in both directions.

use std::time::{Duration, Instant};

use dockercomp_exchange::{FetchOptions, Options, Rates};
use dockercomp_store::Want;

use crate::support::{MIB, Nature, World, files, quick, within};

const RATE: u64 = 4 << 20;

/// 4 MiB at 4 MiB/s take a second, less what passes at once.
const AT_LEAST: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_download_keeps_to_its_limit() {
    let world = World::default();
    let files = files(1, 4 * MIB);
    let (provider, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();
    let rates = Rates { down: Some(RATE), ..Rates::default() };
    let exchange = node.exchange_with(Options { rates, ..quick() });
    let began = Instant::now();
    let fetching = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
    within(fetching).await.expect("an honest provider");
    assert!(began.elapsed() >= AT_LEAST, "{:?}", began.elapsed());
    node.assert_holds(&root, &files);
}

#[tokio::test]
async fn uploads_to_all_together_keep_to_their_limit() {
    let world = World::default();
    let files = files(1, 2 * MIB);
    let rates = Rates { up: Some(RATE), ..Rates::default() };
    let (mut provider, root) = world.provider(&files, Nature::Honest).await;
    provider.serve_within(rates).await;
    let (one, two) = (world.node(), world.node());
    let began = Instant::now();
    let fetch = async |node: &crate::support::Node| {
        let exchange = node.exchange();
        let fetching = exchange.fetch(root, Want::All, [provider.id], FetchOptions::default());
        within(fetching).await.expect("an honest provider");
    };
    tokio::join!(fetch(&one), fetch(&two));
    assert!(began.elapsed() >= AT_LEAST, "{:?}", began.elapsed());
    one.assert_holds(&root, &files);
    two.assert_holds(&root, &files);
}
