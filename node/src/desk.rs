//! What a node must not forget of one project: its leases, its unreported results, the outputs
//! it keeps.
//!
//! ```text
//! lease ──finished──► result ──reported──► kept ──► (gone)
//! ```
//!
//! Each replica is in one of three states on disk, and each step is one synced batch, so a
//! node that is killed goes on where it was: it runs its leases again, reports its results
//! again (which is idempotent), and keeps its outputs.
//!
//! Replicas are numbered by each coordinator, so every key begins with the project. Keys of
//! before a node could have several projects do not, and [`Desk::adopt`] takes them over.

use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::{Cid, ReplicaId, Timestamp, codec};
use dockercomp_store::{Row, Store, StoreError, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A key and its value.
type Stored = (Vec<u8>, Vec<u8>);

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

/// The durable state of a node's work for one project. All calls block.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    store: Store,
    project: ProjectId,
}

#[derive(Clone, Copy)]
enum Drawer {
    Lease,
    Result,
    Kept,
}

impl Drawer {
    const ALL: [Self; 3] = [Self::Lease, Self::Result, Self::Kept];

    /// What its keys began with when a node had one project.
    const fn old_prefix(self) -> &'static [u8] {
        match self {
            Self::Lease => b"lease/",
            Self::Result => b"result/",
            Self::Kept => b"kept/",
        }
    }

    /// What its keys begin with. Ids of projects say how long they are, so none is the
    /// beginning of another.
    fn prefix(self, project: &ProjectId) -> Vec<u8> {
        [b"project/", project.to_bytes().as_slice(), b"/", self.old_prefix()].concat()
    }
}

impl Desk {
    pub(crate) const fn new(store: Store, project: ProjectId) -> Self {
        Self { store, project }
    }

    /// Takes over what was left when this node could have one project only. If it was
    /// another one's, its coordinator says so when it hears of it, and it is forgotten.
    pub(crate) fn adopt(&self) -> Result<(), StoreError> {
        for drawer in Drawer::ALL {
            for (key, value) in self.rows(drawer.old_prefix())? {
                let number = &key[drawer.old_prefix().len()..];
                let new = [drawer.prefix(&self.project).as_slice(), number].concat();
                let rows = [
                    Row::Put { table: Table::Outbox, key: new, value },
                    Row::Delete { table: Table::Outbox, key },
                ];
                self.store.append(&[], &rows)?;
            }
        }
        Ok(())
    }

    /// Forgets everything of the project, and gives the roots of the outputs that were kept.
    pub(crate) fn clear(&self) -> Result<Vec<Cid>, StoreError> {
        let outputs = self.outputs()?;
        for drawer in Drawer::ALL {
            let rows: Vec<Row> = self
                .rows(&drawer.prefix(&self.project))?
                .into_iter()
                .map(|(key, _)| Row::Delete { table: Table::Outbox, key })
                .collect();
            self.store.append(&[], &rows)?;
        }
        Ok(outputs)
    }

    /// Remembers leases.
    pub(crate) fn leased(&self, leases: &[(ReplicaId, LeaseRow)]) -> Result<(), StoreError> {
        let rows: Vec<Row> = leases
            .iter()
            .map(|(replica, lease)| self.put(Drawer::Lease, *replica, lease))
            .collect();
        self.store.append(&[], &rows)
    }

    /// A replica ended with a result.
    pub(crate) fn finished(
        &self,
        replica: ReplicaId,
        result: &ResultRow,
    ) -> Result<(), StoreError> {
        let rows = [self.delete(Drawer::Lease, replica), self.put(Drawer::Result, replica, result)];
        self.store.append(&[], &rows)
    }

    /// A replica ended without a result.
    pub(crate) fn dropped(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.store.append(&[], &[self.delete(Drawer::Lease, replica)])
    }

    /// The coordinator has these results; their outputs are kept.
    pub(crate) fn reported(&self, stored: &[(ReplicaId, KeptRow)]) -> Result<(), StoreError> {
        let rows: Vec<Row> = stored
            .iter()
            .flat_map(|(replica, kept)| {
                [self.delete(Drawer::Result, *replica), self.put(Drawer::Kept, *replica, kept)]
            })
            .collect();
        self.store.append(&[], &rows)
    }

    /// Nothing of a replica is needed any more. Gives the root of its output.
    pub(crate) fn forget(&self, replica: ReplicaId) -> Result<Option<Cid>, StoreError> {
        let kept: Option<KeptRow> = self.get(Drawer::Kept, replica)?;
        let result = self.result(replica)?;
        let rows = Drawer::ALL.map(|drawer| self.delete(drawer, replica));
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

    /// The outputs of all results and of all that is kept.
    pub(crate) fn outputs(&self) -> Result<Vec<Cid>, StoreError> {
        let kept = self.kept()?.into_iter().map(|(_, kept)| kept.output);
        let results = self.results()?.into_iter().map(|(_, result)| result.output);
        Ok(kept.chain(results).flatten().collect())
    }

    fn key(&self, drawer: Drawer, replica: ReplicaId) -> Vec<u8> {
        [drawer.prefix(&self.project).as_slice(), &replica.0.to_be_bytes()].concat()
    }

    fn put(&self, drawer: Drawer, replica: ReplicaId, value: &impl Serialize) -> Row {
        let (key, value) = (self.key(drawer, replica), codec::encode(value));
        Row::Put { table: Table::Outbox, key, value }
    }

    fn delete(&self, drawer: Drawer, replica: ReplicaId) -> Row {
        Row::Delete { table: Table::Outbox, key: self.key(drawer, replica) }
    }

    fn get<T: Serialize + DeserializeOwned>(
        &self,
        drawer: Drawer,
        replica: ReplicaId,
    ) -> Result<Option<T>, StoreError> {
        let bytes = self.store.get(Table::Outbox, &self.key(drawer, replica))?;
        Ok(bytes.and_then(|bytes| read(&bytes)))
    }

    fn all<T: Serialize + DeserializeOwned>(
        &self,
        drawer: Drawer,
    ) -> Result<Vec<(ReplicaId, T)>, StoreError> {
        let rows = self.rows(&drawer.prefix(&self.project))?.into_iter();
        let row = |(key, value): Stored| {
            let number = u64::from_be_bytes(*key.last_chunk::<8>()?);
            Some((ReplicaId(number), read(&value)?))
        };
        Ok(rows.filter_map(row).collect())
    }

    /// All rows whose keys begin so.
    fn rows(&self, prefix: &[u8]) -> Result<Vec<Stored>, StoreError> {
        let mut all: Vec<Stored> = Vec::new();
        loop {
            let after = all.last().map(|(key, _)| key.clone());
            let page = self.store.scan(Table::Outbox, prefix, after.as_deref(), PAGE)?;
            let is_last = page.len() < PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }
}

/// A row that cannot be read is as good as lost: the lease runs out and another node works.
pub(crate) fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    codec::decode_within(bytes, usize::MAX)
        .inspect_err(|error| tracing::error!(%error, "unreadable row is ignored"))
        .ok()
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::block_cid;

    use super::*;

    fn store(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path(), dockercomp_store::Options::default()).expect("a store")
    }

    fn project(name: u8) -> ProjectId {
        // An identity hash is a peer id.
        ProjectId::from_bytes(&[0, 4, b'p', b'r', b'o', name]).expect("an identity hash")
    }

    fn lease() -> LeaseRow {
        let (unit, job, permission) = (vec![1], vec![2], vec![3]);
        LeaseRow { unit, job, expires_at: Timestamp(3), permission }
    }

    fn result(output: Cid) -> ResultRow {
        let (output, inline) = (Some(output), vec![]);
        ResultRow { statement: vec![4], log_tail: String::new(), output, inline }
    }

    #[test]
    fn a_replica_is_in_one_drawer_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = Desk::new(store(&dir), project(1));
        let (replica, output) = (ReplicaId(7), block_cid(b"output"));
        desk.leased(&[(replica, lease())]).expect("durable");
        assert_eq!(desk.leases().expect("readable"), [(replica, lease())]);

        desk.finished(replica, &result(output)).expect("durable");
        assert!(desk.leases().expect("readable").is_empty());
        assert_eq!(desk.outputs().expect("readable"), [output]);

        desk.reported(&[(replica, KeptRow { output: Some(output) })]).expect("durable");
        assert!(desk.results().expect("readable").is_empty());
        assert_eq!(desk.kept().expect("readable").len(), 1);

        assert_eq!(desk.forget(replica).expect("durable"), Some(output));
        assert!(desk.outputs().expect("readable").is_empty());
    }

    /// Coordinators number their replicas alike.
    #[test]
    fn projects_have_desks_of_their_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let [mine, yours] = [1, 2].map(|name| Desk::new(store.clone(), project(name)));
        let [one, other] = [b"one", b"two"].map(|name| block_cid(name));
        mine.finished(ReplicaId(1), &result(one)).expect("durable");
        yours.finished(ReplicaId(1), &result(other)).expect("durable");
        mine.leased(&[(ReplicaId(2), lease())]).expect("durable");
        assert_eq!(mine.clear().expect("durable"), [one]);
        assert!(mine.leases().expect("readable").is_empty());
        assert!(mine.outputs().expect("readable").is_empty());
        assert_eq!(yours.outputs().expect("readable"), [other]);
    }

    /// A directory that was written when a node had one project.
    #[test]
    fn what_was_left_for_the_only_project_is_taken_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let old = |prefix: &[u8], number: u64, value: Vec<u8>| Row::Put {
            table: Table::Outbox,
            key: [prefix, &number.to_be_bytes()].concat(),
            value,
        };
        let output = block_cid(b"output");
        let rows = [
            old(b"lease/", 1, codec::encode(&lease())),
            old(b"result/", 2, codec::encode(&result(output))),
            old(b"kept/", 3, codec::encode(&KeptRow { output: None })),
        ];
        store.append(&[], &rows).expect("durable");
        let desk = Desk::new(store.clone(), project(1));
        desk.adopt().expect("durable");
        assert_eq!(desk.leases().expect("readable"), [(ReplicaId(1), lease())]);
        assert_eq!(desk.result(ReplicaId(2)).expect("readable"), Some(result(output)));
        assert_eq!(desk.kept().expect("readable").len(), 1);
        let other = Desk::new(store, project(2));
        other.adopt().expect("durable");
        assert!(other.leases().expect("readable").is_empty());
    }
}
