//! Hearing gossip for all projects of a node.
//!
//! The network has one listener a topic. What is heard is sorted by project here and handed to
//! whoever works for it: announcements of work to the worker, heads to the project's watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dockercomp_agent::Event;
use dockercomp_network::{SubscribeError, Subscription};
use dockercomp_peer::Peer;
use dockercomp_protocol::Timestamp;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::log::HeadNotice;
use dockercomp_protocol::statement::Announcement;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::worker::{Message, Said, Sender};

/// Notices that wait for a watch. More of them say nothing new: each head carries on all before.
const QUEUE: usize = 64;

/// Who wants to hear what; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ear {
    projects: Arc<Mutex<BTreeMap<ProjectId, Listener>>>,
}

#[derive(Debug)]
struct Listener {
    heads: mpsc::Sender<Vec<u8>>,
    /// When the newest announcement was made: an old one that somebody repeats is no news.
    announced_at: Timestamp,
}

impl Ear {
    /// Listens for a project from now on; gives its heads.
    pub(crate) fn listen_for(&self, project: ProjectId) -> mpsc::Receiver<Vec<u8>> {
        let (heads, notices) = mpsc::channel(QUEUE);
        let listener = Listener { heads, announced_at: Timestamp::default() };
        self.with(|projects| projects.insert(project, listener));
        notices
    }

    /// Listens for a project no more.
    pub(crate) fn forget(&self, project: &ProjectId) {
        self.with(|projects| projects.remove(project));
    }

    /// Subscribes, and gives what is heard to whom it concerns, until `shutdown`.
    pub(crate) async fn start(
        self,
        peer: &Peer,
        worker: Sender,
        shutdown: CancellationToken,
    ) -> Result<tokio::task::JoinHandle<()>, SubscribeError> {
        let is_announcement = |bytes: &[u8]| Announcement::open(bytes).is_some();
        let is_head = |bytes: &[u8]| HeadNotice::open(bytes).is_ok();
        let network = peer.network();
        let announcements = network.subscribe(Announcement::TOPIC, is_announcement).await?;
        let heads = network.subscribe(HeadNotice::TOPIC, is_head).await?;
        Ok(tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.listen(announcements, heads, worker) => {}
            }
        }))
    }

    async fn listen(&self, mut announcements: Subscription, mut heads: Subscription, to: Sender) {
        loop {
            tokio::select! {
                heard = announcements.next() => {
                    let Some(gossip) = heard else { return };
                    let news = Announcement::open(&gossip.data).filter(|news| self.is_news(news));
                    if let Some(Announcement { project, .. }) = news {
                        tracing::info!(%project, "work announced");
                        let message = Message::Of(project, Said::Event(Event::Announced));
                        if to.send(message).await.is_err() {
                            return;
                        }
                    }
                }
                heard = heads.next() => {
                    let Some(gossip) = heard else { return };
                    self.on_head(gossip.data.to_vec());
                }
            }
        }
    }

    fn is_news(&self, news: &Announcement) -> bool {
        self.with(|projects| {
            let Some(listener) = projects.get_mut(&news.project) else { return false };
            let is_news = news.issued_at > listener.announced_at;
            listener.announced_at = listener.announced_at.max(news.issued_at);
            is_news
        })
    }

    fn on_head(&self, notice: Vec<u8>) {
        let Ok(opened) = HeadNotice::open(&notice) else { return };
        self.with(|projects| {
            if let Some(listener) = projects.get(&opened.head.project) {
                // A watch that is behind asks the coordinator for the newest head anyway.
                let _ = listener.heads.try_send(notice);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ProjectId, Listener>) -> T) -> T {
        act(&mut self.projects.lock().expect("no holder of this lock panics"))
    }
}
