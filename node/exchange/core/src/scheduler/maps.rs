//! What peers say that they hold.
//!
//! ```text
//! new_list ──► asked of each peer ──► on_holds_all | on_map, then on_have … ──► on_quiet
//! ```
//!
//! A word costs nothing, so it decides only whom to ask. A peer that breaks it too often is
//! dropped: see [`Scheduler::on_miss`].

use std::collections::BTreeSet;

use dockercomp_protocol::limits::SWARM_LIST_MAX;
use dockercomp_protocol::{Cid, NodeId};

use super::peer::Said;
use super::{Scheduler, Standing, State};

/// Ask peers which of these blocks they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Its number. Each is larger than those before.
    pub number: u32,
    /// Blocks that are not here, at most [`SWARM_LIST_MAX`].
    pub blocks: Vec<Cid>,
}

impl Scheduler {
    /// The next list, if blocks are wanted that none has named. It replaces the one before.
    pub fn new_list(&mut self) -> Option<List> {
        if self.n_unlisted == 0 {
            return None;
        }
        self.list += 1;
        let wanted = self.blocks.iter_mut().filter(|(_, entry)| match entry.state {
            State::Waiting | State::Asked(_) => true,
            State::Held { .. } => false,
        });
        let mut blocks = Vec::new();
        for (block, entry) in wanted.take(SWARM_LIST_MAX) {
            if entry.list == 0 {
                entry.list = self.list;
            }
            blocks.push(*block);
        }
        // What had no place on it is asked of anybody, until more is wanted.
        self.n_unlisted = 0;
        self.replace_all();
        Some(List { number: self.list, blocks })
    }

    /// The peer says that it holds the whole dataset.
    pub fn on_holds_all(&mut self, peer: NodeId) {
        self.on_said(peer, Said::All);
    }

    /// The peer says which blocks of a list it holds. Who has said that it holds everything may
    /// still answer a list that was sent before: that is no news.
    pub fn on_map(&mut self, peer: NodeId, list: &List, held: &[Cid]) {
        let Some(number) = self.peers.number(&peer) else { return };
        if self.peers.by_number(number).said == Said::All {
            return;
        }
        let held: BTreeSet<&Cid> = held.iter().collect();
        for block in &list.blocks {
            let Some(entry) = self.blocks.get_mut(block) else { continue };
            if held.contains(block) {
                entry.holders.insert(number);
            } else {
                entry.holders.remove(number);
            }
        }
        self.on_said(peer, Said::Lists(list.number));
    }

    /// The peer says that it has got these blocks.
    pub fn on_have(&mut self, peer: NodeId, blocks: &[Cid]) {
        let Some(number) = self.peers.number(&peer) else { return };
        let sets = self.by_what_they_say();
        for block in blocks {
            let Some(entry) = self.blocks.get_mut(block) else { continue };
            entry.holders.insert(number);
            entry.lacking.remove(number);
            self.place_by(*block, sets);
        }
    }

    /// The peer does not say any more what it holds.
    pub fn on_quiet(&mut self, peer: NodeId) {
        self.on_said(peer, Said::Nothing);
    }

    fn on_said(&mut self, peer: NodeId, said: Said) {
        if let Some(known) = self.peers.get_mut(&peer)
            && known.standing == Standing::Active
        {
            known.said = said;
            self.replace_all();
        }
    }

    /// Whether the peer said that it holds the block.
    pub(super) fn has_promised(&self, peer: &NodeId, block: &Cid) -> bool {
        let (Some(number), Some(entry)) = (self.peers.number(peer), self.blocks.get(block)) else {
            return false;
        };
        match self.peers.get(peer).map(|known| known.said) {
            Some(Said::All) => true,
            Some(Said::Lists(_)) => entry.holders.contains(number),
            Some(Said::Nothing) | None => false,
        }
    }
}
