//! Pulling canonical outputs from the nodes that computed them, before they may forget them.
//!
//! An output is asked for until it is here: nodes that are away for a while come back. What
//! arrives is checked against its CID like any other block.
//!
//! An output is given up for lost when all who have it were asked again and again for
//! [`Effects::lost_after`] and gave nothing of it, while another node was there that could
//! compute it again; see [`Drought`]. Then the core has it computed once more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dockercomp_coordinator_core::{Core, Event, UnitView};
use dockercomp_peer::reply::chain;
use dockercomp_peer::{FetchError, Located, Peer, Progress};
use dockercomp_protocol::{Cid, NodeId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::announce::Announcer;
use crate::decider::{Answer, Effect, Handle as Decider};
use crate::directory::Directory;
use crate::explain::AWAY_AFTER;
use crate::jobs::Jobs;

/// Outputs that are pulled at one time.
const PARALLEL: usize = 16;
/// Pause before an output that nobody gave is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// How long nodes may give nothing before others' outputs have their turn.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long all who have an output have given nothing of it.
///
/// Only time counts in which it was asked for, and in which somebody else was there to compute
/// it: while the coordinator itself is cut off, nobody is, and where nobody else is, waiting
/// costs nothing. Whatever comes of it, and whoever else has it, begins the count anew.
#[derive(Debug, Default, PartialEq, Eq)]
struct Drought {
    /// Time that counts.
    lasted: Duration,
    /// Blocks that were missing the last time.
    missing: Vec<Cid>,
    /// Who had it the last time.
    holders: Vec<NodeId>,
}

/// What came of asking all holders once.
#[derive(Clone, Debug)]
struct Attempt {
    /// Since the attempt before.
    took: Duration,
    /// Blocks that are missing still.
    missing: Vec<Cid>,
    /// Whether anything came.
    has_progressed: bool,
    /// Who was asked.
    holders: Vec<NodeId>,
    /// Whether another node is there that could compute it.
    is_replaceable: bool,
}

impl Drought {
    /// Takes in that holders were asked and did not give everything.
    fn note(&mut self, attempt: Attempt) {
        let Attempt { took, missing, has_progressed, holders, is_replaceable } = attempt;
        if has_progressed || self.missing != missing || self.holders != holders {
            *self = Self { lasted: Duration::ZERO, missing, holders };
        }
        if is_replaceable {
            // A machine that slept did not ask meanwhile.
            self.lasted += took.min(PATIENCE + 2 * RETRY);
        }
    }
}

/// Outputs that are being pulled, and everybody who is known to have them; clones share them.
#[derive(Clone, Default)]
struct Wanted {
    outputs: Arc<Mutex<Holders>>,
}

/// Who has the output of a work unit, by job and number.
type Holders = BTreeMap<(Cid, u64), Vec<NodeId>>;

impl Wanted {
    /// Remembers who else has an output. Tells whether it is being pulled already.
    fn insert(&self, unit: (Cid, u64), holders: Vec<NodeId>) -> bool {
        self.with(|outputs| {
            let is_pulled = outputs.contains_key(&unit);
            let all = outputs.entry(unit).or_default();
            for holder in holders {
                if !all.contains(&holder) {
                    all.push(holder);
                }
            }
            is_pulled
        })
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
    /// An output that nobody gave anything of for this long is lost.
    pub(crate) lost_after: Duration,
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
                    });
                }
            }
        }
    }

    async fn pull(&self, job: Cid, index: u64, output: Cid, wanted: &Wanted, permits: &Semaphore) {
        let mut drought = Drought::default();
        loop {
            let now = self.decider.now();
            let look = move |core: &Core| match core.explain_unit(job, index) {
                Some(UnitView::Accepted { stored: false, .. }) => {
                    Some(core.is_replaceable(now, job, index, AWAY_AFTER))
                }
                _ => None,
            };
            let Ok(Some(is_replaceable)) = self.decider.look(look).await else {
                // Its job was cancelled meanwhile.
                wanted.remove(&(job, index));
                return;
            };
            let permit = permits.acquire().await.expect("nobody closes the semaphore");
            let begun = Instant::now();
            let holders = wanted.holders(&(job, index));
            let (progress, seen) = watch::channel(Progress::default());
            let located = self.locate(&holders);
            match self.peer.fetch_output(output, located, PATIENCE, Some(progress)).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(
                        %job, index, %output, error = chain(&error), "output not fetched yet"
                    );
                    // Every other error is of this side, and says nothing about the holders.
                    if let FetchError::Unavailable { missing, .. } = error {
                        let has_progressed = seen.borrow().done_bytes > 0;
                        let took = begun.elapsed() + RETRY;
                        let attempt =
                            Attempt { took, missing, has_progressed, holders, is_replaceable };
                        drought.note(attempt);
                    }
                }
            }
            drop(permit);
            // Who came to have it meanwhile was not asked yet.
            let is_current = drought.holders == wanted.holders(&(job, index));
            if is_current && drought.lasted >= self.lost_after {
                tracing::warn!(%job, index, %output, "output lost, it is computed again");
                // Whoever computes it again is to be asked anew.
                wanted.remove(&(job, index));
                match self.decider.tell(Event::OutputLost { job, index }).await {
                    Ok(Answer::NoRoom) => {
                        wanted.insert((job, index), drought.holders);
                        drought = Drought::default();
                    }
                    _ => return,
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        // The decider is gone only while the process stops; then it is asked for again.
        while let Ok(Answer::NoRoom) = self.decider.tell(Event::OutputStored { job, index }).await {
            tokio::time::sleep(RETRY).await;
        }
        wanted.remove(&(job, index));
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

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::block_cid;
    use libp2p_identity::Keypair;

    use super::*;

    const TRY: Duration = Duration::from_secs(17);

    fn node(seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a seed");
        key.public().to_peer_id()
    }

    fn nothing() -> Attempt {
        Attempt {
            took: TRY,
            missing: vec![block_cid(b"root")],
            has_progressed: false,
            holders: vec![node(1)],
            is_replaceable: true,
        }
    }

    /// What counts after the attempts.
    fn lasted(attempts: impl IntoIterator<Item = Attempt>) -> Duration {
        let mut drought = Drought::default();
        attempts.into_iter().for_each(|attempt| drought.note(attempt));
        drought.lasted
    }

    #[test]
    fn an_output_is_lost_when_nothing_comes_for_long() {
        assert_eq!(lasted(vec![nothing(); 36]), 36 * TRY);
    }

    #[test]
    fn whatever_comes_begins_the_count_anew() {
        let progressed = Attempt { has_progressed: true, ..nothing() };
        let less = Attempt { missing: vec![block_cid(b"page")], ..nothing() };
        let another = Attempt { holders: vec![node(1), node(2)], ..nothing() };
        for news in [progressed, less, another] {
            let calm = Attempt { has_progressed: false, ..news.clone() };
            let attempts = vec![nothing(), nothing(), nothing(), news, calm];
            assert_eq!(lasted(attempts), 2 * TRY);
        }
    }

    #[test]
    fn while_nobody_else_could_compute_it_nothing_counts() {
        let alone = Attempt { is_replaceable: false, ..nothing() };
        assert_eq!(lasted(vec![alone.clone(); 100]), Duration::ZERO);
        assert_eq!(lasted([nothing(), alone, nothing()]), 2 * TRY);
    }

    #[test]
    fn a_night_in_which_the_machine_slept_does_not_count() {
        let slept = Attempt { took: Duration::from_secs(8 * 3600), ..nothing() };
        assert!(lasted([slept]) < Duration::from_secs(20));
    }
}
