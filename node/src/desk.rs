//! What a node must not forget: its leases, its unreported results, the outputs it keeps.
//!
//! ```text
//! lease ──finished──► result ──reported──► kept ──► (gone)
//! ```
//!
//! Each replica is in one of three states on disk, and each step is one synced batch, so a
//! node that is killed goes on where it was: it runs its leases again, reports its results
//! again (which is idempotent), and keeps its outputs.

use dockercomp_protocol::{Cid, ReplicaId, Timestamp, codec};
use dockercomp_store::{Row, Store, StoreError, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Rows that are read at one time.
const PAGE: usize = 256;

/// A lease as it was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    /// The work unit's description.
    #[serde(with = "serde_bytes")]
    pub(crate) unit: Vec<u8>,
    /// The owner's signed job.
    #[serde(with = "serde_bytes")]
    pub(crate) job: Vec<u8>,
    /// When it runs out, by this node's clock.
    pub(crate) expires_at: Timestamp,
    /// The coordinator's permission to have the outputs that the unit takes.
    #[serde(with = "serde_bytes", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) permission: Vec<u8>,
}

/// A result that is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResultRow {
    /// The encoded statement; it is signed together with others when it is reported.
    #[serde(with = "serde_bytes")]
    pub(crate) statement: Vec<u8>,
    /// The end of what the program printed.
    pub(crate) log_tail: String,
    /// The root of its output.
    pub(crate) output: Option<Cid>,
    /// All blocks of its output, if it is small enough to travel in the report.
    pub(crate) inline: Vec<ByteBuf>,
}

/// An output that is kept for the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRow {
    /// Its root.
    pub(crate) output: Option<Cid>,
}

/// The durable state of a node. All calls block.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    store: Store,
}

#[derive(Clone, Copy)]
enum Drawer {
    Lease,
    Result,
    Kept,
}

impl Drawer {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Lease => b"lease/",
            Self::Result => b"result/",
            Self::Kept => b"kept/",
        }
    }

    fn key(self, replica: ReplicaId) -> Vec<u8> {
        [self.prefix(), &replica.0.to_be_bytes()].concat()
    }

    fn put(self, replica: ReplicaId, value: &impl Serialize) -> Row {
        Row::Put { table: Table::Outbox, key: self.key(replica), value: codec::encode(value) }
    }

    fn delete(self, replica: ReplicaId) -> Row {
        Row::Delete { table: Table::Outbox, key: self.key(replica) }
    }
}

impl Desk {
    pub(crate) const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Remembers leases.
    pub(crate) fn leased(&self, leases: &[(ReplicaId, LeaseRow)]) -> Result<(), StoreError> {
        let rows: Vec<Row> =
            leases.iter().map(|(replica, lease)| Drawer::Lease.put(*replica, lease)).collect();
        self.store.append(&[], &rows)
    }

    /// A replica ended with a result.
    pub(crate) fn finished(
        &self,
        replica: ReplicaId,
        result: &ResultRow,
    ) -> Result<(), StoreError> {
        let rows = [Drawer::Lease.delete(replica), Drawer::Result.put(replica, result)];
        self.store.append(&[], &rows)
    }

    /// A replica ended without a result.
    pub(crate) fn dropped(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.store.append(&[], &[Drawer::Lease.delete(replica)])
    }

    /// The coordinator has these results; their outputs are kept.
    pub(crate) fn reported(&self, stored: &[(ReplicaId, KeptRow)]) -> Result<(), StoreError> {
        let rows: Vec<Row> = stored
            .iter()
            .flat_map(|(replica, kept)| {
                [Drawer::Result.delete(*replica), Drawer::Kept.put(*replica, kept)]
            })
            .collect();
        self.store.append(&[], &rows)
    }

    /// Nothing of a replica is needed any more. Gives the root of its output.
    pub(crate) fn forget(&self, replica: ReplicaId) -> Result<Option<Cid>, StoreError> {
        let kept: Option<KeptRow> = self.get(Drawer::Kept, replica)?;
        let result = self.result(replica)?;
        let rows =
            [Drawer::Lease, Drawer::Result, Drawer::Kept].map(|drawer| drawer.delete(replica));
        self.store.append(&[], &rows)?;
        Ok(kept.and_then(|kept| kept.output).or(result.and_then(|result| result.output)))
    }

    /// The result of a replica, if it is not acknowledged.
    pub(crate) fn result(&self, replica: ReplicaId) -> Result<Option<ResultRow>, StoreError> {
        self.get(Drawer::Result, replica)
    }

    /// All leases.
    pub(crate) fn leases(&self) -> Result<Vec<(ReplicaId, LeaseRow)>, StoreError> {
        self.all(Drawer::Lease)
    }

    /// All results that are not acknowledged.
    pub(crate) fn results(&self) -> Result<Vec<(ReplicaId, ResultRow)>, StoreError> {
        self.all(Drawer::Result)
    }

    /// All outputs that are kept.
    pub(crate) fn kept(&self) -> Result<Vec<(ReplicaId, KeptRow)>, StoreError> {
        self.all(Drawer::Kept)
    }

    /// Whether another replica still needs this output.
    pub(crate) fn needs(&self, output: &Cid) -> Result<bool, StoreError> {
        let kept = self.kept()?.into_iter().map(|(_, kept)| kept.output);
        let results = self.results()?.into_iter().map(|(_, result)| result.output);
        Ok(kept.chain(results).flatten().any(|root| root == *output))
    }

    fn get<T: Serialize + DeserializeOwned>(
        &self,
        drawer: Drawer,
        replica: ReplicaId,
    ) -> Result<Option<T>, StoreError> {
        let bytes = self.store.get(Table::Outbox, &drawer.key(replica))?;
        Ok(bytes.and_then(|bytes| read(&bytes)))
    }

    fn all<T: Serialize + DeserializeOwned>(
        &self,
        drawer: Drawer,
    ) -> Result<Vec<(ReplicaId, T)>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.scan(Table::Outbox, drawer.prefix(), after.as_deref(), PAGE)?;
            for (key, value) in &page {
                let number = key.last_chunk::<8>().map(|tail| u64::from_be_bytes(*tail));
                if let (Some(number), Some(row)) = (number, read(value)) {
                    all.push((ReplicaId(number), row));
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(all),
            }
        }
    }
}

/// A row that cannot be read is as good as lost: the lease runs out and another node works.
fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    codec::decode_within(bytes, usize::MAX)
        .inspect_err(|error| tracing::error!(%error, "unreadable row is ignored"))
        .ok()
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::block_cid;

    use super::*;

    #[test]
    fn a_replica_is_in_one_drawer_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), dockercomp_store::Options::default());
        let desk = Desk::new(store.expect("a store"));
        let (replica, output) = (ReplicaId(7), block_cid(b"output"));
        let (unit, job, permission) = (vec![1], vec![2], vec![3]);
        let lease = LeaseRow { unit, job, expires_at: Timestamp(3), permission };
        desk.leased(&[(replica, lease.clone())]).expect("durable");
        assert_eq!(desk.leases().expect("readable"), [(replica, lease)]);

        let result = ResultRow {
            statement: vec![4],
            log_tail: String::new(),
            output: Some(output),
            inline: vec![],
        };
        desk.finished(replica, &result).expect("durable");
        assert!(desk.leases().expect("readable").is_empty());
        assert!(desk.needs(&output).expect("readable"));

        desk.reported(&[(replica, KeptRow { output: Some(output) })]).expect("durable");
        assert!(desk.results().expect("readable").is_empty());
        assert_eq!(desk.kept().expect("readable").len(), 1);

        assert_eq!(desk.forget(replica).expect("durable"), Some(output));
        assert!(!desk.needs(&output).expect("readable"));
    }
}
