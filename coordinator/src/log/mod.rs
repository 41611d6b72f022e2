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

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::block_cid;
    use dockercomp_protocol::log::HeadNotice;
    use dockercomp_protocol::receipt::Basis;
    use dockercomp_protocol::statement::Charter;
    use dockercomp_store::Options;
    use libp2p_identity::Keypair;

    use super::*;

    struct Project {
        store: Store,
        seal: Arc<Seal>,
        id: ProjectId,
        _folder: tempfile::TempDir,
    }

    impl Project {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let store = Store::open(folder.path(), Options::default()).expect("a store");
            let [owner, key] = [1, 2]
                .map(|seed| Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a seed"));
            let id = owner.public().to_peer_id();
            let coordinator = key.public().to_peer_id();
            let charter = Charter { v: 1, project: id, name: "p".into(), coordinator };
            let seal = Seal { key, charter: envelope::seal(&owner, &charter) };
            Self { store, seal: Arc::new(seal), id, _folder: folder }
        }

        fn load(&self) -> Result<(Log, Heads), LogError> {
            Log::load(&self.store, self.id, Arc::clone(&self.seal))
        }

        /// Appends entries and commits them, one batch.
        fn commit(&self, log: &mut Log, indices: std::ops::Range<u64>) {
            let entry = |index| {
                let (job, output) = (block_cid(b"job"), block_cid(b"output"));
                let (at, basis) = (Timestamp(index), Basis::Quorum);
                receipts::entry(job, index, Vec::new(), output, at, basis, Vec::new())
            };
            let mut rows: Vec<Row> = indices.map(|index| log.append(&entry(index))).collect();
            let head = log.close(Timestamp(1000), &mut rows);
            self.store.append(&[], &rows).expect("durable");
            log.publish(head);
        }
    }

    #[test]
    fn a_log_is_carried_on_over_restarts_and_shown_only_when_it_is_durable() {
        let project = Project::new();
        let (mut log, heads) = project.load().expect("an empty log");
        assert!(heads.newest().is_none());
        assert!(log.close(Timestamp(1), &mut Vec::new()).is_none(), "nothing to sign");
        project.commit(&mut log, 0..300);
        let first = heads.newest().expect("a head");
        assert_eq!(first.head.size, 300);

        let (mut log, heads) = project.load().expect("it leads to its head");
        assert_eq!(heads.newest().expect("a head").sealed, first.sealed);
        // A batch that was closed but is not on disk yet is shown to nobody.
        let mut rows = vec![log.append(&receipts::entry(
            block_cid(b"job"),
            300,
            Vec::new(),
            block_cid(b"output"),
            Timestamp(300),
            Basis::Quorum,
            Vec::new(),
        ))];
        let closed = log.close(Timestamp(1001), &mut rows);
        assert_eq!(heads.newest().expect("a head").head.size, 300);
        project.store.append(&[], &rows).expect("durable");
        log.publish(closed);

        let newest = heads.newest().expect("a head");
        let notice = heads.notice(&newest, 300).expect("a proof");
        let notice = HeadNotice::open(&codec::encode(&notice)).expect("rightly signed");
        assert_eq!(notice.carries_on(&first.head), Some(true));
        // Whoever saw a longer log is shown that this one is shorter.
        assert_eq!(heads.notice(&newest, 999).expect("a notice").since, 301);
    }

    #[test]
    fn a_damaged_log_is_not_carried_on() {
        let project = Project::new();
        let (mut log, _) = project.load().expect("an empty log");
        project.commit(&mut log, 0..300);
        let scanned = project.store.scan(Table::Log, &[1], None, 10).expect("readable");
        assert_eq!(scanned.len(), 3, "a full tile, an open one, and one above");
        for (key, value) in scanned {
            let put = |value: Vec<u8>| {
                let row = Row::Put { table: Table::Log, key: key.clone(), value };
                project.store.append(&[], &[row]).expect("durable");
            };
            let mut changed = value.clone();
            changed[7] ^= 1;
            put(changed);
            // The hashes of a full tile are not read again: its root lies above it.
            let is_full = value.len() == 256 * 32;
            match project.load() {
                Err(LogError::Root { size: 300 }) => assert!(!is_full),
                Err(error) => panic!("{error}"),
                Ok(_) => assert!(is_full),
            }
            put(value[..16].to_vec());
            assert!(is_full || matches!(project.load(), Err(LogError::Tile { .. })));
            put(value);
        }
        assert!(project.load().is_ok());
    }
}
