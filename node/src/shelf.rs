//! The outputs that are here: own ones, kept for coordinators, and those of others that replicas
//! work on. All projects share the shelf, since two of them may have the same output.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use dockercomp_peer::reply::chain;
use dockercomp_peer::{Located, Peer};
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::unit::WorkUnit;
use dockercomp_protocol::{Cid, ReplicaId};
use dockercomp_store::{Store, StoreError};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc};
use tokio_util::sync::CancellationToken;

use crate::attached;
use crate::borrowed::{Borrowed, Loan};
use crate::desk::Desk;

/// See the module documentation; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    peer: Peer,
    pub(crate) borrowed: Borrowed,
    pub(crate) hints: Hints,
    /// Read while an output is made and put on a desk, written while one is forgotten: two
    /// replicas may have the same output.
    outputs: Arc<RwLock<()>>,
    /// Cancelled when the node stops.
    stopping: CancellationToken,
}

/// Who was said to hold a dataset, by the project whose coordinator said so.
type Holders = BTreeMap<(ProjectId, Cid), Vec<Located>>;

/// Who was said to hold which dataset, by whom; clones share it. What one project's coordinator
/// says does not send another project's replicas anywhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    hints: Arc<Mutex<Holders>>,
}

impl Hints {
    pub(crate) fn learn(&self, project: ProjectId, root: Cid, peers: Vec<Located>) {
        self.with(|hints| hints.insert((project, root), peers));
    }

    pub(crate) fn of(&self, project: ProjectId, root: &Cid) -> Vec<Located> {
        self.with(|hints| hints.get(&(project, *root)).cloned()).unwrap_or_default()
    }

    fn forget(&self, root: &Cid) {
        self.with(|hints| hints.retain(|(_, of), _| of != root));
    }

    fn forget_project(&self, project: &ProjectId) {
        self.with(|hints| hints.retain(|(by, _), _| by != project));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Holders) -> T) -> T {
        act(&mut self.hints.lock().expect("no holder of this lock panics"))
    }
}

impl Shelf {
    /// A shelf, and where outputs are named that nobody here works on any more.
    pub(crate) fn new(
        peer: Peer,
        stopping: CancellationToken,
    ) -> (Self, mpsc::UnboundedReceiver<Cid>) {
        let (borrowed, returned) = Borrowed::new();
        let (hints, outputs) = (Hints::default(), Arc::default());
        (Self { peer, borrowed, hints, outputs, stopping }, returned)
    }

    /// Keeps the outputs here that a unit takes, from now on; none for a unit of a first stage.
    pub(crate) async fn lend(&self, unit: &WorkUnit) -> Option<Arc<Loan>> {
        // Not while an output is looked at to be forgotten.
        let _outputs = self.outputs.read().await;
        (!unit.outputs().is_empty()).then(|| self.borrowed.borrow(unit.outputs()))
    }

    /// No output is forgotten while this lives.
    pub(crate) async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.outputs).read_owned().await
    }

    /// Forgets outputs of others when nobody here works on them any more.
    pub(crate) async fn take_back(self, mut returned: mpsc::UnboundedReceiver<Cid>) {
        while let Some(output) = tokio::select! {
            () = self.stopping.cancelled() => None,
            output = returned.recv() => output,
        } {
            let _outputs = self.outputs.write().await;
            if !self.borrowed.holds(&output) {
                self.hints.forget(&output);
                self.remove_unless_needed(vec![output]).await;
            }
        }
    }

    /// Forgets a replica and, unless another one gave the same or works on it, its output.
    pub(crate) async fn forget(&self, desk: &Desk, replica: ReplicaId) {
        let _outputs = self.outputs.write().await;
        let desk = desk.clone();
        if let Ok(Some(output)) = self.durable(move |_| desk.forget(replica)).await {
            self.remove_unless_needed(vec![output]).await;
        }
    }

    /// Forgets all that was a project's, and its outputs unless others need them.
    pub(crate) async fn forget_project(&self, project: ProjectId) {
        let _outputs = self.outputs.write().await;
        self.hints.forget_project(&project);
        self.peer.distrust(&project);
        let cleared = self.durable(move |store| {
            let outputs = Desk::new(store.clone(), project).clear()?;
            attached::forget(store, &project)?;
            Ok(outputs)
        });
        if let Ok(outputs) = cleared.await {
            self.remove_unless_needed(outputs).await;
        }
    }

    async fn remove_unless_needed(&self, outputs: Vec<Cid>) {
        let looked = self.durable(needed);
        let Ok(needed) = looked.await else { return };
        for output in outputs {
            if needed.contains_key(&output) || self.borrowed.holds(&output) {
                continue;
            }
            if let Err(error) = self.peer.forget_output(output).await {
                tracing::warn!(%output, %error, "output not removed");
            }
        }
    }

    /// Does something to what is durable, off the async threads.
    ///
    /// A node that cannot keep its promises makes none: when the store fails, it stops, and goes
    /// on from its desk when it is started again.
    pub(crate) async fn durable<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.peer.store().clone();
        let done = tokio::task::spawn_blocking(move || act(&store)).await;
        done.expect("the desk does not panic").inspect_err(|error| {
            tracing::error!(error = chain(error), "the store failed, the node stops");
            self.stopping.cancel();
        })
    }
}

/// The outputs that are on a desk, and for which projects. Blocks.
pub(crate) fn needed(store: &Store) -> Result<BTreeMap<Cid, BTreeSet<ProjectId>>, StoreError> {
    let mut needed = BTreeMap::<Cid, BTreeSet<ProjectId>>::new();
    for attached in attached::all(store)? {
        let project = attached.link.project;
        for output in Desk::new(store.clone(), project).outputs()? {
            needed.entry(output).or_default().insert(project);
        }
    }
    Ok(needed)
}
