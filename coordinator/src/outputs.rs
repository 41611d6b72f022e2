//! Pulling canonical outputs from the nodes that computed them, before they may forget them.
//!
//! An output is asked for until it is here: nodes that are away for a while come back. What
//! arrives is checked against its CID like any other block.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_coordinator_core::Event;
use dockercomp_peer::{Located, Peer};
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::Want;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::announce::Announcer;
use crate::decider::{Effect, Handle as Decider};
use crate::directory::Directory;

/// Outputs that are pulled at one time.
const PARALLEL: usize = 16;
/// Pause before an output that nobody gave is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// Carries out what the decider wants done elsewhere.
#[derive(Clone)]
pub(crate) struct Effects {
    pub(crate) peer: Peer,
    pub(crate) decider: Decider,
    pub(crate) directory: Directory,
    pub(crate) announcer: Announcer,
}

impl Effects {
    /// Works until `shutdown`.
    pub(crate) async fn run(
        self,
        mut effects: mpsc::UnboundedReceiver<Effect>,
        shutdown: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let under_way: Arc<Mutex<BTreeSet<(Cid, u64)>>> = Arc::default();
        loop {
            let effect = tokio::select! {
                () = shutdown.cancelled() => return,
                effect = effects.recv() => effect,
            };
            match effect {
                None => return,
                Some(Effect::AnnounceWork) => self.announcer.work(),
                Some(Effect::FetchOutput { job, index, output, holders }) => {
                    let holders = self.locate(&holders);
                    if !under_way.lock().await.insert((job, index)) {
                        // It is being pulled already; now there is one more who has it.
                        self.peer.add_providers(output, holders).await;
                        continue;
                    }
                    let (this, under_way) = (self.clone(), Arc::clone(&under_way));
                    let (permits, shutdown) = (Arc::clone(&permits), shutdown.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            () = this.pull(job, index, output, holders, &permits) => {}
                        }
                        under_way.lock().await.remove(&(job, index));
                    });
                }
            }
        }
    }

    async fn pull(
        &self,
        job: Cid,
        index: u64,
        output: Cid,
        holders: Vec<Located>,
        permits: &Semaphore,
    ) {
        loop {
            let Ok(_permit) = permits.acquire().await else { return };
            match self.peer.fetch_private(output, Want::All, holders.clone()).await {
                Ok(_) => break,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%job, index, %output, error, "output not fetched yet");
                }
            }
            drop(_permit);
            tokio::time::sleep(RETRY).await;
        }
        // The decider is gone only while the process stops; then it is asked for again.
        let _ = self.decider.tell(Event::OutputStored { job, index }).await;
    }

    fn locate(&self, holders: &[NodeId]) -> Vec<Located> {
        holders
            .iter()
            .map(|node| Located {
                peer: *node,
                addresses: self
                    .directory
                    .addresses(node)
                    .iter()
                    .filter_map(|address| address.parse().ok())
                    .collect(),
            })
            .collect()
    }
}
