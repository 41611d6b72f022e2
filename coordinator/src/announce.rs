//! Telling all nodes that there is work, so that they need not poll.

use std::sync::Arc;
use std::time::Duration;

use dockercomp_network::{Handle as Network, PublishOutcome};
use dockercomp_protocol::envelope;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::statement::Announcement;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::decider::Handle as Decider;
use crate::receipts::Seal;

/// Announcements are at least this far apart.
const PAUSE: Duration = Duration::from_millis(500);
/// An announcement is news for this long.
const LIFETIME: Duration = Duration::from_secs(60);
/// Tries for an announcement that nobody was there to hear.
const TRIES: u32 = 5;

/// Says that there is work; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcer {
    news: Arc<Notify>,
}

impl Announcer {
    /// There is work.
    pub(crate) fn work(&self) {
        self.news.notify_one();
    }

    /// Announces until `shutdown`.
    pub(crate) async fn run(
        self,
        project: ProjectId,
        seal: Arc<Seal>,
        network: Network,
        decider: Decider,
        shutdown: CancellationToken,
    ) {
        let announce = async {
            loop {
                self.news.notified().await;
                for _ in 0..TRIES {
                    let now = decider.now();
                    let announcement = Announcement {
                        v: 1,
                        project,
                        charter: seal.charter.clone(),
                        issued_at: now,
                        expires_at: now + LIFETIME,
                    };
                    let sealed = envelope::seal(&seal.key, &announcement);
                    let outcome = network.publish(Announcement::TOPIC, sealed).await;
                    tokio::time::sleep(PAUSE).await;
                    match outcome {
                        Ok(PublishOutcome::NoPeers | PublishOutcome::Congested) => {}
                        Ok(PublishOutcome::Sent) => break,
                        Err(error) => {
                            tracing::warn!(%error, "announcement not published");
                            break;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = announce => {}
        }
    }
}
