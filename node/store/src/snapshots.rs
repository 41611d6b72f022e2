//! Snapshots of what the journal has led to, and the removal of records they make needless.
//!
//! ```text
//! journal    0 1 2 … 41 | 42 … 79 | 80 … 99          records by number
//! snapshots             S42       S80                state before record 42, before 80
//!            └─ deleted ┘└── kept ──────────┘
//! ```
//!
//! The two newest snapshots are kept, and the records after the older one: if the newest
//! cannot be read, the one before it and more records lead to the same state.
//!
//! # Crash behaviour
//!
//! A snapshot is there from the batch on that writes its head; the same batch deletes what it
//! makes needless. Parts without a head are drafts of a process that ended, and are deleted
//! when the store is opened.

use serde::{Deserialize, Serialize};

use dockercomp_protocol::codec;
use serde_bytes::ByteBuf;

use crate::db::{Batch, Db};
use crate::error::StoreError;
use crate::keys::Family;
use crate::{Store, journal, locked};

/// Version of [`Head`].
const VERSION: u8 = 1;
/// Bytes of a snapshot in one row.
const PART_BYTES: usize = 1 << 20;
/// Snapshots that are kept.
const KEPT: usize = 2;

const HEAD: u8 = 1;
const PART: u8 = 2;

/// What is said of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    v: u8,
    bytes: u64,
    parts: u32,
    /// BLAKE3 of all bytes.
    digest: ByteBuf,
}

impl Store {
    /// The numbers of the snapshots, the newest first: each stands for all records before it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn snapshots(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers = numbers(&self.inner.db)?;
        numbers.reverse();
        Ok(numbers)
    }

    /// The bytes of a snapshot; nothing if they are not what was written.
    ///
    /// # Errors
    /// [`StoreError::Database`], unless a checksum says that the snapshot is damaged.
    pub fn snapshot(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(head) = self.read(&head_key(number))? else { return Ok(None) };
        let Ok(head) = codec::decode::<Head>(&head) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(head.bytes).unwrap_or(0));
        for part in 0..head.parts {
            let Some(value) = self.read(&part_key(number, part))? else { return Ok(None) };
            bytes.extend(value);
        }
        let is_whole = head.v == VERSION && blake3::hash(&bytes).as_bytes()[..] == head.digest[..];
        Ok(is_whole.then_some(bytes))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.db.get_or_damaged(Family::Snapshots, key)?;
        Ok(found.unwrap_or(None))
    }

    /// Writes the state before record `number`, and deletes the records and snapshots that
    /// are needless then. All records before `number` must have been appended.
    ///
    /// The parts are written as they come, a synced batch with the head makes them count.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] if there is no room: nothing changed then. After
    /// [`StoreError::Database`] stop and open again.
    pub fn put_snapshot(&self, number: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let next = *locked(&self.inner.journal_next);
        assert!(number <= next, "a snapshot of records that were not appended yet");
        self.inner.space.admit_data(bytes.len() as u64)?;
        let mut parts = 0;
        for part in bytes.chunks(PART_BYTES) {
            let mut batch = self.inner.db.batch();
            batch.put(Family::Snapshots, &part_key(number, parts), part);
            batch.write()?;
            parts += 1;
        }
        let digest = ByteBuf::from(blake3::hash(bytes).as_bytes().to_vec());
        let head = Head { v: VERSION, bytes: bytes.len() as u64, parts, digest };

        let mut kept: Vec<u64> = self.snapshots()?;
        kept.retain(|&older| older < number);
        kept.truncate(KEPT - 1);
        // Until there is another to fall back on, that is all of history.
        let oldest = if kept.len() == KEPT - 1 { kept[KEPT - 2] } else { 0 };
        let mut batch = self.inner.db.batch();
        batch.put(Family::Snapshots, &head_key(number), &codec::encode(&head));
        batch.delete_range(Family::Snapshots, &head_key(0), &head_key(oldest));
        batch.delete_range(Family::Snapshots, &part_key(0, 0), &part_key(oldest, 0));
        batch.delete_range(Family::Journal, &journal::key(0), &journal::key(oldest));
        batch.write_synced()?;
        self.inner.db.reclaim(Family::Journal, &journal::key(0), &journal::key(oldest))?;
        self.inner.db.reclaim(Family::Snapshots, &part_key(0, 0), &part_key(oldest, 0))
    }

    /// Deletes the parts of snapshots that were never finished.
    pub(crate) fn forget_drafts(&self) -> Result<(), StoreError> {
        let finished = self.snapshots()?;
        let mut batch = self.inner.db.batch();
        let mut from = vec![PART];
        loop {
            let next = self.inner.db.scan(Family::Snapshots, &[PART], &from).next();
            let Some(pair) = next else { break };
            let number = number_of(&pair?.0)?;
            let Some(after) = number.checked_add(1) else { break };
            if !finished.contains(&number) {
                delete_parts(&mut batch, number);
            }
            from = part_key(after, 0);
        }
        batch.write()
    }
}

/// The number of the newest snapshot.
pub(crate) fn newest(db: &Db) -> Result<Option<u64>, StoreError> {
    Ok(numbers(db)?.pop())
}

/// The numbers of all snapshots, in order.
fn numbers(db: &Db) -> Result<Vec<u64>, StoreError> {
    db.scan(Family::Snapshots, &[HEAD], &[]).map(|pair| number_of(&pair?.0)).collect()
}

fn delete_parts(batch: &mut Batch<'_>, number: u64) {
    batch.delete_range(Family::Snapshots, &part_key(number, 0), &part_key(number, u32::MAX));
}

fn head_key(number: u64) -> Vec<u8> {
    [&[HEAD][..], &number.to_be_bytes()].concat()
}

fn part_key(number: u64, part: u32) -> Vec<u8> {
    [&[PART][..], &number.to_be_bytes(), &part.to_be_bytes()].concat()
}

fn number_of(key: &[u8]) -> Result<u64, StoreError> {
    let number = key.get(1..9).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    number.map(u64::from_be_bytes).ok_or(StoreError::Row { family: Family::Snapshots.name() })
}
