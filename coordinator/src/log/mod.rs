//! The project's log: where accepted work units become leaves, and heads are signed.
//!
//! ```text
//! decider: accept, accept, … ──► close: tiles, one signed head ──► the batch's commit
//!                                                                     │ durable
//! nodes ◄── gossip, work RPC, API ◄── Heads: newest head, proofs ◄────┘
//! ```
//!
//! The rows of a batch's entries, its tiles and its head are written together with the records
//! of the journal, so log and journal never disagree; a head is shown to nobody before it is
//! durable, so a crash cannot make two heads of one size.
//!
//! # What it costs
//!
//! An entry is encoded and hashed once, and completes one inner node on average; a batch has
//! one signature and rewrites at most one row of up to 8 KiB for each level that it touched
//! (three levels hold 16 million entries).

mod heads;
mod tiles;

use std::sync::Arc;

use dockercomp_protocol::content::Digest;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::log::{Head, HeadError, leaf_hash};
use dockercomp_protocol::receipt::Entry;
use dockercomp_protocol::{Timestamp, codec, envelope};
use dockercomp_store::{Row, Store, StoreError, Table};
use tokio::sync::watch;

pub(crate) use self::heads::Heads;
pub(crate) use self::tiles::Tiles;

use self::tiles::Edge;
use crate::receipts::{self, Seal};

/// The key of the newest head.
const HEAD_KEY: &[u8] = &[0];

/// Why the log cannot be read or carried on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The store failed.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// The signed head is not right.
    #[error("the signed head of the log is not right")]
    Head(#[from] HeadError),
    /// Nodes of the tree are gone.
    #[error("tile {number} of level {level} of the log is damaged or missing")]
    Tile {
        /// Its level.
        level: u32,
        /// Its number in it.
        number: u64,
    },
    /// The tree is not the one that was signed.
    #[error("the log of {size} entries does not lead to the root that was signed")]
    Root {
        /// How many entries the head speaks of.
        size: u64,
    },
}

/// A signed head.
#[derive(Clone, Debug)]
pub(crate) struct SealedHead {
    pub(crate) head: Head,
    pub(crate) sealed: Vec<u8>,
}

/// The newest head, if anything was accepted yet.
type Newest = Option<Arc<SealedHead>>;

/// The log's right edge; the decider owns it.
pub(crate) struct Log {
    project: ProjectId,
    seal: Arc<Seal>,
    edge: Edge,
    /// How many entries the last closed batch ended with.
    closed: u64,
    newest: watch::Sender<Newest>,
}

impl Log {
    /// Reads the log's edge and checks it against the head that was signed. Blocking.
    pub(crate) fn load(
        store: &Store,
        project: ProjectId,
        seal: Arc<Seal>,
    ) -> Result<(Self, Heads), LogError> {
        let coordinator = seal.key.public().to_peer_id();
        let newest = match store.get(Table::Log, HEAD_KEY)? {
            None => None,
            Some(sealed) => {
                let head = Head::open_for(&sealed, project, coordinator)?;
                Some(Arc::new(SealedHead { head, sealed }))
            }
        };
        let size = newest.as_ref().map_or(0, |newest| newest.head.size);
        let edge = Edge::load(store, size)?;
        if newest.as_ref().is_some_and(|newest| newest.head.root != edge.root()) {
            return Err(LogError::Root { size });
        }
        let (newest, receiver) = watch::channel(newest);
        let heads = Heads::new(store.clone(), Arc::clone(&seal), receiver);
        Ok((Self { project, seal, edge, closed: size, newest }, heads))
    }

    /// Appends an entry, and gives the row that keeps it.
    pub(crate) fn append(&mut self, entry: &Entry) -> Row {
        let bytes = codec::encode(entry);
        let leaf = self.edge.size();
        self.edge.push(leaf_hash(&bytes));
        receipts::row(&entry.job, entry.index, leaf, &bytes)
    }

    /// Closes a batch: signs a head and adds it and what changed of the tree to its rows.
    /// Nothing if nothing was appended.
    pub(crate) fn close(&mut self, at: Timestamp, rows: &mut Vec<Row>) -> Newest {
        let size = self.edge.size();
        if size == self.closed {
            return None;
        }
        self.closed = size;
        let root: Digest = self.edge.root();
        let head = Head { v: 1, project: self.project, size, root, at };
        let sealed = envelope::seal(&self.seal.key, &head);
        rows.extend(self.edge.rows());
        rows.push(Row::Put { table: Table::Log, key: HEAD_KEY.to_vec(), value: sealed.clone() });
        Some(Arc::new(SealedHead { head, sealed }))
    }

    /// Makes a head visible whose batch is durable.
    pub(crate) fn publish(&self, head: Newest) {
        if head.is_some() {
            self.newest.send_replace(head);
        }
    }
}
