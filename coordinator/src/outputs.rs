//! Pulling canonical outputs from the nodes that computed them, before they may forget them.
//!
//! An output is asked for until it is here: nodes that are away for a while come back. What
//! arrives is checked against its CID like any other block.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dockercomp_coordinator_core::{Core, Event, UnitView};
use dockercomp_peer::reply::chain;
use dockercomp_peer::{Located, Peer};
use dockercomp_protocol::{Cid, NodeId};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::announce::Announcer;
use crate::decider::{Answer, Effect, Handle as Decider};
use crate::directory::Directory;
use crate::jobs::Jobs;

/// Outputs that are pulled at one time.
const PARALLEL: usize = 16;
/// Pause before an output that nobody gave is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// How long nodes may give nothing before others' outputs have their turn.
const PATIENCE: Duration = Duration::from_secs(15);

/// Outputs that are being pulled, and everybody who is known to have them; clones share them.
#[derive(Clone, Default)]
struct Wanted {
    outputs: Arc<Mutex<Holders>>,
}

/// Who has the output of a work unit, by job and number.
type Holders = BTreeMap<(Cid, u64), Vec<NodeId>>;

impl Wanted {
    /// Remembers who has an output. Tells whether it is being pulled already.
    fn insert(&self, unit: (Cid, u64), holders: Vec<NodeId>) -> bool {
        self.with(|outputs| outputs.insert(unit, holders).is_some())
    }

    fn holders(&self, unit: &(Cid, u64)) -> Vec<NodeId> {
        self.with(|outputs| outputs.get(unit).cloned().unwrap_or_default())
    }

    fn remove(&self, unit: &(Cid, u64)) {
        self.with(|outputs| outputs.remove(unit));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Holders) -> T) -> T {
        act(&mut self.outputs.lock().expect("no holder of this lock panics"))
    }
}

/// Carries out what the decider wants done elsewhere.
#[derive(Clone)]
pub(crate) struct Effects {
    pub(crate) peer: Peer,
    pub(crate) decider: Decider,
    pub(crate) directory: Directory,
    pub(crate) jobs: Jobs,
    pub(crate) announcer: Announcer,
    /// Held while an owner's program compares outputs.
    pub(crate) checking: Arc<tokio::sync::Mutex<()>>,
}

impl Effects {
    /// Works until `shutdown`.
    pub(crate) async fn run(
        self,
        mut effects: mpsc::UnboundedReceiver<Effect>,
        shutdown: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let wanted = Wanted::default();
        loop {
            let effect = tokio::select! {
                () = shutdown.cancelled() => return,
                effect = effects.recv() => effect,
            };
            match effect {
                None => return,
                Some(Effect::AnnounceWork) => self.announcer.work(),
                Some(Effect::Compare { job, index, outputs }) => {
                    let (this, permits) = (self.clone(), Arc::clone(&permits));
                    let shutdown = shutdown.clone();
                    tokio::spawn(async move {
                        this.compare(job, index, outputs, &permits, &shutdown).await;
                    });
                }
                Some(Effect::FetchOutput { job, index, output, holders }) => {
                    let located = self.locate(&holders);
                    if wanted.insert((job, index), holders) {
                        // It is being pulled already; now there is one more who has it.
                        self.peer.add_providers(output, located).await;
                        continue;
                    }
                    let (this, wanted) = (self.clone(), wanted.clone());
                    let (permits, shutdown) = (Arc::clone(&permits), shutdown.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            () = this.pull(job, index, output, &wanted, &permits) => {}
                        }
                        wanted.remove(&(job, index));
                    });
                }
            }
        }
    }

    async fn pull(&self, job: Cid, index: u64, output: Cid, wanted: &Wanted, permits: &Semaphore) {
        loop {
            let owed = move |core: &Core| match core.explain_unit(job, index) {
                Some(UnitView::Accepted { stored, .. }) => !stored,
                _ => false,
            };
            if !self.decider.look(owed).await.unwrap_or(false) {
                // Its job was cancelled meanwhile.
                return;
            }
            {
                let Ok(_permit) = permits.acquire().await else { return };
                let holders = self.locate(&wanted.holders(&(job, index)));
                match self.peer.fetch_output(output, holders, PATIENCE).await {
                    Ok(()) => break,
                    Err(error) => {
                        let error = chain(&error);
                        tracing::warn!(%job, index, %output, error, "output not fetched yet");
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        // The decider is gone only while the process stops; then it is asked for again.
        while let Ok(Answer::NoRoom) = self.decider.tell(Event::OutputStored { job, index }).await {
            tokio::time::sleep(RETRY).await;
        }
    }

    pub(crate) fn locate(&self, holders: &[NodeId]) -> Vec<Located> {
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
