//! What failing programs printed last, for the owner of the job.
//!
//! One tail for each work unit, the latest, in the store beside the jobs.

use dockercomp_protocol::{Cid, NodeId, codec};
use dockercomp_store::{Row, Store, Table};
use serde::{Deserialize, Serialize};

/// The end of what a failing replica printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tail {
    /// Who ran it.
    pub(crate) node: NodeId,
    /// What it printed.
    pub(crate) text: String,
}

impl Tail {
    /// A tail that is safe to print: a node may send anything, a terminal obeys some of it.
    pub(crate) fn new(node: NodeId, text: &str) -> Self {
        let safe = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
        Self { node, text: text.chars().map(safe).collect() }
    }
}

/// The row that keeps it.
pub(crate) fn row(job: &Cid, index: u64, tail: &Tail) -> Row {
    Row::Put { table: Table::Meta, key: key(job, index), value: codec::encode(tail) }
}

/// The latest tail of a work unit. Blocking.
pub(crate) fn of_unit(store: &Store, job: &Cid, index: u64) -> Option<Tail> {
    let bytes = store.get(Table::Meta, &key(job, index)).ok()??;
    codec::decode(&bytes).ok()
}

fn key(job: &Cid, index: u64) -> Vec<u8> {
    [b"log/".as_slice(), &job.to_bytes(), &index.to_be_bytes()].concat()
}
