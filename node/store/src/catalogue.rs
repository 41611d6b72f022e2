//! What is known of each dataset, and how much room all of them take.
//!
//! A [`Row`] a dataset, kept in memory and written through: [`Catalogue::update`] puts the
//! changed row into the same batch as the blocks it counts, so the counters are exact after a
//! crash. Whoever changes the index holds the catalogue's lock, so there is one writer.
//!
//! # Quota
//!
//! ```text
//! used = bytes of stored blocks + bytes promised to fetches that go on
//! ```
//!
//! A promise is made before the first chunk is asked for and shrinks as chunks are stored, so
//! two fetches never fill the disk together. Blocks that two datasets share are counted for
//! each of them, and the database's own overhead is not counted.

use std::collections::BTreeMap;

use dockercomp_protocol::codec;
use dockercomp_protocol::content::{self, DAG_CBOR, Digest};
use dockercomp_protocol::manifest::Root;
use serde::{Deserialize, Serialize};

use crate::db::{Batch, Db};
use crate::error::StoreError;
use crate::keys::Family;
use crate::origins::Origin;
use crate::space::Space;
use crate::{Dataset, Kind, Want};

const VERSION: u8 = 1;

/// A dataset, as family `datasets` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    v: u8,
    pub(crate) name: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) pinned: bool,
    /// Every block is here.
    pub(crate) complete: bool,
    /// Its removal has begun and must be finished.
    pub(crate) removing: bool,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Bytes of stored chunks; one in family `small` counts once.
    pub(crate) held_bytes: u64,
    pub(crate) manifest_bytes: u64,
    /// How many of the held bytes lie in their owner's files and take no room here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) elsewhere_bytes: u64,
    /// Where all of its bytes can be read again, held or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    /// Grows with each use of any dataset: the smallest was used longest ago.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) used: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's shape
const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Row {
    pub(crate) const fn new(root: &Root, kind: Kind) -> Self {
        Self {
            v: VERSION,
            name: None,
            kind,
            pinned: false,
            complete: false,
            removing: false,
            files: root.files,
            bytes: root.bytes,
            held_bytes: 0,
            manifest_bytes: 0,
            elsewhere_bytes: 0,
            origin: None,
            used: 0,
        }
    }

    const fn stored(&self) -> u64 {
        (self.held_bytes + self.manifest_bytes).saturating_sub(self.elsewhere_bytes)
    }

    /// The row as the caller sees it; `fresh` are bytes that are not in the row yet.
    pub(crate) fn dataset(&self, root: &Digest, fresh: u64) -> Dataset {
        let held = (self.held_bytes + fresh).min(self.bytes);
        Dataset {
            root: content::from_digest(DAG_CBOR, *root),
            name: self.name.clone(),
            files: self.files,
            bytes: self.bytes,
            held_bytes: if self.complete { self.bytes } else { held },
            complete: self.complete,
            kind: self.kind,
            pinned: self.pinned,
            origin: self.origin.clone(),
        }
    }
}

/// All datasets. See the module documentation.
#[derive(Debug)]
pub(crate) struct Catalogue {
    rows: BTreeMap<Digest, Row>,
    /// Sum of what the rows say is stored.
    stored: u64,
    promises: BTreeMap<Digest, Vec<(Want, u64)>>,
    quota: Option<u64>,
    space: Space,
    /// Counts blocks found rotten: whoever remembers what is held must look again.
    pub(crate) forgotten: u64,
}

impl Catalogue {
    /// Reads all rows.
    pub(crate) fn load(db: &Db, quota: Option<u64>, space: Space) -> Result<Self, StoreError> {
        let unreadable = || StoreError::Row { family: Family::Datasets.name() };
        let mut rows = BTreeMap::new();
        for pair in db.scan(Family::Datasets, &[], &[]) {
            let (key, value) = pair?;
            let root = Digest::try_from(&key[..]).map_err(|_| unreadable())?;
            let row: Row = codec::decode(&value).map_err(|_| unreadable())?;
            rows.insert(root, row);
        }
        let stored = rows.values().map(Row::stored).sum();
        Ok(Self { rows, stored, promises: BTreeMap::new(), quota, space, forgotten: 0 })
    }

    pub(crate) fn get(&self, root: &Digest) -> Option<&Row> {
        self.rows.get(root)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &Row)> {
        self.rows.iter()
    }

    /// Adds a dataset, together with whatever else is in the batch.
    pub(crate) fn insert(&mut self, batch: &mut Batch<'_>, root: &Digest, row: Row) {
        batch.put(Family::Datasets, root, &codec::encode(&row));
        self.stored += row.stored();
        if let Some(old) = self.rows.insert(*root, row) {
            self.stored -= old.stored();
        }
    }

    /// Changes a row, together with whatever else is in the batch. False: there is none.
    pub(crate) fn update(
        &mut self,
        batch: &mut Batch<'_>,
        root: &Digest,
        change: impl FnOnce(&mut Row),
    ) -> bool {
        let Some(mut row) = self.rows.get(root).cloned() else { return false };
        change(&mut row);
        self.insert(batch, root, row);
        true
    }

    /// Takes a dataset out, together with whatever else is in the batch.
    pub(crate) fn delete(&mut self, batch: &mut Batch<'_>, root: &Digest) {
        batch.delete(Family::Datasets, root);
        self.release(root, None);
        if let Some(row) = self.rows.remove(root) {
            self.stored -= row.stored();
        }
    }

    /// The hard limit for what is stored and promised.
    pub(crate) const fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// Bytes stored and promised.
    pub(crate) fn used(&self) -> u64 {
        self.stored.saturating_add(self.promised())
    }

    fn promised(&self) -> u64 {
        self.promises.values().flatten().map(|(_, bytes)| *bytes).sum()
    }

    /// Refuses what does not fit into the quota or on the disk.
    pub(crate) fn admit(&self, needed: u64) -> Result<(), StoreError> {
        let used = self.used();
        match self.quota {
            Some(quota) if used.saturating_add(needed) > quota => {
                Err(StoreError::Quota { needed, used, quota })
            }
            _ => self.space.admit_data(needed.saturating_add(self.promised())),
        }
    }

    /// Whether something of a dataset is on its way.
    pub(crate) fn has_promises(&self, root: &Digest) -> bool {
        self.promises.contains_key(root)
    }

    /// Notes, in the batch, that a dataset is used.
    pub(crate) fn touch(&mut self, batch: &mut Batch<'_>, root: &Digest) {
        let newest = self.rows.values().map(|row| row.used).max().unwrap_or_default();
        self.update(batch, root, |row| row.used = newest + 1);
    }

    /// Promises room for what is still missing of a dataset, replacing an earlier promise.
    pub(crate) fn promise(
        &mut self,
        root: &Digest,
        want: Want,
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.release(root, Some(want));
        self.admit(bytes)?;
        self.promises.entry(*root).or_default().push((want, bytes));
        Ok(())
    }

    /// Takes back what was promised, for one want or for all of a dataset.
    pub(crate) fn release(&mut self, root: &Digest, want: Option<Want>) {
        if let Some(promises) = self.promises.get_mut(root) {
            promises.retain(|(promised, _)| want.is_some_and(|want| want != *promised));
            if promises.is_empty() {
                self.promises.remove(root);
            }
        }
    }

    /// Whether room for this much of a file is promised.
    pub(crate) fn is_promised(&self, root: &Digest, file: u64, bytes: u64) -> bool {
        let mut promises = self.promises.get(root).into_iter().flatten();
        promises.any(|(want, left)| want.covers(file) && *left >= bytes)
    }

    /// Counts bytes of a file as stored instead of promised.
    pub(crate) fn spend(&mut self, root: &Digest, file: u64, bytes: u64) {
        let Some(promises) = self.promises.get_mut(root) else { return };
        for (want, left) in promises.iter_mut() {
            if want.covers(file) {
                *left = left.saturating_sub(bytes);
            }
        }
        promises.retain(|(_, left)| *left > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(quota: u64) -> Catalogue {
        Catalogue {
            rows: BTreeMap::new(),
            stored: 0,
            promises: BTreeMap::new(),
            quota: Some(quota),
            space: Space::new(".".into(), 0),
            forgotten: 0,
        }
    }

    #[test]
    fn row_is_golden() {
        let root = Root {
            v: 1,
            chunker: dockercomp_protocol::manifest::Chunker::default(),
            files: 2,
            bytes: 300,
            pages: vec![],
        };
        let row = Row { name: Some("n".into()), ..Row::new(&root, Kind::Fetched) };
        let bytes = codec::encode(&row);
        assert_eq!(codec::decode::<Row>(&bytes).expect("its own encoding"), row);
        let expected: &[u8] = b"\xaaav\x01dkindgfetcheddnameanebytes\x19\x01\x2cefiles\x02\
            fpinned\xf4hcomplete\xf4hremoving\xf4jheld_bytes\x00nmanifest_bytes\x00";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn promises_of_two_fetches_are_kept_apart() {
        let mut catalogue = catalogue(100);
        let (one, two) = ([1; 32], [2; 32]);
        catalogue.promise(&one, Want::All, 60).expect("it fits");
        assert!(matches!(
            catalogue.promise(&two, Want::All, 41),
            Err(StoreError::Quota { needed: 41, used: 60, quota: 100 })
        ));
        catalogue.promise(&two, Want::Files { first: 4, count: 2 }, 40).expect("it fits");
        assert!(!catalogue.is_promised(&two, 3, 1));
        assert!(catalogue.is_promised(&two, 5, 40));
        catalogue.spend(&two, 5, 30);
        assert_eq!(catalogue.used(), 70);
        catalogue.release(&one, None);
        assert_eq!(catalogue.used(), 10);
    }

    #[test]
    fn a_promise_is_replaced_not_added() {
        let mut catalogue = catalogue(100);
        catalogue.promise(&[1; 32], Want::All, 60).expect("it fits");
        catalogue.promise(&[1; 32], Want::All, 70).expect("it fits");
        assert_eq!(catalogue.used(), 70);
    }
}
