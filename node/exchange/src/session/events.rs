//! What a session does when something has happened.

use std::sync::Arc;

use dockercomp_protocol::content::{self, CidError};
use dockercomp_protocol::limits::INLINE_FILE_BYTES_MAX;
use dockercomp_protocol::{Cid, NodeId};
use dockercomp_store::StoreError;
use futures::future::FutureExt as _;
use tokio::task::spawn_blocking;

use super::listing::{Listed, list};
use super::waiter::Waiter;
use super::{Came, Join, Message, Session, Step, Stored};
use crate::dial::Dial;
use crate::error::{FetchError, LinkError};
use crate::link::{BlockAnswer, Plane};
use crate::scheduler::Ask;
use crate::swarms::digest;

impl<D: Dial> Session<D> {
    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::Providers(peers) => self.add_peers(peers),
            Message::Member(peer) => self.add_candidate(peer),
            Message::Join(join) => self.on_join(join),
        }
    }

    fn on_join(&mut self, join: Join) {
        let id = self.next_waiter;
        self.next_waiter += 1;
        self.add_peers(join.providers);
        self.waiters.insert(id, Waiter::new(join.want, join.options, join.reply));
        let left = join.left.map(move |_| Step::Left { waiter: id });
        self.steps.push(left.boxed());
        self.list(id);
    }

    fn add_peers(&mut self, peers: Vec<NodeId>) {
        for peer in peers.into_iter().filter(|peer| !self.liars.contains(peer)) {
            self.members.forget_candidate(&peer);
            self.scheduler.add_peer(peer);
        }
        self.watch_members();
    }

    /// Asks the store what a caller still lacks.
    fn list(&mut self, id: u64) {
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        waiter.on_listing();
        let (store, root) = (self.shared.store.clone(), self.root);
        let (want, with_total) = (waiter.want, waiter.wants_total());
        let listing = spawn_blocking(move || list(&store, &root, &want, with_total));
        let listing = listing.map(move |result| match result {
            Ok(result) => Step::Listed { waiter: id, result },
            Err(_) => Step::CutOff,
        });
        self.steps.push(listing.boxed());
    }

    pub(super) fn on_step(&mut self, step: Step) {
        match step {
            Step::Listed { waiter, result } => self.on_listed(waiter, result),
            Step::Left { waiter } => self.remove(waiter),
            Step::Answered { ask, result } => self.on_answered(ask, result),
            Step::Stored(all) => {
                if all.iter().any(|stored| is_small(stored.bytes)) {
                    self.is_storing_small = false;
                    self.put_small();
                }
                for stored in all {
                    self.on_stored(stored);
                }
                self.shared.swarms.stored(&digest(&self.root));
            }
            Step::Discovered { peers } => {
                self.is_discovering = false;
                self.add_peers(peers);
            }
            Step::Learned { peer, can_be_dialled } => self.on_learned(peer, can_be_dialled),
            Step::CutOff => self.fail_all(&FetchError::Interrupted { root: self.root }),
        }
    }

    fn on_listed(&mut self, id: u64, result: Result<Listed, StoreError>) {
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        match result {
            Ok(listed) if listed.missing.is_empty() => {
                waiter.on_complete(listed.total_bytes);
                self.remove(id);
            }
            Ok(listed) => {
                // A manifest may name anything, and a stranger may have made it.
                if let Err(foreign) = listed.missing.iter().try_for_each(is_ours) {
                    waiter.fail(foreign.into());
                    return self.remove(id);
                }
                waiter.on_listed(&listed.missing, listed.total_bytes);
                for block in listed.missing.into_iter().filter(|block| waiter.wants(block)) {
                    self.scheduler.want(block);
                }
                self.watch_members();
                self.list_if_done(id);
            }
            Err(source) => {
                let error = FetchError::Store { root: self.root, source: Arc::new(source) };
                waiter.fail(error);
                self.remove(id);
            }
        }
    }

    fn list_if_done(&mut self, id: u64) {
        if self.waiters.get(&id).is_some_and(Waiter::is_list_done) {
            self.list(id);
        }
    }

    fn on_answered(&mut self, ask: Ask, result: Result<(BlockAnswer, Plane), Arc<LinkError>>) {
        let Ask { peer, block } = ask;
        let now = self.now();
        match result {
            Ok((Ok(bytes), plane)) => {
                self.shared.traffic.on_down(peer, bytes.len() as u64);
                if self.scheduler.on_received(now, peer, block) {
                    self.on_came(Came { ask, plane, bytes });
                }
            }
            Ok((Err(reason), _)) => {
                if self.scheduler.on_miss(now, peer, block, reason) {
                    self.blame(peer, &LinkError::Broken);
                }
            }
            // Every open request of a broken stream ends so; the first says it for all.
            Err(_) if !self.scheduler.is_asked(peer, &block) => {}
            Err(error) if error.is_misbehaviour() => {
                self.scheduler.on_garbage(peer);
                self.blame(peer, &*error);
            }
            Err(error) => {
                tracing::debug!(%peer, root = %self.root, reason = %error, "provider is gone");
                self.scheduler.on_peer_gone(peer);
            }
        }
    }

    fn on_came(&mut self, came: Came) {
        if is_small(came.bytes.len() as u64) {
            self.small.push(came);
            self.put_small();
        } else {
            self.put(vec![came]);
        }
    }

    /// Stores all small blocks that are here together, while those that come gather.
    fn put_small(&mut self) {
        if !self.is_storing_small && !self.small.is_empty() {
            self.is_storing_small = true;
            let all = std::mem::take(&mut self.small);
            self.put(all);
        }
    }

    /// Has blocks verified and stored, away from the loop.
    fn put(&mut self, all: Vec<Came>) {
        let (store, root) = (self.shared.store.clone(), self.root);
        let putting = spawn_blocking(move || {
            let blocks: Vec<_> =
                all.iter().map(|came| (came.ask.block, came.bytes.clone())).collect();
            let results = store.put_many(&root, &blocks);
            let stored = |(came, result): (Came, _)| {
                let Came { ask, plane, bytes } = came;
                Stored { ask, plane, bytes: bytes.len() as u64, result }
            };
            all.into_iter().zip(results).map(stored).collect()
        });
        let putting = putting.map(|stored| stored.map_or(Step::CutOff, Step::Stored));
        self.steps.push(putting.boxed());
    }

    fn on_stored(&mut self, Stored { ask, plane, bytes, result }: Stored) {
        match result {
            Ok(()) => {
                self.scheduler.on_block(ask.peer, ask.block);
                self.retry_pause = self.shared.options.retry_first;
                let ids: Vec<u64> = self.waiters.keys().copied().collect();
                for id in ids {
                    if let Some(waiter) = self.waiters.get_mut(&id) {
                        waiter.on_stored(ask, bytes, &self.scheduler);
                    }
                    self.list_if_done(id);
                }
            }
            // Anybody on the way may have done it: it is asked for again where blame is sure.
            Err(error) if error.is_senders_fault() && plane == Plane::Plain => {
                tracing::warn!(peer = %ask.peer, reason = %error, "wrong bytes over plain TCP");
                self.shared.links.seal(ask.peer);
                self.scheduler.on_lost(ask.peer, ask.block);
            }
            Err(error) if error.is_senders_fault() => {
                self.scheduler.on_wrong_bytes(ask.peer, ask.block);
                self.blame(ask.peer, &error);
            }
            Err(error) => {
                let source = Arc::new(error);
                self.fail_all(&FetchError::Put { root: self.root, source });
            }
        }
    }

    /// Counts what a peer did, closes the stream to it, and tells it once: to the log, and to
    /// all callers.
    pub(super) fn blame(&mut self, peer: NodeId, what: &dyn std::error::Error) {
        self.shared.traffic.on_wrong(peer);
        self.shared.links.cut(&peer);
        if self.liars.insert(peer) {
            let root = self.root;
            tracing::warn!(%peer, %root, reason = %what, "provider lied, not asked again");
            for waiter in self.waiters.values_mut() {
                waiter.on_liar(peer);
            }
        }
    }
}

/// Whether a block is so small that handing it to another thread costs more than storing it.
const fn is_small(bytes: u64) -> bool {
    bytes <= INLINE_FILE_BYTES_MAX
}

fn is_ours(block: &Cid) -> Result<(), CidError> {
    content::digest(block).map(drop)
}
