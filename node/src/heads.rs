//! Holding the coordinator to its log: the newest head is remembered, and every later one must
//! carry it on.
//!
//! ```text
//! gossip ──► does its proof start at ours? ──yes──► remembered
//! welcome ─┐        │ no
//!          └──► ask the coordinator for proofs ──they hold──► remembered
//!                        │ they do not
//!                        ▼
//!          fork: both signed heads are kept as evidence, and the node's status says so
//! ```
//!
//! A wrong proof that comes by gossip says nothing, since anybody can put one beside a right
//! head; what the coordinator answers itself does, and two signed heads of one size with
//! different roots prove it to anybody.
//!
//! The head is remembered also when the node has left the project, so that a coordinator cannot
//! shake off what it signed.
//!
//! # What is not here
//!
//! A node that has caught its coordinator goes on working: whether to leave is its owner's
//! decision.

use std::path::PathBuf;
use std::time::Duration;

use dockercomp_peer::Peer;
use dockercomp_peer::reply::chain;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::log::{Head, HeadNotice, Notice};
use dockercomp_protocol::wire::work::{Request, Response};
use dockercomp_store::{Row, Store, StoreError, Table};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{Board, ForkInfo, LogInfo};
use crate::session;

/// Questions of many nodes about one head are spread over this time.
const SPREAD: Duration = Duration::from_secs(2);

/// The watch over one project's log.
pub(crate) struct Watch {
    project: ProjectId,
    store: Store,
    session: session::Handle,
    board: Board,
    /// Where evidence is put.
    dir: PathBuf,
    notices: mpsc::Receiver<Vec<u8>>,
    /// How long this node waits before it asks about a head that it has only heard of.
    pause: Duration,
    /// The newest head that was proven to carry on all that were remembered before.
    newest: Option<Remembered>,
}

/// A head, and the notice that proves it is the coordinator's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    head: Head,
    notice: Vec<u8>,
}

/// What a head that was seen means for one that was remembered.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It carries the remembered one on.
    Newer,
    /// It is the same, or an older one that the remembered one carries on.
    Known,
    /// Only the coordinator can tell.
    Unproven,
    /// Two signed heads contradict each other.
    Contradiction,
}

impl Watch {
    /// A watch that hears of heads by `notices`.
    pub(crate) fn new(
        peer: &Peer,
        project: ProjectId,
        session: session::Handle,
        board: Board,
        notices: mpsc::Receiver<Vec<u8>>,
    ) -> Self {
        let turn = peer.id().to_bytes().last().copied().unwrap_or_default();
        let pause = SPREAD.mul_f64(f64::from(turn) / 256.0);
        let dir = peer.store().dir().join("evidence").join(project.to_string());
        let store = peer.store().clone();
        Self { project, store, session, board, dir, notices, pause, newest: None }
    }

    /// Reads what was remembered, and watches until `shutdown`. `welcomed` changes whenever the coordinator was found.
    pub(crate) async fn run(
        mut self,
        mut welcomed: watch::Receiver<()>,
        shutdown: CancellationToken,
    ) {
        let (store, key) = (self.store.clone(), self.key());
        let read = tokio::task::spawn_blocking(move || store.get(Table::Meta, &key));
        match read.await.expect("reading does not panic") {
            Ok(notice) => self.newest = notice.and_then(Remembered::new),
            Err(error) => tracing::error!(error = chain(&error), "the last head cannot be read"),
        }
        self.show(None);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = welcomed.changed() => match changed {
                    Ok(()) => self.ask(None).await,
                    Err(_) => return,
                },
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.on_notice(notice).await,
                    None => return,
                },
            }
        }
    }

    async fn on_notice(&mut self, notice: Vec<u8>) {
        let Ok(seen) = HeadNotice::open(&notice) else { return };
        if seen.head.project != self.project {
            return;
        }
        let seen_head = Remembered { head: seen.head.clone(), notice };
        match standing(self.newest.as_ref().map(|newest| &newest.head), &seen) {
            Standing::Known => {}
            Standing::Newer => self.remember(seen_head).await,
            Standing::Contradiction => self.caught(Some(seen_head)).await,
            Standing::Unproven => {
                tokio::time::sleep(self.pause).await;
                self.ask(Some(seen_head)).await;
            }
        }
    }

    /// Asks the coordinator for its newest head, and for proofs that it carries on the one
    /// that is remembered and the one that was heard of.
    async fn ask(&mut self, heard: Option<Remembered>) {
        let held: Vec<Remembered> = self.newest.iter().cloned().chain(heard).collect();
        let mut since: Vec<u64> = held.iter().map(|held| held.head.size).collect();
        if since.is_empty() {
            since.push(0);
        }
        let Ok(Response::Head { notices }) = self.session.ask(Request::Head { since }).await else {
            return;
        };
        let answers: Option<Vec<Notice>> =
            notices.iter().map(|bytes| self.answered(bytes)).collect();
        let Some(answers) = answers else { return };
        let Some(newest) = notices.first().and_then(|bytes| Remembered::new(bytes.to_vec())) else {
            // An empty log carries nothing on but an empty log.
            if held.iter().any(|held| held.head.size > 0) {
                self.caught(None).await;
            }
            return;
        };
        let one_head = answers.iter().all(|answer| answer.head == newest.head);
        let carried = held
            .iter()
            .zip(&answers)
            .all(|(held, answer)| answer.carries_on(&held.head) == Some(true));
        if one_head && carried && answers.len() >= held.len() {
            self.remember(newest).await;
        } else {
            self.caught(Some(newest)).await;
        }
    }

    fn answered(&self, bytes: &[u8]) -> Option<Notice> {
        match HeadNotice::open(bytes) {
            Ok(notice) if notice.head.project == self.project => Some(notice),
            Ok(_) | Err(_) => {
                tracing::warn!("the coordinator answered with a head that is not right");
                None
            }
        }
    }

    async fn remember(&mut self, head: Remembered) {
        if self.newest.as_ref() == Some(&head) {
            return;
        }
        let (store, key, value) = (self.store.clone(), self.key(), head.notice.clone());
        let row = Row::Put { table: Table::Meta, key, value };
        let written: Result<(), StoreError> =
            tokio::task::spawn_blocking(move || store.append(&[], &[row]))
                .await
                .expect("appending does not panic");
        if let Err(error) = written {
            tracing::error!(error = chain(&error), "a head cannot be remembered");
            return;
        }
        tracing::debug!(entries = head.head.size, "the coordinator's log was carried on");
        self.newest = Some(head);
        self.show(None);
    }

    /// The coordinator's log is not carried on: says so, and keeps the evidence.
    async fn caught(&mut self, other: Option<Remembered>) {
        let Some(mine) = &self.newest else { return };
        let now = other.as_ref().map_or(0, |other| other.head.size);
        let message = format!(
            "the coordinator has rewritten its log: it signed one of {} entries on {}, and now \
             shows one of {now} that does not carry it on",
            mine.head.size, mine.head.at
        );
        tracing::error!(project = %self.project, "{message}");
        let mut evidence = Vec::new();
        for (name, head) in [("seen-before.head", Some(mine)), ("seen-now.head", other.as_ref())] {
            let Some(head) = head else { continue };
            let path = self.dir.join(name);
            let written = async {
                tokio::fs::create_dir_all(&self.dir).await?;
                tokio::fs::write(&path, &head.notice).await
            };
            match written.await {
                Ok(()) => evidence.push(path),
                Err(error) => tracing::error!(%error, "evidence cannot be written"),
            }
        }
        self.show(Some(ForkInfo { message, evidence }));
    }

    fn show(&self, fork: Option<ForkInfo>) {
        self.board.log(self.newest.as_ref().map(|newest| &newest.head).map(LogInfo::of), fork);
    }

    fn key(&self) -> Vec<u8> {
        [b"log-head/".as_slice(), &self.project.to_bytes()].concat()
    }
}

impl Remembered {
    fn new(notice: Vec<u8>) -> Option<Self> {
        let head = HeadNotice::open(&notice).ok()?.head;
        Some(Self { head, notice })
    }
}

/// What can be said of a head without asking anybody.
fn standing(newest: Option<&Head>, seen: &Notice) -> Standing {
    let Some(newest) = newest else { return Standing::Newer };
    match seen.carries_on(newest) {
        Some(true) if seen.head.size == newest.size => Standing::Known,
        Some(true) => Standing::Newer,
        Some(false) if seen.head.size == newest.size => Standing::Contradiction,
        Some(false) | None => Standing::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use dockercomp_protocol::content::Digest;
    use dockercomp_protocol::log::{Frontier, Nodes, consistency, leaf_hash};
    use dockercomp_protocol::{NodeId, Timestamp};

    use super::*;

    #[derive(Default)]
    struct Tree {
        frontier: Frontier,
        nodes: BTreeMap<(u32, u64), Digest>,
    }

    impl Nodes for Tree {
        type Error = Infallible;

        fn node(&self, height: u32, index: u64) -> Result<Digest, Infallible> {
            Ok(self.nodes[&(height, index)])
        }
    }

    fn seen(entries: &[&[u8]], since: u64) -> Notice {
        let mut tree = Tree::default();
        for entry in entries {
            let Tree { frontier, nodes } = &mut tree;
            frontier.push(leaf_hash(entry), |height, index, digest| {
                nodes.insert((height, index), digest);
            });
        }
        let node = NodeId::from_bytes(b"\0\x04node").expect("an identity hash is a peer id");
        let (size, root) = (tree.frontier.size(), tree.frontier.root());
        let head = Head { v: 1, project: node, size, root, at: Timestamp(size) };
        let proof = consistency(since, size, &tree).expect("infallible");
        Notice { head, coordinator: node, since, proof }
    }

    #[test]
    fn a_head_is_judged_by_its_proof_or_by_its_size() {
        let old = seen(&[b"a", b"b"], 0).head;
        let stands = |entries: &[&[u8]], since| standing(Some(&old), &seen(entries, since));
        assert_eq!(standing(None, &seen(&[b"x"], 0)), Standing::Newer);
        assert_eq!(stands(&[b"a", b"b"], 1), Standing::Known);
        assert_eq!(stands(&[b"a", b"b", b"c"], 2), Standing::Newer);
        assert_eq!(stands(&[b"a", b"x"], 1), Standing::Contradiction);
        // Nothing that comes by gossip proves these; the coordinator is asked.
        assert_eq!(stands(&[b"a", b"b", b"c"], 1), Standing::Unproven);
        assert_eq!(stands(&[b"a", b"x", b"c"], 2), Standing::Unproven);
        assert_eq!(stands(&[b"a"], 0), Standing::Unproven);
    }
}
