//! What is stored of a receipt, and receipts put together again.
//!
//! ```text
//! key    job | number of the work unit u64
//! value  number of the leaf u64 | entry
//! ```
//!
//! Charter, job and head are the same for many receipts and are kept once; path and head are
//! those of the time at which a receipt is asked for.

use dockercomp_protocol::log::inclusion;
use dockercomp_protocol::receipt::{Basis, Entry, Receipt};
use dockercomp_protocol::wire::permit::Permission;
use dockercomp_protocol::{Cid, NodeId, Timestamp, envelope};
use dockercomp_store::{Row, Store, StoreError, Table};
use libp2p_identity::Keypair;
use serde_bytes::ByteBuf;

use crate::jobs::Job;
use crate::log::{LogError, SealedHead, Tiles};

/// Who signs the heads of the log, and by what right.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    /// The coordinator's key.
    pub(crate) key: Keypair,
    /// The project's sealed charter, which names that key.
    pub(crate) charter: Vec<u8>,
}

impl Seal {
    /// Lets a node have the outputs that a lease of it takes; nothing if it takes none.
    pub(crate) fn permission(&self, asker: NodeId, outputs: Vec<Cid>) -> Vec<u8> {
        if outputs.is_empty() {
            return Vec::new();
        }
        envelope::seal(&self.key, &Permission { v: 1, asker, outputs })
    }
}

/// What is stored of one receipt.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The work unit's number.
    pub(crate) index: u64,
    leaf: u64,
    /// The encoded [`Entry`].
    pub(crate) entry: Vec<u8>,
}

/// The entry of a work unit that took these outputs of others.
pub(crate) fn entry(
    job: Cid,
    index: u64,
    inputs: Vec<Cid>,
    output: Cid,
    accepted_at: Timestamp,
    basis: Basis,
    results: Vec<Vec<u8>>,
) -> Entry {
    Entry {
        v: Entry::VERSION,
        job,
        index,
        inputs,
        output,
        accepted_at,
        basis,
        results: results.into_iter().map(ByteBuf::from).collect(),
    }
}

/// The row that keeps an entry.
pub(crate) fn row(job: &Cid, index: u64, leaf: u64, entry: &[u8]) -> Row {
    let value = [&leaf.to_be_bytes(), entry].concat();
    Row::Put { table: Table::Receipts, key: key(job, index), value }
}

/// What is stored of a job's receipts, in the order of its work units. Blocking.
pub(crate) fn of_job(
    store: &Store,
    job: &Cid,
    after: Option<u64>,
    max: usize,
) -> Result<Vec<Stored>, StoreError> {
    let after = after.map(|index| key(job, index));
    let rows = store.scan(Table::Receipts, &job.to_bytes(), after.as_deref(), max)?;
    Ok(rows.into_iter().map(|(key, value)| stored(index_of(&key), &value)).collect())
}

fn stored(index: u64, value: &[u8]) -> Stored {
    let (leaf, entry) = value.split_first_chunk::<8>().expect("every row begins with a leaf");
    Stored { index, leaf: u64::from_be_bytes(*leaf), entry: entry.to_vec() }
}

/// What is stored of the receipt of one work unit. Blocking.
pub(crate) fn of_unit(store: &Store, job: &Cid, index: u64) -> Result<Option<Stored>, StoreError> {
    let value = store.get(Table::Receipts, &key(job, index))?;
    Ok(value.map(|value| stored(index, &value)))
}

/// The receipt of a stored entry under a head, as a file; nothing if the head is older than
/// the entry. Blocking.
pub(crate) fn receipt(
    stored: &Stored,
    job: &Job,
    seal: &Seal,
    head: &SealedHead,
    tiles: &Tiles<'_>,
) -> Result<Option<Vec<u8>>, LogError> {
    if stored.leaf >= head.head.size {
        return Ok(None);
    }
    let receipt = Receipt {
        leaf: stored.leaf,
        charter: seal.charter.clone(),
        job: job.sealed.clone(),
        entry: stored.entry.clone(),
        path: inclusion(stored.leaf, head.head.size, tiles)?,
        head: head.sealed.clone(),
    };
    Ok(Some(receipt.encode()))
}

fn key(job: &Cid, index: u64) -> Vec<u8> {
    [job.to_bytes(), index.to_be_bytes().to_vec()].concat()
}

fn index_of(key: &[u8]) -> u64 {
    let tail = key.last_chunk::<8>().expect("every key of a receipt ends in its number");
    u64::from_be_bytes(*tail)
}
