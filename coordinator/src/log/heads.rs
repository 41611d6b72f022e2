//! The newest head and proofs about it, for nodes, for the owner, and by gossip.

use std::sync::Arc;
use std::time::Duration;

use dockercomp_network::{Handle as Network, PublishOutcome};
use dockercomp_peer::reply::chain;
use dockercomp_protocol::codec;
use dockercomp_protocol::log::{HeadNotice, consistency};
use dockercomp_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{LogError, Newest, SealedHead, Tiles};
use crate::receipts::Seal;

/// Announced heads are at least this far apart: gossip is for rare facts.
const PAUSE: Duration = Duration::from_secs(5);

/// What others may know of the log; clones share it.
#[derive(Clone)]
pub(crate) struct Heads {
    store: Store,
    seal: Arc<Seal>,
    newest: watch::Receiver<Newest>,
}

impl Heads {
    pub(super) const fn new(
        store: Store,
        seal: Arc<Seal>,
        newest: watch::Receiver<Newest>,
    ) -> Self {
        Self { store, seal, newest }
    }

    /// The newest durable head; nothing before the first work unit was accepted.
    pub(crate) fn newest(&self) -> Newest {
        self.newest.borrow().clone()
    }

    /// A head with the proof that it carries an earlier one on. A log that is said to have
    /// been longer cannot be carried on, and the head alone shows it. Blocking.
    pub(crate) fn notice(&self, newest: &SealedHead, since: u64) -> Result<HeadNotice, LogError> {
        let size = newest.head.size;
        let since = since.min(size);
        let proof = consistency(since, size, &Tiles::new(&self.store))?;
        let (charter, head) = (self.seal.charter.clone(), newest.sealed.clone());
        Ok(HeadNotice { v: 1, charter, head, since, proof })
    }

    /// The newest head as [`HeadNotice`]s that carry on each of these sizes; none before the
    /// first work unit was accepted.
    pub(crate) async fn notices(&self, since: Vec<u64>) -> Result<Vec<Vec<u8>>, LogError> {
        let Some(newest) = self.newest() else { return Ok(Vec::new()) };
        let heads = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let notice = |since| heads.notice(&newest, since).map(|made| codec::encode(&made));
            since.into_iter().map(notice).collect()
        });
        made.await.expect("making proofs does not panic")
    }

    /// Announces heads until `shutdown`, each with the proof that it carries on the one that
    /// was announced before.
    pub(crate) async fn announce(mut self, network: Network, shutdown: CancellationToken) {
        self.newest.mark_changed();
        let mut announced = self.newest().map_or(0, |newest| newest.head.size);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.newest.changed() => if changed.is_err() { return },
            }
            self.newest.borrow_and_update();
            let notice = match self.notices(vec![announced]).await {
                Ok(notices) => notices.into_iter().next(),
                Err(error) => {
                    tracing::error!(error = chain(&error), "the log cannot be read");
                    return;
                }
            };
            let Some(notice) = notice else { continue };
            let size = HeadNotice::open(&notice).map_or(announced, |opened| opened.head.size);
            match network.publish(HeadNotice::TOPIC, notice).await {
                Ok(PublishOutcome::Sent) => announced = size,
                // Nobody heard it: the next one says it again.
                Ok(PublishOutcome::NoPeers | PublishOutcome::Congested) => {
                    self.newest.mark_changed();
                }
                Err(error) => tracing::warn!(%error, "head not announced"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
