//! The month's volume, kept so that a restart does not begin it anew.

use std::sync::Arc;
use std::time::Duration;

use dockercomp_exchange::{Used, Volume};
use dockercomp_protocol::{Timestamp, codec};
use dockercomp_store::{Row, Store, StoreError, Table};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Where in [`Table::Traffic`] it is.
const KEY: &[u8] = b"volume";
/// A crash costs at most what passed in this time.
const EVERY: Duration = Duration::from_secs(1);

/// A limit, with what passed before this process began.
pub(crate) async fn load(store: &Store, limit_bytes: u64) -> Result<Arc<Volume>, StoreError> {
    let store = store.clone();
    let kept = spawn_blocking(move || store.get(Table::Traffic, KEY)).await;
    let kept = kept.expect("reading does not panic")?;
    // What cannot be read was written by another version.
    let used: Used = kept.and_then(|bytes| codec::decode(&bytes).ok()).unwrap_or_default();
    let clock = Clock::from(Timestamp(0));
    Ok(Arc::new(Volume::new(limit_bytes, used, move || clock.now())))
}

/// Writes it down as it changes, and once more at the end.
pub(crate) async fn keep(store: Store, volume: Arc<Volume>, shutdown: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = None;
    loop {
        let is_last = tokio::select! {
            _ = ticks.tick() => false,
            () = shutdown.cancelled() => true,
        };
        let used = volume.used();
        if kept.as_ref() != Some(&used) {
            let row =
                Row::Put { table: Table::Traffic, key: KEY.to_vec(), value: codec::encode(&used) };
            let store = store.clone();
            match spawn_blocking(move || store.append(&[], &[row])).await {
                Ok(Ok(())) => kept = Some(used),
                Ok(Err(error)) => tracing::warn!(%error, "the month's volume was not written down"),
                Err(_) => return,
            }
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_passed_is_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let used = Used { month: "9999-12".into(), bytes: 70 };
        {
            let store = Store::open(dir.path(), dockercomp_store::Options::default());
            let volume = Volume::new(100, used.clone(), || Timestamp(0));
            let ended = CancellationToken::new();
            ended.cancel();
            keep(store.expect("an empty directory"), Arc::new(volume), ended).await;
        }
        let store = Store::open(dir.path(), dockercomp_store::Options::default());
        let store = store.expect("the one before is closed");
        let volume = load(&store, 60).await.expect("a store");
        assert_eq!(volume.used(), used);
        assert!(volume.is_used_up(), "less is allowed now");
    }
}
