//! A caller of a session: what it still lacks, and what it will be told.

use std::collections::BTreeSet;

use dockercomp_protocol::content::RAW;
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::Want;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::listing::LIST_MAX;
use crate::error::FetchError;
use crate::options::{FetchOptions, Fetched, Progress};
use crate::scheduler::{Ask, Scheduler};

/// With so few blocks left of its list the next one is asked for, so that peers are not idle
/// meanwhile.
const LOW: usize = LIST_MAX / 4;

/// One caller.
pub(super) struct Waiter {
    pub(super) want: Want,
    options: FetchOptions,
    /// Taken when the outcome is told.
    reply: Option<oneshot::Sender<Result<Fetched, FetchError>>>,
    /// Blocks of its list that are not stored yet.
    missing: BTreeSet<Cid>,
    /// The store is being asked for the list.
    is_listing: bool,
    /// The last list was as long as lists are: there is more to come.
    has_more: bool,
    /// Blocks that were stored while the list was made: it may name them by mistake.
    stored_meanwhile: BTreeSet<Cid>,
    fetched: Fetched,
    progress: Progress,
    /// When its patience began.
    since: Instant,
}

impl Waiter {
    pub(super) fn new(
        want: Want,
        options: FetchOptions,
        reply: oneshot::Sender<Result<Fetched, FetchError>>,
    ) -> Self {
        Self {
            want,
            options,
            reply: Some(reply),
            missing: BTreeSet::new(),
            is_listing: false,
            has_more: false,
            stored_meanwhile: BTreeSet::new(),
            fetched: Fetched::default(),
            progress: Progress::default(),
            since: Instant::now(),
        }
    }

    /// The blocks of its list that are not stored yet.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Cid> {
        self.missing.iter()
    }

    pub(super) fn wants(&self, block: &Cid) -> bool {
        self.missing.contains(block)
    }

    /// Whether the next list is due.
    pub(super) fn is_list_done(&self) -> bool {
        let low = if self.has_more { LOW } else { 0 };
        self.missing.len() <= low && !self.is_listing
    }

    /// Whether the size of what it wants is asked for and not known.
    pub(super) fn wants_total(&self) -> bool {
        self.options.progress.is_some() && self.progress.total_bytes.is_none()
    }

    /// When its patience ends. It is not tried by our own disk.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        if self.is_listing { None } else { self.since.checked_add(self.options.patience) }
    }

    pub(super) fn on_listing(&mut self) {
        self.is_listing = true;
        self.stored_meanwhile.clear();
    }

    pub(super) fn on_listed(&mut self, missing: &[Cid], total_bytes: Option<u64>) {
        self.is_listing = false;
        self.has_more = missing.len() >= LIST_MAX;
        // What was stored before the list was made, and is not told yet, stays.
        self.missing.extend(missing);
        for block in std::mem::take(&mut self.stored_meanwhile) {
            self.missing.remove(&block);
        }
        self.progress.total_bytes = self.progress.total_bytes.or(total_bytes);
        self.publish();
        self.since = Instant::now();
    }

    /// A block was stored, for this caller or another.
    pub(super) fn on_stored(&mut self, ask: Ask, bytes: u64, scheduler: &Scheduler) {
        if self.is_listing {
            self.stored_meanwhile.insert(ask.block);
        }
        if self.missing.remove(&ask.block) {
            self.since = Instant::now();
            self.fetched.n_blocks += 1;
            *self.fetched.bytes_by_peer.entry(ask.peer).or_default() += bytes;
            if ask.block.codec() == RAW {
                self.progress.done_bytes += bytes;
                self.publish();
            }
        } else if scheduler.n_stuck() == 0
            || !self.missing.iter().any(|block| scheduler.is_stuck(block))
        {
            // Its turn will come: the peers are at work for another caller.
            self.since = Instant::now();
        }
    }

    pub(super) fn on_liar(&mut self, peer: NodeId) {
        self.fetched.liars.push(peer);
    }

    /// Nothing is missing. Tells the caller.
    pub(super) fn on_complete(&mut self, total_bytes: Option<u64>) {
        self.progress.total_bytes = self.progress.total_bytes.or(total_bytes);
        self.progress.done_bytes = self.progress.total_bytes.unwrap_or(self.progress.done_bytes);
        self.publish();
        let fetched = std::mem::take(&mut self.fetched);
        self.tell(Ok(fetched));
    }

    pub(super) fn fail(&mut self, error: FetchError) {
        self.tell(Err(error));
    }

    /// The caller may have gone: then there is nobody to tell.
    fn tell(&mut self, outcome: Result<Fetched, FetchError>) {
        if let Some(reply) = self.reply.take() {
            drop(reply.send(outcome));
        }
    }

    fn publish(&self) {
        if let Some(progress) = &self.options.progress {
            progress.send_replace(self.progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dockercomp_protocol::content::chunk_cid;

    use super::*;
    use crate::options::Options;

    fn peer() -> NodeId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([7; 32]);
        NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
    }

    /// The store may have made its list just before the block came.
    #[test]
    fn what_was_stored_while_the_list_was_made_is_not_missing() {
        let scheduler = Scheduler::new(Options::default().scheduler());
        let (reply, mut outcome) = oneshot::channel();
        let mut waiter = Waiter::new(Want::All, FetchOptions::default(), reply);
        let [stored, missing] = [chunk_cid(b"stored"), chunk_cid(b"missing")];

        waiter.on_listing();
        waiter.on_stored(Ask { peer: peer(), block: stored }, 6, &scheduler);
        waiter.on_listed(&[stored, missing], None);
        assert_eq!(waiter.missing().collect::<Vec<_>>(), [&missing]);
        assert!(!waiter.is_list_done());

        waiter.on_stored(Ask { peer: peer(), block: missing }, 7, &scheduler);
        assert!(waiter.is_list_done());
        waiter.on_complete(None);
        let fetched = outcome.try_recv().expect("an outcome").expect("a complete dataset");
        assert_eq!(fetched.bytes_by_peer.into_values().collect::<Vec<_>>(), [7]);
    }

    /// Patience is for peers: the time that our own disk takes does not count.
    #[tokio::test]
    async fn patience_rests_while_the_store_is_asked() {
        let (reply, _outcome) = oneshot::channel();
        let options = FetchOptions { patience: Duration::ZERO, progress: None };
        let mut waiter = Waiter::new(Want::All, options, reply);
        waiter.on_listing();
        assert_eq!(waiter.gives_up_at(), None);
        waiter.on_listed(&[chunk_cid(b"missing")], None);
        assert!(waiter.gives_up_at().is_some_and(|at| at <= Instant::now()));
    }
}
