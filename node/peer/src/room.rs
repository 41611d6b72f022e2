//! Making room: when garbage is collected, and how much.

use dockercomp_exchange::provider_key;

use crate::Peer;

/// A fetch that leaves more than this share of the quota used, in percent, is followed by a
/// collection of garbage …
const HIGH_PERCENT: u64 = 80;
/// … down to this share.
const LOW_PERCENT: u64 = 60;

impl Peer {
    /// Collects garbage when much of the quota is used, so that the next fetch need not wait.
    pub(crate) async fn keep_room(&self) {
        let store = self.store();
        let Some(room) = store.room_bytes() else { return };
        let used = store.used_bytes();
        let quota = used.saturating_add(room);
        if used > quota / 100 * HIGH_PERCENT {
            self.make_room(quota / 100 * LOW_PERCENT).await;
        }
    }

    /// Collects garbage until no more than so much is used. False: nothing could go.
    pub(crate) async fn make_room(&self, used_max: u64) -> bool {
        let store = self.store().clone();
        let collecting = tokio::task::spawn_blocking(move || store.collect(used_max));
        let collected = match collecting.await {
            Ok(Ok(collected)) => collected,
            Ok(Err(error)) => {
                tracing::error!(%error, "garbage was not collected");
                return false;
            }
            // The runtime is shutting down.
            Err(_) => return false,
        };
        for root in &collected.roots {
            if let Err(error) = self.network().stop_providing(&provider_key(root)).await {
                tracing::warn!(%root, %error, "collected dataset is still announced");
            }
        }
        !collected.roots.is_empty()
    }
}
