//! Receipts: sealed when a quorum agreed, stored in the same batch as the decision.

use dockercomp_protocol::envelope;
use dockercomp_protocol::receipt::Receipt;
use dockercomp_protocol::{Cid, Timestamp};
use dockercomp_store::{Row, Store, StoreError, Table};
use libp2p_identity::Keypair;
use serde_bytes::ByteBuf;

use crate::jobs::Job;

/// Who seals receipts, and by what right.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    /// The coordinator's key.
    pub(crate) key: Keypair,
    /// The project's sealed charter, which names that key.
    pub(crate) charter: Vec<u8>,
}

impl Seal {
    /// The row that makes a receipt durable.
    pub(crate) fn receipt(
        &self,
        job: &Job,
        index: u64,
        output: Cid,
        accepted_at: Timestamp,
        results: Vec<Vec<u8>>,
    ) -> Row {
        let (_, unit) = job.unit(index).expect("the core decides only units that the plan has");
        let receipt = Receipt {
            v: 1,
            charter: self.charter.clone(),
            job: job.sealed.clone(),
            unit,
            results: results.into_iter().map(ByteBuf::from).collect(),
            output,
            accepted_at,
        };
        let value = envelope::seal(&self.key, &receipt);
        Row::Put { table: Table::Receipts, key: key(&job.cid, index), value }
    }
}

/// The sealed receipts of a job, in the order of its work units. Blocking.
pub(crate) fn of_job(
    store: &Store,
    job: &Cid,
    after: Option<u64>,
    max: usize,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let after = after.map(|index| key(job, index));
    let rows = store.scan(Table::Receipts, &job.to_bytes(), after.as_deref(), max)?;
    Ok(rows.into_iter().map(|(key, value)| (index_of(&key), value)).collect())
}

fn key(job: &Cid, index: u64) -> Vec<u8> {
    [job.to_bytes(), index.to_be_bytes().to_vec()].concat()
}

fn index_of(key: &[u8]) -> u64 {
    let tail = key.last_chunk::<8>().expect("every key of a receipt ends in its number");
    u64::from_be_bytes(*tail)
}
