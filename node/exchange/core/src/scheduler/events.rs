//! What peers did, and what follows from it.

use dockercomp_protocol::wire::chunk::Miss;
use dockercomp_protocol::{Cid, NodeId, Timestamp};

use super::peer::{Peer, Said, Standing};
use super::{Ask, Asked, BROKEN_MAX, Scheduler, State};

impl Scheduler {
    /// The peer has sent the block. `true` if it was asked to: then the bytes are to be verified
    /// and stored. `false` if the answer comes too late to be of use.
    pub fn on_received(&mut self, now: Timestamp, peer: NodeId, block: Cid) -> bool {
        let Some(asked_at) = self.asked_at(peer, &block) else { return false };
        let entry = self.blocks.get_mut(&block).expect("a block that was asked for is known");
        let before = std::mem::replace(&mut entry.state, State::Held { peer });
        if let State::Asked(asked) = before {
            for other in asked.into_iter().filter(|asked| asked.peer != peer) {
                self.stop(other, block);
            }
        }
        let per_peer = self.options.per_peer;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.on_answered(now);
            known.on_measured(now.since(asked_at), per_peer);
        }
        true
    }

    fn stop(&mut self, asked: Asked, block: Cid) {
        if let Some(known) = self.peers.get_mut(&asked.peer) {
            known.on_stopped();
        }
        self.stops.push_back(Ask { peer: asked.peer, block });
    }

    /// The block that the peer sent is verified and stored. Nothing more is done about it.
    pub fn on_block(&mut self, peer: NodeId, block: Cid) {
        if self.blocks.get(&block).is_some_and(|entry| entry.state == State::Held { peer }) {
            let entry = self.blocks.remove(&block).expect("just found");
            self.n_open -= 1;
            if entry.list == 0 {
                self.n_unlisted = self.n_unlisted.saturating_sub(1);
            }
        }
    }

    /// The peer does not send the block, and says why. `true` if it has broken its word once too
    /// often, and is not asked any more.
    pub fn on_miss(&mut self, now: Timestamp, peer: NodeId, block: Cid, reason: Miss) -> bool {
        if self.asked_at(peer, &block).is_none() {
            return false;
        }
        let has_promised = self.has_promised(&peer, &block);
        let busy_until = now + self.options.busy_pause;
        let Some(number) = self.peers.number(&peer) else { return false };
        let known = self.peers.by_number(number);
        known.on_answered(now);
        let mut is_liar = false;
        match reason {
            Miss::Busy => known.on_busy(busy_until),
            // Another caller's request for the same block was stopped.
            Miss::Stopped => {}
            Miss::NotFound | Miss::Denied => {
                known.n_broken += usize::from(has_promised);
                is_liar = known.n_broken > BROKEN_MAX;
                if let Some(entry) = self.blocks.get_mut(&block) {
                    entry.lacking.insert(number);
                }
            }
        }
        self.withdraw(peer, block);
        if is_liar {
            self.lose(peer, Standing::Liar);
        }
        is_liar
    }

    /// The bytes that the peer sent for the block are wrong: it is never asked again, and what it
    /// was asked for goes to others. Blocks of it that are here already are judged on their own.
    pub fn on_wrong_bytes(&mut self, peer: NodeId, block: Cid) {
        self.lose(peer, Standing::Liar);
        if self.blocks.get(&block).is_some_and(|entry| entry.state == State::Held { peer }) {
            self.release(block);
        }
    }

    /// The bytes for the block are wrong, and who made them so is not known: it is asked for
    /// again, of that peer or another.
    pub fn on_lost(&mut self, peer: NodeId, block: Cid) {
        if self.blocks.get(&block).is_some_and(|entry| entry.state == State::Held { peer }) {
            self.release(block);
        }
    }

    /// The peer broke the protocol: it is never asked again.
    pub fn on_garbage(&mut self, peer: NodeId) {
        self.lose(peer, Standing::Liar);
    }

    /// The peer cannot be reached any more. What it was asked for goes to others.
    pub fn on_peer_gone(&mut self, peer: NodeId) {
        if self.peers.get(&peer).is_some_and(|known| known.standing == Standing::Active) {
            self.lose(peer, Standing::Gone);
        }
    }

    /// The time of [`Self::next_deadline`] has come. Returns the peers that were silent for too
    /// long; they count as gone.
    pub fn on_timeout(&mut self, now: Timestamp) -> Vec<NodeId> {
        let silence_max = self.options.silence_max;
        let overdue = |peer: &Peer| peer.overdue_at(silence_max).is_some_and(|at| at <= now);
        let silent: Vec<NodeId> =
            self.peers.iter().filter(|peer| overdue(peer)).map(|peer| peer.id).collect();
        for peer in &silent {
            self.on_peer_gone(*peer);
        }
        silent
    }

    /// Takes a peer out, and gives what it was asked for to others.
    fn lose(&mut self, peer: NodeId, standing: Standing) {
        let asked: Vec<Cid> =
            self.blocks.keys().filter(|block| self.is_asked(peer, block)).copied().collect();
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.standing = standing;
        known.said = Said::Nothing;
        known.n_open = 0;
        known.busy_until = None;
        for block in asked {
            self.withdraw(peer, block);
        }
        // It may have been the last hope of blocks that wait.
        self.replace_all();
    }

    /// Takes a request back: the block waits, unless another peer is asked for it.
    fn withdraw(&mut self, peer: NodeId, block: Cid) {
        let Some(entry) = self.blocks.get_mut(&block) else { return };
        let State::Asked(asked) = &mut entry.state else { return };
        asked.retain(|asked| asked.peer != peer);
        if asked.is_empty() {
            self.release(block);
        }
    }

    /// Makes a block wait that was asked for or held.
    fn release(&mut self, block: Cid) {
        if let Some(entry) = self.blocks.get_mut(&block) {
            entry.state = State::Waiting;
            self.n_open -= 1;
            self.place(block);
        }
    }
}
